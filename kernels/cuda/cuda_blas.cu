/* cuBLASLt behind a fence: loaded when a GPU is opened, because it is half a gigabyte that a
 * machine without a GPU need neither have nor map. Only the functions listed here are used. Each
 * queue has one of its own: queues run side by side, and neither a workspace nor a table of plans
 * bears that.
 *
 * The library's choice of an algorithm costs tens of microseconds and more, so choices are kept: a
 * table of plans keyed by the shape. Rows come in any number, so an algorithm is chosen for a class
 * of them, as for the most rows of the class, and multiplies the very rows.
 *
 * The library ranks its algorithms by a model of the device, and where weights are most of what is
 * read, it often ranks them wrongly. While a queue is tuned (lore_queue_tune), each product of a
 * shape not met before is computed by the next of the first few, between two events; the fastest
 * stays. The caller sees to it that the weights come from memory then, as they do in use. All of
 * them add up in a fixed order, but not in the same one: which of them it is may differ from one
 * process to the next, and so may the last bits of what they give. */
#include "kernels/cuda/cuda_int.h"

#include "base/log.h"
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
    PLANS = 1024,
    PROBES = 16,    /* places that a plan can have */
    ALGORITHMS = 6, /* tried */
    TRIALS = 32,    /* shapes tried at a time */
    TIMINGS = 512,  /* products timed at a time */
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

typedef struct trial trial;
typedef struct plan {
    plan_key key;
    bool is_known, is_possible;
    cublasLtMatmulAlgo_t algorithm;
    trial *trial; /* NULL: settled */
} plan;

/* A plan that is not settled: the algorithms for it, the likely best first, and their least times.
 */
struct trial {
    plan *of;
    int32_t count, next;
    cublasLtMatmulAlgo_t algorithms[ALGORITHMS];
    float ms[ALGORITHMS];
    int32_t timed[ALGORITHMS];
};

typedef struct timing {
    trial *of;
    int32_t which; /* of its algorithms */
    bool is_done;  /* else it could not be begun */
    cudaEvent_t begin, end;
} timing;

struct lore_cuda_blas {
    void *library;
    cublasLtHandle_t handle;
    void *workspace;
    __nv_bfloat16 *bias; /* [BIAS_OUTS], behind it: the library wants a bias of out's type */
    plan plans[PLANS];
    trial trials[TRIALS];
    timing timings[TIMINGS];
    int32_t trial_count, timing_count;
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

/* The `wanted` likely best, at most ALGORITHMS. */
static cublasStatus_t find_algorithms(lore_cuda_blas *blas, const plan_key *key, operands *o,
                                      int wanted, cublasLtMatmulHeuristicResult_t *found,
                                      int *count)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t alignment = (uint32_t)key->alignment;
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
                                                 &o->out, &preference, wanted, found, count);
    }
    return s;
}

static void begin_trial(lore_cuda_blas *blas, plan *chosen,
                        const cublasLtMatmulHeuristicResult_t *found, int count)
{
    trial *t = &blas->trials[blas->trial_count++];
    memset(t, 0, sizeof *t);
    t->of = chosen;
    for (int i = 0; i < count; i++) {
        if (found[i].state == CUBLAS_STATUS_SUCCESS) {
            t->algorithms[t->count++] = found[i].algo;
        }
    }
    if (t->count > 1) {
        chosen->trial = t;
    } else {
        blas->trial_count--;
    }
}

/* For as many rows as the key says. */
static cublasStatus_t choose(lore_cuda_blas *blas, const plan_key *key, lore_cuda_product p,
                             bool is_tuning, plan *chosen)
{
    cublasLtMatmulHeuristicResult_t found[ALGORITHMS];
    operands o;
    int count = 0;
    is_tuning = is_tuning && blas->trial_count < TRIALS;
    p.out.rows = key->rows;
    cublasStatus_t s = describe(blas, &p, &o);
    if (s == 0) {
        s = find_algorithms(blas, key, &o, is_tuning ? ALGORITHMS : 1, found, &count);
    }
    chosen->key = *key;
    chosen->trial = NULL;
    chosen->is_known =
        s == 0 || s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE;
    chosen->is_possible = s == 0 && count > 0;
    if (chosen->is_possible) {
        chosen->algorithm = found[0].algo;
    }
    if (chosen->is_possible && is_tuning) {
        begin_trial(blas, chosen, found, count);
    }
    return chosen->is_known ? CUBLAS_STATUS_SUCCESS : s;
}

static bool is_plan_of(const plan *p, const plan_key *key)
{
    return p->is_known && memcmp(&p->key, key, sizeof *key) == 0;
}

/* Where the plan is, or is to be: a free place or, at the cost of another plan, the first. */
static plan *place_of(lore_cuda_blas *blas, const plan_key *key)
{
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *key; i++) {
        hash = (hash ^ ((const unsigned char *)key)[i]) * 1099511628211u;
    }
    for (uint64_t i = 0; i < PROBES; i++) {
        plan *here = &blas->plans[(hash + i) % PLANS];
        if (!here->is_known || is_plan_of(here, key)) {
            return here;
        }
    }
    return &blas->plans[hash % PLANS];
}

/* ---- tuning ---- */

/* The next algorithm's turn; NULL: nothing is timed. */
static timing *begin_timing(lore_cuda_blas *blas, trial *t, cudaStream_t stream)
{
    if (t == NULL || blas->timing_count == TIMINGS) {
        return NULL;
    }
    timing *now = &blas->timings[blas->timing_count];
    if (cudaEventCreate(&now->begin) != cudaSuccess) {
        return NULL;
    }
    if (cudaEventCreate(&now->end) != cudaSuccess) {
        (void)cudaEventDestroy(now->begin);
        return NULL;
    }
    now->of = t;
    now->which = t->next;
    t->next = (t->next + 1) % t->count;
    blas->timing_count++;
    (void)cudaEventRecord(now->begin, stream);
    return now;
}

static void end_timing(timing *now)
{
    trial *t = now->of;
    float ms = 0.0f;
    if (now->is_done && cudaEventElapsedTime(&ms, now->begin, now->end) == cudaSuccess) {
        float *least = &t->ms[now->which];
        *least = t->timed[now->which]++ == 0 || ms < *least ? ms : *least;
    }
    (void)cudaEventDestroy(now->begin);
    (void)cudaEventDestroy(now->end);
}

/* Another algorithm than the library's first has to be faster by more than clocks differ. Times of
 * which there is one alone hold the loading of a kernel. */
static void settle(trial *t)
{
    int32_t best = 0;
    for (int32_t i = 1; i < t->count; i++) {
        if (t->timed[0] > 1 && t->timed[i] > 1 && t->ms[i] < 0.98f * t->ms[0] &&
            t->ms[i] < t->ms[best]) {
            best = i;
        }
    }
    plan *chosen = t->of;
    if (chosen->trial == t) { /* else it has lost its place to another */
        chosen->algorithm = t->algorithms[best];
        chosen->trial = NULL;
        lore_log(LORE_LOG_DEBUG,
                 "event=product_tuned rows=%d depth=%d outs=%d first_us=%.1f best_us=%.1f "
                 "algorithm=%d of=%d times=%d",
                 (int)chosen->key.rows, (int)chosen->key.depth, (int)chosen->key.outs,
                 (double)t->ms[0] * 1e3, (double)t->ms[best] * 1e3, (int)best, (int)t->count,
                 (int)t->timed[best]);
    }
}

void lore_cuda_tune(lore_queue *queue, bool is_on)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    lore_cuda_blas *blas = own->blas;
    own->is_tuning = is_on;
    if (is_on || blas == NULL) {
        return;
    }
    LORE_CUDA_NOTE(queue, cudaStreamSynchronize(own->stream));
    for (int32_t i = 0; i < blas->timing_count; i++) {
        end_timing(&blas->timings[i]);
    }
    for (int32_t i = 0; i < blas->trial_count; i++) {
        settle(&blas->trials[i]);
    }
    blas->timing_count = blas->trial_count = 0;
}

/* ---- the product itself ---- */

/* The class of so many rows: they are rounded up to a power of two that is a quarter of them or
 * more up to 256, a sixteenth or more above, 8 at least. Buckets of rows that a model pads its
 * steps to (8, 16, 24, 32, 48, 64, 96 ...) are classes. */
static int32_t class_of(int32_t rows)
{
    const int64_t units = rows <= 256 ? 4 : 16;
    int64_t unit = 8;
    while (units * unit < rows) {
        unit *= 2;
    }
    const int64_t up = (rows + unit - 1) / unit * unit;
    return up <= INT32_MAX ? (int32_t)up : rows;
}

static plan_key key_of(const lore_cuda_product *p, int32_t rows)
{
    plan_key key;
    memset(&key, 0, sizeof key); /* its padding is hashed and compared */
    key.rows = rows;
    key.depth = p->depth;
    key.outs = p->out.cols;
    key.dtype = (int32_t)p->dtype;
    key.out_dtype = (int32_t)p->out.dtype;
    key.has_bias = p->bias != NULL;
    key.x_stride = p->x_stride;
    key.out_stride = p->out.stride;
    key.alignment = alignment_of(p->x, p->w, p->out.data);
    key.is_accumulating = p->is_accumulating;
    return key;
}

/* By the algorithm for so many rows. CUBLAS_STATUS_NOT_SUPPORTED: there is none. */
static cublasStatus_t multiply_as(lore_cuda_blas *blas, lore_queue *queue,
                                  const lore_cuda_product *p, int32_t rows)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    operands o;
    const plan_key key = key_of(p, rows);
    plan *chosen = place_of(blas, &key);
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    if (!is_plan_of(chosen, &key)) {
        s = choose(blas, &key, *p, own->is_tuning, chosen);
    }
    if (s == 0) {
        s = chosen->is_possible ? describe(blas, p, &o) : CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (s != 0) {
        return s;
    }
    const float one = 1.0f, kept = p->is_accumulating ? 1.0f : 0.0f;
    timing *timed = begin_timing(blas, chosen->trial, own->stream);
    if (timed != NULL) {
        s = blas->cublasLtMatmul(blas->handle, &o.product, &one, p->w, &o.w, p->x, &o.x, &kept,
                                 p->out.data, &o.out, p->out.data, &o.out,
                                 &timed->of->algorithms[timed->which], blas->workspace,
                                 WORKSPACE_BYTES, own->stream);
        (void)cudaEventRecord(timed->end, own->stream);
        timed->is_done = s == 0;
        if (s == 0) {
            return s;
        }
    }
    return blas->cublasLtMatmul(blas->handle, &o.product, &one, p->w, &o.w, p->x, &o.x, &kept,
                                p->out.data, &o.out, p->out.data, &o.out, &chosen->algorithm,
                                blas->workspace, WORKSPACE_BYTES, own->stream);
}

static bool is_refusal(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE;
}

bool lore_cuda_blas_multiply(lore_cuda_blas *blas, lore_queue *queue, const lore_cuda_product *p)
{
    const int32_t rows = p->out.rows, class_rows = class_of(rows);
    if (p->bias != NULL && p->out.cols > BIAS_OUTS && p->out.dtype == LORE_BF16) {
        return false;
    }
    if (p->bias != NULL && p->out.dtype == LORE_BF16) {
        const lore_view bias = lore_view_of((float *)p->bias, 1, p->out.cols);
        LORE_CUDA_NOTE(queue,
                       lore_cuda_round_rows(blas->bias, bias, lore_cuda_queue_of(queue)->stream));
    }
    cublasStatus_t s = multiply_as(blas, queue, p, class_rows);
    if (is_refusal(s) && class_rows != rows) { /* no algorithm takes all the rows of its class */
        s = multiply_as(blas, queue, p, rows);
    }
    if (s == CUBLAS_STATUS_NOT_SUPPORTED) {
        return false;
    }
    if (s != 0) {
        lore_queue_fail(queue, LORE_ERR_DEVICE, "cuBLASLt failed on %d x %d x %d: %s", (int)rows,
                        (int)p->depth, (int)p->out.cols, blas->cublasLtGetStatusString(s));
    }
    return true;
}
