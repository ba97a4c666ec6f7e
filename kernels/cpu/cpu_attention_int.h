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

/* Keys begin .. end-1 of a block; none where they are equal. */
typedef struct lore_key_span {
    int32_t begin, end;
} lore_key_span;

static inline int32_t lore_attend_clamp(int64_t value, int32_t most)
{
    return value < 0 ? 0 : value < most ? (int32_t)value : most;
}

/* What query vectors first_vector to last_vector together see of the `count` keys from `first`, of
 * those that are the item's. Both ends grow with the vector. */
static inline lore_key_span lore_attend_seen(const lore_attend *job, int32_t first_vector,
                                             int32_t last_vector, int32_t first, int32_t count)
{
    const int64_t behind = (int64_t)job->position + first_vector / job->heads - job->behind;
    const int64_t begin = behind > job->key_begin ? behind : job->key_begin;
    const int64_t end = (int64_t)job->position + last_vector / job->heads + job->ahead + 1;
    lore_key_span seen = {lore_attend_clamp(begin - first, count),
                          lore_attend_clamp(end - first, count)};
    return seen;
}

#endif
