/* Building a double array, after darts-clone (Yata 2008): nodes are placed depth first in the order
 * of the sorted keys; a node's children go to the first base where all their units are free.
 *
 * Free units form a list, threaded through the units themselves: base is the next one, the value
 * the one before. Only the last OPEN_BLOCKS blocks of 256 units are on it, and a search looks at
 * TRIES_MAX of them, so placing a node takes constant time and what a block leaves free is
 * forgotten. Vocabularies fill over nine tenths of the units, because most nodes have one child and
 * fit anywhere; keys made to leave blocks empty run into the limit on units a node. */
#include "models/trie_int.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 256,
    OPEN_BLOCKS = 16,
    TRIES_MAX = 128,
    UNITS_MAX = 1 << 28,
    UNITS_FREE = 1 << 16, /* units that a small trie may have whatever its nodes */
    UNITS_PER_NODE = 16
};

static const uint32_t FREE_UNIT = UINT32_MAX;
static const uint32_t ROOT_PARENT = UINT32_MAX - 1;
static const uint32_t END_BIT = UINT32_C(1) << 31;

/* Keys first .. last - 1 share their first depth bytes, and those lead to node. */
typedef struct trie_span {
    size_t first, last, depth;
    uint32_t node;
} trie_span;

typedef struct trie_builder {
    lore_trie_unit *units;
    int32_t *values;
    size_t count, room, nodes;
    uint32_t head; /* of the free list, FREE_UNIT: empty */
    uint32_t tail;
    trie_span *stack; /* [keys + 1] */
    size_t depth;
    lore_error *err;
} trie_builder;

static int by_text(const void *left, const void *right)
{
    const lore_trie_key *a = left, *b = right;
    int order = lore_str_compare(a->text, b->text);
    return order != 0 ? order : (a->value > b->value) - (a->value < b->value);
}

size_t lore_trie_sort(lore_trie_key *keys, size_t count)
{
    qsort(keys, count, sizeof *keys, by_text);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && lore_str_equal(keys[kept - 1].text, keys[i].text)) {
            kept--;
        }
        keys[kept++] = keys[i];
    }
    return kept;
}

/* ---- free units ---- */

static uint32_t *next_free(trie_builder *b, uint32_t at)
{
    return &b->units[at].base;
}

static void set_previous(trie_builder *b, uint32_t at, uint32_t previous)
{
    b->values[at] = (int32_t)previous; /* FREE_UNIT is -1 here, units are below 2^28 */
}

static void unlink_unit(trie_builder *b, uint32_t at)
{
    uint32_t next = b->units[at].base, previous = (uint32_t)b->values[at];
    if (previous == FREE_UNIT) {
        b->head = next;
    } else {
        *next_free(b, previous) = next;
    }
    if (next == FREE_UNIT) {
        b->tail = previous;
    } else {
        set_previous(b, next, previous);
    }
}

/* Forget what a block leaves free: nothing will be placed there any more. */
static void close_block(trie_builder *b, size_t start)
{
    for (uint32_t at = (uint32_t)start; at < start + BLOCK; at++) {
        if (b->units[at].parent == FREE_UNIT) {
            unlink_unit(b, at);
        }
    }
}

static lore_status add_block(trie_builder *b)
{
    if (b->count + BLOCK > UNITS_MAX || b->count > UNITS_FREE + UNITS_PER_NODE * b->nodes) {
        return lore_fail(b->err, LORE_ERR_LIMIT, "%zu bytes of tokens do not fit into a trie",
                         b->nodes);
    }
    if (b->count + BLOCK > b->room) {
        size_t room = b->room == 0 ? 4 * BLOCK : b->room * 2;
        lore_trie_unit *units = lore_realloc(b->units, room * sizeof *units);
        b->units = units != NULL ? units : b->units;
        int32_t *values = units != NULL ? lore_realloc(b->values, room * sizeof *values) : NULL;
        b->values = values != NULL ? values : b->values;
        if (values == NULL) {
            return lore_fail(b->err, LORE_ERR_NOMEM, "out of memory for a trie");
        }
        b->room = room;
    }
    uint32_t start = (uint32_t)b->count;
    for (uint32_t at = start; at < start + BLOCK; at++) {
        b->units[at] = (lore_trie_unit){FREE_UNIT, FREE_UNIT};
        set_previous(b, at, b->tail);
        if (b->tail == FREE_UNIT) {
            b->head = at;
        } else {
            *next_free(b, b->tail) = at;
        }
        b->tail = at;
    }
    b->count += BLOCK;
    if (b->count > OPEN_BLOCKS * BLOCK) {
        close_block(b, b->count - (OPEN_BLOCKS + 1) * BLOCK);
    }
    return LORE_OK;
}

/* ---- nodes ---- */

static bool is_place(const trie_builder *b, uint32_t base, const uint8_t *labels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (b->units[base ^ labels[i]].parent != FREE_UNIT) {
            return false;
        }
    }
    return true;
}

static lore_status find_base(trie_builder *b, const uint8_t *labels, size_t count, uint32_t *base)
{
    uint32_t at = b->head;
    for (size_t tries = 0; tries < TRIES_MAX && at != FREE_UNIT; tries++) {
        if (is_place(b, at ^ labels[0], labels, count)) {
            *base = at ^ labels[0];
            return LORE_OK;
        }
        at = b->units[at].base;
    }
    lore_status status = add_block(b);
    *base = status == LORE_OK ? (uint32_t)(b->count - BLOCK) : 0;
    return status;
}

/* Cut a span at the bytes behind its common prefix; labels and starts get one entry a child. */
static size_t split_span(const lore_trie_key *keys, trie_span span, uint8_t *labels, size_t *starts)
{
    size_t children = 0;
    for (size_t i = span.first; i < span.last; i++) {
        uint8_t byte = (uint8_t)keys[i].text.ptr[span.depth];
        if (children == 0 || labels[children - 1] != byte) {
            labels[children] = byte;
            starts[children++] = i;
        }
    }
    return children;
}

static lore_status place_children(trie_builder *b, const lore_trie_key *keys, trie_span span)
{
    uint8_t labels[BLOCK];
    size_t starts[BLOCK];
    uint32_t base = 0, end_bit = 0;
    if (keys[span.first].text.len == span.depth) {
        b->values[span.node] = keys[span.first++].value;
        end_bit = END_BIT;
    }
    size_t children = split_span(keys, span, labels, starts);
    if (children > 0) {
        lore_status status = find_base(b, labels, children, &base);
        if (status != LORE_OK) {
            return status;
        }
    }
    b->units[span.node].base = base | end_bit;
    for (size_t i = 0; i < children; i++) {
        uint32_t at = base ^ labels[i];
        unlink_unit(b, at);
        b->units[at] = (lore_trie_unit){0, span.node};
    }
    b->nodes += children;
    for (size_t i = children; i-- > 0;) { /* the first child is on top: depth first */
        size_t last = i + 1 < children ? starts[i + 1] : span.last;
        b->stack[b->depth++] = (trie_span){starts[i], last, span.depth + 1, base ^ labels[i]};
    }
    return LORE_OK;
}

static lore_status place_all(trie_builder *b, const lore_trie_key *keys, size_t count)
{
    lore_status status = add_block(b);
    if (status != LORE_OK) {
        return status;
    }
    unlink_unit(b, LORE_TRIE_ROOT);
    b->units[LORE_TRIE_ROOT] = (lore_trie_unit){0, ROOT_PARENT};
    b->nodes = 1;
    if (count > 0) {
        b->stack[b->depth++] = (trie_span){0, count, 0, LORE_TRIE_ROOT};
    }
    while (b->depth > 0 && status == LORE_OK) {
        trie_span span = b->stack[--b->depth];
        status = place_children(b, keys, span);
    }
    return status;
}

static lore_status keep(trie_builder *b, lore_trie *trie, lore_arena *arena)
{
    lore_trie_unit *units = lore_arena_push(arena, b->count * sizeof *units);
    int32_t *values = lore_arena_push(arena, b->count * sizeof *values);
    if (units == NULL || values == NULL) {
        return lore_fail(b->err, LORE_ERR_NOMEM, "out of memory for a trie");
    }
    memcpy(units, b->units, b->count * sizeof *units);
    memcpy(values, b->values, b->count * sizeof *values);
    *trie = (lore_trie){units, values, b->count};
    return LORE_OK;
}

lore_status lore_trie_build(lore_trie *trie, lore_arena *arena, const lore_trie_key *keys,
                            size_t count, lore_error *err)
{
    trie_builder b = {.head = FREE_UNIT, .tail = FREE_UNIT, .err = err};
    LORE_ASSERT(count == 0 || keys[0].text.len > 0);
    /* Spans that wait are disjoint, so there are never more of them than keys. */
    b.stack = lore_alloc((count + 1) * sizeof *b.stack);
    lore_status status = b.stack != NULL
                             ? place_all(&b, keys, count)
                             : lore_fail(err, LORE_ERR_NOMEM, "out of memory for a trie");
    if (status == LORE_OK) {
        status = keep(&b, trie, arena);
    }
    lore_free(b.stack);
    lore_free(b.units);
    lore_free(b.values);
    return status;
}

int32_t lore_trie_find(const lore_trie *trie, lore_str text)
{
    int64_t node = LORE_TRIE_ROOT;
    for (size_t i = 0; i < text.len; i++) {
        node = lore_trie_step(trie, node, (uint8_t)text.ptr[i]);
        if (node == LORE_TRIE_NONE) {
            return -1;
        }
    }
    return lore_trie_value(trie, node);
}
