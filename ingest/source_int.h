/* Inside ingest/: what source.c is made of: the list of files that a run begins with, and the lines
 * of a JSONL file. */
#ifndef LORE_INGEST_SOURCE_INT_H
#define LORE_INGEST_SOURCE_INT_H

#include "ingest/container_int.h"

#include <sys/stat.h>

/* ---- walk.c ---- */

typedef struct lore_entry {
    const char *path;
    const char *failure; /* why it cannot be read; NULL if it may be */
    lore_status status;
    bool is_named; /* by the caller, not found in a folder */
} lore_entry;

typedef struct lore_walk {
    const lore_limits *limits;
    lore_arena *arena; /* of paths and failures */
    lore_entry *entries;
    size_t count, room;
    int64_t seen_names;  /* in folders, against limits.folder_entries_max */
    int64_t passed_over; /* nothing that can be read */
    bool are_found;      /* as in lore_source_options */
    const char *data;    /* likewise */
} lore_walk;

/* A file, all files of a folder, or "-". What cannot be read is an entry with its failure.
 * LORE_ERR_LIMIT for too many entries, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_walk_add(lore_walk *walk, const char *path, lore_error *err);
void lore_walk_destroy(lore_walk *walk);
/* May a file of this name in a folder be a document? It has a name that tells, or no extension, so
 * that only the content can. */
bool lore_walk_takes(lore_str name);

/* Is it the folder that the documents are written to? Its lock would be a text. data may be NULL.
 */
bool lore_is_data_folder(const char *data, const struct stat *info);

/* ---- lines.c ---- */

typedef struct lore_lines {
    const lore_limits *limits;
    lore_interrupt interrupt; /* ends a wait for input, and the file */
    int fd;                   /* -1: none open */
    bool is_stdin, is_eof, is_skipping;
    const char *path;
    int64_t number; /* of the line read last */
    lore_buf buf;   /* [start, len) is read but not used */
    size_t start;
} lore_lines;

void lore_lines_init(lore_lines *lines, const lore_limits *limits, lore_interrupt interrupt);
void lore_lines_destroy(lore_lines *lines);
/* stdin_fd: what "-" reads. path is borrowed until the close. */
LORE_MUST_USE lore_status lore_lines_open(lore_lines *lines, const char *path, int stdin_fd,
                                          lore_error *err);
void lore_lines_close(lore_lines *lines);
/* The next line, borrowed until the next call; *has_line false at the end. A line over the limit is
 * an error once, and skipped. */
LORE_MUST_USE lore_status lore_lines_next(lore_lines *lines, lore_str *line, bool *has_line,
                                          lore_error *err);

#endif
