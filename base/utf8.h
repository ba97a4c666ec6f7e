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
bool lore_utf8_is_punct(int32_t codepoint); /* P* */
bool lore_utf8_is_cjk(
    int32_t codepoint); /* Han, kana, Hangul, Bopomofo; Thai, Lao, Khmer, Myanmar too (no spaces) */

/* Append the search form of s to out: compatibility form (NFKC), case folded, without accents and
 * without invisible characters (soft hyphens, joiners). Marks that are letters in all but name
 * stay: Indic, Thai, kana voicing. */
lore_status lore_utf8_fold(lore_str s, lore_buf *out, lore_error *err);
/* Append the NFC form of s to out. */
lore_status lore_utf8_nfc(lore_str s, lore_buf *out, lore_error *err);
/* True when s is certainly in NFC (quick check by code point ranges; false may be wrong on the safe
 * side). */
bool lore_utf8_is_nfc(lore_str s);

#endif
