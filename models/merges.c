/* Looking both halves of every cut up in a table, then sorting. A cut costs the hashing of the
 * token, so a token costs the square of its length; the sum of squares is what is limited. */
#include "models/merges_int.h"

#include "base/utf8.h"
#include "models/bpe_int.h"

#include <stdlib.h>

enum { TOKEN_BYTES_MAX = 512, PAIRS_MAX = 1000000, WORK_MAX = 1 << 28 };

typedef struct finder {
    const lore_merge_source *source;
    lore_bpe vocab;
    lore_buf pairs;
    lore_error *err;
} finder;

static lore_status index_tokens(finder *f, lore_arena *scratch)
{
    size_t work = 0;
    if (!lore_bpe_init(&f->vocab, scratch, f->source->count, 0)) {
        return lore_fail(f->err, LORE_ERR_NOMEM, "out of memory for merges");
    }
    for (int32_t id = 0; id < f->source->count; id++) {
        lore_str token = f->source->tokens[id];
        if (token.ptr == NULL) {
            continue;
        }
        work += token.len * token.len;
        if (token.len > TOKEN_BYTES_MAX || work > WORK_MAX) {
            return lore_fail(f->err, LORE_ERR_LIMIT,
                             "token %d has more than %d bytes, or there are too many long ones", id,
                             TOKEN_BYTES_MAX);
        }
        bool is_new = lore_bpe_add_token(&f->vocab, id, token);
        LORE_ASSERT(is_new); /* each id comes once */
    }
    return LORE_OK;
}

static lore_status cut_token(finder *f, int32_t id)
{
    lore_str token = f->source->tokens[id];
    bool by_chars = f->source->scores != NULL;
    uint16_t size = (uint16_t)(by_chars ? lore_utf8_count(token) : token.len), left = 0;
    for (size_t at = 0; at < token.len;) {
        if (by_chars) {
            lore_utf8_next(token, &at);
        } else {
            at++;
        }
        left++;
        if (at == token.len) {
            break;
        }
        lore_merge_pair pair = {.left = lore_bpe_find(&f->vocab, lore_str_slice(token, 0, at)),
                                .merged = id,
                                .left_size = left,
                                .right_size = (uint16_t)(size - left)};
        pair.right =
            pair.left < 0 ? -1 : lore_bpe_find(&f->vocab, lore_str_slice(token, at, token.len));
        if (pair.right >= 0) {
            lore_buf_append(&f->pairs, (lore_str){(const char *)&pair, sizeof pair});
        }
    }
    if (f->pairs.len > (size_t)PAIRS_MAX * sizeof(lore_merge_pair)) {
        return lore_fail(f->err, LORE_ERR_LIMIT, "more than %d merges", PAIRS_MAX);
    }
    return lore_buf_failed(&f->pairs)
               ? lore_fail(f->err, LORE_ERR_NOMEM, "out of memory for merges")
               : LORE_OK;
}

/* By what they make; of the same token, first the pair of smallest ids. */
static int by_id(const void *a, const void *b)
{
    const lore_merge_pair *x = a, *y = b;
    if (x->merged != y->merged) {
        return x->merged < y->merged ? -1 : 1;
    }
    if (x->left != y->left) {
        return x->left < y->left ? -1 : 1;
    }
    return x->right < y->right ? -1 : x->right > y->right;
}

typedef struct scored_pair {
    lore_merge_pair pair;
    double score;
} scored_pair;

/* By score, then the longest left side, then the longest right side. */
static int by_score(const void *a, const void *b)
{
    const scored_pair *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    if (x->pair.left_size != y->pair.left_size) {
        return x->pair.left_size > y->pair.left_size ? -1 : 1;
    }
    if (x->pair.right_size != y->pair.right_size) {
        return x->pair.right_size > y->pair.right_size ? -1 : 1;
    }
    return by_id(&x->pair, &y->pair);
}

static lore_status sort_by_score(const finder *f, lore_merge_pair *pairs, size_t count,
                                 lore_arena *scratch)
{
    scored_pair *scored = LORE_PUSH(scratch, scored_pair, count + 1);
    if (scored == NULL) {
        return lore_fail(f->err, LORE_ERR_NOMEM, "out of memory for merges");
    }
    for (size_t i = 0; i < count; i++) {
        scored[i] = (scored_pair){pairs[i], f->source->scores[pairs[i].merged]};
    }
    qsort(scored, count, sizeof *scored, by_score);
    for (size_t i = 0; i < count; i++) {
        pairs[i] = scored[i].pair;
    }
    return LORE_OK;
}

static lore_status find(finder *f, lore_arena *scratch, lore_arena *arena, lore_merge_pair **pairs,
                        size_t *count)
{
    lore_status status = index_tokens(f, scratch);
    for (int32_t id = 0; id < f->source->count && status == LORE_OK; id++) {
        if (f->source->tokens[id].ptr != NULL) {
            status = cut_token(f, id);
        }
    }
    if (status != LORE_OK) {
        return status;
    }
    size_t found = f->pairs.len / sizeof(lore_merge_pair);
    lore_merge_pair *sorted = LORE_PUSH(arena, lore_merge_pair, found + 1);
    if (sorted == NULL) {
        return lore_fail(f->err, LORE_ERR_NOMEM, "out of memory for merges");
    }
    if (found > 0) {
        memcpy(sorted, f->pairs.ptr, f->pairs.len);
    }
    if (f->source->scores != NULL) {
        status = sort_by_score(f, sorted, found, scratch);
    } else {
        qsort(sorted, found, sizeof *sorted, by_id);
    }
    if (status == LORE_OK) {
        *pairs = sorted;
        *count = found;
    }
    return status;
}

lore_status lore_merges_find(const lore_merge_source *source, lore_arena *arena,
                             lore_merge_pair **pairs, size_t *count, lore_error *err)
{
    finder f = {.source = source, .err = err};
    lore_arena scratch;
    lore_arena_init(&scratch, 0);
    lore_buf_init(&f.pairs, 0);
    lore_status status = find(&f, &scratch, arena, pairs, count);
    lore_buf_destroy(&f.pairs);
    lore_arena_destroy(&scratch);
    return status;
}
