/* What each document holds: UTF-8, metadata, where its chunks, source runs and pages begin and end.
 */
#include "index/fsck_int.h"

#include "base/json.h"
#include "base/utf8.h"

#include <string.h>

/* May a piece of the text begin or end here? The text is UTF-8. */
static bool is_edge(lore_str text, int64_t at)
{
    return at >= 0 && (uint64_t)at <= text.len &&
           ((size_t)at == text.len || ((unsigned char)text.ptr[at] & 0xC0) != 0x80);
}

static uint32_t read_u32(lore_str blob, size_t index)
{
    uint32_t value = 0;
    memcpy(&value, blob.ptr + index * sizeof value, sizeof value);
    return value;
}

/* Runs of three u32: text and source offsets ascend, and none lies behind the text. */
static bool runs_are_right(lore_str runs, lore_str text)
{
    const size_t width = 3;
    if (runs.len % (width * sizeof(uint32_t)) != 0) {
        return false;
    }
    uint32_t last_text = 0, last_source = 0;
    for (size_t i = 0; i < runs.len / sizeof(uint32_t); i += width) {
        uint32_t at = read_u32(runs, i), source = read_u32(runs, i + 1);
        bool ascends = i == 0 || (at >= last_text && source >= last_source);
        if (!ascends || at > text.len || read_u32(runs, i + 2) > 1) {
            return false;
        }
        last_text = at;
        last_source = source;
    }
    return true;
}

static bool pages_are_right(lore_str pages, lore_str text)
{
    if (pages.len % sizeof(uint32_t) != 0) {
        return false;
    }
    uint32_t last = 0;
    for (size_t i = 0; i < pages.len / sizeof(uint32_t); i++) {
        uint32_t at = read_u32(pages, i);
        if (at < last || !is_edge(text, at)) {
            return false;
        }
        last = at;
    }
    return true;
}

static lore_status is_metadata(const lore_fsck_run *run, lore_str metadata, bool *is_right,
                               lore_error *err)
{
    lore_json *json = NULL;
    lore_error why;
    *is_right = true;
    if (lore_str_equal(metadata, LORE_STR("{}"))) {
        return LORE_OK;
    }
    lore_status status =
        lore_json_parse(metadata, (int32_t)run->config->limits.json_depth_max, &json, &why);
    if (status == LORE_ERR_NOMEM) {
        return lore_fail(err, status, "%s", why.message);
    }
    *is_right = status == LORE_OK && lore_json_is_object(json);
    lore_json_free(json);
    return LORE_OK;
}

static lore_status chunks_are_right(lore_fsck_run *run, int64_t document, lore_str text,
                                    bool *is_right, lore_error *err)
{
    static const char *const sql =
        "SELECT c.start, c.end, c.heading, typeof(c.start), typeof(c.end) FROM documents d JOIN "
        "chunks c ON c.id>=d.first_chunk AND c.id<d.first_chunk+d.chunk_count WHERE d.id=?1";
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
    }
    *is_right = true;
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        int64_t start = lore_column_int(stmt, 0), end = lore_column_int(stmt, 1);
        lore_str heading = lore_column_bytes(stmt, 2);
        *is_right = *is_right && start <= end && is_edge(text, start) && is_edge(text, end) &&
                    lore_utf8_valid(heading) == heading.len &&
                    lore_str_equal(lore_column_bytes(stmt, 3), LORE_STR("integer")) &&
                    lore_str_equal(lore_column_bytes(stmt, 4), LORE_STR("integer"));
        run->chunks++;
    }
    return status;
}

/* Columns: id, text, runs, pages, metadata, and from 5 on the fields that must be UTF-8. */
static lore_status look_at(lore_fsck_run *run, lore_stmt *row, void *self, lore_error *err)
{
    int64_t document = lore_column_int(row, 0);
    lore_str text = lore_column_bytes(row, 1);
    bool is_utf8 = lore_utf8_valid(text) == text.len, has_chunks = true, has_metadata = true;
    (void)self;
    run->documents++;
    for (int i = 5; i < 10; i++) {
        lore_str field = lore_column_bytes(row, i);
        is_utf8 = is_utf8 && lore_utf8_valid(field) == field.len;
    }
    if (!is_utf8) {
        return lore_fsck_found_in(run, LORE_FSCK_DOCUMENT_FIELDS, document, LORE_FSCK_GONE, err);
    }
    lore_status status = chunks_are_right(run, document, text, &has_chunks, err);
    if (status == LORE_OK) {
        status = is_metadata(run, lore_column_bytes(row, 4), &has_metadata, err);
    }
    const struct {
        bool is_right;
        lore_fsck_kind kind;
        lore_fsck_harm harm;
    } asked[] = {
        {has_chunks, LORE_FSCK_CHUNK_OFFSETS, LORE_FSCK_UNCUT},
        {has_metadata, LORE_FSCK_DOCUMENT_METADATA, LORE_FSCK_REREAD},
        {runs_are_right(lore_column_bytes(row, 2), text), LORE_FSCK_SOURCE_OFFSETS,
         LORE_FSCK_REREAD},
        {pages_are_right(lore_column_bytes(row, 3), text), LORE_FSCK_PAGE_OFFSETS,
         LORE_FSCK_REREAD},
    };
    for (size_t i = 0; i < sizeof asked / sizeof asked[0] && status == LORE_OK; i++) {
        if (!asked[i].is_right) {
            status = lore_fsck_found_in(run, asked[i].kind, document, asked[i].harm, err);
        }
    }
    return status;
}

lore_status lore_fsck_documents(lore_fsck_run *run, lore_error *err)
{
    static const char *const sql =
        "SELECT d.id, t.text, t.runs, p.starts, d.metadata, d.external_id, d.source, d.title, "
        "d.url, d.media FROM documents d JOIN texts t ON t.document=d.id LEFT JOIN pages p ON "
        "p.document=d.id";
    return lore_fsck_each(run, sql, look_at, NULL, err);
}
