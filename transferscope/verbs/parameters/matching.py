"""Where trajectories are compared: after equally many optimiser steps, or at the same training loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transferscope.errors import InputError
from transferscope.verbs.parameters.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Point:
    """A trajectory at one step; see `Trajectory` for the distances."""

    step: float
    """Between two recorded steps where it is not whole, or not one that was recorded."""
    loss: float
    to_initial: np.ndarray
    """(n_draws, n_weights)."""
    to_source: np.ndarray
    """(n_weights,)."""
    change: np.ndarray
    """(n_weights,)."""


def point_at(trajectory: Trajectory, step: float) -> Point:
    """Return the trajectory after `step` steps: loss and distances are linear in the steps between recorded points.

    Raises
    ------
    InputError
        When `step` is negative, NaN or beyond the last one.
    """
    steps = trajectory.steps
    if not 0 <= step <= steps[-1]:
        raise InputError(
            f"Expected `step` to lie between 0 and {steps[-1]}, the last of the trajectory, but got {step}"
        )
    after = int(np.searchsorted(steps, step))
    before = after if steps[after] == step else after - 1
    share = 0.0 if before == after else (step - steps[before]) / (steps[after] - steps[before])

    def between(values: np.ndarray) -> np.ndarray:
        return (1 - share) * values[..., before, :] + share * values[..., after, :]

    return Point(
        step=float(step),
        loss=float(between(trajectory.loss[:, None])[0]),
        to_initial=between(trajectory.to_initial),
        to_source=between(trajectory.to_source),
        change=between(trajectory.change),
    )


def step_of_loss(trajectory: Trajectory, loss: float) -> float:
    """Return the step after which the training loss first is `loss` or less.

    It is linear in the steps between recorded points, but those before the first one after step 0 do not count: where
    the network has hardly moved, T is as large as one likes. A loss that the first recorded step already reaches, or
    that the source itself has, thus counts as reached with that step.

    Returns
    -------
    float
        At least the first recorded step after 0; NaN when the loss is never reached.

    Raises
    ------
    InputError
        When `loss` is NaN.
    """
    if math.isnan(loss):
        raise InputError(f"Expected `loss` to be a number, but got {loss}")
    steps, losses = trajectory.steps[1:], trajectory.loss[1:]
    reached = np.flatnonzero(losses <= loss)
    if not len(reached):
        return math.nan
    after = int(reached[0])
    if after == 0:
        return float(steps[0])
    share = (losses[after - 1] - loss) / (losses[after - 1] - losses[after])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))


def common_steps(trajectories: Sequence[Trajectory]) -> int:
    """Return the fewest steps that any trajectory has.

    Raises
    ------
    InputError
        When there is none.
    """
    _at_least_one(trajectories)
    return min(int(trajectory.steps[-1]) for trajectory in trajectories)


def common_loss(trajectories: Sequence[Trajectory]) -> float:
    """Return the largest of the trajectories' lowest losses after step 0, which each of them reaches.

    Raises
    ------
    InputError
        When there is none.
    """
    _at_least_one(trajectories)
    return max(float(trajectory.loss[1:].min()) for trajectory in trajectories)


def _at_least_one(trajectories: Sequence[Trajectory]) -> None:
    if not trajectories:
        raise InputError("Expected at least one trajectory, but got none")
