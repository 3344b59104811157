"""Training in the page on `mini`: begun, watched, stopped, resumed, and what it made compared with the base."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.stages import cache
from tests.studio.project import SPEC
from tests.studio.served import served
from tests.web.accessibility import problems
from tests.web.pages import opened

LOADING_MS = 240_000
"""A process waits for torch and the model, on a busy machine."""


def write_cache(folder: Path) -> None:
    """Write a dataset of four random tiles and its cache for mini."""
    splits: dict[str, list[Item]] = {"train": [], "validation": []}
    for number, split in enumerate(("train", "train", "train", "validation")):
        name = f"{split}/{number}.png"
        levels = numpy_generator(0, name).integers(0, 256, (SPEC.n_mels, SPEC.width, 1)).astype("uint8")
        (folder / "dataset" / split).mkdir(parents=True, exist_ok=True)
        write_spectrogram(folder / "dataset" / name, Spectrogram(levels, SPEC))
        splits[split].append(Item(file=name, captions=("mel spectrogram, piano",), track=name))
    write_dataset(folder / "dataset", Dataset(SPEC, "mel spectrogram", splits, Record(stage="test")))
    cache.run(cache.Build(dataset=folder / "dataset", base="mini", out=folder / "cache", variants=1))


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    root = tmp_path_factory.mktemp("studio")
    write_cache(root)
    shutil.rmtree(root / "dataset")
    with served(root) as studio, opened(browser) as page:
        page.goto(studio.address)
        page.wait_for_selector("body[data-ready]")
        yield page


@pytest.mark.slow
def test_a_run_is_begun_watched_stopped_resumed_and_compared_with_its_base(page: Page) -> None:
    begin_watch_stop_and_resume(page)
    compare_with_base(page)


def begin_watch_stop_and_resume(page: Page) -> None:
    page.get_by_role("link", name="Train").click()
    form = page.get_by_role("form", name="A new run")
    form.get_by_role("textbox", name="Name", exact=True).first.fill("small")
    form.get_by_role("combobox", name="Base", exact=True).first.select_option("mini")
    form.get_by_role("combobox", name="Cache", exact=True).first.select_option(label="cache")
    for label, value in (("Steps", "400"), ("Batch", "1"), ("Save every", "3"), ("Rank", "2")):
        form.get_by_label(label, exact=True).first.fill(value)
    form.get_by_role("button", name="Start").click()
    run = page.get_by_role("region", name="The run")
    expect(run.get_by_role("img", name="Training, smoothed")).to_be_visible(timeout=LOADING_MS)
    expect(run.get_by_role("row", name="Make music with it").first).to_be_visible(timeout=LOADING_MS)
    assert problems(page) == []
    page.reload()  # In the middle of it.
    page.wait_for_selector("body[data-ready]")
    run.get_by_role("button", name="Stop").click()
    expect(run.get_by_role("button", name="Resume")).to_be_visible(timeout=LOADING_MS)
    row = page.locator(".run-row", has_text="small")
    expect(row).to_contain_text("stopped")
    stopped = int((row.text_content() or "").partition("step ")[2].partition(" ")[0])
    run.get_by_role("button", name="Resume").click()
    expect(run.locator(".messages")).to_contain_text(f"resuming at step {stopped}", timeout=LOADING_MS)
    page.wait_for_function(
        "(step) => Number(document.querySelector('.run .progress span').textContent.match(/(\\d+) of/)?.[1]) > step",
        arg=stopped,
        timeout=LOADING_MS,
    )
    run.get_by_role("button", name="Stop").click()
    expect(run.get_by_role("button", name="Resume")).to_be_visible(timeout=LOADING_MS)


def compare_with_base(page: Page) -> None:
    page.get_by_role("button", name="Make music with it").last.click()
    form, results = page.get_by_role("form", name="What to make"), page.get_by_role("region", name="Results")
    expect(form.get_by_role("combobox", name="LoRA")).to_be_visible()
    form.get_by_label("Steps", exact=True).fill("4")
    form.get_by_role("button", name="Make music").click()
    card = results.locator(".card:has(mel-player)").first
    card.get_by_role("button", name="Compare with base").click(timeout=LOADING_MS)
    base = card.get_by_role("button", name="base", exact=True)
    expect(base).to_be_visible(timeout=LOADING_MS)
    card.get_by_role("slider", name="place in the sound").press("x")
    expect(base).to_have_attribute("aria-pressed", "true")
    form.get_by_label("Without them, too").check()
    form.get_by_role("button", name="Make music").click()
    expect(results.get_by_role("button", name="base", exact=True)).to_have_count(2, timeout=LOADING_MS)
