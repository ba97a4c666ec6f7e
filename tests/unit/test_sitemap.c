/* Proves that sitemaps and indexes of them are told from other XML and read: prefixes, entities,
 * CDATA, locations of images left out; that what is damaged, too long or a bomb is an error. */
#include "tests/unit/ingest_fixture.h"

#include "ingest/web_int.h"

static lore_limits limits_of(int64_t pages)
{
    lore_limits limits = LIMITS;
    limits.fetch_pages_max = pages;
    return limits;
}

static void check_urls(const char *xml, bool is_index, const char *joined)
{
    lore_arena arena;
    lore_error err = {0};
    lore_sitemap sitemap;
    lore_buf urls;
    lore_limits limits = limits_of(100);
    lore_arena_init(&arena, 0);
    lore_buf_init(&urls, 0);
    CHECK(lore_sitemap_is(lore_str_from(xml)));
    CHECK_OK(lore_sitemap_parse(lore_str_from(xml), &limits, &arena, &sitemap, &err), &err);
    CHECK(sitemap.is_index == is_index);
    for (size_t i = 0; i < sitemap.count; i++) {
        lore_buf_printf(&urls, "%s" LORE_STR_FMT, i == 0 ? "" : " ", LORE_STR_ARG(sitemap.urls[i]));
    }
    CHECK_STR(lore_buf_str(&urls), joined);
    lore_buf_destroy(&urls);
    lore_arena_destroy(&arena);
}

TEST(reads)
{
    check_urls("<?xml version=\"1.0\"?>\n<!-- made -->\n"
               "<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">"
               "<url><loc>\n https://h/a?x=1&amp;y=2 </loc><lastmod>2024-01-01</lastmod></url>"
               "<url><loc><![CDATA[https://h/问题]]></loc><image:image "
               "xmlns:image=\"i\"><image:loc>https://h/no.png</image:loc></image:image></url>"
               "<url><lastmod>2024</lastmod></url><url><loc> </loc></url></urlset>",
               false, "https://h/a?x=1&y=2 https://h/问题");
    check_urls("\xEF\xBB\xBF<s:sitemapindex "
               "xmlns:s=\"x\"><s:sitemap><s:loc>https://h/1.xml</s:loc></s:sitemap>"
               "<s:url><s:loc>https://h/no</s:loc></s:url></s:sitemapindex>",
               true, "https://h/1.xml");
    check_urls("<urlset/>", false, "");
}

TEST(tells)
{
    const char *const others[] = {"",
                                  "<",
                                  "<urlsets>",
                                  "<html><urlset>",
                                  "urlset",
                                  "<!-- <urlset>",
                                  "<?xml version=\"1.0\"?><rss><channel>",
                                  "text <urlset>"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        CHECK(!lore_sitemap_is(lore_str_from(others[i])));
    }
    CHECK(lore_sitemap_is(LORE_STR("<!DOCTYPE x><urlset\n>")));
}

TEST(refuses)
{
    lore_arena arena;
    lore_error err = {0};
    lore_sitemap sitemap;
    lore_limits limits = limits_of(2);
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_sitemap_parse(LORE_STR("<urlset><url><loc>https://h/a</loc>"), &limits, &arena,
                                   &sitemap, &err),
                LORE_ERR_INVALID, &err, "line 1");
    CHECK_FAILS(lore_sitemap_parse(LORE_STR("<!DOCTYPE x [<!ENTITY a \"b\">]><urlset>&a;</urlset>"),
                                   &limits, &arena, &sitemap, &err),
                LORE_ERR_INVALID, &err, "entities");
    CHECK_FAILS(lore_sitemap_parse(LORE_STR("<urlset><url><loc>a</loc></url><url><loc>b</loc></url>"
                                            "<url><loc>c</loc></url></urlset>"),
                                   &limits, &arena, &sitemap, &err),
                LORE_ERR_LIMIT, &err, "fetch_pages_max");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(reads, tells, refuses)
