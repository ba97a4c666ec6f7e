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
    const int32_t serial = d->info.step_shapes, recordings = device.recordings;
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
    CHECK_INT(d->info.step_shapes, serial);
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

/* ---- neighbours ---- */

enum { ROWS_MAX = 9, MIXED = 6, KNOWN = 3 };

typedef struct mixed_arrays {
    int32_t ids[MIXED * KNOWN], row_start[MIXED + 1], past[MIXED], page_start[MIXED + 1];
    int32_t pages[MIXED], logits_rows[MIXED];
    lore_sample samples[MIXED];
} mixed_arrays;

/* So many rows: single ones of sequences with `past` tokens, and every other time two at once. */
static lore_step mixed_step(mixed_arrays *a, int32_t rows, int32_t each, int32_t past,
                            const int32_t *owners)
{
    int32_t count = 0, most = 1;
    for (int32_t r = 0; r < rows; count++) {
        const int32_t wanted = each > 0 ? each : 1 + count % 2;
        const int32_t some = wanted < rows - r ? wanted : rows - r;
        most = some > most ? some : most;
        a->row_start[count] = r;
        a->past[count] = past;
        a->page_start[count] = a->pages[count] = count;
        a->samples[count] = (lore_sample){.top_p = 1};
        for (int32_t i = 0; i < some; i++, r++) {
            a->ids[r] = (31 * (past + i) + 7 * count) % 256;
        }
        a->logits_rows[count] = r - 1;
        a->row_start[count + 1] = r;
        a->page_start[count + 1] = count + 1;
    }
    return (lore_step){.ids = a->ids,
                       .batch = {.sequences = count,
                                 .rows = rows,
                                 .row_start = a->row_start,
                                 .past = a->past,
                                 .page_start = a->page_start,
                                 .pages = a->pages,
                                 .rows_max = most,
                                 .context_max = past + most},
                       .logits_rows = a->logits_rows,
                       .samples = a->samples,
                       .logits_count = count,
                       .adapters = owners};
}

static void check_neighbours(lore_decoder *d, int32_t rows)
{
    static const int32_t NONE[MIXED] = {-1, -1, -1, -1, -1, -1};
    static const int32_t OWNERS[][MIXED] = {
        {0, -1, 1, 0, -1, 2}, {-1, 0, 0, -1, 1, -1}, {0, 0, 0, 0, 0, 0}, {2, 1, -1, 0, 2, 1}};
    enum { MIXES = sizeof OWNERS / sizeof OWNERS[0] };
    float alone[SLOTS + 1][MIXED * VOCAB], mixed[MIXED * VOCAB], logprobs[MIXED];
    int32_t ids[MIXED];
    mixed_arrays a;
    lore_error err = {0};
    const lore_step known = mixed_step(&a, MIXED * KNOWN, KNOWN, 0, NULL);
    CHECK_OK(lore_decoder_step(d, &known, ids, logprobs, NULL, &err), &err);
    for (int32_t i = 0; i <= SLOTS; i++) { /* sequence s of `alone[i + 1]`: it alone has slot i */
        for (int32_t s = 0; s < (i == 0 ? 1 : MIXED); s++) {
            int32_t owners[MIXED];
            float logits[MIXED * VOCAB];
            memcpy(owners, NONE, sizeof owners);
            owners[s] = i - 1;
            const lore_step step = mixed_step(&a, rows, 0, KNOWN, i == 0 ? NULL : owners);
            if (s >= step.batch.sequences) {
                break;
            }
            CHECK_OK(lore_decoder_step(d, &step, ids, logprobs, logits, &err), &err);
            memcpy(alone[i] + s * VOCAB, logits + s * VOCAB,
                   (size_t)(i == 0 ? MIXED : 1) * VOCAB * sizeof *logits);
        }
    }
    for (int32_t m = 0; m < MIXES; m++) {
        const lore_step step = mixed_step(&a, rows, 0, KNOWN, OWNERS[m]);
        CHECK_OK(lore_decoder_step(d, &step, ids, logprobs, mixed, &err), &err);
        for (int32_t s = 0; s < step.batch.sequences; s++) {
            const float *wanted = alone[OWNERS[m][s] + 1] + s * VOCAB;
            CHECK(memcmp(mixed + s * VOCAB, wanted, VOCAB * sizeof *wanted) == 0);
            CHECK(OWNERS[m][s] < 0 ||
                  memcmp(wanted, alone[0] + s * VOCAB, VOCAB * sizeof *wanted) != 0);
        }
    }
}

/* On every instruction set of this machine, with one to nine rows, single ones and pieces of
 * prompts mixed: a row has the bits that it has where nobody else has an adapter, and where it has
 * none itself, those of a step without any. */
TEST(neighbours_change_nothing)
{
    static const char *const FOLDERS[] = {LORE_FAMILIES "/llama", LORE_FAMILIES "/quant-int8"};
    static const lore_precision PRECISIONS[] = {LORE_PRECISION_F32, LORE_PRECISION_AUTO};
    const lore_limits limits = limits_of(32);
    const lore_decoder_options options = {.rows_max = 32,
                                          .sequences_max = MIXED,
                                          .page_tokens = PAGE_TOKENS,
                                          .page_count = MIXED,
                                          .adapter_slots = SLOTS};
    for (int32_t isa = LORE_ISA_SCALAR; isa <= (int32_t)lore_backend_isa(); isa++) {
        for (int32_t i = 0; i < 4; i++) {
            const lore_backend_options how = {
                .kind = LORE_BACKEND_CPU, .isa = (lore_isa)isa, .precision = PRECISIONS[i % 2]};
            lore_error err = {0};
            lore_backend *backend = NULL;
            lore_decoder *d = NULL;
            lore_adapter_placed *placed[SLOTS];
            CHECK_OK(lore_backend_open(&how, &backend, &err), &err);
            CHECK_OK(lore_decoder_open(FOLDERS[i / 2], backend, &limits, &options, &d, &err), &err);
            for (int32_t k = 0; k < SLOTS; k++) {
                placed[k] = place(d, 3 + 5 * k, 2.0 + k, k != 1);
                lore_decoder_adapter_seat(d, k, placed[k]);
            }
            for (int32_t rows = 1; rows <= ROWS_MAX; rows++) {
                check_neighbours(d, rows);
            }
            for (int32_t k = 0; k < SLOTS; k++) {
                lore_decoder_adapter_seat(d, k, NULL);
                lore_decoder_adapter_unplace(d, placed[k]);
            }
            lore_decoder_close(d);
            lore_backend_close(backend);
        }
    }
}

CHECK_MAIN(late_device, seats_change_under_steps, placing, ranks_stay_within_scratch, int8_is_near,
           neighbours_change_nothing)
