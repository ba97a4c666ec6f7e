/* Proves the slice functions at their edges (empty, NULL, embedded NUL) and the buffer at its cap
 * and under failing allocations. */
#include "tests/check.h"

#include "base/str.h"

static const lore_str empty = {NULL, 0};

TEST(compares)
{
    CHECK(lore_str_equal(empty, LORE_STR("")));
    CHECK(lore_str_equal(LORE_STR("a\0b"), LORE_STR("a\0b")));
    CHECK(!lore_str_equal(LORE_STR("a\0b"), LORE_STR("a\0c")));
    CHECK(lore_str_equal_nocase(LORE_STR("Content-Type"), LORE_STR("cONTENT-tYPE")));
    CHECK(!lore_str_equal_nocase(LORE_STR("\xC3\x84"), LORE_STR("\xC3\xA4"))); /* ASCII only */
    CHECK(!lore_str_equal_nocase(LORE_STR("[a"), LORE_STR("{a")));
    CHECK(lore_str_compare(empty, empty) == 0);
    CHECK(lore_str_compare(LORE_STR("a"), LORE_STR("ab")) < 0);
    CHECK(lore_str_compare(LORE_STR("b"), LORE_STR("ab")) > 0);
    CHECK(lore_str_compare(LORE_STR("\x80"), LORE_STR("a")) > 0);
    CHECK(lore_str_starts(LORE_STR("abc"), LORE_STR("ab")));
    CHECK(lore_str_starts(LORE_STR("abc"), empty));
    CHECK(!lore_str_starts(LORE_STR("ab"), LORE_STR("abc")));
    CHECK(lore_str_ends(LORE_STR("abc"), LORE_STR("bc")));
    CHECK(!lore_str_ends(LORE_STR("bc"), LORE_STR("abc")));
    CHECK(lore_str_hash(LORE_STR("a")) == 0xAF63DC4C8601EC8Cu); /* published FNV-1a value */
}

TEST(finds)
{
    lore_str s = LORE_STR("abcabc");
    CHECK_INT(lore_str_find(s, LORE_STR("bc"), 0), 1);
    CHECK_INT(lore_str_find(s, LORE_STR("bc"), 2), 4);
    CHECK(lore_str_find(s, LORE_STR("bc"), 5) == SIZE_MAX);
    CHECK(lore_str_find(s, LORE_STR("a"), 7) == SIZE_MAX);
    CHECK_INT(lore_str_find(s, empty, 6), 6);
    CHECK(lore_str_find(empty, LORE_STR("a"), 0) == SIZE_MAX);
    CHECK_INT(lore_str_find(empty, empty, 0), 0);
    CHECK_INT(lore_str_find(LORE_STR("a\0b"), LORE_STR("\0b"), 0), 1);
}

TEST(slices_and_trims)
{
    CHECK_STR(lore_str_slice(LORE_STR("abc"), 1, 3), "bc");
    CHECK_STR(lore_str_slice(empty, 0, 0), "");
    CHECK_STR(lore_str_trim(LORE_STR(" \t\r\n a b \v\f")), "a b");
    CHECK_STR(lore_str_trim(LORE_STR("  ")), "");
    CHECK_STR(lore_str_trim(empty), "");
    CHECK_STR(lore_str_from(NULL), "");
}

TEST(takes_lines)
{
    lore_str rest = LORE_STR("one\r\ntwo\n\nfour\rfive\n\r\nlast\r");
    const char *expected[] = {"one", "two", "", "four\rfive", "", "last\r"};
    lore_str line;
    for (int i = 0; i < 6; i++) {
        CHECK(lore_str_next_line(&rest, &line));
        CHECK_STR(line, expected[i]);
    }
    CHECK(!lore_str_next_line(&rest, &line));
    lore_str ended = LORE_STR("x\n"); /* a newline ends a line, it does not begin one */
    CHECK(lore_str_next_line(&ended, &line));
    CHECK(!lore_str_next_line(&ended, &line));
}

TEST(reads_integers)
{
    int64_t value = 5;
    CHECK(lore_str_to_int64(LORE_STR("9223372036854775807"), &value) && value == INT64_MAX);
    CHECK(lore_str_to_int64(LORE_STR("-9223372036854775808"), &value) && value == INT64_MIN);
    CHECK(lore_str_to_int64(LORE_STR("-0"), &value) && value == 0);
    CHECK(lore_str_to_int64(LORE_STR("007"), &value) && value == 7);
    const char *wrong[] = {"",
                           "-",
                           "+1",
                           " 1",
                           "1 ",
                           "1.0",
                           "0x1",
                           "9223372036854775808",
                           "-9223372036854775809",
                           "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(!lore_str_to_int64(lore_str_from(wrong[i]), &value));
    }
    CHECK_INT(value, 7);
}

TEST(copies)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_str copy = lore_str_copy(&arena, LORE_STR("a\0b"));
    CHECK_INT(copy.len, 3);
    CHECK_INT(copy.ptr[3], 0);
    CHECK(lore_str_copy(&arena, empty).ptr != NULL);
    CHECK_STR(lore_str_printf(&arena, "%s-%d", "x", 5), "x-5");
    CHECK_STR(lore_str_from(lore_str_to_c(&arena, LORE_STR("abc"))), "abc");
    arena.cap_bytes = arena.used_bytes;
    CHECK(lore_str_copy(&arena, LORE_STR("a")).ptr == NULL);
    CHECK(lore_str_printf(&arena, "x").ptr == NULL);
    lore_arena_destroy(&arena);
}

TEST(buffer_grows)
{
    lore_buf buf;
    lore_buf_init(&buf, 0);
    CHECK_STR(lore_buf_str(&buf), "");
    CHECK_STR(lore_str_from(lore_buf_c(&buf)), "");
    for (int i = 0; i < 1000; i++) {
        lore_buf_printf(&buf, "%d,", i);
        lore_buf_byte(&buf, '\0');
        lore_buf_append(&buf, empty);
    }
    CHECK_INT(buf.len, 10 + 90 * 2 + 900 * 3 + 2000);
    CHECK(!lore_buf_failed(&buf));
    size_t room = buf.room;
    lore_buf_reset(&buf);
    CHECK_INT(buf.room, room);
    lore_buf_printf(&buf, "%5000s|", "x"); /* longer than any room so far */
    CHECK_INT(buf.len, 5001);
    CHECK_INT(lore_buf_c(&buf)[5001], 0);
    lore_buf_destroy(&buf);
    for (int length = 60; length < 70; length++) { /* around the first allocation */
        lore_buf_printf(&buf, "%*s", length, "x");
        CHECK_INT(buf.len, length);
        CHECK_INT(lore_buf_c(&buf)[length - 1], 'x');
        lore_buf_destroy(&buf);
    }
    lore_buf_destroy(&buf);
    lore_buf_destroy(NULL);
}

TEST(buffer_stops_at_its_cap)
{
    for (int way = 0; way < 3; way++) {
        lore_buf buf;
        lore_buf_init(&buf, 100);
        for (int i = 0; i < 100; i++) {
            lore_buf_byte(&buf, 'x');
        }
        CHECK(!lore_buf_failed(&buf));
        CHECK_INT(lore_buf_c(&buf)[100], 0);
        if (way == 0) {
            lore_buf_byte(&buf, 'y');
        } else if (way == 1) {
            lore_buf_printf(&buf, "%s", "y");
        } else {
            CHECK(!lore_buf_reserve(&buf, SIZE_MAX));
        }
        CHECK(lore_buf_failed(&buf));
        CHECK_INT(buf.len, 100);
        lore_buf_append(&buf, LORE_STR("z"));
        CHECK_INT(buf.len, 100);
        CHECK_STR(lore_str_from(lore_buf_c(&buf)), "");
        lore_buf_reset(&buf);
        lore_buf_append(&buf, LORE_STR("again"));
        CHECK_STR(lore_buf_str(&buf), "again");
        lore_buf_destroy(&buf);
    }
}

static lore_status fill_buffer(void *self)
{
    (void)self;
    lore_buf buf;
    lore_buf_init(&buf, 0);
    for (int i = 0; i < 200; i++) {
        lore_buf_printf(&buf, "line %d\n", i);
        lore_buf_append(&buf, LORE_STR("more"));
    }
    lore_status status = lore_buf_failed(&buf) ? LORE_ERR_NOMEM : LORE_OK;
    lore_buf_destroy(&buf);
    return status;
}

TEST(buffer_survives_failures)
{
    check_alloc_sweep(fill_buffer, NULL);
}

TEST(reads_digits_and_base64)
{
    static const char *const REFUSED[] = {"Y", "YQ", "YQ=", "Y===", "=", "====", "Yg=1", "Y!=="};
    char out[16];
    size_t size = 0;
    CHECK_INT(lore_hex_digit('0'), 0);
    CHECK_INT(lore_hex_digit('f'), 15);
    CHECK_INT(lore_hex_digit('A'), 10);
    CHECK(lore_hex_digit('g') < 0 && lore_hex_digit('@') < 0 && lore_hex_digit('\0') < 0);
    CHECK(lore_str_from_base64(LORE_STR("aGVsbG8="), out, &size)); /* RFC 4648, section 10's way */
    CHECK_STR(((lore_str){out, size}), "hello");
    CHECK(lore_str_from_base64(LORE_STR("+/8B"), out, &size));
    CHECK_STR(((lore_str){out, size}), "\xfb\xff\x01");
    CHECK(lore_str_from_base64(empty, out, &size));
    CHECK_INT(size, 0);
    for (size_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
        CHECK(!lore_str_from_base64(lore_str_from(REFUSED[i]), out, &size));
    }
}

CHECK_MAIN(compares, finds, slices_and_trims, takes_lines, reads_integers, copies,
           reads_digits_and_base64, buffer_grows, buffer_stops_at_its_cap, buffer_survives_failures)
