/* Proves the decoder against the definition for every code point and against every malformed shape,
 * the classes at known members, and the two text forms, piecewise working included. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/utf8.h"

static bool is_scalar(int32_t c)
{
    return c >= 0 && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
}

TEST(round_trips_every_code_point)
{
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        char bytes[4];
        lore_str s = {bytes, lore_utf8_encode(c, bytes)};
        int32_t expected = is_scalar(c) ? c : 0xFFFD;
        size_t at = 0;
        CHECK_INT(lore_utf8_valid(s), s.len);
        CHECK_INT(lore_utf8_next(s, &at), expected);
        CHECK_INT(at, s.len);
        CHECK_INT(lore_utf8_prev(s, &at), expected);
        CHECK_INT(at, 0);
    }
    char bytes[4];
    CHECK_INT(lore_utf8_encode(-1, bytes), 3);
    CHECK_INT(lore_utf8_encode(0x110000, bytes), 3);
}

TEST(finds_what_is_invalid)
{
    static const struct {
        const char *text;
        size_t valid;
    } cases[] = {
        {"abcdefgh\xFFij", 8},
        {"\x80", 0},
        {"a\xC3", 1},
        {"\xC0\xAF", 0},
        {"\xC1\xBF", 0},
        {"\xE0\x9F\xBF", 0},
        {"\xED\xA0\x80", 0},
        {"\xF0\x8F\xBF\xBF", 0},
        {"\xF4\x90\x80\x80", 0},
        {"\xF5\x80\x80\x80", 0},
        {"\xE4\xB8", 0},
        {"\xE4\xB8\xAD\xE4\xB8z", 3},
        {"\xC3\x28", 0},
        {"12345678\xF0\x9F\x98\x80", 12},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_INT(lore_utf8_valid(lore_str_from(cases[i].text)), cases[i].valid);
    }
    CHECK_INT(lore_utf8_valid((lore_str){NULL, 0}), 0);
    CHECK_INT(lore_utf8_valid(LORE_STR("a\0b")), 3);
}

/* Forwards and backwards through random bytes: always progress, never past an end, same count. */
TEST(walks_any_bytes)
{
    uint64_t seed = 11;
    for (int round = 0; round < 2000; round++) {
        char bytes[40];
        size_t length = (size_t)(lore_random_next(&seed) % sizeof bytes);
        for (size_t i = 0; i < length; i++) {
            static const char telling[] = "a\x80\xBF\xC3\xE4\xF0\x9F\xED\xA0";
            uint64_t draw = lore_random_next(&seed);
            bytes[i] = draw % 3 == 0 ? (char)(draw >> 8) : telling[(draw >> 8) % 9];
        }
        lore_str s = {bytes, length};
        size_t at = 0;
        while (at < s.len) {
            size_t before = at;
            lore_utf8_next(s, &at);
            CHECK(at > before && at <= s.len);
        }
        while (at > 0) {
            size_t before = at;
            lore_utf8_prev(s, &at);
            CHECK(at < before && before - at <= 4);
        }
        size_t valid = lore_utf8_valid(s);
        for (at = 0; at < valid;) {
            lore_utf8_next(s, &at);
        }
        CHECK_INT(at, valid);
    }
    CHECK_INT(lore_utf8_count(LORE_STR("a\xC3\xA4\xE4\xB8\xAD\xF0\x9F\x98\x80\xFF")), 5);
}

TEST(classifies)
{
    CHECK(lore_utf8_is_letter('a') && lore_utf8_is_letter(0x4E2D) && lore_utf8_is_letter(0x3042));
    CHECK(!lore_utf8_is_letter('1') && !lore_utf8_is_letter(' ') && !lore_utf8_is_letter(0x300));
    CHECK(lore_utf8_is_number('7') && lore_utf8_is_number(0xBD) && lore_utf8_is_number(0x2167));
    CHECK(!lore_utf8_is_number('a'));
    CHECK(lore_utf8_is_mark(0x301) && !lore_utf8_is_mark('a'));
    CHECK(lore_utf8_is_space(' ') && lore_utf8_is_space('\n') && lore_utf8_is_space(0x3000));
    CHECK(lore_utf8_is_space(0x85) && !lore_utf8_is_space(0x200B) && !lore_utf8_is_space(0x1C));
    CHECK(lore_utf8_is_upper('A') && lore_utf8_is_upper(0x416) && !lore_utf8_is_upper('a'));
    CHECK(lore_utf8_is_punct('.') && lore_utf8_is_punct(0x3002) && lore_utf8_is_punct('_'));
    CHECK(!lore_utf8_is_punct('+') && !lore_utf8_is_punct('$'));
    const int32_t cjk[] = {0x4E00, 0x9FFF, 0x3042, 0x30AB, 0x30FC,  0xAC00, 0x3105,
                           0x0E01, 0x0E87, 0x1780, 0x1000, 0x20000, 0x3005, 0xFF71};
    for (size_t i = 0; i < sizeof cjk / sizeof cjk[0]; i++) {
        CHECK(lore_utf8_is_cjk(cjk[i]));
    }
    const int32_t other[] = {'a', '1', 0x3001, 0x3002, 0xFF0C, 0xFF21, 0x416, 0x0E3F, 0x1F600};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        CHECK(!lore_utf8_is_cjk(other[i]));
    }
}

static void check_form(bool fold, const char *text, const char *expected)
{
    lore_buf out;
    lore_error err;
    lore_buf_init(&out, 0);
    lore_str s = lore_str_from(text);
    CHECK_OK(fold ? lore_utf8_fold(s, &out, &err) : lore_utf8_nfc(s, &out, &err), &err);
    CHECK_STR(lore_buf_str(&out), expected);
    lore_buf_destroy(&out);
}

TEST(folds_for_search)
{
    check_form(true, "", "");
    check_form(true, "Hello World", "hello world");
    check_form(true, "Caf\xC3\xA9 \xC3\x84RGER", "cafe arger");
    check_form(true,
               "STRA\xC3\x9F"
               "E",
               "strasse");
    check_form(true, "\xEF\xBC\xA1\xEF\xBC\x92", "a2");           /* full width A2 */
    check_form(true, "\xEF\xAC\x81le", "file");                   /* fi ligature */
    check_form(true, "\xE3\x82\xAC", "\xE3\x82\xAC");             /* ga stays ga */
    check_form(true, "\xEF\xBD\xB6\xEF\xBE\x9E", "\xE3\x82\xAC"); /* half width ka + mark */
    check_form(true, "\xED\x95\x9C\xEA\xB8\x80", "\xED\x95\x9C\xEA\xB8\x80"); /* Hangul stays */
    check_form(true, "co\xC2\xADop", "coop");                                 /* soft hyphen */
    check_form(true, "\xE0\xA4\x95\xE0\xA4\xBF", "\xE0\xA4\x95\xE0\xA4\xBF"); /* Hindi ki */
    check_form(true, "\xD0\x99\xD0\xBE\xD0\xB4", "\xD0\xB8\xD0\xBE\xD0\xB4"); /* y and yod */
    check_form(true, "\xE4\xB8\xAD\xE6\x96\x87", "\xE4\xB8\xAD\xE6\x96\x87");
}

TEST(composes)
{
    check_form(false, "e\xCC\x81", "\xC3\xA9");
    check_form(false, "a\xCC\xA3\xCC\x82", "\xE1\xBA\xAD");
    check_form(false, "a\xCC\x82\xCC\xA3", "\xE1\xBA\xAD");
    check_form(false, "\xE2\x84\xAB", "\xC3\x85");     /* angstrom sign */
    check_form(false, "\xEF\xBC\xA1", "\xEF\xBC\xA1"); /* compatibility forms stay */
    check_form(false, "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"); /* jamo */
    check_form(false, "plain", "plain");
}

/* What the quick check calls NFC is its own NFC form, alone and behind letters it could join. */
TEST(quick_check_is_right)
{
    static const char *const before[] = {
        "", "a", "E", "a\xCD\x85", "\xE1\x84\x92", "\xEA\xB0\x80", "\xE3\x81\x8B"};
    lore_buf text;
    lore_buf form;
    lore_error err;
    lore_buf_init(&text, 0);
    lore_buf_init(&form, 0);
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        char bytes[4];
        lore_str s = {bytes, lore_utf8_encode(c, bytes)};
        if (!is_scalar(c) || !lore_utf8_is_nfc(s)) {
            continue;
        }
        for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
            lore_buf_reset(&text);
            lore_buf_reset(&form);
            lore_buf_append(&text, lore_str_from(before[i]));
            lore_buf_append(&text, s);
            lore_str whole = lore_buf_str(&text);
            /* A combining mark at the end sends the text through the full form. */
            lore_buf_append(&text, LORE_STR("\xCD\x8F"));
            CHECK_OK(lore_utf8_nfc(lore_buf_str(&text), &form, &err), &err);
            CHECK(lore_str_starts(lore_buf_str(&form), whole));
        }
    }
    lore_buf_destroy(&text);
    lore_buf_destroy(&form);
}

/* A long text gives the same form as its parts: pieces must not cut between a letter and its mark.
 */
TEST(works_in_pieces)
{
    lore_buf text;
    lore_buf expected;
    lore_buf form;
    lore_error err;
    lore_buf_init(&text, 0);
    lore_buf_init(&expected, 0);
    lore_buf_init(&form, 0);
    for (int phase = 0; phase < 3; phase++) {
        lore_buf_reset(&text);
        lore_buf_reset(&expected);
        lore_buf_reset(&form);
        for (int i = 0; i < phase; i++) {
            lore_buf_byte(&text, 'x');
            lore_buf_byte(&expected, 'x');
        }
        for (int i = 0; i < 20000; i++) {
            lore_buf_append(&text, LORE_STR("e\xCC\x81"));
            lore_buf_append(&expected, LORE_STR("\xC3\xA9"));
        }
        CHECK_OK(lore_utf8_nfc(lore_buf_str(&text), &form, &err), &err);
        CHECK(lore_str_equal(lore_buf_str(&form), lore_buf_str(&expected)));
    }
    lore_buf_destroy(&text);
    lore_buf_destroy(&expected);
    lore_buf_destroy(&form);
}

static lore_status make_forms(void *self)
{
    (void)self;
    lore_buf out;
    lore_error err;
    lore_buf_init(&out, 0);
    lore_status status = lore_utf8_fold(LORE_STR("\xC3\x84RGER und mehr"), &out, &err);
    if (status == LORE_OK) {
        status = lore_utf8_nfc(LORE_STR("e\xCC\x81 und mehr"), &out, &err);
    }
    if (status == LORE_OK) {
        status = lore_utf8_nfc(LORE_STR("plain"), &out, &err);
    }
    if (status == LORE_OK) {
        status = lore_utf8_fold(LORE_STR("plain"), &out, &err);
    }
    lore_buf_destroy(&out);
    return status;
}

/* Runs of marks longer than any language has, in the worst order: what was written is sorted by
 * class and stays as it is within one, and it takes no time. */
TEST(orders_long_runs_of_marks)
{
    enum { PAIRS = 200000 };
    lore_buf text, out, expected;
    lore_error err = {0};
    lore_buf_init(&text, 0);
    lore_buf_init(&out, 0);
    lore_buf_init(&expected, 0);
    lore_buf_append(&text, LORE_STR("q"));
    lore_buf_append(&expected, LORE_STR("q"));
    for (int i = 0; i < PAIRS; i++) { /* classes 230, 220, 230: two of one class keep their order */
        lore_buf_append(&text, LORE_STR("\xCC\x81\xCC\xA3\xCC\x80"));
    }
    for (int i = 0; i < PAIRS; i++) {
        lore_buf_append(&expected, LORE_STR("\xCC\xA3"));
    }
    for (int i = 0; i < PAIRS; i++) {
        lore_buf_append(&expected, LORE_STR("\xCC\x81\xCC\x80"));
    }
    int64_t start = lore_clock_ns();
    CHECK_OK(lore_utf8_nfc(lore_buf_str(&text), &out, &err), &err);
    CHECK(lore_clock_ns() - start < INT64_C(2000000000)); /* by exchanging neighbours: an hour */
    CHECK(lore_str_equal(lore_buf_str(&out), lore_buf_str(&expected)));
    lore_buf_destroy(&text);
    lore_buf_destroy(&out);
    lore_buf_destroy(&expected);
}

TEST(survives_failures)
{
    check_alloc_sweep(make_forms, NULL);
}

TEST(parts_of_forms)
{
    int32_t parts[LORE_UTF8_DECOMPOSED_MAX], state = 0;
    CHECK_INT((int)lore_utf8_decompose(0x1E69, false, parts), 3);
    CHECK_INT(parts[0], 's');
    CHECK_INT(parts[2], 0x307);
    CHECK_INT((int)lore_utf8_decompose(0xFB01, false, parts), 1);
    CHECK_INT((int)lore_utf8_decompose(0xFB01, true, parts), 2);
    CHECK_INT((int)lore_utf8_decompose(0xFDFA, true, parts), LORE_UTF8_DECOMPOSED_MAX);
    CHECK_INT((int)lore_utf8_decompose(0xAC01, false, parts), 3);
    CHECK_INT((int)lore_utf8_decompose(0x110000, false, parts), 1);
    CHECK_INT(lore_utf8_compose('e', 0x301), 0xE9);
    CHECK_INT(lore_utf8_compose(0x1100, 0x1161), 0xAC00);
    CHECK_INT(lore_utf8_compose('q', 0x301), -1);
    CHECK_INT(lore_utf8_combining_class(0x301), 230);
    CHECK_INT(lore_utf8_combining_class('a'), 0);
    CHECK(lore_utf8_is_inert(0x4E00));
    CHECK(!lore_utf8_is_inert('e'));
    CHECK(!lore_utf8_is_inert(0xAC00));
    CHECK(lore_utf8_is_nonspacing(0x301));
    CHECK(!lore_utf8_is_nonspacing(0x903));
    CHECK(lore_utf8_is_control(0xAD));
    CHECK(!lore_utf8_is_control('a'));
    CHECK_INT(lore_utf8_lower(0xC9), 0xE9);
    CHECK(!lore_utf8_is_grapheme_break('e', 0x301, &state));
    state = 0;
    CHECK(lore_utf8_is_grapheme_break('e', 'f', &state));
}

/* The table of what joins holds every starter that the library's composites are made of. */
TEST(what_composes_is_not_inert)
{
    int32_t composites = 0;
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        int32_t parts[LORE_UTF8_DECOMPOSED_MAX];
        size_t count = lore_utf8_decompose(c, false, parts);
        int32_t whole = parts[0];
        for (size_t i = 1; i < count && whole >= 0; i++) {
            whole = lore_utf8_compose(whole, parts[i]);
        }
        bool is_changed = count > 1 || parts[0] != c;
        CHECK(!is_changed || !lore_utf8_is_inert(c));
        for (size_t i = 0; i < count && count > 1 && whole == c; i++) {
            CHECK(!lore_utf8_is_inert(parts[i]));
        }
        composites += count > 1 && whole == c;
    }
    CHECK(composites > 12000); /* Hangul and some 940 */
}

CHECK_MAIN(what_composes_is_not_inert, parts_of_forms, orders_long_runs_of_marks,
           round_trips_every_code_point, finds_what_is_invalid, walks_any_bytes, classifies,
           folds_for_search, composes, quick_check_is_right, works_in_pieces, survives_failures)
