"""LoRAs added into the weights of an open base and taken off again, so that sampling costs what it costs without."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdxl_mel.errors import InputError
from sdxl_mel.models.base import Base
from sdxl_mel.models.layouts import Param, module_paths
from sdxl_mel.models.lora.fusing import combined_delta
from sdxl_mel.models.lora.scaled import ScaledLora, changes_of


class AttachedLoras:
    """The LoRAs in the weights of a base, and with `keep` what these weights were before.

    What is kept lies in the main memory, so that a graphics card holds one set of weights.
    """

    def __init__(self, base: Base, keep: bool = True) -> None:
        self.base, self.keep = base, keep
        self._before: dict[Param, Tensor] = {}
        self._layers: dict[str, dict[str, nn.Module]] = {}
        self._changed = False

    @torch.no_grad()
    def replace(self, loras: Sequence[ScaledLora]) -> None:
        """Put these LoRAs on in place of those that are on; each is made for the base's own weights, as in a fusion.

        Raises MismatchError, having changed nothing, for a change that the base has no weight of that shape for.
        """
        changes = changes_of(loras, self._shape, self.base.family, self.base.name)
        if self._changed and not self.keep:
            raise InputError("the weights under the LoRAs were not kept; open the base again, or with keep_base")
        for param, weight in self._before.items():
            self._tensor(param).copy_(weight)
        self._before.clear()
        for param, parts in changes.items():
            weight = self._tensor(param)
            if self.keep:
                self._before[param] = weight.to("cpu", copy=True)
            weight.copy_(weight.float() + combined_delta(weight, parts))
        self._changed = bool(changes)

    def _shape(self, param: Param) -> Sequence[int] | None:
        tensor = self._tensor(param)
        return None if tensor is None else tensor.shape

    def _tensor(self, param: Param) -> Any:
        """Return a weight or bias by the name that LoRA files give its layer, None where there is none."""
        part, name = param
        if part not in self._layers:
            model: Any = getattr(self.base, part, None)
            paths = {} if model is None else module_paths(model, part)
            self._layers[part] = {path: model.get_submodule(own) for path, own in paths.items()}
        path, _, kind = name.rpartition(".")
        return getattr(self._layers[part].get(path), kind, None)
