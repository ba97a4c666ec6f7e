/* The card for machines: its name and guard where it is there, the folder's last part where not. */
#include "models/model_folder_int.h"
#include "tests/unit/models_fixture.h"

static lore_model_card card(const char *folder)
{
    lore_error err = {0};
    lore_model_card c;
    CHECK_OK(lore_model_card_read(folder, &LIMITS, &c, &err), &err);
    return c;
}

TEST(names_come_from_card_or_folder)
{
    char folder[256], slashed[300];
    lore_error err = {0};
    lore_model_card c;
    snprintf(folder, sizeof folder, "%s/some-model", check_temp_dir());
    snprintf(slashed, sizeof slashed, "%s//", folder);
    CHECK_OK(lore_dir_make(folder, &err), &err);
    c = card(slashed);
    CHECK_STR(lore_str_from(c.name), "some-model");
    CHECK(!c.needs_guard);
    write_file(folder, "lore.json",
               LORE_STR("{\"name\": \"other\", \"needs_guard\": true, \"more\": 1}"));
    c = card(folder);
    CHECK_STR(lore_str_from(c.name), "other");
    CHECK(c.needs_guard);
    write_file(folder, "lore.json", LORE_STR("{\"name\": \"\"}"));
    CHECK_FAILS(lore_model_card_read(folder, &LIMITS, &c, &err), LORE_ERR_CORRUPT, &err, "name");
    write_file(folder, "lore.json", LORE_STR("[]"));
    CHECK_FAILS(lore_model_card_read(folder, &LIMITS, &c, &err), LORE_ERR_CORRUPT, &err, "object");
}

TEST(missing_and_large_files_are_named)
{
    char folder[256];
    lore_error err = {0};
    lore_json *root = NULL;
    lore_limits limits = LIMITS;
    snprintf(folder, sizeof folder, "%s/files", check_temp_dir());
    write_file(folder, "config.json", LORE_STR("{\"a\": 1}"));
    CHECK(lore_model_has(folder, "config.json") && !lore_model_has(folder, "x.json"));
    CHECK_FAILS(lore_model_json(folder, "x.json", &LIMITS, &root, &err), LORE_ERR_NOT_FOUND, &err,
                "x.json");
    limits.model_json_bytes_max = 4;
    CHECK_FAILS(lore_model_json(folder, "config.json", &limits, &root, &err), LORE_ERR_LIMIT, &err,
                "config.json");
    CHECK_OK(lore_model_json(folder, "config.json", &LIMITS, &root, &err), &err);
    lore_json_free(root);
    write_file(folder, "config.json", LORE_STR("{\"a\": }"));
    CHECK_FAILS(lore_model_json(folder, "config.json", &LIMITS, &root, &err), LORE_ERR_CORRUPT,
                &err, "config.json");
}

CHECK_MAIN(names_come_from_card_or_folder, missing_and_large_files_are_named)
