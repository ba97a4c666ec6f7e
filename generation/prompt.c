/* Filling a template within a token budget.
 *
 * A special token is a wall for the tokenizer: merges and the pre-tokenizer's pattern never reach
 * across. So a prompt is a row of runs, each the text between two special tokens, tokenised as one
 * piece and as plain text, whatever the slots hold. Slots are put into the text before it is
 * tokenised, not after, because merges do cross the border between a slot and the words around it,
 * and the model was trained with those merges.
 *
 * The walls also make the budget exact and cheap. A turn of the history costs the same wherever it
 * stands, so each is counted once, newest first. Passages share a run with the question and are not
 * independent: they are left out from the end, and the number is found by halving. */
#include "generation/prompt.h"

#include "generation/prompt_int.h"

#include <string.h>

enum {
    TEXT_BYTES_MAX = 16 * 1024 * 1024,    /* of a rendered prompt: beyond any context */
    SCRATCH_BYTES_MAX = 512 * 1024 * 1024 /* tokenising a text of that size, tables included */
};

static const lore_str MESSAGE_START = {"<|im_start|>", 12};
static const lore_str MESSAGE_END = {"<|im_end|>", 10};

/* What building knows: inputs, and what has been decided about the optional parts. */
typedef struct builder {
    const lore_prompt_template *template;
    const lore_tokenizer *tokenizer;
    const lore_prompt_slots *slots;
    lore_error *err;
    int32_t start_id, end_id;
    int32_t break_tokens; /* of the run "\n" between an end and the next start */
    lore_buf text;        /* scratch for counting, then the rendered prompt */
    lore_arena scratch;   /* of the tokenizer */
    int32_t passages_used, history_used;
    int32_t total; /* tokens, with these */
    lore_prompt *out;
    lore_arena *arena;
} builder;

static lore_status out_of_memory(const builder *b)
{
    return lore_fail(b->err, LORE_ERR_NOMEM, "out of memory for a prompt of %zu bytes",
                     b->text.len);
}

/* ---- text ---- */

static lore_status append_variable(builder *b, lore_str name)
{
    for (int32_t i = 0; i < b->slots->variable_count; i++) {
        if (lore_str_equal(b->slots->variables[i].name, name)) {
            lore_buf_append(&b->text, b->slots->variables[i].value);
            return LORE_OK;
        }
    }
    return lore_fail(b->err, LORE_ERR_INVALID,
                     "the prompt '%s' needs the variable '" LORE_STR_FMT "'", b->template->name,
                     LORE_STR_ARG(name));
}

static void append_passages(builder *b)
{
    for (int32_t i = 0; i < b->passages_used; i++) {
        lore_buf_printf(&b->text, "%s[%d] ", i == 0 ? "" : "\n\n", i + 1);
        lore_buf_append(&b->text, b->slots->passages[i]);
    }
}

/* The text of one message of the template from its role on, without special tokens: one run. */
static lore_status append_message(builder *b, const lore_template_message *message)
{
    lore_buf_append(&b->text, message->role);
    lore_buf_byte(&b->text, '\n');
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < message->piece_count && status == LORE_OK; i++) {
        const lore_prompt_piece *piece = &b->template->pieces[message->first_piece + i];
        switch (piece->kind) {
        case LORE_PIECE_TEXT:
            lore_buf_append(&b->text, piece->text);
            break;
        case LORE_PIECE_QUESTION:
            lore_buf_append(&b->text, b->slots->question);
            break;
        case LORE_PIECE_PASSAGES:
            append_passages(b);
            break;
        case LORE_PIECE_VARIABLE:
            status = append_variable(b, piece->text);
            break;
        }
    }
    if (status == LORE_OK && lore_buf_failed(&b->text)) {
        status = out_of_memory(b);
    }
    return status;
}

static lore_status append_turn(builder *b, const lore_prompt_message *turn)
{
    lore_buf_append(&b->text, turn->role);
    lore_buf_byte(&b->text, '\n');
    lore_buf_append(&b->text, turn->content);
    return lore_buf_failed(&b->text) ? out_of_memory(b) : LORE_OK;
}

/* ---- budget ---- */

/* Tokens of the run in the text buffer, which is emptied. */
static lore_status count_run(builder *b, int32_t *count)
{
    lore_status status =
        lore_tokenizer_count(b->tokenizer, lore_buf_str(&b->text), &b->scratch, count, b->err);
    lore_buf_reset(&b->text);
    lore_arena_reset(&b->scratch);
    return status;
}

/* Tokens of the whole prompt with so many passages and without history. */
static lore_status count_template(builder *b, int32_t passages, int64_t *total)
{
    int64_t sum = 0;
    b->passages_used = passages;
    for (int32_t i = 0; i < b->template->message_count; i++) {
        const lore_template_message *message = &b->template->messages[i];
        if (message->is_history) {
            continue;
        }
        int32_t count = 0;
        lore_status status = append_message(b, message);
        if (status == LORE_OK) {
            status = count_run(b, &count);
        }
        if (status != LORE_OK) {
            return status;
        }
        bool is_last = i == b->template->message_count - 1; /* left open: no end, no line break */
        sum += 1 + (int64_t)count + (is_last ? 0 : 1 + b->break_tokens);
    }
    *total = sum;
    return LORE_OK;
}

/* The largest number of passages that fits, when not all do. */
static lore_status fit_passages(builder *b, int32_t offered)
{
    int64_t total = 0;
    lore_status status = count_template(b, 0, &total);
    if (status != LORE_OK) {
        return status;
    }
    if (total > b->slots->tokens_max) {
        return lore_fail(b->err, LORE_ERR_LIMIT,
                         "the question and the prompt around it have %lld tokens, at most %d fit",
                         (long long)total, b->slots->tokens_max);
    }
    int32_t fits = 0, too_many = offered;
    b->total = (int32_t)total;
    while (too_many - fits > 1) {
        int32_t middle = fits + (too_many - fits) / 2;
        status = count_template(b, middle, &total);
        if (status != LORE_OK) {
            return status;
        }
        if (total <= b->slots->tokens_max) {
            fits = middle;
            b->total = (int32_t)total;
        } else {
            too_many = middle;
        }
    }
    b->passages_used = fits;
    return LORE_OK;
}

/* As many of the newest turns as fit into what the rest leaves. */
static lore_status fit_history(builder *b)
{
    for (int32_t used = 1; used <= b->slots->history_count; used++) {
        int32_t count = 0;
        lore_status status = append_turn(b, &b->slots->history[b->slots->history_count - used]);
        if (status == LORE_OK) {
            status = count_run(b, &count);
        }
        if (status != LORE_OK) {
            return status;
        }
        int64_t total = (int64_t)b->total + 2 + count + b->break_tokens;
        if (total > b->slots->tokens_max) {
            break;
        }
        b->total = (int32_t)total;
        b->history_used = used;
    }
    return LORE_OK;
}

static lore_status fit(builder *b)
{
    int32_t offered = b->template->has_passages ? b->slots->passage_count : 0;
    lore_buf_byte(&b->text, '\n');
    lore_status status =
        lore_buf_failed(&b->text) ? out_of_memory(b) : count_run(b, &b->break_tokens);
    int64_t total = 0;
    if (status == LORE_OK) {
        status = count_template(b, offered, &total);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (total > b->slots->tokens_max) {
        return fit_passages(b, offered); /* and no history: it goes before any passage does */
    }
    b->total = (int32_t)total;
    return b->template->has_history ? fit_history(b) : LORE_OK;
}

/* ---- tokens ---- */

static void put_token(builder *b, int32_t id, size_t start)
{
    lore_tokens *tokens = &b->out->tokens;
    LORE_ASSERT(tokens->count < b->total); /* counting and encoding agree */
    tokens->starts[tokens->count] = (uint32_t)start;
    tokens->ids[tokens->count++] = id;
}

static lore_status put_special(builder *b, int32_t id, lore_str written)
{
    put_token(b, id, b->text.len);
    lore_buf_append(&b->text, written);
    return lore_buf_failed(&b->text) ? out_of_memory(b) : LORE_OK;
}

/* Tokenise the text from `start` on as one plain run. */
static lore_status put_run(builder *b, size_t start)
{
    lore_tokens run = {0};
    lore_str text = lore_str_slice(lore_buf_str(&b->text), start, b->text.len);
    lore_status status = lore_tokenizer_encode(b->tokenizer, text, (lore_encode_options){0},
                                               &b->scratch, &run, b->err);
    for (int32_t i = 0; i < run.count && status == LORE_OK; i++) {
        put_token(b, run.ids[i], start + run.starts[i]);
    }
    lore_arena_reset(&b->scratch);
    return status;
}

/* One message with its markers: of the template, or (turn not NULL) of the history. */
static lore_status put_message(builder *b, const lore_template_message *message,
                               const lore_prompt_message *turn, bool is_open)
{
    lore_status status = put_special(b, b->start_id, MESSAGE_START);
    if (status != LORE_OK) {
        return status;
    }
    size_t start = b->text.len;
    status = turn != NULL ? append_turn(b, turn) : append_message(b, message);
    if (status == LORE_OK) {
        status = put_run(b, start);
    }
    if (status != LORE_OK || is_open) {
        return status;
    }
    status = put_special(b, b->end_id, MESSAGE_END);
    if (status == LORE_OK) {
        start = b->text.len;
        lore_buf_byte(&b->text, '\n');
        status = lore_buf_failed(&b->text) ? out_of_memory(b) : put_run(b, start);
    }
    return status;
}

static lore_status put_history(builder *b)
{
    lore_status status = LORE_OK;
    int32_t count = b->slots->history_count;
    for (int32_t i = count - b->history_used; i < count && status == LORE_OK; i++) {
        status = put_message(b, NULL, &b->slots->history[i], false);
    }
    return status;
}

static lore_status put_prompt(builder *b)
{
    lore_prompt *out = b->out;
    out->tokens.ids = LORE_PUSH(b->arena, int32_t, b->total);
    out->tokens.starts = LORE_PUSH(b->arena, uint32_t, b->total);
    lore_status status =
        out->tokens.ids == NULL || out->tokens.starts == NULL ? out_of_memory(b) : LORE_OK;
    int32_t count = b->template->message_count;
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        const lore_template_message *message = &b->template->messages[i];
        status =
            message->is_history ? put_history(b) : put_message(b, message, NULL, i == count - 1);
    }
    if (status != LORE_OK) {
        return status;
    }
    LORE_ASSERT(out->tokens.count == b->total);
    out->passages_used = b->passages_used;
    out->history_used = b->history_used;
    out->text = lore_str_copy(b->arena, lore_buf_str(&b->text));
    return out->text.ptr == NULL ? out_of_memory(b) : LORE_OK;
}

/* ---- public ---- */

static lore_status find_marker(builder *b, lore_str marker, int32_t *id)
{
    *id = lore_tokenizer_id(b->tokenizer, marker);
    if (*id < 0 || !lore_tokenizer_is_special(b->tokenizer, *id)) {
        return lore_fail(b->err, LORE_ERR_UNSUPPORTED,
                         "the decoder's tokenizer has no special token '" LORE_STR_FMT
                         "', which prompts are written with",
                         LORE_STR_ARG(marker));
    }
    return LORE_OK;
}

static lore_status check_roles(const builder *b)
{
    for (int32_t i = 0; i < b->slots->history_count; i++) {
        lore_str role = b->slots->history[i].role;
        if (!lore_str_equal(role, LORE_STR("user")) &&
            !lore_str_equal(role, LORE_STR("assistant"))) {
            return lore_fail(b->err, LORE_ERR_INVALID,
                             "history message %d has the role '" LORE_STR_FMT
                             "', must be user or assistant",
                             i + 1, LORE_STR_ARG(role));
        }
    }
    return LORE_OK;
}

lore_status lore_prompt_build(const lore_prompt_template *prompt_template,
                              const lore_tokenizer *tokenizer, const lore_prompt_slots *slots,
                              lore_arena *arena, lore_prompt *prompt, lore_error *err)
{
    lore_prompt built = {0};
    builder b = {.template = prompt_template,
                 .tokenizer = tokenizer,
                 .slots = slots,
                 .err = err,
                 .out = &built,
                 .arena = arena};
    lore_buf_init(&b.text, TEXT_BYTES_MAX);
    lore_arena_init(&b.scratch, SCRATCH_BYTES_MAX);
    lore_status status = find_marker(&b, MESSAGE_START, &b.start_id);
    if (status == LORE_OK) {
        status = find_marker(&b, MESSAGE_END, &b.end_id);
    }
    if (status == LORE_OK) {
        status = check_roles(&b);
    }
    if (status == LORE_OK) {
        status = fit(&b);
    }
    if (status == LORE_OK) {
        status = put_prompt(&b);
    }
    lore_arena_destroy(&b.scratch);
    lore_buf_destroy(&b.text);
    if (status == LORE_OK) {
        *prompt = built;
    }
    return status;
}
