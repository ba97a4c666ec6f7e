/* Rankings: see evaluate.h. Answers are in evaluate_answers.c. */
#include "eval/evaluate.h"

#include "eval/evaluate_int.h"
#include "eval/ranking.h"

enum {
    CUT = 10,
    DEEP_CUT = 100,
    FIT_PASSAGES = 30 /* enough for ten documents where some have several passages */
};

lore_status lore_evaluation_pause(const lore_evaluation *evaluation, int32_t done, int32_t total,
                                  lore_error *err)
{
    if (evaluation->is_stopped != NULL && evaluation->is_stopped(evaluation->self)) {
        return lore_fail(err, LORE_ERR_CANCELLED, "interrupted after %d of %d questions", done,
                         total);
    }
    if (evaluation->progress != NULL) {
        evaluation->progress(evaluation->self, done, total);
    }
    return LORE_OK;
}

static lore_status check_documents(lore_evaluation *evaluation, const lore_topics *topics,
                                   lore_error *err)
{
    int64_t relevant = 0;
    evaluation->absent = 0;
    for (int32_t t = 0; t < topics->count; t++) {
        const lore_topic *topic = &topics->items[t];
        for (int32_t j = 0; j < topic->judgement_count; j++) {
            uint8_t hash[32];
            bool found = false;
            if (topic->judgements[j].grade <= 0) {
                continue;
            }
            relevant++;
            lore_status status = lore_index_document_hash(
                evaluation->answerer->retriever.index, evaluation->collection,
                topic->judgements[j].document, hash, &found, err);
            if (status != LORE_OK) {
                return status;
            }
            evaluation->absent += !found;
        }
    }
    return evaluation->absent < relevant
               ? LORE_OK
               : lore_fail(err, LORE_ERR_NOT_FOUND,
                           "collection '" LORE_STR_FMT "' has none of the documents that are "
                           "judged relevant: ingest them under their own ids first",
                           LORE_STR_ARG(evaluation->collection));
}

/* The documents of the hits, each once, best first. */
static int32_t list_documents(const lore_hits *hits, lore_str *documents)
{
    int32_t count = 0;
    for (int32_t i = 0; i < hits->count; i++) {
        int32_t d = 0;
        while (d < count && !lore_str_equal(documents[d], hits->items[i].chunk.document_id)) {
            d++;
        }
        documents[d] = hits->items[i].chunk.document_id;
        count += d == count;
    }
    return count;
}

static lore_status rank(const lore_topic *topic, const lore_hits *hits, lore_arena *arena,
                        lore_str **documents, int32_t **grades, int32_t *count, lore_error *err)
{
    *documents = LORE_PUSH(arena, lore_str, hits->count);
    *grades = LORE_PUSH(arena, int32_t, hits->count);
    if (*documents == NULL || *grades == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a ranking of %d passages",
                         hits->count);
    }
    *count = list_documents(hits, *documents);
    lore_ranking_grades(topic, *documents, *count, *grades);
    return LORE_OK;
}

static lore_retrieve_options options_for(const lore_evaluation *evaluation, int32_t passages)
{
    return (lore_retrieve_options){
        .search = {.collections = &evaluation->collection, .collection_count = 1},
        .hits_max = passages,
        .tuning = {-1.0, 0.0}};
}

/* Scores fall by one from rank to rank, so that tools that sort by them keep the order. */
static void write_run(const lore_topic *topic, const lore_str *documents, int32_t count,
                      lore_buf *run)
{
    for (int32_t i = 0; i < count; i++) {
        lore_buf_append(run, topic->id);
        lore_buf_append(run, LORE_STR("\tQ0\t"));
        lore_buf_append(run, documents[i]);
        lore_buf_printf(run, "\t%d\t%d\tlore\n", i + 1, count - i);
    }
}

static lore_status rank_one(lore_evaluation *evaluation, const lore_topic *topic, lore_arena *arena,
                            lore_cell *cells, lore_buf *run, lore_error *err)
{
    const lore_retriever *retriever = &evaluation->answerer->retriever;
    const lore_retrieve_options options = options_for(evaluation, evaluation->depth);
    lore_hits hits = {0};
    lore_str *documents = NULL;
    int32_t *grades = NULL;
    int32_t count = 0;
    lore_status status = lore_retrieve(retriever, topic->text, &options, arena, &hits, err);
    if (status == LORE_OK) {
        status = rank(topic, &hits, arena, &documents, &grades, &count, err);
    }
    if (status != LORE_OK) {
        return lore_error_prefix(err, "query '" LORE_STR_FMT "'", LORE_STR_ARG(topic->id));
    }
    evaluation->rerank_missed +=
        hits.rerank == LORE_RERANK_LATE || hits.rerank == LORE_RERANK_FAILED;
    cells[0] = (lore_cell){lore_ranking_ndcg(topic, grades, count, CUT), 1.0};
    cells[1] = (lore_cell){lore_ranking_recall(topic, grades, count, CUT), 1.0};
    cells[2] = (lore_cell){lore_ranking_recall(topic, grades, count, DEEP_CUT), 1.0};
    cells[3] = (lore_cell){lore_ranking_reciprocal(grades, count, CUT), 1.0};
    cells[4] = (lore_cell){lore_ranking_average_precision(topic, grades, count), 1.0};
    if (run != NULL) {
        write_run(topic, documents, count, run);
    }
    return LORE_OK;
}

lore_status lore_evaluate_retrieval(lore_evaluation *evaluation, const lore_topics *topics,
                                    lore_arena *arena, lore_table *table, lore_buf *run,
                                    lore_error *err)
{
    const lore_str figures[] = {LORE_STR("ndcg@10"), LORE_STR("recall@10"), LORE_STR("recall@100"),
                                LORE_STR("mrr@10"), LORE_STR("map")};
    lore_arena scratch;
    lore_status status = lore_table_new(figures, sizeof figures / sizeof figures[0], topics->count,
                                        arena, table, err);
    if (status == LORE_OK) {
        status = check_documents(evaluation, topics, err);
    }
    lore_arena_init(&scratch, 0);
    for (int32_t t = 0; t < topics->count && status == LORE_OK; t++) {
        table->ids[t] = topics->items[t].id;
        status = lore_evaluation_pause(evaluation, t, topics->count, err);
        if (status == LORE_OK) {
            status = rank_one(evaluation, &topics->items[t], &scratch, lore_table_row(table, t),
                              run, err);
        }
        lore_arena_reset(&scratch);
    }
    lore_arena_destroy(&scratch);
    if (status == LORE_OK && run != NULL && lore_buf_failed(run)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for the run file");
    }
    return status;
}

/* ---- weights ---- */

static lore_status score_weights(const lore_evaluation *evaluation, const lore_topic *topic,
                                 const lore_tuning *tunings, lore_arena *arena, double *scores,
                                 lore_error *err)
{
    const lore_retriever *retriever = &evaluation->answerer->retriever;
    const lore_retrieve_options options = options_for(evaluation, FIT_PASSAGES);
    lore_hits hits[LORE_FIT_TRIED];
    lore_status status = lore_retrieve_tunings(retriever, topic->text, &options, tunings,
                                               LORE_FIT_TRIED, arena, hits, err);
    for (int32_t w = 0; w < LORE_FIT_TRIED && status == LORE_OK; w++) {
        lore_str *documents = NULL;
        int32_t *grades = NULL;
        int32_t count = 0;
        status = rank(topic, &hits[w], arena, &documents, &grades, &count, err);
        if (status == LORE_OK) {
            scores[w] = lore_ranking_ndcg(topic, grades, count, CUT);
        }
    }
    return status == LORE_OK
               ? LORE_OK
               : lore_error_prefix(err, "query '" LORE_STR_FMT "'", LORE_STR_ARG(topic->id));
}

static void fill_weights_table(const double *scores, const double *fitted,
                               const lore_topics *topics, lore_table *table)
{
    for (int32_t t = 0; t < topics->count; t++) {
        const double *row = scores + (size_t)t * LORE_FIT_TRIED;
        lore_cell *cells = lore_table_row(table, t);
        table->ids[t] = topics->items[t].id;
        cells[0] = (lore_cell){row[0], 1.0};
        cells[1] = (lore_cell){row[LORE_FIT_WEIGHTS - 1], 1.0};
        cells[2] = (lore_cell){row[LORE_FIT_STEPS], 1.0};
        cells[3] = (lore_cell){fitted[t], 1.0};
    }
}

lore_status lore_evaluate_weights(lore_evaluation *evaluation, const lore_topics *topics,
                                  lore_arena *arena, lore_table *table, lore_fit *fit,
                                  lore_error *err)
{
    const lore_str figures[] = {LORE_STR("lexical_ndcg@10"), LORE_STR("dense_ndcg@10"),
                                LORE_STR("configured_ndcg@10"), LORE_STR("fitted_ndcg@10")};
    const lore_config *config = evaluation->answerer->config;
    const lore_tuning configured = {config->fusion_weight, config->expansion};
    lore_tuning tunings[LORE_FIT_TRIED];
    lore_arena scratch;
    if (topics->count < LORE_FIT_QUERIES_MIN) {
        return lore_fail(err, LORE_ERR_INVALID, "a tuning needs %d judged questions, not %d",
                         LORE_FIT_QUERIES_MIN, topics->count);
    }
    double *scores = LORE_PUSH(arena, double, (size_t)topics->count *LORE_FIT_TRIED);
    double *fitted = LORE_PUSH(arena, double, topics->count);
    if (scores == NULL || fitted == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d questions", topics->count);
    }
    lore_status status = lore_table_new(figures, sizeof figures / sizeof figures[0], topics->count,
                                        arena, table, err);
    lore_fit_tunings(configured, tunings);
    if (status == LORE_OK) {
        status = check_documents(evaluation, topics, err);
    }
    lore_arena_init(&scratch, 0);
    for (int32_t t = 0; t < topics->count && status == LORE_OK; t++) {
        status = lore_evaluation_pause(evaluation, t, topics->count, err);
        if (status == LORE_OK) {
            status = score_weights(evaluation, &topics->items[t], tunings, &scratch,
                                   scores + (size_t)t * LORE_FIT_TRIED, err);
        }
        lore_arena_reset(&scratch);
    }
    lore_arena_destroy(&scratch);
    if (status == LORE_OK) {
        lore_fit_choose(scores, topics->count, configured, fitted, fit);
        fill_weights_table(scores, fitted, topics, table);
    }
    return status;
}
