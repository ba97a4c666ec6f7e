/* The data folder and its writer: what was committed is there, what was refused or rolled back is
 * not. */
#include "tests/unit/index_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* What opening refuses, and in which words. */
TEST(opening)
{
    fixture f;
    lore_error err;
    char path[512];
    fix_init(&f, "opening");
    CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), LORE_ERR_NOT_FOUND, &err,
                "holds no index");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples", "", 1, 1);
    fix_close(&f);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-2", &err), LORE_ERR_INVALID, &err,
                "vectors of encoder 'encoder-1'");
    CHECK_FAILS(fix_try_open(&f, false, "encoder-2", &err), LORE_ERR_INVALID, &err, "'encoder-2'");
    CHECK_OK(fix_try_open(&f, false, NULL, &err), &err);
    fix_close(&f);
    fix_open(&f, true);
    fix_delete_one(f.index, "default", "a");
    fix_close(&f);
    CHECK_OK(fix_try_open(&f, true, "encoder-2", &err), &err); /* empty: another may take over */
    fix_close(&f);
    snprintf(path, sizeof path, "%s/lore.db", f.folder);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    for (int i = 0; i < 5000; i++) {
        fputs("this is no database ", file);
    }
    fclose(file);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_CORRUPT, &err, path);
    CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), LORE_ERR_CORRUPT, &err, path);
    fix_destroy(&f);
}

/* One process writes; others learn who it is. The child holds the folder until told to go. */
TEST(folder_lock)
{
    fixture f;
    lore_error err;
    lore_buf holder;
    int ready[2], leave[2];
    char byte = 0;
    lore_buf_init(&holder, 0);
    fix_init(&f, "lock");
    CHECK(pipe(ready) == 0 && pipe(leave) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (fix_try_open(&f, true, "encoder-1", &err) != LORE_OK || write(ready[1], "1", 1) != 1 ||
            read(leave[0], &byte, 1) != 1 ||
            lore_index_announce(f.index, LORE_STR("127.0.0.1:8080"), &err) != LORE_OK ||
            write(ready[1], "2", 1) != 1 || read(leave[0], &byte, 1) != 1) {
            _exit(1);
        }
        lore_index_close(f.index);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_BUSY, &err,
                "is held by process ");
    CHECK(write(leave[1], "1", 1) == 1 && read(ready[0], &byte, 1) == 1);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_BUSY, &err,
                "is held by 127.0.0.1:8080");
    CHECK_OK(lore_index_holder(f.folder, &holder, &err), &err);
    CHECK_STR(lore_buf_str(&holder), "127.0.0.1:8080");
    fix_open(&f, false); /* readers may come in */
    fix_close(&f);
    CHECK(write(leave[1], "1", 1) == 1);
    int code = 1;
    CHECK(waitpid(child, &code, 0) == child && code == 0);
    lore_buf_reset(&holder);
    CHECK_OK(lore_index_holder(f.folder, &holder, &err), &err);
    CHECK_STR(lore_buf_str(&holder), "");
    fix_open(&f, true);
    lore_buf_destroy(&holder);
    fix_destroy(&f);
}

CHECK_MAIN(opening, folder_lock)
