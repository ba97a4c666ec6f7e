/* The fence around FAISS, through its official C API: an IVF index with 8-bit scalar quantisation
 * over the published vectors of one large collection.
 *
 * What FAISS does not do for us, and what it must not be asked (design/measurements.md §1):
 * 1. Adding while others search crashes: an index is filled before anybody sees it and never
 * changes afterwards.
 * 2. An exception inside an OpenMP region ends the process, so only what is known not to throw
 * there is called: train, add_with_ids, search, read and write of IVF with array lists. Files are
 * checked against size and checksum before FAISS sees them.
 * 3. Writing neither syncs nor renames: we do.
 * 4. Searching uses as many threads as OpenMP thinks best, and OpenBLAS as many again below it: one
 * each.
 * 5. Files are read into memory, not mapped: mapped lists start up to 32 prefetch threads in every
 * search.
 *
 * The index proposes candidates; their scores are taken from the int8 rows, so that both kinds of
 * search agree. */
#include "index/index_int.h"

#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    LISTS_MAX = 16384,
    VECTORS_PER_LIST_MIN = 39, /* what FAISS's k-means asks for */
    TRAIN_PER_LIST = 64,       /* more costs time in proportion and gains nothing here */
    ADD_ROWS = 8192
};

/* Debian's BLAS may be OpenBLAS or another: only OpenBLAS has threads to switch off. */
extern void openblas_set_num_threads(int count) __attribute__((weak));

struct lore_ann {
    _Atomic int32_t references;
    FaissIndex *index;
};

static void use_threads(int32_t count)
{
    omp_set_num_threads(count); /* of the calling thread only */
    if (openblas_set_num_threads != NULL) {
        openblas_set_num_threads(1);
    }
}

/* The words of the last exception are the calling thread's and live until its next one: copied at
 * once. */
static lore_status fail_faiss(const char *doing, const char *path, lore_error *err)
{
    const char *words = faiss_get_last_error();
    words = words == NULL ? "no reason given" : words;
    lore_status status = strstr(words, "bad_alloc") != NULL ? LORE_ERR_NOMEM : LORE_ERR_IO;
    return lore_fail(err, status, "cannot %s '%s': %s", doing, path, words);
}

/* ---- live rows of several parts, in order ---- */

typedef struct live_rows {
    const lore_part *parts;
    int32_t part_count, part;
    int64_t row;
} live_rows;

static bool next_live(live_rows *rows, const lore_segment **segment, int64_t *row)
{
    for (; rows->part < rows->part_count; rows->part++, rows->row = 0) {
        const lore_part *part = &rows->parts[rows->part];
        for (; rows->row < part->segment->count; rows->row++) {
            if (!lore_dead_has(part->dead, rows->row)) {
                *segment = part->segment;
                *row = rows->row++;
                return true;
            }
        }
    }
    return false;
}

static void widen(const lore_segment *segment, int64_t row, float *out)
{
    const int8_t *from = segment->rows + row * segment->dim;
    for (int32_t i = 0; i < segment->dim; i++) {
        out[i] = segment->scales[row] * (float)from[i];
    }
}

/* ---- building ---- */

/* About 2 sqrt(n), as a power of two: with 32 lists probed, 3 % of 200,000 vectors are looked at.
 * Fewer where k-means would complain about too few vectors a list (on standard error, which is not
 * ours to write to). */
static int64_t list_count(int64_t vectors)
{
    int64_t lists = 1;
    while (lists < LISTS_MAX && (double)lists * 1.5 < 2.0 * sqrt((double)vectors) &&
           2 * lists * VECTORS_PER_LIST_MIN <= vectors) {
        lists *= 2;
    }
    return lists;
}

static lore_status train(FaissIndex *index, const char *path, live_rows rows, int64_t live,
                         int64_t wanted, int32_t dim, lore_error *err)
{
    size_t size = 0;
    float *sample = NULL;
    wanted = wanted < live ? wanted : live;
    if (lore_size_mul((size_t)wanted * sizeof(float), (size_t)dim, &size)) {
        sample = lore_alloc(size);
    }
    if (sample == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory training '%s'", path);
    }
    const lore_segment *segment = NULL;
    int64_t taken = 0, row = 0;
    for (int64_t i = 0; next_live(&rows, &segment, &row) && taken < wanted; i++) {
        if (i * wanted / live >= taken) { /* evenly spread */
            widen(segment, row, sample + taken * dim);
            taken++;
        }
    }
    lore_status status = LORE_OK;
    if (faiss_Index_train(index, taken, sample) != 0) {
        status = fail_faiss("train", path, err);
    }
    lore_free(sample);
    return status;
}

static lore_status add_all(FaissIndex *index, const char *path, live_rows rows, int32_t dim,
                           lore_error *err)
{
    float *vectors = lore_alloc((size_t)ADD_ROWS * (size_t)dim * sizeof(float));
    idx_t *ids = lore_alloc(ADD_ROWS * sizeof(idx_t));
    lore_status status = LORE_OK;
    if (vectors == NULL || ids == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory building '%s'", path);
    }
    int64_t count = ADD_ROWS;
    while (status == LORE_OK && count == ADD_ROWS) {
        const lore_segment *segment = NULL;
        int64_t row = 0;
        for (count = 0; count < ADD_ROWS && next_live(&rows, &segment, &row); count++) {
            widen(segment, row, vectors + count * dim);
            ids[count] = segment->ids[row];
        }
        if (count > 0 && faiss_Index_add_with_ids(index, count, vectors, ids) != 0) {
            status = fail_faiss("build", path, err);
        }
    }
    lore_free(vectors);
    lore_free(ids);
    return status;
}

static lore_status check_sum(const char *path, int64_t *size_bytes, uint64_t *checksum,
                             lore_error *err)
{
    lore_map map = {0};
    lore_status status = lore_map_open(path, &map, err);
    if (status == LORE_OK) {
        *size_bytes = (int64_t)map.size_bytes;
        *checksum = lore_crc64(0, map.ptr, map.size_bytes);
        lore_map_close(&map);
    }
    return status;
}

/* FAISS writes to the temporary file that lore_file_begin made (same name, same inode); commit
 * syncs and renames it. */
static lore_status write_index(const FaissIndex *index, const char *path, int64_t *size_bytes,
                               uint64_t *checksum, lore_error *err)
{
    char temporary[LORE_INDEX_PATH_CAP + 8];
    int fd = -1;
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    lore_status status = lore_file_begin(path, &fd, err);
    if (status != LORE_OK) {
        return status;
    }
    if (faiss_write_index_fname(index, temporary) != 0) {
        status = fail_faiss("write", path, err);
    } else {
        status = check_sum(temporary, size_bytes, checksum, err);
    }
    if (status != LORE_OK) {
        lore_file_abort(fd, path);
        return status;
    }
    return lore_file_commit(fd, path, err);
}

lore_status lore_ann_write(const char *path, const lore_part *parts, int32_t part_count,
                           int32_t dim, int32_t threads, int64_t *size_bytes, uint64_t *checksum,
                           lore_error *err)
{
    live_rows rows = {parts, part_count, 0, 0};
    int64_t live = 0;
    for (int32_t i = 0; i < part_count; i++) {
        live += lore_part_live(&parts[i]);
    }
    int64_t lists = list_count(live);
    FaissIndex *index = NULL;
    char description[64];
    snprintf(description, sizeof description, "IVF%lld,SQ8", (long long)lists);
    use_threads(threads);
    lore_status status = LORE_OK;
    if (faiss_index_factory(&index, dim, description, METRIC_INNER_PRODUCT) != 0) {
        status = fail_faiss("create", path, err);
    }
    if (status == LORE_OK) {
        status = train(index, path, rows, live, lists * TRAIN_PER_LIST, dim, err);
    }
    if (status == LORE_OK) {
        status = add_all(index, path, rows, dim, err);
    }
    if (status == LORE_OK) {
        status = write_index(index, path, size_bytes, checksum, err);
    }
    if (index != NULL) {
        faiss_Index_free(index);
    }
    use_threads(1);
    return status;
}

/* ---- using ---- */

static lore_status check_loaded(FaissIndex *index, const char *path,
                                const lore_published *published, int32_t dim, int64_t probe,
                                lore_error *err)
{
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(index);
    if (ivf == NULL || faiss_Index_d(index) != dim ||
        faiss_Index_ntotal(index) != published->count) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: it is another index", path);
    }
    faiss_IndexIVF_set_nprobe(ivf, (size_t)(probe < 1 ? 1 : probe));
    return LORE_OK;
}

lore_status lore_ann_open(const char *path, const lore_published *published, int32_t dim,
                          int64_t probe, lore_ann **ann, lore_error *err)
{
    int64_t size = 0;
    uint64_t checksum = 0;
    lore_status status = check_sum(path, &size, &checksum, err);
    if (status != LORE_OK) {
        return status;
    }
    if (size != published->ann_size || checksum != published->ann_checksum) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: wrong checksum", path);
    }
    lore_ann *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", path);
    }
    atomic_init(&made->references, 1);
    if (faiss_read_index_fname(path, 0, &made->index) != 0) {
        status = fail_faiss("read", path, err);
    } else {
        status = check_loaded(made->index, path, published, dim, probe, err);
    }
    if (status != LORE_OK) {
        lore_ann_release(made);
        return status;
    }
    *ann = made;
    return LORE_OK;
}

lore_ann *lore_ann_acquire(lore_ann *ann)
{
    if (ann != NULL) {
        atomic_fetch_add_explicit(&ann->references, 1, memory_order_relaxed);
    }
    return ann;
}

void lore_ann_release(lore_ann *ann)
{
    if (ann == NULL || atomic_fetch_sub_explicit(&ann->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (ann->index != NULL) {
        faiss_Index_free(ann->index);
    }
    lore_free(ann);
}

lore_status lore_ann_search(const lore_ann *ann, const float *query, int32_t count, int64_t *chunks,
                            float *scores, int32_t *found, lore_error *err)
{
    LORE_ASSERT(count > 0);
    use_threads(1);
    if (faiss_Index_search(ann->index, 1, query, count, scores, chunks) != 0) {
        return fail_faiss("search", "the FAISS index", err);
    }
    /* Places that the probed lists could not fill hold -1. */
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++) {
        if (chunks[i] >= 0) {
            chunks[kept] = chunks[i];
            scores[kept] = scores[i];
            kept++;
        }
    }
    *found = kept;
    return LORE_OK;
}
