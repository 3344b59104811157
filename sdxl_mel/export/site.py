"""The page of an export: a folder for any static host, or one HTML file that opens from a disk."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from sdxl_mel import web
from sdxl_mel.errors import InputError
from sdxl_mel.export.description import Chosen
from sdxl_mel.export.folder import HashedFolder, read_file, require_own
from sdxl_mel.export.manifest import MANIFEST, File, Manifest, read_manifest
from sdxl_mel.export.models import Written, export_models
from sdxl_mel.export.options import LARGEST_MODEL
from sdxl_mel.export.runtime import runtime_files, webgpu_files
from sdxl_mel.files.atomic import atomic_path, require_writable
from sdxl_mel.web import site_page

PAGE = "index.html"


def export_folder(chosen: Chosen, out: Path, part_bytes: int, *, page: bool, webgpu: Path | None = None) -> Written:
    """Write an export into a folder: its models packed and the page that draws with them, or its models alone.

    `webgpu` is an npm package from which the page has a second runtime. An earlier export there is replaced; until the
    end of this one it stays whole. Raises InputError for a folder of other files, and for another package.
    """
    require_own(out)
    second = webgpu_files(webgpu) if webgpu else {}  # Before the models, which take long.
    folder = HashedFolder(out, part_bytes)
    written = export_models(chosen, folder, page=page)
    manifest = written.manifest
    pages = {}
    if page:
        runtimes: dict[str, dict[str, File]] = {"runtime": _write_runtime(folder, runtime_files())}
        if webgpu:
            runtimes["webgpu"] = _write_runtime(folder, second, packed=("wasm",))
        manifest = manifest.model_copy(update={"files": manifest.files.model_copy(update=runtimes)})
        pages = _write_page(folder, manifest.title)
    folder.finish(manifest, pages)
    return Written(manifest, written.graph_errors, written.picture_error)


def _write_runtime(
    folder: HashedFolder, files: Mapping[str, tuple[str, bytes]], packed: Collection[str] = ()
) -> dict[str, File]:
    """Write the files of a runtime by their keys; those that a browser is to read by their address are not packed."""
    return {
        key: folder.write_parts(f"runtime/{name}", content, packed=key in packed)
        for key, (name, content) in files.items()
    }


def _write_page(folder: HashedFolder, title: str) -> dict[str, str]:
    """Write what the page names, and return the page and its service worker by name."""
    style = folder.write("style.css", site_page.style().encode())
    app = folder.write("app.js", web.bundle(site_page.APP).encode())
    worker = folder.write("worker.js", web.bundle(site_page.WORKER).encode())
    return {
        Path(site_page.SERVICE_WORKER).name: web.read(site_page.SERVICE_WORKER),
        PAGE: site_page.folder_page(title, style=style, app=app, worker=worker),
    }


def export_single_file(chosen: Chosen, out: Path, webgpu: Path | None = None) -> Written:
    """Write an export as one HTML file that opens from a disk.

    Raises InputError for a folder, ResourceError for a place that cannot be written.
    """
    require_writable(out)
    if out.is_dir():
        raise InputError(f"{out}: a folder; --single-file writes one page, give --out another name")
    with TemporaryDirectory() as name:
        folder = Path(name) / "site"
        written = export_folder(chosen, folder, part_bytes=LARGEST_MODEL, page=True, webgpu=webgpu)
        write_single_file(folder, out)
    return written


def write_single_file(folder: Path, out: Path) -> None:
    """Write the page of an exported folder as one HTML file that holds all it needs."""
    manifest = read_manifest(folder)
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(site_page.single_page(manifest.title, _contents(folder, manifest)))


def _contents(folder: Path, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Yield the manifest and every file that it names."""
    yield MANIFEST, (folder / MANIFEST).read_bytes()
    for file in manifest.all_files():
        yield file.path, read_file(folder, file)
