/* What the tests of retrieval/ and of answers share: an index filled with a few small documents
 * through the shipped encoder, and a sweep of failing allocations that takes samples. */
#ifndef LORE_TESTS_ANSWER_FIXTURE_H
#define LORE_TESTS_ANSWER_FIXTURE_H

#include "tests/unit/ingest_index_fixture.h"

#include "retrieval/evidence.h"

CHECK_UNUSED static void put_text(bench *b, const char *collection, const char *id,
                                  lore_media media, const char *text)
{
    lore_error err = {0};
    lore_arena arena;
    lore_ingest_result result;
    lore_raw_document raw = {.id = lore_str_from(id), .media = media, .bytes = lore_str_from(text)};
    const lore_ingest_one_options where = {.collection = lore_str_from(collection)};
    lore_arena_init(&arena, 0);
    CHECK_OK(
        lore_ingest_one(b->writer, b->embedder, &b->config, &where, &raw, &arena, &result, &err),
        &err);
    lore_arena_destroy(&arena);
}

/* English and Chinese pages of a small shop, in "default". */
CHECK_UNUSED static void put_shop(bench *b)
{
    static const char *const PAGES[][2] = {
        {"router", "# Router guide\n\n## Factory reset\n\n- Hold the reset button for ten seconds "
                   "until the light blinks.\n- All of your settings are lost after a reset.\n\n"
                   "## Lights\n\nA blue light means that the router is connected. A red light "
                   "means that the cable is loose.\n"},
        {"warranty", "# Warranty\n\nThe warranty lasts 24 months from the day of purchase. It does "
                     "not cover water damage.\n"},
        {"returns", "# Returns\n\nYou can send an item back within 30 days of delivery. We pay the "
                    "return postage in Europe.\n"},
        {"payment", "# Payment\n\nWe accept credit cards and bank transfers. An invoice is sent by "
                    "e-mail after every order.\n"},
        {"chongzhi", "# 路由器\n\n## 恢复出厂设置\n\n按住重置按钮10秒，直到指示灯闪烁。"
                     "重置后所有设置都会丢失。\n"},
        {"tuihuo", "# 退货\n\n商品可以在收到后30天内退回。退货运费由我们承担。\n"},
    };
    for (size_t i = 0; i < sizeof PAGES / sizeof PAGES[0]; i++) {
        put_text(b, "default", PAGES[i][0], LORE_MEDIA_MARKDOWN, PAGES[i][1]);
    }
}

CHECK_UNUSED static lore_retriever retriever_of(bench *b)
{
    return (lore_retriever){.index = b->index, .embedder = b->embedder, .config = &b->config};
}

/* text is what the stored document has at [start, end). */
CHECK_UNUSED static void check_span(bench *b, const lore_chunk *chunk, size_t start, size_t end,
                                    lore_str text)
{
    lore_error err = {0};
    lore_arena arena;
    lore_document_info document;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_index_get_document(b->index, chunk->collection, chunk->document_id, true, &arena,
                                     &document, &err),
             &err);
    CHECK(start < end && end <= document.text.len);
    CHECK(lore_str_equal(lore_str_slice(document.text, start, end), text));
    lore_arena_destroy(&arena);
}

/* One run with the n-th allocation failing. *status is its status; false: it made fewer. */
CHECK_UNUSED static bool run_with_failure(lore_status (*run)(void *self), void *self, int64_t n,
                                          bool is_sticky, lore_status *status)
{
    int64_t made = lore_mem_count();
    lore_mem_fail_at(n, is_sticky);
    *status = run(self);
    lore_mem_fail_at(0, false);
    return lore_mem_count() - made >= n;
}

/* As check_alloc_sweep, but only the first allocations fail each, later ones at growing distances:
 * a walk through encoder and database makes too many. SQLite keeps some memory for later when a
 * statement fails, once; what grows again and again is a leak, and the case ends with a count. */
CHECK_UNUSED static void sample_alloc_failures(lore_status (*run)(void *self), void *self)
{
    enum { LEAKS_MAX = 4 };
    CHECK_INT(run(self), LORE_OK); /* what is kept for later runs exists now */
    for (int sticky = 0; sticky < 2; sticky++) {
        int failures = 0, leaks = 0;
        bool was_hit = true;
        for (int64_t n = 1; was_hit; n += leaks > 0 ? 0 : 1 + n / 8) {
            int64_t live = lore_mem_live();
            lore_status status = LORE_OK;
            was_hit = run_with_failure(run, self, n, sticky != 0, &status);
            failures += status == LORE_ERR_NOMEM;
            leaks = lore_mem_live() > live ? leaks + 1 : 0;
            if (leaks == LEAKS_MAX) {
                CHECK_STOP("allocation %" PRId64 " failing leaks %" PRId64 " blocks", n,
                           lore_mem_live() - live);
            }
            if (status != LORE_OK && (!was_hit || status != LORE_ERR_NOMEM)) {
                CHECK_STOP("allocation %" PRId64 " failing gives status %s", n,
                           lore_status_name(status));
            }
        }
        CHECK(failures > 3);
    }
}

#endif
