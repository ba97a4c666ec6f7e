/* How large packs are: as ever on a processor; on a device as many rows as fill it, fewer where a
 * row is wide, and always at least the longest text. */
#include "tests/check.h"

#include "models/encoder_int.h"

static const lore_encoder_family POST_NORM = {.model_type = "bert"};
static const lore_encoder_family PRE_NORM = {
    .model_type = "qwen3", .is_prenorm = true, .is_rms = true, .is_glu = true};

static lore_encoder_config config_of(const lore_encoder_family *family, int32_t width, int32_t ffn,
                                     int32_t tokens_max)
{
    return (lore_encoder_config){.family = family,
                                 .width = width,
                                 .heads = width / 32,
                                 .kv_heads = width / 32,
                                 .head_dim = 32,
                                 .ffn = ffn,
                                 .tokens_max = tokens_max};
}

static void check_room(const lore_encoder_config *c, lore_backend_kind kind, lore_dtype dtype,
                       lore_encoder_lane lane, int32_t rows, int32_t sequences, int32_t seats)
{
    lore_encoder_room room = lore_encoder_choose_room(c, kind, dtype, lane);
    CHECK_INT(room.rows, rows);
    CHECK_INT(room.sequences, sequences);
    CHECK_INT(room.seats, seats);
}

TEST(a_processor_wants_small_packs)
{
    lore_encoder_config small = config_of(&POST_NORM, 384, 1536, 40);
    lore_encoder_config large = config_of(&POST_NORM, 1024, 4096, 512);
    for (int lane = 0; lane < LORE_ENCODER_LANES; lane++) {
        check_room(&small, LORE_BACKEND_CPU, LORE_F32, (lore_encoder_lane)lane, 256, 128, 1);
        check_room(&large, LORE_BACKEND_REF, LORE_F32, (lore_encoder_lane)lane, 512, 128, 1);
    }
}

TEST(a_device_wants_to_be_filled)
{
    lore_encoder_config small = config_of(&POST_NORM, 384, 1536, 512);
    lore_encoder_config large = config_of(&POST_NORM, 1024, 4096, 512);
    lore_encoder_config huge = config_of(&PRE_NORM, 4096, 12288, 8192);
    check_room(&small, LORE_BACKEND_CUDA, LORE_BF16, LORE_ENCODER_BULK, 32768, 2048, 2);
    check_room(&small, LORE_BACKEND_CUDA, LORE_BF16, LORE_ENCODER_QUESTIONS, 8192, 512, 2);
    /* 24576 bytes a row: 4096 of x, and in bf16 qkv 3072, attention 1024, ffn 4096, 2 x 1024 */
    check_room(&large, LORE_BACKEND_CUDA, LORE_BF16, LORE_ENCODER_BULK, 16384, 1024, 2);
    /* 122880 bytes a row, 3276 of them; a question's quarter is less than the longest text */
    check_room(&huge, LORE_BACKEND_CUDA, LORE_BF16, LORE_ENCODER_BULK, 8192, 512, 2);
    huge.tokens_max = 512;
    check_room(&huge, LORE_BACKEND_CUDA, LORE_BF16, LORE_ENCODER_BULK, 3276, 204, 2);
    check_room(&huge, LORE_BACKEND_CUDA, LORE_BF16, LORE_ENCODER_QUESTIONS, 2048, 128, 2);
}

CHECK_MAIN(a_processor_wants_small_packs, a_device_wants_to_be_filled)
