/* See guard.h. The ranking is sorted, so the sentences that may be quoted are the first of it. */
#include "api/guard.h"

lore_str lore_guard_unmarked(lore_str sentence, lore_arena *arena)
{
    char *out = lore_arena_push(arena, sentence.len + 1);
    size_t len = 0;
    if (out == NULL) {
        return (lore_str){0};
    }
    for (size_t i = 0; i < sentence.len; i++) {
        size_t digits = i + 1;
        while (sentence.ptr[i] == '[' && digits < sentence.len && sentence.ptr[digits] >= '0' &&
               sentence.ptr[digits] <= '9') {
            digits++;
        }
        if (digits > i + 1 && digits < sentence.len && sentence.ptr[digits] == ']') {
            i = digits;
            while (len > 0 && out[len - 1] == ' ') {
                len--;
            }
        } else {
            out[len++] = sentence.ptr[i];
        }
    }
    return lore_str_trim((lore_str){out, len});
}

/* How many of the ranked sentences may be quoted. */
static int32_t quotable(const lore_guard *guard)
{
    const lore_evidence *evidence = guard->evidence;
    int32_t count = 0;
    while (count < evidence->count &&
           (!guard->is_strict || evidence->sentences[count].score >=
                                     (float)guard->ratio * evidence->sentences[0].score)) {
        count++;
    }
    return count;
}

bool lore_guard_judge(const lore_guard *guard, lore_str sentence, lore_arena *arena,
                      int32_t *carrier)
{
    *carrier = lore_evidence_support(guard->evidence, sentence, arena);
    return !guard->is_on || (*carrier >= 0 && *carrier < quotable(guard));
}

bool lore_guard_is_settled(const lore_guard *guard, lore_str sentence)
{
    int32_t count = guard->is_on ? quotable(guard) : 0;
    for (int32_t i = 0; i < count; i++) {
        if (lore_str_equal(guard->evidence->sentences[i].text, sentence)) {
            return true;
        }
    }
    return false;
}

bool lore_guard_is_lost(const lore_guard *guard, lore_str beginning, lore_arena *arena)
{
    if (!guard->is_on) {
        return false;
    }
    lore_str plain = lore_guard_unmarked(beginning, arena);
    return plain.ptr != NULL && !lore_evidence_may_support(guard->evidence, quotable(guard), plain);
}
