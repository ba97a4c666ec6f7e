/* Proves that the chat templates of the known families, and the template language piece by piece,
 * give what transformers makes of them, byte for byte (templates/, written by make_templates.py);
 * that built-in templates agree with the families' own; and, for every family, that exactly the
 * bytes of the messages are marked as foreign. */
#include "tests/check.h"

#include "base/file.h"
#include "base/json.h"
#include "generation/template_int.h"

#include <time.h>

#define FOLDER LORE_SOURCE_DIR "/tests/golden/templates/"

enum { TURNS_MAX = 16, JSON_DEPTH = 8 };

typedef struct fixture {
    lore_arena arena;
    lore_json *root;
    int64_t now_ms;
} fixture;

static lore_str read_file(lore_arena *arena, const char *path)
{
    lore_error err;
    lore_buf text;
    lore_buf_init(&text, 0);
    CHECK_OK(lore_file_read(path, 1 << 24, &text, &err), &err);
    lore_str copy = lore_str_copy(arena, lore_buf_str(&text));
    lore_buf_destroy(&text);
    CHECK(copy.ptr != NULL);
    return copy;
}

static lore_json *parse(lore_str text)
{
    lore_error err;
    lore_json *root = NULL;
    CHECK_OK(lore_json_parse(text, JSON_DEPTH, &root, &err), &err);
    return root;
}

static void open_cases(fixture *c)
{
    setenv("TZ", "UTC0", 1);
    tzset();
    lore_arena_init(&c->arena, 0);
    c->root = parse(read_file(&c->arena, FOLDER "cases.json"));
    c->now_ms = (int64_t)lore_json_number(lore_json_get(c->root, "now_ms"));
}

static void close_cases(fixture *c)
{
    lore_json_free(c->root);
    lore_arena_destroy(&c->arena);
}

static lore_template_tokens tokens_of(const fixture *c, const char *name)
{
    const lore_json *row = lore_json_get(lore_json_get(c->root, "tokens"), name);
    return (lore_template_tokens){.bos = lore_json_str(lore_json_get(row, "bos_token")),
                                  .eos = lore_json_str(lore_json_get(row, "eos_token")),
                                  .unk = lore_json_str(lore_json_get(row, "unk_token")),
                                  .pad = lore_json_str(lore_json_get(row, "pad_token"))};
}

static int32_t turns_of(const fixture *c, const char *name, lore_template_message turns[TURNS_MAX])
{
    int32_t count = 0;
    const lore_json *list = lore_json_get(lore_json_get(c->root, "conversations"), name);
    CHECK(list != NULL);
    for (const lore_json *n = lore_json_first(list); n != NULL; n = lore_json_next(n)) {
        CHECK(count < TURNS_MAX);
        const lore_json *role = lore_json_first(n);
        turns[count++] =
            (lore_template_message){lore_json_str(role), lore_json_str(lore_json_next(role))};
    }
    return count;
}

static lore_template *open_template(fixture *c, const char *name)
{
    lore_error err;
    lore_template *template = NULL;
    lore_template_tokens tokens = tokens_of(c, name);
    lore_str path = lore_str_printf(&c->arena, FOLDER "%s.jinja", name);
    CHECK_OK(lore_template_parse(read_file(&c->arena, path.ptr), name, &tokens, &template, &err),
             &err);
    return template;
}

/* The next line of a jsonl file, parsed; NULL at its end. */
static lore_json *next_row(lore_str *rest)
{
    lore_str line;
    return lore_str_next_line(rest, &line) && line.len > 0 ? parse(line) : NULL;
}

static void check_row(fixture *c, const lore_json *row, const lore_template *template)
{
    lore_error err = {.status = LORE_OK};
    lore_template_message turns[TURNS_MAX];
    lore_template_output output = {0};
    const lore_json *text = lore_json_get(row, "text");
    const char *name = lore_json_str(lore_json_get(row, "template")).ptr;
    const char *conversation = lore_json_str(lore_json_get(row, "conversation")).ptr;
    lore_template_chat chat = {.messages = turns,
                               .count = turns_of(c, conversation, turns),
                               .is_open = lore_json_bool(lore_json_get(row, "open")),
                               .unix_ms = c->now_ms};
    lore_status status = lore_template_render(template, &chat, &c->arena, &output, &err);
    if ((status == LORE_OK) != (text != NULL) || (text == NULL && status != LORE_ERR_INVALID)) {
        CHECK_STOP("%s, %s: %s", name, conversation,
                   status == LORE_OK ? "not refused" : err.message);
    }
    if (text != NULL && !lore_str_equal(output.text, lore_json_str(text))) {
        CHECK_STOP("%s, %s: '" LORE_STR_FMT "', not '%s'", name, conversation,
                   LORE_STR_ARG(output.text), lore_json_str(text).ptr);
    }
}

TEST(families_write_what_transformers_writes)
{
    fixture c;
    open_cases(&c);
    lore_str rest = read_file(&c.arena, FOLDER "expected.jsonl");
    lore_str current = {0};
    lore_template *template = NULL;
    int32_t rows = 0, families = 0;
    for (lore_json *row = next_row(&rest); row != NULL; row = next_row(&rest)) {
        lore_str name = lore_json_str(lore_json_get(row, "template"));
        if (!lore_str_equal(name, current)) {
            lore_template_close(template);
            current = lore_str_copy(&c.arena, name);
            template = open_template(&c, current.ptr);
            families++;
        }
        check_row(&c, row, template);
        lore_json_free(row);
        rows++;
    }
    CHECK(rows > 200);
    CHECK_INT(families, lore_json_count(lore_json_get(c.root, "tokens")));
    lore_template_close(template);
    close_cases(&c);
}

/* ---- built in ---- */

static const char *const MARKERS[] = {"<|im_start|>", "<|im_end|>",        "<|start_header_id|>",
                                      "<|eot_id|>",   "<|end_header_id|>", "<|begin_of_text|>",
                                      "</s>",         "<end_of_turn>",     "<|end|>"};
enum { MARKERS_COUNT = sizeof MARKERS / sizeof MARKERS[0] };

/* A tokenizer that has the markers of the families: MARKERS[i] is id i + 1. */
static lore_tokenizer *open_tokenizer(fixture *c)
{
    lore_error err;
    lore_tokenizer *tokenizer = NULL;
    lore_buf json;
    lore_buf_init(&json, 0);
    lore_buf_printf(&json, "{\"added_tokens\": [");
    for (int32_t i = 0; i < MARKERS_COUNT; i++) {
        lore_buf_printf(&json,
                        "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, "
                        "\"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                        "\"special\": true}",
                        i == 0 ? "" : ", ", i + 1, MARKERS[i]);
    }
    lore_buf_printf(&json, "], \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"u\", "
                           "\"vocab\": {\"u\": 0}}}");
    lore_str text = lore_str_copy(&c->arena, lore_buf_str(&json));
    lore_buf_destroy(&json);
    CHECK_OK(lore_tokenizer_parse(text, "markers", &tokenizer, &err), &err);
    return tokenizer;
}

/* choice: a built-in one, or a file; in a folder that names these tokens. */
static lore_template *open_chosen(fixture *c, const char *choice, lore_template_tokens tokens)
{
    static int32_t count;
    lore_error err;
    lore_config config;
    lore_config_default(&config);
    lore_template *built = NULL;
    lore_tokenizer *tokenizer = open_tokenizer(c);
    lore_str folder = lore_str_printf(&c->arena, "%s/%d", check_temp_dir(), count++);
    lore_str path = lore_str_printf(&c->arena, "%s/tokenizer_config.json", folder.ptr);
    lore_str json =
        lore_str_printf(&c->arena, "{\"bos_token\": \"" LORE_STR_FMT "\", \"eos_token\": \"%s\"}",
                        LORE_STR_ARG(tokens.bos), tokens.eos.ptr);
    CHECK_OK(lore_dir_make(folder.ptr, &err), &err);
    CHECK_OK(lore_file_replace(path.ptr, json, &err), &err);
    CHECK_OK(
        lore_template_open(folder.ptr, choice, tokenizer, -1, -1, &config.limits, &built, &err),
        &err);
    lore_tokenizer_close(tokenizer);
    return built;
}

/* Every conversation of the cases, roles in any order: the same text, or refused by both. */
static void check_builtin(fixture *c, const char *name, const char *family_name, int32_t at_least)
{
    lore_template *family = open_template(c, family_name);
    lore_template *built = open_chosen(c, name, tokens_of(c, family_name));
    CHECK_INT(lore_template_takes_system(built), lore_template_takes_system(family));
    CHECK_INT(lore_template_is_user_first(built), lore_template_is_user_first(family));
    int32_t compared = 0;
    const lore_json *list = lore_json_get(c->root, "conversations");
    for (const lore_json *n = lore_json_first(list); n != NULL; n = lore_json_next(n)) {
        lore_error err = {.status = LORE_OK};
        lore_template_message turns[TURNS_MAX];
        lore_template_output expected = {0}, output = {0};
        lore_template_chat chat = {.messages = turns};
        chat.count = turns_of(c, lore_json_key(n).ptr, turns);
        chat.is_open = lore_str_equal(turns[chat.count - 1].role, LORE_STR("user"));
        lore_status status = lore_template_render(family, &chat, &c->arena, &expected, &err);
        if (lore_template_render(built, &chat, &c->arena, &output, &err) != status ||
            !lore_str_equal(output.text, expected.text)) {
            CHECK_STOP("%s, %s: '" LORE_STR_FMT "', not '" LORE_STR_FMT "' (%s)", name,
                       lore_json_key(n).ptr, LORE_STR_ARG(output.text), LORE_STR_ARG(expected.text),
                       err.message);
        }
        compared += status == LORE_OK;
    }
    CHECK(compared >= at_least);
    lore_template_close(built);
    lore_template_close(family);
}

TEST(built_in_templates_agree_with_the_families)
{
    fixture c;
    open_cases(&c);
    check_builtin(&c, "chatml", "chatml", 15);
    check_builtin(&c, "llama2", "llama2", 8);
    check_builtin(&c, "llama3", "llama3", 15);
    check_builtin(&c, "mistral", "mistral-v2", 8);
    check_builtin(&c, "alpaca", "alpaca", 15);
    close_cases(&c);
}

/* ---- the end of a turn ---- */

/* Opened as a model's folder is, each family's template shows the token that ends an answer. */
TEST(every_family_ends_an_answer_with_its_token)
{
    static const char *const ENDS[][2] = {
        {"alpaca", "</s>"},         {"chatml", "<|im_end|>"}, {"gemma2", "<end_of_turn>"},
        {"llama2", "</s>"},         {"llama3", "<|eot_id|>"}, {"llama3.1", "<|eot_id|>"},
        {"llama3.2", "<|eot_id|>"}, {"mistral-v1", "</s>"},   {"mistral-v2", "</s>"},
        {"mistral-v3", "</s>"},     {"mistral-v7", "</s>"},   {"phi3", "<|end|>"},
        {"phi3-first", "<|end|>"},  {"qwen2", "<|im_end|>"},  {"qwen2.5", "<|im_end|>"},
        {"qwen3", "<|im_end|>"},    {"vicuna", "</s>"}};
    enum { FAMILIES = sizeof ENDS / sizeof ENDS[0] };
    fixture c;
    open_cases(&c);
    CHECK_INT(FAMILIES, lore_json_count(lore_json_get(c.root, "tokens")));
    for (size_t i = 0; i < FAMILIES; i++) {
        lore_str path = lore_str_printf(&c.arena, FOLDER "%s.jinja", ENDS[i][0]);
        lore_template *template = open_chosen(&c, path.ptr, tokens_of(&c, ENDS[i][0]));
        int32_t id = lore_template_end_id(template);
        if (id < 1 || strcmp(MARKERS[id - 1], ENDS[i][1]) != 0) {
            CHECK_STOP("%s: token %d ends an answer, not %s", ENDS[i][0], id, ENDS[i][1]);
        }
        lore_template_close(template);
    }
    close_cases(&c);
}

/* ---- the language ---- */

static lore_status run_snippet(fixture *c, lore_str source, lore_template_output *output,
                               lore_error *err)
{
    lore_template_message turns[TURNS_MAX];
    lore_template_chat chat = {.messages = turns,
                               .count = turns_of(c, "snippet", turns),
                               .is_open = true,
                               .unix_ms = c->now_ms};
    const lore_jinja_node *body = NULL;
    lore_template_tokens tokens = tokens_of(c, "llama2");
    lore_status status = lore_jinja_parse_source(source, "snippet", &c->arena, &body, err);
    return status == LORE_OK ? lore_jinja_execute("snippet", body, LORE_JINJA_STEPS, &tokens, &chat,
                                                  &c->arena, output, err)
                             : status;
}

TEST(snippets_mean_what_they_mean_in_jinja)
{
    fixture c;
    open_cases(&c);
    lore_str rest = read_file(&c.arena, FOLDER "snippets.jsonl");
    int32_t wrong = 0, rows = 0;
    for (lore_json *row = next_row(&rest); row != NULL; row = next_row(&rest)) {
        lore_error err = {.status = LORE_OK};
        lore_template_output output = {0};
        lore_str source = lore_json_str(lore_json_get(row, "source"));
        const lore_json *text = lore_json_get(row, "text");
        lore_status status = run_snippet(&c, source, &output, &err);
        bool is_right = (status == LORE_OK) == (text != NULL) &&
                        (text == NULL || lore_str_equal(output.text, lore_json_str(text)));
        if (!is_right) {
            fprintf(stderr, "%s\n    gives '" LORE_STR_FMT "' (%s)\n    not   '%s'\n", source.ptr,
                    LORE_STR_ARG(output.text), status == LORE_OK ? "" : err.message,
                    lore_json_str(text).ptr);
        }
        wrong += !is_right;
        rows++;
        lore_json_free(row);
    }
    close_cases(&c);
    CHECK(rows > 90);
    CHECK_INT(wrong, 0);
}

/* ---- what is foreign ---- */

/* Contents of characters that no template writes, so that each byte tells where it came from. */
static void check_origins(fixture *c, const char *name)
{
    lore_template *template = open_template(c, name);
    const lore_template_message turns[] = {
        {LORE_STR("system"), LORE_STR("\xee\x80\x80\xee\x80\x81")},
        {LORE_STR("user"), LORE_STR("\xee\x80\x82 \xee\x80\x83")},
        {LORE_STR("assistant"), LORE_STR(" \xee\x80\x84\n")},
        {LORE_STR("user"), LORE_STR("\xee\x80\x85")}};
    bool has_system = lore_template_takes_system(template);
    lore_template_chat chat = {.messages = turns + !has_system,
                               .count = has_system ? 4 : 3,
                               .is_open = true,
                               .unix_ms = c->now_ms};
    lore_template_output output = {0};
    lore_error err;
    CHECK_OK(lore_template_render(template, &chat, &c->arena, &output, &err), &err);
    int32_t foreign = 0;
    for (size_t i = 0; i < output.text.len; i++) {
        uint8_t byte = (uint8_t)output.text.ptr[i];
        bool is_space = byte == ' ' || byte == '\n'; /* may be either's */
        CHECK(is_space || output.foreign[i] == (byte >= 0x80));
        foreign += byte >= 0x80;
    }
    CHECK_INT(foreign, has_system ? 18 : 12);
    lore_template_close(template);
}

TEST(exactly_the_bytes_of_messages_are_foreign)
{
    fixture c;
    open_cases(&c);
    const lore_json *tokens = lore_json_get(c.root, "tokens");
    for (const lore_json *n = lore_json_first(tokens); n != NULL; n = lore_json_next(n)) {
        check_origins(&c, lore_json_key(n).ptr);
    }
    close_cases(&c);
}

CHECK_MAIN(families_write_what_transformers_writes, every_family_ends_an_answer_with_its_token,
           built_in_templates_agree_with_the_families, snippets_mean_what_they_mean_in_jinja,
           exactly_the_bytes_of_messages_are_foreign)
