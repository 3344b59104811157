"""Fixtures that several parts share."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from tests.exported import Site

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder with a tiny random SDXL of the full block topology."""
    from tests.tiny_models import write_tiny_sdxl

    return write_tiny_sdxl(tmp_path_factory.mktemp("tiny-sdxl"))


@pytest.fixture(scope="session")
def tiny_sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder with a tiny random SD 1.5 of the full block topology."""
    from tests.tiny_models import write_tiny_sd15

    return write_tiny_sd15(tmp_path_factory.mktemp("tiny-sd15"))


@pytest.fixture(scope="session")
def slim_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder with a random SDXL of few layers, for whole runs."""
    from tests.tiny_models import write_tiny_sdxl

    return write_tiny_sdxl(tmp_path_factory.mktemp("slim-sdxl"), slim=True)


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory: pytest.TempPathFactory, slim_sdxl: Path) -> Path:
    """Return a cache of a few random pictures made with the slim SDXL."""
    from tests.caches import write_small_cache

    return write_small_cache(tmp_path_factory.mktemp("small-cache"), slim_sdxl)


@pytest.fixture(scope="session")
def slim_site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> "Site":
    """Return an exported site of a slim SDXL with a LoRA as factors, in exact weights and small parts."""
    from tests.exported import shared_slim_site

    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    with FileLock(shared / "slim-site.lock"):
        return shared_slim_site(shared / "slim-site")


@pytest.fixture(scope="session")
def six_trajectories(tmp_path_factory: pytest.TempPathFactory, slim_sdxl: Path, small_cache: Path) -> Path:
    """Return six trajectories of four points that the slim SDXL drew."""
    from tests.caches import draw_trajectories

    out = tmp_path_factory.mktemp("six-trajectories") / "out"
    draw_trajectories(slim_sdxl, small_cache, out, "--count", "6")
    return out
