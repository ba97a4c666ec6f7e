/* Shared by http.c and exchange.c, the two sides of the libmicrohttpd fence: http.c has the service
 * and its connections, exchange.c one request and its reply. The three functions are callbacks of
 * the library. */
#ifndef LORE_API_HTTP_INT_H
#define LORE_API_HTTP_INT_H

#include "api/acceptor.h"
#include "api/http.h"
#include "api/listener.h"
#include "api/routes.h"
#include "api/watch.h"

#include <microhttpd.h>
#include <stdatomic.h>

struct lore_http {
    lore_app *app;
    struct MHD_Daemon *daemon;
    lore_service service;
    lore_listener listener;
    lore_acceptor *acceptor;
    lore_watch *watch;
    lore_lock lock; /* guards active */
    int32_t active;
    atomic_bool is_draining, is_cancelling;
};

/* Counted in `active` from its headers on until lore_exchange_end. */
enum MHD_Result lore_exchange_handle(void *http, struct MHD_Connection *connection,
                                     const char *path, const char *method, const char *version,
                                     const char *data, size_t *size, void **context);
void lore_exchange_end(void *http, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode how);
/* Leaves the path as it was sent: a document id may hold an encoded slash, so it is split first and
 * decoded after (lore_url_decode). */
size_t lore_exchange_unescape(void *self, struct MHD_Connection *connection, char *text);

#endif
