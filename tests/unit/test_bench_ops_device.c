/* The op benchmark of a device, on the processor: of each kind of case the smallest gives a line
 * with a time, as a table and as JSON, and what is not asked for gives none. */
#include "bench/bench_ops_device.h"

#include "base/json.h"
#include "tests/check.h"

static char text[16384];

static int32_t run(const char *only, bool is_json)
{
    lore_error err;
    int32_t lines = 0;
    memset(text, 0, sizeof text);
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out != NULL);
    const lore_bench_ops_device_options options = {
        .device = {.kind = LORE_BACKEND_CPU, .precision = LORE_PRECISION_BF16},
        .read_rate = 1e10,
        .multiply_rate = 1e11,
        .case_ms = 1,
        .only = only,
        .is_json = is_json,
        .out = out};
    CHECK_OK(lore_bench_ops_device(&options, &err), &err);
    CHECK_INT(fclose(out), 0);
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) {
        lines++;
    }
    return lines;
}

/* "32:8x64" names an attention over pages of one step and one of a prompt. */
TEST(each_kind)
{
    static const char *const ONE[] = {"1B out 1x",
                                      "decode 1 at 512, 32:8x64",
                                      "rmsnorm 1x4096",
                                      "glu 1x",
                                      "sample 1x128256 greedy",
                                      "1B gate_up 1x",
                                      "rope 1,",
                                      "1B qkv 1x"};
    for (size_t i = 0; i < sizeof ONE / sizeof ONE[0]; i++) {
        lore_error err;
        lore_json *root = NULL;
        double median = 0.0;
        CHECK_INT(run(ONE[i], true), 1);
        CHECK_OK(lore_json_parse(lore_str_trim(lore_str_from(text)), 8, &root, &err), &err);
        CHECK_OK(lore_json_get_number(root, "", "median_us", 0.0, 1e12, &median, &err), &err);
        CHECK(median > 0.0);
        CHECK_OK(lore_json_get_number(root, "", "floor_us", 0.0, 1e12, &median, &err), &err);
        CHECK(median > 0.0);
        lore_json_free(root);
    }
}

TEST(table_and_nothing)
{
    CHECK_INT(run("layernorm", false), 1);
    CHECK(strstr(text, " us (") != NULL);
    CHECK_INT(run("no such case", false), 0);
}

CHECK_MAIN(each_kind, table_and_nothing)
