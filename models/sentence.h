/* Sentences: edges in plain text by English and Chinese rules.
 *
 * Text is read as cleaning leaves it: one block (paragraph, heading, list item, table row) per
 * line, so every line end is an edge, and within a line the rules look at full stops, what stands
 * before them (abbreviations, initials, numbers) and what follows. Lives beside the tokenizers
 * because both chunking and evidence ranking need it. Pure: no state, no memory, any thread. */
#ifndef LORE_MODELS_SENTENCE_H
#define LORE_MODELS_SENTENCE_H

#include "base/str.h"

typedef struct lore_span {
    size_t start, end; /* bytes of the text, end exclusive */
} lore_span;

/* The next sentence of text at or after *at, trimmed of white space; *at moves to its end. False
 * when only white space is left. Valid UTF-8 is cut only between code points; other bytes are legal
 * and pass as letters. */
bool lore_sentence_next(lore_str text, size_t *at, lore_span *sentence);

#endif
