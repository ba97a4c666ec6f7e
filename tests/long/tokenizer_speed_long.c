/* How fast text becomes tokens, on one core: every kind of tokenizer whose vocabulary is at hand
 * (ours, and those of ../shared/data), on the English questions' contexts of ../shared/data or this
 * repository's documents, as one text of 8 MB and as pieces of 2 KB. The bar of 20 MB/s is
 * for a release build that has the core to itself; the check here is a quarter of it, so that a
 * loaded machine passes. With arguments: for the folders named. */
#include "tests/unit/models_fixture.h"

#include "base/clock.h"
#include "models/tokenizer.h"

#define TOKENIZERS SHARED "/data/tokenizers"

enum { TEXT_BYTES = 8 << 20, PIECE_BYTES = 2048, ROUNDS = 3 };

static lore_buf text_of_english(void)
{
    static const char *const FILES[] = {SHARED "/data/tokenizers/sentencepiece/botchan.txt",
                                        LORE_SOURCE_DIR "/docs/architecture.md",
                                        LORE_SOURCE_DIR "/docs/conventions.md",
                                        SHARED "/data/ir/med/docs.jsonl"};
    lore_error err = {0};
    lore_buf text;
    lore_buf_init(&text, 0);
    while (text.len < TEXT_BYTES) {
        size_t before = text.len;
        for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
            if (lore_file_exists(FILES[i])) {
                CHECK_OK(lore_file_read(FILES[i], (size_t)1 << 30, &text, &err), &err);
            }
        }
        CHECK(text.len > before);
    }
    return text;
}

/* MB/s of the text cut into pieces of so many bytes; the best of a few rounds. */
static double speed(const lore_tokenizer *t, lore_str text, size_t piece_bytes, int32_t *count)
{
    lore_arena arena;
    lore_error err = {0};
    int64_t best = INT64_MAX;
    lore_arena_init(&arena, 0);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = lore_clock_ns();
        *count = 0;
        for (size_t at = 0; at < text.len; at += piece_bytes) {
            size_t end = at + piece_bytes < text.len ? at + piece_bytes : text.len;
            lore_tokens tokens;
            CHECK_OK(lore_tokenizer_encode(t, lore_str_slice(text, at, end),
                                           (lore_encode_options){0}, &arena, &tokens, &err),
                     &err);
            *count += tokens.count;
            lore_arena_reset(&arena);
        }
        int64_t took = lore_clock_ns() - start;
        best = took < best ? took : best;
    }
    lore_arena_destroy(&arena);
    return (double)text.len * 1e3 / (double)best;
}

static void measure(const char *folder, lore_str text)
{
    lore_error err = {0};
    lore_tokenizer *t = NULL;
    int32_t whole_count = 0, piece_count = 0;
    int64_t start = lore_clock_ns();
    CHECK_OK(lore_tokenizer_open(folder, &LIMITS, &t, &err), &err);
    double open_ms = (double)(lore_clock_ns() - start) / 1e6;
    double whole = speed(t, text, text.len, &whole_count);
    double pieces = speed(t, text, PIECE_BYTES, &piece_count);
    printf("%6.1f MB/s whole, %6.1f MB/s in pieces of 2 KB, %.2f bytes a token, opened in %.0f ms: "
           "%s\n",
           whole, pieces, (double)text.len / whole_count, open_ms, folder);
    CHECK(whole > 5);
    lore_tokenizer_close(t);
}

static char *const *arguments;
static int argument_count;

TEST(every_kind_is_fast)
{
    static const char *const FOLDERS[] = {LORE_SOURCE_DIR "/weights/decoder", TOKENIZERS "/gpt2",
                                          TOKENIZERS "/llama3", TOKENIZERS "/qwen",
                                          TOKENIZERS "/llama2"};
    lore_buf text = text_of_english();
    for (int i = 0; i < argument_count; i++) {
        measure(arguments[i], lore_buf_str(&text));
    }
    for (size_t i = 0; i < sizeof FOLDERS / sizeof FOLDERS[0] && argument_count == 0; i++) {
        struct stat there;
        if (stat(FOLDERS[i], &there) == 0) {
            measure(FOLDERS[i], lore_buf_str(&text));
        }
    }
    lore_buf_destroy(&text);
}

int main(int argc, char **argv)
{
    static const check_case *const cases[] = {every_kind_is_fast};
    arguments = argv + 1;
    argument_count = argc - 1;
    return check_all(cases, 1, NULL);
}
