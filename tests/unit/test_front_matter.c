/* Front matter is found where it is, and text that only looks like it stays. */
#include "tests/unit/ingest_fixture.h"

static void check_matter(const char *text, const char *title, const char *rest)
{
    lore_str found, whole = lore_str_from(text);
    size_t from = lore_front_matter(whole, &found);
    CHECK_STR(found, title);
    CHECK_STR(lore_str_slice(whole, from, whole.len), rest);
}

TEST(yaml)
{
    check_matter("---\ntitle: A page\nid: 3\n---\nbody", "A page", "body");
    check_matter("---\r\ntitle: \"It's: quoted\" # why\r\ntags:\r\n  - one\r\n---\r\nbody",
                 "It's: quoted", "body");
    check_matter("---\n# comment\n\nslug: x\ntitle: plain # comment\n...\nbody", "plain", "body");
    check_matter("---\ntitle: >-\n  folded\n---\nbody", "", "body");
    check_matter("---\ntitle: 'open\n---\nbody", "", "body");
    check_matter("+++\ntitle = \"Toml\"\n+++\nbody", "Toml", "body");
}

TEST(none)
{
    check_matter("", "", "");
    check_matter("---", "", "---");
    check_matter("---\ntitle: never closed\n", "", "---\ntitle: never closed\n");
    check_matter("---\nA rule, then prose without any setting\n---\nbody", "",
                 "---\nA rule, then prose without any setting\n---\nbody");
    check_matter("text\n---\ntitle: x\n---\n", "", "text\n---\ntitle: x\n---\n");
}

CHECK_MAIN(yaml, none)
