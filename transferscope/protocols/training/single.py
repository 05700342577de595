"""Training one network, and what tells how: its accuracy on images, and how much each stage wants to move."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from transferscope.activations.tracing import evaluating
from transferscope.errors import InputError, SourceError
from transferscope.protocols.training.inputs import CachedViews, Inputs
from transferscope.protocols.training.learner import Learner, learning_rate_factors, tensors
from transferscope.protocols.training.loop import Loop, Member, deterministic_kernels
from transferscope.protocols.training.objective import CLASSES, Objective
from transferscope.protocols.training.recipe import Recipe, TrainingRecord
from transferscope.protocols.training.resuming import StateFile
from transferscope.runtime.seeding import seeded
from transferscope.runtime.store import digest
from transferscope.runtime.version import __version__


def fit(
    net: nn.Module,
    images: Inputs,
    labels: Tensor,
    validation: tuple[Tensor, Tensor] | None,
    *,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[int, int], None] | None = None,
    rates: Mapping[str, float] | None = None,
    state: Path | None = None,
    on_step: Callable[[int], None] | None = None,
    objective: Objective = CLASSES,
) -> TrainingRecord:
    """Train `net` in place and leave it in evaluation mode with the weights of its best epoch.

    Parameters
    ----------
    net : torch.nn.Module
        On the device on which it is trained. Parameters that require no gradient are left as they are, and modules
        that have no others stay in evaluation mode, like those that the network's own `train` keeps there.
    images : torch.Tensor or CachedViews
        (n_samples, channels, height, width), normalised; shifted anew in every epoch. Or what a frozen prefix made of
        views of them, which is not. On a GPU they are kept in its memory where there is room for them.
    labels : torch.Tensor
        (n_samples,) int64 of classes; else (n_samples, n_outputs) float32, as `Objective.tensor` makes it.
    validation : tuple of torch.Tensor, optional
        Images (or what the prefix made of them) and labels that decide when to stop and which epoch is best. Without
        them the whole schedule is trained and the last weights are kept.
    recipe : Recipe
        Schedule and budget.
    seed : int
        Not negative. Decides the order of the images, their shifts and dropout; the global random state is left alone.
    on_epoch : callable, optional
        Called as `on_epoch(done, total)` after each epoch.
    rates : mapping of str to float, optional
        Factors on the learning rate by module path or parameter name; the longest match counts, 0 freezes.
    state : pathlib.Path, optional
        File that is written from time to time, and removed at the end. An interrupted run with the same arguments goes
        on from it and ends with the same weights, bit by bit, as one that was never interrupted.
    on_step : callable, optional
        Called as `on_step(done)` after each optimiser step, when `net` has the weights of that step; a run that goes on
        from a state file calls it for the steps that are left. It may evaluate the network, and leaves modes, weights
        and random state as they were. Its time counts neither in the record nor in the budget.
    objective : Objective
        What is learnt.

    Raises
    ------
    InputError
        When images and labels differ in number, or `rates` cannot be followed.
    SourceError
        When the loss is NaN or infinite.
    """
    member = Member(net, images, labels, validation, seed, rates, objective)
    factors = learning_rate_factors(net, rates)
    file = None if state is None else StateFile(state, _identity(member, recipe))
    with _frozen(net, [name for name, factor in factors.items() if factor == 0]), _channels_last(member) as format_:
        learner = _Single(net, dict(net.named_parameters()), factors, recipe, format_, objective)
        (outcome,) = Loop(learner, [member], recipe).run(on_epoch, file, on_step)
    if isinstance(outcome, SourceError):
        raise outcome
    return outcome


def evaluate(
    net: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 256, objective: Objective = CLASSES
) -> tuple[float, float]:
    """Return (mean loss, accuracy), as `Objective` has them, of `net` in evaluation mode; the mode is left there."""
    net.eval()
    device = next(net.parameters()).device
    loss, correct = 0.0, 0.0
    with torch.inference_mode():
        for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            logits = net(batch.to(device)).double()
            truth = truth.to(device)
            loss += float(objective.loss(logits, truth, "sum"))
            correct += float(objective.right(logits, truth).sum())
    return loss / len(labels), correct / len(labels)


def predicted(net: nn.Module, images: Tensor, *, batch_size: int = 256, objective: Objective = CLASSES) -> Tensor:
    """Return `Objective.predictions` of images on the host, by default codes of classes; as `evaluate` does it."""
    net.eval()
    device = next(net.parameters()).device
    with torch.inference_mode():
        return torch.cat([objective.predictions(net(batch.to(device))).cpu() for batch in images.split(batch_size)])


def relative_gradient_norms(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    groups: Mapping[str, Sequence[str]],
    *,
    batch_size: int = 32,
    objective: Objective = CLASSES,
) -> dict[str, float]:
    """Return ‖gradient‖ / ‖weights‖ of each group of parameters, the mean over batches, as a share of the largest.

    The learning rates of surgical fine-tuning (Auto-RGN; Lee et al. 2023, arXiv 2210.11466): a stage whose weights
    want to move far, for their size, is the one to tune.

    Parameters
    ----------
    net : torch.nn.Module
        Run in evaluation mode, so that batch norm keeps its averages; its mode is as before afterwards.
    images : torch.Tensor
        (n_samples, channels, height, width), normalised; not shifted.
    labels : torch.Tensor
        (n_samples,) int64 of classes; else (n_samples, n_outputs) float32.
    groups : mapping of str to sequence of str
        Names of the parameters of each group (a stage).
    batch_size : int
        Images a gradient is taken of.
    objective : Objective
        Whose gradient.

    Returns
    -------
    dict of str to float
        Between 0 and 1 by group; a group whose weights are all 0 gets 1.

    Raises
    ------
    InputError
        When a group is empty, or names a parameter that is unknown or frozen.
    SourceError
        When a gradient is NaN or infinite.
    """
    parameters = trainable(net, groups, "group")
    device = next(iter(parameters.values())).device
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    gradients = dict.fromkeys(groups, torch.zeros((), device=device))
    with evaluating(net), deterministic_kernels():
        for batch, truth in batches:
            loss = objective.loss(net(batch.to(device)), truth.to(device), "mean")
            batch_gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            of = dict(zip(parameters, batch_gradients, strict=True))
            for group, names in groups.items():
                gradients[group] = gradients[group] + _norm(of[name] for name in names) / len(batches)
    norms = {group: float(norm) for group, norm in gradients.items()}
    if not all(map(math.isfinite, norms.values())):
        raise SourceError(f"Expected finite gradients of {type(net).__name__}, but got norms {norms}")
    weights = {group: float(_norm(parameters[name].detach() for name in names)) for group, names in groups.items()}
    relative = {group: norms[group] / weights[group] for group in groups if weights[group] > 0}
    largest = max(relative.values(), default=0.0)
    # Without any gradient no group is better than another.
    return {group: relative[group] / largest if group in relative and largest > 0 else 1.0 for group in groups}


def trainable(net: nn.Module, groups: Mapping[str, Sequence[str]], what: str) -> dict[str, nn.Parameter]:
    """Return the parameters that the groups name, each once.

    Raises
    ------
    InputError
        When a group, called `what` in the message, is empty, or names a parameter that is unknown or frozen.
    """
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    for group, names in groups.items():
        if not names or not trained.keys() >= set(names):
            raise InputError(
                f"Expected {what} {group!r} to name trainable parameters of {type(net).__name__}, but got {list(names)}"
            )
    return {name: trained[name] for names in groups.values() for name in names}


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]))


class _Single(Learner):
    """One network, stepped as it is."""

    def losses(self, inputs: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        return self.objective.loss(self._net(inputs[0]), labels[0], "mean")[None]

    def evaluate(self, validations: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[float, float]]:
        with self.precision():
            return [evaluate(self._net, *validations[0], objective=self.objective)]

    def weights(self, position: int) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in tensors(self._net)}

    def keep(self, positions: Sequence[int]) -> None:
        assert list(positions) == [0]  # one network is kept whole or not at all


def _identity(member: Member, recipe: Recipe) -> str:
    """Return a digest of what tells a run from others: cheap to take, so without the images and the first weights."""
    inputs = member.inputs.views if isinstance(member.inputs, CachedViews) else member.inputs
    pairs = [(inputs, member.labels), *([] if member.validation is None else [member.validation])]
    return digest(
        __version__, torch.__version__, asdict(recipe), member.seed, dict(member.rates or {}),
        {name: [list(t.shape), str(t.dtype), t.device.type, t.requires_grad] for name, t in tensors(member.net)},
        [[list(images.shape), labels.tolist()] for images, labels in pairs],
        *([] if member.objective is CLASSES else [member.objective.task]),
    )  # fmt: skip


@contextmanager
def _frozen(net: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Let these parameters require no gradient for the while, so that none is computed."""
    parameters = dict(net.named_parameters())
    frozen = [parameters[name] for name in names if parameters[name].requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _is_strided_pointwise(module: nn.Module) -> bool:
    """Whether this is a 1 × 1 convolution with a stride, as in the shortcuts of a ResNet.

    With channels last and several threads torch 2.15 computes its gradient on a CPU with writes beyond the memory it
    has: seen with 4 and 8 channels and odd numbers of images.
    """
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) == 1 and max(module.stride) > 1


@contextmanager
def _channels_last(member: Member) -> Iterator[torch.memory_format]:
    """Lay weights and batches out channels last, in which convolutions are quicker, if the network takes it."""
    net, device = member.net, next(member.net.parameters()).device
    sample = (member.inputs.views[0] if isinstance(member.inputs, CachedViews) else member.inputs)[:1].to(device)
    if sample.ndim != 4 or (device.type == "cpu" and any(map(_is_strided_pointwise, net.modules()))):
        yield torch.contiguous_format
        return
    memory_format = torch.channels_last
    net.eval().to(memory_format=memory_format)
    try:
        with torch.no_grad(), seeded(member.seed, device):
            net(sample.contiguous(memory_format=memory_format))
    except RuntimeError:  # A view of the activations that needs them contiguous.
        memory_format = torch.contiguous_format
        net.to(memory_format=memory_format)
    try:
        yield memory_format
    finally:
        net.to(memory_format=torch.contiguous_format)
