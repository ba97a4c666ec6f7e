/* From texts to vectors. The texts of a call are taken in windows: each window is tokenised and
 * sorted by length, longest first, and becomes a request in the line of its lane: questions or
 * bulk.
 *
 * Nobody serves a lane; its callers do. One that finds the lane idle takes the texts that wait, its
 * own or others', until a pack is full, computes it, hands out the vectors and wakes everybody. So
 * the short texts of several askers travel as one pack, which costs hardly more than one of them:
 * a pack of a dozen tokens is bound by reading the weights. The request that stands first always
 * puts its next text into the pack, so none starves. A question never waits for bulk: it has a lane
 * of the encoder of its own, whose work goes first in the pool.
 *
 * Packs are small. 256 tokens keep the activations of a layer in the second-level caches (240
 * chunks of 200 tokens a second on two cores, 1024 tokens a little less), and a larger pack would
 * only let callers wait longer.
 *
 * Lock: `turn` guards the lines of both lanes, is_busy, and the fields of requests that are marked;
 * the scratch of a lane, and the encoder's, belong to the caller that set is_busy. */
#include "models/embedder.h"

#include "base/file.h"
#include "models/encoder_folder_int.h"
#include "models/encoder_int.h"
#include "models/model_folder_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PACK_ROWS = 256,    /* tokens of one pack, or one text of the longest kind if that is more */
    PACK_TEXTS = 128,   /* texts of one pack */
    WINDOW_TEXTS = 512, /* texts tokenised at a time: bounds the memory of a call */
    PATH_CAP = 4096
};

typedef struct window_text {
    const int32_t *ids; /* special tokens included */
    int32_t count;
    int32_t index; /* of its vector in the window */
} window_text;

/* The sorted texts of one window, and where their vectors go. On its caller's stack. */
typedef struct request {
    const window_text *texts;
    int32_t count;
    float *vectors;
    int32_t taken;      /* texts that went into a pack; guarded */
    int32_t done;       /* texts whose vectors are there; guarded */
    lore_status status; /* not LORE_OK: its pack failed, nothing of it is in the line; guarded */
    lore_error error;
    struct request *next; /* in the line; guarded */
} request;

typedef struct lane {
    request *first; /* requests with texts that nobody took; guarded */
    bool is_busy;   /* guarded */
    int32_t *ids;   /* [rows_max] */
    float *vectors; /* [PACK_TEXTS, dim] */
    int32_t row_start[PACK_TEXTS + 1];
    request *owners[PACK_TEXTS];
    int32_t indexes[PACK_TEXTS]; /* of the texts in their owners' windows */
} lane;

struct lore_embedder {
    lore_encoder_config config;
    lore_model_card card;
    lore_tokenizer *tokenizer;
    lore_weights *weights, *dense_weights[LORE_DENSE_MAX];
    lore_encoder *encoder;
    int32_t rows_max, dim;
    char fingerprint[65];
    lore_lock turn;
    lane lanes[LORE_ENCODER_LANES];
    int64_t pack_count, cut_count;
};

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

static lore_status open_parts(lore_embedder *e, const char *folder, lore_backend *backend,
                              const lore_limits *limits, lore_error *err)
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
        e->rows_max = e->config.tokens_max > PACK_ROWS ? e->config.tokens_max : PACK_ROWS;
        const lore_encoder_options options = {
            .rows_max = e->rows_max, .sequences_max = PACK_TEXTS, .lanes = LORE_ENCODER_LANES};
        status = lore_encoder_open(&e->config, e->weights, e->dense_weights, backend, &options,
                                   &e->encoder, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    e->dim = lore_encoder_dim(e->encoder);
    for (int i = 0; i < LORE_ENCODER_LANES; i++) {
        e->lanes[i].ids = lore_alloc_zero((size_t)e->rows_max, sizeof(int32_t));
        e->lanes[i].vectors = lore_alloc_zero(PACK_TEXTS * (size_t)e->dim, sizeof(float));
        if (e->lanes[i].ids == NULL || e->lanes[i].vectors == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder '%s'", folder);
        }
    }
    return LORE_OK;
}

lore_status lore_embedder_open(const char *folder, lore_backend *backend, const lore_limits *limits,
                               lore_embedder **embedder, lore_error *err)
{
    lore_embedder *e = lore_alloc_zero(1, sizeof *e);
    if (e == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the encoder '%s'", folder);
    }
    lore_lock_init(&e->turn);
    lore_status status = open_parts(e, folder, backend, limits, err);
    if (status != LORE_OK) {
        lore_embedder_close(e);
        return status;
    }
    *embedder = e;
    return LORE_OK;
}

void lore_embedder_close(lore_embedder *e)
{
    if (e == NULL) {
        return;
    }
    lore_encoder_close(e->encoder); /* before the weights, whose rows its tables borrow */
    lore_weights_close(e->weights);
    for (int32_t i = 0; i < LORE_DENSE_MAX; i++) {
        lore_weights_close(e->dense_weights[i]);
    }
    lore_tokenizer_close(e->tokenizer);
    for (int i = 0; i < LORE_ENCODER_LANES; i++) {
        lore_free(e->lanes[i].ids);
        lore_free(e->lanes[i].vectors);
    }
    lore_lock_destroy(&e->turn);
    lore_free(e);
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
    return __atomic_load_n(&e->pack_count, __ATOMIC_RELAXED); /* as below */
}

int64_t lore_embedder_cut_count(const lore_embedder *e)
{
    return __atomic_load_n(&e->cut_count,
                           __ATOMIC_RELAXED); /* a counter for people, no order needed */
}

/* ---- encoding ---- */

static int longest_first(const void *a, const void *b)
{
    const window_text *x = a, *y = b;
    if (x->count != y->count) {
        return x->count > y->count ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

/* Ids of one text behind its prompt and between the post-processor's, cut where the model was
 * trained to stop. Prompt and text are tokenised as one: a piece may reach over their border. */
static lore_status tokenize(lore_embedder *e, lore_str prompt, lore_str text, lore_arena *arena,
                            window_text *out, bool *is_cut, lore_error *err)
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

/* Take texts of the line until the pack is full; who has none left leaves the line. Lock held.
 * Gives how many texts, at least one. */
static int32_t fill_pack(const lore_embedder *e, lane *l)
{
    int32_t rows = 0, n = 0;
    request **link = &l->first;
    l->row_start[0] = 0;
    while (*link != NULL) {
        request *r = *link;
        while (r->taken < r->count && n < PACK_TEXTS &&
               rows + r->texts[r->taken].count <= e->rows_max) {
            const window_text *text = &r->texts[r->taken++];
            memcpy(l->ids + rows, text->ids, (size_t)text->count * sizeof(int32_t));
            rows += text->count;
            l->owners[n] = r;
            l->indexes[n] = text->index;
            l->row_start[++n] = rows;
        }
        if (r->taken == r->count) {
            *link = r->next;
        } else {
            link = &r->next;
        }
    }
    LORE_ASSERT(n >
                0); /* whoever calls has a text in the line, and every text fits an empty pack */
    return n;
}

/* Hand out what a pack gave: vectors, or its failure to all whose texts were in it. Lock held. */
static void settle_pack(const lore_embedder *e, lane *l, int32_t count, lore_status status,
                        const lore_error *error)
{
    const size_t dim = (size_t)e->dim;
    for (int32_t i = 0; i < count; i++) {
        request *r = l->owners[i];
        r->done++;
        if (status == LORE_OK) {
            memcpy(r->vectors + (size_t)l->indexes[i] * dim, l->vectors + (size_t)i * dim,
                   dim * sizeof(float));
        } else {
            r->status = status;
            r->error = *error;
        }
    }
    for (request **link = &l->first; *link != NULL && status != LORE_OK;) {
        if ((*link)->status != LORE_OK) {
            *link = (*link)->next;
        } else {
            link = &(*link)->next;
        }
    }
}

/* Stand in line until all texts have their vectors, computing packs whenever nobody else does. */
static lore_status serve(lore_embedder *e, lore_encoder_lane which, request *own, lore_error *err)
{
    lane *l = &e->lanes[which];
    lore_lock_acquire(&e->turn);
    request **link = &l->first;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = own;
    while (own->done < own->count && own->status == LORE_OK) {
        if (l->is_busy) {
            lore_lock_wait(&e->turn, 0); /* no deadline: whoever computes ends after one pack */
            continue;
        }
        lore_error error = {0};
        const int32_t count = fill_pack(e, l);
        l->is_busy = true;
        lore_lock_release(&e->turn);
        __atomic_fetch_add(&e->pack_count, 1, __ATOMIC_RELAXED);
        const lore_encoder_pack pack = {
            .ids = l->ids, .row_start = l->row_start, .sequences = count};
        lore_status status = lore_encoder_forward(e->encoder, which, &pack, l->vectors, &error);
        lore_lock_acquire(&e->turn);
        l->is_busy = false;
        settle_pack(e, l, count, status, &error);
        lore_lock_wake_all(&e->turn);
    }
    lore_lock_release(&e->turn);
    if (own->status != LORE_OK && err != NULL) {
        *err = own->error;
    }
    return own->status;
}

/* Working memory of one call. */
typedef struct window_scratch {
    window_text texts[WINDOW_TEXTS];
    lore_arena arena;
} window_scratch;

/* Who asks: what is put before the texts, and whose turn it is. */
typedef struct asker {
    lore_str prompt;
    lore_encoder_lane lane;
} asker;

static lore_status encode_window(lore_embedder *e, asker who, window_scratch *w,
                                 const lore_str *texts, int32_t count, float *vectors,
                                 lore_error *err)
{
    int64_t cut = 0;
    lore_arena_reset(&w->arena);
    for (int32_t i = 0; i < count; i++) {
        bool is_cut = false;
        w->texts[i].index = i;
        lore_status status =
            tokenize(e, who.prompt, texts[i], &w->arena, &w->texts[i], &is_cut, err);
        if (status != LORE_OK) {
            return status;
        }
        cut += is_cut;
    }
    __atomic_fetch_add(&e->cut_count, cut, __ATOMIC_RELAXED);
    qsort(w->texts, (size_t)count, sizeof w->texts[0], longest_first);
    /* A tokenizer without special tokens makes nothing of an empty text: its vector is zero. */
    while (count > 0 && w->texts[count - 1].count == 0) {
        count--;
        memset(vectors + (size_t)w->texts[count].index * (size_t)e->dim, 0,
               (size_t)e->dim * sizeof(float));
    }
    request own = {.texts = w->texts, .count = count, .vectors = vectors};
    return count > 0 ? serve(e, who.lane, &own, err) : LORE_OK;
}

static lore_status encode(lore_embedder *e, asker who, const lore_str *texts, int32_t count,
                          float *vectors, lore_error *err)
{
    lore_status status = LORE_OK;
    window_scratch *w = lore_alloc_zero(1, sizeof *w);
    if (w == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for embedding");
    }
    lore_arena_init(&w->arena, 0);
    for (int32_t done = 0; done < count && status == LORE_OK; done += WINDOW_TEXTS) {
        int32_t size = count - done < WINDOW_TEXTS ? count - done : WINDOW_TEXTS;
        status = encode_window(e, who, w, texts + done, size,
                               vectors + (size_t)done * (size_t)e->dim, err);
    }
    lore_arena_destroy(&w->arena);
    lore_free(w);
    return status;
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
