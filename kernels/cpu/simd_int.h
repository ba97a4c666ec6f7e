/* Words: the few vector operations in which all loops of the cpu backend are written.
 *
 * A file that includes this header is compiled for one instruction set, and the words become its
 * intrinsics: 16 floats (AVX-512 F, BW, VL, DQ), 8 (AVX2, FMA, F16C) or 1 (any C compiler). So a
 * loop is written once, in *_body.h, and compiled three times. A `part` word touches only the first
 * n (0 < n < VF_WIDTH) elements of memory; absent elements read as 0. Rounding to integers and to
 * bf16 is to nearest even everywhere, so that all sets give the same integers.
 *
 * Definitions: https://www.intel.com/content/www/us/en/docs/intrinsics-guide/ (search for the
 * name). */
#ifndef LORE_KERNELS_CPU_SIMD_INT_H
#define LORE_KERNELS_CPU_SIMD_INT_H

#include "kernels/ops.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* One word is one line; clang-format would make it four. */
/* clang-format off */
#define LORE_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)

#include <immintrin.h>

/* TILE_ROWS x TILE_VECTORS accumulators, TILE_VECTORS weights, one input: 29 of 32 registers. */
enum { VF_WIDTH = 16, TILE_ROWS = 6, TILE_VECTORS = 4 };
typedef __m512 vf;

LORE_INLINE __mmask16 vf_mask(int32_t n) { return (__mmask16)((1u << n) - 1u); }
LORE_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
LORE_INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
LORE_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
LORE_INLINE vf vf_load_part(const float *p, int32_t n)
{
    return _mm512_maskz_loadu_ps(vf_mask(n), p);
}
LORE_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
LORE_INLINE void vf_store_part(float *p, int32_t n, vf a)
{
    _mm512_mask_storeu_ps(p, vf_mask(n), a);
}
LORE_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
LORE_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
LORE_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
LORE_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
/* a / b to 3e-7, b finite and far from 0 and from the largest numbers: a quarter of a division. */
LORE_INLINE vf vf_quotient(vf a, vf b)
{
    const vf r = _mm512_rcp14_ps(b); /* and one step of Newton's */
    return _mm512_mul_ps(a, _mm512_mul_ps(r, _mm512_fnmadd_ps(b, r, _mm512_set1_ps(2.0f))));
}
/* max and min give b where one of them is NaN. */
LORE_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
LORE_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
LORE_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
LORE_INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
/* Of numbers that int32 can hold. (_mm512_roundscale_ps of gcc 12 fails -Wconversion at -O0.) */
LORE_INLINE vf vf_round(vf a) { return _mm512_cvtepi32_ps(_mm512_cvtps_epi32(a)); }
LORE_INLINE float vf_sum(vf a) { return _mm512_reduce_add_ps(a); }
/* The sums of four vectors: half of the work of four times vf_sum. */
LORE_INLINE void vf_sum_four(const vf *a, float *sums)
{
    const vf x = _mm512_add_ps(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    const vf y = _mm512_add_ps(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y));
    const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y));
    const vf quads = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(quads), _mm512_extractf32x8_ps(quads, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
LORE_INLINE float vf_top(vf a) { return _mm512_reduce_max_ps(a); }
/* Lanes 0 .. n-1 of a, the others `other`. 0 <= n <= VF_WIDTH. */
LORE_INLINE vf vf_first(vf a, int32_t n, float other)
{
    return _mm512_mask_blend_ps(vf_mask(n), _mm512_set1_ps(other), a);
}
/* Lanes 0 .. n-1 are `other`, the others those of a. */
LORE_INLINE vf vf_rest(vf a, int32_t n, float other)
{
    return _mm512_mask_blend_ps(vf_mask(n), a, _mm512_set1_ps(other));
}
/* Where x < limit: y, else a. */
LORE_INLINE vf vf_where_below(vf x, vf limit, vf y, vf a)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), a, y);
}
/* a * 2^n, n integral. */
LORE_INLINE vf vf_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
LORE_INLINE vf vf_load_i32(const int32_t *p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
LORE_INLINE vf vf_load_i8(const int8_t *p)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
/* The two bf16 in each 32 bits of a, the first in the low half. */
LORE_INLINE vf vf_pair_first(vf a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 16));
}
LORE_INLINE vf vf_pair_second(vf a)
{
    const __m512i upper = _mm512_set1_epi32((int32_t)0xffff0000);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), upper));
}
LORE_INLINE vf vf_load_bf16(const uint16_t *p)
{
    const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
LORE_INLINE vf vf_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
LORE_INLINE void vf_store_i8(int8_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a)));
}
/* The same plus 128. */
LORE_INLINE void vf_store_u8(uint8_t *p, vf a)
{
    const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a));
    _mm_storeu_si128((__m128i *)(void *)p, _mm_xor_si128(bytes, _mm_set1_epi8((char)-128)));
}
LORE_INLINE void vf_store_i16(int16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a)));
}
/* The f32 bits rounded to their upper half. A NaN stays one unless its payload is all in the lower
 * half, which arithmetic does not make. */
LORE_INLINE __m512i vf_bf16_bits(vf a)
{
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    return _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
}
LORE_INLINE void vf_store_bf16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(vf_bf16_bits(a)));
}
LORE_INLINE vf vf_round_bf16(vf a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(vf_bf16_bits(a), 16));
}

LORE_INLINE vf vf_low_pairs(vf a, vf b)
{
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
LORE_INLINE vf vf_high_pairs(vf a, vf b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
/* r[i] lane j becomes r[j] lane i: pairs of 32 bits, of 64, then the 128-bit quarters twice. */
LORE_INLINE void vf_transpose(vf r[VF_WIDTH])
{
    vf a[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = vf_low_pairs(a[i], a[i + 2]);
        r[i + 1] = vf_high_pairs(a[i], a[i + 2]);
        r[i + 2] = vf_low_pairs(a[i + 1], a[i + 3]);
        r[i + 3] = vf_high_pairs(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        a[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        a[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0xdd);
    }
}

#elif defined(__AVX2__)

#include <immintrin.h>

enum { VF_WIDTH = 8, TILE_ROWS = 6, TILE_VECTORS = 2 };
typedef __m256 vf;

/* Sliding window over ones then zeros: n ones first. */
LORE_INLINE __m256i vf_mask(int32_t n)
{
    static const int32_t window[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(const void *)(window + 8 - n));
}
LORE_INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
LORE_INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
LORE_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
LORE_INLINE vf vf_load_part(const float *p, int32_t n) { return _mm256_maskload_ps(p, vf_mask(n)); }
LORE_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
LORE_INLINE void vf_store_part(float *p, int32_t n, vf a) { _mm256_maskstore_ps(p, vf_mask(n), a); }
LORE_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
LORE_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
LORE_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
LORE_INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
/* The approximate reciprocal of AVX2 has 12 bits: two steps would cost what the division does. */
LORE_INLINE vf vf_quotient(vf a, vf b) { return _mm256_div_ps(a, b); }
LORE_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
LORE_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
LORE_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
LORE_INLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
LORE_INLINE vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT); }
LORE_INLINE float vf_sum(vf a)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
LORE_INLINE void vf_sum_four(const vf *a, float *sums)
{
    const vf x = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}
LORE_INLINE float vf_top(vf a)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
LORE_INLINE vf vf_first(vf a, int32_t n, float other)
{
    return _mm256_blendv_ps(_mm256_set1_ps(other), a, _mm256_castsi256_ps(vf_mask(n)));
}
LORE_INLINE vf vf_rest(vf a, int32_t n, float other)
{
    return _mm256_blendv_ps(a, _mm256_set1_ps(other), _mm256_castsi256_ps(vf_mask(n)));
}
LORE_INLINE vf vf_where_below(vf x, vf limit, vf y, vf a)
{
    return _mm256_blendv_ps(a, y, _mm256_cmp_ps(x, limit, _CMP_LT_OQ));
}
LORE_INLINE vf vf_scale2(vf a, vf n)
{
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
}
LORE_INLINE vf vf_load_i32(const int32_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
LORE_INLINE vf vf_load_i8(const int8_t *p)
{
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
LORE_INLINE vf vf_pair_first(vf a)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16));
}
LORE_INLINE vf vf_pair_second(vf a)
{
    const __m256i upper = _mm256_set1_epi32((int32_t)0xffff0000);
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a), upper));
}
LORE_INLINE vf vf_load_bf16(const uint16_t *p)
{
    const __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
LORE_INLINE vf vf_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
/* Eight int32 narrowed to int16, saturating, in order. */
LORE_INLINE __m128i vf_narrow(__m256i a)
{
    return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}
LORE_INLINE void vf_store_i8(int8_t *p, vf a)
{
    const __m128i words = vf_narrow(_mm256_cvtps_epi32(a));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(words, words));
}
LORE_INLINE void vf_store_u8(uint8_t *p, vf a)
{
    const __m128i words = vf_narrow(_mm256_cvtps_epi32(a));
    const __m128i bytes = _mm_packs_epi16(words, words);
    _mm_storel_epi64((__m128i *)(void *)p, _mm_xor_si128(bytes, _mm_set1_epi8((char)-128)));
}
LORE_INLINE void vf_store_i16(int16_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)(void *)p, vf_narrow(_mm256_cvtps_epi32(a)));
}
LORE_INLINE __m256i vf_bf16_bits(vf a)
{
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
}
LORE_INLINE void vf_store_bf16(uint16_t *p, vf a)
{
    const __m256i bits = vf_bf16_bits(a);
    const __m128i upper = _mm256_extracti128_si256(bits, 1);
    const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(bits), upper);
    _mm_storeu_si128((__m128i *)(void *)p, halves);
}
LORE_INLINE vf vf_round_bf16(vf a)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(vf_bf16_bits(a), 16));
}

LORE_INLINE void vf_transpose(vf r[VF_WIDTH])
{
    vf a[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    vf b[8];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

#else

#include "kernels/backend.h"

enum { VF_WIDTH = 1, TILE_ROWS = 6, TILE_VECTORS = 2 };
typedef float vf;

LORE_INLINE vf vf_zero(void) { return 0.0f; }
LORE_INLINE vf vf_set(float x) { return x; }
LORE_INLINE vf vf_load(const float *p) { return *p; }
/* Never called: no n lies between 0 and 1. */
LORE_INLINE vf vf_load_part(const float *p, int32_t n) { return n > 0 ? *p : 0.0f; }
LORE_INLINE void vf_store(float *p, vf a) { *p = a; }
LORE_INLINE void vf_store_part(float *p, int32_t n, vf a)
{
    if (n > 0) {
        *p = a;
    }
}
LORE_INLINE vf vf_add(vf a, vf b) { return a + b; }
LORE_INLINE vf vf_sub(vf a, vf b) { return a - b; }
LORE_INLINE vf vf_mul(vf a, vf b) { return a * b; }
LORE_INLINE vf vf_div(vf a, vf b) { return a / b; }
LORE_INLINE vf vf_quotient(vf a, vf b) { return a / b; }
LORE_INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
LORE_INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
LORE_INLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
LORE_INLINE vf vf_abs(vf a) { return fabsf(a); }
LORE_INLINE vf vf_round(vf a) { return rintf(a); }
LORE_INLINE float vf_sum(vf a) { return a; }
LORE_INLINE void vf_sum_four(const vf *a, float *sums) { memcpy(sums, a, 4 * sizeof *sums); }
LORE_INLINE float vf_top(vf a) { return a; }
LORE_INLINE vf vf_first(vf a, int32_t n, float other) { return n > 0 ? a : other; }
LORE_INLINE vf vf_rest(vf a, int32_t n, float other) { return n > 0 ? other : a; }
LORE_INLINE vf vf_where_below(vf x, vf limit, vf y, vf a) { return x < limit ? y : a; }
LORE_INLINE vf vf_scale2(vf a, vf n) { return ldexpf(a, (int)n); }
LORE_INLINE vf vf_load_i32(const int32_t *p) { return (float)*p; }
LORE_INLINE vf vf_load_i8(const int8_t *p) { return (float)*p; }
LORE_INLINE vf vf_pair_half(vf a, int32_t shift)
{
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return lore_bf16_to_f32((uint16_t)(bits >> shift));
}
LORE_INLINE vf vf_pair_first(vf a) { return vf_pair_half(a, 0); }
LORE_INLINE vf vf_pair_second(vf a) { return vf_pair_half(a, 16); }
LORE_INLINE vf vf_load_bf16(const uint16_t *p) { return lore_bf16_to_f32(*p); }
LORE_INLINE vf vf_load_f16(const uint16_t *p) { return lore_f16_to_f32(*p); }
/* Saturating like the vector forms; a NaN gives the lowest value, as there. */
LORE_INLINE int32_t vf_to_int(vf a, int32_t top)
{
    return a > (vf)-top ? (a < (vf)top ? (int32_t)lrintf(a) : top) : -top;
}
LORE_INLINE void vf_store_i8(int8_t *p, vf a) { *p = (int8_t)vf_to_int(a, 127); }
LORE_INLINE void vf_store_u8(uint8_t *p, vf a) { *p = (uint8_t)(vf_to_int(a, 127) + 128); }
LORE_INLINE void vf_store_i16(int16_t *p, vf a) { *p = (int16_t)vf_to_int(a, 32767); }
LORE_INLINE void vf_store_bf16(uint16_t *p, vf a) { *p = lore_f32_to_bf16(a); }
LORE_INLINE vf vf_round_bf16(vf a) { return lore_bf16_to_f32(lore_f32_to_bf16(a)); }
LORE_INLINE void vf_transpose(vf r[VF_WIDTH]) { (void)r; }

#endif

/* clang-format on */

/* ---- words made of words ---- */

/* Whether n elements (n > 0) fill a vector. */
LORE_INLINE bool vf_fills(int32_t n)
{
    return VF_WIDTH == 1 || n >= VF_WIDTH;
}

/* Lanes of a from begin to end - 1, the others `other`; begin <= VF_WIDTH, end >= 0. */
LORE_INLINE vf vf_between(vf a, int32_t begin, int32_t end, float other)
{
    a = end < VF_WIDTH ? vf_first(a, end, other) : a;
    return begin > 0 ? vf_rest(a, begin, other) : a;
}

/* Load or store the next min(n, VF_WIDTH) elements, n > 0: the body of every loop over a row. */
LORE_INLINE vf vf_load_some(const float *p, int32_t n)
{
    return vf_fills(n) ? vf_load(p) : vf_load_part(p, n);
}
LORE_INLINE void vf_store_some(float *p, int32_t n, vf a)
{
    if (vf_fills(n)) {
        vf_store(p, a);
    } else {
        vf_store_part(p, n, a);
    }
}

/* e^x to 2 units in the last place, for x up to 88 (above, the result of 88); 0 below -87.3. NaN
 * stays NaN. x = n ln 2 + r, |r| <= ln 2 / 2; degree 5 polynomial of the Cephes library (S.
 * Moshier), expf.c. */
LORE_INLINE vf vf_exp(vf x)
{
    const vf bounded = vf_max(vf_set(-87.3f), vf_min(vf_set(88.0f), x));
    const vf n = vf_round(vf_mul(bounded, vf_set(1.44269504088896341f)));
    vf r = vf_fma(n, vf_set(-0.693359375f), bounded);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf y = vf_set(1.9875691500e-4f);
    y = vf_fma(y, r, vf_set(1.3981999507e-3f));
    y = vf_fma(y, r, vf_set(8.3334519073e-3f));
    y = vf_fma(y, r, vf_set(4.1665795894e-2f));
    y = vf_fma(y, r, vf_set(1.6666665459e-1f));
    y = vf_fma(y, r, vf_set(5.0000001201e-1f));
    y = vf_fma(y, vf_mul(r, r), vf_add(r, vf_set(1.0f)));
    return vf_where_below(x, vf_set(-87.3f), vf_zero(), vf_scale2(y, n));
}

/* erf(x) to 4e-7: an odd over an even polynomial on [-4, 4], where erf reaches 1 in f32.
 * Coefficients: generic_fast_erf_float of the Eigen library, MathFunctionsImpl.h. */
LORE_INLINE vf vf_erf(vf x)
{
    const vf z = vf_max(vf_set(-4.0f), vf_min(vf_set(4.0f), x));
    const vf s = vf_mul(z, z);
    vf p = vf_set(-2.72614225801306e-10f);
    p = vf_fma(p, s, vf_set(2.77068142495902e-08f));
    p = vf_fma(p, s, vf_set(-2.10102402082508e-06f));
    p = vf_fma(p, s, vf_set(-5.69250639462346e-05f));
    p = vf_fma(p, s, vf_set(-7.34990630326855e-04f));
    p = vf_fma(p, s, vf_set(-2.95459980854025e-03f));
    p = vf_fma(p, s, vf_set(-1.60960333262415e-02f));
    vf q = vf_set(-1.45660718464996e-05f);
    q = vf_fma(q, s, vf_set(-2.13374055278905e-04f));
    q = vf_fma(q, s, vf_set(-1.68282697438203e-03f));
    q = vf_fma(q, s, vf_set(-7.37332916720468e-03f));
    q = vf_fma(q, s, vf_set(-1.42647390514189e-02f));
    return vf_quotient(vf_mul(z, p), q);
}

LORE_INLINE vf vf_gelu(vf x)
{
    const vf half = vf_mul(x, vf_set(0.5f));
    return vf_fma(half, vf_erf(vf_mul(x, vf_set(0.70710678118654752f))), half);
}

LORE_INLINE vf vf_silu(vf x)
{
    return vf_div(x, vf_add(vf_set(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

/* x/2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + .044715 x^3): nothing cancels. */
LORE_INLINE vf vf_gelu_tanh(vf x)
{
    const vf slope =
        vf_fma(vf_mul(x, x), vf_set(-2.0f * 0.0356774081f), vf_set(-2.0f * 0.7978845608f));
    return vf_div(x, vf_add(vf_set(1.0f), vf_exp(vf_mul(x, slope))));
}

/* tanh(x) to 4e-7: an odd over an even polynomial where tanh is not yet 1 in f32. Coefficients:
 * generic_fast_tanh_float of the Eigen library, MathFunctionsImpl.h. NaN stays NaN. */
LORE_INLINE vf vf_tanh(vf x)
{
    const vf z = vf_max(vf_set(-7.90531110763549805f), vf_min(vf_set(7.90531110763549805f), x));
    const vf s = vf_mul(z, z);
    vf p = vf_set(-2.76076847742355e-16f);
    p = vf_fma(p, s, vf_set(2.00018790482477e-13f));
    p = vf_fma(p, s, vf_set(-8.60467152213735e-11f));
    p = vf_fma(p, s, vf_set(5.12229709037114e-08f));
    p = vf_fma(p, s, vf_set(1.48572235717979e-05f));
    p = vf_fma(p, s, vf_set(6.37261928875436e-04f));
    p = vf_fma(p, s, vf_set(4.89352455891786e-03f));
    vf q = vf_set(1.19825839466702e-06f);
    q = vf_fma(q, s, vf_set(1.18534705686654e-04f));
    q = vf_fma(q, s, vf_set(2.26843463243900e-03f));
    q = vf_fma(q, s, vf_set(4.89352518554385e-03f));
    return vf_quotient(vf_mul(z, p), q);
}

/* Any activation of ops.h. */
LORE_INLINE vf vf_activate(vf x, const lore_activation activation)
{
    switch (activation) {
    case LORE_ACT_NONE:
        break;
    case LORE_ACT_GELU:
        return vf_gelu(x);
    case LORE_ACT_GELU_TANH:
        return vf_gelu_tanh(x);
    case LORE_ACT_SILU:
        return vf_silu(x);
    case LORE_ACT_TANH:
        return vf_tanh(x);
    }
    return x;
}

#endif
