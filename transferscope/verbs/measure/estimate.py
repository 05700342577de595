"""About how long a grid would take, from a few steps and fits timed on this machine."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from transferscope.errors import TransferscopeWarning, is_interrupt
from transferscope.runtime.failures import describe
from transferscope.verbs.measure.executor import Executor
from transferscope.verbs.measure.plan import PROTOCOLS, Run

logger = logging.getLogger("transferscope")

_REPEATS = 3
_BATCH = 32


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
    """How fast one source runs and trains here, and how fast heads are fitted to its features."""

    def __init__(self, executor: Executor, source: str) -> None:
        self._executor = executor
        self._source = source
        self.heads: dict[tuple[str, int], float] = {}
        """Seconds of one fit, by protocol and images per class."""
        self._stages = executor.stages(source)
        bank, indices = executor.bank(source), executor.setup.drawn[:_BATCH]
        bank.add(indices)
        self._images = bank.images(indices).to(executor.device)

    @cached_property
    def _forward(self) -> float:
        def prepare() -> Callable[[], object]:
            net = self._executor.network(self._source).module.to(self._executor.device)
            return torch.inference_mode()(lambda: net(self._images))

        return self._per_image(prepare)

    @cached_property
    def _step(self) -> float:
        def prepare() -> Callable[[], object]:
            net = self._executor.untrained(self._source)  # all weights are trained, as in scratch
            return lambda: net(self._images).sum().backward()

        return self._per_image(prepare)

    def _per_image(self, prepare: Callable[[], Callable[[], object]]) -> float:
        """Return seconds for an image; 0, with a warning, for what fails, as the runs will too."""
        try:
            return _seconds(prepare(), self._executor.device) / len(self._images)
        except (Exception, SystemExit) as error:  # whatever a network's code raises
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            reason = describe(self._source, error, self._executor.setup.batch_size)
            logger.warning("%s cannot be timed: %s", self._source, reason)
            return 0.0

    def features(self) -> float:
        """Seconds for the features of all images of the grid."""
        setup = self._executor.setup
        return self._forward * (len(setup.drawn) + len(setup.test))

    def seconds(self, run: Run) -> float:
        """Seconds of one run."""
        setup = self._executor.setup
        samples = len(setup.drawn_by(run))
        if PROTOCOLS[run.protocol].kind != "trained":
            key = run.protocol, run.samples_per_class
            if key not in self.heads:
                self.heads[key] = self._head(run)
            return self.heads[key]
        share = 1.0
        if run.protocol in ("reinit", "defrost") and run.depth:
            # Only what follows the frozen prefix is trained.
            frozen, whole = self._stages[run.depth - 1].flops, self._stages[-1].flops
            share -= run.depth / len(self._stages) if math.isnan(whole) else frozen / whole
        recipe = setup.recipes[run.protocol]
        passes = share * self._step * recipe.most_epochs(samples) + (1 - share) * self._forward * recipe.kept_views(
            samples
        )
        return samples * passes * max(1, len(setup.learning_rates))

    def _head(self, run: Run) -> float:
        """Fit the head of a run to noise, as wide as the features of all layers or of the widest."""
        labels = self._executor.setup.target.labels[self._executor.setup.drawn_by(run)]
        widths = [stage.shape[0] if len(stage.shape) == 3 else stage.shape[-1] for stage in self._stages]
        if PROTOCOLS[run.protocol].kind == "features":
            widths = [max(widths)] * len(widths)
        random = np.random.default_rng(0)
        layers = [random.normal(size=(len(labels), width)).astype(np.float32) for width in widths]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)  # noise is hard to fit
            started = time.perf_counter()
            self._executor.fit_head(run, layers, labels)
            return time.perf_counter() - started


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the least time of a few repetitions, the first one left out."""
    times = []
    for _ in range(1 + _REPEATS):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
