"""One process at a time writes in a folder, and whatever becomes of it, the next one may."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdxl_mel.errors import InputError, ResourceError
from sdxl_mel.files.writer import only_writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing keeps processes apart there")

HOLD = """
import sys, time
from pathlib import Path
from sdxl_mel.files.writer import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    with only_writer(folder):
        (folder / "made").touch()
        with pytest.raises(InputError, match="first: another process is writing in it; wait"), only_writer(folder):
            pytest.fail("both write")
        with only_writer(tmp_path / "runs" / "second"):
            pass
    with only_writer(folder):
        assert [path.name for path in folder.iterdir()] == ["made"]


def test_a_killed_process_holds_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process"), only_writer(tmp_path):
        pytest.fail("both write")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with only_writer(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_folder_that_stays_empty_goes_if_it_was_made_here(tmp_path: Path) -> None:
    with only_writer(tmp_path / "made"):
        assert (tmp_path / "made").is_dir()
    assert not (tmp_path / "made").exists()
    (tmp_path / "own").mkdir()
    with only_writer(tmp_path / "own"):
        pass
    assert (tmp_path / "own").is_dir()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="below: cannot be written"), only_writer(tmp_path / "file" / "below"):
        pytest.fail("written")
