/* Configurations are read as written, and every setting that would change the network is refused by
 * its name. */
#include "models/model_config_int.h"
#include "tests/check.h"

#define LLAMA                                                                    \
    "\"model_type\": \"llama\", \"hidden_size\": 64, \"num_hidden_layers\": 2, " \
    "\"num_attention_heads\": 8, "                                               \
    "\"intermediate_size\": 96, \"vocab_size\": 100, \"max_position_embeddings\": 128"
#define BERT                                                                    \
    "\"model_type\": \"bert\", \"hidden_size\": 64, \"num_hidden_layers\": 2, " \
    "\"num_attention_heads\": 8, "                                              \
    "\"intermediate_size\": 96, \"vocab_size\": 100, \"max_position_embeddings\": 128"

static lore_decoder_config decoder(const char *json)
{
    lore_error err = {0};
    lore_decoder_config c;
    CHECK_OK(lore_decoder_config_parse(lore_str_from(json), "config.json", &c, &err), &err);
    return c;
}

TEST(decoders_are_read)
{
    lore_decoder_config c = decoder("{" LLAMA "}");
    CHECK_INT(c.kv_heads, 8);
    CHECK_INT(c.head_dim, 8);
    CHECK_INT(c.bos_id, -1);
    CHECK_INT(c.eos_count, 0);
    CHECK(!c.is_tied && !c.has_qk_norm);
    CHECK_NEAR(c.rope_theta, 10000, 0);
    CHECK_NEAR(c.eps, 1e-6, 1e-12);
    c = decoder(
        "{" LLAMA ", \"num_key_value_heads\": 2, \"head_dim\": 16, \"rms_norm_eps\": 1e-5, "
        "\"rope_theta\": 5e5, "
        "\"rope_scaling\": null, \"tie_word_embeddings\": true, \"bos_token_id\": 1, "
        "\"eos_token_id\": [2, 3], "
        "\"torch_dtype\": \"bfloat16\", \"hidden_act\": \"silu\", \"attention_bias\": false}");
    CHECK_INT(c.kv_heads, 2);
    CHECK_INT(c.head_dim, 16);
    CHECK(c.is_tied);
    CHECK_INT(c.eos_count, 2);
    CHECK_INT(c.eos_ids[1], 3);
    CHECK_NEAR(c.rope_theta, 5e5, 0);
    c = decoder("{" LLAMA ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": "
                "7000}, \"eos_token_id\": 4}");
    CHECK_NEAR(c.rope_theta, 7000, 0);
    CHECK_INT(c.eos_ids[0], 4);
}

TEST(generation_config_goes_first)
{
    lore_error err = {0};
    lore_decoder_config c = decoder("{" LLAMA ", \"eos_token_id\": 4, \"bos_token_id\": 9}");
    CHECK_OK(
        lore_generation_config_parse(LORE_STR("{\"eos_token_id\": [5, 6]}"), "g.json", &c, &err),
        &err);
    CHECK_INT(c.eos_count, 2);
    CHECK_INT(c.eos_ids[0], 5);
    CHECK_INT(c.bos_id, 9);
    CHECK_FAILS(
        lore_generation_config_parse(LORE_STR("{\"eos_token_id\": [5, 100]}"), "g.json", &c, &err),
        LORE_ERR_CORRUPT, &err, "g.json");
    CHECK_FAILS(lore_generation_config_parse(LORE_STR("{\"eos_token_id\": [1,2,3,4,5,6,7,8,9]}"),
                                             "g.json", &c, &err),
                LORE_ERR_UNSUPPORTED, &err, "eos_token_id");
}

static void refuse_decoder(const char *json, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_decoder_config c;
    CHECK_FAILS(lore_decoder_config_parse(lore_str_from(json), "config.json", &c, &err), wanted,
                &err, message);
    CHECK(strstr(err.message, "config.json") != NULL);
}

TEST(other_decoders_are_named)
{
    const lore_status no = LORE_ERR_UNSUPPORTED, bad = LORE_ERR_CORRUPT;
    refuse_decoder("{" LLAMA ", \"hidden_act\": \"gelu\"}", no, "gelu");
    refuse_decoder("{" LLAMA ", \"attention_bias\": true}", no, "attention_bias");
    refuse_decoder("{" LLAMA ", \"mlp_bias\": true}", no, "mlp_bias");
    refuse_decoder("{" LLAMA ", \"use_sliding_window\": true}", no, "use_sliding_window");
    refuse_decoder("{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\"}}", no, "llama3");
    refuse_decoder("{" LLAMA ", \"rope_scaling\": {\"type\": \"yarn\"}}", no, "yarn");
    refuse_decoder("{" LLAMA ", \"quantization_config\": {}}", no, "quantization_config");
    refuse_decoder("{" LLAMA ", \"partial_rotary_factor\": 0.5}", no, "partial_rotary_factor");
    refuse_decoder("{" LLAMA ", \"layer_types\": [\"sliding_attention\"]}", no, "layer_types");
    refuse_decoder("{" LLAMA ", \"num_key_value_heads\": 3}", bad, "heads");
    refuse_decoder("{" LLAMA ", \"head_dim\": 7}", bad, "heads");
    refuse_decoder("{" LLAMA ", \"bos_token_id\": 100}", bad, "bos_token_id");
    refuse_decoder("{" LLAMA ", \"rms_norm_eps\": \"x\"}", bad, "rms_norm_eps");
    refuse_decoder("{" LLAMA ", \"rms_norm_eps\": 0}", bad, "rms_norm_eps");
    refuse_decoder("{\"model_type\": \"llama\"}", bad, "num_hidden_layers");
    refuse_decoder("{\"model_type\": \"llama\", \"num_hidden_layers\": 1e9}", bad,
                   "num_hidden_layers");
    refuse_decoder("{}", bad, "model_type");
    refuse_decoder("[]", bad, "object");
    refuse_decoder("", bad, "");
}

static void refuse_encoder(const char *json, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_encoder_config c;
    CHECK_FAILS(lore_encoder_config_parse(lore_str_from(json), "config.json", &c, &err), wanted,
                &err, message);
    CHECK(strstr(err.message, "config.json") != NULL);
}

TEST(encoders_are_read_or_named)
{
    lore_error err = {0};
    lore_encoder_config c;
    CHECK_OK(lore_encoder_config_parse(LORE_STR("{" BERT "}"), "config.json", &c, &err), &err);
    CHECK_INT(c.types, 2);
    CHECK_INT(c.tokens_max, 128);
    CHECK_NEAR(c.eps, 1e-12, 1e-18);
    refuse_encoder("{" BERT ", \"hidden_act\": \"gelu_new\"}", LORE_ERR_UNSUPPORTED, "gelu_new");
    refuse_encoder("{" BERT ", \"position_embedding_type\": \"relative_key\"}",
                   LORE_ERR_UNSUPPORTED, "relative_key");
    refuse_encoder("{" BERT ", \"is_decoder\": true}", LORE_ERR_UNSUPPORTED, "is_decoder");
    refuse_encoder("{" BERT ", \"type_vocab_size\": 0}", LORE_ERR_CORRUPT, "type_vocab_size");
    refuse_encoder("{" BERT ", \"layer_norm_eps\": 1e-50}", LORE_ERR_CORRUPT, "layer_norm_eps");
    refuse_encoder("{\"model_type\": \"bert\"}", LORE_ERR_CORRUPT, "num_hidden_layers");
}

TEST(sentence_transformers_files_are_read)
{
    lore_error err = {0};
    lore_encoder_config c;
    CHECK_OK(lore_encoder_config_parse(LORE_STR("{" BERT "}"), "config.json", &c, &err), &err);
    CHECK_OK(lore_modules_parse(LORE_STR("[{\"type\": \"s.Transformer\", \"path\": \"\"}, "
                                         "{\"type\": \"s.Pooling\", \"path\": \"1_Pooling\"}]"),
                                "modules.json", &c, &err),
             &err);
    CHECK(!c.is_normalised);
    CHECK_STR(lore_str_from(c.pooling_path), "1_Pooling");
    CHECK_OK(
        lore_pooling_parse(
            LORE_STR("{\"pooling_mode_lasttoken\": true, \"pooling_mode_mean_tokens\": false}"),
            "p", &c, &err),
        &err);
    CHECK_INT(c.pooling, LORE_POOL_LAST);
    CHECK_FAILS(
        lore_pooling_parse(
            LORE_STR("{\"pooling_mode_lasttoken\": true, \"pooling_mode_mean_tokens\": true}"), "p",
            &c, &err),
        LORE_ERR_UNSUPPORTED, &err, "2 pooling modes");
    CHECK_FAILS(lore_pooling_parse(LORE_STR("{}"), "p", &c, &err), LORE_ERR_UNSUPPORTED, &err,
                "0 pooling modes");
    CHECK_OK(lore_sentence_config_parse(LORE_STR("{\"max_seq_length\": 64}"), "s", &c, &err), &err);
    CHECK_INT(c.tokens_max, 64);
    CHECK_OK(lore_sentence_config_parse(LORE_STR("{\"max_seq_length\": 4096}"), "s", &c, &err),
             &err);
    CHECK_INT(c.tokens_max, 128); /* never more than there are positions */
    CHECK_FAILS(lore_modules_parse(LORE_STR("[]"), "m", &c, &err), LORE_ERR_CORRUPT, &err,
                "Transformer and Pooling");
    CHECK_FAILS(lore_modules_parse(LORE_STR("{}"), "m", &c, &err), LORE_ERR_CORRUPT, &err, "array");
}

CHECK_MAIN(decoders_are_read, generation_config_goes_first, other_decoders_are_named,
           encoders_are_read_or_named, sentence_transformers_files_are_read)
