/* Three expressions by hand, and the walk over the matches of any other. The three, in order of
 * their alternatives (the first that matches wins):
 *
 *   GPT-2                                    Llama 3 and Qwen2
 *   's|'t|'re|'ve|'m|'ll|'d                  (?i:'s|'t|'re|'ve|'m|'ll|'d)
 *    ?\p{L}+                                 [^\r\n\p{L}\p{N}]?\p{L}+
 *    ?\p{N}+                                 \p{N}{1,3}  or  \p{N}
 *    ?[^\s\p{L}\p{N}]+                        ?[^\s\p{L}\p{N}]+[\r\n]*
 *                                            \s*[\r\n]+
 *   \s+(?!\S)                                \s+(?!\S)
 *   \s+                                      \s+
 *
 * A regular expression engine backtracks; we need not, because each alternative is a run of one
 * class of characters. The two places where backtracking shows: `\s*[\r\n]+` ends behind the last
 * line break of the white space, and `\s+(?!\S)` leaves the last white character to the word behind
 * it. */
#include "models/pretoken_int.h"

#include "base/utf8.h"
#include "models/character_int.h"
#include "models/wordpiece_int.h"

#include <string.h>

typedef enum char_class { CLASS_OTHER = 0, CLASS_LETTER, CLASS_NUMBER, CLASS_SPACE } char_class;

static const struct {
    const char *regex;
    lore_pretoken_kind kind;
} KNOWN[] = {{LORE_PATTERN_GPT2, LORE_PRETOKEN_GPT2},
             {LORE_PATTERN_LLAMA3, LORE_PRETOKEN_LLAMA3},
             {LORE_PATTERN_QWEN2, LORE_PRETOKEN_QWEN2}};

bool lore_pretoken_of(lore_str regex, lore_pretoken_kind *kind)
{
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
        if (lore_str_equal(regex, lore_str_from(KNOWN[i].regex))) {
            *kind = KNOWN[i].kind;
            return true;
        }
    }
    return false;
}

void lore_pretoken_alphabet(int16_t code_points[256])
{
    int16_t next = 256;
    for (int16_t b = 0; b < 256; b++) {
        bool is_printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code_points[b] = is_printable ? b : next++;
    }
}

/* ---- the three expressions ---- */

static char_class class_of(int32_t c)
{
    if (c < 128) {
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool is_space = c == ' ' || (c >= '\t' && c <= '\r');
        return is_letter              ? CLASS_LETTER
               : is_space             ? CLASS_SPACE
               : c >= '0' && c <= '9' ? CLASS_NUMBER
                                      : CLASS_OTHER;
    }
    return lore_utf8_is_letter(c)   ? CLASS_LETTER
           : lore_utf8_is_number(c) ? CLASS_NUMBER
           : lore_utf8_is_space(c)  ? CLASS_SPACE
                                    : CLASS_OTHER;
}

static char_class class_at(lore_str text, size_t at)
{
    return class_of(lore_utf8_next(text, &at));
}

/* End of the run of one class from `at` on, at most count_max characters long (0: no bound). */
static size_t run_end(lore_str text, size_t at, char_class class, int count_max)
{
    for (int count = 0; at < text.len && (count_max == 0 || count < count_max); count++) {
        size_t next = at;
        if (class_of(lore_utf8_next(text, &next)) != class) {
            break;
        }
        at = next;
    }
    return at;
}

/* One letter, lower case; ignoring case, U+017F (long s) is an s, as Unicode folds it. */
static char contraction_letter(lore_str text, size_t *at, bool ignores_case)
{
    if (*at >= text.len) {
        return '\0';
    }
    int32_t c = lore_utf8_next(text, at);
    if (ignores_case && c == 0x17f) {
        return 's';
    }
    if (ignores_case && c >= 'A' && c <= 'Z') {
        c += 'a' - 'A';
    }
    return c >= 'a' && c <= 'z' ? (char)c : '\0';
}

/* 's 't 'm 'd 're 've 'll: the end of one that starts at `at`, or `at` itself. */
static size_t contraction_end(lore_str text, size_t at, bool ignores_case)
{
    size_t next = at + 1;
    if (text.ptr[at] != '\'') {
        return at;
    }
    char first = contraction_letter(text, &next, ignores_case);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        return next;
    }
    char second = contraction_letter(text, &next, ignores_case);
    bool is_long = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                   (first == 'l' && second == 'l');
    return is_long ? next : at;
}

/* White space from `at` to `end`: all of it at the end of the text, else all but its last
 * character, which belongs to what follows; a single one stands alone. */
static size_t space_end(lore_str text, size_t at, size_t end)
{
    size_t last = end;
    if (end == text.len) {
        return end;
    }
    lore_utf8_prev(text, &last);
    return last > at ? last : end;
}

static size_t next_gpt2(lore_str text, size_t at)
{
    size_t end = contraction_end(text, at, false);
    if (end > at) {
        return end;
    }
    size_t word = at;
    if (text.ptr[at] == ' ' && at + 1 < text.len && class_at(text, at + 1) != CLASS_SPACE) {
        word = at + 1;
    }
    char_class class = class_at(text, word);
    end = run_end(text, word, class, 0);
    return class == CLASS_SPACE ? space_end(text, at, end) : end;
}

static bool is_break(char byte)
{
    return byte == '\r' || byte == '\n';
}

static size_t breaks_end(lore_str text, size_t at)
{
    while (at < text.len && is_break(text.ptr[at])) {
        at++;
    }
    return at;
}

/* \s*[\r\n]+ | \s+(?!\S) | \s+ */
static size_t next_space(lore_str text, size_t at)
{
    size_t end = run_end(text, at, CLASS_SPACE, 0);
    for (size_t i = end; i > at; i--) {
        if (is_break(text.ptr[i - 1])) {
            return i;
        }
    }
    return space_end(text, at, end);
}

static size_t next_llama3(lore_str text, size_t at, int digits_max)
{
    size_t end = contraction_end(text, at, true);
    if (end > at) {
        return end;
    }
    size_t second = at;
    char_class class = class_of(lore_utf8_next(text, &second));
    char_class after = second < text.len ? class_at(text, second) : CLASS_SPACE;
    bool may_lead = class != CLASS_LETTER && class != CLASS_NUMBER && !is_break(text.ptr[at]);
    if (class == CLASS_LETTER || (may_lead && after == CLASS_LETTER)) {
        return run_end(text, second, CLASS_LETTER, 0);
    }
    if (class == CLASS_NUMBER) {
        return run_end(text, at, CLASS_NUMBER, digits_max);
    }
    if (class == CLASS_OTHER || (text.ptr[at] == ' ' && after == CLASS_OTHER)) {
        return breaks_end(text, run_end(text, second, CLASS_OTHER, 0));
    }
    return next_space(text, at);
}

/* ---- matches of a step ---- */

static bool is_of_kind(lore_pretoken_kind kind, int32_t c)
{
    switch (kind) {
    case LORE_PRETOKEN_SPACE:
        return c < 128 ? c == ' ' || (c >= '\t' && c <= '\r') : lore_utf8_is_space(c);
    case LORE_PRETOKEN_NUMBER:
        return c < 128 ? c >= '0' && c <= '9' : lore_utf8_is_number(c);
    default:
        return c < 128 ? lore_character_is_ascii_punct(c) : lore_utf8_is_punct(c);
    }
}

/* The next character of the step's class. */
static void find_char(const lore_pretoken_walk *walk, lore_pretoken_segment *match)
{
    for (size_t at = walk->at; at < walk->text.len;) {
        size_t start = at;
        int32_t c = walk->step->is_mapped ? walk->code_points[(uint8_t)walk->text.ptr[at++]]
                                          : lore_utf8_next(walk->text, &at);
        if (is_of_kind(walk->step->kind, c)) {
            *match = (lore_pretoken_segment){start, at, true};
            return;
        }
    }
    match->start = SIZE_MAX;
}

/* Empty matches cut where they are, so one where we stand does not count. */
static bool find_regex(lore_pretoken_walk *walk, lore_pretoken_segment *match)
{
    size_t from = walk->at;
    for (;;) {
        walk->failed = lore_regex_find(&walk->search, from, &match->start, &match->end);
        if (walk->failed != LORE_OK) {
            return false;
        }
        bool is_nothing = match->start == match->end && match->start == walk->at;
        if (!is_nothing) {
            return true;
        }
        if (from == walk->text.len) {
            match->start = SIZE_MAX;
            return true;
        }
        if (walk->step->is_mapped) {
            from++;
        } else {
            lore_utf8_next(walk->text, &from);
        }
    }
}

/* The first match at or behind walk->at; its start is SIZE_MAX where there is none. */
static bool find_match(lore_pretoken_walk *walk, lore_pretoken_segment *match)
{
    match->is_match = true;
    if (walk->step->kind == LORE_PRETOKEN_REGEX) {
        return find_regex(walk, match);
    }
    if (walk->step->kind == LORE_PRETOKEN_LITERAL) {
        match->start = lore_str_find(walk->text, walk->step->literal, walk->at);
        match->end = match->start + walk->step->literal.len;
        return true;
    }
    find_char(walk, match);
    return true;
}

/* Matches and what lies between, in turn. */
static bool next_segment(lore_pretoken_walk *walk, lore_pretoken_segment *segment)
{
    if (walk->failed != LORE_OK) {
        return false;
    }
    if (walk->has_ahead) {
        walk->has_ahead = false;
        *segment = walk->ahead;
        return true;
    }
    while (walk->has_match || walk->at < walk->text.len) {
        if (!walk->has_match) {
            if (!find_match(walk, &walk->match)) {
                return false;
            }
            size_t end = walk->match.start == SIZE_MAX ? walk->text.len : walk->match.start;
            *segment = (lore_pretoken_segment){walk->at, end, false};
            walk->has_match = walk->match.start != SIZE_MAX;
        } else {
            *segment = walk->match;
            walk->has_match = false;
        }
        walk->at = segment->end;
        if (segment->end > segment->start) {
            segment->is_match = segment->is_match != walk->step->is_inverted;
            return true;
        }
    }
    return false;
}

/* Whether the piece so far, whose last segment is `is_match`, takes the segment behind it. */
static bool takes(lore_pretoken_behavior behavior, bool is_first, bool is_match, bool next_is_match)
{
    switch (behavior) {
    case LORE_PRETOKEN_MERGED_PREVIOUS:
        return is_first && !is_match && next_is_match;
    case LORE_PRETOKEN_MERGED_NEXT:
        return is_first && is_match && !next_is_match;
    case LORE_PRETOKEN_CONTIGUOUS:
        return is_match == next_is_match;
    case LORE_PRETOKEN_ISOLATED:
    case LORE_PRETOKEN_REMOVED:
        break;
    }
    return false;
}

/* ---- the walk ---- */

void lore_pretoken_init(lore_pretoken_walk *walk, const lore_pretoken *step, lore_arena *arena)
{
    *walk = (lore_pretoken_walk){.step = step};
    if (step->is_mapped) {
        lore_pretoken_alphabet(walk->code_points);
    }
    walk->search.regex = step->regex;
    walk->search.arena = arena;
    walk->search.code_points = step->is_mapped ? walk->code_points : NULL;
}

void lore_pretoken_begin(lore_pretoken_walk *walk, lore_str text)
{
    lore_pretoken_kind kind = walk->step->kind;
    LORE_ASSERT(kind != LORE_PRETOKEN_PREFIX);
    LORE_ASSERT(kind != LORE_PRETOKEN_METASPACE);
    walk->text = text;
    walk->at = 0;
    walk->has_match = walk->has_ahead = false;
    if (kind == LORE_PRETOKEN_REGEX && walk->failed == LORE_OK) {
        walk->failed = lore_regex_begin(&walk->search, text);
    }
}

static bool next_bert(lore_pretoken_walk *walk, size_t *start, size_t *end)
{
    lore_str word;
    if (!lore_wordpiece_next(walk->text, &walk->at, &word)) {
        return false;
    }
    *start = (size_t)(word.ptr - walk->text.ptr);
    *end = *start + word.len;
    return true;
}

static bool next_piece(lore_pretoken_walk *walk, size_t *start, size_t *end)
{
    lore_pretoken_behavior behavior = walk->step->behavior;
    lore_pretoken_segment piece, next;
    do {
        if (!next_segment(walk, &piece)) {
            return false;
        }
    } while (behavior == LORE_PRETOKEN_REMOVED && piece.is_match);
    *start = piece.start;
    bool is_alone = behavior == LORE_PRETOKEN_ISOLATED || behavior == LORE_PRETOKEN_REMOVED;
    for (bool is_first = true; !is_alone && next_segment(walk, &next); is_first = false) {
        if (!takes(behavior, is_first, piece.is_match, next.is_match)) {
            walk->ahead = next;
            walk->has_ahead = true;
            break;
        }
        piece.end = next.end;
    }
    *end = piece.end;
    return walk->failed == LORE_OK;
}

bool lore_pretoken_next(lore_pretoken_walk *walk, size_t *start, size_t *end)
{
    lore_pretoken_kind kind = walk->step->kind;
    if (kind == LORE_PRETOKEN_BERT) {
        return next_bert(walk, start, end);
    }
    if (kind > LORE_PRETOKEN_QWEN2) {
        return next_piece(walk, start, end);
    }
    if (walk->at == walk->text.len) {
        return false;
    }
    *start = walk->at;
    walk->at = kind == LORE_PRETOKEN_GPT2
                   ? next_gpt2(walk->text, walk->at)
                   : next_llama3(walk->text, walk->at, kind == LORE_PRETOKEN_LLAMA3 ? 3 : 1);
    *end = walk->at;
    return true;
}
