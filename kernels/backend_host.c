/* The half of a backend that ref and cpu share: device memory is host memory and copies are memcpy.
 *
 * Work is done inside the op that asks for it, so there is nothing to wait for; the queue only
 * carries the scratch of its ops, the first failure, and whether it owns the pool. */
#include "kernels/backend_int.h"

#include "base/mem.h"

#include <string.h>

lore_status lore_host_queue_open(lore_backend *backend, const lore_ops *ops, lore_queue **queue,
                                 lore_error *err)
{
    lore_host_queue *opened = lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a queue");
    }
    opened->base.ops = ops;
    opened->base.backend = backend;
    *queue = &opened->base;
    return LORE_OK;
}

void lore_host_queue_close(lore_queue *queue)
{
    lore_host_queue *host = (lore_host_queue *)queue;
    lore_free_aligned(host->scratch);
    lore_free(host);
}

void lore_host_queue_begin(lore_queue *queue, lore_priority priority)
{
    lore_host_queue *host = (lore_host_queue *)queue;
    LORE_ASSERT(!host->has_pool);
    if (queue->backend->options.pool != NULL) {
        lore_pool_begin(queue->backend->options.pool, priority);
        host->has_pool = true;
    }
}

void lore_host_queue_wait(lore_queue *queue)
{
    lore_host_queue *host = (lore_host_queue *)queue;
    if (host->has_pool) {
        lore_pool_end(queue->backend->options.pool);
        host->has_pool = false;
    }
}

lore_status lore_host_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                            lore_error *err)
{
    (void)backend;
    void *made = lore_alloc_aligned(size_bytes);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu bytes of backend memory",
                         size_bytes);
    }
    *memory = made;
    return LORE_OK;
}

void lore_host_free(lore_backend *backend, void *memory)
{
    (void)backend;
    lore_free_aligned(memory);
}

void lore_host_upload(lore_queue *queue, void *to, const void *host, size_t size_bytes)
{
    (void)queue;
    memcpy(to, host, size_bytes);
}

void lore_host_download(lore_queue *queue, void *host, const void *from, size_t size_bytes)
{
    (void)queue;
    memcpy(host, from, size_bytes);
}

void *lore_host_scratch(lore_queue *queue, size_t size_bytes)
{
    lore_host_queue *host = (lore_host_queue *)queue;
    if (size_bytes <= host->scratch_bytes && host->scratch != NULL) {
        return host->scratch;
    }
    void *grown = lore_alloc_aligned(size_bytes);
    if (grown == NULL) {
        lore_queue_fail(queue, LORE_ERR_NOMEM, "out of memory for %zu bytes of scratch",
                        size_bytes);
        return NULL;
    }
    lore_free_aligned(host->scratch);
    host->scratch = grown;
    host->scratch_bytes = size_bytes;
    return grown;
}

int32_t lore_host_threads(const lore_queue *queue)
{
    const lore_pool *pool = queue->backend->options.pool;
    return pool == NULL ? 1 : lore_pool_size(pool);
}

void lore_host_for(lore_queue *queue, int32_t count, int32_t grain, lore_pool_body body, void *self)
{
    if (count <= 0) {
        return;
    }
    const lore_backend_options *options = &queue->backend->options;
    if (options->pool == NULL || count <= grain) {
        body(self, 0, count, 0);
        return;
    }
    lore_pool_for(options->pool, count, grain, options->priority, body, self);
}
