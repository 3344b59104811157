"""The engine of an exported page, module by module in a browser, against the package's own numbers."""

import base64
import gzip
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, Route

from sdxl_mel import web
from sdxl_mel.arguments import parse_arguments
from sdxl_mel.arrays import Float, Levels
from sdxl_mel.assets import base_path
from sdxl_mel.captions.anchor import anchored
from sdxl_mel.captions.tokens import TokenCounter
from sdxl_mel.captions.weights import parse_weights
from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.long_form import JointPredictor, PromptTrack, place_views
from sdxl_mel.diffusion.sampling import draw_noise, make_scheduler, sample
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.spectrogram import decode_png
from sdxl_mel.files.tokenizer import read_tokenizer
from sdxl_mel.models.scheduler import make_base_scheduler
from sdxl_mel.record import Record, sha256_bytes
from sdxl_mel.seeding import derive_seed, numpy_generator, torch_generator
from sdxl_mel.sound.blend import close_loop, paste
from sdxl_mel.sound.encoding import cut_clip, encode_clip, mel_spectrogram, prepare_signal
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import FOREIGN, PRESETS, MelSpec
from sdxl_mel.sound.pixels import dequantise, mel_of_values
from sdxl_mel.stages import generate
from sdxl_mel.synthesis.drawing import turned
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.prompting import chunked
from sdxl_mel.synthesis.settings import Length
from tests.web.pages import ORIGIN, answer, opened

MINI = PRESETS["mini"]
NOISE_TOLERANCE = 2e-6
SOUND_DB = 0.2
HELPERS = """<!doctype html><link rel="icon" href="data:,"><script>
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const textOf = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  };
  const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);
</script>"""
SPACES = "\t\n\x0b\x0c\r\x85\xa0\u1680\u2003\u2028\u202f\u3000\ufeff\u200b\u180e"
HOSTILE = (
    *SPACES,
    *"aZéÅΣσςİıßǅﬁñ中文ピアДй한글ع𝔸",
    *"0129½²Ⅻ٣",
    *"!?.,;:'\"`~@#$%^&*()_-+=[]{}|\\/<>…—–“”🎻👩\u200d♂️🇫🇮\u0301\u0327\x00\x07\ufffd\U000e0001",
    *("'s", "'LL", "'t", "<|endoftext|>", "<|startoftext|>", "<|endof", "</w>", "rock'n'roll", "e\u0301", "  "),
)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        answer(page, {"index.html": HELPERS})
        page.goto(f"{ORIGIN}/index.html")
        yield page


def run(page: Page, module: str, body: str, argument: Any = None) -> Any:
    """Return what `body` returns, in which `m` is a module of the engine and `a` the argument."""
    return page.evaluate(f"async (a) => {{ const m = await import('/site/{module}.js'); {body} }}", argument)


def packed(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def floats(text: str) -> Float:
    return np.frombuffer(base64.b64decode(text), np.float32)


def planes(levels: Levels) -> dict[str, Any]:
    """Return a picture as the engine has it."""
    height, width, channels = levels.shape
    return {
        "levels": packed(levels.transpose(2, 0, 1)),
        "height": height,
        "width": width,
        "channels": channels,
    }


PICTURE = "const pictureOf = (p) => ({ ...p, levels: bytesOf(p.levels) });"


def levels_of(picture: dict[str, Any]) -> Levels:
    shape = (picture["channels"], picture["height"], picture["width"])
    return np.frombuffer(base64.b64decode(picture["levels"]), np.uint8).reshape(shape).transpose(1, 2, 0)


def spec_json(spec: MelSpec) -> Any:
    return json.loads(spec.to_json())


# --- randomness ---


def test_seeds_and_digests_are_pythons(page: Page) -> None:
    seeds = [(0, "noise"), (-5, "view", 3), (2**53, "é\x1f", ""), (1, "x" * 200), (7, "int:1")]
    found = run(page, "seeding", "return a.map((each) => String(m.deriveSeed(...each)));", seeds)
    assert found == [str(derive_seed(*each)) for each in seeds]


@pytest.mark.parametrize(("seed", "count"), [(0, 2048), (12345, 37), (2**40 + 3, 4096)])
def test_noise_is_torchs(page: Page, seed: int, count: int) -> None:
    noise = floats(run(page, "seeding", "return textOf(m.drawNoise(...a));", [seed, count]))
    assert np.abs(noise - draw_noise([seed], (count,), "cpu")[0].numpy()).max() <= NOISE_TOLERANCE


# --- text ---


def hostile_strings(count: int) -> list[str]:
    generator = numpy_generator(0, "hostile")
    return ["".join(generator.choice(HOSTILE, generator.integers(1, 24))) for _ in range(count)]


def captions() -> list[str]:
    instruments = ("piano", "church organ", "acoustic guitar", "violin", "drum groove", "strings")
    return [f"mel spectrogram, instrumental, {one} and {two}, slow" for one in instruments for two in instruments]


@pytest.mark.parametrize("folder", ["tokenizer", "tokenizer_2"])
def test_tokens_are_the_tokenizers(page: Page, folder: str) -> None:
    place = base_path("mini")
    tokenizer = read_tokenizer(place, folder)
    texts = [*captions(), *hostile_strings(1000), "", "word " * 100]
    found = run(
        page,
        "tokenizer",
        "const t = new m.Tokenizer(a.file, a.padding); return a.texts.map((each) => t.encode(each));",
        {
            "file": json.loads((place / folder / "tokenizer.json").read_text("utf-8")),
            "padding": tokenizer.pad_token,
            "texts": texts,
        },
    )
    expected = tokenizer(texts, padding="max_length", truncation=True, max_length=77).input_ids
    wrong = [(text, one, two) for text, one, two in zip(texts, found, expected) if one != two]
    assert not wrong, (len(wrong), wrong[0])


PROMPTS = (
    "slow piano",
    "Mel Spectrogram: a mel spectrogram, of mel",
    "piano, mel spectrogram, slow,, , sad",
    "(banjo:1.3) and (soft (loud:2) piano:0.5), a \\(bracket\\)",
    "a (bracket) that weighs nothing",
    ", ".join(f"instrument number {number}" for number in range(40)),
    "one phrase of words " * 30,
    "soft, (" + "many words that weigh, " * 30 + ":1.2), slow",
    "",
)


def test_prompts_are_anchored_weighed_and_chunked_as_the_package_does(page: Page) -> None:
    tokenizer = read_tokenizer(base_path("mini"), "tokenizer_2")
    counter = TokenCounter("mini", lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids))
    found = run(
        page,
        "prompt",
        "const { Tokenizer } = await import('/site/tokenizer.js'); const t = new Tokenizer(a.file, '!');"
        "const count = (text) => t.tokens(text).length;"
        "const texts = a.prompts.map((each) => m.anchored(each, a.anchor));"
        "return texts.map((text) => [text, m.chunked(m.parseWeights(text), count)]);",
        {
            "file": json.loads((base_path("mini") / "tokenizer_2" / "tokenizer.json").read_text("utf-8")),
            "anchor": "mel spectrogram",
            "prompts": PROMPTS,
        },
    )
    for prompt, (text, chunks) in zip(PROMPTS, found):
        assert text == anchored(prompt, "mel spectrogram", counter, limit=sys.maxsize).text
        assert [[(span["text"], span["weight"]) for span in spans] for spans in chunks] == [
            [(words, pytest.approx(weight)) for words, weight in spans]
            for spans in chunked(parse_weights(text), counter.count)
        ]


@pytest.mark.parametrize("prompt", ["piano) (soft:2)", "(piano:2", "((piano:1.1) soft"])
def test_brackets_that_do_not_match_are_refused(page: Page, prompt: str) -> None:
    said = run(page, "prompt", "try { m.parseWeights(a); } catch (error) { return error.message; }", prompt)
    assert "bracket" in said


# --- samplers ---


def scheduler_json(scheduler: Any) -> dict[str, Any]:
    """Return a base's noise schedule as a manifest has it."""
    ddim = make_scheduler("ddim", scheduler)
    return {
        "prediction": scheduler.config.prediction_type,
        "alphas_cumprod": scheduler.alphas_cumprod.tolist(),
        "final_alpha_cumprod": float(ddim.final_alpha_cumprod),
        "spacing": scheduler.config.timestep_spacing,
        "steps_offset": scheduler.config.steps_offset,
    }


SAMPLE = """
  const seen = [];
  const schedule = new m.NoiseSchedule(a.scheduler);
  const predict = async (x, t) => { seen.push(t); return x.map((each, i) => 0.5 * each + 0.001 * t * Math.sin(i)); };
  return [textOf(await m.sample(schedule, a, floatsOf(a.noise), predict)), seen];"""


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("sampler", "timesteps"),
    [
        ("euler", None),
        ("euler", "trailing"),
        ("euler", "linspace"),
        ("euler", (999, 749, 499, 20)),
        ("dpmpp_2m", None),
        ("ddim", None),
        ("ddim", "trailing"),
        ("ddim", "linspace"),
    ],
)
def test_samplers_are_diffusers(page: Page, sampler: str, timesteps: Any, prediction: str) -> None:
    config = json.loads((base_path("mini") / "scheduler" / "scheduler_config.json").read_text())
    base = make_base_scheduler({**config, "prediction_type": prediction, "set_alpha_to_one": False}, "mini")
    noise = draw_noise([3], (1, 4, 8), "cpu")
    for steps in (4,) if isinstance(timesteps, tuple) else (1, 2, 3, 10, 25, 48):
        walked: list[float] = []

        def predict(x: torch.Tensor, t: torch.Tensor, _: int, walked: list[float] = walked) -> torch.Tensor:
            walked.append(float(t))
            return 0.5 * x + 0.001 * t * torch.arange(x.numel()).sin().reshape(x.shape)

        scheduler = make_scheduler(sampler, base, timesteps)
        expected = sample(scheduler, steps, noise, predict, seeds=[3], timesteps=timesteps).numpy()
        asked = {
            "sampler": sampler,
            "steps": steps,
            "timesteps": timesteps and (timesteps if isinstance(timesteps, str) else list(timesteps)),
        }
        latents, seen = run(
            page, "samplers", SAMPLE, {**asked, "scheduler": scheduler_json(base), "noise": packed(noise)}
        )
        assert seen == pytest.approx(walked, abs=1e-4)
        np.testing.assert_allclose(floats(latents), expected.ravel(), rtol=2e-5, atol=2e-5 * np.abs(expected).max())


KNOWN = """
  const schedule = new m.NoiseSchedule(a.scheduler);
  const [clean, seen] = [floatsOf(a.clean), []];
  const predict = async (x, t) => {
    const signal = 1 / Math.sqrt(schedule.sigmaAt(t) ** 2 + 1), noise = Math.sqrt(1 - signal ** 2);
    const epsilon = x.map((each, i) => (each - signal * clean[i]) / noise);
    return a.scheduler.prediction === "epsilon" ? epsilon : epsilon.map((e, i) => signal * e - noise * clean[i]);
  };
  await m.sample(schedule, a, floatsOf(a.noise), predict, (step, found) => seen.push(textOf(found)));
  return seen;"""


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_every_step_tells_what_is_expected_at_the_end(page: Page, sampler: str, prediction: str) -> None:
    config = json.loads((base_path("mini") / "scheduler" / "scheduler_config.json").read_text())
    scheduler = scheduler_json(make_base_scheduler({**config, "prediction_type": prediction}, "mini"))
    clean, noise = (draw_noise([seed], (4, 2, 8), "cpu")[0].numpy() for seed in (1, 2))
    asked = {"sampler": sampler, "steps": 4, "scheduler": scheduler, "clean": packed(clean), "noise": packed(noise)}
    seen = run(page, "samplers", KNOWN, asked)
    assert len(seen) == 4
    for found in seen:
        np.testing.assert_allclose(floats(found), clean.ravel(), atol=1e-4)


def test_samplers_refuse_what_they_cannot(page: Page) -> None:
    body = (
        "try { await m.sample(new m.NoiseSchedule(a.scheduler), a, new Float32Array(8)); }"
        "catch (error) { return error.message; }"
    )
    config = json.loads((base_path("mini") / "scheduler" / "scheduler_config.json").read_text())
    scheduler = scheduler_json(make_base_scheduler(config, "mini"))
    for asked, words in (({"sampler": "heun"}, "heun"), ({"sampler": "dpmpp_2m", "timesteps": [9, 1]}, "timesteps")):
        assert words in run(page, "samplers", body, {**asked, "steps": 2, "scheduler": scheduler})


# --- long pieces and loops ---


LENGTHS = [(None, False), (0.6, False), (12.0, False), (30.0, True), (7.3, True), (61.5, False)]


@pytest.mark.parametrize(("seconds", "loop"), LENGTHS)
def test_layouts_are_the_packages(page: Page, seconds: float | None, loop: bool) -> None:
    expected = lay_out(Length(seconds, loop), MINI)
    found = run(page, "layout", "return m.layOut(...a);", [seconds, loop, spec_json(MINI)])
    names = ("frames", "columns", "width", "loop")
    assert {name: found[name] for name in names} == {name: getattr(expected, name) for name in names}
    assert found["starts"] == list(expected.starts)


def test_a_length_of_nothing_is_refused(page: Page) -> None:
    body = "try { m.layOut(...a); } catch (error) { return error.message; }"
    assert "at least 0.51" in run(page, "layout", body, [0.1, False, spec_json(MINI)])


class Half:
    """Predicts half of what a view has, and a ramp over its columns."""

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: TextEmbeddings) -> torch.Tensor:
        return latents * 0.5 + torch.arange(latents.shape[-1]) * 0.01


@pytest.mark.parametrize(("length", "loop"), [(100, False), (96, True), (44, False), (36, True)])
def test_joint_views_are_the_packages(page: Page, length: int, loop: bool) -> None:
    width, seed = 32, 5
    starts = place_views(length, width, 16, loop)
    latents = draw_noise([1], (4, 2, length), "cpu")
    track = PromptTrack(TextEmbeddings(torch.zeros(1, 1, 1), torch.zeros(1, 1)), torch.ones(length, 1))
    denoiser: Any = Half()
    joint = JointPredictor(denoiser, track, width, starts, seed=seed)
    found = run(
        page,
        "views",
        "const predict = async (x) => x.map((each, i) => 0.5 * each + 0.01 * (i % a.layout.width));"
        "const joint = m.jointPredictor(predict, a.layout, a.seed); const result = [];"
        "for (let step = 0; step < 4; step++) result.push(textOf(await joint(floatsOf(a.latents), 1, step)));"
        "return result;",
        {"layout": {"starts": starts, "width": width, "columns": length}, "seed": seed, "latents": packed(latents)},
    )
    for step, prediction in enumerate(found):
        expected = joint(latents, torch.tensor(1.0), step).numpy().ravel()
        np.testing.assert_allclose(floats(prediction), expected, atol=1e-6)


def picture(width: int, channels: int, name: str = "picture", n_mels: int = 16) -> Levels:
    return numpy_generator(0, name).integers(0, 256, (n_mels, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("spec", [MINI, FOREIGN["minimidi"], FOREIGN["riffusion"], FOREIGN["auffusion"]])
def test_windows_are_joined_and_loops_closed_as_the_package_does(page: Page, spec: MelSpec) -> None:
    canvas, tile = picture(60, 3), picture(40, 3, "tile")
    body = PICTURE + (
        "const [canvas, tile] = [pictureOf(a.canvas), pictureOf(a.tile)]; m.paste(canvas, tile, 20, 12, a.spec);"
        "const turned = m.turnedLoop(m.closedLoop(canvas, 8, a.spec), 8);"
        "return [canvas, turned].map((each) => ({ ...each, levels: textOf(each.levels) }));"
    )
    pasted, loop = run(page, "levels", body, {"canvas": planes(canvas), "tile": planes(tile), "spec": spec_json(spec)})
    paste(canvas, tile, 20, 12, spec)
    difference = np.abs(levels_of(pasted).astype(int) - canvas)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 0.001 * canvas.size
    expected = turned(close_loop(levels_of(pasted), 8, spec))
    assert np.abs(levels_of(loop).astype(int) - expected).max() <= 1


# --- sound ---


def music(spec: MelSpec, frames: int, channels: int) -> Levels:
    """Return the picture of plucked notes with overtones over a little noise."""
    generator, rate = numpy_generator(0, "music", channels), spec.sample_rate
    time = np.arange((frames + 8) * spec.hop_length) / rate
    sound = generator.normal(0, 0.002, (channels, time.size))
    for start in np.arange(0, time[-1], 0.3):
        after = np.maximum(time - start, 0)
        pitch = 110 * 2 ** (generator.integers(0, 30) / 12)
        for overtone in range(1, 8):
            wave = np.exp(-4 * after) * (time > start) * np.sin(2 * np.pi * overtone * pitch * after) / overtone
            sound += generator.uniform(0.3, 1, (channels, 1)) * wave
    signal = prepare_signal((0.5 * sound / np.abs(sound).max()).astype(np.float32), rate, spec)
    return encode_clip(cut_clip(signal, 4 * spec.hop_length, frames, spec), spec)


def inconsistency(sound: Float, levels: Levels, spec: MelSpec) -> float:
    """Return how far the mel values of a sound are from those of its picture, in dB."""
    wanted = mel_of_values(dequantise(levels), spec)
    beside = margin(spec)
    found = mel_spectrogram(np.pad(sound, ((0, 0), (beside, beside))), spec)
    inside = slice(4, -4)  # The ends lack their surroundings.
    off = np.linalg.norm(wanted[:, inside] - found[:, inside]) / np.linalg.norm(wanted[:, inside])
    return float(20 * np.log10(off))


INVERT = (
    PICTURE
    + """
  const blocks = [];
  for await (const block of m.invertBlocks(pictureOf(a.picture), a.spec, a.options)) blocks.push(block);
  return blocks[0].map((_, channel) => blocks.map((block) => textOf(block[channel])));"""
)


def inverted(page: Page, levels: Levels, spec: MelSpec, **options: Any) -> Float:
    channels = run(page, "inversion", INVERT, {"picture": planes(levels), "spec": spec_json(spec), "options": options})
    return np.stack([np.concatenate([floats(block) for block in blocks]) for blocks in channels])


@pytest.mark.parametrize(
    ("spec", "channels", "loop"),
    [(MINI, 1, False), (MINI, 1, True), (PRESETS["web"], 2, False), (FOREIGN["auffusion"], 1, False)],
    ids=["mono", "loop", "stereo", "other bank"],
)
def test_sounds_are_as_consistent_as_the_packages(page: Page, spec: MelSpec, channels: int, loop: bool) -> None:
    levels = music(spec, 96, channels)
    expected = invert(levels, spec, "fast", loop=loop, device="cpu")
    found = inverted(page, levels, spec, loop=loop)
    assert found.shape == expected.shape
    difference = inconsistency(found, levels, spec) - inconsistency(expected, levels, spec)
    assert abs(difference) <= SOUND_DB


def test_best_is_better_than_fast(page: Page) -> None:
    levels = music(MINI, 64, 1)
    fast, best = (inconsistency(inverted(page, levels, MINI, method=each), levels, MINI) for each in ("fast", "best"))
    assert best < fast - 1
    assert inconsistency(invert(levels, MINI, "best", device="cpu"), levels, MINI) == pytest.approx(best, abs=0.5)


HALVES = (
    PICTURE
    + """
  const { framesOf } = await import("/site/levels.js");
  const { Neighbour } = await import("/site/neighbour.js");
  const [picture, middle, { port1, port2 }] = [pictureOf(a.picture), a.middle, new MessageChannel()];
  const invert = async (half, port, before) => {
    const options = { neighbour: new Neighbour(port, before) };
    for await (const block of m.invertBlocks(half, a.spec, options)) return block.map(textOf);
  };
  const [first, second] = [framesOf(picture, 0, middle), framesOf(picture, middle, picture.width - middle)];
  return Promise.all([invert(first, port1, false), invert(second, port2, true)]);"""
)


@pytest.mark.parametrize(("spec", "channels"), [(MINI, 1), (PRESETS["web"], 2)])
def test_two_halves_make_the_sound_of_the_whole(page: Page, spec: MelSpec, channels: int) -> None:
    """But for the order of their sums: phase retrieval lets roundings grow."""
    levels = music(spec, 70, channels)
    whole = inverted(page, levels, spec)
    halves = run(page, "inversion", HALVES, {"picture": planes(levels), "spec": spec_json(spec), "middle": 33})
    joined = np.stack([np.concatenate([floats(half[channel]) for half in halves]) for channel in range(channels)])
    assert np.linalg.norm(joined - whole) <= 0.01 * np.linalg.norm(whole)


@pytest.mark.parametrize("loop", [False, True])
def test_blocks_make_one_sound(page: Page, loop: bool) -> None:
    """A picture inverted in blocks is as consistent as in one piece, and no block ends with a click."""
    levels = music(MINI, 200, 1)
    whole, blocks = (inverted(page, levels, MINI, loop=loop, blockFrames=each) for each in (1024, 96))
    assert blocks.shape == whole.shape
    assert inconsistency(blocks, levels, MINI) <= inconsistency(whole, levels, MINI) + 1.5
    steps = np.abs(np.diff(np.concatenate([blocks[0], blocks[0][:1]])))
    assert steps.max() <= 1.5 * np.abs(np.diff(np.concatenate([whole[0], whole[0][:1]]))).max()


def test_equal_channels_are_one_and_a_short_loop_is_refused(page: Page) -> None:
    levels = np.repeat(music(PRESETS["web"], 24, 1), 3, axis=2)
    assert inverted(page, levels, PRESETS["web"]).shape[0] == 1
    body = INVERT.replace("const blocks", "try { const blocks") + "} catch (error) { return error.message; }"
    asked = {"picture": planes(music(MINI, 3, 1)), "spec": spec_json(MINI), "options": {"loop": True}}
    assert "too short" in run(page, "inversion", body, asked)


# --- files ---


def test_a_png_is_read_by_the_package(page: Page) -> None:
    record = Record(stage="generate", settings={"prompt": "naïve “piano”", "seed": 3}, toolkit="sdxl-mel 0")
    for spec, channels in ((MINI, 1), (PRESETS["web"], 3), (FOREIGN["auffusion"], 1)):
        levels = picture(40, channels, n_mels=spec.n_mels)
        text = {"melspec": spec.to_json(), "record": record.model_dump_json()}
        body = PICTURE + "return textOf(await m.pngBytes(pictureOf(a.picture), a.spec, a.text));"
        content = run(page, "png", body, {"picture": planes(levels), "spec": spec_json(spec), "text": text})
        read = decode_png(base64.b64decode(content), "the page's picture")
        assert (read.spec, read.record) == (spec, record)
        assert np.array_equal(read.levels, levels)


@pytest.mark.parametrize("loop", [False, True])
def test_a_wav_is_the_packages_byte_for_byte(page: Page, tmp_path: Path, loop: bool) -> None:
    sound = numpy_generator(0, "wav").uniform(-1.1, 1.1, (2, 999)).astype(np.float32)
    write_audio(tmp_path / "a.wav", sound, 16000, spec=MINI, loop=loop)
    comment = json.dumps({"melspec": json.loads(MINI.to_json())})
    body = "return textOf(m.wavBytes(a.sounds.map(floatsOf), 16000, a));"
    content = run(page, "wav", body, {"sounds": [packed(each) for each in sound], "loop": loop, "comment": comment})
    assert base64.b64decode(content) == (tmp_path / "a.wav").read_bytes()


def test_the_command_line_is_one_of_ours(page: Page) -> None:
    manifest: dict[str, Any] = {"command": {"base": "mini", "loras": ["my style.safetensors:0.8#style"]}, "lora": {}}
    manifest["files"] = {"steps": {"lora": "steps.safetensors"}}
    settings = {"prompt": "a 'soft' piano; $HOME", "seed": 3, "steps": 8, "guidance": 2.5, "sampler": "euler"}
    settings |= {"seconds": 9.5, "loop": True, "loraScale": 0.5, "method": "fast", "quick": True}
    text = run(page, "command", "return m.commandOf(...a);", [settings, manifest, [999, 499]])
    program, command, *words = shlex.split(text)
    assert (program, command) == ("sdxl-mel", "generate")
    config = parse_arguments(generate.Config, words, program)
    assert (config.prompt, config.seed, config.steps, config.guidance) == (settings["prompt"], 3, 8, 2.5)
    assert config.lora == ("my style.safetensors:0.4#style", "steps.safetensors")
    assert (config.seconds, config.loop, config.timesteps, config.method) == (9.5, True, "999,499", "fast")


@pytest.mark.parametrize(
    ("parts", "packed", "headers", "words"),
    [
        ([b"abc", b"def"], None, {}, ""),
        ([b"abc", b"deX"], None, {}, "damaged"),
        ([b"abc"], None, {}, "missing (404)"),
        ([b"abc", b"de"], None, {}, "damaged"),
        ([b"abc", b"defg"], None, {}, "damaged"),
        ([gzip.compress(b"abc"), gzip.compress(b"def")], 46, {}, ""),
        ([b"abc", b"def"], 46, {"Unpacked": "gzip"}, ""),
        ([gzip.compress(b"abc"), gzip.compress(b"deX")], 46, {}, "damaged"),
        ([gzip.compress(b"abc"), gzip.compress(b"def")[:-9]], 46, {}, "damaged"),
        ([b"abc", b"def"], 46, {}, "damaged"),
    ],
)
def test_files_are_put_together_and_checked(
    browser: Browser, parts: list[bytes], packed: int | None, headers: dict[str, str], words: str
) -> None:
    whole = b"abcdef"
    file: dict[str, Any] = {"path": "models/a", "parts": ["models/a.0", "models/a.1"], "bytes": 6, "packed": packed}
    file["sha256"] = sha256_bytes(whole)

    def respond(route: Route) -> None:
        number = int(route.request.url[-1])
        route.fulfill(body=parts[number], headers=headers) if number < len(parts) else route.fulfill(status=404)

    body = (
        "const files = new m.SiteFiles('/manifest.json'); let come = 0;"
        "try { const bytes = await files.load(a, { onBytes: (count) => (come += count) });"
        "return [new TextDecoder().decode(bytes), come]; } catch (error) { return [error.message, error.paths[0]]; }"
    )
    page = browser.new_page()
    answer(page, {"index.html": HELPERS})
    page.route("**/models/*", respond)
    page.goto(f"{ORIGIN}/index.html")
    said, other = run(page, "loading", body, file)
    page.close()
    assert (words in said and other in file["parts"]) if words else (said, other) == ("abcdef", 6)


def test_the_engine_and_its_worker_can_be_bundled(page: Page) -> None:
    for name in ("site/engine.js", "site/worker.js"):
        text = web.bundle(name).replace("import.meta.url", "''")
        assert page.evaluate("(text) => { new Function(text.replace(/^export /gm, '')); return true; }", text)


def test_transforms_are_numpys(page: Page) -> None:
    for size in (32, 64, 1024, 2048, 4096, 8192):
        signal = numpy_generator(0, "fft", size).normal(size=size).astype(np.float32)
        body = (
            "const fft = new m.RealFft(a.size, 2), signal = floatsOf(a.signal);"
            "signal.forEach((each, i) => ((i % 2 ? fft.odd : fft.even)[i >> 1] = each));"
            "fft.forward(1); const forward = fft.bins[1].slice(); const [even, odd] = fft.inverse(1);"
            "return [textOf(forward), textOf(signal.map((_, i) => (i % 2 ? odd : even)[i >> 1]))];"
        )
        forward, back = map(floats, run(page, "fft", body, {"size": size, "signal": packed(signal)}))
        np.testing.assert_allclose(forward.view(np.complex64), np.fft.rfft(signal), atol=1e-4)
        np.testing.assert_allclose(back, signal, atol=1e-6)


WITHIN, BEYOND = 1 + 1e-4, 1 + 1e-2


@pytest.mark.parametrize(
    ("slower", "faster", "factor", "words"),
    [
        ("usual", "other", WITHIN, r"WebGPU, \d+\.\d times as fast here as WebAssembly"),
        ("other", "usual", WITHIN, r"WebAssembly, \d+\.\d times as fast here as WebGPU"),
        ("usual", "other", BEYOND, "WebAssembly: WebGPU finds other numbers here"),
        ("usual", "other", None, "WebAssembly: WebGPU finds other numbers here"),
    ],
)
def test_webgpu_is_taken_where_it_is_right_and_faster(
    page: Page, slower: str, faster: str, factor: float | None, words: str
) -> None:
    body = (
        "const numbers = Float32Array.of(3, -1, 0), wait = (ms) => new Promise((done) => setTimeout(done, ms));"
        "const other = numbers.map((each, i) => (i ? each : each * (a.factor ?? NaN)));"
        "const waits = { [a.slower]: 40, [a.faster]: 4 };"
        "const model = (name, found) => async () => (await wait(waits[name]), found);"
        "return m.compared([model('usual', numbers)], [model('other', other)]);"
    )
    found = run(page, "devices", body, {"slower": slower, "faster": faster, "factor": factor})
    assert re.fullmatch(words, found["words"])
    assert found["taken"] == found["words"].startswith("WebGPU")


def test_torch_draws_are_torchs(page: Page) -> None:
    body = "const g = new m.TorchGenerator(...a); return [textOf(g.uniform(5)), g.integer(-3, 4), g.integer(0, 77)];"
    drawn, low, high = run(page, "seeding", body, [4, "swap", 2])
    generator = torch_generator(4, "swap", 2)
    assert floats(drawn).tolist() == torch.rand(5, generator=generator).tolist()
    assert [low, high] == [int(torch.randint(*each, (), generator=generator)) for each in ((-3, 4), (0, 77))]
