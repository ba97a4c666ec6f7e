/* Bringing a folder forward, mending one, backing up and restoring, with every allocation, every
 * call on a file and every thread start failing in turn: it is done or it is not, nothing that was
 * there is lost, and the next attempt succeeds (sweep.h). */
#include "tests/fault/sweep.h"

#include "index/backup.h"
#include "index/fsck.h"
#include "tests/fault/index_check.h"
#include "tests/unit/format_fixture.h"
#include "tests/unit/index_fixture.h"

typedef struct repair_life {
    fixture f, other; /* other: where a backup is restored to */
    char pristine[256], file[300];
} repair_life;

/* ---- where it begins ---- */

static void begin_life(repair_life *life, const char *name)
{
    char other[64];
    memset(life, 0, sizeof *life);
    snprintf(other, sizeof other, "%s-other", name);
    fix_init(&life->f, name);
    fix_init(&life->other, other);
    snprintf(life->pristine, sizeof life->pristine, "%.200s-pristine", life->f.folder);
    snprintf(life->file, sizeof life->file, "%.200s.backup", life->f.folder);
}

static void make_documents(repair_life *life)
{
    fix_open(&life->f, true);
    for (int i = 0; i < 3; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        fix_put_one(life->f.index, "default", id, "words of a document, enough for its chunks", "",
                    5, (uint64_t)i * 10 + 1);
    }
    fix_close(&life->f);
}

static void run_sql(const repair_life *life, const char *sql)
{
    lore_error err;
    lore_db *db = NULL;
    char path[400];
    snprintf(path, sizeof path, "%s/lore.db", life->f.folder);
    CHECK_OK(lore_dir_make(life->f.folder, &err), &err);
    CHECK_OK(lore_db_open(path, true, &db, &err), &err);
    CHECK_OK(lore_db_exec(db, sql, &err), &err);
    lore_db_close(db);
}

static void keep_pristine(const repair_life *life)
{
    CHECK(rename(life->f.folder, life->pristine) == 0);
}

static void start_over(void *self)
{
    repair_life *life = self;
    sweep_remove_folder(life->f.folder);
    sweep_remove_folder(life->other.folder);
    sweep_copy_folder(life->pristine, life->f.folder);
}

static int32_t check_whole(fixture *f, int64_t documents)
{
    static const char *const sql = "SELECT count(*) FROM documents";
    lore_error err;
    int64_t count = 0;
    fix_open(f, true);
    int32_t problems = index_check_all(f->index);
    CHECK_OK(lore_db_number(f->index->writer, sql, &count, &err), &err);
    fix_close(f);
    return problems + (count != documents);
}

/* ---- bringing forward ---- */

static lore_status upgrade(void *self, lore_error *err)
{
    repair_life *life = self;
    lore_status status = fix_try_open(&life->f, true, "encoder-1", err);
    fix_close(&life->f);
    return status;
}

static int32_t check_upgrade(void *self, lore_status status)
{
    repair_life *life = self;
    lore_error err;
    lore_status read = fix_try_open(&life->f, false, "encoder-1", &err);
    fix_close(&life->f);
    bool is_right = read == LORE_OK || (status != LORE_OK && read == LORE_ERR_UNSUPPORTED);
    return !is_right + check_whole(&life->f, 1);
}

/* ---- mending ---- */

static lore_status mend(void *self, lore_error *err)
{
    repair_life *life = self;
    lore_arena arena;
    lore_fsck_report report;
    const lore_fsck_options options = {&life->f.config, life->f.backend, true};
    lore_arena_init(&arena, 0);
    lore_status status = lore_fsck(life->f.folder, &options, &arena, &report, err);
    lore_arena_destroy(&arena);
    return status;
}

static int32_t check_mend(void *self, lore_status status)
{
    repair_life *life = self;
    lore_arena arena;
    lore_error err;
    lore_fsck_report report = {0};
    const lore_fsck_options options = {&life->f.config, life->f.backend, false};
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_fsck(life->f.folder, &options, &arena, &report, &err), &err);
    int32_t left = report.count;
    lore_arena_destroy(&arena);
    if (status != LORE_OK) {
        return 0; /* damaged as before, or mended: the next attempt must succeed */
    }
    return left + check_whole(&life->f, 3);
}

/* ---- backup and restore ---- */

static const lore_backup_options nothing_to_see = {0};

static lore_status back_up(void *self, lore_error *err)
{
    repair_life *life = self;
    lore_backup_info info;
    return lore_backup(life->f.folder, life->file, &nothing_to_see, &info, err);
}

static int32_t check_backup(void *self, lore_status status)
{
    repair_life *life = self;
    lore_error err;
    lore_backup_info info = {0};
    int32_t problems = check_whole(&life->f, 3);
    if (status == LORE_OK || lore_file_exists(life->file)) { /* what was there or what came */
        sweep_remove_folder(life->other.folder);
        CHECK_OK(lore_restore(life->file, life->other.folder, &nothing_to_see, &info, &err), &err);
        problems += check_whole(&life->other, 3);
    }
    return problems;
}

static lore_status restore(void *self, lore_error *err)
{
    repair_life *life = self;
    lore_backup_info info;
    sweep_remove_folder(life->other.folder);
    return lore_restore(life->file, life->other.folder, &nothing_to_see, &info, err);
}

static int32_t check_restore(void *self, lore_status status)
{
    repair_life *life = self;
    char path[400];
    snprintf(path, sizeof path, "%s/lore.db", life->other.folder);
    return status == LORE_OK ? check_whole(&life->other, 3) : lore_file_exists(path);
}

/* ---- the cases ---- */

/* Each run waits for the disk: fewer samples than elsewhere, except where all are taken. */
static int64_t next_sample(int64_t n)
{
    return n + (SWEEP_IS_FULL || n < 2 ? 1 : 3 * n);
}

static void sweep_both(repair_life *life, sweep s)
{
    sweep files = s, memory = s;
    files.self = memory.self = life;
    files.next = memory.next = next_sample;
    sweep_files(&files);
    sweep_allocations(&memory);
    fix_destroy(&life->f);
    fix_destroy(&life->other);
}

TEST(bringing_forward)
{
    static repair_life life;
    begin_life(&life, "forward");
    run_sql(&life, format_1);
    keep_pristine(&life);
    sweep_both(&life, (sweep){.name = "bringing forward",
                              .prepare = start_over,
                              .run = upgrade,
                              .check = check_upgrade});
}

TEST(mending)
{
    static repair_life life;
    begin_life(&life, "mending");
    make_documents(&life);
    run_sql(&life, "UPDATE collections SET documents=9; DELETE FROM vectors WHERE chunk=3; INSERT "
                   "INTO text_1(rowid, title, heading, body) VALUES(99, 'a', 'b', 'c')");
    keep_pristine(&life);
    sweep_both(&life,
               (sweep){.name = "mending", .prepare = start_over, .run = mend, .check = check_mend});
}

TEST(backing_up)
{
    static repair_life life;
    begin_life(&life, "backup");
    make_documents(&life);
    keep_pristine(&life);
    sweep_both(&life, (sweep){.name = "backing up",
                              .prepare = start_over,
                              .run = back_up,
                              .check = check_backup});
}

TEST(restoring)
{
    static repair_life life;
    lore_error err;
    begin_life(&life, "restore");
    make_documents(&life);
    CHECK_OK(back_up(&life, &err), &err);
    keep_pristine(&life);
    sweep_both(&life, (sweep){.name = "restoring",
                              .prepare = start_over,
                              .run = restore,
                              .check = check_restore});
}

CHECK_MAIN(bringing_forward, mending, backing_up, restoring)
