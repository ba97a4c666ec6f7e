/* How much memory keys and values get.
 *
 * Never more pages than all sequences at full length can use. In main memory limits.kv_bytes_max
 * says how much that may be, 512 MiB where it says nothing. On a device what is free decides, after
 * the weights are there: four fifths of it, since a machine is rarely for one program alone; or,
 * where limits.vram_bytes_max names a sum, what this leaves beside weights and working memory, but
 * for a reserve (products keep workspaces, recordings take room). limits.kv_bytes_max holds there
 * too where it is set. The context shrinks to what one sequence can have. */
#include "models/decoder_int.h"

#include <inttypes.h>

enum { PAGE_TOKENS_DEFAULT = 32 };
#define MIB ((int64_t)1 << 20)
#define MAIN_BYTES (512 * MIB)
#define RESERVE_BYTES_MAX (1024 * MIB)

/* Bytes of one page over all layers. */
static int64_t page_bytes(const lore_decoder_config *c, int32_t page_tokens, lore_dtype dtype)
{
    return (int64_t)c->layers * 2 * c->kv_heads * page_tokens * c->head_dim *
           (int64_t)lore_dtype_size(dtype);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* What may be spent before anything is known of weights. */
static int64_t most_bytes(const lore_decoder *d, const lore_limits *limits)
{
    int64_t unused = 0, total = 0;
    lore_backend_memory(d->backend, &unused, &total);
    int64_t most = total == 0 ? MAIN_BYTES : total;
    if (total > 0 && limits->vram_bytes_max > 0) {
        most = smaller(most, limits->vram_bytes_max);
    }
    return limits->kv_bytes_max > 0
               ? (total == 0 ? limits->kv_bytes_max : smaller(most, limits->kv_bytes_max))
               : most;
}

/* What a device has left for pages beside what was loaded. */
int64_t lore_decoder_device_bytes(int64_t free_before, int64_t free_now, int64_t vram_limit)
{
    if (vram_limit == 0) {
        return free_now / 5 * 4;
    }
    int64_t taken = free_before > free_now ? free_before - free_now : 0;
    int64_t reserve = smaller(RESERVE_BYTES_MAX, vram_limit / 8);
    return smaller(vram_limit - taken, free_now) - reserve;
}

static void set_pages(lore_decoder *d, int64_t count)
{
    int64_t positions = count * d->info.page_tokens;
    d->info.page_count = (int32_t)count;
    d->info.context = (int32_t)smaller(positions, d->config.context);
}

lore_status lore_decoder_plan_pages(lore_decoder *d, const lore_limits *limits,
                                    const lore_decoder_options *options, lore_error *err)
{
    const lore_decoder_config *c = &d->config;
    int32_t page_tokens = options->page_tokens > 0 ? options->page_tokens : PAGE_TOKENS_DEFAULT;
    int64_t one = page_bytes(c, page_tokens, options->kv_dtype), count = options->page_count;
    LORE_ASSERT(options->kv_dtype == LORE_F32 || options->kv_dtype == LORE_BF16);
    if (count == 0) {
        int64_t useful = (int64_t)d->sequences_max * lore_pages_for(c->context, page_tokens);
        count = smaller(useful, most_bytes(d, limits) / one);
        count = smaller(count, INT32_MAX / page_tokens - 1);
    }
    if (count < 1 || count >= INT32_MAX / page_tokens) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "keys and values may take %" PRId64 " bytes (limits.kv_bytes_max; on a "
                         "GPU limits.vram_bytes_max too), which does not hold one page of %" PRId64,
                         most_bytes(d, limits), one);
    }
    d->info.page_tokens = page_tokens;
    set_pages(d, count);
    return LORE_OK;
}

/* Fewer, where a device has not so much left. */
static lore_status fit_pages(lore_decoder *d, const lore_limits *limits, int64_t adapter_bytes,
                             int64_t one, int64_t free_before, lore_error *err)
{
    int64_t free_now = 0, total = 0;
    lore_backend_memory(d->backend, &free_now, &total);
    int64_t bytes =
        lore_decoder_device_bytes(free_before, free_now, limits->vram_bytes_max) - adapter_bytes;
    int64_t count = smaller(d->info.page_count, bytes / one - 1); /* and the reserved one */
    if (count < 1) {
        return lore_fail(err, LORE_ERR_NOMEM,
                         "no GPU memory is left for keys and values: weights and working memory "
                         "take %" PRId64 " MiB, adapters may have %" PRId64 ", %" PRId64
                         " MiB are free%s; end what else runs there, take a smaller model, or use "
                         "--device cpu",
                         (free_before - free_now) / MIB, adapter_bytes / MIB, free_now / MIB,
                         limits->vram_bytes_max > 0 ? " and limits.vram_bytes_max allows no more"
                                                    : "");
    }
    set_pages(d, count);
    return LORE_OK;
}

/* One allocation: layer after layer, keys then values. One page more than the scheduler knows is
 * for rows that nobody asked for (decoder_step.c). */
lore_status lore_decoder_take_pages(lore_decoder *d, const lore_limits *limits,
                                    const lore_decoder_options *options, int64_t free_before,
                                    lore_error *err)
{
    const lore_decoder_config *c = &d->config;
    int64_t one = page_bytes(c, d->info.page_tokens, options->kv_dtype);
    lore_status status = LORE_OK;
    if (free_before > 0 && options->page_count == 0) {
        status = fit_pages(d, limits, options->adapter_bytes, one, free_before, err);
    }
    int64_t count = (int64_t)d->info.page_count + 1;
    d->info.kv_bytes = count * one;
    d->info.kv_on_device = free_before > 0;
    if (status == LORE_OK) {
        status = lore_backend_alloc(d->backend, (size_t)d->info.kv_bytes, &d->page_memory, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    int64_t half = one / c->layers / 2 * count;
    for (int32_t i = 0; i < c->layers; i++) {
        char *base = (char *)d->page_memory + 2 * half * i;
        d->layers[i].pages = (lore_pages){.keys = base,
                                          .values = base + half,
                                          .dtype = options->kv_dtype,
                                          .page_count = (int32_t)count,
                                          .page_tokens = d->info.page_tokens,
                                          .kv_heads = c->kv_heads,
                                          .head_dim = c->head_dim};
    }
    return LORE_OK;
}
