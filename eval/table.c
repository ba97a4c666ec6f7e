/* See table.h. Sums run in order of rows and draws in order of one generator, so nothing depends on
 * threads or addresses. */
#include "eval/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t SEED = 20260101;
static const double TAIL = 0.025; /* on each side of an interval */

lore_status lore_table_new(const lore_str *figures, int32_t figure_count, int32_t row_count,
                           lore_arena *arena, lore_table *table, lore_error *err)
{
    LORE_ASSERT(figure_count > 0 && figure_count <= LORE_TABLE_FIGURES_MAX);
    size_t cells = 0;
    *table = (lore_table){.figure_count = figure_count, .row_count = row_count};
    memcpy(table->figures, figures, (size_t)figure_count * sizeof *figures);
    table->ids = LORE_PUSH(arena, lore_str, row_count);
    if (lore_size_mul((size_t)row_count, (size_t)figure_count, &cells)) {
        table->cells = LORE_PUSH(arena, lore_cell, cells);
    }
    return table->ids != NULL && table->cells != NULL
               ? LORE_OK
               : lore_fail(err, LORE_ERR_NOMEM, "no memory for a table of %d queries", row_count);
}

lore_cell *lore_table_row(const lore_table *table, int32_t row)
{
    return table->cells + (size_t)row * (size_t)table->figure_count;
}

int32_t lore_table_find(const lore_table *table, lore_str figure)
{
    for (int32_t f = 0; f < table->figure_count; f++) {
        if (lore_str_equal(table->figures[f], figure)) {
            return f;
        }
    }
    return -1;
}

/* ---- drawing ---- */

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014): every seed is a good one. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

/* A number below n, by the high half of a product: the bias is below n / 2^32. */
static int32_t draw_below(uint64_t *state, int32_t n)
{
    return (int32_t)(((draw(state) >> 32) * (uint64_t)n) >> 32);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The interval of values[0 .. count), which are sorted for it. */
static void percentiles(double *values, int32_t count, double *low, double *high)
{
    *low = *high = NAN;
    if (count > 0) {
        qsort(values, (size_t)count, sizeof *values, by_value);
        int32_t cut = (int32_t)(TAIL * (double)count);
        *low = values[cut];
        *high = values[count - 1 - cut];
    }
}

static void add(lore_cell *sums, const lore_cell *row, int32_t count)
{
    for (int32_t f = 0; f < count; f++) {
        sums[f].sum += row[f].sum;
        sums[f].count += row[f].count;
    }
}

static double ratio(lore_cell cell)
{
    return cell.count > 0.0 ? cell.sum / cell.count : NAN;
}

lore_status lore_table_estimate(const lore_table *table, int32_t resamples, lore_arena *arena,
                                lore_estimate *estimates, lore_error *err)
{
    int32_t figures = table->figure_count;
    double *drawn = LORE_PUSH(arena, double, figures *resamples); /* [figure][resample] */
    int32_t kept[LORE_TABLE_FIGURES_MAX] = {0};
    lore_cell sums[LORE_TABLE_FIGURES_MAX] = {{0.0, 0.0}};
    uint64_t state = SEED;
    if (drawn == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d resamples", resamples);
    }
    memset(estimates, 0, (size_t)figures * sizeof *estimates);
    for (int32_t row = 0; row < table->row_count; row++) {
        const lore_cell *cells = lore_table_row(table, row);
        add(sums, cells, figures);
        for (int32_t f = 0; f < figures; f++) {
            estimates[f].rows += cells[f].count > 0.0;
        }
    }
    for (int32_t f = 0; f < figures; f++) {
        estimates[f].value = ratio(sums[f]);
    }
    for (int32_t b = 0; b < resamples; b++) {
        memset(sums, 0, sizeof sums);
        for (int32_t i = 0; i < table->row_count; i++) {
            add(sums, lore_table_row(table, draw_below(&state, table->row_count)), figures);
        }
        for (int32_t f = 0; f < figures; f++) {
            if (sums[f].count > 0.0) { /* a draw may miss all queries that say something */
                drawn[f * resamples + kept[f]++] = ratio(sums[f]);
            }
        }
    }
    for (int32_t f = 0; f < figures; f++) {
        percentiles(drawn + f * resamples, kept[f], &estimates[f].low, &estimates[f].high);
    }
    return LORE_OK;
}

/* ---- two runs ---- */

typedef struct pairing {
    const lore_table *before, *after;
    int32_t *before_rows, *after_rows; /* of the queries that both have */
    int32_t count;
} pairing;

static lore_status pair_rows(const lore_table *before, const lore_table *after, lore_arena *arena,
                             pairing *pairs, lore_error *err)
{
    *pairs = (pairing){before, after, LORE_PUSH(arena, int32_t, after->row_count),
                       LORE_PUSH(arena, int32_t, after->row_count), 0};
    if (pairs->before_rows == NULL || pairs->after_rows == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for comparing %d queries",
                         after->row_count);
    }
    for (int32_t i = 0, j = 0; i < before->row_count && j < after->row_count;) {
        int order = lore_str_compare(before->ids[i], after->ids[j]);
        if (order == 0) {
            pairs->before_rows[pairs->count] = i;
            pairs->after_rows[pairs->count++] = j;
        }
        i += order <= 0;
        j += order >= 0;
    }
    return pairs->count > 0
               ? LORE_OK
               : lore_fail(err, LORE_ERR_INVALID, "the baseline has none of these queries");
}

/* One figure, where it is in both tables. drawn has room for all resamples. */
static void compare_figure(const pairing *pairs, int32_t from, int32_t to, int32_t resamples,
                           double *drawn, lore_difference *d)
{
    lore_cell before = {0.0, 0.0}, after = {0.0, 0.0};
    uint64_t state = SEED;
    int32_t kept = 0, up = 0, down = 0;
    for (int32_t i = 0; i < pairs->count; i++) {
        const lore_cell *a = &lore_table_row(pairs->before, pairs->before_rows[i])[from];
        const lore_cell *b = &lore_table_row(pairs->after, pairs->after_rows[i])[to];
        add(&before, a, 1);
        add(&after, b, 1);
        d->rows += a->count > 0.0 && b->count > 0.0;
    }
    d->before = ratio(before);
    d->after = ratio(after);
    d->value = d->after - d->before;
    for (int32_t r = 0; r < resamples; r++) {
        before = after = (lore_cell){0.0, 0.0};
        for (int32_t i = 0; i < pairs->count; i++) {
            int32_t at = draw_below(&state, pairs->count);
            add(&before, &lore_table_row(pairs->before, pairs->before_rows[at])[from], 1);
            add(&after, &lore_table_row(pairs->after, pairs->after_rows[at])[to], 1);
        }
        double difference = ratio(after) - ratio(before);
        if (!isnan(difference)) {
            drawn[kept++] = difference;
            up += difference >= 0.0;
            down += difference <= 0.0;
        }
    }
    percentiles(drawn, kept, &d->low, &d->high);
    int32_t fewer = up < down ? up : down;
    d->p = kept == 0 ? NAN : fmin(1.0, 2.0 * (double)fewer / (double)kept);
}

lore_status lore_table_compare(const lore_table *before, const lore_table *after, int32_t resamples,
                               lore_arena *arena, lore_difference *differences, int32_t *common,
                               lore_error *err)
{
    pairing pairs;
    double *drawn = LORE_PUSH(arena, double, resamples);
    if (drawn == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d resamples", resamples);
    }
    lore_status status = pair_rows(before, after, arena, &pairs, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int32_t f = 0; f < after->figure_count; f++) {
        int32_t from = lore_table_find(before, after->figures[f]);
        differences[f] = (lore_difference){NAN, NAN, NAN, NAN, NAN, NAN, 0};
        if (from >= 0) {
            compare_figure(&pairs, from, f, resamples, drawn, &differences[f]);
        }
    }
    *common = pairs.count;
    return LORE_OK;
}

/* ---- text ---- */

static void write_number(double value, lore_buf *out)
{
    char text[32];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    lore_buf_append(out, lore_str_from(text));
}

void lore_table_write(const lore_table *table, lore_buf *out)
{
    lore_buf_append(out, LORE_STR("query"));
    for (int32_t f = 0; f < table->figure_count; f++) {
        lore_buf_byte(out, '\t');
        lore_buf_append(out, table->figures[f]);
    }
    lore_buf_byte(out, '\n');
    for (int32_t row = 0; row < table->row_count; row++) {
        const lore_cell *cells = lore_table_row(table, row);
        lore_buf_append(out, table->ids[row]);
        for (int32_t f = 0; f < table->figure_count; f++) {
            lore_buf_byte(out, '\t');
            if (cells[f].count <= 0.0) {
                lore_buf_byte(out, '-');
                continue;
            }
            write_number(cells[f].sum, out);
            if (cells[f].count != 1.0) {
                lore_buf_byte(out, '/');
                write_number(cells[f].count, out);
            }
        }
        lore_buf_byte(out, '\n');
    }
}

static bool parse_number(lore_str text, double *value)
{
    char copy[40];
    char *end = copy;
    if (text.len == 0 || text.len >= sizeof copy) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    *value = strtod(copy, &end);
    return end == copy + text.len && isfinite(*value) && *value >= 0.0;
}

static bool parse_cell(lore_str text, lore_cell *cell)
{
    size_t slash = lore_str_find(text, LORE_STR("/"), 0);
    if (lore_str_equal(text, LORE_STR("-"))) {
        *cell = (lore_cell){0.0, 0.0};
        return true;
    }
    cell->count = 1.0;
    if (slash == SIZE_MAX) {
        return parse_number(text, &cell->sum);
    }
    return parse_number(lore_str_slice(text, 0, slash), &cell->sum) &&
           parse_number(lore_str_slice(text, slash + 1, text.len), &cell->count) &&
           cell->count > 0.0;
}

/* What stands before the next tab, which is taken off *rest. False: nothing is left. */
static bool next_field(lore_str *rest, lore_str *field)
{
    if (rest->ptr == NULL) {
        return false;
    }
    size_t tab = lore_str_find(*rest, LORE_STR("\t"), 0);
    *field = lore_str_slice(*rest, 0, tab == SIZE_MAX ? rest->len : tab);
    *rest = tab == SIZE_MAX ? (lore_str){NULL, 0} : lore_str_slice(*rest, tab + 1, rest->len);
    return true;
}

static bool parse_head(lore_str line, lore_str *figures, int32_t *count)
{
    lore_str field;
    bool is_head = next_field(&line, &field) && lore_str_equal(field, LORE_STR("query"));
    *count = 0;
    while (is_head && next_field(&line, &field)) {
        is_head = *count < LORE_TABLE_FIGURES_MAX && field.len > 0;
        if (is_head) {
            figures[(*count)++] = field;
        }
    }
    return is_head && *count > 0;
}

static bool parse_row(lore_str line, lore_table *table)
{
    lore_cell *cells = lore_table_row(table, table->row_count);
    lore_str field;
    bool is_row = next_field(&line, &table->ids[table->row_count]);
    for (int32_t f = 0; f < table->figure_count && is_row; f++) {
        is_row = next_field(&line, &field) && parse_cell(field, &cells[f]);
    }
    is_row = is_row && line.ptr == NULL; /* no cell too many */
    if (is_row && table->row_count > 0) {
        is_row =
            lore_str_compare(table->ids[table->row_count - 1], table->ids[table->row_count]) < 0;
    }
    return is_row;
}

lore_status lore_table_parse(lore_str text, const char *name, lore_arena *arena, lore_table *table,
                             lore_error *err)
{
    lore_str line, figures[LORE_TABLE_FIGURES_MAX];
    int32_t count = 0, lines = 0;
    for (size_t i = 0; i < text.len; i++) {
        lines += text.ptr[i] == '\n' && lines < INT32_MAX;
    }
    if (!lore_str_next_line(&text, &line) || !parse_head(line, figures, &count)) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "'%s' is not a table of `lore eval --per-query`: its first line must be "
                         "'query' and the names of figures",
                         name);
    }
    lore_status status = lore_table_new(figures, count, lines + 1, arena, table, err);
    if (status != LORE_OK) {
        return status;
    }
    table->row_count = 0;
    while (lore_str_next_line(&text, &line)) {
        if (!parse_row(line, table)) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "'%s' line %d: a row is a query, in order bytewise, and %d figures",
                             name, table->row_count + 2, count);
        }
        table->row_count++;
    }
    return LORE_OK;
}
