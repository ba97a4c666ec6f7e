/* Attention for plain C: the loops of cpu_attention_body.h under the flags of this file. */
#include "kernels/cpu/cpu_attention_body.h"

const lore_attention_loops lore_attention_scalar = {scratch_bytes, attend};
