"""What a browser may do with a page: show it, and run the scripts that the workbook itself put there."""

import base64
import hashlib
import re

SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)


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
