"""A studio as people start it, on mini: drawn, stopped, killed, trained, and the same bytes as the command line."""

import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdxl_mel.commands import run_command
from sdxl_mel.studio.artefacts import id_of_name
from sdxl_mel.studio.jobs_api import JobsApi
from sdxl_mel.studio.project_api import ProjectApi
from tests.docs.commands import ROOT, blocks_of
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


@pytest.mark.slow
def test_what_is_killed_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    studio = Served(tmp_path)
    job = studio.submit("generate", **DRAWN, num=3, batch=1, format="none")
    waiting = studio.submit("generate", **DRAWN, num=1, format="none")
    early = studio.until(job, lambda found: bool(found["results"]))
    kept = (tmp_path / f"studio/results/{job}/0001.png").stat().st_mtime_ns
    studio.end(signal.SIGKILL)
    with served(tmp_path) as again:
        assert again.ask(f"/api/jobs/{job}")["results"][0] == early["results"][0]
        os.kill(again.until_started(), signal.SIGKILL)
        found = again.ended(job)
        assert [each["name"] for each in found["results"]] == ["0001", "0002", "0003"]
        assert "SIGKILL" in found["notes"][0]
        assert again.ended(waiting)["state"] == "finished"
    assert again.process.returncode == 0
    assert (tmp_path / f"studio/results/{job}/0001.png").stat().st_mtime_ns == kept


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
        size = metrics.stat().st_size
        again.until(job, lambda _: metrics.stat().st_size > size)
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


def _until_ended(events: Iterator[tuple[str, dict]], job: str) -> Iterator[tuple[str, dict]]:
    for name, data in events:
        yield name, data
        if name == "job" and data["id"] == job and data["state"] == "finished":
            return
