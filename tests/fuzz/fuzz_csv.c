/* Fuzz target of cleaning separated values. Property: what check_cleaned.h lists. */
#include "tests/fuzz/check_cleaned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_cleaned(LORE_MEDIA_CSV, (lore_str){(const char *)data, size});
    return 0;
}
