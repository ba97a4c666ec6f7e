/* What the tests of searches on a device share: documents, and two indexes that must answer alike.
 */
#ifndef LORE_TESTS_RESIDENT_FIXTURE_H
#define LORE_TESTS_RESIDENT_FIXTURE_H

#include "tests/unit/index_fixture.h"

enum { CHUNKS = 50, DOCUMENTS = 120, DEPTH = 20, QUESTIONS = 12, DEPTH_MAX = 200 };

/* Half of them have "half": 1, one in thirty is rare. */
CHECK_UNUSED static void put_many(lore_index *index, int first, int documents)
{
    lore_error err;
    char id[16], metadata[64];
    static char text[600];
    memset(text, 'a', sizeof text - 1);
    CHECK_OK(lore_index_begin(index, &err), &err);
    for (int i = first; i < first + documents; i++) {
        snprintf(id, sizeof id, "d%d", i);
        snprintf(metadata, sizeof metadata, "{\"half\":%d,\"rare\":%s}", i % 2,
                 i % 30 == 0 ? "true" : "false");
        CHECK_OK(fix_put(index, "default", id, text, metadata, CHUNKS, (uint64_t)i * 1000 + 1, NULL,
                         &err),
                 &err);
    }
    CHECK_OK(lore_index_commit(index, &err), &err);
}

/* Until files are published and copied. */
CHECK_UNUSED static void settle(fixture *f)
{
    fix_settle(f);
    if (f->index->device != NULL) {
        CHECK(lore_device_wait(f->index->device, lore_clock_ns() + (int64_t)60 * 1000000000));
    }
}

CHECK_UNUSED static bool is_resident(const fixture *f)
{
    const lore_vectors *view = f->index->current->views[0];
    return view->has_base && atomic_load(&view->parts[0].segment->resident) != NULL;
}

CHECK_UNUSED static const lore_filter *parse_filter(fixture *f, const char *text, lore_arena *arena)
{
    lore_error err;
    lore_json *json = NULL;
    const lore_filter *filter = NULL;
    CHECK_OK(lore_json_parse(lore_str_from(text), 8, &json, &err), &err);
    CHECK_OK(lore_filter_parse(json, &f->config.limits, arena, &filter, &err), &err);
    lore_json_free(json);
    return filter;
}

/* Both find the same chunks with the same scores, for QUESTIONS questions. */
CHECK_UNUSED static void check_equal(fixture *a, fixture *b, const lore_filter *filter,
                                     int32_t depth)
{
    for (uint64_t q = 0; q < QUESTIONS; q++) {
        int64_t left[DEPTH_MAX], right[DEPTH_MAX];
        float left_scores[DEPTH_MAX], right_scores[DEPTH_MAX];
        const uint64_t seed = 5 * q * 1000 + 1 + q;
        const int32_t count =
            fix_dense(a->index, "default", seed, filter, left, left_scores, depth);
        CHECK_INT(fix_dense(b->index, "default", seed, filter, right, right_scores, depth), count);
        for (int32_t i = 0; i < count; i++) {
            CHECK_INT(left[i], right[i]);
            CHECK(left_scores[i] == right_scores[i]);
        }
    }
}

#endif
