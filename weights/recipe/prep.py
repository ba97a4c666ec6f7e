"""Tokenizer, language-model stream and grounded-QA examples for the embedded default models.

    python prep.py WORK [--workers N]

in   WORK/docs-*.jsonl   {"lang", "title", "sections": [{"heading", "text"}]}
     WORK/train-*.jsonl  {"question", "context", "answers", "lang", "source"}
out  WORK/tok/tokenizer.json   the tokenizer of both models
     WORK/lm.bin               uint16 stream of the documents, then lm.done
     WORK/sft.npz              grounded examples: tokens, lengths, prompt lengths; then sft.done
     WORK/pairs.npz            (question, passage) pairs for the encoder

train.py waits for the .done files, so that it can compile while this runs. prompt() and evidence() are
what the program's prompt template imitates: change them together.
"""

import argparse
import glob
import json
import multiprocessing
import os
import random
import re
import time

import numpy as np

VOCAB = 24576
EPOCHS_QA = 6  # every real question, each time with other negatives
TOKEN_BYTES_MAX = 24
EXAMPLE_TOKENS_MAX = 1536
PAIR_QUESTION_TOKENS = 62
PAIR_PASSAGE_TOKENS = 254
TOKENIZER_SAMPLE_CHARS = {"en": 80e6, "zh": 20e6}
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"] + [
    f"<|reserved_{i}|>" for i in range(12)
]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SYSTEM = "Answer from the numbered passages and cite them like [1]. If they do not hold the answer, say so."
NOANS = {"en": "The passages do not answer this question.", "zh": "所给资料没有回答这个问题。"}

# Verbs that headings of documentation begin with, to turn "Installing X" into "How do I install X?".
BASE = """install create configure use set add remove delete update upgrade run build deploy enable disable manage monitor
test write read open close start stop restart connect join import export upload download back restore move copy rename
edit change modify view list find search check verify validate troubleshoot debug fix resolve get send receive publish
subscribe sign log register define declare call pass return handle throw catch convert format parse filter sort group
merge split compare select choose assign map bind link attach detach mount load save store cache sync migrate transfer
scale optimize improve reduce increase limit allow deny block grant revoke protect secure encrypt decrypt authenticate
authorize customize extend override implement design plan prepare prevent avoid understand learn work get make apply
schedule trigger automate integrate invite share print submit cancel approve reset recover replace clean clear compile
generate render display show hide style query insert index access track measure analyze collect record report contact
pay request order return refund track specify provide include exclude attach tag label pin mark assess review explore
discover expose route balance drain evict label annotate roll pause resume preview compose draft browse turn switch""".split()
IRREGULAR = {
    "submitting": "submit",
    "debugging": "debug",
    "logging": "log",
    "troubleshooting": "troubleshoot",
    "getting": "get",
}


def gerunds():
    """{"installing": "install", ...} for every verb of BASE."""
    table = {}
    for verb in BASE:
        if verb.endswith("e") and not verb.endswith("ee"):
            table[verb[:-1] + "ing"] = verb
        elif len(verb) <= 4 and re.search(r"[^aeiou][aeiou][bdgmnprt]$", verb):
            table[verb + verb[-1] + "ing"] = verb
        table.setdefault(verb + "ing", verb)
    table.update(IRREGULAR)
    return table


ING = gerunds()
BASES = set(BASE)
ZHV = (
    "安装 配置 创建 使用 设置 添加 删除 更新 升级 运行 构建 部署 启用 禁用 管理 监控 测试 编写 读取 打开 关闭 启动 停止 连接 导入 导出 "
    "上传 下载 备份 恢复 迁移 查看 修改 检查 验证 调试 解决 获取 发送 定义 声明 调用 处理 转换 选择 实现 优化 查询 访问 加载 保存 扩展 限制 理解 学习 了解"
).split()


def sentences(t, lang):
    """Sentences of a text, without line breaks; ends of paragraphs end sentences too."""
    out = []
    for para in t.split("\n"):
        para = para.strip()
        if not para:
            continue
        parts = (
            re.split(r"(?<=[。!?;])", para)
            if lang == "zh"
            else re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(\[`*])", para)
        )
        out += [p.strip() for p in parts if p.strip()]
    return out


def ok_sentence(s, lang):
    """Whether a sentence is prose of a length that can be an answer."""
    if lang == "zh":
        return 10 <= len(s) <= 120 and sum("\u4e00" <= c <= "\u9fff" for c in s) > len(s) * 0.5
    n = len(s.split())
    return (
        5 <= n <= 45 and s[-1] in ".!?" and sum(c.isalpha() or c == " " for c in s) > len(s) * 0.8
    )


def low(h):
    """A heading as it stands inside a sentence: first word in lower case unless it is a name."""
    w = h.split(" ", 1)
    if len(w[0]) > 1 and w[0][1:].islower():
        w[0] = w[0].lower()
    return " ".join(w)


def heading_question(title, h, lang, rnd):
    """A question that the section under this heading answers; None where the heading makes none."""
    h = re.sub(r"^[\d.\s)]+", "", h).strip().rstrip(":.。:")
    if len(h) < 3 or len(h) > 90:
        return None
    if h[-1] in "??":
        return h
    if lang == "zh":
        if any(h.startswith(v) for v in ZHV):
            return rnd.choice(["如何{}?", "怎么{}?", "怎样{}?", "我该如何{}?"]).format(h)
        return rnd.choice(
            ["什么是{}?", "{}是什么?", "请介绍{}。", "{}", "关于{},文档怎么说?", "{}有什么说明?"]
        ).format(h)
    w = h.split()
    w0 = w[0].lower()
    if w0 in (
        "how",
        "what",
        "why",
        "when",
        "where",
        "which",
        "who",
        "can",
        "is",
        "are",
        "does",
        "do",
        "should",
    ):
        if h.lower().startswith("how to "):
            return rnd.choice(["How do I {}?", "How can I {}?", "How to {}?"]).format(h[7:])
        return h + "?"
    verb = ING.get(w0) or (w0 if w0 in BASES else None)
    if verb and len(w) >= 2:
        rest = " ".join([verb] + w[1:])
        return rnd.choice(
            [
                "How do I {}?",
                "How can I {}?",
                "How to {}?",
                "how do i {}",
                "What is the way to {}?",
                "I want to {}. How?",
                "Steps to {}?",
            ]
        ).format(rest)
    generic = w0 in (
        "overview",
        "introduction",
        "summary",
        "notes",
        "note",
        "description",
        "example",
        "examples",
        "usage",
        "prerequisites",
        "requirements",
        "background",
        "parameters",
        "options",
        "limitations",
        "details",
        "syntax",
    )
    if generic or len(w) == 1:
        if not title:
            return None
        return rnd.choice(
            [
                "{h} of {t}?",
                "What are the {h} for {t}?",
                "{t} {h}",
                (
                    "What is {t}?"
                    if w0 in ("overview", "introduction", "description", "summary")
                    else "{t}: {h}"
                ),
            ]
        ).format(h=low(h), t=title)
    t = [
        f"What is {low(h)}?",
        f"Tell me about {low(h)}.",
        f"Explain {low(h)}.",
        f"{low(h)}",
        f"What should I know about {low(h)}?",
        f"What do the docs say about {low(h)}?",
    ]
    if title:
        t.append(f"{low(h)} in {title}?")
    return rnd.choice(t)


STOP = set(
    "the a an of to in on for and or is are was were be been by with as at from that this it its can will may you your we our if not no than then when which who what how do does have has had into also such use used using these those there their they he she his her one other more most some any all each only".split()
)


def content_question(s, lang, df, rnd):
    """A question whose answer is the sentence s; None where no rule fits."""
    if lang == "zh":
        m = re.match(
            r"^(.{2,16}?)(是|指|用于|包括|支持|提供|允许|需要|可以|位于|成立于|出生于)(.{4,})[。!?;]$",
            s,
        )
        if m and rnd.random() < 0.7:
            a, v = m.group(1), m.group(2)
            return rnd.choice(
                {
                    "是": ["{a}是什么?", "什么是{a}?"],
                    "指": ["{a}指什么?"],
                    "用于": ["{a}用于什么?", "{a}有什么用?"],
                    "包括": ["{a}包括哪些?"],
                    "支持": ["{a}支持什么?"],
                    "提供": ["{a}提供什么?"],
                    "允许": ["{a}允许做什么?"],
                    "需要": ["{a}需要什么?"],
                    "可以": ["{a}可以做什么?", "{a}能做什么?"],
                    "位于": ["{a}在哪里?", "{a}位于哪里?"],
                    "成立于": ["{a}是什么时候成立的?"],
                    "出生于": ["{a}出生于何时?"],
                }[v]
            ).format(a=a)
        m = re.search(r"\d[\d,.]*", s)
        if m and rnd.random() < 0.5:
            return s.replace(m.group(0), "多少", 1).rstrip("。;") + "?"
        cl = [c for c in re.split(r"[,,、;::]", s.rstrip("。!?;")) if 5 <= len(c) <= 24]
        if not cl:
            return None
        c = rnd.choice(cl)
        return rnd.choice(["{}?", "{}", "{}是怎么回事?", "为什么{}?"]).format(c)
    body = s.rstrip(".!?")
    r = rnd.random()
    if r < 0.35:
        m = re.match(
            r"^((?:The |A |An )?[\w\-' ]{3,50}?) (is|are|was|were) (a|an|the|used|called|known) (.+)$",
            body,
        )
        if m and len(m.group(1).split()) <= 6:
            a = low(m.group(1)) if m.group(1).split()[0] in ("The", "A", "An") else m.group(1)
            v = m.group(2)
            if a.split()[0].lower() in (
                "this",
                "it",
                "there",
                "these",
                "that",
                "they",
                "he",
                "she",
            ):
                return None
            a2 = re.sub(r"^(a|an) ", "", a)
            if m.group(3) == "used":
                return f"What {v} {a} used for?"
            return rnd.choice(
                [
                    f"What {v} {a}?",
                    f"What {v} {a2}?",
                    f"Define {a2}.",
                    f"what's {a2}" if v == "is" else f"What {v} {a}?",
                    f"{a2} meaning",
                ]
            )
    if r < 0.55:
        m = re.match(
            r"^([A-Z][\w\-' ]{3,60}?) (is|are|was|were|can be|must be|should be|will be) ([\w\-]+(?: [\w\-]+){0,4}) (in|on|at|by|from|with|for|to|as|into|under) (.{3,60})$",
            body,
        )
        if (
            m
            and len(m.group(1).split()) <= 7
            and m.group(1).split()[0]
            not in ("This", "It", "There", "These", "That", "They", "He", "She", "If", "When")
        ):
            subj = low(m.group(1))
            aux = m.group(2)
            pred = m.group(3)
            prep = m.group(4)
            obj = m.group(5)
            a0, *ar = aux.split()
            ar = (" " + " ".join(ar)) if ar else ""
            if prep == "in" and re.match(r"^(\w+ )?\d{4}$", obj):
                return f"When {a0} {subj}{ar} {pred}?"
            if prep == "by":
                return f"{rnd.choice(['Who', 'What'])} {a0} {subj}{ar} {pred} by?"
            if prep in ("in", "on", "at", "into", "under") and rnd.random() < 0.5:
                return f"Where {a0} {subj}{ar} {pred}?"
            return f"What {a0} {subj}{ar} {pred} {prep}?"
    if r < 0.7:
        m = re.match(
            r"^((?:The |A |An |Your )?[\w\-' ]{3,40}?) (can|must|should|will|may|cannot) (\w+) (.+)$",
            body,
        )
        if (
            m
            and len(m.group(1).split()) <= 5
            and m.group(1).split()[0]
            not in ("This", "It", "There", "These", "That", "They", "If", "When")
        ):
            subj = (
                low(m.group(1))
                if m.group(1).split()[0] in ("The", "A", "An", "You", "Your")
                else m.group(1)
            )
            subj = {"you": "I", "your": "my"}.get(subj.lower(), subj)
            if rnd.random() < 0.5:
                return f"{m.group(2).capitalize()} {subj} {m.group(3)} {m.group(4)}?"
            return f"What {m.group(2)} {subj} {m.group(3)}?"
    if r < 0.8:
        m = re.search(r"\b\d[\d,.]*\b", body)
        if m:
            nxt = body[m.end() :].split()
            if nxt and nxt[0].isalpha():
                return (
                    f"How many {nxt[0]} {' '.join(nxt[1:6])}".strip()
                    + f" {' '.join(body[:m.start()].split()[-7:])}?"
                )
            return body.replace(m.group(0), "what number", 1) + "?"
    ws = [w for w in re.findall(r"[A-Za-z][\w\-']+", body) if w.lower() not in STOP and len(w) > 2]
    if len(ws) < 3:
        return None
    ws = sorted(dict.fromkeys(ws), key=lambda w: df.get(w.lower(), 0))[: rnd.randint(3, 6)]
    order = {w: i for i, w in enumerate(re.findall(r"[A-Za-z][\w\-']+", body))}
    if rnd.random() < 0.7:
        ws.sort(key=lambda w: order[w])
    q = " ".join(ws).lower() if rnd.random() < 0.5 else " ".join(ws)
    return rnd.choice(
        ["{}", "{}?", "What about {}?", "find {}", "Which part covers {}?", "anything on {}?"]
    ).format(q)


def passage(title, heading, text, budget, rnd, focus=None):
    """Cut text to about budget characters on sentence ends, keeping focus inside."""
    if len(text) > budget:
        start = 0
        if focus is not None:
            i = text.find(focus)
            lo = max(0, i + len(focus) - budget)
            hi = min(i, len(text) - budget)
            start = rnd.randint(min(lo, max(hi, 0)), max(lo, max(hi, 0))) if hi >= 0 else max(0, lo)
            nl = max(
                text.rfind("\n", 0, start), text.rfind(". ", 0, start), text.rfind("。", 0, start)
            )
            if start and nl >= 0 and start - nl < 200:
                start = nl + 1
        end = min(len(text), max(start + budget, (text.find(focus) + len(focus)) if focus else 0))
        text = text[start:end].strip()
    head = " > ".join(x for x in (title, heading) if x and x != title) if rnd.random() < 0.8 else ""
    if head == "" and title and rnd.random() < 0.5:
        head = title
    return (head + "\n" if head else "") + text


def grams(t, lang):
    """Words without the commonest (English), pairs of characters (Chinese)."""
    t = t.lower()
    return (
        {t[i : i + 2] for i in range(len(t) - 1)}
        if lang == "zh"
        else {w for w in re.findall(r"\w+", t) if w not in STOP}
    )


def evidence(question, passages, lang, rnd=None, force=None, keep=3):
    """Keep the sentences of each passage that overlap the question most (and `force`), best passage first.

    passages: list of text whose first line may be a heading path. Returns (trimmed passages, order).
    """
    q = grams(question, lang)
    out = []
    for n, p in enumerate(passages):
        ss = sentences(p, lang) or [p]
        sc = [(len(q & (g := grams(x, lang))) / (len(g) ** 0.3 + 1), -i) for i, x in enumerate(ss)]
        top = sorted(range(len(ss)), key=lambda i: sc[i], reverse=True)[:keep]
        if force:
            top = list(
                {*top, *[i for i, x in enumerate(ss) if force in x or (len(x) > 12 and x in force)]}
            )
        out.append(
            (
                max(sc)[0] + (rnd.random() * 1e-3 if rnd else 0),
                n,
                "\n".join(ss[i] for i in sorted(top)),
            )
        )
    out.sort(key=lambda x: -x[0])
    return [o[2] for o in out], [o[1] for o in out]


def prompt(question, passages):
    """The ChatML prompt of a grounded question: question, numbered passages, question again."""
    ctx = "\n\n".join(f"[{i+1}] {p}" for i, p in enumerate(passages))
    return f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nQuestion: {question}\n\n{ctx}\n\nQuestion: {question}<|im_end|>\n<|im_start|>assistant\n"


def make(job):
    """Examples from documents: questions made of headings and sentences, passages of the same and other sections.

    job: (documents, document frequencies of words, seed). An example is (prompt, answer, question or None, whole passage).
    """
    docs, df, seed = job
    rnd = random.Random(seed)
    out = []
    allsec = [
        (d["title"], s["heading"], s["text"], d["lang"])
        for d in docs
        for s in d["sections"]
        if len(s["text"]) > 120
    ]
    if len(allsec) < 10:
        return out
    for d in docs:
        lang = d["lang"]
        secs = [s for s in d["sections"] if len(s["text"]) > (60 if lang == "zh" else 150)]
        rnd.shuffle(secs)
        for s in secs[:6]:
            text = s["text"]
            sents = [x for x in sentences(text, lang)]
            good = [x for x in sents if ok_sentence(x, lang)]
            if not good:
                continue
            cands = []
            q = heading_question(d["title"], s["heading"] or d["title"], lang, rnd)
            if q:
                a, n = [], 0
                for x in sents[:4]:
                    if n + len(x) > (110 if lang == "zh" else 330):
                        break
                    a.append(x)
                    n += len(x)
                    if len(a) >= 1 and rnd.random() < 0.45:
                        break
                if a and ok_sentence(a[0], lang):
                    cands.append((q, (" " if lang == "en" else "").join(a), a[0]))
            for x in rnd.sample(good, 1):
                q = content_question(x, lang, df, rnd)
                if q:
                    cands.append((q, x, x))
            for q, a, focus in cands:
                k = rnd.choice([1, 2, 3, 3, 4, 4, 5])
                budget = rnd.choice([350, 500, 700, 900]) // (3 if lang == "zh" else 1)
                others = [o for o in secs if o is not s]
                neg = []
                for _ in range(k - 1 if rnd.random() > 0.12 else k):
                    if others and rnd.random() < 0.5:
                        o = rnd.choice(others)
                        neg.append((d["title"], o["heading"], o["text"]))
                    else:
                        for _ in range(8):
                            o = rnd.choice(allsec)
                            if o[3] == lang and o[2] is not text:
                                neg.append(o[:3])
                                break
                ps = [passage(t, h, x, budget, rnd) for t, h, x in neg]
                ps = [p for p in ps if focus not in p]
                if len(neg) == k:  # unanswerable
                    if not ps:
                        continue
                    ps, _ = evidence(q, ps, lang, rnd)
                    out.append((prompt(q, ps), NOANS[lang] + "<|im_end|>", None, None))
                    continue
                pos = rnd.randint(0, len(ps))
                ps.insert(pos, passage(d["title"], s["heading"], text, budget, rnd, focus))
                if a not in ps[pos]:
                    a = focus
                if a not in ps[pos]:
                    continue
                whole = ps[pos]
                ps, order = evidence(q, ps, lang, rnd, a, rnd.choice([2, 3, 3, 4]))
                out.append((prompt(q, ps), f"{a} [{order.index(pos)+1}]<|im_end|>", q, whole))
    return out


def make_qa(job):
    """Examples from real questions: their own passage among those of neighbouring rows. job: (rows, seed)."""
    rows, seed = job
    rnd = random.Random(seed)
    out = []
    for i, r in enumerate(rows):
        if (r.get("faq") or not r["answers"]) and rnd.random() < 0.7:
            continue
        lang = r.get("lang", "en")
        ctx = r["context"]
        sents = sentences(ctx, lang)
        if not sents:
            continue
        if r.get("faq"):  # question -> passage: the first sentences answer
            sup, n = [], 0
            for x in sents[:4]:
                if n + len(x) > 330:
                    break
                sup.append(x)
                n += len(x)
                if rnd.random() < 0.4:
                    break
            if not sup:
                continue
            focus, ans, sup = sup[0], None, " ".join(sup)
        else:
            good = [a for a in r["answers"] if a and a in ctx]
            if not good:
                if not r["answers"]:
                    out.append(
                        (
                            prompt(
                                r["question"],
                                evidence(
                                    r["question"],
                                    [passage("", "", ctx, 700 // (3 if lang == "zh" else 1), rnd)],
                                    lang,
                                    rnd,
                                )[0],
                            ),
                            NOANS[lang] + "<|im_end|>",
                            None,
                            None,
                        )
                    )
                continue
            ans = good[0]
            focus = sup = next((x for x in sents if ans in x), None)
            if not sup or len(sup) > 600:
                continue
        k = rnd.choice([1, 2, 3, 3, 4, 5])
        budget = rnd.choice([500, 700, 900]) // (3 if lang == "zh" else 1)
        neg = []
        lo, hi = max(0, i - 40), min(len(rows), i + 40)
        for _ in range(2 * k - 2):
            if len(neg) == k - 1:
                break
            o = rows[rnd.randrange(lo, hi)] if rnd.random() < 0.7 else rnd.choice(rows)
            if (
                o["lang"] == lang
                and o["context"] != ctx
                and (ans is None or ans not in o["context"])
            ):
                neg.append(passage("", "", o["context"], budget, rnd))
        if rnd.random() < 0.08 and neg:
            out.append(
                (
                    prompt(r["question"], evidence(r["question"], neg, lang, rnd)[0]),
                    NOANS[lang] + "<|im_end|>",
                    None,
                    None,
                )
            )
            continue
        pos = rnd.randint(0, len(neg))
        p = passage("", "", ctx, budget, rnd, focus)
        if sup not in p:
            sup = focus
        if sup not in p:
            continue
        neg.insert(pos, p)
        ps, order = evidence(r["question"], neg, lang, rnd, sup, rnd.choice([2, 3, 3, 4]))
        out.append(
            (prompt(r["question"], ps), f"{sup} [{order.index(pos)+1}]<|im_end|>", r["question"], p)
        )
    return out


def enc_job(path, pairs):
    """Token ids of examples and of their (question, passage) pairs, concatenated, with lengths."""
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(path)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    toks, lens, pls, eq, ql, pl2 = [], [], [], [], [], []
    for p, a, q, pp in pairs:
        if q:
            u, v = (
                tok.encode(q, add_special_tokens=False).ids[:PAIR_QUESTION_TOKENS],
                tok.encode(pp, add_special_tokens=False).ids[:PAIR_PASSAGE_TOKENS],
            )
            eq.append(np.array(u + v, dtype=np.uint16))
            ql.append(len(u))
            pl2.append(len(v))
        x = tok.encode(p, add_special_tokens=False).ids
        y = tok.encode(a, add_special_tokens=False).ids
        if len(x) + len(y) > EXAMPLE_TOKENS_MAX:
            continue
        toks.append(np.array(x + y, dtype=np.uint16))
        lens.append(len(x) + len(y))
        pls.append(len(x))
    cat = lambda a: np.concatenate(a) if a else np.zeros(0, np.uint16)
    return (
        cat(toks),
        np.array(lens, np.int32),
        np.array(pls, np.int32),
        cat(eq),
        np.array(ql, np.int32),
        np.array(pl2, np.int32),
    )


def make_enc(job):
    """One job of the pool: make examples of documents or of questions, and tokenise them."""
    kind, path, rest = job
    return enc_job(path, make(rest) if kind == "doc" else make_qa(rest))


def read_documents(work):
    """All documents of WORK, shuffled."""
    docs = []
    for path in sorted(glob.glob(f"{work}/docs-*.jsonl")):
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        docs += [d for d in rows if "lang" in d]
    return docs


def read_questions(work):
    """All questions of WORK, neighbours of one source together (they are hard negatives of one another)."""
    rows = []
    for path in sorted(glob.glob(f"{work}/train-*.jsonl")):
        with open(path, encoding="utf-8") as file:
            rows += [json.loads(line) for line in file]
    for r in rows:
        r["lang"] = r["lang"][:2]
        r["faq"] = bool(r["answers"]) and r["answers"][0].strip() == r["context"].strip()
        if len(r["context"]) > 6000:  # a window around the first answer
            at = r["context"].find(r["answers"][0]) if r["answers"] else 0
            start = max(0, at - 1500)
            r["context"] = r["context"][start : start + 4000]
    rows.sort(key=lambda r: (r["source"], r["context"][:80]))
    return rows


def document_text(d):
    """A document as one text: title, then sections under their headings."""
    parts = []
    for s in d["sections"]:
        heading = s["heading"] + "\n" if s["heading"] and s["heading"] != d["title"] else ""
        parts.append(heading + s["text"])
    return d["title"] + "\n\n" + "\n\n".join(parts)


def train_tokenizer(path, texts, docs, questions):
    """Byte-level BPE on a sample of the documents and all Chinese contexts. Gives it, and the characters used."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=TOKEN_BYTES_MAX,
    )
    sample, used = [], {"en": 0, "zh": 0}
    for text, d in zip(texts, docs):
        if used[d["lang"]] < TOKENIZER_SAMPLE_CHARS[d["lang"]]:
            sample.append(text)
            used[d["lang"]] += len(text)
    sample += list({r["context"] for r in questions if r["lang"] == "zh"})
    tok.train_from_iterator(sample, trainer)
    tok.save(path)
    return tok, used


def write_stream(work, tok, texts):
    """lm.bin: every document behind an end-of-text token. Gives the number of tokens."""
    total = 0
    eos = tok.token_to_id("<|endoftext|>")
    with open(f"{work}/lm.bin", "wb") as out:
        for i in range(0, len(texts), 20000):
            for e in tok.encode_batch_fast(texts[i : i + 20000], add_special_tokens=False):
                out.write(np.array([eos] + e.ids, dtype=np.uint16).tobytes())
                total += len(e.ids) + 1
    touch(f"{work}/lm.done")
    return total


def touch(path):
    """Mark a stage as done."""
    with open(path, "w", encoding="ascii") as file:
        file.write("1")


def word_frequencies(texts):
    """In how many of a sample of texts each word occurs, for words that occur twice."""
    df = {}
    for t in texts[:: max(1, len(texts) // 40000)]:
        for w in set(re.findall(r"[a-z][\w\-']+", t.lower())):
            df[w] = df.get(w, 0) + 1
    return {w: c for w, c in df.items() if c > 1}


def make_jobs(path, docs, questions, df):
    """Jobs of the pool: documents by 400, every question EPOCHS_QA times by 500."""
    jobs = [("doc", path, (docs[i : i + 400], df, i)) for i in range(0, len(docs), 400)]
    for epoch in range(EPOCHS_QA):
        for i in range(0, len(questions), 500):
            jobs.append(("qa", path, (questions[i : i + 500], 7919 * epoch + i)))
    return jobs


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", help="work folder with the unpacked data; results go there too")
    parser.add_argument("--workers", type=int, default=14)
    args = parser.parse_args()
    from tokenizers import Tokenizer

    t0 = time.time()
    log = lambda *a: print(f"[{time.time()-t0:6.1f}s]", *a, flush=True)
    docs = read_documents(args.work)
    questions = read_questions(args.work)
    random.Random(1).shuffle(docs)
    texts = [document_text(d) for d in docs]
    chars = {
        lang: sum(len(t) for t, d in zip(texts, docs) if d["lang"] == lang) for lang in ("en", "zh")
    }
    log(len(docs), "docs", chars, "qa", len(questions))

    os.makedirs(f"{args.work}/tok", exist_ok=True)
    path = f"{args.work}/tok/tokenizer.json"
    if os.path.exists(f"{args.work}/lm.done"):
        tok = Tokenizer.from_file(path)
    else:
        tok, used = train_tokenizer(path, texts, docs, questions)
        log("tokenizer", tok.get_vocab_size(), used)
        log("lm tokens", write_stream(args.work, tok, texts))

    jobs = make_jobs(path, docs, questions, word_frequencies(texts))
    del texts
    parts = []
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        for part in pool.imap_unordered(make_enc, jobs, chunksize=2):
            parts.append(part)
    tokens, lens, plens, pair_tokens, ql, pl = (np.concatenate(column) for column in zip(*parts))
    np.savez(f"{args.work}/pairs.npz", tokens=pair_tokens, ql=ql, pl=pl)
    log("pairs", len(ql))
    np.savez(f"{args.work}/sft.npz", tokens=tokens, lens=lens, plens=plens)
    touch(f"{args.work}/sft.done")
    log("sft examples", len(lens), "tokens", int(lens.sum()), "mean", float(lens.mean()))
    log("answer mean", float((lens - plens).mean()))
    offsets = np.concatenate([[0], np.cumsum(lens)])
    for i in random.Random(5).sample(range(len(lens)), 4):
        example = tokens[offsets[i] : offsets[i + 1]].tolist()
        print("-----", tok.decode(example, skip_special_tokens=False))


if __name__ == "__main__":
    main()
