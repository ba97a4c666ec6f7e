/* Adapters on the cpu backend: packing of their matrices, and what one product does beside itself.
 *
 * A loop of the pool has two kinds of pieces. The first shrink: v = x A^T of some rows of one
 * adapter. Those behind them are the product's own; each, when it is done, expands: adds v B^T to
 * the columns that it has just written. Pieces are claimed in order, so whoever waits for a v waits
 * for pieces that run. Adapters so cost no trip to the pool, and while one core shrinks another
 * reads weights.
 *
 * With many adapters and a row of each, bytes are what they cost: eight of rank 16 are half as much
 * as the starter decoder. Beside weights that came in int8 they are therefore rounded to int8, too,
 * as are the rows; elsewhere they are bf16 or f32 as they were opened. */
#include "kernels/cpu/cpu_int.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ALIGN_BYTES = 64,
    BLOCK_ROWS = 16, /* of one piece: turned, they stay in the second cache beside a panel of A */
    LOOKS = 4096,    /* some microseconds */
    INT8_COLS_MAX = 65536
};

/* ---- packing ---- */

static lore_lora_form form_of(const lore_weight *weight, lore_dtype dtype)
{
    const lore_cpu_weight *w = (const lore_cpu_weight *)weight;
    const lore_lora_loops *loops = ((const lore_cpu_backend *)weight->backend)->lora;
    if (dtype == LORE_F32) {
        return LORE_LORA_F32;
    }
    return loops->has_int8 && w->kernel->packing == LORE_PACKED_I8 && weight->cols <= INT8_COLS_MAX
               ? LORE_LORA_INT8
               : loops->bf16;
}

static int32_t group_count(lore_lora_form form, int32_t cols)
{
    const int32_t group = lore_lora_group(form);
    return (cols + group - 1) / group;
}

size_t lore_cpu_lora_bytes(const lore_weight *weight, lore_dtype dtype, int32_t rows, int32_t cols)
{
    const lore_lora_form form = form_of(weight, dtype);
    const int32_t groups = group_count(form, cols), rest = rows % LORE_LORA_PANEL;
    const size_t whole = lore_lora_panel_bytes(form, LORE_LORA_PANEL, groups);
    return (size_t)(rows / LORE_LORA_PANEL) * whole +
           (rest > 0 ? lore_lora_panel_bytes(form, rest, groups) : 0);
}

/* Numbers of bf16 in steps of one scale, plus the zero point. */
static void pack_int8(const uint16_t *from, int32_t rows, int32_t cols, char *to)
{
    const int32_t group = lore_lora_group(LORE_LORA_INT8),
                  groups = group_count(LORE_LORA_INT8, cols);
    uint8_t *bytes = (uint8_t *)to + sizeof(float);
    float top = 0.0f;
    for (int64_t i = 0; i < (int64_t)rows * cols; i++) {
        const float value = lore_bf16_to_f32(from[i]), size = value < 0 ? -value : value;
        top = size > top ? size : top;
    }
    const float scale = top < 1e-30f ? 1.0f : top / 127.0f,
                inverse = top < 1e-30f ? 0.0f : 127.0f / top;
    memcpy(to, &scale, sizeof scale);
    memset(bytes, LORE_INT8_ZERO, (size_t)groups * (size_t)rows * sizeof(uint32_t));
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t c = 0; c < cols; c++) {
            const float steps = lore_bf16_to_f32(from[(int64_t)r * cols + c]) * inverse;
            const int64_t at = ((int64_t)(c / group) * rows + r) * group + c % group;
            bytes[at] =
                (uint8_t)(LORE_INT8_ZERO + (int32_t)(steps < 0 ? steps - 0.5f : steps + 0.5f));
        }
    }
}

static void pack_bf16(const uint16_t *from, int32_t rows, int32_t cols, uint16_t *to)
{
    if (cols % 2 != 0) {
        memset(to + (int64_t)(cols / 2) * rows * 2, 0, (size_t)rows * sizeof(uint32_t));
    }
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t c = 0; c < cols; c++) {
            to[((int64_t)(c / 2) * rows + r) * 2 + c % 2] = from[(int64_t)r * cols + c];
        }
    }
}

static void pack_f32(const float *from, int32_t rows, int32_t cols, float *to)
{
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t c = 0; c < cols; c++) {
            to[(int64_t)c * rows + r] = from[(int64_t)r * cols + c];
        }
    }
}

size_t lore_cpu_lora_pack(const lore_weight *weight, lore_dtype dtype, int32_t cols,
                          const void *rows, int32_t count, void *to)
{
    const lore_lora_form form = form_of(weight, dtype);
    size_t written = 0;
    for (int32_t r = 0; r < count; r += LORE_LORA_PANEL) {
        const int32_t some = count - r < LORE_LORA_PANEL ? count - r : LORE_LORA_PANEL;
        const int64_t first = (int64_t)r * cols;
        void *panel = (char *)to + written;
        if (form == LORE_LORA_F32) {
            pack_f32((const float *)rows + first, some, cols, panel);
        } else if (form == LORE_LORA_INT8) {
            pack_int8((const uint16_t *)rows + first, some, cols, panel);
        } else {
            pack_bf16((const uint16_t *)rows + first, some, cols, panel);
        }
        written += lore_lora_panel_bytes(form, some, group_count(form, cols));
    }
    return written;
}

/* ---- one product ---- */

/* Rows of one adapter that are shrunk together: positions first .. + count of the order. */
typedef struct piece {
    const lore_lora_product *product;
    int32_t first, count;
} piece;

struct lore_cpu_lora {
    const lore_lora_loops *loops;
    lore_lora_form form;
    lore_lora_rows rows;
    int32_t threads;
    lore_view out, x;
    piece *pieces;
    int32_t piece_count;
    atomic_int shrunk; /* pieces done; release when v is there, acquire before it is read */
    float *v;          /* [positions, v_stride] */
    int64_t v_stride;
    char *turned; /* [positions, turned_bytes]: the v of each part, turned */
    int64_t turned_bytes;
    char *blocks; /* [threads, BLOCK_ROWS, row_bytes]: turned rows of x */
    int64_t row_bytes;
};

static int64_t round_up(int64_t value, int64_t step)
{
    return (value + step - 1) / step * step;
}

/* Where the arrays of a plan stand behind it, at `memory`; NULL: only how many bytes. Turned, no
 * form has more than four bytes for each column, and a vector behind. */
static size_t lay_out(const lore_queue *queue, const lore_lora *lora, int32_t cols, char *memory,
                      lore_cpu_lora *plan)
{
    const int64_t rows = lora->rows.starts[lora->rows.segments];
    const int64_t v_stride = round_up(lora->rank_max, LORE_LORA_PANEL);
    const int64_t turned_bytes = 4 * v_stride + LORE_LORA_PARTS_MAX * 2 * ALIGN_BYTES;
    const int64_t row_bytes = round_up(4 * (int64_t)cols, ALIGN_BYTES) + 2 * ALIGN_BYTES;
    const int64_t sizes[] = {(int64_t)sizeof *plan,
                             (rows / BLOCK_ROWS + lore_host_threads(queue) + lora->rows.segments) *
                                 (int64_t)sizeof(piece),
                             rows * v_stride * (int64_t)sizeof(float), rows * turned_bytes,
                             lore_host_threads(queue) * BLOCK_ROWS * row_bytes};
    size_t used = 0;
    char *at[5];
    for (int i = 0; i < 5; i++) {
        at[i] = memory != NULL ? memory + used : NULL;
        used += (size_t)round_up(sizes[i], ALIGN_BYTES);
    }
    if (plan != NULL) {
        plan->pieces = (piece *)(void *)at[1];
        plan->v = (float *)(void *)at[2];
        plan->turned = at[3];
        plan->blocks = at[4];
        plan->v_stride = v_stride;
        plan->turned_bytes = turned_bytes;
        plan->row_bytes = row_bytes;
    }
    return used;
}

/* The first lines, into the second cache; the loops fetch those behind. */
static void fetch(const char *from)
{
    for (int32_t i = 0; i < LORE_LORA_AHEAD; i += ALIGN_BYTES) {
        __builtin_prefetch(from + i, 0, 2);
    }
}

size_t lore_cpu_lora_scratch(lore_queue *queue, const lore_lora *lora, const lore_weight *weight)
{
    return lay_out(queue, lora, weight->cols, NULL, NULL);
}

lore_cpu_lora *lore_cpu_lora_begin(lore_queue *queue, const lore_lora *lora,
                                   const lore_weight *weight, lore_view out, lore_view x,
                                   void *scratch, int32_t *items)
{
    lore_cpu_lora *plan = scratch;
    lore_lora_check(lora, out, x);
    *plan = (lore_cpu_lora){.loops = lore_cpu_of(queue)->lora,
                            .form = form_of(weight, lora->dtype),
                            .rows = lora->rows,
                            .threads = lore_host_threads(queue),
                            .out = out,
                            .x = x};
    atomic_init(&plan->shrunk, 0);
    (void)lay_out(queue, lora, weight->cols, scratch, plan);
    /* Few rows of one adapter are shared out, too, though each thread then reads all of its A. */
    const int32_t rows = lora->rows.starts[lora->rows.segments];
    const int32_t even = (rows + plan->threads - 1) / plan->threads;
    const int32_t block = even < BLOCK_ROWS ? even : BLOCK_ROWS;
    for (int32_t i = 0; i < lora->rows.segments; i++) {
        const lore_lora_product *product = lore_lora_find(lora, i);
        const int32_t end = lora->rows.starts[i + 1];
        for (int32_t at = lora->rows.starts[i]; product != NULL && at < end; at += block) {
            const int32_t count = end - at < block ? end - at : block;
            plan->pieces[plan->piece_count++] = (piece){product, at, count};
        }
    }
    for (int32_t i = 0; i < plan->piece_count && i < plan->threads; i++) {
        fetch(plan->pieces[i].product->a);
    }
    *items = plan->piece_count;
    return plan;
}

/* Part i of a turned v: each begins behind what those before it may take. */
static int64_t part_at(const lore_lora_product *product, int32_t i)
{
    return 4 * (int64_t)product->parts[i].rank_start + i * 2 * ALIGN_BYTES;
}

void lore_cpu_lora_shrink(lore_cpu_lora *plan, int32_t item, int32_t worker)
{
    const piece *p = &plan->pieces[item];
    const int32_t next = item + plan->threads;
    if (next < plan->piece_count) { /* likely this thread's */
        fetch(plan->pieces[next].product->a);
    }
    const lore_lora_product *product = p->product;
    char *block = plan->blocks + (int64_t)worker * BLOCK_ROWS * plan->row_bytes;
    float *v = plan->v + p->first * plan->v_stride;
    for (int32_t r = 0; r < p->count; r++) {
        const int32_t row = plan->rows.order[p->first + r];
        plan->loops->turn(plan->form, block + r * plan->row_bytes,
                          plan->x.data + row * plan->x.stride, plan->x.cols, 1.0f);
    }
    plan->loops->multiply(&(lore_lora_job){.form = plan->form,
                                           .rows = block,
                                           .row_bytes = plan->row_bytes,
                                           .row_count = p->count,
                                           .matrix = product->a,
                                           .matrix_rows = product->rank,
                                           .groups = group_count(plan->form, plan->x.cols),
                                           .end = product->rank,
                                           .out = v,
                                           .out_stride = plan->v_stride});
    for (int32_t r = 0; r < p->count; r++) {
        char *turned = plan->turned + (p->first + r) * plan->turned_bytes;
        for (int32_t i = 0; i < product->part_count; i++) {
            const lore_lora_part *part = &product->parts[i];
            plan->loops->turn(plan->form, turned + part_at(product, i),
                              v + r * plan->v_stride + part->rank_start, part->rank, part->scale);
        }
    }
    atomic_fetch_add_explicit(&plan->shrunk, 1, memory_order_release);
}

/* Columns begin .. end-1 of the product, as rows of a part's b. */
typedef struct span {
    int32_t begin, end;
} span;

static span span_of(const lore_lora_part *part, int32_t begin, int32_t end)
{
    const int32_t from = begin - part->column_start, to = end - part->column_start;
    return (span){from > 0 ? from : 0, to < part->columns ? to : part->columns};
}

static void fetch_piece(const lore_cpu_lora *plan, const piece *p, int32_t begin)
{
    for (int32_t i = 0; i < p->product->part_count; i++) {
        const lore_lora_part *part = &p->product->parts[i];
        const span rows = span_of(part, begin, INT32_MAX);
        if (rows.begin < rows.end && part->column_start <= begin) {
            const size_t bytes = lore_lora_panel_bytes(plan->form, LORE_LORA_PANEL,
                                                       group_count(plan->form, part->rank));
            fetch((const char *)part->b + (size_t)(rows.begin / LORE_LORA_PANEL) * bytes);
        }
    }
}

static void expand_piece(const lore_cpu_lora *plan, const piece *p, int32_t begin, int32_t end)
{
    for (int32_t i = 0; i < p->product->part_count; i++) {
        const lore_lora_part *part = &p->product->parts[i];
        const span rows = span_of(part, begin, end);
        if (rows.begin < rows.end) {
            plan->loops->multiply(&(lore_lora_job){
                .form = plan->form,
                .rows = plan->turned + p->first * plan->turned_bytes + part_at(p->product, i),
                .row_bytes = plan->turned_bytes,
                .row_count = p->count,
                .to = plan->rows.order + p->first,
                .matrix = part->b,
                .matrix_rows = part->columns,
                .groups = group_count(plan->form, part->rank),
                .begin = rows.begin,
                .end = rows.end,
                .out = plan->out.data + part->column_start,
                .out_stride = plan->out.stride,
                .is_accumulating = true});
        }
    }
}

void lore_cpu_lora_expand(lore_cpu_lora *plan, int32_t first, int32_t rows, int32_t begin,
                          int32_t end)
{
    for (int32_t looks = 1;
         atomic_load_explicit(&plan->shrunk, memory_order_acquire) < plan->piece_count; looks++) {
        if (looks % LOOKS == 0) {
            (void)sched_yield(); /* whoever has the last piece may have lost its core */
        }
    }
    for (int32_t i = 0; i < plan->piece_count; i++) { /* rows ascend in a piece */
        piece p = plan->pieces[i];
        const int32_t *order = plan->rows.order + p.first;
        while (p.count > 0 && order[0] < first) {
            p.first++, p.count--, order++;
        }
        while (p.count > 0 && order[p.count - 1] >= first + rows) {
            p.count--;
        }
        if (p.count > 0) {
            expand_piece(plan, &p, begin, end);
        }
    }
}

void lore_cpu_lora_fetch(const lore_cpu_lora *plan, int32_t begin)
{
    for (int32_t i = 0; i < plan->piece_count; i++) {
        fetch_piece(plan, &plan->pieces[i], begin);
    }
}
