/* Prompt templates: files with slots, parsed once, filled within a token budget.
 *
 * A template (docs/prompts.md) is a list of chat messages with slots: {{question}}, {{passages}}
 * and {{name}} for variables of the request; a line [history] is where earlier turns go. How
 * messages are written is the model's chat template's affair (template.h). Only what that writes
 * itself becomes special tokens; messages, slots and all, are tokenised as plain text, so a literal
 * <|im_start|> in a page stays text. Const after parsing: any thread. */
#ifndef LORE_GENERATION_PROMPT_H
#define LORE_GENERATION_PROMPT_H

#include "generation/template.h"

typedef struct lore_prompt_template lore_prompt_template;

/* Fails: LORE_ERR_INVALID naming `name` and the line, LORE_ERR_LIMIT, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_prompt_parse(lore_str text, const char *name,
                                            lore_prompt_template **template_out, lore_error *err);
/* folder/name.txt. Fails also: LORE_ERR_NOT_FOUND, LORE_ERR_IO; LORE_ERR_INVALID for a name that is
 * more than a name (letters, digits, '-', '_', '.', not first). */
LORE_MUST_USE lore_status lore_prompt_open(const char *folder, lore_str name,
                                           lore_prompt_template **template_out, lore_error *err);
void lore_prompt_close(lore_prompt_template *prompt_template);
const char *lore_prompt_name(const lore_prompt_template *prompt_template);

/* role: "user" or "assistant"; anything else is LORE_ERR_INVALID, so that no turn of a request can
 * pass for an instruction of the system. */
typedef struct lore_prompt_message {
    lore_str role, content;
} lore_prompt_message;
typedef struct lore_prompt_variable {
    lore_str name, value;
} lore_prompt_variable;

typedef struct lore_prompt_slots {
    lore_str question;
    const lore_str *passages; /* best first; numbered [1] [2] ... in the prompt */
    int32_t passage_count;
    const lore_prompt_message *history; /* oldest first */
    int32_t history_count;
    const lore_prompt_variable *variables; /* one that the template needs and the request lacks is
                                              LORE_ERR_INVALID */
    int32_t variable_count;
    int32_t tokens_max; /* of the whole prompt */
} lore_prompt_slots;

typedef struct lore_prompt {
    lore_tokens tokens;    /* starts are offsets in text */
    lore_str text;         /* what the model sees, special tokens written out, for --mode prompt */
    int32_t passages_used; /* the first so many; last ones are left out when the budget is small */
    int32_t history_used;  /* the newest so many */
} lore_prompt;

/* In the arena. Drops oldest history first, then last passages, whole; LORE_ERR_LIMIT when the
 * question alone does not fit. A template without [history] or {{passages}} uses none of them.
 * Where the chat template takes no system message, its text goes before the first user's; where it
 * lets only the user speak first, no answer is kept without its question. Fails also as
 * lore_template_render: LORE_ERR_INVALID where the chat template refuses the conversation. */
LORE_MUST_USE lore_status lore_prompt_build(const lore_prompt_template *prompt_template,
                                            const lore_template *chat_template,
                                            const lore_tokenizer *tokenizer,
                                            const lore_prompt_slots *slots, lore_arena *arena,
                                            lore_prompt *prompt, lore_error *err);

#endif
