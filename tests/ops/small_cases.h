/* Ops over rows on a backend under test, against ref: tables, norms, activations, pooling and the
 * scan of vectors. */
#ifndef LORE_TESTS_SMALL_CASES_H
#define LORE_TESTS_SMALL_CASES_H

#include "kernels/search.h"
#include "tests/ops/matmul_cases.h"

/* ---- embed and gather ---- */

CHECK_UNUSED static void cases_embed(const subject *on)
{
    static const lore_dtype dtypes[] = {LORE_F32, LORE_F16, LORE_BF16, LORE_I8, LORE_I4};
    for (int i = 0; i < 40; i++) {
        const float scale = i % 3 == 0 ? 1.0f : 22.627417f;
        const int32_t rows = PICK(0, 1, 7, 40), cols = PICK(1, 7, 8, 15, 16, 17, 33, 64, 384),
                      table_rows = 13;
        source from[2];
        for (int j = 0; j < 2; j++) {
            from[j] =
                source_new(dtypes[(i + j * (i / 5)) % 5], LORE_PRECISION_F32, table_rows, cols);
        }
        const lore_matrix parts[2] = {from[0].matrix, from[1].matrix};
        int32_t ids[40];
        for (int32_t r = 0; r < rows; r++) {
            ids[r] = random_below(2 * table_rows);
        }
        float *old = random_floats((size_t)rows * (size_t)cols), *results[2];
        int which = 0;
        ON_BOTH(on, at)
        {
            lore_weight *table = NULL;
            lore_error err = {0};
            CHECK_OK(lore_weight_pack(at->backend, parts, 2,
                                      i % 3 == 0 ? LORE_USE_BOTH : LORE_USE_EMBED, &table, &err),
                     &err);
            grid out = grid_new(at, old, rows, cols, 2);
            int32_t *own_ids = upload(at, ids, (size_t)rows * sizeof *ids);
            lore_op_embed(at->queue, out.view, table, own_ids, scale, i % 2 == 1);
            results[which++] = grid_take(at, &out);
            lore_backend_free(at->backend, own_ids);
            lore_weight_free(table);
        }
        source_free(&from[0]);
        source_free(&from[1]);
        lore_free(old);
        compare(on, "embed", results[1], results[0], (size_t)rows * (size_t)cols,
                6e-7); /* two roundings, one of them fused */
    }
}

/* Ids below 0 are taken from the draws: the rows are those of the ids that they stand for. */
CHECK_UNUSED static void cases_embed_drawn(const subject *on)
{
    enum { MOST = 300, DRAWS = 40, TABLE = 13 };
    for (int i = 0; i < 8; i++) {
        const int32_t rows = PICK(0, 1, 8, 255, 256, 257, MOST), cols = PICK(1, 8, 33);
        source from = source_new(LORE_F32, LORE_PRECISION_F32, TABLE, cols);
        int32_t ids[MOST], drawn[DRAWS], meant[MOST];
        for (int32_t k = 0; k < DRAWS; k++) {
            drawn[k] = random_below(TABLE);
        }
        for (int32_t r = 0; r < rows; r++) {
            ids[r] = random_below(2) == 0 ? -1 - random_below(DRAWS) : random_below(TABLE);
            meant[r] = ids[r] < 0 ? drawn[-1 - ids[r]] : ids[r];
        }
        ON_BOTH(on, at)
        {
            lore_weight *table = NULL;
            lore_error err = {0};
            CHECK_OK(lore_weight_pack(at->backend, &from.matrix, 1, LORE_USE_EMBED, &table, &err),
                     &err);
            grid out = grid_new(at, NULL, rows, cols, 3), want = grid_new(at, NULL, rows, cols, 0);
            int32_t *own = upload(at, ids, (size_t)rows * sizeof *ids);
            int32_t *own_drawn = upload(at, drawn, sizeof drawn);
            int32_t *own_meant = upload(at, meant, (size_t)rows * sizeof *meant);
            lore_op_embed_drawn(at->queue, out.view, table, own, own_drawn, 2.5f);
            lore_op_embed(at->queue, want.view, table, own_meant, 2.5f, false);
            float *got = grid_take(at, &out), *wanted = grid_take(at, &want);
            CHECK(memcmp(got, wanted, (size_t)rows * (size_t)cols * sizeof *got) == 0);
            lore_free(got);
            lore_free(wanted);
            lore_backend_free(at->backend, own);
            lore_backend_free(at->backend, own_drawn);
            lore_backend_free(at->backend, own_meant);
            lore_weight_free(table);
        }
        source_free(&from);
    }
}

CHECK_UNUSED static void cases_gather(const subject *on)
{
    for (int i = 0; i < 12; i++) {
        const int32_t rows = PICK(0, 1, 9), cols = PICK(1, 5, 16, 65);
        float *x = random_floats(20 * (size_t)cols), *results[2];
        int32_t indexes[9];
        for (int32_t r = 0; r < rows; r++) {
            indexes[r] = random_below(20);
        }
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, 20, cols, 1), out = grid_new(at, NULL, rows, cols, 7);
            int32_t *own = upload(at, indexes, (size_t)rows * sizeof *indexes);
            lore_op_gather(at->queue, out.view, in.view, own);
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
            lore_backend_free(at->backend, own);
        }
        lore_free(x);
        compare(on, "gather", results[1], results[0], (size_t)rows * (size_t)cols, TOLERANCE_EXACT);
    }
}

/* ---- norms and activation ---- */

static float *run_norm(const side *at, const float *x, const float *w, const float *b, int32_t rows,
                       int32_t cols, float eps, bool is_layernorm, bool is_in_place)
{
    grid in = grid_new(at, x, rows, cols, 3), out = grid_new(at, NULL, rows, cols, 1);
    float *own_w = upload(at, w, (size_t)cols * sizeof *w),
          *own_b = b != NULL ? upload(at, b, (size_t)cols * sizeof *b) : NULL;
    grid *to = is_in_place ? &in : &out, *other = is_in_place ? &out : &in;
    if (is_layernorm) {
        lore_op_layernorm(at->queue, to->view, in.view, own_w, own_b, eps);
    } else {
        lore_op_rmsnorm(at->queue, to->view, in.view, own_w, eps);
    }
    float *got = grid_take(at, to);
    lore_free(grid_take(at, other));
    lore_backend_free(at->backend, own_w);
    lore_backend_free(at->backend, own_b);
    return got;
}

CHECK_UNUSED static void cases_norms(const subject *on)
{
    for (int i = 0; i < 40; i++) {
        const int32_t rows = PICK(0, 1, 2, 33, 150),
                      cols = PICK(2, 7, 8, 9, 15, 16, 17, 64, 100, 384, 512);
        float *x = random_floats((size_t)rows * (size_t)cols);
        const float eps =
            cols < 15 ? 0.1f : 1e-12f; /* two nearly equal numbers have no variance to divide by */
        for (size_t j = 0; j < (size_t)rows * (size_t)cols && cols >= 15; j++) {
            x[j] += 3.0f; /* a mean far from zero: E[x^2] - mean^2 would cancel */
        }
        float *w = random_floats((size_t)cols), *b = random_floats((size_t)cols);
        const float *bias = i % 8 < 4 ? b : NULL;
        float *want = run_norm(&on->ref, x, w, bias, rows, cols, eps, i % 2 == 0, false);
        float *got = run_norm(&on->test, x, w, bias, rows, cols, eps, i % 2 == 0, i % 4 < 2);
        lore_free(x);
        lore_free(w);
        lore_free(b);
        compare(on, i % 2 == 0 ? "layernorm" : "rmsnorm", got, want, (size_t)rows * (size_t)cols,
                TOLERANCE_NORM);
    }
}

CHECK_UNUSED static void cases_glu(const subject *on)
{
    for (int i = 0; i < 30; i++) {
        const int32_t rows = PICK(0, 1, 3, 40), cols = PICK(1, 7, 8, 9, 16, 17, 100, 1536);
        float *x = random_floats((size_t)rows * 2 * (size_t)cols), *results[2];
        for (int32_t j = 0; j < rows; j++) { /* exp must neither overflow nor lose its sign here */
            x[(size_t)j * 2 * (size_t)cols] = j % 2 == 0 ? 95.0f : -95.0f;
        }
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, 2 * cols, 1), out = grid_new(at, NULL, rows, cols, 2);
            lore_op_glu(at->queue, out.view, in.view, (lore_activation)(i % ACTIVATIONS));
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
        }
        lore_free(x);
        char what[32];
        snprintf(what, sizeof what, "glu%s", activation_names[i % ACTIVATIONS]);
        compare_above(on, what, results[1], results[0], (size_t)rows * (size_t)cols,
                      TOLERANCE_ACTIVATION, 1.0);
    }
}

/* Every activation over a fine grid of its whole range, against ref: relative where the result is
 * large, absolute where it is small. */
CHECK_UNUSED static void cases_activations(const subject *on)
{
    enum { STEPS = 40001 };
    float *x = host_new(2 * STEPS * sizeof *x), *results[2];
    for (int32_t i = 0; i < STEPS; i++) {
        x[i] = (float)(i - STEPS / 2) * 0.001f;
        x[STEPS + i] = 1.0f;
    }
    for (int activation = 0; activation < ACTIVATIONS; activation++) {
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, 1, 2 * STEPS, 0), out = grid_new(at, NULL, 1, STEPS, 0);
            lore_op_glu(at->queue, out.view, in.view, (lore_activation)activation);
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
        }
        for (int32_t i = 0; i < STEPS; i++) {
            const double want = (double)results[0][i], least = fabs(want) > 1.0 ? fabs(want) : 1.0;
            if (!(fabs((double)results[1][i] - want) <= 2e-6 * least)) {
                CHECK_STOP("activation %d of %g on %s: %.9g, not %.9g", activation, (double)x[i],
                           on->name, (double)results[1][i], want);
            }
        }
        lore_free(results[0]);
        lore_free(results[1]);
    }
    lore_free(x);
    for (int activation = 0; activation < ACTIVATIONS; activation++) {
        const float special[6] = {NAN, INFINITY, -INFINITY, 1.0f, 1.0f, 1.0f};
        const bool is_tanh = activation == LORE_ACT_TANH;
        grid in = grid_new(&on->test, special, 1, 6, 0), out = grid_new(&on->test, NULL, 1, 3, 0);
        lore_op_glu(on->test.queue, out.view, in.view, (lore_activation)activation);
        float *got = grid_take(&on->test, &out);
        CHECK(isnan(got[0]));
        CHECK(is_tanh ? got[1] > 0.999999f : isinf(got[1]) && got[1] > 0.0f);
        CHECK(!is_tanh || got[2] < -0.999999f);
        lore_free(got);
        lore_free(grid_take(&on->test, &in));
    }
}

CHECK_UNUSED static void cases_add_and_softcap(const subject *on)
{
    for (int i = 0; i < 24; i++) {
        const int32_t rows = PICK(0, 1, 3, 40), cols = PICK(1, 7, 8, 9, 16, 17, 100, 20000);
        const float cap = i % 3 == 0 ? 30.0f : 0.7f;
        float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
        float *y = random_floats((size_t)rows * (size_t)cols);
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, cols, 1), out = grid_new(at, y, rows, cols, 2);
            if (i % 2 == 0) {
                lore_op_add(at->queue, out.view, in.view);
            } else {
                lore_op_softcap(at->queue, out.view, cap);
            }
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
        }
        lore_free(x);
        lore_free(y);
        compare_above(on, i % 2 == 0 ? "add" : "softcap", results[1], results[0],
                      (size_t)rows * (size_t)cols, i % 2 == 0 ? TOLERANCE_EXACT : 2e-6, 1.0);
    }
}

/* ---- pooling ---- */

CHECK_UNUSED static void cases_pool(const subject *on)
{
    for (int i = 0; i < 18; i++) {
        const int32_t sequences = PICK(0, 1, 5), cols = PICK(1, 8, 15, 16, 17, 384);
        int32_t starts[6] = {0};
        for (int32_t s = 0; s < sequences; s++) {
            starts[s + 1] = starts[s] + 1 + random_below(9);
        }
        const int32_t rows = starts[sequences];
        float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
        if (sequences == 1) { /* a zero vector stays zero, not NaN */
            memset(x, 0, (size_t)rows * (size_t)cols * sizeof *x);
        }
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, cols, 4), out = grid_new(at, NULL, sequences, cols, 1);
            int32_t *own = upload(at, starts, sizeof starts);
            lore_op_pool(at->queue, out.view, in.view, own, (lore_pooling)(i % 3), i / 3 % 2 == 0);
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
            lore_backend_free(at->backend, own);
        }
        lore_free(x);
        compare(on, "pool", results[1], results[0], (size_t)sequences * (size_t)cols,
                TOLERANCE_SUM);
    }
}

/* ---- scan ---- */

CHECK_UNUSED static void cases_scan(const subject *on)
{
    for (int i = 0; i < 20; i++) {
        const int32_t count = PICK(0, 1, 255, 256, 257, 1500),
                      dim = PICK(1, 15, 16, 17, 63, 64, 65, 384);
        int8_t *query = store_as(LORE_I8, NULL, (size_t)dim);
        int8_t *vectors = store_as(LORE_I8, NULL, (size_t)count * (size_t)dim);
        if (i % 4 == 0) { /* the largest sum there is */
            memset(query, -128, (size_t)dim);
            memset(vectors, -128, (size_t)count * (size_t)dim);
        }
        float *scales = random_floats((size_t)count), *results[2];
        int which = 0;
        ON_BOTH(on, at)
        {
            grid out = grid_new(at, NULL, 1, count, 1);
            int8_t *own_query = upload(at, query, (size_t)dim);
            int8_t *own_vectors = upload(at, vectors, (size_t)count * (size_t)dim);
            float *own_scales = upload(at, scales, (size_t)count * sizeof *scales);
            lore_op_scan(at->queue, out.view.data, own_query, 0.02f, own_vectors, own_scales, count,
                         dim);
            results[which++] = grid_take(at, &out);
            lore_backend_free(at->backend, own_query);
            lore_backend_free(at->backend, own_vectors);
            lore_backend_free(at->backend, own_scales);
        }
        lore_free(query);
        lore_free(vectors);
        lore_free(scales);
        compare(on, "scan", results[1], results[0], (size_t)count, TOLERANCE_INT8_SUM);
    }
}

#endif
