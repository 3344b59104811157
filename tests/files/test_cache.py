"""The cache on disk: rows come back bit for bit, and nothing damaged is read."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.files.cache import (
    Cache,
    CachedExample,
    CacheHeader,
    ShardHeader,
    check_rows,
    key_of,
    open_cache,
    read_shard,
    shard_name,
    write_cache,
    write_shard,
)
from sdxl_mel.record import Record
from tests.tiles import SMALL

SHAPE = (4, 4, 8)


def write_rows(
    folder: Path, kind: str, keys: list[str], shapes: tuple[tuple[int, ...], ...], per_shard: int
) -> list[str]:
    names = []
    for start in range(0, len(keys), per_shard):
        part = tuple(keys[start : start + per_shard])
        rows = (torch.randn(len(part), *shape) for shape in shapes)
        names.append(f"{kind}/{shard_name(kind, {}, part)}")
        header = ShardHeader(kind=kind, about={}, keys=part, labels=part if kind == "text" else ())
        write_shard(folder / names[-1], header, *rows)
    return names


def write_random_cache(folder: Path, clips: int, shape: tuple[int, ...] = SHAPE, per_shard: int = 1024) -> Path:
    pictures, texts = [key_of("p", i) for i in range(clips)], [key_of("t", i) for i in range(clips // 4 + 1)]
    examples = [
        CachedExample(key, f"train/{i}.png", f"track {i // 4}", 1.0, 1, "", (key,), (texts[i // 4],))
        for i, key in enumerate(pictures)
    ]
    shards = write_rows(folder, "latents", pictures, (shape, shape), per_shard)
    shards += write_rows(folder, "text", texts, ((7, 8), (5,)), per_shard)
    header = CacheHeader(
        spec=SMALL,
        anchor="mel spectrogram",
        clip_skip=0,
        identity={"vae": "a", "text_encoder": "b", "text_encoder_2": "c"},
        scaling_factor=0.5,
        empty_text=texts[-1],
        shards=tuple(shards),
        examples_sha256="",
        counts={"pictures": clips, "texts": len(texts)},
        record=Record(stage="cache"),
    )
    write_cache(folder, header, {"train": examples})
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return open_cache(write_random_cache(tmp_path / "cache", 20, per_shard=6))


def test_rows_come_back(cache: Cache) -> None:
    expected = {}
    for path in cache.folder.glob("latents/*.safetensors"):
        shard = read_shard(path)
        expected |= {key: shard.row(index) for index, key in enumerate(shard.header.keys)}
    assert len(cache.examples("train")) == 20 and cache.examples("test") == []
    for example in cache.examples("train"):
        mean, logvar = cache.latents(example.key)
        assert torch.equal(mean, expected[example.key][0]) and torch.equal(logvar, expected[example.key][1])
        hidden, pooled = cache.text(example.captions[0])
        assert hidden.shape == (7, 8) and pooled.shape == (5,)
        assert cache.caption(example.captions[0]) == example.captions[0]


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    header = ShardHeader(kind="latents", about={"b": "1", "a": "2"}, keys=("x", "y"))
    rows = torch.arange(16.0).reshape(2, 2, 2, 2)
    for name in ("one", "two"):
        write_shard(tmp_path / name, header, rows, -rows)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_rows_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    header = ShardHeader(kind="latents", about={}, keys=("x",))
    rows = torch.zeros(1, 2, 2, 2)
    with pytest.raises(InputError, match="not finite"):
        write_shard(tmp_path / "a", header, rows, rows / 0)
    path = tmp_path / "b"
    write_shard(path, header, rows + 1, rows)
    content = path.read_bytes()
    path.write_bytes(content.replace(torch.tensor(1.0).numpy().tobytes(), torch.tensor(torch.nan).numpy().tobytes()))
    with pytest.raises(FormatError, match="row 0 is not finite"):
        read_shard(path).row(0)


def test_a_flipped_bit_is_found(cache: Cache) -> None:
    path = next(cache.folder.glob("latents/*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="changed after they were written"):
        check_rows(read_shard(path))


@pytest.mark.parametrize("keep", [0, 4, 100, 700, -1])
def test_truncated_shard(cache: Cache, keep: int) -> None:
    path = next(cache.folder.glob("latents/*.safetensors"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"damaged or truncated shard .* run sdxl-mel cache again"):
        open_cache(cache.folder)


def test_damage_around_the_shards(cache: Cache, tmp_path: Path) -> None:
    folder = cache.folder
    with pytest.raises(InputError, match="no finished cache"):
        open_cache(tmp_path)
    lines = (folder / "examples.jsonl").read_text()
    (folder / "examples.jsonl").write_text(lines + lines)
    with pytest.raises(FormatError, match=r"not the list cache\.json was written with"):
        open_cache(folder)
    (folder / "examples.jsonl").write_text(lines)
    text = (folder / "cache.json").read_text()
    for broken, words in (
        (text.replace('"format": 1', '"format": 9'), "cache format 9, this toolkit reads 1"),
        (text.replace('"clip_skip": 0', '"clip_skip": "x"'), "clip_skip"),
        (text[:50], "not JSON"),
    ):
        (folder / "cache.json").write_text(broken)
        with pytest.raises(FormatError, match=words):
            open_cache(folder)
    (folder / "cache.json").write_text(text)
    next(folder.glob("text/*.safetensors")).unlink()
    with pytest.raises(FormatError, match="damaged or truncated"):
        open_cache(folder)


def test_latents_of_another_size_are_not_read(tmp_path: Path) -> None:
    cache = open_cache(write_random_cache(tmp_path, 2, shape=(4, 2, 2)))
    with pytest.raises(FormatError, match=r"have shape \(4, 2, 2\)"):
        cache.latents(cache.examples("train")[0].key)


def test_another_base_is_named(cache: Cache) -> None:
    cache.require_identity({"vae": "a", "unet": "z"}, "base")
    with pytest.raises(MismatchError, match=r"made with another vae and text_encoder_2 than mini has"):
        cache.require_identity({"vae": "x", "text_encoder": "b", "text_encoder_2": "y"}, "mini")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory of a process from /proc")
def test_ten_thousand_pictures_open_quickly_in_little_memory(tmp_path: Path) -> None:
    write_random_cache(tmp_path, 10_000, shape=(4, 2, 2))
    program = (
        "import time; from pathlib import Path; from sdxl_mel.files.cache import open_cache\n"
        f"start = time.process_time(); cache = open_cache(Path({str(tmp_path)!r}))\n"
        "status = dict(line.split(':') for line in Path('/proc/self/status').read_text().splitlines())\n"
        "print(len(cache.examples('train')), time.process_time() - start, status['VmHWM'].split()[0])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    clips, seconds, kilobytes = map(float, output.stdout.split())
    assert clips == 10_000
    assert seconds < 2
    assert kilobytes < 300_000
