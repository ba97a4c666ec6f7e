/* Running a compiled expression by backtracking.
 *
 * What makes backtracking slow on hostile text is coming to the same SPLIT at the same place again
 * and again. Whether the rest matches from there depends on nothing else, so once a search has
 * taken a while, each SPLIT that was tried is marked at its place and is not tried there again (cf.
 * Russ Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009; RE2's BitState).
 * No instruction looks back, so the marks hold for all later searches of the text as well.
 *
 * Marked, a text takes as many steps a byte as the program is long, and a bit a byte for each
 * SPLIT. Both are fine for what real files hold; an expression of thousands of instructions is
 * stopped by its number of steps instead, which all texts of a search share: one that is cut into a
 * million pieces gets no more than one that is whole. */
#include "models/regex_program_int.h"

#include "base/utf8.h"

#include <string.h>

enum {
    PATIENCE = 2048,         /* steps of one search before failures are marked */
    PATIENCE_A_BYTE = 64,    /* and of all searches of a text, for each byte behind them */
    MARKED_SPLITS_MAX = 128, /* 16 bytes a byte; real expressions have 20 */
    STEPS_FREE = 1 << 14,    /* beside LORE_REGEX_STEPS_A_BYTE */
    FRAMES_MAX = 1 << 21,    /* ways not yet tried: 16 MB */
    PATTERN_SHOWN = 120
};

typedef struct lore_regex_frame {
    int32_t pc;
    uint32_t at;
} lore_regex_frame;

typedef struct lore_regex_run {
    size_t start, end;
} lore_regex_run;

static bool set_holds(const lore_regex_set *set, int32_t c)
{
    return c < 128 ? (set->ascii[c >> 6] >> (c & 63) & 1) != 0 : lore_regex_set_holds(set, c);
}

static int32_t next_char(const lore_regex_search *s, size_t *at)
{
    uint8_t byte = (uint8_t)s->text.ptr[*at];
    if (s->code_points != NULL) {
        (*at)++;
        return s->code_points[byte];
    }
    if (byte < 128) {
        (*at)++;
        return byte;
    }
    return lore_utf8_next(s->text, at);
}

/* Take a character of the set; false leaves *at. */
static bool take_set(const lore_regex_search *s, int32_t set, size_t *at)
{
    size_t next = *at;
    if (next >= s->text.len || !set_holds(&s->regex->sets[set], next_char(s, &next))) {
        return false;
    }
    *at = next;
    return true;
}

/* A run without bound that starts inside the one walked last ends where that did: walking it again
 * from each of its characters would be quadratic. */
static bool take_run(lore_regex_search *s, const lore_regex_step *one, size_t *at)
{
    lore_regex_run *known = one->second < 0 ? &s->runs[one->run] : NULL;
    size_t start = *at;
    int32_t count = 0;
    if (known != NULL && start > known->start && start < known->end && one->first <= 1) {
        *at = known->end;
        return true;
    }
    while ((one->second < 0 || count < one->second) && take_set(s, one->set, at)) {
        count += count < LORE_REGEX_COUNT_MAX; /* more than that is not asked for */
    }
    s->steps += *at - start;
    if (known != NULL) {
        *known = (lore_regex_run){start, *at};
    }
    return count >= one->first;
}

static lore_status push(lore_regex_search *s, int32_t pc, size_t at)
{
    if (s->depth == s->room) {
        size_t room = s->room > 0 ? 2 * s->room : 64;
        if (room > FRAMES_MAX) {
            return LORE_ERR_LIMIT;
        }
        lore_regex_frame *stack = lore_arena_push(s->arena, room * sizeof *stack);
        if (stack == NULL) {
            return LORE_ERR_NOMEM;
        }
        if (s->depth > 0) {
            memcpy(stack, s->stack, s->depth * sizeof *stack);
        }
        s->stack = stack;
        s->room = room;
    }
    s->stack[s->depth++] = (lore_regex_frame){pc, (uint32_t)at};
    return LORE_OK;
}

/* Start marking what was tried, at `from` and behind it. */
static lore_status start_marks(lore_regex_search *s, size_t from)
{
    size_t words = (s->text.len - from + 1) * (size_t)s->regex->splits / 64 + 1;
    if (words > s->failed_room) {
        s->failed = lore_arena_push(s->arena, words * sizeof *s->failed);
        s->failed_room = words;
    }
    if (s->failed == NULL) {
        s->failed_room = 0;
        return LORE_ERR_NOMEM;
    }
    memset(s->failed, 0, words * sizeof *s->failed);
    s->failed_from = from;
    s->has_marks = true;
    return LORE_OK;
}

/* So many steps were taken that something must be done; `start` is where the match began. */
static lore_status ring(lore_regex_search *s, size_t start)
{
    if (s->steps >= s->steps_max) {
        return LORE_ERR_LIMIT;
    }
    s->alarm = s->steps_max;
    bool may_mark = !s->has_marks && s->regex->splits <= MARKED_SPLITS_MAX;
    return may_mark ? start_marks(s, start) : LORE_OK;
}

/* Whether this SPLIT was tried here before; it has been from now on. */
static bool was_tried(lore_regex_search *s, const lore_regex_step *split, size_t at)
{
    if (!s->has_marks) {
        return false;
    }
    size_t bit = (at - s->failed_from) * (size_t)s->regex->splits + (size_t)split->set;
    uint64_t mask = (uint64_t)1 << (bit & 63);
    bool was = (s->failed[bit >> 6] & mask) != 0;
    s->failed[bit >> 6] |= mask;
    return was;
}

/* What was tried where a match ended did not fail: the next search starts there. */
static void forget_marks(lore_regex_search *s, size_t at)
{
    for (int32_t i = 0; i < s->regex->splits && s->has_marks; i++) {
        size_t bit = (at - s->failed_from) * (size_t)s->regex->splits + (size_t)i;
        s->failed[bit >> 6] &= ~((uint64_t)1 << (bit & 63));
    }
}

/* Whether the instruction at hand, not a SPLIT, JUMP or MATCH, holds here. */
static bool holds(lore_regex_search *s, const lore_regex_step *one, size_t *at)
{
    size_t ahead = *at;
    switch (one->op) {
    case LORE_REGEX_SET:
        return take_set(s, one->set, at);
    case LORE_REGEX_RUN:
        return take_run(s, one, at);
    case LORE_REGEX_AHEAD:
        return take_set(s, one->set, &ahead) != one->is_negative;
    case LORE_REGEX_LINE_START:
        return *at == 0 || s->text.ptr[*at - 1] == '\n';
    case LORE_REGEX_LINE_END:
        return *at == s->text.len || s->text.ptr[*at] == '\n';
    case LORE_REGEX_TEXT_START:
        return *at == 0;
    case LORE_REGEX_TEXT_END:
        return *at == s->text.len;
    case LORE_REGEX_SPLIT:
    case LORE_REGEX_JUMP:
    case LORE_REGEX_MATCH:
        break;
    }
    return false;
}

/* Match from `at` on: *end is where it ends or SIZE_MAX. */
static lore_status match_at(lore_regex_search *s, size_t at, size_t *end)
{
    const lore_regex_step *program = s->regex->program;
    lore_status status = LORE_OK;
    int32_t pc = 0;
    size_t start = at;
    s->depth = 0;
    for (;;) {
        const lore_regex_step *one = &program[pc];
        bool goes_on = true;
        if (++s->steps >= s->alarm) {
            status = ring(s, start);
        }
        if (one->op == LORE_REGEX_MATCH) {
            *end = at;
            return LORE_OK;
        }
        if (one->op == LORE_REGEX_JUMP) {
            pc = one->first;
        } else if (one->op == LORE_REGEX_SPLIT) {
            goes_on = !was_tried(s, one, at);
            if (goes_on && status == LORE_OK) {
                status = push(s, one->second, at);
            }
            pc = one->first;
        } else {
            goes_on = holds(s, one, &at);
            pc++;
        }
        if (status != LORE_OK) {
            return status;
        }
        if (!goes_on && s->depth == 0) {
            *end = SIZE_MAX;
            return LORE_OK;
        }
        if (!goes_on) {
            lore_regex_frame back = s->stack[--s->depth];
            pc = back.pc;
            at = back.at;
        }
    }
}

lore_status lore_regex_begin(lore_regex_search *s, lore_str text)
{
    size_t runs = (size_t)s->regex->runs;
    LORE_ASSERT(text.len <= UINT32_MAX);
    s->text = text;
    s->has_marks = false;
    s->steps_max += LORE_REGEX_STEPS_A_BYTE * text.len;
    s->text_steps = s->steps;
    if (s->runs == NULL) {
        s->steps_max += STEPS_FREE;
        s->runs = LORE_PUSH(s->arena, lore_regex_run, runs + 1);
        return s->runs != NULL ? LORE_OK : LORE_ERR_NOMEM;
    }
    memset(s->runs, 0, runs * sizeof *s->runs);
    return LORE_OK;
}

/* When to ring next, for a search that begins at `from`. */
static size_t next_alarm(const lore_regex_search *s, size_t from)
{
    size_t alone = s->steps + PATIENCE;
    size_t together = s->text_steps + PATIENCE + PATIENCE_A_BYTE * from;
    size_t marks = alone < together ? alone : together;
    return s->has_marks || marks > s->steps_max ? s->steps_max : marks;
}

lore_status lore_regex_find(lore_regex_search *s, size_t from, size_t *start, size_t *end)
{
    const lore_regex *regex = s->regex;
    s->alarm = next_alarm(s, from);
    for (size_t at = from; at < s->text.len || (at == s->text.len && regex->may_be_empty);) {
        bool may_start =
            at == s->text.len || s->code_points != NULL || regex->starts[(uint8_t)s->text.ptr[at]];
        if (may_start) {
            lore_status status = match_at(s, at, end);
            if (status != LORE_OK) {
                return status;
            }
            if (*end != SIZE_MAX) {
                forget_marks(s, *end);
                *start = at;
                return LORE_OK;
            }
        }
        if (at == s->text.len) {
            break;
        }
        next_char(s, &at);
    }
    *start = *end = SIZE_MAX;
    return LORE_OK;
}

lore_status lore_regex_explain(const lore_regex *regex, lore_status failed, lore_error *err)
{
    lore_str pattern = regex->pattern, shown = pattern;
    if (pattern.len > PATTERN_SHOWN) {
        shown.len = PATTERN_SHOWN;
        lore_utf8_prev(pattern, &shown.len); /* no half of a character */
    }
    if (failed == LORE_ERR_LIMIT) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "the regular expression '" LORE_STR_FMT "'%s takes too long to search a "
                         "text of this size",
                         LORE_STR_ARG(shown), shown.len < pattern.len ? "..." : "");
    }
    return lore_fail(err, failed, "out of memory for the search of a regular expression");
}
