/* The small ops on the cpu backend: norms, activation, embedding, pooling, gather, sampling and the
 * int8 scan. Each hands rows to the pool in pieces of some tens of kilobytes and lets the loops of
 * the instruction set work. */
#include "kernels/cpu/cpu_int.h"

#include <math.h>
#include <string.h>

enum { PIECE_ELEMENTS = 16384, ALIGN_BYTES = 64, SCAN_VECTORS = 256 };

/* Rows of `cols` elements that make a piece worth sending to another core. */
static int32_t rows_of_piece(int32_t cols)
{
    return PIECE_ELEMENTS / (cols + 1) + 1;
}

typedef struct small_work {
    lore_view out, x;
    const float *w, *b;
    float eps;
    float factor;   /* embed: of the rows; softcap: the cap */
    float *buffers; /* embed: a row for each worker, where the table has I4 */
    lore_activation activation;
    const int32_t *indexes; /* ids, rows or row_start */
    const int32_t *drawn;   /* embed: of ids below 0 */
    const lore_cpu_weight *table;
    bool flag; /* embed: accumulate; pool: normalise */
    lore_pooling pooling;
    const lore_small_loops *loops;
} small_work;

static void embed_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    const small_work *work = self;
    for (int32_t r = begin; r < end; r++) {
        int32_t row = lore_host_id(work->indexes, work->drawn, r);
        LORE_ASSERT(row >= 0 && row < work->table->base.rows);
        const lore_matrix *part = lore_matrix_find_part(work->table->parts, &row);
        float *out = work->out.data + r * work->out.stride;
        if (part->dtype == LORE_I4) {
            float *wide = work->buffers + (int64_t)worker * part->cols;
            lore_matrix_read_row(part, row, wide);
            work->loops->embed(out, wide, LORE_F32, work->factor, work->flag, part->cols);
            continue;
        }
        const size_t offset = (size_t)row * (size_t)part->cols * lore_dtype_size(part->dtype);
        const float scale = part->scales != NULL ? part->scales[row] : 1.0f;
        work->loops->embed(out, (const char *)part->data + offset, part->dtype,
                           scale * work->factor, work->flag, part->cols);
    }
}

static bool has_i4(const lore_cpu_weight *table)
{
    for (int32_t i = 0; i < table->part_count; i++) {
        if (table->parts[i].dtype == LORE_I4) {
            return true;
        }
    }
    return false;
}

void lore_cpu_embed(lore_queue *queue, lore_view out, const lore_weight *table, const int32_t *ids,
                    const int32_t *drawn, float scale, bool is_accumulating)
{
    const lore_cpu_weight *weight = (const lore_cpu_weight *)table;
    LORE_ASSERT(out.cols == table->cols);
    LORE_ASSERT(weight->parts != NULL); /* packed to embed */
    small_work work = {.out = out,
                       .indexes = ids,
                       .drawn = drawn,
                       .table = weight,
                       .factor = scale,
                       .flag = is_accumulating,
                       .loops = lore_cpu_of(queue)->small};
    if (has_i4(weight)) {
        work.buffers = lore_host_scratch(queue, (size_t)lore_host_threads(queue) *
                                                    (size_t)out.cols * sizeof *work.buffers);
        if (work.buffers == NULL) {
            return;
        }
    }
    lore_host_for(queue, out.rows, rows_of_piece(out.cols), embed_rows, &work);
}

static void rmsnorm_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const small_work *work = self;
    for (int32_t r = begin; r < end; r++) {
        work->loops->rmsnorm(work->out.data + r * work->out.stride,
                             work->x.data + r * work->x.stride, work->w, work->eps, work->x.cols);
    }
}

void lore_cpu_rmsnorm(lore_queue *queue, lore_view out, lore_view x, const float *w, float eps)
{
    small_work work = {.out = out, .x = x, .w = w, .eps = eps, .loops = lore_cpu_of(queue)->small};
    lore_host_for(queue, x.rows, rows_of_piece(x.cols), rmsnorm_rows, &work);
}

static void layernorm_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const small_work *work = self;
    for (int32_t r = begin; r < end; r++) {
        work->loops->layernorm(work->out.data + r * work->out.stride,
                               work->x.data + r * work->x.stride, work->w, work->b, work->eps,
                               work->x.cols);
    }
}

void lore_cpu_layernorm(lore_queue *queue, lore_view out, lore_view x, const float *w,
                        const float *b, float eps)
{
    small_work work = {
        .out = out, .x = x, .w = w, .b = b, .eps = eps, .loops = lore_cpu_of(queue)->small};
    lore_host_for(queue, x.rows, rows_of_piece(x.cols), layernorm_rows, &work);
}

static void glu_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const small_work *work = self;
    for (int32_t r = begin; r < end; r++) {
        const float *gate = work->x.data + r * work->x.stride;
        work->loops->glu(work->out.data + r * work->out.stride, gate, gate + work->out.cols,
                         work->activation, work->out.cols);
    }
}

void lore_cpu_glu(lore_queue *queue, lore_view out, lore_view gate_up, lore_activation activation)
{
    small_work work = {
        .out = out, .x = gate_up, .activation = activation, .loops = lore_cpu_of(queue)->small};
    /* An exponential and a division make an element four times as dear as in the other ops. */
    lore_host_for(queue, out.rows, rows_of_piece(4 * gate_up.cols), glu_rows, &work);
}

static void add_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const small_work *work = self;
    for (int32_t r = begin; r < end; r++) {
        work->loops->add(work->out.data + r * work->out.stride, work->x.data + r * work->x.stride,
                         work->x.cols);
    }
}

void lore_cpu_add(lore_queue *queue, lore_view out, lore_view x)
{
    small_work work = {.out = out, .x = x, .loops = lore_cpu_of(queue)->small};
    lore_host_for(queue, x.rows, rows_of_piece(x.cols), add_rows, &work);
}

/* Items are pieces of rows: logits are the widest rows there are, and mostly one. */
static void softcap_pieces(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const small_work *work = self;
    const int32_t pieces = (work->x.cols + PIECE_ELEMENTS - 1) / PIECE_ELEMENTS;
    for (int32_t item = begin; item < end; item++) {
        const int32_t first = item % pieces * PIECE_ELEMENTS, left = work->x.cols - first;
        work->loops->softcap(work->x.data + item / pieces * work->x.stride + first, work->factor,
                             left < PIECE_ELEMENTS ? left : PIECE_ELEMENTS);
    }
}

void lore_cpu_softcap(lore_queue *queue, lore_view x, float cap)
{
    small_work work = {.x = x, .factor = cap, .loops = lore_cpu_of(queue)->small};
    const int64_t pieces = (int64_t)x.rows * ((x.cols + PIECE_ELEMENTS - 1) / PIECE_ELEMENTS);
    LORE_ASSERT(pieces <= INT32_MAX);
    lore_host_for(queue, (int32_t)pieces, 1, softcap_pieces, &work);
}

static void pool_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const small_work *work = self;
    const int32_t cols = work->out.cols;
    for (int32_t i = begin; i < end; i++) {
        const int32_t first = work->indexes[i], last = work->indexes[i + 1] - 1;
        LORE_ASSERT(first <= last);
        float *out = work->out.data + i * work->out.stride;
        const int32_t from = work->pooling == LORE_POOL_LAST ? last : first;
        const int32_t to = work->pooling == LORE_POOL_CLS ? first : last;
        memcpy(out, work->x.data + from * work->x.stride, (size_t)cols * sizeof *out);
        for (int32_t r = from + 1; r <= to; r++) {
            work->loops->add(out, work->x.data + r * work->x.stride, cols);
        }
        work->loops->multiply(out, 1.0f / (float)(to - from + 1), cols);
        if (work->flag) {
            const float length = sqrtf(work->loops->sum_squares(out, cols));
            work->loops->multiply(out, 1.0f / (length > 1e-12f ? length : 1e-12f), cols);
        }
    }
}

void lore_cpu_pool(lore_queue *queue, lore_view out, lore_view x, const int32_t *row_start,
                   lore_pooling pooling, bool is_normalised)
{
    small_work work = {.out = out,
                       .x = x,
                       .indexes = row_start,
                       .pooling = pooling,
                       .flag = is_normalised,
                       .loops = lore_cpu_of(queue)->small};
    lore_host_for(queue, out.rows, 1, pool_rows, &work);
}

void lore_cpu_gather(lore_queue *queue, lore_view out, lore_view x, const int32_t *rows)
{
    (void)queue; /* a handful of rows a step: not worth the pool */
    for (int32_t i = 0; i < out.rows; i++) {
        LORE_ASSERT(rows[i] >= 0 && rows[i] < x.rows);
        memcpy(out.data + i * out.stride, x.data + rows[i] * x.stride,
               (size_t)out.cols * sizeof(float));
    }
}

/* ---- sampling ---- */

typedef struct sample_work {
    int32_t *ids;
    float *logprobs;
    lore_view logits;
    const lore_sample *samples;
    lore_candidate *candidates; /* [cols] a worker */
    const lore_row_math *math;
} sample_work;

static void sample_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    const sample_work *work = self;
    lore_candidate *candidates = work->candidates + (int64_t)worker * work->logits.cols;
    for (int32_t r = begin; r < end; r++) {
        lore_sample_row(&work->ids[r], &work->logprobs[r],
                        work->logits.data + r * work->logits.stride, work->logits.cols,
                        &work->samples[r], candidates, work->math);
    }
}

void lore_cpu_tops(lore_queue *queue, lore_likely *tops, lore_view logits,
                   const lore_sample *samples)
{
    lore_host_tops(queue, tops, logits, samples, &lore_cpu_of(queue)->small->sampling);
}

void lore_cpu_sample(lore_queue *queue, int32_t *ids, float *logprobs, lore_view logits,
                     const lore_sample *samples, lore_drawing widest)
{
    (void)widest; /* a row is looked at by itself */
    sample_work work = {ids, logprobs, logits, samples, NULL, &lore_cpu_of(queue)->small->sampling};
    const size_t workers = (size_t)lore_host_threads(queue);
    work.candidates =
        lore_host_scratch(queue, workers * (size_t)logits.cols * sizeof *work.candidates);
    if (work.candidates != NULL) {
        lore_host_for(queue, logits.rows, 1, sample_rows, &work);
    }
}

/* ---- scan ---- */

typedef struct scan_work {
    float *scores;
    const int8_t *query; /* padded */
    float query_scale;
    const int8_t *vectors;
    const float *scales;
    int64_t count;
    int32_t dim;
    const lore_small_loops *loops;
} scan_work;

/* Items are blocks of SCAN_VECTORS vectors, so that counts beyond int32 fit. */
static void scan_blocks(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const scan_work *work = self;
    int32_t sums[SCAN_VECTORS];
    for (int64_t block = begin; block < end; block++) {
        const int64_t first = block * SCAN_VECTORS;
        const int64_t count =
            work->count - first < SCAN_VECTORS ? work->count - first : SCAN_VECTORS;
        work->loops->dot_i8(sums, work->query, work->vectors + first * work->dim, count, work->dim);
        for (int64_t i = 0; i < count; i++) {
            work->scores[first + i] =
                (float)sums[i] * (work->query_scale * work->scales[first + i]);
        }
    }
}

void lore_cpu_scan(lore_queue *queue, float *scores, const int8_t *query, float query_scale,
                   const int8_t *vectors, const float *scales, int64_t count, int32_t dim)
{
    const int64_t blocks = (count + SCAN_VECTORS - 1) / SCAN_VECTORS;
    LORE_ASSERT(blocks <= INT32_MAX);
    const size_t padded = ((size_t)dim + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    int8_t *copy = lore_host_scratch(queue, padded);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, query, (size_t)dim);
    memset(copy + dim, 0, padded - (size_t)dim);
    scan_work work = {scores, copy,  query_scale, vectors,
                      scales, count, dim,         lore_cpu_of(queue)->small};
    const int32_t grain =
        1 + 1024 * 1024 / (SCAN_VECTORS * (dim + 1)); /* about a megabyte of vectors */
    lore_host_for(queue, (int32_t)blocks, grain, scan_blocks, &work);
}
