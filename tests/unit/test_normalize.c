/* Chains are built from tokenizer.json's node or from a spec, run in order with a base, and refused
 * with a reason where something is unknown or out of bounds. */
#include "models/normalize_int.h"
#include "tests/check.h"
#include "tests/unit/charsmap_fixture.h"

static lore_arena arena;

static lore_status parse(const char *text, lore_normalizer **n, lore_error *err)
{
    lore_json *root;
    CHECK_OK(lore_json_parse(lore_str_from(text), 64, &root, err), err);
    lore_status status = lore_normalizer_parse(root, &arena, n, err);
    lore_json_free(root);
    return status;
}

static void refused(const char *text, lore_status wanted, const char *why)
{
    lore_error err;
    lore_normalizer *n;
    lore_arena_init(&arena, 0);
    CHECK_FAILS(parse(text, &n, &err), wanted, &err, why);
    lore_arena_destroy(&arena);
}

TEST(stages_run_in_order)
{
    lore_error err;
    lore_normalizer *n;
    lore_normal out;
    lore_arena_init(&arena, 0);
    CHECK_OK(
        parse("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\",\"strip_left\":true,"
              "\"strip_right\":true},{\"type\":\"Prepend\",\"prepend\":\"A \"},"
              "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]},"
              "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}]}",
              &n, &err),
        &err);
    CHECK(!lore_normalizer_is_empty(n));
    CHECK_OK(lore_normalize(n, LORE_STR(" B c "), 10, &arena, &out, &err), &err);
    static const uint32_t wanted[] = {11, 11, 11, 12, 13};
    CHECK_STR(out.text, "a_b_c");
    for (size_t i = 0; i < 5; i++) {
        CHECK_INT(out.origin[i], wanted[i]);
    }
    CHECK_OK(lore_normalize(n, LORE_STR("  "), 10, &arena, &out, &err), &err);
    CHECK_INT((int)out.text.len, 0);
    lore_arena_destroy(&arena);
}

TEST(bert_flags)
{
    lore_error err;
    lore_normalizer *n;
    lore_normal out;
    lore_arena_init(&arena, 0);
    lore_str text = LORE_STR("\xc3\x89\tx\xe4\xbd\xa0");
    CHECK_OK(
        parse("{\"type\":\"BertNormalizer\",\"lowercase\":true,\"strip_accents\":null}", &n, &err),
        &err);
    CHECK_OK(lore_normalize(n, text, 0, &arena, &out, &err), &err);
    CHECK_STR(out.text, "e x \xe4\xbd\xa0 ");
    CHECK_OK(parse("{\"type\":\"BertNormalizer\",\"lowercase\":false,\"clean_text\":false,"
                   "\"handle_chinese_chars\":false}",
                   &n, &err),
             &err);
    CHECK_OK(lore_normalize(n, text, 0, &arena, &out, &err), &err);
    CHECK(out.text.ptr == text.ptr);
    lore_arena_destroy(&arena);
}

TEST(nothing_to_do)
{
    lore_error err;
    lore_normalizer *n;
    lore_normal out;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_normalizer_parse(NULL, &arena, &n, &err), &err);
    CHECK(lore_normalizer_is_empty(n));
    CHECK_OK(parse("null", &n, &err), &err);
    CHECK(lore_normalizer_is_empty(n));
    CHECK_OK(parse("{\"type\":\"NFC\"}", &n, &err), &err);
    size_t before = arena.used_bytes;
    lore_str text = LORE_STR("plain text");
    CHECK_OK(lore_normalize(n, text, 0, &arena, &out, &err), &err);
    CHECK(out.text.ptr == text.ptr);
    CHECK(arena.used_bytes == before);
    lore_arena_destroy(&arena);
}

TEST(bad_nodes_are_refused)
{
    refused("{\"type\":\"ByteLevel\"}", LORE_ERR_UNSUPPORTED, "'ByteLevel' is not supported");
    refused("{}", LORE_ERR_UNSUPPORTED, "type ''");
    refused("[1]", LORE_ERR_UNSUPPORTED, "type ''");
    refused("{\"type\":\"Sequence\"}", LORE_ERR_INVALID, "must be an array");
    refused("{\"type\":\"Prepend\"}", LORE_ERR_INVALID, "prepend");
    refused("{\"type\":\"Replace\",\"content\":\"\"}", LORE_ERR_INVALID,
            "normalizer.pattern must be an object");
    refused("{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"String\":\"\"}}",
            LORE_ERR_UNSUPPORTED, "empty pattern");
    refused("{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"Regex\":\"(?<=a)b\"}}",
            LORE_ERR_UNSUPPORTED, "");
    refused("{\"type\":\"Strip\",\"strip_left\":1}", LORE_ERR_INVALID, "strip_left");
    refused("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"A*==\"}", LORE_ERR_CORRUPT,
            "not base64");
    refused("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"\"}", LORE_ERR_CORRUPT, "trie");
    refused("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}", LORE_ERR_CORRUPT,
            "trie");
    lore_buf deep;
    lore_buf_init(&deep, 0);
    for (int i = 0; i < 20; i++) {
        lore_buf_append(&deep, LORE_STR("{\"type\":\"Sequence\",\"normalizers\":["));
    }
    for (int i = 0; i < 20; i++) {
        lore_buf_append(&deep, LORE_STR("]}"));
    }
    refused(lore_buf_c(&deep), LORE_ERR_LIMIT, "nests deeper");
    lore_buf_reset(&deep);
    lore_buf_append(&deep, LORE_STR("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}"));
    for (int i = 0; i < LORE_NORMALIZE_STAGES_MAX; i++) {
        lore_buf_append(&deep, LORE_STR(",{\"type\":\"NFC\"}"));
    }
    lore_buf_append(&deep, LORE_STR("]}"));
    refused(lore_buf_c(&deep), LORE_ERR_LIMIT, "more than 64 stages");
    lore_buf_destroy(&deep);
}

TEST(growth_is_limited)
{
    lore_error err;
    lore_normalizer *n;
    lore_normal out;
    lore_arena_init(&arena, 0);
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_buf_append(&text, LORE_STR("{\"type\":\"Sequence\",\"normalizers\":["));
    for (int i = 0; i < 40; i++) {
        lore_buf_append(&text, LORE_STR("{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},"
                                        "\"content\":\"aa\"},"));
    }
    lore_buf_append(&text, LORE_STR("{\"type\":\"NFC\"}]}"));
    CHECK_OK(parse(lore_buf_c(&text), &n, &err), &err);
    CHECK_FAILS(lore_normalize(n, LORE_STR("aaaa"), 0, &arena, &out, &err), LORE_ERR_LIMIT, &err,
                "normalizer stage 6 (Replace)");
    lore_buf_destroy(&text);
    lore_arena_destroy(&arena);
}

static void append_replace(lore_buf *out, const char *pattern, const char *content)
{
    char node[256];
    snprintf(node, sizeof node,
             "{\"type\":\"Replace\",\"pattern\":{\"String\":\"%s\"},\"content\":\"%s\"},", pattern,
             content);
    lore_buf_append(out, lore_str_from(node));
}

/* As many stages as there may be rewrite a text of the ordinary length, and one that is sixteen
 * times as long is not rewritten by all of them. */
TEST(work_is_limited)
{
    static char source[1000];
    static const char *const contents[] = {"b", "bbbbbbbbbbbbbbbb"};
    lore_error err;
    lore_normal out;
    memset(source, 'a', sizeof source);
    for (int k = 0; k < 2; k++) {
        lore_normalizer *n;
        lore_buf text;
        lore_arena_init(&arena, 0);
        lore_buf_init(&text, 0);
        lore_buf_append(&text, LORE_STR("{\"type\":\"Sequence\",\"normalizers\":["));
        append_replace(&text, "a", contents[k]);
        for (int i = 0; i < LORE_NORMALIZE_STAGES_MAX - 2; i++) {
            append_replace(&text, i % 2 == 0 ? "b" : "c", i % 2 == 0 ? "c" : "b");
        }
        lore_buf_append(&text, LORE_STR("{\"type\":\"NFC\"}]}"));
        CHECK_OK(parse(lore_buf_c(&text), &n, &err), &err);
        lore_status status =
            lore_normalize(n, (lore_str){source, sizeof source}, 0, &arena, &out, &err);
        if (k == 0) {
            CHECK_OK(status, &err);
            CHECK_INT(out.text.len, sizeof source);
        } else {
            CHECK_FAILS(status, LORE_ERR_LIMIT, &err, "normalizer stage 7 (Replace)");
            CHECK(arena.used_bytes < 1000 * sizeof source);
        }
        lore_buf_destroy(&text);
        lore_arena_destroy(&arena);
    }
}

TEST(a_hostile_expression_is_named)
{
    enum { SIZE = 1 << 20 };
    lore_error err;
    lore_normalizer *n;
    lore_normal out;
    lore_arena_init(&arena, 0);
    char *text = lore_arena_push(&arena, SIZE);
    CHECK(text != NULL);
    memset(text, 'a', SIZE);
    CHECK_OK(parse("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a{0,900}a{0,900}b\"},"
                   "\"content\":\"\"}",
                   &n, &err),
             &err);
    CHECK_FAILS(lore_normalize(n, (lore_str){text, SIZE}, 0, &arena, &out, &err), LORE_ERR_LIMIT,
                &err,
                "stage 1 (Replace): the regular expression 'a{0,900}a{0,900}b' takes too long");
    lore_arena_destroy(&arena);
}

TEST(from_a_spec)
{
    static charsmap_fixture f;
    static const char *const pairs[] = {"A", "a", NULL};
    lore_error err;
    lore_normalizer *n;
    lore_normal out;
    lore_arena_init(&arena, 0);
    fixture_make(&f, pairs);
    lore_normalizer_spec spec = {fixture_blob(&f), true, true, true};
    CHECK_OK(lore_normalizer_from_spec(&spec, &arena, &n, &err), &err);
    CHECK_OK(lore_normalize(n, LORE_STR("  A"), 5, &arena, &out, &err), &err);
    CHECK_STR(out.text, "\xe2\x96\x81"
                        "a");
    CHECK_INT(out.origin[0], 7);
    spec.charsmap = LORE_STR("x");
    CHECK_FAILS(lore_normalizer_from_spec(&spec, &arena, &n, &err), LORE_ERR_CORRUPT, &err, "trie");
    lore_arena_destroy(&arena);
}

TEST(memory_runs_out)
{
    lore_error err;
    lore_status status = LORE_ERR_NOMEM;
    for (int64_t n = 1; status != LORE_OK; n++) {
        lore_normalizer *chain;
        lore_normal out;
        lore_json *root;
        lore_arena_init(&arena, 0);
        CHECK_OK(lore_json_parse(
                     LORE_STR("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
                              "\"prepend\":\"x\"},{\"type\":\"NFKD\"},{\"type\":\"Replace\","
                              "\"pattern\":{\"Regex\":\"[a-b]+\"},\"content\":\"yyyyyyyy\"}]}"),
                     64, &root, &err),
                 &err);
        lore_mem_fail_at(n, true);
        status = lore_normalizer_parse(root, &arena, &chain, &err);
        if (status == LORE_OK) {
            status = lore_normalize(chain, LORE_STR("\xc3\xa9 a b c d e a"), 0, &arena, &out, &err);
        }
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
        lore_json_free(root);
        lore_arena_destroy(&arena);
    }
}

CHECK_MAIN(stages_run_in_order, bert_flags, nothing_to_do, bad_nodes_are_refused, growth_is_limited,
           work_is_limited, a_hostile_expression_is_named, from_a_spec, memory_runs_out)
