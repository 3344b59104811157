"""What the stage `cache` reports."""

from typing import Literal

from sdxl_mel.config import StageReport


class Report(StageReport):
    """What was encoded, what was found and what is no longer used."""

    action: Literal["build", "verify", "prune"] = "build"
    pictures: int = 0
    texts: int = 0
    encoded_pictures: int = 0
    encoded_texts: int = 0
    damaged: int = 0
    orphans: int = 0
    freed_bytes: int = 0
    too_long: int = 0

    def summary(self) -> str:
        """Return what a person wants to know at the end."""
        has = f"{self.pictures} pictures and {self.texts} texts"
        match self.action:
            case "verify":
                left = f"; {self.orphans} unused files (sdxl-mel cache prune)" if self.orphans else ""
                return f"the cache is whole: {has}{left}"
            case "prune":
                return f"deleted {self.orphans} unused files, {self.freed_bytes / 1e6:.1f} MB; {has} stay"
        lines = [f"cached {has}; encoded now: {self.encoded_pictures} pictures, {self.encoded_texts} texts"]
        if self.damaged:
            lines.append(f"{self.damaged} damaged files were made anew")
        if self.orphans:
            lines.append(f"{self.orphans} files are no longer used; sdxl-mel cache prune deletes them")
        if self.too_long:
            lines.append(
                f"{self.too_long} captions are longer than the 77 tokens the text encoders read; the rest is unseen"
            )
        return "\n".join(lines)
