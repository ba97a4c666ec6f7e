/* The program: finds the command, and what all commands share.
 *
 * Global flags may stand before the command or behind it. Configuration comes from defaults, a
 * file, the environment and flags, in this order; then the command runs and its exit code is ours.
 * This folder alone prints, catches signals and exits (conventions E7). */
#include "api/wire.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const lore_command lore_commands[] = {
    {"ingest", "[flags] PATH...", "read documents into a collection",
     "PATH is a file, a folder, or - for JSONL on standard input. Documents that have not changed\n"
     "are skipped; --dry-run lists what would be done with the others, --watch goes on with what\n"
     "changes. Where `lore serve` holds the data folder, the documents are handed to it.\n",
     lore_cmd_ingest},
    {"query", "[flags] QUESTION", "answer one question, with citations", "", lore_cmd_query},
    {"chat", "[flags]", "ask and ask on",
     "Lines are questions. /sources shows what the last answer stands on, /new forgets the\n"
     "conversation, /quit (or the end of input) leaves.\n",
     lore_cmd_chat},
    {"serve", "[flags]", "answer over HTTP, with a page at /",
     "SIGTERM or Ctrl-C stops accepting, lets open requests finish, then ends; a second one ends\n"
     "at once.\n",
     lore_cmd_serve},
    {"documents", "list | show ID | delete ID... [flags]", "what a collection holds", "",
     lore_cmd_documents},
    {"collections", "list | create NAME | delete NAME | reembed [flags]",
     "the collections of the folder", "", lore_cmd_collections},
    {"models",
     "list | info [MODEL...] | pull OWNER/NAME[@REV] | quantize FOLDER NEW-FOLDER |\n"
     "            merge-lora MODEL ADAPTER NEW-FOLDER [flags]",
     "what the models are; fetch them; write them in fewer bits, or with an adapter",
     "info, without a model: those of the configuration. pull fetches a repository of the hub\n"
     "(HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE) into the data folder; from then on OWNER/NAME is a\n"
     "model wherever a folder is. quantize reads any model folder and writes a new one;\n"
     "merge-lora one with an adapter (a PEFT folder) added to its weights. `models pull --help`,\n"
     "`models quantize --help` and `models merge-lora --help` list their flags.\n",
     lore_cmd_models},
    {"adapters",
     "list | add NAME FOLDER | remove NAME |\n"
     "            convert MODEL ADAPTER NEW-FOLDER [flags]",
     "LoRA adapters: those of `lore serve`; folders of other trainers",
     "list says where each is (disk, loading, host, device, failed) and how large; add and remove\n"
     "are for the process that serves the data folder: a name for a PEFT folder, checked before\n"
     "anybody can ask for it; one that goes takes no requests any more and waits for those under\n"
     "way. convert reads what MLX-LM, torchtune, kohya's scripts, diffusers, NeMo and trainers\n"
     "with fused matrices write (a folder, or a safetensors file), and writes what lore and PEFT\n"
     "read, for one model. `adapters convert --help` lists its flags.\n",
     lore_cmd_adapters},
    {"eval", "--qrels DIR | --qa FILE [flags]", "how good rankings and answers are",
     "DIR has queries.jsonl, queries.tsv or topics, and qrels/test.tsv, qrels.tsv or qrels.txt; "
     "its\n"
     "documents must be in the collection under their own ids. FILE has lines of {\"question\",\n"
     "\"answers\"}; no answers means that it should be refused. Exit code 1 when a gate fails.\n",
     lore_cmd_eval},
    {"bench", "[WHAT [DOCUMENTS]] [flags]", "measure this machine",
     "WHAT is one of these; without it all of them, briefly:\n"
     "  ops      the operations of the backends at the shapes of the models\n"
     "  encode   chunks of 200 tokens a second (--chunk), and one question\n"
     "  prefill  400 tokens of a prompt (--prompt), and a prompt whose beginning is known\n"
     "  decode   1 to 32 streams (--batch), and one stream while prompts arrive\n"
     "  search   dense, text and both, on the data folder; FAISS against the exact scan\n"
     "           (--vectors: the exact scan alone, of random vectors)\n"
     "  ingest   DOCUMENTS into a data folder of its own\n"
     "  start    from the start of the program to the first token\n"
     "  serve    questions over HTTP to a server of its own; --engine: requests to the engine at\n"
     "           random moments; --soak: mixed traffic, then a look for leaks\n"
     "greedy FILE prints what follows prompts of tokens, for comparison with other programs.\n"
     "Shares are of limits measured in the same run. search and serve take the folder of --data,\n"
     "else one made of DOCUMENTS, which are those of the demo unless given. With\n"
     "--while-ingesting the folder gets collections lore-bench-N, deleted at the end.\n",
     lore_cmd_bench},
    {"backup", "PATH [flags]", "the data folder's index as one file",
     "PATH is the file, or a folder for one named after the time. The index is taken as it is at\n"
     "one moment, also beside a process that serves the folder. A file that is there is replaced\n"
     "only when the new one is whole and checked. Models and the request log are not part of it.\n",
     lore_cmd_backup},
    {"restore", "FILE [flags]", "a data folder from a backup",
     "The folder must not hold an index yet. Vector files are made by the next command that "
     "writes\n"
     "to it.\n",
     lore_cmd_restore},
    {"fsck", "[--repair] [flags]", "is the data folder whole",
     "Rows, offsets, vectors, the full-text index and every file against each other. Beside a\n"
     "process that serves the folder it looks only. Exit code 0: nothing is wrong (any more); 1:\n"
     "something is; 3: mended, but what is listed must be ingested again.\n",
     lore_cmd_fsck},
    {"digest", "[flags]", "what the data folder holds, as a number to compare",
     "Equal for equal documents, texts, chunks and vectors, in whatever order and by however many\n"
     "threads they were ingested, and whatever else was there before.\n",
     lore_cmd_digest},
    {"doctor", "[flags]", "check this machine, the models and the data folder",
     "Each line is OK, WARN or FAIL and says what to do. Exit code 1 when one is FAIL.\n",
     lore_cmd_doctor},
    {"config", "[flags]", "the configuration as it is",
     "With --explain every key with its default and meaning.\n", lore_cmd_config},
    {"version", "[flags]", "version and build", "", lore_cmd_version},
};
const int32_t lore_command_count = sizeof lore_commands / sizeof lore_commands[0];

/* ---- errors and output ---- */

static void print_error(const lore_cli *cli, const lore_error *err)
{
    fprintf(stderr, "lore: %s\n", err->message);
    if (cli->is_json) {
        lore_buf json;
        lore_buf_init(&json, 0);
        (void)lore_wire_error(err, &json);
        if (!lore_buf_failed(&json)) {
            printf("%s\n", lore_buf_c(&json));
        }
        lore_buf_destroy(&json);
    }
}

int lore_cli_fail(const lore_cli *cli, const lore_error *err)
{
    print_error(cli, err);
    return err->status == LORE_ERR_CANCELLED && lore_cli_is_interrupted() ? LORE_EXIT_INTERRUPTED
                                                                          : LORE_EXIT_FAILED;
}

int lore_cli_misuse(const lore_cli *cli, const char *format, ...)
{
    lore_error err = {.status = LORE_ERR_INVALID};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err.message, sizeof err.message, format, arguments);
    va_end(arguments);
    print_error(cli, &err);
    if (cli->command != NULL) {
        fprintf(stderr, "try `lore %s --help`\n", cli->command->name);
    } else {
        fprintf(stderr, "try `lore --help`\n");
    }
    return LORE_EXIT_USAGE;
}

int lore_cli_print_json(const lore_cli *cli, lore_buf *json)
{
    if (lore_buf_failed(json)) {
        lore_error err;
        lore_fail(&err, LORE_ERR_NOMEM, "no memory for the output");
        return lore_cli_fail(cli, &err);
    }
    fwrite(json->ptr, 1, json->len, stdout);
    fputc('\n', stdout);
    return LORE_EXIT_DONE;
}

int lore_cli_finish(const lore_cli *cli, int code)
{
    (void)cli;
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == LORE_EXIT_DONE) {
        fprintf(stderr, "lore: cannot write to standard output\n");
        return LORE_EXIT_FAILED;
    }
    return code;
}

/* ---- signals ---- */

static volatile sig_atomic_t was_interrupted;

static void on_signal(int number)
{
    (void)number;
    if (was_interrupted) {
        _exit(LORE_EXIT_INTERRUPTED);
    }
    was_interrupted = 1;
}

void lore_cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = 0};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool lore_cli_is_interrupted(void)
{
    return was_interrupted != 0;
}

/* ---- flags and configuration ---- */

static lore_status apply_set(lore_cli *cli, lore_error *err)
{
    for (int32_t i = 0; i < cli->set.count; i++) {
        lore_str item = lore_str_from(cli->set.items[i]);
        size_t equals = lore_str_find(item, LORE_STR("="), 0);
        if (equals == SIZE_MAX) {
            return lore_fail(err, LORE_ERR_INVALID, "--set must be KEY=VALUE, not '%s'",
                             cli->set.items[i]);
        }
        lore_status status = lore_config_set(&cli->config, lore_str_slice(item, 0, equals),
                                             lore_str_slice(item, equals + 1, item.len), err);
        if (status != LORE_OK) {
            return lore_error_prefix(err, "--set");
        }
    }
    return LORE_OK;
}

static lore_status apply_flags(lore_cli *cli, lore_error *err)
{
    const struct {
        const char *key, *value;
    } given[] = {{"data", cli->data},
                 {"device", cli->device},
                 {"limits.vram_bytes_max", cli->vram_limit},
                 {"chat_template", cli->chat_template},
                 {"log_level", cli->log_level}};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        if (given[i].value != NULL) {
            lore_status status = lore_config_set(&cli->config, lore_str_from(given[i].key),
                                                 lore_str_from(given[i].value), err);
            if (status != LORE_OK) {
                return status;
            }
        }
    }
    return apply_set(cli, err);
}

/* A model that was pulled may be called by its name on the hub. */
const char *lore_cli_model_folder(lore_cli *cli, const char *name)
{
    lore_str folder = lore_str_printf(&cli->arena, "%s/models/%s", cli->config.data, name);
    bool is_pulled = !lore_file_is_dir(name) && folder.ptr != NULL && strchr(name, '/') != NULL &&
                     strstr(name, "..") == NULL && lore_file_is_dir(folder.ptr);
    return is_pulled ? folder.ptr : name;
}

static void find_models(lore_cli *cli)
{
    char *settings[] = {cli->config.encoder, cli->config.decoder, cli->config.reranker};
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const char *folder = lore_cli_model_folder(cli, settings[i]);
        size_t size = strlen(folder) + 1;
        if (folder != settings[i] && size <= sizeof cli->config.encoder) {
            memcpy(settings[i], folder, size);
        }
    }
}

static lore_status load_config(lore_cli *cli, lore_error *err)
{
    lore_log_level level = LORE_LOG_WARN;
    lore_config_default(&cli->config);
    lore_status status = LORE_OK;
    if (cli->config_file != NULL) {
        status = lore_config_load(&cli->config, cli->config_file, err);
    }
    if (status == LORE_OK) {
        status = lore_config_environment(&cli->config, err);
    }
    if (status == LORE_OK) {
        status = apply_flags(cli, err);
    }
    if (status == LORE_OK) {
        find_models(cli);
        status = lore_log_parse_level(cli->config.log_level, &level, err);
    }
    if (status == LORE_OK) {
        lore_log_set_level(level);
    }
    return status;
}

enum { GLOBAL_FLAGS = 9 };

static lore_flag_table global_flags(lore_cli *cli, lore_flag flags[GLOBAL_FLAGS])
{
    const lore_flag rows[GLOBAL_FLAGS] = {
        {"data", 0, LORE_FLAG_TEXT, &cli->data, "DIR", "data folder ($LORE_DATA, ./lore-data)", 0,
         0},
        {"config", 0, LORE_FLAG_TEXT, &cli->config_file, "FILE",
         "read settings from a JSON file (see lore config --explain)", 0, 0},
        {"device", 0, LORE_FLAG_TEXT, &cli->device, "DEVICE",
         "auto (a GPU, if one can be used), cpu, ref, cuda or cuda:N", 0, 0},
        {"vram-limit", 0, LORE_FLAG_TEXT, &cli->vram_limit, "SIZE",
         "memory of a GPU for the decoder, as 24G or 24000M (four fifths of what is free)", 0, 0},
        {"set", 0, LORE_FLAG_LIST, &cli->set, "KEY=VALUE", "set any key of the configuration", 0,
         0},
        {"chat-template", 0, LORE_FLAG_TEXT, &cli->chat_template, "NAME|FILE",
         "auto (the decoder's own), chatml, llama2, llama3, mistral, alpaca or a file", 0, 0},
        {"log-level", 0, LORE_FLAG_TEXT, &cli->log_level, "LEVEL", "error, warn, info or debug", 0,
         0},
        {"json", 0, LORE_FLAG_SWITCH, &cli->is_json, NULL, "one JSON object on standard output", 0,
         0},
        {"help", 'h', LORE_FLAG_SWITCH, &cli->is_help, NULL, "this text", 0, 0},
    };
    memcpy(flags, rows, sizeof rows);
    return (lore_flag_table){flags, GLOBAL_FLAGS};
}

static int print_command_help(const lore_cli *cli, const lore_flag_table *own,
                              const lore_flag_table *global)
{
    lore_buf out;
    lore_buf_init(&out, 0);
    lore_buf_printf(&out, "usage: lore %s %s\n\n%s\n", cli->command->name, cli->command->usage,
                    cli->command->sentence);
    if (cli->command->text[0] != '\0') {
        lore_buf_printf(&out, "\n%s", cli->command->text);
    }
    if (own->count > 0) {
        lore_buf_printf(&out, "\nflags:\n");
        lore_flags_print(own, &out);
    }
    lore_buf_printf(&out, "\nglobal flags:\n");
    lore_flags_print(global, &out);
    fputs(lore_buf_c(&out), stdout);
    lore_buf_destroy(&out);
    return LORE_EXIT_DONE;
}

int lore_cli_parse(lore_cli *cli, const lore_flag *flags, int32_t flag_count, int argc, char **argv,
                   lore_flag_list *others)
{
    lore_error err;
    lore_flag global[GLOBAL_FLAGS];
    int32_t used = 0;
    lore_flag_table tables[2] = {{flags, flag_count}, global_flags(cli, global)};
    lore_status status =
        lore_flags_parse(tables, 2, argv + 1, argc - 1, false, &cli->arena, others, &used, &err);
    if (status != LORE_OK) {
        return status == LORE_ERR_INVALID ? lore_cli_misuse(cli, "%s", err.message)
                                          : lore_cli_fail(cli, &err);
    }
    if (cli->is_help) {
        return print_command_help(cli, &tables[0], &tables[1]);
    }
    status = load_config(cli, &err);
    if (status != LORE_OK) {
        return status == LORE_ERR_INVALID || status == LORE_ERR_LIMIT
                   ? lore_cli_misuse(cli, "%s", err.message)
                   : lore_cli_fail(cli, &err);
    }
    return LORE_EXIT_CONTINUE;
}

lore_str lore_cli_server(const lore_cli *cli, lore_arena *arena)
{
    lore_buf holder;
    lore_error err;
    lore_str address = {NULL, 0};
    lore_buf_init(&holder, 0);
    if (lore_index_holder(cli->config.data, &holder, &err) == LORE_OK) {
        lore_str text = lore_str_trim(lore_buf_str(&holder));
        if (lore_str_starts(text, LORE_STR("http://"))) {
            address = lore_str_copy(arena, text);
        }
    }
    lore_buf_destroy(&holder);
    return address;
}

/* ---- main ---- */

static int print_help(FILE *out)
{
    fputs("lore answers questions from your documents, and shows where each answer stands.\n\n"
          "usage: lore COMMAND [flags]\n\n",
          out);
    for (int32_t i = 0; i < lore_command_count; i++) {
        fprintf(out, "  %-12s %s\n", lore_commands[i].name, lore_commands[i].sentence);
    }
    fputs("\nTwo commands to start with:\n"
          "  lore ingest FOLDER\n"
          "  lore query \"How do I reset the router?\"\n\n"
          "`lore COMMAND --help` lists the flags of a command.\n",
          out);
    return LORE_EXIT_DONE;
}

static const lore_command *find_command(const char *name)
{
    for (int32_t i = 0; i < lore_command_count; i++) {
        if (strcmp(lore_commands[i].name, name) == 0) {
            return &lore_commands[i];
        }
    }
    return NULL;
}

static int run(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag global[GLOBAL_FLAGS];
    lore_flag_list none = {0};
    int32_t used = 0;
    bool is_version = argc == 2 && strcmp(argv[1], "--version") == 0;
    lore_flag_table table = global_flags(cli, global);
    if (!is_version && lore_flags_parse(&table, 1, argv + 1, argc - 1, true, &cli->arena, &none,
                                        &used, &err) != LORE_OK) {
        return lore_cli_misuse(cli, "%s", err.message);
    }
    argc -= used + 1;
    argv += used + 1;
    if (argc == 0) {
        if (cli->is_help) {
            return print_help(stdout);
        }
        print_help(stderr);
        return LORE_EXIT_USAGE;
    }
    const char *name = is_version ? "version" : argv[0];
    if (strcmp(name, "help") == 0) {
        return print_help(stdout);
    }
    cli->command = find_command(name);
    if (cli->command == NULL) {
        return lore_cli_misuse(cli, "there is no command '%s'", name);
    }
    return cli->command->run(cli, is_version ? 1 : argc, argv);
}

int main(int argc, char **argv)
{
    static lore_cli cli; /* large: the configuration with its limits */
    lore_arena_init(&cli.arena, 0);
    int code = lore_cli_finish(&cli, run(&cli, argc, argv));
    lore_arena_destroy(&cli.arena);
    return code;
}
