/* Fuzz target of cleaning any JSON value. Property: what check_cleaned.h lists. */
#include "tests/fuzz/check_cleaned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_cleaned(LORE_MEDIA_JSON, (lore_str){(const char *)data, size});
    return 0;
}
