/* Threads and the lock with a deadline. */
#include "base/thread.h"

#include "base/clock.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    NAME_CAP = 16, /* what the kernel keeps of a thread's name, NUL included */
    REPLACED_CLOCK_SLICE_NS = 1000000
};

static _Atomic int64_t start_failure; /* starts until one fails, 0: none */

static bool start_must_fail(void)
{
    int64_t left = atomic_load_explicit(&start_failure, memory_order_relaxed);
    return left > 0 && atomic_fetch_sub_explicit(&start_failure, 1, memory_order_relaxed) == 1;
}

void lore_thread_fail_at(int64_t n)
{
    LORE_ASSERT(n >= 0);
    atomic_store_explicit(&start_failure, n, memory_order_relaxed);
}

/* Signals for the process belong to the main thread, which waits for them; a thread of ours takes
 * only those that its own instructions raise. */
static void signals_of_a_thread(sigset_t *blocked)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGPROF};
    sigfillset(blocked);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        sigdelset(blocked, own[i]);
    }
}

lore_status lore_thread_start(lore_thread *thread, const char *name, void *(*run)(void *),
                              void *self, lore_error *err)
{
    thread->is_started = false;
    if (start_must_fail()) {
        return lore_fail(err, LORE_ERR_NOMEM, "cannot start thread '%s': %s", name,
                         strerror(EAGAIN));
    }
    sigset_t blocked;
    sigset_t before;
    signals_of_a_thread(&blocked);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int failure = pthread_create(&thread->handle, NULL, run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0) {
        return lore_fail(err, LORE_ERR_NOMEM, "cannot start thread '%s': %s", name,
                         strerror(failure));
    }
    char short_name[NAME_CAP];
    snprintf(short_name, sizeof short_name, "%.15s", name);
    pthread_setname_np(thread->handle, short_name);
    thread->is_started = true;
    return LORE_OK;
}

void lore_thread_lower_priority(void)
{
    enum { NICE = 10 }; /* a tenth of the weight of a thread at 0 */
    /* Linux keeps the nice value per thread, and 0 means the caller. */
    (void)setpriority(PRIO_PROCESS, 0, NICE);
}

void lore_thread_join(lore_thread *thread)
{
    if (thread == NULL || !thread->is_started) {
        return;
    }
    int failure = pthread_join(thread->handle, NULL);
    LORE_ASSERT(failure == 0);
    thread->is_started = false;
}

/* ---- cores ---- */

/* The first line of a small kernel file; false when it cannot be read. */
static bool read_line(const char *path, char *line, size_t cap_bytes)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    bool has_line = fgets(line, (int)cap_bytes, file) != NULL;
    fclose(file);
    return has_line;
}

/* Cores that one "quota period" line grants ("max 100000": no bound). Rounded down, because a
 * thread without a core of its own is one that the others wait for. */
static int32_t cores_of_quota(const char *quota_text, const char *period_text, int32_t most)
{
    long long quota = strtoll(quota_text, NULL, 10); /* "max" and "-1" are not positive */
    long long period = strtoll(period_text, NULL, 10);
    if (quota <= 0 || period <= 0 || quota / period >= most) {
        return most;
    }
    return quota < period ? 1 : (int32_t)(quota / period);
}

static int32_t cores_of_group_v2(const char *folder, int32_t most)
{
    char path[4096];
    char line[128];
    int length = snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    if (length < 0 || (size_t)length >= sizeof path || !read_line(path, line, sizeof line)) {
        return most;
    }
    const char *space = strchr(line, ' ');
    return space == NULL ? most : cores_of_quota(line, space, most);
}

static int32_t cores_of_group_v1(int32_t most)
{
    char quota[64];
    char period[64];
    if (!read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota, sizeof quota) ||
        !read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period, sizeof period)) {
        return most;
    }
    return cores_of_quota(quota, period, most);
}

/* The tightest bound of the process' control group and all above it. Inside a container the path
 * may name folders that are not mounted; the root is then what counts. */
static int32_t cores_of_groups(int32_t most)
{
    char line[2048];
    most = cores_of_group_v1(most);
    most = cores_of_group_v2("", most);
    if (!read_line("/proc/self/cgroup", line, sizeof line) || strncmp(line, "0::/", 4) != 0) {
        return most;
    }
    char *folder = line + 3;
    folder[strcspn(folder, "\n")] = '\0';
    while (folder[0] != '\0') {
        most = cores_of_group_v2(folder, most);
        *strrchr(folder, '/') = '\0'; /* it starts with a slash, so there is one */
    }
    return most;
}

int32_t lore_cpu_count(void)
{
    cpu_set_t set;
    int32_t count = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        count = CPU_COUNT(&set);
    } else {
        count = (int32_t)sysconf(_SC_NPROCESSORS_ONLN); /* more cores than the set holds */
    }
    return cores_of_groups(count < 1 ? 1 : count);
}

/* ---- lock ---- */

void lore_lock_init(lore_lock *lock)
{
    pthread_condattr_t attributes;
    int failure = pthread_condattr_init(&attributes);
    LORE_ASSERT(failure == 0);
    failure = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    LORE_ASSERT(failure == 0);
    failure = pthread_cond_init(&lock->changed, &attributes);
    LORE_ASSERT(failure == 0);
    failure = pthread_mutex_init(&lock->mutex, NULL);
    LORE_ASSERT(failure == 0);
    pthread_condattr_destroy(&attributes);
}

void lore_lock_destroy(lore_lock *lock)
{
    if (lock != NULL) {
        pthread_cond_destroy(&lock->changed);
        pthread_mutex_destroy(&lock->mutex);
    }
}

void lore_lock_acquire(lore_lock *lock)
{
    int failure = pthread_mutex_lock(&lock->mutex);
    LORE_ASSERT(failure == 0);
}

void lore_lock_release(lore_lock *lock)
{
    int failure = pthread_mutex_unlock(&lock->mutex);
    LORE_ASSERT(failure == 0);
}

/* True also when woken for nothing: callers test their condition in a loop anyway. While a test
 * owns the time, the wait is cut into slices of real time, after which the caller asks the test's
 * clock. */
bool lore_lock_wait(lore_lock *lock, int64_t deadline_ns)
{
    if (deadline_ns == 0) {
        pthread_cond_wait(&lock->changed, &lock->mutex);
        return true;
    }
    if (lore_deadline_passed(deadline_ns)) {
        return false;
    }
    struct timespec until;
    if (lore_clock_is_replaced()) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t later_ns = until.tv_nsec + REPLACED_CLOCK_SLICE_NS;
        until.tv_sec += later_ns / 1000000000;
        until.tv_nsec = later_ns % 1000000000;
        pthread_cond_timedwait(&lock->changed, &lock->mutex, &until);
        return true;
    }
    until.tv_sec = deadline_ns / 1000000000;
    until.tv_nsec = deadline_ns % 1000000000;
    return pthread_cond_timedwait(&lock->changed, &lock->mutex, &until) != ETIMEDOUT;
}

void lore_lock_wake_one(lore_lock *lock)
{
    pthread_cond_signal(&lock->changed);
}

void lore_lock_wake_all(lore_lock *lock)
{
    pthread_cond_broadcast(&lock->changed);
}
