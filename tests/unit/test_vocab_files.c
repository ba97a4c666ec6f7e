/* BERT's vocab.txt, GPT-2's two files and tiktoken's ranks become tokenizers as their families have
 * them, the folder's config included; which file of a folder counts; what is broken is refused.
 * (Whole vocabularies: test_tokenizer.c.) Covers tiktoken.c and tokenizer_folder.c too. */
#include "models/tokenizer_files_int.h"
#include "tests/unit/models_fixture.h"

#include "models/tokenizer.h"

/* A fresh folder under the test's own. */
static const char *make_folder(void)
{
    static char path[128];
    static int number;
    snprintf(path, sizeof path, "%s/%d", check_temp_dir(), number++);
    CHECK_INT(mkdir(path, 0700), 0);
    return path;
}

static void put_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK_INT(fwrite(text, 1, strlen(text), file), strlen(text));
    fclose(file);
}

static void ids_are(const char *folder, const char *text, const char *wanted)
{
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    lore_arena arena;
    lore_tokens tokens;
    lore_buf joined;
    lore_arena_init(&arena, 0);
    lore_buf_init(&joined, 0);
    CHECK_OK(lore_tokenizer_open(folder, &LIMITS, &t, &err), &err);
    lore_encode_options options = {.allow_special = true, .add_special = true};
    CHECK_OK(lore_tokenizer_encode(t, lore_str_from(text), options, &arena, &tokens, &err), &err);
    for (int32_t i = 0; i < tokens.count; i++) {
        lore_buf_printf(&joined, "%s%d", i > 0 ? " " : "", tokens.ids[i]);
    }
    CHECK_STR(lore_buf_str(&joined), wanted);
    lore_buf_destroy(&joined);
    lore_arena_destroy(&arena);
    lore_tokenizer_close(t);
}

static void refused(const char *folder, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    CHECK_FAILS(lore_tokenizer_open(folder, &LIMITS, &t, &err), wanted, &err, message);
}

#define BERT "[PAD]\n[UNK]\n[CLS]\n[SEP]\ncaf\u00e9\ncafe\n##s\nA\na\n\ncafe\n"

TEST(bert)
{
    const char *folder = make_folder();
    put_file(folder, "vocab.txt", BERT);
    ids_are(folder, "Caf\u00e9s A [SEP] x", "2 10 6 8 3 1 3"); /* of "cafe" the last line counts */
    put_file(
        folder, "tokenizer_config.json",
        "{\"do_lower_case\": false, \"added_tokens_decoder\": {\"11\": {\"content\": \"<x>\"}}}");
    ids_are(folder, "caf\u00e9s A<x>", "2 4 6 7 11 3");
    put_file(folder, "tokenizer_config.json", "{\"added_tokens_decoder\": {\"-1\": {}}}");
    refused(folder, LORE_ERR_CORRUPT, "added_tokens_decoder");
    put_file(folder, "tokenizer_config.json", "{\"unk_token\": \"none\"}");
    refused(folder, LORE_ERR_CORRUPT, "vocab.txt");
    put_file(folder, "vocab.txt", "");
    refused(folder, LORE_ERR_LIMIT, "lines");
}

TEST(gpt2)
{
    const char *folder = make_folder();
    put_file(
        folder, "vocab.json",
        "{\"a\": 0, \"b\": 1, \"ab\": 2, \"\u0120\": 3, \"\u0120ab\": 4, \"<s>\": 5, \"</s>\": 6}");
    refused(folder, LORE_ERR_NOT_FOUND, "merges.txt");
    put_file(folder, "merges.txt", "#version: 0.2\na b\n\u0120 ab\n");
    ids_are(folder, "ab ab", "2 4");
    put_file(
        folder, "tokenizer_config.json",
        "{\"tokenizer_class\": \"RobertaTokenizer\", \"add_prefix_space\": true, \"eos_token\": "
        "{\"content\": \"</s>\"}}");
    ids_are(folder, "ab</s>", "5 4 6 6");
    /* Without a config the network's type says that the tokenizer is RoBERTa's. */
    const char *roberta = make_folder();
    put_file(roberta, "vocab.json",
             "{\"a\": 0, \"b\": 1, \"ab\": 2, \"<s>\": 5, \"</s>\": 6, \"<mask>\": 7}");
    put_file(roberta, "merges.txt", "a b\n");
    put_file(roberta, "config.json", "{\"model_type\": \"roberta\"}");
    ids_are(roberta, "ab <mask>b", "5 2 7 1 6");
    put_file(roberta, "tokenizer_config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\"}");
    ids_are(roberta, "ab", "2");
    put_file(folder, "merges.txt", "a b\nb zz\n");
    refused(folder, LORE_ERR_CORRUPT, "merges[1]");
    put_file(folder, "vocab.json", "{\"a\": 0, \"b\": 0}");
    refused(folder, LORE_ERR_CORRUPT, "id of 'b'");
    put_file(folder, "vocab.json", "[1]");
    refused(folder, LORE_ERR_CORRUPT, "vocab.json");
}

TEST(tiktoken)
{
    const char *folder = make_folder();
    put_file(folder, "x.tiktoken", "YQ== 0\nYg== 1\nYWI= 2\nIGFi 3\nIA== 4\n\n");
    refused(folder, LORE_ERR_UNSUPPORTED, "5 ranks does not say how text is split");
    put_file(folder, "tokenizer_config.json", "{\"tokenizer_class\": \"LlamaTokenizer\"}");
    ids_are(folder, "ab ab b", "2 3 4 1");
    put_file(folder, "tokenizer.model", "YQ== 5\n"); /* comes before *.tiktoken */
    ids_are(folder, "aa", "5 5");
    put_file(folder, "tokenizer_config.json",
             "{\"tokenizer_class\": \"QWenTokenizer\", \"added_tokens_decoder\": {\"6\": "
             "{\"content\": \"<|end|>\", \"special\": true}}}");
    ids_are(folder, "a<|end|>", "5 6");
    static const char *const BROKEN[] = {
        "YQ== 0\nYg==\n",   "YQ== 0\nY 1\n",          "YQ== 0\nYg== -1\n",  "YQ== 0\nYg== 0\n",
        "YQ== 0\nYg=1 1\n", "YQ== 0\nYg== 9999999\n", "YQ== 0\nYg== 1 2\n", "YQ== 0\n==== 1\n"};
    for (size_t i = 0; i < sizeof BROKEN / sizeof BROKEN[0]; i++) {
        put_file(folder, "tokenizer.model", BROKEN[i]);
        refused(folder, LORE_ERR_CORRUPT, "line 2");
    }
}

/* <unk>, <s>, </s>, "a" and a mark of space, without scores, as a protocol buffer. */
static const char PIECES[] = "\x0a\x09\x0a\x05<unk>\x18\x02\x0a\x07\x0a\x03<s>\x18\x03"
                             "\x0a\x08\x0a\x04</s>\x18\x03\x0a\x03\x0a\x01\x61"
                             "\x0a\x05\x0a\x03\xe2\x96\x81";

TEST(xlm_roberta)
{
    const char *folder = make_folder();
    put_file(folder, "sentencepiece.bpe.model", PIECES);
    refused(folder, LORE_ERR_UNSUPPORTED, "xlm-roberta");
    put_file(folder, "config.json", "{\"model_type\": \"camembert\"}");
    refused(folder, LORE_ERR_UNSUPPORTED, "xlm-roberta");
    put_file(folder, "config.json", "{\"model_type\": \"xlm-roberta\"}");
    ids_are(folder, "a a", "0 5 4 5 4 2");
    put_file(folder, "config.json", "{");
    refused(folder, LORE_ERR_CORRUPT, "config.json");
}

static void hash_of(const char *folder, uint8_t digest[32])
{
    lore_error err = {0};
    lore_sha256 sha;
    lore_sha256_init(&sha);
    CHECK_OK(lore_tokenizer_hash(folder, &LIMITS, &sha, &err), &err);
    lore_sha256_final(&sha, digest);
}

/* Whatever changes the ids changes the hash, which is part of an encoder's fingerprint. */
TEST(hash_is_of_all_files)
{
    static const char *const STEPS[][2] = {
        {"vocab.txt", BERT},
        {"x.tiktoken", "YQ== 0\n"},
        {"x.tiktoken", "Yg== 0\n"},
        {"vocab.json", "{}"},
        {"config.json", "{\"model_type\": \"roberta\"}"},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\"}"},
        {"sentencepiece.bpe.model", PIECES},
        {"tokenizer.json", "{}"}};
    const char *folder = make_folder();
    uint8_t before[32], now[32];
    hash_of(folder, before);
    for (size_t i = 0; i < sizeof STEPS / sizeof STEPS[0]; i++) {
        put_file(folder, STEPS[i][0], STEPS[i][1]);
        hash_of(folder, now);
        CHECK(memcmp(before, now, sizeof now) != 0);
        memcpy(before, now, sizeof now);
    }
    put_file(folder, "x.tiktoken", "YQ== 0\n"); /* tokenizer.json says it all, */
    hash_of(folder, now);
    CHECK(memcmp(before, now, sizeof now) == 0);
    put_file(folder, "tokenizer_config.json", "{\"add_eos_token\": true}"); /* but for the ends */
    hash_of(folder, now);
    CHECK(memcmp(before, now, sizeof now) != 0);
}

/* What stands round texts where tokenizer.json has no template. */
TEST(ends_of_a_config)
{
    static const char *const JSON =
        "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[U]\", \"vocab\": {\"[U]\": 0, "
        "\"a\": 1, \"[B]\": 2, \"[E]\": 3}}}";
    const char *folder = make_folder();
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    int32_t count = -1;
    put_file(folder, "tokenizer.json", JSON);
    put_file(folder, "tokenizer_config.json",
             "{\"add_bos_token\": true, \"bos_token\": {\"content\": \"[B]\"}, "
             "\"add_eos_token\": true, \"eos_token\": \"[E]\"}");
    CHECK_OK(lore_tokenizer_open(folder, &LIMITS, &t, &err), &err);
    CHECK_INT(lore_tokenizer_prefix(t, &count)[0], 2);
    CHECK_INT(count, 1);
    CHECK_INT(lore_tokenizer_suffix(t, &count)[0], 3);
    CHECK_INT(count, 1);
    lore_tokenizer_close(t);
    put_file(folder, "tokenizer_config.json", /* as transformers: nothing to put there */
             "{\"add_bos_token\": false, \"bos_token\": \"[B]\", \"add_eos_token\": true}");
    CHECK_OK(lore_tokenizer_open(folder, &LIMITS, &t, &err), &err);
    (void)lore_tokenizer_prefix(t, &count);
    CHECK_INT(count, 0);
    (void)lore_tokenizer_suffix(t, &count);
    CHECK_INT(count, 0);
    lore_tokenizer_close(t);
    put_file(folder, "tokenizer_config.json", "{\"add_eos_token\": true, \"eos_token\": \"[X]\"}");
    refused(folder, LORE_ERR_CORRUPT, "eos_token '[X]'");
}

TEST(which_file_counts)
{
    const char *folder = make_folder();
    refused(folder, LORE_ERR_NOT_FOUND, "tokenizer.json");
    put_file(folder, "vocab.txt", BERT);
    put_file(folder, "tokenizer.json", "{");
    refused(folder, LORE_ERR_CORRUPT, "tokenizer.json");
    CHECK(lore_tiktoken_is(LORE_STR("YQ== 0\n")) && !lore_tiktoken_is(LORE_STR("\n\x0e\n")));
}

CHECK_MAIN(bert, gpt2, tiktoken, xlm_roberta, hash_is_of_all_files, ends_of_a_config,
           which_file_counts)
