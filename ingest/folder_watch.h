/* What changes in folders: inotify, gathered until it is quiet.
 *
 * Open before the first walk, so that nothing falls between; then ask for the changes, walk those,
 * ask again. What can be told is told as paths, spelled as a walk of the same roots would spell
 * them; what cannot (more events than fit, a root that went and came back) as "everything". A file
 * counts as changed when whoever wrote it has closed it. Hidden entries and the data folder are not
 * watched; writes through a memory map and over a network by others are not seen by the kernel.
 * Thread: one. */
#ifndef LORE_INGEST_FOLDER_WATCH_H
#define LORE_INGEST_FOLDER_WATCH_H

#include "ingest/source.h"

typedef struct lore_folder_watch lore_folder_watch;

typedef struct lore_folder_changes { /* in the arena */
    const char **paths; /* files and folders that were made, changed, moved or removed; ascending,
                           none below another */
    int32_t count;
    bool is_everything; /* walk all again; paths is empty */
} lore_folder_changes;

/* Watch files and folders, and all folders below. options: paths and data (borrowed until close);
 * "-" is refused.
 * LORE_ERR_NOT_FOUND for a path that is not there, LORE_ERR_LIMIT where the system allows no more
 * watches. */
LORE_MUST_USE lore_status lore_folder_watch_open(const lore_source_options *options,
                                                 const lore_limits *limits,
                                                 lore_folder_watch **watch, lore_error *err);
void lore_folder_watch_close(lore_folder_watch *watch); /* accepts NULL */
/* Wait for changes, and then until nothing has changed for a moment (or too much has). Everything
 * since the last call is in it. LORE_ERR_CANCELLED when interrupted; fails as open does. */
LORE_MUST_USE lore_status lore_folder_watch_next(lore_folder_watch *watch,
                                                 const lore_interrupt *interrupt, lore_arena *arena,
                                                 lore_folder_changes *changes, lore_error *err);
/* The changes given last could not be worked: the next ones are everything, after a pause. */
void lore_folder_watch_again(lore_folder_watch *watch);

#endif
