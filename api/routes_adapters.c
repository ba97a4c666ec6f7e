/* GET /v1/adapters, and loading and unloading as vLLM has it: the same paths, fields and words, so
 * that its clients and operators find what they know. */
#include "api/routes_int.h"
#include "base/json.h"

static lore_status find_adapters(const lore_service *service, lore_adapters **adapters,
                                 lore_error *err)
{
    lore_engine *engine = service->app->engine;
    *adapters = engine != NULL ? lore_engine_adapters(engine) : NULL;
    if (*adapters != NULL) {
        return LORE_OK;
    }
    return lore_fail(err, LORE_ERR_UNSUPPORTED, "there are no adapters here: %s",
                     engine == NULL ? "no decoder is loaded" : "limits.adapters_max is 0");
}

/* ---- the list ---- */

static void write_adapter(lore_json_writer *w, const lore_adapter_view *view)
{
    lore_json_object(w, NULL);
    lore_json_string(w, "id", view->name);
    lore_json_string(w, "object", LORE_STR("lore.adapter"));
    lore_json_string(w, "path", view->folder);
    lore_json_string(w, "state", lore_str_from(lore_adapter_state_name(view->state)));
    lore_json_boolean(w, "pinned", view->is_pinned);
    lore_json_boolean(w, "leaving", view->is_leaving);
    lore_json_int(w, "requests", view->requests);
    lore_json_int(w, "serial", (int64_t)view->serial);
    lore_json_int(w, "size_bytes", (int64_t)view->info.size_bytes);
    lore_json_int(w, "rank", view->info.rank_max);
    lore_json_int(w, "modules", view->info.modules);
    if (view->used_ms > 0) {
        lore_json_int(w, "last_used", view->used_ms / 1000);
    } else {
        lore_json_null(w, "last_used");
    }
    if (view->error.len > 0) {
        lore_json_string(w, "error", view->error);
    } else {
        lore_json_null(w, "error");
    }
    lore_json_end(w);
}

void lore_routes_write_adapters(const lore_adapter_view *list, int32_t count,
                                const lore_adapters_stats *stats, lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("list"));
    lore_json_array(&w, "data");
    for (int32_t i = 0; i < count; i++) {
        write_adapter(&w, &list[i]);
    }
    lore_json_end(&w);
    lore_json_int(&w, "device_bytes", stats->device_bytes);
    lore_json_int(&w, "device_bytes_max", stats->device_bytes_max);
    lore_json_int(&w, "host_bytes", stats->host_bytes);
    lore_json_int(&w, "host_bytes_max", stats->host_bytes_max);
    lore_json_end(&w);
}

lore_status lore_route_get_adapters(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err)
{
    lore_adapters *adapters = NULL;
    lore_adapter_view *list = NULL;
    lore_adapters_stats stats = {0};
    int32_t count = 0;
    lore_status status = LORE_OK;
    if (find_adapters(service, &adapters, NULL) == LORE_OK) { /* else there are none to list */
        lore_adapters_get_stats(adapters, &stats);
        status = lore_adapters_list(adapters, request->arena, &list, &count, err);
    }
    if (status == LORE_OK) {
        lore_routes_write_adapters(list, count, &stats, &reply->body);
    }
    return status;
}

/* ---- loading and unloading ---- */

static lore_status parse_body(const lore_service *service, const lore_http_request *request,
                              lore_json **root, lore_error *err)
{
    lore_status status = lore_json_parse(
        request->body, (int32_t)service->app->config->limits.json_depth_max, root, err);
    if (status != LORE_OK) {
        if (status != LORE_ERR_NOMEM) {
            lore_error reason = *err;
            status = lore_fail(err, LORE_ERR_INVALID, "body: %s", reason.message);
        }
        return status;
    }
    if (!lore_json_is_object(*root)) {
        lore_json_free(*root);
        return lore_fail(err, LORE_ERR_INVALID, "body must be a JSON object");
    }
    return LORE_OK;
}

static lore_adapter_patience patience_of(lore_http_request *request)
{
    return (lore_adapter_patience){
        .deadline_ns = request->deadline_ns, .is_gone = lore_http_is_gone, .self = request};
}

static lore_status parse_spec(const lore_json *root, lore_adapter_spec *spec, lore_error *err)
{
    lore_status status = lore_json_get_str_required(root, "", "lora_name", &spec->name, err);
    if (status == LORE_OK) {
        status = lore_json_get_str_required(root, "", "lora_path", &spec->folder, err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(root, "", "load_inplace", &spec->is_replacing, err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(root, "", "pinned", &spec->is_pinned, err);
    }
    return status;
}

/* A folder that is no adapter for this decoder is the client's mistake, not a failure of ours. */
static lore_status blame_client(lore_status status, lore_error *err)
{
    if (status == LORE_ERR_CORRUPT || status == LORE_ERR_UNSUPPORTED) {
        const lore_error reason = *err;
        return lore_fail(err, LORE_ERR_INVALID, "%s", reason.message);
    }
    return status;
}

static void reply_success(lore_http_reply *reply, lore_str name, const char *what)
{
    reply->content_type = "text/plain; charset=utf-8";
    lore_buf_printf(&reply->body, "Success: LoRA adapter '" LORE_STR_FMT "' %s successfully.",
                    LORE_STR_ARG(name), what);
}

lore_status lore_route_load_adapter(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err)
{
    lore_adapters *adapters = NULL;
    lore_adapter_spec spec = {0};
    lore_json *root = NULL;
    const lore_adapter_patience patience = patience_of(request);
    lore_status status = find_adapters(service, &adapters, err);
    if (status == LORE_OK) {
        status = parse_body(service, request, &root, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    status = parse_spec(root, &spec, err);
    if (status == LORE_OK) {
        status = blame_client(lore_adapters_load(adapters, &spec, &patience, err), err);
    }
    if (status == LORE_OK) {
        reply_success(reply, spec.name, "added");
    }
    lore_json_free(root);
    return status;
}

lore_status lore_route_unload_adapter(lore_service *service, lore_http_request *request,
                                      lore_http_reply *reply, lore_error *err)
{
    lore_adapters *adapters = NULL;
    lore_str name = {NULL, 0};
    lore_json *root = NULL;
    const lore_adapter_patience patience = patience_of(request);
    lore_status status = find_adapters(service, &adapters, err);
    if (status == LORE_OK) {
        status = parse_body(service, request, &root, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    status = lore_json_get_str_required(root, "", "lora_name", &name, err);
    if (status == LORE_OK) {
        status = lore_adapters_remove(adapters, name, &patience, err);
    }
    if (status == LORE_OK) {
        reply_success(reply, name, "removed");
    }
    lore_json_free(root);
    return status;
}
