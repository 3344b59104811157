"""What a model says of itself, so that `generate` needs nothing else: spec, anchor, clip skip, guidance and record.

A folder holds `melspec.json` (the spec alone) and `sdxl_mel.json`; a single file holds both as metadata.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from sdxl_mel.errors import FormatError
from sdxl_mel.files.tensors import TensorFile
from sdxl_mel.models.folder import SPEC_FILE
from sdxl_mel.models.lora.header import LoraHeader, from_metadata, to_metadata
from sdxl_mel.models.single_file import SPEC_KEY

HEADER_FILE = "sdxl_mel.json"


def header_files(header: LoraHeader) -> dict[str, bytes]:
    """Return the files that stand beside a folder's model_index.json."""
    files = {
        HEADER_FILE: json.dumps(to_metadata(header), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    }
    return files | ({SPEC_FILE: header.spec.to_json().encode() + b"\n"} if header.spec else {})


def header_metadata(header: LoraHeader) -> dict[str, str]:
    """Return the pairs of a single file's header."""
    spec = {SPEC_KEY: header.spec.to_json()} if header.spec else {}
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": header.architecture.family.modelspec,
        **to_metadata(header),
        **spec,
    }


def read_model_header(path: Path) -> LoraHeader | None:
    """Return what a model says of itself; None for one that no stage of ours wrote."""
    if path.is_file():
        pairs: Mapping[str, str] = TensorFile(path).metadata
    elif (path / HEADER_FILE).is_file():
        pairs = _pairs(path / HEADER_FILE)
    else:
        return None
    return from_metadata(pairs, str(path)) if any(name.startswith("sdxl_mel.") for name in pairs) else None


def _pairs(path: Path) -> Mapping[str, str]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error}); copy the model again") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise FormatError(f"{path}: not pairs of texts; copy the model again")
    return content
