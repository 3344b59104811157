"""Exported folders: what they hold, what they replace, and what is refused in one line."""

import base64
import gzip
import json
import re
import sys
from pathlib import Path

import pytest

from sdxl_mel.cli import main
from sdxl_mel.errors import FormatError, InputError, ResourceError
from sdxl_mel.export.folder import HASHED, HashedFolder, hashed_name, read_file, require_own
from sdxl_mel.export.manifest import MANIFEST, read_manifest
from sdxl_mel.export.runtime import VERSION
from sdxl_mel.export.site import PAGE, write_single_file
from sdxl_mel.record import sha256_bytes
from tests.exported import Site


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["export", *map(str, words)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_file_is_named_by_its_content(tmp_path: Path) -> None:
    content = bytes(range(250))
    folder = HashedFolder(tmp_path, part_bytes=100)
    file = folder.write_parts("models/unet.onnx", content)
    assert file.path == f"models/unet.{sha256_bytes(content)[:16]}.onnx" == hashed_name("models/unet.onnx", content)
    assert [Path(part).suffix for part in file.parts] == [".0", ".1", ".2"]
    assert read_file(tmp_path, file) == content
    assert (tmp_path / folder.write("app.js", content)).read_bytes() == content
    assert all(HASHED.fullmatch(name) for name in folder.written)


def test_packed_parts_hold_the_same_in_fewer_bytes(tmp_path: Path) -> None:
    content = bytes(range(100)) * 5
    folder = HashedFolder(tmp_path, part_bytes=300)
    file, plain = (folder.write_parts("models/unet.onnx", content, packed=packed) for packed in (True, False))
    assert (file.path, file.bytes, file.sha256) == (plain.path, plain.bytes, plain.sha256)
    assert [Path(part).suffix for part in file.parts] == [".packed0", ".packed1"]
    assert file.packed == file.loaded == sum((tmp_path / part).stat().st_size for part in file.parts) < plain.loaded
    assert read_file(tmp_path, file) == read_file(tmp_path, plain) == content
    assert all(HASHED.fullmatch(name) for name in folder.written)
    last = tmp_path / file.parts[1]
    for spoilt in (content, last.read_bytes()[:-5], b""):
        last.write_bytes(spoilt)
        with pytest.raises(FormatError, match=r"packed0 or .*packed1 is damaged"):
            read_file(tmp_path, file)


def test_the_manifest_says_what_the_folder_holds(slim_site: Site) -> None:
    folder, manifest = slim_site.folder, read_manifest(slim_site.folder)
    assert manifest == slim_site.written.manifest
    named = {part for file in manifest.all_files() for part in file.parts}
    named |= {PAGE, "sw.js", *HASHED.findall((folder / PAGE).read_text())}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {MANIFEST, *named}
    content = json.loads((folder / MANIFEST).read_text())
    assert content["command"] == {"base": slim_site.base.name, "loras": ["slim.safetensors:0.5"]}
    assert content["drawing"] == {"sampler": "dpmpp_2m", "steps": 10, "guidance": 5.0, "timesteps": None}
    assert content["latent"] == {"channels": 4, "scale": 8, "height": 16, "columns": 32}
    assert content["scheduler"]["spacing"] == "leading"
    assert content["scheduler"]["final_alpha_cumprod"] == 1.0
    assert len(content["scheduler"]["alphas_cumprod"]) == 1000
    assert "small_decoder" not in content["files"]
    assert content["spec"]["mel_norm"] is None
    assert str(folder.parent) not in (folder / MANIFEST).read_text()


def test_graphs_are_near_torch(slim_site: Site) -> None:
    assert slim_site.written.graph_errors.keys() == {"text", "unet", "decoder"}
    assert max(slim_site.written.graph_errors.values()) <= 1e-5
    assert slim_site.written.picture_error == 0
    assert {Path(part).suffix for part in slim_site.written.manifest.files.decoder.parts} >= {".packed0"}


def test_a_new_export_removes_the_files_of_the_old_one_alone(slim_site: Site, tmp_path: Path) -> None:
    manifest, other = slim_site.written.manifest, f"notes.{'0' * 16}.txt"
    (tmp_path / other).write_text("mine")

    def export(content: bytes) -> set[str]:
        folder = HashedFolder(tmp_path, 1000)
        file = folder.write_parts("models/unet.onnx", content)
        app = folder.write("app.js", content)
        files = manifest.files.model_copy(update={"unet": file})
        folder.finish(manifest.model_copy(update={"files": files}), {"index.html": f'<script src="{app}">'})
        return folder.written

    first = export(b"1" * 3000)
    assert all((tmp_path / name).is_file() for name in first)
    second = export(b"2" * 3000)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {other, MANIFEST, "index.html", *second}


def test_one_file_holds_every_file_packed(slim_site: Site, tmp_path: Path) -> None:
    write_single_file(slim_site.folder, tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text()
    held = dict(re.findall(r'data-path="([^"]+)">([\w+/=]+)</script>', page))
    for file in slim_site.written.manifest.all_files():
        assert gzip.decompress(base64.b64decode(held[file.path])) == read_file(slim_site.folder, file)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"page.html"}


def test_a_folder_of_other_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "song.wav").write_bytes(b"")
    assert "no export of this toolkit" in said(capsys, "--base", "mini", "--out", tmp_path)
    assert "a file; --out is a folder" in said(capsys, "--base", "mini", "--out", tmp_path / "song.wav")
    with pytest.raises(InputError):
        require_own(tmp_path)
    require_own(tmp_path / "new")


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    words = ("--base", "mini", "--out")
    assert "no folder to write in" in said(capsys, *words, file / "site")
    assert "no folder to write in" in said(capsys, *words, file / "page.html", "--single-file")
    (tmp_path / "page.html").mkdir()
    assert "a folder; --single-file" in said(capsys, *words, tmp_path / "page.html", "--single-file")


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in {
        ("--single-file", "--onnx-only", "--out", "x.html"): "one of the two",
        ("--single-file", "--out", "folder"): "ends in .html",
        ("--lora-rank", "4", "--out", "x"): "--lora-mode factors",
        ("--weights", "int4", "--out", "x"): "int8",
    }.items():
        assert message in said(capsys, "--base", "mini", *words)


def test_a_webgpu_runtime_is_of_the_version_that_the_page_works_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, package, about = tmp_path / "site", tmp_path / "package", tmp_path / "package" / "package.json"
    words = ("--base", "mini", "--out", site, "--webgpu", package)
    assert f"npm pack onnxruntime-web@{VERSION}" in said(capsys, *words)
    package.mkdir()
    about.write_text('{"name": "onnxruntime-web", "version": "1.2.3"}')
    assert f"is onnxruntime-web 1.2.3, the page works with onnxruntime-web {VERSION}" in said(capsys, *words)
    about.write_text("[1]")
    assert "package.json is missing or damaged" in said(capsys, *words)
    about.write_text(json.dumps({"name": "onnxruntime-web", "version": VERSION}))
    assert "dist/ort.webgpu.bundle.min.mjs is missing" in said(capsys, *words)
    assert not site.exists()


def test_bases_that_no_page_can_draw_with_are_refused(
    tiny_sd15: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is SD 1.5" in said(capsys, "--base", tiny_sd15, "--out", tmp_path / "site")
    assert "no such folder or file" in said(capsys, "--base", tmp_path / "nothing", "--out", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_loras_that_cannot_be_exported_are_refused(slim_site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--base", slim_site.base, "--out", slim_site.folder.parent / "refused")
    assert "all noise levels" in said(capsys, *words, "--lora", f"{slim_site.lora}@0.3-1")
    factors = ("--lora", slim_site.lora, "--lora-mode", "factors")
    assert "together have rank 2" in said(capsys, *words, *factors, "--lora-rank", "1")


def test_a_missing_library_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'sdxl-mel[export]'" in said(capsys, "--base", "mini", "--out", tmp_path / "site")


def test_a_full_disk_is_said_and_leaves_the_old_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *more: object, **others: object) -> object:
        if "unet." in path.name and "w" in mode:
            raise OSError(28, "No space left on device")
        return real(path, mode, *more, **others)

    monkeypatch.setattr(Path, "open", full)
    folder = HashedFolder(tmp_path, 1000)
    folder.write_parts("models/text.onnx", b"text")
    with pytest.raises(ResourceError, match="the disk is full"):
        folder.write_parts("models/unet.onnx", b"unet", packed=True)
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".onnx"]
