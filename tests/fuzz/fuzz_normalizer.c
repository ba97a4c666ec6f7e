/* Fuzz target of a tokenizer's normalizer: a JSON node on the first line, a text behind it.
 *
 * Property: a node is a normalizer or refused with a reason. Normalised text has an origin inside
 * the source for every byte, and origins never go back; normalising again gives the same; a valid
 * text stays valid; all memory is given back, in linear time. */
#include "models/normalize_int.h"
#include "tests/fuzz/fuzz.h"

enum { BASE = 7 };

static void check_normal(lore_str text, const lore_normal *normal)
{
    uint32_t last = BASE;
    LORE_ASSERT(normal->text.len == 0 || text.len > 0);
    for (size_t i = 0; normal->origin != NULL && i < normal->text.len; i++) {
        LORE_ASSERT(normal->origin[i] >= last);
        LORE_ASSERT(normal->origin[i] < BASE + text.len);
        last = normal->origin[i];
    }
    LORE_ASSERT(normal->origin != NULL || normal->text.len <= text.len);
    if (lore_utf8_valid(text) == text.len) {
        LORE_ASSERT(lore_utf8_valid(normal->text) == normal->text.len);
    }
}

static void run(const lore_normalizer *normalizer, lore_str text)
{
    lore_arena arena;
    lore_normal normal, again;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 0);
    lore_status status = lore_normalize(normalizer, text, BASE, &arena, &normal, &err);
    if (status == LORE_OK) {
        check_normal(text, &normal);
        LORE_ASSERT(lore_normalize(normalizer, text, BASE, &arena, &again, &err) == LORE_OK);
        LORE_ASSERT(lore_str_equal(normal.text, again.text));
    } else {
        fuzz_check_refusal(status, &err);
    }
    lore_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str text = {size == 0 ? "" : (const char *)data, size}, line = {0};
    lore_arena arena;
    lore_json *root = NULL;
    lore_normalizer *normalizer = NULL;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 0);
    lore_str_next_line(&text, &line);
    if (lore_json_parse(line, 64, &root, &err) == LORE_OK) {
        lore_status status = lore_normalizer_parse(root, &arena, &normalizer, &err);
        if (status == LORE_OK) {
            run(normalizer, text);
            run(normalizer,
                LORE_STR("Caf\x65\xCC\x81  \xE4\xBD\xA0\xEF\xAC\x81\x01\xC2\xBD\xFF\n"));
        } else {
            fuzz_check_refusal(status, &err);
        }
    }
    lore_json_free(root);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    fuzz_check_cost(start_ns, size);
    return 0;
}
