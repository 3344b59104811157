"""Damaged inputs and odd settings by the thousand through every command.

Only our own errors may come of them, and whole files, and no input may be lost unsaid.

python tools/fuzz.py                                  # 2,000 cases over all commands
python tools/fuzz.py --cases 300 --seed 5 --commands encode prepare
python tools/fuzz.py --only 1234 --keep               # one case again, its files kept

A case takes good inputs, damages one or gives a setting an odd value, calls a command in this process by
`sdxl_mel.cli.main`, and checks that
- nothing is raised, and the exit code is one of those that the commands have;
- an error is one line;
- every file in --out is whole, and none is temporary;
- of several inputs each is in the output or named in what was printed.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from sdxl_mel.cli import main as sdxl_mel
from sdxl_mel.commands import COMMANDS
from sdxl_mel.names import group_of, settings_of

RATE = 16000
SOUND_SECONDS = 6.5
PACKAGE = Path(__file__).parents[1] / "sdxl_mel"
CODES = {0, 1, 2, 3}
LONGEST_SECONDS = 120
MEMORY = 12 << 30
FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF", "w64": "W64", "caf": "CAF"}
TRAIN = ("--base", "mini", "--batch", "1", "--validation.every", "0", "--regularization.share", "0")
HOSTILE_STEMS = (
    b"caf\xe9",
    b"-x",
    b"--out",
    b"two words",
    b"new\nline",
    b"[a]",
    b"*",
    b"%s{0}$HOME",
    b"a" * 200,
    "音楽🎵".encode(),
    "e\u0301".encode(),
    b"\xf0\x9f",
    b"a.b.c",
    b"quote'\"`",
    b"tab\there",
    b"con",
    b"back\\slash",
    b"[red]bold[/red]",
    b"\xe2\x80\xa8",
)
HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    float("nan"),
    float("inf"),
    -1,
    0,
    10**30,
    1e300,
    "",
    "x" * 5000,
    [],
    {},
    [[[[]]]],
    True,
    "../../etc/passwd",
    "C:\\Users\\me",
    "a\0b",
    "\ud800",
    "nan",
    "\u2028",
    {"": None},
)


class TookTooLongError(Exception):
    """A command did not end in time."""


@dataclass
class Case:
    """One case: its folder, its own randomness, and what it can be made of."""

    folder: Path
    random: random.Random
    material: "Material"
    inputs: list[Path] = field(default_factory=list)
    made: Callable[[Path], bool] | None = None

    @property
    def out(self) -> Path:
        """Return where the command writes."""
        return self.folder / "out"

    def good(self, source: Path, name: str | bytes | None = None) -> Path:
        """Copy a good file into the case."""
        path = self.place(name or source.name)
        shutil.copyfile(source, path)
        return path

    def bad(self, source: Path, name: str | bytes | None = None) -> Path:
        """Copy a file into the case, damaged; sometimes it is only its name that is unusual."""
        path = self.place(name or source.name)
        content = source.read_bytes()
        match self.random.random():
            case share if share < 0.03:
                path.symlink_to(self.folder / "nowhere")
            case share if share < 0.05:
                path.mkdir()
            case share if share < 0.12 and name is None:
                path = self.place(self.random.choice(HOSTILE_STEMS) + source.suffix.encode())
                path.write_bytes(content)
            case _:
                path.write_bytes(damaged(content, source.suffix, self))
        return path

    def place(self, name: str | bytes) -> Path:
        """Return where an input of this name lies."""
        path = self.folder / "in" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def damaged(content: bytes, suffix: str, case: Case) -> bytes:
    """Return the bytes of a file with some damage that fits its kind, or any."""
    draw = case.random
    if suffix == ".safetensors" and draw.random() < 0.5:
        return damaged_tensors(content, draw)
    if suffix in (".json", ".jsonl") and draw.random() < 0.6:
        return damaged_json(content, draw)
    if suffix in (".toml", ".txt", ".csv") and draw.random() < 0.6:
        return damaged_text(content, draw)
    return draw.choice(BYTE_DAMAGES)(content, draw, case.material)


def cut_off(content: bytes, draw: random.Random, _: "Material") -> bytes:
    """Return the beginning."""
    return content[: draw.randrange(len(content) + 1)]


def replaced(content: bytes, draw: random.Random, material: "Material") -> bytes:
    """Return something else: nothing, a pointer, an empty document, or a file of another kind."""
    others = (b"", b"hello", bytes(1000), b"version https://git-lfs.github.com/spec/v1\n", b"{}", b"[]")
    return draw.choice((*others, *(path.read_bytes() for path in draw.sample(material.of_all_kinds, 3))))


def continued(content: bytes, draw: random.Random, _: "Material") -> bytes:
    """Return it with something behind."""
    return content + draw.choice((content, bytes(200), draw.randbytes(200), b"TAG" + bytes(125)))


def stretched(content: bytes, draw: random.Random, _: "Material") -> bytes:
    """Return it with something between."""
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.randbytes(draw.choice((1, 7, 500))) + content[at:]


def with_a_hole(content: bytes, draw: random.Random, _: "Material") -> bytes:
    """Return it without a part."""
    at = draw.randrange(len(content) + 1)
    return content[:at] + content[at + draw.choice((1, 7, 500, 5000)) :]


def flipped(content: bytes, draw: random.Random, _: "Material") -> bytes:
    """Return it with some bytes changed, often near the beginning, where headers are."""
    changed = bytearray(content)
    reach = min(draw.choice((64, 512, len(content))), len(content))
    for _count in range(draw.choice((1, 1, 3, 40)) if changed else 0):
        at = draw.randrange(reach)
        changed[at] = draw.choice((0, 255, draw.randrange(256), changed[at] ^ 1))
    return bytes(changed)


BYTE_DAMAGES = (cut_off, replaced, continued, stretched, with_a_hole, flipped, flipped, flipped)


def damaged_value(value: Any, draw: random.Random) -> Any:
    """Return nested values with one of them changed, removed or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        match draw.randrange(6):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return value | {key + "_": value[key]}
            case _:
                return value | {key: damaged_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        return [*value[:at], *([] if draw.random() < 0.2 else [damaged_value(value[at], draw)]), *value[at + 1 :]]
    return draw.choice(HOSTILE_VALUES)


def damaged_json(content: bytes, draw: random.Random) -> bytes:
    """Return JSON, or lines of it, with one value changed."""
    if draw.random() < 0.1:
        return b"[" * 100_000
    try:
        return json.dumps(damaged_value(json.loads(content), draw)).encode("utf-8", "surrogatepass")
    except ValueError:
        lines = content.splitlines() or [b"{}"]
        at = draw.randrange(len(lines))
        lines[at] = json.dumps(damaged_value(json.loads(lines[at]), draw)).encode("utf-8", "surrogatepass")
        return b"\n".join(lines) + b"\n"


def damaged_tensors(content: bytes, draw: random.Random) -> bytes:
    """Return a safetensors file with a damaged header, or numbers that are none."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if draw.random() < 0.3:
        data = bytearray(content)
        for _ in range(8):
            at = 8 + size + draw.randrange(max(1, len(content) - size - 16))
            data[at : at + 8] = b"\xff" * 8
        return bytes(data[: len(content)])
    names = [name for name in header if name != "__metadata__"]
    match draw.randrange(6):
        case 0 if header.get("__metadata__"):
            key = draw.choice(list(header["__metadata__"]))
            header["__metadata__"][key] = draw.choice(
                ("", "{}", "null", "nan", "x" * 9000, "[" * 5000, '{"version": 9}')
            )
        case 1 if header.get("__metadata__"):
            key = draw.choice(list(header["__metadata__"]))
            try:
                header["__metadata__"][key] = json.dumps(damaged_value(json.loads(header["__metadata__"][key]), draw))
            except ValueError:
                del header["__metadata__"][key]
        case 2:
            name = draw.choice(names)
            header[draw.choice((name + "x", "lora_unet_" + name, name.replace("_", "."), "", "a" * 300))] = header.pop(
                name
            )
        case 3:
            entry = header[draw.choice(names)]
            entry["shape"] = draw.choice(
                (entry["shape"][::-1], [*entry["shape"], 1], [int(np.prod(entry["shape"]))], [0], [])
            )
        case 4:
            entry = header[draw.choice(names)]
            entry["dtype"] = draw.choice(("F16", "BF16", "I32", "F64", "F8_E4M3", "F8_E5M2", "U8", "BOOL", "X9"))
        case _:
            header = damaged_value(header, draw)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def damaged_text(content: bytes, draw: random.Random) -> bytes:
    """Return text with one line, cell or value damaged."""
    lines = content.split(b"\n")
    at = draw.randrange(len(lines))
    match draw.randrange(9):
        case 0:
            return draw.choice(
                (b"\xef\xbb\xbf" + content, content.decode("utf-8").encode("utf-16"), content + b"\xff\xfe")
            )
        case 1:
            lines[at] += draw.choice((b'"', b",,,,", b"\0", b"\xe9", b";", b"\t", "\u2028".encode(), b"\r"))
        case 2:
            lines[at] = lines[at].replace(b",", b"", 1)
        case 3:
            lines[at] = b'"' + lines[at]
        case 4:
            del lines[at]
        case 5:
            lines[at : at + 1] = [lines[at], lines[at]]
        case 6:
            head, mark, _ = lines[at].partition(b"=")
            value = draw.choice(
                (
                    b"nan",
                    b"-1",
                    b"1e999",
                    b'"x"',
                    b"[]",
                    b"{}",
                    b'"C:\\Users\\me"',
                    b"[1, 'a']",
                    b"true",
                    b"99999999999999999999",
                )
            )
            lines[at] = head + mark + b" " + value if mark else value
        case 7:
            lines[at] = draw.choice((b"", b"x" * 100_000, b"=1+1", b"[a]\n[a]", b"# only a remark"))
        case _:
            return content.replace(b"\n", draw.choice((b"\r", b"\r\n", b"\n\n")))
    return b"\n".join(lines)


class Material:
    """Good inputs of every kind, each made when it is first needed, by the commands themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _call(self, *words: str | Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            code = sdxl_mel([*map(str, words), "--quiet"])
        assert code in (0, 3), f"{words}: the inputs cannot be made"

    @cached_property
    def sounds(self) -> list[Path]:
        """Return a short sound of every kind."""
        folder = self.folder / "sounds"
        folder.mkdir()
        noise = np.random.default_rng(0).standard_normal((int(SOUND_SECONDS * RATE), 2)) * 0.1
        noise *= np.linspace(0.2, 1.0, len(noise))[:, None]
        for suffix, container in FORMATS.items():
            soundfile.write(folder / f"{suffix}-song.{suffix}", noise, RATE, format=container)
        return sorted(folder.iterdir())

    @cached_property
    def picture(self) -> Path:
        """Return a narrow picture."""
        self._call(
            "encode", self.sounds[0], "--preset", "mini", "--seconds", "0.4", "--out", self.folder / "picture.png"
        )
        return self.folder / "picture.png"

    @cached_property
    def songs(self) -> Path:
        """Return a folder of songs with captions beside them."""
        folder = self.folder / "songs"
        folder.mkdir()
        for number in range(3):
            shutil.copyfile(self.sounds[number], folder / f"song{number}{self.sounds[number].suffix}")
            (folder / f"song{number}.txt").write_text(f"slow piano number {number}\ncalm, piano\n")
        return folder

    @cached_property
    def table(self) -> Path:
        """Return a table of captions, as it lies beside the songs."""
        rows = [f"song{number}{sound.suffix},slow piano {number},me" for number, sound in enumerate(self.sounds[:3])]
        path = self.folder / "songs.csv"
        path.write_text("\n".join(["file_name,caption,artist", *rows]) + "\n")
        return path

    @cached_property
    def lines(self) -> Path:
        """Return the same as JSON lines."""
        path = self.folder / "songs.jsonl"
        rows = [
            {"file_name": f"song{number}{sound.suffix}", "caption": f"slow piano {number}", "tags": ["calm"]}
            for number, sound in enumerate(self.sounds[:3])
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    @cached_property
    def dataset(self) -> Path:
        """Return a prepared dataset."""
        out = self.folder / "dataset"
        self._call("prepare", self.songs, "--preset", "mini", "--validation", "0", "--test", "0", "--out", out)
        return out

    @cached_property
    def cache(self) -> Path:
        """Return its cache."""
        self._call("cache", "--dataset", self.dataset, "--base", "mini", "--out", self.folder / "cache")
        return self.folder / "cache"

    @cached_property
    def run(self) -> Path:
        """Return a run of one step."""
        self._call(
            "train", *TRAIN, "--steps", "1", "--save-every", "1", "--cache", self.cache, "--out", self.folder / "run"
        )
        return self.folder / "run"

    @cached_property
    def lora(self) -> Path:
        """Return a LoRA of a few modules of SDXL, under kohya's names."""
        path, draw = self.folder / "lora.safetensors", torch.Generator().manual_seed(0)
        tensors = {}
        for block in ("down_blocks_1", "up_blocks_1"):
            for layer in ("to_q", "to_k", "to_out_0"):
                width = 2048 if layer == "to_k" else 640
                name = f"lora_unet_{block}_attentions_0_transformer_blocks_0_attn2_{layer}"
                tensors[f"{name}.lora_down.weight"] = torch.randn(2, width, generator=draw)
                tensors[f"{name}.lora_up.weight"] = torch.randn(640, 2, generator=draw)
                tensors[f"{name}.alpha"] = torch.tensor(1.0)
        save_file(tensors, path, metadata={"ss_network_module": "networks.lora", "ss_network_alpha": "1.0"})
        return path

    @cached_property
    def fused(self) -> Path:
        """Return mini as a single file."""
        out = self.folder / "fused.safetensors"
        self._call("fuse", "--base", "mini", "--lora", self.run / "lora.safetensors", "--out", out)
        return out

    @cached_property
    def evaluation(self) -> Path:
        """Return the result of an evaluation."""
        words = ["--generated", self.songs, "--reference", self.songs, "--embedder", "mel", "--no-report"]
        self._call("evaluate", *words, "--out", self.folder / "evaluation")
        return self.folder / "evaluation" / "metrics.json"

    @cached_property
    def prompts(self) -> list[Path]:
        """Return files of prompts of every kind."""
        contents = {
            "prompts.txt": "slow piano\n# a remark\nfast drums\n",
            "prompts.csv": 'prompt,seed,num\nslow piano,1,1\n"fast, loud drums",2,1\n',
            "prompts.jsonl": '{"prompt": "slow piano", "seed": 1}\n{"prompt": "drums", "num": 1}\n',
        }
        for name, content in contents.items():
            (self.folder / name).write_text(content)
        return [self.folder / name for name in contents]

    @cached_property
    def settings(self) -> Path:
        """Return the settings of `encode` as a config."""
        path = self.folder / "encode.toml"
        path.write_text('preset = "mini"\nstart = 0.1\nseconds = 0.4\njobs = 1\n')
        return path

    @cached_property
    def of_all_kinds(self) -> list[Path]:
        """Return files of all kinds, each of which may lie where another should."""
        return [*self.sounds, self.picture, self.lora, self.table, self.lines, self.settings, *self.prompts]


Recipe = Callable[[Case], list[str | Path]]
"""Puts the inputs of a case into its folder and returns the words of the command."""


def encode(case: Case) -> list[str | Path]:
    """Encode a folder of sounds, one of them damaged."""
    sounds = case.random.sample(case.material.sounds, 2)
    case.inputs = [case.good(sounds[0]), case.bad(sounds[1])]
    case.made = lambda path: (case.out / f"{path.stem}.png").is_file()
    return ["encode", case.folder / "in", "--preset", "mini", "--seconds", "0.4", "--out", case.out]


def encode_one(case: Case) -> list[str | Path]:
    """Encode a damaged sound, with a damaged config."""
    sound = case.bad(case.random.choice(case.material.sounds))
    config = case.bad(case.material.settings) if case.random.random() < 0.5 else case.good(case.material.settings)
    return ["encode", f"./{sound.relative_to(case.folder)}", "--config", config, "--out", "out/a.png"]


def invert(case: Case) -> list[str | Path]:
    """Invert a folder of pictures, one of them damaged."""
    case.inputs = [case.good(case.material.picture, "good.png"), case.bad(case.material.picture)]
    case.made = lambda path: (case.out / f"{path.stem}.wav").is_file()
    return ["invert", case.folder / "in", "--method", "fast", "--out", case.out]


def inspect(case: Case) -> list[str | Path]:
    """Inspect a damaged file of any kind."""
    return ["inspect", case.bad(case.random.choice(case.material.of_all_kinds))]


def roundtrip(case: Case) -> list[str | Path]:
    """Measure a damaged sound."""
    sound = case.bad(case.random.choice(case.material.sounds))
    return ["roundtrip", sound, "--preset", "mini", "--seconds", "0.4", "--out", case.out / "ladder.json"]


def cut(case: Case) -> list[str | Path]:
    """Cut a damaged picture."""
    return ["cut", case.bad(case.material.picture), "--width", "16", "--overlap", "4", "--out", case.out]


def stitch(case: Case) -> list[str | Path]:
    """Stitch three pictures, one of them damaged."""
    case.inputs = [case.good(case.material.picture, "1.png"), case.good(case.material.picture, "2.png")]
    case.inputs.append(case.bad(case.material.picture, "3.png"))
    case.made = lambda path: True
    return ["stitch", case.folder / "in", "--overlap", "8", "--out", case.out / "long.png"]


def prepare(case: Case) -> list[str | Path]:
    """Prepare songs with side-cars, one song or one side-car damaged."""
    songs = sorted(case.material.songs.iterdir())
    victim = case.random.choice(songs)
    for path in songs:
        placed = case.bad(path) if path == victim else case.good(path)
        if path.suffix != ".txt":
            case.inputs.append(placed)
    return _prepare(case, case.folder / "in")


def prepare_table(case: Case) -> list[str | Path]:
    """Prepare songs named in a damaged table, given itself or found in a folder beside folders with good ones."""
    table = case.random.choice((case.material.table, case.material.lines))
    songs = [path for path in sorted(case.material.songs.iterdir()) if path.suffix != ".txt"]
    if case.random.random() < 0.5:
        for path in songs:
            case.good(path)
        words = _prepare(case, case.bad(table))
        case.made = None  # Without its table nothing is known of a song.
        return words
    first, second, third = songs
    case.bad(table, f"bad/metadata{table.suffix}")
    case.good(third.with_suffix(".txt"), f"good/{third.stem}.txt")
    case.good(table, f"better/metadata{table.suffix}")
    case.inputs = [
        case.good(first, f"bad/{first.name}"),
        case.good(second, f"better/{second.name}"),
        case.good(third, f"good/{third.name}"),
    ]
    return _prepare(case, case.folder / "in")


def _prepare(case: Case, music: Path) -> list[str | Path]:
    def made(path: Path) -> bool:
        rows = [line for found in case.out.glob("*/metadata.jsonl") for line in found.read_text().splitlines()]
        tracks = {json.loads(row)["track"] for row in rows}
        return path.name in tracks or any(path.stem in track for track in tracks)

    case.made = made
    return ["prepare", music, "--preset", "mini", "--jobs", "1", "--validation", "0", "--test", "0", "--out", case.out]


def _damaged_folder(case: Case, source: Path, suffixes: tuple[str, ...]) -> Path:
    """Copy a folder into the case with one file of a kind damaged."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    victim = case.random.choice([path for path in files if path.suffix in suffixes])
    for path in files:
        name = path.relative_to(source).as_posix()
        _ = case.bad(path, name) if path == victim else case.good(path, name)
    return case.folder / "in"


def cache(case: Case) -> list[str | Path]:
    """Cache a damaged dataset."""
    dataset = _damaged_folder(case, case.material.dataset, (".png", ".json", ".jsonl"))
    return ["cache", "--dataset", dataset, "--base", "mini", "--out", case.out]


def cache_verify(case: Case) -> list[str | Path]:
    """Verify a damaged cache."""
    return ["cache", "verify", "--out", _damaged_folder(case, case.material.cache, (".safetensors", ".json", ".jsonl"))]


def vae_audit(case: Case) -> list[str | Path]:
    """Audit a damaged dataset."""
    dataset = _damaged_folder(case, case.material.dataset, (".png", ".json", ".jsonl"))
    return ["vae-audit", "--dataset", dataset, "--base", "mini", "--clips", "2", "--sounds", "0", "--out", case.out]


def train(case: Case) -> list[str | Path]:
    """Train on a damaged cache."""
    folder = _damaged_folder(case, case.material.cache, (".safetensors", ".json", ".jsonl"))
    return ["train", *TRAIN, "--steps", "1", "--cache", folder, "--out", case.out]


def train_config(case: Case) -> list[str | Path]:
    """Plan a run by a damaged config."""
    config = case.bad(case.material.run / "config.toml")
    return ["train", "--config", config, "--cache", case.material.cache, "--out", case.out, "--dry-run"]


def train_resume(case: Case) -> list[str | Path]:
    """Resume a damaged run."""
    run = _damaged_folder(case, case.material.run, (".safetensors", ".json", ".jsonl", ".toml"))
    return ["train", *TRAIN, "--steps", "2", "--cache", case.material.cache, "--out", run, "--resume"]


def lora(case: Case) -> list[str | Path]:
    """Do something with a damaged LoRA."""
    bad, good = case.bad(case.material.lora), case.material.lora
    out = ["--out", case.out / "out.safetensors"]
    return case.random.choice(
        (
            ["lora", "info", bad],
            ["lora", "convert", bad, "--to", "diffusers", *out],
            ["lora", "convert", bad, *out],
            ["lora", "resize", bad, "--rank", "1", *out],
            ["lora", "compare", good, bad],
            ["lora", "merge", good, bad, *out],
        )
    )


def fuse(case: Case) -> list[str | Path]:
    """Fuse a damaged LoRA, or into a damaged base."""
    lora_file, out = case.material.run / "lora.safetensors", case.out / "fused.safetensors"
    if case.random.random() < 0.3:
        return ["fuse", "--base", case.bad(case.material.fused), "--lora", lora_file, "--out", out]
    return ["fuse", "--base", "mini", "--lora", case.bad(lora_file), "--out", out]


def generate(case: Case) -> list[str | Path]:
    """Draw with damaged prompts or a damaged LoRA."""
    words: list[str | Path] = ["generate", "--base", "mini", "--steps", "1", "--format", "none", "--out", case.out]
    if case.random.random() < 0.6:
        return [*words, "--prompts", case.bad(case.random.choice(case.material.prompts))]
    return [*words, "--prompt", "piano", "--lora", case.bad(case.material.run / "lora.safetensors")]


def trajectories(case: Case) -> list[str | Path]:
    """Draw trajectories of damaged prompts."""
    words: list[str | Path] = ["trajectories", "--base", "mini", "--count", "1", "--steps", "2", "--out", case.out]
    return [*words, "--prompts", case.bad(case.random.choice(case.material.prompts))]


def export(case: Case) -> list[str | Path]:
    """Export a damaged base."""
    return ["export", "--base", case.bad(case.material.fused), "--onnx-only", "--out", case.out / "models"]


def edit(case: Case) -> list[str | Path]:
    """Edit a damaged sound or picture."""
    start = case.bad(case.random.choice((*case.material.sounds, case.material.picture)))
    return ["edit", start, "--base", "mini", "--steps", "2", "--prompt", "piano", "--out", case.out / "a.wav"]


def vary(case: Case) -> list[str | Path]:
    """Vary a damaged sound or picture."""
    start = case.bad(case.random.choice((*case.material.sounds, case.material.picture)))
    return ["vary", "--base", "mini", "--steps", "2", "--prompt", "piano", "--source", start, "--out", case.out]


def evaluate(case: Case) -> list[str | Path]:
    """Evaluate a folder with a damaged sound."""
    sounds = case.random.sample(case.material.sounds, 3)
    case.inputs = [case.good(sounds[0]), case.good(sounds[1]), case.bad(sounds[2])]

    def made(path: Path) -> bool:
        content = json.loads((case.out / "metrics.json").read_text())
        return any(path.stem in name for name in content["sets"]["generated"]["files"])

    case.made = made
    words = ["--generated", case.folder / "in", "--reference", case.material.songs, "--embedder", "mel", "--no-report"]
    return ["evaluate", *words, "--out", case.out]


def compare(case: Case) -> list[str | Path]:
    """Compare an evaluation with a damaged one."""
    return ["compare", case.material.evaluation, case.bad(case.material.evaluation), "--out", case.out]


def convert_clap(case: Case) -> list[str | Path]:
    """Convert what is no checkpoint."""
    checkpoint = case.bad(case.random.choice(case.material.of_all_kinds), "clap.pt")
    return ["convert-clap", checkpoint, "--out", case.out]


ODD_WORDS = (
    *("", " ", "-", "=", ":", ",", "~", "x", "none", "true", "[1]", "%s{0}", "a\nb", "é音🎵", "\udc80", "a" * 300),
    *("nan", "inf", "-1", "0", "0.5", "1e400", "1e-300", "9" * 20, "1-", "0:1:2", "nan:1", "cuda:99"),
    *("/proc/x/y", "/etc/passwd", "/", "../.."),
)
"""What may be given by mistake where a number, a name, a device or a place is meant."""


def odd_setting(case: Case) -> list[str | Path]:
    """Give one setting of a good command line a value that nobody meant."""
    made, out = case.material, case.out
    tile = ("--base", "mini", "--steps", "1", "--method", "fast")
    lines: tuple[list[str | Path], ...] = (
        ["encode", made.sounds[0], "--preset", "mini", "--seconds", "0.4", "--out", out / "a.png"],
        ["invert", made.picture, "--method", "fast", "--out", out / "a.wav"],
        ["roundtrip", made.sounds[0], "--preset", "mini", "--seconds", "0.4", "--out", out / "ladder.json"],
        ["inspect", made.picture],
        ["prepare", made.songs, "--preset", "mini", "--jobs", "1", "--out", out],
        ["cache", "--dataset", made.dataset, "--base", "mini", "--out", out],
        ["vae-audit", "--dataset", made.dataset, "--base", "mini", "--clips", "2", "--sounds", "0", "--out", out],
        ["trajectories", "--base", "mini", "--cache", made.cache, "--count", "1", "--steps", "2", "--out", out],
        ["train", *TRAIN, "--steps", "1", "--cache", made.cache, "--out", out],
        ["fuse", "--base", "mini", "--lora", made.run / "lora.safetensors", "--out", out / "fused.safetensors"],
        ["generate", *tile, "--prompt", "piano", "--out", out],
        ["edit", made.sounds[0], *tile, "--prompt", "piano", "--out", out / "a.wav"],
        ["vary", *tile, "--prompt", "piano", "--seeds", "0", "1", "--out", out],
        ["stitch", made.picture, made.picture, "--overlap", "8", "--out", out / "long.png"],
        ["cut", made.picture, "--width", "16", "--overlap", "4", "--out", out],
        ["evaluate", "--generated", made.songs, "--reference", made.songs, "--embedder", "mel", "--out", out],
        ["compare", made.evaluation, made.evaluation, "--out", out],
    )
    name, *words = case.random.choice(lines)
    command = COMMANDS[str(name)]
    settings = settings_of(command.actions()[command.default_action() or ""].settings)
    single = [each for each, field in settings if group_of(field.annotation) is None]
    flag = f"--{case.random.choice(single).rstrip('_').replace('_', '-')}"
    if flag in words:
        place = words.index(flag)
        del words[place : place + 2]
    return [name, *words, f"{flag}={case.random.choice(ODD_WORDS)}"]


RECIPES: dict[Recipe, int] = {
    encode: 24,
    encode_one: 10,
    invert: 16,
    inspect: 14,
    roundtrip: 2,
    cut: 6,
    stitch: 6,
    prepare: 6,
    prepare_table: 8,
    cache: 2,
    cache_verify: 6,
    vae_audit: 1,
    train: 2,
    train_config: 4,
    train_resume: 2,
    lora: 20,
    fuse: 3,
    generate: 5,
    trajectories: 1,
    export: 1,
    edit: 1,
    vary: 1,
    evaluate: 3,
    compare: 8,
    convert_clap: 2,
    odd_setting: 30,
}
"""By recipe: how often it is drawn."""


@dataclass(frozen=True)
class Fault:
    """What a case showed: which, of which command, where in the package, and what."""

    number: int
    command: str
    place: str
    what: str


def run_case(recipe: Recipe, number: int, seed: int, material: Material, folder: Path) -> Iterator[Fault]:
    """Run one case and yield its faults."""
    case = Case(folder, random.Random(f"{seed} {number}"), material)
    words = [str(word) for word in recipe(case)]
    output, errors = io.StringIO(), io.StringIO()
    code: int | None = None
    with contextlib.chdir(folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            with _limited():
                code = sdxl_mel([*words, "--progress", "none"])
        except BaseException as error:  # noqa: BLE001  What else a command raises is what is looked for.
            if isinstance(error, KeyboardInterrupt):
                raise
            yield Fault(number, recipe.__name__, place_of(error), f"{type(error).__name__}: {error}"[:200])
    if code is None:
        return
    name, said = recipe.__name__, output.getvalue() + errors.getvalue()
    if code not in CODES:
        yield Fault(number, name, "", f"exit code {code}")
    one_line = len(errors.getvalue().strip().splitlines()) == 1 or any("\n" in path.name for path in folder.rglob("*"))
    if code == 2 and not one_line:
        yield Fault(number, name, "", f"an error of several lines: {errors.getvalue()[-300:]!r}")
    if " object at 0x" in said:
        yield Fault(number, name, "", f"an object in a message: {said[-200:]!r}")
    yield from (Fault(number, name, "", f"not whole: {what}") for what in broken_files(case.out))
    if code == 2 and case.made is not None:
        yield Fault(number, name, "", f"good inputs did not survive: {errors.getvalue().strip()[-300:]!r}")
    if code in (0, 3) and case.made is not None:
        flat = "".join(said.split())
        for path in case.inputs:
            shown = "".join(os.fsencode(path.stem).decode("utf-8", "backslashreplace").split())
            if not case.made(path) and shown not in flat and not path.is_dir():
                yield Fault(number, name, "", f"lost without a word: {path.name!r}; said: {said[-200:]!r}")


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Stop what takes too long."""

    def stop(*_: object) -> None:
        raise TookTooLongError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def place_of(error: BaseException) -> str:
    """Return the innermost line of the package in a trace."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(PACKAGE)
    ]
    return f"{Path(frames[-1].filename).relative_to(PACKAGE.parent)}:{frames[-1].lineno}" if frames else ""


def broken_files(out: Path) -> Iterator[str]:
    """Yield the files under a folder that are temporary, or not what their name says."""
    readers: dict[str, Callable[[Path], object]] = {
        ".png": lambda path: Image.open(path).load(),
        ".wav": soundfile.read,
        ".json": lambda path: json.loads(path.read_text()),
        ".jsonl": lambda path: [json.loads(line) for line in path.read_text().split("\n") if line],
        ".safetensors": lambda path: safe_open(path, "pt").keys(),
    }
    for path in sorted(out.rglob("*")) if out.is_dir() else ():
        if path.name.endswith(".tmp"):
            yield f"{path.name}: temporary"
        try:
            readers.get(path.suffix, lambda _: None)(path)
        except Exception as error:  # noqa: BLE001  Whatever a reader says, the file is broken.
            yield f"{path.name}: {error}"


def fuzz(
    folder: Path, numbers: Sequence[int], seed: int, recipes: dict[Recipe, int], keep: bool
) -> Iterator[Fault | None]:
    """Run the cases of these numbers in an empty folder; yield their faults, and None after each case."""
    material = Material(folder / "material")
    material.folder.mkdir()
    for number in numbers:
        (recipe,) = random.Random(f"{seed} {number} recipe").choices(list(recipes), list(recipes.values()))
        place = folder / f"{number:05}"
        (place / "in").mkdir(parents=True)
        yield from run_case(recipe, number, seed, material, place)
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
        yield None


def main() -> int:
    """Run cases as the command line says; return 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=[recipe.__name__ for recipe in RECIPES])
    parser.add_argument("--only", type=int, help="the number of a single case")
    parser.add_argument("--keep", action="store_true", help="keep the files of the cases")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    recipes = {
        recipe: n for recipe, n in RECIPES.items() if not options.commands or recipe.__name__ in options.commands
    }
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    done, faults = 0, []
    numbers = range(options.cases) if options.only is None else (options.only,)
    found = fuzz(folder, numbers, options.seed, recipes, options.keep)
    for fault in found:
        if fault is None:
            done += 1
            if done % 100 == 0:
                print(f"{done} cases, {len(faults)} faults", file=sys.stderr, flush=True)
            continue
        faults.append(fault)
        print(f"case {fault.number} {fault.command} {fault.place}: {fault.what}", flush=True)
    print(f"{done} cases of seed {options.seed}, {len(faults)} faults")
    for (command, place), count in Counter(
        (fault.command, fault.place or fault.what[:40]) for fault in faults
    ).most_common():
        print(f"{count:5} {command} {place}")
    if options.keep:
        print(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
