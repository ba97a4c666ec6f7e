/* The "added_tokens" of a tokenizer.json: tokens that are looked for in the text, in tries, so that
 * a place in the text costs the longest of them at most, however many there are. */
#include "models/tokenizer_load_int.h"

#include <stdlib.h>
#include <string.h>

enum { ADDED_MAX = 65536, CONTENT_BYTES_MAX = 1024 };

static lore_status load_flags(lore_tokenizer_loader *l, const lore_json *node,
                              lore_added_token *token)
{
    static const char where[] = "added_tokens[]";
    lore_status status = lore_json_get_bool(node, where, "special", &token->is_special, l->err);
    token->is_normalized = !token->is_special; /* the library's default */
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, where, "normalized", &token->is_normalized, l->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, where, "single_word", &token->is_single_word, l->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, where, "lstrip", &token->takes_left, l->err);
    }
    return status == LORE_OK
               ? lore_json_get_bool(node, where, "rstrip", &token->takes_right, l->err)
               : status;
}

/* An added token's id is its own, or that of the vocabulary entry of the same text. */
static lore_status claim_id(lore_tokenizer_loader *l, const lore_added_token *token)
{
    lore_bpe *bpe = &l->t->bpe;
    lore_str there = bpe->tokens[token->id];
    bool is_fine = there.ptr == NULL ? lore_bpe_add_token(bpe, token->id, token->content)
                                     : lore_str_equal(there, token->content);
    if (!is_fine) { /* the content may be written in the byte alphabet by chance */
        lore_str bytes = lore_loader_bytes(l, token->content);
        if (bytes.ptr == NULL) {
            return lore_loader_no_memory(l);
        }
        is_fine = lore_str_equal(there, bytes);
    }
    if (!is_fine) {
        return lore_fail(l->err, LORE_ERR_CORRUPT,
                         "added token '" LORE_STR_FMT "': id %d belongs to another token",
                         LORE_STR_ARG(token->content), token->id);
    }
    return LORE_OK;
}

/* A token that is looked for in normalised text is normalised itself. */
static lore_status load_pattern(lore_tokenizer_loader *l, lore_added_token *token)
{
    lore_normal normal;
    token->pattern = token->content;
    if (!token->is_normalized) {
        return LORE_OK;
    }
    lore_status status =
        lore_normalize(l->t->normalizer, token->content, 0, &l->t->arena, &normal, l->err);
    if (status == LORE_OK) {
        token->pattern = normal.text;
    }
    return status;
}

static lore_status load_token(lore_tokenizer_loader *l, const lore_json *node,
                              lore_added_token *token)
{
    lore_str content = lore_json_str(lore_json_get(node, "content"));
    if (content.len == 0 || content.len > CONTENT_BYTES_MAX) {
        return lore_fail(l->err, LORE_ERR_CORRUPT, "added_tokens[].content must have 1 to %d bytes",
                         CONTENT_BYTES_MAX);
    }
    lore_status status = load_flags(l, node, token);
    if (status != LORE_OK) {
        return status;
    }
    bool is_id = lore_loader_read_id(lore_json_get(node, "id"), &token->id);
    LORE_ASSERT(is_id); /* lore_loader_model has seen it */
    l->t->is_added[token->id] = true;
    token->content = lore_str_copy(&l->t->arena, content);
    if (token->content.ptr == NULL) {
        return lore_loader_no_memory(l);
    }
    bool is_markup = content.ptr[0] == '<' && content.ptr[content.len - 1] == '>';
    token->is_held_back = token->is_special || is_markup;
    status = claim_id(l, token);
    return status == LORE_OK ? load_pattern(l, token) : status;
}

static int by_pattern(const void *a, const void *b)
{
    const lore_added_token *x = a, *y = b;
    int order = lore_str_compare(x->pattern, y->pattern);
    return order != 0 ? order : (x->id > y->id) - (x->id < y->id);
}

/* Of tokens with the same pattern only those that can be found stay. */
static void drop_hidden(lore_added_table *table)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < table->count; i++) {
        const lore_added_token *token = &table->tokens[i];
        const lore_added_token *last = kept > 0 ? &table->tokens[kept - 1] : NULL;
        bool is_same = last != NULL && lore_str_equal(last->pattern, token->pattern);
        if (!is_same || (last->is_held_back && !token->is_held_back)) {
            table->tokens[kept++] = *token;
        }
    }
    table->count = kept;
}

static lore_status index_table(lore_tokenizer_loader *l, lore_added_table *table)
{
    qsort(table->tokens, (size_t)table->count, sizeof *table->tokens, by_pattern);
    drop_hidden(table);
    lore_trie_key *keys = lore_alloc_zero((size_t)table->count + 1, sizeof *keys);
    size_t count = 0;
    if (keys == NULL) {
        return lore_loader_no_memory(l);
    }
    for (int32_t i = 0; i < table->count; i++) {
        const lore_added_token *token = &table->tokens[i];
        table->begins[(uint8_t)token->pattern.ptr[0]] |= token->is_held_back ? 1 : 3;
        if (count == 0 || !lore_str_equal(keys[count - 1].text, token->pattern)) {
            keys[count++] = (lore_trie_key){token->pattern, i};
        }
    }
    lore_status status = lore_trie_build(&table->trie, &l->t->arena, keys, count, l->err);
    lore_free(keys);
    return status;
}

lore_status lore_loader_added(lore_tokenizer_loader *l, const lore_json *added)
{
    lore_added_table *tables = l->t->added;
    int32_t count = lore_json_count(added);
    if (count > ADDED_MAX) {
        return lore_fail(l->err, LORE_ERR_LIMIT, "more than %d added tokens", ADDED_MAX);
    }
    for (int i = 0; i < 2; i++) {
        tables[i].tokens = LORE_PUSH(&l->t->arena, lore_added_token, count + 1);
        if (tables[i].tokens == NULL) {
            return lore_loader_no_memory(l);
        }
    }
    for (const lore_json *n = lore_json_first(added); n != NULL; n = lore_json_next(n)) {
        lore_added_token token = {0};
        lore_status status = load_token(l, n, &token);
        if (status != LORE_OK) {
            return status;
        }
        lore_added_table *table = &tables[token.is_normalized];
        if (token.pattern.len > 0) { /* one that normalises to nothing is never found */
            table->tokens[table->count++] = token;
        }
    }
    lore_status status = index_table(l, &tables[0]);
    return status == LORE_OK ? index_table(l, &tables[1]) : status;
}
