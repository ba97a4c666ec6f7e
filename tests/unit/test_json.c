/* Proves the grammar by what is taken and what is refused, the limits, the typed getters with their
 * messages, and that the writer's text reads back. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/json.h"

static lore_json *parsed(const char *text)
{
    lore_json *root = NULL;
    lore_error err;
    CHECK_OK(lore_json_parse(lore_str_from(text), 32, &root, &err), &err);
    return root;
}

/* The compact text of what was parsed. */
static void check_reprint(const char *text, const char *expected)
{
    lore_buf out;
    lore_error err;
    lore_buf_init(&out, 0);
    lore_json *root = parsed(text);
    CHECK_OK(lore_json_print(root, &out, &err), &err);
    CHECK_STR(lore_buf_str(&out), expected);
    lore_json_free(root);
    lore_buf_destroy(&out);
}

TEST(takes_valid_text)
{
    check_reprint(" {\"a\" : [1, -2.5e3,\ttrue,false ,null,\"x\"], \"b\":{}, \"c\":[ ] }\r\n",
                  "{\"a\":[1,-2500,true,false,null,\"x\"],\"b\":{},\"c\":[]}");
    check_reprint("\"\\u00e4\\ud83d\\ude00\\n\\/\\\"\\\\\"",
                  "\"\xC3\xA4\xF0\x9F\x98\x80\\n/\\\"\\\\\"");
    check_reprint("\xEF\xBB\xBF[0]", "[0]");
    check_reprint("0.1", "0.1");
    check_reprint("1e-7", "1e-07");
    check_reprint("9007199254740992", "9007199254740992");
    check_reprint("0.30000000000000004", "0.30000000000000004");
    check_reprint("-0", "0");
    check_reprint("\"\\u007f\\u0001\"", "\"\\u007f\\u0001\"");
    lore_json_free(NULL);
}

TEST(refuses_invalid_text)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"", "at byte 0: expected a value"},
        {"  ", "at byte 2: expected a value"},
        {"{", "at byte 1: expected a string"},
        {"[1,]", "at byte 3: expected a value"},
        {"[1 2]", "at byte 3: expected ',' or ']'"},
        {"{\"a\":1,}", "at byte 7: expected a string"},
        {"{\"a\" 1}", "at byte 5: expected ':'"},
        {"{\"a\":1]", "at byte 6: expected ',' or '}'"},
        {"{a:1}", "at byte 1: expected a string"},
        {"[1}", "expected ',' or ']'"},
        {"01", "at byte 1: unexpected text"},
        {"+1", "expected a value"},
        {".5", "expected a value"},
        {"1.", "expected a digit"},
        {"1e", "expected a digit"},
        {"-", "expected a value"},
        {"NaN", "expected a value"},
        {"tru", "expected a value"},
        {"truex", "unexpected text"},
        {"1 2", "at byte 2: unexpected text"},
        {"{} x", "at byte 3: unexpected text"},
        {"'a'", "expected a value"},
        {"\"a", "does not end"},
        {"\"a\\", "unknown escape"},
        {"\"\\x\"", "unknown escape"},
        {"\"\\u12g4\"", "hexadecimal"},
        {"\"\\u00\"", "hexadecimal"},
        {"\"a\\u0000b\"", "\\u0000"},
        {"\"\\ud800\"", "high surrogate"},
        {"\"\\ud800x\"", "high surrogate"},
        {"\"\\ud800\\u0041\"", "high surrogate"},
        {"\"\\udc00\"", "low surrogate"},
        {"\"a\nb\"", "control character"},
        {"\"\xFF\"", "at byte 1: not valid UTF-8"},
        {"\"\xED\xA0\x80\"", "not valid UTF-8"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "duplicate key 'a'"},
        {"{\"a\":1,\"\\u0061\":3}", "duplicate key 'a'"},
        {"[{\"x\":{\"k\":1,\"k\":1}}]", "duplicate key 'k'"},
        {"1e999", "out of range"},
        {"[-1e999]", "out of range"},
        {"/* x */ 1", "expected a value"},
        {"1111111111111111111111111111111111111111111111111111111111111111", "63 characters"},
    };
    lore_error err;
    lore_json *root = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_FAILS(lore_json_parse(lore_str_from(cases[i].text), 32, &root, &err),
                    LORE_ERR_INVALID, &err, cases[i].message);
    }
    CHECK_FAILS(lore_json_parse(LORE_STR("[1]\0"), 32, &root, &err), LORE_ERR_INVALID, &err,
                "at byte 3");
    CHECK_FAILS(lore_json_parse(LORE_STR("\"a\0\""), 32, &root, &err), LORE_ERR_INVALID, &err,
                "control character");
    CHECK_FAILS(lore_json_parse((lore_str){NULL, 0}, 32, &root, &err), LORE_ERR_INVALID, &err, "");
    CHECK(root == NULL);
}

TEST(bounds_depth)
{
    lore_buf text;
    lore_error err;
    lore_buf_init(&text, 0);
    for (int i = 0; i < LORE_JSON_DEPTH_MAX; i++) {
        lore_buf_append(&text, i % 2 == 0 ? LORE_STR("[") : LORE_STR("{\"a\":"));
    }
    lore_buf_append(&text, LORE_STR("1"));
    for (int i = LORE_JSON_DEPTH_MAX - 1; i >= 0; i--) {
        lore_buf_byte(&text, i % 2 == 0 ? ']' : '}');
    }
    lore_json *root = NULL;
    CHECK_FAILS(lore_json_parse(lore_buf_str(&text), LORE_JSON_DEPTH_MAX - 1, &root, &err),
                LORE_ERR_LIMIT, &err, "999 levels");
    CHECK_OK(lore_json_parse(lore_buf_str(&text), LORE_JSON_DEPTH_MAX, &root, &err), &err);
    lore_buf out;
    lore_buf_init(&out, 0);
    CHECK_OK(lore_json_print(root, &out, &err), &err);
    CHECK(lore_str_equal(lore_buf_str(&out), lore_buf_str(&text)));
    lore_json_free(root);
    lore_buf_destroy(&text);
    lore_buf_destroy(&out);
    root = NULL;
    CHECK_OK(lore_json_parse(LORE_STR("[[1],[[]]]"), 3, &root, &err), &err);
    lore_json_free(root);
    root = NULL;
    CHECK_FAILS(lore_json_parse(LORE_STR("[[1],[[]]]"), 2, &root, &err), LORE_ERR_LIMIT, &err,
                "byte 6");
}

/* Large objects take another way to find duplicates than small ones. */
TEST(finds_duplicates_among_many_keys)
{
    for (int duplicate = 0; duplicate < 2; duplicate++) {
        lore_buf text;
        lore_error err;
        lore_buf_init(&text, 0);
        for (int i = 0; i < 5000; i++) {
            lore_buf_printf(&text, "%s\"key%d\":%d", i == 0 ? "{" : ",", i, i);
        }
        lore_buf_printf(&text, ",\"%s\":0}", duplicate ? "key777" : "other");
        lore_json *root = NULL;
        lore_status status = lore_json_parse(lore_buf_str(&text), 32, &root, &err);
        CHECK_INT(status, duplicate ? LORE_ERR_INVALID : LORE_OK);
        CHECK(!duplicate || strstr(err.message, "duplicate key 'key777'") != NULL);
        CHECK_INT(lore_json_count(root), duplicate ? 0 : 5001);
        lore_json_free(root);
        lore_buf_destroy(&text);
    }
}

TEST(walks)
{
    lore_json *root = parsed("{\"s\":\"t\",\"n\":1.5,\"b\":true,\"z\":null,\"l\":[1,2],\"S\":2}");
    CHECK(lore_json_is_object(root) && !lore_json_is_array(root));
    CHECK_INT(lore_json_count(root), 6);
    CHECK(lore_json_is_string(lore_json_get(root, "s")));
    CHECK_STR(lore_json_str(lore_json_get(root, "s")), "t");
    CHECK_INT(lore_json_number(lore_json_get(root, "S")), 2);
    CHECK(lore_json_is_number(lore_json_get(root, "n")));
    CHECK(lore_json_is_bool(lore_json_get(root, "b")) && lore_json_bool(lore_json_get(root, "b")));
    CHECK(lore_json_is_null(lore_json_get(root, "z")));
    CHECK(lore_json_is_array(lore_json_get(root, "l")));
    CHECK(lore_json_get(root, "none") == NULL && lore_json_get(NULL, "none") == NULL);
    CHECK_STR(lore_json_str(lore_json_get(root, "n")), "");
    CHECK_STR(lore_json_key(lore_json_first(root)), "s");
    CHECK_STR(lore_json_key(lore_json_next(lore_json_first(root))), "n");
    CHECK(lore_json_first(NULL) == NULL && lore_json_next(NULL) == NULL);
    CHECK(!lore_json_is_object(NULL) && !lore_json_is_null(NULL) && !lore_json_bool(NULL));
    CHECK_STR(lore_json_key(root), "");
    lore_json_free(root);
}

TEST(gets_typed_members)
{
    lore_json *root = parsed("{\"s\":\"t\",\"i\":7,\"f\":1.5,\"b\":true,\"z\":null,\"big\":1e300,"
                             "\"edge\":9007199254740993}");
    lore_error err;
    lore_str s = LORE_STR("default");
    int64_t i = -1;
    double f = -1;
    bool b = false;
    CHECK_OK(lore_json_get_str(root, "", "none", &s, &err), &err);
    CHECK_OK(lore_json_get_str(root, "", "z", &s, &err), &err);
    CHECK_STR(s, "default");
    CHECK_OK(lore_json_get_str(root, "", "s", &s, &err), &err);
    CHECK_STR(s, "t");
    CHECK_FAILS(lore_json_get_str(root, "", "i", &s, &err), LORE_ERR_INVALID, &err,
                "i must be a string");
    CHECK_FAILS(lore_json_get_str(root, "history[2]", "i", &s, &err), LORE_ERR_INVALID, &err,
                "history[2].i must be a string");
    CHECK_FAILS(lore_json_get_str_required(root, "", "none", &s, &err), LORE_ERR_INVALID, &err,
                "none is required");
    CHECK_FAILS(lore_json_get_str_required(root, "a", "z", &s, &err), LORE_ERR_INVALID, &err,
                "a.z is required");
    CHECK_OK(lore_json_get_int(root, "", "i", 0, 7, &i, &err), &err);
    CHECK_INT(i, 7);
    CHECK_FAILS(lore_json_get_int(root, "", "i", 0, 6, &i, &err), LORE_ERR_INVALID, &err,
                "i must be an integer from 0 to 6");
    CHECK_FAILS(lore_json_get_int(root, "", "f", 0, 6, &i, &err), LORE_ERR_INVALID, &err,
                "f must be an integer");
    CHECK_FAILS(lore_json_get_int(root, "", "s", 0, 6, &i, &err), LORE_ERR_INVALID, &err,
                "s must be an integer");
    CHECK_FAILS(lore_json_get_int(root, "", "big", 0, INT64_MAX, &i, &err), LORE_ERR_INVALID, &err,
                "big must be");
    CHECK_FAILS(lore_json_get_int_required(root, "", "z", 0, 6, &i, &err), LORE_ERR_INVALID, &err,
                "z is required");
    CHECK_INT(i, 7);
    CHECK_OK(lore_json_get_number(root, "", "f", 0, 2, &f, &err), &err);
    CHECK_NEAR(f, 1.5, 0);
    CHECK_FAILS(lore_json_get_number(root, "", "f", 0, 1, &f, &err), LORE_ERR_INVALID, &err,
                "from 0 to 1");
    CHECK_OK(lore_json_get_bool(root, "", "b", &b, &err), &err);
    CHECK(b);
    CHECK_FAILS(lore_json_get_bool(root, "", "i", &b, &err), LORE_ERR_INVALID, &err,
                "true or false");
    const lore_json *number = lore_json_get(root, "i");
    CHECK_FAILS(lore_json_get_str(number, "", "x", &s, &err), LORE_ERR_INVALID, &err,
                "the JSON value must be an object");
    CHECK_FAILS(lore_json_get_str(NULL, "filter", "x", &s, &err), LORE_ERR_INVALID, &err,
                "filter must be an object");
    lore_json_free(root);
}

TEST(writes)
{
    lore_buf buf;
    lore_json_writer w;
    lore_buf_init(&buf, 0);
    lore_json_write_begin(&w, &buf);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "a\"b", LORE_STR("x\n\t\r\"\\\x01\x7F\xFFz\xE4\xB8\xAD"));
    lore_json_array(&w, "list");
    lore_json_int(&w, NULL, INT64_MIN);
    lore_json_float(&w, NULL, 0.1f);
    lore_json_float(&w, NULL, (double)NAN);
    lore_json_boolean(&w, NULL, true);
    lore_json_null(&w, NULL);
    lore_json_object(&w, NULL);
    lore_json_end(&w);
    lore_json_raw(&w, NULL, LORE_STR("[1]"));
    lore_json_end(&w);
    lore_json_array(&w, "empty");
    lore_json_end(&w);
    lore_json_end(&w);
    CHECK_STR(lore_buf_str(&buf),
              "{\"a\\\"b\":\"x\\n\\t\\r\\\"\\\\\\u0001\\u007f\xEF\xBF\xBDz\xE4\xB8\xAD\","
              "\"list\":[-9223372036854775808,0.1,null,true,null,{},[1]],\"empty\":[]}");
    lore_buf_destroy(&buf);
}

TEST(floats_read_back)
{
    lore_buf buf;
    lore_buf_init(&buf, 0);
    uint64_t seed = 5;
    for (int i = 0; i < 20000; i++) {
        uint32_t bits = (uint32_t)lore_random_next(&seed);
        float value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value)) {
            continue;
        }
        lore_json_writer w;
        lore_buf_reset(&buf);
        lore_json_write_begin(&w, &buf);
        lore_json_float(&w, NULL, (double)value);
        CHECK(strtof(lore_buf_c(&buf), NULL) == value);
    }
    lore_buf_destroy(&buf);
}

static lore_status parse_and_print(void *self)
{
    lore_json *root = NULL;
    lore_buf out;
    lore_error err;
    lore_buf_init(&out, 0);
    lore_status status = lore_json_parse(lore_str_from(self), 32, &root, &err);
    if (status == LORE_OK) {
        status = lore_json_print(root, &out, &err);
    }
    lore_json_free(root);
    lore_buf_destroy(&out);
    return status;
}

TEST(survives_failures)
{
    char text[] = "{\"a\":[1,{\"b\":\"text with \\u00e4\"},null],\"c\":\"more\",\"d\":1,\"e\":1,"
                  "\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":1,\"l\":1,\"m\":1,\"n\":1,\"o\":1,"
                  "\"p\":1,\"q\":1,\"r\":1,\"s\":1}";
    check_alloc_sweep(parse_and_print, text);
}

CHECK_MAIN(takes_valid_text, refuses_invalid_text, bounds_depth, finds_duplicates_among_many_keys,
           walks, gets_typed_members, writes, floats_read_back, survives_failures)
