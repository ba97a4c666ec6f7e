/* Rotation, key/value pages and attention of ref: one query against one key at a time, softmax over
 * the whole row.
 *
 * Sources: rotary embedding, Su et al. 2021 (half-split layout: pairs i and i + dim/2); query/key
 * norm as in Qwen3; softcap as in Gemma 2; windows as in Mistral and ModernBERT. */
#include "kernels/ref/ref_int.h"

#include <math.h>

/* Index of the first element of (position, kv head) in a layer's pages [p, g, t, e]. */
static int64_t page_offset(const lore_pages *pages, const lore_batch *batch, int32_t sequence,
                           int32_t position, int32_t kv_head)
{
    const int32_t slot = batch->page_start[sequence] + position / pages->page_tokens;
    LORE_ASSERT(slot < batch->page_start[sequence + 1]);
    const int64_t page = batch->pages[slot];
    LORE_ASSERT(page >= 0 && page < pages->page_count);
    const int64_t token = position % pages->page_tokens;
    return ((page * pages->kv_heads + kv_head) * pages->page_tokens + token) * pages->head_dim;
}

static void page_write(void *memory, lore_dtype dtype, int64_t index, float value)
{
    if (dtype == LORE_F32) {
        ((float *)memory)[index] = value;
    } else {
        ((uint16_t *)memory)[index] = lore_f32_to_bf16(value);
    }
}

static float page_read(const void *memory, lore_dtype dtype, int64_t index)
{
    return dtype == LORE_F32 ? ((const float *)memory)[index]
                             : lore_bf16_to_f32(((const uint16_t *)memory)[index]);
}

/* Norm (where w is given) and rotate one head in place: its first rope->dim elements. */
static void rotate(float *head, int32_t head_dim, const float *w, const lore_rope *rope,
                   int32_t position)
{
    LORE_ASSERT(position < rope->positions_max);
    const int32_t half = rope->dim / 2;
    const float *cosine = rope->cosine + (int64_t)position * half;
    const float *sine = rope->sine + (int64_t)position * half;
    if (w != NULL) {
        double sum = 0.0;
        for (int32_t i = 0; i < head_dim; i++) {
            sum += (double)head[i] * (double)head[i];
        }
        const double inverse = 1.0 / sqrt(sum / head_dim + (double)rope->eps);
        for (int32_t i = 0; i < head_dim; i++) {
            head[i] = (float)((double)head[i] * inverse * (double)w[i]);
        }
    }
    for (int32_t i = 0; i < half; i++) {
        const double a = (double)head[i], b = (double)head[i + half];
        head[i] = (float)(a * (double)cosine[i] - b * (double)sine[i]);
        head[i + half] = (float)(b * (double)cosine[i] + a * (double)sine[i]);
    }
}

/* Queries, then keys, of one row of [.., (h + 2g) e]. */
static void rotate_row(float *row, const lore_rope *rope, int32_t kv_heads, int32_t head_dim,
                       int32_t position)
{
    for (int32_t j = 0; j < rope->heads + kv_heads; j++) {
        const float *w = j < rope->heads ? rope->q_norm : rope->k_norm;
        rotate(row + (int64_t)j * head_dim, head_dim, w, rope, position);
    }
}

static void append_row(const float *row, const lore_rope *rope, const lore_pages *pages,
                       const lore_batch *batch, int32_t sequence, int32_t position)
{
    const int32_t head_dim = pages->head_dim;
    for (int32_t j = 0; j < pages->kv_heads; j++) {
        const float *key = row + (rope->heads + j) * head_dim;
        const float *value = row + (rope->heads + pages->kv_heads + j) * head_dim;
        const int64_t to = page_offset(pages, batch, sequence, position, j);
        for (int32_t i = 0; i < head_dim; i++) {
            page_write(pages->keys, pages->dtype, to + i, key[i]);
            page_write(pages->values, pages->dtype, to + i, value[i]);
        }
    }
}

void lore_ref_rope_append(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                          const lore_pages *pages, const lore_batch *batch)
{
    (void)queue;
    LORE_ASSERT(pages->dtype == LORE_F32 || pages->dtype == LORE_BF16);
    for (int32_t s = 0; s < batch->sequences; s++) {
        for (int32_t r = batch->row_start[s]; r < batch->row_start[s + 1]; r++) {
            float *row = qkv.data + r * qkv.stride;
            const int32_t position = batch->past[s] + r - batch->row_start[s];
            const int32_t start = rope->starts != NULL ? rope->starts[s] : 0;
            rotate_row(row, rope, pages->kv_heads, pages->head_dim, start + position);
            append_row(row, rope, pages, batch, s, position);
        }
    }
}

void lore_ref_rope_packed(lore_queue *queue, lore_view qkv, const lore_rope *rope, int32_t kv_heads,
                          int32_t head_dim, int32_t sequences, const int32_t *row_start)
{
    (void)queue;
    for (int32_t s = 0; s < sequences; s++) {
        for (int32_t r = row_start[s]; r < row_start[s + 1]; r++) {
            rotate_row(qkv.data + r * qkv.stride, rope, kv_heads, head_dim, r - row_start[s]);
        }
    }
}

/* Turn count scores into probabilities. */
static void softmax(float *scores, int32_t count)
{
    float top = scores[0];
    for (int32_t i = 1; i < count; i++) {
        top = scores[i] > top ? scores[i] : top;
    }
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        scores[i] = expf(scores[i] - top);
        sum += (double)scores[i];
    }
    for (int32_t i = 0; i < count; i++) {
        scores[i] = (float)((double)scores[i] / sum);
    }
}

static float score(double dot, const lore_attention *attention)
{
    const double scaled = dot * (double)attention->scale, cap = (double)attention->softcap;
    return (float)(cap > 0.0 ? cap * tanh(scaled / cap) : scaled);
}

/* The first position that a row may see. */
static int32_t first_seen(int32_t position, bool is_causal, const lore_attention *attention)
{
    const int32_t behind = attention->window - (is_causal ? 1 : 0);
    return attention->window == 0 || position < behind ? 0 : position - behind;
}

/* One query head at `position`. */
static void attend_paged_row(float *out, const float *query, const lore_pages *pages,
                             const lore_batch *batch, int32_t sequence, int32_t position,
                             int32_t kv_head, const lore_attention *attention, float *scores)
{
    const int32_t head_dim = pages->head_dim;
    const int32_t first = first_seen(position, true, attention);
    for (int32_t t = first; t <= position; t++) {
        const int64_t key = page_offset(pages, batch, sequence, t, kv_head);
        double sum = 0.0;
        for (int32_t i = 0; i < head_dim; i++) {
            sum += (double)query[i] * (double)page_read(pages->keys, pages->dtype, key + i);
        }
        scores[t - first] = score(sum, attention);
    }
    softmax(scores, position - first + 1);
    for (int32_t i = 0; i < head_dim; i++) {
        double sum = 0.0;
        for (int32_t t = first; t <= position; t++) {
            const int64_t value = page_offset(pages, batch, sequence, t, kv_head) + i;
            sum +=
                (double)scores[t - first] * (double)page_read(pages->values, pages->dtype, value);
        }
        out[i] = (float)sum;
    }
}

void lore_ref_attend_paged(lore_queue *queue, lore_view out, lore_view queries,
                           const lore_pages *pages, const lore_batch *batch,
                           const lore_attention *attention)
{
    const int32_t heads = out.cols / pages->head_dim;
    const int32_t group = heads / pages->kv_heads;
    float *scores = lore_host_scratch(queue, ((size_t)batch->context_max + 1) * sizeof *scores);
    if (scores == NULL) {
        return;
    }
    for (int32_t s = 0; s < batch->sequences; s++) {
        for (int32_t r = batch->row_start[s]; r < batch->row_start[s + 1]; r++) {
            const int32_t position = batch->past[s] + r - batch->row_start[s];
            LORE_ASSERT(position < batch->context_max);
            for (int32_t j = 0; j < heads; j++) {
                attend_paged_row(out.data + r * out.stride + j * pages->head_dim,
                                 queries.data + r * queries.stride + j * pages->head_dim, pages,
                                 batch, s, position, j / group, attention, scores);
            }
        }
    }
}

/* One query row of one head against `count` rows of the same sequence. keys and values point at
 * that head's columns of the first of them. */
static void attend_packed_row(float *out, const float *query, const float *keys,
                              const float *values, int64_t stride, int32_t head_dim, int32_t count,
                              const lore_attention *attention, float *scores)
{
    for (int32_t t = 0; t < count; t++) {
        double sum = 0.0;
        for (int32_t i = 0; i < head_dim; i++) {
            sum += (double)query[i] * (double)keys[t * stride + i];
        }
        scores[t] = score(sum, attention);
    }
    softmax(scores, count);
    for (int32_t i = 0; i < head_dim; i++) {
        double sum = 0.0;
        for (int32_t t = 0; t < count; t++) {
            sum += (double)scores[t] * (double)values[t * stride + i];
        }
        out[i] = (float)sum;
    }
}

void lore_ref_attend_packed(lore_queue *queue, lore_view out, lore_view qkv, int32_t heads,
                            int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                            int32_t rows_max, bool is_causal, const lore_attention *attention)
{
    const int32_t head_dim = out.cols / heads, window = attention->window;
    float *scores = lore_host_scratch(queue, ((size_t)rows_max + 1) * sizeof *scores);
    if (scores == NULL) {
        return;
    }
    for (int32_t s = 0; s < sequences; s++) {
        LORE_ASSERT(row_start[s + 1] - row_start[s] <= rows_max);
        for (int32_t r = row_start[s]; r < row_start[s + 1]; r++) {
            const int32_t first = row_start[s] + first_seen(r - row_start[s], is_causal, attention);
            const int32_t last_row = row_start[s + 1] - 1;
            const int32_t last = is_causal                               ? r
                                 : window == 0 || last_row - r <= window ? last_row
                                                                         : r + window;
            const float *row = qkv.data + first * qkv.stride;
            for (int32_t j = 0; j < heads; j++) {
                const int32_t at = j * head_dim, kv_at = j / (heads / kv_heads) * head_dim;
                attend_packed_row(out.data + r * out.stride + at, qkv.data + r * qkv.stride + at,
                                  row + out.cols + kv_at,
                                  row + out.cols + (int64_t)kv_heads * head_dim + kv_at, qkv.stride,
                                  head_dim, last - first + 1, attention, scores);
            }
        }
    }
}
