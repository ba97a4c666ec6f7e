/* The text builder: pieces in, normalised lines, runs and sections out.
 *
 * Invariants:
 * 1. `text` holds finished lines, joined by '\n', valid UTF-8 in NFC, without blank lines.
 * 2. `runs` ascend strictly by text offset, the first is at 0 once there is text, and where a run
 * is exact its bytes equal those of the source.
 * 3. `pieces` ascend by line offset, the first at 0 once the line has bytes.
 * 4. After is_full nothing changes any more; lore_builder_finish turns it into an error.
 *
 * A line is normalised when it ends, in three steps: invisible characters go, blanks are folded,
 * and only where the text is not certainly in NFC already (rare) it is composed, in segments as
 * small as possible, so that the runs around a composed accent stay exact. */
#include "ingest/ingest_int.h"

#include "base/utf8.h"

#include <string.h>

/* A step is how much text grows between two looks at whether it is still wanted. */
enum { TAB_BLANKS = 4, FIRST_ROOM = 16, STEP_BYTES = 64 * 1024 };

/* ---- growing arrays ---- */

/* Room for one more element. */
static bool reserve(void **items, size_t count, size_t *room, size_t size_bytes)
{
    if (count < *room) {
        return true;
    }
    size_t wider = *room == 0 ? FIRST_ROOM : *room * 2, bytes = 0;
    if (!lore_size_mul(wider, size_bytes, &bytes)) {
        return false;
    }
    void *grown = lore_realloc(*items, bytes);
    if (grown == NULL) {
        return false;
    }
    *items = grown;
    *room = wider;
    return true;
}

static void push_piece(lore_builder *builder, lore_piece piece)
{
    void *items = builder->pieces;
    if (!reserve(&items, builder->piece_count, &builder->piece_room, sizeof piece)) {
        builder->is_full = true;
        return;
    }
    builder->pieces = items;
    builder->pieces[builder->piece_count++] = piece;
}

static void push_mark(lore_builder *builder, lore_heading_mark mark)
{
    void *items = builder->marks;
    if (!reserve(&items, builder->mark_count, &builder->mark_room, sizeof mark)) {
        builder->is_full = true;
        return;
    }
    builder->marks = items;
    builder->marks[builder->mark_count++] = mark;
}

/* Append to the finished text and say where it came from. */
static void emit(lore_builder *builder, lore_str s, size_t source, bool is_exact)
{
    const lore_offset_run *last =
        builder->run_count > 0 ? &builder->runs[builder->run_count - 1] : NULL;
    size_t at = builder->text.len;
    bool continues =
        last != NULL && (last->is_exact != 0) == is_exact &&
        (is_exact ? last->source + (at - last->text) == source : last->source == source);
    if (!continues) {
        void *items = builder->runs;
        if (!reserve(&items, builder->run_count, &builder->run_room, sizeof *last)) {
            builder->is_full = true;
            return;
        }
        builder->runs = items;
        builder->runs[builder->run_count++] =
            (lore_offset_run){(uint32_t)at, (uint32_t)source, is_exact ? 1 : 0};
    }
    lore_buf_append(&builder->text, s);
    builder->is_full = builder->is_full || lore_buf_failed(&builder->text);
    builder->last_source = is_exact ? source + s.len : source;
}

/* Take back everything from `length` on. */
static void truncate_text(lore_builder *builder, size_t length)
{
    builder->text.len = length;
    while (builder->run_count > 0 && builder->runs[builder->run_count - 1].text >= length) {
        builder->run_count--;
    }
}

/* ---- characters ---- */

static bool is_blank(int32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xA0 || c == 0x3000 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F;
}

/* Joiners shape scripts such as Persian and Hindi, and emoji; elsewhere they are noise. */
static bool is_joiner_kept(int32_t previous)
{
    return previous >= 0x590 && !lore_utf8_is_cjk(previous);
}

static bool is_invisible(int32_t c, int32_t previous)
{
    if (c < 0xA0) {
        return (c < 0x20 && !is_blank(c)) || c == 0x7F || (c >= 0x80 && c != 0x85);
    }
    if (c == 0x200C || c == 0x200D) {
        return !is_joiner_kept(previous);
    }
    return c == 0xAD || c == 0x200B || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) ||
           (c >= 0x2060 && c <= 0x2069) || c == 0xFEFF || c == 0x180E;
}

/* Han, kana and their punctuation: written without blanks, so a soft break between them is none.
 * Hangul is written with blanks. */
static bool is_unspaced(int32_t c)
{
    bool is_hangul = (c >= 0x1100 && c <= 0x11FF) || (c >= 0xAC00 && c <= 0xD7FF);
    return c >= 0x2E80 && !is_hangul &&
           (lore_utf8_is_cjk(c) || (c >= 0x3000 && c <= 0x303F) || (c >= 0xFF01 && c <= 0xFF65));
}

/* ---- the line ---- */

/* The source of a line offset. Callers ask in ascending order; *cursor remembers the piece. */
static size_t source_of(const lore_builder *builder, size_t at, size_t *cursor, bool *is_exact)
{
    while (*cursor + 1 < builder->piece_count && builder->pieces[*cursor + 1].line <= at) {
        (*cursor)++;
    }
    const lore_piece *piece = &builder->pieces[*cursor];
    *is_exact = piece->is_exact;
    return piece->is_exact ? piece->source + (at - piece->line) : piece->source;
}

/* Printable ASCII alone, the common case, needs neither of the two passes below. */
static bool is_plain_ascii(lore_str line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        if (c >= 0x7F || (c < 0x20 && !is_blank(c))) {
            return false;
        }
    }
    return true;
}

/* Take invisible characters out of the line, in place; the pieces are rewritten behind the old ones
 * and then moved down. */
static void drop_invisible(lore_builder *builder)
{
    lore_str line = lore_buf_str(&builder->line);
    size_t old_count = builder->piece_count, cursor = 0, out = 0, at = 0;
    int32_t previous = 0;
    bool has_gap = true; /* the next kept character begins a piece */
    size_t last_cursor = 0;
    while (at < line.len && !builder->is_full) {
        size_t from = at;
        int32_t c = lore_utf8_next(line, &at);
        if (is_invisible(c, previous)) {
            has_gap = true;
            continue;
        }
        previous = c;
        bool is_exact = false;
        size_t kept = builder->piece_count;
        builder->piece_count = old_count;
        size_t source = source_of(builder, from, &cursor, &is_exact);
        builder->piece_count = kept;
        if (has_gap || cursor != last_cursor) {
            push_piece(builder, (lore_piece){out, source, is_exact});
            has_gap = false;
            last_cursor = cursor;
        }
        memmove(builder->line.ptr + out, line.ptr + from, at - from);
        out += at - from;
    }
    if (!builder->is_full) {
        builder->line.len = out;
        builder->piece_count -= old_count;
        memmove(builder->pieces, builder->pieces + old_count,
                builder->piece_count * sizeof builder->pieces[0]);
    }
}

/* Emit line bytes [from, to), which do not change, piece by piece. */
static void emit_range(lore_builder *builder, size_t from, size_t to, size_t *cursor)
{
    while (from < to && !builder->is_full) {
        bool is_exact = false;
        size_t source = source_of(builder, from, cursor, &is_exact);
        size_t end = *cursor + 1 < builder->piece_count ? builder->pieces[*cursor + 1].line : to;
        end = end < to ? end : to;
        emit(builder, (lore_str){builder->line.ptr + from, end - from}, source, is_exact);
        from = end;
    }
}

/* Emit line bytes [from, to) in NFC. A segment ends before a character that is certainly normal on
 * its own and no mark: it composes with nothing before it. */
static void emit_composed(lore_builder *builder, size_t from, size_t to, size_t *cursor)
{
    lore_str line = {builder->line.ptr, to};
    while (from < to && !builder->is_full) {
        size_t end = from;
        lore_utf8_next(line, &end);
        for (size_t next = end; next < to; end = next) {
            int32_t c = lore_utf8_next(line, &next);
            if (!lore_utf8_is_mark(c) && lore_utf8_is_nfc((lore_str){line.ptr + end, next - end})) {
                break;
            }
        }
        lore_str segment = lore_str_slice(line, from, end);
        if (lore_utf8_is_nfc(segment)) {
            emit_range(builder, from, end, cursor);
        } else {
            lore_buf composed;
            lore_buf_init(&composed, 0);
            lore_status status = lore_utf8_nfc(segment, &composed, NULL);
            if (status != LORE_OK || lore_buf_failed(&composed)) {
                builder->is_full = true;
            } else if (lore_str_equal(lore_buf_str(&composed), segment)) {
                emit_range(builder, from, end, cursor);
            } else {
                bool is_exact = false;
                size_t source = source_of(builder, from, cursor, &is_exact);
                emit(builder, lore_buf_str(&composed), source, false);
            }
            lore_buf_destroy(&composed);
        }
        from = end;
    }
}

/* Emit the blanks [from, to) of the line: one, or in code as many as there are. */
static void emit_blanks(lore_builder *builder, size_t from, size_t to, size_t *cursor)
{
    lore_str line = lore_buf_str(&builder->line);
    bool is_exact = false;
    size_t source = source_of(builder, from, cursor, &is_exact);
    if (!builder->is_verbatim) {
        emit(builder, LORE_STR(" "), source, is_exact && line.ptr[from] == ' ');
        return;
    }
    for (size_t at = from; at < to;) {
        size_t start = at;
        int32_t c = lore_utf8_next(line, &at);
        source = source_of(builder, start, cursor, &is_exact);
        lore_str blanks = {"    ", c == '\t' ? TAB_BLANKS : 1};
        emit(builder, blanks, source, is_exact && c == ' ');
    }
}

/* The end of the blanks, or of the visible characters, that begin at `at`. */
static size_t stretch_end(lore_str line, size_t at, bool of_blanks, bool *has_newline)
{
    while (at < line.len) {
        unsigned char byte = (unsigned char)line.ptr[at];
        if (byte > ' ' && byte < 0x7F) { /* nearly all there is */
            if (of_blanks) {
                break;
            }
            at++;
            continue;
        }
        size_t next = at;
        int32_t c = lore_utf8_next(line, &next);
        if (is_blank(c) != of_blanks) {
            break;
        }
        *has_newline = *has_newline || c == '\n';
        at = next;
    }
    return at;
}

/* Blanks [from, to) between visible characters: is it a soft break that vanishes? Not before a
 * mark: it would join a character of the line before, in whose NFC form it had no part. */
static bool vanishes(lore_str line, size_t from, size_t to, bool has_newline)
{
    if (!has_newline || from == 0) {
        return false;
    }
    size_t before = from, after = to;
    int32_t next = lore_utf8_next(line, &after);
    return is_unspaced(lore_utf8_prev(line, &before)) && is_unspaced(next) &&
           !lore_utf8_is_mark(next);
}

/* Normalise the line into the text. */
static void flush_line(lore_builder *builder)
{
    bool is_ascii = is_plain_ascii(lore_buf_str(&builder->line));
    if (!is_ascii) {
        drop_invisible(builder);
    }
    lore_str line = lore_buf_str(&builder->line);
    bool is_normal = is_ascii || lore_utf8_is_nfc(line);
    size_t cursor = 0, at = 0;
    bool has_text = false;
    while (at < line.len && !builder->is_full) {
        bool has_newline = false;
        size_t visible = stretch_end(line, at, true, &has_newline);
        if (visible == line.len) {
            break;
        }
        bool is_exact = false;
        if (!has_text && builder->text.len > 0) {
            /* The line break: exact where the source has one just here. */
            size_t gap = builder->last_source;
            is_exact = gap < builder->source.len && builder->source.ptr[gap] == '\n';
            emit(builder, LORE_STR("\n"), gap, is_exact);
        }
        if (visible > at && (has_text || builder->is_verbatim) &&
            !vanishes(line, at, visible, has_newline)) {
            emit_blanks(builder, at, visible, &cursor);
        }
        has_text = true;
        at = stretch_end(line, visible, false, &has_newline);
        if (is_normal) {
            emit_range(builder, visible, at, &cursor);
        } else {
            emit_composed(builder, visible, at, &cursor);
        }
    }
}

static void clear_line(lore_builder *builder)
{
    lore_buf_reset(&builder->line);
    builder->piece_count = 0;
    builder->visible_bytes = 0;
    builder->outside_bytes = 0;
    builder->is_item = false;
    builder->is_verbatim = false;
}

static void append(lore_builder *builder, lore_str text, size_t source, bool is_exact)
{
    if (builder->is_full || text.len == 0) {
        return;
    }
    const lore_piece *last =
        builder->piece_count > 0 ? &builder->pieces[builder->piece_count - 1] : NULL;
    bool continues = last != NULL && last->is_exact && is_exact &&
                     last->source + (builder->line.len - last->line) == source;
    if (!continues) {
        push_piece(builder, (lore_piece){builder->line.len, source, is_exact});
    }
    lore_buf_append(&builder->line, text);
    builder->is_full = builder->is_full || lore_buf_failed(&builder->line);
    size_t visible = 0;
    for (size_t i = 0; i < text.len; i++) {
        visible += (unsigned char)text.ptr[i] > ' ' ? 1 : 0;
    }
    builder->visible_bytes += visible;
    builder->outside_bytes += builder->is_inside_link ? 0 : visible;
}

/* ---- for the parsers ---- */

void lore_builder_init(lore_builder *builder, lore_str source, lore_str title, size_t text_max,
                       lore_arena *arena)
{
    *builder = (lore_builder){.source = source, .arena = arena, .title = title};
    lore_buf_init(&builder->text, text_max);
    lore_buf_init(&builder->line, text_max);
}

void lore_builder_destroy(lore_builder *builder)
{
    lore_buf_destroy(&builder->text);
    lore_buf_destroy(&builder->line);
    lore_free(builder->pieces);
    lore_free(builder->runs);
    lore_free(builder->marks);
    *builder = (lore_builder){0};
}

void lore_builder_piece(lore_builder *builder, lore_str text, size_t source_offset)
{
    lore_str source = builder->source;
    bool is_exact = source_offset <= source.len && text.len <= source.len - source_offset &&
                    (text.len == 0 || memcmp(source.ptr + source_offset, text.ptr, text.len) == 0);
    append(builder, text, source_offset < source.len ? source_offset : source.len, is_exact);
}

void lore_builder_made(lore_builder *builder, lore_str text, size_t source_offset)
{
    size_t end = builder->source.len;
    append(builder, text, source_offset < end ? source_offset : end, false);
}

void lore_builder_line(lore_builder *builder)
{
    if (builder->visible_bytes == 0) {
        if (!builder->is_item) {
            clear_line(builder);
        }
        return;
    }
    /* An item that is nothing but a link into this page is a line of a table of contents: it
     * matches every question that its section answers, and answers none. */
    if (!builder->is_item || builder->outside_bytes > 0) {
        flush_line(builder);
    }
    clear_line(builder);
    if (builder->text.len / STEP_BYTES != builder->asked) {
        builder->asked = builder->text.len / STEP_BYTES;
        builder->is_interrupted = lore_is_interrupted(builder->interrupt);
        builder->is_full = builder->is_full || builder->is_interrupted;
    }
}

void lore_builder_code_line(lore_builder *builder)
{
    builder->is_verbatim = true;
    lore_builder_line(builder);
    builder->is_verbatim = false;
}

void lore_builder_item(lore_builder *builder, lore_str marker, size_t source_offset)
{
    lore_builder_line(builder);
    clear_line(builder);
    lore_builder_made(builder, marker, source_offset);
    builder->visible_bytes = 0;
    builder->outside_bytes = 0;
    builder->is_item = true;
}

void lore_builder_discard(lore_builder *builder)
{
    clear_line(builder);
}

void lore_builder_item_end(lore_builder *builder)
{
    lore_builder_line(builder);
    clear_line(builder);
}

/* A heading that is the title, or the first h1 and how the title begins ("Webhooks" under the title
 * "Webhooks (API v2)"). Without a title, the first h1 becomes it. */
static bool repeats_title(const lore_builder *builder, lore_str heading, int32_t level)
{
    lore_str title = builder->title;
    bool is_first = level == 1 && builder->mark_count == 0;
    if (title.len <= heading.len) {
        return title.len == 0 ? is_first : lore_str_equal_nocase(heading, title);
    }
    return is_first && lore_str_equal_nocase(lore_str_slice(title, 0, heading.len), heading) &&
           strchr(" :,-|(", title.ptr[heading.len]) != NULL;
}

void lore_builder_heading(lore_builder *builder, int32_t level)
{
    size_t before = builder->text.len;
    builder->is_item = false;
    lore_builder_line(builder);
    if (builder->is_full || builder->text.len == before) {
        return;
    }
    size_t start = before == 0 ? 0 : before + 1;
    lore_str heading = lore_str_slice(lore_buf_str(&builder->text), start, builder->text.len);
    if (heading.len > LORE_HEADING_BYTES_MAX) {
        return;
    }
    bool is_title = repeats_title(builder, heading, level);
    lore_str copy = lore_str_copy(builder->arena, heading);
    if (copy.ptr == NULL) {
        builder->is_full = true;
        return;
    }
    if (!is_title || builder->is_title_taken) {
        push_mark(builder, (lore_heading_mark){start, copy, level});
        return;
    }
    /* The title stands before every chunk anyway; as a line of text it would only be found again
     * and again as the best "sentence" of the document. */
    builder->title = builder->title.len == 0 ? copy : builder->title;
    builder->is_title_taken = true;
    size_t run = builder->run_count;
    while (run > 0 && builder->runs[run - 1].text >= start) {
        run--;
    }
    builder->title_source =
        run < builder->run_count ? builder->runs[run].source : builder->last_source;
    truncate_text(builder, before);
    push_mark(builder, (lore_heading_mark){before, (lore_str){"", 0}, level});
}

/* ---- the result ---- */

/* "A > B" of the headings that stand above; "" for none. ptr NULL when out of memory. */
static lore_str heading_path(lore_arena *arena, const lore_str stack[LORE_HEADING_LEVELS])
{
    size_t total = 0;
    for (int i = 0; i < LORE_HEADING_LEVELS; i++) {
        total += stack[i].len > 0 ? stack[i].len + 3 : 0;
    }
    char *path = lore_arena_push(arena, total + 1);
    size_t used = 0;
    for (int i = 0; path != NULL && i < LORE_HEADING_LEVELS; i++) {
        if (stack[i].len > 0) {
            memcpy(path + used, used > 0 ? " > " : "", used > 0 ? 3 : 0);
            used += used > 0 ? 3 : 0;
            memcpy(path + used, stack[i].ptr, stack[i].len);
            used += stack[i].len;
        }
    }
    return (lore_str){path, used};
}

/* Headings that lie above the section of mark i, and its own, one per level. */
static void step_stack(lore_str stack[LORE_HEADING_LEVELS], const lore_heading_mark *mark)
{
    int32_t level = mark->level < 1 ? 1 : mark->level;
    level = level > LORE_HEADING_LEVELS ? LORE_HEADING_LEVELS : level;
    for (int32_t i = level - 1; i < LORE_HEADING_LEVELS; i++) {
        stack[i] = (lore_str){"", 0};
    }
    stack[level - 1] = mark->text;
}

static bool build_sections(lore_builder *builder, lore_clean_document *clean)
{
    clean->sections = LORE_PUSH(builder->arena, lore_section, builder->mark_count + 1);
    if (clean->sections == NULL) {
        return false;
    }
    size_t length = builder->text.len;
    lore_str stack[LORE_HEADING_LEVELS] = {{0}};
    int32_t count = 0;
    size_t first = builder->mark_count > 0 ? builder->marks[0].start : length;
    if (first > 0) {
        clean->sections[count++] = (lore_section){0, first, {"", 0}};
    }
    for (size_t i = 0; i < builder->mark_count; i++) {
        step_stack(stack, &builder->marks[i]);
        size_t start = builder->marks[i].start;
        size_t end = i + 1 < builder->mark_count ? builder->marks[i + 1].start : length;
        if (end <= start) {
            continue; /* a left-out title, with the next heading right behind it */
        }
        lore_str path = heading_path(builder->arena, stack);
        if (path.ptr == NULL) {
            return false;
        }
        clean->sections[count++] = (lore_section){start, end, path};
    }
    clean->section_count = count;
    return true;
}

lore_status lore_builder_finish(lore_builder *builder, lore_str fallback_title,
                                lore_clean_document *clean, lore_error *err)
{
    lore_builder_item_end(builder);
    if (builder->text.len == 0 && builder->is_title_taken && !builder->is_full) {
        emit(builder, builder->title, builder->title_source, false);
    }
    if (builder->is_interrupted) {
        return lore_fail(err, LORE_ERR_CANCELLED, "cancelled while cleaning");
    }
    size_t cap = builder->text.cap_bytes;
    /* The buffers do not say why they failed; a document far below the cap ran out of memory. */
    if (builder->is_full && cap > 0 && builder->text.len + builder->source.len > cap) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "text is longer than %zu bytes (limits.document_bytes_max)", cap);
    }
    lore_clean_document result = {.title =
                                      builder->title.len > 0 ? builder->title : fallback_title};
    if (!builder->is_full && build_sections(builder, &result)) {
        result.text = lore_str_copy(builder->arena, lore_buf_str(&builder->text));
        result.runs = LORE_PUSH(builder->arena, lore_offset_run, builder->run_count);
        result.title = lore_str_copy(builder->arena, result.title);
    }
    if (result.text.ptr == NULL || result.runs == NULL || result.title.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu bytes of cleaned text",
                         builder->text.len);
    }
    if (builder->run_count > 0) {
        memcpy(result.runs, builder->runs, builder->run_count * sizeof result.runs[0]);
    }
    result.run_count = (int32_t)builder->run_count;
    *clean = result;
    return LORE_OK;
}
