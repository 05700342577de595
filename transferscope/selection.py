"""From scores to predictions, and from predictions to a ranking of sources and depths."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import xarray as xr

from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.ties import beats, beats_unpaired, is_tie
from transferscope.zoo import SCRATCH

LEVEL = 0.8
"""Coverage of every interval."""

Selector = Callable[[xr.Dataset], xr.Dataset]
"""Takes the scores over (source, depth); returns them with `expected_accuracy`, `lower` and `upper` added."""


@dataclass(frozen=True)
class Recommendation:
    """One way to start a transfer, and what to expect of it."""

    rank: int
    source: str
    layer: str | None
    """Last layer that is kept; None when nothing is (training from scratch)."""
    depth: int
    depths: int
    protocol: str
    expected_accuracy: float
    interval: tuple[float, float]
    """80 % interval of the accuracy, from the number of images it was estimated on alone."""
    params: int
    """Parameters of the network up to the cut."""
    flops: int
    """Floating-point operations per image up to the cut."""
    scores: dict[str, float] = field(default_factory=dict)
    """At this cut; those of the source's own predictions (LEEP, NCE) do not depend on it."""
    baselines: dict[str, float] = field(default_factory=dict)
    """What needs no look at the target: see `scoring.BASELINES`."""
    beats_next: float | None = None
    """Probability that it is really better than the next one in the ranking; None for the last."""
    tied_with: tuple[str, ...] = ()
    """Those that it cannot be told apart from: either is better with a probability of 0.1 at least."""


@dataclass(frozen=True)
class ScratchCandidate:
    """The network trained from scratch on the target, as an alternative to every source."""

    network: str
    accuracy: float
    n_held_out: int
    depths: int
    params: int
    flops: int


def accuracy_interval(accuracy: Any, n_samples: int) -> tuple[Any, Any]:
    """Wilson score interval (Wilson 1927) of an accuracy measured on `n_samples` images, at 80 %.

    Raises
    ------
    InputError
        When `n_samples` is not positive.
    """
    if n_samples < 1:
        raise InputError(f"Expected `n_samples` to be at least 1, but got {n_samples}.")
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (accuracy + z**2 / (2 * n_samples)) / (1 + z**2 / n_samples)
    variance = accuracy * (1 - accuracy) / n_samples + z**2 / (4 * n_samples**2)
    half = z * np.sqrt(variance) / (1 + z**2 / n_samples)
    # At 0 and 1 the two terms are equal; their rounding must not leave [0, 1].
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def leave_one_out(scores: xr.Dataset) -> xr.Dataset:
    """Predict the accuracy of each truncated network as the leave-one-out accuracy of a linear head on it.

    The interval is that of the number of probe images; that the best of several cuts was picked is not in it.
    """
    lower, upper = accuracy_interval(scores["ridge"], scores.attrs["n_samples"])
    predicted = scores.assign(expected_accuracy=scores["ridge"], lower=lower, upper=upper)
    predicted["expected_accuracy"].attrs["description"] = (
        "Predicted accuracy of the truncated network with a new linear head, at this number of images."
    )
    for name in ("lower", "upper"):
        predicted[name].attrs["description"] = f"{name.capitalize()} end of the {LEVEL:.0%} interval."
    return predicted


def best_cuts(predictions: xr.Dataset) -> list[int | None]:
    """Return the index of the depth with the highest expected accuracy of each source, None without any prediction.

    Of equal ones it is the shallowest.
    """
    rows = predictions["expected_accuracy"].to_numpy()
    return [None if np.isnan(row).all() else int(np.nanargmax(row)) for row in rows]


def compare_hits(predictions: xr.Dataset, scratch: ScratchCandidate | None) -> xr.Dataset:
    """Add the probability that one source, at its best cut, is really better than another.

    `beats` (source, other) compares which images ridge gets right when they are left out (`correct`), image by image:
    two sources of overlapping intervals may still be told apart, since the same images are hard for both. The scratch
    network was measured on other images; `beats_scratch` (source) compares the accuracies alone. That each cut was
    chosen by the same images is in neither.
    """
    cuts = best_cuts(predictions)
    ranked = [i for i, cut in enumerate(cuts) if cut is not None]
    correct = predictions["correct"].to_numpy()
    matrix = np.full((len(cuts), len(cuts)), np.nan)
    if ranked:
        matrix[np.ix_(ranked, ranked)] = beats(np.stack([correct[i, cuts[i]] for i in ranked]))
    sources = predictions["source"].to_numpy()
    compared = predictions.assign(beats=(("source", "other"), matrix)).assign_coords(other=("other", sources))
    compared["beats"].attrs["description"] = (
        "Probability that `source`, at its best cut, is really better than `other` at its own, from which images ridge "
        "gets right when they are left out: one minus the exact mid-p of McNemar's one-sided test."
    )
    if scratch is not None:
        accuracy = predictions["expected_accuracy"].max("depth").to_numpy()
        probability = beats_unpaired(accuracy, predictions.attrs["n_samples"], scratch.accuracy, scratch.n_held_out)
        compared = compared.assign(beats_scratch=("source", probability))
        compared["beats_scratch"].attrs["description"] = (
            "Probability that the source, at its best cut, is really better than the scratch network, which was "
            "measured on other images: the two accuracies taken for independent."
        )
    return compared


def recommend(
    predictions: xr.Dataset,
    score_names: Sequence[str],
    scratch: ScratchCandidate | None,
    baseline_names: Sequence[str] = (),
) -> tuple[Recommendation, ...]:
    """Rank every source at its best cut, and training from scratch, best first.

    Takes what `compare_hits` returns for the same scratch network.

    Ties go to the cheaper one: the shallower cut, then fewer FLOPs, then the name. A source without a prediction at
    any depth is left out with a warning.

    Raises
    ------
    SourceError
        When nothing is left to rank.
    """
    candidates = []
    for source, best in zip(predictions["source"].to_numpy(), best_cuts(predictions), strict=True):
        if best is None:
            warnings.warn(
                f"Source {source} has no expected accuracy at any depth and is left out of the ranking.",
                TransferscopeWarning,
                stacklevel=2,
            )
            continue
        rows = predictions.sel(source=source)
        cut = rows.isel(depth=best)
        candidates.append(
            Recommendation(
                rank=0,
                source=str(source),
                layer=str(cut["layer"].item()),
                depth=best + 1,
                depths=int((rows["layer"].to_numpy() != "").sum()),
                protocol="truncate",
                expected_accuracy=float(cut["expected_accuracy"]),
                interval=(float(cut["lower"]), float(cut["upper"])),
                params=int(cut["params"]),
                flops=int(cut["flops"]),
                scores={name: float(cut[name]) for name in score_names},
                baselines={name: float(cut[name]) for name in baseline_names},
            )
        )
    if scratch is not None:
        lower, upper = accuracy_interval(scratch.accuracy, scratch.n_held_out)
        candidates.append(
            Recommendation(
                rank=0,
                source=SCRATCH,
                layer=None,
                depth=0,
                depths=scratch.depths,
                protocol="scratch",
                expected_accuracy=scratch.accuracy,
                interval=(float(lower), float(upper)),
                params=scratch.params,
                flops=scratch.flops,
            )
        )
    if not candidates:
        raise SourceError("No source has an expected accuracy at any depth, and there is no scratch network to rank.")
    candidates.sort(key=lambda c: (-c.expected_accuracy, c.flops, c.source))
    better = [[_better(predictions, one.source, other.source) for other in candidates] for one in candidates]
    return tuple(
        replace(
            candidate,
            rank=i + 1,
            beats_next=better[i][i + 1] if i + 1 < len(candidates) else None,
            tied_with=tuple(other.source for j, other in enumerate(candidates) if j != i and is_tie(better[i][j])),
        )
        for i, candidate in enumerate(candidates)
    )


def _better(predictions: xr.Dataset, one: str, other: str) -> float:
    """Look up the probability that `one` of the candidates is really better than the `other`."""
    if one == other:
        return 0.5
    if one == SCRATCH:
        return 1 - _better(predictions, other, one)
    row = predictions.sel(source=one)
    return float(row["beats_scratch"] if other == SCRATCH else row["beats"].sel(other=other))
