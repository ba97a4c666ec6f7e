/* The adapters of the configuration: names for folders, and folders full of them. */
#include "api/app_int.h"
#include "base/clock.h"
#include "base/file.h"

#include <string.h>

enum { FOLDER_ENTRIES_MAX = 65536 };

/* The next of "a,b,c", trimmed, or empty at the end. */
static lore_str next_item(lore_str *rest)
{
    lore_str item = {NULL, 0};
    while (item.len == 0 && rest->len > 0) {
        const size_t comma = lore_str_find(*rest, LORE_STR(","), 0);
        const size_t end = comma == SIZE_MAX ? rest->len : comma;
        item = lore_str_trim(lore_str_slice(*rest, 0, end));
        *rest = lore_str_slice(*rest, comma == SIZE_MAX ? end : end + 1, rest->len);
    }
    return item;
}

static lore_str list_of(const char *setting)
{
    return strcmp(setting, "none") == 0 ? (lore_str){NULL, 0} : lore_str_from(setting);
}

static bool is_pinned(const lore_config *config, lore_str name)
{
    lore_str rest = list_of(config->adapters_pinned);
    lore_str item = next_item(&rest);
    while (item.len > 0 && !lore_str_equal(item, name)) {
        item = next_item(&rest);
    }
    return item.len > 0;
}

/* Whoever scans a folder gets those that there are: what is none is passed over, and what is broken
 * shows when somebody asks for it. */
static lore_status scan_folder(const lore_config *config, lore_str folder,
                               lore_app_adapter_found found, void *self, lore_arena *arena,
                               lore_error *err)
{
    lore_str *names = NULL;
    size_t count = 0;
    const char *path = lore_str_to_c(arena, folder);
    if (path == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the adapters");
    }
    lore_status status = lore_dir_list(arena, path, FOLDER_ENTRIES_MAX, &names, &count, err);
    for (size_t i = 0; status == LORE_OK && i < count; i++) {
        lore_str inner = lore_str_printf(arena, "%s/" LORE_STR_FMT, path, LORE_STR_ARG(names[i]));
        lore_str file = lore_str_printf(arena, "%s/" LORE_STR_FMT "/adapter_config.json", path,
                                        LORE_STR_ARG(names[i]));
        if (inner.ptr == NULL || file.ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for the adapters");
        }
        if (lore_file_exists(file.ptr)) {
            const lore_adapter_spec spec = {
                .name = names[i], .folder = inner, .is_pinned = is_pinned(config, names[i])};
            status = found(self, &spec, false, err);
        }
    }
    return status;
}

lore_status lore_app_find_adapters(const lore_config *config, lore_app_adapter_found found,
                                   void *self, lore_arena *arena, lore_error *err)
{
    lore_str rest = list_of(config->adapters);
    lore_status status = LORE_OK;
    for (lore_str item = next_item(&rest); status == LORE_OK && item.len > 0;
         item = next_item(&rest)) {
        const size_t equals = lore_str_find(item, LORE_STR("="), 0);
        if (equals == SIZE_MAX) {
            status = scan_folder(config, item, found, self, arena, err);
            continue;
        }
        lore_str name = lore_str_slice(item, 0, equals);
        const lore_adapter_spec spec = {.name = name,
                                        .folder = lore_str_slice(item, equals + 1, item.len),
                                        .is_pinned = is_pinned(config, name)};
        status = found(self, &spec, true, err);
    }
    return status == LORE_OK ? LORE_OK : lore_error_prefix(err, "adapters");
}

typedef struct opening {
    lore_adapters *adapters;
    bool is_service;
} opening;

/* A service reads the named ones now, so that a mistake is found at the start and not by a
 * customer; who asks one question reads the one that it is about. */
static lore_status open_adapter(void *self, const lore_adapter_spec *spec, bool is_named,
                                lore_error *err)
{
    const opening *o = self;
    const lore_adapter_patience patience = {0};
    if (is_named && o->is_service) {
        return lore_adapters_load(o->adapters, spec, &patience, err);
    }
    lore_status status = lore_adapters_add(o->adapters, spec, err);
    if (status == LORE_ERR_INVALID && !is_named) { /* a name that is not allowed, or taken */
        lore_log(LORE_LOG_WARN, "event=adapter_skipped path=%s reason=%s",
                 LORE_LOG_STR(spec->folder), LORE_LOG_STR(lore_str_from(err->message)));
        return LORE_OK;
    }
    return status;
}

/* A pinned name that no adapter has is a mistake, too. */
static lore_status check_pinned(const lore_app *app, lore_adapters *adapters, lore_error *err)
{
    lore_str rest = list_of(app->config->adapters_pinned);
    lore_status status = LORE_OK;
    for (lore_str item = next_item(&rest); status == LORE_OK && item.len > 0;
         item = next_item(&rest)) {
        status = lore_adapters_find(adapters, item, false, err);
    }
    return status == LORE_OK ? LORE_OK : lore_error_prefix(err, "adapters_pinned");
}

lore_status lore_app_open_adapters(lore_app *app, bool is_service, lore_error *err)
{
    opening o = {.adapters = app->engine != NULL ? lore_engine_adapters(app->engine) : NULL,
                 .is_service = is_service};
    if (o.adapters == NULL) {
        if (list_of(app->config->adapters).len > 0) {
            lore_log(LORE_LOG_WARN, "event=adapters_unused reason=%s",
                     app->engine == NULL ? "no_decoder" : "limits.adapters_max");
        }
        return LORE_OK;
    }
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_status status = lore_app_find_adapters(app->config, open_adapter, &o, &arena, err);
    lore_arena_destroy(&arena);
    return status == LORE_OK && is_service ? check_pinned(app, o.adapters, err) : status;
}
