/* Proves the shape of a line, the level, and that no value can begin a line of its own. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"

static char last_line[8192];
static int lines;

static void remember(void *self, const char *line)
{
    CHECK(self == &lines);
    snprintf(last_line, sizeof last_line, "%s", line);
    lines++;
}

static int64_t fixed_time(void)
{
    return INT64_C(1769860800123) * 1000000; /* 2026-01-31T12:00:00.123Z */
}

static void begin(void)
{
    lines = 0;
    last_line[0] = '\0';
    lore_log_set_sink(remember, &lines);
    lore_clock_set_source(fixed_time);
    lore_log_set_level(LORE_LOG_WARN);
}

static void end(void)
{
    lore_log_set_sink(NULL, NULL);
    lore_clock_set_source(NULL);
}

TEST(writes_one_line)
{
    begin();
    lore_log(LORE_LOG_WARN, "event=%s count=%d", "test", 3);
    end();
    CHECK_INT(lines, 1);
    CHECK_STR(lore_str_from(last_line), "2026-01-31T12:00:00.123Z warn event=test count=3");
}

TEST(obeys_the_level)
{
    begin();
    lore_log(LORE_LOG_INFO, "event=no");
    CHECK_INT(lines, 0);
    lore_log_set_level(LORE_LOG_DEBUG);
    lore_log(LORE_LOG_DEBUG, "event=yes");
    CHECK_INT(lines, 1);
    lore_log_set_level(LORE_LOG_ERROR);
    lore_log(LORE_LOG_WARN, "event=no");
    CHECK_INT(lines, 1);
    end();
}

TEST(parses_levels)
{
    lore_log_level level = LORE_LOG_WARN;
    lore_error err;
    CHECK_OK(lore_log_parse_level("debug", &level, &err), &err);
    CHECK_INT(level, LORE_LOG_DEBUG);
    CHECK_FAILS(lore_log_parse_level("Debug", &level, &err), LORE_ERR_INVALID, &err, "'Debug'");
    CHECK_INT(level, LORE_LOG_DEBUG);
}

TEST(keeps_values_inside_their_line)
{
    begin();
    lore_log(LORE_LOG_ERROR, "event=x value=%s", "a\nerror event=forged\x1B[31m");
    CHECK(strpbrk(last_line, "\n\x1B") == NULL);
    lore_log(LORE_LOG_ERROR, "event=x value=%s", LORE_LOG_STR(LORE_STR("a \"b\" \\ \n c")));
    CHECK(strstr(last_line, "value=\"a \\\"b\\\" \\\\   c\"") != NULL);
    end();
}

TEST(cuts_long_lines_and_values)
{
    static char text[9000];
    memset(text, 'x', sizeof text - 1);
    begin();
    lore_log(LORE_LOG_ERROR, "event=long value=%s", text);
    end();
    CHECK(lore_str_ends(lore_str_from(last_line), LORE_STR("xxx...")));
    for (size_t i = 0; i + 3 < sizeof text; i += 3) {
        memcpy(text + i, "\xE4\xB8\xAD", 3);
    }
    for (size_t cap = 8; cap < 40; cap++) {
        char out[64];
        memset(out, 'Z', sizeof out);
        const char *quoted = lore_log_quote(lore_str_from(text), out, cap);
        lore_str s = lore_str_from(quoted);
        CHECK(s.len < cap && out[cap] == 'Z');
        CHECK_INT(lore_utf8_valid(s), s.len);
        CHECK(lore_str_ends(s, LORE_STR("\xE2\x80\xA6\"")));
    }
}

CHECK_MAIN(writes_one_line, obeys_the_level, parses_levels, keeps_values_inside_their_line,
           cuts_long_lines_and_values)
