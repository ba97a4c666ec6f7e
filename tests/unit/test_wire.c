/* The objects of the contract have their fields, errors their status, type and param; a buffer that
 * cannot grow says so. */
#include "api/wire.h"

#include "tests/check.h"

static lore_json *parsed(const lore_buf *text)
{
    lore_json *root = NULL;
    lore_error err;
    CHECK(!lore_buf_failed(text));
    CHECK_OK(lore_json_parse(lore_buf_str(text), 32, &root, &err), &err);
    return root;
}

static void fill_answer(lore_answer *answer, lore_hit *hit, lore_citation *citation)
{
    *hit = (lore_hit){.chunk = {.row = 7,
                                .document_id = LORE_STR("d\"1"),
                                .collection = LORE_STR("default"),
                                .title = LORE_STR("Reset"),
                                .heading = LORE_STR("A > B"),
                                .source = LORE_STR("kb/reset.md"),
                                .metadata = LORE_STR("{\"product\":\"R2\"}"),
                                .text = LORE_STR("Hold it.\nThen wait."),
                                .start = 96,
                                .end = 115},
                      .score = 0.5F,
                      .dense = 0.25F,
                      .lexical = NAN,
                      .rerank = NAN};
    *citation = (lore_citation){1, 0, 8, 0, 96, 104, LORE_STR("Hold it.")};
    *answer = (lore_answer){.id = "q_1",
                            .created = 1790000000,
                            .question = LORE_STR("How?"),
                            .text = LORE_STR("Hold it. [1]"),
                            .mode = LORE_MODE_ANSWER,
                            .mode_used = LORE_MODE_EXTRACT,
                            .hits = {.items = hit, .count = 1},
                            .citations = citation,
                            .citation_count = 1,
                            .model = "tiny",
                            .prompt_name = "default",
                            .finish_reason = "stop",
                            .prompt_tokens = 10,
                            .completion_tokens = 4,
                            .cached_tokens = 8,
                            .total_ms = 1.23456};
}

TEST(an_answer_has_the_fields_of_the_contract)
{
    lore_answer answer;
    lore_hit hit;
    lore_citation citation;
    lore_buf out;
    fill_answer(&answer, &hit, &citation);
    lore_buf_init(&out, 0);
    lore_wire_answer(&answer, true, &out);
    lore_json *root = parsed(&out);
    static const char *const KEYS[] = {"id",        "object",        "created",   "model",
                                       "adapter",   "answer",        "refused",   "mode",
                                       "mode_used", "query_used",    "citations", "passages",
                                       "prompt",    "finish_reason", "usage",     "timings_ms"};
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        CHECK(lore_json_get(root, KEYS[i]) != NULL);
    }
    CHECK_STR(lore_json_str(lore_json_get(root, "object")), "lore.answer");
    CHECK_STR(lore_json_str(lore_json_get(root, "mode_used")), "extract");
    const lore_json *usage = lore_json_get(root, "usage");
    CHECK_INT(lore_json_number(lore_json_get(usage, "total_tokens")), 14);
    CHECK_INT(lore_json_number(lore_json_get(usage, "cached_tokens")), 8);
    const lore_json *passage = lore_json_first(lore_json_get(root, "passages"));
    CHECK_STR(lore_json_str(lore_json_get(passage, "chunk_id")), "c_7");
    CHECK_STR(lore_json_str(lore_json_get(passage, "document_id")), "d\"1");
    const lore_json *scores = lore_json_get(passage, "scores");
    CHECK(lore_json_is_null(lore_json_get(scores, "lexical")));
    CHECK(lore_json_is_object(lore_json_get(passage, "metadata")));
    const lore_json *cited = lore_json_first(lore_json_get(root, "citations"));
    CHECK_INT(lore_json_number(lore_json_get(cited, "end")), 104);
    CHECK_STR(lore_json_str(lore_json_get(cited, "cited_text")), "Hold it.");
    CHECK_NEAR(lore_json_number(lore_json_get(lore_json_get(root, "timings_ms"), "total")), 1.235,
               1e-6);
    lore_json_free(root);
    lore_buf_reset(&out);
    lore_wire_answer(&answer, false, &out);
    root = parsed(&out);
    CHECK(lore_json_get(root, "passages") == NULL);
    lore_json_free(root);
    lore_buf_reset(&out);
    lore_wire_retrieval(&answer, &out);
    root = parsed(&out);
    CHECK_INT(lore_json_count(lore_json_get(root, "passages")), 1);
    lore_json_free(root);
    lore_buf_destroy(&out);
}

/* A reply speaks of reranking only where there is a reranker, and says why it did not decide. */
TEST(reranking_is_told)
{
    static const struct {
        lore_rerank_state state;
        const char *reason;
    } CASES[] = {{LORE_RERANK_OFF, NULL},
                 {LORE_RERANK_DONE, NULL},
                 {LORE_RERANK_LATE, "deadline"},
                 {LORE_RERANK_FAILED, "error"}};
    lore_answer answer;
    lore_hit hit;
    lore_citation citation;
    fill_answer(&answer, &hit, &citation);
    for (size_t i = 0; i < 2 * sizeof CASES / sizeof CASES[0]; i++) {
        lore_buf out;
        bool is_on = CASES[i / 2].state != LORE_RERANK_OFF;
        bool is_done = CASES[i / 2].state == LORE_RERANK_DONE;
        answer.hits.rerank = CASES[i / 2].state;
        hit.rerank = is_done ? 0.75F : NAN;
        lore_buf_init(&out, 0);
        if (i % 2 == 0) {
            lore_wire_answer(&answer, true, &out);
        } else {
            lore_wire_retrieval(&answer, &out);
        }
        lore_json *root = parsed(&out);
        const lore_json *reranked = lore_json_get(root, "reranked");
        CHECK(lore_json_is_bool(reranked) == is_on && lore_json_bool(reranked) == is_done);
        CHECK((lore_json_get(root, "rerank_reason") != NULL) == (CASES[i / 2].reason != NULL));
        CHECK(CASES[i / 2].reason == NULL ||
              lore_str_equal(lore_json_str(lore_json_get(root, "rerank_reason")),
                             lore_str_from(CASES[i / 2].reason)));
        CHECK((lore_json_get(lore_json_get(root, "timings_ms"), "rerank") != NULL) == is_on);
        const lore_json *passage = lore_json_first(lore_json_get(root, "passages"));
        const lore_json *score = lore_json_get(lore_json_get(passage, "scores"), "rerank");
        CHECK(lore_json_is_null(score) == !is_done);
        lore_json_free(root);
        lore_buf_destroy(&out);
    }
}

/* An event is one line: whatever a document holds, no line end may get out. */
TEST(objects_are_one_line)
{
    lore_answer answer;
    lore_hit hit;
    lore_citation citation;
    lore_buf out;
    fill_answer(&answer, &hit, &citation);
    lore_buf_init(&out, 0);
    lore_wire_passages(&answer, &out);
    lore_wire_citation(&answer, &citation, &out);
    CHECK(!lore_buf_failed(&out));
    CHECK_INT(lore_str_find(lore_buf_str(&out), LORE_STR("\n"), 0) == SIZE_MAX, 1);
    lore_buf_destroy(&out);
}

static lore_str param_of(const char *message, lore_status status, lore_buf *out)
{
    static char room[128];
    lore_error error;
    lore_fail(&error, status, "%s", message);
    lore_buf_reset(out);
    (void)lore_wire_error(&error, out);
    lore_json *root = parsed(out);
    lore_str param = lore_json_str(lore_json_get(lore_json_get(root, "error"), "param"));
    snprintf(room, sizeof room, LORE_STR_FMT, LORE_STR_ARG(param));
    lore_json_free(root);
    return lore_str_from(room);
}

TEST(errors_name_their_field)
{
    lore_buf out;
    lore_buf_init(&out, 0);
    CHECK_STR(param_of("top_k must be a number", LORE_ERR_INVALID, &out), "top_k");
    CHECK_STR(param_of("presence_penalty is 3, must be -2 to 2", LORE_ERR_INVALID, &out),
              "presence_penalty");
    CHECK_STR(param_of("history[2].role must be", LORE_ERR_INVALID, &out), "history[2].role");
    CHECK_STR(param_of("filter.filters[1].key is", LORE_ERR_INVALID, &out),
              "filter.filters[1].key");
    CHECK_STR(param_of("body: JSON at byte 3", LORE_ERR_INVALID, &out), "body");
    CHECK_STR(param_of("question has 9000 bytes", LORE_ERR_LIMIT, &out), "question");
    CHECK_STR(param_of("cannot open it", LORE_ERR_INVALID, &out), "");
    CHECK_STR(param_of("topmost things", LORE_ERR_INVALID, &out), "");
    CHECK_STR(param_of("question is fine but the disk is full", LORE_ERR_IO, &out), "");
    CHECK_STR(param_of("", LORE_ERR_INVALID, &out), "");
    CHECK_STR(param_of("id", LORE_ERR_INVALID, &out), "");
    lore_buf_destroy(&out);
}

TEST(statuses_are_those_of_the_contract)
{
    CHECK_INT(lore_wire_status(LORE_OK), 200);
    CHECK_INT(lore_wire_status(LORE_ERR_INVALID), 400);
    CHECK_INT(lore_wire_status(LORE_ERR_NOT_FOUND), 404);
    CHECK_INT(lore_wire_status(LORE_ERR_LIMIT), 413);
    CHECK_INT(lore_wire_status(LORE_ERR_BUSY), 429);
    CHECK_INT(lore_wire_status(LORE_ERR_CANCELLED), 503);
    CHECK_INT(lore_wire_status(LORE_ERR_TIMEOUT), 504);
    CHECK_INT(lore_wire_status(LORE_ERR_IO), 500);
}

TEST(a_buffer_at_its_cap_is_told)
{
    lore_answer answer;
    lore_hit hit;
    lore_citation citation;
    lore_buf out;
    fill_answer(&answer, &hit, &citation);
    lore_buf_init(&out, 100);
    lore_wire_answer(&answer, true, &out);
    CHECK(lore_buf_failed(&out));
    lore_buf_destroy(&out);
}

CHECK_MAIN(an_answer_has_the_fields_of_the_contract, reranking_is_told, objects_are_one_line,
           errors_name_their_field, statuses_are_those_of_the_contract, a_buffer_at_its_cap_is_told)
