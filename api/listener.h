/* A listening socket from "ADDRESS:PORT". */
#ifndef LORE_API_LISTENER_H
#define LORE_API_LISTENER_H

#include "base/error.h"

#include <stdbool.h>

typedef struct lore_listener {
    int fd; /* non-blocking; the caller's to close */
    bool is_ipv6;
    char address[160]; /* as it was bound: "127.0.0.1:8080", "[::1]:8080" */
    char local[160];   /* what a process on this machine connects to: no 0.0.0.0 or :: */
} lore_listener;

/* "127.0.0.1:8080", "[::1]:8080", "localhost:8080", ":8080" (all addresses); port 0 takes a free
 * one. LORE_ERR_INVALID: not an address; LORE_ERR_IO: it cannot be listened on, and why. */
LORE_MUST_USE lore_status lore_listener_open(const char *listen_on, lore_listener *listener,
                                             lore_error *err);

#endif
