/* What a model makes of a stretch of text: token ids, and the byte of the stretch where each
 * begins.
 *
 * WordPiece and Unigram append to such a list; its owner resets count between stretches and keeps
 * the room. All memory is the owner's arena. A value belongs to one thread. */
#ifndef LORE_MODELS_PIECE_INT_H
#define LORE_MODELS_PIECE_INT_H

#include "base/str.h"

#include <string.h>

typedef struct lore_piece {
    int32_t id;
    uint32_t start; /* byte offset in the stretch */
} lore_piece;

typedef struct lore_pieces {
    lore_arena *arena; /* set by the owner; the rest starts as zero */
    lore_piece *items;
    int32_t count, room;
} lore_pieces;

/* The byte that a piece written "<0xE2>" stands for, or -1. */
static inline int32_t lore_piece_byte(lore_str text)
{
    if (text.len != 6 || !lore_str_starts(text, LORE_STR("<0x")) || text.ptr[5] != '>') {
        return -1;
    }
    bool is_upper = text.ptr[3] <= 'F' && text.ptr[4] <= 'F'; /* "<0xe2>" is just text */
    int32_t high = lore_hex_digit(text.ptr[3]), low = lore_hex_digit(text.ptr[4]);
    return high < 0 || low < 0 || !is_upper ? -1 : high * 16 + low;
}

/* False: out of memory. */
static inline bool lore_pieces_push(lore_pieces *pieces, int32_t id, size_t start)
{
    if (pieces->count == pieces->room) {
        int32_t room = pieces->room < 64 ? 128 : pieces->room * 2;
        lore_piece *items = pieces->room > INT32_MAX / 4
                                ? NULL
                                : lore_arena_push(pieces->arena, (size_t)room * sizeof *items);
        if (items == NULL) {
            return false;
        }
        if (pieces->count > 0) {
            memcpy(items, pieces->items, (size_t)pieces->count * sizeof *items);
        }
        pieces->items = items;
        pieces->room = room;
    }
    pieces->items[pieces->count++] = (lore_piece){id, (uint32_t)start};
    return true;
}

#endif
