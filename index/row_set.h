/* Rows that a filter lets through. */
#ifndef LORE_INDEX_ROW_SET_H
#define LORE_INDEX_ROW_SET_H

#include <stdbool.h>
#include <stdint.h>

/* Is the row among these ascending ones? */
static inline bool lore_rows_have(const int64_t *rows, int64_t count, int64_t row)
{
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (rows[middle] < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && rows[low] == row;
}

#endif
