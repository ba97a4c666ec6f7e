/* What is written or deleted is seen by the very next search, by words and by vector, while eight
 * readers search all the time; and none of them ever finds a document half. A short form here;
 * LORE_TRIALS=10000 is the whole one. */
#include "base/clock.h"
#include "index/writer.h"
#include "tests/unit/index_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { READERS = 8, TRIALS = 60, DOCUMENTS = 40, BEST = 5 };

typedef struct world {
    fixture f;
    lore_writer *writer;
    atomic_bool is_over;
    _Atomic int64_t searches;
} world;

/* A document of one chunk that says its own name and version. */
typedef struct page {
    char id[32], text[96];
    uint64_t seed;
    float vector[FIX_DIM];
    lore_chunk_row chunk;
    lore_document_row row;
} page;

static void make_page(page *p, int32_t number, int32_t version)
{
    snprintf(p->id, sizeof p->id, "page%d", number);
    snprintf(p->text, sizeof p->text, "berth number%dof%d stands empty, 泊位%d空着", number,
             version, number);
    p->seed = (uint64_t)number * 1000003 + (uint64_t)version;
    fix_vector(p->seed, p->vector);
    p->chunk = (lore_chunk_row){0, strlen(p->text), LORE_STR(""), p->vector};
    p->row = (lore_document_row){.id = lore_str_from(p->id),
                                 .text = lore_str_from(p->text),
                                 .chunks = &p->chunk,
                                 .chunk_count = 1};
    memcpy(p->row.hash, &p->seed, sizeof p->seed);
}

/* How many of the chunks found by the page's own word, and whether its vector is found exactly. */
static void look(world *w, const page *p, bool is_there)
{
    char word[48];
    int64_t chunks[BEST];
    float scores[BEST] = {0};
    snprintf(word, sizeof word, "%.*s", (int)(strstr(p->text, " stands") - p->text - 6),
             p->text + 6);
    CHECK_INT(fix_text(w->f.index, "default", word, NULL, chunks, NULL, BEST), is_there);
    int32_t found = fix_dense(w->f.index, "default", p->seed, NULL, chunks, scores, BEST);
    CHECK_INT(found > 0 && scores[0] > .98F, is_there);
}

/* What a search finds belongs together: each chunk that is loaded says what its document says. */
static void *read_on(void *self)
{
    world *w = self;
    uint64_t state = (uint64_t)(uintptr_t)&state;
    while (!atomic_load_explicit(&w->is_over, memory_order_relaxed)) {
        lore_error err = {0};
        lore_arena arena;
        lore_candidates found;
        lore_chunk loaded[BEST];
        int32_t count = 0;
        int64_t rows[BEST];
        float query[FIX_DIM];
        lore_search_options options = {.count = BEST};
        lore_arena_init(&arena, 0);
        fix_vector(state++, query);
        lore_snapshot *snapshot = lore_index_acquire(w->f.index);
        CHECK_OK(state % 2 == 0 ? lore_search_dense(snapshot, query, &options, &arena, &found, &err)
                                : lore_search_text(snapshot, LORE_STR("空着 berth"), &options,
                                                   &arena, &found, &err),
                 &err);
        for (int32_t i = 0; i < found.count; i++) {
            rows[i] = found.items[i].chunk;
        }
        CHECK_OK(lore_load_chunks(snapshot, rows, found.count, &arena, loaded, &count, &err), &err);
        for (int32_t i = 0; i < count; i++) {
            char name[48];
            snprintf(
                name, sizeof name, "number" LORE_STR_FMT "of",
                LORE_STR_ARG(lore_str_slice(loaded[i].document_id, 4, loaded[i].document_id.len)));
            CHECK(lore_str_find(loaded[i].text, lore_str_from(name), 0) != SIZE_MAX);
        }
        lore_snapshot_release(snapshot);
        lore_arena_destroy(&arena);
        atomic_fetch_add_explicit(&w->searches, 1, memory_order_relaxed);
        lore_clock_sleep_ms(1); /* the writer yields to whoever works, and has to have a turn */
    }
    return NULL;
}

static void apply(world *w, lore_change change)
{
    lore_error err = {0};
    CHECK_OK(lore_writer_apply_one(w->writer, &change, NULL, &err), &err);
    CHECK(change.outcome != LORE_OUTCOME_NONE);
}

/* One trial: a document is added, replaced or deleted, and looked for at once. */
static void try_one(world *w, int32_t trial, int32_t version[DOCUMENTS])
{
    const int32_t number = (trial * 7) % DOCUMENTS;
    const bool is_there = version[number] > 0;
    page old, new;
    make_page(&old, number, trial - 1);
    if (is_there) {
        make_page(&old, number, version[number]);
    }
    if (is_there && trial % 3 == 0) {
        apply(w, (lore_change){.kind = LORE_CHANGE_DELETE,
                               .collection = LORE_STR("default"),
                               .id = lore_str_from(old.id)});
        version[number] = 0;
    } else {
        make_page(&new, number, trial + 1);
        apply(w, (lore_change){.kind = LORE_CHANGE_PUT,
                               .collection = LORE_STR("default"),
                               .document = &new.row});
        look(w, &new, true);
        version[number] = trial + 1;
    }
    if (is_there) {
        look(w, &old, false);
    }
}

TEST(seen_at_once)
{
    world w = {.searches = 0};
    lore_error err = {0};
    pthread_t readers[READERS];
    int32_t version[DOCUMENTS] = {0};
    const char *asked = getenv("LORE_TRIALS");
    int64_t trials = TRIALS;
    CHECK(asked == NULL || lore_str_to_int64(lore_str_from(asked), &trials));
    fix_init(&w.f, "visible");
    fix_open(&w.f, true);
    CHECK_OK(lore_writer_open(w.f.index, &w.writer, &err), &err);
    for (int i = 0; i < READERS; i++) {
        CHECK_INT(pthread_create(&readers[i], NULL, read_on, &w), 0);
    }
    for (int32_t trial = 0; trial < (int32_t)trials; trial++) {
        try_one(&w, trial, version);
    }
    atomic_store(&w.is_over, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i], NULL);
    }
    printf("%lld trials beside %lld searches\n", (long long)trials,
           (long long)atomic_load(&w.searches));
    CHECK(atomic_load(&w.searches) > trials / 10);
    lore_writer_close(w.writer);
    fix_destroy(&w.f);
}

CHECK_MAIN(seen_at_once)
