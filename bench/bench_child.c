/* See bench_child.h. The child is started with posix_spawn, which is safe beside the threads of
 * pools, and its memory is read from /proc: getrusage would count what this process had when it was
 * copied. */
#include "bench/bench_child.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
    WORDS_MAX = 16, /* of a command line */
    LOOK_MS = 3,    /* how often the memory of a child is looked at */
    LINE_BYTES_MAX = 16 << 20,
    STATUS_BYTES_MAX = 1 << 16,
    PATH_BYTES = 320
};

/* ---- start ---- */

static lore_status write_config(lore_bench *bench, const char *path, lore_error *err)
{
    if (lore_file_exists(path)) {
        return LORE_OK;
    }
    lore_buf json;
    lore_buf_init(&json, 0);
    lore_config_print(bench->config, false, &json);
    lore_status status = lore_buf_failed(&json)
                             ? lore_fail(err, LORE_ERR_NOMEM, "no memory for a configuration")
                             : lore_file_replace(path, lore_buf_str(&json), err);
    lore_buf_destroy(&json);
    return status;
}

/* The environment without LORE_*: those are in the file already, under flags that may differ. */
static char **child_environment(lore_arena *arena)
{
    size_t count = 0, kept = 0;
    while (environ[count] != NULL) {
        count++;
    }
    char **list = LORE_PUSH(arena, char *, count + 1);
    for (size_t i = 0; list != NULL && i < count; i++) {
        if (strncmp(environ[i], "LORE_", 5) != 0) {
            list[kept++] = environ[i];
        }
    }
    return list;
}

static lore_status spawn(lore_bench_child *child, char *const *argv, char *const *environment,
                         lore_error *err)
{
    int ends[2];
    posix_spawn_file_actions_t actions;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot make a pipe: %s", strerror(errno));
    }
    int failure = posix_spawn_file_actions_init(&actions);
    if (failure == 0) {
        failure = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        if (failure == 0) {
            child->started_ns = lore_clock_ns();
            failure = posix_spawn(&child->pid, "/proc/self/exe", &actions, NULL, argv, environment);
        }
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (failure != 0) {
        close(ends[0]);
        child->pid = 0;
        return lore_fail(err, LORE_ERR_IO, "cannot start lore again: %s", strerror(failure));
    }
    child->out = ends[0];
    return LORE_OK;
}

lore_status lore_bench_child_start(lore_bench *bench, const char *data, const char *const *words,
                                   int32_t count, lore_bench_child *child, lore_error *err)
{
    LORE_ASSERT(count <= WORDS_MAX);
    lore_status status = lore_bench_scratch(bench, err);
    if (status != LORE_OK) {
        return status;
    }
    char config[PATH_BYTES];
    snprintf(config, sizeof config, "%s/config.json", bench->scratch);
    status = write_config(bench, config, err);
    if (status != LORE_OK) {
        return status;
    }
    const char *argv[WORDS_MAX + 7] = {"lore", "--config", config, "--data", data, "--json"};
    memcpy(argv + 6, words, (size_t)count * sizeof argv[0]);
    char **environment = child_environment(&bench->arena);
    if (environment == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for an environment");
    }
    *child = (lore_bench_child){0};
    return spawn(child, (char *const *)(uintptr_t)argv, environment, err);
}

/* ---- memory ---- */

int64_t lore_bench_child_memory(const lore_bench_child *child, const char *field)
{
    char path[64];
    lore_buf text;
    lore_str line;
    int64_t kilobytes = 0;
    lore_error err;
    snprintf(path, sizeof path, "/proc/%d/status", (int)child->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    lore_buf_init(&text, 0);
    lore_status status = lore_file_read_fd(fd, path, STATUS_BYTES_MAX, &text, &err);
    close(fd);
    size_t length = strlen(field);
    for (lore_str rest = lore_buf_str(&text);
         status == LORE_OK && lore_str_next_line(&rest, &line);) {
        if (lore_str_starts(line, (lore_str){field, length}) && line.len > length &&
            line.ptr[length] == ':' && lore_str_ends(line, LORE_STR(" kB"))) {
            (void)lore_str_to_int64(lore_str_trim(lore_str_slice(line, length + 1, line.len - 3)),
                                    &kilobytes);
        }
    }
    lore_buf_destroy(&text);
    return kilobytes * 1024;
}

/* ---- output and end ---- */

lore_status lore_bench_child_line(lore_bench_child *child, lore_buf *line, int64_t *peak_bytes,
                                  lore_error *err)
{
    for (char byte = 0; byte != '\n';) {
        struct pollfd wanted = {.fd = child->out, .events = POLLIN};
        int ready = poll(&wanted, 1, LOOK_MS);
        if (peak_bytes != NULL) {
            int64_t now = lore_bench_child_memory(child, "VmHWM");
            *peak_bytes = now > *peak_bytes ? now : *peak_bytes;
        }
        if (ready <= 0) {
            continue;
        }
        /* Byte by byte up to the end of the line, which comes in one write: what is behind it
         * stays in the pipe. */
        ssize_t got = 0;
        do {
            got = read(child->out, &byte, 1);
            if (got == 1) {
                lore_buf_byte(line, byte);
            }
        } while (got == 1 && byte != '\n' && line->len < LINE_BYTES_MAX &&
                 poll(&wanted, 1, 0) == 1);
        if (got <= 0 || line->len >= LINE_BYTES_MAX) {
            return lore_fail(err, LORE_ERR_IO, "lore ended without saying what it did");
        }
    }
    return lore_buf_failed(line) ? lore_fail(err, LORE_ERR_NOMEM, "no memory for output") : LORE_OK;
}

int lore_bench_child_end(lore_bench_child *child, int signal_number)
{
    if (child->pid == 0) {
        return 0;
    }
    int how = 0;
    if (signal_number != 0) {
        kill(child->pid, signal_number);
    }
    while (waitpid(child->pid, &how, 0) < 0 && errno == EINTR) {
    }
    close(child->out);
    child->pid = 0;
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

/* ---- ingest ---- */

static lore_status read_counts(lore_str json, lore_bench_ingested *done, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(json, LORE_JSON_WRITER_DEPTH_MAX, &root, err);
    const struct {
        const char *name;
        int64_t *to;
    } COUNTS[] = {{"seen", &done->documents},
                  {"chunks", &done->chunks},
                  {"tokens", &done->tokens},
                  {"text_bytes", &done->text_bytes},
                  {"failed", &done->failed}};
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0] && status == LORE_OK; i++) {
        status = lore_json_get_int_required(root, "", COUNTS[i].name, 0, INT64_MAX / 1024,
                                            COUNTS[i].to, err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_number(root, "", "seconds", 0.0, 1e9, &done->seconds, err);
    }
    lore_json_free(root);
    return status;
}

lore_status lore_bench_child_ingest(lore_bench *bench, const char *data, const char *collection,
                                    const char *path, lore_bench_ingested *done, lore_error *err)
{
    const char *const words[] = {"ingest", "-c", collection, path};
    lore_bench_child child = {0};
    lore_buf line;
    *done = (lore_bench_ingested){0};
    lore_buf_init(&line, 0);
    lore_status status = lore_bench_child_start(bench, data, words, 4, &child, err);
    if (status == LORE_OK) {
        status = lore_bench_child_line(&child, &line, &done->peak_bytes, err);
    }
    int code = lore_bench_child_end(&child, 0);
    if (status == LORE_OK) {
        status = read_counts(lore_buf_str(&line), done, err);
    }
    if (status == LORE_OK && code != 0 && done->failed == 0) {
        status = lore_fail(err, LORE_ERR_IO, "lore ingest '%s' gave %d", path, code);
    }
    lore_buf_destroy(&line);
    return status;
}
