/* config.json of every family of encoders is read as the library reads it, and every setting that
 * would change the vectors is refused by its name. */
#include "models/encoder_config_int.h"
#include "tests/check.h"

#define SIZES                                                                     \
    "\"hidden_size\": 64, \"num_hidden_layers\": 4, \"num_attention_heads\": 8, " \
    "\"intermediate_size\": 96, \"vocab_size\": 100, \"max_position_embeddings\": 128"
#define BERT "\"model_type\": \"bert\", " SIZES
#define ROBERTA "\"model_type\": \"xlm-roberta\", " SIZES
#define MODERN "\"model_type\": \"modernbert\", " SIZES
#define QWEN "\"model_type\": \"qwen3\", " SIZES

static lore_encoder_config read(const char *json)
{
    lore_error err = {0};
    lore_encoder_config c;
    CHECK_OK(lore_encoder_config_parse(lore_str_from(json), "config.json", &c, &err), &err);
    return c;
}

static void refuse(const char *json, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_encoder_config c;
    CHECK_FAILS(lore_encoder_config_parse(lore_str_from(json), "config.json", &c, &err), wanted,
                &err, message);
    CHECK(strstr(err.message, "config.json") != NULL);
}

TEST(bert)
{
    lore_encoder_config c = read("{" BERT "}");
    CHECK_STR(lore_str_from(c.family->model_type), "bert");
    CHECK(!c.family->is_prenorm && c.has_attention_bias && c.has_ffn_bias && c.has_norm_bias);
    CHECK_INT(c.types, 2);
    CHECK_INT(c.tokens_max, 128);
    CHECK_INT(c.head_dim, 8);
    CHECK_INT(c.activation, LORE_ACT_GELU);
    CHECK_INT(c.rope[0].dim, 0);
    CHECK_NEAR(c.eps, 1e-12, 1e-18);
    c = read("{" BERT ", \"hidden_act\": \"gelu_new\", \"type_vocab_size\": 1}");
    CHECK_INT(c.activation, LORE_ACT_GELU_TANH);
    CHECK_INT(c.types, 1);
    refuse("{" BERT ", \"hidden_act\": \"mish\"}", LORE_ERR_UNSUPPORTED, "mish");
    refuse("{" BERT ", \"position_embedding_type\": \"relative_key\"}", LORE_ERR_UNSUPPORTED,
           "relative_key");
    refuse("{" BERT ", \"is_decoder\": true}", LORE_ERR_UNSUPPORTED, "is_decoder");
    refuse("{" BERT ", \"type_vocab_size\": 0}", LORE_ERR_CORRUPT, "type_vocab_size");
    refuse("{" BERT ", \"layer_norm_eps\": 1e-50}", LORE_ERR_CORRUPT, "layer_norm_eps");
    refuse("{\"model_type\": \"bert\"}", LORE_ERR_CORRUPT, "num_hidden_layers");
    refuse("{\"model_type\": \"t5\"}", LORE_ERR_UNSUPPORTED, "'t5' is not supported");
    refuse("{}", LORE_ERR_CORRUPT, "model_type");
}

/* Positions begin behind the padding's. */
TEST(roberta)
{
    lore_encoder_config c = read("{" ROBERTA ", \"pad_token_id\": 1, \"type_vocab_size\": 1}");
    CHECK_INT(c.position_start, 2);
    CHECK_INT(c.tokens_max, 126);
    CHECK_INT(c.positions, 128);
    refuse("{" ROBERTA ", \"pad_token_id\": 100}", LORE_ERR_CORRUPT, "pad_token_id");
    refuse("{\"model_type\": \"roberta\", \"hidden_size\": 64, \"num_hidden_layers\": 4, "
           "\"num_attention_heads\": 8, \"intermediate_size\": 96, \"vocab_size\": 100, "
           "\"max_position_embeddings\": 2}",
           LORE_ERR_CORRUPT, "leaves none of 2 positions");
}

TEST(modernbert)
{
    lore_encoder_config c = read("{" MODERN "}");
    CHECK(c.family->is_prenorm && c.family->is_glu && !c.family->is_causal);
    CHECK_INT(c.global_every, 3);
    CHECK_INT(c.window, 64);
    CHECK_NEAR(c.rope[0].theta, 160000, 1e-6);
    CHECK_NEAR(c.rope[1].theta, 10000, 1e-6);
    CHECK(!c.has_attention_bias && !c.has_ffn_bias && !c.has_norm_bias);
    c = read("{" MODERN ", \"global_attn_every_n_layers\": 2, \"local_attention\": 32, "
             "\"global_rope_theta\": 5000.0, \"local_rope_theta\": 600.0, \"norm_bias\": true}");
    CHECK_INT(c.global_every, 2);
    CHECK_INT(c.window, 16);
    CHECK_NEAR(c.rope[0].theta, 5000, 1e-6);
    CHECK_NEAR(c.rope[1].theta, 600, 1e-6);
    CHECK(c.has_norm_bias);
    c = read("{" MODERN ", \"layer_types\": [\"full_attention\", \"sliding_attention\", "
             "\"full_attention\", \"sliding_attention\"], \"rope_parameters\": "
             "{\"full_attention\": {\"rope_theta\": 70.0, \"rope_type\": \"default\"}, "
             "\"sliding_attention\": {\"rope_theta\": 80.0}}}");
    CHECK_INT(c.global_every, 2);
    CHECK_NEAR(c.rope[0].theta, 70, 1e-6);
    CHECK_NEAR(c.rope[1].theta, 80, 1e-6);
    refuse("{" MODERN ", \"layer_types\": [\"full_attention\", \"sliding_attention\", "
           "\"sliding_attention\", \"sliding_attention\", \"sliding_attention\"]}",
           LORE_ERR_CORRUPT, "layer_types has 5 entries");
    refuse("{" MODERN ", \"layer_types\": [\"sliding_attention\", \"full_attention\", "
           "\"sliding_attention\", \"full_attention\"]}",
           LORE_ERR_UNSUPPORTED, "layer_types[0]");
    refuse("{" MODERN ", \"local_attention\": 1}", LORE_ERR_UNSUPPORTED, "local_attention");
    refuse("{" MODERN ", \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"yarn\"}}}",
           LORE_ERR_UNSUPPORTED, "yarn");
    refuse("{" MODERN ", \"rope_scaling\": {\"rope_type\": \"linear\"}}", LORE_ERR_UNSUPPORTED,
           "rope_scaling");
}

TEST(qwen3)
{
    lore_encoder_config c = read("{" QWEN ", \"num_key_value_heads\": 4, \"head_dim\": 16}");
    CHECK(c.family->is_causal && c.family->is_rms && c.family->q_norm != NULL);
    CHECK_INT(c.kv_heads, 4);
    CHECK_INT(c.head_dim, 16);
    CHECK_INT(c.rope[0].dim, 16);
    CHECK_INT(c.rope[1].dim, 0);
    CHECK_INT(read("{" QWEN "}").head_dim, 128); /* the library's default */
    refuse("{" QWEN ", \"num_key_value_heads\": 3}", LORE_ERR_CORRUPT, "3 key heads");
    refuse("{" QWEN ", \"head_dim\": 15}", LORE_ERR_CORRUPT, "15 elements");
    refuse("{" QWEN ", \"attention_bias\": true}", LORE_ERR_UNSUPPORTED, "attention_bias");
    refuse("{" QWEN ", \"use_sliding_window\": true}", LORE_ERR_UNSUPPORTED, "use_sliding_window");
    refuse("{" QWEN ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}}",
           LORE_ERR_UNSUPPORTED, "rope scaling of type 'dynamic', which follows the length");
    refuse("{" QWEN ", \"head_dim\": 4, \"original_max_position_embeddings\": 64, "
           "\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1.0, 1.0], "
           "\"long_factor\": [2.0, 4.0]}}",
           LORE_ERR_UNSUPPORTED, "rope scaling of type 'longrope', which follows the length");
}

static void refuse_classifier(const char *json, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_encoder_config c;
    CHECK_FAILS(lore_classifier_config_parse(lore_str_from(json), "config.json", &c, &err), wanted,
                &err, message);
}

TEST(classifiers_have_one_label)
{
    lore_error err = {0};
    lore_encoder_config c;
    CHECK_OK(lore_classifier_config_parse(
                 LORE_STR("{" BERT ", \"id2label\": {\"0\": \"LABEL_0\"}}"), "c", &c, &err),
             &err);
    CHECK_INT(c.dense_count, 2);
    CHECK_STR(lore_str_from(c.dense[0].name), "bert.pooler.dense");
    CHECK_INT(c.dense[0].activation, LORE_ACT_TANH);
    CHECK_INT(lore_encoder_config_out(&c), 1);
    CHECK_OK(lore_classifier_config_parse(
                 LORE_STR("{" ROBERTA ", \"pad_token_id\": 1, \"num_labels\": 1}"), "c", &c, &err),
             &err);
    CHECK_STR(lore_str_from(c.dense[1].name), "classifier.out_proj");
    refuse_classifier("{" BERT "}", LORE_ERR_UNSUPPORTED, "one label (id2label), not 2");
    refuse_classifier("{" BERT ", \"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}}",
                      LORE_ERR_UNSUPPORTED, "not 3");
    refuse_classifier("{" QWEN ", \"num_labels\": 1}", LORE_ERR_UNSUPPORTED, "'qwen3'");
}

static lore_encoder_config read_modern_head(const char *settings)
{
    char json[512];
    lore_error err = {0};
    lore_encoder_config c;
    snprintf(json, sizeof json, "{" MODERN ", \"num_labels\": 1%s}", settings);
    CHECK_OK(lore_classifier_config_parse(lore_str_from(json), "c", &c, &err), &err);
    return c;
}

/* ModernBERT's classifier: what is pooled, its first layer's activation and bias, a norm. */
TEST(modernbert_classifiers_choose_their_pooling)
{
    lore_encoder_config c = read_modern_head("");
    CHECK_INT(c.pooling, LORE_POOL_CLS);
    CHECK_INT(c.dense[0].activation, LORE_ACT_GELU);
    CHECK(!c.dense[0].has_bias && c.dense[1].has_bias);
    CHECK_STR(lore_str_from(c.dense[0].norm), "head.norm");
    CHECK(c.dense[1].norm == NULL);
    c = read_modern_head(", \"classifier_pooling\": \"mean\", \"classifier_bias\": true, "
                         "\"classifier_activation\": \"silu\"");
    CHECK_INT(c.pooling, LORE_POOL_MEAN);
    CHECK_INT(c.dense[0].activation, LORE_ACT_SILU);
    CHECK(c.dense[0].has_bias);
    refuse_classifier("{" MODERN ", \"num_labels\": 1, \"classifier_pooling\": \"max\"}",
                      LORE_ERR_UNSUPPORTED,
                      "classifier_pooling 'max' is not supported (cls, mean)");
    refuse_classifier("{" MODERN ", \"num_labels\": 1, \"classifier_activation\": \"mish\"}",
                      LORE_ERR_UNSUPPORTED, "classifier_activation 'mish'");
}

CHECK_MAIN(bert, roberta, modernbert, qwen3, classifiers_have_one_label,
           modernbert_classifiers_choose_their_pooling)
