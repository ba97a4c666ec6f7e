/* The model hub: what files a repository holds, and fetching one of them whole. A libcurl fence.
 *
 * Speaks the hub's HTTP interface (api/models/NAME/revision/REV and NAME/resolve/COMMIT/FILE) with
 * any server that has it. What comes from there is hostile until checked: names are plain, sizes
 * and SHA-256 are what the list says. Nothing under its final name is ever half a file. Thread:
 * one. */
#ifndef LORE_CLI_HUB_H
#define LORE_CLI_HUB_H

#include "base/config.h"
#include "base/str.h"

typedef struct lore_hub lore_hub;

typedef struct lore_hub_file {
    lore_str name;      /* "config.json", "1_Pooling/config.json": no '..', at most one '/' */
    int64_t size_bytes; /* -1: the hub does not say */
    lore_str sha256;    /* 64 hex digits; empty: the hub has none (files that git itself keeps) */
} lore_hub_file;

typedef struct lore_hub_list {
    lore_str commit; /* what the revision names now */
    lore_hub_file *files;
    int32_t count;
} lore_hub_list;

/* done of total bytes of this file (total -1: unknown). True: stop, the fetch ends with
 * LORE_ERR_CANCELLED and can be taken up later. */
typedef bool (*lore_hub_progress)(void *self, int64_t done, int64_t total);

/* endpoint: "https://host", http allowed. token may be NULL; it is sent to the endpoint's host and
 * to no other. LORE_ERR_INVALID: no address. */
LORE_MUST_USE lore_status lore_hub_open(const char *endpoint, const char *token,
                                        const lore_limits *limits, lore_hub **hub, lore_error *err);
void lore_hub_close(lore_hub *hub); /* accepts NULL */

/* Files of repository ("OWNER/NAME") at a revision (branch, tag, commit), in the arena. Fails:
 * LORE_ERR_NOT_FOUND, LORE_ERR_INVALID (no access), LORE_ERR_CORRUPT (an answer that makes no
 * sense), LORE_ERR_IO, LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_hub_read(lore_hub *hub, lore_str repository, lore_str revision,
                                        lore_hub_progress progress, void *self, lore_arena *arena,
                                        lore_hub_list *list, lore_error *err);
/* One file to path. Goes on behind what "path.part" holds; connections that break are taken up
 * again while bytes still come; a wrong sum costs one more try from the beginning. fsync and rename
 * at the end. Fails as above; "path.part" stays unless it was wrong. */
LORE_MUST_USE lore_status lore_hub_fetch(lore_hub *hub, lore_str repository, lore_str commit,
                                         const lore_hub_file *file, const char *path,
                                         lore_hub_progress progress, void *self, lore_error *err);

#endif
