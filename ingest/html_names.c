/* What HTML elements mean to a reader of text: one sorted table for the HTML and Markdown parsers.
 *
 * In Markdown an element that is not listed is no HTML at all but a placeholder such as <bucket>,
 * and stays in the text. */
#include "ingest/ingest_int.h"

#include <assert.h>
#include <string.h>

enum { TAG_NAME_MAX = 12 };

typedef struct tag_name {
    const char *name;
    lore_tag tag;
} tag_name;

/* Sorted bytewise for the binary search; the test checks it. */
static const tag_name names[] = {
    {"a", LORE_TAG_A},
    {"abbr", LORE_TAG_INLINE},
    {"acronym", LORE_TAG_INLINE},
    {"address", LORE_TAG_BLOCK},
    {"applet", LORE_TAG_DROP},
    {"area", LORE_TAG_VOID},
    {"article", LORE_TAG_ARTICLE},
    {"aside", LORE_TAG_ASIDE},
    {"audio", LORE_TAG_DROP},
    {"b", LORE_TAG_INLINE},
    {"base", LORE_TAG_VOID},
    {"bdi", LORE_TAG_INLINE},
    {"bdo", LORE_TAG_INLINE},
    {"big", LORE_TAG_INLINE},
    {"blockquote", LORE_TAG_BLOCK},
    {"body", LORE_TAG_BODY},
    {"br", LORE_TAG_BR},
    {"button", LORE_TAG_DROP},
    {"canvas", LORE_TAG_DROP},
    {"caption", LORE_TAG_BLOCK},
    {"center", LORE_TAG_BLOCK},
    {"cite", LORE_TAG_INLINE},
    {"code", LORE_TAG_INLINE},
    {"col", LORE_TAG_VOID},
    {"colgroup", LORE_TAG_INLINE},
    {"data", LORE_TAG_INLINE},
    {"datalist", LORE_TAG_DROP},
    {"dd", LORE_TAG_BLOCK},
    {"del", LORE_TAG_INLINE},
    {"details", LORE_TAG_BLOCK},
    {"dfn", LORE_TAG_INLINE},
    {"dialog", LORE_TAG_DROP},
    {"dir", LORE_TAG_UL},
    {"div", LORE_TAG_BLOCK},
    {"dl", LORE_TAG_BLOCK},
    {"dt", LORE_TAG_BLOCK},
    {"em", LORE_TAG_INLINE},
    {"embed", LORE_TAG_VOID},
    {"fieldset", LORE_TAG_BLOCK},
    {"figcaption", LORE_TAG_BLOCK},
    {"figure", LORE_TAG_BLOCK},
    {"font", LORE_TAG_INLINE},
    {"footer", LORE_TAG_FOOTER},
    {"form", LORE_TAG_FORM},
    {"frame", LORE_TAG_VOID},
    {"frameset", LORE_TAG_BLOCK},
    {"h1", LORE_TAG_H1},
    {"h2", LORE_TAG_H2},
    {"h3", LORE_TAG_H3},
    {"h4", LORE_TAG_H4},
    {"h5", LORE_TAG_H5},
    {"h6", LORE_TAG_H6},
    {"head", LORE_TAG_INLINE},
    {"header", LORE_TAG_HEADER},
    {"hgroup", LORE_TAG_BLOCK},
    {"hr", LORE_TAG_BR},
    {"html", LORE_TAG_BLOCK},
    {"i", LORE_TAG_INLINE},
    {"iframe", LORE_TAG_DROP},
    {"img", LORE_TAG_IMG},
    {"input", LORE_TAG_VOID},
    {"ins", LORE_TAG_INLINE},
    {"kbd", LORE_TAG_INLINE},
    {"keygen", LORE_TAG_VOID},
    {"label", LORE_TAG_INLINE},
    {"legend", LORE_TAG_BLOCK},
    {"li", LORE_TAG_LI},
    {"link", LORE_TAG_VOID},
    {"main", LORE_TAG_MAIN},
    {"map", LORE_TAG_INLINE},
    {"mark", LORE_TAG_INLINE},
    {"math", LORE_TAG_INLINE},
    {"menu", LORE_TAG_UL},
    {"meta", LORE_TAG_META},
    {"meter", LORE_TAG_INLINE},
    {"nav", LORE_TAG_NAV},
    {"nobr", LORE_TAG_INLINE},
    {"noframes", LORE_TAG_DROP},
    {"noscript", LORE_TAG_DROP},
    {"object", LORE_TAG_DROP},
    {"ol", LORE_TAG_OL},
    {"optgroup", LORE_TAG_DROP},
    {"option", LORE_TAG_DROP},
    {"output", LORE_TAG_INLINE},
    {"p", LORE_TAG_BLOCK},
    {"param", LORE_TAG_VOID},
    {"picture", LORE_TAG_INLINE},
    {"pre", LORE_TAG_PRE},
    {"progress", LORE_TAG_INLINE},
    {"q", LORE_TAG_INLINE},
    {"rp", LORE_TAG_DROP},
    {"rt", LORE_TAG_DROP},
    {"ruby", LORE_TAG_INLINE},
    {"s", LORE_TAG_INLINE},
    {"samp", LORE_TAG_INLINE},
    {"script", LORE_TAG_DROP},
    {"search", LORE_TAG_NAV},
    {"section", LORE_TAG_BLOCK},
    {"select", LORE_TAG_DROP},
    {"slot", LORE_TAG_INLINE},
    {"small", LORE_TAG_INLINE},
    {"source", LORE_TAG_VOID},
    {"span", LORE_TAG_INLINE},
    {"strike", LORE_TAG_INLINE},
    {"strong", LORE_TAG_INLINE},
    {"style", LORE_TAG_DROP},
    {"sub", LORE_TAG_INLINE},
    {"summary", LORE_TAG_BLOCK},
    {"sup", LORE_TAG_INLINE},
    {"svg", LORE_TAG_DROP},
    {"table", LORE_TAG_TABLE},
    {"tbody", LORE_TAG_INLINE},
    {"td", LORE_TAG_CELL},
    {"template", LORE_TAG_DROP},
    {"textarea", LORE_TAG_DROP},
    {"tfoot", LORE_TAG_INLINE},
    {"th", LORE_TAG_CELL},
    {"thead", LORE_TAG_INLINE},
    {"time", LORE_TAG_INLINE},
    {"title", LORE_TAG_TITLE},
    {"tr", LORE_TAG_ROW},
    {"track", LORE_TAG_VOID},
    {"tt", LORE_TAG_INLINE},
    {"u", LORE_TAG_INLINE},
    {"ul", LORE_TAG_UL},
    {"var", LORE_TAG_INLINE},
    {"video", LORE_TAG_DROP},
    {"wbr", LORE_TAG_VOID},
};

static_assert(sizeof names / sizeof names[0] == LORE_HTML_NAMES, "ingest_int.h says how many");

int32_t lore_html_name(lore_str name)
{
    char lower[TAG_NAME_MAX];
    if (name.len == 0 || name.len > sizeof lower) {
        return -1;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c | 32) : c;
    }
    lore_str folded = {lower, name.len};
    int32_t low = 0, high = LORE_HTML_NAMES;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        int order = lore_str_compare(lore_str_from(names[middle].name), folded);
        if (order == 0) {
            return middle;
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return -1;
}

lore_tag lore_html_tag(lore_str name)
{
    int32_t index = lore_html_name(name);
    return index < 0 ? LORE_TAG_UNKNOWN : names[index].tag;
}
