/* lore ingest: documents into a collection.
 *
 * Progress goes to standard error and only to a terminal; each document that fails is named there
 * with its reason. What was committed stays, whatever ends the run. With --watch runs follow one
 * another, each over what has changed; each decides anew whom to hand the documents to, so that a
 * server may come and go meanwhile. Where a server holds the data
 * folder the same walk hands the documents to it (handover.c). */
#include "base/clock.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/handover.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum { REDRAW_MS = 100, BAR_COLUMNS = 24 };

typedef struct ingest_run {
    lore_cli *cli;
    const char *collection;
    lore_flag_list metadata;
    bool may_be_private;  /* addresses that URLs lead to */
    const char *json_map; /* NULL: as configured */
    bool is_dry, is_pruning, is_watching;
    lore_arena arena;         /* of one round */
    const char *const *roots; /* changed paths, whose documents may be gone */
    int32_t root_count;
    lore_ingest_counts counts;
    int64_t passed_over;
    lore_str server;   /* empty: direct */
    lore_buf failures; /* members of a JSON array, "," between them */
    lore_buf plan;     /* likewise, of a dry run: every document and what would become of it */
    int64_t started_ns, drawn_ns;
    bool has_bar, is_terminal;
} ingest_run;

/* ---- progress ---- */

static void clear_bar(ingest_run *run)
{
    if (run->has_bar) {
        fputs("\r\033[K", stderr);
        run->has_bar = false;
    }
}

static void draw_progress(void *self, const lore_ingest_counts *counts, int64_t total)
{
    ingest_run *run = self;
    int64_t now = lore_clock_ns();
    if (!run->is_terminal || now - run->drawn_ns < REDRAW_MS * 1000000LL) {
        return;
    }
    run->drawn_ns = now;
    run->has_bar = true;
    double seconds = (double)(now - run->started_ns) / 1e9;
    double share = total > 0 ? (double)counts->seen / (double)total : 0;
    char bar[BAR_COLUMNS + 1];
    for (int i = 0; i < BAR_COLUMNS; i++) {
        bar[i] = (double)i < share * BAR_COLUMNS ? '#' : '-';
    }
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "\r\033[K[%s] %" PRId64 "/%" PRId64 " documents, %.0f chunks/s", bar,
            counts->seen, total, (double)counts->chunks / seconds);
    if (counts->seen > 0 && counts->seen < total) {
        fprintf(stderr, ", %.0f s left",
                seconds / (double)counts->seen * (double)(total - counts->seen));
    }
    fflush(stderr);
}

/* The name by which people know a document. */
static lore_str name_of(const lore_ingest_event *event)
{
    return event->source.len > 0 ? event->source
           : event->id.len > 0   ? event->id
                                 : LORE_STR("standard input");
}

static void begin_member(lore_json_writer *w, lore_buf *array)
{
    if (array->len > 0) {
        lore_buf_byte(array, ',');
    }
    lore_json_write_begin(w, array);
    lore_json_object(w, NULL);
}

static void report_failure(ingest_run *run, const lore_ingest_event *event)
{
    clear_bar(run);
    fprintf(stderr, "lore: ");
    lore_print_plain(stderr, name_of(event));
    fprintf(stderr, ": %s\n", event->reason->message);
    if (run->cli->is_json) {
        lore_json_writer w;
        begin_member(&w, &run->failures);
        lore_json_string(&w, "source", name_of(event));
        lore_json_string(&w, "message", lore_str_from(event->reason->message));
        lore_json_end(&w);
    }
}

/* A line of the plan; what would stay as it is has none but in JSON. */
static void plan_document(ingest_run *run, const lore_ingest_event *event)
{
    const char *fate = lore_ingest_fate_name(event->fate);
    const bool is_written = event->fate == LORE_FATE_ADDED || event->fate == LORE_FATE_REPLACED;
    if (run->cli->is_json) {
        lore_json_writer w;
        begin_member(&w, &run->plan);
        lore_json_string(&w, "fate", lore_str_from(fate));
        lore_json_string(&w, "id", event->id);
        lore_json_string(&w, "source", event->source);
        lore_json_int(&w, "chunks", event->chunks);
        if (event->reason != NULL) {
            lore_json_string(&w, "message", lore_str_from(event->reason->message));
        }
        lore_json_end(&w);
    } else if (is_written || event->fate == LORE_FATE_DELETED) {
        clear_bar(run);
        printf("%-9s ", fate);
        lore_print_plain(stdout, name_of(event));
        printf("\n");
    }
}

static void settle(void *self, const lore_ingest_event *event)
{
    ingest_run *run = self;
    if (event->fate == LORE_FATE_FAILED) {
        report_failure(run, event);
    }
    if (run->is_dry) {
        plan_document(run, event);
    }
}

static bool is_cancelled(void *self)
{
    (void)self;
    return lore_cli_is_interrupted();
}

/* ---- summary ---- */

static void write_array(lore_json_writer *w, const char *name, const lore_buf *members)
{
    lore_json_array(w, name);
    if (members->len > 0) {
        lore_json_raw(w, NULL, lore_buf_str(members));
    }
    lore_json_end(w);
}

static int print_summary_json(ingest_run *run, double seconds)
{
    const lore_ingest_counts *counts = &run->counts;
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.ingest"));
    lore_json_string(&w, "collection", lore_str_from(run->collection));
    lore_json_string(&w, "server", run->server);
    lore_json_boolean(&w, "dry_run", run->is_dry);
    lore_json_boolean(&w, "interrupted", lore_cli_is_interrupted());
    lore_json_int(&w, "seen", counts->seen);
    lore_json_int(&w, "added", counts->added);
    lore_json_int(&w, "replaced", counts->replaced);
    lore_json_int(&w, "unchanged", counts->unchanged);
    lore_json_int(&w, "failed", counts->failed);
    lore_json_int(&w, "deleted", counts->deleted);
    lore_json_int(&w, "passed_over", run->passed_over);
    lore_json_int(&w, "near_duplicates", counts->near_duplicates);
    lore_json_int(&w, "chunks", counts->chunks);
    lore_json_int(&w, "tokens", counts->tokens);
    lore_json_int(&w, "text_bytes", counts->text_bytes);
    lore_json_float(&w, "seconds", seconds);
    write_array(&w, "failures", &run->failures);
    if (run->is_dry) {
        write_array(&w, "plan", &run->plan);
    }
    lore_json_end(&w);
    json.failed = json.failed || lore_buf_failed(&run->failures) || lore_buf_failed(&run->plan);
    int code = lore_cli_print_json(run->cli, &json);
    lore_buf_destroy(&json);
    return code;
}

static int print_summary(ingest_run *run, double seconds)
{
    const lore_ingest_counts *counts = &run->counts;
    if (run->cli->is_json) {
        return print_summary_json(run, seconds);
    }
    printf("%" PRId64 " documents%s: %" PRId64 " added, %" PRId64 " replaced, %" PRId64
           " unchanged",
           counts->seen, run->is_dry ? " (dry run, nothing written)" : "", counts->added,
           counts->replaced, counts->unchanged);
    if (run->is_pruning) {
        printf(", %" PRId64 " deleted", counts->deleted);
    }
    if (counts->failed > 0) {
        printf(", %" PRId64 " failed", counts->failed);
    }
    if (counts->near_duplicates > 0) {
        printf(" (%" PRId64 " nearly repeat another)", counts->near_duplicates);
    }
    if (run->passed_over > 0) {
        printf("; %" PRId64 " files of other kinds passed over", run->passed_over);
    }
    printf("; %" PRId64 " chunks in %.1f s", counts->chunks, seconds);
    if (run->server.len > 0) {
        printf(", through " LORE_STR_FMT, LORE_STR_ARG(run->server));
    }
    printf("\n");
    return LORE_EXIT_DONE;
}

/* ---- the run ---- */

/* --meta k=v ... as one JSON object. */
static lore_status make_metadata(ingest_run *run, lore_buf *json, lore_error *err)
{
    lore_json_writer w;
    if (run->metadata.count == 0) {
        return LORE_OK;
    }
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    for (int32_t i = 0; i < run->metadata.count; i++) {
        lore_str item = lore_str_from(run->metadata.items[i]);
        size_t equals = lore_str_find(item, LORE_STR("="), 0);
        if (equals == SIZE_MAX || equals == 0) {
            return lore_fail(err, LORE_ERR_INVALID, "--meta must be KEY=VALUE, not '%s'",
                             run->metadata.items[i]);
        }
        char *key = lore_str_to_c(&run->cli->arena, lore_str_slice(item, 0, equals));
        if (key == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for --meta");
        }
        lore_json_string(&w, key, lore_str_slice(item, equals + 1, item.len));
    }
    lore_json_end(&w);
    return lore_buf_failed(json) ? lore_fail(err, LORE_ERR_NOMEM, "no memory for --meta") : LORE_OK;
}

static lore_status run_direct(ingest_run *run, lore_source *source,
                              const lore_source_options *source_options,
                              const lore_ingest_options *options, lore_error *err)
{
    lore_app app = {0};
    lore_app_needs needs = {.embedder = true, .index = true, .index_writer = true};
    lore_status status = lore_app_open(&run->cli->config, needs, &app, err);
    if (status == LORE_OK) {
        run->started_ns = lore_clock_ns(); /* loading the encoder is not ingest */
        status = lore_ingest_run(app.writer, app.embedder, &run->cli->config, source,
                                 source_options, options, &run->counts, err);
    }
    lore_app_close(&app);
    return status;
}

/* A dry run only reads: it needs no lock, and no folder that is there. */
static lore_status run_dry(ingest_run *run, lore_source *source,
                           const lore_source_options *source_options,
                           const lore_ingest_options *options, lore_error *err)
{
    lore_app app = {0};
    lore_ingest_options known = *options;
    lore_app_needs needs = {.embedder = true, .index = true};
    lore_status status = lore_app_open(&run->cli->config, needs, &app, err);
    if (status == LORE_ERR_NOT_FOUND) {
        needs.index = false; /* where it is not the index that is missing, this fails likewise */
        status = lore_app_open(&run->cli->config, needs, &app, err);
    }
    if (status == LORE_OK) {
        known.index = app.index;
        run->started_ns = lore_clock_ns();
        status = lore_ingest_run(NULL, app.embedder, &run->cli->config, source, source_options,
                                 &known, &run->counts, err);
    }
    lore_app_close(&app);
    return status;
}

static lore_status run_ingest(ingest_run *run, const lore_source_options *source_options,
                              lore_error *err)
{
    lore_source *source = NULL;
    const lore_ingest_options options = {.collection = lore_str_from(run->collection),
                                         .is_dry = run->is_dry,
                                         .is_pruning = run->is_pruning,
                                         .roots = run->roots,
                                         .root_count = run->root_count,
                                         .self = run,
                                         .progress = draw_progress,
                                         .settled = settle,
                                         .is_cancelled = is_cancelled};
    lore_status status = lore_source_open(source_options, &run->cli->config.limits, &source, err);
    if (status != LORE_OK) {
        return status;
    }
    run->started_ns = lore_clock_ns();
    run->server = run->is_dry ? LORE_STR("") : lore_cli_server(run->cli, &run->arena);
    if (run->is_dry) {
        status = run_dry(run, source, source_options, &options, err);
    } else if (run->server.len > 0) {
        status = lore_handover_run(run->server, &run->cli->config, source, source_options, &options,
                                   &run->counts, err);
    } else {
        status = run_direct(run, source, source_options, &options, err);
    }
    run->passed_over = lore_source_passed_over(source);
    lore_source_close(source);
    clear_bar(run);
    return status;
}

static int finish_ingest(ingest_run *run, lore_status status, const lore_error *err)
{
    double seconds = (double)(lore_clock_ns() - run->started_ns) / 1e9;
    bool is_interrupted = status == LORE_ERR_CANCELLED && lore_cli_is_interrupted();
    if (status != LORE_OK && !is_interrupted) {
        return lore_cli_fail(run->cli, err);
    }
    int code = print_summary(run, seconds);
    if (is_interrupted) {
        fprintf(stderr, "lore: interrupted; what was committed is kept, run the command again to "
                        "go on\n");
        return LORE_EXIT_INTERRUPTED;
    }
    return code != LORE_EXIT_DONE   ? code
           : run->counts.failed > 0 ? LORE_EXIT_PARTLY
                                    : LORE_EXIT_DONE;
}

/* ---- watching ---- */

/* The next round: what has changed, or where that cannot be told everything. */
static lore_status run_round(ingest_run *run, const lore_source_options *all,
                             const lore_folder_changes *changes, lore_error *err)
{
    lore_source_options some = *all;
    if (!changes->is_everything) {
        some.paths = changes->paths;
        some.path_count = changes->count;
        some.are_found = true;
        run->roots = changes->paths;
        run->root_count = changes->count;
    }
    lore_buf_reset(&run->failures);
    lore_status status = run_ingest(run, &some, err);
    run->roots = NULL;
    run->root_count = 0;
    return status;
}

/* A round that found nothing to do says nothing. */
static void tell_round(ingest_run *run)
{
    const lore_ingest_counts *counts = &run->counts;
    if (counts->added + counts->replaced + counts->deleted + counts->failed > 0) {
        (void)print_summary(run, (double)(lore_clock_ns() - run->started_ns) / 1e9);
        fflush(stdout);
    }
}

/* Rounds until interrupted. One that fails (a full disk, a server that is stopping, a folder that
 * somebody else writes to) is told and tried again with everything. */
static lore_status watch_rounds(ingest_run *run, const lore_source_options *all,
                                lore_folder_watch *watch, lore_error *err)
{
    const lore_interrupt interrupt = {is_cancelled, NULL};
    for (;;) {
        lore_folder_changes changes;
        lore_arena_reset(&run->arena);
        lore_status status = lore_folder_watch_next(watch, &interrupt, &run->arena, &changes, err);
        if (status != LORE_OK) {
            return status;
        }
        status = run_round(run, all, &changes, err);
        if (status == LORE_OK) {
            tell_round(run);
        } else if (lore_cli_is_interrupted()) {
            return status;
        } else {
            fprintf(stderr, "lore: %s; to be tried again\n", err->message);
            lore_folder_watch_again(watch);
        }
    }
}

/* The first run is like any other; then rounds. Being interrupted between two of them is how it
 * ends. */
static int watch_and_ingest(ingest_run *run, const lore_source_options *all)
{
    lore_error err = {0};
    lore_folder_watch *watch = NULL;
    lore_status status = lore_folder_watch_open(all, &run->cli->config.limits, &watch, &err);
    if (status != LORE_OK) {
        return status == LORE_ERR_INVALID ? lore_cli_misuse(run->cli, "%s", err.message)
                                          : lore_cli_fail(run->cli, &err);
    }
    status = run_ingest(run, all, &err);
    int code = finish_ingest(run, status, &err);
    fflush(stdout);
    if (status == LORE_OK) {
        fprintf(stderr, "lore: watching; interrupt to stop\n");
        status = watch_rounds(run, all, watch, &err);
        bool is_stopped = status == LORE_ERR_CANCELLED && lore_cli_is_interrupted();
        code = is_stopped ? LORE_EXIT_DONE : lore_cli_fail(run->cli, &err);
    }
    lore_folder_watch_close(watch);
    return code;
}

int lore_cmd_ingest(lore_cli *cli, int argc, char **argv)
{
    lore_error err = {0};
    lore_flag_list paths = {0};
    ingest_run run = {.cli = cli, .collection = "default"};
    const lore_flag flags[] = {
        {"collection", 'c', LORE_FLAG_TEXT, &run.collection, "NAME", "into this one (default)", 0,
         0},
        {"meta", 0, LORE_FLAG_LIST, &run.metadata, "KEY=VALUE",
         "metadata of every document; may be repeated", 0, 0},
        {"map", 0, LORE_FLAG_TEXT, &run.json_map, "FIELD=PATH",
         "parts of documents in JSON of others: text=body,title=meta.name ...", 0, 0},
        {"prune", 0, LORE_FLAG_SWITCH, &run.is_pruning, NULL,
         "delete documents that are gone from the folders given", 0, 0},
        {"allow-private", 0, LORE_FLAG_SWITCH, &run.may_be_private, NULL,
         "URLs may lead to private and local addresses", 0, 0},
        {"dry-run", 0, LORE_FLAG_SWITCH, &run.is_dry, NULL,
         "say what a run would do, write nothing", 0, 0},
        {"watch", 0, LORE_FLAG_SWITCH, &run.is_watching, NULL,
         "go on, and take what changes in the files and folders given", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &paths);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (paths.count == 0) {
        return lore_cli_misuse(cli, "a file, a folder, a URL or - is needed");
    }
    if (run.is_watching && run.is_dry) {
        return lore_cli_misuse(cli, "--watch and --dry-run exclude each other");
    }
    lore_buf metadata;
    lore_arena_init(&run.arena, 0);
    lore_buf_init(&metadata, 0);
    lore_buf_init(&run.failures, 0);
    lore_buf_init(&run.plan, 0);
    run.is_terminal = isatty(STDERR_FILENO) != 0;
    lore_status status = make_metadata(&run, &metadata, &err);
    if (status == LORE_OK) {
        lore_source_options source_options = {
            .paths = paths.items,
            .path_count = paths.count,
            .stdin_fd = STDIN_FILENO,
            .data = cli->config.data,
            .json_map = lore_str_from(run.json_map != NULL ? run.json_map : cli->config.json_map),
            .metadata = lore_buf_str(&metadata),
            .may_be_private = run.may_be_private || cli->config.fetch_private_addresses};
        lore_cli_catch_signals();
        if (run.is_watching) {
            code = watch_and_ingest(&run, &source_options);
        } else {
            status = run_ingest(&run, &source_options, &err);
            code = finish_ingest(&run, status, &err);
        }
    } else {
        code = lore_cli_misuse(cli, "%s", err.message);
    }
    lore_buf_destroy(&run.plan);
    lore_buf_destroy(&run.failures);
    lore_buf_destroy(&metadata);
    lore_arena_destroy(&run.arena);
    return code;
}
