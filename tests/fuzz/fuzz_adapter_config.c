/* Fuzz target of an adapter's adapter_config.json: it is parsed, and asked of all modules of a
 * small decoder.
 *
 * Property: any bytes are a configuration within the documented bounds, whose ranks and scales are
 * such too, or refused with a message; nothing takes long, whatever expressions stand in it; all
 * memory is given back. */
#include "models/adapter_int.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

static void check_modules(lore_adapter_config *config)
{
    static const char *const MODULES[] = {"model.layers.0.self_attn.q_proj",
                                          "model.layers.0.self_attn.o_proj",
                                          "model.layers.0.mlp.gate_up_proj",
                                          "model.layers.1.self_attn.q_proj",
                                          "model.layers.1.mlp.down_proj",
                                          "lm_head",
                                          "model.embed_tokens"};
    for (size_t i = 0; i < sizeof MODULES / sizeof MODULES[0]; i++) {
        lore_adapter_target target;
        lore_error err = {.status = LORE_OK};
        lore_status status = lore_adapter_config_match(config, lore_str_from(MODULES[i]),
                                                       i < 5 ? (int32_t)i / 3 : -1, &target, &err);
        if (status != LORE_OK) {
            fuzz_check_refusal(status, &err);
            LORE_ASSERT(status == LORE_ERR_LIMIT);
        } else if (target.is_hit) {
            LORE_ASSERT(target.rank >= 1 && target.rank <= 512);
            LORE_ASSERT(isfinite(target.scale) && target.scale > 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str input = {(const char *)data, size};
    lore_adapter_config config;
    lore_error err = {.status = LORE_OK};
    const lore_limits limits = {.adapter_rank_max = 512};
    lore_status status = lore_adapter_config_parse(input, "input.json", &limits, &config, &err);
    if (status == LORE_OK) {
        LORE_ASSERT(config.rank >= 1 && config.rank <= 512 && config.alpha > 0);
        check_modules(&config);
        lore_adapter_config_destroy(&config);
    } else {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, "input.json") != NULL);
    }
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
