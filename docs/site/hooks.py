"""Maths, made when the site is built: the reader's browser draws MathML by itself, without a script."""

import html
import re

from latex2mathml.converter import convert

MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def mathml(match):
    tag, kind, latex = match.groups()
    latex = html.unescape(latex).strip()
    display = "block" if kind == "[" else "inline"
    text = convert(latex, display=display)
    text = re.sub(r"<mo><mrow>(.*?)</mrow></mo>", r"\1", text)  # of \mathrel{…}
    # A prime belongs to its letter; where no mathematical font is installed, browsers put it far above.
    text = re.sub(r"<msup>(<mi>\w</mi>)<mi>&#x02032;</mi></msup>",
                  r'<mrow>\1<mo lspace="0" rspace="0">&#x2032;</mo></mrow>', text)
    text = re.sub(r'<mi mathvariant="sans-serif">([A-Z])</mi>',  # which browsers do not know
                  lambda letter: f"<mi>{chr(0x1D5A0 + ord(letter[1]) - ord('A'))}</mi>", text)
    return f'<{tag} class="maths" role="math" aria-label="{html.escape(latex)}">{text}</{tag}>'


def on_page_content(content, **_):
    return MATHS.sub(mathml, content)
