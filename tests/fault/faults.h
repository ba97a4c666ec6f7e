/* Failure injection below everything: the calls of the C library that touch files and start
 * threads, defined again here, so that the N-th one of a kind can be made to fail.
 *
 * The definitions of a program come before those of the libraries it loads. So these reach what no
 * hook in our own code could: SQLite, FAISS, libmicrohttpd and the C library's streams, with the
 * same numbers for all of them, and the product holds no line for it (base/file.h and base/thread.h
 * have hooks of their own for unit tests). Built into a test by this include; built as a library
 * that is loaded first (tests/e2e/preload.c) it does the same to the real program. Allocations are
 * failed by base/mem.h, which everything allocates through.
 *
 * Only regular files and folders count: a write to a socket or a terminal never fails here. An
 * observer (journal.h) sees each successful change of a file, in the order in which they happened.
 */
#ifndef LORE_TESTS_FAULTS_H
#define LORE_TESTS_FAULTS_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Libraries call these before ThreadSanitizer is awake. */
#define FAULT_EARLY __attribute__((no_sanitize_thread))

typedef enum fault_kind {
    FAULT_OPEN,
    FAULT_WRITE, /* write, pwrite, fwrite */
    FAULT_SYNC,  /* fsync, fdatasync */
    FAULT_RENAME,
    FAULT_TRUNCATE,
    FAULT_REMOVE, /* unlink */
    FAULT_MAP,    /* mmap of a file */
    FAULT_THREAD, /* pthread_create */
    FAULT_KINDS
} fault_kind;
static const char *const fault_names[FAULT_KINDS] = {"open",     "write",  "sync", "rename",
                                                     "truncate", "remove", "map",  "thread"};

typedef enum fault_mode {
    FAULT_ONCE,   /* the N-th call fails */
    FAULT_STICKY, /* and every later one */
    FAULT_SHORT,  /* the N-th write takes only half of what it was given */
    FAULT_KILL    /* the process dies before the N-th call */
} fault_mode;

static struct fault_state {
    _Atomic int64_t calls; /* since the last arming */
    _Atomic int64_t at;    /* the call that fails, 0: none */
    _Atomic int mode;
    _Atomic int number; /* errno */
} fault_states[FAULT_KINDS];

/* The n-th call of the kind from now on fails with this errno; n = 0: none does. Counts anew. */
static inline void fault_arm(fault_kind kind, int64_t n, fault_mode mode, int number)
{
    struct fault_state *state = &fault_states[kind];
    atomic_store(&state->at, 0);
    atomic_store(&state->mode, (int)mode);
    atomic_store(&state->number, number);
    atomic_store(&state->calls, 0);
    atomic_store(&state->at, n);
}

/* Calls since arming. */
static inline int64_t fault_calls(fault_kind kind)
{
    return atomic_load(&fault_states[kind].calls);
}

/* ---- the observer ---- */

typedef enum fault_change {
    FAULT_CREATED, /* fd, path */
    FAULT_WRITTEN, /* fd, offset, data */
    FAULT_RESIZED, /* fd, offset: the new size */
    FAULT_SYNCED,  /* fd, of a file or a folder */
    FAULT_RENAMED, /* path, to */
    FAULT_REMOVED, /* path */
    FAULT_FOLDER   /* path: made */
} fault_change;

typedef struct fault_event {
    fault_change change;
    int fd;
    const char *path, *to;
    const void *data;
    size_t size;
    int64_t offset;
} fault_event;

static void (*fault_observer)(const fault_event *event);        /* set while one thread runs */
static pthread_mutex_t fault_order = PTHREAD_MUTEX_INITIALIZER; /* one change at a time, observed */

FAULT_EARLY static inline void fault_begin(void)
{
    if (fault_observer != NULL) {
        pthread_mutex_lock(&fault_order);
    }
}

/* Tell of the change where it succeeded; errno stays. */
FAULT_EARLY static inline void fault_end(bool succeeded, const fault_event *event)
{
    if (fault_observer != NULL) {
        int kept = errno;
        if (succeeded) {
            fault_observer(event);
        }
        pthread_mutex_unlock(&fault_order);
        errno = kept;
    }
}

/* ---- the real functions ---- */

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);
static int (*real_pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static FILE *(*real_fopen)(const char *, const char *);
static size_t (*real_fwrite)(const void *, size_t, size_t, FILE *);
static int (*real_fclose)(FILE *);

/* Before main; earlier where a library's own start calls one of them. */
__attribute__((constructor)) FAULT_EARLY static void fault_resolve(void)
{
#define FAULT_REAL(name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)
    FAULT_REAL(open);
    FAULT_REAL(write);
    FAULT_REAL(pwrite);
    FAULT_REAL(fsync);
    FAULT_REAL(fdatasync);
    FAULT_REAL(ftruncate);
    FAULT_REAL(rename);
    FAULT_REAL(unlink);
    FAULT_REAL(mkdir);
    FAULT_REAL(mmap);
    FAULT_REAL(pthread_create);
    FAULT_REAL(fopen);
    FAULT_REAL(fwrite);
    FAULT_REAL(fclose);
#undef FAULT_REAL
}

#define FAULT_NEED(name)           \
    do {                           \
        if (real_##name == NULL) { \
            fault_resolve();       \
        }                          \
    } while (0)

/* Count a call. False with errno set where it is to fail; *is_short where a write takes a half. */
FAULT_EARLY static inline bool fault_passes(fault_kind kind, bool *is_short)
{
    struct fault_state *state = &fault_states[kind];
    int64_t index = atomic_fetch_add(&state->calls, 1) + 1;
    int64_t at = atomic_load(&state->at);
    int mode = atomic_load(&state->mode);
    if (at == 0 || index < at || (index > at && mode != FAULT_STICKY)) {
        return true;
    }
    if (mode == FAULT_KILL) {
        kill(getpid(), SIGKILL);
    }
    if (mode == FAULT_SHORT) {
        if (is_short != NULL) {
            *is_short = true;
        }
        return true;
    }
    errno = atomic_load(&state->number);
    return false;
}

FAULT_EARLY static inline bool fault_is_file(int fd)
{
    struct stat info;
    int kept = errno;
    bool is_file = fstat(fd, &info) == 0 && (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode));
    errno = kept;
    return is_file;
}

/* ---- opening ---- */

FAULT_EARLY static inline int fault_open(const char *path, int flags, mode_t mode)
{
    struct stat info;
    FAULT_NEED(open);
    if (!fault_passes(FAULT_OPEN, NULL)) {
        return -1;
    }
    fault_begin();
    bool is_new = (flags & O_CREAT) != 0 && fault_observer != NULL && stat(path, &info) != 0;
    int fd = real_open(path, flags, mode);
    bool is_emptied = fd >= 0 && !is_new && (flags & O_TRUNC) != 0;
    fault_end(fd >= 0 && (is_new || is_emptied),
              &(fault_event){is_new ? FAULT_CREATED : FAULT_RESIZED, .fd = fd, .path = path});
    return fd;
}

FAULT_EARLY int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? (mode_t)va_arg(args, int) : 0;
    va_end(args);
    return fault_open(path, flags, mode);
}

FAULT_EARLY int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? (mode_t)va_arg(args, int) : 0;
    va_end(args);
    return fault_open(path, flags, mode);
}

/* ---- writing ---- */

FAULT_EARLY static inline ssize_t fault_write(int fd, const void *data, size_t size, int64_t offset)
{
    FAULT_NEED(pwrite);
    bool is_short = false;
    if (!fault_is_file(fd)) {
        return offset < 0 ? real_write(fd, data, size) : real_pwrite(fd, data, size, offset);
    }
    if (!fault_passes(FAULT_WRITE, &is_short)) {
        return -1;
    }
    size = is_short && size > 1 ? size / 2 : size;
    fault_begin();
    int64_t at = offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset;
    ssize_t count = offset < 0 ? real_write(fd, data, size) : real_pwrite(fd, data, size, offset);
    fault_end(count > 0, &(fault_event){FAULT_WRITTEN, .fd = fd, .data = data, .offset = at,
                                        .size = count > 0 ? (size_t)count : 0});
    return count;
}

FAULT_EARLY ssize_t write(int fd, const void *data, size_t size)
{
    FAULT_NEED(write);
    return fault_write(fd, data, size, -1);
}

FAULT_EARLY ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return fault_write(fd, data, size, offset);
}

FAULT_EARLY ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return fault_write(fd, data, size, offset);
}

FAULT_EARLY static inline int fault_resize(int fd, off_t size)
{
    FAULT_NEED(ftruncate);
    if (!fault_passes(FAULT_TRUNCATE, NULL)) {
        return -1;
    }
    fault_begin();
    int result = real_ftruncate(fd, size);
    fault_end(result == 0, &(fault_event){FAULT_RESIZED, .fd = fd, .offset = size});
    return result;
}

FAULT_EARLY int ftruncate(int fd, off_t size)
{
    return fault_resize(fd, size);
}

FAULT_EARLY int ftruncate64(int fd, off_t size)
{
    return fault_resize(fd, size);
}

FAULT_EARLY static inline int fault_sync(int fd, int (*real)(int))
{
    if (!fault_passes(FAULT_SYNC, NULL)) {
        return -1;
    }
    fault_begin();
    int result = real(fd);
    fault_end(result == 0, &(fault_event){FAULT_SYNCED, .fd = fd});
    return result;
}

FAULT_EARLY int fsync(int fd)
{
    FAULT_NEED(fsync);
    return fault_sync(fd, real_fsync);
}

FAULT_EARLY int fdatasync(int fd)
{
    FAULT_NEED(fdatasync);
    return fault_sync(fd, real_fdatasync);
}

/* ---- names ---- */

FAULT_EARLY int rename(const char *from, const char *to)
{
    FAULT_NEED(rename);
    if (!fault_passes(FAULT_RENAME, NULL)) {
        return -1;
    }
    fault_begin();
    int result = real_rename(from, to);
    fault_end(result == 0, &(fault_event){FAULT_RENAMED, .fd = -1, .path = from, .to = to});
    return result;
}

FAULT_EARLY int unlink(const char *path)
{
    FAULT_NEED(unlink);
    if (!fault_passes(FAULT_REMOVE, NULL)) {
        return -1;
    }
    fault_begin();
    int result = real_unlink(path);
    fault_end(result == 0, &(fault_event){FAULT_REMOVED, .fd = -1, .path = path});
    return result;
}

FAULT_EARLY int mkdir(const char *path, mode_t mode)
{
    FAULT_NEED(mkdir);
    fault_begin();
    int result = real_mkdir(path, mode);
    fault_end(result == 0, &(fault_event){FAULT_FOLDER, .fd = -1, .path = path});
    return result;
}

/* ---- maps and threads ---- */

FAULT_EARLY static inline void *fault_map(void *at, size_t size, int protection, int flags, int fd,
                                          off_t offset)
{
    FAULT_NEED(mmap);
    if (fd >= 0 && (flags & MAP_ANONYMOUS) == 0 && !fault_passes(FAULT_MAP, NULL)) {
        return MAP_FAILED;
    }
    return real_mmap(at, size, protection, flags, fd, offset);
}

FAULT_EARLY void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fault_map(at, size, protection, flags, fd, offset);
}

FAULT_EARLY void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fault_map(at, size, protection, flags, fd, offset);
}

FAULT_EARLY int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                               void *(*run)(void *), void *self)
{
    FAULT_NEED(pthread_create);
    return fault_passes(FAULT_THREAD, NULL) ? real_pthread_create(thread, attributes, run, self)
                                            : errno;
}

/* ---- streams of the C library, which FAISS writes its files through ---- */

FAULT_EARLY FILE *fopen(const char *path, const char *mode)
{
    struct stat info;
    FAULT_NEED(fopen);
    if (!fault_passes(FAULT_OPEN, NULL)) {
        return NULL;
    }
    fault_begin();
    bool is_new = mode[0] == 'w' && fault_observer != NULL && stat(path, &info) != 0;
    FILE *file = real_fopen(path, mode);
    fault_end(file != NULL && mode[0] == 'w',
              &(fault_event){is_new ? FAULT_CREATED : FAULT_RESIZED,
                             .fd = file == NULL ? -1 : fileno(file), .path = path});
    return file;
}

FAULT_EARLY size_t fwrite(const void *data, size_t size, size_t count, FILE *file)
{
    FAULT_NEED(fwrite);
    if (fault_is_file(fileno(file)) && fileno(file) > 2 && !fault_passes(FAULT_WRITE, NULL)) {
        return 0;
    }
    return real_fwrite(data, size, count, file);
}

/* What went through the stream is seen here, as one write: the C library's own calls cannot be. */
FAULT_EARLY static inline void fault_observe_stream(FILE *file)
{
    char path[64];
    struct stat info;
    int flags = fcntl(fileno(file), F_GETFL);
    if (fault_observer == NULL || flags < 0 || (flags & O_ACCMODE) == O_RDONLY ||
        fflush(file) != 0 || fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode) ||
        info.st_size == 0) {
        return;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(file));
    int fd = real_open(path, O_RDONLY);
    void *data = real_mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    fault_begin();
    fault_end(data != MAP_FAILED,
              &(fault_event){FAULT_WRITTEN, .fd = fd, .data = data, .size = (size_t)info.st_size});
    if (data != MAP_FAILED) {
        munmap(data, (size_t)info.st_size);
    }
    close(fd);
}

FAULT_EARLY int fclose(FILE *file)
{
    FAULT_NEED(fclose);
    fault_observe_stream(file);
    return real_fclose(file);
}

#endif
