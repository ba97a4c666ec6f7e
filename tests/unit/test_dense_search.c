/* Dense search over base and tail, with FAISS and without: the same answers, and only living ones.
 */
#include "tests/unit/index_fixture.h"

enum { DOCUMENTS = 400, CHUNKS = 50 };

static void put_many(fixture *f, int first, int documents)
{
    lore_error err;
    char id[16];
    static char text[600];
    memset(text, 'a', sizeof text - 1);
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    for (int i = first; i < first + documents; i++) {
        snprintf(id, sizeof id, "d%d", i);
        CHECK_OK(fix_put(f->index, "default", id, text,
                         i % 100 == 0 ? "{\"rare\":true}" : "{\"rare\":false}", CHUNKS,
                         (uint64_t)i * 1000 + 1, NULL, &err),
                 &err);
    }
    CHECK_OK(lore_index_commit(f->index, &err), &err);
}

static void delete_many(fixture *f, int first, int last, int step)
{
    lore_error err;
    char id[16];
    bool found = false;
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    for (int i = first; i <= last; i += step) {
        snprintf(id, sizeof id, "d%d", i);
        CHECK_OK(lore_index_delete_document(f->index, LORE_STR("default"), lore_str_from(id),
                                            &found, &err),
                 &err);
        CHECK(found);
    }
    CHECK_OK(lore_index_commit(f->index, &err), &err);
}

/* The share of the exact top 10 that both indexes agree on, over 50 queries near stored vectors. */
static double agreement(fixture *a, fixture *b, const lore_filter *filter)
{
    int hits = 0, all = 0;
    for (uint64_t q = 0; q < 50; q++) {
        int64_t left[10], right[10];
        float left_scores[10], right_scores[10];
        uint64_t seed = 7 * q * 1000 + 1 + q;
        int32_t left_count = fix_dense(a->index, "default", seed, filter, left, left_scores, 10);
        int32_t right_count = fix_dense(b->index, "default", seed, filter, right, right_scores, 10);
        CHECK_INT(left_count, right_count);
        for (int32_t i = 0; i < left_count; i++, all++) {
            CHECK(i == 0 || left_scores[i] <= left_scores[i - 1]);
            for (int32_t j = 0; j < right_count; j++) {
                if (left[i] == right[j]) {
                    CHECK_NEAR(left_scores[i], right_scores[j],
                               0); /* the same rows, the same sums */
                    hits++;
                }
            }
        }
    }
    return (double)hits / (double)all;
}

/* The same work in an index with FAISS and one without. Random vectors are the hardest data for
 * lists. */
TEST(ann_agrees_with_exact)
{
    lore_error err;
    lore_arena arena;
    lore_json *json = NULL;
    const lore_filter *rare = NULL, *common = NULL;
    fixture exact, ann;
    lore_arena_init(&arena, 0);
    fix_init(&exact, "exact");
    fix_init(&ann, "ann");
    ann.config.ann_min_vectors = 5000;
    fix_open(&exact, true);
    fix_open(&ann, true);
    fixture *both[] = {&exact, &ann};
    for (int i = 0; i < 2; i++) {
        put_many(both[i], 0, DOCUMENTS);
        CHECK_OK(lore_index_publish(both[i]->index, &err), &err);
        fix_settle(both[i]);
        put_many(both[i], DOCUMENTS, 10); /* a tail */
    }
    CHECK(exact.index->current->views[0]->ann == NULL);
    CHECK(ann.index->current->views[0]->ann != NULL);
    CHECK(agreement(&exact, &ann, NULL) >= .99);

    CHECK_OK(lore_json_parse(LORE_STR("{\"type\":\"eq\",\"key\":\"rare\",\"value\":true}"), 8,
                             &json, &err),
             &err);
    CHECK_OK(lore_filter_parse(json, &exact.config.limits, &arena, &rare, &err), &err);
    lore_json_free(json);
    CHECK_OK(lore_json_parse(LORE_STR("{\"type\":\"eq\",\"key\":\"rare\",\"value\":false}"), 8,
                             &json, &err),
             &err);
    CHECK_OK(lore_filter_parse(json, &exact.config.limits, &arena, &common, &err), &err);
    lore_json_free(json);
    CHECK_NEAR(agreement(&exact, &ann, rare), 1, 0); /* few rows: scanned */
    CHECK(agreement(&exact, &ann, common) >= .99);

    /* Dead rows are still in the inverted file and must not come back, nor leave gaps. */
    for (int i = 0; i < 2; i++) {
        delete_many(both[i], 0, 350, 7);
    }
    CHECK(agreement(&exact, &ann, NULL) >= .99);
    int64_t chunks[10];
    for (uint64_t document = 0; document <= 350; document += 7) {
        CHECK_INT(fix_dense(ann.index, "default", document * 1000 + 5, NULL, chunks, NULL, 10), 10);
        for (int i = 0; i < 10; i++) {
            CHECK((chunks[i] - 1) / CHUNKS % 7 != 0 || (chunks[i] - 1) / CHUNKS > 350);
        }
    }
    lore_arena_destroy(&arena);
    fix_destroy(&exact);
    fix_destroy(&ann);
}

/* Nearly all rows dead: the list is filled all the same, by reading on. */
TEST(ann_full_of_dead)
{
    lore_error err;
    fixture f;
    int64_t chunks[10];
    fix_init(&f, "dead");
    f.config.ann_min_vectors = 1000;
    fix_open(&f, true);
    put_many(&f, 0, 60);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    fix_settle(&f);
    CHECK(f.index->current->views[0]->ann != NULL);
    delete_many(&f, 1, 59, 1);
    CHECK_INT(fix_dense(f.index, "default", 30001, NULL, chunks, NULL, 10), 10);
    for (int i = 0; i < 10; i++) {
        CHECK(chunks[i] <= CHUNKS);
    }
    fix_destroy(&f);
}

/* Several collections are one ranking; naming one twice changes nothing; wrong queries are refused.
 */
TEST(collections_and_refusals)
{
    lore_error err;
    lore_arena arena;
    lore_candidates found;
    fixture f;
    float query[FIX_DIM];
    const lore_str names[] = {LORE_STR("default"), LORE_STR("b"), LORE_STR("default")};
    lore_arena_init(&arena, 0);
    fix_init(&f, "several");
    fix_open(&f, true);
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("b"), &err), &err);
    fix_put_one(f.index, "default", "x", "apples", "", 3, 1);
    fix_put_one(f.index, "b", "x", "apples", "", 3, 1);
    fix_put_one(f.index, "b", "y", "pears", "", 3, 100);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    lore_search_options options = {.collections = names, .collection_count = 3, .count = 20};
    fix_vector(1, query);
    CHECK_OK(lore_search_dense(snapshot, query, &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 9);
    CHECK_INT(found.items[0].chunk, 1); /* equal scores: the lower id first */
    CHECK_INT(found.items[1].chunk, 4);
    options = (lore_search_options){.count = 20};
    CHECK_OK(lore_search_dense(snapshot, query, &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 9);
    options.count = 0;
    CHECK_OK(lore_search_dense(snapshot, query, &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 0);
    options.count = 201;
    CHECK_FAILS(lore_search_dense(snapshot, query, &options, &arena, &found, &err), LORE_ERR_LIMIT,
                &err, "candidates_max (200)");
    options.count = 1;
    query[3] = INFINITY;
    CHECK_FAILS(lore_search_dense(snapshot, query, &options, &arena, &found, &err),
                LORE_ERR_INVALID, &err, "not finite");
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* The ten best are those of the vectors in the database, in their order and with their scores:
 * int8 rows alone would confuse one in a hundred. */
TEST(order_is_that_of_the_database)
{
    enum { ROWS = 200 * CHUNKS };
    fixture f;
    fix_init(&f, "order");
    fix_open(&f, true);
    put_many(&f, 0, 200);
    for (uint64_t q = 1; q < 30; q++) {
        float query[FIX_DIM], vector[FIX_DIM], scores[10];
        int64_t chunks[10];
        lore_candidate items[10];
        lore_top best = {items, 0, 10};
        fix_vector(q * 7919, query);
        for (int64_t row = 0; row < ROWS; row++) {
            float score = 0;
            fix_vector((uint64_t)(row / CHUNKS * 1000 + 1 + row % CHUNKS), vector);
            for (int i = 0; i < FIX_DIM; i++) {
                score += query[i] * lore_f16_to_f32(lore_f32_to_f16(vector[i]));
            }
            lore_top_offer(&best, row + 1, score);
        }
        lore_top_sort(&best);
        CHECK_INT(fix_dense(f.index, "default", q * 7919, NULL, chunks, scores, 10), 10);
        for (int i = 0; i < 10; i++) {
            CHECK_INT(chunks[i], items[i].chunk);
            CHECK_NEAR(scores[i], items[i].score, 1e-6);
        }
    }
    fix_destroy(&f);
}

/* Scores of given chunks; what is dead, unknown or has no vector has none. */
TEST(scores_of_chunks)
{
    lore_error err;
    fixture f;
    float query[FIX_DIM], scores[5];
    fix_init(&f, "scores");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples pears", "", 2, 1);
    fix_put_one(f.index, "default", "b", "apples", "", 1, 50);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    lore_chunk_row chunk = {0, 1, LORE_STR(""), NULL};
    lore_document_row row = {
        .id = LORE_STR("c"), .text = LORE_STR("x"), .chunks = &chunk, .chunk_count = 1};
    CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &row, NULL, &err), &err);
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    fix_delete_one(f.index, "default", "b");
    const int64_t chunks[] = {2, 3, 4, 999, 1};
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    fix_vector(2, query);
    CHECK_OK(lore_score_dense(snapshot, query, chunks, 5, scores, &err), &err);
    CHECK_NEAR(scores[0], 1, .01);
    CHECK(isnan(scores[1]) && isnan(scores[2]) && isnan(scores[3]));
    CHECK(scores[4] < .9f);
    lore_snapshot_release(snapshot);
    fix_destroy(&f);
}

CHECK_MAIN(ann_agrees_with_exact, ann_full_of_dead, collections_and_refusals,
           order_is_that_of_the_database, scores_of_chunks)
