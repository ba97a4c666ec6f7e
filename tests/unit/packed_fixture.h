/* What the tests of packed formats share: archives made in memory, and a document cleaned out of
 * one. */
#ifndef LORE_TESTS_PACKED_FIXTURE_H
#define LORE_TESTS_PACKED_FIXTURE_H

#include "tests/unit/ingest_fixture.h"

#include "ingest/package_int.h"

#include <archive.h>
#include <archive_entry.h>

typedef struct packed_file {
    const char *name;
    lore_str content;
} packed_file;

static la_ssize_t packed_write(struct archive *writer, void *self, const void *bytes, size_t size)
{
    (void)writer;
    lore_buf_append(self, (lore_str){bytes, size});
    return (la_ssize_t)size;
}

/* Files up to one without a name, as ZIP or as tar.gz; appended to out. */
CHECK_UNUSED static void pack(const packed_file *files, bool is_tar, lore_buf *out)
{
    struct archive *writer = archive_write_new();
    CHECK(writer != NULL);
    CHECK_INT(is_tar ? archive_write_set_format_ustar(writer)
                     : archive_write_set_format_zip(writer),
              ARCHIVE_OK);
    if (is_tar) {
        CHECK_INT(archive_write_add_filter_gzip(writer), ARCHIVE_OK);
    }
    CHECK_INT(archive_write_open(writer, out, NULL, packed_write, NULL), ARCHIVE_OK);
    for (; files->name != NULL; files++) {
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, files->name);
        archive_entry_set_size(entry, (la_int64_t)files->content.len);
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        CHECK_INT(archive_write_header(writer, entry), ARCHIVE_OK);
        CHECK_INT(archive_write_data(writer, files->content.ptr, files->content.len),
                  (la_ssize_t)files->content.len);
        archive_entry_free(entry);
    }
    CHECK_INT(archive_write_close(writer), ARCHIVE_OK);
    archive_write_free(writer);
}

/* One file compressed by gzip ('g'), bzip2 ('b') or xz; appended to out. */
CHECK_UNUSED static void compress_file(lore_str content, char how, lore_buf *out)
{
    struct archive *writer = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    CHECK_INT(archive_write_set_format_raw(writer), ARCHIVE_OK);
    CHECK_INT(how == 'g'   ? archive_write_add_filter_gzip(writer)
              : how == 'b' ? archive_write_add_filter_bzip2(writer)
                           : archive_write_add_filter_xz(writer),
              ARCHIVE_OK);
    CHECK_INT(archive_write_open(writer, out, NULL, packed_write, NULL), ARCHIVE_OK);
    archive_entry_set_filetype(entry, AE_IFREG);
    CHECK_INT(archive_write_header(writer, entry), ARCHIVE_OK);
    CHECK_INT(archive_write_data(writer, content.ptr, content.len), (la_ssize_t)content.len);
    CHECK_INT(archive_write_close(writer), ARCHIVE_OK);
    archive_entry_free(entry);
    archive_write_free(writer);
}

/* Pack, see that the content tells the format, clean, and check what holds for all formats. */
CHECK_UNUSED static lore_clean_document clean_packed(lore_arena *arena, lore_media media,
                                                     const packed_file *files)
{
    lore_buf bytes;
    lore_error err = {0};
    lore_package package;
    lore_clean_document clean;
    lore_buf_init(&bytes, 0);
    pack(files, false, &bytes);
    lore_str copy = lore_str_copy(arena, lore_buf_str(&bytes));
    lore_buf_destroy(&bytes);
    CHECK_INT(lore_media_of(LORE_STR("any.txt"), copy), media);
    lore_raw_document raw = {.bytes = copy};
    CHECK_OK(lore_clean(&raw, &LIMITS, NULL, arena, &clean, &err), &err);
    CHECK_OK(lore_package_open(copy, media, &LIMITS, NULL, arena, &package, &err), &err);
    check_clean(&clean, package.source);
    return clean;
}

/* "[heading]text" of every section, joined. */
CHECK_UNUSED static lore_str describe_sections(lore_arena *arena, const lore_clean_document *clean)
{
    lore_buf out;
    lore_buf_init(&out, 0);
    for (int32_t i = 0; i < clean->section_count; i++) {
        const lore_section *section = &clean->sections[i];
        lore_buf_printf(&out, "[" LORE_STR_FMT "]" LORE_STR_FMT, LORE_STR_ARG(section->heading),
                        (int)(section->end - section->start), clean->text.ptr + section->start);
    }
    lore_str text = lore_str_copy(arena, lore_buf_str(&out));
    lore_buf_destroy(&out);
    return text;
}

/* Where the source of an exact run of this text must hold the same. */
CHECK_UNUSED static void check_exact(const lore_clean_document *clean, const char *text)
{
    size_t at = lore_str_find(clean->text, lore_str_from(text), 0);
    CHECK(at != SIZE_MAX);
    int32_t run = 0;
    while (run + 1 < clean->run_count && clean->runs[run + 1].text <= at) {
        run++;
    }
    CHECK(clean->runs[run].is_exact); /* check_clean has compared the bytes */
}

/* Cleaning fails like this. */
CHECK_UNUSED static void check_refused(const packed_file *files, const lore_limits *limits,
                                       lore_status status, const char *message)
{
    lore_buf bytes;
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    lore_buf_init(&bytes, 0);
    pack(files, false, &bytes);
    lore_arena_init(&arena, lore_document_arena_cap(limits, bytes.len));
    lore_raw_document raw = {.bytes = lore_buf_str(&bytes)};
    lore_status found = lore_clean(&raw, limits, NULL, &arena, &clean, &err);
    CHECK_FAILS(lore_document_limit(found, &arena, &err), status, &err, message);
    lore_arena_destroy(&arena);
    lore_buf_destroy(&bytes);
}

#endif
