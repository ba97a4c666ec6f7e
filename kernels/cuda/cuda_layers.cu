/* All layers of a decoder for few rows, in one kernel that stays: one block a multiprocessor, which
 * never stops reading weights. Between two kernels the memory would rest for some microseconds,
 * five times a layer. Here a block has three kinds of warps, each of which walks through all layers
 * at its own pace:
 *
 *   one copies the weights of all that the block will multiply into a ring in shared memory, as
 *   fast as they are used up, whatever the others wait for;
 *   eight compute: they wait for the rows that a product needs, which all blocks have made, and
 *   multiply, or they are an attention's;
 *   one adds up their sums and puts the results where all blocks see them.
 *
 *   qkv | attention | out | gate and up | down        `|`: rows go from all blocks to all
 *
 * Rows go in packets that carry the layer they are of (cuda_layers_packets_int.h), so a row is read
 * as soon as it is there. The ring holds five microseconds of reading, more than most of these ways
 * take. But no more than UNDER_WAY chunks are asked for at a time: these keep the memory busy, and
 * packets would stand in line behind more. A row of a chunk has two kilobytes, since copies of one
 * get three quarters of the rate; one thread asks for all rows of a chunk from addresses that the
 * whole warp has, since the compiler makes a slow loop of copies whose addresses differ by lane.
 *
 * Products: a tile is sixteen rows of w (eight of gate and the same eight of up), a chunk is COLS
 * elements of eight of these. Tiles go round the blocks, from one matrix on to the next, so that
 * all blocks read as much. A warp takes 64 elements of a chunk at a time, as rows of the tensor
 * core's first operand; the rows of x, at most ROWS_MAX, are the columns of its other one. The
 * warps' sums are added in the same order always. Attention: cuda_layers_attention_int.h.
 *
 * What a layer reads beside its weights has long left the second cache when its turn comes: it is
 * asked for a product ahead, or kept in shared memory where it is the same for all layers.
 *
 * Source: PTX ISA, cp.async.bulk, for the ring. */
#include "kernels/cuda/cuda_layers_attention_int.h"
#include "kernels/cuda/cuda_layers_products_int.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- the kernel ---- */

struct shared_memory {
    uint64_t full[SLOTS_MAX], empty[SLOTS_MAX]; /* of the ring, */
    uint64_t put_full[TURNS], put_empty[TURNS]; /* and of sums */
    float squares[2][ROWS_MAX * WARPS];         /* of the rows of each norm, a part a warp */
    kept same;
};

/* The warps that compute. */
template <int E>
static __device__ void compute(const layers_task &t, const layer_data *layers, uint32_t epoch,
                               ring r, sums_ring s, char *region, shared_memory *shared)
{
    bf16 *x = (bf16 *)region;
    int32_t before = 0;
    keep(t, &shared->same);
    for (int32_t i = 0; i < PRODUCTS * t.count; i++) {
        const int32_t layer = i / PRODUCTS, which = i % PRODUCTS;
        const layer_data &l = layers[layer];
        const uint32_t tag = epoch + 1 + (uint32_t)layer;
        const matrix m = matrix_of(t, l, which, E);
        float *squares = shared->squares[which / 2];
        lore_named_sync(BARRIER, COMPUTING); /* the region is free again */
        if (which == QKV) {
            ask_for_keys<E>(t, l, shared->same);
            ask_for_norms<E>(t, layers, layer);
        } else if (which == OUT) {
            attend<E>(t, l, shared->same, tag, region);
        }
        if (first_tile(before) < m.tiles) {
            if (which == QKV) {
                load_normed(t, layer > 0 ? t.passed : NULL, tag - 1, l.attention_norm, x, squares);
            } else if (which == GATE_UP) {
                load_normed(t, t.attended, tag, l.ffn_norm, x, squares);
            } else {
                load_rows(which == OUT ? t.mixed : t.hidden, tag, t.rows, m.depth, x);
            }
            run_product(t, m, before, &r, x, &s);
        }
        before = (before + m.tiles) % (int32_t)gridDim.x;
    }
}

/* Dynamic memory, in order: the ring, the region of the rows or an attention, sums, layers. */
template <int E>
static __global__ void __launch_bounds__(THREADS, 1)
    layers_kernel(const __grid_constant__ layers_task t)
{
    extern __shared__ __align__(128) char memory[];
    __shared__ shared_memory shared;
    char *region = memory + t.slots * CHUNK;
    float *sums = (float *)(region + t.region_bytes);
    layer_data *layers = (layer_data *)(sums + TURNS * WARPS * WIDE * t.rows);
    const uint32_t epoch = read_epoch(t);
    const int32_t warp = (int32_t)threadIdx.x / 32;
    for (int32_t i = (int32_t)threadIdx.x; i < t.count; i += THREADS) {
        layers[i] = t.layers[i];
    }
    if (threadIdx.x == 0) {
        for (int i = 0; i < t.slots; i++) {
            lore_barrier_init(&shared.full[i], 1);
            lore_barrier_init(&shared.empty[i], WARPS);
        }
        for (int i = 0; i < TURNS; i++) {
            lore_barrier_init(&shared.put_full[i], WARPS);
            lore_barrier_init(&shared.put_empty[i], 1);
        }
        lore_fence_barrier_init();
    }
    __syncthreads();
    const ring r = {memory, shared.full, shared.empty, t.slots, 0, 0};
    const sums_ring s = {sums, shared.put_full, shared.put_empty, 0, 0};
    if (warp < WARPS) {
        compute<E>(t, layers, epoch, r, s, region, &shared);
    } else if (warp == WARPS) {
        copy_weights(t, layers, r, E);
    } else {
        put_sums(t, layers, epoch, s, shared.squares, E);
    }
    leave(t, epoch);
}

#else

template <int E> static __global__ void layers_kernel(const layers_task t)
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
                  (e == 32 || e == 64 || e == 128) && group >= 1 && group <= GROUP_MAX &&
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
    t->ffn = ((const lore_cuda_weight *)layers->layers[0].down)->base.cols;
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

/* Shared memory: the ring takes what the others leave. 0 where that is too little. */
static size_t divide_memory(layers_task *t, int32_t head_dim)
{
    const int32_t mixed = t->heads * head_dim;
    const int32_t widest = t->width > t->ffn ? (t->width > mixed ? t->width : mixed)
                                             : (t->ffn > mixed ? t->ffn : mixed);
    const int32_t rows = t->rows * (widest + PAD) * (int32_t)sizeof(bf16);
    const int32_t attention = attention_bytes(t->group, head_dim);
    const int32_t sums = TURNS * WARPS * WIDE * t->rows * (int32_t)sizeof(float);
    const int32_t layers = t->count * (int32_t)sizeof(layer_data);
    t->region_bytes = ((rows > attention ? rows : attention) + 127) / 128 * 128;
    const int32_t others = t->region_bytes + sums + layers;
    const int32_t left = SHARED_BYTES - STATIC_BYTES - others;
    t->slots = left / CHUNK < SLOTS_MAX ? left / CHUNK : (int32_t)SLOTS_MAX;
    return left < SLOTS_MIN * CHUNK ? 0 : (size_t)(t->slots * CHUNK + others);
}

typedef void (*layers_function)(layers_task);

/* All blocks have to be there at once, since they wait for one another: a cooperative launch is
 * refused or put off where they would not be. */
static cudaError_t launch(lore_queue *queue, const layers_task &t, int32_t head_dim,
                          size_t shared_bytes)
{
    const layers_function kernel = head_dim == 32   ? layers_kernel<32>
                                   : head_dim == 64 ? layers_kernel<64>
                                                    : layers_kernel<128>;
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
