/* Unicode: the fence around utf8proc, plus the decoding loops everything shares.
 *
 * Code points are int32_t. Functions that take text expect valid UTF-8 unless they say otherwise;
 * use lore_utf8_valid at the border. Thread: any, no state. */
#ifndef LORE_BASE_UTF8_H
#define LORE_BASE_UTF8_H

#include "base/str.h"

/* Index of the first invalid byte, or s.len when all is valid (RFC 3629: no surrogates, no
 * overlong). */
size_t lore_utf8_valid(lore_str s);
/* Decode the code point at s.ptr[*at] and advance *at. Invalid bytes give U+FFFD and advance by
 * one. *at < s.len asserted. */
int32_t lore_utf8_next(lore_str s, size_t *at);
/* Decode the code point that ends before *at and move *at back to its start. *at > 0 asserted. */
int32_t lore_utf8_prev(lore_str s, size_t *at);
/* Write 1..4 bytes, returns how many. */
size_t lore_utf8_encode(int32_t codepoint, char out[4]);
size_t lore_utf8_count(lore_str s); /* code points */

bool lore_utf8_is_letter(int32_t codepoint); /* general category L* */
bool lore_utf8_is_number(int32_t codepoint); /* general category N* */
bool lore_utf8_is_mark(int32_t codepoint);   /* general category M* */
bool lore_utf8_is_space(
    int32_t codepoint); /* White_Space property, as in regular expressions' \s */
bool lore_utf8_is_upper(int32_t codepoint);
bool lore_utf8_is_punct(int32_t codepoint);      /* P* */
bool lore_utf8_is_nonspacing(int32_t codepoint); /* Mn */
bool lore_utf8_is_control(int32_t codepoint);    /* Cc, Cf, Co */
int32_t lore_utf8_lower(int32_t codepoint);      /* simple lower case */
bool lore_utf8_is_cjk(
    int32_t codepoint); /* Han, kana, Hangul, Bopomofo; Thai, Lao, Khmer, Myanmar too (no spaces) */

/* General category: an index into these two-letter names. */
#define LORE_UTF8_CATEGORIES "CnLuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCo"
int32_t lore_utf8_category(int32_t codepoint);

/* Append the search form of s to out: compatibility form (NFKC), case folded, without accents and
 * without invisible characters (soft hyphens, joiners). Marks that are letters in all but name
 * stay: Indic, Thai, kana voicing. */
lore_status lore_utf8_fold(lore_str s, lore_buf *out, lore_error *err);
/* Append the NFC form of s to out. */
lore_status lore_utf8_nfc(lore_str s, lore_buf *out, lore_error *err);
/* True when s is certainly in NFC (quick check by code point ranges; false may be wrong on the safe
 * side). */
bool lore_utf8_is_nfc(lore_str s);

/* ---- the parts that normal forms are made of (UAX #15) ---- */
enum { LORE_UTF8_DECOMPOSED_MAX = 18 }; /* U+FDFA */
/* In all four forms itself, and nothing joins with it: a place where text can be cut. */
bool lore_utf8_is_inert(int32_t codepoint);
int32_t lore_utf8_combining_class(int32_t codepoint);
/* Sort items of `size` bytes, each beginning with an int32_t code point, by its combining class;
 * equal ones stay as they stand. O(count). spare has room for all of them. */
void lore_utf8_sort_marks(void *marks, size_t count, size_t size, void *spare);
/* The full decomposition, canonical or compatible; gives how many code points, 1 or more. */
size_t lore_utf8_decompose(int32_t codepoint, bool is_compatible,
                           int32_t out[LORE_UTF8_DECOMPOSED_MAX]);
/* The primary composite of two code points, or -1. */
int32_t lore_utf8_compose(int32_t first, int32_t second);
/* Whether a user-perceived character ends between two code points (UAX #29, extended clusters).
 * *state is 0 at the start of a text and carried along. */
bool lore_utf8_is_grapheme_break(int32_t left, int32_t right, int32_t *state);

#endif
