/* BERT, post-norm (Devlin et al. 2019, after Vaswani et al. 2017). With H the width:
 *
 *   x = LN(word[id] + position[i] + type[0])
 *   for each layer:  x = LN(x + attention(x Wqkv + b) Wo + b)
 *                    x = LN(x + gelu(x Wi + b) Wd + b)
 *   vector = pool(x), divided by its length
 *
 * The sequences of a pack stand one behind the other without padding; only attention and pooling
 * need to know where one ends. The three projections of attention are one matrix, so a layer is
 * four matmuls.
 *
 * The weights are shared by two lanes, each with a queue and scratch of its own, so that a question
 * need not wait until a pack of an ingest has left the encoder: the pool lets the lane of higher
 * priority go first, between two pieces of an op. */
#include "models/encoder_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAME_CAP = 128 };

typedef struct encoder_layer {
    lore_weight *qkv, *attention_out, *up, *down;
    float *qkv_bias, *attention_out_bias, *up_bias, *down_bias;
    float *attention_norm, *attention_norm_bias, *ffn_norm, *ffn_norm_bias;
} encoder_layer;

/* What one pack needs on its way through; backend memory but for the last. */
typedef struct encoder_lane {
    lore_queue *queue;
    lore_priority priority;
    float *x, *qkv, *mixed, *hidden, *pooled;
    int32_t *ids, *position_ids, *type_ids, *row_start;
    int32_t *host_positions;
} encoder_lane;

struct lore_encoder {
    lore_encoder_config config;
    lore_backend *backend;
    lore_weight *words, *positions, *types;
    float *norm, *norm_bias;
    encoder_layer *layers;
    int32_t rows_max, sequences_max;
    encoder_lane lanes[LORE_ENCODER_LANES];
};

/* ---- loading ---- */

typedef struct loader {
    lore_encoder *e;
    lore_weights *weights;
    lore_error *err;
    int32_t layer; /* -1: names stand outside the layers */
} loader;

static const char *name_of(const loader *l, const char *part, char name[NAME_CAP])
{
    if (l->layer < 0) {
        snprintf(name, NAME_CAP, "%s", part);
    } else {
        snprintf(name, NAME_CAP, "encoder.layer.%d.%s", l->layer, part);
    }
    return name;
}

static lore_status load_vector(loader *l, const char *part, int32_t count, float **vector)
{
    char name[NAME_CAP];
    return lore_weights_vector(l->weights, name_of(l, part, name), count, l->e->backend, vector,
                               l->err);
}

static lore_status load_matrix(loader *l, const char *part, int32_t rows, int32_t cols,
                               bool is_table, lore_weight **weight)
{
    char name[NAME_CAP];
    lore_matrix matrix;
    lore_status status =
        lore_weights_matrix(l->weights, name_of(l, part, name), rows, cols, &matrix, l->err);
    return status == LORE_OK ? lore_weight_pack(l->e->backend, &matrix, 1, is_table, weight, l->err)
                             : status;
}

/* Query, key and value as one matrix and one bias. */
static lore_status load_qkv(loader *l, encoder_layer *layer)
{
    static const char *const WEIGHTS[] = {
        "attention.self.query.weight", "attention.self.key.weight", "attention.self.value.weight"};
    static const char *const BIASES[] = {"attention.self.query.bias", "attention.self.key.bias",
                                         "attention.self.value.bias"};
    int32_t width = l->e->config.width;
    char names[3][NAME_CAP];
    const char *bias_names[3];
    lore_matrix parts[3];
    for (int i = 0; i < 3; i++) {
        lore_status status = lore_weights_matrix(l->weights, name_of(l, WEIGHTS[i], names[i]),
                                                 width, width, &parts[i], l->err);
        if (status != LORE_OK) {
            return status;
        }
        bias_names[i] = name_of(l, BIASES[i], names[i]);
    }
    lore_status status = lore_weight_pack(l->e->backend, parts, 3, false, &layer->qkv, l->err);
    return status == LORE_OK ? lore_weights_vectors(l->weights, bias_names, 3, width, l->e->backend,
                                                    &layer->qkv_bias, l->err)
                             : status;
}

static lore_status load_layer(loader *l, encoder_layer *layer)
{
    int32_t width = l->e->config.width, ffn = l->e->config.ffn;
    const struct {
        const char *part;
        int32_t rows, cols;
        lore_weight **weight;
    } matrices[] = {{"attention.output.dense.weight", width, width, &layer->attention_out},
                    {"intermediate.dense.weight", ffn, width, &layer->up},
                    {"output.dense.weight", width, ffn, &layer->down}};
    const struct {
        const char *part;
        int32_t count;
        float **vector;
    } vectors[] = {{"attention.output.dense.bias", width, &layer->attention_out_bias},
                   {"attention.output.LayerNorm.weight", width, &layer->attention_norm},
                   {"attention.output.LayerNorm.bias", width, &layer->attention_norm_bias},
                   {"intermediate.dense.bias", ffn, &layer->up_bias},
                   {"output.dense.bias", width, &layer->down_bias},
                   {"output.LayerNorm.weight", width, &layer->ffn_norm},
                   {"output.LayerNorm.bias", width, &layer->ffn_norm_bias}};
    lore_status status = load_qkv(l, layer);
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0] && status == LORE_OK; i++) {
        status = load_matrix(l, matrices[i].part, matrices[i].rows, matrices[i].cols, false,
                             matrices[i].weight);
    }
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0] && status == LORE_OK; i++) {
        status = load_vector(l, vectors[i].part, vectors[i].count, vectors[i].vector);
    }
    return status;
}

static lore_status load_all(loader *l)
{
    lore_encoder *e = l->e;
    const lore_encoder_config *c = &e->config;
    l->layer = -1;
    lore_status status =
        load_matrix(l, "embeddings.word_embeddings.weight", c->vocab, c->width, true, &e->words);
    if (status == LORE_OK) {
        status = load_matrix(l, "embeddings.position_embeddings.weight", c->positions, c->width,
                             true, &e->positions);
    }
    if (status == LORE_OK) {
        status = load_matrix(l, "embeddings.token_type_embeddings.weight", c->types, c->width, true,
                             &e->types);
    }
    if (status == LORE_OK) {
        status = load_vector(l, "embeddings.LayerNorm.weight", c->width, &e->norm);
    }
    if (status == LORE_OK) {
        status = load_vector(l, "embeddings.LayerNorm.bias", c->width, &e->norm_bias);
    }
    for (int32_t i = 0; i < c->layers && status == LORE_OK; i++) {
        l->layer = i;
        status = load_layer(l, &e->layers[i]);
    }
    if (status != LORE_OK) {
        return status;
    }
    /* BertModel may carry the layer of the next-sentence task; pooling here never uses it. */
    lore_weights_ignore(l->weights, "pooler.dense.weight");
    lore_weights_ignore(l->weights, "pooler.dense.bias");
    return lore_weights_finish(l->weights, l->err);
}

/* `rows` rows of `cols` 4-byte elements of backend memory. */
static lore_status take(lore_encoder *e, int32_t rows, int32_t cols, void *out, lore_error *err)
{
    size_t size_bytes = 0;
    void *memory = NULL;
    if (!lore_size_mul((size_t)rows, (size_t)cols, &size_bytes) ||
        !lore_size_mul(size_bytes, 4, &size_bytes)) {
        return lore_fail(err, LORE_ERR_LIMIT, "encoder: a scratch buffer is too large");
    }
    lore_status status = lore_backend_alloc(e->backend, size_bytes, &memory, err);
    if (status == LORE_OK) {
        memcpy(out, &memory, sizeof memory); /* out is a float ** or an int32_t ** */
    }
    return status;
}

static lore_status open_lane(lore_encoder *e, encoder_lane *lane, lore_priority priority,
                             lore_error *err)
{
    const lore_encoder_config *c = &e->config;
    const struct {
        int32_t rows, cols;
        void *out;
    } buffers[] = {
        {e->rows_max, c->width, &lane->x},           {e->rows_max, 3 * c->width, &lane->qkv},
        {e->rows_max, c->width, &lane->mixed},       {e->rows_max, c->ffn, &lane->hidden},
        {e->sequences_max, c->width, &lane->pooled}, {e->rows_max, 1, &lane->ids},
        {e->rows_max, 1, &lane->position_ids},       {e->rows_max, 1, &lane->type_ids},
        {e->sequences_max + 1, 1, &lane->row_start}};
    lane->priority = priority;
    lore_status status = lore_queue_open(e->backend, &lane->queue, err);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0] && status == LORE_OK; i++) {
        status = take(e, buffers[i].rows, buffers[i].cols, buffers[i].out, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lane->host_positions = lore_alloc_zero((size_t)e->rows_max, sizeof(int32_t));
    if (lane->host_positions == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder");
    }
    /* Every token is of type 0, for ever. */
    lore_queue_upload(lane->queue, lane->type_ids, lane->host_positions,
                      (size_t)e->rows_max * sizeof(int32_t));
    return lore_queue_sync(lane->queue, err);
}

lore_status lore_encoder_open(const lore_encoder_config *config, lore_weights *weights,
                              lore_backend *backend, int32_t rows_max, int32_t sequences_max,
                              lore_encoder **encoder, lore_error *err)
{
    LORE_ASSERT(rows_max >= config->tokens_max && sequences_max > 0);
    lore_encoder *e = lore_alloc_zero(1, sizeof *e);
    if (e == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder");
    }
    e->config = *config;
    e->backend = backend;
    e->rows_max = rows_max;
    e->sequences_max = sequences_max;
    e->layers = lore_alloc_zero((size_t)config->layers, sizeof *e->layers);
    loader l = {.e = e, .weights = weights, .err = err};
    lore_status status = e->layers != NULL
                             ? load_all(&l)
                             : lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder");
    for (int i = 0; i < LORE_ENCODER_LANES && status == LORE_OK; i++) {
        static const lore_priority PRIORITIES[LORE_ENCODER_LANES] = {
            [LORE_ENCODER_QUESTIONS] = LORE_PRIORITY_HIGH, [LORE_ENCODER_BULK] = LORE_PRIORITY_LOW};
        status = open_lane(e, &e->lanes[i], PRIORITIES[i], err);
    }
    if (status != LORE_OK) {
        lore_encoder_close(e);
        return status;
    }
    *encoder = e;
    return LORE_OK;
}

static void drop(lore_backend *backend, void *memory)
{
    if (memory != NULL) {
        lore_backend_free(backend, memory);
    }
}

static void close_layer(lore_backend *backend, encoder_layer *layer)
{
    lore_weight *weights[] = {layer->qkv, layer->attention_out, layer->up, layer->down};
    float *vectors[] = {layer->qkv_bias,  layer->attention_out_bias, layer->up_bias,
                        layer->down_bias, layer->attention_norm,     layer->attention_norm_bias,
                        layer->ffn_norm,  layer->ffn_norm_bias};
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
        lore_weight_free(weights[i]);
    }
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        drop(backend, vectors[i]);
    }
}

static void close_lane(lore_backend *backend, encoder_lane *lane)
{
    void *memory[] = {lane->x,   lane->qkv,          lane->mixed,    lane->hidden,   lane->pooled,
                      lane->ids, lane->position_ids, lane->type_ids, lane->row_start};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        drop(backend, memory[i]);
    }
    if (lane->queue != NULL) {
        lore_queue_close(lane->queue);
    }
    lore_free(lane->host_positions);
}

void lore_encoder_close(lore_encoder *e)
{
    if (e == NULL) {
        return;
    }
    for (int32_t i = 0; e->layers != NULL && i < e->config.layers; i++) {
        close_layer(e->backend, &e->layers[i]);
    }
    for (int i = 0; i < LORE_ENCODER_LANES; i++) {
        close_lane(e->backend, &e->lanes[i]);
    }
    drop(e->backend, e->norm);
    drop(e->backend, e->norm_bias);
    lore_weight_free(e->words);
    lore_weight_free(e->positions);
    lore_weight_free(e->types);
    lore_free(e->layers);
    lore_free(e);
}

/* ---- forward ---- */

static void forward_layer(const lore_encoder *e, const encoder_lane *lane,
                          const encoder_layer *layer, int32_t rows, int32_t sequences,
                          int32_t longest)
{
    const lore_encoder_config *c = &e->config;
    lore_queue *q = lane->queue;
    lore_view x = lore_view_of(lane->x, rows, c->width);
    lore_view qkv = lore_view_of(lane->qkv, rows, 3 * c->width);
    lore_view mixed = lore_view_of(lane->mixed, rows, c->width);
    lore_view hidden = lore_view_of(lane->hidden, rows, c->ffn);
    float scale = 1.0f / sqrtf((float)(c->width / c->heads));

    lore_op_matmul(q, qkv, x, layer->qkv, (lore_epilogue){.bias = layer->qkv_bias});
    lore_op_attend_packed(q, mixed, qkv, c->heads, sequences, lane->row_start, longest, scale);
    lore_op_matmul(q, x, mixed, layer->attention_out,
                   (lore_epilogue){.bias = layer->attention_out_bias, .is_accumulating = true});
    lore_op_layernorm(q, x, x, layer->attention_norm, layer->attention_norm_bias, c->eps);

    lore_op_matmul(q, hidden, x, layer->up,
                   (lore_epilogue){.bias = layer->up_bias, .activation = LORE_ACT_GELU});
    lore_op_matmul(q, x, hidden, layer->down,
                   (lore_epilogue){.bias = layer->down_bias, .is_accumulating = true});
    lore_op_layernorm(q, x, x, layer->ffn_norm, layer->ffn_norm_bias, c->eps);
}

/* Positions count from 0 in every sequence. Gives the length of the longest one. */
static int32_t fill_positions(const lore_encoder *e, const encoder_lane *lane,
                              const int32_t *row_start, int32_t sequences)
{
    int32_t longest = 0;
    for (int32_t s = 0; s < sequences; s++) {
        int32_t length = row_start[s + 1] - row_start[s];
        LORE_ASSERT(length > 0 && length <= e->config.positions);
        for (int32_t i = 0; i < length; i++) {
            lane->host_positions[row_start[s] + i] = i;
        }
        longest = length > longest ? length : longest;
    }
    return longest;
}

lore_status lore_encoder_forward(lore_encoder *e, lore_encoder_lane which, const int32_t *ids,
                                 const int32_t *row_start, int32_t sequences, float *vectors,
                                 lore_error *err)
{
    const lore_encoder_config *c = &e->config;
    const encoder_lane *lane = &e->lanes[which];
    lore_queue *q = lane->queue;
    int32_t rows = row_start[sequences];
    LORE_ASSERT(rows <= e->rows_max && sequences <= e->sequences_max);
    int32_t longest = fill_positions(e, lane, row_start, sequences);
    lore_view x = lore_view_of(lane->x, rows, c->width);
    lore_view pooled = lore_view_of(lane->pooled, sequences, c->width);

    lore_queue_begin(q, lane->priority);
    lore_queue_upload(q, lane->ids, ids, (size_t)rows * sizeof(int32_t));
    lore_queue_upload(q, lane->position_ids, lane->host_positions, (size_t)rows * sizeof(int32_t));
    lore_queue_upload(q, lane->row_start, row_start, (size_t)(sequences + 1) * sizeof(int32_t));

    lore_op_embed(q, x, e->words, lane->ids, false);
    lore_op_embed(q, x, e->positions, lane->position_ids, true);
    lore_op_embed(q, x, e->types, lane->type_ids, true);
    lore_op_layernorm(q, x, x, e->norm, e->norm_bias, c->eps);
    for (int32_t i = 0; i < c->layers; i++) {
        forward_layer(e, lane, &e->layers[i], rows, sequences, longest);
    }
    lore_op_pool(q, pooled, x, lane->row_start, c->pooling, c->is_normalised);

    lore_queue_download(q, vectors, lane->pooled,
                        (size_t)sequences * (size_t)c->width * sizeof(float));
    return lore_queue_sync(q, err);
}
