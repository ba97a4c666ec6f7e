/* Requests in line and packs on their way.
 *
 * A caller that waits takes the texts at the head of the line, its own or others', into the pack of
 * a free seat, and submits it; where no seat is free it waits for the pack that left first, hands
 * out its vectors and wakes everybody. So the short texts of several askers travel as one pack,
 * which costs hardly more than one of them: a pack of a dozen tokens is bound by reading the
 * weights. The request that stands first always puts its next text into the pack, so none starves.
 *
 * States of a seat, and who makes the next one:
 *   FREE     --load--> LOADING: a caller fills and submits its pack (on a processor: computes it)
 *   LOADING  --load--> AWAY: on its way, nobody waits for it yet; FREE after a failure
 *   AWAY     --bring_back--> AWAITED: a caller waits for it
 *   AWAITED  --bring_back--> FREE
 * Nobody sleeps while there is a text in line and a free seat, or while a pack with a text of his
 * own is AWAY. For a pack without one a caller waits only while texts of his own are in line: then
 * he needs the seat; else its owners are quicker, whom everybody that sends a pack away wakes.
 *
 * Lock: `turn` guards the line, the seats' states, and the fields of requests that are the line's
 * own; the pack of a seat that is not FREE or AWAY belongs to the caller that put it there. */
#include "models/embed_line_int.h"

#include "base/mem.h"
#include "base/thread.h"

#include <string.h>

typedef enum seat_state { SEAT_FREE = 0, SEAT_LOADING, SEAT_AWAY, SEAT_AWAITED } seat_state;

typedef struct seat {
    seat_state state;
    int64_t departure;           /* number of its pack */
    lore_embed_request **owners; /* [room.sequences] */
    int32_t *indexes;            /* of the texts in their owners' requests */
} seat;

struct lore_embed_line {
    lore_encoder *encoder;
    lore_encoder_lane lane;
    lore_encoder_room room;
    lore_lock turn;
    lore_embed_request *first; /* requests with texts that nobody took */
    seat seats[LORE_ENCODER_SEATS_MAX];
    int64_t packs;
};

/* ---- opening ---- */

lore_status lore_embed_line_open(lore_encoder *encoder, lore_encoder_lane lane,
                                 const lore_encoder_room *room, lore_embed_line **line,
                                 lore_error *err)
{
    lore_embed_line *l = lore_alloc_zero(1, sizeof *l);
    bool is_whole = l != NULL;
    if (is_whole) {
        l->encoder = encoder;
        l->lane = lane;
        l->room = *room;
        lore_lock_init(&l->turn);
    }
    for (int32_t i = 0; i < room->seats && is_whole; i++) {
        l->seats[i].owners = lore_alloc_zero((size_t)room->sequences, sizeof(void *));
        l->seats[i].indexes = lore_alloc_zero((size_t)room->sequences, sizeof(int32_t));
        is_whole = l->seats[i].owners != NULL && l->seats[i].indexes != NULL;
    }
    if (!is_whole) {
        lore_embed_line_close(l);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder's packs");
    }
    *line = l;
    return LORE_OK;
}

void lore_embed_line_close(lore_embed_line *l)
{
    if (l == NULL) {
        return;
    }
    for (int32_t i = 0; i < LORE_ENCODER_SEATS_MAX; i++) {
        lore_free(l->seats[i].owners);
        lore_free(l->seats[i].indexes);
    }
    lore_lock_destroy(&l->turn);
    lore_free(l);
}

int64_t lore_embed_line_packs(const lore_embed_line *l)
{
    return __atomic_load_n(&l->packs, __ATOMIC_RELAXED); /* for people, no order needed */
}

/* ---- packs; the lock is held ---- */

static seat *find_free(lore_embed_line *l)
{
    for (int32_t i = 0; i < l->room.seats; i++) {
        if (l->seats[i].state == SEAT_FREE) {
            return &l->seats[i];
        }
    }
    return NULL;
}

static int32_t number_of(const lore_embed_line *l, const seat *s)
{
    return (int32_t)(s - l->seats);
}

static lore_encoder_pack *pack_of(const lore_embed_line *l, const seat *s)
{
    return lore_encoder_pack_of(l->encoder, l->lane, number_of(l, s));
}

static bool has_text_of(const lore_embed_line *l, const seat *s, const lore_embed_request *r)
{
    for (int32_t i = 0; i < pack_of(l, s)->sequences; i++) {
        if (s->owners[i] == r) {
            return true;
        }
    }
    return false;
}

/* Of the packs that nobody waits for, the one that left first and that `own` should wait for. */
static seat *find_away(lore_embed_line *l, const lore_embed_request *own)
{
    const bool needs_seat = own->taken < own->count;
    seat *found = NULL;
    for (int32_t i = 0; i < l->room.seats; i++) {
        seat *s = &l->seats[i];
        if (s->state == SEAT_AWAY && (found == NULL || s->departure < found->departure) &&
            (needs_seat || has_text_of(l, s, own))) {
            found = s;
        }
    }
    return found;
}

/* Take texts of the line until the pack is full; who has none left leaves the line. */
static void fill_pack(lore_embed_line *l, seat *s)
{
    lore_encoder_pack *pack = pack_of(l, s);
    int32_t rows = 0, n = 0;
    lore_embed_request **link = &l->first;
    pack->row_start[0] = 0;
    while (*link != NULL) {
        lore_embed_request *r = *link;
        while (r->taken < r->count && n < l->room.sequences &&
               rows + r->texts[r->taken].count <= l->room.rows) {
            const lore_embed_text *text = &r->texts[r->taken++];
            memcpy(pack->ids + rows, text->ids, (size_t)text->count * sizeof(int32_t));
            rows += text->count;
            s->owners[n] = r;
            s->indexes[n] = text->index;
            pack->row_start[++n] = rows;
        }
        if (r->taken == r->count) {
            *link = r->next;
        } else {
            link = &r->next;
        }
    }
    LORE_ASSERT(n > 0); /* there is a text in the line, and every text fits an empty pack */
    pack->sequences = n;
}

/* Hand out what a pack gave: vectors, or its failure to all whose texts were in it. */
static void settle_pack(lore_embed_line *l, seat *s, lore_status status, const lore_error *error)
{
    const lore_encoder_pack *pack = pack_of(l, s);
    const size_t dim = (size_t)lore_encoder_dim(l->encoder);
    for (int32_t i = 0; i < pack->sequences; i++) {
        lore_embed_request *r = s->owners[i];
        r->done++;
        if (status == LORE_OK) {
            memcpy(r->vectors + (size_t)s->indexes[i] * dim, pack->vectors + (size_t)i * dim,
                   dim * sizeof(float));
        } else {
            r->status = status;
            r->error = *error;
        }
    }
    for (lore_embed_request **link = &l->first; *link != NULL && status != LORE_OK;) {
        if ((*link)->status != LORE_OK) {
            *link = (*link)->next;
        } else {
            link = &(*link)->next;
        }
    }
    s->state = SEAT_FREE;
    lore_lock_wake_all(&l->turn);
}

/* Send a pack on its way. False: there is no text in line, or no free seat. */
static bool load(lore_embed_line *l)
{
    lore_error error = {0};
    seat *s = find_free(l);
    if (s == NULL || l->first == NULL) {
        return false;
    }
    fill_pack(l, s);
    s->state = SEAT_LOADING;
    s->departure = __atomic_add_fetch(&l->packs, 1, __ATOMIC_RELAXED);
    lore_lock_release(&l->turn);
    lore_status status = lore_encoder_submit(l->encoder, l->lane, number_of(l, s), &error);
    lore_lock_acquire(&l->turn);
    s->state = SEAT_AWAY;
    if (status != LORE_OK) {
        settle_pack(l, s, status, &error);
    } else if (l->room.seats > 1) {
        lore_lock_wake_all(&l->turn); /* where there is one seat, the same caller waits for it */
    }
    return true;
}

/* Wait for a pack that is away. */
static void bring_back(lore_embed_line *l, seat *s)
{
    lore_error error = {0};
    s->state = SEAT_AWAITED;
    lore_lock_release(&l->turn);
    lore_status status = lore_encoder_wait(l->encoder, l->lane, number_of(l, s), &error);
    lore_lock_acquire(&l->turn);
    settle_pack(l, s, status, &error);
}

/* ---- callers ---- */

void lore_embed_line_join(lore_embed_line *l, lore_embed_request *own)
{
    lore_lock_acquire(&l->turn);
    lore_embed_request **link = &l->first;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = own;
    lore_lock_release(&l->turn);
}

void lore_embed_line_advance(lore_embed_line *l)
{
    lore_lock_acquire(&l->turn);
    while (load(l)) {
    }
    lore_lock_release(&l->turn);
}

/* After a failure too, its texts that are on their way have to come back. */
static bool is_settled(const lore_embed_request *r)
{
    return r->done == r->taken && (r->done == r->count || r->status != LORE_OK);
}

lore_status lore_embed_line_finish(lore_embed_line *l, lore_embed_request *own, lore_error *err)
{
    lore_lock_acquire(&l->turn);
    while (!is_settled(own)) {
        if (load(l)) {
            continue;
        }
        seat *s = find_away(l, own);
        if (s != NULL) {
            bring_back(l, s);
        } else {
            lore_lock_wait(&l->turn, 0); /* no deadline: whoever computes ends after one pack */
        }
    }
    lore_lock_release(&l->turn);
    if (own->status != LORE_OK && err != NULL) {
        *err = own->error;
    }
    return own->status;
}
