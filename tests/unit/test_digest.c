/* The digest of a folder depends on what it holds, all of it, and on nothing of how it came there.
 */
#include "index/digest.h"
#include "tests/unit/index_fixture.h"

static lore_digest digest_of(const fixture *f)
{
    lore_error err;
    lore_digest digest;
    CHECK_OK(lore_digest_folder(f->folder, &f->config, &digest, &err), &err);
    return digest;
}

static void put(fixture *f, const char *collection, int number)
{
    char id[32], text[600];
    snprintf(id, sizeof id, "d%d", number);
    snprintf(text, sizeof text,
             "Document number %d speaks of berths and of 船隻航行, at some length, so that it can "
             "be cut "
             "into pieces, each of which has a few words of its own, and more than one of them.",
             number);
    fix_put_one(f->index, collection, id, text, "{\"k\":1}", 1 + number % 40,
                (uint64_t)number * 1000);
}

/* Another order, documents that were replaced, others that went, a collection made earlier. */
TEST(order_and_history)
{
    fixture one, two;
    lore_error err;
    fix_init(&one, "one");
    fix_init(&two, "two");
    one.config.ann_min_vectors = two.config.ann_min_vectors = 1000; /* lists are part of it */
    fix_open(&one, true);
    fix_open(&two, true);
    CHECK_OK(lore_index_create_collection(one.index, LORE_STR("b"), &err), &err);
    CHECK_OK(lore_index_create_collection(one.index, LORE_STR("a"), &err), &err);
    CHECK_OK(lore_index_create_collection(two.index, LORE_STR("a"), &err), &err);
    CHECK_OK(lore_index_create_collection(two.index, LORE_STR("b"), &err), &err);
    for (int i = 0; i < 60; i++) {
        put(&one, i % 5 == 0 ? "b" : "default", i);
    }
    fix_put_one(two.index, "default", "gone", "it will go", "", 3, 5);
    fix_put_one(two.index, "default", "d7", "other words for now", "", 2, 9);
    for (int i = 59; i >= 0; i--) {
        int number = i * 7 % 60;
        put(&two, number % 5 == 0 ? "b" : "default", number);
        if (i == 30) {
            CHECK_OK(lore_index_publish(two.index, &err), &err);
        }
    }
    fix_delete_one(two.index, "default", "gone");
    lore_digest a = digest_of(&one), b = digest_of(&two);
    CHECK_STR(lore_str_from(a.whole), b.whole);
    CHECK_INT(a.documents, 60);
    CHECK_INT(a.chunks, b.chunks);
    CHECK_INT(a.collections, 3);
    CHECK(a.chunks > 1000);
    fix_close(&two);
    lore_digest later = digest_of(&two); /* nobody has it open */
    CHECK_STR(lore_str_from(later.whole), a.whole);
    fix_destroy(&one);
    fix_destroy(&two);
}

/* Each of these is a difference, and the part that has it says so. */
TEST(differences)
{
    static const struct {
        const char *sql;
        bool parts[LORE_DIGEST_PARTS];
    } changes[] = {
        {"UPDATE documents SET metadata='{\"k\":2}' WHERE id=1", {true, false, false, false}},
        {"UPDATE documents SET title='Other' WHERE id=1", {true, false, false, true}},
        {"UPDATE texts SET runs=zeroblob(12) WHERE document=2", {true, false, false, false}},
        {"INSERT INTO pages VALUES(1, zeroblob(4))", {true, false, false, false}},
        {"UPDATE chunks SET end=end-4 WHERE id=1", {false, true, false, true}},
        {"UPDATE chunks SET heading='x' WHERE id=1", {false, true, false, true}},
        {"UPDATE vectors SET data=(SELECT data FROM vectors WHERE chunk=2) WHERE chunk=1",
         {false, false, true, true}},
        {"UPDATE collections SET name='other'", {true, true, true, true}},
        {"UPDATE documents SET id=77, updated_ms=7 WHERE id=1; UPDATE texts SET document=77 WHERE "
         "document=1; UPDATE chunks SET document=77 WHERE document=1",
         {false, false, false, false}},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        fixture f;
        lore_error err;
        char name[32];
        snprintf(name, sizeof name, "change-%zu", i);
        fix_init(&f, name);
        fix_open(&f, true);
        put(&f, "default", 3);
        put(&f, "default", 5);
        lore_digest before = digest_of(&f);
        CHECK_OK(lore_db_exec(f.index->writer, changes[i].sql, &err), &err);
        lore_digest after = digest_of(&f);
        bool is_other = false;
        for (int part = 0; part < LORE_DIGEST_PARTS; part++) {
            bool differs = strcmp(before.parts[part], after.parts[part]) != 0;
            if (differs != changes[i].parts[part]) {
                CHECK_STOP("'%s': part %d %s", changes[i].sql, part,
                           differs ? "differs" : "does not");
            }
            is_other = is_other || differs;
        }
        CHECK_INT(strcmp(before.whole, after.whole) != 0, is_other);
        fix_destroy(&f);
    }
}

TEST(refused)
{
    fixture f;
    lore_error err;
    lore_digest digest;
    fix_init(&f, "refused");
    CHECK_FAILS(lore_digest_folder(f.folder, &f.config, &digest, &err), LORE_ERR_NOT_FOUND, &err,
                "holds no index");
    fix_open(&f, true);
    put(&f, "default", 3);
    CHECK_OK(lore_db_exec(f.index->writer, "DELETE FROM texts", &err), &err);
    CHECK_FAILS(lore_digest_folder(f.folder, &f.config, &digest, &err), LORE_ERR_CORRUPT, &err,
                "lore fsck");
    fix_destroy(&f);
}

CHECK_MAIN(order_and_history, differences, refused)
