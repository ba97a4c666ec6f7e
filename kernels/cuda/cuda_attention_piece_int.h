/* How the rows of a batch are dealt out to blocks of many rows (cuda_attention_hopper.cu), and the
 * keys of a piece to several of them. */
#ifndef LORE_KERNELS_CUDA_ATTENTION_PIECE_INT_H
#define LORE_KERNELS_CUDA_ATTENTION_PIECE_INT_H

#include "kernels/cuda/cuda_attention_int.h"

enum { LORE_PIECE_ROWS = 128, LORE_PIECE_KEYS = 128 /* a tile of them */ };

/* What a block works on: rows first_row .. first_row + LORE_PIECE_ROWS - 1 of a sequence and
 * key/value head, of `rows` that there are; tiles of LORE_PIECE_KEYS positions from `start` on, the
 * last cut at `end`. */
struct lore_piece {
    int32_t sequence, kv_head, first_row, rows, past, context, start, end, tiles;
};

/* Places for pieces; a unit of work is a slot and a key/value head. */
static __host__ __device__ __forceinline__ int32_t lore_count_slots(const lore_attend &a)
{
    return a.out.rows * a.group / LORE_PIECE_ROWS + a.sequences;
}

/* The piece of a unit 0 .. slots * kv_heads - 1. Slots are numbered through the batch: sequence s
 * owns those from row_start[s] * group / LORE_PIECE_ROWS + s on, which are as many as its pieces of
 * a head or one more. The last slots come first, as late rows see most; heads of one slot stand
 * beside one another. False: the slot is empty, or its sequence is for the wide kernel. */
static __device__ __forceinline__ bool lore_find_piece(const lore_attend &a, int32_t unit,
                                                       lore_piece *p)
{
    const int32_t slot = lore_count_slots(a) - 1 - unit / a.kv_heads;
    int32_t low = 0, high = a.sequences;
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        if (a.row_start[middle] * a.group / LORE_PIECE_ROWS + middle <= slot) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const int32_t begin = a.row_start[low], tokens = a.row_start[low + 1] - begin;
    p->sequence = low;
    p->kv_head = unit % a.kv_heads;
    p->first_row = (slot - begin * a.group / LORE_PIECE_ROWS - low) * LORE_PIECE_ROWS;
    p->rows = tokens * a.group;
    p->past = a.past[low];
    p->context = p->past + tokens;
    if (p->first_row >= p->rows || p->rows <= LORE_WIDE_ROWS) {
        return false;
    }
    const int32_t last_row = min(p->first_row + LORE_PIECE_ROWS, p->rows) - 1;
    p->start = lore_seen(a, p->past + p->first_row / a.group, p->context).x / a.page_tokens *
               a.page_tokens;
    p->end = lore_seen(a, p->past + last_row / a.group, p->context).y;
    p->tiles = (p->end - p->start + LORE_PIECE_KEYS - 1) / LORE_PIECE_KEYS;
    return true;
}

/* The keys that are left to one part of the blocks of a piece; maybe none. */
static __device__ __forceinline__ void lore_take_part(lore_piece *p, int32_t part, int32_t parts)
{
    const int32_t each = (p->tiles + parts - 1) / parts;
    p->start += part * each * LORE_PIECE_KEYS;
    p->end = min(p->end, p->start + each * LORE_PIECE_KEYS);
    p->tiles = max(p->end - p->start + LORE_PIECE_KEYS - 1, 0) / LORE_PIECE_KEYS;
}

#endif
