"""The figure of a spectrogram: its axes say what the picture holds."""

from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.errors import InputError
from sdxl_mel.report.spectrogram_figure import MOST_COLUMNS, figure_bytes, spectrogram_figure
from sdxl_mel.sound.encoding import mel_spectrogram
from sdxl_mel.sound.melspec import MelSpec, named_spec
from tests.sounds import tone

MINI = named_spec("mini")


def levels(spec: MelSpec, frames: int, value: int = 0) -> np.ndarray:
    return np.full((spec.n_mels, frames, 1), value, np.uint8)


@pytest.mark.parametrize(("name", "highest"), [("std", "10000"), ("mini", "5000"), ("riffusion", "10000")])
def test_a_tone_lights_the_row_that_its_tick_marks(name: str, highest: str) -> None:
    spec = named_spec(name)
    axes = spectrogram_figure(levels(spec, 64), spec).axes[0]
    ticks = dict(zip((label.get_text() for label in axes.get_yticklabels()), axes.get_yticks()))
    assert list(ticks)[0] == "100"
    assert list(ticks)[-1] == highest
    for hertz, place in ticks.items():
        if float(hertz) < spec.fmax:
            mel = mel_spectrogram(tone(float(hertz), 0.5, spec.sample_rate), spec)[:, :, 0]
            assert abs(int(mel[:, mel.shape[1] // 2].argmax()) + 0.5 - place) <= 1


def test_low_frequencies_are_at_the_bottom_and_time_is_in_seconds() -> None:
    picture = levels(MINI, 125)
    picture[0] = 255
    axes = spectrogram_figure(picture, MINI, seams=[(50, 25)]).axes[0]
    shown = axes.images[0]
    assert axes.get_ylim() == (0, MINI.n_mels)
    assert shown.origin == "lower"
    assert list(shown.get_extent()) == pytest.approx([0, 125 * 256 / 16000, 0, MINI.n_mels])
    assert np.asarray(shown.get_array())[0].min() == 255
    assert axes.lines[0].get_xdata()[0] == pytest.approx(62.5 * 256 / 16000)


def test_bright_is_loud_for_a_law_that_is_dark_where_it_is_loud() -> None:
    riffusion = named_spec("riffusion")
    shown = spectrogram_figure(levels(riffusion, 8, value=10), riffusion).axes[0].images[0]
    assert np.asarray(shown.get_array()).max() == 245


def test_an_hour_makes_no_more_columns_than_a_screen_shows() -> None:
    shown = spectrogram_figure(levels(MINI, 3 * MOST_COLUMNS), MINI).axes[0].images[0]
    assert np.asarray(shown.get_array()).shape == (MINI.n_mels, MOST_COLUMNS)


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_the_same_figure_makes_the_same_bytes(name: str) -> None:
    one, two = (figure_bytes(spectrogram_figure(levels(MINI, 64), MINI), Path(name)) for _ in range(2))
    assert one == two
    with pytest.raises(InputError, match="a.pdf: plots are written as .png or .svg"):
        figure_bytes(spectrogram_figure(levels(MINI, 64), MINI), Path("a.pdf"))
