/* Clean as a whole: which parser, which title, what is refused, and the sample documents. */
#include "tests/unit/ingest_fixture.h"

#include <time.h>

TEST(media_types)
{
    CHECK_INT(lore_media_of(LORE_STR("a/b.MD"), LORE_STR("")), LORE_MEDIA_MARKDOWN);
    CHECK_INT(lore_media_of(LORE_STR("b.htm"), LORE_STR("")), LORE_MEDIA_HTML);
    CHECK_INT(lore_media_of(LORE_STR("b.jsonl"), LORE_STR("")), LORE_MEDIA_JSONL);
    CHECK_INT(lore_media_of(LORE_STR("b.png"), LORE_STR("")), LORE_MEDIA_AUTO);
    CHECK_INT(lore_media_of(LORE_STR("dir.md/README"), LORE_STR("plain words")), LORE_MEDIA_TEXT);
    CHECK_INT(lore_media_of(LORE_STR("README"), LORE_STR("# Title\n\n```\nx\n```\n")),
              LORE_MEDIA_MARKDOWN);
    CHECK_INT(lore_media_of(LORE_STR(""), LORE_STR("<!DOCTYPE html><p>x")), LORE_MEDIA_HTML);
    CHECK_INT(lore_media_of(LORE_STR(".md"), LORE_STR("a\0b")), LORE_MEDIA_AUTO);
    CHECK_INT(lore_media_of(LORE_STR("x"), LORE_STR("\xFF\xFE"
                                                    "a\0")),
              LORE_MEDIA_TEXT);
    CHECK_STR(lore_str_from(lore_media_name(LORE_MEDIA_HTML)), "text/html");
}

static lore_status try_clean(lore_arena *arena, const lore_raw_document *raw,
                             lore_clean_document *clean, lore_error *err)
{
    lore_arena_reset(arena);
    return lore_clean(raw, &LIMITS, NULL, arena, clean, err);
}

/* A given title wins; else the file name helps out where nothing was found. */
TEST(titles)
{
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.source = LORE_STR("kb/Track-your_order.md"),
                             .bytes = LORE_STR("just text.\n")};
    CHECK_OK(try_clean(&arena, &raw, &clean, &err), &err);
    CHECK_STR(clean.title, "Track your order");
    raw.source = LORE_STR("x/export.jsonl#12");
    raw.media = LORE_MEDIA_MARKDOWN;
    CHECK_OK(try_clean(&arena, &raw, &clean, &err), &err);
    CHECK_STR(clean.title, "");
    raw.title = LORE_STR(" Given\n\ttitle ");
    raw.bytes = LORE_STR("# Given title\n\n## Sub\n\ntext");
    CHECK_OK(try_clean(&arena, &raw, &clean, &err), &err);
    CHECK_STR(clean.title, "Given title");
    CHECK_STR(clean.text, "Sub\ntext");
    raw.bytes = LORE_STR("# Other\n\ntext");
    CHECK_OK(try_clean(&arena, &raw, &clean, &err), &err);
    CHECK_STR(clean.sections[0].heading, "Other");
    lore_arena_destroy(&arena);
}

TEST(refusals)
{
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    char longer[LORE_TITLE_BYTES_MAX + 2];
    memset(longer, 'x', sizeof longer);
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.source = LORE_STR("x.bin"),
                             .bytes = LORE_STR("\x7F"
                                               "ELF\0\0")};
    CHECK_FAILS(try_clean(&arena, &raw, &clean, &err), LORE_ERR_INVALID, &err, "known format");
    raw.media = LORE_MEDIA_TEXT;
    CHECK_FAILS(try_clean(&arena, &raw, &clean, &err), LORE_ERR_INVALID, &err, "NUL");
    raw.bytes = LORE_STR("{}");
    raw.media = LORE_MEDIA_JSONL;
    CHECK_FAILS(try_clean(&arena, &raw, &clean, &err), LORE_ERR_INVALID, &err, "known format");
    raw.media = LORE_MEDIA_TEXT;
    raw.title = (lore_str){longer, LORE_TITLE_BYTES_MAX + 1};
    CHECK_FAILS(try_clean(&arena, &raw, &clean, &err), LORE_ERR_LIMIT, &err, "title");
    raw.title = LORE_STR("\xFF");
    CHECK_FAILS(try_clean(&arena, &raw, &clean, &err), LORE_ERR_INVALID, &err, "title");
    lore_limits small = LIMITS;
    small.file_bytes_max = 1;
    raw.title = LORE_STR("");
    CHECK_FAILS(lore_clean(&raw, &small, NULL, &arena, &clean, &err), LORE_ERR_LIMIT, &err,
                "file_bytes_max");
    lore_arena_destroy(&arena);
}

/* No text is a legal document of every kind. */
TEST(empty)
{
    for (int media = LORE_MEDIA_TEXT; media <= LORE_MEDIA_HTML; media++) {
        check_text((lore_media)media, "", "", "");
        check_text((lore_media)media, " \n\n ", "", "");
    }
}

/* The source offset counts in the decoded text, whatever the encoding of the bytes was. */
TEST(decoded_offsets)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean =
        clean_bytes(&arena, LORE_MEDIA_TEXT, LORE_STR("\xEF\xBB\xBFThe first line of text.\n"));
    CHECK_STR(clean.text, "The first line of text.");
    CHECK_INT(lore_offset_to_source(clean.runs, clean.run_count, 4), 4);
    lore_arena_destroy(&arena);
}

static bool wants_interrupt(void *self)
{
    int *left = self;
    return --*left < 0;
}

/* A long document of every kind asks often whether it is still wanted, and ends when it is not. */
TEST(interrupted)
{
    static const char *const pieces[] = {"A line of text.\n\n", "- An item *of* text.\n",
                                         "<p>A line of <b>text</b>.</p>\n"};
    for (int media = LORE_MEDIA_TEXT; media <= LORE_MEDIA_HTML; media++) {
        lore_buf bytes;
        lore_arena arena;
        lore_error err = {0};
        lore_clean_document clean;
        lore_buf_init(&bytes, 0);
        while (bytes.len < 1024 * 1024) {
            lore_buf_append(&bytes, lore_str_from(pieces[media - LORE_MEDIA_TEXT]));
        }
        lore_raw_document raw = {.media = (lore_media)media, .bytes = lore_buf_str(&bytes)};
        for (int asked = 0; asked < 4; asked++) {
            int left = asked;
            const lore_interrupt interrupt = {wants_interrupt, &left};
            lore_arena_init(&arena, 0);
            CHECK_FAILS(lore_clean(&raw, &LIMITS, &interrupt, &arena, &clean, &err),
                        LORE_ERR_CANCELLED, &err, "cancelled");
            CHECK_INT(left, -1); /* and it does not ask again */
            lore_arena_destroy(&arena);
        }
        lore_buf_destroy(&bytes);
    }
}

/* What once took minutes: one start tag after another without an end, and more accents on one
 * letter than any language has. */
TEST(takes_no_time)
{
    static const struct {
        lore_media media;
        const char *first, *piece;
    } cases[] = {{LORE_MEDIA_MARKDOWN, "", "<a>"},
                 {LORE_MEDIA_MARKDOWN, "", "<a></b>"},
                 {LORE_MEDIA_TEXT, "a", "\xCC\xA3\xCC\x81"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lore_buf bytes;
        lore_arena arena;
        lore_error err = {0};
        lore_clean_document clean;
        lore_buf_init(&bytes, 0);
        lore_arena_init(&arena, 0);
        lore_buf_append(&bytes, lore_str_from(cases[i].first));
        while (bytes.len < 2 * 1024 * 1024) {
            lore_buf_append(&bytes, lore_str_from(cases[i].piece));
        }
        lore_raw_document raw = {.media = cases[i].media, .bytes = lore_buf_str(&bytes)};
        clock_t start = clock();
        CHECK_OK(lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err), &err);
        CHECK(clock() - start < 2 * CLOCKS_PER_SEC);
        lore_arena_destroy(&arena);
        lore_buf_destroy(&bytes);
    }
}

static int samples_cleaned;

static void clean_sample(const char *path)
{
    lore_buf bytes;
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    lore_str decoded;
    read_file(path, &bytes);
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.source = lore_str_from(path), .bytes = lore_buf_str(&bytes)};
    CHECK_OK(lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err), &err);
    CHECK_OK(lore_decode(raw.bytes, LORE_MEDIA_TEXT, &arena, &decoded, &err), &err);
    check_clean(&clean, decoded);
    CHECK(clean.title.len > 0);
    CHECK(clean.text.len * 5 > bytes.len); /* markup takes its share, the text does not vanish */
    lore_arena_destroy(&arena);
    lore_buf_destroy(&bytes);
    samples_cleaned++;
}

static int visit(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)where;
    if (kind == FTW_F) {
        clean_sample(path);
    }
    return 0;
}

/* Real help pages of many makers, and our own: all are taken, with a title and honest offsets. */
TEST(samples)
{
    CHECK_INT(nftw(LORE_SOURCE_DIR "/corpora/help/en", visit, 8, 0), 0);
    CHECK_INT(nftw(LORE_SOURCE_DIR "/corpora/help/zh", visit, 8, 0), 0);
    CHECK(samples_cleaned >= 55);
    if (!lore_file_is_dir(SAMPLES)) {
        CHECK_SKIP(SAMPLES " is not here");
    }
    samples_cleaned = 0;
    CHECK_INT(nftw(SAMPLES, visit, 8, 0), 0);
    CHECK(samples_cleaned >= 60);
}

CHECK_MAIN(media_types, titles, refusals, empty, decoded_offsets, interrupted, takes_no_time,
           samples)
