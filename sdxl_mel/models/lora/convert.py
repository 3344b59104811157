"""One dialect into another, and what a reader of the result must know."""

from sdxl_mel.models.lora.file import Lora
from sdxl_mel.models.lora.lora_set import ScaledLora
from sdxl_mel.models.lora.names import Dialect
from sdxl_mel.models.lora.outcome import Outcome


def converted(source: ScaledLora) -> Outcome:
    """Return the LoRA as it is, record included: only the names in the file change."""
    return Outcome(source.lora, (f"{source.path.name}: {len(source.lora.modules)} modules",))


def remarks(lora: Lora, dialect: Dialect) -> tuple[str, ...]:
    """Return what another program is known to make of such a file."""
    alphas = {module.alpha for module in lora.modules.values()}
    dora = any(module.magnitude is not None for module in lora.modules.values())
    lines = []
    if dialect == "kohya" and len(alphas) > 1:
        lines.append(
            f"its modules have {len(alphas)} different alphas, which diffusers (0.42) reads wrongly under kohya's "
            "names; write --one-alpha or --to diffusers for it"
        )
    if dialect == "kohya" and dora:
        lines.append("a DoRA: diffusers (0.42) drops the magnitudes under kohya's names; write --to diffusers for it")
    return tuple(lines)
