/* What a backend multiplies at best is a rate of the right size, on a backend without a queue
 * behind the host's back as on one with; a failed allocation is an error. */
#include "bench/bench_peak.h"

#include "tests/check.h"

static double measure(lore_precision precision)
{
    lore_error err;
    lore_backend *backend = NULL;
    double rate = 0.0;
    const lore_backend_options options = {.kind = LORE_BACKEND_CPU, .precision = precision};
    CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
    CHECK_OK(lore_bench_product_peak(backend, 256, &rate, &err), &err);
    lore_backend_close(backend);
    return rate;
}

/* Between a millionth and a million times what one core does today. */
TEST(products)
{
    const double f32 = measure(LORE_PRECISION_F32), bf16 = measure(LORE_PRECISION_BF16);
    CHECK(f32 > 1e6 && f32 < 1e17);
    CHECK(bf16 > 1e6 && bf16 < 1e17);
}

TEST(products_without_memory)
{
    lore_error err;
    lore_backend *backend = NULL;
    double rate = 0.0;
    const lore_backend_options options = {.kind = LORE_BACKEND_CPU};
    CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
    for (int64_t n = 1; n <= 6; n++) {
        lore_mem_fail_at(n, true);
        const lore_status status = lore_bench_product_peak(backend, 64, &rate, &err);
        lore_mem_fail_at(0, false);
        CHECK_INT(status, LORE_ERR_NOMEM);
    }
    lore_backend_close(backend);
}

CHECK_MAIN(products, products_without_memory)
