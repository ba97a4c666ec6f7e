/* The element table: any case, nothing beside it, and sorted (a name out of order is not found). */
#include "tests/unit/ingest_fixture.h"

TEST(names)
{
    CHECK_INT(lore_html_tag(LORE_STR("P")), LORE_TAG_BLOCK);
    CHECK_INT(lore_html_tag(LORE_STR("script")), LORE_TAG_DROP);
    CHECK_INT(lore_html_tag(LORE_STR("h6")), LORE_TAG_H6);
    CHECK_INT(lore_html_tag(LORE_STR("bucket")), LORE_TAG_UNKNOWN);
    CHECK_INT(lore_html_tag(LORE_STR("")), LORE_TAG_UNKNOWN);
    CHECK_INT(lore_html_tag(LORE_STR("averylongelementname")), LORE_TAG_UNKNOWN);
    CHECK_INT(lore_html_name(LORE_STR("a")), 0);
    CHECK_INT(lore_html_name(LORE_STR("WBR")), LORE_HTML_NAMES - 1);
    CHECK_INT(lore_html_name(LORE_STR("bucket")), -1);
}

TEST(every_name_is_found)
{
    static const char *const all[] = {
        "a",      "abbr",     "article",  "aside",   "b",      "blockquote", "body",   "br",
        "button", "caption",  "code",     "col",     "dd",     "details",    "div",    "dl",
        "dt",     "em",       "fieldset", "figure",  "footer", "form",       "h1",     "head",
        "header", "hr",       "html",     "i",       "iframe", "img",        "input",  "kbd",
        "li",     "link",     "main",     "meta",    "nav",    "noscript",   "ol",     "option",
        "p",      "pre",      "ruby",     "s",       "samp",   "section",    "select", "source",
        "span",   "strong",   "sub",      "summary", "sup",    "svg",        "table",  "tbody",
        "td",     "template", "textarea", "tfoot",   "th",     "thead",      "time",   "title",
        "tr",     "track",    "tt",       "u",       "ul",     "var",        "video",  "wbr"};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (lore_html_tag(lore_str_from(all[i])) == LORE_TAG_UNKNOWN) {
            CHECK_STOP("'%s' is not found", all[i]);
        }
    }
}

CHECK_MAIN(names, every_name_is_found)
