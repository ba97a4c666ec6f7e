/* lore bench: runs the programs of bench/, which the build puts beside this one (build/bench/NAME)
 * and an installation into libexec/lore/bench. They are programs of their own, so that nothing of
 * them is in the product; each prints its figures and exits 0. */
#include "base/file.h"
#include "cli/cli.h"

#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROGRAMS_MAX = 64 };

extern char **environ;

/* The folder that holds the programs; NULL when there is none. */
static const char *find_folder(lore_arena *arena)
{
    char self[1024];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self);
    if (size <= 0 || (size_t)size == sizeof self) {
        return NULL;
    }
    while (size > 0 && self[size - 1] != '/') {
        size--;
    }
    static const char *const PLACES[] = {"bench", "../libexec/lore/bench"};
    for (size_t i = 0; i < sizeof PLACES / sizeof PLACES[0]; i++) {
        lore_str path = lore_str_printf(arena, "%.*s%s", (int)size, self, PLACES[i]);
        if (path.ptr != NULL && lore_file_is_dir(path.ptr)) {
            return path.ptr;
        }
    }
    return NULL;
}

/* Programs only: the build leaves folders of its own there too. */
static bool is_program(const char *path)
{
    return !lore_file_is_dir(path) && access(path, X_OK) == 0;
}

static int run_program(lore_cli *cli, const char *path)
{
    lore_error err;
    pid_t child = 0;
    int state = 0;
    char json[] = "--json";
    char *arguments[] = {(char *)(uintptr_t)path, cli->is_json ? json : NULL, NULL};
    int failure = posix_spawn(&child, path, NULL, NULL, arguments, environ);
    if (failure != 0) {
        lore_fail(&err, LORE_ERR_IO, "cannot run '%s': %s", path, strerror(failure));
        return lore_cli_fail(cli, &err);
    }
    while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(state) && WEXITSTATUS(state) == 0 ? LORE_EXIT_DONE : LORE_EXIT_FAILED;
}

static int run_all(lore_cli *cli, const char *folder, const char *only)
{
    lore_error err;
    lore_str *names = NULL;
    size_t count = 0;
    bool was_found = false;
    int code = LORE_EXIT_DONE;
    if (lore_dir_list(&cli->arena, folder, PROGRAMS_MAX, &names, &count, &err) != LORE_OK) {
        return lore_cli_fail(cli, &err);
    }
    for (size_t i = 0; i < count && code == LORE_EXIT_DONE; i++) {
        lore_str path =
            lore_str_printf(&cli->arena, "%s/" LORE_STR_FMT, folder, LORE_STR_ARG(names[i]));
        bool is_wanted = only == NULL || lore_str_equal(names[i], lore_str_from(only));
        if (path.ptr != NULL && is_wanted && is_program(path.ptr)) {
            was_found = true;
            code = run_program(cli, path.ptr);
        }
    }
    return was_found || only == NULL ? code
                                     : lore_cli_misuse(cli, "there is no benchmark '%s'", only);
}

int lore_cmd_bench(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    int code = lore_cli_parse(cli, NULL, 0, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count > 1) {
        return lore_cli_misuse(cli, "bench takes one name");
    }
    const char *folder = find_folder(&cli->arena);
    if (folder == NULL) {
        lore_fail(
            &err, LORE_ERR_NOT_FOUND,
            "the benchmarks are not installed: build from the source and run build/lore bench");
        return lore_cli_fail(cli, &err);
    }
    return run_all(cli, folder, words.count == 1 ? words.items[0] : NULL);
}
