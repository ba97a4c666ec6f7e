/* Categories come from base/utf8, minus the characters that the library does not know yet. The two
 * tables of those are coarse: a range covers what lies between two newer characters where no older
 * one of a class that matters does. (Made from Unicode's DerivedAge.) */
#include "models/character_int.h"

#include "base/utf8.h"

#include <stddef.h>

typedef struct character_range {
    int32_t first, last;
} character_range;

/* Marks and characters with a form, since Unicode 10. */
static const character_range SINCE_10[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x08D3},   {0x09FE, 0x09FE},   {0x0AFA, 0x0AFF},
    {0x0B55, 0x0B55},   {0x0C04, 0x0C3C},   {0x0CF3, 0x0D00},   {0x0D3B, 0x0D3C},
    {0x0D81, 0x0D81},   {0x0EBA, 0x0EBA},   {0x0ECE, 0x0ECE},   {0x1715, 0x1715},
    {0x180F, 0x180F},   {0x1ABF, 0x1ACE},   {0x1CF7, 0x1CF7},   {0x1DF6, 0x1DFA},
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xA82C, 0xA82C},   {0xA8FF, 0xA8FF},
    {0xAB69, 0xAB69},   {0x10781, 0x107BA}, {0x10D24, 0x10F85}, {0x11070, 0x11074},
    {0x110C2, 0x110C2}, {0x11145, 0x11146}, {0x111CE, 0x111CF}, {0x11241, 0x11241},
    {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x1182C, 0x11A99}, {0x11D31, 0x13455},
    {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE4, 0x16FF1}, {0x1CF00, 0x1CF46},
    {0x1E030, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

/* Nonspacing marks, punctuation and controls, since Unicode 9. */
static const character_range SINCE_9[] = {
    {0x061D, 0x061D},   {0x07FD, 0x07FD},   {0x0890, 0x08E2},   {0x09FD, 0x09FE},
    {0x0A76, 0x0A76},   {0x0AFA, 0x0AFF},   {0x0B55, 0x0B55},   {0x0C04, 0x0C3C},
    {0x0C77, 0x0C77},   {0x0C84, 0x0C84},   {0x0D00, 0x0D00},   {0x0D3B, 0x0D3C},
    {0x0D81, 0x0D81},   {0x0EBA, 0x0EBA},   {0x0ECE, 0x0ECE},   {0x180F, 0x180F},
    {0x1ABF, 0x1ACE},   {0x1B7D, 0x1B7E},   {0x1DF6, 0x1DFB},   {0x2E43, 0x2E5D},
    {0xA82C, 0xA82C},   {0xA8C5, 0xA8C5},   {0xA8FF, 0xA8FF},   {0x10D24, 0x10F89},
    {0x11070, 0x11074}, {0x110C2, 0x110CD}, {0x111CF, 0x111CF}, {0x1123E, 0x11241},
    {0x1133B, 0x1133B}, {0x11438, 0x1145E}, {0x11660, 0x1166C}, {0x116B9, 0x116B9},
    {0x1182F, 0x11FFF}, {0x12FF1, 0x13455}, {0x16E97, 0x16F4F}, {0x16FE2, 0x16FE4},
    {0x1CF00, 0x1CF46}, {0x1E000, 0x1E4EF}, {0x1E944, 0x1E95F}};

static bool is_in(int32_t c, const character_range *ranges, size_t count)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c > ranges[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && c >= ranges[low].first;
}

static bool is_since_10(int32_t c)
{
    return is_in(c, SINCE_10, sizeof SINCE_10 / sizeof SINCE_10[0]);
}

static bool is_since_9(int32_t c)
{
    return is_in(c, SINCE_9, sizeof SINCE_9 / sizeof SINCE_9[0]);
}

bool lore_character_is_ascii_punct(int32_t c)
{
    bool is_alphanumeric =
        (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    return c > ' ' && c < 0x7F && !is_alphanumeric;
}

bool lore_character_is_punct(int32_t c)
{
    if (c < 0x80) {
        return lore_character_is_ascii_punct(c);
    }
    bool was_punct = c == 0x166D || c == 0x111C9;
    return (lore_utf8_is_punct(c) && !is_since_9(c)) || was_punct;
}

bool lore_character_is_control(int32_t c)
{
    return c >= 0 && lore_utf8_is_control(c) && !is_since_9(c);
}

bool lore_character_is_mark(int32_t c)
{
    bool was_mark = c == 0x1CF2 || c == 0x1CF3;
    return (lore_utf8_is_mark(c) && !is_since_10(c) && c != 0x111C9) || was_mark;
}

bool lore_character_is_nonspacing(int32_t c)
{
    bool was_other = c == 0x1885 || c == 0x1886 || c == 0xA9BD || c == 0x111C9;
    return (lore_utf8_is_nonspacing(c) && !is_since_9(c) && !was_other) || c == 0x1734;
}

bool lore_character_is_han(int32_t c)
{
    static const character_range han[] = {
        {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
        {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
    return c >= 0x3400 && is_in(c, han, sizeof han / sizeof han[0]);
}

bool lore_character_is_inert(int32_t c)
{
    bool is_ideograph = c >= 0x3400 && c <= 0xA66E; /* Han, Yi: nothing to look up */
    return c < 0 || is_ideograph || lore_utf8_is_inert(c) || is_since_10(c);
}

int32_t lore_character_lower(int32_t c)
{
    /* Letters that got a lower case after the tables of base/utf8. */
    static const struct {
        int32_t first, last, lower, step;
    } later[] = {{0x1C89, 0x1C89, 0x1C8A, 1},    {0xA7CB, 0xA7CB, 0x264, 1},
                 {0xA7CC, 0xA7CE, 0xA7CD, 2},    {0xA7D2, 0xA7D4, 0xA7D3, 2},
                 {0xA7DA, 0xA7DA, 0xA7DB, 1},    {0xA7DC, 0xA7DC, 0x19B, 1},
                 {0x10D50, 0x10D65, 0x10D70, 1}, {0x16EA0, 0x16EB8, 0x16EBB, 1}};
    if (c < 0x80) {
        return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    }
    if (c == 0x130) {
        return 'i';
    }
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        if (c >= later[i].first && c <= later[i].last) {
            bool is_upper = (c - later[i].first) % later[i].step == 0;
            return is_upper ? c - later[i].first + later[i].lower : c;
        }
    }
    return lore_utf8_lower(c);
}
