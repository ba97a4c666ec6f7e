/* Tables and JSON of the benchmarks. A section is an array in the JSON object and a titled block of
 * the table; each figure is one object, one line. */
#include "bench/bench_report.h"

#include "base/config.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { SAMPLES_FIRST = 256 };

/* ---- samples ---- */

void lore_bench_sample(lore_bench_samples *samples, double value)
{
    if (samples->count == samples->cap) {
        int32_t cap = samples->cap > 0 ? 2 * samples->cap : SAMPLES_FIRST;
        double *grown = samples->cap > INT32_MAX / 4
                            ? NULL
                            : lore_realloc(samples->items, (size_t)cap * sizeof *grown);
        if (grown == NULL) {
            samples->failed = true;
            return;
        }
        samples->items = grown;
        samples->cap = cap;
    }
    samples->items[samples->count++] = value;
}

void lore_bench_samples_destroy(lore_bench_samples *samples)
{
    lore_free(samples->items);
    *samples = (lore_bench_samples){0};
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

lore_status lore_bench_samples_check(lore_bench_samples *samples, const char *what, lore_error *err)
{
    if (samples->failed) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the times of %s", what);
    }
    if (samples->count == 0) {
        return lore_fail(err, LORE_ERR_INVALID, "%s: nothing was measured", what);
    }
    qsort(samples->items, (size_t)samples->count, sizeof(double), compare_doubles);
    return LORE_OK;
}

double lore_bench_percentile(const lore_bench_samples *samples, double percent)
{
    LORE_ASSERT(samples->count > 0);
    double rank = ceil(percent / 100.0 * samples->count);
    int32_t at = rank < 1.0 ? 0 : (int32_t)rank - 1;
    return samples->items[at < samples->count ? at : samples->count - 1];
}

/* ---- the report ---- */

void lore_bench_number(double value, char out[32])
{
    double size = fabs(value);
    int digits = size >= 999.5 || size == 0.0 ? 0 : 3 - (int)floor(log10(size));
    snprintf(out, 32, "%.*f", digits > 9 ? 9 : digits, value);
}

void lore_bench_report_begin(lore_bench_report *report, FILE *out, lore_buf *json)
{
    LORE_ASSERT((out == NULL) != (json == NULL));
    *report = (lore_bench_report){.out = out, .json = json};
    if (json != NULL) {
        lore_json_write_begin(&report->w, json);
        lore_json_object(&report->w, NULL);
        lore_json_string(&report->w, "object", LORE_STR("lore.bench"));
        lore_json_string(&report->w, "version", LORE_STR(LORE_VERSION));
    }
}

void lore_bench_report_end(lore_bench_report *report)
{
    if (report->json != NULL) {
        if (report->has_section) {
            lore_json_end(&report->w);
        }
        lore_json_end(&report->w);
    }
}

void lore_bench_report_section(lore_bench_report *report, const char *key, const char *title)
{
    if (report->json == NULL) {
        fprintf(report->out, "%s%s: %s\n", report->has_section ? "\n" : "", key, title);
        fflush(report->out);
    } else {
        if (report->has_section) {
            lore_json_end(&report->w);
        }
        lore_json_array(&report->w, key);
    }
    report->has_section = true;
}

void lore_bench_report_figure(lore_bench_report *report, const lore_bench_figure *figure)
{
    if (report->json != NULL) {
        lore_json_object(&report->w, NULL);
        lore_json_string(&report->w, "name", lore_str_from(figure->name));
        lore_json_float(&report->w, "value", figure->value);
        lore_json_string(&report->w, "unit", lore_str_from(figure->unit));
        if (figure->share > 0.0) {
            lore_json_float(&report->w, "share", figure->share);
            lore_json_string(&report->w, "limit", lore_str_from(figure->limit));
        }
        if (figure->samples > 0) {
            lore_json_int(&report->w, "samples", figure->samples);
        }
        lore_json_end(&report->w);
        return;
    }
    char number[32];
    lore_bench_number(figure->value, number);
    fprintf(report->out, "  %-42s %10s %-10s", figure->name, number, figure->unit);
    if (figure->share > 0.0) {
        fprintf(report->out, " %5.1f %% %s", 100.0 * figure->share, figure->limit);
    }
    fputc('\n', report->out);
    fflush(report->out);
}

void lore_bench_report_median(lore_bench_report *report, const char *name, const char *unit,
                              const lore_bench_samples *samples, double floor)
{
    const double value = lore_bench_percentile(samples, 50.0);
    const double low = lore_bench_percentile(samples, 10.0),
                 high = lore_bench_percentile(samples, 90.0);
    if (report->json != NULL) {
        lore_json_object(&report->w, NULL);
        lore_json_string(&report->w, "name", lore_str_from(name));
        lore_json_float(&report->w, "value", value);
        lore_json_float(&report->w, "p10", low);
        lore_json_float(&report->w, "p90", high);
        lore_json_string(&report->w, "unit", lore_str_from(unit));
        if (floor > 0.0) {
            lore_json_float(&report->w, "floor", floor);
            lore_json_float(&report->w, "ratio", value / floor);
        }
        lore_json_int(&report->w, "samples", samples->count);
        lore_json_end(&report->w);
        return;
    }
    char numbers[4][32];
    lore_bench_number(value, numbers[0]);
    lore_bench_number(low, numbers[1]);
    lore_bench_number(high, numbers[2]);
    fprintf(report->out, "  %-42s %10s %-10s (%s to %s)", name, numbers[0], unit, numbers[1],
            numbers[2]);
    if (floor > 0.0) {
        lore_bench_number(floor, numbers[3]);
        fprintf(report->out, "  %.2fx of the floor, %s", value / floor, numbers[3]);
    }
    fputc('\n', report->out);
    fflush(report->out);
}

void lore_bench_report_times(lore_bench_report *report, const char *name, const char *unit,
                             const lore_bench_samples *samples)
{
    static const double PERCENTS[] = {50.0, 90.0, 99.0};
    static const char *const KEYS[] = {"p50", "p90", "p99"};
    if (report->json != NULL) {
        lore_json_object(&report->w, NULL);
        lore_json_string(&report->w, "name", lore_str_from(name));
        for (int i = 0; i < 3; i++) {
            lore_json_float(&report->w, KEYS[i], lore_bench_percentile(samples, PERCENTS[i]));
        }
        lore_json_string(&report->w, "unit", lore_str_from(unit));
        lore_json_int(&report->w, "samples", samples->count);
        lore_json_end(&report->w);
        return;
    }
    fprintf(report->out, "  %-42s", name);
    for (int i = 0; i < 3; i++) {
        char number[32];
        lore_bench_number(lore_bench_percentile(samples, PERCENTS[i]), number);
        fprintf(report->out, " %s %-8s", KEYS[i], number);
    }
    fprintf(report->out, " %s of %d\n", unit, (int)samples->count);
    fflush(report->out);
}
