/* What a parsed template is: shared by the parser (prompt_parse.c) and the builder (prompt.c). */
#ifndef LORE_GENERATION_PROMPT_INT_H
#define LORE_GENERATION_PROMPT_INT_H

#include "generation/prompt.h"

enum {
    LORE_PROMPT_BYTES_MAX = 64 * 1024, /* of a file; the default has 300 */
    LORE_PROMPT_MESSAGES_MAX = 64,     /* few-shot examples included */
    LORE_PROMPT_PIECES_MAX = 1024,     /* texts and slots of all messages */
    LORE_PROMPT_NAME_BYTES_MAX = 64    /* of a template and of a variable */
};

typedef enum lore_piece_kind {
    LORE_PIECE_TEXT,
    LORE_PIECE_QUESTION,
    LORE_PIECE_PASSAGES,
    LORE_PIECE_VARIABLE
} lore_piece_kind;

typedef struct lore_prompt_piece {
    lore_piece_kind kind;
    lore_str text; /* the text, or the variable's name */
} lore_prompt_piece;

typedef struct lore_prompt_section {
    lore_str role; /* "history": the turns of the request stand here */
    bool is_history;
    int32_t first_piece, piece_count;
} lore_prompt_section;

struct lore_prompt_template {
    lore_arena arena; /* name, texts, pieces, messages */
    const char *name;
    lore_prompt_section *messages;
    int32_t message_count; /* the last is the assistant's, left open for the answer */
    lore_prompt_piece *pieces;
    int32_t piece_count;
    bool has_history, has_passages;
};

#endif
