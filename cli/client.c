/* See client.h. */
#include "cli/client.h"

#include "base/json.h"

#include <curl/curl.h>
#include <signal.h>
#include <string.h>

enum {
    REPLY_BYTES_MAX = 64 * 1024 * 1024,
    CONNECT_MS = 5000,
    SLACK_MS = 5000 /* on top of the server's own deadline, so that its answer arrives */
};

struct lore_client {
    CURL *curl;
    lore_str base; /* copied */
    lore_buf address;
    int64_t timeout_ms;
    char words[CURL_ERROR_SIZE];
};

static size_t receive(char *data, size_t size, size_t count, void *self)
{
    lore_buf *reply = self;
    lore_buf_append(reply, (lore_str){data, size * count});
    return lore_buf_failed(reply) ? 0 : size * count;
}

lore_status lore_client_open(lore_str base, const lore_limits *limits, lore_client **client_out,
                             lore_error *err)
{
    lore_client *client = lore_alloc_zero(1, sizeof *client + base.len + 1);
    if (client == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a connection");
    }
    char *copy = (char *)(client + 1);
    memcpy(copy, base.ptr, base.len);
    client->base = (lore_str){copy, base.len};
    client->timeout_ms = limits->request_timeout_ms + SLACK_MS;
    lore_buf_init(&client->address, 0);
    signal(SIGPIPE, SIG_IGN); /* a server that dies is an error of the call, not the end of us */
    client->curl = curl_easy_init();
    if (client->curl == NULL) {
        lore_client_close(client);
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a connection");
    }
    *client_out = client;
    return LORE_OK;
}

void lore_client_close(lore_client *client)
{
    if (client != NULL) {
        curl_easy_cleanup(client->curl);
        lore_buf_destroy(&client->address);
        lore_free(client);
    }
}

static void set_options(lore_client *client, const char *method, lore_str body,
                        const struct curl_slist *headers, lore_buf *reply)
{
    CURL *curl = client->curl;
    curl_easy_reset(curl); /* keeps the connection */
    curl_easy_setopt(curl, CURLOPT_URL, lore_buf_c(&client->address));
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)client->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, client->words);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, reply);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "lore/" LORE_VERSION);
    if (strcmp(method, "GET") != 0) { /* also where the body is empty: PUT and DELETE say so */
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.len > 0 ? body.ptr : "");
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
}

lore_status lore_client_send(lore_client *client, const char *method, const char *path,
                             const char *content_type, lore_str body, lore_buf *reply,
                             int32_t *http_status, lore_error *err)
{
    char type[128];
    struct curl_slist *headers = NULL;
    lore_buf_destroy(reply);
    lore_buf_init(reply, REPLY_BYTES_MAX);
    lore_buf_reset(&client->address);
    lore_buf_printf(&client->address, LORE_STR_FMT "%s", LORE_STR_ARG(client->base), path);
    snprintf(type, sizeof type, "Content-Type: %s", content_type);
    headers = curl_slist_append(NULL, type);
    if (headers == NULL || lore_buf_failed(&client->address)) {
        curl_slist_free_all(headers);
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a request");
    }
    client->words[0] = '\0';
    set_options(client, method, body, headers, reply);
    CURLcode code = curl_easy_perform(client->curl);
    curl_slist_free_all(headers);
    if (code != CURLE_OK) {
        return lore_fail(err, LORE_ERR_IO, "cannot reach the server at '" LORE_STR_FMT "': %s",
                         LORE_STR_ARG(client->base),
                         client->words[0] ? client->words : curl_easy_strerror(code));
    }
    long status = 0;
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
    *http_status = (int32_t)status;
    return LORE_OK;
}

lore_status lore_client_refusal(const lore_buf *reply, int32_t http_status, lore_error *err)
{
    lore_json *root = NULL;
    lore_error ignored;
    lore_status status = http_status == 404   ? LORE_ERR_NOT_FOUND
                         : http_status == 413 ? LORE_ERR_LIMIT
                         : http_status == 429 ? LORE_ERR_BUSY
                         : http_status < 500  ? LORE_ERR_INVALID
                                              : LORE_ERR_IO;
    if (lore_json_parse(lore_buf_str(reply), 8, &root, &ignored) != LORE_OK) {
        return lore_fail(err, status, "the server answered with status %d", (int)http_status);
    }
    const lore_json *error = lore_json_get(root, "error");
    lore_str message = lore_json_str(lore_json_get(error, "message"));
    lore_str code = lore_json_str(lore_json_get(error, "code"));
    if (http_status == 503 && lore_str_equal(code, LORE_STR("cancelled"))) {
        status = LORE_ERR_CANCELLED; /* any other 503 is about this request alone */
    }
    lore_fail(err, status, LORE_STR_FMT, LORE_STR_ARG(message));
    lore_json_free(root);
    return status;
}

void lore_url_encode(lore_str text, lore_buf *out)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '~';
        if (is_plain) {
            lore_buf_byte(out, (char)c);
        } else {
            lore_buf_printf(out, "%%%02X", c);
        }
    }
}

const char *lore_client_library(void)
{
    return curl_version();
}
