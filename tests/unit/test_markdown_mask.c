/* What is masked and what is not; the length never changes. A mask is shown as '~'. */
#include "tests/unit/ingest_fixture.h"

static void check_mask(const char *source, const char *expected)
{
    lore_arena arena;
    char shown[512];
    lore_arena_init(&arena, 0);
    lore_str masked = lore_mask_additions(lore_str_from(source), &arena);
    CHECK_INT(masked.len, strlen(source));
    for (size_t i = 0; i < masked.len; i++) {
        shown[i] = masked.ptr[i] == LORE_MARKDOWN_MASK ? '~' : masked.ptr[i];
    }
    CHECK_STR(((lore_str){shown, masked.len}), expected);
    lore_arena_destroy(&arena);
}

TEST(attributes)
{
    check_mask("## A {#id}\n", "## A ~~~~~\n");
    check_mask("## A {: .c }  \r\nx", "## A ~~~~~~~  \r\nx");
    check_mask("## A {b}\ntext {#id}\n", "## A {b}\ntext {#id}\n");
}

TEST(calls)
{
    check_mask("> [!WARNING]", "> ~~Warning:");
    check_mask("a [!INCLUDE [x](y)] b", "a ~~~~~~~~~~~~~~~~~ b");
    check_mask("[!VIDEO u] [!other]", "~~~~~~~~~~ [!other]");
    check_mask("[!INCLUDE [x](y", "[!INCLUDE [x](y");
    check_mask("[!", "[!");
}

TEST(directives)
{
    check_mask(":::row:::", "~~~~~~~~~");
    check_mask("::: tip Head", "~~~~~~~ Head");
    check_mask(":::i alt-text=\"Pic\" x:::", "~~~~~~~~~~~~~~~Pic~~~~~~");
    check_mask(":::", "~~~");
    check_mask("```\n:::\n# {#x}\n```\n:::", "```\n:::\n# {#x}\n```\n~~~");
}

CHECK_MAIN(attributes, calls, directives)
