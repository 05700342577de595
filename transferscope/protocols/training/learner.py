"""What the training loop steps: the weights of one or more networks of one shape, and their optimiser."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.errors import InputError
from transferscope.protocols.training.muon import Muon
from transferscope.protocols.training.objective import Objective
from transferscope.protocols.training.recipe import Recipe


class Learner(ABC):
    """What the loop steps: the weights of K networks of one shape, and their optimiser.

    Parameters
    ----------
    net : torch.nn.Module
        A network of this shape; its mode (training, evaluation) is that of all.
    parameters : mapping of str to torch.Tensor
        By their names in `net`.
    factors : mapping of str to float
        Factor on the learning rate of each parameter; those with 0 stay as they are, and modules that have no others
        stay in evaluation mode.
    recipe : Recipe
        Optimiser and precision.
    memory_format : torch.memory_format
        Of the batches it takes.
    objective : Objective
        What is learnt.
    """

    def __init__(
        self,
        net: nn.Module,
        parameters: Mapping[str, Tensor],
        factors: Mapping[str, float],
        recipe: Recipe,
        memory_format: torch.memory_format,
        objective: Objective,
    ) -> None:
        self._net, self.objective = net, objective
        example = next(iter(parameters.values()))
        self.device, self.dtype, self.memory_format = example.device, example.dtype, memory_format
        self._bfloat16 = recipe.precision == "bfloat16" or (
            recipe.precision == "auto"
            and self.device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        trained = {parameter for name, parameter in net.named_parameters() if factors[name]}
        self._still = [
            module
            for module in net.modules()
            if (module_parameters := set(module.parameters())) and trained.isdisjoint(module_parameters)
        ]
        own = dict(net.named_parameters())
        groups: dict[tuple[float, bool], list[Tensor]] = {}
        for name, parameter in parameters.items():
            if factors[name]:
                kernels = recipe.optimiser == "muon" and own[name].ndim > 2
                groups.setdefault((factors[name], kernels), []).append(parameter)
        stacked = example.ndim - next(iter(own.values())).ndim
        self.optimiser = _optimiser(
            [
                {"params": group, "initial_lr": recipe.learning_rate * factor, "kernels": kernels, "stacked": stacked}
                for (factor, kernels), group in groups.items()
            ],
            recipe,
        )

    def train(self) -> None:
        """Set training mode, but for what is frozen."""
        self._net.train()
        for module in self._still:
            module.eval()

    def step(self, inputs: Sequence[Tensor], labels: Sequence[Tensor], schedule: float) -> Tensor:
        """Make one step with a batch for each network at this share of the learning rate; return the losses (K,)."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * schedule
        with self.precision():
            losses = self.losses(inputs, labels)
        self.optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.optimiser.step()
        return losses.detach()

    def precision(self) -> torch.autocast:
        """Compute in the recipe's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16)

    @abstractmethod
    def losses(self, inputs: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Return the mean loss (K,) of each network on its own batch."""

    @abstractmethod
    def evaluate(self, validations: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[float, float]]:
        """Return (mean loss, accuracy) of each network on its own images, in evaluation mode."""

    @abstractmethod
    def weights(self, position: int) -> dict[str, Tensor]:
        """Return a copy of the parameters and buffers of one network."""

    @abstractmethod
    def keep(self, positions: Sequence[int]) -> None:
        """Go on with the networks at these positions alone."""


def learning_rate_factors(net: nn.Module, rates: Mapping[str, float] | None) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter; 0 where it is frozen.

    Parameters
    ----------
    net : torch.nn.Module
        Parameters that require no gradient are frozen.
    rates : mapping of str to float, optional
        Factors for module paths or parameter names; the longest match counts, "" matches all, 1 is for the rest.

    Raises
    ------
    InputError
        When a factor is negative or not finite, a name matches nothing, or nothing is left to train.
    """
    rates = rates or {}
    for prefix, factor in rates.items():
        if not 0 <= factor < math.inf:
            raise InputError(f"Expected the factors in `rates` to be 0 or positive, but got {factor} for {prefix!r}")
    factors, matched = {}, set()
    for name, parameter in net.named_parameters():
        parts = name.split(".")
        prefixes = [prefix for i in range(len(parts) + 1) if (prefix := ".".join(parts[:i])) in rates]
        matched.update(prefixes)
        factors[name] = float(rates[prefixes[-1]]) if prefixes else 1.0
        if not parameter.requires_grad:
            factors[name] = 0.0
    if unknown := sorted(set(rates) - matched):
        raise InputError(
            f"Expected the names in `rates` to be modules or parameters of {type(net).__name__}, but it has no "
            f"parameters under {', '.join(map(repr, unknown))}"
        )
    if not any(factors.values()):
        raise InputError(f"Expected parameters to train, but all of {type(net).__name__} is frozen")
    return factors


def assign(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the parameters and buffers of these names."""
    tensors_by_name = dict(tensors(net))
    with torch.no_grad():
        for name, value in weights.items():
            tensors_by_name[name].copy_(value)


def tensors(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a network by name, shared ones once."""
    yield from net.named_parameters()
    yield from net.named_buffers()


def _optimiser(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "muon":
        return Muon(groups, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, betas=(recipe.momentum, 0.999), **options)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **options)
