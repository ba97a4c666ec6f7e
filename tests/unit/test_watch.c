/* A socket whose deadline passes is shut, others are left alone, and a side that has left is seen.
 */
#include "api/watch.h"

#include "base/clock.h"
#include "tests/check.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_shut(int fd, int wait_ms)
{
    struct pollfd state = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&state, 1, wait_ms) > 0 && recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

TEST(deadlines_shut_sockets)
{
    int late[2], quiet[2];
    lore_error err;
    lore_watch *watch = NULL;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, late) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, quiet) == 0);
    CHECK_OK(lore_watch_open(&watch, &err), &err);
    lore_watched *first = lore_watch_add(watch, late[0], lore_clock_ns() + 50 * 1000000LL);
    lore_watched *second = lore_watch_add(watch, quiet[0], 0);
    lore_watched *third = lore_watch_add(watch, quiet[1], lore_clock_ns() + 50 * 1000000LL);
    CHECK(first != NULL && second != NULL && third != NULL);
    lore_watch_set(watch, third, 0); /* it arrived in time */
    CHECK(is_shut(late[1], 5000));
    CHECK(!is_shut(quiet[1], 400));
    lore_watch_remove(watch, second); /* from the middle, the front and the back of the list */
    lore_watch_remove(watch, third);
    lore_watch_remove(watch, first);
    lore_watch_remove(watch, NULL);
    lore_watch_close(watch);
    lore_watch_close(NULL);
    close(late[0]);
    close(late[1]);
    close(quiet[0]);
    close(quiet[1]);
}

/* A pair of TCP sockets: half-closing looks different on others. */
static void connect_pair(int pair[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(pair[1], (struct sockaddr *)&address, size) == 0);
    pair[0] = accept(listener, NULL, NULL);
    CHECK(pair[0] >= 0);
    close(listener);
}

TEST(a_side_that_left_is_seen)
{
    int pair[2];
    lore_error err;
    lore_watch *watch = NULL;
    connect_pair(pair);
    CHECK_OK(lore_watch_open(&watch, &err), &err);
    lore_watched *entry = lore_watch_add(watch, pair[0], 0);
    CHECK_INT(lore_watch_peer(entry), LORE_PEER_OPEN);
    CHECK(write(pair[1], "x", 1) == 1); /* pipelined bytes are no farewell */
    CHECK_INT(lore_watch_peer(entry), LORE_PEER_OPEN);
    CHECK(shutdown(pair[1], SHUT_WR) == 0);
    CHECK_INT(lore_watch_peer(entry), LORE_PEER_HALF_CLOSED);
    CHECK(lore_watch_tell(entry, LORE_STR("still there?")));
    CHECK_INT(lore_watch_peer(entry), LORE_PEER_HALF_CLOSED); /* it is */
    char room[16];
    CHECK(read(pair[1], room, sizeof room) == 12);
    close(pair[1]);
    CHECK_INT(lore_watch_peer(entry), LORE_PEER_HALF_CLOSED); /* as before: TCP cannot tell ... */
    CHECK(lore_watch_tell(entry, LORE_STR("still there?")));
    for (int i = 0; i < 1000 && lore_watch_peer(entry) != LORE_PEER_GONE; i++) {
        usleep(1000);
    }
    CHECK_INT(lore_watch_peer(entry), LORE_PEER_GONE); /* ... until it was asked */
    lore_watch_remove(watch, entry);
    lore_watch_close(watch);
    close(pair[0]);
}

TEST(failures_to_open)
{
    lore_error err;
    lore_watch *watch = NULL;
    lore_thread_fail_at(1);
    CHECK(lore_watch_open(&watch, &err) != LORE_OK);
    lore_thread_fail_at(0);
    lore_mem_fail_at(1, false);
    CHECK_INT(lore_watch_open(&watch, &err), LORE_ERR_NOMEM);
    lore_mem_fail_at(0, false);
}

CHECK_MAIN(deadlines_shut_sockets, a_side_that_left_is_seen, failures_to_open)
