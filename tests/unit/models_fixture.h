/* What the tests of models/ share: limits, a backend with its pool, files of the golden folder. */
#ifndef LORE_TESTS_MODELS_FIXTURE_H
#define LORE_TESTS_MODELS_FIXTURE_H

#include "tests/check.h"

#include "base/file.h"
#include "base/json.h"
#include "kernels/backend.h"
#include "models/weights.h"

#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN LORE_SOURCE_DIR "/tests/golden/models"
#define SHARED LORE_SOURCE_DIR "/../shared"

static const lore_limits LIMITS = {.model_file_bytes_max = 1 << 30,
                                   .model_header_bytes_max = 1 << 20,
                                   .model_json_bytes_max = 64 << 20,
                                   .encoder_tokens_max = 8192,
                                   .batch_sequences_max = 8,
                                   .step_tokens_max = 512,
                                   .kv_bytes_max = 64 << 20};

typedef struct fixture {
    lore_pool *pool;
    lore_backend *backend;
} fixture;

/* Open a backend on all cores; skips the case where this machine cannot. */
CHECK_UNUSED static fixture fixture_open(lore_backend_kind kind, lore_precision precision)
{
    lore_error err = {0};
    fixture f = {0};
    if (kind == LORE_BACKEND_CUDA && lore_backend_cuda_count() == 0) {
        CHECK_SKIP("no CUDA device here, or built without CUDA");
    }
    CHECK_OK(lore_pool_new(0, &f.pool, &err), &err);
    lore_backend_options options = {.kind = kind, .pool = f.pool, .precision = precision};
    lore_status status = lore_backend_open(&options, &f.backend, &err);
    if (status == LORE_ERR_UNSUPPORTED) {
        lore_pool_free(f.pool);
        CHECK_SKIP(err.message);
    }
    CHECK_OK(status, &err);
    return f;
}

CHECK_UNUSED static void fixture_close(fixture *f)
{
    lore_backend_close(f->backend);
    lore_pool_free(f->pool);
}

CHECK_UNUSED static lore_json *read_json(const char *path)
{
    lore_error err = {0};
    lore_buf text;
    lore_json *root = NULL;
    lore_buf_init(&text, 0);
    CHECK_OK(lore_file_read(path, 64 << 20, &text, &err), &err);
    CHECK_OK(lore_json_parse(lore_buf_str(&text), 16, &root, &err), &err);
    lore_buf_destroy(&text);
    return root;
}

/* Write folder/name; the folder is made. */
CHECK_UNUSED static void write_file(const char *folder, const char *name, lore_str content)
{
    char path[512];
    lore_error err = {0};
    CHECK_OK(lore_dir_make(folder, &err), &err);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(lore_file_replace(path, content, &err), &err);
}

/* Make folder/name a link to a file of a folder under weights/. */
CHECK_UNUSED static void link_file(const char *folder, const char *name, const char *model)
{
    char from[512], to[512];
    snprintf(from, sizeof from, LORE_SOURCE_DIR "/weights/%s/%s", model, name);
    snprintf(to, sizeof to, "%s/%s", folder, name);
    CHECK(symlink(from, to) == 0);
}

#endif
