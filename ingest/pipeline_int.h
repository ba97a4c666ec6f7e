/* Inside ingest/: what the stages of a run (stages.c) and its writer (pipeline.c) share. The
 * picture and the invariants are at the top of pipeline.c. */
#ifndef LORE_INGEST_PIPELINE_INT_H
#define LORE_INGEST_PIPELINE_INT_H

#include "ingest/ingest_int.h"

#include "base/thread.h"

#include <stdatomic.h>

enum {
    LORE_CLEANERS_MAX = 8,
    LORE_EMBEDDERS_MAX = 2,
    LORE_TEXTS_EACH = 2, /* chunks of a document, at least so many on the average: sizes batches */
    LORE_GROUP_MAX = LORE_CHANGES_MAX,
    LORE_POLL_MS = 100
};
#define LORE_BYTES_IN_FLIGHT ((size_t)128 * 1024 * 1024)

typedef enum lore_job_state {
    LORE_JOB_READY,
    LORE_JOB_UNCHANGED,
    LORE_JOB_FAILED,
    LORE_JOB_STOPPED
} lore_job_state;

typedef struct lore_job {
    int64_t sequence;
    lore_job_state state;
    lore_arena arena; /* everything of this document */
    lore_raw_document raw;
    lore_prepared prepared;
    lore_error failure;
    bool is_known; /* a document with this id was in the index when it was cleaned */
} lore_job;

typedef struct lore_pipeline {
    lore_index *index; /* NULL: a dry run, and nothing there */
    lore_writer *writer;
    lore_embedder *embedder;
    const lore_config *config;
    lore_source *source;
    const lore_ingest_options *options;
    lore_str collection;
    int32_t dim;

    lore_job *jobs;
    size_t job_count;
    lore_chan *free_jobs, *to_clean, *to_embed, *to_write;
    lore_thread reader, cleaners[LORE_CLEANERS_MAX], embedders[LORE_EMBEDDERS_MAX];
    atomic_int cleaners_left;  /* the last one closes the channel behind: acquire-release */
    atomic_int embedders_left; /* likewise */
    int32_t batch_texts;       /* chunks that an embedder gives the encoder at once */
    int32_t batch_jobs;        /* documents that it takes for that */
    atomic_bool is_stopping;   /* a flag without data behind it: relaxed */

    lore_lock lock; /* guards the three below; changed: bytes were given back */
    size_t bytes_in_flight;
    lore_status fatal;
    lore_error fatal_error;

    /* The writer's own. */
    lore_job **waiting; /* [job_count], by sequence % job_count */
    int64_t next_sequence;
    lore_job *group[LORE_GROUP_MAX];
    int32_t group_count, group_max;
    size_t group_bytes;
    lore_change changes[LORE_GROUP_MAX]; /* of the group, while it is written */
    lore_document_row rows[LORE_GROUP_MAX];
    int64_t group_deadline_ns, progress_ns;
    lore_ingest_counts *counts;
    lore_id_set seen;      /* all ids of this run */
    lore_id_set written;   /* of these, those that were replaced or added */
    lore_arena root_arena; /* unreadable sources */
    lore_str *unread;
    size_t unread_count, unread_room;
    bool is_cancelled;
} lore_pipeline;

/* One reader, several cleaners, one embedder or as many as keep the encoder busy; self is the
 * pipeline. */
void *lore_stage_read(void *self);
void *lore_stage_clean(void *self);
void *lore_stage_embed(void *self);

bool lore_pipeline_is_stopping(lore_pipeline *p);
/* Let all stages pass on what they have without working on it. */
void lore_pipeline_stop(lore_pipeline *p);
/* The run itself failed: remember the first reason and stop. */
void lore_pipeline_fail(lore_pipeline *p, const lore_error *why);
/* Failures of one document, as opposed to those that every document would meet. */
bool lore_is_of_document(lore_status status);
/* Never waits, as every channel has room for all jobs. */
void lore_job_send(lore_chan *chan, lore_job *j);
/* Waits for ever: the sender closes the channel when it ends. NULL then. */
lore_job *lore_job_receive(lore_chan *chan);

#endif
