/* JSON documents: every field, every refusal, and the merge of metadata. */
#include "tests/unit/ingest_fixture.h"

#include "base/json.h"

static lore_status parse(lore_arena *arena, const char *json, lore_raw_document *raw,
                         lore_error *err)
{
    return lore_raw_from_json(lore_str_from(json), &LIMITS, arena, raw, err);
}

TEST(fields)
{
    lore_arena arena;
    lore_error err = {0};
    lore_raw_document raw;
    lore_arena_init(&arena, 0);
    CHECK_OK(parse(&arena,
                   "{\"id\":\"d1\",\"title\":\"T\",\"markdown\":\"# x\",\"url\":\"http://x\","
                   "\"metadata\":{\"a\":1,\"b\":[true]},\"other\":0}",
                   &raw, &err),
             &err);
    CHECK_STR(raw.id, "d1");
    CHECK_STR(raw.title, "T");
    CHECK_STR(raw.bytes, "# x");
    CHECK_STR(raw.url, "http://x");
    CHECK_STR(raw.metadata, "{\"a\":1,\"b\":[true]}");
    CHECK_STR(raw.source, "");
    CHECK_INT(raw.media, LORE_MEDIA_MARKDOWN);
    CHECK_OK(parse(&arena, "{\"text\":\"\",\"html\":null,\"metadata\":{}}", &raw, &err), &err);
    CHECK_INT(raw.media, LORE_MEDIA_TEXT);
    CHECK_STR(raw.metadata, "");
    CHECK_STR(raw.id, "");
    lore_arena_destroy(&arena);
}

TEST(refusals)
{
    lore_arena arena;
    lore_error err = {0};
    lore_raw_document raw;
    lore_arena_init(&arena, 0);
    CHECK_FAILS(parse(&arena, "{\"id\":\"x\"}", &raw, &err), LORE_ERR_INVALID, &err, "missing");
    CHECK_FAILS(parse(&arena, "{\"text\":\"x\",\"html\":\"y\"}", &raw, &err), LORE_ERR_INVALID,
                &err, "text and html");
    CHECK_FAILS(parse(&arena, "{\"text\":5}", &raw, &err), LORE_ERR_INVALID, &err, "text");
    CHECK_FAILS(parse(&arena, "{\"text\":\"x\",\"id\":7}", &raw, &err), LORE_ERR_INVALID, &err,
                "id");
    CHECK_FAILS(parse(&arena, "{\"text\":\"x\",\"metadata\":[]}", &raw, &err), LORE_ERR_INVALID,
                &err, "metadata");
    CHECK_FAILS(parse(&arena, "[1]", &raw, &err), LORE_ERR_INVALID, &err, "object");
    CHECK_FAILS(parse(&arena, "{\"text\":\"x\"", &raw, &err), LORE_ERR_INVALID, &err, "");
    lore_limits small = LIMITS;
    small.metadata_bytes_max = 10;
    small.id_bytes_max = 3;
    CHECK_FAILS(
        lore_raw_from_json(LORE_STR("{\"text\":\"x\",\"metadata\":{\"key\":\"long value\"}}"),
                           &small, &arena, &raw, &err),
        LORE_ERR_LIMIT, &err, "metadata");
    CHECK_FAILS(lore_raw_from_json(LORE_STR("{\"text\":\"x\",\"id\":\"abcd\"}"), &small, &arena,
                                   &raw, &err),
                LORE_ERR_LIMIT, &err, "id");
    lore_arena_destroy(&arena);
}

static lore_status parse_mapped(lore_arena *arena, const char *spec, const char *json,
                                lore_raw_document *raw, lore_error *err)
{
    lore_json_map *map = NULL;
    lore_json *root = NULL;
    lore_status status = lore_json_map_parse(lore_str_from(spec), arena, &map, err);
    CHECK_OK(lore_json_parse(lore_str_from(json), 32, &root, err), err);
    if (status == LORE_OK) {
        status = lore_raw_from_node(root, map, &LIMITS, arena, raw, err);
    }
    lore_json_free(root);
    return status;
}

/* Members of others by path, through arrays too; what fails is told by its path. */
TEST(map)
{
    static const char *const article =
        "{\"key\":12,\"lines\":[{\"body\":\"正文\"},7],\"meta\":{\"name\":\"标题\",\"by\":\"Ada\"},"
        "\"on\":\"2020-01-01\",\"tags\":[\"a\"],\"gone\":null,\"big\":1e300,\"text\":\"not this\"}";
    lore_arena arena;
    lore_error err = {0};
    lore_raw_document raw;
    lore_arena_init(&arena, 0);
    CHECK_OK(parse_mapped(&arena,
                          "id=key, text=lines.0.body,title=meta.name,date=on,metadata=meta,"
                          "metadata=tags,url=gone",
                          article, &raw, &err),
             &err);
    CHECK_STR(raw.id, "12");
    CHECK_STR(raw.bytes, "正文");
    CHECK_STR(raw.title, "标题");
    CHECK_STR(raw.url, "");
    CHECK_STR(raw.metadata, "{\"date\":\"2020-01-01\",\"name\":\"标题\",\"by\":\"Ada\",\"tags\":"
                            "[\"a\"]}");
    static const struct {
        const char *spec, *words;
    } refused[] = {{"text=lines.1.body", "lines.1.body (text) is missing"},
                   {"text=lines.1", "lines.1 must be a string"},
                   {"text=meta.name,html=on", "meta.name and on are both given"},
                   {"text=meta.name,id=big", "big must be a string or a whole number"},
                   {"title=a", "text, markdown or html is missing"},
                   {"text=a,text=b", "text is given twice"},
                   {"text=a..b", "no path"},
                   {"text=", "no path"},
                   {"", "must be FIELD=PATH"},
                   {"text=a,body=b", "'body=b' must be"}};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        CHECK_FAILS(parse_mapped(&arena, refused[i].spec, article, &raw, &err), LORE_ERR_INVALID,
                    &err, refused[i].words);
    }
    lore_arena_destroy(&arena);
}

/* The document's own members win. */
TEST(merge)
{
    lore_arena arena;
    lore_error err = {0};
    lore_str merged;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_metadata_merge(LORE_STR("{\"a\":1,\"b\":\"x\"}"),
                                 LORE_STR("{\"b\":2,\"c\":{\"d\":null}}"), &LIMITS, &arena, &merged,
                                 &err),
             &err);
    CHECK_STR(merged, "{\"a\":1,\"b\":\"x\",\"c\":{\"d\":null}}");
    CHECK_OK(
        lore_metadata_merge(LORE_STR(""), LORE_STR("{\"b\":2}"), &LIMITS, &arena, &merged, &err),
        &err);
    CHECK_STR(merged, "{\"b\":2}");
    CHECK_FAILS(lore_metadata_merge(LORE_STR("{}"), LORE_STR("[]"), &LIMITS, &arena, &merged, &err),
                LORE_ERR_INVALID, &err, "metadata");
    lore_limits small = LIMITS;
    small.metadata_bytes_max = 12;
    CHECK_FAILS(lore_metadata_merge(LORE_STR("{\"a\":1}"), LORE_STR("{\"b\":2}"), &small, &arena,
                                    &merged, &err),
                LORE_ERR_LIMIT, &err, "metadata_bytes_max");
    lore_arena_destroy(&arena);
}

static lore_status parse_once(void *self)
{
    (void)self;
    lore_arena arena;
    lore_error err = {0};
    lore_raw_document raw;
    lore_arena_init(&arena, 0);
    lore_status status =
        parse(&arena, "{\"id\":\"d\",\"html\":\"<p>\",\"metadata\":{\"a\":1}}", &raw, &err);
    if (status == LORE_OK) {
        status = lore_metadata_merge(raw.metadata, LORE_STR("{\"b\":2}"), &LIMITS, &arena,
                                     &raw.metadata, &err);
    }
    lore_arena_destroy(&arena);
    return status;
}

TEST(without_memory)
{
    check_alloc_sweep(parse_once, NULL);
}

CHECK_MAIN(fields, refusals, map, merge, without_memory)
