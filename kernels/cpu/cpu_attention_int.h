/* Inside cpu only: what the attention loops of every instruction set share. Plain C, inlined into
 * each of them, so that no code of one set is reached from another. */
#ifndef LORE_KERNELS_CPU_ATTENTION_INT_H
#define LORE_KERNELS_CPU_ATTENTION_INT_H

#include "kernels/cpu/cpu_int.h"

/* Up to so many query vectors of an item, keys are read where they lie: packing them would cost
 * more than it saves. */
enum { LORE_ATTEND_FEW = 8 };

/* Where the keys (or values) first .. first+count-1 lie. */
static inline void lore_attend_locate(const lore_attend *job, const void *base, int32_t first,
                                      int32_t count, const void **rows)
{
    const int64_t element = job->dtype == LORE_F32 ? 4 : 2;
    int32_t slot = 0, token = first;
    const int32_t page_tokens = job->pages != NULL ? job->page_tokens : INT32_MAX;
    if (job->pages != NULL) {
        slot = first / page_tokens;
        token = first % page_tokens;
    }
    for (int32_t i = 0; i < count;) {
        const int64_t page = job->pages != NULL ? job->pages[slot++] * job->page_stride : 0;
        for (; i < count && token < page_tokens; i++, token++) {
            rows[i] = (const char *)base + (page + token * job->key_stride) * element;
        }
        token = 0;
    }
}

/* How many keys of the block that starts at `first` query vector `vector` may see. */
static inline int32_t lore_attend_seen(const lore_attend *job, int32_t vector, int32_t first,
                                       int32_t count)
{
    const int64_t visible =
        (int64_t)job->visible + (job->is_causal ? vector / job->heads : 0) - first;
    return visible < 0 ? 0 : visible < count ? (int32_t)visible : count;
}

#endif
