/* The table of settings, as config.c makes it and config_set.c reads it. */
#ifndef LORE_BASE_CONFIG_INT_H
#define LORE_BASE_CONFIG_INT_H

#include "base/config.h"

enum {
    LORE_SETTING_KEY_CAP = 64, /* "limits." included */
    LORE_SETTING_VARIABLE_CAP = LORE_SETTING_KEY_CAP + 8
};

typedef enum lore_setting_kind {
    LORE_SETTING_INTEGER,
    LORE_SETTING_NUMBER,
    LORE_SETTING_FLAG,
    LORE_SETTING_TEXT
} lore_setting_kind;

typedef struct lore_setting {
    const char *key;
    lore_setting_kind kind;
    size_t offset; /* of the field in lore_config */
    size_t cap;    /* of a text field, NUL included */
    int64_t integer_default, integer_min, integer_max;
    double number_default, number_min, number_max;
    bool flag_default;
    bool is_installed; /* text_default is to be looked for beside the program */
    const char *text_default;
    const char *choices; /* "a|b", a choice "a:N" takes a number; NULL: any text */
    const char *sentence;
} lore_setting;

/* All of them, in the order of the struct; the limits last. */
const lore_setting *lore_settings(size_t *count);
/* Write the environment variable of a setting: LORE_TOP_K, LORE_LIMITS_BODY_BYTES_MAX. */
void lore_setting_variable(const lore_setting *s, char out[LORE_SETTING_VARIABLE_CAP]);

#endif
