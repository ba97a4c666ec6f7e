/* Judgements: lines of three or four fields, sorted by question and document, joined with the
 * questions. */
#include "eval/topics_int.h"

#include "base/utf8.h"

#include <stdlib.h>

enum { FIELDS_MAX = 5, LINES_MAX = 16 * 1024 * 1024 };

typedef struct judged {
    lore_str query;
    lore_judgement judgement;
} judged;

/* The fields of a line: between tabs where there is one, else between spaces. At most FIELDS_MAX.
 */
static int32_t split_fields(lore_str line, lore_str fields[FIELDS_MAX])
{
    bool has_tab = lore_str_find(line, LORE_STR("\t"), 0) != SIZE_MAX;
    int32_t count = 0;
    size_t at = 0;
    while (at <= line.len && count < FIELDS_MAX) {
        size_t end = at;
        while (end < line.len && line.ptr[end] != '\t' && (has_tab || line.ptr[end] != ' ')) {
            end++;
        }
        lore_str field = lore_str_trim(lore_str_slice(line, at, end));
        if (has_tab || field.len > 0) {
            fields[count++] = field;
        }
        at = end + 1;
    }
    return count;
}

static bool is_name(lore_str field)
{
    char first = field.len > 0 ? field.ptr[0] : '0';
    return (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z');
}

/* *has_row false: a header or an empty line. */
static lore_status read_line(lore_str line, int64_t number, const char *name, bool *has_row,
                             judged *row, lore_error *err)
{
    lore_str fields[FIELDS_MAX];
    int64_t grade = 0;
    *has_row = false;
    if (lore_str_trim(line).len == 0) {
        return LORE_OK;
    }
    int32_t count = split_fields(line, fields);
    bool is_grade = (count == 3 || count == 4) && lore_str_to_int64(fields[count - 1], &grade) &&
                    grade >= -LORE_GRADE_MAX && grade <= LORE_GRADE_MAX;
    if (number == 1 && (count == 3 || count == 4) && is_name(fields[count - 1])) {
        return LORE_OK; /* names of the columns */
    }
    if (!is_grade) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "'%s' line %lld: a judgement is query, document, grade (a whole number), "
                         "or query, iteration, document, grade",
                         name, (long long)number);
    }
    row->query = fields[0];
    row->judgement = (lore_judgement){fields[count - 2], (int32_t)grade};
    *has_row = true;
    lore_status status = lore_topic_check_id(row->query, name, number, err);
    return status == LORE_OK ? lore_topic_check_id(row->judgement.document, name, number, err)
                             : status;
}

static int by_query(const void *a, const void *b)
{
    const judged *x = a, *y = b;
    int order = lore_str_compare(x->query, y->query);
    return order != 0 ? order : lore_str_compare(x->judgement.document, y->judgement.document);
}

/* Sorted, each pair once: the same judgement twice is harmless, two different ones are not. */
static lore_status sort_rows(judged *rows, int32_t *count, const char *name, lore_error *err)
{
    int32_t kept = 0;
    if (*count > 0) {
        qsort(rows, (size_t)*count, sizeof *rows, by_query);
    }
    for (int32_t i = 0; i < *count; i++) {
        if (kept > 0 && by_query(&rows[kept - 1], &rows[i]) == 0) {
            if (rows[kept - 1].judgement.grade != rows[i].judgement.grade) {
                return lore_fail(err, LORE_ERR_INVALID,
                                 "'%s': query '" LORE_STR_FMT "' judges document '" LORE_STR_FMT
                                 "' twice, with different grades",
                                 name, LORE_STR_ARG(rows[i].query),
                                 LORE_STR_ARG(rows[i].judgement.document));
            }
            continue;
        }
        rows[kept++] = rows[i];
    }
    *count = kept;
    return LORE_OK;
}

static int by_grade_down(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x < y) - (x > y);
}

/* The judgements of one question: rows[0 .. count). */
static lore_status set_judgements(const judged *rows, int32_t count, lore_topic *topic,
                                  lore_arena *arena, lore_error *err)
{
    lore_judgement *judgements = LORE_PUSH(arena, lore_judgement, count);
    int32_t *ideal = LORE_PUSH(arena, int32_t, count);
    if (judgements == NULL || ideal == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the judgements");
    }
    for (int32_t i = 0; i < count; i++) {
        judgements[i] = rows[i].judgement;
        if (rows[i].judgement.grade > 0) {
            ideal[topic->relevant_count++] = rows[i].judgement.grade;
        }
    }
    if (topic->relevant_count > 0) {
        qsort(ideal, (size_t)topic->relevant_count, sizeof *ideal, by_grade_down);
    }
    topic->judgements = judgements;
    topic->judgement_count = count;
    topic->ideal = ideal;
    return LORE_OK;
}

/* Both are in order of id: one walk over them. Questions that can be evaluated move to the front.
 */
static lore_status join(const judged *rows, int32_t row_count, lore_topic_list *list,
                        lore_arena *arena, lore_topics *topics, lore_error *err)
{
    lore_status status = LORE_OK;
    int32_t t = 0, kept = 0;
    for (int32_t r = 0, end = 0; r < row_count && status == LORE_OK; r = end) {
        end = r + 1;
        while (end < row_count && lore_str_equal(rows[end].query, rows[r].query)) {
            end++;
        }
        while (t < list->count && lore_str_compare(list->items[t].id, rows[r].query) < 0) {
            topics->unjudged++;
            t++;
        }
        if (t == list->count || !lore_str_equal(list->items[t].id, rows[r].query)) {
            topics->unknown++;
            continue;
        }
        lore_topic topic = list->items[t++];
        status = set_judgements(rows + r, end - r, &topic, arena, err);
        topics->irrelevant += topic.relevant_count == 0;
        if (topic.relevant_count > 0) {
            list->items[kept++] = topic;
        }
    }
    topics->unjudged += list->count - t;
    list->count = kept;
    return status;
}

lore_status lore_topics_join_judgements(lore_str text, const char *name, lore_topic_list *list,
                                        lore_arena *arena, lore_topics *topics, lore_error *err)
{
    lore_str line;
    lore_status status = LORE_OK;
    lore_topics result = {0};
    size_t lines = lore_topic_lines(text);
    int32_t count = 0;
    if (lines > LINES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "'%s' has more than %d lines", name, LINES_MAX);
    }
    if (lore_utf8_valid(text) != text.len) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' is not UTF-8", name);
    }
    judged *rows = LORE_PUSH(arena, judged, lines);
    if (rows == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the judgements of '%s'", name);
    }
    for (int64_t number = 1; status == LORE_OK && lore_str_next_line(&text, &line); number++) {
        bool has_row = false;
        status = read_line(line, number, name, &has_row, &rows[count], err);
        count += has_row;
    }
    if (status == LORE_OK) {
        status = sort_rows(rows, &count, name, err);
    }
    if (status == LORE_OK) {
        status = join(rows, count, list, arena, &result, err);
    }
    if (status == LORE_OK && list->count == 0) {
        status = lore_fail(err, LORE_ERR_INVALID,
                           "'%s' judges nothing relevant to any of the questions", name);
    }
    if (status == LORE_OK) {
        result.items = list->items;
        result.count = list->count;
        *topics = result;
    }
    return status;
}
