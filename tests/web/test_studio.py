"""The studio's page over its real server: what is done in it, seen in another tab, after a reload, and on disk."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from pydantic import JsonValue
from safetensors.numpy import save_file

from sdxl_mel.files.evaluation import Evaluation, Metric, write_evaluation
from sdxl_mel.files.run_header import RunHeader, write_run
from sdxl_mel.files.spectrogram import Spectrogram, encode_png, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.report.page import Page as Report
from sdxl_mel.report.page import Sound, player, sound_bytes
from sdxl_mel.studio.artefacts import id_of_name
from tests.studio.project import SPEC, write_project
from tests.web.accessibility import problems
from tests.web.pages import opened
from tests.web.server import served

TABS = ("Make", "Timeline", "Data", "Train", "Scores")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_project(tmp_path_factory.mktemp("studio") / "root")
    write_training(root / "runs" / "first")
    write_scores(root / "scores" / "first")
    return root


def write_training(run: Path) -> None:
    """Write a run of 20 steps whose checkpoint at step 10 has the lowest validation."""
    settings: dict[str, JsonValue] = {"steps": 20}
    write_run(run, RunHeader(spec=SPEC, anchor="mel spectrogram", clip_skip=0, identity={}, settings=settings,
                             results={"steps": 20}, record=Record(stage="train")))  # fmt: skip
    rows: list[dict[str, object]] = [
        {"step": step, "loss": 1 / step, "squared_error": 2 / step, "by_timestep": [0.5] * 9 + [-1.0]}
        for step in range(1, 21)
    ]
    rows += [{"step": step, "validation/held out": [error] * 10} for step, error in ((0, 0.3), (10, 0.1), (20, 0.2))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "checkpoints").mkdir()
    for step in (10, 20):
        weights = {"lora_unet_x.lora_down.weight": np.zeros((1, 1), np.float32)}
        save_file(weights, run / "checkpoints" / f"step-{step:06}.safetensors")
    sample = run / "samples" / "step-000020" / "0001.png"
    write_spectrogram(sample, Spectrogram(np.full((SPEC.n_mels, SPEC.width, 1), 90, np.uint8), SPEC))


def write_scores(folder: Path) -> None:
    """Write an evaluation of one number, and its report with one player."""
    metric = Metric(value=0.25, low=0.2, high=0.3, n=4, method="m", meaning="w")
    found = Evaluation(
        record=Record(stage="evaluate"), versions={}, metrics={"fad": metric}, embedders={}, sets={}, clips=()
    )
    write_evaluation(folder / "metrics.json", found)
    picture = encode_png(Spectrogram(np.full((SPEC.n_mels, SPEC.width, 1), 90, np.uint8), SPEC))
    report = Report("Evaluation")
    report.section("Sounds", player(Sound(sound_bytes(np.zeros(16000, np.float32), 16000), picture), caption="a clip"))
    report.write(folder / "report.html")


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
    own = {"prompt", "base", "lora", "lora_scale", "seed", "ab"}
    axes = {"seeds", "guidances", "scales", "strengths"}
    assert (shown - axes) | own == set(schema["properties"])
    page.get_by_text("All settings").click()
    page.get_by_role("searchbox", name="Find a setting").fill("rescale")
    page.get_by_label("Rescale").fill("0.7")
    with page.expect_request("**/check") as asked:
        page.get_by_role("button", name="Copy the command").click()
    sent = json.loads(asked.value.post_data)["settings"]
    assert sent.pop("rescale") == 0.7
    assert sent == {"prompt": "solo violin with soft piano, slow", "base": "mini", "seed": 0}


def test_a_grid_is_asked_for_with_the_forms_settings_and_shown_as_one_card(page: Page) -> None:
    page.get_by_label("Steps", exact=True).fill("3")
    page.get_by_text("Vary: a grid of combinations").click()
    page.get_by_label("Guidances").fill("2 4")
    page.get_by_label("Seeds").fill("1 2 3")
    job: dict[str, object] = {}

    def finished(route: Route) -> None:
        """The server takes the job; what would be drawn is answered in its place: five of six cells."""
        asked = json.loads(route.request.post_data or "{}")
        result = page.evaluate("async () => (await (await fetch('/api/jobs/000001')).json()).results[0]")
        results = [{**result, "name": f"{number:04}"} for number in range(1, 6)]
        job.update(
            {
                **asked,
                "id": "000900",
                "state": "finished",
                "results": results,
                "changes": 1,
                "artefact": "0",
                "notes": [],
            }
        )
        route.fulfill(json=job)

    page.route("**/api/jobs", finished)
    page.get_by_role("button", name="Draw the grid").click()
    card = page.get_by_role("article", name="Variations of solo violin with soft piano, slow")
    expect(card.locator("mel-player")).to_have_count(5)
    assert job["stage"] == "vary"
    asked = {"prompt": "solo violin with soft piano, slow", "base": "mini", "steps": 3}
    assert job["settings"] == {**asked, "guidances": [2, 4], "seeds": [1, 2, 3]}
    titles = ["guidance 2, seed 1", "guidance 2, seed 2", "guidance 2, seed 3", "guidance 4, seed 1"]
    assert card.get_by_role("heading", level=3).all_text_contents()[1:5] == titles
    expect(card.get_by_text("guidance 4, seed 3: not drawn yet")).to_be_visible()
    card.get_by_role("button", name="Use settings").nth(3).click()
    expect(page.get_by_label("Guidance", exact=True)).to_have_value("4")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("1")


def test_an_answer_that_is_overtaken_by_an_event_changes_nothing(page: Page) -> None:
    """What a request is answered with may be older than what was told meanwhile."""
    states = page.evaluate(
        """async () => {
          const { Store } = await import("/web/studio/store.js");
          const store = new Store();
          const seen = [];
          store.addEventListener("job", ({ detail }) => seen.push(detail.state));
          for (const [state, changes] of [["running", 2], ["cancelled", 4], ["stopping", 3]])
            store.take({ id: "000005", state, changes });
          return [...seen, store.jobs.get("000005").state];
        }"""
    )
    assert states == ["running", "cancelled", "cancelled", "cancelled"]


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


def test_a_sound_of_ones_own_is_what_a_drawing_starts_from(page: Page, project: Path) -> None:
    """The upload is decoded by a process of its own."""
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Start from a sound").click()
    chosen.value.set_files(project / "song.wav")
    expect(page.locator(".init")).to_contain_text("song", timeout=20_000)
    with page.expect_request("**/check") as asked:
        page.get_by_role("button", name="Copy the command").click()
    assert asked.value.url.endswith("/api/stages/edit/check")
    sent = json.loads(asked.value.post_data)["settings"]
    assert sent.pop("input").startswith("id:")
    assert sent == {"prompt": "solo violin with soft piano, slow", "base": "mini", "seed": 0, "strength": 0.6}


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


def test_a_checkpoint_is_chosen_by_its_number_and_used(page: Page) -> None:
    page.get_by_role("link", name="Train").click()
    expect(page.get_by_role("img", name="Training, smoothed: loss")).to_be_visible()
    expect(page.get_by_role("img", name="held out 0.2 at step 20")).to_be_visible()
    row = page.get_by_role("row", name="lowest")
    expect(row).to_contain_text("10")
    row.get_by_role("button", name="Make music with it").click()
    expect(page.get_by_role("combobox", name="LoRA")).to_have_value(
        f"id:{id_of_name('runs/first/checkpoints/step-000010.safetensors')}"
    )


def test_scores_stand_side_by_side_and_their_report_plays_in_the_page(page: Page) -> None:
    page.get_by_role("link", name="Scores").click()
    expect(page.get_by_role("row", name="fad")).to_contain_text("0.25 (0.2 to 0.3)")
    page.get_by_role("button", name="Report").click()
    report = page.frame_locator("iframe")
    expect(report.locator("mel-player[data-ready]")).to_be_visible()
    report.get_by_role("button", name="Play").click()
    expect(report.locator("mel-player[data-playing]")).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 390)])
def test_nothing_serious_stands_in_the_way_of_anyone(browser: Browser, address: str, scheme: str, width: int) -> None:
    """Every tab with all that it can unfold, as axe sees it."""
    with opened(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        go(page, address)
        for tab in TABS:
            page.get_by_role("link", name=tab, exact=True).click()
            page.wait_for_load_state("networkidle") if tab != "Make" else page.wait_for_selector("[data-ready]")
            page.evaluate("() => document.querySelectorAll('details').forEach((each) => (each.open = true))")
            assert problems(page) == [], (tab, width, scheme)


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_nothing_serious_is_in_an_empty_page_its_panels_and_what_it_says(
    browser: Browser, address: str, tmp_path: Path, scheme: str
) -> None:
    with served(tmp_path) as empty, opened(browser, color_scheme=scheme) as page:
        go(page, empty)
        for tab in TABS:
            page.get_by_role("link", name=tab, exact=True).click()
            page.wait_for_load_state("networkidle") if tab != "Make" else page.wait_for_selector(".empty")
            assert problems(page) == [], (tab, scheme)
        go(page, address)
        page.get_by_role("button", name="Edit").click()
        page.get_by_label("Prompt", exact=True).fill("")
        page.get_by_role("button", name="Make music").click()
        expect(page.locator(".notice")).to_be_visible()
        for panel in ("Download, copy or remove", "Colours, channel and keys"):
            page.get_by_role("button", name=panel).click()
            assert problems(page) == [], (panel, scheme)
            page.keyboard.press("Escape")


def test_the_tabs_and_every_control_are_reached_by_keys(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for tab in TABS:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=tab, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Evaluations")).to_be_visible()
