"""What comes in with a request: JSON of a known form, numbers of a query, and files, none larger than allowed."""

import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from sdxl_mel.config import validated
from sdxl_mel.errors import InputError, SdxlMelError
from sdxl_mel.studio.guard import MOST_JSON_BYTES

Body = TypeVar("Body", bound=BaseModel)


class TooLargeError(SdxlMelError):
    """More came in than is allowed."""


async def body_of(request: Request, model: type[Body]) -> Body:
    """Return the JSON of a request as `model`. Raises InputError for another form, TooLargeError."""
    content = b"".join([piece async for piece in limited(request, MOST_JSON_BYTES)])
    try:
        values = json.loads(content, parse_constant=_no_constant)
        text = json.dumps(values, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"the request is {type(values).__name__}; expected a JSON object")
    if "\\u0000" in text:
        raise InputError("the request has a character of number 0 in it")
    return validated(model, values, "the request")


async def limited(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield the body of a request in pieces. Raises TooLargeError beyond `most` bytes, stated or not."""
    count = 0
    async for piece in request.stream():
        count += len(piece)
        if count > most:
            raise TooLargeError(f"the request has more than {most} bytes, which is the most")
        yield piece


def number(request: Request, name: str, default: int, most: int = 1 << 31) -> int:
    """Return a number of the query, 0 to `most`. Raises InputError for what is none."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 11):
        raise InputError(f"{name}: found {text[:40]!r}; expected a number")
    return min(int(text), most)


def flag(request: Request, name: str) -> bool | None:
    """Return a switch of the query, None where it is not there. Raises InputError for what is neither."""
    text = request.query_params.get(name)
    if text not in (None, "true", "false"):
        raise InputError(f"{name}: found {text[:40]!r}; expected true or false")
    return None if text is None else text == "true"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
