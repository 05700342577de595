"""About how long a grid would take, from a few steps and fits timed on this machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from transferscope.measurement.executor import Executor
from transferscope.measurement.plan import PROTOCOLS, Run

_REPEATS = 3
_BATCH = 32


@dataclass(frozen=True)
class Estimate:
    """What a grid has left to do.

    Attributes
    ----------
    table
        A row for each source and protocol: `runs` that are missing and `seconds` for all of them.
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
    rates = {source: _Rates(executor, source) for source in dict.fromkeys(run.source for run in runs)}
    rows = [(run.source, run.protocol, rates[run.source].seconds(run)) for run in runs]
    rows += [(source, "(features)", rate.features()) for source, rate in rates.items() if rate.heads]
    frame = pd.DataFrame(rows, columns=["source", "protocol", "seconds"])
    table = frame.groupby(["source", "protocol"], sort=False)["seconds"].agg(runs="size", seconds="sum").reset_index()
    return Estimate(table, float(table["seconds"].sum()) / executor.setup.jobs, len(runs))


class _Rates:
    """How fast one source runs and trains here, and how fast heads are fitted to its features."""

    def __init__(self, executor: Executor, source: str) -> None:
        self._executor = executor
        self.heads: dict[tuple[str, int], float] = {}
        """Seconds of one fit, by protocol and images per class."""
        self._stages = executor.stages(source)
        setup = executor.setup
        # All weights are trained, as in scratch.
        net = executor.untrained(source)
        images = executor.bank(source).images(setup.drawn[:_BATCH]).to(executor.device)

        def step() -> None:
            net(images).sum().backward()

        def forward() -> None:
            with torch.inference_mode():
                net(images)

        self._step, self._forward = (_seconds(work, executor.device) / len(images) for work in (step, forward))

    def features(self) -> float:
        """Seconds for the features of all images of the grid."""
        setup = self._executor.setup
        return self._forward * (len(setup.drawn) + len(setup.test))

    def seconds(self, run: Run) -> float:
        """Seconds of one run."""
        setup = self._executor.setup
        samples = len(self._executor.setup.drawn_by(run))
        if PROTOCOLS[run.protocol].kind != "trained":
            key = run.protocol, run.samples_per_class
            if key not in self.heads:
                self.heads[key] = self._head(run)
            return self.heads[key]
        share = 1.0
        if run.protocol in ("reinit", "defrost") and run.depth:
            # Only what follows the frozen prefix is trained.
            share -= self._stages[run.depth - 1].flops / self._stages[-1].flops
        recipe = setup.recipes[run.protocol]
        passes = share * self._step * recipe.epochs + (1 - share) * self._forward * recipe.views
        return samples * passes * max(1, len(setup.learning_rates))

    def _head(self, run: Run) -> float:
        """Fit the head of a run to noise of the size of its features."""
        labels = self._executor.setup.target.labels[self._executor.setup.drawn_by(run)]
        widths = [max(stage.shape[:1] if len(stage.shape) == 3 else stage.shape[-1:]) for stage in self._stages]
        random = np.random.default_rng(0)
        layers = [random.normal(size=(len(labels), width)).astype(np.float32) for width in widths]
        started = time.perf_counter()
        self._executor.fit_head(run, layers, labels)
        return time.perf_counter() - started


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return the least time of a few repetitions, the first one left out."""
    times = []
    for _ in range(1 + _REPEATS):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
