/* What this processor offers, asked of the processor itself.
 *
 * Only CPUID feature bits count, together with XGETBV (does the operating system save these
 * registers?) and, for AMX, the kernel's leave to use tile memory (arch_prctl, Linux 5.16). Family
 * and model numbers are not looked at: virtual machines lie about them. Asked once per process; the
 * leave for tiles holds for all its threads. */
#include "kernels/cpu/cpu_int.h"

#include <pthread.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, asm/prctl.h */

static uint64_t enabled_state(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has_all(uint64_t set, uint64_t wanted)
{
    return (set & wanted) == wanted;
}

static uint32_t detect(void)
{
    const uint64_t avx_state = 0x6, avx512_state = 0xe6, tile_state = 0x60000;
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) {
        return 0;
    }
    const uint64_t state = enabled_state();
    const bool has_fma = has_all(c, bit_AVX | bit_FMA | bit_F16C);
    if (!has_all(state, avx_state) || !has_fma || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) {
        return 0;
    }
    uint32_t found = 0;
    if ((b & bit_AVX2) != 0) {
        found |= LORE_CPU_AVX2;
    }
    const uint32_t avx512_bits = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if (found == 0 || !has_all(state, avx512_state) || !has_all(b, avx512_bits) ||
        (c & bit_AVX512VNNI) == 0) {
        return found;
    }
    found |= LORE_CPU_AVX512;
    uint32_t a1 = 0, b1, c1, d1;
    if (a >= 1 && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) != 0 && (a1 & bit_AVX512BF16) != 0) {
        found |= LORE_CPU_AVX512_BF16;
    }
    const uint32_t tile = 1u << 24, tile_int8 = 1u << 25, tile_bf16 = 1u << 22;
    if (has_all(d, tile) && has_all(state, tile_state) &&
        syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0) {
        found |= (d & tile_int8) != 0 ? LORE_CPU_AMX_INT8 : 0;
        found |=
            has_all(found, LORE_CPU_AVX512_BF16) && (d & tile_bf16) != 0 ? LORE_CPU_AMX_BF16 : 0;
    }
    return found;
}

#else

static uint32_t detect(void)
{
    return 0;
}

#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint32_t features;

static void detect_once(void)
{
    features = detect();
}

uint32_t lore_cpu_features(void)
{
    pthread_once(&once, detect_once);
    return features;
}

lore_isa lore_cpu_best_isa(uint32_t found)
{
    if ((found & (LORE_CPU_AMX_INT8 | LORE_CPU_AMX_BF16)) != 0) {
        return LORE_ISA_AMX;
    }
    if ((found & LORE_CPU_AVX512) != 0) {
        return LORE_ISA_AVX512;
    }
    return (found & LORE_CPU_AVX2) != 0 ? LORE_ISA_AVX2 : LORE_ISA_SCALAR;
}

lore_isa lore_backend_isa(void)
{
    return lore_cpu_best_isa(lore_cpu_features());
}
