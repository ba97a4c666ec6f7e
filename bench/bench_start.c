/* lore bench start: from the start of the program to the first token of the configured decoder.
 *
 * The program is started again as `lore bench start --once`, which opens the decoder as a server
 * does, draws one token behind a short prompt and says so in one line; the time is from just before
 * that process was made to the arrival of the line. The first start of several brings the files to
 * the page cache and does not count. */
#include "base/clock.h"
#include "bench/bench.h"
#include "bench/bench_child.h"
#include "generation/engine.h"

#include <string.h>

enum { STARTS = 5, PROMPT = 16 };

lore_status lore_bench_start_once(const lore_config *config, const lore_backend_options *device,
                                  lore_error *err)
{
    int32_t prompt[PROMPT];
    lore_backend *backend = NULL;
    lore_engine *engine = NULL;
    lore_stream *stream = NULL;
    lore_token_event event = {0};
    lore_status status = lore_backend_open(device, &backend, err);
    if (status == LORE_OK) {
        status = lore_engine_start(config->decoder, backend, config, &engine, err);
    }
    if (status == LORE_OK) {
        for (int32_t i = 0; i < PROMPT; i++) {
            prompt[i] = (i * 7919 + 1) % lore_engine_info(engine)->vocab;
        }
        const lore_generation generation = {
            .prompt = prompt, .prompt_count = PROMPT, .tokens_max = 1};
        status = lore_engine_submit(engine, &generation, &stream, err);
    }
    if (status == LORE_OK) {
        status = lore_stream_next(stream, 0, &event);
    }
    if (status == LORE_OK && event.finish == LORE_FINISH_ERROR) {
        status = lore_fail(err, LORE_ERR_DEVICE, "the decoder failed");
    }
    if (status == LORE_OK) {
        printf("{\"first_token\":%d}\n", event.id);
        fflush(stdout);
    }
    lore_stream_release(stream);
    lore_engine_stop(engine, lore_clock_ns());
    lore_backend_close(backend);
    return status;
}

static lore_status time_start(lore_bench *bench, double *ms, int64_t *peak_bytes, lore_error *err)
{
    static const char *const words[] = {"bench", "start", "--once"};
    lore_bench_child child = {0};
    lore_buf line;
    lore_buf_init(&line, 0);
    lore_status status = lore_bench_child_start(bench, bench->config->data, words, 3, &child, err);
    if (status == LORE_OK) {
        status = lore_bench_child_line(&child, &line, peak_bytes, err);
    }
    *ms = (double)(lore_clock_ns() - child.started_ns) * 1e-6;
    const int code = lore_bench_child_end(&child, 0);
    if (status == LORE_OK && code != 0) {
        status = lore_fail(err, LORE_ERR_IO, "lore bench start --once gave %d", code);
    }
    lore_buf_destroy(&line);
    return status;
}

lore_status lore_bench_start(lore_bench *bench, lore_error *err)
{
    lore_bench_samples times = {0};
    int64_t peak_bytes = 0;
    lore_status status = LORE_OK;
    const int64_t starts = lore_bench_budget(bench, STARTS);
    for (int64_t i = -1; i < starts && status == LORE_OK; i++) {
        double ms = 0.0;
        status = time_start(bench, &ms, &peak_bytes, err);
        if (i >= 0) {
            lore_bench_sample(&times, ms);
        }
        if (status == LORE_OK) {
            status = lore_bench_check_cancelled(bench, err);
        }
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, "starts", err);
    }
    if (status == LORE_OK) {
        lore_bench_report_section(bench->report, "start", bench->config->decoder);
        lore_bench_report_median(bench->report, "start of the program to first token", "ms", &times,
                                 0.0);
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){.name = "its memory at most (resident)",
                                                      .value = (double)peak_bytes / (1 << 20),
                                                      .unit = "MiB"});
    }
    lore_bench_samples_destroy(&times);
    return status;
}
