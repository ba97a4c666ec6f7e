/* Source to lexemes, as Jinja does it with trim_blocks and lstrip_blocks on.
 *
 * White space is the fine print. `-` inside a tag's border takes all white space on its side. A
 * line's end right behind %} or #} goes, and so does white space between the start of a line and
 * {% or {#, unless the tag says `+`; {{ and }} leave white space alone. One line's end at the end
 * of the source is dropped, and \r\n and \r are \n before anything else happens. */
#include "base/utf8.h"
#include "generation/template_int.h"

#include <string.h>

static lore_status lex_fail(const lore_jinja_lexer *lexer, lore_status status, const char *what)
{
    return lore_fail(lexer->err, status, "%s:%d: %s", lexer->name, lexer->line, what);
}

static lore_status lex_no_memory(const lore_jinja_lexer *lexer)
{
    return lore_fail(lexer->err, LORE_ERR_NOMEM, "out of memory for the template '%s'",
                     lexer->name);
}

lore_status lore_jinja_lexer_init(lore_jinja_lexer *lexer, lore_str source, const char *name,
                                  lore_arena *arena, lore_error *err)
{
    *lexer = (lore_jinja_lexer){
        .arena = arena, .name = name, .line = 1, .is_line_start = true, .err = err};
    char *copy = lore_arena_push(arena, source.len + 1);
    if (copy == NULL) {
        return lex_no_memory(lexer);
    }
    size_t len = 0;
    for (size_t i = 0; i < source.len; i++) {
        bool is_return = source.ptr[i] == '\r';
        copy[len++] = is_return ? '\n' : source.ptr[i];
        i += is_return && i + 1 < source.len && source.ptr[i + 1] == '\n';
    }
    len -= len > 0 && copy[len - 1] == '\n';
    lexer->source = (lore_str){copy, len};
    return LORE_OK;
}

static char byte_at(const lore_jinja_lexer *lexer, size_t at)
{
    return at < lexer->source.len ? lexer->source.ptr[at] : '\0';
}

static void move_to(lore_jinja_lexer *lexer, size_t at)
{
    while (lexer->at < at) {
        lexer->line += lexer->source.ptr[lexer->at++] == '\n';
    }
}

static void skip_space(lore_jinja_lexer *lexer)
{
    size_t at = lexer->at;
    for (size_t next = at; next < lexer->source.len; at = next) {
        if (!lore_jinja_text_is_space(lore_utf8_next(lexer->source, &next))) {
            break;
        }
    }
    move_to(lexer, at);
}

/* ---- text between tags ---- */

/* Where the next tag of any kind begins, or the end. */
static size_t next_tag(const lore_jinja_lexer *lexer)
{
    size_t at = lexer->at;
    for (; at < lexer->source.len; at++) {
        if (lexer->source.ptr[at] == '{' && byte_at(lexer, at + 1) != '\0' &&
            strchr("{%#", byte_at(lexer, at + 1)) != NULL) {
            break;
        }
    }
    return at;
}

/* The text before a tag, without what the tag's border takes away. */
static lore_str text_before(const lore_jinja_lexer *lexer, size_t tag)
{
    lore_str text = lore_str_slice(lexer->source, lexer->at, tag);
    char sign = byte_at(lexer, tag + 2);
    if (tag == lexer->source.len || (byte_at(lexer, tag + 1) == '{' && sign != '-') ||
        sign == '+') {
        return text;
    }
    size_t end = text.len;
    for (size_t before = end; before > 0; end = before) {
        int32_t c = lore_utf8_prev(text, &before);
        if (!lore_jinja_text_is_space(c) || (sign != '-' && c == '\n')) {
            break;
        }
    }
    bool is_line_start = end > 0 ? text.ptr[end - 1] == '\n' : lexer->is_line_start;
    return sign == '-' || is_line_start ? lore_str_slice(text, 0, end) : text;
}

/* Behind a tag whose border begins at `at` and closes with `close` ('%', '#' or '}'), if it does.
 */
static bool take_border(lore_jinja_lexer *lexer, size_t at, char close)
{
    char sign = byte_at(lexer, at);
    bool has_sign = sign == '-' || (sign == '+' && close != '}');
    at += has_sign;
    if (byte_at(lexer, at) != close || byte_at(lexer, at + 1) != '}') {
        return false;
    }
    move_to(lexer, at + 2);
    if (has_sign && sign == '-') {
        skip_space(lexer);
    } else if (!has_sign && close != '}' && byte_at(lexer, lexer->at) == '\n') {
        move_to(lexer, lexer->at + 1);
    }
    lexer->is_line_start = lexer->source.ptr[lexer->at - 1] == '\n';
    return true;
}

static lore_status skip_comment(lore_jinja_lexer *lexer)
{
    size_t at = lexer->at + 2;
    at += byte_at(lexer, at) == '-' || byte_at(lexer, at) == '+';
    for (; at < lexer->source.len; at++) {
        if (take_border(lexer, at, '#')) {
            return LORE_OK;
        }
    }
    return lex_fail(lexer, LORE_ERR_INVALID, "a comment without its end '#}'");
}

static lore_status next_outside(lore_jinja_lexer *lexer, lore_jinja_lexeme *lexeme)
{
    size_t tag = next_tag(lexer);
    lore_str text = text_before(lexer, tag);
    if (tag > lexer->at) {
        lexeme->kind = LORE_JINJA_LEXEME_TEXT;
        lexeme->text = text;
        move_to(lexer, tag);
        lexer->is_line_start = false;
        return LORE_OK;
    }
    if (tag == lexer->source.len) {
        lexeme->kind = LORE_JINJA_LEXEME_END;
        return LORE_OK;
    }
    char kind = byte_at(lexer, tag + 1);
    if (kind == '#') {
        lexeme->kind = LORE_JINJA_LEXEME_TEXT; /* an empty one, in the comment's place */
        return skip_comment(lexer);
    }
    size_t at = tag + 2;
    at += byte_at(lexer, at) == '-' || byte_at(lexer, at) == '+';
    move_to(lexer, at);
    lexer->is_in_tag = true;
    lexeme->kind = kind == '%' ? LORE_JINJA_LEXEME_BLOCK_BEGIN : LORE_JINJA_LEXEME_OUTPUT_BEGIN;
    return LORE_OK;
}

/* ---- strings ---- */

/* The digits of \x41, \u4e2d or \U0001f600 as UTF-8; 0 where they are wrong. */
static size_t read_code_point(const lore_jinja_lexer *lexer, size_t at, size_t digits, char out[4])
{
    int64_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        int32_t digit = lore_hex_digit(byte_at(lexer, at + i));
        if (digit < 0) {
            return 0;
        }
        value = value * 16 + digit;
    }
    bool is_character = value <= 0x10ffff && !(value >= 0xd800 && value < 0xe000);
    return is_character ? lore_utf8_encode((int32_t)value, out) : 0;
}

/* One escape at `at`, which is the backslash: what it stands for goes to out. Returns the bytes it
 * takes in the source, 0 for one that is wrong. */
static size_t read_escape(const lore_jinja_lexer *lexer, size_t at, char *out, size_t *len)
{
    static const char letters[] = "ntr0abfv\\'\"", meanings[] = "\n\t\r\0\a\b\f\v\\'\"";
    char c = byte_at(lexer, at + 1);
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
        char bytes[4];
        size_t count = read_code_point(lexer, at + 2, digits, bytes);
        memcpy(out + *len, bytes, count);
        *len += count;
        return count == 0 ? 0 : 2 + digits;
    }
    const char *letter = c == '\0' ? NULL : strchr(letters, c);
    bool is_octal = (c >= '0' && c <= '7' && lore_hex_digit(byte_at(lexer, at + 2)) >= 0) ||
                    (c >= '1' && c <= '7');
    if (c == 'N' || is_octal) {
        return 0;
    }
    if (c == '\n') {
        return 2; /* the line goes on */
    }
    if (letter == NULL) {
        out[(*len)++] = '\\'; /* as in Python, an unknown escape is text */
        return 1;
    }
    out[(*len)++] = meanings[letter - letters];
    return 2;
}

static lore_status next_string(lore_jinja_lexer *lexer, lore_jinja_lexeme *lexeme)
{
    char quote = byte_at(lexer, lexer->at);
    size_t end = lexer->at + 1;
    while (end < lexer->source.len && lexer->source.ptr[end] != quote) {
        end += lexer->source.ptr[end] == '\\' ? 2 : 1;
    }
    if (end >= lexer->source.len) {
        return lex_fail(lexer, LORE_ERR_INVALID, "a string without its closing quote");
    }
    char *out = lore_arena_push(lexer->arena, end - lexer->at);
    size_t len = 0;
    if (out == NULL) {
        return lex_no_memory(lexer);
    }
    for (size_t at = lexer->at + 1; at < end;) {
        if (lexer->source.ptr[at] != '\\') {
            out[len++] = lexer->source.ptr[at++];
            continue;
        }
        size_t taken = read_escape(lexer, at, out, &len);
        if (taken == 0) {
            return lex_fail(lexer, LORE_ERR_UNSUPPORTED,
                            "a string holds an escape that is not supported (there are \\n \\t \\r "
                            "\\\\ \\' \\\" \\xHH \\uHHHH \\UHHHHHHHH)");
        }
        at += taken;
    }
    move_to(lexer, end + 1);
    lexeme->kind = LORE_JINJA_LEXEME_STRING;
    lexeme->text = (lore_str){out, len};
    return LORE_OK;
}

/* ---- the rest of a tag ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static lore_status next_integer(lore_jinja_lexer *lexer, lore_jinja_lexeme *lexeme)
{
    size_t end = lexer->at;
    while (is_digit(byte_at(lexer, end))) {
        end++;
    }
    lexeme->kind = LORE_JINJA_LEXEME_INTEGER;
    lexeme->text = lore_str_slice(lexer->source, lexer->at, end);
    bool has_fraction = byte_at(lexer, end) == '.' && is_digit(byte_at(lexer, end + 1));
    if (has_fraction || is_letter(byte_at(lexer, end)) ||
        !lore_str_to_int64(lexeme->text, &lexeme->number)) {
        return lex_fail(lexer, LORE_ERR_UNSUPPORTED,
                        "a number that is not a decimal integer of 64 bits is not supported");
    }
    move_to(lexer, end);
    return LORE_OK;
}

static lore_status next_operator(lore_jinja_lexer *lexer, lore_jinja_lexeme *lexeme)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "//", "**", "(", ")",
                                            "[",  "]",  ",",  ".",  ":",  "|",  "=", "<",
                                            ">",  "+",  "-",  "*",  "/",  "%",  "~"};
    lore_str rest = lore_str_slice(lexer->source, lexer->at, lexer->source.len);
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        lore_str op = lore_str_from(operators[i]);
        if (lore_str_starts(rest, op)) {
            lexeme->kind = LORE_JINJA_LEXEME_OPERATOR;
            lexeme->text = op;
            move_to(lexer, lexer->at + op.len);
            return LORE_OK;
        }
    }
    return rest.ptr[0] == '{'
               ? lex_fail(lexer, LORE_ERR_UNSUPPORTED, "a mapping {...} is not supported")
               : lex_fail(lexer, LORE_ERR_INVALID, "a character that belongs to no expression");
}

static lore_status next_inside(lore_jinja_lexer *lexer, lore_jinja_lexeme *lexeme)
{
    skip_space(lexer);
    lexeme->line = lexer->line;
    if (lexer->at == lexer->source.len) {
        return lex_fail(lexer, LORE_ERR_INVALID, "the template ends inside a tag");
    }
    char c = byte_at(lexer, lexer->at);
    if (take_border(lexer, lexer->at, '%')) {
        lexeme->kind = LORE_JINJA_LEXEME_BLOCK_END;
        lexer->is_in_tag = false;
        return LORE_OK;
    }
    if (take_border(lexer, lexer->at, '}')) {
        lexeme->kind = LORE_JINJA_LEXEME_OUTPUT_END;
        lexer->is_in_tag = false;
        return LORE_OK;
    }
    if (c == '\'' || c == '"') {
        return next_string(lexer, lexeme);
    }
    if (is_digit(c)) {
        return next_integer(lexer, lexeme);
    }
    if (!is_letter(c)) {
        return next_operator(lexer, lexeme);
    }
    size_t end = lexer->at;
    while (is_letter(byte_at(lexer, end)) || is_digit(byte_at(lexer, end))) {
        end++;
    }
    lexeme->kind = LORE_JINJA_LEXEME_NAME;
    lexeme->text = lore_str_slice(lexer->source, lexer->at, end);
    move_to(lexer, end);
    return LORE_OK;
}

lore_status lore_jinja_lexer_next(lore_jinja_lexer *lexer, lore_jinja_lexeme *lexeme)
{
    *lexeme = (lore_jinja_lexeme){.line = lexer->line};
    return lexer->is_in_tag ? next_inside(lexer, lexeme) : next_outside(lexer, lexeme);
}
