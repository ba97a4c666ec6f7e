/* The model of a tokenizer.json: token texts to bytes, merges to pairs of ids, added tokens to a
 * table that is searched by first byte. A vocabulary writes its tokens in an alphabet of printable
 * characters, one for each byte. */
#include "models/tokenizer_load_int.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { ADDED_MAX = 65536 };

/* ---- the byte alphabet ---- */

/* GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the other 68 bytes for U+0100 ..
 * U+0143. */
static void init_alphabet(lore_tokenizer_loader *l)
{
    int16_t next = 256;
    for (int i = 0; i < LORE_BYTE_ALPHABET; i++) {
        l->byte_of[i] = -1;
    }
    for (int16_t b = 0; b < 256; b++) {
        bool is_printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        l->byte_of[is_printable ? b : next++] = b;
    }
}

static bool is_in_alphabet(const lore_tokenizer_loader *l, lore_str text)
{
    for (size_t at = 0; at < text.len;) {
        int32_t c = lore_utf8_next(text, &at);
        if (c >= LORE_BYTE_ALPHABET || l->byte_of[c] < 0) {
            return false;
        }
    }
    return true;
}

/* The bytes that a token's text stands for. A text outside the alphabet stands for itself. In the
 * arena. */
static lore_str token_bytes(lore_tokenizer_loader *l, lore_str text)
{
    lore_str bytes = lore_str_copy(&l->t->arena, text);
    if (bytes.ptr == NULL || !is_in_alphabet(l, text)) {
        return bytes;
    }
    char *out = (char *)bytes.ptr;
    size_t count = 0;
    for (size_t at = 0; at < text.len;) {
        out[count++] = (char)l->byte_of[lore_utf8_next(text, &at)];
    }
    bytes.len = count;
    return bytes;
}

/* ---- vocabulary and merges ---- */

/* One more than the largest id of vocabulary and added tokens. */
static lore_status count_ids(lore_tokenizer_loader *l, const lore_json *vocab,
                             const lore_json *added, int32_t *count)
{
    int32_t id = 0, largest = -1;
    for (const lore_json *n = lore_json_first(vocab); n != NULL; n = lore_json_next(n)) {
        if (!lore_loader_read_id(n, &id)) {
            return lore_fail(l->err, LORE_ERR_CORRUPT,
                             "model.vocab: id of '" LORE_STR_FMT
                             "' must be a whole number of at most %d",
                             LORE_STR_ARG(lore_json_key(n)), LORE_TOKEN_ID_MAX);
        }
        largest = id > largest ? id : largest;
    }
    for (const lore_json *n = lore_json_first(added); n != NULL; n = lore_json_next(n)) {
        if (!lore_loader_read_id(lore_json_get(n, "id"), &id)) {
            return lore_fail(
                l->err, LORE_ERR_CORRUPT,
                "added_tokens: id of '" LORE_STR_FMT "' must be a whole number of at most %d",
                LORE_STR_ARG(lore_json_str(lore_json_get(n, "content"))), LORE_TOKEN_ID_MAX);
        }
        largest = id > largest ? id : largest;
    }
    *count = largest + 1;
    return LORE_OK;
}

/* Entries in the byte alphabet, or those outside it. The former come first: where two entries stand
 * for the same bytes, merges mean the one in the alphabet. */
static lore_status load_entries(lore_tokenizer_loader *l, const lore_json *vocab, bool in_alphabet)
{
    lore_bpe *bpe = &l->t->bpe;
    for (const lore_json *n = lore_json_first(vocab); n != NULL; n = lore_json_next(n)) {
        int32_t id = 0;
        if (is_in_alphabet(l, lore_json_key(n)) != in_alphabet) {
            continue;
        }
        bool is_id = lore_loader_read_id(n, &id);
        LORE_ASSERT(is_id); /* count_ids has seen it */
        lore_str bytes = token_bytes(l, lore_json_key(n));
        if (bytes.ptr == NULL) {
            return lore_loader_no_memory(l);
        }
        if (!lore_bpe_add_token(bpe, id, bytes)) {
            return lore_fail(l->err, LORE_ERR_CORRUPT, "model.vocab: id %d occurs twice", id);
        }
    }
    return LORE_OK;
}

static lore_status load_vocab(lore_tokenizer_loader *l, const lore_json *vocab)
{
    lore_bpe *bpe = &l->t->bpe;
    lore_status status = load_entries(l, vocab, true);
    if (status == LORE_OK) {
        status = load_entries(l, vocab, false);
    }
    for (int b = 0; status == LORE_OK && b < 256; b++) {
        char byte = (char)b;
        bpe->byte_ids[b] = lore_bpe_find(bpe, (lore_str){&byte, 1});
        if (bpe->byte_ids[b] < 0) {
            return lore_fail(
                l->err, LORE_ERR_UNSUPPORTED,
                "model.vocab has no token for byte %d: only byte-level vocabularies are supported",
                b);
        }
    }
    return status;
}

/* "a b" or ["a", "b"]. */
static bool merge_sides(const lore_json *node, lore_str *left, lore_str *right)
{
    if (lore_json_is_array(node)) {
        const lore_json *first = lore_json_first(node);
        const lore_json *second = first != NULL ? lore_json_next(first) : NULL;
        *left = lore_json_str(first);
        *right = lore_json_str(second);
        return lore_json_count(node) == 2 && left->len > 0 && right->len > 0;
    }
    lore_str text = lore_json_str(node);
    size_t space = lore_str_find(text, LORE_STR(" "), 0);
    if (space == SIZE_MAX || lore_str_find(text, LORE_STR(" "), space + 1) != SIZE_MAX) {
        return false;
    }
    *left = lore_str_slice(text, 0, space);
    *right = lore_str_slice(text, space + 1, text.len);
    return left->len > 0 && right->len > 0;
}

/* scratch holds the bytes of both sides one behind the other, so it is the merged token too. */
static lore_status load_merge(lore_tokenizer_loader *l, lore_str left, lore_str right, int32_t rank,
                              lore_buf *scratch)
{
    lore_bpe *bpe = &l->t->bpe;
    lore_str sides[2] = {left, right};
    size_t edge = 0;
    lore_buf_reset(scratch);
    for (int side = 0; side < 2; side++) {
        edge = side == 1 ? scratch->len : 0;
        for (size_t at = 0; at < sides[side].len;) {
            int32_t c = lore_utf8_next(sides[side], &at);
            if (c >= LORE_BYTE_ALPHABET || l->byte_of[c] < 0) {
                return lore_fail(l->err, LORE_ERR_CORRUPT,
                                 "model.merges[%d] is not in the byte alphabet", rank);
            }
            lore_buf_byte(scratch, (char)l->byte_of[c]);
        }
    }
    if (lore_buf_failed(scratch)) {
        return lore_loader_no_memory(l);
    }
    lore_str both = lore_buf_str(scratch);
    int32_t a = lore_bpe_find(bpe, lore_str_slice(both, 0, edge));
    int32_t b = lore_bpe_find(bpe, lore_str_slice(both, edge, both.len));
    int32_t merged = lore_bpe_find(bpe, both);
    if (a < 0 || b < 0 || merged < 0) {
        return lore_fail(l->err, LORE_ERR_CORRUPT,
                         "model.merges[%d]: '" LORE_STR_FMT "', '" LORE_STR_FMT
                         "' or both together is not in the vocabulary",
                         rank, LORE_STR_ARG(left), LORE_STR_ARG(right));
    }
    lore_bpe_add_merge(bpe, a, b, merged);
    return LORE_OK;
}

static lore_status load_merges(lore_tokenizer_loader *l, const lore_json *merges)
{
    lore_buf scratch;
    lore_status status = LORE_OK;
    int32_t rank = 0;
    lore_buf_init(&scratch, 0);
    for (const lore_json *n = lore_json_first(merges); n != NULL && status == LORE_OK;
         n = lore_json_next(n), rank++) {
        lore_str left = {0}, right = {0};
        status = merge_sides(n, &left, &right)
                     ? load_merge(l, left, right, rank, &scratch)
                     : lore_fail(l->err, LORE_ERR_CORRUPT,
                                 "model.merges[%d] must be \"left right\" or [\"left\", \"right\"]",
                                 rank);
    }
    lore_buf_destroy(&scratch);
    return status;
}

/* Settings of the BPE model that would change what it does. */
static lore_status check_model_settings(lore_tokenizer_loader *l, const lore_json *model)
{
    static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        lore_str affix = {0};
        lore_status status = lore_json_get_str(model, "model", AFFIXES[i], &affix, l->err);
        if (status != LORE_OK) {
            return status;
        }
        if (affix.len > 0) {
            return lore_loader_unsupported(l, AFFIXES[i], affix);
        }
    }
    double dropout = 0;
    lore_status status = lore_json_get_number(model, "model", "dropout", 0, 1, &dropout, l->err);
    if (status == LORE_OK && dropout > 0) {
        status = lore_fail(l->err, LORE_ERR_UNSUPPORTED, "model.dropout is not supported");
    }
    if (status == LORE_OK) {
        status = lore_loader_refuse_flag(l, model, "model", "byte_fallback");
    }
    if (status == LORE_OK) {
        status =
            lore_json_get_bool(model, "model", "ignore_merges", &l->t->bpe.ignores_merges, l->err);
    }
    return status;
}

lore_status lore_loader_model(lore_tokenizer_loader *l, const lore_json *model,
                              const lore_json *added)
{
    const lore_json *vocab = lore_json_get(model, "vocab"),
                    *merges = lore_json_get(model, "merges");
    int32_t ids = 0;
    init_alphabet(l);
    if (!lore_json_is_object(model) || (lore_loader_is_given(lore_json_get(model, "type")) &&
                                        !lore_loader_is_kind(model, "BPE"))) {
        return lore_loader_unsupported(l, "model", lore_loader_kind(model));
    }
    if (!lore_json_is_object(vocab) || !lore_json_is_array(merges)) {
        return lore_fail(l->err, LORE_ERR_CORRUPT,
                         "model.vocab must be an object, model.merges an array");
    }
    lore_status status = count_ids(l, vocab, added, &ids);
    if (status != LORE_OK) {
        return status;
    }
    l->t->special = LORE_PUSH(&l->t->arena, bool, ids);
    if (l->t->special == NULL ||
        !lore_bpe_init(&l->t->bpe, &l->t->arena, ids, lore_json_count(merges))) {
        return lore_loader_no_memory(l);
    }
    status = check_model_settings(l, model);
    if (status == LORE_OK) {
        status = load_vocab(l, vocab);
    }
    return status == LORE_OK ? load_merges(l, merges) : status;
}

/* ---- added tokens ---- */

static lore_status check_added_flags(lore_tokenizer_loader *l, const lore_json *node,
                                     lore_str content)
{
    static const char *const FLAGS[] = {"single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < 3; i++) {
        bool value = false;
        lore_status status = lore_json_get_bool(node, "added_tokens[]", FLAGS[i], &value, l->err);
        if (status != LORE_OK) {
            return status;
        }
        if (value) {
            return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                             "added token '" LORE_STR_FMT "': %s true is not supported",
                             LORE_STR_ARG(content), FLAGS[i]);
        }
    }
    return LORE_OK;
}

/* An added token's id is its own, or that of the vocabulary entry of the same text. */
static lore_status claim_id(lore_tokenizer_loader *l, const lore_added_token *token)
{
    lore_bpe *bpe = &l->t->bpe;
    lore_str there = bpe->tokens[token->id];
    bool is_fine = there.ptr == NULL ? lore_bpe_add_token(bpe, token->id, token->content)
                                     : lore_str_equal(there, token->content);
    if (!is_fine) {
        return lore_fail(l->err, LORE_ERR_CORRUPT,
                         "added token '" LORE_STR_FMT "': id %d belongs to another token",
                         LORE_STR_ARG(token->content), token->id);
    }
    l->t->special[token->id] = token->is_special;
    return LORE_OK;
}

static lore_status load_added_token(lore_tokenizer_loader *l, const lore_json *node,
                                    lore_added_token *token)
{
    lore_str content = lore_json_str(lore_json_get(node, "content"));
    if (content.len == 0 || content.len > 4096) {
        return lore_fail(l->err, LORE_ERR_CORRUPT,
                         "added_tokens[].content must have 1 to 4096 bytes");
    }
    lore_status status = check_added_flags(l, node, content);
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, "added_tokens[]", "special", &token->is_special, l->err);
    }
    token->is_normalized = !token->is_special; /* the library's default */
    if (status == LORE_OK) {
        status =
            lore_json_get_bool(node, "added_tokens[]", "normalized", &token->is_normalized, l->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    bool is_id = lore_loader_read_id(lore_json_get(node, "id"), &token->id);
    LORE_ASSERT(is_id); /* count_ids has seen it */
    token->content = lore_str_copy(&l->t->arena, content);
    if (token->content.ptr == NULL) {
        return lore_loader_no_memory(l);
    }
    bool is_markup = content.ptr[0] == '<' && content.ptr[content.len - 1] == '>';
    token->is_held_back = token->is_special || is_markup;
    return claim_id(l, token);
}

static int by_first_byte_longest(const void *a, const void *b)
{
    const lore_added_token *x = a, *y = b;
    uint8_t p = (uint8_t)x->content.ptr[0], q = (uint8_t)y->content.ptr[0];
    if (p != q) {
        return p < q ? -1 : 1;
    }
    if (x->content.len != y->content.len) {
        return x->content.len > y->content.len ? -1 : 1;
    }
    return lore_str_compare(x->content, y->content);
}

lore_status lore_loader_added(lore_tokenizer_loader *l, const lore_json *added)
{
    lore_tokenizer *t = l->t;
    int32_t count = lore_json_count(added);
    if (count > ADDED_MAX) {
        return lore_fail(l->err, LORE_ERR_LIMIT, "more than %d added tokens", ADDED_MAX);
    }
    t->added = LORE_PUSH(&t->arena, lore_added_token, count + 1);
    if (t->added == NULL) {
        return lore_loader_no_memory(l);
    }
    for (const lore_json *n = lore_json_first(added); n != NULL; n = lore_json_next(n)) {
        lore_status status = load_added_token(l, n, &t->added[t->added_count]);
        if (status != LORE_OK) {
            return status;
        }
        t->added_count++;
    }
    qsort(t->added, (size_t)t->added_count, sizeof *t->added, by_first_byte_longest);
    for (int32_t i = 0; i < t->added_count; i++) {
        t->added_start[(uint8_t)t->added[i].content.ptr[0] + 1] = i + 1;
    }
    for (int b = 1; b <= 256; b++) {
        if (t->added_start[b] < t->added_start[b - 1]) {
            t->added_start[b] = t->added_start[b - 1];
        }
    }
    return LORE_OK;
}
