"""onnxruntime-web, which runs the models in a browser: its files ship with the package, compressed."""

import lzma
from collections.abc import Iterator

from sdxl_mel.assets import ASSETS

FOLDER = ASSETS / "onnxruntime-web"
FILES = {"ort": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
"""The module that a page imports, and the WebAssembly that it loads: the CPU's operators, with threads and SIMD."""


def runtime_files() -> Iterator[tuple[str, str, bytes]]:
    """Yield (key of the manifest, name, content)."""
    for key, name in FILES.items():
        yield key, name, lzma.decompress((FOLDER / f"{name}.xz").read_bytes())
