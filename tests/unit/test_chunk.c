/* Chunks: on sentence edges, near the target, with overlap, never across sections. */
#include "tests/unit/ingest_fixture.h"

#include "ingest/chunk.h"

typedef struct cut {
    lore_arena arena;
    lore_clean_document clean;
    lore_chunk_row *rows;
    int32_t count;
} cut;

static cut cut_markdown(const char *source, lore_chunk_options options)
{
    cut c = {0};
    lore_error err = {0};
    uint32_t *starts = NULL;
    lore_arena_init(&c.arena, 0);
    c.clean = clean_literal(&c.arena, LORE_MEDIA_MARKDOWN, source);
    int32_t tokens = fake_tokens(c.clean.text, &c.arena, &starts);
    CHECK_OK(
        lore_chunk_document(&c.clean, starts, tokens, &options, &c.arena, &c.rows, &c.count, &err),
        &err);
    return c;
}

static lore_str text_of(const cut *c, int32_t i)
{
    return lore_str_slice(c->clean.text, c->rows[i].start, c->rows[i].end);
}

#define OPTIONS(target, overlap, most) ((lore_chunk_options){target, overlap, most})

TEST(cuts_evenly)
{
    /* Twelve tokens in sentences of three; a greedy cut at eight would leave four behind. */
    cut c = cut_markdown("aa bb cc. dd ee ff. Gg hh ii. Jj kk ll. Mm nn oo. Pp qq rr.\n",
                         OPTIONS(8, 0, 100));
    CHECK_INT(c.count, 2);
    CHECK_STR(text_of(&c, 0), "aa bb cc. dd ee ff. Gg hh ii.");
    CHECK_STR(text_of(&c, 1), "Jj kk ll. Mm nn oo. Pp qq rr.");
    lore_arena_destroy(&c.arena);
}

TEST(overlaps)
{
    cut c = cut_markdown("Aa bb cc. Dd ee ff. Gg hh ii. Jj kk ll. Mm nn oo. Pp qq rr.\n",
                         OPTIONS(8, 1, 100));
    CHECK_INT(c.count, 2);
    CHECK_STR(text_of(&c, 1), "Gg hh ii. Jj kk ll. Mm nn oo. Pp qq rr.");
    lore_arena_destroy(&c.arena);
    /* Not where it would burst the encoder's window. */
    c = cut_markdown("Aa bb cc. Dd ee ff. Gg hh ii. Jj kk ll.\n", OPTIONS(8, 1, 8));
    for (int32_t i = 1; i < c.count; i++) {
        CHECK(c.rows[i].start >= c.rows[i - 1].end);
    }
    lore_arena_destroy(&c.arena);
}

TEST(keeps_sections_apart)
{
    const char *source = "# T\n\nIntro is one two three four five six seven.\n\n## A\n\n"
                         "Text a is one two three four five six seven.\n\n## B\n\n### C\n\n"
                         "Text c is one two three four five six seven.\n";
    cut c = cut_markdown(source, OPTIONS(10, 1, 100));
    CHECK_INT(c.count, 3);
    CHECK_STR(c.rows[0].heading, "");
    CHECK_STR(c.rows[1].heading, "A");
    CHECK_STR(c.rows[2].heading, "B > C");
    CHECK_STR(text_of(&c, 2), "B\nC\nText c is one two three four five six seven.");
    lore_arena_destroy(&c.arena);
    /* With a large target the same sections are tiny and go together. */
    c = cut_markdown(source, OPTIONS(200, 1, 300));
    CHECK_INT(c.count, 1);
    CHECK_STR(c.rows[0].heading, "");
    CHECK_STR(text_of(&c, 0), "Intro is one two three four five six seven.\nA\n"
                              "Text a is one two three four five six seven.\nB\nC\n"
                              "Text c is one two three four five six seven.");
    lore_arena_destroy(&c.arena);
}

TEST(announcement_goes_with_its_list)
{
    cut c = cut_markdown("Aa bb cc dd ee ff. Do this now:\n\n- gg hh ii jj\n- kk ll mm nn\n",
                         OPTIONS(9, 0, 100));
    CHECK(c.count >= 2);
    CHECK_STR(text_of(&c, 0), "Aa bb cc dd ee ff.");
    lore_arena_destroy(&c.arena);
}

/* A sentence beyond the window is cut at words, Chinese between characters, and one that has
 * neither between characters all the same. */
TEST(long_sentences)
{
    cut c = cut_markdown("aa bb cc dd ee ff gg hh ii jj kk ll mm nn\n", OPTIONS(4, 1, 5));
    for (int32_t i = 0; i < c.count; i++) {
        lore_str text = text_of(&c, i);
        CHECK(text.len <= 5 * 3 && text.ptr[0] != ' ' && text.ptr[text.len - 1] != ' ');
    }
    CHECK_STR(text_of(&c, 0), "aa bb cc dd ee");
    lore_arena_destroy(&c.arena);
    c = cut_markdown("\xE9\x95\xBF\xE6\x8C\x89\xE6\x8C\x89\xE9\x92\xAE\xE5\x8D\x81\xE7\xA7\x92\n",
                     OPTIONS(4, 0, 4));
    CHECK_INT(c.count, 2);
    CHECK_INT(c.rows[0].end % 3, 0);
    lore_arena_destroy(&c.arena);
    c = cut_markdown("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", OPTIONS(2, 0, 2));
    CHECK_INT(c.count, 5);
    lore_arena_destroy(&c.arena);
}

TEST(empty)
{
    cut c = cut_markdown("", OPTIONS(200, 1, 250));
    CHECK_INT(c.count, 0);
    lore_arena_destroy(&c.arena);
}

TEST(prefix)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    CHECK_STR(lore_chunk_embed_text(&arena, LORE_STR("T"), LORE_STR("A > B"), LORE_STR("x")),
              "T > A > B\nx");
    CHECK_STR(lore_chunk_embed_text(&arena, LORE_STR("T"), LORE_STR(""), LORE_STR("x")), "T\nx");
    CHECK_STR(lore_chunk_embed_text(&arena, LORE_STR(""), LORE_STR("A"), LORE_STR("x")), "A\nx");
    CHECK_STR(lore_chunk_embed_text(&arena, LORE_STR(""), LORE_STR(""), LORE_STR("x")), "x");
    char title[400], heading[400];
    memset(title, 't', sizeof title);
    memset(heading, 'h', sizeof heading);
    memcpy(heading + 350, " > inner", 8);
    lore_str text = lore_chunk_embed_text(&arena, (lore_str){title, 400}, (lore_str){heading, 358},
                                          LORE_STR("x"));
    CHECK(lore_str_ends(text, LORE_STR(" > inner\nx")));
    CHECK(text.len <= LORE_CHUNK_PREFIX_BYTES_MAX + 1);
    lore_arena_destroy(&arena);
}

static lore_status cut_once(void *self)
{
    cut *c = self;
    lore_error err = {0};
    uint32_t starts[400];
    lore_arena arena;
    lore_chunk_row *rows;
    int32_t count = 0;
    lore_chunk_options options = OPTIONS(2, 1, 3);
    for (uint32_t i = 0; i < 400; i++) {
        starts[i] = i * 3;
    }
    lore_arena_init(&arena, 0);
    lore_status status =
        lore_chunk_document(&c->clean, starts, 400, &options, &arena, &rows, &count, &err);
    lore_arena_destroy(&arena);
    return status;
}

TEST(without_memory)
{
    lore_section section = {0, 1200, {"", 0}};
    char text[1200];
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = "Ab "[i % 3];
    }
    cut c = {.clean = {.text = {text, sizeof text}, .sections = &section, .section_count = 1}};
    check_alloc_sweep(cut_once, &c);
}

CHECK_MAIN(cuts_evenly, overlaps, keeps_sections_apart, announcement_goes_with_its_list,
           long_sentences, empty, prefix, without_memory)
