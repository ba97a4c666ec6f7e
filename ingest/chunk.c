/* Cutting a document into chunks.
 *
 * Sections are first joined into groups (see chunk.h for when), then each group is cut on its own:
 * its sentences ("units") are counted in tokens, the number of chunks that brings them nearest to
 * the target is chosen, and units are handed out so that all chunks come out about equally long. A
 * unit never exceeds tokens_max, because longer sentences are cut into units beforehand. */
#include "ingest/chunk.h"

#include "base/utf8.h"
#include "models/sentence.h"

#include <assert.h>
#include <string.h>

enum { PREFIX_PART_BYTES_MAX = 160 };
static_assert(LORE_CHUNK_PREFIX_BYTES_MAX == 2 * PREFIX_PART_BYTES_MAX + 4,
              "two parts, ' > ', \\n");

typedef struct unit {
    size_t start, end;
    int32_t tokens;
} unit;

/* Units [first, last) under one heading. */
typedef struct group {
    int32_t first, last;
    lore_str heading;
} group;

typedef struct chunker {
    lore_str text;
    const uint32_t *token_starts;
    int32_t token_count;
    const lore_chunk_options *options;
    unit *units;
    int32_t unit_count, unit_room;
    lore_chunk_row *rows;
    int32_t row_count, row_room;
    bool is_out_of_memory;
} chunker;

/* ---- tokens ---- */

/* Index of the first token that starts at or after `offset`. */
static int32_t token_at(const chunker *c, size_t offset)
{
    int32_t low = 0, high = c->token_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (c->token_starts[middle] < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Index of the token that holds the byte at `offset`: one that began before counts, too. */
static int32_t token_holding(const chunker *c, size_t offset)
{
    int32_t index = token_at(c, offset);
    bool begins_here = index < c->token_count && c->token_starts[index] == offset;
    return begins_here || index == 0 ? index : index - 1;
}

static int32_t count_tokens(const chunker *c, size_t start, size_t end)
{
    return token_at(c, end) - token_holding(c, start);
}

/* ---- units ---- */

static void push_unit(chunker *c, size_t start, size_t end)
{
    if (c->unit_count == c->unit_room && !c->is_out_of_memory) {
        int32_t room = c->unit_room == 0 ? 256 : c->unit_room * 2;
        unit *grown = lore_realloc(c->units, (size_t)room * sizeof *grown);
        c->is_out_of_memory = grown == NULL;
        c->units = grown == NULL ? c->units : grown;
        c->unit_room = grown == NULL ? c->unit_room : room;
    }
    if (!c->is_out_of_memory) {
        c->units[c->unit_count++] = (unit){start, end, count_tokens(c, start, end)};
    }
}

static bool is_character_start(lore_str text, size_t at)
{
    return at >= text.len || ((unsigned char)text.ptr[at] & 0xC0) != 0x80;
}

/* May a long sentence be cut at `at`? Beside a blank, or beside a character of a script without. */
static bool is_word_edge(lore_str text, size_t at)
{
    if (!is_character_start(text, at) || at == 0 || at >= text.len) {
        return false;
    }
    if (text.ptr[at] == ' ' || text.ptr[at - 1] == ' ') {
        return true;
    }
    size_t before = at, after = at;
    return lore_utf8_is_cjk(lore_utf8_prev(text, &before)) ||
           lore_utf8_is_cjk(lore_utf8_next(text, &after));
}

/* Where to cut the sentence [start, end), which has more than tokens_max tokens. */
static size_t cut_point(const chunker *c, size_t start, size_t end)
{
    int32_t first = token_holding(c, start), tokens_max = c->options->tokens_max;
    for (int32_t i = first + tokens_max; i > first + tokens_max / 2; i--) {
        size_t at = i < c->token_count ? c->token_starts[i] : end;
        if (at > start && at < end && is_word_edge(c->text, at)) {
            return at;
        }
    }
    for (int32_t i = first + tokens_max; i > first; i--) {
        size_t at = i < c->token_count ? c->token_starts[i] : end;
        if (at > start && at < end && is_character_start(c->text, at)) {
            return at;
        }
    }
    /* Not one character in tokens_max tokens: one character then, over the limit or not. */
    size_t at = start;
    lore_utf8_next(c->text, &at);
    return at < end ? at : end;
}

static void push_sentence(chunker *c, size_t start, size_t end)
{
    while (!c->is_out_of_memory && count_tokens(c, start, end) > c->options->tokens_max) {
        size_t cut = cut_point(c, start, end);
        size_t piece_end = cut;
        while (piece_end > start + 1 && c->text.ptr[piece_end - 1] == ' ') {
            piece_end--;
        }
        push_unit(c, start, piece_end);
        while (cut < end && c->text.ptr[cut] == ' ') {
            cut++;
        }
        start = cut;
        if (start == end) {
            return;
        }
    }
    push_unit(c, start, end);
}

/* The units of one section. Gives how many. */
static int32_t read_section(chunker *c, const lore_section *section)
{
    int32_t before = c->unit_count;
    size_t at = section->start;
    lore_str text = lore_str_slice(c->text, 0, section->end);
    lore_span sentence;
    while (!c->is_out_of_memory && lore_sentence_next(text, &at, &sentence)) {
        push_sentence(c, sentence.start, sentence.end);
    }
    return c->unit_count - before;
}

/* ---- groups ---- */

/* Tokens from the start of one unit to the end of another, white space between included. */
static int32_t span_tokens(const chunker *c, int32_t first, int32_t last)
{
    return first < last ? count_tokens(c, c->units[first].start, c->units[last - 1].end) : 0;
}

/* Does the section hold nothing but its heading's own line? */
static bool is_bare_heading(const chunker *c, const lore_section *section)
{
    lore_str body = lore_str_trim(lore_str_slice(c->text, section->start, section->end));
    return section->heading.len > 0 && memchr(body.ptr, '\n', body.len) == NULL &&
           lore_str_ends(section->heading, body);
}

static bool is_below(lore_str heading, lore_str above)
{
    return lore_str_starts(heading, above) &&
           lore_str_starts(lore_str_slice(heading, above.len, heading.len), LORE_STR(" > "));
}

/* ---- rows ---- */

static void push_row(chunker *c, size_t start, size_t end, lore_str heading)
{
    if (c->row_count == c->row_room && !c->is_out_of_memory) {
        int32_t room = c->row_room == 0 ? 32 : c->row_room * 2;
        lore_chunk_row *grown = lore_realloc(c->rows, (size_t)room * sizeof *grown);
        c->is_out_of_memory = grown == NULL;
        c->rows = grown == NULL ? c->rows : grown;
        c->row_room = grown == NULL ? c->row_room : room;
    }
    if (!c->is_out_of_memory) {
        c->rows[c->row_count++] =
            (lore_chunk_row){.start = start, .end = end, .heading = heading, .vector = NULL};
    }
}

/* A unit that announces what comes ("Do this:") should not be the last of its chunk. */
static bool announces(const chunker *c, int32_t index)
{
    lore_str s = lore_str_slice(c->text, c->units[index].start, c->units[index].end);
    return lore_str_ends(s, LORE_STR(":")) || lore_str_ends(s, LORE_STR("\xEF\xBC\x9A"));
}

/* The first unit of the overlap before the chunk [first, last): as many as are wanted and fit. */
static int32_t overlap_start(const chunker *c, const group *g, int32_t first, int32_t last,
                             int32_t tokens_max)
{
    int32_t from = first;
    while (from > g->first && first - from < c->options->overlap_sentences &&
           span_tokens(c, from - 1, first) <= tokens_max &&
           span_tokens(c, from - 1, last) <= c->options->tokens_max) {
        from--;
    }
    return from;
}

/* The end of the chunk that begins with unit `first`: `goal` tokens or the nearest to it. */
static int32_t fill_chunk(const chunker *c, const group *g, int32_t first, int32_t goal)
{
    int32_t last = first + 1;
    while (last < g->last) {
        int32_t tokens = span_tokens(c, first, last + 1);
        if (tokens > c->options->tokens_max || tokens - c->units[last].tokens / 2 > goal) {
            break;
        }
        last++;
    }
    bool has_rest = last < g->last && last - first > 1;
    return has_rest && announces(c, last - 1) ? last - 1 : last;
}

static int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void cut_group(chunker *c, const group *g)
{
    int32_t target = clamp(c->options->target_tokens, 1, c->options->tokens_max);
    int32_t left = span_tokens(c, g->first, g->last);
    int32_t wanted = (left + target / 3) / target;
    int32_t least = (left + c->options->tokens_max - 1) / c->options->tokens_max;
    wanted = wanted > least ? wanted : least;
    for (int32_t first = g->first; first < g->last && !c->is_out_of_memory;) {
        wanted = wanted > 1 ? wanted : 1;
        int32_t last = fill_chunk(c, g, first, (left + wanted - 1) / wanted);
        int32_t from = overlap_start(c, g, first, last, target / 2);
        push_row(c, c->units[from].start, c->units[last - 1].end, g->heading);
        left -= span_tokens(c, first, last);
        wanted--;
        first = last;
    }
}

static void cut_document(chunker *c, const lore_clean_document *clean)
{
    group g = {0, 0, {"", 0}};
    /* So small that whatever is merged stays one chunk. */
    int32_t half = clamp(c->options->target_tokens, 1, c->options->tokens_max) / 2;
    bool is_bare = false;
    for (int32_t i = 0; i < clean->section_count && !c->is_out_of_memory; i++) {
        const lore_section *section = &clean->sections[i];
        int32_t first = c->unit_count;
        if (read_section(c, section) == 0) {
            continue;
        }
        bool is_tiny = span_tokens(c, g.first, c->unit_count) <= half;
        bool joins =
            g.last > g.first && (is_tiny || (is_bare && is_below(section->heading, g.heading)));
        if (!joins) {
            cut_group(c, &g);
            g.first = first;
        }
        g.heading = !joins || is_bare ? section->heading : g.heading;
        is_bare = (!joins || is_bare) && is_bare_heading(c, section);
        g.last = c->unit_count;
    }
    cut_group(c, &g);
}

/* ---- entrance ---- */

lore_status lore_chunk_document(const lore_clean_document *clean, const uint32_t *token_starts,
                                int32_t token_count, const lore_chunk_options *options,
                                lore_arena *arena, lore_chunk_row **chunks, int32_t *count,
                                lore_error *err)
{
    LORE_ASSERT(options->tokens_max > 0);
    chunker c = {.text = clean->text,
                 .token_starts = token_starts,
                 .token_count = token_count,
                 .options = options};
    cut_document(&c, clean);
    lore_chunk_row *rows =
        c.is_out_of_memory ? NULL : LORE_PUSH(arena, lore_chunk_row, c.row_count);
    if (rows != NULL) {
        if (c.row_count > 0) {
            memcpy(rows, c.rows, (size_t)c.row_count * sizeof *rows);
        }
        *chunks = rows;
        *count = c.row_count;
    }
    lore_free(c.units);
    lore_free(c.rows);
    return rows != NULL
               ? LORE_OK
               : lore_fail(err, LORE_ERR_NOMEM, "out of memory cutting %zu bytes", clean->text.len);
}

/* ---- prefix ---- */

/* At most PREFIX_PART_BYTES_MAX bytes, cut at a character. */
static lore_str shorten(lore_str s)
{
    if (s.len <= PREFIX_PART_BYTES_MAX) {
        return s;
    }
    size_t end = PREFIX_PART_BYTES_MAX;
    while (end > 0 && !is_character_start(s, end)) {
        end--;
    }
    return lore_str_slice(s, 0, end);
}

/* Without outer parts of the path, until it is short enough. */
static lore_str innermost(lore_str path)
{
    while (path.len > PREFIX_PART_BYTES_MAX) {
        size_t next = lore_str_find(path, LORE_STR(" > "), 0);
        if (next == SIZE_MAX) {
            return shorten(path);
        }
        path = lore_str_slice(path, next + 3, path.len);
    }
    return path;
}

lore_str lore_chunk_embed_text(lore_arena *arena, lore_str title, lore_str heading, lore_str text)
{
    title = shorten(title);
    heading = innermost(heading);
    const char *joint = title.len > 0 && heading.len > 0 ? " > " : "";
    const char *line_end = title.len + heading.len > 0 ? "\n" : "";
    return lore_str_printf(arena, LORE_STR_FMT "%s" LORE_STR_FMT "%s" LORE_STR_FMT,
                           LORE_STR_ARG(title), joint, LORE_STR_ARG(heading), line_end,
                           LORE_STR_ARG(text));
}
