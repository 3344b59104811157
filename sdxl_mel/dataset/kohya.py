"""The layout of kohya's sd-scripts and its relatives: `N_name/*.png` with a `.txt` beside each."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from sdxl_mel.files.atomic import clear_os_errors, write_text
from sdxl_mel.files.dataset import Item

KOHYA_NAME = "kohya"


def write_kohya(out: Path, splits: Mapping[str, list[Item]], anchor: str, class_caption: str, repeats: int) -> None:
    """Write `kohya/images/N_anchor` from train and `kohya/regularization/1_class` from regularization.

    Pictures are hard links where the disk can, copies elsewhere. A `.txt` has a caption a line: sd-scripts reads the
    first, and draws one with `enable_wildcard`.
    """
    remove_kohya(out)
    folders = {
        "train": out / KOHYA_NAME / "images" / f"{repeats}_{_name(anchor)}",
        "regularization": out / KOHYA_NAME / "regularization" / f"1_{_name(class_caption)}",
    }
    for split, folder in folders.items():
        for item in splits.get(split, ()):
            target = folder / Path(item.file).name
            with clear_os_errors(target):
                folder.mkdir(parents=True, exist_ok=True)
                _link(out / item.file, target)
            write_text(target.with_suffix(".txt"), "".join(f"{caption}\n" for caption in item.captions))


def remove_kohya(out: Path) -> None:
    """Remove the layout that an earlier run wrote."""
    shutil.rmtree(out / KOHYA_NAME, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # Another file system, or one without links.
        shutil.copyfile(source, target)


def _name(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "music"
