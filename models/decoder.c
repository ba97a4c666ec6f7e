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
 * Sequences may have adapters, which add to what the products give for their rows (lora.h). Tied
 * tables are adapted as heads alone: embedding never is.
 *
 * Rows of many sequences stand one behind the other; only attention knows whose they are, through
 * lore_batch. Pages are numbered by the scheduler and mean the same number in every layer.
 *
 * Everything was taken at opening (decoder_load.c): weights, pages, one set of scratch, and the
 * places in backend memory that a step's arrays are copied to (decoder_step.c). Nothing here
 * allocates, waits or reads what those arrays hold: the pass may be recorded and replayed. */
#include "models/decoder_int.h"

/* One run of the pass, as its products see it. */
typedef struct pass {
    const lore_decoder *d;
    int32_t layer;
    int32_t segments; /* of the adapters' table; 0: nobody has one */
} pass;

/* What adapters add to a product: NULL where nobody has one, or none that changes these. */
static const lore_lora *lora_of(const pass *p, lore_linear which, lore_lora *lora)
{
    const lore_decoder *d = p->d;
    const bool is_head = which == LORE_LINEAR_HEAD;
    if (p->segments == 0 || d->lora_ranks[which] == 0) {
        return NULL;
    }
    *lora = (lore_lora){.rows = {.segments = p->segments,
                                 .order = is_head ? d->step.head_order : d->step.lora_order,
                                 .starts = is_head ? d->step.head_starts : d->step.lora_starts,
                                 .adapters = d->step.adapters},
                        .index = lore_decoder_lora_index(d, p->layer, which),
                        .rank_max = d->lora_ranks[which],
                        .dtype = d->info.adapter_dtype};
    return lora;
}

/* x += y W + b, or the norm of that. normed is scratch. */
static void add_branch(const pass *p, lore_view x, lore_view normed, lore_view y,
                       const lore_weight *weight, lore_epilogue epilogue, const float *norm)
{
    lore_queue *q = p->d->queue;
    epilogue.is_accumulating = norm == NULL;
    lore_op_matmul(q, norm == NULL ? x : normed, y, weight, epilogue);
    if (norm != NULL) {
        lore_op_rmsnorm(q, normed, normed, norm, p->d->config.eps);
        lore_op_add(q, x, normed);
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

static void run_attention(const pass *p, const lore_batch *batch, lore_view x, lore_view normed)
{
    const lore_decoder *d = p->d;
    const lore_decoder_layer *layer = &d->layers[p->layer];
    const lore_decoder_config *c = &d->config;
    lore_queue *q = d->queue;
    int32_t q_cols = c->heads * c->head_dim, kv_cols = c->kv_heads * c->head_dim;
    lore_view qkv = lore_view_as(d->dtype, d->qkv, batch->rows, q_cols + 2 * kv_cols);
    lore_view mixed = lore_view_as(d->dtype, d->mixed, batch->rows, q_cols);
    lore_rope rope = rope_of(d);
    rope.q_norm = layer->q_norm;
    rope.k_norm = layer->k_norm;
    const lore_fusion norm = {.norm = layer->attention_norm, .eps = c->eps, .normed = normed};
    lore_lora lora;
    const lore_epilogue plain = {.bias = layer->qkv_bias,
                                 .lora = lora_of(p, LORE_LINEAR_QKV, &lora)};

    lore_op_matmul_fused(q, qkv, x, layer->qkv, plain, &norm);
    lore_op_rope_append(q, qkv, &rope, &layer->pages, batch);
    lore_op_attend_paged(q, mixed, lore_view_columns(qkv, 0, q_cols), &layer->pages, batch,
                         &layer->attention);
    const lore_epilogue out = {.bias = layer->attention_out_bias,
                               .lora = lora_of(p, LORE_LINEAR_ATTENTION_OUT, &lora)};
    add_branch(p, x, normed, mixed, layer->attention_out, out, layer->attention_post_norm);
}

static void run_ffn(const pass *p, lore_view x, lore_view normed)
{
    const lore_decoder *d = p->d;
    const lore_decoder_layer *layer = &d->layers[p->layer];
    const lore_decoder_config *c = &d->config;
    lore_view hidden = lore_view_as(d->dtype, d->hidden, x.rows, c->ffn);
    const lore_fusion gated = {.norm = layer->ffn_norm,
                               .eps = c->eps,
                               .normed = normed,
                               .is_gated = true,
                               .gate_up = lore_view_as(d->dtype, d->gate_up, x.rows, 2 * c->ffn)};
    lore_lora lora;
    const lore_epilogue act = {.bias = layer->gate_up_bias,
                               .activation = c->activation,
                               .lora = lora_of(p, LORE_LINEAR_GATE_UP, &lora)};

    lore_op_matmul_fused(d->queue, hidden, x, layer->gate_up, act, &gated);
    const lore_epilogue down = {.bias = layer->down_bias,
                                .lora = lora_of(p, LORE_LINEAR_DOWN, &lora)};
    add_branch(p, x, normed, hidden, layer->down, down, layer->ffn_post_norm);
}

/* Final norm and logits of the rows that want a token, and no others: the table is the largest
 * matrix. */
static void run_head(const pass *p, lore_view x, int32_t count, const int32_t *rows)
{
    const lore_decoder *d = p->d;
    lore_lora lora;
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
                         (lore_epilogue){.lora = lora_of(p, LORE_LINEAR_HEAD, &lora)}, &norm);
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
                          const int32_t *logits_rows, int32_t segments)
{
    pass p = {.d = d, .segments = segments};
    lore_view x = lore_view_of(d->x, batch->rows, d->config.width);
    lore_view normed = lore_view_as(d->dtype, d->normed, batch->rows, d->config.width);
    lore_op_embed_drawn(d->queue, x, d->table, d->step.ids, d->drawn, d->config.embed_scale);
    const bool is_done = segments == 0 && run_fused(d, batch, x);
    for (; p.layer < d->config.layers && !is_done; p.layer++) {
        run_attention(&p, batch, x, normed);
        run_ffn(&p, x, normed);
    }
    if (logits_count > 0) {
        LORE_ASSERT(logits_rows != NULL || logits_count == batch->rows);
        run_head(&p, x, logits_count, logits_rows);
    }
}
