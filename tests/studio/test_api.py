"""The API without drawing anything: history, artefacts, datasets, edits, and errors in one sentence."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sdxl_mel.studio.artefacts import id_of_name
from tests.studio.project import client_of, write_project


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    with client_of(root) as client:
        yield client


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/web/player.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/web/../studio/app.py").status_code == 404


def test_history_and_stars_survive_a_restart(root: Path) -> None:
    with client_of(root) as client:
        jobs = client.get("/api/jobs").json()["jobs"]
        assert [job["id"] for job in jobs] == ["000002", "000001"]
        assert client.post("/api/jobs/000001/results/0001", json={"starred": True}).json()["results"][0]["starred"]
    with client_of(root) as client:
        assert [job["id"] for job in client.get("/api/jobs?starred=true").json()["jobs"]] == ["000001"]
        assert client.post("/api/jobs/000002/remove").json() == {}
    with client_of(root) as client:
        assert [job["id"] for job in client.get("/api/jobs").json()["jobs"]] == ["000001"]


def test_a_result_is_sent_whole_and_in_ranges(client: TestClient, root: Path) -> None:
    result = client.get("/api/jobs/000001").json()["results"][0]
    whole = (root / "studio/results/000001/0001.wav").read_bytes()
    assert client.get(result["sound"]).content == whole
    part = client.get(result["sound"], headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    saved = client.get(result["sound"] + "?download=true").headers["content-disposition"]
    assert 'filename="000001-0001.wav"' in saved


def test_a_vanished_file_is_one_sentence(client: TestClient, root: Path) -> None:
    (root / "studio/results/000001/0001.wav").unlink()
    answer = client.get("/api/jobs/000001/files/0001.wav")
    assert answer.status_code == 404
    assert "no longer there" in answer.json()["error"]


def test_settings_are_checked_in_the_words_of_the_command_line(client: TestClient) -> None:
    answer = client.post("/api/stages/generate/check", json={"settings": {"base": "mini", "prompt": "x", "steps": 3}})
    program, stage, *words = answer.json()["command"].split()
    assert (program, stage) == ("sdxl-mel", "generate")
    assert sorted(words) == sorted(["--base", "mini", "--out", "studio/results/OUT", "--prompt", "x", "--steps", "3"])
    assert answer.json()["settings"]["seed"] == 0
    wrong = client.post("/api/jobs", json={"stage": "generate", "settings": {"base": "mini", "promt": "x"}})
    assert (wrong.status_code, wrong.json()) == (
        400,
        {"error": "generate: unknown setting 'promt' (did you mean 'prompt'?)"},
    )


def test_only_what_can_be_done_to_a_job_is_done(client: TestClient) -> None:
    assert client.post("/api/jobs/000001/cancel").status_code == 409
    assert client.post("/api/jobs/000001/again").status_code == 409
    assert client.post("/api/jobs/000009/cancel").status_code == 404
    taken = {"stage": "generate", "settings": {"base": "mini", "prompt": "x"}, "name": "000001"}
    assert "is there already" in client.post("/api/jobs", json=taken).json()["error"]


def test_artefacts_have_ids_and_the_studio_itself_is_none(client: TestClient) -> None:
    found = {each["name"]: each for each in client.get("/api/artefacts").json()["artefacts"]}
    assert found["data/music"]["kind"] == "dataset"
    assert found["song.wav"]["id"] == id_of_name("song.wav")
    assert "studio/jobs.jsonl" not in found
    about = client.get(f"/api/artefacts/{found['song.wav']['id']}").json()
    assert (about["sample_rate"], about["seconds"]) == (16000, 1.0)


def test_a_sound_is_taken_and_looked_at(client: TestClient, root: Path) -> None:
    kind = {"content-type": "application/octet-stream"}
    content = (root / "song.wav").read_bytes()
    answer = client.post("/api/uploads?name=../My%20song.wav", content=content, headers=kind)
    assert answer.status_code == 201
    assert (answer.json()["kind"], answer.json()["seconds"]) == ("sound", 1.0)
    assert answer.json()["name"].endswith("-My-song.wav")
    broken = client.post("/api/uploads?name=a.wav", content=content[:100], headers=kind)
    assert (broken.status_code, broken.json()["error"][:6]) == (400, "a.wav:")
    assert client.post("/api/uploads?name=a.exe", content=b"x", headers=kind).status_code == 400
    assert len(list((root / "studio/uploads").iterdir())) == 1


def test_a_dataset_is_shown_with_captions_before_and_after(client: TestClient) -> None:
    place = f"/api/datasets/{id_of_name('data/music')}"
    assert client.get(place).json()["counts"]["train"]["clips"] == 2
    clips = client.get(f"{place}/clips?phrase=ONE").json()
    assert clips["total"] == 1
    assert clips["clips"][0]["history"][0]["before"] == "one piano!!"
    assert client.get(clips["clips"][0]["picture"]).headers["content-type"] == "image/png"
    assert [each["track"] for each in client.get(f"{place}/clips?doubt=true").json()["clips"]] == ["two"]
    assert client.get(f"{place}/clips?limit=1&offset=1").json()["clips"][0]["track"] == "two"


def test_edits_of_a_dataset_lie_beside_it(client: TestClient, root: Path) -> None:
    place = f"/api/datasets/{id_of_name('data/music')}/overrides"
    before = (root / "data/music/train/metadata.jsonl").read_bytes()
    assert client.put(f"{place}/one", json={"caption": "slow piano", "split": "test"}).status_code == 200
    assert client.get(place).json()["overrides"] == {"one": {"caption": "slow piano", "split": "test"}}
    assert (root / "data/music/train/metadata.jsonl").read_bytes() == before
    assert client.put(f"{place}/none", json={"exclude": "no"}).status_code == 400
    assert client.put(f"{place}/one", json={"split": "training"}).status_code == 400
    client.put(f"{place}/one", json={})
    assert json.loads((root / "data/music/overrides.json").read_text()) == {"format": 1, "tracks": {}}


def test_a_full_disk_is_one_sentence_and_no_job(client: TestClient, root: Path) -> None:
    asked = {"stage": "generate", "settings": {"base": "mini", "prompt": "x" * 200}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((root / "studio/jobs.jsonl").stat().st_size + 10, hard))
    try:
        answer = client.post("/api/jobs", json=asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.status_code == 507
    assert "the disk is full" in answer.json()["error"]
    assert len(client.get("/api/jobs").json()["jobs"]) == 2


def test_one_studio_a_root(client: TestClient, root: Path) -> None:
    with pytest.raises(Exception, match="a studio is open on it already"), client_of(root):
        pass
