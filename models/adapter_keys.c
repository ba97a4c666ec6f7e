/* Reading the names of tensors: the end says which half of a pair it is, the beginning must be
 * wrappers that mean nothing, and between them stand a layer and a matrix out of a table.
 *
 * kohya's names have underscores in place of dots, but for the end; a matrix is then found by its
 * name with underscores, too. */
#include "models/adapter_keys_int.h"

#include <limits.h>
#include <string.h>

enum { NAME_CAP = 512, LAYER_DIGITS_MAX = 4 };

#define NEMO_QKV "self_attention.adapter_layer.lora_unfused_kqv_adapter."
#define NEMO_FC1 "mlp.adapter_layer.lora_unfused_hto4h_adapter."

const lore_adapter_module lore_adapter_module_table[LORE_ADAPTER_MODULES] = {
    /* PEFT, MLX-LM; fused as Phi-3 and some trainers have them */
    {"self_attn.q_proj", LORE_UNIT_Q, 1, LORE_ORDER_STACKED},
    {"self_attn.k_proj", LORE_UNIT_K, 1, LORE_ORDER_STACKED},
    {"self_attn.v_proj", LORE_UNIT_V, 1, LORE_ORDER_STACKED},
    {"self_attn.o_proj", LORE_UNIT_OUT, 1, LORE_ORDER_STACKED},
    {"self_attn.qkv_proj", LORE_UNIT_Q, 3, LORE_ORDER_STACKED},
    {"mlp.gate_proj", LORE_UNIT_GATE, 1, LORE_ORDER_STACKED},
    {"mlp.up_proj", LORE_UNIT_UP, 1, LORE_ORDER_STACKED},
    {"mlp.down_proj", LORE_UNIT_DOWN, 1, LORE_ORDER_STACKED},
    {"mlp.gate_up_proj", LORE_UNIT_GATE, 2, LORE_ORDER_STACKED},
    /* torchtune */
    {"attn.q_proj", LORE_UNIT_Q, 1, LORE_ORDER_TORCHTUNE},
    {"attn.k_proj", LORE_UNIT_K, 1, LORE_ORDER_TORCHTUNE},
    {"attn.v_proj", LORE_UNIT_V, 1, LORE_ORDER_STACKED},
    {"attn.output_proj", LORE_UNIT_OUT, 1, LORE_ORDER_STACKED},
    {"mlp.w1", LORE_UNIT_GATE, 1, LORE_ORDER_STACKED},
    {"mlp.w2", LORE_UNIT_DOWN, 1, LORE_ORDER_STACKED},
    {"mlp.w3", LORE_UNIT_UP, 1, LORE_ORDER_STACKED},
    /* Meta, mistral-finetune */
    {"attention.wq", LORE_UNIT_Q, 1, LORE_ORDER_PAIRED},
    {"attention.wk", LORE_UNIT_K, 1, LORE_ORDER_PAIRED},
    {"attention.wv", LORE_UNIT_V, 1, LORE_ORDER_STACKED},
    {"attention.wo", LORE_UNIT_OUT, 1, LORE_ORDER_STACKED},
    {"feed_forward.w1", LORE_UNIT_GATE, 1, LORE_ORDER_STACKED},
    {"feed_forward.w2", LORE_UNIT_DOWN, 1, LORE_ORDER_STACKED},
    {"feed_forward.w3", LORE_UNIT_UP, 1, LORE_ORDER_STACKED},
    /* Megatron, NeMo 2 */
    {"self_attention.linear_qkv", LORE_UNIT_Q, 3, LORE_ORDER_GROUPED},
    {"self_attention.linear_proj", LORE_UNIT_OUT, 1, LORE_ORDER_STACKED},
    {"mlp.linear_fc1", LORE_UNIT_GATE, 2, LORE_ORDER_STACKED},
    {"mlp.linear_fc2", LORE_UNIT_DOWN, 1, LORE_ORDER_STACKED},
    /* NeMo 1 */
    {"self_attention.adapter_layer.lora_kqv_adapter", LORE_UNIT_Q, 3, LORE_ORDER_GROUPED},
    {NEMO_QKV "q_adapter", LORE_UNIT_Q, 1, LORE_ORDER_STACKED},
    {NEMO_QKV "k_adapter", LORE_UNIT_K, 1, LORE_ORDER_STACKED},
    {NEMO_QKV "v_adapter", LORE_UNIT_V, 1, LORE_ORDER_STACKED},
    {"self_attention.adapter_layer.lora_dense_attention_adapter", LORE_UNIT_OUT, 1,
     LORE_ORDER_STACKED},
    {"mlp.adapter_layer.lora_hto4h_adapter", LORE_UNIT_GATE, 2, LORE_ORDER_STACKED},
    {NEMO_FC1 "gate_adapter", LORE_UNIT_GATE, 1, LORE_ORDER_STACKED},
    {NEMO_FC1 "up_adapter", LORE_UNIT_UP, 1, LORE_ORDER_STACKED},
    {"mlp.adapter_layer.lora_4htoh_adapter", LORE_UNIT_DOWN, 1, LORE_ORDER_STACKED},
    /* outside of the layers */
    {"lm_head", LORE_UNIT_HEAD, 1, LORE_ORDER_STACKED},
    {"output", LORE_UNIT_HEAD, 1, LORE_ORDER_STACKED},
};

static lore_status refuse(lore_str name, const char *why, lore_error *err)
{
    return lore_fail(err, LORE_ERR_UNSUPPORTED, "tensor '" LORE_STR_FMT "' %s", LORE_STR_ARG(name),
                     why);
}

/* Other kinds of adapters, by what their tensors have in their names. */
static const char *other_kind(lore_str name)
{
    static const struct {
        const char *mark, *meaning;
    } MARKS[] = {{"lora_magnitude_vector", "is DoRA's, which is not supported"},
                 {"dora_scale", "is DoRA's, which is not supported"},
                 {".magnitude", "is DoRA's, which is not supported"},
                 {"lora_embedding_", "adapts the embedding table, which is not supported"},
                 {"embed_tokens.lora_", "adapts the embedding table, which is not supported"},
                 {"tok_embeddings.lora_", "adapts the embedding table, which is not supported"},
                 {"modules_to_save", "replaces a module (modules_to_save): not supported"},
                 {"hada_", "is LoHa's, which is not supported"},
                 {"lokr_", "is LoKr's, which is not supported"},
                 {"lora_mid", "is of a LoRA of convolutions, which is not supported"},
                 {"lora_bias", "is a bias, which adapters must not have here"},
                 {".bias", "is a bias, which adapters must not have here"},
                 {".diff", "is a change of full rank, which is no adapter"}};
    for (size_t i = 0; i < sizeof MARKS / sizeof MARKS[0]; i++) {
        if (lore_str_find(name, lore_str_from(MARKS[i].mark), 0) != SIZE_MAX) {
            return MARKS[i].meaning;
        }
    }
    return lore_str_ends(name, LORE_STR(".m")) ? "is DoRA's, which is not supported" : NULL;
}

/* ---- the end of a name ---- */

/* Take "text" off the end. */
static bool cut_end(lore_str *s, const char *text)
{
    const lore_str end = lore_str_from(text);
    if (!lore_str_ends(*s, end) || s->len == end.len) {
        return false;
    }
    s->len -= end.len;
    return true;
}

/* ".lora_A.NAME.weight": PEFT's own name of an adapter, which old versions wrote. */
static bool cut_named(lore_str *s, const char *half)
{
    const size_t at = lore_str_find(*s, lore_str_from(half), 0);
    if (at == SIZE_MAX || at == 0 || !lore_str_ends(*s, LORE_STR(".weight"))) {
        return false;
    }
    const size_t name = at + strlen(half), end = s->len - strlen(".weight");
    if (name >= end || memchr(s->ptr + name, '.', end - name) != NULL) {
        return false;
    }
    s->len = at;
    return true;
}

static bool cut_role(lore_str *s, lore_adapter_key *key)
{
    static const struct {
        const char *end;
        lore_adapter_role role;
        bool is_transposed;
    } ENDS[] = {{".lora_A.weight", LORE_ROLE_A, false},
                {".lora_B.weight", LORE_ROLE_B, false},
                {".lora_a.weight", LORE_ROLE_A, false}, /* torchtune */
                {".lora_b.weight", LORE_ROLE_B, false},
                {".lora_A", LORE_ROLE_A, false}, /* loralib */
                {".lora_B", LORE_ROLE_B, false},
                {".lora_a", LORE_ROLE_A, true}, /* MLX-LM */
                {".lora_b", LORE_ROLE_B, true},
                {".lora_down.weight", LORE_ROLE_A, false}, /* kohya */
                {".lora_up.weight", LORE_ROLE_B, false},
                {".lora.down.weight", LORE_ROLE_A, false}, /* diffusers */
                {".lora.up.weight", LORE_ROLE_B, false},
                {"_lora.down.weight", LORE_ROLE_A, false},
                {"_lora.up.weight", LORE_ROLE_B, false},
                {".lora_linear_layer.down.weight", LORE_ROLE_A, false},
                {".lora_linear_layer.up.weight", LORE_ROLE_B, false},
                {".adapter.linear_in.weight", LORE_ROLE_A, false}, /* NeMo */
                {".adapter.linear_out.weight", LORE_ROLE_B, false},
                {".linear_in.weight", LORE_ROLE_A, false},
                {".linear_out.weight", LORE_ROLE_B, false},
                {".alpha", LORE_ROLE_ALPHA, false},
                {".base_layer.weight", LORE_ROLE_BASE, false},
                {".weight", LORE_ROLE_BASE, false}};
    key->role = LORE_ROLE_A;
    if (cut_named(s, ".lora_A.")) {
        return true;
    }
    key->role = LORE_ROLE_B;
    if (cut_named(s, ".lora_B.")) {
        return true;
    }
    for (size_t i = 0; i < sizeof ENDS / sizeof ENDS[0]; i++) {
        if (cut_end(s, ENDS[i].end)) {
            key->role = ENDS[i].role;
            key->is_transposed = ENDS[i].is_transposed;
            return true;
        }
    }
    return false;
}

/* ---- its beginning ---- */

/* Take off words that wrap a model, each with `dot` behind it. */
static lore_str skip_wrappers(lore_str s, char dot)
{
    static const char *const DOTTED[] = {
        "base_model",     "model",   "module",       "decoder",     "text_model",
        "language_model", "encoder", "text_encoder", "transformer", NULL};
    static const char *const SCORED[] = {"lora",     "te",   "te1",         "te2",     "unet",
                                         "llm",      "text", "model",       "encoder", "decoder",
                                         "language", "base", "transformer", NULL};
    const char *const *words = dot == '.' ? DOTTED : SCORED;
    for (size_t i = 0; words[i] != NULL; i++) {
        const lore_str word = lore_str_from(words[i]);
        if (lore_str_starts(s, word) && s.len > word.len && s.ptr[word.len] == dot) {
            s = lore_str_slice(s, word.len + 1, s.len);
            i = SIZE_MAX; /* from the first word again */
        }
    }
    return s;
}

/* Copies the name without what torch.compile and FSDP put between its parts. */
static lore_str unwrap(lore_str name, char text[NAME_CAP])
{
    static const char *const INNER[] = {"_orig_mod.", "_fsdp_wrapped_module.",
                                        "_checkpoint_wrapped_module."};
    lore_str out = {text, 0};
    for (size_t at = 0; at < name.len;) {
        const lore_str rest = lore_str_slice(name, at, name.len);
        size_t skipped = 0;
        for (size_t i = 0; i < sizeof INNER / sizeof INNER[0]; i++) {
            const lore_str inner = lore_str_from(INNER[i]);
            const bool is_part = at == 0 || name.ptr[at - 1] == '.';
            skipped = is_part && lore_str_starts(rest, inner) ? inner.len : skipped;
        }
        if (skipped == 0) {
            text[out.len++] = name.ptr[at];
        }
        at += skipped > 0 ? skipped : 1;
    }
    return out;
}

/* Equal, where '.' of the table may be another sign. */
static bool is_module(lore_str s, const char *name, char dot)
{
    if (strlen(name) != s.len) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != (name[i] == '.' ? dot : name[i])) {
            return false;
        }
    }
    return true;
}

static bool find_module(lore_str s, char dot, lore_adapter_key *key)
{
    for (int32_t i = 0; i < LORE_ADAPTER_MODULES; i++) {
        const bool is_head = lore_adapter_module_table[i].first == LORE_UNIT_HEAD;
        if (is_head == (key->layer < 0) && is_module(s, lore_adapter_module_table[i].name, dot)) {
            key->module = i;
            return true;
        }
    }
    return false;
}

/* "layers.", digits, and a matrix; or a matrix outside. */
static bool find_place(lore_str s, char dot, lore_adapter_key *key)
{
    const lore_str layers = dot == '.' ? LORE_STR("layers.") : LORE_STR("layers_");
    size_t at = layers.len;
    int32_t layer = 0;
    key->layer = -1;
    if (!lore_str_starts(s, layers)) {
        return find_module(s, dot, key);
    }
    while (at < s.len && at < layers.len + LAYER_DIGITS_MAX && s.ptr[at] >= '0' &&
           s.ptr[at] <= '9') {
        layer = 10 * layer + (s.ptr[at++] - '0');
    }
    if (at == layers.len || at + 1 >= s.len || s.ptr[at] != dot ||
        (s.ptr[layers.len] == '0' && at > layers.len + 1)) {
        return false;
    }
    key->layer = layer;
    return find_module(lore_str_slice(s, at + 1, s.len), dot, key);
}

static bool find_copy(lore_str s, lore_adapter_key *key)
{
    const bool is_table = lore_str_equal(s, LORE_STR("embed_tokens"));
    key->layer = key->module = -1;
    key->copy = is_table ? "base_model.model.model.embed_tokens.base_layer.weight"
                         : "base_model.model.lm_head.base_layer.weight";
    return is_table || lore_str_equal(s, LORE_STR("lm_head"));
}

lore_status lore_adapter_key_parse(lore_str name, lore_adapter_key *key, lore_error *err)
{
    char text[NAME_CAP];
    *key = (lore_adapter_key){.layer = -1, .module = -1};
    const char *other = other_kind(name);
    if (other != NULL) {
        return refuse(name, other, err);
    }
    if (name.len > sizeof text) {
        return refuse(lore_str_slice(name, 0, 64), "... has too long a name", err);
    }
    lore_str s = unwrap(name, text);
    bool is_known = cut_role(&s, key);
    if (is_known) {
        const char dot = memchr(s.ptr, '.', s.len) != NULL || key->role == LORE_ROLE_BASE ||
                                 !lore_str_starts(s, LORE_STR("lora_"))
                             ? '.'
                             : '_';
        s = skip_wrappers(s, dot);
        is_known = key->role == LORE_ROLE_BASE ? find_copy(s, key) : find_place(s, dot, key);
    }
    return is_known ? LORE_OK
                    : refuse(name,
                             "has a name that is not understood: it is no part of an "
                             "adapter as any known trainer writes it",
                             err);
}
