/* What the three files behind json.h share: the scanner checks text, the tree (cJSON) is built only
 * from text that passed, the writer makes text. */
#ifndef LORE_BASE_JSON_INT_H
#define LORE_BASE_JSON_INT_H

#include "base/str.h"

/* Check that text is exactly one JSON value within the limits of json.h. */
LORE_MUST_USE lore_status lore_json_scan(lore_str text, int32_t max_depth, lore_error *err);

/* Append value as a JSON string, quotes included. Invalid UTF-8 becomes U+FFFD. */
void lore_json_append_string(lore_buf *buf, lore_str value);
/* Append the shortest text that reads back as the same double (or float); null if not finite. */
void lore_json_append_number(lore_buf *buf, double value, bool is_float);

#endif
