/* Writing the tree of a pattern out as a program: SET takes one character, SPLIT tries one way,
 * then the other.
 *
 * A repeat at the very end of the expression is a RUN: whatever it takes, the match is made, so
 * nothing would ever be given back. Possessive repeats of one set are RUNs by definition. */
#include "models/regex_program_int.h"

#include <string.h>

enum { PROGRAM_MAX = 1 << 12 }; /* instructions; repeats with counts multiply */

typedef struct compiler {
    lore_arena *arena;
    lore_regex_step *program; /* [PROGRAM_MAX] in scratch */
    int32_t count, splits, runs;
    lore_error *err;
} compiler;

static lore_status no_memory(const compiler *c)
{
    return lore_fail(c->err, LORE_ERR_NOMEM, "out of memory for a regular expression");
}

static lore_status emit(compiler *c, lore_regex_step one)
{
    if (c->count == PROGRAM_MAX) {
        return lore_fail(c->err, LORE_ERR_LIMIT,
                         "regular expression: more than %d steps when its repeats are written out",
                         PROGRAM_MAX);
    }
    if (one.op == LORE_REGEX_SPLIT) {
        one.set = c->splits++;
    }
    if (one.op == LORE_REGEX_RUN && one.second < 0) {
        one.run = c->runs++;
    }
    c->program[c->count++] = one;
    return LORE_OK;
}

static lore_status write_node(compiler *c, const lore_regex_node *n, bool is_last);

/* Copies that must be there, then a loop or copies that may be. */
static lore_status write_repeat(compiler *c, const lore_regex_node *n, bool is_last)
{
    lore_status status = LORE_OK;
    bool is_run = n->is_possessive || (is_last && !n->is_lazy);
    if (is_run && lore_regex_is_one_set(n->left)) {
        return emit(c, (lore_regex_step){.op = LORE_REGEX_RUN,
                                         .set = n->left->leaf.set,
                                         .first = n->low,
                                         .second = n->high});
    }
    for (int32_t i = 0; i < n->low && status == LORE_OK; i++) {
        status = write_node(c, n->left, false);
    }
    int32_t copies = n->high < 0 ? 1 : n->high - n->low;
    int32_t last = -1; /* the SPLITs before the copies, linked through `second` until we are at the
                        * end */
    for (int32_t i = 0; i < copies && status == LORE_OK; i++) {
        int32_t at = c->count;
        status =
            emit(c, (lore_regex_step){.op = LORE_REGEX_SPLIT, .first = at + 1, .second = last});
        if (status == LORE_OK) {
            last = at;
            status = write_node(c, n->left, false);
        }
        if (status == LORE_OK && n->high < 0) {
            status = emit(c, (lore_regex_step){.op = LORE_REGEX_JUMP, .first = at});
        }
    }
    while (status == LORE_OK && last >= 0) {
        lore_regex_step *split = &c->program[last];
        last = split->second;
        split->second = n->is_lazy ? split->first : c->count;
        split->first = n->is_lazy ? c->count : split->first;
    }
    return status;
}

/* is_last: nothing but the end of the expression follows. */
static lore_status write_node(compiler *c, const lore_regex_node *n, bool is_last)
{
    lore_status status = LORE_OK;
    switch (n->kind) {
    case LORE_REGEX_NODE_EMPTY:
        return LORE_OK;
    case LORE_REGEX_NODE_LEAF:
        return emit(c, n->leaf);
    case LORE_REGEX_NODE_CHAIN:
        status = write_node(c, n->left, false);
        return status == LORE_OK ? write_node(c, n->right, is_last) : status;
    case LORE_REGEX_NODE_REPEAT:
        return write_repeat(c, n, is_last);
    case LORE_REGEX_NODE_CHOICE:
        break;
    }
    int32_t split = c->count;
    status = emit(c, (lore_regex_step){.op = LORE_REGEX_SPLIT, .first = split + 1});
    status = status == LORE_OK ? write_node(c, n->left, is_last) : status;
    int32_t jump = c->count;
    status = status == LORE_OK ? emit(c, (lore_regex_step){.op = LORE_REGEX_JUMP}) : status;
    if (status == LORE_OK) {
        c->program[split].second = c->count;
        status = write_node(c, n->right, is_last);
        c->program[jump].first = c->count;
    }
    return status;
}

/* Which bytes a match may start with: those of the sets that can be reached without taking
 * anything. All of them where the end can be reached so. */
static void find_starts(lore_regex *regex, int32_t count, bool *is_reached)
{
    is_reached[0] = true;
    /* A loop's JUMP leads back to a SPLIT that was reached before its body, so one pass does. */
    for (int32_t pc = 0; pc < count; pc++) {
        const lore_regex_step *one = &regex->program[pc];
        if (!is_reached[pc]) {
            continue;
        }
        bool takes = one->op == LORE_REGEX_SET || (one->op == LORE_REGEX_RUN && one->first > 0);
        if (one->op == LORE_REGEX_SPLIT) {
            is_reached[one->first] = is_reached[one->second] = true;
        } else if (one->op == LORE_REGEX_JUMP) {
            is_reached[one->first] = true;
        } else if (one->op == LORE_REGEX_MATCH) {
            regex->may_be_empty = true;
        } else if (!takes) {
            is_reached[pc + 1] = true;
        }
        for (int32_t b = 0; b < 256 && (one->op == LORE_REGEX_SET || one->op == LORE_REGEX_RUN);
             b++) {
            const uint64_t *ascii = regex->sets[one->set].ascii;
            regex->starts[b] |= b >= 128 || (ascii[b >> 6] >> (b & 63) & 1) != 0;
        }
    }
    for (int32_t b = 0; b < 256 && regex->may_be_empty; b++) {
        regex->starts[b] = true;
    }
}

static lore_status write_program(compiler *c, const lore_regex_node *root, lore_arena *scratch,
                                 lore_regex *regex)
{
    c->program = lore_arena_push(scratch, PROGRAM_MAX * sizeof *c->program);
    bool *is_reached = LORE_PUSH(scratch, bool, PROGRAM_MAX + 1);
    if (c->program == NULL || is_reached == NULL) {
        return no_memory(c);
    }
    lore_status status = write_node(c, root, true);
    if (status == LORE_OK) {
        status = emit(c, (lore_regex_step){.op = LORE_REGEX_MATCH});
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_regex_step *program = LORE_PUSH(c->arena, lore_regex_step, c->count);
    if (program == NULL) {
        return no_memory(c);
    }
    memcpy(program, c->program, (size_t)c->count * sizeof *program);
    regex->program = program;
    regex->splits = c->splits;
    regex->runs = c->runs;
    find_starts(regex, c->count, is_reached);
    return LORE_OK;
}

lore_status lore_regex_compile(lore_str pattern, lore_arena *arena, const lore_regex **regex,
                               lore_error *err)
{
    lore_arena scratch;
    lore_regex_tree tree = {0};
    compiler c = {.arena = arena, .err = err};
    lore_regex *made = LORE_PUSH(arena, lore_regex, 1);
    if (made == NULL) {
        return no_memory(&c);
    }
    lore_status status = lore_regex_parse(pattern, arena, &tree, err);
    if (status != LORE_OK) {
        return status;
    }
    made->sets = tree.sets;
    made->pattern = lore_str_copy(arena, pattern);
    if (made->pattern.ptr == NULL) {
        return no_memory(&c);
    }
    lore_arena_init(&scratch, 0);
    status = write_program(&c, tree.root, &scratch, made);
    lore_arena_destroy(&scratch);
    if (status == LORE_OK) {
        *regex = made;
    }
    return status;
}
