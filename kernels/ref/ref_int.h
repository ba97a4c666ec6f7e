/* Inside ref only: the ops of each file, gathered into one table by ref_backend.c. */
#ifndef LORE_KERNELS_REF_INT_H
#define LORE_KERNELS_REF_INT_H

#include "kernels/backend_int.h"

/* A packed weight of ref is the stacked matrix, dequantised to f32, row-major. */
typedef struct lore_ref_weight {
    lore_weight base;
    float *values; /* [rows, cols] */
} lore_ref_weight;

lore_status lore_ref_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                 lore_weight_use use, lore_weight **weight, lore_error *err);
void lore_ref_weight_free(lore_weight *weight);

/* Any activation of ops.h. */
double lore_ref_activate(double x, lore_activation activation);

void lore_ref_embed(lore_queue *queue, lore_view out, const lore_weight *table, const int32_t *ids,
                    const int32_t *drawn, float scale, bool is_accumulating);
void lore_ref_matmul(lore_queue *queue, lore_view out, lore_view x, const lore_weight *w,
                     lore_epilogue epilogue);

void lore_ref_rope_append(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                          const lore_pages *pages, const lore_batch *batch);
void lore_ref_attend_paged(lore_queue *queue, lore_view out, lore_view queries,
                           const lore_pages *pages, const lore_batch *batch,
                           const lore_attention *attention);
void lore_ref_attend_packed(lore_queue *queue, lore_view out, lore_view qkv, int32_t heads,
                            int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                            int32_t rows_max, bool is_causal, const lore_attention *attention);
void lore_ref_rope_packed(lore_queue *queue, lore_view qkv, const lore_rope *rope, int32_t kv_heads,
                          int32_t head_dim, int32_t sequences, const int32_t *row_start);

void lore_ref_rmsnorm(lore_queue *queue, lore_view out, lore_view x, const float *w, float eps);
void lore_ref_layernorm(lore_queue *queue, lore_view out, lore_view x, const float *w,
                        const float *b, float eps);
void lore_ref_glu(lore_queue *queue, lore_view out, lore_view gate_up, lore_activation activation);
void lore_ref_add(lore_queue *queue, lore_view out, lore_view x);
void lore_ref_softcap(lore_queue *queue, lore_view x, float cap);
void lore_ref_pool(lore_queue *queue, lore_view out, lore_view x, const int32_t *row_start,
                   lore_pooling pooling, bool is_normalised);
void lore_ref_gather(lore_queue *queue, lore_view out, lore_view x, const int32_t *rows);
void lore_ref_tops(lore_queue *, lore_likely *tops, lore_view logits, const lore_sample *samples);
void lore_ref_sample(lore_queue *queue, int32_t *ids, float *logprobs, lore_view logits,
                     const lore_sample *samples, lore_drawing widest);
void lore_ref_scan(lore_queue *queue, float *scores, const int8_t *query, float query_scale,
                   const int8_t *vectors, const float *scales, int64_t count, int32_t dim);

#endif
