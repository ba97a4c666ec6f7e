/* Files that are made from the database and can be made again: checksummed as they are written,
 * checked whole before anybody uses a byte of them. formats.md §2.
 *
 * Written front to back through a staging buffer that sums the checksum as it goes, so nothing is
 * read back and memory does not grow with the file. Sections begin at multiples of 64 bytes. The
 * last 16 bytes are the CRC-64 of all before them and a magic word; the database holds the same
 * CRC-64, and so vouches for the file. */
#include "index/index_int.h"

#include <assert.h>
#include <string.h>

enum { STAGING_BYTES = 256 * 1024, SECTION_ALIGN = 64, FOOTER_BYTES = 16 };

static const char magic_end[8] = {'L', 'O', 'R', 'E', 'E', 'N', 'D', '1'};
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the files are little-endian, and so are we");

/* ---- writing ---- */

struct lore_derived {
    int fd;
    char path[LORE_INDEX_PATH_CAP];
    size_t at;     /* bytes handed in so far */
    size_t staged; /* of them, not yet written */
    uint64_t crc;
    lore_crc64_tables tables;
    char staging[STAGING_BYTES];
};

lore_status lore_derived_begin(const char *path, lore_derived **file, lore_error *err)
{
    size_t length = strlen(path);
    LORE_ASSERT(length < LORE_INDEX_PATH_CAP);
    lore_derived *made = lore_alloc(sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory writing '%s'", path);
    }
    memcpy(made->path, path, length + 1);
    made->at = made->staged = 0;
    made->crc = 0;
    lore_crc64_begin(&made->tables);
    lore_status status = lore_file_begin(path, &made->fd, err);
    if (status != LORE_OK) {
        lore_free(made);
        return status;
    }
    *file = made;
    return LORE_OK;
}

static lore_status flush(lore_derived *file, lore_error *err)
{
    size_t staged = file->staged;
    file->staged = 0;
    file->crc = lore_crc64_add(&file->tables, file->crc, file->staging, staged);
    return staged == 0 ? LORE_OK
                       : lore_file_write(file->fd, file->path, file->staging, staged, err);
}

lore_status lore_derived_put(lore_derived *file, const void *data, size_t size, lore_error *err)
{
    const char *from = data;
    file->at += size;
    while (size > 0) {
        size_t room = STAGING_BYTES - file->staged;
        size_t count = size < room ? size : room;
        memcpy(file->staging + file->staged, from, count);
        file->staged += count;
        from += count;
        size -= count;
        if (file->staged == STAGING_BYTES) {
            lore_status status = flush(file, err);
            if (status != LORE_OK) {
                return status;
            }
        }
    }
    return LORE_OK;
}

lore_status lore_derived_align(lore_derived *file, lore_error *err)
{
    static const char zeros[SECTION_ALIGN];
    return lore_derived_put(file, zeros, (SECTION_ALIGN - file->at % SECTION_ALIGN) % SECTION_ALIGN,
                            err);
}

static lore_status put_footer(lore_derived *file, int64_t *size_bytes, uint64_t *checksum,
                              lore_error *err)
{
    char footer[FOOTER_BYTES];
    lore_status status = lore_derived_align(file, err);
    if (status == LORE_OK) {
        status = flush(file, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    memcpy(footer, &file->crc, sizeof file->crc);
    memcpy(footer + 8, magic_end, sizeof magic_end);
    *size_bytes = (int64_t)(file->at + FOOTER_BYTES);
    *checksum = file->crc;
    return lore_file_write(file->fd, file->path, footer, sizeof footer, err);
}

lore_status lore_derived_end(lore_derived *file, lore_status status, int64_t *size_bytes,
                             uint64_t *checksum, lore_error *err)
{
    int64_t size = 0;
    uint64_t sum = 0;
    if (status == LORE_OK) {
        status = put_footer(file, &size, &sum, err);
    }
    if (status != LORE_OK) {
        lore_file_abort(file->fd, file->path);
    } else {
        status = lore_file_commit(file->fd, file->path, err);
    }
    lore_free(file);
    if (status == LORE_OK) {
        *size_bytes = size;
        *checksum = sum;
    }
    return status;
}

/* ---- reading ---- */

size_t lore_derived_section(size_t *at, size_t size_bytes)
{
    size_t begin = (*at + SECTION_ALIGN - 1) & ~(size_t)(SECTION_ALIGN - 1);
    *at = begin + size_bytes;
    return begin;
}

size_t lore_derived_size(size_t at)
{
    return lore_derived_section(&at, 0) + FOOTER_BYTES;
}

lore_status lore_derived_damaged(const char *path, const char *what, lore_error *err)
{
    return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: %s", path, what);
}

static lore_status check(const char *path, const lore_map *map, uint64_t checksum, lore_error *err)
{
    uint64_t stored = 0;
    if (map->size_bytes < FOOTER_BYTES) {
        return lore_derived_damaged(path, "wrong size", err);
    }
    size_t footer = map->size_bytes - FOOTER_BYTES;
    memcpy(&stored, map->ptr + footer, sizeof stored);
    if (memcmp(map->ptr + footer + 8, magic_end, sizeof magic_end) != 0) {
        return lore_derived_damaged(path, "it has no end", err);
    }
    if (stored != checksum) {
        return lore_derived_damaged(path, "it belongs to another moment", err);
    }
    if (lore_crc64(0, map->ptr, footer) != checksum) {
        return lore_derived_damaged(path, "wrong checksum", err);
    }
    return LORE_OK;
}

lore_status lore_derived_open(const char *path, uint64_t checksum, lore_map *map, lore_error *err)
{
    lore_map made = {0};
    lore_status status = lore_map_open(path, &made, err);
    if (status != LORE_OK) {
        return status;
    }
    status = check(path, &made, checksum, err);
    if (status != LORE_OK) {
        lore_map_close(&made);
        return status;
    }
    *map = made;
    return LORE_OK;
}
