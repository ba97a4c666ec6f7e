/* Rotation, pages and attention on a backend under test, against ref. */
#ifndef LORE_TESTS_ATTENTION_CASES_H
#define LORE_TESTS_ATTENTION_CASES_H

#include "tests/ops/ops_subject.h"

/* ---- rotation, pages and attention ---- */

/* Rounds queries, keys and values where the backend may: half of ln 2 is a scale that leaves a
 * rounded query rounded when it is scaled for powers of two. */
static const float ATTENTION_SCALE = 0.34657359f;
static void round_inputs(const subject *on, float *x, size_t count)
{
    for (size_t i = 0; i < count && on->precision != LORE_PRECISION_F32; i++) {
        x[i] = lore_bf16_to_f32(lore_f32_to_bf16(x[i]));
    }
}

enum { SEQUENCES_MAX = 6, PAGES_MAX = 512, POSITIONS_MAX = 1024 };

/* A batch on the host, and its copies in a side's memory. */
typedef struct plan {
    int32_t sequences, rows_max, context_max, page_tokens;
    int32_t row_start[SEQUENCES_MAX + 1], past[SEQUENCES_MAX], page_start[SEQUENCES_MAX + 1],
        pages[PAGES_MAX];
    int32_t page_count;
} plan;

static plan plan_new(int32_t sequences, int32_t rows_most, int32_t past_most, int32_t page_tokens)
{
    plan made = {.sequences = sequences, .page_tokens = page_tokens};
    for (int32_t s = 0; s < sequences; s++) {
        const int32_t rows = 1 + random_below(rows_most);
        made.past[s] = random_below(past_most + 1);
        const int32_t context = made.past[s] + rows;
        made.row_start[s + 1] = made.row_start[s] + rows;
        made.page_start[s + 1] = made.page_start[s] + (context + page_tokens - 1) / page_tokens;
        made.rows_max = rows > made.rows_max ? rows : made.rows_max;
        made.context_max = context > made.context_max ? context : made.context_max;
    }
    made.page_count =
        made.page_start[sequences] + 3; /* some that nobody owns: they must stay untouched */
    CHECK(made.page_count <= PAGES_MAX);
    shuffle(made.pages, made.page_count);
    return made;
}

typedef struct plan_copy {
    lore_batch batch;
    int32_t *memory;
} plan_copy;

static plan_copy plan_upload(const side *at, const plan *from)
{
    plan_copy made = {.memory =
                          upload(at, from->row_start, sizeof *from - offsetof(plan, row_start))};
    int32_t *next = made.memory;
    made.batch = (lore_batch){
        .sequences = from->sequences,
        .rows = from->row_start[from->sequences],
        .row_start = next,
        .past = next + SEQUENCES_MAX + 1,
        .page_start = next + 2 * SEQUENCES_MAX + 1,
        .pages = next + 3 * SEQUENCES_MAX + 2,
        .rows_max = from->rows_max,
        .context_max = from->context_max,
    };
    return made;
}

/* Pages of one layer with random contents, and what they become. */
typedef struct cache {
    lore_pages pages;
    size_t count, size_bytes;
} cache;

static cache cache_new(const side *at, const plan *from, const void *keys, const void *values,
                       lore_dtype dtype, int32_t kv_heads, int32_t head_dim)
{
    cache made = {.count =
                      (size_t)from->page_count * (size_t)(kv_heads * from->page_tokens * head_dim)};
    made.size_bytes = made.count * lore_dtype_size(dtype);
    made.pages = (lore_pages){upload(at, keys, made.size_bytes),
                              upload(at, values, made.size_bytes),
                              dtype,
                              from->page_count,
                              from->page_tokens,
                              kv_heads,
                              head_dim};
    return made;
}

/* Contents as f32, keys then values; frees the cache. */
static float *cache_take(const side *at, cache *from)
{
    void *bytes = host_new(2 * from->size_bytes);
    lore_queue_download(at->queue, bytes, from->pages.keys, from->size_bytes);
    lore_queue_download(at->queue, (char *)bytes + from->size_bytes, from->pages.values,
                        from->size_bytes);
    sync(at);
    lore_backend_free(at->backend, from->pages.keys);
    lore_backend_free(at->backend, from->pages.values);
    float *values = host_new(2 * from->count * sizeof *values);
    for (size_t i = 0; i < 2 * from->count; i++) {
        values[i] = read_as(from->pages.dtype, bytes, i);
    }
    lore_free(bytes);
    return values;
}

typedef struct decoder_shape {
    int32_t sequences, rows_most, past_most, page_tokens, group, kv_heads, head_dim;
    lore_dtype dtype;
    bool has_norms;
    int32_t rope_dim; /* 0: head_dim */
    float softcap;
    int32_t window;
} decoder_shape;

/* Cosines and sines of `dim / 2` random angles a position, or of none. */
static void random_tables(float *cosine, float *sine, int32_t dim, bool is_turning)
{
    for (size_t i = 0; i < (size_t)POSITIONS_MAX * (size_t)(dim / 2); i++) {
        const float angle = is_turning ? random_value() : 0.0f;
        cosine[i] = cosf(angle);
        sine[i] = sinf(angle);
    }
}

static void check_decoder(const subject *on, const decoder_shape *shape)
{
    const plan host =
        plan_new(shape->sequences, shape->rows_most, shape->past_most, shape->page_tokens);
    const int32_t dim = shape->head_dim, heads = shape->group * shape->kv_heads;
    const int32_t rope_dim = shape->rope_dim > 0 ? shape->rope_dim : dim;
    const int32_t rows = host.row_start[host.sequences], cols = (heads + 2 * shape->kv_heads) * dim;
    const size_t cached =
        (size_t)host.page_count * (size_t)(shape->kv_heads * host.page_tokens * dim);
    float *old = random_floats(2 * cached), *qkv = random_floats((size_t)rows * (size_t)cols);
    void *old_cache = store_as(shape->dtype, old, 2 * cached);
    const size_t table_bytes = (size_t)POSITIONS_MAX * (size_t)(rope_dim / 2) * sizeof(float);
    float *cosine = host_new(table_bytes), *sine = host_new(table_bytes);
    const bool is_bf16 = shape->dtype == LORE_BF16;
    /* Rounded queries stay so only if nothing turns or scales them. */
    const bool is_rounded = is_bf16 && on->precision != LORE_PRECISION_F32;
    const bool has_norms = shape->has_norms && !is_rounded;
    random_tables(cosine, sine, rope_dim, !is_rounded);
    round_inputs(on, qkv, (size_t)rows * (size_t)cols);
    float *norms = random_floats(2 * (size_t)dim);
    float *queries[2], *caches[2], *outs[2];
    int32_t starts[SEQUENCES_MAX];
    for (int32_t s = 0; s < SEQUENCES_MAX; s++) {
        starts[s] = random_below(POSITIONS_MAX - host.context_max);
    }
    int which = 0;
    ON_BOTH(on, at)
    {
        plan_copy copy = plan_upload(at, &host);
        cache pages = cache_new(at, &host, old_cache,
                                (char *)old_cache + cached * lore_dtype_size(shape->dtype),
                                shape->dtype, shape->kv_heads, dim);
        float *own_cosine = upload(at, cosine, table_bytes),
              *own_sine = upload(at, sine, table_bytes);
        float *own_norms = upload(at, norms, 2 * (size_t)dim * sizeof *norms);
        int32_t *own_starts = upload(at, starts, sizeof starts);
        const lore_rope rope = {own_cosine,
                                own_sine,
                                POSITIONS_MAX,
                                shape->has_norms ? own_starts : NULL,
                                heads,
                                rope_dim,
                                has_norms ? own_norms : NULL,
                                has_norms ? own_norms + dim : NULL,
                                1e-6f};
        grid in = grid_new(at, qkv, rows, cols, 6), out = grid_new(at, NULL, rows, heads * dim, 2);
        lore_op_rope_append(at->queue, in.view, &rope, &pages.pages, &copy.batch);
        lore_op_attend_paged(
            at->queue, out.view, columns(in.view, 0, heads * dim), &pages.pages, &copy.batch,
            &(lore_attention){is_rounded ? ATTENTION_SCALE : 0.31f, shape->softcap, shape->window});
        outs[which] = grid_take(at, &out);
        float *all = grid_take(at, &in); /* only the query columns are defined afterwards */
        queries[which] = host_new((size_t)rows * (size_t)(heads * dim) * sizeof *all);
        for (int32_t r = 0; r < rows; r++) {
            memcpy(queries[which] + (size_t)r * (size_t)(heads * dim),
                   all + (size_t)r * (size_t)cols, (size_t)(heads * dim) * sizeof *all);
        }
        lore_free(all);
        caches[which++] = cache_take(at, &pages);
        lore_backend_free(at->backend, own_cosine);
        lore_backend_free(at->backend, own_sine);
        lore_backend_free(at->backend, own_norms);
        lore_backend_free(at->backend, own_starts);
        lore_backend_free(at->backend, copy.memory);
    }
    lore_free(old);
    lore_free(old_cache);
    lore_free(qkv);
    lore_free(sine);
    lore_free(cosine);
    lore_free(norms);
    const size_t count = (size_t)rows * (size_t)(heads * dim);
    /* Values of bf16 pages are compared absolutely against their own spread; the largest decides,
     * some eight times it. */
    compare(on, "rope_append, queries", queries[1], queries[0], count, TOLERANCE_SUM);
    compare(on, "rope_append, pages", caches[1], caches[0], 2 * cached,
            is_bf16 ? 8 * TOLERANCE_BF16_STORE : TOLERANCE_SUM);
    compare(on, "attend_paged", outs[1], outs[0], count,
            is_bf16 ? TOLERANCE_BF16_ATTEND : 5 * TOLERANCE_EXP);
}

CHECK_UNUSED static void cases_decoder(const subject *on)
{
    for (int i = 0; i < 48; i++) {
        decoder_shape shape = {
            .sequences = PICK(0, 1, 2, 6),
            .rows_most = PICK(1, 5, 30),
            .past_most = PICK(0, 3, 40),
            .page_tokens = PICK(1, 3, 16, 32),
            .group = PICK(1, 2, 3, 4, 7),
            .kv_heads = PICK(1, 2, 3),
            .head_dim = PICK(2, 6, 16, 32, 34, 64, 80, 96, 128, 256),
            .dtype = i % 2 == 0 ? LORE_F32 : LORE_BF16,
            .has_norms = i % 3 == 0,
            .softcap = i % 4 < 2 ? 0.0f : 1.5f,
            .window = i % 8 < 4 ? 0 : PICK(1, 2, 7, 16, 31, 1000),
        };
        shape.rope_dim = i % 3 == 1 ? 2 * (1 + random_below(shape.head_dim / 2)) : 0;
        check_decoder(on, &shape);
    }
    static const decoder_shape large[] = {
        /* several blocks and runs */
        {.sequences = 2, .rows_most = 300, .past_most = 300, .group = 4, .window = 0},
        {.sequences = 2, .rows_most = 300, .past_most = 300, .group = 4, .window = 65},
        {.sequences = 1, .rows_most = 600, .past_most = 0, .group = 7, .window = 300},
        {.sequences = 1, .rows_most = 500, .past_most = 80, .group = 2, .softcap = 3.0f},
        /* decoding */
        {.sequences = 6, .rows_most = 1, .past_most = 600, .group = 4},
        {.sequences = 3, .rows_most = 1, .past_most = 900, .group = 7, .window = 300},
        {.sequences = 3, .rows_most = 2, .past_most = 900, .group = 3, .window = 257},
        {.sequences = 3, .rows_most = 8, .past_most = 900, .group = 1, .window = 5},
        /* the same with so few heads that their keys are shared out; the last has an empty part */
        {.sequences = 1, .rows_most = 1, .past_most = 1000, .group = 7, .kv_heads = 1},
        {.sequences = 1, .rows_most = 1, .past_most = 1000, .group = 2, .kv_heads = 1},
        {.sequences = 1,
         .rows_most = 9,
         .past_most = 900,
         .group = 3,
         .kv_heads = 1,
         .window = 700},
        {.sequences = 1,
         .rows_most = 20,
         .past_most = 900,
         .group = 1,
         .kv_heads = 1,
         .softcap = 2},
        {.sequences = 1,
         .rows_most = 1,
         .past_most = 1000,
         .group = 4,
         .kv_heads = 1,
         .window = 300},
    };
    for (size_t i = 0; i < 2 * (sizeof large / sizeof large[0]); i++) {
        decoder_shape shape = large[i / 2];
        shape.dtype = i % 2 == 0 ? LORE_F32 : LORE_BF16;
        shape.page_tokens = 16;
        shape.kv_heads = shape.kv_heads > 0 ? shape.kv_heads : 2;
        shape.head_dim = 64;
        check_decoder(on, &shape);
    }
}

typedef struct packed_shape {
    int32_t sequences, rows_most, group, kv_heads, head_dim;
    bool is_causal, has_empty;
    float softcap;
    int32_t window;
} packed_shape;

static void check_packed(const subject *on, const packed_shape *shape)
{
    int32_t starts[SEQUENCES_MAX + 1] = {0}, rows_max = 0;
    for (int32_t s = 0; s < shape->sequences; s++) {
        const bool is_empty = shape->has_empty && s == 1; /* a sequence of none is legal */
        const int32_t rows = is_empty ? 0 : shape->rows_most - random_below(shape->rows_most);
        starts[s + 1] = starts[s] + rows;
        rows_max = rows > rows_max ? rows : rows_max;
    }
    const int32_t heads = shape->group * shape->kv_heads, dim = shape->head_dim;
    const int32_t rows = starts[shape->sequences], cols = (heads + 2 * shape->kv_heads) * dim;
    const lore_attention attention = {ATTENTION_SCALE, shape->softcap, shape->window};
    float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
    round_inputs(on, x, (size_t)rows * (size_t)cols);
    int which = 0;
    ON_BOTH(on, at)
    {
        grid in = grid_new(at, x, rows, cols, 5), out = grid_new(at, NULL, rows, heads * dim, 3);
        int32_t *own = upload(at, starts, sizeof starts);
        lore_op_attend_packed(at->queue, out.view, in.view, heads, shape->kv_heads,
                              shape->sequences, own, rows_max, shape->is_causal, &attention);
        results[which++] = grid_take(at, &out);
        lore_free(grid_take(at, &in));
        lore_backend_free(at->backend, own);
    }
    lore_free(x);
    char what[128];
    snprintf(what, sizeof what, "attend_packed %d rows, %d x %d heads of %d%s, window %d, cap %g",
             rows, shape->group, shape->kv_heads, dim, shape->is_causal ? ", causal" : "",
             shape->window, (double)shape->softcap);
    compare(on, what, results[1], results[0], (size_t)rows * (size_t)(heads * dim),
            on->precision == LORE_PRECISION_F32 ? 5 * TOLERANCE_EXP : TOLERANCE_BF16_ATTEND);
}

CHECK_UNUSED static void cases_packed_attention(const subject *on)
{
    for (int i = 0; i < 48; i++) {
        const packed_shape shape = {
            .sequences = PICK(0, 1, 3, 5),
            .rows_most = PICK(1, 2, 7, 33, 65),
            .group = i % 2 == 0 ? 1 : PICK(2, 3, 7),
            .kv_heads = PICK(1, 2, 3),
            .head_dim = PICK(1, 8, 15, 16, 32, 64, 80, 96, 100, 128, 256),
            .is_causal = i % 3 == 0,
            .has_empty = i % 4 == 0,
            .softcap = i % 5 == 0 ? 2.0f : 0.0f,
            .window = i % 4 < 2 ? 0 : PICK(1, 2, 5, 16, 64, 1000),
        };
        check_packed(on, &shape);
    }
    for (int i = 0; i < 8; i++) { /* several blocks of keys and runs of queries */
        const packed_shape shape = {.sequences = 2,
                                    .rows_most = 560,
                                    .group = i < 4 ? 1 : 3,
                                    .kv_heads = 1,
                                    .head_dim = 64,
                                    .is_causal = i % 2 == 1,
                                    .window = i % 4 < 2 ? 0 : PICK(40, 64, 129, 300)};
        check_packed(on, &shape);
    }
}

CHECK_UNUSED static void cases_rope_packed(const subject *on)
{
    for (int i = 0; i < 24; i++) {
        const int32_t heads = PICK(1, 2, 5), kv_heads = PICK(1, 2),
                      dim = PICK(2, 6, 16, 34, 64, 96);
        const int32_t rope_dim = i % 2 == 0 ? dim : 2 * (1 + random_below(dim / 2));
        const int32_t sequences = PICK(0, 1, 4), cols = (heads + 2 * kv_heads) * dim;
        int32_t starts[5] = {0};
        for (int32_t s = 0; s < sequences; s++) {
            starts[s + 1] = starts[s] + (s == 2 ? 0 : 1 + random_below(60));
        }
        const int32_t rows = starts[sequences];
        const size_t table_bytes = (size_t)POSITIONS_MAX * (size_t)(rope_dim / 2) * sizeof(float);
        float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
        float *cosine = host_new(table_bytes), *sine = host_new(table_bytes);
        float *norms = random_floats(2 * (size_t)dim);
        random_tables(cosine, sine, rope_dim, true);
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, cols, 3);
            int32_t *own = upload(at, starts, sizeof starts);
            float *own_cosine = upload(at, cosine, table_bytes),
                  *own_sine = upload(at, sine, table_bytes);
            float *own_norms = upload(at, norms, 2 * (size_t)dim * sizeof *norms);
            const lore_rope rope = {own_cosine,
                                    own_sine,
                                    POSITIONS_MAX,
                                    NULL,
                                    heads,
                                    rope_dim,
                                    i % 3 == 0 ? own_norms : NULL,
                                    i % 3 < 2 ? own_norms + dim : NULL,
                                    1e-6f};
            lore_op_rope_packed(at->queue, in.view, &rope, kv_heads, dim, sequences, own);
            results[which++] = grid_take(at, &in);
            lore_backend_free(at->backend, own);
            lore_backend_free(at->backend, own_cosine);
            lore_backend_free(at->backend, own_sine);
            lore_backend_free(at->backend, own_norms);
        }
        for (int32_t r = 0; r < rows; r++) { /* values stay as they are */
            const size_t first = (size_t)r * (size_t)cols + (size_t)((heads + kv_heads) * dim);
            CHECK(memcmp(x + first, results[1] + first, (size_t)(kv_heads * dim) * sizeof *x) == 0);
        }
        lore_free(x);
        lore_free(cosine);
        lore_free(sine);
        lore_free(norms);
        compare(on, "rope_packed", results[1], results[0], (size_t)rows * (size_t)cols,
                TOLERANCE_SUM);
    }
}

/* What ops.h says of scores that are no numbers: rows that see a NaN or an infinity become NaN,
 * those that do not (earlier ones, and those whose window has passed it) stay as they are; scores
 * of -inf weigh nothing, also where a whole block of keys has no other. */
CHECK_UNUSED static void cases_attention_not_finite(const subject *on)
{
    enum { ROWS = 600, DIM = 16, BAD = 40, WINDOW = 320 };
    static const float bad[3] = {NAN, INFINITY, -INFINITY};
    const int32_t starts[2] = {0, ROWS};
    for (int i = 0; i < 6; i++) {
        float *x = random_floats((size_t)ROWS * 3 * DIM);
        for (int32_t r = 0; r < ROWS; r++) { /* queries have a first element of 1: keys decide */
            x[r * 3 * DIM] = 1.0f;
        }
        const int32_t first_bad = i < 3 ? BAD : 0, last_bad = i < 3 ? BAD : 299;
        float *copies[2] = {NULL, NULL};
        for (int pass = 0; pass < 2; pass++) {
            for (int32_t r = first_bad; r <= last_bad && pass == 1; r++) {
                x[r * 3 * DIM + DIM] = i < 3 ? bad[i] : -INFINITY;
            }
            grid in = grid_new(&on->test, x, ROWS, 3 * DIM, 0),
                 out = grid_new(&on->test, NULL, ROWS, DIM, 0);
            int32_t *own = upload(&on->test, starts, sizeof starts);
            lore_op_attend_packed(on->test.queue, out.view, in.view, 1, 1, 1, own, ROWS, true,
                                  &(lore_attention){.scale = 0.25f, .window = i < 3 ? WINDOW : 0});
            copies[pass] = grid_take(&on->test, &out);
            lore_free(grid_take(&on->test, &in));
            lore_backend_free(on->test.backend, own);
        }
        for (int32_t r = 0; r < ROWS * DIM; r++) {
            const int32_t row = r / DIM;
            const bool is_seeing = row >= first_bad && row - WINDOW < first_bad;
            const bool is_nan = i < 2 ? is_seeing : i > 2 && row <= last_bad;
            if (i < 3 && !is_seeing) {
                CHECK_NEAR(copies[1][r], copies[0][r], 0.0);
            } else if (isnan(copies[1][r]) != is_nan) {
                CHECK_STOP("case %d on %s: row %d is %g", i, on->name, (int)row,
                           (double)copies[1][r]);
            }
        }
        lore_free(copies[0]);
        lore_free(copies[1]);
        lore_free(x);
    }
}

#endif
