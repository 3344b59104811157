"""What tells others of a finished run: its model card, and the hub."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation

from sdxl_mel.errors import InputError, MissingError, ResourceError, first_line
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.run import CURVES_NAME, DIFFUSERS_NAME, LORA_NAME
from sdxl_mel.files.run_header import RunHeader


def write_card(run: Path, header: RunHeader, what: str, notes: Sequence[str] = ()) -> None:
    """Write the model card of a LoRA, with the head that the hub reads, `what` it does, and `notes` on it."""
    base = header.settings["base"]
    on_hub = isinstance(base, str) and base.count("/") == 1 and not Path(base).exists()
    settings, results = header.settings, header.results
    shown = {name: " -> ".join(map(str, each)) if isinstance(each, list) else each for name, each in results.items()}
    rows = "\n".join(f"| {name} | {value} |" for name, value in shown.items())
    spec, steps = header.spec, results.get("steps", settings["steps"])
    head = [
        "---",
        *([f"base_model: {base}"] if on_hub else []),
        "library_name: diffusers\npipeline_tag: text-to-audio",
        "tags: [lora, stable-diffusion-xl, text-to-audio, music, mel-spectrogram, sdxl-mel]",
        f"instance_prompt: {header.anchor}\n---",
    ]
    about = [
        f"# {run.name}",
        f"{what}: {spec.width} x {spec.n_mels} pixels, {spec.tile_seconds:.1f} s at {spec.sample_rate} Hz."
        + (f" Prompts start with `{header.anchor}`." if header.anchor else ""),
        f"Trained {steps} steps of {settings['batch']} on `{base}`; `config.toml` starts it again.",
        f"```sh\nsdxl-mel generate --base {base} --lora {LORA_NAME} --prompt '{header.anchor}, ...' --out music\n```",
        f"`{LORA_NAME}` has kohya's names (ComfyUI, A1111), `{DIFFUSERS_NAME}` those of diffusers; both hold the spec.",
        *(f"Note: {note}." for note in notes),
        *([f"| result | |\n|---|---|\n{rows}"] if rows else []),
        f"![losses]({CURVES_NAME})",
    ]
    write_text(run / "README.md", "\n".join(head) + "\n\n" + "\n\n".join(about) + "\n")


def require_repository(name: str) -> None:
    """Raise InputError for what can be no repository of the hub: before a training, not after it."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push-to-hub {name!r}: {first_line(error)}; expected NAME or USER/NAME") from error


def push(run: Path, repository: str) -> None:
    """Upload the finished run without its saved states. Raises MissingError or ResourceError with what to do."""
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True, private=True)
        api.upload_folder(repo_id=repository, folder_path=run, ignore_patterns=["state/*", "curves/*"])
    except LocalTokenNotFoundError as error:
        raise MissingError(f"{repository}: no token for the hub; run `hf auth login`. The run is in {run}") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        raise ResourceError(f"{repository}: the hub did not take the run ({error}); it is in {run}") from error
