/* test_decoder_step.c on a device: steps as they are, padded, recorded and overlapping. */
#define STEPS_CUDA
#include "tests/unit/test_decoder_step.c"

static void forget_recordings(lore_decoder *d)
{
    for (int32_t i = 0; i < d->row_buckets * d->context_buckets; i++) {
        lore_recording_free(d->recorded[i].recording);
        d->recorded[i] = (lore_bucket){0};
    }
}

static void refuse_recordings(lore_decoder *d)
{
    forget_recordings(d);
    for (int32_t i = 0; i < d->row_buckets * d->context_buckets; i++) {
        d->recorded[i].is_refused = true;
    }
}

static void prepare_all(lore_decoder *d)
{
    lore_error err = {0};
    bool is_done = false;
    int32_t calls = 0;
    while (!is_done) {
        CHECK_OK(lore_decoder_prepare(d, &is_done, &err), &err);
        CHECK(calls++ <= 2 * d->row_buckets * d->context_buckets); /* run, and recorded */
    }
    for (int32_t i = 0; i < d->row_buckets * d->context_buckets; i++) {
        CHECK(d->recorded[i].recording != NULL && !d->recorded[i].is_refused);
    }
}

/* Largest difference over the size of the largest logit. */
static double logits_apart(const text *a, const text *b)
{
    double widest = 0, top = 0;
    for (int32_t i = 0; i < TEXTS; i++) {
        for (int32_t k = 0; k < VOCAB; k++) { /* of the first draw: later tokens may differ */
            double x = a[i].logits[0][k], y = b[i].logits[0][k];
            widest = fabs(x - y) > widest ? fabs(x - y) : widest;
            top = fabs(x) > top ? fabs(x) : top;
            CHECK(isfinite(y));
        }
    }
    return widest / top;
}

static void on_device(const char *family, lore_precision precision, lore_dtype kv_dtype,
                      double tolerance)
{
    fixture host = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    fixture f = fixture_open(LORE_BACKEND_CUDA, precision);
    lore_decoder *ref = open_family(&host, family, LORE_F32);
    texts_new(in_turn);
    run_in_turn(ref, in_turn);
    lore_decoder_close(ref);
    fixture_close(&host);

    static text plain[TEXTS], replayed[TEXTS];
    lore_decoder *d = open_family(&f, family, kv_dtype);
    CHECK_INT(lore_decoder_get_info(d)->steps_in_flight, 2);
    CHECK(d->is_bucketed && d->recorded != NULL && d->recorded[0].recording != NULL);
    /* As they are, without buckets: close to ref. */
    d->is_bucketed = false;
    texts_new(plain);
    run_in_turn(d, plain);
    double apart = logits_apart(in_turn, plain);
    printf("%s %s: plain steps and ref are %.2g apart\n", family, lore_precision_name(precision),
           apart);
    CHECK(apart < tolerance);
    /* In buckets, launched one by one. */
    d->is_bucketed = true;
    refuse_recordings(d);
    texts_new(padded);
    run_in_turn(d, padded);
    CHECK(logits_apart(in_turn, padded) < tolerance);
    /* Recorded when they come the second time, and then all beforehand: not one bit else. */
    forget_recordings(d);
    texts_new(replayed);
    run_in_turn(d, replayed);
    check_same_tokens(padded, replayed);
    check_same_logits(padded, replayed);
    prepare_all(d);
    texts_new(replayed);
    run_in_turn(d, replayed);
    check_same_tokens(padded, replayed);
    check_same_logits(padded, replayed);
    texts_new(ahead);
    run_ahead(d, ahead);
    check_same_tokens(padded, ahead);
    lore_decoder_close(d);
    fixture_close(&f);
}

TEST(llama_f32)
{
    on_device("llama", LORE_PRECISION_F32, LORE_F32, 1e-3);
}

TEST(llama_bf16)
{
    on_device("llama", LORE_PRECISION_BF16, LORE_BF16, 0.1);
}

TEST(phi3_long_bf16)
{
    on_device("phi3-long", LORE_PRECISION_BF16, LORE_BF16, 0.1);
}

TEST(gemma2_bf16)
{
    on_device("gemma2", LORE_PRECISION_BF16, LORE_BF16, 0.1);
}

TEST(qwen3_bf16)
{
    on_device("qwen3", LORE_PRECISION_BF16, LORE_BF16, 0.1);
}

/* At a fixed bucket a row is the same beside anybody: text 0 with texts 1 to 4, and with others of
 * other lengths in their place. */
TEST(neighbours_change_no_bit)
{
    fixture f = fixture_open(LORE_BACKEND_CUDA, LORE_PRECISION_BF16);
    lore_decoder *d = open_family(&f, "llama", LORE_BF16);
    prepare_all(d);
    texts_new(in_turn);
    for (int32_t i = 0; i < TEXTS; i++) { /* one bucket from the first step on, and to the end */
        in_turn[i].prompt_count = 1;
        in_turn[i].wanted = DRAWS;
    }
    run_in_turn(d, in_turn);
    texts_new(padded);
    for (int32_t i = 0; i < TEXTS; i++) {
        padded[i].prompt_count = 1;
        padded[i].wanted = DRAWS;
        padded[i].prompt[0] = i == 0 ? padded[i].prompt[0] : 200 + i;
    }
    run_in_turn(d, padded);
    CHECK(memcmp(in_turn[0].drawn, padded[0].drawn, sizeof in_turn[0].drawn) == 0);
    CHECK(memcmp(in_turn[0].logits, padded[0].logits, sizeof in_turn[0].logits) == 0);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* A recording that would have to allocate is refused, in words, and the queue goes on; one that was
 * made before scratch grew still finds its own. */
TEST(recordings_and_scratch)
{
    enum { COLS = 64 };
    fixture f = fixture_open(LORE_BACKEND_CUDA, LORE_PRECISION_BF16);
    lore_error err = {0};
    lore_queue *queue = NULL;
    lore_recording *recording = NULL;
    void *memory = NULL;
    static float logits[COLS], expected[COLS], got[COLS];
    static int32_t ids[1 << 20];
    const lore_penalty few = {.repetition = 2.0f, .ids = ids, .count = 4};
    const lore_penalty many = {.repetition = 2.0f, .ids = ids, .count = 1 << 20};
    for (int32_t i = 0; i < COLS; i++) {
        logits[i] = (float)i - 20.0f;
        expected[i] = i == 0 ? logits[i] * 2.0f * 2.0f : logits[i];
    }
    CHECK_OK(lore_queue_open(f.backend, &queue, &err), &err);
    CHECK_OK(lore_backend_alloc(f.backend, sizeof logits, &memory, &err), &err);
    lore_view view = lore_view_of(memory, 1, COLS);
    lore_queue_upload(queue, memory, logits, sizeof logits);
    lore_op_penalise(queue, view, &few);
    CHECK_OK(lore_queue_sync(queue, &err), &err);
    lore_queue_record_begin(queue);
    lore_op_penalise(queue, view, &many);
    CHECK(lore_queue_record_end(queue, &recording, &err) != LORE_OK);
    CHECK(recording == NULL && err.message[0] != '\0');
    printf("refused: %s\n", err.message);
    CHECK_OK(lore_queue_sync(queue, &err), &err);
    lore_op_penalise(queue, view, &few);
    lore_queue_download(queue, got, memory, sizeof got);
    CHECK_OK(lore_queue_sync(queue, &err), &err);
    CHECK(memcmp(got, expected, sizeof got) == 0);
    lore_backend_free(f.backend, memory);
    lore_queue_close(queue);
    fixture_close(&f);
}

/* Marks, later downloads and page-locked memory: two pieces of work, each read behind its mark. */
TEST(marks)
{
    enum { COUNT = 1 << 20 };
    fixture f = fixture_open(LORE_BACKEND_CUDA, LORE_PRECISION_F32);
    lore_error err = {0};
    lore_queue *queue = NULL;
    void *there = NULL, *here[2] = {NULL, NULL}, *from = NULL;
    const size_t bytes = COUNT * sizeof(int32_t);
    int64_t unused = 0, total = 0;
    lore_backend_memory(f.backend, &unused, &total);
    CHECK(total > 0 && unused > 0 && unused <= total);
    CHECK_OK(lore_queue_open(f.backend, &queue, &err), &err);
    CHECK_OK(lore_backend_alloc(f.backend, bytes, &there, &err), &err);
    CHECK_OK(lore_backend_alloc_host(f.backend, bytes, &from, &err), &err);
    for (int32_t k = 0; k < 2; k++) {
        CHECK_OK(lore_backend_alloc_host(f.backend, bytes, &here[k], &err), &err);
    }
    for (int32_t round = 0; round < 8; round++) {
        int32_t k = round % 2;
        if (round > 0) { /* the source may be written again behind the last mark only */
            CHECK_OK(lore_queue_wait_mark(queue, 1 - k, &err), &err);
            CHECK_INT(((int32_t *)here[1 - k])[COUNT - 1], round - 1 + COUNT - 1);
        }
        for (int32_t i = 0; i < COUNT; i++) {
            ((int32_t *)from)[i] = round + i;
        }
        lore_queue_begin(queue, LORE_PRIORITY_NORMAL);
        lore_queue_upload(queue, there, from, bytes);
        lore_queue_download_later(queue, here[k], there, bytes);
        CHECK_OK(lore_queue_mark(queue, k, &err), &err);
    }
    CHECK_OK(lore_queue_sync(queue, &err), &err);
    for (int32_t k = 0; k < 2; k++) {
        lore_backend_free_host(f.backend, here[k]);
    }
    lore_backend_free_host(f.backend, from);
    lore_backend_free(f.backend, there);
    lore_queue_close(queue);
    fixture_close(&f);
}

CHECK_MAIN(llama_f32, llama_bf16, phi3_long_bf16, gemma2_bf16, qwen3_bf16, neighbours_change_no_bit,
           recordings_and_scratch, marks)
