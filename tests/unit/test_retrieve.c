/* From a question to passages: what is found lies in the collections asked for, is said once, is
 * not deleted, keeps to hits_max and to the order that the weight of the two searches gives. With
 * the shipped encoder. */
#include "tests/unit/answer_fixture.h"

#include <math.h>

static const char question[] = "How long must I hold the reset button?";

typedef struct search {
    bench b;
    lore_arena arena;
    lore_hits hits;
} search;

static void search_open(search *s, const char *name)
{
    memset(s, 0, sizeof *s);
    bench_open(&s->b, name);
    lore_arena_init(&s->arena, 0);
}

static void search_close(search *s)
{
    lore_arena_destroy(&s->arena);
    bench_close(&s->b);
}

static lore_status try_search(search *s, const char *collection, const char *text, int32_t hits_max,
                              double weight, lore_error *err)
{
    lore_retriever retriever = retriever_of(&s->b);
    lore_str name = lore_str_from(collection);
    lore_retrieve_options options = {.search = {.collections = &name, .collection_count = 1},
                                     .hits_max = hits_max,
                                     .tuning = {weight, 0.0}};
    return lore_retrieve(&retriever, lore_str_from(text), &options, &s->arena, &s->hits, err);
}

static void find(search *s, const char *text, int32_t hits_max, double weight)
{
    lore_error err = {0};
    CHECK_OK(try_search(s, "default", text, hits_max, weight, &err), &err);
}

static int count_of(const search *s, const char *id)
{
    int count = 0;
    for (int32_t i = 0; i < s->hits.count; i++) {
        count += lore_str_equal(s->hits.items[i].chunk.document_id, lore_str_from(id));
    }
    return count;
}

static void check_hits(search *s)
{
    for (int32_t i = 0; i < s->hits.count; i++) {
        const lore_hit *hit = &s->hits.items[i];
        CHECK(hit->score >= 0.0F && hit->score <= 1.0F);
        CHECK(i == 0 || hit[-1].score >= hit->score);
        CHECK(!isnan(hit->dense)); /* always filled */
        check_span(&s->b, &hit->chunk, hit->chunk.start, hit->chunk.end, hit->chunk.text);
    }
}

TEST(an_empty_index_and_unknown_collections)
{
    search s;
    lore_error err = {0};
    search_open(&s, "empty");
    s.hits.count = 7;
    find(&s, question, 5, -1.0);
    CHECK_INT(s.hits.count, 0);
    CHECK(s.hits.query_vector != NULL);
    s.hits.count = 7;
    CHECK_FAILS(try_search(&s, "nowhere", question, 5, -1.0, &err), LORE_ERR_NOT_FOUND, &err,
                "nowhere");
    CHECK_INT(s.hits.count, 7); /* results are set on success only */
    put_text(&s.b, "other", "there", LORE_MEDIA_TEXT, "Hold the reset button for ten seconds.");
    find(&s, question, 5, -1.0);
    CHECK_INT(s.hits.count, 0); /* another collection's passages stay there */
    CHECK_OK(try_search(&s, "other", question, 5, -1.0, &err), &err);
    CHECK_INT(s.hits.count, 1);
    CHECK_INT(count_of(&s, "there"), 1);
    search_close(&s);
}

TEST(what_answers_comes_first)
{
    search s;
    search_open(&s, "first");
    put_shop(&s.b);
    static const char *const ASKED[][2] = {
        {question, "router"},
        {"How many months of warranty do I have?", "warranty"},
        {"Which credit cards do you take?", "payment"},
        {"重置按钮要按住多少秒？", "chongzhi"},
        {"退货运费由谁承担？", "tuihuo"},
    };
    for (size_t i = 0; i < sizeof ASKED / sizeof ASKED[0]; i++) {
        find(&s, ASKED[i][0], 5, -1.0);
        CHECK(s.hits.count > 0);
        CHECK_STR(s.hits.items[0].chunk.document_id, ASKED[i][1]);
        check_hits(&s);
    }
    for (int32_t hits_max = 1; hits_max <= 50; hits_max += hits_max) {
        find(&s, question, hits_max, -1.0);
        CHECK(s.hits.count >= 1 && s.hits.count <= hits_max);
        CHECK(hits_max > 4 || s.hits.count == hits_max);
        CHECK_STR(s.hits.items[0].chunk.document_id, "router");
    }
    search_close(&s);
}

TEST(near_duplicates)
{
    static const char TEXT[] = "Hold the reset button for ten seconds until the light blinks. All "
                               "of your settings are lost, and the device starts again.";
    search s;
    search_open(&s, "duplicates");
    put_text(&s.b, "default", "first", LORE_MEDIA_TEXT, TEXT);
    put_text(&s.b, "default", "second", LORE_MEDIA_TEXT,
             "Hold the reset button for ten seconds until the light blinks. All of your settings "
             "are lost, and the device starts anew.");
    put_text(&s.b, "default", "unlike", LORE_MEDIA_TEXT,
             "The button to reset the clock of the oven is on the left, below the round knob.");
    find(&s, question, 5, -1.0);
    CHECK_INT(s.hits.count, 2);
    CHECK_INT(count_of(&s, "first") + count_of(&s, "second"), 1);
    CHECK_INT(count_of(&s, "unlike"), 1);
    check_hits(&s);
    find(&s, question, 2, -1.0); /* the place of the duplicate goes to the next */
    CHECK_INT(s.hits.count, 2);
    CHECK_INT(count_of(&s, "unlike"), 1);
    search_close(&s);
}

TEST(weights)
{
    search s;
    search_open(&s, "weights");
    put_shop(&s.b);
    find(&s, "settings after delivery of the device", 6, 1.0);
    CHECK(s.hits.count > 2);
    check_hits(&s);
    for (int32_t i = 1; i < s.hits.count; i++) {
        CHECK(s.hits.items[i - 1].dense >= s.hits.items[i].dense);
    }
    lore_hits dense = s.hits;
    find(&s, "settings after delivery of the device", 6, 0.0);
    check_hits(&s);
    CHECK(!isnan(s.hits.items[0].lexical));
    for (int32_t i = 1; i < s.hits.count && !isnan(s.hits.items[i].lexical); i++) {
        CHECK(s.hits.items[i - 1].lexical >= s.hits.items[i].lexical);
    }
    bench_tune(&s.b, "default", 1.0, "");
    find(&s, "settings after delivery of the device", 6, -1.0); /* the collection's own weight */
    CHECK_INT(s.hits.count, dense.count);
    for (int32_t i = 0; i < dense.count; i++) {
        CHECK_INT(s.hits.items[i].chunk.row, dense.items[i].chunk.row);
        CHECK_NEAR(s.hits.items[i].score, dense.items[i].score, 1e-6);
    }
    find(&s, "!?", 6, -1.0); /* no word to look for: the vectors alone */
    CHECK(s.hits.count > 0 && isnan(s.hits.items[0].lexical));
    s.b.config.fusion_rrf = true;
    find(&s, question, 3, -1.0);
    CHECK_STR(s.hits.items[0].chunk.document_id, "router");
    check_hits(&s);
    search_close(&s);
}

/* Many weights in one call find what each of them finds alone. */
TEST(many_weights_at_once)
{
    const lore_tuning tried[] = {{0.0, 0.0}, {.3, 0.0}, {.55, 0.0}, {1.0, 0.0}};
    search s;
    lore_error err = {0};
    lore_hits many[4];
    search_open(&s, "many");
    put_shop(&s.b);
    lore_retriever retriever = retriever_of(&s.b);
    const lore_str name = LORE_STR("default");
    const lore_retrieve_options options = {.search = {.collections = &name, .collection_count = 1},
                                           .hits_max = 6};
    CHECK_OK(lore_retrieve_tunings(&retriever, lore_str_from(question), &options, tried, 4,
                                   &s.arena, many, &err),
             &err);
    for (int32_t w = 0; w < 4; w++) {
        find(&s, question, 6, tried[w].fusion_weight);
        CHECK(s.hits.count > 2);
        CHECK_INT(many[w].count, s.hits.count);
        for (int32_t i = 0; i < s.hits.count; i++) {
            CHECK_INT(many[w].items[i].chunk.row, s.hits.items[i].chunk.row);
            CHECK(many[w].items[i].score == s.hits.items[i].score);
        }
    }
    search_close(&s);
}

TEST(a_deleted_document_is_gone)
{
    search s;
    lore_error err = {0};
    search_open(&s, "deleted");
    put_shop(&s.b);
    find(&s, question, 50, -1.0);
    CHECK(count_of(&s, "router") > 0);
    lore_change gone = {
        .kind = LORE_CHANGE_DELETE, .collection = LORE_STR("default"), .id = LORE_STR("router")};
    CHECK_OK(lore_writer_apply_one(s.b.writer, &gone, NULL, &err), &err);
    CHECK_INT(gone.outcome, LORE_OUTCOME_DELETED);
    find(&s, question, 50, -1.0);
    CHECK_INT(count_of(&s, "router"), 0);
    CHECK(s.hits.count > 0);
    check_hits(&s);
    search_close(&s);
}

static lore_status search_once(void *self)
{
    search *s = self;
    lore_error err;
    lore_status status = try_search(s, "default", question, 5, -1.0, &err);
    bool is_right = status != LORE_OK || (s->hits.count == 5 && count_of(s, "router") > 0);
    lore_arena_destroy(&s->arena);
    lore_arena_init(&s->arena, 0);
    return is_right ? status : LORE_ERR_CORRUPT;
}

TEST(allocations_may_fail)
{
    search s;
    search_open(&s, "nomem");
    put_shop(&s.b);
    sample_alloc_failures(search_once, &s);
    search_close(&s);
}

CHECK_MAIN(an_empty_index_and_unknown_collections, what_answers_comes_first, near_duplicates,
           weights, many_weights_at_once, a_deleted_document_is_gone, allocations_may_fail)
