"""LoRAs added into the weights of an open base and taken off again, so that sampling costs what it costs without."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdxl_mel.errors import InputError
from sdxl_mel.models.base import Base
from sdxl_mel.models.layouts import module_paths
from sdxl_mel.models.lora.file import ScaledLora
from sdxl_mel.models.lora.module import Change, combined_delta, shape_text
from sdxl_mel.models.lora.names import Module


class AttachedLoras:
    """The LoRAs in the weights of a base, and with `keep` what these weights were before.

    What is kept lies in the main memory, so that a graphics card holds one set of weights.
    """

    def __init__(self, base: Base, keep: bool = True) -> None:
        self.base, self.keep = base, keep
        self._before: dict[Module, Tensor] = {}
        self._layers: dict[str, dict[str, nn.Module]] = {}
        self._changed = False

    @torch.no_grad()
    def replace(self, loras: Sequence[ScaledLora]) -> None:
        """Put these LoRAs on in place of those that are on; each is made for the base's own weights, as in a fusion.

        Raises MismatchError, having changed nothing, for a module that the base has not in that shape.
        """
        changes = self._changes(loras)
        if self._changed and not self.keep:
            raise InputError("the weights under the LoRAs were not kept; open the base again, or with keep_base")
        for module, weight in self._before.items():
            self._layer(module).weight.copy_(weight)
        self._before.clear()
        for module, parts in changes.items():
            weight = self._layer(module).weight
            if self.keep:
                self._before[module] = weight.to("cpu", copy=True)
            weight.copy_(weight.float() + combined_delta(weight, parts))
        self._changed = bool(changes)

    def _changes(self, loras: Sequence[ScaledLora]) -> dict[Module, list[Change]]:
        changes: dict[Module, list[Change]] = defaultdict(list)
        for path, lora, scale in loras:
            wrong = []
            for key, module in lora.modules.items():
                layer = self._layer(key)
                there = layer.weight if isinstance(layer, nn.Linear | nn.Conv2d) else None
                if there is None or tuple(there.shape) != module.weight_shape:
                    found = "no such layer" if there is None else f"a layer of {shape_text(there)}"
                    wrong.append(f"{'.'.join(key)} ({found})")
                changes[key].append(Change(module, scale))
            lora.require_fit(wrong, str(path), self.base.name, "give a LoRA made for it")
        return changes

    def _layer(self, module: Module) -> Any:
        """Return a layer by the name that LoRA files give it, None where there is none."""
        part, path = module
        if part not in self._layers:
            model: Any = getattr(self.base, part, None)
            paths = {} if model is None else module_paths(model, part)
            self._layers[part] = {path: model.get_submodule(own) for path, own in paths.items()}
        return self._layers[part].get(path)
