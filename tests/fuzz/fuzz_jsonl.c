/* Fuzz target of documents as JSON: the lines of a JSONL file, the body of a PUT.
 *
 * Property: every line is taken or refused with a message; what is taken has a text and metadata
 * that is an object, merges with further metadata (the document's own win) into an object, and
 * cleans as check_cleaned.h says of any document. */
#include "base/json.h"
#include "tests/fuzz/check_cleaned.h"

static lore_json *object_of(lore_str text)
{
    lore_json *root = NULL;
    lore_error err;
    lore_status status = lore_json_parse(text, (int32_t)FUZZ_LIMITS.json_depth_max, &root, &err);
    LORE_ASSERT(status == LORE_OK);
    LORE_ASSERT(lore_json_is_object(root));
    return root;
}

/* Every member of `own` is in `merged` with the same value, and one more at most. */
static void check_merged(lore_str merged, lore_str own)
{
    lore_json *all = object_of(merged);
    int32_t count = 0;
    if (own.len > 0) {
        lore_json *mine = object_of(own);
        const lore_json *other = lore_json_first(all);
        for (const lore_json *member = lore_json_first(mine); member != NULL;
             member = lore_json_next(member), other = lore_json_next(other), count++) {
            LORE_ASSERT(lore_str_equal(lore_json_key(member), lore_json_key(other)));
            LORE_ASSERT(lore_str_equal(lore_json_str(member), lore_json_str(other)));
            LORE_ASSERT(lore_json_count(member) == lore_json_count(other));
        }
        lore_json_free(mine);
    }
    LORE_ASSERT(lore_json_count(all) - count <= 1);
    LORE_ASSERT(lore_json_get(all, "a") != NULL);
    lore_json_free(all);
}

static void check_line(lore_str line)
{
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_raw_document raw;
    lore_arena_init(&arena, 0);
    lore_status status = lore_raw_from_json(line, &FUZZ_LIMITS, &arena, &raw, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    } else {
        LORE_ASSERT(raw.media != LORE_MEDIA_AUTO && raw.bytes.ptr != NULL);
        LORE_ASSERT(raw.id.len <= (size_t)FUZZ_LIMITS.id_bytes_max);
        lore_str merged;
        status = lore_metadata_merge(raw.metadata, LORE_STR("{\"a\":{\"b\":[1]}}"), &FUZZ_LIMITS,
                                     &arena, &merged, &err);
        LORE_ASSERT(status == LORE_OK || status == LORE_ERR_LIMIT);
        if (status == LORE_OK) {
            check_merged(merged, raw.metadata);
        }
        check_cleaned(raw.media, raw.bytes);
    }
    lore_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lore_str rest = {(const char *)data, size}, line;
    while (lore_str_next_line(&rest, &line)) {
        check_line(line);
    }
    return 0;
}
