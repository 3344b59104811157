"""What a LoRA file says of itself: our own contract, and the `ss_*` and `modelspec.*` keys that other tools show."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from sdxl_mel.diffusion.options import Prediction
from sdxl_mel.diffusion.samplers import Drawing, format_timesteps, parse_timesteps
from sdxl_mel.errors import FormatError
from sdxl_mel.models.families import family_named
from sdxl_mel.models.family import ADAPTABLE, Part
from sdxl_mel.models.layouts import LAYERS_PER_BLOCK, Architecture
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

OURS = "sdxl_mel."
KOHYA = "ss_"
LAYERS_KEY = f"{OURS}layers_per_block"
"""In every file of ours, so that its architecture need not be guessed."""
PREDICTION_KEY = "modelspec.prediction_type"
"""Of Stability's modelspec: epsilon or v."""
MOST_LAYERS = 16
MOST_GUIDANCE = 100.0
DERIVED = {"ss_v2", "ss_base_model_version"} | {f"ss_network_{name}" for name in ("module", "dim", "alpha", "args")}
"""The keys that `kohya_metadata` computes; every other `ss_*` key is the trainer's."""


@dataclass(frozen=True)
class LoraHeader:
    """Everything but the tensors; a file of another tool has no spec, anchor or base identity.

    `base` holds the SHA-256 of the base model's parts, `training` the trainer's own figures by kohya's names without
    the `ss_` ("learning_rate"), `architecture` what its modules' names depend on, `drawing` how it asks to be drawn:
    the guidance that was found good, if any was looked for, and for a few-step model the rest; `prediction` what the
    UNet predicts.
    """

    spec: MelSpec | None = None
    anchor: str | None = None
    clip_skip: int = 0
    base: Mapping[Part, str] = field(default_factory=dict)
    record: Record | None = None
    training: Mapping[str, str] = field(default_factory=dict)
    architecture: Architecture = Architecture(SDXL)
    drawing: Drawing = Drawing()
    prediction: Prediction = "epsilon"


def to_metadata(header: LoraHeader) -> dict[str, str]:
    """Return the header as the string pairs of a safetensors file; `from_metadata` is the inverse."""
    drawing = header.drawing
    ours = {
        "spec": header.spec.to_json() if header.spec else None,
        "anchor": header.anchor,
        "clip_skip": str(header.clip_skip),
        "base": json.dumps(dict(header.base), sort_keys=True) if header.base else None,
        "record": header.record.model_dump_json() if header.record else None,
        # SDXL goes without saying, as in files that are older than other families.
        "family": None if header.architecture.family is SDXL else header.architecture.family.name,
        "layers_per_block": str(header.architecture.layers_per_block),
        "guidance": None if drawing.guidance is None else f"{drawing.guidance:g}",
        "sampler": drawing.sampler,
        "steps": None if drawing.steps is None else str(drawing.steps),
        # Epsilon goes without saying, as in files that are older.
        "prediction": None if header.prediction == "epsilon" else header.prediction,
        "timesteps": None if drawing.timesteps is None else format_timesteps(drawing.timesteps),
    }
    pairs = {OURS + name: value for name, value in ours.items() if value is not None}
    return pairs | {KOHYA + name: value for name, value in header.training.items()}


def from_metadata(metadata: Mapping[str, str], where: str) -> LoraHeader:
    """Read what `to_metadata` wrote; foreign keys are ignored. Raises FormatError for a damaged value."""
    ours = {name.removeprefix(OURS): value for name, value in metadata.items() if name.startswith(OURS)}
    predicts = ours.get("prediction", metadata.get(PREDICTION_KEY, ""))
    try:
        base = dict(json.loads(ours.get("base", "{}")))
        return LoraHeader(
            spec=MelSpec.from_json(ours["spec"], where) if "spec" in ours else None,
            anchor=ours.get("anchor"),
            clip_skip=int(ours.get("clip_skip", 0)),
            base={part: base[part] for part in ADAPTABLE if part in base},
            record=Record.model_validate_json(ours["record"]) if "record" in ours else None,
            training={
                name.removeprefix(KOHYA): value
                for name, value in metadata.items()
                if name.startswith(KOHYA) and name not in DERIVED
            },
            architecture=Architecture(
                family_named(ours.get("family", SDXL.name)),
                _positive(ours.get("layers_per_block", str(LAYERS_PER_BLOCK))),
            ),
            drawing=_drawing(ours, where),
            prediction="v_prediction" if predicts.startswith("v") else "epsilon",
        )
    except (ValueError, TypeError, ValidationError) as error:
        raise FormatError(f"{where}: its metadata is damaged ({error})".replace("\n", " ")) from error


def _positive(text: str) -> int:
    number = int(text)
    if not 0 < number < MOST_LAYERS:
        raise ValueError(f"{number} layers per block")
    return number


def _drawing(ours: Mapping[str, str], where: str) -> Drawing:
    guidance = float(ours["guidance"]) if "guidance" in ours else None
    if guidance is not None and not 0 <= guidance <= MOST_GUIDANCE:
        raise ValueError(f"a guidance of {ours['guidance']}")
    steps = int(ours["steps"]) if "steps" in ours else None
    times = parse_timesteps(ours["timesteps"], f"{where}: sdxl_mel.timesteps") if "timesteps" in ours else None
    return Drawing(ours.get("sampler"), steps, guidance, times)


def kohya_metadata(
    header: LoraHeader, modules: Iterable[LoraModule], title: str, tensors_sha256: str
) -> dict[str, str]:
    """Return the pairs that ComfyUI, A1111 and Civitai show: kohya's minimum and Stability's modelspec 1.0.1.

    Rank and alpha are the most common ones; the file holds each module's own. A DoRA is a network of LyCORIS; a base
    whose blocks are not those of the published ones, such as `mini`, is called by what it is.
    """
    known, family, layers = list(modules), header.architecture.family, header.architecture.layers_per_block
    published = layers == LAYERS_PER_BLOCK
    own = f"{family.name}-with-{layers}-layers-per-block"
    dora = any(module.magnitude is not None for module in known)
    rank = Counter(module.rank for module in known).most_common(1)[0][0]
    alpha = Counter(module.alpha for module in known).most_common(1)[0][0]
    resolution = "x".join(map(str, header.spec.size)) if header.spec else family.resolution
    return {
        "ss_v2": "False",
        "ss_base_model_version": family.kohya_version if published else own,
        "ss_network_module": "lycoris.kohya" if dora else "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_network_args": json.dumps({"algo": "lora", "dora_wd": "True"} if dora else {}),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": family.lora_modelspec if published else f"{own}/lora",
        "modelspec.implementation": family.lora_implementation,
        "modelspec.title": title,
        "modelspec.resolution": resolution,
        PREDICTION_KEY: "v" if header.prediction == "v_prediction" else "epsilon",
        "modelspec.hash_sha256": f"0x{tensors_sha256}",
    }
