"""Pictures to sound: better than librosa, stereo that holds together, no audible joins, loops that close, exact."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch

from bench.consistency import self_consistency_db, spectral_convergence_db
from sdxl_mel.errors import InputError
from sdxl_mel.metrics.codec_fidelity import channel_correlation, mono_sum_level_db, pixel_rmse
from sdxl_mel.options import Method
from sdxl_mel.sound.encoding import cut_clip, encode_clip, mel_spectrogram
from sdxl_mel.sound.inversion.blockwise import Iterations, coarse_grid, initial_spectrum, retrieve_phase
from sdxl_mel.sound.inversion.griffin_lim import librosa_griffin_lim
from sdxl_mel.sound.inversion.mel_to_linear import mel_to_linear
from sdxl_mel.sound.inversion.methods import METHODS, invert
from sdxl_mel.sound.inversion.projections import CHUNK_FRAMES, Consistency, fast_griffin_lim, raar
from sdxl_mel.sound.inversion.stereo import project
from sdxl_mel.sound.mel import magnitude, margin, mel_of, stft
from sdxl_mel.sound.melspec import PRESETS, band_edges, named_spec
from sdxl_mel.sound.pixels import dequantise, mel_of_values
from tests.sounds import clip, frequency, inner, picture, tone

STD, MINI = PRESETS["std"], PRESETS["mini"]
MONO = STD.model_copy(update={"channels": "grey"})
FRAMES = 96
RETURN_RMSE = 0.015
"""Of 1.0: the picture of the sound of a picture."""


@pytest.mark.parametrize("name", ["strings", "band", "transients"])
def test_best_is_better_than_librosa(name: str) -> None:
    levels = picture(name, MONO, FRAMES, start=16000)
    theirs = librosa_griffin_lim(mel_of_values(dequantise(levels), MONO), MONO, seed=0, iterations=64)
    ours = invert(levels, MONO, "best")
    assert self_consistency_db(levels, ours, MONO) < self_consistency_db(levels, theirs, MONO)
    assert pixel_rmse(levels, ours, MONO) < pixel_rmse(levels, theirs, MONO)


def test_phases_of_partials_are_a_better_start_than_random_ones() -> None:
    target = magnitude(stft(torch.from_numpy(clip("strings", MINI, 64)[:, :-256]), MINI))
    generator = torch.Generator().manual_seed(0)
    random = torch.polar(target, 2 * torch.pi * torch.rand(target.shape, generator=generator))[..., ::2]
    partials = initial_spectrum(target[0], MINI, generator)
    target = target[..., ::2].contiguous()
    coarse = coarse_grid(MINI)
    consistency = Consistency(coarse, target.shape[1])

    def error_db(start: torch.Tensor) -> float:
        sound = fast_griffin_lim(raar(start, target, consistency, 24), target.clone(), consistency, 8)
        return spectral_convergence_db(target.numpy(), magnitude(stft(sound, coarse)).numpy())

    assert error_db(partials) < error_db(random.contiguous()) - 3.0


@pytest.mark.parametrize("name", ["piano", "band", "drums"])
def test_the_picture_returns(name: str) -> None:
    levels = picture(name, STD, FRAMES, start=16000)
    assert pixel_rmse(levels, invert(levels, STD, "best"), STD) < RETURN_RMSE


@pytest.mark.parametrize("method", ["best", "fast"])
def test_stereo_keeps_its_width_and_its_mono_sum(method: str) -> None:
    samples = clip("band", STD, FRAMES, start=16000)
    original, sound = inner(samples, STD), invert(encode_clip(samples, STD), STD, method)
    assert channel_correlation(sound) == pytest.approx(channel_correlation(original), abs=0.05)
    assert mono_sum_level_db(sound) == pytest.approx(mono_sum_level_db(original), abs=0.1)


def test_channels_that_cancel_stay_against_each_other() -> None:
    left = clip("piano", STD, FRAMES, start=16000)[:1]
    sound = invert(encode_clip(np.concatenate([left, -left]), STD), STD, "fast")
    assert channel_correlation(sound) < -0.95
    assert np.std(sound[0]) == pytest.approx(np.std(inner(left, STD)), rel=0.1)


def test_independent_channels_would_lose_the_mono_sum() -> None:
    samples = clip("band", STD, FRAMES, start=16000)
    levels, original = encode_clip(samples, STD), inner(samples, STD)
    apart = np.concatenate([invert(levels[..., [side]], STD, "fast", seed=side) for side in (0, 2)])
    assert mono_sum_level_db(apart) < mono_sum_level_db(original) - 0.5


@pytest.mark.parametrize("name", ["std", "web", "mini", "minimidi", "riffusion", "auffusion", "hifi"])
def test_the_duration_is_exact(name: str) -> None:
    spec = named_spec(name)
    levels = np.random.default_rng(0).integers(0, 256, (spec.n_mels, 24, 1), dtype=np.uint8)
    assert invert(levels, spec, "fast").shape == (1, 24 * spec.hop_length)


def test_the_seed_decides_and_nothing_else() -> None:
    levels = picture("band", MINI, 64)
    first = invert(levels, MINI, "best", seed=1)
    np.testing.assert_array_equal(invert(levels, MINI, "best", seed=1), first)
    assert np.abs(invert(levels, MINI, "best", seed=2) - first).max() > 1e-3


def test_the_number_of_threads_does_not_matter() -> None:
    levels, sounds = picture("band", MINI, CHUNK_FRAMES + 1), []
    threads = torch.get_num_threads()
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        sounds.append(invert(levels, MINI, "fast"))
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(sounds[1], sounds[0])
    np.testing.assert_array_equal(sounds[2], sounds[0])


@pytest.mark.parametrize("loop", [False, True])
def test_blocks_join_without_a_trace(loop: bool) -> None:
    levels = picture("band", MINI, 320)
    whole = invert(levels, MINI, "best", loop=loop)
    pieces = list(in_blocks(levels, 128, loop=loop))
    sound = np.concatenate(pieces, axis=-1)
    assert len(pieces) >= 3
    assert sound.shape == whole.shape
    joints = np.cumsum([piece.shape[-1] for piece in pieces])[:-1] // MINI.hop_length
    assert np.mean([error_near(joint, levels, sound) for joint in joints]) < np.mean(
        [error_near(joint, levels, whole) for joint in joints]
    ) + 3.0  # fmt: skip


@pytest.mark.parametrize("block", [1024, 96])
def test_a_loop_closes(block: int) -> None:
    levels = circular_picture(160)
    looped, open_ended = (np.concatenate(list(in_blocks(levels, block, loop=loop)), -1) for loop in (True, False))
    closed, broken = error_near(0, levels, looped), error_near(0, levels, open_ended)
    assert closed < error_near(80, levels, looped) + 8.0
    assert broken > closed + 8.0, "the check can fail"


def in_blocks(levels: np.ndarray, block_frames: int, *, loop: bool) -> Iterator[np.ndarray]:
    """Yield what `best` makes of a picture in blocks of another length."""
    effort = Iterations(mel_to_linear=30, raar=80, stereo=40, final=24)
    yield from retrieve_phase(levels, MINI, 0, loop=loop, device="cpu", iterations=effort, block_frames=block_frames)


def circular_picture(frames: int) -> np.ndarray:
    """Return the levels of a sound that repeats after `frames` frames: chords, louder and softer."""
    length = frames * MINI.hop_length
    turn = 2 * np.pi * np.arange(length) / length
    chord = sum(np.sin(turn * cycles + cycles) / rank for rank, cycles in enumerate((563, 707, 845, 1409, 2817), 1))
    sound = (0.1 * chord * (1.2 + np.sin(3 * turn))).astype(np.float32)[None]
    return encode_clip(np.pad(sound, ((0, 0), (margin(MINI), margin(MINI))), mode="wrap"), MINI)


def error_near(frame: int, levels: np.ndarray, sound: np.ndarray) -> float:
    """Return the spectral convergence in dB of the 8 frames around one, picture and sound being loops."""
    samples = np.roll(sound, (32 - frame) * MINI.hop_length, axis=-1)
    found = mel_spectrogram(cut_clip(samples, 28 * MINI.hop_length, 8, MINI), MINI)
    target = mel_of_values(dequantise(np.roll(levels, 32 - frame, axis=1)[:, 28:36]), MINI)
    return spectral_convergence_db(target, found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_does_as_well() -> None:
    levels = picture("band", STD, FRAMES, start=16000)
    cpu, gpu = (pixel_rmse(levels, invert(levels, STD, "best", device=device), STD) for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, rel=0.05)


def test_a_loop_needs_a_window() -> None:
    with pytest.raises(InputError, match="too short for a loop"):
        invert(np.zeros((128, 2, 1), dtype=np.uint8), MINI, loop=True)


def test_librosa_cannot_close_a_loop() -> None:
    with pytest.raises(InputError, match="griffinlim cannot close a loop; use best or fast"):
        invert(np.zeros((128, 64, 1), dtype=np.uint8), MINI, "griffinlim", loop=True)


def test_every_method_that_can_be_asked_for_is_there() -> None:
    assert set(METHODS) == set(get_args(Method))
    levels = picture("piano", MINI, 32)
    for method in METHODS:
        assert invert(levels, MINI, method).shape == (1, 32 * MINI.hop_length)


@pytest.mark.parametrize("row", [0, 1, 2, 5, 9, 20, 60, 200, 360, 500, 511])
def test_a_rows_tone_returns_within_five_cents(row: int) -> None:
    centre = band_edges(STD.n_mels, STD.fmin, STD.fmax, "slaney")[1 + row]
    samples = tone(centre, (FRAMES * 512 + 2048) / 32000, 32000)
    levels = encode_clip(samples, STD)
    assert levels[:, FRAMES // 2, 0].argmax() == row
    sound = invert(levels, STD, "fast")[0, 2048:-2048]
    assert abs(1200 * np.log2(frequency(sound, 32000) / centre)) < 5


def test_six_decibels_through_the_picture_and_back() -> None:
    samples = clip("piano", MONO, 64) * np.float32(0.25)
    quiet, loud = (invert(encode_clip(samples * np.float32(gain), MONO), MONO, "fast") for gain in (1, 2))
    assert 20 * np.log10(np.std(loud) / np.std(quiet)) == pytest.approx(6.02, abs=0.1)


def test_channels_that_should_be_equal_are_averaged() -> None:
    levels = picture("piano", MINI, 64)
    noisy = np.clip(levels.astype(int) + np.array([-3, 0, 3]), 0, 255).astype(np.uint8)
    inside = (levels > 3) & (levels < 252)
    mean = noisy.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(mean[inside], levels[inside], atol=1e-6)
    assert invert(noisy, MINI, "fast").shape[0] == 1
    equal = np.repeat(levels, 3, axis=-1)
    np.testing.assert_array_equal(invert(equal, STD_LIKE_MINI, "fast"), invert(levels, MINI, "fast"))


STD_LIKE_MINI = MINI.model_copy(update={"channels": "lmr"})


@pytest.mark.parametrize(
    ("shape", "said"), [((64, 8, 1), "is not"), ((128, 8, 2), "is not"), ((128, 0, 1), "is not"), ((128,), "is not")]
)
def test_pictures_of_another_shape(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        invert(np.zeros(shape, dtype=np.uint8), MINI)
    with pytest.raises(InputError, match="NaN"):
        invert(np.full((128, 8, 1), np.nan, dtype=np.float32), MINI)


def test_silence_inverts_to_silence() -> None:
    for method in ("best", "fast"):
        assert np.abs(invert(np.zeros((128, 32, 3), dtype=np.uint8), MINI, method)).max() < 1e-6


def test_mel_to_linear_explains_the_mel() -> None:
    mel = torch.from_numpy(mel_spectrogram(clip("band", MONO, 32), MONO)).permute(2, 0, 1)
    errors = [
        float(torch.linalg.norm(mel_of(mel_to_linear(mel, MONO, iterations), MONO) - mel) / torch.linalg.norm(mel))
        for iterations in (0, 5, 30)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_a_real_spectrogram_is_a_fixed_point_of_the_projections() -> None:
    samples = torch.from_numpy(np.concatenate([clip("band", MINI, 32)] * 2)[:, :-256] * np.float32([[1], [0.5]]))
    spectrum = stft(samples, MINI)
    target = magnitude(torch.stack([spectrum[0], spectrum.mean(dim=0), spectrum[1]]))
    torch.testing.assert_close(project(spectrum, target), spectrum, atol=1e-5, rtol=0)
    consistent = Consistency(MINI, spectrum.shape[1])
    inside = slice(512, -512)
    torch.testing.assert_close(consistent.sound_of(spectrum)[:, inside], samples[:, inside], atol=1e-5, rtol=0)


def test_raar_then_griffin_lim_beats_either_alone() -> None:
    samples = torch.from_numpy(clip("band", MINI, 128)[:, :-256])
    target = magnitude(stft(samples, MINI))
    start = target * torch.polar(
        torch.ones_like(target), torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) * 6.28
    )
    consistent = Consistency(MINI, target.shape[1])

    def error(reflections: int, iterations: int) -> float:
        sound = raar(start, target, consistent, reflections)
        sound = fast_griffin_lim(sound, target.clone(), consistent, iterations)
        return float(torch.linalg.norm(magnitude(stft(sound, MINI)) - target) / torch.linalg.norm(target))

    both = error(40, 24)
    assert both < error(0, 64)
    assert both < error(64, 0)
