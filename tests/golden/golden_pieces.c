/* Normalizers, WordPiece and Unigram give what the packages `tokenizers` and `sentencepiece` give,
 * offsets included: the cases of tests/golden/pieces/cases.jsonl, or of the file that
 * LORE_GOLDEN_PIECES names (make_pieces.py writes both). */
#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "models/normalize_int.h"
#include "models/unigram_int.h"
#include "models/wordpiece_int.h"
#include "tests/check.h"

enum { SHOWN = 5 };

static int32_t bad, good;

static void complain(const char *what, lore_str text, const char *why)
{
    bad++;
    if (bad <= SHOWN) {
        fprintf(stderr, "%s of '" LORE_STR_FMT "': %s\n", what, LORE_STR_ARG(text), why);
    }
}

static const lore_json *at(const lore_json *list, int32_t index)
{
    const lore_json *child = lore_json_first(list);
    while (index-- > 0) {
        child = lore_json_next(child);
    }
    return child;
}

/* The character of the text that a byte of it belongs to. */
static int32_t character_of(lore_str text, size_t byte)
{
    int32_t index = -1;
    for (size_t i = 0; i <= byte && i < text.len; i++) {
        index += ((uint8_t)text.ptr[i] & 0xC0) != 0x80;
    }
    return index;
}

static void check_normal(const lore_normalizer *n, const lore_json *item, lore_arena *arena)
{
    lore_str text = lore_json_str(at(item, 0)), wanted = lore_json_str(at(item, 1));
    lore_error err;
    lore_normal normal;
    CHECK_OK(lore_normalize(n, text, 0, arena, &normal, &err), &err);
    if (!lore_str_equal(normal.text, wanted)) {
        complain("normal form", text, lore_str_to_c(arena, normal.text));
        return;
    }
    const lore_json *origin = lore_json_first(at(item, 2));
    for (size_t byte = 0; byte < normal.text.len; origin = lore_json_next(origin)) {
        size_t from = normal.origin != NULL ? normal.origin[byte] : byte;
        CHECK(origin != NULL);
        if (character_of(text, from) != (int32_t)lore_json_number(origin)) {
            complain("origins", text, lore_str_to_c(arena, normal.text));
            return;
        }
        lore_utf8_next(normal.text, &byte);
    }
    good++;
}

/* ids and starts against the expectation; pieces start at bytes of the text. */
static void check_pieces(const char *what, const lore_pieces *pieces, const lore_json *item)
{
    lore_str text = lore_json_str(at(item, 0));
    const lore_json *id = lore_json_first(at(item, 1)), *start = lore_json_first(at(item, 2));
    for (int32_t i = 0; i < pieces->count; i++) {
        if (id == NULL || (int32_t)lore_json_number(id) != pieces->items[i].id) {
            complain(what, text, "another id");
            return;
        }
        if ((int32_t)lore_json_number(start) != character_of(text, pieces->items[i].start)) {
            complain(what, text, "another start");
            return;
        }
        id = lore_json_next(id);
        start = lore_json_next(start);
    }
    if (id != NULL) {
        complain(what, text, "too few");
        return;
    }
    good++;
}

static size_t decode_base64(lore_str text, char *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = 0, bits = 0;
    uint32_t value = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] != '='; i++) {
        value = value << 6 | (uint32_t)(strchr(alphabet, text.ptr[i]) - alphabet);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[size++] = (char)(value >> bits);
        }
    }
    return size;
}

static void normalizer_line(const lore_json *node, const lore_json *cases, lore_arena *arena)
{
    lore_error err;
    lore_normalizer *n;
    CHECK_OK(lore_normalizer_parse(node, arena, &n, &err), &err);
    const lore_json *item = lore_json_first(cases);
    for (; item != NULL; item = lore_json_next(item)) {
        check_normal(n, item, arena);
    }
}

static void sentencepiece_line(const lore_json *node, const lore_json *cases, lore_arena *arena)
{
    lore_error err;
    lore_normalizer *n;
    lore_str base64 = lore_json_str(lore_json_get(node, "charsmap"));
    char *blob = lore_arena_push(arena, base64.len + 4);
    lore_normalizer_spec spec = {{blob, decode_base64(base64, blob)},
                                 lore_json_bool(lore_json_get(node, "prefix")),
                                 lore_json_bool(lore_json_get(node, "squeeze")),
                                 lore_json_bool(lore_json_get(node, "escape"))};
    CHECK_OK(lore_normalizer_from_spec(&spec, arena, &n, &err), &err);
    const lore_json *item = lore_json_first(cases);
    for (; item != NULL; item = lore_json_next(item)) {
        check_normal(n, item, arena);
    }
}

static void wordpiece_line(const lore_json *node, const lore_json *cases, lore_arena *arena)
{
    lore_error err;
    lore_wordpiece w;
    int32_t vocab = 0;
    const lore_json *list = lore_json_get(node, "vocab"), *child = lore_json_first(list);
    lore_str *tokens = LORE_PUSH(arena, lore_str, lore_json_count(list));
    for (; child != NULL; child = lore_json_next(child)) {
        tokens[vocab++] = lore_json_str(child);
    }
    lore_wordpiece_options options = {lore_json_str(lore_json_get(node, "prefix")),
                                      (int32_t)lore_json_number(lore_json_get(node, "unk")),
                                      (int32_t)lore_json_number(lore_json_get(node, "max"))};
    CHECK_OK(lore_wordpiece_init(&w, arena, tokens, vocab, options, &err), &err);
    lore_pieces pieces = {.arena = arena}, word_pieces = {.arena = arena};
    for (const lore_json *item = lore_json_first(cases); item; item = lore_json_next(item)) {
        lore_str text = lore_json_str(at(item, 0)), word;
        pieces.count = 0;
        for (size_t i = 0; lore_wordpiece_next(text, &i, &word);) {
            word_pieces.count = 0;
            CHECK(lore_wordpiece_word(&w, word, &word_pieces));
            for (int32_t k = 0; k < word_pieces.count; k++) {
                size_t start = (size_t)(word.ptr - text.ptr) + word_pieces.items[k].start;
                CHECK(lore_pieces_push(&pieces, word_pieces.items[k].id, start));
            }
        }
        check_pieces("wordpiece", &pieces, item);
    }
}

static void unigram_line(const lore_json *node, const lore_json *cases, lore_arena *arena)
{
    lore_error err;
    lore_unigram u;
    int32_t count = 0;
    const lore_json *list = lore_json_get(node, "pieces"), *child = lore_json_first(list);
    lore_unigram_piece *all = LORE_PUSH(arena, lore_unigram_piece, lore_json_count(list));
    for (; child != NULL; child = lore_json_next(child)) {
        all[count].text = lore_json_str(at(child, 0));
        all[count++].score = lore_json_number(at(child, 1));
    }
    lore_unigram_options options = {(int32_t)lore_json_number(lore_json_get(node, "unk")),
                                    lore_json_bool(lore_json_get(node, "byte_fallback")), false};
    CHECK_OK(lore_unigram_init(&u, arena, all, count, options, &err), &err);
    lore_pieces pieces = {.arena = arena};
    lore_unigram_scratch scratch = {.arena = arena};
    for (const lore_json *item = lore_json_first(cases); item; item = lore_json_next(item)) {
        pieces.count = 0;
        CHECK_OK(lore_unigram_encode(&u, lore_json_str(at(item, 0)), &scratch, &pieces, &err),
                 &err);
        check_pieces("unigram", &pieces, item);
    }
}

static void check_line(lore_str line, lore_arena *arena)
{
    lore_error err;
    lore_json *root;
    CHECK_OK(lore_json_parse(line, 32, &root, &err), &err);
    const lore_json *cases = lore_json_get(root, "cases");
    int32_t before = bad;
    if (lore_json_get(root, "normalizer") != NULL) {
        normalizer_line(lore_json_get(root, "normalizer"), cases, arena);
    } else if (lore_json_get(root, "wordpiece") != NULL) {
        wordpiece_line(lore_json_get(root, "wordpiece"), cases, arena);
    } else if (lore_json_get(root, "sentencepiece") != NULL) {
        sentencepiece_line(lore_json_get(root, "sentencepiece"), cases, arena);
    } else {
        unigram_line(lore_json_get(root, "unigram"), cases, arena);
    }
    if (bad > before) {
        fprintf(stderr, "%d cases differ in %.100s\n", bad - before, line.ptr);
    }
    lore_json_free(root);
}

TEST(as_tokenizers)
{
    const char *path = getenv("LORE_GOLDEN_PIECES");
    lore_error err;
    lore_buf file;
    lore_buf_init(&file, 0);
    path = path != NULL ? path : LORE_SOURCE_DIR "/tests/golden/pieces/cases.jsonl";
    CHECK_OK(lore_file_read(path, SIZE_MAX, &file, &err), &err);
    lore_str rest = lore_buf_str(&file), line;
    int32_t lines = 0;
    while (lore_str_next_line(&rest, &line)) {
        lore_arena arena;
        lore_arena_init(&arena, 0);
        check_line(line, &arena);
        lore_arena_destroy(&arena);
        lines++;
    }
    lore_buf_destroy(&file);
    CHECK(lines > 0);
    CHECK(good > 0);
    CHECK_INT(bad, 0);
}

CHECK_MAIN(as_tokenizers)
