/* A request is refused by name before it costs anything, and one that is made holds all it will
 * need or nothing. */
#include "generation/request_int.h"

#include "tests/check.h"

static const lore_limits limits = {
    .prompt_tokens_max = 8, .answer_tokens_max = 16, .stop_strings_max = 2, .stop_bytes_max = 4};
static const lore_decoder_info info = {
    .vocab = 100, .context = 12, .generation = {true, 0.5f, 0.75f, 20, 1.25f}};

typedef struct setting {
    lore_sched *sched;
    lore_request_bounds bounds;
} setting;

static setting setting_open(void)
{
    lore_error err;
    setting s = {0};
    const lore_sched_options options = {.rows_max = 8,
                                        .sequences_max = 2,
                                        .waiting_max = 2,
                                        .context = 12,
                                        .page_tokens = 4,
                                        .page_count = 3};
    CHECK_OK(lore_sched_new(&options, &s.sched, &err), &err);
    s.bounds = (lore_request_bounds){&limits, &info, s.sched, 4};
    return s;
}

static void check_refused(const setting *s, lore_generation generation, lore_status status,
                          const char *text)
{
    lore_error err;
    CHECK_FAILS(lore_request_check(&s->bounds, &generation, &err), status, &err, text);
}

TEST(refuses_by_name)
{
    static const int32_t prompt[] = {1, 2, 100, 4, 5, 6, 7, 8, 9};
    static const lore_str stop[] = {{"a", 1}, {"", 0}, {"abcde", 5}};
    const lore_generation good = {.prompt = prompt, .prompt_count = 2, .tokens_max = 3};
    lore_generation bad = good;
    lore_error err;
    setting s = setting_open();
    CHECK_OK(lore_request_check(&s.bounds, &good, &err), &err);
    bad.prompt_count = 9;
    check_refused(&s, bad, LORE_ERR_LIMIT, "the prompt has 9 tokens, at most 8");
    bad.prompt_count = 3;
    check_refused(&s, bad, LORE_ERR_INVALID, "prompt token 3 is 100");
    bad = good;
    bad.tokens_max = 17;
    check_refused(&s, bad, LORE_ERR_LIMIT, "17 tokens");
    bad = good;
    bad.sampling.temperature = -1.0f;
    check_refused(&s, bad, LORE_ERR_INVALID, "temperature");
    bad.sampling = (lore_sampling){.temperature = 1.0f, .top_p = 1.5f};
    check_refused(&s, bad, LORE_ERR_INVALID, "top_p");
    bad.sampling = (lore_sampling){.top_k = -1};
    check_refused(&s, bad, LORE_ERR_INVALID, "top_k");
    bad.sampling = (lore_sampling){.repetition_penalty = -1.0f};
    check_refused(&s, bad, LORE_ERR_INVALID, "repetition_penalty is -1, must be 0.01 to 100");
    bad.sampling = (lore_sampling){.repetition_penalty = NAN};
    check_refused(&s, bad, LORE_ERR_INVALID, "repetition_penalty");
    bad.sampling = (lore_sampling){.min_p = 1.5f};
    check_refused(&s, bad, LORE_ERR_INVALID, "min_p is 1.5, must be 0 to 1");
    bad.sampling = (lore_sampling){.min_p = NAN};
    check_refused(&s, bad, LORE_ERR_INVALID, "min_p");
    bad.sampling = (lore_sampling){.presence_penalty = 2.5f};
    check_refused(&s, bad, LORE_ERR_INVALID, "presence_penalty is 2.5, must be -2 to 2");
    bad.sampling = (lore_sampling){.frequency_penalty = -INFINITY};
    check_refused(&s, bad, LORE_ERR_INVALID, "frequency_penalty is -inf, must be -2 to 2");
    bad.sampling = (lore_sampling){.tops = 21};
    check_refused(&s, bad, LORE_ERR_INVALID, "top_logprobs is 21, must be 0 to 20");
    bad.sampling = (lore_sampling){.tops = -1};
    check_refused(&s, bad, LORE_ERR_INVALID, "top_logprobs");
    bad = good;
    bad.stop = stop;
    bad.stop_count = 3;
    check_refused(&s, bad, LORE_ERR_LIMIT, "3 stop strings");
    bad.stop_count = 2;
    check_refused(&s, bad, LORE_ERR_INVALID, "stop string 2 is empty");
    bad.stop = stop + 2;
    bad.stop_count = 1;
    check_refused(&s, bad, LORE_ERR_LIMIT, "stop string 1 has 5 bytes");
    lore_sched_free(s.sched);
}

TEST(refuses_biases_by_name)
{
    static const int32_t prompt[] = {1, 2};
    static lore_bias biases[1025];
    static const lore_bias ids[] = {{3, 1}, {5, 1}, {3, 2}}, beyond[] = {{100, 1}, {-1, 1}},
                           values[] = {{3, 100.5f}, {3, NAN}};
    lore_generation bad = {.prompt = prompt, .prompt_count = 2, .tokens_max = 3};
    setting s = setting_open();
    bad.sampling = (lore_sampling){.biases = biases, .bias_count = 1025};
    check_refused(&s, bad, LORE_ERR_LIMIT, "logit_bias has 1025 tokens, at most 1024");
    bad.sampling.bias_count = -1;
    check_refused(&s, bad, LORE_ERR_LIMIT, "logit_bias");
    bad.sampling = (lore_sampling){.biases = ids, .bias_count = 3};
    check_refused(&s, bad, LORE_ERR_INVALID, "logit_bias has token 3 twice");
    for (int i = 0; i < 2; i++) {
        bad.sampling = (lore_sampling){.biases = beyond + i, .bias_count = 1};
        check_refused(&s, bad, LORE_ERR_INVALID, "the vocabulary has 100");
        bad.sampling = (lore_sampling){.biases = values + i, .bias_count = 1};
        check_refused(&s, bad, LORE_ERR_INVALID, "logit_bias of token 3 is");
    }
    lore_sched_free(s.sched);
}

static lore_status make_request(void *self)
{
    static const int32_t prompt[] = {5, 6, 7};
    static const lore_str stop[] = {{"ab", 2}, {"\n", 1}};
    const lore_bias biases[] = {{3, 1.0f}, {4, -2.0f}};
    const setting *s = self;
    lore_error err;
    lore_request *request = NULL;
    const lore_generation generation = {.prompt = prompt,
                                        .prompt_count = 3,
                                        .tokens_max = 16,
                                        .sampling = {.biases = biases, .bias_count = 2, .tops = 5},
                                        .stop = stop,
                                        .stop_count = 2};
    lore_status status = lore_request_new(&s->bounds, &generation, &request, &err);
    if (status != LORE_OK) {
        return status;
    }
    CHECK_INT(request->tokens_max, 9); /* the context ends first */
    CHECK_INT(request->tokens[2], 7);
    CHECK_INT(request->stop.string_count, 2);
    CHECK(request->sampling.biases != biases);
    CHECK_INT(request->sampling.biases[1].id, 4);
    CHECK(lore_stream_tops(request->stream) != NULL);
    lore_stream_release(request->stream);
    lore_stream_release(request->stream);
    lore_request_free(request);
    return LORE_OK;
}

static lore_sampling made_of(const setting *s, lore_sampling asked)
{
    static const int32_t prompt[] = {5};
    const lore_generation generation = {
        .prompt = prompt, .prompt_count = 1, .tokens_max = 1, .sampling = asked};
    lore_request *request = NULL;
    lore_error err;
    CHECK_OK(lore_request_check(&s->bounds, &generation, &err), &err);
    CHECK_OK(lore_request_new(&s->bounds, &generation, &request, &err), &err);
    const lore_sampling made = request->sampling;
    lore_stream_release(request->stream);
    lore_stream_release(request->stream);
    lore_request_free(request);
    return made;
}

/* The folder's values hold where the request has none; its do_sample and temperature never do. */
TEST(is_completed_by_the_models_folder)
{
    setting s = setting_open();
    lore_sampling made = made_of(&s, (lore_sampling){.seed = 7});
    CHECK_NEAR(made.temperature, 0, 0);
    CHECK_NEAR(made.top_p, 0.75, 0);
    CHECK_INT(made.top_k, 20);
    CHECK_NEAR(made.repetition_penalty, 1.25, 0);
    CHECK_INT(made.seed, 7);
    made = made_of(
        &s,
        (lore_sampling){
            .temperature = 1.0f, .top_p = 0.5f, .top_k = 3, .seed = 9, .repetition_penalty = 1.0f});
    CHECK_NEAR(made.temperature, 1, 0);
    CHECK_NEAR(made.top_p, 0.5, 0);
    CHECK_INT(made.top_k, 3);
    CHECK_NEAR(made.repetition_penalty, 1, 0);
    lore_sched_free(s.sched);
}

TEST(is_made_whole_or_not_at_all)
{
    setting s = setting_open();
    lore_request_free(NULL);
    CHECK_INT(make_request(&s), LORE_OK);
    check_alloc_sweep(make_request, &s);
    lore_sched_free(s.sched);
}

CHECK_MAIN(refuses_by_name, refuses_biases_by_name, is_completed_by_the_models_folder,
           is_made_whole_or_not_at_all)
