/* What benchmarks say: figures with a unit, and where there is one their share of a measured limit.
 *
 * People get a table, programs one JSON object; both are written from the same calls. Percentiles
 * are nearest-rank, so each is a time that was really measured. Nothing here measures. Thread: one.
 */
#ifndef LORE_BENCH_BENCH_REPORT_H
#define LORE_BENCH_BENCH_REPORT_H

#include "base/json.h"

#include <stdio.h>

/* Times or rates of one kind, in the order they were taken. Running out of memory is sticky and
 * comes out of lore_bench_samples_check. */
typedef struct lore_bench_samples {
    double *items;
    int32_t count, cap;
    bool failed;
} lore_bench_samples;
void lore_bench_sample(lore_bench_samples *samples, double value);
void lore_bench_samples_destroy(lore_bench_samples *samples);
/* LORE_ERR_NOMEM where a sample was lost, LORE_ERR_INVALID naming `what` where there is none; sorts
 * them otherwise. */
LORE_MUST_USE lore_status lore_bench_samples_check(lore_bench_samples *samples, const char *what,
                                                   lore_error *err);
/* Of sorted samples, at least one: the smallest that percent of them do not exceed (nearest rank).
 */
double lore_bench_percentile(const lore_bench_samples *samples, double percent);

/* Four significant digits, no exponent: "0.01234", "12.34", "1234", "123456". */
void lore_bench_number(double value, char out[32]);

typedef struct lore_bench_report {
    FILE *out;          /* the table; NULL where json is asked for */
    lore_buf *json;     /* NULL: the table */
    lore_json_writer w; /* on json */
    bool has_section;
} lore_bench_report;

/* Exactly one of out and json; both are the caller's. JSON's failure is the buffer's sticky flag.
 */
void lore_bench_report_begin(lore_bench_report *report, FILE *out, lore_buf *json);
void lore_bench_report_end(lore_bench_report *report);
/* A group of figures: member `key` of the object, `title` above the table. */
void lore_bench_report_section(lore_bench_report *report, const char *key, const char *title);

typedef struct lore_bench_figure {
    const char *name; /* "8 streams" */
    double value;
    const char *unit;  /* "tok/s" */
    double share;      /* of what the machine can do; 0: no limit is known */
    const char *limit; /* "of read bandwidth" */
    int32_t samples;   /* it is the median of so many; 0: a single measurement or a count */
} lore_bench_figure;
void lore_bench_report_figure(lore_bench_report *report, const lore_bench_figure *figure);
/* The median of sorted samples, with the 10th and the 90th percentile, and how many times the floor
 * it is: the least that this machine's measured limits allow, in the same unit; 0: not known. */
void lore_bench_report_median(lore_bench_report *report, const char *name, const char *unit,
                              const lore_bench_samples *samples, double floor);
/* p50, p90 and p99 of sorted samples. */
void lore_bench_report_times(lore_bench_report *report, const char *name, const char *unit,
                             const lore_bench_samples *samples);

#endif
