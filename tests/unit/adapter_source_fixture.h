/* A source of adapters without files: the folder says how many bytes an adapter has and which value
 * it carries ("100:7"; "broken" is refused, "gone" is not there). What is open, placed and seated
 * is counted, and what the pool must never do ends the test. */
#ifndef LORE_TESTS_ADAPTER_SOURCE_FIXTURE_H
#define LORE_TESTS_ADAPTER_SOURCE_FIXTURE_H

#include "generation/adapters_int.h"
#include "tests/check.h"

#include <stdatomic.h>

enum { SOURCE_SLOTS_MAX = 16 };

typedef struct source_item { /* stands for a lore_adapter and for a lore_adapter_placed */
    size_t bytes;
    int32_t value;
} source_item;

typedef struct source {
    lore_lock lock;     /* guards the four below */
    bool is_held;       /* open waits */
    bool is_mended;     /* "broken" is not */
    int64_t device_cap; /* bytes that place has, 0: any */
    int64_t device_bytes;
    atomic_int opens, open_now, placed_now, wakes;
    const source_item *slots[SOURCE_SLOTS_MAX]; /* the engine's thread alone */
    atomic_bool is_wrong;                       /* the pool broke a rule */
} source;

CHECK_UNUSED static void source_hold(source *s, bool is_held)
{
    lore_lock_acquire(&s->lock);
    s->is_held = is_held;
    lore_lock_wake_all(&s->lock);
    lore_lock_release(&s->lock);
}

CHECK_UNUSED static lore_status source_open(void *self, const char *folder,
                                            const lore_limits *limits, lore_adapter **adapter,
                                            lore_adapter_info *info, lore_error *err)
{
    source *s = self;
    int bytes = 0, value = 0;
    (void)limits;
    atomic_fetch_add(&s->opens, 1);
    lore_lock_acquire(&s->lock);
    while (s->is_held) {
        (void)lore_lock_wait(&s->lock, 0);
    }
    const bool is_mended = s->is_mended;
    lore_lock_release(&s->lock);
    if (strcmp(folder, "gone") == 0) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "there is no folder 'gone'");
    }
    if (sscanf(folder, "%d:%d", &bytes, &value) != 2 && !is_mended) {
        return lore_fail(err, LORE_ERR_CORRUPT, "the tensor is damaged");
    }
    source_item *item = lore_alloc(sizeof *item);
    if (item == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the adapter");
    }
    *item = (source_item){(size_t)bytes, value};
    *info = (lore_adapter_info){.modules = 2, .rank_max = 4, .size_bytes = (size_t)bytes};
    *adapter = (lore_adapter *)item;
    atomic_fetch_add(&s->open_now, 1);
    return LORE_OK;
}

CHECK_UNUSED static void source_close(void *self, lore_adapter *adapter)
{
    atomic_fetch_sub(&((source *)self)->open_now, 1);
    lore_free(adapter);
}

CHECK_UNUSED static size_t source_bytes(void *self, const lore_adapter *adapter)
{
    (void)self;
    return ((const source_item *)adapter)->bytes;
}

CHECK_UNUSED static lore_status source_place(void *self, const lore_adapter *adapter,
                                             lore_adapter_placed **placed, lore_error *err)
{
    source *s = self;
    source_item *item = lore_alloc(sizeof *item);
    if (item == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the adapter");
    }
    *item = *(const source_item *)adapter;
    lore_lock_acquire(&s->lock);
    const bool fits = s->device_cap == 0 || s->device_bytes + (int64_t)item->bytes <= s->device_cap;
    s->device_bytes += fits ? (int64_t)item->bytes : 0;
    lore_lock_release(&s->lock);
    if (!fits) {
        lore_free(item);
        return lore_fail(err, LORE_ERR_NOMEM, "the device is full");
    }
    atomic_fetch_add(&s->placed_now, 1);
    *placed = (lore_adapter_placed *)item;
    return LORE_OK;
}

CHECK_UNUSED static void source_unplace(void *self, lore_adapter_placed *placed)
{
    source *s = self;
    source_item *item = (source_item *)placed;
    lore_lock_acquire(&s->lock);
    s->device_bytes -= (int64_t)item->bytes;
    lore_lock_release(&s->lock);
    item->value = -1; /* whoever still reads it draws nonsense */
    atomic_fetch_sub(&s->placed_now, 1);
    lore_free(item);
}

CHECK_UNUSED static void source_seat(void *self, int32_t slot, const lore_adapter_placed *placed)
{
    source *s = self;
    const bool is_empty = s->slots[slot] == NULL;
    if (is_empty == (placed == NULL)) {
        atomic_store(&s->is_wrong, true); /* a slot is taken while it is empty, and emptied once */
    }
    s->slots[slot] = (const source_item *)placed;
}

CHECK_UNUSED static void source_wake(void *self)
{
    atomic_fetch_add(&((source *)self)->wakes, 1);
}

CHECK_UNUSED static lore_adapter_source source_init(source *s, int32_t slots)
{
    memset(s, 0, sizeof *s);
    lore_lock_init(&s->lock);
    return (lore_adapter_source){.self = s,
                                 .slots = slots,
                                 .base_name = "base-model",
                                 .open = source_open,
                                 .close = source_close,
                                 .bytes = source_bytes,
                                 .place = source_place,
                                 .unplace = source_unplace,
                                 .seat = source_seat};
}

CHECK_UNUSED static void source_destroy(source *s)
{
    CHECK_INT(atomic_load(&s->open_now), 0);
    CHECK_INT(atomic_load(&s->placed_now), 0);
    CHECK(!atomic_load(&s->is_wrong));
    lore_lock_destroy(&s->lock);
}

#endif
