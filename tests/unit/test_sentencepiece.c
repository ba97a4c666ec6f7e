/* A sentencepiece model becomes a tokenizer of its kind: ids, decoding, special tokens, the space
 * in front as the config says; what is broken is refused with its reason. (Whole vocabularies:
 * test_tokenizer.c.) */
#include "models/tokenizer_files_int.h"
#include "models/tokenizer_load_int.h"
#include "tests/check.h"

#define MARK "\xe2\x96\x81"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, BYTE = 6 };

static void put_varint(lore_buf *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        lore_buf_byte(out, (char)(value | 0x80));
    }
    lore_buf_byte(out, (char)value);
}

static void put_number(lore_buf *out, uint64_t field, uint64_t value)
{
    put_varint(out, field << 3);
    put_varint(out, value);
}

static void put_bytes(lore_buf *out, uint64_t field, lore_str bytes)
{
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len);
    lore_buf_append(out, bytes);
}

static void put_piece(lore_buf *out, const char *text, float score, uint64_t type)
{
    lore_buf piece;
    lore_buf_init(&piece, 0);
    put_bytes(&piece, 1, lore_str_from(text));
    put_varint(&piece, 2 << 3 | 5);
    lore_buf_append(&piece, (lore_str){(const char *)&score, sizeof score});
    put_number(&piece, 3, type);
    put_bytes(out, 1, lore_buf_str(&piece));
    lore_buf_destroy(&piece);
}

/* 0 <unk>, 1 <s>, 2 </s>, 3 mark, 4 t, 5 h, 6 e, 7 "he", 8 mark-t, 9 mark-the, 10 <user>, 11 .. 266
 * the bytes. */
static lore_buf make_model(uint64_t type)
{
    lore_buf out, spec;
    lore_buf_init(&out, 0);
    lore_buf_init(&spec, 0);
    put_piece(&out, "<unk>", 0, UNKNOWN);
    put_piece(&out, "<s>", 0, CONTROL);
    put_piece(&out, "</s>", 0, CONTROL);
    static const char *const TEXTS[] = {MARK, "t", "h", "e", "he", MARK "t", MARK "the"};
    static const float SCORES[] = {-9, -8, -7, -6, -1, -2, -3};
    for (size_t i = 0; i < 7; i++) {
        put_piece(&out, TEXTS[i], SCORES[i], NORMAL);
    }
    put_piece(&out, "<user>", 0, USER);
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        put_piece(&out, name, 0, BYTE);
    }
    put_number(&spec, 3, type);
    put_number(&spec, 35, 1);
    put_number(&spec, 41, 1);
    put_number(&spec, 42, 2);
    put_bytes(&out, 2, lore_buf_str(&spec));
    lore_buf_reset(&spec);
    put_number(&spec, 3, 1); /* add_dummy_prefix */
    put_number(&spec, 4, 0); /* remove_extra_whitespaces */
    put_bytes(&out, 3, lore_buf_str(&spec));
    lore_buf_destroy(&spec);
    return out;
}

static lore_status open_model(lore_str model, const char *config, lore_tokenizer_family family,
                              lore_tokenizer **t, lore_error *err)
{
    lore_json *root = NULL;
    lore_buf json;
    lore_normalizer_spec spec;
    lore_buf_init(&json, 0);
    CHECK_OK(lore_json_parse(lore_str_from(config), 4, &root, err), err);
    lore_status status = lore_sentencepiece_read(model, root, family, &json, &spec, err);
    if (status == LORE_OK) {
        status = lore_loader_parse(lore_buf_str(&json), "m.model", &spec, t, err);
    }
    lore_buf_destroy(&json);
    lore_json_free(root);
    return status;
}

static void ids_are(uint64_t type, const char *config, lore_encode_options options,
                    const char *text, const char *wanted)
{
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    lore_arena arena;
    lore_tokens tokens;
    lore_buf model = make_model(type), joined;
    lore_arena_init(&arena, 0);
    lore_buf_init(&joined, 0);
    CHECK_OK(open_model(lore_buf_str(&model), config, LORE_FAMILY_OTHER, &t, &err), &err);
    CHECK_OK(lore_tokenizer_encode(t, lore_str_from(text), options, &arena, &tokens, &err), &err);
    for (int32_t i = 0; i < tokens.count; i++) {
        lore_buf_printf(&joined, "%s%d", i > 0 ? " " : "", tokens.ids[i]);
    }
    CHECK_STR(lore_buf_str(&joined), wanted);
    lore_buf_destroy(&joined);
    lore_buf_destroy(&model);
    lore_arena_destroy(&arena);
    lore_tokenizer_close(t);
}

TEST(ids)
{
    const lore_encode_options plain = {0}, special = {.allow_special = true},
                              whole = {.add_special = true};
    for (uint64_t type = 1; type <= 2; type++) {
        ids_are(type, "{}", plain, "the the", "9 9");
        ids_are(type, "{}", plain, "x", "3 131");
        ids_are(type, "{}", plain, "", "");
        ids_are(type, "{}", special, "the</s>he", "9 2 3 7"); /* a prefix behind it again */
        ids_are(type, "{\"legacy\": false}", special, "the</s>he", "9 2 7");
        ids_are(type, "{\"legacy\": false}", special, " the", "9");
        ids_are(type, "{\"add_prefix_space\": false}", plain, "he the", "7 9");
        ids_are(type, "{\"add_bos_token\": true, \"add_eos_token\": true}", whole, "the", "1 9 2");
    }
    ids_are(2, "{}", whole, "the", "1 9"); /* Llama's way is that of BPE where nothing is said */
    ids_are(1, "{}", whole, "the", "9");
    /* Text is never a special token, whatever the vocabulary says; <user> is markup. */
    ids_are(1, "{}", plain, "<s>", "3 71 126 73");
    ids_are(2, "{}", plain, "<s>", "3 71 126 73");
    ids_are(2, "{}", special, "<user>", "10");
    ids_are(2, "{\"added_tokens_decoder\": {\"300\": {\"content\": \"<x>\", \"special\": true}}}",
            special, "<x>the", "300 9");
}

/* Without the bytes and the user's piece, as XLM-R's models are. */
static lore_buf make_xlm_model(void)
{
    lore_buf out, spec;
    static const char *const TEXTS[] = {MARK, "t", "h", "e", "he", MARK "t", MARK "the"};
    static const float SCORES[] = {-9, -8, -7, -6, -1, -2, -3};
    lore_buf_init(&out, 0);
    lore_buf_init(&spec, 0);
    put_piece(&out, "<unk>", 0, UNKNOWN);
    put_piece(&out, "<s>", 0, CONTROL);
    put_piece(&out, "</s>", 0, CONTROL);
    for (size_t i = 0; i < 7; i++) {
        put_piece(&out, TEXTS[i], SCORES[i], NORMAL);
    }
    put_number(&spec, 3, 1); /* unigram; the normalizer's settings are the format's defaults */
    put_bytes(&out, 2, lore_buf_str(&spec));
    lore_buf_destroy(&spec);
    return out;
}

/* Ids of the same model in a folder with {"model_type": "xlm-roberta"}, from AutoTokenizer of
 * transformers 5.23: encode(text), with special tokens in the text recognised. */
TEST(xlm_roberta_ids)
{
    static const char *const GOLDEN_IDS[][2] = {
        {"the the", "0 10 10 2"},   {"", "0 2"},
        {"x", "0 4 3 2"},           {"the</s>he", "0 10 2 4 8 2"},
        {" the", "0 10 2"},         {"the ", "0 10 2"},
        {"the   the", "0 10 10 2"}, {"the<mask>", "0 10 11 2"},
        {"thex y", "0 10 3 4 3 2"}, {"the <mask>", "0 10 11 2"},
        {"<pad><unk>", "0 1 3 2"},  {"hethe", "0 4 8 5 8 2"}};
    const lore_encode_options options = {.allow_special = true, .add_special = true};
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    lore_arena arena;
    lore_tokens tokens;
    int32_t count = 0;
    lore_buf joined, model = make_xlm_model();
    lore_arena_init(&arena, 0);
    lore_buf_init(&joined, 0);
    CHECK_OK(open_model(lore_buf_str(&model), "{}", LORE_FAMILY_XLM_ROBERTA, &t, &err), &err);
    CHECK_INT(lore_tokenizer_vocab(t), 12);
    for (size_t k = 0; k < sizeof GOLDEN_IDS / sizeof GOLDEN_IDS[0]; k++) {
        lore_buf_reset(&joined);
        CHECK_OK(lore_tokenizer_encode(t, lore_str_from(GOLDEN_IDS[k][0]), options, &arena, &tokens,
                                       &err),
                 &err);
        for (int32_t i = 0; i < tokens.count; i++) {
            lore_buf_printf(&joined, "%s%d", i > 0 ? " " : "", tokens.ids[i]);
        }
        CHECK_STR(lore_buf_str(&joined), GOLDEN_IDS[k][1]);
    }
    const int32_t *middle = lore_tokenizer_middle(t, &count); /* of a pair: </s></s> */
    CHECK(count == 2 && middle[0] == 2 && middle[1] == 2);
    lore_tokenizer_close(t);
    lore_buf_destroy(&joined);
    lore_buf_destroy(&model);
    lore_arena_destroy(&arena);
    model = make_model(2);
    CHECK_FAILS(open_model(lore_buf_str(&model), "{}", LORE_FAMILY_XLM_ROBERTA, &t, &err),
                LORE_ERR_CORRUPT, &err, "XLM-RoBERTa");
    lore_buf_destroy(&model);
}

TEST(decoding)
{
    static const int32_t IDS[] = {1, 9, 9, 11 + 0xc3, 11 + 0xa9, 2};
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    lore_detok detok = {0};
    lore_buf out, model = make_model(2);
    lore_buf_init(&out, 0);
    CHECK_OK(open_model(lore_buf_str(&model), "{}", LORE_FAMILY_OTHER, &t, &err), &err);
    for (size_t i = 0; i < sizeof IDS / sizeof IDS[0]; i++) {
        lore_detok_push(&detok, t, IDS[i], &out);
    }
    lore_detok_finish(&detok, &out);
    CHECK_STR(lore_buf_str(&out), "the the\u00e9");
    lore_buf_destroy(&out);
    lore_buf_destroy(&model);
    lore_tokenizer_close(t);
}

static void refuse(lore_str model, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    CHECK_FAILS(open_model(model, "{}", LORE_FAMILY_OTHER, &t, &err), wanted, &err, message);
}

TEST(what_is_broken_is_refused)
{
    lore_buf model = make_model(2);
    lore_str whole = lore_buf_str(&model);
    refuse((lore_str){"", 0}, LORE_ERR_CORRUPT, "pieces");
    refuse(lore_str_slice(whole, 0, whole.len - 1), LORE_ERR_CORRUPT, "the file");
    /* Lengths of 2^60, a key without end, a group: no message. */
    refuse(LORE_STR("\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x10x"), LORE_ERR_CORRUPT, "cut off");
    refuse(LORE_STR("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), LORE_ERR_CORRUPT, "cut off");
    refuse(LORE_STR("\x0b"), LORE_ERR_CORRUPT, "cut off");
    refuse(LORE_STR("\x0a\x02\x0a\x05"), LORE_ERR_CORRUPT, "a piece");
    refuse(LORE_STR("\x0a\x00"), LORE_ERR_CORRUPT, "piece 0");
    refuse(LORE_STR("\x0a\x03\x0a\x01\xff"), LORE_ERR_CORRUPT, "piece 0");
    refuse(LORE_STR("\x0a\x05\x0a\x01\x61\x18\x09"), LORE_ERR_CORRUPT, "piece 0");
    refuse(LORE_STR("\x0a\x08\x0a\x01\x61\x15\x00\x00\x80\x7f"), LORE_ERR_CORRUPT, "piece 0");
    lore_buf_destroy(&model);
    model = make_model(3);
    refuse(lore_buf_str(&model), LORE_ERR_UNSUPPORTED, "unigram and bpe");
    lore_buf_destroy(&model);
    model = make_model(2);
    put_piece(&model, "the", -1, NORMAL);
    put_piece(&model, "the", -1, NORMAL);
    refuse(lore_buf_str(&model), LORE_ERR_CORRUPT, "the");
    lore_buf_destroy(&model);
}

CHECK_MAIN(ids, xlm_roberta_ids, decoding, what_is_broken_is_refused)
