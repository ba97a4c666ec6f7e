/* The test frame: one executable per test file; the first failed check ends its case.
 *
 *   TEST(adds_up) { CHECK_INT(1 + 1, 2); }
 *   CHECK_MAIN(adds_up)
 *
 * A case that leaks lore_alloc memory fails; write `#define CHECK_LEAKS 0` before including where
 * something lives as long as the process. An argument on the command line runs only the cases whose
 * name holds it. Exit: 0 passed, 1 failed, 77 everything skipped. Checks work on the main thread
 * only; other threads hand their results to it. */
#ifndef LORE_TESTS_CHECK_H
#define LORE_TESTS_CHECK_H

#include "base/error.h"
#include "base/mem.h"
#include "base/str.h"

#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef CHECK_LEAKS
#define CHECK_LEAKS 1
#endif
#ifndef LORE_SOURCE_DIR
#define LORE_SOURCE_DIR "." /* compiled by hand: run from the root of the repository */
#endif
#define CHECK_UNUSED __attribute__((unused))

typedef struct check_case {
    const char *name;
    void (*run)(void);
} check_case;

static jmp_buf check_exit; /* value 1: failed, 2: skipped */
static char check_temp[64];

/* Two definitions under one name: `name` is an array of one case, which decays to the pointer that
 * CHECK_MAIN lists. A case nobody lists is an unused constant and does not compile. */
#define TEST(name)                                           \
    static void name##_run(void);                            \
    static const check_case name[1] = {{#name, name##_run}}; \
    static void name##_run(void)

#define CHECK_STOP(...)                                 \
    do {                                                \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
        fprintf(stderr, __VA_ARGS__);                   \
        fputc('\n', stderr);                            \
        longjmp(check_exit, 1);                         \
    } while (0)

#define CHECK(condition)                            \
    do {                                            \
        if (!(condition)) {                         \
            CHECK_STOP("not true: %s", #condition); \
        }                                           \
    } while (0)

#define CHECK_INT(a, b)                                                                      \
    do {                                                                                     \
        int64_t check_a = (int64_t)(a), check_b = (int64_t)(b);                              \
        if (check_a != check_b) {                                                            \
            CHECK_STOP("%s is %" PRId64 ", not %s (%" PRId64 ")", #a, check_a, #b, check_b); \
        }                                                                                    \
    } while (0)

#define CHECK_STR(a, text)                                                     \
    do {                                                                       \
        lore_str check_a = (a), check_b = lore_str_from(text);                 \
        if (!lore_str_equal(check_a, check_b)) {                               \
            CHECK_STOP("%s is '" LORE_STR_FMT "', not '" LORE_STR_FMT "'", #a, \
                       LORE_STR_ARG(check_a), LORE_STR_ARG(check_b));          \
        }                                                                      \
    } while (0)

#define CHECK_NEAR(a, b, tolerance)                                            \
    do {                                                                       \
        double check_a = (double)(a), check_b = (double)(b);                   \
        if (!(fabs(check_a - check_b) <= (double)(tolerance))) {               \
            CHECK_STOP("%s is %.9g, not %s (%.9g)", #a, check_a, #b, check_b); \
        }                                                                      \
    } while (0)

#define CHECK_OK(expression, err)                                                                  \
    do {                                                                                           \
        lore_status check_status = (expression);                                                   \
        if (check_status != LORE_OK) {                                                             \
            CHECK_STOP("%s: %s: %s", #expression, lore_status_name(check_status), (err)->message); \
        }                                                                                          \
    } while (0)

/* The expression fails with this status and its message holds this text ("" for any). */
#define CHECK_FAILS(expression, expected, err, text)                                               \
    do {                                                                                           \
        lore_status check_status = (expression);                                                   \
        if (check_status != (expected) || strstr((err)->message, (text)) == NULL) {                \
            CHECK_STOP("%s: status %s, message '%s'", #expression, lore_status_name(check_status), \
                       check_status == LORE_OK ? "" : (err)->message);                             \
        }                                                                                          \
    } while (0)

#define CHECK_SKIP(why)                                                     \
    do {                                                                    \
        fprintf(stderr, "%s:%d: skipped: %s\n", __FILE__, __LINE__, (why)); \
        longjmp(check_exit, 2);                                             \
    } while (0)

/* Run `run` again and again with the first, second, ... allocation failing, alone and with all
 * later ones, until a run makes fewer allocations than that. Each must give LORE_ERR_NOMEM (or
 * LORE_OK where it can do without) and free all it took. */
CHECK_UNUSED static void check_alloc_sweep(lore_status (*run)(void *self), void *self)
{
    for (int sticky = 0; sticky < 2; sticky++) {
        for (int64_t n = 1;; n++) {
            int64_t live = lore_mem_live(), made = lore_mem_count();
            lore_mem_fail_at(n, sticky != 0);
            lore_status status = run(self);
            lore_mem_fail_at(0, false);
            bool was_hit = lore_mem_count() - made >= n;
            if (lore_mem_live() != live) {
                CHECK_STOP("allocation %" PRId64 " failing leaks %" PRId64 " blocks", n,
                           lore_mem_live() - live);
            }
            if (status != LORE_OK && (!was_hit || status != LORE_ERR_NOMEM)) {
                CHECK_STOP("allocation %" PRId64 " failing gives status %s", n,
                           lore_status_name(status));
            }
            if (!was_hit) {
                break;
            }
        }
    }
}

CHECK_UNUSED static int check_remove(const char *path, const struct stat *info, int kind,
                                     struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

/* A folder of this process for scratch files, removed at the end. */
CHECK_UNUSED static const char *check_temp_dir(void)
{
    if (check_temp[0] == '\0') {
        snprintf(check_temp, sizeof check_temp, "/tmp/lore-test-XXXXXX");
        CHECK(mkdtemp(check_temp) != NULL);
    }
    return check_temp;
}

/* Run one case. Gives 0 passed, 1 failed, 2 skipped. */
static int check_one(const check_case *one)
{
    int64_t live = lore_mem_live();
    int outcome = setjmp(check_exit);
    if (outcome == 0) {
        one->run();
        if (CHECK_LEAKS && lore_mem_live() != live) {
            CHECK_STOP("%s leaks %" PRId64 " blocks", one->name, lore_mem_live() - live);
        }
    }
    lore_mem_fail_at(0, false);
    return outcome;
}

static int check_all(const check_case *const *cases, size_t count, const char *filter)
{
    int outcomes[3] = {0, 0, 0};
    for (size_t i = 0; i < count; i++) {
        if (filter != NULL && strstr(cases[i]->name, filter) == NULL) {
            continue;
        }
        int outcome = check_one(cases[i]);
        outcomes[outcome]++;
        if (outcome == 1) {
            fprintf(stderr, "FAILED %s\n", cases[i]->name);
        }
    }
    if (check_temp[0] != '\0') {
        nftw(check_temp, check_remove, 8, FTW_DEPTH | FTW_PHYS);
    }
    printf("%d passed, %d failed, %d skipped\n", outcomes[0], outcomes[1], outcomes[2]);
    return outcomes[1] > 0 ? 1 : outcomes[0] == 0 && outcomes[2] > 0 ? 77 : 0;
}

#define CHECK_MAIN(...)                                                                     \
    int main(int argc, char **argv)                                                         \
    {                                                                                       \
        static const check_case *const cases[] = {__VA_ARGS__};                             \
        return check_all(cases, sizeof cases / sizeof cases[0], argc > 1 ? argv[1] : NULL); \
    }

#endif
