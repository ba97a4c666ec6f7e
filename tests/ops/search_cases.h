/* lore_op_search on a backend under test, against a plain model: the scores of all rows (int8 by
 * ref's scan, f16 in double), sorted. int8 answers must be the model's to the last bit, ties and
 * rows that do not pass included; f16 scores may differ by the rounding of sums. */
#ifndef LORE_TESTS_OPS_SEARCH_CASES_H
#define LORE_TESTS_OPS_SEARCH_CASES_H

#include "kernels/search.h"
#include "tests/ops/ops_subject.h"

typedef struct search_case {
    lore_search search;  /* host pointers */
    int32_t hits, shift; /* shift: bytes by which the vectors of the subject are out of line */
} search_case;

typedef struct scored {
    float score;
    int32_t row;
} scored;

static int compare_scored(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->row < y->row ? -1 : x->row > y->row;
}

/* *size gets the sum of the products' sizes, of which a sum in f32 may be off by some millionths.
 */
static double product_f16(const lore_search *s, int32_t query, int64_t row, double *size)
{
    const uint16_t *q = (const uint16_t *)s->query + (int64_t)query * s->dim;
    const uint16_t *v = (const uint16_t *)s->vectors + row * s->dim;
    double sum = 0.0;
    *size = 0.0;
    for (int32_t c = 0; c < s->dim; c++) {
        const double product = (double)lore_f16_to_f32(q[c]) * (double)lore_f16_to_f32(v[c]);
        sum += product;
        *size += fabs(product);
    }
    return sum;
}

static bool row_passes(const lore_search *s, int64_t row)
{
    return s->passing == NULL || (s->passing[row / 32] >> (row % 32) & 1) != 0;
}

/* All rows that may be found, best first; returns how many. */
static int64_t model_search(const subject *on, const lore_search *s, int32_t query, scored *out)
{
    float *scores = host_new((size_t)s->count * sizeof *scores);
    if (s->dtype == LORE_I8) {
        lore_op_scan(on->ref.queue, scores, (const int8_t *)s->query + (int64_t)query * s->dim,
                     s->query_scales[query], s->vectors, s->scales, s->count, s->dim);
        sync(&on->ref);
    }
    int64_t count = 0;
    for (int64_t row = 0; row < s->count; row++) {
        double size = 0.0;
        const float score =
            s->dtype == LORE_I8 ? scores[row] : (float)product_f16(s, query, row, &size);
        if (row_passes(s, row) && !isnan(score)) {
            out[count++] = (scored){score, (int32_t)row};
        }
    }
    qsort(out, (size_t)count, sizeof *out, compare_scored);
    lore_free(scores);
    return count;
}

/* What the subject finds, from outputs between sentinels. */
static void run_search(const side *at, const search_case *c, int32_t *rows, float *scores)
{
    const lore_search *s = &c->search;
    const size_t element = lore_dtype_size(s->dtype), dim = (size_t)s->dim;
    const size_t cells = (size_t)s->queries * (size_t)c->hits, all = cells + 2 * SENTINELS;
    const size_t vector_bytes = (size_t)s->count * dim * element;
    char *shifted = host_new(vector_bytes + (size_t)c->shift);
    memset(shifted, 0x55, (size_t)c->shift);
    memcpy(shifted + c->shift, s->vectors, vector_bytes);
    float *blank = host_new(all * sizeof *blank);
    for (size_t i = 0; i < all; i++) {
        blank[i] = SENTINEL;
    }
    char *own_vectors = upload(at, shifted, vector_bytes + (size_t)c->shift);
    void *own_query = upload(at, s->query, (size_t)s->queries * dim * element);
    float *own_query_scales = NULL, *own_scales = NULL;
    uint32_t *own_passing = NULL;
    if (s->dtype == LORE_I8) {
        own_query_scales = upload(at, s->query_scales, (size_t)s->queries * sizeof(float));
        own_scales = upload(at, s->scales, (size_t)s->count * sizeof(float));
    }
    if (s->passing != NULL) {
        own_passing = upload(at, s->passing, ((size_t)s->count + 31) / 32 * sizeof(uint32_t));
    }
    int32_t *out_rows = upload(at, blank, all * sizeof *blank);
    float *out_scores = upload(at, blank, all * sizeof *blank);
    const lore_search own = {
        s->dtype,    s->queries, own_query, own_query_scales, own_vectors + c->shift, own_scales,
        own_passing, s->count,   s->dim};
    lore_op_search(at->queue, out_rows + SENTINELS, out_scores + SENTINELS, c->hits, &own);
    float *got = host_new(all * sizeof *got);
    for (int which = 0; which < 2; which++) {
        lore_queue_download(at->queue, got, which == 0 ? (void *)out_rows : (void *)out_scores,
                            all * sizeof *got);
        sync(at);
        CHECK(memcmp(got, blank, SENTINELS * sizeof *got) == 0);
        CHECK(memcmp(got + SENTINELS + cells, blank, SENTINELS * sizeof *got) == 0);
        memcpy(which == 0 ? (void *)rows : (void *)scores, got + SENTINELS, cells * sizeof *got);
    }
    lore_backend_free(at->backend, own_vectors);
    lore_backend_free(at->backend, own_query);
    lore_backend_free(at->backend, own_query_scales);
    lore_backend_free(at->backend, own_scales);
    lore_backend_free(at->backend, own_passing);
    lore_backend_free(at->backend, out_rows);
    lore_backend_free(at->backend, out_scores);
    lore_free(shifted);
    lore_free(blank);
    lore_free(got);
}

static void check_hit(const subject *on, const search_case *c, int32_t query, int32_t i,
                      int32_t row, float score, scored want)
{
    const lore_search *s = &c->search;
    bool is_right = row == want.row && score == want.score;
    if (s->dtype == LORE_F16 && row >= 0 && row < s->count && row_passes(s, row)) {
        double size = 0.0, wanted_size = 0.0; /* rows that score as well may change places */
        const double own = product_f16(s, query, row, &size);
        (void)product_f16(s, query, want.row, &wanted_size);
        const double allowed = 1e-6 + 5e-6 * (size + wanted_size);
        is_right = fabs((double)score - own) <= allowed &&
                   fabs((double)score - (double)want.score) <= allowed;
    }
    if (!is_right) {
        CHECK_STOP("search on %s: %d queries, %d hits, %" PRId64 " x %d %s, shift %d: hit %d of "
                   "query %d is row %d (%.9g), not %d (%.9g)",
                   on->name, (int)s->queries, (int)c->hits, s->count, (int)s->dim,
                   lore_dtype_name(s->dtype), (int)c->shift, (int)i, (int)query, (int)row,
                   (double)score, (int)want.row, (double)want.score);
    }
}

static void check_search(const subject *on, const search_case *c)
{
    const lore_search *s = &c->search;
    const size_t cells = (size_t)s->queries * (size_t)c->hits;
    int32_t *rows = host_new(cells * sizeof *rows);
    float *scores = host_new(cells * sizeof *scores);
    scored *want = host_new((size_t)s->count * sizeof *want);
    run_search(&on->test, c, rows, scores);
    for (int32_t query = 0; query < s->queries; query++) {
        const int64_t found = model_search(on, s, query, want);
        for (int32_t i = 0; i < c->hits; i++) {
            const size_t at = (size_t)query * (size_t)c->hits + (size_t)i;
            if (i < found) {
                check_hit(on, c, query, i, rows[at], scores[at], want[i]);
            } else {
                CHECK_INT(rows[at], -1);
                CHECK(scores[at] == -INFINITY);
            }
        }
    }
    lore_free(rows);
    lore_free(scores);
    lore_free(want);
}

/* ---- inputs ---- */

/* spread: int8 values are below it in size; few of them make ties everywhere. */
static void fill_case(search_case *c, lore_dtype dtype, int32_t queries, int64_t count, int32_t dim,
                      int32_t spread)
{
    lore_search *s = &c->search;
    const size_t cells[2] = {(size_t)queries * (size_t)dim, (size_t)count * (size_t)dim};
    void *values[2];
    for (int which = 0; which < 2; which++) {
        if (dtype == LORE_I8) {
            int8_t *made = host_new(cells[which]);
            for (size_t i = 0; i < cells[which]; i++) {
                made[i] = (int8_t)(random_below(2 * spread - 1) - (spread - 1));
            }
            values[which] = made;
        } else {
            float *wide = random_floats(cells[which]);
            values[which] = store_as(dtype, wide, cells[which]);
            lore_free(wide);
        }
    }
    float *scales = NULL, *query_scales = NULL;
    if (dtype == LORE_I8) {
        scales = host_new((size_t)count * sizeof *scales);
        query_scales = host_new((size_t)queries * sizeof *query_scales);
        for (int64_t i = 0; i < count; i++) {
            scales[i] = spread < 4 ? 1.0f : 0.001f * (float)(1 + random_below(1000));
        }
        for (int32_t i = 0; i < queries; i++) {
            query_scales[i] = 0.01f * (float)(1 + random_below(100));
        }
    }
    *s =
        (lore_search){dtype, queries, values[0], query_scales, values[1], scales, NULL, count, dim};
}

static void free_case(search_case *c)
{
    lore_free((void *)(uintptr_t)c->search.query);
    lore_free((void *)(uintptr_t)c->search.vectors);
    lore_free((void *)(uintptr_t)c->search.query_scales);
    lore_free((void *)(uintptr_t)c->search.scales);
    lore_free((void *)(uintptr_t)c->search.passing);
}

/* One row in `every` passes; 0: none does. */
static void fill_passing(search_case *c, int32_t every)
{
    const size_t words = ((size_t)c->search.count + 31) / 32;
    uint32_t *passing = host_new(words * sizeof *passing);
    memset(passing, 0, words * sizeof *passing);
    for (int64_t row = 0; row < (int64_t)words * 32 && every > 0; row++) { /* also past the end */
        if (random_below(every) == 0) {
            passing[row / 32] |= 1u << (row % 32);
        }
    }
    c->search.passing = passing;
}

/* ---- cases ---- */

/* Sizes at the edges of groups, tiles, steps and pieces of queries. */
CHECK_UNUSED static void cases_search(const subject *on)
{
    for (int i = 0; i < 60; i++) {
        search_case c = {.hits = PICK(1, 2, 3, 10, 33, 200, 1000, 1024),
                         .shift = i % 7 == 6 ? 3 : 0};
        const lore_dtype dtype = i % 3 == 2 ? LORE_F16 : LORE_I8;
        const int32_t dim = PICK(1, 15, 16, 17, 32, 48, 63, 64, 65, 80, 384, 768, 1024),
                      queries = PICK(0, 1, 2, 7, 8, 9, 16, 63, 64, 65, 72, 129);
        int32_t count = PICK(0, 1, 31, 32, 33, 255, 257, 1023, 4000);
        count = queries > 16 && count > 300 ? 300 : count; /* the model takes its time */
        c.shift = dtype == LORE_F16 ? c.shift / 2 * 2 : c.shift;
        fill_case(&c, dtype, queries, count, dim, PICK(2, 3, 128, 128));
        if (i % 4 == 1) {
            fill_passing(&c, PICK(0, 1, 2, 40, 500));
        }
        check_search(on, &c);
        free_case(&c);
    }
}

/* Long vectors: those whose queries do not fit beside one another, and those that fit in no way. */
CHECK_UNUSED static void cases_search_long(const subject *on)
{
    static const int32_t dims[] = {1536, 1552, 4096, 12288, 12304};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        search_case c = {.hits = 7};
        fill_case(&c, i % 2 == 0 ? LORE_I8 : LORE_F16, 11, 100, dims[i], 128);
        check_search(on, &c);
        free_case(&c);
    }
}

/* Rows that score worst first, best last, all alike, and as one cluster; scales that are NaN,
 * negative and zero; products as large as they come. */
CHECK_UNUSED static void cases_search_orders(const subject *on)
{
    for (int i = 0; i < 6; i++) {
        search_case c = {.hits = i % 2 == 0 ? 100 : 1024};
        const int32_t count = 3000, dim = 64;
        fill_case(&c, LORE_I8, i < 3 ? 2 : 10, count, dim, 128);
        float *scales = (float *)(uintptr_t)c.search.scales;
        int8_t *vectors = (int8_t *)(uintptr_t)c.search.vectors;
        int8_t *queries = (int8_t *)(uintptr_t)c.search.query;
        for (int32_t row = 0; row < count && i != 5; row++) {
            memcpy(vectors + (int64_t)row * dim, queries, (size_t)dim); /* scores go by the scale */
            scales[row] = i == 0   ? (float)row
                          : i == 1 ? (float)(count - row)
                          : i == 2 ? 1.0f
                          : i == 3 ? (row / 100 == 17 ? 2.0f : 1.0f) + 1e-4f * (float)(row % 10)
                                   : (float)(row % 5 - 2);
        }
        for (int32_t row = 0; row < count && i == 4; row += 3) {
            scales[row] = NAN;
        }
        if (i == 5) {
            memset(vectors, -128, (size_t)count * (size_t)dim);
            memset(queries, -128, (size_t)c.search.queries * (size_t)dim);
        }
        check_search(on, &c);
        free_case(&c);
    }
}

/* More rows than one slice of a device holds (cuda_search.cu: 4,194,304). */
CHECK_UNUSED static void cases_search_slices(const subject *on)
{
    search_case c = {.hits = 50};
    fill_case(&c, LORE_I8, 3, (1 << 22) + 3 * 32 + 5, 16, 128);
    check_search(on, &c);
    fill_passing(&c, 100000); /* fewer pass in a slice than are wanted */
    check_search(on, &c);
    free_case(&c);
}

#endif
