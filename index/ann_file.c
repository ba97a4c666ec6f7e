/* The inverted file of a large collection: its vectors in order of list, as a file that is mapped
 * and never changes. formats.md §3.
 *
 * The rows are the same int8 rows as in the vector file, so both kinds of search give the same
 * scores; only their order differs, so that a list is one piece of memory. The file covers all rows
 * of the collection up to one chunk id: what came later is scanned, what died since is passed over.
 * It therefore outlives several vector files. */
#include "index/index_int.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const char magic[8] = {'L', 'O', 'R', 'E', 'I', 'V', 'F', '1'};

typedef struct ann_header {
    char magic[8];
    int32_t dim, lists;
    int64_t count, collection, chunk;
    float margin;
    int32_t zero;
    int64_t zero_2[2];
} ann_header;
static_assert(sizeof(ann_header) == 64, "formats.md §3");

/* ---- layout ---- */

typedef struct layout {
    size_t centre_scales, centres, starts, ids, scales, rows, size;
} layout;

static bool make_layout(int64_t count, int32_t lists, int32_t dim, layout *out)
{
    size_t rows_bytes = 0;
    if (count < 0 || lists < 1 || lists > LORE_LISTS_MAX || dim < 1 ||
        !lore_size_mul((size_t)count + LORE_LISTS_MAX, (size_t)dim + 16, &rows_bytes) ||
        rows_bytes > SIZE_MAX / 2) {
        return false;
    }
    size_t at = sizeof(ann_header);
    out->centre_scales = lore_derived_section(&at, (size_t)lists * sizeof(float));
    out->centres = lore_derived_section(&at, (size_t)lists * (size_t)dim);
    out->starts = lore_derived_section(&at, ((size_t)lists + 1) * sizeof(int64_t));
    out->ids = lore_derived_section(&at, (size_t)count * sizeof(int64_t));
    out->scales = lore_derived_section(&at, (size_t)count * sizeof(float));
    out->rows = lore_derived_section(&at, (size_t)count * (size_t)dim);
    out->size = lore_derived_size(at);
    return true;
}

/* ---- writing ---- */

/* Where each list begins, and the rows in order of list and then of chunk (counting sort). */
static void order_rows(const lore_lists *lists, int64_t *starts, int64_t *order)
{
    starts[0] = 0;
    for (int32_t list = 0; list < lists->list_count; list++) {
        starts[list + 1] = starts[list] + lists->sizes[list];
    }
    for (int64_t i = 0; i < lists->row_count; i++) {
        order[starts[lists->list_of[i]]++] = i;
    }
    for (int32_t list = lists->list_count; list > 0; list--) {
        starts[list] = starts[list - 1];
    }
    starts[0] = 0;
}

typedef enum section { SECTION_IDS, SECTION_SCALES, SECTION_ROWS } section;

static lore_status put_rows(lore_derived *file, const lore_lists *lists, const int64_t *order,
                            section what, lore_error *err)
{
    lore_status status = lore_derived_align(file, err);
    for (int64_t i = 0; i < lists->row_count && status == LORE_OK; i++) {
        const lore_segment *from = lists->rows[order[i]].segment;
        int64_t row = lists->rows[order[i]].row;
        switch (what) {
        case SECTION_IDS:
            status = lore_derived_put(file, &from->ids[row], sizeof from->ids[row], err);
            break;
        case SECTION_SCALES:
            status = lore_derived_put(file, &from->scales[row], sizeof from->scales[row], err);
            break;
        case SECTION_ROWS:
            status = lore_derived_put(file, from->rows + row * from->dim, (size_t)from->dim, err);
            break;
        }
    }
    return status;
}

static lore_status put_centres(lore_derived *file, const lore_segment *centres, lore_error *err)
{
    size_t count = (size_t)centres->count;
    lore_status status = lore_derived_align(file, err);
    if (status == LORE_OK) {
        status = lore_derived_put(file, centres->scales, count * sizeof(float), err);
    }
    if (status == LORE_OK) {
        status = lore_derived_align(file, err);
    }
    return status == LORE_OK
               ? lore_derived_put(file, centres->rows, count * (size_t)centres->dim, err)
               : status;
}

static lore_status put_file(lore_derived *file, const lore_lists *lists, const ann_header *header,
                            const int64_t *starts, const int64_t *order, lore_error *err)
{
    lore_status status = lore_derived_put(file, header, sizeof *header, err);
    if (status == LORE_OK) {
        status = put_centres(file, lists->centres, err);
    }
    if (status == LORE_OK) {
        status = lore_derived_align(file, err);
    }
    if (status == LORE_OK) {
        status =
            lore_derived_put(file, starts, ((size_t)lists->list_count + 1) * sizeof *starts, err);
    }
    for (int what = SECTION_IDS; what <= SECTION_ROWS && status == LORE_OK; what++) {
        status = put_rows(file, lists, order, (section)what, err);
    }
    return status;
}

lore_status lore_ann_write(const char *path, const lore_lists *lists, int64_t collection,
                           int64_t chunk, float margin, int64_t *size_bytes, uint64_t *checksum,
                           lore_error *err)
{
    ann_header header = {
        {0}, lists->dim, lists->list_count, lists->row_count, collection, chunk, margin, 0, {0}};
    memcpy(header.magic, magic, sizeof magic);
    layout where;
    if (!make_layout(lists->row_count, lists->list_count, lists->dim, &where)) {
        return lore_fail(err, LORE_ERR_LIMIT, "too many vectors for '%s'", path);
    }
    int64_t *starts = lore_alloc(((size_t)lists->list_count + 1) * sizeof *starts);
    int64_t *order = lore_alloc((size_t)lists->row_count * sizeof *order);
    lore_derived *file = NULL;
    lore_status status = LORE_OK;
    if (starts == NULL || order == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory writing '%s'", path);
    }
    if (status == LORE_OK) {
        order_rows(lists, starts, order);
        status = lore_derived_begin(path, &file, err);
    }
    if (status == LORE_OK) {
        status = put_file(file, lists, &header, starts, order, err);
        status = lore_derived_end(file, status, size_bytes, checksum, err);
        LORE_ASSERT(status != LORE_OK || (size_t)*size_bytes == where.size);
    }
    lore_free(starts);
    lore_free(order);
    return status;
}

/* ---- reading ---- */

/* Lists follow one another and are all rows. A checksum vouches for bytes, not for who wrote the
 * database that holds it, and these numbers are where the scan reads. */
static bool starts_are_sound(const int64_t *starts, int32_t lists, int64_t count)
{
    bool is_sound = starts[0] == 0 && starts[lists] == count;
    for (int32_t i = 0; i < lists && is_sound; i++) {
        is_sound = starts[i] <= starts[i + 1];
    }
    return is_sound;
}

/* Is it the file that the database means? */
static lore_status use_map(lore_ann *ann, const char *path, const lore_published *published,
                           int32_t dim, lore_error *err)
{
    ann_header header;
    layout where;
    const uint8_t *ptr = ann->map.ptr;
    if (ann->map.size_bytes < sizeof header) {
        return lore_derived_damaged(path, "wrong size", err);
    }
    memcpy(&header, ptr, sizeof header);
    if (memcmp(header.magic, magic, sizeof magic) != 0 || header.dim != dim ||
        header.collection != published->collection ||
        !make_layout(header.count, header.lists, dim, &where) ||
        ann->map.size_bytes != where.size) {
        return lore_derived_damaged(path, "it is another file", err);
    }
    ann->starts = (const int64_t *)(const void *)(ptr + where.starts);
    if (!starts_are_sound(ann->starts, header.lists, header.count) || !isfinite(header.margin)) {
        return lore_derived_damaged(path, "its lists do not fit its rows", err);
    }
    ann->chunk = header.chunk;
    ann->margin = header.margin;
    ann->centres.dim = ann->rows.dim = dim;
    ann->centres.count = header.lists;
    ann->centres.scales = (const float *)(const void *)(ptr + where.centre_scales);
    ann->centres.rows = (const int8_t *)(ptr + where.centres);
    ann->rows.count = header.count;
    ann->rows.ids = (const int64_t *)(const void *)(ptr + where.ids);
    ann->rows.scales = (const float *)(const void *)(ptr + where.scales);
    ann->rows.rows = (const int8_t *)(ptr + where.rows);
    return LORE_OK;
}

lore_status lore_ann_open(const char *path, const lore_published *published, int32_t dim,
                          lore_ann **ann, lore_error *err)
{
    lore_ann *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", path);
    }
    atomic_init(&made->references, 1);
    lore_status status = lore_derived_open(path, published->ann_checksum, &made->map, err);
    if (status == LORE_OK && (int64_t)made->map.size_bytes != published->ann_size) {
        status = lore_derived_damaged(path, "wrong size", err);
    }
    if (status == LORE_OK) {
        status = use_map(made, path, published, dim, err);
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
    /* Release: our reads come before the unmapping; acquire: whoever unmaps sees them done. */
    if (ann != NULL && atomic_fetch_sub_explicit(&ann->references, 1, memory_order_acq_rel) == 1) {
        lore_map_close(&ann->map);
        lore_free(ann);
    }
}
