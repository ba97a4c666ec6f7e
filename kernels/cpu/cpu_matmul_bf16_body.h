/* bf16 weights where there is no bf16 instruction: widened to f32 on load, inputs rounded to bf16
 * and kept as f32. Included by the scalar and AVX2 files behind cpu_matmul_body.h. */

static void sum_bf16(const lore_tile *tile)
{
    tile_rows(tile->rows, true, false, tile->groups, tile->a,
              tile->a_stride / (int64_t)sizeof(float), tile->b, tile->sums, TILE_PANEL);
}

static const lore_matmul_form form_bf16 = {
    LORE_ROW_BF16_WIDE, TILE_ROWS, false, false, NULL, NULL, sum_bf16};
