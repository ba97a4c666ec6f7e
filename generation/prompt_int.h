/* What a parsed template is: shared by the parser (prompt_parse.c) and the builder (prompt.c). */
#ifndef LORE_GENERATION_PROMPT_INT_H
#define LORE_GENERATION_PROMPT_INT_H

#include "generation/prompt.h"

enum {
    LORE_TEMPLATE_BYTES_MAX = 64 * 1024, /* of a file; the default has 300 */
    LORE_TEMPLATE_MESSAGES_MAX = 64,     /* few-shot examples included */
    LORE_TEMPLATE_PIECES_MAX = 1024,     /* texts and slots of all messages */
    LORE_TEMPLATE_NAME_BYTES_MAX = 64    /* of a template and of a variable */
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

typedef struct lore_template_message {
    lore_str role; /* "history": the turns of the request stand here */
    bool is_history;
    int32_t first_piece, piece_count;
} lore_template_message;

struct lore_prompt_template {
    lore_arena arena; /* name, texts, pieces, messages */
    const char *name;
    lore_template_message *messages;
    int32_t message_count; /* the last is the assistant's, left open for the answer */
    lore_prompt_piece *pieces;
    int32_t piece_count;
    bool has_history, has_passages;
};

#endif
