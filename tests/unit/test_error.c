/* Proves that messages are written once, cut visibly and never in the middle of a character, and
 * that a prefix may be added to a full message. */
#include "tests/check.h"

#include "base/utf8.h"

TEST(writes_status_and_message)
{
    lore_error err;
    CHECK_INT(lore_fail(&err, LORE_ERR_IO, "cannot open '%s': %d", "a.txt", 7), LORE_ERR_IO);
    CHECK_INT(err.status, LORE_ERR_IO);
    CHECK_STR(lore_str_from(err.message), "cannot open 'a.txt': 7");
}

TEST(accepts_no_error)
{
    CHECK_INT(lore_fail(NULL, LORE_ERR_BUSY, "unheard %s", "words"), LORE_ERR_BUSY);
}

TEST(cuts_with_ellipsis_between_characters)
{
    char text[2000];
    /* Three bytes a character and all three phases, so that one of them falls on the cut. */
    for (int phase = 0; phase < 3; phase++) {
        int at = snprintf(text, sizeof text, "%.*s", phase, "ab");
        while (at + 4 < (int)sizeof text) {
            at += snprintf(text + at, sizeof text - (size_t)at, "\xE4\xB8\xAD");
        }
        lore_error err;
        lore_fail(&err, LORE_ERR_INVALID, "%s", text);
        lore_str message = lore_str_from(err.message);
        CHECK(message.len < LORE_ERROR_MESSAGE_CAP);
        CHECK(message.len > LORE_ERROR_MESSAGE_CAP - 8);
        CHECK_INT(lore_utf8_valid(message), message.len);
        CHECK(lore_str_ends(message, LORE_STR("\xE2\x80\xA6")));
    }
}

TEST(rewrites_its_own_message)
{
    lore_error err;
    lore_fail(&err, LORE_ERR_IO, "disk on fire");
    lore_fail(&err, LORE_ERR_CORRUPT, "while reading: %s", err.message);
    CHECK_STR(lore_str_from(err.message), "while reading: disk on fire");
    CHECK_INT(err.status, LORE_ERR_CORRUPT);
}

TEST(prefixes)
{
    lore_error err;
    lore_fail(&err, LORE_ERR_LIMIT, "too long");
    CHECK_INT(lore_error_prefix(&err, "file %d", 3), LORE_ERR_LIMIT);
    CHECK_STR(lore_str_from(err.message), "file 3: too long");
    for (int i = 0; i < 200; i++) {
        lore_error_prefix(&err, "layer %d", i);
    }
    CHECK_INT(err.status, LORE_ERR_LIMIT);
    CHECK(strlen(err.message) < LORE_ERROR_MESSAGE_CAP);
    CHECK(lore_str_starts(lore_str_from(err.message), LORE_STR("layer 199: layer 198: ")));
    CHECK(lore_str_ends(lore_str_from(err.message), LORE_STR("\xE2\x80\xA6")));
}

TEST(names_are_unique)
{
    for (int a = LORE_OK; a <= LORE_ERR_DEVICE; a++) {
        CHECK(strcmp(lore_status_name((lore_status)a), "unknown") != 0);
        for (int b = LORE_OK; b < a; b++) {
            CHECK(strcmp(lore_status_name((lore_status)a), lore_status_name((lore_status)b)) != 0);
        }
    }
    CHECK_STR(lore_str_from(lore_status_name((lore_status)99)), "unknown");
}

CHECK_MAIN(writes_status_and_message, accepts_no_error, cuts_with_ellipsis_between_characters,
           rewrites_its_own_message, prefixes, names_are_unique)
