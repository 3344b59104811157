"""The studio's page over its real server: what is done in it, seen in another tab, after a reload, and on disk."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.studio.project import write_project
from tests.web.accessibility import problems
from tests.web.pages import opened
from tests.web.server import served

TABS = ("Make", "Timeline", "Data", "Train", "Scores")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("studio") / "root")


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    with served(project) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of the studio; it must ask nothing of another host."""
    with opened(browser, viewport={"width": 1300, "height": 900}) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        go(page, address)
        yield page
    assert all(url.startswith((address, "data:")) for url in asked)


def go(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("body[data-ready]")


def test_the_history_has_what_is_finished_and_why_something_failed(page: Page) -> None:
    expect(page.get_by_role("article", name="piano, seed 0")).to_be_visible()
    page.wait_for_selector("mel-player[data-ready]")
    expect(page.get_by_role("article", name="Job 000002")).to_contain_text("failed")


def test_a_star_is_seen_in_the_other_tab_and_after_a_reload(page: Page, browser: Browser, address: str) -> None:
    with opened(browser) as other:
        go(other, address)
        page.get_by_role("button", name="Star", exact=True).click()
        for each in (page, other):
            expect(each.get_by_role("button", name="Star", exact=True)).to_have_attribute("aria-pressed", "true")
    page.reload()
    page.get_by_role("button", name="Starred").click()
    expect(page.get_by_role("article")).to_have_count(1)


def test_what_is_written_in_the_form_survives_a_reload(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("harp & bells | slow")
    page.get_by_label("Steps", exact=True).fill("7")
    page.get_by_label("Seed", exact=True).fill("41")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("harp & bells | slow")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("7")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("41")


def test_the_form_has_every_setting_of_the_command_and_sends_what_differs(page: Page) -> None:
    schema = page.evaluate("async () => (await (await fetch('/api/stages/generate')).json()).schema")
    shown = set(page.evaluate("() => [...document.querySelectorAll('[data-setting]')].map((e) => e.dataset.setting)"))
    own = {"prompt", "base", "lora", "lora_scale", "seed", "init"}
    assert shown | own == set(schema["properties"])
    page.get_by_text("All settings").click()
    page.get_by_role("searchbox", name="Find a setting").fill("rescale")
    page.get_by_label("Rescale").fill("0.7")
    with page.expect_request("**/check") as asked:
        page.get_by_role("button", name="Copy the command").click()
    sent = json.loads(asked.value.post_data)["settings"]
    assert sent.pop("rescale") == 0.7
    assert sent == {"prompt": "solo violin with soft piano, slow", "base": "mini", "seed": 0}


def test_a_refusal_is_the_sentence_of_the_command_line(page: Page) -> None:
    page.get_by_text("All settings").click()
    page.get_by_label("Guidance interval").fill("0.9 0.3")
    page.get_by_role("button", name="Make music").click()
    expect(page.locator(".notice.error")).to_contain_text("--guidance-interval takes two noise levels")


def test_a_caption_is_edited_in_a_file_beside_the_set(page: Page, project: Path) -> None:
    page.get_by_role("link", name="Data").click()
    card = page.get_by_role("article", name="Clip 0")
    card.get_by_text("Captions before and after").click()
    expect(card.locator("del")).to_have_text("one piano!!")
    expect(card.locator(".captions small")).to_have_text("marks")
    card.get_by_text("Correct").click()
    card.get_by_label("Caption of the track").fill("two pianos, slow")
    card.get_by_label("Split").select_option("test")
    card.get_by_role("button", name="Save").click()
    expect(card).to_contain_text("changed by you")
    kept = json.loads((project / "data/music/overrides.json").read_text(encoding="utf-8"))["tracks"]["one"]
    assert {key: value for key, value in kept.items() if value is not None} == {
        "caption": "two pianos, slow",
        "split": "test",
    }
    card.get_by_role("button", name="As prepared").click()
    expect(card).not_to_contain_text("changed by you")


def test_blocks_of_a_timeline_are_moved_by_keys_and_become_a_schedule(page: Page) -> None:
    page.get_by_role("link", name="Timeline").click()
    page.get_by_role("button", name="Add a block").click()
    page.get_by_label("Prompt of block 3").fill("drums")
    border = page.get_by_role("slider", name="Start of block 2")
    border.press("ArrowRight")
    with page.expect_request("**/check") as asked:
        page.get_by_role("region", name="The piece").get_by_role("button", name="Copy the command").click()
    sent = json.loads(asked.value.post_data)["settings"]
    assert sent["schedule"] == "0:00 solo piano, slow | 0:08.5 violin joins the piano | 0:12 drums"
    assert sent["seconds"] == 16


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anyone(browser: Browser, address: str, scheme: str) -> None:
    """Names, contrast, order of headings, no sideways scrolling; at the width of a phone and of a desk."""
    for width in (390, 1300):
        with opened(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
            go(page, address)
            for tab in TABS:
                page.get_by_role("link", name=tab, exact=True).click()
                page.wait_for_load_state("networkidle") if tab != "Make" else page.wait_for_selector("[data-ready]")
                assert problems(page) == [], (tab, width, scheme)


def test_the_tabs_and_every_control_are_reached_by_keys(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for tab in TABS:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=tab, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Evaluations")).to_be_visible()
