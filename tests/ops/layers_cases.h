/* Decoders of random weights for ops_layers_gpu.c: on the host, on a side, and run op by op as
 * models/decoder.c does; and how far two results are from each other.
 *
 * What would hide a mistake is made loud. Pages that nobody owns, or that lie before the window,
 * are NaN, tokens behind the last one huge: one read too many shows. Values are scaled so that the
 * mean over a long text is of order one, and those at edges (the first one seen, the last, around
 * the borders of pages and tiles) so that each of them is a good part of it: one read too few
 * shows. */
#ifndef LORE_TESTS_LAYERS_CASES_H
#define LORE_TESTS_LAYERS_CASES_H

#include "tests/ops/ops_subject.h"

enum { SEQUENCES_MOST = 5, LAYERS_MOST = 81, NOISE = 1 << 18, GUARD = 256, X_GAP = 8 };
enum { QKV, OUT, GATE_UP, DOWN, PRODUCTS };

typedef struct shape {
    const char *name;
    int32_t heads, kv_heads, head_dim, width, ffn, layers;
    int32_t sequences, past[SEQUENCES_MOST];
    int32_t page_tokens, window, rope_dim; /* rope_dim 0: head_dim */
    int32_t rows_each;                     /* 0: one */
    lore_activation activation;
    bool has_bias, has_norms, has_starts;
    bool is_shared; /* one set of weights in all layers */
} shape;

typedef struct model_layer {
    uint16_t *weights[PRODUCTS];
    float *norms;    /* [2d] + [2e] + [(h + 2g) e]: of rows, of heads, the bias */
    uint16_t *pages; /* all keys, then all values */
} model_layer;

typedef struct model {
    shape s;
    model_layer layers[LAYERS_MOST];
    float *x;      /* [n, d] */
    float *tables; /* cosines, then sines, [positions, rope_dim / 2] each */
    int32_t rows, positions, context_max, page_count;
    int32_t *lists;            /* row_start, past, page_start, starts, pages */
    size_t list_count, cached; /* cached: keys of a layer */
    uint8_t *is_new;           /* [page_count * page_tokens]: this step's tokens */
} model;

/* ---- random numbers by the hundred million ---- */
static float noise[NOISE];

static float *noise_new(size_t count, float centre, float scale)
{
    float *values = host_new(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = centre + scale * noise[(uint32_t)random_below(NOISE)];
    }
    return values;
}

/* Each row another stretch of the same noise, which no input of theirs can tell. */
static uint16_t *noise_matrix(int32_t rows, int32_t cols, float scale)
{
    static uint16_t rounded[NOISE];
    uint16_t *values = host_new((size_t)rows * (size_t)cols * sizeof *values);
    for (int32_t i = 0; i < NOISE; i++) {
        rounded[i] = lore_f32_to_bf16(scale * noise[i]);
    }
    for (int64_t r = 0; r < rows; r++) {
        memcpy(values + r * cols, rounded + random_below(NOISE - cols),
               (size_t)cols * sizeof *values);
    }
    return values;
}

static void noise_fill(void)
{
    for (int32_t i = 0; i < NOISE; i++) {
        noise[i] = 1.33f * random_value(); /* of variance one */
    }
}

/* ---- a model on the host ---- */
static int32_t qkv_cols(const shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_dim;
}

static int32_t depth_of(const shape *s, int32_t product)
{
    return product == OUT ? s->heads * s->head_dim : product == DOWN ? s->ffn : s->width;
}

static int32_t outs_of(const shape *s, int32_t product)
{
    return product == QKV ? qkv_cols(s) : product == GATE_UP ? 2 * s->ffn : s->width;
}

/* First position that a row at the end of a text of `context` tokens sees. */
static int32_t first_seen(const shape *s, int32_t context)
{
    return s->window > 0 && context > s->window ? context - s->window : 0;
}

/* Token `position` of a text in its page, from `to` on, heads `step` apart. */
static void fill_token(const model *m, uint16_t *keys, uint16_t *values, size_t step, int32_t past,
                       int32_t position)
{
    const shape *s = &m->s;
    const int32_t first = first_seen(s, past + 1), seen = past + 1 - first, t = s->page_tokens;
    const bool is_edge = position == first || position == past - 1 || position == t - 1 ||
                         position == t || position == 63 || position == 64;
    const float scale =
        is_edge && seen > 16 ? 0.125f * (float)seen : sqrtf((float)(seen > 0 ? seen : 1));
    for (int32_t h = 0; h < s->kv_heads; h++, keys += step, values += step) {
        const float *from = noise + random_below(NOISE - 2 * s->head_dim);
        for (int32_t e = 0; e < s->head_dim; e++) {
            keys[e] = lore_f32_to_bf16(position < past ? from[e] : 3e4f);
            values[e] = lore_f32_to_bf16(position < past ? scale * from[s->head_dim + e] : 3e4f);
        }
    }
}

static uint16_t *pages_new(const model *m)
{
    const shape *s = &m->s;
    const int32_t *page_start = m->lists + 2 * s->sequences + 1;
    const int32_t *pages = page_start + 2 * s->sequences + 1;
    const size_t step = (size_t)(s->page_tokens * s->head_dim);
    uint16_t *keys = host_new(2 * m->cached * sizeof *keys);
    memset(keys, 0xff, 2 * m->cached * sizeof *keys); /* NaN */
    for (int32_t i = 0; i < s->sequences; i++) {
        const int32_t first = first_seen(s, s->past[i] + 1) / s->page_tokens;
        for (int32_t p = first; p < page_start[i + 1] - page_start[i]; p++) {
            const size_t page = (size_t)pages[page_start[i] + p] * (size_t)s->kv_heads * step;
            for (int32_t t = 0; t < s->page_tokens; t++) {
                const size_t at = page + (size_t)(t * s->head_dim);
                fill_token(m, keys + at, keys + m->cached + at, step, s->past[i],
                           p * s->page_tokens + t);
            }
        }
    }
    return keys;
}

static void lists_new(model *m)
{
    const shape *s = &m->s;
    const int32_t n = s->sequences, each = s->rows_each > 0 ? s->rows_each : 1;
    int32_t page_start[SEQUENCES_MOST + 1] = {0};
    for (int32_t i = 0; i < n; i++) {
        const int32_t context = s->past[i] + each;
        page_start[i + 1] = page_start[i] + (context + s->page_tokens - 1) / s->page_tokens;
        m->context_max = context > m->context_max ? context : m->context_max;
    }
    m->rows = n * each;
    m->page_count = page_start[n] + 3; /* some that nobody owns */
    m->positions = (s->has_starts ? 2 : 1) * m->context_max + 7;
    m->list_count = (size_t)(4 * n + 2 + m->page_count);
    m->lists = host_new(m->list_count * sizeof *m->lists);
    int32_t *past = m->lists + n + 1, *starts = m->lists + 3 * n + 2, *pages = starts + n;
    for (int32_t i = 0; i <= n; i++) {
        m->lists[i] = i * each;
    }
    memcpy(past, s->past, (size_t)n * sizeof *past);
    memcpy(past + n, page_start, (size_t)(n + 1) * sizeof *past);
    for (int32_t i = 0; i < n; i++) {
        starts[i] = i % 2 == 0 ? m->context_max + 5 : 3;
    }
    shuffle(pages, m->page_count);
    m->is_new = host_new((size_t)(m->page_count * s->page_tokens));
    memset(m->is_new, 0, (size_t)(m->page_count * s->page_tokens));
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = s->past[i]; k < s->past[i] + each; k++) {
            const int32_t page = pages[page_start[i] + k / s->page_tokens];
            m->is_new[page * s->page_tokens + k % s->page_tokens] = 1;
        }
    }
}

/* Weights that give sums of order one of rows of order one, and branches of half of that. */
static void layer_new(const model *m, model_layer *layer, bool has_weights)
{
    const shape *s = &m->s;
    for (int32_t p = 0; p < PRODUCTS && has_weights; p++) {
        const float size = p == QKV || p == GATE_UP ? 1.0f : 0.5f;
        layer->weights[p] =
            noise_matrix(outs_of(s, p), depth_of(s, p), size / sqrtf((float)depth_of(s, p)));
    }
    layer->norms = noise_new((size_t)(2 * s->width + 2 * s->head_dim + qkv_cols(s)), 1.0f, 0.2f);
    layer->pages = pages_new(m);
}

static model *model_new(const shape *from)
{
    model *m = lore_alloc_zero(1, sizeof *m);
    CHECK(m != NULL && from->layers <= LAYERS_MOST && from->sequences <= SEQUENCES_MOST);
    m->s = *from;
    m->s.rope_dim = from->rope_dim > 0 ? from->rope_dim : from->head_dim;
    lists_new(m);
    m->cached =
        (size_t)m->page_count * (size_t)(from->kv_heads * from->page_tokens * from->head_dim);
    const size_t half = (size_t)m->positions * (size_t)(m->s.rope_dim / 2);
    m->tables = noise_new(2 * half, 0.0f, 3.0f);
    for (size_t i = 0; i < half; i++) {
        const float angle = m->tables[i];
        m->tables[i] = cosf(angle);
        m->tables[half + i] = sinf(angle);
    }
    m->x = noise_new((size_t)m->rows * (size_t)from->width, 0.0f, 1.0f);
    for (int32_t i = 0; i < from->layers; i++) {
        layer_new(m, &m->layers[i], i == 0 || !from->is_shared);
    }
    return m;
}

static void model_free(model *m)
{
    for (int32_t i = 0; i < m->s.layers; i++) {
        for (int32_t p = 0; p < PRODUCTS; p++) {
            lore_free(m->layers[i].weights[p]);
        }
        lore_free(m->layers[i].norms);
        lore_free(m->layers[i].pages);
    }
    lore_free(m->x);
    lore_free(m->tables);
    lore_free(m->lists);
    lore_free(m->is_new);
    lore_free(m);
}

/* ---- the same in a side's memory ---- */

/* Memory that is poisoned and ends in guards, both of bytes 0xff: NaN in every dtype. */
typedef struct guarded {
    char *memory;
    lore_view view;
    size_t size_bytes;
} guarded;

static lore_view poisoned(const side *at, guarded *made, lore_dtype dtype, int32_t rows,
                          int32_t cols, int32_t gap)
{
    made->size_bytes = 2 * GUARD + (size_t)rows * (size_t)(cols + gap) * lore_dtype_size(dtype);
    char *host = host_new(made->size_bytes);
    memset(host, 0xff, made->size_bytes);
    made->memory = upload(at, host, made->size_bytes);
    lore_free(host);
    made->view = lore_view_as(dtype, made->memory + GUARD, rows, cols);
    made->view.stride = cols + gap;
    return made->view;
}

/* All its bytes, after a look at the guards. */
static char *guarded_read(const side *at, const guarded *from)
{
    const size_t size = lore_dtype_size(from->view.dtype);
    const size_t row = (size_t)from->view.stride * size, width = (size_t)from->view.cols * size;
    char *host = host_new(from->size_bytes);
    lore_queue_download(at->queue, host, from->memory, from->size_bytes);
    sync(at);
    for (size_t i = 0; i < from->size_bytes; i++) {
        const bool is_inside = i >= GUARD && i < from->size_bytes - GUARD;
        if (!(is_inside && (i - GUARD) % row < width) && host[i] != (char)0xff) {
            CHECK_STOP("wrote outside of %d x %d, at byte %zu", from->view.rows, from->view.cols,
                       i);
        }
    }
    return host;
}

typedef struct copy {
    side at;
    const model *m;
    lore_layer layers[LAYERS_MOST];
    lore_layers all;
    lore_batch batch;
    guarded x, qkv, mixed, hidden, normed, gate_up, pages[LAYERS_MOST];
    void *memory[LAYERS_MOST + 2]; /* norms of the layers, tables, lists */
} copy;

static lore_weight *pack(const side *at, const shape *s, int32_t product, const uint16_t *values)
{
    const int32_t outs = outs_of(s, product), depth = depth_of(s, product);
    const int32_t kv = s->kv_heads * s->head_dim,
                  counts[3][3] = {{outs - 2 * kv, kv, kv}, {s->ffn, s->ffn, 0}, {outs, 0, 0}};
    const int32_t *rows = counts[product == QKV ? 0 : product == GATE_UP ? 1 : 2];
    lore_matrix parts[3];
    int32_t count = 0;
    for (; count < 3 && rows[count] > 0; count++) {
        parts[count] =
            (lore_matrix){.dtype = LORE_BF16, .rows = rows[count], .cols = depth, .data = values};
        values += (size_t)rows[count] * (size_t)depth;
    }
    lore_weight *weight = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(at->backend, parts, count, LORE_USE_MATMUL, &weight, &err), &err);
    return weight;
}

static void copy_layer(copy *c, int32_t i)
{
    const shape *s = &c->m->s;
    const model_layer *from = &c->m->layers[i];
    const lore_layer *other = s->is_shared && i > 0 ? c->layers : NULL;
    const size_t floats = (size_t)(2 * s->width + 2 * s->head_dim + qkv_cols(s));
    const float *norms = c->memory[i] = upload(&c->at, from->norms, floats * sizeof(float));
    const float *heads = norms + 2 * s->width;
    uint16_t *keys =
        (uint16_t *)(void *)poisoned(&c->at, &c->pages[i], LORE_BF16, 2, (int32_t)c->m->cached, 0)
            .data;
    c->layers[i] = (lore_layer){
        .qkv = other != NULL ? other->qkv : pack(&c->at, s, QKV, from->weights[QKV]),
        .out = other != NULL ? other->out : pack(&c->at, s, OUT, from->weights[OUT]),
        .gate_up =
            other != NULL ? other->gate_up : pack(&c->at, s, GATE_UP, from->weights[GATE_UP]),
        .down = other != NULL ? other->down : pack(&c->at, s, DOWN, from->weights[DOWN]),
        .attention_norm = norms,
        .ffn_norm = norms + s->width,
        .qkv_bias = s->has_bias ? heads + 2 * s->head_dim : NULL,
        .q_norm = s->has_norms ? heads : NULL,
        .k_norm = s->has_norms ? heads + s->head_dim : NULL,
        .attention = {.scale = 0.5f / sqrtf((float)s->head_dim), .window = s->window},
        .pages = {keys, keys + c->m->cached, LORE_BF16, c->m->page_count, s->page_tokens,
                  s->kv_heads, s->head_dim},
    };
}

/* x, pages and scratch as they were before the step. */
static void copy_reset_x(const copy *c)
{
    const int32_t width = c->m->s.width;
    for (int32_t r = 0; r < c->m->rows; r++) {
        lore_queue_upload(c->at.queue, c->x.view.data + r * c->x.view.stride, c->m->x + r * width,
                          (size_t)width * sizeof(float));
    }
}

static void copy_reset(const copy *c)
{
    copy_reset_x(c);
    for (int32_t i = 0; i < c->m->s.layers; i++) {
        lore_queue_upload(c->at.queue, c->layers[i].pages.keys, c->m->layers[i].pages,
                          2 * c->m->cached * sizeof(uint16_t));
    }
    const guarded *scratch[] = {&c->qkv, &c->mixed, &c->hidden};
    for (int i = 0; i < 3; i++) {
        char *host = host_new(scratch[i]->size_bytes);
        memset(host, 0xff, scratch[i]->size_bytes);
        lore_queue_upload(c->at.queue, scratch[i]->memory, host, scratch[i]->size_bytes);
        lore_free(host);
    }
}

/* Weights too: nothing is shared with another copy. */
static copy *copy_new(const side *on, const model *m)
{
    copy *c = lore_alloc_zero(1, sizeof *c);
    CHECK(c != NULL);
    const shape *s = &m->s;
    const lore_dtype dtype = lore_backend_activation_dtype(on->backend);
    const size_t half = (size_t)m->positions * (size_t)(s->rope_dim / 2);
    c->at = *on;
    c->m = m;
    for (int32_t i = 0; i < s->layers; i++) {
        copy_layer(c, i);
    }
    const float *tables = c->memory[s->layers] = upload(on, m->tables, 2 * half * sizeof *tables);
    const int32_t *lists = c->memory[s->layers + 1] =
        upload(on, m->lists, m->list_count * sizeof *lists);
    const int32_t *past = lists + s->sequences + 1, *page_start = past + s->sequences;
    const int32_t *starts = page_start + s->sequences + 1;
    c->batch = (lore_batch){s->sequences,
                            m->rows,
                            lists,
                            past,
                            page_start,
                            starts + s->sequences,
                            s->rows_each > 0 ? s->rows_each : 1,
                            m->context_max};
    poisoned(on, &c->x, LORE_F32, m->rows, s->width, X_GAP);
    poisoned(on, &c->normed, dtype, m->rows, s->width, 0);
    poisoned(on, &c->qkv, dtype, m->rows, qkv_cols(s), 0);
    poisoned(on, &c->mixed, dtype, m->rows, s->heads * s->head_dim, 0);
    poisoned(on, &c->hidden, dtype, m->rows, s->ffn, 0);
    poisoned(on, &c->gate_up, dtype, m->rows, 2 * s->ffn, 0);
    c->all = (lore_layers){
        .layers = c->layers,
        .count = s->layers,
        .rope = {tables, tables + half, m->positions, s->has_starts ? starts : NULL, s->heads,
                 s->rope_dim, NULL, NULL, 1e-6f},
        .eps = 1e-6f,
        .activation = s->activation,
    };
    copy_reset(c);
    return c;
}

static void copy_free(copy *c)
{
    const shape *s = &c->m->s;
    const guarded *all[] = {&c->x, &c->qkv, &c->mixed, &c->hidden, &c->normed, &c->gate_up};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        lore_backend_free(c->at.backend, all[i]->memory);
    }
    for (int32_t i = 0; i < s->layers; i++) {
        lore_backend_free(c->at.backend, c->pages[i].memory);
        const lore_weight *weights[] = {c->layers[i].qkv, c->layers[i].out, c->layers[i].gate_up,
                                        c->layers[i].down};
        for (int32_t p = 0; p < PRODUCTS && (i == 0 || !s->is_shared); p++) {
            lore_weight_free((lore_weight *)(uintptr_t)weights[p]);
        }
    }
    for (int32_t i = 0; i < s->layers + 2; i++) {
        lore_backend_free(c->at.backend, c->memory[i]);
    }
    lore_free(c);
}

/* ---- one op behind the other, as models/decoder.c has them ---- */
static void run_ops(const copy *c)
{
    lore_queue *q = c->at.queue;
    const lore_layers *all = &c->all;
    const lore_view x = c->x.view, qkv = c->qkv.view, mixed = c->mixed.view,
                    hidden = c->hidden.view, queries = lore_view_columns(qkv, 0, mixed.cols);
    const lore_epilogue adding = {.is_accumulating = true}, act = {.activation = all->activation};
    for (int32_t i = 0; i < all->count; i++) {
        const lore_layer *l = &all->layers[i];
        lore_rope rope = all->rope;
        rope.q_norm = l->q_norm;
        rope.k_norm = l->k_norm;
        const lore_fusion norm = {.norm = l->attention_norm, all->eps, c->normed.view};
        const lore_fusion gated = {l->ffn_norm, all->eps, c->normed.view, true, c->gate_up.view};
        lore_op_matmul_fused(q, qkv, x, l->qkv, (lore_epilogue){.bias = l->qkv_bias}, &norm);
        lore_op_rope_append(q, qkv, &rope, &l->pages, &c->batch);
        lore_op_attend_paged(q, mixed, queries, &l->pages, &c->batch, &l->attention);
        lore_op_matmul(q, x, mixed, l->out, adding);
        lore_op_matmul_fused(q, hidden, x, l->gate_up, act, &gated);
        lore_op_matmul(q, x, hidden, l->down, adding);
    }
}

/* ---- results and their distance ---- */

typedef struct result {
    float *x; /* [n, d] */
    uint16_t *pages[LAYERS_MOST];
} result;

static void result_free(result *r)
{
    lore_free(r->x);
    for (int32_t i = 0; i < LAYERS_MOST; i++) {
        lore_free(r->pages[i]);
    }
}

/* What a step left, between its guards. */
static result take(const copy *c)
{
    result made = {0};
    const int32_t width = c->m->s.width;
    const guarded *scratch[] = {&c->qkv, &c->mixed, &c->hidden};
    for (int i = 0; i < 3; i++) {
        lore_free(guarded_read(&c->at, scratch[i]));
    }
    char *x = guarded_read(&c->at, &c->x);
    made.x = host_new((size_t)c->m->rows * (size_t)width * sizeof *made.x);
    for (int32_t r = 0; r < c->m->rows; r++) {
        memcpy(made.x + r * width, x + GUARD + (size_t)(r * (width + X_GAP)) * sizeof(float),
               (size_t)width * sizeof(float));
    }
    lore_free(x);
    for (int32_t i = 0; i < c->m->s.layers; i++) {
        char *pages = guarded_read(&c->at, &c->pages[i]);
        made.pages[i] = host_new(2 * c->m->cached * sizeof(uint16_t));
        memcpy(made.pages[i], pages + GUARD, 2 * c->m->cached * sizeof(uint16_t));
        lore_free(pages);
    }
    return made;
}

/* Normalised errors (root of the sum of squares, over that of what is wanted) of up to five layers.
 * A layer rounds to bf16 what goes into its products, qkv, turned queries and keys, probabilities,
 * mixed and hidden rows: some eight roundings of 2^-9 at most and 1.1e-3 in the mean, of branches
 * that are half of x. They add up as roots of sums of squares, to about 5e-3 in five layers; twice
 * that is allowed of two ways that round in different places, three times beside ref, which rounds
 * nothing but new keys and values. A single value lies no further off than some times the spread of
 * these. Layers of the same weights make the same errors again and again, which add up as such. */
static const double BETWEEN_WAYS = 1e-2, BESIDE_REF = 1.5e-2, WORST = 6.0;

static double bound_of(const shape *s, double bound)
{
    return s->layers > 10 ? bound * s->layers / 10.0 : bound;
}

typedef struct distance {
    double differences, squares, worst; /* sums of squares, largest difference */
    int64_t count;
} distance;

static void distance_add(distance *to, float got, float want)
{
    const double difference = fabs((double)got - (double)want);
    to->differences += difference * difference;
    to->squares += (double)want * (double)want;
    to->worst = difference <= to->worst ? to->worst : difference; /* a NaN sticks */
    to->count++;
}

static double distance_of(const shape *s, const char *what, const distance *d, double bound)
{
    const double error = sqrt(d->differences / d->squares);
    const double worst = d->worst / sqrt(d->squares / (double)d->count);
    if (!(error <= bound) || !(worst <= WORST * bound)) {
        CHECK_STOP("%s, %s: error %.3g, at worst %.3g, allowed %.3g", s->name, what, error, worst,
                   bound);
    }
    return error;
}

/* The largest error of a row of x. */
static double compare_x(const model *m, const char *what, const result *got, const result *want,
                        double bound)
{
    double largest = 0.0;
    for (int32_t r = 0; r < m->rows; r++) {
        distance d = {0};
        for (int32_t c = 0; c < m->s.width; c++) {
            distance_add(&d, got->x[r * m->s.width + c], want->x[r * m->s.width + c]);
        }
        largest = fmax(largest, distance_of(&m->s, what, &d, bound));
    }
    return largest;
}

/* The largest error of the new keys or values of a layer; all others are what they were. */
static double compare_pages(const model *m, const char *what, const result *got, const result *want,
                            double bound)
{
    const size_t dim = (size_t)m->s.head_dim, t = (size_t)m->s.page_tokens;
    double largest = 0.0;
    for (int32_t i = 0; i < m->s.layers; i++) {
        const uint16_t *old = m->layers[i].pages;
        for (size_t part = 0; part < 2; part++) {
            distance d = {0};
            for (size_t k = 0; k < m->cached; k += dim) {
                const size_t at = part * m->cached + k,
                             page = k / (dim * t * (size_t)m->s.kv_heads);
                if (m->is_new[page * t + k / dim % t] == 0) {
                    if (memcmp(got->pages[i] + at, old + at, dim * sizeof *old) != 0) {
                        CHECK_STOP("%s, %s: wrote token %zu of page %zu, layer %d", m->s.name, what,
                                   k / dim % t, page, i);
                    }
                    continue;
                }
                for (size_t e = 0; e < dim; e++) {
                    distance_add(&d, lore_bf16_to_f32(got->pages[i][at + e]),
                                 lore_bf16_to_f32(want->pages[i][at + e]));
                }
            }
            largest = fmax(largest, distance_of(&m->s, what, &d, bound));
        }
    }
    return largest;
}

#endif
