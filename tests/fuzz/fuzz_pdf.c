/* Fuzz target of PDF behind pdftotext: its output, and words at places, to cleaned text.
 *
 * An input that begins with 'w' is five bytes a word: where, how large, what, and sometimes a new
 * page; any other is output of `pdftotext -bbox`, which is fed in pieces of as many bytes as the
 * first one says. Property: what check_cleaned.h lists; runs are pages that ascend; and no word of
 * a single page is lost or doubled. */
#include "ingest/pdf_int.h"
#include "tests/fuzz/check_cleaned.h"

enum { WORD_BYTES = 5, TEXT_MAX = 32 << 20 };

static const char *const WORDS[] = {"the",
                                    "Words",
                                    "of",
                                    "a",
                                    "page.",
                                    "ex-",
                                    "ample",
                                    "12",
                                    "3.1",
                                    "\xE4\xB8\xAD\xE6\x96\x87",
                                    "\xE6\xAE\xB5\xE3\x80\x82",
                                    "END"};

/* Bytes that stay whatever becomes of a line. */
static size_t lasting_bytes(lore_str text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += strchr(" \n|-", text.ptr[i]) == NULL ? 1 : 0;
    }
    return count;
}

/* Words as the program would write them. Gives how many pages. */
static int32_t write_words(lore_str input, lore_buf *out, size_t *lasting)
{
    int32_t pages = 1;
    lore_buf_append(out, LORE_STR("<page width=\"256\" height=\"256\">"));
    for (size_t at = 0; at + WORD_BYTES <= input.len; at += WORD_BYTES) {
        const unsigned char *b = (const unsigned char *)input.ptr + at;
        const char *word = WORDS[(b[3] & 15) % (sizeof WORDS / sizeof WORDS[0])];
        if (b[4] == 0xFF) {
            lore_buf_append(out, LORE_STR("</page><page width=\"256\" height=\"256\">"));
            pages++;
        }
        double size = 4 + (b[2] & 15), width = (b[2] >> 4) + 1 + size / 2 * (double)strlen(word);
        double x = b[0], y = b[1] + (b[4] & 7) / 8.0;
        lore_buf_printf(out,
                        "<word xMin=\"%.3f\" yMin=\"%.3f\" xMax=\"%.3f\" yMax=\"%.3f\">%s</word>\n",
                        x, y, x + width, y + size, word);
        *lasting += lasting_bytes(lore_str_from(word));
    }
    lore_buf_append(out, LORE_STR("</page></doc>"));
    return pages;
}

static void check_pages(const lore_clean_document *clean, int32_t pages)
{
    for (int32_t i = 0; i < clean->run_count; i++) {
        LORE_ASSERT(clean->runs[i].source >= 1 && clean->runs[i].source <= (uint32_t)pages);
        LORE_ASSERT(i == 0 || clean->runs[i].source > clean->runs[i - 1].source);
    }
}

/* lasting: bytes that a single page must give; SIZE_MAX: nobody knows. */
static void check_output(lore_str output, size_t piece, size_t lasting)
{
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_clean_document clean;
    lore_pdf_reader reader;
    lore_arena_init(&arena, 256 << 20);
    lore_pdf_reader_init(&reader, &arena);
    bool goes_on = true;
    for (size_t at = 0; at < output.len && goes_on; at += piece) {
        size_t end = output.len - at < piece ? output.len : at + piece;
        goes_on = lore_pdf_reader_feed(&reader, lore_str_slice(output, at, end));
    }
    lore_status status = reader.status;
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &reader.error);
    } else {
        size_t pages = (size_t)reader.lines.pages;
        char *blanks = lore_arena_push_zero(&arena, pages + 1, 1);
        lore_builder builder;
        LORE_ASSERT(blanks != NULL);
        lore_builder_init(&builder, (lore_str){blanks, pages + 1}, (lore_str){"", 0}, TEXT_MAX,
                          &arena);
        status = lore_pdf_write(&reader.lines, &builder, &err);
        if (status == LORE_OK) {
            status = lore_builder_finish(&builder, (lore_str){"", 0}, &clean, &err);
        }
        lore_builder_destroy(&builder);
        LORE_ASSERT(status == LORE_OK); /* nothing is refused once it was read */
        check_text(&clean);
        check_pages(&clean, reader.lines.pages);
        check_cut(&clean, &arena);
        if (lasting != SIZE_MAX && reader.lines.pages == 1) {
            /* The title stands in the text, too, where there is nothing else. */
            size_t text = lasting_bytes(clean.text), title = lasting_bytes(clean.title);
            LORE_ASSERT(text == lasting || text + title == lasting);
        }
    }
    lore_pdf_reader_destroy(&reader);
    lore_arena_destroy(&arena);
}

static void check_input(lore_str input)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_buf output;
    lore_buf_init(&output, 0);
    if (input.len > 0 && input.ptr[0] == 'w') {
        size_t lasting = 0;
        int32_t pages = write_words(lore_str_slice(input, 1, input.len), &output, &lasting);
        check_output(lore_buf_str(&output), 4096, pages == 1 ? lasting : SIZE_MAX);
    } else if (input.len > 0) {
        check_output(lore_str_slice(input, 1, input.len), 1 + (unsigned char)input.ptr[0],
                     SIZE_MAX);
    }
    fuzz_check_cost(start_ns, input.len + output.len / 16);
    lore_buf_destroy(&output);
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_text(data, size, check_input);
}
