/* `ref`: every op as plain loops over f32, sums in double. It is slow on purpose: it is the meaning
 * of ops.h, the golden truth that other backends are compared with, and the place to look when a
 * contract is unclear.
 *
 * It takes no notice of precision or instruction set. Of its loops only matmul runs on the pool,
 * because a model on ref would otherwise keep one core busy for minutes. */
#include "kernels/ref/ref_int.h"

#include "base/mem.h"

#include <stdio.h>

static const lore_ops ref_ops = {
    .name = "ref",
    .embed = lore_ref_embed,
    .rmsnorm = lore_ref_rmsnorm,
    .layernorm = lore_ref_layernorm,
    .matmul = lore_ref_matmul,
    .glu = lore_ref_glu,
    .add = lore_ref_add,
    .softcap = lore_ref_softcap,
    .rope_append = lore_ref_rope_append,
    .rope_packed = lore_ref_rope_packed,
    .attend_paged = lore_ref_attend_paged,
    .attend_packed = lore_ref_attend_packed,
    .pool = lore_ref_pool,
    .gather = lore_ref_gather,
    .penalise = lore_host_penalise,
    .tops = lore_ref_tops,
    .sample = lore_ref_sample,
    .scan = lore_ref_scan,
    .search = lore_host_search,
};

static lore_status ref_open(const lore_backend_options *options, lore_backend **backend,
                            lore_error *err)
{
    if (options->precision != LORE_PRECISION_AUTO && options->precision != LORE_PRECISION_F32) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED, "the ref backend computes in f32 only, not %s",
                         lore_precision_name(options->precision));
    }
    lore_backend *opened = lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the ref backend");
    }
    snprintf(opened->description, sizeof opened->description,
             "ref: plain loops in f32, %d thread%s",
             options->pool == NULL ? 1 : (int)lore_pool_size(options->pool),
             options->pool == NULL || lore_pool_size(options->pool) == 1 ? "" : "s");
    *backend = opened;
    return LORE_OK;
}

static void ref_close(lore_backend *backend)
{
    lore_free(backend);
}

static lore_status ref_queue_open(lore_backend *backend, lore_queue **queue, lore_error *err)
{
    return lore_host_queue_open(backend, &ref_ops, queue, err);
}

const lore_backend_driver lore_ref_driver = {
    .kind = LORE_BACKEND_REF,
    .open = ref_open,
    .close = ref_close,
    .queue_open = ref_queue_open,
    .queue_close = lore_host_queue_close,
    .queue_begin = lore_host_queue_begin,
    .queue_wait = lore_host_queue_wait,
    .memory_alloc = lore_host_alloc,
    .memory_free = lore_host_free,
    .upload = lore_host_upload,
    .download = lore_host_download,
    .weight_pack = lore_ref_weight_pack,
    .weight_free = lore_ref_weight_free,
};
