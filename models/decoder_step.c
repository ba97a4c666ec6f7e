/* One step of the decoder after the other: its arrays are checked and packed into one block that
 * one copy takes to the backend, the forward pass (decoder.c) runs over them, tokens are drawn from
 * its logits, and what was drawn is picked up when it is asked for.
 *
 * Two steps may be on their way, each with a block of its own. The second may feed on ids that the
 * first has not drawn yet (LORE_ID_DRAWN): they never leave the backend in between. A device works
 * without a pause then, while the host reads one step and plans the next.
 *
 * Single rows are computed in buckets on a device. What it does for n sequences, one row each, is
 * the same from token to token, so it is recorded once and replayed: some three hundred launches at
 * the price of one. A recording has fixed sizes: rows in buckets of 1, 2, 4, 8, 16, 24, 32, 48 ...
 * and the longest context in powers of two. Rows up to the bucket belong to sequences that nobody
 * has, of one token, on a page of their own that the scheduler does not know. So all launches of a
 * bucket are the same whoever is in it, and a row's result does not change with its neighbours.
 * The first step of a bucket runs as it is, which sizes scratch and loads kernels; the second is
 * recorded. Where that fails, steps stay as they are. Steps with adapters have buckets of their
 * own, which are the same whoever has which adapter. Steps with pieces of prompts are never
 * recorded. */
#include "models/decoder_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>

enum {
    KINDS = 2, /* of buckets: without adapters, and with them */
    CONTEXT_BUCKET_MIN = 256,
    BLOCK_ALIGNMENT = 64,
    TUNED_ROWS_MIN = 16,  /* fewer are the same whatever a library does, */
    TUNED_ROWS_MAX = 256, /* and more are a matter of arithmetic, which it predicts well */
    TUNED_LAYERS = 24     /* at least, so that each way is timed several times */
};

/* ---- the block of a step ---- */

static void *place(char *block, size_t *used, size_t count, size_t element_bytes)
{
    char *at = block != NULL ? block + *used : NULL;
    *used += count * element_bytes;
    *used = (*used + BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT * BLOCK_ALIGNMENT;
    return at;
}

size_t lore_step_memory_place(const lore_decoder *d, void *block, lore_step_memory *memory)
{
    size_t used = 0, sequences = (size_t)d->sequences_max;
    const bool has_slots = d->info.adapter_slots > 0;
    const size_t segments = has_slots ? sequences : 0, starts = has_slots ? sequences + 1 : 0;
    memory->adapters = place(block, &used, segments, sizeof *memory->adapters);
    memory->lora_starts = place(block, &used, starts, sizeof(int32_t));
    memory->lora_order = place(block, &used, has_slots ? (size_t)d->rows_max : 0, sizeof(int32_t));
    memory->head_starts = place(block, &used, starts, sizeof(int32_t));
    memory->head_order = place(block, &used, segments, sizeof(int32_t));
    memory->samples = place(block, &used, sequences, sizeof(lore_sample));
    memory->row_start = place(block, &used, sequences + 1, sizeof(int32_t));
    memory->past = place(block, &used, sequences, sizeof(int32_t));
    memory->page_start = place(block, &used, sequences + 1, sizeof(int32_t));
    memory->logits_rows = place(block, &used, sequences, sizeof(int32_t));
    memory->rope_starts = place(block, &used, sequences, sizeof(int32_t));
    memory->ids = place(block, &used, (size_t)d->rows_max, sizeof(int32_t));
    memory->pages = place(block, &used, (size_t)d->page_list_max + sequences, sizeof(int32_t));
    return used;
}

/* The scheduler's promises. Breaking one is our bug, and would be a write outside of a page. */
static void check_step(const lore_decoder *d, const lore_step *step)
{
    const lore_batch *b = &step->batch;
    LORE_ASSERT(b->rows <= d->rows_max && b->sequences <= d->sequences_max);
    LORE_ASSERT(step->logits_count <= d->sequences_max);
    LORE_ASSERT(b->row_start[0] == 0 && b->row_start[b->sequences] == b->rows);
    LORE_ASSERT(b->page_start[0] >= 0 && b->page_start[b->sequences] <= d->page_list_max);
    for (int32_t s = 0; s < b->sequences; s++) {
        int32_t rows = b->row_start[s + 1] - b->row_start[s];
        int32_t pages = b->page_start[s + 1] - b->page_start[s];
        LORE_ASSERT(rows >= 0 && rows <= b->rows_max && b->past[s] >= 0);
        LORE_ASSERT(b->past[s] + rows <= d->info.context && b->past[s] + rows <= b->context_max);
        LORE_ASSERT(pages >= lore_pages_for(b->past[s] + rows, d->info.page_tokens));
    }
    for (int32_t i = b->page_start[0]; i < b->page_start[b->sequences]; i++) {
        LORE_ASSERT(b->pages[i] >= 0 && b->pages[i] < d->info.page_count);
    }
    for (int32_t i = 0; i < b->rows; i++) {
        LORE_ASSERT(step->ids[i] < d->config.vocab && -1 - step->ids[i] < d->drawn_count);
    }
    for (int32_t i = 0; i < step->logits_count; i++) {
        LORE_ASSERT(step->logits_rows[i] >= 0 && step->logits_rows[i] < b->rows);
    }
}

static void copy_ints(int32_t *to, const int32_t *from, int32_t count)
{
    if (count > 0) { /* else there may be no array */
        memcpy(to, from, (size_t)count * sizeof *to);
    }
}

/* Which table the texts of the step are rotated by: longrope has one for texts within the original
 * length and one behind it for longer texts. */
static void fill_rope_starts(const lore_decoder *d, int32_t *starts, const lore_step *step)
{
    const lore_batch *b = &step->batch;
    for (int32_t s = 0; s < b->sequences; s++) {
        int32_t known = b->past[s] + b->row_start[s + 1] - b->row_start[s];
        int32_t length = step->lengths != NULL ? step->lengths[s] : known;
        LORE_ASSERT(length >= known);
        starts[s] = lore_rope_start(&d->config.rope, length);
    }
}

static void fill_block(const lore_decoder *d, const lore_step_memory *to, const lore_step *step)
{
    const lore_batch *b = &step->batch;
    copy_ints(to->ids, step->ids, b->rows);
    copy_ints(to->row_start, b->row_start, b->sequences + 1);
    copy_ints(to->past, b->past, b->sequences);
    copy_ints(to->page_start, b->page_start, b->sequences + 1);
    copy_ints(to->pages, b->pages, b->page_start[b->sequences]);
    copy_ints(to->logits_rows, step->logits_rows, step->logits_count);
    if (step->logits_count > 0) {
        memcpy(to->samples, step->samples, (size_t)step->logits_count * sizeof *to->samples);
    }
    fill_rope_starts(d, to->rope_starts, step);
}

/* Sequences that nobody has, from `first` up to `count`, one row each: token 0 on the last page,
 * which is theirs. All of them write the same there. */
static void pad_block(const lore_decoder *d, const lore_step_memory *to, int32_t first,
                      int32_t count)
{
    for (int32_t s = first; s < count; s++) {
        to->ids[s] = 0;
        to->past[s] = 0;
        to->row_start[s + 1] = s + 1;
        to->pages[to->page_start[s]] = d->info.page_count;
        to->page_start[s + 1] = to->page_start[s] + 1;
        to->rope_starts[s] = lore_rope_start(&d->config.rope, 1);
    }
}

/* One copy, of what is used. The batch comes back with pointers into the backend's memory. */
static lore_batch upload_block(lore_decoder *d, const lore_step_slot *slot, lore_batch batch,
                               int32_t segments)
{
    const char *begin = segments > 0 ? slot->block : (const char *)slot->at.samples;
    const char *end = (const char *)(slot->at.pages + slot->at.page_start[batch.sequences]);
    lore_queue_upload(d->queue, (char *)d->block + (begin - (const char *)slot->block), begin,
                      (size_t)(end - begin));
    batch.row_start = d->step.row_start;
    batch.past = d->step.past;
    batch.page_start = d->step.page_start;
    batch.pages = d->step.pages;
    return batch;
}

/* ---- buckets ---- */

/* 1, 2, 4, 8, 16, 24, 32, 48, 64, 96 ...: never more than half of a bucket is padding, above 16 a
 * third. */
static int32_t next_rows(int32_t bucket)
{
    if (bucket < 16) {
        return 2 * bucket;
    }
    return (bucket & (bucket - 1)) == 0 ? bucket / 2 * 3 : bucket / 3 * 4;
}

/* The bucket number `index` of single rows, and of the longest context. */
static int32_t rows_of(const lore_decoder *d, int32_t index)
{
    int32_t most = d->sequences_max < d->rows_max ? d->sequences_max : d->rows_max, bucket = 1;
    while (index-- > 0 && bucket < most) {
        bucket = next_rows(bucket);
    }
    return bucket < most ? bucket : most;
}

static int32_t context_of(const lore_decoder *d, int32_t index)
{
    int64_t bucket = (int64_t)CONTEXT_BUCKET_MIN << index;
    return bucket < d->info.context ? (int32_t)bucket : d->info.context;
}

typedef int32_t bucket_size(const lore_decoder *d, int32_t index);

/* The first bucket that holds so many. */
static int32_t find_bucket(const lore_decoder *d, bucket_size *size, int32_t wanted)
{
    int32_t index = 0;
    while (size(d, index) < wanted) {
        index++;
    }
    return index;
}

/* Of single rows, without adapters or with them: there is a bucket of each KIND. */
static int32_t shape_count(const lore_decoder *d)
{
    return d->row_buckets * d->context_buckets;
}

/* The bucket of a shape. With adapters one is begun anew once its launches are too small. */
static lore_bucket *take_bucket(lore_decoder *d, int32_t shape, bool has_adapters)
{
    lore_bucket *bucket = &d->recorded[shape + (has_adapters ? shape_count(d) : 0)];
    if (has_adapters && bucket->lora_serial != d->info.step_shapes) {
        lore_recording_free(bucket->recording);
        *bucket = (lore_bucket){.lora_serial = d->info.step_shapes};
    }
    return bucket;
}

lore_status lore_decoder_plan_buckets(lore_decoder *d, lore_error *err)
{
    d->is_bucketed = lore_backend_can_record(d->backend);
    if (!d->is_bucketed) {
        return LORE_OK;
    }
    int32_t most = d->sequences_max < d->rows_max ? d->sequences_max : d->rows_max;
    d->row_buckets = find_bucket(d, rows_of, most) + 1;
    d->context_buckets = find_bucket(d, context_of, d->info.context) + 1;
    d->recorded = lore_alloc_zero(KINDS * (size_t)shape_count(d), sizeof *d->recorded);
    return d->recorded != NULL ? LORE_OK
                               : lore_fail(err, LORE_ERR_NOMEM, "out of memory for the decoder");
}

void lore_decoder_free_buckets(lore_decoder *d)
{
    for (int32_t i = 0; d->recorded != NULL && i < KINDS * shape_count(d); i++) {
        lore_recording_free(d->recorded[i].recording);
    }
    lore_free(d->recorded);
}

/* Nothing is lost by a failure but speed, so it is said once, and no error. */
static void record(lore_decoder *d, lore_bucket *bucket, const lore_batch *batch, int32_t segments)
{
    lore_error err;
    lore_queue_record_begin(d->queue);
    lore_decoder_forward(d, batch, batch->rows, NULL, segments);
    if (lore_queue_record_end(d->queue, &bucket->recording, &err) != LORE_OK) {
        bucket->is_refused = true;
        lore_log(d->is_refusal_told ? LORE_LOG_DEBUG : LORE_LOG_WARN,
                 "event=not_recorded rows=%d context=%d effect=slower message=%s", (int)batch->rows,
                 (int)batch->context_max, LORE_LOG_STR(lore_str_from(err.message)));
        d->is_refusal_told = true;
    }
}

/* A bucket's pass: as recorded; recorded now, where it has run before; or as it is. Without a
 * bucket as it is. */
static void run_bucket(lore_decoder *d, lore_bucket *bucket, const lore_batch *batch,
                       const int32_t *logits_rows, int32_t segments)
{
    bool is_well = d->queue->error.status == LORE_OK;
    if (bucket != NULL && bucket->is_warm && bucket->recording == NULL && !bucket->is_refused &&
        is_well) {
        record(d, bucket, batch, segments);
    }
    if (bucket != NULL && bucket->recording != NULL) {
        lore_queue_replay(d->queue, bucket->recording);
        return;
    }
    lore_decoder_forward(d, batch, batch->rows, logits_rows, segments);
    if (bucket != NULL) {
        bucket->is_warm = true;
    }
}

/* A step that fits a bucket: every sequence has one row, and some row wants a token. */
static bool is_single_rows(const lore_step *step)
{
    return step->batch.rows == step->batch.sequences && step->batch.rows_max == 1 &&
           step->logits_count > 0;
}

/* Which rows of the step want a token; NULL: all of them, in order. */
static const int32_t *logits_rows_of(const lore_decoder *d, const lore_step *step)
{
    bool is_every = step->logits_count == step->batch.rows;
    for (int32_t i = 0; i < step->logits_count && is_every; i++) {
        is_every = step->logits_rows[i] == i;
    }
    return is_every ? NULL : d->step.logits_rows;
}

/* Pad what the slot holds of a step with single rows up to its bucket, and run that. Of adapters
 * there may be as many as rows. */
static void run_single_rows(lore_decoder *d, lore_step_slot *slot, const lore_step *step,
                            bool has_adapters)
{
    int32_t row_index = find_bucket(d, rows_of, step->batch.rows);
    int32_t context_index = find_bucket(d, context_of, step->batch.context_max);
    lore_batch batch = {.rows = rows_of(d, row_index),
                        .sequences = rows_of(d, row_index),
                        .rows_max = 1,
                        .context_max = context_of(d, context_index)};
    pad_block(d, &slot->at, step->batch.sequences, batch.sequences);
    for (int32_t i = step->logits_count; i < batch.rows; i++) {
        slot->at.logits_rows[i] = 0;
    }
    const int32_t segments = has_adapters ? batch.rows : 0;
    batch = upload_block(d, slot, batch, segments);
    const int32_t *logits_rows = logits_rows_of(d, step);
    lore_bucket *bucket = NULL;
    if (d->recorded != NULL && logits_rows == NULL) { /* others are rare */
        bucket = take_bucket(d, context_index * d->row_buckets + row_index, has_adapters);
    }
    run_bucket(d, bucket, &batch, logits_rows, segments);
}

/* ---- steps ---- */

/* The draws of the step, from the logits of its rows. */
static void draw(lore_decoder *d, lore_step_slot *slot, const lore_step *step)
{
    lore_view view = lore_view_of(d->logits, step->logits_count, d->config.vocab);
    if (step->penalties != NULL) {
        lore_op_penalise(d->queue, view, step->penalties);
    }
    slot->wanted = step->tops;
    if (step->tops != NULL) { /* before sampling, which may overwrite the logits */
        lore_op_tops(d->queue, d->tops, view, d->step.samples);
        lore_queue_download_later(d->queue, slot->tops, d->tops,
                                  (size_t)step->logits_count * LORE_TOPS_MAX * sizeof *d->tops);
    }
    lore_op_sample(d->queue, d->drawn, d->logprobs, view, d->step.samples,
                   lore_drawing_of(step->samples, step->logits_count));
    lore_queue_download_later(d->queue, slot->drawn, d->drawn, d->draws_bytes);
}

static void run_step(lore_decoder *d, lore_step_slot *slot, const lore_step *step, float *logits)
{
    const bool has_adapters = lore_step_has_adapters(step);
    const int32_t segments = has_adapters ? lore_step_memory_fill_adapters(d, &slot->at, step) : 0;
    fill_block(d, &slot->at, step);
    if (d->is_bucketed && is_single_rows(step)) {
        run_single_rows(d, slot, step, has_adapters);
    } else {
        lore_batch batch = upload_block(d, slot, step->batch, segments);
        lore_decoder_forward(d, &batch, step->logits_count, logits_rows_of(d, step), segments);
    }
    if (step->logits_count == 0) {
        return;
    }
    if (logits != NULL) {
        lore_queue_download(d->queue, logits, d->logits,
                            (size_t)step->logits_count * (size_t)d->config.vocab * sizeof(float));
    }
    draw(d, slot, step);
}

static lore_status submit(lore_decoder *d, const lore_step *step, float *logits, lore_error *err)
{
    int32_t which = (d->oldest + d->in_flight) % LORE_STEPS_MAX;
    LORE_ASSERT(d->in_flight < LORE_STEPS_MAX);
    lore_queue_begin(d->queue, LORE_PRIORITY_NORMAL);
    if (step->batch.rows > 0) {
        check_step(d, step);
        run_step(d, &d->slots[which], step, logits);
    }
    lore_status status = lore_queue_mark(d->queue, which, err);
    if (status != LORE_OK) { /* what was begun still reads the slot */
        lore_error echo;
        lore_status ended = lore_queue_sync(d->queue, &echo);
        (void)ended; /* the first failure is the one to tell */
        d->drawn_count = 0;
        return status;
    }
    d->slots[which].count = step->logits_count;
    d->drawn_count = step->logits_count;
    d->in_flight++;
    return LORE_OK;
}

lore_status lore_decoder_submit(lore_decoder *d, const lore_step *step, lore_error *err)
{
    return submit(d, step, NULL, err);
}

lore_status lore_decoder_collect(lore_decoder *d, int32_t *ids, float *logprobs, lore_error *err)
{
    LORE_ASSERT(d->in_flight > 0);
    const lore_step_slot *slot = &d->slots[d->oldest];
    lore_status status = lore_queue_wait_mark(d->queue, d->oldest, err);
    if (status == LORE_OK && slot->count > 0) {
        memcpy(ids, slot->drawn, (size_t)slot->count * sizeof *ids);
        memcpy(logprobs, slot->logprobs, (size_t)slot->count * sizeof *logprobs);
        if (slot->wanted != NULL) {
            memcpy(slot->wanted, slot->tops,
                   (size_t)slot->count * LORE_TOPS_MAX * sizeof *slot->tops);
        }
    }
    d->oldest = (d->oldest + 1) % LORE_STEPS_MAX;
    d->in_flight--;
    return status;
}

lore_status lore_decoder_step(lore_decoder *d, const lore_step *step, int32_t *ids, float *logprobs,
                              float *logits, lore_error *err)
{
    LORE_ASSERT(d->in_flight == 0);
    lore_status status = submit(d, step, logits, err);
    return status == LORE_OK ? lore_decoder_collect(d, ids, logprobs, err) : status;
}

/* ---- made ready ---- */

/* Run a batch of nobody's sequences, whose arrays stand in the first slot; as one that has
 * adapters, where segments are given, though nobody has any. */
static lore_status run_empty(lore_decoder *d, lore_batch batch, int32_t segments, lore_error *err)
{
    lore_queue_begin(d->queue, LORE_PRIORITY_NORMAL);
    if (segments > 0) {
        lore_step_memory_clear_adapters(d, &d->slots[0].at);
    }
    batch = upload_block(d, &d->slots[0], batch, segments);
    lore_decoder_forward(d, &batch, d->slots[0].count, d->step.logits_rows, segments);
    return lore_queue_sync(d->queue, err);
}

/* The next bucket runs once, or is recorded where it has run; those with adapters once there are
 * some. */
lore_status lore_decoder_prepare(lore_decoder *d, bool *is_done, lore_error *err)
{
    const int32_t shapes = shape_count(d), count = (d->info.step_shapes > 0 ? KINDS : 1) * shapes;
    int32_t i = 0, shape = 0;
    lore_bucket *bucket = NULL;
    LORE_ASSERT(d->in_flight == 0);
    for (*is_done = true; i < count; i++) {
        shape = i % shapes;
        bucket = take_bucket(d, shape, i >= shapes);
        if (bucket->recording == NULL && !bucket->is_refused) {
            *is_done = false;
            break;
        }
    }
    if (*is_done) {
        return LORE_OK;
    }
    lore_step_slot *slot = &d->slots[0];
    lore_batch batch = {.rows = rows_of(d, shape % d->row_buckets),
                        .sequences = rows_of(d, shape % d->row_buckets),
                        .rows_max = 1,
                        .context_max = context_of(d, shape / d->row_buckets),
                        .row_start = d->step.row_start,
                        .past = d->step.past,
                        .page_start = d->step.page_start,
                        .pages = d->step.pages};
    const int32_t segments = i >= shapes ? batch.rows : 0;
    if (bucket->is_warm) {
        record(d, bucket, &batch, segments);
        return lore_queue_sync(d->queue, err);
    }
    slot->count = batch.rows;
    slot->at.row_start[0] = slot->at.page_start[0] = 0;
    pad_block(d, &slot->at, 0, batch.sequences);
    memset(slot->at.logits_rows, 0, (size_t)batch.rows * sizeof(int32_t));
    lore_status status = run_empty(d, batch, segments, err);
    bucket->is_warm = status == LORE_OK;
    return status;
}

/* So many rows of prompts, in as few sequences of nobody's as hold them. */
static lore_status run_pieces(lore_decoder *d, int32_t rows, int32_t segments, lore_error *err)
{
    lore_step_slot *slot = &d->slots[0];
    lore_step_memory *at = &slot->at;
    lore_batch batch = {.context_max = d->info.context};
    at->row_start[0] = at->page_start[0] = 0;
    while (batch.rows < rows && batch.sequences < d->sequences_max) {
        int32_t s = batch.sequences++, left = rows - batch.rows;
        int32_t piece = left < d->info.context ? left : d->info.context;
        int32_t pages = lore_pages_for(piece, d->info.page_tokens);
        at->row_start[s + 1] = at->row_start[s] + piece;
        at->page_start[s + 1] = at->page_start[s] + pages;
        for (int32_t i = at->page_start[s]; i < at->page_start[s + 1]; i++) {
            at->pages[i] = d->info.page_count; /* what stands there afterwards is read by nobody */
        }
        at->past[s] = 0;
        at->rope_starts[s] = lore_rope_start(&d->config.rope, piece);
        batch.rows_max = piece > batch.rows_max ? piece : batch.rows_max;
        batch.rows += piece;
    }
    slot->count = d->sequences_max;
    memset(at->ids, 0, (size_t)batch.rows * sizeof(int32_t));
    memset(at->logits_rows, 0, (size_t)d->sequences_max * sizeof(int32_t));
    return run_empty(d, batch, segments, err);
}

lore_status lore_decoder_size_scratch(lore_decoder *d, lore_error *err)
{
    lore_status status = run_pieces(d, d->rows_max, 0, err);
    for (int32_t i = 0; i < LORE_LINEARS; i++) {
        d->lora_ranks[i] = lore_decoder_lora_rank_max(d, (lore_linear)i);
    }
    if (status == LORE_OK && d->info.adapter_slots > 0) {
        status = run_pieces(d, d->rows_max, d->sequences_max, err);
    }
    memset(d->lora_ranks, 0, sizeof d->lora_ranks);
    return status;
}

/* The weights of all layers together are larger than a cache, as in any step; with few layers one
 * pass does not come round to every way often enough. */
lore_status lore_decoder_tune(lore_decoder *d, lore_error *err)
{
    const int64_t begin_ns = lore_clock_ns();
    const int32_t most = d->rows_max < TUNED_ROWS_MAX ? d->rows_max : TUNED_ROWS_MAX;
    lore_status status = LORE_OK;
    for (int32_t rows = TUNED_ROWS_MIN; rows <= most && status == LORE_OK; rows = next_rows(rows)) {
        lore_queue_tune(d->queue, true);
        for (int32_t layers = 0; layers < TUNED_LAYERS && status == LORE_OK;
             layers += d->config.layers) {
            status = run_pieces(d, rows, 0, err);
        }
        lore_queue_tune(d->queue, false);
    }
    lore_log(LORE_LOG_DEBUG, "event=tuned duration_ms=%.1f",
             (double)(lore_clock_ns() - begin_ns) * 1e-6);
    return status;
}

/* ---- facts ---- */

const lore_decoder_info *lore_decoder_get_info(const lore_decoder *decoder)
{
    return &decoder->info;
}

const lore_tokenizer *lore_decoder_tokenizer(const lore_decoder *decoder)
{
    return decoder->tokenizer;
}
