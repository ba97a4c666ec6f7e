/* Proves that robots.txt is read as RFC 9309 says: groups, products, the longest match, wildcards,
 * percent-encoding, and lines as they are really written; and that patterns made to be slow are
 * not. */
#include "tests/check.h"

#include "base/clock.h"
#include "ingest/web_int.h"

#include <string.h>

static bool allows(const char *text, const char *path)
{
    lore_arena arena;
    lore_robots robots;
    lore_error err;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_robots_parse(lore_str_from(text), LORE_STR("lore"), &arena, &robots, &err), &err);
    bool is_allowed = lore_robots_allows(&robots, lore_str_from(path));
    lore_arena_destroy(&arena);
    return is_allowed;
}

static int64_t delay_of(const char *text)
{
    lore_arena arena;
    lore_robots robots;
    lore_error err;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_robots_parse(lore_str_from(text), LORE_STR("lore"), &arena, &robots, &err), &err);
    lore_arena_destroy(&arena);
    return robots.delay_ms;
}

TEST(groups)
{
    const char *text = "User-agent: otherbot\nDisallow: /\n\n"
                       "User-agent: *\nDisallow: /any/\n\n"
                       "user-agent: LORE/1.0 (x)\nUser-Agent: third\nDisallow: /ours/\n"
                       "Sitemap: https://h/s.xml\nDisallow: /behind/\n"
                       "User-agent: lore\nDisallow: /again/\n";
    CHECK(allows(text, "/any/a"));
    CHECK(allows(text, "/"));
    CHECK(!allows(text, "/ours/a"));
    CHECK(!allows(text, "/behind/a"));
    CHECK(!allows(text, "/again/a")); /* groups of one product are one */
    CHECK(allows("User-agent: lore\n\nUser-agent: *\nDisallow: /\n", "/a") == false);
    CHECK(allows("User-agent: *\nDisallow: /\nUser-agent: lore\nDisallow:\n", "/a"));
    CHECK(!allows("User-agent: *\nDisallow: /\nUser-agent: lorelei\nDisallow:\n", "/a"));
    CHECK(allows("Disallow: /\n", "/a")); /* in no group */
    CHECK(allows("", "/a"));
    CHECK(allows("User-agent: *\nDisallow: /", "/robots.txt"));
    CHECK(!allows("User-agent: *\nDisallow: /", "/robots.txt2"));
}

/* The examples of RFC 9309, 5.1 and 5.2. */
TEST(longest_match)
{
    const char *text =
        "User-Agent: *\nDisallow: *.gif$\nDisallow: /example/\nAllow: /publications/\n"
        "User-Agent: foobot\nDisallow:/\nAllow:/example/page.html\n";
    CHECK(!allows(text, "/a/picture.gif"));
    CHECK(allows(text, "/a/picture.gift"));
    CHECK(!allows(text, "/example/page.html"));
    CHECK(allows(text, "/publications/x"));
    text = "User-agent: lore\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n";
    CHECK(!allows(text, "/example/page/disallowed.gif"));
    CHECK(allows(text, "/example/page/other.gif"));
    text = "User-agent: lore\nDisallow: /same\nAllow: /same\n"; /* of equals the one that allows */
    CHECK(allows(text, "/same"));
}

TEST(wildcards)
{
    static const struct {
        const char *pattern, *path;
        bool is_match;
    } cases[] = {{"/fish", "/fish.html", true},
                 {"/fish", "/Fish.asp", false},
                 {"/fish*", "/fishheads/a", true},
                 {"/fish/", "/fish", false},
                 {"/*.php", "/folder/a.php?x", true},
                 {"/*.php", "/windows.PHP", false},
                 {"/*.php$", "/a.php", true},
                 {"/*.php$", "/a.php?x", false},
                 {"/*.php$", "/a.php.php", true},
                 {"/fish*.php", "/fishheads/catfish.php", true},
                 {"/a$", "/a", true},
                 {"/a$", "/ab", false},
                 {"/a$b", "/a$b", true},
                 {"*", "/x", true},
                 {"$", "/x", false},
                 {"/*a*b*c$", "/xaybzc", true},
                 {"/*a*b*c$", "/xacyb", false},
                 {"/ab*ab$", "/ab", false},
                 {"/ab*ab$", "/abab", true},
                 {"/a**b", "/a-b", true},
                 {"/?x=", "/?x=1", true},
                 {"*?session=", "/p?session=2", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "User-agent: *\nDisallow: %s\n", cases[i].pattern);
        if (allows(text, cases[i].path) == cases[i].is_match) {
            CHECK_STOP("'%s' and '%s'", cases[i].pattern, cases[i].path);
        }
    }
}

/* The table of RFC 9309, 2.2.2. */
TEST(encodings)
{
    CHECK(!allows("User-agent: *\nDisallow: /foo/bar/\xE3\x83\x84", "/foo/bar/%E3%83%84"));
    CHECK(!allows("User-agent: *\nDisallow: /foo/bar/%e3%83%84", "/foo/bar/%E3%83%84"));
    CHECK(!allows("User-agent: *\nDisallow: /\xE5\xB8\xAE\xE5\x8A\xA9/",
                  "/%E5%B8%AE%E5%8A%A9/a")); /* 帮助 */
    CHECK(!allows("User-agent: *\nDisallow: /foo/bar/%62%61%7A", "/foo/bar/baz"));
    CHECK(allows("User-agent: *\nDisallow: /a%2Fb", "/a/b"));
    CHECK(!allows("User-agent: *\nDisallow: /a%2Fb", "/a%2fb"));
    CHECK(!allows("User-agent: *\nDisallow: /a%2a", "/a%2Abc"));
    CHECK(allows("User-agent: *\nDisallow: /a%2a", "/abc")); /* no wildcard */
}

TEST(lines)
{
    CHECK(!allows("\xEF\xBB\xBFUser-agent:*\r\nDisallow :\t/a # why\r\r\n", "/a"));
    CHECK(allows("User-agent: *\nDisallow: #/a\n", "/a"));
    CHECK(!allows("User-agent: *\rDisallow: /a\rAllow: /b", "/a"));
    CHECK(!allows("<html>\nUser-agent: *\nnonsense\nDisallow: /a", "/a"));
    CHECK(!allows("User-agent: x\nCrawl-delay: 1\nUser-agent: *\nDisallow: /a", "/a"));
}

TEST(delays)
{
    CHECK_INT(delay_of("User-agent: *\nCrawl-delay: 2\n"), 2000);
    CHECK_INT(delay_of("User-agent: *\nCrawl-delay: 0.25\n"), 250);
    CHECK_INT(delay_of("User-agent: *\nCrawl-delay: .5\n"), 500);
    CHECK_INT(delay_of("User-agent: *\nCrawl-delay: 2\nUser-agent: lore\nCrawl-delay: 7\n"), 7000);
    CHECK_INT(delay_of("User-agent: *\nCrawl-delay: -3\nCrawl-delay: soon\n"), 0);
    CHECK_INT(delay_of("User-agent: *\nCrawl-delay: 99999999999\n"), 86400000);
    CHECK_INT(delay_of("Crawl-delay: 2\n"), 0);
}

/* 40,000 patterns of many stars against a long path: linear, not a power. */
TEST(slow_patterns)
{
    lore_buf text, path;
    lore_arena arena;
    lore_robots robots;
    lore_error err;
    lore_arena_init(&arena, 0);
    lore_buf_init(&text, 0);
    lore_buf_init(&path, 0);
    lore_buf_append(&text, LORE_STR("User-agent: *\n"));
    for (int i = 0; i < 20000; i++) {
        lore_buf_append(&text, LORE_STR("Disallow: *a*a*a*a*a*a*a*a*a*b\n"));
    }
    lore_buf_byte(&path, '/');
    for (int i = 0; i < 2000; i++) {
        lore_buf_byte(&path, 'a');
    }
    CHECK_OK(lore_robots_parse(lore_buf_str(&text), LORE_STR("lore"), &arena, &robots, &err), &err);
    int64_t start_ns = lore_clock_ns();
    CHECK(lore_robots_allows(&robots, lore_buf_str(&path)));
    CHECK(lore_clock_ns() - start_ns < INT64_C(5000000000));
    lore_buf_destroy(&path);
    lore_buf_destroy(&text);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(groups, longest_match, wildcards, encodings, lines, delays, slow_patterns)
