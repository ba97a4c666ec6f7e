/* Two expressions, by hand. In order of their alternatives (the first that matches wins):
 *
 *   GPT-2                                    Llama 3 and Qwen2
 *   's|'t|'re|'ve|'m|'ll|'d                  (?i:'s|'t|'re|'ve|'m|'ll|'d)
 *    ?\p{L}+                                 [^\r\n\p{L}\p{N}]?\p{L}+
 *    ?\p{N}+                                 \p{N}{1,3}  or  \p{N}
 *    ?[^\s\p{L}\p{N}]+                        ?[^\s\p{L}\p{N}]+[\r\n]*
 *                                            \s*[\r\n]+
 *   \s+(?!\S)                                \s+(?!\S)
 *   \s+                                      \s+
 *
 * A regular expression engine backtracks; we need not, because each alternative is a run of one
 * class of characters. The two places where backtracking shows: `\s*[\r\n]+` ends behind the last
 * line break of the white space, and `\s+(?!\S)` leaves the last white character to the word behind
 * it. */
#include "models/pretoken_int.h"

#include "base/utf8.h"

typedef enum char_class { CLASS_OTHER = 0, CLASS_LETTER, CLASS_NUMBER, CLASS_SPACE } char_class;

#define PATTERN_GPT2 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define PATTERN_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define PATTERN_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    lore_str regex;
    lore_pretoken pattern;
} KNOWN[] = {
    {{PATTERN_GPT2, sizeof PATTERN_GPT2 - 1}, LORE_PRETOKEN_GPT2},
    {{PATTERN_HEAD "\\p{N}{1,3}" PATTERN_TAIL, sizeof(PATTERN_HEAD "\\p{N}{1,3}" PATTERN_TAIL) - 1},
     LORE_PRETOKEN_LLAMA3},
    {{PATTERN_HEAD "\\p{N}" PATTERN_TAIL, sizeof(PATTERN_HEAD "\\p{N}" PATTERN_TAIL) - 1},
     LORE_PRETOKEN_QWEN2}};

bool lore_pretoken_of(lore_str regex, lore_pretoken *pattern)
{
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
        if (lore_str_equal(regex, KNOWN[i].regex)) {
            *pattern = KNOWN[i].pattern;
            return true;
        }
    }
    return false;
}

static char_class class_of(int32_t c)
{
    if (c < 128) {
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool is_space = c == ' ' || (c >= '\t' && c <= '\r');
        return is_letter              ? CLASS_LETTER
               : is_space             ? CLASS_SPACE
               : c >= '0' && c <= '9' ? CLASS_NUMBER
                                      : CLASS_OTHER;
    }
    return lore_utf8_is_letter(c)   ? CLASS_LETTER
           : lore_utf8_is_number(c) ? CLASS_NUMBER
           : lore_utf8_is_space(c)  ? CLASS_SPACE
                                    : CLASS_OTHER;
}

static char_class class_at(lore_str text, size_t at)
{
    return class_of(lore_utf8_next(text, &at));
}

/* End of the run of one class from `at` on, at most count_max characters long (0: no bound). */
static size_t run_end(lore_str text, size_t at, char_class class, int count_max)
{
    for (int count = 0; at < text.len && (count_max == 0 || count < count_max); count++) {
        size_t next = at;
        if (class_of(lore_utf8_next(text, &next)) != class) {
            break;
        }
        at = next;
    }
    return at;
}

/* One letter, lower case; ignoring case, U+017F (long s) is an s, as Unicode folds it. */
static char contraction_letter(lore_str text, size_t *at, bool ignores_case)
{
    if (*at >= text.len) {
        return '\0';
    }
    int32_t c = lore_utf8_next(text, at);
    if (ignores_case && c == 0x17f) {
        return 's';
    }
    if (ignores_case && c >= 'A' && c <= 'Z') {
        c += 'a' - 'A';
    }
    return c >= 'a' && c <= 'z' ? (char)c : '\0';
}

/* 's 't 'm 'd 're 've 'll: the end of one that starts at `at`, or `at` itself. */
static size_t contraction_end(lore_str text, size_t at, bool ignores_case)
{
    size_t next = at + 1;
    if (text.ptr[at] != '\'') {
        return at;
    }
    char first = contraction_letter(text, &next, ignores_case);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        return next;
    }
    char second = contraction_letter(text, &next, ignores_case);
    bool is_long = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                   (first == 'l' && second == 'l');
    return is_long ? next : at;
}

/* White space from `at` to `end`: all of it at the end of the text, else all but its last
 * character, which belongs to what follows; a single one stands alone. */
static size_t space_end(lore_str text, size_t at, size_t end)
{
    size_t last = end;
    if (end == text.len) {
        return end;
    }
    lore_utf8_prev(text, &last);
    return last > at ? last : end;
}

static size_t next_gpt2(lore_str text, size_t at)
{
    size_t end = contraction_end(text, at, false);
    if (end > at) {
        return end;
    }
    size_t word = at;
    if (text.ptr[at] == ' ' && at + 1 < text.len && class_at(text, at + 1) != CLASS_SPACE) {
        word = at + 1;
    }
    char_class class = class_at(text, word);
    end = run_end(text, word, class, 0);
    return class == CLASS_SPACE ? space_end(text, at, end) : end;
}

static bool is_break(char byte)
{
    return byte == '\r' || byte == '\n';
}

static size_t breaks_end(lore_str text, size_t at)
{
    while (at < text.len && is_break(text.ptr[at])) {
        at++;
    }
    return at;
}

/* \s*[\r\n]+ | \s+(?!\S) | \s+ */
static size_t next_space(lore_str text, size_t at)
{
    size_t end = run_end(text, at, CLASS_SPACE, 0);
    for (size_t i = end; i > at; i--) {
        if (is_break(text.ptr[i - 1])) {
            return i;
        }
    }
    return space_end(text, at, end);
}

static size_t next_llama3(lore_str text, size_t at, int digits_max)
{
    size_t end = contraction_end(text, at, true);
    if (end > at) {
        return end;
    }
    size_t second = at;
    char_class class = class_of(lore_utf8_next(text, &second));
    char_class after = second < text.len ? class_at(text, second) : CLASS_SPACE;
    bool may_lead = class != CLASS_LETTER && class != CLASS_NUMBER && !is_break(text.ptr[at]);
    if (class == CLASS_LETTER || (may_lead && after == CLASS_LETTER)) {
        return run_end(text, second, CLASS_LETTER, 0);
    }
    if (class == CLASS_NUMBER) {
        return run_end(text, at, CLASS_NUMBER, digits_max);
    }
    if (class == CLASS_OTHER || (text.ptr[at] == ' ' && after == CLASS_OTHER)) {
        return breaks_end(text, run_end(text, second, CLASS_OTHER, 0));
    }
    return next_space(text, at);
}

size_t lore_pretoken_next(lore_pretoken pattern, lore_str text, size_t at)
{
    LORE_ASSERT(at < text.len);
    switch (pattern) {
    case LORE_PRETOKEN_GPT2:
        return next_gpt2(text, at);
    case LORE_PRETOKEN_LLAMA3:
        return next_llama3(text, at, 3);
    case LORE_PRETOKEN_QWEN2:
        return next_llama3(text, at, 1);
    case LORE_PRETOKEN_WHOLE:
        break;
    }
    return text.len;
}
