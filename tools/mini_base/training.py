"""The training loop of every network here: parts of a batch in threads, moving average, checkpoints.

Each thread runs its part on a replica that shares the weights, with one core and no barrier inside: on a busy machine
that is twice as fast as one thread pool inside every operation.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.progress import log, progress
from tools.mini_base.optimizer import optimizers
from tools.mini_base.speed import fast_group_norm

LossOf = Callable[[torch.nn.Module, int, int], torch.Tensor]
"""(network, step, part of the batch) -> loss."""

CLIP_NORM = 1.0
EMA_WARMUP = 10


@dataclass(frozen=True)
class Schedule:
    """Steps, learning rates of Muon and AdamW, moving average; seconds between checkpoints, steps between reports."""

    steps: int
    lr: float
    adam_lr: float
    warmup: int = 50
    decay_share: float = 0.4
    ema: float = 0.998
    threads: int = 2
    save_seconds: float = 180.0
    report_steps: int = 200

    def rate(self, step: int) -> float:
        """Return the share of the learning rate at a step: up, constant, down to zero by a cosine."""
        decay_from = self.steps * (1 - self.decay_share)
        falling = min(max((step - decay_from) / (self.steps - decay_from), 0.0), 1.0)
        return min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * falling))


class Training:
    """A network with its optimizers and moving average, resumed from `checkpoint` when that exists."""

    def __init__(self, network: torch.nn.Module, schedule: Schedule, checkpoint: Path) -> None:
        self.network, self.schedule, self.checkpoint = network, schedule, checkpoint
        self.parameters = list(network.parameters())
        self.replicas = [network, *(self._replica() for _ in range(schedule.threads - 1))]
        self.optimizers = optimizers(network, schedule.lr, schedule.adam_lr, schedule.threads)
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.step = 0
        if checkpoint.exists():
            self._load()

    def run(self, loss_of: LossOf, report: Callable[[torch.nn.Module, int], str]) -> torch.nn.Module:
        """Train to the last step and return the moving average; `report` is asked for a line now and then."""
        saved = time.monotonic()
        schedule = self.schedule
        pool = ThreadPoolExecutor(schedule.threads)
        with fast_group_norm(), progress(schedule.steps, self.checkpoint.stem, "steps", done=self.step) as ticker, pool:
            while self.step < schedule.steps:
                losses = list(pool.map(lambda part: self._gradient(loss_of, part), range(schedule.threads)))
                self._update(pool)
                self.step += 1
                ticker.advance(note=f"loss {sum(losses) / len(losses):.4f}")
                if self.step % schedule.report_steps == 0 or self.step == schedule.steps:
                    log(f"{self.checkpoint.stem} step {self.step}: {report(self.average, self.step)}")
                if time.monotonic() - saved > schedule.save_seconds or self.step == schedule.steps:
                    self._save()
                    saved = time.monotonic()
        return self.average

    def _gradient(self, loss_of: LossOf, part: int) -> float:
        torch.set_num_threads(1)
        loss = loss_of(self.replicas[part], self.step, part)
        loss.backward()
        return float(loss.detach())

    def _update(self, pool: ThreadPoolExecutor) -> None:
        others = [list(replica.parameters()) for replica in self.replicas[1:]]
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters):
                for other in others:
                    if other[index].grad is not None:
                        assert parameter.grad is not None
                        parameter.grad.add_(other[index].grad)
                        other[index].grad = None
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        torch._foreach_div_(gradients, float(len(self.replicas)))
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        rate = self.schedule.rate(self.step)
        for optimizer, base_rates in zip(self.optimizers, self.base_rates):
            for group, base_rate in zip(optimizer.param_groups, base_rates):
                group["lr"] = base_rate * rate
        list(pool.map(lambda optimizer: optimizer.step(), self.optimizers))
        self.network.zero_grad(set_to_none=True)
        decay = min(self.schedule.ema, (self.step + 1) / (self.step + EMA_WARMUP))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), self.parameters, 1 - decay)

    def _replica(self) -> torch.nn.Module:
        replica = copy.deepcopy(self.network)
        for mine, shared in zip(replica.parameters(), self.parameters):
            mine.data = shared.data
        return replica

    def _save(self) -> None:
        tensors = {f"network.{index}": tensor.detach() for index, tensor in enumerate(self.parameters)}
        tensors |= {f"average.{index}": tensor for index, tensor in enumerate(self.average.parameters())}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{name}": tensor for name, tensor in state.items()}
        tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        with atomic_path(self.checkpoint) as temporary:
            save_file(tensors, temporary, metadata={"step": json.dumps(self.step)})

    def _load(self) -> None:
        with safe_open(self.checkpoint, "pt") as file, torch.no_grad():
            self.step = json.loads(file.metadata()["step"])
            for index, (mine, mean) in enumerate(zip(self.parameters, self.average.parameters())):
                mine.copy_(file.get_tensor(f"network.{index}"))
                mean.copy_(file.get_tensor(f"average.{index}"))
            names = [name.split(".") for name in file.keys() if name.startswith("optimizer.")]  # noqa: SIM118
            for number, optimizer in enumerate(self.optimizers):
                packed = optimizer.state_dict()
                packed["state"] = {}
                for _, _, index, key in (name for name in names if int(name[1]) == number):
                    tensor = file.get_tensor(f"optimizer.{number}.{index}.{key}")
                    packed["state"].setdefault(int(index), {})[key] = tensor
                optimizer.load_state_dict(packed)
        log(f"{self.checkpoint.stem}: resumed at step {self.step}")
