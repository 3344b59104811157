"""What is measured in a page: how far its cursor is from what sounds, and how fast a long picture pans."""

import numpy as np
from playwright.sync_api import Page

from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import PRESETS
from tests.web.pages import ORIGIN, answer

LONG_SECONDS = 600
PICTURES = 60
PLAYER = """<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="player.css">
<script type="module" src="player.js"></script>"""
PAN = """(pictures) => new Promise((resolve) => {
  const player = document.querySelector("mel-player");
  const times = [];
  const pan = (now) => {
    times.push(now);
    if (times.length > pictures) return resolve(times.slice(1).map((time, k) => time - times[k]));
    player.view = { start: 4 * times.length, end: 4 * times.length + 20 };
    requestAnimationFrame(pan);
  };
  requestAnimationFrame(pan);
})"""
CURSOR = """(pictures) => new Promise((resolve) => {
  const player = document.querySelector("mel-player");
  const context = player.transport.context;
  const errors = [];
  const look = () => {
    const cursor = player.querySelector(".mel-cursor");
    const x = new DOMMatrix(getComputedStyle(cursor).transform).e;
    const { start, end } = player.view;
    const shown = start + (x / player.querySelector(".mel-plot").clientWidth) * (end - start);
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    const sounds = player.timeAt(contextTime + (performance.now() - performanceTime) / 1000);
    errors.push(1000 * Math.abs(shown - sounds));
    if (errors.length < pictures) requestAnimationFrame(look);
    else resolve(errors);
  };
  requestAnimationFrame(look);
})"""


def show_long_picture(page: Page) -> None:
    """Open a page with a player of ten minutes."""
    spec = PRESETS["std"]
    columns = int(LONG_SECONDS * spec.sample_rate / spec.hop_length)
    moments = numpy_generator(0, "wide").integers(0, 256, (spec.n_mels, columns // 100, 1), dtype=np.uint8)
    picture = encode_png(Spectrogram(np.repeat(moments, 100, axis=1), spec))
    html = f'{PLAYER}<mel-player style="width: 1200px"><img src="long.png"></mel-player>'
    answer(page, {"index.html": html, "long.png": picture})
    page.goto(f"{ORIGIN}/index.html")
    page.wait_for_selector("mel-player[data-ready]")


def between_pictures(page: Page) -> list[float]:
    """Return the milliseconds between pictures while the player of a page pans."""
    found: list[float] = page.evaluate(PAN, PICTURES)
    return found


def cursor_errors(page: Page) -> list[float]:
    """Return how many milliseconds the cursor of a page's player, which plays, is from what sounds, picture by picture.

    What sounds is what the browser says that its device gives out at that moment.
    """
    found: list[float] = page.evaluate(CURSOR, PICTURES)
    return found
