/* What stands around a decoder's products on a backend that keeps bf16 between ops: views of either
 * dtype into and out of every op, products fused with a norm and a gate, weights that stay int8,
 * and ops that follow one another without a wait. Against ref, at ragged sizes, between sentinels,
 * outputs poisoned.
 *
 * ref is given what the subject sees: inputs already rounded. An output of bf16 may be a rounding
 * of a rounding (a sum, then its activation) off, which `compare_rounded` allows and no more. */
#include "tests/ops/matmul_cases.h"

static lore_dtype between; /* what the subject wants between ops */

static void start(subject *on)
{
    subject_of_run(on, LORE_PRECISION_BF16);
    if (on->precision != LORE_PRECISION_BF16) {
        subject_close(on);
        CHECK_SKIP("ref computes in f32 only");
    }
    between = lore_backend_activation_dtype(on->test.backend);
    CHECK(between == (is_on_device(on) ? LORE_BF16 : LORE_F32));
    CHECK(lore_backend_activation_dtype(on->ref.backend) == LORE_F32);
}

/* Random, and already what a view of this dtype holds. */
static float *random_cells(lore_dtype dtype, int32_t rows, int32_t cols)
{
    const size_t count = (size_t)rows * (size_t)cols;
    float *values = random_floats(count);
    for (size_t i = 0; i < count && dtype == LORE_BF16; i++) {
        values[i] = lore_bf16_to_f32(lore_f32_to_bf16(values[i]));
    }
    return values;
}

static lore_dtype random_dtype(void)
{
    return random_below(2) == 0 ? LORE_F32 : between;
}

/* Each value within `unit` of itself and of the values' spread, or of `least`. Frees both. */
static void compare_rounded(const char *what, float *got, float *want, size_t count, double unit,
                            double least)
{
    double squares = 0.0;
    for (size_t i = 0; i < count; i++) {
        squares += (double)want[i] * (double)want[i];
    }
    const double spread = fmax(sqrt(squares / (count > 0 ? (double)count : 1.0)), least);
    for (size_t i = 0; i < count; i++) {
        if (!(fabs((double)got[i] - (double)want[i]) <= unit * (fabs((double)want[i]) + spread))) {
            CHECK_STOP("%s: value %zu is %g, not %g (spread %g)", what, i, (double)got[i],
                       (double)want[i], spread);
        }
    }
    lore_free(got);
    lore_free(want);
}

/* ---- products ---- */

typedef struct product {
    int32_t rows, depth, outs, parts; /* outs: of a part */
    lore_dtype w, x, out;
    int32_t gap; /* of x: 0 keeps its rows aligned */
    bool has_bias, is_accumulating, is_fused, is_gated;
    lore_activation activation;
} product;

static void name_of(const product *p, char name[160])
{
    snprintf(name, 160, "%s%d x %d (gap %d) x %d, %d of %s, x %s, out %s%s%s%s",
             p->is_gated   ? "gated "
             : p->is_fused ? "fused "
                           : "",
             p->rows, p->depth, p->gap, p->outs, p->parts, lore_dtype_name(p->w),
             lore_dtype_name(p->x), lore_dtype_name(p->out), p->has_bias ? ", bias" : "",
             activation_names[p->activation], p->is_accumulating ? ", accumulating" : "");
}

/* Rows rounded behind the norm are another's roundings, and a gate multiplies two such sums: the
 * largest of some thousand lies four times their spread off. */
static double unit_of(const product *p)
{
    return p->is_gated           ? 8 * TOLERANCE_BF16_STORE
           : p->is_fused         ? 2.5 * TOLERANCE_BF16_STORE
           : p->out == LORE_BF16 ? TOLERANCE_BF16_STORE
                                 : 2 * TOLERANCE_BF16_SUM;
}

static void run_fused(const side *at, const product *p, lore_view out, lore_view x,
                      const lore_weight *w, lore_epilogue epilogue, const float *norm)
{
    const lore_dtype dtype = lore_backend_activation_dtype(at->backend);
    grid normed = grid_typed(at, dtype, SENTINEL, NULL, p->rows, p->depth, p->gap);
    grid pairs = grid_typed(at, dtype, SENTINEL, NULL, p->rows, 2 * out.cols, 4);
    const lore_fusion fusion = {norm, 1e-5f, normed.view, p->is_gated, pairs.view};
    lore_op_matmul_fused(at->queue, out, x, w, epilogue, &fusion);
    lore_free(grid_take(at, &normed)); /* between its sentinels */
    lore_free(grid_take(at, &pairs));
}

static float *run_product(const side *at, const product *p, const lore_matrix *parts,
                          const float *x, const float *bias, const float *norm, const float *old)
{
    const bool is_ref = lore_backend_get_kind(at->backend) == LORE_BACKEND_REF;
    const int32_t rows_of_w = p->outs * p->parts, outs = p->is_gated ? rows_of_w / 2 : rows_of_w;
    lore_weight *weight = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(at->backend, parts, p->parts, LORE_USE_MATMUL, &weight, &err), &err);
    grid in = grid_typed(at, is_ref ? LORE_F32 : p->x, SENTINEL, x, p->rows, p->depth, p->gap);
    grid out =
        grid_typed(at, is_ref ? LORE_F32 : p->out, SENTINEL, old, p->rows, outs, 3 * (p->gap % 2));
    float *own_bias = p->has_bias ? upload(at, bias, (size_t)rows_of_w * sizeof *bias) : NULL;
    float *own_norm = upload(at, norm, (size_t)p->depth * sizeof *norm);
    const lore_epilogue epilogue = {
        .bias = own_bias, .activation = p->activation, .is_accumulating = p->is_accumulating};
    if (p->is_fused) {
        run_fused(at, p, out.view, in.view, weight, epilogue, own_norm);
    } else {
        lore_op_matmul(at->queue, out.view, in.view, weight, epilogue);
    }
    float *got = grid_take(at, &out);
    lore_free(grid_take(at, &in));
    lore_backend_free(at->backend, own_bias);
    lore_backend_free(at->backend, own_norm);
    lore_weight_free(weight);
    return got;
}

static void check_product(const subject *on, const product *p)
{
    source from[3];
    lore_matrix given[3], effective[3];
    for (int32_t i = 0; i < p->parts; i++) {
        from[i] = source_new(p->w, LORE_PRECISION_BF16, p->outs, p->depth);
        given[i] = from[i].matrix;
        effective[i] = from[i].effective;
    }
    const int32_t rows_of_w = p->outs * p->parts, outs = p->is_gated ? rows_of_w / 2 : rows_of_w;
    const size_t count = (size_t)p->rows * (size_t)outs;
    float *x = random_cells(p->x, p->rows, p->depth), *bias = random_floats((size_t)rows_of_w);
    float *norm = random_floats((size_t)p->depth), *old = random_floats(count);
    for (int32_t i = 0; i < p->depth; i++) { /* sums near one, where activations bend */
        norm[i] *= 2.0f / sqrtf((float)p->depth);
    }
    /* the fused product rounds behind the norm, which is no input of ref's */
    float *rounded = p->is_fused
                         ? random_cells(LORE_F32, 0, 0)
                         : effective_inputs(LORE_PRECISION_BF16, p->w, x, p->rows, p->depth);
    const float *before = p->is_accumulating ? old : NULL;
    float *want =
        run_product(&on->ref, p, effective, p->is_fused ? x : rounded, bias, norm, before);
    float *got = run_product(&on->test, p, given, x, bias, norm, before);
    for (int32_t i = 0; i < p->parts; i++) {
        source_free(&from[i]);
    }
    lore_free(x);
    lore_free(bias);
    lore_free(norm);
    lore_free(old);
    lore_free(rounded);
    char name[160];
    name_of(p, name);
    compare_rounded(name, got, want, count, unit_of(p),
                    p->activation != LORE_ACT_NONE && !p->is_gated ? 1.0 : 1e-30);
}

/* Depths of the fast ways (eights; sixteens of int8) and of the slow one, less than a line of one
 * warp and more than a round of all. */
#define DEPTHS \
    8, 16, 24, 48, 64, 72, 96, 128, 136, 264, 512, 520, 1024, 1040, 1048, 2064, 7, 65, 100
#define ROWS 0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 130

TEST(gpu_products)
{
    subject on;
    start(&on);
    static const lore_dtype dtypes[] = {LORE_BF16, LORE_I8, LORE_F16, LORE_BF16};
    for (int i = 0; i < 220; i++) {
        product p = {.rows = PICK(ROWS),
                     .depth = PICK(DEPTHS),
                     .outs = PICK(1, 7, 8, 9, 15, 16, 17, 31, 33, 130),
                     .parts = 1 + random_below(3),
                     .w = dtypes[i % 4],
                     .x = random_dtype(),
                     .out = random_dtype(),
                     .gap = PICK(0, 0, 8, 5),
                     .has_bias = random_below(2) == 0,
                     .activation = random_below(2) == 0
                                       ? LORE_ACT_NONE
                                       : (lore_activation)random_below(ACTIVATIONS)};
        p.is_accumulating = p.out == LORE_F32 && random_below(2) == 0;
        check_product(&on, &p);
    }
    subject_close(&on);
}

/* More tiles than blocks, so that a block goes on to another tile; on the largest device too. */
TEST(gpu_products_in_rounds)
{
    subject on;
    start(&on);
    for (int i = 0; i < 6; i++) {
        const lore_dtype w = i % 2 == 0 ? LORE_BF16 : LORE_I8;
        check_product(&on, &(product){.rows = PICK(1, 3, 8, 16),
                                      .depth = PICK(16, 144, 1088),
                                      .outs = PICK(4999, 9001, 13000),
                                      .parts = 1,
                                      .w = w,
                                      .x = between,
                                      .out = i % 3 == 0 ? LORE_F32 : between,
                                      .is_accumulating = i % 3 == 0});
        check_product(&on, &(product){.rows = PICK(1, 4, 5, 16),
                                      .depth = PICK(16, 144, 1088),
                                      .outs = PICK(2503, 5001),
                                      .parts = 2,
                                      .w = w,
                                      .x = LORE_F32,
                                      .out = between,
                                      .is_fused = true,
                                      .is_gated = true,
                                      .activation = LORE_ACT_SILU});
    }
    subject_close(&on);
}

TEST(gpu_fused_products)
{
    subject on;
    start(&on);
    static const lore_dtype dtypes[] = {LORE_BF16, LORE_I8, LORE_F16};
    for (int i = 0; i < 160; i++) {
        product p = {.rows = PICK(ROWS),
                     .depth = PICK(DEPTHS, 8192, 12288),
                     .outs = PICK(1, 7, 8, 9, 16, 33, 130),
                     .parts = 2,
                     .w = dtypes[i % 3],
                     .x = LORE_F32,
                     .out = random_dtype(),
                     .gap = PICK(0, 0, 8, 5),
                     .has_bias = random_below(2) == 0,
                     .is_fused = true,
                     .is_gated = i % 2 == 0};
        p.depth = p.rows > 33 && p.depth > 2064 ? 264 : p.depth;
        p.activation = p.is_gated ? (lore_activation)random_below(ACTIVATIONS) : LORE_ACT_NONE;
        p.is_accumulating = !p.is_gated && p.out == LORE_F32 && random_below(2) == 0;
        check_product(&on, &p);
    }
    subject_close(&on);
}

/* At a fixed count of rows a row's result is the same bits whatever the others hold. */
TEST(gpu_rows_are_alone)
{
    subject on;
    start(&on);
    enum { DEPTH = 1096, OUTS = 300 };
    static const int32_t counts[] = {2, 4, 7, 16, 33, 130};
    source from = source_new(LORE_BF16, LORE_PRECISION_BF16, OUTS, DEPTH);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const product p = {.rows = counts[i],
                           .depth = DEPTH,
                           .outs = OUTS,
                           .parts = 1,
                           .x = LORE_F32,
                           .out = LORE_F32,
                           .is_fused = true};
        float *norm = random_floats(DEPTH), *results[2];
        float *own = random_floats(DEPTH);
        for (int which = 0; which < 2; which++) {
            float *x = random_floats((size_t)p.rows * DEPTH);
            memcpy(x + DEPTH, own, DEPTH * sizeof *own);
            results[which] = run_product(&on.test, &p, &from.matrix, x, NULL, norm, NULL);
            lore_free(x);
        }
        CHECK(memcmp(results[0] + OUTS, results[1] + OUTS, OUTS * sizeof(float)) == 0);
        lore_free(results[0]);
        lore_free(results[1]);
        lore_free(norm);
        lore_free(own);
    }
    source_free(&from);
    subject_close(&on);
}

/* ---- ops over rows ---- */

typedef struct row_op {
    int which; /* rmsnorm, layernorm, the same in place, glu, add */
    int32_t rows, cols;
    lore_dtype x, out;
} row_op;

static const char *const row_op_names[] = {
    "rmsnorm", "layernorm", "rmsnorm in place", "layernorm in place", "glu", "add"};
enum { ROW_OPS = 6, IN_PLACE = 2, GLU = 4, ADD = 5 };

static float *run_row_op(const side *at, const row_op *op, const float *x, const float *w,
                         const float *b, const float *old)
{
    const bool is_ref = lore_backend_get_kind(at->backend) == LORE_BACKEND_REF;
    const size_t bytes = (size_t)op->cols * sizeof *w;
    grid in = grid_typed(at, is_ref ? LORE_F32 : op->x, SENTINEL, x, op->rows,
                         op->which == GLU ? 2 * op->cols : op->cols, op->rows % 3 * 4);
    grid out = grid_typed(at, is_ref ? LORE_F32 : op->out, SENTINEL, op->which == ADD ? old : NULL,
                          op->rows, op->cols, op->rows % 2 * 4);
    const bool is_in_place = op->which == IN_PLACE || op->which == IN_PLACE + 1;
    const lore_view to = is_in_place ? in.view : out.view;
    float *own_w = upload(at, w, bytes), *own_b = upload(at, b, bytes);
    if (op->which == GLU) {
        lore_op_glu(at->queue, to, in.view, LORE_ACT_SILU);
    } else if (op->which == ADD) {
        lore_op_add(at->queue, to, in.view);
    } else if (op->which % 2 == 0) {
        lore_op_rmsnorm(at->queue, to, in.view, own_w, 1e-5f);
    } else {
        lore_op_layernorm(at->queue, to, in.view, own_w, own_b, 1e-5f);
    }
    float *got = grid_take(at, is_in_place ? &in : &out);
    lore_free(grid_take(at, is_in_place ? &out : &in));
    lore_backend_free(at->backend, own_w);
    lore_backend_free(at->backend, own_b);
    return got;
}

/* While a queue is tuned each product is right, whichever way has its turn; from then on it is
 * computed in one way, to the same bits. Rows of a class of sizes, and not all of them. */
TEST(gpu_tuned_products)
{
    subject on;
    start(&on);
    enum { TURNS = 14 };
    static const int32_t counts[] = {17, 23, 32, 33, 100, 130, 300};
    static const lore_dtype dtypes[] = {LORE_BF16, LORE_I8};
    for (int32_t i = 0; i < 14; i++) {
        const product p = {.rows = counts[i / 2],
                           .depth = 1040,
                           .outs = 304,
                           .parts = 1,
                           .w = dtypes[i % 2],
                           .x = between,
                           .out = i % 4 < 2 ? LORE_F32 : between,
                           .gap = 8,
                           .is_accumulating = i % 4 == 0};
        lore_queue_tune(on.test.queue, true);
        for (int32_t k = 0; k < TURNS; k++) {
            check_product(&on, &p);
        }
        lore_queue_tune(on.test.queue, false);
        check_product(&on, &p);
        source from = source_new(p.w, LORE_PRECISION_BF16, p.outs, p.depth);
        const size_t count = (size_t)p.rows * (size_t)p.outs;
        float *x = random_cells(p.x, p.rows, p.depth), *norm = random_floats((size_t)p.depth);
        float *old = random_floats(count), *results[2];
        for (int which = 0; which < 2; which++) {
            results[which] = run_product(&on.test, &p, &from.matrix, x, NULL, norm,
                                         p.is_accumulating ? old : NULL);
        }
        CHECK(memcmp(results[0], results[1], count * sizeof(float)) == 0);
        lore_free(results[0]);
        lore_free(results[1]);
        lore_free(x);
        lore_free(norm);
        lore_free(old);
        source_free(&from);
    }
    subject_close(&on);
}

TEST(gpu_row_ops)
{
    subject on;
    start(&on);
    for (int i = 0; i < 150; i++) {
        row_op op = {.which = i % ROW_OPS,
                     .rows = PICK(0, 1, 2, 33, 150),
                     .cols = PICK(7, 8, 9, 16, 17, 64, 100, 384, 4096, 5000, 20004, 20007),
                     .x = random_dtype(),
                     .out = random_dtype()};
        op.rows = op.cols > 5000 && op.rows > 2 ? 2 : op.rows;
        op.out = op.which == ADD ? LORE_F32 : op.out;
        const int32_t wide = op.which == GLU ? 2 * op.cols : op.cols;
        float *x = random_cells(op.x, op.rows, wide), *w = random_floats((size_t)op.cols);
        float *b = random_floats((size_t)op.cols),
              *old = random_floats((size_t)op.rows * (size_t)op.cols);
        float *want = run_row_op(&on.ref, &op, x, w, b, old);
        float *got = run_row_op(&on.test, &op, x, w, b, old);
        lore_free(x);
        lore_free(w);
        lore_free(b);
        lore_free(old);
        const bool is_in_place = op.which == IN_PLACE || op.which == IN_PLACE + 1;
        compare_rounded(row_op_names[op.which], got, want, (size_t)op.rows * (size_t)op.cols,
                        (is_in_place ? op.x : op.out) == LORE_BF16 ? TOLERANCE_BF16_STORE
                                                                   : TOLERANCE_NORM,
                        1e-30);
    }
    subject_close(&on);
}

TEST(gpu_gather_and_embed)
{
    subject on;
    start(&on);
    for (int i = 0; i < 40; i++) {
        const int32_t rows = PICK(0, 1, 9), cols = PICK(1, 5, 8, 16, 65, 4100), gap = PICK(0, 4, 5);
        const lore_dtype dtype = random_dtype();
        float *x = random_cells(dtype, 20, cols), *results[2];
        source from = source_new(i % 2 == 0 ? LORE_I8 : LORE_BF16, LORE_PRECISION_BF16, 20, cols);
        int32_t ids[9];
        for (int32_t r = 0; r < rows; r++) {
            ids[r] = random_below(20);
        }
        int32_t *own = upload(&on.test, ids, (size_t)rows * sizeof *ids);
        grid in = grid_typed(&on.test, dtype, SENTINEL, x, 20, cols, gap);
        grid out = grid_typed(&on.test, dtype, SENTINEL, NULL, rows, cols, gap);
        lore_op_gather(on.test.queue, out.view, in.view, own);
        float *got = grid_take(&on.test, &out);
        for (int32_t r = 0; r < rows; r++) {
            CHECK(memcmp(got + (size_t)r * (size_t)cols, x + (size_t)ids[r] * (size_t)cols,
                         (size_t)cols * sizeof *x) == 0);
        }
        lore_free(got);
        lore_free(grid_take(&on.test, &in));
        lore_backend_free(on.test.backend, own);
        int which = 0;
        ON_BOTH(&on, at)
        {
            lore_weight *table = NULL;
            lore_error err = {0};
            CHECK_OK(lore_weight_pack(at->backend, &from.matrix, 1, LORE_USE_BOTH, &table, &err),
                     &err);
            int32_t *there = upload(at, ids, (size_t)rows * sizeof *ids);
            grid to = grid_typed(at, LORE_F32, SENTINEL, NULL, rows, cols, gap);
            lore_op_embed(at->queue, to.view, table, there, 2.5f, false);
            results[which++] = grid_take(at, &to);
            lore_backend_free(at->backend, there);
            lore_weight_free(table);
        }
        source_free(&from);
        lore_free(x);
        compare_rounded("embed", results[1], results[0], (size_t)rows * (size_t)cols, 1e-6, 1e-30);
    }
    subject_close(&on);
}

/* ---- rotation ---- */

typedef struct turn {
    int32_t heads, kv_heads, dim, rope_dim, past, rows, page_tokens;
    bool has_norms;
} turn;

enum { TURN_POSITIONS = 64, TURN_PAGES = 70 };

/* Queries as they are left, then keys and values of all positions. */
static float *run_turn(const side *at, const turn *t, const float *qkv, const float *tables,
                       const float *norms)
{
    const bool is_ref = lore_backend_get_kind(at->backend) == LORE_BACKEND_REF;
    const lore_dtype dtype = is_ref ? LORE_F32 : between;
    const int32_t cols = (t->heads + 2 * t->kv_heads) * t->dim, q_cols = t->heads * t->dim;
    const size_t half = (size_t)TURN_POSITIONS * (size_t)(t->rope_dim / 2);
    const int32_t page_cols = t->kv_heads * t->page_tokens * t->dim;
    int32_t lists[8 + TURN_PAGES] = {0, t->rows, t->past, 0, TURN_PAGES, 0, 0, 0};
    shuffle(lists + 8, TURN_PAGES);
    float *zeros = random_cells(LORE_BF16, TURN_PAGES, page_cols);
    memset(zeros, 0, (size_t)TURN_PAGES * (size_t)page_cols * sizeof *zeros);
    grid in = grid_typed(at, dtype, SENTINEL, qkv, t->rows, cols, t->rows % 2 * 4);
    grid keys = grid_typed(at, dtype, SENTINEL, zeros, TURN_PAGES, page_cols, 0);
    grid values = grid_typed(at, dtype, SENTINEL, zeros, TURN_PAGES, page_cols, 0);
    int32_t *own = upload(at, lists, sizeof lists);
    float *own_tables = upload(at, tables, 2 * half * sizeof *tables);
    float *own_norms = upload(at, norms, 2 * (size_t)t->dim * sizeof *norms);
    const lore_rope rope = {own_tables,
                            own_tables + half,
                            TURN_POSITIONS,
                            NULL,
                            t->heads,
                            t->rope_dim,
                            t->has_norms ? own_norms : NULL,
                            t->has_norms ? own_norms + t->dim : NULL,
                            1e-6f};
    const lore_pages pages = {keys.view.data, values.view.data, dtype, TURN_PAGES,
                              t->page_tokens, t->kv_heads,      t->dim};
    const lore_batch batch = {1,       t->rows, own,     own + 2,
                              own + 3, own + 8, t->rows, t->past + t->rows};
    lore_op_rope_append(at->queue, in.view, &rope, &pages, &batch);
    float *all = grid_take(at, &in), *k = grid_take(at, &keys), *v = grid_take(at, &values);
    const size_t q_count = (size_t)t->rows * (size_t)q_cols,
                 page_count = (size_t)t->kv_heads * (size_t)t->page_tokens * (size_t)t->dim;
    float *out = host_new((q_count + 2 * TURN_PAGES * page_count) * sizeof *out);
    for (int32_t r = 0; r < t->rows; r++) {
        memcpy(out + (size_t)r * (size_t)q_cols, all + (size_t)r * (size_t)cols,
               (size_t)q_cols * sizeof *out);
    }
    for (size_t i = 0; i < TURN_PAGES; i++) { /* in the order of the text */
        const size_t page = (size_t)lists[8 + i];
        memcpy(out + q_count + i * page_count, k + page * page_count, page_count * sizeof *out);
        memcpy(out + q_count + (TURN_PAGES + i) * page_count, v + page * page_count,
               page_count * sizeof *out);
    }
    lore_free(all);
    lore_free(k);
    lore_free(v);
    lore_free(zeros);
    lore_backend_free(at->backend, own);
    lore_backend_free(at->backend, own_tables);
    lore_backend_free(at->backend, own_norms);
    return out;
}

TEST(gpu_rope_append_bf16)
{
    subject on;
    start(&on);
    for (int i = 0; i < 40; i++) {
        turn t = {.heads = PICK(1, 2, 5, 12),
                  .kv_heads = PICK(1, 2),
                  .dim = PICK(2, 6, 16, 34, 64, 96, 128, 256),
                  .past = PICK(0, 1, 31),
                  .rows = PICK(1, 2, 30),
                  .page_tokens = PICK(1, 3, 16, 32),
                  .has_norms = i % 3 == 0};
        t.rope_dim = i % 2 == 0 ? t.dim : 2 * (1 + random_below(t.dim / 2));
        const int32_t cols = (t.heads + 2 * t.kv_heads) * t.dim;
        float *qkv = random_cells(LORE_BF16, t.rows, cols);
        float *tables = random_floats((size_t)TURN_POSITIONS * (size_t)t.rope_dim);
        float *norms = random_floats(2 * (size_t)t.dim);
        float *want = run_turn(&on.ref, &t, qkv, tables, norms);
        float *got = run_turn(&on.test, &t, qkv, tables, norms);
        const size_t count =
            (size_t)t.rows * (size_t)(t.heads * t.dim) +
            2 * TURN_PAGES * (size_t)t.kv_heads * (size_t)t.page_tokens * (size_t)t.dim;
        lore_free(qkv);
        lore_free(tables);
        lore_free(norms);
        compare_rounded("rope_append of bf16", got, want, count, TOLERANCE_BF16_STORE, 0.1);
    }
    subject_close(&on);
}

/* ---- one op behind the other ---- */

/* The products of a decoder's layers over and over on the same few buffers, the rows of one step
 * read, overwritten and added to again by the next. */
typedef struct chain {
    lore_weight *wide, *gate_up, *down;
    float *norm;
    void *x, *normed, *wide_out, *gate_up_out, *hidden;
} chain;

enum { CHAIN_WIDTH = 512, CHAIN_WIDE = 768, CHAIN_FFN = 1536, CHAIN_ROUNDS = 40 };

static void run_chain(const side *at, const chain *c, int32_t rows, bool is_waiting)
{
    const lore_view x = lore_view_of(c->x, rows, CHAIN_WIDTH);
    const lore_view normed = lore_view_as(between, c->normed, rows, CHAIN_WIDTH);
    const lore_view wide = lore_view_as(between, c->wide_out, rows, CHAIN_WIDE);
    const lore_view hidden = lore_view_as(between, c->hidden, rows, CHAIN_FFN);
    const lore_view pairs = lore_view_as(between, c->gate_up_out, rows, 2 * CHAIN_FFN);
    const lore_fusion norm = {.norm = c->norm, .eps = 1e-5f, .normed = normed};
    const lore_fusion gated = {c->norm, 1e-5f, normed, true, pairs};
    for (int i = 0; i < CHAIN_ROUNDS; i++) {
        lore_op_matmul_fused(at->queue, wide, x, c->wide, (lore_epilogue){0}, &norm);
        if (is_waiting) {
            sync(at);
        }
        lore_op_glu(at->queue, lore_view_columns(hidden, 0, CHAIN_WIDE / 2), wide, LORE_ACT_TANH);
        if (is_waiting) {
            sync(at);
        }
        lore_op_add(at->queue, lore_view_columns(x, 0, CHAIN_WIDE / 2),
                    lore_view_columns(hidden, 0, CHAIN_WIDE / 2));
        if (is_waiting) {
            sync(at);
        }
        lore_op_matmul_fused(at->queue, hidden, x, c->gate_up,
                             (lore_epilogue){.activation = LORE_ACT_TANH}, &gated);
        if (is_waiting) {
            sync(at);
        }
        lore_op_matmul(at->queue, x, hidden, c->down, (lore_epilogue){.is_accumulating = true});
        if (is_waiting) {
            sync(at);
        }
    }
    sync(at);
}

/* Kernels that begin before the one ahead of them has ended must give the bits they give alone. */
TEST(gpu_chain)
{
    subject on;
    start(&on);
    static const int32_t counts[] = {1, 4, 5, 8, 16, 33};
    static const int32_t outs[3] = {CHAIN_WIDE, 2 * CHAIN_FFN, CHAIN_WIDTH};
    static const int32_t depths[3] = {CHAIN_WIDTH, CHAIN_WIDTH, CHAIN_FFN};
    const side *at = &on.test;
    chain c = {0};
    lore_weight **weights[3] = {&c.wide, &c.gate_up, &c.down};
    for (int i = 0; i < 3; i++) {
        lore_error err = {0};
        source from = source_new(LORE_BF16, LORE_PRECISION_BF16, outs[i], depths[i]);
        CHECK_OK(lore_weight_pack(at->backend, &from.matrix, 1, LORE_USE_MATMUL, weights[i], &err),
                 &err);
        source_free(&from);
    }
    float *norm = random_floats(CHAIN_WIDTH), *first = random_floats(33 * CHAIN_WIDTH);
    for (int32_t i = 0; i < CHAIN_WIDTH; i++) {
        norm[i] *= 0.1f; /* tanh of what is not always one */
    }
    c.norm = upload(at, norm, CHAIN_WIDTH * sizeof *norm);
    c.x = upload(at, first, 33 * CHAIN_WIDTH * sizeof *first);
    float *rest = random_floats(33 * 2 * CHAIN_FFN); /* what is there before */
    c.normed = upload(at, rest, 33 * CHAIN_WIDTH * lore_dtype_size(between));
    c.wide_out = upload(at, rest, 33 * CHAIN_WIDE * lore_dtype_size(between));
    c.gate_up_out = upload(at, rest, 33 * 2 * CHAIN_FFN * lore_dtype_size(between));
    c.hidden = upload(at, rest, 33 * CHAIN_FFN * lore_dtype_size(between));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const size_t bytes = (size_t)counts[i] * CHAIN_WIDTH * sizeof(float);
        float *results[4];
        for (int run = 0; run < 4; run++) { /* the first waits behind each op */
            results[run] = host_new(bytes);
            lore_queue_upload(at->queue, c.x, first, bytes);
            run_chain(at, &c, counts[i], run == 0);
            lore_queue_download(at->queue, results[run], c.x, bytes);
            sync(at);
            CHECK(memcmp(results[run], results[0], bytes) == 0);
        }
        CHECK(memcmp(results[0], first, bytes) != 0 && isfinite(results[0][0]));
        for (int run = 0; run < 4; run++) {
            lore_free(results[run]);
        }
    }
    void *memory[] = {c.norm, c.x, c.normed, c.wide_out, c.gate_up_out, c.hidden};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        lore_backend_free(at->backend, memory[i]);
    }
    for (int i = 0; i < 3; i++) {
        lore_weight_free(*weights[i]);
    }
    lore_free(norm);
    lore_free(first);
    lore_free(rest);
    subject_close(&on);
}

CHECK_MAIN(gpu_products, gpu_products_in_rounds, gpu_fused_products, gpu_rows_are_alone,
           gpu_tuned_products, gpu_row_ops, gpu_gather_and_embed, gpu_rope_append_bf16, gpu_chain)
