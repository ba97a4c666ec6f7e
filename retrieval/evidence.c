/* Evidence: which sentence of the passages answers the question, how surely, and what an answer may
 * lean on.
 *
 * A sentence is described by a few numbers in [0, 1]: the idf-weighted share of the question's
 * words that it holds itself, that it holds together with its title and headings, that its
 * neighbourhood holds, the cosines of sentence and passage with the question, and the passage's
 * fused score. Two weighted sums of them give the rank score and the support of an answer; weights
 * fitted on public question sets were no better than plain ones (docs/evaluation.md). Words are
 * those of the full-text index, cut by a coarser stemmer. */
#include "retrieval/evidence.h"

#include "base/clock.h"
#include "base/utf8.h"
#include "index/lexical.h"
#include "models/sentence.h"
#include "retrieval/figure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TERMS_MAX = 128, /* distinct words of a question that count; the bits of a term_set */
    SENTENCES_MAX =
        2048, /* of all passages; the best passages come first, so the tail is what is lost */
    EMBEDDED_MAX = 32,   /* sentences that get a vector of their own, by lexical score; the others
                            borrow their passage's. 24 and 48 give the same answers to the questions
                            of corpora/qa.jsonl, and each costs half a millisecond */
    LABEL_WEIGHT_MAX = 6 /* a word counts 2, a CJK character 1 */
};

/* A handful of chunks says nothing about which words are rare: a smaller collection counts as one
 * of so many. */
static const double IDF_ROWS_MIN = 500.0;

/* Weight of words that carry little of a question's meaning. They still count: "how long" differs
 * from "how". */
static const float FUNCTION_WORD_WEIGHT = 0.25F;

/* ---- words ---- */

static const char *const FUNCTION_WORDS[] = {
    "a",      "about", "after", "all",  "am",   "an",    "and",  "any",   "are",   "as",   "at",
    "be",     "been",  "but",   "by",   "can",  "could", "did",  "do",    "does",  "for",  "from",
    "get",    "had",   "has",   "have", "he",   "how",   "i",    "if",    "in",    "is",   "it",
    "its",    "me",    "my",    "must", "need", "no",    "not",  "of",    "on",    "or",   "our",
    "should", "so",    "than",  "that", "the",  "their", "them", "then",  "there", "they", "this",
    "to",     "want",  "was",   "we",   "were", "what",  "when", "where", "which", "who",  "why",
    "will",   "with",  "would", "you",  "your", "many",  "much", "long",  "one",   "s",    "t",
    "什么",   "怎么",  "如何",  "多少", "是否", "可以",  "哪里", "哪些",  "哪个",  "为什", "怎样",
    "多久",   "几个",  "吗",    "呢",   "的",   "了",    "是",   "么办",  "我的",  "我们", "你们",
    "是什",   "能不",  "不能",  "有没", "没有", "需要",  "怎么",
};

static bool is_function_word(lore_str word)
{
    for (size_t i = 0; i < sizeof FUNCTION_WORDS / sizeof FUNCTION_WORDS[0]; i++) {
        if (lore_str_equal(word, lore_str_from(FUNCTION_WORDS[i]))) {
            return true;
        }
    }
    return false;
}

/* Bytes of an English word without its plainest endings, so that "updates", "updated" and
 * "updating" are one. Coarser than the full-text index's stemmer, which nothing here has to agree
 * with. */
static size_t stem_bytes(lore_str word)
{
    static const lore_str ENDINGS[] = {{"ing", 3}, {"ies", 3}, {"ed", 2}, {"es", 2},
                                       {"ly", 2},  {"e", 1},   {"s", 1},  {"y", 1}};
    enum { STEM_BYTES_MIN = 3 };
    for (size_t i = 0; i < sizeof ENDINGS / sizeof ENDINGS[0]; i++) {
        if (word.len >= STEM_BYTES_MIN + ENDINGS[i].len && lore_str_ends(word, ENDINGS[i])) {
            return word.len - ENDINGS[i].len;
        }
    }
    return word.len;
}

/* The identity of a word: the hash of its stem. */
static uint64_t word_hash(lore_str word)
{
    return lore_str_hash(lore_str_slice(word, 0, stem_bytes(word)));
}

typedef struct question_terms {
    uint64_t hash[TERMS_MAX];
    lore_str text[TERMS_MAX];
    float weight[TERMS_MAX]; /* idf, lowered for function words */
    bool is_weak[TERMS_MAX];
    float total;
    int32_t count;
    lore_arena *arena;
    bool has_failed;
} question_terms;

static bool add_term(void *self, const lore_word *word)
{
    question_terms *terms = self;
    uint64_t hash = word_hash(word->text);
    for (int32_t i = 0; i < terms->count; i++) {
        if (terms->hash[i] == hash) {
            return true;
        }
    }
    lore_str copy = lore_str_copy(terms->arena, word->text);
    if (copy.ptr == NULL) {
        terms->has_failed = true;
        return false;
    }
    terms->hash[terms->count] = hash;
    terms->text[terms->count] = copy;
    terms->is_weak[terms->count] = is_function_word(copy) || (word->is_cjk && !word->is_bigram);
    terms->count++;
    return terms->count < TERMS_MAX;
}

/* Words of the question with their weights. A CJK run's single characters say little beside its
 * bigrams: they count as weak. */
static lore_status collect_terms(lore_snapshot *snapshot, lore_str question, lore_arena *arena,
                                 question_terms *terms, lore_error *err)
{
    *terms = (question_terms){.arena = arena};
    lore_status status = lore_words_each(question, add_term, terms, err);
    if (status != LORE_OK) {
        return status;
    }
    int64_t *rows = LORE_PUSH(arena, int64_t, terms->count + 1);
    if (terms->has_failed || rows == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the question's words");
    }
    status = lore_term_rows(snapshot, terms->text, terms->count, rows, err);
    if (status != LORE_OK) {
        return status;
    }
    double total_rows = fmax((double)lore_snapshot_chunks(snapshot), IDF_ROWS_MIN);
    for (int32_t i = 0; i < terms->count; i++) {
        double n = (double)rows[i] < total_rows ? (double)rows[i] : total_rows;
        double idf = log(1.0 + (total_rows - n + 0.5) / (n + 0.5));
        terms->weight[i] = (float)idf * (terms->is_weak[i] ? FUNCTION_WORD_WEIGHT : 1.0F);
        terms->total += terms->weight[i];
    }
    return LORE_OK;
}

/* Which of the question's terms a text holds. */
typedef struct term_set {
    uint64_t bits[TERMS_MAX / 64];
} term_set;

typedef struct term_finder {
    const question_terms *terms;
    term_set found;
} term_finder;

static bool find_term(void *self, const lore_word *word)
{
    term_finder *finder = self;
    uint64_t hash = word_hash(word->text);
    for (int32_t i = 0; i < finder->terms->count; i++) {
        if (finder->terms->hash[i] == hash) {
            finder->found.bits[i / 64] |= 1ULL << (i % 64);
            break;
        }
    }
    return true;
}

static lore_status terms_in(const question_terms *terms, lore_str text, term_set *set,
                            lore_error *err)
{
    term_finder finder = {.terms = terms};
    lore_status status = lore_words_each(text, find_term, &finder, err);
    *set = finder.found;
    return status;
}

static term_set both(term_set a, term_set b)
{
    for (size_t i = 0; i < sizeof a.bits / sizeof a.bits[0]; i++) {
        a.bits[i] |= b.bits[i];
    }
    return a;
}

/* The weighted share of the question's words in the set. */
static float coverage(const question_terms *terms, term_set set)
{
    float sum = 0.0F;
    for (int32_t i = 0; i < terms->count; i++) {
        sum += (set.bits[i / 64] >> (i % 64)) & 1 ? terms->weight[i] : 0.0F;
    }
    return terms->total > 0.0F ? sum / terms->total : 0.0F;
}

/* ---- sentences ---- */

typedef struct features {
    float own, headed, around, passage; /* coverage by the sentence; with title and headings; with
                                           its neighbours; by the chunk */
    float sentence_cosine, passage_cosine, fused;
    bool has_figure;
} features;

typedef struct draft {
    lore_sentence sentence;
    term_set terms;
    features features;
} draft;

typedef struct drafts {
    draft *items;
    int32_t count;
    term_set *headings; /* [hits] */
    int32_t *first;     /* [hits + 1]: drafts of hit h are first[h] .. first[h + 1] - 1 */
} drafts;

/* Overlapping chunks show a sentence twice: the better hit keeps it. */
static bool is_known(const drafts *found, const lore_hits *hits, int32_t hit, size_t start)
{
    int64_t document = hits->items[hit].chunk.document_row;
    for (int32_t i = 0; i < found->count; i++) {
        const lore_sentence *s = &found->items[i].sentence;
        if (s->start == start && hits->items[s->hit].chunk.document_row == document) {
            return true;
        }
    }
    return false;
}

/* Bytes of a list marker at the start: "- ", "* ", "3. ", "12) ". It is layout, not part of what is
 * said. */
static size_t marker_bytes(lore_str sentence)
{
    size_t at = 0;
    while (at < sentence.len && at < 3 && sentence.ptr[at] >= '0' && sentence.ptr[at] <= '9') {
        at++;
    }
    bool is_bullet =
        at == 0 && sentence.len > 2 && (sentence.ptr[0] == '-' || sentence.ptr[0] == '*');
    bool is_number =
        at > 0 && at + 2 < sentence.len && (sentence.ptr[at] == '.' || sentence.ptr[at] == ')');
    return (is_bullet || is_number) && sentence.ptr[at + 1] == ' ' ? at + 2 : 0;
}

static bool weigh_word(void *self, const lore_word *word)
{
    int32_t *weight = self;
    *weight += word->is_bigram ? 0 : word->is_cjk ? 1 : 2;
    return *weight <= LABEL_WEIGHT_MAX;
}

/* A line that names things and answers nothing: a heading of the passage, or a word or two without
 * a full stop or a figure (a table's head, a lone link). */
static bool is_label(const lore_chunk *chunk, lore_str line)
{
    size_t last = line.len;
    int32_t weight = 0;
    if (lore_str_find(chunk->heading, line, 0) != SIZE_MAX || lore_str_equal(chunk->title, line)) {
        return true;
    }
    if (lore_utf8_is_punct(lore_utf8_prev(line, &last))) {
        return false;
    }
    for (size_t i = 0; i < line.len; i++) {
        if (line.ptr[i] >= '0' && line.ptr[i] <= '9') {
            return false;
        }
    }
    return lore_words_each(line, weigh_word, &weight, NULL) == LORE_OK &&
           weight <= LABEL_WEIGHT_MAX;
}

static lore_status split_lines(const question_terms *terms, const lore_hits *hits, int32_t hit,
                               bool with_labels, drafts *found, lore_error *err)
{
    const lore_chunk *chunk = &hits->items[hit].chunk;
    size_t at = 0;
    lore_span span = {0};
    while (found->count < SENTENCES_MAX && lore_sentence_next(chunk->text, &at, &span)) {
        lore_str sentence = lore_str_slice(chunk->text, span.start, span.end);
        if (!with_labels && is_label(chunk, sentence)) {
            continue;
        }
        span.start += marker_bytes(sentence);
        if (is_known(found, hits, hit, chunk->start + span.start)) {
            continue;
        }
        draft *d = &found->items[found->count];
        *d = (draft){.sentence = {.hit = hit,
                                  .start = chunk->start + span.start,
                                  .end = chunk->start + span.end,
                                  .text = lore_str_slice(chunk->text, span.start, span.end)}};
        lore_status status = terms_in(terms, d->sentence.text, &d->terms, err);
        if (status != LORE_OK) {
            return status;
        }
        found->count++;
    }
    return LORE_OK;
}

/* Labels are left out, unless the passage has nothing else to say. */
static lore_status split_hit(const question_terms *terms, const lore_hits *hits, int32_t hit,
                             drafts *found, lore_error *err)
{
    int32_t before = found->count;
    lore_status status = split_lines(terms, hits, hit, false, found, err);
    if (status == LORE_OK && found->count == before) {
        status = split_lines(terms, hits, hit, true, found, err);
    }
    return status;
}

static lore_status split_hits(const question_terms *terms, const lore_hits *hits, lore_arena *arena,
                              drafts *found, lore_error *err)
{
    found->items = LORE_PUSH(arena, draft, SENTENCES_MAX);
    found->headings = LORE_PUSH(arena, term_set, hits->count + 1);
    found->first = LORE_PUSH(arena, int32_t, hits->count + 1);
    if (found->items == NULL || found->headings == NULL || found->first == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the passages' sentences");
    }
    for (int32_t h = 0; h < hits->count; h++) {
        term_set title = {0};
        term_set heading = {0};
        lore_status status = terms_in(terms, hits->items[h].chunk.title, &title, err);
        if (status == LORE_OK) {
            status = terms_in(terms, hits->items[h].chunk.heading, &heading, err);
        }
        if (status == LORE_OK) {
            status = split_hit(terms, hits, h, found, err);
        }
        if (status != LORE_OK) {
            return status;
        }
        found->headings[h] = both(title, heading);
        found->first[h + 1] = found->count;
    }
    return LORE_OK;
}

static void fill_lexical(const question_terms *terms, const lore_hits *hits, drafts *found)
{
    for (int32_t h = 0; h < hits->count; h++) {
        term_set passage = found->headings[h];
        for (int32_t i = found->first[h]; i < found->first[h + 1]; i++) {
            passage = both(passage, found->items[i].terms);
        }
        for (int32_t i = found->first[h]; i < found->first[h + 1]; i++) {
            draft *d = &found->items[i];
            term_set around = both(d->terms, found->headings[h]);
            d->features.own = coverage(terms, d->terms);
            d->features.has_figure = lore_has_figure(d->sentence.text);
            d->features.headed = coverage(terms, around);
            if (i > found->first[h]) {
                around = both(around, d[-1].terms);
            }
            if (i + 1 < found->first[h + 1]) {
                around = both(around, d[1].terms);
            }
            d->features.around = coverage(terms, around);
            d->features.passage = coverage(terms, passage);
            d->features.fused = hits->items[h].score;
            d->features.passage_cosine = isnan(hits->items[h].dense) ? 0.0F : hits->items[h].dense;
            d->features.sentence_cosine = d->features.passage_cosine;
        }
    }
}

/* ---- vectors of the most promising sentences ---- */

static float lexical_score(const features *f)
{
    return f->own + f->headed + 0.5F * f->around + f->fused;
}

static int by_lexical(const void *a, const void *b)
{
    const draft *x = *(draft *const *)a;
    const draft *y = *(draft *const *)b;
    float p = lexical_score(&x->features);
    float q = lexical_score(&y->features);
    return p != q ? (p < q) - (p > q) : (x > y) - (x < y);
}

static lore_str sentence_in_context(lore_arena *arena, const lore_chunk *chunk, lore_str sentence)
{
    return lore_str_printf(arena, LORE_STR_FMT "%s" LORE_STR_FMT "\n" LORE_STR_FMT,
                           LORE_STR_ARG(chunk->title), chunk->heading.len > 0 ? " > " : "",
                           LORE_STR_ARG(chunk->heading), LORE_STR_ARG(sentence));
}

static lore_status fill_dense(const lore_retriever *retriever, const lore_hits *hits, drafts *found,
                              lore_arena *arena, lore_error *err)
{
    int32_t dim = lore_embedder_dim(retriever->embedder);
    int32_t count = found->count < EMBEDDED_MAX ? found->count : EMBEDDED_MAX;
    draft **chosen = LORE_PUSH(arena, draft *, found->count + 1);
    lore_str *texts = LORE_PUSH(arena, lore_str, count + 1);
    float *vectors = LORE_PUSH(arena, float, (size_t)(count + 1) * (size_t)dim);
    if (chosen == NULL || texts == NULL || vectors == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d sentence vectors", count);
    }
    for (int32_t i = 0; i < found->count; i++) {
        chosen[i] = &found->items[i];
    }
    qsort(chosen, (size_t)found->count, sizeof(draft *), by_lexical);
    for (int32_t i = 0; i < count; i++) {
        const lore_sentence *s = &chosen[i]->sentence;
        texts[i] = sentence_in_context(arena, &hits->items[s->hit].chunk, s->text);
        if (texts[i].ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d sentence vectors", count);
        }
    }
    lore_status status =
        lore_embedder_encode_passages(retriever->embedder, texts, count, vectors, err);
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        float cosine = 0.0F;
        for (int32_t c = 0; c < dim; c++) {
            cosine += vectors[(size_t)i * (size_t)dim + (size_t)c] * hits->query_vector[c];
        }
        chosen[i]->features.sentence_cosine = cosine;
    }
    return status;
}

/* ---- the two linear models ---- */

/* What a figure adds to the rank of a sentence where the question asks for one. */
static const float FIGURE_BONUS = 0.15F;

/* Equal weights: regression on the public sets gave nothing that carried over to help-centre text
 * (docs/evaluation.md). */
static float rank_score(const features *f, bool asks_figure)
{
    float figure = asks_figure && f->has_figure ? FIGURE_BONUS : 0.0F;
    return figure + 0.2F * (f->own + f->headed + f->around + f->sentence_cosine + f->fused);
}

static float support_score(const features *f)
{
    return 0.25F * f->headed + 0.15F * f->passage + 0.6F * f->sentence_cosine;
}

static int by_rank(const void *a, const void *b)
{
    const draft *x = a;
    const draft *y = b;
    if (x->sentence.score != y->sentence.score) {
        return (x->sentence.score < y->sentence.score) - (x->sentence.score > y->sentence.score);
    }
    if (x->sentence.hit != y->sentence.hit) {
        return (x->sentence.hit > y->sentence.hit) - (x->sentence.hit < y->sentence.hit);
    }
    return (x->sentence.start > y->sentence.start) - (x->sentence.start < y->sentence.start);
}

static lore_status rank(drafts *found, const lore_hits *hits, bool asks_figure, lore_arena *arena,
                        lore_evidence *evidence, lore_error *err)
{
    for (int32_t i = 0; i < found->count; i++) {
        draft *d = &found->items[i];
        d->sentence.score = rank_score(&d->features, asks_figure);
        d->sentence.lexical = d->features.headed;
        d->sentence.dense = d->features.sentence_cosine;
        evidence->support = fmaxf(evidence->support, support_score(&d->features));
    }
    qsort(found->items, (size_t)found->count, sizeof found->items[0], by_rank);
    evidence->sentences = LORE_PUSH(arena, lore_sentence, found->count + 1);
    evidence->passages = LORE_PUSH(arena, int32_t, hits->count + 1);
    bool *is_listed = LORE_PUSH(arena, bool, hits->count + 1);
    if (evidence->sentences == NULL || evidence->passages == NULL || is_listed == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d ranked sentences", found->count);
    }
    evidence->count = found->count;
    for (int32_t i = 0; i < found->count; i++) {
        evidence->sentences[i] = found->items[i].sentence;
        int32_t hit = evidence->sentences[i].hit;
        if (!is_listed[hit]) {
            is_listed[hit] = true;
            evidence->passages[evidence->passage_count++] = hit;
        }
    }
    for (int32_t h = 0; h < hits->count; h++) {
        if (!is_listed[h]) {
            evidence->passages[evidence->passage_count++] = h; /* no sentence of its own: last */
        }
    }
    return LORE_OK;
}

lore_status lore_evidence_rank(const lore_retriever *retriever, lore_str question,
                               const lore_hits *hits, lore_arena *arena, lore_evidence *evidence,
                               lore_error *err)
{
    int64_t start_ns = lore_clock_ns();
    lore_evidence result = {0};
    question_terms *terms = LORE_PUSH(arena, question_terms, 1);
    drafts found = {0};
    if (terms == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the question's words");
    }
    lore_snapshot *snapshot = lore_index_acquire(retriever->index);
    lore_status status = collect_terms(snapshot, question, arena, terms, err);
    lore_snapshot_release(snapshot);
    if (status == LORE_OK) {
        status = split_hits(terms, hits, arena, &found, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    fill_lexical(terms, hits, &found);
    status = fill_dense(retriever, hits, &found, arena, err);
    if (status == LORE_OK) {
        status = rank(&found, hits, lore_asks_for_figure(question, arena), arena, &result, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    result.elapsed_ns = lore_clock_ns() - start_ns;
    *evidence = result;
    return LORE_OK;
}

/* ---- the order of the passages ---- */

lore_status lore_evidence_reorder(lore_evidence *evidence, lore_hits *hits, int32_t hits_max,
                                  lore_arena *arena, lore_error *err)
{
    int32_t kept = evidence->passage_count < hits_max ? evidence->passage_count : hits_max;
    lore_hit *items = LORE_PUSH(arena, lore_hit, kept + 1);
    int32_t *place =
        LORE_PUSH(arena, int32_t, hits->count + 1); /* old hit -> new hit + 1; 0: dropped */
    if (items == NULL || place == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d passages", kept);
    }
    for (int32_t i = 0; i < kept; i++) {
        items[i] = hits->items[evidence->passages[i]];
        place[evidence->passages[i]] = i + 1;
    }
    int32_t count = 0;
    for (int32_t i = 0; i < evidence->count; i++) {
        lore_sentence s = evidence->sentences[i];
        if (place[s.hit] > 0) {
            s.hit = place[s.hit] - 1;
            evidence->sentences[count++] = s;
        }
    }
    for (int32_t i = 0; i < kept; i++) {
        evidence->passages[i] = i;
    }
    evidence->count = count;
    evidence->passage_count = kept;
    hits->items = items;
    hits->count = kept;
    return LORE_OK;
}

/* ---- the prompt's view of a passage ---- */

lore_str lore_evidence_passage(const lore_evidence *evidence, const lore_hits *hits, int32_t hit,
                               int32_t sentences_max, lore_arena *arena)
{
    const lore_chunk *chunk = &hits->items[hit].chunk;
    const lore_sentence **chosen = LORE_PUSH(arena, const lore_sentence *, sentences_max + 1);
    int32_t count = 0;
    if (chosen == NULL) {
        return (lore_str){0};
    }
    for (int32_t i = 0; i < evidence->count && count < sentences_max; i++) {
        const lore_sentence *s = &evidence->sentences[i];
        if (s->hit != hit) {
            continue;
        }
        int32_t at = count++;
        for (; at > 0 && chosen[at - 1]->start > s->start; at--) {
            chosen[at] = chosen[at - 1]; /* insert in document order: a handful of items */
        }
        chosen[at] = s;
    }
    lore_str text = chunk->heading.len == 0
                        ? lore_str_copy(arena, chunk->title)
                        : lore_str_printf(arena, LORE_STR_FMT " > " LORE_STR_FMT,
                                          LORE_STR_ARG(chunk->title), LORE_STR_ARG(chunk->heading));
    for (int32_t i = 0; i < count && text.ptr != NULL; i++) {
        text = lore_str_printf(arena, LORE_STR_FMT "\n" LORE_STR_FMT, LORE_STR_ARG(text),
                               LORE_STR_ARG(chosen[i]->text));
    }
    return text;
}
