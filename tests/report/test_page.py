"""The report page: whole in itself, safe with any text, the same bytes every time."""

import re

import numpy as np
from matplotlib.figure import Figure

from sdxl_mel.report.page import Page, code, gallery, paragraph, picture, player, sound_bytes, svg, table

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


def _page() -> str:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [1, 0])
    page = Page("Title <1>", "Lead & more")
    page.section("One", paragraph("a < b"), code("x && y"), table(["n", "what"], [[1.23456, "<i>"], [2, "b"]]))
    page.section("Two", svg(figure, "a line"), gallery([picture(PNG, "tile"), player(b"RIFFxxxx", "sound")]))
    page.section("Three", player(sound_bytes(np.zeros(1600), 16000)))
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
