"""A report page: sections of text, tables, figures, pictures and players in one HTML file that needs nothing else."""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import soundfile
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from sdxl_mel import __version__, web
from sdxl_mel.arrays import Float
from sdxl_mel.files.atomic import write_text
from sdxl_mel.sound.melspec import MelSpec

AUDIO_KINDS = {b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg"}


@dataclass(frozen=True)
class Sound:
    """A sound to be played: the bytes of its file (WAV, FLAC, OGG), its spectrogram picture (PNG), its name."""

    content: bytes
    picture: bytes
    name: str = ""


@dataclass
class Page:
    """A report under construction: add sections, then `write` it."""

    title: str
    lead: str = ""
    sections: list[tuple[str, str, list[Markup]]] = field(default_factory=list)

    def section(self, title: str, *blocks: Markup) -> None:
        """Add a section; its title is also its place in the table of contents."""
        self.sections.append((f"s{len(self.sections) + 1}", title, list(blocks)))

    def html(self) -> str:
        """Return the page as HTML."""
        assets = files("sdxl_mel.assets") / "report"
        template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
            (assets / "page.html.j2").read_text(encoding="utf-8")
        )
        plays = any("<mel-player" in block for *_, blocks in self.sections for block in blocks)
        script = web.bundle("player.js") if plays else ""
        return template.render(
            page=self,
            style=_own((assets / "page.css").read_text(encoding="utf-8") + (web.read("player.css") if plays else "")),
            script=_own(script),
            allowed=_own(f"'sha256-{_sha256(script)}'" if plays else "'none'"),
            version=__version__,
        )

    def write(self, path: Path) -> None:
        """Write the page to `path`, whole or not at all."""
        write_text(path, self.html())


def paragraph(text: str) -> Markup:
    """Return a paragraph of plain text."""
    return Markup("<p>{}</p>").format(text)


def code(text: str) -> Markup:
    """Return commands or numbers to be copied."""
    return Markup("<pre>{}</pre>").format(text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table; cells that are Markup (players, pictures) stay as they are, numbers line up."""
    head = Markup("").join(Markup("<th>{}</th>").format(cell) for cell in header)
    body = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(map(_cell, row))) for row in rows)
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        head, body
    )


def svg(figure: Figure, caption: str = "") -> Markup:
    """Return a matplotlib figure as inline SVG; its colours follow the page's light or dark theme."""
    buffer = StringIO()
    with rc_context({"svg.hashsalt": "sdxl-mel", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    drawing = Markup(text[text.index("<svg") :].replace("#000000", "currentColor"))  # noqa: S704 - our own drawing
    return Markup("<figure>{}{}</figure>").format(drawing, _caption(caption))


def player(
    *sounds: Sound,
    caption: str = "",
    spec: MelSpec | None = None,
    seconds: float | None = None,
    seams: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Return a player of sounds on their pictures; several are switched between at the same place.

    `spec` is that of pictures that carry none, `seconds` their length where they were made smaller, `seams` are
    (start, end) of joins in seconds. Without scripts the pictures and the browser's own players are shown.
    """
    attributes = {
        "label": caption,
        "spec": spec.to_json() if spec else "",
        "seconds": f"{seconds:g}" if seconds else "",
        "marks": json.dumps([[round(start, 4), round(end, 4)] for start, end in seams]) if seams else "",
    }
    written = Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in attributes.items() if value)
    inside = Markup("").join(map(_sound, sounds))
    return Markup("<figure><mel-player{}>{}</mel-player>{}</figure>").format(written, inside, _caption(caption))


def gallery(blocks: Iterable[Markup]) -> Markup:
    """Return blocks side by side, as many as fit."""
    cells = Markup("").join(Markup('<div class="card">{}</div>').format(block) for block in blocks)
    return Markup('<div class="gallery">{}</div>').format(cells)


def sound_bytes(samples: Float, sample_rate: int) -> bytes:
    """Return samples (n,) or (channels, n) as the bytes of an OGG file small enough to stand in a page."""
    buffer = BytesIO()
    soundfile.write(buffer, np.atleast_2d(samples).T, sample_rate, format="OGG", subtype="VORBIS")
    return buffer.getvalue()


def _sound(sound: Sound) -> Markup:
    kind = AUDIO_KINDS.get(sound.content[:4], "audio/wav")
    return Markup('<img alt="{}" src="data:image/png;base64,{}">{}').format(
        sound.name,
        _base64(sound.picture),
        Markup('<audio controls preload="none" title="{}" src="data:{};base64,{}"></audio>').format(
            sound.name, kind, _base64(sound.content)
        ),
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _own(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - a file of the package


def _cell(value: object) -> Markup:
    kind = ' class="number"' if isinstance(value, int | float) else ""
    shown = f"{value:.4g}" if isinstance(value, float) else value
    return Markup("<td{}>{}</td>").format(Markup(kind), shown)  # noqa: S704 - a constant


def _caption(text: str) -> Markup:
    return Markup("<figcaption>{}</figcaption>").format(text) if text else Markup("")


def _base64(content: bytes) -> Markup:
    return escape(base64.b64encode(content).decode())
