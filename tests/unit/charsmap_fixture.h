/* Builds a precompiled_charsmap the plain way: 256 units for every node, so that no two collide. */
#ifndef LORE_TESTS_CHARSMAP_FIXTURE_H
#define LORE_TESTS_CHARSMAP_FIXTURE_H

#include "tests/check.h"

enum { FIXTURE_NODES = 64, FIXTURE_BYTES = 4 + 4 * 256 * (FIXTURE_NODES + 1) + 256 };

typedef struct charsmap_fixture {
    char blob[FIXTURE_BYTES];
    size_t size;
} charsmap_fixture;

static inline uint32_t fixture_get(const charsmap_fixture *f, size_t unit)
{
    uint32_t value;
    memcpy(&value, f->blob + 4 + 4 * unit, 4);
    return value;
}

static inline void fixture_set(charsmap_fixture *f, size_t unit, uint32_t value)
{
    memcpy(f->blob + 4 + 4 * unit, &value, 4); /* tests run on little endian */
}

/* pairs: key, replacement, key, replacement ... NULL. */
static inline void fixture_make(charsmap_fixture *f, const char *const *pairs)
{
    size_t nodes = 1, trie_size = 4 * 256 * (FIXTURE_NODES + 1);
    memset(f, 0, sizeof *f);
    f->size = 4 + trie_size;
    fixture_set(f, 0, 256 << 10); /* the root's children are at 256 ^ label */
    for (; pairs[0] != NULL; pairs += 2) {
        size_t at = 0, base = 256;
        for (const char *c = pairs[0]; *c != '\0'; c++) {
            at = base ^ (uint8_t)*c;
            if (fixture_get(f, at) == 0) {
                CHECK(nodes < FIXTURE_NODES);
                size_t offset = at ^ (256 * ++nodes);
                fixture_set(f, at, (uint32_t)offset << 10 | (uint8_t)*c);
            }
            base = at ^ (fixture_get(f, at) >> 10);
        }
        fixture_set(f, at, fixture_get(f, at) | 256);
        fixture_set(f, base, (uint32_t)(f->size - 4 - trie_size) | UINT32_C(1) << 31);
        memcpy(f->blob + f->size, pairs[1], strlen(pairs[1]));
        f->size += strlen(pairs[1]) + 1;
        CHECK(f->size + 32 < FIXTURE_BYTES);
    }
    uint32_t size = (uint32_t)trie_size;
    memcpy(f->blob, &size, 4);
}

static inline lore_str fixture_blob(const charsmap_fixture *f)
{
    return (lore_str){f->blob, f->size};
}

#endif
