"""The settings for other programs on the page about few steps: they draw what `generate` draws."""

from pathlib import Path

import pytest
import torch

from sdxl_mel.assets import step_adapter
from sdxl_mel.commands import run_command
from sdxl_mel.diffusion.sampling import draw_noise
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.settings import Length
from tests.docs.commands import ROOT, blocks_of

PAGE = ROOT / "docs" / "distillation.md"
PROMPT = "mel spectrogram, instrumental, violin and flute"


def test_diffusers_draws_the_same_latents(tmp_path: Path) -> None:
    adapter = step_adapter("mini")
    assert adapter is not None
    generator = Generator.open("mini", loras=[adapter], dtype="fp32")
    job = Job(0, PROMPT, (TimedText(0.0, PROMPT),), negative="", seed=7)
    ours = generator.drawer([job], None, lay_out(Length(), generator.spec)).latents([job], [7])
    converted = tmp_path / "few-steps.safetensors"
    run_command("lora", ["convert", str(adapter), "--to", "diffusers", "--out", str(converted)])
    (shown,) = (text for _, language, text in blocks_of(PAGE) if language == "python")
    noise = draw_noise([7], tuple(ours.shape[1:]), "cpu")
    for words, others in {
        "models/sdxl": str(ROOT / "sdxl_mel" / "assets" / "mini"),
        "runs/few-steps/diffusers": str(converted),
        "mel spectrogram, slow violin": PROMPT,
        "height=512, width=1024": "height=128, width=256, latents=noise, output_type='latent'",
    }.items():
        assert words in shown
        shown = shown.replace(words, others)
    names: dict[str, object] = {"noise": noise}
    exec(shown, names)
    theirs = names["picture"]
    assert isinstance(theirs, torch.Tensor)
    torch.testing.assert_close(theirs[None], ours, rtol=1e-3, atol=1e-3)
    assert float(ours.std()) == pytest.approx(1.0, abs=0.3)
