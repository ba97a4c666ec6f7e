/* Fuzz target of decoding. The first byte of the input chooses the media type.
 *
 * Property: bytes are decoded or refused with a message, in linear time. What is decoded is valid
 * UTF-8 that passes for text and at most three times as long; bytes that were such text are given
 * back as they are; decoding twice changes nothing; and the same text written in UTF-16 with a mark
 * decodes to itself. */
#include "ingest/ingest_int.h"
#include "tests/fuzz/fuzz.h"

static bool has_mark(lore_str text)
{
    return lore_str_starts(text, LORE_STR("\xEF\xBB\xBF"));
}

static void append_unit(lore_buf *out, int32_t unit)
{
    lore_buf_byte(out, (char)(unit & 0xFF));
    lore_buf_byte(out, (char)(unit >> 8));
}

/* Little endian, with its mark. */
static void append_utf16(lore_buf *out, lore_str text)
{
    append_unit(out, 0xFEFF);
    for (size_t at = 0; at < text.len;) {
        int32_t c = lore_utf8_next(text, &at);
        if (c < 0x10000) {
            append_unit(out, c);
        } else {
            append_unit(out, 0xD800 + ((c - 0x10000) >> 10));
            append_unit(out, 0xDC00 + ((c - 0x10000) & 0x3FF));
        }
    }
}

static void check_utf16(lore_str text, lore_media media, lore_arena *arena)
{
    lore_buf wide;
    lore_error err;
    lore_str again;
    lore_buf_init(&wide, 0);
    append_utf16(&wide, text);
    lore_status status = lore_decode(lore_buf_str(&wide), media, arena, &again, &err);
    LORE_ASSERT(status == LORE_OK);
    LORE_ASSERT(lore_str_equal(again, text));
    lore_buf_destroy(&wide);
}

static void check_decoded(lore_str bytes, lore_str text, lore_media media, lore_arena *arena)
{
    lore_error err;
    lore_str again;
    LORE_ASSERT(lore_utf8_valid(text) == text.len);
    LORE_ASSERT(text.len <= bytes.len * 3);
    LORE_ASSERT(text.len == 0 || memchr(text.ptr, 0, text.len) == NULL);
    if (has_mark(text)) {
        return; /* a second mark, which would go as the first did */
    }
    if (!has_mark(bytes) && lore_utf8_valid(bytes) == bytes.len &&
        memchr(bytes.ptr, 0, bytes.len) == NULL) {
        LORE_ASSERT(text.ptr == bytes.ptr);
        LORE_ASSERT(text.len == bytes.len);
    }
    lore_status status = lore_decode(text, media, arena, &again, &err);
    LORE_ASSERT(status == LORE_OK ||
                lore_is_binary(text)); /* broken bytes became controls' peers */
    LORE_ASSERT(status != LORE_OK || lore_str_equal(again, text));
    if (status == LORE_OK && text.len > 0) {
        check_utf16(text, media, arena);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_media media = (lore_media)(LORE_MEDIA_TEXT + data[0] % 3);
    lore_str bytes = {(const char *)data + 1, size - 1}, text;
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 64 << 20);
    lore_status status = lore_decode(bytes, media, &arena, &text, &err);
    if (status == LORE_OK) {
        check_decoded(bytes, text, media, &arena);
    } else {
        fuzz_check_refusal(status, &err);
    }
    fuzz_check_cost(start_ns, size);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
