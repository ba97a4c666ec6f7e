/* Products with adapters on a backend under test. What must come out is what the backend itself
 * gives without adapters, in the same shape, plus the change that is worked out here in double. */
#ifndef LORE_TESTS_LORA_CASES_H
#define LORE_TESTS_LORA_CASES_H

#include "kernels/lora.h"
#include "tests/ops/matmul_cases.h"

/* ---- tolerances, with their reasons ----
 * Beside the size of a change, and a thousandth of what it is added to.
 * LORA_F32   sums in another order, and the rounding of what it is added to
 * LORA_BF16  x and x A^T rounded to bf16, 2^-9 each, the worst of thousands
 * LORA_INT8  these in int8, a step of which is a twentieth of most where one is an outlier; A and B
 *            too, with one scale for 16 rows of a matrix; the worst of hundreds of thousands */
static const double TOLERANCE_LORA_F32 = 3e-4;
static const double TOLERANCE_LORA_BF16 = 2e-2;
static const double TOLERANCE_LORA_INT8 = 2e-1;

enum { LORA_ADAPTERS_MAX = 9, LORA_PARTS = LORE_LORA_PARTS_MAX };

typedef struct lora_case {
    int32_t rows, depth, parts, outs[LORA_PARTS];
    int32_t adapters;
    int32_t ranks[LORA_ADAPTERS_MAX][LORA_PARTS]; /* 0: this part is as it was */
    int32_t empty;                                /* segments at the end that nobody has */
    lore_dtype dtype;
    bool is_accumulating;
} lora_case;

/* An adapter in host memory, as read from a file, and in that of the side under test. */
typedef struct lora_fixture {
    int32_t rank;
    float *a, *b[LORA_PARTS]; /* NULL: no rank */
    float scales[LORA_PARTS];
    void *placed_a, *placed_b[LORA_PARTS], *table;
} lora_fixture;

enum { LORA_TABLE = 3, LORA_INDEX = 1 }; /* the product stands between two others */

static int32_t lora_outs(const lora_case *k)
{
    int32_t outs = 0;
    for (int32_t i = 0; i < k->parts; i++) {
        outs += k->outs[i];
    }
    return outs;
}

/* A matrix of values that both dtypes hold, placed in pieces of panels. */
static float *lora_matrix(const side *at, const lore_weight *weight, lore_dtype dtype, int32_t rows,
                          int32_t cols, void **placed)
{
    const size_t count = (size_t)rows * (size_t)cols;
    float *values = host_new(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        const float value = lore_random_unit(&random_state) - 0.5f;
        values[i] = lore_bf16_to_f32(lore_f32_to_bf16(value));
    }
    void *given = store_as(dtype, values, count);
    const size_t bytes = lore_lora_bytes(weight, dtype, rows, cols);
    char *packed = host_new(bytes);
    size_t used = 0;
    CHECK_INT(bytes % LORE_LORA_ALIGN, 0);
    memset(packed, 0xff, bytes); /* what padding there is must not matter */
    for (int32_t r = 0; r < rows;) {
        const int32_t some = LORE_LORA_PANEL * (1 + random_below(3));
        const int32_t piece = rows - r < some ? rows - r : some;
        used += lore_lora_pack(weight, dtype, rows, cols, given, r, piece, packed + used);
        r += piece;
    }
    CHECK(used <= bytes);
    *placed = upload(at, packed, bytes);
    sync(at);
    lore_free(given);
    lore_free(packed);
    return values;
}

static lora_fixture lora_fixture_new(const side *at, const lore_weight *weight, lore_dtype dtype,
                                     const lora_case *k, int32_t which)
{
    lora_fixture made = {0};
    lore_lora_product products[LORA_TABLE];
    memset(products, 0xff, sizeof products); /* ranks of the others: no number at all */
    lore_lora_product *p = &products[LORA_INDEX];
    p->part_count = 0;
    for (int32_t i = 0, column = 0; i < k->parts; column += k->outs[i++]) {
        const int32_t rank = k->ranks[which][i];
        if (rank > 0) {
            made.scales[i] = 0.25f + lore_random_unit(&random_state);
            made.b[i] = lora_matrix(at, weight, dtype, k->outs[i], rank, &made.placed_b[i]);
            p->parts[p->part_count++] = (lore_lora_part){.rank = rank,
                                                         .rank_start = made.rank,
                                                         .columns = k->outs[i],
                                                         .column_start = column,
                                                         .scale = made.scales[i],
                                                         .b = made.placed_b[i]};
            made.rank += rank;
        }
    }
    p->rank = made.rank;
    if (made.rank > 0) {
        made.a = lora_matrix(at, weight, dtype, made.rank, k->depth, &made.placed_a);
        p->a = made.placed_a;
    }
    made.table = upload(at, products, sizeof products);
    sync(at);
    return made;
}

static void lora_fixture_free(const side *at, lora_fixture *made)
{
    lore_free(made->a);
    lore_backend_free(at->backend, made->placed_a);
    lore_backend_free(at->backend, made->table);
    for (int32_t i = 0; i < LORA_PARTS; i++) {
        lore_free(made->b[i]);
        lore_backend_free(at->backend, made->placed_b[i]);
    }
}

/* What an adapter does to a row, out [outs], and how large that would be in each part if its terms
 * had nothing to do with one another: what their roundings are measured by. */
static void lora_change(const lora_case *k, const int32_t *ranks, const lora_fixture *adapter,
                        const float *x, double *out, double *sizes)
{
    double v[LORA_PARTS * 128], v_squares[LORA_PARTS * 128];
    for (int32_t r = 0; r < adapter->rank; r++) {
        v[r] = v_squares[r] = 0.0;
        for (int32_t c = 0; c < k->depth; c++) {
            const double term = (double)x[c] * (double)adapter->a[(int64_t)r * k->depth + c];
            v[r] += term;
            v_squares[r] += term * term;
        }
    }
    for (int32_t i = 0, first = 0; i < k->parts; first += ranks[i++]) {
        double squares = 0.0;
        for (int32_t o = 0; o < k->outs[i]; o++, out++, sizes++) {
            *out = *sizes = 0.0;
            for (int32_t r = 0; r < ranks[i]; r++) {
                const double b =
                    (double)adapter->scales[i] * (double)adapter->b[i][(int64_t)o * ranks[i] + r];
                *out += v[first + r] * b;
                *sizes += v_squares[first + r] * b * b;
            }
            squares += *sizes;
        }
        for (int32_t o = 0; o < k->outs[i]; o++) {
            sizes[o - k->outs[i]] = sqrt(squares / k->outs[i]);
        }
    }
}

/* The tables of a step in which row r has adapter owners[r] (-1: none), segments in random order,
 * in a side's memory. */
typedef struct lora_tables {
    void *order, *starts, *adapters;
    lore_lora lora;
} lora_tables;

static lora_tables lora_tables_new(const side *at, const lora_case *k, const lora_fixture *adapters,
                                   const int32_t *owners)
{
    const int32_t segments = k->adapters + k->empty;
    int32_t *turn = host_new((size_t)(k->adapters + 1) * sizeof *turn);
    int32_t *order = host_new((size_t)(k->rows + 1) * sizeof *order);
    int32_t *starts = host_new((size_t)(segments + 1) * sizeof *starts), count = 0, most = 1;
    const void **tables = host_new((size_t)(segments + 1) * sizeof *tables);
    shuffle(turn, k->adapters);
    for (int32_t i = 0; i < segments; i++) {
        starts[i] = count;
        tables[i] = i < k->adapters ? adapters[turn[i]].table : NULL;
        for (int32_t r = 0; r < k->rows && i < k->adapters; r++) {
            if (owners[r] == turn[i]) {
                order[count++] = r;
            }
        }
        most = i < k->adapters && adapters[i].rank > most ? adapters[i].rank : most;
    }
    starts[segments] = count;
    lora_tables made = {upload(at, order, (size_t)count * sizeof *order),
                        upload(at, starts, (size_t)(segments + 1) * sizeof *starts),
                        upload(at, tables, (size_t)segments * sizeof *tables),
                        {.index = LORA_INDEX, .rank_max = most, .dtype = k->dtype}};
    sync(at);
    made.lora.rank_max += random_below(2) * random_below(50); /* there was a larger one once */
    made.lora.rows = (lore_lora_rows){.segments = segments,
                                      .order = made.order,
                                      .starts = made.starts,
                                      .adapters = made.adapters};
    lore_free(turn);
    lore_free(order);
    lore_free(starts);
    lore_free(tables);
    return made;
}

static void lora_tables_free(const side *at, const lora_tables *tables)
{
    lore_backend_free(at->backend, tables->order);
    lore_backend_free(at->backend, tables->starts);
    lore_backend_free(at->backend, tables->adapters);
}

/* One product; lora may be NULL. */
static float *lora_run(const side *at, const lora_case *k, const lore_weight *weight,
                       const float *x, const float *bias, const float *old, const lore_lora *lora)
{
    grid in = grid_new(at, x, k->rows, k->depth, 5);
    grid out = grid_new(at, k->is_accumulating ? old : NULL, k->rows, lora_outs(k), 3);
    float *own_bias = bias != NULL ? upload(at, bias, (size_t)out.view.cols * sizeof *bias) : NULL;
    lore_op_matmul(
        at->queue, out.view, in.view, weight,
        (lore_epilogue){.bias = own_bias, .is_accumulating = k->is_accumulating, .lora = lora});
    float *got = grid_take(at, &out);
    lore_free(grid_take(at, &in));
    lore_backend_free(at->backend, own_bias);
    return got;
}

static double lora_tolerance(const subject *on, lore_dtype weights, lore_dtype dtype)
{
    return dtype == LORE_F32                                            ? TOLERANCE_LORA_F32
           : weights == LORE_I8 && on->precision == LORE_PRECISION_INT8 ? TOLERANCE_LORA_INT8
                                                                        : TOLERANCE_LORA_BF16;
}

/* Everything that has to hold of one case: rows with adapters change as they should, others not in
 * one bit; and a row of adapter 0 has the same bits where nobody else has an adapter. */
static void check_lora(const subject *on, const lora_case *k, lore_dtype dtype)
{
    const side *at = &on->test;
    source from[LORA_PARTS];
    lore_matrix given[LORA_PARTS];
    lora_fixture adapters[LORA_ADAPTERS_MAX];
    lore_weight *weight = NULL;
    lore_error err = {0};
    const size_t outs = (size_t)lora_outs(k), all = (size_t)k->rows * outs;
    for (int32_t i = 0; i < k->parts; i++) {
        from[i] = source_new(dtype, on->precision, k->outs[i], k->depth);
        given[i] = from[i].matrix;
    }
    CHECK_OK(lore_weight_pack(at->backend, given, k->parts, LORE_USE_MATMUL, &weight, &err), &err);
    for (int32_t i = 0; i < k->adapters; i++) {
        adapters[i] = lora_fixture_new(at, weight, k->dtype, k, i);
    }
    int32_t *owners = host_new((size_t)(k->rows + 1) * sizeof *owners);
    for (int32_t r = 0; r < k->rows; r++) {
        owners[r] = random_below(k->adapters + 1) - 1;
    }
    float *x = random_floats((size_t)k->rows * (size_t)k->depth), *old = random_floats(all);
    float *bias = random_floats(outs);
    float *base = lora_run(at, k, weight, x, bias, old, NULL);
    lora_tables tables = lora_tables_new(at, k, adapters, owners);
    float *got = lora_run(at, k, weight, x, bias, old, &tables.lora);
    lora_tables_free(at, &tables);
    double worst = 0.0, *change = host_new(2 * outs * sizeof *change);
    for (int32_t r = 0; r < k->rows; r++) {
        const float *own = got + (size_t)r * outs, *before = base + (size_t)r * outs;
        if (owners[r] < 0 || adapters[owners[r]].rank == 0) {
            CHECK(memcmp(own, before, outs * sizeof *own) == 0);
            continue;
        }
        lora_change(k, k->ranks[owners[r]], &adapters[owners[r]], x + (size_t)r * (size_t)k->depth,
                    change, change + outs);
        for (size_t o = 0; o < outs; o++) {
            const double difference = fabs((double)own[o] - (double)before[o] - change[o]);
            const double size = change[outs + o] + 1e-3 * fabs((double)before[o]) + 1e-6;
            worst = difference <= worst * size ? worst : difference / size; /* a NaN sticks */
        }
    }
    if (!(worst <= lora_tolerance(on, dtype, k->dtype))) {
        CHECK_STOP("lora %d x %d x %zu, %d adapters of %s on %s beside %s: error %.3g", k->rows,
                   k->depth, outs, k->adapters, lore_dtype_name(k->dtype), on->name,
                   lore_dtype_name(dtype), worst);
    }
    for (int32_t r = 0; r < k->rows; r++) {
        owners[r] = owners[r] == 0 ? 0 : -1;
    }
    tables = lora_tables_new(at, k, adapters, owners);
    float *alone = lora_run(at, k, weight, x, bias, old, &tables.lora);
    for (int32_t r = 0; r < k->rows && !is_on_device(on); r++) {
        const float *want = (owners[r] == 0 ? got : base) + (size_t)r * outs;
        CHECK(memcmp(alone + (size_t)r * outs, want, outs * sizeof *want) == 0);
    }
    lora_tables_free(at, &tables);
    for (int32_t i = 0; i < k->adapters; i++) {
        lora_fixture_free(at, &adapters[i]);
    }
    for (int32_t i = 0; i < k->parts; i++) {
        source_free(&from[i]);
    }
    void *memory[] = {x, old, bias, base, got, alone, owners, change};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        lore_free(memory[i]);
    }
    lore_weight_free(weight);
}

CHECK_UNUSED static void cases_lora(const subject *on)
{
    static const lore_dtype dtypes[] = {LORE_F32, LORE_BF16, LORE_I8, LORE_I4};
    const bool is_exact = lore_backend_lora_dtype(on->test.backend) == LORE_F32;
    for (int i = 0; i < 16; i++) {
        lora_case k = {.rows = PICK(0, 1, 2, 3, 5, 8, 9, 16, 17, 31, 33, 70),
                       .depth = PICK(1, 2, 3, 15, 16, 33, 64, 100, 130, 384),
                       .parts = 1 + random_below(3),
                       .adapters = random_below(LORA_ADAPTERS_MAX + 1),
                       .empty = random_below(3),
                       .dtype = is_exact || random_below(4) == 0 ? LORE_F32 : LORE_BF16,
                       .is_accumulating = random_below(2) == 0};
        for (int32_t p = 0; p < k.parts; p++) {
            k.outs[p] = PICK(1, 3, 15, 16, 17, 33, 64, 65, 130, 300);
        }
        for (int32_t a = 0; a < k.adapters; a++) {
            for (int32_t p = 0; p < k.parts; p++) {
                k.ranks[a][p] = random_below(4) == 0 ? 0 : PICK(1, 3, 8, 16, 16, 24, 64, 128);
            }
        }
        check_lora(on, &k, dtypes[i % 4]);
    }
    /* Several blocks of rows, several runs of panels, one adapter with most of the rows. */
    const lora_case large = {.rows = 200,
                             .depth = 1024,
                             .parts = 2,
                             .outs = {700, 640},
                             .adapters = 2,
                             .ranks = {{16, 16}, {8, 64}},
                             .dtype = is_exact ? LORE_F32 : LORE_BF16};
    check_lora(on, &large, on->precision == LORE_PRECISION_INT8 ? LORE_I8 : LORE_BF16);
}

/* A gated product: both halves get their share before the activation. Against the three ops one
 * after the other on ref; in f32 alone, where both round alike. */
CHECK_UNUSED static void cases_lora_gated(const subject *on)
{
    enum { ROWS = 9, DEPTH = 48, FFN = 40 };
    const lora_case k = {.rows = ROWS,
                         .depth = DEPTH,
                         .parts = 2,
                         .outs = {FFN, FFN},
                         .adapters = 2,
                         .ranks = {{8, 16}, {0, 3}},
                         .dtype = LORE_F32};
    const int32_t owners[ROWS] = {0, -1, 1, 0, 1, -1, -1, 0, 1};
    const uint64_t seed = random_state;
    float *outs[2] = {NULL, NULL};
    int32_t turn = 0;
    ON_BOTH(on, at)
    {
        lore_weight *weight = NULL;
        lore_error err = {0};
        lora_fixture adapters[2];
        random_state = seed;
        float *values = random_floats((size_t)2 * FFN * DEPTH), *x = random_floats(ROWS * DEPTH);
        float *norm = random_floats(DEPTH);
        const lore_matrix matrix = {
            .dtype = LORE_F32, .rows = 2 * FFN, .cols = DEPTH, .data = values};
        CHECK_OK(lore_weight_pack(at->backend, &matrix, 1, LORE_USE_MATMUL, &weight, &err), &err);
        for (int32_t i = 0; i < 2; i++) {
            adapters[i] = lora_fixture_new(at, weight, k.dtype, &k, i);
        }
        lora_tables tables = lora_tables_new(at, &k, adapters, owners);
        grid in = grid_new(at, x, ROWS, DEPTH, 0), out = grid_new(at, NULL, ROWS, FFN, 2);
        grid normed = grid_new(at, NULL, ROWS, DEPTH, 0);
        grid gate_up = grid_new(at, NULL, ROWS, 2 * FFN, 0);
        float *own_norm = upload(at, norm, DEPTH * sizeof *norm);
        const lore_fusion gated = {.norm = own_norm,
                                   .eps = 1e-6f,
                                   .normed = normed.view,
                                   .is_gated = true,
                                   .gate_up = gate_up.view};
        lore_op_matmul_fused(at->queue, out.view, in.view, weight,
                             (lore_epilogue){.activation = LORE_ACT_SILU, .lora = &tables.lora},
                             &gated);
        outs[turn++] = grid_take(at, &out);
        lore_free(grid_take(at, &in));
        lore_backend_free(at->backend, normed.memory);
        lore_backend_free(at->backend, gate_up.memory);
        lore_backend_free(at->backend, own_norm);
        lora_tables_free(at, &tables);
        lora_fixture_free(at, &adapters[0]);
        lora_fixture_free(at, &adapters[1]);
        lore_weight_free(weight);
        lore_free(values);
        lore_free(x);
        lore_free(norm);
    }
    compare(on, "gated product with adapters", outs[1], outs[0], ROWS * FFN, TOLERANCE_LORA_F32);
}

#endif
