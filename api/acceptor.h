/* Who may connect: the accept loop of the HTTP service.
 *
 * One thread accepts, counts connections in all and by address, and hands those within the caps
 * on. The others hear why in a short HTTP reply and never cost a thread. It also sees connections
 * off: one that we close while its client is still sending is read empty for a moment, because
 * closing it at once would reset the connection and the client would lose the reply.
 *
 * IPv6 clients are counted by their /64, which is what one household or machine is given. Where
 * descriptors run short the loop pauses instead of spinning. Thread: any. */
#ifndef LORE_API_ACCEPTOR_H
#define LORE_API_ACCEPTOR_H

#include "api/metrics.h"

#include <sys/socket.h>

typedef struct lore_acceptor lore_acceptor;

typedef struct lore_acceptor_options {
    int listen_fd; /* non-blocking; the caller's, open until close */
    int64_t connections_max, per_ip_max;
    lore_metrics *metrics; /* borrowed */
    /* Take over a connection (non-blocking). False: it could not be, and is closed already. */
    bool (*admit)(void *self, int fd, const struct sockaddr *address, socklen_t size);
    void *self;
} lore_acceptor_options;

LORE_MUST_USE lore_status lore_acceptor_open(const lore_acceptor_options *options,
                                             lore_acceptor **acceptor, lore_error *err);
/* The owner of an admitted connection closes fd right after this call. */
void lore_acceptor_leave(lore_acceptor *acceptor, int fd);
void lore_acceptor_stop(lore_acceptor *acceptor);  /* admit is not called any more; once or more */
void lore_acceptor_close(lore_acceptor *acceptor); /* stops; all have left; accepts NULL */

#endif
