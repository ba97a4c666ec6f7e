/* Fuzz target of the sentence splitter, any bytes.
 *
 * Property: sentences go forward, do not overlap, begin and end with something visible and hold no
 * line break; what lies between them is white space; splitting again from the end of any sentence
 * gives the same next one; time is linear. */
#include "models/sentence.h"
#include "tests/fuzz/fuzz.h"

static void check(lore_str text)
{
    int64_t start_ns = fuzz_cpu_ns();
    size_t at = 0, end = 0;
    lore_span span, again;
    while (lore_sentence_next(text, &at, &span)) {
        LORE_ASSERT(span.start >= end);
        LORE_ASSERT(span.end > span.start);
        LORE_ASSERT(span.end <= text.len);
        LORE_ASSERT(fuzz_is_blank(lore_str_slice(text, end, span.start)));
        lore_str sentence = lore_str_slice(text, span.start, span.end);
        LORE_ASSERT(memchr(sentence.ptr, '\n', sentence.len) == NULL);
        LORE_ASSERT(lore_str_trim(sentence).len == sentence.len);
        size_t from = end;
        LORE_ASSERT(lore_sentence_next(text, &from, &again));
        LORE_ASSERT(again.start == span.start);
        LORE_ASSERT(again.end == span.end);
        end = span.end;
    }
    LORE_ASSERT(at == text.len);
    LORE_ASSERT(fuzz_is_blank(lore_str_slice(text, end, text.len)));
    fuzz_check_cost(start_ns, text.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_text(data, size, check);
}
