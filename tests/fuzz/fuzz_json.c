/* Fuzz target of base/json.
 *
 * Property: a text is taken or refused with a message, in linear time. What is taken prints to a
 * text that is taken, gives an equal tree and prints to itself; what is refused leaves nothing
 * behind. */
#include "base/json.h"
#include "tests/fuzz/fuzz.h"

enum { DEPTH_MAX = 32 };

static void print(const lore_json *root, lore_buf *out)
{
    lore_error err;
    lore_buf_init(out, 0);
    lore_status status = lore_json_print(root, out, &err);
    LORE_ASSERT(status == LORE_OK);
}

static void check_equal(const lore_json *a, const lore_json *b, int depth)
{
    LORE_ASSERT(depth <= DEPTH_MAX);
    LORE_ASSERT(lore_json_is_object(a) == lore_json_is_object(b));
    LORE_ASSERT(lore_json_is_array(a) == lore_json_is_array(b));
    LORE_ASSERT(lore_json_is_string(a) == lore_json_is_string(b));
    LORE_ASSERT(lore_json_is_null(a) == lore_json_is_null(b));
    LORE_ASSERT(lore_json_is_bool(a) == lore_json_is_bool(b));
    LORE_ASSERT(lore_json_bool(a) == lore_json_bool(b));
    LORE_ASSERT(lore_json_is_number(a) == lore_json_is_number(b));
    LORE_ASSERT(lore_json_number(a) <= lore_json_number(b));
    LORE_ASSERT(lore_json_number(a) >= lore_json_number(b));
    LORE_ASSERT(lore_str_equal(lore_json_key(a), lore_json_key(b)));
    LORE_ASSERT(lore_str_equal(lore_json_str(a), lore_json_str(b)));
    LORE_ASSERT(lore_utf8_valid(lore_json_str(a)) == lore_json_str(a).len);
    const lore_json *other = lore_json_first(b);
    for (const lore_json *child = lore_json_first(a); child != NULL;
         child = lore_json_next(child)) {
        check_equal(child, other, depth + 1);
        other = lore_json_next(other);
    }
    LORE_ASSERT(other == NULL);
}

static void check(lore_str text)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_json *root = NULL, *again = NULL;
    lore_error err = {.status = LORE_OK};
    lore_buf first, second;
    lore_status status = lore_json_parse(text, DEPTH_MAX, &root, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(root == NULL);
    } else {
        print(root, &first);
        status = lore_json_parse(lore_buf_str(&first), DEPTH_MAX, &again, &err);
        LORE_ASSERT(status == LORE_OK);
        check_equal(root, again, 0);
        print(again, &second);
        LORE_ASSERT(lore_str_equal(lore_buf_str(&first), lore_buf_str(&second)));
        lore_json_free(root);
        lore_json_free(again);
        lore_buf_destroy(&first);
        lore_buf_destroy(&second);
    }
    fuzz_check_cost(start_ns, text.len);
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_text(data, size, check);
}
