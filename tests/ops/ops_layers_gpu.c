/* All layers of a decoder in one kernel (lore_op_layers) on a device: the numbers of the ops that
 * it stands for, on the device and on ref, the same bits at every call, recorded, beside another
 * such kernel and beside other work; and nothing at all where it refuses.
 *
 * LORE_TEST_BACKEND=cpu runs the cases without the kernel, the ops in its place, to try the cases
 * themselves. */
#include "tests/ops/layers_cases.h"

#include <stdatomic.h>
#include <sys/time.h>

/* A kernel whose blocks wait for one another and are not all there waits for ever, and so would
 * this. The default of the signal ends the process. */
enum { SECONDS_MOST = 60 };

static void watch(time_t seconds)
{
    const struct itimerval limit = {.it_value.tv_sec = seconds};
    CHECK(setitimer(ITIMER_REAL, &limit, NULL) == 0);
}

static bool is_on_cpu;

static void start(subject *on)
{
    subject_of_run(on, LORE_PRECISION_BF16);
    is_on_cpu = !is_on_device(on);
    noise_fill();
    watch(SECONDS_MOST);
}

static void stop(subject *on)
{
    watch(0);
    subject_close(on);
}

static bool run_layers(const copy *c)
{
    if (is_on_cpu) {
        run_ops(c);
        return true;
    }
    return lore_op_layers(c->at.queue, c->x.view, &c->all, &c->batch);
}

static void check_shape(const subject *on, const shape *s)
{
    model *m = model_new(s);
    copy *c = copy_new(&on->test, m);
    run_ops(c);
    result ops = take(c);
    copy_reset(c);
    if (!run_layers(c)) {
        CHECK_STOP("%s: refused", s->name);
    }
    result one = take(c);
    copy_free(c);
    c = copy_new(&on->ref, m);
    run_ops(c);
    result ref = take(c);
    copy_free(c);
    const double ways = bound_of(s, BETWEEN_WAYS), beside = bound_of(s, BESIDE_REF);
    const double ops_error = compare_x(m, "x of the ops beside ref", &ops, &ref, beside);
    const double page_error = compare_pages(m, "pages beside the ops", &one, &ops, ways);
    const double ways_error = compare_x(m, "x beside the ops", &one, &ops, ways);
    const double error = compare_x(m, "x beside ref", &one, &ref, beside);
    (void)compare_pages(m, "pages beside ref", &one, &ref, beside);
    printf("%-34s x %.1e (ref %.1e, ops to ref %.1e), keys and values %.1e\n", s->name, ways_error,
           error, ops_error, page_error);
    result_free(&ops);
    result_free(&one);
    result_free(&ref);
    model_free(m);
}

/* ---- shapes ---- */

#define QWEN3                                                                                \
    .heads = 8, .kv_heads = 2, .head_dim = 64, .width = 512, .ffn = 1536, .has_norms = true, \
    .activation = LORE_ACT_SILU, .page_tokens = 16
#define SMALL                                                            \
    .heads = 4, .kv_heads = 4, .head_dim = 32, .width = 128, .ffn = 192, \
    .activation = LORE_ACT_SILU, .page_tokens = 16
#define RAGGED                                                                        \
    .heads = 9, .kv_heads = 3, .head_dim = 64, .width = 576, .ffn = 704, .layers = 3, \
    .activation = LORE_ACT_SILU, .page_tokens = 32

static const shape shapes[] = {
    {"first token", QWEN3, .layers = 1, .sequences = 1, .past = {0}},
    {"two rows", QWEN3, .layers = 2, .sequences = 2, .past = {1, 32}},
    {"three rows, 3 layers", QWEN3, .layers = 3, .sequences = 3, .past = {31, 2047, 33}},
    {"four rows, 5 layers", QWEN3, .layers = 5, .sequences = 4, .past = {500, 0, 5000, 31}},
    {"long", QWEN3, .layers = 2, .sequences = 1, .past = {5000}},
    {"window 24", QWEN3, .layers = 2, .sequences = 4, .past = {0, 23, 24, 2047}, .window = 24},
    {"window 100", QWEN3, .layers = 2, .sequences = 3, .past = {33, 5000, 500}, .window = 100},
    {"window 1", QWEN3, .layers = 2, .sequences = 2, .past = {32, 0}, .window = 1},
    {"rope starts", QWEN3, .layers = 2, .sequences = 3, .past = {32, 500, 1}, .has_starts = true},
    {"half of a head turned", QWEN3, .layers = 3, .sequences = 2, .past = {33, 500},
     .rope_dim = 32},
    {"6 of 64 turned", RAGGED, .sequences = 1, .past = {31}, .rope_dim = 6},
    {"width 576, ffn 704", RAGGED, .sequences = 4, .past = {2047, 31, 32, 500}},
    {"width 576, bias, one row", RAGGED, .sequences = 1, .past = {500}, .has_bias = true},
    {"bias, norms and starts", RAGGED, .sequences = 3, .past = {0, 33, 100}, .has_bias = true,
     .has_norms = true, .has_starts = true},
    {"heads of 32", SMALL, .layers = 5, .sequences = 4, .past = {1, 33, 500, 2047}},
    {"heads of 32, bias", SMALL, .layers = 3, .sequences = 2, .past = {0, 5000}, .has_bias = true},
    {"one head", .heads = 1, .kv_heads = 1, .head_dim = 64, .width = 64, .ffn = 64, .layers = 5,
     .sequences = 3, .past = {0, 15, 16}, .page_tokens = 16, .activation = LORE_ACT_GELU_TANH},
    {"80 layers", .heads = 2, .kv_heads = 1, .head_dim = 32, .width = 64, .ffn = 128, .layers = 80,
     .sequences = 2, .past = {33, 500}, .page_tokens = 32, .activation = LORE_ACT_SILU,
     .is_shared = true},
    {"8 heads a key head", .heads = 16, .kv_heads = 2, .head_dim = 128, .width = 1024, .ffn = 2816,
     .layers = 2, .sequences = 4, .past = {2047, 0, 33, 5000}, .page_tokens = 32,
     .activation = LORE_ACT_SILU, .has_bias = true},
    {"7 heads a key head", .heads = 14, .kv_heads = 2, .head_dim = 64, .width = 896, .ffn = 4864,
     .layers = 2, .sequences = 1, .past = {500}, .page_tokens = 16, .activation = LORE_ACT_SILU,
     .has_bias = true},
    {"more units than blocks", .heads = 40, .kv_heads = 40, .head_dim = 32, .width = 1280,
     .ffn = 192, .layers = 2, .sequences = 4, .past = {500, 0, 2047, 33}, .page_tokens = 16,
     .activation = LORE_ACT_SILU},
    {"more pages than are kept", QWEN3, .layers = 2, .sequences = 1, .past = {9000}},
    {"little room for weights", .heads = 8, .kv_heads = 2, .head_dim = 64, .width = 512,
     .ffn = 18944, .layers = 2, .sequences = 4, .past = {31, 500, 0, 100}, .page_tokens = 16,
     .activation = LORE_ACT_SILU},
};

TEST(gpu_layers)
{
    subject on;
    start(&on);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_shape(&on, &shapes[i]);
    }
    stop(&on);
}

/* The shape of a 7B, whose two layers share their weights. */
TEST(gpu_layers_of_7b)
{
    subject on;
    start(&on);
    const shape s = {"7B, 2 layers",
                     .heads = 32,
                     .kv_heads = 8,
                     .head_dim = 128,
                     .width = 4096,
                     .ffn = 14336,
                     .layers = 2,
                     .sequences = 3,
                     .past = {500, 33, 2047},
                     .page_tokens = 32,
                     .activation = LORE_ACT_SILU,
                     .is_shared = true};
    check_shape(&on, &s);
    stop(&on);
}

/* ---- the same bits each time ---- */

/* A copy on its way through the same step again and again, on whatever thread. */
typedef struct runner {
    const copy *c;
    const char *want; /* all bytes of x */
    char *got;
    int32_t turns, wrong;
    lore_recording *recording; /* replayed where there is one */
} runner;

static void *run_turns(void *self)
{
    runner *r = self;
    const guarded *x = &r->c->x;
    for (int32_t i = 0; i < r->turns; i++) {
        copy_reset_x(r->c);
        if (r->recording != NULL) {
            lore_queue_replay(r->c->at.queue, r->recording);
        } else {
            r->wrong += !run_layers(r->c);
        }
        lore_queue_download(r->c->at.queue, r->got, x->memory, x->size_bytes);
        r->wrong += memcmp(r->got, r->want, x->size_bytes) != 0;
    }
    lore_error err = {0};
    r->wrong += lore_queue_sync(r->c->at.queue, &err) != LORE_OK;
    return NULL;
}

static runner runner_new(const copy *c, const char *want, int32_t turns)
{
    return (runner){.c = c, .want = want, .got = host_new(c->x.size_bytes), .turns = turns};
}

/* What the step leaves in x, all its bytes. */
static char *first_run(const copy *c)
{
    CHECK(run_layers(c));
    return guarded_read(&c->at, &c->x);
}

static void run_here(const char *what, runner r)
{
    const int64_t from = lore_clock_ns();
    (void)run_turns(&r);
    lore_free(r.got);
    printf("%-34s %d turns, %d wrong, %.0f us each\n", what, r.turns, r.wrong,
           (double)(lore_clock_ns() - from) / 1e3 / r.turns);
    CHECK_INT(r.wrong, 0);
}

static const shape steady = {"steady", QWEN3, .layers = 5, .sequences = 4,
                             .past = {500, 0, 2047, 31}};
static const shape steady_one = {"steady, one row", RAGGED, .sequences = 1, .past = {2047}};

/* Steps that follow one another without a wait read what the last one wrote. */
static void check_chain(const copy *c)
{
    enum { STEPS = 8 };
    char *results[2];
    for (int run = 0; run < 2; run++) {
        copy_reset(c);
        for (int i = 0; i < STEPS; i++) {
            CHECK(run_layers(c));
            if (run == 0) {
                sync(&c->at);
            }
        }
        results[run] = guarded_read(&c->at, &c->x);
    }
    CHECK(memcmp(results[0], results[1], c->x.size_bytes) == 0);
    lore_free(results[0]);
    lore_free(results[1]);
}

TEST(gpu_layers_again)
{
    subject on;
    start(&on);
    const shape *two[] = {&steady, &steady_one};
    for (int i = 0; i < 2; i++) {
        model *m = model_new(two[i]);
        copy *c = copy_new(&on.test, m);
        char *want = first_run(c);
        run_here(two[i]->name, runner_new(c, want, 200));
        check_chain(c);
        if (lore_backend_can_record(on.test.backend)) {
            lore_error err = {0};
            runner r = runner_new(c, want, 50);
            lore_queue_record_begin(on.test.queue);
            CHECK(run_layers(c));
            CHECK_OK(lore_queue_record_end(on.test.queue, &r.recording, &err), &err);
            run_here("replayed", r);
            lore_recording_free(r.recording);
        }
        lore_free(want);
        copy_free(c);
        model_free(m);
    }
    stop(&on);
}

/* Tags of what blocks tell one another run out after 2^18 layers, and begin anew. */
TEST(gpu_layers_for_long)
{
    enum { TURNS = (1 << 18) / 80 + 100 };
    subject on;
    start(&on);
    const shape deep = {"2^18 layers",
                        .heads = 2,
                        .kv_heads = 1,
                        .head_dim = 32,
                        .width = 64,
                        .ffn = 128,
                        .layers = 80,
                        .sequences = 1,
                        .past = {500},
                        .page_tokens = 32,
                        .activation = LORE_ACT_SILU,
                        .is_shared = true};
    model *m = model_new(&deep);
    copy *c = copy_new(&on.test, m);
    char *want = first_run(c);
    run_here(deep.name, runner_new(c, want, is_on_cpu ? 2 : TURNS));
    lore_free(want);
    copy_free(c);
    model_free(m);
    stop(&on);
}

/* ---- beside others ---- */

static side another_queue(const subject *on)
{
    side made = {.backend = on->test.backend};
    lore_error err = {0};
    CHECK_OK(lore_queue_open(made.backend, &made.queue, &err), &err);
    return made;
}

/* Two such kernels whose blocks wait for one another, and a device that has not the room for the
 * blocks of both. */
TEST(gpu_layers_on_two_queues)
{
    subject on;
    start(&on);
    const side sides[2] = {on.test, another_queue(&on)};
    model *m[2] = {model_new(&steady), model_new(&steady_one)};
    copy *c[2];
    char *want[2];
    runner runners[2];
    lore_thread threads[2] = {0};
    for (int i = 0; i < 2; i++) {
        lore_error err = {0};
        c[i] = copy_new(&sides[i], m[i]);
        want[i] = first_run(c[i]);
        runners[i] = runner_new(c[i], want[i], 300);
        CHECK_OK(lore_queue_sync(sides[i].queue, &err), &err);
    }
    for (int i = 0; i < 2; i++) {
        lore_error err = {0};
        CHECK_OK(lore_thread_start(&threads[i], "layers", run_turns, &runners[i], &err), &err);
    }
    for (int i = 0; i < 2; i++) {
        lore_thread_join(&threads[i]);
    }
    printf("%-34s %d and %d wrong\n", "two queues", runners[0].wrong, runners[1].wrong);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(runners[i].wrong, 0);
        lore_free(runners[i].got);
        lore_free(want[i]);
        copy_free(c[i]);
        model_free(m[i]);
    }
    lore_queue_close(sides[1].queue);
    stop(&on);
}

/* Products that fill the device until they are told to end. */
typedef struct crowd {
    side at;
    lore_weight *weight;
    lore_view x, out;
    atomic_bool is_over; /* relaxed: it orders nothing */
    int32_t failures;
} crowd;

enum { CROWD = 4096, CROWD_ROWS = 512, CROWD_TURNS = 16 };

static void *run_crowd(void *self)
{
    crowd *c = self;
    while (!atomic_load_explicit(&c->is_over, memory_order_relaxed)) {
        lore_error err = {0};
        for (int i = 0; i < CROWD_TURNS; i++) {
            lore_op_matmul(c->at.queue, c->out, c->x, c->weight, (lore_epilogue){0});
        }
        c->failures += lore_queue_sync(c->at.queue, &err) != LORE_OK;
    }
    return NULL;
}

TEST(gpu_layers_in_a_crowd)
{
    subject on;
    start(&on);
    crowd others = {.at = another_queue(&on)};
    const int32_t rows = is_on_cpu ? 16 : CROWD_ROWS;
    guarded x, out;
    lore_error err = {0};
    lore_thread thread = {0};
    uint16_t *values = noise_matrix(CROWD, CROWD, 0.01f);
    const lore_matrix matrix = {.dtype = LORE_BF16, .rows = CROWD, .cols = CROWD, .data = values};
    CHECK_OK(lore_weight_pack(others.at.backend, &matrix, 1, LORE_USE_MATMUL, &others.weight, &err),
             &err);
    others.x =
        poisoned(&others.at, &x, lore_backend_activation_dtype(others.at.backend), rows, CROWD, 0);
    others.out = poisoned(&others.at, &out, LORE_F32, rows, CROWD, 0);
    sync(&others.at);
    model *m = model_new(&steady);
    copy *c = copy_new(&on.test, m);
    char *want = first_run(c);
    runner r = runner_new(c, want, 100);
    CHECK_OK(lore_thread_start(&thread, "crowd", run_crowd, &others, &err), &err);
    const int64_t from = lore_clock_ns();
    (void)run_turns(&r); /* no check before the other thread has ended */
    atomic_store_explicit(&others.is_over, true, memory_order_relaxed);
    lore_thread_join(&thread);
    printf("%-34s %d turns, %d wrong, %.0f us each\n", "in a crowd", r.turns, r.wrong,
           (double)(lore_clock_ns() - from) / 1e3 / r.turns);
    CHECK_INT(r.wrong + others.failures, 0);
    lore_free(r.got);
    lore_free(want);
    lore_free(values);
    copy_free(c);
    model_free(m);
    lore_backend_free(others.at.backend, x.memory);
    lore_backend_free(others.at.backend, out.memory);
    lore_weight_free(others.weight);
    lore_queue_close(others.at.queue);
    stop(&on);
}

/* ---- what is not for it ---- */

/* The call gives false and leaves every byte as it was. */
static void check_refused(const char *what, const copy *c)
{
    const guarded *all[] = {&c->x,      &c->qkv,      &c->mixed,
                            &c->hidden, &c->pages[0], &c->pages[c->m->s.layers - 1]};
    enum { ALL = sizeof all / sizeof all[0] };
    char *before[ALL];
    for (int i = 0; i < ALL; i++) {
        before[i] = guarded_read(&c->at, all[i]);
    }
    if (lore_op_layers(c->at.queue, c->x.view, &c->all, &c->batch)) {
        CHECK_STOP("%s: taken", what);
    }
    for (int i = 0; i < ALL; i++) {
        char *after = guarded_read(&c->at, all[i]);
        if (memcmp(before[i], after, all[i]->size_bytes) != 0) {
            CHECK_STOP("%s: refused, yet %d is another", what, i);
        }
        lore_free(before[i]);
        lore_free(after);
    }
    printf("%-34s refused\n", what);
}

static void check_shape_refused(const subject *on, const shape *s)
{
    model *m = model_new(s);
    copy *c = copy_new(&on->test, m);
    check_refused(s->name, c);
    copy_free(c);
    model_free(m);
}

/* Whatever the last layer alone has that others do not. */
static void check_layers_refused(const subject *on)
{
    const shape s = {"good", SMALL, .layers = 3, .sequences = 2, .past = {0, 33}};
    model *m = model_new(&s);
    copy *c = copy_new(&on->test, m);
    lore_layer *last = &c->layers[s.layers - 1];
    const lore_layer good = *last;
    last->attention.softcap = 30.0f;
    check_refused("softcap", c);
    *last = good;
    last->pages.dtype = LORE_F32;
    check_refused("f32 pages", c);
    *last = good;

    const int32_t heads = s.heads * s.head_dim;
    int8_t *values = host_new((size_t)(s.width * heads));
    float *scales = noise_new((size_t)s.width, 0.01f, 0.001f);
    memset(values, 1, (size_t)(s.width * heads));
    const lore_matrix matrix = {
        .dtype = LORE_I8, .rows = s.width, .cols = heads, .data = values, .scales = scales};
    lore_weight *quantised = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(on->test.backend, &matrix, 1, LORE_USE_MATMUL, &quantised, &err),
             &err);
    last->out = quantised;
    check_refused("an int8 weight", c);
    *last = good;
    lore_weight_free(quantised);
    lore_free(values);
    lore_free(scales);
    copy_free(c);
    model_free(m);
}

TEST(gpu_layers_refused)
{
    subject on;
    start(&on);
    static const shape refused[] = {
        {"5 rows", SMALL, .layers = 2, .sequences = 5, .past = {0, 1, 2, 3, 33}},
        {"rows without room", .heads = 8, .kv_heads = 2, .head_dim = 64, .width = 512, .ffn = 28672,
         .layers = 1, .sequences = 4, .past = {3, 1, 2, 5}, .page_tokens = 16,
         .activation = LORE_ACT_SILU},
        {"2 rows of one sequence", SMALL, .layers = 2, .sequences = 1, .past = {5}, .rows_each = 2},
        {"81 layers", .heads = 1, .kv_heads = 1, .head_dim = 64, .width = 64, .ffn = 64,
         .layers = 81, .sequences = 1, .past = {3}, .page_tokens = 16, .activation = LORE_ACT_SILU,
         .is_shared = true},
        {"heads of 96", .heads = 2, .kv_heads = 1, .head_dim = 96, .width = 192, .ffn = 192,
         .layers = 1, .sequences = 1, .past = {3}, .page_tokens = 16, .activation = LORE_ACT_SILU},
        {"16 heads a key head", .heads = 16, .kv_heads = 1, .head_dim = 32, .width = 128,
         .ffn = 192, .layers = 1, .sequences = 1, .past = {3}, .page_tokens = 16,
         .activation = LORE_ACT_SILU},
        {"width 72", .heads = 2, .kv_heads = 1, .head_dim = 64, .width = 72, .ffn = 192,
         .layers = 1, .sequences = 1, .past = {3}, .page_tokens = 16, .activation = LORE_ACT_SILU},
        {"ffn 200", .heads = 2, .kv_heads = 1, .head_dim = 64, .width = 128, .ffn = 200,
         .layers = 1, .sequences = 1, .past = {3}, .page_tokens = 16, .activation = LORE_ACT_SILU},
        {"3 heads of 32", .heads = 3, .kv_heads = 3, .head_dim = 32, .width = 128, .ffn = 128,
         .layers = 1, .sequences = 1, .past = {3}, .page_tokens = 16, .activation = LORE_ACT_SILU},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        check_shape_refused(&on, &refused[i]);
    }
    check_layers_refused(&on);
    stop(&on);
}

CHECK_MAIN(gpu_layers, gpu_layers_of_7b, gpu_layers_again, gpu_layers_for_long,
           gpu_layers_on_two_queues, gpu_layers_in_a_crowd, gpu_layers_refused)
