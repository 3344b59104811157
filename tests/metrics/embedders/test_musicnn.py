import json
from importlib.resources import files
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from sdxl_mel.errors import FormatError
from sdxl_mel.metrics.embedders import musicnn
from sdxl_mel.metrics.embedders.base import unit_rows
from sdxl_mel.metrics.frechet import distance_between
from sdxl_mel.metrics.kernel import kernel_distance, kernel_sums, median_distance
from tests.metrics.simulated import SAMPLE_RATE, chord, drums, noise, tone

PIECE = 3 * SAMPLE_RATE
FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="module")
def mtt():
    return musicnn.MusicnnEmbedder("mtt")


@pytest.fixture(scope="module")
def msd():
    return musicnn.MusicnnEmbedder("msd")


@pytest.fixture(scope="module")
def clean(msd):
    return embedded(msd, music())


def top(embedder, sound, count):
    tags = embedder.tags(sound).mean(0)
    return [embedder.labels[index] for index in np.argsort(-tags)[:count]]


def test_network_has_the_published_size():
    network = musicnn.Musicnn()
    values = [parameter.numel() for parameter in network.parameters()]
    norms = [buffer.numel() * 2 for buffer in network.buffers()]  # scale and shift stand for four numbers each
    assert sum(values) + sum(norms) == 792_079


@pytest.mark.parametrize("which", ["mtt", "msd"])
def test_scores_are_those_of_the_checkpoint_before_it_was_converted(which, request):
    embedder, recorded = request.getfixturevalue(which), json.loads((FIXTURES / "musicnn.json").read_text())[which]
    assert embedder.weights == recorded["weights"]
    for name, tags in recorded["tags"].items():
        sound = mono(FIXTURES / f"{name}.flac")
        assert np.abs(embedder.tags(sound).mean(0) - tags).max() < 1e-5
        assert np.abs(embedder.embed_audio(sound).mean(0) - recorded["embedding"][name]).max() < 1e-5


def test_tags_of_synthetic_material(mtt):
    assert top(mtt, tone(440.0), 3)[:2] == ["flute", "solo"]
    assert {"beat", "drums"} <= set(top(mtt, drums(), 3))
    assert {"techno", "electronic", "synth"} <= set(top(mtt, drums(bass=True), 5))
    assert set(top(mtt, noise(), 3)) == {"fast", "loud", "techno"}


def test_embedding_knows_what_sounds_alike(mtt):
    sounds = [
        tone(440.0),
        np.roll(tone(440.0), 10),
        noise(seed=1),
        noise(seed=2),
        drums(tempo=120.0),
        drums(tempo=128.0),
    ]
    rows = unit_rows(np.stack([mtt.embed_audio(sound).mean(0) for sound in sounds]))
    cosines = rows @ rows.T
    assert min(cosines[0, 1], cosines[2, 3]) > 0.99
    assert cosines[4, 5] > 0.9
    assert max(cosines[0, 2], cosines[2, 4], cosines[0, 4]) < 0.5


def test_input_is_finite_where_upstream_overflows():
    assert np.isfinite(musicnn.log_mel(np.ones(SAMPLE_RATE, np.float32) * 100)).all()


def test_input_is_upstreams():
    sound = chord((220.0, 277.0))
    mel = librosa.feature.melspectrogram(y=sound, sr=16000, hop_length=256, n_fft=512, n_mels=96).T
    upstream = np.log10(10000 * mel.astype(np.float16).astype(np.float64) + 1)
    assert np.allclose(musicnn.log_mel(sound), upstream, atol=1e-5)


def test_three_seconds_are_one_window(msd):
    assert msd.embed_audio(chord((220.0,), 3.0)).shape == (1, 200)
    assert msd.embed_audio(chord((220.0,), 7.0)).shape == (3, 200)
    assert msd.embed_audio(chord((220.0,), 0.3)).shape == (1, 200)


def music():
    """Return pieces of 3 s of the rendered fixtures: a low-pass needs material that has something to lose."""
    pieces = []
    for path in sorted(FIXTURES.glob("*.flac")):
        sound = mono(path)
        pieces += [sound[first : first + PIECE] for first in range(0, len(sound) - PIECE + 1, PIECE)]
    return pieces


def mono(path):
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(1), rate, SAMPLE_RATE).astype(np.float32)


def with_noise(sound, decibels):
    level = np.sqrt(np.mean(np.square(sound))) * 10 ** (-decibels / 20)
    return (sound + level * np.random.default_rng(0).standard_normal(len(sound))).astype(np.float32)


def low_passed(sound, hertz):
    sos = scipy.signal.butter(8, hertz, fs=SAMPLE_RATE, output="sos")
    return scipy.signal.sosfilt(sos, sound).astype(np.float32)


def through_mels(sound, bands):
    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=1024, n_mels=bands)
    linear = np.maximum(np.linalg.pinv(bank) @ (bank @ np.abs(librosa.stft(sound, n_fft=1024))), 0)
    return librosa.griffinlim(linear, n_iter=8, n_fft=1024, random_state=0, length=len(sound)).astype(np.float32)


@pytest.mark.parametrize(
    ("damage", "degrees"),
    [(with_noise, (30, 10, 0)), (low_passed, (7000, 4000, 2000, 1000)), (through_mels, (128, 32))],
)
def test_distances_rise_with_damage(msd, clean, damage, degrees):
    reference = clean
    width = median_distance(reference)
    own = np.arange(len(reference))
    frechet, kernel = [], []
    for degree in degrees:
        damaged = embedded(msd, [damage(sound, degree) for sound in music()])
        frechet.append(distance_between(damaged, reference))
        kernel.append(float(kernel_distance(kernel_sums(damaged, own, reference, own, width))[0]))
    assert frechet == sorted(frechet)
    assert kernel == sorted(kernel)


def embedded(embedder, sounds):
    return unit_rows(np.concatenate([embedder.embed_audio(sound) for sound in sounds]))


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "other"])
def test_damaged_weights_are_refused(tmp_path, damage):
    assets = files("sdxl_mel").joinpath("assets")
    whole = assets.joinpath("musicnn/mtt.safetensors").read_bytes()
    path = tmp_path / "mtt.safetensors"
    if damage != "missing":
        path.write_bytes(
            {"cut": whole[:-100], "text": b"hello", "other": assets.joinpath("oracle.safetensors").read_bytes()}[damage]
        )
    with pytest.raises(FormatError, match="not musicnn's converted weights"):
        musicnn.read_musicnn(path)
