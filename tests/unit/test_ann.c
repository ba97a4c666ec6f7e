/* The FAISS fence: rows sorted into lists of near ones, and every way in which that can end early.
 */
#define CHECK_LEAKS 1
#include "tests/unit/index_fixture.h"

enum { ROWS = 20000, CLUSTERS = 64 };

/* Unit vectors around cluster centres. */
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

static lore_part make_part(int64_t count, int64_t first)
{
    lore_error err;
    lore_part part = {NULL, NULL};
    float vector[FIX_DIM];
    CHECK_OK(lore_segment_new(count, FIX_DIM, &part.segment, &err), &err);
    for (int64_t i = 0; i < count; i++) {
        clustered((uint64_t)(first + i), vector);
        lore_segment_push(part.segment, first + i, -1, vector);
    }
    return part;
}

static void free_parts(lore_part *parts, int count)
{
    for (int i = 0; i < count; i++) {
        lore_segment_release(parts[i].segment);
        lore_dead_release(parts[i].dead);
    }
}

static bool after_some_questions(void *self)
{
    return --*(int *)self < 0;
}

/* Every live row is in one list, in order of chunk; rows of a cluster share lists; centres are the
 * means. */
TEST(sorts_all_live_rows)
{
    lore_error err;
    lore_lists *lists = NULL;
    lore_stop stop = {NULL, NULL};
    bool is_own = false;
    lore_part parts[2] = {make_part(ROWS, 1), make_part(500, ROWS + 1)};
    CHECK_OK(lore_part_kill(&parts[0], 101, 50, &is_own, &err), &err);
    CHECK_OK(lore_lists_new(parts, 2, FIX_DIM, &stop, &lists, &err), &err);
    CHECK_INT(lists->row_count, ROWS + 450);
    CHECK(lists->list_count >= 128 && lists->list_count <= 1024);
    CHECK_INT(lists->centres->count, lists->list_count);
    int64_t *sizes = lore_alloc_zero((size_t)lists->list_count, sizeof *sizes);
    CHECK(sizes != NULL);
    int64_t last = 0;
    for (int64_t i = 0; i < lists->row_count; i++) {
        int64_t id = lists->rows[i].segment->ids[lists->rows[i].row];
        CHECK(id > last && (id <= 100 || id > 150));
        last = id;
        sizes[lists->list_of[i]]++;
    }
    CHECK(memcmp(sizes, lists->sizes, (size_t)lists->list_count * sizeof *sizes) == 0);
    /* Of the rows of a list, nearly all are of one cluster. */
    int64_t alike = 0;
    int64_t *first_of = lore_alloc_zero((size_t)lists->list_count, sizeof *first_of);
    CHECK(first_of != NULL);
    for (int64_t i = 0; i < lists->row_count; i++) {
        int64_t id = lists->rows[i].segment->ids[lists->rows[i].row];
        int64_t *cluster = &first_of[lists->list_of[i]];
        *cluster = *cluster == 0 ? id % CLUSTERS + 1 : *cluster;
        alike += *cluster == id % CLUSTERS + 1;
    }
    CHECK((double)alike > .9 * (double)lists->row_count);
    lore_free(first_of);
    lore_free(sizes);
    lore_lists_free(lists);
    free_parts(parts, 2);
}

/* The same rows give the same lists. */
TEST(is_reproducible)
{
    lore_error err;
    lore_lists *lists[2] = {NULL, NULL};
    lore_stop stop = {NULL, NULL};
    lore_part part = make_part(3000, 1);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(lore_lists_new(&part, 1, FIX_DIM, &stop, &lists[i], &err), &err);
    }
    CHECK(memcmp(lists[0]->list_of, lists[1]->list_of, 3000 * sizeof(int32_t)) == 0);
    lore_lists_free(lists[0]);
    lore_lists_free(lists[1]);
    free_parts(&part, 1);
}

/* Fewer rows than a list should have: one list. */
TEST(small_ones)
{
    lore_error err;
    lore_lists *lists = NULL;
    lore_stop stop = {NULL, NULL};
    for (int64_t rows = 1; rows < 60; rows += 19) {
        lore_part part = make_part(rows, 1);
        CHECK_OK(lore_lists_new(&part, 1, FIX_DIM, &stop, &lists, &err), &err);
        CHECK_INT(lists->list_count, 1);
        CHECK_INT(lists->sizes[0], rows);
        lore_lists_free(lists);
        free_parts(&part, 1);
    }
}

/* Cancelled at any question: in training, where FAISS asks, and in sorting. */
TEST(cancelled)
{
    lore_error err;
    lore_lists *lists = NULL;
    lore_part part = make_part(20000, 1);
    int asked = 0;
    bool is_over = false;
    for (int n = 0; !is_over; n++) {
        asked = n;
        lore_stop stop = {after_some_questions, &asked};
        lore_status status = lore_lists_new(&part, 1, FIX_DIM, &stop, &lists, &err);
        is_over = status == LORE_OK;
        CHECK(is_over || status == LORE_ERR_CANCELLED);
        CHECK(n > 5 || !is_over); /* both kinds of questions were asked */
    }
    lore_lists_free(lists);
    free_parts(&part, 1);
}

/* Each of our allocations fails once. */
TEST(without_memory)
{
    lore_error err;
    lore_lists *lists = NULL;
    lore_stop stop = {NULL, NULL};
    lore_part part = make_part(1000, 1);
    lore_status status = LORE_ERR_NOMEM;
    int64_t n = 1;
    for (; status != LORE_OK; n++) {
        lore_mem_fail_at(n, false);
        status = lore_lists_new(&part, 1, FIX_DIM, &stop, &lists, &err);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
    }
    CHECK(n > 6);
    lore_lists_free(lists);
    free_parts(&part, 1);
}

CHECK_MAIN(sorts_all_live_rows, is_reproducible, small_ones, cancelled, without_memory)
