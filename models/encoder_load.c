/* Opening an encoder: every tensor that its family names is taken from the weights with the shape
 * that config.json gives it, and at the end none may be left over.
 *
 * The names of a checkpoint may stand behind those of the model it was cut from ("bert."); which,
 * the table of words tells. What belongs together is packed as one matrix: query, key and value,
 * and gate and up, so that a layer is four matmuls. */
#include "models/encoder_layers_int.h"

#include <stdio.h>
#include <string.h>

typedef struct loader {
    lore_encoder *e;
    lore_weights *weights;
    const char *prefix; /* of all names */
    lore_error *err;
    int32_t layer; /* -1: names stand outside the layers */
} loader;

/* ---- names ---- */

/* Append to a name; what does not fit is cut, and then no tensor is found. */
static void append(char name[LORE_TENSOR_NAME_CAP], const char *text)
{
    size_t length = strlen(name);
    snprintf(name + length, LORE_TENSOR_NAME_CAP - length, "%s", text);
}

/* "bert." + "encoder.layer.3." + part + suffix */
static const char *name_of(const loader *l, const char *part, const char *suffix,
                           char name[LORE_TENSOR_NAME_CAP])
{
    const char *layer = l->layer >= 0 ? l->e->config.family->layer : "";
    const char *number = strstr(layer, "%d");
    snprintf(name, LORE_TENSOR_NAME_CAP, "%s", l->prefix);
    if (number != NULL) {
        char text[32];
        snprintf(text, sizeof text, "%.*s%d", (int)(number - layer), layer, (int)l->layer);
        append(name, text);
        append(name, number + 2);
    }
    append(name, part);
    append(name, suffix);
    return name;
}

/* Where the table of words is tells what all names begin with. */
static const char *find_prefix(const loader *l)
{
    static const char *const PREFIXES[] = {"bert.", "roberta.", "model."};
    char name[LORE_TENSOR_NAME_CAP];
    for (size_t i = 0; i < sizeof PREFIXES / sizeof PREFIXES[0]; i++) {
        loader at = *l;
        at.prefix = PREFIXES[i];
        if (lore_weights_has(l->weights,
                             name_of(&at, l->e->config.family->words, ".weight", name))) {
            return PREFIXES[i];
        }
    }
    return "";
}

/* ---- single parts ---- */

static lore_status load_vector(loader *l, const char *part, const char *suffix, int32_t count,
                               float **vector)
{
    char name[LORE_TENSOR_NAME_CAP];
    return lore_weights_vector(l->weights, name_of(l, part, suffix, name), count, l->e->backend,
                               vector, l->err);
}

static lore_status load_norm(loader *l, const char *part, lore_encoder_norm *norm)
{
    const lore_encoder_config *c = &l->e->config;
    if (part == NULL) {
        return LORE_OK;
    }
    lore_status status = load_vector(l, part, ".weight", c->width, &norm->weight);
    return status == LORE_OK && c->has_norm_bias
               ? load_vector(l, part, ".bias", c->width, &norm->bias)
               : status;
}

static lore_status load_table(loader *l, const char *part, int32_t rows, lore_weight **table)
{
    char name[LORE_TENSOR_NAME_CAP];
    lore_matrix matrix;
    if (part == NULL) {
        return LORE_OK;
    }
    lore_status status = lore_weights_matrix(l->weights, name_of(l, part, ".weight", name), rows,
                                             l->e->config.width, &matrix, l->err);
    return status == LORE_OK
               ? lore_weight_pack(l->e->backend, &matrix, 1, LORE_USE_EMBED, table, l->err)
               : status;
}

/* Up to three matrices of the same cols on top of one another, and their biases. Several with
 * biases have equal rows. */
typedef struct linear_parts {
    const char *const *names;
    int32_t count;
    int32_t rows[3];
    int32_t cols;
    bool has_bias;
} linear_parts;

static lore_status load_linear(loader *l, const linear_parts *p, lore_encoder_linear *linear)
{
    char names[3][LORE_TENSOR_NAME_CAP];
    const char *bias_names[3];
    lore_matrix parts[3];
    for (int32_t i = 0; i < p->count; i++) {
        lore_status status =
            lore_weights_matrix(l->weights, name_of(l, p->names[i], ".weight", names[i]),
                                p->rows[i], p->cols, &parts[i], l->err);
        if (status != LORE_OK) {
            return status;
        }
        bias_names[i] = name_of(l, p->names[i], ".bias", names[i]);
        LORE_ASSERT(!p->has_bias || p->rows[i] == p->rows[0]);
    }
    lore_status status =
        lore_weight_pack(l->e->backend, parts, p->count, LORE_USE_MATMUL, &linear->weight, l->err);
    for (int32_t i = 0; i < p->count; i++) {
        lore_weights_release(l->weights, &parts[i]);
    }
    return status == LORE_OK && p->has_bias
               ? lore_weights_vectors(l->weights, bias_names, p->count, p->rows[0], l->e->backend,
                                      &linear->bias, l->err)
               : status;
}

/* ---- the network ---- */

static lore_status load_matrices(loader *l, lore_encoder_layer *layer)
{
    const lore_encoder_config *c = &l->e->config;
    const lore_encoder_family *f = c->family;
    bool is_fused = f->qkv[1] == NULL, is_pair = f->gate_up[1] != NULL;
    int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const struct {
        linear_parts parts;
        lore_encoder_linear *linear;
    } linears[] = {
        {{f->qkv,
          is_fused ? 1 : 3,
          {is_fused ? q + 2 * kv : q, kv, kv},
          c->width,
          c->has_attention_bias},
         &layer->qkv},
        {{&f->attention_out, 1, {c->width}, q, c->has_attention_bias}, &layer->attention_out},
        {{f->gate_up,
          is_pair ? 2 : 1,
          {f->is_glu && !is_pair ? 2 * c->ffn : c->ffn, c->ffn},
          c->width,
          c->has_ffn_bias},
         &layer->up},
        {{&f->down, 1, {c->width}, c->ffn, c->has_ffn_bias}, &layer->down}};
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof linears / sizeof linears[0] && status == LORE_OK; i++) {
        status = load_linear(l, &linears[i].parts, linears[i].linear);
    }
    return status;
}

static lore_status load_layer(loader *l, lore_encoder_layer *layer)
{
    const lore_encoder_config *c = &l->e->config;
    const lore_encoder_family *f = c->family;
    lore_status status = load_matrices(l, layer);
    if (status == LORE_OK && !(f->is_first_norm_absent && l->layer == 0)) {
        status = load_norm(l, f->attention_norm, &layer->attention_norm);
    }
    if (status == LORE_OK) {
        status = load_norm(l, f->ffn_norm, &layer->ffn_norm);
    }
    if (status == LORE_OK && f->q_norm != NULL) {
        status = load_vector(l, f->q_norm, ".weight", c->head_dim, &layer->q_norm);
    }
    if (status == LORE_OK && f->k_norm != NULL) {
        status = load_vector(l, f->k_norm, ".weight", c->head_dim, &layer->k_norm);
    }
    return status;
}

static lore_status load_dense(lore_encoder *e, lore_weights *const *weights, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < e->config.dense_count && status == LORE_OK; i++) {
        const lore_dense_config *d = &e->config.dense[i];
        loader l = {.e = e, .weights = weights[i], .prefix = "", .err = err, .layer = -1};
        linear_parts parts = {&d->name, 1, {d->out}, d->in, d->has_bias};
        status = load_linear(&l, &parts, &e->dense[i]);
        if (status == LORE_OK) {
            LORE_ASSERT(d->norm == NULL || d->out == e->config.width);
            status = load_norm(&l, d->norm, &e->dense_norm[i]);
        }
    }
    return status;
}

static lore_status load_network(loader *l)
{
    lore_encoder *e = l->e;
    const lore_encoder_config *c = &e->config;
    l->layer = -1;
    l->prefix = find_prefix(l);
    lore_status status = load_table(l, c->family->words, c->vocab, &e->words);
    if (status == LORE_OK) {
        status = load_table(l, c->family->positions, c->positions, &e->positions);
    }
    if (status == LORE_OK) {
        status = load_table(l, c->family->types, c->types, &e->types);
    }
    if (status == LORE_OK) {
        status = load_norm(l, c->family->embed_norm, &e->embed_norm);
    }
    if (status == LORE_OK) {
        status = load_norm(l, c->family->final_norm, &e->final_norm);
    }
    for (int32_t i = 0; i < c->layers && status == LORE_OK; i++) {
        l->layer = i;
        status = load_layer(l, &e->layers[i]);
    }
    return status;
}

/* A checkpoint may carry layers of tasks that pooling never uses: next sentence, the next word. */
static lore_status finish_weights(loader *l)
{
    static const char *const SPARE[] = {"pooler.dense.weight", "pooler.dense.bias"};
    char name[LORE_TENSOR_NAME_CAP];
    l->layer = -1;
    for (size_t i = 0; i < sizeof SPARE / sizeof SPARE[0]; i++) {
        lore_weights_ignore(l->weights, name_of(l, SPARE[i], "", name));
    }
    lore_weights_ignore(l->weights, "lm_head.weight");
    return lore_weights_finish(l->weights, l->err);
}

/* ---- opening and closing ---- */

static lore_status make_ropes(lore_encoder *e, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int i = 0; i < 2 && status == LORE_OK; i++) {
        if (e->config.rope[i].dim > 0) {
            status = lore_rope_upload(&e->config.rope[i], e->config.tokens_max, e->backend,
                                      e->seats[0][0].queue, &e->cosine[i], &e->sine[i], err);
        }
    }
    return status;
}

static lore_status open_parts(lore_encoder *e, lore_weights *weights,
                              lore_weights *const *dense_weights, lore_error *err)
{
    loader l = {.e = e, .weights = weights, .err = err};
    lore_status status = load_network(&l);
    if (status == LORE_OK) {
        status = load_dense(e, dense_weights, err);
    }
    if (status == LORE_OK) {
        status = finish_weights(&l);
    }
    for (int32_t i = 0; i < e->config.dense_count && status == LORE_OK; i++) {
        status = lore_weights_finish(dense_weights[i], err);
    }
    if (status == LORE_OK) {
        status = lore_encoder_open_seats(e, err);
    }
    return status == LORE_OK ? make_ropes(e, err) : status;
}

lore_status lore_encoder_open(const lore_encoder_config *config, lore_weights *weights,
                              lore_weights *const *dense_weights, lore_backend *backend,
                              const lore_encoder_options *options, lore_encoder **encoder,
                              lore_error *err)
{
    LORE_ASSERT(options->lanes > 0 && options->lanes <= LORE_ENCODER_LANES);
    lore_encoder *e = lore_alloc_zero(1, sizeof *e);
    if (e == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder");
    }
    e->config = *config;
    e->backend = backend;
    e->dtype = lore_backend_activation_dtype(backend);
    e->options = *options;
    e->layers = lore_alloc_zero((size_t)config->layers, sizeof *e->layers);
    lore_status status = e->layers != NULL
                             ? open_parts(e, weights, dense_weights, err)
                             : lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder");
    if (status != LORE_OK) {
        lore_encoder_close(e);
        return status;
    }
    *encoder = e;
    return LORE_OK;
}

int32_t lore_encoder_dim(const lore_encoder *e)
{
    return e->config.dimensions > 0 ? e->config.dimensions : lore_encoder_config_out(&e->config);
}

static void drop(lore_backend *backend, void *memory)
{
    if (memory != NULL) {
        lore_backend_free(backend, memory);
    }
}

static void close_linear(lore_backend *backend, lore_encoder_linear *linear)
{
    lore_weight_free(linear->weight);
    drop(backend, linear->bias);
}

static void close_layer(lore_backend *backend, lore_encoder_layer *layer)
{
    float *vectors[] = {layer->attention_norm.weight,
                        layer->attention_norm.bias,
                        layer->ffn_norm.weight,
                        layer->ffn_norm.bias,
                        layer->q_norm,
                        layer->k_norm};
    close_linear(backend, &layer->qkv);
    close_linear(backend, &layer->attention_out);
    close_linear(backend, &layer->up);
    close_linear(backend, &layer->down);
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        drop(backend, vectors[i]);
    }
}

void lore_encoder_close(lore_encoder *e)
{
    if (e == NULL) {
        return;
    }
    for (int32_t i = 0; e->layers != NULL && i < e->config.layers; i++) {
        close_layer(e->backend, &e->layers[i]);
    }
    for (int32_t i = 0; i < LORE_DENSE_MAX; i++) {
        close_linear(e->backend, &e->dense[i]);
        drop(e->backend, e->dense_norm[i].weight);
        drop(e->backend, e->dense_norm[i].bias);
    }
    lore_encoder_close_seats(e);
    float *vectors[] = {e->embed_norm.weight, e->embed_norm.bias, e->final_norm.weight,
                        e->final_norm.bias,   e->cosine[0],       e->cosine[1],
                        e->sine[0],           e->sine[1]};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        drop(e->backend, vectors[i]);
    }
    lore_weight_free(e->words);
    lore_weight_free(e->positions);
    lore_weight_free(e->types);
    lore_free(e->layers);
    lore_free(e);
}
