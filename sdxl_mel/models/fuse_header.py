"""What the fused model says of itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.folder import Folder
from sdxl_mel.models.hashing import header_of
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.lora_set import ScaledLora, joint_header
from sdxl_mel.models.single_file import SPEC_KEY
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.melspec import MelSpec, require_equal


def fused_header(loras: Sequence[ScaledLora], checkpoint: Checkpoint, base: str, dtype: str) -> LoraHeader:
    """Return what the LoRAs say, checked against the base's spec, its guidance, and the record of the fusion.

    Raises MismatchError when any two specs differ.
    """
    header = joint_header(loras)
    own = _spec_of(checkpoint)
    if own is not None and header.spec is not None:
        require_equal(own, header.spec, base, str(loras[0].path))
    record = Record(
        stage="fuse",
        settings={"base": Path(base).name, "scale": [scale for _, _, scale in loras], "dtype": dtype},
        inputs={path.name: sha256_file(path) for path, _, _ in loras if path.is_file()},
    )
    before = read_model_header(checkpoint.path)
    return replace(
        header,
        spec=header.spec or own,
        record=record,
        layers_per_block=checkpoint.layers_per_block,
        guidance=before.guidance if header.guidance is None and before is not None else header.guidance,
    )


def _spec_of(checkpoint: Checkpoint) -> MelSpec | None:
    if not checkpoint.single:
        return Folder(checkpoint.path).spec
    text = header_of(checkpoint.path)[1].get(SPEC_KEY)
    return MelSpec.from_json(text, str(checkpoint.path)) if text else None
