/* Metadata filters: the grammar, the words of refusals, and what passes. */
#include "tests/unit/index_fixture.h"

static fixture f;

/* Documents a, b, ... with one chunk each, in this order. */
static const char *const metadata[] = {
    "{\"product\":\"R1\",\"year\":2023,\"beta\":true,\"price\":9.5}",
    "{\"product\":\"R2\",\"year\":2024,\"beta\":false}",
    "{\"product\":\"R2\",\"year\":\"2024\",\"tags\":[\"x\"]}",
    "",
    "{\"a \\\"quoted\\\" key\":1,\"\":2,\"date\":\"2024-05-01\",\"caf\\u00e9\":\"\\u00fc\"}",
    "{\"product\":null,\"a.b[0]\":\"path\",\"n\":1,\"o\":{\"n\":1}}",
};

static void open_documents(void)
{
    char id[8];
    fix_init(&f, "filter");
    fix_open(&f, true);
    for (size_t i = 0; i < sizeof metadata / sizeof metadata[0]; i++) {
        snprintf(id, sizeof id, "%c", (char)('a' + (char)i));
        fix_put_one(f.index, "default", id, "apples", metadata[i], 1, i + 1);
    }
}

static lore_status parse(const char *json, lore_arena *arena, const lore_filter **filter,
                         lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(lore_str_from(json), 32, &root, err);
    if (status == LORE_OK) {
        status = lore_filter_parse(root, &f.config.limits, arena, filter, err);
    }
    lore_json_free(root);
    return status;
}

/* The documents that pass, as a string of their ids; both searches must agree. */
static const char *passing(const char *json)
{
    static char ids[32];
    lore_error err;
    lore_arena arena;
    const lore_filter *filter = NULL;
    int64_t dense[16], text[16];
    lore_arena_init(&arena, 0);
    CHECK_OK(parse(json, &arena, &filter, &err), &err);
    int32_t dense_count = fix_dense(f.index, "default", 1, filter, dense, NULL, 16);
    int32_t text_count = fix_text(f.index, "default", "apples", filter, text, NULL, 16);
    CHECK_INT(dense_count, text_count);
    memset(ids, 0, sizeof ids);
    for (int32_t i = 0; i < text_count; i++) { /* equal scores: in order of id */
        fix_document_of(f.index, text[i], ids + i, 2);
    }
    lore_arena_destroy(&arena);
    return ids;
}

#define CHECK_PASSING(json, ids) CHECK_STR(lore_str_from(passing(json)), ids)

TEST(comparisons)
{
    open_documents();
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"product\",\"value\":\"R2\"}", "bc");
    CHECK_PASSING("{\"type\":\"ne\",\"key\":\"product\",\"value\":\"R2\"}", "adef");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"product\",\"value\":\"r2\"}", "");
    /* Kinds do not mix: 2024 is not "2024", true is not 1. */
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"year\",\"value\":2024}", "b");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"year\",\"value\":\"2024\"}", "c");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"beta\",\"value\":true}", "a");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"beta\",\"value\":false}", "b");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"beta\",\"value\":1}", "");
    CHECK_PASSING("{\"type\":\"ne\",\"key\":\"beta\",\"value\":true}", "bcdef");
    CHECK_PASSING("{\"type\":\"gt\",\"key\":\"year\",\"value\":2022.5}", "ab");
    CHECK_PASSING("{\"type\":\"gte\",\"key\":\"year\",\"value\":2024}", "b");
    CHECK_PASSING("{\"type\":\"lt\",\"key\":\"year\",\"value\":2024}", "a");
    CHECK_PASSING("{\"type\":\"lte\",\"key\":\"price\",\"value\":9.5}", "a");
    CHECK_PASSING("{\"type\":\"gt\",\"key\":\"date\",\"value\":\"2024-04\"}", "e");
    CHECK_PASSING("{\"type\":\"lt\",\"key\":\"date\",\"value\":\"2024-04\"}", "");
    fix_destroy(&f);
}

TEST(lists_and_compounds)
{
    open_documents();
    CHECK_PASSING("{\"type\":\"in\",\"key\":\"product\",\"value\":[\"R1\",\"R3\"]}", "a");
    CHECK_PASSING("{\"type\":\"nin\",\"key\":\"product\",\"value\":[\"R1\",\"R2\"]}", "def");
    CHECK_PASSING("{\"type\":\"in\",\"key\":\"year\",\"value\":[\"2024\",2023,true]}", "ac");
    CHECK_PASSING("{\"type\":\"in\",\"key\":\"beta\",\"value\":[true,false]}", "ab");
    CHECK_PASSING("{\"type\":\"in\",\"key\":\"year\",\"value\":[]}", "");
    CHECK_PASSING("{\"type\":\"nin\",\"key\":\"year\",\"value\":[]}", "abcdef");
    CHECK_PASSING(
        "{\"type\":\"and\",\"filters\":[{\"type\":\"eq\",\"key\":\"product\",\"value\":\"R2\"},"
        "{\"type\":\"gte\",\"key\":\"year\",\"value\":2024}]}",
        "b");
    CHECK_PASSING(
        "{\"type\":\"or\",\"filters\":[{\"type\":\"eq\",\"key\":\"product\",\"value\":\"R1\"},"
        "{\"type\":\"and\",\"filters\":[{\"type\":\"ne\",\"key\":\"beta\",\"value\":false},"
        "{\"type\":\"eq\",\"key\":\"product\",\"value\":\"R2\"}]}]}",
        "ac");
    fix_destroy(&f);
}

/* Keys of any spelling; none of them is SQL or a path. */
TEST(odd_keys)
{
    open_documents();
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"a \\\"quoted\\\" key\",\"value\":1}", "e");
    CHECK_PASSING("{\"type\":\"ne\",\"key\":\"a \\\"quoted\\\" key\",\"value\":1}", "abcdf");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"\",\"value\":2}", "e");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"caf\xC3\xA9\",\"value\":\"\xC3\xBC\"}", "e");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"a.b[0]\",\"value\":\"path\"}", "f");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"o.n\",\"value\":1}", "");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"tags\",\"value\":\"[\\\"x\\\"]\"}", "");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"x') OR 1=1 --\",\"value\":\"' OR 1=1 --\"}", "");
    fix_destroy(&f);
}

/* What is wrong is named by its path. */
TEST(refusals)
{
    lore_error err;
    lore_arena arena;
    const lore_filter *filter = NULL;
    lore_arena_init(&arena, 0);
    fix_init(&f, "refusals");
    const struct {
        const char *json, *words;
    } cases[] = {
        {"1", "filter must be an object"},
        {"{}", "filter.type"},
        {"{\"type\":\"like\",\"key\":\"a\",\"value\":1}", "filter.type must be one of"},
        {"{\"type\":\"eq\",\"value\":1}", "filter.key"},
        {"{\"type\":\"eq\",\"key\":1,\"value\":1}", "filter.key must be a string"},
        {"{\"type\":\"eq\",\"key\":\"a\"}", "filter.value must be a string, a number or a boolean"},
        {"{\"type\":\"eq\",\"key\":\"a\",\"value\":null}", "filter.value must be"},
        {"{\"type\":\"eq\",\"key\":\"a\",\"value\":[1]}", "filter.value must be"},
        {"{\"type\":\"in\",\"key\":\"a\",\"value\":1}", "filter.value must be an array"},
        {"{\"type\":\"in\",\"key\":\"a\",\"value\":[1,{}]}", "filter.value[1] must be"},
        {"{\"type\":\"gt\",\"key\":\"a\",\"value\":true}",
         "filter.value must be a string or a number"},
        {"{\"type\":\"and\"}", "filter.filters must be an array"},
        {"{\"type\":\"or\",\"filters\":[]}", "filter.filters must be an array"},
        {"{\"type\":\"and\",\"filters\":[{\"type\":\"eq\",\"key\":\"a\",\"value\":1},{\"type\":"
         "\"eq\"}]}",
         "filter.filters[1].key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_FAILS(parse(cases[i].json, &arena, &filter, &err), LORE_ERR_INVALID, &err,
                    cases[i].words);
    }
    lore_buf json;
    lore_buf_init(&json, 0);
    lore_buf_printf(&json, "{\"type\":\"and\",\"filters\":[");
    for (int i = 0; i < 64; i++) {
        lore_buf_printf(&json, "%s{\"type\":\"eq\",\"key\":\"a\",\"value\":1}", i == 0 ? "" : ",");
    }
    lore_buf_printf(&json, "]}");
    CHECK_FAILS(parse(lore_buf_c(&json), &arena, &filter, &err), LORE_ERR_LIMIT, &err,
                "filter_nodes_max (64)");
    lore_buf_reset(&json);
    lore_buf_printf(&json, "{\"type\":\"in\",\"key\":\"a\",\"value\":[0");
    for (int i = 0; i < LORE_FILTER_VALUES_MAX; i++) {
        lore_buf_printf(&json, ",%d", i);
    }
    lore_buf_printf(&json, "]}");
    CHECK_FAILS(parse(lore_buf_c(&json), &arena, &filter, &err), LORE_ERR_LIMIT, &err, "values");
    lore_buf_destroy(&json);
    lore_arena_destroy(&arena);
    lore_backend_close(f.backend);
}

/* The largest filter that is allowed compiles and runs. */
TEST(largest)
{
    open_documents();
    lore_buf json;
    lore_buf_init(&json, 0);
    for (int i = 0; i < 14; i++) { /* deep ... */
        lore_buf_printf(&json, "{\"type\":\"and\",\"filters\":[");
    }
    lore_buf_printf(&json, "{\"type\":\"in\",\"key\":\"product\",\"value\":[\"R2\"");
    for (int i = 1; i < LORE_FILTER_VALUES_MAX; i++) { /* ... and wide */
        lore_buf_printf(&json, ",%d", i);
    }
    lore_buf_printf(&json, "]}");
    for (int i = 0; i < 14; i++) {
        lore_buf_printf(&json, "]}");
    }
    CHECK_PASSING(lore_buf_c(&json), "bc");
    lore_buf_destroy(&json);
    fix_destroy(&f);
}

/* Sets of earlier commits are brought forward: what came, what was replaced and what went shows at
 * once, also where more filters are asked for than are kept. */
TEST(kept_sets)
{
    open_documents();
    const char *r2 = "{\"type\":\"eq\",\"key\":\"product\",\"value\":\"R2\"}";
    CHECK_PASSING(r2, "bc");
    CHECK_PASSING(r2, "bc");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"product\",\"value\":\"R1\"}", "a");
    CHECK_PASSING("{\"type\":\"ne\",\"key\":\"product\",\"value\":\"R2\"}", "adef");
    fix_put_one(f.index, "default", "g", "apples", "{\"product\":\"R2\"}", 1, 20);
    CHECK_PASSING(r2, "bcg");
    fix_put_one(f.index, "default", "b", "apples", "{\"product\":\"R1\"}", 1, 21);
    CHECK_PASSING(r2, "cg");
    CHECK_PASSING("{\"type\":\"eq\",\"key\":\"product\",\"value\":\"R1\"}", "ab");
    fix_delete_one(f.index, "default", "c");
    CHECK_PASSING(r2, "g");
    for (int i = 0; i < 2 * LORE_FILTERS_KEPT; i++) {
        char json[96];
        snprintf(json, sizeof json, "{\"type\":\"in\",\"key\":\"year\",\"value\":[2023,%d]}", i);
        CHECK_PASSING(json, "a");
    }
    CHECK_PASSING(r2, "g");
    fix_destroy(&f);
}

/* Runs of a bitmap, at the edges of its words, and of what is added to one. */
TEST(row_sets)
{
    const lore_row_range first[] = {{63, 2}, {200, 64}, {130, 1}}, later[] = {{5, 1}, {1000, 3}};
    const int64_t runs[][2] = {{5, 6}, {63, 65}, {130, 131}, {200, 264}, {1000, 1003}};
    lore_error err;
    lore_row_set *base = NULL, *set = NULL;
    int64_t begin = 0, end = 0;
    CHECK_OK(lore_row_set_new(NULL, first, 3, &base, &err), &err);
    CHECK_OK(lore_row_set_new(base, later, 2, &set, &err), &err);
    CHECK_INT(base->count, 67);
    CHECK_INT(set->count, 71);
    for (int i = 0; i < 5; i++) {
        CHECK(lore_row_set_run(set, end, &begin, &end));
        CHECK_INT(begin, runs[i][0]);
        CHECK_INT(end, runs[i][1]);
        CHECK(lore_row_set_has(set, begin) && lore_row_set_has(set, end - 1));
        CHECK(!lore_row_set_has(set, begin - 1) && !lore_row_set_has(set, end));
    }
    CHECK(!lore_row_set_run(set, end, &begin, &end));
    CHECK(lore_row_set_run(set, 210, &begin, &end) && begin == 210 && end == 264);
    CHECK(!lore_row_set_has(set, -1) && !lore_row_set_has(set, INT64_MAX));
    lore_row_set_release(base);
    lore_row_set_release(set);
}

CHECK_MAIN(comparisons, lists_and_compounds, odd_keys, refusals, largest, kept_sets, row_sets)
