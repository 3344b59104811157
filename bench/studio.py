"""The studio against what it must hold: memory, cancelling, previews, the cursor, panning, hostile requests."""

import http.client
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from playwright.sync_api import Page, sync_playwright

from bench.table import Table
from sdxl_mel.arrays import Float
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.models.base import open_base
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.studio.preview import data_url, fit
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.results import Step
from tests.studio.hostile import REQUESTS, hostile_requests
from tests.studio.project import write_project
from tests.studio.served import Served, resident_megabytes, served
from tests.web.measures import PLAYER, between_pictures, cursor_errors, show_long_picture
from tests.web.pages import ORIGIN, answer

ROUNDS = 5
DRAWN = {"base": "mini", "prompt": "slow piano", "method": "best"}
SECONDS = 8.0


def run() -> Table:
    """Measure all rows."""
    with tempfile.TemporaryDirectory() as folder, served(write_project(Path(folder) / "project")) as studio:
        memory = resident_megabytes(studio.process.pid)
        rows = [
            ["idle server, resident", f"{memory:.0f} MB", "200 MB"],
            _hostile(studio),
            *_cancelled(studio),
        ]
    rows += [_preview(), *_in_a_page()]
    return Table(
        title="studio: what it must hold",
        header=["what", "measured", "at most"],
        rows=rows,
        notes=[
            f"Cancelled: from the request to the end of the job and a drawing process that is ready; median and worst "
            f"of {ROUNDS} on mini.",
            "Preview: the time of a small picture against that of the step that it shows, one tile on mini.",
            "Cursor: where it is drawn against what Chromium says that its device gives out, without a screen.",
        ],
    )


def _hostile(studio: Served) -> list[str]:
    host = studio.address.removeprefix("http://")
    times, worst = [], 0
    for asked in hostile_requests():
        connection = http.client.HTTPConnection(host, timeout=30)
        began = time.perf_counter()
        path = re.sub(r"[^\x21-\x7e]", "%20", asked.path)
        connection.request(asked.method, path, asked.body, asked.headers)
        worst = max(worst, connection.getresponse().status)
        times.append(1000 * (time.perf_counter() - began))
        connection.close()
    return [f"{REQUESTS} hostile requests: highest status; slowest answer", f"{worst}; {max(times):.0f} ms", "499; -"]


def _cancelled(studio: Served) -> Iterator[list[str]]:
    starting = studio.submit("generate", **DRAWN)
    yield ["cancelled while the drawing process starts", _milliseconds([_cancel(studio, starting)]), "1000 ms"]
    studio.ended(studio.submit("generate", **{**DRAWN, "steps": 1, "format": "none"}))
    steps, sounds = [], []
    for _ in range(ROUNDS):
        job, events = studio.submit("generate", **DRAWN, steps=500), studio.events()
        _heard(events, lambda name, data: name == "step" and data["job"] == job)  # noqa: B023
        steps.append(_cancel(studio, job))
        job, events = studio.submit("generate", **DRAWN, steps=1, seconds=16), studio.events()
        _heard(events, lambda name, data: name == "step" and data["job"] == job)  # noqa: B023
        time.sleep(0.7)
        sounds.append(_cancel(studio, job))
    yield ["cancelled while a tile is drawn", _milliseconds(steps), "1000 ms"]
    yield ["cancelled while 16 s of sound are made", _milliseconds(sounds), "1000 ms"]


def _heard(events: Iterator[tuple[str, dict[str, Any]]], wanted: Callable[[str, dict[str, Any]], bool]) -> None:
    next(True for name, data in events if wanted(name, data))


def _cancel(studio: Served, job: str) -> float:
    """Return the milliseconds until a job has ended and the drawing process is ready, or starts for the next."""
    began = time.perf_counter()
    studio.ask(f"/api/jobs/{job}/cancel", {})
    assert studio.ended(job)["state"] == "cancelled"
    while studio.ask("/api")["worker"]["state"] == "busy":
        time.sleep(0.005)
    return 1000 * (time.perf_counter() - began)


def _milliseconds(times: list[float]) -> str:
    return f"{np.median(times):.0f} ms" + (f", worst {max(times):.0f}" if len(times) > 1 else "")


def _preview() -> list[str]:
    generator = Generator(open_base("mini"))
    latent_map = fit(generator.models.base.vae, generator.spec)
    lines = [PromptLine(prompt="slow piano")]
    jobs = plan_jobs(Prompts(lines), generator.fitting(), generator.spec.tile_seconds, long=False)
    moments: list[float] = []
    latents: list[Float] = []

    def on_step(step: Step) -> None:
        moments.append(time.perf_counter())
        latents.append(step.latents[0].float().numpy())

    list(generator.draw(jobs, on_step=on_step))
    began = time.perf_counter()
    for each in latents:
        data_url(latent_map.picture(each))
    preview, step = (time.perf_counter() - began) / len(latents), float(np.median(np.diff(moments)))
    return ["preview at every step", f"{1000 * preview:.2f} of {1000 * step:.0f} ms: {preview / step:.1%}", "5%"]


def _in_a_page() -> Iterator[list[str]]:
    with _page() as page:
        spec = PRESETS["mini"]
        frames, rate = int(SECONDS * spec.sample_rate / spec.hop_length), spec.sample_rate
        levels = numpy_generator(0, "levels").integers(0, 256, (spec.n_mels, frames, 1), dtype=np.uint8)
        wav = BytesIO()
        noise = numpy_generator(0, "sound").uniform(-0.5, 0.5, int(SECONDS * rate))
        soundfile.write(wav, noise, rate, format="WAV", subtype="PCM_16")
        html = f'{PLAYER}<mel-player style="width: 1200px"><img src="a.png"><audio src="a.wav"></audio></mel-player>'
        files = {"index.html": html, "a.png": encode_png(Spectrogram(levels, spec)), "a.wav": wav.getvalue()}
        answer(page, files)
        page.goto(f"{ORIGIN}/index.html")
        page.wait_for_selector("mel-player[data-ready]")
        page.evaluate("() => document.querySelector('mel-player').play()")
        page.wait_for_timeout(500)
        errors = cursor_errors(page)
        yield ["cursor from the sound", f"{np.median(errors):.0f} ms, worst {max(errors):.0f}", "20 ms"]
    with _page() as page:
        show_long_picture(page)
        between = between_pictures(page)
        yield [
            "ten minutes pan: between two pictures",
            f"{np.median(between):.1f} ms, worst {max(between):.1f}",
            "20 ms",
        ]


@contextmanager
def _page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser.new_page(viewport={"width": 1280, "height": 600})
        browser.close()
