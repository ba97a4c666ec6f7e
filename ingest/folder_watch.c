/* The fence of inotify. See folder_watch.h.
 *
 * Invariants:
 * 1. Every folder below a root, hidden ones and the data folder aside, has an entry in `folders`;
 *    its watch was added before its content was listed, so what comes later is an event.
 * 2. `folders` ascends by watch number. One folder reached through two roots has one watch and two
 *    entries: each spells its own paths.
 * 3. A folder that is moved or removed loses its entries and those below at once: the kernel goes
 *    on watching what was moved, under a path that is no longer true.
 *
 * Where any of that cannot be kept (the queue ran over, a root is gone) all watches are made anew
 * and everything counts as changed. */
#include "ingest/folder_watch.h"

#include "base/clock.h"
#include "ingest/source_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    QUIET_MS = 200,     /* without an event: whoever was at work has paused */
    LONGEST_MS = 3000,  /* ... but steady work does not put it off for longer than this */
    AGAIN_MS = 5000,    /* before what could not be worked is tried again */
    LOST_MS = 500,      /* how often a root that is gone is looked for */
    POLL_MS = 100,      /* how soon an interrupt is noticed */
    CHANGES_MAX = 4096, /* more paths than this are everything */
    DEPTH_CAP = 256,    /* the walk is recursive */
    EVENT_BYTES = 64 * 1024
};
#define WATCHED                                                                         \
    (IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | \
     IN_DELETE_SELF | IN_MOVE_SELF)

typedef struct watched_folder {
    int number;   /* the kernel's */
    char *prefix; /* of the paths in it: "docs/", "/", "" for the current folder */
    bool is_root;
} watched_folder;

typedef struct path_list {
    char **items; /* owned */
    size_t count, room;
} path_list;

struct lore_folder_watch {
    const lore_limits *limits;
    int fd;
    path_list roots; /* as given, without '/' at the end */
    watched_folder *folders;
    size_t folder_count, folder_room;
    path_list changed;
    bool is_everything, is_lost; /* a root is not there */
    int64_t first_ns, last_ns;   /* of the changes gathered; 0: none */
    int64_t not_before_ns;       /* after a failure */
    const char *data;            /* the data folder, which a run may make; NULL: none */
};

static lore_status out_of_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory watching folders");
}

/* ---- lists of paths ---- */

/* "a/" and "b" joined, to be freed; NULL: out of memory. */
static char *join(const char *prefix, const char *name, const char *end)
{
    size_t a = strlen(prefix), b = strlen(name), c = strlen(end);
    char *path = lore_alloc(a + b + c + 1);
    if (path != NULL) {
        memcpy(path, prefix, a);
        memcpy(path + a, name, b);
        memcpy(path + a + b, end, c + 1);
    }
    return path;
}

/* Takes the path, also on failure. */
static lore_status list_add(path_list *list, char *path, lore_error *err)
{
    if (path != NULL && list->count == list->room) {
        size_t room = list->room == 0 ? 64 : list->room * 2;
        char **grown = lore_realloc(list->items, room * sizeof *grown);
        if (grown == NULL) {
            lore_free(path);
            path = NULL;
        } else {
            list->items = grown;
            list->room = room;
        }
    }
    if (path == NULL) {
        return out_of_memory(err);
    }
    list->items[list->count++] = path;
    return LORE_OK;
}

static void list_clear(path_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        lore_free(list->items[i]);
    }
    list->count = 0;
}

/* ---- what is noted ---- */

static void note_time(lore_folder_watch *watch)
{
    watch->last_ns = lore_clock_ns();
    watch->first_ns = watch->first_ns == 0 ? watch->last_ns : watch->first_ns;
}

static void note_everything(lore_folder_watch *watch)
{
    list_clear(&watch->changed);
    watch->is_everything = true;
    note_time(watch);
}

static lore_status note_path(lore_folder_watch *watch, const char *prefix, const char *name,
                             lore_error *err)
{
    note_time(watch);
    if (watch->is_everything) {
        return LORE_OK;
    }
    if (watch->changed.count == CHANGES_MAX) {
        note_everything(watch);
        return LORE_OK;
    }
    return list_add(&watch->changed, join(prefix, name, ""), err);
}

/* ---- folders ---- */

/* The first entry of this watch number, or where it belongs. */
static size_t find_number(const lore_folder_watch *watch, int number)
{
    size_t low = 0, high = watch->folder_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (watch->folders[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Takes the prefix, also on failure; one that is there already is not added again. */
static lore_status add_folder(lore_folder_watch *watch, int number, char *prefix, bool is_root,
                              lore_error *err)
{
    size_t at = find_number(watch, number);
    for (size_t i = at; i < watch->folder_count && watch->folders[i].number == number; i++) {
        if (strcmp(watch->folders[i].prefix, prefix) == 0) {
            lore_free(prefix);
            return LORE_OK;
        }
    }
    if (watch->folder_count == watch->folder_room) {
        size_t room = watch->folder_room == 0 ? 64 : watch->folder_room * 2;
        watched_folder *grown = lore_realloc(watch->folders, room * sizeof *grown);
        if (grown == NULL) {
            lore_free(prefix);
            return out_of_memory(err);
        }
        watch->folders = grown;
        watch->folder_room = room;
    }
    memmove(watch->folders + at + 1, watch->folders + at,
            (watch->folder_count - at) * sizeof *watch->folders);
    watch->folders[at] = (watched_folder){number, prefix, is_root};
    watch->folder_count++;
    return LORE_OK;
}

static void drop_folder(lore_folder_watch *watch, size_t at)
{
    lore_free(watch->folders[at].prefix);
    watch->folder_count--;
    memmove(watch->folders + at, watch->folders + at + 1,
            (watch->folder_count - at) * sizeof *watch->folders);
}

static void drop_number(lore_folder_watch *watch, int number)
{
    size_t at = find_number(watch, number);
    while (at < watch->folder_count && watch->folders[at].number == number) {
        drop_folder(watch, at);
    }
}

/* Everything below a folder that was moved or removed. */
static lore_status drop_tree(lore_folder_watch *watch, const char *parent, const char *name,
                             lore_error *err)
{
    char *prefix = join(parent, name, "/");
    if (prefix == NULL) {
        return out_of_memory(err);
    }
    const size_t length = strlen(prefix);
    for (size_t i = watch->folder_count; i > 0; i--) {
        if (strncmp(watch->folders[i - 1].prefix, prefix, length) == 0) {
            (void)inotify_rm_watch(watch->fd, watch->folders[i - 1].number); /* may be gone */
            drop_folder(watch, i - 1);
        }
    }
    lore_free(prefix);
    return LORE_OK;
}

static lore_status add_tree(lore_folder_watch *watch, const char *prefix, bool is_root,
                            int32_t depth, lore_error *err);

static bool is_folder(int fd, const struct dirent *found)
{
    struct stat info;
    if (found->d_type != DT_UNKNOWN) {
        return found->d_type == DT_DIR;
    }
    return fstatat(fd, found->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
}

static lore_status add_below(lore_folder_watch *watch, DIR *folder, const char *prefix,
                             int32_t depth, lore_error *err)
{
    lore_status status = LORE_OK;
    for (const struct dirent *found = readdir(folder); found != NULL && status == LORE_OK;
         found = readdir(folder)) {
        if (found->d_name[0] == '.' || !is_folder(dirfd(folder), found)) {
            continue;
        }
        char *below = join(prefix, found->d_name, "/");
        status = below == NULL ? out_of_memory(err) : add_tree(watch, below, false, depth + 1, err);
        lore_free(below);
    }
    return status;
}

/* A folder and those below. What cannot be watched for want of rights, or because it has just gone,
 * the walk will name. */
static lore_status add_tree(lore_folder_watch *watch, const char *prefix, bool is_root,
                            int32_t depth, lore_error *err)
{
    struct stat info;
    const char *path = prefix[0] == '\0' ? "." : prefix;
    if (depth > watch->limits->folder_depth_max || depth > DEPTH_CAP || stat(path, &info) != 0 ||
        lore_is_data_folder(watch->data, &info)) {
        return LORE_OK;
    }
    const uint32_t how = WATCHED | IN_ONLYDIR | IN_MASK_ADD | (is_root ? 0U : IN_DONT_FOLLOW);
    int number = inotify_add_watch(watch->fd, path, how);
    if (number < 0 && (errno == ENOSPC || errno == ENOMEM)) {
        return lore_fail(
            err, LORE_ERR_LIMIT,
            "cannot watch '%s': %zu folders are watched already, and the system allows "
            "no more (fs.inotify.max_user_watches)",
            path, watch->folder_count);
    }
    if (number < 0) {
        return LORE_OK;
    }
    char *copy = join(prefix, "", "");
    lore_status status =
        copy == NULL ? out_of_memory(err) : add_folder(watch, number, copy, is_root, err);
    DIR *folder = status == LORE_OK ? opendir(path) : NULL;
    if (folder != NULL) {
        status = add_below(watch, folder, prefix, depth, err);
        closedir(folder);
    }
    return status;
}

/* A file is watched through its folder: programs replace files by renaming. */
static lore_status add_root(lore_folder_watch *watch, const char *root, bool *is_there,
                            lore_error *err)
{
    struct stat info;
    *is_there = stat(root, &info) == 0;
    if (!*is_there) {
        return LORE_OK;
    }
    if (S_ISDIR(info.st_mode)) {
        char *prefix = join(root, "", strcmp(root, "/") == 0 ? "" : "/");
        lore_status status =
            prefix == NULL ? out_of_memory(err) : add_tree(watch, prefix, true, 1, err);
        lore_free(prefix);
        return status;
    }
    const char *slash = strrchr(root, '/');
    char *prefix = join(root, "", "");
    if (prefix == NULL) {
        return out_of_memory(err);
    }
    prefix[slash == NULL ? 0 : slash - root + 1] = '\0';
    int number = inotify_add_watch(watch->fd, prefix[0] == '\0' ? "." : prefix,
                                   WATCHED | IN_ONLYDIR | IN_MASK_ADD);
    if (number < 0) {
        lore_free(prefix);
        return lore_fail(err, LORE_ERR_IO, "cannot watch '%s': %s", root, strerror(errno));
    }
    return add_folder(watch, number, prefix, true, err);
}

/* All watches anew. A root that is not there is looked for later. */
static lore_status watch_all(lore_folder_watch *watch, lore_error *err)
{
    while (watch->folder_count > 0) {
        drop_folder(watch, watch->folder_count - 1);
    }
    if (watch->fd >= 0) {
        close(watch->fd);
    }
    watch->is_lost = false;
    watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch->fd < 0) {
        return lore_fail(err, LORE_ERR_LIMIT, "cannot watch folders: %s", strerror(errno));
    }
    lore_status status = LORE_OK;
    for (size_t i = 0; i < watch->roots.count && status == LORE_OK; i++) {
        bool is_there = false;
        status = add_root(watch, watch->roots.items[i], &is_there, err);
        watch->is_lost = watch->is_lost || !is_there;
    }
    return status;
}

/* ---- events ---- */

/* Does a path belong to what is watched? Beside a file that is a root there may be others. */
static bool is_wanted(const lore_folder_watch *watch, const char *prefix, const char *name)
{
    size_t length = strlen(prefix);
    for (size_t i = 0; i < watch->roots.count; i++) {
        const char *root = watch->roots.items[i];
        size_t root_length = strlen(root);
        bool is_in_root = strncmp(prefix, root, root_length) == 0 &&
                          (prefix[root_length] == '/' || strcmp(root, "/") == 0);
        bool is_root = strncmp(root, prefix, length) == 0 && strcmp(root + length, name) == 0;
        if (is_root || (is_in_root && name[0] != '.')) {
            return true;
        }
    }
    return false;
}

static lore_status take_in_folder(lore_folder_watch *watch, const char *prefix,
                                  const struct inotify_event *event, lore_error *err)
{
    const bool is_made = (event->mask & (IN_CREATE | IN_MOVED_TO | IN_ATTRIB)) != 0;
    const bool is_gone = (event->mask & (IN_DELETE | IN_MOVED_FROM)) != 0;
    lore_status status = note_path(watch, prefix, event->name, err);
    if (status == LORE_OK && is_gone && (event->mask & IN_ISDIR) != 0) {
        status = drop_tree(watch, prefix, event->name, err);
    } else if (status == LORE_OK && is_made && (event->mask & IN_ISDIR) != 0) {
        char *below = join(prefix, event->name, "/");
        status = below == NULL ? out_of_memory(err) : add_tree(watch, below, false, 2, err);
        lore_free(below);
    }
    return status;
}

/* Adding and dropping folders moves the entries, so the spellings are copied first. */
static lore_status take_named(lore_folder_watch *watch, const struct inotify_event *event,
                              lore_error *err)
{
    path_list prefixes = {0};
    lore_status status = LORE_OK;
    for (size_t i = find_number(watch, event->wd);
         i < watch->folder_count && watch->folders[i].number == event->wd && status == LORE_OK;
         i++) {
        if (is_wanted(watch, watch->folders[i].prefix, event->name)) {
            status = list_add(&prefixes, join(watch->folders[i].prefix, "", ""), err);
        }
    }
    for (size_t i = 0; i < prefixes.count && status == LORE_OK; i++) {
        status = take_in_folder(watch, prefixes.items[i], event, err);
    }
    list_clear(&prefixes);
    lore_free(prefixes.items);
    return status;
}

/* *must_renew: the watches do not show the truth any more. */
static lore_status take_event(lore_folder_watch *watch, const struct inotify_event *event,
                              bool *must_renew, lore_error *err)
{
    if ((event->mask & IN_Q_OVERFLOW) != 0) {
        *must_renew = true;
        return LORE_OK;
    }
    size_t at = find_number(watch, event->wd);
    bool is_known = at < watch->folder_count && watch->folders[at].number == event->wd;
    if ((event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) != 0) {
        *must_renew = *must_renew || (is_known && watch->folders[at].is_root);
        return LORE_OK;
    }
    if ((event->mask & IN_IGNORED) != 0) {
        drop_number(watch, event->wd);
        return LORE_OK;
    }
    return is_known && event->len > 0 ? take_named(watch, event, err) : LORE_OK;
}

static lore_status read_events(lore_folder_watch *watch, lore_error *err)
{
    _Alignas(struct inotify_event) char buffer[EVENT_BYTES];
    lore_status status = LORE_OK;
    bool must_renew = false;
    for (;;) {
        ssize_t got = read(watch->fd, buffer, sizeof buffer);
        for (ssize_t at = 0; at < got && status == LORE_OK && !must_renew;) {
            const struct inotify_event *event = (const void *)(buffer + at);
            status = take_event(watch, event, &must_renew, err);
            at += (ssize_t)(sizeof *event + event->len);
        }
        if (got <= 0 || status != LORE_OK || must_renew) {
            break; /* empty for now; an error shows again at the next look */
        }
    }
    if (status == LORE_OK && must_renew) {
        status = watch_all(watch, err);
        note_everything(watch);
    }
    return status;
}

/* Roots that were gone and are back. */
static lore_status look_for_lost(lore_folder_watch *watch, lore_error *err)
{
    struct stat info;
    for (size_t i = 0; i < watch->roots.count; i++) {
        if (stat(watch->roots.items[i], &info) != 0) {
            return LORE_OK;
        }
    }
    note_everything(watch);
    return watch_all(watch, err);
}

/* ---- public ---- */

static lore_status add_given(lore_folder_watch *watch, const char *given, lore_error *err)
{
    struct stat info;
    if (strcmp(given, "-") == 0) {
        return lore_fail(err, LORE_ERR_INVALID, "standard input cannot be watched");
    }
    if (stat(given, &info) != 0) {
        return lore_fail(err, errno == ENOENT ? LORE_ERR_NOT_FOUND : LORE_ERR_IO,
                         "cannot watch '%s': %s", given, strerror(errno));
    }
    char *path = join(given, "", "");
    for (size_t length = path == NULL ? 0 : strlen(path); length > 1 && path[length - 1] == '/';
         length--) {
        path[length - 1] = '\0';
    }
    return list_add(&watch->roots, path, err);
}

lore_status lore_folder_watch_open(const lore_source_options *options, const lore_limits *limits,
                                   lore_folder_watch **watch, lore_error *err)
{
    lore_folder_watch *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return out_of_memory(err);
    }
    made->fd = -1;
    made->limits = limits;
    made->data = options->data;
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < options->path_count && status == LORE_OK; i++) {
        status = add_given(made, options->paths[i], err);
    }
    if (status == LORE_OK) {
        status = watch_all(made, err);
    }
    if (status != LORE_OK) {
        lore_folder_watch_close(made);
        return status;
    }
    *watch = made;
    return LORE_OK;
}

void lore_folder_watch_close(lore_folder_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    while (watch->folder_count > 0) {
        drop_folder(watch, watch->folder_count - 1);
    }
    if (watch->fd >= 0) {
        close(watch->fd);
    }
    list_clear(&watch->roots);
    list_clear(&watch->changed);
    lore_free(watch->roots.items);
    lore_free(watch->changed.items);
    lore_free(watch->folders);
    lore_free(watch);
}

/* What lies in a folder directly behind it: '/' before every other character. */
static int by_path(const void *a, const void *b)
{
    const unsigned char *x = *(unsigned char *const *)a, *y = *(unsigned char *const *)b;
    while (*x == *y && *x != '\0') {
        x++;
        y++;
    }
    int left = *x == '/' ? 1 : *x == '\0' ? 0 : *x + 1;
    int right = *y == '/' ? 1 : *y == '\0' ? 0 : *y + 1;
    return left - right;
}

/* Give what was gathered, and begin anew. */
static lore_status give_changes(lore_folder_watch *watch, lore_arena *arena,
                                lore_folder_changes *changes, lore_error *err)
{
    path_list *changed = &watch->changed;
    *changes = (lore_folder_changes){.is_everything = watch->is_everything};
    changes->paths = LORE_PUSH(arena, const char *, changed->count + 1);
    bool has_memory = changes->paths != NULL;
    if (changed->count > 0) {
        qsort(changed->items, changed->count, sizeof *changed->items, by_path);
    }
    lore_str last = {"", 0}; /* the last path given: what lies below it goes with it */
    for (size_t i = 0; i < changed->count && has_memory; i++) {
        lore_str path = lore_str_from(changed->items[i]);
        if (last.len > 0 && lore_source_is_below(path, &last, 1)) {
            continue;
        }
        char *copy = lore_str_to_c(arena, path);
        has_memory = copy != NULL;
        changes->paths[changes->count++] = copy;
        last = path;
    }
    if (!has_memory) {
        return out_of_memory(err);
    }
    list_clear(changed);
    watch->is_everything = false;
    watch->first_ns = watch->last_ns = 0;
    return LORE_OK;
}

static bool is_due(const lore_folder_watch *watch, int64_t now_ns)
{
    const int64_t ms = 1000000;
    return watch->first_ns != 0 && now_ns >= watch->not_before_ns &&
           (now_ns - watch->last_ns >= QUIET_MS * ms ||
            now_ns - watch->first_ns >= LONGEST_MS * ms);
}

lore_status lore_folder_watch_next(lore_folder_watch *watch, const lore_interrupt *interrupt,
                                   lore_arena *arena, lore_folder_changes *changes, lore_error *err)
{
    int64_t looked_ns = lore_clock_ns();
    lore_status status = read_events(watch, err);
    while (status == LORE_OK) {
        int64_t now_ns = lore_clock_ns();
        if (lore_is_interrupted(interrupt)) {
            return lore_fail(err, LORE_ERR_CANCELLED, "interrupted");
        }
        if (is_due(watch, now_ns)) {
            return give_changes(watch, arena, changes, err);
        }
        if (watch->is_lost && now_ns - looked_ns >= LOST_MS * INT64_C(1000000)) {
            looked_ns = now_ns;
            status = look_for_lost(watch, err);
            continue;
        }
        struct pollfd ready = {.fd = watch->fd, .events = POLLIN};
        if (poll(&ready, 1, POLL_MS) > 0) {
            status = read_events(watch, err);
        }
    }
    return status;
}

void lore_folder_watch_again(lore_folder_watch *watch)
{
    note_everything(watch);
    watch->not_before_ns = lore_clock_ns() + AGAIN_MS * INT64_C(1000000);
}
