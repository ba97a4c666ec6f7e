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

/* The same two operations as lore_quantize_row, so the same integers. */
static float quantize(lore_row_kind kind, void *to, const float *x, int32_t cols, int32_t depth)
{
    const float top = largest(x, cols);
    const bool is_zero = top < 1e-30f;
    const vf inverse = vf_set(is_zero ? 0.0f : 127.0f / top);
    const size_t size = kind == LORE_ROW_S16 ? 2 : 1;
    int32_t c = 0;
    for (; c + VF_WIDTH <= cols; c += VF_WIDTH) {
        const vf scaled = vf_mul(vf_load(x + c), inverse);
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
    return is_zero ? 1.0f : top / 127.0f;
}

/* Up to LORE_UNIT_MAX elements; *sum of the integers is exact in f32. Returns the scale. */
static float quantize_unit(int8_t *to, const float *x, int32_t cols, int32_t *sum)
{
    const float top = largest(x, cols);
    const bool is_zero = top < 1e-30f;
    const vf inverse = vf_set(is_zero ? 0.0f : 127.0f / top);
    vf total = vf_zero();
    int32_t c = 0;
    for (; c + VF_WIDTH <= cols; c += VF_WIDTH) {
        const vf scaled = vf_mul(vf_load(x + c), inverse);
        total = vf_add(total, vf_round(scaled));
        vf_store_i8(to + c, scaled);
    }
    if (c < cols) {
        int8_t bytes[VF_WIDTH];
        const vf scaled = vf_mul(vf_load_part(x + c, cols - c), inverse);
        total = vf_add(total, vf_round(scaled));
        vf_store_i8(bytes, scaled);
        memcpy(to + c, bytes, (size_t)(cols - c));
    }
    const float all = vf_sum(total);
    *sum = fabsf(all) <= 127.0f * LORE_UNIT_MAX ? (int32_t)all : 0; /* no number: the scale tells */
    return is_zero ? 1.0f : top / 127.0f;
}

static void prepare_units(int8_t *to, lore_unit *units, const float *x, const int32_t *columns,
                          int32_t cols, int32_t unit)
{
    float gathered[LORE_UNIT_MAX];
    for (int32_t c = 0; c < cols; c += unit, to += unit, units++) {
        const int32_t count = cols - c < unit ? cols - c : unit;
        const float *from = x + c;
        if (columns != NULL) {
            for (int32_t k = 0; k < count; k++) {
                gathered[k] = x[columns[c + k]];
            }
            from = gathered;
        }
        units->scale = quantize_unit(to, from, count, &units->sum);
        memset(to + count, 0, (size_t)(unit - count));
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
