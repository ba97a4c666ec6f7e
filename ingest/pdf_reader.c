/* PDF reader: what pdftotext writes, word by word.
 *
 * Its output looks like XML and is none: words hold whatever control characters the PDF maps its
 * glyphs to, which XML forbids, and a parser of XML would lose the document for one of them. But it
 * is written by a few lines of code that escape '<' and '>', so a tag is where a tag seems to be.
 */
#include "ingest/pdf_int.h"

#include "base/utf8.h"

#include <string.h>

enum {
    REST_BYTES_MAX = 1024 * 1024, /* of one word; there is none such */
    WORDS_MAX = 65536,            /* of one page: a map has some ten thousand */
    PAGES_MAX = 100000,
    FIRST_ROOM = 256
};

static const float LENGTH_MAX = 100000.0F; /* PDF allows 14,400 */

void lore_pdf_reader_init(lore_pdf_reader *reader, lore_arena *arena)
{
    const lore_str none = {"", 0};
    *reader = (lore_pdf_reader){.arena = arena, .title = none, .author = none, .date = none};
    lore_arena_init(&reader->words_arena, 0);
    lore_buf_init(&reader->rest, 0);
}

void lore_pdf_reader_destroy(lore_pdf_reader *reader)
{
    lore_arena_destroy(&reader->words_arena);
    lore_buf_destroy(&reader->rest);
    lore_free(reader->words);
    lore_free(reader->lines.items);
}

static void fail_memory(lore_pdf_reader *reader)
{
    reader->status =
        lore_fail(&reader->error, LORE_ERR_NOMEM, "out of memory on page %d", reader->lines.pages);
}

/* ---- values ---- */

/* What stands in the quotes behind `name="`; "" where it is missing. */
static lore_str attribute(lore_str tag, lore_str name)
{
    size_t at = lore_str_find(tag, name, 0);
    if (at == SIZE_MAX) {
        return (lore_str){"", 0};
    }
    lore_str value = lore_str_slice(tag, at + name.len, tag.len);
    const char *quote = memchr(value.ptr, '"', value.len);
    return (lore_str){value.ptr, quote == NULL ? 0 : (size_t)(quote - value.ptr)};
}

/* A decimal number without an exponent; 0 for anything else. */
static float length_of(lore_str digits)
{
    bool is_negative = digits.len > 0 && digits.ptr[0] == '-', has_point = false;
    double value = 0, unit = 1;
    for (size_t i = is_negative ? 1 : 0; i < digits.len && i < 32; i++) {
        char c = digits.ptr[i];
        if (c == '.' && !has_point) {
            has_point = true;
        } else if (c >= '0' && c <= '9') {
            value = value * 10 + (c - '0');
            unit = has_point ? unit * 10 : unit;
        } else {
            return 0;
        }
    }
    float length = (float)(value / unit);
    length = length < LENGTH_MAX ? length : LENGTH_MAX;
    return is_negative ? -length : length;
}

/* Text with its five entities decoded and broken characters left out, in the arena. ptr NULL: out
 * of memory. */
static lore_str unescape(lore_str text, lore_arena *arena)
{
    static const struct {
        const char *name, *means; /* which is never longer */
    } entities[] = {{"&amp;", "&"},         {"&lt;", "<"},          {"&gt;", ">"},
                    {"&quot;", "\""},       {"&apos;", "'"},        {"\xEF\xAC\x80", "ff"},
                    {"\xEF\xAC\x81", "fi"}, {"\xEF\xAC\x82", "fl"}, {"\xEF\xAC\x83", "ffi"},
                    {"\xEF\xAC\x84", "ffl"}};
    lore_str copy = lore_str_copy(arena, text);
    if (copy.ptr == NULL) {
        return copy;
    }
    char *out = (char *)copy.ptr; /* ours, just made */
    size_t used = 0;
    for (size_t at = 0; at < text.len;) {
        lore_str left = lore_str_slice(text, at, text.len);
        size_t taken = 0;
        bool is_special = text.ptr[at] == '&' || text.ptr[at] == '\xEF';
        for (size_t i = 0; is_special && i < sizeof entities / sizeof entities[0]; i++) {
            lore_str means = lore_str_from(entities[i].means);
            if (taken == 0 && lore_str_starts(left, lore_str_from(entities[i].name))) {
                taken = strlen(entities[i].name);
                memcpy(out + used, means.ptr, means.len);
                used += means.len;
            }
        }
        if (taken == 0) {
            size_t from = at;
            int32_t c = lore_utf8_next(text, &at);
            bool is_broken = c == 0xFFFD && at - from == 1;
            taken = at - from;
            at = from;
            memcpy(out + used, text.ptr + from, is_broken ? 0 : taken);
            used += is_broken ? 0 : taken;
        }
        at += taken;
    }
    return (lore_str){out, used};
}

/* ---- elements ---- */

static void take_word(lore_pdf_reader *reader, lore_str tag, lore_str text)
{
    if (reader->word_count == WORDS_MAX) {
        reader->status = lore_fail(&reader->error, LORE_ERR_LIMIT, "page %d has over %d words",
                                   reader->lines.pages, WORDS_MAX);
        return;
    }
    if (reader->word_count == reader->word_room) {
        size_t room = reader->word_room == 0 ? FIRST_ROOM : reader->word_room * 2;
        lore_pdf_word *grown = lore_realloc(reader->words, room * sizeof *grown);
        if (grown == NULL) {
            fail_memory(reader);
            return;
        }
        reader->words = grown;
        reader->word_room = room;
    }
    lore_pdf_word word = {{length_of(attribute(tag, LORE_STR("xMin=\""))),
                           length_of(attribute(tag, LORE_STR("yMin=\""))),
                           length_of(attribute(tag, LORE_STR("xMax=\""))),
                           length_of(attribute(tag, LORE_STR("yMax=\"")))},
                          unescape(text, &reader->words_arena)};
    if (word.text.ptr == NULL) {
        fail_memory(reader);
    } else if (lore_str_trim(word.text).len > 0) {
        word.box.right = word.box.right > word.box.left ? word.box.right : word.box.left;
        word.box.bottom = word.box.bottom > word.box.top ? word.box.bottom : word.box.top;
        reader->words[reader->word_count++] = word;
    }
}

static void take_page(lore_pdf_reader *reader, lore_str tag)
{
    if (reader->lines.pages == PAGES_MAX) {
        reader->status = lore_fail(&reader->error, LORE_ERR_LIMIT, "has over %d pages", PAGES_MAX);
        return;
    }
    reader->lines.pages++;
    reader->page_height = length_of(attribute(tag, LORE_STR(" height=\"")));
    reader->word_count = 0;
    lore_arena_reset(&reader->words_arena);
}

static void end_page(lore_pdf_reader *reader)
{
    if (reader->lines.pages > 0) {
        reader->status =
            lore_pdf_layout(reader->words, reader->word_count, reader->page_height,
                            &reader->words_arena, reader->arena, &reader->lines, &reader->error);
        reader->word_count = 0;
    }
}

static void take_meta(lore_pdf_reader *reader, lore_str tag)
{
    lore_str name = attribute(tag, LORE_STR("name=\"")),
             content = attribute(tag, LORE_STR("content=\""));
    lore_str *kept = lore_str_equal(name, LORE_STR("Author"))         ? &reader->author
                     : lore_str_equal(name, LORE_STR("CreationDate")) ? &reader->date
                                                                      : NULL;
    if (kept != NULL) {
        *kept = unescape(content, reader->arena);
        if (kept->ptr == NULL) {
            fail_memory(reader);
        }
    }
}

/* A tag; text reaches from behind it to its end tag, for those that have any. */
static void take_tag(lore_pdf_reader *reader, lore_str tag, lore_str text)
{
    if (lore_str_starts(tag, LORE_STR("word "))) {
        take_word(reader, tag, text);
    } else if (lore_str_starts(tag, LORE_STR("page "))) {
        take_page(reader, tag);
    } else if (lore_str_equal(tag, LORE_STR("/page"))) {
        end_page(reader);
    } else if (lore_str_starts(tag, LORE_STR("meta "))) {
        take_meta(reader, tag);
    } else if (lore_str_equal(tag, LORE_STR("title"))) {
        reader->title = unescape(text, reader->arena);
        if (reader->title.ptr == NULL) {
            fail_memory(reader);
        }
    }
    reader->is_whole = reader->is_whole || lore_str_equal(tag, LORE_STR("/doc"));
}

/* The end tag of one that holds text; "" for the others. */
static lore_str end_of(lore_str tag)
{
    return lore_str_starts(tag, LORE_STR("word "))  ? LORE_STR("</word>")
           : lore_str_equal(tag, LORE_STR("title")) ? LORE_STR("</title>")
                                                    : (lore_str){"", 0};
}

bool lore_pdf_reader_feed(void *self, lore_str piece)
{
    lore_pdf_reader *reader = self;
    lore_buf_append(&reader->rest, piece);
    if (lore_buf_failed(&reader->rest)) {
        fail_memory(reader);
    }
    lore_str rest = lore_buf_str(&reader->rest);
    while (reader->status == LORE_OK) {
        const char *open = rest.len > 0 ? memchr(rest.ptr, '<', rest.len) : NULL;
        rest = open == NULL ? (lore_str){rest.ptr, 0}
                            : lore_str_slice(rest, (size_t)(open - rest.ptr), rest.len);
        const char *close = rest.len > 0 ? memchr(rest.ptr, '>', rest.len) : NULL;
        if (close == NULL) {
            break;
        }
        size_t behind = (size_t)(close - rest.ptr) + 1, end = behind;
        lore_str tag = lore_str_slice(rest, 1, behind - 1), end_tag = end_of(tag);
        if (end_tag.len > 0) {
            end = lore_str_find(rest, end_tag, behind);
        }
        if (end == SIZE_MAX) {
            break;
        }
        take_tag(reader, tag, lore_str_slice(rest, behind, end));
        rest = lore_str_slice(rest, end + end_tag.len, rest.len);
    }
    if (reader->status == LORE_OK && rest.len > REST_BYTES_MAX) {
        reader->status =
            lore_fail(&reader->error, LORE_ERR_INVALID, "page %d has a word of over %d bytes",
                      reader->lines.pages, REST_BYTES_MAX);
    }
    if (reader->status == LORE_OK && rest.len > 0) {
        memmove(reader->rest.ptr, rest.ptr, rest.len);
    }
    reader->rest.len = rest.len;
    return reader->status == LORE_OK;
}
