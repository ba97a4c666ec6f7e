/* Fuzz target of cleaning plain text in any encoding. Property: the input is taken or refused with
 * a message; what is taken is valid UTF-8 in lines without control characters, its sections have no
 * holes, its exact runs equal the source, and its sentences and chunks cover it. */
#include "tests/fuzz/check_cleaned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_cleaned(LORE_MEDIA_TEXT, (lore_str){(const char *)data, size});
    return 0;
}
