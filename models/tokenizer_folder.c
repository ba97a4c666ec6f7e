/* Which of a folder's files holds its tokenizer: tokenizer.json, or one that a reader rewrites as
 * such; and the hash of those files, by which a data folder knows its encoder again. */
#include "models/model_folder_int.h"
#include "models/tokenizer_files_int.h"
#include "models/tokenizer_load_int.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

enum { NAME_CAP = 256, ENTRIES_MAX = 10000 };

typedef enum file_format {
    FORMAT_JSON,
    FORMAT_MODEL,    /* sentencepiece, or tiktoken under the same name */
    FORMAT_FAIRSEQ,  /* sentencepiece with ids of its own */
    FORMAT_TIKTOKEN, /* the name is looked for */
    FORMAT_GPT2,     /* two files */
    FORMAT_BERT
} file_format;

static const struct {
    const char *file;
    const char *second;
    file_format format;
} KNOWN[] = {{"tokenizer.json", NULL, FORMAT_JSON},
             {"tokenizer.model", NULL, FORMAT_MODEL},
             {"spiece.model", NULL, FORMAT_MODEL},
             {NULL, NULL, FORMAT_TIKTOKEN},
             {"sentencepiece.bpe.model", NULL, FORMAT_FAIRSEQ},
             {"vocab.json", "merges.txt", FORMAT_GPT2},
             {"encoder.json", "vocab.bpe", FORMAT_GPT2},
             {"vocab.txt", NULL, FORMAT_BERT}};

/* The first in the alphabet of the folder's *.tiktoken; false where there is none. */
static bool find_tiktoken(const char *folder, char name[NAME_CAP])
{
    DIR *dir = opendir(folder);
    bool is_found = false;
    for (int i = 0; dir != NULL && i < ENTRIES_MAX; i++) {
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            break;
        }
        lore_str own = lore_str_from(entry->d_name);
        bool is_first = !is_found || strcmp(entry->d_name, name) < 0;
        if (own.len < NAME_CAP && lore_str_ends(own, LORE_STR(".tiktoken")) && is_first) {
            memcpy(name, own.ptr, own.len + 1);
            is_found = true;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return is_found;
}

typedef struct folder_reader {
    const char *folder;
    const lore_limits *limits;
    lore_json *config; /* NULL: the folder has none */
    lore_tokenizer_family family;
    lore_buf first, second, json;
    lore_error *err;
} folder_reader;

/* The config's class, else the network's type: transformers takes the one for the other. */
static lore_tokenizer_family family_of(lore_str class, lore_str model_type)
{
    static const struct {
        const char *class; /* as it begins */
        const char *model_types[2];
        lore_tokenizer_family family;
    } FAMILIES[] = {{"Llama", {"llama", NULL}, LORE_FAMILY_LLAMA},
                    {"Qwen", {"qwen2", "qwen3"}, LORE_FAMILY_QWEN},
                    {"QWen", {"qwen", NULL}, LORE_FAMILY_QWEN},
                    {"Roberta", {"roberta", NULL}, LORE_FAMILY_ROBERTA},
                    {"XLMRoberta", {"xlm-roberta", NULL}, LORE_FAMILY_XLM_ROBERTA}};
    for (size_t i = 0; i < sizeof FAMILIES / sizeof FAMILIES[0]; i++) {
        bool is_named = class.len > 0 && lore_str_starts(class, lore_str_from(FAMILIES[i].class));
        for (size_t k = 0; k < 2 && class.len == 0; k++) {
            const char *type = FAMILIES[i].model_types[k];
            is_named =
                is_named || (type != NULL && lore_str_equal(model_type, lore_str_from(type)));
        }
        if (is_named) {
            return FAMILIES[i].family;
        }
    }
    return LORE_FAMILY_OTHER;
}

/* tokenizer_config.json and the family; the folder may lack either file that tells it. */
static lore_status read_config(folder_reader *r)
{
    lore_json *network = NULL;
    lore_status status = LORE_OK;
    if (lore_model_has(r->folder, "tokenizer_config.json")) {
        status = lore_model_json(r->folder, "tokenizer_config.json", r->limits, &r->config, r->err);
    }
    if (status == LORE_OK && lore_model_has(r->folder, "config.json")) {
        status = lore_model_json(r->folder, "config.json", r->limits, &network, r->err);
    }
    r->family = family_of(lore_json_str(lore_json_get(r->config, "tokenizer_class")),
                          lore_json_str(lore_json_get(network, "model_type")));
    lore_json_free(network);
    return status;
}

/* Rewrite what was read as a tokenizer.json and load that. */
static lore_status convert(folder_reader *r, file_format format, const char *path,
                           lore_tokenizer **tokenizer)
{
    lore_normalizer_spec spec;
    lore_str text = lore_buf_str(&r->first);
    bool is_pieces =
        format == FORMAT_FAIRSEQ || (format == FORMAT_MODEL && !lore_tiktoken_is(text));
    if (format == FORMAT_FAIRSEQ && r->family != LORE_FAMILY_XLM_ROBERTA) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "'%s': how ids are counted is known of XLM-RoBERTa only (model_type "
                         "xlm-roberta in config.json); other families need a tokenizer.json",
                         path);
    }
    lore_tokenizer_family family =
        format == FORMAT_MODEL && is_pieces ? LORE_FAMILY_OTHER : r->family;
    lore_status status =
        is_pieces ? lore_sentencepiece_read(text, r->config, family, &r->json, &spec, r->err)
        : format == FORMAT_BERT ? lore_bert_vocab_read(text, r->config, &r->json, r->err)
        : format == FORMAT_GPT2 ? lore_gpt2_vocab_read(text, lore_buf_str(&r->second), r->config,
                                                       family, &r->json, r->err)
                                : lore_tiktoken_read(text, r->config, family, &r->json, r->err);
    return status == LORE_OK ? lore_loader_parse(lore_buf_str(&r->json), path,
                                                 is_pieces ? &spec : NULL, tokenizer, r->err)
                             : lore_model_blame(r->err, status, path);
}

/* A tokenizer.json without a template: what stands round texts is said by tokenizer_config.json, as
 * in transformers since version 5. */
static lore_status add_ends(folder_reader *r, lore_tokenizer *t)
{
    static const char *const KEYS[2][2] = {{"add_bos_token", "bos_token"},
                                           {"add_eos_token", "eos_token"}};
    int32_t **const ends[2] = {&t->prefix, &t->suffix};
    int32_t *const counts[2] = {&t->prefix_count, &t->suffix_count};
    lore_status status = read_config(r);
    for (int i = 0; i < 2 && status == LORE_OK; i++) {
        lore_str token = lore_tokenizer_token(r->config, KEYS[i][1], "");
        if (!lore_tokenizer_flag(r->config, KEYS[i][0], false) || token.len == 0) {
            continue;
        }
        *ends[i] = LORE_PUSH(&t->arena, int32_t, 1);
        if (*ends[i] == NULL) {
            return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for the tokenizer");
        }
        **ends[i] = lore_tokenizer_id(t, token);
        *counts[i] = 1;
        if (**ends[i] < 0) {
            status = lore_fail(r->err, LORE_ERR_CORRUPT,
                               "'%s/tokenizer_config.json': %s '" LORE_STR_FMT
                               "' is not in the vocabulary",
                               r->folder, KEYS[i][1], LORE_STR_ARG(token));
        }
    }
    return status;
}

static lore_status read_files(folder_reader *r, const char *file, const char *second,
                              file_format format, lore_tokenizer **tokenizer)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", r->folder, file); /* for messages: may be cut */
    lore_status status = lore_model_read(r->folder, file, r->limits, &r->first, r->err);
    if (status == LORE_OK && second != NULL) {
        status = lore_model_read(r->folder, second, r->limits, &r->second, r->err);
    }
    if (status == LORE_OK && format == FORMAT_JSON) {
        status = lore_tokenizer_parse(lore_buf_str(&r->first), path, tokenizer, r->err);
        if (status == LORE_OK && (*tokenizer)->prefix == NULL) {
            status = add_ends(r, *tokenizer);
        }
        if (status != LORE_OK) {
            lore_tokenizer_close(*tokenizer);
            *tokenizer = NULL;
        }
        return status;
    }
    if (status == LORE_OK) {
        status = read_config(r);
    }
    return status == LORE_OK ? convert(r, format, path, tokenizer) : status;
}

static lore_status open_folder(folder_reader *r, lore_tokenizer **tokenizer)
{
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
        char name[NAME_CAP];
        const char *file = KNOWN[i].file;
        if (KNOWN[i].format == FORMAT_TIKTOKEN) {
            file = find_tiktoken(r->folder, name) ? name : NULL;
        }
        bool is_there = file != NULL && lore_model_has(r->folder, file) &&
                        (KNOWN[i].second == NULL || lore_model_has(r->folder, KNOWN[i].second));
        if (is_there) {
            return read_files(r, file, KNOWN[i].second, KNOWN[i].format, tokenizer);
        }
    }
    return lore_fail(r->err, LORE_ERR_NOT_FOUND,
                     "model folder '%s' has no tokenizer.json (nor tokenizer.model, *.tiktoken, "
                     "sentencepiece.bpe.model, vocab.json with merges.txt, or vocab.txt)",
                     r->folder);
}

static lore_status hash_file(folder_reader *r, const char *file, lore_sha256 *sha)
{
    lore_buf_reset(&r->first);
    lore_status status = lore_model_read(r->folder, file, r->limits, &r->first, r->err);
    if (status == LORE_OK) {
        lore_sha256_update(sha, lore_buf_str(&r->first));
    }
    return status;
}

/* All that are there, in an order that data folders already rely on. */
static lore_status hash_files(folder_reader *r, lore_sha256 *sha)
{
    static const char *const FILES[] = {"tokenizer.model",
                                        "vocab.txt",
                                        "tokenizer_config.json",
                                        "sentencepiece.bpe.model",
                                        "spiece.model",
                                        "vocab.json",
                                        "merges.txt",
                                        "encoder.json",
                                        "vocab.bpe"};
    char name[NAME_CAP];
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0] && status == LORE_OK; i++) {
        if (lore_model_has(r->folder, FILES[i])) {
            status = hash_file(r, FILES[i], sha);
        }
    }
    if (status == LORE_OK && find_tiktoken(r->folder, name)) {
        status = hash_file(r, name, sha);
    }
    if (status == LORE_OK) {
        status = read_config(r);
    }
    bool by_type = lore_json_str(lore_json_get(r->config, "tokenizer_class")).len == 0;
    if (status == LORE_OK && by_type && r->family != LORE_FAMILY_OTHER) {
        char family = (char)r->family;
        lore_sha256_update(sha, (lore_str){&family, 1});
    }
    return status;
}

/* A tokenizer.json says it all but for the ends that tokenizer_config.json may ask for. */
static lore_status hash_json(folder_reader *r, lore_sha256 *sha)
{
    lore_status status = hash_file(r, "tokenizer.json", sha);
    if (status == LORE_OK) {
        status = read_config(r);
    }
    char ends[2] = {(char)lore_tokenizer_flag(r->config, "add_bos_token", false),
                    (char)lore_tokenizer_flag(r->config, "add_eos_token", false)};
    if (status == LORE_OK && (ends[0] || ends[1])) {
        lore_sha256_update(sha, (lore_str){ends, sizeof ends});
    }
    return status;
}

lore_status lore_tokenizer_hash(const char *folder, const lore_limits *limits, lore_sha256 *sha,
                                lore_error *err)
{
    folder_reader r = {.folder = folder, .limits = limits, .err = err};
    lore_buf_init(&r.first, 0);
    lore_status status =
        lore_model_has(folder, "tokenizer.json") ? hash_json(&r, sha) : hash_files(&r, sha);
    lore_buf_destroy(&r.first);
    lore_json_free(r.config);
    return status;
}

lore_status lore_tokenizer_open(const char *folder, const lore_limits *limits,
                                lore_tokenizer **tokenizer, lore_error *err)
{
    folder_reader r = {.folder = folder, .limits = limits, .err = err};
    lore_buf_init(&r.first, 0);
    lore_buf_init(&r.second, 0);
    lore_buf_init(&r.json, 4 * (size_t)limits->model_json_bytes_max); /* escapes make it longer */
    lore_status status = open_folder(&r, tokenizer);
    lore_buf_destroy(&r.json);
    lore_buf_destroy(&r.second);
    lore_buf_destroy(&r.first);
    lore_json_free(r.config);
    return status;
}
