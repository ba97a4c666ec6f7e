/* The published int8 vectors of a collection as a file: formats.md §2.
 *
 * Written front to back through a staging buffer that sums the checksum as it goes, so nothing is
 * read back and memory does not grow with the collection. Opening maps the file and reads every
 * byte of it once: what a scan will do anyway, and what tells a damaged file from a good one before
 * it answers a question. */
#include "index/index_int.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { HEADER_BYTES = 64, FOOTER_BYTES = 16, SECTION_ALIGN = 64, STAGING_BYTES = 256 * 1024 };

static const char magic_begin[8] = {'L', 'O', 'R', 'E', 'V', 'E', 'C', '1'};
static const char magic_end[8] = {'L', 'O', 'R', 'E', 'E', 'N', 'D', '1'};

typedef struct vec_header {
    char magic[8];
    int32_t dim, zero;
    int64_t count, collection, generation, sequence, chunk, zero_2;
} vec_header;
static_assert(sizeof(vec_header) == HEADER_BYTES, "formats.md §2");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the files are little-endian, and so are we");

/* ---- checksum ---- */

/* Eight bytes a step ("slicing"; Kounavis and Berry 2005). The tables are made where they are used:
 * 2,048 short loops are nothing beside a file, and there is no global state to guard. */
typedef struct crc_tables {
    uint64_t table[8][256];
} crc_tables;

static void make_tables(crc_tables *tables)
{
    for (uint64_t i = 0; i < 256; i++) {
        uint64_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xC96C5795D7870F42u : 0);
        }
        tables->table[0][i] = crc;
    }
    for (int slice = 1; slice < 8; slice++) {
        for (size_t i = 0; i < 256; i++) {
            uint64_t crc = tables->table[slice - 1][i];
            tables->table[slice][i] = crc >> 8 ^ tables->table[0][crc & 0xff];
        }
    }
}

static uint64_t crc_update(const crc_tables *tables, uint64_t crc, const void *data, size_t size)
{
    const unsigned char *at = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        word ^= crc;
        crc = 0;
        for (int i = 0; i < 8; i++) {
            crc ^= tables->table[7 - i][word >> (8 * i) & 0xff];
        }
    }
    for (; size > 0; size--, at++) {
        crc = crc >> 8 ^ tables->table[0][(crc ^ *at) & 0xff];
    }
    return ~crc;
}

uint64_t lore_crc64(uint64_t crc, const void *data, size_t size_bytes)
{
    crc_tables tables;
    make_tables(&tables);
    return crc_update(&tables, crc, data, size_bytes);
}

/* ---- layout ---- */

typedef struct layout {
    size_t ids, scales, lengths, rows, footer, size;
} layout;

static size_t aligned(size_t size)
{
    return (size + SECTION_ALIGN - 1) & ~(size_t)(SECTION_ALIGN - 1);
}

static bool make_layout(int64_t count, int32_t dim, layout *out)
{
    size_t rows_bytes = 0;
    /* Every row is dim + 16 bytes; when that much fits, so do its parts. */
    if (count < 0 || !lore_size_mul((size_t)count, (size_t)dim + 16, &rows_bytes) ||
        rows_bytes > SIZE_MAX / 2) {
        return false;
    }
    out->ids = HEADER_BYTES;
    out->scales = aligned(out->ids + (size_t)count * sizeof(int64_t));
    out->lengths = aligned(out->scales + (size_t)count * sizeof(float));
    out->rows = aligned(out->lengths + (size_t)count * sizeof(int32_t));
    out->footer = aligned(out->rows + (size_t)count * (size_t)dim);
    out->size = out->footer + FOOTER_BYTES;
    return true;
}

/* ---- writing ---- */

typedef struct vec_writer {
    int fd;
    const char *path;
    size_t at;     /* bytes handed in so far */
    size_t staged; /* of them, not yet written */
    uint64_t crc;
    crc_tables tables;
    char staging[STAGING_BYTES];
} vec_writer;

static lore_status flush(vec_writer *w, lore_error *err)
{
    size_t staged = w->staged;
    w->staged = 0;
    w->crc = crc_update(&w->tables, w->crc, w->staging, staged);
    return staged == 0 ? LORE_OK : lore_file_write(w->fd, w->path, w->staging, staged, err);
}

static lore_status put(vec_writer *w, const void *data, size_t size, lore_error *err)
{
    const char *from = data;
    w->at += size;
    while (size > 0) {
        size_t room = STAGING_BYTES - w->staged;
        size_t count = size < room ? size : room;
        memcpy(w->staging + w->staged, from, count);
        w->staged += count;
        from += count;
        size -= count;
        if (w->staged == STAGING_BYTES) {
            lore_status status = flush(w, err);
            if (status != LORE_OK) {
                return status;
            }
        }
    }
    return LORE_OK;
}

static lore_status pad_to(vec_writer *w, size_t offset, lore_error *err)
{
    static const char zeros[SECTION_ALIGN];
    LORE_ASSERT(offset >= w->at);
    LORE_ASSERT(offset - w->at <= SECTION_ALIGN);
    return put(w, zeros, offset - w->at, err);
}

typedef enum section { SECTION_IDS, SECTION_SCALES, SECTION_LENGTHS, SECTION_ROWS } section;

static lore_status put_rows(vec_writer *w, const lore_segment *segment, section what, int64_t begin,
                            int64_t end, lore_error *err)
{
    size_t count = (size_t)(end - begin);
    switch (what) {
    case SECTION_IDS:
        return put(w, segment->ids + begin, count * sizeof(int64_t), err);
    case SECTION_SCALES:
        return put(w, segment->scales + begin, count * sizeof(float), err);
    case SECTION_LENGTHS:
        return put(w, segment->lengths + begin, count * sizeof(int32_t), err);
    case SECTION_ROWS:
        break;
    }
    return put(w, segment->rows + begin * segment->dim, count * (size_t)segment->dim, err);
}

/* Runs of live rows, so that a part without dead ones goes out in one piece. */
static lore_status put_section(vec_writer *w, const lore_part *parts, int32_t part_count,
                               section what, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < part_count && status == LORE_OK; i++) {
        const lore_segment *segment = parts[i].segment;
        for (int64_t begin = 0; begin < segment->count && status == LORE_OK;) {
            int64_t end = parts[i].dead == NULL ? segment->count : begin;
            while (end < segment->count && !lore_dead_has(parts[i].dead, end)) {
                end++;
            }
            status = put_rows(w, segment, what, begin, end, err);
            begin = end + 1; /* row `end` is dead, or the end */
        }
    }
    return status;
}

static lore_status put_file(vec_writer *w, const lore_part *parts, int32_t part_count,
                            const vec_header *header, const layout *where, lore_error *err)
{
    const size_t starts[] = {where->ids, where->scales, where->lengths, where->rows};
    lore_status status = put(w, header, sizeof *header, err);
    for (int what = SECTION_IDS; what <= SECTION_ROWS && status == LORE_OK; what++) {
        status = pad_to(w, starts[what], err);
        if (status == LORE_OK) {
            status = put_section(w, parts, part_count, (section)what, err);
        }
    }
    if (status == LORE_OK) {
        status = pad_to(w, where->footer, err);
    }
    return status == LORE_OK ? flush(w, err) : status;
}

lore_status lore_vec_file_write(const char *path, const lore_part *parts, int32_t part_count,
                                int32_t dim, lore_published *published, lore_error *err)
{
    int64_t count = 0;
    for (int32_t i = 0; i < part_count; i++) {
        count += lore_part_live(&parts[i]);
    }
    layout where;
    if (!make_layout(count, dim, &where)) {
        return lore_fail(err, LORE_ERR_LIMIT, "too many vectors for '%s'", path);
    }
    vec_writer *w = lore_alloc(sizeof *w);
    if (w == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory writing '%s'", path);
    }
    w->path = path;
    w->at = w->staged = 0;
    w->crc = 0;
    make_tables(&w->tables);
    vec_header header = {{0},
                         dim,
                         0,
                         count,
                         published->collection,
                         published->generation,
                         published->sequence,
                         published->chunk,
                         0};
    memcpy(header.magic, magic_begin, sizeof magic_begin);
    lore_status status = lore_file_begin(path, &w->fd, err);
    if (status == LORE_OK) {
        status = put_file(w, parts, part_count, &header, &where, err);
        if (status == LORE_OK) {
            char footer[FOOTER_BYTES];
            memcpy(footer, &w->crc, sizeof w->crc);
            memcpy(footer + 8, magic_end, sizeof magic_end);
            status = lore_file_write(w->fd, path, footer, sizeof footer, err);
        }
        if (status == LORE_OK) {
            status = lore_file_commit(w->fd, path, err);
        } else {
            lore_file_abort(w->fd, path);
        }
    }
    if (status == LORE_OK) {
        published->count = count;
        published->checksum = w->crc;
    }
    lore_free(w);
    return status;
}

/* ---- reading ---- */

static lore_status damaged(const char *path, const char *what, lore_error *err)
{
    return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: %s", path, what);
}

static lore_status check_file(const char *path, const lore_map *map,
                              const lore_published *published, int32_t dim, const layout *where,
                              lore_error *err)
{
    vec_header header;
    uint64_t crc = 0;
    if (map->size_bytes != where->size) {
        return damaged(path, "wrong size", err);
    }
    memcpy(&header, map->ptr, sizeof header);
    memcpy(&crc, map->ptr + where->footer, sizeof crc);
    if (memcmp(header.magic, magic_begin, sizeof magic_begin) != 0 ||
        memcmp(map->ptr + where->footer + 8, magic_end, sizeof magic_end) != 0) {
        return damaged(path, "not a vector file", err);
    }
    if (header.dim != dim || header.count != published->count ||
        header.collection != published->collection || header.generation != published->generation ||
        header.sequence != published->sequence || header.chunk != published->chunk) {
        return damaged(path, "it belongs to another moment", err);
    }
    if (crc != published->checksum || lore_crc64(0, map->ptr, where->footer) != crc) {
        return damaged(path, "wrong checksum", err);
    }
    return LORE_OK;
}

lore_status lore_vec_file_open(const char *path, const lore_published *published, int32_t dim,
                               lore_segment **segment, lore_error *err)
{
    layout where;
    if (!make_layout(published->count, dim, &where)) {
        return damaged(path, "impossible size", err);
    }
    lore_map map = {0};
    lore_status status = lore_map_open(path, &map, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_segment *made = NULL;
    status = check_file(path, &map, published, dim, &where, err);
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
