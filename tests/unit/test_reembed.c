/* Vectors of another encoder: made beside, resumed after an end at any point, exchanged at once;
 * who reads with the old encoder meets old vectors only, before and after. */
#include "index/reembed.h"
#include "tests/unit/index_fixture.h"

enum { NEW_DIM = FIX_DIM + 8, CHUNKS = 6 };

/* The new encoder's vector of a chunk. */
static void new_vector(int64_t chunk, float *out)
{
    fix_vector_of(77000 + (uint64_t)chunk, out, NEW_DIM);
}

static void open_as(fixture *f, bool is_writer, const char *encoder, int32_t dim)
{
    lore_error err = {0};
    lore_index_options options = {&f->config, f->backend, is_writer, encoder, dim, NULL};
    CHECK_OK(lore_index_open(f->folder, &options, &f->index, &err), &err);
}

static void close_index(fixture *f)
{
    lore_index_close(f->index);
    f->index = NULL;
}

/* Put vectors beside for up to `limit` chunks. Gives how many. */
static int32_t put_some(fixture *f, int32_t limit)
{
    lore_error err = {0};
    lore_arena arena;
    lore_reembed_chunk *chunks = NULL;
    int32_t count = 0;
    float vectors[CHUNKS][NEW_DIM];
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_reembed_next(f->index, limit, &arena, &chunks, &count, &err), &err);
    for (int32_t i = 0; i < count; i++) {
        CHECK(chunks[i].text.len > 0 && lore_str_equal(chunks[i].title, LORE_STR("Title")));
        new_vector(chunks[i].chunk, vectors[i]);
    }
    if (count > 0) {
        CHECK_OK(lore_reembed_put(f->index, chunks, vectors[0], count, NEW_DIM, &err), &err);
    }
    lore_arena_destroy(&arena);
    return count;
}

static void begin(fixture *f, int64_t chunks, int64_t left)
{
    lore_error err = {0};
    int64_t all = 0, missing = 0;
    bool is_same = true;
    CHECK_OK(lore_reembed_begin(f->index, "encoder-2", NEW_DIM, &is_same, &all, &missing, &err),
             &err);
    CHECK(!is_same);
    CHECK_INT(all, chunks);
    CHECK_INT(missing, left);
}

/* The old encoder's vector of the first chunk of `id`, which was put with this seed. */
static void check_old(fixture *f, uint64_t seed, int64_t chunk)
{
    int64_t chunks[1];
    float scores[1];
    CHECK_INT(fix_dense(f->index, "default", seed, NULL, chunks, scores, 1), 1);
    CHECK_INT(chunks[0], chunk);
    CHECK(scores[0] > .98F);
}

static void check_new(fixture *f, int64_t chunk)
{
    lore_error err = {0};
    lore_arena arena;
    lore_candidates found;
    float query[NEW_DIM];
    lore_search_options options = {.count = 1};
    lore_arena_init(&arena, 0);
    new_vector(chunk, query);
    lore_snapshot *snapshot = lore_index_acquire(f->index);
    CHECK_OK(lore_search_dense(snapshot, query, &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 1);
    CHECK_INT(found.items[0].chunk, chunk);
    CHECK(found.items[0].score > .98F);
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
}

TEST(exchange)
{
    fixture f, reader;
    lore_error err = {0};
    fix_init(&f, "exchange");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "berth nine is free, the pilot waits", "", 3, 1);
    fix_put_one(f.index, "default", "b", "泊位九号空着，引水员在等。boats of nine metres", "", 2,
                10);
    close_index(&f);

    /* Begun, and ended by whatever it was: the old vectors are in use, documents come and go. */
    open_as(&f, true, NULL, 0);
    begin(&f, 5, 5);
    CHECK_INT(put_some(&f, 2), 2);
    CHECK_FAILS(lore_reembed_exchange(f.index, &err), LORE_ERR_INVALID, &err, "3 chunks");
    close_index(&f);
    fix_open(&f, true);
    check_old(&f, 1, 1);
    check_old(&f, 10, 4);
    fix_delete_one(f.index, "default", "a");
    fix_put_one(f.index, "default", "c", "the crane is out of order", "", 1, 20);
    close_index(&f);

    /* Another process reads beside; the work goes on where it was and comes to its end. */
    reader = f;
    open_as(&reader, false, "encoder-1", FIX_DIM);
    check_old(&reader, 20, 6);
    open_as(&f, true, NULL, 0);
    begin(&f, 3, 3);
    CHECK_INT(put_some(&f, 2), 2);
    check_old(&reader, 10, 4);
    CHECK_INT(put_some(&f, CHUNKS), 1);
    CHECK_INT(put_some(&f, CHUNKS), 0);
    CHECK_OK(lore_reembed_exchange(f.index, &err), &err);
    close_index(&f);
    check_old(&reader, 10, 4);
    check_old(&reader, 20, 6);
    close_index(&reader);

    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_INVALID, &err, "reembed");
    CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), LORE_ERR_INVALID, &err, "reembed");
    open_as(&f, true, "encoder-2", NEW_DIM);
    check_new(&f, 4);
    check_new(&f, 6);
    int64_t rows = -1;
    CHECK_OK(lore_db_number(f.index->writer, "SELECT count(*) FROM next_vectors", &rows, &err),
             &err);
    CHECK_INT(rows, 0);
    close_index(&f);
    open_as(&f, true, NULL, 0);
    int64_t all = 0, missing = 0;
    bool is_same = false;
    CHECK_OK(lore_reembed_begin(f.index, "encoder-2", NEW_DIM, &is_same, &all, &missing, &err),
             &err);
    CHECK(is_same);
    fix_destroy(&f);
}

/* A folder with a vector file: it is another encoder's afterwards, and is not used. */
TEST(files)
{
    enum { MANY = 1100 };
    fixture f;
    lore_error err = {0};
    fix_init(&f, "files");
    fix_open(&f, true);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    for (int i = 0; i < MANY; i++) {
        char id[32];
        snprintf(id, sizeof id, "d%d", i);
        CHECK_OK(
            fix_put(f.index, "default", id, "one berth", "", 1, (uint64_t)(100 + i), NULL, &err),
            &err);
    }
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    int64_t generation = 0;
    CHECK_OK(
        lore_db_number(f.index->writer, "SELECT generation FROM collections", &generation, &err),
        &err);
    CHECK_INT(generation, 1);
    close_index(&f);
    open_as(&f, true, NULL, 0);
    begin(&f, MANY, MANY);
    while (put_some(&f, CHUNKS) > 0) {
    }
    CHECK_OK(lore_reembed_exchange(f.index, &err), &err);
    close_index(&f);
    open_as(&f, true, "encoder-2", NEW_DIM);
    check_new(&f, 1);
    check_new(&f, MANY);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    check_new(&f, MANY / 2);
    fix_destroy(&f);
}

CHECK_MAIN(exchange, files)
