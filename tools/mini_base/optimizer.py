"""Muon for matrices and convolutions, AdamW for the rest."""

from collections.abc import Iterable

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Keller Jordan's quintic, https://kellerjordan.github.io/posts/muon/ ."""

NARROWEST = 16


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal: every direction learns at one speed.

    A convolution is the matrix (out, in x kh x kw). The step is scaled to the root mean square of an AdamW step
    (Moonlight, arXiv 2502.16982), so that both optimizers share one learning rate.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step with the gradients at hand."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(momentum, group["momentum"])
                matrix = orthogonal(ahead.reshape(len(ahead), -1))
                size = 0.2 * max(matrix.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(matrix.view_as(parameter), alpha=-group["lr"] * size)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return the matrix with all singular values near 1, by Newton-Schulz iterations in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def optimizers(network: torch.nn.Module, lr: float, adam_lr: float, parts: int) -> list[torch.optim.Optimizer]:
    """Return Muon in `parts` of equal work for weights of two dimensions and more, AdamW for the others.

    Embeddings, and matrices with a side under 16, are among the others.
    """
    tables = {id(module.weight) for module in network.modules() if isinstance(module, torch.nn.Embedding)}
    matrices, others = [], []
    for parameter in network.parameters():
        wide = parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= NARROWEST
        (matrices if wide and id(parameter) not in tables else others).append(parameter)
    matrices.sort(key=lambda parameter: -parameter.numel())
    shares = (matrices[part::parts] for part in range(parts))
    muons = [Muon(share, lr) for share in shares if share]
    return [*muons, torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.98), weight_decay=0.0)]
