/* Text to ids: added tokens are cut out first, what lies between is normalised (where the file asks
 * for it) and cut into pieces, one pre-tokenizer's step inside the other, each piece becomes tokens
 * by the model, and the post-processor's ids go round the whole.
 *
 * A run keeps its tokens in blocks of its own arena and copies them once, at the end, to the
 * caller's: the count is not known before, and a guess of one token a byte would cost ten times the
 * memory. */
#include "models/tokenizer_int.h"

#include "base/utf8.h"
#include "models/word_cache_int.h"

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
    const uint8_t *foreign;   /* lore_encode_options */
    int32_t count, count_max; /* stop behind the piece that reaches count_max; 0: never */
    size_t start;             /* of the last token */
    token_block *first, *last;
    lore_bpe_scratch bpe;
    lore_unigram_scratch unigram;
    lore_pieces pieces; /* of the word at hand */
    lore_word_cache words;
    lore_pretoken_walk *walks; /* [step_count] */
    lore_error *err;
} token_run;

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, which sentencepiece writes for a space */

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

static lore_status beyond_network(const token_run *run, int32_t id)
{
    return lore_fail(run->err, LORE_ERR_INVALID,
                     "'" LORE_STR_FMT "' is token %d of the tokenizer, and the model knows %d only",
                     LORE_STR_ARG(run->t->bpe.tokens[id]), id, run->t->ids_max);
}

/* Normalising may put characters into another order; starts ascend nevertheless. */
static lore_status emit(token_run *run, int32_t id, size_t start)
{
    if (id >= run->t->ids_max) {
        return beyond_network(run, id);
    }
    run->start = start > run->start ? start : run->start;
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
        run->last->starts[run->last->count++] = (uint32_t)run->start;
    }
    run->count++;
    return LORE_OK;
}

/* ---- one word ---- */

static lore_status cut_word(token_run *run, lore_str word)
{
    const lore_tokenizer *t = run->t;
    if (t->kind == LORE_TOKENIZER_BPE && word.len > LORE_BPE_WORD_BYTES_MAX) {
        return lore_fail(run->err, LORE_ERR_LIMIT,
                         "a run of %zu bytes without a break is over the tokenizer's limit of %d",
                         word.len, LORE_BPE_WORD_BYTES_MAX);
    }
    run->pieces.count = 0;
    if (t->kind == LORE_TOKENIZER_UNIGRAM) {
        return lore_unigram_encode(&t->unigram, word, &run->unigram, &run->pieces, run->err);
    }
    bool is_cut = t->kind == LORE_TOKENIZER_BPE
                      ? lore_bpe_word(&t->bpe, word, &run->bpe, &run->pieces)
                      : lore_wordpiece_word(&t->wordpiece, word, &run->pieces);
    return is_cut ? LORE_OK : no_memory(run->err);
}

static lore_status encode_word(token_run *run, const token_span *span, size_t start, size_t end)
{
    lore_str word = lore_str_slice(span->text, start, end);
    lore_word_entry *entry = lore_word_cache_find(&run->words, word);
    lore_status status = LORE_OK;
    if (entry != NULL && entry->size > 0) {
        for (int32_t i = 0; i < entry->count && status == LORE_OK; i++) {
            status = emit(run, entry->ids[i], origin_of(span, start + entry->starts[i]));
        }
        return status;
    }
    status = cut_word(run, word);
    for (int32_t i = 0; i < run->pieces.count && status == LORE_OK; i++) {
        const lore_piece *piece = &run->pieces.items[i];
        status = emit(run, piece->id, origin_of(span, start + piece->start));
    }
    if (entry != NULL && status == LORE_OK) {
        lore_word_cache_put(entry, word, &run->pieces);
    }
    return status;
}

/* Where a word of sentencepiece's BPE may be cut without changing its tokens: before a mark of
 * space that follows anything else. */
static size_t next_mark(lore_str text, size_t from)
{
    const lore_str mark = LORE_STR(SPACE_MARK);
    size_t at = from;
    while (at + mark.len <= text.len && memcmp(text.ptr + at, mark.ptr, mark.len) == 0) {
        at += mark.len;
    }
    at = lore_str_find(text, mark, at);
    return at == SIZE_MAX ? text.len : at;
}

/* What the last step has left whole. */
static lore_status encode_piece(token_run *run, const token_span *piece)
{
    lore_status status = LORE_OK;
    if (!run->t->cuts_before_space) {
        return encode_word(run, piece, 0, piece->text.len);
    }
    for (size_t at = 0; at < piece->text.len && status == LORE_OK && !is_full(run);) {
        size_t end = next_mark(piece->text, at);
        status = encode_word(run, piece, at, end);
        at = end;
    }
    return status;
}

/* ---- the pre-tokenizer's steps ---- */

static lore_status encode_step(token_run *run, const token_span *span, int32_t step);

/* The span with `literal` for its spaces (where asked) and, at `has_prefix`, in front. */
static lore_status rewrite(token_run *run, const token_span *span, const lore_pretoken *step,
                           bool has_prefix, token_span *out)
{
    lore_str literal = step->literal;
    bool writes_spaces = step->kind == LORE_PRETOKEN_METASPACE;
    size_t size = span->text.len + (has_prefix ? literal.len : 0);
    for (size_t i = 0; i < span->text.len && writes_spaces; i++) {
        size += span->text.ptr[i] == ' ' ? literal.len - 1 : 0;
    }
    char *text = lore_arena_push(run->arena, size);
    uint32_t *origin = lore_arena_push(run->arena, size * sizeof *origin);
    size_t count = 0;
    if (text == NULL || origin == NULL) {
        return no_memory(run->err);
    }
    for (size_t k = 0; k < literal.len && has_prefix; k++) {
        text[count] = literal.ptr[k];
        origin[count++] = (uint32_t)origin_of(span, 0);
    }
    for (size_t i = 0; i < span->text.len; i++) {
        uint32_t from = (uint32_t)origin_of(span, i);
        if (!writes_spaces || span->text.ptr[i] != ' ') {
            text[count] = span->text.ptr[i];
            origin[count++] = from;
            continue;
        }
        for (size_t k = 0; k < literal.len; k++) {
            text[count] = literal.ptr[k];
            origin[count++] = from;
        }
    }
    *out = (token_span){{text, count}, 0, origin};
    return LORE_OK;
}

static lore_status encode_rewritten(token_run *run, const token_span *span, int32_t at)
{
    const lore_pretoken *step = &run->t->steps[at];
    token_span out;
    bool starts_so = lore_str_starts(span->text, step->literal) ||
                     (step->kind == LORE_PRETOKEN_METASPACE && span->text.ptr[0] == ' ');
    bool has_prefix =
        !starts_so && (step->prefix == LORE_PREFIX_ALWAYS ||
                       (step->prefix == LORE_PREFIX_FIRST && origin_of(span, 0) == 0));
    lore_status status = rewrite(run, span, step, has_prefix, &out);
    return status == LORE_OK ? encode_step(run, &out, at + 1) : status;
}

/* Cut a span that is not empty by this step, the pieces by the next ones. */
static lore_status encode_step(token_run *run, const token_span *span, int32_t at)
{
    const lore_pretoken *step = &run->t->steps[at];
    lore_pretoken_walk *walk = &run->walks[at];
    lore_status status = LORE_OK;
    size_t start = 0, end = 0;
    if (at == run->t->step_count) {
        return encode_piece(run, span);
    }
    if (step->kind == LORE_PRETOKEN_PREFIX || step->kind == LORE_PRETOKEN_METASPACE) {
        return encode_rewritten(run, span, at);
    }
    bool is_last = at + 1 == run->t->step_count && !run->t->cuts_before_space;
    lore_pretoken_begin(walk, span->text);
    while (status == LORE_OK && !is_full(run) && lore_pretoken_next(walk, &start, &end)) {
        if (is_last) {
            status = encode_word(run, span, start, end);
        } else {
            token_span piece = sub_span(span, start, end);
            status = encode_step(run, &piece, at + 1);
        }
    }
    bool has_failed = status == LORE_OK && walk->failed != LORE_OK;
    return has_failed ? lore_regex_explain(step->regex, walk->failed, run->err) : status;
}

/* ---- added tokens ---- */

/* The longest added token that starts at `at`, or NULL. */
static const lore_added_token *added_at(const token_run *run, const lore_added_table *table,
                                        const token_span *span, size_t at)
{
    const lore_added_token *found = NULL;
    lore_str text = span->text;
    int64_t node = LORE_TRIE_ROOT;
    bool may_be_special = run->allow_special; /* no byte so far is foreign */
    for (size_t end = at; end < text.len; end++) {
        node = lore_trie_step(&table->trie, node, (uint8_t)text.ptr[end]);
        if (node == LORE_TRIE_NONE) {
            break;
        }
        may_be_special =
            may_be_special && (run->foreign == NULL || run->foreign[origin_of(span, end)] == 0);
        int32_t value = lore_trie_value(&table->trie, node);
        const lore_added_token *token = value < 0 ? NULL : &table->tokens[value];
        if (token != NULL && token->is_held_back && !may_be_special) {
            bool has_next =
                value + 1 < table->count && lore_str_equal(token[1].pattern, token->pattern);
            token = has_next ? token + 1 : NULL; /* the one that is not held back */
        }
        found = token != NULL ? token : found;
    }
    return found;
}

static bool is_word_at(lore_str text, size_t at)
{
    return at < text.len && lore_regex_is_word(lore_utf8_next(text, &at));
}

static bool is_word_before(lore_str text, size_t at)
{
    return at > 0 && lore_regex_is_word(lore_utf8_prev(text, &at));
}

/* Beside which white space the token begins and ends, within [from, text.len). */
static void stretch(const lore_added_token *token, lore_str text, size_t from, size_t *start,
                    size_t *end)
{
    for (size_t at = *start; token->takes_left && at > from; *start = at) {
        if (!lore_utf8_is_space(lore_utf8_prev(text, &at))) {
            break;
        }
    }
    for (size_t at = *end; token->takes_right && at < text.len; *end = at) {
        if (!lore_utf8_is_space(lore_utf8_next(text, &at))) {
            break;
        }
    }
}

static lore_status encode_raw(token_run *run, const token_span *span);
static lore_status encode_normal(token_run *run, const token_span *span);

/* Cut the span at added tokens, before or behind the normaliser; what lies between goes one stage
 * on. */
static lore_status encode_split(token_run *run, const token_span *span, bool is_normalized)
{
    const lore_added_table *table = &run->t->added[is_normalized];
    lore_status (*next)(token_run *, const token_span *) =
        is_normalized ? encode_normal : encode_raw;
    const uint8_t wanted = run->allow_special ? 1 : 2;
    size_t from = 0;
    for (size_t at = 0; at < span->text.len && table->count > 0 && !is_full(run);) {
        bool may_begin = (table->begins[(uint8_t)span->text.ptr[at]] & wanted) != 0;
        const lore_added_token *token = may_begin ? added_at(run, table, span, at) : NULL;
        if (token == NULL) {
            at++;
            continue;
        }
        size_t start = at, end = at + token->pattern.len;
        at = end;
        if (token->is_single_word &&
            (is_word_before(span->text, start) || is_word_at(span->text, end))) {
            continue;
        }
        stretch(token, span->text, from, &start, &end);
        token_span before = sub_span(span, from, start);
        lore_status status = next(run, &before);
        if (status == LORE_OK) {
            status = emit(run, token->id, origin_of(span, start));
        }
        if (status != LORE_OK) {
            return status;
        }
        at = from = end;
    }
    token_span rest = sub_span(span, from, span->text.len);
    return is_full(run) ? LORE_OK : next(run, &rest);
}

static lore_status encode_normal(token_run *run, const token_span *span)
{
    return span->text.len > 0 ? encode_step(run, span, 0) : LORE_OK;
}

static lore_status encode_raw(token_run *run, const token_span *span)
{
    lore_normal normal;
    if (span->text.len == 0) {
        return LORE_OK;
    }
    lore_status status =
        lore_normalize(run->t->normalizer, span->text, span->base, run->arena, &normal, run->err);
    if (status != LORE_OK) {
        return status;
    }
    token_span out = {normal.text, span->base, normal.origin};
    return encode_split(run, &out, true);
}

/* ---- a whole text ---- */

static bool prepare(token_run *run, lore_str text)
{
    const lore_tokenizer *t = run->t;
    run->bpe.arena = run->unigram.arena = run->pieces.arena = run->arena;
    run->walks = LORE_PUSH(run->arena, lore_pretoken_walk, t->step_count + 1);
    for (int32_t i = 0; i < t->step_count && run->walks != NULL; i++) {
        lore_pretoken_init(&run->walks[i], &t->steps[i], run->arena);
    }
    return run->walks != NULL && lore_word_cache_init(&run->words, run->arena, text.len);
}

static lore_status run_text(token_run *run, lore_str text, bool add_special)
{
    const lore_tokenizer *t = run->t;
    token_span span = {text, 0, NULL};
    lore_status status = LORE_OK;
    if (text.len > INT32_MAX) {
        return lore_fail(run->err, LORE_ERR_LIMIT,
                         "a text of %zu bytes is over the tokenizer's limit", text.len);
    }
    if (!prepare(run, text)) {
        return no_memory(run->err);
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
    token_run run = {.t = tokenizer,
                     .allow_special = options.allow_special,
                     .foreign = options.foreign,
                     .err = err};
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
    lore_status status = run_text(&run, text, false);
    lore_arena_reset(scratch);
    if (status == LORE_OK) {
        *count = run.count;
    }
    return status;
}

/* ---- facts ---- */

static bool are_below(const int32_t *ids, int32_t count, int32_t limit)
{
    bool is_below = true;
    for (int32_t i = 0; i < count; i++) {
        is_below = is_below && ids[i] < limit;
    }
    return is_below;
}

lore_status lore_tokenizer_limit(lore_tokenizer *t, int32_t vocab, const char *folder,
                                 lore_error *err)
{
    bool is_fine = are_below(t->prefix, t->prefix_count, vocab) &&
                   are_below(t->suffix, t->suffix_count, vocab) &&
                   are_below(t->middle, t->middle_count, vocab);
    for (int32_t id = vocab; id < t->bpe.vocab; id++) {
        is_fine = is_fine && (t->bpe.tokens[id].ptr == NULL || t->is_added[id]);
    }
    if (!is_fine) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "model folder '%s': the tokenizer has %d ids, config.json a vocabulary of "
                         "%d, and what lies beyond are not just added tokens",
                         folder, t->bpe.vocab, vocab);
    }
    t->ids_max = vocab < t->bpe.vocab ? vocab : t->bpe.vocab;
    return LORE_OK;
}

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

const int32_t *lore_tokenizer_middle(const lore_tokenizer *tokenizer, int32_t *count)
{
    *count = tokenizer->middle_count;
    return tokenizer->middle;
}

int32_t lore_tokenizer_id(const lore_tokenizer *tokenizer, lore_str token)
{
    return lore_bpe_find(&tokenizer->bpe, token);
}

bool lore_tokenizer_is_special(const lore_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->bpe.vocab && tokenizer->bpe.special[id];
}

lore_str lore_tokenizer_bytes(const lore_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= tokenizer->bpe.vocab) {
        return (lore_str){0};
    }
    return tokenizer->bytes[id];
}
