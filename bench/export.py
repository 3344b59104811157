"""export: what exported models weigh, how far they are from the base, and what students of SDXL of true size need."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from playwright.sync_api import Playwright, sync_playwright
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.browser import chromium, opened, status
from bench.table import Table
from sdxl_mel import web
from sdxl_mel.export.description import Chosen
from sdxl_mel.export.manifest import Drawn
from sdxl_mel.export.options import PART_BYTES, Weights
from sdxl_mel.export.runner import Exported
from sdxl_mel.export.site import export_folder
from sdxl_mel.export.vectors import TEXTS
from sdxl_mel.files.tokenizer import public_tokenizer
from sdxl_mel.models.base import open_base
from tests.web.static import hosted

WEIGHTS: tuple[Weights, ...] = ("int8", "fp16")
DRAWING = Drawn(sampler="dpmpp_2m", steps=10, guidance=2.5)
TEXT_WIDTH = 384
"""Of both text encoders: a quarter of CLIP-L and less, as a distilled one has."""


@dataclass(frozen=True)
class Student:
    """A UNet of SDXL's kind, by its widths and the transformer layers of each level."""

    name: str
    widths: tuple[int, int, int]
    depths: tuple[int, int, int]


STUDENTS = (Student("91 M", (160, 320, 576), (1, 1, 1)), Student("158 M", (256, 384, 768), (1, 1, 1)))


def run() -> Table:
    """Measure all rows."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        rows = [
            *(_row(playwright, "mini", Chosen("mini", weights=weights), Path(folder)) for weights in WEIGHTS),
            *(_student(playwright, student, Path(folder)) for student in STUDENTS),
        ]
    return Table(
        title="export: models for the browser",
        header=[
            *("base", "weights", "text, UNet, decoder(s) (MB)", "parts", "export (s)", "picture error"),
            *("tile, onnxruntime (s)", "tile, tab (s)", "tab (MB)"),
        ],
        rows=rows,
        notes=[
            "MB: what is loaded, packed. Picture error: root mean square of 0..1 against float32 weights, three guided "
            "steps.",
            "Tile: ten guided steps of DPM++ 2M and the decoder; in onnxruntime on the CPU, and in Chromium's tab with "
            "two workers, with its sound; tab: the resident set of the process that shows it, at its peak.",
            f"Students: random weights at preset web (512 x 256, stereo), text encoders {TEXT_WIDTH} wide, a decoder "
            f"of a quarter of SDXL's widths. Parts hold at most {PART_BYTES / 1e6:g} MB.",
        ],
    )


def _student(playwright: Playwright, student: Student, folder: Path) -> list[str]:
    base = write_student(folder / student.name, student)
    return _row(playwright, student.name, Chosen(str(base), preset="web"), folder)


def _row(playwright: Playwright, name: str, chosen: Chosen, folder: Path) -> list[str]:
    out = folder / f"{name} {chosen.weights} site"
    start = time.perf_counter()
    written = export_folder(chosen, out, PART_BYTES, page=True)
    seconds, files = time.perf_counter() - start, written.manifest.files
    models = [files.text, files.unet, files.decoder, *([files.small_decoder] if files.small_decoder else [])]
    tab_seconds, tab_megabytes = _in_tab(playwright, out)
    return [
        name,
        chosen.weights,
        " + ".join(f"{sum(file.loaded for file in model.all_files()) / 1e6:.1f}" for model in models),
        str(sum(len(file.parts) for model in models for file in model.all_files())),
        f"{seconds:.0f}",
        f"{written.picture_error:.1e}",
        f"{_in_runner(out):.1f}",
        f"{tab_seconds:.1f}",
        f"{tab_megabytes:.0f}",
    ]


def _in_runner(site: Path) -> float:
    """Return the seconds of a tile in the reference runner."""
    exported = Exported.open(site)
    start = time.perf_counter()
    exported.values(TEXTS[1], 0, DRAWING)
    return time.perf_counter() - start


def _in_tab(playwright: Playwright, site: Path) -> tuple[float, float]:
    """Return the seconds of a tile with its sound in a tab, after a first one, and the tab's memory in MB."""
    with hosted(site=site, web=web.FOLDER) as host, chromium(playwright) as browser:
        page, process = opened(browser, host)
        seconds = sum(page.evaluate("(drawing) => tile(drawing)", DRAWING.model_dump(exclude={"timesteps"})))
        return seconds, status(process, "VmHWM")


def write_student(folder: Path, student: Student) -> Path:
    """Write a base of random weights with a student's UNet at its true size."""
    state = torch.random.get_rng_state()
    torch.random.manual_seed(0)
    pipeline = StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 64, 128, 128),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            scaling_factor=0.13025,
        ),
        text_encoder=CLIPTextModel(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()),
        tokenizer=public_tokenizer(),
        tokenizer_2=public_tokenizer("!"),
        unet=student_unet(student),
        scheduler=EulerDiscreteScheduler.from_config(open_base("mini", ()).scheduler.config),
    )
    torch.random.set_rng_state(state)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def student_unet(student: Student) -> UNet2DConditionModel:
    """Return a student's UNet."""
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=student.widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=student.depths,
        attention_head_dim=tuple(max(1, width // 64) for width in student.widths),
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=64,
        projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 64,
        norm_num_groups=32,
    )


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=TEXT_WIDTH // 64,
        projection_dim=TEXT_WIDTH,
    )
