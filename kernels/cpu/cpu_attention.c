/* Attention on the cpu backend: which queries and keys make one work item.
 *
 * An item is a run of rows of one sequence together with the query heads that share one key/value
 * head, at most LORE_ATTEND_VECTORS vectors: long enough that packing keys and values is small
 * change, short enough that one long prompt still feeds every core. Items are numbered (sequence,
 * run, kv head); a worker finds its sequence by walking the list, which is short beside the work of
 * an item.
 *
 * One sequence that decodes has as many items as key/value heads, fewer than many machines have
 * cores. Then the keys of an item are cut into parts, each a piece of work that also leaves the
 * logarithm of its sum of exponentials, by which the outputs of the parts are weighed and added
 * (flash-decoding: Dao et al. 2023). */
#include "kernels/cpu/cpu_attention_int.h"

#include <math.h>

enum { ROTATE_ROWS = 32 }; /* of one piece of work */

typedef struct attention {
    lore_attend common; /* what all items share */
    const lore_attention_loops *loops;
    char *scratch;
    size_t scratch_bytes; /* of one worker */
    int32_t sequences, kv_heads, run_rows;
    int32_t keys_max;    /* keys of the longest sequence */
    int32_t parts;       /* of the keys of an item */
    float *partials;     /* outputs and log sums of each part of each item */
    size_t partial_size; /* floats of one */
    const int32_t *row_start;
    const lore_pages *pages; /* NULL: packed */
    const lore_batch *batch;
    const float *keys, *values; /* packed: the key and value columns of the first row */
} attention;

static int32_t runs_of(const attention *work, int32_t sequence)
{
    const int32_t rows = work->row_start[sequence + 1] - work->row_start[sequence];
    return (rows + work->run_rows - 1) / work->run_rows;
}

static void aim_paged(const attention *work, lore_attend *job, int32_t sequence, int32_t first,
                      int32_t rows, int32_t kv_head)
{
    const lore_pages *pages = work->pages;
    const int64_t head_size = (int64_t)pages->page_tokens * pages->head_dim;
    const size_t offset = (size_t)(kv_head * head_size) * lore_dtype_size(pages->dtype);
    job->keys = (const char *)pages->keys + offset;
    job->values = (const char *)pages->values + offset;
    job->pages = work->batch->pages + work->batch->page_start[sequence];
    job->position = work->batch->past[sequence] + first - work->row_start[sequence];
    job->key_count = job->position + rows;
    const int64_t room = (int64_t)pages->page_tokens * (work->batch->page_start[sequence + 1] -
                                                        work->batch->page_start[sequence]);
    LORE_ASSERT(job->key_count <= room);
}

static void aim_packed(const attention *work, lore_attend *job, int32_t sequence, int32_t first,
                       int32_t kv_head)
{
    const int32_t start = work->row_start[sequence];
    const int64_t offset = start * job->key_stride + (int64_t)kv_head * job->head_dim;
    job->keys = work->keys + offset;
    job->values = work->values + offset;
    job->position = first - start;
    job->key_count = work->row_start[sequence + 1] - start;
}

/* Item (sequence, run, kv head) with all its keys. */
static lore_attend aim(const attention *work, int32_t sequence, int32_t run, int32_t kv_head)
{
    lore_attend job = work->common;
    const int32_t first = work->row_start[sequence] + run * work->run_rows;
    const int32_t left = work->row_start[sequence + 1] - first;
    const int64_t column = (int64_t)kv_head * job.heads * job.head_dim;
    job.rows = left < work->run_rows ? left : work->run_rows;
    job.queries += first * job.query_stride + column;
    job.out += first * job.out_stride + column;
    if (work->pages != NULL) {
        aim_paged(work, &job, sequence, first, job.rows, kv_head);
    } else {
        aim_packed(work, &job, sequence, first, kv_head);
    }
    return job;
}

/* Narrows an item to a part of the keys that it sees, with outputs of its own. False: the part is
 * empty. */
static bool aim_part(const attention *work, lore_attend *job, int32_t item, int32_t part)
{
    const int32_t vectors = job->rows * job->heads;
    const lore_key_span seen = lore_attend_seen(job, 0, vectors - 1, 0, job->key_count);
    const int32_t even = (seen.end - seen.begin + work->parts - 1) / work->parts;
    const int32_t size = even > LORE_ATTEND_KEYS ? even : LORE_ATTEND_KEYS;
    const int64_t begin = seen.begin + (int64_t)part * size;
    job->out = work->partials + (size_t)(item * work->parts + part) * work->partial_size;
    job->out_stride = (int64_t)job->heads * job->head_dim;
    job->log_sums = job->out + job->rows * job->out_stride;
    if (begin >= seen.end) {
        for (int32_t v = 0; v < vectors; v++) {
            job->log_sums[v] = -INFINITY;
        }
        return false;
    }
    job->key_begin = (int32_t)begin;
    job->key_count = seen.end - begin < size ? seen.end : (int32_t)begin + size;
    return true;
}

/* Items are numbered (sequence, run, kv head), pieces (item, part). */
static void attend_pieces(void *self, int32_t begin, int32_t end, int32_t worker)
{
    const attention *work = self;
    void *scratch = work->scratch + (size_t)worker * work->scratch_bytes;
    int32_t sequence = 0, passed = 0; /* items of the sequences before this one */
    for (int32_t piece = begin; piece < end; piece++) {
        const int32_t item = piece / work->parts;
        while (item - passed >= runs_of(work, sequence) * work->kv_heads) {
            passed += runs_of(work, sequence) * work->kv_heads;
            sequence++;
        }
        lore_attend job =
            aim(work, sequence, (item - passed) / work->kv_heads, (item - passed) % work->kv_heads);
        if (work->parts == 1 || aim_part(work, &job, item, piece % work->parts)) {
            work->loops->attend(&job, scratch);
        }
    }
}

/* The outputs of an item from those of its parts. A part of which a vector sees nothing has no
 * weight, and an output that is no number. */
static void join_parts(const attention *work, const lore_attend *job, int32_t item,
                       const lore_small_loops *loops)
{
    const int32_t dim = job->head_dim;
    const float *first = work->partials + (size_t)(item * work->parts) * work->partial_size;
    for (int32_t v = 0; v < job->rows * job->heads; v++) {
        const float *log_sums = first + (int64_t)job->rows * job->heads * dim + v;
        float *out = job->out + v / job->heads * job->out_stride + (int64_t)(v % job->heads) * dim;
        float top = -INFINITY, mass = 0.0f;
        for (int32_t part = 0; part < work->parts; part++) {
            top = fmaxf(top, log_sums[(size_t)part * work->partial_size]);
        }
        for (int32_t part = 0; part < work->parts; part++) {
            mass += expf(log_sums[(size_t)part * work->partial_size] - top);
        }
        bool is_adding = false;
        for (int32_t part = 0; part < work->parts; part++) {
            const float weight = expf(log_sums[(size_t)part * work->partial_size] - top) / mass;
            if (weight != 0.0f) {
                const float *from = first + (size_t)part * work->partial_size + (int64_t)v * dim;
                loops->embed(out, from, LORE_F32, weight, is_adding, dim);
                is_adding = true;
            }
        }
    }
}

static void join_items(const attention *work, const lore_small_loops *loops)
{
    for (int32_t item = 0, sequence = 0; sequence < work->sequences; sequence++) {
        for (int32_t i = 0; i < runs_of(work, sequence) * work->kv_heads; i++, item++) {
            const lore_attend job = aim(work, sequence, i / work->kv_heads, i % work->kv_heads);
            join_parts(work, &job, item, loops);
        }
    }
}

static void run(lore_queue *queue, attention *work)
{
    const lore_cpu_backend *backend = lore_cpu_of(queue);
    const bool is_rounded = backend->base.options.precision != LORE_PRECISION_F32 &&
                            (work->pages == NULL || work->pages->dtype == LORE_BF16);
    work->loops = is_rounded ? backend->attention_bf16 : backend->attention;
    work->run_rows = LORE_ATTEND_VECTORS / work->common.heads;
    LORE_ASSERT(work->run_rows > 0); /* 256 query heads on one key head: no such model */
    int32_t items = 0;
    for (int32_t s = 0; s < work->sequences; s++) {
        items += runs_of(work, s) * work->kv_heads;
    }
    if (items == 0) {
        return;
    }
    /* Memory for parts is always asked for, so that the largest batch warms it for the least. */
    const size_t threads = (size_t)lore_host_threads(queue);
    work->scratch_bytes = (work->loops->scratch_bytes(work->common.head_dim) + 63) / 64 * 64;
    work->partial_size = LORE_ATTEND_VECTORS * ((size_t)work->common.head_dim + 1);
    const size_t partial_bytes = work->partial_size * sizeof(float);
    work->scratch = lore_host_scratch(queue, threads * (work->scratch_bytes + partial_bytes));
    if (work->scratch == NULL) {
        return;
    }
    work->partials = (float *)(void *)(work->scratch + threads * work->scratch_bytes);
    const int32_t idle = (int32_t)threads / items, blocks = work->keys_max / LORE_ATTEND_KEYS;
    work->parts = idle < blocks ? idle : blocks;
    work->parts = work->parts > 1 ? work->parts : 1;
    lore_host_for(queue, items * work->parts, 1, attend_pieces, work);
    if (work->parts > 1) {
        join_items(work, backend->small);
    }
}

static int32_t keys_behind(const lore_attention *attend, bool is_causal)
{
    return attend->window == 0 ? INT32_MAX : attend->window - (is_causal ? 1 : 0);
}

void lore_cpu_attend_paged(lore_queue *queue, lore_view out, lore_view queries,
                           const lore_pages *pages, const lore_batch *batch,
                           const lore_attention *attend)
{
    LORE_ASSERT(pages->dtype == LORE_F32 || pages->dtype == LORE_BF16);
    attention work = {
        .common =
            {
                .queries = queries.data,
                .query_stride = queries.stride,
                .out = out.data,
                .out_stride = out.stride,
                .heads = out.cols / (pages->head_dim * pages->kv_heads),
                .head_dim = pages->head_dim,
                .behind = keys_behind(attend, true),
                .scale = attend->scale,
                .softcap = attend->softcap,
                .dtype = pages->dtype,
                .key_stride = pages->head_dim,
                .page_tokens = pages->page_tokens,
                .page_stride = (int64_t)pages->kv_heads * pages->page_tokens * pages->head_dim,
            },
        .sequences = batch->sequences,
        .kv_heads = pages->kv_heads,
        .row_start = batch->row_start,
        .keys_max = batch->context_max,
        .pages = pages,
        .batch = batch,
    };
    run(queue, &work);
}

void lore_cpu_attend_packed(lore_queue *queue, lore_view out, lore_view qkv, int32_t heads,
                            int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                            int32_t rows_max, bool is_causal, const lore_attention *attend)
{
    const int32_t dim = out.cols / heads;
    attention work = {
        .common =
            {
                .queries = qkv.data,
                .query_stride = qkv.stride,
                .out = out.data,
                .out_stride = out.stride,
                .heads = heads / kv_heads,
                .head_dim = dim,
                .behind = keys_behind(attend, is_causal),
                .ahead = is_causal ? 0 : keys_behind(attend, false),
                .scale = attend->scale,
                .softcap = attend->softcap,
                .dtype = LORE_F32,
                .key_stride = qkv.stride,
            },
        .sequences = sequences,
        .kv_heads = kv_heads,
        .row_start = row_start,
        .keys_max = rows_max,
        .keys = qkv.data + out.cols,
        .values = qkv.data + out.cols + (int64_t)kv_heads * dim,
    };
    run(queue, &work);
}

/* ---- rotation and pages ---- */

typedef struct rotation {
    lore_view qkv;
    const lore_rope *rope;
    int32_t kv_heads, head_dim;
    const int32_t *row_start;
    const lore_pages *pages; /* NULL: packed, keys stay where they are */
    const lore_batch *batch;
    const lore_small_loops *loops;
} rotation;

/* Where the key (or value) of a position lies in its pages, for the first key/value head. */
static int64_t page_offset(const rotation *work, int32_t sequence, int32_t position)
{
    const lore_pages *pages = work->pages;
    const lore_batch *batch = work->batch;
    const int32_t slot = batch->page_start[sequence] + position / pages->page_tokens;
    LORE_ASSERT(slot < batch->page_start[sequence + 1]);
    const int64_t page = batch->pages[slot], token = position % pages->page_tokens;
    LORE_ASSERT(page >= 0 && page < pages->page_count);
    return (page * pages->kv_heads * pages->page_tokens + token) * pages->head_dim;
}

static void rotate_row(const rotation *work, int32_t sequence, int32_t row)
{
    const lore_pages *pages = work->pages;
    const lore_rope *rope = work->rope;
    const int32_t size = work->head_dim, past = pages != NULL ? work->batch->past[sequence] : 0;
    const int32_t position = past + row - work->row_start[sequence];
    const int32_t start = pages != NULL && rope->starts != NULL ? rope->starts[sequence] : 0;
    LORE_ASSERT(start + position < rope->positions_max);
    const int64_t angles = (int64_t)(start + position) * (rope->dim / 2);
    const float *cosine = rope->cosine + angles, *sine = rope->sine + angles;
    float *head = work->qkv.data + row * work->qkv.stride;
    for (int32_t j = 0; j < rope->heads; j++, head += size) {
        work->loops->rotate(head, LORE_F32, head, rope->q_norm, rope->eps, cosine, sine, rope->dim,
                            size);
    }
    if (pages == NULL) {
        for (int32_t j = 0; j < work->kv_heads; j++, head += size) {
            work->loops->rotate(head, LORE_F32, head, rope->k_norm, rope->eps, cosine, sine,
                                rope->dim, size);
        }
        return;
    }
    const size_t element = lore_dtype_size(pages->dtype);
    size_t at = (size_t)page_offset(work, sequence, position) * element;
    for (int32_t j = 0; j < work->kv_heads; j++, head += size) {
        const float *value = head + (int64_t)work->kv_heads * size;
        work->loops->rotate((char *)pages->keys + at, pages->dtype, head, rope->k_norm, rope->eps,
                            cosine, sine, rope->dim, size);
        work->loops->convert((char *)pages->values + at, pages->dtype, value, size);
        at += (size_t)pages->page_tokens * (size_t)size * element;
    }
}

static void rotate_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const rotation *work = self;
    int32_t sequence = 0;
    for (int32_t row = begin; row < end; row++) {
        while (row >= work->row_start[sequence + 1]) {
            sequence++;
        }
        rotate_row(work, sequence, row);
    }
}

void lore_cpu_rope_append(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                          const lore_pages *pages, const lore_batch *batch)
{
    LORE_ASSERT(pages->dtype == LORE_F32 || pages->dtype == LORE_BF16);
    rotation work = {.qkv = qkv,
                     .rope = rope,
                     .kv_heads = pages->kv_heads,
                     .head_dim = pages->head_dim,
                     .row_start = batch->row_start,
                     .pages = pages,
                     .batch = batch,
                     .loops = lore_cpu_of(queue)->small};
    lore_host_for(queue, qkv.rows, ROTATE_ROWS, rotate_rows, &work);
}

void lore_cpu_rope_packed(lore_queue *queue, lore_view qkv, const lore_rope *rope, int32_t kv_heads,
                          int32_t head_dim, int32_t sequences, const int32_t *row_start)
{
    (void)sequences; /* rows know */
    rotation work = {.qkv = qkv,
                     .rope = rope,
                     .kv_heads = kv_heads,
                     .head_dim = head_dim,
                     .row_start = row_start,
                     .loops = lore_cpu_of(queue)->small};
    lore_host_for(queue, qkv.rows, ROTATE_ROWS, rotate_rows, &work);
}
