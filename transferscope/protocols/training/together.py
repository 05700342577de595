"""Training several small networks of one shape at once, as one batched network."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from transferscope.activations.stages import BATCH_NORMS
from transferscope.errors import InputError, SourceError
from transferscope.protocols.training.inputs import CachedViews
from transferscope.protocols.training.learner import Learner, learning_rate_factors, tensors
from transferscope.protocols.training.loop import Loop, Member
from transferscope.protocols.training.recipe import Recipe, TrainingRecord

_KINDS = ("structure", "parameters and buffers", "shape of inputs", "shape of validation images", "rates")
_BATCH = 64
"""Validation images that each network is given at once."""


def fit_together(
    members: Sequence[Member], *, recipe: Recipe, on_epoch: Callable[[int, int], None] | None = None
) -> list[TrainingRecord | SourceError]:
    """Train networks of one shape at once, each as `single.fit` would train it alone.

    Each has its own images, order, shifts, validation, early stop and batch norm averages. Up to rounding its weights
    are those that `single.fit` gives it, unless it has dropout: its masks depend on the networks beside it.

    Parameters
    ----------
    members : sequence of Member
        Networks on one device that differ in their weights alone, with inputs and validation inputs of the same shape
        and the same rates. torch.func.vmap has to be able to run them: no step of theirs may depend on values.
    recipe : Recipe
        Schedule and budget; the budget is that of all together.
    on_epoch : callable, optional
        Called as `on_epoch(done, total)` after each epoch.

    Returns
    -------
    list of TrainingRecord or SourceError
        In the members' order; the error of those whose loss became NaN or infinite, at which the others go on.

    Raises
    ------
    InputError
        When the members are not of one shape.
    """
    if not members:
        return []
    for i, member in enumerate(members):
        for kind, mine, first in zip(_KINDS, _shape(member), _shape(members[0]), strict=True):
            if mine != first:
                raise InputError(
                    f"Expected networks that are trained together to have the same {kind}, but member {i} differs from "
                    "member 0; train them one by one, with `fit`"
                )
    with _no_word_on_speed(), _batch_norm_in_float32(members[0].net):
        return Loop(_Stack(members, recipe), members, recipe).run(on_epoch)


def _shape(member: Member) -> tuple[object, ...]:
    """Return what the members have to have in common, in the order of `_KINDS`."""
    inputs = member.inputs.views if isinstance(member.inputs, CachedViews) else member.inputs
    return (
        repr(member.net),
        [(name, t.shape, t.dtype, t.device, t.requires_grad) for name, t in tensors(member.net)],
        (type(member.inputs), inputs.shape),
        None if member.validation is None else member.validation[0].shape,
        dict(member.rates or {}),
    )


class _Stack(Learner):
    """Networks whose weights are stacked along a first axis; the first network's code runs for all."""

    def __init__(self, members: Sequence[Member], recipe: Recipe) -> None:
        net = members[0].net
        factors = learning_rate_factors(net, members[0].rates)
        for member in members:
            member.net.train()
        self._parameters, self._buffers = stack_module_state([member.net for member in members])
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(factors[name] > 0)
        super().__init__(net, self._parameters, factors, recipe, torch.contiguous_format, members[0].objective)

    def losses(self, inputs: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        return self._each(self._logits(torch.stack(list(inputs))), torch.stack(list(labels))).mean(1)

    def evaluate(self, validations: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[float, float]]:
        self._net.eval()
        images = torch.stack([images for images, _ in validations])
        labels = torch.stack([labels.to(self.device) for _, labels in validations])
        losses = torch.zeros(len(images), dtype=torch.float64, device=self.device)
        correct = torch.zeros(len(images), device=self.device)
        with torch.no_grad(), self.precision():
            for batch, truth in zip(images.split(_BATCH, 1), labels.split(_BATCH, 1), strict=True):
                logits = self._logits(batch.to(self.device)).double()
                losses += self._each(logits, truth).sum(1)
                correct += self.objective.right(logits, truth).sum(1)
        n_samples = labels.shape[1]
        return [
            (loss / n_samples, right / n_samples) for loss, right in zip(losses.tolist(), correct.tolist(), strict=True)
        ]

    def weights(self, position: int) -> dict[str, Tensor]:
        stacked = {**self._parameters, **self._buffers}
        return {name: tensor[position].detach().clone() for name, tensor in stacked.items()}

    def keep(self, positions: Sequence[int]) -> None:
        chosen = torch.tensor(positions, device=self.device)
        self.optimiser.zero_grad(set_to_none=True)
        for parameter in self._parameters.values():
            shape = parameter.shape
            parameter.data = parameter.data[chosen]
            state = self.optimiser.state.get(parameter, {})
            # AdamW counts its steps in a tensor of its own, the same for all.
            state.update({name: tensor[chosen] for name, tensor in state.items() if tensor.shape == shape})
        self._buffers = {name: buffer[chosen] for name, buffer in self._buffers.items()}

    def _each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss (K, n) of outputs (K, n, n_outputs)."""
        return self.objective.loss(logits.flatten(0, 1), labels.flatten(0, 1), "none").view(labels.shape[:2])

    def _logits(self, inputs: Tensor) -> Tensor:
        """Run each network on its own batch: (K, n, …) to (K, n, classes)."""

        def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            return functional_call(self._net, (parameters, buffers), (batch,))

        return vmap(forward, randomness="different")(self._parameters, self._buffers, inputs)


@contextmanager
def _no_word_on_speed() -> Iterator[None]:
    """Keep torch from warning of operations that vmap runs one network at a time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        yield


@contextmanager
def _batch_norm_in_float32(net: nn.Module) -> Iterator[None]:
    """Give batch norm float32 inputs behind bfloat16: batched, it does not take two types on every device."""

    def widened(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0].float() if inputs[0].dtype == torch.bfloat16 else inputs[0],)

    norms = (module for module in net.modules() if isinstance(module, BATCH_NORMS))
    hooks = [norm.register_forward_pre_hook(widened) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
