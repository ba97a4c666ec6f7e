/* What the tests of the template language share: a source, run with one short conversation, to its
 * text; or refused with these words. The foreign bytes of a result can be seen as a row of marks.
 */
#ifndef LORE_TESTS_TEMPLATE_FIXTURE_H
#define LORE_TESTS_TEMPLATE_FIXTURE_H

#include "tests/check.h"

#include "generation/template_int.h"

static const lore_template_message TEMPLATE_TURNS[] = {
    {{"system", 6}, {"S", 1}}, {{"user", 4}, {" a<b> ", 6}}, {{"assistant", 9}, {"yes", 3}}};
static const lore_template_chat TEMPLATE_CHAT = {
    .messages = TEMPLATE_TURNS, .count = 3, .is_open = true, .unix_ms = 1772366400000};
static const lore_template_tokens TEMPLATE_TOKENS = {
    .bos = {"<s>", 3}, .eos = {"</s>", 4}, .unk = {"", 0}, .pad = {"", 0}};

CHECK_UNUSED static lore_status run_source(lore_str source, const lore_template_chat *chat,
                                           lore_arena *arena, lore_template_output *output,
                                           lore_error *err)
{
    const lore_jinja_node *body = NULL;
    lore_status status = lore_jinja_parse_source(source, "t", arena, &body, err);
    return status == LORE_OK ? lore_jinja_execute("t", body, LORE_JINJA_STEPS, &TEMPLATE_TOKENS,
                                                  chat, arena, output, err)
                             : status;
}

/* The source gives this text, and where `marks` is not NULL, these marks: '.' for bytes of the
 * template, 'x' for foreign ones. */
CHECK_UNUSED static void check_gives(const char *source, const char *text, const char *marks)
{
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_template_output output = {0};
    lore_status status = run_source(lore_str_from(source), &TEMPLATE_CHAT, &arena, &output, &err);
    if (status != LORE_OK || !lore_str_equal(output.text, lore_str_from(text))) {
        const char *words = status == LORE_OK ? "" : err.message;
        CHECK_STOP("%.80s: gives '" LORE_STR_FMT "', not '%s' (%s)", source,
                   LORE_STR_ARG(output.text), text, words);
    }
    for (size_t i = 0; marks != NULL && i < output.text.len; i++) {
        if (output.foreign[i] != (marks[i] == 'x')) {
            CHECK_STOP("%.80s: byte %zu is marked wrong", source, i);
        }
    }
    lore_arena_destroy(&arena);
}

CHECK_UNUSED static void check_refuses(const char *source, lore_status status, const char *words)
{
    lore_error err = {.status = LORE_OK};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_template_output output = {0};
    lore_status got = run_source(lore_str_from(source), &TEMPLATE_CHAT, &arena, &output, &err);
    if (got != status || strstr(err.message, words) == NULL) {
        CHECK_STOP("%.80s: status %s, '%s'", source, lore_status_name(got),
                   got == LORE_OK ? output.text.ptr : err.message);
    }
    got = run_source(lore_str_from(source), &TEMPLATE_CHAT, &arena, &output, NULL);
    lore_arena_destroy(&arena);
    CHECK_INT(got, status);
}

#endif
