/* Questions: JSON Lines, tabs, TREC topics; and files of questions with answers. Judgements are
 * read in judgements.c. */
#include "eval/topics.h"

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "eval/topics_int.h"

#include <stdlib.h>
#include <string.h>

enum { ID_BYTES_MAX = 512, JSON_DEPTH = 16 };

lore_status lore_topic_check_id(lore_str id, const char *name, int64_t line, lore_error *err)
{
    bool is_plain = id.len > 0 && id.len <= ID_BYTES_MAX;
    for (size_t i = 0; i < id.len && is_plain; i++) {
        is_plain = (unsigned char)id.ptr[i] >= 0x20;
    }
    return is_plain ? LORE_OK
                    : lore_fail(err, LORE_ERR_INVALID,
                                "'%s' line %lld: an id must have 1 to %d bytes and no control "
                                "characters",
                                name, (long long)line, ID_BYTES_MAX);
}

size_t lore_topic_lines(lore_str text)
{
    size_t count = 1;
    for (size_t i = 0; i < text.len; i++) {
        count += text.ptr[i] == '\n';
    }
    return count;
}

/* ---- lists ---- */

static lore_status begin_list(lore_topic_list *list, lore_str text, const char *name,
                              lore_arena *arena, lore_error *err)
{
    size_t lines = lore_topic_lines(text);
    if (lines > LORE_TOPICS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "'%s' has more than %d lines", name, LORE_TOPICS_MAX);
    }
    *list = (lore_topic_list){LORE_PUSH(arena, lore_topic, lines), 0};
    return list->items != NULL
               ? LORE_OK
               : lore_fail(err, LORE_ERR_NOMEM, "no memory for the questions of '%s'", name);
}

static int by_id(const void *a, const void *b)
{
    return lore_str_compare(((const lore_topic *)a)->id, ((const lore_topic *)b)->id);
}

/* In order of id; an id that stands twice, or no question at all, is an error. */
static lore_status end_list(lore_topic_list *list, const char *name, lore_error *err)
{
    if (list->count == 0) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' has no questions", name);
    }
    qsort(list->items, (size_t)list->count, sizeof *list->items, by_id);
    for (int32_t i = 1; i < list->count; i++) {
        if (lore_str_equal(list->items[i - 1].id, list->items[i].id)) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "'%s': the question '" LORE_STR_FMT "' stands there twice", name,
                             LORE_STR_ARG(list->items[i].id));
        }
    }
    return LORE_OK;
}

static lore_status add_topic(lore_topic_list *list, lore_topic topic, const char *name,
                             int64_t line, const lore_limits *limits, lore_error *err)
{
    lore_status status = lore_topic_check_id(topic.id, name, line, err);
    if (status != LORE_OK) {
        return status;
    }
    topic.text = lore_str_trim(topic.text);
    if (topic.text.len == 0 || topic.text.len > (size_t)limits->question_bytes_max) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "'%s' line %lld: a question must have 1 to %lld bytes", name,
                         (long long)line, (long long)limits->question_bytes_max);
    }
    list->items[list->count++] = topic;
    return LORE_OK;
}

/* ---- JSON Lines ---- */

/* A string or a whole number (some sets number their questions) as text in the arena. */
static lore_status take_id(const lore_json *object, lore_arena *arena, lore_str *id,
                           lore_error *err)
{
    const lore_json *node = lore_json_get(object, "id");
    node = node != NULL ? node : lore_json_get(object, "_id");
    if (node == NULL) {
        return LORE_OK;
    }
    double number = lore_json_number(node);
    if (lore_json_is_number(node) && number >= 0 && number <= 9007199254740992.0 &&
        number == (double)(int64_t)number) {
        *id = lore_str_printf(arena, "%lld", (long long)number);
    } else if (lore_json_is_string(node)) {
        *id = lore_str_copy(arena, lore_json_str(node));
    } else {
        return lore_fail(err, LORE_ERR_INVALID, "id must be a string");
    }
    return id->ptr != NULL ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "no memory for an id");
}

static lore_status take_text(const lore_json *object, const char *key, bool is_required,
                             lore_arena *arena, lore_str *text, lore_error *err)
{
    lore_str found = {NULL, 0};
    lore_status status = is_required ? lore_json_get_str_required(object, "", key, &found, err)
                                     : lore_json_get_str(object, "", key, &found, err);
    if (status == LORE_OK && found.len > 0) {
        *text = lore_str_copy(arena, found);
        status = text->ptr != NULL ? LORE_OK
                                   : lore_fail(err, LORE_ERR_NOMEM, "no memory for the questions");
    }
    return status;
}

/* "answers": [...], or "answer": one or null; empty ones do not count. */
static lore_status take_answers(const lore_json *object, lore_arena *arena, lore_topic *topic,
                                lore_error *err)
{
    const lore_json *many = lore_json_get(object, "answers");
    const lore_json *one = lore_json_get(object, "answer");
    if (many != NULL ? !lore_json_is_array(many) : one == NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "%s",
                         many != NULL ? "answers must be an array of strings"
                                      : "answers or answer is missing");
    }
    int32_t count = many != NULL ? lore_json_count(many) : 1;
    if (count > LORE_TOPIC_ANSWERS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "answers has more than %d", LORE_TOPIC_ANSWERS_MAX);
    }
    lore_str *answers = LORE_PUSH(arena, lore_str, count);
    if (answers == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the answers");
    }
    for (const lore_json *node = many != NULL ? lore_json_first(many) : one; node != NULL;
         node = many != NULL ? lore_json_next(node) : NULL) {
        lore_str answer = lore_str_trim(lore_json_str(node));
        if (!lore_json_is_string(node) && (many != NULL || !lore_json_is_null(node))) {
            return lore_fail(err, LORE_ERR_INVALID, "an answer must be a string");
        }
        if (answer.len == 0) {
            continue;
        }
        answers[topic->answer_count] = lore_str_copy(arena, answer);
        if (answers[topic->answer_count++].ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for the answers");
        }
    }
    topic->answers = answers;
    return LORE_OK;
}

static lore_status read_object(lore_str line, int64_t number, bool with_answers, lore_arena *arena,
                               lore_topic *topic, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(line, JSON_DEPTH, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    if (!lore_json_is_object(root)) {
        status = lore_fail(err, LORE_ERR_INVALID, "a question must be a JSON object");
    }
    if (status == LORE_OK) {
        status = take_id(root, arena, &topic->id, err);
    }
    if (status == LORE_OK) {
        status =
            take_text(root, with_answers ? "question" : "text", true, arena, &topic->text, err);
    }
    if (status == LORE_OK && with_answers) {
        status = take_text(root, "document", false, arena, &topic->document, err);
    }
    if (status == LORE_OK && with_answers) {
        status = take_answers(root, arena, topic, err);
    }
    if (status == LORE_OK && with_answers && topic->id.ptr == NULL) {
        topic->id = lore_str_printf(arena, "%lld", (long long)number);
    }
    lore_json_free(root);
    return status;
}

static lore_status parse_objects(lore_str text, const char *name, bool with_answers,
                                 const lore_limits *limits, lore_arena *arena,
                                 lore_topic_list *list, lore_error *err)
{
    lore_str line;
    lore_status status = LORE_OK;
    for (int64_t number = 1; status == LORE_OK && lore_str_next_line(&text, &line); number++) {
        lore_topic topic = {0};
        if (lore_str_trim(line).len == 0) {
            continue;
        }
        status = read_object(line, number, with_answers, arena, &topic, err);
        if (status != LORE_OK) {
            return lore_error_prefix(err, "'%s' line %lld", name, (long long)number);
        }
        status = add_topic(list, topic, name, number, limits, err);
    }
    return status;
}

/* ---- id, tab, text ---- */

static lore_status parse_tabs(lore_str text, const char *name, const lore_limits *limits,
                              lore_topic_list *list, lore_error *err)
{
    lore_str line;
    lore_status status = LORE_OK;
    for (int64_t number = 1; status == LORE_OK && lore_str_next_line(&text, &line); number++) {
        size_t tab = lore_str_find(line, LORE_STR("\t"), 0);
        if (lore_str_trim(line).len == 0) {
            continue;
        }
        if (tab == SIZE_MAX) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "'%s' line %lld: a question is an id, a tab and a text", name,
                             (long long)number);
        }
        lore_topic topic = {.id = lore_str_slice(line, 0, tab),
                            .text = lore_str_slice(line, tab + 1, line.len)};
        status = add_topic(list, topic, name, number, limits, err);
    }
    return status;
}

/* ---- TREC topics: <num> Number: 301, <title> words; other fields are for people ---- */

/* What stands behind `tag`, up to the next tag. False: there is no such tag. */
static bool find_field(lore_str topic, lore_str tag, lore_str prefix, lore_str *value)
{
    size_t at = lore_str_find(topic, tag, 0);
    if (at == SIZE_MAX) {
        return false;
    }
    size_t end = lore_str_find(topic, LORE_STR("<"), at + tag.len);
    end = end == SIZE_MAX ? topic.len : end;
    *value = lore_str_trim(lore_str_slice(topic, at + tag.len, end));
    if (lore_str_starts(*value, prefix)) {
        *value = lore_str_trim(lore_str_slice(*value, prefix.len, value->len));
    }
    return true;
}

static lore_status parse_trec(lore_str text, const char *name, const lore_limits *limits,
                              lore_topic_list *list, lore_error *err)
{
    const lore_str opening = LORE_STR("<top>");
    lore_status status = LORE_OK;
    size_t at = lore_str_find(text, opening, 0);
    while (status == LORE_OK && at != SIZE_MAX) {
        size_t next = lore_str_find(text, opening, at + opening.len);
        lore_str one = lore_str_slice(text, at, next == SIZE_MAX ? text.len : next);
        int64_t line = (int64_t)lore_topic_lines(lore_str_slice(text, 0, at));
        lore_topic topic = {0};
        if (!find_field(one, LORE_STR("<num>"), LORE_STR("Number:"), &topic.id) ||
            !find_field(one, LORE_STR("<title>"), LORE_STR("Topic:"), &topic.text)) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "'%s' line %lld: a topic needs <num> and <title>", name,
                             (long long)line);
        }
        if (next != SIZE_MAX && lore_str_find(one, LORE_STR("\n"), 0) == SIZE_MAX) {
            return lore_fail(err, LORE_ERR_INVALID, "'%s' line %lld: two topics on one line", name,
                             (long long)line); /* there is room for one a line */
        }
        status = add_topic(list, topic, name, line, limits, err);
        at = next;
    }
    return status;
}

/* ---- files ---- */

static lore_status check_text(lore_str *text, const char *name, lore_error *err)
{
    if (lore_str_starts(*text, LORE_STR("\xef\xbb\xbf"))) {
        *text = lore_str_slice(*text, 3, text->len);
    }
    return lore_utf8_valid(*text) == text->len
               ? LORE_OK
               : lore_fail(err, LORE_ERR_INVALID, "'%s' is not UTF-8", name);
}

lore_status lore_topics_parse_queries(lore_str text, const char *name, const lore_limits *limits,
                                      lore_arena *arena, lore_topic_list *list, lore_error *err)
{
    lore_status status = check_text(&text, name, err);
    if (status == LORE_OK) {
        status = begin_list(list, text, name, arena, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_str inside = lore_str_trim(text);
    char first = '\0';
    if (inside.len > 0) {
        first = inside.ptr[0];
    }
    status = first == '{'   ? parse_objects(text, name, false, limits, arena, list, err)
             : first == '<' ? parse_trec(text, name, limits, list, err)
                            : parse_tabs(text, name, limits, list, err);
    return status == LORE_OK ? end_list(list, name, err) : status;
}

lore_status lore_topics_parse_answers(lore_str text, const char *name, const lore_limits *limits,
                                      lore_arena *arena, lore_topic_list *list, lore_error *err)
{
    lore_status status = check_text(&text, name, err);
    if (status == LORE_OK) {
        status = begin_list(list, text, name, arena, err);
    }
    if (status == LORE_OK) {
        status = parse_objects(text, name, true, limits, arena, list, err);
    }
    return status == LORE_OK ? end_list(list, name, err) : status;
}

/* The file's bytes, in the arena: what is parsed points into them. */
static lore_status read_text(const char *path, const lore_limits *limits, lore_arena *arena,
                             lore_str *text, lore_error *err)
{
    lore_buf bytes;
    lore_buf_init(&bytes, 0);
    lore_status status = lore_file_read(path, (size_t)limits->file_bytes_max, &bytes, err);
    if (status == LORE_OK) {
        *text = lore_str_copy(arena, lore_buf_str(&bytes));
        status = text->ptr != NULL ? LORE_OK
                                   : lore_fail(err, LORE_ERR_NOMEM, "no memory for '%s'", path);
    }
    lore_buf_destroy(&bytes);
    return status;
}

lore_status lore_topics_read_answers(const char *path, const lore_limits *limits, lore_arena *arena,
                                     lore_topics *topics, lore_error *err)
{
    lore_str text = {NULL, 0};
    lore_topic_list list = {0};
    lore_status status = read_text(path, limits, arena, &text, err);
    if (status == LORE_OK) {
        status = lore_topics_parse_answers(text, path, limits, arena, &list, err);
    }
    if (status == LORE_OK) {
        *topics = (lore_topics){.items = list.items, .count = list.count};
    }
    return status;
}

/* The first of these names that is a file of the folder. */
static lore_status find_file(const char *folder, const lore_str *names, size_t count,
                             const char *what, lore_arena *arena, char **path, lore_error *err)
{
    for (size_t i = 0; i < count; i++) {
        lore_str full = lore_str_printf(arena, "%s/" LORE_STR_FMT, folder, LORE_STR_ARG(names[i]));
        *path = full.ptr != NULL ? lore_str_to_c(arena, full) : NULL;
        if (*path == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for the name of a file");
        }
        if (lore_file_exists(*path) && !lore_file_is_dir(*path)) {
            return LORE_OK;
        }
    }
    return lore_fail(err, LORE_ERR_NOT_FOUND, "'%s' has no %s", folder, what);
}

lore_status lore_topics_read_folder(const char *folder, const char *split,
                                    const lore_limits *limits, lore_arena *arena,
                                    lore_topics *topics, lore_error *err)
{
    const lore_str queries[] = {LORE_STR("queries.jsonl"), LORE_STR("queries.tsv"),
                                LORE_STR("topics.tsv"), LORE_STR("topics.txt"), LORE_STR("topics")};
    lore_str qrels[] = {lore_str_printf(arena, "qrels/%s.tsv", split != NULL ? split : "test"),
                        LORE_STR("qrels.tsv"), LORE_STR("qrels.txt"), LORE_STR("qrels")};
    size_t qrels_count = split != NULL ? 1 : sizeof qrels / sizeof qrels[0];
    char *queries_path = NULL, *qrels_path = NULL;
    lore_str queries_text, qrels_text;
    lore_topic_list list = {0};
    if (qrels[0].ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the name of a file");
    }
    lore_status status = find_file(folder, queries, sizeof queries / sizeof queries[0],
                                   "questions (queries.jsonl, queries.tsv, topics.tsv, topics.txt)",
                                   arena, &queries_path, err);
    if (status == LORE_OK) {
        status = find_file(folder, qrels, qrels_count,
                           "judgements (qrels/SPLIT.tsv, qrels.tsv, qrels.txt)", arena, &qrels_path,
                           err);
    }
    if (status == LORE_OK) {
        status = read_text(queries_path, limits, arena, &queries_text, err);
    }
    if (status == LORE_OK) {
        status = read_text(qrels_path, limits, arena, &qrels_text, err);
    }
    if (status == LORE_OK) {
        status = lore_topics_parse_queries(queries_text, queries_path, limits, arena, &list, err);
    }
    return status == LORE_OK
               ? lore_topics_join_judgements(qrels_text, qrels_path, &list, arena, topics, err)
               : status;
}
