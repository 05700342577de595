"""From what was seen of fine-tunings to tables: T as published, at matched steps and at matched training loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from transferscope.verbs.parameters.domain import Domain
from transferscope.verbs.parameters.layerwise import ratios, reason
from transferscope.verbs.parameters.matching import common_loss, common_steps, point_at, step_of_loss
from transferscope.verbs.parameters.moving import Moved
from transferscope.verbs.parameters.trajectory import Trajectory


@dataclass(frozen=True)
class Unit:
    """A fine-tuning, with what it is called in the tables."""

    source: str
    target: str
    classes: int
    samples_per_class: int
    samples: int
    seed: int
    groups: Mapping[str, Sequence[str]]
    """Layer to the keys of its weights."""
    moved: Moved
    domain: Domain

    @property
    def name(self) -> dict[str, str | int]:
        """What tells it from others."""
        return {
            "source": self.source, "target": self.target, "samples_per_class": self.samples_per_class,
            "samples": self.samples, "seed": self.seed,
        }  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """The tables of `results.parameters.ParameterTransfer`, and what the runs were matched at."""

    layers: pd.DataFrame
    runs: pd.DataFrame
    trajectory: pd.DataFrame
    steps: int
    loss: float


def tabulate(units: Sequence[Unit], steps: int | None = None, loss: float | None = None) -> Tables:
    """Compare fine-tunings at the end of training, after `steps` optimiser steps and at the training loss `loss`.

    Parameters
    ----------
    units : sequence of Unit
        At least one.
    steps : int, optional
        By default the fewest that any of them took.
    loss : float, optional
        Relative to guessing, see `Trajectory`; by default the largest of their lowest losses.
    """
    trajectories = [unit.moved.trajectory for unit in units]
    steps = common_steps(trajectories) if steps is None else steps
    loss = common_loss(trajectories) if loss is None else loss
    layers: list[pd.DataFrame] = []
    runs = []
    for unit in units:
        trajectory, moved = unit.moved.trajectory, unit.moved
        last = int(trajectory.steps[-1])
        wanted = {"epochs": last, "steps": steps if steps <= last else math.nan, "loss": step_of_loss(trajectory, loss)}
        for criterion, step in wanted.items():
            table, mean, spread, reached = _layers(unit, step, criterion)
            layers.append(table)
            runs.append({
                **unit.name, "classes": unit.classes, "criterion": criterion, "step": step, "loss": reached,
                "transferability": mean, "spread": spread, "accuracy": moved.accuracy,
                "gradient_snr": _finite_mean(list(moved.gradient_snr.values())),
                "frechet": unit.domain.frechet, "mmd": unit.domain.mmd,
                "within": unit.domain.within, "between": unit.domain.between,
            })  # fmt: skip
    return Tables(
        pd.concat(layers, ignore_index=True), pd.DataFrame(runs),
        pd.concat([_trajectory(unit) for unit in units], ignore_index=True), steps, loss,
    )  # fmt: skip


def _layers(unit: Unit, step: float, criterion: str) -> tuple[pd.DataFrame, float, float, float]:
    """Return T and its companions of each layer at a step, the mean of T with its spread over redraws, and the loss."""
    trajectory, names = unit.moved.trajectory, list(unit.groups)
    never = math.isnan(step)
    # Where the step was never reached, the shapes are those of any other.
    point = point_at(trajectory, 0 if never else step)
    values = ratios(point.to_initial, point.to_source, trajectory.names, unit.groups)
    place = {name: position for position, name in enumerate(trajectory.names)}
    members = [[place[key] for key in unit.groups[layer]] for layer in names]
    squares = [(np.sum(point.change[indices] ** 2), np.sum(trajectory.norm[indices] ** 2)) for indices in members]
    to_initial, to_source = point.to_initial.mean(0), point.to_source
    reasons = [reason(float(to_initial[indices].mean()), float(to_source[indices].mean())) for indices in members]
    table = pd.DataFrame({
        **unit.name, "criterion": criterion, "step": step, "depth": np.arange(1, len(names) + 1), "layer": names,
        "transferability": values.mean(0), "spread": _spread(values),
        "relative_change": [math.sqrt(moved / size) if size else math.nan for moved, size in squares],
        "cka": [unit.moved.cka[layer] if criterion == "epochs" else math.nan for layer in names],
        "gradient_snr": [unit.moved.gradient_snr[layer] for layer in names],
        "reason": reasons,
    })  # fmt: skip
    if never:
        table[["transferability", "spread", "relative_change"]] = math.nan
        table["reason"] = (
            f"training ended before the {'loss' if criterion == 'loss' else 'steps'} that runs are matched at"
        )
        return table, math.nan, math.nan, math.nan
    means = values.mean(1)
    return table, float(means.mean()), float(_spread(means[:, None])[0]), point.loss


def _spread(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation over redraws; NaN where there is one alone, or an infinite T."""
    if len(values) < 2:
        return np.full(values.shape[1:], math.nan)
    finite = np.isfinite(values).all(0)
    return np.where(finite, np.where(finite, values, 0).std(0, ddof=1), math.nan)


def _finite_mean(values: Sequence[float]) -> float:
    """Return the mean; of a layer without gradients there is no ratio, and it must not cost the others."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _trajectory(unit: Unit) -> pd.DataFrame:
    """Return T of each layer at every recorded step but that before the first, where nothing has moved."""
    trajectory: Trajectory = unit.moved.trajectory
    values = ratios(trajectory.to_initial, trajectory.to_source, trajectory.names, unit.groups).mean(0)[1:]
    points, n_layers = values.shape
    return pd.DataFrame({
        **{name: value for name, value in unit.name.items() if name != "samples"},
        "step": np.repeat(trajectory.steps[1:], n_layers),
        "epoch": np.repeat(trajectory.steps[1:] / trajectory.steps_per_epoch, n_layers),
        "loss": np.repeat(trajectory.loss[1:], n_layers),
        "depth": np.tile(np.arange(1, n_layers + 1), points),
        "layer": np.tile(np.array(list(unit.groups), dtype=object), points),
        "transferability": values.ravel(),
    })  # fmt: skip
