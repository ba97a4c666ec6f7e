/* Backups: copy beside, check, sync, rename. */
#include "index/backup.h"

#include "index/backup_int.h"
#include "index/fsck_int.h"
#include "index/schema_int.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nothing that a copy's folder will not have: files are made anew, the dead are gone. */
static const char forget_files[] =
    "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; BEGIN; DELETE FROM deletions;"
    "UPDATE collections SET generation=0, base_sequence=0, base_chunk=0, vec_count=0, "
    "vec_checksum=0, ann_size=NULL, ann_checksum=NULL; COMMIT; PRAGMA journal_mode=DELETE";

static lore_status count_rows(lore_db *db, const char *path, lore_backup_info *info,
                              lore_error *err)
{
    static const char *const collections = "SELECT count(*) FROM collections";
    static const char *const documents = "SELECT ifnull(sum(documents), 0) FROM collections";
    static const char *const chunks = "SELECT ifnull(sum(chunks), 0) FROM collections";
    struct stat about;
    lore_status status = lore_db_number(db, collections, &info->collections, err);
    if (status == LORE_OK) {
        status = lore_db_number(db, documents, &info->documents, err);
    }
    if (status == LORE_OK) {
        status = lore_db_number(db, chunks, &info->chunks, err);
    }
    info->size_bytes = stat(path, &about) == 0 ? (int64_t)about.st_size : 0;
    return status;
}

/* Is the file a whole index of a format that we know? */
static lore_status check_copy(const char *path, lore_backup_info *info, lore_error *err)
{
    lore_db *db = NULL;
    int64_t format = 0;
    lore_status status = lore_db_open(path, false, &db, err);
    if (status == LORE_OK) {
        status = lore_schema_read(path, db, &format, err);
    }
    if (status == LORE_OK && format == 0) {
        status = lore_fail(err, LORE_ERR_CORRUPT, "'%s' is no backup of an index", path);
    }
    if (status == LORE_OK) {
        status = lore_fsck_brief(path, db, format == lore_schema_format(), err);
    }
    if (status == LORE_OK) {
        status = count_rows(db, path, info, err);
    }
    lore_db_close(db);
    return status;
}

/* From a database that is open to `path`, which appears whole or not at all. */
static lore_status copy_whole(lore_db *db, const char *path, const lore_backup_options *options,
                              lore_backup_info *info, lore_error *err)
{
    char temporary[LORE_INDEX_PATH_CAP];
    int fd = -1, length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof temporary) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", path);
    }
    lore_status status = lore_file_begin(path, &fd, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_db_copy(db, temporary, forget_files, options, err);
    if (status == LORE_OK) {
        status = check_copy(temporary, info, err);
    }
    if (status == LORE_OK) {
        return lore_file_commit(fd, path, err);
    }
    lore_file_abort(fd, path);
    return status;
}

lore_status lore_backup(const char *folder, const char *file, const lore_backup_options *options,
                        lore_backup_info *info, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_db *db = NULL;
    lore_backup_info made = {0};
    int length = snprintf(path, sizeof path, "%s/lore.db", folder);
    if (length < 0 || (size_t)length >= sizeof path) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", folder);
    }
    if (!lore_file_exists(path)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "'%s' holds no index (no lore.db)", folder);
    }
    lore_status status = lore_db_open(path, false, &db, err);
    if (status == LORE_OK) {
        status = lore_schema_check(path, db, err);
    }
    if (status == LORE_OK) {
        status = copy_whole(db, file, options, &made, err);
    }
    lore_db_close(db);
    if (status == LORE_OK) {
        *info = made;
    }
    return status;
}

/* A log without its database would be read into the one that comes. */
static lore_status check_is_free(const char *folder, lore_error *err)
{
    static const char *const names[] = {"lore.db", "lore.db-wal"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[LORE_INDEX_PATH_CAP];
        int length = snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (length < 0 || (size_t)length >= sizeof path) {
            return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", folder);
        }
        if (lore_file_exists(path)) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "'%s' is there already: restore into another folder, or move it away",
                             path);
        }
    }
    return LORE_OK;
}

static lore_status restore_held(const char *file, const char *folder,
                                const lore_backup_options *options, lore_backup_info *info,
                                lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_db *db = NULL;
    lore_status status = check_is_free(folder, err);
    if (status != LORE_OK) {
        return status;
    }
    snprintf(path, sizeof path, "%s/lore.db", folder);
    status = lore_db_open(file, false, &db, err);
    if (status == LORE_OK) {
        status = copy_whole(db, path, options, info, err);
    }
    lore_db_close(db);
    if (status != LORE_OK) {
        (void)unlink(path); /* it may have its name already, and not durably */
    }
    return status;
}

lore_status lore_restore(const char *file, const char *folder, const lore_backup_options *options,
                         lore_backup_info *info, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_buf holder;
    lore_backup_info made = {0};
    int lock = -1;
    if (!lore_file_exists(file)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "no file '%s'", file);
    }
    lore_status status = check_copy(file, &made, err); /* before anything is made */
    if (status == LORE_OK) {
        status = lore_dir_make(folder, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    int length = snprintf(path, sizeof path, "%s/lock", folder);
    if (length < 0 || (size_t)length >= sizeof path) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", folder);
    }
    lore_buf_init(&holder, 0);
    status = lore_file_lock(path, &lock, &holder, err);
    lore_buf_destroy(&holder);
    if (status == LORE_OK) {
        status = restore_held(file, folder, options, &made, err);
    }
    lore_file_unlock(lock);
    if (status == LORE_OK) {
        *info = made;
    }
    return status;
}
