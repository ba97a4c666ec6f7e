/* Command-line flags as tables: each row says name, kind, where the value goes, and the line that
 * --help prints, so that what is documented is what is parsed.
 *
 * Forms: --name value, --name=value, -x value, -xvalue, --name for switches; "--" ends the flags,
 * "-" alone is an argument. Nothing is copied: values point into argv. Pure. */
#ifndef LORE_CLI_FLAGS_H
#define LORE_CLI_FLAGS_H

#include "base/str.h"

typedef enum lore_flag_kind {
    LORE_FLAG_SWITCH,  /* bool * */
    LORE_FLAG_TEXT,    /* const char ** */
    LORE_FLAG_INTEGER, /* int64_t *, within [min, max] */
    LORE_FLAG_NUMBER,  /* double * */
    LORE_FLAG_LIST     /* lore_flag_list *: may be repeated */
} lore_flag_kind;

typedef struct lore_flag_list {
    const char **items; /* in the arena */
    int32_t count;
} lore_flag_list;

typedef struct lore_flag {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    lore_flag_kind kind;
    void *target;
    const char *value;    /* what --help calls it: "NAME"; NULL for a switch */
    const char *sentence; /* for --help */
    int64_t min, max;
} lore_flag;

typedef struct lore_flag_table {
    const lore_flag *flags;
    int32_t count;
} lore_flag_table;

/* Parse arguments[0 .. count) by the tables, first match wins; what is no flag goes to `others`.
 * Where stops_early, the first of those ends the parsing, and *used says how many were taken. Fails
 * with LORE_ERR_INVALID naming the flag. */
LORE_MUST_USE lore_status lore_flags_parse(const lore_flag_table *tables, int32_t table_count,
                                           char *const *arguments, int32_t count, bool stops_early,
                                           lore_arena *arena, lore_flag_list *others, int32_t *used,
                                           lore_error *err);

/* The lines of --help. */
void lore_flags_print(const lore_flag_table *table, lore_buf *out);

#endif
