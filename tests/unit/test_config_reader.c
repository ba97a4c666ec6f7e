/* Fields are read within their bounds, and a refusal names the field. */
#include "models/config_reader_int.h"
#include "tests/check.h"

TEST(fields_are_read_or_named)
{
    lore_error err = {0};
    lore_json *root = NULL;
    int32_t size = 5;
    CHECK_OK(
        lore_config_open(LORE_STR("{\"size\": 3, \"none\": null, \"on\": true, \"off\": false, "
                                  "\"kind\": \"plain\", \"more\": {}}"),
                         "c.json", &root, &err),
        &err);
    lore_config_reader r = {root, &err};
    CHECK_OK(lore_config_may_int(&r, "none", 9, &size), &err);
    CHECK_OK(lore_config_may_int(&r, "absent", 9, &size), &err);
    CHECK_INT(size, 5);
    CHECK_OK(lore_config_need_int(&r, "size", 3, &size), &err);
    CHECK_INT(size, 3);
    CHECK_FAILS(lore_config_need_int(&r, "size", 2, &size), LORE_ERR_INVALID, &err, "size");
    CHECK_FAILS(lore_config_need_int(&r, "absent", 2, &size), LORE_ERR_INVALID, &err, "absent");
    CHECK_OK(lore_config_need_off(&r, "off"), &err);
    CHECK_OK(lore_config_need_off(&r, "absent"), &err);
    CHECK_FAILS(lore_config_need_off(&r, "on"), LORE_ERR_UNSUPPORTED, &err, "on true");
    CHECK_OK(lore_config_need_text(&r, "kind", "plain"), &err);
    CHECK_OK(lore_config_need_text(&r, "none", "plain"), &err);
    CHECK_FAILS(lore_config_need_text(&r, "kind", "fancy"), LORE_ERR_UNSUPPORTED, &err, "plain");
    CHECK_OK(lore_config_need_absent(&r, "none"), &err);
    CHECK_FAILS(lore_config_need_absent(&r, "more"), LORE_ERR_UNSUPPORTED, &err, "more");
    lore_json_free(root);
}

TEST(only_objects_are_opened)
{
    lore_error err = {0};
    lore_json *root = NULL;
    CHECK_FAILS(lore_config_open(LORE_STR("[]"), "c.json", &root, &err), LORE_ERR_CORRUPT, &err,
                "c.json");
    CHECK_FAILS(lore_config_open(LORE_STR("{"), "c.json", &root, &err), LORE_ERR_CORRUPT, &err,
                "c.json");
    CHECK(root == NULL);
}

CHECK_MAIN(fields_are_read_or_named, only_objects_are_opened)
