/* tiktoken's files: a line for each token, its bytes in base64 and its rank, which is its id. The
 * pattern and the special tokens are in nobody's file but in the code around tiktoken; which they
 * are is told by how many ranks there are, unless the folder's config lists the tokens. */
#include "models/tokenizer_files_int.h"

#include "base/utf8.h"
#include "models/merges_int.h"
#include "models/pretoken_int.h"

#include <stdio.h>
#include <string.h>

enum { RANK_MAX = 1 << 21, TOKEN_BYTES_MAX = 512, NAME_CAP = 48, LLAMA3_SPECIAL = 256 };

typedef struct reader {
    lore_arena *arena;
    const lore_json *config;
    lore_str *tokens; /* [count], ptr NULL: no such rank */
    int32_t count;
    int16_t alphabet[256];
    lore_error *err;
} reader;

/* ---- lines ---- */

static int32_t base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Decode into out; *size is how many bytes. False: no base64, none at all or too long. */
static bool decode_base64(lore_str text, char out[TOKEN_BYTES_MAX], size_t *size)
{
    uint32_t bits = 0;
    int held = 0;
    size_t full = text.len;
    while (text.len > 0 && full - text.len < 2 && text.ptr[text.len - 1] == '=') {
        text.len--;
    }
    *size = 0;
    for (size_t i = 0; i < text.len; i++) {
        int32_t value = base64_value(text.ptr[i]);
        if (value < 0 || *size == TOKEN_BYTES_MAX) {
            return false;
        }
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[(*size)++] = (char)(bits >> held & 0xff);
        }
    }
    return *size > 0 && full % 4 == 0 && text.len % 4 != 1;
}

static bool read_line(lore_str line, char token[TOKEN_BYTES_MAX], size_t *size, int64_t *rank)
{
    size_t space = lore_str_find(line, LORE_STR(" "), 0);
    return space != SIZE_MAX && decode_base64(lore_str_slice(line, 0, space), token, size) &&
           lore_str_to_int64(lore_str_slice(line, space + 1, line.len), rank) && *rank >= 0 &&
           *rank <= RANK_MAX;
}

bool lore_tiktoken_is(lore_str text)
{
    char token[TOKEN_BYTES_MAX];
    size_t size = 0;
    int64_t rank = 0;
    lore_str line;
    return lore_str_next_line(&text, &line) && read_line(line, token, &size, &rank);
}

/* Twice over the lines: the largest rank, then the tokens. */
static lore_status read_ranks(reader *r, lore_str text)
{
    for (int round = 0; round < 2; round++) {
        lore_str rest = text, line;
        int64_t rank = 0;
        char token[TOKEN_BYTES_MAX];
        size_t size = 0;
        for (int64_t number = 1; lore_str_next_line(&rest, &line); number++) {
            if (line.len == 0) {
                continue;
            }
            if (!read_line(line, token, &size, &rank) ||
                (round == 1 && r->tokens[rank].ptr != NULL)) {
                return lore_fail(
                    r->err, LORE_ERR_CORRUPT,
                    "tiktoken line %lld must be a token of 1 to %d bytes in base64 and "
                    "a rank of its own of at most %d",
                    (long long)number, TOKEN_BYTES_MAX, RANK_MAX);
            }
            if (round == 0) {
                r->count = rank >= r->count ? (int32_t)rank + 1 : r->count;
            } else {
                r->tokens[rank] = lore_str_copy(r->arena, (lore_str){token, size});
                if (r->tokens[rank].ptr == NULL) {
                    return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a tiktoken file");
                }
            }
        }
        if (round == 0 && r->count == 0) {
            return lore_fail(r->err, LORE_ERR_CORRUPT, "tiktoken file without tokens");
        }
        if (round == 0) {
            r->tokens = LORE_PUSH(r->arena, lore_str, r->count);
        }
        if (r->tokens == NULL) {
            return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a tiktoken file");
        }
    }
    return LORE_OK;
}

/* ---- special tokens ---- */

/* Names of the 256 behind Llama 3's ranks, as its own code lists them. */
static void name_llama3(int32_t i, char name[NAME_CAP])
{
    static const char *const FIRST[] = {"begin_of_text",
                                        "end_of_text",
                                        "reserved_special_token_0",
                                        "reserved_special_token_1",
                                        "reserved_special_token_2",
                                        "reserved_special_token_3",
                                        "start_header_id",
                                        "end_header_id",
                                        "reserved_special_token_4",
                                        "eot_id"};
    if (i < 10) {
        snprintf(name, NAME_CAP, "<|%s|>", FIRST[i]);
    } else {
        snprintf(name, NAME_CAP, "<|reserved_special_token_%d|>", (int)i - 5);
    }
}

static void name_qwen(int32_t i, char name[NAME_CAP])
{
    static const char *const FIRST[] = {"endoftext", "im_start", "im_end"};
    if (i < 3) {
        snprintf(name, NAME_CAP, "<|%s|>", FIRST[i]);
    } else {
        snprintf(name, NAME_CAP, "<|extra_%d|>", (int)i - 3);
    }
}

typedef struct family {
    int32_t ranks, special;
    void (*name)(int32_t i, char name[NAME_CAP]);
    const char *pattern;
    bool is_nfc, has_bos; /* the first special token */
} family;

static const family FAMILIES[] = {
    {128000, LLAMA3_SPECIAL, name_llama3, LORE_PATTERN_LLAMA3, false, true},
    {151643, 208, name_qwen, LORE_PATTERN_QWEN2, true, false},
    {0, 0, NULL, LORE_PATTERN_LLAMA3, false, false}}; /* any other */

static const family *family_of(int32_t ranks)
{
    const family *f = FAMILIES;
    while (f->ranks != 0 && f->ranks != ranks) {
        f++;
    }
    return f;
}

/* ---- as tokenizer.json ---- */

static lore_status write_added(reader *r, lore_json_writer *w, const family *f)
{
    lore_special_token tokens[LLAMA3_SPECIAL];
    bool is_listed = lore_json_is_object(lore_json_get(r->config, "added_tokens_decoder"));
    int32_t count = is_listed ? 0 : f->special;
    for (int32_t i = 0; i < count; i++) {
        char name[NAME_CAP];
        f->name(i, name);
        tokens[i] =
            (lore_special_token){f->ranks + i, lore_str_copy(r->arena, lore_str_from(name)), true};
        if (tokens[i].content.ptr == NULL) {
            return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a tiktoken file");
        }
    }
    return lore_tokenizer_write_added(w, r->config, tokens, count, r->err);
}

/* A token in the byte alphabet, with a NUL behind. */
static lore_str as_text(const reader *r, lore_str token, char text[2 * TOKEN_BYTES_MAX + 1])
{
    size_t size = 0;
    for (size_t i = 0; i < token.len; i++) {
        char encoded[4];
        size_t bytes = lore_utf8_encode(r->alphabet[(uint8_t)token.ptr[i]], encoded);
        memcpy(text + size, encoded, bytes); /* at most two: the alphabet is below U+0144 */
        size += bytes;
    }
    text[size] = '\0';
    return (lore_str){text, size};
}

static lore_status write_model(reader *r, lore_json_writer *w)
{
    char text[2 * TOKEN_BYTES_MAX + 1];
    lore_merge_pair *pairs = NULL;
    size_t count = 0;
    lore_merge_source source = {.tokens = r->tokens, .count = r->count};
    lore_status status = lore_merges_find(&source, r->arena, &pairs, &count, r->err);
    if (status != LORE_OK) {
        return status;
    }
    lore_json_object(w, "model");
    lore_json_string(w, "type", LORE_STR("BPE"));
    lore_json_boolean(w, "ignore_merges", true);
    lore_json_object(w, "vocab");
    for (int32_t i = 0; i < r->count; i++) {
        if (r->tokens[i].ptr != NULL) {
            lore_json_int(w, as_text(r, r->tokens[i], text).ptr, i);
        }
    }
    lore_json_end(w);
    lore_json_array(w, "merges");
    for (size_t i = 0; i < count; i++) {
        lore_json_array(w, NULL);
        lore_json_string(w, NULL, as_text(r, r->tokens[pairs[i].left], text));
        lore_json_string(w, NULL, as_text(r, r->tokens[pairs[i].right], text));
        lore_json_end(w);
    }
    lore_json_end(w);
    lore_json_end(w);
    return LORE_OK;
}

static lore_status write_json(reader *r, lore_buf *json)
{
    lore_json_writer w;
    const family *f = family_of(r->count);
    bool has_bos = lore_tokenizer_flag(r->config, "add_bos_token", f->has_bos) && f->special > 0;
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    lore_status status = write_added(r, &w, f);
    if (status == LORE_OK) {
        if (f->is_nfc) {
            lore_tokenizer_write_type(&w, "normalizer", "NFC");
        }
        lore_tokenizer_write_byte_level(&w, f->pattern, false);
        lore_tokenizer_write_template(&w, has_bos ? f->ranks : -1, -1);
        status = write_model(r, &w);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_json_end(&w);
    return lore_buf_failed(json)
               ? lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for a tiktoken file")
               : LORE_OK;
}

lore_status lore_tiktoken_read(lore_str text, const lore_json *config, lore_buf *json,
                               lore_error *err)
{
    lore_arena arena;
    reader r = {.arena = &arena, .config = config, .err = err};
    lore_arena_init(&arena, 0);
    lore_pretoken_alphabet(r.alphabet);
    lore_status status = read_ranks(&r, text);
    if (status == LORE_OK) {
        status = write_json(&r, json);
    }
    lore_arena_destroy(&arena);
    return status;
}
