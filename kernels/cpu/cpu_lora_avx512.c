/* Adapters on AVX-512: bf16 by vdpbf16ps where there is that, bytes by vpdpbusd. */
#include "kernels/cpu/cpu_lora_body.h"

static void multiply(const lore_lora_job *job)
{
    switch (job->form) {
    case LORE_LORA_F32:
        multiply_form(LORE_LORA_F32, job);
        break;
    case LORE_LORA_WIDE:
        multiply_form(LORE_LORA_WIDE, job);
        break;
    case LORE_LORA_BF16:
        multiply_form(LORE_LORA_BF16, job);
        break;
    case LORE_LORA_INT8:
        multiply_form(LORE_LORA_INT8, job);
        break;
    }
}

const lore_lora_loops lore_lora_avx512 = {LORE_LORA_WIDE, true, turn, multiply};
const lore_lora_loops lore_lora_avx512_bf16 = {LORE_LORA_BF16, true, turn, multiply};
