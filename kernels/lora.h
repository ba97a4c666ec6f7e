/* The part of the contract of ops.h, whose rules hold here too, that adds low-rank adapters to
 * products (LoRA, Hu et al., ICLR 2022): rows of one batch belong to different adapters, of
 * different ranks, or to none.
 *
 * What an epilogue's lora adds to a product: for every row r of segment i, with p the adapter's
 * product `index`, v = x[r] A^T [p.rank], and for each part of p and o below its columns
 *
 *   out[r, column_start + o] += scale * sum_k v[rank_start + k] b[o, k],   k below the part's rank
 *
 * before the activation of a gated product; others have none. v is f32, or rounded to bf16 where
 * dtype is bf16, and x may be rounded likewise; beside weights that came in int8 a, b, x and v may
 * all be rounded to int8. Rows of no segment get the bits that the product
 * gives without lora. A row's result does not depend on the other rows beyond rounding.
 *
 * All that structs here point to is backend memory, but for lore_lora and lore_lora_rows
 * themselves. What a recording replays reads the tables anew: adapters, ranks and who has which may
 * all differ from those at its recording, within the maxima. So a device sizes its launches (and
 * scratch) by x.rows, lore_lora_rows.segments, lore_lora.rank_max and out.cols alone, looks at
 * starts to see that a segment is empty, and at rank to see that an adapter leaves a product as it
 * is. */
#ifndef LORE_KERNELS_LORA_H
#define LORE_KERNELS_LORA_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LORE_LORA_PARTS_MAX = 3, /* q, k, v */
    LORE_LORA_ALIGN = 64,    /* bytes: where matrices and tables of an adapter start */
    LORE_LORA_PANEL = 16     /* rows of a matrix that lore_lora_pack takes at a time */
};

/* One of the matrices that a product is stacked of. */
typedef struct lore_lora_part {
    int32_t rank, rank_start;      /* its share of v */
    int32_t columns, column_start; /* and of out */
    float scale;
    const void *b; /* [columns, rank], as lore_lora_pack wrote it */
} lore_lora_part;

/* What an adapter adds to one product. */
typedef struct lore_lora_product {
    int32_t rank; /* of all parts; 0: nothing is added, and the rest is undefined */
    int32_t part_count;
    const void *a; /* [rank, d]: those of the parts on top of one another */
    lore_lora_part parts[LORE_LORA_PARTS_MAX];
} lore_lora_product;

/* Which rows belong to which adapter: one table per step. Segment i has rows
 * order[starts[i] .. starts[i + 1] - 1] of the batch and adapter adapters[i]. A row is in one
 * segment at most, an adapter in one segment; in a segment rows ascend. Segments may be empty, and
 * have no adapter then: a recorded step of few adapters is filled up with such. */
typedef struct lore_lora_rows {
    int32_t segments;      /* host knowledge, for launch sizes */
    const int32_t *order;  /* [starts[segments]], as many as the batch has rows at most */
    const int32_t *starts; /* [segments + 1], starts[0] = 0 */
    const lore_lora_product *const *adapters; /* [segments]: the products of each; NULL where
                                                   the segment is empty */
} lore_lora_rows;

/* What the adapters of a step add to one product. Host memory, read before the call returns. */
struct lore_lora {
    lore_lora_rows rows;
    int32_t index;    /* of the product among those of an adapter */
    int32_t rank_max; /* above 0: no adapter that the step, or a replay of its recording, may have
                         has a product `index` of a larger rank */
    lore_dtype dtype; /* of a and b: LORE_F32 or LORE_BF16 */
};

/* What adapters are kept in on this backend: f32 on ref and where precision is f32, else bf16. */
lore_dtype lore_backend_lora_dtype(const lore_backend *backend);
/* Bytes of a matrix [rows, cols] (a or b) as the backend multiplies it beside this weight, a
 * multiple of LORE_LORA_ALIGN. */
size_t lore_lora_bytes(const lore_weight *weight, lore_dtype dtype, int32_t rows, int32_t cols);
/* Turn rows first .. first + count - 1 of a row-major matrix [rows, cols] into that: host memory to
 * host memory; first is a multiple of LORE_LORA_PANEL, and so is count unless these are the last
 * rows. data: the whole matrix. to: where those rows go. Returns how many bytes were written;
 * pieces follow one another. Thread: any. */
size_t lore_lora_pack(const lore_weight *weight, lore_dtype dtype, int32_t rows, int32_t cols,
                      const void *data, int32_t first, int32_t count, void *to);

/* What the adapter of a segment adds, NULL: nothing. For backends whose memory the host reads. */
static inline const lore_lora_product *lore_lora_find(const lore_lora *lora, int32_t segment)
{
    const lore_lora_product *products = lora->rows.adapters[segment];
    if (products == NULL || products[lora->index].rank == 0) {
        return NULL;
    }
    LORE_ASSERT(products[lora->index].rank <= lora->rank_max);
    return &products[lora->index];
}

static inline void lore_lora_check(const lore_lora *lora, lore_view out, lore_view x)
{
    LORE_ASSERT(out.rows == x.rows && lora->rows.segments >= 0);
    LORE_ASSERT(lora->rank_max > 0 && lora->index >= 0);
    LORE_ASSERT(lora->dtype == LORE_F32 || lora->dtype == LORE_BF16);
}

#ifdef __cplusplus
}
#endif
#endif
