/* The limits of this machine that benchmark figures are compared with. */
#ifndef LORE_BENCH_BENCH_PEAK_H
#define LORE_BENCH_BENCH_PEAK_H

#include "kernels/backend.h"

/* Time for benchmarks: one thread is timed by its own processor time, which on a shared machine
 * leaves out the work of others; several can only be timed by the wall clock. */
int64_t lore_bench_now_ns(const lore_pool *pool);

/* Operations a second of the multipliers that a cpu backend with this description uses for a
 * precision, all threads together; 0 where that is not known (plain C, int8 on AVX2). */
double lore_bench_peak(lore_pool *pool, const char *description, lore_precision precision);

/* Bytes a second that all threads together read from memory, in the fastest of several ways of
 * reading: the best of many passes, and their median, which is what a median of something else is
 * to be compared with. */
LORE_MUST_USE lore_status lore_bench_read_peak(lore_pool *pool, double *best, double *median,
                                               lore_error *err);

/* Random bits, always the same, that are numbers of 1/8 to 2, of both signs: as bf16 and, two by
 * two, as f32. */
void lore_bench_draw(uint64_t *words, size_t count);

/* Operations a second of the matrix product of a backend: size rows of size columns, random, by a
 * weight of size more outputs than another one, so that what is done to the rows beforehand, and
 * waiting for the device, are not part of it. In the precision of the backend. */
LORE_MUST_USE lore_status lore_bench_product_peak(lore_backend *backend, int32_t size, double *rate,
                                                  lore_error *err);

#endif
