/* Writing a folder so that it appears whole or not at all: everything goes into "OUT.tmp", each
 * file synced, and the last step is one rename.
 *
 * A process that dies before it leaves "OUT.tmp" behind, which nothing takes for a model and the
 * next run refuses to touch: it may be somebody's. */
#include "base/file.h"
#include "models/quantize_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMES_MAX = 10000, DEPTH_MAX = 4 };

static bool is_entry(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool is_empty_folder(const char *path)
{
    DIR *folder = opendir(path);
    bool is_empty = folder != NULL;
    for (struct dirent *e = is_empty ? readdir(folder) : NULL; e != NULL; e = readdir(folder)) {
        is_empty = is_empty && !is_entry(e->d_name);
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return is_empty;
}

lore_status lore_folder_begin(const char *out, lore_arena *arena, const char **temporary,
                              lore_error *err)
{
    struct stat info;
    lore_str name = lore_str_from(out);
    while (name.len > 1 && name.ptr[name.len - 1] == '/') {
        name.len--;
    }
    lore_str path = lore_str_printf(arena, LORE_STR_FMT ".tmp", LORE_STR_ARG(name));
    if (path.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a path");
    }
    if (lstat(out, &info) == 0 && !(S_ISDIR(info.st_mode) && is_empty_folder(out))) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' exists: give the name of a new folder", out);
    }
    if (lstat(path.ptr, &info) == 0) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "'%s' exists, perhaps left by a run that was interrupted: remove it first",
                         path.ptr);
    }
    *temporary = path.ptr;
    return lore_dir_make(path.ptr, err);
}

/* ---- copying ---- */

/* Formats of other programs, of sizes that nobody wants copied. */
static bool is_foreign(lore_str name)
{
    static const char *const ENDINGS[] = {".bin",       ".pt",     ".pth",  ".onnx",
                                          ".onnx_data", ".h5",     ".gguf", ".ot",
                                          ".msgpack",   ".tflite", ".tmp",  ".mlmodel"};
    for (size_t i = 0; i < sizeof ENDINGS / sizeof ENDINGS[0]; i++) {
        if (lore_str_ends(name, lore_str_from(ENDINGS[i]))) {
            return true;
        }
    }
    return name.ptr[0] == '.'; /* .git, .cache, .gitattributes */
}

static bool is_tensor_file(lore_str name)
{
    return lore_str_ends(name, LORE_STR(".safetensors")) ||
           lore_str_ends(name, LORE_STR(".safetensors.index.json"));
}

static lore_status copy_file(const char *from, const char *to, lore_error *err)
{
    lore_map map = {0};
    lore_status status = lore_map_open(from, &map, err);
    if (status == LORE_OK) {
        status = lore_file_replace(to, (lore_str){(const char *)map.ptr, map.size_bytes}, err);
    }
    lore_map_close(&map);
    return status;
}

static lore_status copy_folder(const char *from, const char *to, const char *const *skip,
                               int32_t skip_count, int32_t depth, lore_error *err);

static lore_status copy_entry(const char *folder, const char *to_folder, lore_str name,
                              const char *const *skip, int32_t skip_count, int32_t depth,
                              lore_error *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    struct stat info;
    int from_len = snprintf(from, sizeof from, "%s/" LORE_STR_FMT, folder, LORE_STR_ARG(name));
    int to_len = snprintf(to, sizeof to, "%s/" LORE_STR_FMT, to_folder, LORE_STR_ARG(name));
    bool is_skipped = is_foreign(name) || (depth == 0 && is_tensor_file(name));
    for (int32_t i = 0; i < skip_count && depth == 0; i++) {
        is_skipped = is_skipped || lore_str_equal(name, lore_str_from(skip[i]));
    }
    if (is_skipped) {
        return LORE_OK;
    }
    if (from_len >= PATH_MAX || to_len >= PATH_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s/...'", folder);
    }
    if (stat(from, &info) != 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot read '%s': %s", from, strerror(errno));
    }
    if (S_ISREG(info.st_mode)) { /* a link to one too: caches of downloads are made of them */
        return copy_file(from, to, err);
    }
    bool is_folder = lstat(from, &info) == 0 && S_ISDIR(info.st_mode);
    return is_folder && depth < DEPTH_MAX ? copy_folder(from, to, skip, skip_count, depth + 1, err)
                                          : LORE_OK;
}

static lore_status copy_folder(const char *from, const char *to, const char *const *skip,
                               int32_t skip_count, int32_t depth, lore_error *err)
{
    lore_arena arena;
    lore_str *names = NULL;
    size_t count = 0;
    lore_arena_init(&arena, 0);
    lore_status status = lore_dir_list(&arena, from, NAMES_MAX, &names, &count, err);
    if (status == LORE_OK && depth > 0 && count > 0) {
        status = lore_dir_make(to, err);
    }
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        status = copy_entry(from, to, names[i], skip, skip_count, depth, err);
    }
    lore_arena_destroy(&arena);
    return status;
}

lore_status lore_folder_copy(const char *folder, const char *temporary, const char *const *skip,
                             int32_t skip_count, lore_error *err)
{
    return copy_folder(folder, temporary, skip, skip_count, 0, err);
}

/* ---- the end ---- */

static lore_status sync_folder(const char *path, lore_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0;
    lore_status status =
        is_synced ? LORE_OK
                  : lore_fail(err, LORE_ERR_IO, "cannot sync '%s': %s", path, strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

lore_status lore_folder_path(const char *temporary, const char *name, char path[PATH_MAX],
                             lore_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", temporary, name);
    return len < PATH_MAX ? LORE_OK
                          : lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", temporary);
}

lore_status lore_folder_commit(const char *temporary, const char *out, lore_error *err)
{
    char parent[PATH_MAX];
    lore_status status = sync_folder(temporary, err);
    if (status != LORE_OK) {
        return status;
    }
    if (rename(temporary, out) != 0) { /* over an empty folder, too */
        return lore_fail(err, LORE_ERR_IO, "cannot rename '%s' to '%s': %s", temporary, out,
                         strerror(errno));
    }
    const char *slash = strrchr(temporary, '/'); /* OUT itself may end in slashes */
    int length = slash == NULL ? 0 : slash == temporary ? 1 : (int)(slash - temporary);
    snprintf(parent, sizeof parent, "%.*s", length, temporary);
    return sync_folder(length > 0 ? parent : ".", err);
}

/* Takes no memory of ours: it runs where there is none. */
static void remove_folder(const char *path, int32_t depth)
{
    DIR *folder = opendir(path);
    for (struct dirent *e = folder != NULL ? readdir(folder) : NULL; e != NULL;
         e = readdir(folder)) {
        char entry[PATH_MAX];
        struct stat info;
        int len = snprintf(entry, sizeof entry, "%s/%s", path, e->d_name);
        if (!is_entry(e->d_name) || len >= PATH_MAX || lstat(entry, &info) != 0) {
            continue;
        }
        if (S_ISDIR(info.st_mode) && depth <= DEPTH_MAX) {
            remove_folder(entry, depth + 1);
        } else {
            unlink(entry);
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    rmdir(path);
}

void lore_folder_abort(const char *temporary)
{
    if (temporary != NULL) {
        remove_folder(temporary, 0);
    }
}
