/* lore eval: how good a collection's rankings and answers are, on questions whose answers are
 * known; and the fusion weight that suits it.
 *
 * The data folder is read as `lore query` reads it, also while a server holds it; only a fitted
 * weight is written, by the server where there is one. */
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/eval_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BASELINE_BYTES_MAX = 256 << 20, RESAMPLES = 2000, DEPTH = 100 };

typedef struct eval_run {
    lore_cli *cli;
    const char *collection, *qrels, *split, *qa, *mode;
    const char *baseline, *per_query, *run;
    lore_flag_list fail_below, fail_drop;
    int64_t depth, resamples;
    bool is_fitting;
    bool is_terminal;
    lore_app app;
    lore_str server; /* empty: none holds the folder */
    lore_topics topics;
    lore_evaluation evaluation;
    lore_table table;
    lore_fit fit;
    lore_buf rankings; /* for --run */
    lore_eval_report report;
} eval_run;

enum { EVAL_FLAGS = 13 };

static void list_flags(eval_run *run, lore_flag flags[EVAL_FLAGS])
{
    const lore_flag rows[EVAL_FLAGS] = {
        {"collection", 'c', LORE_FLAG_TEXT, &run->collection, "NAME", "ask this one (default)", 0,
         0},
        {"qrels", 0, LORE_FLAG_TEXT, &run->qrels, "DIR",
         "rankings: a BEIR or TREC folder of questions and judgements", 0, 0},
        {"split", 0, LORE_FLAG_TEXT, &run->split, "NAME", "qrels/NAME.tsv of the folder (test)", 0,
         0},
        {"qa", 0, LORE_FLAG_TEXT, &run->qa, "FILE", "answers: JSON Lines of questions and answers",
         0, 0},
        {"mode", 'm', LORE_FLAG_TEXT, &run->mode, "MODE", "of answers: answer (default), extract",
         0, 0},
        {"depth", 0, LORE_FLAG_INTEGER, &run->depth, "N", "passages of a ranking (100)", 1, 1000},
        {"fit", 0, LORE_FLAG_SWITCH, &run->is_fitting, NULL,
         "try tunings of the search, store the best with the collection", 0, 0},
        {"resamples", 0, LORE_FLAG_INTEGER, &run->resamples, "N", "of the bootstrap (2000)", 1,
         100000},
        {"per-query", 0, LORE_FLAG_TEXT, &run->per_query, "FILE",
         "write the figures of each question", 0, 0},
        {"run", 0, LORE_FLAG_TEXT, &run->run, "FILE", "write the rankings as a TREC run", 0, 0},
        {"baseline", 0, LORE_FLAG_TEXT, &run->baseline, "FILE",
         "compare with a --per-query file, question by question", 0, 0},
        {"fail-below", 0, LORE_FLAG_LIST, &run->fail_below, "[FIGURE=]X",
         "exit 1 when the figure (ndcg@10, f1) is below X", 0, 0},
        {"fail-drop", 0, LORE_FLAG_LIST, &run->fail_drop, "[FIGURE=]X",
         "exit 1 when it is more than X below the baseline", 0, 0},
    };
    memcpy(flags, rows, sizeof rows);
}

static int check_flags(const eval_run *run, const lore_flag_list *words)
{
    const lore_cli *cli = run->cli;
    if (words->count > 0) {
        return lore_cli_misuse(cli, "eval takes no argument '%s'", words->items[0]);
    }
    if ((run->qrels == NULL) == (run->qa == NULL)) {
        return lore_cli_misuse(cli, "one of --qrels DIR and --qa FILE is needed");
    }
    if (run->qa != NULL && (run->is_fitting || run->run != NULL || run->split != NULL)) {
        return lore_cli_misuse(cli, "--fit, --run and --split need --qrels");
    }
    if (run->is_fitting && run->run != NULL) {
        return lore_cli_misuse(cli, "--fit makes many rankings: --run is for one");
    }
    if (run->qrels != NULL && run->mode != NULL) {
        return lore_cli_misuse(cli, "--mode is of answers: it needs --qa");
    }
    if (run->mode != NULL && strcmp(run->mode, "answer") != 0 &&
        strcmp(run->mode, "extract") != 0) {
        return lore_cli_misuse(cli, "--mode must be answer or extract, not '%s'", run->mode);
    }
    if (run->fail_drop.count > 0 && run->baseline == NULL) {
        return lore_cli_misuse(cli, "--fail-drop needs --baseline");
    }
    return LORE_EXIT_CONTINUE;
}

/* ---- gates ---- */

/* "X" is of the first of these that the table has. */
static int32_t main_figure(const lore_table *table)
{
    const lore_str names[] = {LORE_STR("ndcg@10"), LORE_STR("fitted_ndcg@10"), LORE_STR("f1")};
    int32_t at = -1;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && at < 0; i++) {
        at = lore_table_find(table, names[i]);
    }
    return at;
}

static lore_status add_gates(eval_run *run, const char *flag, const lore_flag_list *list,
                             bool is_drop, lore_error *err)
{
    for (int32_t i = 0; i < list->count; i++) {
        lore_str item = lore_str_from(list->items[i]);
        size_t equals = lore_str_find(item, LORE_STR("="), 0);
        size_t from = equals == SIZE_MAX ? 0 : equals + 1;
        char *end = NULL;
        lore_gate gate = {.figure = main_figure(&run->table), .is_drop = is_drop};
        gate.limit = strtod(list->items[i] + from, &end);
        if (equals != SIZE_MAX) {
            gate.figure = lore_table_find(&run->table, lore_str_slice(item, 0, equals));
        }
        if (gate.figure < 0) {
            return lore_fail(err, LORE_ERR_INVALID, "--%s '%s': this run has no such figure", flag,
                             list->items[i]);
        }
        if (end == list->items[i] + from || *end != '\0' || !isfinite(gate.limit)) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "--%s must be a number or FIGURE=NUMBER, not '%s'", flag,
                             list->items[i]);
        }
        run->report.gates[run->report.gate_count++] = gate;
    }
    return LORE_OK;
}

static lore_status make_gates(eval_run *run, lore_error *err)
{
    run->report.gates =
        LORE_PUSH(&run->cli->arena, lore_gate, run->fail_below.count + run->fail_drop.count);
    if (run->report.gates == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the gates");
    }
    lore_status status = add_gates(run, "fail-below", &run->fail_below, false, err);
    return status == LORE_OK ? add_gates(run, "fail-drop", &run->fail_drop, true, err) : status;
}

/* ---- asking ---- */

static bool is_stopped(void *self)
{
    (void)self;
    return lore_cli_is_interrupted();
}

static void show_progress(void *self, int32_t done, int32_t total)
{
    const eval_run *run = self;
    if (run->is_terminal && done % 20 == 0) {
        fprintf(stderr, "\r\033[K%d/%d questions", done, total);
    }
}

static lore_status read_topics(eval_run *run, lore_error *err)
{
    const lore_limits *limits = &run->cli->config.limits;
    lore_arena *arena = &run->cli->arena;
    return run->qrels != NULL
               ? lore_topics_read_folder(run->qrels, run->split, limits, arena, &run->topics, err)
               : lore_topics_read_answers(run->qa, limits, arena, &run->topics, err);
}

static lore_status open_app(eval_run *run, lore_error *err)
{
    run->server = lore_cli_server(run->cli, &run->cli->arena);
    lore_app_needs needs = {.embedder = true, .reranker = true, .index = true};
    needs.index_writer = run->is_fitting && run->server.len == 0;
    needs.engine = run->qa != NULL && (run->mode == NULL || strcmp(run->mode, "answer") == 0);
    return lore_app_open(&run->cli->config, needs, &run->app, err);
}

static lore_status ask(eval_run *run, lore_error *err)
{
    lore_arena *arena = &run->cli->arena;
    bool is_extract = run->mode != NULL && strcmp(run->mode, "extract") == 0;
    run->evaluation = (lore_evaluation){.answerer = &run->app.answerer,
                                        .collection = lore_str_from(run->collection),
                                        .depth = (int32_t)run->depth,
                                        .mode = is_extract ? LORE_MODE_EXTRACT : LORE_MODE_ANSWER,
                                        .self = run,
                                        .is_stopped = is_stopped,
                                        .progress = show_progress};
    lore_status status =
        run->qa != NULL
            ? lore_evaluate_answers(&run->evaluation, &run->topics, arena, &run->table, err)
        : run->is_fitting
            ? lore_evaluate_weights(&run->evaluation, &run->topics, arena, &run->table, &run->fit,
                                    err)
            : lore_evaluate_retrieval(&run->evaluation, &run->topics, arena, &run->table,
                                      run->run != NULL ? &run->rankings : NULL, err);
    if (run->is_terminal) {
        fputs("\r\033[K", stderr);
    }
    return status;
}

/* ---- the weight ---- */

static lore_status weigh_through_server(eval_run *run, lore_tuning tuning, lore_error *err)
{
    lore_client *client = NULL;
    lore_buf path, body, reply;
    lore_json_writer w;
    int32_t http_status = 0;
    lore_buf_init(&path, 0);
    lore_buf_init(&body, 0);
    lore_buf_init(&reply, 0);
    lore_buf_append(&path, LORE_STR("/collections/"));
    lore_url_encode(lore_str_from(run->collection), &path);
    lore_json_write_begin(&w, &body);
    lore_json_object(&w, NULL);
    lore_json_double(&w, "fusion_weight", tuning.fusion_weight); /* NaN is null: the config's */
    lore_json_double(&w, "expansion", tuning.expansion);
    lore_json_end(&w);
    lore_status status = lore_client_open(run->server, &run->cli->config.limits, &client, err);
    if (status == LORE_OK) {
        status = lore_client_send(client, "PUT", lore_buf_c(&path), "application/json",
                                  lore_buf_str(&body), &reply, &http_status, err);
    }
    if (status == LORE_OK && http_status >= 400) {
        status = lore_client_refusal(&reply, http_status, err);
    }
    lore_client_close(client);
    lore_buf_destroy(&reply);
    lore_buf_destroy(&body);
    lore_buf_destroy(&path);
    return status;
}

/* A weight that is no better on other questions than the configured one is not worth keeping. */
static lore_status store_weight(eval_run *run, lore_error *err)
{
    const lore_tuning usual = {(double)NAN, (double)NAN};
    const lore_tuning tuning = run->fit.is_better ? run->fit.tuning : usual;
    const lore_collection_settings settings = {.has_weight = true,
                                               .has_expansion = true,
                                               .fusion_weight = tuning.fusion_weight,
                                               .expansion = tuning.expansion};
    lore_change change = {.kind = LORE_CHANGE_SET_COLLECTION,
                          .collection = lore_str_from(run->collection),
                          .settings = &settings};
    lore_status status = run->server.len > 0
                             ? weigh_through_server(run, tuning, err)
                             : lore_writer_apply_one(run->app.writer, &change, NULL, err);
    return status == LORE_OK ? LORE_OK : lore_error_prefix(err, "cannot store the weight");
}

/* ---- figures ---- */

static lore_status compare(eval_run *run, lore_error *err)
{
    lore_arena *arena = &run->cli->arena;
    lore_buf bytes;
    lore_table before;
    lore_difference *differences = LORE_PUSH(arena, lore_difference, run->table.figure_count);
    if (differences == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the comparison");
    }
    lore_buf_init(&bytes, 0);
    lore_status status = lore_file_read(run->baseline, BASELINE_BYTES_MAX, &bytes, err);
    if (status == LORE_OK) {
        status = lore_table_parse(lore_buf_str(&bytes), run->baseline, arena, &before, err);
    }
    if (status == LORE_OK) {
        status = lore_table_compare(&before, &run->table, (int32_t)run->resamples, arena,
                                    differences, &run->report.common, err);
    }
    lore_buf_destroy(&bytes);
    run->report.baseline = run->baseline;
    run->report.differences = differences;
    return status;
}

static lore_status estimate(eval_run *run, lore_error *err)
{
    lore_arena *arena = &run->cli->arena;
    lore_estimate *estimates = LORE_PUSH(arena, lore_estimate, run->table.figure_count);
    run->report.collection = run->collection;
    run->report.source = run->qrels != NULL ? run->qrels : run->qa;
    run->report.topics = &run->topics;
    run->report.evaluation = &run->evaluation;
    run->report.table = &run->table;
    run->report.estimates = estimates;
    run->report.fit = run->is_fitting ? &run->fit : NULL;
    run->report.configured =
        (lore_tuning){run->cli->config.fusion_weight, run->cli->config.expansion};
    if (estimates == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the figures");
    }
    lore_status status =
        lore_table_estimate(&run->table, (int32_t)run->resamples, arena, estimates, err);
    return status == LORE_OK && run->baseline != NULL ? compare(run, err) : status;
}

static lore_status write_files(const eval_run *run, lore_error *err)
{
    lore_status status = LORE_OK;
    if (run->run != NULL) {
        status = lore_file_replace(run->run, lore_buf_str(&run->rankings), err);
    }
    if (status == LORE_OK && run->per_query != NULL) {
        lore_buf text;
        lore_buf_init(&text, 0);
        lore_table_write(&run->table, &text);
        status = lore_buf_failed(&text)
                     ? lore_fail(err, LORE_ERR_NOMEM, "no memory for '%s'", run->per_query)
                     : lore_file_replace(run->per_query, lore_buf_str(&text), err);
        lore_buf_destroy(&text);
    }
    return status;
}

static lore_status evaluate(eval_run *run, lore_error *err)
{
    lore_status status = read_topics(run, err);
    if (status == LORE_OK) {
        status = open_app(run, err);
    }
    if (status == LORE_OK) {
        status = ask(run, err);
    }
    if (status == LORE_OK) {
        status = estimate(run, err);
    }
    if (status == LORE_OK) {
        status = make_gates(run, err);
    }
    if (status == LORE_OK && run->is_fitting) {
        status = store_weight(run, err);
    }
    return status == LORE_OK ? write_files(run, err) : status;
}

static int print_report(eval_run *run)
{
    bool is_held = lore_eval_check_gates(&run->report);
    int code = LORE_EXIT_DONE;
    if (run->cli->is_json) {
        lore_buf json;
        lore_buf_init(&json, 0);
        lore_eval_write(&run->report, &json);
        code = lore_cli_print_json(run->cli, &json);
        lore_buf_destroy(&json);
    } else {
        lore_eval_print(&run->report, stdout);
    }
    return is_held ? code : LORE_EXIT_FAILED;
}

int lore_cmd_eval(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    lore_flag flags[EVAL_FLAGS];
    eval_run run = {.cli = cli,
                    .collection = "default",
                    .depth = DEPTH,
                    .resamples = RESAMPLES,
                    .is_terminal = isatty(STDERR_FILENO) != 0};
    list_flags(&run, flags);
    int code = lore_cli_parse(cli, flags, EVAL_FLAGS, argc, argv, &words);
    if (code == LORE_EXIT_CONTINUE) {
        code = check_flags(&run, &words);
    }
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    lore_buf_init(&run.rankings, 0);
    lore_cli_catch_signals();
    lore_status status = evaluate(&run, &err);
    lore_app_close(&run.app);
    code = status == LORE_OK ? print_report(&run) : lore_cli_fail(cli, &err);
    lore_buf_destroy(&run.rankings);
    return code;
}
