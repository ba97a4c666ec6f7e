/* See hub.h and hub_int.h. One request at a time on one connection; redirects are followed, never
 * from https to http, and the token stays with the host it is for. */
#include "cli/client.h"
#include "cli/hub_int.h"

#include "base/clock.h"

#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    REFUSAL_BYTES_MAX = 4096,
    CONNECT_MS = 10000,
    STALL_SECONDS = 30, /* with less than so many bytes in each: the attempt is over */
    STALL_BYTES = 512,
    LIST_MS = 60000,
    REDIRECTS_MAX = 5,
    FIRST_PAUSE_MS = 250 /* before a retry, doubled each time */
};

struct lore_hub {
    CURL *curl;
    lore_buf address;
    char *endpoint;             /* no slash at its end */
    struct curl_slist *headers; /* the token, or NULL */
    int64_t file_bytes_max;
    char words[CURL_ERROR_SIZE];
};

/* Printable and without spaces: a token read from a file brings its end of line along, and a line
 * break within would be a header of its own. */
static bool is_token(const char *token)
{
    for (const char *c = token; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~') {
            return false;
        }
    }
    return true;
}

lore_status lore_hub_open(const char *endpoint, const char *token, const lore_limits *limits,
                          lore_hub **out, lore_error *err)
{
    size_t len = strlen(endpoint);
    bool is_http = strncmp(endpoint, "http://", 7) == 0 && len > 7;
    bool is_https = strncmp(endpoint, "https://", 8) == 0 && len > 8;
    if (!is_http && !is_https) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "HF_ENDPOINT '%.200s' is no http:// or https:// address", endpoint);
    }
    if (token != NULL && !is_token(token)) { /* which is not shown */
        return lore_fail(err, LORE_ERR_INVALID, "HF_TOKEN must be printable and without spaces");
    }
    while (len > 0 && endpoint[len - 1] == '/') {
        len--;
    }
    lore_hub *hub = lore_alloc_zero(1, sizeof *hub);
    if (hub == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a connection");
    }
    lore_buf_init(&hub->address, 0);
    hub->file_bytes_max = limits->model_file_bytes_max;
    hub->endpoint = lore_alloc(len + 1);
    hub->curl = curl_easy_init();
    bool is_made = hub->endpoint != NULL && hub->curl != NULL;
    if (is_made && token != NULL && token[0] != '\0') {
        lore_buf line;
        lore_buf_init(&line, 0);
        lore_buf_printf(&line, "Authorization: Bearer %s", token);
        hub->headers = curl_slist_append(NULL, lore_buf_c(&line));
        is_made = hub->headers != NULL && !lore_buf_failed(&line);
        lore_buf_destroy(&line);
    }
    if (!is_made) {
        lore_hub_close(hub);
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a connection");
    }
    memcpy(hub->endpoint, endpoint, len);
    hub->endpoint[len] = '\0';
    signal(SIGPIPE, SIG_IGN);
    *out = hub;
    return LORE_OK;
}

void lore_hub_close(lore_hub *hub)
{
    if (hub != NULL) {
        curl_easy_cleanup(hub->curl);
        curl_slist_free_all(hub->headers);
        lore_buf_destroy(&hub->address);
        lore_free(hub->endpoint);
        lore_free(hub);
    }
}

const char *lore_hub_endpoint(const lore_hub *hub)
{
    return hub->endpoint;
}

int64_t lore_hub_file_bytes_max(const lore_hub *hub)
{
    return hub->file_bytes_max;
}

lore_buf *lore_hub_address(lore_hub *hub)
{
    lore_buf_reset(&hub->address);
    return &hub->address;
}

void lore_hub_append_path(lore_buf *to, lore_str path)
{
    size_t start = 0;
    for (size_t i = 0; i <= path.len; i++) { /* slashes stay */
        if (i == path.len || path.ptr[i] == '/') {
            lore_url_encode(lore_str_slice(path, start, i), to);
            if (i < path.len) {
                lore_buf_byte(to, '/');
            }
            start = i + 1;
        }
    }
}

/* ---- one request ---- */

static bool write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        data += n;
        size -= (size_t)n;
    }
    return true;
}

bool lore_transfer_restart(lore_transfer *t)
{
    t->done = 0;
    lore_sha256_init(&t->sha);
    return lseek(t->fd, 0, SEEK_SET) == 0 && ftruncate(t->fd, 0) == 0;
}

/* The first bytes of a file: behind those that are there if the server goes on there, else at the
 * beginning. */
static bool place(lore_transfer *t, long status)
{
    if (status == 206) {
        t->is_misplaced = t->range_start != t->done;
        return !t->is_misplaced;
    }
    if (t->done > 0) {
        if (!lore_transfer_restart(t)) {
            t->write_errno = errno;
            return false;
        }
    }
    return true;
}

static size_t receive(char *data, size_t size, size_t count, void *self)
{
    lore_transfer *t = self;
    size_t bytes = size * count;
    long status = 0;
    curl_easy_getinfo(t->hub->curl, CURLINFO_RESPONSE_CODE, &status);
    if (t->fd < 0 || status < 200 || status > 299) {
        size_t cap = t->fd < 0 ? SIZE_MAX : REFUSAL_BYTES_MAX;
        size_t room = t->text->len < cap ? cap - t->text->len : 0;
        lore_buf_append(t->text, (lore_str){data, bytes < room ? bytes : room});
        return lore_buf_failed(t->text) ? 0 : bytes;
    }
    if (!t->has_begun && !place(t, status)) {
        return 0;
    }
    t->has_begun = true;
    int64_t max = t->expected >= 0 ? t->expected : t->hub->file_bytes_max;
    if ((int64_t)bytes > max - t->done) {
        t->is_too_long = true;
        return 0;
    }
    if (!write_all(t->fd, data, bytes)) {
        t->write_errno = errno;
        return 0;
    }
    lore_sha256_update(&t->sha, (lore_str){data, bytes});
    t->done += (int64_t)bytes;
    return bytes;
}

static size_t read_header(char *data, size_t size, size_t count, void *self)
{
    lore_transfer *t = self;
    char line[128];
    size_t bytes = size * count;
    long long start = -1;
    snprintf(line, sizeof line, "%.*s", (int)(bytes < 100 ? bytes : 100), data);
    if (strncmp(line, "HTTP/", 5) == 0) {
        t->range_start = -1; /* of the answer behind a redirect, not of the redirect */
    } else if (strncasecmp(line, "content-range:", 14) == 0 &&
               sscanf(line + 14, " bytes %lld-", &start) == 1) {
        t->range_start = start;
    }
    return bytes;
}

static int tell(void *self, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                curl_off_t up)
{
    lore_transfer *t = self;
    (void)down_total, (void)down, (void)up_total, (void)up;
    t->is_cancelled = t->progress != NULL && t->progress(t->self, t->done, t->expected);
    return t->is_cancelled;
}

static void set_limits(CURL *curl, const char *endpoint, bool is_list)
{
    const char *schemes = strncmp(endpoint, "https", 5) == 0 ? "https" : "http,https";
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, schemes);
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, schemes);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, is_list ? (long)LIST_MS : 0L);
}

const char *lore_transfer_run(lore_transfer *t, int32_t *http_status)
{
    lore_hub *hub = t->hub;
    CURL *curl = hub->curl;
    char range[32];
    curl_easy_reset(curl); /* keeps the connection */
    curl_easy_setopt(curl, CURLOPT_URL, lore_buf_c(&hub->address));
    set_limits(curl, hub->endpoint, t->fd < 0);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, hub->words);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, read_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, tell);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, hub->headers); /* curl keeps it from other hosts */
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "lore/" LORE_VERSION);
    if (t->done > 0) {
        snprintf(range, sizeof range, "%lld-", (long long)t->done);
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
    }
    hub->words[0] = '\0';
    t->has_begun = t->is_too_long = t->is_cancelled = t->is_misplaced = false;
    t->write_errno = 0;
    CURLcode code = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    *http_status = (int32_t)status;
    if (code == CURLE_OK) {
        return NULL;
    }
    return hub->words[0] ? hub->words : curl_easy_strerror(code);
}

/* A status that no further attempt will change. what: the repository or the file, for people. */
lore_status lore_hub_refuse(int32_t http_status, lore_str what, lore_error *err)
{
    if (http_status == 401 || http_status == 403) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "the hub gives no access to '" LORE_STR_FMT
                         "' (status %d): set HF_TOKEN to a token that may read it",
                         LORE_STR_ARG(what), (int)http_status);
    }
    if (http_status == 404) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "the hub has no '" LORE_STR_FMT "'",
                         LORE_STR_ARG(what));
    }
    return lore_fail(err, LORE_ERR_IO, "the hub answered '" LORE_STR_FMT "' with status %d",
                     LORE_STR_ARG(what), (int)http_status);
}

bool lore_hub_is_passing(int32_t http_status)
{
    return http_status == 408 || http_status == 429 || http_status >= 500;
}

/* Wait before the next attempt; true: cancelled meanwhile. */
bool lore_transfer_pause(const lore_transfer *t, int32_t failures)
{
    int64_t end = lore_clock_ns() + ((int64_t)FIRST_PAUSE_MS << failures) * 1000000;
    while (lore_clock_ns() < end) {
        if (t->progress != NULL && t->progress(t->self, t->done, t->expected)) {
            return true;
        }
        usleep(50000);
    }
    return false;
}

lore_status lore_hub_cancelled(lore_str what, lore_error *err)
{
    return lore_fail(err, LORE_ERR_CANCELLED, "interrupted while fetching '" LORE_STR_FMT "'",
                     LORE_STR_ARG(what));
}
