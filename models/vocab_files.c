/* The vocabularies of BERT (vocab.txt) and GPT-2 (vocab.json and merges.txt), and what all readers
 * of such files share: reading the folder's config, writing the common parts of a tokenizer.json.
 */
#include "models/tokenizer_files_int.h"

#include "models/bpe_int.h"

#include <string.h>

enum { LINES_MAX = 1 << 21, LINE_BYTES_MAX = 1024, IDS_MAX = 1 << 21 };

/* ---- what readers share ---- */

bool lore_tokenizer_flag(const lore_json *config, const char *key, bool otherwise)
{
    const lore_json *flag = lore_json_get(config, key);
    return lore_json_is_bool(flag) ? lore_json_bool(flag) : otherwise;
}

lore_str lore_tokenizer_token(const lore_json *config, const char *key, const char *otherwise)
{
    const lore_json *token = lore_json_get(config, key);
    if (lore_json_is_object(token)) {
        token = lore_json_get(token, "content");
    }
    return lore_json_is_string(token) ? lore_json_str(token) : lore_str_from(otherwise);
}

void lore_tokenizer_write_type(lore_json_writer *w, const char *key, const char *type)
{
    lore_json_object(w, key);
    lore_json_string(w, "type", lore_str_from(type));
    lore_json_end(w);
}

void lore_tokenizer_write_byte_level(lore_json_writer *w, const char *pattern,
                                     bool has_prefix_space)
{
    lore_json_object(w, "pre_tokenizer");
    lore_json_string(w, "type", LORE_STR("Sequence"));
    lore_json_array(w, "pretokenizers");
    if (pattern != NULL) {
        lore_json_object(w, NULL);
        lore_json_string(w, "type", LORE_STR("Split"));
        lore_json_object(w, "pattern");
        lore_json_string(w, "Regex", lore_str_from(pattern));
        lore_json_end(w);
        lore_json_end(w);
    }
    lore_json_object(w, NULL);
    lore_json_string(w, "type", LORE_STR("ByteLevel"));
    lore_json_boolean(w, "add_prefix_space", has_prefix_space);
    lore_json_boolean(w, "use_regex", pattern == NULL);
    lore_json_end(w);
    lore_json_end(w);
    lore_json_end(w);
    lore_tokenizer_write_type(w, "decoder", "ByteLevel");
}

static void write_special(lore_json_writer *w, const char *name)
{
    lore_json_object(w, NULL);
    lore_json_object(w, "SpecialToken");
    lore_json_string(w, "id", lore_str_from(name));
    lore_json_end(w);
    lore_json_end(w);
}

static void write_special_ids(lore_json_writer *w, const char *name, int32_t id)
{
    lore_json_object(w, name);
    lore_json_array(w, "ids");
    lore_json_int(w, NULL, id);
    lore_json_end(w);
    lore_json_end(w);
}

void lore_tokenizer_write_template(lore_json_writer *w, int32_t before, int32_t behind)
{
    lore_json_object(w, "post_processor");
    lore_json_string(w, "type", LORE_STR("TemplateProcessing"));
    lore_json_array(w, "single");
    if (before >= 0) {
        write_special(w, "before");
    }
    lore_json_object(w, NULL);
    lore_json_object(w, "Sequence");
    lore_json_string(w, "id", LORE_STR("A"));
    lore_json_end(w);
    lore_json_end(w);
    if (behind >= 0) {
        write_special(w, "behind");
    }
    lore_json_end(w);
    lore_json_object(w, "special_tokens");
    write_special_ids(w, "before", before >= 0 ? before : 0);
    write_special_ids(w, "behind", behind >= 0 ? behind : 0);
    lore_json_end(w);
    lore_json_end(w);
}

static void write_token(lore_json_writer *w, const lore_special_token *token)
{
    lore_json_object(w, NULL);
    lore_json_int(w, "id", token->id);
    lore_json_string(w, "content", token->content);
    lore_json_boolean(w, "special", token->is_special);
    lore_json_boolean(w, "normalized", false);
    lore_json_boolean(w, "lstrip", token->takes_left);
    lore_json_end(w);
}

/* "added_tokens_decoder": {"32000": {"content": ..., flags}}; a seen id is marked. */
static lore_status write_config_tokens(lore_json_writer *w, const lore_json *config, bool *seen,
                                       lore_error *err)
{
    static const char *const FLAGS[] = {"special", "normalized", "single_word", "lstrip", "rstrip"};
    const lore_json *table = lore_json_get(config, "added_tokens_decoder");
    for (const lore_json *n = lore_json_first(table); n != NULL; n = lore_json_next(n)) {
        int64_t id = -1;
        if (!lore_str_to_int64(lore_json_key(n), &id) || id < 0 || id >= IDS_MAX) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "tokenizer_config.json: added_tokens_decoder has a key that is no id");
        }
        seen[id] = true;
        lore_json_object(w, NULL);
        lore_json_int(w, "id", id);
        lore_json_string(w, "content", lore_json_str(lore_json_get(n, "content")));
        for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
            if (lore_json_is_bool(lore_json_get(n, FLAGS[i]))) {
                lore_json_boolean(w, FLAGS[i], lore_json_bool(lore_json_get(n, FLAGS[i])));
            }
        }
        lore_json_end(w);
    }
    return LORE_OK;
}

/* One more than the largest id that may be asked for below; at least one. */
static int32_t ids_of(const lore_json *config, const lore_special_token *tokens, int32_t count)
{
    const lore_json *table = lore_json_get(config, "added_tokens_decoder");
    int32_t ids = 1;
    for (const lore_json *n = lore_json_first(table); n != NULL; n = lore_json_next(n)) {
        int64_t id = -1;
        bool is_id = lore_str_to_int64(lore_json_key(n), &id) && id < IDS_MAX;
        ids = is_id && id >= ids ? (int32_t)id + 1 : ids;
    }
    for (int32_t i = 0; i < count; i++) {
        ids = tokens[i].id >= ids ? tokens[i].id + 1 : ids;
    }
    return ids;
}

lore_status lore_tokenizer_write_added(lore_json_writer *w, const lore_json *config,
                                       const lore_special_token *tokens, int32_t count,
                                       lore_error *err)
{
    int32_t ids = ids_of(config, tokens, count);
    bool *seen = lore_alloc_zero((size_t)ids, sizeof *seen);
    if (seen == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a tokenizer's special tokens");
    }
    lore_json_array(w, "added_tokens");
    lore_status status = write_config_tokens(w, config, seen, err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        if (!seen[tokens[i].id]) {
            seen[tokens[i].id] = true;
            write_token(w, &tokens[i]);
        }
    }
    lore_json_end(w);
    lore_free(seen);
    return status;
}

/* Those of the config's named tokens that the vocabulary has. Gives how many. */
static int32_t find_specials(const lore_bpe *vocab, const lore_json *config,
                             const char *const names[][2], int32_t count,
                             lore_special_token *tokens)
{
    int32_t found = 0;
    for (int32_t i = 0; i < count; i++) {
        lore_str content = lore_tokenizer_token(config, names[i][0], names[i][1]);
        int32_t id = content.len > 0 ? lore_bpe_find(vocab, content) : -1;
        if (id >= 0) {
            tokens[found++] = (lore_special_token){id, content, true, false};
        }
    }
    return found;
}

static void write_named_id(lore_json_writer *w, const char *key, lore_str token, int32_t id)
{
    lore_json_array(w, key);
    lore_json_string(w, NULL, token);
    lore_json_int(w, NULL, id);
    lore_json_end(w);
}

void lore_tokenizer_write_processing(lore_json_writer *w, const char *type, lore_str cls,
                                     int32_t cls_id, lore_str sep, int32_t sep_id)
{
    lore_json_object(w, "post_processor");
    lore_json_string(w, "type", lore_str_from(type));
    write_named_id(w, "cls", cls, cls_id);
    write_named_id(w, "sep", sep, sep_id);
    lore_json_end(w);
}

/* cls before the text and sep behind it, where the vocabulary has both. */
static void write_processing(lore_json_writer *w, const char *type, const lore_bpe *vocab,
                             lore_str cls, lore_str sep)
{
    int32_t before = lore_bpe_find(vocab, cls), behind = lore_bpe_find(vocab, sep);
    if (before >= 0 && behind >= 0) {
        lore_tokenizer_write_processing(w, type, cls, before, sep, behind);
    }
}

static lore_status finish(lore_json_writer *w, lore_status status, lore_error *err)
{
    if (status != LORE_OK) {
        return status;
    }
    lore_json_end(w);
    return lore_buf_failed(w->buf)
               ? lore_fail(err, LORE_ERR_NOMEM, "out of memory for a tokenizer's vocabulary")
               : LORE_OK;
}

/* ---- BERT ---- */

/* Of a token that comes again the last line counts, as where a dictionary is filled. */
static lore_status read_lines(lore_str text, lore_arena *arena, lore_bpe *vocab, lore_error *err)
{
    int32_t count = 0;
    lore_str rest = text, line;
    while (count <= LINES_MAX && lore_str_next_line(&rest, &line)) {
        if (line.len > LINE_BYTES_MAX || memchr(line.ptr, '\0', line.len) != NULL) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "vocabulary line %d must have at most %d bytes and no NUL", count + 1,
                             LINE_BYTES_MAX);
        }
        count++;
    }
    if (count == 0 || count > LINES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "a vocabulary must have 1 to %d lines", LINES_MAX);
    }
    lore_str *lines = LORE_PUSH(arena, lore_str, count);
    if (lines == NULL || !lore_bpe_init(vocab, arena, count, 0)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a tokenizer's vocabulary");
    }
    rest = text;
    for (int32_t i = 0; i < count && lore_str_next_line(&rest, &line); i++) {
        lines[i] = line;
    }
    for (int32_t i = count - 1; i >= 0; i--) {
        if (lines[i].len > 0 && lore_bpe_find(vocab, lines[i]) < 0) {
            bool is_new = lore_bpe_add_token(vocab, i, lines[i]);
            LORE_ASSERT(is_new); /* each line comes once */
        }
    }
    return LORE_OK;
}

static void write_bert_stages(lore_json_writer *w, const lore_json *config)
{
    const lore_json *accents = lore_json_get(config, "strip_accents");
    lore_json_object(w, "normalizer");
    lore_json_string(w, "type", LORE_STR("BertNormalizer"));
    lore_json_boolean(w, "clean_text", true);
    lore_json_boolean(w, "handle_chinese_chars",
                      lore_tokenizer_flag(config, "tokenize_chinese_chars", true));
    if (lore_json_is_bool(accents)) { /* else as lowercase is */
        lore_json_boolean(w, "strip_accents", lore_json_bool(accents));
    } else {
        lore_json_null(w, "strip_accents");
    }
    lore_json_boolean(w, "lowercase", lore_tokenizer_flag(config, "do_lower_case", true));
    lore_json_end(w);
    lore_tokenizer_write_type(w, "pre_tokenizer", "BertPreTokenizer");
    lore_tokenizer_write_type(w, "decoder", "WordPiece");
}

static lore_status write_bert(const lore_bpe *vocab, const lore_json *config, lore_buf *json,
                              lore_error *err)
{
    static const char *const NAMES[5][2] = {{"pad_token", "[PAD]"},
                                            {"unk_token", "[UNK]"},
                                            {"cls_token", "[CLS]"},
                                            {"sep_token", "[SEP]"},
                                            {"mask_token", "[MASK]"}};
    lore_special_token specials[5];
    lore_json_writer w;
    char key[LINE_BYTES_MAX + 1];
    int32_t count = find_specials(vocab, config, NAMES, 5, specials);
    lore_str unknown = lore_tokenizer_token(config, "unk_token", "[UNK]");
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    lore_status status = lore_tokenizer_write_added(&w, config, specials, count, err);
    write_bert_stages(&w, config);
    write_processing(&w, "BertProcessing", vocab,
                     lore_tokenizer_token(config, "cls_token", "[CLS]"),
                     lore_tokenizer_token(config, "sep_token", "[SEP]"));
    lore_json_object(&w, "model");
    lore_json_string(&w, "type", LORE_STR("WordPiece"));
    lore_json_string(&w, "unk_token", unknown);
    lore_json_object(&w, "vocab");
    for (int32_t i = 0; i < vocab->vocab; i++) {
        lore_str token = vocab->tokens[i];
        if (token.ptr != NULL) {
            memcpy(key, token.ptr, token.len);
            key[token.len] = '\0';
            lore_json_int(&w, key, i);
        }
    }
    lore_json_end(&w);
    lore_json_end(&w);
    return finish(&w, status, err);
}

lore_status lore_bert_vocab_read(lore_str text, const lore_json *config, lore_buf *json,
                                 lore_error *err)
{
    lore_arena arena;
    lore_bpe vocab;
    lore_arena_init(&arena, 0);
    lore_status status = read_lines(text, &arena, &vocab, err);
    if (status == LORE_OK) {
        status = write_bert(&vocab, config, json, err);
    }
    lore_arena_destroy(&arena);
    return status;
}

/* ---- GPT-2 ---- */

static lore_status index_vocab(const lore_json *root, lore_arena *arena, lore_bpe *vocab,
                               lore_error *err)
{
    int32_t ids = 0;
    for (const lore_json *n = lore_json_first(root); n != NULL; n = lore_json_next(n)) {
        double number = lore_json_number(n);
        if (!lore_json_is_number(n) || !(number >= 0 && number < IDS_MAX)) {
            return lore_fail(err, LORE_ERR_CORRUPT, "the id of '" LORE_STR_FMT "' is none",
                             LORE_STR_ARG(lore_json_key(n)));
        }
        ids = (int32_t)number >= ids ? (int32_t)number + 1 : ids;
    }
    if (!lore_json_is_object(root) || ids == 0) {
        return lore_fail(err, LORE_ERR_CORRUPT, "a vocabulary must be an object of tokens");
    }
    if (!lore_bpe_init(vocab, arena, ids, 0)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a tokenizer's vocabulary");
    }
    for (const lore_json *n = lore_json_first(root); n != NULL; n = lore_json_next(n)) {
        if (!lore_bpe_add_token(vocab, (int32_t)lore_json_number(n), lore_json_key(n))) {
            return lore_fail(err, LORE_ERR_CORRUPT, "the id of '" LORE_STR_FMT "' is another's",
                             LORE_STR_ARG(lore_json_key(n)));
        }
    }
    return LORE_OK;
}

static void write_merge_lines(lore_json_writer *w, lore_str merges)
{
    lore_str line;
    lore_json_array(w, "merges");
    for (bool is_first = true; lore_str_next_line(&merges, &line); is_first = false) {
        bool is_version = is_first && lore_str_starts(line, LORE_STR("#version"));
        if (line.len > 0 && !is_version) {
            lore_json_string(w, NULL, line);
        }
    }
    lore_json_end(w);
}

static lore_status write_gpt2(const lore_json *root, const lore_bpe *vocab, lore_str merges,
                              const lore_json *config, lore_tokenizer_family family, lore_buf *json,
                              lore_error *err)
{
    /* RoBERTa's have their names whatever the config says. */
    static const char *const NAMES[2][7][2] = {{{"bos_token", "<|endoftext|>"},
                                                {"eos_token", "<|endoftext|>"},
                                                {"unk_token", ""},
                                                {"pad_token", ""},
                                                {"cls_token", ""},
                                                {"sep_token", ""},
                                                {"mask_token", ""}},
                                               {{"bos_token", "<s>"},
                                                {"eos_token", "</s>"},
                                                {"unk_token", "<unk>"},
                                                {"pad_token", "<pad>"},
                                                {"cls_token", "<s>"},
                                                {"sep_token", "</s>"},
                                                {"mask_token", "<mask>"}}};
    lore_special_token specials[7];
    lore_json_writer w;
    bool is_qwen2 = family == LORE_FAMILY_QWEN, is_roberta = family == LORE_FAMILY_ROBERTA;
    int32_t count = find_specials(vocab, config, NAMES[is_roberta], 7, specials);
    lore_str mask = lore_tokenizer_token(config, "mask_token", "<mask>");
    for (int32_t i = 0; i < count && is_roberta; i++) {
        specials[i].takes_left = lore_str_equal(specials[i].content, mask);
    }
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    lore_status status = lore_tokenizer_write_added(&w, config, specials, count, err);
    if (is_qwen2) {
        lore_tokenizer_write_type(&w, "normalizer", "NFC");
    }
    lore_tokenizer_write_byte_level(&w, is_qwen2 ? LORE_PATTERN_QWEN2 : NULL,
                                    lore_tokenizer_flag(config, "add_prefix_space", false));
    if (is_roberta) {
        write_processing(&w, "RobertaProcessing", vocab,
                         lore_tokenizer_token(config, "cls_token", "<s>"),
                         lore_tokenizer_token(config, "sep_token", "</s>"));
    }
    lore_json_object(&w, "model");
    lore_json_string(&w, "type", LORE_STR("BPE"));
    lore_json_null(&w, "unk_token");
    lore_json_object(&w, "vocab");
    for (const lore_json *n = lore_json_first(root); n != NULL; n = lore_json_next(n)) {
        lore_json_int(&w, lore_json_key(n).ptr, (int64_t)lore_json_number(n));
    }
    lore_json_end(&w);
    write_merge_lines(&w, merges);
    lore_json_end(&w);
    return finish(&w, status, err);
}

lore_status lore_gpt2_vocab_read(lore_str vocab, lore_str merges, const lore_json *config,
                                 lore_tokenizer_family family, lore_buf *json, lore_error *err)
{
    lore_arena arena;
    lore_bpe index;
    lore_json *root = NULL;
    lore_arena_init(&arena, 0);
    lore_status status = lore_json_parse(vocab, 4, &root, err);
    if (status == LORE_OK) {
        status = index_vocab(root, &arena, &index, err);
    }
    if (status == LORE_OK) {
        status = write_gpt2(root, &index, merges, config, family, json, err);
    }
    lore_json_free(root);
    lore_arena_destroy(&arena);
    return status;
}
