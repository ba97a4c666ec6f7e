/* Matmul on AMX: tiles of 16 rows x 64 bytes, one instruction for 16 x 16 x 64 bytes of products.
 *
 * Same packed layout as AVX-512, only padded to whole tiles: in a panel [depth / group][64][group],
 * 16 groups deep, a block of 16 outputs is a tile of 16 rows of 64 bytes, 256 bytes apart, just as
 * TDPB* wants its right side. The left side is 16 input rows of 64 bytes. A tile call makes 32 rows
 * x 64 outputs in two halves of 2 x 2 accumulator tiles: four loads for four products, which keeps
 * the tile unit busy from the first-level cache. bf16 and int8 differ in one instruction. Up to
 * three rows the AVX-512 forms read the same panels: memory is the bound there.
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

/* Up to 32 rows times the 32 outputs that start at `weights`. Tiles 0-3: sums of (upper, lower
 * rows) x (left, right 16 outputs); 4, 5: input rows; 6, 7: weights. is_int8 must be constant where
 * this is inlined. */
static inline __attribute__((always_inline)) void sum_half(const bool is_int8, bool has_lower,
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
        if (is_int8) {
            amx_product_int8(0, 4, 6);
            amx_product_int8(1, 4, 7);
        } else {
            amx_product_bf16(0, 4, 6);
            amx_product_bf16(1, 4, 7);
        }
        if (has_lower) {
            amx_load(5, input + TILE_ROWS_AMX * input_stride, input_stride);
            if (is_int8) {
                amx_product_int8(2, 5, 6);
                amx_product_int8(3, 5, 7);
            } else {
                amx_product_bf16(2, 5, 6);
                amx_product_bf16(3, 5, 7);
            }
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
        sum_half(true, tile->rows > TILE_ROWS_AMX, tile->groups, tile->a, tile->a_stride,
                 (const char *)tile->b + half, (char *)tile->sums + half);
    }
}

static void sum_bf16(const lore_tile *tile)
{
    for (int32_t half = 0; half < PANEL_BYTES; half += HALF_BYTES) {
        sum_half(false, tile->rows > TILE_ROWS_AMX, tile->groups, tile->a, tile->a_stride,
                 (const char *)tile->b + half, (char *)tile->sums + half);
    }
}

static const lore_matmul_form form_int8 = {LORE_ROW_S8,        ROWS_MAX,    true,    true,
                                           load_configuration, amx_release, sum_int8};
static const lore_matmul_form form_bf16 = {LORE_ROW_BF16,      ROWS_MAX,    false,   true,
                                           load_configuration, amx_release, sum_bf16};

const lore_matmul_kernel lore_matmul_amx[LORE_MATMUL_KERNELS] = {
    {"amx-bf16", LORE_ISA_AMX, LORE_PRECISION_BF16,
     LORE_CPU_AVX512 | LORE_CPU_AVX512_BF16 | LORE_CPU_AMX_BF16, PANEL_AMX, 2, 32, 3,
     &lore_form_avx512_bf16, &form_bf16, lore_prepare_row_avx512, lore_finish_avx512},
    {"amx-int8", LORE_ISA_AMX, LORE_PRECISION_INT8, LORE_CPU_AVX512 | LORE_CPU_AMX_INT8, PANEL_AMX,
     4, 64, 3, &lore_form_avx512_int8, &form_int8, lore_prepare_row_avx512, lore_finish_avx512},
};
