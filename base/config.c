/* Configuration: two tables, from which everything else follows.
 *
 * LIMITS and SETTINGS name every field of lore_limits and lore_config once, with default, bounds
 * and a sentence. They are expanded into the array `settings` (key, kind, place, bounds), and
 * defaults, file, environment, flags and `lore config --explain` are loops over that array. Static
 * assertions see to it that a field has the type its row says and that no field is without a row.
 */
#include "base/config_int.h"

#include "base/file.h"
#include "base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define HOUR_MS INT64_C(3600000)

enum { PATH_CAP = 1024 };

/* clang-format off */

/* INTEGER(name, default, min, max, sentence) */
#define LIMITS(INTEGER)                                                                            \
    INTEGER(body_bytes_max, 16 * MIB, KIB, GIB, "bytes of one request body")                       \
    INTEGER(header_bytes_max, 32 * KIB, KIB, MIB,                                                  \
            "bytes of the request line and headers of one connection")                             \
    INTEGER(connections_max, 256, 1, 4096, "open connections, each with a thread")                 \
    INTEGER(connections_per_ip_max, 64, 1, 4096, "open connections from one address")              \
    INTEGER(idle_timeout_ms, 30000, 100, HOUR_MS,                                                  \
            "milliseconds after which a connection that sends nothing is closed")                  \
    INTEGER(request_timeout_ms, 120000, 100, HOUR_MS,                                              \
            "milliseconds from the arrival of a request to its last byte")                         \
    INTEGER(drain_timeout_ms, 20000, 0, HOUR_MS,                                                   \
            "milliseconds that open requests get to finish after SIGTERM")                         \
    INTEGER(json_depth_max, 32, 4, LORE_JSON_DEPTH_MAX, "levels of nesting in JSON from outside")  \
    INTEGER(question_bytes_max, 8192, 1, MIB, "bytes of one question")                             \
    INTEGER(history_messages_max, 32, 0, 1024, "earlier messages sent with a question")            \
    INTEGER(history_bytes_max, 65536, 0, 16 * MIB, "bytes of these messages in all")               \
    INTEGER(top_k_max, 50, 1, 1000, "passages that one query may ask for")                         \
    INTEGER(stop_strings_max, 8, 0, 64, "stop strings of one request")                             \
    INTEGER(stop_bytes_max, 256, 1, 4096, "bytes of one stop string")                              \
    INTEGER(filter_nodes_max, 64, 1, 4096, "comparisons and junctions in one filter")              \
    INTEGER(variables_max, 64, 0, 1024, "prompt variables of one request")                         \
    INTEGER(arena_bytes_max, 64 * MIB, MIB, 16 * GIB,                                              \
            "bytes of memory for one request or one document")                                     \
    INTEGER(file_bytes_max, 64 * MIB, 1, 16 * GIB, "bytes of one source file")                     \
    INTEGER(document_bytes_max, 32 * MIB, 1, GIB, "bytes of the cleaned text of one document")     \
    INTEGER(document_chunks_max, 65536, 1, 16777216, "chunks of one document")                     \
    INTEGER(metadata_bytes_max, 65536, 2, 16 * MIB, "bytes of JSON metadata of one document")      \
    INTEGER(id_bytes_max, 512, 16, 4096, "bytes of a document id")                                 \
    INTEGER(jsonl_line_bytes_max, 32 * MIB, KIB, GIB, "bytes of one JSONL line")                   \
    INTEGER(markup_depth_max, 256, 8, 4096, "levels of nesting in HTML and XML")                   \
    INTEGER(archive_depth_max, 4, 1, 16, "archives and messages inside one another")               \
    INTEGER(unpacked_bytes_max, 256 * MIB, MIB, 1024 * GIB,                                        \
            "bytes that one packed file unpacks to")                                               \
    INTEGER(fetch_timeout_ms, 120000, 100, HOUR_MS, "milliseconds of one request to the web")      \
    INTEGER(fetch_redirects_max, 5, 0, 64, "redirects from a URL to its page")                     \
    INTEGER(fetch_pages_max, 50000, 1, 100000000, "URLs of one sitemap, and of one run")           \
    INTEGER(fetch_connections_max, 8, 1, 256, "requests at one time, two of them to one host")     \
    INTEGER(pdf_ms_max, 4000, 100, HOUR_MS,                                                        \
            "milliseconds that pdftotext may take for each started MiB of a PDF")                  \
    INTEGER(pdf_memory_bytes_max, 480 * MIB, 32 * MIB, 1024 * GIB,                                 \
            "bytes of address space that pdftotext may use")                                       \
    INTEGER(folder_depth_max, 32, 1, 256, "levels of folders below an ingested path")              \
    INTEGER(folder_entries_max, 1000000, 1, 1000000000, "entries of one ingested folder")          \
    INTEGER(candidates_max, 200, 1, 10000, "candidates that each retriever hands to the fusion")   \
    INTEGER(query_terms_max, 128, 1, 4096, "full-text terms of one question")                      \
    INTEGER(row_budget, 30000, 1, 1000000000, "rows that one full-text query may touch")           \
    INTEGER(row_budget_min_chunks, 20000, 0, 1000000000,                                           \
            "chunks of a collection below which no term of a question is dropped")                 \
    INTEGER(batch_sequences_max, 0, 0, 1024,                                                       \
            "answers that are decoded together; 0: 32, on a GPU 128")                              \
    INTEGER(step_tokens_max, 0, 0, 65536,                                                          \
            "rows of one step of the decoder; 0: 512, on a GPU 1024")                              \
    INTEGER(step_ms_max, 30, 0, 60000,                                                             \
            "milliseconds of a step that running answers wait for: prompts are read in pieces of " \
            "about so long; 0: whole prompts")                                                     \
    INTEGER(queue_requests_max, 256, 1, 65536,                                                     \
            "requests that may wait for the decoder; the next one is refused")                     \
    INTEGER(answer_tokens_max, 1024, 1, 131072, "tokens that one answer may ask for")              \
    INTEGER(prompt_tokens_max, 8192, 64, 1048576,                                                  \
            "tokens of a prompt, or the model's context where that is smaller")                    \
    INTEGER(kv_bytes_max, 0, 0, 1024 * GIB,                                                        \
            "bytes of keys and values of all answers; 0: 512 MiB, on a GPU what fits")             \
    INTEGER(kv_cached_bytes_max, 0, 0, 1024 * GIB,                                                 \
            "bytes of these kept for prompts that begin alike; 0: 64 MiB, on a GPU all of them")   \
    INTEGER(vram_bytes_max, 0, 0, 1024 * GIB,                                                      \
            "bytes of a GPU's memory for the decoder; 0: keys and values take what all sequences " \
            "can use, within four fifths of what its weights leave free")                          \
    INTEGER(model_file_bytes_max, 64 * GIB, KIB, 1024 * GIB, "bytes of one file of weights")       \
    INTEGER(model_header_bytes_max, 64 * MIB, KIB, GIB, "bytes of a safetensors header")           \
    INTEGER(model_json_bytes_max, 64 * MIB, KIB, GIB, "bytes of config.json or tokenizer.json")    \
    INTEGER(adapter_file_bytes_max, 8 * GIB, KIB, 1024 * GIB, "bytes of the file of an adapter")   \
    INTEGER(adapter_rank_max, 512, 1, 65536, "rank of an adapter")                                 \
    INTEGER(adapters_max, 4096, 0, 1048576, "adapters that have a name; 0: adapters are off")      \
    INTEGER(adapter_bytes_max, 0, 0, 1024 * GIB,                                                   \
            "bytes of adapters in the decoder's memory; 0: 1 GiB, of a GPU a sixteenth of what "   \
            "is free, 8 GiB at most, which nobody else gets where adapters are named at start")    \
    INTEGER(adapter_host_bytes_max, 0, 0, 1024 * GIB,                                              \
            "bytes of adapters kept in host memory to be there sooner again; 0: 256 MiB, for a "   \
            "decoder on a GPU 4 GiB")                                                              \
    INTEGER(encoder_tokens_max, 8192, 16, 131072,                                                  \
            "tokens of one text that an encoder reads, or the model's maximum where that is less")

/* TEXT(name, default, choices or NULL, sentence)     INSTALLED(name, folder to look for, sentence)
 * INTEGER as above    NUMBER(name, default, min, max, sentence)    FLAG(name, default, sentence) */
#define SETTINGS(TEXT, INSTALLED, INTEGER, NUMBER, FLAG)                                           \
    TEXT(data, "./lore-data", NULL, "folder of the database and all files made from it")           \
    TEXT(device, "auto", "auto|ref|cpu|cuda|cuda:N", "where the networks run; auto: a GPU if any") \
    TEXT(precision, "auto", "auto|f32|bf16|int8", "numbers in which the CPU multiplies matrices")  \
    TEXT(kv_dtype, "auto", "auto|f32|bf16", "numbers in which keys and values are kept")           \
    INSTALLED(encoder, "weights/encoder", "folder of the model that turns text into vectors")      \
    TEXT(reranker, "none", NULL,                                                                   \
         "folder of the model that reads question and passage together; none: no reranking")       \
    INSTALLED(decoder, "weights/decoder",                                                          \
              "folder of the model that writes answers; none: answers are only quoted")            \
    TEXT(chat_template, "auto", NULL,                                                              \
         "how conversations are written for the decoder: auto (as its folder says), chatml, "      \
         "llama2, llama3, mistral, alpaca, or a file")                                             \
    TEXT(adapters, "none", NULL,                                                                   \
         "LoRA adapters of the decoder, with commas between them: NAME=FOLDER, or a folder whose " \
         "folders are adapters; none: no others than are loaded while serving")                    \
    TEXT(adapters_pinned, "none", NULL,                                                            \
         "names of adapters, with commas between them, that never leave the decoder's memory")     \
    INSTALLED(prompts, "prompts", "folder of the prompt templates")                                \
    TEXT(listen, "127.0.0.1:8080", NULL, "address and port of the HTTP service")                   \
    TEXT(log_level, "warn", "error|warn|info|debug", "least important events that are logged")     \
    INTEGER(threads, 0, 0, 1024, "threads that compute; 0: all cores this process may use")        \
    TEXT(json_map, "none", NULL,                                                                   \
         "parts of documents in JSON of others, FIELD=PATH with commas between them; fields are "  \
         "id, title, text, markdown, html, url, date, metadata and items (the array)")             \
    INTEGER(chunk_tokens, 200, 16, 8192, "tokens that a chunk of a document aims at")              \
    INTEGER(chunk_overlap_sentences, 1, 0, 16, "sentences that a chunk shares with the last one")  \
    FLAG(fetch_private_addresses, false,                                                           \
         "ingest from URLs that lead to private, loopback or link-local addresses")                \
    INTEGER(commit_documents, 32, 1, 65536, "documents written in one transaction at most")        \
    INTEGER(commit_ms, 500, 1, 60000,                                                              \
            "milliseconds after which a transaction is committed with what has arrived")           \
    INTEGER(request_log_rows, 1000000, 0, 1000000000,                                              \
            "requests that log.db keeps, the youngest; 0: neither requests nor usage are logged")  \
    FLAG(request_log_questions, false, "keep the text of questions in log.db")                     \
    INTEGER(top_k, 5, 1, 1000, "passages that a query gets unless it asks for another number")     \
    NUMBER(fusion_weight, 0.3, 0.0, 1.0,                                                           \
           "share of the vector score in a passage's score; the rest is full text")                \
    NUMBER(expansion, 0.0, 0.0, 1.0,                                                               \
           "share of terms of the best passages in a second full-text search; 0: none")            \
    FLAG(fusion_rrf, false, "join the two rankings by reciprocal rank instead of by score")        \
    INTEGER(rerank_pairs, 20, 1, 50, "passages that the reranker reads for one query")             \
    INTEGER(rerank_ms, 300, 1, 60000,                                                              \
            "milliseconds of reranking after which a query keeps its passages as they were found") \
    INTEGER(ann_min_vectors, 200000, 1, 1000000000,                                                \
            "vectors of a collection above which FAISS sorts them and searches read a part")       \
    NUMBER(refuse_below, 0.26, 0.0, 1.0, "evidence score below which a question is not answered") \
    NUMBER(guard_ratio, 0.95, 0.0, 1.0,                                                            \
           "share of the best evidence score that each sentence of an answer must reach")          \
    NUMBER(extract_ratio, 0.85, 0.0, 1.0,                                                          \
           "a second sentence joins an extractive answer when it scores this share of the first")  \
    INTEGER(evidence_hits, 6, 1, 200, "passages whose sentences are ranked")                       \
    FLAG(guard, true, "hold each sentence of the decoder against the evidence")                    \
    INTEGER(evidence_passages, 3, 1, 64, "passages that the prompt holds")                         \
    INTEGER(evidence_sentences, 3, 1, 64, "sentences of each of these passages")                   \
    INTEGER(max_tokens, 256, 1, 131072, "tokens of an answer unless the query says otherwise")

/* clang-format on */

/* ---- the tables expanded ---- */

#define FIELD(name) (((lore_config *)NULL)->name)

#define LIMIT_ROW(name, value, min, max, text)     \
    {.key = "limits." #name,                       \
     .kind = LORE_SETTING_INTEGER,                 \
     .offset = offsetof(lore_config, limits.name), \
     .integer_default = (value),                   \
     .integer_min = (min),                         \
     .integer_max = (max),                         \
     .sentence = (text)},
#define INTEGER_ROW(name, value, min, max, text) \
    {.key = #name,                               \
     .kind = LORE_SETTING_INTEGER,               \
     .offset = offsetof(lore_config, name),      \
     .integer_default = (value),                 \
     .integer_min = (min),                       \
     .integer_max = (max),                       \
     .sentence = (text)},
#define NUMBER_ROW(name, value, min, max, text) \
    {.key = #name,                              \
     .kind = LORE_SETTING_NUMBER,               \
     .offset = offsetof(lore_config, name),     \
     .number_default = (value),                 \
     .number_min = (min),                       \
     .number_max = (max),                       \
     .sentence = (text)},
#define FLAG_ROW(name, value, text)         \
    {.key = #name,                          \
     .kind = LORE_SETTING_FLAG,             \
     .offset = offsetof(lore_config, name), \
     .flag_default = (value),               \
     .sentence = (text)},
#define TEXT_ROW(name, value, allowed, text) \
    {.key = #name,                           \
     .kind = LORE_SETTING_TEXT,              \
     .offset = offsetof(lore_config, name),  \
     .cap = sizeof(FIELD(name)),             \
     .text_default = (value),                \
     .choices = (allowed),                   \
     .sentence = (text)},
#define INSTALLED_ROW(name, value, text)    \
    {.key = #name,                          \
     .kind = LORE_SETTING_TEXT,             \
     .offset = offsetof(lore_config, name), \
     .cap = sizeof(FIELD(name)),            \
     .is_installed = true,                  \
     .text_default = (value),               \
     .sentence = (text)},

static const lore_setting settings[] = {
    SETTINGS(TEXT_ROW, INSTALLED_ROW, INTEGER_ROW, NUMBER_ROW, FLAG_ROW) LIMITS(LIMIT_ROW)};

enum { SETTINGS_COUNT = sizeof settings / sizeof settings[0] };

#define IS_TYPE(name, type) _Generic(FIELD(name), type : 1, default : 0)
#define CHECK_LIMIT(name, ...) static_assert(IS_TYPE(limits.name, int64_t), #name " is no integer");
#define CHECK_INTEGER(name, ...) static_assert(IS_TYPE(name, int64_t), #name " is no integer");
#define CHECK_NUMBER(name, ...) static_assert(IS_TYPE(name, double), #name " is no number");
#define CHECK_FLAG(name, ...) static_assert(IS_TYPE(name, bool), #name " is no flag");
#define CHECK_TEXT(name, ...) static_assert(IS_TYPE(name, char *), #name " is no text");
#define SIZE_OF_LIMIT(name, ...) +sizeof(FIELD(limits.name))
#define SIZE_OF(name, ...) +sizeof(FIELD(name))
#define SIZE_OF_FLAG(name, ...) +sizeof(int64_t) /* with what pads it to the next field */

LIMITS(CHECK_LIMIT)
SETTINGS(CHECK_TEXT, CHECK_TEXT, CHECK_INTEGER, CHECK_NUMBER, CHECK_FLAG)
static_assert(sizeof(lore_limits) == 0 LIMITS(SIZE_OF_LIMIT), "every limit has a row");
static_assert(sizeof(lore_config) - sizeof(lore_limits) <=
                  0 SETTINGS(SIZE_OF, SIZE_OF, SIZE_OF, SIZE_OF, SIZE_OF_FLAG),
              "every field has a row");

/* ---- access ---- */

static void *field_of(lore_config *config, const lore_setting *s)
{
    return (char *)config + s->offset;
}

static const void *value_of(const lore_config *config, const lore_setting *s)
{
    return (const char *)config + s->offset;
}

const lore_setting *lore_settings(size_t *count)
{
    *count = SETTINGS_COUNT;
    return settings;
}

/* LORE_TOP_K, LORE_LIMITS_BODY_BYTES_MAX */
void lore_setting_variable(const lore_setting *s, char out[LORE_SETTING_VARIABLE_CAP])
{
    snprintf(out, LORE_SETTING_VARIABLE_CAP, "LORE_%s", s->key);
    for (char *at = out; *at != '\0'; at++) {
        if (*at == '.') {
            *at = '_';
        } else if (*at >= 'a' && *at <= 'z') {
            *at = (char)(*at - ('a' - 'A'));
        }
    }
}

/* ---- defaults ---- */

/* The folder above the program's own: the repository of build/lore, the prefix of bin/lore. */
static bool program_root(char out[PATH_CAP])
{
    ssize_t length = readlink("/proc/self/exe", out, PATH_CAP);
    if (length <= 0 || length >= PATH_CAP) {
        return false;
    }
    out[length] = '\0';
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(out, '/');
        if (slash == NULL) {
            return false;
        }
        *slash = '\0';
    }
    return true;
}

/* Where the program keeps a folder of its own: beside the build, else below the install prefix.
 * What is not found keeps the first place, so that the error of whoever opens it names a sensible
 * path. */
static void find_installed(const char *name, char *out, size_t cap)
{
    static const char *const places[] = {"", "/share/lore"};
    char root[PATH_CAP];
    if (!program_root(root)) {
        snprintf(out, cap, "%s", name);
        return;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char path[2 * PATH_CAP];
        int length = snprintf(path, sizeof path, "%s%s/%s", root, places[i], name);
        bool fits = length > 0 && (size_t)length < cap;
        if (fits && (i == 0 || lore_file_is_dir(path))) {
            memcpy(out, path, (size_t)length + 1);
        }
        if (fits && lore_file_is_dir(path)) {
            return;
        }
    }
}

void lore_config_default(lore_config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        const lore_setting *s = &settings[i];
        void *field = field_of(config, s);
        switch (s->kind) {
        case LORE_SETTING_INTEGER:
            *(int64_t *)field = s->integer_default;
            break;
        case LORE_SETTING_NUMBER:
            *(double *)field = s->number_default;
            break;
        case LORE_SETTING_FLAG:
            *(bool *)field = s->flag_default;
            break;
        case LORE_SETTING_TEXT:
            if (s->is_installed) {
                find_installed(s->text_default, field, s->cap);
            } else {
                snprintf(field, s->cap, "%s", s->text_default);
            }
            break;
        }
    }
}

/* ---- relations ---- */

/* Where one of the two is named, the other keeps to it: a row for each answer, at least. */
void lore_limits_settle(lore_limits *limits, bool is_gpu)
{
    const int64_t rows = is_gpu ? 1024 : 512, answers = is_gpu ? 128 : 32;
    if (limits->batch_sequences_max == 0) {
        const int64_t most = limits->step_tokens_max;
        limits->batch_sequences_max = most > 0 && most < answers ? most : answers;
    }
    if (limits->step_tokens_max == 0) {
        const int64_t least = limits->batch_sequences_max;
        limits->step_tokens_max = least > rows ? least : rows;
    }
}

lore_status lore_config_check(const lore_config *config, lore_error *err)
{
    const lore_limits *limits = &config->limits;
    lore_limits settled = *limits;
    lore_limits_settle(&settled, false);
    const struct {
        const char *smaller_key, *larger_key;
        int64_t smaller, larger;
    } relations[] = {
        {"top_k", "limits.top_k_max", config->top_k, limits->top_k_max},
        {"limits.top_k_max", "limits.candidates_max", limits->top_k_max, limits->candidates_max},
        {"max_tokens", "limits.answer_tokens_max", config->max_tokens, limits->answer_tokens_max},
        {"limits.question_bytes_max", "limits.body_bytes_max", limits->question_bytes_max,
         limits->body_bytes_max},
        {"limits.batch_sequences_max", "limits.step_tokens_max", settled.batch_sequences_max,
         settled.step_tokens_max},
        {"limits.document_bytes_max", "limits.arena_bytes_max", limits->document_bytes_max,
         limits->arena_bytes_max},
        {"limits.metadata_bytes_max", "limits.body_bytes_max", limits->metadata_bytes_max,
         limits->body_bytes_max},
    };
    for (size_t i = 0; i < sizeof relations / sizeof relations[0]; i++) {
        if (relations[i].smaller > relations[i].larger) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "%s (%" PRId64 ") must not be more than %s (%" PRId64 ")",
                             relations[i].smaller_key, relations[i].smaller,
                             relations[i].larger_key, relations[i].larger);
        }
    }
    return LORE_OK;
}

/* ---- printing ---- */

static void print_value(lore_json_writer *w, const char *key, const lore_config *config,
                        const lore_setting *s)
{
    const void *value = value_of(config, s);
    switch (s->kind) {
    case LORE_SETTING_INTEGER:
        lore_json_int(w, key, *(const int64_t *)value);
        break;
    case LORE_SETTING_NUMBER:
        lore_json_float(w, key, *(const double *)value);
        break;
    case LORE_SETTING_FLAG:
        lore_json_boolean(w, key, *(const bool *)value);
        break;
    case LORE_SETTING_TEXT:
        lore_json_string(w, key, lore_str_from(value));
        break;
    }
}

static void print_json(const lore_config *config, lore_buf *out)
{
    static const char prefix[] = "limits.";
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    bool in_limits = false;
    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        const lore_setting *s = &settings[i];
        bool is_limit = strncmp(s->key, prefix, sizeof prefix - 1) == 0;
        if (is_limit && !in_limits) {
            lore_json_object(&w, "limits"); /* the limits are the tail of the table */
            in_limits = true;
        }
        print_value(&w, is_limit ? s->key + sizeof prefix - 1 : s->key, config, s);
    }
    if (in_limits) {
        lore_json_end(&w);
    }
    lore_json_end(&w);
}

static void print_explained(const lore_config *config, const lore_config *defaults,
                            const lore_setting *s, lore_buf *out)
{
    char variable[LORE_SETTING_VARIABLE_CAP];
    lore_setting_variable(s, variable);
    lore_json_writer w;
    lore_buf_printf(out, "%s = ", s->key);
    lore_json_write_begin(&w, out);
    print_value(&w, NULL, config, s);
    lore_buf_printf(out, "\n    %s\n    default ", s->sentence);
    print_value(&w, NULL, defaults, s);
    if (s->kind == LORE_SETTING_INTEGER) {
        lore_buf_printf(out, ", %" PRId64 " to %" PRId64, s->integer_min, s->integer_max);
    } else if (s->kind == LORE_SETTING_NUMBER) {
        lore_buf_printf(out, ", %g to %g", s->number_min, s->number_max);
    } else if (s->choices != NULL) {
        lore_buf_printf(out, ", one of %s", s->choices);
    }
    lore_buf_printf(out, "; %s\n", variable);
}

void lore_config_print(const lore_config *config, bool explain, lore_buf *out)
{
    if (!explain) {
        print_json(config, out);
        return;
    }
    lore_config defaults;
    lore_config_default(&defaults);
    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        print_explained(config, &defaults, &settings[i], out);
    }
}
