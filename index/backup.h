/* A whole index as one file, taken beside whoever writes to it, and back.
 *
 * The file is the database as it was at one moment: every commit before it and none after. What is
 * derived from it (vector files) is not in it and is made anew where it is restored; the request
 * log and models are not part of an index. Thread: one. */
#ifndef LORE_INDEX_BACKUP_H
#define LORE_INDEX_BACKUP_H

#include "index/store.h"

typedef struct lore_backup_options { /* all may be zero */
    /* Called now and then; false ends it with LORE_ERR_CANCELLED. */
    bool (*progress)(void *self, int64_t done, int64_t total);
    void *self;
} lore_backup_options;

typedef struct lore_backup_info {
    int64_t collections, documents, chunks, size_bytes;
} lore_backup_info;

/* Writes `file` (replaced only once the new one is whole, checked and on the disk) from the
 * folder's index. It may be held by another process, whose commits go on meanwhile.
 * LORE_ERR_NOT_FOUND: no index; _CORRUPT names what is wrong with it; after any failure `file` is
 * as it was. */
LORE_MUST_USE lore_status lore_backup(const char *folder, const char *file,
                                      const lore_backup_options *options, lore_backup_info *info,
                                      lore_error *err);
/* Makes a folder's index of a backup, of this format or an earlier one, after checking it. The
 * folder is made where it is missing; one that holds an index is LORE_ERR_INVALID. After any
 * failure it holds none. */
LORE_MUST_USE lore_status lore_restore(const char *file, const char *folder,
                                       const lore_backup_options *options, lore_backup_info *info,
                                       lore_error *err);

#endif
