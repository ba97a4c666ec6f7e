/* The regular expressions of tokenizer files: the part of Oniguruma's language that split patterns
 * are written in, run by backtracking with a memory of what failed.
 *
 * Known: literals, `.`, sets with ranges and negation, \s \S \d \D \w \W \p{..} \P{..}, escapes,
 * groups (?:..) and (?i:..), alternatives, ? * + {n} {n,} {n,m}, lazy and (of one set) possessive
 * repeats, lookahead of one set, ^ $ \A \z. Anything else is LORE_ERR_UNSUPPORTED and named.
 * A compiled expression is const and lives in its arena; a search belongs to one thread. */
#ifndef LORE_MODELS_REGEX_INT_H
#define LORE_MODELS_REGEX_INT_H

#include "base/str.h"

typedef struct lore_regex lore_regex;

LORE_MUST_USE lore_status lore_regex_compile(lore_str pattern, lore_arena *arena,
                                             const lore_regex **regex, lore_error *err);

/* One text at a time that is searched from front to back. Zero-initialised but for the first two;
 * lore_regex_begin sets the text. */
typedef struct lore_regex_search {
    const lore_regex *regex;
    lore_str text;              /* any bytes; an invalid one counts as U+FFFD */
    const int16_t *code_points; /* [256] or NULL: each byte is the character of this number */
    lore_arena *arena;          /* stack and memory of failures */
    /* ---- private ---- */
    struct lore_regex_frame *stack;
    size_t depth, room;
    uint64_t *failed; /* NULL until a search takes long; then a bit for each split and position */
    size_t failed_from;
    size_t steps;
    struct lore_regex_run *runs; /* of each run without bound: the one that was walked last */
} lore_regex_search;

/* Search this text next: any bytes; one that is not UTF-8 counts as U+FFFD. False: out of memory.
 */
LORE_MUST_USE bool lore_regex_begin(lore_regex_search *search, lore_str text);
/* The leftmost match that starts at `from` or later, as a backtracking matcher picks it; *start is
 * SIZE_MAX where there is none. O(size of the expression * text) for a whole text searched from
 * front to back, however hostile both are. False: out of memory. */
LORE_MUST_USE bool lore_regex_find(lore_regex_search *search, size_t from, size_t *start,
                                   size_t *end);

/* \w as Rust's regular expressions see it. */
bool lore_regex_is_word(int32_t codepoint);

#endif
