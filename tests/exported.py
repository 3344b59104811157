"""An exported site for tests: a small random SDXL with a LoRA as factors, in exact weights and small parts.

An export takes time for every layer, whatever its size: this SDXL has attention at its last level alone.
"""

import json
from pathlib import Path
from typing import NamedTuple

from sdxl_mel.export.description import Chosen
from sdxl_mel.export.manifest import read_manifest
from sdxl_mel.export.models import Written
from sdxl_mel.export.runner import Exported
from sdxl_mel.export.site import export_folder
from sdxl_mel.models.base import open_base
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.sound.melspec import named_spec
from tests.loras import random_lora_modules
from tests.tiny_models import tiny_unet, write_tiny_sdxl

PART_BYTES = 200_000


class Site(NamedTuple):
    base: Path
    lora: Path
    folder: Path
    written: Written

    def opened(self) -> Exported:
        return Exported.open(self.folder)


def shared_slim_site(folder: Path) -> Site:
    """Return the site in a folder that several processes share, exported by the first: it takes half a minute."""
    said = folder / "site.json"
    if not said.is_file():
        folder.mkdir()
        made = write_slim_site(folder)
        written = {"graph_errors": dict(made.written.graph_errors), "picture_error": made.written.picture_error}
        said.write_text(json.dumps({"base": str(made.base), "written": written}))
    found = json.loads(said.read_text())
    out = folder / "site"
    return Site(Path(found["base"]), folder / "slim.safetensors", out, Written(read_manifest(out), **found["written"]))


def write_slim_site(folder: Path) -> Site:
    """Export a base of few layers with a LoRA as factors, and the page."""
    unet = tiny_unet(slim=True, attends=(False, False, True))
    base = write_tiny_sdxl(folder / "slim-sdxl", slim=True, unet=unet, text_layers=2)
    lora, out = folder / "slim.safetensors", folder / "site"
    header = LoraHeader(named_spec("mini"), "mel spectrogram", architecture=Architecture(SDXL, 1))
    write_lora(lora, Lora(random_lora_modules(open_base(str(base)), alpha=0.2), header))
    chosen = Chosen(str(base), (f"{lora}:0.5",), "factors", weights="fp32")
    return Site(base, lora, out, export_folder(chosen, out, PART_BYTES, page=True))
