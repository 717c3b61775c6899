"""A name inside Markdown shows as it is."""

import re
from html import unescape

import pytest
from nbconvert.filters.markdown import markdown2html

from metaseg_nb.files import escaped


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1)) ![b](c)",
        "`b` *c* _d_ **e** ~~f~~ | g",
        r"$\frac$ \(x\) \\(y\\) \begin{a}x\end{a}",
        "&lt; &#60; &amp;",
        "# no heading",
        "http://example.org <http://example.org> www.example.org a@b.org",
        "Zürich 😀 (3 + 4) / 5 = 140 %; 'x', y: z.",
        "two\nlines\n\n- and a list",
    ],
)
def test_what_is_escaped_formats_nothing(name):
    html = markdown2html(f"cohort **{escaped(name)}** and {escaped(name)}")
    assert re.sub(r"</?(?:p|strong)>", "", html).count("<") == 0
    words = " ".join(name.split())
    assert unescape(re.sub(r"</?(?:p|strong)>", "", html)).strip() == f"cohort {words} and {words}"
