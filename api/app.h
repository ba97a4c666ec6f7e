/* Everything a command or the server needs, opened in order and closed in reverse: pool, backends,
 * embedder, reranker, index, its writer, request log, engine, prompts.
 *
 * Const after opening, but for the count of large documents under way. Whoever changes the index
 * goes through `writer`. */
#ifndef LORE_API_APP_H
#define LORE_API_APP_H

#include "api/answer.h"
#include "index/request_log.h"
#include "ingest/ingest.h"

typedef struct lore_app {
    const lore_config *config; /* borrowed */
    lore_pool *pool;
    lore_backend *embed_backend;  /* high priority: questions and searches */
    lore_backend *encode_backend; /* the GPU, where encoder and reranker are on it; else NULL */
    lore_backend *decode_backend; /* NULL where nothing computes */
    bool is_on_gpu;               /* the device of the configuration is one that can be used */
    lore_backend *search_backend; /* the GPU, where vectors are copied to it; else NULL */
    lore_embedder *embedder;      /* NULL unless asked */
    lore_reranker *reranker;      /* NULL unless asked, or reranker "none" */
    lore_index *index;
    lore_writer *writer;          /* NULL unless asked, or the folder is read-only */
    lore_background *background;  /* where a server prepares documents; NULL unless asked */
    lore_request_log *log;        /* NULL unless asked, switched off, or the folder is read-only */
    lore_engine *engine;          /* NULL unless asked, or decoder "none" */
    lore_template *chat_template; /* the engine's model's; NULL without an engine */
    lore_prompt_template **prompts;
    int32_t prompt_count;
    lore_answerer answerer; /* points at the above */
    atomic_bool is_failing; /* the decoder failed at the last answer that it was asked for */

    lore_lock room;     /* guards large_bytes */
    size_t large_bytes; /* of the large documents that are being prepared */
    bool has_room;      /* the lock was initialised */
} lore_app;

typedef struct lore_app_needs {
    bool embedder, index, index_writer, engine; /* the engine brings the prompts */
    bool prompts;
    bool reranker;
    bool device_search; /* the index holds copies of its vectors on the GPU, if one is configured; a
                           service asks for that anyway */
    /* For a server: background and request log; and where the data folder is read-only, reading
     * instead of index_writer. */
    bool service;
} lore_app_needs;

/* On failure everything opened so far is closed again; the message says which part and what to do.
 */
LORE_MUST_USE lore_status lore_app_open(const lore_config *config, lore_app_needs needs,
                                        lore_app *app, lore_error *err);
void lore_app_close(lore_app *app); /* accepts a zeroed app */

/* The writer, or LORE_ERR_UNSUPPORTED because the folder is read-only. */
LORE_MUST_USE lore_status lore_app_writer(const lore_app *app, lore_writer **writer,
                                          lore_error *err);
/* Preparing a document takes many times its bytes of memory, so large ones (over a megabyte) share
 * limits.file_bytes_max, or go alone; the others never wait. Waits until is_cancelled(self), then
 * LORE_ERR_CANCELLED, and then there is nothing to end. */
LORE_MUST_USE lore_status lore_app_begin_document(lore_app *app, size_t bytes,
                                                  bool (*is_cancelled)(void *self), void *self,
                                                  lore_error *err);
void lore_app_end_document(lore_app *app, size_t bytes); /* the same number */
/* Call found(self, spec, is_named) for each adapter of the configuration: of its names, and of the
 * folders in its folders. Strings live in the arena, or in config. Fails as found, or as a folder
 * that cannot be read. */
typedef lore_status (*lore_app_adapter_found)(void *self, const lore_adapter_spec *spec,
                                              bool is_named, lore_error *err);
LORE_MUST_USE lore_status lore_app_find_adapters(const lore_config *config,
                                                 lore_app_adapter_found found, void *self,
                                                 lore_arena *arena, lore_error *err);
/* What config->device means on this machine; LORE_ERR_INVALID for a word it does not know. auto is
 * the first GPU where this lore is built for them and the GPU can be opened, else the processor,
 * and the log says why. */
LORE_MUST_USE lore_status lore_app_device(const lore_config *config, lore_backend_options *options,
                                          lore_error *err);
/* That device opened. Where it cannot be used, the message says why and what to do. */
LORE_MUST_USE lore_status lore_app_open_device(const lore_config *config, lore_pool *pool,
                                               lore_backend **backend, lore_error *err);

#endif
