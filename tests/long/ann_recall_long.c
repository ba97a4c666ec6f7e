/* FAISS on real vectors: of what the exact scan finds, how much does the search through the
 * inverted file find, and how long does each take? Everything runs through the product: ingest, the
 * background build, lore_search_dense. */
#define CHECK_LEAKS 0 /* FAISS and OpenBLAS keep theirs */
#include "tests/long/real_vectors.h"

enum { COUNT = 200 };

/* ---- measuring ---- */

typedef struct result {
    double recall_10, recall_50, recall_200, p50_ms, p99_ms;
} result;

static void search(bench *b, int32_t query, bool is_exact, lore_arena *arena,
                   lore_candidates *found)
{
    lore_error err;
    lore_search_options options = {.count = COUNT, .is_exact = is_exact};
    lore_snapshot *snapshot = lore_index_acquire(b->index);
    const float *vector = b->vectors + (int64_t)query * lore_embedder_dim(b->embedder);
    CHECK_OK(lore_search_dense(snapshot, vector, &options, arena, found, &err), &err);
    lore_snapshot_release(snapshot);
}

/* The share of the exact scan's best `depth` that the other search found at all. */
static double share_found(const lore_candidates *exact, const lore_candidates *found, int depth)
{
    int hits = 0;
    for (int i = 0; i < depth; i++) {
        for (int j = 0; j < found->count; j++) {
            hits += found->items[j].chunk == exact->items[i].chunk;
        }
    }
    return (double)hits / depth;
}

static result measure(bench *b, const char *name)
{
    static double times[2][QUERIES];
    result r = {0};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    for (int q = 0; q < QUERIES; q++) {
        lore_candidates found[2];
        for (int is_exact = 0; is_exact < 2; is_exact++) {
            int64_t start_ns = lore_clock_ns();
            search(b, q, is_exact, &arena, &found[is_exact]);
            times[is_exact][q] = (double)(lore_clock_ns() - start_ns) / 1e6;
        }
        r.recall_10 += share_found(&found[1], &found[0], 10) / QUERIES;
        r.recall_50 += share_found(&found[1], &found[0], 50) / QUERIES;
        r.recall_200 += share_found(&found[1], &found[0], 200) / QUERIES;
        lore_arena_reset(&arena);
    }
    lore_arena_destroy(&arena);
    for (int i = 0; i < 2; i++) {
        qsort(times[i], QUERIES, sizeof times[i][0], by_value);
    }
    r.p50_ms = times[0][QUERIES / 2];
    r.p99_ms = times[0][QUERIES * 99 / 100];
    printf("%-10s recall@10 %.4f @50 %.4f @200 %.4f   p50 %.3f p99 %.3f ms   exact p50 %.3f p99 "
           "%.3f ms\n",
           name, r.recall_10, r.recall_50, r.recall_200, r.p50_ms, r.p99_ms, times[1][QUERIES / 2],
           times[1][QUERIES * 99 / 100]);
    fflush(stdout);
    return r;
}

static void check_recall(bench *b, const char *name, char *const *texts)
{
    embed(b, texts);
    (void)measure(b, name); /* maps and caches warm up */
    result r = measure(b, name);
    CHECK(r.recall_10 >= .99);
    CHECK(r.recall_50 >= .99);
}

/* At least .99 of the exact scan's best 10 and best 50, for questions that the documents answer and
 * for such that they do not. */
TEST(recall_on_real_vectors)
{
    static corpus texts;
    static questions asked;
    static bench b;
    prepare(&b, &texts);
    read_questions(&asked);
    b.config.ann_min_vectors = ROWS_MIN / 2;
    int64_t start_ns = lore_clock_ns();
    open_index(&b);
    CHECK(lore_rebuild_wait(b.index, lore_clock_ns() + (int64_t)600 * 1000000000));
    const lore_vectors *view = b.index->current->views[0];
    CHECK(view->ann != NULL);
    printf("%lld vectors, %lld lists, margin %.3f, made or loaded in %.1f s\n",
           (long long)view->ann->rows.count, (long long)view->ann->centres.count,
           (double)view->ann->margin, (double)(lore_clock_ns() - start_ns) / 1e9);
    check_recall(&b, "questions", asked.texts);
    check_recall(&b, "headings", texts.headings);
    lore_index_close(b.index);
    close_models(&b);
}

CHECK_MAIN(recall_on_real_vectors)
