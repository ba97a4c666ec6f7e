/* Fuzz target of the configuration file.
 *
 * Property: bytes are a configuration or refused with a message that names the file, and then
 * nothing has changed. Every setting of what is taken is within the bounds of its row, and what
 * `lore config` prints of it reads back as the same configuration. */
#include "base/config_int.h"
#include "tests/fuzz/fuzz.h"

static void check_bounds(const lore_config *config)
{
    size_t count = 0;
    const lore_setting *settings = lore_settings(&count);
    for (size_t i = 0; i < count; i++) {
        const lore_setting *s = &settings[i];
        const void *field = (const char *)config + s->offset;
        if (s->kind == LORE_SETTING_INTEGER) {
            LORE_ASSERT(*(const int64_t *)field >= s->integer_min);
            LORE_ASSERT(*(const int64_t *)field <= s->integer_max);
        } else if (s->kind == LORE_SETTING_NUMBER) {
            LORE_ASSERT(*(const double *)field >= s->number_min);
            LORE_ASSERT(*(const double *)field <= s->number_max);
        } else if (s->kind == LORE_SETTING_TEXT) {
            LORE_ASSERT(memchr(field, '\0', s->cap) != NULL);
        }
    }
}

static void print(const lore_config *config, lore_buf *out)
{
    lore_buf_init(out, 0);
    lore_config_print(config, false, out);
    LORE_ASSERT(!lore_buf_failed(out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lore_config defaults;
    if (defaults.top_k == 0) {
        lore_config_default(&defaults);
    }
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_config config = defaults, again = defaults;
    lore_error err = {.status = LORE_OK};
    lore_str text = {(const char *)data, size};
    lore_status status = lore_config_parse(&config, text, "lore.conf", &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strncmp(err.message, "lore.conf: ", 11) == 0);
        LORE_ASSERT(memcmp(&config, &defaults, sizeof config) == 0);
    } else {
        lore_buf first, second;
        check_bounds(&config);
        print(&config, &first);
        status = lore_config_parse(&again, lore_buf_str(&first), "print", &err);
        LORE_ASSERT(status == LORE_OK);
        print(&again, &second);
        LORE_ASSERT(lore_str_equal(lore_buf_str(&first), lore_buf_str(&second)));
        lore_buf_destroy(&first);
        lore_buf_destroy(&second);
        status = lore_config_check(&config, &err);
        if (status != LORE_OK) {
            fuzz_check_refusal(status, &err);
        }
    }
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
