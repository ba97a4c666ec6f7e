/* Fusion. Both lists are copied, put in order of chunk id and merged, so the input order cannot
 * matter; the merged list is then sorted by score. Lists hold a few hundred items at most. */
#include "retrieval/fuse.h"

#include <math.h>
#include <stdlib.h>

enum { RRF_K = 60 };

static int by_chunk(const void *a, const void *b)
{
    int64_t x = ((const lore_fused *)a)->chunk;
    int64_t y = ((const lore_fused *)b)->chunk;
    return (x > y) - (x < y);
}

static int by_score(const void *a, const void *b)
{
    float x = ((const lore_fused *)a)->score;
    float y = ((const lore_fused *)b)->score;
    return x != y ? (x < y) - (x > y) : by_chunk(a, b);
}

/* Both lists as one array in order of chunk id, each chunk once, absent scores NaN. */
static int32_t merge(lore_candidates dense, lore_candidates text, lore_fused *fused)
{
    int32_t count = 0;
    for (int32_t i = 0; i < dense.count; i++) {
        fused[count++] = (lore_fused){dense.items[i].chunk, 0.0F, dense.items[i].score, NAN};
    }
    for (int32_t i = 0; i < text.count; i++) {
        fused[count++] = (lore_fused){text.items[i].chunk, 0.0F, NAN, text.items[i].score};
    }
    if (count == 0) {
        return 0;
    }
    qsort(fused, (size_t)count, sizeof *fused, by_chunk);
    int32_t kept = 0;
    for (int32_t i = 1; i < count; i++) {
        if (fused[i].chunk != fused[kept].chunk) {
            fused[++kept] = fused[i];
        } else if (isnan(fused[kept].dense)) {
            fused[kept].dense = fused[i].dense;
        } else if (isnan(fused[kept].lexical)) {
            fused[kept].lexical = fused[i].lexical;
        }
    }
    return kept + 1;
}

typedef struct range {
    float low, high;
} range;

static range range_of(lore_candidates list)
{
    range r = {INFINITY, -INFINITY};
    for (int32_t i = 0; i < list.count; i++) {
        r.low = fminf(r.low, list.items[i].score);
        r.high = fmaxf(r.high, list.items[i].score);
    }
    return r;
}

/* A list of one score, or of equal ones, counts as full agreement on all of them. */
static float normalised(float score, range r)
{
    if (isnan(score)) {
        return 0.0F;
    }
    return r.high > r.low ? (score - r.low) / (r.high - r.low) : 1.0F;
}

int32_t lore_fuse_scores(lore_candidates dense, lore_candidates text, double weight,
                         lore_fused *fused)
{
    LORE_ASSERT(weight >= 0.0 && weight <= 1.0);
    range dense_range = range_of(dense);
    range text_range = range_of(text);
    /* BM25 has a natural zero, "no word in common"; a cosine has none, so its worst candidate
     * stands in for it. */
    text_range.low = fminf(text_range.low, 0.0F);
    int32_t count = merge(dense, text, fused);
    for (int32_t i = 0; i < count; i++) {
        double d = (double)normalised(fused[i].dense, dense_range);
        double t = (double)normalised(fused[i].lexical, text_range);
        fused[i].score = (float)(weight * d + (1.0 - weight) * t);
    }
    if (count > 1) {
        qsort(fused, (size_t)count, sizeof *fused, by_score);
    }
    return count;
}

/* 1-based rank of a score in its list; ties share the better rank. */
static int32_t rank_of(float score, lore_candidates list)
{
    int32_t rank = 1;
    for (int32_t i = 0; i < list.count; i++) {
        rank += list.items[i].score > score;
    }
    return rank;
}

int32_t lore_fuse_ranks(lore_candidates dense, lore_candidates text, double weight,
                        lore_fused *fused)
{
    LORE_ASSERT(weight >= 0.0 && weight <= 1.0);
    int32_t count = merge(dense, text, fused);
    for (int32_t i = 0; i < count; i++) {
        double score = 0.0;
        if (!isnan(fused[i].dense)) {
            score += weight / (RRF_K + rank_of(fused[i].dense, dense));
        }
        if (!isnan(fused[i].lexical)) {
            score += (1.0 - weight) / (RRF_K + rank_of(fused[i].lexical, text));
        }
        fused[i].score = (float)(score * (RRF_K + 1));
    }
    if (count > 1) {
        qsort(fused, (size_t)count, sizeof *fused, by_score);
    }
    return count;
}
