/* The search of vectors on ref and cpu: a few rows worked out by hand, then random ones against the
 * model of the accelerators' tests. */
#include "tests/ops/ops_cases.h"
#include "tests/ops/search_cases.h"

static void open_on(subject *on, lore_backend_kind kind, lore_isa isa, int32_t threads)
{
    subject_open(on, (lore_backend_options){.kind = kind, .isa = isa}, threads,
                 kind == LORE_BACKEND_REF ? "ref" : "cpu");
}

/* Best first, equals by row, nothing where nothing is left, NaN never. */
TEST(by_hand)
{
    subject on;
    open_on(&on, LORE_BACKEND_REF, LORE_ISA_AUTO, 0);
    const int8_t query[] = {1, 2}, vectors[] = {1, 0, 0, 1, 2, 0, 0, 1, 9, 9, 1, 1};
    const float one[] = {0.5f}, scales[] = {1, 1, 1, 1, NAN, 1};
    const uint32_t passing[] = {0x1f}; /* all but the last */
    const int32_t want_rows[] = {1, 2, 3, 0, -1};
    const float want_scores[] = {1, 1, 1, 0.5f, -INFINITY};
    int32_t rows[5];
    float scores[5];
    const lore_search search = {LORE_I8, 1, query, one, vectors, scales, passing, 6, 2};
    lore_op_search(on.ref.queue, rows, scores, 5, &search);
    sync(&on.ref);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(rows[i], want_rows[i]);
        CHECK(scores[i] == want_scores[i]);
    }
    lore_op_search(on.ref.queue, rows, scores, 2, &search);
    sync(&on.ref);
    CHECK_INT(rows[0], 1);
    CHECK_INT(rows[1], 2);
    subject_close(&on);
}

static void run_all(const subject *on)
{
    cases_search(on);
    cases_search_orders(on);
}

TEST(ref_against_model)
{
    subject on;
    open_on(&on, LORE_BACKEND_REF, LORE_ISA_AUTO, 0);
    run_all(&on);
    subject_close(&on);
}

TEST(cpu_against_model)
{
    subject on;
    open_on(&on, LORE_BACKEND_CPU, LORE_ISA_AUTO, 2);
    run_all(&on);
    cases_search_long(&on);
    subject_close(&on);
    open_on(&on, LORE_BACKEND_CPU, LORE_ISA_SCALAR, 0);
    run_all(&on);
    subject_close(&on);
}

CHECK_MAIN(by_hand, ref_against_model, cpu_against_model)
