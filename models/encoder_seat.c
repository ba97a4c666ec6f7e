/* The seats of an encoder: which room suits which backend, and the memory of a pack on its way.
 *
 * On a processor packs are small: 256 tokens keep the activations of a layer in the second-level
 * caches (240 chunks of 200 tokens a second on two cores, 1024 tokens a little less), and a larger
 * pack would only let callers wait longer.
 *
 * A device wants as many rows as fill it even in the narrowest product: with 384 columns, 32768
 * rows are 768 tiles of 128 x 128, six for each multiprocessor of a large one. Where a row takes
 * more memory its products are larger too, and fewer rows will do. Two seats are two streams: what
 * the last blocks of one pack's kernel leave idle, the other pack's kernel takes, and the ids of
 * the next pack and the vectors of the last one travel meanwhile. */
#include "models/encoder_layers_int.h"

#include <string.h>

enum {
    HOST_ROWS = 256, /* or one text of the longest kind if that is more */
    HOST_SEQUENCES = 128,
    DEVICE_ROWS = 32768,
    DEVICE_ROWS_MIN = 2048,
    DEVICE_BYTES = 384 << 20,  /* of the activations of a pack */
    DEVICE_SEQUENCE_ROWS = 16, /* a pack has one sequence at most for so many rows */
    QUESTION_SHARE = 4         /* of such a pack is a pack of questions: somebody waits for it */
};

static const lore_priority PRIORITIES[LORE_ENCODER_LANES] = {
    [LORE_ENCODER_QUESTIONS] = LORE_PRIORITY_HIGH, [LORE_ENCODER_BULK] = LORE_PRIORITY_LOW};

/* ---- room ---- */

static int32_t qkv_cols(const lore_encoder_config *c)
{
    return (c->heads + 2 * c->kv_heads) * c->head_dim;
}

/* Attention's output, and before it the normed rows. */
static int32_t mixed_cols(const lore_encoder_config *c)
{
    const int32_t mixed = c->heads * c->head_dim;
    return mixed > c->width ? mixed : c->width;
}

static int32_t gate_up_cols(const lore_encoder_config *c)
{
    return c->family->is_glu ? 2 * c->ffn : 0;
}

/* Post-norm families where rows are rounded between ops. */
static int32_t added_cols(const lore_encoder_config *c, lore_dtype dtype)
{
    return dtype != LORE_F32 && !c->family->is_prenorm ? c->width : 0;
}

/* Of the activations of one row. */
static int64_t row_bytes(const lore_encoder_config *c, lore_dtype dtype)
{
    const int64_t cols =
        (int64_t)qkv_cols(c) + mixed_cols(c) + gate_up_cols(c) + c->ffn + 2 * added_cols(c, dtype);
    return (int64_t)c->width * (int64_t)sizeof(float) + cols * (int64_t)lore_dtype_size(dtype);
}

lore_encoder_room lore_encoder_choose_room(const lore_encoder_config *c, lore_backend_kind kind,
                                           lore_dtype dtype, lore_encoder_lane lane)
{
    if (kind != LORE_BACKEND_CUDA) {
        return (lore_encoder_room){.rows = c->tokens_max > HOST_ROWS ? c->tokens_max : HOST_ROWS,
                                   .sequences = HOST_SEQUENCES,
                                   .seats = 1};
    }
    int64_t rows = DEVICE_BYTES / row_bytes(c, dtype);
    rows = rows > DEVICE_ROWS ? DEVICE_ROWS : rows;
    rows /= lane == LORE_ENCODER_QUESTIONS ? QUESTION_SHARE : 1;
    rows = rows < DEVICE_ROWS_MIN ? DEVICE_ROWS_MIN : rows;
    rows = rows < c->tokens_max ? c->tokens_max : rows;
    return (lore_encoder_room){.rows = (int32_t)rows,
                               .sequences = (int32_t)(rows / DEVICE_SEQUENCE_ROWS),
                               .seats = LORE_ENCODER_SEATS_MAX};
}

/* ---- memory ---- */

/* `rows` x `cols` elements in host memory or the backend's, NULL where there are none. */
typedef struct buffer {
    int32_t rows, cols;
    size_t element;
    bool is_host;
    void *out; /* a pointer of any type */
} buffer;

static lore_status take(lore_encoder *e, const buffer *b, lore_error *err)
{
    size_t size_bytes = 0;
    void *memory = NULL;
    if (!lore_size_mul((size_t)b->rows, (size_t)b->cols, &size_bytes) ||
        !lore_size_mul(size_bytes, b->element, &size_bytes)) {
        return lore_fail(err, LORE_ERR_LIMIT, "encoder: a scratch buffer is too large");
    }
    if (size_bytes == 0) {
        return LORE_OK;
    }
    lore_status status = b->is_host ? lore_backend_alloc_host(e->backend, size_bytes, &memory, err)
                                    : lore_backend_alloc(e->backend, size_bytes, &memory, err);
    if (status == LORE_OK) {
        memcpy(b->out, &memory, sizeof memory);
    }
    if (status == LORE_OK && b->is_host) {
        memset(memory, 0, size_bytes);
    }
    return status;
}

static lore_status open_seat(lore_encoder *e, lore_encoder_seat *s, const lore_encoder_room *room,
                             lore_error *err)
{
    const lore_encoder_config *c = &e->config;
    const int32_t rows = room->rows, sequences = room->sequences;
    const int32_t out = lore_encoder_config_out(c), added = added_cols(c, e->dtype);
    const bool is_shortened = c->dimensions > 0 || (c->dense_count > 0 && c->is_normalised);
    const size_t between = lore_dtype_size(e->dtype), whole = sizeof(float);
    const buffer buffers[] = {{rows, 1, sizeof(int32_t), true, &s->pack.ids},
                              {rows, 1, sizeof(int32_t), true, &s->pack.types},
                              {sequences + 1, 1, sizeof(int32_t), true, &s->pack.row_start},
                              {rows, 1, sizeof(int32_t), true, &s->positions},
                              {sequences, lore_encoder_dim(e), whole, true, &s->pack.vectors},
                              {is_shortened ? sequences : 0, out, whole, true, &s->whole},
                              {rows, 1, sizeof(int32_t), false, &s->ids},
                              {rows, 1, sizeof(int32_t), false, &s->type_ids},
                              {sequences + 1, 1, sizeof(int32_t), false, &s->row_start},
                              {rows, 1, sizeof(int32_t), false, &s->position_ids},
                              {rows, c->width, whole, false, &s->x},
                              {rows, added, between, false, &s->rounded},
                              {rows, added, between, false, &s->added},
                              {rows, qkv_cols(c), between, false, &s->qkv},
                              {rows, mixed_cols(c), between, false, &s->mixed},
                              {rows, gate_up_cols(c), between, false, &s->gate_up},
                              {rows, c->ffn, between, false, &s->hidden},
                              {sequences, c->width, whole, false, &s->pooled}};
    lore_status status = lore_queue_open(e->backend, &s->queue, err);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0] && status == LORE_OK; i++) {
        status = take(e, &buffers[i], err);
    }
    for (int32_t i = 0; i < c->dense_count && status == LORE_OK; i++) {
        const buffer dense = {sequences, c->dense[i].out, whole, false, &s->dense[i]};
        status = take(e, &dense, err);
    }
    return status;
}

lore_status lore_encoder_open_seats(lore_encoder *e, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t lane = 0; lane < e->options.lanes; lane++) {
        const lore_encoder_room *room = &e->options.rooms[lane];
        LORE_ASSERT(room->rows >= e->config.tokens_max && room->sequences > 0);
        LORE_ASSERT(room->seats > 0 && room->seats <= LORE_ENCODER_SEATS_MAX);
        for (int32_t i = 0; i < room->seats && status == LORE_OK; i++) {
            e->seats[lane][i].priority = PRIORITIES[lane];
            status = open_seat(e, &e->seats[lane][i], room, err);
        }
    }
    return status;
}

static void close_seat(lore_backend *backend, lore_encoder_seat *s)
{
    void *own[] = {s->x,      s->rounded, s->added, s->qkv,      s->mixed,     s->gate_up,
                   s->hidden, s->pooled,  s->ids,   s->type_ids, s->row_start, s->position_ids};
    void *host[] = {s->pack.ids,  s->pack.types,   s->pack.row_start,
                    s->positions, s->pack.vectors, s->whole};
    lore_queue_close(s->queue); /* first: it waits for what is under way */
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        lore_backend_free(backend, own[i]);
    }
    for (int32_t i = 0; i < LORE_DENSE_MAX; i++) {
        lore_backend_free(backend, s->dense[i]);
    }
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) {
        lore_backend_free_host(backend, host[i]);
    }
}

void lore_encoder_close_seats(lore_encoder *e)
{
    for (int32_t lane = 0; lane < LORE_ENCODER_LANES; lane++) {
        for (int32_t i = 0; i < LORE_ENCODER_SEATS_MAX; i++) {
            close_seat(e->backend, &e->seats[lane][i]);
        }
    }
}
