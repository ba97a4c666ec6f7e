/* The files that sentence-transformers puts beside config.json are read as that library reads them,
 * and what we do not compute is refused by its name. */
#include "models/encoder_config_int.h"
#include "tests/check.h"

typedef lore_status (*parser)(lore_str, const char *, lore_encoder_config *, lore_error *);

static lore_encoder_config fresh(void)
{
    return (lore_encoder_config){
        .width = 64, .positions = 130, .position_start = 2, .tokens_max = 128};
}

static void read(parser parse, const char *json, lore_encoder_config *c)
{
    lore_error err = {0};
    CHECK_OK(parse(lore_str_from(json), "file.json", c, &err), &err);
}

static void refuse(parser parse, const char *json, lore_encoder_config *c, lore_status wanted,
                   const char *message)
{
    lore_error err = {0};
    CHECK_FAILS(parse(lore_str_from(json), "file.json", c, &err), wanted, &err, message);
    CHECK(strstr(err.message, "file.json") != NULL);
}

#define TRANSFORMER "{\"type\": \"s.Transformer\", \"path\": \"\"}"
#define POOLING "{\"type\": \"s.Pooling\", \"path\": \"1_Pooling\"}"
#define DENSE "{\"type\": \"s.Dense\", \"path\": \"2_Dense\"}"
#define NORMALIZE "{\"type\": \"s.Normalize\", \"path\": \"3_Normalize\"}"

TEST(modules)
{
    lore_encoder_config c = fresh();
    read(lore_modules_parse, "[" TRANSFORMER ", " POOLING "]", &c);
    CHECK(!c.is_normalised && c.dense_count == 0);
    CHECK_STR(lore_str_from(c.pooling_path), "1_Pooling");
    read(lore_modules_parse, "[" TRANSFORMER ", " POOLING ", " DENSE ", " DENSE ", " NORMALIZE "]",
         &c);
    CHECK(c.is_normalised);
    CHECK_INT(c.dense_count, 2);
    CHECK_STR(lore_str_from(c.dense[1].path), "2_Dense");
    refuse(lore_modules_parse, "[]", &c, LORE_ERR_CORRUPT, "Transformer and Pooling");
    refuse(lore_modules_parse, "{}", &c, LORE_ERR_CORRUPT, "array");
    refuse(lore_modules_parse, "[" POOLING ", " TRANSFORMER "]", &c, LORE_ERR_UNSUPPORTED,
           "module 0 'Pooling'");
    refuse(lore_modules_parse, "[" TRANSFORMER ", " POOLING ", " NORMALIZE ", " DENSE "]", &c,
           LORE_ERR_UNSUPPORTED, "module 3 'Dense'");
    refuse(lore_modules_parse,
           "[" TRANSFORMER ", " POOLING ", " DENSE ", " DENSE ", " DENSE ", " DENSE ", " DENSE "]",
           &c, LORE_ERR_UNSUPPORTED, "more than 4 Dense");
    refuse(lore_modules_parse,
           "[" TRANSFORMER ", {\"type\": \"s.Pooling\", \"path\": \"../../etc\"}]", &c,
           LORE_ERR_CORRUPT, "path of 'Pooling'");
    refuse(lore_modules_parse,
           "[{\"type\": \"s.Transformer\", \"path\": \"0_Transformer\"}, " POOLING "]", &c,
           LORE_ERR_UNSUPPORTED, "folder of its own");
}

TEST(pooling)
{
    lore_encoder_config c = fresh();
    read(lore_pooling_parse,
         "{\"pooling_mode_lasttoken\": true, \"pooling_mode_mean_tokens\": false}", &c);
    CHECK_INT(c.pooling, LORE_POOL_LAST);
    read(lore_pooling_parse, "{\"embedding_dimension\": 64, \"pooling_mode\": \"cls\"}", &c);
    CHECK_INT(c.pooling, LORE_POOL_CLS);
    refuse(lore_pooling_parse,
           "{\"pooling_mode_lasttoken\": true, \"pooling_mode_mean_tokens\": true}", &c,
           LORE_ERR_UNSUPPORTED, "2 pooling modes");
    refuse(lore_pooling_parse, "{}", &c, LORE_ERR_UNSUPPORTED, "0 pooling modes");
    refuse(lore_pooling_parse, "{\"pooling_mode\": \"max\"}", &c, LORE_ERR_UNSUPPORTED,
           "pooling_mode_max_tokens");
    refuse(lore_pooling_parse, "{\"pooling_mode\": \"best\"}", &c, LORE_ERR_UNSUPPORTED, "'best'");
    refuse(lore_pooling_parse, "{\"pooling_mode\": \"cls\", \"include_prompt\": false}", &c,
           LORE_ERR_UNSUPPORTED, "include_prompt");
    refuse(lore_pooling_parse, "{\"pooling_mode\": \"cls\", \"embedding_dimension\": 65}", &c,
           LORE_ERR_CORRUPT, "embedding_dimension is 65");
}

TEST(dense)
{
    lore_encoder_config c = fresh();
    c.dense_count = 2;
    read(lore_dense_parse,
         "{\"in_features\": 64, \"out_features\": 32, \"bias\": false, \"activation_function\": "
         "\"torch.nn.modules.linear.Identity\"}",
         &c);
    CHECK(!c.dense[0].has_bias && c.dense[0].activation == LORE_ACT_NONE);
    refuse(lore_dense_parse, "{\"in_features\": 64, \"out_features\": 16}", &c, LORE_ERR_CORRUPT,
           "in_features is 64, what comes in has 32");
    refuse(lore_dense_parse, "{\"in_features\": 32}", &c, LORE_ERR_CORRUPT, "out_features");
    refuse(lore_dense_parse,
           "{\"in_features\": 32, \"out_features\": 16, \"activation_function\": \"a.B\"}", &c,
           LORE_ERR_UNSUPPORTED, "'a.B'");
    refuse(lore_dense_parse, "{\"in_features\": 32, \"out_features\": 16, \"use_residual\": true}",
           &c, LORE_ERR_UNSUPPORTED, "use_residual");
    read(lore_dense_parse, "{\"in_features\": 32, \"out_features\": 16}", &c);
    CHECK(c.dense[1].has_bias && c.dense[1].activation == LORE_ACT_TANH);
    CHECK_INT(lore_encoder_config_out(&c), 16);
}

/* Never more than there are positions for, which is less than there are rows of the table. */
TEST(text_length)
{
    lore_encoder_config c = fresh();
    read(lore_text_length_parse, "{\"model_max_length\": 1000000000000000019884624838656}", &c);
    CHECK_INT(c.tokens_max, 128);
    read(lore_text_length_parse, "{\"model_max_length\": 100}", &c);
    CHECK_INT(c.tokens_max, 100);
    read(lore_sentence_config_parse, "{}", &c);
    CHECK_INT(c.tokens_max, 100);
    read(lore_sentence_config_parse, "{\"max_seq_length\": 64}", &c);
    CHECK_INT(c.tokens_max, 64);
    read(lore_sentence_config_parse, "{\"max_seq_length\": 4096}", &c);
    CHECK_INT(c.tokens_max, 128);
    refuse(lore_text_length_parse, "{\"model_max_length\": 0}", &c, LORE_ERR_CORRUPT,
           "model_max_length");
    refuse(lore_sentence_config_parse, "{\"do_lower_case\": true}", &c, LORE_ERR_UNSUPPORTED,
           "do_lower_case");
}

TEST(prompts)
{
    lore_encoder_config c = fresh();
    read(lore_prompts_parse,
         "{\"prompts\": {\"query\": \"q: \", \"passage\": \"p: \"}, \"truncate_dim\": 32}", &c);
    CHECK_STR(lore_str_from(c.query_prompt), "q: ");
    CHECK_STR(lore_str_from(c.document_prompt), "p: ");
    CHECK_INT(c.dimensions, 32);
    read(lore_prompts_parse,
         "{\"prompts\": {\"any\": \"a: \", \"document\": \"\"}, \"default_prompt_name\": \"any\"}",
         &c);
    CHECK_STR(lore_str_from(c.query_prompt), "a: ");
    CHECK_STR(lore_str_from(c.document_prompt), "");
    read(lore_prompts_parse, "{\"prompts\": {\"query\": \"q: \"}, \"default_prompt_name\": null}",
         &c);
    CHECK_STR(lore_str_from(c.document_prompt), "");
    read(lore_encoder_card_parse, "{\"document_prompt\": \"d: \", \"dimensions\": 16}", &c);
    CHECK_STR(lore_str_from(c.query_prompt), "q: ");
    CHECK_STR(lore_str_from(c.document_prompt), "d: ");
    CHECK_INT(c.dimensions, 16);
    refuse(lore_prompts_parse, "{\"prompts\": {}, \"default_prompt_name\": \"any\"}", &c,
           LORE_ERR_CORRUPT, "'any' is not in prompts");
    refuse(lore_prompts_parse, "{\"prompts\": {\"query\": 7}}", &c, LORE_ERR_CORRUPT,
           "prompts must be strings");
    refuse(lore_prompts_parse, "{\"similarity_fn_name\": \"dot\"}", &c, LORE_ERR_UNSUPPORTED,
           "'dot' without a Normalize module");
    c.is_normalised = true;
    read(lore_prompts_parse, "{\"similarity_fn_name\": \"dot\"}", &c);
    char *card = lore_alloc(LORE_PROMPT_CAP + 64);
    int length = snprintf(card, 64, "{\"query_prompt\": \"");
    memset(card + length, 'x', LORE_PROMPT_CAP);
    snprintf(card + length + LORE_PROMPT_CAP, 8, "\"}");
    refuse(lore_encoder_card_parse, card, &c, LORE_ERR_LIMIT, "query_prompt has more than 1023");
    lore_free(card);
}

CHECK_MAIN(modules, pooling, dense, text_length, prompts)
