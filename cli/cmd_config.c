/* lore config and lore version. */
#include "base/json.h"
#include "cli/cli.h"

int lore_cmd_config(lore_cli *cli, int argc, char **argv)
{
    lore_flag_list words = {0};
    bool is_explaining = false;
    const lore_flag flags[] = {
        {"explain", 0, LORE_FLAG_SWITCH, &is_explaining, NULL,
         "every key with its default, its variable and what it does", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, 1, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count > 0) {
        return lore_cli_misuse(cli, "config takes no argument '%s'", words.items[0]);
    }
    lore_buf out;
    lore_buf_init(&out, 0);
    lore_config_print(&cli->config, is_explaining && !cli->is_json, &out);
    while (out.len > 0 && out.ptr[out.len - 1] == '\n') {
        out.len--;
    }
    code = lore_cli_print_json(cli, &out); /* text or JSON: it goes out the same way */
    lore_buf_destroy(&out);
    return code;
}

int lore_cmd_version(lore_cli *cli, int argc, char **argv)
{
    lore_flag_list words = {0};
    int code = lore_cli_parse(cli, NULL, 0, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
#ifdef LORE_HAVE_CUDA
    bool has_cuda = true;
#else
    bool has_cuda = false;
#endif
    if (!cli->is_json) {
        printf("lore %s (%s, %s)\n", LORE_VERSION, __VERSION__, has_cuda ? "CUDA" : "no CUDA");
        return LORE_EXIT_DONE;
    }
    lore_buf out;
    lore_json_writer w;
    lore_buf_init(&out, 0);
    lore_json_write_begin(&w, &out);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "version", LORE_STR(LORE_VERSION));
    lore_json_string(&w, "compiler", LORE_STR(__VERSION__));
    lore_json_boolean(&w, "cuda", has_cuda);
    lore_json_end(&w);
    code = lore_cli_print_json(cli, &out);
    lore_buf_destroy(&out);
    return code;
}
