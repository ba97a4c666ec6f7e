/* A decoder that carries adapters, on ref and on a device whose work is done late: what steps give
 * does not depend on when adapters are seated, on whether a step is replayed, or on who else is in
 * it; and placing fails without a trace. (Whether the logits are right: golden_adapter_logits.c.)
 */
#include "tests/unit/deferred_backend.h"

#include "tests/unit/adapted_fixture.h"

#include <math.h>

enum { SLOTS = 3, SEQUENCES = 3, STEPS = 12, PAGE_TOKENS = 8, SEQUENCE_PAGES = 2, VOCAB = 272 };

static lore_limits limits_of(int32_t rank_max)
{
    lore_limits limits = LIMITS;
    limits.adapter_rank_max = rank_max;
    return limits;
}

static lore_decoder *open_decoder(lore_backend *backend, int32_t rank_max)
{
    lore_error err = {0};
    lore_decoder *decoder = NULL;
    const lore_limits limits = limits_of(rank_max);
    const lore_decoder_options options = {.rows_max = 32,
                                          .sequences_max = SEQUENCES + 1,
                                          .page_tokens = PAGE_TOKENS,
                                          .page_count = SEQUENCES * SEQUENCE_PAGES,
                                          .adapter_slots = SLOTS};
    CHECK_OK(lore_decoder_open(LORE_FAMILIES "/llama", backend, &limits, &options, &decoder, &err),
             &err);
    CHECK_INT(lore_decoder_get_info(decoder)->adapter_slots, SLOTS);
    CHECK_INT(lore_decoder_get_info(decoder)->vocab, VOCAB);
    return decoder;
}

static lore_adapter_placed *place(lore_decoder *decoder, int32_t rank, double alpha, bool has_ffn)
{
    lore_error err = {0};
    lore_adapter_placed *placed = NULL;
    lore_adapter *adapter = adapted_open(decoder, rank, alpha, has_ffn);
    CHECK_OK(lore_decoder_adapter_place(decoder, adapter, &placed, &err), &err);
    lore_adapter_close(adapter);
    return placed;
}

/* ---- steps of single rows ---- */

typedef struct arrays {
    int32_t ids[SEQUENCES], row_start[SEQUENCES + 1], past[SEQUENCES], page_start[SEQUENCES + 1];
    int32_t pages[SEQUENCES * SEQUENCE_PAGES], logits_rows[SEQUENCES], owners[SEQUENCES];
    lore_sample samples[SEQUENCES];
} arrays;

/* Token number t of every sequence, in the order of the ids of slots `owners`; NULL: none. */
static lore_step step_of(arrays *a, int32_t t, const int32_t *owners)
{
    for (int32_t s = 0; s < SEQUENCES; s++) {
        a->ids[s] = (31 * t + 7 * s) % 256;
        a->row_start[s] = a->logits_rows[s] = s;
        a->past[s] = t;
        a->page_start[s] = s * SEQUENCE_PAGES;
        a->samples[s] = (lore_sample){.top_p = 1};
        for (int32_t i = 0; i < SEQUENCE_PAGES; i++) {
            a->pages[s * SEQUENCE_PAGES + i] = s * SEQUENCE_PAGES + i;
        }
    }
    a->row_start[SEQUENCES] = SEQUENCES;
    a->page_start[SEQUENCES] = SEQUENCES * SEQUENCE_PAGES;
    if (owners != NULL) {
        memcpy(a->owners, owners, sizeof a->owners);
    }
    return (lore_step){.ids = a->ids,
                       .batch = {.sequences = SEQUENCES,
                                 .rows = SEQUENCES,
                                 .row_start = a->row_start,
                                 .past = a->past,
                                 .page_start = a->page_start,
                                 .pages = a->pages,
                                 .rows_max = 1,
                                 .context_max = t + 1},
                       .logits_rows = a->logits_rows,
                       .samples = a->samples,
                       .logits_count = SEQUENCES,
                       .adapters = owners != NULL ? a->owners : NULL};
}

static const int32_t NOBODY[SEQUENCES] = {-1, -1, -1};
/* Who has which slot in each step; NULL: the step names no adapters. */
static const int32_t *owners_of(int32_t t)
{
    static const int32_t MIXED[][SEQUENCES] = {{0, -1, 1}, {1, 1, -1}, {-1, 0, 0}};
    return t % 4 == 3 ? (t % 8 == 3 ? NULL : NOBODY) : MIXED[t % 4];
}

/* All steps, with another adapter in slot 0 from the sixth on, of a larger rank and on more layers:
 * logits [STEPS, SEQUENCES, VOCAB]. */
static float *run(lore_decoder *d)
{
    lore_error err = {0};
    lore_adapter_placed *placed[SLOTS] = {place(d, 3, 1.5, false), place(d, 8, 0.5, false), NULL};
    float *logits = lore_alloc(sizeof(float) * STEPS * SEQUENCES * VOCAB);
    int32_t ids[SEQUENCES];
    float logprobs[SEQUENCES];
    arrays a;
    CHECK(logits != NULL);
    lore_decoder_adapter_seat(d, 0, placed[0]);
    lore_decoder_adapter_seat(d, 1, placed[1]);
    for (int32_t t = 0; t < STEPS; t++) {
        if (t == STEPS / 2) {
            placed[2] = place(d, 24, 2.0, true);
            lore_decoder_adapter_seat(d, 0, placed[2]);
            lore_decoder_adapter_unplace(d, placed[0]);
        }
        const lore_step step = step_of(&a, t, owners_of(t));
        CHECK_OK(lore_decoder_step(d, &step, ids, logprobs, logits + t * SEQUENCES * VOCAB, &err),
                 &err);
    }
    lore_decoder_adapter_seat(d, 0, NULL);
    lore_decoder_adapter_seat(d, 1, NULL);
    lore_decoder_adapter_unplace(d, placed[1]);
    lore_decoder_adapter_unplace(d, placed[2]);
    return logits;
}

/* A device gives the bits of ref, with both kinds of buckets recorded on the way or before, and a
 * recording serves other adapters than those it was made with. */
TEST(late_device)
{
    const size_t bytes = sizeof(float) * STEPS * SEQUENCES * VOCAB;
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    lore_error err = {0};
    lore_decoder *ref = open_decoder(f.backend, 32);
    float *wanted = run(ref);
    deferred_backend device = deferred_open(f.backend, (int64_t)1 << 30);
    lore_decoder *d = open_decoder(&device.base, 32);
    const int32_t shapes = d->row_buckets * d->context_buckets;
    CHECK_INT(d->info.adapter_dtype, LORE_BF16); /* values that bf16 holds */
    for (int32_t turn = 0; turn < 3; turn++) {
        float *got = run(d);
        CHECK(memcmp(got, wanted, bytes) == 0);
        lore_free(got);
        int32_t adapted = 0;
        for (int32_t i = shapes; i < 2 * shapes; i++) {
            adapted += d->recorded[i].recording != NULL;
        }
        CHECK(adapted > 0 && device.replays > 0);
    }
    const int32_t serial = d->lora_serial, recordings = device.recordings;
    bool is_done = false;
    while (!is_done) {
        CHECK_OK(lore_decoder_prepare(d, &is_done, &err), &err);
    }
    for (int32_t i = 0; i < 2 * shapes; i++) {
        CHECK(d->recorded[i].recording != NULL);
    }
    CHECK(device.recordings > recordings);
    const int32_t all = device.recordings, replays = device.replays;
    float *got = run(d); /* nothing larger than before: all of it is there */
    CHECK(memcmp(got, wanted, bytes) == 0);
    CHECK_INT(device.recordings, all);
    CHECK_INT(device.replays, replays + STEPS);
    CHECK_INT(d->lora_serial, serial);
    lore_free(got);
    lore_decoder_close(d);
    lore_free(wanted);
    lore_decoder_close(ref);
    fixture_close(&f);
}

/* Two steps on their way, and the slot gets another adapter between them: the first keeps what it
 * began with. */
TEST(seats_change_under_steps)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    deferred_backend device = deferred_open(f.backend, (int64_t)1 << 30);
    lore_error err = {0};
    float logprobs[2][SEQUENCES], in_turn[2][SEQUENCES];
    int32_t ids[SEQUENCES];
    const int32_t owners[SEQUENCES] = {0, 0, -1};
    arrays a[2];
    lore_decoder *d = open_decoder(&device.base, 32);
    lore_adapter_placed *placed[2] = {place(d, 4, 3.0, true), place(d, 8, 1.0, true)};
    for (int32_t round = 0; round < 2; round++) {
        float(*to)[SEQUENCES] = round == 0 ? in_turn : logprobs;
        for (int32_t t = 0; t < 2; t++) {
            const lore_step step = step_of(&a[t], t, owners);
            lore_decoder_adapter_seat(d, 0, placed[t]);
            CHECK_OK(lore_decoder_submit(d, &step, &err), &err);
            if (round == 0) {
                CHECK_OK(lore_decoder_collect(d, ids, to[t], &err), &err);
            }
        }
        for (int32_t t = 0; t < 2 && round == 1; t++) {
            CHECK_OK(lore_decoder_collect(d, ids, to[t], &err), &err);
        }
    }
    CHECK(memcmp(logprobs, in_turn, sizeof in_turn) == 0);
    CHECK(in_turn[0][0] != in_turn[1][0]);
    lore_decoder_adapter_seat(d, 0, NULL);
    lore_decoder_adapter_unplace(d, placed[0]);
    lore_decoder_adapter_unplace(d, placed[1]);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* An adapter of several pieces of staging memory arrives as it is; one of a larger rank than the
 * limit is refused; and where memory or the device fails, nothing is taken. */
TEST(placing)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    deferred_backend device = deferred_open(f.backend, (int64_t)1 << 34);
    lore_error err = {0};
    lore_adapter_placed *placed = NULL;
    lore_decoder *d = open_decoder(&device.base, 512), *small = open_decoder(f.backend, 511);
    lore_adapter *adapter = adapted_open(d, 512, 1.0, true);
    const size_t bytes = lore_decoder_adapter_bytes(d, adapter);
    d->loader.piece_bytes = (size_t)1 << 16; /* less than there is */
    CHECK(bytes > 16 * d->loader.piece_bytes);
    CHECK_OK(lore_decoder_adapter_place(d, adapter, &placed, &err), &err);
    const lore_lora_product *products = placed->block;
    for (int32_t i = 0; i < d->config.layers * LORE_LINEAR_HEAD + 1; i++) {
        const lore_adapter_linear *linear = &adapter->linears[i];
        const size_t value = lore_dtype_size(adapter->dtype);
        CHECK_INT(products[i].rank, linear->rank);
        CHECK(memcmp(products[i].a, adapter->data + linear->a,
                     value * (size_t)linear->rank * (size_t)linear->cols) == 0);
        for (int32_t k = 0; k < linear->part_count; k++) {
            const lore_lora_part *part = &products[i].parts[k];
            CHECK_INT((uintptr_t)part->b % LORE_LORA_ALIGN, 0);
            CHECK(memcmp(part->b, adapter->data + linear->parts[k].b,
                         value * (size_t)part->rank * (size_t)part->columns) == 0);
        }
    }
    lore_decoder_adapter_unplace(d, placed);
    for (int64_t n = 1; n <= 3; n++) {
        lore_mem_fail_at(n, false);
        lore_status status = lore_decoder_adapter_place(d, adapter, &placed, &err);
        lore_mem_fail_at(0, false);
        CHECK_INT(status, LORE_ERR_NOMEM);
    }
    device.is_lost = true;
    CHECK_FAILS(lore_decoder_adapter_place(d, adapter, &placed, &err), LORE_ERR_DEVICE, &err,
                "lost");
    device.is_lost = false;
    CHECK_OK(lore_decoder_adapter_place(d, adapter, &placed, &err), &err);
    lore_decoder_adapter_unplace(d, placed);
    lore_adapter_close(adapter);
    lore_adapter *other = adapted_open(small, 512, 1.0, false);
    CHECK_FAILS(lore_decoder_adapter_place(small, other, &placed, &err), LORE_ERR_LIMIT, &err,
                "adapter_rank_max is 511");
    lore_adapter_close(other);
    lore_decoder_close(small);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* What launches are sized for grows in powers of two, but not beyond what the limit lets an adapter
 * have: scratch was taken for that. */
TEST(ranks_stay_within_scratch)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    deferred_backend device = deferred_open(f.backend, (int64_t)1 << 30);
    lore_decoder *d = open_decoder(&device.base, 24);
    lore_adapter_placed *small = place(d, 9, 1.0, false), *large = place(d, 24, 1.0, true);
    lore_decoder_adapter_seat(d, 0, small);
    CHECK_INT(d->lora_ranks[LORE_LINEAR_QKV], 32); /* of 27 */
    CHECK_INT(d->lora_ranks[LORE_LINEAR_ATTENTION_OUT], 16);
    CHECK_INT(d->lora_ranks[LORE_LINEAR_DOWN], 0);
    lore_decoder_adapter_seat(d, 1, large);
    for (int32_t i = 0; i < LORE_LINEARS; i++) {
        CHECK_INT(d->lora_ranks[i], lore_decoder_lora_rank_max(d, (lore_linear)i));
        CHECK(d->lora_ranks[i] >= large->rank_max[i]);
    }
    lore_decoder_adapter_seat(d, 0, NULL);
    lore_decoder_adapter_seat(d, 1, NULL);
    lore_decoder_adapter_unplace(d, small);
    lore_decoder_adapter_unplace(d, large);
    lore_decoder_close(d);
    fixture_close(&f);
}

/* On int8 weights the cpu rounds adapters to int8, too: near what ref makes of them. */
TEST(int8_is_near)
{
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    fixture g = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_AUTO);
    const fixture *const fixtures[2] = {&f, &g};
    float logits[3][SEQUENCES * VOCAB], logprobs[SEQUENCES];
    int32_t ids[SEQUENCES];
    const int32_t owners[SEQUENCES] = {0, -1, 0};
    lore_error err = {0};
    arrays a;
    double error = 0, change = 0;
    for (int32_t i = 0; i < 2; i++) {
        const lore_decoder_options options = {.rows_max = 8,
                                              .sequences_max = SEQUENCES,
                                              .page_tokens = PAGE_TOKENS,
                                              .page_count = SEQUENCES * SEQUENCE_PAGES,
                                              .adapter_slots = 1};
        const lore_limits limits = limits_of(32);
        lore_decoder *d = NULL;
        CHECK_OK(lore_decoder_open(LORE_FAMILIES "/quant-int8", fixtures[i]->backend, &limits,
                                   &options, &d, &err),
                 &err);
        CHECK_INT(lore_decoder_get_info(d)->vocab, VOCAB);
        lore_adapter_placed *placed = place(d, 16, 2.0, true);
        lore_decoder_adapter_seat(d, 0, placed);
        const lore_step step = step_of(&a, 0, owners), plain = step_of(&a, 0, NULL);
        CHECK_OK(lore_decoder_step(d, &step, ids, logprobs, logits[i], &err), &err);
        CHECK_OK(lore_decoder_step(d, &plain, ids, logprobs, logits[2], &err), &err);
        lore_decoder_adapter_seat(d, 0, NULL);
        lore_decoder_adapter_unplace(d, placed);
        lore_decoder_close(d);
    }
    for (int32_t i = 0; i < SEQUENCES * VOCAB; i++) {
        const double off = (double)logits[1][i] - (double)logits[0][i];
        const double moved = (double)logits[1][i] - (double)logits[2][i];
        error += off * off;
        change += moved * moved;
    }
    CHECK(change > 0 && sqrt(error / change) < 0.2);
    fixture_close(&f);
    fixture_close(&g);
}

CHECK_MAIN(late_device, seats_change_under_steps, placing, ranks_stay_within_scratch, int8_is_near)
