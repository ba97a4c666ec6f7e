/* Fuzz target of split patterns: a regular expression on the first line, a text behind it.
 *
 * Property: a pattern is an expression or refused with a reason. Pieces of the text ascend and are
 * never empty; where every match is kept, they are the whole text. The same text again gives the
 * same pieces; a search that is given up names its pattern; all memory is given back, and however
 * long a pattern takes, it is linear in the text. */
#include "models/pretoken_int.h"
#include "tests/fuzz/fuzz.h"

/* The pieces' ends, hashed; 0: the search was given up. */
static uint64_t walk_once(lore_pretoken_walk *walk, lore_str text)
{
    size_t start = 0, end = 0, last = 0;
    uint64_t hash = 1;
    bool is_whole = walk->step->behavior != LORE_PRETOKEN_REMOVED;
    lore_pretoken_begin(walk, text);
    while (lore_pretoken_next(walk, &start, &end)) {
        LORE_ASSERT(start >= last);
        LORE_ASSERT(!is_whole || start == last);
        LORE_ASSERT(end > start);
        LORE_ASSERT(end <= text.len);
        last = end;
        hash = hash * 31 + end;
    }
    LORE_ASSERT(walk->failed != LORE_OK || !is_whole || last == text.len);
    return walk->failed == LORE_OK ? hash : 0;
}

static void check(const lore_regex *regex, lore_pretoken_behavior behavior, lore_str text)
{
    lore_arena arena;
    lore_pretoken_walk walk;
    lore_pretoken step = {.kind = LORE_PRETOKEN_REGEX, .behavior = behavior, .regex = regex};
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 0);
    lore_pretoken_init(&walk, &step, &arena);
    uint64_t once = walk_once(&walk, text);
    uint64_t again = once == 0 ? 0 : walk_once(&walk, text);
    LORE_ASSERT(again == once || again == 0);
    if (walk.failed != LORE_OK) {
        fuzz_check_refusal(lore_regex_explain(regex, walk.failed, &err), &err);
    }
    lore_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str text = {size == 0 ? "" : (const char *)data, size}, pattern = {0};
    const lore_regex *regex = NULL;
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 0);
    lore_str_next_line(&text, &pattern);
    lore_status status = lore_regex_compile(pattern, &arena, &regex, &err);
    if (status == LORE_OK) {
        char *repeated = fuzz_repeated(text);
        check(regex, (lore_pretoken_behavior)(size % 5), text);
        check(regex, LORE_PRETOKEN_ISOLATED,
              LORE_STR("It's 2024:  caf\x65\xCC\x81\n\xE4\xBD\xA0\xFF"));
        if (repeated != NULL) {
            check(regex, LORE_PRETOKEN_ISOLATED, (lore_str){repeated, FUZZ_REPEATED_BYTES});
        }
        lore_free(repeated);
    } else {
        fuzz_check_refusal(status, &err);
    }
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    fuzz_check_cost(start_ns, size);
    return 0;
}
