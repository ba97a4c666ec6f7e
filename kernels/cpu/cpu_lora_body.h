/* The loops of adapters in words (simd_int.h): turned rows against panels of 16 matrix rows, whose
 * lanes are outputs. Included once by each cpu_lora_*.c that is compiled for another instruction
 * set.
 *
 * An adapter is mostly wanted by one row: each group is then one load of weights and one product
 * with 32 bits of the row, and memory is the bound. Sums go in two chains, even and odd groups,
 * however many rows there are: so a row's sums are the same bits whoever else has its adapter. */
#include "kernels/cpu/cpu_int.h"
#include "kernels/cpu/simd_int.h"

enum {
    LORA_VECTORS = LORE_LORA_PANEL / VF_WIDTH,
    LORA_ROWS = VF_WIDTH == 16  ? 8
                : VF_WIDTH == 8 ? 2
                                : 1, /* of a tile: its sums stay in registers */
    LORA_CHAINS = 2
};

/* Bytes of a turned row that one group takes. */
LORE_INLINE int32_t group_bytes(const lore_lora_form form)
{
    return form == LORE_LORA_WIDE ? 8 : 4;
}

LORE_INLINE vf set_floats(const char *p)
{
    float value;
    memcpy(&value, p, sizeof value);
    return vf_set(value);
}

#if defined(__AVX512F__)

/* Two bf16 or four bytes of a row times those of each lane. Sums of bytes are integers in the bits
 * of a vf. */
LORE_INLINE vf add_dots(const lore_lora_form form, vf sum, const char *a, vf w)
{
    int32_t group;
    memcpy(&group, a, sizeof group);
    const __m512i x = _mm512_set1_epi32(group), weights = _mm512_castps_si512(w);
    if (form == LORE_LORA_INT8) {
        return _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(sum), weights, x));
    }
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)x);
}

/* Without what the zero point of the weights has added. */
LORE_INLINE vf whole_sums(vf first, vf second, int32_t sum)
{
    const __m512i both = _mm512_add_epi32(_mm512_castps_si512(first), _mm512_castps_si512(second));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(both, _mm512_set1_epi32(LORE_INT8_ZERO * sum)));
}

#else

/* There is no such form. */
LORE_INLINE vf add_dots(const lore_lora_form form, vf sum, const char *a, vf w)
{
    (void)form;
    (void)a;
    (void)w;
    return sum;
}

LORE_INLINE vf whole_sums(vf first, vf second, int32_t sum)
{
    (void)second;
    (void)sum;
    return first;
}

#endif

/* One group of a row, at a, times that of the panel's rows. */
LORE_INLINE vf add_group(const lore_lora_form form, vf sum, const char *a, vf w)
{
    if (form == LORE_LORA_F32) {
        return vf_fma(set_floats(a), w, sum);
    }
    if (form == LORE_LORA_WIDE) {
        sum = vf_fma(set_floats(a), vf_pair_first(w), sum);
        return vf_fma(set_floats(a + sizeof(float)), vf_pair_second(w), sum);
    }
    return add_dots(form, sum, a, w);
}

/* A tile's sums to their rows: lanes begin .. end-1 of the panel that starts at column `col`. */
LORE_INLINE void store_row(const lore_lora_job *job, int32_t r, int32_t col, int32_t begin,
                           int32_t end, const vf *sums)
{
    float *out = job->out + (job->to != NULL ? job->to[r] : r) * job->out_stride + col;
    if (begin > 0) { /* another item has the lanes before: the panel straddles two */
        float lanes[LORE_LORA_PANEL];
        for (int32_t v = 0; v < LORA_VECTORS; v++) {
            vf_store(lanes + v * VF_WIDTH, sums[v]);
        }
        for (int32_t i = begin; i < end; i++) {
            out[i] = job->is_accumulating ? out[i] + lanes[i] : lanes[i];
        }
        return;
    }
#pragma GCC unroll 2
    for (int32_t v = 0; v < LORA_VECTORS; v++) {
        const int32_t left = end - v * VF_WIDTH;
        if (left > 0) {
            float *to = out + v * VF_WIDTH;
            const vf before = job->is_accumulating ? vf_load_some(to, left) : vf_zero();
            vf_store_some(to, left, vf_add(before, sums[v]));
        }
    }
}

/* So many rows from `row` on, times one panel of `width` rows. */
LORE_INLINE void multiply_tile(const lore_lora_form form, const int32_t rows, const bool is_whole,
                               const lore_lora_job *job, int32_t row, int32_t panel)
{
    const int32_t col = panel * LORE_LORA_PANEL, left = job->matrix_rows - col;
    const int32_t width = is_whole ? LORE_LORA_PANEL : left;
    const char *b =
        job->matrix + (size_t)panel * lore_lora_panel_bytes(form, LORE_LORA_PANEL, job->groups);
    const char *a = job->rows + row * job->row_bytes;
    vf sum[LORA_CHAINS][LORA_ROWS][LORA_VECTORS], scale = vf_set(1.0f);
#pragma GCC unroll 2
    for (int32_t i = 0; i < LORA_CHAINS; i++) {
#pragma GCC unroll 8
        for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 16
            for (int32_t v = 0; v < LORA_VECTORS; v++) {
                sum[i][r][v] = vf_zero();
            }
        }
    }
    if (form == LORE_LORA_INT8) {
        scale = set_floats(b);
        b += sizeof(float);
    }
    for (int32_t g = 0; g < job->groups; g += LORA_CHAINS) {
#pragma GCC unroll 2
        for (int32_t i = 0; i < LORA_CHAINS; i++) {
            if (i > 0 && g + i == job->groups) {
                break;
            }
            const float *lanes =
                (const float *)(const void *)(b + (size_t)(g + i) * 4 * (size_t)width);
            vf w[LORA_VECTORS];
#pragma GCC unroll 16
            for (int32_t v = 0; v < LORA_VECTORS; v++) {
                const int32_t some = width - v * VF_WIDTH;
                w[v] = is_whole   ? vf_load(lanes + v * VF_WIDTH)
                       : some > 0 ? vf_load_some(lanes + v * VF_WIDTH, some)
                                  : vf_zero();
            }
            const char *x = a + sizeof(lore_lora_head) + (int64_t)(g + i) * group_bytes(form);
#pragma GCC unroll 8
            for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 16
                for (int32_t v = 0; v < LORA_VECTORS; v++) {
                    sum[i][r][v] = add_group(form, sum[i][r][v], x + r * job->row_bytes, w[v]);
                }
            }
        }
    }
    const int32_t begin = job->begin > col ? job->begin - col : 0;
    const int32_t end = job->end - col < width ? job->end - col : width;
#pragma GCC unroll 8
    for (int32_t r = 0; r < rows; r++) {
        const lore_lora_head *head = (const void *)(a + r * job->row_bytes);
        const vf factor = vf_mul(scale, vf_set(head->scale));
        vf total[LORA_VECTORS];
#pragma GCC unroll 16
        for (int32_t v = 0; v < LORA_VECTORS; v++) {
            total[v] = vf_mul(factor, form == LORE_LORA_INT8
                                          ? whole_sums(sum[0][r][v], sum[1][r][v], head->sum)
                                          : vf_add(sum[0][r][v], sum[1][r][v]));
        }
        store_row(job, row + r, col, begin, end, total);
    }
}

/* One row times whole panels, first .. last-1: what most adapters of a step get. */
LORE_INLINE void multiply_row(const lore_lora_form form, const lore_lora_job *job, int32_t row,
                              int32_t first, int32_t last)
{
    const char *a = job->rows + row * job->row_bytes;
    const lore_lora_head head = *(const lore_lora_head *)(const void *)a;
    const bool is_int8 = form == LORE_LORA_INT8;
    const size_t panel_bytes = lore_lora_panel_bytes(form, LORE_LORA_PANEL, job->groups);
    const char *b = job->matrix + (size_t)first * panel_bytes;
    float *out = job->out + (job->to != NULL ? job->to[row] : row) * job->out_stride;
    for (int32_t p = first; p < last; p++, b += panel_bytes) {
        const char *lanes = b + (is_int8 ? sizeof(float) : 0), *x = a + sizeof head;
        const vf factor = is_int8 ? vf_mul(set_floats(b), vf_set(head.scale)) : vf_set(head.scale);
        vf sum[LORA_CHAINS][LORA_VECTORS];
#pragma GCC unroll 16
        for (int32_t v = 0; v < LORA_VECTORS; v++) {
            sum[0][v] = sum[1][v] = vf_zero();
        }
        for (int32_t g = 0; g < job->groups; g += LORA_CHAINS) {
#pragma GCC unroll 2
            for (int32_t i = 0; i < LORA_CHAINS; i++) {
                if (i > 0 && g + i == job->groups) {
                    break;
                }
#pragma GCC unroll 16
                for (int32_t v = 0; v < LORA_VECTORS; v++) {
                    const vf w = vf_load((const float *)(const void *)lanes + v * VF_WIDTH);
                    sum[i][v] = add_group(form, sum[i][v], x, w);
                }
                __builtin_prefetch(lanes + LORE_LORA_AHEAD, 0, 2);
                lanes += LORE_LORA_PANEL * sizeof(uint32_t);
                x += group_bytes(form);
            }
        }
#pragma GCC unroll 16
        for (int32_t v = 0; v < LORA_VECTORS; v++) {
            float *to = out + p * LORE_LORA_PANEL + v * VF_WIDTH;
            const vf total =
                is_int8 ? whole_sums(sum[0][v], sum[1][v], head.sum) : vf_add(sum[0][v], sum[1][v]);
            const vf before = job->is_accumulating ? vf_load(to) : vf_zero();
            vf_store(to, vf_add(before, vf_mul(factor, total)));
        }
    }
}

/* All rows against each panel in turn, which stays in the first cache; whole ones, and those that
 * are cut off by the matrix's end or that another item has a share of. */
LORE_INLINE void multiply_form(const lore_lora_form form, const lore_lora_job *job)
{
    const int32_t width = LORE_LORA_PANEL, last = (job->end + width - 1) / width;
    for (int32_t p = job->begin / width, next; p < last; p = next) {
        const bool is_whole = job->begin <= p * width && job->end >= (p + 1) * width;
        int32_t r = 0;
        next = is_whole && job->row_count < LORA_ROWS ? job->end / width : p + 1;
        for (; is_whole && r + LORA_ROWS <= job->row_count; r += LORA_ROWS) {
            multiply_tile(form, LORA_ROWS, true, job, r, p);
        }
        for (; is_whole && r < job->row_count; r++) {
            multiply_row(form, job, r, p, next);
        }
        for (; r < job->row_count; r++) {
            multiply_tile(form, 1, job->matrix_rows >= (p + 1) * width, job, r, p);
        }
    }
}

/* Symmetric int8, rounded as lore_quantize_row does. An input that is not finite makes every sum of
 * the row NaN. */
static void turn_int8(char *to, const float *x, int32_t cols, float scale)
{
    lore_lora_head *head = (void *)to;
    int8_t *bytes = (int8_t *)(to + sizeof *head);
    vf top = vf_zero(), total = vf_zero();
    for (int32_t c = 0; c < cols; c += VF_WIDTH) {
        top = vf_max(top, vf_abs(vf_load_some(x + c, cols - c)));
    }
    const float largest = vf_top(top);
    const bool is_zero = largest < 1e-30f;
    const vf inverse = vf_set(is_zero ? 0.0f : 127.0f / largest);
    for (int32_t c = 0; c < cols; c += VF_WIDTH) { /* up to the end of a vector: there is room */
        const vf steps = vf_round(vf_mul(vf_load_some(x + c, cols - c), inverse));
        total = vf_add(total, steps);
        vf_store_i8(bytes + c, steps);
    }
    const float sum = vf_sum(total); /* whole numbers below 2^24: exact */
    const bool is_finite = fabsf(sum) <= 127.0f * (float)cols;
    head->scale = !is_finite ? NAN : is_zero ? scale : scale * (largest / 127.0f);
    head->sum = is_finite ? (int32_t)sum : 0;
}

static void turn(lore_lora_form form, char *to, const float *x, int32_t cols, float scale)
{
    char *data = to + sizeof(lore_lora_head);
    if (form == LORE_LORA_INT8) {
        turn_int8(to, x, cols, scale);
        return;
    }
    *(lore_lora_head *)(void *)to = (lore_lora_head){.scale = scale};
    if (form == LORE_LORA_F32) {
        memcpy(data, x, (size_t)cols * sizeof *x);
        return;
    }
    for (int32_t c = 0; c < cols; c += VF_WIDTH) { /* zeros behind, to the end of a vector */
        const vf some = vf_load_some(x + c, cols - c);
        if (form == LORE_LORA_WIDE) {
            vf_store((float *)(void *)data + c, vf_round_bf16(some));
        } else {
            vf_store_bf16((uint16_t *)(void *)data + c, some);
        }
    }
    if (form == LORE_LORA_WIDE && VF_WIDTH == 1 && cols % 2 != 0) {
        ((float *)(void *)data)[cols] = 0.0f;
    }
}
