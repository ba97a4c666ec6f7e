/* The published int8 vectors of a collection as a file, in order of chunk id: formats.md §2.
 *
 * Opening maps it after derived_file.c has checked every byte: what a scan will touch anyway, and
 * what tells a damaged file from a good one before it answers a question. */
#include "index/index_int.h"

#include <assert.h>
#include <string.h>

static const char magic[8] = {'L', 'O', 'R', 'E', 'V', 'E', 'C', '1'};

typedef struct vec_header {
    char magic[8];
    int32_t dim, zero;
    int64_t count, collection, generation, sequence, chunk, zero_2;
} vec_header;
static_assert(sizeof(vec_header) == 64, "formats.md §2");

/* ---- layout ---- */

typedef struct layout {
    size_t ids, scales, lengths, rows, size;
} layout;

static bool make_layout(int64_t count, int32_t dim, layout *out)
{
    size_t rows_bytes = 0;
    /* Every row is dim + 16 bytes; when that much fits, so do its parts. */
    if (count < 0 || !lore_size_mul((size_t)count, (size_t)dim + 16, &rows_bytes) ||
        rows_bytes > SIZE_MAX / 2) {
        return false;
    }
    size_t at = sizeof(vec_header);
    out->ids = lore_derived_section(&at, (size_t)count * sizeof(int64_t));
    out->scales = lore_derived_section(&at, (size_t)count * sizeof(float));
    out->lengths = lore_derived_section(&at, (size_t)count * sizeof(int32_t));
    out->rows = lore_derived_section(&at, (size_t)count * (size_t)dim);
    out->size = lore_derived_size(at);
    return true;
}

/* ---- writing ---- */

typedef enum section { SECTION_IDS, SECTION_SCALES, SECTION_LENGTHS, SECTION_ROWS } section;

static lore_status put_rows(lore_derived *file, const lore_segment *segment, section what,
                            int64_t begin, int64_t end, lore_error *err)
{
    size_t count = (size_t)(end - begin);
    switch (what) {
    case SECTION_IDS:
        return lore_derived_put(file, segment->ids + begin, count * sizeof(int64_t), err);
    case SECTION_SCALES:
        return lore_derived_put(file, segment->scales + begin, count * sizeof(float), err);
    case SECTION_LENGTHS:
        return lore_derived_put(file, segment->lengths + begin, count * sizeof(int32_t), err);
    case SECTION_ROWS:
        break;
    }
    return lore_derived_put(file, segment->rows + begin * segment->dim,
                            count * (size_t)segment->dim, err);
}

/* Runs of live rows, so that a part without dead ones goes out in one piece. */
static lore_status put_section(lore_derived *file, const lore_part *parts, int32_t part_count,
                               section what, lore_error *err)
{
    lore_status status = lore_derived_align(file, err);
    for (int32_t i = 0; i < part_count && status == LORE_OK; i++) {
        const lore_segment *segment = parts[i].segment;
        for (int64_t begin = 0; begin < segment->count && status == LORE_OK;) {
            int64_t end = parts[i].dead == NULL ? segment->count : begin;
            while (end < segment->count && !lore_dead_has(parts[i].dead, end)) {
                end++;
            }
            status = put_rows(file, segment, what, begin, end, err);
            begin = end + 1; /* row `end` is dead, or the end */
        }
    }
    return status;
}

lore_status lore_vec_file_write(const char *path, const lore_part *parts, int32_t part_count,
                                int32_t dim, lore_published *published, lore_error *err)
{
    int64_t count = 0, size = 0;
    for (int32_t i = 0; i < part_count; i++) {
        count += lore_part_live(&parts[i]);
    }
    layout where;
    if (!make_layout(count, dim, &where)) {
        return lore_fail(err, LORE_ERR_LIMIT, "too many vectors for '%s'", path);
    }
    vec_header header = {{0},
                         dim,
                         0,
                         count,
                         published->collection,
                         published->generation,
                         published->sequence,
                         published->chunk,
                         0};
    memcpy(header.magic, magic, sizeof magic);
    lore_derived *file = NULL;
    lore_status status = lore_derived_begin(path, &file, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_derived_put(file, &header, sizeof header, err);
    for (int what = SECTION_IDS; what <= SECTION_ROWS && status == LORE_OK; what++) {
        status = put_section(file, parts, part_count, (section)what, err);
    }
    status = lore_derived_end(file, status, &size, &published->checksum, err);
    if (status == LORE_OK) {
        LORE_ASSERT((size_t)size == where.size);
        published->count = count;
    }
    return status;
}

/* ---- reading ---- */

static lore_status check_header(const char *path, const lore_map *map,
                                const lore_published *published, int32_t dim, const layout *where,
                                lore_error *err)
{
    vec_header header;
    if (map->size_bytes != where->size) {
        return lore_derived_damaged(path, "wrong size", err);
    }
    memcpy(&header, map->ptr, sizeof header);
    if (memcmp(header.magic, magic, sizeof magic) != 0) {
        return lore_derived_damaged(path, "not a vector file", err);
    }
    if (header.dim != dim || header.count != published->count ||
        header.collection != published->collection || header.generation != published->generation ||
        header.sequence != published->sequence || header.chunk != published->chunk) {
        return lore_derived_damaged(path, "it belongs to another moment", err);
    }
    return LORE_OK;
}

lore_status lore_vec_file_open(const char *path, const lore_published *published, int32_t dim,
                               lore_segment **segment, lore_error *err)
{
    layout where;
    if (!make_layout(published->count, dim, &where)) {
        return lore_derived_damaged(path, "impossible size", err);
    }
    lore_map map = {0};
    lore_status status = lore_derived_open(path, published->checksum, &map, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_segment *made = NULL;
    status = check_header(path, &map, published, dim, &where, err);
    if (status == LORE_OK) {
        made = lore_alloc_zero(1, sizeof *made);
        if (made == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", path);
        }
    }
    if (status != LORE_OK) {
        lore_map_close(&map);
        return status;
    }
    atomic_init(&made->references, 1);
    made->dim = dim;
    made->count = published->count;
    made->map = map;
    made->ids = (const int64_t *)(const void *)(map.ptr + where.ids);
    made->scales = (const float *)(const void *)(map.ptr + where.scales);
    made->lengths = (const int32_t *)(const void *)(map.ptr + where.lengths);
    made->rows = (const int8_t *)(map.ptr + where.rows);
    *segment = made;
    return LORE_OK;
}
