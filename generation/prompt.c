/* Filling a template within a token budget.
 *
 * The messages are put together, the model's chat template writes them out, and the whole is
 * tokenised at once, since merges cross the border between a slot and the words around it and the
 * model was trained with those merges. The chat template says which bytes are its own; special
 * tokens are recognised in those alone, so whatever the slots hold stays text.
 *
 * What does not fit is left out: the oldest turns of the history first, then the last passages.
 * So the optional parts stand in a row, passages first, then turns, newest first, and a prompt
 * keeps a number of them from its beginning: the largest that fits is found by halving, with a
 * prompt written and counted for each guess. Mostly all fit, and that is the first guess. A guess
 * over a limit (bytes, memory, a word too long for the tokenizer) is too large like one over the
 * budget; only where nothing optional is left is the limit the caller's error. */
#include "generation/prompt.h"

#include "generation/prompt_int.h"

#include <string.h>

enum {
    TEXT_BYTES_MAX = 16 * 1024 * 1024,    /* of a rendered prompt: beyond any context */
    SCRATCH_BYTES_MAX = 512 * 1024 * 1024 /* tokenising a text of that size, tables included */
};

static const lore_str SYSTEM = {"system", 6};
static const lore_str USER = {"user", 4};
static const lore_str ASSISTANT = {"assistant", 9};

/* What building knows: inputs, and the guess in hand. */
typedef struct builder {
    const lore_prompt_template *template;
    const lore_template *chat;
    const lore_tokenizer *tokenizer;
    const lore_prompt_slots *slots;
    lore_error *err;
    int32_t passages_used, history_used;
    lore_arena scratch; /* of one guess */
    lore_buf text;      /* of one message */
    lore_str rendered;
    lore_tokens tokens;
} builder;

/* The machine has no more, or the guess is larger than a guess may be. */
static lore_status out_of_memory(const builder *b)
{
    return b->scratch.is_over_cap
               ? lore_fail(b->err, LORE_ERR_LIMIT, "a prompt that needs more than %d MiB of memory",
                           (int)(SCRATCH_BYTES_MAX >> 20))
               : lore_fail(b->err, LORE_ERR_NOMEM, "out of memory for a prompt");
}

static lore_status too_long(const builder *b, size_t len)
{
    return lore_fail(b->err, LORE_ERR_LIMIT, "a prompt of %zu bytes, at most %d may be", len,
                     (int)TEXT_BYTES_MAX);
}

/* ---- messages ---- */

static lore_status append(builder *b, lore_str text)
{
    if (b->text.len + text.len > TEXT_BYTES_MAX) {
        return too_long(b, b->text.len + text.len);
    }
    lore_buf_append(&b->text, text);
    return lore_buf_failed(&b->text) ? out_of_memory(b) : LORE_OK;
}

static lore_status append_variable(builder *b, lore_str name)
{
    for (int32_t i = 0; i < b->slots->variable_count; i++) {
        if (lore_str_equal(b->slots->variables[i].name, name)) {
            return append(b, b->slots->variables[i].value);
        }
    }
    return lore_fail(b->err, LORE_ERR_INVALID,
                     "the prompt '%s' needs the variable '" LORE_STR_FMT "'", b->template->name,
                     LORE_STR_ARG(name));
}

static lore_status append_passages(builder *b)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < b->passages_used && status == LORE_OK; i++) {
        lore_buf_printf(&b->text, "%s[%d] ", i == 0 ? "" : "\n\n", i + 1);
        status = append(b, b->slots->passages[i]);
    }
    return status;
}

/* The text of one message of the template, slots filled in. */
static lore_status write_section(builder *b, const lore_prompt_section *section, lore_str *out)
{
    lore_status status = LORE_OK;
    lore_buf_reset(&b->text);
    for (int32_t i = 0; i < section->piece_count && status == LORE_OK; i++) {
        const lore_prompt_piece *piece = &b->template->pieces[section->first_piece + i];
        switch (piece->kind) {
        case LORE_PIECE_TEXT:
            status = append(b, piece->text);
            break;
        case LORE_PIECE_QUESTION:
            status = append(b, b->slots->question);
            break;
        case LORE_PIECE_PASSAGES:
            status = append_passages(b);
            break;
        case LORE_PIECE_VARIABLE:
            status = append_variable(b, piece->text);
            break;
        }
    }
    if (status != LORE_OK) {
        return status;
    }
    *out = lore_str_copy(&b->scratch, lore_buf_str(&b->text));
    return out->ptr == NULL ? out_of_memory(b) : LORE_OK;
}

/* All messages but the last, which is open. The array has room for them. */
static lore_status write_messages(builder *b, lore_template_message *messages, int32_t *count)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < b->template->message_count - 1 && status == LORE_OK; i++) {
        const lore_prompt_section *section = &b->template->messages[i];
        if (!section->is_history) {
            messages[*count].role = section->role;
            status = write_section(b, section, &messages[(*count)++].content);
            continue;
        }
        for (int32_t j = b->history_used; j > 0; j--) {
            const lore_prompt_message *turn = &b->slots->history[b->slots->history_count - j];
            bool is_user = lore_str_equal(turn->role, USER);
            messages[(*count)++] =
                (lore_template_message){is_user ? USER : ASSISTANT, turn->content};
        }
    }
    return status;
}

/* Put the system's text before the first user's, for a chat template that has no system. */
static lore_status fold_system(builder *b, lore_template_message *messages, int32_t *count)
{
    lore_str system = messages[0].content;
    memmove(messages, messages + 1, (size_t)(*count - 1) * sizeof *messages);
    (*count)--;
    int32_t first = 0;
    while (!lore_str_equal(messages[first].role, USER)) {
        first++; /* there is one: the parser saw to it */
        LORE_ASSERT(first < *count);
    }
    const lore_str parts[] = {system, LORE_STR("\n\n"), messages[first].content};
    lore_status status = LORE_OK;
    lore_buf_reset(&b->text);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && status == LORE_OK; i++) {
        status = append(b, parts[i]);
    }
    if (status != LORE_OK) {
        return status;
    }
    messages[first].content = lore_str_copy(&b->scratch, lore_buf_str(&b->text));
    return messages[first].content.ptr == NULL ? out_of_memory(b) : LORE_OK;
}

/* ---- one guess ---- */

/* The chat template's output and behind it the beginning of the answer, to tokens. */
static lore_status encode(builder *b, const lore_template_output *output, lore_str answer)
{
    size_t len = output->text.len + answer.len;
    if (len > TEXT_BYTES_MAX) {
        return too_long(b, len);
    }
    char *text = lore_arena_push(&b->scratch, len);
    uint8_t *foreign = lore_arena_push(&b->scratch, len);
    if (text == NULL || foreign == NULL) {
        return out_of_memory(b);
    }
    memcpy(text, output->text.ptr, output->text.len);
    memcpy(text + output->text.len, answer.ptr, answer.len);
    memcpy(foreign, output->foreign, output->text.len);
    memset(foreign + output->text.len, 1, answer.len);
    b->rendered = (lore_str){text, len};
    const lore_encode_options options = {.allow_special = true, .foreign = foreign};
    return lore_tokenizer_encode(b->tokenizer, b->rendered, options, &b->scratch, &b->tokens,
                                 b->err);
}

/* The prompt with so many of the optional parts; answers without their question are not kept where
 * the chat template would refuse them. */
static lore_status guess(builder *b, int32_t kept, int32_t passages)
{
    const lore_prompt_message *history = b->slots->history;
    b->passages_used = kept < passages ? kept : passages;
    b->history_used = kept - b->passages_used;
    while (b->history_used > 0 && lore_template_is_user_first(b->chat) &&
           !lore_str_equal(history[b->slots->history_count - b->history_used].role, USER)) {
        b->history_used--;
    }
    lore_arena_reset(&b->scratch);
    int32_t last = b->template->message_count - 1, count = 0;
    lore_template_message *messages =
        LORE_PUSH(&b->scratch, lore_template_message, last + b->history_used);
    lore_template_output output = {0};
    lore_str answer = {0};
    lore_status status = messages == NULL ? out_of_memory(b) : write_messages(b, messages, &count);
    if (status == LORE_OK && !lore_template_takes_system(b->chat) &&
        lore_str_equal(messages[0].role, SYSTEM)) {
        status = fold_system(b, messages, &count);
    }
    if (status == LORE_OK) {
        status = write_section(b, &b->template->messages[last], &answer);
    }
    if (status == LORE_OK) {
        const lore_template_chat chat = {.messages = messages, .count = count, .is_open = true};
        status = lore_template_render(b->chat, &chat, &b->scratch, &output, b->err);
    }
    if (status == LORE_OK) {
        status = encode(b, &output, answer);
    }
    return status == LORE_ERR_NOMEM ? out_of_memory(b) : status; /* whoever ran out of it */
}

/* ---- budget ---- */

/* *is_small: it fits. What is over a limit does not, and is no failure. */
static lore_status try_guess(builder *b, int32_t kept, int32_t passages, bool *is_small)
{
    lore_status status = guess(b, kept, passages);
    *is_small = status == LORE_OK && b->tokens.count <= b->slots->tokens_max;
    return status == LORE_ERR_LIMIT ? LORE_OK : status;
}

/* The guess that keeps as much as fits is in hand afterwards. */
static lore_status fit(builder *b)
{
    int32_t passages = b->template->has_passages ? b->slots->passage_count : 0;
    int32_t turns = b->template->has_history ? b->slots->history_count : 0;
    int32_t fits = 0, too_many = passages + turns, guessed = too_many;
    bool is_small = false;
    lore_status status = too_many > 0 ? try_guess(b, guessed, passages, &is_small) : LORE_OK;
    if (status != LORE_OK || is_small) {
        return status;
    }
    status = guess(b, guessed = 0, passages);
    if (status == LORE_OK && b->tokens.count > b->slots->tokens_max) {
        return lore_fail(b->err, LORE_ERR_LIMIT,
                         "the question and the prompt around it have %d tokens, at most %d fit",
                         b->tokens.count, b->slots->tokens_max);
    }
    while (status == LORE_OK && too_many - fits > 1) {
        guessed = fits + (too_many - fits) / 2;
        status = try_guess(b, guessed, passages, &is_small);
        fits = is_small ? guessed : fits;
        too_many = is_small ? too_many : guessed;
    }
    return status == LORE_OK && guessed != fits ? guess(b, fits, passages) : status;
}

/* ---- public ---- */

static lore_status check_roles(const builder *b)
{
    for (int32_t i = 0; i < b->slots->history_count; i++) {
        lore_str role = b->slots->history[i].role;
        if (!lore_str_equal(role, USER) && !lore_str_equal(role, ASSISTANT)) {
            return lore_fail(b->err, LORE_ERR_INVALID,
                             "history message %d has the role '" LORE_STR_FMT
                             "', must be user or assistant",
                             i + 1, LORE_STR_ARG(role));
        }
    }
    return LORE_OK;
}

/* What is in hand, copied to where it stays. */
static lore_status copy_prompt(const builder *b, lore_arena *arena, lore_prompt *prompt)
{
    int32_t count = b->tokens.count;
    lore_prompt copy = {.text = lore_str_copy(arena, b->rendered),
                        .passages_used = b->passages_used,
                        .history_used = b->history_used};
    copy.tokens.ids = LORE_PUSH(arena, int32_t, count);
    copy.tokens.starts = LORE_PUSH(arena, uint32_t, count);
    copy.tokens.count = count;
    if (copy.text.ptr == NULL || copy.tokens.ids == NULL || copy.tokens.starts == NULL) {
        return out_of_memory(b);
    }
    if (count > 0) {
        memcpy(copy.tokens.ids, b->tokens.ids, (size_t)count * sizeof *copy.tokens.ids);
        memcpy(copy.tokens.starts, b->tokens.starts, (size_t)count * sizeof *copy.tokens.starts);
    }
    *prompt = copy;
    return LORE_OK;
}

lore_status lore_prompt_build(const lore_prompt_template *prompt_template,
                              const lore_template *chat_template, const lore_tokenizer *tokenizer,
                              const lore_prompt_slots *slots, lore_arena *arena,
                              lore_prompt *prompt, lore_error *err)
{
    lore_error failure = {.status = LORE_OK}; /* also of guesses that are not the last word */
    builder b = {.template = prompt_template,
                 .chat = chat_template,
                 .tokenizer = tokenizer,
                 .slots = slots,
                 .err = &failure};
    lore_buf_init(&b.text, 0); /* append() bounds it */
    lore_arena_init(&b.scratch, SCRATCH_BYTES_MAX);
    lore_status status = check_roles(&b);
    if (status == LORE_OK) {
        status = fit(&b);
    }
    if (status == LORE_OK) {
        status = copy_prompt(&b, arena, prompt);
    }
    lore_arena_destroy(&b.scratch);
    lore_buf_destroy(&b.text);
    if (status != LORE_OK && err != NULL) {
        *err = failure;
    }
    return status;
}
