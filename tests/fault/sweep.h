/* A scenario again and again, with the first, second, ... call of a kind failing, until a run makes
 * fewer calls than that. After each failure: a status that fits and a message, no memory,
 * descriptor or thread left behind, the data whole, and the next attempt, with nothing failing,
 * succeeds.
 *
 * In a file under tests/long, which defines SWEEP_EVERY and includes the short test, every N is
 * tried; otherwise the first ones and then some in growing distances. */
#ifndef LORE_TESTS_SWEEP_H
#define LORE_TESTS_SWEEP_H

#include "base/log.h"
#include "tests/check.h"
#include "tests/fault/faults.h"

#include <dirent.h>
#include <time.h>

#ifdef SWEEP_EVERY
enum { SWEEP_IS_FULL = 1 };
#else
enum { SWEEP_IS_FULL = 0 };
#endif

#ifdef LORE_SANITIZED
enum { SWEEP_DISTANCE = 4 }; /* a run takes ten times as long */
#else
enum { SWEEP_DISTANCE = 1 };
#endif

typedef struct sweep {
    const char *name;
    void (*prepare)(void *self);                      /* before each run; may be NULL */
    lore_status (*run)(void *self, lore_error *err);  /* succeeds where nothing fails */
    int32_t (*check)(void *self, lore_status status); /* problems after a run that ended so */
    void *self;
    int64_t runs, failures;     /* so far */
    int64_t (*next)(int64_t n); /* the next N to try, NULL: sweep_next */
    bool keeps_caches;          /* of memory and connections; the case itself counts at its end */
} sweep;

/* A way to fail. */
typedef struct sweep_manner {
    fault_kind kind; /* FAULT_KINDS: an allocation */
    fault_mode mode;
    int number;
} sweep_manner;

static const sweep_manner sweep_manners[] = {
    {FAULT_OPEN, FAULT_ONCE, EIO},        {FAULT_OPEN, FAULT_STICKY, EMFILE},
    {FAULT_WRITE, FAULT_ONCE, EIO},       {FAULT_WRITE, FAULT_STICKY, ENOSPC},
    {FAULT_WRITE, FAULT_SHORT, 0},        {FAULT_SYNC, FAULT_ONCE, EIO},
    {FAULT_SYNC, FAULT_STICKY, EIO},      {FAULT_RENAME, FAULT_ONCE, EIO},
    {FAULT_RENAME, FAULT_STICKY, EACCES}, {FAULT_TRUNCATE, FAULT_ONCE, EIO},
    {FAULT_TRUNCATE, FAULT_STICKY, EIO},  {FAULT_REMOVE, FAULT_ONCE, EIO},
    {FAULT_REMOVE, FAULT_STICKY, EACCES}, {FAULT_MAP, FAULT_ONCE, ENOMEM},
    {FAULT_MAP, FAULT_STICKY, ENOMEM},    {FAULT_THREAD, FAULT_ONCE, EAGAIN},
    {FAULT_THREAD, FAULT_STICKY, EAGAIN},
};
static const sweep_manner sweep_memory[] = {{FAULT_KINDS, FAULT_ONCE, 0},
                                            {FAULT_KINDS, FAULT_STICKY, 0}};

CHECK_UNUSED static void sweep_swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

CHECK_UNUSED static int64_t sweep_entries(const char *path)
{
    int64_t count = 0;
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

typedef struct sweep_held {
    int64_t memory, descriptors, threads;
} sweep_held;

CHECK_UNUSED static sweep_held sweep_count_held(void)
{
    return (sweep_held){lore_mem_live(), sweep_entries("/proc/self/fd"),
                        sweep_entries("/proc/self/task")};
}

CHECK_UNUSED static void sweep_check_held(const sweep *s, const char *what, sweep_held before)
{
    sweep_held now = sweep_count_held();
    for (int i = 0; i < 100 && now.threads > before.threads; i++) {
        usleep(1000); /* a joined thread is listed a moment longer */
        now = sweep_count_held();
    }
    bool is_more = now.memory > before.memory || now.descriptors > before.descriptors;
    if ((is_more && !s->keeps_caches) || now.threads > before.threads) {
        CHECK_STOP("%s: leaks %lld blocks, %lld descriptors, %lld threads", what,
                   (long long)(now.memory - before.memory),
                   (long long)(now.descriptors - before.descriptors),
                   (long long)(now.threads - before.threads));
    }
}

/* Does a failure of this kind end like this? */
CHECK_UNUSED static bool sweep_fits(const sweep_manner *manner, lore_status status)
{
    bool is_scarce = manner->kind == FAULT_MAP || manner->kind == FAULT_THREAD;
    return manner->kind == FAULT_KINDS
               ? status == LORE_ERR_NOMEM
               : status == LORE_ERR_IO || (is_scarce && status == LORE_ERR_NOMEM);
}

/* One run with the n-th call failing, and one after it with none. False: it was not reached. */
CHECK_UNUSED static bool sweep_one(sweep *s, const sweep_manner *manner, int64_t n)
{
    lore_error err = {0};
    char what[128];
    bool is_memory = manner->kind == FAULT_KINDS;
    snprintf(what, sizeof what, "%s: %s %lld %s", s->name,
             is_memory ? "allocation" : fault_names[manner->kind], (long long)n,
             manner->mode == FAULT_ONCE    ? "failing"
             : manner->mode == FAULT_SHORT ? "cut short"
                                           : "and later failing");
    if (s->prepare != NULL) {
        s->prepare(s->self);
    }
    sweep_held held = sweep_count_held();
    int64_t made = lore_mem_count();
    if (is_memory) {
        lore_mem_fail_at(n, manner->mode == FAULT_STICKY);
    } else {
        fault_arm(manner->kind, n, manner->mode, manner->number);
    }
    lore_status status = s->run(s->self, &err);
    bool was_hit = is_memory ? lore_mem_count() - made >= n : fault_calls(manner->kind) >= n;
    lore_mem_fail_at(0, false);
    for (fault_kind kind = 0; kind < FAULT_KINDS; kind++) {
        fault_arm(kind, 0, FAULT_ONCE, 0);
    }
    sweep_check_held(s, what, held);
    if (status != LORE_OK && (!was_hit || !sweep_fits(manner, status) || err.message[0] == '\0')) {
        CHECK_STOP("%s: %s: '%s'", what, lore_status_name(status), err.message);
    }
    int32_t problems = s->check(s->self, status);
    if (problems > 0) {
        CHECK_STOP("%s: %d problems (it gave %s: '%s')", what, (int)problems,
                   lore_status_name(status), status == LORE_OK ? "" : err.message);
    }
    if (was_hit) {
        lore_status again = s->run(s->self, &err);
        if (again != LORE_OK || s->check(s->self, LORE_OK) > 0) {
            CHECK_STOP("%s: the next attempt: %s: '%s'", what, lore_status_name(again),
                       again == LORE_OK ? "" : err.message);
        }
    }
    s->runs++;
    s->failures += status != LORE_OK;
    return was_hit;
}

/* LORE_SWEEP_PART=2/16 tries the third of every sixteen: a long sweep over many cores. */
typedef struct sweep_part {
    int32_t number, count;
} sweep_part;

CHECK_UNUSED static sweep_part sweep_part_read(void)
{
    sweep_part part = {0, 1};
    const char *text = getenv("LORE_SWEEP_PART");
    bool is_read = text == NULL || sscanf(text, "%d/%d", &part.number, &part.count) == 2;
    CHECK(is_read && part.number >= 0 && part.number < part.count);
    return part;
}

CHECK_UNUSED static int64_t sweep_next(int64_t n)
{
    return n + (SWEEP_IS_FULL || n < 4 ? 1 : n * SWEEP_DISTANCE);
}

/* Each manner at its samples, or at every call. */
CHECK_UNUSED static void sweep_all(sweep *s, const sweep_manner *manners, size_t count)
{
    lore_error err = {0};
    time_t start = time(NULL); /* not lore_clock_ns, which a case may have replaced */
    sweep_part part = sweep_part_read();
    lore_log_set_sink(sweep_swallow, NULL);
    if (s->prepare != NULL) {
        s->prepare(s->self);
    }
    CHECK_OK(s->run(s->self, &err), &err); /* what is kept for ever exists from here on */
    CHECK_INT(s->check(s->self, LORE_OK), 0);
    for (size_t i = 0; i < count; i++) {
        bool was_hit = true;
        int64_t n = 1;
        for (int64_t k = 0; was_hit; k++) {
            was_hit = k % part.count != part.number || sweep_one(s, &manners[i], n);
            n = s->next != NULL ? s->next(n) : sweep_next(n);
        }
    }
    lore_log_set_sink(NULL, NULL);
    fprintf(stderr, "%s: %lld runs, %lld of them failed, %lld s\n", s->name, (long long)s->runs,
            (long long)s->failures, (long long)(time(NULL) - start));
    CHECK(s->failures > 0 || part.count > 1);
}

CHECK_UNUSED static void sweep_files(sweep *s)
{
    sweep_all(s, sweep_manners, sizeof sweep_manners / sizeof sweep_manners[0]);
}

CHECK_UNUSED static void sweep_allocations(sweep *s)
{
    sweep_all(s, sweep_memory, sizeof sweep_memory / sizeof sweep_memory[0]);
}

/* ---- folders ---- */

CHECK_UNUSED static void sweep_remove_folder(const char *path)
{
    nftw(path, check_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* A flat folder again under another name, which must not exist. */
CHECK_UNUSED static void sweep_copy_folder(const char *from, const char *to)
{
    DIR *folder = opendir(from);
    CHECK(folder != NULL && mkdir(to, 0755) == 0);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char path[1024];
        static char data[1 << 16];
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", from, entry->d_name);
        FILE *in = fopen(path, "rb");
        snprintf(path, sizeof path, "%s/%s", to, entry->d_name);
        FILE *out = fopen(path, "wb");
        CHECK(in != NULL && out != NULL);
        for (size_t got; (got = fread(data, 1, sizeof data, in)) > 0;) {
            CHECK(fwrite(data, 1, got, out) == got);
        }
        CHECK(fclose(in) == 0 && fclose(out) == 0);
    }
    closedir(folder);
}

#endif
