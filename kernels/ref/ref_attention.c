/* Rotation, key/value pages and attention of ref: one query against one key at a time, softmax over
 * the whole row.
 *
 * Sources: rotary embedding, Su et al. 2021 (half-split layout: pairs i and i + e/2); query/key
 * norm as in Qwen3. */
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

/* Norm (where w is given) and rotate one head in place. */
static void rotate(float *head, int32_t head_dim, const float *w, float eps, const float *cosine,
                   const float *sine)
{
    double inverse = 1.0;
    if (w != NULL) {
        double sum = 0.0;
        for (int32_t i = 0; i < head_dim; i++) {
            sum += (double)head[i] * (double)head[i];
        }
        inverse = 1.0 / sqrt(sum / head_dim + (double)eps);
    }
    const int32_t half = head_dim / 2;
    for (int32_t i = 0; i < half; i++) {
        const double a = (double)head[i] * inverse * (w != NULL ? (double)w[i] : 1.0);
        const double b = (double)head[i + half] * inverse * (w != NULL ? (double)w[i + half] : 1.0);
        head[i] = (float)(a * (double)cosine[i] - b * (double)sine[i]);
        head[i + half] = (float)(b * (double)cosine[i] + a * (double)sine[i]);
    }
}

static void append_row(float *row, const lore_rope *rope, const lore_pages *pages,
                       const lore_batch *batch, int32_t sequence, int32_t position)
{
    const int32_t head_dim = pages->head_dim;
    LORE_ASSERT(position < rope->positions_max);
    const float *cosine = rope->cosine + (int64_t)position * (head_dim / 2);
    const float *sine = rope->sine + (int64_t)position * (head_dim / 2);
    for (int32_t j = 0; j < rope->heads; j++) {
        rotate(row + j * head_dim, head_dim, rope->q_norm, rope->eps, cosine, sine);
    }
    for (int32_t j = 0; j < pages->kv_heads; j++) {
        float *key = row + (rope->heads + j) * head_dim;
        const float *value = row + (rope->heads + pages->kv_heads + j) * head_dim;
        rotate(key, head_dim, rope->k_norm, rope->eps, cosine, sine);
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
            append_row(qkv.data + r * qkv.stride, rope, pages, batch, s,
                       batch->past[s] + r - batch->row_start[s]);
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

static void attend_paged_row(float *out, const float *query, const lore_pages *pages,
                             const lore_batch *batch, int32_t sequence, int32_t count,
                             int32_t kv_head, float scale, float *scores)
{
    const int32_t head_dim = pages->head_dim;
    for (int32_t t = 0; t < count; t++) {
        const int64_t key = page_offset(pages, batch, sequence, t, kv_head);
        double sum = 0.0;
        for (int32_t i = 0; i < head_dim; i++) {
            sum += (double)query[i] * (double)page_read(pages->keys, pages->dtype, key + i);
        }
        scores[t] = (float)(sum * (double)scale);
    }
    softmax(scores, count);
    for (int32_t i = 0; i < head_dim; i++) {
        double sum = 0.0;
        for (int32_t t = 0; t < count; t++) {
            const int64_t value = page_offset(pages, batch, sequence, t, kv_head) + i;
            sum += (double)scores[t] * (double)page_read(pages->values, pages->dtype, value);
        }
        out[i] = (float)sum;
    }
}

void lore_ref_attend_paged(lore_queue *queue, lore_view out, lore_view queries,
                           const lore_pages *pages, const lore_batch *batch, float scale)
{
    const int32_t heads = out.cols / pages->head_dim;
    const int32_t group = heads / pages->kv_heads;
    float *scores = lore_host_scratch(queue, ((size_t)batch->context_max + 1) * sizeof *scores);
    if (scores == NULL) {
        return;
    }
    for (int32_t s = 0; s < batch->sequences; s++) {
        for (int32_t r = batch->row_start[s]; r < batch->row_start[s + 1]; r++) {
            const int32_t count = batch->past[s] + r - batch->row_start[s] + 1;
            LORE_ASSERT(count <= batch->context_max);
            for (int32_t j = 0; j < heads; j++) {
                attend_paged_row(out.data + r * out.stride + j * pages->head_dim,
                                 queries.data + r * queries.stride + j * pages->head_dim, pages,
                                 batch, s, count, j / group, scale, scores);
            }
        }
    }
}

/* One query row of one head against the rows first .. first+count-1 of the same sequence. keys and
 * values point at that head's columns of row `first`. */
static void attend_packed_row(float *out, const float *query, const float *keys,
                              const float *values, int64_t stride, int32_t head_dim, int32_t count,
                              float scale, float *scores)
{
    for (int32_t t = 0; t < count; t++) {
        double sum = 0.0;
        for (int32_t i = 0; i < head_dim; i++) {
            sum += (double)query[i] * (double)keys[t * stride + i];
        }
        scores[t] = (float)(sum * (double)scale);
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
                            int32_t sequences, const int32_t *row_start, int32_t rows_max,
                            float scale)
{
    const int32_t head_dim = out.cols / heads;
    float *scores = lore_host_scratch(queue, ((size_t)rows_max + 1) * sizeof *scores);
    if (scores == NULL) {
        return;
    }
    for (int32_t s = 0; s < sequences; s++) {
        const int32_t count = row_start[s + 1] - row_start[s];
        LORE_ASSERT(count <= rows_max);
        const float *first = qkv.data + row_start[s] * qkv.stride;
        for (int32_t r = row_start[s]; r < row_start[s + 1]; r++) {
            for (int32_t j = 0; j < heads; j++) {
                const int32_t at = j * head_dim;
                attend_packed_row(out.data + r * out.stride + at, qkv.data + r * qkv.stride + at,
                                  first + out.cols + at, first + 2 * out.cols + at, qkv.stride,
                                  head_dim, count, scale, scores);
            }
        }
    }
}
