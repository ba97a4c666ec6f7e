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

/* One unit of a plane, `columns` inputs for each group of the panel, added to the sums. */
static void add_unit(const lore_tile *tile, const char *plane, int32_t index, int32_t columns,
                     const uint8_t *w)
{
    const lore_unit *unit = lore_tile_unit(tile, plane, 0, index);
    const int8_t *x = (const int8_t *)plane + (int64_t)index * tile->unit_groups * columns;
    int32_t sum[INT8_PANEL] = {0};
    for (int32_t g = 0; g < tile->unit_groups; g++, x += columns) {
        for (int32_t j = 0; j < INT8_PANEL; j++) {
            sum[j] += columns == 1 ? x[0] * w[0] : multiply_word(x, w);
            w += columns == 1 ? 1 : INT4_COLUMNS / 2;
        }
    }
    const float *scales = (const void *)w;
    const uint8_t *zeros = w + INT8_PANEL * sizeof *scales;
    for (int32_t j = 0; j < INT8_PANEL; j++) {
        const int32_t zero = tile->has_zeros ? zeros[j] : tile->zero;
        ((float *)tile->sums)[j] += scales[j] * unit->scale * (float)(sum[j] - zero * unit->sum);
    }
}

static void sum_units(const lore_tile *tile, int32_t columns)
{
    LORE_ASSERT(tile->rows == INT8_ROWS);
    const char *a = tile->a;
    const size_t word = columns == 1 ? 1 : INT4_COLUMNS / 2, groups = (size_t)tile->unit_groups;
    const size_t unit_bytes =
        INT8_PANEL * (groups * word + sizeof(float) + (tile->has_zeros ? 1 : 0));
    memset(tile->sums, 0, INT8_PANEL * sizeof(float));
    for (int32_t u = 0; u < tile->groups / tile->unit_groups; u++) {
        const uint8_t *w = (const uint8_t *)tile->b + (size_t)u * unit_bytes;
        add_unit(tile, a, u, columns, w);
        if (lore_tile_has_low(tile, u)) {
            add_unit(tile, a + tile->low, u, columns, w);
        }
    }
}

static void sum_int8_units(const lore_tile *tile)
{
    sum_units(tile, 1);
}

static void sum_int4(const lore_tile *tile)
{
    sum_units(tile, INT4_COLUMNS);
}

static const lore_matmul_form form_int8_units = {LORE_ROW_UNITS, INT8_ROWS, false,         false,
                                                 NULL,           NULL,      sum_int8_units};
static const lore_matmul_form form_int4 = {LORE_ROW_UNITS, INT8_ROWS, false,   false,
                                           NULL,           NULL,      sum_int4};

const lore_matmul_kernel lore_matmul_scalar[LORE_MATMUL_KERNELS] = {
    {"scalar-f32", LORE_ISA_SCALAR, LORE_PACKED_F32, 0, TILE_PANEL, 1, 1, 0, &form_f32, &form_f32,
     prepare_row, NULL, finish},
    {"scalar-bf16", LORE_ISA_SCALAR, LORE_PACKED_BF16, 0, TILE_PANEL, 1, 1, 0, &form_bf16,
     &form_bf16, prepare_row, NULL, finish},
    {"scalar-int8", LORE_ISA_SCALAR, LORE_PACKED_I8, 0, INT8_PANEL, 1, 1, 0, &form_int8, &form_int8,
     prepare_row, NULL, finish},
    {"scalar-int8-units", LORE_ISA_SCALAR, LORE_PACKED_I8_UNITS, 0, INT8_PANEL, 1, 0, 0,
     &form_int8_units, &form_int8_units, NULL, prepare_units, finish},
    {"scalar-int4", LORE_ISA_SCALAR, LORE_PACKED_I4, 0, INT8_PANEL, INT4_COLUMNS, 0, 0, &form_int4,
     &form_int4, NULL, prepare_units, finish},
};
