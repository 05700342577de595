"""How far a network moves while it is fine-tuned: from the source, and from the weights the source began with."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from transferscope.activations.tracing import evaluating
from transferscope.arrays.backend import from_torch, stream_of
from transferscope.arrays.displacement import Displacement, displacement
from transferscope.errors import InputError, SourceError, TransferscopeWarning, check_whole
from transferscope.protocols.training.loop import deterministic_kernels
from transferscope.protocols.training.recipe import Recipe, batch_bounds
from transferscope.protocols.training.single import evaluate, fit
from transferscope.runtime.seeding import seeded

LOSS_IMAGES = 500
"""The training loss is taken on at most this many images, the first."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Distances of a network's weights from where it began and from its source, along a fine-tuning.

    They are mean absolute differences over the elements of a tensor (Chen et al. 2022, arXiv 2212.00399), so that T of
    a tensor is `to_initial / to_source`.
    """

    names: tuple[str, ...]
    """Keys of the weights in the network's state dict."""
    steps: np.ndarray
    """(n_points,) int64 optimiser steps: 0, 1, 2, 3, 4, 6, 8, 11, 16 and so on, two an octave, and the end."""
    steps_per_epoch: int
    loss: np.ndarray
    """(n_points,) Mean cross-entropy of training images in evaluation mode, unshifted, divided by that of guessing."""
    to_initial: np.ndarray
    """(n_draws, n_points, n_weights) Mean |θ − θ_r|, for each draw of the initial weights."""
    to_source: np.ndarray
    """(n_points, n_weights) Mean |θ − θ_A|."""
    change: np.ndarray
    """(n_points, n_weights) ‖θ − θ_A‖₂."""
    norm: np.ndarray
    """(n_weights,) ‖θ_A‖₂."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, for the cache."""
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, names: Sequence[str], steps_per_epoch: int, arrays: Mapping[str, np.ndarray]) -> "Trajectory":
        """Put together again what `arrays` took apart."""
        return cls(names=tuple(names), steps_per_epoch=steps_per_epoch, **{name: arrays[name] for name in _ARRAYS})


_ARRAYS = ("steps", "loss", "to_initial", "to_source", "change", "norm")


def follow(
    net: nn.Module,
    initials: Sequence[Mapping[str, Tensor]],
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    names: Sequence[str],
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Trajectory:
    """Fine-tune `net` in place and record how far it is from its source and its initial weights.

    The weights at the end are, bit by bit, those of `single.fit` with the same arguments and no validation images.

    Parameters
    ----------
    net : torch.nn.Module
        The source with a new head, on the device on which it is trained. It is left in evaluation mode with the weights
        of the last step.
    initials : sequence of mapping of str to torch.Tensor
        Weights that the source was trained from, at least one draw; on any device, in any floating-point type. Not the
        tensors of `net` itself, which change.
    images : torch.Tensor
        (n_samples, channels, height, width), normalised. The loss is taken on the first `LOSS_IMAGES`, so their classes
        should take turns.
    labels : torch.Tensor
        (n_samples,) int64.
    classes : int
        At least 2; the loss of guessing is their logarithm.
    names : sequence of str
        Keys in the state dicts of `net` and of the initial weights.
    recipe : Recipe
        How it is trained.
    seed : int
        Not negative, as in `fit`; the global random state is left alone.
    on_epoch : callable, optional
        Called as `on_epoch(done, total)` after each epoch.

    Raises
    ------
    InputError
        When there are no names or initial weights, `net` lacks a name, or images, labels and classes do not fit.
    SourceError
        When initial weights lack a name or have another shape, or training diverges.

    Warns
    -----
    TransferscopeWarning
        When the recipe's budget ends training before its schedule does; the trajectory ends there.
    """
    if len(images) != len(labels) or len(labels) == 0:
        raise InputError(
            f"Expected one label for each of at least one image, but got {len(images)} images and {len(labels)} labels"
        )
    check_whole("classes", classes, 2)
    steps_per_epoch = len(batch_bounds(len(labels), recipe.batch_size)) - 1
    total = recipe.most_epochs(len(labels)) * steps_per_epoch
    wanted = _steps(total)
    recorder = _Recorder(net, initials, names, (images[:LOSS_IMAGES], labels[:LOSS_IMAGES]), classes, seed)
    with deterministic_kernels():
        recorder.record(0)
        training = fit(
            net, images, labels, None, recipe=recipe, seed=seed, on_epoch=on_epoch,
            on_step=lambda done: recorder.record(done) if done in wanted else None,
        )  # fmt: skip
        if recorder.steps[-1] < training.steps:
            recorder.record(training.steps)
    if training.stopped == "budget":
        warnings.warn(
            f"Training stopped after {training.steps} of {total} steps, when its {recipe.limit_s:g} s were over; the "
            "trajectory ends there. Raise the recipe's `budget_s`",
            TransferscopeWarning,
            stacklevel=2,
        )
    return recorder.trajectory(steps_per_epoch)


def _steps(total: int) -> set[int]:
    """Return the steps that are recorded, as far as training comes: the rounded powers of √2, and the last one."""
    return {total, *(round(2 ** (k / 2)) for k in range(2 * total.bit_length()))}


class _Recorder:
    """Takes down where a network is, without touching it."""

    def __init__(
        self,
        net: nn.Module,
        initials: Sequence[Mapping[str, Tensor]],
        names: Sequence[str],
        batch: tuple[Tensor, Tensor],
        classes: int,
        seed: int,
    ) -> None:
        if not names or not initials:
            raise InputError(
                f"Expected at least one name and one draw of the initial weights, but got {len(names)} and "
                f"{len(initials)}"
            )
        state = net.state_dict()
        if missing := [name for name in names if name not in state]:
            raise InputError(f"Expected `names` to be weights of {type(net).__name__}, but it has no {missing}")
        example = next(net.parameters())
        self._net, self._names, self._classes, self._seed = net, tuple(names), classes, seed
        self._device = example.device
        self._images, self._labels = batch[0].to(example.device, example.dtype), batch[1].to(example.device)
        for initial in initials:
            _check(initial, {name: state[name] for name in names})
        with stream_of(self._device):
            self._initials = {
                name: [from_torch(initial[name].to(self._device)) for initial in initials] for name in names
            }
            self._source = {name: from_torch(state[name].clone()) for name in names}
        self.steps: list[int] = []
        self._losses: list[float] = []
        self._rows: list[list[Displacement]] = []

    def record(self, step: int) -> None:
        """Take down the loss and the distances after this step."""
        # Some networks draw random numbers in evaluation mode too.
        with seeded(self._seed, self._device), evaluating(self._net):
            loss, _ = evaluate(self._net, self._images, self._labels)
        if not math.isfinite(loss):
            raise SourceError(
                f"The training loss after {step} steps is {loss}: training diverged (lower the learning rate), or the "
                "network had no finite outputs to begin with"
            )
        # Looked up anew: a change of the memory format gives the parameters other tensors. Laid out like the others,
        # because tensors of one layout are compared faster.
        weights = self._net.state_dict()
        with stream_of(self._device):
            row = [
                displacement(self._initials[name], self._source[name], from_torch(weights[name].contiguous()))
                for name in self._names
            ]
        self.steps.append(step)
        self._losses.append(loss / math.log(self._classes))
        self._rows.append(row)

    def trajectory(self, steps_per_epoch: int) -> Trajectory:
        """Return what was taken down."""
        rows = self._rows
        return Trajectory(
            names=self._names,
            steps_per_epoch=steps_per_epoch,
            steps=np.array(self.steps, dtype=np.int64),
            loss=np.array(self._losses),
            to_initial=np.moveaxis(np.array([[moved.to_initial for moved in row] for row in rows]), 2, 0),
            to_source=np.array([[moved.to_source for moved in row] for row in rows]),
            change=np.array([[moved.change for moved in row] for row in rows]),
            norm=np.array([moved.norm for moved in rows[0]]),
        )


def _check(initial: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse initial weights that are not those of the network."""
    for name, tensor in expected.items():
        if name not in initial:
            raise SourceError(f"Expected the initial weights to hold {name!r}, but they do not")
        if initial[name].shape != tensor.shape:
            raise SourceError(
                f"Expected the initial weights {name!r} to have shape {tuple(tensor.shape)}, as in the source, but got "
                f"{tuple(initial[name].shape)}"
            )
