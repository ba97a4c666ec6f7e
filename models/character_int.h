/* Classes of characters as the `tokenizers` library sees them.
 *
 * Its normalizers carry Unicode data of their own age: forms and combining marks are Unicode 9,
 * general categories Unicode 8, lower case that of a recent Rust. A character that is newer is
 * unassigned to it: not a mark, not punctuation, its own form. Code points are int32_t; negative
 * ones (a byte that is not UTF-8) are of no class. Thread: any, no state. */
#ifndef LORE_MODELS_CHARACTER_INT_H
#define LORE_MODELS_CHARACTER_INT_H

#include <stdbool.h>
#include <stdint.h>

bool lore_character_is_ascii_punct(int32_t c); /* ASCII's punctuation and symbols */
bool lore_character_is_punct(int32_t c);       /* P*, and those */
bool lore_character_is_control(int32_t c);     /* Cc, Cf, Co */
bool lore_character_is_mark(int32_t c);        /* M* */
bool lore_character_is_nonspacing(int32_t c);  /* Mn */
bool lore_character_is_han(int32_t c);         /* what BertNormalizer puts spaces around */
/* Never changes under normalisation, nor does anything join with it. */
bool lore_character_is_inert(int32_t c);
/* Lower case of one character; U+0130 gives 'i', the dot that follows it is the caller's. */
int32_t lore_character_lower(int32_t c);

#endif
