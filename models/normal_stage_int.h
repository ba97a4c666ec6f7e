/* The stages of a normalizer, each a function from text to text.
 *
 * Built by normalize.c, const afterwards; any thread. */
#ifndef LORE_MODELS_NORMAL_STAGE_INT_H
#define LORE_MODELS_NORMAL_STAGE_INT_H

#include "models/charsmap_int.h"
#include "models/normal_writer_int.h"
#include "models/regex_int.h"

enum { LORE_NORMAL_DROP = INT32_MIN }; /* what a map gives for a character that goes */

/* Fields are of the functions that name them. */
typedef struct lore_normal_stage lore_normal_stage;
struct lore_normal_stage {
    void (*run)(const lore_normal_stage *stage, lore_normal_writer *w);
    const char *kind;                         /* the type in the file that asks for it */
    int32_t (*map)(int32_t c);                /* characters */
    bool is_composed, is_compatible;          /* form */
    bool left, right;                         /* strip */
    lore_str pattern;                         /* replace_string; [0] of replace_run */
    size_t run_min;                           /* replace_run */
    const lore_regex *regex;                  /* replace_regex */
    lore_str content;                         /* replace_*, prepend */
    const lore_charsmap *charsmap;            /* precompiled, sentencepiece (may be NULL) */
    bool has_prefix, is_squeezed, is_escaped; /* sentencepiece */
};

/* Each character becomes another one or goes. */
void lore_normal_characters(const lore_normal_stage *stage, lore_normal_writer *w);
int32_t lore_normal_map_lower(int32_t c);
int32_t lore_normal_map_marks(int32_t c);      /* StripAccents */
int32_t lore_normal_map_nonspacing(int32_t c); /* BertNormalizer's strip_accents */
int32_t lore_normal_map_clean(int32_t c);      /* BertNormalizer's clean_text */
int32_t lore_normal_map_nmt(int32_t c);
void lore_normal_han(const lore_normal_stage *stage, lore_normal_writer *w); /* ' ' round each */
void lore_normal_strip(const lore_normal_stage *stage, lore_normal_writer *w);
void lore_normal_prepend(const lore_normal_stage *stage, lore_normal_writer *w);
void lore_normal_replace_string(const lore_normal_stage *stage, lore_normal_writer *w);
/* A run of run_min or more of one ASCII character. */
void lore_normal_replace_run(const lore_normal_stage *stage, lore_normal_writer *w);
void lore_normal_replace_regex(const lore_normal_stage *stage, lore_normal_writer *w);

/* NFC, NFD, NFKC, NFKD (normal_form.c). */
void lore_normal_form(const lore_normal_stage *stage, lore_normal_writer *w);

/* A precompiled map, as `tokenizers` and as sentencepiece apply it (normal_charsmap.c). */
void lore_normal_precompiled(const lore_normal_stage *stage, lore_normal_writer *w);
void lore_normal_sentencepiece(const lore_normal_stage *stage, lore_normal_writer *w);

#endif
