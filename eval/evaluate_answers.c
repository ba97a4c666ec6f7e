/* Answers: see evaluate.h. */
#include "eval/evaluate_int.h"

#include "base/clock.h"
#include "eval/wording.h"

enum {
    EXACT_MATCH,
    F1,
    ROUGE_L,
    ANSWER_IN_OUTPUT,
    PASSAGE_RECALL,
    CITATION_RECALL,
    CITATION_PRECISION,
    CITATION_VERIFIED,
    REFUSAL_PRECISION,
    REFUSAL_RECALL,
    REFUSAL_F1,
    FIGURES
};

/* The words of an expected answer stand in the text, which is of the named document. */
static lore_status supports(const lore_topic *topic, const lore_chunk *chunk, lore_str text,
                            lore_arena *arena, bool *is_supporting, lore_error *err)
{
    lore_wording wording = {0};
    *is_supporting = false;
    if (topic->document.len > 0 && !lore_str_equal(chunk->document_id, topic->document) &&
        !lore_str_ends(chunk->source, topic->document)) {
        return LORE_OK;
    }
    lore_status status =
        lore_wording_compare(text, topic->answers, topic->answer_count, arena, &wording, err);
    *is_supporting = wording.is_held;
    return status;
}

/* Bytes of the stored document at the citation's place are the cited text. */
static lore_status verify(const lore_evaluation *evaluation, const lore_answer *answer,
                          const lore_citation *citation, lore_arena *arena, bool *is_verified,
                          lore_error *err)
{
    lore_document_info document = {0};
    lore_status status = lore_index_get_document(
        evaluation->answerer->retriever.index, evaluation->collection,
        answer->hits.items[citation->hit].chunk.document_id, true, arena, &document, err);
    if (status == LORE_OK) {
        *is_verified = citation->start <= citation->end && citation->end <= document.text.len &&
                       lore_str_equal(lore_str_slice(document.text, citation->start, citation->end),
                                      citation->cited_text);
    }
    return status;
}

static lore_status score_citations(const lore_evaluation *evaluation, const lore_topic *topic,
                                   const lore_answer *answer, lore_arena *arena, lore_cell *cells,
                                   lore_error *err)
{
    lore_status status = LORE_OK;
    double supporting = 0.0;
    for (int32_t i = 0; i < answer->citation_count && status == LORE_OK; i++) {
        const lore_citation *citation = &answer->citations[i];
        bool is_verified = false, is_supporting = false;
        status = verify(evaluation, answer, citation, arena, &is_verified, err);
        if (status == LORE_OK) {
            status = supports(topic, &answer->hits.items[citation->hit].chunk, citation->cited_text,
                              arena, &is_supporting, err);
        }
        cells[CITATION_VERIFIED].sum += is_verified;
        cells[CITATION_VERIFIED].count += 1.0;
        supporting += is_supporting;
    }
    if (topic->answer_count > 0) {
        cells[CITATION_PRECISION] = (lore_cell){supporting, (double)answer->citation_count};
        cells[CITATION_RECALL] = (lore_cell){supporting > 0.0 ? 1.0 : 0.0, 1.0};
    }
    return status;
}

static lore_status score_words(const lore_topic *topic, const lore_answer *answer,
                               lore_arena *arena, lore_cell *cells, lore_error *err)
{
    lore_wording wording = {0};
    lore_status status = LORE_OK;
    lore_str text = lore_wording_unmarked(answer->text, answer->hits.count, arena);
    if (text.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for an answer");
    }
    if (!answer->is_refused) {
        status =
            lore_wording_compare(text, topic->answers, topic->answer_count, arena, &wording, err);
    }
    cells[EXACT_MATCH] = (lore_cell){wording.exact, 1.0};
    cells[F1] = (lore_cell){wording.f1, 1.0};
    cells[ROUGE_L] = (lore_cell){wording.rouge_l, 1.0};
    cells[ANSWER_IN_OUTPUT] = (lore_cell){wording.is_held ? 1.0 : 0.0, 1.0};
    bool is_found = false;
    for (int32_t i = 0; i < answer->hits.count && !is_found && status == LORE_OK; i++) {
        const lore_chunk *chunk = &answer->hits.items[i].chunk;
        status = supports(topic, chunk, chunk->text, arena, &is_found, err);
    }
    cells[PASSAGE_RECALL] = (lore_cell){is_found ? 1.0 : 0.0, 1.0};
    return status;
}

/* Sums over questions give precision, recall and F1 of "refused" against "has no answer". */
static void score_refusal(const lore_topic *topic, bool is_refused, lore_cell *cells)
{
    double is_wanted = topic->answer_count == 0 ? 1.0 : 0.0;
    double is_given = is_refused ? 1.0 : 0.0;
    cells[REFUSAL_PRECISION] = (lore_cell){is_wanted * is_given, is_given};
    cells[REFUSAL_RECALL] = (lore_cell){is_wanted * is_given, is_wanted};
    cells[REFUSAL_F1] = (lore_cell){2.0 * is_wanted * is_given, is_wanted + is_given};
}

static lore_status answer_one(lore_evaluation *evaluation, const lore_topic *topic,
                              lore_arena *arena, lore_cell *cells, lore_error *err)
{
    const lore_config *config = evaluation->answerer->config;
    lore_query query = {.question = topic->text,
                        .collections = &evaluation->collection,
                        .collection_count = 1,
                        .mode = evaluation->mode,
                        .sampling = {.top_p = 1.0F, .seed = 1}};
    const lore_answer_events events = {.self = evaluation->self, .is_gone = evaluation->is_stopped};
    lore_answer answer = {0};
    query.deadline_ns = lore_clock_ns() + config->limits.request_timeout_ms * 1000000;
    lore_status status =
        lore_answer_run(evaluation->answerer, &query, &events, arena, &answer, err);
    if (status == LORE_OK) {
        evaluation->rerank_missed +=
            answer.hits.rerank == LORE_RERANK_LATE || answer.hits.rerank == LORE_RERANK_FAILED;
        score_refusal(topic, answer.is_refused, cells);
        status = score_citations(evaluation, topic, &answer, arena, cells, err);
    }
    if (status == LORE_OK && topic->answer_count > 0) {
        status = score_words(topic, &answer, arena, cells, err);
    }
    return status == LORE_OK
               ? LORE_OK
               : lore_error_prefix(err, "question '" LORE_STR_FMT "'", LORE_STR_ARG(topic->id));
}

lore_status lore_evaluate_answers(lore_evaluation *evaluation, const lore_topics *topics,
                                  lore_arena *arena, lore_table *table, lore_error *err)
{
    static const char *const NAMES[FIGURES] = {
        [EXACT_MATCH] = "exact_match",
        [F1] = "f1",
        [ROUGE_L] = "rouge_l",
        [ANSWER_IN_OUTPUT] = "answer_in_output",
        [PASSAGE_RECALL] = "passage_recall",
        [CITATION_RECALL] = "citation_recall",
        [CITATION_PRECISION] = "citation_precision",
        [CITATION_VERIFIED] = "citation_verified",
        [REFUSAL_PRECISION] = "refusal_precision",
        [REFUSAL_RECALL] = "refusal_recall",
        [REFUSAL_F1] = "refusal_f1",
    };
    lore_str figures[FIGURES];
    lore_arena scratch;
    for (int32_t f = 0; f < FIGURES; f++) {
        figures[f] = lore_str_from(NAMES[f]);
    }
    lore_status status = lore_table_new(figures, FIGURES, topics->count, arena, table, err);
    lore_arena_init(&scratch, 0);
    for (int32_t t = 0; t < topics->count && status == LORE_OK; t++) {
        table->ids[t] = topics->items[t].id;
        status = lore_evaluation_pause(evaluation, t, topics->count, err);
        if (status == LORE_OK) {
            status =
                answer_one(evaluation, &topics->items[t], &scratch, lore_table_row(table, t), err);
        }
        lore_arena_reset(&scratch);
    }
    lore_arena_destroy(&scratch);
    return status;
}
