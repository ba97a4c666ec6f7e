/* quantization_config of a config.json: which writer, and the few numbers that its tensors do not
 * show.
 *
 * Which modules are quantised and how (targets, ignore, modules_to_not_convert, dynamic) is not
 * read: the tensors themselves show it, by their names and shapes. What would change the
 * computation and shows nowhere else (sparse masks, rotations, other layouts under the same names)
 * is refused by name. Activations are quantised by the backend as it likes, so what the file says
 * of theirs is passed over. */
#include "models/quantized_int.h"

#include <string.h>

#define PATH "quantization_config"

enum { GROUP_MAX = 1 << 20 };

static lore_status refuse(lore_error *err, const char *key, lore_str value)
{
    return lore_fail(err, LORE_ERR_UNSUPPORTED, PATH ".%s '" LORE_STR_FMT "' is not supported", key,
                     LORE_STR_ARG(lore_str_slice(value, 0, value.len < 64 ? value.len : 64)));
}

/* A text that must be one of the listed ones (ASCII case does not matter); absent is fine. */
static lore_status need_one_of(const lore_json *object, const char *key, const char *const *known,
                               int32_t count, lore_str *value, lore_error *err)
{
    lore_status status = lore_json_get_str(object, PATH, key, value, err);
    if (status != LORE_OK || value->len == 0) {
        return status;
    }
    for (int32_t i = 0; i < count; i++) {
        if (lore_str_equal_nocase(*value, lore_str_from(known[i]))) {
            return LORE_OK;
        }
    }
    return refuse(err, key, *value);
}

/* -1 and absent: one scale a row. */
static lore_status read_group(const lore_json *object, const char *key, int32_t *group,
                              lore_error *err)
{
    int64_t value = *group == 0 ? -1 : *group;
    lore_status status = lore_json_get_int(object, PATH, key, -1, GROUP_MAX, &value, err);
    if (status == LORE_OK && value == 0) {
        return lore_fail(err, LORE_ERR_CORRUPT, PATH ".%s must not be 0", key);
    }
    *group = value < 0 ? 0 : (int32_t)value;
    return status;
}

static lore_status read_bits(const lore_json *object, const char *key, bool may_be_8, int32_t *bits,
                             lore_error *err)
{
    int64_t value = *bits;
    lore_status status = lore_json_get_int(object, PATH, key, 1, 64, &value, err);
    if (status == LORE_OK && value != 4 && !(may_be_8 && value == 8)) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         PATH ".%s: %d bits are not supported, 4%s bits are", key, (int)value,
                         may_be_8 ? " and 8" : "");
    }
    *bits = (int32_t)value;
    return status;
}

/* ---- GPTQ ---- */

static lore_status read_gptq(const lore_json *object, lore_quantized_config *config,
                             lore_error *err)
{
    static const char *const FORMATS[] = {"gptq", "gptq_v2"};
    static const char *const WORDS[] = {"int32"};
    lore_str format = {NULL, 0}, word = {NULL, 0};
    bool is_marlin = false;
    config->group_count = 1;
    lore_status status = read_bits(object, "bits", true, &config->bits, err);
    if (status == LORE_OK) {
        status = read_group(object, "group_size", &config->groups[0], err);
    }
    if (status == LORE_OK) { /* the second name is that of later writers */
        status = need_one_of(object, "checkpoint_format", FORMATS, 2, &format, err);
    }
    if (status == LORE_OK && format.len == 0) {
        status = need_one_of(object, "format", FORMATS, 2, &format, err);
    }
    if (status == LORE_OK) {
        status = need_one_of(object, "pack_dtype", WORDS, 1, &word, err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(object, PATH, "is_marlin_format", &is_marlin, err);
    }
    if (status == LORE_OK && is_marlin) {
        status = refuse(err, "is_marlin_format", LORE_STR("true"));
    }
    config->is_zero_less_one = !lore_str_equal_nocase(format, LORE_STR("gptq_v2"));
    return status;
}

/* ---- AWQ ---- */

static lore_status read_awq(const lore_json *object, lore_quantized_config *config, lore_error *err)
{
    static const char *const VERSIONS[] = {"gemm"};
    lore_str version = {NULL, 0};
    bool has_zeros = true;
    config->group_count = 1;
    lore_status status = read_bits(object, "w_bit", false, &config->bits, err); /* the older name */
    if (status == LORE_OK) {
        status = read_bits(object, "bits", false, &config->bits, err);
    }
    if (status == LORE_OK) {
        status = read_group(object, "q_group_size", &config->groups[0], err);
    }
    if (status == LORE_OK) {
        status = read_group(object, "group_size", &config->groups[0], err);
    }
    if (status == LORE_OK) {
        status = need_one_of(object, "version", VERSIONS, 1, &version, err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(object, PATH, "zero_point", &has_zeros, err);
    }
    config->is_zero_optional = !has_zeros;
    return status;
}

/* ---- compressed-tensors ---- */

static const char *const COMPRESSED_FORMATS[] = {"dense", "int-quantized", "naive-quantized",
                                                 "pack-quantized", "mixed-precision"};
enum { COMPRESSED_FORMAT_COUNT = sizeof COMPRESSED_FORMATS / sizeof COMPRESSED_FORMATS[0] };

static lore_status read_scheme(const lore_json *scheme, lore_quantized_config *config,
                               lore_error *err)
{
    static const char *const TYPES[] = {"int"};
    static const char *const STRATEGIES[] = {"tensor", "channel", "group"};
    const lore_json *weights = lore_json_get(scheme, "weights");
    lore_str format = {NULL, 0}, type = {NULL, 0}, strategy = {NULL, 0};
    int32_t bits = 8, group = 0;
    lore_status status =
        need_one_of(scheme, "format", COMPRESSED_FORMATS, COMPRESSED_FORMAT_COUNT, &format, err);
    if (status != LORE_OK || weights == NULL || lore_json_is_null(weights)) {
        return status; /* activations only: weights stay as they are */
    }
    if (!lore_json_is_object(weights)) {
        return lore_fail(err, LORE_ERR_CORRUPT, PATH ".config_groups: weights must be an object");
    }
    status = need_one_of(weights, "type", TYPES, 1, &type, err);
    if (status == LORE_OK) {
        status = read_bits(weights, "num_bits", true, &bits, err);
    }
    if (status == LORE_OK) {
        status = need_one_of(weights, "strategy", STRATEGIES, 3, &strategy, err);
    }
    if (status == LORE_OK) {
        status = read_group(weights, "group_size", &group, err);
    }
    if (status == LORE_OK) {
        config->groups[config->group_count++] = group;
    }
    return status;
}

/* Tensors under other names and activations that are rotated on the way: not ours. */
static lore_status check_extras(const lore_json *object, lore_error *err)
{
    static const char *const DENSE[] = {"dense"};
    lore_str format = {NULL, 0};
    const lore_json *sparsity = lore_json_get(object, "sparsity_config");
    const lore_json *transforms =
        lore_json_get(lore_json_get(object, "transform_config"), "config_groups");
    lore_status status = lore_json_is_object(sparsity)
                             ? need_one_of(sparsity, "format", DENSE, 1, &format, err)
                             : LORE_OK;
    if (status == LORE_OK && lore_json_count(transforms) > 0) {
        status = refuse(err, "transform_config", lore_json_key(lore_json_first(transforms)));
    }
    return status;
}

static lore_status read_compressed(const lore_json *object, lore_quantized_config *config,
                                   lore_error *err)
{
    static const char *const STATES[] = {"compressed"};
    lore_str format = {NULL, 0}, state = {NULL, 0};
    const lore_json *schemes = lore_json_get(object, "config_groups");
    lore_status status =
        need_one_of(object, "format", COMPRESSED_FORMATS, COMPRESSED_FORMAT_COUNT, &format, err);
    if (status == LORE_OK) {
        status = need_one_of(object, "quantization_status", STATES, 1, &state, err);
    }
    if (status == LORE_OK) {
        status = check_extras(object, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (!lore_json_is_object(schemes) || lore_json_count(schemes) > LORE_QUANTIZED_SCHEMES_MAX) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         PATH ".config_groups must be an object of at most %d groups",
                         LORE_QUANTIZED_SCHEMES_MAX);
    }
    for (const lore_json *n = lore_json_first(schemes); n != NULL; n = lore_json_next(n)) {
        if (!lore_json_is_object(n)) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             PATH ".config_groups: a group must be an object");
        }
        status = read_scheme(n, config, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

lore_status lore_quantized_config_read(const lore_json *root, lore_quantized_config *config,
                                       lore_error *err)
{
    const lore_json *object = lore_json_get(root, PATH);
    lore_str method = {NULL, 0};
    *config = (lore_quantized_config){.bits = 4};
    if (object == NULL || lore_json_is_null(object)) {
        return LORE_OK;
    }
    if (!lore_json_is_object(object)) {
        return lore_fail(err, LORE_ERR_CORRUPT, PATH " must be an object");
    }
    lore_status status = lore_json_get_str_required(object, PATH, "quant_method", &method, err);
    if (status != LORE_OK) {
        return status;
    }
    if (lore_str_equal(method, LORE_STR("gptq"))) {
        config->method = LORE_QUANTIZED_GPTQ;
        return read_gptq(object, config, err);
    }
    if (lore_str_equal(method, LORE_STR("awq"))) {
        config->method = LORE_QUANTIZED_AWQ;
        return read_awq(object, config, err);
    }
    if (lore_str_equal(method, LORE_STR("compressed-tensors"))) {
        config->method = LORE_QUANTIZED_COMPRESSED;
        return read_compressed(object, config, err);
    }
    return refuse(err, "quant_method", method);
}
