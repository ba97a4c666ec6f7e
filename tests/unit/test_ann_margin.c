/* The margin: as small as it can be for .99 of the neighbours of the sample, and not smaller. */
#include "tests/unit/index_fixture.h"

static bool at_once(void *self)
{
    (void)self;
    return true;
}

static lore_part make_part(int64_t count)
{
    lore_error err;
    lore_part part = {NULL, NULL};
    float vector[FIX_DIM];
    CHECK_OK(lore_segment_new(count, FIX_DIM, &part.segment, &err), &err);
    for (int64_t i = 0; i < count; i++) {
        fix_vector((uint64_t)i + 1, vector);
        lore_segment_push(part.segment, i + 1, -1, vector);
    }
    return part;
}

typedef struct around {
    lore_backend *backend;
    lore_part part;
    lore_lists *lists;
    lore_scan scan;
} around;

static void begin(around *a, int64_t rows)
{
    lore_error err;
    lore_stop stop = {NULL, NULL};
    lore_backend_options options = {.kind = LORE_BACKEND_REF};
    memset(a, 0, sizeof *a);
    CHECK_OK(lore_backend_open(&options, &a->backend, &err), &err);
    a->part = make_part(rows);
    CHECK_OK(lore_lists_new(&a->part, 1, FIX_DIM, &stop, &a->lists, &err), &err);
    CHECK_OK(lore_scan_open(&a->scan, a->backend, FIX_DIM, &err), &err);
}

static void end(around *a)
{
    lore_scan_close(&a->scan);
    lore_lists_free(a->lists);
    lore_segment_release(a->part.segment);
    lore_backend_close(a->backend);
}

/* Of the best LORE_ANN_DEPTH rows for other queries, how many are in lists that the margin lets
 * in? */
static double share_let_in(around *a, float margin)
{
    lore_error err;
    int let_in = 0, all = 0;
    for (uint64_t q = 0; q < 100; q++) {
        float query[FIX_DIM];
        static float centre_scores[LORE_LISTS_MAX];
        lore_candidate items[LORE_ANN_DEPTH];
        lore_top top = {items, 0, LORE_ANN_DEPTH};
        fix_vector(900000 + q, query);
        lore_scan_set_query(&a->scan, query);
        CHECK_OK(lore_scan_rows(&a->scan, a->lists->centres, 0, a->lists->list_count, &err), &err);
        for (int32_t i = 0; i < a->lists->list_count; i++) {
            centre_scores[i] = a->scan.scores[i];
        }
        CHECK_OK(lore_scan_part(&a->scan, &a->part, 0, NULL, &top, &err), &err);
        lore_top_sort(&top);
        for (int i = 0; i < top.count; i++, all++) {
            int32_t list = a->lists->list_of[items[i].chunk - 1];
            let_in += centre_scores[list] >= items[top.count - 1].score - margin;
        }
    }
    return (double)let_in / all;
}

TEST(holds_for_queries_it_was_not_measured_on)
{
    lore_error err;
    lore_stop stop = {NULL, NULL};
    float margin = 0;
    around a;
    begin(&a, 10000);
    CHECK_OK(lore_lists_margin(a.lists, &a.part, 1, a.backend, &stop, &margin, &err), &err);
    CHECK(margin > 0 && margin < 1);
    CHECK(share_let_in(&a, margin) >= .98);
    CHECK(share_let_in(&a, margin - .15f) < .98);
    end(&a);
}

TEST(few_rows_and_interruptions)
{
    lore_error err;
    lore_stop stop = {NULL, NULL};
    float margin = 7;
    around a;
    begin(&a, 1); /* nothing to measure */
    CHECK_OK(lore_lists_margin(a.lists, &a.part, 1, a.backend, &stop, &margin, &err), &err);
    CHECK_NEAR(margin, 7, 0);
    end(&a);
    begin(&a, 300);
    lore_stop now = {at_once, NULL};
    CHECK_FAILS(lore_lists_margin(a.lists, &a.part, 1, a.backend, &now, &margin, &err),
                LORE_ERR_CANCELLED, &err, "cancelled");
    lore_status status = LORE_ERR_NOMEM;
    for (int64_t n = 1; status != LORE_OK; n++) {
        lore_mem_fail_at(n, false);
        status = lore_lists_margin(a.lists, &a.part, 1, a.backend, &stop, &margin, &err);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
    }
    end(&a);
}

CHECK_MAIN(holds_for_queries_it_was_not_measured_on, few_rows_and_interruptions)
