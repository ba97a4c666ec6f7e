/* lore query and lore chat: a question from the command line to an answer on the terminal.
 *
 * The flags become the same JSON that POST /query takes and go through the same parser, so limits
 * and messages are in one place and a flag cannot ask for more than a request. On a terminal the
 * answer appears as it is released; elsewhere, and with --json, when it is complete. */
#include "api/wire.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/cli.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ask_flags {
    lore_flag_list collections, stop, variables;
    int64_t top_k, max_tokens, seed;
    double temperature;
    const char *filter, *mode, *adapter, *adapters, *prompt;
} ask_flags;

enum { ASK_FLAGS = 12 };

static const ask_flags ASK_DEFAULTS = {.seed = -1, .temperature = NAN};

static void list_flags(ask_flags *ask, lore_flag flags[ASK_FLAGS])
{
    const lore_flag rows[ASK_FLAGS] = {
        {"collection", 'c', LORE_FLAG_LIST, &ask->collections, "NAME",
         "search this collection; may be repeated (default)", 0, 0},
        {"top-k", 'k', LORE_FLAG_INTEGER, &ask->top_k, "N", "passages to find", 1, 1000},
        {"filter", 0, LORE_FLAG_TEXT, &ask->filter, "JSON",
         "only documents whose metadata match: {\"type\":\"eq\",\"key\":\"k\",\"value\":\"v\"}", 0,
         0},
        {"mode", 'm', LORE_FLAG_TEXT, &ask->mode, "MODE",
         "answer, extract (quote only), context (passages), prompt", 0, 0},
        {"prompt", 'p', LORE_FLAG_TEXT, &ask->prompt, "NAME[@VERSION]", "prompt template", 0, 0},
        {"var", 0, LORE_FLAG_LIST, &ask->variables, "NAME=VALUE", "variable of the template", 0, 0},
        {"adapter", 0, LORE_FLAG_TEXT, &ask->adapter, "NAME", "LoRA adapter, one of --adapters", 0,
         0},
        {"adapters", 0, LORE_FLAG_TEXT, &ask->adapters, "LIST",
         "NAME=FOLDER,... and folders of adapters", 0, 0},
        {"max-tokens", 0, LORE_FLAG_INTEGER, &ask->max_tokens, "N", "length of the answer", 1,
         1 << 17},
        {"temperature", 't', LORE_FLAG_NUMBER, &ask->temperature, "X", "0: the likeliest words", 0,
         0},
        {"seed", 0, LORE_FLAG_INTEGER, &ask->seed, "N", "of the random choices", 0,
         (int64_t)1 << 53},
        {"stop", 0, LORE_FLAG_LIST, &ask->stop, "TEXT", "end the answer before this text", 0, 0},
    };
    memcpy(flags, rows, sizeof rows);
}

/* ---- flags to a query ---- */

typedef struct turn {
    lore_str role, content;
} turn;

static void write_list(lore_json_writer *w, const char *key, const lore_flag_list *list)
{
    if (list->count == 0) {
        return;
    }
    lore_json_array(w, key);
    for (int32_t i = 0; i < list->count; i++) {
        lore_json_string(w, NULL, lore_str_from(list->items[i]));
    }
    lore_json_end(w);
}

/* "NAME", "NAME@VERSION", and the variables. */
static lore_status write_prompt(lore_json_writer *w, const ask_flags *ask, lore_arena *arena,
                                lore_error *err)
{
    if (ask->prompt == NULL && ask->variables.count == 0) {
        return LORE_OK;
    }
    lore_json_object(w, "prompt");
    if (ask->prompt != NULL) {
        lore_str all = lore_str_from(ask->prompt);
        size_t at = lore_str_find(all, LORE_STR("@"), 0);
        int64_t version = 1;
        if (at != SIZE_MAX && !lore_str_to_int64(lore_str_slice(all, at + 1, all.len), &version)) {
            return lore_fail(err, LORE_ERR_INVALID, "--prompt must be NAME or NAME@VERSION");
        }
        lore_json_string(w, "name", at == SIZE_MAX ? all : lore_str_slice(all, 0, at));
        lore_json_int(w, "version", version);
    }
    lore_json_object(w, "variables");
    for (int32_t i = 0; i < ask->variables.count; i++) {
        lore_str item = lore_str_from(ask->variables.items[i]);
        size_t equals = lore_str_find(item, LORE_STR("="), 0);
        char *name =
            equals == SIZE_MAX ? NULL : lore_str_to_c(arena, lore_str_slice(item, 0, equals));
        if (name == NULL) {
            return lore_fail(err, LORE_ERR_INVALID, "--var must be NAME=VALUE");
        }
        lore_json_string(w, name, lore_str_slice(item, equals + 1, item.len));
    }
    lore_json_end(w);
    lore_json_end(w);
    return LORE_OK;
}

static lore_status write_filter(lore_json_writer *w, const ask_flags *ask,
                                const lore_config *config, lore_error *err)
{
    lore_json *filter = NULL;
    if (ask->filter == NULL) {
        return LORE_OK;
    }
    lore_str text = lore_str_from(ask->filter);
    lore_status status =
        lore_json_parse(text, (int32_t)config->limits.json_depth_max - 1, &filter, err);
    if (status != LORE_OK) {
        return lore_error_prefix(err, "--filter");
    }
    lore_json_free(filter);
    lore_json_raw(w, "filter", text);
    return LORE_OK;
}

static lore_status write_query(const lore_cli *cli, const ask_flags *ask, lore_str question,
                               const turn *history, int32_t history_count, lore_arena *arena,
                               lore_buf *json, lore_error *err)
{
    lore_json_writer w;
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "question", question);
    write_list(&w, "collection", &ask->collections);
    write_list(&w, "stop", &ask->stop);
    if (ask->top_k > 0) {
        lore_json_int(&w, "top_k", ask->top_k);
    }
    if (ask->max_tokens > 0) {
        lore_json_int(&w, "max_tokens", ask->max_tokens);
    }
    if (ask->seed >= 0) {
        lore_json_int(&w, "seed", ask->seed);
    }
    if (!isnan(ask->temperature)) {
        lore_json_float(&w, "temperature", ask->temperature);
    }
    if (ask->mode != NULL) {
        lore_json_string(&w, "mode", lore_str_from(ask->mode));
    }
    if (ask->adapter != NULL) {
        lore_json_string(&w, "adapter", lore_str_from(ask->adapter));
    }
    lore_json_array(&w, "history");
    for (int32_t i = 0; i < history_count; i++) {
        lore_json_object(&w, NULL);
        lore_json_string(&w, "role", history[i].role);
        lore_json_string(&w, "content", history[i].content);
        lore_json_end(&w);
    }
    lore_json_end(&w);
    lore_status status = write_prompt(&w, ask, arena, err);
    if (status == LORE_OK) {
        status = write_filter(&w, ask, &cli->config, err);
    }
    lore_json_end(&w);
    if (status == LORE_OK && lore_buf_failed(json)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for the question");
    }
    return status;
}

static lore_status make_query(const lore_cli *cli, const ask_flags *ask, lore_str question,
                              const turn *history, int32_t history_count, lore_arena *arena,
                              lore_wire_query *parsed, lore_error *err)
{
    lore_buf json;
    lore_buf_init(&json, 0);
    lore_status status = write_query(cli, ask, question, history, history_count, arena, &json, err);
    if (status == LORE_OK) {
        status = lore_wire_parse_query(lore_buf_str(&json), &cli->config, arena, parsed, err);
    }
    lore_buf_destroy(&json);
    if (status == LORE_OK) {
        parsed->query.deadline_ns =
            lore_clock_ns() + cli->config.limits.request_timeout_ms * 1000000;
    }
    return status;
}

/* ---- asking ---- */

static void stream_delta(void *self, lore_str text)
{
    lore_wrap_text(self, text);
}

static bool is_interrupted(void *self)
{
    (void)self;
    return lore_cli_is_interrupted();
}

/* Run the query; with `streamed` not NULL the text goes through it as it comes. */
static lore_status ask_app(lore_app *app, const lore_wire_query *parsed, lore_wrap *streamed,
                           lore_arena *arena, lore_answer *answer, lore_error *err)
{
    lore_answer_events events = {.self = streamed, .is_gone = is_interrupted};
    if (streamed != NULL) {
        events.delta = stream_delta;
    }
    return lore_answer_run(&app->answerer, &parsed->query, &events, arena, answer, err);
}

/* A template that is named must exist in every mode, so that a wrong name is not found out later.
 */
static lore_status open_for(lore_cli *cli, const ask_flags *ask, lore_mode mode, lore_app *app,
                            lore_error *err)
{
    lore_app_needs needs = {
        .embedder = true, .reranker = true, .index = true, .prompts = ask->prompt != NULL};
    needs.engine = mode == LORE_MODE_ANSWER || mode == LORE_MODE_PROMPT || ask->adapter != NULL;
    if (ask->adapters != NULL) {
        lore_status status =
            lore_config_set(&cli->config, LORE_STR("adapters"), lore_str_from(ask->adapters), err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return lore_app_open(&cli->config, needs, app, err);
}

static int print_answer(lore_cli *cli, lore_app *app, const lore_wire_query *parsed)
{
    lore_error err;
    lore_answer answer = {0};
    lore_wrap wrap;
    lore_mode mode = parsed->query.mode;
    bool is_streamed = !cli->is_json && lore_terminal_width(stdout) > 0 &&
                       (mode == LORE_MODE_ANSWER || mode == LORE_MODE_EXTRACT);
    lore_wrap_begin(&wrap, stdout, 0);
    lore_status status =
        ask_app(app, parsed, is_streamed ? &wrap : NULL, &cli->arena, &answer, &err);
    lore_wrap_end(&wrap);
    if (status != LORE_OK) {
        return lore_cli_fail(cli, &err);
    }
    if (!cli->is_json) {
        lore_print_answer(&answer, !is_streamed, stdout);
        return LORE_EXIT_DONE;
    }
    lore_buf json;
    lore_buf_init(&json, 0);
    lore_wire_answer(&answer, true, &json);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

static lore_str join_words(const lore_flag_list *words, lore_arena *arena)
{
    lore_str text = {NULL, 0};
    for (int32_t i = 0; i < words->count; i++) {
        text = i == 0 ? lore_str_from(words->items[0])
                      : lore_str_printf(arena, LORE_STR_FMT " %s", LORE_STR_ARG(text),
                                        words->items[i]);
    }
    return text;
}

int lore_cmd_query(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    ask_flags ask = ASK_DEFAULTS;
    lore_flag flags[ASK_FLAGS];
    list_flags(&ask, flags);
    int code = lore_cli_parse(cli, flags, ASK_FLAGS, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count == 0) {
        return lore_cli_misuse(cli, "a question is needed");
    }
    lore_wire_query parsed = {0};
    lore_status status =
        make_query(cli, &ask, join_words(&words, &cli->arena), NULL, 0, &cli->arena, &parsed, &err);
    if (status != LORE_OK) {
        return status == LORE_ERR_NOMEM ? lore_cli_fail(cli, &err)
                                        : lore_cli_misuse(cli, "%s", err.message);
    }
    lore_app app = {0};
    lore_cli_catch_signals();
    status = open_for(cli, &ask, parsed.query.mode, &app, &err);
    code = status == LORE_OK ? print_answer(cli, &app, &parsed) : lore_cli_fail(cli, &err);
    lore_json_free(parsed.root);
    lore_app_close(&app);
    return code;
}

/* ---- chat ---- */

typedef struct chat {
    lore_cli *cli;
    lore_app *app;
    const ask_flags *ask;
    turn *turns; /* oldest first; each owns its content */
    int32_t count, cap;
    lore_arena arena; /* of the last answer, for /sources */
    lore_answer answer;
    bool has_answer;
} chat;

/* Keep the newest turns within what a request may carry. */
static void trim_history(chat *self)
{
    const lore_limits *limits = &self->cli->config.limits;
    int64_t bytes = 0;
    int32_t keep = 0;
    while (keep < self->count && keep + 1 <= limits->history_messages_max) {
        bytes += (int64_t)self->turns[self->count - 1 - keep].content.len;
        if (bytes > limits->history_bytes_max) {
            break;
        }
        keep++;
    }
    keep -= keep % 2; /* a question goes with its answer */
    for (int32_t i = 0; i < self->count - keep; i++) {
        lore_free((void *)(uintptr_t)self->turns[i].content.ptr);
    }
    memmove(self->turns, self->turns + self->count - keep, (size_t)keep * sizeof *self->turns);
    self->count = keep;
}

static void forget_history(chat *self)
{
    for (int32_t i = 0; i < self->count; i++) {
        lore_free((void *)(uintptr_t)self->turns[i].content.ptr);
    }
    self->count = 0;
}

static lore_status add_turn(chat *self, lore_str role, lore_str content, lore_error *err)
{
    char *copy = lore_alloc(content.len + 1);
    if (self->count == self->cap || copy == NULL) {
        lore_free(copy);
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the conversation");
    }
    memcpy(copy, content.ptr, content.len);
    self->turns[self->count++] = (turn){role, {copy, content.len}};
    return LORE_OK;
}

static lore_status ask_turn(chat *self, lore_str question, lore_error *err)
{
    lore_wire_query parsed = {0};
    lore_wrap wrap;
    self->has_answer = false;
    lore_arena_reset(&self->arena);
    lore_status status = make_query(self->cli, self->ask, question, self->turns, self->count,
                                    &self->arena, &parsed, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_wrap_begin(&wrap, stdout, 0);
    self->answer = (lore_answer){0};
    status = ask_app(self->app, &parsed, &wrap, &self->arena, &self->answer, err);
    lore_wrap_end(&wrap);
    if (status == LORE_OK) {
        self->has_answer = true;
        bool is_written =
            parsed.query.mode == LORE_MODE_ANSWER || parsed.query.mode == LORE_MODE_EXTRACT;
        lore_print_answer(&self->answer, false, stdout);
        if (is_written && !self->answer.is_refused) {
            status = add_turn(self, LORE_STR("user"), question, err);
            if (status == LORE_OK) {
                status = add_turn(self, LORE_STR("assistant"), self->answer.text, err);
            }
            trim_history(self);
        }
    }
    lore_json_free(parsed.root);
    return status;
}

/* A line that starts with a slash. False: leave. */
static bool run_slash(chat *self, lore_str line)
{
    if (lore_str_equal(line, LORE_STR("/quit")) || lore_str_equal(line, LORE_STR("/exit"))) {
        return false;
    }
    if (lore_str_equal(line, LORE_STR("/new"))) {
        forget_history(self);
        puts("The conversation starts anew.");
    } else if (!lore_str_equal(line, LORE_STR("/sources"))) {
        puts("/sources shows what the last answer stands on, /new forgets the conversation, "
             "/quit leaves.");
    } else if (self->has_answer) {
        lore_print_passages(&self->answer, stdout);
    } else {
        puts("There is no answer yet.");
    }
    return true;
}

/* Read one line; false at the end of input. A line over the cap is dropped whole and *line is empty
 * with *is_long set. */
static bool read_line(char *room, size_t cap, lore_str *line, bool *is_long)
{
    size_t size = 0;
    int c = EOF;
    *is_long = false;
    while ((c = getchar()) != EOF && c != '\n') {
        if (size < cap) {
            room[size++] = (char)c;
        } else {
            *is_long = true;
        }
    }
    *line = lore_str_trim((lore_str){room, *is_long ? 0 : size});
    return c != EOF || size > 0;
}

static int run_chat(chat *self, char *room, size_t cap)
{
    lore_error err;
    lore_str line = {0};
    bool is_long = false;
    bool is_terminal = isatty(STDIN_FILENO) != 0;
    int code = LORE_EXIT_DONE;
    if (is_terminal) {
        puts("Ask your documents. /help for more, /quit to leave.");
    }
    for (;;) {
        if (is_terminal) {
            fputs("\n> ", stdout);
        }
        fflush(stdout);
        if (!read_line(room, cap, &line, &is_long) || lore_cli_is_interrupted()) {
            break;
        }
        if (is_long) {
            fprintf(stderr, "lore: a question has at most %zu bytes\n", cap);
        } else if (line.len > 0 && line.ptr[0] == '/') {
            if (!run_slash(self, line)) {
                break;
            }
        } else if (line.len > 0 && ask_turn(self, line, &err) != LORE_OK) {
            code = lore_cli_fail(self->cli, &err); /* one bad question does not end the chat */
            if (lore_cli_is_interrupted()) {
                break;
            }
        }
    }
    return lore_cli_is_interrupted() ? LORE_EXIT_INTERRUPTED : code;
}

int lore_cmd_chat(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    ask_flags ask = ASK_DEFAULTS;
    lore_flag flags[ASK_FLAGS];
    list_flags(&ask, flags);
    int code = lore_cli_parse(cli, flags, ASK_FLAGS, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count > 0 || cli->is_json) {
        return lore_cli_misuse(cli, cli->is_json ? "chat has no --json: use `lore query --json`"
                                                 : "chat takes no question: it asks for them");
    }
    size_t cap = (size_t)cli->config.limits.question_bytes_max;
    char *room = lore_arena_push(&cli->arena, cap);
    chat self = {.cli = cli, .ask = &ask};
    self.cap =
        (int32_t)cli->config.limits.history_messages_max + 2; /* the newest pair comes on top */
    self.turns = LORE_PUSH(&cli->arena, turn, self.cap);
    if (room == NULL || self.turns == NULL) {
        lore_fail(&err, LORE_ERR_NOMEM, "no memory for the conversation");
        return lore_cli_fail(cli, &err);
    }
    lore_app app = {0};
    self.app = &app;
    lore_arena_init(&self.arena, (size_t)cli->config.limits.arena_bytes_max);
    lore_cli_catch_signals();
    if (open_for(cli, &ask, LORE_MODE_ANSWER, &app, &err) == LORE_OK) {
        code = run_chat(&self, room, cap);
    } else {
        code = lore_cli_fail(cli, &err);
    }
    forget_history(&self);
    lore_arena_destroy(&self.arena);
    lore_app_close(&app);
    return code;
}
