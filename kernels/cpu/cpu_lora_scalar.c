/* Adapters in plain C. */
#include "kernels/cpu/cpu_lora_body.h"

static void multiply(const lore_lora_job *job)
{
    if (job->form == LORE_LORA_F32) {
        multiply_form(LORE_LORA_F32, job);
    } else {
        multiply_form(LORE_LORA_WIDE, job);
    }
}

const lore_lora_loops lore_lora_scalar = {LORE_LORA_WIDE, false, turn, multiply};
