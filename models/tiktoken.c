/* tiktoken's files: a line for each token, its bytes in base64 and its rank, which is its id. The
 * pattern and the special tokens are in nobody's file but in the code around tiktoken; which they
 * are is told by how many ranks there are, or by the family that the folder names; the tokens are
 * those of its config where that lists them. Where nothing tells, the file is refused. */
#include "models/tokenizer_files_int.h"

#include "base/utf8.h"
#include "models/merges_int.h"
#include "models/pretoken_int.h"

#include <stdio.h>
#include <string.h>

enum {
    RANK_MAX = 1 << 21,
    TOKEN_BYTES_MAX = 512,
    TEXT_BYTES_MAX = (TOKEN_BYTES_MAX + 2) / 3 * 4, /* of a token in base64 */
    NAME_CAP = 48,
    LLAMA3_SPECIAL = 256
};

typedef struct reader {
    lore_arena *arena;
    const lore_json *config;
    lore_str *tokens; /* [count], ptr NULL: no such rank */
    int32_t count;
    int16_t alphabet[256];
    lore_error *err;
} reader;

/* ---- lines ---- */

/* token has room for any base64 text of TEXT_BYTES_MAX. */
static bool read_line(lore_str line, char token[TEXT_BYTES_MAX], size_t *size, int64_t *rank)
{
    size_t space = lore_str_find(line, LORE_STR(" "), 0);
    return space != SIZE_MAX && space <= TEXT_BYTES_MAX &&
           lore_str_from_base64(lore_str_slice(line, 0, space), token, size) && *size > 0 &&
           *size <= TOKEN_BYTES_MAX &&
           lore_str_to_int64(lore_str_slice(line, space + 1, line.len), rank) && *rank >= 0 &&
           *rank <= RANK_MAX;
}

bool lore_tiktoken_is(lore_str text)
{
    char token[TEXT_BYTES_MAX];
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
        char token[TEXT_BYTES_MAX];
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

typedef struct rank_family {
    lore_tokenizer_family name_given; /* by the folder, where the ranks are not as many */
    int32_t ranks, special;
    void (*name)(int32_t i, char name[NAME_CAP]);
    const char *pattern;
    bool is_nfc, has_bos; /* the first special token */
} rank_family;

static const rank_family FAMILIES[] = {
    {LORE_FAMILY_LLAMA, 128000, LLAMA3_SPECIAL, name_llama3, LORE_PATTERN_LLAMA3, false, true},
    {LORE_FAMILY_QWEN, 151643, 208, name_qwen, LORE_PATTERN_QWEN2, true, false}};

/* By how many ranks there are, else by the name that the folder gives: then the special tokens are
 * those of the config alone. NULL: neither tells, and any pattern would be a guess. */
static const rank_family *family_of(int32_t ranks, lore_tokenizer_family given, rank_family *room)
{
    const rank_family *named = NULL;
    for (size_t i = 0; i < sizeof FAMILIES / sizeof FAMILIES[0]; i++) {
        if (FAMILIES[i].ranks == ranks) {
            return &FAMILIES[i];
        }
        named = FAMILIES[i].name_given == given ? &FAMILIES[i] : named;
    }
    if (named != NULL) {
        *room = *named;
        room->ranks = ranks;
        room->special = 0;
    }
    return named != NULL ? room : NULL;
}

/* ---- as tokenizer.json ---- */

static lore_status write_added(reader *r, lore_json_writer *w, const rank_family *f)
{
    lore_special_token tokens[LLAMA3_SPECIAL];
    bool is_listed = lore_json_is_object(lore_json_get(r->config, "added_tokens_decoder"));
    int32_t count = is_listed ? 0 : f->special;
    for (int32_t i = 0; i < count; i++) {
        char name[NAME_CAP];
        f->name(i, name);
        tokens[i] = (lore_special_token){.id = f->ranks + i,
                                         .content = lore_str_copy(r->arena, lore_str_from(name)),
                                         .is_special = true};
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

static lore_status write_json(reader *r, lore_tokenizer_family given, lore_buf *json)
{
    lore_json_writer w;
    rank_family room;
    const rank_family *f = family_of(r->count, given, &room);
    if (f == NULL) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "a tiktoken file of %d ranks does not say how text is split: it needs a "
                         "tokenizer.json beside it, or a tokenizer_config.json whose "
                         "tokenizer_class begins with Llama or Qwen (known by their number of "
                         "ranks are Llama 3, %d, and Qwen, %d)",
                         r->count, FAMILIES[0].ranks, FAMILIES[1].ranks);
    }
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

lore_status lore_tiktoken_read(lore_str text, const lore_json *config, lore_tokenizer_family family,
                               lore_buf *json, lore_error *err)
{
    lore_arena arena;
    reader r = {.arena = &arena, .config = config, .err = err};
    lore_arena_init(&arena, 0);
    lore_pretoken_alphabet(r.alphabet);
    lore_status status = read_ranks(&r, text);
    if (status == LORE_OK) {
        status = write_json(&r, family, json);
    }
    lore_arena_destroy(&arena);
    return status;
}
