/* Percentiles are times that were measured, numbers keep four digits, the table and the JSON object
 * say the same, and a lost sample or an empty run is an error and no figure. */
#include "base/config.h"
#include "bench/bench_report.h"

#include "tests/check.h"

static lore_bench_samples samples_of(const double *values, int32_t count)
{
    lore_bench_samples samples = {0};
    for (int32_t i = 0; i < count; i++) {
        lore_bench_sample(&samples, values[i]);
    }
    return samples;
}

TEST(percentiles)
{
    static const double VALUES[] = {5, 1, 4, 2, 3};
    lore_error err;
    lore_bench_samples samples = samples_of(VALUES, 5);
    CHECK_OK(lore_bench_samples_check(&samples, "five", &err), &err);
    CHECK_NEAR(lore_bench_percentile(&samples, 50), 3, 0);
    CHECK_NEAR(lore_bench_percentile(&samples, 60), 3, 0);
    CHECK_NEAR(lore_bench_percentile(&samples, 61), 4, 0);
    CHECK_NEAR(lore_bench_percentile(&samples, 99), 5, 0);
    CHECK_NEAR(lore_bench_percentile(&samples, 100), 5, 0);
    CHECK_NEAR(lore_bench_percentile(&samples, 0), 1, 0);
    lore_bench_samples_destroy(&samples);
}

TEST(many_samples)
{
    lore_error err;
    lore_bench_samples samples = {0};
    for (int32_t i = 0; i < 10000; i++) {
        lore_bench_sample(&samples, (double)((i * 7919) % 10000));
    }
    CHECK_OK(lore_bench_samples_check(&samples, "many", &err), &err);
    CHECK_INT(samples.count, 10000);
    CHECK_NEAR(lore_bench_percentile(&samples, 50), 4999, 0);
    CHECK_NEAR(lore_bench_percentile(&samples, 99), 9899, 0);
    lore_bench_samples_destroy(&samples);
}

TEST(no_samples_and_lost_samples)
{
    lore_error err;
    lore_bench_samples samples = {0};
    CHECK_FAILS(lore_bench_samples_check(&samples, "nothing", &err), LORE_ERR_INVALID, &err,
                "nothing");
    lore_mem_fail_at(1, false);
    lore_bench_sample(&samples, 1.0);
    lore_mem_fail_at(0, false);
    lore_bench_sample(&samples, 2.0);
    CHECK_FAILS(lore_bench_samples_check(&samples, "a run", &err), LORE_ERR_NOMEM, &err, "a run");
    lore_bench_samples_destroy(&samples);
}

static void check_number(double value, const char *expected)
{
    char out[32];
    lore_bench_number(value, out);
    CHECK_STR(lore_str_from(out), expected);
}

TEST(numbers)
{
    check_number(0.0, "0");
    check_number(0.0123456, "0.01235");
    check_number(0.5, "0.5000");
    check_number(1.0, "1.000");
    check_number(12.345, "12.35");
    check_number(999.4, "999.4");
    check_number(999.6, "1000");
    check_number(123456.7, "123457");
    check_number(-2.5, "-2.500");
}

static void fill_report(lore_bench_report *report)
{
    static const double VALUES[] = {1.0, 2.0, 30.0};
    lore_error err;
    lore_bench_samples samples = samples_of(VALUES, 3);
    CHECK_OK(lore_bench_samples_check(&samples, "three", &err), &err);
    lore_bench_report_section(report, "decode", "a model");
    lore_bench_report_figure(report,
                             &(lore_bench_figure){"1 stream", 123.4, "tok/s", 0.5, "of read", 9});
    lore_bench_report_figure(report, &(lore_bench_figure){.name = "count", .value = 7, .unit = ""});
    lore_bench_report_section(report, "search", "a \"folder\"");
    lore_bench_report_times(report, "dense", "ms", &samples);
    lore_bench_samples_destroy(&samples);
}

TEST(one_object)
{
    lore_buf json;
    lore_bench_report report;
    lore_buf_init(&json, 0);
    lore_bench_report_begin(&report, NULL, &json);
    fill_report(&report);
    lore_bench_report_end(&report);
    CHECK_STR(
        lore_buf_str(&json),
        "{\"object\":\"lore.bench\",\"version\":\"" LORE_VERSION "\",\"decode\":["
        "{\"name\":\"1 stream\",\"value\":123.4,\"unit\":\"tok/s\",\"share\":0.5,"
        "\"limit\":\"of read\",\"samples\":9},{\"name\":\"count\",\"value\":7,\"unit\":\"\"}],"
        "\"search\":[{\"name\":\"dense\",\"p50\":2,\"p90\":30,\"p99\":30,\"unit\":\"ms\","
        "\"samples\":3}]}");
    lore_buf_destroy(&json);
}

TEST(json_without_sections_is_an_object)
{
    lore_buf json;
    lore_bench_report report;
    lore_buf_init(&json, 0);
    lore_bench_report_begin(&report, NULL, &json);
    lore_bench_report_end(&report);
    CHECK_STR(lore_buf_str(&json), "{\"object\":\"lore.bench\",\"version\":\"" LORE_VERSION "\"}");
    lore_buf_destroy(&json);
}

TEST(table)
{
    char text[2048] = "";
    lore_bench_report report;
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out != NULL);
    lore_bench_report_begin(&report, out, NULL);
    fill_report(&report);
    lore_bench_report_end(&report);
    CHECK_INT(fclose(out), 0);
    CHECK(strncmp(text, "decode: a model\n", 16) == 0);
    CHECK(strstr(text, " 123.4 tok/s       50.0 % of read\n") != NULL);
    CHECK(strstr(text, "\n\nsearch: a \"folder\"\n") != NULL);
    CHECK(strstr(text, " p50 2.000    p90 30.00    p99 30.00    ms of 3\n") != NULL);
}

/* The median, its spread, and how far it is from the floor, where there is one. */
TEST(medians)
{
    static const double VALUES[] = {9.0, 2.0, 4.0, 3.0, 5.0};
    lore_error err;
    lore_bench_samples samples = samples_of(VALUES, 5);
    lore_bench_report report;
    lore_buf json;
    char text[512] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out != NULL);
    CHECK_OK(lore_bench_samples_check(&samples, "five", &err), &err);
    lore_bench_report_begin(&report, out, NULL);
    lore_bench_report_median(&report, "a step", "ms", &samples, 2.0);
    lore_bench_report_median(&report, "a start", "ms", &samples, 0.0);
    lore_bench_report_end(&report);
    CHECK_INT(fclose(out), 0);
    CHECK(strstr(text, " 4.000 ms         (2.000 to 9.000)  2.00x of the floor, 2.000\n") != NULL);
    CHECK(strstr(text, " 4.000 ms         (2.000 to 9.000)\n") != NULL);
    lore_buf_init(&json, 0);
    lore_bench_report_begin(&report, NULL, &json);
    lore_bench_report_section(&report, "decode", "a model");
    lore_bench_report_median(&report, "a step", "ms", &samples, 2.0);
    lore_bench_report_end(&report);
    CHECK(lore_str_find(lore_buf_str(&json),
                        LORE_STR("{\"name\":\"a step\",\"value\":4,\"p10\":2,\"p90\":9,\"unit\":"
                                 "\"ms\",\"floor\":2,\"ratio\":2,\"samples\":5}"),
                        0) != SIZE_MAX);
    lore_buf_destroy(&json);
    lore_bench_samples_destroy(&samples);
}

CHECK_MAIN(medians, percentiles, many_samples, no_samples_and_lost_samples, numbers, one_object,
           json_without_sections_is_an_object, table)
