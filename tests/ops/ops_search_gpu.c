/* The search of vectors on an accelerator backend: cuda, or the one that LORE_TEST_BACKEND names.
 */
#include "tests/ops/ops_cases.h"
#include "tests/ops/search_cases.h"

static void run(void (*cases)(const subject *on))
{
    const char *name = getenv("LORE_TEST_BACKEND");
    lore_backend_options options = {.kind = LORE_BACKEND_CUDA};
    if (name != NULL && strcmp(name, "cuda") != 0) {
        options.kind = strcmp(name, "cpu") == 0 ? LORE_BACKEND_CPU : LORE_BACKEND_REF;
    } else if (lore_backend_cuda_count() == 0) {
        CHECK_SKIP("no CUDA device here, or built without CUDA");
    }
    subject on;
    subject_open(&on, options, 0, name != NULL ? name : "cuda");
    cases(&on);
    subject_close(&on);
}

TEST(gpu_search)
{
    run(cases_search);
}

TEST(gpu_search_long)
{
    run(cases_search_long);
}

TEST(gpu_search_orders)
{
    run(cases_search_orders);
}

TEST(gpu_search_slices)
{
    run(cases_search_slices);
}

CHECK_MAIN(gpu_search, gpu_search_long, gpu_search_orders, gpu_search_slices)
