/* The most probable tokens of each row, with their log probabilities; logits never leave the
 * device.
 *
 * A tournament: every thread keeps the best of the logits that it reads, so that after the winner
 * has been taken only the logits of its thread must be read again, by all threads together. One
 * block a row, which it reads twice, some ten microseconds each time at 128k; then less than two
 * microseconds for each winner. Rows that want none are passed over. */
#include "kernels/cuda/cuda_sample_int.h"

static __global__ void __launch_bounds__(ROW_THREADS)
    tops_kernel(lore_likely *tops, lore_view logits, const lore_sample *samples)
{
    lore_cuda_release();
    lore_cuda_wait();
    const int32_t asked = samples[blockIdx.x].tops;
    const int32_t wanted = asked < logits.cols ? asked : logits.cols;
    if (wanted <= 0) {
        return;
    }
    const row r = {logits.data + blockIdx.x * logits.stride, logits.cols, 0.0f, 1.0f};
    uint64_t mine = 0;
    for (int32_t i = threadIdx.x; i < r.count; i += ROW_THREADS) {
        const uint64_t rank = rank_of(logit_at(r, i), i);
        mine = rank > mine ? rank : mine;
    }
    uint64_t best = block_max(mine);
    const float top = logit_of_rank(best);
    float sum = 0.0f;
    for (int32_t i = threadIdx.x; i < r.count; i += ROW_THREADS) {
        const float logit = logit_at(r, i);
        sum += logit == top ? 1.0f : expf(logit - top);
    }
    const float total = logf(lore_block_sum(sum));
    for (int32_t k = 0; k < wanted; k++) {
        const float logit = logit_of_rank(best);
        const int32_t id = id_of(best), winner = id % ROW_THREADS;
        if (threadIdx.x == 0) {
            tops[blockIdx.x * LORE_TOPS_MAX + k] = {id,
                                                    (logit == top ? 0.0f : logit - top) - total};
        }
        uint64_t next = 0;
        for (int64_t i = winner + (int64_t)threadIdx.x * ROW_THREADS; i < r.count;
             i += ROW_THREADS * ROW_THREADS) {
            const uint64_t rank = rank_of(logit_at(r, (int32_t)i), (int32_t)i);
            next = rank < best && rank > next ? rank : next;
        }
        next = block_max(next);
        mine = (int32_t)threadIdx.x == winner ? next : mine;
        best = block_max(mine);
    }
}

void lore_cuda_tops(lore_queue *queue, lore_likely *tops, lore_view logits,
                    const lore_sample *samples)
{
    if (logits.rows > 0) {
        LORE_CUDA_NOTE(queue, lore_cuda_launch(queue, tops_kernel, dim3((unsigned)logits.rows),
                                               dim3(ROW_THREADS), 0, tops, logits, samples));
    }
}
