/* Attention of one work item in words (simd_int.h); included once for each instruction set.
 *
 * Query vectors that share a key/value head (rows x heads of its group) stand under one another as
 * the left side of two products. Keys are taken 256 at a time: transposed into panels, so that
 * scores = queries * keys^T is the same f32 tile as in matmul, then values = probabilities * values
 * likewise, both from the second-level cache. Between the two the online softmax (Milakov,
 * Gimelshein 2018; as in FlashAttention, Dao et al. 2022) keeps per query vector the largest score
 * so far, the sum of exponentials and the unnormalised output, and rescales them when a larger
 * score comes.
 *
 * Queries go in bands of four tiles, so that a panel of keys or a stretch of values is fetched into
 * the first-level cache once for the four.
 *
 * A decoding step has as many vectors as a group has heads: too few to pay for packing. Its keys
 * and values are read once where they lie, each by four vectors at a time, as dot products and as
 * multiples; the bound is the cache or the memory they come from. */
#include "kernels/cpu/cpu_softmax_body.h"
#include "kernels/cpu/cpu_tile_body.h"

enum {
    KEYS = LORE_ATTEND_KEYS,
    VECTORS_MAX = LORE_ATTEND_VECTORS,
    KEY_PANELS = (KEYS + TILE_PANEL - 1) / TILE_PANEL,
    SCORES = KEY_PANELS * TILE_PANEL, /* of one vector: whole panels */
    BAND = 4 * TILE_ROWS,
    STRETCH = 64, /* values of a panel that stay in the first-level cache: 16 KB */
    FOUR = 4,     /* vectors that share a key or value in registers, and vectors of it */
    AHEAD = 48    /* keys between asking for one and reading it */
};
_Static_assert((int)LORE_ATTEND_FEW <= (int)BAND, "scores of few vectors are a band");

/* Keys and values first .. first+count-1, where they lie. */
typedef struct key_block {
    int32_t first, count;
    const void *keys[KEYS], *values[KEYS];
} key_block;

/* Scratch of one work item, cut from the queue's. */
typedef struct workspace {
    float *queries; /* [VECTORS_MAX, head_dim], scaled */
    float *sums;    /* [VECTORS_MAX, wide]: unnormalised outputs */
    float *keys;    /* [KEY_PANELS][head_dim][TILE_PANEL] */
    float *values;  /* [wide / TILE_PANEL][KEYS][TILE_PANEL] */
    float *scores;  /* [BAND, SCORES] */
    float *tops;    /* [VECTORS_MAX]: largest score so far */
    float *masses;  /* [VECTORS_MAX]: sum of exponentials so far */
    int32_t wide;   /* head_dim rounded up to whole panels */
} workspace;

static size_t workspace_init(workspace *space, int32_t head_dim, float *memory)
{
    const size_t dim = (size_t)head_dim;
    const size_t wide = (dim + TILE_PANEL - 1) / TILE_PANEL * TILE_PANEL;
    const size_t sizes[] = {VECTORS_MAX * dim,     VECTORS_MAX * wide, SCORES * dim, KEYS * wide,
                            (size_t)BAND * SCORES, VECTORS_MAX,        VECTORS_MAX};
    float **const fields[] = {&space->queries, &space->sums, &space->keys,  &space->values,
                              &space->scores,  &space->tops, &space->masses};
    size_t used = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *fields[i] = memory != NULL ? memory + used : NULL;
        used += (sizes[i] + 15) / 16 * 16; /* every array starts a cache line */
    }
    space->wide = (int32_t)wide;
    return used * sizeof(float);
}

static size_t scratch_bytes(int32_t head_dim)
{
    workspace space;
    return workspace_init(&space, head_dim, NULL);
}

LORE_INLINE vf load_cached(const void *row, const lore_dtype dtype, int32_t i, int32_t dim)
{
    if (dtype == LORE_F32) {
        return vf_load_some((const float *)row + i, dim - i);
    }
    if (vf_fills(dim - i)) {
        return vf_load_bf16((const uint16_t *)row + i);
    }
    uint16_t halves[VF_WIDTH] = {0};
    memcpy(halves, (const uint16_t *)row + i, (size_t)(dim - i) * sizeof halves[0]);
    return vf_load_bf16(halves);
}

/* count keys, transposed: element i of key k goes to keys[k / PANEL][i][k % PANEL]. Lanes behind
 * the last key of its vector are zeros; panels behind that are never read. */
LORE_INLINE void pack_keys(const workspace *space, const void *const *rows, const lore_dtype dtype,
                           int32_t dim, int32_t count)
{
    for (int32_t k = 0; k < count; k += VF_WIDTH) {
        const int32_t held = count - k < VF_WIDTH ? count - k : VF_WIDTH;
        float *to = space->keys + (int64_t)(k / TILE_PANEL) * dim * TILE_PANEL + k % TILE_PANEL;
        for (int32_t i = 0; i < dim; i += VF_WIDTH) {
            vf block[VF_WIDTH];
            for (int32_t j = 0; j < VF_WIDTH; j++) {
                block[j] = j < held ? load_cached(rows[k + j], dtype, i, dim) : vf_zero();
            }
            vf_transpose(block);
            const int32_t left = dim - i < VF_WIDTH ? dim - i : VF_WIDTH;
            for (int32_t j = 0; j < left; j++) {
                vf_store(to + (int64_t)(i + j) * TILE_PANEL, block[j]);
            }
        }
    }
}

/* count values, widened to f32: element i of value k goes to values[i / PANEL][k][i % PANEL]. */
LORE_INLINE void pack_values(const workspace *space, const void *const *rows,
                             const lore_dtype dtype, int32_t dim, int32_t count)
{
    for (int32_t k = 0; k < count; k++) {
        float *to = space->values + (int64_t)k * TILE_PANEL;
        for (int32_t i = 0; i < space->wide; i += VF_WIDTH) {
            const int64_t panel = (int64_t)(i / TILE_PANEL) * KEYS * TILE_PANEL;
            vf_store(to + panel + i % TILE_PANEL,
                     i < dim ? load_cached(rows[k], dtype, i, dim) : vf_zero());
        }
    }
}

static void pack_queries(const lore_attend *job, const workspace *space)
{
    const int32_t dim = job->head_dim;
    const vf scale = vf_set(job->scale);
    float *to = space->queries;
    for (int32_t r = 0; r < job->rows; r++) {
        for (int32_t j = 0; j < job->heads; j++, to += dim) {
            const float *from = job->queries + r * job->query_stride + (int64_t)j * dim;
            for (int32_t i = 0; i < dim; i += VF_WIDTH) {
                vf_store_some(to + i, dim - i, vf_mul(vf_load_some(from + i, dim - i), scale));
            }
        }
    }
}

static void rescale(const workspace *space, int32_t vector, float factor)
{
    float *sums = space->sums + (int64_t)vector * space->wide;
    for (int32_t c = 0; c < space->wide; c += VF_WIDTH) {
        vf_store(sums + c, vf_mul(vf_load(sums + c), vf_set(factor)));
    }
}

/* Scores of one vector become exponentials relative to its largest score so far; of those held,
 * what the vector does not see becomes 0. Its mass and output are rescaled where that score grew.
 * held begins at a whole vector. */
static void soften(const lore_attend *job, const workspace *space, int32_t vector, float *scores,
                   lore_key_span seen, lore_key_span held)
{
    if (job->softcap > 0.0f) {
        cap_scores(scores, seen, job->softcap);
    }
    const float old_top = space->tops[vector], block_top = largest_score(scores, seen);
    const float top = block_top > old_top ? block_top : old_top;
    const vf reference = vf_set(reference_score(top));
    vf sum = vf_zero();
    int32_t i = held.begin;
    for (; i + VF_WIDTH <= seen.begin; i += VF_WIDTH) {
        vf_store(scores + i, vf_zero());
    }
    for (; i < seen.end; i += VF_WIDTH) {
        vf lanes = vf_exp(vf_sub(vf_load(scores + i), reference));
        if (is_edge(seen, i)) {
            lanes = vf_between(lanes, seen.begin - i, seen.end - i, 0.0f);
        }
        sum = vf_add(sum, lanes);
        vf_store(scores + i, lanes);
    }
    for (; i < held.end; i += VF_WIDTH) {
        vf_store(scores + i, vf_zero());
    }
    const float factor = old_top == top ? 1.0f : old_top == -INFINITY ? 0.0f : expf(old_top - top);
    space->masses[vector] = space->masses[vector] * factor + vf_sum(sum);
    space->tops[vector] = top;
    if (factor != 1.0f) {
        rescale(space, vector, factor);
    }
}

/* Query vectors first_vector .. +band-1 (at most BAND) against the packed block of `count` keys
 * from `first`. */
static void attend_band(const lore_attend *job, const workspace *space, int32_t first_vector,
                        int32_t band, int32_t first, int32_t count)
{
    const int32_t dim = job->head_dim;
    lore_key_span held = lore_attend_seen(job, first_vector, first_vector + band - 1, first, count);
    if (held.begin >= held.end) {
        return;
    }
    held.begin -= held.begin % TILE_PANEL;
    for (int32_t k = held.begin; k < held.end; k += TILE_PANEL) {
        for (int32_t v = 0; v < band; v += TILE_ROWS) {
            const int32_t rows = band - v < TILE_ROWS ? band - v : TILE_ROWS;
            tile_rows(rows, false, false, dim, space->queries + (int64_t)(first_vector + v) * dim,
                      dim, space->keys + (int64_t)k * dim, space->scores + v * SCORES + k, SCORES);
        }
    }
    for (int32_t v = first_vector; v < first_vector + band; v++) {
        soften(job, space, v, space->scores + (v - first_vector) * SCORES,
               lore_attend_seen(job, v, v, first, count), held);
    }
    for (int32_t c = 0; c < space->wide; c += TILE_PANEL) {
        for (int32_t k = held.begin; k < held.end; k += STRETCH) {
            const int32_t left = held.end - k < STRETCH ? held.end - k : STRETCH;
            for (int32_t v = 0; v < band; v += TILE_ROWS) {
                const int32_t rows = band - v < TILE_ROWS ? band - v : TILE_ROWS;
                tile_rows(rows, false, true, left, space->scores + v * SCORES + k, SCORES,
                          space->values + ((int64_t)c * KEYS + (int64_t)k * TILE_PANEL),
                          space->sums + (int64_t)(first_vector + v) * space->wide + c, space->wide);
            }
        }
    }
}

/* A block packed; the dtype is made a constant of the loops here. */
static void pack_block(const lore_attend *job, const workspace *space, const key_block *from)
{
    if (job->dtype == LORE_F32) {
        pack_keys(space, from->keys, LORE_F32, job->head_dim, from->count);
        pack_values(space, from->values, LORE_F32, job->head_dim, from->count);
    } else {
        pack_keys(space, from->keys, LORE_BF16, job->head_dim, from->count);
        pack_values(space, from->values, LORE_BF16, job->head_dim, from->count);
    }
}

/* ---- few vectors ---- */

/* A page holds few keys of a head, so no hardware prefetcher follows: rows are asked for some time
 * ahead. */
LORE_INLINE void ask_for(const void *row, int32_t bytes)
{
    for (int32_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch((const char *)row + i);
    }
}

/* scores[v][k] = queries[v] . keys[k] for `vectors` (at most FOUR) of them and the keys held. dtype
 * and vectors must be constants where this is inlined. */
LORE_INLINE void dot_keys(const int32_t vectors, const lore_dtype dtype, const float *queries,
                          int32_t dim, const key_block *from, lore_key_span held, float *scores)
{
    const void *const *keys = from->keys;
    const int32_t bytes = dim * (dtype == LORE_F32 ? 4 : 2);
    for (int32_t k = held.begin; k < held.end && k < held.begin + AHEAD; k++) {
        ask_for(keys[k], bytes);
    }
    for (int32_t k = held.begin; k < held.end; k++) {
        if (k + AHEAD < held.end) {
            ask_for(keys[k + AHEAD], bytes);
        }
        ask_for(from->values[k], bytes); /* a block of them stays in the second-level cache */
        vf sum[FOUR];
#pragma GCC unroll 4
        for (int32_t v = 0; v < vectors; v++) {
            sum[v] = vf_zero();
        }
        for (int32_t i = 0; i < dim; i += VF_WIDTH) {
            const vf key = load_cached(keys[k], dtype, i, dim);
#pragma GCC unroll 4
            for (int32_t v = 0; v < vectors; v++) {
                sum[v] = vf_fma(vf_load_some(queries + v * dim + i, dim - i), key, sum[v]);
            }
        }
        if (vectors == FOUR) {
            float sums[FOUR];
            vf_sum_four(sum, sums);
#pragma GCC unroll 4
            for (int32_t v = 0; v < FOUR; v++) {
                scores[v * SCORES + k] = sums[v];
            }
            continue;
        }
#pragma GCC unroll 4
        for (int32_t v = 0; v < vectors; v++) {
            scores[v * SCORES + k] = vf_sum(sum[v]);
        }
    }
}

/* sums[v] += scores[v][k] values[k], elements i .. i + FOUR vectors of the head. */
LORE_INLINE void add_values(const int32_t vectors, const lore_dtype dtype, const float *scores,
                            const void *const *values, lore_key_span held, int32_t i, int32_t dim,
                            float *sums, int32_t wide)
{
    vf sum[FOUR][FOUR];
#pragma GCC unroll 4
    for (int32_t v = 0; v < vectors; v++) {
#pragma GCC unroll 4
        for (int32_t c = 0; c < FOUR; c++) {
            const int32_t at = i + c * VF_WIDTH;
            sum[v][c] = at < wide ? vf_load(sums + v * wide + at) : vf_zero();
        }
    }
    for (int32_t k = held.begin; k < held.end; k++) {
        vf value[FOUR];
#pragma GCC unroll 4
        for (int32_t c = 0; c < FOUR; c++) {
            const int32_t at = i + c * VF_WIDTH;
            value[c] = at < dim ? load_cached(values[k], dtype, at, dim) : vf_zero();
        }
#pragma GCC unroll 4
        for (int32_t v = 0; v < vectors; v++) {
            const vf share = vf_set(scores[v * SCORES + k]);
#pragma GCC unroll 4
            for (int32_t c = 0; c < FOUR; c++) {
                sum[v][c] = vf_fma(share, value[c], sum[v][c]);
            }
        }
    }
#pragma GCC unroll 4
    for (int32_t v = 0; v < vectors; v++) {
#pragma GCC unroll 4
        for (int32_t c = 0; c < FOUR; c++) {
            const int32_t at = i + c * VF_WIDTH;
            if (at < wide) {
                vf_store(sums + v * wide + at, sum[v][c]);
            }
        }
    }
}

/* `vectors` (at most FOUR) query vectors from `vector` against a block of keys where they lie. */
LORE_INLINE void attend_four(const int32_t vectors, const lore_dtype dtype, const lore_attend *job,
                             const workspace *space, int32_t vector, const key_block *from)
{
    const int32_t dim = job->head_dim;
    lore_key_span held =
        lore_attend_seen(job, vector, vector + vectors - 1, from->first, from->count);
    if (held.begin >= held.end) {
        return;
    }
    held.begin -= held.begin % VF_WIDTH;
    float *scores = space->scores + vector * SCORES;
    float *sums = space->sums + (int64_t)vector * space->wide;
    dot_keys(vectors, dtype, space->queries + (int64_t)vector * dim, dim, from, held, scores);
    for (int32_t v = 0; v < vectors; v++) {
        soften(job, space, vector + v, scores + v * SCORES,
               lore_attend_seen(job, vector + v, vector + v, from->first, from->count), held);
    }
    for (int32_t i = 0; i < dim; i += FOUR * VF_WIDTH) {
        add_values(vectors, dtype, scores, from->values, held, i, dim, sums, space->wide);
    }
}

LORE_INLINE void attend_some(const lore_dtype dtype, const lore_attend *job, const workspace *space,
                             const key_block *from)
{
    const int32_t vectors = job->rows * job->heads;
    int32_t v = 0;
    for (; v + FOUR <= vectors; v += FOUR) {
        attend_four(FOUR, dtype, job, space, v, from);
    }
    switch (vectors - v) {
    case 3:
        attend_four(3, dtype, job, space, v, from);
        return;
    case 2:
        attend_four(2, dtype, job, space, v, from);
        return;
    case 1:
        attend_four(1, dtype, job, space, v, from);
        return;
    default:
        return;
    }
}

static void attend_block(const lore_attend *job, const workspace *space, const key_block *from)
{
    const int32_t vectors = job->rows * job->heads;
    const bool is_few = vectors <= LORE_ATTEND_FEW;
    if (is_few && job->dtype == LORE_F32) {
        attend_some(LORE_F32, job, space, from);
    } else if (is_few) {
        attend_some(LORE_BF16, job, space, from);
    } else {
        pack_block(job, space, from);
        for (int32_t v = 0; v < vectors; v += BAND) {
            attend_band(job, space, v, vectors - v < BAND ? vectors - v : BAND, from->first,
                        from->count);
        }
    }
}

static void store_outputs(const lore_attend *job, const workspace *space)
{
    const int32_t dim = job->head_dim;
    for (int32_t v = 0; v < job->rows * job->heads; v++) {
        float *to = job->out + v / job->heads * job->out_stride + (int64_t)(v % job->heads) * dim;
        const float *sums = space->sums + (int64_t)v * space->wide;
        const vf inverse = vf_set(1.0f / space->masses[v]);
        if (job->log_sums != NULL) {
            job->log_sums[v] = space->tops[v] + logf(space->masses[v]);
        }
        for (int32_t i = 0; i < dim; i += VF_WIDTH) {
            vf_store_some(to + i, dim - i, vf_mul(vf_load(sums + i), inverse));
        }
    }
}

static void attend(const lore_attend *job, void *scratch)
{
    workspace space;
    (void)workspace_init(&space, job->head_dim, scratch);
    const int32_t vectors = job->rows * job->heads;
    LORE_ASSERT(vectors <= VECTORS_MAX);
    pack_queries(job, &space);
    memset(space.sums, 0, (size_t)vectors * (size_t)space.wide * sizeof *space.sums);
    for (int32_t v = 0; v < vectors; v++) {
        space.tops[v] = -INFINITY;
        space.masses[v] = 0.0f;
    }
    const lore_key_span all = lore_attend_seen(job, 0, vectors - 1, 0, job->key_count);
    for (int32_t first = all.begin; first < all.end; first += KEYS) {
        key_block from = {.first = first, .count = all.end - first < KEYS ? all.end - first : KEYS};
        lore_attend_locate(job, job->keys, first, from.count, from.keys);
        lore_attend_locate(job, job->values, first, from.count, from.values);
        attend_block(job, &space, &from);
    }
    store_outputs(job, &space);
}
