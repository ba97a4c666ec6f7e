/* Pre-tokenizers: one step that cuts a text into pieces, as tokenizer.json describes it.
 *
 * A step finds matches in the text (of an expression, a string, a class of characters) and says
 * what becomes of them and of what lies between. The expressions of GPT-2, Llama 3 and Qwen2, which
 * match at every position, are run by hand-written code, the others by regex.c. Steps are const
 * once loaded; a walk belongs to one thread. */
#ifndef LORE_MODELS_PRETOKEN_INT_H
#define LORE_MODELS_PRETOKEN_INT_H

#include "models/regex_int.h"

typedef enum lore_pretoken_kind {
    LORE_PRETOKEN_GPT2 = 0, /* GPT-2, RoBERTa, ByteLevel(use_regex) */
    LORE_PRETOKEN_LLAMA3,   /* Llama 3, GPT-4: up to three digits together */
    LORE_PRETOKEN_QWEN2,    /* Qwen2, Qwen3, lore's own: each digit alone */
    LORE_PRETOKEN_REGEX,
    LORE_PRETOKEN_LITERAL, /* a string */
    LORE_PRETOKEN_SPACE,   /* each white space character */
    LORE_PRETOKEN_PUNCT,   /* each punctuation character, those of ASCII in the wide sense */
    LORE_PRETOKEN_NUMBER,  /* each character of general category N* */
    LORE_PRETOKEN_BERT,    /* BertPreTokenizer */
    /* These two change the text and cut nothing. */
    LORE_PRETOKEN_PREFIX,   /* put `literal` in front where the text does not begin with it */
    LORE_PRETOKEN_METASPACE /* write `literal` for each space, and put it in front as `prefix` says
                             */
} lore_pretoken_kind;

/* What becomes of the matches; pieces that are empty are dropped. */
typedef enum lore_pretoken_behavior {
    LORE_PRETOKEN_ISOLATED = 0,
    LORE_PRETOKEN_REMOVED,
    LORE_PRETOKEN_MERGED_PREVIOUS, /* a match belongs to what stands before it */
    LORE_PRETOKEN_MERGED_NEXT,
    LORE_PRETOKEN_CONTIGUOUS /* matches side by side are one piece */
} lore_pretoken_behavior;

typedef enum lore_pretoken_prefix {
    LORE_PREFIX_ALWAYS = 0,
    LORE_PREFIX_FIRST, /* at the beginning of the whole text only */
    LORE_PREFIX_NEVER
} lore_pretoken_prefix;

typedef struct lore_pretoken {
    lore_pretoken_kind kind;
    lore_pretoken_behavior behavior;
    bool is_inverted; /* what lies between matches is the match */
    bool is_mapped; /* behind ByteLevel: each byte is seen as its character of the byte alphabet */
    const lore_regex *regex;
    lore_str literal;
    lore_pretoken_prefix prefix;
} lore_pretoken;

/* GPT-2's bytes_to_unicode: the character that stands for each byte, all of them below
 * LORE_BYTE_ALPHABET. */
enum { LORE_BYTE_ALPHABET = 324 };
void lore_pretoken_alphabet(int16_t code_points[256]);

/* The expressions that are run by hand. */
#define LORE_PATTERN_GPT2 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LORE_PATTERN_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define LORE_PATTERN_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LORE_PATTERN_LLAMA3 LORE_PATTERN_HEAD "\\p{N}{1,3}" LORE_PATTERN_TAIL
#define LORE_PATTERN_QWEN2 LORE_PATTERN_HEAD "\\p{N}" LORE_PATTERN_TAIL

/* False where the expression is none of the three. */
bool lore_pretoken_of(lore_str regex, lore_pretoken_kind *kind);

typedef struct lore_pretoken_segment {
    size_t start, end;
    bool is_match;
} lore_pretoken_segment;

typedef struct lore_pretoken_walk {
    const lore_pretoken *step;
    lore_str text;
    size_t at; /* segments have been given up to here */
    bool has_match, has_ahead;
    lore_pretoken_segment match; /* found, what stands before it was given first */
    lore_pretoken_segment ahead; /* read too early */
    lore_regex_search search;
    int16_t code_points[256]; /* of a step that is mapped */
    lore_status failed;       /* why there is no next piece; lore_regex_explain says it */
} lore_pretoken_walk;

/* A walk by a step that cuts, for one text after the other. */
void lore_pretoken_init(lore_pretoken_walk *walk, const lore_pretoken *step, lore_arena *arena);
/* Cut this text next: any bytes; what is not UTF-8 counts as symbols, a byte each. */
void lore_pretoken_begin(lore_pretoken_walk *walk, lore_str text);
/* The next piece, never empty. False: there is none, or walk->failed. */
bool lore_pretoken_next(lore_pretoken_walk *walk, size_t *start, size_t *end);

#endif
