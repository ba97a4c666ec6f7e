/* The search of vectors on an accelerator backend: cuda, or the one that LORE_TEST_BACKEND names.
 */
#include "tests/ops/ops_cases.h"
#include "tests/ops/search_cases.h"

static void run(void (*cases)(const subject *on))
{
    subject on;
    subject_of_run(&on, LORE_PRECISION_F32);
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
