/* Is it certain where a request ends? What the headers say about its body, judged.
 *
 * A request whose length can be read in two ways may be one request for us and two for a proxy in
 * front of us (request smuggling), so anything but one plain statement is refused and the
 * connection closed. Pure.
 * Source: RFC 9112, sections 3.2, 5, 6.1, 6.3 and 11.2; RFC 9110, section 10.1.1. */
#ifndef LORE_API_FRAMING_H
#define LORE_API_FRAMING_H

#include "base/error.h"
#include "base/str.h"

#include <stdbool.h>

/* What the headers said, gathered one by one; zero before the first. */
typedef struct lore_framing {
    int32_t hosts, lengths, encodings; /* how often each was there */
    bool has_bad_name, has_bad_value;  /* characters that no header may hold */
    bool is_unknown_encoding, is_unknown_expectation;
    bool is_folded; /* set by the caller: a header goes on in the next line (obs-fold) */
} lore_framing;

void lore_framing_add(lore_framing *framing, lore_str name, lore_str value);
/* 0, or the HTTP status of the refusal and why. version: "HTTP/1.1". */
int lore_framing_check(const lore_framing *framing, const char *version, lore_error *err);

#endif
