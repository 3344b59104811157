"""export: what exported models weigh, how far they are from the base, and what students of SDXL of true size need."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.table import Table
from sdxl_mel.export.description import Chosen
from sdxl_mel.export.manifest import Drawn
from sdxl_mel.export.options import PART_BYTES, Weights
from sdxl_mel.export.runner import Exported
from sdxl_mel.export.site import export_folder
from sdxl_mel.export.vectors import TEXTS
from sdxl_mel.files.tokenizer import public_tokenizer
from sdxl_mel.models.base import open_base

WEIGHTS: tuple[Weights, ...] = ("int8", "fp16")
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
    with tempfile.TemporaryDirectory() as folder:
        rows = [*_mini(Path(folder)), *_students(Path(folder))]
    return Table(
        title="export: models for the browser",
        header=["base", "weights", "text, UNet, decoder(s) (MB)", "parts", "export (s)", "picture error", "tile (s)"],
        rows=rows,
        notes=[
            "Picture error: root mean square of 0..1 against float32 weights, three guided steps. Tile: ten guided "
            "steps of DPM++ 2M and the decoder, in onnxruntime on the CPU.",
            f"Students: random weights at preset web (512 x 256, stereo), text encoders {TEXT_WIDTH} wide, a decoder "
            f"of a quarter of SDXL's widths. Parts of at most {PART_BYTES / 1e6:g} MB.",
        ],
    )


def _mini(folder: Path) -> Iterator[list[str]]:
    for weights in WEIGHTS:
        yield _row("mini", Chosen("mini", weights=weights), folder / f"mini-{weights}")


def _students(folder: Path) -> Iterator[list[str]]:
    for student in STUDENTS:
        base = write_student(folder / student.name, student)
        yield _row(student.name, Chosen(str(base), preset="web"), folder / f"{student.name} site")


def _row(name: str, chosen: Chosen, out: Path) -> list[str]:
    start = time.perf_counter()
    written = export_folder(chosen, out, PART_BYTES, page=False)
    seconds, files = time.perf_counter() - start, written.manifest.files
    exported = Exported.open(out)
    start = time.perf_counter()
    exported.values(TEXTS[1], 0, Drawn(sampler="dpmpp_2m", steps=10, guidance=2.5))
    tile = time.perf_counter() - start
    models = [files.text, files.unet, files.decoder, *([files.small_decoder] if files.small_decoder else [])]
    return [
        name,
        chosen.weights,
        " + ".join(f"{model.bytes / 1e6:.1f}" for model in models),
        str(sum(len(model.parts) for model in models)),
        f"{seconds:.0f}",
        f"{written.picture_error:.1e}",
        f"{tile:.1f}",
    ]


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
