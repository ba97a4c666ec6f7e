/* Reranked hits stand in the order of the cross-encoder's scores and nothing else of them changes;
 * what is late or fails leaves them as they were found and says so. */
#include "tests/unit/answer_fixture.h"

#include "base/clock.h"
#include "retrieval/rerank.h"

#include <math.h>

#define RANKER LORE_FAMILIES "/rank-bert"

static const lore_str QUESTION = {"How long must I hold the reset button?", 38};

typedef struct ranking {
    bench b;
    lore_arena arena;
    lore_reranker *ranker;
    lore_hits found; /* without reranking */
} ranking;

static lore_status retrieve(ranking *r, lore_reranker *ranker, int32_t hits_max,
                            int64_t deadline_ns, lore_hits *hits)
{
    lore_error err;
    lore_retriever retriever = retriever_of(&r->b);
    lore_str name = LORE_STR("default");
    lore_retrieve_options options = {.search = {.collections = &name, .collection_count = 1},
                                     .hits_max = hits_max,
                                     .tuning = {-1.0, 0.0},
                                     .deadline_ns = deadline_ns};
    retriever.reranker = ranker;
    return lore_retrieve(&retriever, QUESTION, &options, &r->arena, hits, &err);
}

static void ranking_open(ranking *r, const char *name)
{
    lore_error err = {0};
    memset(r, 0, sizeof *r);
    bench_open(&r->b, name);
    put_shop(&r->b);
    lore_arena_init(&r->arena, 0);
    CHECK_OK(lore_reranker_open(RANKER, r->b.backend, &r->b.config.limits, &r->ranker, &err), &err);
    CHECK_INT(retrieve(r, NULL, 6, 0, &r->found), LORE_OK);
    CHECK(r->found.count >= 5);
}

static void ranking_close(ranking *r)
{
    lore_reranker_close(r->ranker);
    lore_arena_destroy(&r->arena);
    bench_close(&r->b);
}

static const lore_hit *find_hit(const lore_hits *hits, int64_t row)
{
    for (int32_t i = 0; i < hits->count; i++) {
        if (hits->items[i].chunk.row == row) {
            return &hits->items[i];
        }
    }
    return NULL;
}

static void check_as_found(const ranking *r, const lore_hits *hits)
{
    CHECK_INT(hits->count, r->found.count);
    for (int32_t i = 0; i < hits->count; i++) {
        CHECK_INT(hits->items[i].chunk.row, r->found.items[i].chunk.row);
        CHECK(isnan(hits->items[i].rerank));
    }
}

TEST(hits_stand_in_the_order_of_their_scores)
{
    ranking r;
    lore_hits hits;
    ranking_open(&r, "order");
    check_as_found(&r, &r.found);
    CHECK_INT(r.found.rerank, LORE_RERANK_OFF);
    for (int32_t pairs = 1; pairs <= r.found.count + 1; pairs++) {
        hits = r.found;
        const lore_rerank_options options = {.pairs = pairs};
        lore_rerank(r.ranker, QUESTION, &options, &r.arena, &hits);
        CHECK_INT(hits.rerank, LORE_RERANK_DONE);
        CHECK_INT(hits.count, r.found.count);
        for (int32_t i = 0; i < hits.count; i++) {
            const lore_hit *before = find_hit(&r.found, hits.items[i].chunk.row);
            CHECK(before != NULL && before->score == hits.items[i].score);
            CHECK(isnan(hits.items[i].rerank) == (i >= pairs));
            CHECK(i == 0 || i >= pairs || hits.items[i - 1].rerank >= hits.items[i].rerank);
            CHECK(i < pairs || before == &r.found.items[i]); /* those behind stay */
        }
    }
    ranking_close(&r);
}

/* Through the whole retrieval: the best of more hits than were asked for. */
TEST(retrieval_keeps_the_best_of_more)
{
    ranking r;
    lore_hits all, few;
    ranking_open(&r, "retrieval");
    r.b.config.rerank_ms = 60000;
    CHECK_INT(retrieve(&r, r.ranker, 6, 0, &all), LORE_OK);
    CHECK_INT(retrieve(&r, r.ranker, 2, 0, &few), LORE_OK);
    CHECK_INT(all.rerank, LORE_RERANK_DONE);
    CHECK(all.rerank_ns > 0);
    CHECK_INT(few.count, 2);
    for (int32_t i = 0; i < few.count; i++) {
        CHECK_INT(few.items[i].chunk.row, all.items[i].chunk.row);
    }
    ranking_close(&r);
}

TEST(what_is_late_stays_as_it_was_found)
{
    ranking r;
    lore_hits hits = {0};
    ranking_open(&r, "late");
    r.b.config.rerank_ms = 60000;
    CHECK_INT(retrieve(&r, r.ranker, 6, 1, &hits), LORE_OK); /* the request's own deadline */
    CHECK_INT(hits.rerank, LORE_RERANK_LATE);
    check_as_found(&r, &hits);
    const lore_rerank_options options = {.pairs = 6, .deadline_ns = 1};
    hits = r.found;
    lore_rerank(r.ranker, QUESTION, &options, &r.arena, &hits);
    CHECK_INT(hits.rerank, LORE_RERANK_LATE);
    check_as_found(&r, &hits);
    ranking_close(&r);
}

TEST(failures_leave_the_hits)
{
    ranking r;
    ranking_open(&r, "failures");
    const lore_rerank_options options = {.pairs = 6};
    lore_hits hits = {0};
    lore_rerank(r.ranker, QUESTION, &options, &r.arena, &hits); /* nothing to do */
    CHECK_INT(hits.rerank, LORE_RERANK_DONE);
    int64_t before = lore_mem_count();
    hits = r.found;
    lore_rerank(r.ranker, QUESTION, &options, &r.arena, &hits);
    int64_t total = lore_mem_count() - before;
    CHECK(total > 0);
    lore_log_set_level(LORE_LOG_ERROR);
    for (int64_t n = 1; n <= total; n++) {
        hits = r.found;
        lore_mem_fail_at(n, false);
        lore_rerank(r.ranker, QUESTION, &options, &r.arena, &hits);
        lore_mem_fail_at(0, false);
        CHECK(hits.rerank == LORE_RERANK_FAILED || hits.rerank == LORE_RERANK_DONE);
        if (hits.rerank == LORE_RERANK_FAILED) {
            check_as_found(&r, &hits);
        }
    }
    ranking_close(&r);
}

CHECK_MAIN(hits_stand_in_the_order_of_their_scores, retrieval_keeps_the_best_of_more,
           what_is_late_stays_as_it_was_found, failures_leave_the_hits)
