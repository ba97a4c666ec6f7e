/* What is proved here: another program gets its input and gives its output; whatever it does
 * instead (hang, write without end, die, spawn, connect, use up memory, close its output and stay)
 * it ends in time with a name for it, and nothing of it is left; what we cannot do to start it is
 * an error. */
#include "ingest/child_int.h"
#include "tests/check.h"
#include "tests/fault/faults.h"

#include "base/clock.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { SHORT_MS = 400, LONG_MS = 20000 };

typedef struct taken {
    char text[4096];
    size_t used, bytes, most;
} taken;

static bool take(void *self, lore_str piece)
{
    taken *t = self;
    size_t kept = sizeof t->text - t->used < piece.len ? sizeof t->text - t->used : piece.len;
    memcpy(t->text + t->used, piece.ptr, kept);
    t->used += kept;
    t->bytes += piece.len;
    return t->most == 0 || t->bytes < t->most;
}

typedef struct outcome {
    lore_status status;
    lore_error err;
    lore_child_end end;
    taken output;
    int64_t ms;
} outcome;

static lore_child_options shell_options(const char *const *arguments, taken *output)
{
    return (lore_child_options){.program = "sh",
                                .arguments = arguments,
                                .input = LORE_STR("some input\n"),
                                .memory_bytes_max = (size_t)256 << 20,
                                .output_bytes_max = (size_t)1 << 20,
                                .ms_max = LONG_MS,
                                .take = take,
                                .self = output};
}

static outcome run_with(lore_child_options options, size_t most)
{
    outcome o = {.output = {.most = most}};
    int64_t start = lore_clock_ns();
    options.self = &o.output;
    o.status = lore_child_run(&options, &o.end, &o.err);
    o.ms = (lore_clock_ns() - start) / 1000000;
    CHECK(waitpid(-1, NULL, WNOHANG) <= 0); /* nothing is left to collect */
    return o;
}

static outcome run_shell(const char *script, int64_t ms_max)
{
    const char *const arguments[] = {"-c", script, NULL};
    lore_child_options options = shell_options(arguments, NULL);
    options.ms_max = ms_max;
    return run_with(options, 0);
}

static int64_t open_files(void)
{
    int64_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

TEST(input_goes_in_and_output_comes_out)
{
    outcome o = run_shell("exec cat", LONG_MS);
    CHECK_OK(o.status, &o.err);
    CHECK_STR(((lore_str){o.output.text, o.output.used}), "some input\n");
    CHECK_INT(o.end.exit_status, 0);
    o = run_shell("echo first >&2; echo >&2; printf 'the l\\303\\244st' >&2; exit 3", LONG_MS);
    CHECK_OK(o.status, &o.err);
    CHECK_INT(o.end.exit_status, 3);
    CHECK_STR(lore_str_from(o.end.message), "the l??st");
}

TEST(who_has_enough_ends_it)
{
    const char *const arguments[] = {"-c", "exec yes", NULL};
    outcome o = run_with(shell_options(arguments, NULL), 1000);
    CHECK_OK(o.status, &o.err);
    CHECK(o.end.is_stopped);
    CHECK(o.ms < LONG_MS);
}

TEST(what_hangs_is_ended)
{
    static const char *const scripts[] = {
        "exec sleep 100", "while :; do :; done", "trap '' TERM INT; while :; do :; done",
        "exec >&- 2>&-; while :; do :; done", "exec >&-; exec sleep 100"};
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        outcome o = run_shell(scripts[i], SHORT_MS);
        CHECK_FAILS(o.status, LORE_ERR_LIMIT, &o.err, "sh takes longer than 400 ms");
        CHECK(o.ms < LONG_MS);
    }
}

TEST(what_writes_without_end_is_ended)
{
    outcome o = run_shell("exec yes", LONG_MS);
    CHECK_FAILS(o.status, LORE_ERR_LIMIT, &o.err, "sh writes more than 1048576 bytes");
    o = run_shell("exec yes >&2", SHORT_MS);
    CHECK_FAILS(o.status, LORE_ERR_LIMIT, &o.err, "sh takes longer than 400 ms");
    CHECK(strlen(o.end.message) < sizeof o.end.message);
}

static bool want_to_stop(void *self)
{
    return ++*(int *)self > 2;
}

TEST(whom_nobody_waits_for_is_ended)
{
    const char *const arguments[] = {"-c", "exec sleep 100", NULL};
    int asked = 0;
    lore_interrupt interrupt = {want_to_stop, &asked};
    lore_child_options options = shell_options(arguments, NULL);
    options.interrupt = &interrupt;
    outcome o = run_with(options, 0);
    CHECK_FAILS(o.status, LORE_ERR_CANCELLED, &o.err, "cancelled while sh runs");
    CHECK(o.ms < LONG_MS);
}

/* A shell that may not fork cannot run a pipe, and one that writes to a file dies of it. */
TEST(fences_hold)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/lore-child-%d", (int)getpid());
    outcome o = run_shell("ls | cat; echo forked", LONG_MS);
    CHECK_OK(o.status, &o.err);
    CHECK(lore_str_find((lore_str){o.output.text, o.output.used}, LORE_STR("forked"), 0) ==
          SIZE_MAX);
    char script[256];
    snprintf(script, sizeof script, "echo words > %s; echo done", path);
    o = run_shell(script, LONG_MS);
    CHECK_OK(o.status, &o.err);
    struct stat info;
    CHECK(stat(path, &info) != 0 || info.st_size == 0);
    CHECK_INT(o.end.signal, SIGXFSZ);
    CHECK_INT(o.end.exit_status, -1);
    unlink(path);
    o = run_shell("ulimit -v; echo \"$HOME$PATH_OF_MINE\"", LONG_MS);
    CHECK_OK(o.status, &o.err);
    CHECK_STR(((lore_str){o.output.text, o.output.used}), "262144\n\n");
}

TEST(what_is_not_there)
{
    const char *const arguments[] = {NULL};
    lore_child_options options = shell_options(arguments, NULL);
    options.program = "no-such-program-anywhere";
    outcome o = run_with(options, 0);
    CHECK_FAILS(o.status, LORE_ERR_NOT_FOUND, &o.err, "no-such-program-anywhere is not installed");
}

/* What is called so is no program: the kernel says so, after the process has begun. */
TEST(what_is_no_program)
{
    const char *const arguments[] = {NULL};
    char path[256], old[4096];
    const char *folder = check_temp_dir(), *before = getenv("PATH");
    snprintf(path, sizeof path, "%s/no-program", folder);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL &&
          fputs("\x7F"
                "ELF, but not really",
                file) >= 0 &&
          fclose(file) == 0);
    CHECK_INT(chmod(path, 0700), 0);
    snprintf(old, sizeof old, "%s", before == NULL ? "" : before);
    setenv("PATH", folder, 1);
    lore_child_options options = shell_options(arguments, NULL);
    options.program = "no-program";
    outcome o = run_with(options, 0);
    setenv("PATH", old, 1);
    CHECK_INT(o.status, LORE_ERR_IO);
    CHECK(strstr(o.err.message, "cannot start '") != NULL);
}

/* No memory, no room for the input, no more file descriptors: an error each time, nothing is left.
 */
TEST(every_failure_is_an_error)
{
    const char *const arguments[] = {"-c", "exec cat", NULL};
    int64_t files = open_files(), before = lore_mem_count(), live = lore_mem_live();
    outcome o = run_with(shell_options(arguments, NULL), 0);
    CHECK_OK(o.status, &o.err);
    int64_t allocations = lore_mem_count() - before;
    CHECK(allocations > 0);
    for (int64_t n = 1; n <= allocations; n++) {
        lore_mem_fail_at(n, false);
        o = run_with(shell_options(arguments, NULL), 0);
        lore_mem_fail_at(0, false);
        CHECK_INT(o.status, LORE_ERR_NOMEM);
    }
    fault_arm(FAULT_WRITE, 1, FAULT_ONCE, ENOSPC);
    o = run_with(shell_options(arguments, NULL), 0);
    fault_arm(FAULT_WRITE, 0, FAULT_ONCE, 0);
    CHECK_INT(o.status, LORE_ERR_IO);
    struct rlimit limit, tight;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int left = 0; left < 5; left++) { /* of the five that it takes */
        tight = (struct rlimit){(rlim_t)(3 + left), limit.rlim_max};
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
        o = run_with(shell_options(arguments, NULL), 0);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        CHECK_INT(o.status, LORE_ERR_IO);
    }
    CHECK_INT(open_files(), files);
    CHECK_INT(lore_mem_live(), live);
}

CHECK_MAIN(input_goes_in_and_output_comes_out, who_has_enough_ends_it, what_hangs_is_ended,
           what_writes_without_end_is_ended, whom_nobody_waits_for_is_ended, fences_hold,
           what_is_not_there, what_is_no_program, every_failure_is_an_error)
