/* Statements, scopes, and a whole run: messages in, text out.
 *
 * The body of a loop has a scope of its own, made anew for each item; an if has none. A name is
 * looked for from the innermost scope outwards and set in the innermost: what a loop sets is gone
 * behind it, unless it is set in a namespace. That is Jinja's rule and templates count on it.
 *
 * Nothing is freed before the run's end, so the limit on its memory limits all that a template can
 * build; steps limit the time. */
#include "base/clock.h"
#include "generation/template_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- limits and errors ---- */

lore_status lore_jinja_run_fail(lore_jinja_run *run, lore_status status, const char *format, ...)
{
    char message[LORE_ERROR_MESSAGE_CAP];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return lore_fail(run->err, status, "%s:%d: %s", run->name,
                     run->node != NULL ? run->node->line : 0, message);
}

lore_status lore_jinja_run_no_memory(lore_jinja_run *run)
{
    return run->arena.is_over_cap
               ? lore_jinja_run_fail(run, LORE_ERR_LIMIT, "the template needs too much memory")
               : lore_fail(run->err, LORE_ERR_NOMEM, "out of memory for the template '%s'",
                           run->name);
}

lore_status lore_jinja_run_spend(lore_jinja_run *run, size_t steps)
{
    if (steps >= (size_t)run->steps_left) {
        run->steps_left = 0;
        return lore_jinja_run_fail(run, LORE_ERR_LIMIT,
                                   "the template takes too many steps: a loop without end?");
    }
    run->steps_left -= (int64_t)steps;
    return LORE_OK;
}

lore_status lore_jinja_run_spend_bytes(lore_jinja_run *run, size_t bytes)
{
    return lore_jinja_run_spend(run, bytes / LORE_JINJA_STEP_BYTES);
}

/* ---- names ---- */

lore_status lore_jinja_run_find(lore_jinja_run *run, lore_str name, lore_jinja_value *out)
{
    const lore_jinja_value *found = NULL;
    size_t names = 0;
    for (const lore_jinja_scope *scope = run->scope; scope != NULL && found == NULL;
         scope = scope->outer) {
        found = lore_jinja_map_get(&scope->names, name);
        names += (size_t)scope->names.count;
    }
    bool is_function = found == NULL && lore_jinja_function(name) != NULL;
    *out = found != NULL ? *found
                         : (lore_jinja_value){.kind = is_function ? LORE_JINJA_VALUE_FUNCTION
                                                                  : LORE_JINJA_VALUE_UNDEFINED};
    return lore_jinja_run_spend(run, names / LORE_JINJA_STEP_NAMES);
}

static lore_status set_name(lore_jinja_run *run, lore_str name, lore_jinja_value value)
{
    return lore_jinja_map_put(run, &run->scope->names, name, value);
}

/* ---- statements ---- */

static lore_status run_output(lore_jinja_run *run, lore_jinja_text text)
{
    lore_status status = lore_jinja_run_spend_bytes(run, text.len);
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_text_append(&run->out, text);
    return lore_jinja_text_builder_check(run, &run->out);
}

static lore_status run_print(lore_jinja_run *run, const lore_jinja_node *node)
{
    lore_jinja_value value = {0};
    lore_jinja_text text;
    lore_status status = lore_jinja_run_eval(run, node->first, &value);
    if (status == LORE_OK) {
        status = lore_jinja_value_print(run, &value, &text);
    }
    return status == LORE_OK ? run_output(run, text) : status;
}

static lore_status run_set(lore_jinja_run *run, const lore_jinja_node *node)
{
    lore_jinja_value value = {0};
    lore_status status = lore_jinja_run_eval(run, node->first, &value);
    if (status != LORE_OK) {
        return status;
    }
    if (node->attribute.len == 0) {
        return set_name(run, node->name, value);
    }
    lore_jinja_value target = {0};
    status = lore_jinja_run_find(run, node->name, &target);
    run->node = node;
    if (status != LORE_OK) {
        return status;
    }
    return target.kind == LORE_JINJA_VALUE_NAMESPACE
               ? lore_jinja_map_put(run, target.as.map, node->attribute, value)
               : lore_jinja_run_fail(run, LORE_ERR_INVALID, "'" LORE_STR_FMT "' is no namespace",
                                     LORE_STR_ARG(node->name));
}

static lore_status run_if(lore_jinja_run *run, const lore_jinja_node *node)
{
    lore_jinja_value condition = {0};
    lore_status status = lore_jinja_run_eval(run, node->first, &condition);
    if (status != LORE_OK) {
        return status;
    }
    return lore_jinja_run_body(run,
                               lore_jinja_value_truth(&condition) ? node->second : node->third);
}

/* ---- loops ---- */

static lore_status set_targets(lore_jinja_run *run, const lore_jinja_node *node,
                               const lore_jinja_value *item)
{
    if (node->attribute.len == 0) {
        return set_name(run, node->name, *item);
    }
    if (item->kind != LORE_JINJA_VALUE_LIST || item->count != 2) {
        run->node = node;
        return lore_jinja_run_fail(run, LORE_ERR_INVALID, "a loop over pairs met %s",
                                   lore_jinja_value_kind_name(item));
    }
    lore_status status = set_name(run, node->name, item->as.items[0]);
    return status == LORE_OK ? set_name(run, node->attribute, item->as.items[1]) : status;
}

/* Those items of the list for which the loop's condition holds. */
static lore_status filter_items(lore_jinja_run *run, const lore_jinja_node *node,
                                lore_jinja_value *list)
{
    lore_jinja_value *kept = LORE_PUSH(&run->arena, lore_jinja_value, list->count);
    lore_status status = kept == NULL ? lore_jinja_run_no_memory(run) : LORE_OK;
    int32_t count = 0;
    for (int32_t i = 0; i < list->count && status == LORE_OK; i++) {
        lore_jinja_scope scope = {.outer = run->scope};
        lore_jinja_value condition = {0};
        run->scope = &scope;
        status = set_targets(run, node, &list->as.items[i]);
        if (status == LORE_OK) {
            status = lore_jinja_run_eval(run, node->third, &condition);
        }
        run->scope = scope.outer;
        if (lore_jinja_value_truth(&condition)) {
            kept[count++] = list->as.items[i];
        }
    }
    *list = (lore_jinja_value){.kind = LORE_JINJA_VALUE_LIST, .count = count, .as.items = kept};
    return status;
}

static lore_status run_items(lore_jinja_run *run, const lore_jinja_node *node,
                             const lore_jinja_value *list)
{
    lore_jinja_loop *loop = LORE_PUSH(&run->arena, lore_jinja_loop, 1);
    lore_status status = loop == NULL ? lore_jinja_run_no_memory(run) : LORE_OK;
    lore_jinja_value value = {.kind = LORE_JINJA_VALUE_LOOP, .as.loop = loop};
    for (int32_t i = 0; i < list->count && status == LORE_OK; i++) {
        lore_jinja_scope scope = {.outer = run->scope};
        *loop = (lore_jinja_loop){.items = list->as.items, .index = i, .count = list->count};
        run->scope = &scope;
        status = lore_jinja_run_spend(run, 1);
        if (status == LORE_OK) {
            status = set_name(run, LORE_STR("loop"), value);
        }
        if (status == LORE_OK) {
            status = set_targets(run, node, &list->as.items[i]);
        }
        if (status == LORE_OK) {
            status = lore_jinja_run_body(run, node->second);
        }
        run->scope = scope.outer;
    }
    return status;
}

static lore_status run_for(lore_jinja_run *run, const lore_jinja_node *node)
{
    lore_jinja_value value = {0}, list = {0};
    lore_status status = lore_jinja_run_eval(run, node->first, &value);
    if (status == LORE_OK) {
        status = lore_jinja_value_items(run, &value, &list);
    }
    if (status == LORE_OK && node->third != NULL) {
        status = filter_items(run, node, &list);
    }
    return status == LORE_OK ? run_items(run, node, &list) : status;
}

lore_status lore_jinja_run_body(lore_jinja_run *run, const lore_jinja_node *body)
{
    lore_status status = LORE_OK;
    for (const lore_jinja_node *node = body; node != NULL && status == LORE_OK; node = node->next) {
        run->node = node;
        status = lore_jinja_run_spend(run, 1);
        if (status != LORE_OK) {
            return status;
        }
        switch (node->kind) {
        case LORE_JINJA_NODE_TEXT:
            status = run_output(run, node->value.as.text);
            break;
        case LORE_JINJA_NODE_OUTPUT:
            status = run_print(run, node);
            break;
        case LORE_JINJA_NODE_SET:
            status = run_set(run, node);
            break;
        case LORE_JINJA_NODE_IF:
            status = run_if(run, node);
            break;
        default:
            LORE_ASSERT(node->kind == LORE_JINJA_NODE_FOR);
            status = run_for(run, node);
        }
    }
    return status;
}

/* ---- a whole run ---- */

static lore_status put_message(lore_jinja_run *run, const lore_template_message *message,
                               lore_jinja_value *out)
{
    uint8_t *foreign = lore_arena_push(&run->arena, message->content.len);
    lore_jinja_map *map = LORE_PUSH(&run->arena, lore_jinja_map, 1);
    if (foreign == NULL || map == NULL) {
        return lore_jinja_run_no_memory(run);
    }
    memset(foreign, 1, message->content.len);
    lore_jinja_text content = {message->content.ptr, foreign, message->content.len};
    if (content.len == 0) {
        content = lore_jinja_text_own(LORE_STR(""));
    }
    *out = (lore_jinja_value){.kind = LORE_JINJA_VALUE_MAP, .as.map = map};
    lore_status status = lore_jinja_map_put(
        run, map, LORE_STR("role"), lore_jinja_value_text(lore_jinja_text_own(message->role)));
    return status == LORE_OK
               ? lore_jinja_map_put(run, map, LORE_STR("content"), lore_jinja_value_text(content))
               : status;
}

static lore_status put_messages(lore_jinja_run *run, const lore_template_chat *chat)
{
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, chat->count);
    lore_status status = items == NULL ? lore_jinja_run_no_memory(run) : LORE_OK;
    for (int32_t i = 0; i < chat->count && status == LORE_OK; i++) {
        status = put_message(run, &chat->messages[i], &items[i]);
    }
    lore_jinja_value list = {
        .kind = LORE_JINJA_VALUE_LIST, .count = chat->count, .as.items = items};
    return status == LORE_OK ? set_name(run, LORE_STR("messages"), list) : status;
}

/* What transformers hands to a template: no tools, no documents, and a token only if there is one.
 */
static lore_status put_globals(lore_jinja_run *run, const lore_template_tokens *tokens,
                               const lore_template_chat *chat)
{
    const struct {
        lore_str name, text;
    } rows[] = {{LORE_STR("bos_token"), tokens->bos},
                {LORE_STR("eos_token"), tokens->eos},
                {LORE_STR("unk_token"), tokens->unk},
                {LORE_STR("pad_token"), tokens->pad}};
    lore_jinja_value none = {.kind = LORE_JINJA_VALUE_NONE};
    lore_status status = put_messages(run, chat);
    if (status == LORE_OK) {
        status = set_name(run, LORE_STR("tools"), none);
    }
    if (status == LORE_OK) {
        status = set_name(run, LORE_STR("documents"), none);
    }
    if (status == LORE_OK) {
        status =
            set_name(run, LORE_STR("add_generation_prompt"), lore_jinja_value_bool(chat->is_open));
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && status == LORE_OK; i++) {
        if (rows[i].text.len > 0) {
            status = set_name(run, rows[i].name,
                              lore_jinja_value_text(lore_jinja_text_own(rows[i].text)));
        }
    }
    return status;
}

static lore_status copy_output(lore_jinja_run *run, lore_arena *arena, lore_template_output *output)
{
    size_t len = run->out.text.len;
    lore_str text = lore_str_copy(arena, lore_buf_str(&run->out.text));
    uint8_t *foreign = lore_arena_push(arena, len);
    if (text.ptr == NULL || foreign == NULL) {
        return lore_fail(run->err, LORE_ERR_NOMEM, "out of memory for a prompt of %zu bytes", len);
    }
    if (len > 0) {
        memcpy(foreign, run->out.foreign.ptr, len);
    }
    *output = (lore_template_output){text, foreign};
    return LORE_OK;
}

lore_status lore_jinja_execute(const char *name, const lore_jinja_node *body, int64_t steps,
                               const lore_template_tokens *tokens, const lore_template_chat *chat,
                               lore_arena *arena, lore_template_output *output, lore_error *err)
{
    lore_jinja_scope scope = {0};
    lore_jinja_run run = {.name = name,
                          .scope = &scope,
                          .steps_left = steps + (int64_t)chat->count * LORE_JINJA_STEPS_MESSAGE,
                          .unix_ms = chat->unix_ms != 0 ? chat->unix_ms : lore_clock_unix_ms(),
                          .err = err};
    for (int32_t i = 0; i < chat->count; i++) { /* a template may read each content a few times */
        run.steps_left +=
            (int64_t)(chat->messages[i].content.len / LORE_JINJA_STEP_BYTES) * LORE_JINJA_READINGS;
    }
    lore_arena_init(&run.arena, LORE_JINJA_RUN_BYTES_MAX);
    lore_jinja_text_builder_init(&run.out);
    lore_status status = put_globals(&run, tokens, chat);
    if (status == LORE_OK) {
        status = lore_jinja_run_body(&run, body);
    }
    if (status == LORE_OK) {
        status = copy_output(&run, arena, output);
    }
    lore_jinja_text_builder_destroy(&run.out);
    lore_arena_destroy(&run.arena);
    return status;
}
