/* robots.txt by RFC 9309.
 *
 * Groups begin with lines "User-agent", which hold for all rules up to the next group. Ours are the
 * groups that name the product, all of them together; where there are none, those of "*". Paths and
 * patterns are compared percent-encoded in one way: unreserved characters plain, capitals in hex.
 */
#include "ingest/web_int.h"

#include <string.h>

enum {
    DELAY_SECONDS_MAX = 86400,
    PATTERN_BYTES_MAX = 8192 /* longer than any address that is asked for */
};

typedef struct reader {
    lore_str product;
    lore_arena *arena;
    lore_robots named, any; /* the groups of the product, and those of "*" */
    size_t named_room, any_room;
    bool is_named, is_any; /* whom the group at hand is for */
    bool has_named;        /* a group of the product was seen, even an empty one */
    bool is_in_agents;     /* the last line was a User-agent */
    bool has_failed;
} reader;

static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           strchr("-._~", c) != NULL;
}

/* In one spelling; `special` are kept as they are. ptr NULL: out of memory. */
static lore_str normalised(lore_str path, const char *special, lore_arena *arena)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = lore_arena_push(arena, path.len * 3 + 1);
    size_t used = 0;
    for (size_t i = 0; out != NULL && i < path.len; i++) {
        unsigned char c = (unsigned char)path.ptr[i];
        int32_t high = i + 2 < path.len && c == '%' ? lore_hex_digit(path.ptr[i + 1]) : -1;
        int32_t low = high >= 0 ? lore_hex_digit(path.ptr[i + 2]) : -1;
        bool is_encoded = low >= 0;
        if (is_encoded) {
            c = (unsigned char)(high * 16 + low);
            i += 2;
        }
        bool is_plain = c != 0 && (is_unreserved(c) || (!is_encoded && strchr(special, c) != NULL));
        if (is_plain) {
            out[used++] = (char)c;
        } else {
            out[used++] = '%';
            out[used++] = hex[c >> 4];
            out[used++] = hex[c & 15];
        }
    }
    return (lore_str){out, used};
}

#define DELIMITERS "/?&=:;,@!$'()+#[]*"

static void add_rule(reader *r, lore_robots *to, size_t *room, lore_str pattern, bool is_allowed)
{
    if (to->count == *room) {
        size_t more = *room == 0 ? 16 : *room * 2;
        lore_robots_rule *grown = LORE_PUSH(r->arena, lore_robots_rule, more);
        if (grown == NULL) {
            r->has_failed = true;
            return;
        }
        if (to->count > 0) {
            memcpy(grown, to->rules, to->count * sizeof *grown);
        }
        to->rules = grown;
        *room = more;
    }
    to->rules[to->count++] = (lore_robots_rule){pattern, is_allowed};
}

static void take_rule(reader *r, lore_str value, bool is_allowed)
{
    if ((!r->is_named && !r->is_any) || value.len == 0 || value.len > PATTERN_BYTES_MAX) {
        return; /* an empty rule forbids nothing */
    }
    lore_str pattern = normalised(value, DELIMITERS, r->arena);
    if (pattern.ptr == NULL) {
        r->has_failed = true;
        return;
    }
    if (r->is_named) {
        add_rule(r, &r->named, &r->named_room, pattern, is_allowed);
    }
    if (r->is_any) {
        add_rule(r, &r->any, &r->any_room, pattern, is_allowed);
    }
}

/* "1", "0.5"; the larger of two holds. */
static void take_delay(reader *r, lore_str value)
{
    int64_t seconds = 0, thousandths = 0;
    size_t dot = lore_str_find(value, LORE_STR("."), 0);
    lore_str whole = lore_str_slice(value, 0, dot == SIZE_MAX ? value.len : dot);
    if (dot != SIZE_MAX) {
        int64_t unit = 100;
        for (size_t i = dot + 1; i < value.len && value.ptr[i] >= '0' && value.ptr[i] <= '9'; i++) {
            thousandths += (value.ptr[i] - '0') * unit;
            unit /= 10;
        }
    }
    if ((whole.len > 0 && !lore_str_to_int64(whole, &seconds)) || seconds < 0) {
        return;
    }
    seconds = seconds > DELAY_SECONDS_MAX ? DELAY_SECONDS_MAX : seconds;
    int64_t delay_ms = seconds * 1000 + thousandths;
    r->named.delay_ms = r->is_named && delay_ms > r->named.delay_ms ? delay_ms : r->named.delay_ms;
    r->any.delay_ms = r->is_any && delay_ms > r->any.delay_ms ? delay_ms : r->any.delay_ms;
}

/* The product token in front, as in "lore/1.0 (text)". */
static lore_str product_of(lore_str value)
{
    size_t end = 0;
    while (end < value.len && strchr("/ \t(;", value.ptr[end]) == NULL) {
        end++;
    }
    return lore_str_slice(value, 0, end);
}

static void take_agent(reader *r, lore_str value)
{
    if (!r->is_in_agents) {
        r->is_named = r->is_any = false;
    }
    r->is_in_agents = true;
    lore_str product = product_of(value);
    r->is_any = r->is_any || lore_str_equal(product, LORE_STR("*"));
    r->is_named = r->is_named || lore_str_equal_nocase(product, r->product);
    r->has_named = r->has_named || r->is_named;
}

static void take_line(reader *r, lore_str line)
{
    const char *comment = memchr(line.ptr, '#', line.len);
    line.len = comment == NULL ? line.len : (size_t)(comment - line.ptr);
    const char *colon = line.len == 0 ? NULL : memchr(line.ptr, ':', line.len);
    if (colon == NULL) {
        return;
    }
    size_t at = (size_t)(colon - line.ptr);
    lore_str key = lore_str_trim(lore_str_slice(line, 0, at));
    lore_str value = lore_str_trim(lore_str_slice(line, at + 1, line.len));
    if (lore_str_equal_nocase(key, LORE_STR("user-agent"))) {
        take_agent(r, value);
        return;
    }
    bool is_allow = lore_str_equal_nocase(key, LORE_STR("allow"));
    bool is_rule = is_allow || lore_str_equal_nocase(key, LORE_STR("disallow"));
    bool is_delay = lore_str_equal_nocase(key, LORE_STR("crawl-delay"));
    if (is_rule) {
        take_rule(r, value, is_allow);
    } else if (is_delay) {
        take_delay(r, value);
    }
    /* Other lines (Sitemap) belong to no group and end none. */
    r->is_in_agents = r->is_in_agents && !is_rule && !is_delay;
}

lore_status lore_robots_parse(lore_str text, lore_str product, lore_arena *arena,
                              lore_robots *robots, lore_error *err)
{
    reader r = {.product = product, .arena = arena};
    if (lore_str_starts(text, LORE_STR("\xEF\xBB\xBF"))) {
        text = lore_str_slice(text, 3, text.len);
    }
    for (size_t at = 0; at < text.len && !r.has_failed;) {
        size_t end = at;
        while (end < text.len && text.ptr[end] != '\n' && text.ptr[end] != '\r') {
            end++;
        }
        take_line(&r, lore_str_slice(text, at, end));
        at = end + 1;
    }
    if (r.has_failed) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading robots.txt");
    }
    *robots = r.has_named ? r.named : r.any;
    return LORE_OK;
}

/* '*' stands for anything, '$' at the end for the end. What lies between two stars is taken where
 * it comes first, which is never wrong and never goes back: linear in both. */
static bool matches(lore_str pattern, lore_str path)
{
    bool is_anchored = pattern.len > 0 && pattern.ptr[pattern.len - 1] == '$';
    pattern.len -= is_anchored ? 1 : 0;
    size_t at = 0, begin = 0;
    for (bool is_first = true;; is_first = false) {
        const char *star =
            begin < pattern.len ? memchr(pattern.ptr + begin, '*', pattern.len - begin) : NULL;
        size_t end = star == NULL ? pattern.len : (size_t)(star - pattern.ptr);
        lore_str piece = lore_str_slice(pattern, begin, end);
        if (is_first) {
            if (!lore_str_starts(path, piece)) {
                return false;
            }
            at = piece.len;
        } else if (star == NULL && is_anchored) {
            return path.len - at >= piece.len && lore_str_ends(path, piece);
        } else if (piece.len > 0) {
            size_t found = lore_str_find(path, piece, at);
            if (found == SIZE_MAX) {
                return false;
            }
            at = found + piece.len;
        }
        if (star == NULL) {
            return !is_anchored || at == path.len;
        }
        begin = end + 1;
    }
}

bool lore_robots_allows(const lore_robots *robots, lore_str path)
{
    if (lore_str_equal(path, LORE_STR("/robots.txt"))) {
        return true;
    }
    bool is_allowed = true;
    size_t longest = 0;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_str plain = normalised(path, DELIMITERS, &arena);
    for (size_t i = 0; plain.ptr != NULL && i < robots->count; i++) {
        const lore_robots_rule *rule = &robots->rules[i];
        bool decides = rule->pattern.len > longest ||
                       (rule->pattern.len == longest && rule->is_allowed && !is_allowed);
        if (decides && matches(rule->pattern, plain)) {
            is_allowed = rule->is_allowed;
            longest = rule->pattern.len;
        }
    }
    bool has_memory = plain.ptr != NULL;
    lore_arena_destroy(&arena);
    return is_allowed && has_memory;
}
