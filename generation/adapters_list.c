/* What there is of adapters, for people and for metrics. */
#include "generation/adapters_int.h"

#include <stdlib.h>
#include <string.h>

const char *lore_adapter_state_name(lore_adapter_state state)
{
    static const char *const NAMES[] = {"disk", "loading", "host", "device", "failed"};
    return NAMES[state];
}

static lore_adapter_state state_of(const lore_adapter_version *version)
{
    return version->placed != NULL            ? LORE_ADAPTER_DEVICE
           : version->is_wanted               ? LORE_ADAPTER_LOADING
           : version->error.status != LORE_OK ? LORE_ADAPTER_FAILED
           : version->host != NULL            ? LORE_ADAPTER_HOST
                                              : LORE_ADAPTER_DISK;
}

static int compare_views(const void *a, const void *b)
{
    const lore_adapter_view *x = a, *y = b;
    const size_t least = x->name.len < y->name.len ? x->name.len : y->name.len;
    const int order = memcmp(x->name.ptr, y->name.ptr, least);
    if (order != 0 || x->name.len != y->name.len) {
        return order != 0 ? order : x->name.len < y->name.len ? -1 : 1;
    }
    return (int)x->is_leaving - (int)y->is_leaving;
}

/* False: out of memory. */
static bool view_of(const lore_adapter_version *version, lore_arena *arena, lore_adapter_view *view)
{
    const lore_adapter_state state = state_of(version);
    *view = (lore_adapter_view){.name = lore_str_copy(arena, version->name),
                                .folder = lore_str_copy(arena, version->folder),
                                .state = state,
                                .is_pinned = version->is_pinned,
                                .is_leaving = !version->is_listed,
                                .requests = version->users,
                                .info = version->info,
                                .serial = version->serial,
                                .used_ms = version->used_ms};
    if (state == LORE_ADAPTER_FAILED) {
        view->error = lore_str_copy(arena, lore_str_from(version->error.message));
    }
    return view->name.ptr != NULL && view->folder.ptr != NULL &&
           (state != LORE_ADAPTER_FAILED || view->error.ptr != NULL);
}

lore_status lore_adapters_list(lore_adapters *adapters, lore_arena *arena, lore_adapter_view **list,
                               int32_t *count, lore_error *err)
{
    int32_t all = 0, at = 0;
    lore_lock_acquire(&adapters->lock);
    for (const lore_adapter_version *v = lore_adapters_next(adapters, NULL); v != NULL;
         v = lore_adapters_next(adapters, v)) {
        all++;
    }
    lore_adapter_view *views = LORE_PUSH(arena, lore_adapter_view, all);
    bool is_done = views != NULL;
    for (const lore_adapter_version *v = lore_adapters_next(adapters, NULL); v != NULL && is_done;
         v = lore_adapters_next(adapters, v)) {
        is_done = view_of(v, arena, &views[at++]);
    }
    lore_lock_release(&adapters->lock);
    if (!is_done) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the list of adapters");
    }
    qsort(views, (size_t)all, sizeof *views, compare_views);
    *list = views;
    *count = all;
    return LORE_OK;
}

void lore_adapters_get_stats(lore_adapters *adapters, lore_adapters_stats *stats)
{
    lore_lock_acquire(&adapters->lock);
    *stats = (lore_adapters_stats){.device_bytes = adapters->device_bytes,
                                   .device_bytes_max = adapters->device_bytes_max,
                                   .host_bytes = adapters->host_bytes,
                                   .host_bytes_max = adapters->host_bytes_max,
                                   .loads = adapters->loads,
                                   .failures = adapters->failures,
                                   .device_evictions = adapters->device_evictions,
                                   .host_evictions = adapters->host_evictions,
                                   .load_ns = adapters->load_ns};
    for (const lore_adapter_version *v = lore_adapters_next(adapters, NULL); v != NULL;
         v = lore_adapters_next(adapters, v)) {
        stats->by_state[state_of(v)]++;
        stats->requests += v->users;
    }
    lore_lock_release(&adapters->lock);
}
