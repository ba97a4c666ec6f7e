/* Changes handed over by many threads: each durable when its caller returns, few transactions for
 * many of them, and what fails fails alone. */
#include "tests/unit/index_fixture.h"

#include "base/log.h"
#include "index/writer.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

static int64_t sequence_of(lore_index *index)
{
    lore_snapshot *snapshot = lore_index_acquire(index);
    int64_t sequence = lore_snapshot_sequence(snapshot);
    lore_snapshot_release(snapshot);
    return sequence;
}

/* A document of one chunk that says `text`. */
typedef struct document {
    lore_document_row row;
    lore_chunk_row chunk;
    float vector[FIX_DIM];
} document;

static void make_document(document *d, const char *id, const char *text)
{
    uint64_t hash = lore_str_hash(lore_str_from(text));
    fix_vector(hash, d->vector);
    d->chunk = (lore_chunk_row){0, strlen(text), LORE_STR(""), d->vector};
    d->row = (lore_document_row){.id = lore_str_from(id),
                                 .title = LORE_STR("Title"),
                                 .text = lore_str_from(text),
                                 .chunks = &d->chunk,
                                 .chunk_count = 1};
    memcpy(d->row.hash, &hash, sizeof hash);
}

static lore_change put_of(const char *collection, const document *d)
{
    return (lore_change){
        .kind = LORE_CHANGE_PUT, .collection = lore_str_from(collection), .document = &d->row};
}

static lore_change delete_of(const char *collection, const char *id)
{
    return (lore_change){.kind = LORE_CHANGE_DELETE,
                         .collection = lore_str_from(collection),
                         .id = lore_str_from(id)};
}

static int32_t count_hits(lore_index *index, const char *word)
{
    int64_t chunks[64];
    return fix_text(index, "default", word, NULL, chunks, NULL, 64);
}

/* Added, unchanged, replaced, deleted, not there, and collections. */
TEST(outcomes)
{
    fixture f;
    lore_error err;
    lore_writer *writer = NULL;
    document d;
    fix_init(&f, "outcomes");
    fix_open(&f, true);
    CHECK_OK(lore_writer_open(f.index, &writer, &err), &err);
    make_document(&d, "a", "apples");
    const struct {
        lore_change change;
        lore_change_outcome outcome;
    } steps[] = {
        {put_of("fruit", &d), LORE_OUTCOME_ADDED}, /* makes the collection */
        {put_of("fruit", &d), LORE_OUTCOME_NONE},
        {delete_of("fruit", "b"), LORE_OUTCOME_NONE},
        {delete_of("fruit", "a"), LORE_OUTCOME_DELETED},
        {{.kind = LORE_CHANGE_CREATE_COLLECTION, .collection = LORE_STR("more")},
         LORE_OUTCOME_ADDED},
        {{.kind = LORE_CHANGE_CREATE_COLLECTION, .collection = LORE_STR("more")},
         LORE_OUTCOME_NONE},
        {{.kind = LORE_CHANGE_SET_COLLECTION,
          .collection = LORE_STR("more"),
          .settings = &(lore_collection_settings){.has_weight = true, .fusion_weight = .5}},
         LORE_OUTCOME_REPLACED},
        {{.kind = LORE_CHANGE_DELETE_COLLECTION, .collection = LORE_STR("more")},
         LORE_OUTCOME_DELETED},
        {{.kind = LORE_CHANGE_DELETE_COLLECTION, .collection = LORE_STR("more")},
         LORE_OUTCOME_NONE},
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        lore_change change = steps[i].change;
        CHECK_OK(lore_writer_apply_one(writer, &change, NULL, &err), &err);
        CHECK_INT(change.outcome, steps[i].outcome);
    }
    lore_change put = put_of("default", &d);
    CHECK_OK(lore_writer_apply_one(writer, &put, NULL, &err), &err);
    make_document(&d, "a", "pears");
    CHECK_OK(lore_writer_apply_one(writer, &put, NULL, &err), &err);
    CHECK_INT(put.outcome, LORE_OUTCOME_REPLACED);
    CHECK_INT(count_hits(f.index, "apples"), 0);
    CHECK_INT(count_hits(f.index, "pears"), 1);
    lore_change missing = delete_of("nowhere", "a");
    CHECK_FAILS(lore_writer_apply_one(writer, &missing, NULL, &err), LORE_ERR_NOT_FOUND, &err,
                "nowhere");
    lore_change weigh = {.kind = LORE_CHANGE_SET_COLLECTION,
                         .collection = LORE_STR("nowhere"),
                         .settings = &(lore_collection_settings){0}};
    CHECK_FAILS(lore_writer_apply_one(writer, &weigh, NULL, &err), LORE_ERR_NOT_FOUND, &err,
                "nowhere");
    lore_writer_close(writer);
    fix_destroy(&f);
}

/* In one batch: what is refused leaves the others, a refused document no empty collection; and the
 * whole batch is one commit. */
TEST(refusals_stay_alone)
{
    fixture f;
    lore_error err;
    lore_writer *writer = NULL;
    document good, bad, last;
    fix_init(&f, "refusals");
    fix_open(&f, true);
    CHECK_OK(lore_writer_open(f.index, &writer, &err), &err);
    make_document(&good, "good", "words");
    make_document(&bad, "bad", "more words");
    make_document(&last, "last", "last words");
    bad.vector[3] = NAN;
    lore_change changes[] = {put_of("default", &good),  put_of("default", &bad),
                             put_of("fresh", &bad),     put_of("not a name!", &good),
                             delete_of("nowhere", "x"), put_of("default", &last)};
    const lore_status expected[] = {LORE_OK,          LORE_ERR_INVALID,   LORE_ERR_INVALID,
                                    LORE_ERR_INVALID, LORE_ERR_NOT_FOUND, LORE_OK};
    int64_t before = sequence_of(f.index);
    CHECK_OK(lore_writer_apply(writer, changes, 6, NULL, &err), &err);
    CHECK_INT(sequence_of(f.index), before + 1);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(changes[i].status, expected[i]);
    }
    CHECK(strstr(changes[1].error.message, "bad") != NULL);
    CHECK_INT(count_hits(f.index, "words"), 2);
    lore_change gone = {.kind = LORE_CHANGE_DELETE_COLLECTION, .collection = LORE_STR("fresh")};
    CHECK_OK(lore_writer_apply_one(writer, &gone, NULL, &err), &err);
    CHECK_INT(gone.outcome, LORE_OUTCOME_NONE);
    lore_writer_close(writer);
    fix_destroy(&f);
}

typedef struct putter {
    lore_writer *writer;
    int number, failed;
    bool was_found;
} putter;

enum { PUTTERS = 16, PUTS = 20 };

static void *put_many(void *self)
{
    putter *p = self;
    lore_error err;
    document d;
    char id[32], text[64];
    for (int i = 0; i < PUTS; i++) {
        snprintf(id, sizeof id, "p%dd%d", p->number, i);
        snprintf(text, sizeof text, "all word%dx%d", p->number, i);
        make_document(&d, id, text);
        lore_change change = put_of("default", &d);
        if (i % 5 == 4) {
            d.vector[0] = INFINITY; /* this one is refused */
        }
        lore_status status = lore_writer_apply_one(p->writer, &change, NULL, &err);
        p->failed += status != LORE_OK;
        p->was_found = p->was_found && (status == LORE_OK || status == LORE_ERR_INVALID);
    }
    return NULL;
}

/* Many callers share commits, and all that was acknowledged is there after a reopening. */
TEST(many_callers)
{
    fixture f;
    lore_error err;
    lore_writer *writer = NULL;
    pthread_t threads[PUTTERS];
    putter putters[PUTTERS];
    fix_init(&f, "many");
    fix_open(&f, true);
    CHECK_OK(lore_writer_open(f.index, &writer, &err), &err);
    int64_t before = sequence_of(f.index);
    for (int i = 0; i < PUTTERS; i++) {
        putters[i] = (putter){writer, i, 0, true};
        CHECK_INT(pthread_create(&threads[i], NULL, put_many, &putters[i]), 0);
    }
    for (int i = 0; i < PUTTERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(putters[i].was_found);
        CHECK_INT(putters[i].failed, PUTS / 5);
    }
    int64_t commits = sequence_of(f.index) - before;
    fprintf(stderr, "%d puts, %" PRId64 " commits\n", PUTTERS * PUTS * 4 / 5, commits);
    CHECK(commits < PUTTERS * PUTS / 2);
    lore_writer_close(writer);
    fix_close(&f);
    fix_open(&f, true);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    CHECK_INT(lore_snapshot_chunks(snapshot), PUTTERS * PUTS * 4 / 5);
    lore_snapshot_release(snapshot);
    for (int i = 0; i < PUTTERS; i++) {
        char word[32];
        snprintf(word, sizeof word, "word%dx%d", i, i);
        CHECK_INT(count_hits(f.index, word), i % 5 == 4 ? 0 : 1);
    }
    fix_destroy(&f);
}

/* A caller that has left, or whose time is over, is not written. */
static bool has_left(void *self)
{
    ++*(int *)self;
    return true;
}

TEST(giving_up)
{
    fixture f;
    lore_error err;
    lore_writer *writer = NULL;
    document d;
    int asked = 0;
    fix_init(&f, "giving-up");
    fix_open(&f, true);
    CHECK_OK(lore_writer_open(f.index, &writer, &err), &err);
    make_document(&d, "a", "apples");
    lore_change change = put_of("default", &d);
    lore_apply_options options = {.deadline_ns = lore_clock_ns() - 1};
    CHECK_FAILS(lore_writer_apply_one(writer, &change, &options, &err), LORE_ERR_TIMEOUT, &err,
                "nothing is written");
    options = (lore_apply_options){.self = &asked, .is_cancelled = has_left};
    CHECK_FAILS(lore_writer_apply_one(writer, &change, &options, &err), LORE_ERR_CANCELLED, &err,
                "nothing is written");
    CHECK_INT(asked, 1);
    CHECK_INT(count_hits(f.index, "apples"), 0);
    lore_writer_close(writer);
    fix_destroy(&f);
}

static void swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

/* The folder is full: everybody hears it, reading goes on, and when there is space again so does
 * writing. */
TEST(full_disk)
{
    enum { ROOM_BYTES = 1024 * 1024 };
    fixture f;
    lore_error err;
    lore_writer *writer = NULL;
    document d;
    struct rlimit before, limit;
    static char text[65536];
    char id[16]; /* the last change is tried again behind the loop */
    fix_init(&f, "full");
    fix_open(&f, true);
    CHECK_OK(lore_writer_open(f.index, &writer, &err), &err);
    make_document(&d, "first", "apples");
    lore_change change = put_of("default", &d);
    CHECK_OK(lore_writer_apply_one(writer, &change, NULL, &err), &err);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    signal(SIGXFSZ, SIG_IGN); /* writing over the limit then fails with EFBIG */
    limit = (struct rlimit){ROOM_BYTES, before.rlim_max};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    lore_log_set_sink(swallow, NULL);
    int put = 0;
    lore_status status = LORE_OK;
    for (; put < 200 && status == LORE_OK; put++) {
        snprintf(id, sizeof id, "d%d", put);
        for (size_t i = 0; i + 8 < sizeof text; i += 8) {
            snprintf(text + i, 9, "w%06d ", (put * 8192 + (int)i / 8) % 1000000);
        }
        make_document(&d, id, text);
        change = put_of("default", &d);
        status = lore_writer_apply_one(writer, &change, NULL, &err);
    }
    CHECK(status == LORE_ERR_IO && put > 1 && put < 200);
    CHECK_INT(count_hits(f.index, "apples"), 1);
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    lore_log_set_sink(NULL, NULL);
    CHECK_OK(lore_writer_apply_one(writer, &change, NULL, &err), &err);
    CHECK_INT(change.outcome, LORE_OUTCOME_ADDED);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    CHECK_INT(lore_snapshot_chunks(snapshot), put + 1);
    lore_snapshot_release(snapshot);
    lore_writer_close(writer);
    fix_destroy(&f);
}

/* While a reader stays in one state the log cannot be emptied; afterwards it is, and before that it
 * is not longer than what was written. */
TEST(log_stays_short)
{
    enum { ROUNDS = 60, LOG_MAX = 12 * 1024 * 1024 };
    fixture f;
    lore_error err;
    lore_writer *writer = NULL;
    document d;
    static char text[200000];
    fix_init(&f, "log");
    fix_open(&f, true);
    CHECK_OK(lore_writer_open(f.index, &writer, &err), &err);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i + 8 < sizeof text; i += 8) {
            snprintf(text + i, 9, "w%06d ", (round * 997 + (int)i) % 1000000);
        }
        make_document(&d, "same", text);
        lore_change change = put_of("default", &d);
        CHECK_OK(lore_writer_apply_one(writer, &change, NULL, &err), &err);
        CHECK(lore_db_log_bytes(f.index->writer) < LOG_MAX);
    }
    lore_writer_close(writer); /* leaves it empty */
    char path[512];
    snprintf(path, sizeof path, "%s/lore.db-wal", f.folder);
    lore_map map;
    CHECK_OK(lore_map_open(path, &map, &err), &err);
    CHECK_INT(map.size_bytes, 0);
    lore_map_close(&map);
    fix_destroy(&f);
}

static lore_status open_and_put(void *self)
{
    fixture *f = self;
    lore_error err;
    lore_writer *writer = NULL;
    document d;
    lore_status status = lore_writer_open(f->index, &writer, &err);
    if (status != LORE_OK) {
        return status;
    }
    static int round;
    char text[32];
    snprintf(text, sizeof text, "text %d", ++round);
    make_document(&d, "a", text);
    lore_change changes[] = {put_of("default", &d), delete_of("default", "b")};
    status = lore_writer_apply(writer, changes, 2, NULL, &err);
    status = status == LORE_OK ? changes[0].status : status;
    lore_writer_close(writer);
    return status;
}

/* No failing allocation loses a change that was acknowledged, or stops the writer. */
TEST(without_memory)
{
    fixture f;
    lore_error err;
    lore_writer *writer = NULL;
    fix_init(&f, "memory");
    fix_open(&f, true);
    CHECK_INT(open_and_put(&f), LORE_OK); /* SQLite's caches are there now */
    lore_log_set_sink(swallow, NULL);
    for (int64_t n = 1;; n += 1 + n / 16) {
        int64_t made = lore_mem_count();
        lore_mem_fail_at(n, false);
        lore_status status = open_and_put(&f);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
        if (lore_mem_count() - made < n) {
            break;
        }
    }
    lore_log_set_sink(NULL, NULL);
    lore_thread_fail_at(1);
    CHECK_FAILS(lore_writer_open(f.index, &writer, &err), LORE_ERR_NOMEM, &err, "lore-write");
    lore_thread_fail_at(0);
    CHECK_INT(open_and_put(&f), LORE_OK);
    fix_destroy(&f);
}

CHECK_MAIN(outcomes, refusals_stay_alone, many_callers, giving_up, full_disk, log_stays_short,
           without_memory)
