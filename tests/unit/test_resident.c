/* Searches on a device that is `ref`: the same answers as without one, to the last bit, whatever
 * filters, deletions and publications come; joined searches; and the processor where the device
 * fails. */
#define lore_candidate lore_token_candidate /* another thing than a search's */
#include "kernels/backend_int.h"
#undef lore_candidate

#include "base/log.h"
#include "kernels/search.h"
#include "tests/unit/resident_fixture.h"

#include <stdatomic.h>

enum { ASKERS = 6 };

static atomic_int lines_off, lines_on, lines_not; /* of the log, which several threads write */

static void count_lines(void *self, const char *line)
{
    (void)self;
    lines_off += strstr(line, "event=device_search_off") != NULL;
    lines_on += strstr(line, "event=vectors_on_device") != NULL;
    lines_not += strstr(line, "event=vectors_not_on_device") != NULL;
}

/* ---- a device whose ops are watched: ref's table, with a search of ours in it ---- */

static lore_ops watched_ops;
static const lore_ops *ref_ops;
static lore_lock watch;
static int packs, queries_max, delay_ms; /* guarded by watch */
static bool is_failing;                  /* guarded by watch */

static void watched_search(lore_queue *queue, int32_t *rows, float *scores, int32_t hits,
                           const lore_search *search)
{
    lore_lock_acquire(&watch);
    packs++;
    queries_max = search->queries > queries_max ? search->queries : queries_max;
    const bool fails = is_failing;
    const int wait_ms = delay_ms;
    lore_lock_release(&watch);
    lore_clock_sleep_ms(wait_ms);
    if (fails) {
        lore_queue_fail(queue, LORE_ERR_DEVICE, "the device was unplugged");
        return;
    }
    ref_ops->search(queue, rows, scores, hits, search);
}

static lore_status watched_queue_open(lore_backend *backend, lore_queue **queue, lore_error *err)
{
    lore_status status = lore_ref_driver.queue_open(backend, queue, err);
    if (status == LORE_OK) {
        lore_lock_acquire(&watch); /* threads open queues of their own */
        ref_ops = (*queue)->ops;
        watched_ops = *ref_ops;
        watched_ops.search = watched_search;
        lore_lock_release(&watch);
        (*queue)->ops = &watched_ops;
    }
    return status;
}

static lore_backend_driver watched_driver;

static void open_device(fixture *f)
{
    lore_error err;
    const lore_backend_options options = {.kind = LORE_BACKEND_REF};
    CHECK_OK(lore_backend_open(&options, &f->device, &err), &err);
    watched_driver = *f->device->driver;
    watched_driver.queue_open = watched_queue_open;
    f->device->driver = &watched_driver;
    lore_lock_init(&watch);
    packs = queries_max = delay_ms = 0;
    is_failing = false;
    lines_off = lines_on = lines_not = 0;
    lore_log_set_level(LORE_LOG_INFO);
    lore_log_set_sink(count_lines, NULL);
}

static void close_all(fixture *with, fixture *without)
{
    fix_destroy(with);
    lore_backend_close(with->device);
    if (without != NULL) {
        fix_destroy(without);
    }
    lore_lock_destroy(&watch);
    lore_log_set_sink(NULL, NULL);
}

static int packs_so_far(void)
{
    lore_lock_acquire(&watch);
    const int count = packs;
    lore_lock_release(&watch);
    return count;
}

/* As check_equal; says how many packs that took. */
static int check_same(fixture *a, fixture *b, const lore_filter *filter, int32_t depth)
{
    const int before = packs_so_far();
    check_equal(a, b, filter, depth);
    return packs_so_far() - before;
}

/* ---- tests ---- */

/* Two indexes of the same documents, published, the first one on a device that has it all. */
static void open_both(fixture *with, const char *name, fixture *without, const char *other)
{
    lore_error err;
    fix_init(with, name);
    fix_init(without, other);
    open_device(with);
    fix_open(with, true);
    fix_open(without, true);
    put_many(with->index, 0, DOCUMENTS);
    put_many(without->index, 0, DOCUMENTS);
    CHECK_OK(lore_index_publish(with->index, &err), &err);
    settle(with);
}

/* A device gives the processor's answers: base and tail, filters that let much, little and nothing
 * through, dead rows, a publication under it, and where an inverted file would do. */
TEST(same_answers)
{
    lore_error err;
    lore_arena arena;
    fixture with, without;
    lore_arena_init(&arena, 0);
    fix_init(&with, "with");
    fix_init(&without, "without");
    open_device(&with);
    with.config.ann_min_vectors = 2000; /* the device goes before it */
    without.config.ann_min_vectors = 1000000;
    fix_open(&with, true);
    fix_open(&without, true);
    fixture *both[] = {&with, &without};
    for (int i = 0; i < 2; i++) {
        put_many(both[i]->index, 0, DOCUMENTS);
    }
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 0); /* nothing is published */
    for (int i = 0; i < 2; i++) {
        CHECK_OK(lore_index_publish(both[i]->index, &err), &err);
        settle(both[i]);
        put_many(both[i]->index, DOCUMENTS, 10); /* a tail */
    }
    CHECK(is_resident(&with) && !is_resident(&without));
    CHECK(with.index->current->views[0]->ann != NULL);
    CHECK_INT(lines_on, 1);
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 12);
    CHECK_INT(check_same(&with, &without, NULL, 1), 12);
    CHECK_INT(check_same(&with, &without, NULL, 200), 12);
    const lore_filter *half =
        parse_filter(&with, "{\"type\":\"eq\",\"key\":\"half\",\"value\":1}", &arena);
    const lore_filter *rare =
        parse_filter(&with, "{\"type\":\"eq\",\"key\":\"rare\",\"value\":true}", &arena);
    CHECK_INT(check_same(&with, &without, half, DEPTH), 12);
    CHECK_INT(check_same(&with, &without, rare, DEPTH), 0); /* few rows: on the processor */

    for (int i = 0; i < 2; i++) {
        for (int d = 0; d < 50; d += 5) {
            char id[16];
            snprintf(id, sizeof id, "d%d", d);
            fix_delete_one(both[i]->index, "default", id);
        }
    }
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 12);
    CHECK_INT(check_same(&with, &without, half, DEPTH), 12);
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 12); /* the filter is not left behind */
    for (int i = 0; i < 2; i++) {
        fix_delete_one(both[i]->index, "default", "d6");
    }
    CHECK_INT(check_same(&with, &without, NULL, 200), 12);
    for (int i = 0; i < 2; i++) {
        put_many(both[i]->index, DOCUMENTS + 10, 30);
        CHECK_OK(lore_index_publish(both[i]->index, &err), &err);
        settle(both[i]);
    }
    CHECK(is_resident(&with));
    CHECK_INT(lines_on, 2);
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 12);
    fix_close(&with); /* a reader copies too, what it finds at open */
    fix_open(&with, false);
    settle(&with);
    CHECK(is_resident(&with));
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 12);
    CHECK_INT(lines_off + lines_not, 0);
    lore_arena_destroy(&arena);
    close_all(&with, &without);
}

typedef struct asker {
    lore_thread thread;
    fixture *f;
    const lore_filter *filter;
    uint64_t seed;
    int rounds;
    int64_t chunks[DEPTH];
    float scores[DEPTH];
    bool is_same; /* every round gave the same */
} asker;

static void *ask(void *self)
{
    asker *a = self;
    lore_arena arena;
    lore_error err;
    float query[FIX_DIM];
    lore_candidates found;
    const lore_search_options options = {.filter = a->filter, .count = DEPTH};
    fix_vector(a->seed, query);
    a->is_same = true;
    for (int round = 0; round < a->rounds; round++) {
        lore_arena_init(&arena, 0);
        lore_snapshot *snapshot = lore_index_acquire(a->f->index);
        bool is_ok =
            lore_search_dense(snapshot, query, &options, &arena, &found, &err) == LORE_OK &&
            found.count == DEPTH;
        for (int i = 0; i < DEPTH && is_ok; i++) {
            is_ok = round == 0 ||
                    (found.items[i].chunk == a->chunks[i] && found.items[i].score == a->scores[i]);
            a->chunks[i] = found.items[i].chunk;
            a->scores[i] = found.items[i].score;
        }
        a->is_same = a->is_same && is_ok;
        lore_snapshot_release(snapshot);
        lore_arena_destroy(&arena);
    }
    return NULL;
}

static void start_askers(asker *askers, fixture *f, const lore_filter *filter, int rounds)
{
    lore_error err;
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (asker){.f = f,
                            .filter = i == 0 ? filter : NULL,
                            .seed = (uint64_t)i * 7000 + 3,
                            .rounds = rounds};
        CHECK_OK(lore_thread_start(&askers[i].thread, "asker", ask, &askers[i], &err), &err);
    }
}

static void join_askers(asker *askers, fixture *without)
{
    for (int i = 0; i < ASKERS; i++) {
        lore_thread_join(&askers[i].thread);
    }
    for (int i = 0; i < ASKERS; i++) {
        int64_t chunks[DEPTH];
        float scores[DEPTH];
        CHECK(askers[i].is_same);
        CHECK_INT(fix_dense(without->index, "default", askers[i].seed, askers[i].filter, chunks,
                            scores, DEPTH),
                  DEPTH);
        for (int j = 0; j < DEPTH; j++) {
            CHECK_INT(askers[i].chunks[j], chunks[j]);
            CHECK(askers[i].scores[j] == scores[j]);
        }
    }
}

/* Searches that wait are joined, and each gets its own answer, while deletions of nothing, commits
 * of nothing near and publications exchange the snapshot and the copy under them. */
TEST(joined_while_copies_change)
{
    lore_error err;
    lore_arena arena;
    fixture with, without;
    static asker askers[ASKERS];
    lore_arena_init(&arena, 0);
    open_both(&with, "joined", &without, "alone");
    const lore_filter *half =
        parse_filter(&with, "{\"type\":\"eq\",\"key\":\"half\",\"value\":1}", &arena);
    lore_lock_acquire(&watch);
    delay_ms = 20;
    lore_lock_release(&watch);
    start_askers(askers, &with, half, 4);
    join_askers(askers, &without);
    CHECK(queries_max > 1);             /* joined */
    CHECK(packs_so_far() < 4 * ASKERS); /* and fewer passes for it */

    lore_lock_acquire(&watch);
    delay_ms = 0;
    lore_lock_release(&watch);
    start_askers(askers, &with, half, 40);
    for (int i = 0; i < 6; i++) { /* rows far from every question, gone again: answers stay */
        CHECK_OK(lore_index_create_collection(with.index, LORE_STR("other"), &err), &err);
        fix_put_one(with.index, "default", "x", "aaaa", "{\"half\":3}", 1, 999999999);
        fix_delete_one(with.index, "default", "x");
        put_many(with.index, 1000 + i * 13, 13);
        for (int d = 0; d < 13; d++) {
            char id[16];
            snprintf(id, sizeof id, "d%d", 1000 + i * 13 + d);
            fix_delete_one(with.index, "default", id);
        }
        CHECK_OK(lore_index_publish(with.index, &err), &err);
    }
    for (int i = 0; i < ASKERS; i++) {
        lore_thread_join(&askers[i].thread);
    }
    settle(&with);
    CHECK(is_resident(&with));
    CHECK_INT(lines_off + lines_not, 0);
    lore_arena_destroy(&arena);
    close_all(&with, &without);
}

/* A device that fails is asked no more: this search and the next ones are answered all the same,
 * with one line in the log. */
TEST(failing_device)
{
    lore_error err;
    fixture with, without;
    static asker askers[ASKERS];
    open_both(&with, "failing", &without, "sound");
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 12);
    lore_lock_acquire(&watch);
    is_failing = true;
    delay_ms = 20;
    lore_lock_release(&watch);
    const int before = packs_so_far();
    start_askers(askers, &with, NULL, 3);
    join_askers(askers, &without);
    CHECK_INT(packs_so_far() - before, 1);
    CHECK_INT(lines_off, 1);
    put_many(with.index, DOCUMENTS, 30);
    put_many(without.index, DOCUMENTS, 30);
    CHECK_OK(lore_index_publish(with.index, &err), &err);
    settle(&with);
    CHECK(!is_resident(&with)); /* nothing is copied any more */
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 0);
    close_all(&with, &without);
}

static bool has_room; /* guarded by watch */

static lore_status tight_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                               lore_error *err)
{
    lore_lock_acquire(&watch);
    const bool has = has_room;
    lore_lock_release(&watch);
    return has ? lore_ref_driver.memory_alloc(backend, size_bytes, memory, err)
               : lore_fail(err, LORE_ERR_NOMEM, "no %zu bytes of GPU memory", size_bytes);
}

/* No room for a copy: one line, and the processor; when there is room, a later snapshot gets it.
 * Small files and tails get none. */
TEST(no_room)
{
    lore_error err;
    fixture with, without;
    fix_init(&with, "full");
    fix_init(&without, "empty");
    open_device(&with);
    has_room = false;
    watched_driver.memory_alloc = tight_alloc;
    fix_open(&with, true);
    fix_open(&without, true);
    put_many(with.index, 0, 40);
    CHECK_OK(lore_index_publish(with.index, &err), &err);
    settle(&with);
    CHECK_INT(lines_not, 0); /* 2,000 rows: not worth asking */
    put_many(with.index, 40, DOCUMENTS - 40);
    put_many(without.index, 0, DOCUMENTS);
    CHECK_OK(lore_index_publish(with.index, &err), &err);
    settle(&with);
    fix_put_one(with.index, "default", "x", "aaaa", "", 1, 999999999); /* a new snapshot: again */
    fix_put_one(without.index, "default", "x", "aaaa", "", 1, 999999999);
    settle(&with);
    CHECK(!is_resident(&with));
    CHECK_INT(lines_not, 1);
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 0);
    lore_lock_acquire(&watch);
    has_room = true;
    lore_lock_release(&watch);
    lore_device_wake(with.index->device);
    settle(&with);
    CHECK(is_resident(&with));
    CHECK_INT(lines_on, 1);
    CHECK_INT(check_same(&with, &without, NULL, DEPTH), 12);
    close_all(&with, &without);
}

static int64_t unused_bytes; /* guarded by watch */

static void small_memory(const lore_backend *backend, int64_t *unused, int64_t *total)
{
    (void)backend;
    lore_lock_acquire(&watch);
    *unused = unused_bytes;
    lore_lock_release(&watch);
    *total = 16 * 1000;
}

/* A copy leaves a sixteenth of the memory free. */
TEST(reserve)
{
    lore_error err;
    fixture f;
    fix_init(&f, "reserve");
    open_device(&f);
    watched_driver.memory_facts = small_memory;
    unused_bytes = 0;
    fix_open(&f, true);
    put_many(f.index, 0, DOCUMENTS);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    settle(&f);
    CHECK(!is_resident(&f));
    const lore_segment *base = f.index->current->views[0]->parts[0].segment;
    const int64_t wanted = base->count * (base->dim + (int64_t)sizeof(float));
    for (int64_t spare = 999; spare <= 1000; spare++) {
        lore_lock_acquire(&watch);
        unused_bytes = wanted + spare;
        lore_lock_release(&watch);
        lore_device_wake(f.index->device);
        settle(&f);
        CHECK(is_resident(&f) == (spare == 1000));
    }
    CHECK_INT(lines_not, 1);
    CHECK_INT(lines_on, 1);
    close_all(&f, NULL);
}

CHECK_MAIN(same_answers, joined_while_copies_change, failing_device, no_room, reserve)
