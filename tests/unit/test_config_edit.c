/* Members of a configuration are changed, taken out and added; all others stay letter by letter. */
#include "tests/check.h"

#include "models/config_edit_int.h"

static void edited(const char *text, const lore_config_edit *edits, int32_t count,
                   const char *wanted)
{
    lore_buf out;
    lore_error err = {0};
    lore_buf_init(&out, 0);
    CHECK_OK(lore_config_edit_text(lore_str_from(text), "c.json", edits, count, &out, &err), &err);
    CHECK_STR(lore_buf_str(&out), wanted);
    lore_buf_destroy(&out);
}

TEST(members_are_edited)
{
    const lore_config_edit edits[] = {{"a", LORE_STR("false"), true},
                                      {"gone", {NULL, 0}, false},
                                      {"dtype", LORE_STR("\"float16\""), false}};
    edited("{\"a\": true, \"x\": 1.0, \"gone\": {\"a\": [1, {\"b\": \"}\"}]}, \"y\": 1e-06}", edits,
           3, "{\n  \"a\": false,\n  \"x\": 1.0,\n  \"y\": 1e-06\n}\n");
    edited(" { \"dtype\" : \"bfloat16\" ,\n\"s\":\"\\\"a\\\": {,\" }\n", edits, 3,
           "{\n  \"dtype\": \"float16\",\n  \"s\": \"\\\"a\\\": {,\",\n  \"a\": false\n}\n");
    edited("{\"a\\\"b\": 1, \"x\": \"\\\",\"}", edits + 1, 2,
           "{\n  \"a\\\"b\": 1,\n  \"x\": \"\\\",\"\n}\n");
    edited("{\"g\\u006fne\": 1, \"\\u0061\": 2}", edits, 2, "{\n  \"\\u0061\": false\n}\n");
    edited("{\"gone\": 1}", edits + 1, 1, "{\n}\n");
    edited("{}", edits, 1, "{\n  \"a\": false\n}\n");
    edited("\xef\xbb\xbf{\"l\": [{}, {\"a\": 1}], \"n\": null}", edits, 1,
           "{\n  \"l\": [{}, {\"a\": 1}],\n  \"n\": null,\n  \"a\": false\n}\n");
    edited("{\"k\": \"\\\\\", \"m\": 2}", NULL, 0, "{\n  \"k\": \"\\\\\",\n  \"m\": 2\n}\n");
}

TEST(what_is_no_object_is_refused)
{
    lore_buf out;
    lore_error err = {0};
    lore_buf_init(&out, 0);
    CHECK_FAILS(lore_config_edit_text(LORE_STR("[1]"), "c.json", NULL, 0, &out, &err),
                LORE_ERR_CORRUPT, &err, "'c.json' must hold an object");
    CHECK_FAILS(lore_config_edit_text(LORE_STR("{\"a\": }"), "c.json", NULL, 0, &out, &err),
                LORE_ERR_CORRUPT, &err, "'c.json'");
    lore_buf_destroy(&out);
}

CHECK_MAIN(members_are_edited, what_is_no_object_is_refused)
