"""Text of data inside Markdown: names, descriptions, titles."""

import re

# What can format something in a line, or be a link.
FORMATS = re.compile(r"[^\w\s.,:;()/+%='-]|_|:(?=/)")


def escaped(text: object) -> str:
    """Text of data for a line of Markdown: it is shown as it is, and formats nothing.

    Line breaks become blanks; each character with a meaning in Markdown, HTML or formulas
    becomes an entity, such as ``&#42;``.
    """
    return FORMATS.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))
