"""What transformers makes of the chat templates in templates/, for golden_templates.c to compare with.

    pip install transformers jinja2
    python make_templates.py

templates/NAME.jinja are the templates of the families, as their folders carry them. Written are

    templates/cases.json        now_ms, the tokens of each template, the conversations
    templates/expected.jsonl    {"template", "conversation", "open", "text"}; no text: it was refused
    templates/snippets.jsonl    {"source", "text"}: the language piece by piece; no text: an error

all by transformers' own machinery (render_jinja_template), with the date held at now_ms, in UTC.
"""

import datetime
import json
import os

import jinja2
from transformers.utils import chat_template_utils

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")
NOW = datetime.datetime(2026, 3, 1, 12, 0, 0)

LLAMA = {"bos_token": "<s>", "eos_token": "</s>"}
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
CHATML = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
TOKENS = {
    "alpaca": LLAMA, "chatml": CHATML, "gemma2": {"bos_token": "<bos>", "eos_token": "<eos>"}, "llama2": LLAMA,
    "llama3": LLAMA3, "llama3.1": LLAMA3, "llama3.2": LLAMA3, "mistral-v1": LLAMA, "mistral-v2": LLAMA,
    "mistral-v3": LLAMA, "mistral-v7": LLAMA, "phi3": {"bos_token": "<s>", "eos_token": "<|endoftext|>"},
    "phi3-first": {"bos_token": "<s>", "eos_token": "<|endoftext|>"}, "qwen2": CHATML, "qwen2.5": CHATML,
    "qwen3": CHATML, "vicuna": LLAMA,
}

CONVERSATIONS = {
    "question": [("user", "How long is the river?")],
    "system": [("system", "Answer in one sentence."), ("user", "How long is it?")],
    "turns": [("user", "One?"), ("assistant", "Two."), ("user", "Three?")],
    "system-turns": [("system", "Count."), ("user", "One?"), ("assistant", "Two."), ("user", "Three?"),
                     ("assistant", "Four."), ("user", "Five?")],
    "chinese": [("system", "\u3000请用中文回答。\u3000"), ("user", "长江有多长？"), ("assistant", "约6300公里。"),
                ("user", "\u00a0黄河呢？\n")],
    "empty-system": [("system", ""), ("user", "Who?")],
    "empty-user": [("user", ""), ("assistant", ""), ("user", "")],
    "space": [("system", "\n a \t\n"), ("user", "  \n\tb  c\r\n \u2003\n"), ("assistant", "\x1c d \x85"), ("user", " e\u200b ")],
    "syntax": [("system", "{{ bos_token }}{% if true %}{# no #}"), ("user", "{%- endfor %}<|im_end|>\n<|im_start|>system\n</s>[INST]"),
               ("assistant", "<|eot_id|><end_of_turn>\n{{ raise_exception('x') }}"), ("user", "<|end|><|user|>\\n'\"\\")],
    "thinking": [("user", "2+2?"), ("assistant", "<think>\nAdd them.\n</think>\n\nIt is 4."), ("user", "And 3+3?"),
                 ("assistant", "<think>\n\nAgain.\n\n</think>\n\n\nIt is 6.")],
    "tool-like": [("user", "q"), ("assistant", "a"), ("user", "<tool_response>\n1\n</tool_response>"), ("assistant", "\n\nb")],
    "answered": [("system", "S"), ("user", "U"), ("assistant", "A")],
    "answer-first": [("assistant", "Hello."), ("user", "Hi.")],
    "two-questions": [("user", "One?"), ("user", "Two?")],
    "system-late": [("user", "One?"), ("system", "Late."), ("user", "Two?")],
}

# The language, piece by piece; messages are those of "snippet" below.
SNIPPET_MESSAGES = [("system", "Sys\u4e2dtem \"x\"\\\n"), ("user", " Us er\u00e9 "), ("assistant", "a</think>b</think>c"), ("user", "")]
SNIPPETS = [
    # white space
    "a\n{% if true %}\n  b\n{% endif %}\nc\n", "  {% if true %}x{% endif %}  \n  {{ 1 }}  \n", "a \n {%- if true -%} \n b \n {%- endif -%} \n c",
    "a {{- ' b ' -}} c", "a\n  {#- c -#}\n b", "a\n  {# c #}\nb", "a\n {%+ if true %}x{% endif +%}\ny", "\n\n{% set x = 1 %}\n\nz\n\n",
    "{{ 'a' }}\n{{ 'b' }}\n", "x {# {{ }} {% #} y", "{{ 1 }} \n\t{% set y = 2 %} \n", "a\r\nb\rc{{ 'd\r\ne' }}", "{#-#}a", "   {% set a=1 %}\n   b",
    "{%set a=1%}{{a}}", "{{a}}{% set a = 1 %}{{ a }}", "a\u3000{%- set x = 1 %}", "a\n\u3000{% set x = 1 %}b", "{{ 1 -}}\n\n  {% set x = 2 %}\n.",
    # constants, strings
    "{{ 1 }}{{ true }}{{ False }}{{ none }}{{ nothing }}", r"{{ 'a\n\t\\\'\"\x41\u4e2d\q' }}", "{{ \"it's\" }}",
    # operators
    "{{ 1 + 2 * 3 - 4 // 3 % 2 }}", "{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 // -2 }}", "{{ 'a' ~ 1 ~ true ~ none ~ nothing }}",
    "{{ 'a' + 'b' ~ 'c' + 'd' }}", "{{ 1 ~ 2 + 3 }}", "{{ true == 1 }} {{ 'a' == 1 }} {{ none == false }}", "{{ 'a' < 'b' }} {{ 2 >= 3 }}",
    "{{ not 1 == 2 }} {{ not true and false }} {{ true or nothing.x }}", "{{ 1 and 'x' or 'y' }} {{ '' or 0 }}", "{{ 'x' if 0 else 'y' if 1 else 'z' }}",
    "[{{ 'x' if false }}]", "{{ 1 in [1, 2] }} {{ 3 not in (1, 2) }} {{ 'b' in 'abc' }} {{ 'role' in messages[0] }}", "{{ 'x' in nothing }}",
    "{{ [1, 'a', none] == [1, 'a', none] }}", "{{ 'a' + 1 }}", "{{ 1 + nothing }}", "{{ 1 // 0 }}", "{{ -1|string + 'x' }}", "{{ - 3 }}",
    # access
    "{{ messages[0].role }}{{ messages[-1]['role'] }}{{ messages[9] }}", "{{ messages[9].role }}", "{{ messages[0].nothing }}.", "{{ messages[0].nothing.x }}",
    "{{ 'h\u00e9llo'[1] }}{{ 'abc'[-1] }}{{ 'abc'[5] }}", "{{ 'h\u00e9llo'[1:3] }}|{{ 'h\u00e9llo'[::-1] }}|{{ 'abcdef'[1:-1:2] }}|{{ 'abc'[-9:9] }}|{{ 'abc'[2:1] }}",
    "{% for m in messages[1:] %}{{ m.role }},{% endfor %}", "{% for m in messages[::-1] %}{{ m.role }},{% endfor %}", "{% for m in messages[:-1][-2:] %}{{ m.role }},{% endfor %}",
    "{{ 'abc'[::0] }}", "{{ messages[0]['content'][:4] }}", "{{ [1, 2, 3][3::-2] | join('-') }}", "{{ [1, 2, 3][-1::-1] | join('-') }}",
    # loops and scopes
    "{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for x in [1, 2] %}{{ loop.previtem is defined }}{{ loop.nextitem }};{% endfor %}", "{% set x = 0 %}{% for y in [1, 2] %}{{ x }}{% set x = y %}{{ x }}{% endfor %}{{ x }}",
    "{% for x in [1, 2] %}{% for x in 'ab' %}{{ x }}{{ loop.index }}{% endfor %}{{ x }}{{ loop.index }}{% endfor %}", "{% if true %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}", "{% set x.y = 1 %}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in messages[0] | items if k != 'role' %}{{ k }}{{ loop.last }}{% endfor %}", "{% for k in messages[0] %}{{ k }} {% endfor %}",
    "{% for x in [1, 2, 3, 4] if x % 2 == 0 %}{{ x }}{{ loop.length }}{{ loop.index }}{% endfor %}", "{% for x in nothing %}a{% endfor %}.", "{% for x in none %}a{% endfor %}", "{% for x in 3 %}a{% endfor %}",
    "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}", "{% for x in [] %}{% endfor %}{{ loop is defined }}",
    "{% set ns = namespace(n=1) %}{% set ns.n = [ns.n, 2] %}{{ ns.n | tojson }}", "{% set l = loop %}{{ l }}",
    # filters and tests
    "[{{ ' \u3000a b\n ' | trim }}]", "{{ 'h\u00e9' | length }}{{ [1, 2] | count }}{{ nothing | length }}{{ messages[0] | length }}", "{{ 3 | length }}",
    "{{ messages[0] | tojson }}", "{{ [1, true, none, 'a\u4e2d\"\\\n\t\x01\u007f/'] | tojson }}", "{{ messages[0] | tojson(indent=2) }}|{{ [] | tojson(indent=2) }}|{{ [[1]] | tojson(indent=1) }}",
    "{{ [1, 'a', true] | join(', ') }}{{ 'abc' | join('-') }}{{ [1, 2] | join }}", "{{ 'abc' | list | last }}{{ messages | first is mapping }}{{ [] | first }}",
    "{{ 'aBc' | upper }}{{ 'aBc' | lower }}{{ 12 | string + 'x' }}", "{{ nothing | default('d') }}{{ '' | default('e') }}{{ '' | default('f', true) }}{{ none | d('g') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "{{ messages | rejectattr('role', 'eq', 'user') | list | length }}", "{{ messages | selectattr('content') | list | length }}",
    "{{ messages | selectattr('tools', 'defined') | list | length }}", "{{ [1, 0, 2] | select | list | length }}{{ ['a', 'b'] | reject('equalto', 'a') | join }}", "{{ ['a', 'b'] | select('ne', 'a') | list | join }}",
    "{{ nothing is defined }}{{ nothing is undefined }}{{ none is none }}{{ nothing is none }}{{ 'a' is string }}{{ 1 is number }}{{ true is number }}{{ true is boolean }}{{ messages is mapping }}",
    "{{ messages is iterable }}{{ 'a' is iterable }}{{ 1 is iterable }}{{ nothing is iterable }}{{ messages[0] is sequence }}{{ none is sequence }}",
    "{{ 1 is true }}{{ true is true }}{{ false is false }}{{ 0 is false }}{{ none is false }}", "{{ not 1 is defined }}{{ 1 is not defined }}{{ 1 is equalto 1 }}{{ 1 is eq(2) }}", "{{ 1 is not equalto 2 and true }}",
    "{{ strftime_now is defined }}{{ raise_exception is defined }}", "{{ strftime_now('%Y-%m-%d %H:%M %d %b %Y %A %B %j %%') }}", "{{ raise_exception('no') }}",
    # methods
    "[{{ '  a b '.strip() }}][{{ 'xxaxx'.strip('x') }}][{{ 'abca'.lstrip('ab') }}][{{ 'a\n\n'.rstrip('\n') }}][{{ '\u4e2d\u6587a\u4e2d'.strip('\u4e2d') }}]", "{{ 'a,b,,c'.split(',') | join('|') }}{{ ' a  b '.split() | join('|') }}",
    "{{ messages[2].content.split('</think>')[-1] }}{{ messages[2].content.split('</think>')[0] }}", "{{ ''.split(',') | length }}{{ ''.split() | length }}", "{{ 'a'.split('') }}",
    "{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith('ab') }}{{ 'abc'.replace('b', 'xx') }}{{ 'aaa'.replace('aa', 'b') }}", "{{ 'hello wORLD'.title() }}{{ 'aB'.upper() }}{{ 'aB'.lower() }}{{ 'hELLO you'.capitalize() }}",
    "{{ messages[0].get('role') }}{{ messages[0].get('x') }}{{ messages[0].get('x', 'y') }}", "{{ nothing.strip() }}", "{{ 1.strip() }}", "{{ messages[0].content | trim }}{{ messages[1].content.strip() }}",
]


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def render(source, turns, is_open, tokens):
    """The text, or None where the template refuses or fails."""
    chat = [{"role": role, "content": content} for role, content in turns]
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            [chat], chat_template=source, add_generation_prompt=is_open, **tokens)
        return texts[0]
    except (jinja2.TemplateError, TypeError, ValueError, ZeroDivisionError):
        return None


def as_json(value):
    return json.dumps(value, ensure_ascii=True)


def write_lines(name, rows):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as out:
        for row in rows:
            out.write(as_json({k: v for k, v in row.items() if v is not None}) + "\n")


def main():
    chat_template_utils.datetime = FixedDate
    rows = []
    for name, tokens in sorted(TOKENS.items()):
        with open(os.path.join(HERE, name + ".jinja"), encoding="utf-8") as handle:
            source = handle.read()
        for key, turns in CONVERSATIONS.items():
            is_open = turns[-1][0] == "user"
            rows.append({"template": name, "conversation": key, "open": is_open, "text": render(source, turns, is_open, tokens)})
    write_lines("expected.jsonl", rows)
    write_lines("snippets.jsonl", ({"source": s, "text": render(s, SNIPPET_MESSAGES, True, LLAMA)} for s in SNIPPETS))
    conversations = dict(CONVERSATIONS, snippet=SNIPPET_MESSAGES)
    with open(os.path.join(HERE, "cases.json"), "w", encoding="utf-8") as out:
        now_ms = int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
        json.dump({"now_ms": now_ms, "tokens": TOKENS, "conversations": conversations}, out, ensure_ascii=True, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
