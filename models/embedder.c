/* From texts to vectors. The texts of a call are taken in windows: each window is tokenised, sorted
 * by length, and cut into packs of at most PACK_ROWS tokens for the encoder. Sorting costs nothing
 * and keeps the sequences of a pack alike, so that no thread waits for one long row of attention.
 *
 * Tokenising needs no lock; the encoder has room for one pack, so packs of concurrent callers take
 * turns through a ticket: whoever asked first computes first, and a question waits for one pack of
 * an ingest, never for all of it.
 *
 * Lock: `turn` guards next_ticket and serving; the encoder belongs to the ticket being served. */
#include "models/embedder.h"

#include "base/file.h"
#include "models/encoder_int.h"
#include "models/model_folder_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PACK_ROWS = 1024,   /* tokens of one pack, or one text of the longest kind if that is more */
    PACK_TEXTS = 256,   /* texts of one pack */
    WINDOW_TEXTS = 512, /* texts tokenised at a time: bounds the memory of a call */
    PATH_CAP = 4096
};

struct lore_embedder {
    lore_encoder_config config;
    lore_model_card card;
    lore_tokenizer *tokenizer;
    lore_weights *weights;
    lore_encoder *encoder;
    int32_t rows_max;
    char fingerprint[65];
    lore_lock turn;
    uint64_t next_ticket, serving;
    int64_t cut_count;
};

/* ---- opening ---- */

/* Read folder/file and hand its bytes to one parser of model_config.c. */
static lore_status parse_file(const char *folder, const char *file, const lore_limits *limits,
                              lore_status (*parse)(lore_str, const char *, lore_encoder_config *,
                                                   lore_error *),
                              lore_encoder_config *config, lore_error *err)
{
    char name[PATH_CAP];
    lore_buf text;
    lore_buf_init(&text, 0);
    snprintf(name, sizeof name, "%s/%s", folder, file); /* for messages: may be cut */
    lore_status status = lore_model_read(folder, file, limits, &text, err);
    if (status == LORE_OK) {
        status = parse(lore_buf_str(&text), name, config, err);
    }
    lore_buf_destroy(&text);
    return status;
}

static lore_status read_config(const char *folder, const lore_limits *limits,
                               lore_encoder_config *config, lore_error *err)
{
    char pooling_file[LORE_MODULE_PATH_CAP + 16];
    lore_status status =
        parse_file(folder, "config.json", limits, lore_encoder_config_parse, config, err);
    if (status == LORE_OK) {
        status = parse_file(folder, "modules.json", limits, lore_modules_parse, config, err);
    }
    if (status == LORE_OK) {
        snprintf(pooling_file, sizeof pooling_file, "%s/config.json", config->pooling_path);
        status = parse_file(folder, pooling_file, limits, lore_pooling_parse, config, err);
    }
    if (status == LORE_OK && lore_model_has(folder, "sentence_bert_config.json")) {
        status = parse_file(folder, "sentence_bert_config.json", limits, lore_sentence_config_parse,
                            config, err);
    }
    return status;
}

/* The tokenizer must speak the encoder's ids and leave room for text between its special tokens. */
static lore_status check_tokenizer(const lore_embedder *e, const char *folder, lore_error *err)
{
    int32_t prefix = 0, suffix = 0;
    lore_tokenizer_prefix(e->tokenizer, &prefix);
    lore_tokenizer_suffix(e->tokenizer, &suffix);
    if (lore_tokenizer_vocab(e->tokenizer) > e->config.vocab) {
        return lore_fail(
            err, LORE_ERR_CORRUPT,
            "model folder '%s': tokenizer.json has %d ids, config.json a vocabulary of %d", folder,
            lore_tokenizer_vocab(e->tokenizer), e->config.vocab);
    }
    if (prefix + suffix >= e->config.tokens_max) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "model folder '%s': %d special tokens leave no room in %d tokens", folder,
                         prefix + suffix, e->config.tokens_max);
    }
    return LORE_OK;
}

/* What makes two embedders' vectors comparable: weights, tokenizer, pooling, length. */
static lore_status make_fingerprint(lore_embedder *e, const char *folder, const lore_limits *limits,
                                    lore_error *err)
{
    lore_sha256 sha;
    uint8_t digest[32];
    char weights_hex[65], settings[96];
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_status status = lore_weights_fingerprint(e->weights, weights_hex, err);
    if (status == LORE_OK) {
        status = lore_model_read(folder, "tokenizer.json", limits, &text, err);
    }
    if (status == LORE_OK) {
        snprintf(settings, sizeof settings, "pooling %d normalised %d tokens %d",
                 (int)e->config.pooling, (int)e->config.is_normalised, (int)e->config.tokens_max);
        lore_sha256_init(&sha);
        lore_sha256_update(&sha, lore_str_from(weights_hex));
        lore_sha256_update(&sha, lore_buf_str(&text));
        lore_sha256_update(&sha, lore_str_from(settings));
        lore_sha256_final(&sha, digest);
        lore_sha256_hex(digest, e->fingerprint);
    }
    lore_buf_destroy(&text);
    return status;
}

static lore_status open_parts(lore_embedder *e, const char *folder, lore_backend *backend,
                              const lore_limits *limits, lore_error *err)
{
    lore_status status = read_config(folder, limits, &e->config, err);
    if (status == LORE_OK) {
        status = lore_model_card_read(folder, limits, &e->card, err);
    }
    if (status == LORE_OK) {
        status = lore_tokenizer_open(folder, limits, &e->tokenizer, err);
    }
    if (status == LORE_OK) {
        status = check_tokenizer(e, folder, err);
    }
    if (status == LORE_OK) {
        status = lore_weights_open(folder, limits, &e->weights, err);
    }
    if (status == LORE_OK) {
        status = make_fingerprint(e, folder, limits, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    e->rows_max = e->config.tokens_max > PACK_ROWS ? e->config.tokens_max : PACK_ROWS;
    return lore_encoder_open(&e->config, e->weights, backend, e->rows_max, PACK_TEXTS, &e->encoder,
                             err);
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
    lore_tokenizer_close(e->tokenizer);
    lore_lock_destroy(&e->turn);
    lore_free(e);
}

int32_t lore_embedder_dim(const lore_embedder *e)
{
    return e->config.width;
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

int64_t lore_embedder_cut_count(const lore_embedder *e)
{
    return __atomic_load_n(&e->cut_count,
                           __ATOMIC_RELAXED); /* a counter for people, no order needed */
}

/* ---- encoding ---- */

typedef struct window_text {
    const int32_t *ids; /* special tokens included */
    int32_t count;
    int32_t index; /* of its vector in the window */
} window_text;

static int longest_first(const void *a, const void *b)
{
    const window_text *x = a, *y = b;
    if (x->count != y->count) {
        return x->count > y->count ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

/* Ids of one text between the post-processor's, cut where the model was trained to stop. */
static lore_status tokenize(lore_embedder *e, lore_str text, lore_arena *arena, window_text *out,
                            bool *is_cut, lore_error *err)
{
    int32_t prefix_count = 0, suffix_count = 0;
    lore_tokens tokens;
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

static lore_status forward_in_turn(lore_embedder *e, const int32_t *ids, const int32_t *row_start,
                                   int32_t sequences, float *vectors, lore_error *err)
{
    lore_lock_acquire(&e->turn);
    uint64_t ticket = e->next_ticket++;
    while (e->serving != ticket) {
        /* No deadline: whoever is served ends after one pack. */
        lore_lock_wait(&e->turn, 0);
    }
    lore_lock_release(&e->turn);

    lore_status status = lore_encoder_forward(e->encoder, ids, row_start, sequences, vectors, err);

    lore_lock_acquire(&e->turn);
    e->serving++;
    lore_lock_wake_all(&e->turn);
    lore_lock_release(&e->turn);
    return status;
}

/* Working memory of one call. */
typedef struct window_scratch {
    window_text texts[WINDOW_TEXTS];
    int32_t row_start[PACK_TEXTS + 1];
    int32_t *ids;   /* [rows_max] */
    float *vectors; /* [PACK_TEXTS, width] */
    lore_arena arena;
} window_scratch;

/* Encode as many of the sorted texts as fit one pack. Gives how many. */
static lore_status encode_pack(lore_embedder *e, window_scratch *w, const window_text *texts,
                               int32_t count, float *vectors, int32_t *taken, lore_error *err)
{
    int32_t rows = 0, n = 0;
    size_t width = (size_t)e->config.width;
    w->row_start[0] = 0;
    while (n < count && n < PACK_TEXTS && rows + texts[n].count <= e->rows_max) {
        memcpy(w->ids + rows, texts[n].ids, (size_t)texts[n].count * sizeof(int32_t));
        rows += texts[n].count;
        w->row_start[++n] = rows;
    }
    lore_status status = forward_in_turn(e, w->ids, w->row_start, n, w->vectors, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int32_t i = 0; i < n; i++) {
        memcpy(vectors + (size_t)texts[i].index * width, w->vectors + (size_t)i * width,
               width * sizeof(float));
    }
    *taken = n;
    return LORE_OK;
}

static lore_status encode_window(lore_embedder *e, window_scratch *w, const lore_str *texts,
                                 int32_t count, float *vectors, lore_error *err)
{
    int64_t cut = 0;
    lore_arena_reset(&w->arena);
    for (int32_t i = 0; i < count; i++) {
        bool is_cut = false;
        w->texts[i].index = i;
        lore_status status = tokenize(e, texts[i], &w->arena, &w->texts[i], &is_cut, err);
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
        memset(vectors + (size_t)w->texts[count].index * (size_t)e->config.width, 0,
               (size_t)e->config.width * sizeof(float));
    }
    for (int32_t done = 0, taken = 0; done < count; done += taken) {
        lore_status status = encode_pack(e, w, w->texts + done, count - done, vectors, &taken, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

lore_status lore_embedder_encode(lore_embedder *e, const lore_str *texts, int32_t count,
                                 float *vectors, lore_error *err)
{
    size_t width = (size_t)e->config.width;
    lore_status status = LORE_OK;
    window_scratch *w = lore_alloc_zero(1, sizeof *w);
    if (w == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for embedding");
    }
    lore_arena_init(&w->arena, 0);
    w->ids = lore_alloc((size_t)e->rows_max * sizeof(int32_t));
    w->vectors = lore_alloc(PACK_TEXTS * width * sizeof(float));
    if (w->ids == NULL || w->vectors == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for embedding");
    }
    for (int32_t done = 0; done < count && status == LORE_OK; done += WINDOW_TEXTS) {
        int32_t size = count - done < WINDOW_TEXTS ? count - done : WINDOW_TEXTS;
        status = encode_window(e, w, texts + done, size, vectors + (size_t)done * width, err);
    }
    lore_free(w->ids);
    lore_free(w->vectors);
    lore_arena_destroy(&w->arena);
    lore_free(w);
    return status;
}
