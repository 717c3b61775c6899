"""Words of data inside Markdown: names, descriptions, titles."""

import re

# What can format something in a line, or be a link.
FORMATS = re.compile(r"[^\w\s.,:;()/+%='-]|_|:(?=/)")


def escaped(text: object) -> str:
    """Text of data as it may stand inside a line of Markdown: it shows as it is, and formats nothing.

    Line breaks become blanks; each character that Markdown, HTML or formulas could take
    for their own becomes an entity, such as ``&#42;``.
    """
    return FORMATS.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))
