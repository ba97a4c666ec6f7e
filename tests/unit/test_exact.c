/* Segments and the exact scan, against a plain computation in double. */
#include "tests/unit/index_fixture.h"

enum { ROWS = 20000 };

static lore_segment *make_segment(int64_t count, int64_t first_id, int64_t step)
{
    lore_error err;
    lore_segment *segment = NULL;
    float vector[FIX_DIM];
    CHECK_OK(lore_segment_new(count, FIX_DIM, &segment, &err), &err);
    for (int64_t i = 0; i < count; i++) {
        fix_vector((uint64_t)(first_id + i * step), vector);
        lore_segment_push(segment, first_id + i * step, (int32_t)i, vector);
    }
    return segment;
}

static double dot(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < FIX_DIM; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* Rows are found by id, lower bounds lie where they should. */
TEST(finding_rows)
{
    lore_segment *segment = make_segment(100, 10, 3);
    CHECK_INT(lore_segment_find(segment, 10), 0);
    CHECK_INT(lore_segment_find(segment, 13), 1);
    CHECK_INT(lore_segment_find(segment, 307), 99);
    CHECK_INT(lore_segment_find(segment, 11), -1);
    CHECK_INT(lore_segment_find(segment, 9), -1);
    CHECK_INT(lore_segment_find(segment, 310), -1);
    CHECK_INT(lore_segment_lower_bound(segment, 11), 1);
    CHECK_INT(lore_segment_lower_bound(segment, 1000), 100);
    lore_segment_release(segment);
}

/* The heap keeps the best, best first, ties by id, whatever the order of arrival. */
TEST(top_candidates)
{
    lore_candidate items[5];
    uint64_t state = 42;
    for (int round = 0; round < 200; round++) {
        lore_top top = {items, 0, 5};
        float scores[40];
        int64_t count = (int64_t)(lore_random_next(&state) % 40);
        for (int64_t i = 0; i < count; i++) {
            scores[i] = (float)(lore_random_next(&state) % 8);
            lore_top_offer(&top, i, scores[i]);
        }
        lore_top_sort(&top);
        CHECK_INT(top.count, count < 5 ? count : 5);
        for (int32_t i = 0; i < top.count; i++) {
            int32_t better = 0; /* how many beat it: exactly i */
            for (int64_t j = 0; j < count; j++) {
                better += scores[j] > items[i].score ||
                          (scores[j] == items[i].score && j < items[i].chunk);
            }
            CHECK_INT(better, i);
        }
    }
}

/* The scan finds what a plain loop over the floats finds, up to the rounding of int8. */
TEST(scanning)
{
    lore_error err;
    lore_backend *backend = NULL;
    lore_backend_options options = {.kind = LORE_BACKEND_REF};
    CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
    lore_segment *segment = make_segment(ROWS, 1, 1);
    lore_scan scan;
    CHECK_OK(lore_scan_open(&scan, backend, FIX_DIM, &err), &err);
    float query[FIX_DIM], vector[FIX_DIM];
    lore_candidate items[10];
    lore_part part = {segment, NULL};
    bool is_own = false;
    fix_vector(777777, query);
    lore_scan_set_query(&scan, query);
    lore_top top = {items, 0, 10};
    CHECK_OK(lore_scan_part(&scan, &part, 0, NULL, &top, &err), &err);
    lore_top_sort(&top);
    double worst = 0;
    for (int i = 0; i < 10; i++) {
        fix_vector((uint64_t)items[i].chunk, vector);
        CHECK_NEAR(items[i].score, dot(query, vector), .01);
        worst = (double)items[i].score;
    }
    int better = 0;
    for (int64_t id = 1; id <= ROWS; id++) {
        fix_vector((uint64_t)id, vector);
        better += dot(query, vector) > worst + .01;
    }
    CHECK(better < 10);

    /* The best one dies; then only some are allowed, few (runs) and many (stream). */
    int64_t best = items[0].chunk, second = items[1].chunk;
    CHECK_OK(lore_part_kill(&part, best, 1, &is_own, &err), &err);
    top.count = 0;
    CHECK_OK(lore_scan_part(&scan, &part, 0, NULL, &top, &err), &err);
    lore_top_sort(&top);
    CHECK_INT(items[0].chunk, second);
    for (int64_t every = 2; every <= 32; every *= 4) {
        static lore_row_range ranges[ROWS];
        lore_row_set *allowed = NULL;
        int64_t count = 0;
        for (int64_t id = every; id <= ROWS; id += every) {
            ranges[count++] = (lore_row_range){id, 1};
        }
        CHECK_OK(lore_row_set_new(NULL, ranges, count, &allowed, &err), &err);
        lore_candidate all[10];
        top = (lore_top){all, 0, 10};
        CHECK_OK(lore_scan_part(&scan, &part, 0, allowed, &top, &err), &err);
        lore_top_sort(&top);
        CHECK_INT(top.count, 10);
        for (int64_t i = 0; i < count; i++) { /* nothing allowed and alive beats the last one */
            int64_t row = lore_segment_find(segment, ranges[i].first);
            CHECK_OK(lore_scan_rows(&scan, segment, row, row + 1, &err), &err);
            bool is_in = false;
            for (int j = 0; j < 10; j++) {
                is_in = is_in || all[j].chunk == ranges[i].first;
            }
            CHECK(is_in || ranges[i].first == best || scan.scores[0] <= all[9].score);
        }
        lore_row_set_release(allowed);
    }
    top = (lore_top){items, 0, 10};
    lore_row_set *nothing = NULL;
    CHECK_OK(lore_row_set_new(NULL, NULL, 0, &nothing, &err), &err);
    CHECK_OK(lore_scan_part(&scan, &part, 0, nothing, &top, &err), &err);
    CHECK_INT(top.count, 0);
    lore_row_set_release(nothing);
    lore_dead_release(part.dead);
    lore_scan_close(&scan);
    lore_segment_release(segment);
    lore_backend_close(backend);
}

/* A merge keeps live rows in order, byte for byte. */
TEST(merging)
{
    lore_error err;
    lore_part parts[2] = {{make_segment(50, 1, 1), NULL}, {make_segment(50, 100, 1), NULL}};
    lore_segment *merged = NULL;
    bool is_own = false;
    CHECK_OK(lore_part_kill(&parts[0], 10, 20, &is_own, &err), &err);
    CHECK_OK(lore_part_kill(&parts[0], 29, 3, &is_own, &err), &err);
    CHECK_INT(lore_part_live(&parts[0]), 28);
    CHECK_OK(lore_parts_merge(parts, 2, FIX_DIM, &merged, &err), &err);
    CHECK_INT(merged->count, 78);
    CHECK_INT(lore_segment_find(merged, 10), -1);
    CHECK_INT(lore_segment_find(merged, 9), 8);
    CHECK_INT(lore_segment_find(merged, 32), 9);
    CHECK_INT(merged->lengths[9], 31);
    CHECK(memcmp(merged->rows + 9 * FIX_DIM, parts[0].segment->rows + 31 * FIX_DIM, FIX_DIM) == 0);
    lore_segment_release(merged);
    for (int i = 0; i < 2; i++) {
        lore_segment_release(parts[i].segment);
        lore_dead_release(parts[i].dead);
    }
}

CHECK_MAIN(finding_rows, top_candidates, scanning, merging)
