/* What adapters add to products, on a backend that keeps bf16 between ops: views of either dtype,
 * products that norm their rows and gate their sums, shapes of a 7B model, prefills; rows of
 * nobody and rows of others to the bit; and recordings that outlive who was in their step. */
#include "tests/ops/lora_cases.h"

static lore_dtype between; /* what the subject wants between ops */

static void run_cases(lore_precision precision, void (*cases)(const subject *on))
{
    subject on;
    subject_of_run(&on, precision);
    if (on.precision != precision) {
        subject_close(&on);
        CHECK_SKIP("ref computes in f32 only");
    }
    between = lore_backend_activation_dtype(on.test.backend);
    cases(&on);
    subject_close(&on);
}

/* ---- one product as a decoder calls it ---- */

typedef struct product {
    lora_case k;
    lore_dtype w, x, out;
    bool is_fused, is_gated; /* gated: two parts of the same size */
    int32_t gap;             /* of x: 0 keeps its rows aligned */
} product;

typedef struct inputs {
    lore_weight *weight;
    float *x, *old, *norm, *bias;
    lora_fixture adapters[32];
    int32_t *owners;
} inputs;

static int32_t outs_of(const product *p)
{
    return p->is_gated ? p->k.outs[0] : lora_outs(&p->k);
}

static float *run_product(const side *at, const product *p, const inputs *in, const lore_lora *lora)
{
    const int32_t rows = p->k.rows, depth = p->k.depth, outs = outs_of(p);
    const float *old = p->k.is_accumulating ? in->old : NULL;
    grid x = grid_typed(at, p->x, SENTINEL, in->x, rows, depth, p->gap);
    grid out = grid_typed(at, p->out, SENTINEL, old, rows, outs, p->gap);
    float *bias = upload(at, in->bias, (size_t)lora_outs(&p->k) * sizeof *bias);
    const lore_epilogue epilogue = {.bias = bias,
                                    .activation = p->is_gated ? LORE_ACT_SILU : LORE_ACT_NONE,
                                    .is_accumulating = p->k.is_accumulating,
                                    .lora = lora};
    if (p->is_fused) {
        float *norm = upload(at, in->norm, (size_t)depth * sizeof *norm);
        grid normed = grid_typed(at, between, SENTINEL, NULL, rows, depth, 0);
        grid pairs = grid_typed(at, between, SENTINEL, NULL, rows, lora_outs(&p->k), 0);
        const lore_fusion fusion = {norm, 1e-5f, normed.view, p->is_gated, pairs.view};
        lore_op_matmul_fused(at->queue, out.view, x.view, in->weight, epilogue, &fusion);
        lore_free(grid_take(at, &normed));
        lore_free(grid_take(at, &pairs));
        lore_backend_free(at->backend, norm);
    } else {
        lore_op_matmul(at->queue, out.view, x.view, in->weight, epilogue);
    }
    float *got = grid_take(at, &out);
    lore_free(grid_take(at, &x));
    lore_backend_free(at->backend, bias);
    return got;
}

static float *random_cells(lore_dtype dtype, size_t count)
{
    float *values = random_floats(count);
    for (size_t i = 0; i < count && dtype == LORE_BF16; i++) {
        values[i] = lore_bf16_to_f32(lore_f32_to_bf16(values[i]));
    }
    return values;
}

static inputs inputs_new(const side *at, const product *p)
{
    inputs made = {0};
    source from[LORA_PARTS];
    lore_matrix given[LORA_PARTS];
    lore_error err = {0};
    const size_t rows = (size_t)p->k.rows, depth = (size_t)p->k.depth;
    for (int32_t i = 0; i < p->k.parts; i++) {
        from[i] = source_new(p->w, LORE_PRECISION_BF16, p->k.outs[i], p->k.depth);
        given[i] = from[i].matrix;
    }
    CHECK_OK(lore_weight_pack(at->backend, given, p->k.parts, LORE_USE_MATMUL, &made.weight, &err),
             &err);
    for (int32_t i = 0; i < p->k.parts; i++) {
        source_free(&from[i]);
    }
    made.x = random_cells(p->x, rows * depth);
    made.old = random_floats(rows * (size_t)outs_of(p));
    made.bias = random_floats((size_t)lora_outs(&p->k));
    made.norm = random_floats(depth);
    made.owners = host_new((rows + 1) * sizeof *made.owners);
    CHECK(p->k.adapters <= (int32_t)(sizeof made.adapters / sizeof made.adapters[0]));
    for (int32_t i = 0; i < p->k.adapters; i++) {
        made.adapters[i] =
            lora_fixture_new(at, made.weight, p->k.dtype, &p->k, i % LORA_ADAPTERS_MAX);
    }
    for (int32_t r = 0; r < p->k.rows; r++) {
        made.owners[r] = random_below(p->k.adapters + 1) - 1;
    }
    return made;
}

static void inputs_free(const side *at, const product *p, inputs *in)
{
    for (int32_t i = 0; i < p->k.adapters; i++) {
        lora_fixture_free(at, &in->adapters[i]);
    }
    lore_weight_free(in->weight);
    void *memory[] = {in->x, in->old, in->norm, in->bias, in->owners};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        lore_free(memory[i]);
    }
}

/* The row that the product meets: normed where it norms. */
static void normed_row(const product *p, const inputs *in, int32_t row, float *to)
{
    const float *x = in->x + (size_t)row * (size_t)p->k.depth;
    double squares = 0.0;
    for (int32_t c = 0; c < p->k.depth; c++) {
        squares += (double)x[c] * (double)x[c];
    }
    const double factor = 1.0 / sqrt(squares / p->k.depth + 1e-5);
    for (int32_t c = 0; c < p->k.depth; c++) {
        to[c] = p->is_fused ? (float)((double)x[c] * factor * (double)in->norm[c]) : x[c];
    }
}

/* Rows with adapters, against what they were without. Beside the tolerance of lora_cases.h, an out
 * of bf16 rounds twice. */
static void check_changes(const subject *on, const product *p, const inputs *in, const float *got,
                          const float *base)
{
    const size_t outs = (size_t)outs_of(p);
    double worst = 0.0, *change = host_new(2 * outs * sizeof *change);
    float *row = host_new((size_t)p->k.depth * sizeof *row);
    for (int32_t r = 0; r < p->k.rows; r++) {
        const int32_t owner = in->owners[r];
        if (owner < 0 || in->adapters[owner].rank == 0) {
            continue;
        }
        normed_row(p, in, r, row);
        lora_change(&p->k, p->k.ranks[owner % LORA_ADAPTERS_MAX], &in->adapters[owner], row, change,
                    change + outs);
        for (size_t o = 0; o < outs; o++) {
            const double before = (double)base[(size_t)r * outs + o];
            const double after = (double)got[(size_t)r * outs + o];
            const double least = p->out == LORE_BF16
                                     ? 2 * TOLERANCE_BF16_STORE * (fabs(before) + fabs(after))
                                     : 1e-5 * fabs(before);
            const double size = TOLERANCE_LORA_BF16 * change[outs + o] + least + 1e-6;
            const double difference = fabs(after - before - change[o]) / size;
            worst = difference <= worst ? worst : difference; /* a NaN sticks */
        }
    }
    lore_free(change);
    lore_free(row);
    if (!(worst <= 1.0)) {
        CHECK_STOP("%s%d x %d x %zu, %d adapters on %s, x %s, out %s%s: %.3g times what is allowed",
                   p->is_fused ? "fused " : "", p->k.rows, p->k.depth, outs, p->k.adapters,
                   on->name, lore_dtype_name(p->x), lore_dtype_name(p->out),
                   p->k.is_accumulating ? ", accumulating" : "", worst);
    }
}

/* The gate of sums that the same product gives ungated, in f32. */
static void check_gate(const subject *on, const product *p, const inputs *in, const float *got,
                       const lore_lora *lora)
{
    product sums = *p;
    sums.is_gated = false;
    sums.out = LORE_F32;
    const size_t outs = (size_t)outs_of(p), count = (size_t)p->k.rows * outs;
    float *pairs = run_product(&on->test, &sums, in, lora);
    double squares = 0.0;
    for (size_t i = 0; i < 2 * count; i++) {
        squares += (double)pairs[i] * (double)pairs[i];
    }
    const double spread = sqrt(squares / (double)(2 * count));
    for (size_t i = 0; i < count; i++) {
        const double gate = (double)pairs[i / outs * 2 * outs + i % outs];
        const double up = (double)pairs[i / outs * 2 * outs + outs + i % outs];
        const double want = gate / (1.0 + exp(-gate)) * up;
        /* both may have been rounded twice, first as they were without adapters */
        const double size = 4 * TOLERANCE_BF16_STORE * (fabs(gate) + spread) * (fabs(up) + spread);
        if (!(fabs((double)got[i] - want) <= size)) {
            CHECK_STOP("gated %d x %d x %zu on %s: %g, not %g", p->k.rows, p->k.depth, outs,
                       on->name, (double)got[i], want);
        }
    }
    lore_free(pairs);
}

static void check_product(const subject *on, const product *p)
{
    const side *at = &on->test;
    inputs in = inputs_new(at, p);
    const size_t row_bytes = (size_t)outs_of(p) * sizeof(float);
    float *base = run_product(at, p, &in, NULL);
    lora_tables tables = lora_tables_new(at, &p->k, in.adapters, in.owners);
    float *got = run_product(at, p, &in, &tables.lora);
    float *again = run_product(at, p, &in, &tables.lora);
    const size_t all = (size_t)p->k.rows * (size_t)outs_of(p);
    CHECK(memcmp(got, again, all * sizeof *got) == 0);
    if (p->is_gated) {
        check_gate(on, p, &in, got, &tables.lora);
    } else {
        check_changes(on, p, &in, got, base);
    }
    lora_tables_free(at, &tables);
    for (int32_t r = 0; r < p->k.rows; r++) {
        const size_t first = (size_t)r * (size_t)outs_of(p);
        if (in.owners[r] < 0 || in.adapters[in.owners[r]].rank == 0) {
            CHECK(memcmp(got + first, base + first, row_bytes) == 0);
        }
        in.owners[r] = in.owners[r] == 0 ? 0 : -1; /* now adapter 0 is alone */
    }
    tables = lora_tables_new(at, &p->k, in.adapters, in.owners);
    float *alone = run_product(at, p, &in, &tables.lora);
    for (int32_t r = 0; r < p->k.rows; r++) {
        const size_t first = (size_t)r * (size_t)outs_of(p);
        const float *want = in.owners[r] == 0 ? got : base;
        CHECK(memcmp(alone + first, want + first, row_bytes) == 0);
    }
    lora_tables_free(at, &tables);
    lore_free(base);
    lore_free(got);
    lore_free(again);
    lore_free(alone);
    inputs_free(at, p, &in);
}

/* ---- ragged sizes ---- */

static void cases_ragged(const subject *on)
{
    for (int32_t i = 0; i < 120; i++) {
        product p = {.k = {.rows = PICK(1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 70, 257, 300),
                           .depth = PICK(8, 24, 64, 136, 256, 264, 512, 520, 1288),
                           .parts = 1 + random_below(3),
                           .adapters = random_below(LORA_ADAPTERS_MAX + 1),
                           .empty = PICK(0, random_below(40)),
                           .dtype = LORE_BF16},
                     .w = random_below(3) == 0 ? LORE_I8 : LORE_BF16,
                     .x = random_below(2) == 0 ? LORE_F32 : between,
                     .out = random_below(2) == 0 ? LORE_F32 : between,
                     .is_fused = random_below(2) == 0,
                     .gap = PICK(0, 0, 3, 8)};
        p.is_gated = p.is_fused && random_below(2) == 0;
        p.x = p.is_fused ? LORE_F32 : p.x;
        p.k.is_accumulating = !p.is_gated && p.out == LORE_F32 && random_below(2) == 0;
        p.k.parts = p.is_gated ? 2 : p.k.parts;
        for (int32_t part = 0; part < p.k.parts; part++) {
            p.k.outs[part] = PICK(1, 7, 8, 33, 63, 64, 65, 128, 264, 300);
        }
        if (p.is_gated) {
            p.k.outs[1] = p.k.outs[0];
        }
        for (int32_t a = 0; a < p.k.adapters; a++) {
            for (int32_t part = 0; part < p.k.parts; part++) {
                p.k.ranks[a][part] =
                    random_below(4) == 0 ? 0 : PICK(1, 2, 3, 4, 8, 12, 16, 17, 24, 64, 128);
            }
        }
        check_product(on, &p);
    }
}

/* ---- a 7B model's, and prefills ---- */

static void cases_7b(const subject *on)
{
    static const int32_t ROWS[] = {1, 4, 8, 32, 300};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        product qkv = {.k = {.rows = ROWS[i],
                             .depth = 4096,
                             .parts = 3,
                             .outs = {4096, 1024, 1024},
                             .adapters = 32,
                             .empty = ROWS[i],
                             .dtype = LORE_BF16},
                       .w = LORE_BF16,
                       .x = LORE_F32,
                       .out = between,
                       .is_fused = true};
        product down = {.k = {.rows = ROWS[i],
                              .depth = 14336,
                              .parts = 1,
                              .outs = {4096},
                              .adapters = 7,
                              .dtype = LORE_BF16,
                              .is_accumulating = true},
                        .w = LORE_BF16,
                        .x = between,
                        .out = LORE_F32};
        for (int32_t a = 0; a < LORA_ADAPTERS_MAX; a++) {
            for (int32_t part = 0; part < 3; part++) {
                qkv.k.ranks[a][part] = down.k.ranks[a][part] = PICK(8, 16, 16, 64);
            }
        }
        check_product(on, &qkv);
        check_product(on, &down);
    }
}

/* ---- recordings ---- */

/* The tables of another step take the place of those that a recording knows. */
static void replace_tables(const side *at, const lore_lora_rows *from, const lore_lora_rows *to)
{
    int32_t starts[64], order[64];
    const void *adapters[64];
    CHECK(from->segments == to->segments && to->segments < 64);
    const size_t segments = (size_t)to->segments;
    lore_queue_download(at->queue, starts, from->starts, (segments + 1) * sizeof *starts);
    lore_queue_download(at->queue, adapters, from->adapters, segments * sizeof *adapters);
    sync(at);
    const size_t count = (size_t)starts[segments];
    CHECK(count <= 64);
    lore_queue_download(at->queue, order, from->order, count * sizeof *order);
    lore_queue_upload(at->queue, (void *)(uintptr_t)to->starts, starts,
                      (segments + 1) * sizeof *starts);
    lore_queue_upload(at->queue, (void *)(uintptr_t)to->adapters, adapters,
                      segments * sizeof *adapters);
    lore_queue_upload(at->queue, (void *)(uintptr_t)to->order, order, count * sizeof *order);
    sync(at);
}

/* A recorded product with the owners of its time, then with those of others: to the bit what it is
 * when it is called. */
static void check_replays(const side *at, const product *p, inputs *in, lore_recording *recording,
                          const lore_lora *recorded, lore_view out)
{
    const size_t bytes = (size_t)p->k.rows * (size_t)out.cols * sizeof(float);
    for (int32_t turn = 0; turn < 6; turn++) {
        for (int32_t r = 0; r < p->k.rows; r++) {
            in->owners[r] = turn == 0 ? -1 : random_below(p->k.adapters + 1) - 1;
        }
        lora_tables next = lora_tables_new(at, &p->k, in->adapters, in->owners);
        float *want = run_product(at, p, in, &next.lora), *got = host_new(bytes);
        replace_tables(at, &next.lora.rows, &recorded->rows);
        lore_queue_upload(at->queue, out.data, in->old, bytes);
        lore_queue_replay(at->queue, recording);
        lore_queue_download(at->queue, got, out.data, bytes);
        sync(at);
        CHECK(memcmp(got, want, bytes) == 0);
        lore_free(got);
        lore_free(want);
        lora_tables_free(at, &next);
    }
}

static void check_recorded(const subject *on, int32_t rows)
{
    const side *at = &on->test;
    const product p = {.k = {.rows = rows,
                             .depth = 512,
                             .parts = 2,
                             .outs = {96, 40},
                             .adapters = 3,
                             .empty = 9,
                             .ranks = {{16, 8}, {0, 3}, {64, 16}},
                             .dtype = LORE_BF16,
                             .is_accumulating = true},
                       .w = LORE_BF16,
                       .x = LORE_F32,
                       .out = LORE_F32};
    lore_error err = {0};
    inputs in = inputs_new(at, &p);
    for (int32_t r = 0; r < rows; r++) {
        in.owners[r] = r % p.k.adapters; /* every row has one: the table has room for any step */
    }
    lora_tables tables = lora_tables_new(at, &p.k, in.adapters, in.owners);
    tables.lora.rank_max = 128;
    grid x = grid_typed(at, p.x, SENTINEL, in.x, rows, p.k.depth, 0);
    grid out = grid_typed(at, p.out, SENTINEL, in.old, rows, outs_of(&p), 0);
    float *bias = upload(at, in.bias, (size_t)out.view.cols * sizeof *bias);
    const lore_epilogue epilogue = {.bias = bias, .is_accumulating = true, .lora = &tables.lora};
    lore_recording *recording = NULL;
    lore_op_matmul(at->queue, out.view, x.view, in.weight, epilogue); /* scratch, plans */
    sync(at);
    lore_queue_record_begin(at->queue);
    lore_op_matmul(at->queue, out.view, x.view, in.weight, epilogue);
    CHECK_OK(lore_queue_record_end(at->queue, &recording, &err), &err);
    check_replays(at, &p, &in, recording, &tables.lora, out.view);
    lore_recording_free(recording);
    lore_free(grid_take(at, &x));
    lore_free(grid_take(at, &out));
    lore_backend_free(at->backend, bias);
    lora_tables_free(at, &tables);
    inputs_free(at, &p, &in);
}

static void cases_recorded(const subject *on)
{
    for (int32_t i = 0; i < 3 && lore_backend_can_record(on->test.backend); i++) {
        check_recorded(on, (const int32_t[]){3, 12, 40}[i]);
    }
}

TEST(gpu_lora_f32)
{
    run_cases(LORE_PRECISION_F32, cases_lora);
}

TEST(gpu_lora_bf16)
{
    run_cases(LORE_PRECISION_BF16, cases_lora);
}

TEST(gpu_lora_gated_f32)
{
    run_cases(LORE_PRECISION_F32, cases_lora_gated);
}

TEST(gpu_lora_ragged)
{
    run_cases(LORE_PRECISION_BF16, cases_ragged);
}

TEST(gpu_lora_7b)
{
    run_cases(LORE_PRECISION_BF16, cases_7b);
}

TEST(gpu_lora_recorded)
{
    run_cases(LORE_PRECISION_BF16, cases_recorded);
}

CHECK_MAIN(gpu_lora_f32, gpu_lora_bf16, gpu_lora_gated_f32, gpu_lora_ragged, gpu_lora_7b,
           gpu_lora_recorded)
