/* Markdown to lines: blocks, lists, tables, code, raw HTML, and what publishing tools add. */
#include "tests/unit/ingest_fixture.h"

static void md(const char *source, const char *text)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    CHECK_STR(clean_literal(&arena, LORE_MEDIA_MARKDOWN, source).text, text);
    lore_arena_destroy(&arena);
}

TEST(blocks)
{
    md("One *two*\nthree `four`.\n\nNext [link](http://x.y) and ![alt text](i.png).",
       "One two three four.\nNext link and alt text.");
    md("a\\\nb  \nc", "a\nb\nc");
    md("\xE4\xB8\xAD\n\xE6\x96\x87", "\xE4\xB8\xAD\xE6\x96\x87");
    md("> quoted\n> text\n\n---\n\nafter", "quoted text\nafter");
    md("AT&amp;T &lt;tag&gt; &#x4e2d; &unknown; &", "AT&T <tag> \xE4\xB8\xAD &unknown; &");
    md("~~gone~~ <https://lore.dev> a_b_c", "gone https://lore.dev a_b_c");
}

TEST(lists)
{
    md("- a\n- b\n  - c\n\n3. x\n4. y\n", "- a\n- b\n- c\n3. x\n4. y");
    md("- para one\n\n  para two\n\n- next\n", "- para one\npara two\n- next");
    md("- [x] done\n- [ ] open\n-\n", "- done\n- open");
    md("1. step\n\n   ```sh\n   run it\n   ```\n2. more\n", "1. step\nrun it\n2. more");
}

/* A list of links into the page repeats its headings; the same links in a sentence are text. */
TEST(contents)
{
    md("- [One](#one)\n- [Two](#two)\n\n## One\n\nSee [Two](#two).\n\n- Go to [One](#one)\n",
       "One\nSee Two.\n- Go to One");
}

TEST(tables)
{
    md("| Key | Value |\n|---|:-:|\n| a *b* | 1 |\n| | |\n| c<br>d | |\n",
       "Key | Value\na b | 1\nc d |");
}

TEST(code)
{
    md("```c\nint x;\n\n\tint y;   \n```\n\n    indented\n      more\n",
       "int x;\n    int y;\nindented\n  more");
}

TEST(raw_html)
{
    md("<div class=\"x\">\n  <p>Text &amp; more</p>\n  <ul><li>one</li><li>two</li></ul>\n</div>\n",
       "Text & more\n- one\n- two");
    md("<!-- a\ncomment --> visible\n\n<script>\nvar a = '<p>';\n</script>\n\nafter",
       "visible\nafter");
    md("<h2>Title</h2>\n<table><tr><td>a</td><td>b</td></tr></table>", "Title\na | b");
    md("See <title> and <link>, not <button>this</button>.\n\n<svg><text>x</text></svg>\n\nnext",
       "See <title> and <link>, not this.\nnext");
    md("Put it into <bucket>/<object>, press <kbd>Tab</kbd>.<br/>Done",
       "Put it into <bucket>/<object>, press Tab.\nDone");
    md("<img src=\"x\" alt=\"A diagram\"> text", "A diagram text");
}

TEST(additions)
{
    md("## What is it? {#id .section}\n\ntext", "What is it?\ntext");
    md("> [!NOTE]\n> Mind the gap.", "Note: Mind the gap.");
    md("Open [!INCLUDE[prod](../inc/prod.md)] now.\n\n[!VIDEO https://x.y/z]", "Open now.");
    md(":::image type=\"content\" source=\"a.png\" alt-text=\"A screen\":::\n\n:::row:::\n\ntext",
       "A screen\ntext");
    md("::: warning Hot\nDo not touch.\n:::", "Hot Do not touch.");
    md("```\n## code {#kept}\n:::\n```", "## code {#kept}\n:::");
}

TEST(titles)
{
    check_text(LORE_MEDIA_MARKDOWN, "# The title\n\n## Sub\n\ntext\n", "The title", "Sub\ntext");
    check_text(LORE_MEDIA_MARKDOWN, "---\ntitle: Front\n---\n# front\n\ntext\n", "Front", "text");
    check_text(LORE_MEDIA_MARKDOWN, "---\ntitle: Front\n---\n# Other\n\ntext\n", "Front",
               "Other\ntext");
    check_text(LORE_MEDIA_MARKDOWN, "Setext\n======\n\ntext\n", "Setext", "text");
    check_text(LORE_MEDIA_MARKDOWN, "just text\n", "", "just text");
    check_text(LORE_MEDIA_MARKDOWN, "# Alone\n", "Alone", "Alone");
    check_text(LORE_MEDIA_MARKDOWN, "", "", "");
}

/* Offsets lead back: the text of a link stands in the source where the run says. */
TEST(offsets)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_str source = LORE_STR("# T\n\nSee [the *guide*](x.md) now.\n");
    lore_clean_document clean = clean_bytes(&arena, LORE_MEDIA_MARKDOWN, source);
    CHECK_STR(clean.text, "See the guide now.");
    size_t at = lore_offset_to_source(clean.runs, clean.run_count, 8);
    CHECK_STR(lore_str_slice(source, at, at + 5), "guide");
    lore_arena_destroy(&arena);
}

static lore_status clean_once(void *self)
{
    (void)self;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_error err = {0};
    lore_clean_document clean;
    lore_raw_document raw = {.media = LORE_MEDIA_MARKDOWN,
                             .bytes =
                                 LORE_STR("# A {#b}\n\n1. x\n2. [y](#z)\n\n| a | b |\n|-|-|\n|1|2|"
                                          "\n\n<p>raw</p>\n\n## C\n\nd\n")};
    lore_status status = lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err);
    lore_arena_destroy(&arena);
    return status;
}

TEST(without_memory)
{
    check_alloc_sweep(clean_once, NULL);
}

CHECK_MAIN(blocks, lists, contents, tables, code, raw_html, additions, titles, offsets,
           without_memory)
