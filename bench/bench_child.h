/* The program itself as a child: what a benchmark says about memory, start and interference must
 * come from a process that does nothing else.
 *
 * A child gets the configuration of this run as a file in the scratch folder, and no LORE_*
 * variables, so it runs exactly as configured here. Thread: one. */
#ifndef LORE_BENCH_BENCH_CHILD_H
#define LORE_BENCH_BENCH_CHILD_H

#include "bench/bench.h"

#include <sys/types.h>

typedef struct lore_bench_child {
    pid_t pid;          /* 0: none */
    int out;            /* its standard output */
    int64_t started_ns; /* just before it was made */
} lore_bench_child;

/* Run `lore --data FOLDER --json words...`. */
LORE_MUST_USE lore_status lore_bench_child_start(lore_bench *bench, const char *data,
                                                 const char *const *words, int32_t count,
                                                 lore_bench_child *child, lore_error *err);
/* Append its output up to the end of the next line; LORE_ERR_IO when it ends before. While waiting,
 * *peak_bytes (may be NULL) follows the most memory it has had. */
LORE_MUST_USE lore_status lore_bench_child_line(lore_bench_child *child, lore_buf *line,
                                                int64_t *peak_bytes, lore_error *err);
/* Send the signal (0: none), wait for the end, close. The exit code, or -1 for a violent death.
 * Accepts a child that was never started, and then gives 0. */
int lore_bench_child_end(lore_bench_child *child, int signal_number);
/* A field of /proc/PID/status in bytes ("VmRSS", "VmHWM"); 0 where there is none. */
int64_t lore_bench_child_memory(const lore_bench_child *child, const char *field);

typedef struct lore_bench_ingested {
    int64_t documents, chunks, tokens, text_bytes, failed;
    double seconds;     /* as the command measures it: without loading the encoder */
    int64_t peak_bytes; /* looked at every few milliseconds: growth of the last ones may be missed
                         */
} lore_bench_ingested;
/* `lore ingest` of path into a collection. */
LORE_MUST_USE lore_status lore_bench_child_ingest(lore_bench *bench, const char *data,
                                                  const char *collection, const char *path,
                                                  lore_bench_ingested *done, lore_error *err);

#endif
