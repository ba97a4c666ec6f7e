/* Property: any bytes are a checked safetensors file or an error; nothing is read outside of them.
 */
#include "models/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lore_error err = {0};
    lore_status status = lore_weights_check((lore_str){(const char *)data, size}, "input", &err);
    LORE_ASSERT(status == LORE_OK || err.message[0] != '\0');
    return 0;
}
