/* Reading tokenizer.json. The file describes a pipeline (normalizer, pre_tokenizer, model,
 * post_processor, decoder) in terms of the `tokenizers` library; we can run one family of them,
 * byte-level BPE. So each stage is either recognised exactly or refused by name: a tokenizer that
 * is nearly right is worse than none, since nobody notices until answers are bad. The model itself
 * is read in tokenizer_vocab.c. */
#include "models/tokenizer_load_int.h"

#include "models/model_folder_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

lore_status lore_loader_refuse_flag(lore_tokenizer_loader *l, const lore_json *node,
                                    const char *where, const char *key)
{
    bool value = false;
    lore_status status = lore_json_get_bool(node, where, key, &value, l->err);
    if (status != LORE_OK) {
        return status;
    }
    return value
               ? lore_fail(l->err, LORE_ERR_UNSUPPORTED, "%s.%s true is not supported", where, key)
               : LORE_OK;
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

/* ---- normalizer, pre-tokenizer, decoder ---- */

static lore_status load_normalizer(lore_tokenizer_loader *l, const lore_json *node)
{
    if (!lore_loader_is_given(node)) {
        return LORE_OK;
    }
    if (lore_loader_is_kind(node, "NFC")) {
        l->t->is_nfc = true;
        return LORE_OK;
    }
    const lore_json *list = lore_json_get(node, "normalizers");
    if (!lore_loader_is_kind(node, "Sequence") || !lore_json_is_array(list)) {
        return lore_loader_unsupported(l, "normalizer", lore_loader_kind(node));
    }
    for (const lore_json *n = lore_json_first(list); n != NULL; n = lore_json_next(n)) {
        if (!lore_loader_is_kind(n, "NFC")) {
            return lore_loader_unsupported(l, "normalizer", lore_loader_kind(n));
        }
        l->t->is_nfc = true;
    }
    return LORE_OK;
}

static lore_status load_split(lore_tokenizer_loader *l, const lore_json *node)
{
    lore_str regex = lore_json_str(lore_json_get(lore_json_get(node, "pattern"), "Regex"));
    lore_str behavior = lore_json_str(lore_json_get(node, "behavior"));
    lore_status status = lore_loader_refuse_flag(l, node, "pre_tokenizer.Split", "invert");
    if (status != LORE_OK) {
        return status;
    }
    if (!lore_str_equal(behavior, LORE_STR("Isolated"))) {
        return lore_loader_unsupported(l, "pre_tokenizer.Split.behavior", behavior);
    }
    return lore_pretoken_of(regex, &l->t->pretoken)
               ? LORE_OK
               : lore_loader_unsupported(l, "pre_tokenizer.Split.pattern", regex);
}

static lore_status load_byte_level(lore_tokenizer_loader *l, const lore_json *node,
                                   bool after_split)
{
    bool use_regex = true;
    lore_status status =
        lore_loader_refuse_flag(l, node, "pre_tokenizer.ByteLevel", "add_prefix_space");
    if (status == LORE_OK) {
        status =
            lore_json_get_bool(node, "pre_tokenizer.ByteLevel", "use_regex", &use_regex, l->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (use_regex && after_split) {
        return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                         "pre_tokenizer.ByteLevel.use_regex true behind a Split is not supported");
    }
    if (use_regex) {
        l->t->pretoken = LORE_PRETOKEN_GPT2;
    }
    return LORE_OK;
}

/* ByteLevel, or Sequence [Split, ByteLevel], or Sequence [ByteLevel]. */
static lore_status load_pre_tokenizer(lore_tokenizer_loader *l, const lore_json *node)
{
    const lore_json *list = lore_json_get(node, "pretokenizers");
    if (lore_loader_is_kind(node, "ByteLevel")) {
        return load_byte_level(l, node, false);
    }
    if (!lore_loader_is_kind(node, "Sequence") || !lore_json_is_array(list)) {
        return lore_loader_unsupported(l, "pre_tokenizer", lore_loader_kind(node));
    }
    const lore_json *first = lore_json_first(list);
    const lore_json *last = first;
    bool has_split = lore_loader_is_kind(first, "Split");
    if (has_split) {
        lore_status status = load_split(l, first);
        if (status != LORE_OK) {
            return status;
        }
        last = lore_json_next(first);
    }
    if (!lore_loader_is_kind(last, "ByteLevel")) {
        return lore_loader_unsupported(
            l, "pre_tokenizer", last != NULL ? lore_loader_kind(last) : LORE_STR("Sequence"));
    }
    if (lore_json_next(last) != NULL) {
        return lore_loader_unsupported(l, "pre_tokenizer", lore_loader_kind(lore_json_next(last)));
    }
    return load_byte_level(l, last, has_split);
}

static lore_status check_decoder(lore_tokenizer_loader *l, const lore_json *node)
{
    return !lore_loader_is_given(node) || lore_loader_is_kind(node, "ByteLevel")
               ? LORE_OK
               : lore_loader_unsupported(l, "decoder", lore_loader_kind(node));
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

/* "single": special tokens, the text once, special tokens. */
static lore_status load_template(lore_tokenizer_loader *l, const lore_json *node)
{
    lore_tokenizer *t = l->t;
    const lore_json *table = lore_json_get(node, "special_tokens");
    bool is_behind = false;
    if (t->prefix != NULL) {
        return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                         "post_processor: two templates are not supported");
    }
    t->prefix = LORE_PUSH(&t->arena, int32_t, TEMPLATE_IDS_MAX);
    t->suffix = LORE_PUSH(&t->arena, int32_t, TEMPLATE_IDS_MAX);
    if (t->prefix == NULL || t->suffix == NULL) {
        return lore_loader_no_memory(l);
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
               ? LORE_OK
               : lore_fail(l->err, LORE_ERR_CORRUPT, "post_processor.single lacks Sequence A");
}

/* ByteLevel only moves offsets, which we do not share with the library: nothing to do. */
static lore_status load_post_processor(lore_tokenizer_loader *l, const lore_json *node)
{
    const lore_json *list = lore_json_get(node, "processors");
    if (!lore_loader_is_given(node) || lore_loader_is_kind(node, "ByteLevel")) {
        return LORE_OK;
    }
    if (lore_loader_is_kind(node, "TemplateProcessing")) {
        return load_template(l, node);
    }
    if (!lore_loader_is_kind(node, "Sequence") || !lore_json_is_array(list)) {
        return lore_loader_unsupported(l, "post_processor", lore_loader_kind(node));
    }
    for (const lore_json *n = lore_json_first(list); n != NULL; n = lore_json_next(n)) {
        lore_status status =
            lore_loader_is_kind(n, "TemplateProcessing") ? load_template(l, n)
            : lore_loader_is_kind(n, "ByteLevel")
                ? LORE_OK
                : lore_loader_unsupported(l, "post_processor", lore_loader_kind(n));
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

/* ---- the whole ---- */

static lore_status load(lore_tokenizer_loader *l, const lore_json *root)
{
    const lore_json *added = lore_json_get(root, "added_tokens");
    if (!lore_json_is_object(root)) {
        return lore_fail(l->err, LORE_ERR_CORRUPT, "must hold an object");
    }
    lore_status status = lore_loader_model(l, lore_json_get(root, "model"), added);
    if (status == LORE_OK) {
        status = lore_loader_added(l, added);
    }
    if (status == LORE_OK) {
        status = load_normalizer(l, lore_json_get(root, "normalizer"));
    }
    if (status == LORE_OK) {
        status = load_pre_tokenizer(l, lore_json_get(root, "pre_tokenizer"));
    }
    if (status == LORE_OK) {
        status = load_post_processor(l, lore_json_get(root, "post_processor"));
    }
    return status == LORE_OK ? check_decoder(l, lore_json_get(root, "decoder")) : status;
}

lore_status lore_tokenizer_parse(lore_str json, const char *name, lore_tokenizer **tokenizer,
                                 lore_error *err)
{
    lore_json *root = NULL;
    lore_tokenizer_loader l = {.err = err};
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

lore_status lore_tokenizer_open(const char *folder, const lore_limits *limits,
                                lore_tokenizer **tokenizer, lore_error *err)
{
    char name[1024];
    lore_buf text;
    lore_buf_init(&text, 0);
    snprintf(name, sizeof name, "%s/tokenizer.json", folder); /* for messages: may be cut */
    lore_status status = lore_model_read(folder, "tokenizer.json", limits, &text, err);
    if (status == LORE_OK) {
        status = lore_tokenizer_parse(lore_buf_str(&text), name, tokenizer, err);
    }
    lore_buf_destroy(&text);
    return status;
}

void lore_tokenizer_close(lore_tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    lore_arena_destroy(&t->arena);
    lore_free(t);
}
