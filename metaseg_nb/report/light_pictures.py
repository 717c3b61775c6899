"""Pictures inside pages, in a third of the bytes, so that a report can be mailed."""

import base64
import io
import re

from PIL import Image

PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
# Smaller ones are charts and icons, which PNG holds best.
LARGE_BYTES = 40_000
QUALITY = 80


def with_light_pictures(html: str) -> str:
    """Replace the large PNG pictures inside a page by WebP, where that is smaller."""
    return PNG.sub(_lighter, html)


def _lighter(found: re.Match) -> str:
    if len(found[1]) < LARGE_BYTES:
        return found[0]
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        picture.save(buffer, "WEBP", quality=QUALITY)
    smaller = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return smaller if len(smaller) < len(found[0]) else found[0]
