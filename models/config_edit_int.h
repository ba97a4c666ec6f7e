/* Changing members of a config.json and leaving all others byte for byte as they were: 1.0 stays
 * 1.0, which other programs tell from 1. Thread: any, no state. */
#ifndef LORE_MODELS_CONFIG_EDIT_INT_H
#define LORE_MODELS_CONFIG_EDIT_INT_H

#include "base/str.h"

typedef struct lore_config_edit {
    const char *key;
    lore_str value; /* JSON; empty: the member is taken out */
    bool is_added;  /* where there is no such member */
} lore_config_edit;

/* Append the file `name`, of which json is the text, as edited. LORE_ERR_CORRUPT (it is no JSON
 * object, or no JSON), LORE_ERR_LIMIT, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_config_edit_text(lore_str json, const char *name,
                                                const lore_config_edit *edits, int32_t count,
                                                lore_buf *out, lore_error *err);

#endif
