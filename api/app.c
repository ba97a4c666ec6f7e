/* The parts of the program put together. Nothing here decides what an answer is: it reads the
 * configuration, opens each part, says what to do where one is missing, and closes all in reverse.
 *
 * Several backends, because several kinds of work share the machine: the embedder answers a query
 * in a millisecond and goes first (urgent), the decoder writes for a second; both may be on a GPU,
 * where searches are the processor's all the same but for copies of the vectors. */
#include "api/app.h"

#include "api/app_int.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum {
    PROMPTS_MAX = 256,         /* template files in the prompts folder; more is a wrong folder */
    LARGE_BYTES = 1024 * 1024, /* a document over this waits for others that are large */
    LOOK_MS = 250,             /* how often one that waits looks whether it is still wanted */
    /* One embeds while another cleans; more would only take memory. */
    BACKGROUND_THREADS = 2
};

static lore_status open_embed_backend(lore_app *app, lore_error *err)
{
    lore_backend_options options = {0};
    lore_status status = lore_app_parse_device(app->config, &options, err);
    if (status == LORE_OK) {
        status = lore_pool_new((int32_t)app->config->threads, &app->pool, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    options.pool = app->pool;
    /* The processor also where there is a GPU: the index scans what lies in main memory. */
    options.kind = options.kind == LORE_BACKEND_REF ? LORE_BACKEND_REF : LORE_BACKEND_CPU;
    options.device = 0;
    options.priority = LORE_PRIORITY_HIGH;
    return lore_backend_open(&options, &app->embed_backend, err);
}

/* The first to be opened of those on the device: what it finds there holds for all. */
static lore_status open_decode_backend(lore_app *app, lore_error *err)
{
    lore_status status = lore_app_open_device(app->config, app->pool, &app->decode_backend, err);
    app->is_on_gpu =
        status == LORE_OK && lore_backend_get_kind(app->decode_backend) == LORE_BACKEND_CUDA;
    return status;
}

static void tell_off(const char *what, const lore_error *why)
{
    lore_log(LORE_LOG_WARN, "event=device_%s_off reason=%s effect=\"on the processor\"", what,
             LORE_LOG_STR(lore_str_from(why->message)));
}

/* A backend of its own for other work on the GPU, if there is one. */
static lore_status open_beside(lore_app *app, lore_backend **backend, lore_error *err)
{
    lore_backend_options options = {0};
    lore_status status = lore_app_parse_device(app->config, &options, err);
    options.pool = app->pool;
    return status == LORE_OK && app->is_on_gpu ? lore_backend_open(&options, backend, err) : status;
}

/* May what did not open on the GPU go to the processor? A GPU asked for by name that fails is to be
 * seen to; a small one that is full after the decoder still serves. */
static bool may_go_on(const lore_app *app, lore_status status)
{
    return app->is_on_gpu && (status == LORE_ERR_NOMEM ||
                              (status == LORE_ERR_DEVICE && lore_app_is_auto(app->config)));
}

/* Where encoder and reranker compute. */
static lore_backend *encode_backend(const lore_app *app)
{
    return app->encode_backend != NULL ? app->encode_backend : app->embed_backend;
}

static lore_status open_embedder(lore_app *app, lore_error *err)
{
    const lore_config *config = app->config;
    if (!lore_file_is_dir(config->encoder)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "no encoder at '%s': set --set encoder=FOLDER or LORE_ENCODER",
                         config->encoder);
    }
    lore_status status = lore_embedder_open(config->encoder, encode_backend(app), &config->limits,
                                            &app->embedder, err);
    if (may_go_on(app, status)) {
        tell_off("encode", err);
        lore_backend_close(app->encode_backend);
        app->encode_backend = NULL;
        status = lore_embedder_open(config->encoder, app->embed_backend, &config->limits,
                                    &app->embedder, err);
    }
    if (status == LORE_OK && app->encode_backend != NULL) {
        lore_embedder_stand_by(app->embedder, app->embed_backend);
    }
    return status;
}

static lore_status open_reranker(lore_app *app, lore_error *err)
{
    const lore_config *config = app->config;
    if (strcmp(config->reranker, "none") == 0) {
        return LORE_OK;
    }
    if (!lore_file_is_dir(config->reranker)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "no reranker at '%s': set --set reranker=FOLDER, or reranker=none",
                         config->reranker);
    }
    lore_status status = lore_reranker_open(config->reranker, encode_backend(app), &config->limits,
                                            &app->reranker, err);
    if (may_go_on(app, status)) {
        tell_off("rerank", err);
        status = lore_reranker_open(config->reranker, app->embed_backend, &config->limits,
                                    &app->reranker, err);
    }
    return status;
}

/* Does the system refuse to let us write there? */
static bool is_read_only(const char *folder)
{
    return lore_file_is_dir(folder) && access(folder, W_OK) != 0 &&
           (errno == EACCES || errno == EROFS || errno == EPERM);
}

static lore_status open_writer(lore_app *app, lore_app_needs needs, lore_error *err)
{
    lore_status status = lore_writer_open(app->index, &app->writer, err);
    if (status == LORE_OK && needs.service) {
        status = lore_background_open(BACKGROUND_THREADS, &app->background, err);
    }
    return status;
}

/* The index can do without one, so a failure is only told. */
static void open_search_backend(lore_app *app)
{
    lore_error err;
    if (open_beside(app, &app->search_backend, &err) != LORE_OK) {
        tell_off("search", &err);
    }
}

static lore_status open_index(lore_app *app, lore_app_needs needs, lore_error *err)
{
    if (needs.service || needs.device_search) {
        open_search_backend(app);
    }
    const char *folder = app->config->data;
    lore_index_options options = {
        .config = app->config,
        .backend = app->embed_backend,
        .is_writer = needs.index_writer,
        .encoder = app->embedder ? lore_embedder_fingerprint(app->embedder) : NULL,
        .dim = app->embedder ? lore_embedder_dim(app->embedder) : 0,
        .device = app->search_backend,
    };
    if (options.is_writer && needs.service && is_read_only(folder)) {
        options.is_writer = false;
        lore_log(LORE_LOG_WARN,
                 "event=data_read_only path=%s effect=\"no documents are taken, no log is kept\"",
                 LORE_LOG_STR(lore_str_from(folder)));
    }
    lore_status status = lore_index_open(folder, &options, &app->index, err);
    if (status == LORE_ERR_NOT_FOUND) {
        return lore_fail(err, status, "no data folder at '%s': run `lore ingest PATH` first",
                         folder);
    }
    return status == LORE_OK && options.is_writer ? open_writer(app, needs, err) : status;
}

/* A service without its log is better than none: a failure is only told. */
static void open_log(lore_app *app)
{
    lore_error err;
    if (app->writer == NULL || app->config->request_log_rows == 0) {
        return;
    }
    const lore_request_log_options options = {
        .folder = app->config->data,
        .rows_max = app->config->request_log_rows,
        .with_questions = app->config->request_log_questions,
    };
    if (lore_request_log_open(&options, &app->log, &err) != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=request_log_off reason=%s",
                 LORE_LOG_STR(lore_str_from(err.message)));
    }
}

/* What the model's chat template ends a turn with also ends an answer. */
static lore_status open_chat_template(lore_app *app, lore_error *err)
{
    const lore_config *config = app->config;
    const lore_decoder_info *info = lore_engine_info(app->engine);
    lore_status status = lore_template_open(
        config->decoder, config->chat_template, lore_engine_tokenizer(app->engine), info->bos_id,
        info->eos_count > 0 ? info->eos_ids[0] : -1, &config->limits, &app->chat_template, err);
    if (status == LORE_OK) {
        lore_engine_end_at(app->engine, lore_template_end_id(app->chat_template));
    }
    return status;
}

/* auto goes on where the decoder does not fit the GPU. */
static lore_status start_decoder(lore_app *app, lore_error *err)
{
    const lore_config *config = app->config;
    lore_backend_options options = {0};
    lore_status status =
        lore_engine_start(config->decoder, app->decode_backend, config, &app->engine, err);
    if (!may_go_on(app, status) || !lore_app_is_auto(config)) {
        return status;
    }
    tell_off("decode", err);
    lore_backend_close(app->decode_backend);
    app->decode_backend = NULL;
    status = lore_app_parse_device(config, &options, err);
    options.kind = LORE_BACKEND_CPU;
    options.pool = app->pool;
    if (status == LORE_OK) {
        status = lore_backend_open(&options, &app->decode_backend, err);
    }
    return status == LORE_OK
               ? lore_engine_start(config->decoder, app->decode_backend, config, &app->engine, err)
               : status;
}

/* The default decoder may be absent (a small installation): then answers are extractive. One that
 * the user named must be there. */
static lore_status open_engine(lore_app *app, lore_error *err)
{
    const lore_config *config = app->config;
    if (strcmp(config->decoder, "none") == 0) {
        return LORE_OK;
    }
    if (!lore_file_is_dir(config->decoder)) {
        lore_config *defaults = lore_alloc(sizeof *defaults);
        if (defaults == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for the configuration");
        }
        lore_config_default(defaults);
        bool is_default = strcmp(config->decoder, defaults->decoder) == 0;
        lore_free(defaults);
        if (!is_default) {
            return lore_fail(err, LORE_ERR_NOT_FOUND,
                             "no decoder at '%s': set --set decoder=FOLDER, or decoder=none for "
                             "extractive answers",
                             config->decoder);
        }
        lore_log(LORE_LOG_WARN, "event=no_decoder path=%s effect=\"extractive answers only\"",
                 LORE_LOG_STR(lore_str_from(config->decoder)));
        return LORE_OK;
    }
    lore_status status = start_decoder(app, err);
    if (status != LORE_OK) {
        return status;
    }
    const lore_decoder_info *info = lore_engine_info(app->engine);
    lore_log(LORE_LOG_INFO,
             "event=decoder_ready device=%s weight_bytes=%" PRId64 " kv_bytes=%" PRId64
             " context=%d",
             LORE_LOG_STR(lore_str_from(lore_backend_describe(app->decode_backend))),
             info->weight_bytes, info->kv_bytes, (int)info->context);
    return open_chat_template(app, err);
}

static lore_status open_prompt_files(lore_app *app, const lore_str *names, size_t count,
                                     lore_error *err)
{
    app->prompts = lore_alloc_zero(count + 1, sizeof *app->prompts);
    if (app->prompts == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for prompts");
    }
    for (size_t i = 0; i < count; i++) {
        if (!lore_str_ends(names[i], LORE_STR(".txt"))) {
            continue;
        }
        lore_str name = lore_str_slice(names[i], 0, names[i].len - 4);
        lore_status status =
            lore_prompt_open(app->config->prompts, name, &app->prompts[app->prompt_count], err);
        if (status != LORE_OK) {
            return status;
        }
        app->prompt_count++;
    }
    return LORE_OK;
}

/* Every *.txt of the prompts folder, parsed now, so that a broken template is found at the start
 * and not by a customer. */
static lore_status open_prompts(lore_app *app, lore_error *err)
{
    const char *folder = app->config->prompts;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_str *names = NULL;
    size_t count = 0;
    lore_status status = lore_dir_list(&arena, folder, PROMPTS_MAX, &names, &count, err);
    if (status == LORE_OK) {
        status = open_prompt_files(app, names, count, err);
    } else {
        status = lore_error_prefix(err, "prompts");
    }
    lore_arena_destroy(&arena);
    if (status == LORE_OK && app->prompt_count == 0) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "no prompt templates (*.txt) in '%s': set --set prompts=FOLDER", folder);
    }
    return status;
}

/* The decoder is read on a thread of its own: that takes as long as reading the encoder and opening
 * the index together. Nobody else looks at app->engine until it is joined. */
typedef struct engine_start {
    lore_app *app;
    lore_thread thread;
    lore_status status;
    lore_error error;
} engine_start;

static void *start_engine(void *self)
{
    engine_start *start = self;
    start->status = open_engine(start->app, &start->error);
    return NULL;
}

static lore_status join_engine(engine_start *start, lore_error *err)
{
    lore_thread_join(&start->thread);
    if (start->status != LORE_OK) {
        *err = start->error;
    }
    return start->status;
}

static lore_status open_devices(lore_app *app, lore_app_needs needs, lore_error *err)
{
    const bool computes =
        needs.engine || needs.embedder || needs.reranker || needs.service || needs.device_search;
    lore_status status = open_embed_backend(app, err);
    if (status == LORE_OK && computes) {
        status = open_decode_backend(app, err);
    }
    return status;
}

/* All but the engine, which opens meanwhile. */
static lore_status open_others(lore_app *app, lore_app_needs needs, engine_start *start,
                               lore_error *err)
{
    lore_status status = LORE_OK;
    if (needs.embedder || needs.reranker) {
        status = open_beside(app, &app->encode_backend, err);
    }
    if (status == LORE_OK && needs.embedder) {
        status = open_embedder(app, err);
    }
    if (status == LORE_OK && needs.reranker) {
        status = open_reranker(app, err);
    }
    /* On a GPU the index takes for its vectors what the decoder has left. */
    if (status == LORE_OK && app->is_on_gpu) {
        status = join_engine(start, err);
    }
    if (status == LORE_OK && (needs.index || needs.index_writer)) {
        status = open_index(app, needs, err);
    }
    if (status == LORE_OK && needs.service) {
        open_log(app);
    }
    return status;
}

static lore_status open_parts(lore_app *app, lore_app_needs needs, lore_error *err)
{
    engine_start start = {.app = app};
    lore_error engine_err;
    lore_status status = open_devices(app, needs, err);
    if (status == LORE_OK && needs.engine) {
        status = lore_thread_start(&start.thread, "lore-open", start_engine, &start, err);
    }
    if (status == LORE_OK) {
        status = open_others(app, needs, &start, err);
    }
    lore_status engine_status = join_engine(&start, &engine_err);
    if (status == LORE_OK && engine_status != LORE_OK) {
        *err = engine_err;
        status = engine_status;
    }
    if (status == LORE_OK && needs.engine) {
        status = lore_app_open_adapters(app, needs.service, err);
    }
    if (status == LORE_OK && (needs.engine || needs.prompts)) {
        status = open_prompts(app, err);
    }
    return status;
}

lore_status lore_app_open(const lore_config *config, lore_app_needs needs, lore_app *app,
                          lore_error *err)
{
    memset(app, 0, sizeof *app);
    app->config = config;
    lore_lock_init(&app->room);
    app->has_room = true;
    lore_status status = open_parts(app, needs, err);
    if (status != LORE_OK) {
        lore_app_close(app);
        return status;
    }
    app->answerer = (lore_answerer){
        .retriever = {.index = app->index,
                      .embedder = app->embedder,
                      .reranker = app->reranker,
                      .config = config},
        .engine = app->engine,
        .chat_template = app->chat_template,
        .prompts = (const lore_prompt_template *const *)app->prompts,
        .prompt_count = app->prompt_count,
        .config = config,
        .is_failing = &app->is_failing,
    };
    return LORE_OK;
}

void lore_app_close(lore_app *app)
{
    for (int32_t i = 0; i < app->prompt_count; i++) {
        lore_prompt_close(app->prompts[i]);
    }
    lore_free(app->prompts);
    /* By now nobody asks any more; a sequence that still runs has no reader. */
    lore_engine_stop(app->engine, lore_clock_ns());
    lore_template_close(app->chat_template);
    lore_background_close(app->background);
    lore_writer_close(app->writer);
    lore_request_log_close(app->log);
    lore_index_close(app->index);
    lore_embedder_close(app->embedder);
    lore_reranker_close(app->reranker);
    lore_backend_close(app->decode_backend);
    lore_backend_close(app->search_backend);
    lore_backend_close(app->encode_backend);
    lore_backend_close(app->embed_backend);
    lore_pool_free(app->pool);
    if (app->has_room) {
        lore_lock_destroy(&app->room);
    }
    memset(app, 0, sizeof *app);
}

/* ---- writing ---- */

lore_status lore_app_writer(const lore_app *app, lore_writer **writer, lore_error *err)
{
    if (app->writer == NULL) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED, "the data folder '%s' is read-only",
                         app->config->data);
    }
    *writer = app->writer;
    return LORE_OK;
}

static bool has_room(const lore_app *app, size_t bytes)
{
    size_t most = (size_t)app->config->limits.file_bytes_max;
    return app->large_bytes == 0 || (bytes <= most && app->large_bytes <= most - bytes);
}

lore_status lore_app_begin_document(lore_app *app, size_t bytes, bool (*is_cancelled)(void *self),
                                    void *self, lore_error *err)
{
    if (bytes <= LARGE_BYTES) {
        return LORE_OK;
    }
    for (;;) {
        lore_lock_acquire(&app->room);
        bool is_admitted = has_room(app, bytes);
        if (is_admitted) {
            app->large_bytes += bytes;
        } else {
            (void)lore_lock_wait(&app->room, lore_clock_ns() + LOOK_MS * 1000000LL);
        }
        lore_lock_release(&app->room);
        if (is_admitted) {
            return LORE_OK;
        }
        if (is_cancelled(self)) {
            return lore_fail(err, LORE_ERR_CANCELLED, "cancelled while large documents were busy");
        }
    }
}

void lore_app_end_document(lore_app *app, size_t bytes)
{
    if (bytes > LARGE_BYTES) {
        lore_lock_acquire(&app->room);
        LORE_ASSERT(app->large_bytes >= bytes);
        app->large_bytes -= bytes;
        lore_lock_wake_all(&app->room);
        lore_lock_release(&app->room);
    }
}
