/* Any JSON value to text: a line "path: value" for each string, number and boolean ("person.name:
 * Ada"), items of an array under the path of the array. The tree does not know where a value stood,
 * so the runs lead to the beginning. */
#include "ingest/ingest_int.h"

#include "base/json.h"

enum { PATH_BYTES_MAX = 1024 };

typedef struct json_walk {
    lore_builder *builder;
    lore_buf path, number;
} json_walk;

static void put_value(json_walk *w, const lore_json *node)
{
    lore_builder *builder = w->builder;
    if (w->path.len > 0) {
        lore_builder_made(builder, lore_buf_str(&w->path), 0);
        lore_builder_made(builder, LORE_STR(": "), 0);
    }
    if (lore_json_is_string(node)) {
        lore_builder_made(builder, lore_json_str(node), 0);
    } else {
        lore_buf_reset(&w->number);
        if (lore_json_print(node, &w->number, NULL) != LORE_OK) {
            builder->is_full = true;
            return;
        }
        lore_builder_made(builder, lore_buf_str(&w->number), 0);
    }
    lore_builder_line(builder);
}

/* Recursion goes as deep as the tree, which limits.json_depth_max bounds. */
static void walk_value(json_walk *w, const lore_json *node)
{
    bool is_object = lore_json_is_object(node);
    if (!is_object && !lore_json_is_array(node)) {
        bool is_nothing = lore_json_is_null(node) || (lore_json_is_string(node) &&
                                                      lore_str_trim(lore_json_str(node)).len == 0);
        if (!is_nothing) {
            put_value(w, node);
        }
        return;
    }
    size_t length = w->path.len;
    for (const lore_json *child = lore_json_first(node); child != NULL && !w->builder->is_full;
         child = lore_json_next(child)) {
        lore_str key = is_object ? lore_json_key(child) : (lore_str){"", 0};
        if (key.len > 0 && length + key.len < PATH_BYTES_MAX) {
            lore_buf_append(&w->path, length > 0 ? LORE_STR(".") : (lore_str){"", 0});
            lore_buf_append(&w->path, key);
        }
        w->builder->is_full = w->builder->is_full || lore_buf_failed(&w->path);
        walk_value(w, child);
        w->path.len = length;
    }
}

lore_status lore_clean_json(lore_builder *builder, const lore_limits *limits, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status =
        lore_json_parse(builder->source, (int32_t)limits->json_depth_max, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    json_walk w = {.builder = builder};
    lore_buf_init(&w.path, 0);
    lore_buf_init(&w.number, 0);
    walk_value(&w, root);
    lore_buf_destroy(&w.path);
    lore_buf_destroy(&w.number);
    lore_json_free(root);
    return LORE_OK;
}
