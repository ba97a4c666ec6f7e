/* The model of a tokenizer.json: token texts to bytes, merges to pairs of ids, scores. A byte-level
 * vocabulary writes its tokens in an alphabet of printable characters, one for each byte. */
#include "models/tokenizer_load_int.h"

#include "base/utf8.h"

#include <string.h>

/* ---- the byte alphabet ---- */

static void init_alphabet(lore_tokenizer_loader *l)
{
    int16_t code_points[256];
    lore_pretoken_alphabet(code_points);
    for (int i = 0; i < LORE_BYTE_ALPHABET; i++) {
        l->byte_of[i] = -1;
    }
    for (int16_t b = 0; b < 256 && l->is_byte_level; b++) {
        l->byte_of[code_points[b]] = b;
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

lore_str lore_loader_bytes(lore_tokenizer_loader *l, lore_str text)
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

/* ---- vocabulary ---- */

static lore_status wrong_id(lore_tokenizer_loader *l, const char *where, lore_str token)
{
    return lore_fail(l->err, LORE_ERR_CORRUPT,
                     "%s: id of '" LORE_STR_FMT "' must be a whole number of at most %d", where,
                     LORE_STR_ARG(token), LORE_TOKEN_ID_MAX);
}

/* One more than the largest id of vocabulary (an object of ids, or an array in their order) and
 * added tokens. */
static lore_status count_ids(lore_tokenizer_loader *l, const lore_json *vocab,
                             const lore_json *added, int32_t *count)
{
    int32_t id = 0, largest = lore_json_is_array(vocab) ? lore_json_count(vocab) - 1 : -1;
    if (largest > LORE_TOKEN_ID_MAX) {
        return lore_fail(l->err, LORE_ERR_LIMIT, "model.vocab has more than %d tokens",
                         LORE_TOKEN_ID_MAX);
    }
    for (const lore_json *n = lore_json_first(vocab); n != NULL && lore_json_is_object(vocab);
         n = lore_json_next(n)) {
        if (!lore_loader_read_id(n, &id)) {
            return wrong_id(l, "model.vocab", lore_json_key(n));
        }
        largest = id > largest ? id : largest;
    }
    for (const lore_json *n = lore_json_first(added); n != NULL; n = lore_json_next(n)) {
        if (!lore_loader_read_id(lore_json_get(n, "id"), &id)) {
            return wrong_id(l, "added_tokens", lore_json_str(lore_json_get(n, "content")));
        }
        largest = id > largest ? id : largest;
    }
    *count = largest + 1;
    return LORE_OK;
}

static lore_status add_entry(lore_tokenizer_loader *l, int32_t id, lore_str text)
{
    lore_str bytes = lore_loader_bytes(l, text);
    if (bytes.ptr == NULL) {
        return lore_loader_no_memory(l);
    }
    return lore_bpe_add_token(&l->t->bpe, id, bytes)
               ? LORE_OK
               : lore_fail(l->err, LORE_ERR_CORRUPT, "model.vocab: id %d occurs twice", id);
}

/* Entries in the byte alphabet, or those outside it. The former come first: where two entries stand
 * for the same bytes, merges mean the one in the alphabet. */
static lore_status load_entries(lore_tokenizer_loader *l, const lore_json *vocab, bool in_alphabet)
{
    lore_status status = LORE_OK;
    for (const lore_json *n = lore_json_first(vocab); n != NULL && status == LORE_OK;
         n = lore_json_next(n)) {
        int32_t id = 0;
        if (is_in_alphabet(l, lore_json_key(n)) != in_alphabet) {
            continue;
        }
        bool is_id = lore_loader_read_id(n, &id);
        LORE_ASSERT(is_id); /* count_ids has seen it */
        status = add_entry(l, id, lore_json_key(n));
    }
    return status;
}

static lore_status load_vocab(lore_tokenizer_loader *l, const lore_json *vocab)
{
    lore_status status = load_entries(l, vocab, true);
    return status == LORE_OK ? load_entries(l, vocab, false) : status;
}

/* The model's "unk_token" as an id; -1 where it has none. */
static lore_status read_unknown(lore_tokenizer_loader *l, const lore_json *model, int32_t *id)
{
    lore_str token = {0};
    lore_status status = lore_json_get_str(model, "model", "unk_token", &token, l->err);
    *id = -1;
    if (status == LORE_OK && token.ptr != NULL) {
        lore_str bytes = lore_loader_bytes(l, token);
        if (bytes.ptr == NULL) {
            return lore_loader_no_memory(l);
        }
        *id = lore_bpe_find(&l->t->bpe, bytes);
    }
    return status;
}

/* ---- BPE ---- */

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

/* Append the bytes of one side. */
static lore_status append_side(lore_tokenizer_loader *l, lore_str side, int32_t rank, lore_buf *out)
{
    if (!l->is_byte_level) {
        lore_buf_append(out, side);
        return LORE_OK;
    }
    for (size_t at = 0; at < side.len;) {
        int32_t c = lore_utf8_next(side, &at);
        if (c >= LORE_BYTE_ALPHABET || l->byte_of[c] < 0) {
            return lore_fail(l->err, LORE_ERR_CORRUPT,
                             "model.merges[%d] is not in the byte alphabet", rank);
        }
        lore_buf_byte(out, (char)l->byte_of[c]);
    }
    return LORE_OK;
}

/* scratch holds the bytes of both sides one behind the other, so it is the merged token too. */
static lore_status load_merge(lore_tokenizer_loader *l, lore_str left, lore_str right, int32_t rank,
                              lore_buf *scratch)
{
    static const lore_str mark = {"\xe2\x96\x81", 3};
    lore_bpe *bpe = &l->t->bpe;
    lore_buf_reset(scratch);
    lore_status status = append_side(l, left, rank, scratch);
    size_t edge = scratch->len;
    if (status == LORE_OK) {
        status = append_side(l, right, rank, scratch);
    }
    if (status == LORE_OK && lore_buf_failed(scratch)) {
        status = lore_loader_no_memory(l);
    }
    if (status != LORE_OK) {
        return status;
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
    if (lore_str_starts(right, mark) && !lore_str_ends(left, mark)) {
        l->t->cuts_before_space = false;
    }
    /* The library would make special tokens of text so; here text never becomes one. */
    if (!bpe->special[merged]) {
        lore_bpe_add_merge(bpe, a, b, merged);
    }
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

/* Settings of the BPE model. */
static lore_status load_settings(lore_tokenizer_loader *l, const lore_json *model,
                                 bool *has_fallback)
{
    static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    lore_bpe *bpe = &l->t->bpe;
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
        status = lore_json_get_bool(model, "model", "byte_fallback", has_fallback, l->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(model, "model", "fuse_unk", &bpe->fuses_unknown, l->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(model, "model", "ignore_merges", &bpe->ignores_merges, l->err);
    }
    return status;
}

static lore_status load_bpe(lore_tokenizer_loader *l, const lore_json *model)
{
    lore_tokenizer *t = l->t;
    bool has_fallback = false;
    lore_status status = load_settings(l, model, &has_fallback);
    if (status == LORE_OK) {
        status = load_vocab(l, lore_json_get(model, "vocab"));
    }
    if (status == LORE_OK) {
        status = read_unknown(l, model, &t->bpe.unk_id);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_bpe_start(&t->bpe, l->is_byte_level, has_fallback);
    /* Each merge may find that it does not hold. An unknown mark could be fused with what is
     * unknown before it. */
    t->cuts_before_space = !l->is_byte_level && !t->bpe.ignores_merges &&
                           lore_bpe_find(&t->bpe, LORE_STR("\xe2\x96\x81")) >= 0;
    return load_merges(l, lore_json_get(model, "merges"));
}

/* ---- WordPiece and Unigram ---- */

static lore_status load_wordpiece(lore_tokenizer_loader *l, const lore_json *model)
{
    lore_wordpiece_options options = {.prefix = LORE_STR("##")};
    int64_t chars_max = 100;
    lore_status status = load_vocab(l, lore_json_get(model, "vocab"));
    if (status == LORE_OK) {
        status =
            lore_json_get_str(model, "model", "continuing_subword_prefix", &options.prefix, l->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_int(model, "model", "max_input_chars_per_word", 1,
                                   LORE_WORDPIECE_CHARS_MAX, &chars_max, l->err);
    }
    if (status == LORE_OK) {
        status = read_unknown(l, model, &options.unk_id);
    }
    if (status != LORE_OK) {
        return status;
    }
    options.word_chars_max = (int32_t)chars_max;
    lore_str *tokens = lore_alloc_zero((size_t)l->t->bpe.vocab + 1, sizeof *tokens);
    if (tokens == NULL) {
        return lore_loader_no_memory(l);
    }
    for (int32_t id = 0; id < l->t->bpe.vocab; id++) { /* words never become special tokens */
        tokens[id] = l->t->bpe.special[id] ? (lore_str){0} : l->t->bpe.tokens[id];
    }
    status = lore_wordpiece_init(&l->t->wordpiece, &l->t->arena, tokens, l->t->bpe.vocab, options,
                                 l->err);
    lore_free(tokens);
    return status;
}

/* [["piece", score], ...]; a third member that is true is our own, of sentencepiece.c. */
static lore_status load_pieces(lore_tokenizer_loader *l, const lore_json *vocab,
                               lore_unigram_piece *pieces)
{
    int32_t id = 0;
    for (const lore_json *n = lore_json_first(vocab); n != NULL; n = lore_json_next(n), id++) {
        const lore_json *piece = lore_json_first(n);
        const lore_json *score = piece != NULL ? lore_json_next(piece) : NULL;
        const lore_json *is_hidden = score != NULL ? lore_json_next(score) : NULL;
        if (!lore_json_is_string(piece) || !lore_json_is_number(score)) {
            return lore_fail(l->err, LORE_ERR_CORRUPT, "model.vocab[%d] must be [\"piece\", score]",
                             id);
        }
        lore_status status = add_entry(l, id, lore_json_str(piece));
        if (status != LORE_OK) {
            return status;
        }
        pieces[id] =
            (lore_unigram_piece){.text = l->t->bpe.tokens[id],
                                 .score = lore_json_number(score),
                                 .is_hidden = l->t->bpe.special[id] || lore_json_bool(is_hidden)};
    }
    return LORE_OK;
}

static lore_status load_unigram(lore_tokenizer_loader *l, const lore_json *model)
{
    const lore_json *vocab = lore_json_get(model, "vocab");
    lore_unigram_options options = {.unk_id = -1};
    int64_t unk_id = -1;
    int32_t count = lore_json_count(vocab);
    lore_status status =
        lore_json_get_int(model, "model", "unk_id", 0, LORE_TOKEN_ID_MAX, &unk_id, l->err);
    if (status == LORE_OK) {
        status =
            lore_json_get_bool(model, "model", "byte_fallback", &options.has_byte_fallback, l->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    options.unk_id = (int32_t)unk_id;
    options.is_single = l->spec != NULL;
    lore_unigram_piece *pieces = lore_alloc_zero((size_t)count + 1, sizeof *pieces);
    if (pieces == NULL) {
        return lore_loader_no_memory(l);
    }
    status = load_pieces(l, vocab, pieces);
    if (status == LORE_OK) {
        status = lore_unigram_init(&l->t->unigram, &l->t->arena, pieces, count, options, l->err);
    }
    lore_free(pieces);
    return status;
}

/* ---- any of them ---- */

/* Which tokens text must never become. */
static void mark_special(lore_tokenizer_loader *l, const lore_json *added)
{
    lore_bpe *bpe = &l->t->bpe;
    for (const lore_json *n = lore_json_first(added); n != NULL; n = lore_json_next(n)) {
        int32_t id = 0;
        bool is_id = lore_loader_read_id(lore_json_get(n, "id"), &id);
        LORE_ASSERT(is_id); /* count_ids has seen it */
        bpe->special[id] = bpe->special[id] || lore_json_bool(lore_json_get(n, "special"));
    }
}

/* Old files do not say what they are. */
static lore_str kind_of(const lore_json *model)
{
    lore_str kind = lore_loader_kind(model);
    if (kind.len > 0) {
        return kind;
    }
    return lore_json_is_array(lore_json_get(model, "merges"))  ? LORE_STR("BPE")
           : lore_json_is_array(lore_json_get(model, "vocab")) ? LORE_STR("Unigram")
                                                               : LORE_STR("WordPiece");
}

lore_status lore_loader_model(lore_tokenizer_loader *l, const lore_json *model,
                              const lore_json *added)
{
    lore_tokenizer *t = l->t;
    const lore_json *vocab = lore_json_get(model, "vocab"),
                    *merges = lore_json_get(model, "merges");
    lore_str kind = kind_of(model);
    bool is_bpe = lore_str_equal(kind, LORE_STR("BPE"));
    bool is_unigram = lore_str_equal(kind, LORE_STR("Unigram"));
    bool is_known = is_bpe || ((is_unigram || lore_str_equal(kind, LORE_STR("WordPiece"))) &&
                               !l->is_byte_level);
    int32_t ids = 0;
    init_alphabet(l);
    if (!lore_json_is_object(model) || !is_known) {
        return lore_loader_unsupported(l, "model", kind);
    }
    bool is_shaped = is_unigram ? lore_json_is_array(vocab) : lore_json_is_object(vocab);
    if (!is_shaped || (is_bpe && !lore_json_is_array(merges))) {
        return lore_fail(l->err, LORE_ERR_CORRUPT,
                         is_unigram ? "model.vocab must be an array"
                         : is_bpe   ? "model.vocab must be an object, model.merges an array"
                                    : "model.vocab must be an object");
    }
    lore_status status = count_ids(l, vocab, added, &ids);
    if (status != LORE_OK) {
        return status;
    }
    t->bytes = LORE_PUSH(&t->arena, lore_str, ids + 1);
    t->is_added = lore_arena_push_zero(&t->arena, (size_t)ids + 1, sizeof *t->is_added);
    t->ids_max = ids;
    if (t->bytes == NULL || t->is_added == NULL ||
        !lore_bpe_init(&t->bpe, &t->arena, ids, is_bpe ? lore_json_count(merges) : 0)) {
        return lore_loader_no_memory(l);
    }
    mark_special(l, added);
    t->kind = is_bpe       ? LORE_TOKENIZER_BPE
              : is_unigram ? LORE_TOKENIZER_UNIGRAM
                           : LORE_TOKENIZER_WORDPIECE;
    return is_bpe       ? load_bpe(l, model)
           : is_unigram ? load_unigram(l, model)
                        : load_wordpiece(l, model);
}
