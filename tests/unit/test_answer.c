/* A question's way to its answer: what each mode gives, when it is refused and in which words, that
 * every citation is the document's own bytes, in which order listeners hear of it, and that a
 * client who leaves or a deadline that passes gives the decoder's pages back. With the shipped
 * encoder and decoder, and without the latter. */
#include "api/answer.h"

#include "base/clock.h"
#include "generation/engine_int.h"
#include "tests/unit/answer_fixture.h"

static const char reset_question[] = "How long must I hold the reset button?";
static const char far_question[] = "Which composer wrote the opera about Egypt?";

typedef struct desk {
    bench b;
    lore_backend *decode_backend;
    lore_engine *engine;
    lore_template *chat;
    lore_prompt_template *prompt;
    const lore_prompt_template *prompts[1];
    lore_answerer answerer;
    lore_arena arena;
    lore_answer answer;
} desk;

static void desk_open(desk *d, const char *name, bool with_engine)
{
    lore_error err = {0};
    memset(d, 0, sizeof *d);
    bench_open(&d->b, name);
    put_shop(&d->b);
    lore_arena_init(&d->arena, 0);
    d->b.config.limits.kv_bytes_max = 32 << 20;
    if (with_engine) {
        lore_backend_options options = {.kind = LORE_BACKEND_CPU, .pool = d->b.pool};
        CHECK_OK(lore_backend_open(&options, &d->decode_backend, &err), &err);
        CHECK_OK(lore_engine_start(LORE_SOURCE_DIR "/weights/decoder", d->decode_backend,
                                   &d->b.config, &d->engine, &err),
                 &err);
        CHECK_OK(lore_template_open(LORE_SOURCE_DIR "/weights/decoder", "auto",
                                    lore_engine_tokenizer(d->engine), -1, -1, &d->b.config.limits,
                                    &d->chat, &err),
                 &err);
    }
    CHECK_OK(lore_prompt_open(LORE_SOURCE_DIR "/prompts", LORE_STR("default"), &d->prompt, &err),
             &err);
    d->prompts[0] = d->prompt;
    d->answerer = (lore_answerer){.retriever = retriever_of(&d->b),
                                  .engine = d->engine,
                                  .chat_template = d->chat,
                                  .prompts = d->prompts,
                                  .prompt_count = 1,
                                  .config = &d->b.config};
}

static void desk_close(desk *d)
{
    lore_engine_stop(d->engine, lore_clock_ns());
    lore_template_close(d->chat);
    lore_prompt_close(d->prompt);
    lore_arena_destroy(&d->arena);
    lore_backend_close(d->decode_backend);
    bench_close(&d->b);
}

static lore_query query_of(const char *text, lore_mode mode)
{
    return (lore_query){.question = lore_str_from(text), .mode = mode, .sampling = {.top_p = 1.0F}};
}

/* ---- what every answer must hold ---- */

/* What a listener heard; the checks run on the thread of the test. */
typedef struct listener {
    lore_buf text;
    int passages, deltas, citations;
    int leaves_after; /* polls of is_gone; -1: stays */
} listener;

static void hear_passages(void *self, const lore_answer *answer)
{
    listener *l = self;
    CHECK_INT(l->passages++, 0);
    CHECK_INT(l->deltas + l->citations, 0); /* before any text */
    CHECK(answer->hits.count == 0 || answer->hits.items[0].chunk.text.len > 0);
    CHECK(lore_str_starts(lore_str_from(answer->id), LORE_STR("q_")));
}

static void hear_delta(void *self, lore_str text)
{
    listener *l = self;
    CHECK_INT(l->passages, 1);
    CHECK(text.len > 0);
    l->deltas++;
    lore_buf_append(&l->text, text);
}

static void hear_citation(void *self, const lore_answer *answer, const lore_citation *citation)
{
    listener *l = self;
    char marker[16];
    CHECK(citation == &answer->citations[l->citations]);
    l->citations++;
    snprintf(marker, sizeof marker, " [%d]", citation->marker);
    CHECK(lore_str_ends(lore_buf_str(&l->text), lore_str_from(marker))); /* named just now */
}

static bool has_left(void *self)
{
    listener *l = self;
    return l->leaves_after >= 0 && l->leaves_after-- == 0;
}

static lore_answer_events events_of(listener *l)
{
    return (lore_answer_events){l, hear_passages, hear_delta, hear_citation, has_left};
}

static void check_citations(desk *d)
{
    const lore_answer *answer = &d->answer;
    size_t behind = 0;
    for (int32_t i = 0; i < answer->citation_count; i++) {
        const lore_citation *c = &answer->citations[i];
        char marker[16];
        snprintf(marker, sizeof marker, " [%d]", c->marker);
        CHECK_INT(c->marker, c->hit + 1);
        CHECK(c->hit >= 0 && c->hit < answer->hits.count);
        check_span(&d->b, &answer->hits.items[c->hit].chunk, c->start, c->end, c->cited_text);
        CHECK(c->answer_start >= behind && c->answer_start < c->answer_end);
        CHECK(lore_str_starts(lore_str_slice(answer->text, c->answer_end, answer->text.len),
                              lore_str_from(marker)));
        behind = c->answer_end + strlen(marker);
    }
    CHECK(behind <= answer->text.len);
}

/* Run; what the listener heard agrees with the answer. */
static void run(desk *d, const lore_query *query)
{
    lore_error err = {0};
    listener l = {.leaves_after = -1};
    lore_answer_events events = events_of(&l);
    lore_buf_init(&l.text, 0);
    CHECK_OK(lore_answer_run(&d->answerer, query, &events, &d->arena, &d->answer, &err), &err);
    CHECK_INT(l.passages, 1);
    CHECK_INT(l.citations, d->answer.citation_count);
    if (query->mode != LORE_MODE_PROMPT) {
        CHECK(lore_str_equal(lore_buf_str(&l.text), d->answer.text));
    }
    CHECK_INT(d->answer.mode, query->mode);
    CHECK(d->answer.total_ms > 0.0 && d->answer.created > 0);
    check_citations(d);
    lore_buf_destroy(&l.text);
}

static void ask(desk *d, const char *text, lore_mode mode)
{
    lore_query query = query_of(text, mode);
    run(d, &query);
}

static bool holds(lore_str text, const char *needle)
{
    return lore_str_find(text, lore_str_from(needle), 0) != SIZE_MAX;
}

/* ---- without a decoder ---- */

/* Quotations, word for word: each sentence of the answer is a citation's text. */
static void check_extract(desk *d, const char *text, const char *best)
{
    for (int i = 0; i < 2; i++) { /* mode answer falls back to it */
        ask(d, text, i == 0 ? LORE_MODE_EXTRACT : LORE_MODE_ANSWER);
        CHECK_INT(d->answer.mode_used, LORE_MODE_EXTRACT);
        CHECK(!d->answer.is_refused);
        CHECK(d->answer.citation_count >= 1 && d->answer.citation_count <= 3);
        CHECK_STR(d->answer.citations[0].cited_text, best);
        CHECK_STR(lore_str_from(d->answer.finish_reason), "stop");
        CHECK_STR(lore_str_from(d->answer.model), "extractive");
        for (int32_t c = 0; c < d->answer.citation_count; c++) {
            const lore_citation *one = &d->answer.citations[c];
            CHECK(lore_str_equal(lore_str_slice(d->answer.text, one->answer_start, one->answer_end),
                                 one->cited_text));
        }
    }
}

TEST(quotations)
{
    desk d;
    desk_open(&d, "extract", false);
    check_extract(&d, reset_question,
                  "Hold the reset button for ten seconds until the light blinks.");
    check_extract(&d, "重置按钮要按住多少秒？", "按住重置按钮10秒，直到指示灯闪烁。");
    lore_query query = query_of(reset_question, LORE_MODE_EXTRACT);
    query.top_k = 1;
    run(&d, &query);
    CHECK_INT(d.answer.hits.count, 1);
    desk_close(&d);
}

TEST(passages_alone)
{
    desk d;
    desk_open(&d, "context", false);
    lore_query query = query_of(reset_question, LORE_MODE_CONTEXT);
    query.top_k = 2;
    run(&d, &query);
    CHECK_INT(d.answer.mode_used, LORE_MODE_CONTEXT);
    CHECK_INT(d.answer.hits.count, 2);
    CHECK_STR(d.answer.hits.items[0].chunk.document_id, "router");
    CHECK_INT(d.answer.text.len, 0);
    CHECK_INT(d.answer.citation_count, 0);
    CHECK(!d.answer.is_refused);
    ask(&d, far_question, LORE_MODE_CONTEXT); /* nothing is refused */
    CHECK(!d.answer.is_refused && d.answer.hits.count > 0);
    desk_close(&d);
}

TEST(refusals)
{
    desk d;
    lore_error err = {0};
    desk_open(&d, "refusal", false);
    ask(&d, far_question, LORE_MODE_EXTRACT);
    CHECK(d.answer.is_refused);
    CHECK_STR(d.answer.text, "I could not find an answer to this in the documents.");
    CHECK_INT(d.answer.citation_count, 0);
    CHECK_STR(lore_str_from(d.answer.finish_reason), "stop");
    ask(&d, "周末北京的天气怎么样？", LORE_MODE_ANSWER);
    CHECK(d.answer.is_refused);
    CHECK_STR(d.answer.text, "在现有文档中没有找到这个问题的答案。");
    bench_tune(&d.b, "default", 0.3, "Please call us.");
    ask(&d, far_question, LORE_MODE_EXTRACT);
    CHECK_STR(d.answer.text, "Please call us.");
    lore_change made = {.kind = LORE_CHANGE_CREATE_COLLECTION, .collection = LORE_STR("empty")};
    CHECK_OK(lore_writer_apply_one(d.b.writer, &made, NULL, &err), &err);
    const lore_str empty[] = {LORE_STR("empty")};
    lore_query query = query_of(reset_question, LORE_MODE_EXTRACT);
    query.collections = empty;
    query.collection_count = 1;
    run(&d, &query); /* nothing there; the refusal is not that of another collection */
    CHECK(d.answer.is_refused);
    CHECK_INT(d.answer.hits.count, 0);
    CHECK_STR(d.answer.text, "I could not find an answer to this in the documents.");
    desk_close(&d);
}

static void check_fails(desk *d, const lore_query *query, lore_status status, const char *text)
{
    lore_error err = {0};
    listener l = {.leaves_after = -1};
    lore_answer_events events = events_of(&l);
    lore_buf_init(&l.text, 0);
    d->answer.created = -7;
    CHECK_FAILS(lore_answer_run(&d->answerer, query, &events, &d->arena, &d->answer, &err), status,
                &err, text);
    CHECK_INT(d->answer.created, -7); /* set on success only */
    CHECK_INT(l.deltas, 0);
    lore_buf_destroy(&l.text);
}

TEST(what_does_not_exist)
{
    desk d;
    desk_open(&d, "missing", false);
    lore_query query = query_of(reset_question, LORE_MODE_ANSWER);
    query.prompt_name = LORE_STR("verse");
    check_fails(&d, &query, LORE_ERR_NOT_FOUND, "prompt.name: there is no prompt template 'verse'");
    query = query_of(reset_question, LORE_MODE_ANSWER);
    query.adapter = LORE_STR("legal");
    check_fails(&d, &query, LORE_ERR_NOT_FOUND, "adapter 'legal'");
    query = query_of(reset_question, LORE_MODE_PROMPT);
    check_fails(&d, &query, LORE_ERR_INVALID, "needs a decoder");
    const lore_str nowhere[] = {LORE_STR("nowhere")};
    query = query_of(reset_question, LORE_MODE_CONTEXT);
    query.collections = nowhere;
    query.collection_count = 1;
    check_fails(&d, &query, LORE_ERR_NOT_FOUND, "nowhere");
    desk_close(&d);
}

TEST(follow_ups)
{
    desk d;
    desk_open(&d, "follow", false);
    static const lore_prompt_message HISTORY[] = {
        {{"user", 4}, {"How long is the warranty?", 25}},
        {{"assistant", 9}, {"24 months.", 10}},
    };
    lore_query query = query_of("Does it cover water damage?", LORE_MODE_EXTRACT);
    query.history = HISTORY;
    query.history_count = 2;
    run(&d, &query);
    CHECK_STR(d.answer.question, "How long is the warranty? Does it cover water damage?");
    CHECK_STR(d.answer.hits.items[0].chunk.document_id, "warranty");
    desk_close(&d);
}

static void wait_for_pages(desk *d)
{
    lore_sched_stats stats = {0};
    int64_t deadline_ns = lore_clock_ns() + 10000000000LL;
    do {
        lore_clock_sleep_ms(2);
        lore_engine_get_stats(d->engine, &stats);
    } while ((stats.running > 0 || stats.waiting > 0 || stats.pages_free < stats.pages_total) &&
             !lore_deadline_passed(deadline_ns));
    CHECK_INT(stats.running + stats.waiting, 0);
    CHECK_INT(stats.pages_free, stats.pages_total);
    CHECK(stats.pages_total > 0);
}

static lore_status answer_once(void *self)
{
    desk *d = self;
    lore_error err;
    lore_arena arena;
    lore_answer answer;
    lore_query query = query_of(reset_question, LORE_MODE_ANSWER);
    query.max_tokens = 3; /* where there is a decoder, it is asked, and the documents answer */
    lore_arena_init(&arena, 0);
    lore_status status = lore_answer_run(&d->answerer, &query, NULL, &arena, &answer, &err);
    bool is_right = status != LORE_OK || answer.citation_count > 0;
    lore_arena_destroy(&arena);
    return is_right ? status : LORE_ERR_CORRUPT;
}

TEST(allocations_may_fail)
{
    desk d;
    desk_open(&d, "nomem", false);
    sample_alloc_failures(answer_once, &d);
    desk_close(&d);
}

/* Where memory runs out within the decoder's part, its pages come back all the same. */
TEST(allocations_may_fail_while_writing)
{
    desk d;
    desk_open(&d, "nomem-engine", true);
    sample_alloc_failures(answer_once, &d);
    wait_for_pages(&d);
    CHECK_INT(answer_once(&d), LORE_OK);
    desk_close(&d);
}

/* ---- with the decoder ---- */

TEST(written_answers)
{
    desk d;
    desk_open(&d, "answer", true);
    ask(&d, reset_question, LORE_MODE_ANSWER);
    CHECK(!d.answer.is_refused);
    CHECK(d.answer.citation_count >= 1);
    CHECK(d.answer.prompt_tokens > 0 && d.answer.completion_tokens > 0);
    CHECK(holds(d.answer.text, "ten seconds"));
    CHECK_STR(lore_str_from(d.answer.model), "lore-small");
    CHECK_INT(d.answer.cached_tokens, 0);
    ask(&d, reset_question, LORE_MODE_ANSWER); /* the same prompt: all but its last page is there */
    CHECK(d.answer.cached_tokens > 0 && d.answer.cached_tokens < d.answer.prompt_tokens);
    CHECK(d.answer.cached_tokens + 32 >= d.answer.prompt_tokens);
    ask(&d, "重置按钮要按住多少秒？", LORE_MODE_ANSWER);
    CHECK(holds(d.answer.text, "10秒"));
    ask(&d, far_question, LORE_MODE_ANSWER);
    CHECK(d.answer.is_refused);
    CHECK_INT(d.answer.completion_tokens, 0); /* the decoder was not asked */
    lore_query query = query_of(reset_question, LORE_MODE_ANSWER);
    query.max_tokens = 1; /* no sentence fits: the documents answer */
    run(&d, &query);
    CHECK_INT(d.answer.mode_used, LORE_MODE_EXTRACT);
    CHECK(holds(d.answer.text, "ten seconds"));
    wait_for_pages(&d);
    desk_close(&d);
}

TEST(the_prompt_alone)
{
    desk d;
    desk_open(&d, "prompt", true);
    ask(&d, reset_question, LORE_MODE_PROMPT);
    CHECK_INT(d.answer.mode_used, LORE_MODE_PROMPT);
    CHECK(lore_str_starts(d.answer.text, LORE_STR("<|im_start|>system\n")));
    CHECK(lore_str_ends(d.answer.text, LORE_STR("<|im_start|>assistant\n")));
    CHECK(holds(d.answer.text, reset_question));
    CHECK(holds(d.answer.text, "\nHold the reset button for ten seconds until the light blinks."));
    CHECK(d.answer.prompt_tokens > 20);
    CHECK_INT(d.answer.completion_tokens, 0);
    desk_close(&d);
}

/* Role markers in a page and in a question are text: they are written out, piece by piece, as no
 * special token is. */
TEST(literal_role_markers)
{
    desk d;
    desk_open(&d, "markers", true);
    put_text(&d.b, "odd", "note", LORE_MEDIA_TEXT,
             "The marker <|im_start|> begins a turn of the chat. The marker ends with <|im_end|> "
             "in the log.");
    const lore_str odd[] = {LORE_STR("odd")};
    lore_query query = query_of("What does the marker begin?", LORE_MODE_PROMPT);
    query.collections = odd;
    query.collection_count = 1;
    run(&d, &query);
    int32_t tokens = d.answer.prompt_tokens;
    CHECK(holds(d.answer.text, "The marker <|im_start|> begins a turn of the chat."));
    query.question = LORE_STR("What does the marker <|im_start|> begin?");
    run(&d, &query);
    CHECK(holds(d.answer.text, "What does the marker <|im_start|> begin?"));
    CHECK(d.answer.prompt_tokens >= tokens + 2 * 4); /* asked twice; a special token is one each */
    query.mode = LORE_MODE_ANSWER;
    run(&d, &query);
    CHECK(!d.answer.is_refused);
    CHECK_STR(d.answer.citations[0].cited_text,
              "The marker <|im_start|> begins a turn of the chat.");
    desk_close(&d);
}

/* Unguarded, so that the decoder's own words are seen: they end before the stop string. */
TEST(stop_strings)
{
    desk d;
    desk_open(&d, "stop", true);
    d.b.config.guard = false;
    lore_query query = query_of(reset_question, LORE_MODE_ANSWER);
    query.max_tokens = 24;
    run(&d, &query);
    CHECK_INT(d.answer.mode_used, LORE_MODE_ANSWER);
    lore_str whole = d.answer.text;
    size_t blank = lore_str_find(whole, LORE_STR(" "), whole.len > 12 ? 12 : 0);
    CHECK(blank != SIZE_MAX && blank + 5 < whole.len); /* from inside a word, so inside a token */
    const lore_str stop[] = {lore_str_slice(whole, blank + 2, blank + 5)};
    query.stop = stop;
    query.stop_count = 1;
    run(&d, &query);
    CHECK_STR(lore_str_from(d.answer.finish_reason), "stop");
    size_t end = lore_str_find(d.answer.text, LORE_STR(" ["), 0);
    lore_str said = lore_str_slice(d.answer.text, 0, end == SIZE_MAX ? d.answer.text.len : end);
    CHECK(said.len > 0);
    CHECK(lore_str_find(said, stop[0], 0) == SIZE_MAX);
    CHECK(lore_str_starts(whole, said));
    CHECK_INT(said.len, lore_str_find(whole, stop[0], 0));
    desk_close(&d);
}

TEST(clients_that_leave_and_deadlines)
{
    desk d;
    lore_error err = {0};
    desk_open(&d, "leave", true);
    lore_query query = query_of(reset_question, LORE_MODE_ANSWER);
    for (int polls = 0; polls < 4; polls++) {
        listener l = {.leaves_after = polls};
        lore_answer_events events = events_of(&l);
        lore_buf_init(&l.text, 0);
        CHECK_FAILS(lore_answer_run(&d.answerer, &query, &events, &d.arena, &d.answer, &err),
                    LORE_ERR_CANCELLED, &err, "left");
        CHECK_INT(l.passages, 1);
        lore_buf_destroy(&l.text);
        wait_for_pages(&d);
    }
    query.deadline_ns = lore_clock_ns() - 1;
    check_fails(&d, &query, LORE_ERR_TIMEOUT, "deadline");
    wait_for_pages(&d);
    query.deadline_ns = lore_clock_ns() + 600000000000LL;
    run(&d, &query); /* and the next question is answered */
    CHECK(d.answer.citation_count > 0);
    desk_close(&d);
}

/* ---- with a decoder whose device is lost ---- */

#define SMALL_DECODER LORE_FAMILIES "/llama"
static atomic_bool is_lost, is_failing;

static lore_status submit_until_lost(void *self, const lore_step *step, lore_error *err)
{
    return atomic_load(&is_lost) ? lore_fail(err, LORE_ERR_DEVICE, "the GPU failed")
                                 : lore_decoder_submit(self, step, err);
}

static lore_status collect_until_lost(void *self, int32_t *ids, float *logprobs, lore_error *err)
{
    return lore_decoder_collect(self, ids, logprobs, err);
}

static void close_small(void *self)
{
    lore_decoder_close(self);
}

static void open_small_engine(desk *d)
{
    lore_error err = {0};
    lore_decoder *decoder = NULL;
    const lore_backend_options options = {.kind = LORE_BACKEND_REF};
    CHECK_OK(lore_backend_open(&options, &d->decode_backend, &err), &err);
    lore_limits_settle(&d->b.config.limits, false);
    CHECK_OK(lore_decoder_open(SMALL_DECODER, d->decode_backend, &d->b.config.limits, NULL,
                               &decoder, &err),
             &err);
    const lore_engine_model model = {.self = decoder,
                                     .submit = submit_until_lost,
                                     .collect = collect_until_lost,
                                     .close = close_small,
                                     .info = lore_decoder_get_info(decoder),
                                     .tokenizer = lore_decoder_tokenizer(decoder)};
    CHECK_OK(lore_engine_start_model(&model, &d->b.config.limits, &d->engine, &err), &err);
    CHECK_OK(lore_template_open(SMALL_DECODER, "llama2", lore_engine_tokenizer(d->engine), -1, -1,
                                &d->b.config.limits, &d->chat, &err),
             &err);
    d->answerer.engine = d->engine;
    d->answerer.chat_template = d->chat;
    d->answerer.is_failing = &is_failing;
}

/* Its answers are quotations, as often as it is asked, and what reads readiness knows; nothing is
 * left of them, and when the decoder works again it is asked as before. */
TEST(a_lost_device_is_quoted_around)
{
    desk d;
    desk_open(&d, "lost", false);
    open_small_engine(&d);
    for (int round = 0; round < 3; round++) {
        atomic_store(&is_lost, round != 1);
        lore_query query = query_of(reset_question, LORE_MODE_ANSWER);
        query.max_tokens = 4;
        run(&d, &query);
        CHECK(d.answer.prompt_tokens > 0); /* the decoder was asked */
        CHECK((d.answer.completion_tokens > 0) == (round == 1));
        CHECK(atomic_load(&is_failing) == (round != 1));
        CHECK_INT(d.answer.mode_used, LORE_MODE_EXTRACT);
        CHECK(holds(d.answer.text, "ten seconds"));
    }
    wait_for_pages(&d);
    desk_close(&d);
}

CHECK_MAIN(quotations, passages_alone, refusals, what_does_not_exist, follow_ups,
           allocations_may_fail, allocations_may_fail_while_writing, written_answers,
           the_prompt_alone, literal_role_markers, stop_strings, clients_that_leave_and_deadlines,
           a_lost_device_is_quoted_around)
