/* The "pre_tokenizer" of a tokenizer.json as steps. Kinds that we do not know are refused by name.
 *
 * ByteLevel writes each byte as a character of its alphabet; our vocabularies are written back to
 * bytes instead, and the text is left alone. Steps behind it see the alphabet nevertheless, in
 * which, say, the byte b2 is a digit. */
#include "models/tokenizer_load_int.h"

#include "base/utf8.h"

enum { STEPS_MAX = 16 }; /* the tokenizer recurses so deep */

static lore_status add_step(lore_tokenizer_loader *l, lore_pretoken step)
{
    if (l->t->step_count == STEPS_MAX) {
        return lore_fail(l->err, LORE_ERR_LIMIT, "pre_tokenizer has more than %d steps", STEPS_MAX);
    }
    step.is_mapped = l->is_byte_level;
    l->t->steps[l->t->step_count++] = step;
    return LORE_OK;
}

static lore_status read_behavior(lore_tokenizer_loader *l, const lore_json *node, const char *where,
                                 lore_pretoken_behavior *behavior)
{
    static const struct {
        const char *name;
        lore_pretoken_behavior behavior;
    } KNOWN[] = {{"Removed", LORE_PRETOKEN_REMOVED},
                 {"Isolated", LORE_PRETOKEN_ISOLATED},
                 {"MergedWithPrevious", LORE_PRETOKEN_MERGED_PREVIOUS},
                 {"MergedWithNext", LORE_PRETOKEN_MERGED_NEXT},
                 {"Contiguous", LORE_PRETOKEN_CONTIGUOUS}};
    lore_str name = LORE_STR("Isolated");
    lore_status status = lore_json_get_str(node, where, "behavior", &name, l->err);
    if (status != LORE_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
        if (lore_str_equal(name, lore_str_from(KNOWN[i].name))) {
            *behavior = KNOWN[i].behavior;
            return LORE_OK;
        }
    }
    return lore_loader_unsupported(l, "pre_tokenizer behavior", name);
}

static lore_status add_regex(lore_tokenizer_loader *l, lore_str pattern, lore_pretoken step)
{
    bool is_by_hand = step.behavior == LORE_PRETOKEN_ISOLATED && !step.is_inverted &&
                      !l->is_byte_level && lore_pretoken_of(pattern, &step.kind);
    if (!is_by_hand) {
        step.kind = LORE_PRETOKEN_REGEX;
        lore_status status = lore_regex_compile(pattern, &l->t->arena, &step.regex, l->err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return add_step(l, step);
}

static lore_status add_literal(lore_tokenizer_loader *l, lore_str literal, lore_pretoken step)
{
    if (literal.len == 0 || l->is_byte_level) {
        return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                         "pre_tokenizer: splitting at an empty string, or at a string behind "
                         "ByteLevel, is not supported");
    }
    step.kind = step.kind == LORE_PRETOKEN_METASPACE ? step.kind : LORE_PRETOKEN_LITERAL;
    step.literal = lore_str_copy(&l->t->arena, literal);
    return step.literal.ptr == NULL ? lore_loader_no_memory(l) : add_step(l, step);
}

static lore_status add_split(lore_tokenizer_loader *l, const lore_json *node)
{
    const lore_json *pattern = lore_json_get(node, "pattern");
    const lore_json *regex = lore_json_get(pattern, "Regex");
    lore_pretoken step = {0};
    lore_status status = read_behavior(l, node, "pre_tokenizer.Split", &step.behavior);
    if (status == LORE_OK) {
        status =
            lore_json_get_bool(node, "pre_tokenizer.Split", "invert", &step.is_inverted, l->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    return lore_json_is_string(regex)
               ? add_regex(l, lore_json_str(regex), step)
               : add_literal(l, lore_json_str(lore_json_get(pattern, "String")), step);
}

static lore_status add_byte_level(lore_tokenizer_loader *l, const lore_json *node)
{
    static const char where[] = "pre_tokenizer.ByteLevel";
    bool use_regex = true, has_prefix = true;
    lore_status status = lore_json_get_bool(node, where, "add_prefix_space", &has_prefix, l->err);
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, where, "use_regex", &use_regex, l->err);
    }
    if (status == LORE_OK && l->is_byte_level) {
        status = lore_fail(l->err, LORE_ERR_UNSUPPORTED, "%s twice is not supported", where);
    }
    if (status == LORE_OK && has_prefix) {
        status =
            add_step(l, (lore_pretoken){.kind = LORE_PRETOKEN_PREFIX, .literal = LORE_STR(" ")});
    }
    if (status == LORE_OK && use_regex) {
        status = add_step(l, (lore_pretoken){.kind = LORE_PRETOKEN_GPT2});
    }
    l->is_byte_level = true;
    return status;
}

static lore_status read_prefix(lore_tokenizer_loader *l, const lore_json *node, const char *where,
                               lore_pretoken_prefix *prefix)
{
    lore_str scheme = LORE_STR("always");
    bool has_prefix = true; /* what files said before there was a scheme */
    lore_status status = lore_json_get_bool(node, where, "add_prefix_space", &has_prefix, l->err);
    scheme = has_prefix ? scheme : LORE_STR("never");
    if (status == LORE_OK) {
        status = lore_json_get_str(node, where, "prepend_scheme", &scheme, l->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    *prefix = lore_str_equal(scheme, LORE_STR("first"))   ? LORE_PREFIX_FIRST
              : lore_str_equal(scheme, LORE_STR("never")) ? LORE_PREFIX_NEVER
                                                          : LORE_PREFIX_ALWAYS;
    bool is_known = *prefix != LORE_PREFIX_ALWAYS || lore_str_equal(scheme, LORE_STR("always"));
    return is_known ? LORE_OK : lore_loader_unsupported(l, "Metaspace.prepend_scheme", scheme);
}

static lore_status add_metaspace(lore_tokenizer_loader *l, const lore_json *node)
{
    static const char where[] = "pre_tokenizer.Metaspace";
    lore_str mark = LORE_STR("\xe2\x96\x81");
    bool splits = true;
    lore_pretoken step = {.kind = LORE_PRETOKEN_METASPACE};
    lore_status status = lore_json_get_str(node, where, "replacement", &mark, l->err);
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, where, "split", &splits, l->err);
    }
    if (status == LORE_OK) {
        status = read_prefix(l, node, where, &step.prefix);
    }
    if (status == LORE_OK && lore_utf8_count(mark) != 1) {
        status = lore_fail(l->err, LORE_ERR_CORRUPT, "%s.replacement must be one character", where);
    }
    if (status == LORE_OK) {
        status = add_literal(l, mark, step);
    }
    if (status == LORE_OK && splits) {
        status = add_literal(l, mark, (lore_pretoken){.behavior = LORE_PRETOKEN_MERGED_NEXT});
    }
    return status;
}

/* Those that cut at a class of characters. */
static lore_status add_class(lore_tokenizer_loader *l, const lore_json *node, lore_str kind)
{
    lore_pretoken step = {0};
    lore_status status = LORE_OK;
    if (lore_str_equal(kind, LORE_STR("Digits"))) {
        bool is_each = false;
        status =
            lore_json_get_bool(node, "pre_tokenizer.Digits", "individual_digits", &is_each, l->err);
        step.kind = LORE_PRETOKEN_NUMBER;
        step.behavior = is_each ? LORE_PRETOKEN_ISOLATED : LORE_PRETOKEN_CONTIGUOUS;
    } else if (lore_str_equal(kind, LORE_STR("Punctuation"))) {
        step.kind = LORE_PRETOKEN_PUNCT;
        status = read_behavior(l, node, "pre_tokenizer.Punctuation", &step.behavior);
    } else if (lore_str_equal(kind, LORE_STR("WhitespaceSplit"))) {
        step.kind = LORE_PRETOKEN_SPACE;
        step.behavior = LORE_PRETOKEN_REMOVED;
    } else if (lore_str_equal(kind, LORE_STR("BertPreTokenizer")) && !l->is_byte_level) {
        step.kind = LORE_PRETOKEN_BERT;
    } else {
        return lore_loader_unsupported(l, "pre_tokenizer", kind);
    }
    return status == LORE_OK ? add_step(l, step) : status;
}

lore_status lore_loader_pre_tokenizer(lore_tokenizer_loader *l, const lore_json *node)
{
    lore_str kind = lore_loader_kind(node);
    if (l->t->steps == NULL) {
        l->t->steps = LORE_PUSH(&l->t->arena, lore_pretoken, STEPS_MAX);
    }
    if (l->t->steps == NULL) {
        return lore_loader_no_memory(l);
    }
    if (!lore_loader_is_given(node)) {
        return LORE_OK;
    }
    if (lore_str_equal(kind, LORE_STR("Sequence"))) {
        lore_status status = LORE_OK;
        const lore_json *list = lore_json_get(node, "pretokenizers");
        for (const lore_json *n = lore_json_first(list); n != NULL && status == LORE_OK;
             n = lore_json_next(n)) {
            status = lore_loader_pre_tokenizer(l, n);
        }
        return status;
    }
    if (lore_str_equal(kind, LORE_STR("ByteLevel"))) {
        return add_byte_level(l, node);
    }
    if (lore_str_equal(kind, LORE_STR("Split"))) {
        return add_split(l, node);
    }
    if (lore_str_equal(kind, LORE_STR("Metaspace"))) {
        return add_metaspace(l, node);
    }
    if (lore_str_equal(kind, LORE_STR("Whitespace"))) {
        return add_regex(l, LORE_STR("\\w+|[^\\w\\s]+"),
                         (lore_pretoken){.behavior = LORE_PRETOKEN_REMOVED, .is_inverted = true});
    }
    if (lore_str_equal(kind, LORE_STR("CharDelimiterSplit"))) {
        return add_literal(l, lore_json_str(lore_json_get(node, "delimiter")),
                           (lore_pretoken){.behavior = LORE_PRETOKEN_REMOVED});
    }
    return add_class(l, node, kind);
}
