/* Compiling a chain of stages, and running it.
 *
 * A Sequence is flattened; a BertNormalizer is up to five stages; a sentencepiece spec is one,
 * because its spaces are squeezed while its map is applied. Each stage reads what the one before
 * wrote, with its origins. */
#include "models/normalize_int.h"

#include "models/normal_stage_int.h"

enum { DEPTH_MAX = 16, GROWTH_FREE = 64 };

struct lore_normalizer {
    lore_normal_stage stages[LORE_NORMALIZE_STAGES_MAX];
    int32_t count;
};

typedef struct normalizer_loader {
    lore_normalizer *n;
    lore_arena *arena;
    const char *kind; /* of the node at hand */
    lore_error *err;
} normalizer_loader;

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a normalizer");
}

static lore_status add(normalizer_loader *l, lore_normal_stage stage)
{
    if (l->n->count == LORE_NORMALIZE_STAGES_MAX) {
        return lore_fail(l->err, LORE_ERR_LIMIT, "the normalizer has more than %d stages",
                         LORE_NORMALIZE_STAGES_MAX);
    }
    stage.kind = l->kind;
    l->n->stages[l->n->count++] = stage;
    return LORE_OK;
}

static lore_status add_map(normalizer_loader *l, int32_t (*map)(int32_t))
{
    return add(l, (lore_normal_stage){.run = lore_normal_characters, .map = map});
}

/* ---- pieces of the file ---- */

/* A string member, copied. */
static lore_status read_str(normalizer_loader *l, const lore_json *node, const char *path,
                            const char *key, lore_str *out)
{
    lore_str text = {0};
    lore_status status = lore_json_get_str_required(node, path, key, &text, l->err);
    if (status == LORE_OK) {
        *out = lore_str_copy(l->arena, text);
        status = out->ptr == NULL ? no_memory(l->err) : LORE_OK;
    }
    return status;
}

/* ---- types ---- */

static lore_status add_charsmap(normalizer_loader *l, lore_str blob, lore_normal_stage stage)
{
    lore_charsmap *map = LORE_PUSH(l->arena, lore_charsmap, 1);
    if (map == NULL) {
        return no_memory(l->err);
    }
    stage.charsmap = map;
    lore_status status = lore_charsmap_open(map, blob, l->arena, l->err);
    return status == LORE_OK ? add(l, stage) : status;
}

static lore_status add_precompiled(normalizer_loader *l, const lore_json *node)
{
    lore_str text = {0};
    size_t size = 0;
    lore_status status =
        lore_json_get_str_required(node, "normalizer", "precompiled_charsmap", &text, l->err);
    if (status != LORE_OK) {
        return status;
    }
    char *blob = lore_alloc(text.len / 4 * 3);
    if (blob == NULL) {
        return no_memory(l->err);
    }
    if (lore_str_from_base64(text, blob, &size)) {
        status = add_charsmap(l, (lore_str){blob, size},
                              (lore_normal_stage){.run = lore_normal_precompiled});
    } else {
        status =
            lore_fail(l->err, LORE_ERR_CORRUPT, "normalizer.precompiled_charsmap is not base64");
    }
    lore_free(blob);
    return status;
}

static lore_status add_bert(normalizer_loader *l, const lore_json *node)
{
    bool clean = true, han = true, lower = true;
    lore_status status = lore_json_get_bool(node, "normalizer", "clean_text", &clean, l->err);
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, "normalizer", "handle_chinese_chars", &han, l->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, "normalizer", "lowercase", &lower, l->err);
    }
    bool strip = lower; /* null means as lowercase does */
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, "normalizer", "strip_accents", &strip, l->err);
    }
    if (status == LORE_OK && clean) {
        status = add_map(l, lore_normal_map_clean);
    }
    if (status == LORE_OK && han) {
        status = add(l, (lore_normal_stage){.run = lore_normal_han});
    }
    if (status == LORE_OK && strip) {
        status = add(l, (lore_normal_stage){.run = lore_normal_form});
    }
    if (status == LORE_OK && strip) {
        status = add_map(l, lore_normal_map_nonspacing);
    }
    if (status == LORE_OK && lower) {
        status = add_map(l, lore_normal_map_lower);
    }
    return status;
}

/* The expressions "c+" and "c{2,}" of one plain character are runs; real files hold " {2,}". */
static bool read_run(lore_str regex, size_t *run_min)
{
    if (regex.len < 2) {
        return false;
    }
    char c = regex.ptr[0];
    lore_str repeat = lore_str_slice(regex, 1, regex.len);
    bool is_plain = c == ' ' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    bool is_counted = repeat.len == 4 && repeat.ptr[1] >= '1' && repeat.ptr[1] <= '9' &&
                      lore_str_starts(repeat, LORE_STR("{")) &&
                      lore_str_ends(repeat, LORE_STR(",}"));
    *run_min = is_counted ? (size_t)(repeat.ptr[1] - '0') : 1;
    return is_plain && (is_counted || lore_str_equal(repeat, LORE_STR("+")));
}

static lore_status add_replace(normalizer_loader *l, const lore_json *node)
{
    const lore_json *pattern = lore_json_get(node, "pattern");
    bool is_regex = lore_json_get(pattern, "Regex") != NULL;
    lore_normal_stage stage = {.run = lore_normal_replace_string};
    lore_status status = read_str(l, node, "normalizer", "content", &stage.content);
    if (status == LORE_OK) {
        status = read_str(l, pattern, "normalizer.pattern", is_regex ? "Regex" : "String",
                          &stage.pattern);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (stage.pattern.len == 0) {
        return lore_fail(l->err, LORE_ERR_UNSUPPORTED, "the normalizer replaces an empty pattern");
    }
    if (is_regex && read_run(stage.pattern, &stage.run_min)) {
        stage.run = lore_normal_replace_run;
    } else if (is_regex) {
        stage.run = lore_normal_replace_regex;
        status = lore_regex_compile(stage.pattern, l->arena, &stage.regex, l->err);
    }
    return status == LORE_OK ? add(l, stage) : status;
}

static lore_status add_strip(normalizer_loader *l, const lore_json *node)
{
    lore_normal_stage stage = {.run = lore_normal_strip, .left = true, .right = true};
    lore_status status = lore_json_get_bool(node, "normalizer", "strip_left", &stage.left, l->err);
    if (status == LORE_OK) {
        status = lore_json_get_bool(node, "normalizer", "strip_right", &stage.right, l->err);
    }
    return status == LORE_OK ? add(l, stage) : status;
}

static lore_status add_prepend(normalizer_loader *l, const lore_json *node)
{
    lore_normal_stage stage = {.run = lore_normal_prepend};
    lore_status status = read_str(l, node, "normalizer", "prepend", &stage.content);
    return status == LORE_OK ? add(l, stage) : status;
}

/* Types without members; NULL: kind is none of them. */
static const lore_normal_stage *simple_stage(lore_str kind)
{
    static const lore_normal_stage simple[] = {
        {.kind = "NFC", .run = lore_normal_form, .is_composed = true},
        {.kind = "NFD", .run = lore_normal_form},
        {.kind = "NFKC", .run = lore_normal_form, .is_composed = true, .is_compatible = true},
        {.kind = "NFKD", .run = lore_normal_form, .is_compatible = true},
        {.kind = "Lowercase", .run = lore_normal_characters, .map = lore_normal_map_lower},
        {.kind = "StripAccents", .run = lore_normal_characters, .map = lore_normal_map_marks},
        {.kind = "Nmt", .run = lore_normal_characters, .map = lore_normal_map_nmt},
    };
    for (size_t i = 0; i < sizeof simple / sizeof simple[0]; i++) {
        if (lore_str_equal(kind, lore_str_from(simple[i].kind))) {
            return &simple[i];
        }
    }
    return NULL;
}

static lore_status add_node(normalizer_loader *l, const lore_json *node, int32_t depth);

static lore_status add_sequence(normalizer_loader *l, const lore_json *node, int32_t depth)
{
    const lore_json *list = lore_json_get(node, "normalizers");
    if (!lore_json_is_array(list)) {
        return lore_fail(l->err, LORE_ERR_INVALID, "normalizer.normalizers must be an array");
    }
    if (depth == DEPTH_MAX) {
        return lore_fail(l->err, LORE_ERR_LIMIT, "the normalizer nests deeper than %d", DEPTH_MAX);
    }
    lore_status status = LORE_OK;
    const lore_json *child = lore_json_first(list);
    for (; child != NULL && status == LORE_OK; child = lore_json_next(child)) {
        status = add_node(l, child, depth + 1);
    }
    return status;
}

static lore_status add_node(normalizer_loader *l, const lore_json *node, int32_t depth)
{
    static const struct {
        const char *kind;
        lore_status (*add)(normalizer_loader *, const lore_json *);
    } types[] = {{"BertNormalizer", add_bert},
                 {"Precompiled", add_precompiled},
                 {"Prepend", add_prepend},
                 {"Replace", add_replace},
                 {"Strip", add_strip}};
    lore_str kind = lore_json_str(lore_json_get(node, "type"));
    const lore_normal_stage *simple = simple_stage(kind);
    if (simple != NULL) {
        l->kind = simple->kind;
        return add(l, *simple);
    }
    if (lore_str_equal(kind, LORE_STR("Sequence"))) {
        return add_sequence(l, node, depth);
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (lore_str_equal(kind, lore_str_from(types[i].kind))) {
            l->kind = types[i].kind;
            return types[i].add(l, node);
        }
    }
    return lore_fail(l->err, LORE_ERR_UNSUPPORTED,
                     "the normalizer type '" LORE_STR_FMT "' is not supported", LORE_STR_ARG(kind));
}

/* ---- public ---- */

static lore_status loader_init(normalizer_loader *l, lore_arena *arena, lore_error *err)
{
    *l = (normalizer_loader){LORE_PUSH(arena, lore_normalizer, 1), arena, "sentencepiece", err};
    return l->n == NULL ? no_memory(err) : LORE_OK;
}

lore_status lore_normalizer_parse(const lore_json *node, lore_arena *arena,
                                  lore_normalizer **normalizer, lore_error *err)
{
    normalizer_loader l;
    lore_status status = loader_init(&l, arena, err);
    if (status == LORE_OK && node != NULL && !lore_json_is_null(node)) {
        status = add_node(&l, node, 0);
    }
    if (status == LORE_OK) {
        *normalizer = l.n;
    }
    return status;
}

lore_status lore_normalizer_from_spec(const lore_normalizer_spec *spec, lore_arena *arena,
                                      lore_normalizer **normalizer, lore_error *err)
{
    normalizer_loader l;
    lore_normal_stage stage = {.run = lore_normal_sentencepiece,
                               .has_prefix = spec->add_dummy_prefix,
                               .is_squeezed = spec->remove_extra_whitespaces,
                               .is_escaped = spec->escape_whitespaces};
    lore_status status = loader_init(&l, arena, err);
    if (status == LORE_OK) {
        status = spec->charsmap.len > 0 ? add_charsmap(&l, spec->charsmap, stage) : add(&l, stage);
    }
    if (status == LORE_OK) {
        *normalizer = l.n;
    }
    return status;
}

bool lore_normalizer_is_empty(const lore_normalizer *normalizer)
{
    return normalizer->count == 0;
}

lore_status lore_normalize(const lore_normalizer *normalizer, lore_str text, size_t base,
                           lore_arena *arena, lore_normal *normal, lore_error *err)
{
    if (text.len > UINT32_MAX || base > UINT32_MAX - text.len) {
        return lore_fail(err, LORE_ERR_LIMIT, "a text of %zu bytes is too long for the normalizer",
                         text.len);
    }
    size_t cap = text.len * LORE_NORMALIZE_GROWTH_MAX + GROWTH_FREE;
    size_t left = text.len * LORE_NORMALIZE_WORK_MAX + GROWTH_FREE;
    lore_normal all = {text, NULL};
    for (int32_t i = 0; i < normalizer->count && all.text.len > 0; i++) {
        const lore_normal_stage *stage = &normalizer->stages[i];
        const char *before = all.text.ptr;
        lore_normal_writer w = {
            .in = all, .base = base, .cap = cap < left ? cap : left, .arena = arena};
        stage->run(stage, &w);
        lore_status status = lore_normal_finish(&w, &all, err);
        if (status != LORE_OK) {
            return lore_error_prefix(err, "normalizer stage %d (%s)", i + 1, stage->kind);
        }
        left -= all.text.ptr != before ? all.text.len : 0;
    }
    *normal = all;
    return LORE_OK;
}
