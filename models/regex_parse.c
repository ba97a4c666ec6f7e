/* Parsing a pattern to a tree: quantifiers copy their operand, so a tree must come before the
 * program. What we do not know is refused with its place, never guessed. */
#include "models/regex_program_int.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum {
    PATTERN_BYTES_MAX = 1 << 12,
    GROUPS_MAX = 32, /* one inside the other: the parser and the writer recurse */
    CATEGORY_ND = 9  /* in LORE_UTF8_CATEGORIES */
};

/* ---- sets ---- */

bool lore_regex_is_word(int32_t c)
{
    static const char *const names = "LuLlLtLmLoMnMcMeNdNlPc";
    const char *own = &LORE_UTF8_CATEGORIES[2 * lore_utf8_category(c)];
    for (const char *name = names; *name != '\0'; name += 2) {
        if (name[0] == own[0] && name[1] == own[1]) {
            return true;
        }
    }
    /* Letters by property only: circled and squared ones; and the two joiners. */
    return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
           (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c ||
           c == 0x200d;
}

static bool is_in_ranges(const lore_regex_set *set, int32_t c)
{
    int32_t low = 0, high = set->range_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (c > set->ranges[middle].high) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < set->range_count && c >= set->ranges[low].low;
}

static bool is_in_class(const lore_regex_set *set, lore_regex_class class, bool holds)
{
    return (set->classes[holds ? 0 : 1] & class) != 0;
}

bool lore_regex_set_holds(const lore_regex_set *set, int32_t c)
{
    uint32_t classes = set->classes[0] | set->classes[1];
    bool is_held = is_in_ranges(set, c) ||
                   (set->categories != 0 && (set->categories >> lore_utf8_category(c) & 1) != 0) ||
                   ((classes & LORE_REGEX_CLASS_SPACE) != 0 &&
                    is_in_class(set, LORE_REGEX_CLASS_SPACE, lore_utf8_is_space(c))) ||
                   ((classes & LORE_REGEX_CLASS_WORD) != 0 &&
                    is_in_class(set, LORE_REGEX_CLASS_WORD, lore_regex_is_word(c)));
    return is_held != set->is_negative;
}

/* ---- the tree ---- */

typedef struct parser {
    lore_str pattern;
    size_t at;
    int32_t groups;
    bool ignores_case;
    lore_arena *arena;
    lore_regex_set *sets; /* [pattern.len + 1]: each takes at least one byte of the pattern */
    int32_t set_count;
    lore_error *err;
} parser;

static lore_status refuse(const parser *c, const char *what)
{
    size_t end = c->at + 8 < c->pattern.len ? c->at + 8 : c->pattern.len;
    lore_str near = lore_str_slice(c->pattern, c->at < end ? c->at : end, end);
    return lore_fail(c->err, LORE_ERR_UNSUPPORTED,
                     "regular expression: %s is not supported (byte %zu, at '" LORE_STR_FMT "')",
                     what, c->at, LORE_STR_ARG(near));
}

static lore_status no_memory(const parser *c)
{
    return lore_fail(c->err, LORE_ERR_NOMEM, "out of memory for a regular expression");
}

static bool is_next(const parser *c, char byte)
{
    return c->at < c->pattern.len && c->pattern.ptr[c->at] == byte;
}

static bool take(parser *c, const char *text)
{
    lore_str wanted = lore_str_from(text);
    if (!lore_str_starts(lore_str_slice(c->pattern, c->at, c->pattern.len), wanted)) {
        return false;
    }
    c->at += wanted.len;
    return true;
}

static lore_status add_plain_range(parser *c, lore_regex_set *set, int32_t low, int32_t high)
{
    lore_regex_range *range = LORE_PUSH(c->arena, lore_regex_range, 1);
    if (range == NULL) {
        return no_memory(c);
    }
    *range = (lore_regex_range){low, high, set->ranges};
    set->ranges = range;
    set->range_count++;
    return LORE_OK;
}

/* Every character has one category: those without some are those with one of the others. */
static void add_categories(lore_regex_set *set, uint32_t categories, bool is_negative)
{
    const uint32_t all = (1u << (sizeof LORE_UTF8_CATEGORIES / 2)) - 1;
    set->categories |= is_negative ? all & ~categories : categories;
}

/* A range; where case does not matter, of ASCII letters the other case too, and the two characters
 * beyond ASCII that fold to one (long s, Kelvin sign). */
static lore_status add_range(parser *c, lore_regex_set *set, int32_t low, int32_t high)
{
    lore_status status = add_plain_range(c, set, low, high);
    if (!c->ignores_case) {
        return status;
    }
    if (low >= 128) {
        return refuse(c, "ignoring the case of a letter beyond ASCII");
    }
    for (int32_t x = low; x <= high && x < 128 && status == LORE_OK; x++) {
        int32_t lower = x | 0x20;
        if (lower < 'a' || lower > 'z') {
            continue;
        }
        status = add_plain_range(c, set, x ^ 0x20, x ^ 0x20);
        if (status == LORE_OK && (lower == 's' || lower == 'k')) {
            int32_t other = lower == 's' ? 0x17f : 0x212a;
            status = add_plain_range(c, set, other, other);
        }
    }
    return status;
}

/* {L}, {Lu}, {^L} behind \p; is_negative for \P. */
static lore_status add_property(parser *c, lore_regex_set *set, bool is_negative)
{
    uint32_t categories = 0;
    size_t close = lore_str_find(c->pattern, LORE_STR("}"), c->at);
    if (!is_next(c, '{') || close == SIZE_MAX) {
        return refuse(c, "\\p without {name}");
    }
    lore_str name = lore_str_slice(c->pattern, c->at + 1, close);
    if (name.len > 0 && name.ptr[0] == '^') {
        is_negative = !is_negative;
        name = lore_str_slice(name, 1, name.len);
    }
    for (int32_t i = 0; LORE_UTF8_CATEGORIES[2 * i] != '\0'; i++) {
        const char *own = &LORE_UTF8_CATEGORIES[2 * i];
        if ((name.len == 1 || name.len == 2) && name.ptr[0] == own[0] &&
            (name.len == 1 || name.ptr[1] == own[1])) {
            categories |= 1u << i;
        }
    }
    if (categories == 0) {
        return refuse(c, "this \\p{name}");
    }
    c->at = close + 1;
    add_categories(set, categories, is_negative);
    return LORE_OK;
}

static bool take_hex(parser *c, size_t digits_max, int32_t *code)
{
    size_t digits = 0;
    *code = 0;
    for (; digits < digits_max && c->at < c->pattern.len && *code <= 0x10ffff; digits++, c->at++) {
        int32_t value = lore_hex_digit(c->pattern.ptr[c->at]);
        if (value < 0) {
            break;
        }
        *code = *code * 16 + value;
    }
    return digits > 0 && *code <= 0x10ffff;
}

/* Behind a backslash: one character into *code, or a whole class into the set (*is_class). */
static lore_status parse_escape(parser *c, lore_regex_set *set, int32_t *code, bool *is_class)
{
    static const char SIMPLE[] = "n\nr\rt\tf\fv\va\ae\x1b";
    if (c->at >= c->pattern.len) {
        return refuse(c, "a backslash at the end");
    }
    size_t start = c->at;
    int32_t point = lore_utf8_next(c->pattern, &c->at);
    char letter = point < 128 ? (char)point : '\0'; /* no letter of ours: stands for itself */
    char lower = (char)(letter | 0x20);
    bool is_negative = letter != lower;
    *is_class = true;
    switch (lower) {
    case 's':
        set->classes[is_negative] |= LORE_REGEX_CLASS_SPACE;
        return LORE_OK;
    case 'w':
        set->classes[is_negative] |= LORE_REGEX_CLASS_WORD;
        return LORE_OK;
    case 'd':
        add_categories(set, 1u << CATEGORY_ND, is_negative);
        return LORE_OK;
    case 'p':
        return add_property(c, set, is_negative);
    default:
        break;
    }
    *is_class = false;
    for (size_t i = 0; i + 1 < sizeof SIMPLE; i += 2) {
        if (SIMPLE[i] == letter) {
            *code = SIMPLE[i + 1];
            return LORE_OK;
        }
    }
    if (letter == 'x' || letter == 'u') {
        bool is_braced = letter == 'x' && take(c, "{");
        bool is_hex = take_hex(c, is_braced ? 8 : letter == 'u' ? 4 : 2, code);
        return is_hex && (!is_braced || take(c, "}")) ? LORE_OK : refuse(c, "this number");
    }
    c->at = start;
    *code = lore_utf8_next(c->pattern, &c->at);
    bool is_plain =
        *code >= 128 || !((lower >= 'a' && lower <= 'z') || (letter >= '0' && letter <= '9'));
    return is_plain ? LORE_OK : refuse(c, "this escape");
}

/* One character of a set, or a class. */
static lore_status parse_set_char(parser *c, lore_regex_set *set, int32_t *code, bool *is_class)
{
    *is_class = false;
    if (take(c, "\\")) {
        return parse_escape(c, set, code, is_class);
    }
    if (is_next(c, '[') ||
        lore_str_starts(lore_str_slice(c->pattern, c->at, c->pattern.len), LORE_STR("&&"))) {
        return refuse(c, "a set in a set");
    }
    *code = lore_utf8_next(c->pattern, &c->at);
    return LORE_OK;
}

/* Behind '['. */
static lore_status parse_set(parser *c, lore_regex_set *set)
{
    set->is_negative = take(c, "^");
    for (bool is_first = true; is_first || !is_next(c, ']'); is_first = false) {
        int32_t low = 0, high = 0;
        bool is_class = false, is_range_end_class = false;
        if (c->at >= c->pattern.len) {
            return refuse(c, "a set without end");
        }
        lore_status status = parse_set_char(c, set, &low, &is_class);
        high = low;
        bool is_range = status == LORE_OK && !is_class && is_next(c, '-') &&
                        c->at + 1 < c->pattern.len && c->pattern.ptr[c->at + 1] != ']';
        if (is_range) {
            c->at++;
            status = parse_set_char(c, set, &high, &is_range_end_class);
        }
        if (status == LORE_OK && (is_range_end_class || high < low)) {
            status = refuse(c, "this range");
        }
        if (status == LORE_OK && !is_class) {
            status = add_range(c, set, low, high);
        }
        if (status != LORE_OK) {
            return status;
        }
    }
    c->at++;
    return LORE_OK;
}

static int by_low(const void *a, const void *b)
{
    const lore_regex_range *left = a, *right = b;
    return (left->low > right->low) - (left->low < right->low);
}

/* The ranges as an array, those that touch joined, and the answers for ASCII. */
static lore_status finish_set(parser *c, lore_regex_set *set)
{
    lore_regex_range *all = LORE_PUSH(c->arena, lore_regex_range, set->range_count + 1);
    int32_t count = 0, kept = 0;
    if (all == NULL) {
        return no_memory(c);
    }
    for (const lore_regex_range *range = set->ranges; range != NULL; range = range->next) {
        all[count++] = *range;
    }
    qsort(all, (size_t)count, sizeof *all, by_low);
    for (int32_t i = 0; i < count; i++) {
        if (kept > 0 && all[i].low <= all[kept - 1].high + 1) {
            all[kept - 1].high =
                all[i].high > all[kept - 1].high ? all[i].high : all[kept - 1].high;
        } else {
            all[kept++] = all[i];
        }
    }
    set->ranges = all;
    set->range_count = kept;
    for (int32_t x = 0; x < 128; x++) {
        set->ascii[x >> 6] |= (uint64_t)lore_regex_set_holds(set, x) << (x & 63);
    }
    return LORE_OK;
}

static lore_regex_node *new_node(parser *c, lore_regex_node_kind kind, lore_regex_node *left,
                                 lore_regex_node *right)
{
    lore_regex_node *n = LORE_PUSH(c->arena, lore_regex_node, 1);
    if (n != NULL) {
        *n = (lore_regex_node){.kind = kind, .left = left, .right = right};
    }
    return n;
}

/* A set, an escape, `.` or a plain character, as a leaf. */
static lore_status parse_leaf_set(parser *c, lore_regex_step *leaf)
{
    lore_regex_set *set = &c->sets[c->set_count];
    int32_t code = 0;
    bool is_class = false;
    lore_status status = LORE_OK;
    *leaf = (lore_regex_step){.op = LORE_REGEX_SET, .set = c->set_count++};
    if (take(c, "[")) {
        status = parse_set(c, set);
    } else if (take(c, ".")) {
        set->is_negative = true;
        status = add_plain_range(c, set, '\n', '\n');
    } else {
        bool is_escape = take(c, "\\");
        if (is_escape) {
            status = parse_escape(c, set, &code, &is_class);
        } else {
            code = lore_utf8_next(c->pattern, &c->at);
        }
        if (status == LORE_OK && !is_class) {
            status = add_range(c, set, code, code);
        }
    }
    return status == LORE_OK ? finish_set(c, set) : status;
}

static lore_status parse_choice(parser *c, lore_regex_node **out);

bool lore_regex_is_one_set(const lore_regex_node *n)
{
    return n->kind == LORE_REGEX_NODE_LEAF && n->leaf.op == LORE_REGEX_SET;
}

/* Behind '(': what kind of group, its inside, its end. */
static lore_status parse_group(parser *c, lore_regex_node **out)
{
    bool outer_case = c->ignores_case;
    bool is_negative = take(c, "?!");
    bool is_ahead = is_negative || take(c, "?=");
    if (!is_ahead && take(c, "?i:")) {
        c->ignores_case = true;
    } else if (!is_ahead && !take(c, "?:") && is_next(c, '?')) {
        return refuse(c, "this kind of group");
    }
    if (++c->groups > GROUPS_MAX) {
        return refuse(c, "such deep nesting");
    }
    lore_status status = parse_choice(c, out);
    c->groups--;
    c->ignores_case = outer_case;
    if (status == LORE_OK && !take(c, ")")) {
        status = refuse(c, "a group without end");
    }
    if (status == LORE_OK && is_ahead) {
        if (!lore_regex_is_one_set(*out)) {
            return refuse(c, "looking ahead for more than one set");
        }
        (*out)->leaf.op = LORE_REGEX_AHEAD;
        (*out)->leaf.is_negative = is_negative;
    }
    return status;
}

static lore_status parse_atom(parser *c, lore_regex_node **out)
{
    static const struct {
        const char *text;
        lore_regex_op op;
    } ANCHORS[] = {{"^", LORE_REGEX_LINE_START},
                   {"$", LORE_REGEX_LINE_END},
                   {"\\A", LORE_REGEX_TEXT_START},
                   {"\\z", LORE_REGEX_TEXT_END}};
    if (take(c, "(")) {
        return parse_group(c, out);
    }
    *out = new_node(c, LORE_REGEX_NODE_LEAF, NULL, NULL);
    if (*out == NULL) {
        return no_memory(c);
    }
    for (size_t i = 0; i < sizeof ANCHORS / sizeof ANCHORS[0]; i++) {
        if (take(c, ANCHORS[i].text)) {
            (*out)->leaf.op = ANCHORS[i].op;
            return LORE_OK;
        }
    }
    return parse_leaf_set(c, &(*out)->leaf);
}

/* {n}, {n,}, {n,m} behind '{'; false leaves c->at where it was. */
static bool take_counts(parser *c, int32_t *low, int32_t *high)
{
    size_t start = c->at;
    int32_t numbers[2] = {-1, -1}, which = 0;
    for (; c->at < c->pattern.len; c->at++) {
        char x = c->pattern.ptr[c->at];
        if (x == ',' && which == 0 && numbers[0] >= 0) {
            which = 1;
        } else if (x >= '0' && x <= '9' && numbers[which] <= LORE_REGEX_COUNT_MAX) {
            numbers[which] = (numbers[which] < 0 ? 0 : numbers[which] * 10) + (x - '0');
        } else {
            break;
        }
    }
    bool is_fine = numbers[0] >= 0 && numbers[0] <= LORE_REGEX_COUNT_MAX &&
                   numbers[1] <= LORE_REGEX_COUNT_MAX &&
                   (numbers[1] < 0 || numbers[1] >= numbers[0]) && take(c, "}");
    if (!is_fine) {
        c->at = start;
        return false;
    }
    *low = numbers[0];
    *high = which == 0 ? numbers[0] : numbers[1];
    return true;
}

static bool may_be_empty(const lore_regex_node *n)
{
    switch (n->kind) {
    case LORE_REGEX_NODE_EMPTY:
        return true;
    case LORE_REGEX_NODE_LEAF:
        return n->leaf.op != LORE_REGEX_SET;
    case LORE_REGEX_NODE_CHAIN:
        return may_be_empty(n->left) && may_be_empty(n->right);
    case LORE_REGEX_NODE_CHOICE:
        return may_be_empty(n->left) || may_be_empty(n->right);
    case LORE_REGEX_NODE_REPEAT:
        return n->low == 0 || may_be_empty(n->left);
    }
    return true;
}

static lore_status parse_repeat(parser *c, lore_regex_node **out)
{
    lore_status status = parse_atom(c, out);
    while (status == LORE_OK && c->at < c->pattern.len) {
        int32_t low = 0, high = -1;
        bool is_counted = false;
        if (take(c, "?")) {
            high = 1;
        } else if (take(c, "+")) {
            low = 1;
        } else if (take(c, "{")) {
            is_counted = take_counts(c, &low, &high);
            if (!is_counted) {
                return refuse(c, "'{' that opens no count");
            }
        } else if (!take(c, "*")) {
            break;
        }
        if (may_be_empty(*out)) {
            return refuse(c, "repeating what may be empty");
        }
        lore_regex_node *repeat = new_node(c, LORE_REGEX_NODE_REPEAT, *out, NULL);
        if (repeat == NULL) {
            return no_memory(c);
        }
        repeat->low = low;
        repeat->high = high;
        repeat->is_lazy = !is_counted && take(c, "?");
        repeat->is_possessive = !is_counted && !repeat->is_lazy && take(c, "+");
        if (repeat->is_possessive && !lore_regex_is_one_set(*out)) {
            return refuse(c, "a possessive repeat of more than one set");
        }
        *out = repeat;
    }
    return status;
}

static lore_status parse_chain(parser *c, lore_regex_node **out)
{
    *out = new_node(c, LORE_REGEX_NODE_EMPTY, NULL, NULL);
    if (*out == NULL) {
        return no_memory(c);
    }
    while (c->at < c->pattern.len && !is_next(c, '|') && !is_next(c, ')')) {
        lore_regex_node *next = NULL;
        lore_status status = parse_repeat(c, &next);
        if (status != LORE_OK) {
            return status;
        }
        *out = (*out)->kind == LORE_REGEX_NODE_EMPTY
                   ? next
                   : new_node(c, LORE_REGEX_NODE_CHAIN, *out, next);
        if (*out == NULL) {
            return no_memory(c);
        }
    }
    return LORE_OK;
}

static lore_status parse_choice(parser *c, lore_regex_node **out)
{
    lore_status status = parse_chain(c, out);
    if (status == LORE_OK && take(c, "|")) {
        lore_regex_node *rest = NULL;
        if (++c->groups > 2 * GROUPS_MAX) {
            return refuse(c, "so many alternatives");
        }
        status = parse_choice(c, &rest);
        c->groups--;
        *out = status == LORE_OK ? new_node(c, LORE_REGEX_NODE_CHOICE, *out, rest) : NULL;
        if (status == LORE_OK && *out == NULL) {
            return no_memory(c);
        }
    }
    return status;
}

static lore_status parse_whole(parser *c, lore_regex_node **root)
{
    c->sets = LORE_PUSH(c->arena, lore_regex_set, c->pattern.len + 1);
    if (c->sets == NULL) {
        return no_memory(c);
    }
    lore_status status = parse_choice(c, root);
    if (status == LORE_OK && c->at < c->pattern.len) {
        status = refuse(c, "a closing parenthesis that nothing opened");
    }
    return status;
}

lore_status lore_regex_parse(lore_str pattern, lore_arena *arena, lore_regex_tree *tree,
                             lore_error *err)
{
    parser c = {.pattern = pattern, .arena = arena, .err = err};
    lore_regex_node *root = NULL;
    if (pattern.len > PATTERN_BYTES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "a regular expression of more than %d bytes",
                         PATTERN_BYTES_MAX);
    }
    lore_status status = parse_whole(&c, &root);
    if (status == LORE_OK) {
        *tree = (lore_regex_tree){root, c.sets};
    }
    return status;
}
