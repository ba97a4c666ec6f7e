/* One forward pass for all families, over a mixed batch. With n rows:
 *
 *   x = table[ids]                                         (Gemma 2: times sqrt(width))
 *   for each layer:  qkv = rmsnorm(x) Wqkv + b             (biases: Qwen2, or where asked for)
 *                    q, k = rope(norm_q(q)), rope(norm_k(k))      (norms of heads: Qwen3)
 *                    keys and values of the n rows go to their pages
 *                    x += attention(q, pages) Wo           (windows, caps: where there are any)
 *                    gate, up = rmsnorm(x) Wgate_up
 *                    x += (act(gate) * up) Wdown
 *   logits = rmsnorm(x[logits_rows]) table^T               (or lm_head where not tied)
 *
 * Gemma 2 norms what a branch adds before it is added. What holds for a model stands in its
 * configuration and its family's facts (model_config.c); nothing here asks for a family by name.
 * (Touvron et al. 2023; Jiang et al. 2023; Yang et al. 2024, 2025; Abdin et al. 2024; Riviere et
 * al. 2024.)
 *
 * Rows of many sequences stand one behind the other; only attention knows whose they are, through
 * lore_batch. Pages are numbered by the scheduler and mean the same number in every layer.
 *
 * Everything was taken at opening (decoder_load.c): weights, pages, one set of scratch, and the
 * places in backend memory that a step's arrays are copied to (decoder_step.c). Nothing here
 * allocates, waits or reads what those arrays hold: the pass may be recorded and replayed. */
#include "models/decoder_int.h"

/* x += y W + b, or the norm of that. normed is scratch. */
static void add_branch(lore_decoder *d, lore_view x, lore_view normed, lore_view y,
                       const lore_weight *weight, const float *bias, const float *norm)
{
    const lore_epilogue epilogue = {.bias = bias, .is_accumulating = norm == NULL};
    lore_op_matmul(d->queue, norm == NULL ? x : normed, y, weight, epilogue);
    if (norm != NULL) {
        lore_op_rmsnorm(d->queue, normed, normed, norm, d->config.eps);
        lore_op_add(d->queue, x, normed);
    }
}

/* But for the norms, which are a layer's. */
static lore_rope rope_of(const lore_decoder *d)
{
    return (lore_rope){.cosine = d->cosine,
                       .sine = d->sine,
                       .positions_max = lore_rope_row_count(&d->config.rope, d->info.context),
                       .starts = d->step.rope_starts,
                       .heads = d->config.heads,
                       .dim = d->config.rope.dim,
                       .eps = d->config.eps};
}

static void run_attention(lore_decoder *d, const lore_decoder_layer *layer, const lore_batch *batch,
                          lore_view x, lore_view normed)
{
    const lore_decoder_config *c = &d->config;
    lore_queue *q = d->queue;
    int32_t q_cols = c->heads * c->head_dim, kv_cols = c->kv_heads * c->head_dim;
    lore_view qkv = lore_view_as(d->dtype, d->qkv, batch->rows, q_cols + 2 * kv_cols);
    lore_view mixed = lore_view_as(d->dtype, d->mixed, batch->rows, q_cols);
    lore_rope rope = rope_of(d);
    rope.q_norm = layer->q_norm;
    rope.k_norm = layer->k_norm;
    const lore_fusion norm = {.norm = layer->attention_norm, .eps = c->eps, .normed = normed};

    lore_op_matmul_fused(q, qkv, x, layer->qkv, (lore_epilogue){.bias = layer->qkv_bias}, &norm);
    lore_op_rope_append(q, qkv, &rope, &layer->pages, batch);
    lore_op_attend_paged(q, mixed, lore_view_columns(qkv, 0, q_cols), &layer->pages, batch,
                         &layer->attention);
    add_branch(d, x, normed, mixed, layer->attention_out, layer->attention_out_bias,
               layer->attention_post_norm);
}

static void run_ffn(lore_decoder *d, const lore_decoder_layer *layer, lore_view x, lore_view normed)
{
    const lore_decoder_config *c = &d->config;
    lore_view hidden = lore_view_as(d->dtype, d->hidden, x.rows, c->ffn);
    const lore_fusion gated = {.norm = layer->ffn_norm,
                               .eps = c->eps,
                               .normed = normed,
                               .is_gated = true,
                               .gate_up = lore_view_as(d->dtype, d->gate_up, x.rows, 2 * c->ffn)};
    const lore_epilogue epilogue = {.bias = layer->gate_up_bias, .activation = c->activation};

    lore_op_matmul_fused(d->queue, hidden, x, layer->gate_up, epilogue, &gated);
    add_branch(d, x, normed, hidden, layer->down, layer->down_bias, layer->ffn_post_norm);
}

/* Final norm and logits of the rows that want a token, and no others: the table is the largest
 * matrix. */
static void run_head(lore_decoder *d, lore_view x, int32_t count, const int32_t *rows)
{
    lore_view last = rows != NULL ? lore_view_of(d->last, count, d->config.width) : x;
    lore_view logits = lore_view_of(d->logits, count, d->config.vocab);
    const lore_fusion norm = {.norm = d->norm,
                              .eps = d->config.eps,
                              .normed =
                                  lore_view_as(d->dtype, d->last_normed, count, d->config.width)};
    if (rows != NULL) {
        lore_op_gather(d->queue, last, x, rows);
    }
    lore_op_matmul_fused(d->queue, logits, last, d->head != NULL ? d->head : d->table,
                         (lore_epilogue){0}, &norm);
    if (d->config.logit_softcap > 0) {
        lore_op_softcap(d->queue, logits, d->config.logit_softcap);
    }
}

lore_status lore_decoder_fuse(lore_decoder *d, lore_error *err)
{
    const int32_t count = d->config.layers;
    lore_layer *fused = lore_alloc_zero((size_t)count, sizeof *fused);
    if (fused == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the decoder");
    }
    bool is_plain = true;
    for (int32_t i = 0; i < count; i++) {
        const lore_decoder_layer *l = &d->layers[i];
        is_plain = is_plain && l->attention_out_bias == NULL && l->gate_up_bias == NULL &&
                   l->down_bias == NULL && l->attention_post_norm == NULL &&
                   l->ffn_post_norm == NULL;
        fused[i] = (lore_layer){.qkv = l->qkv,
                                .out = l->attention_out,
                                .gate_up = l->gate_up,
                                .down = l->down,
                                .attention_norm = l->attention_norm,
                                .ffn_norm = l->ffn_norm,
                                .qkv_bias = l->qkv_bias,
                                .q_norm = l->q_norm,
                                .k_norm = l->k_norm,
                                .attention = l->attention,
                                .pages = l->pages};
    }
    if (is_plain) {
        d->fused = fused;
    } else {
        lore_free(fused);
    }
    return LORE_OK;
}

/* Every layer at once, where the backend does that for such a batch. */
static bool run_fused(lore_decoder *d, const lore_batch *batch, lore_view x)
{
    const lore_decoder_config *c = &d->config;
    const lore_layers layers = {.layers = d->fused,
                                .count = c->layers,
                                .rope = rope_of(d),
                                .eps = c->eps,
                                .activation = c->activation};
    return d->fused != NULL && lore_op_layers(d->queue, x, &layers, batch);
}

void lore_decoder_forward(lore_decoder *d, const lore_batch *batch, int32_t logits_count,
                          const int32_t *logits_rows)
{
    lore_view x = lore_view_of(d->x, batch->rows, d->config.width);
    lore_view normed = lore_view_as(d->dtype, d->normed, batch->rows, d->config.width);
    lore_op_embed_drawn(d->queue, x, d->table, d->step.ids, d->drawn, d->config.embed_scale);
    const bool is_done = run_fused(d, batch, x);
    for (int32_t i = 0; i < d->config.layers && !is_done; i++) {
        run_attention(d, &d->layers[i], batch, x, normed);
        run_ffn(d, &d->layers[i], x, normed);
    }
    if (logits_count > 0) {
        LORE_ASSERT(logits_rows != NULL || logits_count == batch->rows);
        run_head(d, x, logits_count, logits_rows);
    }
}
