/* Dense search at size: recall@10 against the f32 exact scan, and times, unfiltered and under
 * filters that keep a tenth, a hundredth and a thousandth of the documents.
 *
 * $LORE_INDEX_SIZE vectors (1,000,000 where that is not set) are grown from the real ones of
 * real_vectors.h, document by document, in as many passes as it takes. The first pass is the real
 * chunks. In each further one a vector v becomes the unit vector along v + t (u - w) with u and w
 * two random rows: noise with the covariance of the data, and t such that the cosine with v is what
 * a real vector has with its fifth neighbour (the median of a sample). Its text is the first half
 * of the chunk's and the second half of another one's, so words keep their shares. Every document
 * has the number "slot", 0 to 999 at random, for the filters. The folder is kept:
 * $LORE_INDEX_SIZE_DATA, or beside the test.
 *
 * The truth is computed from the f16 vectors in the database, widened, in f32. */
#define CHECK_LEAKS 0 /* FAISS and OpenBLAS keep theirs */
#include "tests/long/real_vectors.h"

#include <math.h>

enum {
    TRUTH_QUERIES = 400, /* half questions, half headings */
    BEST = 10,
    SHARES = 4,
    SLOTS = 1000,
    COMMIT_DOCUMENTS = 200,
    NEIGHBOUR = 5,
    NEIGHBOUR_SAMPLES = 64,
    FOUND = 200 /* what retrieval asks for */
};
static const int32_t SLOTS_KEPT[SHARES] = {SLOTS, 100, 10, 1};
static const char *const SHARE_NAMES[SHARES] = {"all", "10 %", "1 %", "0.1 %"};

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9E3779B97F4A7C15U; /* splitmix64 */
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
    x = (x ^ x >> 27) * 0x94D049BB133111EBU;
    return x ^ x >> 31;
}

/* ---- growing ---- */

typedef struct real {
    int32_t dim;
    int64_t count;
    float *vectors; /* [count, dim] */
    lore_str *texts;
    int64_t *documents; /* ascending */
    lore_arena arena;
} real;

static void widen(lore_str half, float *out, int32_t dim)
{
    CHECK_INT(half.len, (size_t)dim * sizeof(uint16_t));
    for (int32_t i = 0; i < dim; i++) {
        uint16_t bits;
        memcpy(&bits, half.ptr + 2 * i, sizeof bits);
        out[i] = lore_f16_to_f32(bits);
    }
}

static lore_db *open_database(const char *folder)
{
    char path[600];
    lore_error err;
    lore_db *db = NULL;
    snprintf(path, sizeof path, "%s/lore.db", folder);
    CHECK_OK(lore_db_open(path, false, &db, &err), &err);
    return db;
}

static void read_real(real *r, const char *folder, int32_t dim)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_db *db = open_database(folder);
    *r = (real){.dim = dim};
    lore_arena_init(&r->arena, 0);
    CHECK_OK(lore_db_number(db, "SELECT count(*) FROM vectors", &r->count, &err), &err);
    r->vectors = malloc((size_t)r->count * (size_t)dim * sizeof(float));
    r->texts = calloc((size_t)r->count, sizeof *r->texts);
    r->documents = calloc((size_t)r->count, sizeof *r->documents);
    CHECK(r->vectors != NULL && r->texts != NULL && r->documents != NULL);
    CHECK_OK(lore_stmt_new(db,
                           "SELECT v.data, c.document, c.start, c.end, t.text FROM chunks c "
                           "JOIN vectors v ON v.chunk=c.id JOIN texts t ON t.document=c.document "
                           "ORDER BY c.id",
                           &stmt, &err),
             &err);
    int64_t at = 0;
    for (;; at++) {
        CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
        if (!has_row) {
            break;
        }
        CHECK(at < r->count);
        widen(lore_column_bytes(stmt, 0), r->vectors + at * dim, dim);
        r->documents[at] = lore_column_int(stmt, 1);
        size_t start = (size_t)lore_column_int(stmt, 2), end = (size_t)lore_column_int(stmt, 3);
        r->texts[at] =
            lore_str_copy(&r->arena, lore_str_slice(lore_column_bytes(stmt, 4), start, end));
    }
    CHECK_INT(at, r->count);
    lore_stmt_free(stmt);
    lore_db_close(db);
}

static void free_real(real *r)
{
    free(r->vectors);
    free(r->texts);
    free(r->documents);
    lore_arena_destroy(&r->arena);
}

static float dot(const float *a, const float *b, int32_t dim)
{
    float sum = 0;
    for (int32_t i = 0; i < dim; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* The cosine with the fifth neighbour, median of a sample. */
static double neighbour_cosine(const real *r)
{
    double samples[NEIGHBOUR_SAMPLES];
    for (int s = 0; s < NEIGHBOUR_SAMPLES; s++) {
        int64_t own = s * r->count / NEIGHBOUR_SAMPLES;
        lore_candidate items[NEIGHBOUR];
        lore_top top = {items, 0, NEIGHBOUR};
        for (int64_t i = 0; i < r->count; i++) {
            if (i != own) {
                lore_top_offer(&top, i,
                               dot(r->vectors + own * r->dim, r->vectors + i * r->dim, r->dim));
            }
        }
        samples[s] = (double)items[0].score;
    }
    qsort(samples, NEIGHBOUR_SAMPLES, sizeof samples[0], by_value);
    return samples[NEIGHBOUR_SAMPLES / 2];
}

/* The unit vector with this cosine to row `of`, in the plane of it and of a random difference. */
static void perturb(const real *r, int64_t of, double cosine, uint64_t *random, float *out)
{
    const float *v = r->vectors + of * r->dim;
    const float *u = r->vectors + (int64_t)(next_random(random) % (uint64_t)r->count) * r->dim;
    const float *w = r->vectors + (int64_t)(next_random(random) % (uint64_t)r->count) * r->dim;
    double along = 0, norm = 0;
    for (int32_t d = 0; d < r->dim; d++) {
        out[d] = u[d] - w[d];
        along += (double)out[d] * (double)v[d];
    }
    for (int32_t d = 0; d < r->dim; d++) {
        out[d] -= (float)along * v[d];
        norm += (double)out[d] * (double)out[d];
    }
    double across = norm > 0 ? sqrt((1 - cosine * cosine) / norm) : 0;
    for (int32_t d = 0; d < r->dim; d++) {
        out[d] = (float)(cosine * (double)v[d] + across * (double)out[d]);
    }
}

/* The end of the first half: behind a space, or at the start of a character. */
static size_t middle_of(lore_str text)
{
    size_t at = text.len / 2;
    while (at < text.len && ((unsigned char)text.ptr[at] & 0xc0) == 0x80) {
        at++;
    }
    for (size_t i = at; i < text.len && i < at + 24; i++) {
        if (text.ptr[i] == ' ') {
            return i + 1;
        }
    }
    return at;
}

typedef struct growing {
    bench *b;
    const real *r;
    int64_t pass;
    double cosine;
    uint64_t random;
    float *vectors; /* of one document's chunks */
} growing;

enum { CHUNKS_MAX = 4096 };

static void put(growing *g, int64_t first, int64_t count)
{
    static lore_chunk_row chunks[CHUNKS_MAX];
    lore_error err;
    lore_buf text;
    char id[48], metadata[48];
    lore_put_outcome outcome;
    CHECK(count <= CHUNKS_MAX);
    lore_buf_init(&text, 0);
    for (int64_t i = 0; i < count; i++) {
        float *vector = g->vectors + i * g->r->dim;
        lore_str own = g->r->texts[first + i];
        size_t start = text.len;
        if (g->pass == 0) {
            memcpy(vector, g->r->vectors + (first + i) * g->r->dim,
                   (size_t)g->r->dim * sizeof(float));
            lore_buf_append(&text, own);
        } else {
            lore_str other = g->r->texts[next_random(&g->random) % (uint64_t)g->r->count];
            perturb(g->r, first + i, g->cosine, &g->random, vector);
            lore_buf_append(&text, lore_str_slice(own, 0, middle_of(own)));
            lore_buf_append(&text, lore_str_slice(other, middle_of(other), other.len));
        }
        chunks[i] = (lore_chunk_row){start, text.len, LORE_STR(""), vector};
        lore_buf_append(&text, LORE_STR("\n\n"));
    }
    CHECK(!lore_buf_failed(&text));
    snprintf(id, sizeof id, "%lld-%lld", (long long)g->pass, (long long)first);
    snprintf(metadata, sizeof metadata, "{\"slot\":%d}", (int)(next_random(&g->random) % SLOTS));
    lore_document_row row = {.id = lore_str_from(id),
                             .source = lore_str_from(id),
                             .title = lore_str_from(id),
                             .metadata = lore_str_from(metadata),
                             .media = LORE_STR("text/plain"),
                             .text = lore_buf_str(&text),
                             .chunks = chunks,
                             .chunk_count = (int32_t)count};
    CHECK_OK(lore_index_put_document(g->b->index, LORE_STR("default"), &row, &outcome, &err), &err);
    lore_buf_destroy(&text);
}

static void commit(bench *b, bool is_last)
{
    lore_error err;
    CHECK_OK(lore_index_commit(b->index, &err), &err);
    CHECK_OK(lore_index_publish(b->index, &err), &err);
    lore_status status = lore_index_checkpoint(b->index, is_last, &err);
    CHECK(status == LORE_OK || status == LORE_ERR_BUSY);
    if (!is_last) {
        CHECK_OK(lore_index_begin(b->index, &err), &err);
    }
}

static void grow(bench *b, const real *r, int64_t wanted)
{
    lore_error err;
    growing g = {.b = b, .r = r, .random = 7};
    int64_t made = 0, documents = 0, start_ns = lore_clock_ns();
    g.vectors = malloc((size_t)CHUNKS_MAX * (size_t)r->dim * sizeof(float));
    CHECK(g.vectors != NULL);
    g.cosine = wanted > r->count ? neighbour_cosine(r) : 1;
    CHECK_OK(lore_index_begin(b->index, &err), &err);
    for (; made < wanted; g.pass++) {
        for (int64_t first = 0; first < r->count && made < wanted;) {
            int64_t count = 1;
            while (first + count < r->count && count < wanted - made &&
                   r->documents[first + count] == r->documents[first]) {
                count++;
            }
            put(&g, first, count);
            first += count;
            made += count;
            if (++documents % COMMIT_DOCUMENTS == 0) {
                commit(b, false);
            }
        }
    }
    commit(b, true);
    free(g.vectors);
    printf("grown to %lld vectors in %lld documents in %.0f s, cosine of the noise %.3f\n",
           (long long)made, (long long)documents, (double)(lore_clock_ns() - start_ns) / 1e9,
           g.cosine);
}

/* ---- the truth ---- */

typedef struct truth {
    lore_candidate items[TRUTH_QUERIES][SHARES][BEST];
    lore_top tops[TRUTH_QUERIES][SHARES];
} truth;

/* All products of one row with the queries, which lie transposed: [dim, TRUTH_QUERIES]. */
__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3"))) static void multiply(
    const float *row, const float *queries, int32_t dim, float *products)
{
    memset(products, 0, TRUTH_QUERIES * sizeof(float));
    for (int32_t d = 0; d < dim; d++) {
        for (int32_t q = 0; q < TRUTH_QUERIES; q++) {
            products[q] += row[d] * queries[d * TRUTH_QUERIES + q];
        }
    }
}

static void find_truth(truth *t, const char *folder, const float *vectors, int32_t dim)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = true;
    float row[4096], products[TRUTH_QUERIES];
    lore_db *db = open_database(folder);
    float *queries = malloc((size_t)dim * TRUTH_QUERIES * sizeof(float));
    CHECK(queries != NULL && dim <= 4096);
    for (int32_t q = 0; q < TRUTH_QUERIES; q++) {
        for (int32_t d = 0; d < dim; d++) {
            queries[d * TRUTH_QUERIES + q] = vectors[q * dim + d];
        }
        for (int s = 0; s < SHARES; s++) {
            t->tops[q][s] = (lore_top){t->items[q][s], 0, BEST};
        }
    }
    CHECK_OK(lore_stmt_new(db,
                           "SELECT v.chunk, v.data, json_extract(d.metadata,'$.slot') FROM chunks "
                           "c JOIN vectors v ON v.chunk=c.id JOIN documents d ON d.id=c.document",
                           &stmt, &err),
             &err);
    for (;;) {
        CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
        if (!has_row) {
            break;
        }
        int64_t chunk = lore_column_int(stmt, 0), slot = lore_column_int(stmt, 2);
        widen(lore_column_bytes(stmt, 1), row, dim);
        multiply(row, queries, dim, products);
        for (int32_t q = 0; q < TRUTH_QUERIES; q++) {
            for (int s = 0; s < SHARES && slot < SLOTS_KEPT[s]; s++) {
                lore_top_offer(&t->tops[q][s], chunk, products[q]);
            }
        }
    }
    lore_stmt_free(stmt);
    lore_db_close(db);
    free(queries);
}

/* ---- measuring ---- */

static const lore_filter *make_filter(bench *b, int share, lore_arena *arena)
{
    char text[96];
    lore_error err;
    lore_json *json = NULL;
    const lore_filter *filter = NULL;
    if (SLOTS_KEPT[share] == SLOTS) {
        return NULL;
    }
    snprintf(text, sizeof text, "{\"type\":\"lt\",\"key\":\"slot\",\"value\":%d}",
             SLOTS_KEPT[share]);
    CHECK_OK(lore_json_parse(lore_str_from(text), 8, &json, &err), &err);
    CHECK_OK(lore_filter_parse(json, &b->config.limits, arena, &filter, &err), &err);
    lore_json_free(json);
    return filter;
}

static double recall_of(const lore_top *best, const lore_candidates *found)
{
    int hits = 0;
    for (int32_t i = 0; i < best->count; i++) {
        for (int32_t j = 0; j < found->count && j < best->count; j++) {
            hits += best->items[i].chunk == found->items[j].chunk;
        }
    }
    return best->count == 0 ? 1 : (double)hits / best->count;
}

/* Recall. */
static double measure(bench *b, const truth *t, int share, bool is_exact)
{
    static double times[TRUTH_QUERIES];
    lore_error err;
    lore_arena arena, kept;
    double recall = 0, first_ms = 0;
    lore_arena_init(&arena, 0);
    lore_arena_init(&kept, 0);
    lore_search_options options = {.count = FOUND, .is_exact = is_exact};
    options.filter = make_filter(b, share, &kept);
    for (int32_t i = -1; i < TRUTH_QUERIES; i++) {
        int32_t q = i < 0 ? TRUTH_QUERIES - 1 : i; /* the first pays for caches: shown apart */
        lore_candidates found;
        const float *vector = b->vectors + (int64_t)q * lore_embedder_dim(b->embedder);
        int64_t start_ns = lore_clock_ns();
        lore_snapshot *snapshot = lore_index_acquire(b->index);
        CHECK_OK(lore_search_dense(snapshot, vector, &options, &arena, &found, &err), &err);
        lore_snapshot_release(snapshot);
        double ms = (double)(lore_clock_ns() - start_ns) / 1e6;
        if (i < 0) {
            first_ms = ms;
        } else {
            times[i] = ms;
            recall += recall_of(&t->tops[q][share], &found) / TRUTH_QUERIES;
        }
        lore_arena_reset(&arena);
    }
    qsort(times, TRUTH_QUERIES, sizeof times[0], by_value);
    printf("%-6s %-6s recall@10 %.4f   p50 %.3f p99 %.3f max %.3f ms   first %.1f ms\n",
           SHARE_NAMES[share], is_exact ? "scan" : "index", recall, times[TRUTH_QUERIES / 2],
           times[TRUTH_QUERIES * 99 / 100], times[TRUTH_QUERIES - 1], first_ms);
    fflush(stdout);
    lore_arena_destroy(&arena);
    lore_arena_destroy(&kept);
    return recall;
}

static int64_t chunks_of(bench *b)
{
    lore_snapshot *snapshot = lore_index_acquire(b->index);
    int64_t chunks = lore_snapshot_chunks(snapshot);
    lore_snapshot_release(snapshot);
    return chunks;
}

/* Half questions, half headings, in b->vectors. */
static void embed_queries(bench *b, const corpus *texts)
{
    static questions asked;
    char *queries[QUERIES];
    read_questions(&asked);
    for (int q = 0; q < QUERIES; q++) { /* evenly from both; the first TRUTH_QUERIES are used */
        int from = q / 2 * 5 % QUERIES;
        queries[q] = q % 2 == 0 ? asked.texts[from] : texts->headings[from];
    }
    embed(b, queries);
}

static void show_memory(void)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "VmHWM", 5) == 0 || strncmp(line, "VmRSS", 5) == 0 ||
            strncmp(line, "Rss", 3) == 0) {
            printf("%s", line);
        }
    }
    CHECK(file != NULL && fclose(file) == 0);
}

TEST(dense_search_at_size)
{
    static corpus texts;
    static bench b;
    static truth t;
    static real r;
    const char *size = getenv("LORE_INDEX_SIZE"), *kept = getenv("LORE_INDEX_SIZE_DATA");
    int64_t wanted = size != NULL ? atoll(size) : 1000000;
    char source[512];
    prepare(&b, &texts);
    embed_queries(&b, &texts);
    snprintf(source, sizeof source, "%s", b.folder);
    snprintf(b.folder, sizeof b.folder, "%s", kept != NULL ? kept : "index-size-data");
    b.config.ann_min_vectors = 1000000000; /* the lists are made once, at the end */
    open_index(&b);
    if (chunks_of(&b) < wanted) {
        read_real(&r, source, lore_embedder_dim(b.embedder));
        grow(&b, &r, wanted);
        free_real(&r);
    }
    lore_index_close(b.index);
    lore_config defaults;
    lore_config_default(&defaults);
    b.config.ann_min_vectors = defaults.ann_min_vectors;
    int64_t start_ns = lore_clock_ns();
    open_index(&b);
    double open_s = (double)(lore_clock_ns() - start_ns) / 1e9;
    CHECK(lore_rebuild_wait(b.index, lore_clock_ns() + (int64_t)3000 * 1000000000));
    printf("opened in %.2f s, lists made or loaded after %.1f s\n", open_s,
           (double)(lore_clock_ns() - start_ns) / 1e9);
    show_memory();
    start_ns = lore_clock_ns();
    find_truth(&t, b.folder, b.vectors, lore_embedder_dim(b.embedder));
    printf("truth of %d queries in %.1f s\n", TRUTH_QUERIES,
           (double)(lore_clock_ns() - start_ns) / 1e9);
    double worst[2] = {1, 1};
    for (int is_exact = 1; is_exact >= 0; is_exact--) {
        for (int share = 0; share < SHARES; share++) {
            double recall = measure(&b, &t, share, is_exact != 0);
            worst[is_exact] = recall < worst[is_exact] ? recall : worst[is_exact];
        }
    }
    show_memory();
    lore_index_close(b.index);
    close_models(&b);
    CHECK(worst[true] >= .99);
    CHECK(worst[false] >= (wanted <= b.config.ann_min_vectors ? .99 : .97));
}

CHECK_MAIN(dense_search_at_size)
