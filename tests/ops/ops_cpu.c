/* Every op of the cpu backend, on every instruction set of this machine and in every precision,
 * against ref. */
#include "tests/ops/int4_cases.h"
#include "tests/ops/lora_cases.h"
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
        cases_int4(&on);
        cases_matmul_not_finite(&on);
        cases_lora(&on);
        if (i % 3 == 0) {
            cases_lora_gated(&on);
            cases_small(&on);
        } else if (i % 3 == 1) { /* attention is the other op that may round */
            cases_decoder(&on);
            cases_packed_attention(&on);
            cases_attention_not_finite(&on);
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
    const lore_matrix matrix = {.dtype = LORE_F32, .rows = 3, .cols = 64, .data = values};
    lore_weight *weight = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(on.test.backend, &matrix, 1, LORE_USE_MATMUL, &weight, &err), &err);
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

/* The ops that take scratch, each once, by number; false: there is no such op. */
static bool run_scratch_op(lore_queue *queue, int which, const lore_weight *table, lore_view out,
                           lore_view x)
{
    static const int32_t row_start[2] = {0, 2}, past[1] = {0}, page_start[2] = {0, 1},
                         pages[1] = {0};
    static float keys[2 * 4], values[2 * 4];
    static const int8_t vectors[8];
    static const lore_sample sample = {.top_p = 1.0f};
    const lore_attention attention = {.scale = 1.0f};
    const lore_batch batch = {1, 2, row_start, past, page_start, pages, 2, 2};
    const lore_pages held = {keys, values, LORE_F32, 1, 2, 1, 4};
    const lore_view queries = columns(x, 0, 4);
    const int32_t ids[2] = {0, 1};
    int32_t id = 0;
    float logprob = 0.0f;
    switch (which) {
    case 0:
        lore_op_attend_packed(queue, out, x, 1, 1, 1, row_start, 2, true, &attention);
        return true;
    case 1:
        lore_op_attend_paged(queue, out, queries, &held, &batch, &attention);
        return true;
    case 2:
        lore_op_sample(queue, &id, &logprob, columns(lore_view_of(x.data, 1, 12), 0, 4), &sample,
                       lore_drawing_of(&sample, 1));
        return true;
    case 3:
        lore_op_embed(queue, out, table, ids, 2.0f, false);
        return true;
    case 4:
        lore_op_scan(queue, out.data, vectors, 1.0f, vectors, x.data, 2, 4);
        return true;
    default:
        return false;
    }
}

/* Without memory for its scratch an op writes nothing, the failure is returned once by the next
 * sync, and the op works again afterwards. */
TEST(scratch_fails_everywhere)
{
    static const uint8_t data[2 * 2] = {0x21, 0x43, 0x65, 0x87};
    static const float scales[2] = {1.0f, 0.5f};
    const lore_matrix matrix = {
        .dtype = LORE_I4, .rows = 2, .cols = 4, .data = data, .scales = scales, .group = 32};
    int32_t failures = 0;
    for (int which = 0; which < 10; which++) {
        side on = {0};
        lore_weight *table = NULL;
        lore_error err = {0};
        float x[2 * 12] = {1.0f, 2.0f, 3.0f}, out[2 * 4];
        const lore_view to = lore_view_of(out, 2, 4), in = lore_view_of(x, 2, 12);
        side_open(&on,
                  &(lore_backend_options){.kind = which < 5 ? LORE_BACKEND_CPU : LORE_BACKEND_REF});
        CHECK_OK(lore_weight_pack(on.backend, &matrix, 1, LORE_USE_BOTH, &table, &err), &err);
        for (size_t i = 0; i < 8; i++) {
            out[i] = SENTINEL;
        }
        lore_mem_fail_at(1, true);
        CHECK(run_scratch_op(on.queue, which % 5, table, to, in));
        lore_mem_fail_at(0, false);
        const lore_status status = lore_queue_sync(on.queue, &err);
        if (which < 5 || status != LORE_OK) { /* ref needs no scratch for some of them */
            CHECK_FAILS(status, LORE_ERR_NOMEM, &err, "scratch");
            for (size_t i = 0; i < 8; i++) {
                CHECK_NEAR(out[i], SENTINEL, 0.0);
            }
            failures++;
        }
        CHECK(run_scratch_op(on.queue, which % 5, table, to, in));
        CHECK_OK(lore_queue_sync(on.queue, &err), &err);
        if (which % 5 == 3) { /* 2 * (1 - 8) and 2 * (8 - 8) / 2 */
            CHECK_NEAR(out[0], -14.0, 0.0);
            CHECK_NEAR(out[7], 0.0, 0.0);
        }
        lore_weight_free(table);
        side_close(&on);
    }
    CHECK_INT(failures, 8); /* all of cpu, attention and sampling of ref */
}

/* Every allocation of packing I4 with columns may fail: an error, no leak, and the next try works.
 */
TEST(cpu_int4_pack_fails)
{
    enum { ROWS = 5, COLS = 40 };
    static const uint8_t data[ROWS * COLS / 2] = {0};
    float scales[ROWS * 2] = {1.0f};
    int32_t columns[COLS];
    for (int32_t k = 0; k < COLS; k++) {
        columns[k] = COLS - 1 - k;
    }
    const lore_matrix matrix = {.dtype = LORE_I4,
                                .rows = ROWS,
                                .cols = COLS,
                                .data = data,
                                .scales = scales,
                                .group = 32,
                                .columns = columns};
    subject on;
    subject_open(&on, (lore_backend_options){.kind = LORE_BACKEND_CPU}, 0, "cpu, no memory");
    int32_t failures = 0;
    for (int64_t n = 1;; n++) {
        lore_weight *weight = NULL;
        lore_error err = {0};
        lore_mem_fail_at(n, false);
        const lore_status status =
            lore_weight_pack(on.test.backend, &matrix, 1, LORE_USE_BOTH, &weight, &err);
        lore_mem_fail_at(0, false);
        if (status == LORE_OK) {
            lore_weight_free(weight);
            break;
        }
        CHECK_FAILS(status, LORE_ERR_NOMEM, &err, "out of memory");
        CHECK(weight == NULL);
        failures++;
    }
    CHECK_INT(failures, 6); /* the weight, panels, columns, the table's part, two rows */
    subject_close(&on);
}

CHECK_MAIN(cpu_scalar, cpu_avx2, cpu_avx512, cpu_amx, cpu_scratch_fails, scratch_fails_everywhere,
           cpu_int4_pack_fails)
