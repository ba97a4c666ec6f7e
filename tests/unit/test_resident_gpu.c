/* An index with its vectors on a GPU answers as one without, to the last bit. */
#include "tests/unit/resident_fixture.h"

#include "base/log.h"

static void swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

TEST(gpu_same_answers)
{
    lore_error err;
    lore_arena arena;
    fixture with, without;
    if (lore_backend_cuda_count() == 0) {
        CHECK_SKIP("no CUDA device here, or built without CUDA");
    }
    lore_arena_init(&arena, 0);
    lore_log_set_sink(swallow, NULL);
    fix_init(&with, "with");
    fix_init(&without, "without");
    const lore_backend_options options = {.kind = LORE_BACKEND_CUDA};
    CHECK_OK(lore_backend_open(&options, &with.device, &err), &err);
    fixture *both[] = {&with, &without};
    for (int i = 0; i < 2; i++) {
        fix_open(both[i], true);
        put_many(both[i]->index, 0, DOCUMENTS);
        CHECK_OK(lore_index_publish(both[i]->index, &err), &err);
        settle(both[i]);
        put_many(both[i]->index, DOCUMENTS, 10); /* a tail */
    }
    CHECK(is_resident(&with) && !is_resident(&without));
    const lore_filter *half =
        parse_filter(&with, "{\"type\":\"eq\",\"key\":\"half\",\"value\":1}", &arena);
    check_equal(&with, &without, NULL, DEPTH);
    check_equal(&with, &without, NULL, 1);
    check_equal(&with, &without, half, DEPTH_MAX);
    for (int i = 0; i < 2; i++) {
        fix_delete_one(both[i]->index, "default", "d0");
        fix_delete_one(both[i]->index, "default", "d5");
    }
    check_equal(&with, &without, NULL, DEPTH_MAX);
    check_equal(&with, &without, half, DEPTH);
    for (int i = 0; i < 2; i++) {
        put_many(both[i]->index, DOCUMENTS + 10, 30);
        CHECK_OK(lore_index_publish(both[i]->index, &err), &err);
        settle(both[i]);
    }
    CHECK(is_resident(&with));
    check_equal(&with, &without, NULL, DEPTH);
    lore_arena_destroy(&arena);
    fix_destroy(&with);
    lore_backend_close(with.device);
    fix_destroy(&without);
    lore_log_set_sink(NULL, NULL);
}

CHECK_MAIN(gpu_same_answers)
