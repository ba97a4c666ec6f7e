/* Counts come out in Prometheus' format: each series once, buckets that add up. */
#include "api/routes.h"

#include "tests/check.h"

static bool holds(const lore_buf *text, const char *line)
{
    return lore_str_find(lore_buf_str(text), lore_str_from(line), 0) != SIZE_MAX;
}

TEST(requests_are_counted)
{
    int32_t other = lore_route_count;
    lore_app app = {0};
    lore_buf out;
    lore_error err;
    lore_buf_init(&out, 0);
    lore_metrics *metrics = lore_metrics_new();
    CHECK(metrics != NULL);
    lore_metrics_request(metrics, 0, 200, 2 * 1000000);      /* 2 ms */
    lore_metrics_request(metrics, 0, 200, 2000 * 1000000LL); /* 2 s */
    lore_metrics_request(metrics, 0, 0, 1);                  /* left before a status */
    lore_metrics_request(metrics, other, 418, 1);
    lore_metrics_request(metrics, other, 404, 3600LL * 1000000000); /* beyond the last bucket */
    lore_metrics_active(metrics, 1);
    const lore_answer answer = {.mode_used = LORE_MODE_EXTRACT,
                                .is_refused = true,
                                .hits = {.rerank = LORE_RERANK_LATE},
                                .prompt_tokens = 5,
                                .completion_tokens = 7};
    lore_metrics_answer(metrics, &answer);
    CHECK_OK(lore_metrics_print(metrics, &app, &out, &err), &err);
    CHECK(holds(&out, "lore_requests_total{route=\"POST /query\",status=\"200\"} 2\n"));
    CHECK(holds(&out, "lore_requests_total{route=\"POST /query\",status=\"499\"} 1\n"));
    CHECK(holds(&out, "lore_requests_total{route=\"other\",status=\"other\"} 1\n"));
    CHECK(holds(&out, "lore_request_seconds_bucket{route=\"POST /query\",le=\"0.001\"} 1\n"));
    CHECK(holds(&out, "lore_request_seconds_bucket{route=\"POST /query\",le=\"0.0025\"} 2\n"));
    CHECK(holds(&out, "lore_request_seconds_bucket{route=\"POST /query\",le=\"+Inf\"} 3\n"));
    CHECK(holds(&out, "lore_request_seconds_bucket{route=\"other\",le=\"60\"} 1\n"));
    CHECK(holds(&out, "lore_request_seconds_count{route=\"other\"} 2\n"));
    CHECK(holds(&out, "lore_answers_total{mode_used=\"extract\",refused=\"true\"} 1\n"));
    CHECK(holds(&out, "lore_reranks_total{outcome=\"deadline\"} 1\n"));
    CHECK(holds(&out, "lore_reranks_total{outcome=\"done\"} 0\n"));
    CHECK(holds(&out, "lore_tokens_total{kind=\"completion\"} 7\n"));
    CHECK(holds(&out, "lore_requests_active 1\n"));
    CHECK(holds(&out, "# TYPE lore_request_seconds histogram\n"));
    CHECK(!lore_buf_failed(&out));
    lore_metrics_free(metrics);
    lore_metrics_free(NULL);
    lore_buf_destroy(&out);
}

TEST(no_memory)
{
    for (int64_t n = 1; n <= 2; n++) {
        lore_mem_fail_at(n, false);
        CHECK(lore_metrics_new() == NULL);
        lore_mem_fail_at(0, false);
    }
}

CHECK_MAIN(requests_are_counted, no_memory)
