/* The HTTP client of the commands that hand work to a serving process: the libcurl fence of cli/.
 *
 * One connection, kept open, one request at a time. Only http to the address that the lock file of
 * the data folder names: no proxies, no redirects. Thread: one. */
#ifndef LORE_CLI_CLIENT_H
#define LORE_CLI_CLIENT_H

#include "base/config.h"
#include "base/str.h"

typedef struct lore_client lore_client;

/* base: "http://127.0.0.1:8080". Nothing is sent yet. */
LORE_MUST_USE lore_status lore_client_open(lore_str base, const lore_limits *limits,
                                           lore_client **client, lore_error *err);
void lore_client_close(lore_client *client); /* accepts NULL */

/* Send and wait. body may be empty; reply is reset and filled. *http_status is the status. Fails
 * with LORE_ERR_IO when there was no whole reply; a refusal of the server is not a failure here. */
LORE_MUST_USE lore_status lore_client_send(lore_client *client, const char *method,
                                           const char *path, const char *content_type,
                                           lore_str body, lore_buf *reply, int32_t *http_status,
                                           lore_error *err);
/* The error object in reply as an error of ours: its message, LORE_ERR_NOT_FOUND for 404,
 * LORE_ERR_BUSY for 429, LORE_ERR_CANCELLED for 503 of a server that is stopping, ... */
lore_status lore_client_refusal(const lore_buf *reply, int32_t http_status, lore_error *err);

/* Append text percent-encoded (RFC 3986, unreserved characters stay). */
void lore_url_encode(lore_str text, lore_buf *out);

const char *lore_client_library(void); /* name and version of libcurl */

#endif
