/* Attention on the cpu backend: which queries and keys make one work item.
 *
 * An item is a run of rows of one sequence together with the query heads that share one key/value
 * head, at most LORE_ATTEND_VECTORS vectors: long enough that packing keys and values is small
 * change, short enough that one long prompt still feeds every core. Items are numbered (sequence,
 * run, kv head); a worker finds its sequence by walking the list, which is short beside the work of
 * an item. */
#include "kernels/cpu/cpu_int.h"

typedef struct attention {
    lore_attend common; /* what all items share */
    const lore_attention_loops *loops;
    char *scratch;
    size_t scratch_bytes; /* of one worker */
    int32_t sequences, kv_heads, run_rows;
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
    job->visible = work->batch->past[sequence] + first - work->row_start[sequence] + 1;
    job->key_count = job->visible + rows - 1;
    const int64_t room = (int64_t)pages->page_tokens * (work->batch->page_start[sequence + 1] -
                                                        work->batch->page_start[sequence]);
    LORE_ASSERT(job->key_count <= room);
}

static void aim_packed(const attention *work, lore_attend *job, int32_t sequence, int32_t head)
{
    const int32_t start = work->row_start[sequence];
    job->keys = work->keys + start * job->key_stride + (int64_t)head * job->head_dim;
    job->values = work->values + start * job->key_stride + (int64_t)head * job->head_dim;
    job->key_count = work->row_start[sequence + 1] - start;
    job->visible = job->key_count;
}

static void attend_item(const attention *work, int32_t sequence, int32_t run, int32_t kv_head,
                        void *scratch)
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
        aim_packed(work, &job, sequence, kv_head);
    }
    work->loops->attend(&job, scratch);
}

static void attend_items(void *self, int32_t begin, int32_t end, int32_t worker)
{
    const attention *work = self;
    void *scratch = work->scratch + (size_t)worker * work->scratch_bytes;
    int32_t sequence = 0, passed = 0; /* items of the sequences before this one */
    for (int32_t item = begin; item < end; item++) {
        while (item - passed >= runs_of(work, sequence) * work->kv_heads) {
            passed += runs_of(work, sequence) * work->kv_heads;
            sequence++;
        }
        attend_item(work, sequence, (item - passed) / work->kv_heads,
                    (item - passed) % work->kv_heads, scratch);
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
    work->scratch_bytes = (work->loops->scratch_bytes(work->common.head_dim) + 63) / 64 * 64;
    work->scratch =
        lore_host_scratch(queue, work->scratch_bytes * (size_t)lore_host_threads(queue));
    if (work->scratch != NULL) {
        lore_host_for(queue, items, 1, attend_items, work);
    }
}

void lore_cpu_attend_paged(lore_queue *queue, lore_view out, lore_view queries,
                           const lore_pages *pages, const lore_batch *batch, float scale)
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
                .is_causal = true,
                .scale = scale,
                .dtype = pages->dtype,
                .key_stride = pages->head_dim,
                .page_tokens = pages->page_tokens,
                .page_stride = (int64_t)pages->kv_heads * pages->page_tokens * pages->head_dim,
            },
        .sequences = batch->sequences,
        .kv_heads = pages->kv_heads,
        .row_start = batch->row_start,
        .pages = pages,
        .batch = batch,
    };
    run(queue, &work);
}

void lore_cpu_attend_packed(lore_queue *queue, lore_view out, lore_view qkv, int32_t heads,
                            int32_t sequences, const int32_t *row_start, int32_t rows_max,
                            float scale)
{
    (void)rows_max; /* keys are taken in blocks: no scratch depends on it */
    attention work = {
        .common =
            {
                .queries = qkv.data,
                .query_stride = qkv.stride,
                .out = out.data,
                .out_stride = out.stride,
                .heads = 1,
                .head_dim = out.cols / heads,
                .scale = scale,
                .dtype = LORE_F32,
                .key_stride = qkv.stride,
            },
        .sequences = sequences,
        .kv_heads = heads,
        .row_start = row_start,
        .keys = qkv.data + out.cols,
        .values = qkv.data + 2 * (int64_t)out.cols,
    };
    run(queue, &work);
}

/* ---- rotation and pages ---- */

typedef struct append {
    lore_view qkv;
    const lore_rope *rope;
    const lore_pages *pages;
    const lore_batch *batch;
    const lore_small_loops *loops;
} append;

static void append_row(const append *work, int32_t sequence, int32_t row)
{
    const lore_pages *pages = work->pages;
    const lore_rope *rope = work->rope;
    const lore_batch *batch = work->batch;
    const int32_t dim = pages->head_dim;
    const int32_t position = batch->past[sequence] + row - batch->row_start[sequence];
    LORE_ASSERT(position < rope->positions_max);
    const int32_t slot = batch->page_start[sequence] + position / pages->page_tokens;
    LORE_ASSERT(slot < batch->page_start[sequence + 1]);
    const int64_t page = batch->pages[slot], token = position % pages->page_tokens;
    LORE_ASSERT(page >= 0 && page < pages->page_count);
    const float *cosine = rope->cosine + (int64_t)position * (dim / 2);
    const float *sine = rope->sine + (int64_t)position * (dim / 2);
    float *head = work->qkv.data + row * work->qkv.stride;
    for (int32_t j = 0; j < rope->heads; j++, head += dim) {
        work->loops->rotate(head, LORE_F32, head, rope->q_norm, rope->eps, cosine, sine, dim);
    }
    const size_t element = lore_dtype_size(pages->dtype);
    for (int32_t j = 0; j < pages->kv_heads; j++, head += dim) {
        const size_t at =
            (size_t)(((page * pages->kv_heads + j) * pages->page_tokens + token) * dim) * element;
        const float *value = head + (int64_t)pages->kv_heads * dim;
        work->loops->rotate((char *)pages->keys + at, pages->dtype, head, rope->k_norm, rope->eps,
                            cosine, sine, dim);
        work->loops->convert((char *)pages->values + at, pages->dtype, value, dim);
    }
}

static void append_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const append *work = self;
    int32_t sequence = 0;
    for (int32_t row = begin; row < end; row++) {
        while (row >= work->batch->row_start[sequence + 1]) {
            sequence++;
        }
        append_row(work, sequence, row);
    }
}

void lore_cpu_rope_append(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                          const lore_pages *pages, const lore_batch *batch)
{
    LORE_ASSERT(pages->dtype == LORE_F32 || pages->dtype == LORE_BF16);
    append work = {qkv, rope, pages, batch, lore_cpu_of(queue)->small};
    lore_host_for(queue, qkv.rows, 32, append_rows, &work);
}
