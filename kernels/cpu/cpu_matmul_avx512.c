/* Matmul on AVX-512: f32 by fused multiply-add, bf16 by vdpbf16ps, int8 and int4 by vpdpbusd.
 *
 * A register tile is 6 rows x 64 outputs, 24 accumulators. The two dot-product instructions take a
 * group of inputs (2 bf16, 4 int8: 32 bits) per lane, so their panels interleave groups: [depth /
 * group][64][group], and one cache line of weights serves 16 outputs. vpdpbusd wants one unsigned
 * operand: rows are quantised to int8 and stored plus 128, and sums start at -128 times the sum of
 * the weights, which makes them exact again. In units the weights are the unsigned side, and rows
 * as they are; at the end of each unit its sums go through the scales into f32. One line of int4
 * makes two of bytes by a mask and a shift, which run beside the products. */
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

/* ---- int8 and int4 in units ---- */

enum { INT8_COLUMNS = 4, INT4_COLUMNS = 8 }; /* of a group: one line in each vector */

typedef enum line_part { LINE_BYTES_ALL, LINE_LOW_HALVES, LINE_HIGH_HALVES } line_part;

/* The bytes of a group's lines, or one half of each: products with four inputs of each row. */
LORE_INLINE void add_line(const int32_t rows, const line_part part, const char *b, const char *a,
                          int64_t a_stride, __m512i sum[ROWS][VECTORS])
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i w[VECTORS];
#pragma GCC unroll 4
    for (int32_t v = 0; v < VECTORS; v++) {
        const __m512i line = _mm512_loadu_si512(b + v * LINE_BYTES);
        w[v] = part == LINE_BYTES_ALL    ? line
               : part == LINE_LOW_HALVES ? _mm512_and_si512(line, low)
                                         : _mm512_and_si512(_mm512_srli_epi16(line, 4), low);
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

/* The integer sums of one unit of int4. */
LORE_INLINE void sum_int4_unit(const int32_t rows, const lore_tile *tile, const char *a,
                               const char *b, const char *ahead, int32_t *sums)
{
    const int32_t lines = tile->ahead_lines;
    const int64_t a_stride = tile->a_stride;
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
        add_line(rows, LINE_LOW_HALVES, b, a, a_stride, sum);
        add_line(rows, LINE_HIGH_HALVES, b, a + INT4_COLUMNS / 2, a_stride, sum);
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

/* All integers here are below 2^23, so that f32 holds them and their differences exactly. */
void lore_add_unit_avx512(const lore_tile *tile, const char *a, int32_t index, const void *scales,
                          const int32_t *sums, bool is_first)
{
    const uint8_t *zeros = (const uint8_t *)scales + VECTORS * LINE_BYTES;
    vf scale[VECTORS], zero[VECTORS];
#pragma GCC unroll 4
    for (int32_t v = 0; v < VECTORS; v++) {
        scale[v] = vf_load((const float *)scales + v * LANES);
        zero[v] = vf_set((float)tile->zero);
        if (tile->has_zeros) {
            const __m128i bytes = _mm_loadu_si128((const void *)(zeros + v * LANES));
            zero[v] = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
        }
    }
    for (int32_t r = 0; r < tile->rows; r++) {
        const lore_unit *unit = lore_tile_unit(tile, a, r, index);
        const vf row_scale = vf_set(unit->scale), row_sum = vf_set(-(float)unit->sum);
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            const int32_t at = r * PANEL + v * LANES;
            float *out = (float *)tile->sums + at;
            const vf before = is_first ? vf_zero() : vf_load(out);
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
        sum_int4_unit(rows, tile, a + u * groups * INT4_COLUMNS, b, ahead, sums);
        lore_add_unit_avx512(tile, a, u, scales, sums, u == 0);
        b = scales + VECTORS * LINE_BYTES + (tile->has_zeros ? PANEL : 0);
        ahead += (int64_t)groups * tile->ahead_lines * LINE_BYTES;
    }
}

/* A unit of int8 from its bytes to f32 in registers: the zero point is taken off before the sum
 * begins, and a unit is short enough that a way through memory would show. */
LORE_INLINE void sum_int8_unit(const int32_t rows, const lore_tile *tile, const char *plane,
                               int32_t index, const char *b, const char *ahead, int32_t lines,
                               bool is_first)
{
    const char *a = plane + (int64_t)index * LORE_INT8_UNIT;
    const int64_t a_stride = tile->a_stride;
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
        add_line(rows, LINE_BYTES_ALL, b, a, a_stride, sum);
        a += INT8_COLUMNS;
        b += VECTORS * LINE_BYTES;
    }
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < VECTORS; v++) {
            __asm__ volatile("" : "+v"(sum[r][v]));
        }
    }
    float *out = tile->sums;
#pragma GCC unroll 4
    for (int32_t v = 0; v < VECTORS; v++) {
        const vf scale = vf_load((const float *)(const void *)b + v * LANES);
#pragma GCC unroll 6
        for (int32_t r = 0; r < rows; r++) {
            const lore_unit *unit = lore_tile_unit(tile, plane, r, index);
            const vf row_scale = vf_set(unit->scale);
            const __m512i zero = _mm512_set1_epi32(LORE_INT8_ZERO * unit->sum);
            float *to = out + r * PANEL + v * LANES;
            const vf before = is_first ? vf_zero() : vf_load(to);
            vf_store(to, vf_fma(_mm512_cvtepi32_ps(_mm512_sub_epi32(sum[r][v], zero)),
                                vf_mul(scale, row_scale), before));
        }
    }
}

typedef void (*unit_sum)(const lore_tile *tile, const char *plane, int32_t index, const char *b,
                         const char *ahead, int32_t lines, bool is_first);

/* Functions of their own: inlined twice, gcc 12 keeps the sums in memory. */
#define UNIT_SUM(rows)                                                                             \
    static __attribute__((noinline)) void sum_int8_unit_##rows(                                    \
        const lore_tile *tile, const char *plane, int32_t index, const char *b, const char *ahead, \
        int32_t lines, bool is_first)                                                              \
    {                                                                                              \
        sum_int8_unit(rows, tile, plane, index, b, ahead, lines, is_first);                        \
    }
UNIT_SUM(1)
UNIT_SUM(2)
UNIT_SUM(3)
UNIT_SUM(4)
UNIT_SUM(5)
UNIT_SUM(6)
static const unit_sum unit_sums[ROWS] = {sum_int8_unit_1, sum_int8_unit_2, sum_int8_unit_3,
                                         sum_int8_unit_4, sum_int8_unit_5, sum_int8_unit_6};

/* The low plane meets the weights of a unit while they are in the first-level cache. */
static void sum_int8_units(const lore_tile *tile)
{
    const unit_sum sum = unit_sums[tile->rows - 1];
    const char *first = tile->a, *low = first + tile->low, *b = tile->b, *ahead = tile->ahead;
    const int32_t groups = tile->unit_groups, units = tile->groups / groups;
    for (int32_t u = 0; u < units; u++) {
        sum(tile, first, u, b, ahead, tile->ahead_lines, u == 0);
        if (lore_tile_has_low(tile, u)) {
            sum(tile, low, u, b, ahead, 0, false);
        }
        b += (groups + 1) * VECTORS * LINE_BYTES; /* and its scales */
        ahead += (int64_t)groups * tile->ahead_lines * LINE_BYTES;
    }
}

/* ---- each number of rows its own loop ---- */

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
const lore_matmul_form lore_form_avx512_int8_units = {LORE_ROW_UNITS, ROWS, false,         false,
                                                      NULL,           NULL, sum_int8_units};
const lore_matmul_form lore_form_avx512_int8 = {LORE_ROW_U8, ROWS, true,    false,
                                                NULL,        NULL, sum_int8};

float lore_prepare_row_avx512(lore_row_kind kind, void *to, const float *x, int32_t cols,
                              int32_t depth)
{
    return prepare_row(kind, to, x, cols, depth);
}

void lore_prepare_units_avx512(char *to, const float *x, const lore_unit_row *row)
{
    prepare_units(to, x, row);
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
    {"avx512-int8-units", LORE_ISA_AVX512, LORE_PACKED_I8_UNITS, LORE_CPU_AVX512, PANEL,
     INT8_COLUMNS, 0, 0, &lore_form_avx512_int8_units, &lore_form_avx512_int8_units, NULL,
     prepare_units, finish},
    {"avx512-int4", LORE_ISA_AVX512, LORE_PACKED_I4, LORE_CPU_AVX512, PANEL, INT4_COLUMNS, 0, 0,
     &lore_form_avx512_int4, &lore_form_avx512_int4, NULL, prepare_units, finish},
};
