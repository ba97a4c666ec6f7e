/* The small files of a model folder: reading JSON with blame on the right file, and the card for
 * machines.
 *
 * lore.json is ours and optional: {"name": "lore-small", "needs_guard": true}. Thread: any, no
 * state. */
#ifndef LORE_MODELS_MODEL_FOLDER_INT_H
#define LORE_MODELS_MODEL_FOLDER_INT_H

#include "base/config.h"
#include "base/json.h"

enum { LORE_MODEL_NAME_CAP = 128, LORE_MODEL_JSON_DEPTH_MAX = 32 };

typedef struct lore_model_card {
    char name[LORE_MODEL_NAME_CAP]; /* lore.json "name", else the folder's last part */
    bool needs_guard;
} lore_model_card;

/* Put "'path': " before a message about somebody's model file, and call what the JSON reader found
 * invalid corrupt: the fault is the file's, not the caller's. Returns the new status. */
lore_status lore_model_blame(lore_error *err, lore_status status, const char *path);

bool lore_model_has(const char *folder, const char *file);
/* Bytes of folder/file appended to out. A missing file is LORE_ERR_NOT_FOUND and named. */
LORE_MUST_USE lore_status lore_model_read(const char *folder, const char *file,
                                          const lore_limits *limits, lore_buf *out,
                                          lore_error *err);
/* The same, parsed. Free *root with lore_json_free. */
LORE_MUST_USE lore_status lore_model_json(const char *folder, const char *file,
                                          const lore_limits *limits, lore_json **root,
                                          lore_error *err);
LORE_MUST_USE lore_status lore_model_card_read(const char *folder, const lore_limits *limits,
                                               lore_model_card *card, lore_error *err);

#endif
