/* The sentence that answers comes first, labels and list markers stay out of it, every span is the
 * document's own bytes, and what follows (the order of the passages, the prompt's view of one)
 * agrees with the ranking. With the shipped encoder. */
#include "tests/unit/answer_fixture.h"

#include <math.h>

enum { HITS_MAX = 6 };

/* A ranking by hand: chunks of one made-up document. */
typedef struct scene {
    bench b;
    lore_arena arena;
    lore_retriever retriever;
    lore_hits hits;
    lore_evidence evidence;
} scene;

static void scene_open(scene *s, const char *name)
{
    memset(s, 0, sizeof *s);
    bench_open(&s->b, name);
    lore_arena_init(&s->arena, 0);
    s->retriever = retriever_of(&s->b);
}

static void scene_close(scene *s)
{
    lore_arena_destroy(&s->arena);
    bench_close(&s->b);
}

static void retrieve(scene *s, const char *question)
{
    lore_error err = {0};
    const lore_str collection = LORE_STR("default");
    lore_retrieve_options options = {.search = {.collections = &collection, .collection_count = 1},
                                     .hits_max = HITS_MAX,
                                     .tuning = {-1.0, 0.0}};
    CHECK_OK(
        lore_retrieve(&s->retriever, lore_str_from(question), &options, &s->arena, &s->hits, &err),
        &err);
}

static void rank(scene *s, const char *question)
{
    lore_error err = {0};
    CHECK_OK(lore_evidence_rank(&s->retriever, lore_str_from(question), &s->hits, &s->arena,
                                &s->evidence, &err),
             &err);
}

/* Rank these chunks; document_row, start, title, heading and text are the caller's. */
static void rank_chunks(scene *s, const char *question, const lore_chunk *chunks, int32_t count)
{
    lore_error err = {0};
    lore_str text = lore_str_from(question);
    float *vector = LORE_PUSH(&s->arena, float, lore_embedder_dim(s->b.embedder));
    CHECK_OK(lore_embedder_encode(s->b.embedder, &text, 1, vector, &err), &err);
    s->hits = (lore_hits){
        .items = LORE_PUSH(&s->arena, lore_hit, count + 1), .count = count, .query_vector = vector};
    for (int32_t i = 0; i < count; i++) {
        s->hits.items[i] = (lore_hit){chunks[i], 0.5F, NAN, NAN, NAN};
    }
    rank(s, question);
}

static void check_sorted(const lore_evidence *evidence)
{
    for (int32_t i = 1; i < evidence->count; i++) {
        CHECK(evidence->sentences[i - 1].score >= evidence->sentences[i].score);
    }
}

/* The best sentence of the shop's pages. */
static void check_best(scene *s, const char *question, const char *expected)
{
    retrieve(s, question);
    CHECK(s->hits.count > 1);
    rank(s, question);
    CHECK(s->evidence.count > 1);
    check_sorted(&s->evidence);
    CHECK_STR(s->evidence.sentences[0].text, expected);
    CHECK(s->evidence.support > 0.25F && s->evidence.support < 1.2F);
    CHECK_INT(s->evidence.passage_count, s->hits.count);
    CHECK_INT(s->evidence.passages[0], s->evidence.sentences[0].hit);
    for (int32_t i = 0; i < s->evidence.count; i++) {
        const lore_sentence *one = &s->evidence.sentences[i];
        check_span(&s->b, &s->hits.items[one->hit].chunk, one->start, one->end, one->text);
        CHECK(one->text.ptr[0] != '-'); /* markers stay out */
        CHECK(!lore_str_equal(one->text, LORE_STR("Factory reset")));
        CHECK(!lore_str_equal(one->text, LORE_STR("恢复出厂设置")));
    }
}

TEST(the_best_sentence_comes_first)
{
    scene s;
    scene_open(&s, "best");
    put_shop(&s.b);
    check_best(&s, "How long must I hold the reset button?",
               "Hold the reset button for ten seconds until the light blinks.");
    check_best(&s, "What does a red light mean?", "A red light means that the cable is loose.");
    check_best(&s, "How long is the warranty?",
               "The warranty lasts 24 months from the day of purchase.");
    check_best(&s, "重置按钮要按住多少秒？", "按住重置按钮10秒，直到指示灯闪烁。");
    check_best(&s, "商品多久之内可以退回？", "商品可以在收到后30天内退回。");
    scene_close(&s);
}

/* Headings and lone words are no sentences, unless there is nothing else; "3. " is layout. */
TEST(labels_and_markers)
{
    scene s;
    scene_open(&s, "labels");
    const lore_chunk chunks[] = {
        {.document_row = 1,
         .title = LORE_STR("Guide"),
         .heading = LORE_STR("Reset > Steps?"),
         .text = LORE_STR("Guide\nSteps?\nPrice list\n3. Pull the plug out.\n* Wait a while, then "
                          "plug it in.\n- -\nSpeed 40"),
         .start = 100},
        {.document_row = 2, .title = LORE_STR("Links"), .text = LORE_STR("Home page\nContact")},
    };
    rank_chunks(&s, "How do I pull the plug?", chunks, 2);
    check_sorted(&s.evidence);
    CHECK_STR(s.evidence.sentences[0].text, "Pull the plug out.");
    CHECK_INT(s.evidence.sentences[0].start, 100 + 6 + 7 + 11 + 3);
    int found = 0;
    for (int32_t i = 0; i < s.evidence.count; i++) {
        lore_str text = s.evidence.sentences[i].text;
        const lore_sentence *one = &s.evidence.sentences[i];
        const lore_chunk *chunk = &chunks[one->hit];
        CHECK(!lore_str_equal(text, LORE_STR("Guide")));
        CHECK(!lore_str_equal(text, LORE_STR("Steps?")));
        CHECK(!lore_str_equal(text, LORE_STR("Price list")));
        found += lore_str_equal(text, LORE_STR("Wait a while, then plug it in."));
        found += lore_str_equal(text, LORE_STR("Speed 40")); /* a figure says something */
        found += lore_str_equal(text, LORE_STR("Home page"));
        found += lore_str_equal(text, LORE_STR("Contact"));
        CHECK(lore_str_equal(
            lore_str_slice(chunk->text, one->start - chunk->start, one->end - chunk->start), text));
    }
    CHECK_INT(found, 4);
    scene_close(&s);
}

TEST(overlapping_chunks_give_a_sentence_once)
{
    scene s;
    scene_open(&s, "overlap");
    static const char TEXT[] = "The cable is blue today. Turn the knob to the left. It will click.";
    const size_t from = 25, until = 51; /* the second sentence is in both */
    lore_str all = LORE_STR(TEXT);
    lore_chunk chunks[] = {
        {.document_row = 7, .text = lore_str_slice(all, 0, until)},
        {.document_row = 7, .text = lore_str_slice(all, from, all.len), .start = from},
        {.document_row = 8, .text = lore_str_slice(all, from, all.len), .start = from},
    };
    rank_chunks(&s, "Where do I turn the knob?", chunks, 2);
    CHECK_INT(s.evidence.count, 3);
    CHECK_STR(s.evidence.sentences[0].text, "Turn the knob to the left.");
    CHECK_INT(s.evidence.sentences[0].hit, 0); /* the better hit keeps it */
    CHECK_INT(s.evidence.sentences[0].start, from);
    CHECK_INT(s.evidence.sentences[0].end, until);
    rank_chunks(&s, "Where do I turn the knob?", chunks, 3); /* another document says it itself */
    CHECK_INT(s.evidence.count, 5);
    scene_close(&s);
}

TEST(order_of_the_passages)
{
    scene s;
    lore_error err = {0};
    scene_open(&s, "order");
    const lore_chunk chunks[] = {
        {.document_row = 1, .text = LORE_STR(" \n ")}, /* no sentence at all */
        {.document_row = 2, .text = LORE_STR("Apples are sold by weight here.")},
        {.document_row = 3, .text = LORE_STR("The knob turns to the left. Oil it twice a year.")},
        {.document_row = 4, .text = LORE_STR("Pears are sold by weight here.")},
    };
    rank_chunks(&s, "To which side does the knob turn?", chunks, 4);
    CHECK_INT(s.evidence.count, 4);
    CHECK_INT(s.evidence.passage_count, 4);
    CHECK_INT(s.evidence.passages[0], 2);
    CHECK_INT(s.evidence.passages[3], 0); /* hits without sentences come last */
    lore_hits before = s.hits;
    CHECK_OK(lore_evidence_reorder(&s.evidence, &s.hits, 2, &s.arena, &err), &err);
    CHECK_INT(before.items[0].chunk.document_row, 1); /* the caller's array is as it was */
    CHECK_INT(s.hits.count, 2);
    CHECK_INT(s.evidence.passage_count, 2);
    CHECK_INT(s.hits.items[0].chunk.document_row, 3);
    CHECK(s.hits.items[1].chunk.document_row == 2 || s.hits.items[1].chunk.document_row == 4);
    CHECK_INT(s.evidence.count, 3); /* one hit of one sentence was dropped */
    check_sorted(&s.evidence);
    for (int32_t i = 0; i < s.evidence.count; i++) {
        const lore_sentence *one = &s.evidence.sentences[i];
        CHECK(one->hit >= 0 && one->hit < 2);
        lore_str text = s.hits.items[one->hit].chunk.text;
        CHECK(lore_str_equal(lore_str_slice(text, one->start, one->end), one->text));
    }
    CHECK_INT(s.evidence.passages[0], 0);
    CHECK_INT(s.evidence.passages[1], 1);
    CHECK_OK(lore_evidence_reorder(&s.evidence, &s.hits, 50, &s.arena, &err), &err);
    CHECK_INT(s.hits.count, 2); /* asking for more keeps all */
    scene_close(&s);
}

TEST(the_view_of_a_passage)
{
    scene s;
    scene_open(&s, "view");
    const lore_chunk chunks[] = {
        {.document_row = 1,
         .title = LORE_STR("Guide"),
         .heading = LORE_STR("Knob > Use"),
         .text = LORE_STR("Nobody paints walls on rainy days. The knob turns to the left. Ships "
                          "sail slowly at night. Push the knob before it turns.")},
        {.document_row = 2, .title = LORE_STR("Fruit"), .text = LORE_STR("Pears are sold here.")},
        {.document_row = 3, .title = LORE_STR("Empty"), .text = LORE_STR("\n")},
    };
    rank_chunks(&s, "How does the knob turn?", chunks, 3);
    CHECK_STR(lore_evidence_passage(&s.evidence, &s.hits, 0, 2, &s.arena),
              "Guide > Knob > Use\nThe knob turns to the left.\nPush the knob before it turns.");
    CHECK_STR(lore_evidence_passage(&s.evidence, &s.hits, 0, 9, &s.arena),
              "Guide > Knob > Use\nNobody paints walls on rainy days.\nThe knob turns to the "
              "left.\nShips sail slowly at night.\nPush the knob before it turns.");
    CHECK_STR(lore_evidence_passage(&s.evidence, &s.hits, 1, 2, &s.arena),
              "Fruit\nPears are sold here.");
    CHECK_STR(lore_evidence_passage(&s.evidence, &s.hits, 2, 2, &s.arena), "Empty");
    CHECK_STR(lore_evidence_passage(&s.evidence, &s.hits, 0, 0, &s.arena), "Guide > Knob > Use");
    scene_close(&s);
}

/* A question for a figure prefers a sentence that holds one. */
TEST(figures)
{
    scene s;
    scene_open(&s, "figures");
    const lore_chunk chunks[] = {
        {.document_row = 1,
         .text = LORE_STR("The delivery takes time depending on the region. The delivery takes "
                          "three days in the city.")}};
    rank_chunks(&s, "How long does the delivery take?", chunks, 1);
    CHECK_STR(s.evidence.sentences[0].text, "The delivery takes three days in the city.");
    CHECK(s.evidence.sentences[0].score > s.evidence.sentences[1].score + 0.05F);
    scene_close(&s);
}

TEST(no_hits)
{
    scene s;
    lore_error err = {0};
    scene_open(&s, "none");
    rank_chunks(&s, "How does the knob turn?", NULL, 0);
    CHECK_INT(s.evidence.count, 0);
    CHECK_INT(s.evidence.passage_count, 0);
    CHECK(s.evidence.support == 0.0F);
    CHECK_OK(lore_evidence_reorder(&s.evidence, &s.hits, 5, &s.arena, &err), &err);
    CHECK_INT(s.hits.count, 0);
    rank_chunks(&s, "", NULL, 0); /* a question without a word */
    const lore_chunk chunk = {.document_row = 1, .text = LORE_STR("The knob turns to the left.")};
    rank_chunks(&s, "?!", &chunk, 1);
    CHECK_INT(s.evidence.count, 1);
    CHECK_NEAR(s.evidence.sentences[0].lexical, 0.0, 0.0);
    scene_close(&s);
}

static lore_status walk_once(void *self)
{
    scene *s = self;
    lore_error err;
    lore_arena arena;
    lore_evidence evidence = {0};
    lore_hits hits = s->hits;
    lore_arena_init(&arena, 0);
    lore_status status =
        lore_evidence_rank(&s->retriever, LORE_STR("How long must I hold the reset button?"), &hits,
                           &arena, &evidence, &err);
    if (status == LORE_OK) {
        status = lore_evidence_reorder(&evidence, &hits, 2, &arena, &err);
    }
    if (status == LORE_OK && lore_evidence_passage(&evidence, &hits, 0, 3, &arena).ptr == NULL) {
        status = LORE_ERR_NOMEM;
    }
    lore_arena_destroy(&arena);
    return status;
}

TEST(allocations_may_fail)
{
    scene s;
    scene_open(&s, "nomem");
    put_shop(&s.b);
    retrieve(&s, "How long must I hold the reset button?");
    sample_alloc_failures(walk_once, &s);
    scene_close(&s);
}

CHECK_MAIN(the_best_sentence_comes_first, labels_and_markers,
           overlapping_chunks_give_a_sentence_once, order_of_the_passages, the_view_of_a_passage,
           figures, no_hits, allocations_may_fail)
