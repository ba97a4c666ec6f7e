/* Fuzz target of the inverted file of a large collection: header and lists.
 *
 * As with the vector file (fuzz_vec_file.c) the checksum is made right and the database is said to
 * mean this file, so what is left is the parser's own work.
 *
 * Property: the file is an index or refused as corrupt with a message that names it. Of an index
 * every list lies inside the rows, all lists together are all rows, and every value can be read. */
#include "index/index_int.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

enum { FOOTER_BYTES = 16 };

/* formats.md §3 */
typedef struct header {
    char magic[8];
    int32_t dim, lists;
    int64_t count, collection;
} header;

static uint64_t sum; /* so that the reads are not optimised away */

static void read_rows(const lore_segment *segment, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        uint32_t scale = 0;
        memcpy(&scale, &segment->scales[i], sizeof scale);
        sum += scale;
    }
    for (int64_t i = begin * segment->dim; i < end * segment->dim; i++) {
        sum += (uint64_t)segment->rows[i];
    }
}

static void read_all(const lore_ann *ann)
{
    int64_t seen = 0;
    LORE_ASSERT(isfinite(ann->margin));
    read_rows(&ann->centres, 0, ann->centres.count);
    for (int64_t list = 0; list < ann->centres.count; list++) {
        LORE_ASSERT(ann->starts[list] == seen);
        LORE_ASSERT(ann->starts[list + 1] >= seen);
        LORE_ASSERT(ann->starts[list + 1] <= ann->rows.count);
        read_rows(&ann->rows, seen, ann->starts[list + 1]);
        for (; seen < ann->starts[list + 1]; seen++) {
            sum += (uint64_t)ann->rows.ids[seen];
        }
    }
    LORE_ASSERT(seen == ann->rows.count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[FUZZ_PATH_CAP];
    static int fd = -1;
    header head = {.dim = 1};
    if (fd < 0) {
        fd = fuzz_file_new(path);
    }
    if (size < FOOTER_BYTES) {
        return 0;
    }
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    size_t body = size - FOOTER_BYTES;
    uint64_t checksum = lore_crc64(0, data, body);
    memcpy(&head, data, body < sizeof head ? body : sizeof head);
    fuzz_file_fill(fd, data, size);
    LORE_ASSERT(pwrite(fd, &checksum, sizeof checksum, (off_t)body) == sizeof checksum);
    lore_published published = {
        .collection = head.collection, .ann_size = (int64_t)size, .ann_checksum = checksum};
    lore_ann *ann = NULL;
    lore_error err = {.status = LORE_OK};
    lore_status status = lore_ann_open(path, &published, head.dim > 0 ? head.dim : 1, &ann, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(status == LORE_ERR_CORRUPT);
        LORE_ASSERT(strstr(err.message, path) != NULL);
    } else {
        read_all(ann);
        lore_ann_release(ann);
    }
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
