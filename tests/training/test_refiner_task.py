"""The refiner as a whole run on the slim SDXL: what it learns from, what it leaves, and what is refused.

That it resumes bit for bit and is the same in micro-batches, test_distillation.py says of all such tasks.
"""

import shutil

import pytest
import torch

from sdxl_mel.config import validated
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.run_header import read_run
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.models.base import open_base
from sdxl_mel.models.refiner import refiner_for
from sdxl_mel.stages import train
from sdxl_mel.training.refiner_settings import Config
from sdxl_mel.training.tasks import TASKS

SHARED = {
    "steps": 4,
    "batch": 2,
    "save_every": 2,
    "trackers": (),
    "validation": {"every": 4, "clips": 2},
    "refiner": {"widths": (8, 8), "middle": 1},
    "redrawn": {"steps": 3, "low": 0.4},
}


@pytest.fixture(scope="module")
def run_of(slim_sdxl, small_cache):
    """Return a function that trains a refiner into a folder."""

    def run(out, **changes):
        places = {"base": str(slim_sdxl), "dataset": small_cache.parent / "dataset", "cache": small_cache, "out": out}
        return train.run(validated(Config, SHARED | places | changes, "test"))

    return run


@pytest.fixture(scope="module")
def finished(run_of, tmp_path_factory):
    """Return the folder of a run that has ended."""
    out = tmp_path_factory.mktemp("finished") / "run"
    run_of(out)
    return out


@pytest.mark.slow
def test_it_learns(run_of, finished, tmp_path):
    """The tiles are noise: all that can be learnt is what is at a place already."""
    changes = {"steps": 120, "optimizer": {"rate": 1e-2, "warmup": 5}, "validation": {"every": 120, "clips": 2}}
    results = run_of(tmp_path / "run", pairs=finished / "pairs", **changes).results
    before, after = results["squared error of the flow, held out"]
    assert after < 0.9 * before


def test_pictures_are_decoded_once_and_hold_their_spec(finished, run_of, tmp_path):
    """One for each training clip and 2 held-out and 2 regularisation clips that are judged, some drawn anew."""
    pictures = sorted((finished / "pairs").glob("*.png"))
    assert len(pictures) == 10 + 2 + 2
    assert {path.name.split("-")[0] for path in pictures} == {"decoded", "redrawn"}
    assert all(read_spectrogram(path).spec == read_run(finished).spec for path in pictures)
    times = [path.stat().st_mtime_ns for path in pictures]
    run_of(tmp_path / "run", steps=1, pairs=finished / "pairs", save_every=1, validation={"every": 0})
    assert sorted((finished / "pairs").glob("*.png")) == pictures
    assert [path.stat().st_mtime_ns for path in pictures] == times


def test_a_refiner_is_carried_by_a_base_and_what_is_made_of_it(finished, slim_sdxl, small_cache, tmp_path):
    base = shutil.copytree(slim_sdxl, tmp_path / "base")
    assert refiner_for(open_base(base, ("vae",))) is None
    shutil.copytree(finished / "refiner", base / "refiner")
    opened = open_base(base, ("vae",))
    refiner = refiner_for(opened)
    assert refiner is not None
    assert refiner.config.vae == opened.identity_of("vae")
    assert float(refiner.spread.min()) > 0
    smaller = {"task": "text-encoder", "steps": 1, "batch": 1, "trackers": (), "validation": {"every": 0}}
    smaller |= {"encoder": {"layers": (2, 2)}, "base": str(base), "cache": small_cache, "out": tmp_path / "words"}
    train.run(validated(TASKS["text-encoder"].settings, smaller, "test"))
    again = refiner_for(open_base(tmp_path / "words" / "base", ("vae",)))
    assert again is not None
    assert torch.equal(again.conv_in.weight, refiner.conv_in.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refiner": {"widths": ()}}, "refiner.widths: found"),
        ({"refiner": {"widths": (8, 8, 8, 8)}}, "refiner.widths: found"),
        ({"redrawn": {"low": 0.5, "high": 0.4}}, "low 0.5 is above high 0.4"),
        ({"redrawn": {"low": 0.1, "steps": 3}}, "low 0.1 of 3 steps leaves none"),
        ({"redrawn": {"sampler": "eular"}}, "unknown sampler 'eular'"),
    ],
)
def test_settings_that_cannot_be_are_one_line(run_of, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        run_of(tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)


def test_tiles_that_are_not_those_of_the_cache_are_refused(run_of, small_cache, tmp_path):
    dataset = shutil.copytree(small_cache.parent / "dataset", tmp_path / "dataset")
    tile = dataset / "train" / "003.png"
    shutil.copyfile(dataset / "train" / "004.png", tile)
    with pytest.raises(MismatchError, match="003.png: changed since"):
        run_of(tmp_path / "run", dataset=dataset)
    with pytest.raises(InputError, match="nowhere.*no prepared dataset"):
        run_of(tmp_path / "other", dataset=tmp_path / "nowhere")
