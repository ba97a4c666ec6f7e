/* Loss of power: what a process did to one folder is written down, and any moment of it can be
 * played back with what was not yet synced lost.
 *
 * Recording. An observer (faults.h) appends every change of a file in the folder to memory that
 * outlives the process. Files are numbered by their inode, anew each time a name is created. Shared
 * memory files of SQLite (-shm) are left out: after a loss of power they hold nothing that counts.
 *
 * Playing back up to a cut. A file's synced bytes are there. Of its later writes any subset is,
 * each whole, not at all, or in pieces of 512 bytes. Names (created, renamed, removed) that no sync
 * of the folder followed are there up to a random one of them: file systems keep their order. A
 * folder whose own parent was not synced may be gone altogether. That is what POSIX leaves open and
 * what disks with a cache do; kill -9 shows none of it. */
#ifndef LORE_TESTS_JOURNAL_H
#define LORE_TESTS_JOURNAL_H

#include "tests/fault/faults.h"

#include <stdlib.h>

enum {
    JOURNAL_BYTES = 1 << 30, /* reserved, not used: pages come as they are written */
    JOURNAL_FILES_MAX = 4096,
    JOURNAL_SECTOR = 512,
    JOURNAL_NAME_CAP = 64
};
#define JOURNAL_ACK 100 /* beside fault_change */

typedef struct journal_record {
    int32_t change;
    uint32_t size; /* bytes of data behind the record, padded to 8 */
    uint64_t inode;
    int64_t offset; /* or the new size, or the number acknowledged */
    char name[JOURNAL_NAME_CAP], to[JOURNAL_NAME_CAP]; /* without folder; "/": the folder itself */
} journal_record;

typedef struct journal {
    _Atomic uint64_t used; /* bytes of records */
    char folder[256];
    char parent[256];
    char records[];
} journal;

static journal *journal_current;

/* ---- recording ---- */

/* In memory that a child shares with its parent, or in a file that whoever loads us shares. */
static inline journal *journal_open(const char *file)
{
    int fd = file == NULL ? -1 : open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file != NULL && (fd < 0 || ftruncate(fd, JOURNAL_BYTES) != 0)) {
        return NULL;
    }
    int flags = MAP_SHARED | MAP_NORESERVE | (file == NULL ? MAP_ANONYMOUS : 0);
    void *memory = mmap(NULL, JOURNAL_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (fd >= 0) {
        close(fd);
    }
    return memory == MAP_FAILED ? NULL : memory;
}

static inline void journal_close(journal *j)
{
    munmap(j, JOURNAL_BYTES);
}

/* The name inside the folder, "/" for the folder itself, NULL for what lies elsewhere. */
static inline const char *journal_name(const journal *j, const char *path)
{
    size_t length = strlen(j->folder);
    if (strcmp(path, j->folder) == 0) {
        return "/";
    }
    if (strncmp(path, j->folder, length) != 0 || path[length] != '/' ||
        strchr(path + length + 1, '/') != NULL || strstr(path, "-shm") != NULL) {
        return NULL;
    }
    return path + length + 1;
}

static inline void journal_append(journal *j, journal_record record, const void *data)
{
    uint64_t used = atomic_load(&j->used);
    size_t padded = (record.size + 7u) & ~(size_t)7;
    if (sizeof *j + used + sizeof record + padded > JOURNAL_BYTES) {
        fprintf(stderr, "the journal is full\n");
        abort();
    }
    memcpy(j->records + used, &record, sizeof record);
    if (data != NULL) {
        memcpy(j->records + used + sizeof record, data, record.size);
    }
    atomic_store(&j->used,
                 used + sizeof record + padded); /* the record is whole before it counts */
}

static inline void journal_observe(const fault_event *event)
{
    journal *j = journal_current;
    char path[4096];
    struct stat info = {0};
    journal_record record = {
        .change = (int32_t)event->change, .size = (uint32_t)event->size, .offset = event->offset};
    if (event->fd >= 0) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", event->fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length < 0 || fstat(event->fd, &info) != 0) {
            return;
        }
        path[length] = '\0';
        char *deleted = strstr(path, " (deleted)");
        if (deleted != NULL) {
            *deleted = '\0';
        }
        record.inode = info.st_ino;
    } else {
        snprintf(path, sizeof path, "%s", event->path);
    }
    const char *name = journal_name(j, path);
    if (name == NULL && event->change == FAULT_SYNCED && strcmp(path, j->parent) == 0) {
        name = "..";
    }
    if (name == NULL) {
        return;
    }
    snprintf(record.name, sizeof record.name, "%s", name);
    if (event->change == FAULT_RENAMED) {
        snprintf(record.to, sizeof record.to, "%s", journal_name(j, event->to));
    }
    journal_append(j, record, event->data);
}

/* From here on changes in folder (an absolute path) are written down. */
static inline void journal_begin(journal *j, const char *folder)
{
    snprintf(j->folder, sizeof j->folder, "%s", folder);
    snprintf(j->parent, sizeof j->parent, "%s", folder);
    *strrchr(j->parent, '/') = '\0';
    atomic_store(&j->used, 0);
    journal_current = j;
    fault_observer = journal_observe;
}

/* The process was told that this much is safe. */
static inline void journal_acknowledge(int64_t number)
{
    pthread_mutex_lock(&fault_order);
    journal_append(journal_current, (journal_record){.change = JOURNAL_ACK, .offset = number},
                   NULL);
    pthread_mutex_unlock(&fault_order);
}

/* ---- reading ---- */

/* The record at *at, which moves on; NULL at the end. */
static inline const journal_record *journal_next(const journal *j, uint64_t *at)
{
    if (*at >= atomic_load(&j->used)) {
        return NULL;
    }
    const journal_record *record = (const void *)(j->records + *at);
    *at += sizeof *record + ((record->size + 7u) & ~(uint64_t)7);
    return record;
}

/* ---- playing back ---- */

typedef struct journal_file {
    uint64_t inode;
    char *data; /* as it is on the disk so far */
    int64_t size, room;
    const journal_record **pending;
    int32_t pending_count;
} journal_file;

typedef struct journal_names {
    int32_t count;
    struct {
        char name[JOURNAL_NAME_CAP];
        int32_t file;
    } items[64];
} journal_names;

typedef struct journal_disk {
    journal_file files[JOURNAL_FILES_MAX];
    int32_t file_count;
    journal_names names;               /* durable */
    const journal_record *moves[4096]; /* of names, since the last sync of the folder */
    int32_t move_files[4096];          /* the file each creates */
    int32_t move_count;
    bool has_folder, is_folder_safe;
    bool ignores_sync; /* a disk that lies: for showing that lies are noticed */
    uint64_t random;
} journal_disk;

static inline uint64_t journal_random(journal_disk *disk) /* splitmix64 */
{
    uint64_t z = disk->random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* The newest file of an inode, -1: none (it was there before the recording began, or elsewhere). */
static inline int32_t journal_find(const journal_disk *disk, uint64_t inode)
{
    for (int32_t i = disk->file_count - 1; i >= 0; i--) {
        if (disk->files[i].inode == inode) {
            return i;
        }
    }
    return -1;
}

static inline void journal_need(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "journal: %s\n", what);
        abort();
    }
}

static inline void journal_resize(journal_file *file, int64_t size)
{
    if (size > file->room) {
        file->room = size * 2;
        file->data = realloc(file->data, (size_t)file->room);
        journal_need(file->data != NULL, "out of memory");
    }
    if (size > file->size) {
        memset(file->data + file->size, 0, (size_t)(size - file->size));
    }
    file->size = size;
}

static inline void journal_put(journal_file *file, int64_t offset, const char *data, int64_t size)
{
    if (offset + size > file->size) {
        journal_resize(file, offset + size);
    }
    memcpy(file->data + offset, data, (size_t)size);
}

static inline void journal_apply(journal_file *file, const journal_record *record)
{
    if (record->change == FAULT_WRITTEN) {
        journal_put(file, record->offset, (const char *)(record + 1), record->size);
    } else {
        journal_resize(file, record->offset);
    }
}

static inline void journal_settle(journal_file *file)
{
    for (int32_t i = 0; i < file->pending_count; i++) {
        journal_apply(file, file->pending[i]);
    }
    file->pending_count = 0;
}

/* One name operation on a set of names. */
static inline void journal_move(journal_names *names, const journal_record *move, int32_t file)
{
    const char *gone = move->change == FAULT_CREATED ? "" : move->name;
    const char *made = move->change == FAULT_CREATED   ? move->name
                       : move->change == FAULT_RENAMED ? move->to
                                                       : "";
    int32_t moved = file;
    for (int32_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i].name, gone) == 0) {
            moved = names->items[i].file;
        }
    }
    for (int32_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i].name, gone) == 0 || strcmp(names->items[i].name, made) == 0) {
            names->items[i--] = names->items[--names->count];
        }
    }
    if (made[0] != '\0') {
        journal_need(names->count < 64, "too many names");
        snprintf(names->items[names->count].name, JOURNAL_NAME_CAP, "%s", made);
        names->items[names->count++].file = moved;
    }
}

static inline void journal_pend(journal_file *file, const journal_record *record)
{
    if ((file->pending_count & (file->pending_count - 1)) == 0) { /* full at each power of two */
        size_t room = file->pending_count == 0 ? 1 : (size_t)file->pending_count * 2;
        file->pending = realloc(file->pending, room * sizeof *file->pending);
        journal_need(file->pending != NULL, "out of memory");
    }
    file->pending[file->pending_count++] = record;
}

static inline void journal_step(journal_disk *disk, const journal_record *record)
{
    int32_t file = journal_find(disk, record->inode);
    if (record->change == FAULT_SYNCED && disk->ignores_sync) {
        return;
    }
    if (record->change == FAULT_FOLDER) {
        disk->has_folder = true;
    } else if (record->change == FAULT_SYNCED && strcmp(record->name, "..") == 0) {
        disk->is_folder_safe = true;
    } else if (record->change == FAULT_SYNCED && strcmp(record->name, "/") == 0) {
        for (int32_t i = 0; i < disk->move_count; i++) {
            journal_move(&disk->names, disk->moves[i], disk->move_files[i]);
        }
        disk->move_count = 0;
    } else if (record->change == FAULT_CREATED || record->change == FAULT_RENAMED ||
               record->change == FAULT_REMOVED) {
        if (record->change == FAULT_CREATED) {
            journal_need(disk->file_count < JOURNAL_FILES_MAX, "too many files");
            file = disk->file_count++;
            disk->files[file] = (journal_file){.inode = record->inode};
        }
        journal_need(disk->move_count < 4096, "too many names are not synced");
        disk->moves[disk->move_count] = record;
        disk->move_files[disk->move_count++] = file;
    } else if (record->change != JOURNAL_ACK) {
        journal_need(file >= 0, "a file of before the recording");
        if (record->change == FAULT_SYNCED) {
            journal_settle(&disk->files[file]);
        } else {
            journal_pend(&disk->files[file], record);
        }
    }
}

/* What was pending happens by chance. */
static inline void journal_tear(journal_disk *disk, journal_file *file, int manner)
{
    for (int32_t i = 0; i < file->pending_count; i++) {
        const journal_record *record = file->pending[i];
        bool is_kept = manner == 1 || (manner > 1 && journal_random(disk) % 2 == 0);
        if (manner < 3 || record->change != FAULT_WRITTEN) {
            if (is_kept) {
                journal_apply(file, record);
            }
            continue;
        }
        for (int64_t at = 0; at < record->size;) { /* up to the next sector's edge */
            int64_t end = (record->offset + at) / JOURNAL_SECTOR * JOURNAL_SECTOR + JOURNAL_SECTOR -
                          record->offset;
            end = end < record->size ? end : record->size;
            if (journal_random(disk) % 2 == 0) {
                journal_put(file, record->offset + at, (const char *)(record + 1) + at, end - at);
            }
            at = end;
        }
    }
    file->pending_count = 0;
}

static inline void journal_write_file(const char *folder, const char *name,
                                      const journal_file *file)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = real_fopen(path, "wb");
    journal_need(out != NULL, "cannot write a file back");
    journal_need(real_fwrite(file->data, 1, (size_t)file->size, out) == (size_t)file->size,
                 "cannot write a file back");
    journal_need(real_fclose(out) == 0, "cannot write a file back");
}

/* Make folder (which must not exist) what the disk holds after the power went before the record at
 * `cut`. Returns false where the folder itself is lost. */
static inline bool journal_play(const journal *j, uint64_t cut, uint64_t seed, bool ignores_sync,
                                const char *folder)
{
    journal_disk *disk = calloc(1, sizeof *disk);
    journal_need(disk != NULL, "out of memory");
    disk->random = seed;
    disk->ignores_sync = ignores_sync;
    uint64_t at = 0;
    while (at < cut) {
        journal_step(disk, journal_next(j, &at));
    }
    /* 0: all that is pending is lost, 1: none of it, 2: any of it, 3: any sector of it. */
    int manner = (int)(journal_random(disk) % 4);
    bool is_there = disk->is_folder_safe || (disk->has_folder && journal_random(disk) % 2 == 0);
    for (int32_t i = 0; i < disk->file_count; i++) {
        journal_tear(disk, &disk->files[i], manner);
    }
    int32_t kept = manner == 0 ? 0
                   : manner == 1
                       ? disk->move_count
                       : (int32_t)(journal_random(disk) % (uint64_t)(disk->move_count + 1));
    for (int32_t i = 0; i < kept; i++) {
        journal_move(&disk->names, disk->moves[i], disk->move_files[i]);
    }
    if (is_there) {
        journal_need(real_mkdir(folder, 0755) == 0, "cannot make the folder");
    }
    for (int32_t i = 0; i < disk->names.count && is_there; i++) {
        journal_write_file(folder, disk->names.items[i].name,
                           &disk->files[disk->names.items[i].file]);
    }
    for (int32_t i = 0; i < disk->file_count; i++) {
        free(disk->files[i].data);
        free(disk->files[i].pending);
    }
    free(disk);
    return is_there;
}

#endif
