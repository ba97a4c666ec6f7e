/* Where sentences end. A hand-written rule set instead of a model or ICU's 31 MB of data:
 * help-centre prose is regular, and a rule that is wrong can be read and mended.
 *
 * The walk: find a run of terminators (". ?! 。 …"), take the closing quotes and brackets behind
 * it, look at what follows, and only for a single ASCII full stop look back at the word before it.
 * When in doubt there is no edge: a sentence too long still answers a question, half of one does
 * not. */
#include "models/sentence.h"

#include "base/utf8.h"

#include <string.h>

/* The longest abbreviation in the tables below is shorter than this. */
enum { WORD_BYTES_MAX = 16 };

/* What a run of terminators holds. */
enum {
    RUN_STOP = 1,      /* one '.' */
    RUN_EXCLAIM = 2,   /* ASCII ! or ? */
    RUN_WIDE = 4,      /* 。！？；｡ */
    RUN_DOTS = 8,      /* "..", "…" */
    RUN_WIDE_STOP = 16 /* ．, also used in numbers */
};

/* ---- tables ---- */

/* Never the end of a sentence: a name or an explanation follows. */
static const char *const before_names[] = {
    "mr",   "mrs",  "ms",  "mx",  "dr",  "prof", "st",   "gen",  "sen",    "rep",
    "hon",  "capt", "lt",  "col", "sgt", "maj",  "gov",  "pres", "messrs", "mme",
    "e.g",  "i.e",  "eg",  "ie",  "cf",  "vs",   "viz",  "ca",   "resp",   "incl",
    "excl", "esp",  "u.s", "u.k", "e.u", "u.n",  "ph.d", "b.sc", "m.sc",   "approx"};

/* Not an end where a number follows: "No. 5", "Fig. 2", "Jan. 3". */
static const char *const before_numbers[] = {
    "no",  "nos",  "nr",  "fig", "figs", "eq",  "sec", "sect", "vol", "p",   "pp",
    "ch",  "chap", "art", "tel", "ext",  "ver", "v",   "rev",  "ed",  "op",  "min",
    "max", "par",  "jan", "feb", "mar",  "apr", "jun", "jul",  "aug", "sep", "sept",
    "oct", "nov",  "dec", "al",  "etc",  "a.m", "p.m", "inc",  "ltd", "co",  "corp"};

static bool is_listed(lore_str word, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (lore_str_equal(word, lore_str_from(list[i]))) {
            return true;
        }
    }
    return false;
}

/* ---- characters ---- */

static bool is_blank(int32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x3000 || c == 0xA0;
}

static bool is_digit(int32_t c)
{
    return c >= '0' && c <= '9';
}

/* Written without spaces around: Han, kana and their punctuation. */
static bool is_wide(int32_t c)
{
    return c >= 0x2E80 &&
           (lore_utf8_is_cjk(c) || (c >= 0x3000 && c <= 0x303F) || (c >= 0xFF01 && c <= 0xFF65));
}

static int run_kind(int32_t c)
{
    switch (c) {
    case '.':
        return RUN_STOP;
    case '!':
    case '?':
        return RUN_EXCLAIM;
    case 0x3002: /* 。 */
    case 0xFF01: /* ！ */
    case 0xFF1F: /* ？ */
    case 0xFF1B: /* ； */
    case 0xFF61: /* ｡ */
        return RUN_WIDE;
    case 0x2026: /* … */
        return RUN_DOTS;
    case 0xFF0E: /* ． */
        return RUN_WIDE_STOP;
    default:
        return 0;
    }
}

static bool is_closer(int32_t c)
{
    static const int32_t closers[] = {'"',    '\'',   ')',    ']',    '}',    0xBB,
                                      0x2019, 0x201D, 0x3009, 0x300B, 0x300D, 0x300F,
                                      0x3011, 0x3015, 0xFF09, 0xFF3D, 0xFF5D};
    for (size_t i = 0; i < sizeof closers / sizeof closers[0]; i++) {
        if (closers[i] == c) {
            return true;
        }
    }
    return false;
}

/* The code point at `at`, 0 at the end of the text. */
static int32_t peek(lore_str text, size_t at)
{
    return at < text.len ? lore_utf8_next(text, &at) : 0;
}

static size_t skip_blanks(lore_str text, size_t at)
{
    while (at < text.len) {
        size_t next = at;
        if (!is_blank(lore_utf8_next(text, &next))) {
            break;
        }
        at = next;
    }
    return at;
}

/* ---- the single full stop ---- */

/* The word that ends before `stop`: back to a blank, an opening mark, or `start`. */
static lore_str word_before(lore_str text, size_t start, size_t stop)
{
    size_t at = stop;
    while (at > start) {
        char c = text.ptr[at - 1];
        if (c == ' ' || c == '\t' || strchr("([{\"'/<>|,;:", c) != NULL) {
            break;
        }
        at--;
    }
    return lore_str_slice(text, at, stop);
}

/* "J" or "J.R.R": a person's initials. "I" is a pronoun. */
static bool is_initials(lore_str word)
{
    if (word.len % 2 == 0 || (word.len == 1 && word.ptr[0] == 'I')) {
        return false;
    }
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        if (i % 2 == 0 ? c < 'A' || c > 'Z' : c != '.') {
            return false;
        }
    }
    return true;
}

/* "1", "12", "2.3", "a", "iv" at the start of a line: the marker of a list item or heading. */
static bool is_marker(lore_str word)
{
    if (word.len == 0 || word.len > 6) {
        return false;
    }
    bool is_number = true, is_roman = true;
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        is_number = is_number && (is_digit(c) || c == '.');
        is_roman = is_roman && strchr("ivxIVX", c) != NULL;
    }
    bool is_letter = word.len == 1 && ((word.ptr[0] | 32) >= 'a' && (word.ptr[0] | 32) <= 'z');
    return is_number || (is_roman && word.len <= 4) || is_letter;
}

/* Does the full stop at `stop` end the sentence that began at `start`, given that a blank and then
 * `next` follow? */
static bool stop_is_edge(lore_str text, size_t start, size_t stop, int32_t next)
{
    lore_str word = word_before(text, start, stop);
    bool is_first = word.ptr == text.ptr + start;
    if ((is_first && is_marker(word)) || is_initials(word)) {
        return false;
    }
    if (word.len == 0 || word.len >= WORD_BYTES_MAX) {
        return true;
    }
    char lower[WORD_BYTES_MAX];
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c | 32) : c;
    }
    lore_str folded = {lower, word.len};
    if (is_listed(folded, before_names, sizeof before_names / sizeof before_names[0])) {
        return false;
    }
    return !is_digit(next) ||
           !is_listed(folded, before_numbers, sizeof before_numbers / sizeof before_numbers[0]);
}

/* ---- edges ---- */

/* May a sentence begin with the character at `at`? Lower case says no, but for "iPhone", "eSIM". */
static bool may_begin(lore_str text, size_t at)
{
    size_t after = at;
    int32_t c = lore_utf8_next(text, &after);
    if (lore_utf8_is_letter(c)) {
        bool is_cased_lower = c < 0x2E80 && !lore_utf8_is_upper(c);
        return !is_cased_lower || ((c == 'i' || c == 'e') && lore_utf8_is_upper(peek(text, after)));
    }
    return c >= 0x80 || is_digit(c) || strchr(",;:.!?)]}%&+=", (char)c) == NULL;
}

/* Dots that trail off: an edge unless the sentence visibly goes on. */
static bool dots_are_edge(lore_str text, size_t after, bool has_blank)
{
    int32_t next = peek(text, after);
    if (is_wide(next)) {
        /* 、 ， ： 等 continue an enumeration. */
        return next != 0x3001 && next != 0xFF0C && next != 0xFF1A && next != 0x7B49;
    }
    return has_blank && may_begin(text, after);
}

/* Is there an edge at `after`, behind a run of terminators [run, run_end) and its closers? */
static bool is_edge(lore_str text, size_t start, size_t run, int kinds, size_t after)
{
    size_t visible = skip_blanks(text, after);
    bool has_blank = visible > after;
    if (visible >= text.len || memchr(text.ptr + after, '\n', visible - after) != NULL) {
        return true;
    }
    int32_t next = peek(text, visible);
    if (kinds & RUN_WIDE) {
        return next != 0x3001 && next != 0xFF0C && next != 0xFF1A;
    }
    if (kinds == RUN_DOTS) {
        return dots_are_edge(text, visible, has_blank);
    }
    size_t before = run;
    int32_t previous = run > start ? lore_utf8_prev(text, &before) : 0;
    if (kinds & RUN_WIDE_STOP) {
        return lore_utf8_is_cjk(previous) && !is_digit(next);
    }
    if (!has_blank) {
        return is_wide(next) && ((kinds & RUN_EXCLAIM) || is_wide(previous));
    }
    if (!may_begin(text, visible)) {
        return false;
    }
    return kinds != RUN_STOP || stop_is_edge(text, start, run, next);
}

/* Bytes that can begin a terminator or a line end; all others are passed over at once. */
static bool may_matter(unsigned char byte)
{
    return byte == '.' || byte == '!' || byte == '?' || byte == '\n' || byte == 0xE2 ||
           byte == 0xE3 || byte == 0xEF;
}

/* The end of the sentence that begins at `start`, which is not blank. */
static size_t find_end(lore_str text, size_t start)
{
    size_t at = start;
    while (at < text.len) {
        if (!may_matter((unsigned char)text.ptr[at])) {
            at++;
            continue;
        }
        if (text.ptr[at] == '\n') {
            return at;
        }
        size_t run = at;
        int kinds = run_kind(lore_utf8_next(text, &at));
        if (kinds == 0) {
            continue;
        }
        size_t next = at;
        for (int kind = 0; at < text.len; at = next) {
            kind = run_kind(lore_utf8_next(text, &next));
            if (kind == 0) {
                break;
            }
            kinds = (kinds | kind) == RUN_STOP ? RUN_DOTS : kinds | kind;
        }
        if (kinds & RUN_DOTS) {
            kinds &= ~RUN_STOP;
        }
        size_t after = at;
        for (next = at; after < text.len && is_closer(lore_utf8_next(text, &next)); after = next) {
        }
        if (is_edge(text, start, run, kinds, after)) {
            return after;
        }
    }
    return text.len;
}

bool lore_sentence_next(lore_str text, size_t *at, lore_span *sentence)
{
    size_t start = skip_blanks(text, *at);
    if (start >= text.len) {
        *at = text.len;
        return false;
    }
    size_t end = find_end(text, start);
    *at = end;
    while (end > start) {
        size_t before = end;
        if (!is_blank(lore_utf8_prev(text, &before))) {
            break;
        }
        end = before;
    }
    *sentence = (lore_span){start, end};
    return true;
}
