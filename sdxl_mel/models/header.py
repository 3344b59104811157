"""What a model says of itself, so that `generate` needs nothing else: spec, anchor, clip skip, guidance and record.

A folder holds `melspec.json` (the spec alone) and `sdxl_mel.json`; a single file holds both as metadata.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from sdxl_mel.files.tensors import TensorFile
from sdxl_mel.models.folder import SPEC_FILE, read_json
from sdxl_mel.models.lora.header import LoraHeader, from_metadata, to_metadata
from sdxl_mel.models.scheduler import MODELSPEC, PREDICTION_KEY
from sdxl_mel.models.single_file import SPEC_KEY

HEADER_FILE = "sdxl_mel.json"


def header_files(header: LoraHeader) -> dict[str, bytes]:
    """Return the files that stand beside a folder's model_index.json."""
    files = {
        HEADER_FILE: json.dumps(to_metadata(header), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    }
    return files | ({SPEC_FILE: header.spec.to_json().encode() + b"\n"} if header.spec else {})


def header_metadata(header: LoraHeader, title: str) -> dict[str, str]:
    """Return the pairs of a single file's header, with what Stability's modelspec 1.0.1 asks for."""
    spec = {SPEC_KEY: header.spec.to_json()} if header.spec else {}
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": header.architecture.modelspec,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.resolution": header.resolution,
        PREDICTION_KEY: MODELSPEC[header.prediction],
        **to_metadata(header),
        **spec,
    }


def read_model_header(path: Path) -> LoraHeader | None:
    """Return what a model says of itself; None for one that no stage of ours wrote."""
    if path.is_file():
        pairs: Mapping[str, str] = TensorFile(path).metadata
    else:
        pairs = {name: str(value) for name, value in (read_json(path / HEADER_FILE) or {}).items()}
    return from_metadata(pairs, str(path)) if any(name.startswith("sdxl_mel.") for name in pairs) else None
