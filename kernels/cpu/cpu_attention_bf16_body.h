/* Attention of one work item in bf16: the blocks and the online softmax of cpu_attention_body.h,
 * with products of pairs that are summed in f32. Included once for each unit that multiplies such
 * pairs; the including file brings PRODUCT_ROWS and product() (below).
 *
 * Everything stands in pairs, the two neighbours that one lane multiplies: a query row is pairs of
 * elements, a panel of 32 keys is [dim / 2][32][2], a row of probabilities is pairs of keys, a
 * panel of 32 dimensions of the values is [keys / 2][32][2]. So both products are the same loop,
 * and both right sides are read in order.
 *
 * The queries carry the scale and log2(e), so the softmax is in powers of two. A probability is
 * rounded to bf16, hence its exponential needs no more than a cubic. Rows of scores become rows of
 * probabilities in place. A block is up to 256 keys: 32 KB of keys, 32 KB of values, read from the
 * second-level cache; a band of scores stays in the first. Bound: the product units; the softmax
 * adds about a seventh. */
#include "kernels/cpu/cpu_softmax_body.h"

enum {
    KEYS = LORE_ATTEND_KEYS,
    VECTORS_MAX = LORE_ATTEND_VECTORS,
    PANEL = 32,              /* keys (or dimensions) of a panel */
    PANEL_ROW = 2 * PANEL,   /* bf16 numbers of one pair of it */
    BAND = 2 * PRODUCT_ROWS, /* query vectors whose scores are held at a time */
    AHEAD = 32,              /* rows between asking for one and packing it */
    FEW = 3                  /* so many vectors leave keys and values where they lie */
};
_Static_assert(KEYS % PANEL == 0, "a block is whole panels");
static const float LOG2_E = 1.44269504088896341f;

/* c[r][0 .. PANEL-1] (+)= sum over pairs p of a[r][p] . b[p][0 .. PANEL-1], rows <= PRODUCT_ROWS. a
 * has whole rows of PRODUCT_ROWS behind it whatever `rows` says, pairs is a multiple of 16. Strides
 * in elements. */
static void product(int32_t rows, bool is_adding, int32_t pairs, const uint16_t *a,
                    int64_t a_stride, const uint16_t *b, float *c, int64_t c_stride);

/* Scratch of one work item, cut from the queue's. */
typedef struct workspace {
    uint16_t *queries; /* [BAND, depth], scaled */
    uint16_t *keys;    /* [KEYS / PANEL][depth / 2][PANEL][2] */
    uint16_t *values;  /* [depth / PANEL][KEYS / 2][PANEL][2] */
    float *scores;     /* [BAND, KEYS]; probabilities: bf16 at the start of each row */
    float *sums;       /* [VECTORS_MAX, depth]: unnormalised outputs */
    float *tops;       /* [VECTORS_MAX]: largest score so far */
    float *masses;     /* [VECTORS_MAX]: sum of exponentials so far */
    int32_t depth;     /* head_dim rounded up to whole panels */
} workspace;

static int32_t whole_panels(int32_t n)
{
    return (n + PANEL - 1) / PANEL * PANEL;
}

static size_t workspace_init(workspace *space, int32_t head_dim, char *memory)
{
    const size_t depth = (size_t)whole_panels(head_dim);
    const size_t sizes[] = {
        BAND * depth * sizeof(uint16_t),     KEYS * depth * sizeof(uint16_t),
        KEYS * depth * sizeof(uint16_t),     (size_t)BAND * KEYS * sizeof(float),
        VECTORS_MAX * depth * sizeof(float), VECTORS_MAX * sizeof(float),
        VECTORS_MAX * sizeof(float)};
    size_t at[sizeof sizes / sizeof sizes[0]], used = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        at[i] = used;
        used += (sizes[i] + 63) / 64 * 64;
    }
    if (memory != NULL) {
        *space = (workspace){.queries = (uint16_t *)(void *)(memory + at[0]),
                             .keys = (uint16_t *)(void *)(memory + at[1]),
                             .values = (uint16_t *)(void *)(memory + at[2]),
                             .scores = (float *)(void *)(memory + at[3]),
                             .sums = (float *)(void *)(memory + at[4]),
                             .tops = (float *)(void *)(memory + at[5]),
                             .masses = (float *)(void *)(memory + at[6]),
                             .depth = (int32_t)depth};
    }
    return used;
}

/* Enough for the loops of few vectors too, which are avx512's. */
static size_t scratch_bytes(int32_t head_dim)
{
    const size_t own = workspace_init(NULL, head_dim, NULL);
    const size_t few = lore_attention_avx512.scratch_bytes(head_dim);
    return own > few ? own : few;
}

/* ---- packing ---- */

/* Queries, keys, values and outputs of an encoder stand 4 KB and more apart, a head of each row is
 * a few cache lines, and no hardware prefetcher follows: rows are asked for some time ahead. */
LORE_INLINE void ask_for(const void *row, int32_t bytes)
{
    for (int32_t i = 0; i < bytes; i += 64) {
        _mm_prefetch((const char *)row + i, _MM_HINT_T0);
    }
}

/* Asks for row `at` of `count`, or of those that are packed next (NULL: nothing is). */
LORE_INLINE void ask_ahead(const void *const *rows, const void *const *next, int32_t count,
                           int32_t at, int32_t bytes)
{
    if (at < count) {
        ask_for(rows[at], bytes);
    } else if (next != NULL && at - count < count) {
        ask_for(next[at - count], bytes);
    }
}

/* Elements i .. i+15 of a key or value as bf16, zeros from `dim` on. dtype must be constant where
 * this is inlined. */
LORE_INLINE __m256i load_halves(const void *row, const lore_dtype dtype, int32_t i, int32_t dim)
{
    const int32_t left = dim - i;
    if (left <= 0) {
        return _mm256_setzero_si256();
    }
    if (dtype == LORE_F32) {
        return (__m256i)_mm512_cvtneps_pbh(vf_load_some((const float *)row + i, left));
    }
    const __mmask16 mask = vf_fills(left) ? (__mmask16)0xffff : vf_mask(left);
    return _mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + i);
}

/* The head of the query vector, and where its output goes. */
static const float *query_at(const lore_attend *job, int32_t vector)
{
    return job->queries + vector / job->heads * job->query_stride +
           (int64_t)(vector % job->heads) * job->head_dim;
}

static float *output_at(const lore_attend *job, int32_t vector)
{
    return job->out + vector / job->heads * job->out_stride +
           (int64_t)(vector % job->heads) * job->head_dim;
}

/* Query vectors first .. first+band-1; asks for those of the next band. */
static void pack_queries(const lore_attend *job, const workspace *space, int32_t first,
                         int32_t band)
{
    const int32_t dim = job->head_dim, vectors = job->rows * job->heads;
    const vf scale = vf_set(job->scale * LOG2_E);
    uint16_t *to = space->queries;
    for (int32_t v = first; v < first + band; v++, to += space->depth) {
        const float *from = query_at(job, v);
        if (v + BAND < vectors) {
            ask_for(query_at(job, v + BAND), dim * (int32_t)sizeof *from);
        }
        for (int32_t i = 0; i < space->depth; i += VF_WIDTH) {
            const vf lanes = i < dim ? vf_load_some(from + i, dim - i) : vf_zero();
            _mm256_storeu_si256((__m256i *)(void *)(to + i),
                                (__m256i)_mm512_cvtneps_pbh(vf_mul(lanes, scale)));
        }
    }
}

/* count keys, sixteen at a time, transposed by pairs; zeros up to whole panels. Values follow. */
LORE_INLINE void pack_keys(const workspace *space, const void *const *rows,
                           const void *const *values, const lore_dtype dtype, int32_t dim,
                           int32_t count)
{
    const int32_t bytes = dim * (dtype == LORE_F32 ? 4 : 2);
    for (int32_t k = 0; k < AHEAD; k++) {
        ask_ahead(rows, NULL, count, k, bytes);
    }
    for (int32_t k = 0; k < whole_panels(count); k += VF_WIDTH) {
        for (int32_t j = k + AHEAD; j < k + AHEAD + VF_WIDTH; j++) {
            ask_ahead(rows, values, count, j, bytes);
        }
        uint16_t *to = space->keys + (int64_t)(k / PANEL) * (space->depth / 2) * PANEL_ROW +
                       (int64_t)(k % PANEL) * 2;
        for (int32_t i = 0; i < space->depth; i += 2 * VF_WIDTH) {
            vf block[VF_WIDTH];
#pragma GCC unroll 16
            for (int32_t j = 0; j < VF_WIDTH; j++) {
                __m512i pairs = _mm512_setzero_si512();
                if (k + j < count) {
                    const __m256i low = load_halves(rows[k + j], dtype, i, dim);
                    const __m256i high = load_halves(rows[k + j], dtype, i + VF_WIDTH, dim);
                    pairs = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
                }
                block[j] = _mm512_castsi512_ps(pairs);
            }
            vf_transpose(block);
#pragma GCC unroll 16
            for (int32_t j = 0; j < VF_WIDTH; j++) {
                _mm512_storeu_ps((float *)(void *)(to + (int64_t)(i / 2 + j) * PANEL_ROW),
                                 block[j]);
            }
        }
    }
}

/* count values, two at a time, interleaved; zeros up to whole panels: a probability of zero must
 * not meet a number that is none. */
LORE_INLINE void pack_values(const workspace *space, const void *const *rows,
                             const lore_dtype dtype, int32_t dim, int32_t count)
{
    for (int32_t k = 0; k < whole_panels(count); k += 2) {
        for (int32_t j = k + AHEAD; j < k + AHEAD + 2; j++) {
            ask_ahead(rows, NULL, count, j, dim * (dtype == LORE_F32 ? 4 : 2));
        }
        for (int32_t i = 0; i < space->depth; i += VF_WIDTH) {
            uint16_t *to = space->values + ((int64_t)(i / PANEL) * (KEYS / 2) + k / 2) * PANEL_ROW +
                           (int64_t)(i % PANEL) * 2;
            __m512i pairs = _mm512_setzero_si512();
            if (k < count) {
                pairs = _mm512_cvtepu16_epi32(load_halves(rows[k], dtype, i, dim));
            }
            if (k + 1 < count) {
                const __m512i high = _mm512_cvtepu16_epi32(load_halves(rows[k + 1], dtype, i, dim));
                pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(high, 16));
            }
            _mm512_storeu_si512(to, pairs);
        }
    }
}

/* Keys and values of one block; the dtype is made a constant of the loops here. */
static void pack_block(const lore_attend *job, const workspace *space, int32_t first, int32_t count)
{
    const void *keys[KEYS], *values[KEYS];
    lore_attend_locate(job, job->keys, first, count, keys);
    lore_attend_locate(job, job->values, first, count, values);
    if (job->dtype == LORE_F32) {
        pack_keys(space, keys, values, LORE_F32, job->head_dim, count);
        pack_values(space, values, LORE_F32, job->head_dim, count);
    } else {
        pack_keys(space, keys, values, LORE_BF16, job->head_dim, count);
        pack_values(space, values, LORE_BF16, job->head_dim, count);
    }
}

/* ---- softmax ---- */

/* 2^x for x <= 0, good to 8e-5: a cubic of 2^f on [-1/2, 1/2] fitted by least squares of the
 * relative error at Chebyshev points. */
LORE_INLINE vf power_of_two(vf x)
{
    const vf f = _mm512_reduce_ps(x, 0); /* x less the nearest integer */
    vf y = vf_set(0.05508877f);
    y = vf_fma(y, f, vf_set(0.24260466f));
    y = vf_fma(y, f, vf_set(0.69327628f));
    y = vf_fma(y, f, vf_set(0.9999289f));
    return vf_scale2(y, vf_sub(x, f));
}

/* Probabilities of one vector are written over its scores: zeros, then those it sees, then zeros.
 * Gives their sum. */
static float store_probabilities(float *scores, float top, lore_key_span seen, lore_key_span held)
{
    const vf reference = vf_set(reference_score(top));
    uint16_t *to = (uint16_t *)(void *)scores;
    vf sum = vf_zero();
    int32_t i = held.begin;
    for (; i + VF_WIDTH <= seen.begin; i += VF_WIDTH) {
        _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_setzero_si256());
    }
    for (; i < seen.end; i += VF_WIDTH) {
        vf lanes = power_of_two(vf_sub(vf_load(scores + i), reference));
        if (is_edge(seen, i)) {
            lanes = vf_between(lanes, seen.begin - i, seen.end - i, 0.0f);
        }
        sum = vf_add(sum, lanes);
        _mm256_storeu_si256((__m256i *)(void *)(to + i), (__m256i)_mm512_cvtneps_pbh(lanes));
    }
    for (; i < held.end; i += VF_WIDTH) {
        _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_setzero_si256());
    }
    return vf_sum(sum);
}

/* Scores of one vector become probabilities relative to its largest score so far; of those held,
 * what the vector does not see becomes 0. Its mass is rescaled where that score grew; gives the
 * factor, for its output. */
static float soften(const lore_attend *job, const workspace *space, int32_t vector, float *scores,
                    lore_key_span seen, lore_key_span held)
{
    if (seen.begin >= seen.end) {
        memset((uint16_t *)(void *)scores + held.begin, 0,
               (size_t)(held.end - held.begin) * sizeof(uint16_t));
        return 1.0f;
    }
    if (job->softcap > 0.0f) {
        cap_scores(scores, seen, job->softcap * LOG2_E); /* scores carry log2(e) */
    }
    const float old_top = space->tops[vector], block_top = largest_score(scores, seen);
    const float top = block_top > old_top ? block_top : old_top;
    const float sum = store_probabilities(scores, top, seen, held);
    const float factor = old_top == top ? 1.0f : old_top == -INFINITY ? 0.0f : exp2f(old_top - top);
    space->masses[vector] = space->masses[vector] * factor + sum;
    space->tops[vector] = top;
    return factor;
}

static void rescale(const workspace *space, int32_t vector, float factor)
{
    float *sums = space->sums + (int64_t)vector * space->depth;
    for (int32_t c = 0; c < space->depth; c += VF_WIDTH) {
        vf_store(sums + c, vf_mul(vf_load(sums + c), vf_set(factor)));
    }
}

/* ---- one item ---- */

static void store_outputs(const lore_attend *job, const workspace *space, int32_t first,
                          int32_t band)
{
    const int32_t dim = job->head_dim;
    for (int32_t v = first; v < first + band; v++) {
        float *to = output_at(job, v);
        const float *sums = space->sums + (int64_t)v * space->depth;
        const vf inverse = vf_set(1.0f / space->masses[v]);
        if (job->log_sums != NULL) {
            job->log_sums[v] = (space->tops[v] + log2f(space->masses[v])) / LOG2_E;
        }
        for (int32_t i = 0; i < dim; i += VF_WIDTH) {
            vf_store_some(to + i, dim - i, vf_mul(vf_load(sums + i), inverse));
        }
    }
}

/* Query vectors first_vector .. +band-1 (at most BAND) against the packed block of `count` keys
 * from `first`. The first block of which the band sees something sets the sums, the others add. */
static void attend_band(const lore_attend *job, const workspace *space, int32_t first_vector,
                        int32_t band, int32_t first, int32_t count)
{
    const int32_t last_vector = first_vector + band - 1;
    lore_key_span held = lore_attend_seen(job, first_vector, last_vector, first, count);
    if (held.begin >= held.end) {
        return;
    }
    held.begin -= held.begin % PANEL;
    held.end = whole_panels(held.end);
    const bool is_adding =
        first > lore_attend_seen(job, first_vector, last_vector, 0, job->key_count).begin;
    pack_queries(job, space, first_vector, band);
    for (int32_t k = held.begin; k < held.end; k += PANEL) {
        for (int32_t v = 0; v < band; v += PRODUCT_ROWS) {
            const int32_t rows = band - v < PRODUCT_ROWS ? band - v : PRODUCT_ROWS;
            product(rows, false, space->depth / 2, space->queries + (int64_t)v * space->depth,
                    space->depth, space->keys + (int64_t)k * space->depth,
                    space->scores + v * KEYS + k, KEYS);
        }
    }
    for (int32_t v = 0; v < band; v++) {
        const int32_t vector = first_vector + v;
        ask_for(output_at(job, vector), job->head_dim * (int32_t)sizeof(float));
        const float factor = soften(job, space, vector, space->scores + v * KEYS,
                                    lore_attend_seen(job, vector, vector, first, count), held);
        if (is_adding && factor != 1.0f) {
            rescale(space, vector, factor);
        }
    }
    const uint16_t *probabilities = (const uint16_t *)(const void *)space->scores + held.begin;
    for (int32_t c = 0; c < space->depth; c += PANEL) {
        for (int32_t v = 0; v < band; v += PRODUCT_ROWS) {
            const int32_t rows = band - v < PRODUCT_ROWS ? band - v : PRODUCT_ROWS;
            product(rows, is_adding, (held.end - held.begin) / 2,
                    probabilities + (int64_t)v * 2 * KEYS, 2 * KEYS,
                    space->values + (int64_t)c * KEYS + (int64_t)held.begin * PANEL,
                    space->sums + (int64_t)(first_vector + v) * space->depth + c, space->depth);
        }
    }
}

static void attend(const lore_attend *job, void *scratch)
{
    const int32_t vectors = job->rows * job->heads;
    LORE_ASSERT(vectors <= VECTORS_MAX);
    if (vectors <= FEW) {
        lore_attention_avx512.attend(job, scratch);
        return;
    }
    workspace space;
    (void)workspace_init(&space, job->head_dim, scratch);
    for (int32_t v = 0; v < vectors; v++) {
        space.tops[v] = -INFINITY;
        space.masses[v] = 0.0f;
    }
    const lore_key_span all = lore_attend_seen(job, 0, vectors - 1, 0, job->key_count);
    for (int32_t first = all.begin; first < all.end; first += KEYS) {
        const int32_t count = all.end - first < KEYS ? all.end - first : KEYS;
        pack_block(job, &space, first, count);
        for (int32_t v = 0; v < vectors; v += BAND) {
            const int32_t band = vectors - v < BAND ? vectors - v : BAND;
            attend_band(job, &space, v, band, first, count);
            if (first + count == all.end) {
                store_outputs(job, &space, v, band);
            }
        }
    }
}
