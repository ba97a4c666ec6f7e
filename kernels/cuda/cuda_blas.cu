/* cuBLASLt behind a fence: loaded when a GPU is opened, because it is half a gigabyte that a
 * machine without a GPU need neither have nor map. Only the functions listed here are used. Each
 * queue has one of its own: queues run side by side, and neither a workspace nor a table of plans
 * bears that.
 *
 * The library's choice of an algorithm costs tens of microseconds, so choices are kept: a table of
 * plans keyed by the shape, direct-mapped, where a newcomer takes the place of the one before. */
#include "kernels/cuda/cuda_int.h"

#include "base/mem.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <string.h>

#define LORE_BLAS_FUNCTIONS(X)               \
    X(cublasLtCreate)                        \
    X(cublasLtDestroy)                       \
    X(cublasLtMatmul)                        \
    X(cublasLtMatmulAlgoGetHeuristic)        \
    X(cublasLtMatmulDescInit_internal)       \
    X(cublasLtMatmulDescSetAttribute)        \
    X(cublasLtMatrixLayoutInit_internal)     \
    X(cublasLtMatmulPreferenceInit_internal) \
    X(cublasLtMatmulPreferenceSetAttribute)  \
    X(cublasLtGetStatusString)

enum {
    PLANS = 512,
    WORKSPACE_BYTES = 32 << 20,
    BIAS_OUTS = 1 << 16 /* most outputs whose bias may be rounded */
};

/* What an algorithm depends on. */
typedef struct plan_key {
    int32_t rows, depth, outs, dtype, out_dtype;
    int32_t has_bias;
    int64_t x_stride, out_stride;
    int32_t alignment; /* of the worst of the three pointers, at most 256 */
    int32_t is_accumulating;
} plan_key;

typedef struct plan {
    plan_key key;
    bool is_known, is_possible;
    cublasLtMatmulAlgo_t algorithm;
} plan;

struct lore_cuda_blas {
    void *library;
    cublasLtHandle_t handle;
    void *workspace;
    __nv_bfloat16 *bias; /* [BIAS_OUTS], behind it: the library wants a bias of out's type */
    plan plans[PLANS];
#define LORE_BLAS_FIELD(name) decltype(&::name) name;
    LORE_BLAS_FUNCTIONS(LORE_BLAS_FIELD)
};

/* ---- the library ---- */

static bool load_functions(lore_cuda_blas *blas)
{
#define LORE_BLAS_LOAD(function)                                                \
    blas->function = (decltype(blas->function))dlsym(blas->library, #function); \
    if (blas->function == NULL) {                                               \
        return false;                                                           \
    }
    LORE_BLAS_FUNCTIONS(LORE_BLAS_LOAD)
    return true;
}

/* The major version of the toolkit's: structs differ between them. */
void *lore_cuda_blas_load(void)
{
    static const char *const places[] = {"libcublasLt.so.13",
                                         "/usr/local/cuda/lib64/libcublasLt.so.13"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof places / sizeof places[0] && library == NULL; i++) {
        library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    }
    return library;
}

lore_status lore_cuda_blas_open(lore_cuda_blas **blas, lore_error *err)
{
    void *library = lore_cuda_blas_load();
    if (library == NULL) {
        return lore_fail(err, LORE_ERR_DEVICE, "cuBLASLt cannot be loaded: %s", dlerror());
    }
    lore_cuda_blas *opened = (lore_cuda_blas *)lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        dlclose(library);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for cuBLASLt");
    }
    opened->library = library;
    if (!load_functions(opened) || opened->cublasLtCreate(&opened->handle) != 0) {
        lore_cuda_blas_close(opened);
        return lore_fail(err, LORE_ERR_DEVICE, "cuBLASLt is not the one this lore was built for");
    }
    const cudaError_t error =
        cudaMalloc(&opened->workspace, WORKSPACE_BYTES + BIAS_OUTS * sizeof(__nv_bfloat16));
    if (error != cudaSuccess) {
        lore_cuda_blas_close(opened);
        return lore_cuda_fail(err, error, "no GPU memory for cuBLASLt");
    }
    opened->bias = (__nv_bfloat16 *)((char *)opened->workspace + WORKSPACE_BYTES);
    *blas = opened;
    return LORE_OK;
}

void lore_cuda_blas_close(lore_cuda_blas *blas)
{
    if (blas == NULL) {
        return;
    }
    if (blas->handle != NULL) {
        (void)blas->cublasLtDestroy(blas->handle);
    }
    (void)cudaFree(blas->workspace);
    dlclose(blas->library);
    lore_free(blas);
}

/* ---- a product ----
 * cuBLASLt counts columns first: out^T [o, n] = w [o, d] x^T [d, n], where w lies as [d, o] with
 * leading dimension d, transposed. */

typedef struct operands {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t w, x, out;
} operands;

static cudaDataType_t type_of(lore_dtype dtype)
{
    return dtype == LORE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* A bias for each output, of out's type. */
static cublasStatus_t describe_bias(lore_cuda_blas *blas, const void *bias, cudaDataType_t type,
                                    operands *o)
{
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const int32_t type_number = (int32_t)type;
    cublasStatus_t s = blas->cublasLtMatmulDescSetAttribute(
        &o->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (s == 0) {
        s = blas->cublasLtMatmulDescSetAttribute(&o->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                                 &type_number, sizeof type_number);
    }
    if (s == 0) {
        s = blas->cublasLtMatmulDescSetAttribute(&o->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                 (const void *)&bias, sizeof bias);
    }
    return s;
}

static cublasStatus_t describe(lore_cuda_blas *blas, const lore_cuda_product *p, operands *o)
{
    const cudaDataType_t type = type_of(p->dtype);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const uint64_t depth = (uint64_t)p->depth, outs = (uint64_t)p->out.cols,
                   rows = (uint64_t)p->out.rows;
    memset(o, 0, sizeof *o);
    cublasStatus_t s = blas->cublasLtMatmulDescInit_internal(&o->product, sizeof o->product,
                                                             CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == 0) {
        s = blas->cublasLtMatmulDescSetAttribute(&o->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                                 &transposed, sizeof transposed);
    }
    if (s == 0) {
        s = blas->cublasLtMatrixLayoutInit_internal(&o->w, sizeof o->w, type, depth, outs,
                                                    (int64_t)depth);
    }
    if (s == 0) {
        s = blas->cublasLtMatrixLayoutInit_internal(&o->x, sizeof o->x, type, depth, rows,
                                                    p->x_stride);
    }
    if (s == 0) {
        s = blas->cublasLtMatrixLayoutInit_internal(&o->out, sizeof o->out, type_of(p->out.dtype),
                                                    outs, rows, p->out.stride);
    }
    if (s == 0 && p->bias != NULL) {
        const bool is_f32 = p->out.dtype == LORE_F32;
        s = describe_bias(blas, is_f32 ? (const void *)p->bias : blas->bias, type_of(p->out.dtype),
                          o);
    }
    return s;
}

static int32_t alignment_of(const void *a, const void *b, const void *c)
{
    const size_t all = (size_t)a | (size_t)b | (size_t)c | 256;
    return (int32_t)(all & ~(all - 1));
}

static cublasStatus_t choose(lore_cuda_blas *blas, const plan_key *key, operands *o, plan *chosen)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t found;
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t alignment = (uint32_t)key->alignment;
    int count = 0;
    cublasStatus_t s = blas->cublasLtMatmulPreferenceInit_internal(&preference, sizeof preference);
    if (s == 0) {
        s = blas->cublasLtMatmulPreferenceSetAttribute(
            &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    }
    /* Not the reduction in place, whose order of additions is nobody's: results are to repeat. */
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (s == 0) {
        s = blas->cublasLtMatmulPreferenceSetAttribute(&preference,
                                                       CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                       &reductions, sizeof reductions);
    }
    static const cublasLtMatmulPreferenceAttributes_t pointers[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4 && s == 0; i++) {
        s = blas->cublasLtMatmulPreferenceSetAttribute(&preference, pointers[i], &alignment,
                                                       sizeof alignment);
    }
    if (s == 0) {
        s = blas->cublasLtMatmulAlgoGetHeuristic(blas->handle, &o->product, &o->w, &o->x, &o->out,
                                                 &o->out, &preference, 1, &found, &count);
    }
    chosen->key = *key;
    chosen->is_known =
        s == 0 || s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE;
    chosen->is_possible = s == 0 && count == 1;
    if (chosen->is_possible) {
        chosen->algorithm = found.algo;
    }
    return chosen->is_known ? CUBLAS_STATUS_SUCCESS : s;
}

static plan *place_of(lore_cuda_blas *blas, const plan_key *key)
{
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *key; i++) {
        hash = (hash ^ ((const unsigned char *)key)[i]) * 1099511628211u;
    }
    return &blas->plans[hash % PLANS];
}

bool lore_cuda_blas_multiply(lore_cuda_blas *blas, lore_queue *queue, const lore_cuda_product *p)
{
    operands o;
    plan_key key;
    if (p->bias != NULL && p->out.cols > BIAS_OUTS && p->out.dtype == LORE_BF16) {
        return false;
    }
    memset(&key, 0, sizeof key); /* its padding is hashed and compared */
    key.rows = p->out.rows;
    key.depth = p->depth;
    key.outs = p->out.cols;
    key.dtype = (int32_t)p->dtype;
    key.out_dtype = (int32_t)p->out.dtype;
    key.has_bias = p->bias != NULL;
    key.x_stride = p->x_stride;
    key.out_stride = p->out.stride;
    key.alignment = alignment_of(p->x, p->w, p->out.data);
    key.is_accumulating = p->is_accumulating;
    plan *chosen = place_of(blas, &key);
    cublasStatus_t s = describe(blas, p, &o);
    if (s == 0 && (!chosen->is_known || memcmp(&chosen->key, &key, sizeof key) != 0)) {
        s = choose(blas, &key, &o, chosen);
    }
    if (s == 0 && !chosen->is_possible) {
        return false;
    }
    if (p->bias != NULL && p->out.dtype == LORE_BF16) {
        const lore_view bias = lore_view_of((float *)p->bias, 1, p->out.cols);
        LORE_CUDA_NOTE(queue,
                       lore_cuda_round_rows(blas->bias, bias, lore_cuda_queue_of(queue)->stream));
    }
    const float one = 1.0f, kept = p->is_accumulating ? 1.0f : 0.0f;
    if (s == 0) {
        s = blas->cublasLtMatmul(blas->handle, &o.product, &one, p->w, &o.w, p->x, &o.x, &kept,
                                 p->out.data, &o.out, p->out.data, &o.out, &chosen->algorithm,
                                 blas->workspace, WORKSPACE_BYTES,
                                 lore_cuda_queue_of(queue)->stream);
    }
    if (s != 0) {
        lore_queue_fail(queue, LORE_ERR_DEVICE, "cuBLASLt failed on %d x %d x %d: %s",
                        (int)key.rows, (int)key.depth, (int)key.outs,
                        blas->cublasLtGetStatusString(s));
    }
    return true;
}
