/* Row loops of matmul in words (simd_int.h): inputs on their way in, sums on their way out, and the
 * f32 tiles. Included once by each cpu_matmul*.c that is compiled for another instruction set. */
#include "kernels/cpu/cpu_int.h"
#include "kernels/cpu/cpu_tile_body.h"

static float largest(const float *x, int32_t cols)
{
    vf top = vf_zero();
    for (int32_t c = 0; c < cols; c += VF_WIDTH) {
        top = vf_max(top, vf_abs(vf_load_some(x + c, cols - c)));
    }
    return vf_top(top);
}

/* The same two operations as lore_quantize_row, so the same integers. An input that is not finite
 * makes the sum of all a NaN, and that is then the scale: the largest may miss a NaN. */
static float quantize(lore_row_kind kind, void *to, const float *x, int32_t cols, int32_t depth)
{
    const float top = largest(x, cols);
    const bool is_zero = top < 1e-30f;
    const vf inverse = vf_set(is_zero ? 0.0f : 127.0f / top);
    vf total = vf_zero();
    const size_t size = kind == LORE_ROW_S16 ? 2 : 1;
    int32_t c = 0;
    for (; c + VF_WIDTH <= cols; c += VF_WIDTH) {
        const vf scaled = vf_mul(vf_load(x + c), inverse);
        total = vf_add(total, scaled);
        if (kind == LORE_ROW_S16) {
            vf_store_i16((int16_t *)to + c, scaled);
        } else if (kind == LORE_ROW_U8) {
            vf_store_u8((uint8_t *)to + c, scaled);
        } else {
            vf_store_i8((int8_t *)to + c, scaled);
        }
    }
    if (c < cols) { /* the ragged end goes through a full vector beside the row */
        int16_t words[VF_WIDTH];
        uint8_t bytes[VF_WIDTH];
        const vf scaled = vf_mul(vf_load_part(x + c, cols - c), inverse);
        total = vf_add(total, scaled);
        vf_store_i16(words, scaled);
        if (kind == LORE_ROW_U8) {
            vf_store_u8(bytes, scaled);
        } else {
            vf_store_i8((int8_t *)bytes, scaled);
        }
        memcpy((char *)to + (size_t)c * size, kind == LORE_ROW_S16 ? (void *)words : (void *)bytes,
               (size_t)(cols - c) * size);
    }
    memset((char *)to + (size_t)cols * size, kind == LORE_ROW_U8 ? 0x80 : 0,
           (size_t)(depth - cols) * size);
    const float sum = vf_sum(total);
    return sum - sum != 0.0f ? NAN : is_zero ? 1.0f : top / 127.0f;
}

/* One unit: `cols` inputs into the integers of a plane and of the one below it (NULL: none), which
 * holds what is left over. Both are written to the end of the last vector, inside of the unit.
 * `largest` may miss a NaN, but an input that is not finite leaves no number of steps that could be
 * a sum: the scale is then made a NaN, and so is every output of the row. Sums are exact in f32. */
static void quantize_unit(int8_t *to, int8_t *low, const float *x, int32_t cols, float top,
                          lore_unit *unit, lore_unit *low_unit)
{
    const bool is_zero = top < 1e-30f;
    const vf inverse = vf_set(is_zero ? 0.0f : 127.0f / top);
    vf total = vf_zero(), low_total = vf_zero();
    for (int32_t c = 0; c < cols; c += VF_WIDTH) {
        const vf scaled = vf_mul(vf_load_some(x + c, cols - c), inverse);
        const vf steps = vf_round(scaled);
        total = vf_add(total, steps);
        vf_store_i8(to + c, steps);
        if (low != NULL) {
            const vf rest = vf_mul(vf_sub(scaled, steps), vf_set((float)LORE_LOW_PARTS));
            low_total = vf_add(low_total, vf_round(rest));
            vf_store_i8(low + c, rest);
        }
    }
    const float sum = vf_sum(total);
    const bool is_finite = fabsf(sum) <= 127.0f * LORE_UNIT_MAX;
    unit->scale = !is_finite ? NAN : is_zero ? 1.0f : top / 127.0f;
    unit->sum = is_finite ? (int32_t)sum : 0;
    low_unit->scale = low != NULL && is_finite ? unit->scale / (float)LORE_LOW_PARTS : 0.0f;
    low_unit->sum = low != NULL && is_finite ? (int32_t)vf_sum(low_total) : 0;
}

static float root_mean_square(const float *x, int32_t cols)
{
    vf sum = vf_zero();
    for (int32_t c = 0; c < cols; c += VF_WIDTH) {
        const vf some = vf_load_some(x + c, cols - c);
        sum = vf_fma(some, some, sum);
    }
    return sqrtf(vf_sum(sum) / (float)cols);
}

static void prepare_units(char *to, const float *x, const lore_unit_row *row)
{
    float gathered[LORE_UNIT_MAX];
    lore_unit *units = (void *)(to + row->depth), *low_units = (void *)(to + row->low + row->depth);
    const float limit =
        row->low > 0 ? (float)LORE_OUTLIER_FACTOR * root_mean_square(x, row->cols) : 0.0f;
    memset(to, 0, (size_t)row->depth);
    memset(to + row->low, 0, (size_t)row->depth); /* the same bytes where there is no low plane */
    for (int32_t c = 0, u = 0; c < row->cols; c += row->unit, u++) {
        const int32_t count = row->cols - c < row->unit ? row->cols - c : row->unit;
        const float *from = x + c;
        if (row->columns != NULL) {
            for (int32_t k = 0; k < count; k++) {
                gathered[k] = x[row->columns[c + k]];
            }
            from = gathered;
        }
        const float top = largest(from, count);
        const bool has_low = row->low > 0 && top > limit;
        lore_unit none;
        quantize_unit((int8_t *)to + c, has_low ? (int8_t *)to + row->low + c : NULL, from, count,
                      top, &units[u], row->low > 0 ? &low_units[u] : &none);
    }
}

static float prepare_row(lore_row_kind kind, void *to, const float *x, int32_t cols, int32_t depth)
{
    int32_t c = 0;
    switch (kind) {
    case LORE_ROW_BF16_WIDE:
        for (; c < cols; c += VF_WIDTH) {
            vf_store_some((float *)to + c, cols - c, vf_round_bf16(vf_load_some(x + c, cols - c)));
        }
        memset((float *)to + cols, 0, (size_t)(depth - cols) * sizeof(float));
        return 1.0f;
    case LORE_ROW_BF16:
        for (; c + VF_WIDTH <= cols; c += VF_WIDTH) {
            vf_store_bf16((uint16_t *)to + c, vf_load(x + c));
        }
        if (c < cols) {
            uint16_t halves[VF_WIDTH];
            vf_store_bf16(halves, vf_load_part(x + c, cols - c));
            memcpy((uint16_t *)to + c, halves, (size_t)(cols - c) * sizeof(uint16_t));
        }
        memset((uint16_t *)to + cols, 0, (size_t)(depth - cols) * sizeof(uint16_t));
        return 1.0f;
    case LORE_ROW_U8:
    case LORE_ROW_S8:
    case LORE_ROW_S16:
        return quantize(kind, to, x, cols, depth);
    case LORE_ROW_UNITS: /* prepare_units */
    case LORE_ROW_F32:
        break;
    }
    LORE_ASSERT(false); /* f32 rows are used where they lie */
    return 1.0f;
}

/* One vector of columns, all rows. A missing scale is 1 and a missing bias 0: cheaper than asking
 * for each element. */
LORE_INLINE void finish_columns(const lore_finish *tile, int32_t col, int32_t left)
{
    const vf scale = tile->scales != NULL ? vf_load_some(tile->scales + col, left) : vf_set(1.0f);
    const vf bias = tile->bias != NULL ? vf_load_some(tile->bias + col, left) : vf_zero();
    for (int32_t r = 0; r < tile->rows; r++) {
        const int64_t at = (int64_t)r * tile->sums_stride + col;
        float *out = tile->out + r * tile->out_stride + col;
        vf value, row_scale = scale;
        if (tile->is_integer) {
            value = vf_load_i32((const int32_t *)tile->sums + at);
            row_scale = vf_mul(scale, vf_set(tile->row_scales[r]));
        } else {
            value = vf_load((const float *)tile->sums + at);
        }
        value = vf_fma(value, row_scale, bias);
        if (tile->activation != LORE_ACT_NONE) {
            value = vf_activate(value, tile->activation);
        }
        if (tile->is_accumulating) {
            value = vf_add(value, vf_load_some(out, left));
        }
        vf_store_some(out, left, value);
    }
}

static void finish(const lore_finish *tile)
{
    int32_t c = 0;
    for (; c + VF_WIDTH <= tile->cols; c += VF_WIDTH) {
        finish_columns(tile, c, VF_WIDTH);
    }
    if (c < tile->cols) {
        finish_columns(tile, c, tile->cols - c);
    }
}

/* ---- f32 tiles, weights f32 or bf16 ---- */

static void sum_f32(const lore_tile *tile)
{
    tile_rows(tile->rows, false, false, tile->groups, tile->a,
              tile->a_stride / (int64_t)sizeof(float), tile->b, tile->sums, TILE_PANEL);
}

static const lore_matmul_form form_f32 = {LORE_ROW_F32, TILE_ROWS, false,  false,
                                          NULL,         NULL,      sum_f32};
