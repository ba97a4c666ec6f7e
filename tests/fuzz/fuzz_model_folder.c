/* Fuzz target of the small files of a model folder that are read from disk: lore.json and the index
 * of a model in several files. Both get the same bytes.
 *
 * Property: lore.json gives a card with a name of 1 to LORE_MODEL_NAME_CAP - 1 bytes or is refused
 * with a message that names the folder; the index, whose files are not there, is always refused,
 * with a message that names the folder, and never leads out of it; all memory is given back. */
#include "base/file.h"
#include "models/model_folder_int.h"
#include "models/weights.h"
#include "tests/fuzz/fuzz.h"

static const char *const NAMES[] = {"lore.json", "model.safetensors.index.json"};

static char folder[64]; /* of this process, with links to one file in memory; removed at its end */

static void path_of(const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", folder, name);
}

static void remove_folder(void)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char path[128];
        path_of(NAMES[i], path);
        unlink(path);
    }
    rmdir(folder);
}

/* Gives the descriptor of what both names lead to. */
static int make_folder(void)
{
    char target[FUZZ_PATH_CAP], path[128];
    int fd = fuzz_file_new(target);
    snprintf(folder, sizeof folder, "/tmp/lore-fuzz-XXXXXX");
    LORE_ASSERT(mkdtemp(folder) != NULL);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        path_of(NAMES[i], path);
        LORE_ASSERT(symlink(target, path) == 0);
    }
    atexit(remove_folder);
    return fd;
}

static void check_card(const lore_limits *limits)
{
    lore_model_card card;
    lore_error err = {.status = LORE_OK};
    lore_status status = lore_model_card_read(folder, limits, &card, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, folder) != NULL);
    } else {
        size_t length = strnlen(card.name, sizeof card.name);
        LORE_ASSERT(length > 0 && length < sizeof card.name);
        LORE_ASSERT(lore_utf8_valid((lore_str){card.name, length}) == length);
    }
}

static void check_index(const lore_limits *limits)
{
    lore_weights *weights = NULL;
    lore_error err = {.status = LORE_OK};
    lore_status status = lore_weights_open(folder, limits, &weights, &err);
    fuzz_check_refusal(status, &err);
    LORE_ASSERT(weights == NULL);
    LORE_ASSERT(strstr(err.message, folder) != NULL);
    LORE_ASSERT(strstr(err.message, "/etc/") == NULL || status == LORE_ERR_CORRUPT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lore_config config;
    static int fd = -1;
    if (fd < 0) {
        lore_config_default(&config);
        fd = make_folder();
    }
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    fuzz_file_fill(fd, data, size);
    check_card(&config.limits);
    check_index(&config.limits);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
