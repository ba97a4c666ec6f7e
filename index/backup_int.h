/* Copying a database page by page: database_copy.c, on the connection of database.c. */
#ifndef LORE_INDEX_BACKUP_INT_H
#define LORE_INDEX_BACKUP_INT_H

#include "index/backup.h"
#include "index/index_int.h"

void *lore_db_handle(lore_db *db); /* SQLite's, for the other files of its fence */

/* What the connection sees now, as a database of one file at `to`, which is empty or missing; then
 * `finish` is run there. The file is not synced. Outside of transactions. */
LORE_MUST_USE lore_status lore_db_copy(lore_db *db, const char *to, const char *finish,
                                       const lore_backup_options *options, lore_error *err);

#endif
