/* From texts to vectors. The texts of a call are taken in windows: each window is tokenised and
 * sorted by length, longest first, and becomes a request in the line of its lane: questions or
 * bulk (embed_line.c). A question never waits for bulk: its lane has seats of its own in the
 * encoder, whose work goes first.
 *
 * On a processor a window is computed before the next is tokenised. On a device a window is what
 * fills a pack, and there is one more than packs can be on their way, so that the next is ready
 * when one ends.
 *
 * An embedder whose device has failed goes on at its standby, once and for good: whoever meets the
 * failure first opens the encoder there, the others wait for that, and all encode again what they
 * had. What failed stays open, since others may still be on their way out of it.
 *
 * Lock: `turn` guards is_moving, and the place while it is changed. */
#include "models/embedder_int.h"

#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "models/embed_line_int.h"
#include "models/encoder_folder_int.h"
#include "models/model_folder_int.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WINDOW_TEXTS = 512, /* texts tokenised at a time: bounds the memory of a call */
    HOST_TEXTS = 128,   /* of a call for a processor: several of its packs */
    FIRST_SHARE = 4,    /* of a pack is the first window of a call for a device */
    PATH_CAP = 4096
};

/* An encoder on a backend, and the lines before it. */
typedef struct place {
    lore_encoder *encoder;
    lore_encoder_room rooms[LORE_ENCODER_LANES];
    lore_embed_line *lines[LORE_ENCODER_LANES];
} place;

struct lore_embedder {
    lore_encoder_config config;
    lore_model_card card;
    lore_tokenizer *tokenizer;
    lore_weights *weights, *dense_weights[LORE_DENSE_MAX];
    place first, second;
    _Atomic(place *) at;   /* where texts are encoded; release: a place is whole when it is shown */
    lore_backend *standby; /* of the second; NULL: there is none, or it has failed too */
    lore_lock turn;
    bool is_moving;
    int32_t dim;
    char fingerprint[65];
    int64_t cut_count;
};

static place *place_of(const lore_embedder *e)
{
    return atomic_load_explicit(&e->at, memory_order_acquire);
}

/* ---- opening ---- */

static lore_status open_weights(lore_embedder *e, const char *folder, const lore_limits *limits,
                                lore_error *err)
{
    char path[PATH_CAP];
    lore_status status = lore_weights_open(folder, limits, &e->weights, err);
    for (int32_t i = 0; i < e->config.dense_count && status == LORE_OK; i++) {
        int length = snprintf(path, sizeof path, "%s/%s", folder, e->config.dense[i].path);
        status = length < PATH_CAP
                     ? lore_weights_open(path, limits, &e->dense_weights[i], err)
                     : lore_fail(err, LORE_ERR_INVALID, "path of the model folder is too long");
    }
    return status;
}

static lore_status open_place(lore_embedder *e, place *p, lore_backend *backend,
                              const lore_encoder_room *rooms, lore_error *err)
{
    lore_encoder_options options = {.lanes = LORE_ENCODER_LANES};
    for (int32_t i = 0; i < LORE_ENCODER_LANES; i++) {
        p->rooms[i] = rooms != NULL
                          ? rooms[i]
                          : lore_encoder_choose_room(&e->config, lore_backend_get_kind(backend),
                                                     lore_backend_activation_dtype(backend),
                                                     (lore_encoder_lane)i);
        options.rooms[i] = p->rooms[i];
    }
    lore_status status = lore_encoder_open(&e->config, e->weights, e->dense_weights, backend,
                                           &options, &p->encoder, err);
    for (int32_t i = 0; i < LORE_ENCODER_LANES && status == LORE_OK; i++) {
        status =
            lore_embed_line_open(p->encoder, (lore_encoder_lane)i, &p->rooms[i], &p->lines[i], err);
    }
    return status;
}

static void close_place(place *p)
{
    for (int i = 0; i < LORE_ENCODER_LANES; i++) {
        lore_embed_line_close(p->lines[i]);
    }
    lore_encoder_close(p->encoder);
    *p = (place){0};
}

static lore_status open_parts(lore_embedder *e, const char *folder, lore_backend *backend,
                              const lore_encoder_room *rooms, const lore_limits *limits,
                              lore_error *err)
{
    lore_status status = lore_encoder_folder_read(folder, limits, &e->config, err);
    if (status == LORE_OK) {
        status = lore_model_card_read(folder, limits, &e->card, err);
    }
    if (status == LORE_OK) {
        status = lore_tokenizer_open(folder, limits, &e->tokenizer, err);
    }
    if (status == LORE_OK) {
        status = lore_encoder_folder_check(folder, &e->config, e->tokenizer, err);
    }
    if (status == LORE_OK) {
        status = open_weights(e, folder, limits, err);
    }
    if (status == LORE_OK) {
        status = lore_encoder_fingerprint(folder, limits, &e->config, e->weights, e->dense_weights,
                                          e->fingerprint, err);
    }
    if (status == LORE_OK) {
        status = open_place(e, &e->first, backend, rooms, err);
    }
    if (status == LORE_OK) {
        e->dim = lore_encoder_dim(e->first.encoder);
    }
    return status;
}

lore_status lore_embedder_open_rooms(const char *folder, lore_backend *backend,
                                     const lore_encoder_room *rooms, const lore_limits *limits,
                                     lore_embedder **embedder, lore_error *err)
{
    lore_embedder *e = lore_alloc_zero(1, sizeof *e);
    if (e == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder '%s'", folder);
    }
    lore_lock_init(&e->turn);
    atomic_init(&e->at, &e->first);
    lore_status status = open_parts(e, folder, backend, rooms, limits, err);
    if (status != LORE_OK) {
        lore_embedder_close(e);
        return status;
    }
    *embedder = e;
    return LORE_OK;
}

lore_status lore_embedder_open(const char *folder, lore_backend *backend, const lore_limits *limits,
                               lore_embedder **embedder, lore_error *err)
{
    return lore_embedder_open_rooms(folder, backend, NULL, limits, embedder, err);
}

void lore_embedder_close(lore_embedder *e)
{
    if (e == NULL) {
        return;
    }
    close_place(&e->second); /* before the weights, whose rows tables borrow */
    close_place(&e->first);
    lore_weights_close(e->weights);
    for (int32_t i = 0; i < LORE_DENSE_MAX; i++) {
        lore_weights_close(e->dense_weights[i]);
    }
    lore_tokenizer_close(e->tokenizer);
    lore_lock_destroy(&e->turn);
    lore_free(e);
}

void lore_embedder_stand_by(lore_embedder *e, lore_backend *backend)
{
    e->standby = backend;
}

int32_t lore_embedder_dim(const lore_embedder *e)
{
    return e->dim;
}

int32_t lore_embedder_tokens_max(const lore_embedder *e)
{
    return e->config.tokens_max;
}

const lore_tokenizer *lore_embedder_tokenizer(const lore_embedder *e)
{
    return e->tokenizer;
}

const char *lore_embedder_name(const lore_embedder *e)
{
    return e->card.name;
}

const char *lore_embedder_fingerprint(const lore_embedder *e)
{
    return e->fingerprint;
}

int64_t lore_embedder_parameters(const lore_embedder *e)
{
    return lore_weights_parameters(e->weights);
}

int64_t lore_embedder_pack_count(const lore_embedder *e)
{
    int64_t count = 0;
    for (int i = 0; i < LORE_ENCODER_LANES; i++) {
        count += lore_embed_line_packs(e->first.lines[i]);
        if (place_of(e) == &e->second) {
            count += lore_embed_line_packs(e->second.lines[i]);
        }
    }
    return count;
}

int64_t lore_embedder_cut_count(const lore_embedder *e)
{
    return __atomic_load_n(&e->cut_count,
                           __ATOMIC_RELAXED); /* a counter for people, no order needed */
}

static bool is_pipelined(const place *p, lore_encoder_lane lane)
{
    return p->rooms[lane].seats > 1;
}

int32_t lore_embedder_bulk_calls(const lore_embedder *e)
{
    return place_of(e)->rooms[LORE_ENCODER_BULK].seats;
}

int32_t lore_embedder_bulk_texts(const lore_embedder *e)
{
    return is_pipelined(place_of(e), LORE_ENCODER_BULK) ? WINDOW_TEXTS : HOST_TEXTS;
}

/* ---- encoding ---- */

static int longest_first(const void *a, const void *b)
{
    const lore_embed_text *x = a, *y = b;
    if (x->count != y->count) {
        return x->count > y->count ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

/* Ids of one text behind its prompt and between the post-processor's, cut where the model was
 * trained to stop. Prompt and text are tokenised as one: a piece may reach over their border. */
static lore_status tokenize(lore_embedder *e, lore_str prompt, lore_str text, lore_arena *arena,
                            lore_embed_text *out, bool *is_cut, lore_error *err)
{
    int32_t prefix_count = 0, suffix_count = 0;
    lore_tokens tokens;
    if (prompt.len > 0) {
        char *joined = lore_arena_push(arena, prompt.len + text.len);
        if (joined == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for tokens");
        }
        memcpy(joined, prompt.ptr, prompt.len);
        if (text.len > 0) {
            memcpy(joined + prompt.len, text.ptr, text.len);
        }
        text = (lore_str){joined, prompt.len + text.len};
    }
    const int32_t *prefix = lore_tokenizer_prefix(e->tokenizer, &prefix_count);
    const int32_t *suffix = lore_tokenizer_suffix(e->tokenizer, &suffix_count);
    int32_t room = e->config.tokens_max - prefix_count - suffix_count;
    /* One more than fits tells a text that fits exactly from one that is cut. */
    lore_status status =
        lore_tokenizer_encode_head(e->tokenizer, text, room + 1, arena, &tokens, err);
    if (status != LORE_OK) {
        return status;
    }
    *is_cut = tokens.count > room;
    int32_t kept = *is_cut ? room : tokens.count;
    int32_t *ids = LORE_PUSH(arena, int32_t, prefix_count + kept + suffix_count);
    if (ids == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for tokens");
    }
    out->ids = ids;
    out->count = prefix_count + kept + suffix_count;
    for (int32_t i = 0; i < prefix_count; i++) {
        *ids++ = prefix[i];
    }
    for (int32_t i = 0; i < kept; i++) {
        *ids++ = tokens.ids[i];
    }
    for (int32_t i = 0; i < suffix_count; i++) {
        *ids++ = suffix[i];
    }
    return LORE_OK;
}

/* Who asks: what is put before the texts, and whose turn it is. */
typedef struct asker {
    lore_str prompt;
    lore_encoder_lane lane;
} asker;

/* Some texts of one call, and their request. */
typedef struct window {
    lore_embed_text texts[WINDOW_TEXTS];
    lore_arena arena;
    lore_embed_request request;
    bool is_joined; /* the request stands in line, or is on its way */
} window;

/* Tokenise the first texts of `count`, up to rows_max tokens but at least one. Gives how many. */
static lore_status fill_window(lore_embedder *e, asker who, window *w, const lore_str *texts,
                               int32_t count, int32_t rows_max, float *vectors, int32_t *taken,
                               lore_error *err)
{
    int64_t cut = 0;
    int32_t rows = 0, n = 0;
    lore_arena_reset(&w->arena);
    for (; n < count && n < WINDOW_TEXTS; n++) {
        bool is_cut = false;
        w->texts[n].index = n;
        lore_status status =
            tokenize(e, who.prompt, texts[n], &w->arena, &w->texts[n], &is_cut, err);
        if (status != LORE_OK) {
            return status;
        }
        if (n > 0 && w->texts[n].count > rows_max - rows) {
            break; /* the next window tokenises it again */
        }
        rows += w->texts[n].count;
        cut += is_cut;
    }
    __atomic_fetch_add(&e->cut_count, cut, __ATOMIC_RELAXED);
    qsort(w->texts, (size_t)n, sizeof w->texts[0], longest_first);
    *taken = n;
    /* A tokenizer without special tokens makes nothing of an empty text: its vector is zero. */
    while (n > 0 && w->texts[n - 1].count == 0) {
        n--;
        memset(vectors + (size_t)w->texts[n].index * (size_t)e->dim, 0,
               (size_t)e->dim * sizeof(float));
    }
    w->request = (lore_embed_request){.texts = w->texts, .count = n, .vectors = vectors};
    return LORE_OK;
}

/* Where packs overlap a window fills one; the first of a call is small, for the device waits. */
static int32_t window_rows(const place *p, asker who, int32_t turn)
{
    const int32_t rows = p->rooms[who.lane].rows;
    return !is_pipelined(p, who.lane) ? INT32_MAX : turn == 0 ? rows / FIRST_SHARE : rows;
}

/* Until the vectors of a window are there; its memory is free then. */
static lore_status finish_window(lore_embed_line *line, window *w, lore_error *err)
{
    const bool was_joined = w->is_joined;
    w->is_joined = false;
    return was_joined ? lore_embed_line_finish(line, &w->request, err) : LORE_OK;
}

static lore_status encode_windows(lore_embedder *e, const place *p, asker who, window *windows,
                                  int32_t window_count, const lore_str *texts, int32_t count,
                                  float *vectors, lore_error *err)
{
    lore_embed_line *line = p->lines[who.lane];
    lore_status status = LORE_OK;
    int32_t done = 0;
    for (int32_t turn = 0; done < count && status == LORE_OK; turn++) {
        window *w = &windows[turn % window_count];
        int32_t taken = 0;
        status = finish_window(line, w, err);
        if (status == LORE_OK) {
            status = fill_window(e, who, w, texts + done, count - done, window_rows(p, who, turn),
                                 vectors + (size_t)done * (size_t)e->dim, &taken, err);
        }
        done += taken;
        w->is_joined = status == LORE_OK && w->request.count > 0;
        if (w->is_joined) {
            lore_embed_line_join(line, &w->request);
        }
        if (is_pipelined(p, who.lane)) {
            lore_embed_line_advance(line);
        }
    }
    for (int32_t i = 0; i < window_count; i++) {
        lore_status last = finish_window(line, &windows[i], status == LORE_OK ? err : NULL);
        status = status == LORE_OK ? last : status;
    }
    return status;
}

static lore_status encode_at(lore_embedder *e, const place *p, asker who, const lore_str *texts,
                             int32_t count, float *vectors, lore_error *err)
{
    /* one more than packs on their way; a question needs but one */
    const int32_t window_count =
        is_pipelined(p, who.lane) && count > 1 ? p->rooms[who.lane].seats + 1 : 1;
    window *windows = lore_alloc_zero((size_t)window_count, sizeof *windows);
    if (windows == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for embedding");
    }
    for (int32_t i = 0; i < window_count; i++) {
        lore_arena_init(&windows[i].arena, 0);
    }
    lore_status status =
        encode_windows(e, p, who, windows, window_count, texts, count, vectors, err);
    for (int32_t i = 0; i < window_count; i++) {
        lore_arena_destroy(&windows[i].arena);
    }
    lore_free(windows);
    return status;
}

static void open_standby(lore_embedder *e)
{
    lore_error err;
    if (open_place(e, &e->second, e->standby, NULL, &err) == LORE_OK) {
        lore_log(LORE_LOG_ERROR,
                 "event=encoder_moved to=%s effect=\"slower\" help=\"restart lore\"",
                 LORE_LOG_STR(lore_str_from(lore_backend_describe(e->standby))));
        atomic_store_explicit(&e->at, &e->second, memory_order_release);
    } else {
        lore_log(LORE_LOG_ERROR, "event=encoder_not_moved reason=%s",
                 LORE_LOG_STR(lore_str_from(err.message)));
        close_place(&e->second);
    }
}

/* True: there is another place now than `failed`. */
static bool move_away(lore_embedder *e, const place *failed)
{
    lore_lock_acquire(&e->turn);
    while (e->is_moving) {
        (void)lore_lock_wait(&e->turn, 0); /* whoever moves always ends it */
    }
    if (place_of(e) == failed && failed == &e->first && e->standby != NULL) {
        e->is_moving = true;
        lore_lock_release(&e->turn);
        open_standby(e);
        lore_lock_acquire(&e->turn);
        e->standby = NULL;
        e->is_moving = false;
        lore_lock_wake_all(&e->turn);
    }
    lore_lock_release(&e->turn);
    return place_of(e) != failed;
}

static lore_status encode(lore_embedder *e, asker who, const lore_str *texts, int32_t count,
                          float *vectors, lore_error *err)
{
    const place *p = place_of(e);
    lore_status status = encode_at(e, p, who, texts, count, vectors, err);
    return status == LORE_ERR_DEVICE && move_away(e, p)
               ? encode_at(e, place_of(e), who, texts, count, vectors, err)
               : status;
}

lore_status lore_embedder_encode(lore_embedder *e, const lore_str *texts, int32_t count,
                                 float *vectors, lore_error *err)
{
    asker who = {lore_str_from(e->config.query_prompt), LORE_ENCODER_QUESTIONS};
    return encode(e, who, texts, count, vectors, err);
}

lore_status lore_embedder_encode_passages(lore_embedder *e, const lore_str *texts, int32_t count,
                                          float *vectors, lore_error *err)
{
    asker who = {lore_str_from(e->config.document_prompt), LORE_ENCODER_QUESTIONS};
    return encode(e, who, texts, count, vectors, err);
}

lore_status lore_embedder_encode_bulk(lore_embedder *e, const lore_str *texts, int32_t count,
                                      float *vectors, lore_error *err)
{
    asker who = {lore_str_from(e->config.document_prompt), LORE_ENCODER_BULK};
    return encode(e, who, texts, count, vectors, err);
}
