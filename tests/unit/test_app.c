/* What is missing is named with what to do, one writer has the turn at a time, and an app that
 * fails to open has closed what it had. */
#include "api/app.h"

#include "base/clock.h"
#include "base/file.h"
#include "tests/check.h"

static lore_config config;

static void use_defaults(void)
{
    lore_config_default(&config);
    snprintf(config.data, sizeof config.data, "%s/data", check_temp_dir());
    snprintf(config.encoder, sizeof config.encoder, "%s/weights/encoder", LORE_SOURCE_DIR);
    snprintf(config.decoder, sizeof config.decoder, "none");
    snprintf(config.prompts, sizeof config.prompts, "%s/prompts", LORE_SOURCE_DIR);
    config.threads = 1;
}

static void set_text(char *field, size_t cap, const char *text)
{
    snprintf(field, cap, "%s", text);
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
    CHECK_FAILS(lore_app_device(&config, &options, &err), LORE_ERR_UNSUPPORTED, &err, "cuda:99");
    set_text(config.device, sizeof config.device, "cpu");
    set_text(config.precision, sizeof config.precision, "f12");
    CHECK_FAILS(lore_app_device(&config, &options, &err), LORE_ERR_INVALID, &err, "precision");
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

TEST(writers_take_turns)
{
    lore_error err;
    lore_app app;
    bool found = true;
    use_defaults();
    CHECK_OK(
        lore_app_open(&config, (lore_app_needs){.index = true, .index_writer = true}, &app, &err),
        &err);
    CHECK_OK(lore_app_begin_write(&app, lore_clock_ns(), &err), &err);
    CHECK_FAILS(lore_app_begin_write(&app, lore_clock_ns() + 1000000, &err), LORE_ERR_TIMEOUT, &err,
                "writers");
    CHECK_OK(lore_app_publish(&app, 0, &err), &err); /* not while somebody writes */
    CHECK_OK(lore_app_delete_document(&app, LORE_STR("default"), LORE_STR("none"), &found, &err),
             &err);
    CHECK(!found);
    lore_app_end_write(&app);
    CHECK(app.is_dirty);
    CHECK_OK(lore_app_publish(&app, 3600000, &err), &err); /* too soon */
    CHECK(app.is_dirty);
    CHECK_OK(lore_app_publish(&app, 0, &err), &err);
    CHECK(!app.is_dirty);
    CHECK_OK(lore_app_begin_write(&app, lore_clock_ns(), &err), &err);
    lore_app_end_write(&app);
    lore_app second;
    CHECK_FAILS(lore_app_open(&config, (lore_app_needs){.index = true, .index_writer = true},
                              &second, &err),
                LORE_ERR_BUSY, &err, "");
    lore_app_close(&app);
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

CHECK_MAIN(devices, what_is_missing_is_named, writers_take_turns, large_documents_share_room,
           every_allocation_may_fail)
