/* Text on a terminal. A word is held back until the next space shows where it ends, so text may
 * come in any pieces; scripts without spaces (Chinese, Japanese) may break after every character.
 */
#include "base/utf8.h"
#include "cli/cli.h"

#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_MAX = 100, WORD_BYTES_MAX = 4096 }; /* longer lines are hard to read */

int32_t lore_terminal_width(FILE *out)
{
    struct winsize size = {0};
    if (!isatty(fileno(out))) {
        return 0;
    }
    if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col < 20) {
        return 80;
    }
    return size.ws_col;
}

void lore_wrap_begin(lore_wrap *wrap, FILE *out, int32_t indent)
{
    int32_t width = lore_terminal_width(out);
    *wrap =
        (lore_wrap){.out = out, .width = width < WIDTH_MAX ? width : WIDTH_MAX, .indent = indent};
    lore_buf_init(&wrap->word, WORD_BYTES_MAX);
}

/* Columns of a code point: the wide ranges of Unicode's East Asian Width, near enough for wrapping.
 */
static int32_t columns_of(int32_t c)
{
    bool is_wide = (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) ||
                   (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xF900 && c <= 0xFAFF) ||
                   (c >= 0xFE30 && c <= 0xFE4F) || (c >= 0xFF00 && c <= 0xFF60) ||
                   (c >= 0xFFE0 && c <= 0xFFE6) || (c >= 0x1F300 && c <= 0x1FAFF) ||
                   (c >= 0x20000 && c <= 0x3FFFD);
    return is_wide ? 2 : lore_utf8_is_mark(c) ? 0 : 1;
}

static void start_line(lore_wrap *wrap)
{
    for (int32_t i = 0; i < wrap->indent; i++) {
        fputc(' ', wrap->out);
    }
    wrap->column = wrap->indent;
    wrap->has_space = false;
}

static void put_word(lore_wrap *wrap)
{
    if (wrap->word.len == 0) {
        return;
    }
    if (wrap->column == 0) {
        start_line(wrap);
    }
    int32_t needed = wrap->word_columns + (wrap->has_space ? 1 : 0);
    if (wrap->width > 0 && wrap->column > wrap->indent && wrap->column + needed > wrap->width) {
        fputc('\n', wrap->out);
        start_line(wrap);
    }
    if (wrap->has_space) {
        fputc(' ', wrap->out);
        wrap->column++;
        wrap->has_space = false;
    }
    fwrite(wrap->word.ptr, 1, wrap->word.len, wrap->out);
    wrap->column += wrap->word_columns;
    wrap->word_columns = 0;
    lore_buf_reset(&wrap->word);
}

static void put_character(lore_wrap *wrap, lore_str bytes, int32_t c)
{
    int32_t columns = columns_of(c);
    if (columns == 2 || wrap->word.len + bytes.len > WORD_BYTES_MAX) {
        put_word(wrap); /* may break before it */
    }
    lore_buf_append(&wrap->word, bytes);
    wrap->word_columns += columns;
    if (lore_buf_failed(&wrap->word)) { /* out of memory: write it through instead */
        lore_buf_reset(&wrap->word);
        wrap->word_columns = 0;
        fwrite(bytes.ptr, 1, bytes.len, wrap->out);
    } else if (columns == 2) {
        put_word(wrap); /* and after it */
    }
}

void lore_wrap_text(lore_wrap *wrap, lore_str text)
{
    size_t at = 0;
    while (at < text.len) {
        size_t start = at;
        int32_t c = lore_utf8_next(text, &at);
        if (c == '\n') {
            put_word(wrap);
            fputc('\n', wrap->out);
            wrap->column = 0;
            wrap->has_space = false;
        } else if (c == ' ' || c == '\t') {
            put_word(wrap);
            wrap->has_space = wrap->column > wrap->indent;
        } else if (c >= 32 && !(c >= 127 && c < 160)) {
            put_character(wrap, lore_str_slice(text, start, at), c);
        }
    }
    fflush(wrap->out);
}

void lore_wrap_end(lore_wrap *wrap)
{
    put_word(wrap);
    if (wrap->column > 0) {
        fputc('\n', wrap->out);
    }
    lore_buf_destroy(&wrap->word);
    fflush(wrap->out);
}

void lore_print_plain(FILE *out, lore_str text)
{
    size_t at = 0;
    while (at < text.len) {
        size_t start = at;
        int32_t c = lore_utf8_next(text, &at);
        if (c >= 32 && !(c >= 127 && c < 160)) {
            fwrite(text.ptr + start, 1, at - start, out);
        } else {
            fputc(' ', out);
        }
    }
}
