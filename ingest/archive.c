/* ZIP, tar, and files compressed by gzip, bzip2 or xz: the fence around libarchive.
 *
 * Only these are enabled, so the library's other readers never see a stranger's byte. A compressed
 * file that is no tar is an archive of one member. What is compressed twice is refused: between two
 * layers nothing counts how much comes out. Members
 * are read from memory and never written anywhere: names are labels, so one that climbs out
 * ("../../etc/passwd") harms nobody. Links, folders and devices are passed over. */
#include "ingest/package_int.h"

#include "base/utf8.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <pthread.h>

enum { READ_BYTES = 64 * 1024 };

struct lore_archive {
    struct archive *reader;
    struct archive_entry *entry;
    uint64_t unpacked, unpacked_max;
    bool is_begun;  /* the first member was asked for */
    bool is_at_end; /* of the member's data */
    bool is_over;   /* a limit was reached: nothing more is read */
};

static lore_status fail(const lore_archive *archive, int code, lore_error *err)
{
    const char *why = archive_error_string(archive->reader);
    bool is_memory = archive_errno(archive->reader) == ENOMEM && code == ARCHIVE_FATAL;
    return lore_fail(err, is_memory ? LORE_ERR_NOMEM : LORE_ERR_INVALID, "damaged archive: %s",
                     why == NULL ? "it cannot be read" : why);
}

lore_status lore_archive_open(lore_str bytes, uint64_t unpacked_max, lore_archive **archive,
                              lore_error *err)
{
    lore_archive *opened = lore_alloc_zero(1, sizeof *opened);
    struct archive *reader = opened == NULL ? NULL : archive_read_new();
    if (reader == NULL) {
        lore_free(opened);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening an archive");
    }
    opened->reader = reader;
    opened->unpacked_max = unpacked_max;
    opened->is_at_end = true;
    int code = archive_read_support_format_zip(reader);
    code = code == ARCHIVE_OK ? archive_read_support_format_tar(reader) : code;
    code = code == ARCHIVE_OK ? archive_read_support_format_raw(reader) : code;
    code = code == ARCHIVE_OK ? archive_read_support_filter_gzip(reader) : code;
    code = code == ARCHIVE_OK ? archive_read_support_filter_bzip2(reader) : code;
    code = code == ARCHIVE_OK ? archive_read_support_filter_xz(reader) : code;
    /* Checked by the parsers themselves, and damaged files are to be read as far as they go. */
    (void)archive_read_set_option(reader, "zip", "ignorecrc32", "1");
    code = code == ARCHIVE_OK ? archive_read_open_memory(reader, bytes.ptr, bytes.len) : code;
    if (code != ARCHIVE_OK) {
        lore_status status = fail(opened, code, err);
        lore_archive_close(opened);
        return status;
    }
    *archive = opened;
    return LORE_OK;
}

static locale_t utf8_locale;

static void make_locale(void)
{
    utf8_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

/* The library turns names into the characters of the locale; without one that has all of them every
 * foreign name is lost. Gives the locale that was. */
static locale_t use_utf8(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_locale);
    return uselocale(utf8_locale); /* 0 where it is missing: asks only */
}

/* A name as valid UTF-8: what is not becomes '?'. */
static lore_str name_of(struct archive_entry *entry, lore_arena *arena)
{
    const char *name = archive_entry_pathname_utf8(entry);
    name = name == NULL ? archive_entry_pathname(entry) : name;
    lore_str copy = lore_str_copy(arena, lore_str_from(name == NULL ? "?" : name));
    while (copy.ptr != NULL) {
        size_t bad = lore_utf8_valid(copy);
        if (bad == copy.len) {
            break;
        }
        ((char *)copy.ptr)[bad] = '?'; /* ours, just made */
    }
    return copy;
}

/* Go past what is left of a member. Where its size is known that is counted and may be cheap; else
 * it has to be unpacked, and it is we who do that, because we stop at the limit. */
static lore_status pass_over(lore_archive *archive, lore_error *err)
{
    if (archive->is_at_end) {
        return LORE_OK;
    }
    archive->is_at_end = true;
    if (archive_entry_size_is_set(archive->entry)) {
        la_int64_t size = archive_entry_size(archive->entry);
        archive->unpacked += size < 0 ? 0 : (uint64_t)size;
        return LORE_OK;
    }
    for (la_ssize_t got = 1; got > 0 && archive->unpacked <= archive->unpacked_max;) {
        char unread[READ_BYTES];
        got = archive_read_data(archive->reader, unread, sizeof unread);
        if (got < 0) {
            return fail(archive, (int)got, err);
        }
        archive->unpacked += (uint64_t)got;
    }
    return LORE_OK;
}

bool lore_archive_is_single(const lore_archive *archive)
{
    return archive_format(archive->reader) == ARCHIVE_FORMAT_RAW;
}

/* Known once the first header was read: plain bytes pass for a raw file, too. */
static lore_status check_layers(const lore_archive *archive, lore_error *err)
{
    int layers = archive_filter_count(archive->reader) - 1; /* the last is "none" */
    return layers > 1 ? lore_fail(err, LORE_ERR_UNSUPPORTED, "is compressed more than once")
           : layers == 0 && lore_archive_is_single(archive)
               ? lore_fail(err, LORE_ERR_INVALID, "damaged archive: it is none")
               : LORE_OK;
}

lore_status lore_archive_next(lore_archive *archive, lore_arena *arena, lore_str *name, bool *done,
                              lore_error *err)
{
    *done = archive->is_over;
    if (archive->is_over) {
        return LORE_OK;
    }
    for (;;) {
        lore_status status = pass_over(archive, err);
        if (status != LORE_OK) {
            archive->is_over = true;
            return status;
        }
        if (archive->unpacked > archive->unpacked_max) {
            archive->is_over = true;
            return lore_fail(err, LORE_ERR_LIMIT,
                             "unpacks to more than %llu bytes (limits.unpacked_bytes_max)",
                             (unsigned long long)archive->unpacked_max);
        }
        locale_t before = use_utf8();
        int code = archive_read_next_header(archive->reader, &archive->entry);
        *name = code == ARCHIVE_OK || code == ARCHIVE_WARN ? name_of(archive->entry, arena)
                                                           : (lore_str){"", 0};
        uselocale(before);
        if (code == ARCHIVE_EOF) {
            *done = true;
            return LORE_OK;
        }
        if (code != ARCHIVE_OK && code != ARCHIVE_WARN) {
            archive->is_over = true;
            return fail(archive, code, err);
        }
        status = archive->is_begun ? LORE_OK : check_layers(archive, err);
        archive->is_begun = true;
        if (status != LORE_OK) {
            archive->is_over = true;
            return status;
        }
        archive->is_at_end = false;
        if (archive_entry_filetype(archive->entry) == AE_IFREG &&
            archive_entry_hardlink(archive->entry) == NULL) {
            break;
        }
    }
    return name->ptr != NULL ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "out of memory for a name");
}

lore_status lore_archive_read(lore_archive *archive, size_t bytes_max, lore_buf *out,
                              lore_error *err)
{
    if (archive_entry_is_encrypted(archive->entry) > 0) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED, "is encrypted");
    }
    for (size_t total = 0;;) {
        if (!lore_buf_reserve(out, READ_BYTES)) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory unpacking");
        }
        la_ssize_t got = archive_read_data(archive->reader, out->ptr + out->len, READ_BYTES);
        if (got < 0) {
            archive->is_at_end = true;
            return fail(archive, (int)got, err);
        }
        if (got == 0) {
            archive->is_at_end = true;
            return LORE_OK;
        }
        out->len += (size_t)got;
        total += (size_t)got;
        archive->unpacked += (uint64_t)got;
        if (total > bytes_max) {
            return lore_fail(err, LORE_ERR_LIMIT,
                             "unpacks to more than %zu bytes (limits.file_bytes_max)", bytes_max);
        }
    }
}

uint64_t lore_archive_unpacked(const lore_archive *archive)
{
    return archive->unpacked;
}

void lore_archive_close(lore_archive *archive)
{
    if (archive != NULL) {
        archive_read_free(archive->reader);
        lore_free(archive);
    }
}
