/* A unit of darts-clone: bits 0..7 and 31 the label that led here, bit 8 whether a key ends here,
 * bit 9 how wide the offset in bits 10..30 is. The children of a unit at position p are at
 * p ^ offset ^ label; label 0 is the value, in bits 0..30.
 *
 * A search is bounded by its text, but a bad file should be refused, not half work: loading walks
 * every path once. Equal ends are shared between keys (the builder makes an acyclic graph), so a
 * unit may be met again, only not below itself. */
#include "models/charsmap_int.h"

#include "base/utf8.h"

#include <string.h>

enum { UNSEEN, OPEN, DONE };

static const uint32_t LABEL_MASK = UINT32_C(0x800000FF);
static const uint32_t VALUE_MASK = UINT32_C(0x7FFFFFFF);

static bool has_end(uint32_t unit)
{
    return (unit >> 8 & 1) != 0;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1U << 9)) >> 6);
}

/* ---- loading ---- */

static uint32_t read_u32(const char *bytes)
{
    uint32_t value = 0;
    for (size_t i = 0; i < sizeof value; i++) {
        value |= (uint32_t)(uint8_t)bytes[i] << 8 * i;
    }
    return value;
}

/* The value of a key that ends at a unit whose children are at base ^ label. */
static lore_status check_value(const lore_charsmap *map, size_t base, lore_error *err)
{
    if (base >= map->count) {
        return lore_fail(err, LORE_ERR_CORRUPT, "unit %zu of the charsmap is behind its %zu units",
                         base, map->count);
    }
    size_t value = map->units[base] & VALUE_MASK;
    if (value >= map->replacements.len) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "a replacement of the charsmap begins at %zu, behind its %zu bytes", value,
                         map->replacements.len);
    }
    if (((uint8_t)map->replacements.ptr[value] & 0xC0) == 0x80) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "a replacement of the charsmap begins inside a character, at %zu", value);
    }
    return LORE_OK;
}

/* Walk all paths depth first. path[d] is the unit at depth d, label[d] the next child to look at.
 */
static lore_status walk(const lore_charsmap *map, uint8_t *seen, lore_error *err)
{
    size_t path[LORE_CHARSMAP_KEY_MAX + 1] = {0};
    uint32_t label[LORE_CHARSMAP_KEY_MAX + 1] = {1};
    size_t depth = 0;
    seen[0] = OPEN;
    for (;;) {
        size_t at = path[depth], base = at ^ offset_of(map->units[at]);
        size_t child = base ^ label[depth];
        if (label[depth] == 256) {
            seen[at] = DONE;
            if (depth-- == 0) {
                return LORE_OK;
            }
            continue;
        }
        uint32_t wanted = label[depth]++;
        if (child >= map->count || (map->units[child] & LABEL_MASK) != wanted ||
            seen[child] == DONE) {
            continue;
        }
        if (seen[child] == OPEN || depth == LORE_CHARSMAP_KEY_MAX) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "the charsmap has a cycle or a key over %d bytes",
                             LORE_CHARSMAP_KEY_MAX);
        }
        size_t below = child ^ offset_of(map->units[child]);
        lore_status status = has_end(map->units[child]) ? check_value(map, below, err) : LORE_OK;
        if (status != LORE_OK) {
            return status;
        }
        seen[child] = OPEN;
        path[++depth] = child;
        label[depth] = 1;
    }
}

static lore_status check(const lore_charsmap *map, lore_error *err)
{
    size_t bad = lore_utf8_valid(map->replacements);
    if (bad < map->replacements.len) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "byte %zu of the charsmap's replacements is not UTF-8", bad);
    }
    uint8_t *seen = lore_alloc_zero(map->count, 1);
    if (seen == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a charsmap");
    }
    lore_status status = walk(map, seen, err);
    lore_free(seen);
    return status;
}

static uint8_t ascii_flags(const lore_charsmap *map, uint32_t c)
{
    size_t at = offset_of(map->units[0]) ^ c;
    if (c == 0 || at >= map->count || (map->units[at] & LABEL_MASK) != c) {
        return 0;
    }
    uint8_t flags = has_end(map->units[at]) ? LORE_CHARSMAP_IS_KEY : 0;
    size_t base = at ^ offset_of(map->units[at]);
    for (uint32_t next = 1; next < 256; next++) {
        size_t child = base ^ next;
        if (child < map->count && (map->units[child] & LABEL_MASK) == next) {
            flags |= LORE_CHARSMAP_BEGINS;
            flags |= next < 128 ? LORE_CHARSMAP_BEGINS_ASCII : 0;
        }
    }
    return flags;
}

lore_status lore_charsmap_open(lore_charsmap *map, lore_str blob, lore_arena *arena,
                               lore_error *err)
{
    size_t size = blob.len >= 4 ? read_u32(blob.ptr) : 0;
    if (blob.len > LORE_CHARSMAP_BYTES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "the charsmap has %zu bytes, over the limit of %d",
                         blob.len, LORE_CHARSMAP_BYTES_MAX);
    }
    if (size < 4 || size % 4 != 0 || size > blob.len - 4) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "the charsmap says its trie has %zu bytes, and has %zu itself", size,
                         blob.len);
    }
    uint32_t *units = lore_arena_push(arena, size);
    lore_str replacements = lore_str_copy(arena, lore_str_slice(blob, 4 + size, blob.len));
    if (units == NULL || replacements.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a charsmap");
    }
    for (size_t i = 0; i < size / 4; i++) {
        units[i] = read_u32(blob.ptr + 4 + 4 * i);
    }
    *map = (lore_charsmap){.units = units, .count = size / 4, .replacements = replacements};
    for (uint32_t c = 0; c < 128; c++) {
        map->ascii[c] = ascii_flags(map, c);
    }
    return check(map, err);
}

/* ---- searching ---- */

size_t lore_charsmap_match(const lore_charsmap *map, lore_str text, bool is_longest,
                           lore_str *replacement)
{
    size_t base = offset_of(map->units[0]);
    size_t matched = 0, value = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] != '\0'; i++) {
        size_t at = base ^ (uint8_t)text.ptr[i];
        if (at >= map->count || (map->units[at] & LABEL_MASK) != (uint8_t)text.ptr[i]) {
            break;
        }
        base = at ^ offset_of(map->units[at]);
        if (has_end(map->units[at])) {
            matched = i + 1;
            value = map->units[base] & VALUE_MASK;
            if (!is_longest) {
                break;
            }
        }
    }
    if (matched > 0) {
        const char *from = map->replacements.ptr + value;
        *replacement = (lore_str){from, strnlen(from, map->replacements.len - value)};
    }
    return matched;
}
