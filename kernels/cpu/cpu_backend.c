/* `cpu`: vector units of the processor at hand, chosen at run time.
 *
 * Each instruction set is a row in the tables below; opening a backend picks the best row that the
 * machine has and the caller allows. Nothing else in the folder asks what the machine can do. */
#include "kernels/cpu/cpu_int.h"

#include "base/mem.h"

#include <stdio.h>

typedef struct isa_entry {
    lore_isa isa;
    const lore_small_loops *small;
    const lore_attention_loops *attention;
    const lore_lora_loops *lora;
    const lore_matmul_kernel *matmul; /* [LORE_MATMUL_KERNELS] */
} isa_entry;

/* Best first. */
static const isa_entry entries[] = {
#if defined(__x86_64__)
    {LORE_ISA_AMX, &lore_small_avx512, &lore_attention_avx512, &lore_lora_avx512, lore_matmul_amx},
    {LORE_ISA_AVX512, &lore_small_avx512, &lore_attention_avx512, &lore_lora_avx512,
     lore_matmul_avx512},
    {LORE_ISA_AVX2, &lore_small_avx2, &lore_attention_avx2, &lore_lora_avx2, lore_matmul_avx2},
#endif
    {LORE_ISA_SCALAR, &lore_small_scalar, &lore_attention_scalar, &lore_lora_scalar,
     lore_matmul_scalar},
};
enum { ENTRIES = sizeof entries / sizeof entries[0] };

static const lore_ops cpu_ops = {
    .name = "cpu",
    .embed = lore_cpu_embed,
    .rmsnorm = lore_cpu_rmsnorm,
    .layernorm = lore_cpu_layernorm,
    .matmul = lore_cpu_matmul,
    .glu = lore_cpu_glu,
    .add = lore_cpu_add,
    .softcap = lore_cpu_softcap,
    .rope_append = lore_cpu_rope_append,
    .rope_packed = lore_cpu_rope_packed,
    .attend_paged = lore_cpu_attend_paged,
    .attend_packed = lore_cpu_attend_packed,
    .pool = lore_cpu_pool,
    .gather = lore_cpu_gather,
    .penalise = lore_host_penalise,
    .tops = lore_cpu_tops,
    .sample = lore_cpu_sample,
    .scan = lore_cpu_scan,
    .search = lore_host_search,
};

const lore_matmul_kernel *lore_cpu_find_kernel(const lore_cpu_backend *backend,
                                               lore_packing packing)
{
    for (int32_t i = 0; i < ENTRIES; i++) {
        for (int32_t j = 0; j < LORE_MATMUL_KERNELS && entries[i].isa <= backend->isa; j++) {
            const lore_matmul_kernel *kernel = &entries[i].matmul[j];
            if (kernel->few != NULL && kernel->packing == packing &&
                (kernel->needs & ~backend->features) == 0) {
                return kernel;
            }
        }
    }
    LORE_ASSERT(false); /* the scalar entry needs nothing and has every packing */
    return NULL;
}

static void describe(lore_cpu_backend *backend, const lore_backend_options *options)
{
    static const char *const names[] = {"", "scalar", "AVX2", "AVX-512 VNNI", "AVX-512 VNNI"};
    const uint32_t found = backend->isa >= LORE_ISA_AVX512 ? backend->features : 0;
    const bool has_amx = backend->isa == LORE_ISA_AMX;
    const int32_t threads = options->pool == NULL ? 1 : lore_pool_size(options->pool);
    snprintf(backend->base.description, sizeof backend->base.description,
             "cpu: %s%s%s%s, %d thread%s", names[backend->isa],
             (found & LORE_CPU_AVX512_BF16) != 0 ? " BF16" : "",
             has_amx && (found & LORE_CPU_AMX_INT8) != 0 ? " AMX-INT8" : "",
             has_amx && (found & LORE_CPU_AMX_BF16) != 0 ? " AMX-BF16" : "", (int)threads,
             threads == 1 ? "" : "s");
}

static lore_status cpu_open(const lore_backend_options *options, lore_backend **backend,
                            lore_error *err)
{
    const uint32_t features = lore_cpu_features();
    const lore_isa best = lore_cpu_best_isa(features);
    if (options->isa > best) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED, "this machine has no %s (its best is %s)",
                         lore_isa_name(options->isa), lore_isa_name(best));
    }
    lore_cpu_backend *opened = lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the cpu backend");
    }
    opened->features = features;
    opened->isa = options->isa == LORE_ISA_AUTO ? best : options->isa;
    for (int32_t i = ENTRIES - 1; i >= 0; i--) {
        if (entries[i].isa <= opened->isa) {
            opened->small = entries[i].small;
            opened->attention = entries[i].attention;
            opened->lora = entries[i].lora;
        }
    }
    opened->attention_bf16 = opened->attention;
#if defined(__x86_64__)
    if (opened->isa >= LORE_ISA_AVX512 && (features & LORE_CPU_AVX512_BF16) != 0) {
        opened->attention_bf16 = &lore_attention_bf16_avx512;
        opened->lora = &lore_lora_avx512_bf16;
    }
#endif
    describe(opened, options);
    *backend = &opened->base;
    return LORE_OK;
}

static void cpu_close(lore_backend *backend)
{
    lore_free(backend);
}

static lore_status cpu_queue_open(lore_backend *backend, lore_queue **queue, lore_error *err)
{
    return lore_host_queue_open(backend, &cpu_ops, queue, err);
}

const lore_backend_driver lore_cpu_driver = {
    .kind = LORE_BACKEND_CPU,
    .open = cpu_open,
    .close = cpu_close,
    .queue_open = cpu_queue_open,
    .queue_close = lore_host_queue_close,
    .queue_begin = lore_host_queue_begin,
    .queue_wait = lore_host_queue_wait,
    .memory_alloc = lore_host_alloc,
    .memory_free = lore_host_free,
    .upload = lore_host_upload,
    .download = lore_host_download,
    .weight_pack = lore_cpu_weight_pack,
    .weight_free = lore_cpu_weight_free,
    .lora_bytes = lore_cpu_lora_bytes,
    .lora_pack = lore_cpu_lora_pack,
};
