/* A question's way to its answer. Read lore_answer_run at the end first: retrieve, rank, refuse or
 * write.
 *
 * Invariants
 *  1. Text that was handed to `delta` stands in the answer, in order, and never changes.
 *  2. Every sentence of a guarded answer carries a citation whose bytes are those of the document.
 *  3. A failure of the decoder never fails a question that the documents answer: the extractive
 * answer takes its place.
 *
 * Writing is a loop over the decoder's tokens. Text gathers in `pending`; each complete sentence is
 * judged once (judge_sentence), and released or refused. The first refused sentence ends the
 * decoder's part. */
#include "api/answer.h"

#include "api/guard.h"
#include "api/question.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "models/sentence.h"

#include <stdlib.h>
#include <string.h>

enum {
    CITATIONS_MAX = 64, /* sentences of one answer; an answer that is longer ends there with
                           finish_reason length */
    QUOTED_MAX = 3,     /* sentences of an extractive answer at most */
    LOOK_TOKENS = 4,    /* how often an unfinished sentence is held against the evidence */
    POLL_MS = 50,       /* how often a waiting answer looks after its client and its deadline */
};

typedef struct writing {
    const lore_answerer *answerer;
    const lore_query *query;
    const lore_answer_events *events;
    lore_arena *arena;
    lore_answer *answer;
    lore_evidence evidence;
    lore_guard guard; /* of the decoder's answer, on evidence */
    int64_t start_ns;
    lore_buf text;    /* what was released */
    lore_buf pending; /* the decoder's text that is not judged yet */
    bool is_cut;      /* a stop string ended the decoder's text */
    size_t judged;    /* bytes of pending that are */
} writing;

const char *lore_mode_name(lore_mode mode)
{
    static const char *const NAMES[] = {"answer", "extract", "context", "prompt"};
    return NAMES[mode];
}

static double ms_since(int64_t start_ns)
{
    return (double)(lore_clock_ns() - start_ns) / 1e6;
}

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "no memory for the answer");
}

/* ---- the passages ---- */

static lore_status find_passages(writing *w, lore_error *err)
{
    static const lore_str DEFAULT_COLLECTION = {"default", 7};
    const lore_query *query = w->query;
    const lore_config *config = w->answerer->config;
    int32_t top_k = query->top_k > 0 ? query->top_k : (int32_t)config->top_k;
    bool is_ranked = query->mode != LORE_MODE_CONTEXT;
    lore_retrieve_options options = {
        .search = {.collections =
                       query->collection_count > 0 ? query->collections : &DEFAULT_COLLECTION,
                   .collection_count = query->collection_count > 0 ? query->collection_count : 1,
                   .filter = query->filter},
        .hits_max = is_ranked && top_k < (int32_t)config->evidence_hits
                        ? (int32_t)config->evidence_hits
                        : top_k,
        .tuning = {-1.0, 0.0},
        .deadline_ns = query->deadline_ns};
    lore_answer *answer = w->answer;
    lore_status status = lore_retrieve(&w->answerer->retriever, answer->question, &options,
                                       w->arena, &answer->hits, err);
    if (status != LORE_OK) {
        return status;
    }
    answer->embed_ms = (double)answer->hits.embed_ns / 1e6;
    answer->search_ms = (double)answer->hits.search_ns / 1e6;
    answer->rerank_ms = (double)answer->hits.rerank_ns / 1e6;
    if (!is_ranked) {
        return LORE_OK;
    }
    status = lore_evidence_rank(&w->answerer->retriever, answer->question, &answer->hits, w->arena,
                                &w->evidence, err);
    if (status != LORE_OK) {
        return status;
    }
    answer->evidence_ms = (double)w->evidence.elapsed_ns / 1e6;
    answer->support = w->evidence.support;
    for (int32_t i = 0; answer->hits.rerank == LORE_RERANK_DONE && i < answer->hits.count; i++) {
        w->evidence.passages[i] = i; /* the reranker's order stands */
    }
    return lore_evidence_reorder(&w->evidence, &answer->hits, top_k, w->arena, err);
}

/* Tell the listener what was found. Nothing may fail for the client's sake (a full queue, a bad
 * prompt) after this. */
static void announce(const writing *w)
{
    if (w->events->passages != NULL) {
        w->events->passages(w->events->self, w->answer);
    }
}

/* ---- releasing text ---- */

/* Put a sentence that `carrier` (an index into the evidence, or -1 where unguarded text has none)
 * carries behind the text. */
static lore_status release_sentence(writing *w, lore_str sentence, int32_t carrier, lore_error *err)
{
    lore_answer *answer = w->answer;
    size_t before = w->text.len;
    if (before > 0) {
        lore_buf_byte(&w->text, ' ');
    }
    size_t start = w->text.len;
    lore_buf_append(&w->text, sentence);
    size_t end = w->text.len;
    lore_citation *citation = NULL;
    if (carrier >= 0) {
        const lore_sentence *source = &w->evidence.sentences[carrier];
        citation = &answer->citations[answer->citation_count++];
        *citation = (lore_citation){source->hit + 1, start,       end,         source->hit,
                                    source->start,   source->end, source->text};
        lore_buf_printf(&w->text, " [%d]", citation->marker);
    }
    if (lore_buf_failed(&w->text)) {
        return no_memory(err);
    }
    if (before == 0) {
        answer->first_token_ms = ms_since(w->start_ns);
    }
    if (w->events->delta != NULL) {
        w->events->delta(w->events->self,
                         lore_str_slice(lore_buf_str(&w->text), before, w->text.len));
    }
    if (citation != NULL && w->events->citation != NULL) {
        w->events->citation(w->events->self, answer, citation);
    }
    return LORE_OK;
}

/* ---- the extractive answer ---- */

static bool is_runner_up(const lore_evidence *evidence, int32_t i, double ratio)
{
    return evidence->sentences[i].score >= (float)ratio * evidence->sentences[0].score;
}

static bool is_cited(const lore_answer *answer, const lore_sentence *sentence)
{
    for (int32_t i = 0; i < answer->citation_count; i++) {
        if (lore_str_equal(answer->citations[i].cited_text, sentence->text)) {
            return true; /* the same place, or the same words elsewhere */
        }
    }
    return false;
}

/* Quote the best sentence, and the next ones that are nearly as good: where the ranking cannot
 * tell, the reader can. Sentences that the answer already quotes are not said again. */
static lore_status quote_best(writing *w, lore_error *err)
{
    for (int32_t i = 0; i < w->evidence.count && w->answer->citation_count < QUOTED_MAX; i++) {
        if (!is_runner_up(&w->evidence, i, w->answerer->config->extract_ratio)) {
            break;
        }
        if (is_cited(w->answer, &w->evidence.sentences[i])) {
            continue;
        }
        lore_status status = release_sentence(w, w->evidence.sentences[i].text, i, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

static lore_status write_extract(writing *w, lore_error *err)
{
    w->answer->mode_used = LORE_MODE_EXTRACT;
    w->answer->finish_reason = "stop";
    return quote_best(w, err);
}

static lore_status write_refusal(writing *w, lore_error *err)
{
    lore_str refusal = lore_question_is_cjk(w->query->question)
                           ? LORE_STR("在现有文档中没有找到这个问题的答案。")
                           : LORE_STR("I could not find an answer to this in the documents.");
    lore_collection_info *list = NULL;
    int32_t count = 0;
    lore_status status =
        lore_index_collections(w->answerer->retriever.index, w->arena, &list, &count, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_str name = w->query->collection_count > 0 ? w->query->collections[0] : LORE_STR("default");
    for (int32_t i = 0; i < count && w->query->collection_count <= 1; i++) {
        if (lore_str_equal(list[i].name, name) && list[i].refusal.len > 0) {
            refusal = list[i].refusal;
        }
    }
    w->answer->is_refused = true;
    w->answer->mode_used = LORE_MODE_EXTRACT;
    w->answer->finish_reason = "stop";
    return release_sentence(w, refusal, -1, err);
}

/* ---- the decoder's answer ---- */

static const lore_prompt_template *find_template(const lore_answerer *answerer, lore_str name)
{
    lore_str wanted = name.len > 0 ? name : LORE_STR("default");
    for (int32_t i = 0; i < answerer->prompt_count; i++) {
        if (lore_str_equal(wanted, lore_str_from(lore_prompt_name(answerer->prompts[i])))) {
            return answerer->prompts[i];
        }
    }
    return NULL;
}

static int32_t answer_tokens_max(const writing *w)
{
    int32_t tokens =
        w->query->max_tokens > 0 ? w->query->max_tokens : (int32_t)w->answerer->config->max_tokens;
    int32_t half = lore_engine_info(w->answerer->engine)->context / 2;
    return tokens < half ? tokens : half; /* the prompt needs its half of a small context */
}

static lore_status build_prompt(writing *w, lore_prompt *prompt, lore_error *err)
{
    const lore_query *query = w->query;
    const lore_config *config = w->answerer->config;
    const lore_prompt_template *prompt_template = find_template(w->answerer, query->prompt_name);
    if (prompt_template == NULL) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "prompt.name: there is no prompt template '" LORE_STR_FMT "'",
                         LORE_STR_ARG(query->prompt_name));
    }
    w->answer->prompt_name = lore_prompt_name(prompt_template);
    int32_t count = w->answer->hits.count;
    count = count < (int32_t)config->evidence_passages ? count : (int32_t)config->evidence_passages;
    lore_str *passages = LORE_PUSH(w->arena, lore_str, count + 1);
    if (passages == NULL) {
        return no_memory(err);
    }
    for (int32_t i = 0; i < count; i++) {
        passages[i] = lore_evidence_passage(&w->evidence, &w->answer->hits, i,
                                            (int32_t)config->evidence_sentences, w->arena);
        if (passages[i].ptr == NULL) {
            return no_memory(err);
        }
    }
    int32_t context = lore_engine_info(w->answerer->engine)->context - answer_tokens_max(w);
    lore_prompt_slots slots = {.question = query->question,
                               .passages = passages,
                               .passage_count = count,
                               .history = query->history,
                               .history_count = query->history_count,
                               .variables = query->variables,
                               .variable_count = query->variable_count,
                               .tokens_max = context < (int32_t)config->limits.prompt_tokens_max
                                                 ? context
                                                 : (int32_t)config->limits.prompt_tokens_max};
    return lore_prompt_build(prompt_template, w->answerer->chat_template,
                             lore_engine_tokenizer(w->answerer->engine), &slots, w->arena, prompt,
                             err);
}

typedef enum verdict { VERDICT_RELEASED, VERDICT_REFUSED, VERDICT_FULL } verdict;

static lore_status judge_sentence(writing *w, lore_str sentence, verdict *outcome, lore_error *err)
{
    lore_str plain = lore_guard_unmarked(sentence, w->arena);
    *outcome = VERDICT_RELEASED;
    if (plain.ptr == NULL) {
        return no_memory(err);
    }
    if (plain.len == 0) {
        return LORE_OK; /* a marker on its own */
    }
    if (w->answer->citation_count == CITATIONS_MAX) {
        *outcome = VERDICT_FULL;
        return LORE_OK;
    }
    int32_t carrier = -1;
    if (!lore_guard_judge(&w->guard, plain, w->arena, &carrier)) {
        *outcome = VERDICT_REFUSED;
        return LORE_OK;
    }
    return release_sentence(w, plain, carrier, err);
}

/* Judge every sentence of pending that is complete: one that more text follows, or any at the end.
 * A marker that is still being written may yet belong to the sentence before it. */
static lore_status judge_pending(writing *w, bool is_end, verdict *outcome, lore_error *err)
{
    *outcome = VERDICT_RELEASED;
    while (*outcome == VERDICT_RELEASED) {
        lore_str rest = lore_buf_str(&w->pending);
        rest = lore_str_slice(rest, w->judged, rest.len);
        size_t at = 0;
        lore_span span = {0};
        if (!lore_sentence_next(rest, &at, &span)) {
            return LORE_OK;
        }
        lore_str behind = lore_str_trim(lore_str_slice(rest, span.end, rest.len));
        lore_str sentence = lore_str_slice(rest, span.start, span.end);
        if (!is_end && !lore_guard_is_settled(&w->guard, sentence) &&
            (behind.len == 0 ||
             (behind.ptr[0] == '[' && lore_str_find(behind, LORE_STR("]"), 0) == SIZE_MAX))) {
            bool is_due = w->answer->completion_tokens % LOOK_TOKENS == 0;
            *outcome = is_due && lore_guard_is_lost(&w->guard, rest, w->arena) ? VERDICT_REFUSED
                                                                               : VERDICT_RELEASED;
            return LORE_OK;
        }
        lore_status status = judge_sentence(w, sentence, outcome, err);
        if (status != LORE_OK) {
            return status;
        }
        w->judged += span.end;
    }
    return LORE_OK;
}

/* The last event ends the text: what belongs to a stop string is cut off it, a character that was
 * never completed is not. */
static void end_text(writing *w, lore_detok *detok, const lore_token_event *event)
{
    if (event->finish == LORE_FINISH_NONE) {
        return;
    }
    if (event->finish != LORE_FINISH_STOP) {
        lore_detok_finish(detok, &w->pending);
    }
    size_t open = w->pending.len - w->judged;
    w->is_cut = event->cut_bytes > 0;
    w->pending.len -= (size_t)event->cut_bytes < open ? (size_t)event->cut_bytes : open;
}

/* Whether the text stops at the end of a sentence: then the limit cut nothing off. */
static bool ends_sentence(const writing *w)
{
    lore_str text = lore_str_trim(lore_buf_str(&w->pending));
    size_t at = text.len;
    int32_t last = text.len > 0 ? lore_utf8_prev(text, &at) : 0;
    return last == '.' || last == '!' || last == '?' || last == ']' || last == 0x3002 ||
           last == 0xFF01 || last == 0xFF1F;
}

/* Take tokens until the sequence ends, a sentence is refused, the client leaves or the deadline
 * passes. */
static lore_status follow_stream(writing *w, lore_stream *stream, int64_t submitted_ns,
                                 verdict *outcome, lore_finish *finish, lore_error *err)
{
    lore_detok detok = {0};
    const lore_tokenizer *tokenizer = lore_engine_tokenizer(w->answerer->engine);
    *finish = LORE_FINISH_NONE;
    *outcome = VERDICT_RELEASED;
    while (*finish == LORE_FINISH_NONE && *outcome == VERDICT_RELEASED) {
        lore_token_event event = {0};
        lore_status status =
            lore_stream_next(stream, lore_clock_ns() + POLL_MS * 1000000LL, &event);
        if (w->events->is_gone != NULL && w->events->is_gone(w->events->self)) {
            return lore_fail(err, LORE_ERR_CANCELLED,
                             "the client left, or the service is stopping");
        }
        if (lore_deadline_passed(w->query->deadline_ns)) {
            return lore_fail(err, LORE_ERR_TIMEOUT,
                             "the answer was not ready before the request's deadline");
        }
        if (status == LORE_ERR_TIMEOUT) {
            continue;
        }
        w->answer->cached_tokens = event.cached_tokens;
        if (w->answer->completion_tokens == 0) {
            w->answer->queue_ms = ms_since(submitted_ns);
        }
        if (event.id >= 0) {
            w->answer->completion_tokens++;
            lore_detok_push(&detok, tokenizer, event.id, &w->pending);
        }
        *finish = event.finish;
        end_text(w, &detok, &event);
        if (lore_buf_failed(&w->pending)) {
            return no_memory(err);
        }
        status = judge_pending(w,
                               *finish == LORE_FINISH_STOP ||
                                   (*finish == LORE_FINISH_LENGTH &&
                                    (!w->answerer->config->guard || ends_sentence(w))),
                               outcome, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

/* Whoever may ask these collections may learn what was asked of them before; nobody else. SHA-256,
 * because names are chosen outside. */
static uint64_t salt_of(const lore_query *query)
{
    lore_sha256 sha;
    uint8_t digest[32];
    uint64_t salt;
    lore_sha256_init(&sha);
    for (int32_t i = 0; i < query->collection_count; i++) {
        lore_sha256_update(&sha, query->collections[i]);
        lore_sha256_update(&sha, (lore_str){"", 1}); /* no name holds a NUL */
    }
    lore_sha256_final(&sha, digest);
    memcpy(&salt, digest, sizeof salt);
    return salt;
}

static lore_status write_answer(writing *w, lore_error *err)
{
    lore_prompt prompt = {0};
    lore_stream *stream = NULL;
    verdict outcome = VERDICT_RELEASED;
    lore_finish finish = LORE_FINISH_NONE;
    lore_status status = build_prompt(w, &prompt, err);
    if (status == LORE_ERR_LIMIT) {
        announce(w); /* the question alone fills the decoder's context: the documents can still be
                        quoted */
        return write_extract(w, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_generation generation = {.prompt = prompt.tokens.ids,
                                  .prompt_count = prompt.tokens.count,
                                  .tokens_max = answer_tokens_max(w),
                                  .sampling = w->query->sampling,
                                  .stop = w->query->stop,
                                  .stop_count = w->query->stop_count,
                                  .salt = salt_of(w->query),
                                  .adapter = w->answer->adapter};
    w->answer->prompt_tokens = prompt.tokens.count;
    const lore_config *config = w->answerer->config;
    w->guard = (lore_guard){.evidence = &w->evidence,
                            .is_on = config->guard,
                            .is_strict =
                                config->guard && lore_engine_info(w->answerer->engine)->needs_guard,
                            .ratio = config->guard_ratio};
    int64_t submitted_ns = lore_clock_ns();
    status = lore_engine_submit(w->answerer->engine, &generation, &stream, err);
    if (status != LORE_OK) {
        return status;
    }
    announce(w);
    status = follow_stream(w, stream, submitted_ns, &outcome, &finish, err);
    const lore_error *reason = finish == LORE_FINISH_ERROR ? lore_stream_error(stream) : NULL;
    if (status == LORE_OK && reason != NULL) { /* a quotation would pass for the adapter's words */
        status = lore_fail(err, reason->status, "%s", reason->message);
    }
    lore_stream_cancel(stream);
    lore_stream_release(stream);
    if (status != LORE_OK) {
        return status;
    }
    if (w->answerer->is_failing != NULL) { /* relaxed: for people, nothing is published with it */
        atomic_store_explicit(w->answerer->is_failing, finish == LORE_FINISH_ERROR,
                              memory_order_relaxed);
    }
    if (finish == LORE_FINISH_ERROR) {
        lore_log(LORE_LOG_WARN, "event=answer_decoder_failed id=%s", w->answer->id);
    }
    if (w->text.len == 0 && !w->is_cut) {
        return write_extract(w,
                             err); /* nothing of the decoder's stands: refused, empty, or failed */
    }
    w->answer->mode_used = LORE_MODE_ANSWER;
    w->answer->finish_reason = outcome == VERDICT_RELEASED && finish != LORE_FINISH_ERROR
                                   ? lore_finish_name(finish)
                               : outcome == VERDICT_FULL ? "length"
                                                         : "stop";
    /* A model that needs the guard often stops at one of several sentences that are equally likely
     * to be the answer. */
    return w->guard.is_strict && !w->is_cut ? quote_best(w, err) : LORE_OK;
}

static lore_status write_prompt(writing *w, lore_error *err)
{
    lore_prompt prompt = {0};
    if (w->answerer->engine == NULL) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "mode: 'prompt' needs a decoder, and none is loaded");
    }
    lore_status status = build_prompt(w, &prompt, err);
    if (status != LORE_OK) {
        return status;
    }
    announce(w);
    w->answer->mode_used = LORE_MODE_PROMPT;
    w->answer->prompt_tokens = prompt.tokens.count;
    lore_buf_append(&w->text, prompt.text);
    return lore_buf_failed(&w->text) ? no_memory(err) : LORE_OK;
}

/* ---- the walk ---- */

static lore_status write_text(writing *w, lore_error *err)
{
    const lore_config *config = w->answerer->config;
    bool has_answer = w->evidence.count > 0 && w->evidence.support >= (float)config->refuse_below;
    if (w->query->mode == LORE_MODE_PROMPT) {
        return write_prompt(w, err);
    }
    if (w->query->mode == LORE_MODE_ANSWER && w->answerer->engine != NULL && has_answer) {
        return write_answer(w, err);
    }
    announce(w);
    if (w->query->mode == LORE_MODE_CONTEXT) {
        return LORE_OK;
    }
    return has_answer ? write_extract(w, err) : write_refusal(w, err);
}

lore_status lore_answer_run(const lore_answerer *answerer, const lore_query *query,
                            const lore_answer_events *events, lore_arena *arena,
                            lore_answer *answer, lore_error *err)
{
    static const lore_answer_events NO_EVENTS = {0};
    lore_answer result = {.created = lore_clock_unix_ms() / 1000,
                          .mode = query->mode,
                          .mode_used = query->mode,
                          .prompt_name = "default",
                          .finish_reason = "stop",
                          .model = answerer->engine != NULL
                                       ? lore_engine_info(answerer->engine)->name
                                       : "extractive"};
    lore_status status = /* its load begins while passages are found */
        lore_engine_choose(answerer->engine, query->adapter, query->mode == LORE_MODE_ANSWER,
                           &result.adapter, err);
    if (status != LORE_OK) {
        return lore_error_prefix(err, "adapter");
    }
    if (query->prompt_name.len > 0 && find_template(answerer, query->prompt_name) == NULL) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "prompt.name: there is no prompt template '" LORE_STR_FMT "'",
                         LORE_STR_ARG(query->prompt_name));
    }
    lore_id_new("q_", result.id, sizeof result.id);
    result.citations = LORE_PUSH(arena, lore_citation, CITATIONS_MAX);
    if (result.citations == NULL) {
        return no_memory(err);
    }
    writing w = {.answerer = answerer,
                 .query = query,
                 .events = events != NULL ? events : &NO_EVENTS,
                 .arena = arena,
                 .answer = &result,
                 .start_ns = lore_clock_ns()};
    lore_buf_init(&w.text, (size_t)answerer->config->limits.arena_bytes_max);
    lore_buf_init(&w.pending, (size_t)answerer->config->limits.arena_bytes_max);
    status = lore_question_choose(query, (size_t)answerer->config->limits.question_bytes_max, arena,
                                  &result.question, err);
    if (status == LORE_OK) {
        status = find_passages(&w, err);
    }
    if (status == LORE_OK) {
        status = write_text(&w, err);
    }
    if (status == LORE_OK) {
        result.text = lore_str_copy(arena, lore_buf_str(&w.text));
        status = result.text.ptr == NULL ? no_memory(err) : LORE_OK;
    }
    lore_buf_destroy(&w.text);
    lore_buf_destroy(&w.pending);
    if (status == LORE_OK) {
        result.total_ms = ms_since(w.start_ns);
        *answer = result;
    }
    return status;
}
