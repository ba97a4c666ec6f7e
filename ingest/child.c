/* Child: the process, its fences, and the watch over it.
 *
 * Invariants:
 * 1. Between start_child and end_child there is one process, in a group of its own, which end_child
 *    kills and collects whatever happened.
 * 2. The child shares our memory until it has become the program (clone as posix_spawn does it,
 *    because copying the page tables of a server with models takes longer than most documents), so
 *    on that way it does nothing but system calls on what was prepared for it.
 *
 * Its input is a file in memory, so nothing has to be fed while its output is read. */
#include "ingest/child_int.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    STACK_BYTES = 64 * 1024, /* of the child until it is the program */
    READ_BYTES = 64 * 1024,
    MESSAGE_BYTES = 4 * 1024,
    POLL_MS = 50, /* between two looks at whether it is still wanted */
    EXIT_POLL_MS = 2,
    FILES_MAX = 64,
    PATH_CAP = 512,
    NS_PER_MS = 1000000
};

/* ---- what the child may not do ---- */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE
#define FORBID(number)                                   \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

/* No sockets, no other processes and nothing of theirs. Files it cannot write because of
 * RLIMIT_FSIZE. */
static const struct sock_filter RULES[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef __x86_64__
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1), /* the x32 numbers of the same calls */
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    FORBID(SYS_fork),
    FORBID(SYS_vfork),
#endif
    FORBID(SYS_socket),
    FORBID(SYS_socketpair),
    FORBID(SYS_clone),
    FORBID(SYS_clone3),
    FORBID(SYS_ptrace),
    FORBID(SYS_process_vm_readv),
    FORBID(SYS_process_vm_writev),
    FORBID(SYS_kill),
    FORBID(SYS_tkill),
    FORBID(SYS_io_uring_setup), /* a way round all of these */
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
#endif

/* ---- the child ---- */

typedef struct start {
    char path[PATH_CAP];
    char *arguments[LORE_CHILD_ARGUMENTS_MAX + 2];
    int files[3]; /* its standard ones */
    rlim_t memory, seconds;
    int failure; /* errno of what kept it from becoming the program */
} start;

static void bound(int resource, rlim_t value)
{
    struct rlimit limit = {value, value};
    (void)setrlimit((__rlimit_resource_t)resource, &limit); /* lowering one's own never fails */
}

static void fence_child(const start *s)
{
    bound(RLIMIT_AS, s->memory);
    bound(RLIMIT_CPU, s->seconds);
    bound(RLIMIT_FSIZE, 0);
    bound(RLIMIT_CORE, 0);
    bound(RLIMIT_NOFILE, FILES_MAX);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#ifdef ARCHITECTURE
    /* A kernel without filters leaves the limits. */
    struct sock_fprog program = {sizeof RULES / sizeof RULES[0], (struct sock_filter *)RULES};
    (void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
#endif
}

/* Shares our memory: see invariant 2. */
static int become_program(void *self)
{
    start *s = self;
    static char language[] = "LC_ALL=C";
    char *environment[] = {language, NULL};
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < SIGRTMAX; number++) {
        (void)signal(number, SIG_DFL); /* our handlers must not run in there */
    }
    (void)setpgid(0, 0);
    for (int i = 0; i < 3; i++) {
        if (dup2(s->files[i], i) < 0) {
            s->failure = errno;
            _exit(1);
        }
    }
    fence_child(s);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    execve(s->path, s->arguments, environment);
    s->failure = errno;
    _exit(1);
}

/* ---- starting it ---- */

typedef struct child {
    pid_t pid;      /* 0: there is none */
    int input;      /* file in memory; -1: closed, as below */
    int pipes[2];   /* its output and its complaints, our ends */
    int theirs[2];  /* the other ends, until it has started */
    size_t written; /* of its output so far */
    bool has_line;  /* of its complaints: the next byte begins another */
    int64_t deadline_ns;
} child;

static void close_file(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

/* The standard ones of a process that was started without them must not be taken: the child's dup2
 * would close what it still needs. */
static bool raise_file(int *fd)
{
    if (*fd > STDERR_FILENO) {
        return true;
    }
    int raised = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(*fd);
    *fd = raised;
    return raised >= 0;
}

static lore_status open_input(child *c, lore_str input, lore_error *err)
{
    c->input = memfd_create("input", MFD_CLOEXEC);
    bool is_good = c->input >= 0 && raise_file(&c->input);
    for (size_t done = 0; is_good && done < input.len;) {
        ssize_t wrote = write(c->input, input.ptr + done, input.len - done);
        is_good = wrote > 0 || (wrote < 0 && errno == EINTR);
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    is_good = is_good && lseek(c->input, 0, SEEK_SET) == 0;
    return is_good ? LORE_OK
                   : lore_fail(err, LORE_ERR_IO, "cannot hold %zu bytes for another program: %s",
                               input.len, strerror(errno));
}

static lore_status open_pipes(child *c, lore_error *err)
{
    for (int i = 0; i < 2; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) {
            return lore_fail(err, LORE_ERR_IO, "cannot open a pipe: %s", strerror(errno));
        }
        c->pipes[i] = ends[0];
        c->theirs[i] = ends[1];
        if (!raise_file(&c->pipes[i]) || !raise_file(&c->theirs[i]) ||
            fcntl(c->pipes[i], F_SETFL, O_NONBLOCK) != 0) {
            return lore_fail(err, LORE_ERR_IO, "cannot open a pipe: %s", strerror(errno));
        }
    }
    return LORE_OK;
}

static lore_status find_program(const char *name, char path[PATH_CAP], lore_error *err)
{
    const char *folders = getenv("PATH");
    lore_str rest = lore_str_from(folders != NULL ? folders : "/usr/local/bin:/usr/bin:/bin");
    while (rest.len > 0) {
        const char *colon = memchr(rest.ptr, ':', rest.len);
        lore_str folder = {rest.ptr, colon == NULL ? rest.len : (size_t)(colon - rest.ptr)};
        rest = lore_str_slice(rest, folder.len + (colon != NULL ? 1 : 0), rest.len);
        struct stat info;
        int length = snprintf(path, PATH_CAP, LORE_STR_FMT "/%s", LORE_STR_ARG(folder), name);
        if (folder.len > 0 && folder.ptr[0] == '/' && length < PATH_CAP && stat(path, &info) == 0 &&
            S_ISREG(info.st_mode) && access(path, X_OK) == 0) {
            return LORE_OK;
        }
    }
    return lore_fail(err, LORE_ERR_NOT_FOUND, "%s is not installed", name);
}

static lore_status start_child(child *c, const lore_child_options *options, lore_error *err)
{
    start s = {.files = {c->input, c->theirs[0], c->theirs[1]},
               .memory = options->memory_bytes_max,
               .seconds = (rlim_t)((options->ms_max + 999) / 1000)};
    lore_status status = find_program(options->program, s.path, err);
    if (status != LORE_OK) {
        return status;
    }
    s.arguments[0] = (char *)options->program; /* execve takes them so and leaves them alone */
    for (int i = 0; options->arguments[i] != NULL; i++) {
        LORE_ASSERT(i < LORE_CHILD_ARGUMENTS_MAX);
        s.arguments[i + 1] = (char *)options->arguments[i];
    }
    char *stack = lore_alloc_aligned(STACK_BYTES);
    if (stack == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory starting %s", options->program);
    }
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(become_program, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD, &s);
    int failure = pid < 0 ? errno : s.failure;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    lore_free_aligned(stack);
    c->pid = pid < 0 ? 0 : pid;
    close_file(&c->theirs[0]);
    close_file(&c->theirs[1]);
    if (failure != 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot start '%s': %s", s.path, strerror(failure));
    }
    return LORE_OK;
}

/* ---- watching it ---- */

static lore_status check_time(const child *c, const lore_child_options *options, lore_error *err)
{
    if (lore_is_interrupted(options->interrupt)) {
        return lore_fail(err, LORE_ERR_CANCELLED, "cancelled while %s runs", options->program);
    }
    if (lore_clock_ns() >= c->deadline_ns) {
        return lore_fail(err, LORE_ERR_LIMIT, "%s takes longer than %lld ms", options->program,
                         (long long)options->ms_max);
    }
    return LORE_OK;
}

/* The last line of what it complains about, in printable ASCII. */
static void keep_message(child *c, lore_child_end *end, lore_str piece)
{
    size_t used = strlen(end->message);
    for (size_t i = 0; i < piece.len; i++) {
        char byte = piece.ptr[i];
        used = c->has_line && byte != '\n' ? 0 : used;
        c->has_line = byte == '\n';
        if (byte != '\n' && used + 1 < LORE_CHILD_MESSAGE_CAP) {
            end->message[used++] = byte >= ' ' && byte < 0x7F ? byte : '?';
            end->message[used] = '\0';
        }
    }
}

/* False when there is nothing more to read now. */
static bool read_message(child *c, lore_child_end *end)
{
    char room[MESSAGE_BYTES];
    ssize_t got = read(c->pipes[1], room, sizeof room);
    if (got > 0) {
        keep_message(c, end, (lore_str){room, (size_t)got});
    } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
        close_file(&c->pipes[1]);
    }
    return got > 0;
}

/* Read what is there; *is_open false at the end. */
static lore_status read_output(child *c, const lore_child_options *options, char *room,
                               bool *is_open, lore_child_end *end, lore_error *err)
{
    ssize_t got = read(c->pipes[0], room, READ_BYTES);
    if (got < 0) {
        return errno == EINTR || errno == EAGAIN
                   ? LORE_OK
                   : lore_fail(err, LORE_ERR_IO, "cannot read from %s: %s", options->program,
                               strerror(errno));
    }
    c->written += (size_t)got;
    *is_open = got > 0;
    if (c->written > options->output_bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "%s writes more than %zu bytes", options->program,
                         options->output_bytes_max);
    }
    if (got > 0 && !options->take(options->self, (lore_str){room, (size_t)got})) {
        end->is_stopped = true;
        *is_open = false;
    }
    return LORE_OK;
}

static lore_status read_all(child *c, const lore_child_options *options, lore_child_end *end,
                            lore_error *err)
{
    char *room = lore_alloc(READ_BYTES);
    if (room == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading from %s", options->program);
    }
    bool is_open = true;
    lore_status status = LORE_OK;
    while (status == LORE_OK && is_open) {
        struct pollfd ready[2] = {{.fd = c->pipes[0], .events = POLLIN},
                                  {.fd = c->pipes[1], .events = POLLIN}};
        int count = poll(ready, 2, POLL_MS);
        status = check_time(c, options, err);
        if (status == LORE_OK && count < 0 && errno != EINTR) {
            status = lore_fail(err, LORE_ERR_IO, "cannot wait for %s: %s", options->program,
                               strerror(errno));
        }
        if (status == LORE_OK && count > 0 && ready[1].revents != 0) {
            (void)read_message(c, end);
        }
        if (status == LORE_OK && count > 0 && ready[0].revents != 0) {
            status = read_output(c, options, room, &is_open, end, err);
        }
    }
    lore_free(room);
    return status;
}

/* It has closed its output: its exit is a moment away, or never. */
static lore_status await_exit(child *c, const lore_child_options *options, lore_error *err)
{
    lore_status status = LORE_OK;
    for (siginfo_t info = {0}; status == LORE_OK && info.si_pid == 0;) {
        int failed = waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT);
        if (failed != 0 && errno == ECHILD) { /* who ignores SIGCHLD never learns how it ended */
            c->pid = 0;
            break;
        }
        if (info.si_pid == 0) {
            status = check_time(c, options, err);
            (void)poll(NULL, 0, EXIT_POLL_MS);
        }
    }
    return status;
}

/* The group goes before its leader is collected, while its number cannot be another's. */
static void end_child(child *c, lore_child_end *end)
{
    int how = 0;
    if (c->pid > 0) {
        (void)kill(-c->pid, SIGKILL);
        (void)kill(c->pid, SIGKILL);
        while (waitpid(c->pid, &how, 0) < 0 && errno == EINTR) {
        }
    }
    end->exit_status = WIFEXITED(how) ? WEXITSTATUS(how) : -1;
    end->signal = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    while (c->pipes[1] >= 0 && c->theirs[1] < 0 && read_message(c, end)) {
    }
    close_file(&c->input);
    for (int i = 0; i < 2; i++) {
        close_file(&c->pipes[i]);
        close_file(&c->theirs[i]);
    }
}

lore_status lore_child_run(const lore_child_options *options, lore_child_end *end, lore_error *err)
{
    child c = {.input = -1,
               .pipes = {-1, -1},
               .theirs = {-1, -1},
               .deadline_ns = lore_clock_ns() + options->ms_max * NS_PER_MS};
    *end = (lore_child_end){0};
    lore_status status = open_input(&c, options->input, err);
    if (status == LORE_OK) {
        status = open_pipes(&c, err);
    }
    if (status == LORE_OK) {
        status = start_child(&c, options, err);
    }
    if (status == LORE_OK) {
        status = read_all(&c, options, end, err);
    }
    if (status == LORE_OK && !end->is_stopped) {
        status = await_exit(&c, options, err);
    }
    end_child(&c, end);
    return status;
}
