/* The set of ids, what counts as below a source, and what pruning deletes. */
#include "tests/unit/ingest_index_fixture.h"

TEST(id_set)
{
    lore_id_set set = {0};
    lore_error err = {0};
    char id[32];
    CHECK(!lore_id_set_has(&set, LORE_STR("x")));
    for (int i = 0; i < 5000; i++) {
        snprintf(id, sizeof id, "d%d", i);
        CHECK_OK(lore_id_set_add(&set, lore_str_from(id), &err), &err);
        CHECK_OK(lore_id_set_add(&set, lore_str_from(id), &err), &err);
    }
    CHECK_INT(set.count, 5000);
    for (int i = 0; i < 10000; i++) {
        snprintf(id, sizeof id, "d%d", i);
        CHECK_INT(lore_id_set_has(&set, lore_str_from(id)), i < 5000);
    }
    lore_id_set_destroy(&set);
}

TEST(below)
{
    lore_str roots[] = {LORE_STR("kb/a"), LORE_STR("x.jsonl"), LORE_STR("/")};
    CHECK(lore_source_is_below(LORE_STR("kb/a"), roots, 2));
    CHECK(lore_source_is_below(LORE_STR("kb/a/b.md"), roots, 2));
    CHECK(lore_source_is_below(LORE_STR("x.jsonl#3"), roots, 2));
    CHECK(!lore_source_is_below(LORE_STR("kb/ab"), roots, 2));
    CHECK(!lore_source_is_below(LORE_STR("kb"), roots, 2));
    CHECK(lore_source_is_below(LORE_STR("/etc/x"), roots, 3));
    CHECK(!lore_source_is_below(LORE_STR("kb/a"), roots, 0));
}

static void put(bench *b, const char *id, const char *source)
{
    lore_error err = {0};
    lore_arena arena;
    lore_ingest_result result;
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.id = lore_str_from(id),
                             .source = lore_str_from(source),
                             .media = LORE_MEDIA_TEXT,
                             .bytes = LORE_STR("Some text.")};
    CHECK_OK(lore_ingest_one(b->writer, b->embedder, &b->config, &(lore_ingest_one_options){0},
                             &raw, &arena, &result, &err),
             &err);
    lore_arena_destroy(&arena);
}

static bool yes(void *self)
{
    (void)self;
    return true;
}

TEST(prunes)
{
    bench b;
    lore_error err = {0};
    lore_id_set seen = {0};
    int64_t deleted = 0;
    char source[600], folder[300];
    bench_open(&b, "prune-data");
    snprintf(folder, sizeof folder, "%s/docs", check_temp_dir());
    CHECK_OK(lore_dir_make(folder, &err), &err);
    static const char *const names[] = {"here.md", "gone.md", "locked/x.md"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(source, sizeof source, "%s/%s", folder, names[i]);
        put(&b, names[i], source);
    }
    snprintf(source, sizeof source, "%s-other/y.md", folder);
    put(&b, "elsewhere", source);
    put(&b, "by-hand", "");
    CHECK_OK(lore_id_set_add(&seen, LORE_STR("here.md"), &err), &err);
    snprintf(source, sizeof source, "%s/locked", folder);
    lore_str kept = lore_str_from(source);
    const char *paths[] = {folder, "/no/such/folder"};
    lore_ingest_options run = {0};
    lore_prune_options options = {.collection = LORE_STR("default"),
                                  .paths = paths,
                                  .path_count = 2,
                                  .seen = &seen,
                                  .kept_roots = &kept,
                                  .kept_count = 1,
                                  .run = &run};
    CHECK_OK(lore_prune(b.index, &options, &deleted, &err), &err);
    CHECK_INT(deleted, 1);
    CHECK_INT(bench_documents(&b), 5);
    options.writer = b.writer;
    run.is_cancelled = yes;
    CHECK_FAILS(lore_prune(b.index, &options, &deleted, &err), LORE_ERR_CANCELLED, &err, "");
    run.is_cancelled = NULL;
    deleted = 0;
    CHECK_OK(lore_prune(b.index, &options, &deleted, &err), &err);
    CHECK_INT(deleted, 1);
    CHECK_INT(bench_documents(&b), 4);
    bool found = true;
    uint8_t hash[32];
    CHECK_OK(lore_index_document_hash(b.index, LORE_STR("default"), LORE_STR("gone.md"), hash,
                                      &found, &err),
             &err);
    CHECK(!found);
    /* A root is a path itself: what merely begins like it stays. */
    snprintf(source, sizeof source, "%s-oth", folder);
    const char *roots[] = {source};
    options.path_count = 0;
    options.kept_count = 0; /* its text is overwritten here */
    options.roots = roots;
    options.root_count = 1;
    CHECK_OK(lore_prune(b.index, &options, &deleted, &err), &err);
    CHECK_INT(deleted, 1);
    snprintf(source, sizeof source, "%s-other/y.md", folder);
    CHECK_OK(lore_prune(b.index, &options, &deleted, &err), &err);
    CHECK_INT(deleted, 2);
    CHECK_INT(bench_documents(&b), 3);
    lore_id_set_destroy(&seen);
    bench_close(&b);
}

CHECK_MAIN(id_set, below, prunes)
