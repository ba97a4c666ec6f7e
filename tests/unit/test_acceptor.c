/* Connections are counted in and out; those over a cap hear why, also when they send without end;
 * a shortage of descriptors makes the loop wait and not spin. */
#include "api/acceptor.h"

#include "api/listener.h"
#include "base/clock.h"
#include "tests/check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { GUESTS_MAX = 8 };

typedef struct door {
    lore_listener listener;
    lore_metrics *metrics;
    lore_acceptor *acceptor;
    lore_lock lock; /* guards the two below */
    int guests[GUESTS_MAX];
    int32_t count;
    bool is_refusing; /* admit fails */
} door;

static bool admit(void *self, int fd, const struct sockaddr *address, socklen_t size)
{
    door *at = self;
    CHECK(address->sa_family == AF_INET && size == sizeof(struct sockaddr_in));
    lore_lock_acquire(&at->lock);
    bool is_taken = !at->is_refusing && at->count < GUESTS_MAX;
    if (is_taken) {
        at->guests[at->count++] = fd;
        lore_lock_wake_all(&at->lock);
    }
    lore_lock_release(&at->lock);
    if (!is_taken) {
        close(fd);
    }
    return is_taken;
}

static void open_door(door *at, int64_t connections_max, int64_t per_ip_max)
{
    lore_error err;
    memset(at, 0, sizeof *at);
    lore_lock_init(&at->lock);
    CHECK_OK(lore_listener_open("127.0.0.1:0", &at->listener, &err), &err);
    at->metrics = lore_metrics_new();
    const lore_acceptor_options options = {at->listener.fd, connections_max, per_ip_max,
                                           at->metrics,     admit,           at};
    CHECK_OK(lore_acceptor_open(&options, &at->acceptor, &err), &err);
}

static void leave(door *at, int32_t index)
{
    lore_lock_acquire(&at->lock);
    int fd = at->guests[index];
    at->guests[index] = at->guests[--at->count];
    lore_lock_release(&at->lock);
    lore_acceptor_leave(at->acceptor, fd);
    close(fd);
}

static void close_door(door *at)
{
    lore_acceptor_stop(at->acceptor);
    while (at->count > 0) {
        leave(at, 0);
    }
    lore_acceptor_close(at->acceptor);
    lore_acceptor_close(NULL);
    lore_metrics_free(at->metrics);
    lore_lock_destroy(&at->lock);
    close(at->listener.fd);
}

/* from: "127.0.0.1", "127.0.0.2". */
static int dial(const door *at, const char *from)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in own = {.sin_family = AF_INET};
    to.sin_port = htons((uint16_t)strtol(strrchr(at->listener.address, ':') + 1, NULL, 10));
    CHECK(inet_pton(AF_INET, from, &own.sin_addr) == 1);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(fd, (struct sockaddr *)&own, sizeof own) == 0);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

static void wait_for_guests(door *at, int32_t count)
{
    int64_t deadline_ns = lore_clock_ns() + 10 * 1000000000LL;
    lore_lock_acquire(&at->lock);
    while (at->count < count && lore_lock_wait(&at->lock, deadline_ns)) {
    }
    CHECK_INT(at->count, count);
    lore_lock_release(&at->lock);
}

/* Everything up to the other side's end. */
static lore_str read_all(int fd, char *room, size_t cap)
{
    size_t size = 0;
    ssize_t got = 1;
    while (got > 0 && size < cap) {
        struct pollfd state = {.fd = fd, .events = POLLIN};
        CHECK(poll(&state, 1, 10000) == 1);
        got = read(fd, room + size, cap - size);
        CHECK(got >= 0);
        size += (size_t)got;
    }
    return (lore_str){room, size};
}

static void check_refused(int fd, const char *status, const char *words)
{
    char room[2048];
    lore_str reply = read_all(fd, room, sizeof room);
    CHECK(lore_str_starts(reply, lore_str_from(status)));
    CHECK(lore_str_find(reply, lore_str_from(words), 0) != SIZE_MAX);
    CHECK(lore_str_find(reply, LORE_STR("Retry-After: 1\r\n"), 0) != SIZE_MAX);
    CHECK(lore_str_find(reply, LORE_STR("\r\n\r\n{\"error\":{\"message\":"), 0) != SIZE_MAX);
    close(fd);
}

TEST(caps)
{
    door at;
    open_door(&at, 3, 2);
    int first = dial(&at, "127.0.0.1"), second = dial(&at, "127.0.0.1");
    wait_for_guests(&at, 2);
    check_refused(dial(&at, "127.0.0.1"), "HTTP/1.1 429 ", "connections_per_ip_max");
    int third = dial(&at, "127.0.0.2");
    wait_for_guests(&at, 3);
    check_refused(dial(&at, "127.0.0.2"), "HTTP/1.1 503 ", "connections_max");
    leave(&at, 0);
    int fourth = dial(&at, "127.0.0.2"); /* the place is free at once */
    wait_for_guests(&at, 3);
    close(first);
    close(second);
    close(third);
    close(fourth);
    close_door(&at);
}

/* It sends more than the sockets hold and only then reads: closing at once would reset it. */
TEST(one_that_sends_first_hears_it_too)
{
    door at;
    open_door(&at, 1, 1);
    int first = dial(&at, "127.0.0.1");
    wait_for_guests(&at, 1);
    int second = dial(&at, "127.0.0.2");
    char block[64 * 1024] = {0};
    for (int i = 0; i < 32; i++) {
        CHECK(send(second, block, sizeof block, MSG_NOSIGNAL) == sizeof block);
    }
    check_refused(second, "HTTP/1.1 503 ", "connections_max");
    close(first);
    close_door(&at);
}

/* What its owner closes without having shut it was never served. */
TEST(one_that_could_not_be_served_hears_it)
{
    door at;
    open_door(&at, 4, 4);
    int unserved = dial(&at, "127.0.0.1");
    wait_for_guests(&at, 1);
    leave(&at, 0);
    check_refused(unserved, "HTTP/1.1 503 ", "connections_max");
    int served = dial(&at, "127.0.0.1");
    wait_for_guests(&at, 1);
    shutdown(at.guests[0], SHUT_WR);
    leave(&at, 0);
    char room[64];
    CHECK_INT((int64_t)read_all(served, room, sizeof room).len, 0);
    close(served);
    close_door(&at);
}

TEST(one_that_is_not_taken_is_forgotten)
{
    door at;
    open_door(&at, 1, 1);
    at.is_refusing = true;
    for (int i = 0; i < 5; i++) {
        char room[64];
        int fd = dial(&at, "127.0.0.1");
        CHECK_INT((int64_t)read_all(fd, room, sizeof room).len, 0);
        close(fd);
    }
    lore_lock_acquire(&at.lock);
    at.is_refusing = false;
    lore_lock_release(&at.lock);
    int fd = dial(&at, "127.0.0.1");
    wait_for_guests(&at, 1);
    close(fd);
    close_door(&at);
}

static int64_t cpu_ms(void)
{
    struct rusage use;
    CHECK(getrusage(RUSAGE_SELF, &use) == 0);
    return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000 +
           (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1000;
}

TEST(no_descriptors)
{
    door at;
    struct rlimit before, none;
    open_door(&at, 4, 4);
    int waiting = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    to.sin_port = htons((uint16_t)strtol(strrchr(at.listener.address, ':') + 1, NULL, 10));
    CHECK(connect(waiting, (struct sockaddr *)&to, sizeof to) == 0); /* by the kernel */
    int64_t begun_ms = cpu_ms();
    usleep(500000);
    CHECK(cpu_ms() - begun_ms < 250);
    CHECK_INT(at.count, 0);
    none.rlim_cur = (rlim_t)waiting + 20; /* enough to accept, too few to serve */
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    check_refused(waiting, "HTTP/1.1 503 ", "connections_max");
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    int served = dial(&at, "127.0.0.1");
    wait_for_guests(&at, 1);
    close(served);
    close_door(&at);
}

TEST(failures_to_open)
{
    lore_error err;
    lore_acceptor *acceptor = NULL;
    lore_metrics *metrics = lore_metrics_new();
    const lore_acceptor_options options = {-1, 4, 4, metrics, admit, NULL};
    lore_thread_fail_at(1);
    CHECK(lore_acceptor_open(&options, &acceptor, &err) != LORE_OK);
    lore_thread_fail_at(0);
    int64_t live = lore_mem_live();
    for (int64_t n = 1; n <= 6; n++) {
        lore_mem_fail_at(n, false);
        CHECK_INT(lore_acceptor_open(&options, &acceptor, &err), LORE_ERR_NOMEM);
        lore_mem_fail_at(0, false);
        CHECK_INT(lore_mem_live(), live);
    }
    lore_metrics_free(metrics);
}

CHECK_MAIN(caps, one_that_sends_first_hears_it_too, one_that_could_not_be_served_hears_it,
           one_that_is_not_taken_is_forgotten, no_descriptors, failures_to_open)
