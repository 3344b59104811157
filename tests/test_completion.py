"""Completion: the script for bash answers as it should when bash asks it, and the one for zsh is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sdxl_mel.cli import main
from sdxl_mel.commands import COMMANDS


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    with pytest.MonkeyPatch.context() as patch:
        for shell in ("bash", "zsh"):
            with (folder / shell).open("w") as file:
                patch.setattr("sys.stdout", file)
                assert main(["completion", shell]) == 0
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_settings_values_and_files(scripts: Path) -> None:
    (scripts / "song.wav").touch()
    typed = {
        "sdxl-mel ge": ["generate"],
        "sdxl-mel generate --se": ["--seed", "--seconds"],
        "sdxl-mel generate --format ''": ["wav", "flac", "ogg", "opus", "mp3", "none"],
        "sdxl-mel generate --no-over": ["--no-overwrite"],
        "sdxl-mel train --optimizer.name sched": ["schedule-free"],
        "sdxl-mel cache ver": ["verify"],
        "sdxl-mel lora res": ["resize"],
        "sdxl-mel lora merge --how ''": ["sum", "average"],
        "sdxl-mel lora merge --progress j": ["json"],
        "sdxl-mel encode so": ["song.wav"],
        "sdxl-mel invert --qu": ["--quiet"],
    }
    ask = 'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); _shtab_sdxl_mel; echo "${COMPREPLY[@]}"'
    asked = "".join(f"COMP_WORDS=({line}); {ask}\n" for line in typed)
    answered = subprocess.run(
        ["bash"], input=f"source ./bash\n{asked}", cwd=scripts, capture_output=True, text=True, check=True
    )
    assert [line.split() for line in answered.stdout.splitlines()] == list(typed.values())


def test_zsh_gets_every_command(scripts: Path) -> None:
    script = (scripts / "zsh").read_text()
    assert script.startswith("#compdef sdxl-mel\n")
    assert all(f"\n    {name}:'" in script for name in COMMANDS)
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n", str(scripts / "zsh")], check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 2
    assert "found 'fish'; expected bash or zsh" in capsys.readouterr().err
