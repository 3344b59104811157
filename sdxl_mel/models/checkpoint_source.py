"""A base opened as tensors, without loading a model, in whichever layout it comes."""

from pathlib import Path

from sdxl_mel.files.tensors import refuse_pickle
from sdxl_mel.models.base import find_source
from sdxl_mel.models.checkpoint import Checkpoint, open_folder, open_single_file
from sdxl_mel.models.folder import PARTS, Folder
from sdxl_mel.models.single_file import SingleFile, require_sdxl_file


def open_checkpoint(name: str, config: Path | None = None, *, needs_configs: bool) -> tuple[Checkpoint, Folder | None]:
    """Return a base's tensors, and its configs where they are needed (a single file has none of its own).

    Raises InputError for what is not SDXL or lacks a part.
    """
    path = Path(name)
    if path.is_file():
        refuse_pickle(path)
        require_sdxl_file(path)
        if not needs_configs:
            return open_single_file(path), None
    source = find_source(name, PARTS, config)
    if isinstance(source, SingleFile):
        return open_single_file(path), source.configs
    assert isinstance(source, Folder)
    return open_folder(source), source
