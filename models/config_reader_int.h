/* Reading the fields of a configuration file: what the parsers of decoders and of encoders share.
 *
 * Configuration files are trusted least where they are quiet: a field that we do not know may mean
 * another network. A parser lists the fields that are known to change the forward pass, with the
 * values that we compute, and passes over the rest (training, library versions, token ids of other
 * tasks). null means absent everywhere. Messages name the field. Thread: any, no state. */
#ifndef LORE_MODELS_CONFIG_READER_INT_H
#define LORE_MODELS_CONFIG_READER_INT_H

#include "base/json.h"

/* Bounds on sizes. Real models stay far below; the product of any three fits 63 bits. */
enum {
    LORE_LAYERS_MAX = 1024,
    LORE_WIDTH_MAX = 65536,
    LORE_HEADS_MAX = 1024,
    LORE_FFN_MAX = 1 << 18,
    LORE_VOCAB_MAX = 1 << 21,
    LORE_CONTEXT_MAX = 1 << 21
};
/* Of a norm: in single precision, too, more than the nothing by which a row of equal values would
 * be divided. */
#define LORE_EPSILON_MIN 1e-30

typedef struct lore_config_reader {
    const lore_json *root;
    lore_error *err;
} lore_config_reader;

/* Parse a file that holds an object; name is for messages. Free *root with lore_json_free. */
LORE_MUST_USE lore_status lore_config_open(lore_str json, const char *name, lore_json **root,
                                           lore_error *err);
/* A size from 1 to max; may: absent leaves *out as it is. */
LORE_MUST_USE lore_status lore_config_need_int(lore_config_reader *r, const char *key, int64_t max,
                                               int32_t *out);
LORE_MUST_USE lore_status lore_config_may_int(lore_config_reader *r, const char *key, int64_t max,
                                              int32_t *out);
/* Refuse a flag that is on. */
LORE_MUST_USE lore_status lore_config_need_off(lore_config_reader *r, const char *key);
/* Refuse a string other than the one we compute; absent is fine. */
LORE_MUST_USE lore_status lore_config_need_text(lore_config_reader *r, const char *key,
                                                const char *wanted);
/* Refuse a structure that means another network. */
LORE_MUST_USE lore_status lore_config_need_absent(lore_config_reader *r, const char *key);

#endif
