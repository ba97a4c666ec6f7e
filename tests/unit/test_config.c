/* Proves defaults, the precedence chain's parts (file, environment, single keys), that errors name
 * the key and change nothing, and that what is printed reads back as the same configuration. */
#include "tests/check.h"

#include "base/config.h"
#include "base/file.h"

static lore_config config;
static lore_error err;

static lore_status load(const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/config.json", check_temp_dir());
    CHECK_OK(lore_file_replace(path, lore_str_from(text), &err), &err);
    return lore_config_load(&config, path, &err);
}

static lore_status set(const char *key, const char *value)
{
    return lore_config_set(&config, lore_str_from(key), lore_str_from(value), &err);
}

TEST(has_defaults)
{
    lore_config_default(&config);
    CHECK_INT(config.top_k, 5);
    CHECK_INT(config.limits.body_bytes_max, 16 * 1024 * 1024);
    CHECK_INT(config.limits.model_json_bytes_max, 64 * 1024 * 1024);
    CHECK_NEAR(config.fusion_weight, 0.3, 1e-12);
    CHECK_NEAR(config.refuse_below, 0.26, 1e-12);
    CHECK_NEAR(config.guard_ratio, 0.95, 1e-12);
    CHECK(!config.fusion_rrf);
    CHECK_STR(lore_str_from(config.data), "./lore-data");
    CHECK_STR(lore_str_from(config.listen), "127.0.0.1:8080");
    CHECK(lore_str_ends(lore_str_from(config.encoder), LORE_STR("/weights/encoder")));
    CHECK(lore_str_ends(lore_str_from(config.prompts), LORE_STR("/prompts")));
    CHECK_OK(lore_config_check(&config, &err), &err);
}

TEST(sets_single_keys)
{
    lore_config_default(&config);
    CHECK_OK(set("top_k", "7"), &err);
    CHECK_OK(set("limits.question_bytes_max", "100"), &err);
    CHECK_OK(set("limits.vram_bytes_max", "24G"), &err);
    CHECK_OK(set("limits.kv_bytes_max", "1536M"), &err);
    CHECK_OK(set("fusion_weight", "0.75"), &err);
    CHECK_OK(set("fusion_rrf", "yes"), &err);
    CHECK_OK(set("device", "cuda:3"), &err);
    CHECK_OK(set("data", "/tmp/x y"), &err);
    CHECK_INT(config.top_k, 7);
    CHECK_INT(config.limits.question_bytes_max, 100);
    CHECK_INT(config.limits.vram_bytes_max, (int64_t)24 << 30);
    CHECK_INT(config.limits.kv_bytes_max, (int64_t)1536 << 20);
    CHECK_NEAR(config.fusion_weight, 0.75, 0);
    CHECK(config.fusion_rrf);
    CHECK_STR(lore_str_from(config.device), "cuda:3");
    CHECK_STR(lore_str_from(config.data), "/tmp/x y");
}

TEST(refuses_wrong_values)
{
    static const struct {
        const char *key, *value, *message;
    } cases[] = {
        {"nonsense", "1", "unknown setting 'nonsense'"},
        {"limits", "1", "unknown setting 'limits'"},
        {"limits.top_k", "1", "unknown setting 'limits.top_k'"},
        {"top_k", "five", "top_k must be an integer, not 'five'"},
        {"top_k", "0", "top_k must be an integer from 1 to 1000, not 0"},
        {"top_k", "1001", "from 1 to 1000"},
        {"top_k", "", "must be an integer"},
        {"top_k", "1K", "must be an integer, not '1K'"},
        {"limits.vram_bytes_max", "G", "must be an integer, not 'G'"},
        {"limits.vram_bytes_max", "-1G", "must be an integer, not '-1G'"},
        {"limits.vram_bytes_max", "1.5G", "must be an integer, not '1.5G'"},
        {"limits.vram_bytes_max", "24GB", "must be an integer, not '24GB'"},
        {"limits.vram_bytes_max", "9999999999T", "must be an integer"},
        {"limits.vram_bytes_max", "2000G", "from 0 to 1099511627776"},
        {"fusion_weight", "1.5", "fusion_weight must be a number from 0 to 1, not 1.5"},
        {"fusion_weight", "nan", "must be a number"},
        {"fusion_weight", "0x1p-2", "must be a number"},
        {"fusion_weight", "0.5 ", "must be a number"},
        {"fusion_weight", "1e", "must be a number"},
        {"fusion_rrf", "maybe", "fusion_rrf must be true or false"},
        {"device", "gpu", "device must be one of auto|ref|cpu|cuda|cuda:N, not 'gpu'"},
        {"device", "cuda:N", "must be one of"},
        {"device", "cuda:-1", "must be one of"},
        {"device", "cuda:", "must be one of"},
        {"log_level", "loud", "log_level must be one of"},
        {"precision", "f16", "precision must be one of"},
        {"data", "", "data must not be empty"},
    };
    lore_config_default(&config);
    lore_config before = config;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_FAILS(set(cases[i].key, cases[i].value), LORE_ERR_INVALID, &err, cases[i].message);
    }
    char longer[1100];
    memset(longer, 'x', sizeof longer);
    longer[1024] = '\0';
    CHECK_FAILS(set("data", longer), LORE_ERR_LIMIT, &err, "data has more than 1023 bytes");
    CHECK(memcmp(&before, &config, sizeof config) == 0);
    longer[1023] = '\0';
    CHECK_OK(set("data", longer), &err);
}

TEST(loads_files)
{
    lore_config_default(&config);
    CHECK_OK(load("{\"top_k\": 9, \"limits\": {\"top_k_max\": 60}, \"fusion_rrf\": true,"
                  " \"refuse_below\": 0.5, \"decoder\": \"none\"}"),
             &err);
    CHECK_INT(config.top_k, 9);
    CHECK_INT(config.limits.top_k_max, 60);
    CHECK(config.fusion_rrf);
    CHECK_NEAR(config.refuse_below, 0.5, 0);
    CHECK_STR(lore_str_from(config.decoder), "none");
    CHECK_OK(load("{}"), &err);
}

TEST(refuses_wrong_files)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "config.json: invalid JSON at byte 0"},
        {"[]", "must be a JSON object"},
        {"{\"top_k\":9,\"topk\":1}", "unknown setting 'topk'"},
        {"{\"limits\":{\"nope\":1}}", "unknown setting 'limits.nope'"},
        {"{\"limits\":3}", "limits must be an object"},
        {"{\"limits\":{\"limits\":{}}}", "unknown setting 'limits.limits'"},
        {"{\"limits.top_k_max\":\"x\"}", "limits.top_k_max must be an integer"},
        {"{\"top_k\":\"9\"}", "top_k must be an integer"},
        {"{\"top_k\":1.5}", "top_k must be an integer"},
        {"{\"top_k\":1e300}", "top_k must be an integer"},
        {"{\"fusion_weight\":true}", "fusion_weight must be a number"},
        {"{\"fusion_rrf\":1}", "fusion_rrf must be true or false"},
        {"{\"data\":null}", "data must be a string"},
        {"{\"a_key_that_is_much_longer_than_any_setting_could_ever_be_in_this_program\":1}",
         "unknown setting"},
    };
    lore_config_default(&config);
    lore_config before = config;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_FAILS(load(cases[i].text), LORE_ERR_INVALID, &err, cases[i].message);
        CHECK(memcmp(&before, &config, sizeof config) == 0);
    }
    CHECK_FAILS(lore_config_load(&config, "/nonexistent.json", &err), LORE_ERR_NOT_FOUND, &err,
                "/nonexistent.json");
}

TEST(reads_the_environment)
{
    lore_config_default(&config);
    setenv("LORE_TOP_K", "8", 1);
    setenv("LORE_LIMITS_QUESTION_BYTES_MAX", "77", 1);
    setenv("LORE_DATA", "/srv/lore", 1);
    CHECK_OK(lore_config_environment(&config, &err), &err);
    CHECK_INT(config.top_k, 8);
    CHECK_INT(config.limits.question_bytes_max, 77);
    CHECK_STR(lore_str_from(config.data), "/srv/lore");
    setenv("LORE_TOP_K", "many", 1);
    CHECK_FAILS(lore_config_environment(&config, &err), LORE_ERR_INVALID, &err,
                "environment variable LORE_TOP_K: top_k must be");
    unsetenv("LORE_TOP_K");
    unsetenv("LORE_LIMITS_QUESTION_BYTES_MAX");
    unsetenv("LORE_DATA");
}

TEST(checks_relations)
{
    lore_config_default(&config);
    CHECK_OK(set("top_k", "51"), &err);
    CHECK_FAILS(lore_config_check(&config, &err), LORE_ERR_INVALID, &err,
                "top_k (51) must not be more than limits.top_k_max (50)");
    CHECK_OK(set("limits.top_k_max", "51"), &err);
    CHECK_OK(lore_config_check(&config, &err), &err);
}

TEST(prints_what_it_reads)
{
    lore_buf out;
    lore_buf_init(&out, 0);
    lore_config_default(&config);
    CHECK_OK(set("top_k", "11"), &err);
    CHECK_OK(set("limits.stop_bytes_max", "99"), &err);
    CHECK_OK(set("data", "quo\"ted"), &err);
    CHECK_OK(set("guard_ratio", "0.9"), &err);
    lore_config changed = config;
    lore_config_print(&config, false, &out);
    lore_config_default(&config);
    CHECK_OK(load(lore_buf_c(&out)), &err);
    CHECK(memcmp(&changed, &config, sizeof config) == 0);
    lore_buf_reset(&out);
    lore_config_print(&config, true, &out);
    CHECK(!lore_buf_failed(&out));
    const char *text = lore_buf_c(&out);
    CHECK(strstr(text, "top_k = 11\n") != NULL);
    CHECK(strstr(text, "default 5, 1 to 1000; LORE_TOP_K\n") != NULL);
    CHECK(strstr(text, "limits.stop_bytes_max = 99\n") != NULL);
    CHECK(strstr(text, "LORE_LIMITS_STOP_BYTES_MAX\n") != NULL);
    CHECK(strstr(text, "one of auto|f32|bf16; LORE_KV_DTYPE") != NULL);
    lore_buf_destroy(&out);
}

static lore_status load_again(void *self)
{
    (void)self;
    char path[200];
    snprintf(path, sizeof path, "%s/config.json", check_temp_dir());
    return lore_config_load(&config, path, &err);
}

TEST(loading_survives_failures)
{
    lore_config_default(&config);
    CHECK_OK(load("{\"top_k\": 9, \"limits\": {\"top_k_max\": 60}}"), &err);
    check_alloc_sweep(load_again, NULL);
}

CHECK_MAIN(has_defaults, sets_single_keys, refuses_wrong_values, loads_files, refuses_wrong_files,
           reads_the_environment, checks_relations, prints_what_it_reads, loading_survives_failures)
