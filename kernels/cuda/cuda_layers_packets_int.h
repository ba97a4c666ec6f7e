/* How the blocks of cuda_layers.cu tell one another what they have made, without a barrier between
 * them. What a block writes for others goes in packets of eight bytes: four of values (a float, or
 * two of bf16), four of the layer that it is of. A packet is written and read as one, so whoever
 * sees the tag has the value too: the way from block to block is one write and one read. A counter
 * would take four, one behind the other: the write, its fence, the count, and the read behind it.
 *
 * Tags go on from launch to launch (`epoch`), so packets are cleared only before these run out. Nor
 * does a packet need a second place. Who writes one anew has read whole rows of this layer, which
 * hang on all that was read of the layer before: a product's whole rows of all blocks that have a
 * tile of it, and those that have none read no rows; what the units of an attention leave hangs on
 * all parts of a head.
 *
 * Source: the protocol "LL" of NCCL, for small messages. */
#ifndef LORE_KERNELS_CUDA_LAYERS_PACKETS_INT_H
#define LORE_KERNELS_CUDA_LAYERS_PACKETS_INT_H

#include "kernels/cuda/cuda_layers_int.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ void put_packet(uint64_t *to, uint32_t value, uint32_t tag)
{
    asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"((uint64_t)tag << 32 | value)
                 : "memory");
}

static __device__ __forceinline__ uint64_t read_packet(const uint64_t *from)
{
    uint64_t packet = 0;
    asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(packet) : "l"(from) : "memory");
    return packet;
}

/* The value of a packet that was read early, and is read again until it is that of `tag`. */
static __device__ __forceinline__ float float_of(uint64_t packet, const uint64_t *from,
                                                 uint32_t tag)
{
    while ((uint32_t)(packet >> 32) != tag) {
        packet = read_packet(from);
    }
    return __uint_as_float((uint32_t)packet);
}

/* Values of N pairs of packets, the pairs `first`, first + step ... below count, when all are of
 * `tag`; 0 from count on. */
template <int N>
static __device__ __forceinline__ void read_pairs(const uint64_t *packets, int32_t first,
                                                  int32_t step, int32_t count, uint32_t tag,
                                                  uint2 (&values)[N])
{
    uint32_t missing = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        values[i] = make_uint2(0, 0);
        missing |= first + i * step < count ? 1u << i : 0u;
    }
    for (int tries = 0; missing != 0; tries++) {
        uint2 tags[N];
        if (tries > 2) { /* who asks all the time is in the way of those who are late */
            __nanosleep(50);
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            if ((missing >> i & 1) != 0) {
                uint64_t low = 0, high = 0;
                asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
                             : "=l"(low), "=l"(high)
                             : "l"(packets + 2 * (first + i * step))
                             : "memory");
                values[i] = make_uint2((uint32_t)low, (uint32_t)high);
                tags[i] = make_uint2((uint32_t)(low >> 32), (uint32_t)(high >> 32));
            }
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            if ((missing >> i & 1) != 0 && tags[i].x == tag && tags[i].y == tag) {
                missing &= ~(1u << i);
            }
        }
    }
}

/* Values of two pairs, when both are of `tag`. */
static __device__ __forceinline__ void read_both(const uint64_t *a, const uint64_t *b, uint32_t tag,
                                                 uint2 *of_a, uint2 *of_b)
{
    bool is_whole = false;
    while (!is_whole) {
        uint64_t p[4];
        asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
                     : "=l"(p[0]), "=l"(p[1])
                     : "l"(a)
                     : "memory");
        asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
                     : "=l"(p[2]), "=l"(p[3])
                     : "l"(b)
                     : "memory");
        *of_a = make_uint2((uint32_t)p[0], (uint32_t)p[1]);
        *of_b = make_uint2((uint32_t)p[2], (uint32_t)p[3]);
        is_whole = (uint32_t)(p[0] >> 32) == tag && (uint32_t)(p[1] >> 32) == tag &&
                   (uint32_t)(p[2] >> 32) == tag && (uint32_t)(p[3] >> 32) == tag;
    }
}

/* The tag before the first layer's. */
static __device__ __forceinline__ uint32_t read_epoch(const layers_task &t)
{
    uint32_t epoch = 0;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(epoch) : "l"(t.epoch) : "memory");
    return epoch;
}

/* The last block to leave sets the next launch's epoch. Before tags run out it clears all packets,
 * whose tags could come again. All threads of the block. */
static __device__ void leave(const layers_task &t, uint32_t epoch)
{
    __shared__ bool is_last;
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(t.left, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last) {
        return;
    }
    const bool is_clearing = epoch > EPOCH_MAX;
    for (int64_t i = threadIdx.x; is_clearing && i < t.packet_count; i += THREADS) {
        t.packets[i] = 0;
    }
    if (threadIdx.x == 0) {
        *t.left = 0;
        *t.epoch = is_clearing ? 0 : epoch + (uint32_t)t.count;
    }
}

#endif

#endif
