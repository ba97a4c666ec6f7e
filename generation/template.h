/* Chat templates: how a conversation is written for a model.
 *
 * A model's folder says so in the template language Jinja; the part of it that the templates of the
 * known families use is interpreted here (docs/prompts.md), and the rest is refused at loading, by
 * name. A few templates are built in. Messages are untrusted: the output says for each byte whether
 * it came from one, so that only the template's own bytes become special tokens. A run is limited
 * in steps and memory: a template without end fails within a moment. Const after opening: any
 * thread. */
#ifndef LORE_GENERATION_TEMPLATE_H
#define LORE_GENERATION_TEMPLATE_H

#include "models/tokenizer.h"

typedef struct lore_template lore_template;

/* What the templates know of the model. A token that it has not is empty. */
typedef struct lore_template_tokens {
    lore_str bos, eos, unk, pad;
} lore_template_tokens;

/* The template of a model. choice: "auto" is the folder's own (chat_template.jinja,
 * chat_template.json, tokenizer_config.json "chat_template"; of a list, the one named default),
 * and ChatML where it has none, but its markers; a built-in one ("chatml", "llama2", "llama3",
 * "mistral", "alpaca"); else a file. The tokenizer is borrowed for the call. bos_id and eos_id (-1:
 * none) are used where the folder's files name no such tokens. Short conversations are rendered at
 * once, so that what a template cannot do is found now. Fails: LORE_ERR_UNSUPPORTED naming the
 * construct and its line, LORE_ERR_CORRUPT or LORE_ERR_INVALID (the file, line), LORE_ERR_NOT_FOUND
 * (nothing there), LORE_ERR_IO, LORE_ERR_LIMIT, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_template_open(const char *folder, const char *choice,
                                             const lore_tokenizer *tokenizer, int32_t bos_id,
                                             int32_t eos_id, const lore_limits *limits,
                                             lore_template **template_out, lore_error *err);
/* The same from a source. `name` is for messages, tokens are copied. */
LORE_MUST_USE lore_status lore_template_parse(lore_str source, const char *name,
                                              const lore_template_tokens *tokens,
                                              lore_template **template_out, lore_error *err);
void lore_template_close(lore_template *template);
/* "chatml", "llama2", ...; or the path of the file it came from. */
const char *lore_template_name(const lore_template *template);
/* False: a system message would be refused or left out; it belongs before the first user's text. */
bool lore_template_takes_system(const lore_template *template);
/* True: what comes first, the system's message aside, must be the user's. */
bool lore_template_is_user_first(const lore_template *template);

/* The special token that ends the assistant's turn, -1 where that is no special token. Known to
 * templates that lore_template_open opened. */
int32_t lore_template_end_id(const lore_template *template);

typedef struct lore_template_message {
    lore_str role; /* "system", "user", "assistant": never a client's own word */
    lore_str content;
} lore_template_message;

typedef struct lore_template_chat {
    const lore_template_message *messages;
    int32_t count;
    bool is_open;    /* add_generation_prompt: the assistant's turn begins at the end */
    int64_t unix_ms; /* the date that strftime_now gives; 0: today */
} lore_template_chat;

typedef struct lore_template_output {
    lore_str text;
    const uint8_t *foreign; /* [text.len] 1: from a message. NULL: nothing is */
} lore_template_output;

/* In the arena. Fails: LORE_ERR_INVALID with the template's own words where it refuses the
 * conversation, or with its line; LORE_ERR_UNSUPPORTED; LORE_ERR_LIMIT (steps, memory, size of the
 * text); LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_template_render(const lore_template *template,
                                               const lore_template_chat *chat, lore_arena *arena,
                                               lore_template_output *output, lore_error *err);

#endif
