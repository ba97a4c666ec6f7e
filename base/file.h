/* Files: capped reads, maps, atomic replacement, locks, content hashes. Fault injection for tests
 * sits here too.
 *
 * Errors name the path. Thread: any. */
#ifndef LORE_BASE_FILE_H
#define LORE_BASE_FILE_H

#include "base/str.h"

/* Read a whole regular file into out (appended). Over max_bytes or the buffer's cap:
 * LORE_ERR_LIMIT. Directories, devices: LORE_ERR_INVALID. After a failure out holds a part of the
 * file. */
LORE_MUST_USE lore_status lore_file_read(const char *path, size_t max_bytes, lore_buf *out,
                                         lore_error *err);
/* Read a descriptor to its end, likewise. name is for messages. */
LORE_MUST_USE lore_status lore_file_read_fd(int fd, const char *name, size_t max_bytes,
                                            lore_buf *out, lore_error *err);

typedef struct lore_map {
    const uint8_t *ptr;
    size_t size_bytes;
} lore_map;
/* Read-only; an empty file gives a NULL ptr. */
LORE_MUST_USE lore_status lore_map_open(const char *path, lore_map *map, lore_error *err);
void lore_map_close(lore_map *map);
/* What has been read of it need not stay in memory; reading on brings it back. */
void lore_map_drop(const lore_map *map);

/* Write beside, fsync, rename, fsync the folder: after LORE_OK the file holds exactly data, before
 * it the old content. */
LORE_MUST_USE lore_status lore_file_replace(const char *path, lore_str data, lore_error *err);
/* The same in steps for large files: begin gives a descriptor of "path.tmp", commit does the rest,
 * abort removes it. */
LORE_MUST_USE lore_status lore_file_begin(const char *path, int *fd, lore_error *err);
LORE_MUST_USE lore_status lore_file_write(int fd, const char *path, const void *data,
                                          size_t size_bytes, lore_error *err);
/* Closes fd in every case. */
LORE_MUST_USE lore_status lore_file_commit(int fd, const char *path, lore_error *err);
void lore_file_abort(int fd, const char *path);

/* With parents, each made durable; an existing folder is fine. */
LORE_MUST_USE lore_status lore_dir_make(const char *path, lore_error *err);
bool lore_file_exists(const char *path);
bool lore_file_is_dir(const char *path);
int64_t lore_file_mtime_ms(const char *path); /* -1: none */
/* Names in a folder, sorted bytewise, without "." and ".."; in the arena. */
LORE_MUST_USE lore_status lore_dir_list(lore_arena *arena, const char *path, size_t max_names,
                                        lore_str **names, size_t *count, lore_error *err);

/* An advisory lock on path (created). LORE_ERR_BUSY when another process holds it; holder then has
 * its content. */
LORE_MUST_USE lore_status lore_file_lock(const char *path, int *fd, lore_buf *holder,
                                         lore_error *err);
/* Replace the content. */
LORE_MUST_USE lore_status lore_file_lock_note(int fd, lore_str content, lore_error *err);
void lore_file_unlock(int fd); /* -1 is fine */

/* SHA-256 (FIPS 180-4): content identity of documents and fingerprints of models. */
typedef struct lore_sha256 {
    uint32_t state[8];
    uint64_t size_bytes;
    uint8_t block[64];
} lore_sha256;
void lore_sha256_init(lore_sha256 *sha);
void lore_sha256_update(lore_sha256 *sha, lore_str data);
void lore_sha256_final(lore_sha256 *sha, uint8_t digest[32]);
void lore_sha256_hex(const uint8_t digest[32], char hex[65]);

/* Tests: the n-th write, fsync or rename of this module from now fails with EIO; 0 off. */
typedef enum lore_file_op {
    LORE_FILE_OP_WRITE,
    LORE_FILE_OP_FSYNC,
    LORE_FILE_OP_RENAME
} lore_file_op;
void lore_file_fail_at(lore_file_op op, int64_t n);

#endif
