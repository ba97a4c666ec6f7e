/* Ids back to text: concatenation of what the tokens say, with care for characters that are split
 * over several tokens and for the space that some tokenizers put before every text. */
#include "models/tokenizer_int.h"

/* Bytes that a character with these first bytes needs, or 0 where no character begins so (RFC 3629,
 * table 3-7 of the Unicode standard). */
static int32_t character_size(const char *bytes, int32_t count)
{
    uint8_t first = (uint8_t)bytes[0];
    uint8_t low = 0x80, high = 0xbf;
    int32_t size = first < 0x80                    ? 1
                   : first >= 0xc2 && first < 0xe0 ? 2
                   : first >= 0xe0 && first < 0xf0 ? 3
                   : first >= 0xf0 && first < 0xf5 ? 4
                                                   : 0;
    if (first == 0xe0) {
        low = 0xa0;
    } else if (first == 0xed) {
        high = 0x9f;
    } else if (first == 0xf0) {
        low = 0x90;
    } else if (first == 0xf4) {
        high = 0x8f;
    }
    for (int32_t i = 1; i < count; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        if (byte < (i == 1 ? low : 0x80) || byte > (i == 1 ? high : 0xbf)) {
            return 0;
        }
    }
    return size;
}

static void give_up(lore_detok *detok, lore_buf *out)
{
    lore_buf_append(out, LORE_STR("\xef\xbf\xbd"));
    detok->pending_count = 0;
}

static void push_byte(lore_detok *detok, char byte, lore_buf *out)
{
    detok->pending[detok->pending_count++] = byte;
    int32_t size = character_size(detok->pending, detok->pending_count);
    if (size == 0 && detok->pending_count > 1) {
        give_up(detok, out); /* what was pending cannot complete; this byte may begin anew */
        push_byte(detok, byte, out);
    } else if (size == 0) {
        give_up(detok, out);
    } else if (size == detok->pending_count) {
        lore_buf_append(out, (lore_str){detok->pending, (size_t)size});
        detok->pending_count = 0;
    }
}

void lore_detok_push(lore_detok *detok, const lore_tokenizer *tokenizer, int32_t id, lore_buf *out)
{
    if (lore_tokenizer_is_special(tokenizer, id)) {
        return;
    }
    lore_str bytes = lore_tokenizer_bytes(tokenizer, id);
    int32_t spaces = detok->has_begun ? 0 : tokenizer->first_spaces;
    for (; spaces > 0 && bytes.len > 0 && bytes.ptr[0] == ' '; spaces--) {
        bytes = lore_str_slice(bytes, 1, bytes.len);
    }
    detok->has_begun = true;
    for (size_t i = 0; i < bytes.len; i++) {
        push_byte(detok, bytes.ptr[i], out);
    }
}

void lore_detok_finish(lore_detok *detok, lore_buf *out)
{
    if (detok->pending_count > 0) {
        give_up(detok, out);
    }
}
