/* Fuzz target of a sentencepiece model's precompiled_charsmap.
 *
 * Property: any bytes are a map or refused with a reason. With a map, both ways of applying it keep
 * the origins of a text inside it and in order; the shortest key is not longer than the longest;
 * all memory is given back, in linear time. */
#include "models/charsmap_int.h"
#include "models/normal_stage_int.h"
#include "tests/fuzz/fuzz.h"

static void run(lore_normal_stage stage, lore_str text)
{
    lore_arena arena;
    lore_normal out;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 0);
    lore_normal_writer w = {.in = {text, NULL}, .cap = 32 * text.len + 4096, .arena = &arena};
    stage.run(&stage, &w);
    lore_status status = lore_normal_finish(&w, &out, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    }
    for (size_t i = 0; status == LORE_OK && out.origin != NULL && i < out.text.len; i++) {
        LORE_ASSERT(out.origin[i] < text.len);
        LORE_ASSERT(i == 0 || out.origin[i] >= out.origin[i - 1]);
    }
    lore_arena_destroy(&arena);
}

static void check_map(const lore_charsmap *map, lore_str text)
{
    for (size_t at = 0; at < text.len && at < 4096; at++) {
        lore_str rest = lore_str_slice(text, at, text.len), first, last;
        size_t shortest = lore_charsmap_match(map, rest, false, &first);
        size_t longest = lore_charsmap_match(map, rest, true, &last);
        LORE_ASSERT(shortest <= longest);
        LORE_ASSERT((shortest == 0) == (longest == 0));
        LORE_ASSERT(longest <= rest.len);
    }
    run((lore_normal_stage){.run = lore_normal_precompiled, .charsmap = map}, text);
    run((lore_normal_stage){.run = lore_normal_sentencepiece,
                            .charsmap = map,
                            .has_prefix = true,
                            .is_squeezed = true,
                            .is_escaped = true},
        text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str blob = {size == 0 ? "" : (const char *)data, size};
    lore_arena arena;
    lore_charsmap map;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 0);
    lore_status status = lore_charsmap_open(&map, blob, &arena, &err);
    if (status == LORE_OK) {
        check_map(&map, blob);
        check_map(&map, LORE_STR("AB  Caf\x65\xCC\x81 \xC2\xBD\xCC\x81\r\n\x01\xFF"));
    } else {
        fuzz_check_refusal(status, &err);
    }
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    fuzz_check_cost(start_ns, size);
    return 0;
}
