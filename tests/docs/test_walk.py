"""Every command of the README and the docs, executed in the order in which they stand, with mini in place of SDXL."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Collection
from functools import reduce
from pathlib import Path

import pytest

from sdxl_mel.cli import main
from tests.dataset.music import write_folder, write_music
from tests.docs.commands import PAGES, ROOT, SCRIPTS, Command, blocks_of, shown_commands
from tests.docs.substitutes import NOT_RUN, QUICKER, executed
from tests.metrics.embedders.tiny_clap import tiny_model, write_laion_checkpoint, write_tiny_clap, write_tokenizer

COMMANDS = [command for page in PAGES for command in shown_commands(page)]
SONGS = ("violin", "piano", "flute", "drums", "violin and piano", "organ", "guitar", "harp")
TINY = """\
steps = 2
batch = 2
save_every = 1

[adapter]
rank = 2

[validation]
every = 2
clips = 1
"""
FIRST = "Two commands"
PATH = "Train on your own music with SDXL 1.0 and a 3090"
TABLE = "Every command"
GUIDES = ("docs/training.md", "docs/evaluation.md", "docs/editing.md", "docs/distillation.md")
CHECKPOINT = "music_audioset_epoch_15_esc_90.14.pt"


def write_place(place: Path) -> Path:
    """Make a folder in which a reader of the pages stands: the clone's scripts, and own music with captions."""
    for script in SCRIPTS:
        shutil.copy(ROOT / script, place)
    (place / "tiny.toml").write_text(TINY)
    write_folder(place / "my-music", {f"{name}.wav": f"{name}, slow" for name in SONGS})  # a clip each
    write_music(place / "song.flac", seed=99, seconds=5.0, channels=2)
    write_tiny_clap(place / "clap")
    write_tokenizer(place / "words")
    write_laion_checkpoint(place / CHECKPOINT, tiny_model())
    return place


def walk(place: Path, commands: list[Command], scripts: Collection[str] = ()) -> None:
    """Execute commands in a folder, each script of `scripts` once as a script and everything else in this process."""
    not_yet = set(scripts)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in commands:
            if " ".join(command.words) in NOT_RUN:
                continue
            if command.script in not_yet and "--dry-run" not in command.words:
                not_yet.remove(command.script)
                code = launch(command)
            else:
                code = main([command.stage or command.line, *executed(command)])
            # A random CLAP passes no threshold: the exit code that the page names is the one that comes.
            assert code == ("--fail-under" in command.words), command.line
    assert not not_yet, "every script was started"


def launch(command: Command) -> int:
    """Run a script as the page says: by accelerate in another process, by Python in this one, which has its imports."""
    assert command.script is not None
    words = [command.script, *executed(command)]
    if "accelerate" in command.words:
        launcher = [sys.executable, "-m", "accelerate.commands.launch", *words]
        return subprocess.run(launcher, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", words)
        runpy.run_path(command.script, run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_worked_path_then_the_guides_and_the_table(tmp_path: Path) -> None:
    place = write_place(tmp_path)
    walk(place, [command for command in COMMANDS if command.heading in (FIRST, PATH)], scripts=SCRIPTS)
    assert list((place / "runs/my-music").glob("**/events.out.tfevents.*")), "what tensorboard --logdir is shown"
    made = (
        *("data/my-music/report.html", "runs/audit/report.html", "models/my-music.safetensors", "songs/0002.wav"),
        *("long/0001.wav", "stitched.wav", "first/0001-plot.svg", "runs/my-music/scores/report.html"),
    )
    assert [name for name in made if not (place / name).exists()] == []
    shutil.rmtree(place / "runs")  # the training guide starts the same run anew
    for page in GUIDES:
        walk(place, [command for command in COMMANDS if command.page == page])
    for name in ("songs", "variations", "models"):
        shutil.rmtree(place / name)  # the table makes others of these names
    walk(place, [command for command in COMMANDS if command.heading == TABLE])


PYTHON = {
    page: [text for _, language, text in blocks_of(page) if language == "python"]
    for page in PAGES
    # tests/studio, tests/export and tests/docs/test_few_steps.py execute them, on what they need
    if page.name not in ("api.md", "browser.md", "distillation.md")
}


@pytest.mark.parametrize("page", [page for page, texts in PYTHON.items() if texts], ids=lambda page: page.stem)
def test_shown_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of a page, executed in the order in which it stands."""
    write_music(tmp_path / "song.flac", seed=99, seconds=5.0, channels=2)
    (tmp_path / "sdxl_mel").symlink_to(ROOT / "sdxl_mel")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for text in PYTHON[page]:
        exec(reduce(lambda quick, item: quick.replace(*item), QUICKER.items(), text), names)


def test_nothing_shown_is_left_out() -> None:
    """Every page and heading whose commands are walked is named here; those of other programs have their reason."""
    reasoned = {f"docs/{name}.md" for name in ("studio", "browser", "students", "decoder", "refiner")}  # in NOT_RUN
    assert {command.page for command in COMMANDS} == {"README.md", *reasoned, *GUIDES}
    headings = {command.heading for command in COMMANDS if command.page == "README.md"}
    assert headings == {"Two commands", "In a browser", PATH, TABLE, "From Python"}
    for command in COMMANDS:
        assert command.stage or " ".join(command.words) in NOT_RUN, command.line
