"""The Generator: opened once it draws what separate commands draw, and LoRAs come off as if they had never been on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sdxl_mel.diffusion.samplers import Drawing, Sampling
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.models.base import open_base
from sdxl_mel.models.fuse_verify import probe
from sdxl_mel.models.lora.adapters import attach
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.vae import decode_latents
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import fuse
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, Prompts, plan_jobs
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.results import Result, Step
from sdxl_mel.synthesis.settings import Length
from sdxl_mel.training.samples import generator_in_training, plan_samples
from tests.loras import random_modules

SPEC = PRESETS["mini"]
SAMPLING = Sampling(steps=3)


def opened(base: Path, *loras: Path | str, **options: object) -> Generator:
    return Generator.open(str(base), loras=loras, preset="mini", **options)


def jobs_of(generator: Generator, *prompts: str, seed: int = 0, num: int = 1) -> list[Job]:
    lines = [PromptLine(prompt=prompt) for prompt in prompts]
    return plan_jobs(Prompts(lines, num=num, seed=seed), generator.fitting(), SPEC.tile_seconds, long=False)


def draw(generator: Generator, *prompts: str, seed: int = 0) -> np.ndarray:

    return np.stack([result.levels for result in generator.draw(jobs_of(generator, *prompts, seed=seed), SAMPLING)])


@pytest.fixture(scope="module")
def generator(slim_sdxl: Path) -> Generator:
    return opened(slim_sdxl)


@pytest.fixture
def bare(generator: Generator) -> Iterator[Generator]:
    """Return the shared generator, without LoRAs again afterwards."""
    yield generator
    generator.detach()


@pytest.fixture(scope="module")
def loras(slim_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two LoRAs of the UNet and a text encoder."""
    base, folder = open_base(slim_sdxl), tmp_path_factory.mktemp("loras")
    for seed in (1, 2):
        modules = random_modules("unet", base.unet, seed=seed, convolutions=True)
        modules |= random_modules("text_encoder", base.text_encoder, seed=seed)
        write_lora(folder / f"{seed}.safetensors", Lora(modules, LoraHeader(spec=SPEC, anchor="mel spectrogram")))
    return [folder / "1.safetensors", folder / "2.safetensors"]


def test_one_generator_draws_what_separate_ones_draw(slim_sdxl: Path, generator: Generator) -> None:
    both = [draw(generator, "piano", seed=3), draw(generator, "drums", seed=4), draw(generator, "piano", seed=3)]
    np.testing.assert_array_equal(both[0], both[2])
    np.testing.assert_array_equal(both[0], draw(opened(slim_sdxl), "piano", seed=3))
    np.testing.assert_array_equal(both[1], draw(opened(slim_sdxl), "drums", seed=4))


def test_a_lora_comes_off_bit_for_bit_and_goes_on_again(slim_sdxl: Path, bare: Generator, loras: list[Path]) -> None:
    before = draw(bare, "piano")
    bare.attach(loras[0], 0.8)
    first = draw(bare, "piano")
    assert (first != before).mean() > 0.5
    bare.attach(loras[1])
    both = draw(bare, "piano")
    assert (both != first).any()
    bare.detach(loras[1])
    np.testing.assert_array_equal(draw(bare, "piano"), first)
    bare.detach()
    np.testing.assert_array_equal(draw(bare, "piano"), before)
    fresh = opened(slim_sdxl, f"{loras[0]}:0.8", loras[1])
    np.testing.assert_array_equal(draw(fresh, "piano"), both)


def test_the_base_alone_draws_from_the_same_texts(bare: Generator, loras: list[Path]) -> None:
    anchored = draw(bare, "mel spectrogram, piano")
    bare.attach(loras[0])
    on = draw(bare, "piano")
    with bare.without_loras():
        np.testing.assert_array_equal(draw(bare, "piano"), anchored)
    np.testing.assert_array_equal(draw(bare, "piano"), on)


def test_two_loras_are_what_fuse_makes_of_them(
    slim_sdxl: Path, bare: Generator, loras: list[Path], tmp_path: Path
) -> None:
    fuse.run(fuse.Config(base=str(slim_sdxl), lora=(f"{loras[0]}:0.5", str(loras[1])), out=tmp_path / "fused"))
    fused = open_base(tmp_path / "fused", ("unet", "text_encoder"))
    bare.attach(loras[0], 0.5)
    bare.attach(loras[1])
    for part in ("unet", "text_encoder"):
        ours, theirs = probe(part, getattr(bare.models.base, part)), probe(part, getattr(fused, part))
        assert float((ours - theirs).norm() / theirs.norm()) < 2e-6


def test_what_does_not_belong_on_the_base_changes_nothing(bare: Generator, loras: list[Path], tmp_path: Path) -> None:
    before = draw(bare, "piano")
    bare.attach(loras[0])
    modules = random_modules("unet", bare.models.base.unet)
    write_lora(tmp_path / "web.safetensors", Lora(modules, LoraHeader(spec=PRESETS["web"])))
    with pytest.raises(MismatchError, match=r"1\.safetensors and .*web\.safetensors"):
        bare.attach(tmp_path / "web.safetensors")
    write_lora(tmp_path / "skip.safetensors", Lora(modules, LoraHeader(spec=SPEC, clip_skip=1)))
    with pytest.raises(MismatchError, match=r"clip skip 0, .*skip\.safetensors with 1"):
        bare.attach(tmp_path / "skip.safetensors")
    absent = {("unet", path.replace("mid_block", "up_blocks.9")): each for (_, path), each in modules.items()}
    write_lora(tmp_path / "other.safetensors", Lora(absent, LoraHeader()), "diffusers")
    with pytest.raises((MismatchError, InputError), match=r"other\.safetensors"):
        bare.attach(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not attached; attached: .*1.safetensors"):
        bare.detach("nowhere.safetensors")
    bare.detach()
    np.testing.assert_array_equal(draw(bare, "piano"), before)


def test_weights_that_were_not_kept_do_not_come_back(slim_sdxl: Path, loras: list[Path]) -> None:
    fixed = opened(slim_sdxl, loras[0], keep_base=False)
    with pytest.raises(InputError, match="were not kept; open the base again"):
        fixed.detach()


@pytest.mark.parametrize("mode", ["joint", "independent"])
def test_every_step_is_numbered_and_hands_out_its_latents(generator: Generator, mode: str) -> None:
    steps: list[Step] = []
    layout = lay_out(Length(6.0, mode=mode), SPEC)
    long = list(generator.draw(jobs_of(generator, "piano"), SAMPLING, layout, on_step=steps.append, batch=2))
    assert [step.number for step in steps] == list(range(1, steps[0].total + 1))
    assert len(long) == 1
    steps.clear()
    tile = next(generator.draw(jobs_of(generator, "piano"), SAMPLING, on_step=steps.append))
    assert len(steps) == steps[0].total == SAMPLING.steps
    (last,) = decode_latents(generator.models.base.vae, steps[-1].latents, SPEC)
    np.testing.assert_array_equal(last, tile.levels)


def test_stopping_takes_no_further_step_and_keeps_what_is_finished(generator: Generator) -> None:
    steps: list[Step] = []
    jobs = jobs_of(generator, "piano", num=4)
    whole = list(generator.draw(jobs, SAMPLING, batch=1))
    stopped_at = SAMPLING.steps + 2
    stopped = generator.draw(
        jobs, SAMPLING, batch=1, on_step=steps.append, should_stop=lambda: len(steps) == stopped_at
    )
    kept = list(stopped)
    assert len(steps) == stopped_at
    assert [result.job.number for result in kept] == [1]
    np.testing.assert_array_equal(kept[0].levels, whole[0].levels)


def test_closing_the_iterator_draws_no_more(generator: Generator) -> None:
    steps: list[Step] = []
    results = generator.draw(jobs_of(generator, "piano", num=3), SAMPLING, batch=1, on_step=steps.append)
    assert not steps
    first: Result = next(results)
    results.close()
    assert (first.seed, first.prompt, first.spec) == (0, "piano", SPEC)
    assert len(steps) == SAMPLING.steps


def test_training_draws_what_generate_draws(slim_sdxl: Path, generator: Generator) -> None:
    base = open_base(slim_sdxl, ("unet",))
    attach({"unet": base.unet}, rank=2, targets=("attention",))
    base.unet.train()
    header = LoraHeader(spec=SPEC, anchor="mel spectrogram")
    training = generator_in_training(base, base.unet, header, vae=None, device="cpu")
    long = "piano, " * 40 + "the very last words"
    samples = plan_samples(training, ["Mel spectrogram, slow piano", long], seed=5)
    assert samples[0].texts[0].text == "mel spectrogram, slow piano"
    assert "the very last words" not in samples[1].texts[0].text
    drawn = [result.levels for result in training.draw(samples, SAMPLING, batch=2)]
    as_given = [
        Job(job.number, job.prompt, plain.texts, "", job.seed)
        for job, plain in zip(samples, jobs_of(generator, *(job.texts[0].text for job in samples)))
    ]
    tiles = [result.levels for result in generator.draw(as_given, SAMPLING, batch=2)]
    np.testing.assert_array_equal(drawn, tiles)
    training.read_texts(samples)
    training.release_text_encoders()
    assert training.models.base.text_encoder is None
    np.testing.assert_array_equal([result.levels for result in training.draw(samples, SAMPLING, batch=2)], drawn)


def test_texts_are_read_again_when_their_encoder_changes(bare: Generator, loras: list[Path]) -> None:
    job = jobs_of(bare, "piano")
    bare.read_texts(job)
    before = bare.texts["piano"][0].clone()
    bare.attach(loras[0])
    bare.read_texts(job)
    assert not torch.equal(bare.texts["piano"][0], before)


def test_a_step_adapter_stays_as_it_is_beside_other_loras(
    bare: Generator, loras: list[Path], slim_sdxl: Path, tmp_path: Path
) -> None:
    """What is scaled or taken off is the style: without the adapter, its few unguided steps would draw nothing."""
    steps = tmp_path / "steps.safetensors"
    modules = random_modules("unet", open_base(slim_sdxl, ("unet",)).unet, seed=5)
    write_lora(steps, Lora(modules, LoraHeader(drawing=Drawing("ddim", 4, 1.0, "trailing"))))
    bare.attach(loras[0])
    bare.attach(steps)
    bare.rescale(0.5)
    assert [lora.scale for lora in bare.loras] == [0.5, 1.0]
    with bare.without_loras():
        assert [lora.path for lora in bare.loras] == [steps]
    assert [lora.path for lora in bare.loras] == [loras[0], steps]
    bare.detach(loras[0])
    with bare.without_loras():
        assert bare.loras == ()
