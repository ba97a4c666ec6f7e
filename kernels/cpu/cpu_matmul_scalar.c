/* Matmul in plain C, for machines without AVX2: the same layouts one output wide, the same
 * integers. */
#include "kernels/cpu/cpu_matmul_body.h"

#include "kernels/cpu/cpu_matmul_bf16_body.h"

enum { INT8_PANEL = 4, INT8_ROWS = 1, INT4_COLUMNS = 8 };

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

/* One word of eight columns of one output against their inputs. */
static int32_t multiply_word(const int8_t *x, const uint8_t *word)
{
    int32_t sum = 0;
    for (int32_t j = 0; j < 4; j++) {
        sum += x[j] * (word[j] & 15) + x[j + 4] * (word[j] >> 4);
    }
    return sum;
}

static void sum_int4(const lore_tile *tile)
{
    LORE_ASSERT(tile->rows == INT8_ROWS);
    const int8_t *x = tile->a;
    const lore_unit *unit = (const void *)(x + (int64_t)tile->groups * INT4_COLUMNS);
    const uint8_t *w = tile->b;
    float *sums = tile->sums;
    memset(sums, 0, INT8_PANEL * sizeof *sums);
    for (int32_t g = 0; g < tile->groups; g += tile->unit_groups, unit++) {
        int32_t sum[INT8_PANEL] = {0};
        for (int32_t k = 0; k < tile->unit_groups; k++, x += INT4_COLUMNS) {
            for (int32_t j = 0; j < INT8_PANEL; j++, w += 4) {
                sum[j] += multiply_word(x, w);
            }
        }
        const float *scales = (const void *)w;
        const uint8_t *zeros = w + INT8_PANEL * sizeof *scales;
        for (int32_t j = 0; j < INT8_PANEL; j++) {
            const int32_t zero = tile->has_zeros ? zeros[j] : 8;
            sums[j] += scales[j] * unit->scale * (float)(sum[j] - zero * unit->sum);
        }
        w = zeros + (tile->has_zeros ? INT8_PANEL : 0);
    }
}

static const lore_matmul_form form_int4 = {LORE_ROW_UNITS, INT8_ROWS, false,   false,
                                           NULL,           NULL,      sum_int4};

const lore_matmul_kernel lore_matmul_scalar[LORE_MATMUL_KERNELS] = {
    {"scalar-f32", LORE_ISA_SCALAR, LORE_PACKED_F32, 0, TILE_PANEL, 1, 1, 0, &form_f32, &form_f32,
     prepare_row, NULL, finish},
    {"scalar-bf16", LORE_ISA_SCALAR, LORE_PACKED_BF16, 0, TILE_PANEL, 1, 1, 0, &form_bf16,
     &form_bf16, prepare_row, NULL, finish},
    {"scalar-int8", LORE_ISA_SCALAR, LORE_PACKED_I8, 0, INT8_PANEL, 1, 1, 0, &form_int8, &form_int8,
     prepare_row, NULL, finish},
    {"scalar-int4", LORE_ISA_SCALAR, LORE_PACKED_I4, 0, INT8_PANEL, INT4_COLUMNS, 0, 0, &form_int4,
     &form_int4, NULL, prepare_units, finish},
};
