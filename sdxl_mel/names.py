"""Names and kinds of settings, and the nearest known name to one that does not exist."""

import difflib
import types
from collections.abc import Iterable, Iterator
from typing import Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the field of every setting of `model`: of groups, and of what is in them."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        group = group_of(field.annotation)
        if group is not None:
            yield from settings_of(group, f"{prefix}{name}.")


def group_of(annotation: object) -> type[BaseModel] | None:
    """Return the settings group that an annotation holds, `Group` or `Group | None`, else None."""
    for kind in members_of(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def members_of(annotation: object) -> tuple[object, ...]:
    """Return the members of a union without None, or the annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for member in get_args(annotation) if member is not type(None))
    return (annotation,)
