/* See listener.h. */
#include "api/listener.h"

#include "base/str.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128, HOST_CAP = 128, PORT_CAP = 16 };

/* "127.0.0.1:8080", "[::1]:8080", "host:80", ":8080" into host and port. */
static lore_status split_address(const char *text, char host[HOST_CAP], char port[PORT_CAP],
                                 lore_error *err)
{
    const char *colon = strrchr(text, ':');
    size_t host_size = colon ? (size_t)(colon - text) : 0;
    bool is_bracketed = host_size >= 2 && text[0] == '[' && text[host_size - 1] == ']';
    const char *start = is_bracketed ? text + 1 : text;
    host_size -= is_bracketed ? 2 : 0;
    int64_t number = -1;
    if (colon == NULL || host_size >= HOST_CAP || strlen(colon + 1) >= PORT_CAP ||
        !lore_str_to_int64(lore_str_from(colon + 1), &number) || number < 0 || number > 65535) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "listen must be ADDRESS:PORT such as 127.0.0.1:8080, not '%s'", text);
    }
    memcpy(host, start, host_size);
    host[host_size] = '\0';
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return LORE_OK;
}

static int bind_address(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    info->ai_protocol);
    int on = 1;
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
        return fd;
    }
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return -1;
}

/* What the socket is bound to, as people and as local clients write it. */
static lore_status name_address(lore_listener *listener, lore_error *err)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char host[64], port[16]; /* numeric: an IPv6 address with its zone has at most 62 bytes */
    if (getsockname(listener->fd, (struct sockaddr *)&address, &size) != 0 ||
        getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot read the address that was bound: %s",
                         strerror(errno));
    }
    const char *local = strcmp(host, "0.0.0.0") == 0 ? "127.0.0.1"
                        : strcmp(host, "::") == 0    ? "::1"
                                                     : host;
    const char *format = listener->is_ipv6 ? "[%s]:%s" : "%s:%s";
    snprintf(listener->address, sizeof listener->address, format, host, port);
    snprintf(listener->local, sizeof listener->local, format, local, port);
    return LORE_OK;
}

lore_status lore_listener_open(const char *listen_on, lore_listener *listener, lore_error *err)
{
    char host[HOST_CAP], port[PORT_CAP];
    lore_status status = split_address(listen_on, host, port, err);
    if (status != LORE_OK) {
        return status;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (failure != 0) {
        return lore_fail(err, LORE_ERR_INVALID, "listen: cannot resolve '%s': %s", host,
                         gai_strerror(failure));
    }
    lore_listener made = {.fd = -1};
    for (const struct addrinfo *info = found; info != NULL && made.fd < 0; info = info->ai_next) {
        made.fd = bind_address(info);
        made.is_ipv6 = info->ai_family == AF_INET6;
    }
    int saved = errno;
    freeaddrinfo(found);
    if (made.fd < 0) {
        return lore_fail(err, LORE_ERR_IO, "cannot listen on '%s': %s", listen_on, strerror(saved));
    }
    status = name_address(&made, err);
    if (status != LORE_OK) {
        close(made.fd);
        return status;
    }
    *listener = made;
    return LORE_OK;
}
