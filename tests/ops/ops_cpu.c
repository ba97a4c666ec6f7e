/* Every op of the cpu backend, on every instruction set of this machine and in every precision,
 * against ref. */
#include "tests/ops/ops_cases.h"

static void run_isa(lore_isa isa)
{
    if (isa > lore_backend_isa()) {
        char why[96];
        snprintf(why, sizeof why, "this machine has no %s", lore_isa_name(isa));
        CHECK_SKIP(why);
    }
    static const lore_precision precisions[] = {LORE_PRECISION_F32, LORE_PRECISION_BF16,
                                                LORE_PRECISION_INT8};
    for (int i = 0; i < 6;
         i++) { /* alone and on a pool of three, more than small loops have pieces */
        subject on;
        char name[64];
        const lore_backend_options options = {.kind = LORE_BACKEND_CPU,
                                              .isa = isa,
                                              .precision = precisions[i % 3],
                                              .priority = i % 3 - 1};
        snprintf(name, sizeof name, "cpu %s %s, %s", lore_isa_name(isa),
                 lore_precision_name(options.precision), i < 3 ? "one thread" : "three threads");
        subject_open(&on, options, i < 3 ? 0 : 3, name);
        cases_matmul(&on);
        if (i % 3 == 0) {
            cases_small(&on);
        } else { /* attention is the other op that may round */
            cases_decoder(&on);
            cases_encoder_attention(&on);
        }
        subject_close(&on);
    }
}

/* Plain C agrees with ref. */
TEST(cpu_scalar)
{
    run_isa(LORE_ISA_SCALAR);
}

TEST(cpu_avx2)
{
    run_isa(LORE_ISA_AVX2);
}

TEST(cpu_avx512)
{
    run_isa(LORE_ISA_AVX512);
}

TEST(cpu_amx)
{
    run_isa(LORE_ISA_AMX);
}

/* A table whose rows are borrowed until the weight is freed, and a step whose scratch cannot grow:
 * the failure waits in the queue and is returned once by the next sync. */
TEST(cpu_scratch_fails)
{
    subject on;
    subject_open(&on,
                 (lore_backend_options){.kind = LORE_BACKEND_CPU, .precision = LORE_PRECISION_INT8},
                 0, "cpu, no memory");
    float values[64 * 3] = {1.0f}, x[64] = {1.0f}, out[3];
    const lore_matrix matrix = {LORE_F32, 3, 64, values, NULL};
    lore_weight *weight = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(on.test.backend, &matrix, 1, false, &weight, &err), &err);
    lore_mem_fail_at(1, true);
    lore_op_matmul(on.test.queue, lore_view_of(out, 1, 3), lore_view_of(x, 1, 64), weight,
                   (lore_epilogue){0});
    lore_mem_fail_at(0, false);
    CHECK_FAILS(lore_queue_sync(on.test.queue, &err), LORE_ERR_NOMEM, &err, "scratch");
    CHECK_OK(lore_queue_sync(on.test.queue, &err), &err);
    lore_op_matmul(on.test.queue, lore_view_of(out, 1, 3), lore_view_of(x, 1, 64), weight,
                   (lore_epilogue){0});
    CHECK_OK(lore_queue_sync(on.test.queue, &err), &err);
    CHECK_NEAR(out[0], 1.0f, 1e-5);
    lore_weight_free(weight);
    subject_close(&on);
}

CHECK_MAIN(cpu_scalar, cpu_avx2, cpu_avx512, cpu_amx, cpu_scratch_fails)
