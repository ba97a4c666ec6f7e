/* The forward pass of an encoder. With x the rows of a pack and H their width:
 *
 *   x = norm(word[id] + position[i] + type[t])
 *   for each layer, as BERT does it (post-norm; Devlin et al. 2019):
 *       x = norm(x + attention(x Wqkv) Wo)
 *       x = norm(x + act(x Wu) Wd)
 *   or as decoders do it (pre-norm; ModernBERT, Qwen3):
 *       x = x + attention(rope(norm(x) Wqkv)) Wo
 *       x = x + (act(gate) * up) Wd            gate, up = norm(x) Wu
 *   and there x = norm(x) at the end
 *   vector = dense layers of pool(x), perhaps with norms, the first values of it, divided by its
 *            length
 *
 * Every step that is not in all of them is asked of the family's row of facts or of the weights
 * that were loaded. The sequences of a pack stand one behind the other without padding; only
 * attention, rope and pooling need to know where one ends.
 *
 * The weights are shared by two lanes, each with a queue and scratch of its own, so that a question
 * need not wait until a pack of an ingest has left the encoder: the pool lets the lane of higher
 * priority go first, between two pieces of an op. */
#include "models/encoder_layers_int.h"

#include "base/clock.h"

#include <math.h>
#include <string.h>

/* A pack in its lane. */
typedef struct passage {
    const lore_encoder *e;
    const lore_encoder_scratch *lane;
    int32_t rows, sequences, longest;
} passage;

static lore_view view_of(const passage *p, float *data, int32_t cols)
{
    return lore_view_of(data, p->rows, cols);
}

static void norm(const passage *p, lore_view out, lore_view x, const lore_encoder_norm *n)
{
    const lore_encoder_config *c = &p->e->config;
    if (c->family->is_rms) {
        lore_op_rmsnorm(p->lane->queue, out, x, n->weight, c->eps);
    } else {
        lore_op_layernorm(p->lane->queue, out, x, n->weight, n->bias, c->eps);
    }
}

/* mixed = attention of what stands in qkv. */
static void attend(const passage *p, const lore_encoder_layer *layer, bool is_global,
                   lore_view mixed)
{
    const lore_encoder *e = p->e;
    const lore_encoder_config *c = &e->config;
    lore_queue *q = p->lane->queue;
    lore_view qkv = view_of(p, p->lane->qkv, (c->heads + 2 * c->kv_heads) * c->head_dim);
    if (e->cosine[!is_global] != NULL) {
        lore_rope rope = {.cosine = e->cosine[!is_global],
                          .sine = e->sine[!is_global],
                          .positions_max = c->tokens_max,
                          .heads = c->heads,
                          .dim = c->rope[!is_global].dim,
                          .q_norm = layer->q_norm,
                          .k_norm = layer->k_norm,
                          .eps = c->eps};
        lore_op_rope_packed(q, qkv, &rope, c->kv_heads, c->head_dim, p->sequences,
                            p->lane->row_start);
    }
    lore_attention attention = {.scale = 1.0f / sqrtf((float)c->head_dim),
                                .window = is_global ? 0 : c->window};
    lore_op_attend_packed(q, mixed, qkv, c->heads, c->kv_heads, p->sequences, p->lane->row_start,
                          p->longest, c->family->is_causal, &attention);
}

/* hidden = what goes into the last matrix of a layer. */
static void expand(const passage *p, const lore_encoder_layer *layer, lore_view x, lore_view hidden)
{
    const lore_encoder_config *c = &p->e->config;
    lore_queue *q = p->lane->queue;
    if (!c->family->is_glu) {
        lore_op_matmul(q, hidden, x, layer->up.weight,
                       (lore_epilogue){.bias = layer->up.bias, .activation = c->activation});
        return;
    }
    lore_view gate_up = view_of(p, p->lane->gate_up, 2 * c->ffn);
    lore_op_matmul(q, gate_up, x, layer->up.weight, (lore_epilogue){.bias = layer->up.bias});
    lore_op_glu(q, hidden, gate_up, c->activation);
}

static void forward_layer(const passage *p, int32_t i)
{
    const lore_encoder_config *c = &p->e->config;
    const lore_encoder_layer *layer = &p->e->layers[i];
    lore_queue *q = p->lane->queue;
    lore_view x = view_of(p, p->lane->x, c->width);
    lore_view normed = view_of(p, p->lane->mixed, c->width); /* until attention writes there */
    lore_view mixed = view_of(p, p->lane->mixed, c->heads * c->head_dim);
    lore_view qkv = view_of(p, p->lane->qkv, (c->heads + 2 * c->kv_heads) * c->head_dim);
    lore_view hidden = view_of(p, p->lane->hidden, c->ffn);
    bool is_prenorm = c->family->is_prenorm;

    bool is_normed = is_prenorm && layer->attention_norm.weight != NULL;
    if (is_normed) {
        norm(p, normed, x, &layer->attention_norm);
    }
    lore_op_matmul(q, qkv, is_normed ? normed : x, layer->qkv.weight,
                   (lore_epilogue){.bias = layer->qkv.bias});
    attend(p, layer, i % c->global_every == 0, mixed);
    lore_op_matmul(q, x, mixed, layer->attention_out.weight,
                   (lore_epilogue){.bias = layer->attention_out.bias, .is_accumulating = true});
    if (!is_prenorm) {
        norm(p, x, x, &layer->attention_norm);
    }

    if (is_prenorm) {
        norm(p, normed, x, &layer->ffn_norm);
    }
    expand(p, layer, is_prenorm ? normed : x, hidden);
    lore_op_matmul(q, x, hidden, layer->down.weight,
                   (lore_epilogue){.bias = layer->down.bias, .is_accumulating = true});
    if (!is_prenorm) {
        norm(p, x, x, &layer->ffn_norm);
    }
}

static void embed(const passage *p)
{
    const lore_encoder *e = p->e;
    const lore_encoder_scratch *lane = p->lane;
    lore_view x = view_of(p, lane->x, e->config.width);
    lore_op_embed(lane->queue, x, e->words, lane->ids, 1.0f, false);
    if (e->positions != NULL) {
        lore_op_embed(lane->queue, x, e->positions, lane->position_ids, 1.0f, true);
    }
    if (e->types != NULL) {
        lore_op_embed(lane->queue, x, e->types, lane->type_ids, 1.0f, true);
    }
    if (e->embed_norm.weight != NULL) {
        norm(p, x, x, &e->embed_norm);
    }
}

/* Pooling and what stands behind it. Gives the memory of [sequences, out] values. */
static const float *finish(const passage *p, bool is_normalised)
{
    const lore_encoder *e = p->e;
    const lore_encoder_config *c = &e->config;
    const lore_encoder_scratch *lane = p->lane;
    lore_view out = lore_view_of(lane->pooled, p->sequences, c->width);
    lore_op_pool(lane->queue, out, view_of(p, lane->x, c->width), lane->row_start, c->pooling,
                 is_normalised);
    for (int32_t i = 0; i < c->dense_count; i++) {
        lore_view next = lore_view_of(lane->dense[i], p->sequences, c->dense[i].out);
        lore_op_matmul(
            lane->queue, next, out, e->dense[i].weight,
            (lore_epilogue){.bias = e->dense[i].bias, .activation = c->dense[i].activation});
        if (e->dense_norm[i].weight != NULL) {
            norm(p, next, next, &e->dense_norm[i]);
        }
        out = next;
    }
    return out.data;
}

/* Ids, positions and types of a pack to the backend. Positions count anew in every sequence. */
static void upload(passage *p, const lore_encoder_pack *pack)
{
    const lore_encoder_config *c = &p->e->config;
    const lore_encoder_scratch *lane = p->lane;
    size_t size_bytes = (size_t)p->rows * sizeof(int32_t);
    for (int32_t s = 0; s < pack->sequences; s++) {
        int32_t start = pack->row_start[s], length = pack->row_start[s + 1] - start;
        LORE_ASSERT(length > 0 && length <= c->tokens_max);
        for (int32_t i = 0; i < length; i++) {
            lane->host_positions[start + i] = c->position_start + i;
        }
        p->longest = length > p->longest ? length : p->longest;
    }
    lore_queue_upload(lane->queue, lane->ids, pack->ids, size_bytes);
    lore_queue_upload(lane->queue, lane->position_ids, lane->host_positions, size_bytes);
    lore_queue_upload(lane->queue, lane->type_ids,
                      pack->types != NULL ? pack->types : lane->host_zeros, size_bytes);
    lore_queue_upload(lane->queue, lane->row_start, pack->row_start,
                      (size_t)(pack->sequences + 1) * sizeof(int32_t));
}

/* The first `dim` values of each of `count` rows, divided by their length where asked. */
static void shorten(const float *rows, int32_t out, int32_t dim, int32_t count, bool is_normalised,
                    float *vectors)
{
    for (int32_t r = 0; r < count; r++) {
        const float *row = rows + (size_t)r * (size_t)out;
        float *vector = vectors + (size_t)r * (size_t)dim;
        double sum = 0;
        for (int32_t i = 0; i < dim; i++) {
            sum += (double)row[i] * (double)row[i];
        }
        double scale = is_normalised ? 1 / fmax(sqrt(sum), 1e-12) : 1;
        for (int32_t i = 0; i < dim; i++) {
            vector[i] = (float)(row[i] * scale);
        }
    }
}

lore_status lore_encoder_forward(lore_encoder *e, lore_encoder_lane which,
                                 const lore_encoder_pack *pack, float *vectors, lore_error *err)
{
    const lore_encoder_config *c = &e->config;
    const lore_encoder_scratch *lane = &e->lanes[which];
    passage p = {.e = e,
                 .lane = lane,
                 .rows = pack->row_start[pack->sequences],
                 .sequences = pack->sequences};
    LORE_ASSERT((int32_t)which < e->options.lanes);
    LORE_ASSERT(p.rows <= e->options.rows_max && p.sequences <= e->options.sequences_max);

    lore_queue_begin(lane->queue, lane->priority);
    upload(&p, pack);
    embed(&p);
    for (int32_t i = 0; i < c->layers; i++) {
        if (lore_deadline_passed(pack->deadline_ns)) {
            lore_status status = lore_queue_sync(lane->queue, err);
            return status == LORE_OK
                       ? lore_fail(err, LORE_ERR_TIMEOUT, "the encoder's deadline passed")
                       : status;
        }
        forward_layer(&p, i);
    }
    if (e->final_norm.weight != NULL) {
        lore_view x = view_of(&p, lane->x, c->width);
        norm(&p, x, x, &e->final_norm);
    }
    const float *out = finish(&p, c->is_normalised && lane->host_vectors == NULL);

    int32_t width = lore_encoder_config_out(c);
    lore_queue_download(lane->queue, lane->host_vectors != NULL ? lane->host_vectors : vectors, out,
                        (size_t)p.sequences * (size_t)width * sizeof(float));
    lore_status status = lore_queue_sync(lane->queue, err);
    if (status == LORE_OK && lane->host_vectors != NULL) {
        shorten(lane->host_vectors, width, lore_encoder_dim(e), p.sequences, c->is_normalised,
                vectors);
    }
    return status;
}
