/* Which template a model has, what it can take, and the ones that are built in.
 *
 * After parsing, a template writes a few short conversations. Whatever it cannot do with them is an
 * error now, not at the first question; and they show what it expects: whether a system message
 * reaches the output, and whether an assistant may speak first. */
#include "base/file.h"
#include "base/json.h"
#include "generation/template_int.h"

#include <stdio.h>
#include <string.h>

enum { PATH_CAP = 4096, JSON_DEPTH_MAX = 32 };

struct lore_template {
    lore_arena arena; /* source, nodes, tokens, name */
    const char *name;
    const lore_jinja_node *body;
    lore_template_tokens tokens;
    bool takes_system, is_user_first;
    int32_t end_id; /* -1: none */
};

/* ---- built in ---- */

typedef struct builtin {
    const char *name, *source;
    const char *markers[3]; /* special tokens without which it makes no sense */
} builtin;

static const builtin BUILTINS[] = {
    {"chatml",
     "{% for message in messages %}"
     "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
     "{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
     {"<|im_start|>", "<|im_end|>", NULL}},
    {"llama2",
     "{% set system = messages[0].content if messages[0].role == 'system' else none %}"
     "{% set turns = messages if system is none else messages[1:] %}"
     "{% for turn in turns %}"
     "{% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}"
     "{{ raise_exception('roles must alternate user, assistant, user, ...') }}{% endif %}"
     "{% set content = turn.content %}"
     "{% if loop.first and system is not none %}"
     "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + content %}{% endif %}"
     "{% if turn.role == 'user' %}{{ bos_token ~ '[INST] ' + content.strip() + ' [/INST]' }}"
     "{% elif turn.role == 'assistant' %}{{ ' ' + content.strip() + ' ' ~ eos_token }}{% endif %}"
     "{% endfor %}",
     {NULL}},
    {"llama3",
     "{{ bos_token }}"
     "{% for message in messages %}"
     "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}"
     "{{ message.content | trim + '<|eot_id|>' }}"
     "{% endfor %}"
     "{% if add_generation_prompt %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
     {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
    {"mistral",
     "{% set system = messages[0].content if messages[0].role == 'system' else none %}"
     "{% set turns = messages if system is none else messages[1:] %}"
     "{{ bos_token }}"
     "{% for turn in turns %}"
     "{% if (turn.role == 'user') != (loop.index0 % 2 == 0) or turn.role == 'system' %}"
     "{{ raise_exception('roles must alternate user, assistant, user, ...') }}{% endif %}"
     "{% if turn.role == 'user' %}"
     "{% set before = system + '\\n\\n' if loop.first and system is not none else '' %}"
     "{{ ' [INST] ' + before + turn.content + ' [/INST]' }}"
     "{% else %}{{ ' ' + turn.content ~ eos_token }}{% endif %}"
     "{% endfor %}",
     {NULL}},
    /* With a system message that is the instruction and the user's words are its input. */
    {"alpaca",
     "{% set has_system = messages[0].role == 'system' %}"
     "{{ bos_token ~ 'Below is an instruction that describes a task' }}"
     "{{ ', paired with an input that provides further context' if has_system }}"
     "{{ '. Write a response that appropriately completes the request.\\n\\n' }}"
     "{% for message in messages %}"
     "{% if message.role == 'system' %}{{ '### Instruction:\\n' + message.content }}"
     "{% elif message.role == 'user' %}"
     "{{ '### ' + ('Input' if has_system else 'Instruction') + ':\\n' + message.content }}"
     "{% else %}{{ '### Response:\\n' + message.content ~ eos_token }}{% endif %}"
     "{{ '\\n\\n' }}"
     "{% endfor %}"
     "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}",
     {NULL}},
};

static const builtin *find_builtin(const char *name)
{
    for (size_t i = 0; i < sizeof BUILTINS / sizeof BUILTINS[0]; i++) {
        if (strcmp(name, BUILTINS[i].name) == 0) {
            return &BUILTINS[i];
        }
    }
    return NULL;
}

/* The marker that the tokenizer lacks, or NULL. */
static const char *missing_marker(const builtin *chosen, const lore_tokenizer *tokenizer)
{
    for (size_t i = 0; i < 3 && chosen->markers[i] != NULL; i++) {
        int32_t id = lore_tokenizer_id(tokenizer, lore_str_from(chosen->markers[i]));
        if (id < 0 || !lore_tokenizer_is_special(tokenizer, id)) {
            return chosen->markers[i];
        }
    }
    return NULL;
}

/* ---- short conversations ---- */

#define PROBE_SYSTEM "Zur Sache."
#define PROBE_USER "Was nun?"

static const lore_template_message SYSTEM_TURN = {{"system", 6}, {PROBE_SYSTEM, 10}};
static const lore_template_message USER_TURN = {{"user", 4}, {PROBE_USER, 8}};
static const lore_template_message ASSISTANT_TURN = {{"assistant", 9}, {"Dies.", 5}};

/* Where a message's text begins in the output, SIZE_MAX: nowhere. What the template itself says in
 * the same words is passed over. */
static size_t find_content(const lore_template_output *output, lore_str text)
{
    size_t at = lore_str_find(output->text, text, 0);
    while (at != SIZE_MAX && (output->foreign == NULL || output->foreign[at] == 0)) {
        at = lore_str_find(output->text, text, at + 1);
    }
    return at;
}

/* has_text: the output holds `text`, from a message. */
static lore_status probe(const lore_template *template, const lore_template_message *messages,
                         int32_t count, const char *text, bool *has_text, lore_error *err)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_template_output output = {0};
    lore_template_chat chat = {.messages = messages, .count = count, .is_open = true};
    lore_status status = lore_template_render(template, &chat, &arena, &output, err);
    *has_text = status == LORE_OK && find_content(&output, lore_str_from(text)) != SIZE_MAX;
    lore_arena_destroy(&arena);
    return status;
}

/* The same where the template may refuse: *is_taken says whether it did not. */
static lore_status probe_refusal(const lore_template *template,
                                 const lore_template_message *messages, int32_t count,
                                 const char *text, bool *is_taken, lore_error *err)
{
    lore_error refusal = {.status = LORE_OK};
    lore_status status = probe(template, messages, count, text, is_taken, &refusal);
    if (status == LORE_OK || status == LORE_ERR_INVALID) {
        return LORE_OK;
    }
    return lore_fail(err, status, "%s", refusal.message);
}

static lore_status try_conversations(lore_template *template, lore_error *err)
{
    const lore_template_message turns[] = {SYSTEM_TURN, USER_TURN, ASSISTANT_TURN, USER_TURN};
    bool has_text = false, may_answer_first = false;
    lore_status status = probe(template, turns + 1, 1, PROBE_USER, &has_text, err);
    if (status == LORE_OK && !has_text) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "the chat template '%s' leaves out what the user says", template->name);
    }
    if (status == LORE_OK) {
        status = probe(template, turns + 1, 3, PROBE_USER, &has_text, err);
    }
    if (status == LORE_OK) {
        status = probe_refusal(template, turns, 2, PROBE_SYSTEM, &template->takes_system, err);
    }
    if (status == LORE_OK) {
        status = probe_refusal(template, turns + 2, 2, PROBE_USER, &may_answer_first, err);
    }
    template->is_user_first = !may_answer_first;
    return status;
}

/* ---- parsing and rendering ---- */

static lore_status no_memory(const char *name, lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the chat template '%s'", name);
}

static bool copy_tokens(lore_template *template, const lore_template_tokens *tokens)
{
    lore_template_tokens *to = &template->tokens;
    *to = (lore_template_tokens){
        lore_str_copy(&template->arena, tokens->bos), lore_str_copy(&template->arena, tokens->eos),
        lore_str_copy(&template->arena, tokens->unk), lore_str_copy(&template->arena, tokens->pad)};
    return to->bos.ptr != NULL && to->eos.ptr != NULL && to->unk.ptr != NULL && to->pad.ptr != NULL;
}

lore_status lore_template_parse(lore_str source, const char *name,
                                const lore_template_tokens *tokens, lore_template **template_out,
                                lore_error *err)
{
    lore_template *template = lore_alloc_zero(1, sizeof *template);
    if (template == NULL) {
        return no_memory(name, err);
    }
    lore_arena_init(&template->arena, 0);
    template->end_id = -1;
    template->name = lore_str_to_c(&template->arena, lore_str_from(name));
    lore_status status = LORE_OK;
    if (template->name == NULL || !copy_tokens(template, tokens)) {
        status = no_memory(name, err);
    }
    if (status == LORE_OK) {
        status =
            lore_jinja_parse_source(source, template->name, &template->arena, &template->body, err);
    }
    if (status == LORE_OK) {
        status = try_conversations(template, err);
    }
    if (status != LORE_OK) {
        lore_template_close(template);
        return status;
    }
    *template_out = template;
    return LORE_OK;
}

lore_status lore_template_render(const lore_template *template, const lore_template_chat *chat,
                                 lore_arena *arena, lore_template_output *output, lore_error *err)
{
    return lore_jinja_execute(template->name, template->body, LORE_JINJA_STEPS, &template->tokens,
                              chat, arena, output, err);
}

void lore_template_close(lore_template *template)
{
    if (template != NULL) {
        lore_arena_destroy(&template->arena);
        lore_free(template);
    }
}

const char *lore_template_name(const lore_template *template)
{
    return template->name;
}

bool lore_template_takes_system(const lore_template *template)
{
    return template->takes_system;
}

bool lore_template_is_user_first(const lore_template *template)
{
    return template->is_user_first;
}

int32_t lore_template_end_id(const lore_template *template)
{
    return template->end_id;
}

/* A conversation that ends with an answer; where the template takes no such one, one that goes on
 * after it and was tried before. In both, what follows the answer is the end of its turn. */
static lore_status render_answer(const lore_template *template, lore_arena *arena,
                                 lore_template_output *output, lore_error *err)
{
    const lore_template_message turns[] = {USER_TURN, ASSISTANT_TURN, USER_TURN};
    lore_template_chat chat = {.messages = turns, .count = 2};
    lore_error refusal = {.status = LORE_OK};
    lore_status status = lore_template_render(template, &chat, arena, output, &refusal);
    if (status == LORE_ERR_INVALID) {
        chat.count = 3;
        chat.is_open = true;
        return lore_template_render(template, &chat, arena, output, err);
    }
    return status == LORE_OK ? status : lore_fail(err, status, "%s", refusal.message);
}

/* The token that follows what the assistant says: special, or none of ours. */
static lore_status find_end(lore_template *template, const lore_tokenizer *tokenizer,
                            lore_error *err)
{
    lore_template_output output = {0};
    lore_tokens tokens = {0};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_status status = render_answer(template, &arena, &output, err);
    size_t at = status == LORE_OK ? find_content(&output, ASSISTANT_TURN.content) : SIZE_MAX;
    if (at != SIZE_MAX) {
        lore_str rest =
            lore_str_slice(output.text, at + ASSISTANT_TURN.content.len, output.text.len);
        status = lore_tokenizer_encode(tokenizer, lore_str_trim(rest),
                                       (lore_encode_options){.allow_special = true}, &arena,
                                       &tokens, err);
    }
    if (status == LORE_OK && tokens.count > 0 &&
        lore_tokenizer_is_special(tokenizer, tokens.ids[0])) {
        template->end_id = tokens.ids[0];
    }
    lore_arena_destroy(&arena);
    return status;
}

/* ---- the model's folder ---- */

/* What has been found so far; the JSON trees own the strings. */
typedef struct search {
    const char *folder;
    const lore_tokenizer *tokenizer;
    const lore_limits *limits;
    lore_json *config; /* tokenizer_config.json, or NULL */
    lore_json *map;    /* special_tokens_map.json, or NULL */
    lore_json *other;  /* chat_template.json, or NULL */
    lore_buf file;
    lore_str source;
    char name[PATH_CAP];
    lore_template_tokens tokens;
    lore_error *err;
} search;

static lore_status path_of(search *s, const char *file, char path[PATH_CAP])
{
    int len = snprintf(path, PATH_CAP, "%s/%s", s->folder, file);
    return len < 0 || len >= PATH_CAP
               ? lore_fail(s->err, LORE_ERR_INVALID, "path of the model folder is too long")
               : LORE_OK;
}

/* The folder's file as JSON; *root stays NULL where there is no such file. */
static lore_status read_json(search *s, const char *file, lore_json **root)
{
    char path[PATH_CAP];
    lore_status status = path_of(s, file, path);
    if (status != LORE_OK || !lore_file_exists(path)) {
        return status;
    }
    lore_buf text;
    lore_buf_init(&text, 0);
    status = lore_file_read(path, (size_t)s->limits->model_json_bytes_max, &text, s->err);
    if (status == LORE_OK) {
        status = lore_json_parse(lore_buf_str(&text), JSON_DEPTH_MAX, root, s->err);
        if (status == LORE_ERR_INVALID) {
            status = LORE_ERR_CORRUPT; /* the file's fault, not the caller's */
        }
        if (status != LORE_OK && s->err != NULL) {
            (void)lore_error_prefix(s->err, "'%s'", path);
            s->err->status = status;
        }
    }
    lore_buf_destroy(&text);
    return status;
}

/* A token of the configuration: a string, or an object with its content. False: not mentioned. */
static bool read_token(const lore_json *root, const char *key, lore_str *token)
{
    const lore_json *node = lore_json_get(root, key);
    *token = lore_json_str(lore_json_is_object(node) ? lore_json_get(node, "content") : node);
    return node != NULL;
}

static void find_tokens(search *s, int32_t bos_id, int32_t eos_id)
{
    const struct {
        const char *key;
        lore_str *token;
        int32_t id;
    } rows[] = {{"bos_token", &s->tokens.bos, bos_id},
                {"eos_token", &s->tokens.eos, eos_id},
                {"unk_token", &s->tokens.unk, -1},
                {"pad_token", &s->tokens.pad, -1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool is_told = read_token(s->config, rows[i].key, rows[i].token) ||
                       read_token(s->map, rows[i].key, rows[i].token);
        if (!is_told && rows[i].id >= 0) {
            *rows[i].token = lore_tokenizer_bytes(s->tokenizer, rows[i].id);
        }
    }
}

/* "chat_template": a string, or a list of {"name", "template"} of which "default" is ours. */
static lore_status take_from_json(search *s, const lore_json *root, const char *file)
{
    const lore_json *node = lore_json_get(root, "chat_template");
    for (const lore_json *n = lore_json_is_array(node) ? lore_json_first(node) : NULL; n != NULL;
         n = lore_json_next(n)) {
        if (lore_str_equal(lore_json_str(lore_json_get(n, "name")), LORE_STR("default"))) {
            node = lore_json_get(n, "template");
            break;
        }
    }
    if (node == NULL || lore_json_is_null(node)) {
        return LORE_OK;
    }
    lore_status status = path_of(s, file, s->name);
    if (status == LORE_OK && !lore_json_is_string(node)) {
        status = lore_fail(s->err, LORE_ERR_CORRUPT,
                           "'%s': chat_template must be a string or have a template named default",
                           s->name);
    }
    s->source = lore_json_str(node);
    return status;
}

static lore_status take_file(search *s, const char *path)
{
    int len = snprintf(s->name, sizeof s->name, "%s", path);
    if (len < 0 || len >= PATH_CAP) {
        return lore_fail(s->err, LORE_ERR_INVALID, "path of the chat template is too long");
    }
    lore_status status = lore_file_read(path, LORE_JINJA_SOURCE_MAX, &s->file, s->err);
    s->source = lore_buf_str(&s->file);
    return status;
}

static lore_status take_builtin(search *s, const builtin *chosen)
{
    const char *missing = missing_marker(chosen, s->tokenizer);
    if (missing != NULL) {
        return lore_fail(s->err, LORE_ERR_UNSUPPORTED,
                         "the decoder's tokenizer has no special token '%s', which the chat "
                         "template '%s' is written with",
                         missing, chosen->name);
    }
    snprintf(s->name, sizeof s->name, "%s", chosen->name);
    s->source = lore_str_from(chosen->source);
    return LORE_OK;
}

/* The folder's own template. */
static lore_status take_own(search *s)
{
    char path[PATH_CAP];
    lore_status status = path_of(s, "chat_template.jinja", path);
    if (status != LORE_OK) {
        return status;
    }
    if (lore_file_exists(path)) {
        return take_file(s, path);
    }
    status = read_json(s, "chat_template.json", &s->other);
    if (status == LORE_OK) {
        status = take_from_json(s, s->other, "chat_template.json");
    }
    if (status == LORE_OK && s->source.ptr == NULL) {
        status = take_from_json(s, s->config, "tokenizer_config.json");
    }
    if (status != LORE_OK || s->source.ptr != NULL) {
        return status;
    }
    if (missing_marker(&BUILTINS[0], s->tokenizer) == NULL) {
        return take_builtin(s, &BUILTINS[0]);
    }
    return lore_fail(s->err, LORE_ERR_UNSUPPORTED,
                     "the model folder '%s' has no chat template: give one with --chat-template "
                     "chatml, llama2, llama3, mistral, alpaca or a file",
                     s->folder);
}

static lore_status find_source(search *s, const char *choice)
{
    const builtin *chosen = find_builtin(choice);
    if (strcmp(choice, "auto") == 0) {
        return take_own(s);
    }
    if (chosen != NULL) {
        return take_builtin(s, chosen);
    }
    if (!lore_file_exists(choice)) {
        return lore_fail(s->err, LORE_ERR_NOT_FOUND,
                         "there is no chat template '%s': give auto, chatml, llama2, llama3, "
                         "mistral, alpaca or a file",
                         choice);
    }
    return take_file(s, choice);
}

lore_status lore_template_open(const char *folder, const char *choice,
                               const lore_tokenizer *tokenizer, int32_t bos_id, int32_t eos_id,
                               const lore_limits *limits, lore_template **template_out,
                               lore_error *err)
{
    lore_template *template = NULL;
    search s = {.folder = folder, .tokenizer = tokenizer, .limits = limits, .err = err};
    lore_buf_init(&s.file, 0);
    lore_status status = read_json(&s, "tokenizer_config.json", &s.config);
    if (status == LORE_OK) {
        status = read_json(&s, "special_tokens_map.json", &s.map);
    }
    if (status == LORE_OK) {
        find_tokens(&s, bos_id, eos_id);
        status = find_source(&s, choice);
    }
    if (status == LORE_OK) {
        status = lore_template_parse(s.source, s.name, &s.tokens, &template, err);
        if (status == LORE_ERR_INVALID && strcmp(choice, "auto") == 0) {
            status = LORE_ERR_CORRUPT; /* likewise */
        }
        if (status != LORE_OK && err != NULL) {
            err->status = status;
        }
    }
    if (status == LORE_OK) {
        status = find_end(template, tokenizer, err);
    }
    if (status == LORE_OK) {
        *template_out = template;
    } else {
        lore_template_close(template);
    }
    lore_json_free(s.config);
    lore_json_free(s.map);
    lore_json_free(s.other);
    lore_buf_destroy(&s.file);
    return status;
}
