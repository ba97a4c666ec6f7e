/* An adapter for an open decoder, on every linear layer and the head, of values that follow from
 * the names of its tensors. */
#ifndef LORE_TESTS_ADAPTED_FIXTURE_H
#define LORE_TESTS_ADAPTED_FIXTURE_H

#include "models/decoder_int.h"
#include "tests/unit/adapter_fixture.h"

static void adapted_matrices(tensor_file *file, const lore_decoder_config *config,
                             lore_linear which, int32_t layer, int32_t rank)
{
    const lore_linear_shape shape = lore_decoder_linear(config, which);
    for (int32_t i = 0; i < shape.part_count; i++) {
        char module[128];
        if (which == LORE_LINEAR_HEAD) {
            snprintf(module, sizeof module, "%s", shape.parts[i].stem);
        } else {
            snprintf(module, sizeof module, "model.layers.%d.%s", layer, shape.parts[i].stem);
        }
        adapter_pair(file, module, "F32", shape.parts[i].rows, shape.cols, rank);
    }
}

/* has_ffn: else attention alone. */
CHECK_UNUSED static lore_adapter *adapted_open(const lore_decoder *decoder, int32_t rank,
                                               double alpha, bool has_ffn)
{
    char folder[512], config[512];
    lore_error err = {0};
    lore_adapter *adapter = NULL;
    tensor_file file;
    lore_limits limits = ADAPTER_LIMITS;
    const int32_t end = has_ffn ? LORE_LINEAR_HEAD : LORE_LINEAR_GATE_UP;
    tensors_begin(&file);
    for (int32_t i = 0; i < decoder->config.layers; i++) {
        for (int32_t which = 0; which < end; which++) {
            adapted_matrices(&file, &decoder->config, (lore_linear)which, i, rank);
        }
    }
    if (has_ffn) {
        adapted_matrices(&file, &decoder->config, LORE_LINEAR_HEAD, -1, rank);
    }
    snprintf(folder, sizeof folder, "%s/adapter", check_temp_dir());
    snprintf(config, sizeof config,
             "{\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"r\": %d, "
             "\"lora_alpha\": %g, \"target_modules\": \"%s\"}",
             rank, alpha, has_ffn ? ".*(_proj|lm_head)" : ".*self_attn.*_proj");
    adapter_write(folder, config, &file);
    limits.adapter_file_bytes_max = 1 << 27;
    CHECK_OK(
        lore_adapter_open(folder, decoder, decoder->info.adapter_dtype, &limits, &adapter, &err),
        &err);
    return adapter;
}

#endif
