/* Packing of weights in units of columns: int4 as GPTQ, AWQ and compressed-tensors files hold it,
 * and what is rounded to int8 here, in the layout of lore_matmul_kernel.
 *
 * A panel carries its own scales, one f32 for each output and unit, so that one run through memory
 * brings all that a product reads. Rows are quantised in the same units, with a scale each: an
 * outlier among the activations then costs precision in its own unit alone. Measured on normal rows
 * of 4864 elements, one in 500 of them ten times as large, against one scale a row: error of a
 * product 1.1 % instead of 4.0 %; with four columns fifty times as large 2.2 % instead of 10.6 %;
 * without large ones .65 % instead of .88 %.
 *
 * int4: the integers stay as they are and so do scales and zero points. A unit is the part of a
 * group of the file that the loops sum in integers before they multiply with a scale; groups longer
 * than that repeat theirs.
 *
 * int8: 64 columns. That is not yet enough for networks with outliers in every row: a BERT has a
 * few columns at ten to twenty times the RMS. A unit whose largest input is beyond 6 times the RMS
 * of its row therefore gets a second plane of bytes, with what the first one rounded away; its
 * products are a second pass over the unit, for the tiles that need one. Smallest cosine of the
 * vectors of all-MiniLM-L6-v2 over 500 texts: one scale a row .986; units of 128, 64, 32: .9948,
 * .9971, .9983; units of 64 and two planes for one unit in seven .9992, for all .9995. Scales or
 * offsets of columns from the norm before them (SmoothQuant, Xiao et al. 2023) did not help: the
 * outliers are no property of the norm's weights. */
#include "kernels/cpu/cpu_int.h"

#include <string.h>

enum { UNIT_MIN = 32, WORD_BYTES = 4 /* of 8 columns of int4 */ };

static bool has_same_columns(const lore_matrix *a, const lore_matrix *b)
{
    return a->columns == b->columns ||
           (a->columns != NULL && b->columns != NULL &&
            memcmp(a->columns, b->columns, (size_t)a->cols * sizeof *a->columns) == 0);
}

bool lore_cpu_int4_fits(const lore_matrix *parts, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (parts[i].dtype != LORE_I4 || parts[i].group != parts[0].group ||
            !has_same_columns(&parts[i], &parts[0])) {
            return false;
        }
    }
    return true;
}

/* The largest that divides the group and that a narrow matrix fills by more than half. */
int32_t lore_cpu_int4_unit(const lore_matrix *part)
{
    const bool has_one_group = part->group >= part->cols;
    int32_t unit = LORE_UNIT_MAX;
    while (unit > UNIT_MIN &&
           (unit / 2 >= part->cols || (!has_one_group && part->group % unit != 0))) {
        unit /= 2;
    }
    return unit;
}

static bool is_int4(const lore_cpu_weight *w)
{
    return w->kernel->packing == LORE_PACKED_I4;
}

/* The bytes of one group of one output. */
static size_t word_bytes(const lore_cpu_weight *w)
{
    return is_int4(w) ? WORD_BYTES : (size_t)w->kernel->group;
}

static size_t words_bytes(const lore_cpu_weight *w)
{
    return (size_t)(w->unit / w->kernel->group) * (size_t)w->kernel->panel * word_bytes(w);
}

static size_t unit_bytes(const lore_cpu_weight *w)
{
    return words_bytes(w) + (size_t)w->kernel->panel * (sizeof(float) + (w->has_zeros ? 1 : 0));
}

size_t lore_cpu_units_panel_bytes(const lore_cpu_weight *w)
{
    return (size_t)(w->depth / w->unit) * unit_bytes(w);
}

/* Elements of one unit of one row into its words: `to` is the first one's place. */
static void fill_words(const lore_cpu_weight *w, uint8_t *to, const uint8_t *elements)
{
    const size_t word = word_bytes(w);
    for (int32_t k = 0; k < w->unit; k += w->kernel->group) {
        for (size_t j = 0; j < word; j++) {
            const uint8_t element = elements[(size_t)k + j];
            to[j] = (uint8_t)(is_int4(w) ? element | elements[(size_t)k + j + WORD_BYTES] << 4
                                         : element);
        }
        to += (size_t)w->kernel->panel * word;
    }
}

/* One unit of row `o`, from column k on. */
static void fill_unit(const lore_cpu_weight *w, int32_t o, int32_t k, const uint8_t *elements,
                      float scale, uint8_t zero)
{
    const size_t panel = (size_t)w->kernel->panel, lane = (size_t)o % panel;
    uint8_t *to = (uint8_t *)w->panels + (size_t)o / panel * w->panel_bytes +
                  (size_t)(k / w->unit) * unit_bytes(w);
    fill_words(w, to + lane * word_bytes(w), elements);
    to += words_bytes(w);
    memcpy(to + lane * sizeof scale, &scale, sizeof scale);
    if (w->has_zeros) {
        to[panel * sizeof scale + lane] = zero;
    }
}

static void fill_int4_row(const lore_cpu_weight *w, int32_t o, const lore_matrix *part, int32_t row,
                          uint8_t *elements)
{
    const int32_t cols = part->cols;
    const size_t groups = ((size_t)cols + (size_t)part->group - 1) / (size_t)part->group;
    const uint8_t *bytes = (const uint8_t *)part->data + (size_t)row * (((size_t)cols + 1) / 2);
    for (int32_t k = 0; k < cols; k++) {
        elements[k] = bytes[k / 2] >> (k % 2 * 4) & 15;
    }
    memset(elements + cols, 0, (size_t)(w->depth - cols));
    for (int32_t k = 0; k < w->depth; k += w->unit) {
        const size_t group = (size_t)row * groups + (size_t)(k / part->group);
        fill_unit(w, o, k, elements + k, part->scales[group],
                  part->zeros != NULL ? part->zeros[group] : LORE_INT4_ZERO);
    }
}

static void fill_int8_row(const lore_cpu_weight *w, int32_t o, const lore_matrix *part, int32_t row,
                          uint8_t *elements, float *wide)
{
    int8_t steps[LORE_INT8_UNIT];
    lore_matrix_read_row(part, row, wide);
    memset(wide + part->cols, 0, (size_t)(w->depth - part->cols) * sizeof *wide);
    for (int32_t k = 0; k < w->depth; k += w->unit) {
        const float scale = lore_quantize_row(steps, wide + k, w->unit);
        for (int32_t j = 0; j < w->unit; j++) {
            elements[j] = (uint8_t)(steps[j] + LORE_INT8_ZERO);
        }
        fill_unit(w, o, k, elements, scale, LORE_INT8_ZERO);
    }
}

void lore_cpu_units_fill(lore_cpu_weight *w, const lore_matrix *parts, int32_t count,
                         uint8_t *elements, float *wide)
{
    int32_t o = 0;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t r = 0; r < parts[i].rows; r++, o++) {
            if (is_int4(w)) {
                fill_int4_row(w, o, &parts[i], r, elements);
            } else {
                fill_int8_row(w, o, &parts[i], r, elements, wide);
            }
        }
    }
}
