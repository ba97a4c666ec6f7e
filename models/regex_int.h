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

/* A million bytes then take half a second at most; patterns of real models need a tenth of it. */
enum { LORE_REGEX_STEPS_A_BYTE = 128 };

typedef struct lore_regex lore_regex;

LORE_MUST_USE lore_status lore_regex_compile(lore_str pattern, lore_arena *arena,
                                             const lore_regex **regex, lore_error *err);

/* One text after the other, each searched from front to back. Zero-initialised but for `regex`,
 * `code_points` and `arena`; lore_regex_begin sets the text. */
typedef struct lore_regex_search {
    const lore_regex *regex;
    lore_str text;              /* any bytes; an invalid one counts as U+FFFD */
    const int16_t *code_points; /* [256] or NULL: each byte is the character of this number */
    lore_arena *arena;          /* stack and memory of failures */
    /* ---- private ---- */
    struct lore_regex_frame *stack;
    size_t depth, room;
    uint64_t *failed; /* [failed_room]; a bit for each split and position */
    size_t failed_from, failed_room;
    bool has_marks;              /* not until a search takes long */
    size_t steps, steps_max;     /* of all texts so far */
    size_t text_steps;           /* before this one */
    size_t alarm;                /* at so many steps something is to be done */
    struct lore_regex_run *runs; /* of each run without bound: the one that was walked last */
} lore_regex_search;

/* Search this text next: any bytes (4 GiB at most); one that is not UTF-8 counts as U+FFFD. Fails:
 * LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_regex_begin(lore_regex_search *search, lore_str text);
/* The leftmost match that starts at `from` or later, as a backtracking matcher picks it; *start is
 * SIZE_MAX where there is none. However hostile both are, all texts together take
 * LORE_REGEX_STEPS_A_BYTE steps for each of their bytes, 16 bytes of memory, and 32 MB beside.
 * Fails: LORE_ERR_NOMEM, LORE_ERR_LIMIT (steps, places to go back to). */
LORE_MUST_USE lore_status lore_regex_find(lore_regex_search *search, size_t from, size_t *start,
                                          size_t *end);
/* Why one of the two failed, with the pattern. Returns the status. */
lore_status lore_regex_explain(const lore_regex *regex, lore_status failed, lore_error *err);

/* \w as Rust's regular expressions see it. */
bool lore_regex_is_word(int32_t codepoint);

#endif
