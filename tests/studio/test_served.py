"""A studio as people start it, on mini: drawn, stopped, killed, trained, and the same bytes as the command line."""

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sdxl_mel.commands import run_command
from sdxl_mel.models.base import open_base
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.studio.artefacts import id_of_name
from sdxl_mel.studio.jobs_api import JobsApi
from sdxl_mel.studio.project_api import ProjectApi
from sdxl_mel.studio.studio import BEGUN_AGAIN
from tests.docs.commands import ROOT, blocks_of
from tests.loras import random_modules
from tests.studio.project import write_project
from tests.studio.served import Served, resident_megabytes, served

API = ROOT / "docs" / "api.md"
DRAWN = {"base": "mini", "prompt": "slow piano", "steps": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def studio(root: Path) -> Iterator[Served]:
    with served(root) as studio:
        assert resident_megabytes(studio.process.pid) < 200
        yield studio


def test_every_route_is_in_the_table() -> None:
    lines = API.read_text(encoding="utf-8").splitlines()
    shown = {line.split("`")[1] for line in lines if line.startswith(("| `GET", "| `POST", "| `PUT"))}
    routes = [*JobsApi(None).routes(), *ProjectApi(None).routes()]  # type: ignore[arg-type]
    known = {
        f"{method} {route.path.replace(':int', '').replace(':path', '')}"
        for route in routes
        for method in (route.methods or ()) - {"HEAD"}
    }
    assert shown == known


@pytest.mark.slow
def test_the_shown_script_draws_what_the_command_line_draws(
    studio: Served, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = [text for _, language, text in blocks_of(API) if language == "python"]
    names: dict[str, object] = {}
    exec(script.replace("http://127.0.0.1:7861", studio.address), names)
    printed = capsys.readouterr().out
    assert "step 4 of 4, 1 preview" in printed
    result = names["result"]
    assert isinstance(result, dict)
    monkeypatch.chdir(tmp_path)
    _, stage, *words = shlex.split(result["command"])
    run_command(stage, words)
    made = root / "studio/results/000001"
    for name in ("0001.png", "0001.wav"):
        assert next(tmp_path.glob(f"*/{name}")).read_bytes() == (made / name).read_bytes()


def test_a_drawing_stops_within_a_step_and_the_next_begins_at_once(studio: Served) -> None:
    events = studio.events()
    job = studio.submit("generate", **{**DRAWN, "steps": 500})
    told = (data for name, data in events if name == "step" and data["job"] == job)
    number = next(told)["number"]
    began = time.monotonic()
    studio.ask(f"/api/jobs/{job}/cancel", {})
    assert studio.ended(job)["state"] == "cancelled"
    assert time.monotonic() - began < 5
    after = studio.submit("generate", **DRAWN)
    later = [data["number"] for name, data in _until_ended(events, after) if name == "step" and data["job"] == job]
    assert max([number, *later]) < 100
    assert studio.ask("/api")["worker"]["state"] == "ready"


def test_a_region_of_a_result_is_drawn_anew(studio: Served, root: Path) -> None:
    made = studio.ended(studio.submit("generate", **DRAWN))["results"][0]
    given = {**DRAWN, "input": f"id:{made['artefact']['sound']}", "region": ["1-2s: banjo"]}
    found = studio.ended(studio.submit("edit", **given))
    (result,) = found["results"]
    assert (found["state"], result["prompt"], result["sound"][-10:]) == ("finished", "slow piano", "edited.wav")
    assert (root / f"studio/results/{found['id']}/edited.wav").stat().st_size > 100_000


def test_what_cannot_be_drawn_is_one_sentence(studio: Served, root: Path) -> None:
    (root / "broken").mkdir()
    (root / "broken" / "model_index.json").write_text("{}")
    job = studio.submit("generate", base=f"id:{id_of_name('broken')}", prompt="x")
    found = studio.ended(job)
    assert found["state"] == "failed"
    assert found["error"].startswith("broken: ")
    assert "\n" not in found["error"]


def test_a_killed_server_keeps_what_was_finished_and_says_what_is_begun_again(tmp_path: Path) -> None:
    """Results, stars, history and edits survive; what was half made is gone, and its job is in the page with a note."""
    root = write_project(tmp_path / "project")
    data = f"/api/datasets/{id_of_name('data/music')}/overrides"
    studio = Served(root)
    studio.ask("/api/jobs/000001/results/0001", {"starred": True})
    studio.ask(f"{data}/one", {"caption": "slow piano"}, "PUT")
    kept = studio.ask("/api/jobs/000001")
    studio.end(signal.SIGKILL)
    half_made = root / "studio/results/000003/.0001.wav.9.tmp"
    half_made.parent.mkdir()
    half_made.write_bytes(b"RIFF")
    settings = {"base": "mini", "prompt": "x"}
    running = {"stage": "generate", "name": "000003", "settings": settings, "command": "c", "state": "running"}
    running |= {"out": "studio/results/000003", "created": "2026-01-01T00:00:00+00:00"}
    with (root / "studio/jobs.jsonl").open("a") as log:
        log.write(json.dumps({"job": "000003", "set": running}) + "\n" + '{"job": "000003", "set": {"st')
    with served(root) as again:
        assert again.ask("/api/jobs/000001") == kept
        assert kept["results"][0]["starred"]
        assert again.ask(data)["overrides"] == {"one": {"caption": "slow piano"}}
        assert (root / "studio/results/000001/0001.wav").stat().st_size > 0
        found = again.until("000003", lambda job: job["state"] == "running")
        assert found["notes"] == [BEGUN_AGAIN]
        assert not half_made.exists()
        began = time.monotonic()
        again.ask("/api/jobs/000003/cancel", {})
        # The drawing process is still starting: nothing waits for it.
        assert again.ended("000003")["state"] == "cancelled"
        assert time.monotonic() - began < 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "worker"])
def test_kills_after_finished_results_lose_none_of_them(tmp_path: Path, victim: str) -> None:
    """Five kills at moments drawn by a seed, each after one more result is finished: all eight are there in the end."""
    moment, settings = numpy_generator(0, "kills", victim), {**DRAWN, "num": 8, "batch": 1, "method": "fast"}
    studio = Served(tmp_path)
    job = studio.submit("generate", **settings)
    files: dict[str, bytes] = {}
    for finished in range(1, 6):
        found = studio.until(job, partial(_has_results, finished))
        studio.ask(f"/api/jobs/{job}/results/{found['results'][-1]['name']}", {"starred": True})
        for result in found["results"]:
            for kind in ("png", "wav"):
                name = f"{result['name']}.{kind}"
                content = (tmp_path / f"studio/results/{job}/{name}").read_bytes()
                assert files.setdefault(name, content) == content
        stars = {each["name"] for each in studio.ask(f"/api/jobs/{job}")["results"] if each["starred"]}
        time.sleep(moment.uniform(0, 0.5))
        if victim == "server":
            studio.end(signal.SIGKILL)
            studio = Served(tmp_path)
        else:
            os.kill(studio.until_started(), signal.SIGKILL)
    found = studio.ended(job)
    studio.end()
    assert studio.process.returncode == 0
    assert [each["name"] for each in found["results"]] == [f"{number:04}" for number in range(1, 9)]
    assert stars <= {each["name"] for each in found["results"] if each["starred"]}
    assert any("begun again" in note for note in found["notes"])
    folder = tmp_path / f"studio/results/{job}"
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_sound_that_is_being_made_is_stopped_without_its_process(studio: Served) -> None:
    """It takes a second at most on a machine that does nothing else: `python -m bench studio`."""
    process = studio.until_started()
    events = studio.events()
    job = studio.submit("generate", **{**DRAWN, "steps": 1, "seconds": 16})
    next(data for name, data in events if name == "step" and data["job"] == job and data["number"] == data["total"])
    time.sleep(0.5)  # The picture is decoded; its sound takes seconds.
    began = time.monotonic()
    studio.ask(f"/api/jobs/{job}/cancel", {})
    assert studio.ended(job)["state"] == "cancelled"
    worker = studio.ask("/api")["worker"]
    assert (worker["state"], worker["process"]) == ("ready", process)
    assert time.monotonic() - began < 3


def test_with_and_without_the_loras_are_results_of_one_job(studio: Served, root: Path) -> None:
    write_lora(
        root / "small.safetensors", Lora(random_modules("unet", open_base("mini", ("unet",)).unet), LoraHeader())
    )
    lora = f"id:{id_of_name('small.safetensors')}"
    job = studio.ended(studio.submit("generate", **{**DRAWN, "steps": 1}, lora=[lora], ab=True, method="fast"))
    assert [each["name"] for each in job["results"]] == ["with-0001", "without-0001"]
    one, other = (studio.read(each["sound"]) for each in job["results"])
    assert one != other
    assert b"<mel-player" in studio.read(f"/api/artefacts/{job['artefact']}/report")


@pytest.mark.slow
def test_training_goes_on_without_the_server_and_is_resumed(tmp_path: Path, slim_sdxl: Path, small_cache: Path) -> None:
    shutil.copytree(slim_sdxl, tmp_path / "base")
    shutil.copytree(small_cache, tmp_path / "cache")
    settings = {
        "base": f"id:{id_of_name('base')}", "cache": f"id:{id_of_name('cache')}", "steps": 100_000, "batch": 1,
        "adapter": {"rank": 1}, "validation": {"every": 0}, "samples": {"every": 0}, "save_every": 100_000,
    }  # fmt: skip
    studio = Served(tmp_path)
    job = studio.submit("train", "small", **settings)
    metrics = tmp_path / "runs/small/metrics.jsonl"
    studio.until(job, lambda found: found["state"] != "waiting" and metrics.exists() and metrics.stat().st_size > 0)
    studio.end(signal.SIGKILL)
    with served(tmp_path) as again:
        assert again.ask(f"/api/jobs/{job}")["state"] == "running"
        new = next(data for name, data in again.events() if name == "metrics")
        assert (new["job"], new["rows"][0].keys() >= {"step", "loss"}) == (job, True)
        again.ask(f"/api/jobs/{job}/cancel", {})
        assert again.ended(job)["state"] == "cancelled"
        (run,) = again.ask("/api/runs")["runs"]
        assert (run["job"], run["state"]) == (job, "stopped")
        rows = again.ask(f"/api/runs/{run['id']}/metrics?after=1")["rows"]
        assert rows[0]["step"] == 2
        again.ask(f"/api/jobs/{job}/again", {})
        resumed = f"resuming at step {run['step']}"
        again.until(job, lambda _: any(resumed in each for each in again.ask(f"/api/jobs/{job}/messages")["messages"]))
        again.ask(f"/api/jobs/{job}/cancel", {})
        again.ask(f"/api/jobs/{job}/cancel", {})
        assert again.ended(job)["state"] == "cancelled"


def _has_results(count: int, job: dict[str, Any]) -> bool:
    return len(job["results"]) >= count


def _until_ended(events: Iterator[tuple[str, dict]], job: str) -> Iterator[tuple[str, dict]]:
    for name, data in events:
        yield name, data
        if name == "job" and data["id"] == job and data["state"] == "finished":
            return
