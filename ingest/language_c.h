/* The C interface of ingest/language_c.cpp, the fence of CLD2. */
#ifndef LORE_INGEST_LANGUAGE_C_H
#define LORE_INGEST_LANGUAGE_C_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The language that most of the text (valid UTF-8, at most INT32_MAX bytes) is in, by its n-grams:
 * a code like "en", "zh-Hant", static; "" where it is too short or none that is known.
 * *is_reliable: it stands out from the next one. Thread: any, no state; the same bytes give the
 * same answer. */
const char *lore_ngram_language(const char *text, size_t size, bool *is_reliable);

#ifdef __cplusplus
}
#endif
#endif
