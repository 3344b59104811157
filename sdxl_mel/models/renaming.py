"""Rules that rename modules between two layouts of a model.

A module's path is a block followed by a leaf; a rule is a pair of spellings, in which {n} stands for any number.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Layout = Literal["diffusers", "original"]
Separator = Literal[".", "_"]
Leaves = tuple[tuple[str, str], ...]

ITSELF: Leaves = (("", ""),)
"""The leaves of a block that is a module."""


def unchanged(names: Iterable[str]) -> Leaves:
    """Return leaves that both layouts spell alike."""
    return tuple((name, name) for name in names)


class Block(NamedTuple):
    """A place in a model in both layouts, and the leaves below it."""

    diffusers: str
    original: str
    leaves: Leaves = ITSELF

    def path(self, layout: Layout) -> str:
        """Return the block's path in one layout."""
        return self.diffusers if layout == "diffusers" else self.original


class Renaming:
    """All blocks of a model; renames a module's path from either layout to the other."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks = tuple(blocks)
        self._compiled: dict[tuple[Layout, Separator], list[tuple[str, re.Pattern[str], Block]]] = {}

    def to_original(self, path: str) -> str | None:
        """Return the original path of the module at a diffusers path, or None if the model has no such module."""
        return self._translate(path, "diffusers", ".", "original")

    def to_diffusers(self, name: str, layout: Layout = "original", separator: Separator = ".") -> str | None:
        """Return the diffusers path of a module spelt in any way, or None if the model has no such module."""
        return self._translate(name, layout, separator, "diffusers")

    def _translate(self, name: str, source: Layout, separator: Separator, target: Layout) -> str | None:
        for prefix, pattern, block in self._patterns(source, separator):
            if not name.startswith(prefix):
                continue
            match = pattern.fullmatch(name, len(prefix))
            if match:
                leaf, number = _leaf_of(match, block, target)
                return _join(block.path(target), leaf).format(n=number)
        return None

    def _patterns(self, layout: Layout, separator: Separator) -> list[tuple[str, re.Pattern[str], Block]]:
        key = layout, separator
        if key not in self._compiled:
            self._compiled[key] = [
                (block.path(layout).replace(".", separator), _pattern(block.leaves, layout, separator), block)
                for block in self.blocks
            ]
        return self._compiled[key]


def _join(block: str, leaf: str) -> str:
    return f"{block}.{leaf}" if leaf else block


def _leaf_of(match: re.Match[str], block: Block, target: Layout) -> tuple[str, str | None]:
    """Return the leaf of the rule that matched, in the target layout, and the number in it."""
    groups = match.groupdict()
    index = next(index for index in range(len(block.leaves)) if groups[f"rule{index}"] is not None)
    return block.leaves[index][target == "original"], groups.get(f"n{index}")


def _pattern(leaves: Leaves, layout: Layout, separator: Separator) -> re.Pattern[str]:
    """Return a pattern with a group per rule; a leaf is preceded by a separator, the block itself is not."""
    rules = []
    for index, pair in enumerate(leaves):
        leaf = pair[layout == "original"].replace(".", separator)
        text = re.escape(f"{separator}{leaf}" if leaf else "").replace(r"\{n\}", rf"(?P<n{index}>\d+)")
        rules.append(f"(?P<rule{index}>{text})")
    return re.compile("|".join(rules))
