/* All that the index does, with every allocation, every call on a file and every thread start
 * failing in turn: opening, writing, searching, listing, publishing (with FAISS), rebuilding what
 * is damaged, reading beside a writer. What is committed stays, what is not is there whole or not
 * at all (sweep.h, index_check.h). */
#include "tests/fault/sweep.h"

#include "tests/fault/index_check.h"
#include "tests/unit/index_fixture.h"

enum {
    BASE_DOCUMENTS = 30,
    TAIL_DOCUMENTS = 24,
    DOCUMENT_CHUNKS = 50,
    TIME_SPEED = 100 /* pauses and retries of the background thread take a hundredth */
};

static const char long_text[] =
    "a text of some length, so that twenty-four pieces of it hold words worth searching for, "
    "again and again, in documents that replace one another while somebody pulls the plug";

typedef struct index_life {
    fixture f;
    char pristine[256]; /* the folder that each run begins with, "" for none */
    bool is_damaged;    /* and its derived files are */
    bool is_large;      /* collections are large enough for FAISS */
} index_life;

/* ---- what is done ---- */

static lore_status put_documents(lore_index *index, const char *prefix, int count, lore_error *err)
{
    for (int i = 0; i < count; i++) {
        char id[16];
        snprintf(id, sizeof id, "%s%d", prefix, i);
        lore_status status = fix_put(index, "default", id, long_text, "{\"product\":\"R1\"}",
                                     DOCUMENT_CHUNKS, (uint64_t)i * 100 + 1, NULL, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

static lore_status write_some(fixture *f, lore_error *err)
{
    bool found = false;
    lore_status status = lore_index_begin(f->index, err);
    if (status != LORE_OK) {
        return status;
    }
    status = put_documents(f->index, "d", 3, err);
    if (status == LORE_OK) { /* a replacement */
        status = fix_put(f->index, "default", "base1", "other words", "", 2, 77, NULL, err);
    }
    if (status == LORE_OK) {
        status =
            lore_index_delete_document(f->index, LORE_STR("default"), LORE_STR("d0"), &found, err);
    }
    if (status == LORE_OK) {
        return lore_index_commit(f->index, err);
    }
    lore_index_rollback(f->index);
    return status;
}

static lore_status search_filtered(lore_snapshot *snapshot, const float *query,
                                   const lore_limits *limits, lore_arena *arena, lore_error *err)
{
    static const char text[] = "{\"type\":\"in\",\"key\":\"product\",\"value\":[\"R1\",\"R2\",7]}";
    lore_search_options options = {.count = 20};
    lore_candidates found;
    lore_json *json = NULL;
    lore_status status = lore_json_parse(lore_str_from(text), 8, &json, err);
    if (status == LORE_OK) {
        status = lore_filter_parse(json, limits, arena, &options.filter, err);
    }
    if (status == LORE_OK) {
        status = lore_search_dense(snapshot, query, &options, arena, &found, err);
    }
    lore_json_free(json);
    return status;
}

static lore_status search_some(lore_index *index, const lore_limits *limits, lore_arena *arena,
                               lore_error *err)
{
    lore_search_options options = {.count = 20};
    lore_candidates found = {NULL, 0};
    float query[FIX_DIM], scores[4];
    int64_t rows[20] = {1, 2, 3, 4};
    lore_chunk loaded[20];
    int32_t count = 0;
    fix_vector(5, query);
    lore_snapshot *snapshot = lore_index_acquire(index);
    lore_status status = lore_search_dense(snapshot, query, &options, arena, &found, err);
    if (status == LORE_OK) {
        status = search_filtered(snapshot, query, limits, arena, err);
    }
    if (status == LORE_OK) {
        status = lore_search_text(snapshot, LORE_STR("words worth searching 東京"), &options, arena,
                                  &found, err);
    }
    if (status == LORE_OK) {
        for (int32_t i = 0; i < found.count; i++) {
            rows[i] = found.items[i].chunk;
        }
        status = lore_load_chunks(snapshot, rows, found.count, arena, loaded, &count, err);
    }
    if (status == LORE_OK) {
        status = lore_score_dense(snapshot, query, rows, 4, scores, err);
    }
    if (status == LORE_OK) {
        lore_chunk *chunks = NULL;
        status = lore_load_document_chunks(snapshot, LORE_STR("default"), LORE_STR("d1"), arena,
                                           &chunks, &count, err);
    }
    lore_snapshot_release(snapshot);
    return status;
}

static lore_status list_some(lore_index *index, lore_arena *arena, lore_error *err)
{
    lore_collection_info *collections = NULL;
    lore_document_info *documents = NULL, document;
    lore_str next = {NULL, 0};
    int32_t count = 0;
    lore_status status = lore_index_collections(index, arena, &collections, &count, err);
    if (status == LORE_OK) {
        status = lore_index_list_documents(index, LORE_STR("default"), next, next, 5, arena,
                                           &documents, &count, &next, err);
    }
    if (status == LORE_OK) {
        status = lore_index_get_document(index, LORE_STR("default"), LORE_STR("d1"), true, arena,
                                         &document, err);
    }
    return status;
}

/* A process beside the writer: opens, reads, goes. */
static lore_status read_beside(index_life *life, lore_arena *arena, lore_error *err)
{
    lore_index *reader = NULL;
    lore_index_options options = {&life->f.config, life->f.backend, false,
                                  "encoder-1",     FIX_DIM,         NULL};
    lore_status status = lore_index_open(life->f.folder, &options, &reader, err);
    if (status == LORE_OK) {
        status = search_some(reader, &life->f.config.limits, arena, err);
    }
    lore_index_close(reader);
    return status;
}

static lore_status change_collections(lore_index *index, lore_error *err)
{
    bool found = false;
    lore_status status = lore_index_create_collection(index, LORE_STR("extra"), err);
    if (status == LORE_OK) {
        const lore_collection_settings settings = {.has_weight = true,
                                                   .has_refusal = true,
                                                   .fusion_weight = .5,
                                                   .refusal = LORE_STR("no")};
        status = lore_index_set_collection(index, LORE_STR("extra"), &settings, err);
    }
    if (status == LORE_OK) {
        status = lore_index_begin(index, err);
    }
    if (status == LORE_OK) {
        status = fix_put(index, "extra", "x", long_text, "", 4, 9, NULL, err);
        if (status == LORE_OK) {
            status = lore_index_commit(index, err);
        } else {
            lore_index_rollback(index);
        }
    }
    if (status == LORE_OK) {
        status = lore_index_delete_collection(index, LORE_STR("extra"), &found, err);
    }
    return status;
}

static lore_status live(void *self, lore_error *err)
{
    index_life *life = self;
    fixture *f = &life->f;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_status status = fix_try_open(f, true, "encoder-1", err);
    if (status == LORE_OK) {
        status = write_some(f, err);
    }
    if (status == LORE_OK) {
        status = search_some(f->index, &f->config.limits, &arena, err);
    }
    if (status == LORE_OK) {
        status = list_some(f->index, &arena, err);
    }
    if (status == LORE_OK) {
        status = lore_index_publish(f->index, err);
    }
    if (status == LORE_OK) {
        status = read_beside(life, &arena, err);
    }
    if (status == LORE_OK) {
        status = change_collections(f->index, err);
    }
    if (status == LORE_OK && life->is_large) { /* fails by itself; the next open tries again */
        (void)lore_rebuild_wait(f->index, lore_clock_ns() + INT64_C(60000000000) * TIME_SPEED);
    }
    lore_arena_destroy(&arena);
    fix_close(f);
    return status;
}

/* ---- where it begins ---- */

static void begin_life(index_life *life, const char *name, bool is_large)
{
    memset(life, 0, sizeof *life);
    fix_init(&life->f, name);
    life->is_large = is_large;
    life->f.config.ann_min_vectors = is_large ? 1000 : 1000000;
    life->f.config.limits.row_budget_min_chunks = 10;
}

/* Published documents with a FAISS index, and fresh ones: more than stay unpublished. */
static void make_pristine(index_life *life)
{
    fixture *f = &life->f;
    lore_error err;
    fix_open(f, true);
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    CHECK_OK(put_documents(f->index, "base", BASE_DOCUMENTS, &err), &err);
    CHECK_OK(lore_index_commit(f->index, &err), &err);
    CHECK_OK(lore_index_publish(f->index, &err), &err);
    CHECK(!life->is_large ||
          lore_rebuild_wait(f->index, lore_clock_ns() + INT64_C(60000000000) * TIME_SPEED));
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    CHECK_OK(put_documents(f->index, "tail", TAIL_DOCUMENTS, &err), &err);
    CHECK_OK(lore_index_commit(f->index, &err), &err);
    fix_close(f);
    snprintf(life->pristine, sizeof life->pristine, "%.200s-pristine", f->folder);
    CHECK(rename(f->folder, life->pristine) == 0);
}

static void start_over(void *self)
{
    index_life *life = self;
    sweep_remove_folder(life->f.folder);
    if (life->pristine[0] == '\0') {
        return;
    }
    sweep_copy_folder(life->pristine, life->f.folder);
    if (life->is_damaged) {
        char path[400];
        snprintf(path, sizeof path, "%s/vec-1-1.i8", life->f.folder);
        fix_damage(path, 5000);
        if (life->is_large) {
            snprintf(path, sizeof path, "%s/ann-1.ivf", life->f.folder);
            fix_damage(path, 5000);
        }
    }
}

/* ---- what holds afterwards ---- */

static int64_t count_documents(fixture *f, const char *sql)
{
    lore_error err;
    int64_t count = 0;
    CHECK_OK(lore_db_number(f->index->writer, sql, &count, &err), &err);
    return count;
}

static int32_t check_life(void *self, lore_status status)
{
    index_life *life = self;
    fixture *f = &life->f;
    fix_open(f, true);
    int32_t problems = index_check_all(f->index);
    int64_t kept = count_documents(f, "SELECT count(*) FROM documents WHERE external_id LIKE "
                                      "'base%' OR external_id LIKE 'tail%'");
    int64_t made = count_documents(f, "SELECT count(*) FROM documents WHERE external_id LIKE 'd_'");
    int64_t replaced = count_documents(f, "SELECT count(*) FROM documents WHERE "
                                          "external_id='base1' AND chunk_count=2");
    fix_close(f);
    /* Without a pristine folder base1 is made by the same transaction. */
    int64_t expected = life->pristine[0] == '\0' ? replaced : BASE_DOCUMENTS + TAIL_DOCUMENTS;
    if (kept != expected || made != 2 * replaced || (status == LORE_OK && made != 2)) {
        fprintf(stderr, "%lld documents of before, %lld new ones, replaced: %lld\n",
                (long long)kept, (long long)made, (long long)replaced);
        problems++;
    }
    return problems;
}

/* ---- the cases ---- */

typedef enum beginning { NEW_FOLDER, OLD_FOLDER, DAMAGED_FOLDER } beginning;

static void run_sweep(const char *name, beginning from, bool is_large, void (*how)(sweep *s))
{
    static index_life life;
    begin_life(&life, name, is_large);
    if (from != NEW_FOLDER) {
        make_pristine(&life);
    }
    life.is_damaged = from == DAMAGED_FOLDER;
    sweep s = {
        .name = name, .prepare = start_over, .run = live, .check = check_life, .self = &life};
    how(&s);
    fix_destroy(&life.f);
}

TEST(files_of_a_new_folder)
{
    run_sweep("files of a new folder", NEW_FOLDER, false, sweep_files);
}

TEST(files_of_an_old_folder)
{
    run_sweep("files of an old folder", OLD_FOLDER, false, sweep_files);
}

TEST(files_of_a_damaged_folder)
{
    run_sweep("files of a damaged folder", DAMAGED_FOLDER, false, sweep_files);
}

TEST(memory_of_a_new_folder)
{
    run_sweep("memory of a new folder", NEW_FOLDER, false, sweep_allocations);
}

TEST(memory_of_an_old_folder)
{
    run_sweep("memory of an old folder", OLD_FOLDER, false, sweep_allocations);
}

TEST(memory_of_a_damaged_folder)
{
    run_sweep("memory of a damaged folder", DAMAGED_FOLDER, false, sweep_allocations);
}

/* ---- and with FAISS, in the background ---- */

static int64_t fast_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec) * TIME_SPEED;
}

static void run_large_sweep(const char *name, void (*how)(sweep *s))
{
    lore_clock_set_source(fast_time);
    run_sweep(name, DAMAGED_FOLDER, true, how);
    lore_clock_set_source(NULL);
}

TEST(files_of_a_large_folder)
{
    run_large_sweep("files of a large folder", sweep_files);
}

TEST(memory_of_a_large_folder)
{
    run_large_sweep("memory of a large folder", sweep_allocations);
}

CHECK_MAIN(files_of_a_new_folder, files_of_an_old_folder, files_of_a_damaged_folder,
           memory_of_a_new_folder, memory_of_an_old_folder, memory_of_a_damaged_folder,
           files_of_a_large_folder, memory_of_a_large_folder)
