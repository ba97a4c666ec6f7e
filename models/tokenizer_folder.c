/* Which of a folder's files holds its tokenizer: tokenizer.json, or one that a reader rewrites as
 * such. */
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
    FORMAT_TIKTOKEN, /* the name is looked for */
    FORMAT_GPT2,     /* two files */
    FORMAT_BERT
} file_format;

static const struct {
    const char *file;
    const char *second;
    file_format format;
} KNOWN[] = {{"tokenizer.json", NULL, FORMAT_JSON},     {"tokenizer.model", NULL, FORMAT_MODEL},
             {"spiece.model", NULL, FORMAT_MODEL},      {NULL, NULL, FORMAT_TIKTOKEN},
             {"vocab.json", "merges.txt", FORMAT_GPT2}, {"encoder.json", "vocab.bpe", FORMAT_GPT2},
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
    lore_buf first, second, json;
    lore_error *err;
} folder_reader;

/* Rewrite what was read as a tokenizer.json and load that. */
static lore_status convert(folder_reader *r, file_format format, const char *path,
                           lore_tokenizer **tokenizer)
{
    lore_normalizer_spec spec;
    lore_str text = lore_buf_str(&r->first);
    bool is_pieces = format == FORMAT_MODEL && !lore_tiktoken_is(text);
    lore_status status =
        is_pieces               ? lore_sentencepiece_read(text, r->config, &r->json, &spec, r->err)
        : format == FORMAT_BERT ? lore_bert_vocab_read(text, r->config, &r->json, r->err)
        : format == FORMAT_GPT2
            ? lore_gpt2_vocab_read(text, lore_buf_str(&r->second), r->config, &r->json, r->err)
            : lore_tiktoken_read(text, r->config, &r->json, r->err);
    return status == LORE_OK ? lore_loader_parse(lore_buf_str(&r->json), path,
                                                 is_pieces ? &spec : NULL, tokenizer, r->err)
                             : lore_model_blame(r->err, status, path);
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
        return lore_tokenizer_parse(lore_buf_str(&r->first), path, tokenizer, r->err);
    }
    if (status == LORE_OK && lore_model_has(r->folder, "tokenizer_config.json")) {
        status = lore_model_json(r->folder, "tokenizer_config.json", r->limits, &r->config, r->err);
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
                     "vocab.json with merges.txt, or vocab.txt)",
                     r->folder);
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
