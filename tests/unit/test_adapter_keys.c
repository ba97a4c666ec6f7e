/* Names of tensors as known trainers write them mean what those trainers mean; all others are
 * refused by name, other kinds of adapters with their kind. */
#include "tests/check.h"

#include "models/adapter_keys_int.h"

#include <string.h>

static lore_adapter_key parse(const char *name)
{
    lore_adapter_key key;
    lore_error err = {0};
    CHECK_OK(lore_adapter_key_parse(lore_str_from(name), &key, &err), &err);
    return key;
}

static void refused(const char *name, const char *words)
{
    lore_adapter_key key;
    lore_error err = {0};
    CHECK_FAILS(lore_adapter_key_parse(lore_str_from(name), &key, &err), LORE_ERR_UNSUPPORTED, &err,
                words);
    CHECK(strlen(name) > 64 || strstr(err.message, name) != NULL);
}

/* Of `count` units from `first` on, in this order of rows. */
static void means(const char *name, lore_adapter_role role, int32_t layer, lore_adapter_unit first,
                  int32_t count, lore_adapter_order order)
{
    const lore_adapter_key key = parse(name);
    const lore_adapter_module *module = &lore_adapter_module_table[key.module];
    CHECK_INT(key.role, role);
    CHECK_INT(key.layer, layer);
    CHECK_INT(module->first, first);
    CHECK_INT(module->count, count);
    CHECK_INT(module->order, order);
}

TEST(names_of_trainers)
{
    static const struct {
        const char *name;
        lore_adapter_role role;
        int32_t layer;
        lore_adapter_unit first;
        int32_t count;
        lore_adapter_order order;
    } NAMES[] = {
        {"base_model.model.model.layers.3.mlp.up_proj.lora_A.weight", LORE_ROLE_A, 3, LORE_UNIT_UP,
         1, LORE_ORDER_STACKED},
        {"model.layers.0.self_attn.k_proj.lora_B.default.weight", LORE_ROLE_B, 0, LORE_UNIT_K, 1,
         LORE_ORDER_STACKED},
        {"_orig_mod.base_model.model.model.layers.12._checkpoint_wrapped_module.mlp.gate_proj."
         "lora_A.weight",
         LORE_ROLE_A, 12, LORE_UNIT_GATE, 1, LORE_ORDER_STACKED},
        {"base_model.model.model.language_model.layers.1.self_attn.o_proj.lora_B.weight",
         LORE_ROLE_B, 1, LORE_UNIT_OUT, 1, LORE_ORDER_STACKED},
        {"base_model.model.lm_head.lora_A.weight", LORE_ROLE_A, -1, LORE_UNIT_HEAD, 1,
         LORE_ORDER_STACKED},
        {"model.layers.0.self_attn.qkv_proj.lora_A", LORE_ROLE_A, 0, LORE_UNIT_Q, 3,
         LORE_ORDER_STACKED},
        {"model.layers.0.mlp.gate_up_proj.lora_B.weight", LORE_ROLE_B, 0, LORE_UNIT_GATE, 2,
         LORE_ORDER_STACKED},
        {"layers.31.attn.q_proj.lora_a.weight", LORE_ROLE_A, 31, LORE_UNIT_Q, 1,
         LORE_ORDER_TORCHTUNE},
        {"layers.0.mlp.w2.lora_b.weight", LORE_ROLE_B, 0, LORE_UNIT_DOWN, 1, LORE_ORDER_STACKED},
        {"output.lora_a.weight", LORE_ROLE_A, -1, LORE_UNIT_HEAD, 1, LORE_ORDER_STACKED},
        {"layers.7.attention.wk.lora_B.weight", LORE_ROLE_B, 7, LORE_UNIT_K, 1, LORE_ORDER_PAIRED},
        {"layers.7.feed_forward.w3.lora_B.weight", LORE_ROLE_B, 7, LORE_UNIT_UP, 1,
         LORE_ORDER_STACKED},
        {"lora_te_text_model_encoder_layers_11_self_attn_v_proj.lora_up.weight", LORE_ROLE_B, 11,
         LORE_UNIT_V, 1, LORE_ORDER_STACKED},
        {"lora_unet_layers_1_mlp_down_proj.alpha", LORE_ROLE_ALPHA, 1, LORE_UNIT_DOWN, 1,
         LORE_ORDER_STACKED},
        {"lora_te_lm_head.lora_down.weight", LORE_ROLE_A, -1, LORE_UNIT_HEAD, 1,
         LORE_ORDER_STACKED},
        {"text_encoder.model.layers.2.self_attn.q_proj.lora_linear_layer.down.weight", LORE_ROLE_A,
         2, LORE_UNIT_Q, 1, LORE_ORDER_STACKED},
        {"transformer.layers.2.mlp.up_proj.lora.up.weight", LORE_ROLE_B, 2, LORE_UNIT_UP, 1,
         LORE_ORDER_STACKED},
        {"model.decoder.layers.4.self_attention.adapter_layer.lora_kqv_adapter.linear_in.weight",
         LORE_ROLE_A, 4, LORE_UNIT_Q, 3, LORE_ORDER_GROUPED},
        {"model.language_model.encoder.layers.4.mlp.adapter_layer.lora_hto4h_adapter.linear_out."
         "weight",
         LORE_ROLE_B, 4, LORE_UNIT_GATE, 2, LORE_ORDER_STACKED},
        {"module.decoder.layers.4.self_attention.linear_qkv.adapter.linear_out.weight", LORE_ROLE_B,
         4, LORE_UNIT_Q, 3, LORE_ORDER_GROUPED},
        {"model.decoder.layers.0.self_attention.adapter_layer.lora_unfused_kqv_adapter.k_adapter."
         "linear_in.weight",
         LORE_ROLE_A, 0, LORE_UNIT_K, 1, LORE_ORDER_STACKED},
        {"model.decoder.layers.0.mlp.adapter_layer.lora_unfused_hto4h_adapter.up_adapter.linear_"
         "out."
         "weight",
         LORE_ROLE_B, 0, LORE_UNIT_UP, 1, LORE_ORDER_STACKED}};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        means(NAMES[i].name, NAMES[i].role, NAMES[i].layer, NAMES[i].first, NAMES[i].count,
              NAMES[i].order);
        CHECK(!parse(NAMES[i].name).is_transposed);
    }
    means("model.layers.5.self_attn.q_proj.lora_a", LORE_ROLE_A, 5, LORE_UNIT_Q, 1,
          LORE_ORDER_STACKED);
    CHECK(parse("model.layers.5.self_attn.q_proj.lora_a").is_transposed); /* MLX-LM */
    CHECK(parse("model.layers.5.self_attn.q_proj.lora_b").is_transposed);
}

TEST(copies_of_the_base)
{
    const lore_adapter_key head = parse("base_model.model.lm_head.base_layer.weight");
    CHECK_INT(head.role, LORE_ROLE_BASE);
    CHECK_STR(lore_str_from(head.copy), "base_model.model.lm_head.base_layer.weight");
    CHECK_INT(parse("lm_head.weight").role, LORE_ROLE_BASE);
    const lore_adapter_key table = parse("base_model.model.model.embed_tokens.weight");
    CHECK_INT(table.role, LORE_ROLE_BASE);
    CHECK_STR(lore_str_from(table.copy), "base_model.model.model.embed_tokens.base_layer.weight");
    refused("base_model.model.model.layers.0.mlp.up_proj.weight", "not understood");
}

TEST(others_are_refused)
{
    static const char *const UNKNOWN[] = {
        "",
        ".",
        "x",
        ".lora_A.weight",
        "lora_A.weight",
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.q_proj.lora_A.weight.x",
        "model.layers.0.self_attn.q_proj.lora_A.a.b.weight",
        "model.layers.0.self_attn.q_proj.lora_C.weight",
        "model.layers.0.self_attn.query_key_value.lora_A.weight",
        "model.layers..self_attn.q_proj.lora_A.weight",
        "model.layers.00.self_attn.q_proj.lora_A.weight",
        "model.layers.-1.self_attn.q_proj.lora_A.weight",
        "model.layers.99999.self_attn.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.extra.lora_A.weight",
        "model.layers.0.lm_head.lora_A.weight",
        "self_attn.q_proj.lora_A.weight",
        "vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_te_layers_0_self_attn.q_proj.lora_down.weight",
        "transformer.h.0.attn.c_attn.lora_A.weight",
        "model.layers.0.self_attn.q_proj.alpha.weight"};
    for (size_t i = 0; i < sizeof UNKNOWN / sizeof UNKNOWN[0]; i++) {
        refused(UNKNOWN[i], "not understood");
    }
    refused("model.layers.0.mlp.up_proj.lora_magnitude_vector.default.weight", "DoRA");
    refused("lora_te_layers_0_mlp_up_proj.dora_scale", "DoRA");
    refused("model.layers.0.mlp.up_proj.m", "DoRA");
    refused("base_model.model.model.embed_tokens.lora_embedding_A", "embedding table");
    refused("base_model.model.model.embed_tokens.lora_A.weight", "embedding table");
    refused("base_model.model.lm_head.modules_to_save.default.weight", "modules_to_save");
    refused("lora_unet_layers_0_mlp_up_proj.hada_w1_a", "LoHa");
    refused("lora_unet_layers_0_mlp_up_proj.lokr_w1", "LoKr");
    refused("lora_unet_layers_0_mlp_up_proj.diff", "full rank");
    refused("base_model.model.model.layers.0.mlp.up_proj.bias", "bias");
    char long_name[700];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    refused(long_name, "too long a name");
}

/* Layers have four digits at most, and every module of the table can be said. */
TEST(every_module_has_a_name)
{
    char name[256];
    CHECK_INT(parse("layers.9999.mlp.w1.lora_a.weight").layer, 9999);
    for (int32_t i = 0; i < LORE_ADAPTER_MODULES; i++) {
        const lore_adapter_module *m = &lore_adapter_module_table[i];
        const bool is_head = m->first == LORE_UNIT_HEAD;
        CHECK(m->name != NULL && m->count >= 1 && (int32_t)m->first + m->count <= LORE_UNITS);
        snprintf(name, sizeof name, "model.%s%s.lora_A.weight", is_head ? "" : "layers.8.",
                 m->name);
        CHECK_INT(parse(name).module, i);
        snprintf(name, sizeof name, "lora_te_%s%s", is_head ? "" : "layers_8_", m->name);
        for (char *c = name; *c != '\0'; c++) {
            *c = *c == '.' ? '_' : *c;
        }
        snprintf(name + strlen(name), 32, ".lora_up.weight");
        CHECK_INT(parse(name).module, i);
    }
}

CHECK_MAIN(names_of_trainers, copies_of_the_base, others_are_refused, every_module_has_a_name)
