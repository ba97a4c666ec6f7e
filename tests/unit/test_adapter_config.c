/* adapter_config.json means the modules, ranks and scales that PEFT would compute, and what would
 * be computed otherwise is refused by the name of its field. (Against PEFT itself:
 * tests/golden/golden_adapters.c.) */
#include "models/adapter_int.h"
#include "tests/check.h"

#define KIND "\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\""
#define SIZES KIND ", \"r\": 8, \"lora_alpha\": 16"
#define NAMED SIZES ", \"target_modules\": [\"q_proj\"]"

static const lore_limits LIMITS = {.adapter_rank_max = 64};

static const char Q0[] = "model.layers.0.self_attn.q_proj",
                  Q1[] = "model.layers.1.self_attn.q_proj", UP0[] = "model.layers.0.mlp.up_proj",
                  UP11[] = "model.layers.11.mlp.up_proj", HEAD[] = "lm_head",
                  TABLE[] = "model.embed_tokens";

static lore_adapter_config parse(const char *json)
{
    lore_error err = {0};
    lore_adapter_config config;
    CHECK_OK(lore_adapter_config_parse(lore_str_from(json), "config", &LIMITS, &config, &err),
             &err);
    return config;
}

static lore_adapter_target match(lore_adapter_config *config, const char *module)
{
    lore_error err = {0};
    lore_adapter_target target;
    int layer = -1;
    (void)sscanf(module, "model.layers.%d.", &layer);
    CHECK_OK(lore_adapter_config_match(config, lore_str_from(module), layer, &target, &err), &err);
    return target;
}

/* modules: which of Q0, Q1, UP0, UP11, HEAD, TABLE are meant, a letter each. */
static void means(const char *fields, const char *modules)
{
    static const char *const ALL[] = {Q0, Q1, UP0, UP11, HEAD, TABLE};
    char json[1024], found[8] = "";
    snprintf(json, sizeof json, "{" SIZES ", %s}", fields);
    lore_adapter_config config = parse(json);
    for (size_t i = 0; i < sizeof ALL / sizeof ALL[0]; i++) {
        found[i] = match(&config, ALL[i]).is_hit ? "qQuUht"[i] : '-';
    }
    CHECK_STR(lore_str_from(found), modules);
    lore_adapter_config_destroy(&config);
}

TEST(modules_are_meant)
{
    means("\"target_modules\": [\"q_proj\"]", "qQ----");
    means("\"target_modules\": [\"proj\", \"up_proj\", \"lm_head\"]", "--uUh-");
    means("\"target_modules\": [\"layers.1.self_attn.q_proj\", \"embed_tokens\"]", "-Q---t");
    means("\"target_modules\": [\"ayers.1.self_attn.q_proj\", \"model.layers\"]", "------");
    means("\"target_modules\": \"all-linear\"", "qQuU--");
    means("\"target_modules\": \"All-Linear\", \"exclude_modules\": [\"q_proj\"]", "--uU--");
    means("\"target_modules\": \".*_proj\"", "qQuU--");
    means("\"target_modules\": \"q_proj\"", "------"); /* whole names */
    means("\"target_modules\": \".*q_proj|lm\"", "qQ----");
    means("\"target_modules\": \".*(?:q_|up_|lm_)(?:proj|head)\"", "qQuUh-");
    means("\"target_modules\": \"model\\\\.layers\\\\.\\\\d\\\\..*\"", "qQu---");
    means("\"target_modules\": \"^.*\\\\.[a-z_]+_proj$\"", "qQuU--");
    means("\"target_modules\": [\"q_proj\", \"up_proj\"], \"exclude_modules\": \".*\\\\.0\\\\..*\"",
          "-Q-U--");
    means("\"target_modules\": [\"q_proj\"], \"exclude_modules\": []", "qQ----");
    means("\"target_modules\": [\"q_proj\"], \"exclude_modules\": \"\"", "qQ----");
}

TEST(layers_are_meant)
{
    means("\"target_modules\": [\"q_proj\", \"up_proj\"], \"layers_to_transform\": [0, 11]",
          "q-uU--");
    means("\"target_modules\": [\"q_proj\", \"up_proj\"], \"layers_to_transform\": 1", "-Q----");
    means("\"target_modules\": [\"q_proj\"], \"layers_to_transform\": []", "qQ----");
    /* A name that is listed whole is meant in any layer, lm_head with it; a suffix is not. */
    means("\"target_modules\": [\"lm_head\", \"model.layers.1.self_attn.q_proj\", \"up_proj\"], "
          "\"layers_to_transform\": [0]",
          "-Qu-h-");
    means("\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1], "
          "\"layers_pattern\": \"layers\"",
          "-Q----");
    means("\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1], "
          "\"layers_pattern\": [\"h\", \"model.layers\"]",
          "-Q----");
    means("\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1], "
          "\"layers_pattern\": [\"h\", \"ayers\"]",
          "------");
    means("\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1], \"layers_pattern\": []",
          "-Q----");
}

static void is_of(lore_adapter_config *config, const char *module, int32_t rank, double scale)
{
    lore_adapter_target target = match(config, module);
    CHECK(target.is_hit);
    CHECK_INT(target.rank, rank);
    CHECK_NEAR(target.scale, scale, 1e-6);
}

TEST(ranks_and_scales)
{
    lore_adapter_config config = parse("{" SIZES ", \"target_modules\": \"all-linear\"}");
    is_of(&config, Q0, 8, 2);
    lore_adapter_config_destroy(&config);
    config = parse("{" SIZES ", \"target_modules\": \"all-linear\", \"use_rslora\": true, "
                   "\"fan_in_fan_out\": true, \"init_lora_weights\": \"gaussian\"}");
    is_of(&config, Q0, 8, 16 / sqrt(8));
    lore_adapter_config_destroy(&config);
    /* The first that matches counts; keys are ends of names behind a dot, and expressions. */
    config = parse("{" SIZES ", \"target_modules\": \"all-linear\", \"rank_pattern\": "
                   "{\"proj\": 1, \"layers.0.self_attn.q_proj\": 2, \"q_proj\": 4, "
                   "\"layers\\\\.1?1\\\\..*\": 64, \"mlp.u._proj\": 3}, \"alpha_pattern\": "
                   "{\"^model.*q_proj\": 0.5, \"self_attn.q_proj\": 7}}");
    is_of(&config, Q0, 2, .25);
    is_of(&config, Q1, 4, .125);
    is_of(&config, UP0, 3, 16. / 3);
    is_of(&config, UP11, 64, .25);
    lore_adapter_config_destroy(&config);
}

static void refused(const char *fields, lore_status status, const char *text)
{
    char json[2048];
    lore_error err = {0};
    lore_adapter_config config;
    snprintf(json, sizeof json, "{%s}", fields);
    CHECK_FAILS(lore_adapter_config_parse(lore_str_from(json), "config", &LIMITS, &config, &err),
                status, &err, text);
    CHECK(strstr(err.message, "'config'") != NULL);
    CHECK(lore_adapter_config_parse(lore_str_from(json), "config", &LIMITS, &config, NULL) ==
          status);
}

#define CORRUPT(fields, text) refused(fields, LORE_ERR_CORRUPT, text)
#define UNSUPPORTED(fields, text) refused(NAMED ", " fields, LORE_ERR_UNSUPPORTED, text)

TEST(other_adapters_are_refused)
{
    UNSUPPORTED("\"use_dora\": true", "use_dora: DoRA is not supported");
    UNSUPPORTED("\"modules_to_save\": [\"lm_head\"]", "modules_to_save");
    UNSUPPORTED("\"modules_to_save\": \"lm_head\"", "modules_to_save");
    UNSUPPORTED("\"bias\": \"lora_only\"", "bias 'lora_only' is not supported (only none)");
    UNSUPPORTED("\"lora_bias\": true", "lora_bias");
    UNSUPPORTED("\"trainable_token_indices\": [1]", "trainable_token_indices");
    UNSUPPORTED("\"target_parameters\": [\"experts\"]", "target_parameters");
    UNSUPPORTED("\"layer_replication\": [[0, 4]]", "layer_replication");
    UNSUPPORTED("\"alora_invocation_tokens\": [1, 2]", "alora_invocation_tokens");
    UNSUPPORTED("\"use_qalora\": true", "use_qalora");
    UNSUPPORTED("\"arrow_config\": {\"top_k\": 3}", "arrow_config");
    UNSUPPORTED("\"init_lora_weights\": \"pissa_niter_4\"", "init_lora_weights 'pissa_niter_4'");
    UNSUPPORTED("\"init_lora_weights\": \"olora\"", "changes the base model");
    refused("\"peft_type\": \"LOHA\", \"r\": 8", LORE_ERR_UNSUPPORTED, "peft_type 'LOHA'");
    refused("\"peft_type\": \"LORA\", \"task_type\": \"SEQ_CLS\"", LORE_ERR_UNSUPPORTED,
            "task_type 'SEQ_CLS' is not supported (only CAUSAL_LM)");
    means("\"target_modules\": [\"q_proj\"], \"use_dora\": false, \"modules_to_save\": [], "
          "\"bias\": \"none\", \"trainable_token_indices\": null, \"eva_config\": {\"rho\": 2}",
          "qQ----");
}

TEST(wrong_fields_are_refused)
{
    CORRUPT("\"r\": 8", "peft_type");
    CORRUPT(KIND ", \"target_modules\": [\"q_proj\"]", "r is required");
    CORRUPT(KIND ", \"r\": 8, \"target_modules\": [\"q_proj\"]", "lora_alpha is required");
    CORRUPT(KIND ", \"r\": 0, \"lora_alpha\": 1", "r must be");
    CORRUPT(KIND ", \"r\": 65, \"lora_alpha\": 1", "r must be");
    CORRUPT(KIND ", \"r\": 1.5, \"lora_alpha\": 1", "r must be");
    CORRUPT(KIND ", \"r\": 1, \"lora_alpha\": 0", "lora_alpha must be");
    CORRUPT(KIND ", \"r\": 1, \"lora_alpha\": \"1\"", "lora_alpha must be");
    CORRUPT(SIZES, "target_modules names no module");
    CORRUPT(SIZES ", \"target_modules\": []", "target_modules names no module");
    CORRUPT(SIZES ", \"target_modules\": {\"q_proj\": 1}", "target_modules must be a list");
    CORRUPT(SIZES ", \"target_modules\": [\"q_proj\", 1]", "target_modules must hold names");
    CORRUPT(SIZES ", \"target_modules\": [\"\"]", "target_modules must hold names");
    CORRUPT(NAMED ", \"use_rslora\": 1", "use_rslora must be");
    CORRUPT(NAMED ", \"rank_pattern\": [1]", "rank_pattern must be an object");
    CORRUPT(NAMED ", \"rank_pattern\": {\"q_proj\": 0}", "rank_pattern.q_proj must be a whole");
    CORRUPT(NAMED ", \"rank_pattern\": {\"q_proj\": 65}", "rank_pattern.q_proj must be a whole");
    CORRUPT(NAMED ", \"alpha_pattern\": {\"q_proj\": -1}", "alpha_pattern.q_proj must be");
    CORRUPT(NAMED ", \"layers_to_transform\": [1024]", "layers_to_transform must hold");
    CORRUPT(NAMED ", \"layers_to_transform\": \"1\"", "layers_to_transform must hold");
    CORRUPT(NAMED ", \"layers_pattern\": \"h\"", "layers_pattern needs layers_to_transform");
    CORRUPT(SIZES ", \"target_modules\": \"all-linear\", \"layers_to_transform\": [1]",
            "layers_to_transform goes with a list");
    CORRUPT("\"r\"", "");
}

TEST(expressions_are_refused)
{
#define EXPRESSION(text) SIZES ", \"target_modules\": \"" text "\""
    refused(EXPRESSION("(?P<name>q)_proj"), LORE_ERR_UNSUPPORTED, "target_modules: ");
    refused(EXPRESSION("q)|(v"), LORE_ERR_UNSUPPORTED, "target_modules: ");
    refused(EXPRESSION("\\\\bq_proj"), LORE_ERR_UNSUPPORTED, "target_modules: ");
    refused(EXPRESSION("q{2}+_proj"), LORE_ERR_UNSUPPORTED, "possessive");
    refused(NAMED ", \"rank_pattern\": {\"(?<=x)q\": 1}", LORE_ERR_UNSUPPORTED, "rank_pattern: ");
    refused(NAMED ", \"exclude_modules\": \"(\"", LORE_ERR_UNSUPPORTED, "exclude_modules: ");
    refused(NAMED ", \"layers_to_transform\": 1, \"layers_pattern\": [\"(h\"]",
            LORE_ERR_UNSUPPORTED, "layers_pattern: ");
#undef EXPRESSION
}

TEST(lists_have_an_end)
{
    lore_error err = {0};
    lore_buf json;
    lore_adapter_config config;
    lore_buf_init(&json, 0);
    lore_buf_printf(&json, "{" SIZES ", \"target_modules\": [\"a\"");
    for (int i = 0; i < 8192; i++) {
        lore_buf_printf(&json, ",\"a\"");
    }
    lore_buf_printf(&json, "]}");
    CHECK_FAILS(lore_adapter_config_parse(lore_buf_str(&json), "config", &LIMITS, &config, &err),
                LORE_ERR_LIMIT, &err, "target_modules has 8193 entries");
    lore_buf_reset(&json);
    lore_buf_printf(&json, "{" NAMED ", \"rank_pattern\": {\"a\": 1");
    for (int i = 0; i < 257; i++) {
        lore_buf_printf(&json, ",\"a+%d\": 1", i);
    }
    lore_buf_printf(&json, "}}");
    CHECK_FAILS(lore_adapter_config_parse(lore_buf_str(&json), "config", &LIMITS, &config, &err),
                LORE_ERR_LIMIT, &err, "rank_pattern has more than 256 regular expressions");
    lore_buf_destroy(&json);
}

CHECK_MAIN(modules_are_meant, layers_are_meant, ranks_and_scales, other_adapters_are_refused,
           wrong_fields_are_refused, expressions_are_refused, lists_have_an_end)
