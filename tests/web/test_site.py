"""An exported site in a browser, its models and runtime included: from a static host, without one, and from a disk."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from sdxl_mel.export.site import PAGE, write_single_file
from sdxl_mel.files.spectrogram import read_spectrogram
from tests.exported import Site
from tests.web.pages import opened
from tests.web.static import hosted

READY_MS = 30_000
UNHASHED = {"", "index.html", "sw.js", "manifest.json"}


@pytest.fixture
def folder(slim_site: Site, tmp_path: Path) -> Path:
    """A host's folder, with the site in a folder of it."""
    shutil.copytree(slim_site.folder, tmp_path / "host" / "music")
    return tmp_path / "host"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        yield page


def ready(page: Page, address: str) -> None:
    """Open a site and wait for its model."""
    page.goto(address)
    expect(page.locator("#worker")).to_have_attribute("data-state", "ready", timeout=READY_MS)


def make(page: Page, prompt: str, seed: int = 3, steps: int = 2) -> None:
    """Make a sound, and wait until it plays."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Steps", exact=True).fill(str(steps))
    page.get_by_label("Seed", exact=True).fill(str(seed))
    page.get_by_role("button", name="Make music").click()
    expect(page.get_by_role("article", name=prompt).locator("mel-player[data-ready]")).to_be_visible(timeout=READY_MS)


def test_a_site_in_a_subfolder_draws_and_goes_on_without_its_host(page: Page, folder: Path, slim_site: Site) -> None:
    with hosted(host=folder) as host:
        ready(page, f"{host.address}host/music/")
        expect(page.locator("#worker")).to_have_text("ready, also offline")
        asked = len(host.asked)
        make(page, "bells")
        assert host.asked[asked:] == []
        names = {path.removeprefix("/host/music/").partition("?")[0] for path in host.asked}
        loaded = [path for path in host.asked if re.search("/(models|runtime|tokens)/", path)]
        assert len(loaded) == len(set(loaded))
        assert all(re.search(r"\.[0-9a-f]{16}\.\w+$", name) for name in names - UNHASHED)
    page.reload()  # The host is gone.
    expect(page.locator("#worker")).to_have_attribute("data-state", "ready", timeout=READY_MS)
    expect(page.get_by_role("article", name="bells, seed 3").locator("mel-player[data-ready]")).to_be_visible()
    make(page, "harp")
    card = page.get_by_role("article", name="harp")
    card.get_by_role("button", name="Download, copy or delete").click()
    with page.expect_download() as downloaded:
        card.get_by_role("link", name="Picture (PNG)").click()
    drawn = read_spectrogram(Path(downloaded.value.path())).levels
    drawing = slim_site.written.manifest.drawing.model_copy(update={"steps": 2})
    expected = slim_site.opened().draw("mel spectrogram, harp", 3, drawing)
    assert np.abs(drawn.astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_what_a_new_export_left_out_leaves_the_cache(page: Page, folder: Path) -> None:
    site = folder / "music"
    with hosted(host=folder) as host:
        ready(page, f"{host.address}host/music/")
        before = cached(page)
        (old,) = site.glob("style.*.css")
        new = old.with_name("style.0123456789abcdef.css")
        old.rename(new)
        html = (site / PAGE).read_text(encoding="utf-8")
        (site / PAGE).write_text(html.replace(old.name, new.name), encoding="utf-8")
        ready(page, f"{host.address}host/music/")
        after = cached(page)
    assert before - after == {old.name}
    assert after - before == {new.name}


def cached(page: Page) -> set[str]:
    """Return the names of the files that the service worker keeps."""
    urls = page.evaluate("""async () => {
      const caches_ = await Promise.all((await caches.keys()).map((name) => caches.open(name)));
      return (await Promise.all(caches_.map((cache) => cache.keys()))).flat().map(({ url }) => url);
    }""")
    return {url.rpartition("/")[2] for url in urls}


def test_a_damaged_part_is_named_and_asked_for_again(browser: Browser, folder: Path) -> None:
    part = next((folder / "music" / "models").glob("unet.*.packed1"))
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    page = browser.new_page()
    try:
        with hosted(host=folder) as host:
            page.goto(f"{host.address}host/music/")
            said = page.locator(".loading")
            expect(said).to_contain_text(re.compile(r"models/unet\.\w+\.\w+ is damaged"), timeout=READY_MS)
            part.unlink()
            page.get_by_role("button", name="Try again").click()
            expect(said).to_contain_text("is missing (404)", timeout=READY_MS)
            part.write_bytes(whole)
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#worker")).to_have_attribute("data-state", "ready", timeout=READY_MS)
    finally:
        page.close()


def test_one_file_opens_from_a_disk(page: Page, slim_site: Site, tmp_path: Path) -> None:
    write_single_file(slim_site.folder, tmp_path / "page.html")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    ready(page, (tmp_path / "page.html").as_uri())
    make(page, "bells")
    assert all(url.startswith(("file:", "blob:", "data:")) for url in asked)


@pytest.mark.slow
def test_threads_are_used_where_a_person_asks_for_them(page: Page, folder: Path) -> None:
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'hardwareConcurrency', { value: 4 })")
    with hosted(host=folder) as host:
        ready(page, f"{host.address}host/music/")
        assert not page.evaluate("() => crossOriginIsolated")
        with page.expect_navigation():
            page.get_by_label("Use all 4 cores").click()
        page.wait_for_function("() => crossOriginIsolated")
        expect(page.locator("#worker")).to_have_attribute("data-state", "ready", timeout=READY_MS)
        make(page, "bells")
