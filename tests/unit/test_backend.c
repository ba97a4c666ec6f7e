/* The doors of kernels/: conversions bit for bit, refusals with words, memory that fails, weights
 * that are described truthfully. What the ops compute is tested in tests/ops. */
#include "base/clock.h"
#include "kernels/backend.h"
#include "tests/check.h"

/* Every f16 number survives the way through f32, and every bf16 number too. */
TEST(halves_round_trip)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const float wide = lore_f16_to_f32((uint16_t)bits);
        if (isnan(wide)) {
            CHECK((bits & 0x7c00u) == 0x7c00u && (bits & 0x3ffu) != 0);
            CHECK(isnan(lore_f16_to_f32(lore_f32_to_f16(wide))));
        } else {
            CHECK_INT(lore_f32_to_f16(wide), bits);
        }
        const float brain = lore_bf16_to_f32((uint16_t)bits);
        if (isnan(brain)) {
            CHECK(isnan(lore_bf16_to_f32(lore_f32_to_bf16(brain))));
        } else {
            CHECK_INT(lore_f32_to_bf16(brain), bits);
        }
    }
}

/* Known values, and ties to even between each two neighbours of f16 and bf16. */
TEST(halves_round_to_even)
{
    CHECK_INT(lore_f32_to_f16(1.0f), 0x3c00);
    CHECK_INT(lore_f32_to_f16(-2.0f), 0xc000);
    CHECK_INT(lore_f32_to_f16(65504.0f), 0x7bff);
    CHECK_INT(lore_f32_to_f16(65519.0f), 0x7bff);
    CHECK_INT(lore_f32_to_f16(65520.0f), 0x7c00);
    CHECK_INT(lore_f32_to_f16(1e10f), 0x7c00);
    CHECK_INT(lore_f32_to_f16(-INFINITY), 0xfc00);
    CHECK_INT(lore_f32_to_f16(0x1p-24f), 1);
    CHECK_INT(lore_f32_to_f16(0x1p-25f), 0);
    CHECK_INT(lore_f32_to_f16(0x1.8p-24f), 2);
    CHECK_INT(lore_f32_to_f16(-0.0f), 0x8000);
    CHECK_INT(lore_f32_to_bf16(3.140625f), 0x4049);
    for (uint32_t bits = 0; bits < 0x7bff; bits++) {
        const float middle = (float)(((double)lore_f16_to_f32((uint16_t)bits) +
                                      (double)lore_f16_to_f32((uint16_t)(bits + 1))) /
                                     2.0);
        CHECK_INT(lore_f32_to_f16(middle), bits % 2 == 0 ? bits : bits + 1);
        CHECK_INT(lore_f32_to_f16(nextafterf(middle, 1e9f)), bits + 1);
        CHECK_INT(lore_f32_to_f16(nextafterf(middle, -1.0f)), bits);
    }
    for (uint32_t bits = 0; bits < 0x7f7f; bits++) {
        const float low = lore_bf16_to_f32((uint16_t)bits),
                    high = lore_bf16_to_f32((uint16_t)(bits + 1));
        const float middle = (float)(((double)low + (double)high) / 2.0);
        CHECK_INT(lore_f32_to_bf16(middle), bits % 2 == 0 ? bits : bits + 1);
    }
}

TEST(quantize_row)
{
    int8_t out[5];
    const float x[5] = {0.5f, -1.27f, 0.005f, 0.0f, 1.0f};
    CHECK_NEAR(lore_quantize_row(out, x, 5), 0.01, 1e-9);
    CHECK_INT(out[0], 50);
    CHECK_INT(out[1], -127);
    CHECK_INT(out[3], 0);
    CHECK_INT(out[4], 100);
    const float zeros[2] = {0.0f, -0.0f}, tiny[2] = {1e-38f, -1e-40f};
    CHECK_NEAR(lore_quantize_row(out, zeros, 2), 1.0, 0.0);
    CHECK_NEAR(lore_quantize_row(out, tiny, 2), 1.0, 0.0);
    CHECK_INT(out[0], 0);
    const float huge[2] = {3e38f, -3e38f};
    CHECK(isfinite(lore_quantize_row(out, huge, 2)));
    CHECK_INT(out[0], 127);
    CHECK_INT(out[1], -127);
}

TEST(dtypes)
{
    CHECK_INT(lore_dtype_size(LORE_F32), 4);
    CHECK_INT(lore_dtype_size(LORE_F16), 2);
    CHECK_INT(lore_dtype_size(LORE_BF16), 2);
    CHECK_INT(lore_dtype_size(LORE_I8), 1);
    CHECK_INT(lore_dtype_size(LORE_I32), 4);
    CHECK_STR(lore_str_from(lore_dtype_name(LORE_BF16)), "bf16");
    CHECK_STR(lore_str_from(lore_dtype_name(LORE_I4)), "i4");
    CHECK_STR(lore_str_from(lore_dtype_name((lore_dtype)99)), "unknown");
    CHECK_STR(lore_str_from(lore_isa_name(LORE_ISA_AVX512)), "avx512");
    CHECK_STR(lore_str_from(lore_precision_name(LORE_PRECISION_INT8)), "int8");
}

static lore_backend *open_kind(lore_backend_kind kind, lore_precision precision)
{
    lore_backend *backend = NULL;
    lore_error err = {0};
    CHECK_OK(lore_backend_open(&(lore_backend_options){.kind = kind, .precision = precision},
                               &backend, &err),
             &err);
    CHECK_INT(lore_backend_get_kind(backend), kind);
    return backend;
}

/* What cannot be had is refused with a reason; what was opened says what it is. */
TEST(open_and_describe)
{
    lore_backend *backend = NULL;
    lore_error err = {0};
    if (lore_backend_cuda_count() == 0) {
        const lore_backend_options cuda = {.kind = LORE_BACKEND_CUDA};
        CHECK(lore_backend_open(&cuda, &backend, &err) != LORE_OK);
        CHECK(strstr(err.message, "cuda") != NULL || strstr(err.message, "CUDA") != NULL);
    }
    const lore_backend_options int8_ref = {.kind = LORE_BACKEND_REF,
                                           .precision = LORE_PRECISION_INT8};
    CHECK_FAILS(lore_backend_open(&int8_ref, &backend, &err), LORE_ERR_UNSUPPORTED, &err, "int8");
    if (lore_backend_isa() < LORE_ISA_AMX) {
        const lore_backend_options amx = {.kind = LORE_BACKEND_CPU, .isa = LORE_ISA_AMX};
        CHECK_FAILS(lore_backend_open(&amx, &backend, &err), LORE_ERR_UNSUPPORTED, &err, "amx");
    }
    CHECK(lore_backend_isa() >= LORE_ISA_SCALAR);
    backend = open_kind(LORE_BACKEND_REF, LORE_PRECISION_AUTO);
    CHECK(strstr(lore_backend_describe(backend), "ref: ") != NULL);
    lore_backend_close(backend);
    const lore_backend_options scalar = {.kind = LORE_BACKEND_CPU, .isa = LORE_ISA_SCALAR};
    CHECK_OK(lore_backend_open(&scalar, &backend, &err), &err);
    CHECK_STR(lore_str_from(lore_backend_describe(backend)), "cpu: scalar, 1 thread");
    lore_backend_close(backend);
    lore_backend_close(NULL);
}

/* Matrices of a damaged model file are refused with the name of what is wrong. */
TEST(pack_refuses)
{
    lore_backend *backend = open_kind(LORE_BACKEND_CPU, LORE_PRECISION_AUTO);
    const float values[4] = {0}, scales[2] = {1.0f, 1.0f};
    lore_weight *weight = NULL;
    lore_error err = {0};
    const lore_matrix integers = {.dtype = LORE_I32, .rows = 2, .cols = 2, .data = values};
    CHECK_FAILS(lore_weight_pack(backend, &integers, 1, LORE_USE_MATMUL, &weight, &err),
                LORE_ERR_UNSUPPORTED, &err, "i32");
    const lore_matrix unscaled = {.dtype = LORE_I8, .rows = 2, .cols = 2, .data = values};
    CHECK_FAILS(lore_weight_pack(backend, &unscaled, 1, LORE_USE_MATMUL, &weight, &err),
                LORE_ERR_INVALID, &err, "without");
    const lore_matrix scaled = {
        .dtype = LORE_F32, .rows = 2, .cols = 2, .data = values, .scales = scales};
    CHECK_FAILS(lore_weight_pack(backend, &scaled, 1, LORE_USE_MATMUL, &weight, &err),
                LORE_ERR_INVALID, &err, "with scales");
    const lore_matrix empty = {.dtype = LORE_F32, .rows = 0, .cols = 2, .data = values};
    CHECK_FAILS(lore_weight_pack(backend, &empty, 1, LORE_USE_MATMUL, &weight, &err),
                LORE_ERR_INVALID, &err, "empty");
    const lore_matrix ragged[2] = {{.dtype = LORE_F32, .rows = 2, .cols = 2, .data = values},
                                   {.dtype = LORE_F32, .rows = 1, .cols = 4, .data = values}};
    CHECK_FAILS(lore_weight_pack(backend, ragged, 2, LORE_USE_MATMUL, &weight, &err),
                LORE_ERR_INVALID, &err, "4 columns");
    const lore_matrix tall[2] = {{.dtype = LORE_F32, .rows = INT32_MAX, .cols = 2, .data = values},
                                 {.dtype = LORE_F32, .rows = 1, .cols = 2, .data = values}};
    CHECK_FAILS(lore_weight_pack(backend, tall, 2, LORE_USE_MATMUL, &weight, &err), LORE_ERR_LIMIT,
                &err, "rows");
    const lore_matrix wide = {.dtype = LORE_I8,
                              .rows = 1,
                              .cols = 70000,
                              .data = values,
                              .scales = scales}; /* refused before the data are read */
    CHECK_FAILS(lore_weight_pack(backend, &wide, 1, LORE_USE_MATMUL, &weight, &err), LORE_ERR_LIMIT,
                &err, "70000");
    const uint8_t zeros[1] = {8};
    const int32_t columns[3] = {0, 3, 1};
    const lore_matrix bad_i4[] = {
        {.dtype = LORE_I4, .rows = 1, .cols = 3, .data = values, .group = 32},
        {.dtype = LORE_I4, .rows = 1, .cols = 3, .data = values, .scales = scales},
        {.dtype = LORE_I4, .rows = 1, .cols = 3, .data = values, .scales = scales, .group = 2},
        {.dtype = LORE_I4,
         .rows = 1,
         .cols = 3,
         .data = values,
         .scales = scales,
         .group = 3,
         .columns = columns},
        {.dtype = LORE_F32, .rows = 1, .cols = 3, .data = values, .zeros = zeros}};
    static const char *const reasons[] = {"without scales", "groups of 0", "groups of 2",
                                          "names column 3", "with groups"};
    for (size_t i = 0; i < sizeof bad_i4 / sizeof bad_i4[0]; i++) {
        CHECK_FAILS(lore_weight_pack(backend, &bad_i4[i], 1, LORE_USE_MATMUL, &weight, &err),
                    LORE_ERR_INVALID, &err, reasons[i]);
    }
    CHECK(weight == NULL);
    lore_weight_free(NULL);
    lore_backend_close(backend);
}

/* int8 keeps a quarter of the bytes of f32 and AUTO keeps int8 weights int8. */
TEST(pack_sizes)
{
    enum { ROWS = 128, COLS = 256 };
    static int8_t bytes[ROWS * COLS];
    static float scales[ROWS];
    const lore_matrix matrix = {
        .dtype = LORE_I8, .rows = ROWS, .cols = COLS, .data = bytes, .scales = scales};
    const lore_precision precisions[3] = {LORE_PRECISION_F32, LORE_PRECISION_BF16,
                                          LORE_PRECISION_AUTO};
    const size_t element[3] = {4, 2, 1};
    for (int i = 0; i < 3; i++) {
        lore_backend *backend = open_kind(LORE_BACKEND_CPU, precisions[i]);
        lore_weight *weight = NULL;
        lore_error err = {0};
        CHECK_OK(lore_weight_pack(backend, &matrix, 1, LORE_USE_MATMUL, &weight, &err), &err);
        CHECK_INT(lore_weight_rows(weight), ROWS);
        CHECK_INT(lore_weight_cols(weight), COLS);
        CHECK(lore_weight_bytes(weight) >= ROWS * COLS * element[i]);
        CHECK(lore_weight_bytes(weight) < ROWS * COLS * element[i] + 4096);
        lore_weight_free(weight);
        lore_backend_close(backend);
    }
}

/* Open, pack, queue, memory: each allocation failing once. */
static lore_status use_backend(void *self)
{
    const lore_backend_options options = {.kind = *(lore_backend_kind *)self};
    static const float values[6];
    static const int8_t bytes[3];
    static const float scale = 1.0f;
    const lore_matrix parts[2] = {
        {.dtype = LORE_F32, .rows = 2, .cols = 3, .data = values},
        {.dtype = LORE_I8, .rows = 1, .cols = 3, .data = bytes, .scales = &scale}};
    lore_backend *backend = NULL;
    lore_queue *queue = NULL;
    lore_weight *weight = NULL, *table = NULL, *rows = NULL;
    void *memory = NULL;
    lore_error err = {0};
    lore_status status = lore_backend_open(&options, &backend, &err);
    if (status == LORE_OK) {
        status = lore_queue_open(backend, &queue, &err);
    }
    if (status == LORE_OK) {
        status = lore_weight_pack(backend, parts, 2, LORE_USE_BOTH, &table, &err);
    }
    if (status == LORE_OK) {
        status = lore_weight_pack(backend, parts + 1, 1, LORE_USE_MATMUL, &weight, &err);
    }
    if (status == LORE_OK) {
        status = lore_weight_pack(backend, parts, 2, LORE_USE_EMBED, &rows, &err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(backend, 100, &memory, &err);
    }
    if (status == LORE_OK) {
        float x[3] = {1.0f}, out[1];
        lore_op_matmul(queue, lore_view_of(out, 1, 1), lore_view_of(x, 1, 3), weight,
                       (lore_epilogue){0});
        status = lore_queue_sync(queue, &err);
    }
    if (memory != NULL) {
        lore_backend_free(backend, memory);
    }
    lore_weight_free(weight);
    lore_weight_free(table);
    lore_weight_free(rows);
    lore_queue_close(queue);
    lore_backend_close(backend);
    return status;
}

TEST(memory_fails)
{
    lore_backend_kind kinds[2] = {LORE_BACKEND_REF, LORE_BACKEND_CPU};
    check_alloc_sweep(use_backend, &kinds[0]);
    check_alloc_sweep(use_backend, &kinds[1]);
}

/* Upload and download move bytes; memory is aligned for every vector unit. */
TEST(copies)
{
    lore_backend *backend = open_kind(LORE_BACKEND_CPU, LORE_PRECISION_AUTO);
    lore_queue *queue = NULL;
    lore_error err = {0};
    void *memory = NULL;
    CHECK_OK(lore_queue_open(backend, &queue, &err), &err);
    CHECK_OK(lore_backend_alloc(backend, 10, &memory, &err), &err);
    CHECK_INT((uintptr_t)memory % 64, 0);
    char text[10] = "123456789", back[10] = {0};
    lore_queue_upload(queue, memory, text, sizeof text);
    memset(text, 0, sizeof text); /* the source may be reused at once */
    lore_queue_download(queue, back, memory, sizeof back);
    CHECK_OK(lore_queue_sync(queue, &err), &err);
    CHECK_STR(lore_str_from(back), "123456789");
    lore_queue_upload(queue, NULL, NULL, 0); /* nothing is legal everywhere */
    lore_backend_free(backend, memory);
    lore_backend_free(backend, NULL);
    lore_queue_close(queue);
    lore_queue_close(NULL);
    lore_backend_close(backend);
}

/* What only a GPU has is refused, or unknown, elsewhere; on one it is a rate of memory, and what is
 * taken is not free. */
TEST(memory_of_a_device)
{
    lore_error err = {0};
    double rate = 0.0;
    lore_backend *backend = open_kind(LORE_BACKEND_CPU, LORE_PRECISION_AUTO);
    CHECK_FAILS(lore_backend_measure_reads(backend, &rate, &err), LORE_ERR_UNSUPPORTED, &err,
                "cpu");
    int64_t before = -1, after = -1, total = -1;
    lore_backend_memory(backend, &before, &total);
    CHECK_INT(before, 0);
    CHECK_INT(total, 0);
    lore_backend_close(backend);
    if (lore_backend_cuda_count() > 0) {
        void *memory = NULL;
        backend = open_kind(LORE_BACKEND_CUDA, LORE_PRECISION_AUTO);
        CHECK_OK(lore_backend_measure_reads(backend, &rate, &err), &err);
        CHECK(rate > 1e10 && rate < 1e14);
        lore_backend_memory(backend, &before, &total);
        CHECK(before > 0 && before <= total);
        CHECK_OK(lore_backend_alloc(backend, 256 << 20, &memory, &err), &err);
        lore_backend_memory(backend, &after, &total);
        CHECK(after <= before - (256 << 20));
        lore_backend_free(backend, memory);
        lore_backend_close(backend);
    }
}

typedef struct rival {
    lore_pool *pool;
    lore_priority priority;
    _Atomic int has_run;
} rival;

static void note(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)begin;
    (void)end;
    (void)worker;
    ((rival *)self)->has_run = 1;
}

static void *run_rival(void *self)
{
    rival *r = self;
    lore_pool_for(r->pool, 4, 1, r->priority, note, r);
    return NULL;
}

/* From lore_queue_begin to lore_queue_sync the queue owns the pool: others of its priority wait for
 * the sync, one of high priority comes in between. Without a pool both calls do nothing. */
TEST(queues_own_the_pool)
{
    lore_error err = {0};
    lore_pool *pool = NULL;
    CHECK_OK(lore_pool_new(2, &pool, &err), &err);
    for (int i = 0; i < 4; i++) { /* ref and cpu, without the pool and with it */
        const lore_backend_options options = {
            .kind = i % 2 == 0 ? LORE_BACKEND_REF : LORE_BACKEND_CPU, .pool = i < 2 ? NULL : pool};
        rival equal = {pool, LORE_PRIORITY_NORMAL, 0}, higher = {pool, LORE_PRIORITY_HIGH, 0};
        lore_backend *backend = NULL;
        lore_queue *queue = NULL;
        lore_thread threads[2];
        CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
        CHECK_OK(lore_queue_open(backend, &queue, &err), &err);
        lore_queue_begin(queue, LORE_PRIORITY_NORMAL);
        CHECK_OK(lore_thread_start(&threads[0], "equal", run_rival, &equal, &err), &err);
        CHECK_OK(lore_thread_start(&threads[1], "higher", run_rival, &higher, &err), &err);
        float x[64] = {1.0f}, out[64];
        static const float w[64];
        while (higher.has_run == 0) { /* each op is an occasion */
            lore_op_rmsnorm(queue, lore_view_of(out, 1, 64), lore_view_of(x, 1, 64), w, 1e-6f);
            lore_pool_for(pool, 2, 1, LORE_PRIORITY_NORMAL, note, &(rival){0});
            lore_clock_sleep_ms(1);
        }
        lore_clock_sleep_ms(20);
        CHECK(i < 2 || equal.has_run == 0);
        CHECK_OK(lore_queue_sync(queue, &err), &err);
        lore_thread_join(&threads[0]);
        lore_thread_join(&threads[1]);
        CHECK_INT(equal.has_run, 1);
        CHECK_OK(lore_queue_sync(queue, &err), &err); /* the span is over: nothing to end twice */
        lore_queue_close(queue);
        lore_backend_close(backend);
    }
    lore_pool_free(pool);
}

/* On the host nothing has to be waited for: marks end what was begun, later downloads are done at
 * once, and a failure is returned by the mark behind it alone. */
TEST(marks_of_the_host)
{
    lore_pool *pool = NULL;
    lore_backend *backend = NULL;
    lore_queue *queue = NULL;
    lore_error err = {0};
    void *from = NULL, *to = NULL;
    int64_t unused = 1, total = 1;
    CHECK_OK(lore_pool_new(2, &pool, &err), &err);
    const lore_backend_options options = {.kind = LORE_BACKEND_CPU, .pool = pool};
    CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
    lore_backend_memory(backend, &unused, &total);
    CHECK(unused == 0 && total == 0 && !lore_backend_can_record(backend));
    CHECK_OK(lore_queue_open(backend, &queue, &err), &err);
    CHECK_OK(lore_backend_alloc_host(backend, 64, &from, &err), &err);
    CHECK_OK(lore_backend_alloc_host(backend, 64, &to, &err), &err);
    CHECK((uintptr_t)from % 64 == 0);
    for (int32_t i = 0; i < 4; i++) { /* begin would assert if the last mark had not ended it */
        lore_queue_begin(queue, LORE_PRIORITY_NORMAL);
        memset(from, i + 1, 64);
        lore_queue_download_later(queue, to, from, 64);
        CHECK_OK(lore_queue_mark(queue, i % LORE_MARKS, &err), &err);
        CHECK(memcmp(from, to, 64) == 0);
    }
    lore_queue_begin(queue, LORE_PRIORITY_NORMAL);
    lore_queue_download_later(queue, to, from, 0);
    float logit = 0;
    const lore_penalty penalty = {.repetition = 2.0f, .ids = (const int32_t[]){0}, .count = 1};
    lore_mem_fail_at(1, true);
    lore_op_penalise(queue, lore_view_of(&logit, 1, 1), &penalty);
    lore_mem_fail_at(0, false);
    CHECK_INT(lore_queue_mark(queue, 1, &err), LORE_ERR_NOMEM);
    CHECK_OK(lore_queue_wait_mark(queue, 0, &err), &err);
    lore_backend_free_host(backend, from);
    lore_backend_free_host(backend, to);
    lore_backend_free_host(backend, NULL);
    lore_recording_free(NULL);
    lore_queue_close(queue);
    lore_backend_close(backend);
    lore_pool_free(pool);
}

CHECK_MAIN(memory_of_a_device, halves_round_trip, halves_round_to_even, quantize_row, dtypes,
           open_and_describe, marks_of_the_host, pack_refuses, pack_sizes, memory_fails, copies,
           queues_own_the_pool)
