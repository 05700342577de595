"""About how long a grid would take, from a few steps and fits timed on this machine."""

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from transferscope.errors import TransferscopeWarning
from transferscope.verbs.running.executor import Executor
from transferscope.verbs.running.run import PROTOCOLS, Run, is_trained
from transferscope.verbs.running.speed import Speed
from transferscope.verbs.running.work import work

logger = logging.getLogger("transferscope")


@dataclass(frozen=True)
class Estimate:
    """What a grid has left to do.

    Attributes
    ----------
    table
        A row for each source and protocol: `runs` that are missing and `seconds` for all of them. The features of a
        source, which its runs share, have a row of no runs.
    seconds
        Until the end, side by side as asked. Training may stop early, so this is rather too much.
    runs
        How many are missing.
    """

    table: pd.DataFrame
    seconds: float
    runs: int


def estimate(executor: Executor, runs: Sequence[Run]) -> Estimate:
    """Time one training step and one forward pass of each source, and one fit of each head, and add up.

    Parameters
    ----------
    executor : Executor
        Has the networks and the images.
    runs : sequence of Run
        What is to be done.
    """
    rows: list[tuple[str, str, int, float]] = []
    for source in dict.fromkeys(run.source for run in runs):
        rates = _Rates(executor, source)
        timed = [(source, run.protocol, 1, rates.seconds(run)) for run in runs if run.source == source]
        rows += [*([(source, "(features)", 0, rates.features())] if rates.heads else []), *timed]
    frame = pd.DataFrame(rows, columns=["source", "protocol", "runs", "seconds"])
    table = frame.groupby(["source", "protocol"], sort=False, as_index=False).sum()
    return Estimate(table, float(table["seconds"].sum()) / executor.setup.jobs, len(runs))


class _Rates:
    """How long the runs of one source take here, from how fast it runs and trains, and from fits of heads."""

    def __init__(self, executor: Executor, source: str) -> None:
        self._executor = executor
        self._stages = executor.stages(source)
        self._speed = Speed(executor, source)
        self.heads: dict[tuple[str, int], float] = {}
        """Seconds of one fit, by protocol and images per class."""

    def features(self) -> float:
        """Seconds for the features of all images of the grid."""
        setup = self._executor.setup
        return self._speed.forward * (len(setup.drawn) + len(setup.test))

    def seconds(self, run: Run) -> float:
        """Seconds of one run."""
        setup = self._executor.setup
        samples = len(setup.drawn_by(run))
        if not is_trained(run.protocol):
            key = run.protocol, run.samples_per_class
            if key not in self.heads:
                self.heads[key] = self._head(run)
            return self.heads[key]
        flops = [stage.flops for stage in self._stages]
        todo = work(run.protocol, run.depth, flops, samples, setup.recipes[run.protocol])
        seconds = todo.steps * self._speed.step
        if todo.forwards:
            seconds += todo.forwards * self._speed.forward
        return seconds * max(1, len(setup.learning_rates))

    def _head(self, run: Run) -> float:
        """Fit the head of a run to noise, as wide as the features of all layers or of the widest."""
        samples = len(self._executor.setup.drawn_by(run))
        widths = [stage.shape[0] if len(stage.shape) == 3 else stage.shape[-1] for stage in self._stages]
        if PROTOCOLS[run.protocol].kind == "features":
            widths = [max(widths)] * len(widths)
        random = np.random.default_rng(0)
        layers = [random.normal(size=(samples, width)).astype(np.float32) for width in widths]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)  # noise is hard to fit
            started = time.perf_counter()
            self._executor.fit_head(run, layers)
            return time.perf_counter() - started
