/* Running a compiled expression by backtracking.
 *
 * What makes backtracking slow on hostile text is coming to the same SPLIT at the same place again
 * and again. Whether the rest matches from there depends on nothing else, so once a search has
 * taken a while, each SPLIT that was tried is marked at its place and is not tried there again (cf.
 * Russ Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009; RE2's BitState).
 * No instruction looks back, so the marks hold for all later searches of the text as well. */
#include "models/regex_program_int.h"

#include "base/utf8.h"

#include <string.h>

enum {
    PATIENCE = 2048,     /* steps of one search before failures are marked */
    FRAMES_MAX = 1 << 22 /* ways not yet tried: 64 MB; an expression that needs more is hostile */
};

typedef struct lore_regex_frame {
    int32_t pc;
    size_t at;
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
    if (known != NULL) {
        *known = (lore_regex_run){start, *at};
    }
    return count >= one->first;
}

static bool push(lore_regex_search *s, int32_t pc, size_t at)
{
    if (s->depth == s->room) {
        size_t room = s->room > 0 ? 2 * s->room : 64;
        lore_regex_frame *stack =
            room > FRAMES_MAX ? NULL : lore_arena_push(s->arena, room * sizeof *stack);
        if (stack == NULL) {
            return false;
        }
        if (s->depth > 0) {
            memcpy(stack, s->stack, s->depth * sizeof *stack);
        }
        s->stack = stack;
        s->room = room;
    }
    s->stack[s->depth++] = (lore_regex_frame){pc, at};
    return true;
}

/* Start marking what was tried, at `from` and behind it. */
static bool start_marks(lore_regex_search *s, size_t from)
{
    size_t bits = 0;
    if (!lore_size_mul(s->text.len - from + 1, (size_t)s->regex->splits, &bits)) {
        return false;
    }
    s->failed = LORE_PUSH(s->arena, uint64_t, bits / 64 + 1);
    s->failed_from = from;
    return s->failed != NULL;
}

/* Whether this SPLIT was tried here before; it has been from now on. */
static bool was_tried(lore_regex_search *s, const lore_regex_step *split, size_t at)
{
    if (s->failed == NULL) {
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
    for (int32_t i = 0; i < s->regex->splits && s->failed != NULL; i++) {
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

/* Match from `at` on: *end is where it ends or SIZE_MAX. False: out of memory. */
static bool match_at(lore_regex_search *s, size_t at, size_t *end)
{
    const lore_regex_step *program = s->regex->program;
    int32_t pc = 0;
    size_t start = at;
    s->depth = 0;
    for (;;) {
        const lore_regex_step *one = &program[pc];
        bool goes_on = true;
        if (++s->steps == PATIENCE && s->failed == NULL && !start_marks(s, start)) {
            return false;
        }
        if (one->op == LORE_REGEX_MATCH) {
            *end = at;
            return true;
        }
        if (one->op == LORE_REGEX_JUMP) {
            pc = one->first;
        } else if (one->op == LORE_REGEX_SPLIT) {
            goes_on = !was_tried(s, one, at);
            if (goes_on && !push(s, one->second, at)) {
                return false;
            }
            pc = one->first;
        } else {
            goes_on = holds(s, one, &at);
            pc++;
        }
        if (!goes_on && s->depth == 0) {
            *end = SIZE_MAX;
            return true;
        }
        if (!goes_on) {
            lore_regex_frame back = s->stack[--s->depth];
            pc = back.pc;
            at = back.at;
        }
    }
}

bool lore_regex_begin(lore_regex_search *s, lore_str text)
{
    size_t runs = (size_t)s->regex->runs;
    s->text = text;
    s->failed = NULL;
    if (s->runs == NULL) {
        s->runs = LORE_PUSH(s->arena, lore_regex_run, runs + 1);
        return s->runs != NULL;
    }
    memset(s->runs, 0, runs * sizeof *s->runs);
    return true;
}

bool lore_regex_find(lore_regex_search *s, size_t from, size_t *start, size_t *end)
{
    const lore_regex *regex = s->regex;
    s->steps = 0;
    for (size_t at = from; at < s->text.len || (at == s->text.len && regex->may_be_empty);) {
        bool may_start =
            at == s->text.len || s->code_points != NULL || regex->starts[(uint8_t)s->text.ptr[at]];
        if (may_start) {
            if (!match_at(s, at, end)) {
                return false;
            }
            if (*end != SIZE_MAX) {
                forget_marks(s, *end);
                *start = at;
                return true;
            }
        }
        if (at == s->text.len) {
            break;
        }
        next_char(s, &at);
    }
    *start = *end = SIZE_MAX;
    return true;
}
