/* Deadlines of sockets: what has not arrived in time is shut.
 *
 * libmicrohttpd's own timeout starts again with every byte, so a client that sends one byte now and
 * then could hold a thread for ever. Each connection has an entry with one deadline, set while
 * something is awaited; a thread shuts the sockets whose deadline has passed, and the connection's
 * own thread then finds its socket closed. An entry is removed before its descriptor is closed, so
 * the descriptor is never somebody else's. Thread: any. */
#ifndef LORE_API_WATCH_H
#define LORE_API_WATCH_H

#include "base/str.h"
#include "base/thread.h"

typedef struct lore_watch lore_watch;
typedef struct lore_watched lore_watched; /* one entry */

LORE_MUST_USE lore_status lore_watch_open(lore_watch **watch, lore_error *err);
void lore_watch_close(lore_watch *watch); /* all entries are removed by then; accepts NULL */

lore_watched *lore_watch_add(lore_watch *watch, int fd, int64_t deadline_ns); /* NULL: no memory */
void lore_watch_remove(lore_watch *watch, lore_watched *entry);               /* accepts NULL */
/* 0: nothing is awaited. */
void lore_watch_set(lore_watch *watch, lore_watched *entry, int64_t deadline_ns);

/* What the other side has done. TCP says the same of one that has closed and of one that has only
 * finished sending, until something is sent to it. */
typedef enum lore_peer { LORE_PEER_OPEN, LORE_PEER_HALF_CLOSED, LORE_PEER_GONE } lore_peer;
lore_peer lore_watch_peer(const lore_watched *entry);
/* Send a few bytes without waiting, while nobody else sends on the socket. False: not all went. */
bool lore_watch_tell(const lore_watched *entry, lore_str bytes);

#endif
