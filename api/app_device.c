/* Where the networks compute: what the word of the configuration means on this machine. */
#include "api/app_int.h"

#include <string.h>

static lore_status parse_precision(const char *name, lore_precision *precision, lore_error *err)
{
    static const char *const NAMES[] = {"auto", "f32", "bf16", "int8"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (strcmp(name, NAMES[i]) == 0) {
            *precision = (lore_precision)i; /* the enum is in this order */
            return LORE_OK;
        }
    }
    return lore_fail(err, LORE_ERR_INVALID, "precision '%s' must be auto, f32, bf16 or int8", name);
}

/* "cuda" is device 0, "cuda:N" device N. */
static lore_status parse_cuda(const char *name, lore_backend_options *options, lore_error *err)
{
    int64_t device = 0;
    if (name[4] == ':' && (!lore_str_to_int64(lore_str_from(name + 5), &device) || device < 0)) {
        return lore_fail(err, LORE_ERR_INVALID, "device '%s' must be cuda or cuda:N", name);
    }
    if (device > INT32_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "device '%s' does not exist", name);
    }
    options->kind = LORE_BACKEND_CUDA;
    options->device = (int32_t)device;
    return LORE_OK;
}

bool lore_app_is_auto(const lore_config *config)
{
    return strcmp(config->device, "auto") == 0;
}

lore_status lore_app_parse_device(const lore_config *config, lore_backend_options *options,
                                  lore_error *err)
{
    const char *name = config->device;
    lore_status status = parse_precision(config->precision, &options->precision, err);
    if (status != LORE_OK) {
        return status;
    }
    options->device = 0;
    if (lore_app_is_auto(config)) {
        options->kind = lore_backend_has_cuda() ? LORE_BACKEND_CUDA : LORE_BACKEND_CPU;
        return LORE_OK;
    }
    if (strcmp(name, "cpu") == 0 || strcmp(name, "ref") == 0) {
        options->kind = strcmp(name, "cpu") == 0 ? LORE_BACKEND_CPU : LORE_BACKEND_REF;
        return LORE_OK;
    }
    if (strncmp(name, "cuda", 4) == 0 && (name[4] == '\0' || name[4] == ':')) {
        return parse_cuda(name, options, err);
    }
    return lore_fail(err, LORE_ERR_INVALID, "device '%s' must be auto, ref, cpu, cuda or cuda:N",
                     name);
}

static void tell_missing_library(const lore_backend *backend)
{
    const char *facts = lore_backend_describe(backend);
    if (strstr(facts, "without cuBLASLt") != NULL) {
        lore_log(LORE_LOG_WARN,
                 "event=no_cublaslt device=%s effect=\"prompts are read slowly\" "
                 "help=\"install libcublasLt.so.13 of CUDA 13\"",
                 LORE_LOG_STR(lore_str_from(facts)));
    }
}

lore_status lore_app_open_device(const lore_config *config, lore_pool *pool, lore_backend **backend,
                                 lore_error *err)
{
    lore_error why;
    lore_backend_options options = {0};
    lore_status status = lore_app_parse_device(config, &options, err);
    if (status != LORE_OK) {
        return status;
    }
    options.pool = pool;
    status = lore_backend_open(&options, backend, &why);
    if (status != LORE_OK && options.kind == LORE_BACKEND_CUDA && lore_app_is_auto(config)) {
        /* A machine without a GPU is as it should be; one that cannot use its GPU is not. */
        lore_log(status == LORE_ERR_NOT_FOUND ? LORE_LOG_INFO : LORE_LOG_WARN,
                 "event=no_gpu reason=%s effect=\"on the processor\"",
                 LORE_LOG_STR(lore_str_from(why.message)));
        options.kind = LORE_BACKEND_CPU;
        status = lore_backend_open(&options, backend, &why);
    }
    if (status != LORE_OK) {
        return lore_fail(err, status, "device %s: %s", config->device, why.message);
    }
    tell_missing_library(*backend);
    return LORE_OK;
}

lore_status lore_app_device(const lore_config *config, lore_backend_options *options,
                            lore_error *err)
{
    lore_backend *opened = NULL;
    lore_status status = lore_app_parse_device(config, options, err);
    if (status == LORE_OK && lore_app_is_auto(config)) {
        status = lore_app_open_device(config, NULL, &opened, err);
    }
    if (opened != NULL) {
        options->kind = lore_backend_get_kind(opened);
        lore_backend_close(opened);
    }
    return status;
}
