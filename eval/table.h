/* Figures of a run, query by query: their means, how sure they are, and two runs side by side.
 *
 * A cell is a sum over a count; a figure is the sum of its sums over the sum of its counts. Means
 * have counts of 1, ratios (precision of citations) others, and a query that a figure says nothing
 * about has 0. Intervals are the percentiles of a bootstrap over queries (Efron and Tibshirani,
 * 1993; for retrieval Sakai, SIGIR 2006) from a fixed seed, so the same cells give the same digits.
 * A table is written as tab-separated text and read back without loss. Thread: any. */
#ifndef LORE_EVAL_TABLE_H
#define LORE_EVAL_TABLE_H

#include "base/str.h"

enum { LORE_TABLE_FIGURES_MAX = 24 };

typedef struct lore_cell {
    double sum, count;
} lore_cell;

typedef struct lore_table {
    lore_str figures[LORE_TABLE_FIGURES_MAX]; /* names */
    int32_t figure_count;
    lore_str *ids; /* of the queries, in order bytewise, each once */
    int32_t row_count;
    lore_cell *cells; /* [row_count][figure_count] */
} lore_table;

/* Room for rows; ids and cells are the caller's to fill, cells begin as 0 over 0. */
LORE_MUST_USE lore_status lore_table_new(const lore_str *figures, int32_t figure_count,
                                         int32_t row_count, lore_arena *arena, lore_table *table,
                                         lore_error *err);
lore_cell *lore_table_row(const lore_table *table, int32_t row);
int32_t lore_table_find(const lore_table *table, lore_str figure); /* -1: none */

typedef struct lore_estimate {
    double value;     /* NaN where nothing was counted */
    double low, high; /* 95 %; NaN likewise */
    int32_t rows;     /* queries with a count */
} lore_estimate;
/* estimates has room for figure_count. */
LORE_MUST_USE lore_status lore_table_estimate(const lore_table *table, int32_t resamples,
                                              lore_arena *arena, lore_estimate *estimates,
                                              lore_error *err);

typedef struct lore_difference {
    double before, after, value; /* value = after - before, over the queries that both have */
    double low, high;            /* 95 % of the difference, the same queries drawn for both */
    double p; /* two-sided: how often a draw had the other sign, twice; 1: as good as equal */
    int32_t rows;
} lore_difference;
/* For each figure of `after` that `before` has too: differences has room for
 * after->figure_count; the others stay NaN with rows 0. LORE_ERR_INVALID: no query in common. */
LORE_MUST_USE lore_status lore_table_compare(const lore_table *before, const lore_table *after,
                                             int32_t resamples, lore_arena *arena,
                                             lore_difference *differences, int32_t *common,
                                             lore_error *err);

/* "query\tndcg@10\n" "q1\t0.5\n": a number where the count is 1, "sum/count" elsewhere, "-" where
 * it is 0; shortest digits that read back the same. */
void lore_table_write(const lore_table *table, lore_buf *out);
/* name is for messages. Borrows from text. LORE_ERR_INVALID names the line. */
LORE_MUST_USE lore_status lore_table_parse(lore_str text, const char *name, lore_arena *arena,
                                           lore_table *table, lore_error *err);

#endif
