/* Penalties and biases of logits, one block a row.
 *
 * The lists come from the host: biases and texts of all rows lie behind one another in scratch,
 * behind two bits for each token of a vocabulary, which say what has been done to it. A pass over a
 * list for each kind of penalty, a barrier between them: the order is that of ops.h, and within a
 * kind the order of threads changes nothing, since a token is either done once or lowered by the
 * same amount each time. Some thousands of ids a row from the cache; the copies cost more. */
#include "kernels/cuda/cuda_int.h"

enum {
    THREADS = 256,
    ROWS_MAX = 32 /* of one launch: their description takes 1.8 of the 4 KiB of its parameters */
};

typedef struct penalised {
    float *logits;
    const int32_t *ids;
    const lore_bias *biases;
    unsigned *is_repeated, *is_present; /* a bit for each token: done */
    int32_t count, answer_start, bias_count;
    float repetition, presence, frequency;
} penalised;

typedef struct penalised_rows {
    penalised rows[ROWS_MAX];
} penalised_rows;

/* The first thread to set the bit does it. */
static __device__ __forceinline__ bool is_first(unsigned *is_done, int32_t id)
{
    const unsigned bit = 1u << (id % 32);
    return (atomicOr(&is_done[id / 32], bit) & bit) == 0;
}

static __global__ void __launch_bounds__(THREADS)
    penalise_kernel(const __grid_constant__ penalised_rows batch)
{
    const penalised &row = batch.rows[blockIdx.x];
    const int32_t first = (int32_t)threadIdx.x;
    const int32_t repeated = row.repetition != 1.0f ? row.count : 0;
    const int32_t counted = row.frequency != 0.0f ? row.count : 0;
    const int32_t present = row.presence != 0.0f ? row.count : 0;
    lore_cuda_release();
    lore_cuda_wait();
    for (int32_t i = first; i < row.bias_count; i += THREADS) {
        row.logits[row.biases[i].id] += row.biases[i].bias; /* each of another token */
    }
    __syncthreads();
    for (int32_t i = first; i < repeated; i += THREADS) {
        const int32_t id = row.ids[i];
        if (is_first(row.is_repeated, id)) {
            const float logit = row.logits[id];
            row.logits[id] = logit > 0.0f ? logit / row.repetition : logit * row.repetition;
        }
    }
    __syncthreads();
    for (int32_t i = row.answer_start + first; i < counted; i += THREADS) {
        atomicAdd(&row.logits[row.ids[i]], -row.frequency);
    }
    __syncthreads();
    for (int32_t i = row.answer_start + first; i < present; i += THREADS) {
        if (is_first(row.is_present, row.ids[i])) {
            atomicAdd(&row.logits[row.ids[i]], -row.presence);
        }
    }
}

static bool is_penalised(const lore_penalty *penalty)
{
    const bool has_factor = penalty->repetition != 1.0f && penalty->count > 0;
    const bool has_amount = (penalty->presence != 0.0f || penalty->frequency != 0.0f) &&
                            penalty->count > penalty->answer_start;
    return has_factor || has_amount || penalty->bias_count > 0;
}

/* Bits come first, so that one call clears them all; lists follow, row after row. */
typedef struct layout {
    size_t words; /* of one set of bits */
    unsigned *bits;
    char *lists;
} layout;

static size_t list_bytes(const lore_penalty *penalty)
{
    return (size_t)penalty->count * sizeof(int32_t) +
           (size_t)penalty->bias_count * sizeof(lore_bias);
}

/* Copies the lists of one row, describes it, and moves on to where the next one's lie. */
static penalised place_row(lore_queue *queue, layout *at, float *logits,
                           const lore_penalty *penalty)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const size_t id_bytes = (size_t)penalty->count * sizeof(int32_t);
    const size_t bias_bytes = (size_t)penalty->bias_count * sizeof(lore_bias);
    const penalised row = {logits,
                           (const int32_t *)at->lists,
                           (const lore_bias *)(at->lists + id_bytes),
                           at->bits,
                           at->bits + at->words,
                           penalty->count,
                           penalty->answer_start,
                           penalty->bias_count,
                           penalty->repetition,
                           penalty->presence,
                           penalty->frequency};
    if (id_bytes > 0) {
        LORE_CUDA_NOTE(queue, cudaMemcpyAsync(at->lists, penalty->ids, id_bytes,
                                              cudaMemcpyHostToDevice, stream));
    }
    if (bias_bytes > 0) {
        LORE_CUDA_NOTE(queue, cudaMemcpyAsync(at->lists + id_bytes, penalty->biases, bias_bytes,
                                              cudaMemcpyHostToDevice, stream));
    }
    at->bits += 2 * at->words;
    at->lists += id_bytes + bias_bytes;
    return row;
}

static void launch(lore_queue *queue, const penalised_rows *batch, int32_t rows)
{
    LORE_CUDA_NOTE(queue, lore_cuda_launch(queue, penalise_kernel, dim3((unsigned)rows),
                                           dim3(THREADS), 0, *batch));
}

void lore_cuda_penalise(lore_queue *queue, lore_view logits, const lore_penalty *penalties)
{
    const size_t words = ((size_t)logits.cols + 31) / 32;
    size_t rows = 0, bytes = 0;
    for (int32_t r = 0; r < logits.rows; r++) {
        if (is_penalised(&penalties[r])) {
            rows++;
            bytes += list_bytes(&penalties[r]);
        }
    }
    const size_t bits_bytes = rows * 2 * words * sizeof(unsigned);
    char *scratch = rows > 0 ? (char *)lore_cuda_scratch(queue, bits_bytes + bytes) : NULL;
    if (scratch == NULL) {
        return;
    }
    LORE_CUDA_NOTE(queue,
                   cudaMemsetAsync(scratch, 0, bits_bytes, lore_cuda_queue_of(queue)->stream));
    layout at = {words, (unsigned *)scratch, scratch + bits_bytes};
    penalised_rows batch;
    int32_t filled = 0;
    for (int32_t r = 0; r < logits.rows; r++) {
        if (is_penalised(&penalties[r])) {
            batch.rows[filled++] =
                place_row(queue, &at, logits.data + r * logits.stride, &penalties[r]);
        }
        if (filled == ROWS_MAX || (filled > 0 && r == logits.rows - 1)) {
            launch(queue, &batch, filled);
            filled = 0;
        }
    }
}
