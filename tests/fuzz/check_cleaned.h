/* What the fuzz targets of cleaning assert of every input, whatever its format:
 *
 * - it is taken or refused with a message, in time that grows with its length and no faster;
 * - what is taken is valid UTF-8 in NFC, in lines without control characters or blanks at their
 *   ends, with a title of at most one line and LORE_TITLE_BYTES_MAX bytes;
 * - sections follow one another without holes; runs ascend, lie inside the decoded source, and
 *   where a run is exact its bytes equal the source's;
 * - sentences and chunks go forward and leave out nothing but white space;
 * - all memory is given back. */
#ifndef LORE_TESTS_CHECK_CLEANED_H
#define LORE_TESTS_CHECK_CLEANED_H

#include "base/utf8.h"
#include "ingest/chunk.h"
#include "ingest/ingest_int.h"
#include "models/sentence.h"
#include "tests/fuzz/fuzz.h"

static const lore_limits FUZZ_LIMITS = {.arena_bytes_max = 64 << 20,
                                        .file_bytes_max = 16 << 20,
                                        .document_bytes_max = 32 << 20,
                                        .document_chunks_max = 65536,
                                        .metadata_bytes_max = 65536,
                                        .id_bytes_max = 512,
                                        .jsonl_line_bytes_max = 1 << 20,
                                        .json_depth_max = 32,
                                        .markup_depth_max = 256,
                                        .archive_depth_max = 4,
                                        .unpacked_bytes_max = 1 << 30};

static void check_runs(const lore_clean_document *clean, lore_str source)
{
    for (int32_t i = 0; i < clean->run_count; i++) {
        const lore_offset_run *run = &clean->runs[i];
        size_t next = i + 1 < clean->run_count ? run[1].text : clean->text.len;
        LORE_ASSERT(i == 0 ? run->text == 0 : run->text < next);
        LORE_ASSERT(run->source <= source.len);
        if (run->is_exact) {
            LORE_ASSERT(next - run->text <= source.len - run->source);
            LORE_ASSERT(memcmp(clean->text.ptr + run->text, source.ptr + run->source,
                               next - run->text) == 0);
        }
    }
}

__attribute__((unused)) static void check_cut(const lore_clean_document *clean, lore_arena *arena)
{
    size_t at = 0, end = 0;
    lore_span span;
    while (lore_sentence_next(clean->text, &at, &span)) {
        LORE_ASSERT(span.start >= end && span.end > span.start && span.end <= clean->text.len);
        LORE_ASSERT(fuzz_is_blank(lore_str_slice(clean->text, end, span.start)));
        end = span.end;
    }
    LORE_ASSERT(fuzz_is_blank(lore_str_slice(clean->text, end, clean->text.len)));
    /* One token for every fourth byte will do. */
    int32_t tokens = (int32_t)(clean->text.len / 4), count = 0;
    uint32_t *starts = lore_arena_push(arena, ((size_t)tokens + 1) * sizeof *starts);
    for (int32_t i = 0; starts != NULL && i < tokens; i++) {
        starts[i] = (uint32_t)i * 4;
    }
    lore_chunk_row *rows = NULL;
    lore_chunk_options options = {20, 1, 30};
    if (starts == NULL || lore_chunk_document(clean, starts, tokens, &options, arena, &rows, &count,
                                              NULL) != LORE_OK) {
        return;
    }
    size_t covered = 0;
    for (int32_t i = 0; i < count; i++) {
        LORE_ASSERT(rows[i].start < rows[i].end && rows[i].end > covered);
        LORE_ASSERT(rows[i].end <= clean->text.len);
        covered = rows[i].end;
    }
    LORE_ASSERT(fuzz_is_blank(lore_str_slice(clean->text, covered, clean->text.len)));
}

static void check_text(const lore_clean_document *clean)
{
    lore_str text = clean->text;
    LORE_ASSERT(lore_utf8_valid(text) == text.len);
    LORE_ASSERT(lore_utf8_valid(clean->title) == clean->title.len);
    LORE_ASSERT(clean->title.len <= LORE_TITLE_BYTES_MAX);
    LORE_ASSERT(clean->title.len == 0 || memchr(clean->title.ptr, '\n', clean->title.len) == NULL);
    LORE_ASSERT(text.len == 0 || (text.ptr[text.len - 1] != '\n' && clean->run_count > 0));
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        LORE_ASSERT(c == '\n' ? i > 0 && text.ptr[i - 1] != '\n' : c >= 0x20 && c != 0x7F);
    }
    size_t end = 0;
    for (int32_t i = 0; i < clean->section_count; i++) {
        LORE_ASSERT(clean->sections[i].start == end && clean->sections[i].end > end);
        end = clean->sections[i].end;
    }
    LORE_ASSERT(end == text.len);
    lore_buf composed;
    lore_buf_init(&composed, 0);
    LORE_ASSERT(lore_utf8_nfc(text, &composed, NULL) == LORE_OK);
    LORE_ASSERT(lore_str_equal(lore_buf_str(&composed), text));
    lore_buf_destroy(&composed);
}

/* What the document is called, for parsers that ask. */
static lore_str FUZZ_NAME = {"", 0};

static void check_once(lore_media media, lore_str bytes, bool is_whole)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_clean_document clean;
    lore_str source;
    lore_arena_init(&arena, 256 << 20);
    lore_raw_document raw = {.source = FUZZ_NAME, .media = media, .bytes = bytes};
    lore_status status = lore_clean(&raw, &FUZZ_LIMITS, NULL, &arena, &clean, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    } else if (is_whole && lore_decode(bytes, media, &arena, &source, &err) == LORE_OK) {
        check_text(&clean);
        check_runs(&clean, source);
        check_cut(&clean, &arena);
    }
    fuzz_check_cost(start_ns, bytes.len);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
}

__attribute__((unused)) static void check_cleaned(lore_media media, lore_str bytes)
{
    check_once(media, bytes, true);
    char *repeated = fuzz_repeated(bytes);
    if (repeated != NULL) {
        check_once(media, (lore_str){repeated, FUZZ_REPEATED_BYTES}, false);
        lore_free(repeated);
    }
}

#endif
