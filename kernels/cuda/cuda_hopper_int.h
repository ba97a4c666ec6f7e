/* Instructions that only Hopper has (sm_90a), each under a name: barriers in shared memory that the
 * copy engine completes, its copies of boxes, products of a warpgroup (four warps that come
 * together), and registers handed from one warpgroup to another. PTX ISA: mbarrier,
 * cp.async.bulk.tensor, wgmma, setmaxnreg. */
#ifndef LORE_KERNELS_CUDA_HOPPER_INT_H
#define LORE_KERNELS_CUDA_HOPPER_INT_H

#include <cuda.h> /* types of tensor maps; their encoder is the driver's, found at run time */
#include <stdint.h>

enum { LORE_SWIZZLE_BYTES = 1024 }; /* the 128-byte swizzle begins again; tiles are aligned to it */

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ uint32_t lore_shared_address(const void *memory)
{
    return (uint32_t)__cvta_generic_to_shared(memory);
}

static __device__ __forceinline__ void lore_barrier_init(uint64_t *barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(lore_shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

/* One arrival, and bytes to wait for. */
static __device__ __forceinline__ void lore_barrier_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     lore_shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

/* One arrival of those lanes that say so; no branch, since products must follow in step. */
static __device__ __forceinline__ void lore_barrier_arrive_if(uint64_t *barrier, bool is_arriving)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %1, 0;\n"
                 "@p mbarrier.arrive.shared::cta.b64 _, [%0];\n"
                 "}" ::"r"(lore_shared_address(barrier)),
                 "r"((uint32_t)is_arriving)
                 : "memory");
}

/* Until phase `parity` is complete; parity 1 of a new barrier is. */
static __device__ __forceinline__ void lore_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    uint32_t is_complete = 0;
    while (is_complete == 0) {
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.b32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(is_complete)
                     : "r"(lore_shared_address(barrier)), "r"(parity)
                     : "memory");
    }
}

/* New barriers are seen by the copy engine. */
static __device__ __forceinline__ void lore_fence_barrier_init()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Ordinary stores to shared memory are seen by products that come after. */
static __device__ __forceinline__ void lore_fence_stores()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void lore_named_sync(int barrier, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

static __device__ __forceinline__ void lore_named_arrive(int barrier, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

template <int count> static __device__ __forceinline__ void lore_take_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

template <int count> static __device__ __forceinline__ void lore_give_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

/* A map will be needed soon. */
static __device__ __forceinline__ void lore_prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* The box at (column, row) of a map to shared memory. */
static __device__ __forceinline__ void lore_copy_box(void *to, const CUtensorMap *map,
                                                     int32_t column, int32_t row, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(lore_shared_address(to)),
                 "l"(map), "r"(column), "r"(row), "r"(lore_shared_address(barrier))
                 : "memory");
}

/* Registers that a product is about to read or add to hold what was put there. */
static __device__ __forceinline__ void lore_products_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void lore_products_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most `left` of the groups committed are under way. */
template <int left> static __device__ __forceinline__ void lore_products_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

/* Nothing that reads these registers comes before this line. */
template <int count> static __device__ __forceinline__ void lore_pin(float (&d)[count])
{
#pragma unroll
    for (int i = 0; i < count; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

#define OPERANDS_8(d, i)                                                        \
    "+f"((d)[(i)]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3]), \
        "+f"((d)[(i) + 4]), "+f"((d)[(i) + 5]), "+f"((d)[(i) + 6]), "+f"((d)[(i) + 7])
#define OPERANDS_32(d, i) \
    OPERANDS_8(d, i), OPERANDS_8(d, (i) + 8), OPERANDS_8(d, (i) + 16), OPERANDS_8(d, (i) + 24)
#define NAMES_0_TO_31                                                   \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, " \
    "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, " \
    "%28, %29, %30, %31"
#define NAMES_32_TO_63                                                  \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, " \
    "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, " \
    "%58, %59, %60, %61, %62, %63"

/* d (+)= a b^T: a [64, 16] and b [128, 16] of bf16 in shared memory, both along their rows. */
template <bool is_adding>
static __device__ __forceinline__ void lore_multiply_rows(float (&d)[64], uint64_t a, uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_0_TO_31
                 ", " NAMES_32_TO_63 "}, %64, %65, p, 1, 1, 0, 0;\n"
                 "}"
                 : OPERANDS_32(d, 0), OPERANDS_32(d, 32)
                 : "l"(a), "l"(b), "n"(is_adding ? 1 : 0));
}

/* d += a b: a [64, 16] in registers, b [16, 128] or [16, 64] in shared memory, along its columns.
 */
static __device__ __forceinline__ void lore_multiply_columns(float (&d)[64], const uint32_t a[4],
                                                             uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_0_TO_31
                 ", " NAMES_32_TO_63 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n"
                 "}"
                 : OPERANDS_32(d, 0), OPERANDS_32(d, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(1));
}

static __device__ __forceinline__ void lore_multiply_columns(float (&d)[32], const uint32_t a[4],
                                                             uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_0_TO_31
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n"
                 "}"
                 : OPERANDS_32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(1));
}

/* A tile of [rows][64] in the 128-byte swizzle, for a product. `leading` is the distance of the
 * next 64 columns where it is read down its columns; the next 8 rows are LORE_SWIZZLE_BYTES away.
 * 16 columns further in a row are 32 bytes; PTX ISA, matrix descriptor: bits 62-63 = 1 for this
 * swizzle. */
static __device__ __forceinline__ uint64_t lore_describe(const void *tile, uint32_t leading)
{
    return (uint64_t)(lore_shared_address(tile) >> 4) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(LORE_SWIZZLE_BYTES >> 4) << 32 | (uint64_t)1 << 62;
}

#endif

#endif
