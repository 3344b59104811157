"""The spec: every field survives JSON, what cannot work is refused, and the foreign formats are their tools' laws."""

import json
import warnings

import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.sound.melspec import (
    FORMATS,
    PRESETS,
    MelSpec,
    band_edges,
    differences,
    empty_bands,
    name_of,
    named_spec,
    require_equal,
)
from tests.sound.test_laws import LAWS
from tests.sounds import tone

STD = PRESETS["std"]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_survive_json_and_know_their_names(name: str) -> None:
    spec = named_spec(name)
    assert MelSpec.from_json(spec.to_json()) == spec
    assert name_of(spec) == name


@given(
    law=LAWS,
    channels=st.sampled_from(["grey", "lmr"]),
    loudness=st.none() | st.floats(-40, 0),
    width=st.integers(1, 999),
)
def test_any_spec_survives_json(law: object, channels: str, loudness: float | None, width: int) -> None:
    spec = MelSpec.model_validate(
        STD.model_dump() | {"law": law, "channels": channels, "loudness_lufs": loudness, "width": 8 * width}
    )
    assert MelSpec.from_json(spec.to_json()) == spec
    assert set(json.loads(spec.to_json())) == set(MelSpec.model_fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 1020}, "width 1020 is not divisible by 8"),
        ({"n_mels": 500}, "n_mels 500 is not divisible by 8"),
        ({"hop_length": 1025}, "less than 50 % overlap"),
        ({"win_length": 8192}, "longer than n_fft"),
        ({"fmax": 16001.0}, "above sample_rate / 2"),
        ({"fmin": 16000.0}, "not below fmax"),
        ({"n_fft": 2048}, "12 of 512 rows have no FFT bin"),
        ({"sample_rate": 0}, "greater than 0"),
        ({"fmin": float("nan")}, "finite"),
        ({"law": {"kind": "secret"}}, "law"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MelSpec.model_validate(STD.model_dump() | change)


def test_little_overlap_warns() -> None:
    with pytest.warns(UserWarning, match="50% overlap"):
        MelSpec.model_validate(STD.model_dump() | {"hop_length": 1024})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MelSpec.model_validate(STD.model_dump())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STD.to_json().replace('"version":1', '"version":2'), "update sdxl-mel"),
        ("{}", "sample_rate"),
        ("not json", "not a valid spec"),
        (STD.to_json()[:-30], "not a valid spec"),
    ],
)
def test_text_that_is_no_spec(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        MelSpec.from_json(text, "x.png")


def test_names_and_differences() -> None:
    with pytest.raises(InputError, match="did you mean 'riffusion'"):
        named_spec("rifusion")
    assert set(differences(STD, PRESETS["long"])) == {"sample_rate", "fmax"}
    require_equal(STD, STD, "a", "b")
    with pytest.raises(MismatchError, match="a and b .* sample_rate 32000 against 22050, fmax"):
        require_equal(STD, PRESETS["long"], "a", "b")


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "scale", "empty"),
    [
        (44100, 2048, 512, "slaney", 40),
        (44100, 4096, 1024, "slaney", 80),
        (32000, 2048, 512, "slaney", 12),
        (44100, 4096, 512, "htk", 1),
    ],
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_band_edges_and_empty_bands_are_librosas(
    sample_rate: int, n_fft: int, n_mels: int, scale: str, empty: int
) -> None:
    edges = band_edges(n_mels, 20.0, sample_rate / 2, scale)
    htk = scale == "htk"
    theirs = librosa.mel_frequencies(n_mels=n_mels + 2, fmin=20.0, fmax=sample_rate / 2, htk=htk)
    np.testing.assert_allclose(edges, theirs, rtol=1e-12)
    bank = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=20.0, htk=htk, norm=None)
    assert empty_bands(edges, sample_rate, n_fft) == int((bank.max(axis=1) == 0).sum()) == empty


def teticio(samples: np.ndarray) -> np.ndarray:
    """Return the picture of teticio/audio-diffusion, mel.py, with librosa as there."""
    power = librosa.feature.melspectrogram(y=samples, sr=22050, n_fft=2048, hop_length=512, n_mels=256)
    decibels = librosa.power_to_db(power, ref=np.max, top_db=80)
    return (((decibels + 80) * 255 / 80).clip(0, 255) + 0.5).astype(np.uint8)


def minimidi(samples: np.ndarray) -> np.ndarray:
    """Return the picture of puckowski/sd-spectrograms, norm_spec.py, with librosa as there."""
    emphasised = librosa.effects.preemphasis(samples, coef=0.97, zi=[0.0])
    power = librosa.feature.melspectrogram(y=emphasised, sr=16000, n_fft=2048, hop_length=512, n_mels=256, fmax=8000)
    decibels = np.clip(librosa.power_to_db(power, ref=np.max), -80, 0)
    return np.rint((decibels + 80) / 80 * 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "theirs"), [("teticio", teticio), ("minimidi", minimidi)])
def test_foreign_laws_are_their_tools(name: str, theirs: object) -> None:
    from sdxl_mel.sound.encoding import cut_clip, emphasise, encode_clip

    spec = named_spec(name)
    samples = sum(tone(hz, 2.0, spec.sample_rate, 0.1) for hz in (220.0, 1234.0, 5000.0))
    samples += 0.01 * np.random.default_rng(0).standard_normal(samples.shape).astype(np.float32)
    expected = theirs(samples[0])
    frames = samples.shape[-1] // 512
    ours = encode_clip(cut_clip(emphasise(samples, spec.preemphasis), 0, frames, spec), spec)[..., 0]
    inside = slice(4, frames - 4)
    difference = ours[:, inside].astype(int) - expected[:, :frames][:, inside]
    assert np.abs(difference).max() <= 1, "the same law, but for rounding and float32"
