"""What a LoRA file says of itself: our own contract, and the `ss_*` and `modelspec.*` keys that other tools show."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from sdxl_mel.diffusion.options import Prediction
from sdxl_mel.diffusion.samplers import Drawing, format_timesteps, parse_timesteps
from sdxl_mel.errors import FormatError
from sdxl_mel.files.header import parse_json
from sdxl_mel.models.families import FAMILIES, family_named
from sdxl_mel.models.family import ADAPTABLE, Family, Part
from sdxl_mel.models.layouts import LAYERS_PER_BLOCK, Architecture
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.scheduler import MODELSPEC, PREDICTION_KEY
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

OURS = "sdxl_mel."
KOHYA = "ss_"
LAYERS_KEY = f"{OURS}layers_per_block"
"""In every file of ours, so that its architecture need not be guessed."""
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
    UNet it is for predicts.
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

    @property
    def resolution(self) -> str:
        """Return the size of its pictures, that of the family's where no spec says it: 1024x512."""
        return "x".join(map(str, self.spec.size)) if self.spec else self.architecture.family.resolution


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
        "timesteps": None if drawing.timesteps is None else format_timesteps(drawing.timesteps),
        # Epsilon goes without saying, as in files that are older.
        "prediction_type": None if header.prediction == "epsilon" else header.prediction,
    }
    pairs = {OURS + name: value for name, value in ours.items() if value is not None}
    return pairs | {KOHYA + name: value for name, value in header.training.items()}


def from_metadata(metadata: Mapping[str, str], where: str) -> LoraHeader:
    """Read what `to_metadata` wrote; foreign keys are ignored. Raises FormatError for a damaged value."""
    ours = {name.removeprefix(OURS): value for name, value in metadata.items() if name.startswith(OURS)}
    try:
        base = dict(parse_json(ours.get("base", "{}")))
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
            prediction=_prediction(ours, metadata),
        )
    except (ValueError, TypeError, ValidationError) as error:
        raise FormatError(f"{where}: its metadata is damaged ({error})".replace("\n", " ")) from error


def family_said(metadata: Mapping[str, str]) -> Family | None:
    """Return the family that a file's metadata names in kohya's or Stability's way, None where they name none."""
    version, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    named = (each for each in FAMILIES if version == each.kohya_version or architecture.startswith(each.modelspec))
    return next(named, None)


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


def _prediction(ours: Mapping[str, str], metadata: Mapping[str, str]) -> Prediction:
    said = ours.get("prediction_type") or metadata.get(PREDICTION_KEY)
    return "v_prediction" if said in ("v_prediction", MODELSPEC["v_prediction"]) else "epsilon"


def kohya_metadata(
    header: LoraHeader, modules: Iterable[LoraModule], title: str, tensors_sha256: str
) -> dict[str, str]:
    """Return the pairs that ComfyUI, A1111 and Civitai show: kohya's minimum and Stability's modelspec 1.0.1.

    Rank and alpha are the most common ones; the file holds each module's own. A DoRA is a network of LyCORIS; a base
    whose blocks are not those of the published ones, such as `mini`, is called by what it is.
    """
    known, architecture = list(modules), header.architecture
    family = architecture.family
    dora = any(module.magnitude is not None for module in known)
    rank = Counter(module.rank for module in known).most_common(1)[0][0]
    alpha = Counter(module.alpha for module in known).most_common(1)[0][0]
    return {
        "ss_v2": "False",
        "ss_base_model_version": family.kohya_version if architecture.is_published else f"small_{family.name}",
        "ss_network_module": "lycoris.kohya" if dora else "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_network_args": json.dumps({"algo": "lora", "dora_wd": "True"} if dora else {}),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture.modelspec}/lora",
        "modelspec.implementation": family.lora_implementation,
        "modelspec.title": title,
        "modelspec.resolution": header.resolution,
        PREDICTION_KEY: MODELSPEC[header.prediction],
        "modelspec.hash_sha256": f"0x{tensors_sha256}",
    }
