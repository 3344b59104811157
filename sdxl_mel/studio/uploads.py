"""Files that a page gives: streamed to the disk, then looked at in a process of its own that may take little.

`python -m sdxl_mel.studio.uploads FILE` is that process: it decodes the file and prints what it is, or why it cannot
be used. What it prints is all that the server reads of it.
"""

import asyncio
import json
import os
import re
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import soundfile

from sdxl_mel.errors import FormatError, InputError, SdxlMelError
from sdxl_mel.files.atomic import clear_os_errors
from sdxl_mel.files.audio import AUDIO_SUFFIXES, read_audio
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.record import sha256_file
from sdxl_mel.studio.artefacts import kind_of_weights
from sdxl_mel.studio.drawing import OFFLINE

MOST_BYTES = 1 << 30
MOST_SECONDS = 1800
MOST_MEMORY = 4 << 30
MOST_CPU_SECONDS = 60
SUFFIXES = AUDIO_SUFFIXES | {".png", ".safetensors"}
_numbers = count(1)


def name_of(text: str) -> str:
    """Return a file name in which nothing is special. Raises InputError for a kind of file that is not taken."""
    path = Path(text.replace("\\", "/").rpartition("/")[2])
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"name: found {text[-60:]!r}; a sound, one of our pictures (.png) or a LoRA (.safetensors) is taken"
        )
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-")[:60] or "file"
    return stem + suffix


async def taken(folder: Path, name: str, pieces: AsyncIterator[bytes], root: Path) -> tuple[Path, dict[str, Any]]:
    """Write an upload into `folder` and return its path and what it is; the same bytes have the same path.

    Raises InputError for what cannot be used, ResourceError for a full disk; nothing of it then stays.
    """
    plain = name_of(name)
    with clear_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        arriving = folder / f".{next(_numbers)}.{os.getpid()}{Path(plain).suffix}"
        try:
            with arriving.open("wb") as file:
                async for piece in pieces:
                    file.write(piece)
            found = await examined(arriving, plain, root)
            path = folder / f"{sha256_file(arriving)[:12]}-{plain}"
            arriving.replace(path)
        finally:
            arriving.unlink(missing_ok=True)
    return path, found


async def examined(path: Path, name: str, root: Path) -> dict[str, Any]:
    """Return what a file is. Raises InputError for one that cannot be used, or is not understood in time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "sdxl_mel.studio.uploads",
        str(path),
        cwd=root,
        env={**os.environ, **OFFLINE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        found = {"error": "cannot be decoded with the memory and the time that an upload may take"}
    if error := found.get("error"):
        raise InputError(f"{name}: {str(error).removeprefix(f'{path}: ')}")
    return found


def examine(path: Path) -> dict[str, Any]:
    """Return the kind of a file and what is known of it, all of it decoded once. Raises FormatError, InputError."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        if kind_of_weights(path) != "lora":
            raise FormatError("not a LoRA: none of its tensors has a name of one")
        return {"kind": "lora"}
    if suffix == ".png":
        picture = read_spectrogram(path)
        frames = picture.levels.shape[1]
        seconds = frames * picture.spec.hop_length / picture.spec.sample_rate
        return {"kind": "picture", "seconds": seconds, "spec": picture.spec.model_dump(mode="json")}
    try:
        header = soundfile.info(path)
    except soundfile.SoundFileError as error:
        raise FormatError("not a readable sound file") from error
    if header.duration > MOST_SECONDS:
        raise InputError(f"{header.duration:.0f} s long; at most {MOST_SECONDS}")
    samples, rate = read_audio(path)
    return {"kind": "sound", "seconds": samples.shape[1] / rate, "sample_rate": rate, "channels": samples.shape[0]}


def main() -> None:
    """Examine the file that is named, with limits on what that may take."""
    for kind, most in ((resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_CPU, MOST_CPU_SECONDS)):
        with suppress(ValueError):  # macOS does not limit the memory.
            resource.setrlimit(kind, (most, most))
    try:
        found = examine(Path(sys.argv[1]))
    except SdxlMelError as error:
        found = {"error": str(error)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
