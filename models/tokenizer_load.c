/* Reading tokenizer.json. The file describes a pipeline (normalizer, pre_tokenizer, model,
 * post_processor, decoder) in terms of the `tokenizers` library. Each stage is either recognised
 * exactly or refused by name: a tokenizer that is nearly right is worse than none, since nobody
 * notices until answers are bad. Here is the post-processor and the whole; the other stages are
 * beside. */
#include "models/tokenizer_load_int.h"

#include "models/model_folder_int.h"

#include <math.h>

enum { TEMPLATE_IDS_MAX = 64 }; /* on each side of the text */

/* ---- reading pieces of the file ---- */

lore_status lore_loader_no_memory(lore_tokenizer_loader *l)
{
    return lore_fail(l->err, LORE_ERR_NOMEM, "out of memory for the tokenizer");
}

lore_str lore_loader_kind(const lore_json *node)
{
    return lore_json_str(lore_json_get(node, "type"));
}

bool lore_loader_is_kind(const lore_json *node, const char *kind)
{
    return lore_str_equal(lore_loader_kind(node), lore_str_from(kind));
}

bool lore_loader_is_given(const lore_json *node)
{
    return lore_json_is_object(node) || lore_json_is_array(node) || lore_json_is_string(node) ||
           lore_json_is_number(node);
}

lore_status lore_loader_unsupported(lore_tokenizer_loader *l, const char *stage, lore_str kind)
{
    return lore_fail(l->err, LORE_ERR_UNSUPPORTED, "%s '" LORE_STR_FMT "' is not supported", stage,
                     LORE_STR_ARG(lore_str_slice(kind, 0, kind.len < 200 ? kind.len : 200)));
}

bool lore_loader_read_id(const lore_json *node, int32_t *id)
{
    double number = lore_json_number(node);
    if (!lore_json_is_number(node) || !(number >= 0 && number <= LORE_TOKEN_ID_MAX) ||
        number != floor(number)) {
        return false;
    }
    *id = (int32_t)number;
    return true;
}

/* ---- post-processor ---- */

/* Append the ids of one special token of a template, as the special_tokens table gives them. */
static lore_status add_template_ids(lore_tokenizer_loader *l, const lore_json *table, lore_str name,
                                    int32_t *ids, int32_t *count)
{
    const lore_json *entry = lore_json_first(table);
    while (entry != NULL && !lore_str_equal(lore_json_key(entry), name)) {
        entry = lore_json_next(entry);
    }
    const lore_json *list = lore_json_get(entry, "ids");
    if (!lore_json_is_array(list) || lore_json_count(list) == 0) {
        return lore_fail(l->err, LORE_ERR_CORRUPT,
                         "post_processor: special_tokens lacks the ids of '" LORE_STR_FMT "'",
                         LORE_STR_ARG(name));
    }
    for (const lore_json *n = lore_json_first(list); n != NULL; n = lore_json_next(n)) {
        int32_t id = 0;
        if (!lore_loader_read_id(n, &id) || id >= l->t->bpe.vocab || *count == TEMPLATE_IDS_MAX) {
            return lore_fail(l->err, LORE_ERR_CORRUPT,
                             "post_processor: '" LORE_STR_FMT
                             "' has an id outside the vocabulary, or there "
                             "are more than %d",
                             LORE_STR_ARG(name), TEMPLATE_IDS_MAX);
        }
        ids[(*count)++] = id;
    }
    return LORE_OK;
}

static lore_status make_room(lore_tokenizer_loader *l)
{
    lore_tokenizer *t = l->t;
    if (t->prefix != NULL) {
        return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                         "post_processor: two templates are not supported");
    }
    t->prefix = LORE_PUSH(&t->arena, int32_t, TEMPLATE_IDS_MAX);
    t->suffix = LORE_PUSH(&t->arena, int32_t, TEMPLATE_IDS_MAX);
    return t->prefix == NULL || t->suffix == NULL ? lore_loader_no_memory(l) : LORE_OK;
}

static lore_status set_middle(lore_tokenizer_loader *l, const int32_t *ids, int32_t count)
{
    lore_tokenizer *t = l->t;
    t->middle = LORE_PUSH(&t->arena, int32_t, count + 1); /* there is a pair though it be empty */
    if (t->middle == NULL) {
        return lore_loader_no_memory(l);
    }
    memcpy(t->middle, ids, (size_t)count * sizeof *ids);
    t->middle_count = count;
    return LORE_OK;
}

/* BertProcessing and RobertaProcessing: "cls" and "sep" are ["[CLS]", 101] and the like. */
static lore_status load_pair(lore_tokenizer_loader *l, const lore_json *node)
{
    lore_tokenizer *t = l->t;
    lore_status status = make_room(l);
    const char *const names[2] = {"cls", "sep"};
    int32_t *const sides[2] = {t->prefix, t->suffix};
    for (int i = 0; i < 2 && status == LORE_OK; i++) {
        const lore_json *token = lore_json_first(lore_json_get(node, names[i]));
        const lore_json *id = token != NULL ? lore_json_next(token) : NULL;
        if (!lore_loader_read_id(id, sides[i]) || *sides[i] >= t->bpe.vocab) {
            return lore_fail(l->err, LORE_ERR_CORRUPT,
                             "post_processor.%s must be [token, id] of the vocabulary", names[i]);
        }
    }
    t->prefix_count = t->suffix_count = status == LORE_OK;
    if (status == LORE_OK) {
        const int32_t middle[2] = {t->suffix[0], t->suffix[0]};
        status = set_middle(l, middle, lore_loader_is_kind(node, "RobertaProcessing") ? 2 : 1);
    }
    return status;
}

static bool are_equal(const int32_t *a, int32_t a_count, const int32_t *b, int32_t b_count)
{
    return a_count == b_count && memcmp(a, b, (size_t)a_count * sizeof *a) == 0;
}

/* "pair": what stands round a single text, round A, more special tokens and B. A file of another
 * shape has no pairs, and only who needs them asks. */
static lore_status load_pair_template(lore_tokenizer_loader *l, const lore_json *node)
{
    static const char *const SEQUENCES[2] = {"A", "B"};
    const lore_json *table = lore_json_get(node, "special_tokens");
    int32_t ids[3][TEMPLATE_IDS_MAX], counts[3] = {0};
    int place = 0;
    const lore_json *pair = lore_json_get(node, "pair");
    for (const lore_json *n = lore_json_first(pair); n != NULL; n = lore_json_next(n)) {
        const lore_json *special = lore_json_get(n, "SpecialToken");
        lore_str sequence = lore_json_str(lore_json_get(lore_json_get(n, "Sequence"), "id"));
        if (special != NULL) {
            lore_status status = add_template_ids(
                l, table, lore_json_str(lore_json_get(special, "id")), ids[place], &counts[place]);
            if (status != LORE_OK) {
                return status;
            }
        } else if (place == 2 || !lore_str_equal(sequence, lore_str_from(SEQUENCES[place]))) {
            return LORE_OK;
        } else {
            place++;
        }
    }
    bool is_alike = place == 2 && are_equal(ids[0], counts[0], l->t->prefix, l->t->prefix_count) &&
                    are_equal(ids[2], counts[2], l->t->suffix, l->t->suffix_count);
    return is_alike ? set_middle(l, ids[1], counts[1]) : LORE_OK;
}

/* "single": special tokens, the text once, special tokens. */
static lore_status load_template(lore_tokenizer_loader *l, const lore_json *node)
{
    lore_tokenizer *t = l->t;
    const lore_json *table = lore_json_get(node, "special_tokens");
    bool is_behind = false;
    lore_status room = make_room(l);
    if (room != LORE_OK) {
        return room;
    }
    const lore_json *single = lore_json_get(node, "single");
    for (const lore_json *n = lore_json_first(single); n != NULL; n = lore_json_next(n)) {
        const lore_json *special = lore_json_get(n, "SpecialToken");
        lore_str sequence = lore_json_str(lore_json_get(lore_json_get(n, "Sequence"), "id"));
        if (special == NULL && (is_behind || !lore_str_equal(sequence, LORE_STR("A")))) {
            return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                             "post_processor.single must be special tokens round one Sequence A");
        }
        if (special == NULL) {
            is_behind = true;
            continue;
        }
        lore_status status = add_template_ids(l, table, lore_json_str(lore_json_get(special, "id")),
                                              is_behind ? t->suffix : t->prefix,
                                              is_behind ? &t->suffix_count : &t->prefix_count);
        if (status != LORE_OK) {
            return status;
        }
    }
    return is_behind
               ? load_pair_template(l, node)
               : lore_fail(l->err, LORE_ERR_CORRUPT, "post_processor.single lacks Sequence A");
}

static lore_status load_post_processor(lore_tokenizer_loader *l, const lore_json *node)
{
    lore_status status = LORE_OK;
    if (!lore_loader_is_given(node) || lore_loader_is_kind(node, "ByteLevel")) {
        return LORE_OK; /* ByteLevel only moves offsets, which we do not share with the library */
    }
    if (lore_loader_is_kind(node, "TemplateProcessing")) {
        return load_template(l, node);
    }
    if (lore_loader_is_kind(node, "BertProcessing") ||
        lore_loader_is_kind(node, "RobertaProcessing")) {
        return load_pair(l, node);
    }
    if (!lore_loader_is_kind(node, "Sequence")) {
        return lore_loader_unsupported(l, "post_processor", lore_loader_kind(node));
    }
    const lore_json *list = lore_json_get(node, "processors");
    for (const lore_json *n = lore_json_first(list); n != NULL && status == LORE_OK;
         n = lore_json_next(n)) {
        status = load_post_processor(l, n); /* as deep as the file's nesting */
    }
    return status;
}

/* ---- the whole ---- */

static lore_status load(lore_tokenizer_loader *l, const lore_json *root)
{
    const lore_json *added = lore_json_get(root, "added_tokens");
    if (!lore_json_is_object(root)) {
        return lore_fail(l->err, LORE_ERR_CORRUPT, "must hold an object");
    }
    lore_status status = lore_loader_pre_tokenizer(l, lore_json_get(root, "pre_tokenizer"));
    if (status == LORE_OK) {
        status = lore_loader_model(l, lore_json_get(root, "model"), added);
    }
    if (status == LORE_OK) {
        status = l->spec != NULL
                     ? lore_normalizer_from_spec(l->spec, &l->t->arena, &l->t->normalizer, l->err)
                     : lore_normalizer_parse(lore_json_get(root, "normalizer"), &l->t->arena,
                                             &l->t->normalizer, l->err);
    }
    if (status == LORE_OK) {
        status = lore_loader_added(l, added);
    }
    if (status == LORE_OK) {
        status = load_post_processor(l, lore_json_get(root, "post_processor"));
    }
    return status == LORE_OK ? lore_loader_decoder(l, lore_json_get(root, "decoder")) : status;
}

lore_status lore_loader_parse(lore_str json, const char *name, const lore_normalizer_spec *spec,
                              lore_tokenizer **tokenizer, lore_error *err)
{
    lore_json *root = NULL;
    lore_tokenizer_loader l = {.spec = spec, .err = err};
    lore_status status = lore_json_parse(json, LORE_MODEL_JSON_DEPTH_MAX, &root, err);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    l.t = lore_alloc_zero(1, sizeof *l.t);
    if (l.t == NULL) {
        lore_json_free(root);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the tokenizer '%s'", name);
    }
    lore_arena_init(&l.t->arena, 0);
    status = load(&l, root);
    lore_json_free(root);
    if (status != LORE_OK) {
        lore_tokenizer_close(l.t);
        return lore_model_blame(err, status, name);
    }
    *tokenizer = l.t;
    return LORE_OK;
}

lore_status lore_tokenizer_parse(lore_str json, const char *name, lore_tokenizer **tokenizer,
                                 lore_error *err)
{
    return lore_loader_parse(json, name, NULL, tokenizer, err);
}

void lore_tokenizer_close(lore_tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    lore_arena_destroy(&t->arena);
    lore_free(t);
}
