/* One file of the hub. A fetch is a loop of attempts: each asks for the bytes behind those that are
 * there, and appends what comes to the ".part" file while it is hashed. An attempt that brought
 * bytes is worth another one; several in a row without any are the end. */
#include "cli/hub_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 16 };

static lore_status fail_part(const char *path, const char *doing, int number, lore_error *err)
{
    return lore_fail(err, LORE_ERR_IO, "cannot %s '%s.part': %s", doing, path, strerror(number));
}

static lore_status restart(lore_transfer *t, const char *path, lore_error *err)
{
    return lore_transfer_restart(t) ? LORE_OK : fail_part(path, "empty", errno, err);
}

/* Hash what an earlier call left, and stand behind it. More than the file has is no beginning of
 * it. */
static lore_status take_up(lore_transfer *t, const char *path, lore_error *err)
{
    static char block[BLOCK_BYTES];
    t->done = 0;
    lore_sha256_init(&t->sha);
    for (ssize_t n; (n = read(t->fd, block, sizeof block)) != 0;) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_part(path, "read", errno, err);
        }
        lore_sha256_update(&t->sha, (lore_str){block, (size_t)n});
        t->done += n;
    }
    return t->expected < 0 || t->done <= t->expected ? LORE_OK : restart(t, path, err);
}

static bool is_right(const lore_transfer *t, const lore_hub_file *file)
{
    uint8_t digest[32];
    char hex[65];
    lore_sha256 sha = t->sha;
    lore_sha256_final(&sha, digest);
    lore_sha256_hex(digest, hex);
    return file->sha256.len == 0 || lore_str_equal(file->sha256, lore_str_from(hex));
}

/* One attempt. LORE_OK: all bytes are there, LORE_ERR_BUSY: try again. err says what happened. */
static lore_status attempt(lore_transfer *t, const lore_hub_file *file, const char *path,
                           lore_error *err)
{
    int32_t http = 0;
    lore_buf_reset(t->text);
    const char *problem = lore_transfer_run(t, &http);
    if (t->is_cancelled) {
        return lore_hub_cancelled(file->name, err);
    }
    if (t->write_errno != 0) {
        return fail_part(path, "write", t->write_errno, err);
    }
    if (t->is_too_long) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "'" LORE_STR_FMT "' is longer than the hub's list says (%lld bytes)",
                         LORE_STR_ARG(file->name), (long long)t->expected);
    }
    if (problem == NULL && ((http == 416 && t->expected < 0) || (http == 200 && !t->has_begun))) {
        t->is_misplaced = t->done > 0; /* what is there is not the beginning of what the hub has */
    }
    if (problem == NULL && http != 200 && http != 206 && http != 416) {
        (void)lore_hub_refuse(http, file->name, err);
        return lore_hub_is_passing(http) ? LORE_ERR_BUSY : err->status;
    }
    bool is_whole = problem == NULL && http != 416 && !t->is_misplaced &&
                    (t->expected < 0 || t->done == t->expected);
    if (is_whole) {
        return LORE_OK;
    }
    lore_fail(err, LORE_ERR_IO, "'" LORE_STR_FMT "' ended after %lld of %lld bytes%s%s",
              LORE_STR_ARG(file->name), (long long)t->done, (long long)t->expected,
              problem != NULL ? ": " : "", problem != NULL ? problem : "");
    return LORE_ERR_BUSY;
}

static lore_status fetch_all(lore_transfer *t, const lore_hub_file *file, const char *path,
                             lore_error *err)
{
    int32_t failures = 0, wrong_sums = 0;
    int64_t best = t->done; /* only more than ever is progress */
    for (;;) {
        bool is_there = t->expected >= 0 && t->done == t->expected;
        lore_status status = is_there ? LORE_OK : attempt(t, file, path, err);
        if (status == LORE_OK && is_right(t, file)) {
            return LORE_OK;
        }
        if (status == LORE_OK) {
            lore_fail(err, LORE_ERR_CORRUPT,
                      "'" LORE_STR_FMT "' does not have the SHA-256 of the hub's list",
                      LORE_STR_ARG(file->name));
            if (++wrong_sums == 2 || !lore_transfer_restart(t)) {
                return LORE_ERR_CORRUPT;
            }
            continue;
        }
        if (status != LORE_ERR_BUSY) {
            return status;
        }
        failures = t->done > best ? 0 : failures + 1;
        best = t->done > best ? t->done : best;
        if (t->is_misplaced && restart(t, path, err) != LORE_OK) {
            return err->status;
        }
        if (failures == LORE_HUB_RETRIES) {
            return err->status;
        }
        if (lore_transfer_pause(t, failures)) {
            return lore_hub_cancelled(file->name, err);
        }
    }
}

lore_status lore_hub_fetch(lore_hub *hub, lore_str repository, lore_str commit,
                           const lore_hub_file *file, const char *path, lore_hub_progress progress,
                           void *self, lore_error *err)
{
    lore_buf text, part, *address = lore_hub_address(hub);
    lore_transfer t = {.hub = hub,
                       .text = &text,
                       .expected = file->size_bytes,
                       .progress = progress,
                       .self = self};
    if (file->size_bytes > lore_hub_file_bytes_max(hub)) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "'" LORE_STR_FMT "' has %lld bytes, over limits.model_file_bytes_max",
                         LORE_STR_ARG(file->name), (long long)file->size_bytes);
    }
    lore_buf_init(&text, 0);
    lore_buf_init(&part, 0);
    lore_buf_printf(&part, "%s.part", path);
    lore_buf_printf(address, "%s/", lore_hub_endpoint(hub));
    lore_hub_append_path(address, repository);
    lore_buf_printf(address, "/resolve/" LORE_STR_FMT "/", LORE_STR_ARG(commit));
    lore_hub_append_path(address, file->name);
    lore_status status = LORE_OK;
    if (lore_buf_failed(&part) || lore_buf_failed(address)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for an address");
    }
    t.fd = status == LORE_OK ? open(lore_buf_c(&part), O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (status == LORE_OK && t.fd < 0) {
        status = fail_part(path, "open", errno, err);
    }
    if (status == LORE_OK) {
        status = take_up(&t, path, err);
    }
    if (status == LORE_OK) {
        status = fetch_all(&t, file, path, err);
    }
    if (status == LORE_OK && (fsync(t.fd) != 0 || rename(lore_buf_c(&part), path) != 0)) {
        status = fail_part(path, "keep", errno, err);
    }
    if (t.fd >= 0) {
        close(t.fd);
    }
    if (status == LORE_ERR_CORRUPT) {
        unlink(lore_buf_c(&part)); /* no beginning of the right file */
    }
    lore_buf_destroy(&text);
    lore_buf_destroy(&part);
    return status;
}
