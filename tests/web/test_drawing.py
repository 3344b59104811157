"""The studio's page with its drawing process and `mini`: from a prompt to a downloaded sound, and away from it."""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from tests.studio.served import served
from tests.web.accessibility import problems
from tests.web.pages import opened

LOADING_MS = 240_000
"""The first drawing waits for torch and the model, on a busy machine."""


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with served(tmp_path_factory.mktemp("studio")) as studio, opened(browser) as page:
        page.goto(studio.address)
        page.wait_for_selector("body[data-ready]")
        yield page


def results(page: Page) -> int:
    return page.locator(".results .card mel-player").count()


def make(page: Page, steps: int) -> None:
    """Ask for a drawing."""
    page.get_by_label("Steps", exact=True).fill(str(steps))
    page.get_by_role("button", name="Make music").click()


def made(page: Page, count: int) -> None:
    """Wait until there are so many results."""
    expect(page.locator(".results .card mel-player")).to_have_count(count, timeout=LOADING_MS)


@pytest.mark.slow
def test_three_clicks_lead_to_a_downloaded_sound(page: Page) -> None:
    before = results(page)
    make(page, steps=6)
    expect(page.locator(".running")).to_be_visible()
    made(page, before + 1)
    expect(page.locator(".running")).to_have_count(0)
    page.get_by_role("button", name="Download, copy or remove").first.click()
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Sound").click()
    samples, rate = soundfile.read(BytesIO(Path(downloaded.value.path()).read_bytes()))
    assert (len(samples), rate) == (256 * 256, 16000)


@pytest.mark.slow
def test_the_picture_appears_while_it_is_drawn_and_cancel_takes_a_step(page: Page) -> None:
    make(page, steps=400)
    page.wait_for_selector(".running .preview canvas", timeout=LOADING_MS)
    assert problems(page) == []
    page.reload()  # In the middle: what is drawn goes on, and the page shows it again.
    page.wait_for_selector(".running .preview canvas", timeout=LOADING_MS)
    start = time.monotonic()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".running[data-state=cancelled]")
    assert time.monotonic() - start < 2
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".running")).to_have_count(0)


@pytest.mark.slow
def test_a_marked_region_is_drawn_anew_and_a_result_is_varied(page: Page) -> None:
    before = results(page)
    make(page, steps=6)
    made(page, before + 1)
    slider = page.get_by_role("slider", name="place in the sound").first
    for key in ("ArrowRight", "[", "ArrowRight", "]", "n"):
        slider.press(key)
    page.get_by_label("Prompt for what is drawn").first.fill("drums")
    page.get_by_role("button", name="Draw anew").first.click()
    made(page, before + 2)
    expect(page.get_by_role("article", name="drums").first).to_be_visible()
    page.get_by_role("button", name="Vary").last.click()
    made(page, before + 3)


@pytest.mark.slow
def test_a_result_is_made_longer_and_a_loop(page: Page) -> None:
    before = results(page)
    make(page, steps=4)
    made(page, before + 1)
    card = page.locator(".results .card").first
    card.get_by_role("button", name="Edit").click()
    card.get_by_label("Seconds to add").fill("2")
    card.get_by_role("button", name="Make longer by").click()
    made(page, before + 2)
    expect(page.locator(".results .card").first.locator(".meta").last).to_contain_text("6.1 s")
    card = page.locator(".results .card").nth(1)
    card.get_by_role("button", name="Make it a loop").click()
    made(page, before + 3)
    expect(page.locator(".results .card").first.locator(".meta").last).to_contain_text("loop")


@pytest.mark.slow
def test_a_grid_is_drawn_and_each_of_its_cells_plays(page: Page) -> None:
    page.reload()  # At the top, where what is new appears.
    page.wait_for_selector("body[data-ready]")
    page.get_by_text("Vary: a grid of combinations").click()
    page.get_by_label("Steps", exact=True).fill("3")
    page.get_by_label("Seeds").fill("1 2")
    page.get_by_role("button", name="Draw the grid").click()
    grid = page.locator(".grid-card").first
    expect(grid.locator("mel-player[data-ready]")).to_have_count(2, timeout=LOADING_MS)
    expect(grid.get_by_role("link", name="How far they are from the first")).to_be_visible(timeout=LOADING_MS)
    assert problems(page) == []
    grid.get_by_role("button", name="Play").last.click()
    expect(grid.locator("mel-player[data-playing]")).to_have_count(1)


@pytest.mark.slow
def test_a_piece_is_heard_in_two_tabs_before_it_is_finished_and_goes_on_as_its_file(
    page: Page, browser: Browser
) -> None:
    page.get_by_role("link", name="Timeline").click()
    page.get_by_label("Length, s").fill("24")
    page.get_by_label("How", exact=True).select_option("extend")
    page.get_by_text("All settings").last.click()
    page.get_by_label("Steps", exact=True).last.fill("20")
    page.get_by_role("button", name="Make this piece").click()
    with opened(browser) as other:
        other.goto(f"{page.url.partition('#')[0]}#timeline")
        for each in (page, other):
            expect(each.get_by_role("button", name="Listen")).to_be_visible(timeout=LOADING_MS)
            expect(each.locator(".running[data-state=running]")).to_be_visible()
        page.reload()  # What was heard of it before is gone with the page; the piece is not.
        page.wait_for_selector("body[data-ready]")
        other.get_by_role("button", name="Listen").click()
        for each in (page, other):
            expect(each.locator(".results.wide mel-player[data-ready]")).to_have_count(1, timeout=LOADING_MS)
        expect(other.locator("mel-player[data-playing]")).to_have_count(1)
    page.get_by_role("link", name="Make").click()
