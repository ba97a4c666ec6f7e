/* Fuzz target of base/json. Property: a text that is taken prints to a text that is taken and
 * prints to itself; a text that is refused leaves nothing behind; a message is always there. */
#include "base/json.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void print(const lore_json *root, lore_buf *out)
{
    lore_error err;
    lore_buf_init(out, 0);
    lore_status status = lore_json_print(root, out, &err);
    LORE_ASSERT(status == LORE_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live();
    lore_json *root = NULL;
    lore_error err = {.status = LORE_OK};
    if (lore_json_parse((lore_str){(const char *)data, size}, 32, &root, &err) != LORE_OK) {
        LORE_ASSERT(err.status != LORE_OK);
        LORE_ASSERT(err.message[0] != '\0');
        LORE_ASSERT(lore_mem_live() == live);
        return 0;
    }
    lore_buf first;
    lore_buf second;
    print(root, &first);
    lore_json_free(root);
    lore_status status = lore_json_parse(lore_buf_str(&first), 32, &root, &err);
    LORE_ASSERT(status == LORE_OK);
    print(root, &second);
    LORE_ASSERT(lore_str_equal(lore_buf_str(&first), lore_buf_str(&second)));
    lore_json_free(root);
    lore_buf_destroy(&first);
    lore_buf_destroy(&second);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
