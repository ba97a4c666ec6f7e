/* The inverted file: read back as written; damage and files of others are noticed; a failing write
 * leaves nothing. */
#include "tests/unit/index_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

static lore_lists *make_lists(lore_part *part, int64_t rows)
{
    lore_error err;
    lore_stop stop = {NULL, NULL};
    lore_lists *lists = NULL;
    float vector[FIX_DIM];
    *part = (lore_part){NULL, NULL};
    CHECK_OK(lore_segment_new(rows, FIX_DIM, &part->segment, &err), &err);
    for (int64_t i = 0; i < rows; i++) {
        fix_vector((uint64_t)i + 1, vector);
        lore_segment_push(part->segment, 2 * i + 1, -1, vector);
    }
    CHECK_OK(lore_lists_new(part, 1, FIX_DIM, &stop, &lists, &err), &err);
    return lists;
}

TEST(reads_back)
{
    lore_error err;
    lore_part part;
    lore_ann *ann = NULL;
    char path[512];
    lore_lists *lists = make_lists(&part, 5000);
    lore_published published = {.collection = 3};
    snprintf(path, sizeof path, "%s/ann-3.ivf", check_temp_dir());
    CHECK_OK(lore_ann_write(path, lists, 3, 10000, .25f, &published.ann_size,
                            &published.ann_checksum, &err),
             &err);
    CHECK_OK(lore_ann_open(path, &published, FIX_DIM, &ann, &err), &err);
    CHECK_INT(ann->chunk, 10000);
    CHECK_NEAR(ann->margin, .25, 0);
    CHECK_INT(ann->rows.count, 5000);
    CHECK_INT(ann->centres.count, lists->list_count);
    CHECK(memcmp(ann->centres.rows, lists->centres->rows, (size_t)lists->list_count * FIX_DIM) ==
          0);
    CHECK((uintptr_t)ann->rows.rows % 64 == 0);
    CHECK(ann->starts[0] == 0 && ann->starts[lists->list_count] == 5000);
    for (int32_t list = 0; list < lists->list_count; list++) {
        int64_t last = 0;
        CHECK_INT(ann->starts[list + 1] - ann->starts[list], lists->sizes[list]);
        for (int64_t i = ann->starts[list]; i < ann->starts[list + 1]; i++) {
            int64_t id = ann->rows.ids[i], row = (id - 1) / 2;
            CHECK(id > last);
            last = id;
            CHECK_INT(lists->list_of[row], list);
            CHECK_NEAR(ann->rows.scales[i], part.segment->scales[row], 0);
            CHECK(memcmp(ann->rows.rows + i * FIX_DIM, part.segment->rows + row * FIX_DIM,
                         FIX_DIM) == 0);
        }
    }
    lore_ann *second = lore_ann_acquire(ann);
    lore_ann_release(ann);
    CHECK(second->rows.ids[0] > 0); /* still mapped */
    lore_ann_release(second);
    lore_ann_release(lore_ann_acquire(NULL));
    lore_lists_free(lists);
    lore_segment_release(part.segment);
}

TEST(damage)
{
    lore_error err;
    lore_part part;
    lore_ann *ann = NULL;
    char path[512];
    struct stat info;
    lore_lists *lists = make_lists(&part, 200);
    lore_published published = {.collection = 3};
    snprintf(path, sizeof path, "%s/ann-damage.ivf", check_temp_dir());
    CHECK_OK(lore_ann_write(path, lists, 3, 400, .25f, &published.ann_size, &published.ann_checksum,
                            &err),
             &err);
    CHECK(stat(path, &info) == 0);
    for (long at = 0; at < (long)info.st_size; at += at < 80 ? 1 : 37) {
        fix_damage(path, at);
        CHECK_FAILS(lore_ann_open(path, &published, FIX_DIM, &ann, &err), LORE_ERR_CORRUPT, &err,
                    path);
        fix_damage(path, at);
    }
    lore_published other = published;
    other.ann_checksum++;
    CHECK_FAILS(lore_ann_open(path, &other, FIX_DIM, &ann, &err), LORE_ERR_CORRUPT, &err,
                "another moment");
    other = published;
    other.ann_size++;
    CHECK_FAILS(lore_ann_open(path, &other, FIX_DIM, &ann, &err), LORE_ERR_CORRUPT, &err,
                "wrong size");
    other = published;
    other.collection++;
    CHECK_FAILS(lore_ann_open(path, &other, FIX_DIM, &ann, &err), LORE_ERR_CORRUPT, &err,
                "another file");
    CHECK_FAILS(lore_ann_open(path, &published, FIX_DIM * 2, &ann, &err), LORE_ERR_CORRUPT, &err,
                "another file");
    CHECK(unlink(path) == 0);
    CHECK_FAILS(lore_ann_open(path, &published, FIX_DIM, &ann, &err), LORE_ERR_NOT_FOUND, &err,
                path);
    lore_lists_free(lists);
    lore_segment_release(part.segment);
}

/* Of any operation on files, and of any allocation. */
TEST(failing_writes)
{
    lore_error err;
    lore_part part;
    char path[512], temporary[600];
    int64_t size = 0;
    uint64_t checksum = 0;
    lore_lists *lists = make_lists(&part, 9000); /* several staging buffers */
    snprintf(path, sizeof path, "%s/ann-failing.ivf", check_temp_dir());
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    for (int op = LORE_FILE_OP_WRITE; op <= LORE_FILE_OP_RENAME; op++) {
        lore_status status = LORE_ERR_IO;
        for (int64_t n = 1; status != LORE_OK; n++) {
            lore_file_fail_at((lore_file_op)op, n);
            status = lore_ann_write(path, lists, 3, 400, .25f, &size, &checksum, &err);
            lore_file_fail_at((lore_file_op)op, 0);
            CHECK(status == LORE_ERR_IO || (n > 1 && status == LORE_OK));
            CHECK(!lore_file_exists(temporary));
        }
    }
    lore_status status = LORE_ERR_NOMEM;
    for (int64_t n = 1; status != LORE_OK; n++) {
        lore_mem_fail_at(n, false);
        status = lore_ann_write(path, lists, 3, 400, .25f, &size, &checksum, &err);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_ERR_NOMEM || (n > 3 && status == LORE_OK));
    }
    lore_lists_free(lists);
    lore_segment_release(part.segment);
}

CHECK_MAIN(reads_back, damage, failing_writes)
