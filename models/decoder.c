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
 * places in backend memory that a step's arrays are copied to. A step allocates nothing. */
#include "models/decoder_int.h"

#include <string.h>

/* The scheduler's promises. Breaking one is our bug, and would be a write outside of a page. */
static void check_step(const lore_decoder *d, const lore_step *step)
{
    const lore_batch *b = &step->batch;
    LORE_ASSERT(b->rows <= d->rows_max && b->sequences <= d->sequences_max);
    LORE_ASSERT(step->logits_count <= d->sequences_max);
    LORE_ASSERT(b->row_start[0] == 0 && b->row_start[b->sequences] == b->rows);
    LORE_ASSERT(b->page_start[0] >= 0 && b->page_start[b->sequences] <= d->page_list_max);
    for (int32_t s = 0; s < b->sequences; s++) {
        int32_t rows = b->row_start[s + 1] - b->row_start[s];
        int32_t pages = b->page_start[s + 1] - b->page_start[s];
        LORE_ASSERT(rows >= 0 && rows <= b->rows_max && b->past[s] >= 0);
        LORE_ASSERT(b->past[s] + rows <= d->info.context && b->past[s] + rows <= b->context_max);
        LORE_ASSERT(pages >= lore_pages_for(b->past[s] + rows, d->info.page_tokens));
    }
    for (int32_t i = b->page_start[0]; i < b->page_start[b->sequences]; i++) {
        LORE_ASSERT(b->pages[i] >= 0 && b->pages[i] < d->info.page_count);
    }
    for (int32_t i = 0; i < b->rows; i++) {
        LORE_ASSERT(step->ids[i] >= 0 && step->ids[i] < d->config.vocab);
    }
    for (int32_t i = 0; i < step->logits_count; i++) {
        LORE_ASSERT(step->logits_rows[i] >= 0 && step->logits_rows[i] < b->rows);
    }
}

static void upload_ints(lore_decoder *d, int32_t *to, const int32_t *host, int32_t count)
{
    lore_queue_upload(d->queue, to, host, (size_t)count * sizeof(int32_t));
}

/* Which table the texts of the step are rotated by: longrope has one for texts within the original
 * length and one behind it for longer texts. */
static void fill_rope_starts(lore_decoder *d, const lore_step *step)
{
    const lore_batch *b = &step->batch;
    for (int32_t s = 0; s < b->sequences; s++) {
        int32_t known = b->past[s] + b->row_start[s + 1] - b->row_start[s];
        int32_t length = step->lengths != NULL ? step->lengths[s] : known;
        LORE_ASSERT(length >= known);
        d->rope_starts[s] = lore_rope_start(&d->config.rope, length);
    }
}

/* Copy the step's arrays to the backend. The result describes the batch by pointers into its
 * memory. */
static lore_batch upload_step(lore_decoder *d, const lore_step *step)
{
    const lore_batch *b = &step->batch;
    const lore_step_memory *m = &d->step;
    lore_batch there = *b;
    upload_ints(d, m->ids, step->ids, b->rows);
    upload_ints(d, m->row_start, b->row_start, b->sequences + 1);
    upload_ints(d, m->past, b->past, b->sequences);
    fill_rope_starts(d, step);
    upload_ints(d, m->rope_starts, d->rope_starts, b->sequences);
    upload_ints(d, m->page_start, b->page_start, b->sequences + 1);
    upload_ints(d, m->pages, b->pages, b->page_start[b->sequences]);
    upload_ints(d, m->logits_rows, step->logits_rows, step->logits_count);
    lore_queue_upload(d->queue, m->samples, step->samples,
                      (size_t)step->logits_count * sizeof(lore_sample));
    there.row_start = m->row_start;
    there.past = m->past;
    there.page_start = m->page_start;
    there.pages = m->pages;
    return there;
}

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

static void run_attention(lore_decoder *d, const lore_decoder_layer *layer, const lore_batch *batch,
                          lore_view x, lore_view normed)
{
    const lore_decoder_config *c = &d->config;
    lore_queue *q = d->queue;
    int32_t q_cols = c->heads * c->head_dim, kv_cols = c->kv_heads * c->head_dim;
    lore_view qkv = lore_view_of(d->qkv, batch->rows, q_cols + 2 * kv_cols);
    lore_view queries = {d->qkv, batch->rows, q_cols, qkv.stride};
    lore_view mixed = lore_view_of(d->mixed, batch->rows, q_cols);
    const lore_rope rope = {.cosine = d->cosine,
                            .sine = d->sine,
                            .positions_max = lore_rope_row_count(&c->rope, d->info.context),
                            .starts = d->step.rope_starts,
                            .heads = c->heads,
                            .dim = c->rope.dim,
                            .q_norm = layer->q_norm,
                            .k_norm = layer->k_norm,
                            .eps = c->eps};

    lore_op_rmsnorm(q, normed, x, layer->attention_norm, c->eps);
    lore_op_matmul(q, qkv, normed, layer->qkv, (lore_epilogue){.bias = layer->qkv_bias});
    lore_op_rope_append(q, qkv, &rope, &layer->pages, batch);
    lore_op_attend_paged(q, mixed, queries, &layer->pages, batch, &layer->attention);
    add_branch(d, x, normed, mixed, layer->attention_out, layer->attention_out_bias,
               layer->attention_post_norm);
}

static void run_ffn(lore_decoder *d, const lore_decoder_layer *layer, lore_view x, lore_view normed)
{
    const lore_decoder_config *c = &d->config;
    lore_queue *q = d->queue;
    lore_view gate_up = lore_view_of(d->gate_up, x.rows, 2 * c->ffn);
    lore_view hidden = lore_view_of(d->hidden, x.rows, c->ffn);

    lore_op_rmsnorm(q, normed, x, layer->ffn_norm, c->eps);
    lore_op_matmul(q, gate_up, normed, layer->gate_up,
                   (lore_epilogue){.bias = layer->gate_up_bias});
    lore_op_glu(q, hidden, gate_up, c->activation);
    add_branch(d, x, normed, hidden, layer->down, layer->down_bias, layer->ffn_post_norm);
}

/* Final norm and logits of the rows that want a token, and no others: the table is the largest
 * matrix. */
static void run_head(lore_decoder *d, int32_t rows, int32_t count)
{
    lore_view x = lore_view_of(d->x, rows, d->config.width);
    lore_view last = lore_view_of(d->last, count, d->config.width);
    lore_view logits = lore_view_of(d->logits, count, d->config.vocab);
    lore_op_gather(d->queue, last, x, d->step.logits_rows);
    lore_op_rmsnorm(d->queue, last, last, d->norm, d->config.eps);
    lore_op_matmul(d->queue, logits, last, d->head != NULL ? d->head : d->table,
                   (lore_epilogue){0});
    if (d->config.logit_softcap > 0) {
        lore_op_softcap(d->queue, logits, d->config.logit_softcap);
    }
}

/* Logits of the rows that want a token, and the tokens. */
static void run_draws(lore_decoder *d, const lore_step *step, float *logits)
{
    const size_t count = (size_t)step->logits_count;
    lore_view view = lore_view_of(d->logits, step->logits_count, d->config.vocab);
    run_head(d, step->batch.rows, step->logits_count);
    if (logits != NULL) { /* before sampling, which may overwrite them */
        lore_queue_download(d->queue, logits, d->logits,
                            count * (size_t)d->config.vocab * sizeof(float));
    }
    if (step->penalties != NULL) {
        lore_op_penalise(d->queue, view, step->penalties);
    }
    if (step->tops != NULL) {
        lore_op_tops(d->queue, d->step.tops, view, d->step.samples);
        lore_queue_download(d->queue, step->tops, d->step.tops,
                            count * LORE_TOPS_MAX * sizeof(lore_likely));
    }
    lore_op_sample(d->queue, d->step.drawn, d->step.logprobs, view, d->step.samples);
    lore_queue_download(d->queue, d->drawn, d->step.drawn, count * sizeof(int32_t));
    lore_queue_download(d->queue, d->logprobs, d->step.logprobs, count * sizeof(float));
}

/* The step from its arrays to the draws in host memory. */
static lore_status run_step(lore_decoder *d, const lore_step *step, float *logits, lore_error *err)
{
    LORE_ASSERT(!d->is_submitted);
    LORE_ASSERT(step->batch.rows > 0 || step->logits_count == 0);
    lore_status status = LORE_OK;
    if (step->batch.rows > 0) {
        check_step(d, step);
        lore_queue_begin(d->queue, LORE_PRIORITY_NORMAL);
        lore_batch batch = upload_step(d, step);
        lore_view x = lore_view_of(d->x, batch.rows, d->config.width);
        lore_view normed = lore_view_of(d->normed, batch.rows, d->config.width);
        lore_op_embed(d->queue, x, d->table, d->step.ids, d->config.embed_scale, false);
        for (int32_t i = 0; i < d->config.layers; i++) {
            run_attention(d, &d->layers[i], &batch, x, normed);
            run_ffn(d, &d->layers[i], x, normed);
        }
        if (step->logits_count > 0) {
            run_draws(d, step, logits);
        }
        status = lore_queue_sync(d->queue, err);
    }
    d->drawn_count = step->logits_count;
    d->is_submitted = status == LORE_OK;
    return status;
}

lore_status lore_decoder_submit(lore_decoder *d, const lore_step *step, lore_error *err)
{
    return run_step(d, step, NULL, err);
}

/* All was done when the step was submitted, so that nothing can fail. */
lore_status lore_decoder_collect(lore_decoder *d, int32_t *ids, float *logprobs, lore_error *err)
{
    (void)err;
    LORE_ASSERT(d->is_submitted);
    d->is_submitted = false;
    if (d->drawn_count > 0) {
        memcpy(ids, d->drawn, (size_t)d->drawn_count * sizeof *ids);
        memcpy(logprobs, d->logprobs, (size_t)d->drawn_count * sizeof *logprobs);
    }
    return LORE_OK;
}

lore_status lore_decoder_step(lore_decoder *d, const lore_step *step, int32_t *ids, float *logprobs,
                              float *logits, lore_error *err)
{
    lore_status status = run_step(d, step, logits, err);
    return status == LORE_OK ? lore_decoder_collect(d, ids, logprobs, err) : status;
}

/* ---- facts ---- */

const lore_decoder_info *lore_decoder_get_info(const lore_decoder *decoder)
{
    return &decoder->info;
}

const lore_tokenizer *lore_decoder_tokenizer(const lore_decoder *decoder)
{
    return decoder->tokenizer;
}
