"""Muon for the matrices inside a model, AdamW for its embedding and norms."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Newton-Schulz coefficients and the update rule: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural
# networks", 2024. They push all singular values towards one in few steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices [..., rows, columns] with the same singular vectors, and all singular values near one."""
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Gradient descent with Nesterov momentum, each matrix's step orthogonalized."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            directions: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}  # matrices of one shape go together
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                direction = matrix.grad.lerp(state["momentum"], group["momentum"])
                directions.setdefault(matrix.shape, []).append((matrix, direction))
            for shape, pairs in directions.items():
                updates = orthogonalize(torch.stack([direction for _, direction in pairs]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for (matrix, _), update in zip(pairs, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * scale)


def make_optimizers(model: torch.nn.Module, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "token_embd" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "token_embd" in name]
    return [Muon(matrices, matrix_lr), torch.optim.AdamW(others, other_lr, betas=(0.9, 0.95), weight_decay=0.0)]
