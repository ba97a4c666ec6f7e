/* Adapters in a decoder: how their values come to backend memory, which slot has whose, and the
 * table of a step that says which of its rows belong to whom.
 *
 * A placed adapter is one block: the table of its products (lora.h), then their matrices in the
 * backend's layout. A step's block holds the address of that table for each adapter in it; slots
 * are the host's alone. So seating is one store, and steps on their way keep to what they began
 * with. On a device values pass through two page-locked pieces on a queue of their own, which
 * neither waits for steps nor makes them wait.
 *
 * What launches are sized by is known of kinds of products (qkv, out, ...): the largest rank that
 * any adapter seated so far has there, up to a power of two. It only grows, and recordings from
 * before it grew are made anew (decoder_step.c). A kind that no adapter has touched costs nothing.
 */
#include "models/adapter_int.h"
#include "models/decoder_int.h"

#include <string.h>

enum { PIECE_BYTES_MIN = 4 << 20, RANK_MIN = 16 };

/* ---- placing ---- */

/* The product of a layer that `which` is, among all of an adapter; the layer of the head is the
 * last one. */
int32_t lore_decoder_lora_index(const lore_decoder *d, int32_t layer, lore_linear which)
{
    const int32_t row = which == LORE_LINEAR_HEAD ? d->config.layers - 1 : layer;
    return row * LORE_LINEAR_HEAD + (int32_t)which;
}

int32_t lore_decoder_lora_rank_max(const lore_decoder *d, lore_linear which)
{
    return lore_decoder_linear(&d->config, which).part_count * d->adapter_rank_max;
}

static int32_t product_count(const lore_decoder *d)
{
    return d->config.layers * LORE_LINEAR_HEAD + 1;
}

static size_t table_bytes(const lore_decoder *d)
{
    const size_t bytes = (size_t)product_count(d) * sizeof(lore_lora_product);
    return (bytes + LORE_LORA_ALIGN - 1) / LORE_LORA_ALIGN * LORE_LORA_ALIGN;
}

/* The weight that product i of an adapter is computed beside. */
static const lore_weight *weight_at(const lore_decoder *d, int32_t i)
{
    const lore_decoder_layer *layer = &d->layers[i / LORE_LINEAR_HEAD];
    if (i == product_count(d) - 1) {
        return d->head != NULL ? d->head : d->table;
    }
    switch ((lore_linear)(i % LORE_LINEAR_HEAD)) {
    case LORE_LINEAR_QKV:
        return layer->qkv;
    case LORE_LINEAR_ATTENTION_OUT:
        return layer->attention_out;
    case LORE_LINEAR_GATE_UP:
        return layer->gate_up;
    default:
        return layer->down;
    }
}

/* Values on their way into a block: straight, or piece by piece. */
typedef struct writer {
    const lore_decoder *d;
    char *block;
    size_t begin, end; /* of the block: what the piece stands for, as far as it is filled */
    bool is_sent[LORE_MARKS];
    int32_t turn;
    lore_error *err;
} writer;

static lore_status send(writer *w)
{
    lore_queue *queue = w->d->loader.queue;
    const void *piece = w->d->loader.pieces[w->turn];
    lore_queue_upload(queue, w->block + w->begin, piece, w->end - w->begin);
    lore_status status = lore_queue_mark(queue, w->turn, w->err);
    w->is_sent[w->turn] = status == LORE_OK;
    w->turn = (w->turn + 1) % LORE_MARKS;
    if (status == LORE_OK && w->is_sent[w->turn]) {
        status = lore_queue_wait_mark(queue, w->turn, w->err);
    }
    w->begin = w->end;
    return status;
}

/* Where the bytes of the block go that begin at `at`, behind all those written before. */
static lore_status make_room(writer *w, size_t at, size_t bytes, char **to)
{
    lore_status status = LORE_OK;
    if (w->d->loader.queue == NULL) {
        *to = w->block + at;
        return LORE_OK;
    }
    if (at + bytes > w->begin + w->d->loader.piece_bytes) {
        status = send(w);
        w->begin = w->end = at;
    }
    char *piece = w->d->loader.pieces[w->turn];
    memset(piece + (w->end - w->begin), 0, at - w->end);
    w->end = at + bytes;
    *to = piece + (at - w->begin);
    return status;
}

/* A matrix from `at` on. */
static lore_status write_matrix(writer *w, size_t at, const lore_weight *weight, int32_t rows,
                                int32_t cols, const void *data)
{
    const lore_dtype dtype = w->d->info.adapter_dtype;
    for (int32_t r = 0; r < rows; r += LORE_LORA_PANEL) {
        const int32_t count = rows - r < LORE_LORA_PANEL ? rows - r : LORE_LORA_PANEL;
        char *to = NULL;
        lore_status status = make_room(w, at, lore_lora_bytes(weight, dtype, count, cols), &to);
        if (status != LORE_OK) {
            return status;
        }
        const size_t written = lore_lora_pack(weight, dtype, rows, cols, data, r, count, to);
        w->end = at + written;
        at += written;
    }
    return LORE_OK;
}

/* Where everything stands in the block, at `block`; NULL: only how many bytes it has. */
static size_t lay_out(const lore_decoder *d, const lore_adapter *adapter, const char *block,
                      lore_lora_product *products)
{
    size_t used = table_bytes(d);
    for (int32_t i = 0; i < product_count(d); i++) {
        const lore_adapter_linear *linear = &adapter->linears[i];
        lore_lora_product product = {.rank = linear->rank, .part_count = linear->part_count};
        product.a = block != NULL ? block + used : NULL;
        used += lore_lora_bytes(weight_at(d, i), adapter->dtype, linear->rank, linear->cols);
        for (int32_t k = 0; k < linear->part_count; k++) {
            const lore_adapter_part *part = &linear->parts[k];
            product.parts[k] = (lore_lora_part){.rank = part->rank,
                                                .rank_start = part->rank_start,
                                                .columns = part->rows,
                                                .column_start = part->row_start,
                                                .scale = part->scale,
                                                .b = block != NULL ? block + used : NULL};
            used += lore_lora_bytes(weight_at(d, i), adapter->dtype, part->rows, part->rank);
        }
        if (products != NULL) {
            products[i] = product;
        }
    }
    return used;
}

static lore_status fill_placed(const lore_decoder *d, const lore_adapter *adapter,
                               lore_adapter_placed *placed, lore_lora_product *products,
                               lore_error *err)
{
    writer w = {.d = d, .block = placed->block, .err = err};
    char *to = NULL;
    (void)lay_out(d, adapter, w.block, products);
    lore_status status = make_room(&w, 0, table_bytes(d), &to);
    if (status == LORE_OK) {
        memcpy(to, products, (size_t)product_count(d) * sizeof *products);
    }
    for (int32_t i = 0; i < product_count(d) && status == LORE_OK; i++) {
        const lore_adapter_linear *linear = &adapter->linears[i];
        const lore_lora_product *p = &products[i];
        status = write_matrix(&w, (size_t)((const char *)p->a - w.block), weight_at(d, i),
                              linear->rank, linear->cols, adapter->data + linear->a);
        for (int32_t k = 0; k < linear->part_count && status == LORE_OK; k++) {
            const lore_adapter_part *part = &linear->parts[k];
            status = write_matrix(&w, (size_t)((const char *)p->parts[k].b - w.block),
                                  weight_at(d, i), part->rows, part->rank, adapter->data + part->b);
        }
    }
    if (d->loader.queue == NULL) {
        return status;
    }
    if (status == LORE_OK) {
        status = send(&w);
    }
    /* Whatever failed, no copy may read a piece, nor write the block, after this. */
    lore_error echo;
    lore_status ended = lore_queue_sync(d->loader.queue, status == LORE_OK ? err : &echo);
    return status == LORE_OK ? ended : status;
}

static void note_ranks(const lore_adapter *adapter, int32_t count, lore_adapter_placed *placed)
{
    for (int32_t i = 0; i < count; i++) {
        const int32_t which = i == count - 1 ? (int32_t)LORE_LINEAR_HEAD : i % LORE_LINEAR_HEAD;
        int32_t *most = &placed->rank_max[which];
        *most = adapter->linears[i].rank > *most ? adapter->linears[i].rank : *most;
    }
}

size_t lore_decoder_adapter_bytes(const lore_decoder *d, const lore_adapter *adapter)
{
    return lay_out(d, adapter, NULL, NULL);
}

lore_status lore_decoder_adapter_place(lore_decoder *d, const lore_adapter *adapter,
                                       lore_adapter_placed **placed_out, lore_error *err)
{
    LORE_ASSERT(d->info.adapter_slots > 0);
    LORE_ASSERT(adapter->dtype == d->info.adapter_dtype && adapter->layers == d->config.layers);
    if (adapter->info.rank_max > d->adapter_rank_max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "the adapter's rank is %d, limits.adapter_rank_max is %d",
                         adapter->info.rank_max, d->adapter_rank_max);
    }
    lore_adapter_placed *placed = lore_alloc_zero(1, sizeof *placed);
    lore_lora_product *products = lore_alloc_zero((size_t)product_count(d), sizeof *products);
    lore_status status = LORE_OK;
    if (placed == NULL || products == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for the adapter");
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(d->backend, lore_decoder_adapter_bytes(d, adapter),
                                    &placed->block, err);
    }
    if (status == LORE_OK) {
        note_ranks(adapter, product_count(d), placed);
        status = fill_placed(d, adapter, placed, products, err);
    }
    lore_free(products);
    if (status != LORE_OK) {
        lore_decoder_adapter_unplace(d, placed);
        return status;
    }
    *placed_out = placed;
    return LORE_OK;
}

void lore_decoder_adapter_unplace(lore_decoder *d, lore_adapter_placed *placed)
{
    if (placed != NULL) {
        lore_backend_free(d->backend, placed->block);
        lore_free(placed);
    }
}

/* ---- seats ---- */

void lore_decoder_adapter_seat(lore_decoder *d, int32_t slot, const lore_adapter_placed *placed)
{
    LORE_ASSERT(slot >= 0 && slot < d->info.adapter_slots);
    d->seats[slot] = placed;
    for (int32_t i = 0; placed != NULL && i < LORE_LINEARS; i++) {
        const int32_t most = lore_decoder_lora_rank_max(d, (lore_linear)i);
        int32_t rank = RANK_MIN;
        while (rank < placed->rank_max[i]) {
            rank *= 2;
        }
        rank = rank < most ? rank : most; /* what scratch is sized for */
        if (placed->rank_max[i] > 0 && rank > d->lora_ranks[i]) {
            d->lora_ranks[i] = rank;
            d->info.step_shapes++;
        }
    }
}

/* ---- the table of a step ---- */

bool lore_step_has_adapters(const lore_step *step)
{
    bool has = false;
    for (int32_t s = 0; step->adapters != NULL && s < step->batch.sequences; s++) {
        has = has || step->adapters[s] >= 0;
    }
    return has;
}

/* Sort items by their segment (-1: none) into order; segments behind the first `count` are empty.
 */
static void group(const lore_decoder *d, const int32_t *rows, int32_t row_count, int32_t count,
                  int32_t segments, int32_t *starts, int32_t *order)
{
    memset(starts, 0, ((size_t)segments + 1) * sizeof *starts);
    for (int32_t i = 0; i < row_count; i++) {
        const int32_t segment = d->segments[rows != NULL ? rows[i] : i];
        if (segment >= 0) {
            starts[segment + 1]++;
        }
    }
    for (int32_t i = 0; i < segments; i++) {
        starts[i + 1] += starts[i];
    }
    for (int32_t i = 0; i < row_count; i++) { /* starts[i] runs up to where i + 1 starts, */
        const int32_t segment = d->segments[rows != NULL ? rows[i] : i];
        if (segment >= 0) {
            order[starts[segment]++] = i;
        }
    }
    for (int32_t i = count; i > 0; i--) { /* and comes back */
        starts[i] = starts[i - 1];
    }
    starts[0] = 0;
}

/* Number the adapters of the step in the order of their first rows, and say in d->segments which
 * row has which. */
static int32_t number_segments(const lore_decoder *d, const lore_step_memory *to,
                               const lore_step *step)
{
    const lore_batch *b = &step->batch;
    int32_t count = 0;
    for (int32_t s = 0; s < b->sequences; s++) {
        const int32_t slot = step->adapters[s];
        LORE_ASSERT(slot < d->info.adapter_slots);
        if (slot >= 0 && d->segment_of[slot] < 0) {
            LORE_ASSERT(d->seats[slot] != NULL);
            to->adapters[count] = d->seats[slot]->block;
            d->segment_of[slot] = count++;
        }
        for (int32_t r = b->row_start[s]; r < b->row_start[s + 1]; r++) {
            d->segments[r] = slot >= 0 ? d->segment_of[slot] : -1;
        }
    }
    for (int32_t s = 0; s < b->sequences; s++) {
        if (step->adapters[s] >= 0) {
            d->segment_of[step->adapters[s]] = -1;
        }
    }
    return count;
}

int32_t lore_step_memory_fill_adapters(const lore_decoder *d, const lore_step_memory *to,
                                       const lore_step *step)
{
    const int32_t most = d->sequences_max, rows = step->batch.rows;
    const int32_t count = number_segments(d, to, step);
    for (int32_t i = count; i < most; i++) {
        to->adapters[i] = NULL;
    }
    group(d, NULL, rows, count, most, to->lora_starts, to->lora_order);
    group(d, step->logits_rows, step->logits_count, count, most, to->head_starts, to->head_order);
    return count;
}

void lore_step_memory_clear_adapters(const lore_decoder *d, const lore_step_memory *to)
{
    const size_t most = (size_t)d->sequences_max;
    memset(to->adapters, 0, most * sizeof *to->adapters);
    memset(to->lora_starts, 0, (most + 1) * sizeof *to->lora_starts);
    memset(to->head_starts, 0, (most + 1) * sizeof *to->head_starts);
}

/* ---- opening and closing ---- */

static lore_status open_loader(lore_decoder *d, lore_error *err)
{
    const lore_decoder_config *c = &d->config;
    lore_adapter_loader *loader = &d->loader;
    size_t cols = (size_t)d->adapter_rank_max;
    for (int32_t i = 0; i < LORE_LINEARS; i++) {
        const size_t own = (size_t)lore_decoder_linear(c, (lore_linear)i).cols;
        cols = own > cols ? own : cols;
    }
    const size_t panel = LORE_LORA_PANEL * cols * sizeof(float) + LORE_LORA_ALIGN;
    loader->piece_bytes = panel > PIECE_BYTES_MIN ? panel : PIECE_BYTES_MIN;
    if (table_bytes(d) > loader->piece_bytes) {
        loader->piece_bytes = table_bytes(d);
    }
    lore_status status = lore_queue_open(d->backend, &loader->queue, err);
    for (int32_t i = 0; i < LORE_MARKS && status == LORE_OK; i++) {
        status = lore_backend_alloc_host(d->backend, loader->piece_bytes, &loader->pieces[i], err);
    }
    return status;
}

lore_status lore_decoder_open_seats(lore_decoder *d, lore_error *err)
{
    const size_t slots = (size_t)d->info.adapter_slots;
    if (slots == 0) {
        return LORE_OK;
    }
    d->seats = lore_alloc_zero(slots, sizeof(*d->seats));
    d->segment_of = lore_alloc(slots * sizeof *d->segment_of);
    d->segments = lore_alloc((size_t)d->rows_max * sizeof *d->segments);
    if (d->seats == NULL || d->segment_of == NULL || d->segments == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the decoder");
    }
    memset(d->segment_of, -1, slots * sizeof *d->segment_of);
    return lore_backend_get_kind(d->backend) == LORE_BACKEND_CUDA ? open_loader(d, err) : LORE_OK;
}

void lore_decoder_close_seats(lore_decoder *d)
{
    lore_queue_close(d->loader.queue);
    for (int32_t i = 0; i < LORE_MARKS; i++) {
        lore_backend_free_host(d->backend, d->loader.pieces[i]);
    }
    lore_free(d->seats);
    lore_free(d->segment_of);
    lore_free(d->segments);
}
