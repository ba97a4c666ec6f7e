/* Packs on their way: two leave before the first is waited for, every text comes back to its own
 * request whoever waits for it, and a pack that fails takes only its own texts with it.
 *
 * ref computes all when it is submitted; the deferred backend only when it is waited for, as a
 * device may, so that memory which is written or read too early shows. Rows of neither depend on
 * their company: vectors are equal bit by bit. */
#include "tests/unit/deferred_backend.h"
#include "tests/unit/models_fixture.h"

#include "models/embed_line_int.h"
#include "models/embedder_int.h"
#include "models/encoder_folder_int.h"

#include <pthread.h>

#define FOLDER LORE_FAMILIES "/enc-bert"

enum { DIM = 32, TEXTS = 40, TOKENS = 24 }; /* the folder's limit is 24 tokens */

static const lore_encoder_room ROOM = {.rows = 64, .sequences = 8, .seats = 2};

/* ---- the line itself ---- */

typedef struct network {
    fixture f;
    lore_encoder_config config;
    lore_weights *weights;
    lore_encoder *encoder;
    lore_embed_line *line;
} network;

static network network_open(void)
{
    network n = {.f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32)};
    lore_error err = {0};
    lore_encoder_options options = {.rooms = {ROOM, ROOM}, .lanes = LORE_ENCODER_LANES};
    CHECK_OK(lore_encoder_folder_read(FOLDER, &LIMITS, &n.config, &err), &err);
    CHECK_OK(lore_weights_open(FOLDER, &LIMITS, &n.weights, &err), &err);
    CHECK_OK(lore_encoder_open(&n.config, n.weights, NULL, n.f.backend, &options, &n.encoder, &err),
             &err);
    CHECK_INT(lore_encoder_dim(n.encoder), DIM);
    CHECK_OK(lore_embed_line_open(n.encoder, LORE_ENCODER_BULK, &ROOM, &n.line, &err), &err);
    return n;
}

static void network_close(network *n)
{
    lore_embed_line_close(n->line);
    lore_encoder_close(n->encoder);
    lore_weights_close(n->weights);
    fixture_close(&n->f);
}

/* Texts of `tokens` ids each, all different. */
typedef struct errand {
    int32_t ids[TEXTS][TOKENS];
    lore_embed_text texts[TEXTS];
    float vectors[TEXTS][DIM];
    lore_embed_request request;
} errand;

static void errand_init(errand *e, int32_t count, int32_t tokens, int32_t seed)
{
    for (int32_t i = 0; i < count; i++) {
        for (int32_t k = 0; k < tokens; k++) {
            e->ids[i][k] = 5 + (seed + i * 7 + k * 3) % 100;
        }
        e->texts[i] = (lore_embed_text){e->ids[i], tokens, i};
    }
    memset(e->vectors, 0, sizeof e->vectors);
    e->request = (lore_embed_request){.texts = e->texts, .count = count, .vectors = e->vectors[0]};
}

/* What each text gives when it travels alone. */
static void check_vectors(network *n, errand *e)
{
    for (int32_t i = 0; i < e->request.count; i++) {
        lore_embed_text text = e->texts[i];
        float alone[DIM];
        lore_error err = {0};
        text.index = 0;
        lore_embed_request request = {.texts = &text, .count = 1, .vectors = alone};
        lore_embed_line_join(n->line, &request);
        CHECK_OK(lore_embed_line_finish(n->line, &request, &err), &err);
        CHECK(memcmp(alone, e->vectors[e->texts[i].index], sizeof alone) == 0);
    }
}

TEST(two_packs_leave_before_one_is_waited_for)
{
    static errand e;
    network n = network_open();
    lore_error err = {0};
    errand_init(&e, TEXTS, 8, 1); /* eight texts are a pack: five packs */
    lore_embed_line_join(n.line, &e.request);
    CHECK_INT(lore_embed_line_packs(n.line), 0);
    lore_embed_line_advance(n.line);
    CHECK_INT(lore_embed_line_packs(n.line), 2);
    CHECK_INT(e.request.taken, 16);
    CHECK_INT(e.request.done, 0);
    lore_embed_line_advance(n.line); /* no seat is free */
    CHECK_INT(lore_embed_line_packs(n.line), 2);
    CHECK_OK(lore_embed_line_finish(n.line, &e.request, &err), &err);
    CHECK_INT(lore_embed_line_packs(n.line), 5);
    CHECK_INT(e.request.done, TEXTS);
    check_vectors(&n, &e);
    network_close(&n);
}

/* A pack takes texts of both; the one who waits first brings back the other's too. */
TEST(requests_share_packs)
{
    static errand a, b;
    network n = network_open();
    lore_error err = {0};
    errand_init(&a, 5, 10, 1);
    errand_init(&b, 5, 6, 50);
    lore_embed_line_join(n.line, &a.request);
    lore_embed_line_join(n.line, &b.request);
    lore_embed_line_advance(n.line);
    CHECK_INT(lore_embed_line_packs(n.line), 2); /* 50 + 2 * 6 tokens, then 18 */
    CHECK_INT(b.request.taken, 5);
    CHECK_OK(lore_embed_line_finish(n.line, &a.request, &err), &err);
    CHECK_INT(b.request.done, 2);
    CHECK_OK(lore_embed_line_finish(n.line, &b.request, &err), &err);
    check_vectors(&n, &a);
    check_vectors(&n, &b);
    network_close(&n);
}

/* The second seat's packs are refused: who had a text in one gets its failure once his other texts
 * are back, who had none gets all vectors, and the line goes on. */
TEST(a_failed_pack_fails_its_own)
{
    static errand a, b;
    network n = network_open();
    lore_error err = {0};
    errand_init(&a, 6, 10, 1);  /* all in the first pack */
    errand_init(&b, 12, 10, 7); /* in the second, and two in line */
    lore_encoder_pack_of(n.encoder, LORE_ENCODER_BULK, 1)->deadline_ns = 1;
    lore_embed_line_join(n.line, &a.request);
    lore_embed_line_join(n.line, &b.request);
    lore_embed_line_advance(n.line);
    CHECK_FAILS(lore_embed_line_finish(n.line, &b.request, &err), LORE_ERR_TIMEOUT, &err,
                "deadline");
    CHECK_OK(lore_embed_line_finish(n.line, &a.request, &err), &err);
    lore_encoder_pack_of(n.encoder, LORE_ENCODER_BULK, 1)->deadline_ns = 0;
    check_vectors(&n, &a);
    errand_init(&b, 12, 10, 7);
    lore_embed_line_join(n.line, &b.request);
    CHECK_OK(lore_embed_line_finish(n.line, &b.request, &err), &err);
    check_vectors(&n, &b);
    network_close(&n);
}

/* ---- through the embedder ---- */

static const char WORDS[] = "hold the button for ten seconds until the light blinks red twice then "
                            "green and wait until it stays green before you connect the cable";

static lore_str text_of(size_t i)
{
    return lore_str_slice(lore_str_from(WORDS), 0, (i * 37) % (sizeof WORDS - 1));
}

static lore_embedder *open_embedder(lore_backend *backend, const lore_encoder_room *rooms)
{
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    CHECK_OK(lore_embedder_open_rooms(FOLDER, backend, rooms, &LIMITS, &embedder, &err), &err);
    return embedder;
}

enum { MANY = 700, CALLERS = 6, CALLS = 12 };
static float expected[MANY][DIM];
static lore_str texts[MANY];

static void fill_expected(const fixture *f)
{
    lore_error err = {0};
    lore_embedder *plain = open_embedder(f->backend, NULL);
    CHECK_INT(lore_embedder_bulk_calls(plain), 1);
    CHECK_INT(lore_embedder_bulk_texts(plain), 128);
    for (size_t i = 0; i < MANY; i++) {
        texts[i] = text_of(i);
    }
    CHECK_OK(lore_embedder_encode_bulk(plain, texts, MANY, expected[0], &err), &err);
    lore_embedder_close(plain);
}

/* One call of many windows, each tokenised while packs of those before it are away. rooms NULL:
 * what suits the backend. */
static void overlap_windows(lore_backend *backend, const lore_encoder_room *rooms)
{
    static float vectors[MANY][DIM];
    lore_error err = {0};
    lore_embedder *embedder = open_embedder(backend, rooms);
    CHECK_INT(lore_embedder_bulk_calls(embedder), 2);
    CHECK_INT(lore_embedder_bulk_texts(embedder), 512);
    for (int32_t count = 1; count <= MANY; count = count * 3 + 1) {
        memset(vectors, 0xff, sizeof vectors);
        CHECK_OK(lore_embedder_encode_bulk(embedder, texts, count, vectors[0], &err), &err);
        CHECK(memcmp(vectors, expected, (size_t)count * sizeof vectors[0]) == 0);
    }
    lore_embedder_close(embedder);
}

typedef struct caller {
    lore_embedder *embedder;
    int32_t number;
    bool is_right;
} caller;

/* Calls of many sizes, questions and bulk. */
static void *call_often(void *self)
{
    caller *c = self;
    float *vectors = lore_alloc(sizeof expected);
    c->is_right = vectors != NULL;
    for (int32_t i = 0; i < CALLS && c->is_right; i++) {
        const int32_t first = (c->number * 61 + i * 17) % 400;
        const int32_t count = i % 3 == 0 ? 1 : 1 + (c->number * 29 + i * 13) % 60;
        const lore_status status =
            c->number % 3 == 0
                ? lore_embedder_encode(c->embedder, texts + first, count, vectors, NULL)
                : lore_embedder_encode_bulk(c->embedder, texts + first, count, vectors, NULL);
        c->is_right = status == LORE_OK &&
                      memcmp(vectors, expected[first], (size_t)count * sizeof expected[0]) == 0;
    }
    lore_free(vectors);
    return NULL;
}

static void share_seats(lore_backend *backend)
{
    const lore_encoder_room rooms[] = {ROOM, ROOM};
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    lore_embedder *embedder = open_embedder(backend, rooms);
    for (int32_t i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.embedder = embedder, .number = i};
        CHECK(pthread_create(&threads[i], NULL, call_often, &callers[i]) == 0);
    }
    for (int32_t i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(callers[i].is_right);
    }
    lore_embedder_close(embedder);
}

static void on_both(void (*run)(lore_backend *backend))
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    deferred_backend device = deferred_open(f.backend, INT64_C(1) << 40);
    fill_expected(&f);
    run(f.backend);
    run(&device.base);
    fixture_close(&f);
}

static void overlap_small(lore_backend *backend)
{
    const lore_encoder_room rooms[] = {ROOM, ROOM};
    overlap_windows(backend, rooms);
}

TEST(windows_overlap)
{
    on_both(overlap_small);
}

TEST(callers_share_the_seats)
{
    on_both(share_seats);
}

/* Packs as large as a device wants them. */
TEST(a_device_gets_large_packs)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    deferred_backend device = deferred_open(f.backend, INT64_C(1) << 40);
    fill_expected(&f);
    overlap_windows(&device.base, NULL);
    fixture_close(&f);
}

static lore_status open_and_encode(const fixture *f)
{
    const lore_encoder_room rooms[] = {ROOM, ROOM};
    static float vectors[TEXTS][DIM];
    lore_embedder *embedder = NULL;
    lore_error err = {0};
    lore_status status =
        lore_embedder_open_rooms(FOLDER, f->backend, rooms, &LIMITS, &embedder, &err);
    if (status == LORE_OK) {
        status = lore_embedder_encode_bulk(embedder, texts, TEXTS, vectors[0], &err);
    }
    lore_embedder_close(embedder);
    return status;
}

/* Every allocation, of opening and of windows that overlap, fails once. */
TEST(out_of_memory_is_an_error)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    for (size_t i = 0; i < MANY; i++) {
        texts[i] = text_of(i);
    }
    int64_t before = lore_mem_count();
    CHECK_INT(open_and_encode(&f), LORE_OK);
    int64_t total = lore_mem_count() - before, failed = 0;
    for (int64_t n = 1; n <= total; n++) {
        int64_t live = lore_mem_live();
        lore_mem_fail_at(n, false);
        lore_status status = open_and_encode(&f);
        lore_mem_fail_at(0, false);
        /* one allocation of the tokenizer's loader is told as a limit */
        CHECK(status == LORE_ERR_NOMEM || status == LORE_ERR_LIMIT || status == LORE_OK);
        CHECK_INT(lore_mem_live(), live);
        failed += status != LORE_OK;
    }
    CHECK(failed > total / 2);
    fixture_close(&f);
}

/* After the device is lost in the middle of calls, all go on at the standby, those that it failed
 * too; without a standby its failure is theirs. The vectors are the same: both compute as ref. */
TEST(a_lost_device_is_left)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    deferred_backend device = deferred_open(f.backend, INT64_C(1) << 40);
    static float vectors[MANY][DIM];
    static caller callers[CALLERS];
    pthread_t threads[CALLERS];
    lore_error err = {0};
    fill_expected(&f);
    lore_embedder *embedder = open_embedder(&device.base, NULL);
    CHECK_OK(lore_embedder_encode(embedder, texts, 40, vectors[0], &err), &err);
    device.is_lost = true;
    CHECK_FAILS(lore_embedder_encode(embedder, texts, 40, vectors[0], &err), LORE_ERR_DEVICE, &err,
                "lost");
    lore_embedder_stand_by(embedder, f.backend);
    for (int32_t i = 0; i < CALLERS; i++) {
        callers[i] = (caller){embedder, i, false};
        CHECK(pthread_create(&threads[i], NULL, call_often, &callers[i]) == 0);
    }
    for (int32_t i = 0; i < CALLERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(callers[i].is_right);
    }
    CHECK_INT(lore_embedder_bulk_calls(embedder), 1); /* as on a processor */
    memset(vectors, 0xff, sizeof vectors);
    CHECK_OK(lore_embedder_encode_bulk(embedder, texts, MANY, vectors[0], &err), &err);
    CHECK(memcmp(vectors, expected, sizeof expected) == 0);
    lore_embedder_close(embedder);
    fixture_close(&f);
}

CHECK_MAIN(two_packs_leave_before_one_is_waited_for, requests_share_packs,
           a_failed_pack_fails_its_own, windows_overlap, callers_share_the_seats,
           a_device_gets_large_packs, a_lost_device_is_left, out_of_memory_is_an_error)
