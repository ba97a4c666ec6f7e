/* `lore bench`: what this machine makes of each part of the product, against what it could do.
 *
 * A benchmark is one function that prints its figures into the report. What they share is here: the
 * configuration, the limits of the machine measured a moment before, the documents and questions to
 * work on, and a scratch folder. Thread: the command's. */
#ifndef LORE_BENCH_BENCH_H
#define LORE_BENCH_BENCH_H

#include "base/config.h"
#include "bench/bench_report.h"
#include "kernels/backend.h"

enum { LORE_BENCH_LIST_MAX = 16 };

/* Numbers of a flag like "1,8,32"; count 0: not given. */
typedef struct lore_bench_list {
    int32_t items[LORE_BENCH_LIST_MAX];
    int32_t count;
} lore_bench_list;

typedef struct lore_bench {
    const lore_config *config;
    lore_bench_report *report;
    bool is_brief;            /* all of them in a minute: a quarter of the time for each */
    const char *data;         /* data folder to search and serve; NULL: one made of `documents` */
    const char *documents;    /* file or folder to ingest, and text for the models */
    const char *questions;    /* JSONL with "question" */
    const char *load;         /* to ingest while serving; NULL: nothing */
    int32_t clients;          /* asking at a time, beside one alone */
    int32_t chunk;            /* encode: tokens of a chunk; 0: 200 */
    bool is_unembedded;       /* ingest: only the run without the encoder */
    int32_t vectors;          /* search: a scan of so many instead; 0: a data folder */
    lore_bench_list prompts;  /* prefill: tokens; none: 400 */
    lore_bench_list contexts; /* decode: tokens before the steps, ascending; none: 400 */
    int32_t adapters;         /* decode: streams have so many adapters; 0: none */
    int32_t adapter_rank;
    lore_bench_list batches;    /* decode: streams, ascending; none: 1, 2, 4 .., and the engine */
    double rate;                /* serve --engine: requests a second; 0: asked for otherwise */
    bool has_engine;            /* serve: the engine alone, under an open load */
    bool finds_rate;            /* the highest rate at which answers begin in time */
    int32_t seconds;            /* of one load; 0: 20 */
    int32_t soak_seconds;       /* mixed load with cancels, then a look for leaks; 0: none */
    bool (*is_cancelled)(void); /* polled between measurements */

    lore_backend_options device; /* what config->device means; its pool is ours */
    lore_pool *pool;
    char machine[128]; /* the backend's description of it */
    double read_rate;  /* bytes a second of that device's memory, median of many passes */
    /* Operations a second by lore_precision, the whole device; 0: not known. */
    double multiply_peak[4];
    char scratch[256]; /* a folder of our own, removed at the end; "": none yet */
    bool has_scratch_data;
    lore_arena arena; /* of the run */
} lore_bench;

/* Measure the machine; everything before it is the caller's to fill, zero otherwise. */
LORE_MUST_USE lore_status lore_bench_open(lore_bench *bench, lore_error *err);
void lore_bench_close(lore_bench *bench); /* accepts a zeroed one; removes the scratch folder */

/* The benchmarks, in the order of the whole run. LORE_ERR_CANCELLED when is_cancelled says so. */
LORE_MUST_USE lore_status lore_bench_encode(lore_bench *bench, lore_error *err);
LORE_MUST_USE lore_status lore_bench_prefill(lore_bench *bench, lore_error *err);
LORE_MUST_USE lore_status lore_bench_decode(lore_bench *bench, lore_error *err);
LORE_MUST_USE lore_status lore_bench_search(lore_bench *bench, lore_error *err);
/* The end of the one before, and search --vectors: nothing where no GPU is configured. */
LORE_MUST_USE lore_status lore_bench_device_search(lore_bench *bench, lore_error *err);
LORE_MUST_USE lore_status lore_bench_ingest(lore_bench *bench, lore_error *err);
LORE_MUST_USE lore_status lore_bench_serve(lore_bench *bench, lore_error *err);
/* search --vectors without a GPU: the exact scan alone. */
LORE_MUST_USE lore_status lore_bench_scan(lore_bench *bench, lore_error *err);
/* serve --engine, and serve --soak: the engine alone. */
LORE_MUST_USE lore_status lore_bench_rate(lore_bench *bench, lore_error *err);
LORE_MUST_USE lore_status lore_bench_soak(lore_bench *bench, lore_error *err);
LORE_MUST_USE lore_status lore_bench_start(lore_bench *bench, lore_error *err);

/* ---- what is no benchmark by itself: no machine is measured, stdout gets their lines ---- */

/* Open the configured decoder, draw one token, say so: the process that lore_bench_start times. */
LORE_MUST_USE lore_status lore_bench_start_once(const lore_config *config,
                                                const lore_backend_options *device,
                                                lore_error *err);
/* The greedy answers to the prompts of a file. */
LORE_MUST_USE lore_status lore_bench_greedy(const lore_config *config,
                                            const lore_backend_options *device, const char *path,
                                            lore_error *err);

/* ---- for the benchmarks ---- */

/* full, or a quarter of it in a brief run. */
int64_t lore_bench_budget(const lore_bench *bench, int64_t full);
LORE_MUST_USE lore_status lore_bench_check_cancelled(const lore_bench *bench, lore_error *err);
static inline bool lore_bench_has_gpu(const lore_bench *bench)
{
    return bench->device.kind == LORE_BACKEND_CUDA;
}
/* The read rate of now: on shared processors it is not constant. A GPU's is the one measured at the
 * start, since a model may have taken the memory since. */
LORE_MUST_USE lore_status lore_bench_read_now(const lore_bench *bench, double *rate,
                                              lore_error *err);
/* bench->scratch exists from here on. */
LORE_MUST_USE lore_status lore_bench_scratch(lore_bench *bench, lore_error *err);
/* The data folder to work on: the one given, or one of the scratch folder, made at the first call.
 */
LORE_MUST_USE lore_status lore_bench_data(lore_bench *bench, const char **data, lore_error *err);
/* Cleaned text of the documents, one behind the other, until there are bytes_max. In the arena. */
LORE_MUST_USE lore_status lore_bench_text(lore_bench *bench, size_t bytes_max, lore_str *text,
                                          lore_error *err);
/* The questions, at least one. In the arena. */
LORE_MUST_USE lore_status lore_bench_questions(lore_bench *bench, lore_str **questions,
                                               int32_t *count, lore_error *err);

#endif
