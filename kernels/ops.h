/* The contract of every operation: shapes, formula, aliasing, failure. Numbers only, no idea of
 * models.
 *
 * A backend is one table of these functions. The forward pass calls them in order; they return
 * nothing and record their first failure in the queue, which lore_queue_sync returns. Callers use
 * the lore_op_* inlines below, which check the contract (a broken contract is our bug: an assert).
 * `ref` decides disputes: plain loops in f32.
 *
 * Letters: n rows (tokens of all sequences of the batch, packed), d model width, h query heads, g
 * key/value heads, e head size, f feed-forward width, o output width, s sequences, v vocabulary, p
 * pages, t tokens of a page. Activations are f32, or bf16 where the backend asks for it, row-major,
 * stride in elements. All pointers are memory of the queue's backend (host memory on ref and cpu),
 * except where a comment says host.
 * Accumulation is f32 or better. An empty batch (0 rows) is legal everywhere. Thread: a queue
 * belongs to one thread. */
#ifndef LORE_KERNELS_OPS_H
#define LORE_KERNELS_OPS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lore_dtype {
    LORE_F32 = 0,
    LORE_F16,
    LORE_BF16,
    LORE_I8,
    LORE_I32,
    LORE_I4 /* two to a byte; lore_matrix in backend.h says how */
} lore_dtype;
size_t lore_dtype_size(lore_dtype dtype); /* bytes of an element; not of I4 */
const char *lore_dtype_name(lore_dtype dtype);

/* A matrix of activations: element (r, c) is data[r * stride + c]. stride >= cols. What passes
 * between two ops (out of norms, glu, attention, gather and of products that replace; qkv; x of a
 * product) may be bf16: then data points at uint16_t, and only where lore_backend_activation_dtype
 * says bf16. What ops add to, tables give and logits are is f32. */
typedef struct lore_view {
    float *data;
    int32_t rows, cols;
    int64_t stride;
    lore_dtype dtype; /* LORE_F32 (0) or LORE_BF16 */
} lore_view;

static inline lore_view lore_view_of(float *data, int32_t rows, int32_t cols)
{
    lore_view view = {data, rows, cols, cols, LORE_F32};
    return view;
}

static inline lore_view lore_view_as(lore_dtype dtype, void *data, int32_t rows, int32_t cols)
{
    lore_view view = {(float *)data, rows, cols, cols, dtype};
    return view;
}

/* The columns first .. first + cols - 1 of a view. */
static inline lore_view lore_view_columns(lore_view view, int32_t first, int32_t cols)
{
    LORE_ASSERT(first >= 0 && first + cols <= view.cols);
    view.data = (float *)(void *)((char *)view.data + (size_t)first * lore_dtype_size(view.dtype));
    view.cols = cols;
    return view;
}

struct lore_backend;
/* What a backend wants views between ops to hold: bf16 on cuda in bf16 precision, else f32. It
 * takes f32 too. */
lore_dtype lore_backend_activation_dtype(const struct lore_backend *backend);

/* A packed weight matrix [o, d] (or a table for lore_op_embed); made by lore_weight_pack in
 * backend.h. */
typedef struct lore_weight lore_weight;
typedef struct lore_queue lore_queue;

/* NaN gives NaN and infinity infinity (tanh: 1); what -infinity gives is open, but for tanh: -1. */
typedef enum lore_activation {
    LORE_ACT_NONE = 0,
    LORE_ACT_GELU,      /* exact: x/2 (1 + erf(x/sqrt 2)) */
    LORE_ACT_GELU_TANH, /* x/2 (1 + tanh(sqrt(2/pi) (x + .044715 x^3))) */
    LORE_ACT_SILU,      /* x / (1 + exp -x) */
    LORE_ACT_TANH
} lore_activation;

typedef struct lore_lora lore_lora; /* lora.h */

typedef struct lore_epilogue {
    const float *bias;          /* [o] or NULL */
    lore_activation activation; /* after the bias */
    bool is_accumulating;  /* add the result to what out holds (residual) instead of replacing it */
    const lore_lora *lora; /* what adapters add before the activation; NULL: nothing */
} lore_epilogue;

/* What surrounds a product in lore_op_matmul_fused. */
typedef struct lore_fusion {
    const float *norm; /* [d] weights of an RMS norm of x */
    float eps;
    lore_view normed;  /* scratch, [n, d] */
    bool is_gated;     /* w is [2f, d], gate first: what comes out are act(gate) * up */
    lore_view gate_up; /* scratch where is_gated, [n, 2f] */
} lore_fusion;

/* Which rows belong to which sequence, and where its keys and values live. One per step, read by
 * every layer. Sequence i owns rows row_start[i] .. row_start[i+1]-1 of the batch; past[i] of its
 * tokens are already in its pages, so its row r has position past[i] + r - row_start[i]. Its page
 * list is pages[page_start[i] .. page_start[i+1]-1], in order; the list holds room for past + new
 * rows. All arrays int32. On a device they are uploaded behind the ops of the steps that wrote the
 * past tokens: kernels may look at both before the op in front of theirs has ended. */
typedef struct lore_batch {
    int32_t sequences, rows;
    const int32_t *row_start;  /* [s + 1], row_start[0] = 0, row_start[s] = rows */
    const int32_t *past;       /* [s] */
    const int32_t *page_start; /* [s + 1] */
    const int32_t *pages;      /* [page_start[s]] */
    int32_t rows_max;    /* largest row count of one sequence (host knowledge, for launch sizes) */
    int32_t context_max; /* largest past + rows of one sequence */
} lore_batch;

/* Key and value pages of one layer: [p, g, t, e] each, dtype f32 or bf16. */
typedef struct lore_pages {
    void *keys, *values;
    lore_dtype dtype;
    int32_t page_count, page_tokens, kv_heads, head_dim;
} lore_pages;

/* Rotary embedding. The first `dim` elements of a head are rotated, in pairs (i, i + dim/2); the
 * others pass through. What scales the angles or the result (linear, yarn) is in the tables. */
typedef struct lore_rope {
    const float *cosine, *sine; /* [positions_max, dim / 2] */
    int32_t positions_max;
    const int32_t *starts; /* [s] of a paged batch: the row that is position 0 of the sequence,
                              where tables stand behind one another (longrope); NULL: 0 */
    int32_t heads;         /* h */
    int32_t dim;           /* even, 2 .. e */
    const float *q_norm; /* [e] or NULL: RMS norm of each query head before the rotation (Qwen3) */
    const float *k_norm; /* [e] or NULL */
    float eps;
} lore_rope;

/* Scores of an attention: cap tanh(scale q.k / cap), or scale q.k where softcap is 0; then those
 * outside of the window are left out. window 0: none is; otherwise a row at position p sees
 * positions p - window + 1 .. p (causal), or p - window .. p + window (bidirectional). */
typedef struct lore_attention {
    float scale;
    float softcap;
    int32_t window;
} lore_attention;

typedef enum lore_pooling { LORE_POOL_MEAN = 0, LORE_POOL_CLS, LORE_POOL_LAST } lore_pooling;

/* One layer of a decoder, for lore_op_layers. */
typedef struct lore_layer {
    const lore_weight *qkv, *out, *gate_up, *down;
    const float *attention_norm, *ffn_norm; /* [d] */
    const float *qkv_bias;                  /* or NULL */
    const float *q_norm, *k_norm;           /* of heads, or NULL */
    lore_attention attention;
    lore_pages pages;
} lore_layer;

/* All of them, and what they share. */
typedef struct lore_layers {
    const lore_layer *layers;
    int32_t count;
    lore_rope rope; /* its norms are those of each layer */
    float eps;
    lore_activation activation;
} lore_layers;

/* How to pick one token from one row of logits. temperature 0: the largest logit, the lowest id on
 * ties. */
typedef struct lore_sample {
    float temperature;
    float top_p;   /* 1: off */
    int32_t top_k; /* 0: off */
    float min_p;   /* 0: off; at most 1 */
    uint64_t seed;
    int32_t position; /* of the token being drawn: with the seed it fixes the random number */
    int32_t tops;     /* most probable tokens that lore_op_tops gives: 0..LORE_TOPS_MAX */
} lore_sample;

/* What a row needs of its logits to draw from them, less before more. */
typedef enum lore_drawing {
    LORE_DRAW_LARGEST = 0, /* temperature 0 */
    LORE_DRAW_ANY,         /* no top_k, no top_p */
    LORE_DRAW_CUT
} lore_drawing;

/* The most that any of some rows needs. samples is host memory. */
static inline lore_drawing lore_drawing_of(const lore_sample *samples, int32_t rows)
{
    lore_drawing widest = LORE_DRAW_LARGEST;
    for (int32_t r = 0; r < rows; r++) {
        if (!(samples[r].temperature > 0.0f)) {
            continue;
        }
        if (samples[r].top_p < 1.0f || samples[r].top_k > 0) {
            return LORE_DRAW_CUT;
        }
        widest = LORE_DRAW_ANY;
    }
    return widest;
}

enum { LORE_TOPS_MAX = 20 };
typedef struct lore_likely {
    int32_t id;
    float logprob;
} lore_likely;

typedef struct lore_bias {
    int32_t id; /* in the vocabulary */
    float bias;
} lore_bias;

/* What is done to one row of logits before a token is drawn from it, in this order, which is that
 * of transformers and vLLM:
 *
 * - a bias is added to the logit of its token;
 * - the logit of every token of `ids` is divided by `repetition` where it is positive and
 *   multiplied by it where it is not, once however often the token is there (Keskar et al. 2019,
 *   section 4.1);
 * - of the tokens from ids[answer_start] on, `frequency` is taken off the logit each time that the
 *   token is there, and `presence` once (as the OpenAI API has it). */
typedef struct lore_penalty {
    float repetition;          /* above 0; 1: none */
    float presence, frequency; /* 0: none */
    const int32_t *ids;        /* [count] in the vocabulary: a prompt, then its answer so far */
    int32_t count;
    int32_t answer_start;    /* 0..count */
    const lore_bias *biases; /* [bias_count], each of another token */
    int32_t bias_count;
} lore_penalty;

typedef struct lore_search lore_search; /* search.h */

typedef struct lore_ops {
    const char *name;
    void (*embed)(lore_queue *, lore_view out, const lore_weight *table, const int32_t *ids,
                  const int32_t *drawn, float scale, bool is_accumulating);
    void (*rmsnorm)(lore_queue *, lore_view out, lore_view x, const float *w, float eps);
    void (*layernorm)(lore_queue *, lore_view out, lore_view x, const float *w, const float *b,
                      float eps);
    void (*matmul)(lore_queue *, lore_view out, lore_view x, const lore_weight *w,
                   lore_epilogue epilogue);
    void (*glu)(lore_queue *, lore_view out, lore_view gate_up, lore_activation);
    void (*add)(lore_queue *, lore_view out, lore_view x);
    void (*softcap)(lore_queue *, lore_view x, float cap);
    void (*rope_append)(lore_queue *, lore_view qkv, const lore_rope *, const lore_pages *,
                        const lore_batch *);
    void (*rope_packed)(lore_queue *, lore_view qkv, const lore_rope *, int32_t kv_heads,
                        int32_t head_dim, int32_t sequences, const int32_t *row_start);
    void (*attend_paged)(lore_queue *, lore_view out, lore_view q, const lore_pages *,
                         const lore_batch *, const lore_attention *);
    void (*attend_packed)(lore_queue *, lore_view out, lore_view qkv, int32_t heads,
                          int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                          int32_t rows_max, bool is_causal, const lore_attention *);
    void (*pool)(lore_queue *, lore_view out, lore_view x, const int32_t *row_start, lore_pooling,
                 bool is_normalised);
    void (*gather)(lore_queue *, lore_view out, lore_view x, const int32_t *rows);
    void (*penalise)(lore_queue *, lore_view logits, const lore_penalty *penalties);
    void (*tops)(lore_queue *, lore_likely *tops, lore_view logits, const lore_sample *samples);
    void (*sample)(lore_queue *, int32_t *ids, float *logprobs, lore_view logits,
                   const lore_sample *samples, lore_drawing widest);
    void (*scan)(lore_queue *, float *scores, const int8_t *query, float query_scale,
                 const int8_t *vectors, const float *scales, int64_t count, int32_t dim);
    void (*search)(lore_queue *, int32_t *rows, float *scores, int32_t hits, const lore_search *);
    /* NULL, or false where this shape gains nothing by it: lore_op_matmul_fused then composes. */
    bool (*matmul_fused)(lore_queue *, lore_view out, lore_view x, const lore_weight *w,
                         lore_epilogue epilogue, const lore_fusion *);
    /* NULL, or false where these layers or rows gain nothing by it. */
    bool (*layers)(lore_queue *, lore_view x, const lore_layers *, const lore_batch *);
    /* NULL: lore_op_add_layernorm composes. */
    void (*add_layernorm)(lore_queue *, lore_view x, lore_view rounded, lore_view y, const float *w,
                          const float *b, float eps);
} lore_ops;

/* Every queue starts with its table and the backend that opened it. */
struct lore_queue {
    const lore_ops *ops;
    struct lore_backend *backend;
    lore_error error; /* first failure since the last sync; status LORE_OK while all is well */
};

/* Views between ops, and those that are f32 everywhere. ref and cpu never see another one. */
static inline void lore_op_check(const lore_queue *q, lore_view view)
{
    LORE_ASSERT(view.stride >= view.cols);
    LORE_ASSERT(view.dtype == LORE_F32 || view.dtype == lore_backend_activation_dtype(q->backend));
}

static inline void lore_op_check_f32(lore_view view)
{
    LORE_ASSERT(view.stride >= view.cols);
    LORE_ASSERT(view.dtype == LORE_F32);
}

/* out[r, :] (+)= scale * table[ids[r], :]. ids[r] in [0, table rows): the caller has checked. */
static inline void lore_op_embed(lore_queue *q, lore_view out, const lore_weight *table,
                                 const int32_t *ids, float scale, bool is_accumulating)
{
    lore_op_check_f32(out);
    q->ops->embed(q, out, table, ids, NULL, scale, is_accumulating);
}

/* As lore_op_embed, without adding; an id below 0 stands for drawn[-1 - id]: a token that is fed on
 * before the host has seen it. */
static inline void lore_op_embed_drawn(lore_queue *q, lore_view out, const lore_weight *table,
                                       const int32_t *ids, const int32_t *drawn, float scale)
{
    lore_op_check_f32(out);
    q->ops->embed(q, out, table, ids, drawn, scale, false);
}

/* out[r, c] = x[r, c] / sqrt(mean_c x[r, c]^2 + eps) * w[c]. out may be x. (Zhang, Sennrich 2019)
 */
static inline void lore_op_rmsnorm(lore_queue *q, lore_view out, lore_view x, const float *w,
                                   float eps)
{
    LORE_ASSERT(out.rows == x.rows);
    LORE_ASSERT(out.cols == x.cols);
    lore_op_check(q, x);
    lore_op_check(q, out);
    q->ops->rmsnorm(q, out, x, w, eps);
}

/* out = (x - mean) / sqrt(variance + eps) * w + b, per row, variance over d. b may be NULL: 0. out
 * may be x. (Ba et al. 2016) */
static inline void lore_op_layernorm(lore_queue *q, lore_view out, lore_view x, const float *w,
                                     const float *b, float eps)
{
    LORE_ASSERT(out.rows == x.rows);
    LORE_ASSERT(out.cols == x.cols);
    lore_op_check(q, x);
    lore_op_check(q, out);
    q->ops->layernorm(q, out, x, w, b, eps);
}

/* out[r, o] (+)= act(sum_d x[r, d] w[o, d] + bias[o]). out must not overlap x. The precision is the
 * weight's: f32; bf16 (x rounded to bf16); int8 of weights that came in int8 (x quantised per row,
 * symmetric, scale max|x| / 127); int8 of others (weight and x quantised likewise, but in units of
 * 64 columns, each with a scale of its own; a unit of x whose largest is beyond 6 times the RMS of
 * its row keeps what that rounded away, in 1/254 of a step); I4 beside int8 rows (x in units too,
 * in the order of the weight's columns: the largest of 128, 64 and 32 columns that divides the
 * weight's group, any where that is the whole row, and that cols fill by more than half).
 * Quantised, a row with a NaN or an infinity gives nothing but NaN. A row's result does not depend
 * on the other rows of the batch beyond rounding. Adapters (lora.h) go with no activation: only
 * gated products need both. */
static inline void lore_op_matmul(lore_queue *q, lore_view out, lore_view x, const lore_weight *w,
                                  lore_epilogue epilogue)
{
    LORE_ASSERT(out.rows == x.rows);
    LORE_ASSERT(out.data != x.data || x.rows == 0);
    LORE_ASSERT(!epilogue.is_accumulating || out.dtype == LORE_F32);
    LORE_ASSERT(epilogue.lora == NULL || epilogue.activation == LORE_ACT_NONE);
    lore_op_check(q, x);
    lore_op_check(q, out);
    q->ops->matmul(q, out, x, w, epilogue);
}

/* gate_up is [n, 2f], gate first: out[r, c] = act(gate[r, c]) * up[r, c]. No overlap. (Shazeer
 * 2020) */
static inline void lore_op_glu(lore_queue *q, lore_view out, lore_view gate_up,
                               lore_activation activation)
{
    LORE_ASSERT(out.rows == gate_up.rows);
    LORE_ASSERT(2 * out.cols == gate_up.cols);
    lore_op_check(q, gate_up);
    lore_op_check(q, out);
    q->ops->glu(q, out, gate_up, activation);
}

/* x [n, d] through all layers of a decoder, each
 *
 *   qkv = rmsnorm(x) Wqkv^T + b;  rope_append;  attend_paged;  x += mixed Wout^T
 *   hidden = act(gate) * up of rmsnorm(x) Wgate_up^T;  x += hidden Wdown^T
 *
 * in one kernel, where a backend has one for them: false, and nothing is done, where not. The same
 * numbers as of these ops one after the other, but for roundings between them. */
static inline bool lore_op_layers(lore_queue *q, lore_view x, const lore_layers *layers,
                                  const lore_batch *batch)
{
    LORE_ASSERT(x.rows == batch->rows);
    LORE_ASSERT(batch->context_max <= layers->rope.positions_max);
    lore_op_check(q, x);
    return q->ops->layers != NULL && q->ops->layers(q, x, layers, batch);
}

/* out = rmsnorm(x) w^T, with the epilogue; or, gated, out = act(gate) * up of rmsnorm(x) w^T +
 * bias. That is the norm, the product and the glu one after the other, through the scratch; a
 * backend may do it in one, which rounds the products of x and the norm's weights where the three
 * ops round the normed rows and the sums. x is f32 and overlaps nothing; gated products do not
 * accumulate. */
static inline void lore_op_matmul_fused(lore_queue *q, lore_view out, lore_view x,
                                        const lore_weight *w, lore_epilogue epilogue,
                                        const lore_fusion *fused)
{
    LORE_ASSERT(out.rows == x.rows && fused->normed.cols == x.cols);
    LORE_ASSERT(!epilogue.is_accumulating || (out.dtype == LORE_F32 && !fused->is_gated));
    LORE_ASSERT(!fused->is_gated || fused->gate_up.cols == 2 * out.cols);
    LORE_ASSERT(epilogue.lora == NULL || fused->is_gated || epilogue.activation == LORE_ACT_NONE);
    lore_op_check_f32(x);
    lore_op_check(q, out);
    if (q->ops->matmul_fused != NULL && q->ops->matmul_fused(q, out, x, w, epilogue, fused)) {
        return;
    }
    lore_op_rmsnorm(q, fused->normed, x, fused->norm, fused->eps);
    if (!fused->is_gated) {
        lore_op_matmul(q, out, fused->normed, w, epilogue);
        return;
    }
    const lore_epilogue sums = {epilogue.bias, LORE_ACT_NONE, false, epilogue.lora};
    lore_op_matmul(q, fused->gate_up, fused->normed, w, sums);
    lore_op_glu(q, out, fused->gate_up, epilogue.activation);
}

/* out += x. No overlap. */
static inline void lore_op_add(lore_queue *q, lore_view out, lore_view x)
{
    LORE_ASSERT(out.rows == x.rows);
    LORE_ASSERT(out.cols == x.cols);
    lore_op_check(q, x);
    lore_op_check_f32(out);
    q->ops->add(q, out, x);
}

/* x = layernorm(x + y), and rounded the same in the dtype between ops: what stands between two
 * products of a post-norm encoder, in one pass where the backend has it. Without data: nothing is
 * added, and only x is made. No overlap. */
static inline void lore_op_add_layernorm(lore_queue *q, lore_view x, lore_view rounded, lore_view y,
                                         const float *w, const float *b, float eps)
{
    LORE_ASSERT(y.data == NULL || (y.rows == x.rows && y.cols == x.cols));
    LORE_ASSERT(rounded.data == NULL || (rounded.rows == x.rows && rounded.cols == x.cols));
    lore_op_check_f32(x);
    lore_op_check(q, y);
    lore_op_check(q, rounded);
    if (q->ops->add_layernorm != NULL) {
        q->ops->add_layernorm(q, x, rounded, y, w, b, eps);
        return;
    }
    if (y.data != NULL) {
        lore_op_add(q, x, y);
    }
    if (rounded.data != NULL) {
        lore_op_layernorm(q, rounded, x, w, b, eps);
    }
    lore_op_layernorm(q, x, x, w, b, eps);
}

/* x = cap tanh(x / cap), in place. (Gemma 2) */
static inline void lore_op_softcap(lore_queue *q, lore_view x, float cap)
{
    LORE_ASSERT(cap > 0.0f);
    lore_op_check_f32(x);
    q->ops->softcap(q, x, cap);
}

/* qkv is [n, (h + 2g) e]: query heads, key heads, value heads. Norms (where given) and rotates
 * queries in place, norms and rotates keys, and writes keys and values into the pages of their
 * positions; what the key columns of qkv hold afterwards is undefined. (Su et al. 2021, half-split
 * layout.) Positions are below positions_max: the caller has checked. */
static inline void lore_op_rope_append(lore_queue *q, lore_view qkv, const lore_rope *rope,
                                       const lore_pages *pages, const lore_batch *batch)
{
    LORE_ASSERT(qkv.rows == batch->rows);
    LORE_ASSERT(qkv.cols == (rope->heads + 2 * pages->kv_heads) * pages->head_dim);
    LORE_ASSERT(batch->context_max <= rope->positions_max);
    LORE_ASSERT(rope->dim > 0 && rope->dim % 2 == 0 && rope->dim <= pages->head_dim);
    lore_op_check(q, qkv);
    q->ops->rope_append(q, qkv, rope, pages, batch);
}

/* The same without pages: norms and rotates queries and keys in place. Positions count from 0 in
 * each of s packed sequences; row_start [s + 1]. */
static inline void lore_op_rope_packed(lore_queue *q, lore_view qkv, const lore_rope *rope,
                                       int32_t kv_heads, int32_t head_dim, int32_t sequences,
                                       const int32_t *row_start)
{
    LORE_ASSERT(qkv.cols == (rope->heads + 2 * kv_heads) * head_dim);
    LORE_ASSERT(rope->dim > 0 && rope->dim % 2 == 0 && rope->dim <= head_dim);
    lore_op_check(q, qkv);
    q->ops->rope_packed(q, qkv, rope, kv_heads, head_dim, sequences, row_start);
}

/* Both attentions may round queries, keys, values and probabilities to bf16 where the precision is
 * not f32 (the paged one only over pages of bf16); sums stay f32. A score of NaN or +inf that a row
 * sees makes that row's output NaN; scores of -inf weigh nothing beside a finite one. Values that a
 * row does not see weigh nothing as long as they are finite.
 *
 * Causal attention of each row over the pages of its sequence up to and with its own position
 * (rope_append of the same batch has run). q and out are [n, h e]; q's stride may be that of qkv;
 * query head j reads key/value head j / (h / g). out = softmax(scores) v. Pages that lie outside of
 * the window of all rows are not read. */
static inline void lore_op_attend_paged(lore_queue *q, lore_view out, lore_view queries,
                                        const lore_pages *pages, const lore_batch *batch,
                                        const lore_attention *attention)
{
    LORE_ASSERT(out.rows == batch->rows && queries.rows == batch->rows);
    LORE_ASSERT(out.cols == queries.cols && out.cols % (pages->head_dim * pages->kv_heads) == 0);
    LORE_ASSERT(attention->softcap >= 0.0f && attention->window >= 0);
    lore_op_check(q, queries);
    lore_op_check(q, out);
    q->ops->attend_paged(q, out, queries, pages, batch, attention);
}

/* Attention inside each of s packed sequences, causal or bidirectional. qkv is [n, (h + 2g) e], out
 * [n, h e]; row_start [s + 1]; rows_max is the largest row count of a sequence. */
static inline void lore_op_attend_packed(lore_queue *q, lore_view out, lore_view qkv, int32_t heads,
                                         int32_t kv_heads, int32_t sequences,
                                         const int32_t *row_start, int32_t rows_max, bool is_causal,
                                         const lore_attention *attention)
{
    LORE_ASSERT(out.rows == qkv.rows);
    LORE_ASSERT(heads % kv_heads == 0 && out.cols % heads == 0);
    LORE_ASSERT(qkv.cols == out.cols / heads * (heads + 2 * kv_heads));
    LORE_ASSERT(attention->softcap >= 0.0f && attention->window >= 0);
    lore_op_check(q, qkv);
    lore_op_check(q, out);
    q->ops->attend_packed(q, out, qkv, heads, kv_heads, sequences, row_start, rows_max, is_causal,
                          attention);
}

/* out[i, :] = mean (or first, or last) of the rows of sequence i, then divided by its Euclidean
 * norm (at least 1e-12) where asked. row_start [out.rows + 1]; no sequence is empty. */
static inline void lore_op_pool(lore_queue *q, lore_view out, lore_view x, const int32_t *row_start,
                                lore_pooling pooling, bool is_normalised)
{
    LORE_ASSERT(out.cols == x.cols);
    lore_op_check(q, x);
    lore_op_check_f32(out);
    q->ops->pool(q, out, x, row_start, pooling, is_normalised);
}

/* out[i, :] = x[rows[i], :], of one dtype. No overlap. */
static inline void lore_op_gather(lore_queue *q, lore_view out, lore_view x, const int32_t *rows)
{
    LORE_ASSERT(out.cols == x.cols && out.dtype == x.dtype);
    lore_op_check(q, x);
    lore_op_check(q, out);
    q->ops->gather(q, out, x, rows);
}

/* logits[r, :] is changed as penalties[r] says. penalties, their ids and their biases are host
 * memory, lent until the next sync: texts are long, and most rows have no penalty. */
static inline void lore_op_penalise(lore_queue *q, lore_view logits, const lore_penalty *penalties)
{
    q->ops->penalise(q, logits, penalties);
}

/* tops[r * LORE_TOPS_MAX + i], i below samples[r].tops: the tokens of logits[r, :] with the largest
 * log softmax(logits), the largest first, the lowest id first among equals. NaN logits count as
 * -inf, and may become that. What lies behind samples[r].tops or the vocabulary stays as it is. */
static inline void lore_op_tops(lore_queue *q, lore_likely *tops, lore_view logits,
                                const lore_sample *samples)
{
    LORE_ASSERT(logits.cols > 0);
    q->ops->tops(q, tops, logits, samples);
}

/* ids[r] = a token drawn from logits[r, :] as samples[r] says: divide by temperature, keep the
 * top_k largest, keep the smallest set of largest probabilities that reaches top_p, keep those that
 * have at least min_p times the largest probability, draw (the order of transformers).
 * logprobs[r] = log softmax(logits)[ids[r]] before any of that. NaN logits count as -inf; a row of
 * nothing else gives id 0. logits may be overwritten. A row's token depends on nothing but its
 * logits and its sample. widest: what lore_drawing_of says of the samples, or more; a device, which
 * has the samples to itself, is spared the passes over the logits that no row needs. */
static inline void lore_op_sample(lore_queue *q, int32_t *ids, float *logprobs, lore_view logits,
                                  const lore_sample *samples, lore_drawing widest)
{
    LORE_ASSERT(logits.cols > 0);
    q->ops->sample(q, ids, logprobs, logits, samples, widest);
}

#ifdef __cplusplus
}
#endif
#endif
