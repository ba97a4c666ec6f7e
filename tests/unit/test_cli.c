/* Flags are parsed in all their forms and refused by name; wrapped text breaks where it may,
 * whatever pieces it comes in, and cannot steer a terminal. The files are included: cli/ is a
 * program, not a library. */
#include "cli/flags.c"
#include "cli/wrap.c"

#include "tests/check.h"

typedef struct taken {
    bool is_loud;
    const char *name;
    int64_t count;
    double heat;
    lore_flag_list many;
} taken;

static lore_status parse(taken *to, lore_arena *arena, lore_flag_list *others, bool stops,
                         int32_t *used, lore_error *err, const char *const *words, int32_t count)
{
    const lore_flag flags[] = {
        {"loud", 'l', LORE_FLAG_SWITCH, &to->is_loud, NULL, "loudly", 0, 0},
        {"name", 'n', LORE_FLAG_TEXT, &to->name, "NAME", "a name", 0, 0},
        {"count", 0, LORE_FLAG_INTEGER, &to->count, "N", "how many", 1, 9},
        {"heat", 0, LORE_FLAG_NUMBER, &to->heat, "X", "how hot", 0, 0},
        {"many", 'm', LORE_FLAG_LIST, &to->many, "ITEM", "again and again", 0, 0},
    };
    const lore_flag_table table = {flags, 5};
    *to = (taken){0};
    *others = (lore_flag_list){0};
    return lore_flags_parse(&table, 1, (char *const *)(uintptr_t)words, count, stops, arena, others,
                            used, err);
}

#define WORDS(...)                      \
    (const char *const[]){__VA_ARGS__}, \
        (int32_t)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

TEST(all_forms)
{
    lore_arena arena;
    lore_error err;
    taken to;
    lore_flag_list others;
    int32_t used = 0;
    lore_arena_init(&arena, 0);
    CHECK_OK(parse(&to, &arena, &others, false, &used, &err,
                   WORDS("a", "--loud", "--name=x=y", "--count", "7", "-m", "1", "-m2", "-",
                         "--heat", "-0.5", "--", "--name", "z")),
             &err);
    CHECK(to.is_loud);
    CHECK_STR(lore_str_from(to.name), "x=y");
    CHECK_INT(to.count, 7);
    CHECK_NEAR(to.heat, -0.5, 0);
    CHECK_INT(to.many.count, 2);
    CHECK_STR(lore_str_from(to.many.items[1]), "2");
    CHECK_INT(others.count, 4);
    CHECK_STR(lore_str_from(others.items[1]), "-");
    CHECK_STR(lore_str_from(others.items[2]), "--name");
    CHECK_OK(parse(&to, &arena, &others, true, &used, &err, WORDS("-l", "query", "--nothing")),
             &err);
    CHECK_INT(used, 1);
    lore_arena_destroy(&arena);
}

TEST(what_is_wrong_is_named)
{
    lore_arena arena;
    lore_error err;
    taken to;
    lore_flag_list others;
    int32_t used = 0;
    lore_arena_init(&arena, 0);
    CHECK_FAILS(parse(&to, &arena, &others, false, &used, &err, WORDS("--lou")), LORE_ERR_INVALID,
                &err, "--lou");
    CHECK_FAILS(parse(&to, &arena, &others, false, &used, &err, WORDS("-x")), LORE_ERR_INVALID,
                &err, "-x");
    CHECK_FAILS(parse(&to, &arena, &others, false, &used, &err, WORDS("--name")), LORE_ERR_INVALID,
                &err, "needs a value");
    CHECK_FAILS(parse(&to, &arena, &others, false, &used, &err, WORDS("--loud=1")),
                LORE_ERR_INVALID, &err, "no value");
    CHECK_FAILS(parse(&to, &arena, &others, false, &used, &err, WORDS("--count", "10")),
                LORE_ERR_INVALID, &err, "1 to 9");
    CHECK_FAILS(parse(&to, &arena, &others, false, &used, &err, WORDS("--heat", "nan")),
                LORE_ERR_INVALID, &err, "--heat");
    CHECK_FAILS(parse(&to, &arena, &others, false, &used, &err, WORDS("--heat", "")),
                LORE_ERR_INVALID, &err, "--heat");
    lore_mem_fail_at(1, false);
    CHECK_INT(parse(&to, &arena, &others, false, &used, &err, WORDS("-m", "1")), LORE_ERR_NOMEM);
    lore_mem_fail_at(0, false);
    lore_arena_destroy(&arena);
}

/* Wrap text that comes in pieces of `piece` bytes; the result is the caller's to free. */
static lore_buf wrapped(const char *text, int32_t width, int32_t indent, size_t piece)
{
    lore_buf result;
    lore_wrap wrap;
    char room[4096];
    lore_buf_init(&result, 0);
    FILE *out = fmemopen(room, sizeof room, "w");
    CHECK(out != NULL);
    lore_wrap_begin(&wrap, out, indent);
    wrap.width = width;
    lore_str rest = lore_str_from(text);
    while (rest.len > 0) {
        size_t take = piece < rest.len ? piece : rest.len;
        lore_wrap_text(&wrap, lore_str_slice(rest, 0, take));
        rest = lore_str_slice(rest, take, rest.len);
    }
    lore_wrap_end(&wrap);
    long size = ftell(out);
    fclose(out);
    lore_buf_append(&result, (lore_str){room, (size_t)size});
    return result;
}

static void check_wrap(const char *text, int32_t width, int32_t indent, size_t piece,
                       const char *expected)
{
    lore_buf result = wrapped(text, width, indent, piece);
    CHECK_STR(lore_buf_str(&result), expected);
    lore_buf_destroy(&result);
}

TEST(words_wrap)
{
    for (size_t piece = 1; piece < 40; piece += 3) {
        check_wrap("one two three four", 9, 0, piece, "one two\nthree\nfour\n");
        check_wrap("one two three four", 0, 0, piece, "one two three four\n");
        check_wrap("one  two\n\nthree", 20, 2, piece, "  one two\n\n  three\n");
        check_wrap("averyverylongword x", 5, 0, piece, "averyverylongword\nx\n");
    }
    check_wrap("", 10, 0, 1, "");
    check_wrap("你好世界吗", 5, 0, 100, "你好\n世界\n吗\n");
    check_wrap("ab 你好 cd", 6, 0, 100, "ab 你\n好 cd\n");
}

TEST(control_characters_are_dropped)
{
    check_wrap("a\033[31mb\007c\r", 0, 0, 100, "a[31mbc\n");
    check_wrap("a\xc2\x9b"
               "31mb",
               0, 0, 100, "a31mb\n");
}

CHECK_MAIN(all_forms, what_is_wrong_is_named, words_wrap, control_characters_are_dropped)
