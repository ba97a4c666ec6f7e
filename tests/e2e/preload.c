/* tests/fault/faults.h and journal.h as a library to be loaded before the real program:
 *
 *   cc -shared -fPIC -D_GNU_SOURCE -I. -o preload.so tests/e2e/preload.c
 *   LD_PRELOAD=./preload.so LORE_FAULT=write:12:once:28 lore ingest docs
 *
 * LORE_FAULT is KIND:N:MODE:ERRNO, the kind one of fault_names or "allocation", the mode once,
 * sticky, short or kill. With LORE_FAULT_COUNTS=FILE the calls of each kind are written there at
 * the end, a kind and a number in each line. */
#include "tests/fault/faults.h"

#include <stdlib.h>

static _Atomic int64_t allocations;
static int64_t failing_allocation; /* 0: none; set before main */
static bool failing_goes_on;

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);

/* Counting begins with main: what the dynamic linker and the libraries' starts take is not ours,
 * and those of the CUDA runtime, which is part of the program, do not live through a failure. */
static bool is_counting;
static int (*real_main)(int, char **, char **);

/* errno is set as the C library sets it, which believes in that itself. */
static bool allocation_passes(void)
{
    int64_t index = is_counting ? atomic_fetch_add(&allocations, 1) + 1 : 0;
    bool passes = index == 0 || failing_allocation == 0 || index < failing_allocation ||
                  (index > failing_allocation && !failing_goes_on);
    errno = passes ? errno : ENOMEM;
    return passes;
}

/* dlsym asks for memory while it looks for calloc: a little from here, which is never given back.
 */
static char early[4096];
static size_t early_used;

void *malloc(size_t size)
{
    if (real_malloc == NULL) {
        *(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
    }
    return allocation_passes() ? real_malloc(size) : NULL;
}

void *calloc(size_t count, size_t size)
{
    static bool is_looking;
    if (real_calloc == NULL && is_looking) {
        void *memory = early + early_used;
        early_used += (count * size + 15) & ~(size_t)15;
        return early_used <= sizeof early ? memory : NULL;
    }
    if (real_calloc == NULL) {
        is_looking = true;
        *(void **)&real_calloc = dlsym(RTLD_NEXT, "calloc");
    }
    return allocation_passes() ? real_calloc(count, size) : NULL;
}

void *realloc(void *memory, size_t size)
{
    if (real_realloc == NULL) {
        *(void **)&real_realloc = dlsym(RTLD_NEXT, "realloc");
    }
    return allocation_passes() ? real_realloc(memory, size) : NULL;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    if (real_aligned_alloc == NULL) {
        *(void **)&real_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    }
    return allocation_passes() ? real_aligned_alloc(alignment, size) : NULL;
}

static void write_counts(void)
{
    const char *path = getenv("LORE_FAULT_COUNTS");
    char line[64];
    is_counting = false;
    int fd = path == NULL ? -1 : real_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (int kind = 0; kind <= FAULT_KINDS && fd >= 0; kind++) {
        bool is_memory = kind == FAULT_KINDS;
        int length =
            snprintf(line, sizeof line, "%s %lld\n", is_memory ? "allocation" : fault_names[kind],
                     (long long)(is_memory ? allocations : fault_calls((fault_kind)kind)));
        if (real_write(fd, line, (size_t)length) != length) {
            _exit(99);
        }
    }
}

static int counted_main(int argc, char **argv, char **environment)
{
    is_counting = true;
    return real_main(argc, argv, environment);
}

/* The C library's, which runs the program's constructors and then main. */
int __libc_start_main(int (*program)(int, char **, char **), int argc, char **argv,
                      void (*init)(void), void (*fini)(void), void (*rtld_fini)(void), void *stack)
{
    int (*start)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                 void (*)(void), void *) = NULL;
    *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = program;
    return start(counted_main, argc, argv, init, fini, rtld_fini, stack);
}

__attribute__((constructor)) static void arm_from_environment(void)
{
    static const char *const modes[] = {"once", "sticky", "short", "kill"};
    char kind[16] = "", mode[16] = "";
    long long n = 0;
    int number = EIO;
    const char *asked = getenv("LORE_FAULT");
    fault_resolve();
    atexit(write_counts);
    for (int i = 0; i < FAULT_KINDS; i++) {
        fault_arm((fault_kind)i, 0, FAULT_ONCE, 0);
    }
    if (asked == NULL) {
        return;
    }
    if (sscanf(asked, "%15[a-z]:%lld:%15[a-z]:%d", kind, &n, mode, &number) < 3) {
        _exit(98);
    }
    for (int m = 0; m <= FAULT_KILL; m++) {
        for (int i = 0; i < FAULT_KINDS && strcmp(mode, modes[m]) == 0; i++) {
            if (strcmp(kind, fault_names[i]) == 0) {
                fault_arm((fault_kind)i, n, (fault_mode)m, number);
                return;
            }
        }
    }
    if (strcmp(kind, "allocation") != 0) {
        _exit(98);
    }
    failing_goes_on = strcmp(mode, "sticky") == 0;
    failing_allocation = n;
}
