"""The studio's page with its drawing process and `mini`: from a prompt to a downloaded sound, and away from it."""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from tests.studio.served import served
from tests.web.pages import opened

LOADING_MS = 90_000
"""The first drawing waits for torch and the model."""


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with served(tmp_path_factory.mktemp("studio")) as studio, opened(browser) as page:
        page.goto(studio.address)
        page.wait_for_selector("body[data-ready]")
        yield page


def results(page: Page) -> int:
    return page.locator(".results .card mel-player").count()


@pytest.mark.slow
def test_three_clicks_lead_to_a_downloaded_sound(page: Page) -> None:
    page.get_by_label("Steps", exact=True).fill("6")
    page.get_by_role("button", name="Make music").click()
    expect(page.locator(".running")).to_be_visible()
    page.wait_for_selector(".card mel-player[data-ready]", timeout=LOADING_MS)
    expect(page.locator(".running")).to_have_count(0)
    page.get_by_role("button", name="Download, copy or remove").click()
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Sound").click()
    samples, rate = soundfile.read(BytesIO(Path(downloaded.value.path()).read_bytes()))
    assert (len(samples), rate) == (256 * 256, 16000)


@pytest.mark.slow
def test_the_picture_appears_while_it_is_drawn_and_cancel_takes_a_step(page: Page) -> None:
    page.get_by_label("Steps", exact=True).fill("400")
    page.get_by_role("button", name="Make music").click()
    page.wait_for_selector(".running .preview img", timeout=LOADING_MS)
    page.reload()  # In the middle: what is drawn goes on, and the page shows it again.
    page.wait_for_selector(".running .preview img", timeout=LOADING_MS)
    start = time.monotonic()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".running[data-state=cancelled]")
    assert time.monotonic() - start < 2
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".running")).to_have_count(0)


@pytest.mark.slow
def test_a_marked_region_is_drawn_anew_and_a_result_is_varied(page: Page) -> None:
    before = results(page)
    slider = page.get_by_role("slider", name="place in the sound").first
    slider.focus()
    for key in ("ArrowRight", "[", "ArrowRight", "]", "n"):
        slider.press(key)
    page.get_by_label("Prompt for what is drawn").fill("drums")
    page.get_by_role("button", name="Draw anew").click()
    page.wait_for_function(f"() => document.querySelectorAll('.card mel-player').length > {before}", timeout=LOADING_MS)
    expect(page.get_by_role("article", name="drums").first).to_be_visible()
    page.get_by_role("button", name="Vary").last.click()
    expect(page.locator(".results .card mel-player")).to_have_count(before + 2, timeout=LOADING_MS)
