/* What the fuzz targets share: what every one of them asserts of cost and of refusals.
 *
 * Cost is processor time of this thread, so a busy machine fails no run. The bound is far above
 * what the slowest parser needs in a build with sanitizers, and far below what quadratic work takes
 * on some kilobytes; fuzz_repeated makes such kilobytes of a short input. */
#ifndef LORE_TESTS_FUZZ_H
#define LORE_TESTS_FUZZ_H

#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    FUZZ_MS_FREE = 250,   /* first calls into a library read its tables */
    FUZZ_MS_PER_KIB = 10, /* the slowest parser takes less than one */
    FUZZ_UNIT_MAX = 48,
    FUZZ_PATH_CAP = 64,
    FUZZ_REPEATED_BYTES = 16 * 1024
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline int64_t fuzz_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Work on `bytes` of input began at `start_ns`. */
static inline void fuzz_check_cost(int64_t start_ns, size_t bytes)
{
    int64_t spent_ms = (fuzz_cpu_ns() - start_ns) / 1000000;
    int64_t allowed_ms = FUZZ_MS_FREE + (int64_t)(bytes / 1024) * FUZZ_MS_PER_KIB;
    if (spent_ms > allowed_ms) {
        fprintf(stderr, "%lld ms for %zu bytes, over %lld\n", (long long)spent_ms, bytes,
                (long long)allowed_ms);
        abort();
    }
}

/* A refusal says which kind it is, and why, in text. */
static inline void fuzz_check_refusal(lore_status status, const lore_error *err)
{
    lore_str message = lore_str_from(err->message);
    LORE_ASSERT(status != LORE_OK);
    LORE_ASSERT(status != LORE_ERR_NOMEM); /* nothing fails here; limits have their own status */
    LORE_ASSERT(err->status == status);
    LORE_ASSERT(message.len > 0);
    LORE_ASSERT(message.len < LORE_ERROR_MESSAGE_CAP);
}

/* One input in 128 is also tried as a repetition of its beginning. NULL for the others; to be freed
 * with lore_free. */
static inline char *fuzz_repeated(lore_str input)
{
    size_t unit = input.len < FUZZ_UNIT_MAX ? input.len : FUZZ_UNIT_MAX;
    if (unit == 0 || lore_str_hash(input) % 128 != 0) {
        return NULL;
    }
    char *repeated = lore_alloc(FUZZ_REPEATED_BYTES);
    LORE_ASSERT(repeated != NULL);
    for (size_t at = 0; at < FUZZ_REPEATED_BYTES; at++) {
        repeated[at] = input.ptr[at % unit];
    }
    return repeated;
}

/* The whole of a target that checks texts: the input, and now and then its repetition. */
static inline int fuzz_text(const uint8_t *data, size_t size, void (*check)(lore_str text))
{
    lore_str text = {size == 0 ? "" : (const char *)data, size};
    check(text);
    char *repeated = fuzz_repeated(text);
    if (repeated != NULL) {
        check((lore_str){repeated, FUZZ_REPEATED_BYTES});
        lore_free(repeated);
    }
    return 0;
}

/* Nothing but white space, the kind of no-break spaces too. */
static inline bool fuzz_is_blank(lore_str s)
{
    for (size_t at = 0; at < s.len;) {
        if (!lore_utf8_is_space(lore_utf8_next(s, &at))) {
            return false;
        }
    }
    return true;
}

/* A file in memory that lives as long as the process, and the path under which it can be opened:
 * for parsers that want a path. */
static inline int fuzz_file_new(char path[FUZZ_PATH_CAP])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    LORE_ASSERT(fd >= 0);
    snprintf(path, FUZZ_PATH_CAP, "/proc/self/fd/%d", fd);
    return fd;
}

static inline void fuzz_file_fill(int fd, const void *data, size_t size)
{
    LORE_ASSERT(ftruncate(fd, 0) == 0);
    LORE_ASSERT(size == 0 || pwrite(fd, data, size, 0) == (ssize_t)size);
}

#endif
