/* Properties of cleaning and chunking over seeded random documents and, where they are there, the
 * sample documents: sections and runs are sound (check_clean), chunks without their overlap give
 * the text back, lie within the limits and never cross into a section that is not merged; sentences
 * cover all that is not white space, in order. The seed is printed; LORE_SEED replays one. */
#include "tests/unit/ingest_fixture.h"

#include "base/clock.h"
#include "ingest/chunk.h"
#include "models/sentence.h"

static uint64_t seed_of_run(void)
{
    const char *given = getenv("LORE_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20261122;
    printf("LORE_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static size_t below(uint64_t *state, size_t bound)
{
    return (size_t)(lore_random_next(state) % bound);
}

/* Pieces that formats and rules care about, in random order. */
static void random_document(uint64_t *state, lore_buf *out)
{
    static const char *const pieces[] = {"word ",
                                         "Sentence ends here. ",
                                         "A question? ",
                                         "e.g. this ",
                                         "\n",
                                         "\n\n",
                                         "# ",
                                         "## ",
                                         "- ",
                                         "1. ",
                                         "| a | b |\n|---|---|\n| c | d |\n",
                                         "```\ncode();\n```\n",
                                         "<p>",
                                         "</p>",
                                         "<li>",
                                         "<h2>",
                                         "</h2>",
                                         "<table><tr><td>",
                                         "</td></tr></table>",
                                         "&amp;",
                                         "&#x4e2d;",
                                         "<b>bold</b> ",
                                         "<br>",
                                         "\xE4\xB8\xAD\xE6\x96\x87\xE3\x80\x82",
                                         "\xE9\x95\xBF\xE6\x8C\x89\xEF\xBC\x9F",
                                         "caf\x65\xCC\x81 ",
                                         "\xE2\x80\x8B",
                                         "\xC2\xAD",
                                         "\xC2\xA0",
                                         "\t",
                                         "[link](#x) ",
                                         "**strong** ",
                                         "====\n",
                                         "---\n",
                                         "> quote\n",
                                         "\xF0\x9F\x98\x80 ",
                                         "\"Quoted.\" ",
                                         "https://example.com/a.b ",
                                         "v2.4 ",
                                         "\r\n",
                                         "[!NOTE]",
                                         ":::",
                                         "{#id}",
                                         "<pre>",
                                         "</pre>",
                                         "    indented\n",
                                         "\xEF\xA4\x80",
                                         "UPPER CASE LINE\n",
                                         ".. note:: ",
                                         ".. code:: c\n\n   ",
                                         "text::\n\n   ",
                                         "+---+---+\n| a | b |\n+---+---+\n",
                                         "=====  ====\n",
                                         ":ref:`a <b>` ",
                                         "``x`` ",
                                         "|===\n|",
                                         "----\n",
                                         "== ",
                                         "https://a.b[c] ",
                                         "<<d,e>> ",
                                         "{f} ",
                                         "def f(x):\n",
                                         "class A {\n",
                                         "int f(int x)\n{\n",
                                         "/* ",
                                         " */\n",
                                         "\"\"\""};
    size_t count = below(state, 400);
    for (size_t i = 0; i < count; i++) {
        size_t repeats = below(state, 20) == 0 ? below(state, 60) : 1;
        const char *piece = pieces[below(state, sizeof pieces / sizeof pieces[0])];
        for (size_t k = 0; k < repeats; k++) {
            lore_buf_append(out, lore_str_from(piece));
        }
    }
}

static bool is_white(lore_str text, size_t start, size_t end)
{
    return lore_str_trim(lore_str_slice(text, start, end)).len == 0;
}

static void check_sentences(lore_str text)
{
    size_t at = 0, end = 0;
    lore_span span;
    while (lore_sentence_next(text, &at, &span)) {
        CHECK(span.start >= end && span.start < span.end && span.end <= at && at <= text.len);
        CHECK(is_white(text, end, span.start));
        CHECK(memchr(text.ptr + span.start, '\n', span.end - span.start) == NULL);
        end = span.end;
    }
    CHECK(is_white(text, end, text.len));
}

static int32_t tokens_between(const uint32_t *starts, int32_t count, size_t start, size_t end)
{
    int32_t tokens = 0;
    for (int32_t i = 0; i < count; i++) {
        size_t next = i + 1 < count ? starts[i + 1] : SIZE_MAX;
        tokens += starts[i] < end && next > start ? 1 : 0;
    }
    return tokens;
}

static bool is_character_edge(lore_str text, size_t at)
{
    return at == text.len || ((unsigned char)text.ptr[at] & 0xC0) != 0x80;
}

static void check_chunks(const lore_clean_document *clean, uint64_t *state, lore_arena *arena)
{
    uint32_t *starts = NULL;
    lore_error err = {0};
    lore_chunk_row *rows = NULL;
    int32_t count = 0, tokens = fake_tokens(clean->text, arena, &starts);
    lore_chunk_options options = {(int32_t)(5 + below(state, 300)), (int32_t)below(state, 3), 0};
    options.tokens_max = (int32_t)(4 + below(state, 400));
    CHECK_OK(lore_chunk_document(clean, starts, tokens, &options, arena, &rows, &count, &err),
             &err);
    size_t covered = 0;
    for (int32_t i = 0; i < count; i++) {
        CHECK(rows[i].start < rows[i].end && rows[i].end <= clean->text.len);
        CHECK(rows[i].end > covered); /* something new in each */
        CHECK(is_character_edge(clean->text, rows[i].start) &&
              is_character_edge(clean->text, rows[i].end));
        if (rows[i].start >= covered) {
            CHECK(is_white(clean->text, covered, rows[i].start));
        } else {
            CHECK(options.overlap_sentences > 0);
            CHECK(lore_str_equal(rows[i].heading, rows[i - 1].heading));
        }
        covered = rows[i].end;
        if (clean->text.len < 4000) {
            CHECK(tokens_between(starts, tokens, rows[i].start, rows[i].end) <= options.tokens_max);
        }
        bool is_known = false;
        for (int32_t k = 0; k < clean->section_count && !is_known; k++) {
            const lore_section *section = &clean->sections[k];
            /* A bare heading stands under the heading below it. */
            is_known = section->start < rows[i].end && rows[i].start < section->end &&
                       lore_str_starts(rows[i].heading, section->heading);
        }
        CHECK(is_known);
    }
    CHECK(is_white(clean->text, covered, clean->text.len));
}

TEST(random_documents)
{
    uint64_t state = seed_of_run();
    static const lore_media medias[] = {LORE_MEDIA_TEXT, LORE_MEDIA_MARKDOWN, LORE_MEDIA_HTML,
                                        LORE_MEDIA_RST,  LORE_MEDIA_ASCIIDOC, LORE_MEDIA_CODE};
    const size_t media_count = sizeof medias / sizeof medias[0];
    int checked = 0;
    lore_arena arena;
    lore_buf source;
    lore_arena_init(&arena, 0);
    lore_buf_init(&source, 0);
    for (int i = 0; i < 2400; i++) {
        lore_arena_reset(&arena);
        lore_buf_reset(&source);
        random_document(&state, &source);
        lore_media media = medias[(size_t)i % media_count];
        lore_error err = {0};
        lore_clean_document clean;
        lore_raw_document raw = {.media = media, .bytes = lore_buf_str(&source)};
        lore_status status = lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err);
        if (status == LORE_ERR_LIMIT && media == LORE_MEDIA_HTML) {
            continue; /* tags that are never closed nest */
        }
        CHECK_OK(status, &err);
        check_clean(&clean, raw.bytes);
        check_sentences(clean.text);
        check_chunks(&clean, &state, &arena);
        checked++;
    }
    CHECK(checked > 1600);
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
}

/* Cleaning a cleaned text as plain text again keeps every visible character. */
static size_t visible(lore_str text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += text.ptr[i] > ' ' || text.ptr[i] < 0 ? 1 : 0;
    }
    return count;
}

TEST(plain_text_loses_nothing)
{
    uint64_t state = seed_of_run();
    lore_arena arena;
    lore_buf source;
    lore_arena_init(&arena, 0);
    lore_buf_init(&source, 0);
    for (int i = 0; i < 300; i++) {
        lore_arena_reset(&arena);
        lore_buf_reset(&source);
        for (size_t k = below(&state, 200); k > 0; k--) {
            static const char *const words[] = {"alpha ", "beta. ",       "\n",
                                                "\n\n",   "\xE4\xB8\xAD", "- x\n",
                                                "  ",     "1. y\n",       "Gamma: "};
            lore_buf_append(&source, lore_str_from(words[below(&state, 9)]));
        }
        lore_clean_document clean = clean_bytes(&arena, LORE_MEDIA_TEXT, lore_buf_str(&source));
        size_t kept = visible(clean.text), all = visible(lore_buf_str(&source));
        CHECK(kept == all ||
              kept + visible(clean.title) == all); /* the title may have left the text */
    }
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
}

static int visit(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)where;
    if (kind != FTW_F) {
        return 0;
    }
    uint64_t state = 1;
    lore_buf bytes;
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    read_file(path, &bytes);
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.source = lore_str_from(path), .bytes = lore_buf_str(&bytes)};
    CHECK_OK(lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err), &err);
    check_sentences(clean.text);
    check_chunks(&clean, &state, &arena);
    lore_arena_destroy(&arena);
    lore_buf_destroy(&bytes);
    return 0;
}

TEST(samples)
{
    CHECK_INT(nftw(LORE_SOURCE_DIR "/corpora/help/zh", visit, 8, 0), 0);
    if (!lore_file_is_dir(SAMPLES)) {
        CHECK_SKIP(SAMPLES " is not here");
    }
    CHECK_INT(nftw(SAMPLES, visit, 8, 0), 0);
}

CHECK_MAIN(random_documents, plain_text_loses_nothing, samples)
