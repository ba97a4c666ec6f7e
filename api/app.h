/* Everything a command or the server needs, opened in order and closed in reverse: pool, backends,
 * embedder, index, engine, prompts.
 *
 * Const after opening but for the writer's turn, which serialises those who change the index: one
 * thread at a time holds it from lore_app_begin_write to lore_app_end_write. The lock inside guards
 * the turn only and is not held while the holder works. */
#ifndef LORE_API_APP_H
#define LORE_API_APP_H

#include "api/answer.h"
#include "ingest/ingest.h"

typedef struct lore_app {
    const lore_config *config; /* borrowed */
    lore_pool *pool;
    lore_backend *embed_backend; /* urgent: a query's embedding goes before other work */
    lore_backend *decode_backend;
    lore_embedder *embedder; /* NULL unless asked */
    lore_index *index;
    lore_engine *engine; /* NULL unless asked, or decoder "none" */
    lore_prompt_template **prompts;
    int32_t prompt_count;
    lore_answerer answerer; /* points at the above */

    lore_lock turn; /* guards the four below */
    bool is_writing, is_dirty;
    int64_t written_ns; /* when the last writer gave its turn back */
    size_t large_bytes; /* of the large documents that are being prepared */
    bool has_turn;      /* the lock was initialised */
} lore_app;

typedef struct lore_app_needs {
    bool embedder, index, index_writer, engine; /* the engine brings the prompts */
    bool prompts;
} lore_app_needs;

/* On failure everything opened so far is closed again; the message says which part and what to do.
 */
LORE_MUST_USE lore_status lore_app_open(const lore_config *config, lore_app_needs needs,
                                        lore_app *app, lore_error *err);
void lore_app_close(lore_app *app); /* accepts a zeroed app */

/* Wait for the writer's turn. LORE_ERR_TIMEOUT at the deadline, and then there is nothing to end.
 */
LORE_MUST_USE lore_status lore_app_begin_write(lore_app *app, int64_t deadline_ns, lore_error *err);
void lore_app_end_write(lore_app *app);
/* Preparing a document takes many times its bytes of memory, so large ones (over a megabyte) share
 * limits.file_bytes_max, or go alone; the others never wait. Waits until is_cancelled(self), then
 * LORE_ERR_CANCELLED, and then there is nothing to end. */
LORE_MUST_USE lore_status lore_app_begin_document(lore_app *app, size_t bytes,
                                                  bool (*is_cancelled)(void *self), void *self,
                                                  lore_error *err);
void lore_app_end_document(lore_app *app, size_t bytes); /* the same number */
/* Delete one document in a transaction of its own; the caller has the turn. */
LORE_MUST_USE lore_status lore_app_delete_document(lore_app *app, lore_str collection, lore_str id,
                                                   bool *found, lore_error *err);
/* Publish the index when something was written, but not in the last idle_ms (0: at once). Called
 * now and then by the server's main thread. */
LORE_MUST_USE lore_status lore_app_publish(lore_app *app, int64_t idle_ms, lore_error *err);

/* What config->device means on this machine; LORE_ERR_INVALID for a word it does not know. */
LORE_MUST_USE lore_status lore_app_device(const lore_config *config, lore_backend_options *options,
                                          lore_error *err);

#endif
