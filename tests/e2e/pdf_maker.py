"""PDFs for tests, made of nothing but the standard library: text at places, in Helvetica and, for Chinese, in STSong-Light
(neither is embedded: who reads text needs no glyphs)."""
import random
import re
import zlib

# Advance widths of Helvetica in thousandths, from the space to the tilde.
WIDTHS = [278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556,
          556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
          667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556,
          556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584]


def is_chinese(text):
    return any(ord(c) > 0x2E7F for c in text)


def width(text, size):
    """Of a text in the one font or the other; in the Chinese one letters are half as wide as characters."""
    chinese = is_chinese(text)
    return sum(1000 if ord(c) > 0x2E7F else 500 if chinese else WIDTHS[ord(c) - 32] for c in text) * size / 1000


def wrap(text, size, room, hyphenate=None):
    """Lines of text no wider than room; Chinese breaks anywhere but in a number, a word where hyphenate(word) gives its two halves."""
    lines, line = [], ""
    if is_chinese(text):
        for piece in re.findall(r"[!-~]+|.", text):
            if line and width(line + piece, size) > room:
                lines.append(line)
                line = ""
            line += piece
        return lines + [line]
    for word in text.split():
        longer = f"{line} {word}" if line else word
        halves = hyphenate(word) if hyphenate and width(longer, size) > room else None
        if halves and line and width(f"{line} {halves[0]}-", size) <= room:
            lines.append(f"{line} {halves[0]}-")
            line = halves[1]
        elif line and width(longer, size) > room:
            lines.append(line)
            line = word
        else:
            line = longer
    return lines + [line]


class Pdf:
    """pdf = Pdf(title=...); pdf.page(); pdf.text(x, y, "words", size); bytes = pdf.bytes(). y is that of the baseline, from the top."""

    def __init__(self, **about):
        self.about, self.pages = about, []

    def page(self, page_width=595, page_height=842):
        self.size, self.drawn = (page_width, page_height), []
        self.pages.append((self.size, self.drawn))

    def text(self, x, y, text, size=10, turned=False):
        y = self.size[1] - y
        font = "F2" if is_chinese(text) else "F1"
        shown = ("<" + text.encode("utf-16-be").hex() + ">" if font == "F2" else
                 "(" + text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") + ")")
        matrix = "0 1 -1 0" if turned else "1 0 0 1"
        self.drawn.append(f"BT /{font} {size:g} Tf {matrix} {x:.2f} {y:.2f} Tm {shown} Tj ET")

    def lines(self, x, y, lines, size=10, leading=12, justify=None):
        """Lines below one another, all but the last as wide as justify; gives the y of the next."""
        for i, line in enumerate(lines):
            words = line.split(" ")
            if justify and i + 1 < len(lines) and len(words) > 1:
                gap = (justify - sum(width(word, size) for word in words)) / (len(words) - 1)
                at = x
                for word in words:
                    self.text(at, y, word, size)
                    at += width(word, size) + gap
            else:
                self.text(x, y, line, size)
            y += leading
        return y

    def bytes(self, shuffle=None, packed=True):
        """The file. shuffle: a random.Random that puts what is drawn on each page into another order, as bad writers do."""
        about = "".join(f"/{key} <feff{value.encode('utf-16-be').hex()}>" for key, value in self.about.items())
        objects = ["<</Type/Catalog/Pages 2 0 R>>", "", f"<<{about}>>",
                   "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
                   "<</Type/Font/Subtype/Type0/BaseFont/STSong-Light-UniGB-UCS2-H/Encoding/UniGB-UCS2-H/DescendantFonts[6 0 R]>>",
                   "<</Type/Font/Subtype/CIDFontType0/BaseFont/STSong-Light/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 2>>"
                   "/DW 1000/W[1 95 500]/FontDescriptor 7 0 R>>",
                   "<</Type/FontDescriptor/FontName/STSong-Light/Flags 6/FontBBox[-25 -254 1000 880]/ItalicAngle 0/Ascent 752"
                   "/Descent -271/CapHeight 737/StemV 58>>"]
        kids = []
        for size, drawn in self.pages:
            if shuffle is not None:
                drawn = shuffle.sample(drawn, len(drawn))
            content = "\n".join(drawn).encode("latin-1")
            content = zlib.compress(content) if packed else content
            kids.append(f"{len(objects) + 1} 0 R")
            objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {size[0]} {size[1]}]/Resources<</Font<</F1 4 0 R/F2 5 0 R>>>>"
                           f"/Contents {len(objects) + 2} 0 R>>")
            packing = "/Filter/FlateDecode" if packed else ""
            objects.append(f"<</Length {len(content)}{packing}>>stream\n".encode() + content + b"\nendstream")
        objects[1] = f"<</Type/Pages/Kids[{' '.join(kids)}]/Count {len(kids)}>>"
        out, places = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"), []
        for number, body in enumerate(objects, 1):
            places.append(len(out))
            out += b"%d 0 obj" % number + (body if isinstance(body, bytes) else body.encode("latin-1")) + b"\nendobj\n"
        table = len(out)
        out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % at for at in places)
        out += b"trailer<</Size %d/Root 1 0 R/Info 3 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
        return bytes(out)


# ---- random pages whose order is known ----

SYLLABLES = "ba co di fu ga he ji ko lu ma ne po ra si to vu wa ye zo bri cla dro fle gri plo sta tre".split()
CHINESE = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"


def words(rng, count):
    return " ".join("".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4))) for _ in range(count))


def sentence(rng, number):
    """Words that end in a number of their own, so that each paragraph is known wherever it goes."""
    return words(rng, rng.randint(25, 70)).capitalize() + f" end{number}."


def halves(rng):
    def cut(word):
        at = len(word) // 2
        return (word[:at], word[at:]) if word.isalpha() and len(word) > 5 and rng.random() < .5 else None
    return cut


class Flow:
    """Paragraphs down the columns of a band of the page, top to bottom, left to right."""

    def __init__(self, pdf, rng, columns, left, right, top, bottom, size):
        self.pdf, self.rng, self.size = pdf, rng, size
        self.leading = size * rng.choice([1.1, 1.2, 1.35])
        gutter = max(10, size * rng.choice([1.2, 1.6, 2.5]))
        self.room = (right - left - gutter * (columns - 1)) / columns
        self.places = [(left + i * (self.room + gutter), top + rng.choice([0, 0, self.leading * .4])) for i in range(columns)]
        self.bottom, self.gap = bottom, self.leading * rng.choice([.5, .8])
        self.indent = rng.random() < .3
        self.justify = self.room if rng.random() < .6 else None
        self.cut = halves(rng)

    def fill(self, chinese, number):
        """Fills the columns with paragraphs; their texts, in order."""
        told = []
        for x, y in self.places:
            bottom = self.bottom - self.rng.choice([0, 0, 60]) * (len(self.places) > 1)
            while y + 5 * self.leading < bottom:
                text = "".join(self.rng.choice(CHINESE) for _ in range(self.rng.randint(40, 160))) + f"第{number}段。" if chinese \
                    else sentence(self.rng, number)
                lines = wrap(text, self.size, self.room, self.cut)
                if y + len(lines) * self.leading > bottom:
                    break
                y = self.pdf.lines(x, y, lines, self.size, self.leading, None if chinese else self.justify) + self.gap
                told.append(text)
                number += 1
        return told, number


def book(seed, pages=3, columns=None, chinese=None):
    """A document of random pages: (bytes, paragraphs and headings in reading order with their page, what must not appear)."""
    rng = random.Random(seed)
    chinese = rng.random() < .3 if chinese is None else chinese
    pdf = Pdf(Title="书" if chinese else "A book", Author="Li Lei")
    size, told, number = rng.choice([8, 9, 10, 11]), [], 1
    has_header, has_footer = rng.random() < .7, rng.random() < .8
    for page in range(1, pages + 1):
        pdf.page()
        top, bottom, left, right = 70, 770, 60, 535
        if has_header:
            pdf.text(left, 35, "运行页眉" if chinese else "Running head of the book", size)
            pdf.text(right - 30, 35, str(page + 11), size)
        if has_footer:
            pdf.text(290, 812, f"- {page} -", size)
        while bottom - top > 200:
            if top > 70 or rng.random() < .7:  # a heading over all columns; without one nobody could tell the bands apart
                title = "".join(rng.choice(CHINESE) for _ in range(8)) + str(number) if chinese else f"{words(rng, 4).capitalize()} {number}"
                number += 1
                pdf.text(left, top + size * 1.7, title, size * 1.7)
                told.append((page, title))
                top += size * 1.7 + size * 2.2
            band = min(bottom, top + rng.choice([240, 400, 700]))
            band = bottom if bottom - band < 200 else band
            flow = Flow(pdf, rng, columns or rng.choice([1, 2, 2, 3]), left, right, top, band, size)
            texts, number = flow.fill(chinese, number)
            told += [(page, text) for text in texts]
            top = band + size
    dropped = ["Running head", "运行页眉"] + [f"- {page} -" for page in range(1, pages + 1)]
    return pdf.bytes(rng if rng.random() < .5 else None), told, dropped
