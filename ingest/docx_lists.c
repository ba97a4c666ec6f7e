/* Numbers of list items in Word (ECMA-376 part 1, 17.9).
 *
 * A paragraph names a use and a level; the use names a definition, and may start a level over. The
 * definition has for each level a text ("%1.%2)"), a way to write numbers and where to start; items
 * of all its uses count on together. An item starts the deeper levels over. */
#include "ingest/docx_int.h"

#include <stdio.h>
#include <string.h>

enum {
    LISTS_MAX = 4096, /* definitions, and uses */
    TEXT_BYTES_MAX = 24,
    ROMAN_MAX = 3999,
    CHINESE_MAX = 99
};

typedef enum list_format {
    FORMAT_DECIMAL,
    FORMAT_BULLET,
    FORMAT_NONE,
    FORMAT_LOWER_LETTER,
    FORMAT_UPPER_LETTER,
    FORMAT_LOWER_ROMAN,
    FORMAT_UPPER_ROMAN,
    FORMAT_CHINESE
} list_format;

typedef struct list_level {
    char text[TEXT_BYTES_MAX];
    list_format format;
    int32_t start, count; /* count 0: no item yet */
} list_level;

typedef struct list {
    int64_t id;
    list_level levels[LORE_LIST_LEVELS];
} list;

typedef struct list_use {
    int64_t id, list;
    int32_t restarts[LORE_LIST_LEVELS]; /* a number to start with, once; 0: none */
} list_use;

void lore_docx_lists_init(lore_docx_lists *lists)
{
    *lists = (lore_docx_lists){.level = -1};
    lore_buf_init(&lists->lists, 0);
    lore_buf_init(&lists->uses, 0);
}

void lore_docx_lists_destroy(lore_docx_lists *lists)
{
    lore_buf_destroy(&lists->lists);
    lore_buf_destroy(&lists->uses);
}

static size_t count_lists(const lore_docx_lists *lists)
{
    return lists->lists.len / sizeof(list);
}

static list *list_at(const lore_docx_lists *lists, size_t i)
{
    return (list *)(void *)lists->lists.ptr + i;
}

static size_t count_uses(const lore_docx_lists *lists)
{
    return lists->uses.len / sizeof(list_use);
}

static list_use *use_at(const lore_docx_lists *lists, size_t i)
{
    return (list_use *)(void *)lists->uses.ptr + i;
}

/* ---- definitions ---- */

static list_format format_of(lore_str name)
{
    static const struct {
        const char *name;
        list_format format;
    } known[] = {{"bullet", FORMAT_BULLET},
                 {"none", FORMAT_NONE},
                 {"lowerLetter", FORMAT_LOWER_LETTER},
                 {"upperLetter", FORMAT_UPPER_LETTER},
                 {"lowerRoman", FORMAT_LOWER_ROMAN},
                 {"upperRoman", FORMAT_UPPER_ROMAN},
                 {"chineseCounting", FORMAT_CHINESE},
                 {"chineseCountingThousand", FORMAT_CHINESE},
                 {"japaneseCounting", FORMAT_CHINESE},
                 {"ideographDigital", FORMAT_CHINESE}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (lore_str_equal(name, lore_str_from(known[i].name))) {
            return known[i].format;
        }
    }
    return FORMAT_DECIMAL;
}

static int64_t number_in(const char *const *attributes, const char *name, int64_t otherwise)
{
    int64_t number = otherwise;
    return lore_str_to_int64(lore_xml_attribute(attributes, name), &number) ? number : otherwise;
}

static void begin_list(lore_docx_lists *lists, const char *const *attributes)
{
    list fresh = {.id = number_in(attributes, "abstractNumId", -1)};
    for (int i = 0; i < LORE_LIST_LEVELS; i++) {
        fresh.levels[i].start = 1;
    }
    lists->is_in_list = count_lists(lists) < LISTS_MAX;
    if (lists->is_in_list) {
        lore_buf_append(&lists->lists, (lore_str){(const char *)&fresh, sizeof fresh});
    }
}

static void begin_use(lore_docx_lists *lists, const char *const *attributes)
{
    list_use fresh = {.id = number_in(attributes, "numId", -1), .list = -1};
    lists->is_in_use = count_uses(lists) < LISTS_MAX;
    if (lists->is_in_use) {
        lore_buf_append(&lists->uses, (lore_str){(const char *)&fresh, sizeof fresh});
    }
}

static void set_level(list_level *level, lore_str name, const char *const *attributes)
{
    lore_str value = lore_xml_attribute(attributes, "val");
    if (lore_str_equal(name, LORE_STR("numFmt"))) {
        level->format = format_of(value);
    } else if (lore_str_equal(name, LORE_STR("start"))) {
        int64_t start = number_in(attributes, "val", 1);
        level->start = start < 0 || start > INT32_MAX / 2 ? 1 : (int32_t)start;
    } else if (lore_str_equal(name, LORE_STR("lvlText")) && value.len < TEXT_BYTES_MAX) {
        memcpy(level->text, value.ptr, value.len);
        level->text[value.len] = '\0';
    }
}

static void lists_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    lore_docx_lists *lists = self;
    (void)source;
    if (lore_buf_failed(&lists->lists) || lore_buf_failed(&lists->uses)) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("abstractNum"))) {
        begin_list(lists, attributes);
    } else if (lore_str_equal(name, LORE_STR("num"))) {
        begin_use(lists, attributes);
    } else if (lore_str_equal(name, LORE_STR("lvl")) ||
               lore_str_equal(name, LORE_STR("lvlOverride"))) {
        int64_t level = number_in(attributes, "ilvl", 0);
        lists->level = level < 0 || level >= LORE_LIST_LEVELS ? -1 : (int32_t)level;
    } else if (lists->is_in_use && lore_str_equal(name, LORE_STR("abstractNumId"))) {
        use_at(lists, count_uses(lists) - 1)->list = number_in(attributes, "val", -1);
    } else if (lists->is_in_use && lists->level >= 0 &&
               lore_str_equal(name, LORE_STR("startOverride"))) {
        int64_t start = number_in(attributes, "val", 1);
        use_at(lists, count_uses(lists) - 1)->restarts[lists->level] =
            start < 1 || start > INT32_MAX / 2 ? 1 : (int32_t)start;
    } else if (lists->is_in_list && lists->level >= 0) {
        set_level(&list_at(lists, count_lists(lists) - 1)->levels[lists->level], name, attributes);
    }
}

static void lists_end(void *self, lore_str name, size_t source)
{
    lore_docx_lists *lists = self;
    (void)source;
    lists->is_in_list = lists->is_in_list && !lore_str_equal(name, LORE_STR("abstractNum"));
    lists->is_in_use = lists->is_in_use && !lore_str_equal(name, LORE_STR("num"));
}

lore_status lore_docx_lists_read(lore_docx_lists *lists, const lore_package *package,
                                 lore_error *err)
{
    const lore_part *part = lore_package_part(package, LORE_STR("word/numbering.xml"));
    const lore_xml_handler handler = {.self = lists, .start = lists_start, .end = lists_end};
    lore_status status = part == NULL ? LORE_OK : lore_package_xml(package, part, &handler, err);
    bool has_memory = !lore_buf_failed(&lists->lists) && !lore_buf_failed(&lists->uses);
    return status != LORE_OK || has_memory
               ? status
               : lore_fail(err, LORE_ERR_NOMEM, "out of memory for lists");
}

/* ---- items ---- */

static void write_roman(int32_t number, bool is_upper, char *out, size_t cap)
{
    static const struct {
        int32_t value;
        const char *lower, *upper;
    } parts[] = {{1000, "m", "M"}, {900, "cm", "CM"}, {500, "d", "D"}, {400, "cd", "CD"},
                 {100, "c", "C"},  {90, "xc", "XC"},  {50, "l", "L"},  {40, "xl", "XL"},
                 {10, "x", "X"},   {9, "ix", "IX"},   {5, "v", "V"},   {4, "iv", "IV"},
                 {1, "i", "I"}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && used < cap; i++) {
        for (; number >= parts[i].value && used < cap; number -= parts[i].value) {
            used += (size_t)snprintf(out + used, cap - used, "%s",
                                     is_upper ? parts[i].upper : parts[i].lower);
        }
    }
}

/* 1..99: "十二" */
static void write_chinese(int32_t number, char *out, size_t cap)
{
    static const char *const digits[] = {"", "一", "二", "三", "四", "五", "六", "七", "八", "九"};
    snprintf(out, cap, "%s%s%s", number >= 20 ? digits[number / 10] : "", number >= 10 ? "十" : "",
             digits[number % 10]);
}

static void write_number(list_format format, int32_t number, char *out, size_t cap)
{
    bool is_letter = format == FORMAT_LOWER_LETTER || format == FORMAT_UPPER_LETTER;
    bool is_roman = format == FORMAT_LOWER_ROMAN || format == FORMAT_UPPER_ROMAN;
    if (is_letter && number >= 1 && number <= 26) {
        snprintf(out, cap, "%c", (format == FORMAT_LOWER_LETTER ? 'a' : 'A') + number - 1);
    } else if (is_roman && number >= 1 && number <= ROMAN_MAX) {
        write_roman(number, format == FORMAT_UPPER_ROMAN, out, cap);
    } else if (format == FORMAT_CHINESE && number >= 1 && number <= CHINESE_MAX) {
        write_chinese(number, out, cap);
    } else {
        snprintf(out, cap, "%d", number);
    }
}

/* The level's text with each %1 ... %9 as the number of that level. */
static lore_str write_marker(const list *l, int64_t level, char marker[LORE_LIST_MARKER_BYTES])
{
    size_t used = 0;
    for (const char *c = l->levels[level].text; *c != '\0' && used + 2 < LORE_LIST_MARKER_BYTES;) {
        bool is_number = c[0] == '%' && c[1] >= '1' && c[1] <= '9';
        if (is_number) {
            const list_level *shown = &l->levels[c[1] - '1'];
            char number[32] = "";
            write_number(shown->format, shown->count > 0 ? shown->count : shown->start, number,
                         sizeof number);
            int length = snprintf(marker + used, LORE_LIST_MARKER_BYTES - used - 1, "%s", number);
            used += (size_t)length < LORE_LIST_MARKER_BYTES - used - 2
                        ? (size_t)length
                        : LORE_LIST_MARKER_BYTES - used - 2;
            c += 2;
        } else {
            marker[used++] = *c++;
        }
    }
    if (used == 0) {
        return (lore_str){"", 0};
    }
    marker[used++] = ' ';
    return (lore_str){marker, used};
}

lore_str lore_docx_lists_next(lore_docx_lists *lists, int64_t id, int64_t level,
                              char marker[LORE_LIST_MARKER_BYTES])
{
    list_use *use = NULL;
    list *found = NULL;
    level = level < 0 ? 0 : level < LORE_LIST_LEVELS ? level : LORE_LIST_LEVELS - 1;
    for (size_t i = 0; i < count_uses(lists) && use == NULL; i++) {
        use = use_at(lists, i)->id == id ? use_at(lists, i) : NULL;
    }
    for (size_t i = 0; use != NULL && i < count_lists(lists) && found == NULL; i++) {
        found = list_at(lists, i)->id == use->list ? list_at(lists, i) : NULL;
    }
    if (found == NULL || found->levels[level].format == FORMAT_BULLET) {
        return LORE_STR("- ");
    }
    list_level *l = &found->levels[level];
    int32_t first = use->restarts[level] > 0 ? use->restarts[level] : l->start;
    bool is_first = l->count == 0 || use->restarts[level] > 0;
    l->count = is_first ? first : l->count < INT32_MAX ? l->count + 1 : l->count;
    use->restarts[level] = 0;
    for (int64_t deeper = level + 1; deeper < LORE_LIST_LEVELS; deeper++) {
        found->levels[deeper].count = 0;
    }
    return l->format == FORMAT_NONE ? (lore_str){"", 0} : write_marker(found, level, marker);
}
