/* PDF hyphens: whether the one at the end of a line belongs to the word.
 *
 * The document itself is asked first: a word that stands whole somewhere else in it is joined, one
 * that has its hyphen there keeps it. Otherwise it is joined, but for what is hardly ever a part of
 * a word: behind "self" and its like, behind another hyphen, and before a capital or a figure. */
#include "ingest/pdf_int.h"

#include "base/utf8.h"

#include <string.h>

enum { PART_LETTERS_MIN = 2, WORD_BYTES_MAX = 64, SPARE_SLOTS = 2 };

size_t lore_pdf_hyphen(lore_str line)
{
    static const char *const hyphens[] = {"-", "\xE2\x80\x90", "\xC2\xAD"};
    for (size_t i = 0; i < sizeof hyphens / sizeof hyphens[0]; i++) {
        lore_str hyphen = lore_str_from(hyphens[i]);
        if (lore_str_ends(line, hyphen) && line.len > hyphen.len) {
            size_t at = line.len - hyphen.len;
            return lore_utf8_is_letter(lore_utf8_prev(line, &at)) ? hyphen.len : 0;
        }
    }
    return 0;
}

static bool is_part(int32_t c)
{
    return lore_utf8_is_letter(c) || lore_utf8_is_mark(c) || c == '-' || c == 0x2010;
}

/* Letters and hyphens at the start of text; at its end. */
static lore_str first_part(lore_str text)
{
    size_t end = 0;
    for (size_t at = 0; at < text.len; end = at) {
        if (!is_part(lore_utf8_next(text, &at))) {
            break;
        }
    }
    return lore_str_slice(text, 0, end);
}

static lore_str last_part(lore_str text)
{
    size_t start = text.len;
    for (size_t at = text.len; at > 0; start = at) {
        if (!is_part(lore_utf8_prev(text, &at))) {
            break;
        }
    }
    return lore_str_slice(text, start, text.len);
}

static uint64_t hash_word(lore_str word)
{
    char lower[WORD_BYTES_MAX];
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    uint64_t hash = lore_str_hash((lore_str){lower, word.len});
    return hash == 0 ? 1 : hash;
}

/* The slot of the word, free or its own. */
static uint64_t *slot_of(const lore_pdf_vocabulary *vocabulary, uint64_t hash)
{
    size_t at = (size_t)(hash % vocabulary->slot_count);
    while (vocabulary->slots[at] != 0 && vocabulary->slots[at] != hash) {
        at = at + 1 == vocabulary->slot_count ? 0 : at + 1;
    }
    return &vocabulary->slots[at];
}

static bool is_known(const lore_pdf_vocabulary *vocabulary, lore_str word)
{
    return vocabulary->slot_count > 0 && word.len <= WORD_BYTES_MAX &&
           *slot_of(vocabulary, hash_word(word)) != 0;
}

/* Words of a line, but not a part at its end. Gives how many. */
static size_t learn_line(const lore_pdf_vocabulary *vocabulary, lore_str line)
{
    size_t count = 0;
    for (size_t at = 0; at < line.len;) {
        lore_str word = first_part(lore_str_slice(line, at, line.len));
        bool is_cut = at + word.len == line.len && lore_pdf_hyphen(line) > 0;
        if (word.len > 0 && !is_cut) {
            count++;
            if (vocabulary->slots != NULL && word.len <= WORD_BYTES_MAX) {
                uint64_t hash = hash_word(word);
                *slot_of(vocabulary, hash) = hash;
            }
        }
        at += word.len;
        if (at < line.len) {
            (void)lore_utf8_next(line, &at);
        }
    }
    return count;
}

lore_status lore_pdf_learn_words(const lore_pdf_lines *lines, lore_pdf_vocabulary *vocabulary,
                                 lore_error *err)
{
    const lore_pdf_vocabulary nothing = {NULL, 0};
    size_t words = 0, hyphens = 0;
    *vocabulary = nothing;
    for (size_t i = 0; i < lines->count; i++) {
        hyphens += lore_pdf_hyphen(lines->items[i].text) > 0 ? 1 : 0;
        words += learn_line(&nothing, lines->items[i].text);
    }
    if (hyphens == 0) {
        return LORE_OK;
    }
    vocabulary->slot_count = words * SPARE_SLOTS + 1;
    vocabulary->slots = lore_alloc_zero(vocabulary->slot_count, sizeof *vocabulary->slots);
    if (vocabulary->slots == NULL) {
        *vocabulary = nothing;
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu words", words);
    }
    for (size_t i = 0; i < lines->count; i++) {
        (void)learn_line(vocabulary, lines->items[i].text);
    }
    return LORE_OK;
}

void lore_pdf_forget_words(lore_pdf_vocabulary *vocabulary)
{
    lore_free(vocabulary->slots);
    *vocabulary = (lore_pdf_vocabulary){NULL, 0};
}

/* Words that are written with a hyphen before many others. */
static bool is_prefix(lore_str part)
{
    static const char *const prefixes[] = {"self", "well", "non", "ex",   "all",   "cross",
                                           "half", "high", "low", "long", "short", "quasi"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (lore_str_equal_nocase(part, lore_str_from(prefixes[i]))) {
            return true;
        }
    }
    return false;
}

bool lore_pdf_is_broken_word(const lore_pdf_vocabulary *vocabulary, lore_str line, lore_str next)
{
    size_t hyphen = lore_pdf_hyphen(line), start = 0;
    lore_str left = last_part(lore_str_slice(line, 0, line.len - hyphen)), right = first_part(next);
    char whole[WORD_BYTES_MAX];
    if (hyphen == 0 || right.len == 0 || left.len + right.len + 1 > sizeof whole) {
        return false;
    }
    int32_t c = lore_utf8_next(right, &start);
    if (!lore_utf8_is_letter(c) || lore_utf8_is_upper(c)) {
        return false;
    }
    if (hyphen == 2) { /* a soft one says itself what it is */
        return true;
    }
    memcpy(whole, left.ptr, left.len);
    memcpy(whole + left.len, right.ptr, right.len);
    if (is_known(vocabulary, (lore_str){whole, left.len + right.len})) {
        return true;
    }
    whole[left.len] = '-';
    memcpy(whole + left.len + 1, right.ptr, right.len);
    bool keeps = is_known(vocabulary, (lore_str){whole, left.len + 1 + right.len});
    return !keeps && memchr(left.ptr, '-', left.len) == NULL && !is_prefix(left) &&
           lore_utf8_count(left) >= PART_LETTERS_MIN && lore_utf8_count(right) >= PART_LETTERS_MIN;
}
