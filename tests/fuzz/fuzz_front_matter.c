/* Fuzz target of front matter and of telling a media type by content.
 *
 * Property: front matter ends at a line's end and its last line is the fence that began it; its
 * title lies inside the block, on one line; and a text that begins where it ended is left alone
 * unless it brings front matter of its own. The media type of the same bytes is the same whatever
 * stands behind the part that is looked at. */
#include "ingest/ingest_int.h"
#include "tests/fuzz/fuzz.h"

static void check_block(lore_str text, size_t end, lore_str title)
{
    lore_str block = lore_str_slice(text, 0, end), rest = block, line = {"", 0}, first;
    LORE_ASSERT(end == text.len || text.ptr[end - 1] == '\n');
    LORE_ASSERT(lore_str_next_line(&rest, &first));
    while (lore_str_next_line(&rest, &line)) {
    }
    bool is_dots = lore_str_equal(line, LORE_STR("..."));
    LORE_ASSERT(is_dots || lore_str_equal(lore_str_trim(first), lore_str_trim(line)));
    if (title.len > 0) {
        LORE_ASSERT(title.ptr > block.ptr);
        LORE_ASSERT(title.ptr + title.len < block.ptr + block.len);
        LORE_ASSERT(memchr(title.ptr, '\n', title.len) == NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t start_ns = fuzz_cpu_ns();
    lore_str text = {size == 0 ? "" : (const char *)data, size}, title;
    size_t end = lore_front_matter(text, &title);
    LORE_ASSERT(end <= size);
    if (end > 0) {
        check_block(text, end, title);
    } else {
        LORE_ASSERT(title.len == 0);
    }
    lore_media media = lore_media_of((lore_str){"", 0}, text);
    LORE_ASSERT(media != LORE_MEDIA_JSONL); /* that is told by name alone */
    LORE_ASSERT(media == lore_media_of(LORE_STR("folder.d/noname"), text));
    LORE_ASSERT(lore_media_of(LORE_STR("a.md"), text) == LORE_MEDIA_MARKDOWN);
    char *repeated = fuzz_repeated(text);
    if (repeated != NULL) {
        (void)lore_front_matter((lore_str){repeated, FUZZ_REPEATED_BYTES}, &title);
        lore_free(repeated);
    }
    fuzz_check_cost(start_ns, size);
    return 0;
}
