"""Pilots: the few real transfers that make the answer of `rank` surer, one after the other while they are worth it."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from transferscope.activations.stages import Stage
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.prediction.belief import Belief
from transferscope.prediction.observation import Observation
from transferscope.prediction.pilots import CONSIDERED, Option, best_first, choose_pilot, narrowing
from transferscope.results.pilots import Outlook, Pilot
from transferscope.runtime.engines.naming import Place
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank.pilot_costs import PilotCosts, Speeds
from transferscope.verbs.rank.pilot_images import PilotImages
from transferscope.verbs.rank.request import AUTO, RankRequest

if TYPE_CHECKING:
    from transferscope.verbs.rank.pilot_runs import PilotRunner

logger = logging.getLogger("transferscope")

BUDGET_S = 120.0
"""Of `pilots="auto"`, and of the outlook where there are none."""
SURE = 0.9
"""Probability of being the best at which pilots end."""


@dataclass(frozen=True)
class Limits:
    """When pilots end, however much there is to find out.

    Attributes
    ----------
    count
        Pilots; infinite where time alone decides.
    seconds
        That they take together, those from the cache included, as they took when they were run; infinite where their
        number alone decides.
    """

    count: float
    seconds: float

    @classmethod
    def of(cls, pilots: int | str, budget: float | None) -> "Limits":
        """Return what the arguments of `rank` come to."""
        if pilots == AUTO:
            return cls(math.inf, BUDGET_S if budget is None else budget)
        return cls(int(pilots), math.inf if budget is None else budget)


class Pilots:
    """What can be tried out for a ranking, and trying it out.

    Parameters
    ----------
    bench : Bench
        Images and networks.
    scores : xarray.Dataset
        What is known of the sources; of what it gives a reason against, nothing is tried.
    stages : mapping of str to sequence of Stage
        Where each source can be cut.
    protocols : sequence of str
        That are looked at.
    belief : Belief
        In what the answer's transfers reach, before any pilot.

    Raises
    ------
    InputError
        The images cannot be divided, see `hold_out`.
    """

    def __init__(
        self,
        bench: Bench,
        scores: xr.Dataset,
        stages: Mapping[str, Sequence[Stage]],
        protocols: Sequence[str],
        belief: Belief,
    ) -> None:
        self._bench = bench
        self._belief = belief
        self._images = PilotImages.of(bench, belief.case.samples)
        self._stages = stages
        self._among = _chosen_from(belief.rows, scores, protocols)
        flops = {source: [stage.flops for stage in of_source] for source, of_source in stages.items()}
        self._costs = PilotCosts(flops, bench.device.type)

    def outlook(self) -> Outlook | None:
        """Return what pilots of `BUDGET_S` would bring, None where there is nothing to choose; nothing is run."""
        if not len(self._among):
            return None
        options = [option for option in self._options() if option.seconds <= BUDGET_S]
        return Outlook(BUDGET_S, *narrowing(self._belief, options, BUDGET_S, self._among))

    def run(self, limits: Limits, place: Place | None = None) -> list[Observation]:
        """Run pilots, the one first that is expected to help most for its time, until one of the `limits` is met.

        They also end when one source with one protocol is the best with probability `SURE`, and when no pilot is
        expected to help. Those that fail are warned of and left out, with all others of the same source and protocol.
        With a limit in seconds the sources are timed on this machine; else costs are counted in operations, so that
        which pilots are run depends on no clock. Where there is a `place`, a worker of that engine runs them.

        Warns
        -----
        TransferscopeWarning
            A pilot failed, the images cannot be read, or no pilot fits into the time.
        """
        with self._runner(place) as runner:
            return self._run(limits, runner)

    def _runner(self, place: Place | None) -> AbstractContextManager["PilotRunner"]:
        # With everything that trains, which an answer without pilots does not need.
        from transferscope.verbs.rank.pilot_runs import PilotRunner
        from transferscope.verbs.rank.pilots_elsewhere import PilotsElsewhere

        if place is None:
            return nullcontext(PilotRunner(self._bench, self._images, self._stages))
        return PilotsElsewhere(self._bench, self._images, self._stages, place)

    def _run(self, limits: Limits, runner: "PilotRunner") -> list[Observation]:
        timed = math.isfinite(limits.seconds)
        found: list[Observation] = []
        failed: set[tuple[str, str]] = set()
        begun: list[Option] = []
        belief, left = self._belief, limits.seconds
        while len(found) < limits.count and len(self._among) and not _is_sure(belief, self._among):
            options = [
                each
                for each in self._options()
                # The same again would be the same images, and find the same.
                if (each.source, each.protocol) not in failed and replace(each, seconds=0.0) not in begun
            ]
            option = self._choose(belief, options, left, runner.speeds if timed else None)
            if option is None:
                if not found and not failed:
                    _warn_of_too_little_time(self._priced(options), left)
                break
            begun.append(replace(option, seconds=0.0))
            where = f"{option.source}, {option.protocol} at depth {option.depth}"
            try:
                seen = runner.run(option, f"pilot {len(found) + 1}: {where}")
            except SourceError as error:
                failed.add((option.source, option.protocol))
                text = f"The pilot of {where} failed and is left out: {error}"
                warnings.warn(text, TransferscopeWarning, stacklevel=2)
                continue
            except InputError as error:  # the images cannot be read
                warnings.warn(f"No pilot is run any more: {error}", TransferscopeWarning, stacklevel=2)
                break
            figure = f"{self._bench.metric.title} {seen.accuracy:.3f}"
            logger.info("Pilot of %s, trained on %d images: %s", where, seen.samples, figure)
            found.append(seen)
            belief = belief.given([seen])
            left -= seen.seconds
        return found

    def _choose(self, belief: Belief, options: Sequence[Option], left: float, speeds: Speeds | None) -> Option | None:
        """Return the pilot that is worth most for its time, of those that fit into what is `left` of it."""
        while options:
            fitting = [option for option in options if option.seconds <= left]
            chosen = choose_pilot(belief, fitting, self._among) if fitting else None
            if fitting and chosen is None:
                return None
            option = min(options, key=lambda each: each.seconds) if chosen is None else fitting[chosen[0]]
            if speeds is None or not self._costs.time(option.source, speeds):
                return None if chosen is None else option
            options = self._priced(options)
        return None

    def _options(self) -> list[Option]:
        """List every pilot that could be run, with what it would cost."""
        tested = len(self._images.test)
        samples = dict.fromkeys(self._images.samples(size) for size in self._images.sizes)
        rows = self._belief.rows.iloc[self._among]
        candidates = zip(rows["source"], rows["depth"].astype(int), rows["protocol"], strict=True)
        return self._priced(
            [
                Option(source=source, depth=depth, protocol=protocol, samples=count, tested=tested, seconds=math.nan)
                for source, depth, protocol in candidates
                if source
                for count in samples
            ]
        )

    def _priced(self, options: Sequence[Option]) -> list[Option]:
        return [
            replace(
                each,
                seconds=self._costs.seconds(each.source, each.depth, each.protocol, each.samples, each.tested),
            )
            for each in options
        ]


def find_out(
    bench: Bench,
    request: RankRequest,
    scores: xr.Dataset,
    stages: Mapping[str, Sequence[Stage]],
    belief: Belief,
) -> tuple[list[Observation], Outlook | None]:
    """Run the pilots that were asked for; where none were, return what some would bring.

    Parameters
    ----------
    bench : Bench
        Images and networks.
    request : RankRequest
        Which pilots, of which protocols.
    scores, stages
        As in `Pilots`.
    belief : Belief
        What is known without them.
    """
    limits = Limits.of(request.pilots, request.pilot_budget)
    try:
        with warnings.catch_warnings():
            if not limits.count:
                warnings.simplefilter("ignore", TransferscopeWarning)  # of images that nothing is done with
            pilots = Pilots(bench, scores, stages, request.protocols, belief)
    except InputError as error:
        if limits.count:
            warnings.warn(f"No pilot is run: {error}", TransferscopeWarning, stacklevel=2)
        return [], None
    if not limits.count:
        return [], pilots.outlook()
    found = pilots.run(limits, request.place)
    bench.clock.lap("pilots")
    return found, None


def as_results(observations: Sequence[Observation]) -> tuple[Pilot, ...]:
    """Return pilots as a result shows them."""
    return tuple(
        Pilot(
            each.source, each.depth, each.protocol, each.samples, each.accuracy,
            each.standard_error, each.seconds,
        )
        for each in observations
    )  # fmt: skip


def _chosen_from(rows: pd.DataFrame, scores: xr.Dataset, protocols: Sequence[str]) -> np.ndarray:
    """Return the places of the candidates that the answer is chosen from; scratch is one of them where it is ranked."""
    impossible: set[tuple[str, int, str]] = set()
    if "impossible" in scores:
        reasons = scores["impossible"].to_series()
        cells = reasons[reasons != ""].reset_index()
        impossible = set(cells[["source", "depth", "protocol"]].itertuples(index=False, name=None))
    cells = list(rows[["source", "depth", "protocol"]].itertuples(index=False, name=None))
    scratch = "scratch_accuracy" in scores.attrs
    return np.flatnonzero(
        [scratch if not cell[0] else cell[2] in protocols and cell not in impossible for cell in cells]
    )


def _is_sure(belief: Belief, among: np.ndarray) -> bool:
    """Whether one source with one protocol, at whatever depth, is the best with probability `SURE`."""
    best = best_first(belief, among)[:CONSIDERED]
    rows = belief.rows.iloc[best][["source", "protocol"]].assign(probability=belief.probability_best(best))
    return bool(rows.groupby(["source", "protocol"])["probability"].sum().max() >= SURE)


def _warn_of_too_little_time(options: Sequence[Option], left: float) -> None:
    quickest = min((option.seconds for option in options), default=0.0)
    if quickest > left:
        warnings.warn(
            f"No pilot is run, for none fits into {left:g} s: the quickest would take about {quickest:.0f} s; give "
            "more with --pilot-budget (in Python `pilot_budget`)",
            TransferscopeWarning,
            stacklevel=3,
        )
