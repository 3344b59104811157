"""What all runs of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="package", autouse=True)
def without_curves() -> Iterator[None]:
    """Let runs draw no curves, which takes as long as all of their steps; `with_curves` is for tests of them."""

    def draw_none(_run: Path) -> None:
        """Leave a run as it is."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdxl_mel.training.loop.write_curves", draw_none)
        yield


@pytest.fixture
def with_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs of a test draw their curves, as they do outside of this folder."""
    from sdxl_mel.training.log import write_curves

    monkeypatch.setattr("sdxl_mel.training.loop.write_curves", write_curves)
