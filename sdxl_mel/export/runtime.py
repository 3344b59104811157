"""onnxruntime-web, which runs the models in a browser: its files ship with the package, compressed."""

import lzma
from pathlib import Path

from sdxl_mel.assets import ASSETS
from sdxl_mel.errors import InputError
from sdxl_mel.export.products import with_products
from sdxl_mel.files.header import parse_json

FOLDER = ASSETS / "onnxruntime-web"
FILES = {"ort": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
"""The module that a page imports, and the WebAssembly that it loads: the CPU's operators, with threads and SIMD."""
RELAXED = "ort-wasm-relaxed-simd-threaded.wasm"
WEBGPU_FILES = {"ort": "ort.webgpu.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.asyncify.wasm"}
"""The same with operators for WebGPU: twice as large, so that it does not ship with the package."""
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"


def runtime_files() -> dict[str, tuple[str, bytes]]:
    """Return (name, content) of the files by their keys in a manifest.

    Of the WebAssembly, with other products of matrices, there are two: `relaxed` is for browsers with relaxed SIMD.
    """
    files = {key: (name, lzma.decompress((FOLDER / f"{name}.xz").read_bytes())) for key, name in FILES.items()}
    name, content = files["wasm"]
    products = {"wasm": (name, False), "relaxed": (RELAXED, True)}
    return files | {key: (name, with_products(content, fused=fused)) for key, (name, fused) in products.items()}


def webgpu_files(package: Path) -> dict[str, tuple[str, bytes]]:
    """Return (name, content) of the files for WebGPU by their keys, from the npm package in a folder.

    Raises InputError for a folder that is not that package, or another version of it.
    """
    ask = f"give the folder that npm pack {PACKAGE}@{VERSION} and tar make"
    about = package / "package.json"
    try:
        stated = parse_json(about.read_bytes())
        found = f"{stated['name']} {stated['version']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--webgpu {package}: no npm package (package.json is missing or damaged); {ask}") from error
    if found != f"{PACKAGE} {VERSION}":
        raise InputError(f"--webgpu {package}: is {found}, the page works with {PACKAGE} {VERSION}; {ask}")
    missing = [name for name in WEBGPU_FILES.values() if not (package / "dist" / name).is_file()]
    if missing:
        raise InputError(f"--webgpu {package}: dist/{missing[0]} is missing; {ask}")
    return {key: (name, (package / "dist" / name).read_bytes()) for key, name in WEBGPU_FILES.items()}
