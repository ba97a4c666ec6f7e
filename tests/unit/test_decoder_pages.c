/* How many pages there are: what the limits of main memory and of a device leave. */
#include "models/decoder_int.h"
#include "tests/unit/deferred_backend.h"
#include "tests/unit/models_fixture.h"

#define FAMILY LORE_FAMILIES "/llama"
#define GIB ((int64_t)1 << 30)

/* Four fifths of what is free; or what a limit leaves beside what was taken, never more than there
 * is, less a reserve. */
TEST(device_bytes)
{
    CHECK_INT(lore_decoder_device_bytes(100 * GIB, 80 * GIB, 0), 80 * GIB / 5 * 4);
    CHECK_INT(lore_decoder_device_bytes(100 * GIB, 80 * GIB, 60 * GIB), 39 * GIB);
    CHECK_INT(lore_decoder_device_bytes(24 * GIB, 8 * GIB, 100 * GIB), 7 * GIB);
    CHECK_INT(lore_decoder_device_bytes(4 * GIB, 3 * GIB, 2 * GIB), 3 * GIB / 4);
    CHECK(lore_decoder_device_bytes(24 * GIB, 8 * GIB, 12 * GIB) < 0);
    /* Another process gave memory back meanwhile: nothing counts as taken. */
    CHECK_INT(lore_decoder_device_bytes(4 * GIB, 6 * GIB, 2 * GIB), 7 * GIB / 4);
}

static lore_status open_with(const lore_limits *limits, int32_t sequences, lore_dtype dtype,
                             lore_decoder_info *info, lore_error *err)
{
    lore_decoder *decoder = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    const lore_decoder_options options = {.sequences_max = sequences, .kv_dtype = dtype};
    lore_status status = lore_decoder_open(FAMILY, f.backend, limits, &options, &decoder, err);
    if (status == LORE_OK) {
        *info = *lore_decoder_get_info(decoder);
    }
    lore_decoder_close(decoder);
    fixture_close(&f);
    return status;
}

/* The limit counts pages of all layers; one page beyond it is nobody's. Without a limit there are
 * as many as all sequences can use, within 512 MiB. */
TEST(pages_of_main_memory)
{
    lore_limits limits = LIMITS;
    lore_decoder_info info = {0};
    lore_error err = {0};
    limits.kv_bytes_max = 0;
    CHECK_OK(open_with(&limits, 2, LORE_F32, &info, &err), &err);
    const int64_t one =
        (int64_t)info.layers * 2 * info.kv_heads * info.page_tokens * info.head_dim * 4;
    const int32_t each = lore_pages_for(info.context, info.page_tokens), context = info.context;
    CHECK_INT(info.page_count, 2 * each);
    CHECK_INT(info.kv_bytes, (2 * each + 1) * one);
    limits.kv_bytes_max = 3 * one + one / 2;
    CHECK_OK(open_with(&limits, 2, LORE_F32, &info, &err), &err);
    CHECK_INT(info.page_count, 3);
    CHECK_INT(info.kv_bytes, 4 * one);
    CHECK_INT(info.context, 3 * info.page_tokens);
    CHECK_OK(open_with(&limits, 2, LORE_BF16, &info, &err), &err);
    CHECK_INT(info.page_count, 7);
    limits.kv_bytes_max = 1000 * one * each;
    limits.vram_bytes_max = 1; /* of a GPU, which this is not */
    CHECK_OK(open_with(&limits, 1, LORE_F32, &info, &err), &err);
    CHECK_INT(info.page_count, each);
    CHECK_INT(info.context, context);
    limits.kv_bytes_max = one - 1;
    CHECK_FAILS(open_with(&limits, 1, LORE_F32, &info, &err), LORE_ERR_LIMIT, &err, "kv_bytes_max");
}

/* A device of some megabytes: pages take four fifths of what weights and working memory leave, or
 * what a limit leaves; where that is nothing, the message says what was taken. */
TEST(pages_of_a_device)
{
    lore_limits limits = LIMITS;
    lore_error err = {0};
    lore_decoder *d = NULL;
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    const lore_decoder_options options = {.sequences_max = 8, .kv_dtype = LORE_F32};
    limits.kv_bytes_max = 0;
    for (int32_t limited = 0; limited < 2; limited++) {
        deferred_backend device = deferred_open(f.backend, 8 << 20);
        limits.vram_bytes_max = limited == 0 ? 0 : 4 << 20;
        CHECK_OK(lore_decoder_open(FAMILY, &device.base, &limits, &options, &d, &err), &err);
        const lore_decoder_info *info = lore_decoder_get_info(d);
        const int64_t one =
            (int64_t)info->layers * 2 * info->kv_heads * info->page_tokens * info->head_dim * 4;
        /* What was free when pages were taken: rotation tables came later, after the pages. */
        const int64_t tables = (int64_t)lore_rope_row_count(&d->config.rope, info->context) *
                               d->config.rope.dim / 2 * 8;
        const int64_t before = device.total_bytes - device.taken_bytes + info->kv_bytes + tables;
        const int64_t most =
            limited == 0 ? before / 5 * 4 : (4 << 20) - (device.total_bytes - before) - (1 << 19);
        CHECK(info->page_count > 0 && info->kv_bytes <= most && info->kv_bytes + one > most);
        lore_decoder_close(d);
    }
    deferred_backend small = deferred_open(f.backend, 1 << 16);
    d = NULL;
    limits.vram_bytes_max = 0;
    CHECK_FAILS(lore_decoder_open(FAMILY, &small.base, &limits, &options, &d, &err), LORE_ERR_NOMEM,
                &err, "no GPU memory is left for keys and values");
    fixture_close(&f);
}

CHECK_MAIN(device_bytes, pages_of_main_memory, pages_of_a_device)
