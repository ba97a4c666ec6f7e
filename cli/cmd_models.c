/* lore models list and info: what the model folders are.
 *
 * A list reads what folders say of themselves. For info the models are opened as the program opens
 * them, so what this prints is what runs; names of dtypes and the sizes of files are read from the
 * folder. */
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 4096, FOLDERS_MAX = 512, CONFIG_BYTES_MAX = 1 << 20 };

typedef struct model_file {
    lore_str name;
    int64_t size_bytes;
} model_file;

typedef struct model_view {
    const char *folder;
    const char *role; /* "encoder" or "decoder" */
    const char *name;
    lore_str architecture;
    lore_str dtypes; /* "int8, bf16, f32" */
    int64_t parameters, weight_bytes;
    int32_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context;
    bool needs_guard;
    lore_generation_defaults generation; /* of a decoder */
    const char *problem;                 /* of a list: why this is no model; else NULL */
    char fingerprint[80];
    model_file *files;
    int32_t file_count;
} model_view;

/* ---- what the folder says ---- */

/* For people to read, before anything has been checked; 0: no such number. */
static int32_t count_of(const lore_json *root, const char *key)
{
    double number = lore_json_number(lore_json_get(root, key));
    return number >= 0 && number <= INT32_MAX ? (int32_t)number : 0;
}

static lore_status read_architecture(model_view *view, const lore_limits *limits, lore_arena *arena,
                                     lore_error *err)
{
    lore_buf text;
    lore_json *root = NULL;
    lore_str path = lore_str_printf(arena, "%s/config.json", view->folder);
    if (path.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a path");
    }
    lore_buf_init(&text, CONFIG_BYTES_MAX);
    lore_status status = lore_file_read(path.ptr, CONFIG_BYTES_MAX, &text, err);
    if (status == LORE_OK) {
        status = lore_json_parse(lore_buf_str(&text), (int32_t)limits->json_depth_max, &root, err);
        if (status != LORE_OK) {
            lore_error_prefix(err, "'%s'", path.ptr);
        }
    }
    if (status == LORE_OK) {
        const lore_json *first = lore_json_first(lore_json_get(root, "architectures"));
        view->architecture = lore_str_copy(arena, lore_json_str(first));
        view->layers = count_of(root, "num_hidden_layers");
        view->width = count_of(root, "hidden_size");
        view->heads = count_of(root, "num_attention_heads");
        view->ffn = count_of(root, "intermediate_size");
        view->vocab = count_of(root, "vocab_size");
        lore_json_free(root);
    }
    lore_buf_destroy(&text);
    return status;
}

static lore_status list_files(model_view *view, lore_arena *arena, lore_error *err)
{
    lore_str *names = NULL;
    size_t count = 0;
    lore_status status = lore_dir_list(arena, view->folder, FILES_MAX, &names, &count, err);
    if (status != LORE_OK) {
        return status;
    }
    view->files = LORE_PUSH(arena, model_file, count);
    if (view->files == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a list of files");
    }
    for (size_t i = 0; i < count; i++) {
        struct stat info;
        lore_str path =
            lore_str_printf(arena, "%s/" LORE_STR_FMT, view->folder, LORE_STR_ARG(names[i]));
        if (path.ptr != NULL && stat(path.ptr, &info) == 0 && S_ISREG(info.st_mode)) {
            view->files[view->file_count++] = (model_file){names[i], info.st_size};
        }
    }
    return LORE_OK;
}

/* The dtypes in a safetensors header, each once: `"dtype":"I8"`. The file itself is checked by the
 * loader, so here a scan of the header for the key is enough. */
static void scan_dtypes(lore_str header, lore_arena *arena, lore_str *dtypes)
{
    static const struct {
        lore_str wire, name;
    } KNOWN[] = {{{"\"F32\"", 5}, {"f32", 3}},
                 {{"\"F16\"", 5}, {"f16", 3}},
                 {{"\"BF16\"", 6}, {"bf16", 4}},
                 {{"\"I8\"", 4}, {"int8", 4}},
                 {{"\"I32\"", 5}, {"int4", 4}}};
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
        if (lore_str_find(header, KNOWN[i].wire, 0) != SIZE_MAX) {
            lore_str joined =
                lore_str_printf(arena, LORE_STR_FMT "%s" LORE_STR_FMT, LORE_STR_ARG(*dtypes),
                                dtypes->len > 0 ? ", " : "", LORE_STR_ARG(KNOWN[i].name));
            *dtypes = joined.ptr != NULL ? joined : *dtypes;
        }
    }
}

static lore_status read_dtypes(model_view *view, const lore_limits *limits, lore_arena *arena,
                               lore_error *err)
{
    for (int32_t i = 0; i < view->file_count && view->dtypes.len == 0; i++) {
        if (!lore_str_ends(view->files[i].name, LORE_STR(".safetensors"))) {
            continue;
        }
        lore_map map = {0};
        lore_str path = lore_str_printf(arena, "%s/" LORE_STR_FMT, view->folder,
                                        LORE_STR_ARG(view->files[i].name));
        lore_status status = path.ptr == NULL
                                 ? lore_fail(err, LORE_ERR_NOMEM, "no memory for a path")
                                 : lore_map_open(path.ptr, &map, err);
        if (status != LORE_OK) {
            return status;
        }
        uint64_t size = 0;
        if (map.size_bytes >= sizeof size) {
            memcpy(&size, map.ptr, sizeof size); /* little endian, like every machine we run on */
            if (size <= map.size_bytes - sizeof size &&
                size <= (uint64_t)limits->model_header_bytes_max) {
                scan_dtypes((lore_str){(const char *)map.ptr + sizeof size, (size_t)size}, arena,
                            &view->dtypes);
            }
        }
        lore_map_close(&map);
    }
    return LORE_OK;
}

static lore_status read_weights(model_view *view, const lore_limits *limits, lore_error *err)
{
    lore_weights *weights = NULL;
    lore_status status = lore_weights_open(view->folder, limits, &weights, err);
    if (status == LORE_OK) {
        view->parameters = lore_weights_parameters(weights);
        view->weight_bytes = lore_weights_bytes(weights);
        status = lore_weights_fingerprint(weights, view->fingerprint, err);
    }
    lore_weights_close(weights);
    return status;
}

/* ---- what the program makes of it ---- */

static lore_status view_encoder(model_view *view, lore_backend *backend, const lore_limits *limits,
                                lore_arena *arena, lore_error *err)
{
    lore_embedder *embedder = NULL;
    lore_status status = lore_embedder_open(view->folder, backend, limits, &embedder, err);
    if (status != LORE_OK) {
        return status;
    }
    view->name = lore_str_to_c(arena, lore_str_from(lore_embedder_name(embedder)));
    view->width = lore_embedder_dim(embedder);
    view->context = lore_embedder_tokens_max(embedder);
    view->vocab = lore_tokenizer_vocab(lore_embedder_tokenizer(embedder));
    view->kv_heads = view->heads;
    /* The identity stored beside every vector, which is more than the weights alone. */
    snprintf(view->fingerprint, sizeof view->fingerprint, "%s",
             lore_embedder_fingerprint(embedder));
    lore_embedder_close(embedder);
    return LORE_OK;
}

static lore_status view_reranker(model_view *view, lore_backend *backend, const lore_limits *limits,
                                 lore_arena *arena, lore_error *err)
{
    lore_reranker *reranker = NULL;
    lore_status status = lore_reranker_open(view->folder, backend, limits, &reranker, err);
    if (status == LORE_OK) {
        view->name = lore_str_to_c(arena, lore_str_from(lore_reranker_name(reranker)));
        view->context = lore_reranker_tokens_max(reranker);
        view->vocab = lore_tokenizer_vocab(lore_reranker_tokenizer(reranker));
        view->kv_heads = view->heads;
    }
    lore_reranker_close(reranker);
    return status;
}

static lore_status view_decoder(model_view *view, lore_backend *backend, const lore_limits *limits,
                                lore_arena *arena, lore_error *err)
{
    lore_decoder *decoder = NULL;
    const lore_decoder_options options = {.kv_dtype = LORE_BF16};
    lore_status status = lore_decoder_open(view->folder, backend, limits, &options, &decoder, err);
    if (status != LORE_OK) {
        return status;
    }
    const lore_decoder_info *info = lore_decoder_get_info(decoder);
    view->name = lore_str_to_c(arena, lore_str_from(info->name));
    view->architecture = lore_str_copy(arena, lore_str_from(info->architecture));
    view->parameters = info->parameters;
    view->layers = info->layers;
    view->width = info->width;
    view->heads = info->heads;
    view->kv_heads = info->kv_heads;
    view->head_dim = info->head_dim;
    view->ffn = info->ffn;
    view->vocab = info->vocab;
    view->context = info->context;
    view->needs_guard = info->needs_guard;
    view->generation = info->generation;
    lore_decoder_close(decoder);
    return LORE_OK;
}

/* What kind it is: sentence-transformers folders have modules.json; else the class decides. */
static const char *find_role(const model_view *view, lore_arena *arena)
{
    lore_str modules = lore_str_printf(arena, "%s/modules.json", view->folder);
    if (lore_str_find(view->architecture, LORE_STR("ForSequenceClassification"), 0) != SIZE_MAX) {
        return "reranker";
    }
    bool is_decoder = lore_str_find(view->architecture, LORE_STR("ForCausalLM"), 0) != SIZE_MAX;
    return is_decoder && modules.ptr != NULL && !lore_file_exists(modules.ptr) ? "decoder"
                                                                               : "encoder";
}

/* Without opening the network: quick for any size. */
static lore_status view_folder(const lore_cli *cli, const char *folder, lore_arena *arena,
                               model_view *view, lore_error *err)
{
    const lore_limits *limits = &cli->config.limits;
    *view = (model_view){.folder = folder, .role = "", .name = ""};
    if (!lore_file_is_dir(folder)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "there is no model folder '%s'", folder);
    }
    lore_status status = read_architecture(view, limits, arena, err);
    if (status == LORE_OK) {
        status = list_files(view, arena, err);
    }
    if (status == LORE_OK) {
        status = read_dtypes(view, limits, arena, err);
    }
    if (status == LORE_OK) {
        status = read_weights(view, limits, err);
    }
    if (status == LORE_OK) {
        view->role = find_role(view, arena);
    }
    return status;
}

static lore_status view_model(const lore_cli *cli, const char *folder, lore_backend *backend,
                              lore_arena *arena, model_view *view, lore_error *err)
{
    const lore_limits *limits = &cli->config.limits;
    lore_status status = view_folder(cli, folder, arena, view, err);
    if (status != LORE_OK) {
        return status;
    }
    if (strcmp(view->role, "reranker") == 0) {
        return view_reranker(view, backend, limits, arena, err);
    }
    return strcmp(view->role, "encoder") == 0 ? view_encoder(view, backend, limits, arena, err)
                                              : view_decoder(view, backend, limits, arena, err);
}

/* ---- printing ---- */

/* Bytes of the weights in so many bits: int8 has a scale a row, int4 one for each 128 columns, with
 * the tables of tokens left in int8. */
static double bytes_at(const model_view *view, const char *dtype)
{
    double all = (double)view->parameters, tables = (double)view->vocab * view->width;
    double rows = view->width > 0 ? all / view->width * sizeof(float) : 0;
    if (strcmp(dtype, "int4") == 0) {
        double layers = all > tables ? all - tables : 0;
        return layers / 2 + layers / 128 * sizeof(float) + tables;
    }
    return strcmp(dtype, "f32") == 0 ? 4 * all : strcmp(dtype, "bf16") == 0 ? 2 * all : all + rows;
}

/* Keys and values in bf16; 0 where nothing is kept from token to token. */
static int64_t kv_bytes_per_token(const model_view *view)
{
    return (int64_t)view->layers * 2 * view->kv_heads * view->head_dim * 2;
}

static const char *const SIZES[] = {"f32", "bf16", "int8", "int4"};
enum { SIZES_COUNT = sizeof SIZES / sizeof SIZES[0] };

static void print_line(const model_view *view)
{
    if (view->problem != NULL) {
        printf("-         %s: %s\n", view->folder, view->problem);
        return;
    }
    printf("%-9s %8.1f M  %8.1f MB  %-10.*s %s\n", view->role, (double)view->parameters / 1e6,
           (double)view->weight_bytes / 1e6, LORE_STR_ARG(view->dtypes), view->folder);
}

static void print_view(const model_view *view)
{
    printf("%s  %s\n", view->role, view->name ? view->name : "");
    printf("  folder        %s\n", view->folder);
    printf("  architecture  " LORE_STR_FMT ", %d layers x %d, heads %d/%d, feed-forward %d\n",
           LORE_STR_ARG(view->architecture), (int)view->layers, (int)view->width, (int)view->heads,
           (int)view->kv_heads, (int)view->ffn);
    printf("  parameters    %.1f M in %.1f MB (" LORE_STR_FMT ")\n", (double)view->parameters / 1e6,
           (double)view->weight_bytes / 1e6, LORE_STR_ARG(view->dtypes));
    printf("  memory        about");
    for (int i = 0; i < SIZES_COUNT; i++) {
        printf("%s %.1f MB in %s", i > 0 ? "," : "", bytes_at(view, SIZES[i]) / 1e6, SIZES[i]);
    }
    printf("\n");
    printf("  context       %d tokens, vocabulary %d\n", (int)view->context, (int)view->vocab);
    if (kv_bytes_per_token(view) > 0) {
        printf("  KV cache      %.1f KB per token, %.1f MB for a full context\n",
               (double)kv_bytes_per_token(view) / 1e3,
               (double)kv_bytes_per_token(view) * view->context / 1e6);
    }
    if (strcmp(view->role, "decoder") == 0) {
        const lore_generation_defaults *g = &view->generation;
        printf("  generation    %s temperature %g; of requests: top_p %g, top_k %d, "
               "repetition_penalty %g\n",
               g->is_sampled ? "sampled," : "greedy,", (double)g->temperature, (double)g->top_p,
               (int)g->top_k, (double)g->repetition_penalty);
    }
    printf("  fingerprint   %s\n", view->fingerprint);
    if (view->needs_guard) {
        printf("  guard         its card asks for the support guard\n");
    }
    for (int32_t i = 0; i < view->file_count; i++) {
        printf("  %s %10" PRId64 "  " LORE_STR_FMT "\n", i == 0 ? "files " : "      ",
               view->files[i].size_bytes, LORE_STR_ARG(view->files[i].name));
    }
}

static void write_generation(lore_json_writer *w, const lore_generation_defaults *g)
{
    lore_json_object(w, "generation");
    lore_json_boolean(w, "do_sample", g->is_sampled);
    lore_json_float(w, "temperature", (double)g->temperature);
    lore_json_float(w, "top_p", (double)g->top_p);
    lore_json_int(w, "top_k", g->top_k);
    lore_json_float(w, "repetition_penalty", (double)g->repetition_penalty);
    lore_json_end(w);
}

static void write_view(lore_json_writer *w, const model_view *view)
{
    lore_json_object(w, NULL);
    lore_json_string(w, "role", lore_str_from(view->role));
    if (view->problem != NULL) {
        lore_json_string(w, "problem", lore_str_from(view->problem));
    }
    lore_json_string(w, "name", lore_str_from(view->name));
    lore_json_string(w, "folder", lore_str_from(view->folder));
    lore_json_string(w, "architecture", view->architecture);
    lore_json_int(w, "parameters", view->parameters);
    lore_json_int(w, "weight_bytes", view->weight_bytes);
    lore_json_string(w, "dtype", view->dtypes);
    lore_json_int(w, "layers", view->layers);
    lore_json_int(w, "width", view->width);
    lore_json_int(w, "heads", view->heads);
    lore_json_int(w, "kv_heads", view->kv_heads);
    lore_json_int(w, "ffn", view->ffn);
    lore_json_int(w, "context", view->context);
    lore_json_int(w, "vocabulary", view->vocab);
    lore_json_boolean(w, "needs_guard", view->needs_guard);
    lore_json_int(w, "kv_bytes_per_token", kv_bytes_per_token(view));
    lore_json_object(w, "memory_bytes");
    for (int i = 0; i < SIZES_COUNT; i++) {
        lore_json_int(w, SIZES[i], (int64_t)bytes_at(view, SIZES[i]));
    }
    lore_json_end(w);
    if (strcmp(view->role, "decoder") == 0) {
        write_generation(w, &view->generation);
    }
    lore_json_string(w, "fingerprint", lore_str_from(view->fingerprint));
    lore_json_array(w, "files");
    for (int32_t i = 0; i < view->file_count; i++) {
        lore_json_object(w, NULL);
        lore_json_string(w, "name", view->files[i].name);
        lore_json_int(w, "size_bytes", view->files[i].size_bytes);
        lore_json_end(w);
    }
    lore_json_end(w);
    lore_json_end(w);
}

static int print_views(const lore_cli *cli, const model_view *views, int32_t count,
                       void (*print)(const model_view *view))
{
    if (!cli->is_json) {
        for (int32_t i = 0; i < count; i++) {
            fputs(i > 0 && print == print_view ? "\n" : "", stdout);
            print(&views[i]);
        }
        return LORE_EXIT_DONE;
    }
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_array(&w, "models");
    for (int32_t i = 0; i < count; i++) {
        write_view(&w, &views[i]);
    }
    lore_json_end(&w);
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

static int run_info(lore_cli *cli, const char *const *names, int32_t count)
{
    lore_error err;
    const char *own[3];
    lore_backend *backend = NULL;
    const lore_backend_options options = {.kind = LORE_BACKEND_CPU};
    if (count == 0) {
        const char *settings[] = {cli->config.encoder, cli->config.decoder, cli->config.reranker};
        for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
            if (strcmp(settings[i], "none") != 0) {
                own[count++] = settings[i];
            }
        }
        names = own;
    }
    model_view *views = LORE_PUSH(&cli->arena, model_view, (size_t)count + 1);
    lore_status status = views == NULL ? lore_fail(&err, LORE_ERR_NOMEM, "no memory for models")
                                       : lore_backend_open(&options, &backend, &err);
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        const char *folder = lore_cli_model_folder(cli, names[i]);
        status = view_model(cli, folder, backend, &cli->arena, &views[i], &err);
    }
    lore_backend_close(backend);
    return status == LORE_OK ? print_views(cli, views, count, print_view)
                             : lore_cli_fail(cli, &err);
}

/* Folders of data/models, two levels deep, behind those of the configuration. A folder that is no
 * model is listed with its reason, not passed over. */
static lore_status find_folders(lore_cli *cli, const char **folders, int32_t *count,
                                lore_error *err)
{
    lore_str *owners = NULL, *names = NULL;
    size_t owner_count = 0, name_count = 0;
    lore_str root = lore_str_printf(&cli->arena, "%s/models", cli->config.data);
    lore_status status = LORE_OK;
    if (root.ptr == NULL || !lore_file_is_dir(root.ptr)) {
        return LORE_OK;
    }
    status = lore_dir_list(&cli->arena, root.ptr, FILES_MAX, &owners, &owner_count, err);
    for (size_t i = 0; i < owner_count && status == LORE_OK; i++) {
        lore_str owner =
            lore_str_printf(&cli->arena, "%s/" LORE_STR_FMT, root.ptr, LORE_STR_ARG(owners[i]));
        if (owner.ptr == NULL || !lore_file_is_dir(owner.ptr)) {
            continue;
        }
        status = lore_dir_list(&cli->arena, owner.ptr, FILES_MAX, &names, &name_count, err);
        for (size_t k = 0; k < name_count && status == LORE_OK && *count < FOLDERS_MAX; k++) {
            lore_str folder =
                lore_str_printf(&cli->arena, "%s/" LORE_STR_FMT, owner.ptr, LORE_STR_ARG(names[k]));
            bool is_part = lore_str_ends(names[k], LORE_STR(".pull")) ||
                           lore_str_ends(names[k], LORE_STR(".old"));
            if (folder.ptr != NULL && !is_part && lore_file_is_dir(folder.ptr)) {
                folders[(*count)++] = folder.ptr;
            }
        }
    }
    return status;
}

static int run_list(lore_cli *cli)
{
    lore_error err;
    static const char *folders[FOLDERS_MAX];
    const char *settings[] = {cli->config.encoder, cli->config.decoder, cli->config.reranker};
    int32_t count = 0;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (strcmp(settings[i], "none") != 0) {
            folders[count++] = settings[i];
        }
    }
    lore_status status = find_folders(cli, folders, &count, &err);
    model_view *views = LORE_PUSH(&cli->arena, model_view, (size_t)count + 1);
    if (status == LORE_OK && views == NULL) {
        status = lore_fail(&err, LORE_ERR_NOMEM, "no memory for a list of models");
    }
    if (status != LORE_OK) {
        return lore_cli_fail(cli, &err);
    }
    for (int32_t i = 0; i < count; i++) {
        if (view_folder(cli, folders[i], &cli->arena, &views[i], &err) != LORE_OK) {
            views[i].problem = lore_str_to_c(&cli->arena, lore_str_from(err.message));
        }
    }
    return print_views(cli, views, count, print_line);
}

int lore_cmd_models(lore_cli *cli, int argc, char **argv)
{
    lore_flag_list words = {0};
    const char *folder = NULL;
    const lore_flag flags[] = {
        {"dir", 0, LORE_FLAG_TEXT, &folder, "FOLDER", "info: of this model folder", 0, 0},
    };
    if (argc > 1 && strcmp(argv[1], "quantize") == 0) { /* these have flags of their own */
        return lore_cmd_models_quantize(cli, argc, argv);
    }
    if (argc > 1 && strcmp(argv[1], "merge-lora") == 0) {
        return lore_cmd_models_merge(cli, argc, argv);
    }
    if (argc > 1 && strcmp(argv[1], "pull") == 0) {
        return lore_cmd_models_pull(cli, argc, argv);
    }
    int code = lore_cli_parse(cli, flags, 1, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    const char *verb = words.count > 0 ? words.items[0] : "";
    if (strcmp(verb, "list") == 0 && words.count == 1) {
        return run_list(cli);
    }
    if (strcmp(verb, "info") != 0) {
        return lore_cli_misuse(cli,
                               "models list | info [MODEL...] | pull OWNER/NAME | quantize ... | "
                               "merge-lora ...");
    }
    return folder != NULL ? run_info(cli, &folder, 1)
                          : run_info(cli, words.items + 1, words.count - 1);
}
