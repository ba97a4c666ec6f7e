/* Perplexity, by the decoder's own steps.
 *
 * A window goes through in pieces of a few rows, as a long prompt does, because every row wants its
 * logits: at a vocabulary of 150,000 a whole window of them would take 300 MB. */
#include "models/perplexity.h"

#include "models/activations_int.h"

#include <math.h>
#include <string.h>

enum { ROWS = 64, PAGE_TOKENS = 32, WINDOW_DEFAULT = 512 };

typedef struct meter {
    lore_decoder *decoder;
    lore_arena arena;
    lore_tokens text;
    const int32_t *prefix;
    int32_t prefix_count;
    int32_t window; /* tokens of a sequence, prefix included */
    int32_t *ids;   /* [window] */
    int32_t *pages; /* [pages of a window] */
    float *logits;  /* [ROWS, vocab] */
    double loss;
    int64_t tokens;
    lore_error *err;
} meter;

/* -log of the probability of `id`. */
static double loss_of(const float *logits, int32_t vocab, int32_t id)
{
    float top = logits[0];
    double sum = 0;
    for (int32_t i = 1; i < vocab; i++) {
        top = logits[i] > top ? logits[i] : top;
    }
    for (int32_t i = 0; i < vocab; i++) {
        sum += (double)expf(logits[i] - top);
    }
    return log(sum) + (double)top - (double)logits[id];
}

/* Rows first .. first + rows of a window of `count` tokens; each predicts the next one, except the
 * last of all and those that predict the prefix. */
static lore_status read_piece(meter *m, int32_t first, int32_t rows, int32_t count)
{
    static const lore_sample greedy[ROWS] = {{.top_p = 1}};
    int32_t drawn[ROWS], logits_rows[ROWS], wanted = 0;
    float logprobs[ROWS];
    const int32_t vocab = lore_decoder_get_info(m->decoder)->vocab;
    const int32_t row_start[] = {0, rows}, past[] = {first}, lengths[] = {count};
    const int32_t page_start[] = {0, (m->window + PAGE_TOKENS - 1) / PAGE_TOKENS};
    for (int32_t i = 0; i < rows; i++) {
        if (first + i + 1 < count && first + i + 1 >= m->prefix_count) {
            logits_rows[wanted++] = i;
        }
    }
    const lore_step step = {.ids = m->ids + first,
                            .batch = {.sequences = 1,
                                      .rows = rows,
                                      .row_start = row_start,
                                      .past = past,
                                      .page_start = page_start,
                                      .pages = m->pages,
                                      .rows_max = rows,
                                      .context_max = first + rows},
                            .logits_rows = logits_rows,
                            .samples = greedy,
                            .logits_count = wanted,
                            .lengths = lengths};
    lore_status status = lore_decoder_step(m->decoder, &step, drawn, logprobs, m->logits, m->err);
    for (int32_t i = 0; i < wanted && status == LORE_OK; i++) {
        m->loss += loss_of(m->logits + (size_t)i * (size_t)vocab, vocab,
                           m->ids[first + logits_rows[i] + 1]);
        m->tokens++;
    }
    return status;
}

/* The sequence of `count` tokens of the text from `start` on. */
static lore_status read_window(meter *m, int32_t start, int32_t count)
{
    lore_status status = LORE_OK;
    const int32_t total = m->prefix_count + count;
    if (m->prefix_count > 0) {
        memcpy(m->ids, m->prefix, (size_t)m->prefix_count * sizeof(int32_t));
    }
    memcpy(m->ids + m->prefix_count, m->text.ids + start, (size_t)count * sizeof(int32_t));
    for (int32_t first = 0; first < total && status == LORE_OK; first += ROWS) {
        const int32_t left = total - first;
        status = read_piece(m, first, left < ROWS ? left : ROWS, total);
    }
    return status;
}

static lore_status read_windows(meter *m, const lore_perplexity_options *options)
{
    const int32_t body = m->window - m->prefix_count;
    int32_t windows = m->text.count / body, stride = 1;
    lore_status status = LORE_OK;
    if (windows == 0) { /* a short text is one short window */
        return read_window(m, 0, m->text.count);
    }
    if (options->windows_max > 0 && windows > options->windows_max) {
        stride = windows / options->windows_max;
        windows = options->windows_max;
    }
    for (int32_t i = 0; i < windows && status == LORE_OK; i++) {
        status = read_window(m, i * stride * body, body);
        if (status == LORE_OK && options->progress != NULL &&
            !options->progress(options->self, i + 1, windows)) {
            status = lore_fail(m->err, LORE_ERR_CANCELLED, "interrupted");
        }
    }
    return status;
}

/* Encode the text and take what windows need. */
static lore_status prepare(meter *m, lore_str text, const lore_perplexity_options *options)
{
    const lore_tokenizer *tokenizer = lore_decoder_tokenizer(m->decoder);
    const lore_decoder_info *info = lore_decoder_get_info(m->decoder);
    const int32_t window = options->window > 0 ? options->window : WINDOW_DEFAULT;
    m->window = window < info->context ? window : info->context;
    m->prefix = lore_tokenizer_prefix(tokenizer, &m->prefix_count);
    lore_status status = lore_tokenizer_encode(tokenizer, text, (lore_encode_options){0}, &m->arena,
                                               &m->text, m->err);
    if (status != LORE_OK) {
        return status;
    }
    if (m->text.count < 2 || m->window - m->prefix_count < 2) {
        return lore_fail(m->err, LORE_ERR_INVALID, "a text of %d tokens has no perplexity",
                         m->text.count);
    }
    const int32_t pages = (m->window + PAGE_TOKENS - 1) / PAGE_TOKENS;
    m->ids = LORE_PUSH(&m->arena, int32_t, m->window);
    m->pages = LORE_PUSH(&m->arena, int32_t, pages);
    m->logits = LORE_PUSH(&m->arena, float, (size_t)ROWS *(size_t)info->vocab);
    if (m->ids == NULL || m->pages == NULL || m->logits == NULL) {
        return lore_fail(m->err, LORE_ERR_NOMEM, "out of memory for logits");
    }
    for (int32_t i = 0; i < pages; i++) {
        m->pages[i] = i;
    }
    return LORE_OK;
}

lore_status lore_perplexity(const char *folder, lore_backend *backend, const lore_limits *limits,
                            lore_str text, const lore_perplexity_options *options,
                            lore_perplexity_result *result, lore_error *err)
{
    meter m = {.err = err};
    const int32_t window = options->window > 0 ? options->window : WINDOW_DEFAULT;
    const lore_decoder_options decoder_options = {.rows_max = ROWS,
                                                  .sequences_max = ROWS,
                                                  .page_tokens = PAGE_TOKENS,
                                                  .page_count =
                                                      (window + PAGE_TOKENS - 1) / PAGE_TOKENS};
    lore_arena_init(&m.arena, 0);
    lore_status status =
        lore_decoder_open(folder, backend, limits, &decoder_options, &m.decoder, err);
    if (status == LORE_OK && options->activations != NULL) {
        status = lore_activations_attach(options->activations, m.decoder, err);
    }
    if (status == LORE_OK) {
        status = prepare(&m, text, options);
    }
    if (status == LORE_OK) {
        status = read_windows(&m, options);
    }
    if (status == LORE_OK) {
        *result = (lore_perplexity_result){exp(m.loss / (double)m.tokens), m.tokens};
    }
    lore_decoder_close(m.decoder);
    lore_arena_destroy(&m.arena);
    return status;
}
