/* What changes in folders is told once, as a walk spells it; what cannot be told is everything. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/file.h"
#include "ingest/folder_watch.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    char folder[256];
    lore_config config;
    lore_folder_watch *watch;
    lore_arena arena;
    lore_folder_changes changes;
    int64_t patience_ns; /* when waiting is given up */
} fixture;

static bool is_late(void *self)
{
    return lore_deadline_passed(((fixture *)self)->patience_ns);
}

static void make_file(const fixture *f, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK(fputs("text", file) >= 0);
    CHECK_INT(fclose(file), 0);
}

static void make_folder(const fixture *f, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    CHECK_INT(mkdir(path, 0755), 0);
}

static void move(const fixture *f, const char *from, const char *to)
{
    char a[512], b[512];
    snprintf(a, sizeof a, "%s/%s", f->folder, from);
    snprintf(b, sizeof b, "%s/%s", f->folder, to);
    CHECK_INT(rename(a, b), 0);
}

static void begin(fixture *f, const char *const *paths, int32_t count)
{
    lore_error err = {0};
    lore_config_default(&f->config);
    lore_arena_init(&f->arena, 0);
    lore_source_options options = {.paths = paths, .path_count = count};
    CHECK_OK(lore_folder_watch_open(&options, &f->config.limits, &f->watch, &err), &err);
}

static void end(fixture *f)
{
    lore_folder_watch_close(f->watch);
    lore_arena_destroy(&f->arena);
}

static lore_status next(fixture *f, int64_t patience_ms, lore_error *err)
{
    const lore_interrupt interrupt = {is_late, f};
    f->patience_ns = lore_clock_ns() + patience_ms * 1000000;
    return lore_folder_watch_next(f->watch, &interrupt, &f->arena, &f->changes, err);
}

/* The paths of the next changes, without the folder, joined by blanks. */
static void check_next(fixture *f, const char *wanted)
{
    lore_error err = {0};
    lore_buf told;
    lore_buf_init(&told, 0);
    CHECK_OK(next(f, 10000, &err), &err);
    CHECK(!f->changes.is_everything);
    for (int32_t i = 0; i < f->changes.count; i++) {
        const char *path = f->changes.paths[i];
        CHECK(strncmp(path, f->folder, strlen(f->folder)) == 0);
        lore_buf_printf(&told, "%s%s", i > 0 ? " " : "", path + strlen(f->folder) + 1);
    }
    CHECK_STR(lore_buf_str(&told), wanted);
    lore_buf_destroy(&told);
}

static void check_quiet(fixture *f)
{
    lore_error err = {0};
    CHECK_FAILS(next(f, 250, &err), LORE_ERR_CANCELLED, &err, "");
}

TEST(tells)
{
    fixture f = {0};
    lore_error err = {0};
    snprintf(f.folder, sizeof f.folder, "%s/tells", check_temp_dir());
    CHECK_OK(lore_dir_make(f.folder, &err), &err);
    char with_slash[300];
    snprintf(with_slash, sizeof with_slash, "%s//", f.folder);
    const char *paths[] = {with_slash};
    make_folder(&f, "a");
    begin(&f, paths, 1);
    check_quiet(&f);
    make_file(&f, "a/x.md");
    make_file(&f, "a/x.md");
    make_file(&f, "z.md");
    make_file(&f, ".hidden");
    check_next(&f, "a/x.md z.md");
    check_quiet(&f);
    /* What lies below a changed folder goes with it; "a-b" is not below "a". */
    make_folder(&f, "a/new");
    make_file(&f, "a/new/y.md");
    make_file(&f, "a-b");
    check_next(&f, "a/new a-b");
    /* A moved folder is known by its new name only. */
    move(&f, "a", "b");
    check_next(&f, "a b");
    make_file(&f, "b/new/y.md");
    check_next(&f, "b/new/y.md");
    move(&f, "b/new", "../tells/c");
    make_file(&f, "c/y.md");
    check_next(&f, "b/new c");
    make_folder(&f, ".git");
    make_file(&f, ".git/index");
    check_quiet(&f);
    end(&f);
}

/* A named file is watched through its folder, hidden or not; its neighbours are not its business.
 */
TEST(files)
{
    fixture f = {0};
    lore_error err = {0};
    char path[300];
    snprintf(f.folder, sizeof f.folder, "%s/files", check_temp_dir());
    CHECK_OK(lore_dir_make(f.folder, &err), &err);
    make_file(&f, ".one");
    snprintf(path, sizeof path, "%s/.one", f.folder);
    const char *paths[] = {path, "/no/such/file"};
    begin(&f, paths, 1);
    make_file(&f, "two.md");
    make_file(&f, ".one2");
    check_quiet(&f);
    make_file(&f, "saved");
    move(&f, "saved", ".one");
    check_next(&f, ".one");
    end(&f);
    lore_folder_watch *none = NULL;
    lore_source_options options = {.paths = paths, .path_count = 2};
    CHECK_FAILS(lore_folder_watch_open(&options, &f.config.limits, &none, &err), LORE_ERR_NOT_FOUND,
                &err, "/no/such/file");
}

TEST(everything)
{
    fixture f = {0};
    lore_error err = {0};
    char away[300], name[32];
    snprintf(f.folder, sizeof f.folder, "%s/everything", check_temp_dir());
    CHECK_OK(lore_dir_make(f.folder, &err), &err);
    const char *paths[] = {f.folder};
    begin(&f, paths, 1);
    /* More than fits into the list. */
    for (int i = 0; i < 4200; i++) {
        snprintf(name, sizeof name, "%d.md", i);
        make_file(&f, name);
    }
    CHECK_OK(next(&f, 20000, &err), &err);
    CHECK(f.changes.is_everything);
    make_file(&f, "after.md");
    check_next(&f, "after.md");
    /* A root that goes, and comes back. */
    snprintf(away, sizeof away, "%s-away", f.folder);
    CHECK_INT(rename(f.folder, away), 0);
    CHECK_OK(next(&f, 10000, &err), &err);
    CHECK(f.changes.is_everything);
    check_quiet(&f);
    CHECK_INT(rename(away, f.folder), 0);
    CHECK_OK(next(&f, 10000, &err), &err);
    CHECK(f.changes.is_everything);
    make_file(&f, "again.md");
    check_next(&f, "again.md");
    end(&f);
}

TEST(without_memory)
{
    fixture f = {0};
    lore_error err = {0};
    snprintf(f.folder, sizeof f.folder, "%s/memory", check_temp_dir());
    CHECK_OK(lore_dir_make(f.folder, &err), &err);
    make_folder(&f, "a");
    lore_config_default(&f.config);
    const char *paths[] = {f.folder};
    const lore_source_options options = {.paths = paths, .path_count = 1};
    lore_status status = LORE_ERR_NOMEM;
    for (int64_t n = 1; status != LORE_OK; n++) {
        lore_folder_watch *watch = NULL;
        lore_mem_fail_at(n, false);
        status = lore_folder_watch_open(&options, &f.config.limits, &watch, &err);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
        CHECK(n < 100);
        lore_folder_watch_close(watch);
    }
}

CHECK_MAIN(tells, files, everything, without_memory)
