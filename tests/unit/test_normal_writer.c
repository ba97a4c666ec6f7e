/* A writer copies nothing until a byte differs, keeps no origins until one is out of place, and
 * knows where every byte came from. */
#include "models/normal_writer_int.h"
#include "tests/check.h"

static lore_arena arena;

static lore_normal_writer writer(lore_str text)
{
    lore_arena_init(&arena, 0);
    return (lore_normal_writer){.in = {text, NULL}, .base = 100, .cap = 1 << 20, .arena = &arena};
}

static lore_normal finish(lore_normal_writer *w)
{
    lore_error err;
    lore_normal out;
    CHECK_OK(lore_normal_finish(w, &out, &err), &err);
    return out;
}

TEST(the_same_text_is_the_same_bytes)
{
    lore_str text = LORE_STR("na\xc3\xafve");
    lore_normal_writer w = writer(text);
    lore_normal_copy(&w, 0, 2);
    lore_normal_put_character(&w, 0xEF, 2, 2);
    lore_normal_copy(&w, 4, 1);
    lore_normal out = finish(&w);
    CHECK(out.text.ptr == text.ptr);
    CHECK_INT((int)out.text.len, 5);
    CHECK(out.origin == NULL);
    CHECK_INT((int)arena.used_bytes, 0);
    lore_arena_destroy(&arena);
}

TEST(as_long_as_it_was)
{
    lore_normal_writer w = writer(LORE_STR("aBc"));
    lore_normal_copy(&w, 0, 1);
    lore_normal_put_character(&w, 'b', 1, 1);
    lore_normal_copy(&w, 2, 1);
    lore_normal out = finish(&w);
    CHECK_STR(out.text, "abc");
    CHECK(out.origin == NULL);
    lore_arena_destroy(&arena);
}

TEST(origins)
{
    lore_normal_writer w = writer(LORE_STR("a b"));
    lore_normal_put(&w, LORE_STR("\xe2\x96\x81"), 0, 0);
    lore_normal_copy(&w, 0, 1);
    lore_normal_put(&w, LORE_STR("\xe2\x96\x81"), 1, 1);
    lore_normal_copy(&w, 2, 1);
    lore_normal out = finish(&w);
    static const uint32_t wanted[] = {100, 100, 100, 100, 101, 101, 101, 102};
    CHECK_STR(out.text, "\xe2\x96\x81"
                        "a\xe2\x96\x81"
                        "b");
    for (size_t i = 0; i < 8; i++) {
        CHECK_INT(out.origin[i], wanted[i]);
    }
    lore_normal_writer next = {.in = out, .base = 100, .cap = 1 << 20, .arena = &arena};
    lore_normal_copy(&next, 3, 5); /* the second stage hands origins on */
    lore_normal last = finish(&next);
    CHECK_INT((int)last.text.len, 5);
    CHECK_INT(last.origin[1], 101);
    CHECK_INT(last.origin[4], 102);
    lore_arena_destroy(&arena);
}

TEST(walk_takes_places)
{
    lore_normal_writer w = writer(LORE_STR("xyz"));
    lore_normal_walk walk = {.w = &w};
    lore_normal_emit(&walk, 'a', -1); /* for x, drops y */
    lore_normal_emit(&walk, 'b', 1);  /* follows what came last: y */
    lore_normal_emit(&walk, 'c', 0);
    lore_normal_emit(&walk, -0xFF, 0); /* nothing is left: from the last byte */
    lore_normal out = finish(&w);
    static const uint32_t wanted[] = {100, 101, 102, 102};
    CHECK_STR(out.text, "abc\xff");
    for (size_t i = 0; i < 4; i++) {
        CHECK_INT(out.origin[i], wanted[i]);
    }
    lore_arena_destroy(&arena);
}

TEST(trimmed_and_limited)
{
    lore_error err;
    lore_normal out;
    lore_normal_writer w = writer(LORE_STR("a  "));
    lore_normal_copy(&w, 0, 3);
    lore_normal_trim(&w, LORE_STR(" "));
    CHECK_STR(finish(&w).text, "a");
    w.cap = 3;
    lore_normal_put(&w, LORE_STR("xyz"), 1, 1);
    CHECK_FAILS(lore_normal_finish(&w, &out, &err), LORE_ERR_LIMIT, &err, "limit of 3 bytes");
    lore_arena_destroy(&arena);
}

TEST(decoding)
{
    size_t at = 0;
    lore_str text = LORE_STR("\xc3\xa9\xff\xef\xbf\xbd");
    CHECK_INT(lore_normal_next(text, &at), 0xE9);
    CHECK_INT(lore_normal_next(text, &at), -0xFF);
    CHECK_INT(lore_normal_next(text, &at), 0xFFFD);
    CHECK_INT((int)lore_normal_ascii(LORE_STR("0123456789\xff"), 1), 9);
    CHECK_INT((int)lore_normal_ascii(text, 0), 0);
}

CHECK_MAIN(the_same_text_is_the_same_bytes, as_long_as_it_was, origins, walk_takes_places,
           trimmed_and_limited, decoding)
