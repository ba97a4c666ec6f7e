/* The template file: lines to messages, messages to pieces (docs/prompts.md).
 *
 * One walk over the lines. A line is a comment, the start of a message, or a line of the message in
 * hand; a line of a message is text with slots. Empty lines are counted instead of kept, and
 * written out only when another line of the same message follows: so a message neither begins nor
 * ends with an empty line, and the file may be laid out as it reads best. */
#include "base/file.h"
#include "base/utf8.h"
#include "generation/prompt_int.h"

#include <stdio.h>
#include <string.h>

typedef struct parser {
    lore_prompt_template *out;
    const char *source; /* for messages */
    lore_error *err;
    int32_t line_number;
    int32_t empty_lines; /* since the last line of the message in hand */
    bool has_lines;      /* the message in hand has one */
    bool has_question;
    bool has_user_last; /* a [user] stands after the last [history], if there is one */
    lore_buf text;      /* of the piece in hand */
} parser;

/* Where in the file an error is: the prefix of every message here. */
#define PARSE_FAIL(p, ...) parse_fail((p), lore_fail((p)->err, LORE_ERR_INVALID, __VA_ARGS__))

static lore_status parse_fail(const parser *p, lore_status status)
{
    if (p->err != NULL) {
        (void)lore_error_prefix(p->err, "%s:%d", p->source, p->line_number);
    }
    return status;
}

static lore_status out_of_memory(const parser *p)
{
    return lore_fail(p->err, LORE_ERR_NOMEM, "out of memory for the prompt template '%s'",
                     p->source);
}

/* ---- pieces ---- */

static lore_prompt_section *message_in_hand(const parser *p)
{
    return &p->out->messages[p->out->message_count - 1];
}

static lore_status add_piece(parser *p, lore_piece_kind kind, lore_str text)
{
    if (p->out->piece_count == LORE_PROMPT_PIECES_MAX) {
        return PARSE_FAIL(p, "more than %d texts and slots", (int)LORE_PROMPT_PIECES_MAX);
    }
    lore_prompt_piece piece = {.kind = kind, .text = lore_str_copy(&p->out->arena, text)};
    if (piece.text.ptr == NULL) {
        return out_of_memory(p);
    }
    p->out->pieces[p->out->piece_count++] = piece;
    message_in_hand(p)->piece_count++;
    return LORE_OK;
}

static lore_status flush_text(parser *p)
{
    if (lore_buf_failed(&p->text)) {
        return out_of_memory(p);
    }
    if (p->text.len == 0) {
        return LORE_OK;
    }
    lore_status status = add_piece(p, LORE_PIECE_TEXT, lore_buf_str(&p->text));
    lore_buf_reset(&p->text);
    return status;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_slot_name(lore_str name)
{
    if (name.len == 0 || name.len > LORE_PROMPT_NAME_BYTES_MAX || !is_letter(name.ptr[0])) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!is_letter(c) && !(c >= '0' && c <= '9') && c != '_') {
            return false;
        }
    }
    return true;
}

static lore_status add_slot(parser *p, lore_str name)
{
    if (!is_slot_name(name)) {
        return PARSE_FAIL(p,
                          "'{{" LORE_STR_FMT "}}' is not a slot: a name is a letter, then letters, "
                          "digits and '_', %d bytes at most",
                          LORE_STR_ARG(name), (int)LORE_PROMPT_NAME_BYTES_MAX);
    }
    if (lore_str_equal(name, LORE_STR("history"))) {
        return PARSE_FAIL(p, "history is not a slot of a message: give it a line [history]");
    }
    lore_piece_kind kind = LORE_PIECE_VARIABLE;
    if (lore_str_equal(name, LORE_STR("question"))) {
        kind = LORE_PIECE_QUESTION;
        p->has_question = true;
    } else if (lore_str_equal(name, LORE_STR("passages"))) {
        if (p->out->has_passages) {
            return PARSE_FAIL(p, "{{passages}} stands in the template twice");
        }
        kind = LORE_PIECE_PASSAGES;
        p->out->has_passages = true;
    }
    lore_status status = flush_text(p);
    return status == LORE_OK ? add_piece(p, kind, name) : status;
}

/* ---- lines ---- */

/* Text with slots. "\{{" is a literal "{{". */
static lore_status take_text(parser *p, lore_str line)
{
    for (size_t at = 0; at < line.len;) {
        lore_str rest = lore_str_slice(line, at, line.len);
        if (lore_str_starts(rest, LORE_STR("\\{{"))) {
            lore_buf_append(&p->text, LORE_STR("{{"));
            at += 3;
        } else if (lore_str_starts(rest, LORE_STR("{{"))) {
            size_t end = lore_str_find(rest, LORE_STR("}}"), 2);
            if (end == SIZE_MAX) {
                return PARSE_FAIL(p,
                                  "'{{' without '}}' on the same line (a literal one is '\\{{')");
            }
            lore_status status = add_slot(p, lore_str_trim(lore_str_slice(rest, 2, end)));
            if (status != LORE_OK) {
                return status;
            }
            at += end + 2;
        } else {
            lore_buf_byte(&p->text, line.ptr[at++]);
        }
    }
    return LORE_OK;
}

static lore_status take_content(parser *p, lore_str line)
{
    if (p->out->message_count == 0) {
        return PARSE_FAIL(p, "text before the first message: begin with a line like [system]");
    }
    if (message_in_hand(p)->is_history) {
        return PARSE_FAIL(p, "[history] has no text of its own");
    }
    int32_t breaks = p->has_lines ? p->empty_lines + 1 : 0;
    for (int32_t i = 0; i < breaks; i++) {
        lore_buf_byte(&p->text, '\n');
    }
    p->empty_lines = 0;
    p->has_lines = true;
    /* A backslash before what would otherwise mean something at the start of a line. */
    bool is_escaped = line.len > 0 && line.ptr[0] == '\\' &&
                      (line.len == 1 || strchr("#[\\", line.ptr[1]) != NULL);
    return take_text(p, lore_str_slice(line, is_escaped ? 1 : 0, line.len));
}

static lore_status end_message(parser *p)
{
    if (p->out->message_count == 0) {
        return LORE_OK;
    }
    const lore_prompt_section *message = message_in_hand(p);
    bool may_be_empty = message->is_history || lore_str_equal(message->role, LORE_STR("assistant"));
    if (!p->has_lines && !may_be_empty) {
        return PARSE_FAIL(p, "the message [" LORE_STR_FMT "] before this line is empty",
                          LORE_STR_ARG(message->role));
    }
    p->has_lines = false;
    p->empty_lines = 0;
    return flush_text(p);
}

/* "[word]" alone on its line. */
static bool is_marker(lore_str line, lore_str *word)
{
    line = lore_str_trim(line);
    if (line.len < 3 || line.ptr[0] != '[' || line.ptr[line.len - 1] != ']') {
        return false;
    }
    *word = lore_str_slice(line, 1, line.len - 1);
    for (size_t i = 0; i < word->len; i++) {
        if (!is_letter(word->ptr[i])) {
            return false;
        }
    }
    return true;
}

static lore_status begin_message(parser *p, lore_str word)
{
    static const lore_str roles[] = {{"system", 6}, {"user", 4}, {"assistant", 9}, {"history", 7}};
    lore_status status = end_message(p);
    if (status != LORE_OK) {
        return status;
    }
    const lore_str *role = NULL;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        role = lore_str_equal(word, roles[i]) ? &roles[i] : role;
    }
    if (role == NULL) {
        return PARSE_FAIL(p,
                          "unknown message [" LORE_STR_FMT "]: there are [system], [history], "
                          "[user] and [assistant] (as text: '\\[')",
                          LORE_STR_ARG(word));
    }
    if (p->out->message_count == LORE_PROMPT_MESSAGES_MAX) {
        return PARSE_FAIL(p, "more than %d messages", (int)LORE_PROMPT_MESSAGES_MAX);
    }
    bool is_history = lore_str_equal(*role, LORE_STR("history"));
    if (lore_str_equal(*role, LORE_STR("system")) && p->out->message_count > 0) {
        return PARSE_FAIL(p, "[system] must be the first message");
    }
    if (is_history && p->out->has_history) {
        return PARSE_FAIL(p, "a second [history]");
    }
    p->out->has_history = p->out->has_history || is_history;
    p->has_user_last = !is_history && (p->has_user_last || lore_str_equal(*role, LORE_STR("user")));
    p->out->messages[p->out->message_count++] = (lore_prompt_section){
        .role = *role, .is_history = is_history, .first_piece = p->out->piece_count};
    return LORE_OK;
}

static lore_status take_line(parser *p, lore_str line)
{
    lore_str word = {0};
    if (line.len == 0) {
        p->empty_lines++;
        return LORE_OK;
    }
    if (line.ptr[0] == '#') {
        return LORE_OK;
    }
    return is_marker(line, &word) ? begin_message(p, word) : take_content(p, line);
}

/* What only the whole template can have or lack. */
static lore_status check_whole(parser *p)
{
    const lore_prompt_template *out = p->out;
    if (out->message_count == 0 ||
        !lore_str_equal(message_in_hand(p)->role, LORE_STR("assistant"))) {
        return PARSE_FAIL(p, "the template must end with [assistant], which begins the answer");
    }
    if (!p->has_user_last) {
        return PARSE_FAIL(p, "the template has no [user] message%s",
                          out->has_history ? " after [history]" : "");
    }
    if (!p->has_question) {
        return PARSE_FAIL(p, "the template never uses {{question}}");
    }
    return LORE_OK;
}

static lore_status parse_lines(parser *p, lore_str text)
{
    lore_str line = {0};
    while (lore_str_next_line(&text, &line)) {
        p->line_number++;
        lore_status status = take_line(p, line);
        if (status != LORE_OK) {
            return status;
        }
    }
    lore_status status = end_message(p);
    return status == LORE_OK ? check_whole(p) : status;
}

/* ---- public ---- */

static lore_status parse_template(lore_str text, const char *source, lore_str name,
                                  lore_prompt_template **template_out, lore_error *err)
{
    if (text.len > LORE_PROMPT_BYTES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "the prompt template '%s' has %zu bytes, at most %d are allowed", source,
                         text.len, (int)LORE_PROMPT_BYTES_MAX);
    }
    size_t invalid = lore_utf8_valid(text);
    if (invalid < text.len) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "the prompt template '%s' is not UTF-8: byte %zu is wrong", source,
                         invalid);
    }
    lore_prompt_template *out = lore_alloc_zero(1, sizeof *out);
    parser p = {.out = out, .source = source, .err = err};
    lore_buf_init(&p.text, LORE_PROMPT_BYTES_MAX);
    if (out == NULL) {
        return out_of_memory(&p);
    }
    lore_arena_init(&out->arena, 0);
    out->name = lore_str_to_c(&out->arena, name);
    out->messages = LORE_PUSH(&out->arena, lore_prompt_section, LORE_PROMPT_MESSAGES_MAX);
    out->pieces = LORE_PUSH(&out->arena, lore_prompt_piece, LORE_PROMPT_PIECES_MAX);
    lore_status status = out->name == NULL || out->messages == NULL || out->pieces == NULL
                             ? out_of_memory(&p)
                             : parse_lines(&p, text);
    lore_buf_destroy(&p.text);
    if (status != LORE_OK) {
        lore_prompt_close(out);
        return status;
    }
    *template_out = out;
    return LORE_OK;
}

lore_status lore_prompt_parse(lore_str text, const char *name, lore_prompt_template **template_out,
                              lore_error *err)
{
    return parse_template(text, name, lore_str_from(name), template_out, err);
}

/* A name from a request becomes part of a path: nothing in it may lead out of the folder. */
static bool is_file_name(lore_str name)
{
    if (name.len == 0 || name.len > LORE_PROMPT_NAME_BYTES_MAX || name.ptr[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_plain = is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        if (!is_plain) {
            return false;
        }
    }
    return true;
}

lore_status lore_prompt_open(const char *folder, lore_str name, lore_prompt_template **template_out,
                             lore_error *err)
{
    if (!is_file_name(name)) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "'" LORE_STR_FMT
                         "' is not the name of a prompt: letters, digits, '-', '_' "
                         "and '.', %d bytes at most",
                         LORE_STR_ARG(name), (int)LORE_PROMPT_NAME_BYTES_MAX);
    }
    lore_buf path, text;
    lore_buf_init(&path, 0);
    lore_buf_init(&text, 0);
    lore_buf_printf(&path, "%s/" LORE_STR_FMT ".txt", folder, LORE_STR_ARG(name));
    lore_status status = LORE_OK;
    if (lore_buf_failed(&path)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for the path of a prompt");
    } else if (!lore_file_exists(lore_buf_c(&path))) {
        status = lore_fail(err, LORE_ERR_NOT_FOUND, "there is no prompt '" LORE_STR_FMT "' in '%s'",
                           LORE_STR_ARG(name), folder);
    } else {
        status = lore_file_read(lore_buf_c(&path), LORE_PROMPT_BYTES_MAX, &text, err);
    }
    if (status == LORE_OK) {
        status = parse_template(lore_buf_str(&text), lore_buf_c(&path), name, template_out, err);
    }
    lore_buf_destroy(&text);
    lore_buf_destroy(&path);
    return status;
}

void lore_prompt_close(lore_prompt_template *prompt_template)
{
    if (prompt_template != NULL) {
        lore_arena_destroy(&prompt_template->arena);
        lore_free(prompt_template);
    }
}

const char *lore_prompt_name(const lore_prompt_template *prompt_template)
{
    return prompt_template->name;
}
