/* The text builder: folding, composing, runs, sections, the title. */
#include "tests/unit/ingest_fixture.h"

/* One line through the builder. */
static lore_clean_document one_line(lore_arena *arena, const char *source)
{
    lore_builder builder;
    lore_clean_document clean;
    lore_error err = {0};
    lore_str text = lore_str_from(source);
    lore_builder_init(&builder, text, (lore_str){"", 0}, 0, arena);
    lore_builder_piece(&builder, text, 0);
    CHECK_OK(lore_builder_finish(&builder, (lore_str){"", 0}, &clean, &err), &err);
    lore_builder_destroy(&builder);
    check_clean(&clean, text);
    return clean;
}

static void check_line(const char *source, const char *expected)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    CHECK_STR(one_line(&arena, source).text, expected);
    lore_arena_destroy(&arena);
}

TEST(folds_blanks)
{
    check_line("  two   blanks\tand a tab  ", "two blanks and a tab");
    check_line("no\xC2\xA0"
               "break\xE3\x80\x80wide",
               "no break wide");
    check_line("soft\n   wrapped", "soft wrapped");
    check_line("\xE8\xBD\xAF\n\xE6\x8D\xA2", "\xE8\xBD\xAF\xE6\x8D\xA2");
    check_line("\xE8\xBD\xAF \n next", "\xE8\xBD\xAF next");
    /* A mark stays away from the character before the break: NFC would reorder or join them. */
    check_line("\xE3\x80\xAB\n\xE3\x80\xAE", "\xE3\x80\xAB \xE3\x80\xAE");
    check_line(" \t ", "");
}

TEST(drops_invisible)
{
    check_line("so\xC2\xAD"
               "ft hy\xE2\x80\x8B"
               "phen\xEF\xBB\xBF",
               "soft hyphen");
    check_line("bell\x07 and \x1B[1mbold\x7F", "bell and [1mbold");
    check_line("a\xE2\x80\x8D"
               "b",
               "ab");
    /* A family emoji keeps its joiners. */
    check_line("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7",
               "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7");
}

/* Composition changes as few bytes as it must, also when an invisible character stands between. */
TEST(composes)
{
    check_line("cafe\xCC\x81 ole", "caf\xC3\xA9 ole");
    check_line("e\xE2\x80\x8B\xCC\x81", "\xC3\xA9");
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = one_line(&arena, "before cafe\xCC\x81 after");
    CHECK_INT(clean.run_count, 3);
    CHECK_INT(clean.runs[0].is_exact, 1);
    CHECK_INT(clean.runs[1].is_exact, 0);
    CHECK_INT(clean.runs[1].text, 10);
    CHECK_INT(clean.runs[2].is_exact, 1);
    lore_arena_destroy(&arena);
}

/* Text that we made, and a claim about the source that is wrong, are never exact. */
TEST(runs_are_honest)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_builder builder;
    lore_clean_document clean;
    lore_error err = {0};
    lore_str source = LORE_STR("abc &amp; def");
    lore_builder_init(&builder, source, (lore_str){"", 0}, 0, &arena);
    lore_builder_piece(&builder, LORE_STR("abc "), 0);
    lore_builder_made(&builder, LORE_STR("&"), 4);
    lore_builder_piece(&builder, LORE_STR(" XYZ"), 9);
    lore_builder_piece(&builder, LORE_STR("!"), 1000);
    CHECK_OK(lore_builder_finish(&builder, (lore_str){"", 0}, &clean, &err), &err);
    lore_builder_destroy(&builder);
    check_clean(&clean, source);
    CHECK_STR(clean.text, "abc & XYZ!");
    CHECK_INT(lore_offset_to_source(clean.runs, clean.run_count, 2), 2);
    CHECK_INT(lore_offset_to_source(clean.runs, clean.run_count, 4), 4);
    lore_arena_destroy(&arena);
}

static void heading(lore_builder *builder, int32_t level, const char *text)
{
    lore_builder_item_end(builder);
    lore_builder_made(builder, lore_str_from(text), 0);
    lore_builder_heading(builder, level);
}

static void line(lore_builder *builder, const char *text)
{
    lore_builder_made(builder, lore_str_from(text), 0);
    lore_builder_line(builder);
}

/* Paths follow the levels; the title is left out of text and paths. */
TEST(sections)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_builder builder;
    lore_clean_document clean;
    lore_error err = {0};
    lore_builder_init(&builder, LORE_STR("x"), (lore_str){"", 0}, 0, &arena);
    heading(&builder, 1, "Manual");
    line(&builder, "intro");
    heading(&builder, 2, "Reset");
    heading(&builder, 3, "Factory");
    line(&builder, "hold");
    heading(&builder, 2, "Care");
    line(&builder, "wipe");
    heading(&builder, 1, "Manual");
    CHECK_OK(lore_builder_finish(&builder, LORE_STR("unused"), &clean, &err), &err);
    lore_builder_destroy(&builder);
    check_clean(&clean, LORE_STR("x"));
    CHECK_STR(clean.title, "Manual");
    CHECK_STR(clean.text, "intro\nReset\nFactory\nhold\nCare\nwipe\nManual");
    CHECK_INT(clean.section_count, 5);
    CHECK_STR(clean.sections[0].heading, "");
    CHECK_STR(clean.sections[1].heading, "Reset");
    CHECK_STR(clean.sections[2].heading, "Reset > Factory");
    CHECK_STR(clean.sections[3].heading, "Care");
    CHECK_STR(clean.sections[4].heading, "Manual");
    lore_arena_destroy(&arena);
}

/* Items: markers without text vanish, contents lines vanish, others stay. */
TEST(items)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_builder builder;
    lore_clean_document clean;
    lore_error err = {0};
    lore_builder_init(&builder, LORE_STR("x"), LORE_STR("T"), 0, &arena);
    lore_builder_item(&builder, LORE_STR("- "), 0);
    lore_builder_item(&builder, LORE_STR("1. "), 0);
    line(&builder, "one");
    lore_builder_item(&builder, LORE_STR("- "), 0);
    lore_builder_item_end(&builder);
    lore_builder_item(&builder, LORE_STR("- "), 0);
    builder.is_inside_link = true;
    lore_builder_made(&builder, LORE_STR("Contents"), 0);
    builder.is_inside_link = false;
    lore_builder_item_end(&builder);
    line(&builder, "two");
    CHECK_OK(lore_builder_finish(&builder, LORE_STR("unused"), &clean, &err), &err);
    lore_builder_destroy(&builder);
    CHECK_STR(clean.text, "1. one\ntwo");
    CHECK_STR(clean.title, "T");
    lore_arena_destroy(&arena);
}

/* A document that is only its title keeps it as text, and the cap is an error, never a cut. */
TEST(edges)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_builder builder;
    lore_clean_document clean;
    lore_error err = {0};
    lore_builder_init(&builder, LORE_STR("Alone"), (lore_str){"", 0}, 0, &arena);
    lore_builder_piece(&builder, LORE_STR("Alone"), 0);
    lore_builder_heading(&builder, 1);
    CHECK_OK(lore_builder_finish(&builder, LORE_STR("file"), &clean, &err), &err);
    CHECK_STR(clean.text, "Alone");
    lore_builder_destroy(&builder);

    lore_str source = LORE_STR("far more text than fits");
    lore_builder_init(&builder, source, (lore_str){"", 0}, 10, &arena);
    lore_builder_piece(&builder, source, 0);
    CHECK_FAILS(lore_builder_finish(&builder, LORE_STR(""), &clean, &err), LORE_ERR_LIMIT, &err,
                "document_bytes_max");
    lore_builder_destroy(&builder);
    lore_arena_destroy(&arena);
}

static lore_status build(void *self)
{
    (void)self;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_builder builder;
    lore_clean_document clean;
    lore_error err = {0};
    lore_str source = LORE_STR("cafe\xCC\x81 x\xE2\x80\x8By");
    lore_builder_init(&builder, source, (lore_str){"", 0}, 0, &arena);
    for (int i = 0; i < 40; i++) {
        lore_builder_piece(&builder, source, 0);
        lore_builder_heading(&builder, 2 + i % 3);
        lore_builder_item(&builder, LORE_STR("- "), 0);
        lore_builder_piece(&builder, source, 0);
        lore_builder_line(&builder);
    }
    lore_status status = lore_builder_finish(&builder, LORE_STR("t"), &clean, &err);
    lore_builder_destroy(&builder);
    lore_arena_destroy(&arena);
    return status;
}

TEST(without_memory)
{
    check_alloc_sweep(build, NULL);
}

CHECK_MAIN(folds_blanks, drops_invisible, composes, runs_are_honest, sections, items, edges,
           without_memory)
