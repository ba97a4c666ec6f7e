/* Methods of texts and mappings, and the functions that a template may call. */
#include "generation/template_int.h"

#include <string.h>
#include <time.h>

/* ---- methods of texts ---- */

/* The subject and the first arguments are all texts. */
static lore_status need_texts(lore_jinja_run *run, const lore_jinja_value *arguments, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (arguments[i].kind != LORE_JINJA_VALUE_TEXT) {
            return lore_jinja_run_fail(run, LORE_ERR_INVALID, "a method of texts with %s",
                                       lore_jinja_value_kind_name(&arguments[i]));
        }
    }
    return LORE_OK;
}

static lore_status strip(lore_jinja_run *run, const lore_jinja_value *arguments, bool at_start,
                         bool at_end, lore_jinja_value *out)
{
    bool has_characters = arguments[1].kind == LORE_JINJA_VALUE_TEXT;
    lore_status status = need_texts(run, arguments, 1);
    if (status == LORE_OK && !has_characters && arguments[1].kind != LORE_JINJA_VALUE_UNDEFINED &&
        arguments[1].kind != LORE_JINJA_VALUE_NONE) {
        status = need_texts(run, arguments, 2);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_text text = arguments[0].as.text;
    lore_str characters =
        has_characters ? lore_jinja_text_str(arguments[1].as.text) : (lore_str){0};
    status = lore_jinja_run_spend_bytes(run, text.len * (1 + characters.len));
    if (status == LORE_OK) {
        *out = lore_jinja_value_text(
            lore_jinja_text_strip(text, has_characters ? &characters : NULL, at_start, at_end));
    }
    return status;
}

static lore_status run_strip(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    return strip(run, arguments, true, true, out);
}

static lore_status run_lstrip(lore_jinja_run *run, const lore_jinja_value *arguments,
                              lore_jinja_value *out)
{
    return strip(run, arguments, true, false, out);
}

static lore_status run_rstrip(lore_jinja_run *run, const lore_jinja_value *arguments,
                              lore_jinja_value *out)
{
    return strip(run, arguments, false, true, out);
}

static lore_status run_split(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    bool at_space = arguments[1].kind == LORE_JINJA_VALUE_UNDEFINED ||
                    arguments[1].kind == LORE_JINJA_VALUE_NONE;
    lore_status status = need_texts(run, arguments, at_space ? 1 : 2);
    if (status != LORE_OK) {
        return status;
    }
    lore_str separator = at_space ? (lore_str){0} : lore_jinja_text_str(arguments[1].as.text);
    if (!at_space && separator.len == 0) {
        return lore_jinja_run_fail(run, LORE_ERR_INVALID, "a split at an empty text");
    }
    return lore_jinja_text_split(run, arguments[0].as.text, separator, out);
}

static lore_status run_startswith(lore_jinja_run *run, const lore_jinja_value *arguments,
                                  lore_jinja_value *out)
{
    lore_status status = need_texts(run, arguments, 2);
    if (status == LORE_OK) {
        status = lore_jinja_run_spend_bytes(run, lore_jinja_text_str(arguments[1].as.text).len);
    }
    *out = lore_jinja_value_bool(status == LORE_OK &&
                                 lore_str_starts(lore_jinja_text_str(arguments[0].as.text),
                                                 lore_jinja_text_str(arguments[1].as.text)));
    return status;
}

static lore_status run_endswith(lore_jinja_run *run, const lore_jinja_value *arguments,
                                lore_jinja_value *out)
{
    lore_status status = need_texts(run, arguments, 2);
    if (status == LORE_OK) {
        status = lore_jinja_run_spend_bytes(run, lore_jinja_text_str(arguments[1].as.text).len);
    }
    *out = lore_jinja_value_bool(status == LORE_OK &&
                                 lore_str_ends(lore_jinja_text_str(arguments[0].as.text),
                                               lore_jinja_text_str(arguments[1].as.text)));
    return status;
}

static lore_status recase(lore_jinja_run *run, const lore_jinja_value *arguments,
                          lore_jinja_text_case to, lore_jinja_value *out)
{
    lore_status status = need_texts(run, arguments, 1);
    return status == LORE_OK ? lore_jinja_text_recase(run, arguments[0].as.text, to, out) : status;
}

static lore_status run_upper(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    return recase(run, arguments, LORE_JINJA_TEXT_UPPER, out);
}

static lore_status run_lower(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    return recase(run, arguments, LORE_JINJA_TEXT_LOWER, out);
}

static lore_status run_title(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    return recase(run, arguments, LORE_JINJA_TEXT_TITLE, out);
}

static lore_status run_capitalize(lore_jinja_run *run, const lore_jinja_value *arguments,
                                  lore_jinja_value *out)
{
    return recase(run, arguments, LORE_JINJA_TEXT_CAPITALIZE, out);
}

static lore_status run_replace(lore_jinja_run *run, const lore_jinja_value *arguments,
                               lore_jinja_value *out)
{
    lore_status status = need_texts(run, arguments, 3);
    return status == LORE_OK
               ? lore_jinja_text_replace(run, arguments[0].as.text, arguments[1].as.text,
                                         arguments[2].as.text, out)
               : status;
}

/* ---- methods of mappings ---- */

lore_status lore_jinja_items(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    if (arguments[0].kind == LORE_JINJA_VALUE_UNDEFINED) {
        return lore_jinja_value_items(run, &arguments[0], out);
    }
    if (arguments[0].kind != LORE_JINJA_VALUE_MAP) {
        return lore_jinja_run_fail(run, LORE_ERR_INVALID, "the items of %s",
                                   lore_jinja_value_kind_name(&arguments[0]));
    }
    const lore_jinja_map *map = arguments[0].as.map;
    lore_status status = lore_jinja_run_spend(run, (size_t)map->count);
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, map->count);
    lore_jinja_value *pairs = LORE_PUSH(&run->arena, lore_jinja_value, 2 * map->count);
    if (status == LORE_OK && (items == NULL || pairs == NULL)) {
        status = lore_jinja_run_no_memory(run);
    }
    int32_t count = 0;
    for (const lore_jinja_entry *e = map->first; e != NULL && status == LORE_OK; e = e->next) {
        pairs[2 * count] = lore_jinja_value_text(lore_jinja_text_own(e->key));
        pairs[2 * count + 1] = e->value;
        items[count] = (lore_jinja_value){
            .kind = LORE_JINJA_VALUE_LIST, .count = 2, .as.items = &pairs[2 * count]};
        count++;
    }
    *out = (lore_jinja_value){.kind = LORE_JINJA_VALUE_LIST, .count = count, .as.items = items};
    return status;
}

static lore_status run_get(lore_jinja_run *run, const lore_jinja_value *arguments,
                           lore_jinja_value *out)
{
    lore_status status = need_texts(run, arguments + 1, 1);
    if (status == LORE_OK && arguments[0].kind != LORE_JINJA_VALUE_MAP) {
        status = lore_jinja_run_fail(run, LORE_ERR_INVALID, "get of %s",
                                     lore_jinja_value_kind_name(&arguments[0]));
    }
    if (status != LORE_OK) {
        return status;
    }
    const lore_jinja_value *found =
        lore_jinja_map_get(arguments[0].as.map, lore_jinja_text_str(arguments[1].as.text));
    *out = found != NULL ? *found : arguments[2];
    if (out->kind == LORE_JINJA_VALUE_UNDEFINED) {
        out->kind = LORE_JINJA_VALUE_NONE;
    }
    return LORE_OK;
}

/* ---- functions ---- */

static lore_status run_raise(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    (void)out;
    lore_jinja_text message;
    lore_status status = lore_jinja_value_print(run, &arguments[1], &message);
    return status == LORE_OK
               ? lore_fail(run->err, LORE_ERR_INVALID,
                           "the chat template '%s' refuses this conversation: " LORE_STR_FMT,
                           run->name, LORE_STR_ARG(message))
               : status;
}

enum {
    DATE_FORMAT_CAP = 256,
    DATE_CAP = 64 * DATE_FORMAT_CAP /* no name of a day or month has more bytes than that */
};

/* The conversions whose meaning is the same everywhere: the format is somebody else's. */
static bool is_date_format(lore_str format)
{
    static const char LETTERS[] = "aAbBdHIjmMpSyY%";
    bool is_known = memchr(format.ptr, '\0', format.len) == NULL;
    for (size_t i = 0; i < format.len && is_known; i++) {
        if (format.ptr[i] == '%') {
            i++;
            is_known = i < format.len && memchr(LETTERS, format.ptr[i], sizeof LETTERS - 1) != NULL;
        }
    }
    return is_known;
}

static lore_status copy_date(lore_jinja_run *run, lore_str date, bool is_foreign,
                             lore_jinja_value *out)
{
    lore_str copy = lore_str_copy(&run->arena, date);
    uint8_t *foreign = is_foreign ? lore_arena_push(&run->arena, date.len) : NULL;
    if (copy.ptr == NULL || (is_foreign && foreign == NULL)) {
        return lore_jinja_run_no_memory(run);
    }
    if (is_foreign) {
        memset(foreign, 1, date.len);
    }
    *out = lore_jinja_value_text((lore_jinja_text){copy.ptr, foreign, copy.len});
    return LORE_OK;
}

/* The text is foreign where the format is, whose letters stand in it. */
static lore_status run_strftime(lore_jinja_run *run, const lore_jinja_value *arguments,
                                lore_jinja_value *out)
{
    lore_status status = need_texts(run, arguments + 1, 1);
    if (status != LORE_OK) {
        return status;
    }
    char format[DATE_FORMAT_CAP + 1], text[DATE_CAP];
    struct tm parts;
    time_t seconds = (time_t)(run->unix_ms / 1000);
    lore_str given = lore_jinja_text_str(arguments[1].as.text);
    if (given.len >= DATE_FORMAT_CAP) {
        return lore_jinja_run_fail(run, LORE_ERR_LIMIT,
                                   "a format of a date of %zu bytes, at most "
                                   "%d may be",
                                   given.len, (int)DATE_FORMAT_CAP - 1);
    }
    if (given.len == 0 || !is_date_format(given) || localtime_r(&seconds, &parts) == NULL) {
        return lore_jinja_run_fail(
            run, LORE_ERR_UNSUPPORTED,
            "this format of a date is not supported (there are %%a %%A %%b %%B "
            "%%d %%H %%I %%j %%m %%M %%p %%S %%y %%Y)");
    }
    /* A blank before it: strftime gives 0 for an empty result and for one that does not fit. */
    format[0] = ' ';
    memcpy(format + 1, given.ptr, given.len);
    format[given.len + 1] = '\0';
    size_t len = strftime(text, sizeof text, format, &parts);
    LORE_ASSERT(len > 0);
    return copy_date(run, (lore_str){text + 1, len - 1}, arguments[1].as.text.foreign != NULL, out);
}

lore_status lore_jinja_namespace(lore_jinja_run *run, const lore_jinja_node *node,
                                 lore_jinja_value *out)
{
    lore_jinja_map *map = LORE_PUSH(&run->arena, lore_jinja_map, 1);
    lore_status status = map == NULL ? lore_jinja_run_no_memory(run) : LORE_OK;
    for (const lore_jinja_node *a = node->arguments; a != NULL && status == LORE_OK; a = a->next) {
        lore_jinja_value value = {0};
        status = lore_jinja_run_eval(run, a, &value);
        if (status == LORE_OK) {
            status = lore_jinja_map_put(run, map, a->keyword, value);
        }
    }
    *out = (lore_jinja_value){.kind = LORE_JINJA_VALUE_NAMESPACE, .as.map = map};
    return status;
}

/* ---- tables ---- */

static const lore_jinja_word METHODS[] = {
    {"strip", run_strip, 0, 1, NULL, false, false, false},
    {"lstrip", run_lstrip, 0, 1, NULL, false, false, false},
    {"rstrip", run_rstrip, 0, 1, NULL, false, false, false},
    {"split", run_split, 0, 1, NULL, false, false, false},
    {"startswith", run_startswith, 1, 1, NULL, false, false, false},
    {"endswith", run_endswith, 1, 1, NULL, false, false, false},
    {"upper", run_upper, 0, 0, NULL, false, false, false},
    {"lower", run_lower, 0, 0, NULL, false, false, false},
    {"title", run_title, 0, 0, NULL, false, false, false},
    {"capitalize", run_capitalize, 0, 0, NULL, false, false, false},
    {"replace", run_replace, 2, 2, NULL, false, false, false},
    {"items", lore_jinja_items, 0, 0, NULL, false, false, false},
    {"get", run_get, 1, 2, NULL, false, false, false},
};

static const lore_jinja_word FUNCTIONS[] = {
    {"raise_exception", run_raise, 1, 1, NULL, false, false, false},
    {"strftime_now", run_strftime, 1, 1, NULL, false, false, false},
    {"namespace", NULL, 0, 0, NULL, false, false, false},
};

static const lore_jinja_word *find_word(const lore_jinja_word *words, size_t count, lore_str name)
{
    for (size_t i = 0; i < count; i++) {
        if (lore_str_equal(name, lore_str_from(words[i].name))) {
            return &words[i];
        }
    }
    return NULL;
}

const lore_jinja_word *lore_jinja_method(lore_str name)
{
    return find_word(METHODS, sizeof METHODS / sizeof METHODS[0], name);
}

const lore_jinja_word *lore_jinja_function(lore_str name)
{
    return find_word(FUNCTIONS, sizeof FUNCTIONS / sizeof FUNCTIONS[0], name);
}
