/* The "decoder" of a tokenizer.json: what each token says, worked out once.
 *
 * The library runs its decoders over the list of an answer's tokens; we stream, so each stage must
 * be one that looks at a token alone, or drops spaces where the text begins. */
#include "models/tokenizer_load_int.h"

enum {
    SPACES_MAX = 1 << 20,
    REPLACES_MAX = 8,
    TOKEN_BYTES_MAX = 1 << 16,  /* of what one token says: replacing may multiply */
    VOCAB_BYTES_MAX = 256 << 20 /* of what all of them say */
};

typedef struct decoder {
    bool has_fallback, is_fused;
    bool is_wordpiece, cleans_up;
    lore_str prefix; /* of WordPiece */
    struct {
        lore_str from, to;
    } replaces[REPLACES_MAX];
    int32_t replace_count;
    int32_t first_spaces;
} decoder;

/* ---- what a token says ---- */

static void append_replaced(lore_buf *out, lore_str text, lore_str from, lore_str to)
{
    size_t at = 0;
    for (size_t next = 0; (next = lore_str_find(text, from, at)) != SIZE_MAX;) {
        lore_buf_append(out, lore_str_slice(text, at, next));
        lore_buf_append(out, to);
        at = next + from.len;
    }
    lore_buf_append(out, lore_str_slice(text, at, text.len));
}

/* "word" as " word", "##s" as "s"; no space before what ends a clause or follows an apostrophe, as
 * the library cleans up. */
static void append_wordpiece(const decoder *d, lore_buf *out, lore_str text)
{
    static const char *const CLOSE[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
    if (d->prefix.len > 0 && lore_str_starts(text, d->prefix)) {
        lore_buf_append(out, lore_str_slice(text, d->prefix.len, text.len));
        return;
    }
    bool is_close = false;
    for (size_t i = 0; i < sizeof CLOSE / sizeof CLOSE[0] && d->cleans_up; i++) {
        is_close = is_close || lore_str_starts(text, lore_str_from(CLOSE[i]));
    }
    if (!is_close) {
        lore_buf_byte(out, ' ');
    }
    lore_buf_append(out, text);
}

/* scratch is two buffers that take turns. */
static lore_status decode_token(lore_tokenizer_loader *l, const decoder *d, int32_t id,
                                lore_buf scratch[2])
{
    lore_str text = l->t->bytes[id];
    int32_t byte = d->has_fallback ? lore_piece_byte(text) : -1;
    char value = (char)byte;
    if (byte >= 0) {
        text = (lore_str){&value, 1};
    }
    for (int32_t i = 0; i < d->replace_count && byte < 0; i++) {
        lore_buf *out = &scratch[i & 1];
        lore_buf_reset(out);
        append_replaced(out, text, d->replaces[i].from, d->replaces[i].to);
        text = lore_buf_str(out);
    }
    if (d->is_wordpiece) {
        lore_buf *out = &scratch[d->replace_count & 1];
        lore_buf_reset(out);
        append_wordpiece(d, out, text);
        text = lore_buf_str(out);
    }
    l->t->bytes[id] = lore_str_copy(&l->t->arena, text);
    return l->t->bytes[id].ptr == NULL ? lore_loader_no_memory(l) : LORE_OK;
}

/* A buffer fails where it is over its cap, too; which it was matters little. */
static lore_status check_size(lore_tokenizer_loader *l, const lore_buf scratch[2], int32_t id,
                              size_t *total)
{
    *total += l->t->bytes[id].len;
    bool is_over =
        lore_buf_failed(&scratch[0]) || lore_buf_failed(&scratch[1]) || *total > VOCAB_BYTES_MAX;
    return is_over ? lore_fail(l->err, LORE_ERR_LIMIT,
                               "decoder: token %d says more than %d bytes, or all together more "
                               "than %d (or out of memory)",
                               id, TOKEN_BYTES_MAX, VOCAB_BYTES_MAX)
                   : LORE_OK;
}

static lore_status decode_all(lore_tokenizer_loader *l, const decoder *d)
{
    lore_buf scratch[2];
    lore_status status = LORE_OK;
    size_t total = 0;
    lore_buf_init(&scratch[0], TOKEN_BYTES_MAX);
    lore_buf_init(&scratch[1], TOKEN_BYTES_MAX);
    l->t->first_spaces = d->first_spaces;
    for (int32_t id = 0; id < l->t->bpe.vocab && status == LORE_OK; id++) {
        bool is_plain =
            l->is_byte_level || l->t->bpe.special[id] || l->t->bpe.tokens[id].ptr == NULL;
        if (l->t->bytes[id].ptr == NULL) {
            l->t->bytes[id] = l->t->bpe.tokens[id];
        }
        if (!is_plain) {
            status = decode_token(l, d, id, scratch);
            status = status == LORE_OK ? check_size(l, scratch, id, &total) : status;
        }
    }
    lore_buf_destroy(&scratch[0]);
    lore_buf_destroy(&scratch[1]);
    return status;
}

/* ---- reading ---- */

static lore_status add_replace(lore_tokenizer_loader *l, decoder *d, lore_str from, lore_str to)
{
    if (d->replace_count == REPLACES_MAX || from.len == 0) {
        return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                         "decoder.Replace must be of a string, and there may be %d of them",
                         REPLACES_MAX);
    }
    d->replaces[d->replace_count].from = from;
    d->replaces[d->replace_count++].to = to;
    return LORE_OK;
}

/* Strip spaces at the start; of the whole text where it comes behind Fuse. */
static lore_status read_strip(lore_tokenizer_loader *l, const lore_json *node, decoder *d)
{
    lore_str content = LORE_STR(" ");
    int64_t start = 0, stop = 0;
    lore_status status = lore_json_get_str(node, "decoder.Strip", "content", &content, l->err);
    if (status == LORE_OK) {
        status = lore_json_get_int(node, "decoder.Strip", "start", 0, SPACES_MAX, &start, l->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_int(node, "decoder.Strip", "stop", 0, SPACES_MAX, &stop, l->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (!d->is_fused || stop > 0 || !lore_str_equal(content, LORE_STR(" "))) {
        return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                         "decoder.Strip is supported of spaces at the start and behind Fuse only");
    }
    d->first_spaces = (int32_t)start;
    return LORE_OK;
}

static lore_status read_metaspace(lore_tokenizer_loader *l, const lore_json *node, decoder *d)
{
    lore_str mark = LORE_STR("\xe2\x96\x81"), scheme = LORE_STR("always");
    bool has_prefix = true;
    lore_status status = lore_json_get_str(node, "decoder.Metaspace", "replacement", &mark, l->err);
    if (status == LORE_OK) {
        status =
            lore_json_get_bool(node, "decoder.Metaspace", "add_prefix_space", &has_prefix, l->err);
    }
    scheme = has_prefix ? scheme : LORE_STR("never");
    if (status == LORE_OK) {
        status = lore_json_get_str(node, "decoder.Metaspace", "prepend_scheme", &scheme, l->err);
    }
    if (status == LORE_OK) {
        status = add_replace(l, d, mark, LORE_STR(" "));
    }
    d->first_spaces = lore_str_equal(scheme, LORE_STR("never")) ? 0 : SPACES_MAX;
    return status;
}

static lore_status read_wordpiece(lore_tokenizer_loader *l, const lore_json *node, decoder *d)
{
    d->is_wordpiece = true;
    d->cleans_up = true;
    d->prefix = LORE_STR("##");
    d->first_spaces = 1;
    lore_status status = lore_json_get_str(node, "decoder.WordPiece", "prefix", &d->prefix, l->err);
    return status == LORE_OK
               ? lore_json_get_bool(node, "decoder.WordPiece", "cleanup", &d->cleans_up, l->err)
               : status;
}

static lore_status read_stage(lore_tokenizer_loader *l, const lore_json *node, decoder *d)
{
    lore_str kind = lore_loader_kind(node);
    if (lore_str_equal(kind, LORE_STR("Sequence"))) {
        lore_status status = LORE_OK;
        for (const lore_json *n = lore_json_first(lore_json_get(node, "decoders"));
             n != NULL && status == LORE_OK; n = lore_json_next(n)) {
            status = read_stage(l, n, d);
        }
        return status;
    }
    if (lore_str_equal(kind, LORE_STR("ByteLevel")) && l->is_byte_level) {
        return LORE_OK; /* our vocabulary is in bytes already */
    }
    if (lore_str_equal(kind, LORE_STR("ByteFallback"))) {
        d->has_fallback = true;
        return LORE_OK;
    }
    if (lore_str_equal(kind, LORE_STR("Fuse"))) {
        d->is_fused = true;
        return LORE_OK;
    }
    if (lore_str_equal(kind, LORE_STR("Replace"))) {
        return add_replace(l, d,
                           lore_json_str(lore_json_get(lore_json_get(node, "pattern"), "String")),
                           lore_json_str(lore_json_get(node, "content")));
    }
    if (lore_str_equal(kind, LORE_STR("Strip"))) {
        return read_strip(l, node, d);
    }
    if (lore_str_equal(kind, LORE_STR("Metaspace"))) {
        return read_metaspace(l, node, d);
    }
    if (lore_str_equal(kind, LORE_STR("WordPiece"))) {
        return read_wordpiece(l, node, d);
    }
    return lore_loader_unsupported(l, "decoder", kind);
}

lore_status lore_loader_decoder(lore_tokenizer_loader *l, const lore_json *node)
{
    decoder d = {0};
    const lore_added_table *normalized = &l->t->added[1];
    for (int32_t i = 0; i < normalized->count; i++) { /* they say what they are found as */
        l->t->bytes[normalized->tokens[i].id] = normalized->tokens[i].pattern;
    }
    lore_status status = lore_loader_is_given(node) ? read_stage(l, node, &d) : LORE_OK;
    return status == LORE_OK ? decode_all(l, &d) : status;
}
