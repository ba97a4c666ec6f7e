/* lore digest: what the data folder holds, as a number to compare. */
#include "base/json.h"
#include "cli/cli.h"
#include "index/digest.h"

#include <inttypes.h>

static const char *const part_names[LORE_DIGEST_PARTS] = {"documents", "chunks", "vectors",
                                                          "index"};

static int print_json(const lore_cli *cli, const lore_digest *digest)
{
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.digest"));
    lore_json_string(&w, "digest", lore_str_from(digest->whole));
    lore_json_object(&w, "parts");
    for (int i = 0; i < LORE_DIGEST_PARTS; i++) {
        lore_json_string(&w, part_names[i], lore_str_from(digest->parts[i]));
    }
    lore_json_end(&w);
    lore_json_int(&w, "collections", digest->collections);
    lore_json_int(&w, "documents", digest->documents);
    lore_json_int(&w, "chunks", digest->chunks);
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

int lore_cmd_digest(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_digest digest;
    lore_flag_list words = {0};
    int code = lore_cli_parse(cli, NULL, 0, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count > 0) {
        return lore_cli_misuse(cli, "digest takes no arguments: --data names the folder");
    }
    if (lore_digest_folder(cli->config.data, &cli->config, &digest, &err) != LORE_OK) {
        return lore_cli_fail(cli, &err);
    }
    if (cli->is_json) {
        return print_json(cli, &digest);
    }
    printf("%s  %" PRId64 " documents, %" PRId64 " chunks\n", digest.whole, digest.documents,
           digest.chunks);
    for (int i = 0; i < LORE_DIGEST_PARTS; i++) {
        printf("    %s  %s\n", digest.parts[i], part_names[i]);
    }
    return LORE_EXIT_DONE;
}
