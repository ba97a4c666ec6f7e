/* Bytes of known encodings come out as the same UTF-8; binary ones are refused. */
#include "tests/unit/ingest_fixture.h"

#include <iconv.h>

#define CHINESE \
    "长按按钮十秒，路由器会恢复出厂设置。恢复之后，请重新设置无线网络的名称和密码，然后重启设备。"
#define TRADITIONAL \
    "長按按鈕十秒，路由器會恢復出廠設定。恢復之後，請重新設定無線網路的名稱和密碼，然後重新啟動。"
#define JAPANESE \
    "ボタンを十秒間押すと、ルーターは工場出荷時の設定に戻ります。その後、名前を設定してください。"

static void encode(const char *charset, const char *utf8, lore_buf *out)
{
    iconv_t handle = iconv_open(charset, "UTF-8");
    CHECK(handle != (iconv_t)-1);
    char *in = (char *)utf8, *to;
    size_t left = strlen(utf8), room = left * 4 + 8;
    lore_buf_init(out, 0);
    CHECK(lore_buf_reserve(out, room));
    to = out->ptr;
    CHECK(iconv(handle, &in, &left, &to, &room) != (size_t)-1);
    out->len = (size_t)(to - out->ptr);
    iconv_close(handle);
}

static void check_decodes(const char *charset, const char *utf8, lore_media media)
{
    lore_buf bytes;
    lore_arena arena;
    lore_str text;
    lore_error err = {0};
    lore_arena_init(&arena, 0);
    encode(charset, utf8, &bytes);
    CHECK_OK(lore_decode(lore_buf_str(&bytes), media, &arena, &text, &err), &err);
    CHECK_STR(text, utf8);
    lore_buf_destroy(&bytes);
    lore_arena_destroy(&arena);
}

TEST(recognises)
{
    check_decodes("UTF-8", "plain", LORE_MEDIA_TEXT);
    check_decodes("UTF-8", CHINESE, LORE_MEDIA_TEXT);
    check_decodes("GB18030", CHINESE CHINESE, LORE_MEDIA_TEXT);
    check_decodes("BIG5", TRADITIONAL TRADITIONAL, LORE_MEDIA_TEXT);
    check_decodes("SHIFT_JIS", JAPANESE JAPANESE, LORE_MEDIA_TEXT);
    check_decodes("CP1252",
                  "The caf\xC3\xA9 \xE2\x80\x9Cna\xC3\xAFve\xE2\x80\x9D costs 5 \xE2\x82\xAC.",
                  LORE_MEDIA_TEXT);
    check_decodes("UTF-16LE", "Hold the button. " CHINESE, LORE_MEDIA_TEXT);
    check_decodes("UTF-16BE", "Hold the button. " CHINESE, LORE_MEDIA_TEXT);
    check_decodes("UTF-16", "With a mark. " CHINESE, LORE_MEDIA_TEXT);
}

/* What the page says of itself is believed before statistics. */
TEST(declared)
{
    check_decodes("GB2312", "<meta charset=\"gb2312\"><p>\xE9\x87\x8D\xE5\x90\xAF</p>",
                  LORE_MEDIA_HTML);
    check_decodes("KOI8-R",
                  "<meta http-equiv=x content='text/html; charset=koi8-r'><p>"
                  "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82</p>",
                  LORE_MEDIA_HTML);
}

TEST(byte_order_mark)
{
    lore_arena arena;
    lore_str text;
    lore_error err = {0};
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_decode(LORE_STR("\xEF\xBB\xBFhello"), LORE_MEDIA_TEXT, &arena, &text, &err),
             &err);
    CHECK_STR(text, "hello");
    lore_arena_destroy(&arena);
}

/* One broken byte in a UTF-8 page must not turn the page into another encoding. */
TEST(nearly_utf8)
{
    lore_arena arena;
    lore_str text;
    lore_error err = {0};
    lore_arena_init(&arena, 0);
    CHECK_OK(
        lore_decode(LORE_STR(CHINESE CHINESE "\xE9\x87!"), LORE_MEDIA_TEXT, &arena, &text, &err),
        &err);
    CHECK(lore_str_ends(text, LORE_STR("\xEF\xBF\xBD!")));
    CHECK(lore_str_starts(text, LORE_STR(CHINESE)));
    lore_arena_destroy(&arena);
}

TEST(refuses_binary)
{
    lore_arena arena;
    lore_str text;
    lore_error err = {0};
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_decode(LORE_STR("a\0b\0\0c"), LORE_MEDIA_TEXT, &arena, &text, &err),
                LORE_ERR_INVALID, &err, "NUL");
    CHECK_FAILS(lore_decode(LORE_STR("\x01\x02\x03\x04\x05\x06\x07\x08\x0E\x0F\x10 abc"),
                            LORE_MEDIA_TEXT, &arena, &text, &err),
                LORE_ERR_INVALID, &err, "control");
    CHECK_FAILS(lore_decode(LORE_STR("\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0\x01"), LORE_MEDIA_TEXT,
                            &arena, &text, &err),
                LORE_ERR_INVALID, &err, "NUL");
    /* Bytes that windows-1252 does not have, in a pattern that no multi-byte set has. */
    CHECK_FAILS(lore_decode(LORE_STR("ab\x81 cd\x8D ef\x8F gh\x90 ij\x9D"), LORE_MEDIA_TEXT, &arena,
                            &text, &err),
                LORE_ERR_INVALID, &err, "byte 2");
    lore_arena_destroy(&arena);
}

static lore_status decode_gb(void *self)
{
    lore_arena arena;
    lore_str text;
    lore_error err = {0};
    lore_arena_init(&arena, 0);
    lore_status status = lore_decode(lore_buf_str(self), LORE_MEDIA_TEXT, &arena, &text, &err);
    lore_arena_destroy(&arena);
    return status;
}

TEST(without_memory)
{
    lore_buf bytes;
    encode("GB18030", CHINESE CHINESE, &bytes);
    check_alloc_sweep(decode_gb, &bytes);
    lore_buf_destroy(&bytes);
}

CHECK_MAIN(recognises, declared, byte_order_mark, nearly_utf8, refuses_binary, without_memory)
