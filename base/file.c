/* Files: capped reads, maps, atomic replacement, folders and locks. SHA-256 is in sha256.c.
 *
 * Replacement is the one way the product changes a file in place: write "path.tmp", fsync it,
 * rename it over the path, fsync the folder. Before the rename a crash leaves the old content,
 * after it the new; the last fsync makes the rename itself durable. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024,
    HOLDER_BYTES_MAX = 4096, /* what a lock file may say about its holder */
    NAMES_FIRST = 64
};

/* ---- fault injection ---- */

enum { FILE_OPS = LORE_FILE_OP_RENAME + 1 };
static _Atomic int64_t failures[FILE_OPS]; /* operations until one fails, 0: none */

static bool op_must_fail(lore_file_op op)
{
    int64_t left = atomic_load_explicit(&failures[op], memory_order_relaxed);
    if (left > 0 && atomic_fetch_sub_explicit(&failures[op], 1, memory_order_relaxed) == 1) {
        errno = EIO;
        return true;
    }
    return false;
}

void lore_file_fail_at(lore_file_op op, int64_t n)
{
    LORE_ASSERT(n >= 0);
    atomic_store_explicit(&failures[op], n, memory_order_relaxed);
}

static ssize_t write_op(int fd, const void *data, size_t size_bytes)
{
    return op_must_fail(LORE_FILE_OP_WRITE) ? -1 : write(fd, data, size_bytes);
}

static int fsync_op(int fd)
{
    return op_must_fail(LORE_FILE_OP_FSYNC) ? -1 : fsync(fd);
}

static int rename_op(const char *from, const char *to)
{
    return op_must_fail(LORE_FILE_OP_RENAME) ? -1 : rename(from, to);
}

/* ---- reading ---- */

static lore_status fail_open(const char *path, lore_error *err)
{
    lore_status status = errno == ENOENT || errno == ENOTDIR ? LORE_ERR_NOT_FOUND : LORE_ERR_IO;
    return lore_fail(err, status, "cannot open '%s': %s", path, strerror(errno));
}

/* Open a regular file for reading. O_NONBLOCK so that a named pipe cannot hold us up; it means
 * nothing for regular files. */
static lore_status open_regular(const char *path, int *fd, struct stat *info, lore_error *err)
{
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (opened < 0) {
        return fail_open(path, err);
    }
    lore_status status = LORE_OK;
    if (fstat(opened, info) != 0) {
        status = lore_fail(err, LORE_ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    } else if (S_ISDIR(info->st_mode)) {
        status = lore_fail(err, LORE_ERR_INVALID, "cannot read '%s': it is a folder", path);
    } else if (!S_ISREG(info->st_mode)) {
        status = lore_fail(err, LORE_ERR_INVALID, "cannot read '%s': not a regular file", path);
    }
    if (status != LORE_OK) {
        close(opened);
        return status;
    }
    *fd = opened;
    return LORE_OK;
}

static lore_status fail_over_limit(const char *name, size_t max_bytes, lore_error *err)
{
    return lore_fail(err, LORE_ERR_LIMIT, "'%s' is larger than the limit of %zu bytes", name,
                     max_bytes);
}

lore_status lore_file_read(const char *path, size_t max_bytes, lore_buf *out, lore_error *err)
{
    int fd = -1;
    struct stat info;
    lore_status status = open_regular(path, &fd, &info, err);
    if (status != LORE_OK) {
        return status;
    }
    if ((uint64_t)info.st_size > max_bytes) {
        status = fail_over_limit(path, max_bytes, err);
    } else {
        /* One byte more than expected, so that the read that finds the end needs no growth. */
        size_t expected = (size_t)info.st_size;
        if (out->cap_bytes == 0 || expected < out->cap_bytes - out->len) {
            lore_buf_reserve(out, expected + 1);
        }
        status = lore_file_read_fd(fd, path, max_bytes, out, err);
    }
    close(fd);
    return status;
}

/* Space to read into: what is free in the buffer, at least one byte more than nothing. */
static size_t make_room(lore_buf *out)
{
    size_t free_bytes = out->room > out->len + 1 ? out->room - out->len - 1 : 0;
    if (free_bytes > 0) {
        return free_bytes;
    }
    size_t wanted = READ_BYTES;
    if (out->cap_bytes != 0 && wanted > out->cap_bytes - out->len) {
        wanted = out->cap_bytes - out->len;
    }
    return lore_buf_reserve(out, wanted) ? wanted : 0;
}

lore_status lore_file_read_fd(int fd, const char *name, size_t max_bytes, lore_buf *out,
                              lore_error *err)
{
    size_t total = 0;
    for (;;) {
        char probe;
        size_t room = make_room(out);
        if (lore_buf_failed(out)) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading '%s'", name);
        }
        /* A full buffer at its cap may still be at the end of the file: one byte will tell. */
        ssize_t got = read(fd, room > 0 ? out->ptr + out->len : &probe, room > 0 ? room : 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return lore_fail(err, LORE_ERR_IO, "cannot read '%s': %s", name, strerror(errno));
        }
        if (got == 0) {
            return LORE_OK;
        }
        if (room == 0) {
            return fail_over_limit(name, out->cap_bytes, err);
        }
        total += (size_t)got;
        if (total > max_bytes) {
            return fail_over_limit(name, max_bytes, err);
        }
        out->len += (size_t)got;
    }
}

lore_status lore_map_open(const char *path, lore_map *map, lore_error *err)
{
    int fd = -1;
    struct stat info;
    lore_status status = open_regular(path, &fd, &info, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_map made = {NULL, (size_t)info.st_size};
    if (made.size_bytes > 0) {
        void *memory = mmap(NULL, made.size_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (memory == MAP_FAILED) {
            status = lore_fail(err, errno == ENOMEM ? LORE_ERR_NOMEM : LORE_ERR_IO,
                               "cannot map '%s': %s", path, strerror(errno));
        } else {
            made.ptr = memory;
        }
    }
    close(fd);
    if (status == LORE_OK) {
        *map = made;
    }
    return status;
}

void lore_map_close(lore_map *map)
{
    if (map != NULL && map->ptr != NULL) {
        munmap((void *)(uintptr_t)map->ptr, map->size_bytes);
        *map = (lore_map){0};
    }
}

void lore_map_drop(const lore_map *map)
{
    if (map->ptr != NULL) {
        (void)madvise((void *)(uintptr_t)map->ptr, map->size_bytes, MADV_DONTNEED); /* advice */
    }
}

/* ---- writing ---- */

static lore_status temporary_path(const char *path, char out[PATH_MAX], lore_error *err)
{
    int length = snprintf(out, PATH_MAX, "%s.tmp", path);
    if (length < 0 || length >= PATH_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", path);
    }
    return LORE_OK;
}

/* The folder that a path lies in, "." where it names none. */
static void parent_path(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int length = slash == NULL ? 0 : slash == path ? 1 : (int)(slash - path);
    snprintf(out, PATH_MAX, "%.*s", length, path);
    if (length == 0) {
        snprintf(out, PATH_MAX, ".");
    }
}

/* A name is durable once the folder that holds it is synced. */
static lore_status sync_parent(const char *path, lore_error *err)
{
    char parent[PATH_MAX];
    parent_path(path, parent);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot open '%s': %s", parent, strerror(errno));
    }
    lore_status status = LORE_OK;
    if (fsync_op(fd) != 0) {
        status = lore_fail(err, LORE_ERR_IO, "cannot sync '%s': %s", parent, strerror(errno));
    }
    close(fd);
    return status;
}

lore_status lore_file_begin(const char *path, int *fd, lore_error *err)
{
    char temporary[PATH_MAX];
    lore_status status = temporary_path(path, temporary, err);
    if (status != LORE_OK) {
        return status;
    }
    int opened = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (opened < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot create '%s': %s", temporary, strerror(errno));
    }
    *fd = opened;
    return LORE_OK;
}

lore_status lore_file_write(int fd, const char *path, const void *data, size_t size_bytes,
                            lore_error *err)
{
    const char *at = data;
    while (size_bytes > 0) {
        ssize_t written = write_op(fd, at, size_bytes);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return lore_fail(err, LORE_ERR_IO, "cannot write '%s': %s", path, strerror(errno));
        }
        at += written;
        size_bytes -= (size_t)written;
    }
    return LORE_OK;
}

lore_status lore_file_commit(int fd, const char *path, lore_error *err)
{
    char temporary[PATH_MAX];
    lore_status status = temporary_path(path, temporary, err);
    LORE_ASSERT(status == LORE_OK); /* begin made the same one */
    if (fsync_op(fd) != 0) {
        status = lore_fail(err, LORE_ERR_IO, "cannot sync '%s': %s", temporary, strerror(errno));
    }
    if (close(fd) != 0 && status == LORE_OK) {
        status = lore_fail(err, LORE_ERR_IO, "cannot close '%s': %s", temporary, strerror(errno));
    }
    if (status == LORE_OK && rename_op(temporary, path) != 0) {
        status = lore_fail(err, LORE_ERR_IO, "cannot rename '%s' to '%s': %s", temporary, path,
                           strerror(errno));
    }
    if (status != LORE_OK) {
        unlink(temporary);
        return status;
    }
    return sync_parent(path, err);
}

void lore_file_abort(int fd, const char *path)
{
    char temporary[PATH_MAX];
    if (fd < 0) {
        return;
    }
    close(fd);
    if (temporary_path(path, temporary, NULL) == LORE_OK) {
        unlink(temporary);
    }
}

lore_status lore_file_replace(const char *path, lore_str data, lore_error *err)
{
    int fd = -1;
    lore_status status = lore_file_begin(path, &fd, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_file_write(fd, path, data.ptr, data.len, err);
    if (status != LORE_OK) {
        lore_file_abort(fd, path);
        return status;
    }
    return lore_file_commit(fd, path, err);
}

/* ---- folders ---- */

lore_status lore_dir_make(const char *path, lore_error *err)
{
    char partial[PATH_MAX];
    int length = snprintf(partial, sizeof partial, "%s", path);
    if (length <= 0 || length >= PATH_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "cannot create folder '%s': %s", path,
                         length == 0 ? "the path is empty" : "the path is too long");
    }
    for (int at = 1; at <= length; at++) {
        if (partial[at] != '/' && partial[at] != '\0') {
            continue;
        }
        char kept = partial[at];
        partial[at] = '\0';
        bool is_made = mkdir(partial, 0755) == 0;
        if (!is_made && errno != EEXIST) {
            return lore_fail(err, LORE_ERR_IO, "cannot create folder '%s': %s", partial,
                             strerror(errno));
        }
        lore_status status = is_made ? sync_parent(partial, err) : LORE_OK;
        if (status != LORE_OK) {
            rmdir(partial);
            return status;
        }
        partial[at] = kept;
    }
    if (!lore_file_is_dir(path)) {
        return lore_fail(err, LORE_ERR_IO, "cannot create folder '%s': a file has that name", path);
    }
    return LORE_OK;
}

bool lore_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool lore_file_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int64_t lore_file_mtime_ms(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        return -1;
    }
    return (int64_t)info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1000000;
}

static int compare_names(const void *a, const void *b)
{
    return lore_str_compare(*(const lore_str *)a, *(const lore_str *)b);
}

typedef struct name_list {
    lore_str *items; /* grows outside the arena, the names lie inside */
    size_t count;
    size_t cap;
} name_list;

static bool add_name(lore_arena *arena, name_list *list, const char *name)
{
    if (list->count == list->cap) {
        size_t cap = list->cap == 0 ? NAMES_FIRST : list->cap * 2;
        size_t size = 0;
        lore_str *grown =
            lore_size_mul(cap, sizeof *grown, &size) ? lore_realloc(list->items, size) : NULL;
        if (grown == NULL) {
            return false;
        }
        list->items = grown;
        list->cap = cap;
    }
    lore_str copy = lore_str_copy(arena, lore_str_from(name));
    list->items[list->count] = copy;
    list->count++;
    return copy.ptr != NULL;
}

static lore_status read_names(lore_arena *arena, DIR *folder, const char *path, size_t max_names,
                              name_list *list, lore_error *err)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL && errno != 0) {
            return lore_fail(err, LORE_ERR_IO, "cannot read folder '%s': %s", path,
                             strerror(errno));
        }
        if (entry == NULL) {
            return LORE_OK;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (list->count == max_names) {
            return lore_fail(err, LORE_ERR_LIMIT, "folder '%s' has more than %zu entries", path,
                             max_names);
        }
        if (!add_name(arena, list, entry->d_name)) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory listing '%s'", path);
        }
    }
}

lore_status lore_dir_list(lore_arena *arena, const char *path, size_t max_names, lore_str **names,
                          size_t *count, lore_error *err)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return fail_open(path, err);
    }
    name_list list = {0};
    lore_str *sorted = NULL;
    lore_status status = read_names(arena, folder, path, max_names, &list, err);
    closedir(folder);
    if (status == LORE_OK) {
        sorted = LORE_PUSH(arena, lore_str, list.count);
        if (sorted == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory listing '%s'", path);
        } else if (list.count > 0) {
            memcpy(sorted, list.items, list.count * sizeof *sorted);
            qsort(sorted, list.count, sizeof *sorted, compare_names);
        }
    }
    if (status == LORE_OK) {
        *names = sorted;
        *count = list.count;
    }
    lore_free(list.items);
    return status;
}

/* ---- locks ---- */

/* flock and not fcntl: it belongs to the open file, so that another descriptor of the same process
 * neither takes nor loses it. */
lore_status lore_file_lock(const char *path, int *fd, lore_buf *holder, lore_error *err)
{
    int opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (opened < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    }
    int locked;
    do {
        locked = flock(opened, LOCK_EX | LOCK_NB);
    } while (locked != 0 && errno == EINTR);
    if (locked == 0) {
        *fd = opened;
        return LORE_OK;
    }
    lore_status status = LORE_ERR_IO;
    if (errno == EWOULDBLOCK) {
        status = lore_fail(err, LORE_ERR_BUSY, "'%s' is locked by another process", path);
        if (holder != NULL &&
            lore_file_read_fd(opened, path, HOLDER_BYTES_MAX, holder, NULL) != LORE_OK) {
            lore_buf_reset(holder); /* the words are a courtesy: busy is the answer */
        }
    } else {
        lore_fail(err, status, "cannot lock '%s': %s", path, strerror(errno));
    }
    close(opened);
    return status;
}

lore_status lore_file_lock_note(int fd, lore_str content, lore_error *err)
{
    if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot write the lock file: %s", strerror(errno));
    }
    return lore_file_write(fd, "lock file", content.ptr, content.len, err);
}

void lore_file_unlock(int fd)
{
    if (fd >= 0) {
        close(fd); /* gives the lock back with the last descriptor of this open file */
    }
}
