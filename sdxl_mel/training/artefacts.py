"""What a run leaves behind: the LoRA in both dialects, curves, a model card."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from sdxl_mel.errors import MissingError, ResourceError
from sdxl_mel.files.atomic import write_bytes, write_text
from sdxl_mel.files.run import DIFFUSERS_NAME, LORA_NAME, RunHeader
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.training.log import read_metrics
from sdxl_mel.training.state import State
from sdxl_mel.training.validation import mean_loss

SMOOTHING = 0.95


def write_checkpoint(run: Path, state: State, header: LoraHeader) -> None:
    """Write the LoRA of this step, for comparing steps later."""
    _write(run / "checkpoints" / f"step-{state.step:06d}.safetensors", state, header, "kohya")


def write_final(run: Path, state: State, header: LoraHeader) -> None:
    """Write the LoRA in both dialects."""
    _write(run / LORA_NAME, state, header, "kohya")
    _write(run / DIFFUSERS_NAME, state, header, "diffusers")


def write_average(run: Path, state: State, header: LoraHeader, length: float) -> None:
    """Write the average that the adapters hold now."""
    _write(run / "averages" / f"{length:g}.safetensors", state, header, "kohya")


@contextmanager
def averaged(state: State, length: float) -> Iterator[None]:
    """Hold the average of a length in the adapters while the block runs."""
    parameters: list[torch.Tensor] = list(state.adapters.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, state.averages.tensors[length])
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, kept)


def write_curves(run: Path) -> None:
    """Draw the losses of `metrics.jsonl` to curves.png."""
    from matplotlib.figure import Figure

    rows = read_metrics(run)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in rows if "loss" in row]
    for name in ("loss", "squared_error"):
        left.plot(steps, _smoothed([row[name] for row in rows if "loss" in row]), label=name.replace("_", " "))
    left.set(xlabel="step", title=f"training (smoothed, {SMOOTHING:g})", yscale="log")
    left.legend()
    kinds = sorted({name for row in rows for name in row if name.startswith("validation/")})
    for kind in kinds:
        points = [(row["step"], mean_loss(row[kind])) for row in rows if kind in row]
        right.plot(*zip(*points), marker="o", label=kind.removeprefix("validation/"))
    right.set(xlabel="step", title="squared error, fixed noise")
    if kinds:
        right.legend()
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    write_bytes(run / "curves.png", buffer.getvalue())


def write_card(run: Path, header: RunHeader) -> None:
    """Write the model card, with the head that the hub reads."""
    base = header.settings["base"]
    on_hub = isinstance(base, str) and base.count("/") == 1 and not Path(base).exists()
    settings, results = header.settings, header.results
    rows = "\n".join(f"| {name} | {_shown(value)} |" for name, value in results.items())
    spec = header.spec
    head = [
        "---",
        *([f"base_model: {base}"] if on_hub else []),
        "library_name: diffusers\npipeline_tag: text-to-audio",
        "tags: [lora, stable-diffusion-xl, text-to-audio, music, mel-spectrogram, sdxl-mel]",
        f"instance_prompt: {header.anchor}\n---",
    ]
    about = [
        f"# {run.name}",
        f"A LoRA that makes SDXL paint mel spectrograms of music: {spec.width} x {spec.n_mels} pixels, "
        f"{spec.tile_seconds:.1f} s at {spec.sample_rate} Hz. Prompts start with `{header.anchor}`.",
        f"Trained {settings['steps']} steps of {settings['batch']} on `{base}`; `config.toml` starts it again.",
        f"```sh\nsdxl-mel generate --base {base} --lora {LORA_NAME} --prompt '{header.anchor}, ...' --out music\n```",
        f"`{LORA_NAME}` has kohya's names (ComfyUI, A1111), `{DIFFUSERS_NAME}` those of diffusers; both hold the spec.",
        *([f"| result | |\n|---|---|\n{rows}"] if rows else []),
        "![losses](curves.png)",
    ]
    write_text(run / "README.md", "\n".join(head) + "\n\n" + "\n\n".join(about) + "\n")


def push(run: Path, repository: str) -> None:
    """Upload the finished run without its saved states. Raises MissingError or ResourceError with what to do."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True, private=True)
        api.upload_folder(repo_id=repository, folder_path=run, ignore_patterns=["state/*", "curves/*"])
    except LocalTokenNotFoundError as error:
        raise MissingError(f"{repository}: no token for the hub; run `hf auth login`. The run is in {run}") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        raise ResourceError(f"{repository}: the hub did not take the run ({error}); it is in {run}") from error


def results_of(state: State, seconds_per_step: float, extra: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return what the run came to, for run.json and the card."""
    results: dict[str, JsonValue] = {"steps": state.step}
    if seconds_per_step:
        results["seconds per step"] = round(seconds_per_step, 4)
    results |= extra
    if state.notes.stopped:
        results["stopped early"] = state.notes.stopped
    if state.notes.validations:
        first, last = state.notes.validations[0]["losses"], state.notes.validations[-1]["losses"]
        for kind in last:
            results[f"squared error, {kind}"] = [round(mean_loss(each[kind]), 5) for each in (first, last)]
    return results


def _write(path: Path, state: State, header: LoraHeader, dialect: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lora(path, Lora(state.adapters.to_modules(), header), dialect)


def _smoothed(values: list[float]) -> list[float]:
    smooth, result = 0.0, []
    for count, value in enumerate(values, start=1):
        smooth = SMOOTHING * smooth + (1 - SMOOTHING) * value
        result.append(smooth / (1 - SMOOTHING**count))
    return result


def _shown(value: JsonValue) -> str:
    return " -> ".join(map(str, value)) if isinstance(value, list) else str(value)
