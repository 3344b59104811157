"""Editing: what is outside of a passage stays bit for bit, what was only inside is gone, and long sounds and loops."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.arrays import Float
from sdxl_mel.cli import main
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import read_audio, write_audio
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.sound.encoding import prepare_signal
from sdxl_mel.sound.loudness import Meter, normalising_gain_db
from sdxl_mel.sound.melspec import LATENT_FACTOR, PRESETS
from sdxl_mel.synthesis.edited_sound import Change, edit_recording, sound_blocks
from sdxl_mel.synthesis.editing import Edit, Edited, Source, edit_source, open_source, plan_edit
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.prepared import Scratch, encode_prepared
from sdxl_mel.synthesis.regions import Region, parse_region, place, require_apart
from sdxl_mel.synthesis.results import Step
from tests.sounds import FIXTURES, tone

SPEC = PRESETS["mini"]
SAMPLING = Sampling(steps=2, guidance=1.0)
COLUMN = LATENT_FACTOR * SPEC.hop_length / SPEC.sample_rate
STRINGS = FIXTURES / "strings.flac"


@pytest.fixture(scope="module")
def generator(slim_sdxl: Path) -> Generator:
    return Generator.open(str(slim_sdxl), preset="mini")


@pytest.fixture(scope="module")
def strings() -> Source:
    return open_source(STRINGS, SPEC)


def heard(edited: Edited) -> Float:
    return np.concatenate(list(sound_blocks(edited, "fast")), axis=-1)


def energy_db(samples: Float, rate: int, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples.mean(axis=0) * np.hanning(samples.shape[-1]))) ** 2
    frequencies = np.fft.rfftfreq(samples.shape[-1], 1 / rate)
    return float(10 * np.log10(spectrum[(frequencies >= low) & (frequencies < high)].sum()))


@pytest.mark.parametrize("region", ["2-3s: banjo", "2-3s 500-1500Hz strength 0.7: banjo"])
def test_outside_of_a_region_latents_levels_and_samples_are_the_inputs(
    generator: Generator, strings: Source, region: str
) -> None:
    edited = edit_source(generator, strings, Edit(regions=[parse_region(region)]), sampling=SAMPLING)
    ((latents, known),) = edited.drawn
    kept = (known.strength == 0).expand_as(latents)
    assert torch.equal(latents[kept], known.latents[kept])
    assert not torch.equal(latents[~kept], known.latents[~kept])
    untouched = edited.mask() == 0
    before = strings.picture(0, strings.frames)
    np.testing.assert_array_equal(edited.levels[untouched], before[untouched])
    original, rate = read_audio(STRINGS)
    sound = heard(edited)
    (passage,) = edited.plan.passages
    beyond = COLUMN + (0 if passage.patch.every_row else 1 / 16 + 1e-3)
    first, after = (round(rate * seconds) for seconds in (15 * COLUMN - beyond, 24 * COLUMN + beyond))
    np.testing.assert_array_equal(sound[:, : first - 1], original[:, : first - 1])
    np.testing.assert_array_equal(sound[:, after + 1 :], original[:, after + 1 :])
    assert np.abs(sound - original)[:, first:after].max() > 0.01


def test_a_tone_and_an_onset_of_the_region_are_gone_and_other_bands_stay(generator: Generator, tmp_path: Path) -> None:
    rate = 22050
    sound = np.random.default_rng(0).standard_normal((1, 6 * rate)).astype(np.float32) * 0.02
    beep = tone(1000, 0.4, rate, 0.3)
    sound[:, int(2.4 * rate) :][:, : beep.shape[-1]] += beep
    sound += tone(4000, 6, rate, 0.05)
    write_audio(tmp_path / "beep.wav", sound, rate)
    original, _ = read_audio(tmp_path / "beep.wav")
    source = open_source(tmp_path / "beep.wav", SPEC)
    region = parse_region("2.3-2.9s 800-1300Hz: noise")
    # With no further steps than one the slim model draws nearly nothing: what is left is what the mixing leaves.
    result = heard(edit_source(generator, source, Edit(regions=[region]), sampling=Sampling(steps=1, guidance=1.0)))
    inside = slice(int(2.5 * rate), int(2.7 * rate))
    (patch,) = (place(region, SPEC, 6.0, 1.0),)
    low_out, _, _, high_out = patch.band(SPEC)
    for low, high in ((20, low_out - 20), (high_out + 20, 8000)):
        change = energy_db(result[:, inside], rate, low, high) - energy_db(original[:, inside], rate, low, high)
        assert abs(change) < 0.1
    assert energy_db(result[:, inside], rate, 990, 1010) < energy_db(original[:, inside], rate, 990, 1010) - 12


@given(
    st.integers(0, 20_000),
    st.integers(1, 9_000),
    st.sampled_from(["0.5-0.9s", "0.5-0.9s 400-1500Hz"]),
    st.sampled_from([16000, 22050]),
)
@settings(deadline=None, max_examples=25)
def test_a_change_is_the_same_in_any_blocks(start: int, count: int, region: str, rate: int) -> None:
    difference = Scratch(2)
    difference.append(np.random.default_rng(0).standard_normal((2, 30_000)).astype(np.float32))
    change = Change(0, 0, difference, [place(parse_region(region), SPEC, 2.0, 1.0)], SPEC, rate)
    whole = change.read(0, 30_000)
    np.testing.assert_array_equal(change.read(start, start + count), whole[:, start : start + count])
    assert np.abs(whole).max() > 0.5
    assert not whole[:, : round(0.19 * rate)].any()
    assert not whole[:, round(1.22 * rate) :].any()


def test_regions_are_drawn_in_their_own_words_and_the_same_twice(generator: Generator, strings: Source) -> None:
    regions = [parse_region("1-2s: aaaa"), parse_region("4-5s")]
    steps: list[Step] = []
    one, two = (
        edit_source(generator, strings, Edit("zz", regions=regions), sampling=SAMPLING, on_step=steps.append)
        for _ in range(2)
    )
    assert [passage.prompt for passage in one.plan.passages] == ["aaaa", "zz"]
    assert [step.number for step in steps] == [1, 2, 3, 4] * 2
    assert {step.total for step in steps} == {4}
    np.testing.assert_array_equal(one.levels, two.levels)
    np.testing.assert_array_equal(heard(one), heard(two))


def test_a_variation_is_as_long_as_the_file_and_nearer_the_weaker_it_is(generator: Generator, strings: Source) -> None:
    distances = []
    for strength in (0.2, 1.0):
        edited = edit_source(generator, strings, Edit(strength=strength), sampling=Sampling(steps=5, guidance=1.0))
        ((latents, known),) = edited.drawn
        distances.append(float((latents - known.latents).std()))
    assert heard(edited).shape == read_audio(STRINGS)[0].shape
    assert distances[0] < distances[1]


def test_added_seconds_lie_before_and_after_the_samples_of_the_file(generator: Generator, strings: Source) -> None:
    original, rate = read_audio(STRINGS)
    edited = edit_source(generator, strings, Edit(prepend=1.0, extend=2.0), sampling=SAMPLING)
    sound = heard(edited)
    before = round(8 * COLUMN * rate)
    kept = slice(round(COLUMN * rate) + 1, round(44 * COLUMN * rate))
    np.testing.assert_array_equal(sound[:, before:][:, kept], original[:, kept])
    assert sound.shape[-1] == round((8 * COLUMN + 6.0 + 2.0) * rate)


@pytest.mark.parametrize("edit", [Edit(loop=True), Edit(loop=True, extend=1.0)])
def test_a_loop_is_drawn_anew_where_its_end_meets_its_start(generator: Generator, strings: Source, edit: Edit) -> None:
    edited = edit_source(generator, strings, edit, sampling=SAMPLING)
    original, rate = read_audio(STRINGS)
    sound = heard(edited)
    length = sound.shape[-1]
    assert length == round(edited.plan.columns * COLUMN * rate)
    kept = slice(round(5 * COLUMN * rate) + 1, round(40 * COLUMN * rate))
    np.testing.assert_array_equal(sound[:, kept], original[:, kept])
    changes = np.abs(np.diff(sound[:, np.arange(length - 400, length + 400) % length])).max(axis=0)
    assert changes[399] <= changes.max()
    assert edited.mask()[:, 0].max() > 0


@pytest.mark.parametrize("seconds", [1.0, 2.5])
def test_a_sound_shorter_than_a_tile_is_edited_too(generator: Generator, tmp_path: Path, seconds: float) -> None:
    write_audio(tmp_path / "short.wav", tone(440, seconds, 16000), 16000)
    source = open_source(tmp_path / "short.wav", SPEC)
    for edit, longer in ((Edit(), 0.0), (Edit(loop=True, strength=0.5), None), (Edit(extend=1.0), None)):
        sound = heard(edit_source(generator, source, edit, sampling=SAMPLING))
        assert np.isfinite(sound).all()
        if longer is not None:
            assert sound.shape[-1] == round(seconds * 16000)


def test_a_recording_is_prepared_as_a_training_track_is(strings: Source) -> None:
    samples, rate = read_audio(STRINGS)
    signal = prepare_signal(samples, rate, SPEC)
    assert strings.prepared is not None
    ours = strings.prepared.read(0, strings.prepared.samples)
    assert ours.shape == signal.shape
    assert np.abs(ours - signal).max() < 1e-4
    assert encode_prepared(strings.prepared, 0, strings.frames, SPEC).shape[1] == strings.frames


@given(st.integers(1, 40000), st.integers(1, 2), st.sampled_from([8000, 16000, 22050]))
def test_loudness_in_blocks_is_that_of_the_whole(length: int, channels: int, rate: int) -> None:
    samples = np.random.default_rng(length).standard_normal((channels, length)).astype(np.float32) * 0.1
    meter = Meter(rate, channels)
    for start in range(0, length, 7001):
        meter.add(samples[:, start : start + 7001])
    expected = normalising_gain_db(samples, rate, -16.0, -1.0)
    # A sample more or less in one of the 14 or more blocks of a sound whose blocks do not come out even: at four
    # deviations 10 log10(1 + 16 / 8820 / 14) dB.
    assert meter.gain_db(-16.0, -1.0) == pytest.approx(expected, abs=1e-3)


@given(st.integers(-50, 150), st.integers(0, 100))
def test_scratch_is_silent_beyond_its_ends(start: int, count: int) -> None:
    samples = np.arange(200, dtype=np.float32).reshape(2, 100)
    scratch = Scratch(2)
    for block in np.split(samples, 4, axis=1):
        scratch.append(block)
    padded = np.pad(samples, ((0, 0), (50, 150)))
    np.testing.assert_array_equal(scratch.read(start, start + count), padded[:, start + 50 : start + 50 + count])


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("12.0-15.5s 200-2000Hz: banjo solo", Region(12.0, 15.5, 200.0, 2000.0, "banjo solo")),
        ("0:30-0:34", Region(30.0, 34.0)),
        ("1-2 strength .5: a: b", Region(1.0, 2.0, prompt="a: b", strength=0.5)),
        ("1:00-1:01 20-400 hz", Region(60.0, 61.0, 20.0, 400.0)),
    ],
)
def test_a_region_is_read_as_it_is_written(text: str, region: Region) -> None:
    assert parse_region(text) == region


def test_from_python_a_recording_is_edited_as_by_the_command(
    generator: Generator, slim_sdxl: Path, tmp_path: Path
) -> None:
    what = Edit("zz", regions=[Region(1.0, 2.0, 300.0, 2000.0, "aaaa", 0.6)])
    edited = edit_recording(generator, STRINGS, what, steps=4, guidance=1.0, seed=2, method="fast")
    words = ["edit", str(STRINGS), "--base", str(slim_sdxl), "--preset", "mini", "--prompt", "zz", "--seed", "2"]
    words += ["--region", "1-2s 300-2000Hz strength 0.6: aaaa", "--steps", "4", "--guidance", "1", "--method", "fast"]
    assert main([*words, "--bits", "float", "--out", str(tmp_path / "out.wav")]) == 0
    samples, rate = read_audio(tmp_path / "out.wav")
    np.testing.assert_array_equal(edited.samples, samples)
    assert edited.rate == rate
    np.testing.assert_array_equal(edited.levels, read_spectrogram(tmp_path / "out.png").levels)
    assert edited.mask.shape == edited.levels.shape[:2]


def parts_of(strings: Source, *regions: str) -> Callable[[], object]:
    return lambda: plan_edit(Edit(regions=[parse_region(text) for text in regions]), strings, 0)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (["1.5"], "write it as"),
        (["2-1s"], "is empty"),
        (["1-2s 500-200Hz"], "is empty"),
        (["1-2s strength 1.2"], "at most 1"),
        (["5-7s"], "the sound ends at 6.00 s"),
        (["1-2s 400-9000Hz"], "9000 Hz is above the picture, which ends at 8000 Hz"),
        (["1-1.05s"], "the shortest region is 0.128 s"),
        (["1-2s 400-420Hz"], "the narrowest region is"),
        (["1-2s", "1.9-3s"], "two regions overlap at 1.79 s"),
        (["1-2s 200-800Hz", "1.5-3s 700-2000Hz"], "two regions overlap"),
    ],
)
def test_impossible_regions_are_refused(strings: Source, regions: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parts_of(strings, *regions)()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Region(-1.0, 2.0), "is empty"),
        (lambda: Region(float("nan"), 2.0), "is empty"),
        (lambda: Region(1.0, 2.0, 500.0, 0.0), "500-0Hz: is empty"),
        (lambda: Region(1.0, 2.0, strength=0.0), "a strength of 0; one is above 0"),
        (lambda: place(Region(1.0, 2.0, low=8000.0), SPEC, 6.0, 1.0), "8000 Hz is above the picture"),
        (lambda: Edit(strength=2.0), "a strength of 2; one is above 0"),
        (lambda: Edit(extend=-1.0), "give 0 or more seconds"),
    ],
)
def test_what_python_can_say_and_a_flag_cannot_is_refused_too(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_region_of_one_frequency_goes_to_the_end_of_the_picture() -> None:
    assert place(Region(1.0, 2.0, low=1000.0), SPEC, 6.0, 1.0) == place(
        Region(1.0, 2.0, 1000.0, 8000.0), SPEC, 6.0, 1.0
    )
    assert place(Region(1.0, 2.0, high=1000.0), SPEC, 6.0, 1.0) == place(Region(1.0, 2.0, 0.0, 1000.0), SPEC, 6.0, 1.0)


def test_regions_side_by_side_are_apart() -> None:
    patches = [place(parse_region(text), SPEC, 6.0, 1.0) for text in ("1-1.92s", "1.92-3s", "3.2-4s 20-300Hz")]
    require_apart(patches, SPEC)
