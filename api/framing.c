/* See framing.h. */
#include "api/framing.h"

#include <string.h>
#include <strings.h>

static bool is_named(lore_str name, const char *wanted)
{
    return name.len == strlen(wanted) && strncasecmp(name.ptr, wanted, name.len) == 0;
}

/* A token of RFC 9110, section 5.6.2. A name with a space in it is read differently by everyone. */
static bool is_token(lore_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_letter = (c | 32) >= 'a' && (c | 32) <= 'z';
        bool is_digit = c >= '0' && c <= '9';
        if (!is_letter && !is_digit && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return name.len > 0;
}

/* Bytes above 127 are let through: old clients put Latin-1 there. */
static bool is_value(lore_str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if ((c < ' ' && c != '\t') || c == 127) {
            return false;
        }
    }
    return true;
}

void lore_framing_add(lore_framing *framing, lore_str name, lore_str value)
{
    framing->has_bad_name |= !is_token(name);
    framing->has_bad_value |= !is_value(value);
    if (is_named(name, "Host")) {
        framing->hosts++;
    } else if (is_named(name, "Content-Length")) {
        framing->lengths++;
    } else if (is_named(name, "Transfer-Encoding")) {
        framing->encodings++;
        framing->is_unknown_encoding |= !is_named(value, "chunked");
    } else if (is_named(name, "Expect")) {
        framing->is_unknown_expectation |= !is_named(value, "100-continue");
    }
}

static int refuse(int http_status, lore_status status, const char *words, lore_error *err)
{
    lore_fail(err, status, "%s", words);
    return http_status;
}

int lore_framing_check(const lore_framing *framing, const char *version, lore_error *err)
{
    if (framing->is_folded) {
        return refuse(400, LORE_ERR_INVALID, "headers: one goes on in the next line", err);
    }
    if (framing->has_bad_name) {
        return refuse(400, LORE_ERR_INVALID, "headers: a name has characters it may not have", err);
    }
    if (framing->has_bad_value) {
        return refuse(400, LORE_ERR_INVALID, "headers: a value has control characters", err);
    }
    if (framing->hosts > 1 || (framing->hosts == 0 && strcmp(version, "HTTP/1.1") == 0)) {
        return refuse(400, LORE_ERR_INVALID, "headers: there must be one Host", err);
    }
    if (framing->lengths > 1 || framing->encodings > 1) {
        return refuse(400, LORE_ERR_INVALID,
                      "headers: Content-Length or Transfer-Encoding is there twice", err);
    }
    if (framing->lengths > 0 && framing->encodings > 0) {
        return refuse(400, LORE_ERR_INVALID,
                      "headers: Content-Length and Transfer-Encoding exclude each other", err);
    }
    if (framing->encodings > 0 && strcmp(version, "HTTP/1.1") != 0) {
        return refuse(400, LORE_ERR_INVALID, "headers: Transfer-Encoding needs HTTP/1.1", err);
    }
    if (framing->is_unknown_encoding) {
        return refuse(501, LORE_ERR_UNSUPPORTED, "headers: Transfer-Encoding must be 'chunked'",
                      err);
    }
    if (framing->is_unknown_expectation) {
        return refuse(417, LORE_ERR_UNSUPPORTED, "headers: Expect must be '100-continue'", err);
    }
    return 0;
}
