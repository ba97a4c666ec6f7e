/* Rows of int8 vectors and the exact scan over them.
 *
 * A segment is three arrays: ascending chunk ids, one scale a row, rows of int8. The base of a
 * collection is a segment that lies in a mapped file, its tail is a few small ones in memory; one
 * loop scans both. Memory traffic is the bound: dim bytes a row, in slices whose scores stay in the
 * second-level cache. A row is looked up among the dead and the allowed only when its score could
 * enter the top, so neither costs anything for the mass of rows.
 *
 * When a filter allows only few rows, their runs are scored one by one instead: below one row in
 * eight the jumps are cheaper than the stream. */
#include "index/index_int.h"

#include "kernels/search.h"

#include <string.h>

enum {
    ROW_BYTES = sizeof(int64_t) + sizeof(float) + sizeof(int32_t), /* beside the vector */
    GATHER_SHARE = 8 /* scan runs of allowed rows when they are fewer than one in this many */
};

/* ---- segments ---- */

/* ids, scales, lengths and rows in one block, each 64-byte aligned. */
lore_status lore_segment_new(int64_t cap, int32_t dim, lore_segment **segment, lore_error *err)
{
    LORE_ASSERT(cap >= 0);
    size_t rows = ((size_t)cap + 63) & ~(size_t)63; /* a multiple of 64 rows aligns every section */
    size_t size = 0;
    lore_segment *made = lore_alloc_zero(1, sizeof *made);
    bool fits = lore_size_mul(rows, ROW_BYTES + (size_t)dim, &size);
    char *memory = fits && made != NULL ? lore_alloc_aligned(size == 0 ? 64 : size) : NULL;
    if (memory == NULL) {
        lore_free(made);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %lld vectors", (long long)cap);
    }
    atomic_init(&made->references, 1);
    made->dim = dim;
    made->memory = memory;
    made->ids = (int64_t *)(void *)memory;
    made->scales = (float *)(void *)(memory + rows * sizeof(int64_t));
    made->lengths = (int32_t *)(void *)(memory + rows * (sizeof(int64_t) + sizeof(float)));
    made->rows = (int8_t *)(memory + rows * ROW_BYTES);
    *segment = made;
    return LORE_OK;
}

lore_segment *lore_segment_acquire(lore_segment *segment)
{
    atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
    return segment;
}

void lore_segment_release(lore_segment *segment)
{
    /* Release: our reads come before the free; acquire: whoever frees sees them done. */
    if (segment == NULL ||
        atomic_fetch_sub_explicit(&segment->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    lore_resident_free(atomic_load_explicit(&segment->resident, memory_order_relaxed));
    lore_free_aligned(segment->memory);
    lore_map_close(&segment->map);
    lore_free(segment);
}

/* The arrays are const for everybody but the one who fills them. Gives where the vector goes. */
static int8_t *place(lore_segment *segment, int64_t id, int32_t length, float **scale)
{
    int64_t at = segment->count;
    LORE_ASSERT(at == 0 || segment->ids[at - 1] < id);
    ((int64_t *)(uintptr_t)segment->ids)[at] = id;
    ((int32_t *)(uintptr_t)segment->lengths)[at] = length;
    *scale = (float *)(uintptr_t)segment->scales + at;
    segment->count++;
    return (int8_t *)(uintptr_t)segment->rows + at * segment->dim;
}

void lore_segment_push(lore_segment *segment, int64_t id, int32_t length, const float *vector)
{
    float *scale = NULL;
    int8_t *row = place(segment, id, length, &scale);
    *scale = lore_quantize_row(row, vector, segment->dim);
}

void lore_segment_copy(lore_segment *segment, const lore_segment *from, int64_t row)
{
    float *scale = NULL;
    int8_t *to = place(segment, from->ids[row], from->lengths[row], &scale);
    *scale = from->scales[row];
    memcpy(to, from->rows + row * from->dim, (size_t)from->dim);
}

int64_t lore_segment_lower_bound(const lore_segment *segment, int64_t id)
{
    int64_t low = 0, high = segment->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (segment->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int64_t lore_segment_find(const lore_segment *segment, int64_t id)
{
    int64_t row = lore_segment_lower_bound(segment, id);
    return row < segment->count && segment->ids[row] == id ? row : -1;
}

/* ---- dead rows ---- */

lore_dead *lore_dead_acquire(lore_dead *dead)
{
    if (dead != NULL) {
        atomic_fetch_add_explicit(&dead->references, 1, memory_order_relaxed);
    }
    return dead;
}

void lore_dead_release(lore_dead *dead)
{
    if (dead != NULL &&
        atomic_fetch_sub_explicit(&dead->references, 1, memory_order_acq_rel) == 1) {
        lore_free(dead);
    }
}

static lore_dead *dead_copy(const lore_dead *old, int64_t rows)
{
    size_t words = ((size_t)rows + 63) / 64;
    lore_dead *made = lore_alloc_zero(1, sizeof *made + words * sizeof(uint64_t));
    if (made == NULL) {
        return NULL;
    }
    atomic_init(&made->references, 1);
    if (old != NULL) {
        made->count = old->count;
        memcpy(made->words, old->words, words * sizeof(uint64_t));
    }
    return made;
}

lore_status lore_part_kill(lore_part *part, int64_t first, int64_t count, bool *is_own,
                           lore_error *err)
{
    int64_t begin = lore_segment_lower_bound(part->segment, first);
    int64_t end = lore_segment_lower_bound(part->segment, first + count);
    if (begin == end) {
        return LORE_OK;
    }
    if (!*is_own) {
        lore_dead *copy = dead_copy(part->dead, part->segment->count);
        if (copy == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory marking deleted vectors");
        }
        lore_dead_release(part->dead);
        part->dead = copy;
        *is_own = true;
    }
    for (int64_t row = begin; row < end; row++) {
        if (!lore_dead_has(part->dead, row)) {
            part->dead->words[row >> 6] |= (uint64_t)1 << (row & 63);
            part->dead->count++;
        }
    }
    return LORE_OK;
}

lore_status lore_parts_merge(const lore_part *parts, int32_t count, int32_t dim,
                             lore_segment **merged, lore_error *err)
{
    int64_t live = 0;
    for (int32_t i = 0; i < count; i++) {
        live += lore_part_live(&parts[i]);
    }
    lore_segment *made = NULL;
    lore_status status = lore_segment_new(live, dim, &made, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int32_t i = 0; i < count; i++) {
        for (int64_t row = 0; row < parts[i].segment->count; row++) {
            if (!lore_dead_has(parts[i].dead, row)) {
                lore_segment_copy(made, parts[i].segment, row);
            }
        }
    }
    *merged = made;
    return LORE_OK;
}

/* ---- the best so far ---- */

static bool is_better(lore_candidate a, lore_candidate b)
{
    return a.score > b.score || (a.score == b.score && a.chunk < b.chunk);
}

/* Let the item at `at` sink until no child is worse than it: the worst of all is on top. */
static void sink(lore_candidate *items, int32_t count, int32_t at)
{
    for (;;) {
        int32_t worst = at, left = 2 * at + 1, right = 2 * at + 2;
        if (left < count && is_better(items[worst], items[left])) {
            worst = left;
        }
        if (right < count && is_better(items[worst], items[right])) {
            worst = right;
        }
        if (worst == at) {
            return;
        }
        lore_candidate moved = items[at];
        items[at] = items[worst];
        items[worst] = moved;
        at = worst;
    }
}

void lore_top_offer(lore_top *top, int64_t chunk, float score)
{
    lore_candidate item = {chunk, score};
    if (top->count < top->cap) {
        int32_t at = top->count++;
        top->items[at] = item;
        while (at > 0 && is_better(top->items[(at - 1) / 2], item)) {
            top->items[at] = top->items[(at - 1) / 2];
            at = (at - 1) / 2;
            top->items[at] = item;
        }
    } else if (top->cap > 0 && is_better(item, top->items[0])) {
        top->items[0] = item;
        sink(top->items, top->count, 0);
    }
}

void lore_top_order(lore_top *top)
{
    for (int32_t at = top->count / 2 - 1; at >= 0; at--) {
        sink(top->items, top->count, at);
    }
}

/* Heap sort: the worst goes to the end again and again. */
void lore_top_sort(lore_top *top)
{
    for (int32_t end = top->count - 1; end > 0; end--) {
        lore_candidate worst = top->items[0];
        top->items[0] = top->items[end];
        top->items[end] = worst;
        sink(top->items, end, 0);
    }
}

/* ---- the scan ---- */

lore_status lore_scan_open(lore_scan *scan, lore_backend *backend, int32_t dim, lore_error *err)
{
    lore_scan made = {.dim = dim};
    lore_status status = lore_queue_open(backend, &made.queue, err);
    if (status != LORE_OK) {
        return status;
    }
    made.query = lore_alloc_aligned((size_t)dim);
    made.exact = lore_alloc_aligned((size_t)dim * sizeof(float));
    made.scores = lore_alloc_aligned(LORE_SCAN_ROWS * sizeof(float));
    if (made.query == NULL || made.exact == NULL || made.scores == NULL) {
        lore_scan_close(&made);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a scan");
    }
    *scan = made;
    return LORE_OK;
}

void lore_scan_close(lore_scan *scan)
{
    if (scan->queue == NULL) {
        return;
    }
    lore_free_aligned(scan->query);
    lore_free_aligned(scan->exact);
    lore_free_aligned(scan->scores);
    lore_queue_close(scan->queue);
    *scan = (lore_scan){0};
}

void lore_scan_set_query(lore_scan *scan, const float *query)
{
    memcpy(scan->exact, query, (size_t)scan->dim * sizeof *query);
    scan->query_scale = lore_quantize_row(scan->query, query, scan->dim);
}

lore_status lore_scan_rows(lore_scan *scan, const lore_segment *segment, int64_t begin, int64_t end,
                           lore_error *err)
{
    LORE_ASSERT(end - begin <= LORE_SCAN_ROWS);
    LORE_ASSERT(segment->dim == scan->dim);
    lore_op_scan(scan->queue, scan->scores, scan->query, scan->query_scale,
                 segment->rows + begin * scan->dim, segment->scales + begin, end - begin,
                 scan->dim);
    return lore_queue_sync(scan->queue, err);
}

static lore_status scan_all(lore_scan *scan, const lore_part *part, int64_t first_row,
                            const lore_row_set *allowed, lore_top *top, lore_error *err)
{
    const lore_segment *segment = part->segment;
    for (int64_t begin = first_row; begin < segment->count; begin += LORE_SCAN_ROWS) {
        int64_t left = segment->count - begin;
        int64_t count = left < LORE_SCAN_ROWS ? left : LORE_SCAN_ROWS;
        lore_status status = lore_scan_rows(scan, segment, begin, begin + count, err);
        if (status != LORE_OK) {
            return status;
        }
        for (int64_t i = 0; i < count; i++) {
            float score = scan->scores[i];
            if (top->count == top->cap && score < top->items[0].score) {
                continue; /* nearly all rows end here */
            }
            int64_t id = segment->ids[begin + i];
            if (!lore_dead_has(part->dead, begin + i) &&
                (allowed == NULL || lore_row_set_has(allowed, id))) {
                lore_top_offer(top, id, score);
            }
        }
    }
    return LORE_OK;
}

/* The first row from `row` on with ids[row] >= id, which is likely near. */
static int64_t gallop(const lore_segment *segment, int64_t row, int64_t id)
{
    int64_t low = row, step = 1;
    while (low + step <= segment->count && segment->ids[low + step - 1] < id) {
        low += step;
        step *= 2;
    }
    int64_t high = low + step - 1 < segment->count ? low + step - 1 : segment->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (segment->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Score runs of rows whose ids are allowed. Chunks of a document stand side by side, so runs are
 * common. */
static lore_status scan_runs(lore_scan *scan, const lore_part *part, int64_t row,
                             const lore_row_set *allowed, lore_top *top, lore_error *err)
{
    const lore_segment *segment = part->segment;
    int64_t first = 0, end = segment->ids[row];
    while (row < segment->count && lore_row_set_run(allowed, end, &first, &end)) {
        row = gallop(segment, row, first);
        int64_t last = gallop(segment, row, end);
        while (row < last) {
            int64_t count = last - row < LORE_SCAN_ROWS ? last - row : LORE_SCAN_ROWS;
            lore_status status = lore_scan_rows(scan, segment, row, row + count, err);
            if (status != LORE_OK) {
                return status;
            }
            for (int64_t i = 0; i < count; i++) {
                if (!lore_dead_has(part->dead, row + i)) {
                    lore_top_offer(top, segment->ids[row + i], scan->scores[i]);
                }
            }
            row += count;
        }
    }
    return LORE_OK;
}

lore_status lore_scan_part(lore_scan *scan, const lore_part *part, int64_t first_chunk,
                           const lore_row_set *allowed, lore_top *top, lore_error *err)
{
    int64_t first_row = lore_segment_lower_bound(part->segment, first_chunk);
    if (top->cap == 0 || first_row == part->segment->count ||
        (allowed != NULL && allowed->count == 0)) {
        return LORE_OK;
    }
    return allowed != NULL && allowed->count < part->segment->count / GATHER_SHARE
               ? scan_runs(scan, part, first_row, allowed, top, err)
               : scan_all(scan, part, first_row, allowed, top, err);
}
