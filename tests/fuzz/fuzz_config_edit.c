/* Fuzz target of editing a configuration's text.
 *
 * Property: any bytes are refused with a message, or come out as an object that reads the same
 * where it was not edited: members in order, those that are replaced replaced, those taken out
 * gone.
 */
#include "base/json.h"
#include "models/config_edit_int.h"
#include "tests/fuzz/fuzz.h"

static const lore_config_edit EDITS[] = {{"tie_word_embeddings", {"false", 5}, true},
                                         {"quantization_config", {NULL, 0}, false},
                                         {"dtype", {"\"float16\"", 9}, false}};

static void check_same(const lore_json *a, const lore_json *b)
{
    lore_buf texts[2];
    lore_buf_init(&texts[0], 0);
    lore_buf_init(&texts[1], 0);
    LORE_ASSERT(lore_json_print(a, &texts[0], NULL) == LORE_OK);
    LORE_ASSERT(lore_json_print(b, &texts[1], NULL) == LORE_OK);
    LORE_ASSERT(lore_str_equal(lore_buf_str(&texts[0]), lore_buf_str(&texts[1])));
    lore_buf_destroy(&texts[0]);
    lore_buf_destroy(&texts[1]);
}

static bool is_edited(lore_str key)
{
    for (size_t i = 0; i < sizeof EDITS / sizeof EDITS[0]; i++) {
        if (lore_str_equal(key, lore_str_from(EDITS[i].key))) {
            return true;
        }
    }
    return false;
}

static lore_json *edit(lore_str input, int32_t count)
{
    lore_buf out;
    lore_json *root = NULL;
    lore_error err = {.status = LORE_OK};
    lore_buf_init(&out, 0);
    lore_status status = lore_config_edit_text(input, "input.json", EDITS, count, &out, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, "input.json") != NULL);
    } else {
        status = lore_json_parse(lore_buf_str(&out), LORE_JSON_DEPTH_MAX, &root, &err);
        LORE_ASSERT(status == LORE_OK);
    }
    lore_buf_destroy(&out);
    return root;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str input = {size == 0 ? "" : (const char *)data, size};
    lore_json *old = NULL, *same = edit(input, 0), *edited = edit(input, 3);
    if (same != NULL) {
        LORE_ASSERT(lore_json_parse(input, LORE_JSON_DEPTH_MAX, &old, NULL) == LORE_OK);
        check_same(old, same);
    }
    if (edited != NULL) {
        const lore_json *at = lore_json_first(edited);
        for (const lore_json *n = lore_json_first(old); n != NULL; n = lore_json_next(n)) {
            if (lore_str_equal(lore_json_key(n), LORE_STR("quantization_config"))) {
                continue;
            }
            LORE_ASSERT(at != NULL && lore_str_equal(lore_json_key(at), lore_json_key(n)));
            if (!is_edited(lore_json_key(n))) {
                check_same(at, n);
            }
            at = lore_json_next(at);
        }
        const lore_json *tied = lore_json_get(edited, "tie_word_embeddings");
        LORE_ASSERT(lore_json_is_bool(tied) && !lore_json_bool(tied));
        LORE_ASSERT(lore_json_get(edited, "quantization_config") == NULL);
    }
    lore_json_free(old);
    lore_json_free(same);
    lore_json_free(edited);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
