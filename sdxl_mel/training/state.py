"""The state of a run on disk: tensors in safetensors, numbers in JSON, nothing pickled; a folder is whole or absent."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sdxl_mel.errors import FormatError, MismatchError, ResourceError
from sdxl_mel.files.atomic import atomic_folder
from sdxl_mel.files.header import parse_json
from sdxl_mel.training.ema import Averages

STATES = "state"
PREFIX = "step-"
WEIGHTS, EXTRA = "adapter", "extra"
"""Names of the parameters and of the extra state in a saved state (the first is that of runs made before tasks)."""


@dataclass
class History:
    """What a run remembers besides tensors: validations so far, the first diversity, why it stopped early."""

    validations: list[dict[str, Any]] = field(default_factory=list)
    diversity: float | None = None
    stopped: str | None = None


@dataclass
class State:
    """Everything that changes while training; `step` optimizer steps are done."""

    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    averages: Averages
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)
    history: History = field(default_factory=History)
    step: int = 0

    @contextmanager
    def averaged(self, length: float) -> Iterator[None]:
        """Hold the average of a length in the parameters while the block runs."""
        with _put_back(list(self.parameters.values())) as parameters:
            torch._foreach_copy_(parameters, self.averages.tensors[length])
            yield


@contextmanager
def evaluation_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Hold the weights to be judged and saved while the block runs.

    A schedule-free optimizer trains at one point and is judged at another; for the rest this does nothing. Going
    there and back rounds, so the training weights are put back from a copy: looking does not change the run.
    """
    switch: Any = optimizer
    if not hasattr(switch, "eval"):
        yield
        return
    with _put_back(parameters_of(optimizer)):
        switch.eval()
        try:
            yield
        finally:
            switch.train()


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return every parameter in the order of the groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@contextmanager
def _put_back(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Yield tensors without their gradients, and give them back what they held before the block."""
    held = [tensor.detach() for tensor in tensors]
    kept = [tensor.clone() for tensor in held]
    try:
        yield held
    finally:
        torch._foreach_copy_(held, kept)


def save_state(run: Path, state: State, keep: int) -> Path:
    """Write the state of a run and forget all but the last `keep`."""
    folder = run / STATES / f"{PREFIX}{state.step:06d}"
    if not folder.exists():
        tensors, numbers = _optimizer_to_files(state.optimizer)
        tensors |= {f"{WEIGHTS}/{name}": tensor for name, tensor in state.parameters.items()}
        tensors |= {f"{EXTRA}/{name}": tensor for name, tensor in state.extra.items()}
        for length, averages in state.averages.tensors.items():
            tensors |= {f"average/{length}/{index}": tensor for index, tensor in enumerate(averages)}
        content = {"step": state.step, "optimizer": numbers, "notes": vars(state.history)}
        tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        with atomic_folder(folder) as temporary:
            try:
                save_file(tensors, temporary / "state.safetensors")
            except SafetensorError as error:
                raise ResourceError(
                    f"{folder}: the state cannot be written ({error}); the states before it are whole: make room and "
                    "--resume"
                ) from error
            (temporary / "state.json").write_text(json.dumps(content), encoding="utf-8")
    for old in list(saved_states(run))[:-keep]:
        shutil.rmtree(old)
    return folder


def saved_states(run: Path) -> Iterator[Path]:
    """Yield the folders of the saved states, oldest first."""
    yield from sorted(path for path in (run / STATES).glob(f"{PREFIX}*") if path.is_dir())


@torch.no_grad()
def load_state(folder: Path, state: State) -> None:
    """Put a saved state into a fresh one. Raises FormatError for a damaged one, MismatchError for another run's."""
    try:
        tensors = load_file(folder / "state.safetensors")
        content = parse_json((folder / "state.json").read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise FormatError(
            f"{folder}: this saved state is damaged ({error}); delete it and resume from the one before"
        ) from error
    for prefix, own in ((WEIGHTS, state.parameters), (EXTRA, state.extra)):
        saved = {
            name.removeprefix(f"{prefix}/"): each for name, each in tensors.items() if name.startswith(f"{prefix}/")
        }
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in saved.items()}:
            raise MismatchError(f"{folder}: its {len(saved)} {prefix} tensors are not the {len(own)} of this run")
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    _optimizer_from_files(state.optimizer, tensors, content["optimizer"])
    for length, averages in state.averages.tensors.items():
        for index, average in enumerate(averages):
            average.copy_(tensors[f"average/{length}/{index}"])
    state.step, state.history = content["step"], History(**content["notes"])


def _optimizer_to_files(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    whole = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, values in whole["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{name}"] = value.clone()
            else:
                numbers.setdefault(str(index), {})[name] = value
    groups = [
        {name: value.item() if isinstance(value, torch.Tensor) else value for name, value in group.items()}
        for group in whole["param_groups"]
    ]
    return tensors, {"numbers": numbers, "groups": groups}


def _optimizer_from_files(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any]
) -> None:
    values: dict[int, dict[str, Any]] = {int(index): dict(named) for index, named in content["numbers"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            values.setdefault(int(index), {})[key] = tensor
    groups = [
        {name: tuple(value) if isinstance(value, list) and name != "params" else value for name, value in group.items()}
        for group in content["groups"]
    ]
    if sum(len(group["params"]) for group in groups) != len(parameters_of(optimizer)):
        raise MismatchError("this state was saved by an optimizer of other parameters")
    optimizer.load_state_dict({"state": values, "param_groups": groups})
