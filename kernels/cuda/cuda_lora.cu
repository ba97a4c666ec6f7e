/* What adapters add to products: v = x A^T (shrink), then out += scale v B^T (expand), contract in
 * lora.h.
 *
 * Decoding, the bytes of A and B are the bound, and each is read once a step, as rows of one
 * adapter are multiplied together. Both kernels look the work up on the device: every block adds up
 * how many pieces of it each segment has, and takes the pieces whose turn it is. So a launch of
 * fixed size serves any mix of adapters and ranks, and ranks are true ones: what a larger rank
 * elsewhere costs is nothing but idle blocks. Tables and weights are nobody's to write, so both
 * have weights under way before the kernel in front of them has ended (cuda_int.h).
 *
 * v is kept per part in columns of whole sixteens, zeros behind a rank. The depth is split over
 * blocks where rows alone are too few; how often depends on the sizes of the launch, never on who
 * else is in it. The sums of the splits come together in the expand, in one order always, which
 * costs less than another wait. So does the norm's divisor.
 *
 * Products are by the tensor cores, mma.m16n8k16 (cuda_int.h). Lane (g = lane / 4, q = lane % 4)
 * holds row g, and g + 8, of either operand. The order of the depth inside a sum is free, so lanes
 * use neighbours as they come: q has elements 4q .. 4q + 3 of sixteen. */
#include "kernels/cuda/cuda_lora_int.h"

enum {
    DEPTH_MIN = 512,  /* of a split */
    SPLITS_MAX = 16,  /* the expand reads as many */
    SPLIT_ROWS = 4096 /* rows times splits, where there are several */
};

static bool is_quick(const lore_cuda_addition *a)
{
    return a->lora->dtype == LORE_BF16 && a->x.cols % 8 == 0;
}

/* Whether rows are first rounded into scratch, to be read sixteen bytes at a time. */
static bool is_rounding(const lore_cuda_addition *a)
{
    LORE_ASSERT(a->norm == NULL || a->x.dtype == LORE_F32);
    return is_quick(a) && a->norm == NULL && !lore_is_aligned(a->x, a->x.dtype == LORE_F32 ? 4 : 8);
}

static int32_t splits_of(const lore_cuda_addition *a)
{
    const int32_t by_rows = SPLIT_ROWS / (a->x.rows > 0 ? a->x.rows : 1);
    const int32_t by_depth = (a->x.cols + DEPTH_MIN - 1) / DEPTH_MIN;
    const int32_t least = by_rows < by_depth ? by_rows : by_depth;
    return !is_quick(a) || least < 1 ? 1 : least < SPLITS_MAX ? least : (int32_t)SPLITS_MAX;
}

static size_t aligned(size_t size_bytes)
{
    return (size_bytes + 255) & ~(size_t)255;
}

static size_t rounded_bytes(const lore_cuda_addition *a)
{
    const size_t count = (size_t)a->x.rows * (size_t)a->x.cols;
    return is_rounding(a) ? aligned(count * sizeof(__nv_bfloat16)) : 0;
}

/* Of a float for each row and split. More rows never take less than few: whoever has had memory for
 * the most rows needs no more. */
static size_t squares_bytes(const lore_cuda_addition *a)
{
    const size_t rows = (size_t)a->x.rows, all = rows * (size_t)splits_of(a);
    const bool is_cut = rows > SPLIT_ROWS / SPLITS_MAX && rows < SPLIT_ROWS;
    return aligned((is_cut ? (size_t)SPLIT_ROWS : all) * sizeof(float));
}

size_t lore_cuda_lora_bytes(const lore_cuda_addition *a)
{
    return rounded_bytes(a) +
           squares_bytes(a) * (1 + LORE_LORA_TILE * (size_t)lore_cuda_lora_tiles_max(a->lora));
}

static lore_cuda_lora_task task_of(const lore_cuda_addition *a, char *memory)
{
    lore_cuda_lora_task t = {};
    const int32_t splits = splits_of(a), whole = LORE_LORA_WARPS * LORE_LORA_STEP;
    t.rows = a->lora->rows;
    t.index = a->lora->index;
    t.row_count = a->x.rows;
    t.depth = a->x.cols;
    t.chunk = ((t.depth + splits - 1) / splits + whole - 1) / whole * whole;
    t.splits = (t.depth + t.chunk - 1) / t.chunk;
    t.x = a->x;
    t.out = a->out;
    t.norm = a->norm;
    t.eps = a->eps;
    t.squares = (float *)(memory + rounded_bytes(a));
    t.v = (float *)(memory + rounded_bytes(a) + squares_bytes(a));
    t.v_stride = LORE_LORA_TILE * lore_cuda_lora_tiles_max(a->lora);
    t.fresh = a->is_fresh ? a->out.data : NULL;
    t.fresh_count = (int64_t)a->out.rows * a->out.cols;
    t.is_wide = lore_is_aligned(a->out, a->out.dtype == LORE_F32 ? 4 : 8);
    return t;
}

void lore_cuda_lora_add(lore_queue *queue, const lore_cuda_addition *a, void *memory)
{
    lore_cuda_lora_task t = task_of(a, (char *)memory);
    lore_lora_check(a->lora, a->out, a->x);
    LORE_ASSERT(!a->is_fresh || (a->out.dtype == LORE_F32 && a->out.stride == a->out.cols));
    if (is_rounding(a)) {
        __nv_bfloat16 *rounded = (__nv_bfloat16 *)memory;
        LORE_CUDA_NOTE(queue,
                       lore_cuda_round_rows(rounded, t.x, lore_cuda_queue_of(queue)->stream));
        t.x = lore_view_as(LORE_BF16, rounded, t.row_count, t.depth);
    }
    LORE_CUDA_NOTE(queue, is_quick(a) ? lore_cuda_shrink(queue, &t, a->lora)
                                      : lore_cuda_shrink_any(queue, &t, a->lora->dtype));
    LORE_CUDA_NOTE(queue, a->lora->dtype == LORE_BF16 ? lore_cuda_expand(queue, &t)
                                                      : lore_cuda_expand_any(queue, &t));
}
