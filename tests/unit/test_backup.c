/* A backup holds one moment, whole, and becomes the same index elsewhere; what cannot be one is
 * refused, and a file that was there stays. */
#include "index/backup.h"
#include "index/fsck.h"
#include "tests/fault/index_check.h"
#include "tests/unit/index_fixture.h"

#include <unistd.h>

typedef struct places {
    fixture f, restored;
    char file[300];
} places;

static void begin(places *p, const char *name)
{
    char other[64];
    snprintf(other, sizeof other, "%s-restored", name);
    fix_init(&p->f, name);
    fix_init(&p->restored, other);
    snprintf(p->file, sizeof p->file, "%s.backup", p->f.folder);
    fix_open(&p->f, true);
    fix_put_one(p->f.index, "default", "a", "berth nine is free", "", 3, 1);
    fix_put_one(p->f.index, "default", "b", "the pilot waits", "", 2, 10);
    fix_delete_one(p->f.index, "default", "b");
}

static void end(places *p)
{
    fix_destroy(&p->f);
    fix_destroy(&p->restored);
}

static lore_status back_up(const places *p, const lore_backup_options *options,
                           lore_backup_info *info, lore_error *err)
{
    static const lore_backup_options none = {0};
    return lore_backup(p->f.folder, p->file, options == NULL ? &none : options, info, err);
}

static lore_status restore(const places *p, lore_backup_info *info, lore_error *err)
{
    static const lore_backup_options none = {0};
    return lore_restore(p->file, p->restored.folder, &none, info, err);
}

static bool commit_more(void *self, int64_t done, int64_t total)
{
    places *p = self;
    CHECK(done <= total);
    fix_put_one(p->f.index, "default", "late", "came too late", "", 1, 30);
    return true;
}

/* The writer goes on; what it commits once the copy has begun is not in it. */
TEST(one_moment)
{
    places p;
    lore_error err;
    lore_backup_info info = {0}, again = {0};
    int64_t chunks[4];
    begin(&p, "moment");
    const lore_backup_options options = {commit_more, &p};
    CHECK_OK(back_up(&p, &options, &info, &err), &err);
    CHECK_INT(info.documents, 1);
    CHECK_INT(info.chunks, 3);
    CHECK_INT(info.collections, 1);
    CHECK(info.size_bytes > 4096);
    CHECK_INT(fix_text(p.f.index, "default", "late", NULL, chunks, NULL, 4), 1);
    CHECK_OK(restore(&p, &again, &err), &err);
    CHECK_INT(again.documents, 1);
    CHECK_INT(again.size_bytes, info.size_bytes);
    fix_open(&p.restored, true);
    CHECK_INT(index_check_all(p.restored.index), 0);
    CHECK_INT(fix_text(p.restored.index, "default", "berth", NULL, chunks, NULL, 4), 1);
    CHECK_INT(fix_text(p.restored.index, "default", "late", NULL, chunks, NULL, 4), 0);
    CHECK_INT(fix_dense(p.restored.index, "default", 1, NULL, chunks, NULL, 4), 3);
    fix_put_one(p.restored.index, "default", "a", "life goes on", "", 1, 5);
    CHECK_INT(index_check_all(p.restored.index), 0);
    end(&p);
}

static bool stop(void *self, int64_t done, int64_t total)
{
    (void)self, (void)done, (void)total;
    return false;
}

/* Stopped or failed, the file that was there stays, and nothing lies beside it. */
TEST(refused)
{
    places p;
    lore_error err;
    lore_backup_info info = {0};
    char path[512];
    begin(&p, "refused");
    const lore_backup_options stopping = {stop, NULL};
    CHECK_FAILS(restore(&p, &info, &err), LORE_ERR_NOT_FOUND, &err, "no file");
    CHECK_OK(lore_file_replace(p.file, LORE_STR("kept"), &err), &err);
    CHECK_FAILS(restore(&p, &info, &err), LORE_ERR_CORRUPT, &err, "damaged");
    CHECK(!lore_file_exists(p.restored.folder));
    CHECK_OK(lore_db_exec(p.f.index->writer, /* more than is copied in one step */
                          "UPDATE texts SET runs=zeroblob(12000000)", &err),
             &err);
    CHECK_FAILS(back_up(&p, &stopping, &info, &err), LORE_ERR_CANCELLED, &err, "stopped");
    CHECK_OK(lore_db_exec(p.f.index->writer, "DELETE FROM texts", &err), &err);
    CHECK_FAILS(back_up(&p, NULL, &info, &err), LORE_ERR_CORRUPT, &err, "without their text");
    lore_buf kept;
    lore_buf_init(&kept, 0);
    CHECK_OK(lore_file_read(p.file, 100, &kept, &err), &err);
    CHECK_STR(lore_buf_str(&kept), "kept");
    lore_buf_destroy(&kept);
    snprintf(path, sizeof path, "%s.tmp", p.file);
    CHECK(!lore_file_exists(path));
    snprintf(path, sizeof path, "%s-nowhere", p.f.folder);
    CHECK_FAILS(lore_backup(path, p.file, &stopping, &info, &err), LORE_ERR_NOT_FOUND, &err,
                "holds no index");
    end(&p);
}

/* Only into a folder without an index, held by nobody. */
TEST(restoring_over)
{
    places p;
    lore_error err;
    lore_backup_info info = {0};
    char path[512];
    begin(&p, "over");
    CHECK_OK(back_up(&p, NULL, &info, &err), &err);
    fix_open(&p.restored, true);
    CHECK_FAILS(restore(&p, &info, &err), LORE_ERR_BUSY, &err, "lock");
    fix_close(&p.restored);
    CHECK_FAILS(restore(&p, &info, &err), LORE_ERR_INVALID, &err, "lore.db' is there already");
    snprintf(path, sizeof path, "%s/lore.db", p.restored.folder);
    CHECK(unlink(path) == 0);
    snprintf(path, sizeof path, "%s/lore.db-wal", p.restored.folder);
    CHECK_OK(lore_file_replace(path, LORE_STR("x"), &err), &err);
    CHECK_FAILS(restore(&p, &info, &err), LORE_ERR_INVALID, &err, "lore.db-wal' is there already");
    CHECK(unlink(path) == 0);
    CHECK_OK(restore(&p, &info, &err), &err);
    end(&p);
}

/* Of an earlier format: restored as it is, and brought forward by the first writer. */
TEST(earlier_format)
{
    places p;
    lore_error err;
    lore_backup_info info = {0};
    lore_db *db = NULL;
    begin(&p, "earlier");
    CHECK_OK(back_up(&p, NULL, &info, &err), &err);
    CHECK_OK(lore_db_open(p.file, true, &db, &err), &err);
    CHECK_OK(lore_db_exec(db, "PRAGMA user_version=1000", &err), &err);
    CHECK_FAILS(restore(&p, &info, &err), LORE_ERR_UNSUPPORTED, &err, "a later version");
    CHECK_OK(lore_db_exec(db, "PRAGMA user_version=1", &err), &err);
    lore_db_close(db);
    CHECK_OK(restore(&p, &info, &err), &err);
    CHECK_INT(info.documents, 1);
    end(&p);
}

CHECK_MAIN(one_moment, refused, restoring_over, earlier_format)
