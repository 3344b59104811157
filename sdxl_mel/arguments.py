"""Command-line flags made from the fields of a settings model: one source for names, types, help and defaults.

A field `hop_length` of the group `spec` is the flag `--spec.hop-length`. Lists take several values, mappings take
`key=value`, and booleans have a `--no-` form; all others are given once. `--config FILE.toml` is read first; flags win
over it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sdxl_mel.config import StageConfig, merged, read_toml, validated
from sdxl_mel.errors import InputError, printable
from sdxl_mel.names import group_of, members_of, near_miss, settings_of

Config = TypeVar("Config", bound=StageConfig)
SEVERAL = (list, tuple, set, frozenset)
"""The types of settings that take several values."""
MAPPINGS = (dict, Mapping)


class Show(Enum):
    """How a field appears on the command line; put it in the field's `Annotated`."""

    POSITIONAL = "positional"
    ADVANCED = "advanced"
    HIDDEN = "hidden"


class Action(NamedTuple):
    """One of the things that a command does: its settings, and examples for its help."""

    settings: type[StageConfig]
    examples: str

    @property
    def purpose(self) -> str:
        """The first line of the settings' docstring, as help texts are written."""
        line = (self.settings.__doc__ or "").strip().split("\n", 1)[0]
        return line[:1].lower() + line[1:].rstrip(".")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors that say where help is."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{self.prog}: {message}; see {self.prog} --help")


class Once(argparse.Action):
    """A flag that is refused when given again: which of two values was meant, nobody knows. Its default is none."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Take the value. Raises InputError where there is one already."""
        if hasattr(namespace, self.dest):
            parser.error(f"{option} is given twice; give it once")
        setattr(namespace, self.dest, values)


class _SwitchOnce(Once, argparse.BooleanOptionalAction):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        super().__call__(parser, namespace, not str(option).startswith("--no-"), option)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in as few lines as can be read: a switch and its opposite are one name, several values one and dots."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0].replace("--", "--[no-]", 1)
        return super()._format_action_invocation(action)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+":
            return f"{action.metavar} ..."
        return super()._format_args(action, default_metavar)


def parse_arguments(model: type[Config], arguments: Sequence[str], program: str, examples: str = "") -> Config:
    """Fill a stage's settings from the command line.

    Raises InputError for what is unknown or impossible, SystemExit(0) after `--help` and `--help-all`.
    """
    everything = "--help-all" in arguments
    parser = build_parser(model, program, examples, everything)
    flags, unknown = parser.parse_known_args(["--help" if word == "--help-all" else word for word in arguments])
    if unknown:
        known = [f"--{_flag(name)}" for name, _ in settings_of(model)]
        raise InputError(
            f"{program}: unknown argument {unknown[0]!r}{near_miss(unknown[0], known)}; see {program} --help"
        )
    values = vars(flags)
    file = values.pop("config_file", None)
    given = _nested(values)
    return validated(model, merged(read_toml(Path(file)), given) if file else given, where=file or program)


def named_action(arguments: Sequence[str], setting: str, program: str) -> str | None:
    """Return the value of the `setting` by which a command line, or the TOML file that it names, chooses an action."""
    parser = Parser(prog=program, add_help=False, allow_abbrev=False)
    for flag, name in ((setting, setting), ("config", "config_file")):
        parser.add_argument(f"--{flag}", dest=name, action=Once, default=argparse.SUPPRESS)
    values = vars(parser.parse_known_args(arguments)[0])
    named = values.get(setting) or (read_toml(Path(file)).get(setting) if (file := values.get("config_file")) else None)
    return None if named is None else str(named)


def format_arguments(config: StageConfig) -> list[str]:
    """Return the words of a command line that state `config`: what differs from the defaults; see `parse_arguments`."""
    model = type(config)
    positional: list[str] = []
    words: list[str] = []
    for name, field in settings_of(model):
        if group_of(field.annotation) is not None:
            continue
        value = _value_at(config, name)
        if Show.POSITIONAL in field.metadata:
            positional += [] if value is None else _texts(value)
        elif value != _default_of(model, name):
            words += _stated(_flag(name), value)
    return [*positional, *words]


def _stated(flag: str, value: Any) -> list[str]:
    """Return the words that give a setting its value."""
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    texts = _texts(value)
    if any(text.startswith("-") for text in texts):
        return [f"--{flag}={text}" for text in texts]
    return [f"--{flag}", *texts] if texts else []


def _texts(value: Any) -> list[str]:
    match value:
        case Mapping():
            return [f"{key}={each}" for key, each in value.items()]
        case list() | tuple() | set() | frozenset():
            return [str(each) for each in value]
        case None:
            return ["none"]
        case _:
            return [str(value)]


def _value_at(config: BaseModel, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _default_of(model: type[BaseModel], name: str) -> Any:
    """Return the default of a dotted name: of a setting of a group, what the group's own default says."""
    first, _, rest = name.partition(".")
    field = model.model_fields[first]
    default = PydanticUndefined if field.is_required() else field.get_default(call_default_factory=True)
    return _value_at(default, rest) if rest and isinstance(default, BaseModel) else default


def build_parser(
    model: type[StageConfig], program: str, examples: str = "", everything: bool = False
) -> argparse.ArgumentParser:
    """Return the parser of a stage; with `everything` its help also shows the advanced settings."""
    positionals = [
        _positional(name, field) for name, field in model.model_fields.items() if Show.POSITIONAL in field.metadata
    ]
    parser = Parser(
        prog=program,
        usage=" ".join(["%(prog)s", *positionals, "[--SETTING VALUE ...]"]),
        description=(model.__doc__ or "").strip(),
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        dest="config_file",
        metavar="FILE.toml",
        action=Once,
        default=argparse.SUPPRESS,
        help="read settings from a TOML file first",
    )
    hidden = 0
    for name, field in settings_of(model):
        if group_of(field.annotation) is None:
            advanced = Show.ADVANCED in field.metadata or "." in name
            visible = Show.HIDDEN not in field.metadata and (everything or not advanced)
            hidden += not visible
            _add_field(parser, name, field, visible)
    if hidden:
        parser.add_argument(
            "--help-all", action="store_true", default=argparse.SUPPRESS, help=f"show {hidden} more settings"
        )
    return parser


def _add_field(parser: argparse.ArgumentParser, name: str, field: FieldInfo, visible: bool) -> None:
    kind = _kind(field)
    several = get_origin(kind) in SEVERAL
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(field) if visible else argparse.SUPPRESS}
    if Show.POSITIONAL in field.metadata:
        nargs = ("+" if field.is_required() else "*") if several else (None if field.is_required() else "?")
        parser.add_argument(name, nargs=nargs, metavar=_positional(name, field).removesuffix(" ..."), **options)
        return
    options["dest"] = name
    if kind is bool:
        options["action"] = _SwitchOnce
    else:
        mapping = get_origin(kind) in MAPPINGS
        options["metavar"] = _metavar(value_kind(field))
        optional = type(None) in get_args(field.annotation)
        options["type"] = _key_value if mapping else _plain(optional, text=value_kind(field) is str)
        options |= {"nargs": "+", "action": "extend"} if several or mapping else {"action": Once}
    parser.add_argument(f"--{_flag(name)}", **options)


def value_kind(field: FieldInfo) -> Any:
    """Return the type of a setting's value, of one of its values where it takes several."""
    kind = _kind(field)
    return get_args(kind)[0] if get_origin(kind) in SEVERAL else kind


def _kind(field: FieldInfo) -> Any:
    return next(iter(members_of(field.annotation)), str)


def _positional(name: str, field: FieldInfo) -> str:
    """Return how the usage line names a positional argument."""
    several = get_origin(_kind(field)) in SEVERAL
    return f"{name.upper().rstrip('S')} ..." if several else name.upper()


def _help(field: FieldInfo) -> str:
    text = (field.description or "").replace("\n", " ")
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    if default is not False and default not in (None, (), [], {}, "") and not isinstance(default, BaseModel):
        text += f" [{' '.join(map(str, default)) if isinstance(default, list | tuple) else default}]"
    return text.replace("%", "%%")


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) in MAPPINGS:
        return "KEY=VALUE"
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _flag(name: str) -> str:
    return name.rstrip("_").replace("_", "-")  # `json_` is --json: pydantic has taken the plain name


def _plain(optional: bool, text: bool) -> Callable[[str], str | None]:
    """Return how a word becomes a value; words that are a `text` must be written in UTF-8, names of files need not."""

    def value_of(word: str) -> str | None:
        if text and printable(word) != word:
            raise argparse.ArgumentTypeError(f"{printable(word)!r} is not UTF-8")
        return None if optional and word.lower() == "none" else word

    return value_of


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn {"a.b": 1} into {"a": {"b": 1}}, and lists of (key, value) into mappings."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        place = result
        for group in groups:
            place = place.setdefault(group, {})
        pairs = isinstance(value, list) and value and all(isinstance(item, tuple) for item in value)
        place[last] = dict(value) if pairs else value
    return result
