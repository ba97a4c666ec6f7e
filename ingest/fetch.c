/* Bytes from the web: the fence around libcurl. What a URL is, and requests that run side by side.
 *
 * Each request is one exchange: redirects are not followed here, because every hop has to be asked
 * about anew (robots.txt, scheme, address). Whether an address may be talked to is decided when the
 * socket for it is made, after the name was resolved: what a name led to before, or leads to next,
 * does not matter. Behind a proxy that is the proxy's address, which the user named; there the host
 * itself can only be judged by its text. No cookies, no passwords, no .netrc: there is nothing that
 * a redirect could carry off. */
#include "ingest/web_int.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    URL_BYTES_MAX = 8192,
    CONNECT_MS = 15000,
    STALL_BYTES = 64, /* fewer a second, for STALL_SECONDS: it hangs */
    STALL_SECONDS = 20,
    HOST_CONNECTIONS_MAX = 2, /* to one host, which is somebody's */
    REFUSAL_BYTES_MAX = 256 * 1024
};

#define USER_AGENT "lore/" LORE_VERSION " (reads documents for search; robots.txt: lore)"

/* ---- URLs ---- */

static lore_status fail_url(lore_str reference, const char *why, lore_error *err)
{
    return lore_fail(err, LORE_ERR_INVALID, "'" LORE_STR_FMT "' %s", LORE_STR_ARG(reference), why);
}

/* A part in the arena; "" where there is none; ptr NULL: out of memory. */
static lore_str url_part(CURLU *handle, CURLUPart part, unsigned flags, lore_arena *arena)
{
    char *text = NULL;
    CURLUcode code = curl_url_get(handle, part, &text, flags);
    lore_str copy = {"", 0};
    if (code == CURLUE_OK) {
        copy = lore_str_copy(arena, lore_str_from(text));
    } else if (code == CURLUE_OUT_OF_MEMORY) {
        copy.ptr = NULL;
    }
    curl_free(text);
    return copy;
}

static bool set_lower_host(CURLU *handle, lore_str host)
{
    for (size_t i = 0; i < host.len; i++) {
        char *c = (char *)host.ptr + i; /* ours: url_part made it */
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + ('a' - 'A') : *c);
    }
    return curl_url_set(handle, CURLUPART_HOST, host.ptr, 0) == CURLUE_OK;
}

/* Take the URL apart that the handle holds. */
static lore_status read_url(CURLU *handle, lore_str reference, lore_arena *arena, lore_url *url,
                            lore_error *err)
{
    (void)curl_url_set(handle, CURLUPART_FRAGMENT, NULL, 0); /* a place in the page */
    lore_str user = url_part(handle, CURLUPART_USER, 0, arena);
    lore_str password = url_part(handle, CURLUPART_PASSWORD, 0, arena);
    url->scheme = url_part(handle, CURLUPART_SCHEME, 0, arena);
    url->host = url_part(handle, CURLUPART_HOST, 0, arena);
    if (user.ptr == NULL || password.ptr == NULL || url->scheme.ptr == NULL ||
        url->host.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a URL");
    }
    if (user.len > 0 || password.len > 0) {
        return fail_url(LORE_STR("the URL"), "carries a name or a password", err);
    }
    bool is_web = lore_str_equal(url->scheme, LORE_STR("http")) ||
                  lore_str_equal(url->scheme, LORE_STR("https"));
    if (!is_web || url->host.len == 0 || !set_lower_host(handle, url->host)) {
        return fail_url(reference, "is no URL of http or https", err);
    }
    lore_str text = url_part(handle, CURLUPART_URL, CURLU_NO_DEFAULT_PORT, arena);
    lore_str port = url_part(handle, CURLUPART_PORT, CURLU_NO_DEFAULT_PORT, arena);
    lore_str path = url_part(handle, CURLUPART_PATH, 0, arena);
    lore_str query = url_part(handle, CURLUPART_QUERY, 0, arena);
    url->path = lore_str_printf(arena, LORE_STR_FMT "%s" LORE_STR_FMT, LORE_STR_ARG(path),
                                query.len > 0 ? "?" : "", LORE_STR_ARG(query));
    url->origin = lore_str_printf(arena, LORE_STR_FMT "://" LORE_STR_FMT "%s" LORE_STR_FMT,
                                  LORE_STR_ARG(url->scheme), LORE_STR_ARG(url->host),
                                  port.len > 0 ? ":" : "", LORE_STR_ARG(port));
    url->text = text.ptr;
    return text.ptr != NULL && path.ptr != NULL && query.ptr != NULL && url->path.ptr != NULL &&
                   url->origin.ptr != NULL
               ? LORE_OK
               : lore_fail(err, LORE_ERR_NOMEM, "out of memory for a URL");
}

lore_status lore_url_resolve(lore_str base, lore_str reference, lore_arena *arena, lore_url *url,
                             lore_error *err)
{
    const unsigned flags = CURLU_URLENCODE | CURLU_ALLOW_SPACE | CURLU_NON_SUPPORT_SCHEME;
    reference = lore_str_trim(reference);
    if (base.len + reference.len > URL_BYTES_MAX) {
        return fail_url(lore_str_slice(reference, 0, reference.len < 100 ? reference.len : 100),
                        "... is longer than 8192 bytes", err);
    }
    for (size_t i = 0; i < reference.len; i++) {
        if ((unsigned char)reference.ptr[i] < 0x20 || reference.ptr[i] == 0x7F) {
            return fail_url(LORE_STR("the URL"), "holds control characters", err);
        }
    }
    CURLU *handle = curl_url();
    char *base_text = lore_str_to_c(arena, base), *text = lore_str_to_c(arena, reference);
    if (handle == NULL || base_text == NULL || text == NULL) {
        curl_url_cleanup(handle);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a URL");
    }
    CURLUcode code =
        base.len > 0 ? curl_url_set(handle, CURLUPART_URL, base_text, flags) : CURLUE_OK;
    code = code == CURLUE_OK ? curl_url_set(handle, CURLUPART_URL, text, flags) : code;
    lore_status status =
        code == CURLUE_OUT_OF_MEMORY ? lore_fail(err, LORE_ERR_NOMEM, "out of memory for a URL")
        : code != CURLUE_OK          ? fail_url(reference, "is no URL of http or https", err)
                                     : read_url(handle, reference, arena, url, err);
    curl_url_cleanup(handle);
    return status;
}

/* ---- one request ---- */

struct lore_fetcher {
    CURLM *multi;
    lore_limits limits;
    bool may_be_private;
};

static void name_address(const struct sockaddr *address, char *out, socklen_t cap)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    out[0] = '\0';
    if (address->sa_family == AF_INET) {
        memcpy(&v4, address, sizeof v4);
        (void)inet_ntop(AF_INET, &v4.sin_addr, out, cap);
    } else if (address->sa_family == AF_INET6) {
        memcpy(&v6, address, sizeof v6);
        (void)inet_ntop(AF_INET6, &v6.sin6_addr, out, cap);
    }
}

static curl_socket_t open_socket(void *self, curlsocktype purpose, struct curl_sockaddr *address)
{
    lore_get *get = self;
    (void)purpose;
    const char *kind =
        get->is_proxied || get->fetcher->may_be_private ? NULL : lore_address_kind(&address->addr);
    if (kind != NULL) {
        get->refused = kind;
        name_address(&address->addr, get->address, sizeof get->address);
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t receive(char *data, size_t size, size_t count, void *self)
{
    lore_get *get = self;
    size_t bytes = size * count;
    long status = 0;
    curl_easy_getinfo(get->handle, CURLINFO_RESPONSE_CODE, &status);
    size_t max = status == 200 ? get->bytes_max : REFUSAL_BYTES_MAX;
    size_t room = max - get->body.len;
    lore_buf_append(&get->body, (lore_str){data, bytes < room ? bytes : room});
    get->is_too_long = bytes > room;
    return get->is_too_long || lore_buf_failed(&get->body) ? 0 : bytes;
}

static const char *environment(const char *name)
{
    return getenv(name);
}

/* The proxy that the environment means, or none; false: no memory. */
static bool set_proxy(lore_get *get)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_str proxy = lore_proxy_of(get->scheme, get->host, environment);
    char *text = lore_str_to_c(&arena, proxy);
    get->is_proxied = proxy.len > 0;
    bool is_set = text != NULL && curl_easy_setopt(get->handle, CURLOPT_PROXY, text) == CURLE_OK &&
                  curl_easy_setopt(get->handle, CURLOPT_NOPROXY, "") == CURLE_OK;
    lore_arena_destroy(&arena);
    return is_set;
}

static bool add_header(lore_get *get, const char *name, lore_str value)
{
    if (value.len == 0) {
        return true;
    }
    lore_buf line;
    lore_buf_init(&line, 0);
    lore_buf_printf(&line, "%s: " LORE_STR_FMT, name, LORE_STR_ARG(value));
    struct curl_slist *grown =
        lore_buf_failed(&line) ? NULL : curl_slist_append(get->headers, lore_buf_c(&line));
    lore_buf_destroy(&line);
    get->headers = grown == NULL ? get->headers : grown;
    return grown != NULL;
}

static bool set_options(lore_fetcher *fetcher, lore_get *get)
{
    CURL *curl = get->handle;
    curl_easy_setopt(curl, CURLOPT_PRIVATE, get);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)fetcher->limits.fetch_timeout_ms);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, get->words);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, get);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, get);
    if (!get->is_cut) {
        curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)get->bytes_max);
    }
    return curl_easy_setopt(curl, CURLOPT_URL, get->url) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, "gzip, deflate") == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_USERAGENT, USER_AGENT) == CURLE_OK && set_proxy(get) &&
           add_header(get, "If-None-Match", get->etag) &&
           add_header(get, "If-Modified-Since", get->modified) &&
           curl_easy_setopt(curl, CURLOPT_HTTPHEADER, get->headers) == CURLE_OK;
}

static lore_status fail_private(lore_get *get, const char *kind, lore_error *err)
{
    return lore_fail(err, LORE_ERR_INVALID,
                     "'" LORE_STR_FMT "' leads to the %s address %s (fetch_private_addresses)",
                     LORE_STR_ARG(get->host), kind, get->address);
}

lore_status lore_fetcher_begin(lore_fetcher *fetcher, lore_get *get, lore_error *err)
{
    get->fetcher = fetcher;
    get->handle = curl_easy_init();
    lore_buf_init(&get->body, 0);
    lore_buf_init(&get->location, 0);
    if (get->handle == NULL || !set_options(fetcher, get)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a request");
    }
    const char *kind =
        get->is_proxied && !fetcher->may_be_private ? lore_host_kind(get->host) : NULL;
    if (kind != NULL) {
        snprintf(get->address, sizeof get->address, LORE_STR_FMT, LORE_STR_ARG(get->host));
        return fail_private(get, kind, err);
    }
    if (curl_multi_add_handle(fetcher->multi, get->handle) != CURLM_OK) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a request");
    }
    return LORE_OK;
}

/* A header of the last answer, "" where there is none, or one longer than anybody needs. */
static void read_header(lore_get *get, const char *name, char *out, size_t cap)
{
    struct curl_header *header = NULL;
    out[0] = '\0';
    if (curl_easy_header(get->handle, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK &&
        strlen(header->value) < cap) {
        memcpy(out, header->value, strlen(header->value) + 1);
    }
}

static lore_status judge(lore_get *get, CURLcode code, lore_error *err)
{
    bool is_page = get->http_status == 200;
    if (get->is_too_long && (get->is_cut || !is_page)) {
        return LORE_OK; /* the beginning is enough */
    }
    if (get->is_too_long || code == CURLE_FILESIZE_EXCEEDED) {
        return lore_fail(err, LORE_ERR_LIMIT, "has more than %zu bytes (limits.file_bytes_max)",
                         get->bytes_max);
    }
    if (code == CURLE_OUT_OF_MEMORY || lore_buf_failed(&get->body)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a page");
    }
    if (code != CURLE_OK && get->refused != NULL) {
        return fail_private(get, get->refused, err);
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        return lore_fail(err, LORE_ERR_TIMEOUT, "%s (limits.fetch_timeout_ms)",
                         get->words[0] ? get->words : "timed out");
    }
    return code == CURLE_OK ? LORE_OK
                            : lore_fail(err, LORE_ERR_IO, "cannot be fetched: %s",
                                        get->words[0] ? get->words : curl_easy_strerror(code));
}

static void finish(lore_get *get, CURLcode code)
{
    long status = 0;
    curl_off_t seconds = 0;
    struct curl_header *header = NULL;
    curl_easy_getinfo(get->handle, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(get->handle, CURLINFO_RETRY_AFTER, &seconds);
    get->http_status = (int32_t)status;
    get->retry_ms = (int64_t)(seconds < 86400 ? seconds : 86400) * 1000;
    read_header(get, "Content-Type", get->type, sizeof get->type);
    read_header(get, "ETag", get->new_etag, sizeof get->new_etag);
    read_header(get, "Last-Modified", get->new_modified, sizeof get->new_modified);
    if (curl_easy_header(get->handle, "Location", 0, CURLH_HEADER, -1, &header) == CURLHE_OK) {
        lore_buf_append(&get->location, lore_str_from(header->value));
    }
    get->status = judge(get, code, &get->error);
    get->is_cut = get->is_too_long;
}

void lore_get_destroy(lore_get *get)
{
    curl_easy_cleanup(get->handle);
    curl_slist_free_all(get->headers);
    lore_buf_destroy(&get->body);
    lore_buf_destroy(&get->location);
    get->handle = get->headers = NULL;
}

/* ---- all of them ---- */

lore_status lore_fetcher_open(const lore_limits *limits, bool may_be_private,
                              lore_fetcher **fetcher, lore_error *err)
{
    lore_fetcher *opened = lore_alloc_zero(1, sizeof *opened);
    CURLM *multi = opened == NULL ? NULL : curl_multi_init();
    if (multi == NULL) {
        lore_free(opened);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for connections");
    }
    opened->multi = multi;
    opened->limits = *limits;
    opened->may_be_private = may_be_private;
    curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)HOST_CONNECTIONS_MAX);
    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)limits->fetch_connections_max);
    *fetcher = opened;
    return LORE_OK;
}

void lore_fetcher_close(lore_fetcher *fetcher)
{
    if (fetcher != NULL) {
        curl_multi_cleanup(fetcher->multi);
        lore_free(fetcher);
    }
}

void lore_fetcher_wait(lore_fetcher *fetcher, int32_t timeout_ms)
{
    int running = 0;
    (void)curl_multi_perform(fetcher->multi, &running); /* failures come with the requests */
    (void)curl_multi_poll(fetcher->multi, NULL, 0, timeout_ms, NULL);
    (void)curl_multi_perform(fetcher->multi, &running);
}

void lore_fetcher_wake(lore_fetcher *fetcher)
{
    (void)curl_multi_wakeup(fetcher->multi);
}

lore_get *lore_fetcher_take(lore_fetcher *fetcher)
{
    int left = 0;
    for (CURLMsg *message = curl_multi_info_read(fetcher->multi, &left); message != NULL;
         message = curl_multi_info_read(fetcher->multi, &left)) {
        if (message->msg == CURLMSG_DONE) {
            void *self = NULL;
            CURLcode code = message->data.result;
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &self);
            lore_get *get = self;
            finish(get, code);
            (void)curl_multi_remove_handle(fetcher->multi, get->handle);
            return get;
        }
    }
    return NULL;
}

void lore_fetcher_drop(lore_fetcher *fetcher, lore_get *get)
{
    (void)curl_multi_remove_handle(fetcher->multi, get->handle);
}
