"""Forms: the settings of the commands are their only source, and no path comes in from a page."""

import shlex
import struct
from pathlib import Path

import pytest

from sdxl_mel.arguments import parse_arguments, value_kind
from sdxl_mel.errors import InputError
from sdxl_mel.names import group_of, settings_of
from sdxl_mel.studio.artefacts import Artefact, Artefacts, id_of_name
from sdxl_mel.studio.forms import STAGES, checked, command_of, form, kinds_of, settings_model

TEXTS = {
    "prompt", "region", "negative_prompt", "sampler", "schedule", "prompt_to", "anchor", "timesteps", "overlap",
    "device", "hold_out_combinations", "class_caption", "splits", "split", "adapter.targets", "adapter.text_targets",
    "push_to_hub", "regularization_anchor", "samples.prompts",
}  # fmt: skip
"""Settings whose value is a text, and never opened as a file."""
REFUSED = {"task", "out", "resume", "resume_with_changes", "push_to_hub", "trackers", "overrides"}
"""Settings that no form has."""


@pytest.fixture
def project(tmp_path: Path) -> Artefacts:
    (tmp_path / "data" / "cache").mkdir(parents=True)
    (tmp_path / "data" / "cache" / "cache.json").write_text("{}")
    names = b'{"lora_unet_a.lora_down.weight": {}}'
    (tmp_path / "lora.safetensors").write_bytes(struct.pack("<Q", len(names)) + names)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    (tmp_path / "outside.png").symlink_to("/etc/hostname")
    return Artefacts(tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_is_in_the_form_with_its_help(stage: str) -> None:
    schema = form(stage)["schema"]
    for name, field in settings_of(settings_model(stage)):
        *groups, last = name.split(".")
        above = schema
        for group in groups:
            above = above["properties"][group]
        if last in REFUSED or (stage, last) == ("evaluate", "cache"):
            assert last not in above["properties"]
        elif group_of(field.annotation) is None:
            shown = above["properties"][last]
            assert shown["show"] in ("common", "advanced", "hidden")
            assert shown["description"] == field.description
    assert "$ref" not in str(schema)


@pytest.mark.parametrize("stage", STAGES)
def test_every_text_names_a_file_or_never_does(stage: str) -> None:
    for name, field in settings_of(settings_model(stage)):
        if value_kind(field) is str:
            assert (kinds_of(name, field) is None) == (name in TEXTS), name


@pytest.mark.parametrize("value", ["/etc/passwd", "../x", "data/cache", "id:", "id:000000000000", "~/x", "a/../../b"])
@pytest.mark.parametrize("setting", ["base", "lora", "vae", "prompts"])
def test_only_ids_name_files(project: Artefacts, setting: str, value: str) -> None:
    given = {"base": "mini", "prompt": "x", setting: [value] if setting == "lora" else value}
    with pytest.raises(InputError, match="id|root"):
        checked("generate", given, "out", project.stated)


def test_ids_become_paths_below_the_root(project: Artefacts) -> None:
    lora, song, cache = (id_of_name(name) for name in ("lora.safetensors", "song.wav", "data/cache"))
    given = {"base": "mini", "prompt": "id:x", "lora": [f"id:{lora}:0.8"], "input": f"id:{song}"}
    config = checked("edit", given, "out", project.stated)
    assert config.lora == ("lora.safetensors:0.8",)
    assert (config.input, config.prompt, config.out) == (Path("song.wav"), "id:x", Path("out/edited.wav"))
    train = {"base": "some/model", "cache": f"id:{cache}", "optimizer": {"rate": 1e-3}}
    assert checked("train", train, "runs/a", project.stated).cache == Path("data/cache")


def test_a_link_out_of_the_root_is_no_artefact(project: Artefacts) -> None:
    assert "outside.png" not in {each.name for each in project.find()}
    with pytest.raises(InputError, match="below the root"):
        project.below("outside.png")


def test_ids_that_nobody_has_are_looked_for_a_few_times_in_all(tmp_path: Path) -> None:
    looks: list[int] = []

    class Counted(Artefacts):
        def find(self) -> list[Artefact]:
            looks.append(1)
            return super().find()

    for number in range(50):
        (tmp_path / f"{number}.png").touch()
    artefacts = Counted(tmp_path)
    for number in range(500):
        with pytest.raises(InputError, match="choose another"):
            artefacts.get(f"{number:012}")
    assert len(looks) < 50
    (tmp_path / "new.png").touch()
    artefacts.changed()
    assert artefacts.get(id_of_name("new.png")).kind == "picture"


@pytest.mark.parametrize("name", ["out", "resume", "push_to_hub"])
def test_what_the_studio_decides_is_refused(project: Artefacts, name: str) -> None:
    with pytest.raises(InputError, match=name):
        checked("train", {"base": "mini", name: "x"}, "runs/a", project.stated)


def test_the_command_states_the_settings(project: Artefacts) -> None:
    given = {"base": "mini", "prompt": "it's", "seed": 3, "guidance_interval": [0.2, 1.0], "format": "flac"}
    config = checked("generate", given, "out", project.stated)
    command = command_of("generate", config)
    assert shlex.split(command)[:2] == ["sdxl-mel", "generate"]
    assert parse_arguments(type(config), shlex.split(command)[2:], "generate") == config


def test_errors_are_those_of_the_command_line(project: Artefacts) -> None:
    with pytest.raises(InputError, match=r"unknown setting 'promt' \(did you mean 'prompt'\?\)"):
        checked("generate", {"base": "mini", "promt": "x"}, "out", project.stated)
    with pytest.raises(InputError, match="did you mean 'generate'"):
        settings_model("genrate")
