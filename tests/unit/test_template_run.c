/* Proves the scopes of names, that a run ends within a moment whatever the template does, that many
 * threads may run one template, and that no failing allocation is lost. */
#include "tests/unit/template_fixture.h"

#include "base/clock.h"
#include "base/thread.h"

TEST(loops_have_scopes_and_ifs_have_not)
{
    check_gives("{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 9 %}{{ x }}{% endfor %}"
                "{% if true %}{% set x = 2 %}{% endif %}{{ x }}{{ i is defined }}",
                "19192False", NULL);
    check_gives("{% for a in [1, 2, 3] if a != 2 %}{{ loop.index }}/{{ loop.length }} {% endfor %}",
                "1/2 2/2 ", NULL);
    check_refuses("{% for a, b in [1] %}{% endfor %}", LORE_ERR_INVALID, "met a number");
}

/* Ends in LORE_ERR_LIMIT, in less than a second of the processor's time. */
static void check_ends(const char *source, const char *words)
{
    int64_t start_ns = lore_clock_ns();
    check_refuses(source, LORE_ERR_LIMIT, words);
    CHECK(lore_clock_ns() - start_ns < 2 * INT64_C(1000000000)); /* runs twice */
}

TEST(ends_whatever_the_template_does)
{
    check_ends("{% for a in 'xxxxxxxxxx' %}{% for a in 'xxxxxxxxxx' %}{% for a in 'xxxxxxxxxx' %}"
               "{% for a in 'xxxxxxxxxx' %}{% for a in 'xxxxxxxxxx' %}{% for a in 'xxxxxxxxxx' %}"
               "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
               "too many steps: a loop without end?");
    check_ends("{% set n = namespace(t='xxxxxxxxxxxxxxxx') %}{% for a in 'xxxxxxxxxxxxxxxx' %}"
               "{% for b in 'xxxxxxxxxxxxxxxx' %}{% set n.t = n.t + n.t %}{% endfor %}{% endfor %}",
               "t:1: ");
    check_ends("{% set n = namespace(t=[1]) %}{% for a in 'xxxxxxxxxxxxxxxx' %}"
               "{% for b in 'xxxxxxxxxxxxxxxx' %}{% set n.t = n.t + n.t %}{% endfor %}{% endfor %}",
               "t:1: ");
    check_ends("{% set n = namespace(t='xxxxxxxxxxxxxxxx') %}{% for a in 'xxxxxxxxxxxxxxxx' %}"
               "{% set n.t = n.t.replace('x', n.t) %}{% endfor %}",
               "t:1: ");
    check_ends("{% set n = namespace(t='xxxxxxxxxxxxxxxx') %}{% for a in 'xxxxxxxxxxxx' %}"
               "{% set n.t = n.t + n.t %}{% endfor %}{{ n.t.strip(n.t + n.t) }}",
               "too many steps");
}

/* Many names in many scopes: looking for one costs what it takes. */
TEST(names_cost_what_it_takes_to_find_them)
{
    lore_buf source;
    lore_buf_init(&source, 0);
    for (int32_t level = 0; level < 90; level++) {
        lore_buf_printf(&source, "{%% for x in [1] %%}");
        for (int32_t i = 0; i < 100; i++) {
            lore_buf_printf(&source, "{%% set a%02x = 1 %%}", (unsigned)i);
        }
    }
    lore_buf_printf(&source, "{%% for x in 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' %%}"
                             "{%% for x in 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' %%}"
                             "{{ b01 or b02 or b03 or b04 }}{%% endfor %%}{%% endfor %%}");
    for (int32_t level = 0; level < 90; level++) {
        lore_buf_printf(&source, "{%% endfor %%}");
    }
    check_ends(lore_buf_c(&source), "too many steps");
    lore_buf_destroy(&source);
}

TEST(contents_may_be_long)
{
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    enum { LONG = 4 << 20 };
    char *text = lore_arena_push(&arena, LONG);
    memset(text, 'a', LONG);
    lore_template_message turn = {LORE_STR("user"), {text, LONG}};
    lore_template_chat chat = {.messages = &turn, .count = 1};
    lore_template_output output = {0};
    CHECK_OK(run_source(LORE_STR("{% for m in messages %}{{ '<' + m.content | trim + '>' }}"
                                 "{% endfor %}"),
                        &chat, &arena, &output, &err),
             &err);
    CHECK_INT(output.text.len, LONG + 2);
    CHECK_FAILS(run_source(LORE_STR("{% for m in 'abcde' %}{{ messages[0].content }}{% endfor %}"),
                           &chat, &arena, &output, &err),
                LORE_ERR_LIMIT, &err, "t:1: the template writes more than 16777216 bytes");
    lore_arena_destroy(&arena);
}

/* ---- threads, allocations ---- */

static const char busy_source[] =
    "{% set n = namespace(a='') %}{% for m in messages[::-1] if m.role != 'x' %}"
    "{% set n.a = n.a + (m.content | trim).replace('<', '[') ~ loop.index %}{% endfor %}{{ n.a }}"
    "{{ messages | tojson(indent=1) }}{{ 'a b'.split() | join(',') }}{{ [1, 2][1:] | join }}"
    "{{ messages[0] | items | list | length }}{{ strftime_now('%Y')[:2] }}{{ 'aB' | upper }}";

typedef struct shared {
    const lore_jinja_node *body;
    bool is_same;
} shared;

static void *run_often(void *self)
{
    shared *s = self;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_template_output first = {0}, again = {0};
    lore_error err;
    s->is_same = lore_jinja_execute("t", s->body, LORE_JINJA_STEPS, &TEMPLATE_TOKENS,
                                    &TEMPLATE_CHAT, &arena, &first, &err) == LORE_OK;
    for (int32_t i = 0; i < 200 && s->is_same; i++) {
        s->is_same = lore_jinja_execute("t", s->body, LORE_JINJA_STEPS, &TEMPLATE_TOKENS,
                                        &TEMPLATE_CHAT, &arena, &again, &err) == LORE_OK &&
                     lore_str_equal(first.text, again.text);
    }
    lore_arena_destroy(&arena);
    return NULL;
}

TEST(threads_may_share_a_template)
{
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    const lore_jinja_node *body = NULL;
    CHECK_OK(lore_jinja_parse_source(lore_str_from(busy_source), "t", &arena, &body, &err), &err);
    shared runs[4] = {{body, false}, {body, false}, {body, false}, {body, false}};
    lore_thread threads[4] = {{0}};
    for (int32_t i = 0; i < 4; i++) {
        CHECK_OK(lore_thread_start(&threads[i], "run", run_often, &runs[i], &err), &err);
    }
    for (int32_t i = 0; i < 4; i++) {
        lore_thread_join(&threads[i]);
        CHECK(runs[i].is_same);
    }
    lore_arena_destroy(&arena);
}

static lore_status parse_and_run(void *self)
{
    (void)self;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_template_output output = {0};
    lore_error err;
    lore_status status =
        run_source(lore_str_from(busy_source), &TEMPLATE_CHAT, &arena, &output, &err);
    lore_arena_destroy(&arena);
    return status;
}

TEST(survives_every_failing_allocation)
{
    CHECK_INT(parse_and_run(NULL), LORE_OK);
    check_alloc_sweep(parse_and_run, NULL);
}

CHECK_MAIN(loops_have_scopes_and_ifs_have_not, ends_whatever_the_template_does,
           names_cost_what_it_takes_to_find_them, contents_may_be_long,
           threads_may_share_a_template, survives_every_failing_allocation)
