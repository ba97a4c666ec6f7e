/* Ids and decoded texts equal those of the `tokenizers` package: for every kind of tokenizer that
 * we run, trained for the purpose, on 10,000 random texts each
 * (tests/golden/models/tokenizer_kinds.py makes them). Ids equal the published vectors of
 * ../shared/data/tokenizers for the vocabularies that llama.cpp's sources carry, where
 * LORE_GGUF_VOCABULARIES names their folder (docs/models.md says how to get it). With arguments:
 * for the folders named, each with a tokenizer and its vectors.jsonl. */
#include "tests/unit/models_fixture.h"

#include "models/tokenizer.h"

#include <dirent.h>

enum { COMPLAINTS_MAX = 10 };

typedef struct agreement {
    const lore_tokenizer *t;
    const char *folder;
    int32_t checked, complaints;
} agreement;

static void complain(agreement *a, const char *what, lore_str text)
{
    if (a->complaints++ < COMPLAINTS_MAX) {
        fprintf(stderr, "%s: %s of '" LORE_STR_FMT "' differ\n", a->folder, what,
                LORE_STR_ARG(text));
    }
}

static bool same_ids(const lore_json *ids, const lore_tokens *tokens)
{
    int32_t i = 0;
    for (const lore_json *n = lore_json_first(ids); n != NULL; n = lore_json_next(n), i++) {
        if (i >= tokens->count || (int32_t)lore_json_number(n) != tokens->ids[i]) {
            return false;
        }
    }
    return i == tokens->count;
}

static bool same_text(const agreement *a, const lore_tokens *tokens, lore_str wanted)
{
    lore_buf out;
    lore_detok detok = {0};
    lore_buf_init(&out, 0);
    for (int32_t i = 0; i < tokens->count; i++) {
        lore_detok_push(&detok, a->t, tokens->ids[i], &out);
    }
    lore_detok_finish(&detok, &out);
    bool is_same = lore_str_equal(lore_buf_str(&out), wanted);
    lore_buf_destroy(&out);
    return is_same;
}

static void check_line(agreement *a, lore_arena *arena, const lore_json *line)
{
    lore_error err = {0};
    lore_tokens tokens;
    lore_str text = lore_json_str(lore_json_get(line, "text"));
    const lore_json *decoded = lore_json_get(line, "decoded");
    lore_encode_options options = {.allow_special = lore_json_bool(lore_json_get(line, "special")),
                                   .add_special = lore_json_bool(lore_json_get(line, "whole"))};
    lore_status status = lore_tokenizer_encode(a->t, text, options, arena, &tokens, &err);
    CHECK_OK(status, &err);
    if (!same_ids(lore_json_get(line, "ids"), &tokens)) {
        complain(a, "ids", text);
    } else if (lore_json_is_string(decoded) && !same_text(a, &tokens, lore_json_str(decoded))) {
        complain(a, "decoded", text);
    }
    for (int32_t i = 1; i < tokens.count; i++) {
        CHECK(tokens.starts[i] >= tokens.starts[i - 1] && tokens.starts[i] <= text.len);
    }
    a->checked++;
}

static void check_folder(const char *folder)
{
    char path[1024];
    lore_error err = {0};
    lore_buf text;
    lore_arena arena;
    lore_str line;
    lore_tokenizer *t = NULL;
    snprintf(path, sizeof path, "%s/vectors.jsonl", folder);
    lore_buf_init(&text, 0);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_tokenizer_open(folder, &LIMITS, &t, &err), &err);
    CHECK_OK(lore_file_read(path, (size_t)1 << 30, &text, &err), &err);
    agreement a = {.t = t, .folder = folder};
    lore_str rest = lore_buf_str(&text);
    while (lore_str_next_line(&rest, &line)) {
        lore_json *root = NULL;
        CHECK_OK(lore_json_parse(line, 8, &root, &err), &err);
        check_line(&a, &arena, root);
        lore_json_free(root);
        lore_arena_reset(&arena);
    }
    printf("%s: %d texts, %d differ\n", folder, a.checked, a.complaints);
    CHECK(a.checked > 0 && a.complaints == 0);
    lore_arena_destroy(&arena);
    lore_buf_destroy(&text);
    lore_tokenizer_close(t);
}

/* Every folder in the folder; gives how many. */
static int32_t check_folders(const char *base)
{
    char path[2048];
    int32_t count = 0;
    DIR *dir = opendir(base);
    CHECK(dir != NULL);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        snprintf(path, sizeof path, "%s/%s", base, entry->d_name);
        if (entry->d_name[0] != '.') {
            check_folder(path);
            count++;
        }
    }
    closedir(dir);
    return count;
}

static char *const *arguments;
static int argument_count;

TEST(every_kind_agrees)
{
    char command[1024];
    const char *base = check_temp_dir();
    for (int i = 0; i < argument_count; i++) {
        check_folder(arguments[i]);
    }
    if (argument_count > 0) {
        return;
    }
    snprintf(command, sizeof command, "python3 '%s/tokenizer_kinds.py' '%s'", GOLDEN, base);
    int status = system(command);
    if (status != 0) {
        CHECK_SKIP("python3 cannot run tokenizer_kinds.py (does it have `tokenizers`?)");
    }
    CHECK(check_folders(base) >= 10);
}

TEST(published_vocabularies_agree)
{
    char command[4096], out[1024];
    const char *models = getenv("LORE_GGUF_VOCABULARIES");
    const char *vectors = SHARED "/data/tokenizers/vectors.jsonl";
    if (argument_count > 0) {
        return;
    }
    if (models == NULL || !lore_file_exists(vectors)) {
        CHECK_SKIP("LORE_GGUF_VOCABULARIES must name the folder of llama.cpp's ggml-vocab-*.gguf "
                   "(docs/models.md), and ../shared/data/tokenizers be there");
    }
    snprintf(out, sizeof out, "%s/published", check_temp_dir());
    snprintf(command, sizeof command, "python3 '%s/gguf_tokenizers.py' '%s' '%s' '%s'", GOLDEN,
             models, vectors, out);
    CHECK_INT(system(command), 0);
    CHECK(check_folders(out) >= 7);
}

int main(int argc, char **argv)
{
    static const check_case *const cases[] = {every_kind_agrees, published_vocabularies_agree};
    arguments = argv + 1;
    argument_count = argc - 1;
    return check_all(cases, 2, NULL);
}
