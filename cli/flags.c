/* See flags.h. */
#include "cli/flags.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const lore_flag *find_name(const lore_flag_table *tables, int32_t table_count, lore_str name)
{
    for (int32_t t = 0; t < table_count; t++) {
        for (int32_t i = 0; i < tables[t].count; i++) {
            if (lore_str_equal(lore_str_from(tables[t].flags[i].name), name)) {
                return &tables[t].flags[i];
            }
        }
    }
    return NULL;
}

static const lore_flag *find_letter(const lore_flag_table *tables, int32_t table_count, char letter)
{
    for (int32_t t = 0; t < table_count; t++) {
        for (int32_t i = 0; i < tables[t].count; i++) {
            if (tables[t].flags[i].letter == letter) {
                return &tables[t].flags[i];
            }
        }
    }
    return NULL;
}

/* A list can hold every argument there is: its array is made once, at that size. */
static lore_status list_add(lore_flag_list *list, const char *item, int32_t cap, lore_arena *arena,
                            lore_error *err)
{
    if (list->items == NULL) {
        list->items = LORE_PUSH(arena, const char *, cap);
        if (list->items == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for the arguments");
        }
    }
    list->items[list->count++] = item;
    return LORE_OK;
}

static lore_status set_integer(const lore_flag *flag, const char *value, lore_error *err)
{
    int64_t number = 0;
    if (!lore_str_to_int64(lore_str_from(value), &number) || number < flag->min ||
        number > flag->max) {
        return lore_fail(err, LORE_ERR_INVALID, "--%s must be a number from %lld to %lld, not '%s'",
                         flag->name, (long long)flag->min, (long long)flag->max, value);
    }
    *(int64_t *)flag->target = number;
    return LORE_OK;
}

static lore_status set_number(const lore_flag *flag, const char *value, lore_error *err)
{
    char *end = NULL;
    double number = strtod(value, &end);
    if (end == value || *end != '\0' || !isfinite(number)) {
        return lore_fail(err, LORE_ERR_INVALID, "--%s must be a number, not '%s'", flag->name,
                         value);
    }
    *(double *)flag->target = number;
    return LORE_OK;
}

static lore_status set_value(const lore_flag *flag, const char *value, int32_t cap,
                             lore_arena *arena, lore_error *err)
{
    switch (flag->kind) {
    case LORE_FLAG_SWITCH:
        *(bool *)flag->target = true;
        return LORE_OK;
    case LORE_FLAG_TEXT:
        *(const char **)flag->target = value;
        return LORE_OK;
    case LORE_FLAG_INTEGER:
        return set_integer(flag, value, err);
    case LORE_FLAG_NUMBER:
        return set_number(flag, value, err);
    case LORE_FLAG_LIST:
        break;
    }
    return list_add(flag->target, value, cap, arena, err);
}

/* Take the flag at arguments[*at], with its value, and move *at behind it. */
static lore_status take_flag(const lore_flag_table *tables, int32_t table_count,
                             char *const *arguments, int32_t count, int32_t *at, lore_arena *arena,
                             lore_error *err)
{
    const char *text = arguments[*at];
    const char *value = NULL;
    const lore_flag *flag = NULL;
    if (text[1] == '-') {
        const char *equals = strchr(text, '=');
        size_t size = equals ? (size_t)(equals - text) : strlen(text);
        flag = find_name(tables, table_count, (lore_str){text + 2, size - 2});
        value = equals ? equals + 1 : NULL;
    } else {
        flag = find_letter(tables, table_count, text[1]);
        value = text[2] != '\0' ? text + 2 : NULL;
    }
    if (flag == NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "unknown flag '%s'", text);
    }
    if (flag->kind == LORE_FLAG_SWITCH && value != NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "--%s takes no value", flag->name);
    }
    (*at)++;
    if (flag->kind != LORE_FLAG_SWITCH && value == NULL) {
        if (*at >= count) {
            return lore_fail(err, LORE_ERR_INVALID, "--%s needs a value: %s", flag->name,
                             flag->value);
        }
        value = arguments[(*at)++];
    }
    return set_value(flag, value, count, arena, err);
}

lore_status lore_flags_parse(const lore_flag_table *tables, int32_t table_count,
                             char *const *arguments, int32_t count, bool stops_early,
                             lore_arena *arena, lore_flag_list *others, int32_t *used,
                             lore_error *err)
{
    bool is_flag_allowed = true;
    int32_t at = 0;
    while (at < count) {
        const char *text = arguments[at];
        lore_status status = LORE_OK;
        if (is_flag_allowed && strcmp(text, "--") == 0) {
            is_flag_allowed = false;
            at++;
        } else if (is_flag_allowed && text[0] == '-' && text[1] != '\0') {
            status = take_flag(tables, table_count, arguments, count, &at, arena, err);
        } else if (stops_early) {
            break;
        } else {
            status = list_add(others, text, count, arena, err);
            at++;
        }
        if (status != LORE_OK) {
            return status;
        }
    }
    *used = at;
    return LORE_OK;
}

void lore_flags_print(const lore_flag_table *table, lore_buf *out)
{
    enum { COLUMN = 28 };
    for (int32_t i = 0; i < table->count; i++) {
        const lore_flag *flag = &table->flags[i];
        char left[64];
        char letter[8] = "    ";
        if (flag->letter != 0) {
            snprintf(letter, sizeof letter, "-%c, ", flag->letter);
        }
        snprintf(left, sizeof left, "  %s--%s%s%s", letter, flag->name, flag->value ? " " : "",
                 flag->value ? flag->value : "");
        bool is_long = strlen(left) >= COLUMN;
        lore_buf_printf(out, is_long ? "%s\n%*s%s\n" : "%s%*s%s\n", left,
                        is_long ? COLUMN : COLUMN - (int)strlen(left), "", flag->sentence);
    }
}
