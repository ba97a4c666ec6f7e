/* Matmul on AMX: tiles of 16 rows x 64 bytes, one instruction for 16 x 16 x 64 bytes of products.
 *
 * Same packed layout as AVX-512, only padded to whole tiles: in a panel [depth / group][64][group],
 * 16 groups deep, a block of 16 outputs is a tile of 16 rows of 64 bytes, 256 bytes apart, just as
 * TDPB* wants its right side. The left side is 16 input rows of 64 bytes. A tile call makes 32 rows
 * x 64 outputs in two halves of 2 x 2 accumulator tiles: four loads for four products, which keeps
 * the tile unit busy from the first-level cache. bf16 and int8 differ in one instruction. Few
 * rows go to the AVX-512 forms, which read the same panels: memory is the bound there.
 *
 * In units, the weights are unsigned bytes, and the sums of each unit go through its scales into
 * f32. A unit of int8 is 64 columns: one tile. int4 is unpacked a unit at a time into bytes that
 * stay in the first-level cache.
 *
 * The configuration is a static aligned object behind our own asm, because gcc 12's
 * _tile_loadconfig declares 8 of its 64 bytes as read and drops the stores of the rest. It is
 * loaded at the begin of each work item and released at its end: tens of cycles, against trusting
 * that nobody else on this thread touched the tiles, and idle threads then carry no 8 KB of tile
 * state through context switches. Permission was asked for in cpu_features.c.
 *
 * Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, chapter "Intel AMX". */
#include "kernels/cpu/amx_int.h"
#include "kernels/cpu/cpu_int.h"

#include <string.h>

enum {
    TILE_ROWS_AMX = 16,
    TILE_BYTES = 64, /* of a tile row */
    GROUPS = 16,     /* of depth in a tile: 64 int8 or 32 bf16 */
    ROWS_MAX = 2 * TILE_ROWS_AMX,
    PANEL_AMX = 64,
    PANEL_BYTES = PANEL_AMX * 4, /* from one group to the next */
    HALF_BYTES = PANEL_BYTES / 2,
    SUMS_BYTES = PANEL_AMX * 4 /* of a row of sums, f32 or int32 */
};
_Static_assert((int)LORE_INT8_UNIT == 4 * GROUPS, "a unit of int8 is one tile deep");
_Static_assert((int)ROWS_MAX <= (int)LORE_MATMUL_ROWS_MAX, "sums buffer of the driver");

static void load_configuration(void)
{
    static const amx_config config __attribute__((aligned(64))) = {
        .palette = 1,
        .row_bytes = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES,
                      TILE_BYTES, TILE_BYTES},
        .rows = {TILE_ROWS_AMX, TILE_ROWS_AMX, TILE_ROWS_AMX, TILE_ROWS_AMX, TILE_ROWS_AMX,
                 TILE_ROWS_AMX, TILE_ROWS_AMX, TILE_ROWS_AMX},
    };
    amx_configure(&config);
}

typedef enum product_kind { PRODUCT_BF16, PRODUCT_INT8, PRODUCT_INT8_UINT8 } product_kind;

/* Tile `input` times both weight tiles, into sums `left` and `right`; tile numbers are literals. */
#define MULTIPLY(kind, left, right, input)           \
    do {                                             \
        if ((kind) == PRODUCT_BF16) {                \
            amx_product_bf16(left, input, 6);        \
            amx_product_bf16(right, input, 7);       \
        } else if ((kind) == PRODUCT_INT8) {         \
            amx_product_int8(left, input, 6);        \
            amx_product_int8(right, input, 7);       \
        } else {                                     \
            amx_product_int8_uint8(left, input, 6);  \
            amx_product_int8_uint8(right, input, 7); \
        }                                            \
    } while (false)

/* Up to 32 rows times the 32 outputs that start at `weights`. Tiles 0-3: sums of (upper, lower
 * rows) x (left, right 16 outputs); 4, 5: input rows; 6, 7: weights. kind must be constant where
 * this is inlined. */
static inline __attribute__((always_inline)) void sum_half(const product_kind kind, bool has_lower,
                                                           int32_t groups, const char *input,
                                                           int64_t input_stride,
                                                           const char *weights, char *sums)
{
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
    for (int32_t g = 0; g < groups; g += GROUPS) {
        amx_load(6, weights, PANEL_BYTES);
        amx_load(7, weights + TILE_BYTES, PANEL_BYTES);
        amx_load(4, input, input_stride);
        MULTIPLY(kind, 0, 1, 4);
        if (has_lower) {
            amx_load(5, input + TILE_ROWS_AMX * input_stride, input_stride);
            MULTIPLY(kind, 2, 3, 5);
        }
        input += TILE_BYTES;
        weights += (int64_t)GROUPS * PANEL_BYTES;
    }
    amx_store(0, sums, SUMS_BYTES);
    amx_store(1, sums + TILE_BYTES, SUMS_BYTES);
    if (has_lower) {
        amx_store(2, sums + TILE_ROWS_AMX * SUMS_BYTES, SUMS_BYTES);
        amx_store(3, sums + TILE_ROWS_AMX * SUMS_BYTES + TILE_BYTES, SUMS_BYTES);
    }
}

static void sum_int8(const lore_tile *tile)
{
    /* Both operands are signed here: no start to undo. */
    for (int32_t half = 0; half < PANEL_BYTES; half += HALF_BYTES) {
        sum_half(PRODUCT_INT8, tile->rows > TILE_ROWS_AMX, tile->groups, tile->a, tile->a_stride,
                 (const char *)tile->b + half, (char *)tile->sums + half);
    }
}

static void sum_bf16(const lore_tile *tile)
{
    for (int32_t half = 0; half < PANEL_BYTES; half += HALF_BYTES) {
        sum_half(PRODUCT_BF16, tile->rows > TILE_ROWS_AMX, tile->groups, tile->a, tile->a_stride,
                 (const char *)tile->b + half, (char *)tile->sums + half);
    }
}

/* ---- int8 and int4 in units ---- */

enum {
    INT4_COLUMNS = 8,
    UNIT_BYTES = LORE_UNIT_MAX * PANEL_AMX, /* of unpacked weights */
    LINES = PANEL_BYTES / TILE_BYTES
};

/* The words of a unit as bytes in the layout of int8; what a tile of 64 columns lacks is zeros. */
static void unpack_unit(const char *words, int32_t groups, char *bytes)
{
    const __m512i low = _mm512_set1_epi8(15);
    for (int32_t g = 0; g < groups; g++, bytes += 2 * PANEL_BYTES, words += PANEL_BYTES) {
        for (int32_t v = 0; v < LINES; v++) {
            const __m512i both = _mm512_loadu_si512(words + v * TILE_BYTES);
            char *to = bytes + v * TILE_BYTES;
            _mm512_store_si512(to, _mm512_and_si512(both, low));
            _mm512_store_si512(to + PANEL_BYTES, _mm512_and_si512(_mm512_srli_epi16(both, 4), low));
        }
    }
    for (int32_t g = 2 * groups; g % GROUPS != 0; g++, bytes += PANEL_BYTES) {
        memset(bytes, 0, PANEL_BYTES);
    }
}

/* All rows of the tile in one plane, times the bytes of one unit. */
static void sum_unit(const lore_tile *tile, const char *plane, int32_t column, int32_t groups,
                     const char *bytes, int32_t *sums)
{
    for (int32_t half = 0; half < PANEL_BYTES; half += HALF_BYTES) {
        sum_half(PRODUCT_INT8_UINT8, tile->rows > TILE_ROWS_AMX, groups, plane + column,
                 tile->a_stride, bytes + half, (char *)sums + half);
    }
}

static void sum_int8_units(const lore_tile *tile)
{
    int32_t sums[ROWS_MAX * PANEL_AMX] __attribute__((aligned(TILE_BYTES)));
    const char *a = tile->a, *low = a + tile->low, *b = tile->b;
    const int32_t groups = tile->unit_groups, units = tile->groups / groups;
    for (int32_t u = 0; u < units; u++) {
        const char *scales = b + groups * PANEL_BYTES;
        sum_unit(tile, a, u * LORE_INT8_UNIT, groups, b, sums);
        lore_add_unit_avx512(tile, a, u, scales, sums, u == 0);
        if (lore_tile_has_low(tile, u)) {
            sum_unit(tile, low, u * LORE_INT8_UNIT, groups, b, sums);
            lore_add_unit_avx512(tile, low, u, scales, sums, false);
        }
        b = scales + PANEL_BYTES;
    }
}

/* A unit of 32 columns fills half a tile: its products with the next unit's inputs are with zeros.
 * Behind the last unit the row's facts lie, so no row is read beyond its end. */
static void sum_int4(const lore_tile *tile)
{
    char bytes[UNIT_BYTES] __attribute__((aligned(TILE_BYTES)));
    int32_t sums[ROWS_MAX * PANEL_AMX] __attribute__((aligned(TILE_BYTES)));
    const char *a = tile->a, *b = tile->b;
    const int32_t groups = tile->unit_groups, units = tile->groups / groups;
    for (int32_t u = 0; u < units; u++) {
        unpack_unit(b, groups, bytes);
        sum_unit(tile, a, u * groups * INT4_COLUMNS, 2 * groups, bytes, sums);
        b += groups * PANEL_BYTES;
        lore_add_unit_avx512(tile, a, u, b, sums, u == 0);
        b += PANEL_BYTES + (tile->has_zeros ? PANEL_AMX : 0);
    }
}

static const lore_matmul_form form_int8 = {LORE_ROW_S8,        ROWS_MAX,    true,    true,
                                           load_configuration, amx_release, sum_int8};
static const lore_matmul_form form_int8_units = {
    LORE_ROW_UNITS, ROWS_MAX, false, true, load_configuration, amx_release, sum_int8_units};
static const lore_matmul_form form_int4 = {LORE_ROW_UNITS,     ROWS_MAX,    false,   true,
                                           load_configuration, amx_release, sum_int4};
static const lore_matmul_form form_bf16 = {LORE_ROW_BF16,      ROWS_MAX,    false,   true,
                                           load_configuration, amx_release, sum_bf16};

const lore_matmul_kernel lore_matmul_amx[LORE_MATMUL_KERNELS] = {
    {"amx-bf16", LORE_ISA_AMX, LORE_PACKED_BF16,
     LORE_CPU_AVX512 | LORE_CPU_AVX512_BF16 | LORE_CPU_AMX_BF16, PANEL_AMX, 2, 32, 3,
     &lore_form_avx512_bf16, &form_bf16, lore_prepare_row_avx512, NULL, lore_finish_avx512},
    {"amx-int8", LORE_ISA_AMX, LORE_PACKED_I8, LORE_CPU_AVX512 | LORE_CPU_AMX_INT8, PANEL_AMX, 4,
     64, 3, &lore_form_avx512_int8, &form_int8, lore_prepare_row_avx512, NULL, lore_finish_avx512},
    {"amx-int8-units", LORE_ISA_AMX, LORE_PACKED_I8_UNITS, LORE_CPU_AVX512 | LORE_CPU_AMX_INT8,
     PANEL_AMX, 4, 0, 3, &lore_form_avx512_int8_units, &form_int8_units, NULL,
     lore_prepare_units_avx512, lore_finish_avx512},
    {"amx-int4", LORE_ISA_AMX, LORE_PACKED_I4, LORE_CPU_AVX512 | LORE_CPU_AMX_INT8, PANEL_AMX,
     INT4_COLUMNS, 0, 6, &lore_form_avx512_int4, &form_int4, NULL, lore_prepare_units_avx512,
     lore_finish_avx512},
};
