/* What a collection has of its own where others follow the configuration. */
#include "base/json.h"
#include "base/mem.h"
#include "index/index_int.h"

#include <math.h>

/* As the keys of the configuration have them. */
enum { TOKENS_MIN = 16, TOKENS_MAX = 8192, OVERLAP_MAX = 16, REFUSAL_BYTES_MAX = 4096 };

static bool is_null(const lore_json *root, const char *name)
{
    const lore_json *member = lore_json_get(root, name);
    return member == NULL || lore_json_is_null(member);
}

static lore_status parse_refusal(const lore_json *root, lore_arena *arena,
                                 lore_collection_settings *settings, lore_error *err)
{
    const lore_json *member = lore_json_get(root, "refusal");
    settings->has_refusal = member != NULL;
    settings->refusal = LORE_STR("");
    if (is_null(root, "refusal")) {
        return LORE_OK;
    }
    if (!lore_json_is_string(member)) {
        return lore_fail(err, LORE_ERR_INVALID, "refusal must be a string");
    }
    settings->refusal = lore_str_copy(arena, lore_json_str(member));
    if (settings->refusal.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a refusal text");
    }
    return settings->refusal.len <= REFUSAL_BYTES_MAX
               ? LORE_OK
               : lore_fail(err, LORE_ERR_LIMIT, "refusal has %zu bytes, more than %d",
                           settings->refusal.len, (int)REFUSAL_BYTES_MAX);
}

static lore_status parse_members(const lore_json *root, lore_arena *arena,
                                 lore_collection_settings *settings, lore_error *err)
{
    settings->has_weight = lore_json_get(root, "fusion_weight") != NULL;
    settings->has_expansion = lore_json_get(root, "expansion") != NULL;
    settings->has_tokens = lore_json_get(root, "chunk_tokens") != NULL;
    settings->has_overlap = lore_json_get(root, "chunk_overlap") != NULL;
    settings->chunk_overlap = -1;
    lore_status status =
        lore_json_get_number(root, "", "fusion_weight", 0.0, 1.0, &settings->fusion_weight, err);
    if (status == LORE_OK) {
        status = lore_json_get_number(root, "", "expansion", 0.0, 1.0, &settings->expansion, err);
    }
    if (status == LORE_OK && !is_null(root, "chunk_tokens")) {
        status = lore_json_get_int(root, "", "chunk_tokens", TOKENS_MIN, TOKENS_MAX,
                                   &settings->chunk_tokens, err);
    }
    if (status == LORE_OK && !is_null(root, "chunk_overlap")) {
        status = lore_json_get_int(root, "", "chunk_overlap", 0, OVERLAP_MAX,
                                   &settings->chunk_overlap, err);
    }
    return status == LORE_OK ? parse_refusal(root, arena, settings, err) : status;
}

lore_status lore_collection_settings_parse(lore_str json, const lore_limits *limits,
                                           lore_arena *arena, lore_collection_settings *settings,
                                           lore_error *err)
{
    lore_json *root = NULL;
    *settings =
        (lore_collection_settings){.fusion_weight = NAN, .expansion = NAN, .chunk_overlap = -1};
    if (json.len == 0) {
        return LORE_OK;
    }
    lore_status status = lore_json_parse(json, (int32_t)limits->json_depth_max, &root, err);
    if (status == LORE_OK && !lore_json_is_object(root)) {
        status = lore_fail(err, LORE_ERR_INVALID, "the body must be a JSON object");
    }
    if (status == LORE_OK) {
        status = parse_members(root, arena, settings, err);
    }
    lore_json_free(root);
    return status;
}

static lore_status read_chunking(lore_db *db, lore_str collection, int64_t *tokens,
                                 int64_t *overlap, lore_error *err)
{
    static const char *const sql =
        "SELECT ifnull(chunk_tokens, 0), ifnull(chunk_overlap, -1) FROM collections WHERE name=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_text(stmt, 1, collection);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && has_row) {
        *tokens = lore_column_int(stmt, 0);
        *overlap = lore_column_int(stmt, 1);
        lore_stmt_reset(stmt);
    }
    return status;
}

lore_status lore_index_collection_config(lore_index *index, lore_str collection,
                                         const lore_config *config, lore_config **own,
                                         lore_error *err)
{
    int64_t tokens = 0, overlap = -1;
    lore_reader *reader = NULL;
    *own = NULL;
    lore_status status = lore_reader_take(index, &reader, err);
    if (status == LORE_OK) {
        status = read_chunking(reader->db, collection, &tokens, &overlap, err);
    }
    lore_reader_give(index, reader);
    if (status != LORE_OK || (tokens == 0 && overlap < 0)) {
        return status;
    }
    lore_config *made = lore_alloc(sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the settings of a collection");
    }
    *made = *config;
    made->chunk_tokens = tokens != 0 ? tokens : config->chunk_tokens;
    made->chunk_overlap_sentences = overlap >= 0 ? overlap : config->chunk_overlap_sentences;
    *own = made;
    return LORE_OK;
}
