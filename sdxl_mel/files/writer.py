"""One process at a time writes in a folder. The lock is on the folder itself, so that nothing has to be deleted."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import clear_os_errors

if sys.platform != "win32":
    import fcntl


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder while the block writes in it; it is made, and goes again if the block leaves nothing in it.

    The system lets go of it with the process, however that ends. Raises InputError where another process holds it.
    """
    made = not folder.exists()
    with held(folder, f"{folder}: another process is writing in it; wait until that ends, or choose another --out"):
        try:
            yield
        finally:
            if made:
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def held(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder, which is made if it is not there. Raises InputError, the `refusal`, where another process does.

    Windows and some disks have no such locks: there nothing is refused.
    """
    with clear_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder, refusal)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _locked(folder: Path, refusal: str) -> int | None:
    """Return the open folder, locked; None where there are no such locks."""
    if sys.platform == "win32":
        return None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise InputError(refusal) from error
    except OSError:
        os.close(lock)
        return None
    return lock
