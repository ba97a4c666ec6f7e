/* Proves that URLs are brought into one form: relative references, cases, ports, fragments, dots,
 * spaces and Chinese characters, IPv4 in all its spellings; and that those with passwords, of other
 * schemes or with control characters are refused. (Requests are tested by e2e/test_web.py.) */
#include "tests/check.h"

#include "ingest/web_int.h"

static void check_url(const char *base, const char *reference, const char *text, const char *origin,
                      const char *path)
{
    lore_arena arena;
    lore_error err = {0};
    lore_url url;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_url_resolve(lore_str_from(base), lore_str_from(reference), &arena, &url, &err),
             &err);
    CHECK_STR(lore_str_from(url.text), text);
    CHECK_STR(url.origin, origin);
    CHECK_STR(url.path, path);
    lore_arena_destroy(&arena);
}

TEST(resolves)
{
    check_url("", "HTTPS://Example.COM:443/A/../b/./c?q=1#top", "https://example.com/b/c?q=1",
              "https://example.com", "/b/c?q=1");
    check_url("", "http://h", "http://h/", "http://h", "/");
    check_url("", " http://h:8080?x ", "http://h:8080/?x", "http://h:8080", "/?x");
    check_url("http://h/a/b?c", "d", "http://h/a/d", "http://h", "/a/d");
    check_url("http://h/a/b?c", "/d?e", "http://h/d?e", "http://h", "/d?e");
    check_url("http://h/a/b", "//g/c", "http://g/c", "http://g", "/c");
    check_url("http://h/a/b", "?x=1", "http://h/a/b?x=1", "http://h", "/a/b?x=1");
    check_url("http://h/a", "https://g:444/", "https://g:444/", "https://g:444", "/");
    check_url("", "http://h/a b/问", "http://h/a%20b/%e9%97%ae", "http://h", "/a%20b/%e9%97%ae");
}

TEST(ipv4_spellings)
{
    const char *const hosts[] = {"127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "http://%s/", hosts[i]);
        check_url("", text, "http://127.0.0.1/", "http://127.0.0.1", "/");
    }
}

TEST(refuses)
{
    const char *const bad[][2] = {{"http://user:secret@h/", "password"},
                                  {"http://user@h/", "password"},
                                  {"ftp://h/a", "http or https"},
                                  {"file:///etc/passwd", "http or https"},
                                  {"javascript:alert(1)", "http or https"},
                                  {"page.html", "http or https"},
                                  {"", "http or https"},
                                  {"http://", "http or https"},
                                  {"http://h/a\r\nX: y", "control"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lore_arena arena;
        lore_error err = {0};
        lore_url url;
        lore_arena_init(&arena, 0);
        CHECK_FAILS(
            lore_url_resolve((lore_str){"", 0}, lore_str_from(bad[i][0]), &arena, &url, &err),
            LORE_ERR_INVALID, &err, bad[i][1]);
        CHECK(strstr(err.message, "secret") == NULL);
        lore_arena_destroy(&arena);
    }
    lore_buf text;
    lore_arena arena;
    lore_error err = {0};
    lore_url url;
    lore_arena_init(&arena, 0);
    lore_buf_init(&text, 0);
    lore_buf_printf(&text, "http://h/%09000d", 1);
    CHECK_FAILS(lore_url_resolve((lore_str){"", 0}, lore_buf_str(&text), &arena, &url, &err),
                LORE_ERR_INVALID, &err, "8192");
    lore_buf_destroy(&text);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(resolves, ipv4_spellings, refuses)
