/* `lore bench ops` on a device whose ops run behind the back of the host: many at a time, one wait.
 */
#ifndef LORE_BENCH_BENCH_OPS_DEVICE_H
#define LORE_BENCH_BENCH_OPS_DEVICE_H

#include "kernels/backend.h"

#include <stdio.h>

typedef struct lore_bench_ops_device_options {
    lore_backend_options device;
    double read_rate, multiply_rate; /* of the device, measured before; multiply 0: not known */
    int32_t case_ms;                 /* time spent on one case; 0: 200 */
    const char *only;                /* cases whose name holds this; NULL: all */
    bool is_json;                    /* one JSON object a line instead of a table */
    FILE *out;
} lore_bench_ops_device_options;

/* Shapes of a 7B Mistral and a 1B Llama, a line each: the median time of one op, its spread, rates,
 * and how many times the floor it is. Takes some gigabytes of the device. */
LORE_MUST_USE lore_status lore_bench_ops_device(const lore_bench_ops_device_options *options,
                                                lore_error *err);

#endif
