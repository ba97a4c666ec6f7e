/* Views: advancing commit by commit and loading at once give the same vectors; rows that do not fit
 * are refused. */
#include "base/log.h"
#include "tests/unit/index_fixture.h"

/* All live rows of a view in one segment. */
static lore_segment *flatten(const lore_vectors *view)
{
    lore_error err;
    lore_segment *flat = NULL;
    CHECK_OK(lore_parts_merge(view->parts, view->part_count, FIX_DIM, &flat, &err), &err);
    return flat;
}

static void check_same(const lore_segment *a, const lore_segment *b)
{
    CHECK_INT(a->count, b->count);
    CHECK(memcmp(a->ids, b->ids, (size_t)a->count * sizeof(int64_t)) == 0);
    CHECK(memcmp(a->lengths, b->lengths, (size_t)a->count * sizeof(int32_t)) == 0);
    CHECK(memcmp(a->scales, b->scales, (size_t)a->count * sizeof(float)) == 0);
    CHECK(memcmp(a->rows, b->rows, (size_t)a->count * FIX_DIM) == 0);
}

TEST(advanced_is_loaded)
{
    fixture f;
    lore_error err;
    char id[16];
    uint64_t state = 5;
    fix_init(&f, "advanced");
    fix_open(&f, true);
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA synchronous=OFF", &err), &err);
    for (int i = 0; i < 150; i++) {
        snprintf(id, sizeof id, "d%d", (int)(lore_random_next(&state) % 60));
        fix_put_one(f.index, "default", id, "several words of text, enough for eight chunks", "",
                    1 + (int32_t)(lore_random_next(&state) % 8), lore_random_next(&state) >> 8);
        if (i % 40 == 39) {
            lore_segment *advanced = flatten(f.index->current->views[0]);
            fix_close(&f);
            fix_open(&f, true);
            lore_segment *loaded = flatten(f.index->current->views[0]);
            check_same(advanced, loaded);
            lore_segment_release(advanced);
            lore_segment_release(loaded);
        }
    }
    fix_destroy(&f);
}

/* Each live chunk is found once, where it is; dead ones are not. */
TEST(finding)
{
    fixture f;
    int64_t row = 0;
    fix_init(&f, "finding");
    fix_open(&f, true);
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        fix_put_one(f.index, "default", id, "text", "", 2, (uint64_t)i * 10 + 1);
    }
    fix_delete_one(f.index, "default", "d3");
    const lore_vectors *view = f.index->current->views[0];
    for (int64_t chunk = 1; chunk <= 40; chunk++) {
        const lore_part *part = lore_vectors_find(view, chunk, &row);
        bool is_dead = chunk == 7 || chunk == 8;
        CHECK((part == NULL) == is_dead);
        CHECK(part == NULL || part->segment->ids[row] == chunk);
    }
    CHECK(lore_vectors_find(view, 41, &row) == NULL);
    CHECK(lore_vectors_find(view, 0, &row) == NULL);
    CHECK_INT(lore_vectors_live(view), 38);
    fix_destroy(&f);
}

/* A vector of another length in the database is damage, not a read past its end. */
TEST(damaged_vector)
{
    fixture f;
    lore_error err;
    fix_init(&f, "damaged");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "text", "", 2, 1);
    CHECK_OK(lore_db_exec(f.index->writer, "UPDATE vectors SET data=x'0000' WHERE chunk=2", &err),
             &err);
    fix_close(&f);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_CORRUPT, &err,
                "the vector of chunk 2 has 2 bytes");
    fix_destroy(&f);
}

CHECK_MAIN(advanced_is_loaded, finding, damaged_vector)
