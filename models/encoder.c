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
 * Where the backend wants bf16 between ops, x stays f32 and each product takes it rounded: norms
 * give it that way, and in post-norm families the sum, its norm and the rounding are one op.
 *
 * The weights are shared by all seats. A question need not wait until a pack of an ingest has left
 * the encoder: its seat's work is of higher priority, which the pool lets go first between two
 * pieces of an op. */
#include "models/encoder_layers_int.h"

#include "base/clock.h"

#include <math.h>
#include <string.h>

/* A pack in its seat. */
typedef struct passage {
    const lore_encoder *e;
    lore_encoder_seat *seat;
    int32_t rows, sequences, longest;
} passage;

/* x, pooled and what follows it. */
static lore_view view_of(const passage *p, float *data, int32_t cols)
{
    return lore_view_of(data, p->rows, cols);
}

/* What passes between two ops; of no data: an empty one. */
static lore_view between(const passage *p, void *data, int32_t cols)
{
    return data != NULL ? lore_view_as(p->e->dtype, data, p->rows, cols) : (lore_view){0};
}

static void norm(const passage *p, lore_view out, lore_view x, const lore_encoder_norm *n)
{
    const lore_encoder_config *c = &p->e->config;
    if (c->family->is_rms) {
        lore_op_rmsnorm(p->seat->queue, out, x, n->weight, c->eps);
    } else {
        lore_op_layernorm(p->seat->queue, out, x, n->weight, n->bias, c->eps);
    }
}

/* mixed = attention of what stands in qkv. */
static void attend(const passage *p, const lore_encoder_layer *layer, bool is_global,
                   lore_view mixed)
{
    const lore_encoder *e = p->e;
    const lore_encoder_config *c = &e->config;
    lore_queue *q = p->seat->queue;
    lore_view qkv = between(p, p->seat->qkv, (c->heads + 2 * c->kv_heads) * c->head_dim);
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
                            p->seat->row_start);
    }
    lore_attention attention = {.scale = 1.0f / sqrtf((float)c->head_dim),
                                .window = is_global ? 0 : c->window};
    lore_op_attend_packed(q, mixed, qkv, c->heads, c->kv_heads, p->sequences, p->seat->row_start,
                          p->longest, c->family->is_causal, &attention);
}

/* hidden = what goes into the last matrix of a layer. */
static void expand(const passage *p, const lore_encoder_layer *layer, lore_view x, lore_view hidden)
{
    const lore_encoder_config *c = &p->e->config;
    lore_queue *q = p->seat->queue;
    if (!c->family->is_glu) {
        lore_op_matmul(q, hidden, x, layer->up.weight,
                       (lore_epilogue){.bias = layer->up.bias, .activation = c->activation});
        return;
    }
    lore_view gate_up = between(p, p->seat->gate_up, 2 * c->ffn);
    lore_op_matmul(q, gate_up, x, layer->up.weight, (lore_epilogue){.bias = layer->up.bias});
    lore_op_glu(q, hidden, gate_up, c->activation);
}

/* x += the product of a block's last matrix. Where rows are rounded, the sum of a post-norm family
 * waits for its norm: then the product alone, in `added`. */
static void leave_block(const passage *p, lore_view x, lore_view added, lore_view block,
                        const lore_encoder_linear *linear)
{
    const bool is_put_off = added.data != NULL;
    lore_op_matmul(p->seat->queue, is_put_off ? added : x, block, linear->weight,
                   (lore_epilogue){.bias = linear->bias, .is_accumulating = !is_put_off});
}

/* Behind a block of a post-norm family, or the embeddings: x is normed, and rounded where products
 * want that. */
static void norm_sum(const passage *p, lore_view x, lore_view rounded, lore_view added,
                     const lore_encoder_norm *n)
{
    const lore_encoder_config *c = &p->e->config;
    if (rounded.data == NULL) {
        norm(p, x, x, n);
        return;
    }
    LORE_ASSERT(!c->family->is_rms);
    lore_op_add_layernorm(p->seat->queue, x, rounded, added, n->weight, n->bias, c->eps);
}

static void forward_layer(const passage *p, int32_t i)
{
    const lore_encoder_config *c = &p->e->config;
    const lore_encoder_layer *layer = &p->e->layers[i];
    lore_queue *q = p->seat->queue;
    lore_view x = view_of(p, p->seat->x, c->width);
    lore_view rounded = between(p, p->seat->rounded, c->width);
    lore_view added = between(p, p->seat->added, c->width);
    lore_view normed = between(p, p->seat->mixed, c->width); /* until attention writes there */
    lore_view mixed = between(p, p->seat->mixed, c->heads * c->head_dim);
    lore_view qkv = between(p, p->seat->qkv, (c->heads + 2 * c->kv_heads) * c->head_dim);
    lore_view hidden = between(p, p->seat->hidden, c->ffn);
    bool is_prenorm = c->family->is_prenorm;

    /* what the products take: the normed rows of a pre-norm family, else x, rounded or as it is */
    lore_view in = rounded.data != NULL ? rounded : x;
    bool is_normed = is_prenorm && layer->attention_norm.weight != NULL;
    if (is_normed) {
        norm(p, normed, x, &layer->attention_norm);
    }
    lore_op_matmul(q, qkv, is_normed ? normed : in, layer->qkv.weight,
                   (lore_epilogue){.bias = layer->qkv.bias});
    attend(p, layer, i % c->global_every == 0, mixed);
    leave_block(p, x, added, mixed, &layer->attention_out);
    if (!is_prenorm) {
        norm_sum(p, x, rounded, added, &layer->attention_norm);
    }

    if (is_prenorm) {
        norm(p, normed, x, &layer->ffn_norm);
    }
    expand(p, layer, is_prenorm ? normed : in, hidden);
    leave_block(p, x, added, hidden, &layer->down);
    if (!is_prenorm) {
        norm_sum(p, x, rounded, added, &layer->ffn_norm);
    }
}

static void embed(const passage *p)
{
    const lore_encoder *e = p->e;
    const lore_encoder_seat *s = p->seat;
    lore_view x = view_of(p, s->x, e->config.width);
    lore_op_embed(s->queue, x, e->words, s->ids, 1.0f, false);
    if (e->positions != NULL) {
        lore_op_embed(s->queue, x, e->positions, s->position_ids, 1.0f, true);
    }
    if (e->types != NULL) {
        lore_op_embed(s->queue, x, e->types, s->type_ids, 1.0f, true);
    }
    if (e->embed_norm.weight != NULL) {
        norm_sum(p, x, between(p, s->rounded, e->config.width), (lore_view){0}, &e->embed_norm);
    }
}

/* Pooling and what stands behind it. Gives the memory of [sequences, out] values. */
static const float *finish(const passage *p, bool is_normalised)
{
    const lore_encoder *e = p->e;
    const lore_encoder_config *c = &e->config;
    const lore_encoder_seat *s = p->seat;
    lore_view out = lore_view_of(s->pooled, p->sequences, c->width);
    lore_op_pool(s->queue, out, view_of(p, s->x, c->width), s->row_start, c->pooling,
                 is_normalised);
    for (int32_t i = 0; i < c->dense_count; i++) {
        lore_view next = lore_view_of(s->dense[i], p->sequences, c->dense[i].out);
        lore_op_matmul(
            s->queue, next, out, e->dense[i].weight,
            (lore_epilogue){.bias = e->dense[i].bias, .activation = c->dense[i].activation});
        if (e->dense_norm[i].weight != NULL) {
            norm(p, next, next, &e->dense_norm[i]);
        }
        out = next;
    }
    return out.data;
}

/* Ids, positions and types of a pack to the backend. Positions count anew in every sequence. */
static void upload(passage *p)
{
    const lore_encoder *e = p->e;
    const lore_encoder_seat *s = p->seat;
    const lore_encoder_pack *pack = &s->pack;
    size_t size_bytes = (size_t)p->rows * sizeof(int32_t);
    for (int32_t i = 0; i < pack->sequences; i++) {
        int32_t start = pack->row_start[i], length = pack->row_start[i + 1] - start;
        LORE_ASSERT(length > 0 && length <= e->config.tokens_max);
        for (int32_t k = 0; k < length; k++) {
            s->positions[start + k] = e->config.position_start + k;
        }
        p->longest = length > p->longest ? length : p->longest;
    }
    lore_queue_upload(s->queue, s->ids, pack->ids, size_bytes);
    if (e->positions != NULL) {
        lore_queue_upload(s->queue, s->position_ids, s->positions, size_bytes);
    }
    if (e->types != NULL) {
        lore_queue_upload(s->queue, s->type_ids, pack->types, size_bytes);
    }
    lore_queue_upload(s->queue, s->row_start, pack->row_start,
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

static lore_encoder_seat *seat_of(lore_encoder *e, lore_encoder_lane lane, int32_t seat)
{
    LORE_ASSERT((int32_t)lane < e->options.lanes);
    LORE_ASSERT(seat >= 0 && seat < e->options.rooms[lane].seats);
    return &e->seats[lane][seat];
}

lore_encoder_pack *lore_encoder_pack_of(lore_encoder *e, lore_encoder_lane lane, int32_t seat)
{
    return &seat_of(e, lane, seat)->pack;
}

lore_status lore_encoder_submit(lore_encoder *e, lore_encoder_lane lane, int32_t seat,
                                lore_error *err)
{
    const lore_encoder_config *c = &e->config;
    lore_encoder_seat *s = seat_of(e, lane, seat);
    const lore_encoder_pack *pack = &s->pack;
    passage p = {
        .e = e, .seat = s, .rows = pack->row_start[pack->sequences], .sequences = pack->sequences};
    LORE_ASSERT(p.rows <= e->options.rooms[lane].rows);
    LORE_ASSERT(p.sequences <= e->options.rooms[lane].sequences);

    lore_queue_begin(s->queue, s->priority);
    upload(&p);
    embed(&p);
    for (int32_t i = 0; i < c->layers; i++) {
        if (lore_deadline_passed(pack->deadline_ns)) {
            lore_status status = lore_queue_sync(s->queue, err);
            return status == LORE_OK
                       ? lore_fail(err, LORE_ERR_TIMEOUT, "the encoder's deadline passed")
                       : status;
        }
        forward_layer(&p, i);
    }
    if (e->final_norm.weight != NULL) {
        lore_view x = view_of(&p, s->x, c->width);
        norm(&p, x, x, &e->final_norm);
    }
    const float *out = finish(&p, c->is_normalised && s->whole == NULL);
    lore_queue_download_later(s->queue, s->whole != NULL ? s->whole : pack->vectors, out,
                              (size_t)p.sequences * (size_t)lore_encoder_config_out(c) *
                                  sizeof(float));
    lore_status status = lore_queue_mark(s->queue, 0, err);
    if (status != LORE_OK) { /* what was submitted before it failed still uses the seat's memory */
        lore_error echo;
        (void)!lore_queue_sync(s->queue, &echo);
    }
    return status;
}

lore_status lore_encoder_wait(lore_encoder *e, lore_encoder_lane lane, int32_t seat,
                              lore_error *err)
{
    lore_encoder_seat *s = seat_of(e, lane, seat);
    lore_status status = lore_queue_wait_mark(s->queue, 0, err);
    if (status == LORE_OK && s->whole != NULL) {
        shorten(s->whole, lore_encoder_config_out(&e->config), lore_encoder_dim(e),
                s->pack.sequences, e->config.is_normalised, s->pack.vectors);
    }
    return status;
}
