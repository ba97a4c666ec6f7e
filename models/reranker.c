/* From a question and texts to scores. Each pair becomes one sequence: what the post-processor puts
 * before, the question, what it puts between, the text, what it puts behind. Pairs travel in packs
 * (of PACK_ROWS tokens, on a device of what its seat holds), one at a time. After each pack the
 * encoder is free for whoever gets it first: callers share it, but none is promised to be next.
 *
 * Time: after each pack the fastest one so far tells what the rest will take at least. Where that
 * is more than what is left, the call gives up at once instead of spending the budget on nothing. A
 * pack that is under way stops between two layers.
 *
 * Lock: `lock` guards is_busy and is never held while computing; the encoder and its pack belong to
 * the caller that set is_busy. */
#include "models/reranker.h"

#include "base/clock.h"
#include "models/encoder_folder_int.h"
#include "models/encoder_int.h"
#include "models/model_folder_int.h"

#include <math.h>
#include <string.h>

enum {
    PACK_ROWS = 256, /* tokens of one pack on a processor, or one pair if that is more */
    PACK_PAIRS = 64  /* there; short deadlines want a look at the clock now and then */
};

struct lore_reranker {
    lore_encoder_config config;
    lore_model_card card;
    lore_tokenizer *tokenizer;
    lore_weights *weights;
    lore_encoder *encoder;
    int32_t pack_rows, pack_pairs; /* a pack is full */
    lore_lock lock;
    bool is_busy; /* some caller computes a pack */
};

/* ---- opening ---- */

static lore_status check_pairs(const lore_reranker *r, const char *folder, lore_error *err)
{
    int32_t prefix = 0, middle = 0, suffix = 0;
    lore_tokenizer_prefix(r->tokenizer, &prefix);
    lore_tokenizer_suffix(r->tokenizer, &suffix);
    if (lore_tokenizer_middle(r->tokenizer, &middle) == NULL) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "model folder '%s': the tokenizer does not say how a pair is put together",
                         folder);
    }
    if (prefix == 0) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "model folder '%s': a pair begins with no special token, whose row the "
                         "classifier reads",
                         folder);
    }
    if (prefix + middle + suffix + 2 > r->config.tokens_max) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "model folder '%s': %d special tokens leave no room for a pair in %d "
                         "tokens",
                         folder, prefix + middle + suffix, r->config.tokens_max);
    }
    return LORE_OK;
}

static lore_status open_parts(lore_reranker *r, const char *folder, lore_backend *backend,
                              const lore_limits *limits, lore_error *err)
{
    lore_status status = lore_classifier_folder_read(folder, limits, &r->config, err);
    if (status == LORE_OK) {
        status = lore_model_card_read(folder, limits, &r->card, err);
    }
    if (status == LORE_OK) {
        status = lore_tokenizer_open(folder, limits, &r->tokenizer, err);
    }
    if (status == LORE_OK) {
        status = lore_encoder_folder_check(folder, &r->config, r->tokenizer, err);
    }
    if (status == LORE_OK) {
        status = check_pairs(r, folder, err);
    }
    if (status == LORE_OK) {
        status = lore_weights_open(folder, limits, &r->weights, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_encoder_room room =
        lore_encoder_choose_room(&r->config, lore_backend_get_kind(backend),
                                 lore_backend_activation_dtype(backend), LORE_ENCODER_QUESTIONS);
    const bool is_device = room.seats > 1;
    r->pack_rows = is_device ? room.rows : PACK_ROWS;
    r->pack_pairs = is_device ? room.sequences : PACK_PAIRS;
    room.seats = 1;
    lore_weights *const head[] = {r->weights, r->weights};
    const lore_encoder_options options = {.rooms = {[LORE_ENCODER_QUESTIONS] = room}, .lanes = 1};
    return lore_encoder_open(&r->config, r->weights, head, backend, &options, &r->encoder, err);
}

lore_status lore_reranker_open(const char *folder, lore_backend *backend, const lore_limits *limits,
                               lore_reranker **reranker, lore_error *err)
{
    lore_reranker *r = lore_alloc_zero(1, sizeof *r);
    if (r == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the reranker '%s'", folder);
    }
    lore_lock_init(&r->lock);
    lore_status status = open_parts(r, folder, backend, limits, err);
    if (status != LORE_OK) {
        lore_reranker_close(r);
        return status;
    }
    *reranker = r;
    return LORE_OK;
}

void lore_reranker_close(lore_reranker *r)
{
    if (r == NULL) {
        return;
    }
    lore_encoder_close(r->encoder); /* before the weights, whose rows its tables borrow */
    lore_weights_close(r->weights);
    lore_tokenizer_close(r->tokenizer);
    lore_lock_destroy(&r->lock);
    lore_free(r);
}

const char *lore_reranker_name(const lore_reranker *r)
{
    return r->card.name;
}

const char *lore_reranker_family(const lore_reranker *r)
{
    return r->config.family->model_type;
}

int32_t lore_reranker_tokens_max(const lore_reranker *r)
{
    return r->config.tokens_max;
}

const lore_tokenizer *lore_reranker_tokenizer(const lore_reranker *r)
{
    return r->tokenizer;
}

int64_t lore_reranker_parameters(const lore_reranker *r)
{
    return lore_weights_parameters(r->weights);
}

/* ---- pairs ---- */

typedef struct pair {
    const int32_t *ids, *types;
    int32_t count;
} pair;

/* Special tokens of a pair, and the room that they leave. */
typedef struct pair_frame {
    const int32_t *prefix, *middle, *suffix;
    int32_t prefix_count, middle_count, suffix_count, room;
} pair_frame;

static pair_frame frame_of(const lore_reranker *r)
{
    pair_frame f = {0};
    f.prefix = lore_tokenizer_prefix(r->tokenizer, &f.prefix_count);
    f.middle = lore_tokenizer_middle(r->tokenizer, &f.middle_count);
    f.suffix = lore_tokenizer_suffix(r->tokenizer, &f.suffix_count);
    f.room = r->config.tokens_max - f.prefix_count - f.middle_count - f.suffix_count;
    return f;
}

/* How much of two texts stays: the longer one is cut to what the shorter leaves, or both to a half.
 * ("longest_first" of the tokenizers library.) */
static void cut_longest(int32_t room, int32_t *a, int32_t *b)
{
    int32_t *shorter = *a > *b ? b : a, *longer = *a > *b ? a : b;
    if (*a + *b <= room) {
        return;
    }
    int32_t left = *shorter > room ? *shorter : room - *shorter;
    left = left > *shorter ? left : *shorter;
    if (*shorter + left > room) {
        *shorter = room / 2;
        left = room - room / 2;
    }
    *longer = left;
}

static int32_t *put(int32_t *at, const int32_t *ids, int32_t count)
{
    if (count > 0) {
        memcpy(at, ids, (size_t)count * sizeof *ids);
    }
    return at + count;
}

static lore_status make_pair(const lore_reranker *r, const pair_frame *f,
                             const lore_tokens *question, lore_str text, lore_arena *arena,
                             pair *out, lore_error *err)
{
    lore_tokens tokens;
    lore_status status =
        lore_tokenizer_encode(r->tokenizer, text, (lore_encode_options){0}, arena, &tokens, err);
    if (status != LORE_OK) {
        return status;
    }
    int32_t first = question->count, second = tokens.count;
    cut_longest(f->room, &first, &second);
    int32_t start = f->prefix_count + first + f->middle_count;
    out->count = start + second + f->suffix_count;
    int32_t *ids = LORE_PUSH(arena, int32_t, out->count);
    int32_t *types = LORE_PUSH(arena, int32_t, out->count);
    if (ids == NULL || types == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the tokens of a pair");
    }
    int32_t *at = put(ids, f->prefix, f->prefix_count);
    at = put(at, question->ids, first);
    at = put(at, f->middle, f->middle_count);
    at = put(at, tokens.ids, second);
    (void)put(at, f->suffix, f->suffix_count);
    for (int32_t i = 0; i < out->count; i++) {
        types[i] = i >= start && r->config.types > 1; /* BERT tells the two texts apart */
    }
    out->ids = ids;
    out->types = types;
    return LORE_OK;
}

static lore_status make_pairs(const lore_reranker *r, lore_str question, const lore_str *texts,
                              int32_t count, lore_arena *arena, pair *pairs, lore_error *err)
{
    pair_frame f = frame_of(r);
    lore_tokens tokens;
    lore_status status = lore_tokenizer_encode(r->tokenizer, question, (lore_encode_options){0},
                                               arena, &tokens, err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = make_pair(r, &f, &tokens, texts[i], arena, &pairs[i], err);
    }
    return status;
}

/* ---- time ---- */

typedef struct budget {
    int64_t deadline_ns;
    double ns_per_token; /* of the fastest pack so far; 0: none yet */
} budget;

static lore_status over_budget(lore_error *err)
{
    return lore_fail(err, LORE_ERR_TIMEOUT, "reranking would take longer than its deadline");
}

/* Can `tokens` more be done in time, at the best pace so far? */
static bool is_affordable(const budget *b, int64_t tokens)
{
    return b->deadline_ns == 0 ||
           (double)lore_clock_ns() + b->ns_per_token * (double)tokens < (double)b->deadline_ns;
}

static void note_pace(budget *b, int64_t elapsed_ns, int32_t tokens)
{
    double pace = (double)elapsed_ns / tokens;
    if (b->ns_per_token == 0 || pace < b->ns_per_token) {
        b->ns_per_token = pace;
    }
}

/* ---- packs ---- */

/* Wait until the encoder is free, and make it ours. False: it was not before the deadline. */
static bool take_encoder(lore_reranker *r, int64_t deadline_ns)
{
    bool is_in_time = true;
    lore_lock_acquire(&r->lock);
    while (r->is_busy && is_in_time) {
        is_in_time = lore_lock_wait(&r->lock, deadline_ns);
    }
    bool is_ours = !r->is_busy;
    r->is_busy = true; /* ours now, or somebody else's still */
    lore_lock_release(&r->lock);
    return is_ours;
}

static void give_encoder_back(lore_reranker *r)
{
    lore_lock_acquire(&r->lock);
    r->is_busy = false;
    lore_lock_wake_all(&r->lock);
    lore_lock_release(&r->lock);
}

/* Compute the first pairs that fill a pack; the encoder is ours. Gives how many. */
static lore_status score_pack(lore_reranker *r, const pair *pairs, int32_t count, budget *b,
                              int32_t *done, float *logits, lore_error *err)
{
    lore_encoder_pack *pack = lore_encoder_pack_of(r->encoder, LORE_ENCODER_QUESTIONS, 0);
    int32_t n = 0, rows = 0;
    pack->row_start[0] = 0;
    while (n < count && n < r->pack_pairs && (n == 0 || rows + pairs[n].count <= r->pack_rows)) {
        size_t size_bytes = (size_t)pairs[n].count * sizeof(int32_t);
        memcpy(pack->ids + rows, pairs[n].ids, size_bytes);
        memcpy(pack->types + rows, pairs[n].types, size_bytes);
        rows += pairs[n].count;
        pack->row_start[++n] = rows;
    }
    pack->sequences = n;
    pack->deadline_ns = b->deadline_ns;
    int64_t start_ns = lore_clock_ns();
    lore_status status = lore_encoder_submit(r->encoder, LORE_ENCODER_QUESTIONS, 0, err);
    if (status == LORE_OK) {
        status = lore_encoder_wait(r->encoder, LORE_ENCODER_QUESTIONS, 0, err);
    }
    if (status == LORE_OK) {
        memcpy(logits, pack->vectors, (size_t)n * sizeof *logits);
    }
    note_pace(b, lore_clock_ns() - start_ns, rows);
    *done = n;
    return status;
}

static lore_status score_pairs(lore_reranker *r, const pair *pairs, int32_t count, budget *b,
                               float *logits, lore_error *err)
{
    int64_t tokens = 0;
    for (int32_t i = 0; i < count; i++) {
        tokens += pairs[i].count;
    }
    for (int32_t at = 0; at < count;) {
        int32_t done = 0;
        if (!is_affordable(b, tokens) || !take_encoder(r, b->deadline_ns)) {
            return over_budget(err);
        }
        lore_status status = score_pack(r, pairs + at, count - at, b, &done, logits + at, err);
        give_encoder_back(r);
        if (status != LORE_OK) {
            return status;
        }
        for (int32_t i = 0; i < done; i++) {
            tokens -= pairs[at + i].count;
        }
        at += done;
    }
    return LORE_OK;
}

lore_status lore_reranker_score(lore_reranker *r, lore_str question, const lore_str *texts,
                                int32_t count, int64_t deadline_ns, float *scores, lore_error *err)
{
    lore_arena arena;
    budget b = {.deadline_ns = deadline_ns};
    lore_arena_init(&arena, 0);
    pair *pairs = LORE_PUSH(&arena, pair, count + 1);
    float *logits = LORE_PUSH(&arena, float, count + 1);
    lore_status status = pairs != NULL && logits != NULL
                             ? make_pairs(r, question, texts, count, &arena, pairs, err)
                             : lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d pairs", count);
    if (status == LORE_OK) {
        status = score_pairs(r, pairs, count, &b, logits, err);
    }
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        scores[i] = isnan(logits[i]) ? 0.0f : 1.0f / (1.0f + expf(-logits[i]));
    }
    lore_arena_destroy(&arena);
    return status;
}
