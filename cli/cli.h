/* What all commands share: the run, its configuration, errors and exit codes, and how things look
 * on a terminal.
 *
 * A command is one function: it lists its flags, calls lore_cli_parse, opens a lore_app, calls one
 * function of the floors below, prints, closes. Human text goes to standard output, progress and
 * errors to standard error; with --json exactly one object goes to standard output. */
#ifndef LORE_CLI_CLI_H
#define LORE_CLI_CLI_H

#include "api/app.h"
#include "cli/flags.h"

#include <stdio.h>

/* Exit codes of the contract. */
enum {
    LORE_EXIT_DONE = 0,
    LORE_EXIT_FAILED = 1,
    LORE_EXIT_USAGE = 2,
    LORE_EXIT_PARTLY = 3,
    LORE_EXIT_INTERRUPTED = 130,
    LORE_EXIT_CONTINUE = -1 /* of lore_cli_parse: not an exit at all */
};

typedef struct lore_cli lore_cli;

typedef struct lore_command {
    const char *name;
    const char *usage;                                /* "[flags] PATH..." */
    const char *sentence;                             /* for the list of commands */
    const char *text;                                 /* more for its own --help; may be "" */
    int (*run)(lore_cli *cli, int argc, char **argv); /* argv[0] is the command's name */
} lore_command;

struct lore_cli {
    lore_config config;
    const lore_command *command;
    lore_arena arena; /* for the whole run */
    bool is_json;
    /* global flags as given */
    const char *data, *config_file, *device, *vram_limit, *chat_template, *log_level;
    lore_flag_list set;
    bool is_help;
};

extern const lore_command lore_commands[];
extern const int32_t lore_command_count;

int lore_cmd_ingest(lore_cli *cli, int argc, char **argv);
int lore_cmd_query(lore_cli *cli, int argc, char **argv);
int lore_cmd_chat(lore_cli *cli, int argc, char **argv);
int lore_cmd_serve(lore_cli *cli, int argc, char **argv);
int lore_cmd_documents(lore_cli *cli, int argc, char **argv);
int lore_cmd_collections(lore_cli *cli, int argc, char **argv);
int lore_cmd_reembed(lore_cli *cli); /* of collections */
int lore_cmd_adapters(lore_cli *cli, int argc, char **argv);
int lore_cmd_adapters_served(lore_cli *cli, int argc, char **argv);
int lore_cmd_models(lore_cli *cli, int argc, char **argv);
int lore_cmd_models_merge(lore_cli *cli, int argc, char **argv);
int lore_cmd_models_pull(lore_cli *cli, int argc, char **argv);
int lore_cmd_models_quantize(lore_cli *cli, int argc, char **argv);
int lore_cmd_backup(lore_cli *cli, int argc, char **argv);
int lore_cmd_restore(lore_cli *cli, int argc, char **argv);
int lore_cmd_digest(lore_cli *cli, int argc, char **argv);
int lore_cmd_fsck(lore_cli *cli, int argc, char **argv);
int lore_cmd_doctor(lore_cli *cli, int argc, char **argv);
int lore_cmd_config(lore_cli *cli, int argc, char **argv);
int lore_cmd_version(lore_cli *cli, int argc, char **argv);
int lore_cmd_eval(lore_cli *cli, int argc, char **argv);
int lore_cmd_bench(lore_cli *cli, int argc, char **argv);

/* A model's folder: `name` itself, or the one that a pull of OWNER/NAME made. Borrowed or in the
 * arena. */
const char *lore_cli_model_folder(lore_cli *cli, const char *name);

/* Flags of the command and the global ones, then the configuration (file, environment, flags).
 * LORE_EXIT_CONTINUE, or the code to exit with: --help was asked for, or something was wrong and
 * has been said. */
int lore_cli_parse(lore_cli *cli, const lore_flag *flags, int32_t flag_count, int argc, char **argv,
                   lore_flag_list *others);

/* Say what failed (and with --json print the error object); returns the exit code of the failure.
 */
int lore_cli_fail(const lore_cli *cli, const lore_error *err);
/* The same for wrong usage: names the command's --help, returns LORE_EXIT_USAGE. */
int lore_cli_misuse(const lore_cli *cli, const char *format, ...) LORE_PRINTF(2, 3);
/* Print the one JSON object, or fail where it could not be made. */
int lore_cli_print_json(const lore_cli *cli, lore_buf *json);
/* Standard output could not take all of it (a full disk, a closed pipe): that is a failure. */
int lore_cli_finish(const lore_cli *cli, int code);

/* From here on the first SIGINT or SIGTERM only sets a flag, the second ends the process. */
void lore_cli_catch_signals(void);
bool lore_cli_is_interrupted(void);

/* "http://..." of the process that serves the folder, empty when none does. In the arena. */
lore_str lore_cli_server(const lore_cli *cli, lore_arena *arena);

/* ---- terminals ---- */
int32_t lore_terminal_width(FILE *out); /* columns; 0: not a terminal */

/* Text that wraps at words, and between the characters of scripts that have no spaces, as it comes
 * in pieces. Control characters are dropped, so no document can steer a terminal. */
typedef struct lore_wrap {
    FILE *out;
    int32_t width;  /* 0: never wraps */
    int32_t indent; /* of every line */
    int32_t column;
    int32_t word_columns;
    bool has_space; /* one is owed before the next word */
    lore_buf word;
} lore_wrap;
void lore_wrap_begin(lore_wrap *wrap, FILE *out, int32_t indent);
void lore_wrap_text(lore_wrap *wrap, lore_str text);
void lore_wrap_end(lore_wrap *wrap); /* writes what is left and ends the line */
/* One string without control characters, on one line. */
void lore_print_plain(FILE *out, lore_str text);

/* An answer as people read it: text (unless it was streamed already), citations or passages. */
void lore_print_answer(const lore_answer *answer, bool with_text, FILE *out);
/* "page 3, bytes 120-152", or without a page where there is none. */
void lore_print_span(const lore_chunk *chunk, size_t start, size_t end, FILE *out);
void lore_print_citations(const lore_answer *answer, FILE *out);
void lore_print_passages(const lore_answer *answer, FILE *out);

#endif
