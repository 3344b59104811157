"""The stage `cache`: equal to encoding on the spot, the same bytes whatever interrupts it, and only what changed."""

import errno
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl_mel.assets import MINI
from sdxl_mel.cli import main
from sdxl_mel.dataset import cache as cache_engine
from sdxl_mel.dataset.settings import CacheSettings
from sdxl_mel.errors import FormatError, InputError, MismatchError, ResourceError
from sdxl_mel.files import atomic
from sdxl_mel.files.cache import open_cache
from sdxl_mel.files.dataset import read_dataset, write_dataset
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.files.writer import only_writer
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.models.vae import encode, images_of
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages.cache import Build, Prune, Verify, run
from tests.checkpoints import write_single_file
from tests.tiles import ANCHOR, SMALL, write_noise, write_tiles

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["sdxl_mel.dataset.cache", "diffusers", "transformers", "tests.tiles"])


SMALL_SHARDS = 4096


def build(dataset: Path, base: Path | str, out: Path, **settings) -> cache_engine.CacheContents:
    """Build with so small shards that a few rows fill several."""
    return cache_engine.build(out, CacheSettings(dataset, str(base), shard_bytes=SMALL_SHARDS, **settings))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiles(tmp_path_factory.mktemp("tiles"), clips=12, offsets=2)


@pytest.fixture
def copy(tiles: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiles, tmp_path / "tiles"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def training_latents(mean: torch.Tensor, logvar: torch.Tensor, scale: float) -> torch.Tensor:
    """Return what a trainer makes of a posterior: a sample with given noise, scaled."""
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    return (mean + torch.exp(logvar / 2) * noise) * scale


def assert_equal_to_encoding_on_the_spot(out: Path, tiles: Path, given: str, base: Base) -> None:
    """`base` is the one `given` in another form, in which it may not say whose latents its VAE's are."""
    cache, dataset = open_cache(out), read_dataset(tiles)
    assert (cache.header.spec, cache.header.anchor) == (dataset.spec, ANCHOR)
    assert cache.header.scaling_factor == base.vae.config.scaling_factor
    expected = {part: base.identity[part] for part in ("text_encoder", "text_encoder_2")} | {
        "vae": open_base(given, ("vae",)).latents_identity
    }
    assert cache.header.identity == expected
    pairs = [
        pair for split in dataset.splits for pair in zip(cache.examples(split), dataset.splits[split], strict=True)
    ]
    for example, item in pairs:
        assert (example.source, example.track) == (item.file, item.track)
        for offset in range(len(item.offset_files)):
            levels = read_spectrogram(dataset.path(item, offset)).levels
            posterior = encode(base.vae, images_of(levels[None], "bottom"))
            cached = training_latents(*cache.latents(example.key, offset), cache.header.scaling_factor)
            uncached = training_latents(*(part[0] for part in posterior), base.vae.config.scaling_factor)
            torch.testing.assert_close(cached, uncached, rtol=0, atol=1e-6)
        for key in example.captions:
            prompt_embeds, pooled = encode_prompts(base, [cache.caption(key)])
            torch.testing.assert_close(cache.text(key)[0], prompt_embeds[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(cache.text(key)[1], pooled[0], rtol=0, atol=1e-6)
    assert cache.caption(cache.header.empty_text) == ""


@pytest.mark.parametrize("form", ["folder", "single file"])
def test_cached_equals_encoding_on_the_spot(tiles: Path, tiny_sdxl: Path, tmp_path: Path, form: str) -> None:
    given = tiny_sdxl if form == "folder" else write_single_file(tiny_sdxl, tmp_path / "model.safetensors")
    report = run(Build(dataset=tiles, base=str(given), out=tmp_path / "cache"))
    assert (report.encoded_pictures, report.pictures) == (24, 24)
    assert_equal_to_encoding_on_the_spot(tmp_path / "cache", tiles, str(given), open_base(tiny_sdxl))


@pytest.mark.skipif(not MINI.is_dir(), reason="the weights of mini are not in this checkout")
@pytest.mark.parametrize("form", ["folder", "single file"])
def test_cached_equals_encoding_on_the_spot_for_mini(tmp_path: Path, form: str) -> None:
    given = "mini" if form == "folder" else str(write_single_file(MINI, tmp_path / "mini.safetensors", 1))
    tiles = write_tiles(tmp_path / "tiles", clips=4, spec=PRESETS["mini"])
    assert run(Build(dataset=tiles, base=given, out=tmp_path / "cache")).encoded_pictures == 4
    assert_equal_to_encoding_on_the_spot(tmp_path / "cache", tiles, given, open_base("mini"))


def test_variants(tiles: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    run(Build(dataset=tiles, base=str(tiny_sdxl), out=tmp_path, variants=3))
    cache = open_cache(tmp_path)
    words = [cache.caption(key) for key in cache.examples("train")[0].captions]
    assert words[0] == f"{ANCHOR}, violin, piano, slow 0"
    assert len(words) == 4 and words[-1] == f"{ANCHOR}, A violin plays, slowly."
    assert all(text.startswith(ANCHOR) for text in words)
    assert [cache.caption(key) for key in cache.examples("validation")[0].captions][1:] == [words[-1]]


def test_only_the_splits_asked_for_are_encoded(tiles: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    run(Build(dataset=tiles, base=str(tiny_sdxl), out=tmp_path, splits=("validation",)))
    cache, clips = open_cache(tmp_path), read_dataset(tiles).splits["validation"]
    assert [example.source for example in cache.examples("validation")] == [item.file for item in clips]
    assert not cache.examples("train")
    with pytest.raises(InputError, match=r"has no split 'valid'; --splits takes .*validation"):
        run(Build(dataset=tiles, base=str(tiny_sdxl), out=tmp_path, splits=("valid",)))


def test_only_what_changed_is_encoded(copy: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"

    def encoded(base: Path = tiny_sdxl, **settings) -> tuple[int, int]:
        built = build(copy, base, out, **settings)
        current = CacheSettings(copy, str(base), shard_bytes=SMALL_SHARDS, **settings)
        assert cache_engine.verify(out, current).pictures == 24
        return built.encoded_pictures, built.encoded_texts

    texts = encoded()[1]
    assert encoded() == (0, 0)
    before = {example.source: example for example in open_cache(out).examples("train")}
    write_noise(copy / "train/0001.png", SMALL, seed=99)
    assert encoded() == (1, 0)
    after = {example.source: example for example in open_cache(out).examples("train")}
    assert [source for source in after if after[source].key != before[source].key] == ["train/0001.png"]
    assert after["train/0001.png"].offsets[1] == before["train/0001.png"].offsets[1]

    dataset = read_dataset(copy)
    first, *rest = dataset.splits["train"]
    changed = first.model_copy(update={"captions": (f"{ANCHOR}, one new caption",)})
    write_dataset(copy, type(dataset)(SMALL, ANCHOR, {**dataset.splits, "train": [changed, *rest]}, dataset.record))
    assert encoded() == (0, 1)
    assert encoded(clip_skip=1) == (0, open_cache(out).header.counts["texts"])
    assert encoded() == (0, 0)

    other = Path(shutil.copytree(tiny_sdxl, tmp_path / "other"))
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.bias"] += 0.1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(MismatchError, match=r"made with another vae; run sdxl-mel cache"):
        run(Verify(dataset=copy, base=str(other), out=out))
    assert encoded(other) == (24, 0)
    assert encoded() == (0, 0)

    with only_writer(out), pytest.raises(InputError, match="another process is writing in it"):
        run(Prune(out=out))
    report = run(Prune(out=out))
    assert report.deleted > 0 and report.freed_bytes > 0
    assert run(Verify(out=out)).unused == 0
    assert encoded() == (0, 0)
    assert texts > 1


def _build(dataset: Path, base: Path, out: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    build(dataset, base, out)


@pytest.fixture(scope="module")
def clean(tiles: Path, tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of one run that nothing disturbed, on one thread as in a process of its own."""
    out, threads = tmp_path_factory.mktemp("clean") / "cache", torch.get_num_threads()
    try:
        _build(tiles, tiny_sdxl, out, {})
    finally:
        torch.set_num_threads(threads)
    return contents(out)


@pytest.mark.slow
def test_killed_ten_times_makes_the_same_bytes(
    tiles: Path, tiny_sdxl: Path, clean: dict[str, bytes], tmp_path: Path
) -> None:
    out, delays = tmp_path / "cache", np.random.default_rng(0)
    kills = 0
    for _ in range(200):
        process = PROCESSES.Process(target=_build, args=(tiles, tiny_sdxl, out, {}))
        process.start()
        process.join(None if kills == 10 else float(delays.uniform(0.05, 0.4)))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if process.exitcode == 0:
            if kills == 10:
                break
            next(out.glob("latents/*.safetensors")).unlink()  # finished before the tenth kill: leave it work
    assert kills == 10
    assert contents(out) == clean


@pytest.mark.slow
def test_two_processes_make_the_same_bytes(
    tiles: Path, tiny_sdxl: Path, clean: dict[str, bytes], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    processes = [
        PROCESSES.Process(
            target=_build, args=(tiles, tiny_sdxl, tmp_path / "cache", {**shared, "RANK": rank, "LOCAL_RANK": rank})
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(tmp_path / "cache") == clean


@pytest.mark.skipif(sys.platform == "win32", reason="nothing keeps processes apart there")
def test_a_folder_in_which_another_process_writes_is_left_alone(tiles: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    shard = tmp_path / "latents" / ".a.safetensors.1.tmp"
    shard.parent.mkdir()
    shard.touch()
    with only_writer(tmp_path), pytest.raises(InputError, match="another process is writing in it"):
        build(tiles, tiny_sdxl, tmp_path)
    assert shard.exists()


@pytest.mark.parametrize("damage", ["truncated", "bit", "foreign"])
def test_a_damaged_shard_is_made_anew(
    tiles: Path, tiny_sdxl: Path, clean: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    build(tiles, tiny_sdxl, tmp_path)
    path = next(tmp_path.glob("latents/*.safetensors"))
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(FormatError, match="1 of .* shards are damaged; delete them and run sdxl-mel cache again"):
            run(Verify(out=tmp_path))
        path.unlink()
    else:
        path.write_bytes(content[:-7] if damage == "truncated" else b"not a shard")
        with pytest.raises(FormatError, match="run sdxl-mel cache again"):
            open_cache(tmp_path)
    assert build(tiles, tiny_sdxl, tmp_path).damaged == (damage != "bit")
    assert contents(tmp_path) == clean


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Let the disk fill up after three files."""
    written: list[Path] = []
    whole = atomic.write_bytes

    def fill(path: Path, content: bytes) -> None:
        if len(written) == 3:
            with atomic.clear_os_errors(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        whole(path, content)

    monkeypatch.setattr("sdxl_mel.files.cache.write_bytes", fill)
    return written


def test_a_full_disk_keeps_what_is_finished(
    writes: list[Path],
    tiles: Path,
    tiny_sdxl: Path,
    clean: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ResourceError, match=r"the disk is full .* free some space and run it again"):
        build(tiles, tiny_sdxl, tmp_path / "cache")
    assert all(path.exists() for path in writes)
    assert not (tmp_path / "cache" / "cache.json").exists()
    monkeypatch.setattr("sdxl_mel.files.cache.write_bytes", atomic.write_bytes)
    assert build(tiles, tiny_sdxl, tmp_path / "cache").encoded_pictures < 24
    assert contents(tmp_path / "cache") == clean


def test_a_vae_that_makes_nan_names_the_picture(tiles: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_sdxl, tmp_path / "broken"))
    file = broken / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.weight"] = tensors["encoder.conv_in.weight"] * 1e6
    save_file({key: value.half() for key, value in tensors.items()}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"\d{4}(-1)?\.png: the VAE \(float32\) makes NaN of it; .* --vae"):
        run(Build(dataset=tiles, base=str(broken), out=tmp_path / "cache"))


def test_specs_that_do_not_belong_together(copy: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_sdxl, tmp_path / "base"))
    (base / "melspec.json").write_text(PRESETS["mini"].to_json())
    with pytest.raises(MismatchError, match=r"different specs: .*n_mels 128 against 32"):
        run(Build(dataset=copy, base=str(base), out=tmp_path / "cache"))
    write_noise(copy / "train/0000.png", SMALL.model_copy(update={"hop_length": 64}), seed=1)
    with pytest.raises(MismatchError, match=r"0000\.png and its dataset .* hop_length 64 against 128"):
        run(Build(dataset=copy, base=str(tiny_sdxl), out=tmp_path / "cache"))
    write_noise(copy / "train/0000.png", SMALL.model_copy(update={"width": 32}), seed=1)
    with pytest.raises(MismatchError, match="width 32 against 64"):
        run(Build(dataset=copy, base=str(tiny_sdxl), out=tmp_path / "cache"))


def test_the_door(tiles: Path, tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "cache")
    assert main(["cache", "--out", out]) == 2
    assert "dataset is needed; base is needed" in capsys.readouterr().err
    assert main(["cache", "verify", "--out", out]) == 2
    assert main(["cache", "--dataset", str(tmp_path), "--base", str(tiny_sdxl), "--out", out]) == 2
    assert main(["cache", "--dataset", str(tiles), "--base", str(tiny_sdxl), "--out", out, "--quiet"]) == 0
    assert "cached 24 pictures" in capsys.readouterr().out
    assert main(["cache", "verify", "--out", out]) == 0
    assert main(["cache", "verify", "--out", out, "--base", "mini"]) == 2
    assert "--dataset and --base go together" in capsys.readouterr().err
    assert main(["cache", "prune", "--out", out]) == 0
