/* All layers of a decoder for few rows, in one kernel that stays: one block a multiprocessor, which
 * never stops reading weights. Between two kernels the memory would rest for some microseconds,
 * five times a layer; here one warp of each block copies the weights, layer after layer, into a
 * ring in shared memory as fast as they are used up, whatever the other warps wait for. What those
 * wait for is one another: a product needs the rows that all blocks have made.
 *
 *   qkv | attention | out | gate and up | down        `|`: all blocks wait for all
 *
 * A ring of 180 KB a multiprocessor holds five microseconds of reading, about what such a wait
 * takes. But no more than UNDER_WAY chunks are asked for at a time: these keep the memory busy, and
 * what the waits depend on would stand in line behind more (7B, one row: 4.0 ms a step instead
 * of 4.4). A row of a chunk has two kilobytes, since copies of one get three quarters of the rate.
 *
 * Products: a tile is sixteen rows of w (eight of gate and the same eight of up), a chunk is COLS
 * elements of these. Tiles go round the blocks, from one matrix on to the next, so that all blocks
 * read as much. A warp takes 64 elements of a chunk at a time, as columns of the tensor core's
 * operand; the rows, at most ROWS_MAX, are its other one (cuda_few.cu says which lane holds what).
 * The warps' sums are added in the same order always. Attention: cuda_layers_attention_int.h.
 *
 * Rows in global memory that other blocks have written are read past the first cache (__ldcg). What
 * a layer reads beside its weights has long left the second one when its turn comes: it is asked
 * for a product ahead, or kept in shared memory where it is the same for all layers.
 *
 * Source: PTX ISA, cp.async.bulk, for the ring. */
#include "kernels/cuda/cuda_layers_attention_int.h"
#include "kernels/cuda/cuda_layers_products_int.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- the kernel ---- */

struct shared_memory {
    uint64_t full[SLOTS_MAX], empty[SLOTS_MAX];
    float parts[ROWS_MAX * WARPS];
    kept same;
};

template <int E, int GROUP>
static __device__ void compute(const layers_task &t, ring r, char *region, float *sum_memory,
                               shared_memory *shared)
{
    float *parts = shared->parts;
    bf16 *x = (bf16 *)region;
    const uint32_t epoch = read_epoch(t);
    int32_t before = 0;
    keep(t, &shared->same);
    for (int32_t i = 0; i < PRODUCTS * t.count; i++) {
        const int32_t layer = i / PRODUCTS, which = i % PRODUCTS;
        const layer_data &l = t.layers[layer];
        const uint32_t tag = epoch + 1 + (uint32_t)layer;
        const matrix m = matrix_of(t, layer, which, E);
        lore_named_sync(BARRIER, COMPUTING); /* the region is free again */
        if (which == QKV) {
            ask_for_keys<E>(t, l, shared->same);
            ask_for_norms<E>(t, layer);
        } else if (which == OUT) {
            attend<E, GROUP>(t, l, shared->same, tag, (float *)region);
        }
        if (first_tile(before) < m.tiles) {
            if (which == QKV) {
                load_normed(t, layer > 0 ? t.passed : NULL, tag - 1, l.attention_norm, x, parts);
            } else if (which == GATE_UP) {
                load_normed(t, t.attended, tag, l.ffn_norm, x, parts);
            } else {
                load_rows(which == OUT ? t.mixed : t.hidden, tag, t.rows, m.depth, x);
            }
            run_product(t, layer, tag, which, m, before, &r, x, sum_memory, parts);
        }
        before = (before + m.tiles) % (int32_t)gridDim.x;
    }
    leave(t, epoch);
}

template <int E, int GROUP>
static __global__ void __launch_bounds__(THREADS, 1)
    layers_kernel(const __grid_constant__ layers_task t)
{
    extern __shared__ __align__(128) char memory[];
    __shared__ shared_memory shared;
    char *region = memory + t.slots * CHUNK;
    ring r = {memory, shared.full, shared.empty, t.slots, 0, 0};
    if (threadIdx.x == 0) {
        for (int i = 0; i < t.slots; i++) {
            lore_barrier_init(&shared.full[i], 1);
            lore_barrier_init(&shared.empty[i], WARPS);
        }
        lore_fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x >= COMPUTING) {
        copy_weights(t, r, E);
    } else {
        compute<E, GROUP>(t, r, region, (float *)(region + t.region_bytes), &shared);
    }
}

#else

template <int E, int GROUP> static __global__ void layers_kernel(const layers_task t)
{
    (void)t;
    __trap();
}

#endif

/* ---- launching ---- */

static bool is_bf16(const lore_weight *weight)
{
    const lore_cuda_weight *w = (const lore_cuda_weight *)weight;
    return w->dtype == LORE_BF16 && w->scales == NULL && w->base.cols % 64 == 0;
}

static bool is_usable(const lore_queue *queue, lore_view x, const lore_layers *layers,
                      const lore_batch *batch)
{
    const lore_pages *pages = &layers->layers[0].pages;
    const int32_t e = pages->head_dim, group = layers->rope.heads / pages->kv_heads;
    bool is_one = lore_cuda_backend_of(queue)->encode_tensor_map != NULL && layers->count > 0 &&
                  layers->count <= LAYERS_MAX && batch->rows > 0 && batch->rows <= ROWS_MAX &&
                  batch->rows_max == 1 && batch->rows == batch->sequences &&
                  (e == 32 || e == 64 || e == 128) && group >= 1 && group <= 8 &&
                  x.dtype == LORE_F32 && x.cols % 64 == 0 && lore_is_aligned(x, 2);
    for (int32_t i = 0; i < layers->count && is_one; i++) {
        const lore_layer *l = &layers->layers[i];
        is_one = is_bf16(l->qkv) && is_bf16(l->out) && is_bf16(l->gate_up) && is_bf16(l->down) &&
                 l->pages.dtype == LORE_BF16 && l->pages.head_dim == e &&
                 l->pages.kv_heads == pages->kv_heads &&
                 l->pages.page_tokens == pages->page_tokens && l->attention.softcap == 0.0f &&
                 l->attention.scale == layers->layers[0].attention.scale;
    }
    return is_one;
}

static void fill_task(layers_task *t, lore_view x, const lore_layers *layers,
                      const lore_batch *batch)
{
    const lore_pages *pages = &layers->layers[0].pages;
    for (int32_t i = 0; i < layers->count; i++) {
        const lore_layer *l = &layers->layers[i];
        layer_data *to = &t->layers[i];
        to->qkv = (const bf16 *)((const lore_cuda_weight *)l->qkv)->values;
        to->out = (const bf16 *)((const lore_cuda_weight *)l->out)->values;
        to->gate_up = (const bf16 *)((const lore_cuda_weight *)l->gate_up)->values;
        to->down = (const bf16 *)((const lore_cuda_weight *)l->down)->values;
        to->attention_norm = l->attention_norm;
        to->ffn_norm = l->ffn_norm;
        to->qkv_bias = l->qkv_bias;
        to->q_norm = l->q_norm;
        to->k_norm = l->k_norm;
        to->keys = (bf16 *)l->pages.keys;
        to->values = (bf16 *)l->pages.values;
        to->window = l->attention.window;
    }
    t->count = layers->count;
    t->rows = batch->rows;
    t->width = x.cols;
    t->ffn = layers->hidden.cols;
    t->heads = layers->rope.heads;
    t->kv_heads = pages->kv_heads;
    t->group = t->heads / t->kv_heads;
    t->page_tokens = pages->page_tokens;
    t->activation = layers->activation;
    t->eps = layers->eps;
    t->factor = layers->layers[0].attention.scale * LORE_LOG2_E;
    t->rope = layers->rope;
    t->past = batch->past;
    t->page_start = batch->page_start;
    t->pages = batch->pages;
    t->x = x.data;
    t->x_stride = x.stride;
}

/* How many parts the keys of a head have: where there are several, each has a block. */
static int32_t parts_of(const layers_task *t, int32_t blocks, int32_t context_max)
{
    const int32_t useful = (context_max + PART_KEYS - 1) / PART_KEYS;
    int32_t parts = blocks / (t->rows * t->kv_heads);
    parts = parts < useful ? parts : useful;
    parts = parts < PARTS_MAX ? parts : (int32_t)PARTS_MAX;
    return parts > 1 ? parts : 1;
}

/* Places in the queue's packets, as many as these rows need. False: there is no memory. */
static bool place_packets(lore_queue *queue, layers_task *t, int32_t head_dim)
{
    const int64_t width = (int64_t)t->rows * t->width, heads = (int64_t)t->rows * t->heads;
    const int64_t qkv = (heads + 2 * (int64_t)t->rows * t->kv_heads) * head_dim / 2;
    const int64_t mixed = heads * head_dim / 2, hidden = (int64_t)t->rows * t->ffn / 2;
    const int64_t parts = heads * t->parts;
    uint64_t *at = NULL;
    t->packet_count = 2 * width + qkv + mixed + hidden + parts * (head_dim + 2);
    t->epoch = lore_cuda_packets(queue, (size_t)t->packet_count, &at);
    if (t->epoch == NULL) {
        return false;
    }
    t->left = t->epoch + 1;
    t->packets = at;
    t->attended = at;
    t->passed = t->attended + width;
    t->qkv = t->passed + width;
    t->mixed = t->qkv + qkv;
    t->hidden = t->mixed + mixed;
    t->part_mixed = t->hidden + hidden;
    t->part_sums = t->part_mixed + parts * head_dim;
    return true;
}

/* Shared memory: the ring takes what rows and sums leave. 0 where that is too little. */
static size_t divide_memory(layers_task *t, int32_t head_dim)
{
    const int32_t mixed = t->heads * head_dim;
    const int32_t widest = t->width > t->ffn ? (t->width > mixed ? t->width : mixed)
                                             : (t->ffn > mixed ? t->ffn : mixed);
    const int32_t rows = t->rows * (widest + PAD) * (int32_t)sizeof(bf16);
    const int32_t attention =
        (head_dim + t->group * (head_dim + WARPS * (head_dim + 2))) * (int32_t)sizeof(float);
    const int32_t sums = 2 * WARPS * WIDE * t->rows * (int32_t)sizeof(float);
    t->region_bytes = ((rows > attention ? rows : attention) + 127) / 128 * 128;
    const int32_t left = SHARED_BYTES - STATIC_BYTES - t->region_bytes - sums;
    t->slots = left / CHUNK < SLOTS_MAX ? left / CHUNK : (int32_t)SLOTS_MAX;
    return left < SLOTS_MIN * CHUNK ? 0 : (size_t)(t->slots * CHUNK + t->region_bytes + sums);
}

typedef void (*layers_function)(layers_task);

template <int E> static layers_function kernel_of(int32_t group)
{
    return group == 1   ? layers_kernel<E, 1>
           : group == 2 ? layers_kernel<E, 2>
           : group <= 4 ? layers_kernel<E, 4>
                        : layers_kernel<E, 8>;
}

/* All blocks have to be there at once, since they wait for one another: a cooperative launch is
 * refused or put off where they would not be. */
static cudaError_t launch(lore_queue *queue, const layers_task &t, int32_t head_dim,
                          size_t shared_bytes)
{
    const layers_function kernel = head_dim == 32   ? kernel_of<32>(t.group)
                                   : head_dim == 64 ? kernel_of<64>(t.group)
                                                    : kernel_of<128>(t.group);
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    config.gridDim = dim3((unsigned)lore_cuda_backend_of(queue)->processors);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = lore_cuda_queue_of(queue)->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    const cudaError_t error =
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             SHARED_BYTES - STATIC_BYTES);
    return error != cudaSuccess ? error : cudaLaunchKernelEx(&config, kernel, t);
}

bool lore_cuda_layers(lore_queue *queue, lore_view x, const lore_layers *layers,
                      const lore_batch *batch)
{
    layers_task t = {};
    if (layers->count == 0 || !is_usable(queue, x, layers, batch)) {
        return false;
    }
    const int32_t head_dim = layers->layers[0].pages.head_dim;
    fill_task(&t, x, layers, batch);
    const size_t shared_bytes = divide_memory(&t, head_dim);
    if (shared_bytes == 0) {
        return false;
    }
    t.parts = parts_of(&t, lore_cuda_backend_of(queue)->processors, batch->context_max);
    if (place_packets(queue, &t, head_dim)) {
        LORE_CUDA_NOTE(queue, launch(queue, t, head_dim, shared_bytes));
    }
    return true;
}
