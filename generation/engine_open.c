/* Starting and stopping an engine: what config and backend mean for it, its parts, and a decoder's
 * functions behind the table that engine_int.h asks for. */
#include "generation/engine_state_int.h"

#include <string.h>

#define GIB ((int64_t)1 << 30)
#define HOST_CACHED_BYTES ((int64_t)64 << 20)
enum {
    BOUND_MAX = 1 << 20,   /* of rows, sequences and queue: far above use, far below overflow */
    PIECE_ROWS_FIRST = 64, /* beside running answers, until the speed is known */
    /* Slots for each that can run: what is left comes free a step later, and what comes next is
     * there before. */
    ADAPTERS_A_SEQUENCE = 2
};

/* ---- parts ---- */

static lore_status bounded(int64_t value, const char *name, int32_t *out, lore_error *err)
{
    if (value < 1 || value > BOUND_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "limits.%s is %lld, must be 1 to %d", name,
                         (long long)value, (int)BOUND_MAX);
    }
    *out = (int32_t)value;
    return LORE_OK;
}

static lore_status read_bounds(lore_engine *engine, lore_error *err)
{
    const lore_limits *limits = &engine->limits;
    int32_t queue = 0;
    lore_status status =
        bounded(limits->step_tokens_max, "step_tokens_max", &engine->rows_max, err);
    if (status == LORE_OK) {
        status = bounded(limits->batch_sequences_max, "batch_sequences_max", &engine->sequences_max,
                         err);
    }
    if (status == LORE_OK) {
        status = bounded(limits->queue_requests_max, "queue_requests_max", &queue, err);
    }
    engine->request_cap = engine->sequences_max + queue;
    return status;
}

static void close_engine(lore_engine *engine)
{
    lore_adapters_free(engine->adapters); /* before the decoder, which has their memory */
    lore_sched_free(engine->sched);
    lore_free(engine->live);
    lore_free(engine->parked);
    lore_free(engine->ids);
    lore_free(engine->logprobs);
    lore_chan_free(engine->arrivals);
    lore_lock_destroy(&engine->stats_lock);
    if (engine->model.close != NULL) {
        engine->model.close(engine->model.self);
    }
    lore_free(engine);
}

/* A host's memory that was never used costs nothing, so that only some of it is kept in use; a
 * GPU's pages are taken in any case. */
static void limit_cached(lore_engine *engine, const lore_decoder_info *info)
{
    int64_t bytes = engine->limits.kv_cached_bytes_max;
    if (bytes == 0) {
        bytes = info->kv_on_device ? info->kv_bytes : HOST_CACHED_BYTES;
    }
    if (bytes < info->kv_bytes) {
        const double kept = (double)bytes / (double)info->kv_bytes;
        const int32_t pages = (int32_t)(kept * info->page_count);
        lore_sched_limit_cached(engine->sched, pages > 0 ? pages : 1);
    }
}

static lore_status make_parts(lore_engine *engine, lore_error *err)
{
    const lore_decoder_info *info = engine->model.info;
    engine->steps_max = info->steps_in_flight >= LORE_STEPS_MAX ? LORE_STEPS_MAX : 1;
    lore_sched_options options = {.rows_max = engine->rows_max,
                                  .sequences_max = engine->sequences_max,
                                  .waiting_max = 2 * engine->request_cap,
                                  .context = info->context,
                                  .page_tokens = info->page_tokens,
                                  .page_count = info->page_count,
                                  .eos_ids = info->eos_ids,
                                  .eos_count = info->eos_count,
                                  .steps_in_flight = engine->steps_max,
                                  .turn_tokens = info->turn_tokens};
    lore_status status = lore_sched_new(&options, &engine->sched, err);
    if (status != LORE_OK) {
        return status;
    }
    limit_cached(engine, info);
    if (engine->limits.step_ms_max > 0) {
        lore_sched_limit_pieces(engine->sched, PIECE_ROWS_FIRST);
    }
    engine->arrivals = lore_chan_new((size_t)engine->request_cap + 1); /* and a nudge */
    engine->live = lore_alloc_zero(2 * (size_t)engine->request_cap, sizeof(lore_request *));
    engine->parked = lore_alloc_zero(2 * (size_t)engine->request_cap, sizeof(lore_request *));
    engine->ids = lore_alloc_zero((size_t)engine->sequences_max, sizeof(int32_t));
    engine->logprobs = lore_alloc_zero((size_t)engine->sequences_max, sizeof(float));
    if (engine->arrivals == NULL || engine->live == NULL || engine->parked == NULL ||
        engine->ids == NULL || engine->logprobs == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the engine");
    }
    int32_t vocab = lore_tokenizer_vocab(engine->model.tokenizer);
    size_t longest = 0;
    for (int32_t id = 0; id < vocab; id++) {
        size_t bytes = lore_tokenizer_bytes(engine->model.tokenizer, id).len;
        longest = bytes > longest ? bytes : longest;
    }
    engine->bounds = (lore_request_bounds){&engine->limits, info, engine->sched, longest};
    return LORE_OK;
}

lore_status lore_engine_start_model(const lore_engine_model *model, const lore_limits *limits,
                                    lore_engine **engine_out, lore_error *err)
{
    lore_engine *engine = lore_alloc_zero(1, sizeof *engine);
    if (engine == NULL) {
        if (model->close != NULL) {
            model->close(model->self);
        }
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the engine");
    }
    engine->model = *model;
    engine->is_prepared = model->prepare == NULL;
    engine->limits = *limits;
    atomic_init(&engine->unfinished, 0);
    atomic_init(&engine->stop_deadline_ns, LORE_NOT_STOPPING);
    atomic_init(&engine->is_nudged, false);
    lore_lock_init(&engine->stats_lock);
    lore_status status = read_bounds(engine, err);
    if (status == LORE_OK) {
        status = make_parts(engine, err);
    }
    engine->model.adapters.base_name = model->info->name; /* what lore_engine_choose takes for it */
    if (status == LORE_OK && model->adapters.slots > 0) {
        status = lore_adapters_new(&engine->model.adapters, limits, lore_engine_nudge, engine,
                                   &engine->adapters, err);
    }
    if (status == LORE_OK) {
        lore_engine_publish_stats(engine);
        status = lore_thread_start(&engine->thread, "engine", lore_engine_run, engine, err);
    }
    if (status != LORE_OK) {
        close_engine(engine);
        return status;
    }
    *engine_out = engine;
    return LORE_OK;
}

/* ---- a decoder behind it ---- */

static lore_status open_adapter(void *self, const char *folder, const lore_limits *limits,
                                lore_adapter **adapter, lore_adapter_info *info, lore_error *err)
{
    const lore_dtype dtype = lore_decoder_get_info(self)->adapter_dtype;
    lore_status status = lore_adapter_open(folder, self, dtype, limits, adapter, err);
    if (status == LORE_OK) {
        *info = lore_adapter_get_info(*adapter);
    }
    return status;
}

static void close_adapter(void *self, lore_adapter *adapter)
{
    (void)self;
    lore_adapter_close(adapter);
}

static size_t adapter_bytes(void *self, const lore_adapter *adapter)
{
    return lore_decoder_adapter_bytes(self, adapter);
}

static lore_status place_adapter(void *self, const lore_adapter *adapter,
                                 lore_adapter_placed **placed, lore_error *err)
{
    return lore_decoder_adapter_place(self, adapter, placed, err);
}

static void unplace_adapter(void *self, lore_adapter_placed *placed)
{
    lore_decoder_adapter_unplace(self, placed);
}

static void seat_adapter(void *self, int32_t slot, const lore_adapter_placed *placed)
{
    lore_decoder_adapter_seat(self, slot, placed);
}

static lore_status submit_step(void *self, const lore_step *step, lore_error *err)
{
    return lore_decoder_submit(self, step, err);
}

static lore_status collect_draws(void *self, int32_t *ids, float *logprobs, lore_error *err)
{
    return lore_decoder_collect(self, ids, logprobs, err);
}

static lore_status prepare_shape(void *self, bool *is_done, lore_error *err)
{
    return lore_decoder_prepare(self, is_done, err);
}

static void close_decoder(void *self)
{
    lore_decoder_close(self);
}

lore_status lore_engine_kv_dtype(const lore_config *config, const lore_backend *backend,
                                 lore_dtype *dtype, lore_error *err)
{
    lore_str name = lore_str_from(config->kv_dtype);
    bool is_auto = name.len == 0 || lore_str_equal(name, LORE_STR("auto"));
    if (is_auto && lore_backend_get_kind(backend) != LORE_BACKEND_REF) {
        *dtype = LORE_BF16;
    } else if (is_auto || lore_str_equal(name, LORE_STR("f32"))) {
        *dtype = LORE_F32;
    } else if (lore_str_equal(name, LORE_STR("bf16"))) {
        *dtype = LORE_BF16;
    } else {
        return lore_fail(err, LORE_ERR_INVALID, "kv_dtype is '%s', must be auto, f32 or bf16",
                         config->kv_dtype);
    }
    return LORE_OK;
}

int64_t lore_engine_adapter_room(const lore_config *config, int64_t free_bytes, int64_t *kept_bytes)
{
    const lore_limits *limits = &config->limits;
    const bool is_limited = limits->vram_bytes_max > 0;
    if (is_limited && limits->vram_bytes_max < free_bytes) {
        free_bytes = limits->vram_bytes_max;
    }
    const int64_t share = free_bytes / 16 < 8 * GIB ? free_bytes / 16 : 8 * GIB;
    const int64_t room = limits->adapter_bytes_max > 0 ? limits->adapter_bytes_max : share;
    const bool is_wanted = limits->adapter_bytes_max > 0 || strcmp(config->adapters, "none") != 0;
    *kept_bytes = is_wanted || is_limited ? room : 0;
    return room;
}

lore_status lore_engine_start(const char *folder, lore_backend *backend, const lore_config *config,
                              lore_engine **engine, lore_error *err)
{
    lore_decoder_options options = {0};
    lore_limits limits = config->limits;
    const bool is_gpu = lore_backend_get_kind(backend) == LORE_BACKEND_CUDA;
    int64_t room = GIB, free_bytes = 0, total_bytes = 0;
    lore_limits_settle(&limits, is_gpu);
    if (limits.adapters_max > 0 && is_gpu) {
        lore_backend_memory(backend, &free_bytes, &total_bytes);
        room = lore_engine_adapter_room(config, free_bytes, &options.adapter_bytes);
    }
    if (limits.adapters_max > 0) {
        options.adapter_slots = ADAPTERS_A_SEQUENCE * (int32_t)limits.batch_sequences_max;
    }
    lore_status status = lore_engine_kv_dtype(config, backend, &options.kv_dtype, err);
    lore_decoder *decoder = NULL;
    if (status == LORE_OK) {
        status = lore_decoder_open(folder, backend, &limits, &options, &decoder, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_engine_model model = {.self = decoder,
                               .submit = submit_step,
                               .collect = collect_draws,
                               .prepare = prepare_shape,
                               .close = close_decoder,
                               .info = lore_decoder_get_info(decoder),
                               .tokenizer = lore_decoder_tokenizer(decoder),
                               .adapters = {.self = decoder,
                                            .slots = options.adapter_slots,
                                            .device_bytes_max = room,
                                            .host_bytes_max = is_gpu ? 4 * GIB : GIB / 4,
                                            .open = open_adapter,
                                            .close = close_adapter,
                                            .bytes = adapter_bytes,
                                            .place = place_adapter,
                                            .unplace = unplace_adapter,
                                            .seat = seat_adapter}};
    return lore_engine_start_model(&model, &limits, engine, err);
}

void lore_engine_stop(lore_engine *engine, int64_t deadline_ns)
{
    if (engine == NULL) {
        return;
    }
    /* A deadline before the clock's zero is as passed as any other. */
    int64_t stop_ns = deadline_ns < 0 ? 1 : deadline_ns;
    atomic_store_explicit(&engine->stop_deadline_ns, stop_ns, memory_order_relaxed);
    lore_chan_close(engine->arrivals);
    lore_thread_join(&engine->thread);
    close_engine(engine);
}
