/* Every op of an accelerator backend against ref: cuda, or the backend that LORE_TEST_BACKEND names
 * (ref, cpu, cuda). */
#include "tests/ops/ops_cases.h"

static void run(lore_precision precision, void (*cases)(const subject *on))
{
    subject on;
    subject_of_run(&on, precision);
    cases(&on);
    subject_close(&on);
}

/* One test a family of ops: the first failure ends a test, not the run. */
#define GPU_TEST(name, precision, cases) \
    TEST(name)                           \
    {                                    \
        run(precision, cases);           \
    }

GPU_TEST(gpu_matmul_f32, LORE_PRECISION_F32, cases_matmul)
GPU_TEST(gpu_matmul_bf16, LORE_PRECISION_BF16, cases_matmul)
GPU_TEST(gpu_embed, LORE_PRECISION_F32, cases_embed)
GPU_TEST(gpu_gather, LORE_PRECISION_F32, cases_gather)
GPU_TEST(gpu_norms, LORE_PRECISION_F32, cases_norms)
GPU_TEST(gpu_glu, LORE_PRECISION_F32, cases_glu)
GPU_TEST(gpu_activations, LORE_PRECISION_F32, cases_activations)
GPU_TEST(gpu_add_and_softcap, LORE_PRECISION_F32, cases_add_and_softcap)
GPU_TEST(gpu_pool, LORE_PRECISION_F32, cases_pool)
GPU_TEST(gpu_decoder_f32, LORE_PRECISION_F32, cases_decoder)
GPU_TEST(gpu_decoder_bf16, LORE_PRECISION_BF16, cases_decoder)
GPU_TEST(gpu_packed_attention_f32, LORE_PRECISION_F32, cases_packed_attention)
GPU_TEST(gpu_packed_attention_bf16, LORE_PRECISION_BF16, cases_packed_attention)
GPU_TEST(gpu_rope_packed, LORE_PRECISION_F32, cases_rope_packed)
GPU_TEST(gpu_attention_not_finite_f32, LORE_PRECISION_F32, cases_attention_not_finite)
GPU_TEST(gpu_attention_not_finite_bf16, LORE_PRECISION_BF16, cases_attention_not_finite)
GPU_TEST(gpu_not_finite_f32, LORE_PRECISION_F32, cases_matmul_not_finite)
GPU_TEST(gpu_not_finite_bf16, LORE_PRECISION_BF16, cases_matmul_not_finite)
GPU_TEST(gpu_penalise, LORE_PRECISION_F32, cases_penalise)
GPU_TEST(gpu_embed_drawn, LORE_PRECISION_F32, cases_embed_drawn)
GPU_TEST(gpu_sample, LORE_PRECISION_F32, cases_sample)
GPU_TEST(gpu_sample_extremes, LORE_PRECISION_F32, cases_sample_extremes)
GPU_TEST(gpu_sample_neighbours, LORE_PRECISION_F32, cases_sample_neighbours)
GPU_TEST(gpu_tops, LORE_PRECISION_F32, cases_tops)
GPU_TEST(gpu_golden_draws, LORE_PRECISION_F32, cases_golden_draws)
GPU_TEST(gpu_scan, LORE_PRECISION_F32, cases_scan)

CHECK_MAIN(gpu_matmul_f32, gpu_matmul_bf16, gpu_embed, gpu_gather, gpu_norms, gpu_glu,
           gpu_activations, gpu_add_and_softcap, gpu_pool, gpu_decoder_f32, gpu_decoder_bf16,
           gpu_packed_attention_f32, gpu_packed_attention_bf16, gpu_rope_packed,
           gpu_attention_not_finite_f32, gpu_attention_not_finite_bf16, gpu_not_finite_f32,
           gpu_not_finite_bf16, gpu_penalise, gpu_embed_drawn, gpu_sample, gpu_sample_extremes,
           gpu_sample_neighbours, gpu_tops, gpu_golden_draws, gpu_scan)
