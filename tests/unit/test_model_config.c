/* Configurations are read as written, each family with its own defaults, and every setting that
 * would change the network is refused by its name. */
#include "models/model_config_int.h"
#include "tests/check.h"

#include <math.h>

#define SIZES                                                 \
    "\"hidden_size\": 64, \"num_hidden_layers\": 4, "         \
    "\"num_attention_heads\": 8, \"intermediate_size\": 96, " \
    "\"vocab_size\": 100, \"max_position_embeddings\": 128"
#define OF(type) "\"model_type\": \"" type "\", " SIZES
#define LLAMA OF("llama")

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
    CHECK_STR(lore_str_from(c.family->model_type), "llama");
    CHECK_INT(c.kv_heads, 8);
    CHECK_INT(c.head_dim, 8);
    CHECK_INT(c.bos_id, -1);
    CHECK_INT(c.eos_count, 0);
    CHECK_INT(c.activation, LORE_ACT_SILU);
    CHECK_INT(c.window, 0);
    CHECK(!c.is_tied && !c.family->has_qk_norm);
    CHECK(!c.has_qkv_bias && !c.has_output_bias && !c.has_mlp_bias);
    CHECK_NEAR(c.rope.theta, 10000, 0);
    CHECK_NEAR(c.eps, 1e-6, 1e-12);
    CHECK_NEAR(c.attention_scale, 1 / sqrt(8), 1e-7);
    CHECK_NEAR(c.embed_scale, 1, 0);
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
    CHECK_NEAR(c.rope.theta, 5e5, 0);
    c = decoder("{" LLAMA ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": "
                "7000}, \"eos_token_id\": 4, \"dtype\": \"float16\"}");
    CHECK_NEAR(c.rope.theta, 7000, 0);
    CHECK_INT(c.eos_ids[0], 4);
    c = decoder("{" LLAMA ", \"attention_bias\": true, \"mlp_bias\": true, \"head_dim\": null, "
                "\"num_key_value_heads\": null, \"hidden_act\": \"gelu_pytorch_tanh\", "
                "\"pretraining_tp\": 2}");
    CHECK(c.has_qkv_bias && c.has_output_bias && c.has_mlp_bias);
    CHECK_INT(c.head_dim, 8);
    CHECK_INT(c.activation, LORE_ACT_GELU_TANH);
    c = decoder("{" LLAMA ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 4}}");
    CHECK_INT(c.context, 512);
}

TEST(families_differ)
{
    lore_decoder_config c = decoder("{" OF("mistral") "}");
    CHECK_INT(c.kv_heads, 8);
    CHECK_INT(c.window, 4096);
    CHECK(c.is_windowed[0] && c.is_windowed[3]);
    c = decoder("{" OF("mistral") ", \"sliding_window\": null, \"num_key_value_heads\": null}");
    CHECK_INT(c.window, 0);
    CHECK(!c.is_windowed[0]);
    c = decoder("{" OF("qwen2") ", \"num_key_value_heads\": 2, \"sliding_window\": 32}");
    CHECK(c.has_qkv_bias && !c.has_output_bias);
    CHECK_INT(c.window, 0); /* use_sliding_window is off */
    c = decoder("{" OF("qwen2") ", \"num_key_value_heads\": 2, \"use_sliding_window\": true, "
                                "\"sliding_window\": 32, \"max_window_layers\": 3}");
    CHECK_INT(c.window, 32);
    CHECK(!c.is_windowed[2] && c.is_windowed[3]);
    c = decoder("{" OF("qwen3") ", \"num_key_value_heads\": 2}");
    CHECK(c.family->has_qk_norm && !c.has_qkv_bias);
    CHECK_INT(c.head_dim, 128);
    c = decoder("{" OF("phi3") ", \"partial_rotary_factor\": 0.5}");
    CHECK_INT(c.rope.dim, 4);
    CHECK_INT(c.window, 0);
    CHECK_NEAR(c.eps, 1e-5, 1e-11);
    CHECK(c.family->qkv[1] == NULL && c.family->gate_up[1] == NULL);
}

TEST(gemma2_has_caps_and_turns)
{
    lore_decoder_config c = decoder("{" OF("gemma2") ", \"hidden_act\": \"gelu\"}");
    CHECK(c.is_tied && c.family->is_norm_centred);
    CHECK_INT(c.head_dim, 256);
    CHECK_INT(c.kv_heads, 4);
    CHECK_INT(c.activation, LORE_ACT_GELU_TANH); /* hidden_activation is what counts */
    CHECK_NEAR(c.embed_scale, 8, 0);
    CHECK_NEAR(c.attention_scale, 1.0 / 16, 0);
    CHECK_NEAR(c.attention_softcap, 50, 0);
    CHECK_NEAR(c.logit_softcap, 30, 0);
    CHECK(c.is_windowed[0] && !c.is_windowed[1] && c.is_windowed[2] && !c.is_windowed[3]);
    c = decoder("{" OF("gemma2") ", \"attn_logit_softcapping\": null, \"final_logit_softcapping\": "
                                 "20.5, \"query_pre_attn_scalar\": 64, \"layer_types\": "
                                 "[\"full_attention\", \"full_attention\", \"sliding_attention\", "
                                 "\"full_attention\"], \"tie_word_embeddings\": false, "
                                 "\"use_bidirectional_attention\": null}");
    CHECK(!c.is_tied && !c.is_windowed[0] && c.is_windowed[2]);
    CHECK_NEAR(c.attention_softcap, 0, 0);
    CHECK_NEAR(c.logit_softcap, 20.5, 0);
    CHECK_NEAR(c.attention_scale, 0.125, 0);
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
    CHECK(!c.generation.is_sampled);
    CHECK_NEAR(c.generation.temperature, 1, 0);
    CHECK_INT(c.generation.top_k, 50);
    CHECK_OK(lore_generation_config_parse(
                 LORE_STR("{\"do_sample\": true, \"temperature\": 0.75, \"top_p\": 0.5, \"top_k\": "
                          "-1, \"repetition_penalty\": 1.25, \"pad_token_id\": 5000}"),
                 "g.json", &c, &err),
             &err);
    CHECK(c.generation.is_sampled);
    CHECK_NEAR(c.generation.temperature, 0.75, 0);
    CHECK_NEAR(c.generation.top_p, 0.5, 0);
    CHECK_INT(c.generation.top_k, 0);
    CHECK_NEAR(c.generation.repetition_penalty, 1.25, 0);
    CHECK_INT(c.eos_count, 2);
    CHECK_FAILS(
        lore_generation_config_parse(LORE_STR("{\"eos_token_id\": [5, 100]}"), "g.json", &c, &err),
        LORE_ERR_CORRUPT, &err, "g.json");
    CHECK_FAILS(lore_generation_config_parse(LORE_STR("{\"eos_token_id\": [1,2,3,4,5,6,7,8,9]}"),
                                             "g.json", &c, &err),
                LORE_ERR_UNSUPPORTED, &err, "eos_token_id");
    CHECK_FAILS(lore_generation_config_parse(LORE_STR("{\"temperature\": -1}"), "g.json", &c, &err),
                LORE_ERR_CORRUPT, &err, "temperature");
}

static void refuse(const char *json, lore_status wanted, const char *message)
{
    lore_error err = {0};
    lore_decoder_config c;
    CHECK_FAILS(lore_decoder_config_parse(lore_str_from(json), "config.json", &c, &err), wanted,
                &err, message);
    CHECK(strstr(err.message, "config.json") != NULL);
}

TEST(other_decoders_are_named)
{
    const lore_status no = LORE_ERR_UNSUPPORTED;
    refuse("{" OF("gpt2") "}", no, "'gpt2' is not supported (llama, mistral");
    refuse("{" LLAMA ", \"hidden_act\": \"relu\"}", no, "relu");
    refuse("{" OF("gemma2") ", \"hidden_activation\": \"tanh\"}", no, "hidden_activation");
    refuse("{" OF("mistral") ", \"attention_bias\": true}", no, "attention_bias");
    refuse("{" OF("qwen2") ", \"mlp_bias\": true}", no, "mlp_bias");
    refuse("{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"mrope\"}}", no, "mrope");
    refuse("{" LLAMA ", \"partial_rotary_factor\": 0.5}", no, "partial_rotary_factor");
    refuse("{" LLAMA ", \"use_bidirectional_attention\": true}", no, "use_bidirectional_attention");
    refuse("{" LLAMA ", \"layer_types\": [\"full_attention\", \"sliding_attention\", "
           "\"full_attention\", \"full_attention\"]}",
           no, "layer 1 is 'sliding_attention'");
    refuse("{" OF("mistral") ", \"layer_types\": [\"full_attention\", \"full_attention\", "
                             "\"full_attention\", \"full_attention\"]}",
           no, "layer_types");
    refuse("{" OF("qwen3") ", \"num_key_value_heads\": 2, \"layer_types\": [\"full_attention\", "
                           "\"sliding_attention\", \"full_attention\", \"full_attention\"]}",
           no, "layer_types"); /* without a window */
    refuse("{" OF("gemma2") ", \"layer_types\": [\"chunked_attention\", 1, 2, 3]}", no, "chunked");
}

TEST(senseless_decoders_are_named)
{
    const lore_status bad = LORE_ERR_CORRUPT;
    refuse("{" LLAMA ", \"layer_types\": [\"full_attention\"]}", bad, "layer_types");
    refuse("{" LLAMA ", \"num_key_value_heads\": 3}", bad, "heads");
    refuse("{" LLAMA ", \"num_key_value_heads\": 0}", bad, "num_key_value_heads");
    refuse("{" OF("qwen2") "}", bad, "8 heads over 32");
    refuse("{" LLAMA ", \"head_dim\": 7}", bad, "heads");
    refuse("{" LLAMA ", \"head_dim\": 4096}", bad, "head_dim");
    refuse("{" LLAMA ", \"bos_token_id\": 100}", bad, "bos_token_id");
    refuse("{" LLAMA ", \"rms_norm_eps\": \"x\"}", bad, "rms_norm_eps");
    refuse("{" LLAMA ", \"rms_norm_eps\": 0}", bad, "rms_norm_eps");
    refuse("{" LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}}", bad,
           "rope_scaling.factor");
    refuse("{" OF("mistral") ", \"sliding_window\": -5}", bad, "sliding_window");
    refuse("{" OF("mistral") ", \"sliding_window\": \"a\"}", bad, "sliding_window");
    refuse("{" OF("gemma2") ", \"attn_logit_softcapping\": 0}", bad, "attn_logit_softcapping");
    refuse("{" OF("gemma2") ", \"query_pre_attn_scalar\": -1}", bad, "query_pre_attn_scalar");
    refuse("{\"model_type\": \"llama\"}", bad, "num_hidden_layers");
    refuse("{\"model_type\": \"llama\", \"num_hidden_layers\": 1e9}", bad, "num_hidden_layers");
    refuse("{}", bad, "model_type");
    refuse("[]", bad, "object");
    refuse("", bad, "");
}

CHECK_MAIN(decoders_are_read, families_differ, gemma2_has_caps_and_turns,
           generation_config_goes_first, other_decoders_are_named, senseless_decoders_are_named)
