/* The AMX instructions that we use, one named function or macro each; tile numbers must be
 * literals. Definitions: https://www.intel.com/content/www/us/en/docs/intrinsics-guide/ (AMX
 * family). */
#ifndef LORE_KERNELS_CPU_AMX_INT_H
#define LORE_KERNELS_CPU_AMX_INT_H

#include <immintrin.h>
#include <stdint.h>

/* What LDTILECFG reads, palette 1. */
typedef struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_config;
_Static_assert(sizeof(amx_config) == 64, "LDTILECFG reads 64 bytes");

static inline void amx_configure(const amx_config *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*config));
}

static void amx_release(void)
{
    _tile_release();
}

#define amx_zero(tile) _tile_zero(tile)
#define amx_load(tile, base, stride) _tile_loadd(tile, base, stride)
#define amx_store(tile, base, stride) _tile_stored(tile, base, stride)
#define amx_product_int8(sum, a, b) _tile_dpbssd(sum, a, b)
#define amx_product_int8_uint8(sum, a, b) _tile_dpbsud(sum, a, b)
#define amx_product_bf16(sum, a, b) _tile_dpbf16ps(sum, a, b)

#endif
