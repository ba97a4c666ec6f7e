/* Steps that overlap and steps that are padded: the same tokens, and where it is promised the same
 * bits, as one step after the other.
 *
 * Five texts of different lengths, two of them drawn at random, read their prompts in pieces and
 * then draw tokens together; they end one after the other, so that the batch shrinks through
 * several buckets. test_decoder_step_gpu.c runs the same on a device, where recordings join. */
#include "models/decoder_int.h"
#ifndef STEPS_CUDA
#include "tests/unit/deferred_backend.h"
#endif
#include "tests/unit/models_fixture.h"

enum {
    TEXTS = 5,
    DRAWS = 22,
    PIECE = 16,
    PROMPT_MAX = 48,
    PAGE_TOKENS = 8,
    TEXT_PAGES = 10,
    VOCAB = 272,
    RESERVED_PAGES = TEXTS * TEXT_PAGES
};

typedef struct text {
    int32_t prompt[PROMPT_MAX], prompt_count, past;
    int32_t drawn[DRAWS], drawn_count; /* collected */
    int32_t wanted, submitted;         /* draws in the end, and asked for so far */
    int32_t last_draw;                 /* of the last step that drew for it: which draw */
    float logits[DRAWS][VOCAB];        /* where they were asked for */
} text;

typedef struct arrays {
    int32_t ids[TEXTS * PIECE], row_start[TEXTS + 1], past[TEXTS], page_start[TEXTS + 1];
    int32_t pages[TEXTS * TEXT_PAGES], logits_rows[TEXTS], who[TEXTS];
    lore_sample samples[TEXTS];
} arrays;

static void texts_new(text *texts)
{
    static const int32_t LENGTHS[TEXTS] = {1, 7, 16, 31, 48};
    uint32_t state = 7;
    memset(texts, 0, TEXTS * sizeof *texts);
    for (int32_t i = 0; i < TEXTS; i++) {
        texts[i].prompt_count = LENGTHS[i];
        texts[i].wanted = DRAWS - 4 * i;
        for (int32_t k = 0; k < LENGTHS[i]; k++) {
            state = state * 1103515245u + 12345u;
            texts[i].prompt[k] = (int32_t)((state >> 16) % 256);
        }
    }
}

/* The next rows of a text. What it has drawn is named by its draw while that is not collected. */
static void add_rows(lore_step *step, arrays *a, text *t, int32_t who)
{
    lore_batch *b = &step->batch;
    int32_t n = b->sequences++, left = t->prompt_count - t->past;
    int32_t rows = left > PIECE ? PIECE : left > 0 ? left : 1;
    for (int32_t i = 0; i < rows; i++) {
        int32_t id = t->submitted > t->drawn_count ? LORE_ID_DRAWN(t->last_draw)
                     : t->drawn_count > 0          ? t->drawn[t->drawn_count - 1]
                                                   : 0;
        a->ids[b->rows + i] = left > 0 ? t->prompt[t->past + i] : id;
    }
    a->past[n] = t->past;
    t->past += rows;
    b->rows += rows;
    a->row_start[n + 1] = b->rows;
    a->page_start[n + 1] = a->page_start[n] + lore_pages_for(t->past, PAGE_TOKENS);
    for (int32_t i = a->page_start[n]; i < a->page_start[n + 1]; i++) {
        a->pages[i] = who + (i - a->page_start[n]) * TEXTS; /* those of all texts interleaved */
    }
    b->rows_max = rows > b->rows_max ? rows : b->rows_max;
    b->context_max = t->past > b->context_max ? t->past : b->context_max;
    if (t->past >= t->prompt_count) {
        int32_t draw = step->logits_count++;
        a->logits_rows[draw] = b->rows - 1;
        a->who[draw] = who;
        a->samples[draw] = (lore_sample){.temperature = who % 2 == 0 ? 0.0f : 0.9f,
                                         .top_p = 0.95f,
                                         .seed = (uint64_t)who,
                                         .position = t->past};
        t->last_draw = draw;
        t->submitted++;
    }
}

/* A step of all texts that want more; false: none does. */
static bool plan(lore_step *step, arrays *a, text *texts)
{
    *step = (lore_step){.ids = a->ids,
                        .batch = {.row_start = a->row_start,
                                  .past = a->past,
                                  .page_start = a->page_start,
                                  .pages = a->pages},
                        .logits_rows = a->logits_rows,
                        .samples = a->samples};
    a->row_start[0] = a->page_start[0] = 0;
    for (int32_t i = 0; i < TEXTS; i++) {
        if (texts[i].submitted < texts[i].wanted) {
            add_rows(step, a, &texts[i], i);
        }
    }
    return step->batch.rows > 0;
}

static void take(text *texts, const arrays *a, int32_t count, const int32_t *ids,
                 const float *logprobs)
{
    for (int32_t i = 0; i < count; i++) {
        text *t = &texts[a->who[i]];
        CHECK(ids[i] >= 0 && ids[i] < VOCAB && logprobs[i] <= 0);
        t->drawn[t->drawn_count++] = ids[i];
    }
}

/* One step after the other, logits kept. */
static void run_in_turn(lore_decoder *decoder, text *texts)
{
    static float logits[TEXTS * VOCAB];
    arrays a;
    lore_step step;
    lore_error err = {0};
    int32_t ids[TEXTS];
    float logprobs[TEXTS];
    while (plan(&step, &a, texts)) {
        CHECK_OK(lore_decoder_step(decoder, &step, ids, logprobs, logits, &err), &err);
        for (int32_t i = 0; i < step.logits_count; i++) {
            text *t = &texts[a.who[i]];
            memcpy(t->logits[t->drawn_count + 0], logits + (size_t)i * VOCAB,
                   VOCAB * sizeof(float));
            CHECK_INT(t->drawn_count + 1, t->submitted);
        }
        take(texts, &a, step.logits_count, ids, logprobs);
    }
}

/* Each step is submitted before the one before it is collected, from arrays that are spoilt as soon
 * as they may be. */
static void run_ahead(lore_decoder *decoder, text *texts)
{
    arrays kept[2], lent;
    lore_step step;
    lore_error err = {0};
    int32_t ids[TEXTS], counts[2], first = 0, in_flight = 0;
    float logprobs[TEXTS];
    for (;;) {
        bool has_more = plan(&step, &lent, texts);
        if (has_more) {
            int32_t which = (first + in_flight++) % 2;
            kept[which] = lent;
            counts[which] = step.logits_count;
            CHECK_OK(lore_decoder_submit(decoder, &step, &err), &err);
            memset(&lent, 0x7f, sizeof lent);
        }
        if (in_flight == 2 || (!has_more && in_flight > 0)) {
            CHECK_OK(lore_decoder_collect(decoder, ids, logprobs, &err), &err);
            take(texts, &kept[first], counts[first], ids, logprobs);
            first = (first + 1) % 2;
            in_flight--;
        } else if (!has_more) {
            return;
        }
    }
}

static lore_decoder *open_family(const fixture *f, const char *name, lore_dtype kv_dtype)
{
    char folder[512];
    lore_error err = {0};
    lore_decoder *decoder = NULL;
    const lore_decoder_options options = {.rows_max = TEXTS * PIECE,
                                          .sequences_max = TEXTS + 1,
                                          .page_tokens = PAGE_TOKENS,
                                          .page_count = RESERVED_PAGES,
                                          .kv_dtype = kv_dtype};
    snprintf(folder, sizeof folder, LORE_FAMILIES "/%s", name);
    CHECK_OK(lore_decoder_open(folder, f->backend, &LIMITS, &options, &decoder, &err), &err);
    return decoder;
}

static void check_same_tokens(const text *a, const text *b)
{
    for (int32_t i = 0; i < TEXTS; i++) {
        CHECK_INT(a[i].drawn_count, a[i].wanted);
        CHECK_INT(b[i].drawn_count, b[i].wanted);
        CHECK(memcmp(a[i].drawn, b[i].drawn, (size_t)a[i].wanted * sizeof(int32_t)) == 0);
    }
}

static void check_same_logits(const text *a, const text *b)
{
    for (int32_t i = 0; i < TEXTS; i++) {
        CHECK(memcmp(a[i].logits, b[i].logits, sizeof a[i].logits) == 0);
    }
}

CHECK_UNUSED static text in_turn[TEXTS], ahead[TEXTS], padded[TEXTS];

#ifndef STEPS_CUDA

static void overlap(lore_backend_kind kind, lore_precision precision, const char *family)
{
    fixture f = fixture_open(kind, precision);
    lore_decoder *decoder = open_family(&f, family, LORE_F32);
    CHECK_INT(lore_decoder_get_info(decoder)->steps_in_flight, 1);
    texts_new(in_turn);
    run_in_turn(decoder, in_turn);
    texts_new(ahead);
    run_ahead(decoder, ahead);
    check_same_tokens(in_turn, ahead);
    lore_decoder_close(decoder);
    fixture_close(&f);
}

/* A step that feeds on draws nobody has read yet is the step that feeds on what was read. */
TEST(steps_overlap_ref)
{
    overlap(LORE_BACKEND_REF, LORE_PRECISION_F32, "llama");
    overlap(LORE_BACKEND_REF, LORE_PRECISION_F32, "phi3-long");
}

TEST(steps_overlap_cpu)
{
    overlap(LORE_BACKEND_CPU, LORE_PRECISION_F32, "gemma2");
    overlap(LORE_BACKEND_CPU, LORE_PRECISION_AUTO, "qwen3");
}

/* Rows of nobody change no bit of the others, and the reserved page is the only one they touch. */
TEST(padding_changes_nothing)
{
    static const char *const NAMES[] = {"llama", "qwen2-window", "phi3-long", "gemma2"};
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        lore_decoder *decoder = open_family(&f, NAMES[i], LORE_F32);
        const lore_pages *pages = &decoder->layers[0].pages;
        size_t one = (size_t)pages->kv_heads * PAGE_TOKENS * (size_t)pages->head_dim;
        float *reserved = (float *)pages->keys + RESERVED_PAGES * one;
        CHECK_INT(pages->page_count, RESERVED_PAGES + 1);
        CHECK_INT(decoder->info.page_count, RESERVED_PAGES);
        CHECK(!decoder->is_bucketed);
        memset(reserved, 0x42, one * sizeof(float));
        texts_new(in_turn);
        run_in_turn(decoder, in_turn);
        float first = reserved[0];
        memset(reserved, 0, one * sizeof(float));
        decoder->is_bucketed = true;
        texts_new(padded);
        run_in_turn(decoder, padded);
        check_same_tokens(in_turn, padded);
        check_same_logits(in_turn, padded);
        CHECK(first > 48.0f && first < 49.0f); /* 0x42424242: untouched until rows were padded */
        CHECK(reserved[0] != 0.0f);
        lore_decoder_close(decoder);
    }
    fixture_close(&f);
}

/* The arrays of a block do not overlap, stand on whole lines, and the pages come last, so that a
 * prefix is all that has to be copied. */
TEST(block_of_a_step)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    lore_decoder *d = open_family(&f, "llama", LORE_F32);
    static char block[1 << 16];
    lore_step_memory m;
    size_t bytes = lore_step_memory_place(d, NULL, &m), sequences = (size_t)d->sequences_max;
    CHECK(bytes < sizeof block && m.ids == NULL);
    CHECK_INT(lore_step_memory_place(d, block, &m), bytes);
    const struct {
        const void *at;
        size_t bytes;
    } places[] = {{m.samples, sequences * sizeof(lore_sample)},
                  {m.row_start, (sequences + 1) * 4},
                  {m.past, sequences * 4},
                  {m.page_start, (sequences + 1) * 4},
                  {m.logits_rows, sequences * 4},
                  {m.rope_starts, sequences * 4},
                  {m.ids, (size_t)d->rows_max * 4},
                  {m.pages, ((size_t)d->page_list_max + sequences) * 4}};
    const char *end = block;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        CHECK((const char *)places[i].at >= end);
        CHECK_INT((uintptr_t)((const char *)places[i].at - block) % 64, 0);
        end = (const char *)places[i].at + places[i].bytes;
    }
    CHECK(end <= block + bytes);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* There is nothing to record on the host, and a step of no rows is one that draws nothing. */
TEST(nothing_to_do)
{
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    lore_decoder *d = open_family(&f, "llama", LORE_F32);
    lore_error err = {0};
    bool is_done = false;
    int32_t row_start[] = {0}, untouched = -7;
    float logprob = 7;
    CHECK(!lore_backend_can_record(f.backend));
    CHECK_OK(lore_decoder_prepare(d, &is_done, &err), &err);
    CHECK(is_done);
    const lore_step step = {.batch = {.row_start = row_start, .page_start = row_start}};
    CHECK_OK(lore_decoder_submit(d, &step, &err), &err);
    CHECK_OK(lore_decoder_submit(d, &step, &err), &err);
    CHECK_OK(lore_decoder_collect(d, &untouched, &logprob, &err), &err);
    CHECK_OK(lore_decoder_collect(d, &untouched, &logprob, &err), &err);
    CHECK_INT(untouched, -7);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* A step that fails is none; the one before it is still to be had. */
TEST(a_failed_step_is_none)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    lore_decoder *d = open_family(&f, "llama", LORE_F32);
    lore_error err = {0};
    arrays a;
    lore_step step;
    texts_new(ahead);
    CHECK(plan(&step, &a, ahead));
    step.logits_count = 0; /* the first draw is what needs scratch */
    CHECK_OK(lore_decoder_submit(d, &step, &err), &err);
    texts_new(ahead);
    CHECK(plan(&step, &a, ahead) && step.logits_count > 0);
    lore_mem_fail_at(1, true);
    lore_status status = lore_decoder_submit(d, &step, &err);
    lore_mem_fail_at(0, false);
    CHECK_INT(status, LORE_ERR_NOMEM);
    CHECK_INT(d->in_flight, 1);
    int32_t ids[TEXTS];
    float logprobs[TEXTS];
    CHECK_OK(lore_decoder_collect(d, ids, logprobs, &err), &err);
    texts_new(in_turn);
    run_in_turn(d, in_turn);
    texts_new(ahead);
    run_ahead(d, ahead);
    check_same_tokens(in_turn, ahead);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* ---- a device whose work is done late ---- */

static int32_t recorded_count(const lore_decoder *d)
{
    int32_t found = 0;
    for (int32_t i = 0; i < d->row_buckets * d->context_buckets; i++) {
        found += d->recorded[i].recording != NULL;
    }
    return found;
}

/* Steps in turn and ahead, recorded when a bucket comes back or all before: bit for bit those of
 * ref. */
TEST(late_device)
{
    static const char *const NAMES[] = {"llama", "phi3-long", "gemma2"};
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    lore_error err = {0};
    bool is_done = false;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        lore_decoder *ref = open_family(&f, NAMES[i], LORE_F32);
        texts_new(in_turn);
        run_in_turn(ref, in_turn);
        lore_decoder_close(ref);
        deferred_backend device = deferred_open(f.backend, (int64_t)1 << 30);
        fixture on = {.backend = &device.base};
        lore_decoder *d = open_family(&on, NAMES[i], LORE_F32);
        CHECK_INT(lore_decoder_get_info(d)->steps_in_flight, 2);
        CHECK_INT(d->row_buckets, 4); /* 1, 2, 4 and 6 */
        CHECK_INT(recorded_count(d), 1);
        texts_new(padded);
        run_in_turn(d, padded);
        check_same_tokens(in_turn, padded);
        check_same_logits(in_turn, padded);
        CHECK(recorded_count(d) > 1 && device.replays > 0);
        texts_new(ahead);
        run_ahead(d, ahead);
        check_same_tokens(in_turn, ahead);
        while (!is_done) {
            CHECK_OK(lore_decoder_prepare(d, &is_done, &err), &err);
        }
        is_done = false;
        CHECK_INT(recorded_count(d), d->row_buckets * d->context_buckets);
        texts_new(ahead);
        run_ahead(d, ahead);
        check_same_tokens(in_turn, ahead);
        lore_decoder_close(d);
    }
    fixture_close(&f);
}

/* Where nothing can be recorded, steps run as they are, and nobody asks a second time. */
TEST(refused_recordings)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    lore_error err = {0};
    bool is_done = false;
    int32_t calls = 0;
    deferred_backend device = deferred_open(f.backend, (int64_t)1 << 30);
    device.refuses_recordings = true;
    fixture on = {.backend = &device.base};
    lore_decoder *d = open_family(&on, "llama", LORE_F32);
    texts_new(in_turn);
    run_in_turn(d, in_turn);
    texts_new(ahead);
    run_ahead(d, ahead);
    check_same_tokens(in_turn, ahead);
    while (!is_done) {
        CHECK_OK(lore_decoder_prepare(d, &is_done, &err), &err);
        calls++;
    }
    CHECK(calls <= 2 * d->row_buckets * d->context_buckets); /* run, and refused */
    CHECK_INT(device.replays, 0);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* A device that is lost with two steps on their way: both fail when they are collected, neither
 * hangs, and so does whatever needs it later; opening says it too. */
TEST(lost_device)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    deferred_backend device = deferred_open(f.backend, (int64_t)1 << 30);
    fixture on = {.backend = &device.base};
    lore_decoder *d = open_family(&on, "llama", LORE_F32), *second = NULL;
    lore_error err = {0};
    arrays a;
    lore_step step;
    int32_t ids[TEXTS];
    float logprobs[TEXTS];
    bool is_done = false;
    texts_new(ahead);
    for (int32_t i = 0; i < 2; i++) {
        CHECK(plan(&step, &a, ahead));
        CHECK_OK(lore_decoder_submit(d, &step, &err), &err);
    }
    device.is_lost = true;
    for (int32_t i = 0; i < 2; i++) {
        CHECK_FAILS(lore_decoder_collect(d, ids, logprobs, &err), LORE_ERR_DEVICE, &err, "lost");
    }
    texts_new(ahead);
    CHECK(plan(&step, &a, ahead));
    CHECK_FAILS(lore_decoder_step(d, &step, ids, logprobs, NULL, &err), LORE_ERR_DEVICE, &err,
                "lost");
    CHECK_FAILS(lore_decoder_prepare(d, &is_done, &err), LORE_ERR_DEVICE, &err, "lost");
    CHECK_FAILS(
        lore_decoder_open(LORE_FAMILIES "/llama", &device.base, &LIMITS, NULL, &second, &err),
        LORE_ERR_DEVICE, &err, "lost");
    device.is_lost = false;
    texts_new(in_turn);
    run_in_turn(d, in_turn);
    lore_decoder_close(d);
    fixture_close(&f);
}

CHECK_MAIN(steps_overlap_ref, steps_overlap_cpu, padding_changes_nothing, block_of_a_step,
           nothing_to_do, a_failed_step_is_none, late_device, refused_recordings, lost_device)
#endif
