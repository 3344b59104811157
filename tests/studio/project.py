"""A small project with a history, for tests that need no drawing process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.studio.app import open_app

SPEC = PRESETS["mini"]
SECRET = "not for pages"


def write_project(root: Path) -> Path:
    """Write a project whose job 000001 is finished and 000002 failed, with a dataset, a sound, and a file beside it."""
    results = root / "studio" / "results" / "000001"
    results.mkdir(parents=True)
    levels = np.full((SPEC.n_mels, SPEC.width, 1), 9, np.uint8)
    write_spectrogram(results / "0001.png", Spectrogram(levels, SPEC))
    write_audio(results / "0001.wav", np.zeros((1, 4096), np.float32), SPEC.sample_rate)
    write_audio(root / "song.wav", np.zeros((1, 16000), np.float32), 16000)
    (root.parent / "secret.txt").write_text(SECRET)
    result = {
        "name": "0001", "picture": "0001.png", "sound": "0001.wav", "prompt": "piano", "negative_prompt": "",
        "seed": 0, "candidate_seed": 0, "seconds": 4.096, "loop": False,
    }  # fmt: skip
    made = {"stage": "generate", "name": "000001", "settings": {"base": "mini", "prompt": "piano"}, "command": "c"}
    made |= {"out": "studio/results/000001", "created": "2026-01-01T00:00:00+00:00"}
    entries: list[dict[str, Any]] = [
        {"job": "000001", "set": {**made, "state": "finished"}},
        {"job": "000001", "result": result},
        {"job": "000002", "set": {**made, "name": "000002", "out": "studio/results/000002", "state": "failed"}},
    ]
    (root / "studio" / "jobs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    write_music(root / "data" / "music")
    return root


def write_music(folder: Path) -> None:
    """Write a dataset of two clips of two tracks, with the log of their captions."""
    items = []
    for name in ("one", "two"):
        (folder / "train").mkdir(parents=True, exist_ok=True)
        levels = np.full((SPEC.n_mels, SPEC.width, 1), 40, np.uint8)
        write_spectrogram(folder / "train" / f"{name}.png", Spectrogram(levels, SPEC))
        items.append(Item(file=f"train/{name}.png", captions=(f"mel spectrogram, {name} piano",), track=name))
    rows = [
        {"track": "one", "vocal": False, "before": "one piano!!", "after": "mel spectrogram, one piano",
         "fate": "cleaned", "why": "", "edits": [{"rule": "marks", "start": 9, "before": "!!", "after": ""}]},
        {"track": "two", "vocal": False, "before": "long", "after": "mel spectrogram, two piano", "fate": "cleaned",
         "why": "too long: without 'x'", "edits": []},
    ]  # fmt: skip
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_dataset(folder, Dataset(SPEC, "mel spectrogram", {"train": items}, Record(stage="prepare"), folder=folder))


@contextmanager
def client_of(root: Path, token: str | None = None) -> Iterator[TestClient]:
    """Yield a client of the studio of a root."""
    with TestClient(open_app(root, ("testserver",), token), raise_server_exceptions=False) as client:
        client.headers["content-type"] = "application/json"
        yield client
