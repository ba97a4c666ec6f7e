/* Ids equal those of the `tokenizers` package on golden texts (ours) and published vectors (where
 * ../shared is there); tokens tile the text; text
 * never becomes a special token unasked; pieces given to the detokeniser join to the text; broken
 * files are refused by name. Covers tokenizer_load.c and tokenizer_vocab.c too. */
#include "tests/unit/models_fixture.h"

#include "base/clock.h"
#include "base/utf8.h"
#include "models/tokenizer.h"

#include <time.h>

#define MODEL LORE_SOURCE_DIR "/weights/decoder"
#define TOKENIZERS SHARED "/data/tokenizers"

static lore_tokenizer *open_tokenizer(const char *folder)
{
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    CHECK_OK(lore_tokenizer_open(folder, &LIMITS, &t, &err), &err);
    return t;
}

static void check_ids(const lore_tokenizer *t, lore_arena *arena, const lore_json *line)
{
    lore_error err = {0};
    lore_tokens tokens;
    lore_str text = lore_json_str(lore_json_get(line, "text"));
    lore_encode_options options = {.allow_special = lore_json_bool(lore_json_get(line, "special"))};
    CHECK_OK(lore_tokenizer_encode(t, text, options, arena, &tokens, &err), &err);
    const lore_json *ids = lore_json_get(line, "ids");
    int32_t i = 0;
    for (const lore_json *n = lore_json_first(ids); n != NULL; n = lore_json_next(n), i++) {
        if (i >= tokens.count || (int32_t)lore_json_number(n) != tokens.ids[i]) {
            CHECK_STOP("token %d of '" LORE_STR_FMT "' differs", i, LORE_STR_ARG(text));
        }
    }
    CHECK_INT(tokens.count, i);
}

/* Lines of a file, all or those of one tokenizer. Gives how many were checked. */
static int32_t check_file(const lore_tokenizer *t, const char *path, const char *only)
{
    lore_error err = {0};
    lore_buf text;
    lore_arena arena;
    lore_str line;
    int32_t count = 0;
    lore_buf_init(&text, 0);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_file_read(path, 64 << 20, &text, &err), &err);
    lore_str rest = lore_buf_str(&text);
    while (lore_str_next_line(&rest, &line)) {
        lore_json *root = NULL;
        CHECK_OK(lore_json_parse(line, 8, &root, &err), &err);
        if (only == NULL ||
            lore_str_equal(lore_json_str(lore_json_get(root, "tokenizer")), lore_str_from(only))) {
            check_ids(t, &arena, root);
            count++;
        }
        lore_json_free(root);
        lore_arena_reset(&arena);
    }
    lore_arena_destroy(&arena);
    lore_buf_destroy(&text);
    return count;
}

TEST(golden_ids)
{
    lore_tokenizer *t = open_tokenizer(MODEL);
    CHECK(check_file(t, GOLDEN "/tokenizer.jsonl", NULL) > 400);
    lore_tokenizer_close(t);
}

/* The vocabularies that are published with the vectors, as they are: sentencepiece, tiktoken,
 * GPT-2's two files, BERT's list. DeepSeek's distilled Qwen and Phi-3 differ from theirs in special
 * tokens only. */
static void published(const char *folder, const char *const names[], size_t count)
{
    if (!lore_file_exists(TOKENIZERS "/vectors.jsonl")) {
        CHECK_SKIP("../shared/data/tokenizers is not there");
    }
    lore_tokenizer *t = open_tokenizer(folder);
    for (size_t i = 0; i < count; i++) {
        CHECK_INT(check_file(t, TOKENIZERS "/vectors.jsonl", names[i]), 46);
    }
    lore_tokenizer_close(t);
}

TEST(gpt2_vectors)
{
    published(TOKENIZERS "/gpt2", (const char *const[]){"gpt-2"}, 1);
}

/* RoBERTa's is GPT-2's tokenizer with other numbers, which are not at hand: each of our ids must
 * stand for one of theirs, always the same, and no two for one. */
TEST(roberta_is_gpt2_renumbered)
{
    enum { IDS = 60000 };
    static int32_t theirs[IDS], ours[IDS];
    lore_error err = {0};
    lore_buf text;
    lore_arena arena;
    lore_str line;
    int32_t lines = 0;
    if (!lore_file_exists(TOKENIZERS "/vectors.jsonl")) {
        CHECK_SKIP("../shared/data/tokenizers is not there");
    }
    lore_tokenizer *t = open_tokenizer(TOKENIZERS "/gpt2");
    lore_buf_init(&text, 0);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_file_read(TOKENIZERS "/vectors.jsonl", 64 << 20, &text, &err), &err);
    for (lore_str rest = lore_buf_str(&text); lore_str_next_line(&rest, &line);) {
        lore_json *root = NULL;
        lore_tokens tokens;
        int32_t i = 0;
        CHECK_OK(lore_json_parse(line, 8, &root, &err), &err);
        if (lore_str_equal(lore_json_str(lore_json_get(root, "tokenizer")),
                           LORE_STR("roberta-bpe"))) {
            CHECK_OK(lore_tokenizer_encode(t, lore_json_str(lore_json_get(root, "text")),
                                           (lore_encode_options){0}, &arena, &tokens, &err),
                     &err);
            const lore_json *ids = lore_json_get(root, "ids");
            CHECK_INT(lore_json_count(ids), tokens.count);
            for (const lore_json *n = lore_json_first(ids); n != NULL; n = lore_json_next(n), i++) {
                int32_t id = (int32_t)lore_json_number(n), own = tokens.ids[i];
                CHECK(id > 0 && id < IDS && own < IDS);
                theirs[own] = theirs[own] == 0 ? id : theirs[own];
                ours[id] = ours[id] == 0 ? own + 1 : ours[id];
                CHECK(theirs[own] == id && ours[id] == own + 1);
            }
            lines++;
        }
        lore_json_free(root);
    }
    CHECK_INT(lines, 46);
    lore_arena_destroy(&arena);
    lore_buf_destroy(&text);
    lore_tokenizer_close(t);
}

TEST(llama3_vectors)
{
    published(TOKENIZERS "/llama3", (const char *const[]){"llama-bpe"}, 1);
}

TEST(qwen2_vectors)
{
    published(TOKENIZERS "/qwen", (const char *const[]){"qwen2", "deepseek-r1-qwen"}, 2);
}

TEST(llama2_vectors)
{
    published(TOKENIZERS "/llama2", (const char *const[]){"llama-spm", "phi-3"}, 2);
}

TEST(bert_vectors)
{
    char command[1024];
    snprintf(command, sizeof command, "mkdir -p '%s/bert' && cp '%s' '%s/bert/vocab.txt'",
             check_temp_dir(), TOKENIZERS "/bert/bert-base-uncased-vocab.txt", check_temp_dir());
    if (!lore_file_exists(TOKENIZERS "/vectors.jsonl")) {
        CHECK_SKIP("../shared/data/tokenizers is not there");
    }
    CHECK_INT(system(command), 0);
    snprintf(command, sizeof command, "%s/bert", check_temp_dir());
    published(command, (const char *const[]){"bert-bge"}, 1);
}

/* ---- properties ---- */

static void fill_random(char *bytes, size_t size, uint64_t *seed)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t x = lore_random_next(seed);
        bytes[i] = (char)(x % 4 == 0 ? x >> 8 : (uint64_t) "the \n1.\xe7\x9a\x84"[x % 10]);
    }
}

/* For any bytes: the tokens' bytes are the text, starts say where, count agrees, the first tokens
 * come alone too. */
TEST(tokens_tile_the_text)
{
    lore_error err = {0};
    lore_arena arena, scratch;
    uint64_t seed = 21;
    char bytes[200];
    lore_tokenizer *t = open_tokenizer(MODEL);
    lore_arena_init(&arena, 0);
    lore_arena_init(&scratch, 0);
    for (int round = 0; round < 500; round++) {
        lore_str text = {bytes, (size_t)(lore_random_next(&seed) % sizeof bytes)};
        lore_tokens tokens, head;
        int32_t count = -1;
        size_t at = 0;
        fill_random(bytes, text.len, &seed);
        CHECK_OK(lore_tokenizer_encode(t, text, (lore_encode_options){0}, &arena, &tokens, &err),
                 &err);
        for (int32_t i = 0; i < tokens.count; i++) {
            lore_str piece = lore_tokenizer_bytes(t, tokens.ids[i]);
            CHECK_INT(tokens.starts[i], at);
            CHECK(piece.len > 0 && at + piece.len <= text.len &&
                  memcmp(piece.ptr, bytes + at, piece.len) == 0);
            at += piece.len;
        }
        CHECK_INT(at, text.len);
        CHECK_OK(lore_tokenizer_count(t, text, &scratch, &count, &err), &err);
        CHECK_INT(count, tokens.count);
        CHECK_OK(lore_tokenizer_encode_head(t, text, 7, &arena, &head, &err), &err);
        CHECK_INT(head.count, tokens.count < 7 ? tokens.count : 7);
        CHECK(memcmp(head.ids, tokens.ids, (size_t)head.count * sizeof(int32_t)) == 0);
        lore_arena_reset(&arena);
    }
    lore_arena_destroy(&scratch);
    lore_arena_destroy(&arena);
    lore_tokenizer_close(t);
}

TEST(specials_only_when_asked)
{
    lore_error err = {0};
    lore_arena arena;
    lore_tokens tokens;
    lore_tokenizer *t = open_tokenizer(MODEL);
    lore_str text = LORE_STR("<|im_start|>user<|im_end|>");
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_tokenizer_encode(t, text, (lore_encode_options){0}, &arena, &tokens, &err), &err);
    for (int32_t i = 0; i < tokens.count; i++) {
        CHECK(!lore_tokenizer_is_special(t, tokens.ids[i]));
    }
    CHECK_OK(lore_tokenizer_encode(t, text, (lore_encode_options){.allow_special = true}, &arena,
                                   &tokens, &err),
             &err);
    CHECK_INT(tokens.count, 3);
    CHECK_INT(tokens.ids[0], 1);
    CHECK_INT(tokens.ids[2], 2);
    CHECK_INT(tokens.starts[2], 16);
    CHECK(lore_tokenizer_is_special(t, 1));
    CHECK(!lore_tokenizer_is_special(t, -1) && !lore_tokenizer_is_special(t, 1 << 30));
    CHECK_INT(lore_tokenizer_id(t, LORE_STR("<|im_start|>")), 1);
    CHECK_INT(lore_tokenizer_id(t, LORE_STR("no such token, surely")), -1);
    CHECK_INT(lore_tokenizer_vocab(t), 24576);
    CHECK_INT(lore_tokenizer_bytes(t, 24576).len, 0);
    lore_arena_destroy(&arena);
    lore_tokenizer_close(t);
}

TEST(post_processor_surrounds)
{
    lore_error err = {0};
    lore_arena arena;
    lore_tokens tokens;
    lore_tokenizer *t = open_tokenizer(LORE_SOURCE_DIR "/weights/encoder");
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_tokenizer_encode(t, LORE_STR("hi"), (lore_encode_options){.add_special = true},
                                   &arena, &tokens, &err),
             &err);
    CHECK_INT(tokens.ids[0], 0);
    CHECK_INT(tokens.ids[tokens.count - 1], 2);
    CHECK_INT(tokens.starts[tokens.count - 1], 2);
    CHECK_OK(lore_tokenizer_encode(t, LORE_STR(""), (lore_encode_options){.add_special = true},
                                   &arena, &tokens, &err),
             &err);
    CHECK_INT(tokens.count, 2);
    lore_arena_destroy(&arena);
    lore_tokenizer_close(t);
}

TEST(hostile_text_takes_no_time)
{
    enum { SIZE = 1 << 20 };
    static const char *const UNITS[] = {"a", " ", "\n",   "<|im_start", "\xe7\x9a\x84",
                                        "0", "'", "\xff", " \n",        "=-"};
    lore_error err = {0};
    lore_arena arena;
    lore_tokenizer *t = open_tokenizer(MODEL);
    char *text = malloc(SIZE);
    CHECK(text != NULL);
    lore_arena_init(&arena, 0);
    int64_t start = lore_clock_ns();
    for (size_t u = 0; u < sizeof UNITS / sizeof UNITS[0]; u++) {
        lore_tokens tokens;
        for (size_t i = 0; i < SIZE; i++) {
            text[i] = UNITS[u][i % strlen(UNITS[u])];
        }
        CHECK_OK(lore_tokenizer_encode(t, (lore_str){text, SIZE}, (lore_encode_options){0}, &arena,
                                       &tokens, &err),
                 &err);
        CHECK(tokens.count > 0);
        lore_arena_reset(&arena);
    }
    CHECK(lore_clock_ns() - start < (int64_t)30e9);
    lore_arena_destroy(&arena);
    free(text);
    lore_tokenizer_close(t);
}

/* ---- detokeniser ---- */

/* What the detokeniser gives is valid UTF-8 at every step, and the text itself where that was
 * valid. */
TEST(pieces_join_to_the_whole)
{
    lore_error err = {0};
    lore_arena arena;
    lore_buf out;
    lore_tokens tokens;
    lore_tokenizer *t = open_tokenizer(MODEL);
    lore_str text = LORE_STR("Grüße, 世界! 👩‍👩‍👧‍👦 𝒜 \u0301 ok");
    lore_arena_init(&arena, 0);
    lore_buf_init(&out, 0);
    for (int bytewise = 0; bytewise < 2; bytewise++) {
        lore_detok detok = {0};
        lore_buf_reset(&out);
        CHECK_OK(lore_tokenizer_encode(t, text, (lore_encode_options){0}, &arena, &tokens, &err),
                 &err);
        int32_t count = bytewise ? (int32_t)text.len : tokens.count;
        for (int32_t i = 0; i < count; i++) {
            int32_t id = bytewise
                             ? lore_tokenizer_id(t, lore_str_slice(text, (size_t)i, (size_t)i + 1))
                             : tokens.ids[i];
            lore_detok_push(&detok, t, id, &out);
            CHECK_INT(lore_utf8_valid(lore_buf_str(&out)), out.len);
            lore_detok_push(&detok, t, 2,
                            &out); /* special tokens are dropped, even inside a character */
        }
        lore_detok_finish(&detok, &out);
        CHECK(lore_str_equal(lore_buf_str(&out), text));
    }
    lore_buf_destroy(&out);
    lore_arena_destroy(&arena);
    lore_tokenizer_close(t);
}

static void detok(const char *bytes, const char *wanted)
{
    lore_detok detok = {0};
    lore_buf out;
    lore_tokenizer *t = open_tokenizer(MODEL);
    lore_buf_init(&out, 0);
    for (size_t i = 0; bytes[i] != '\0'; i++) {
        lore_detok_push(&detok, t, lore_tokenizer_id(t, (lore_str){bytes + i, 1}), &out);
    }
    lore_detok_finish(&detok, &out);
    CHECK_STR(lore_buf_str(&out), wanted);
    lore_buf_destroy(&out);
    lore_tokenizer_close(t);
}

TEST(broken_bytes_become_replacement)
{
    detok("a\xff"
          "b",
          "a\ufffd"
          "b");
    detok("\xe7\x9a", "\ufffd");
    detok("\xe7\x9a"
          "a",
          "\ufffd"
          "a");
    detok("\xe7\xe7\x9a\x84", "\ufffd\u7684");
    detok("\xc0\x80", "\ufffd\ufffd");
    detok("\xed\xa0\x80", "\ufffd\ufffd\ufffd");
    detok("\xf0\x9f\x98", "\ufffd");
    detok("\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd");
}

/* ---- files ---- */

/* A tokenizer.json with all 256 bytes, the token "ab", and room for what a case wants to change. */
static lore_tokenizer *parse_with(const char *added, const char *normalizer, const char *pre,
                                  const char *post, const char *model, lore_status *status,
                                  lore_error *err)
{
    lore_buf json;
    lore_tokenizer *t = NULL;
    lore_buf_init(&json, 0);
    lore_buf_printf(&json,
                    "{\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, "
                    "\"post_processor\": %s, ",
                    added, normalizer, pre, post);
    lore_buf_printf(&json,
                    "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", %s "
                    "\"vocab\": {\"ab\": 300",
                    model);
    for (int b = 0, extra = 256; b < 256; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        char text[5] = {0};
        lore_utf8_encode(printable ? b : extra++, text);
        lore_buf_printf(&json, ", \"%s%s\": %d", text[0] == '"' || text[0] == '\\' ? "\\" : "",
                        text, b);
    }
    lore_buf_printf(&json, "}, \"merges\": [\"a b\"]}}");
    *status = lore_tokenizer_parse(lore_buf_str(&json), "t.json", &t, err);
    lore_buf_destroy(&json);
    return t;
}

#define BYTE_LEVEL "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}"

TEST(small_files_work)
{
    lore_error err = {0};
    lore_status status;
    lore_arena arena;
    lore_tokens tokens;
    lore_tokenizer *t =
        parse_with("{\"id\": 301, \"content\": \"<think>\", \"special\": false}, "
                   "{\"id\": 302, \"content\": \"  \", \"special\": false}",
                   "{\"type\": \"NFC\"}", BYTE_LEVEL, BYTE_LEVEL, "", &status, &err);
    CHECK_OK(status, &err);
    CHECK_INT(lore_tokenizer_vocab(t), 303);
    lore_arena_init(&arena, 0);
    /* NFC joins e and U+0301, whose bytes start where the e did; the added spaces are found,
     * <think> is held back. */
    CHECK_OK(lore_tokenizer_encode(t, LORE_STR("ab  e\u0301!<think>"), (lore_encode_options){0},
                                   &arena, &tokens, &err),
             &err);
    CHECK_INT(tokens.count, 12);
    CHECK_INT(tokens.ids[0], 300);
    CHECK_INT(tokens.ids[1], 302);
    CHECK_INT(tokens.ids[2], 0xc3);
    CHECK_INT(tokens.ids[3], 0xa9);
    CHECK_INT(tokens.starts[2], 4);
    CHECK_INT(tokens.starts[3], 4);
    CHECK_INT(tokens.starts[4], 7);
    CHECK_OK(lore_tokenizer_encode(t, LORE_STR("<think>"),
                                   (lore_encode_options){.allow_special = true}, &arena, &tokens,
                                   &err),
             &err);
    CHECK_INT(tokens.count, 1);
    CHECK_INT(tokens.ids[0], 301);
    CHECK(!lore_tokenizer_is_special(t, 301));
    lore_arena_destroy(&arena);
    lore_tokenizer_close(t);
}

static void refuse(const char *added, const char *normalizer, const char *pre, const char *post,
                   const char *model, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_status status;
    parse_with(added, normalizer, pre, post, model, &status, &err);
    CHECK_FAILS(status, wanted, &err, message);
    CHECK(strstr(err.message, "t.json") != NULL);
}

TEST(what_we_cannot_do_is_named)
{
    const lore_status no = LORE_ERR_UNSUPPORTED;
    refuse("", "{\"type\": \"Reverse\"}", BYTE_LEVEL, "null", "", no, "Reverse");
    refuse("", "null", "{\"type\": \"UnicodeScripts\"}", "null", "", no, "UnicodeScripts");
    refuse("", "null",
           "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
           "{\"Regex\": \"(?<=x)+\"}, \"behavior\": "
           "\"Isolated\"}, " BYTE_LEVEL "]}",
           "null", "", no, "?<=x");
    refuse("", "null",
           "{\"type\": \"Sequence\", \"pretokenizers\": [" BYTE_LEVEL ", " BYTE_LEVEL "]}", "null",
           "", no, "twice");
    refuse("", "null", BYTE_LEVEL, "{\"type\": \"Swap\"}", "", no, "Swap");
    refuse("", "null", BYTE_LEVEL, "{\"type\": \"BertProcessing\", \"sep\": [\"x\", 999]}", "",
           LORE_ERR_CORRUPT, "cls");
    refuse("", "null", BYTE_LEVEL, "null", "\"dropout\": 0.1,", no, "dropout");
    refuse("", "null", BYTE_LEVEL, "null", "\"end_of_word_suffix\": \"</w>\",", no, "</w>");
    refuse("{\"id\": 5, \"content\": \"<x>\"}", "null", BYTE_LEVEL, "null", "", LORE_ERR_CORRUPT,
           "id 5");
    refuse("{\"id\": 1e9, \"content\": \"<x>\"}", "null", BYTE_LEVEL, "null", "", LORE_ERR_CORRUPT,
           "<x>");
    refuse("", "null", BYTE_LEVEL,
           "{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"B\"}}]}", "",
           no, "Sequence A");
    refuse("", "null", BYTE_LEVEL,
           "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}], "
           "\"special_tokens\": {}}",
           "", LORE_ERR_CORRUPT, "'x'");
}

static void encodes_as(const lore_tokenizer *t, const char *text, bool allow_special,
                       const char *wanted)
{
    lore_error err = {0};
    lore_arena arena;
    lore_tokens tokens;
    lore_buf joined;
    lore_arena_init(&arena, 0);
    lore_buf_init(&joined, 0);
    CHECK_OK(lore_tokenizer_encode(t, lore_str_from(text),
                                   (lore_encode_options){.allow_special = allow_special}, &arena,
                                   &tokens, &err),
             &err);
    for (int32_t i = 0; i < tokens.count; i++) {
        lore_buf_printf(&joined, "%s%d", i > 0 ? " " : "", tokens.ids[i]);
    }
    CHECK_STR(lore_buf_str(&joined), wanted);
    lore_buf_destroy(&joined);
    lore_arena_destroy(&arena);
}

/* The longest added token that may stand there counts; of those that become the same text the one
 * with the smallest id. */
TEST(added_tokens_are_found)
{
    lore_error err = {0};
    lore_status status;
    lore_tokenizer *t =
        parse_with("{\"id\": 301, \"content\": \"<x>\", \"special\": true}, "
                   "{\"id\": 302, \"content\": \"<x>y\", \"special\": false, "
                   "\"normalized\": false}, "
                   "{\"id\": 303, \"content\": \"<x>yz\", \"special\": true}, "
                   "{\"id\": 305, \"content\": \"Q\", \"special\": false}, "
                   "{\"id\": 304, \"content\": \"q\", \"special\": false}, "
                   "{\"id\": 306, \"content\": \"R\", \"special\": true, "
                   "\"normalized\": true}, "
                   "{\"id\": 307, \"content\": \"r\", \"special\": false}",
                   "{\"type\": \"Lowercase\"}", BYTE_LEVEL, "null", "", &status, &err);
    CHECK_OK(status, &err);
    encodes_as(t, "<x>", false, "60 120 62");
    encodes_as(t, "<x>", true, "301");
    encodes_as(t, "<x>y<x><x>y", true, "302 301 302");
    encodes_as(t, "<x>yz", false, "302 122");
    encodes_as(t, "<x>yz<x>y", true, "303 302");
    encodes_as(t, "qQ", false, "304 304");
    encodes_as(t, "rR", true, "306 306");
    encodes_as(t, "rR", false, "307 307");
    lore_tokenizer_close(t);
}

/* Neither merges nor a look at the whole word make a special token of plain text, though the
 * vocabulary has it and merges lead there; `tokenizers` would, with encode_special_tokens. */
TEST(merges_make_no_special_token)
{
    static const char *const MODELS[] = {"", "\"ignore_merges\": true,"};
    for (size_t i = 0; i < 2; i++) {
        lore_error err = {0};
        lore_status status;
        lore_tokenizer *t = parse_with("{\"id\": 300, \"content\": \"ab\", \"special\": true}",
                                       "null", BYTE_LEVEL, "null", MODELS[i], &status, &err);
        CHECK_OK(status, &err);
        encodes_as(t, "ab cab", false, "97 98 32 99 97 98");
        encodes_as(t, "ab cab", true, "300 32 99 300");
        lore_tokenizer_close(t);
    }
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    CHECK_OK(lore_tokenizer_parse(
                 LORE_STR("{\"added_tokens\": [{\"id\": 1, \"content\": \"SEP\", \"special\": "
                          "true}], \"pre_tokenizer\": {\"type\": \"Whitespace\"}, \"model\": "
                          "{\"type\": \"WordPiece\", \"unk_token\": \"u\", \"vocab\": "
                          "{\"u\": 0, \"SEP\": 1, \"S\": 2, \"##E\": 3, \"##P\": 4}}}"),
                 "t.json", &t, &err),
             &err);
    encodes_as(t, "SEP x", false, "2 3 4 0");
    encodes_as(t, "SEP", true, "1");
    lore_tokenizer_close(t);
}

/* A network may lack rows for added tokens: that is an error where one occurs. It may not lack
 * those of the vocabulary. */
TEST(ids_beyond_the_network)
{
    lore_error err = {0};
    lore_status status;
    lore_arena arena;
    lore_tokens tokens;
    lore_tokenizer *t = parse_with("{\"id\": 301, \"content\": \"zz\", \"special\": false}", "null",
                                   BYTE_LEVEL, "null", "", &status, &err);
    CHECK_OK(status, &err);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_tokenizer_limit(t, 400, "m", &err), &err);
    encodes_as(t, "zz", false, "301");
    CHECK_OK(lore_tokenizer_limit(t, 301, "m", &err), &err);
    encodes_as(t, "ab", false, "300");
    CHECK_FAILS(
        lore_tokenizer_encode(t, LORE_STR("a zz"), (lore_encode_options){0}, &arena, &tokens, &err),
        LORE_ERR_INVALID, &err, "'zz' is token 301");
    CHECK_FAILS(lore_tokenizer_limit(t, 300, "m", &err), LORE_ERR_CORRUPT, &err, "302 ids");
    lore_tokenizer_close(t);
    t = parse_with("{\"id\": 301, \"content\": \"</s>\", \"special\": true}", "null", BYTE_LEVEL,
                   "{\"type\": \"BertProcessing\", \"cls\": [\"a\", 97], \"sep\": [\"</s>\", 301]}",
                   "", &status, &err);
    CHECK_OK(status, &err);
    CHECK_FAILS(lore_tokenizer_limit(t, 301, "m", &err), LORE_ERR_CORRUPT, &err, "302 ids");
    lore_tokenizer_close(t);
    lore_arena_destroy(&arena);
}

/* ---- hostile files ---- */

/* The number as a word of four letters. */
static void spell(int32_t number, char word[5])
{
    for (int i = 0; i < 4; i++, number /= 26) {
        word[i] = (char)('a' + number % 26);
    }
    word[4] = '\0';
}

/* Two words that take FNV-1a from `hash` to the same low 20 bits. */
static void find_collision(uint64_t *hash, char words[2][5])
{
    enum { LOW = 1 << 20 };
    static int32_t seen[LOW];
    memset(seen, -1, sizeof seen);
    for (int32_t n = 0; n < 26 * 26 * 26 * 26; n++) {
        uint64_t h = *hash;
        spell(n, words[0]);
        for (int i = 0; i < 4; i++) {
            h = (h ^ (uint64_t)words[0][i]) * 0x100000001B3u;
        }
        if (seen[h % LOW] >= 0) {
            spell(seen[h % LOW], words[1]);
            *hash = h;
            return;
        }
        seen[h % LOW] = n;
    }
    CHECK_STOP("no two words collide from %llx", (unsigned long long)*hash);
}

/* 2^17 tokens that would meet in one bucket of a table by FNV-1a (Joux 2004: 17 collisions one
 * behind the other): the hash has a key that their maker cannot know, and loading stays linear. */
TEST(colliding_tokens_take_no_time)
{
    enum { BLOCKS = 17 };
    char words[BLOCKS][2][5] = {{{0}}};
    uint64_t hash = 0xCBF29CE484222325u;
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    lore_buf json;
    for (int i = 0; i < BLOCKS; i++) {
        find_collision(&hash, words[i]);
    }
    lore_buf_init(&json, 0);
    lore_buf_printf(&json, "{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {");
    for (int32_t n = 0; n < 1 << BLOCKS; n++) {
        lore_buf_printf(&json, n > 0 ? ", \"" : "\"");
        for (int i = 0; i < BLOCKS; i++) {
            lore_buf_append(&json, lore_str_from(words[i][n >> i & 1]));
        }
        lore_buf_printf(&json, "\": %d", n);
    }
    lore_buf_printf(&json, "}}}");
    clock_t start = clock();
    CHECK_OK(lore_tokenizer_parse(lore_buf_str(&json), "t.json", &t, &err), &err);
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 1);
    lore_tokenizer_close(t);
    lore_buf_destroy(&json);
}

/* 60,000 added tokens with one beginning, and a text that is nothing but that. */
TEST(many_added_tokens_take_no_time)
{
    enum { TOKENS = 60000, SIZE = 1 << 20 };
    lore_error err = {0};
    lore_status status;
    lore_arena arena;
    lore_tokens tokens;
    lore_buf added, text;
    lore_buf_init(&added, 0);
    lore_buf_init(&text, 0);
    for (int32_t i = 0; i < TOKENS; i++) {
        lore_buf_printf(&added, "%s{\"id\": %d, \"content\": \"<unused%d>\", \"special\": true}",
                        i > 0 ? ", " : "", 301 + i, i);
    }
    while (text.len < SIZE) {
        lore_buf_append(&text, LORE_STR("<unused<unused59999x<"));
    }
    clock_t start = clock();
    lore_tokenizer *t =
        parse_with(lore_buf_c(&added), "null", BYTE_LEVEL, "null", "", &status, &err);
    CHECK_OK(status, &err);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_tokenizer_encode(t, lore_buf_str(&text),
                                   (lore_encode_options){.allow_special = true}, &arena, &tokens,
                                   &err),
             &err);
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 2);
    encodes_as(t, "<unused59999><unused1>", true, "60300 302");
    lore_tokenizer_close(t);
    lore_arena_destroy(&arena);
    lore_buf_destroy(&text);
    lore_buf_destroy(&added);
}

static lore_status parse_and_encode(void *self)
{
    lore_str text = *(lore_str *)self;
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    lore_arena arena;
    lore_tokens tokens;
    lore_arena_init(&arena, 0);
    lore_status status = lore_tokenizer_parse(text, "t.json", &t, &err);
    if (status == LORE_OK) {
        status = lore_tokenizer_encode(t, LORE_STR("e\u0301 the cat"),
                                       (lore_encode_options){.add_special = true}, &arena, &tokens,
                                       &err);
    }
    lore_tokenizer_close(t);
    lore_arena_destroy(&arena);
    return status;
}

/* Allocations of a full-size file: a sample of them fails. */
TEST(out_of_memory_is_an_error)
{
    lore_error err = {0};
    lore_buf json;
    lore_buf_init(&json, 0);
    CHECK_OK(
        lore_file_read(LORE_SOURCE_DIR "/weights/encoder/tokenizer.json", 64 << 20, &json, &err),
        &err);
    lore_str text = lore_buf_str(&json);
    int64_t before = lore_mem_count();
    CHECK_INT(parse_and_encode(&text), LORE_OK);
    int64_t total = lore_mem_count() - before;
    for (int64_t back = 0; back < 40;
         back++) { /* the last ones, behind the JSON tree, one by one; the others in steps */
        int64_t n = back < 30 ? total - back : (back - 29) * total / 12;
        int64_t live = lore_mem_live();
        lore_mem_fail_at(n, false);
        lore_status status = parse_and_encode(&text);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_ERR_NOMEM || status == LORE_OK);
        CHECK_INT(lore_mem_live(), live);
    }
    lore_buf_destroy(&json);
}

CHECK_MAIN(golden_ids, gpt2_vectors, roberta_is_gpt2_renumbered, llama3_vectors, qwen2_vectors,
           llama2_vectors, bert_vectors, tokens_tile_the_text, specials_only_when_asked,
           post_processor_surrounds, hostile_text_takes_no_time, pieces_join_to_the_whole,
           broken_bytes_become_replacement, small_files_work, what_we_cannot_do_is_named,
           added_tokens_are_found, merges_make_no_special_token, ids_beyond_the_network,
           colliding_tokens_take_no_time, many_added_tokens_take_no_time, out_of_memory_is_an_error)
