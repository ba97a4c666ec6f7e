/* `lore bench ops`: how fast each op is at the shapes of the starter models, against what the
 * machine could do. */
#ifndef LORE_BENCH_BENCH_OPS_H
#define LORE_BENCH_BENCH_OPS_H

#include "kernels/backend.h"

#include <stdio.h>

typedef struct lore_bench_ops_options {
    lore_isa isa;     /* at most this one; 0: the best */
    int32_t threads;  /* 0: all cores */
    int32_t case_ms;  /* time spent on one case; 0: 200 */
    const char *only; /* cases whose name holds this; NULL: all */
    bool is_json;     /* one JSON object a line instead of a table */
    FILE *out;
} lore_bench_ops_options;

/* Runs all cases on the cpu backend and prints one line each: best and median time, GFLOP/s or GB/s
 * of the best, and its share of the peak measured on this machine a moment before (registers only,
 * or reading memory). */
LORE_MUST_USE lore_status lore_bench_ops(const lore_bench_ops_options *options, lore_error *err);

#endif
