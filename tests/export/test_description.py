"""What a manifest says of a base and its LoRAs, and which of them a page cannot draw with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.errors import InputError
from sdxl_mel.export.description import Chosen, asked_drawing, describe
from sdxl_mel.export.manifest import Drawn
from sdxl_mel.export.opening import require_step_adapter
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.sound.melspec import named_spec
from sdxl_mel.synthesis.generator import Generator
from tests.loras import random_modules

MakeLora = Callable[[str, Drawing], Path]


@pytest.fixture(scope="module")
def base(slim_sdxl: Path) -> Base:
    return open_base(str(slim_sdxl))


@pytest.fixture
def made(base: Base, tmp_path: Path) -> MakeLora:
    def make(name: str, drawing: Drawing) -> Path:
        path = tmp_path / f"{name}.safetensors"
        header = LoraHeader(named_spec("mini"), "mel spectrogram", architecture=Architecture(SDXL, 1), drawing=drawing)
        write_lora(path, Lora(random_modules("unet", base.unet), header))
        return path

    return make


def opened(base: Base, *loras: Path) -> Generator:
    return Generator.open("slim", loras=[str(lora) for lora in loras], device="cpu", opened=base)


def test_a_page_draws_in_ten_steps_where_nobody_asks(base: Base, made: MakeLora) -> None:
    plain = opened(base, made("plain", Drawing()))
    assert asked_drawing(plain, Drawing()) == Drawn(sampler="dpmpp_2m", steps=10, guidance=5.0)
    assert asked_drawing(plain, Drawing("euler", 7)) == Drawn(sampler="euler", steps=7, guidance=5.0)
    found_good = opened(base, made("guided", Drawing(guidance=3.0)))
    assert asked_drawing(found_good, Drawing()) == Drawn(sampler="dpmpp_2m", steps=10, guidance=3.0)


def test_a_step_adapter_is_followed(base: Base, made: MakeLora) -> None:
    asked = Drawing("ddim", 4, 1.0, (999, 749, 499, 249))
    generator = opened(base, made("plain", Drawing()), made("steps", asked))
    wanted = Drawn(sampler="ddim", steps=4, guidance=1.0, timesteps=(999, 749, 499, 249))
    assert asked_drawing(generator, Drawing()) == wanted


def test_a_sampler_that_pages_have_not_is_refused_and_can_be_stated_against(base: Base, made: MakeLora) -> None:
    generator = opened(base, made("lcm", Drawing("lcm", 4, 1.0)))
    with pytest.raises(InputError, match=r"sampler lcm.*euler, dpmpp_2m, ddim.*--sampler"):
        asked_drawing(generator, Drawing())
    assert asked_drawing(generator, Drawing("ddim")).sampler == "ddim"


def test_a_lora_that_asks_for_nothing_is_no_step_adapter(made: MakeLora) -> None:
    with pytest.raises(InputError, match="no step adapter"):
        require_step_adapter(str(made("plain", Drawing(guidance=2.0))))
    require_step_adapter(f"{made('steps', Drawing('ddim', 4, 1.0, 'trailing'))}:0.9")


def test_a_description_names_files_and_no_places(base: Base, made: MakeLora) -> None:
    plain = made("plain", Drawing())
    chosen = Chosen(base.name, (f"{plain}:0.5#style",))
    found = describe(chosen, opened(base, plain))
    assert found.title == "plain"
    assert found.command.loras == ("plain.safetensors:0.5#style",)
    assert found.command.base == Path(base.name).name
    assert describe(replace(chosen, title="Mine"), opened(base, plain)).title == "Mine"
    assert (found.text.hidden, found.text.pooled, found.text.padding) == (80, 48, ("<|endoftext|>", "!"))
    assert found.scheduler.alphas_cumprod == tuple(base.scheduler.alphas_cumprod.tolist())


def test_zero_terminal_snr_is_refused(base: Base, made: MakeLora) -> None:
    generator = opened(base, made("plain", Drawing()))
    scheduler = type(base.scheduler).from_config(base.scheduler.config, rescale_betas_zero_snr=True)
    generator.models = replace(generator.models, base=replace(base, scheduler=scheduler))
    with pytest.raises(InputError, match="zero terminal SNR"):
        describe(Chosen(base.name), generator)
