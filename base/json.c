/* The JSON tree: cJSON behind the fence.
 *
 * Text reaches the library only after json_scan.c found it strict, so a failure of the library
 * means memory. What the scanner cannot see is checked on the finished tree: duplicate keys (two
 * spellings of one key differ in text) and numbers beyond the range of a double. Recursion over the
 * tree is as deep as the depth limit of the parse. */
#include "base/json.h"

#include "base/json_int.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAIRWISE_MAX = 16, /* members up to which comparing all pairs is faster than sorting */
    NAME_CAP = 256     /* of "path.key" in messages */
};
_Static_assert((int)LORE_JSON_DEPTH_MAX <= (int)CJSON_NESTING_LIMIT, "the library reads that deep");

#define EXACT_INTEGER_MAX 9007199254740992.0 /* 2^53 */

static const cJSON *node_of(const lore_json *node)
{
    return (const cJSON *)node;
}

static const lore_json *json_of(const cJSON *node)
{
    return (const lore_json *)node;
}

/* ---- parsing ---- */

static pthread_once_t hooks_once = PTHREAD_ONCE_INIT;

static void set_hooks(void)
{
    cJSON_Hooks hooks = {.malloc_fn = lore_alloc, .free_fn = lore_free};
    cJSON_InitHooks(&hooks);
}

typedef struct member_key {
    uint64_t hash; /* first in the order, so that most comparisons touch no text */
    const char *name;
} member_key;

static int compare_keys(const void *a, const void *b)
{
    const member_key *left = a;
    const member_key *right = b;
    if (left->hash != right->hash) {
        return left->hash < right->hash ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static lore_status fail_duplicate(const char *name, lore_error *err)
{
    return lore_fail(err, LORE_ERR_INVALID, "invalid JSON: duplicate key '%s'", name);
}

static lore_status check_keys_pairwise(const cJSON *object, lore_error *err)
{
    for (const cJSON *a = object->child; a != NULL; a = a->next) {
        for (const cJSON *b = a->next; b != NULL; b = b->next) {
            if (strcmp(a->string, b->string) == 0) {
                return fail_duplicate(a->string, err);
            }
        }
    }
    return LORE_OK;
}

/* Sorted and not hashed into a table: no choice of keys makes it slower than n log n. */
static lore_status check_keys_sorted(const cJSON *object, size_t count, lore_error *err)
{
    member_key *keys = lore_alloc_zero(count, sizeof *keys);
    if (keys == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for JSON");
    }
    size_t filled = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        keys[filled++] = (member_key){lore_str_hash(lore_str_from(member->string)), member->string};
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    lore_status status = LORE_OK;
    for (size_t i = 1; i < count && status == LORE_OK; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) == 0) {
            status = fail_duplicate(keys[i].name, err);
        }
    }
    lore_free(keys);
    return status;
}

static lore_status check_tree(const cJSON *node, lore_error *err)
{
    if (cJSON_IsNumber(node) && !isfinite(node->valuedouble)) {
        return lore_fail(err, LORE_ERR_INVALID, "invalid JSON: a number is out of range");
    }
    size_t count = 0;
    for (const cJSON *child = node->child; child != NULL; child = child->next) {
        lore_status status = check_tree(child, err);
        if (status != LORE_OK) {
            return status;
        }
        count++;
    }
    if (!cJSON_IsObject(node)) {
        return LORE_OK;
    }
    return count <= PAIRWISE_MAX ? check_keys_pairwise(node, err)
                                 : check_keys_sorted(node, count, err);
}

lore_status lore_json_parse(lore_str text, int32_t max_depth, lore_json **root, lore_error *err)
{
    if (lore_str_starts(text, LORE_STR("\xEF\xBB\xBF"))) {
        text = lore_str_slice(text, 3, text.len);
    }
    lore_status status = lore_json_scan(text, max_depth, err);
    if (status != LORE_OK) {
        return status;
    }
    pthread_once(&hooks_once, set_hooks);
    cJSON *tree = cJSON_ParseWithLengthOpts(text.ptr, text.len, NULL, false);
    if (tree == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for JSON");
    }
    status = check_tree(tree, err);
    if (status != LORE_OK) {
        cJSON_Delete(tree);
        return status;
    }
    *root = (lore_json *)tree;
    return LORE_OK;
}

void lore_json_free(lore_json *root)
{
    cJSON_Delete((cJSON *)root);
}

/* ---- kinds and walking ---- */

bool lore_json_is_object(const lore_json *node)
{
    return cJSON_IsObject(node_of(node));
}

bool lore_json_is_array(const lore_json *node)
{
    return cJSON_IsArray(node_of(node));
}

bool lore_json_is_string(const lore_json *node)
{
    return cJSON_IsString(node_of(node));
}

bool lore_json_is_number(const lore_json *node)
{
    return cJSON_IsNumber(node_of(node));
}

bool lore_json_is_bool(const lore_json *node)
{
    return cJSON_IsBool(node_of(node));
}

bool lore_json_is_null(const lore_json *node)
{
    return cJSON_IsNull(node_of(node));
}

const lore_json *lore_json_get(const lore_json *object, const char *key)
{
    return json_of(cJSON_GetObjectItemCaseSensitive(node_of(object), key));
}

const lore_json *lore_json_first(const lore_json *node)
{
    return node == NULL ? NULL : json_of(node_of(node)->child);
}

const lore_json *lore_json_next(const lore_json *child)
{
    return child == NULL ? NULL : json_of(node_of(child)->next);
}

int32_t lore_json_count(const lore_json *node)
{
    int32_t count = 0;
    for (const lore_json *child = lore_json_first(node); child != NULL;
         child = lore_json_next(child)) {
        count++;
    }
    return count;
}

lore_str lore_json_key(const lore_json *child)
{
    return lore_str_from(child == NULL ? NULL : node_of(child)->string);
}

lore_str lore_json_str(const lore_json *node)
{
    return lore_str_from(lore_json_is_string(node) ? node_of(node)->valuestring : NULL);
}

double lore_json_number(const lore_json *node)
{
    return lore_json_is_number(node) ? node_of(node)->valuedouble : 0;
}

bool lore_json_bool(const lore_json *node)
{
    return cJSON_IsTrue(node_of(node));
}

/* ---- typed members ---- */

/* "path.key", or "key" at the root; cut where it would not fit, which only a message sees. */
static const char *name_of(const char *path, const char *key, char out[NAME_CAP])
{
    snprintf(out, NAME_CAP, "%s%s%s", path, path[0] == '\0' ? "" : ".", key);
    return out;
}

/* Find a member. *found is NULL where it is absent or null, an error if it is required. */
static lore_status find_member(const lore_json *object, const char *path, const char *key,
                               bool is_required, const lore_json **found, lore_error *err)
{
    if (!lore_json_is_object(object)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be an object",
                         path[0] == '\0' ? "the JSON value" : path);
    }
    const lore_json *member = lore_json_get(object, key);
    *found = lore_json_is_null(member) ? NULL : member;
    if (is_required && *found == NULL) {
        char name[NAME_CAP];
        return lore_fail(err, LORE_ERR_INVALID, "%s is required", name_of(path, key, name));
    }
    return LORE_OK;
}

static lore_status get_str(const lore_json *object, const char *path, const char *key,
                           bool is_required, lore_str *out, lore_error *err)
{
    const lore_json *member = NULL;
    lore_status status = find_member(object, path, key, is_required, &member, err);
    if (status != LORE_OK || member == NULL) {
        return status;
    }
    if (!lore_json_is_string(member)) {
        char name[NAME_CAP];
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a string", name_of(path, key, name));
    }
    *out = lore_json_str(member);
    return LORE_OK;
}

static lore_status get_int(const lore_json *object, const char *path, const char *key,
                           bool is_required, int64_t min, int64_t max, int64_t *out,
                           lore_error *err)
{
    const lore_json *member = NULL;
    lore_status status = find_member(object, path, key, is_required, &member, err);
    if (status != LORE_OK || member == NULL) {
        return status;
    }
    char name[NAME_CAP];
    double value = lore_json_number(member);
    if (!lore_json_is_number(member) || value != trunc(value)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be an integer", name_of(path, key, name));
    }
    /* Beyond 2^53 the tree no longer holds what was written. */
    if (fabs(value) > EXACT_INTEGER_MAX || (int64_t)value < min || (int64_t)value > max) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "%s must be an integer from %" PRId64 " to %" PRId64,
                         name_of(path, key, name), min, max);
    }
    *out = (int64_t)value;
    return LORE_OK;
}

lore_status lore_json_get_str(const lore_json *object, const char *path, const char *key,
                              lore_str *out, lore_error *err)
{
    return get_str(object, path, key, false, out, err);
}

lore_status lore_json_get_str_required(const lore_json *object, const char *path, const char *key,
                                       lore_str *out, lore_error *err)
{
    return get_str(object, path, key, true, out, err);
}

lore_status lore_json_get_int(const lore_json *object, const char *path, const char *key,
                              int64_t min, int64_t max, int64_t *out, lore_error *err)
{
    return get_int(object, path, key, false, min, max, out, err);
}

lore_status lore_json_get_int_required(const lore_json *object, const char *path, const char *key,
                                       int64_t min, int64_t max, int64_t *out, lore_error *err)
{
    return get_int(object, path, key, true, min, max, out, err);
}

lore_status lore_json_get_number(const lore_json *object, const char *path, const char *key,
                                 double min, double max, double *out, lore_error *err)
{
    const lore_json *member = NULL;
    lore_status status = find_member(object, path, key, false, &member, err);
    if (status != LORE_OK || member == NULL) {
        return status;
    }
    char name[NAME_CAP];
    if (!lore_json_is_number(member)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a number", name_of(path, key, name));
    }
    double value = lore_json_number(member);
    if (value < min || value > max) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a number from %g to %g",
                         name_of(path, key, name), min, max);
    }
    *out = value;
    return LORE_OK;
}

lore_status lore_json_get_bool(const lore_json *object, const char *path, const char *key,
                               bool *out, lore_error *err)
{
    const lore_json *member = NULL;
    lore_status status = find_member(object, path, key, false, &member, err);
    if (status != LORE_OK || member == NULL) {
        return status;
    }
    if (!lore_json_is_bool(member)) {
        char name[NAME_CAP];
        return lore_fail(err, LORE_ERR_INVALID, "%s must be true or false",
                         name_of(path, key, name));
    }
    *out = lore_json_bool(member);
    return LORE_OK;
}

/* ---- printing ---- */

static void print_node(const cJSON *node, lore_buf *out)
{
    if (cJSON_IsString(node)) {
        lore_json_append_string(out, lore_str_from(node->valuestring));
    } else if (cJSON_IsNumber(node)) {
        lore_json_append_number(out, node->valuedouble, false);
    } else if (cJSON_IsBool(node)) {
        lore_buf_append(out, cJSON_IsTrue(node) ? LORE_STR("true") : LORE_STR("false"));
    } else if (cJSON_IsNull(node)) {
        lore_buf_append(out, LORE_STR("null"));
    } else {
        bool is_object = cJSON_IsObject(node);
        lore_buf_byte(out, is_object ? '{' : '[');
        for (const cJSON *child = node->child; child != NULL; child = child->next) {
            if (is_object) {
                lore_json_append_string(out, lore_str_from(child->string));
                lore_buf_byte(out, ':');
            }
            print_node(child, out);
            if (child->next != NULL) {
                lore_buf_byte(out, ',');
            }
        }
        lore_buf_byte(out, is_object ? '}' : ']');
    }
}

lore_status lore_json_print(const lore_json *node, lore_buf *out, lore_error *err)
{
    LORE_ASSERT(node != NULL);
    print_node(node_of(node), out);
    if (lore_buf_failed(out)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for JSON text");
    }
    return LORE_OK;
}
