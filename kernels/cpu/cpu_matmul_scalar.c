/* Matmul in plain C, for machines without AVX2: the same layouts one output wide, the same
 * integers. */
#include "kernels/cpu/cpu_matmul_body.h"

#include "kernels/cpu/cpu_matmul_bf16_body.h"

enum { INT8_PANEL = 4, INT8_ROWS = 1 };

/* Four outputs side by side, so that four sums overlap. */
static void sum_int8(const lore_tile *tile)
{
    LORE_ASSERT(tile->rows == INT8_ROWS);
    const int8_t *x = tile->a, *w = tile->b;
    int32_t sum[INT8_PANEL] = {0};
    for (int32_t k = 0; k < tile->groups; k++, w += INT8_PANEL) {
        for (int32_t j = 0; j < INT8_PANEL; j++) {
            sum[j] += x[k] * w[j];
        }
    }
    memcpy(tile->sums, sum, sizeof sum);
}

static const lore_matmul_form form_int8 = {LORE_ROW_S8, INT8_ROWS, true,    false,
                                           NULL,        NULL,      sum_int8};

const lore_matmul_kernel lore_matmul_scalar[LORE_MATMUL_KERNELS] = {
    {"scalar-f32", LORE_ISA_SCALAR, LORE_PRECISION_F32, 0, TILE_PANEL, 1, 1, 0, &form_f32,
     &form_f32, prepare_row, finish},
    {"scalar-bf16", LORE_ISA_SCALAR, LORE_PRECISION_BF16, 0, TILE_PANEL, 1, 1, 0, &form_bf16,
     &form_bf16, prepare_row, finish},
    {"scalar-int8", LORE_ISA_SCALAR, LORE_PRECISION_INT8, 0, INT8_PANEL, 1, 1, 0, &form_int8,
     &form_int8, prepare_row, finish},
};
