/* What is missing is named with what to do, one process writes at a time, and an app that fails to
 * open has closed what it had. */
#include "api/app.h"

#include "base/file.h"
#include "tests/check.h"

#include <sys/stat.h>
#include <unistd.h>

static lore_config config;

static void set_text(char *field, size_t cap, const char *text)
{
    snprintf(field, cap, "%s", text);
}

static void use_defaults(void)
{
    lore_config_default(&config);
    snprintf(config.data, sizeof config.data, "%s/data", check_temp_dir());
    snprintf(config.encoder, sizeof config.encoder, "%s/weights/encoder", LORE_SOURCE_DIR);
    snprintf(config.decoder, sizeof config.decoder, "none");
    snprintf(config.prompts, sizeof config.prompts, "%s/prompts", LORE_SOURCE_DIR);
    set_text(config.device, sizeof config.device, "cpu"); /* also where there is a GPU */
    config.threads = 1;
}

TEST(devices)
{
    lore_error err;
    lore_backend_options options = {0};
    use_defaults();
    set_text(config.device, sizeof config.device, "cpu");
    CHECK_OK(lore_app_device(&config, &options, &err), &err);
    CHECK_INT(options.kind, LORE_BACKEND_CPU);
    set_text(config.device, sizeof config.device, "ref");
    CHECK_OK(lore_app_device(&config, &options, &err), &err);
    CHECK_INT(options.kind, LORE_BACKEND_REF);
    static const char *const BAD[] = {"gpu", "cuda:x", "cudax", "", "cuda:-1"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        set_text(config.device, sizeof config.device, BAD[i]);
        CHECK_FAILS(lore_app_device(&config, &options, &err), LORE_ERR_INVALID, &err, "device");
    }
    set_text(config.device, sizeof config.device, "cuda:99");
    CHECK_OK(lore_app_device(&config, &options, &err), &err);
    CHECK_INT(options.kind, LORE_BACKEND_CUDA);
    CHECK_INT(options.device, 99);
    set_text(config.device, sizeof config.device, "cpu");
    set_text(config.precision, sizeof config.precision, "f12");
    CHECK_FAILS(lore_app_device(&config, &options, &err), LORE_ERR_INVALID, &err, "precision");
}

static int lines; /* of the log, about a GPU that is not there */

static void count_lines(void *self, const char *line)
{
    (void)self;
    lines += strstr(line, "event=no_gpu") != NULL;
}

/* auto takes a GPU if there is one; else the processor, and one line says why where this lore could
 * have used one. int8 is the processor's. */
TEST(auto_takes_what_there_is)
{
    lore_error err;
    lore_app app;
    lore_backend_options options = {0};
    const lore_backend_kind found =
        lore_backend_cuda_count() > 0 ? LORE_BACKEND_CUDA : LORE_BACKEND_CPU;
    const int lines_for_none = lore_backend_has_cuda() ? 1 : 0;
    use_defaults();
    set_text(config.device, sizeof config.device, "auto");
    lore_log_set_level(LORE_LOG_INFO);
    lore_log_set_sink(count_lines, NULL);
    CHECK_OK(lore_app_device(&config, &options, &err), &err);
    CHECK_INT(options.kind, found);
    CHECK_INT(lines, found == LORE_BACKEND_CUDA ? 0 : lines_for_none);
    lines = 0;
    const lore_app_needs needs = {.engine = true, .embedder = true};
    CHECK_OK(lore_app_open(&config, needs, &app, &err), &err);
    CHECK(app.is_on_gpu == (found == LORE_BACKEND_CUDA));
    CHECK((app.encode_backend != NULL) == app.is_on_gpu);
    CHECK_INT(lines, found == LORE_BACKEND_CUDA ? 0 : lines_for_none);
    lore_app_close(&app);
    lines = 0;
    set_text(config.precision, sizeof config.precision, "int8");
    CHECK_OK(lore_app_device(&config, &options, &err), &err);
    CHECK_INT(options.kind, LORE_BACKEND_CPU);
    CHECK_INT(lines, lines_for_none);
    lore_log_set_sink(NULL, NULL);
}

/* A GPU that was asked for and cannot be used is an error that names it. */
TEST(no_such_gpu)
{
    lore_error err;
    lore_app app;
    lore_backend *backend = NULL;
    use_defaults();
    set_text(config.device, sizeof config.device, "cuda:99");
    CHECK(lore_app_open_device(&config, NULL, &backend, &err) != LORE_OK);
    CHECK(strncmp(err.message, "device cuda:99: ", 16) == 0);
    printf("%s\n", err.message);
    CHECK(lore_app_open(&config, (lore_app_needs){.engine = true}, &app, &err) != LORE_OK);
    CHECK(strncmp(err.message, "device cuda:99: ", 16) == 0);
    CHECK(lore_app_open(&config, (lore_app_needs){.embedder = true}, &app, &err) != LORE_OK);
    CHECK(strncmp(err.message, "device cuda:99: ", 16) == 0);
}

TEST(what_is_missing_is_named)
{
    lore_error err;
    lore_app app;
    use_defaults();
    CHECK_FAILS(lore_app_open(&config, (lore_app_needs){.index = true}, &app, &err),
                LORE_ERR_NOT_FOUND, &err, "run `lore ingest PATH` first");
    CHECK(app.pool == NULL);
    set_text(config.encoder, sizeof config.encoder, "/nowhere");
    CHECK_FAILS(lore_app_open(&config, (lore_app_needs){.embedder = true}, &app, &err),
                LORE_ERR_NOT_FOUND, &err, "/nowhere");
    set_text(config.decoder, sizeof config.decoder, "/neither");
    CHECK_FAILS(lore_app_open(&config, (lore_app_needs){.engine = true}, &app, &err),
                LORE_ERR_NOT_FOUND, &err, "/neither");
    set_text(config.decoder, sizeof config.decoder, "none");
    set_text(config.prompts, sizeof config.prompts, check_temp_dir());
    CHECK_FAILS(lore_app_open(&config, (lore_app_needs){.engine = true}, &app, &err),
                LORE_ERR_NOT_FOUND, &err, "prompt");
    lore_app_close(&app);
}

/* One process writes to a folder; its app has the writer, and a service's also the rest. */
TEST(one_writer)
{
    lore_error err;
    lore_app app, second;
    lore_writer *writer = NULL;
    const lore_app_needs needs = {.index = true, .index_writer = true, .service = true};
    use_defaults();
    CHECK_OK(lore_app_open(&config, needs, &app, &err), &err);
    CHECK(app.writer != NULL && app.background != NULL && app.log != NULL);
    CHECK_OK(lore_app_writer(&app, &writer, &err), &err);
    lore_change change = {.kind = LORE_CHANGE_CREATE_COLLECTION, .collection = LORE_STR("more")};
    CHECK_OK(lore_writer_apply_one(writer, &change, NULL, &err), &err);
    CHECK_FAILS(lore_app_open(&config, needs, &second, &err), LORE_ERR_BUSY, &err, "");
    CHECK_OK(lore_app_open(&config, (lore_app_needs){.index = true}, &second, &err), &err);
    CHECK(second.writer == NULL);
    lore_app_close(&second);
    lore_app_close(&app);
    config.request_log_rows = 0;
    CHECK_OK(lore_app_open(&config, needs, &app, &err), &err);
    CHECK(app.log == NULL);
    lore_app_close(&app);
}

/* A service reads what it may not write, and says so to writers; other commands fail. */
TEST(read_only_folder)
{
    lore_error err;
    lore_app app;
    lore_writer *writer = NULL;
    use_defaults();
    snprintf(config.data, sizeof config.data, "%s/read-only", check_temp_dir());
    const lore_app_needs needs = {.index = true, .index_writer = true};
    CHECK_OK(lore_app_open(&config, needs, &app, &err), &err);
    lore_app_close(&app);
    CHECK(chmod(config.data, 0555) == 0);
    if (access(config.data, W_OK) == 0) {
        chmod(config.data, 0755);
        CHECK_SKIP("this user may write everywhere");
    }
    lore_status status = lore_app_open(&config, needs, &app, &err);
    lore_app service;
    lore_error why;
    lore_status served = lore_app_open(
        &config, (lore_app_needs){.index = true, .index_writer = true, .service = true}, &service,
        &why);
    chmod(config.data, 0755);
    CHECK(status != LORE_OK);
    CHECK_OK(served, &why);
    CHECK_FAILS(lore_app_writer(&service, &writer, &err), LORE_ERR_UNSUPPORTED, &err, "read-only");
    CHECK(service.log == NULL);
    lore_app_close(&service);
}

static bool is_asked_twice(void *self)
{
    return ++*(int *)self >= 2;
}

/* Large documents share the bytes of one file, or go alone; small ones never wait. */
TEST(large_documents_share_room)
{
    enum { MIB = 1024 * 1024 };
    lore_error err;
    lore_app app;
    int asked = 0;
    use_defaults();
    config.limits.file_bytes_max = 8 * MIB;
    CHECK_OK(lore_app_open(&config, (lore_app_needs){.prompts = true}, &app, &err), &err);
    CHECK(app.prompt_count > 0);
    CHECK_OK(lore_app_begin_document(&app, 20 * MIB, is_asked_twice, &asked, &err), &err);
    CHECK_FAILS(lore_app_begin_document(&app, 2 * MIB, is_asked_twice, &asked, &err),
                LORE_ERR_CANCELLED, &err, "");
    CHECK_INT(asked, 2);
    CHECK_OK(lore_app_begin_document(&app, MIB, is_asked_twice, &asked, &err), &err);
    lore_app_end_document(&app, MIB);
    lore_app_end_document(&app, 20 * MIB);
    CHECK_OK(lore_app_begin_document(&app, 5 * MIB, is_asked_twice, &asked, &err), &err);
    CHECK_OK(lore_app_begin_document(&app, 3 * MIB, is_asked_twice, &asked, &err), &err);
    CHECK_FAILS(lore_app_begin_document(&app, 2 * MIB, is_asked_twice, &asked, &err),
                LORE_ERR_CANCELLED, &err, "");
    lore_app_end_document(&app, 3 * MIB);
    lore_app_end_document(&app, 5 * MIB);
    CHECK_INT(app.large_bytes, 0);
    lore_app_close(&app);
}

static lore_status open_once(void *self)
{
    lore_error err;
    lore_app app;
    (void)self;
    lore_status status =
        lore_app_open(&config, (lore_app_needs){.index = true, .engine = true}, &app, &err);
    lore_app_close(&app);
    return status;
}

TEST(every_allocation_may_fail)
{
    lore_error err;
    lore_app app;
    use_defaults();
    CHECK_OK(
        lore_app_open(&config, (lore_app_needs){.index = true, .index_writer = true}, &app, &err),
        &err);
    lore_app_close(&app);
    check_alloc_sweep(open_once, NULL);
}

CHECK_MAIN(devices, auto_takes_what_there_is, no_such_gpu, what_is_missing_is_named, one_writer,
           read_only_folder, large_documents_share_room, every_allocation_may_fail)
