/* The list of files that a run begins with.
 *
 * Folders are listed when the source is opened, names sorted bytewise, depth first: an order that
 * does not depend on what happens later, and a true total, for a hundred bytes a file. What could
 * not be listed stays in the list with its error, so it is told in its place. */
#include "ingest/source_int.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_CAP = 256 }; /* the walk is recursive */

static lore_status out_of_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory listing files");
}

static lore_status add_entry(lore_walk *walk, const char *path, bool is_named,
                             const lore_error *failure, lore_error *err)
{
    if (walk->count == walk->room) {
        size_t room = walk->room == 0 ? 64 : walk->room * 2, bytes = 0;
        lore_entry *grown = lore_size_mul(room, sizeof(lore_entry), &bytes)
                                ? lore_realloc(walk->entries, bytes)
                                : NULL;
        if (grown == NULL) {
            return out_of_memory(err);
        }
        walk->entries = grown;
        walk->room = room;
    }
    lore_entry *e = &walk->entries[walk->count];
    *e = (lore_entry){.path = path, .is_named = is_named};
    if (failure != NULL) {
        e->status = failure->status;
        e->failure = lore_str_to_c(walk->arena, lore_str_from(failure->message));
        if (e->failure == NULL) {
            return out_of_memory(err);
        }
    }
    walk->count++;
    return LORE_OK;
}

bool lore_walk_takes(lore_str name)
{
    return lore_media_of(name, (lore_str){"", 0}) != LORE_MEDIA_AUTO || lore_foreign_name(name) ||
           lore_media_extension(name).len == 0;
}

/* Office documents and books are read under any name; of other files the first bytes are enough. */
static bool is_packed_file(const char *path)
{
    char head[8] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd < 0 ? 0 : read(fd, head, sizeof head);
    if (fd >= 0) {
        close(fd);
    }
    lore_str bytes = {head, got > 0 ? (size_t)got : 0};
    return lore_str_starts(bytes, LORE_STR("PK\x03\x04")) ||
           lore_str_starts(bytes, LORE_STR("%PDF")) || lore_foreign_reason(bytes) != NULL;
}

static lore_status walk_folder(lore_walk *walk, const char *path, int32_t depth, lore_error *err);

bool lore_is_data_folder(const char *data, const struct stat *info)
{
    struct stat known;
    return data != NULL && stat(data, &known) == 0 && known.st_dev == info->st_dev &&
           known.st_ino == info->st_ino;
}

static lore_status add_found(lore_walk *walk, const char *path, lore_str name, int32_t depth,
                             lore_error *err)
{
    struct stat info;
    if (name.ptr[0] == '.' || lstat(path, &info) != 0) {
        walk->passed_over++;
        return LORE_OK;
    }
    if (S_ISDIR(info.st_mode)) {
        if (lore_is_data_folder(walk->data, &info)) {
            walk->passed_over++;
            return LORE_OK;
        }
        return walk_folder(walk, path, depth + 1, err);
    }
    /* A link to a folder could lead out of the tree or round in circles; its files are walked where
     * they are. */
    bool is_file = S_ISREG(info.st_mode) ||
                   (S_ISLNK(info.st_mode) && stat(path, &info) == 0 && S_ISREG(info.st_mode));
    if (!is_file || (!lore_walk_takes(name) && !is_packed_file(path))) {
        walk->passed_over++;
        return LORE_OK;
    }
    return add_entry(walk, path, false, NULL, err);
}

static lore_status walk_folder(lore_walk *walk, const char *path, int32_t depth, lore_error *err)
{
    lore_error failure;
    if (depth > walk->limits->folder_depth_max || depth > DEPTH_CAP) {
        lore_fail(&failure, LORE_ERR_LIMIT,
                  "folders nest deeper than %lld (limits.folder_depth_max)",
                  (long long)walk->limits->folder_depth_max);
        return add_entry(walk, path, true, &failure, err);
    }
    lore_str *names = NULL;
    size_t name_count = 0;
    int64_t left = walk->limits->folder_entries_max - walk->seen_names;
    lore_status status = lore_dir_list(walk->arena, path, left > 0 ? (size_t)left : 0, &names,
                                       &name_count, &failure);
    if (status == LORE_ERR_LIMIT) {
        return lore_fail(err, status, "'%s': more than %lld entries (limits.folder_entries_max)",
                         path, (long long)walk->limits->folder_entries_max);
    }
    if (status == LORE_ERR_NOMEM) {
        return out_of_memory(err);
    }
    if (status != LORE_OK) {
        return add_entry(walk, path, true, &failure, err);
    }
    walk->seen_names += (int64_t)name_count;
    size_t length = strlen(path);
    const char *slash = length > 0 && path[length - 1] == '/' ? "" : "/";
    for (size_t i = 0; i < name_count && status == LORE_OK; i++) {
        lore_str joined =
            lore_str_printf(walk->arena, "%s%s" LORE_STR_FMT, path, slash, LORE_STR_ARG(names[i]));
        status = joined.ptr == NULL ? out_of_memory(err)
                                    : add_found(walk, joined.ptr, names[i], depth, err);
    }
    return status;
}

lore_status lore_walk_add(lore_walk *walk, const char *given, lore_error *err)
{
    char *path = lore_str_to_c(walk->arena, lore_str_from(given));
    if (path == NULL) {
        return out_of_memory(err);
    }
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        path[--length] = '\0'; /* so that "kb" and "kb/" give the same sources */
    }
    struct stat info;
    lore_error failure;
    if (walk->are_found) {
        const char *slash = strrchr(path, '/');
        return add_found(walk, path, lore_str_from(slash == NULL ? path : slash + 1), 0, err);
    }
    if (strcmp(path, "-") == 0) {
        return add_entry(walk, path, true, NULL, err);
    }
    if (stat(path, &info) != 0) {
        lore_status status = errno == ENOENT ? LORE_ERR_NOT_FOUND : LORE_ERR_IO;
        lore_fail(&failure, status, "cannot open '%s': %s", path, strerror(errno));
        return add_entry(walk, path, true, &failure, err);
    }
    return S_ISDIR(info.st_mode) ? walk_folder(walk, path, 1, err)
                                 : add_entry(walk, path, true, NULL, err);
}

void lore_walk_destroy(lore_walk *walk)
{
    lore_free(walk->entries);
}
