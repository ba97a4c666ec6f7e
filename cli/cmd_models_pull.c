/* lore models pull: a hub repository becomes a model folder.
 *
 * Files are fetched into FOLDER.pull, which is renamed to FOLDER when every one of them is whole
 * and the weights open; so a folder under its own name is always complete, and a pull that was
 * interrupted goes on where it was. Only what this program reads is fetched, and licence and card.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/hub.h"
#include "models/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PART_BYTES_MAX = 96, DRAW_MS = 200, RECORD_BYTES_MAX = 1 << 16, OLD_FILES_MAX = 20000 };

#define ENDPOINT_DEFAULT "https://huggingface.co"
#define RECORD_FILE "lore-pull.json" /* where a folder comes from */

typedef struct pull {
    lore_cli *cli;
    lore_hub *hub;
    lore_str repository, revision;
    bool is_revision_asked;                      /* else it is "main" */
    const char *folder, *staging, *old, *parent; /* in the arena */
    int staging_fd;                              /* locked; -1: not yet */
    lore_hub_list list;
    lore_hub_file *needed; /* of the list */
    int32_t needed_count;
    int64_t bytes_total, bytes_before; /* of all needed files; of those that are done */
    /* what progress draws */
    lore_str drawn_name;
    int64_t drawn_ns, begun_ns, begun_bytes;
    int32_t terminal_width;
} pull;

/* ---- what is wanted ---- */

static bool is_plain_part(lore_str part)
{
    if (part.len == 0 || part.len > PART_BYTES_MAX || part.ptr[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < part.len; i++) {
        char c = part.ptr[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        if (!is_plain) {
            return false;
        }
    }
    return true;
}

/* "OWNER/NAME[@REVISION]"; a revision may hold slashes (refs/pr/1). */
static lore_status parse_target(pull *p, const char *word, lore_error *err)
{
    lore_str text = lore_str_from(word);
    size_t at = lore_str_find(text, LORE_STR("@"), 0);
    p->is_revision_asked = at != SIZE_MAX;
    p->repository = lore_str_slice(text, 0, at == SIZE_MAX ? text.len : at);
    p->revision = at == SIZE_MAX ? LORE_STR("main") : lore_str_slice(text, at + 1, text.len);
    size_t slash = lore_str_find(p->repository, LORE_STR("/"), 0);
    bool is_right = slash != SIZE_MAX && p->revision.len > 0 && p->revision.len <= 200 &&
                    is_plain_part(lore_str_slice(p->repository, 0, slash)) &&
                    is_plain_part(lore_str_slice(p->repository, slash + 1, p->repository.len));
    return is_right ? LORE_OK
                    : lore_fail(err, LORE_ERR_INVALID,
                                "'%.200s' must be OWNER/NAME or "
                                "OWNER/NAME@REVISION",
                                word);
}

/* Of the folder itself, or of a module of sentence-transformers ("1_Pooling/config.json"). */
static bool is_needed(lore_str name)
{
    static const char *const NAMES[] = {"config.json",
                                        "generation_config.json",
                                        "model.safetensors.index.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "tokenizer.model",
                                        "sentencepiece.bpe.model",
                                        "vocab.txt",
                                        "vocab.json",
                                        "merges.txt",
                                        "added_tokens.json",
                                        "special_tokens_map.json",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "modules.json",
                                        "sentence_bert_config.json",
                                        "config_sentence_transformers.json",
                                        "quantize_config.json",
                                        "quant_config.json",
                                        "adapter_config.json",
                                        "lore.json",
                                        "README.md",
                                        "LICENSE",
                                        "LICENSE.txt",
                                        "LICENSE.md"};
    size_t slash = lore_str_find(name, LORE_STR("/"), 0);
    if (slash != SIZE_MAX) {
        bool is_module =
            slash > 2 && name.ptr[0] >= '0' && name.ptr[0] <= '9' && name.ptr[1] == '_';
        lore_str inner = lore_str_slice(name, slash + 1, name.len);
        return is_module && (lore_str_equal(inner, LORE_STR("config.json")) ||
                             lore_str_equal(inner, LORE_STR("model.safetensors")));
    }
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (lore_str_equal(name, lore_str_from(NAMES[i]))) {
            return true;
        }
    }
    /* Mistral's own copies of the same weights stand beside those with the usual names. */
    return lore_str_ends(name, LORE_STR(".tiktoken")) ||
           (lore_str_ends(name, LORE_STR(".safetensors")) &&
            !lore_str_starts(name, LORE_STR("consolidated")));
}

static lore_status choose_files(pull *p, lore_error *err)
{
    bool has_weights = false, has_config = false;
    p->needed = LORE_PUSH(&p->cli->arena, lore_hub_file, (size_t)p->list.count + 1);
    if (p->needed == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the list of files");
    }
    for (int32_t i = 0; i < p->list.count; i++) {
        const lore_hub_file *file = &p->list.files[i];
        if (is_needed(file->name)) {
            p->needed[p->needed_count++] = *file;
            p->bytes_total += file->size_bytes > 0 ? file->size_bytes : 0;
            has_weights |= lore_str_ends(file->name, LORE_STR(".safetensors"));
            has_config |= lore_str_equal(file->name, LORE_STR("config.json")) ||
                          lore_str_equal(file->name, LORE_STR("adapter_config.json"));
        }
    }
    if (!has_config || !has_weights) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "'" LORE_STR_FMT "' has no %s: lore reads Hugging Face folders with "
                         "safetensors weights",
                         LORE_STR_ARG(p->repository),
                         has_config ? ".safetensors file" : "config.json");
    }
    return LORE_OK;
}

/* ---- the folder ---- */

/* What is recorded of a folder's pull: its "commit", the "revision" that was asked for; empty where
 * nobody knows. */
static lore_str read_record(pull *p, const char *folder, const char *key)
{
    lore_buf text;
    lore_error ignored;
    lore_json *root = NULL;
    lore_str value = {0};
    lore_str path = lore_str_printf(&p->cli->arena, "%s/" RECORD_FILE, folder);
    lore_buf_init(&text, RECORD_BYTES_MAX);
    if (path.ptr != NULL &&
        lore_file_read(path.ptr, RECORD_BYTES_MAX, &text, &ignored) == LORE_OK &&
        lore_json_parse(lore_buf_str(&text), 4, &root, &ignored) == LORE_OK) {
        value = lore_str_copy(&p->cli->arena, lore_json_str(lore_json_get(root, key)));
        lore_json_free(root);
    }
    lore_buf_destroy(&text);
    return value.ptr != NULL ? value : (lore_str){0};
}

static lore_status write_record(pull *p, lore_error *err)
{
    lore_buf json;
    lore_json_writer w;
    lore_str path = lore_str_printf(&p->cli->arena, "%s/" RECORD_FILE, p->staging);
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "repository", p->repository);
    lore_json_string(&w, "revision", p->revision);
    lore_json_string(&w, "commit", p->list.commit);
    lore_json_end(&w);
    lore_status status = path.ptr == NULL || lore_buf_failed(&json)
                             ? lore_fail(err, LORE_ERR_NOMEM, "no memory for " RECORD_FILE)
                             : lore_file_replace(path.ptr, lore_buf_str(&json), err);
    lore_buf_destroy(&json);
    return status;
}

/* Everything in a folder of one level of folders, which is what a pull makes. Links are removed,
 * not followed; what cannot be removed stays. */
static void empty_folder(lore_arena *arena, const char *path, bool is_inner)
{
    lore_str *names = NULL;
    size_t count = 0;
    lore_error ignored;
    if (lore_dir_list(arena, path, OLD_FILES_MAX, &names, &count, &ignored) != LORE_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        lore_str inner = lore_str_printf(arena, "%s/" LORE_STR_FMT, path, LORE_STR_ARG(names[i]));
        if (inner.ptr != NULL && unlink(inner.ptr) != 0 && errno == EISDIR && !is_inner) {
            empty_folder(arena, inner.ptr, true);
            rmdir(inner.ptr);
        }
    }
}

/* Only what a pull made may be emptied or replaced. */
static lore_status check_ours(pull *p, const char *path, lore_error *err)
{
    struct stat info;
    lore_str *names = NULL;
    size_t count = 0;
    if (lstat(path, &info) != 0) {
        return LORE_OK;
    }
    if (!S_ISDIR(info.st_mode)) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' is in the way: it is no folder", path);
    }
    lore_status status = lore_dir_list(&p->cli->arena, path, OLD_FILES_MAX, &names, &count, err);
    return status == LORE_OK && count > 0 && read_record(p, path, "commit").len == 0
               ? lore_fail(err, LORE_ERR_INVALID,
                           "'%s' is in the way: no pull made it (--to names another folder)", path)
               : status;
}

static lore_status check_places(pull *p, lore_error *err)
{
    const char *places[] = {p->folder, p->staging, p->old};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        lore_status status = check_ours(p, places[i], err);
        if (status != LORE_OK) {
            return status;
        }
    }
    empty_folder(&p->cli->arena, p->old, false); /* of a pull that was killed */
    return rmdir(p->old) == 0 || errno == ENOENT
               ? LORE_OK
               : lore_fail(err, LORE_ERR_IO, "cannot remove '%s': %s", p->old, strerror(errno));
}

/* One pull at a time: the lock is on the folder itself and goes with it. Files of another commit
 * are no beginnings of this one's. */
static lore_status open_staging(pull *p, lore_error *err)
{
    lore_status status = lore_dir_make(p->staging, err);
    if (status != LORE_OK) {
        return status;
    }
    p->staging_fd = open(p->staging, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->staging_fd < 0 || flock(p->staging_fd, LOCK_EX | LOCK_NB) != 0) {
        return lore_fail(err, errno == EWOULDBLOCK ? LORE_ERR_BUSY : LORE_ERR_IO,
                         "cannot lock '%s': %s", p->staging,
                         errno == EWOULDBLOCK ? "another pull fills it" : strerror(errno));
    }
    lore_str commit = read_record(p, p->staging, "commit");
    if (commit.len > 0 && !lore_str_equal(commit, p->list.commit)) {
        empty_folder(&p->cli->arena, p->staging, false);
    }
    return write_record(p, err);
}

/* Bytes of a needed file that an earlier call has left, whole or in part. */
static int64_t bytes_there(const pull *p, const lore_hub_file *file)
{
    static const char *const ENDS[] = {"", ".part"};
    struct stat info;
    for (int i = 0; i < 2; i++) {
        lore_str path = lore_str_printf(&p->cli->arena, "%s/" LORE_STR_FMT "%s", p->staging,
                                        LORE_STR_ARG(file->name), ENDS[i]);
        if (path.ptr != NULL && stat(path.ptr, &info) == 0) {
            return info.st_size < file->size_bytes ? info.st_size : file->size_bytes;
        }
    }
    return 0;
}

static lore_status check_room(const pull *p, lore_error *err)
{
    struct statvfs room;
    if (statvfs(p->staging, &room) != 0) {
        return LORE_OK; /* then the writes will tell */
    }
    double free_bytes = (double)room.f_bavail * (double)room.f_frsize;
    double to_come = (double)p->bytes_total;
    for (int32_t i = 0; i < p->needed_count; i++) {
        to_come -= p->needed[i].size_bytes > 0 ? (double)bytes_there(p, &p->needed[i]) : 0;
    }
    return free_bytes < to_come
               ? lore_fail(err, LORE_ERR_IO, "'%s' has room for %.1f MB, %.1f MB are to come",
                           p->staging, free_bytes / 1e6, to_come / 1e6)
               : LORE_OK;
}

static lore_status sync_folder(const char *path, lore_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0;
    int number = errno;
    if (fd >= 0) {
        close(fd);
    }
    return is_synced ? LORE_OK
                     : lore_fail(err, LORE_ERR_IO, "cannot sync '%s': %s", path, strerror(number));
}

/* The new folder takes the old one's place in one step, where the file system can exchange names;
 * else the old one is named .old for a moment. */
static bool exchange(const pull *p)
{
    if (rename(p->staging, p->folder) == 0) { /* there was none, or an empty one */
        return true;
    }
    if (renameat2(AT_FDCWD, p->staging, AT_FDCWD, p->folder, RENAME_EXCHANGE) == 0) {
        empty_folder(&p->cli->arena, p->staging, false);
        rmdir(p->staging);
        return true;
    }
    if (rename(p->folder, p->old) != 0) {
        return false;
    }
    if (rename(p->staging, p->folder) != 0) {
        int number = errno;
        (void)!rename(p->old, p->folder);
        errno = number;
        return false;
    }
    empty_folder(&p->cli->arena, p->old, false);
    rmdir(p->old);
    return true;
}

static lore_status install(pull *p, lore_error *err)
{
    lore_weights *weights = NULL;
    lore_status status = lore_weights_open(p->staging, &p->cli->config.limits, &weights, err);
    lore_weights_close(weights);
    if (status == LORE_OK) {
        status = sync_folder(p->staging, err);
    }
    if (status == LORE_OK && !exchange(p)) {
        status = lore_fail(err, LORE_ERR_IO, "cannot rename '%s' to '%s': %s", p->staging,
                           p->folder, strerror(errno));
    }
    return status == LORE_OK ? sync_folder(p->parent, err) : status;
}

/* ---- progress ---- */

static bool draw(void *self, int64_t done, int64_t total)
{
    pull *p = self;
    int64_t now = lore_clock_ns();
    if (p->terminal_width > 0 && now - p->drawn_ns > (int64_t)DRAW_MS * 1000000) {
        double seconds = (double)(now - p->begun_ns) / 1e9;
        double rate = seconds > 0 ? (double)(p->bytes_before + done - p->begun_bytes) / seconds : 0;
        fprintf(stderr, "\r\033[K  %.1f of %.1f MB  %.1f MB/s  " LORE_STR_FMT,
                (double)(p->bytes_before + done) / 1e6, (double)p->bytes_total / 1e6, rate / 1e6,
                LORE_STR_ARG(p->drawn_name));
        fflush(stderr);
        p->drawn_ns = now;
    }
    (void)total;
    return lore_cli_is_interrupted();
}

static void draw_done(const pull *p, const lore_hub_file *file)
{
    fprintf(stderr, "%s  %12" PRId64 "  " LORE_STR_FMT "\n",
            p->terminal_width > 0 ? "\r\033[K" : "", file->size_bytes, LORE_STR_ARG(file->name));
}

/* ---- the walk ---- */

static lore_status fetch_file(pull *p, const lore_hub_file *file, lore_error *err)
{
    struct stat info;
    lore_str path =
        lore_str_printf(&p->cli->arena, "%s/" LORE_STR_FMT, p->staging, LORE_STR_ARG(file->name));
    size_t slash = lore_str_find(file->name, LORE_STR("/"), 0);
    lore_status status = LORE_OK;
    if (path.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a path");
    }
    if (slash != SIZE_MAX) {
        lore_str folder = lore_str_printf(&p->cli->arena, "%s/" LORE_STR_FMT, p->staging,
                                          LORE_STR_ARG(lore_str_slice(file->name, 0, slash)));
        status = folder.ptr == NULL ? lore_fail(err, LORE_ERR_NOMEM, "no memory for a path")
                                    : lore_dir_make(folder.ptr, err);
    }
    p->drawn_name = file->name;
    bool is_there = stat(path.ptr, &info) == 0 && S_ISREG(info.st_mode); /* renamed when whole */
    if (status == LORE_OK && !is_there) {
        status =
            lore_hub_fetch(p->hub, p->repository, p->list.commit, file, path.ptr, draw, p, err);
    }
    if (status == LORE_OK) {
        p->bytes_before += file->size_bytes > 0 ? file->size_bytes : 0;
        draw_done(p, file);
    }
    return status;
}

static lore_status run_pull(pull *p, lore_error *err)
{
    lore_status status =
        lore_hub_read(p->hub, p->repository, p->revision, draw, p, &p->cli->arena, &p->list, err);
    if (status == LORE_OK && lore_file_is_dir(p->folder) &&
        lore_str_equal(read_record(p, p->folder, "commit"), p->list.commit)) {
        return LORE_OK; /* nothing is new */
    }
    if (status == LORE_OK) {
        status = choose_files(p, err);
    }
    if (status == LORE_OK) {
        status = check_places(p, err);
    }
    if (status == LORE_OK) {
        status = open_staging(p, err);
    }
    if (status == LORE_OK) {
        status = check_room(p, err);
    }
    p->begun_ns = lore_clock_ns();
    for (int32_t i = 0; i < p->needed_count && status == LORE_OK; i++) {
        status = fetch_file(p, &p->needed[i], err);
    }
    return status == LORE_OK ? install(p, err) : status;
}

static int print_result(const pull *p, bool is_offline)
{
    lore_buf json;
    lore_json_writer w;
    if (!p->cli->is_json) {
        printf("%s\n", p->folder);
        if (!is_offline && p->needed_count == 0) {
            fprintf(stderr, "is already there, at commit " LORE_STR_FMT "\n",
                    LORE_STR_ARG(p->list.commit));
        }
        return LORE_EXIT_DONE;
    }
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "repository", p->repository);
    lore_json_string(&w, "commit", p->list.commit);
    lore_json_string(&w, "folder", lore_str_from(p->folder));
    lore_json_int(&w, "files", p->needed_count);
    lore_json_int(&w, "bytes", p->bytes_before);
    lore_json_end(&w);
    int code = lore_cli_print_json(p->cli, &json);
    lore_buf_destroy(&json);
    return code;
}

static bool is_on(const char *value)
{
    return value != NULL && value[0] != '\0' && strcmp(value, "0") != 0;
}

/* Where it goes, without a slash at the end, and where it grows. */
static lore_status name_folders(pull *p, const char *to, lore_error *err)
{
    lore_arena *arena = &p->cli->arena;
    lore_str folder = to != NULL
                          ? lore_str_from(to)
                          : lore_str_printf(arena, "%s/models/" LORE_STR_FMT, p->cli->config.data,
                                            LORE_STR_ARG(p->repository));
    while (folder.len > 1 && folder.ptr[folder.len - 1] == '/') {
        folder.len--;
    }
    p->folder = lore_str_to_c(arena, folder);
    p->staging = lore_str_printf(arena, LORE_STR_FMT ".pull", LORE_STR_ARG(folder)).ptr;
    p->old = lore_str_printf(arena, LORE_STR_FMT ".old", LORE_STR_ARG(folder)).ptr;
    p->parent = lore_str_printf(arena, LORE_STR_FMT "/..", LORE_STR_ARG(folder)).ptr;
    return p->folder == NULL || p->staging == NULL || p->old == NULL || p->parent == NULL ||
                   folder.ptr == NULL
               ? lore_fail(err, LORE_ERR_NOMEM, "no memory for a path")
               : LORE_OK;
}

/* The folder as it is; a revision that was asked for must be the one that it was pulled at. */
static lore_status fetch_nothing(pull *p, lore_error *err)
{
    if (!lore_file_is_dir(p->folder)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "'%s' is not there, and offline nothing is fetched", p->folder);
    }
    p->list.commit = read_record(p, p->folder, "commit");
    lore_str revision = read_record(p, p->folder, "revision");
    bool is_right = !p->is_revision_asked || lore_str_equal(p->revision, revision) ||
                    lore_str_equal(p->revision, p->list.commit);
    return is_right ? LORE_OK
                    : lore_fail(err, LORE_ERR_NOT_FOUND,
                                "'%s' is at revision '" LORE_STR_FMT "', not '" LORE_STR_FMT
                                "', and offline nothing is fetched",
                                p->folder, LORE_STR_ARG(revision), LORE_STR_ARG(p->revision));
}

static lore_status fetch(pull *p, lore_error *err)
{
    const char *endpoint = getenv("HF_ENDPOINT");
    lore_cli_catch_signals();
    lore_status status =
        lore_hub_open(endpoint != NULL && endpoint[0] ? endpoint : ENDPOINT_DEFAULT,
                      getenv("HF_TOKEN"), &p->cli->config.limits, &p->hub, err);
    if (status == LORE_OK) {
        status = run_pull(p, err);
    }
    lore_hub_close(p->hub);
    if (p->staging_fd >= 0) {
        close(p->staging_fd);
    }
    if (status != LORE_OK && p->terminal_width > 0) {
        fputs("\r\033[K", stderr);
    }
    return status;
}

int lore_cmd_models_pull(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    const char *to = NULL;
    bool is_offline = false;
    pull p = {.cli = cli, .staging_fd = -1, .terminal_width = lore_terminal_width(stderr)};
    const lore_flag flags[] = {
        {"to", 0, LORE_FLAG_TEXT, &to, "FOLDER", "make this folder ($DATA/models/OWNER/NAME)", 0,
         0},
        {"offline", 0, LORE_FLAG_SWITCH, &is_offline, NULL, "fetch nothing; is it there?", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, 2, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count != 2) { /* the first is the verb */
        return lore_cli_misuse(cli, "models pull OWNER/NAME[@REVISION]");
    }
    lore_status status = parse_target(&p, words.items[1], &err);
    if (status != LORE_OK) {
        return lore_cli_misuse(cli, "%s", err.message);
    }
    status = name_folders(&p, to, &err);
    is_offline |= is_on(getenv("HF_HUB_OFFLINE"));
    if (status == LORE_OK) {
        status = is_offline ? fetch_nothing(&p, &err) : fetch(&p, &err);
    }
    return status == LORE_OK ? print_result(&p, is_offline) : lore_cli_fail(cli, &err);
}
