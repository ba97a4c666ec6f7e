/* The fence around FAISS: sorting the vectors of a large collection into lists of near ones, the
 * inverted file (IVF) that index/ann_file.c stores and index/dense_search.c reads.
 *
 * FAISS trains the centres (spherical k-means over a sample) and assigns every row to one. It does
 * not search: Debian's build computes with SSE2 and needs about twenty times as long for a row as
 * our scan, and its scores would differ from those of the exact scan. So the lists hold our int8
 * rows, scanned by our kernel (docs/evaluation.md has the table).
 *
 * What FAISS must not be asked (measured with 1.7.3):
 * 1. An exception inside an OpenMP region ends the process, so only what is known not to throw
 * there is called: train, and assign of a flat index. The interrupt is looked at between blocks,
 * outside of such regions.
 * 2. It uses as many threads as OpenMP thinks best, and OpenBLAS as many again below it: one each,
 * because this runs in the background of a server. */
#include "index/index_int.h"

#include "index/faiss_c.h"

#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

enum {
    VECTORS_PER_LIST_MIN = 39, /* what FAISS's k-means asks for, with words on standard error */
    TRAIN_PER_LIST = 40,       /* more costs time in proportion and gains nothing here */
    BATCH_ROWS = 4096
};

/* Debian's BLAS may be OpenBLAS or another: only OpenBLAS has threads to switch off. */
extern void openblas_set_num_threads(int count) __attribute__((weak));

/* The words of the last exception are the calling thread's and live until its next one. */
static lore_status fail_faiss(const char *doing, const lore_stop *stop, lore_error *err)
{
    const char *words = faiss_get_last_error();
    words = words == NULL ? "no reason given" : words;
    if (lore_stop_wanted(stop)) {
        return lore_fail(err, LORE_ERR_CANCELLED, "cancelled");
    }
    lore_status status = strstr(words, "bad_alloc") != NULL ? LORE_ERR_NOMEM : LORE_ERR_IO;
    return lore_fail(err, status, "FAISS cannot %s: %s", doing, words);
}

/* ---- the rows ---- */

static int64_t live_of(const lore_part *parts, int32_t part_count)
{
    int64_t live = 0;
    for (int32_t i = 0; i < part_count; i++) {
        live += lore_part_live(&parts[i]);
    }
    return live;
}

static void collect_rows(lore_lists *lists, const lore_part *parts, int32_t part_count)
{
    int64_t at = 0;
    for (int32_t i = 0; i < part_count; i++) {
        for (int64_t row = 0; row < parts[i].segment->count; row++) {
            if (!lore_dead_has(parts[i].dead, row)) {
                lists->rows[at++] = (lore_row){parts[i].segment, row};
            }
        }
    }
    LORE_ASSERT(at == lists->row_count);
}

void lore_row_widen(const lore_row *row, float *out)
{
    int32_t dim = row->segment->dim;
    const int8_t *from = row->segment->rows + row->row * dim;
    for (int32_t i = 0; i < dim; i++) {
        out[i] = row->segment->scales[row->row] * (float)from[i];
    }
}

/* About 4 sqrt(n), as a power of two: the centres are then a few hundredths of the rows, and the
 * lists some hundred rows long. */
static int32_t list_count(int64_t rows)
{
    int32_t lists = 1;
    while (lists < LORE_LISTS_MAX && lists * 1.5 < 4.0 * sqrt((double)rows) &&
           2 * (int64_t)lists * VECTORS_PER_LIST_MIN <= rows) {
        lists *= 2;
    }
    return lists;
}

/* ---- FAISS ---- */

static lore_status train(FaissIndex *index, const lore_lists *lists, const lore_stop *stop,
                         lore_error *err)
{
    int64_t wanted = (int64_t)lists->list_count * TRAIN_PER_LIST;
    wanted = wanted < lists->row_count ? wanted : lists->row_count;
    size_t size = 0;
    float *sample = NULL;
    if (lore_size_mul((size_t)wanted * sizeof(float), (size_t)lists->dim, &size)) {
        sample = lore_alloc(size);
    }
    if (sample == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory training on %lld vectors",
                         (long long)wanted);
    }
    for (int64_t i = 0; i < wanted; i++) { /* evenly spread */
        lore_row_widen(&lists->rows[i * lists->row_count / wanted], sample + i * lists->dim);
    }
    lore_status status = LORE_OK;
    lore_faiss_interrupt(stop->is_wanted, stop->self);
    if (faiss_Index_train(index, wanted, sample) != 0) {
        status = fail_faiss("train", stop, err);
    }
    lore_faiss_interrupt(NULL, NULL);
    lore_free(sample);
    return status;
}

/* The list of every row, and the sum of the rows of every list. */
static lore_status assign(FaissIndex *quantizer, lore_lists *lists, float *sums,
                          const lore_stop *stop, lore_error *err)
{
    int32_t dim = lists->dim;
    lore_status status = LORE_OK;
    float *batch = lore_alloc((size_t)BATCH_ROWS * (size_t)dim * sizeof(float));
    idx_t *labels = lore_alloc(BATCH_ROWS * sizeof *labels);
    if (batch == NULL || labels == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory sorting vectors into lists");
    }
    for (int64_t at = 0; at < lists->row_count && status == LORE_OK; at += BATCH_ROWS) {
        int64_t left = lists->row_count - at;
        int64_t count = left < BATCH_ROWS ? left : BATCH_ROWS;
        for (int64_t i = 0; i < count; i++) {
            lore_row_widen(&lists->rows[at + i], batch + i * dim);
        }
        if (lore_stop_wanted(stop)) {
            status = lore_fail(err, LORE_ERR_CANCELLED, "cancelled");
        } else if (faiss_Index_assign(quantizer, count, batch, labels, 1) != 0) {
            status = fail_faiss("assign", stop, err);
        }
        for (int64_t i = 0; i < count && status == LORE_OK; i++) {
            /* A vector of zeros may be near none. */
            int32_t list = labels[i] < 0 ? 0 : (int32_t)labels[i];
            lists->list_of[at + i] = list;
            lists->sizes[list]++;
            for (int32_t d = 0; d < dim; d++) {
                sums[(int64_t)list * dim + d] += batch[i * dim + d];
            }
        }
    }
    lore_free(batch);
    lore_free(labels);
    return status;
}

/* The centre of a list is the mean of its rows, not the unit vector that k-means used: a query's
 * product with it is then the mean of its scores in the list, which ann_margin.c builds on. */
static void push_centres(lore_lists *lists, float *sums)
{
    for (int32_t list = 0; list < lists->list_count; list++) {
        float *sum = sums + (int64_t)list * lists->dim;
        for (int32_t d = 0; d < lists->dim && lists->sizes[list] > 0; d++) {
            sum[d] /= (float)lists->sizes[list];
        }
        lore_segment_push(lists->centres, list, -1, sum);
    }
}

static lore_status sort_rows(lore_lists *lists, const lore_stop *stop, lore_error *err)
{
    FaissIndex *index = NULL;
    char description[64];
    lore_status status = LORE_OK;
    omp_set_num_threads(1); /* of the calling thread only */
    if (openblas_set_num_threads != NULL) {
        openblas_set_num_threads(1);
    }
    size_t cells = (size_t)lists->list_count * (size_t)lists->dim;
    float *sums = lore_alloc_zero(cells, sizeof(float));
    if (sums == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the centres of %d lists",
                         lists->list_count);
    }
    snprintf(description, sizeof description, "IVF%d,Flat", lists->list_count);
    if (faiss_index_factory(&index, lists->dim, description, METRIC_INNER_PRODUCT) != 0) {
        status = fail_faiss("make an index", stop, err);
    }
    if (status == LORE_OK) {
        status = train(index, lists, stop, err);
    }
    if (status == LORE_OK) {
        status =
            assign(faiss_IndexIVF_quantizer(faiss_IndexIVF_cast(index)), lists, sums, stop, err);
    }
    if (index != NULL) {
        faiss_Index_free(index);
    }
    if (status == LORE_OK) {
        push_centres(lists, sums);
    }
    lore_free(sums);
    return status;
}

/* ---- for others of index/ ---- */

lore_status lore_lists_new(const lore_part *parts, int32_t part_count, int32_t dim,
                           const lore_stop *stop, lore_lists **lists, lore_error *err)
{
    int64_t rows = live_of(parts, part_count);
    LORE_ASSERT(rows > 0);
    lore_lists *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for lists of vectors");
    }
    made->dim = dim;
    made->row_count = rows;
    made->list_count = list_count(rows);
    made->rows = lore_alloc_zero((size_t)rows, sizeof *made->rows);
    made->list_of = lore_alloc_zero((size_t)rows, sizeof *made->list_of);
    made->sizes = lore_alloc_zero((size_t)made->list_count, sizeof *made->sizes);
    lore_status status = LORE_OK;
    if (made->rows == NULL || made->list_of == NULL || made->sizes == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for lists of %lld vectors",
                           (long long)rows);
    }
    if (status == LORE_OK) {
        status = lore_segment_new(made->list_count, dim, &made->centres, err);
    }
    if (status == LORE_OK) {
        collect_rows(made, parts, part_count);
        status = sort_rows(made, stop, err);
    }
    if (status != LORE_OK) {
        lore_lists_free(made);
        return status;
    }
    *lists = made;
    return LORE_OK;
}

void lore_lists_free(lore_lists *lists)
{
    if (lists == NULL) {
        return;
    }
    lore_segment_release(lists->centres);
    lore_free(lists->rows);
    lore_free(lists->list_of);
    lore_free(lists->sizes);
    lore_free(lists);
}
