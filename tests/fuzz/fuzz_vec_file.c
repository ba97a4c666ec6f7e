/* Fuzz target of the published vector file: header and layout.
 *
 * A file with a wrong checksum is refused before anything in it is believed, so the target makes
 * the checksum right and takes what the database should say from the header itself (of which the
 * first input byte spoils one field): what is left is the parser's own work.
 *
 * Property: the file is a segment or refused as corrupt with a message that names it. A segment has
 * the dimension and count that were asked for, and every one of its values can be read. */
#include "index/index_int.h"
#include "tests/fuzz/fuzz.h"

enum { HEADER_BYTES = 64, FOOTER_BYTES = 16, SPOILED_FIELDS = 8 };

/* formats.md §2 */
typedef struct header {
    char magic[8];
    int32_t dim, zero;
    int64_t count, collection, generation, sequence, chunk, zero_2;
} header;

static uint64_t sum; /* so that the reads are not optimised away */

static void read_all(const lore_segment *segment)
{
    for (int64_t i = 0; i < segment->count; i++) {
        uint32_t scale = 0;
        memcpy(&scale, &segment->scales[i], sizeof scale);
        sum += (uint64_t)segment->ids[i] + scale + (uint64_t)segment->lengths[i];
    }
    for (int64_t i = 0; i < segment->count * segment->dim; i++) {
        sum += (uint64_t)segment->rows[i];
    }
}

static lore_published published_of(const header *head, uint64_t checksum, uint8_t spoiled)
{
    lore_published published = {.collection = head->collection,
                                .generation = head->generation,
                                .sequence = head->sequence,
                                .chunk = head->chunk,
                                .count = head->count,
                                .checksum = checksum,
                                .ann_size = -1};
    published.collection += spoiled == 1;
    published.generation += spoiled == 2;
    published.sequence += spoiled == 3;
    published.chunk += spoiled == 4;
    published.count += spoiled == 5;
    published.checksum += spoiled == 6;
    return published;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[FUZZ_PATH_CAP];
    static int fd = -1;
    header head = {.dim = 1};
    if (fd < 0) {
        fd = fuzz_file_new(path);
    }
    if (size < 1 + FOOTER_BYTES) {
        return 0;
    }
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    uint8_t spoiled = data[0] % SPOILED_FIELDS;
    size_t body = size - 1 - FOOTER_BYTES;
    uint64_t checksum = lore_crc64(0, data + 1, body);
    memcpy(&head, data + 1, body < HEADER_BYTES ? body : HEADER_BYTES);
    fuzz_file_fill(fd, data + 1, size - 1);
    LORE_ASSERT(pwrite(fd, &checksum, sizeof checksum, (off_t)body) == sizeof checksum);
    lore_published published = published_of(&head, checksum, spoiled);
    int32_t dim = head.dim > 0 && head.dim < INT32_MAX ? head.dim + (spoiled == 7) : 1;
    lore_segment *segment = NULL;
    lore_error err = {.status = LORE_OK};
    lore_status status = lore_vec_file_open(path, &published, dim, &segment, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(status == LORE_ERR_CORRUPT);
        LORE_ASSERT(strstr(err.message, path) != NULL);
    } else {
        LORE_ASSERT(spoiled == 0);
        LORE_ASSERT(segment->dim == dim && segment->count == head.count);
        read_all(segment);
        lore_segment_release(segment);
    }
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
