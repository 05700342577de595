"""What `rank` is asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from transferscope.errors import InputError, is_whole, near
from transferscope.prediction.evidence import given_evidence
from transferscope.prediction.selection import OBJECTIVES, protocols_of
from transferscope.runtime.engines.naming import Place, place_of
from transferscope.runtime.metrics import CLASSIFICATION, Metric, metric_of
from transferscope.runtime.sharing import Shard, shard_of
from transferscope.transferability.tasks import chosen_scores
from transferscope.verbs.request import ProbeRequest, check_reference

MODES = ("default", "quick")
AUTO: Literal["auto"] = "auto"
"""As many pilots as are worth it."""


@dataclass(frozen=True, kw_only=True)
class ExpectingRequest(ProbeRequest):
    """What verbs are asked that say what accuracy to expect."""

    shots: int | None = None
    pilots: int | str = 0
    pilot_budget: float | None = None
    evidence: str | Path | pd.DataFrame | Sequence[str | Path | pd.DataFrame] | None = None
    """Once made: a tuple."""
    calibration: str | Path | None = None
    metric: str | None = None
    """None: that of the task."""

    _apart: ClassVar[frozenset[str]] = ProbeRequest._apart | {"evidence"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settle(shots=_check_shots(self.shots), evidence=given_evidence(self.evidence))
        self._settle(calibration=None if self.calibration is None else str(self.calibration))
        if self.metric is not None:
            metric_of(self.metric, self.task)
        self._check_pilots()

    def judged_by(self, task: str) -> Metric:
        """Return what sources are ranked by."""
        return metric_of(self.metric, task)

    def settings_for(self, task: str) -> Mapping[str, Any]:
        """Return the `settings`, for a target of this task."""
        return {**self.settings(), "metric": self.judged_by(task).name}

    def _check_pilots(self) -> None:
        pilots, budget = self.pilots, self.pilot_budget
        if pilots != AUTO and not is_whole(pilots, 0):
            raise InputError(
                f"Expected `pilots` to be a number of pilots, at least 0, or {AUTO!r}, but got {pilots!r}"
                f"{near(pilots, [AUTO])}"
            )
        if pilots != AUTO:
            self._settle(pilots=int(pilots))
        if budget is None:
            return
        if not isinstance(budget, Real) or isinstance(budget, bool) or not (isfinite(budget) and budget > 0):
            raise InputError(f"Expected `pilot_budget` to be a number of seconds above 0, but got {budget!r}")
        if not self.pilots:
            raise InputError(
                f"Expected `pilots` beside `pilot_budget`, but got {self.pilots!r}, which is none; say how many at "
                f"most, or {AUTO!r}"
            )
        self._settle(pilot_budget=float(budget))


@dataclass(frozen=True, kw_only=True)
class RankRequest(ExpectingRequest):
    """The arguments of `rank`."""

    scores: str | Iterable[str] = "default"
    """Once made: a tuple, as asked for."""
    uncertainty: int = 0
    reference: str = "compact"
    protocol: str = "any"
    objective: str = "accuracy"
    mode: str = "default"
    on: str | None = None
    executor: Any = None
    shard: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reference(self.reference)
        protocols_of(self.protocol)
        _ = self.place, self.part  # which checks them
        self._settle(scores=(self.scores,) if isinstance(self.scores, str) else tuple(self.scores))
        self.scores_for(self.task or CLASSIFICATION)
        if self.objective not in OBJECTIVES:
            raise InputError(f"Expected `objective` to be one of {', '.join(OBJECTIVES)}, but got {self.objective!r}")
        if not is_whole(self.uncertainty, 0) or self.uncertainty == 1:
            raise InputError(
                "Expected `uncertainty` to be a number of draws, at least 2, or 0 for none, but got "
                f"{self.uncertainty!r}"
            )
        self._settle(uncertainty=int(self.uncertainty))

    def scores_for(self, task: str) -> tuple[str, ...]:
        """Return the names of the scores for a target of this task, those included that predictions need.

        Raises
        ------
        InputError
            One has no meaning for the task.
        """
        if self.mode not in MODES:
            raise InputError(f"Expected `mode` to be one of {', '.join(MODES)}, but got {self.mode!r}")
        if self.mode == "default":
            return chosen_scores(self.scores, task)
        if self.scores != ("default",):
            raise InputError(f"Expected no `scores` with `mode` 'quick', which has its own, but got {self.scores!r}")
        return chosen_scores((), task)

    def settings_for(self, task: str) -> Mapping[str, Any]:
        """Return the `settings`, for a target of this task."""
        return {**super().settings_for(task), "scores": list(self.scores_for(task))}

    @property
    def place(self) -> Place | None:
        """Where sources are run and scored; None for this process."""
        return place_of(self.on, self.executor)

    @property
    def part(self) -> Shard | None:
        """Which of the processes that are asked the same this one is."""
        return shard_of(self.shard)

    @property
    def protocols(self) -> tuple[str, ...]:
        """Those that are looked at."""
        return protocols_of(self.protocol)

    def probe_size(self, groups: int) -> int:
        """Return how many images of a target with so many classes, or other strata, are looked at."""
        return self.samples if self.shots is None else min(self.samples, max(self.shots, 2) * groups)


def _check_shots(shots: int | None) -> int | None:
    """Return the argument `shots` as an int, or None; raise InputError when it is no number of images."""
    if shots is not None and not is_whole(shots, 1):
        raise InputError(
            f"Expected `shots` to be a whole number of images of each class, at least 1, or None, but got {shots!r}"
        )
    return None if shots is None else int(shots)
