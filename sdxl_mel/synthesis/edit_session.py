"""One command of the editing engine: a sound in, the edited sound with its picture and its mask out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from sdxl_mel.config import Skipped
from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import require_writable
from sdxl_mel.files.audio import CONTAINERS, SUBTYPES, open_audio, require_container
from sdxl_mel.files.loops import write_loop
from sdxl_mel.files.results import Entry
from sdxl_mel.files.spectrogram import Spectrogram, write_png, write_spectrogram
from sdxl_mel.models.lora.scaled import left_out_of
from sdxl_mel.options import Bits
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.synthesis.edited_sound import band_window, format_of, sound_blocks
from sdxl_mel.synthesis.editing import Edit, Edited, Passage, edit_source, open_source
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.regions import parse_region
from sdxl_mel.synthesis.session import found_settings, progress_of_steps, settled, stated_settings
from sdxl_mel.synthesis.settings import Asked, Method
from sdxl_mel.synthesis.watch import current_watch

__all__ = ["Edit", "EditedFile", "Generator", "edit", "parse_region"]

PICTURE_SUFFIX = ".png"
DEEP = ("PCM_32", "DOUBLE")
"""Precisions that no format has which is written; as they are read, float holds them."""


class EditedFile(NamedTuple):
    """What was written: its length, a line for each passage drawn anew, what is to be said, what is not used."""

    seconds: float
    passages: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[Skipped, ...]


def edit(
    open_generator: Callable[[], Generator],
    path: Path,
    out: Path,
    what: Edit,
    *,
    asked: Asked | None = None,
    seed: int = 0,
    batch: int = 4,
    method: Method = "best",
    bits: Bits | None = None,
    settings: Mapping[str, JsonValue],
) -> EditedFile:
    """Edit the sound or picture at `path`; write the result at `out`, beside it its picture and its mask.

    `settings` are the command's, for the record of the result. Raises InputError for an `out` of unknown kind.
    """
    if out.suffix.lower() not in (*CONTAINERS, PICTURE_SUFFIX):
        raise InputError(f"--out {out}: give a sound ({', '.join(CONTAINERS)}) or {PICTURE_SUFFIX}")
    if bits and out.suffix.lower() != PICTURE_SUFFIX:
        require_container(out, SUBTYPES[bits])
    require_writable(out)
    picture, mask = out.with_suffix(PICTURE_SUFFIX), out.with_name(f"{out.stem}-mask{PICTURE_SUFFIX}")
    if path.resolve() in (out.resolve(), picture.resolve(), mask.resolve()):
        raise InputError(f"--out {out}: would replace the input {path.name}; give another name")
    generator = open_generator()
    sampling, notes = settled(generator, asked or Asked())
    source = open_source(path, generator.spec)
    with progress_of_steps("edit") as on_step:
        edited = edit_source(generator, source, what, sampling=sampling, seed=seed, batch=batch, on_step=on_step)
    record = Record(
        stage="edit",
        settings={**settings, **stated_settings(generator, sampling), **found_settings(generator, sampling)},
        inputs=generator.inputs | {"input": sha256_file(path)},
    )
    spec = generator.spec
    seconds = edited.plan.frames * spec.hop_length / spec.sample_rate
    if out.suffix.lower() != PICTURE_SUFFIX:
        (rate, channels), samples = format_of(edited), 0
        with open_audio(
            out, rate, channels, record, _subtype(out, edited, bits), spec=spec, exact=True, loop=what.loop
        ) as writer:
            for block in sound_blocks(edited, method, seed):
                current_watch().on_sound(out.with_suffix(""), block, rate)
                writer.write(block)
                samples += block.shape[-1]
        seconds = samples / rate
        if what.loop:
            write_loop(out, edited.levels, spec)
        if writer.clipped:
            notes += (f"{writer.clipped} samples were beyond full scale and were clipped; --bits float keeps them",)
    # After the sound: what packing a long picture leaves in the heap is then not there beside the inversion.
    write_spectrogram(picture, Spectrogram(edited.levels, spec, record))
    drawn = edited.mask()[::-1] if spec.low_at == "bottom" else edited.mask()
    write_png(mask, drawn)
    current_watch().on_result(
        out.parent,
        Entry(
            picture=out.with_suffix(PICTURE_SUFFIX).name,
            sound=None if out.suffix.lower() == PICTURE_SUFFIX else out.name,
            prompt=what.prompt or "; ".join(passage.prompt for passage in edited.plan.passages),
            negative_prompt=what.negative,
            seed=seed,
            candidate_seed=seed,
            seconds=seconds,
            loop=what.loop,
        ),
        (),
    )
    passages = tuple(described(passage, edited) for passage in edited.plan.passages)
    return EditedFile(seconds, passages, (*edited.notes, *notes), left_out_of(generator.loras))


def described(passage: Passage, edited: Edited) -> str:
    """Return what was drawn anew, with its feather."""
    patch, spec = passage.patch, edited.source.spec
    column = LATENT_FACTOR * spec.hop_length / spec.sample_rate
    start, end, length = patch.first * column, patch.after * column, edited.plan.frames * column / LATENT_FACTOR
    through = f" and 0.00-{end - length:.2f}" if edited.canvas.loop and end > length else ""
    words = [f"{start:.2f}-{min(end, length):.2f}{through} s"]
    feather = [f"{patch.feather * column:.3f} s"]
    if not patch.every_row:
        low_out, low, high, high_out = patch.band(spec)
        words.append(f"{low:.0f}-{high:.0f} Hz")
        rate, _ = format_of(edited)
        feather = [f"{patch.feather * column + band_window(rate) / rate / 2:.3f} s"]
        feather.append(f"{low - low_out:.0f} Hz below and {high_out - high:.0f} above")
    border = "" if edited.whole else f", feather {', '.join(feather)}"
    return f"{' x '.join(words)}, strength {patch.strength:g}{border}: {passage.prompt or '(no prompt)'}"


def _subtype(out: Path, edited: Edited, bits: Bits | None) -> str | None:
    """Return the precision asked for, else that of the input where the container has it."""
    own, allowed = edited.source.recording.subtype if edited.source.recording else "", CONTAINERS[out.suffix.lower()][2]
    wanted = [SUBTYPES[bits]] if bits else [own, "FLOAT", "PCM_24"] if own in DEEP else [own]
    return next((subtype for subtype in wanted if subtype in allowed), wanted[0] if bits else None)
