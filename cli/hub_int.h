/* What the three files of the hub share: one answer on its way. For cli/hub*.c only.
 *
 * hub.c moves bytes (libcurl), hub_list.c reads lists, hub_fetch.c makes files of them. */
#ifndef LORE_CLI_HUB_INT_H
#define LORE_CLI_HUB_INT_H

#include "base/file.h"
#include "cli/hub.h"

enum { LORE_HUB_RETRIES = 5 }; /* in a row that brought nothing */

/* One answer: to a buffer, or to a file behind `done` bytes. Zeros, but what hub, text, fd and
 * expected must say. */
typedef struct lore_transfer {
    lore_hub *hub;
    lore_buf *text;         /* lists, and what a refusal says */
    int fd;                 /* -1: everything goes to text */
    int64_t done, expected; /* bytes; expected -1: unknown */
    lore_sha256 sha;        /* of the bytes done */
    lore_hub_progress progress;
    void *self;
    /* what happened in the last attempt */
    bool has_begun, is_too_long, is_cancelled, is_misplaced;
    int write_errno;
    int64_t range_start; /* of Content-Range, -1: none seen */
} lore_transfer;

/* Ask for the hub's address: all of it, or what stands behind `done`. NULL: there was a whole
 * answer, with this status; else what went wrong, until the next call. */
const char *lore_transfer_run(lore_transfer *t, int32_t *http_status);
/* Wait before the next attempt, longer after more failures; true: cancelled meanwhile. */
bool lore_transfer_pause(const lore_transfer *t, int32_t failures);
/* Forget what was there, in the file, too. False: errno says why not. */
bool lore_transfer_restart(lore_transfer *t);

const char *lore_hub_endpoint(const lore_hub *hub);
int64_t lore_hub_file_bytes_max(const lore_hub *hub);
lore_buf *lore_hub_address(lore_hub *hub); /* emptied; to be filled before lore_transfer_run */
/* Append a path percent-encoded, its slashes as they are. */
void lore_hub_append_path(lore_buf *address, lore_str path);

/* A status that no further attempt changes, as an error about `what`. */
lore_status lore_hub_refuse(int32_t http_status, lore_str what, lore_error *err);
bool lore_hub_is_passing(int32_t http_status); /* another attempt may do better */
lore_status lore_hub_cancelled(lore_str what, lore_error *err);

#endif
