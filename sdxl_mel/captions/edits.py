"""Edits of a caption, logged one by one, so that what was cleaned can be shown and taken back."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from os.path import commonprefix


@dataclass(frozen=True)
class Edit:
    """At `start` of the text as it then was, `before` became `after` because of `rule`."""

    rule: str
    start: int
    before: str
    after: str


@dataclass(frozen=True)
class Edited:
    """A text and the edits that made it; `original` takes them back."""

    text: str
    edits: tuple[Edit, ...] = ()

    @property
    def original(self) -> str:
        """Return the text before any edit."""
        text = self.text
        for edit in reversed(self.edits):
            text = text[: edit.start] + edit.before + text[edit.start + len(edit.after) :]
        return text

    def splice(self, rule: str, start: int, end: int, after: str = "") -> "Edited":
        """Return the text with `after` in place of [start, end); nothing is logged where nothing changes."""
        before = self.text[start:end]
        if before == after:
            return self
        text = self.text[:start] + after + self.text[end:]
        return replace(self, text=text, edits=(*self.edits, Edit(rule, start, before, after)))

    def whole(self, rule: str, text: str) -> "Edited":
        """Return `text` in place of everything, logged without what both ends share."""
        old, new = self.text, text
        head = len(commonprefix([old, new]))
        tail = len(commonprefix([old[head:][::-1], new[head:][::-1]]))
        return self.splice(rule, head, len(old) - tail, new[head : len(new) - tail])

    def sub(self, rule: str, pattern: re.Pattern[str], after: str | Callable[[re.Match[str]], str] = "") -> "Edited":
        """Return the text with every match replaced, each an edit of its own."""
        edited, moved = self, 0
        for match in pattern.finditer(self.text):
            new = after(match) if callable(after) else match.expand(after)
            edited = edited.splice(rule, match.start() + moved, match.end() + moved, new)
            moved += len(new) - len(match.group())
        return edited
