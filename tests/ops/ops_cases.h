/* Every op on a backend under test, against ref, at ragged sizes.
 *
 * A case draws its inputs from a seed, runs the op on ref and on the subject through the backend
 * API (so that device memory works), and compares by normalised error: largest difference over the
 * root mean square of ref's answer. Outputs lie between sentinels and in rows wider than their
 * columns; both must stay untouched. Where the precision changes inputs (bf16, int8), ref is given
 * the inputs already rounded the way ops.h says, so tolerances stay those of f32 sums and a wrong
 * rounding shows.
 *
 * Included by ops_ref.c, ops_cpu.c and ops_gpu.c; a seed printed with a failure replays with
 * LORE_TEST_SEED. */
#ifndef LORE_TESTS_OPS_CASES_H
#define LORE_TESTS_OPS_CASES_H

#include "tests/ops/attention_cases.h"
#include "tests/ops/matmul_cases.h"
#include "tests/ops/sample_cases.h"
#include "tests/ops/small_cases.h"

/* All ops but matmul, which has precisions of its own. */
CHECK_UNUSED static void cases_small(const subject *on)
{
    cases_embed(on);
    cases_gather(on);
    cases_norms(on);
    cases_glu(on);
    cases_activations(on);
    cases_add_and_softcap(on);
    cases_pool(on);
    cases_decoder(on);
    cases_packed_attention(on);
    cases_rope_packed(on);
    cases_attention_not_finite(on);
    cases_penalise(on);
    cases_embed_drawn(on);
    cases_sample(on);
    cases_sample_extremes(on);
    cases_sample_neighbours(on);
    cases_tops(on);
    cases_golden_draws(on);
    cases_scan(on);
}

#endif
