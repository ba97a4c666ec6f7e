/* Stop strings on detokenised text.
 *
 * Offsets count bytes of the answer's text from its start. After each token the text that can still
 * matter is the longest suffix that is a proper prefix of some stop string: a match in progress can
 * begin nowhere before it. Everything before that suffix is dropped from `text`, and the tokens
 * that end before it are cleared. So `text` is never longer than the longest stop string plus what
 * one token releases, and room for that is reserved at the start.
 *
 * Invariants
 * 1. text holds the released bytes from text_start on; no stop string occurs in it entirely.
 * 2. ends[] never decreases; a token with unfinished bytes is not cleared, since they come after
 * all released ones. */
#include "generation/stop.h"

#include <string.h>

/* Released at once, a token can be no longer than its bytes and those pending before it, each of
 * which may have become a replacement character of three bytes. */
static size_t release_bytes_max(size_t token_bytes_max)
{
    return 3 * (token_bytes_max + sizeof(((lore_detok *)0)->pending));
}

lore_status lore_stop_init(lore_stop *stop, const lore_str *strings, int32_t count,
                           int32_t tokens_max, size_t token_bytes_max, lore_arena *arena,
                           lore_error *err)
{
    *stop = (lore_stop){.string_count = count, .tokens_max = tokens_max};
    lore_buf_init(&stop->text, 0);
    if (count == 0) {
        return LORE_OK;
    }
    lore_str *copies = LORE_PUSH(arena, lore_str, count);
    stop->strings = copies;
    stop->ends = LORE_PUSH(arena, int64_t, tokens_max);
    stop->unfinished = LORE_PUSH(arena, uint8_t, tokens_max);
    size_t longest = 0;
    bool has_room = copies != NULL && stop->ends != NULL && stop->unfinished != NULL;
    for (int32_t i = 0; i < count && has_room; i++) {
        LORE_ASSERT(strings[i].len > 0);
        copies[i] = lore_str_copy(arena, strings[i]);
        has_room = copies[i].ptr != NULL;
        longest = strings[i].len > longest ? strings[i].len : longest;
    }
    size_t text_bytes = longest + release_bytes_max(token_bytes_max);
    if (!has_room || !lore_buf_reserve(&stop->text, text_bytes)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d stop strings", count);
    }
    return LORE_OK;
}

void lore_stop_destroy(lore_stop *stop)
{
    lore_buf_destroy(&stop->text);
}

/* The match that ends first, of those the longest. False: none. */
static bool find_match(const lore_stop *stop, size_t *start)
{
    lore_str text = lore_buf_str(&stop->text);
    size_t best_start = SIZE_MAX, best_end = SIZE_MAX;
    for (int32_t i = 0; i < stop->string_count; i++) {
        size_t at = lore_str_find(text, stop->strings[i], 0);
        size_t end = at == SIZE_MAX ? SIZE_MAX : at + stop->strings[i].len;
        if (end < best_end || (end == best_end && at < best_start)) {
            best_start = at;
            best_end = end;
        }
    }
    *start = best_start;
    return best_start != SIZE_MAX;
}

/* Bytes at the end of the text that begin some stop string. */
static size_t held_bytes(const lore_stop *stop)
{
    lore_str text = lore_buf_str(&stop->text);
    size_t held = 0;
    for (int32_t i = 0; i < stop->string_count; i++) {
        lore_str string = stop->strings[i];
        size_t longest = string.len - 1 < text.len ? string.len - 1 : text.len;
        for (size_t n = longest; n > held; n--) {
            if (memcmp(text.ptr + text.len - n, string.ptr, n) == 0) {
                held = n;
            }
        }
    }
    return held;
}

/* The answer ends at offset `end`: tokens that begin before it are sent, and of the last of them
 * what reaches beyond is to be cut. */
static lore_stop_verdict end_at(lore_stop *stop, int64_t end)
{
    lore_stop_verdict verdict = {.is_match = true, .sendable = stop->sendable};
    while (verdict.sendable < stop->token_count &&
           (verdict.sendable == 0 ? 0 : stop->ends[verdict.sendable - 1]) < end) {
        verdict.sendable++;
    }
    if (verdict.sendable > 0) {
        int64_t released =
            stop->ends[verdict.sendable - 1] - stop->unfinished[verdict.sendable - 1];
        verdict.cut_bytes = released > end ? (int32_t)(released - end) : 0;
    }
    return verdict;
}

lore_stop_verdict lore_stop_push(lore_stop *stop, const lore_tokenizer *tokenizer, int32_t id)
{
    LORE_ASSERT(stop->token_count < stop->tokens_max);
    int32_t at = stop->token_count++;
    if (stop->string_count == 0) {
        stop->sendable = stop->token_count;
        return (lore_stop_verdict){.sendable = stop->sendable};
    }
    lore_detok_push(&stop->detok, tokenizer, id, &stop->text);
    LORE_ASSERT(!lore_buf_failed(&stop->text)); /* the room was reserved */
    int64_t released = stop->text_start + (int64_t)stop->text.len;
    stop->unfinished[at] = (uint8_t)stop->detok.pending_count;
    stop->ends[at] = released + stop->detok.pending_count;

    size_t match = 0;
    if (find_match(stop, &match)) {
        return end_at(stop, stop->text_start + (int64_t)match);
    }
    size_t held = held_bytes(stop), settled = stop->text.len - held;
    if (held > 0) {
        memmove(stop->text.ptr, stop->text.ptr + settled, held);
    }
    stop->text.len = held;
    stop->text_start += (int64_t)settled;
    while (stop->sendable < stop->token_count && stop->ends[stop->sendable] <= stop->text_start) {
        stop->sendable++;
    }
    return (lore_stop_verdict){.sendable = stop->sendable};
}
