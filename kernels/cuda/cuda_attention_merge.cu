/* Attention of pieces whose keys were shared out among blocks: their sums become one. A part has
 * left, for each of its rows, the largest score, the sum of the weights to that base, and the
 * values times the weights; scaled to the largest of all parts they add up. Bytes are the bound,
 * and there are few: as many rows as multiprocessors and parts. Source: Dao et al. 2023
 * (Flash-Decoding). */
#include "kernels/cuda/cuda_attention_piece_int.h"

enum { WARPS = 8 };

/* The parts of a piece become its rows; one warp a row. */
template <int E>
static __global__ void __launch_bounds__(32 * WARPS) merge_piece_kernel(lore_attend a)
{
    lore_cuda_release();
    lore_cuda_wait();
    const int32_t unit = (int32_t)blockIdx.x / (LORE_PIECE_ROWS / WARPS), lane = threadIdx.x % 32;
    const int32_t row =
        (int32_t)blockIdx.x % (LORE_PIECE_ROWS / WARPS) * WARPS + (int32_t)threadIdx.x / 32;
    const float factor = lore_score_factor(a.attention);
    lore_piece p;
    if (!lore_find_piece(a, unit, &p) || p.first_row + row >= p.rows) {
        return;
    }
    const int64_t first = (int64_t)unit * a.parts * LORE_PIECE_ROWS + row;
    const float2 *tops = (const float2 *)a.part_sums + first; /* largest, total */
    float largest = -INFINITY, total = 0.0f, sum[E / 32] = {};
    for (int32_t i = 0; i < a.parts; i++) {
        largest = fmaxf(largest, tops[i * LORE_PIECE_ROWS].x);
    }
    const float base = lore_score_base(largest);
    for (int32_t i = 0; i < a.parts; i++) {
        const float2 top = tops[i * LORE_PIECE_ROWS];
        const float *part = a.part_out + (first + i * LORE_PIECE_ROWS) * E;
        const float kept = exp2f((top.x - base) * factor);
        total += top.y * kept;
#pragma unroll
        for (int c = 0; c < E / 32; c++) { /* a part without keys has left nothing there */
            sum[c] += top.y == 0.0f ? 0.0f : part[lane + 32 * c] * kept;
        }
    }
    const int32_t m = p.first_row + row;
    const int64_t to = (int64_t)(a.row_start[p.sequence] + m / a.group) * a.out.stride +
                       (int64_t)(p.kv_head * a.group + m % a.group) * E;
#pragma unroll
    for (int c = 0; c < E / 32; c++) {
        lore_write(a.out, to + lane + 32 * c, sum[c] / total);
    }
}

cudaError_t lore_cuda_merge_pieces(lore_queue *queue, const lore_attend &a)
{
    const unsigned units = (unsigned)(lore_count_slots(a) * a.kv_heads);
    const dim3 grid(units * (LORE_PIECE_ROWS / WARPS));
    return a.head_dim == 64
               ? lore_cuda_launch(queue, merge_piece_kernel<64>, grid, dim3(32 * WARPS), 0, a)
               : lore_cuda_launch(queue, merge_piece_kernel<128>, grid, dim3(32 * WARPS), 0, a);
}
