/* The published vectors as a file: read back as written; any damage is noticed. */
#include "tests/unit/index_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

static lore_part make_part(int64_t count, int64_t first_id)
{
    lore_error err;
    lore_part part = {NULL, NULL};
    float vector[FIX_DIM];
    CHECK_OK(lore_segment_new(count, FIX_DIM, &part.segment, &err), &err);
    for (int64_t i = 0; i < count; i++) {
        fix_vector((uint64_t)(first_id + i), vector);
        lore_segment_push(part.segment, first_id + i, (int32_t)i, vector);
    }
    return part;
}

static void check_round(int64_t first_count, int64_t second_count)
{
    lore_error err;
    char path[512];
    bool is_own = false;
    lore_part parts[2] = {make_part(first_count, 1), make_part(second_count, 100000)};
    if (first_count > 3) {
        CHECK_OK(lore_part_kill(&parts[0], 2, 2, &is_own, &err), &err);
    }
    lore_published published = {
        .collection = 3, .generation = 7, .sequence = 11, .chunk = 200000, .ann_size = -1};
    snprintf(path, sizeof path, "%s/vec-3-7.i8", check_temp_dir());
    CHECK_OK(lore_vec_file_write(path, parts, 2, FIX_DIM, &published, &err), &err);
    lore_segment *expected = NULL, *read = NULL;
    CHECK_OK(lore_parts_merge(parts, 2, FIX_DIM, &expected, &err), &err);
    CHECK_INT(published.count, expected->count);
    CHECK_OK(lore_vec_file_open(path, &published, FIX_DIM, &read, &err), &err);
    size_t count = (size_t)expected->count;
    CHECK_INT(read->count, expected->count);
    CHECK(memcmp(read->ids, expected->ids, count * sizeof(int64_t)) == 0);
    CHECK(memcmp(read->scales, expected->scales, count * sizeof(float)) == 0);
    CHECK(memcmp(read->lengths, expected->lengths, count * sizeof(int32_t)) == 0);
    CHECK(memcmp(read->rows, expected->rows, count * FIX_DIM) == 0);
    CHECK((uintptr_t)read->rows % 64 == 0 && (uintptr_t)read->scales % 64 == 0);
    lore_segment_release(read);
    lore_segment_release(expected);
    for (int i = 0; i < 2; i++) {
        lore_segment_release(parts[i].segment);
        lore_dead_release(parts[i].dead);
    }
}

TEST(reads_back)
{
    check_round(0, 0);
    check_round(1, 0);
    check_round(64, 1);
    check_round(1000, 777);
    check_round(20000, 3); /* several staging buffers */
}

/* Each flipped byte and each wrong length is found, and so is a good file of another moment. */
TEST(damage)
{
    lore_error err;
    char path[512];
    lore_segment *read = NULL;
    lore_part part = make_part(40, 1);
    lore_published published = {
        .collection = 3, .generation = 7, .sequence = 11, .chunk = 40, .ann_size = -1};
    snprintf(path, sizeof path, "%s/vec-damage.i8", check_temp_dir());
    CHECK_OK(lore_vec_file_write(path, &part, 1, FIX_DIM, &published, &err), &err);
    struct stat info;
    CHECK(stat(path, &info) == 0);
    for (long at = 0; at < (long)info.st_size; at += at < 80 ? 1 : 37) {
        fix_damage(path, at);
        CHECK_FAILS(lore_vec_file_open(path, &published, FIX_DIM, &read, &err), LORE_ERR_CORRUPT,
                    &err, path);
        fix_damage(path, at);
    }
    CHECK_OK(lore_vec_file_open(path, &published, FIX_DIM, &read, &err), &err);
    lore_segment_release(read);
    lore_published other = published;
    other.sequence++;
    CHECK_FAILS(lore_vec_file_open(path, &other, FIX_DIM, &read, &err), LORE_ERR_CORRUPT, &err,
                "another moment");
    other = published;
    other.checksum ^= 1;
    CHECK_FAILS(lore_vec_file_open(path, &other, FIX_DIM, &read, &err), LORE_ERR_CORRUPT, &err,
                "another moment");
    other = published;
    other.count = INT64_MAX;
    CHECK_FAILS(lore_vec_file_open(path, &other, FIX_DIM, &read, &err), LORE_ERR_CORRUPT, &err, "");
    CHECK_FAILS(lore_vec_file_open(path, &published, FIX_DIM / 2, &read, &err), LORE_ERR_CORRUPT,
                &err, "");
    CHECK(truncate(path, info.st_size - 1) == 0);
    CHECK_FAILS(lore_vec_file_open(path, &published, FIX_DIM, &read, &err), LORE_ERR_CORRUPT, &err,
                "has no end");
    CHECK(truncate(path, 0) == 0);
    CHECK_FAILS(lore_vec_file_open(path, &published, FIX_DIM, &read, &err), LORE_ERR_CORRUPT, &err,
                "wrong size");
    CHECK(unlink(path) == 0);
    CHECK_FAILS(lore_vec_file_open(path, &published, FIX_DIM, &read, &err), LORE_ERR_NOT_FOUND,
                &err, path);
    lore_segment_release(part.segment);
}

/* A write, sync or rename that fails leaves no file and no temporary. */
TEST(failing_writes)
{
    lore_error err;
    char path[512], temporary[600];
    lore_part part = make_part(9000, 1); /* above the staging buffer: several writes */
    snprintf(path, sizeof path, "%s/vec-failing.i8", check_temp_dir());
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    for (int op = LORE_FILE_OP_WRITE; op <= LORE_FILE_OP_RENAME; op++) {
        for (int64_t n = 1; n < 100; n++) {
            lore_published published = {.collection = 3, .generation = 7};
            lore_file_fail_at((lore_file_op)op, n);
            lore_status status = lore_vec_file_write(path, &part, 1, FIX_DIM, &published, &err);
            lore_file_fail_at((lore_file_op)op, 0);
            CHECK(!lore_file_exists(temporary));
            if (status == LORE_OK) {
                CHECK(n > 1);
                unlink(path);
                break;
            }
            CHECK(status == LORE_ERR_IO);
            /* Only the sync of the folder comes after the rename. */
            CHECK(op == LORE_FILE_OP_FSYNC || !lore_file_exists(path));
            unlink(path);
        }
    }
    lore_segment_release(part.segment);
}

CHECK_MAIN(reads_back, damage, failing_writes)
