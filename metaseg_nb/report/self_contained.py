"""Pages that are small enough to be mailed, run no script but the workbook's own, and ask nothing of a network."""

import base64
import hashlib
import io
import re

from PIL import Image

PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
# Smaller pictures are charts and icons, which PNG holds best. A page is about 1000 pixels wide.
LARGE_BYTES, MOST_PIXELS_WIDE = 40_000, 1400
QUALITY = 60
SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)


def with_light_pictures(html: str) -> str:
    """Replace the large PNG pictures inside a page by WebP of a third of the bytes."""
    return PNG.sub(_lighter, html)


def _lighter(found: re.Match) -> str:
    if len(found[1]) < LARGE_BYTES:
        return found[0]
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        picture.thumbnail((MOST_PIXELS_WIDE, picture.height))
        picture.save(buffer, "WEBP", quality=QUALITY)
    smaller = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return min(smaller, found[0], key=len)


def policy(*scripts: str) -> str:
    """Content-security policy of a page that holds some scripts: no others run, and nothing is asked of a network."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    runs = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {runs}; style-src 'unsafe-inline'; img-src 'self' file: data:; "
        "frame-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


def with_policy(page: str) -> str:
    """Put the policy into the head of a page, all of whose scripts are the workbook's own."""
    page = page.replace("\r\n", "\n")  # as browsers read it before they look at a script
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(*SCRIPT.findall(page))}">'
    return page.replace("<head>", f"<head>\n{meta}", 1)
