"""The report page: whole in itself, safe with any text, the same bytes every time."""

import base64
import hashlib
import re

import numpy as np
from matplotlib.figure import Figure

from sdxl_mel import web
from sdxl_mel.report.page import Page, Sound, code, gallery, paragraph, player, sound_bytes, svg, table

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


def _page() -> str:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [1, 0])
    heard = player(Sound(b"RIFFxxxx", PNG, "one <b>"), caption="sound")
    page = Page("Title <1>", "Lead & more")
    page.section("One", paragraph("a < b"), code("x && y"), table(["n", "what"], [[1.23456, "<i>"], [2, "b"]]))
    page.section(
        "Two",
        svg(figure, "a line"),
        gallery([heard]),
    )
    page.section("Three", player(Sound(sound_bytes(np.zeros(1600), 16000), PNG)))
    return page.html()


def test_text_is_escaped() -> None:
    html = _page()
    assert "<title>Title &lt;1&gt;</title>" in html
    assert "a &lt; b" in html
    assert "&lt;i&gt;" in html
    assert "<i>" not in html


def test_asks_nothing_of_other_hosts() -> None:
    html = _page()
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "url(http" not in html


def test_same_page_same_bytes() -> None:
    # A Vorbis stream carries a random serial number, so the page without the encoded sound is compared.
    def without_sound(html: str) -> str:
        return re.sub(r"data:audio/ogg;base64,[^\"]*", "", html)

    assert without_sound(_page()) == without_sound(_page())


def test_numbers_are_short_and_line_up() -> None:
    assert '<td class="number">1.235</td>' in _page()


def test_only_the_script_of_the_page_may_run() -> None:
    html = _page()
    script = html[html.index('<script type="module">') + len('<script type="module">') : html.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert html.count("<script") == 1


def test_a_bundle_has_every_module_once_and_no_import() -> None:
    bundle = web.bundle("player.js")
    assert not re.search(r"^(import|export)\b", bundle, re.MULTILINE)
    declared = re.findall(r"^(?:async )?(?:function|class|const) (\w+)", bundle, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert bundle.index("function hzToMel") < bundle.index("class MelPlayer")


def test_a_page_without_sounds_has_no_script() -> None:
    page = Page("Silence")
    page.section("One", paragraph("a"))
    html = page.html()
    assert "<script" not in html
    assert "script-src 'none'" in html
