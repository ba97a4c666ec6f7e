/* Fuzz target of ZIP, tar and tar.gz, as archives and as packed documents. Property: bytes are read
 * or refused with a message, nothing unpacks beyond its limit, names are UTF-8, cost and memory are
 * bounded, and all memory is given back. */
#include "tests/fuzz/check_cleaned.h"

#include "ingest/package_int.h"

enum { MEMBERS_MAX = 1000, MEMBER_BYTES_MAX = 1 << 20, UNPACKED_MAX = 4 << 20 };

static void check_archive(lore_str bytes)
{
    int64_t live = lore_mem_live();
    lore_arena arena;
    lore_archive *archive = NULL;
    lore_error err = {.status = LORE_OK};
    lore_buf content;
    bool done = false;
    lore_arena_init(&arena, 64 << 20);
    lore_buf_init(&content, 0);
    lore_status status = lore_archive_open(bytes, UNPACKED_MAX, &archive, &err);
    for (int i = 0; i < MEMBERS_MAX && status == LORE_OK && !done; i++) {
        lore_str name;
        lore_buf_reset(&content);
        status = lore_archive_next(archive, &arena, &name, &done, &err);
        if (status == LORE_OK && !done) {
            LORE_ASSERT(lore_utf8_valid(name) == name.len);
            lore_status read = lore_archive_read(archive, MEMBER_BYTES_MAX, &content, &err);
            if (read != LORE_OK) {
                fuzz_check_refusal(read, &err);
            }
            LORE_ASSERT(content.len <= MEMBER_BYTES_MAX + 65536);
        }
    }
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    }
    lore_archive_close(archive);
    lore_buf_destroy(&content);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lore_str bytes = {size == 0 ? "" : (const char *)data, size};
    check_archive(bytes);
    lore_media media = lore_media_of((lore_str){"", 0}, bytes);
    if (lore_media_is_packed(media)) {
        int64_t live = lore_mem_live();
        lore_arena arena;
        lore_error err = {.status = LORE_OK};
        lore_clean_document clean;
        lore_arena_init(&arena, 64 << 20);
        lore_raw_document raw = {.media = media, .bytes = bytes};
        lore_status status = lore_clean(&raw, &FUZZ_LIMITS, NULL, &arena, &clean, &err);
        if (status == LORE_OK) {
            check_text(&clean);
        } else {
            LORE_ASSERT(err.status == status && err.message[0] != '\0');
        }
        lore_arena_destroy(&arena);
        LORE_ASSERT(lore_mem_live() == live);
    }
    return 0;
}
