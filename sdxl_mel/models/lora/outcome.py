"""What an action on LoRA files comes to, and how its LoRA tells where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from sdxl_mel.models.lora.file import Lora
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.lora_set import ScaledLora, joint_header
from sdxl_mel.models.lora.names import Module
from sdxl_mel.record import Record, sha256_file


@dataclass(frozen=True)
class Outcome:
    """A LoRA to write, if any; lines to show; and the part of its energy that each module keeps."""

    lora: Lora | None = None
    lines: tuple[str, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)


def name_of(module: Module) -> str:
    """Return a module's name as people read it: unet.mid_block.attentions.0.proj_in."""
    return ".".join(module)


def derived_header(action: str, loras: Sequence[ScaledLora], **settings: JsonValue) -> LoraHeader:
    """Return the header of a LoRA made from others; its record holds theirs."""
    header = joint_header(loras) if len(loras) > 1 else loras[0].lora.header
    before: list[JsonValue] = [
        lora.header.record.model_dump(mode="json") for _, lora, _ in loras if lora.header.record is not None
    ]
    record = Record(
        stage=f"lora {action}",
        settings=settings | {"before": before},
        inputs={path.name: sha256_file(path) for path, _, _ in loras if path.is_file()},
    )
    return replace(header, record=record)
