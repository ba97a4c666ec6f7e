/* The files of an encoder's folder, each handed to its parser, and the hash of all that they say.
 */
#include "models/encoder_folder_int.h"

#include "base/file.h"
#include "models/model_folder_int.h"
#include "models/tokenizer_files_int.h"

#include <stdio.h>
#include <string.h>

enum { PATH_CAP = 4096 };

/* ---- reading ---- */

/* Read folder/file and hand its bytes to one parser of an encoder's configuration. */
static lore_status parse_file(const char *folder, const char *file, const lore_limits *limits,
                              lore_status (*parse)(lore_str, const char *, lore_encoder_config *,
                                                   lore_error *),
                              lore_encoder_config *config, lore_error *err)
{
    char name[PATH_CAP];
    lore_buf text;
    lore_buf_init(&text, 0);
    snprintf(name, sizeof name, "%s/%s", folder, file); /* for messages: may be cut */
    lore_status status = lore_model_read(folder, file, limits, &text, err);
    if (status == LORE_OK) {
        status = parse(lore_buf_str(&text), name, config, err);
    }
    lore_buf_destroy(&text);
    return status;
}

/* The files of the folders that modules.json names. */
static lore_status read_modules(const char *folder, const lore_limits *limits,
                                lore_encoder_config *config, lore_error *err)
{
    char file[LORE_MODULE_PATH_CAP + 16];
    lore_status status =
        parse_file(folder, "modules.json", limits, lore_modules_parse, config, err);
    if (status == LORE_OK) {
        snprintf(file, sizeof file, "%s/config.json", config->pooling_path);
        status = parse_file(folder, file, limits, lore_pooling_parse, config, err);
    }
    for (int32_t i = 0; i < config->dense_count && status == LORE_OK; i++) {
        snprintf(file, sizeof file, "%s/config.json", config->dense[i].path);
        status = parse_file(folder, file, limits, lore_dense_parse, config, err);
    }
    return status;
}

static void limit_tokens(lore_encoder_config *config, const lore_limits *limits)
{
    if (config->tokens_max > limits->encoder_tokens_max) {
        config->tokens_max = (int32_t)limits->encoder_tokens_max;
    }
}

/* In this order: what comes later knows better. */
lore_status lore_encoder_folder_read(const char *folder, const lore_limits *limits,
                                     lore_encoder_config *config, lore_error *err)
{
    static const struct {
        const char *file;
        lore_status (*parse)(lore_str, const char *, lore_encoder_config *, lore_error *);
    } COMPANIONS[] = {{"tokenizer_config.json", lore_text_length_parse},
                      {"sentence_bert_config.json", lore_sentence_config_parse},
                      {"config_sentence_transformers.json", lore_prompts_parse},
                      {"lore.json", lore_encoder_card_parse}};
    lore_status status =
        parse_file(folder, "config.json", limits, lore_encoder_config_parse, config, err);
    if (status == LORE_OK) {
        status = read_modules(folder, limits, config, err);
    }
    for (size_t i = 0; i < sizeof COMPANIONS / sizeof COMPANIONS[0] && status == LORE_OK; i++) {
        if (lore_model_has(folder, COMPANIONS[i].file)) {
            status =
                parse_file(folder, COMPANIONS[i].file, limits, COMPANIONS[i].parse, config, err);
        }
    }
    if (status == LORE_OK && config->dimensions > lore_encoder_config_out(config)) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "model folder '%s': %d dimensions are wanted of vectors of %d", folder,
                         config->dimensions, lore_encoder_config_out(config));
    }
    if (status == LORE_OK) {
        limit_tokens(config, limits);
        config->is_normalised = true; /* what is stored is compared by cosine */
    }
    return status;
}

lore_status lore_classifier_folder_read(const char *folder, const lore_limits *limits,
                                        lore_encoder_config *config, lore_error *err)
{
    lore_status status =
        parse_file(folder, "config.json", limits, lore_classifier_config_parse, config, err);
    if (status == LORE_OK && lore_model_has(folder, "tokenizer_config.json")) {
        status = parse_file(folder, "tokenizer_config.json", limits, lore_text_length_parse, config,
                            err);
    }
    if (status == LORE_OK) {
        limit_tokens(config, limits);
    }
    return status;
}

lore_status lore_encoder_folder_check(const char *folder, const lore_encoder_config *config,
                                      lore_tokenizer *tokenizer, lore_error *err)
{
    int32_t prefix = 0, suffix = 0;
    lore_tokenizer_prefix(tokenizer, &prefix);
    lore_tokenizer_suffix(tokenizer, &suffix);
    lore_status status = lore_tokenizer_limit(tokenizer, config->vocab, folder, err);
    if (status != LORE_OK) {
        return status;
    }
    if (prefix + suffix >= config->tokens_max) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "model folder '%s': %d special tokens leave no room in %d tokens", folder,
                         prefix + suffix, config->tokens_max);
    }
    return LORE_OK;
}

/* ---- the fingerprint ---- */

static lore_status hash_weights(lore_sha256 *sha, const lore_weights *weights, lore_error *err)
{
    char hex[65];
    lore_status status = lore_weights_fingerprint(weights, hex, err);
    if (status == LORE_OK) {
        lore_sha256_update(sha, lore_str_from(hex));
    }
    return status;
}

/* Settings that the first encoders did not have count only where they are used, so that data
 * folders of before stay valid. */
static void hash_settings(lore_sha256 *sha, const lore_encoder_config *c)
{
    char text[LORE_PROMPT_CAP + 128];
    snprintf(text, sizeof text, "pooling %d normalised %d tokens %d", (int)c->pooling,
             (int)c->is_normalised, (int)c->tokens_max);
    lore_sha256_update(sha, lore_str_from(text));
    if (c->rope[0].dim > 0) {
        snprintf(text, sizeof text, " rope %d %.17g %.17g window %d every %d", (int)c->rope[0].kind,
                 c->rope[0].theta, c->rope[1].theta, (int)c->window, (int)c->global_every);
        lore_sha256_update(sha, lore_str_from(text));
    }
    for (int i = 0; i < 2 && c->rope[i].dim > 0; i++) {
        if (c->rope[i].kind != LORE_ROPE_PLAIN) {
            snprintf(text, sizeof text, " scaled %.17g from %d by %.17g", c->rope[i].factor,
                     (int)c->rope[i].original, (double)c->rope[i].scale);
            lore_sha256_update(sha, lore_str_from(text));
        }
    }
    if (c->dimensions > 0) {
        snprintf(text, sizeof text, " dimensions %d", (int)c->dimensions);
        lore_sha256_update(sha, lore_str_from(text));
    }
    for (int32_t i = 0; i < c->dense_count; i++) {
        snprintf(text, sizeof text, " dense %d", (int)c->dense[i].activation);
        lore_sha256_update(sha, lore_str_from(text));
    }
    if (c->document_prompt[0] != '\0') {
        snprintf(text, sizeof text, " before documents %s", c->document_prompt);
        lore_sha256_update(sha, lore_str_from(text));
    }
}

lore_status lore_encoder_fingerprint(const char *folder, const lore_limits *limits,
                                     const lore_encoder_config *config, const lore_weights *weights,
                                     lore_weights *const *dense_weights, char hex[65],
                                     lore_error *err)
{
    lore_sha256 sha;
    uint8_t digest[32];
    lore_sha256_init(&sha);
    lore_status status = hash_weights(&sha, weights, err);
    if (status == LORE_OK) {
        status = lore_tokenizer_hash(folder, limits, &sha, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    hash_settings(&sha, config);
    for (int32_t i = 0; i < config->dense_count && status == LORE_OK; i++) {
        status = hash_weights(&sha, dense_weights[i], err);
    }
    lore_sha256_final(&sha, digest);
    lore_sha256_hex(digest, hex);
    return status;
}
