"""The HTML of an exported site: one page of files beside it, or one that carries everything in itself."""

import base64
import gzip
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from string import Template

from sdxl_mel import web

STYLES = ("player.css", "studio/studio.css", "site/site.css")
"""Together the style sheet of the page, in this order."""
APP, WORKER = "site/app.js", "site/worker.js"
"""The modules that the page and its workers begin with, to be bundled."""
SERVICE_WORKER = "site/sw.js"
POLICY = (
    "default-src 'none'; script-src {script} 'wasm-unsafe-eval'; style-src {style}; img-src 'self' data: blob:; "
    "connect-src 'self' blob:; media-src blob:; worker-src {worker}; base-uri 'none'; form-action 'none'"
)
BLOCK = 3 * 2**18
"""Bytes that are written as base64 at a time; divisible by three, so that the pieces make one text."""


def style() -> str:
    """Return the style sheet of the page."""
    return "".join(web.read(name) for name in STYLES)


def folder_page(title: str, style: str, app: str, worker: str) -> str:
    """Return index.html of a site in a folder; `style`, `app` and `worker` are the names of its files."""
    return _page(
        title,
        policy=POLICY.format(script="'self'", style="'self'", worker="'self'"),
        style=f'<link rel="stylesheet" href="{style}">',
        script=f'<script type="module" src="{app}"></script>',
        attributes=f' data-worker="{worker}"',
    )


def single_page(title: str, files: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """Yield the text of a page that opens from a disk, piece by piece.

    `files` are manifest.json and all that it names, by their paths; one is in memory at a time.
    """
    app, css = web.bundle(APP), style()
    policy = POLICY.format(script=f"{_hash(app)} blob:", style=_hash(css), worker="blob:")
    mark = "<!-- files -->"
    script = f'{mark}\n<script type="text/plain" data-path="worker.js">{web.bundle(WORKER)}</script>\n'
    script += f'<script type="module">{app}</script>'
    head, tail = _page(title, policy, f"<style>{css}</style>", script).split(mark)
    yield head
    for path, content in files:
        packed = gzip.compress(content, compresslevel=6, mtime=0)
        yield f'<script type="text/plain" data-path="{path}">'
        yield from (base64.b64encode(packed[at : at + BLOCK]).decode() for at in range(0, len(packed), BLOCK))
        yield "</script>\n"
    yield tail


def _page(title: str, policy: str, style: str, script: str, attributes: str = "") -> str:
    drawing = base64.b64encode(web.read("studio/icon.svg").encode()).decode()
    return Template(web.read("site/index.html")).substitute(
        title=escape(title),
        policy=policy,
        style=style,
        script=script,
        attributes=attributes,
        icon=f"data:image/svg+xml;base64,{drawing}",
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
