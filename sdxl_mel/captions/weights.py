"""Weights of words in a prompt: `(banjo:1.3)`. Free of torch, because settings and jobs read it."""

import re
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sdxl_mel.errors import InputError

WEIGHT = re.compile(r":\s*(\d+(?:\.\d+)?)\s*\)")
ANY_WEIGHT = re.compile(r"\([^()]*:\s*\d|:\s*\d+(?:\.\d+)?\s*\)")


class Span(NamedTuple):
    """Words that stand together, and their weight."""

    text: str
    weight: float


def parse_weights(prompt: str) -> list[Span]:
    r"""Return the spans of a prompt: `(banjo:1.3)` weighs 1.3, inside of each other they multiply, `\(` is a bracket.

    Brackets of a prompt in which none has a weight are words. Raises InputError where they do not match.
    """
    if not ANY_WEIGHT.search(prompt):
        return [Span(prompt, 1.0)]
    # The spans of every bracket that is open, the outermost being the prompt itself.
    open_spans: list[list[Span]] = [[]]
    at = 0
    while at < len(prompt):
        weight, letter = WEIGHT.match(prompt, at), prompt[at]
        if letter == "(":
            open_spans.append([])
        elif letter == ")" or (weight and len(open_spans) > 1):
            spans, factor = open_spans.pop(), float(weight[1]) if weight else 1.0
            if not open_spans:
                raise InputError(f"prompt {prompt!r}: a bracket closes that was not opened; \\) is a bracket itself")
            open_spans[-1] += [Span(span.text, span.weight * factor) for span in spans]
            at += len(weight[0]) - 1 if weight else 0
        else:
            at += letter == "\\" and prompt[at + 1 : at + 2] in ("(", ")")
            open_spans[-1].append(Span(prompt[at], 1.0))
        at += 1
    if len(open_spans) > 1:
        raise InputError(f"prompt {prompt!r}: a bracket is not closed; write (words:1.3), \\( is a bracket itself")
    return [Span("".join(text for text, _ in same), weight) for weight, same in groupby(open_spans[0], itemgetter(1))]


def plain(prompt: str) -> str:
    """Return the words of a prompt without its weights."""
    return "".join(span.text for span in parse_weights(prompt))
