/* Tables of positions are those that transformers computes from the same fields, and what it would
 * not compute is refused by name. */
#include "models/rope_int.h"
#include "tests/check.h"

static const lore_rope_rules C128 = {.head_dim = 8, .context = 128};
static const lore_rope_rules C4096 = {.head_dim = 8, .context = 4096};
static const lore_rope_rules PHI3 = {
    .head_dim = 8, .context = 4096, .original = 4096, .is_partial = true, .is_plain_or_long = true};

/* Made with LlamaRotaryEmbedding and Phi3RotaryEmbedding of transformers 5.23, a position at a
 * time. */
static const struct {
    const char *name, *json;
    const lore_rope_rules *rules;
    bool is_long;
    int32_t pairs, position;
    float cosine[4], sine[4];
} ROWS[] = {
    {"plain",
     "{\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000}}",
     &C128,
     false,
     4,
     1,
     {0.540302336f, 0.992937267f, 0.999899983f, 0.999998569f},
     {0.841470957f, 0.118640617f, 0.0141416648f, 0.00168179197f}},
    {"plain",
     "{\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000}}",
     &C128,
     false,
     4,
     40,
     {-0.666938066f, 0.0444247015f, 0.844221413f, 0.997738123f},
     {0.745113134f, -0.999012709f, 0.535994589f, 0.0672209784f}},
    {"plain",
     "{\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000}}",
     &C128,
     false,
     4,
     3000,
     {-0.975682199f, 0.190213695f, 0.0149054853f, 0.326869518f},
     {0.219189972f, -0.98174274f, -0.999888897f, -0.945069492f}},
    {"linear",
     "{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}}",
     &C128,
     false,
     4,
     1,
     {0.921060979f, 0.999200106f, 0.999992013f, 0.99999994f},
     {0.389418364f, 0.0399893336f, 0.00399998901f, 0.000400000019f}},
    {"linear",
     "{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}}",
     &C128,
     false,
     4,
     40,
     {-0.957659483f, -0.029199427f, 0.987227261f, 0.999872029f},
     {-0.287903309f, 0.999573588f, 0.159318209f, 0.015999319f}},
    {"linear",
     "{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}}",
     &C128,
     false,
     4,
     3000,
     {0.996095836f, 0.81418097f, 0.843853414f, 0.362357706f},
     {-0.0882786065f, 0.580611169f, -0.536573708f, 0.932039082f}},
    {"dynamic",
     "{\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2}}",
     &C128,
     false,
     4,
     1,
     {0.540302336f, 0.995004177f, 0.999949992f, 0.999999523f},
     {0.841470957f, 0.0998334214f, 0.00999983307f, 0.000999999931f}},
    {"dynamic",
     "{\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2}}",
     &C128,
     false,
     4,
     40,
     {-0.666938066f, -0.653643608f, 0.921060979f, 0.999200106f},
     {0.745113134f, -0.756802499f, 0.389418334f, 0.0399893373f}},
    {"dynamic",
     "{\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2}}",
     &C128,
     false,
     4,
     3000,
     {-0.975682199f, -0.515732229f, -0.695909381f, 0.997863948f},
     {0.219189972f, 0.856749833f, 0.718129635f, 0.0653262809f}},
    {"llama3",
     "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
     "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 512}}",
     &C4096,
     false,
     4,
     1,
     {0.540302336f, 0.995004177f, 0.999999225f, 1.0f},
     {0.841470957f, 0.0998334214f, 0.00124999962f, 0.000125000006f}},
    {"llama3",
     "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
     "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 512}}",
     &C4096,
     false,
     4,
     40,
     {-0.666938066f, -0.653643608f, 0.998750269f, 0.999987483f},
     {0.745113134f, -0.756802499f, 0.0499791652f, 0.0049999794f}},
    {"llama3",
     "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
     "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 512}}",
     &C4096,
     false,
     4,
     3000,
     {-0.975682199f, -0.022096619f, -0.820559323f, 0.9305076f},
     {0.219189972f, -0.999755859f, -0.571561337f, 0.366272569f}},
    {"yarn",
     "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale\": null}}",
     &C128,
     false,
     4,
     1,
     {0.615204155f, 1.1364063f, 1.13862586f, 1.13862944f},
     {0.958123624f, 0.0711180195f, 0.00284657069f, 0.000284657377f}},
    {"yarn",
     "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale\": null}}",
     &C128,
     false,
     4,
     40,
     {-0.759395301f, -0.912205696f, 1.13294101f, 1.13857245f},
     {0.848407745f, 0.681437969f, 0.113673262f, 0.0113861058f}},
    {"yarn",
     "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale\": null}}",
     &C128,
     false,
     4,
     3000,
     {-1.11094046f, 0.619452834f, 0.394689173f, 0.833122432f},
     {0.249576151f, -0.955382228f, 1.06803441f, 0.776133955f}},
    {"yarn2",
     "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
     "\"original_max_position_embeddings\": 1024, \"beta_fast\": 16, \"beta_slow\": 2, "
     "\"truncate\": false, \"mscale\": 1.5, \"mscale_all_dim\": 0.5}}",
     &C4096,
     false,
     4,
     1,
     {0.61034888f, 1.12399971f, 1.12963974f, 1.1296432f},
     {0.950561941f, 0.112776145f, 0.00282410509f, 0.000282410823f}},
    {"yarn2",
     "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
     "\"original_max_position_embeddings\": 1024, \"beta_fast\": 16, \"beta_slow\": 2, "
     "\"truncate\": false, \"mscale\": 1.5, \"mscale_all_dim\": 0.5}}",
     &C4096,
     false,
     4,
     40,
     {-0.753402054f, -0.738384068f, 1.12399971f, 1.1295867f},
     {0.841711998f, -0.854916811f, 0.112776138f, 0.0112962443f}},
    {"yarn2",
     "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
     "\"original_max_position_embeddings\": 1024, \"beta_fast\": 16, \"beta_slow\": 2, "
     "\"truncate\": false, \"mscale\": 1.5, \"mscale_all_dim\": 0.5}}",
     &C4096,
     false,
     4,
     3000,
     {-1.10217273f, -0.0249612946f, 0.391574234f, 0.826547265f},
     {0.247606456f, -1.12936735f, 1.05960524f, 0.770008624f}},
    {"yarn3",
     "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
     "\"original_max_position_embeddings\": 1024, \"attention_factor\": 1.25}}",
     &C4096,
     false,
     4,
     1,
     {0.675377905f, 1.24648595f, 1.24998438f, 1.25f},
     {1.05183864f, 0.0936621279f, 0.00624997355f, 0.000312500022f}},
    {"yarn3",
     "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
     "\"original_max_position_embeddings\": 1024, \"attention_factor\": 1.25}}",
     &C4096,
     false,
     4,
     40,
     {-0.833672583f, -1.23749053f, 1.22508323f, 1.24993753f},
     {0.931391418f, 0.176400304f, 0.248336643f, 0.0124997925f}},
    {"yarn3",
     "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
     "\"original_max_position_embeddings\": 1024, \"attention_factor\": 1.25}}",
     &C4096,
     false,
     4,
     3000,
     {-1.2196027f, 0.459131479f, -0.949609876f, 0.914610982f},
     {0.273987472f, -1.16262567f, 0.812859833f, 0.852048457f}},
    {"long-short",
     "{\"original_max_position_embeddings\": 64, \"rope_scaling\": {\"type\": \"longrope\", "
     "\"short_factor\": [1, 1.5, 2, 2.5], \"long_factor\": [1, 4, 9, 16]}}",
     &PHI3,
     false,
     4,
     1,
     {0.764102876f, 1.41107202f, 1.4141959f, 1.41421342f},
     {1.19001961f, 0.0942110792f, 0.00707103778f, 0.00056568539f}},
    {"long-short",
     "{\"original_max_position_embeddings\": 64, \"rope_scaling\": {\"type\": \"longrope\", "
     "\"short_factor\": [1, 1.5, 2, 2.5], \"long_factor\": [1, 4, 9, 16]}}",
     &PHI3,
     false,
     4,
     40,
     {-0.94319284f, -1.25769782f, 1.3860234f, 1.41403258f},
     {1.05374908f, 0.64668107f, 0.280960828f, 0.0226264503f}},
    {"long-long",
     "{\"original_max_position_embeddings\": 64, \"rope_scaling\": {\"type\": \"su\", "
     "\"short_factor\": [1, 1.5, 2, 2.5], \"long_factor\": [1, 4, 9, 16]}}",
     &PHI3,
     true,
     4,
     3000,
     {-1.37982297f, 1.3035531f, -1.3882966f, 1.38942707f},
     {0.309981436f, -0.548406065f, -0.269504011f, 0.263614088f}},
    {"partial",
     "{\"partial_rotary_factor\": 0.5}",
     &PHI3,
     false,
     2,
     1,
     {0.540302336f, 0.999949992f},
     {0.841470957f, 0.00999983307f}},
    {"partial",
     "{\"partial_rotary_factor\": 0.5}",
     &PHI3,
     false,
     2,
     40,
     {-0.666938066f, 0.921060979f},
     {0.745113134f, 0.389418334f}},
    {"partial",
     "{\"partial_rotary_factor\": 0.5}",
     &PHI3,
     false,
     2,
     3000,
     {-0.975682199f, 0.154251456f},
     {0.219189972f, -0.988031626f}},
};

static lore_status read(const char *json, const lore_rope_rules *rules, lore_rope_config *config,
                        lore_error *err)
{
    lore_json *root = NULL;
    CHECK_OK(lore_config_open(lore_str_from(json), "config.json", &root, err), err);
    lore_config_reader r = {root, err};
    lore_status status = lore_rope_config_read(&r, rules, config);
    lore_json_free(root);
    return status;
}

TEST(rows_are_those_of_transformers)
{
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        lore_error err = {0};
        lore_rope_config c;
        float cosine[8] = {0}, sine[8] = {0}, other[8] = {0};
        CHECK_OK(read(ROWS[i].json, ROWS[i].rules, &c, &err), &err);
        CHECK_INT(c.dim, 2 * ROWS[i].pairs);
        int32_t row = ROWS[i].position;
        if (c.kind == LORE_ROPE_LONG) { /* two tables behind one another */
            int32_t tokens = ROWS[i].is_long ? c.original + 1 : c.original;
            CHECK_INT(lore_rope_start(&c, tokens), ROWS[i].is_long ? c.original : 0);
            CHECK_INT(lore_rope_row_count(&c, c.original), c.original);
            CHECK_INT(lore_rope_row_count(&c, 100 * c.original), 101 * c.original);
            row += lore_rope_start(&c, tokens);
        } else {
            CHECK_INT(lore_rope_row_count(&c, 1 << 20), 1 << 20);
        }
        lore_rope_rows(&c, row, 1, cosine, sine);
        for (int32_t k = 0; k < ROWS[i].pairs; k++) { /* a rounding of f is worth p * 2^-24 */
            double near = 1e-6;
            CHECK_NEAR(cosine[k], ROWS[i].cosine[k], near);
            CHECK_NEAR(sine[k], ROWS[i].sine[k], near);
        }
        lore_rope_rows(&c, row - 1, 2, other, sine); /* in a run of rows: the same */
        CHECK(memcmp(other + c.dim / 2, cosine, sizeof(float) * (size_t)c.dim / 2) == 0);
    }
}

TEST(fields_have_places_and_defaults)
{
    lore_error err = {0};
    lore_rope_config c;
    CHECK_OK(read("{}", &C128, &c, &err), &err);
    CHECK_INT(c.kind, LORE_ROPE_PLAIN);
    CHECK_NEAR(c.theta, 10000, 0);
    CHECK_OK(read("{\"rope_theta\": null, \"rope_scaling\": null, \"rope_parameters\": {}}", &C128,
                  &c, &err),
             &err);
    CHECK_NEAR(c.theta, 10000, 0);
    /* the object goes before the top, rope_scaling before rope_parameters, rope_type before type */
    CHECK_OK(read("{\"rope_theta\": 5, \"rope_parameters\": {\"rope_theta\": 7, \"type\": \"x\", "
                  "\"rope_type\": \"default\"}}",
                  &C128, &c, &err),
             &err);
    CHECK_NEAR(c.theta, 7, 0);
    CHECK_OK(read("{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, \"rope_parameters\": "
                  "{\"rope_type\": \"yarn\"}}",
                  &C128, &c, &err),
             &err);
    CHECK_INT(c.kind, LORE_ROPE_LINEAR);
    CHECK_INT(lore_rope_context(&c, 128), 256);
    /* yarn derives a factor */
    CHECK_OK(
        read("{\"rope_scaling\": {\"type\": \"yarn\", \"original_max_position_embeddings\": 32}}",
             &C128, &c, &err),
        &err);
    CHECK_NEAR(c.factor, 4, 0);
    CHECK_INT(lore_rope_context(&c, 128), 128);
    CHECK_OK(read("{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}}", &C128, &c, &err),
             &err);
    CHECK_INT(lore_rope_context(&c, 128), 512);
    CHECK_OK(read("{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 1e6}}", &C128, &c, &err),
             &err);
    CHECK_INT(lore_rope_context(&c, 1 << 20), LORE_CONTEXT_MAX);
}

static void refuse(const char *json, const lore_rope_rules *rules, lore_status status,
                   const char *message)
{
    lore_error err = {0};
    lore_rope_config c;
    CHECK_FAILS(read(json, rules, &c, &err), status, &err, message);
}

#define SCALED(fields) "{\"rope_scaling\": {" fields "}}"

TEST(senseless_fields_are_named)
{
    const lore_status no = LORE_ERR_UNSUPPORTED, bad = LORE_ERR_CORRUPT, wrong = LORE_ERR_INVALID;
    refuse("{\"rope_scaling\": 3}", &C128, bad, "rope_scaling");
    refuse("{\"rope_theta\": -1}", &C128, wrong, "rope_theta");
    refuse("{\"rope_theta\": 1}", &C128, wrong, "rope_theta");
    refuse(SCALED("\"rope_type\": \"mrope\""), &C128, no, "mrope");
    refuse(SCALED("\"full_attention\": {\"rope_type\": \"default\"}"), &C128, no, "between layers");
    refuse(SCALED("\"type\": \"linear\""), &C128, bad, "rope_scaling.factor");
    refuse(SCALED("\"type\": \"linear\", \"factor\": 0"), &C128, wrong, "rope_scaling.factor");
    refuse(SCALED("\"type\": \"linear\", \"factor\": 1e300"), &C128, wrong, "factor");
    refuse(SCALED("\"type\": \"llama3\", \"factor\": 8"), &C128, bad, "low_freq_factor");
    refuse(
        SCALED(
            "\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4"),
        &C128, bad, "high_freq_factor");
    refuse(SCALED("\"type\": \"yarn\", \"beta_fast\": -1"), &C128, wrong, "beta_fast");
    refuse(SCALED("\"type\": \"yarn\", \"truncate\": 1"), &C128, wrong, "truncate");
    refuse(SCALED("\"type\": \"yarn\", \"original_max_position_embeddings\": 1"), &C128, wrong,
           "original_max_position_embeddings");
    refuse(
        SCALED(
            "\"type\": \"longrope\", \"short_factor\": [1, 1, 1, 1], \"long_factor\": [1, 1, 1]"),
        &PHI3, bad, "long_factor must be 4 numbers");
    refuse(SCALED("\"type\": \"longrope\", \"short_factor\": [1, 1, 0, 1]"), &PHI3, bad,
           "short_factor");
    refuse(SCALED("\"type\": \"linear\", \"factor\": 2"), &PHI3, no, "linear");
    refuse("{\"partial_rotary_factor\": 0.5}", &C128, no, "partial_rotary_factor");
    refuse("{\"partial_rotary_factor\": 0.4}", &PHI3, bad, "rotates 3 of the 8");
    refuse("{\"partial_rotary_factor\": 0}", &PHI3, bad, "partial_rotary_factor");
    const lore_rope_rules narrow = {.head_dim = 2, .context = 128};
    refuse(SCALED("\"type\": \"dynamic\", \"factor\": 2"), &narrow, no, "dynamic");
    const lore_rope_rules single = {.head_dim = 2, .context = 1};
    refuse(SCALED("\"type\": \"longrope\", \"factor\": 2, \"short_factor\": [1], "
                  "\"long_factor\": [1]"),
           &single, bad, "max_position_embeddings 1 is too few");
}

/* More rows than one chunk, on a backend; and without memory an error and nothing kept. */
TEST(tables_are_uploaded)
{
    enum { POSITIONS = 1500 };
    lore_error err = {0};
    lore_rope_config c;
    lore_backend *backend = NULL;
    lore_queue *queue = NULL;
    float *cosine = NULL, *sine = NULL, row[2][4];
    const lore_backend_options options = {.kind = LORE_BACKEND_REF};
    CHECK_OK(read("{}", &C128, &c, &err), &err);
    CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
    CHECK_OK(lore_queue_open(backend, &queue, &err), &err);
    CHECK_OK(lore_rope_upload(&c, POSITIONS, backend, queue, &cosine, &sine, &err), &err);
    for (int32_t p = 0; p < POSITIONS; p += 499) {
        lore_rope_rows(&c, p, 1, row[0], row[1]);
        CHECK(memcmp(cosine + (size_t)p * 4, row[0], sizeof row[0]) == 0);
        CHECK(memcmp(sine + (size_t)p * 4, row[1], sizeof row[1]) == 0);
    }
    lore_backend_free(backend, cosine);
    lore_backend_free(backend, sine);
    int64_t live = lore_mem_live();
    for (int64_t n = 1; n <= 3; n++) {
        lore_mem_fail_at(n, false);
        CHECK_FAILS(lore_rope_upload(&c, POSITIONS, backend, queue, &cosine, &sine, &err),
                    LORE_ERR_NOMEM, &err, "memory");
        lore_mem_fail_at(0, false);
        CHECK_INT(lore_mem_live(), live);
    }
    lore_queue_close(queue);
    lore_backend_close(backend);
}

CHECK_MAIN(rows_are_those_of_transformers, fields_have_places_and_defaults,
           senseless_fields_are_named, tables_are_uploaded)
