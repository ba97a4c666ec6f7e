/* Every op of an accelerator backend against ref: cuda, or the backend that LORE_TEST_BACKEND names
 * (ref, cpu, cuda). */
#include "tests/ops/ops_cases.h"

static lore_backend_kind kind_of_run(void)
{
    const char *name = getenv("LORE_TEST_BACKEND");
    if (name != NULL && strcmp(name, "ref") == 0) {
        return LORE_BACKEND_REF;
    }
    return name != NULL && strcmp(name, "cpu") == 0 ? LORE_BACKEND_CPU : LORE_BACKEND_CUDA;
}

static void run(lore_precision precision, bool has_small_ops)
{
    const lore_backend_kind kind = kind_of_run();
    if (kind == LORE_BACKEND_CUDA && lore_backend_cuda_count() == 0) {
        CHECK_SKIP("no CUDA device here, or built without CUDA");
    }
    if (kind == LORE_BACKEND_REF && precision != LORE_PRECISION_F32) {
        CHECK_SKIP("ref computes in f32 only");
    }
    subject on;
    char name[64];
    snprintf(name, sizeof name, "%s %s",
             kind == LORE_BACKEND_CUDA ? "cuda" : getenv("LORE_TEST_BACKEND"),
             lore_precision_name(precision));
    subject_open(&on, (lore_backend_options){.kind = kind, .precision = precision}, 0, name);
    cases_matmul(&on);
    cases_matmul_not_finite(&on);
    if (has_small_ops) {
        cases_small(&on);
    }
    subject_close(&on);
}

TEST(gpu_f32)
{
    run(LORE_PRECISION_F32, true);
}

TEST(gpu_bf16)
{
    run(LORE_PRECISION_BF16, false);
}

TEST(gpu_int8)
{
    run(LORE_PRECISION_INT8, false);
}

CHECK_MAIN(gpu_f32, gpu_bf16, gpu_int8)
