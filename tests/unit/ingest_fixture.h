/* What the tests of ingest/ share: cleaning a literal, and the checks that hold for every cleaned
 * document whatever its source. */
#ifndef LORE_TESTS_INGEST_FIXTURE_H
#define LORE_TESTS_INGEST_FIXTURE_H

#include "tests/check.h"

#include "base/file.h"
#include "base/utf8.h"
#include "ingest/ingest_int.h"

#include <string.h>

#define SAMPLES LORE_SOURCE_DIR "/../shared/data/sample-docs"

static const lore_limits LIMITS = {.arena_bytes_max = 64 << 20,
                                   .file_bytes_max = 64 << 20,
                                   .document_bytes_max = 32 << 20,
                                   .document_chunks_max = 65536,
                                   .metadata_bytes_max = 65536,
                                   .id_bytes_max = 512,
                                   .jsonl_line_bytes_max = 1 << 20,
                                   .json_depth_max = 32,
                                   .markup_depth_max = 256,
                                   .archive_depth_max = 4,
                                   .unpacked_bytes_max = 1 << 30,
                                   .fetch_pages_max = 50000,
                                   .pdf_ms_max = 20000,
                                   .pdf_memory_bytes_max = 480 << 20,
                                   .folder_depth_max = 32,
                                   .folder_entries_max = 100000};

/* Sections without holes, runs in order, exact runs equal to the source, text normalised. */
CHECK_UNUSED static void check_clean(const lore_clean_document *clean, lore_str source)
{
    lore_str text = clean->text;
    size_t end = 0;
    CHECK_INT(lore_utf8_valid(text), text.len);
    for (int32_t i = 0; i < clean->section_count; i++) {
        CHECK_INT(clean->sections[i].start, end);
        CHECK(clean->sections[i].end > end);
        end = clean->sections[i].end;
    }
    CHECK_INT(end, text.len);
    for (int32_t i = 0; i < clean->run_count; i++) {
        const lore_offset_run *run = &clean->runs[i];
        size_t next = i + 1 < clean->run_count ? run[1].text : text.len;
        CHECK(i == 0 ? run->text == 0 : run->text < next);
        CHECK(run->source <= source.len);
        if (run->is_exact) {
            CHECK(run->source + (next - run->text) <= source.len);
            CHECK(memcmp(text.ptr + run->text, source.ptr + run->source, next - run->text) == 0);
        }
    }
    CHECK(text.len == 0 || clean->run_count > 0);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        CHECK(c >= 0x20 || c == '\n');
        CHECK(c != '\n' || (i > 0 && text.ptr[i - 1] != '\n' && text.ptr[i - 1] != ' '));
    }
    lore_buf nfc;
    lore_buf_init(&nfc, 0);
    CHECK(lore_utf8_nfc(text, &nfc, NULL) == LORE_OK);
    CHECK(lore_str_equal(lore_buf_str(&nfc), text));
    lore_buf_destroy(&nfc);
}

/* Clean bytes of one media type; the arena is the caller's. */
CHECK_UNUSED static lore_clean_document clean_bytes(lore_arena *arena, lore_media media,
                                                    lore_str bytes)
{
    lore_error err = {0};
    lore_clean_document clean;
    lore_raw_document raw = {.media = media, .bytes = bytes};
    CHECK_OK(lore_clean(&raw, &LIMITS, NULL, arena, &clean, &err), &err);
    lore_str decoded;
    CHECK_OK(lore_decode(bytes, media, arena, &decoded, &err), &err);
    check_clean(&clean, decoded);
    return clean;
}

CHECK_UNUSED static lore_clean_document clean_literal(lore_arena *arena, lore_media media,
                                                      const char *source)
{
    return clean_bytes(arena, media, lore_str_from(source));
}

/* The literal gives this text and title. */
CHECK_UNUSED static void check_text(lore_media media, const char *source, const char *title,
                                    const char *text)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_literal(&arena, media, source);
    CHECK_STR(clean.text, text);
    CHECK_STR(clean.title, title);
    lore_arena_destroy(&arena);
}

/* Sources longer than the arena of a scratch test need none of these. */
CHECK_UNUSED static void read_file(const char *path, lore_buf *out)
{
    lore_error err = {0};
    lore_buf_init(out, 0);
    CHECK_OK(lore_file_read(path, 64 << 20, out, &err), &err);
}

/* A file under the test's temporary folder; path has to stay valid. */
CHECK_UNUSED static void write_file(const char *path, lore_str content)
{
    lore_error err = {0};
    CHECK_OK(lore_file_replace(path, content, &err), &err);
}

/* A stand-in for the tokenizer: a token is at most four bytes of a word, with the blank before it,
 * or one character beyond ASCII. */
CHECK_UNUSED static int32_t fake_tokens(lore_str text, lore_arena *arena, uint32_t **starts)
{
    uint32_t *list = lore_arena_push(arena, (text.len + 1) * sizeof *list);
    CHECK(list != NULL);
    int32_t count = 0;
    int length = 99;
    for (size_t at = 0; at < text.len;) {
        size_t from = at;
        int32_t c = lore_utf8_next(text, &at);
        bool is_blank = c == ' ' || c == '\n';
        if (is_blank || c >= 0x80 || length >= 4) {
            list[count++] = (uint32_t)from;
            length = is_blank ? 0 : 1;
        } else {
            length++;
        }
        length = c >= 0x80 ? 99 : length;
    }
    *starts = list;
    return count;
}

#endif
