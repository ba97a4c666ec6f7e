/* Text to ids: added tokens are cut out first, what lies between is normalised (where the file asks
 * for it) and split into pieces by the pattern, each piece is merged by BPE, and the
 * post-processor's ids go round the whole. Ids back to text is only concatenation, with care for
 * characters that are split over several tokens.
 *
 * A run keeps its tokens in blocks of its own arena and copies them once, at the end, to the
 * caller's: the count is not known before, and a guess of one token a byte would cost ten times the
 * memory. */
#include "models/tokenizer_int.h"

#include "base/utf8.h"

#include <string.h>

enum { BLOCK_TOKENS = 1024 };

typedef struct token_block token_block;
struct token_block {
    token_block *next;
    int32_t count;
    int32_t ids[BLOCK_TOKENS];
    uint32_t starts[BLOCK_TOKENS];
};

typedef struct token_run {
    const lore_tokenizer *t;
    lore_arena *arena; /* blocks and scratch */
    bool is_counting;  /* keep the count only */
    bool allow_special;
    int32_t count, count_max; /* stop behind the piece that reaches count_max; 0: never */
    token_block *first, *last;
    lore_bpe_scratch scratch;
    lore_error *err;
} token_run;

/* A piece of text on its way: origin[i] is the offset in the caller's text of byte i, or NULL where
 * byte i is at base + i. */
typedef struct token_span {
    lore_str text;
    size_t base;
    const uint32_t *origin;
} token_span;

static size_t origin_of(const token_span *span, size_t at)
{
    return span->origin != NULL ? span->origin[at] : span->base + at;
}

static token_span sub_span(const token_span *span, size_t start, size_t end)
{
    token_span sub = {lore_str_slice(span->text, start, end), span->base + start,
                      span->origin != NULL ? span->origin + start : NULL};
    return sub;
}

static bool is_full(const token_run *run)
{
    return run->count_max > 0 && run->count >= run->count_max;
}

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for tokens");
}

static lore_status emit(token_run *run, int32_t id, size_t start)
{
    if (!run->is_counting) {
        if (run->last == NULL || run->last->count == BLOCK_TOKENS) {
            token_block *block = lore_arena_push(run->arena, sizeof *block);
            if (block == NULL) {
                return no_memory(run->err);
            }
            block->next = NULL;
            block->count = 0;
            if (run->last != NULL) {
                run->last->next = block;
            } else {
                run->first = block;
            }
            run->last = block;
        }
        run->last->ids[run->last->count] = id;
        run->last->starts[run->last->count++] = (uint32_t)start;
    }
    run->count++;
    return LORE_OK;
}

/* ---- one piece between splits ---- */

static lore_status encode_piece(token_run *run, const token_span *piece)
{
    const lore_bpe *bpe = &run->t->bpe;
    int32_t count = 0;
    size_t at = 0;
    if (piece->text.len == 1) {
        return emit(run, bpe->byte_ids[(uint8_t)piece->text.ptr[0]], origin_of(piece, 0));
    }
    if (piece->text.len > LORE_BPE_WORD_BYTES_MAX) {
        return lore_fail(run->err, LORE_ERR_LIMIT,
                         "a run of %zu bytes without a break is over the tokenizer's limit of %d",
                         piece->text.len, LORE_BPE_WORD_BYTES_MAX);
    }
    if (!lore_bpe_word(bpe, piece->text, &run->scratch, &count)) {
        return no_memory(run->err);
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t id = run->scratch.symbols[i].id;
        lore_status status = emit(run, id, origin_of(piece, at));
        if (status != LORE_OK) {
            return status;
        }
        at += bpe->tokens[id].len;
    }
    return LORE_OK;
}

static lore_status encode_pieces(token_run *run, const token_span *span)
{
    for (size_t at = 0; at < span->text.len && !is_full(run);) {
        size_t end = lore_pretoken_next(run->t->pretoken, span->text, at);
        token_span piece = sub_span(span, at, end);
        lore_status status = encode_piece(run, &piece);
        if (status != LORE_OK) {
            return status;
        }
        at = end;
    }
    return LORE_OK;
}

/* ---- added tokens ---- */

/* The longest added token of the wanted kind that starts at `at`, or NULL. */
static const lore_added_token *added_at(const token_run *run, lore_str text, size_t at,
                                        bool is_normalized)
{
    const lore_tokenizer *t = run->t;
    uint8_t byte = (uint8_t)text.ptr[at];
    for (int32_t i = t->added_start[byte]; i < t->added_start[byte + 1]; i++) {
        const lore_added_token *token = &t->added[i];
        if (token->is_normalized == is_normalized && (run->allow_special || !token->is_held_back) &&
            token->content.len <= text.len - at &&
            memcmp(token->content.ptr, text.ptr + at, token->content.len) == 0) {
            return token;
        }
    }
    return NULL;
}

static lore_status encode_normalized(token_run *run, const token_span *span);
static lore_status encode_raw(token_run *run, const token_span *span);

/* Cut the span at added tokens, before or behind the normaliser; what lies between goes one stage
 * on. */
static lore_status encode_split(token_run *run, const token_span *span, bool is_normalized)
{
    lore_status (*next)(token_run *, const token_span *) =
        is_normalized ? encode_pieces : encode_raw;
    size_t start = 0;
    for (size_t at = 0; at < span->text.len && !is_full(run);) {
        const lore_added_token *token = added_at(run, span->text, at, is_normalized);
        if (token == NULL) {
            at++;
            continue;
        }
        token_span before = sub_span(span, start, at);
        lore_status status = next(run, &before);
        if (status == LORE_OK) {
            status = emit(run, token->id, origin_of(span, at));
        }
        if (status != LORE_OK) {
            return status;
        }
        at += token->content.len;
        start = at;
    }
    token_span rest = sub_span(span, start, span->text.len);
    return next(run, &rest);
}

static lore_status encode_normalized(token_run *run, const token_span *span)
{
    return encode_split(run, span, true);
}

/* ---- normaliser ---- */

/* End of a piece that normalisation cannot reach out of: before an ASCII byte or a Han character,
 * which never join with what stands before them. */
static size_t normal_piece_end(lore_str text, size_t at)
{
    lore_utf8_next(text, &at);
    while (at < text.len) {
        size_t next = at;
        int32_t c = lore_utf8_next(text, &next);
        if (c < 0x80 || (c >= 0x3400 && c < 0xa000)) {
            break;
        }
        at = next;
    }
    return at;
}

/* Append the NFC form of one piece, and for each of its bytes where it came from. */
static lore_status normalize_piece(token_run *run, lore_str piece, size_t offset, lore_buf *out,
                                   lore_buf *origin)
{
    size_t before = out->len;
    if (lore_utf8_valid(piece) == piece.len) {
        lore_status status = lore_utf8_nfc(piece, out, run->err);
        if (status != LORE_OK) {
            return status;
        }
    } else {
        lore_buf_append(out, piece); /* no text: leave it as it is */
    }
    bool is_same = out->len - before == piece.len && !lore_buf_failed(out) &&
                   memcmp(out->ptr + before, piece.ptr, piece.len) == 0;
    for (size_t i = before; i < out->len; i++) {
        uint32_t from = (uint32_t)(offset + (is_same ? i - before : 0));
        lore_buf_append(origin, (lore_str){(const char *)&from, sizeof from});
    }
    return lore_buf_failed(out) || lore_buf_failed(origin) ? no_memory(run->err) : LORE_OK;
}

static lore_status encode_raw(token_run *run, const token_span *span)
{
    lore_buf text, origin;
    lore_status status = LORE_OK;
    if (!run->t->is_nfc || lore_utf8_is_nfc(span->text)) {
        return encode_normalized(run, span);
    }
    lore_buf_init(&text, 0);
    lore_buf_init(&origin, 0);
    for (size_t at = 0; at < span->text.len && status == LORE_OK;) {
        size_t end = normal_piece_end(span->text, at);
        status = normalize_piece(run, lore_str_slice(span->text, at, end), span->base + at, &text,
                                 &origin);
        at = end;
    }
    if (status == LORE_OK) {
        /* lore_buf memory comes from lore_realloc, which aligns to 16. */
        token_span normal = {lore_buf_str(&text), 0, (const uint32_t *)(const void *)origin.ptr};
        status = encode_normalized(run, &normal);
    }
    lore_buf_destroy(&text);
    lore_buf_destroy(&origin);
    return status;
}

/* ---- a whole text ---- */

static lore_status run_text(token_run *run, lore_str text, bool add_special)
{
    const lore_tokenizer *t = run->t;
    token_span span = {text, 0, NULL};
    lore_status status = LORE_OK;
    if (text.len > INT32_MAX) {
        return lore_fail(run->err, LORE_ERR_LIMIT,
                         "a text of %zu bytes is over the tokenizer's limit", text.len);
    }
    for (int32_t i = 0; add_special && i < t->prefix_count && status == LORE_OK; i++) {
        status = emit(run, t->prefix[i], 0);
    }
    if (status == LORE_OK) {
        status = encode_split(run, &span, false);
    }
    for (int32_t i = 0; add_special && i < t->suffix_count && status == LORE_OK; i++) {
        status = emit(run, t->suffix[i], text.len);
    }
    return status;
}

/* Copy the first `count` tokens of the run's blocks into one pair of arrays. */
static lore_status collect(const token_run *run, int32_t count, lore_arena *arena,
                           lore_tokens *tokens)
{
    lore_tokens all = {lore_arena_push(arena, (size_t)count * sizeof(int32_t)),
                       lore_arena_push(arena, (size_t)count * sizeof(uint32_t)), 0};
    if (all.ids == NULL || all.starts == NULL) {
        return no_memory(run->err);
    }
    for (const token_block *block = run->first; block != NULL && all.count < count;
         block = block->next) {
        int32_t take = block->count < count - all.count ? block->count : count - all.count;
        memcpy(all.ids + all.count, block->ids, (size_t)take * sizeof(int32_t));
        memcpy(all.starts + all.count, block->starts, (size_t)take * sizeof(uint32_t));
        all.count += take;
    }
    *tokens = all;
    return LORE_OK;
}

static lore_status encode(token_run *run, lore_str text, bool add_special, lore_arena *arena,
                          lore_tokens *tokens)
{
    lore_arena local;
    lore_arena_init(&local, 0);
    run->arena = &local;
    run->scratch.arena = &local;
    lore_status status = run_text(run, text, add_special);
    if (status == LORE_OK) {
        bool is_over = run->count_max > 0 && run->count > run->count_max;
        status = collect(run, is_over ? run->count_max : run->count, arena, tokens);
    }
    lore_arena_destroy(&local);
    return status;
}

lore_status lore_tokenizer_encode(const lore_tokenizer *tokenizer, lore_str text,
                                  lore_encode_options options, lore_arena *arena,
                                  lore_tokens *tokens, lore_error *err)
{
    token_run run = {.t = tokenizer, .allow_special = options.allow_special, .err = err};
    return encode(&run, text, options.add_special, arena, tokens);
}

lore_status lore_tokenizer_encode_head(const lore_tokenizer *tokenizer, lore_str text,
                                       int32_t tokens_max, lore_arena *arena, lore_tokens *tokens,
                                       lore_error *err)
{
    LORE_ASSERT(tokens_max > 0);
    token_run run = {.t = tokenizer, .count_max = tokens_max, .err = err};
    return encode(&run, text, false, arena, tokens);
}

lore_status lore_tokenizer_count(const lore_tokenizer *tokenizer, lore_str text,
                                 lore_arena *scratch, int32_t *count, lore_error *err)
{
    token_run run = {.t = tokenizer, .arena = scratch, .is_counting = true, .err = err};
    run.scratch.arena = scratch;
    lore_status status = run_text(&run, text, false);
    lore_arena_reset(scratch);
    if (status == LORE_OK) {
        *count = run.count;
    }
    return status;
}

/* ---- facts ---- */

int32_t lore_tokenizer_vocab(const lore_tokenizer *tokenizer)
{
    return tokenizer->bpe.vocab;
}

const int32_t *lore_tokenizer_prefix(const lore_tokenizer *tokenizer, int32_t *count)
{
    *count = tokenizer->prefix_count;
    return tokenizer->prefix;
}

const int32_t *lore_tokenizer_suffix(const lore_tokenizer *tokenizer, int32_t *count)
{
    *count = tokenizer->suffix_count;
    return tokenizer->suffix;
}

int32_t lore_tokenizer_id(const lore_tokenizer *tokenizer, lore_str token)
{
    return lore_bpe_find(&tokenizer->bpe, token);
}

bool lore_tokenizer_is_special(const lore_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->bpe.vocab && tokenizer->special[id];
}

lore_str lore_tokenizer_bytes(const lore_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= tokenizer->bpe.vocab) {
        return (lore_str){0};
    }
    return tokenizer->bpe.tokens[id];
}

/* ---- detokeniser ---- */

/* Bytes that a character with these first bytes needs, or 0 where no character begins so (RFC 3629,
 * table 3-7 of the Unicode standard). */
static int32_t character_size(const char *bytes, int32_t count)
{
    uint8_t first = (uint8_t)bytes[0];
    uint8_t low = 0x80, high = 0xbf;
    int32_t size = first < 0x80                    ? 1
                   : first >= 0xc2 && first < 0xe0 ? 2
                   : first >= 0xe0 && first < 0xf0 ? 3
                   : first >= 0xf0 && first < 0xf5 ? 4
                                                   : 0;
    if (first == 0xe0) {
        low = 0xa0;
    } else if (first == 0xed) {
        high = 0x9f;
    } else if (first == 0xf0) {
        low = 0x90;
    } else if (first == 0xf4) {
        high = 0x8f;
    }
    for (int32_t i = 1; i < count; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        if (byte < (i == 1 ? low : 0x80) || byte > (i == 1 ? high : 0xbf)) {
            return 0;
        }
    }
    return size;
}

static void give_up(lore_detok *detok, lore_buf *out)
{
    lore_buf_append(out, LORE_STR("\xef\xbf\xbd"));
    detok->pending_count = 0;
}

static void push_byte(lore_detok *detok, char byte, lore_buf *out)
{
    detok->pending[detok->pending_count++] = byte;
    int32_t size = character_size(detok->pending, detok->pending_count);
    if (size == 0 && detok->pending_count > 1) {
        give_up(detok, out); /* what was pending cannot complete; this byte may begin anew */
        push_byte(detok, byte, out);
    } else if (size == 0) {
        give_up(detok, out);
    } else if (size == detok->pending_count) {
        lore_buf_append(out, (lore_str){detok->pending, (size_t)size});
        detok->pending_count = 0;
    }
}

void lore_detok_push(lore_detok *detok, const lore_tokenizer *tokenizer, int32_t id, lore_buf *out)
{
    if (lore_tokenizer_is_special(tokenizer, id)) {
        return;
    }
    lore_str bytes = lore_tokenizer_bytes(tokenizer, id);
    for (size_t i = 0; i < bytes.len; i++) {
        push_byte(detok, bytes.ptr[i], out);
    }
}

void lore_detok_finish(lore_detok *detok, lore_buf *out)
{
    if (detok->pending_count > 0) {
        give_up(detok, out);
    }
}
