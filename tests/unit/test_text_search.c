/* Lexical search: BM25 to the digit, stems, CJK, the row budget, and that a question is never a
 * query language. */
#include "tests/unit/index_fixture.h"

static fixture f;

static void open_texts(const char *name, const char *const *texts, int count)
{
    lore_error err;
    char id[16];
    fix_init(&f, name);
    fix_open(&f, true);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    for (int i = 0; i < count; i++) {
        lore_chunk_row chunk = {0, strlen(texts[i]), LORE_STR(""), NULL};
        float vector[FIX_DIM];
        fix_vector((uint64_t)i + 1, vector);
        chunk.vector = i % 2 == 0 ? vector : NULL; /* lengths come from the view, or from FTS5 */
        snprintf(id, sizeof id, "d%d", i);
        lore_document_row row = {.id = lore_str_from(id),
                                 .text = lore_str_from(texts[i]),
                                 .chunks = &chunk,
                                 .chunk_count = 1};
        CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &row, NULL, &err), &err);
    }
    CHECK_OK(lore_index_commit(f.index, &err), &err);
}

/* Chunk ids of the best as "1 3 2": chunk i is text i - 1. */
static const char *asked(const char *question)
{
    static char out[256];
    int64_t chunks[16];
    size_t at = 0;
    out[0] = '\0';
    int32_t count = fix_text(f.index, "default", question, NULL, chunks, NULL, 16);
    for (int32_t i = 0; i < count; i++) {
        at += (size_t)snprintf(out + at, sizeof out - at, i == 0 ? "%lld" : " %lld",
                               (long long)chunks[i]);
    }
    return out;
}

#define CHECK_ASKED(question, ids) CHECK_STR(lore_str_from(asked(question)), ids)

/* The formula, computed by hand: three texts of 4, 2 and 6 words. */
TEST(scores_are_bm25)
{
    const char *const texts[] = {"apple pear plum fig", "apple apple",
                                 "pear pear pear fig fig kiwi"};
    int64_t chunks[8];
    float scores[8];
    open_texts("bm25", texts, 3);
    const double average = 12 / 3.0, k = 1.2, b = .75;
    const double idf = log(1 + (3 - 2 + .5) / (2 + .5)); /* apple is in two of three */
    double first = idf * 2 * (k + 1) / (2 + k * (1 - b + b * 2 / average));
    double second = idf * 1 * (k + 1) / (1 + k * (1 - b + b * 4 / average));
    CHECK_INT(fix_text(f.index, "default", "apple", NULL, chunks, scores, 8), 2);
    CHECK_INT(chunks[0], 2);
    CHECK_NEAR(scores[0], first, 1e-5);
    CHECK_NEAR(scores[1], second, 1e-5);
    /* Asking twice counts once. */
    CHECK_INT(fix_text(f.index, "default", "Apple apples APPLE", NULL, chunks, scores, 8), 2);
    CHECK_NEAR(scores[0], first, 1e-5);
    /* Several terms add up; counts come from the cache the second time. */
    for (int round = 0; round < 2; round++) {
        const double kiwi = log(1 + (3 - 1 + .5) / (1 + .5));
        double both = idf * 2 * (k + 1) / (2 + k * (1 - b + b * 6 / average)) +
                      kiwi * 1 * (k + 1) / (1 + k * (1 - b + b * 6 / average));
        CHECK_INT(fix_text(f.index, "default", "kiwi fig", NULL, chunks, scores, 8), 2);
        CHECK_INT(chunks[0], 3);
        CHECK_NEAR(scores[0], both, 1e-5);
    }
    /* A commit makes the counts old. */
    fix_put_one(f.index, "default", "new", "kiwi kiwi kiwi", "", 1, 1);
    CHECK_INT(fix_text(f.index, "default", "kiwi", NULL, chunks, scores, 8), 2);
    CHECK_INT(chunks[0], 4);
    fix_destroy(&f);
}

/* Title and heading weigh more than the body. */
TEST(columns)
{
    fix_init(&f, "columns");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "the body has a guide in it too", "", 1, 1);
    int64_t chunks[4];
    float body[4], title[4], heading[4];
    CHECK_INT(fix_text(f.index, "default", "body", NULL, chunks, body, 4), 1);
    CHECK_INT(fix_text(f.index, "default", "title", NULL, chunks, title, 4), 1);
    CHECK_INT(fix_text(f.index, "default", "part", NULL, chunks, heading, 4), 1);
    CHECK(title[0] > heading[0] && heading[0] > body[0]);
    fix_destroy(&f);
}

TEST(stems_and_scripts)
{
    const char *const texts[] = {
        "How to reset the routers", "重置路由器的方法", "人工智能与机器学习",
        "東京都は首都です",         "京都の寺",         "Café Straße naïve",
        "인공지능과 서울",          "การรีเซ็ตเราเตอร์"};
    open_texts("scripts", texts, 8);
    CHECK_ASKED("resetting a router", "1");
    CHECK_ASKED("路由器怎么重置？", "2 3"); /* 机器学习 shares a character */
    CHECK_ASKED("机器学习", "3 2");
    CHECK_ASKED("首都", "4 5");
    CHECK_ASKED("京都", "5 4"); /* a pair inside 東京都 too: what pairs cannot tell apart */
    CHECK_ASKED("寺", "5");
    CHECK_ASKED("CAFE strasse", "6");
    CHECK_ASKED("서울", "7");
    CHECK_ASKED("เราเตอร์", "8");
    CHECK_ASKED("nothing of the kind here, really", "1"); /* "the" */
    CHECK_ASKED("", "");
    CHECK_ASKED("?!… \xE3\x80\x82", "");
    fix_destroy(&f);
}

/* Of a question, Chinese as English, its subject is looked for; words that only ask or join count
 * for little, yet for something where there is nothing else. */
TEST(function_words)
{
    const char *const texts[] = {"多少钱？多少钱？多少钱？", "男科的费用", "what is it",
                                 "a guide to nests", "怎么办"};
    open_texts("function", texts, 5);
    CHECK_ASKED("男科多少钱", "2 1");
    CHECK_ASKED("what is the nest", "4 3");
    CHECK_ASKED("What is the ...", "3");
    CHECK_ASKED("怎么", "5");
    fix_destroy(&f);
}

/* Terms typical of given passages join the question's, in what share is asked for; common ones do
 * not. */
TEST(terms_of_passages)
{
    const char *const texts[] = {"the wing in the slipstream of the propeller",
                                 "the lift of the wing", "the propeller and the lift",
                                 "the slipstream", "the boundary layer"};
    open_texts("passages", texts, 5);
    lore_error err;
    lore_arena arena;
    lore_candidates found;
    const lore_str passage = LORE_STR("the wing in the slipstream of the propeller");
    lore_search_options options = {.count = 8};
    lore_arena_init(&arena, 0);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    CHECK_OK(lore_search_text(snapshot, LORE_STR("lift"), &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 2);
    options.passages = &passage;
    options.passage_count = 1;
    CHECK_OK(lore_search_text(snapshot, LORE_STR("lift"), &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 2); /* without a share they are not looked at */
    options.expansion = .9;
    CHECK_OK(lore_search_text(snapshot, LORE_STR("lift"), &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 5);
    CHECK_INT(found.items[0].chunk, 1); /* has no lift, but all of the rest */
    CHECK_INT(found.items[4].chunk, 5); /* "the" alone */
    options.expansion = .02;
    CHECK_OK(lore_search_text(snapshot, LORE_STR("lift"), &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 5);
    CHECK(found.items[0].chunk == 2 || found.items[0].chunk == 3);
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* One or two characters find every text that holds them, wherever a longer word does. */
TEST(short_chinese_questions)
{
    const char *const texts[] = {"支持七天无理由退货。", "退款需要三天", "货到付款", "茶"};
    open_texts("short", texts, 4);
    CHECK_ASKED("退货", "1 3 2"); /* both together first, then either */
    CHECK_ASKED("理由", "1");
    CHECK_ASKED("茶", "4");
    CHECK_ASKED("退", "2 1");
    CHECK_ASKED("由", "1");
    fix_destroy(&f);
}

/* Everything that means something to FTS5 or SQL is only words here. */
TEST(questions_are_not_queries)
{
    const char *const texts[] = {"alpha", "beta", "near and or not body"};
    open_texts("queries", texts, 3);
    CHECK_ASKED("alpha AND beta", "1 2 3");
    CHECK_ASKED("NOT alpha", "1 3");
    CHECK_ASKED("body:alpha", "1 3");
    CHECK_ASKED("\"alpha", "1");
    CHECK_ASKED("alp*", "");
    CHECK_ASKED("^alpha) OR (beta'; DROP TABLE x --", "1 2 3");
    CHECK_ASKED("NEAR(alpha beta, 5)", "1 2 3");
    CHECK_ASKED("{title body}: alpha", "1 3");
    lore_error err;
    lore_arena arena;
    lore_candidates found;
    lore_search_options options = {.count = 4};
    lore_arena_init(&arena, 0);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    CHECK_OK(
        lore_search_text(snapshot, (lore_str){"alpha\0beta", 10}, &options, &arena, &found, &err),
        &err);
    CHECK_INT(found.count, 2); /* NUL separates; no collection named means all */
    lore_str nowhere = LORE_STR("nowhere");
    options = (lore_search_options){.collections = &nowhere, .collection_count = 1, .count = 4};
    CHECK_FAILS(lore_search_text(snapshot, LORE_STR("x"), &options, &arena, &found, &err),
                LORE_ERR_NOT_FOUND, &err, "no collection 'nowhere'");
    options = (lore_search_options){.count = 201};
    CHECK_FAILS(lore_search_text(snapshot, LORE_STR("x"), &options, &arena, &found, &err),
                LORE_ERR_LIMIT, &err, "candidates_max");
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* In a small collection every term counts; in a large one the common ones go first, never the last.
 */
TEST(row_budget)
{
    const char *const texts[] = {"the the rare one", "the other", "the middle", "the middle way",
                                 "the end of the road"};
    open_texts("budget", texts, 5);
    CHECK_ASKED("the middle rare", "1 3 4 5 2");
    f.config.limits.row_budget_min_chunks = 5;
    f.config.limits.row_budget = 3; /* rare: 1 row, middle: 2, the: 5 */
    CHECK_ASKED("the middle rare", "1 3 4");
    f.config.limits.row_budget = 2;
    CHECK_ASKED("the middle rare", "1");
    f.config.limits.row_budget = 0;
    CHECK_ASKED("the", "1 5 2 3 4"); /* the rarest of one */
    f.config.limits.row_budget_min_chunks = 6;
    CHECK_ASKED("the middle rare", "1 3 4 5 2");
    f.config.limits.query_terms_max = 1;
    CHECK_ASKED("the middle rare unknown", "1");
    fix_destroy(&f);
}

/* A deleted collection and rows newer than the snapshot are no surprise. */
TEST(old_snapshot)
{
    const char *const texts[] = {"alpha", "beta"};
    lore_error err;
    lore_arena arena;
    lore_candidates found;
    lore_search_options options = {.count = 4};
    bool was = false;
    lore_arena_init(&arena, 0);
    open_texts("old", texts, 2);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    fix_put_one(f.index, "default", "late", "alpha", "", 1, 9);
    CHECK_OK(lore_search_text(snapshot, LORE_STR("alpha"), &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 2);
    CHECK_OK(lore_index_delete_collection(f.index, LORE_STR("default"), &was, &err), &err);
    CHECK_OK(lore_search_text(snapshot, LORE_STR("alpha"), &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 0);
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* A long question of many different words is answered, and quickly enough for a test. */
TEST(long_question)
{
    const char *const texts[] = {"alpha", "beta"};
    lore_buf question;
    lore_buf_init(&question, 0);
    open_texts("long", texts, 2);
    for (int i = 0; i < 1500; i++) {
        lore_buf_printf(&question, "w%d ", i);
    }
    lore_buf_printf(&question, "beta");
    CHECK_ASKED(lore_buf_c(&question), "2");
    lore_buf_destroy(&question);
    fix_destroy(&f);
}

/* Words are counted by what the index makes of them, over all collections. */
TEST(rows_of_words)
{
    const char *const texts[] = {"apple pear", "apples", "重置路由器", "路由"};
    const lore_str words[] = {LORE_STR("apple"), LORE_STR("pears"), LORE_STR("plum"),
                              LORE_STR("路由"), LORE_STR("")};
    lore_error err;
    int64_t rows[5];
    open_texts("rows", texts, 4);
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("other"), &err), &err);
    fix_put_one(f.index, "other", "x", "apple pie", "", 1, 1);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    CHECK_OK(lore_term_rows(snapshot, words, 5, rows, &err), &err);
    CHECK_INT(rows[0], 3);
    CHECK_INT(rows[1], 1);
    CHECK_INT(rows[2], 0);
    CHECK_INT(rows[3], 2);
    CHECK_INT(rows[4], 0);
    lore_snapshot_release(snapshot);
    fix_destroy(&f);
}

CHECK_MAIN(scores_are_bm25, rows_of_words, columns, stems_and_scripts, questions_are_not_queries,
           row_budget, old_snapshot, long_question, terms_of_passages, function_words,
           short_chinese_questions)
