/* Fuzzes the interpreter of chat templates. The input is a template's source.
 *
 * Property: parsing gives a template or an error with a name and a place; a run gives a text or an
 * error, in bounded time and memory, whatever the template does; no byte of the text is marked as
 * the template's own that only a message can have written; the same run gives the same text; all
 * memory is given back.
 *
 * What is found in a hundred thousand steps is mostly found in a few hundred: runs are short, but
 * for one input in FULL_EVERY, which may take as many as a template in earnest. */
#include "generation/template_int.h"
#include "tests/fuzz/fuzz.h"

enum { SHORT_STEPS = 500, FULL_EVERY = 64 };

/* Written with characters that a source cannot hold here (they are taken out of it). */
#define FOREIGN "\xee\x80\x80"

static const lore_template_message TURNS[] = {{{"system", 6}, {" " FOREIGN "\n", 5}},
                                              {{"user", 4}, {FOREIGN "</think>" FOREIGN, 14}},
                                              {{"assistant", 9}, {"", 0}},
                                              {{"user", 4}, {FOREIGN, 3}}};
static const lore_template_tokens TOKENS = {
    .bos = {"<s>", 3}, .eos = {"</s>", 4}, .unk = {"", 0}, .pad = {"", 0}};

static void check_run(const lore_jinja_node *body, int64_t steps, int32_t count, bool can_spell)
{
    const lore_template_chat chat = {
        .messages = TURNS + 4 - count, .count = count, .is_open = true, .unix_ms = 1772366400000};
    lore_error err = {.status = LORE_OK};
    lore_template_output output = {0}, again = {0};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_status status =
        lore_jinja_execute("fuzz", body, steps, &TOKENS, &chat, &arena, &output, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, "fuzz") != NULL);
    } else {
        LORE_ASSERT(output.text.len <= LORE_JINJA_OUTPUT_BYTES_MAX);
        for (size_t i = 0; i < output.text.len; i++) {
            LORE_ASSERT(output.foreign[i] <= 1);
            bool is_theirs = (uint8_t)output.text.ptr[i] == 0xee && !can_spell;
            LORE_ASSERT(output.foreign[i] == 1 || !is_theirs);
        }
        status = lore_jinja_execute("fuzz", body, steps, &TOKENS, &chat, &arena, &again, &err);
        LORE_ASSERT(status == LORE_OK);
        LORE_ASSERT(lore_str_equal(output.text, again.text));
        LORE_ASSERT(output.text.len == 0 ||
                    memcmp(output.foreign, again.foreign, output.text.len) == 0);
    }
    lore_arena_destroy(&arena);
}

static void check(lore_str input)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_error err = {.status = LORE_OK};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    char *copy = lore_arena_push(&arena, input.len);
    LORE_ASSERT(copy != NULL);
    size_t len = 0;
    for (size_t i = 0; i < input.len; i++) {
        copy[len] = input.ptr[i];
        len += (uint8_t)input.ptr[i] != 0xee;
    }
    lore_str source = {copy, len};
    bool can_spell = lore_str_find(source, LORE_STR("\\u"), 0) != SIZE_MAX ||
                     lore_str_find(source, LORE_STR("\\U"), 0) != SIZE_MAX;
    const lore_jinja_node *body = NULL;
    lore_status status = lore_jinja_parse_source(source, "fuzz", &arena, &body, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, "fuzz") != NULL);
    } else {
        bool is_full = lore_str_hash(input) % FULL_EVERY == 0;
        int64_t steps = is_full ? LORE_JINJA_STEPS : SHORT_STEPS;
        check_run(body, steps, 4, can_spell);
        check_run(body, steps, 1, can_spell);
    }
    lore_arena_destroy(&arena);
    fuzz_check_cost(start_ns, 4 * input.len + 128 * 1024); /* runs may take all their steps */
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_text(data, size, check);
}
