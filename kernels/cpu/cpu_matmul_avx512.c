/* Matmul on AVX-512: f32 by fused multiply-add, bf16 by vdpbf16ps, int8 and int4 by vpdpbusd.
 *
 * A register tile is 6 rows x 64 outputs, 24 accumulators. The two dot-product instructions take a
 * group of inputs (2 bf16, 4 int8: 32 bits) per lane, so their panels interleave groups: [depth /
 * group][64][group], and one cache line of weights serves 16 outputs. vpdpbusd wants one unsigned
 * operand: rows are quantised to int8 and stored plus 128, and sums start at -128 times the sum of
 * the weights, which makes them exact again. Of int4 the weights are the unsigned side as they are;
 * one line of them makes two of bytes by a mask and a shift, which run beside the products, and at
 * the end of each unit its sums go through the scales into f32. */
#include "kernels/cpu/cpu_matmul_body.h"

enum { LANES = 16, VECTORS = 4, PANEL = LANES * VECTORS, ROWS = 6, LINE_BYTES = 64 };

/* Ask for the lines that this group's share of the next panel is; the second-level cache is where
 * the tile that needs them will look. */
LORE_INLINE void fetch_ahead(const char *ahead, int32_t lines)
{
    for (int32_t i = 0; i < lines; i++) {
        _mm_prefetch(ahead + (int64_t)i * LINE_BYTES, _MM_HINT_T1);
    }
}

/* 32 bits of a row (two bf16 or four bytes) in every lane. */
LORE_INLINE __m512i set_group(const char *p)
{
    int32_t group;
    memcpy(&group, p, sizeof group);
    return _mm512_set1_epi32(group);
}

LORE_INLINE void sum_rows_int8(const int32_t rows, const lore_tile *tile)
{
    const char *a = tile->a, *b = tile->b, *ahead = tile->ahead;
    const int64_t a_stride = tile->a_stride;
    const int32_t lines = tile->ahead_lines;
    int32_t *sums = tile->sums;
    __m512i sum[ROWS][VECTORS];
#pragma GCC unroll 4
    for (int32_t v = 0; v < VECTORS; v++) {
        const __m512i first = _mm512_loadu_si512(tile->start + v * LANES);
#pragma GCC unroll 6
        for (int32_t r = 0; r < rows; r++) {
            sum[r][v] = first;
        }
    }
    for (int32_t g = 0; g < tile->groups; g++) {
        fetch_ahead(ahead, lines);
        ahead += (int64_t)lines * LINE_BYTES;
        __m512i w[VECTORS];
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            w[v] = _mm512_loadu_si512(b + ((int64_t)g * VECTORS + v) * LINE_BYTES);
        }
#pragma GCC unroll 6
        for (int32_t r = 0; r < rows; r++) {
            const __m512i x = set_group(a + r * a_stride + 4 * (int64_t)g);
#pragma GCC unroll 4
            for (int32_t v = 0; v < VECTORS; v++) {
                sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], x, w[v]);
            }
        }
    }
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            _mm512_storeu_si512(sums + r * PANEL + v * LANES, sum[r][v]);
        }
    }
}

LORE_INLINE void sum_rows_bf16(const int32_t rows, const lore_tile *tile)
{
    const char *a = tile->a, *b = tile->b, *ahead = tile->ahead;
    const int64_t a_stride = tile->a_stride;
    const int32_t lines = tile->ahead_lines;
    float *sums = tile->sums;
    __m512 sum[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            sum[r][v] = _mm512_setzero_ps();
        }
    }
    for (int32_t g = 0; g < tile->groups; g++) {
        fetch_ahead(ahead, lines);
        ahead += (int64_t)lines * LINE_BYTES;
        __m512i w[VECTORS];
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            w[v] = _mm512_loadu_si512(b + ((int64_t)g * VECTORS + v) * LINE_BYTES);
        }
#pragma GCC unroll 6
        for (int32_t r = 0; r < rows; r++) {
            const __m512i x = set_group(a + r * a_stride + 4 * (int64_t)g);
#pragma GCC unroll 4
            for (int32_t v = 0; v < VECTORS; v++) {
                sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)x, (__m512bh)w[v]);
            }
        }
    }
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            _mm512_storeu_ps(sums + r * PANEL + v * LANES, sum[r][v]);
        }
    }
}

/* ---- int4 ---- */

enum { INT4_COLUMNS = 8 };

/* One half of the line's columns: products with four inputs of each row. */
LORE_INLINE void add_half(const int32_t rows, const char *b, const int32_t shift, const char *a,
                          int64_t a_stride, __m512i sum[ROWS][VECTORS])
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i w[VECTORS];
#pragma GCC unroll 4
    for (int32_t v = 0; v < VECTORS; v++) {
        const __m512i both = _mm512_loadu_si512(b + v * LINE_BYTES);
        w[v] = _mm512_and_si512(shift > 0 ? _mm512_srli_epi16(both, 4) : both, low);
    }
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
        const __m512i x = set_group(a + r * a_stride);
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], w[v], x);
        }
    }
}

/* The integer sums of one unit. */
LORE_INLINE void sum_unit(const int32_t rows, const lore_tile *tile, const char *a, const char *b,
                          const char *ahead, int32_t *sums)
{
    const int64_t a_stride = tile->a_stride;
    const int32_t lines = tile->ahead_lines;
    __m512i sum[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            sum[r][v] = _mm512_setzero_si512();
        }
    }
    for (int32_t g = 0; g < tile->unit_groups; g++) {
        fetch_ahead(ahead, lines);
        ahead += (int64_t)lines * LINE_BYTES;
        add_half(rows, b, 0, a, a_stride, sum);
        add_half(rows, b, 4, a + INT4_COLUMNS / 2, a_stride, sum);
        a += INT4_COLUMNS;
        b += VECTORS * LINE_BYTES;
    }
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            _mm512_store_si512(sums + r * PANEL + v * LANES, sum[r][v]);
        }
    }
}

/* All integers here are below 2^18, so that f32 holds them and their differences exactly. */
void lore_add_unit_avx512(const lore_tile *tile, int32_t index, const void *scales,
                          const int32_t *sums)
{
    const char *facts = (const char *)tile->a + (int64_t)tile->groups * INT4_COLUMNS;
    const uint8_t *zeros = (const uint8_t *)scales + VECTORS * LINE_BYTES;
    vf scale[VECTORS], zero[VECTORS];
#pragma GCC unroll 4
    for (int32_t v = 0; v < VECTORS; v++) {
        scale[v] = vf_load((const float *)scales + v * LANES);
        zero[v] = vf_set(8.0f);
        if (tile->has_zeros) {
            const __m128i bytes = _mm_loadu_si128((const void *)(zeros + v * LANES));
            zero[v] = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
        }
    }
    for (int32_t r = 0; r < tile->rows; r++, facts += tile->a_stride) {
        const lore_unit *unit = (const lore_unit *)(const void *)facts + index;
        const vf row_scale = vf_set(unit->scale), row_sum = vf_set(-(float)unit->sum);
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            const int32_t at = r * PANEL + v * LANES;
            float *out = (float *)tile->sums + at;
            const vf before = index == 0 ? vf_zero() : vf_load(out);
            const vf sum = vf_fma(zero[v], row_sum, vf_load_i32(sums + at));
            vf_store(out, vf_fma(sum, vf_mul(scale[v], row_scale), before));
        }
    }
}

LORE_INLINE void sum_rows_int4(const int32_t rows, const lore_tile *tile)
{
    int32_t sums[ROWS * PANEL] __attribute__((aligned(LINE_BYTES)));
    const char *a = tile->a, *b = tile->b, *ahead = tile->ahead;
    const int32_t groups = tile->unit_groups, units = tile->groups / groups;
    for (int32_t u = 0; u < units; u++) {
        const char *scales = b + groups * VECTORS * LINE_BYTES;
        sum_unit(rows, tile, a, b, ahead, sums);
        lore_add_unit_avx512(tile, u, scales, sums);
        a += groups * INT4_COLUMNS;
        b = scales + VECTORS * LINE_BYTES + (tile->has_zeros ? PANEL : 0);
        ahead += (int64_t)groups * tile->ahead_lines * LINE_BYTES;
    }
}

static void sum_int4(const lore_tile *tile)
{
    switch (tile->rows) {
    case 1:
        sum_rows_int4(1, tile);
        return;
    case 2:
        sum_rows_int4(2, tile);
        return;
    case 3:
        sum_rows_int4(3, tile);
        return;
    case 4:
        sum_rows_int4(4, tile);
        return;
    case 5:
        sum_rows_int4(5, tile);
        return;
    default:
        sum_rows_int4(6, tile);
        return;
    }
}

/* ---- each number of rows its own loop ---- */

static void sum_int8(const lore_tile *tile)
{
    switch (tile->rows) {
    case 1:
        sum_rows_int8(1, tile);
        return;
    case 2:
        sum_rows_int8(2, tile);
        return;
    case 3:
        sum_rows_int8(3, tile);
        return;
    case 4:
        sum_rows_int8(4, tile);
        return;
    case 5:
        sum_rows_int8(5, tile);
        return;
    default:
        sum_rows_int8(6, tile);
        return;
    }
}

static void sum_bf16(const lore_tile *tile)
{
    switch (tile->rows) {
    case 1:
        sum_rows_bf16(1, tile);
        return;
    case 2:
        sum_rows_bf16(2, tile);
        return;
    case 3:
        sum_rows_bf16(3, tile);
        return;
    case 4:
        sum_rows_bf16(4, tile);
        return;
    case 5:
        sum_rows_bf16(5, tile);
        return;
    default:
        sum_rows_bf16(6, tile);
        return;
    }
}

const lore_matmul_form lore_form_avx512_bf16 = {LORE_ROW_BF16, ROWS, false,   false,
                                                NULL,          NULL, sum_bf16};
const lore_matmul_form lore_form_avx512_int4 = {LORE_ROW_UNITS, ROWS, false,   false,
                                                NULL,           NULL, sum_int4};
const lore_matmul_form lore_form_avx512_int8 = {LORE_ROW_U8, ROWS, true,    false,
                                                NULL,        NULL, sum_int8};

float lore_prepare_row_avx512(lore_row_kind kind, void *to, const float *x, int32_t cols,
                              int32_t depth)
{
    return prepare_row(kind, to, x, cols, depth);
}

void lore_prepare_units_avx512(int8_t *to, lore_unit *units, const float *x, const int32_t *columns,
                               int32_t cols, int32_t unit)
{
    prepare_units(to, units, x, columns, cols, unit);
}

void lore_finish_avx512(const lore_finish *tile)
{
    finish(tile);
}

const lore_matmul_kernel lore_matmul_avx512[LORE_MATMUL_KERNELS] = {
    {"avx512-f32", LORE_ISA_AVX512, LORE_PACKED_F32, LORE_CPU_AVX512, TILE_PANEL, 1, 1, 0,
     &form_f32, &form_f32, prepare_row, NULL, finish},
    {"avx512-bf16", LORE_ISA_AVX512, LORE_PACKED_BF16, LORE_CPU_AVX512 | LORE_CPU_AVX512_BF16,
     PANEL, 2, 2, 0, &lore_form_avx512_bf16, &lore_form_avx512_bf16, prepare_row, NULL, finish},
    {"avx512-int8", LORE_ISA_AVX512, LORE_PACKED_I8, LORE_CPU_AVX512, PANEL, 4, 4, 0,
     &lore_form_avx512_int8, &lore_form_avx512_int8, prepare_row, NULL, finish},
    {"avx512-int4", LORE_ISA_AVX512, LORE_PACKED_I4, LORE_CPU_AVX512, PANEL, INT4_COLUMNS, 0, 0,
     &lore_form_avx512_int4, &lore_form_avx512_int4, NULL, prepare_units, finish},
};
