/* Weights of many megabytes on their way to a device: what is read back from both sides of every
 * border between two pieces, and from the ends of stacked parts, is what was given. */
#include "base/clock.h"
#include "kernels/backend.h"
#include "tests/check.h"

enum { COLS = 1032, ROWS_MAX = 24000, TAKEN = 64 };

static uint64_t random_state = 5;

/* A part of random rows. The values are those of bf16, so that every dtype gives the same. */
static lore_matrix part_new(lore_dtype dtype, int32_t rows)
{
    const size_t count = (size_t)rows * COLS;
    char *data = lore_alloc(count * lore_dtype_size(dtype));
    CHECK(data != NULL);
    for (size_t i = 0; i < count; i++) {
        uint16_t bits = lore_f32_to_bf16(lore_random_unit(&random_state) - 0.5f);
        float value = lore_bf16_to_f32(bits);
        if (dtype == LORE_BF16) {
            ((uint16_t *)(void *)data)[i] = bits;
        } else {
            ((float *)(void *)data)[i] = value;
        }
    }
    return (lore_matrix){.dtype = dtype, .rows = rows, .cols = COLS, .data = data};
}

static void check_rows(lore_backend *backend, const lore_weight *weight, const lore_matrix *parts,
                       const int32_t *ids)
{
    lore_error err = {0};
    lore_queue *queue = NULL;
    void *out = NULL, *there = NULL;
    static float got[TAKEN * COLS], wanted[COLS];
    CHECK_OK(lore_queue_open(backend, &queue, &err), &err);
    CHECK_OK(lore_backend_alloc(backend, sizeof got, &out, &err), &err);
    CHECK_OK(lore_backend_alloc(backend, TAKEN * sizeof *ids, &there, &err), &err);
    lore_queue_upload(queue, there, ids, TAKEN * sizeof *ids);
    lore_op_embed(queue, lore_view_of(out, TAKEN, COLS), weight, there, 1.0f, false);
    lore_queue_download(queue, got, out, sizeof got);
    CHECK_OK(lore_queue_sync(queue, &err), &err);
    for (int32_t i = 0; i < TAKEN; i++) {
        int32_t row = ids[i];
        const lore_matrix *part = row < parts[0].rows ? &parts[0] : &parts[1];
        lore_matrix_read_row(part, row < parts[0].rows ? row : row - parts[0].rows, wanted);
        CHECK(memcmp(got + (size_t)i * COLS, wanted, sizeof wanted) == 0);
    }
    lore_backend_free(backend, out);
    lore_backend_free(backend, there);
    lore_queue_close(queue);
}

static void upload(int32_t threads)
{
    lore_error err = {0};
    lore_pool *pool = NULL;
    lore_backend *backend = NULL;
    if (lore_backend_cuda_count() == 0) {
        CHECK_SKIP("no CUDA device here, or built without CUDA");
    }
    if (threads > 0) {
        CHECK_OK(lore_pool_new(threads, &pool, &err), &err);
    }
    const lore_backend_options options = {.kind = LORE_BACKEND_CUDA, .pool = pool};
    CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
    const int32_t sizes[][2] = {{1, 1}, {4064, 4065}, {ROWS_MAX, 17}, {3, ROWS_MAX - 1}};
    for (int i = 0; i < 4; i++) {
        lore_matrix parts[2] = {part_new(LORE_BF16, sizes[i][0]),
                                part_new(i % 2 == 0 ? LORE_F32 : LORE_BF16, sizes[i][1])};
        lore_weight *weight = NULL;
        int32_t ids[TAKEN], rows = sizes[i][0] + sizes[i][1];
        CHECK_OK(lore_weight_pack(backend, parts, 2, LORE_USE_MATMUL, &weight, &err), &err);
        /* A piece of 8 MiB holds 4,064 rows: ids around its multiples, and both ends. */
        for (int32_t k = 0; k < TAKEN; k++) {
            int32_t id = k < 48 ? k / 4 * 4064 + k % 4 - 2 : sizes[i][0] + k - 56;
            ids[k] = id < 0 ? 0 : id >= rows ? rows - 1 : id;
        }
        check_rows(backend, weight, parts, ids);
        lore_weight_free(weight);
        for (int j = 0; j < 2; j++) {
            lore_free((void *)(uintptr_t)parts[j].data);
        }
    }
    lore_backend_close(backend);
    lore_pool_free(pool);
}

TEST(one_thread)
{
    upload(0);
}

TEST(all_threads)
{
    upload(4);
}

CHECK_MAIN(one_thread, all_threads)
