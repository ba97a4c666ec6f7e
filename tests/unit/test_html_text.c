/* HTML to lines: what is content, how it reads, and where the title comes from. */
#include "tests/unit/ingest_fixture.h"

#define PROSE "<p>A long enough paragraph of real content, so that it is most of the page.</p>"
#define PROSE_TEXT "A long enough paragraph of real content, so that it is most of the page."

static void html(const char *source, const char *text)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    CHECK_STR(clean_literal(&arena, LORE_MEDIA_HTML, source).text, text);
    lore_arena_destroy(&arena);
}

TEST(lines)
{
    html("<p>One <b>two</b>\n three<br>four</p><div>five</div>six",
         "One two three\nfour\nfive\nsix");
    html("<ul><li>a<li><p>b</p><ol start=3><li>c<li>d</ol></ul>", "- a\n- b\n3. c\n4. d");
    html("<pre>int x;\n\n  y &lt; z;</pre>", "int x;\n  y < z;");
    html("<p>\xE4\xB8\xAD\n\xE6\x96\x87</p>", "\xE4\xB8\xAD\xE6\x96\x87");
    html("<p>caf&eacute;&nbsp;x <img alt='An image'></p>", "caf\xC3\xA9 x An image");
    html("<dl><dt>Term<dd>Meaning</dl>", "Term\nMeaning");
}

TEST(tables)
{
    html("<table><caption>Cap</caption><tr><th>K<th>V</tr><tr><td>a<td><p>b</p><p>c</p></tr>"
         "<tr><td></td><td></td></tr></table>",
         "Cap\nK | V\na | b c");
    html("<table role=presentation><tr><td>left</td><td>right</td></tr></table>", "left\nright");
    html("<table><tr><td><h2>Head</h2>text</td><td>side</td></tr></table>", "Head\ntext\nside");
    html("<table><tr><td>only</td></tr><tr><td>column</td></tr></table>", "only\ncolumn");
}

/* Navigation, page furniture and hidden parts go. */
TEST(boilerplate)
{
    html("<body><nav>Home</nav><header>Shop</header><script>x()</script>" PROSE
         "<aside>ad</aside><footer>imprint</footer><div hidden>h</div>"
         "<div style='display:none'>n</div><div aria-hidden=true>a</div><noscript>js</noscript>"
         "<form><input>search</form><div role=navigation>n</div></body>",
         PROSE_TEXT);
    html(PROSE "<div id='cookie-banner'>We use cookies.</div>"
               "<div aria-label='Cookie consent' role=dialog>Accept</div>",
         PROSE_TEXT);
    html(PROSE "<ol class='breadcrumb'><li>Home</ol>", PROSE_TEXT);
}

/* The same elements stay where they are the page, or inside an article. */
TEST(content_stays)
{
    html("<form>" PROSE "</form>", PROSE_TEXT);
    html("<article><header><p>By me</p></header>" PROSE "<footer>Written in May</footer></article>",
         "By me\n" PROSE_TEXT "\nWritten in May");
    html("<p class='cookie'>How to delete cookies.</p>" PROSE,
         "How to delete cookies.\n" PROSE_TEXT);
}

TEST(main_part)
{
    html("<div>Menu one two</div><main>" PROSE "</main><div>More links</div>", PROSE_TEXT);
    html("<header><h1>Lead</h1><p>intro</p></header><main>" PROSE "</main>", "intro\n" PROSE_TEXT);
    html("<div>teaser</div><article>" PROSE "</article><article>" PROSE "</article>",
         PROSE_TEXT "\n" PROSE_TEXT);
    html("<div>" PROSE PROSE PROSE "</div><main>little</main>",
         PROSE_TEXT "\n" PROSE_TEXT "\n" PROSE_TEXT "\nlittle");
}

TEST(titles)
{
    check_text(LORE_MEDIA_HTML, "<title>Reset | Help</title><h1>Reset</h1>" PROSE, "Reset",
               PROSE_TEXT);
    check_text(LORE_MEDIA_HTML, "<title>Help - Reset</title><h1>Reset</h1>" PROSE, "Reset",
               PROSE_TEXT);
    check_text(LORE_MEDIA_HTML, "<title>A | B</title><h1>C</h1>" PROSE, "A | B", "C\n" PROSE_TEXT);
    check_text(
        LORE_MEDIA_HTML,
        "<title>Page &ndash; Site</title><meta property='og:site_name' content='Site'>" PROSE,
        "Page", PROSE_TEXT);
    check_text(LORE_MEDIA_HTML, "<meta property='og:title' content='Shared'>" PROSE, "Shared",
               PROSE_TEXT);
    check_text(LORE_MEDIA_HTML, "<h1>Only <i>heading</i></h1>" PROSE, "Only heading", PROSE_TEXT);
    check_text(LORE_MEDIA_HTML, PROSE, "", PROSE_TEXT);
    check_text(LORE_MEDIA_HTML, "<title>Hooks (v2)</title><h1>Hooks</h1>" PROSE, "Hooks (v2)",
               PROSE_TEXT);
}

TEST(sections)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_literal(
        &arena, LORE_MEDIA_HTML,
        "<title>T</title><p>intro</p><h2>A<a class=headerlink href='#a'>#</a></h2><p>a</p>"
        "<ul><li><h3>B</h3>b</li></ul>");
    CHECK_STR(clean.text, "intro\nA\na\nB\nb");
    CHECK_INT(clean.section_count, 3);
    CHECK_STR(clean.sections[1].heading, "A");
    CHECK_STR(clean.sections[2].heading, "A > B");
    lore_arena_destroy(&arena);
}

static lore_status clean_once(void *self)
{
    (void)self;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_error err = {0};
    lore_clean_document clean;
    lore_raw_document raw = {.media = LORE_MEDIA_HTML,
                             .bytes = LORE_STR("<title>T | S</title><h1>T</h1><ol><li>x</ol><table>"
                                               "<tr><td>a<td>&amp;</table><h2>H</h2>" PROSE)};
    lore_status status = lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err);
    lore_arena_destroy(&arena);
    return status;
}

TEST(without_memory)
{
    check_alloc_sweep(clean_once, NULL);
}

CHECK_MAIN(lines, tables, boilerplate, content_stays, main_part, titles, sections, without_memory)
