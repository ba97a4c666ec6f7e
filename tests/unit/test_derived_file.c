/* Derived files: what was put in comes out, at the places that layouts compute; damage is noticed,
 * and a failure leaves nothing behind. */
#include "tests/unit/index_fixture.h"

#include <unistd.h>

/* Sections of all sizes around the alignment and the staging buffer. */
TEST(sections_read_back)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 1000, 262144, 300001};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    lore_error err;
    lore_derived *file = NULL;
    lore_map map = {0};
    int64_t size = 0;
    uint64_t checksum = 0;
    size_t at = 0;
    char path[512];
    char *data = lore_alloc(300001);
    CHECK(data != NULL);
    for (size_t i = 0; i < 300001; i++) {
        data[i] = (char)(i * 31 % 251);
    }
    snprintf(path, sizeof path, "%s/sections", check_temp_dir());
    CHECK_OK(lore_derived_begin(path, &file, &err), &err);
    lore_status status = LORE_OK;
    for (int i = 0; i < COUNT && status == LORE_OK; i++) {
        status = lore_derived_align(file, &err);
        status = status == LORE_OK ? lore_derived_put(file, data, sizes[i], &err) : status;
    }
    CHECK_OK(lore_derived_end(file, status, &size, &checksum, &err), &err);
    CHECK_OK(lore_derived_open(path, checksum, &map, &err), &err);
    for (int i = 0; i < COUNT; i++) {
        size_t begin = lore_derived_section(&at, sizes[i]);
        CHECK_INT(begin % 64, 0);
        CHECK(memcmp(map.ptr + begin, data, sizes[i]) == 0);
    }
    CHECK_INT(lore_derived_size(at), size);
    CHECK_INT(map.size_bytes, size);
    CHECK(lore_crc64(0, map.ptr, map.size_bytes - 16) == checksum);
    lore_map_close(&map);
    CHECK_FAILS(lore_derived_open(path, checksum + 1, &map, &err), LORE_ERR_CORRUPT, &err,
                "another moment");
    fix_damage(path, 300000);
    CHECK_FAILS(lore_derived_open(path, checksum, &map, &err), LORE_ERR_CORRUPT, &err,
                "wrong checksum");
    CHECK(truncate(path, 15) == 0);
    CHECK_FAILS(lore_derived_open(path, checksum, &map, &err), LORE_ERR_CORRUPT, &err,
                "wrong size");
    lore_free(data);
}

/* A caller whose own step failed gets its status back, and no file. */
TEST(a_failure_removes_the_file)
{
    lore_error err;
    lore_derived *file = NULL;
    int64_t size = 0;
    uint64_t checksum = 0;
    char path[512], temporary[600];
    snprintf(path, sizeof path, "%s/failed", check_temp_dir());
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    CHECK_OK(lore_derived_begin(path, &file, &err), &err);
    CHECK_OK(lore_derived_put(file, "x", 1, &err), &err);
    CHECK(lore_file_exists(temporary));
    CHECK(lore_derived_end(file, LORE_ERR_LIMIT, &size, &checksum, &err) == LORE_ERR_LIMIT);
    CHECK(!lore_file_exists(temporary) && !lore_file_exists(path));
    snprintf(path, sizeof path, "%s/nowhere/x", check_temp_dir());
    CHECK_FAILS(lore_derived_begin(path, &file, &err), LORE_ERR_IO, &err, path);
}

CHECK_MAIN(sections_read_back, a_failure_removes_the_file)
