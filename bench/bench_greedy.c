/* lore bench greedy: what the decoder says behind given prompts, token by token, greedily, for a
 * comparison with another program on the same folder (bench/peers/compare_greedy.py).
 *
 * Reads a line {"ids": [..]} for each prompt and writes a line {"ids": [..]} for each answer of 64
 * tokens, in the same order. All prompts go to the engine at once, so answers are computed in
 * batches as a server computes them. */
#include "base/clock.h"
#include "base/file.h"
#include "bench/bench.h"
#include "generation/engine.h"

enum { ANSWER = 64, PROMPTS_MAX = 4096, FILE_BYTES_MAX = 64 << 20 };

typedef struct asked {
    int32_t *ids;
    int32_t count;
    lore_stream *stream;
} asked;

typedef struct greedy {
    const lore_config *config;
    lore_arena arena;
    lore_backend *backend;
    lore_engine *engine;
    asked *prompts;
    int32_t count;
} greedy;

/* ---- prompts ---- */

static lore_status read_prompt(greedy *g, lore_str line, asked *prompt, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status =
        lore_json_parse(line, (int32_t)g->config->limits.json_depth_max, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    const lore_json *list = lore_json_get(root, "ids");
    if (!lore_json_is_array(list) || lore_json_count(list) == 0) {
        status = lore_fail(err, LORE_ERR_INVALID, "a prompt needs \"ids\", an array of numbers");
    } else {
        prompt->ids = LORE_PUSH(&g->arena, int32_t, lore_json_count(list));
        status =
            prompt->ids == NULL ? lore_fail(err, LORE_ERR_NOMEM, "no memory for prompts") : LORE_OK;
    }
    for (const lore_json *id = lore_json_first(list); status == LORE_OK && id != NULL;
         id = lore_json_next(id)) {
        const double number = lore_json_number(id);
        if (!lore_json_is_number(id) || !(number >= 0.0 && number <= INT32_MAX)) {
            status = lore_fail(err, LORE_ERR_INVALID, "\"ids\" are numbers of tokens");
        } else {
            prompt->ids[prompt->count++] = (int32_t)number;
        }
    }
    lore_json_free(root);
    return status;
}

static lore_status read_prompts(greedy *g, const char *path, lore_error *err)
{
    lore_buf file;
    lore_str line = {0};
    lore_buf_init(&file, 0);
    lore_status status = lore_file_read(path, FILE_BYTES_MAX, &file, err);
    g->prompts = LORE_PUSH(&g->arena, asked, PROMPTS_MAX);
    if (status == LORE_OK && g->prompts == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for prompts");
    }
    for (lore_str rest = lore_buf_str(&file);
         status == LORE_OK && lore_str_next_line(&rest, &line);) {
        if (lore_str_trim(line).len == 0) {
            continue;
        }
        status = g->count == PROMPTS_MAX
                     ? lore_fail(err, LORE_ERR_LIMIT, "more than %d prompts", (int)PROMPTS_MAX)
                     : read_prompt(g, line, &g->prompts[g->count++], err);
    }
    lore_buf_destroy(&file);
    return status == LORE_OK ? LORE_OK : lore_error_prefix(err, path);
}

/* ---- answers ---- */

static lore_status submit_all(greedy *g, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < g->count && status == LORE_OK; i++) {
        /* No penalty, whatever the folder would draw with. */
        const lore_generation generation = {.prompt = g->prompts[i].ids,
                                            .prompt_count = g->prompts[i].count,
                                            .tokens_max = ANSWER,
                                            .sampling = {.repetition_penalty = 1.0f}};
        status = lore_engine_submit(g->engine, &generation, &g->prompts[i].stream, err);
    }
    return status;
}

static lore_status write_answer(const asked *prompt, lore_error *err)
{
    lore_token_event event = {0};
    lore_status status = LORE_OK;
    const char *before = "{\"ids\":[";
    int32_t count = 0;
    while (status == LORE_OK && event.finish == LORE_FINISH_NONE) {
        status = lore_stream_next(prompt->stream, 0, &event);
        if (status == LORE_OK && event.id >= 0) {
            printf("%s%d", before, (int)event.id);
            before = ",";
            count++;
        }
    }
    printf("%s]}\n", count > 0 ? "" : before);
    return status == LORE_OK && event.finish == LORE_FINISH_ERROR
               ? lore_fail(err, LORE_ERR_DEVICE, "the decoder failed")
               : status;
}

static lore_status run_greedy(greedy *g, const lore_backend_options *device, lore_error *err)
{
    lore_config *config = LORE_PUSH(&g->arena, lore_config, 1);
    if (config == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a configuration");
    }
    *config = *g->config;
    config->limits.queue_requests_max = PROMPTS_MAX;
    lore_status status = lore_backend_open(device, &g->backend, err);
    if (status == LORE_OK) {
        status = lore_engine_start(config->decoder, g->backend, config, &g->engine, err);
    }
    if (status == LORE_OK) {
        status = submit_all(g, err);
    }
    for (int32_t i = 0; i < g->count && status == LORE_OK; i++) {
        status = write_answer(&g->prompts[i], err);
    }
    fflush(stdout);
    return status;
}

lore_status lore_bench_greedy(const lore_config *config, const lore_backend_options *device,
                              const char *path, lore_error *err)
{
    greedy g = {.config = config};
    lore_arena_init(&g.arena, 0);
    lore_status status = read_prompts(&g, path, err);
    if (status == LORE_OK) {
        status = run_greedy(&g, device, err);
    }
    for (int32_t i = 0; i < g.count; i++) {
        lore_stream_release(g.prompts[i].stream);
    }
    lore_engine_stop(g.engine, lore_clock_ns());
    lore_backend_close(g.backend);
    lore_arena_destroy(&g.arena);
    return status;
}
