/* Opening a decoder: configuration, weights, scratch, and then pages (decoder_pages.c). What a
 * folder asks for is checked against what it holds: every tensor must be there in the shape that
 * config.json implies, and none may be left over.
 *
 * Order matters once: rows of the embedding table may lie in the mapped file, so the weights close
 * behind it. */
#include "models/decoder_int.h"

#include <stdio.h>
#include <string.h>

enum { NAME_CAP = 128, PATH_CAP = 4096 };

/* ---- loading: weights ---- */

typedef struct loader {
    lore_decoder *d;
    const char *folder; /* for messages */
    lore_error *err;
    int32_t layer; /* -1: names stand outside the layers */
} loader;

static const char *name_of(const loader *l, const char *stem, const char *kind, char name[NAME_CAP])
{
    if (l->layer < 0) {
        snprintf(name, NAME_CAP, "%s.%s", stem, kind);
    } else {
        snprintf(name, NAME_CAP, "model.layers.%d.%s.%s", l->layer, stem, kind);
    }
    return name;
}

/* Append one vector to what host memory holds. */
static lore_status fetch_vector(loader *l, const lore_linear_part *part, const char *kind,
                                float *host)
{
    char name[NAME_CAP];
    float *vector = NULL;
    lore_status status = lore_weights_vector(l->d->weights, name_of(l, part->stem, kind, name),
                                             part->rows, l->d->backend, &vector, l->err);
    if (status != LORE_OK) {
        return status;
    }
    lore_queue_download(l->d->queue, host, vector, (size_t)part->rows * sizeof(float));
    status = lore_queue_sync(l->d->queue, l->err);
    lore_backend_free(l->d->backend, vector);
    return status;
}

/* The named vectors behind one another, each value plus `offset`. */
static lore_status load_vectors(loader *l, const lore_linear_part *parts, int32_t count,
                                const char *kind, float offset, float **vector)
{
    size_t total = 0, at = 0;
    void *memory = NULL;
    for (int32_t i = 0; i < count; i++) {
        total += (size_t)parts[i].rows;
    }
    float *host = lore_alloc(total * sizeof(float));
    lore_status status =
        host != NULL ? LORE_OK : lore_fail(l->err, LORE_ERR_NOMEM, "out of memory for the decoder");
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = fetch_vector(l, &parts[i], kind, host + at);
        at += (size_t)parts[i].rows;
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(l->d->backend, total * sizeof(float), &memory, l->err);
    }
    if (status == LORE_OK) {
        *vector = memory; /* the decoder's from here on, whatever follows */
        for (size_t i = 0; i < total; i++) {
            host[i] += offset;
        }
        lore_queue_upload(l->d->queue, memory, host, total * sizeof(float));
        status = lore_queue_sync(l->d->queue, l->err);
    }
    lore_free(host);
    return status;
}

/* A norm's weights; nothing where the family has no such norm. */
static lore_status load_norm(loader *l, const char *stem, int32_t count, float **vector)
{
    const lore_linear_part part = {stem, count};
    float offset = l->d->config.family->is_norm_centred ? 1.0f : 0.0f;
    return stem != NULL ? load_vectors(l, &part, 1, "weight", offset, vector) : LORE_OK;
}

/* The named matrices on top of one another, as one weight. */
static lore_status load_stack(loader *l, const lore_linear_part *parts, int32_t count, int32_t cols,
                              lore_weight_use use, lore_weight **weight)
{
    char name[NAME_CAP];
    lore_matrix matrices[LORE_LINEAR_PARTS_MAX] = {0};
    for (int32_t i = 0; i < count; i++) {
        lore_status status =
            lore_weights_matrix(l->d->weights, name_of(l, parts[i].stem, "weight", name),
                                parts[i].rows, cols, &matrices[i], l->err);
        if (status != LORE_OK) {
            return status;
        }
    }
    lore_status status = lore_weight_pack(l->d->backend, matrices, count, use, weight, l->err);
    for (int32_t i = 0; i < count && use == LORE_USE_MATMUL; i++) { /* else borrowed */
        lore_weights_release(l->d->weights, &matrices[i]);
    }
    return status;
}

/* Old writers of GPTQ left a bias of zeros beside every matrix. Another one would be computed by
 * nobody. */
static lore_status pass_zeros(loader *l, const lore_linear_part *part)
{
    char name[NAME_CAP];
    bool is_zero = true;
    if (!lore_weights_has(l->d->weights, name_of(l, part->stem, "bias", name))) {
        return LORE_OK;
    }
    float *host = lore_alloc((size_t)part->rows * sizeof(float));
    if (host == NULL) {
        return lore_fail(l->err, LORE_ERR_NOMEM, "out of memory for the decoder");
    }
    lore_status status = fetch_vector(l, part, "bias", host);
    for (int32_t i = 0; i < part->rows && status == LORE_OK; i++) {
        is_zero = is_zero && host[i] == 0;
    }
    lore_free(host);
    return status != LORE_OK || is_zero
               ? status
               : lore_fail(l->err, LORE_ERR_CORRUPT,
                           "model folder '%s' holds tensor '%s', which this model has no use for",
                           l->folder, name);
}

/* A weight and, where the model has one, its bias. */
static lore_status load_linear(loader *l, lore_linear which, bool has_bias, lore_weight **weight,
                               float **bias)
{
    const lore_linear_shape shape = lore_decoder_linear(&l->d->config, which);
    lore_status status =
        load_stack(l, shape.parts, shape.part_count, shape.cols, LORE_USE_MATMUL, weight);
    if (status == LORE_OK && has_bias) {
        return load_vectors(l, shape.parts, shape.part_count, "bias", 0, bias);
    }
    for (int32_t i = 0; i < shape.part_count && status == LORE_OK; i++) {
        status = pass_zeros(l, &shape.parts[i]);
    }
    return status;
}

static lore_status load_attention(loader *l, lore_decoder_layer *layer)
{
    const lore_decoder_config *c = &l->d->config;
    const lore_family *f = c->family;
    lore_status status = load_norm(l, f->attention_norm, c->width, &layer->attention_norm);
    if (status == LORE_OK) {
        status = load_linear(l, LORE_LINEAR_QKV, c->has_qkv_bias, &layer->qkv, &layer->qkv_bias);
    }
    if (status == LORE_OK) {
        status = load_linear(l, LORE_LINEAR_ATTENTION_OUT, c->has_output_bias,
                             &layer->attention_out, &layer->attention_out_bias);
    }
    if (status == LORE_OK && f->has_qk_norm) {
        status = load_norm(l, "self_attn.q_norm", c->head_dim, &layer->q_norm);
    }
    if (status == LORE_OK && f->has_qk_norm) {
        status = load_norm(l, "self_attn.k_norm", c->head_dim, &layer->k_norm);
    }
    if (status == LORE_OK) {
        status = load_norm(l, f->attention_post_norm, c->width, &layer->attention_post_norm);
    }
    layer->attention = (lore_attention){.scale = c->attention_scale,
                                        .softcap = c->attention_softcap,
                                        .window = c->is_windowed[l->layer] ? c->window : 0};
    return status;
}

static lore_status load_ffn(loader *l, lore_decoder_layer *layer)
{
    const lore_decoder_config *c = &l->d->config;
    const lore_family *f = c->family;
    lore_status status = load_norm(l, f->ffn_norm, c->width, &layer->ffn_norm);
    if (status == LORE_OK) {
        status = load_linear(l, LORE_LINEAR_GATE_UP, c->has_mlp_bias, &layer->gate_up,
                             &layer->gate_up_bias);
    }
    if (status == LORE_OK) {
        status = load_linear(l, LORE_LINEAR_DOWN, c->has_mlp_bias, &layer->down, &layer->down_bias);
    }
    return status == LORE_OK ? load_norm(l, f->ffn_post_norm, c->width, &layer->ffn_post_norm)
                             : status;
}

static lore_status load_weights(loader *l)
{
    lore_decoder *d = l->d;
    const lore_linear_part table = {"model.embed_tokens", d->config.vocab};
    const lore_linear_shape head = lore_decoder_linear(&d->config, LORE_LINEAR_HEAD);
    l->layer = -1;
    lore_status status = load_stack(l, &table, 1, d->config.width,
                                    d->config.is_tied ? LORE_USE_BOTH : LORE_USE_EMBED, &d->table);
    if (status == LORE_OK) {
        status = load_norm(l, "model.norm", d->config.width, &d->norm);
    }
    if (status == LORE_OK && d->config.is_tied) {
        lore_weights_ignore(d->weights,
                            "lm_head.weight"); /* some exporters write the table twice */
    } else if (status == LORE_OK) {
        status = load_stack(l, head.parts, 1, head.cols, LORE_USE_MATMUL, &d->head);
    }
    for (int32_t i = 0; i < d->config.layers && status == LORE_OK; i++) {
        l->layer = i;
        status = load_attention(l, &d->layers[i]);
        if (status == LORE_OK) {
            status = load_ffn(l, &d->layers[i]);
        }
    }
    return status == LORE_OK ? lore_weights_finish(d->weights, l->err) : status;
}

/* ---- loading: pages, scratch ---- */

static lore_status take(lore_decoder *d, int64_t rows, int64_t cols, size_t element_bytes,
                        void *out, lore_error *err)
{
    size_t size_bytes = 0;
    void *memory = NULL;
    if (!lore_size_mul((size_t)rows, (size_t)cols, &size_bytes) ||
        !lore_size_mul(size_bytes, element_bytes, &size_bytes)) {
        return lore_fail(err, LORE_ERR_LIMIT, "decoder: a buffer of %lld rows is too large",
                         (long long)rows);
    }
    lore_status status = lore_backend_alloc(d->backend, size_bytes, &memory, err);
    if (status == LORE_OK) {
        memcpy(out, &memory, sizeof memory); /* out is the address of a pointer */
    }
    return status;
}

/* The block of a step, and two of page-locked memory that steps on their way stand in; what they
 * draw comes back in one copy, so logprobs lie behind ids. */
static lore_status take_blocks(lore_decoder *d, lore_error *err)
{
    lore_step_memory nowhere;
    size_t block_bytes = lore_step_memory_place(d, NULL, &nowhere);
    size_t sequences = (size_t)d->sequences_max;
    void *draws = NULL, *tops = NULL;
    const size_t tops_bytes = sequences * LORE_TOPS_MAX * sizeof(lore_likely);
    d->draws_bytes = sequences * (sizeof(int32_t) + sizeof(float));
    lore_status status = lore_backend_alloc(d->backend, block_bytes, &d->block, err);
    if (status == LORE_OK) {
        (void)lore_step_memory_place(d, d->block, &d->step);
        status = lore_backend_alloc(d->backend, d->draws_bytes, &draws, err);
        d->drawn = draws;
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(d->backend, tops_bytes, &tops, err);
        d->tops = tops;
    }
    for (int32_t i = 0; i < LORE_STEPS_MAX && status == LORE_OK; i++) {
        lore_step_slot *slot = &d->slots[i];
        status = lore_backend_alloc_host(d->backend, block_bytes, &slot->block, err);
        if (status == LORE_OK) {
            (void)lore_step_memory_place(d, slot->block, &slot->at);
            status = lore_backend_alloc_host(d->backend, d->draws_bytes, &draws, err);
        }
        if (status == LORE_OK) {
            slot->drawn = draws;
            slot->logprobs = (float *)(slot->drawn + sequences);
            status = lore_backend_alloc_host(d->backend, tops_bytes, &tops, err);
        }
        if (status == LORE_OK) {
            slot->tops = tops;
        }
    }
    if (status == LORE_OK) {
        d->logprobs = (float *)(d->drawn + sequences);
    }
    return status;
}

static lore_status take_scratch(lore_decoder *d, lore_error *err)
{
    const lore_decoder_config *c = &d->config;
    int64_t rows = d->rows_max, sequences = d->sequences_max;
    int64_t q_cols = (int64_t)c->heads * c->head_dim, kv_cols = (int64_t)c->kv_heads * c->head_dim;
    const struct {
        int64_t rows, cols;
        size_t element_bytes;
        void *out;
    } buffers[] = {{rows, c->width, sizeof(float), &d->x},
                   {rows, c->width, lore_dtype_size(d->dtype), &d->normed},
                   {rows, q_cols + 2 * kv_cols, lore_dtype_size(d->dtype), &d->qkv},
                   {rows, q_cols, lore_dtype_size(d->dtype), &d->mixed},
                   {rows, 2 * (int64_t)c->ffn, lore_dtype_size(d->dtype), &d->gate_up},
                   {rows, c->ffn, lore_dtype_size(d->dtype), &d->hidden},
                   {sequences, c->width, sizeof(float), &d->last},
                   {sequences, c->width, lore_dtype_size(d->dtype), &d->last_normed},
                   {sequences, c->vocab, sizeof(float), &d->logits}};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        lore_status status = take(d, buffers[i].rows, buffers[i].cols, buffers[i].element_bytes,
                                  buffers[i].out, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

/* ---- opening ---- */

static lore_status read_config(lore_decoder *d, const char *folder, const lore_limits *limits,
                               lore_error *err)
{
    char name[PATH_CAP];
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_status status = lore_decoder_config_read(folder, limits, &d->config, err);
    if (status == LORE_OK && lore_model_has(folder, "generation_config.json")) {
        snprintf(name, sizeof name, "%s/generation_config.json", folder); /* may be cut */
        status = lore_model_read(folder, "generation_config.json", limits, &text, err);
        if (status == LORE_OK) {
            status = lore_generation_config_parse(lore_buf_str(&text), name, &d->config, err);
        }
    }
    lore_buf_destroy(&text);
    return status;
}

static lore_status open_files(lore_decoder *d, const char *folder, const lore_limits *limits,
                              lore_error *err)
{
    lore_status status = read_config(d, folder, limits, err);
    if (status == LORE_OK) {
        status = lore_model_card_read(folder, limits, &d->card, err);
    }
    if (status == LORE_OK) {
        status = lore_tokenizer_open(folder, limits, &d->tokenizer, err);
    }
    if (status == LORE_OK) {
        status = lore_tokenizer_limit(d->tokenizer, d->config.vocab, folder, err);
    }
    return status == LORE_OK ? lore_weights_open(folder, limits, &d->weights, err) : status;
}

static void fill_info(lore_decoder *d)
{
    const lore_decoder_config *c = &d->config;
    lore_decoder_info *info = &d->info; /* pages and context: plan_pages */
    info->layers = c->layers;
    info->width = c->width;
    info->heads = c->heads;
    info->kv_heads = c->kv_heads;
    info->head_dim = c->head_dim;
    info->ffn = c->ffn;
    info->vocab = c->vocab;
    info->parameters = lore_weights_parameters(d->weights);
    _Static_assert(sizeof info->eos_ids == sizeof c->eos_ids, "the same ids");
    memcpy(info->eos_ids, c->eos_ids, sizeof info->eos_ids);
    info->eos_count = c->eos_count;
    info->bos_id = c->bos_id;
    info->adapter_dtype = lore_backend_lora_dtype(d->backend);
    info->turn_tokens = c->rope.kind == LORE_ROPE_LONG ? c->rope.original : 0;
    info->generation = c->generation;
    info->needs_guard = d->card.needs_guard;
    info->name = d->card.name;
    info->architecture = c->family->model_type;
}

/* What one token has to read however the rows are grouped. */
static int64_t count_weight_bytes(const lore_decoder *d)
{
    size_t bytes = lore_weight_bytes(d->head != NULL ? d->head : d->table);
    for (int32_t i = 0; i < d->config.layers; i++) {
        const lore_decoder_layer *layer = &d->layers[i];
        bytes += lore_weight_bytes(layer->qkv) + lore_weight_bytes(layer->attention_out) +
                 lore_weight_bytes(layer->gate_up) + lore_weight_bytes(layer->down);
    }
    return (int64_t)bytes;
}

static lore_status open_parts(lore_decoder *d, const char *folder, const lore_limits *limits,
                              const lore_decoder_options *options, lore_error *err)
{
    loader l = {.d = d, .folder = folder, .err = err};
    int64_t free_before = 0, total = 0;
    lore_status status = open_files(d, folder, limits, err);
    lore_backend_memory(d->backend, &free_before, &total);
    if (status == LORE_OK) {
        status = lore_queue_open(d->backend, &d->queue, err);
    }
    if (status == LORE_OK) {
        status = lore_decoder_plan_pages(d, limits, options, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    d->layers = lore_alloc_zero((size_t)d->config.layers, sizeof *d->layers);
    if (d->layers == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the decoder");
    }
    fill_info(d);
    int64_t page_list =
        (int64_t)d->sequences_max * lore_pages_for(d->info.context, d->info.page_tokens);
    d->page_list_max = (int32_t)(page_list < INT32_MAX ? page_list : INT32_MAX);
    status = load_weights(&l);
    if (status == LORE_OK) {
        d->info.weight_bytes = count_weight_bytes(d);
        status = take_scratch(d, err);
    }
    if (status == LORE_OK) {
        status = lore_decoder_open_seats(d, err);
    }
    if (status == LORE_OK) {
        status = take_blocks(d, err);
    }
    if (status == LORE_OK) { /* last: on a device they get what is left */
        status = lore_decoder_take_pages(d, limits, options, free_before, err);
    }
    if (status == LORE_OK) {
        status = lore_decoder_fuse(d, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    return lore_rope_upload(&d->config.rope, d->info.context, d->backend, d->queue, &d->cosine,
                            &d->sine, err);
}

/* A device loads its kernels and takes its scratch before the first request, chooses how it
 * multiplies, and has one shape of steps recorded for it. Choices go by the clock, and so with them
 * the last bits: one sequence at a time, which is to be reproducible, goes without. */
static lore_status make_ready(lore_decoder *d, lore_error *err)
{
    bool is_done = true;
    d->info.steps_in_flight = lore_backend_can_record(d->backend) ? LORE_STEPS_MAX : 1;
    lore_status status = lore_decoder_plan_buckets(d, err);
    if (status == LORE_OK && d->is_bucketed) {
        status = lore_decoder_size_scratch(d, err);
    }
    if (status == LORE_OK && d->is_bucketed && d->sequences_max > 1) {
        status = lore_decoder_tune(d, err);
    }
    for (int32_t i = 0; i < 2 && status == LORE_OK; i++) { /* run, and recorded */
        status = lore_decoder_prepare(d, &is_done, err);
    }
    return status;
}

lore_status lore_decoder_open(const char *folder, lore_backend *backend, const lore_limits *limits,
                              const lore_decoder_options *options, lore_decoder **decoder,
                              lore_error *err)
{
    static const lore_decoder_options DEFAULTS = {0};
    if (options == NULL) {
        options = &DEFAULTS;
    }
    lore_decoder *d = lore_alloc_zero(1, sizeof *d);
    if (d == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the decoder '%s'", folder);
    }
    d->backend = backend;
    d->dtype = lore_backend_activation_dtype(backend);
    lore_limits settled = *limits;
    lore_limits_settle(&settled, lore_backend_get_kind(backend) == LORE_BACKEND_CUDA);
    d->rows_max = options->rows_max > 0 ? options->rows_max : (int32_t)settled.step_tokens_max;
    d->info.adapter_slots = options->adapter_slots;
    d->adapter_rank_max = (int32_t)settled.adapter_rank_max;
    d->sequences_max =
        options->sequences_max > 0 ? options->sequences_max : (int32_t)settled.batch_sequences_max;
    LORE_ASSERT(d->rows_max > 0 && d->sequences_max > 0 && d->info.adapter_slots >= 0);
    lore_status status = open_parts(d, folder, limits, options, err);
    if (status == LORE_OK) {
        status = make_ready(d, err);
    }
    if (status != LORE_OK) {
        lore_decoder_close(d);
        return status;
    }
    *decoder = d;
    return LORE_OK;
}

static void drop(lore_backend *backend, void *memory)
{
    if (memory != NULL) {
        lore_backend_free(backend, memory);
    }
}

static void close_layer(lore_backend *backend, lore_decoder_layer *layer)
{
    lore_weight_free(layer->qkv);
    lore_weight_free(layer->attention_out);
    lore_weight_free(layer->gate_up);
    lore_weight_free(layer->down);
    float *vectors[] = {layer->attention_norm, layer->attention_post_norm,
                        layer->ffn_norm,       layer->ffn_post_norm,
                        layer->qkv_bias,       layer->attention_out_bias,
                        layer->gate_up_bias,   layer->down_bias,
                        layer->q_norm,         layer->k_norm};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        drop(backend, vectors[i]);
    }
}

void lore_decoder_close(lore_decoder *d)
{
    if (d == NULL) {
        return;
    }
    void *memory[] = {d->norm,        d->cosine, d->sine,    d->page_memory, d->x,    d->normed,
                      d->qkv,         d->mixed,  d->gate_up, d->hidden,      d->last, d->logits,
                      d->last_normed, d->block,  d->drawn,   d->tops};
    if (d->queue != NULL) { /* first: it waits for what is under way, which giving back does not */
        lore_queue_close(d->queue);
    }
    for (int32_t i = 0; d->layers != NULL && i < d->config.layers; i++) {
        close_layer(d->backend, &d->layers[i]);
    }
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        drop(d->backend, memory[i]);
    }
    lore_decoder_free_buckets(d);
    lore_decoder_close_seats(d);
    for (int32_t i = 0; i < LORE_STEPS_MAX; i++) {
        lore_backend_free_host(d->backend, d->slots[i].block);
        lore_backend_free_host(d->backend, d->slots[i].drawn);
        lore_backend_free_host(d->backend, d->slots[i].tops);
    }
    lore_weight_free(d->table);
    lore_weight_free(d->head);
    lore_weights_close(d->weights); /* behind the table, whose rows may lie in it */
    lore_tokenizer_close(d->tokenizer);
    lore_free(d->layers);
    lore_free(d->fused);
    lore_free(d);
}
