/* CLD2 (Debian's libcld2): languages by n-grams, its tables inside the library. Chosen over
 * libexttextcat, which has a C interface but reads its tables from files, ranks whole documents
 * only, and says nothing about how sure it is. The only C++ of ingest/. */
#include "ingest/language_c.h"

#include <cstdio> /* the header below needs FILE and does not ask for it */
#include <cstring>

#include <cld2/public/compact_lang_det.h>
#include <cld2/public/encodings.h>

extern "C" const char *lore_ngram_language(const char *text, size_t size, bool *is_reliable)
{
    CLD2::Language languages[3];
    int percents[3], text_bytes = 0;
    double scores[3];
    *is_reliable = false;
    try {
        CLD2::CLDHints hints = {nullptr, nullptr, CLD2::UNKNOWN_ENCODING, CLD2::UNKNOWN_LANGUAGE};
        CLD2::Language found = CLD2::ExtDetectLanguageSummary(
            text, static_cast<int>(size), true, &hints, CLD2::kCLDFlagBestEffort, languages,
            percents, scores, nullptr, &text_bytes, is_reliable);
        if (found == CLD2::UNKNOWN_LANGUAGE) {
            return "";
        }
        const char *code = CLD2::LanguageCode(found);
        bool is_old = std::strcmp(code, "iw") == 0; /* ISO 639 of before 1989 */
        return is_old ? "he" : std::strcmp(code, "jw") == 0 ? "jv" : code;
    } catch (...) { /* no memory: a language less */
        return "";
    }
}
