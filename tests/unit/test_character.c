/* Characters are classed as the library's old tables class them; what is newer is unassigned.
 * (All code points were compared with the package once; these are the ones that differ.) */
#include "models/character_int.h"
#include "tests/check.h"

TEST(old_categories)
{
    CHECK(lore_character_is_punct('$'));
    CHECK(!lore_character_is_punct('a'));
    CHECK(!lore_character_is_punct(' '));
    CHECK(!lore_character_is_punct(0x7F));
    CHECK(lore_character_is_punct(0x3002));
    CHECK(lore_character_is_punct(0x166D));  /* a symbol today */
    CHECK(!lore_character_is_punct(0x2E43)); /* Unicode 9 */
    CHECK(!lore_character_is_punct(0xFF04)); /* full width $: a symbol, and not ASCII */
    CHECK(lore_character_is_control(1));
    CHECK(lore_character_is_control(0xAD));
    CHECK(lore_character_is_control(0xE000));
    CHECK(!lore_character_is_control(0x378)); /* unassigned */
    CHECK(!lore_character_is_control(0x8E2)); /* Unicode 9 */
    CHECK(!lore_character_is_control(-0xFF));
    CHECK(lore_character_is_han(0x4E00));
    CHECK(!lore_character_is_han(0x3042));
    CHECK(!lore_character_is_han(0x2B820)); /* extension E is left out, there as here */
}

TEST(old_marks)
{
    CHECK(lore_character_is_mark(0x301));
    CHECK(lore_character_is_mark(0x903)); /* a spacing one */
    CHECK(lore_character_is_mark(0x1CF2));
    CHECK(lore_character_is_mark(0x8E0)); /* Unicode 9 */
    CHECK(!lore_character_is_mark(0x1DF6));
    CHECK(lore_character_is_nonspacing(0x301));
    CHECK(!lore_character_is_nonspacing(0x903));
    CHECK(!lore_character_is_nonspacing(0x8E0)); /* Unicode 9, and these tables are 8 */
    CHECK(lore_character_is_nonspacing(0x1734));
    CHECK(!lore_character_is_nonspacing(0x1885));
}

TEST(inert_ones)
{
    CHECK(lore_character_is_inert(0x4E00));
    CHECK(lore_character_is_inert(0x20AC));
    CHECK(lore_character_is_inert(-0x80));
    CHECK(lore_character_is_inert(0x11938)); /* composed since Unicode 13 */
    CHECK(lore_character_is_inert(0x32FF));
    CHECK(!lore_character_is_inert('a')); /* a mark may join it */
    CHECK(!lore_character_is_inert(0xE9));
    CHECK(!lore_character_is_inert(0x301));
    CHECK(!lore_character_is_inert(0xAC00));
    CHECK(!lore_character_is_inert(0x1161));
    CHECK(!lore_character_is_inert(0x9BE));
}

TEST(lower_case)
{
    CHECK_INT(lore_character_lower('A'), 'a');
    CHECK_INT(lore_character_lower('['), '[');
    CHECK_INT(lore_character_lower(0xC9), 0xE9);
    CHECK_INT(lore_character_lower(0x130), 'i');
    CHECK_INT(lore_character_lower(0x3A3), 0x3C3);
    CHECK_INT(lore_character_lower(0x1E9E), 0xDF);
    CHECK_INT(lore_character_lower(0xA7CC), 0xA7CD);
    CHECK_INT(lore_character_lower(0xA7CD), 0xA7CD);
    CHECK_INT(lore_character_lower(0x10D65), 0x10D85);
    CHECK_INT(lore_character_lower(0x16EA1), 0x16EBC);
    CHECK_INT(lore_character_lower(0x4E00), 0x4E00);
}

CHECK_MAIN(old_categories, old_marks, inert_ones, lower_case)
