/* Fuzz target of cleaning reStructuredText. Property: what check_cleaned.h lists. */
#include "tests/fuzz/check_cleaned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_cleaned(LORE_MEDIA_RST, (lore_str){(const char *)data, size});
    return 0;
}
