"""Muon: steps of convolution kernels in which every direction counts the same, so that few of them are needed."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
"""Both as in Jordan's description: singular values between about 0.01 and 1 end between 0.7 and 1.2."""
_LEAST = 1e-7
"""Norms below count as this, as in Jordan's. Of a layer without gradient momentum fades away, and the squares of what
is left of it are 0 long before it is: divided by its norm, it would be infinite."""


class Muon(torch.optim.Optimizer):
    """Stochastic gradient descent with Nesterov's momentum, of whose steps those of kernels are orthogonalised.

    A kernel (outputs, inputs, …) is stepped as the matrix (outputs, inputs × …): of the step U S Vᵀ that momentum asks
    for, about U Vᵀ is made, times the root of its rows over its columns where it is tall.

    Parameters
    ----------
    groups : iterable of dict
        Of parameters, as any optimiser takes them. `kernels` says whether a group's steps are orthogonalised, `stacked`
        how many first axes of its parameters tell networks apart.
    lr : float
        Learning rate, of kernels and of the others.
    momentum : float
        In [0, 1).
    weight_decay : float
        L2 penalty; of kernels, whose steps have no size to compare it with, decoupled from the gradient.

    References
    ----------
    Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "kernels": False, "stacked": 0}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one step with the gradients that there are."""
        assert closure is None
        for group in self.param_groups:
            stepped = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = [self._asked_for(parameter, group) for parameter in stepped]
            if group["kernels"]:
                torch._foreach_mul_(stepped, 1 - group["lr"] * group["weight_decay"])
                updates = _steps_of_kernels(updates, group["stacked"])
            torch._foreach_add_(stepped, updates, alpha=-group["lr"])

    def _asked_for(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Return the step that momentum asks for, of other sign and before the learning rate."""
        gradient = parameter.grad
        assert gradient is not None
        if not group["kernels"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        past = state["momentum"].mul_(group["momentum"]).add_(gradient)
        return gradient.add(past, alpha=group["momentum"])


def _steps_of_kernels(updates: list[Tensor], stacked: int) -> list[Tensor]:
    """Return the steps of kernels (…, outputs, inputs, …) behind so many axes that tell networks apart."""
    found = list(updates)
    matrices = [update.flatten(stacked + 1).unsqueeze(0).flatten(0, stacked) for update in updates]
    of_shape: dict[torch.Size, list[int]] = {}
    for place, matrix in enumerate(matrices):
        of_shape.setdefault(matrix.shape, []).append(place)
    for (_, rows, columns), places in of_shape.items():
        # Those of one shape at once: what takes time is the number of calls.
        steps = orthogonalised(torch.cat([matrices[place] for place in places]))
        steps *= math.sqrt(max(1.0, rows / columns))
        for place, step in zip(places, steps.chunk(len(places)), strict=True):
            found[place] = step.reshape(updates[place].shape)
    return found


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return about U Vᵀ of matrices (n, rows, columns) = U S Vᵀ, by Newton-Schulz iterations; zeros stay zeros."""
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    # No singular value is above 1 then.
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp_min(_LEAST)
    linear, cubic, quintic = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), found, beta=linear)
    return found.mT if tall else found
