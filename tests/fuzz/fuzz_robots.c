/* Fuzz target of robots.txt. The input is a path, a line break, and a robots.txt. Property: it is
 * read in linear time; the answer is that of the definition, with a matcher that tries everything;
 * and robots.txt itself is always allowed. */
#include "ingest/web_int.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

/* The definition, on normalised strings: exponential, so only for short ones. */
static bool matches_slowly(const char *pattern, const char *end, const char *path, const char *last)
{
    if (pattern == end) {
        return true;
    }
    if (*pattern == '$' && pattern + 1 == end) {
        return path == last;
    }
    if (*pattern == '*') {
        for (const char *at = path; at <= last; at++) {
            if (matches_slowly(pattern + 1, end, at, last)) {
                return true;
            }
        }
        return false;
    }
    return path < last && *pattern == *path && matches_slowly(pattern + 1, end, path + 1, last);
}

static bool allows_slowly(const lore_robots *robots, lore_str path)
{
    size_t longest = 0;
    bool is_allowed = true;
    for (size_t i = 0; i < robots->count; i++) {
        lore_str pattern = robots->rules[i].pattern;
        if (matches_slowly(pattern.ptr, pattern.ptr + pattern.len, path.ptr, path.ptr + path.len) &&
            (pattern.len > longest || (pattern.len == longest && robots->rules[i].is_allowed))) {
            longest = pattern.len;
            is_allowed = robots->rules[i].is_allowed;
        }
    }
    return is_allowed;
}

/* Of characters that stay as they are, and few enough of stars. */
static bool is_simple(const lore_robots *robots, lore_str path)
{
    size_t stars = 0;
    for (size_t i = 0; i < robots->count; i++) {
        for (size_t k = 0; k < robots->rules[i].pattern.len; k++) {
            stars += robots->rules[i].pattern.ptr[k] == '*' ? 1 : 0;
        }
    }
    for (size_t i = 0; i < path.len; i++) {
        char c = path.ptr[i];
        if (!((c >= 'a' && c <= 'z') || c == '/' || c == '*' || c == '$' || c == '.')) {
            return false;
        }
    }
    return stars <= 3 && path.len <= 24; /* tries everything */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_error err;
    lore_robots robots;
    lore_str text = {(const char *)data, size}, path = {"", 0};
    lore_arena_init(&arena, 0);
    (void)lore_str_next_line(&text, &path);
    LORE_ASSERT(lore_robots_parse(text, LORE_STR("lore"), &arena, &robots, &err) == LORE_OK);
    LORE_ASSERT(robots.delay_ms >= 0 && robots.delay_ms <= 86401000);
    bool is_allowed = lore_robots_allows(&robots, path);
    fuzz_check_cost(start_ns, size);
    if (is_simple(&robots, path) && !lore_str_equal(path, LORE_STR("/robots.txt"))) {
        LORE_ASSERT(is_allowed == allows_slowly(&robots, path));
    }
    LORE_ASSERT(lore_robots_allows(&robots, LORE_STR("/robots.txt")));
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
