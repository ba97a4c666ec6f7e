/* Configuration from outside: single keys, the environment, the JSON file. Each value is checked
 * against its row of the table; an error names the key and what it may be, and leaves the
 * configuration as it was. */
#include "base/config_int.h"
#include "base/file.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_BYTES_MAX = 1024 * 1024,
    FILE_DEPTH_MAX = 4 /* a limit lies at level two */
};

static void *field_of(lore_config *config, const lore_setting *s)
{
    return (char *)config + s->offset;
}

static const lore_setting *find_setting(lore_str key)
{
    size_t count = 0;
    const lore_setting *settings = lore_settings(&count);
    for (size_t i = 0; i < count; i++) {
        if (lore_str_equal(key, lore_str_from(settings[i].key))) {
            return &settings[i];
        }
    }
    return NULL;
}

/* ---- setting ---- */

static lore_status set_integer(lore_config *config, const lore_setting *s, int64_t value,
                               lore_error *err)
{
    if (value < s->integer_min || value > s->integer_max) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "%s must be an integer from %" PRId64 " to %" PRId64 ", not %" PRId64,
                         s->key, s->integer_min, s->integer_max, value);
    }
    *(int64_t *)field_of(config, s) = value;
    return LORE_OK;
}

static lore_status set_number(lore_config *config, const lore_setting *s, double value,
                              lore_error *err)
{
    if (!(value >= s->number_min && value <= s->number_max)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a number from %g to %g, not %g", s->key,
                         s->number_min, s->number_max, value);
    }
    *(double *)field_of(config, s) = value;
    return LORE_OK;
}

/* One of "a|b|c:N"? */
static bool is_choice(const char *choices, lore_str value)
{
    lore_str rest = lore_str_from(choices);
    while (rest.len > 0) {
        size_t bar = lore_str_find(rest, LORE_STR("|"), 0);
        size_t end = bar == SIZE_MAX ? rest.len : bar;
        lore_str choice = lore_str_slice(rest, 0, end);
        if (lore_str_equal(choice, value)) {
            return !lore_str_ends(choice, LORE_STR(":N"));
        }
        if (lore_str_ends(choice, LORE_STR(":N"))) {
            lore_str prefix = lore_str_slice(choice, 0, choice.len - 1);
            int64_t number = -1;
            if (lore_str_starts(value, prefix) &&
                lore_str_to_int64(lore_str_slice(value, prefix.len, value.len), &number) &&
                number >= 0 && number < 1000) {
                return true;
            }
        }
        rest = lore_str_slice(rest, bar == SIZE_MAX ? end : end + 1, rest.len);
    }
    return false;
}

static lore_status set_text(lore_config *config, const lore_setting *s, lore_str value,
                            lore_error *err)
{
    if (s->choices != NULL && !is_choice(s->choices, value)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be one of %s, not '" LORE_STR_FMT "'",
                         s->key, s->choices, LORE_STR_ARG(value));
    }
    if (value.len == 0) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must not be empty", s->key);
    }
    if (value.len >= s->cap) {
        return lore_fail(err, LORE_ERR_LIMIT, "%s has more than %zu bytes", s->key, s->cap - 1);
    }
    if (memchr(value.ptr, '\0', value.len) != NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must not hold a NUL byte", s->key);
    }
    char *field = field_of(config, s);
    memcpy(field, value.ptr, value.len);
    field[value.len] = '\0';
    return LORE_OK;
}

/* An integer; of bytes also as 512M or 24G, in powers of 1024. */
static bool parse_integer(const lore_setting *s, lore_str text, int64_t *value)
{
    static const char UNITS[] = "KMGT";
    const char *unit = text.len > 0 && strstr(s->key, "bytes") != NULL
                           ? memchr(UNITS, text.ptr[text.len - 1], sizeof UNITS - 1)
                           : NULL;
    if (unit == NULL) {
        return lore_str_to_int64(text, value);
    }
    int shift = 10 * (int)(unit - UNITS + 1);
    if (!lore_str_to_int64(lore_str_slice(text, 0, text.len - 1), value) || *value < 0 ||
        *value > INT64_MAX >> shift) {
        return false;
    }
    *value <<= shift;
    return true;
}

/* The whole text as a decimal number. */
static bool parse_number(lore_str text, double *value)
{
    char copy[64];
    if (text.len == 0 || text.len >= sizeof copy) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (strspn(copy, "+-.0123456789eE") < text.len) {
        return false; /* no hexadecimal, no nan, no white space */
    }
    char *end = NULL;
    *value = strtod(copy, &end);
    return *end == '\0';
}

static bool parse_flag(lore_str text, bool *value)
{
    bool is_true = lore_str_equal_nocase(text, LORE_STR("true")) ||
                   lore_str_equal_nocase(text, LORE_STR("yes")) ||
                   lore_str_equal_nocase(text, LORE_STR("on")) ||
                   lore_str_equal(text, LORE_STR("1"));
    bool is_false = lore_str_equal_nocase(text, LORE_STR("false")) ||
                    lore_str_equal_nocase(text, LORE_STR("no")) ||
                    lore_str_equal_nocase(text, LORE_STR("off")) ||
                    lore_str_equal(text, LORE_STR("0"));
    *value = is_true;
    return is_true || is_false;
}

static lore_status set_from_text(lore_config *config, const lore_setting *s, lore_str value,
                                 lore_error *err)
{
    int64_t integer = 0;
    double number = 0;
    bool flag = false;
    switch (s->kind) {
    case LORE_SETTING_INTEGER:
        if (parse_integer(s, value, &integer)) {
            return set_integer(config, s, integer, err);
        }
        return lore_fail(err, LORE_ERR_INVALID, "%s must be an integer, not '" LORE_STR_FMT "'",
                         s->key, LORE_STR_ARG(value));
    case LORE_SETTING_NUMBER:
        if (parse_number(value, &number)) {
            return set_number(config, s, number, err);
        }
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a number, not '" LORE_STR_FMT "'",
                         s->key, LORE_STR_ARG(value));
    case LORE_SETTING_FLAG:
        if (parse_flag(value, &flag)) {
            *(bool *)field_of(config, s) = flag;
            return LORE_OK;
        }
        return lore_fail(err, LORE_ERR_INVALID, "%s must be true or false, not '" LORE_STR_FMT "'",
                         s->key, LORE_STR_ARG(value));
    case LORE_SETTING_TEXT:
        break;
    }
    return set_text(config, s, value, err);
}

lore_status lore_config_set(lore_config *config, lore_str key, lore_str value, lore_error *err)
{
    const lore_setting *s = find_setting(key);
    if (s == NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "unknown setting '" LORE_STR_FMT "'",
                         LORE_STR_ARG(key));
    }
    return set_from_text(config, s, value, err);
}

/* ---- environment ---- */

lore_status lore_config_environment(lore_config *config, lore_error *err)
{
    size_t count = 0;
    const lore_setting *settings = lore_settings(&count);
    for (size_t i = 0; i < count; i++) {
        char variable[LORE_SETTING_VARIABLE_CAP];
        lore_setting_variable(&settings[i], variable);
        const char *value = getenv(variable);
        if (value == NULL) {
            continue;
        }
        lore_error why;
        lore_status status = set_from_text(config, &settings[i], lore_str_from(value), &why);
        if (status != LORE_OK) {
            return lore_fail(err, status, "environment variable %s: %s", variable, why.message);
        }
    }
    return LORE_OK;
}

/* ---- file ---- */

static lore_status set_from_json(lore_config *config, const char *key, const lore_json *value,
                                 lore_error *err)
{
    const lore_setting *s = find_setting(lore_str_from(key));
    if (s == NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "unknown setting '%s'", key);
    }
    double number = lore_json_number(value);
    switch (s->kind) {
    case LORE_SETTING_INTEGER:
        if (!lore_json_is_number(value) || number < -0x1p53 || number > 0x1p53 ||
            number != (double)(int64_t)number) {
            return lore_fail(err, LORE_ERR_INVALID, "%s must be an integer", key);
        }
        return set_integer(config, s, (int64_t)number, err);
    case LORE_SETTING_NUMBER:
        if (!lore_json_is_number(value)) {
            return lore_fail(err, LORE_ERR_INVALID, "%s must be a number", key);
        }
        return set_number(config, s, number, err);
    case LORE_SETTING_FLAG:
        if (!lore_json_is_bool(value)) {
            return lore_fail(err, LORE_ERR_INVALID, "%s must be true or false", key);
        }
        *(bool *)field_of(config, s) = lore_json_bool(value);
        return LORE_OK;
    case LORE_SETTING_TEXT:
        break;
    }
    if (!lore_json_is_string(value)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a string", key);
    }
    return set_text(config, s, lore_json_str(value), err);
}

/* Apply the members of one object; prefix is "" or "limits.". */
static lore_status set_from_object(lore_config *config, const char *prefix, const lore_json *object,
                                   lore_error *err)
{
    for (const lore_json *member = lore_json_first(object); member != NULL;
         member = lore_json_next(member)) {
        lore_str name = lore_json_key(member);
        bool is_limits = prefix[0] == '\0' && lore_str_equal(name, LORE_STR("limits"));
        char key[LORE_SETTING_KEY_CAP];
        int length = snprintf(key, sizeof key, "%s" LORE_STR_FMT, prefix, LORE_STR_ARG(name));
        lore_status status;
        if (length < 0 || length >= LORE_SETTING_KEY_CAP) {
            status = lore_fail(err, LORE_ERR_INVALID, "unknown setting '" LORE_STR_FMT "'",
                               LORE_STR_ARG(name));
        } else if (is_limits && !lore_json_is_object(member)) {
            status = lore_fail(err, LORE_ERR_INVALID, "limits must be an object");
        } else if (is_limits) {
            status = set_from_object(config, "limits.", member, err);
        } else {
            status = set_from_json(config, key, member, err);
        }
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

lore_status lore_config_parse(lore_config *config, lore_str json, const char *name, lore_error *err)
{
    lore_json *root = NULL;
    lore_error why;
    lore_config changed = *config; /* so that a file with an error changes nothing */
    lore_status status = lore_json_parse(json, FILE_DEPTH_MAX, &root, &why);
    if (status == LORE_OK && !lore_json_is_object(root)) {
        status = lore_fail(&why, LORE_ERR_INVALID, "the configuration must be a JSON object");
    }
    if (status == LORE_OK) {
        status = set_from_object(&changed, "", root, &why);
    }
    if (status == LORE_OK) {
        *config = changed;
    } else {
        lore_fail(err, status, "%s: %s", name, why.message);
    }
    lore_json_free(root);
    return status;
}

lore_status lore_config_load(lore_config *config, const char *path, lore_error *err)
{
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_status status = lore_file_read(path, FILE_BYTES_MAX, &text, err);
    if (status == LORE_OK) {
        status = lore_config_parse(config, lore_buf_str(&text), path, err);
    }
    lore_buf_destroy(&text);
    return status;
}
