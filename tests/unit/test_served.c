/* Proves what a page of the web is taken for: signatures before the Content-Type, that before
 * looks; and that its charset is used where it is true. Names are the last part of the path. */
#include "tests/unit/ingest_fixture.h"

#include "ingest/web_int.h"

static lore_media served(const char *type, const char *url, const char *bytes)
{
    return lore_media_served(lore_str_from(type), lore_str_from(url), lore_str_from(bytes));
}

TEST(kinds)
{
    const char *page = "<html><body>x</body></html>";
    CHECK_INT(served("text/html; charset=utf-8", "http://h/a.php?b=1.md", page), LORE_MEDIA_HTML);
    CHECK_INT(served("TEXT/HTML", "http://h/data.csv", page), LORE_MEDIA_HTML);
    CHECK_INT(served("application/xhtml+xml", "http://h/", page), LORE_MEDIA_HTML);
    CHECK_INT(served("", "http://h/", page), LORE_MEDIA_HTML);
    CHECK_INT(served("text/plain", "http://h/a", page), LORE_MEDIA_TEXT);
    CHECK_INT(served("text/plain", "http://h/a.html", page), LORE_MEDIA_HTML);
    CHECK_INT(served("text/plain", "http://h/a.md?raw=1", "words"), LORE_MEDIA_MARKDOWN);
    CHECK_INT(served("text/markdown", "http://h/a", "words"), LORE_MEDIA_MARKDOWN);
    CHECK_INT(served("application/json", "http://h/a", "{\"a\": 1}"), LORE_MEDIA_JSON);
    CHECK_INT(served("text/html", "http://h/a", "\x1F\x8B\x08 and so on"), LORE_MEDIA_ARCHIVE);
    CHECK_INT(served("application/zip", "http://h/a", "words"), LORE_MEDIA_TEXT);
    CHECK_INT(served("application/octet-stream", "http://h/a.md", "words"), LORE_MEDIA_MARKDOWN);
    CHECK_INT(lore_media_served(LORE_STR("image/png"), LORE_STR("http://h/a.png"),
                                LORE_STR("\x89PNG\r\n\x1A\n\0\0\0\rIHDR")),
              LORE_MEDIA_AUTO);
}

static void check_decoded(const char *type, lore_media media, lore_str bytes, lore_str expected)
{
    lore_arena arena;
    lore_error err = {0};
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_decode_served(lore_str_from(type), media, &arena, &bytes, &err), &err);
    CHECK(lore_str_equal(bytes, expected));
    lore_arena_destroy(&arena);
}

TEST(charsets)
{
    const lore_str gbk = LORE_STR("\xCE\xCA\xCC\xE2"), text = LORE_STR("问题");
    check_decoded("text/html;charset=gbk", LORE_MEDIA_HTML, gbk, text);
    check_decoded("text/html; x=y ; Charset=\"GB2312\"", LORE_MEDIA_HTML, gbk, text);
    check_decoded("text/plain; charset=utf-8", LORE_MEDIA_TEXT, text, text);
    check_decoded("text/plain; charset=utf-8", LORE_MEDIA_TEXT, gbk, gbk); /* a lie */
    check_decoded("text/plain; charset=klingon", LORE_MEDIA_TEXT, gbk, gbk);
    check_decoded("text/html; charset=gbk", LORE_MEDIA_ARCHIVE, gbk, gbk);
    check_decoded("text/html", LORE_MEDIA_HTML, gbk, gbk);
}

TEST(names)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    CHECK_STR(lore_url_name(LORE_STR("https://h/kb/%E9%97%AE%20a.md?b=/c.html"), &arena),
              "问 a.md");
    CHECK_STR(lore_url_name(LORE_STR("https://h/"), &arena), "");
    CHECK_STR(lore_url_name(LORE_STR("https://h/%zz%4"), &arena), "%zz%4");
    CHECK(lore_is_url(LORE_STR("HTTPS://h")) && !lore_is_url(LORE_STR("https:/h")));
    CHECK(!lore_is_url(LORE_STR("ftp://h")) && !lore_is_url(LORE_STR("")));
    lore_raw_document raw = {.source = LORE_STR("https://h/kb/%E9%87%8D%E7%BD%AE-router.html?x"),
                             .bytes = LORE_STR("<p>Press the button.</p>"),
                             .media = LORE_MEDIA_HTML};
    lore_clean_document clean;
    lore_error err = {0};
    CHECK_OK(lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err), &err);
    CHECK_STR(clean.title, "重置 router");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(kinds, charsets, names)
