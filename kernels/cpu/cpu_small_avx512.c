/* The small ops for AVX-512: the loops of cpu_small_body.h under the flags of this file. */
#include "kernels/cpu/cpu_small_body.h"

const lore_small_loops lore_small_avx512 = {
    .rmsnorm = rmsnorm,
    .layernorm = layernorm,
    .glu = glu,
    .embed = embed,
    .rotate = rotate,
    .convert = convert,
    .add = add,
    .multiply = multiply,
    .softcap = softcap,
    .sum_squares = sum_squares,
    .sampling = {clean, sum_exp},
    .dot_i8 = dot_i8,
};
