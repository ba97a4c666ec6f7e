/* The FAISS fence: recall against the exact scan, files that survive and files that do not. */
#include "tests/unit/index_fixture.h"

#include <unistd.h>

enum { ROWS = 20000, QUERIES = 100, K = 10, CLUSTERS = 64 };

/* Easy data: unit vectors around cluster centres. */
static void clustered(uint64_t seed, float out[FIX_DIM])
{
    float centre[FIX_DIM], noise[FIX_DIM];
    double sum = 0;
    fix_vector(1000000 + seed % CLUSTERS, centre);
    fix_vector(seed, noise);
    for (int i = 0; i < FIX_DIM; i++) {
        out[i] = centre[i] + .4f * noise[i];
        sum += (double)(out[i] * out[i]);
    }
    for (int i = 0; i < FIX_DIM; i++) {
        out[i] = (float)((double)out[i] / sqrt(sum));
    }
}

static lore_part make_part(int64_t count)
{
    lore_error err;
    lore_part part = {NULL, NULL};
    float vector[FIX_DIM];
    CHECK_OK(lore_segment_new(count, FIX_DIM, &part.segment, &err), &err);
    for (int64_t i = 0; i < count; i++) {
        clustered((uint64_t)(3 * i + 1), vector);
        lore_segment_push(part.segment, 3 * i + 1, -1, vector);
    }
    return part;
}

static void write_index(const char *path, const lore_part *part, lore_published *published)
{
    lore_error err;
    *published = (lore_published){.count = lore_part_live(part)};
    CHECK_OK(lore_ann_write(path, part, 1, FIX_DIM, 1, &published->ann_size,
                            &published->ann_checksum, &err),
             &err);
}

/* 32 of 256 lists find what the exact scan finds, nearly always; the dead are not in the index. */
TEST(recall)
{
    lore_error err;
    lore_backend *backend = NULL;
    lore_backend_options options = {.kind = LORE_BACKEND_REF};
    CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
    lore_part part = make_part(ROWS);
    lore_scan scan;
    lore_ann *ann = NULL;
    lore_published published;
    char path[512];
    bool is_own = false;
    CHECK_OK(lore_part_kill(&part, 1, 300, &is_own, &err), &err);
    snprintf(path, sizeof path, "%s/ann-recall.faiss", check_temp_dir());
    write_index(path, &part, &published);
    CHECK_OK(lore_ann_open(path, &published, FIX_DIM, 32, &ann, &err), &err);
    CHECK_OK(lore_scan_open(&scan, backend, false, FIX_DIM, &err), &err);
    int hits = 0;
    for (uint64_t q = 0; q < QUERIES; q++) {
        float query[FIX_DIM], scores[2 * K];
        int64_t chunks[2 * K];
        lore_candidate items[K];
        lore_top top = {items, 0, K};
        int32_t found = 0;
        clustered(5000001 + 17 * q, query);
        lore_scan_set_query(&scan, query);
        CHECK_OK(lore_scan_part(&scan, &part, NULL, 0, &top, &err), &err);
        CHECK_OK(lore_ann_search(ann, query, 2 * K, chunks, scores, &found, &err), &err);
        CHECK_INT(found, 2 * K);
        for (int i = 0; i < found; i++) {
            CHECK(chunks[i] > 300 && chunks[i] % 3 == 1);
            for (int j = 0; j < K; j++) {
                hits += items[j].chunk == chunks[i];
            }
        }
    }
    CHECK(hits >= .99 * QUERIES * K);
    lore_scan_close(&scan);
    lore_ann_release(ann);
    lore_dead_release(part.dead);
    lore_segment_release(part.segment);
    lore_backend_close(backend);
}

/* A damaged, missing or foreign file is refused before or by FAISS, never a crash. */
TEST(damaged_files)
{
    lore_error err;
    lore_part part = make_part(2000);
    lore_published published;
    lore_ann *ann = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/ann-damage.faiss", check_temp_dir());
    write_index(path, &part, &published);
    fix_damage(path, 100);
    CHECK_FAILS(lore_ann_open(path, &published, FIX_DIM, 8, &ann, &err), LORE_ERR_CORRUPT, &err,
                "wrong checksum");
    fix_damage(path, 100);
    lore_published other = published;
    other.count--;
    CHECK_FAILS(lore_ann_open(path, &other, FIX_DIM, 8, &ann, &err), LORE_ERR_CORRUPT, &err,
                "another index");
    CHECK_FAILS(lore_ann_open(path, &published, FIX_DIM * 2, 8, &ann, &err), LORE_ERR_CORRUPT, &err,
                "another index");
    /* Junk whose checksum is recorded all the same reaches FAISS, which refuses it with words. */
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fputs("this is no index", file) >= 0 && fclose(file) == 0);
    other = published;
    other.ann_size = 16;
    other.ann_checksum = lore_crc64(0, "this is no index", 16);
    CHECK_FAILS(lore_ann_open(path, &other, FIX_DIM, 8, &ann, &err), LORE_ERR_IO, &err, path);
    CHECK(unlink(path) == 0);
    CHECK_FAILS(lore_ann_open(path, &published, FIX_DIM, 8, &ann, &err), LORE_ERR_NOT_FOUND, &err,
                path);
    lore_segment_release(part.segment);
}

/* Fewer vectors than wanted, or than lists: still an index. */
TEST(small_ones)
{
    lore_error err;
    lore_part part = make_part(100);
    lore_published published;
    lore_ann *ann = NULL;
    float query[FIX_DIM], scores[128];
    int64_t chunks[128];
    int32_t found = 0;
    char path[512];
    snprintf(path, sizeof path, "%s/ann-small.faiss", check_temp_dir());
    write_index(path, &part, &published);
    CHECK_OK(lore_ann_open(path, &published, FIX_DIM, 1000, &ann, &err), &err);
    clustered(5, query);
    CHECK_OK(lore_ann_search(ann, query, 128, chunks, scores, &found, &err), &err);
    CHECK_INT(found, 100);
    lore_ann_release(ann);
    lore_segment_release(part.segment);
}

/* A failing sync or rename leaves nothing behind; a folder that is not there is an error with
 * words. */
TEST(failing_writes)
{
    lore_error err;
    lore_part part = make_part(200);
    int64_t size = 0;
    uint64_t checksum = 0;
    char path[512];
    snprintf(path, sizeof path, "%s/nowhere/x.faiss", check_temp_dir());
    CHECK_FAILS(lore_ann_write(path, &part, 1, FIX_DIM, 1, &size, &checksum, &err), LORE_ERR_IO,
                &err, path);
    snprintf(path, sizeof path, "%s/ann-failing.faiss", check_temp_dir());
    for (int op = LORE_FILE_OP_FSYNC; op <= LORE_FILE_OP_RENAME; op++) {
        lore_file_fail_at((lore_file_op)op, 1);
        CHECK_FAILS(lore_ann_write(path, &part, 1, FIX_DIM, 1, &size, &checksum, &err), LORE_ERR_IO,
                    &err, path);
        lore_file_fail_at((lore_file_op)op, 0);
        CHECK(!lore_file_exists(path));
    }
    lore_segment_release(part.segment);
}

CHECK_MAIN(recall, damaged_files, small_ones, failing_writes)
