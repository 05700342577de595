"""How fast a source runs and trains on this machine, from a few passes."""

import logging
import time
from collections.abc import Callable
from functools import cached_property

import torch

from transferscope.errors import is_interrupt
from transferscope.runtime.failures import describe
from transferscope.verbs.running.executor import Executor

logger = logging.getLogger("transferscope")

_REPEATS = 3
_BATCH = 32


class Speed:
    """Seconds that one image takes through a whole source, each timed when it is first asked for.

    Parameters
    ----------
    executor : Executor
        Has the networks and the images.
    source : str
        Its name.
    """

    def __init__(self, executor: Executor, source: str) -> None:
        self._executor = executor
        self._source = source
        bank, indices = executor.bank(source), executor.setup.drawn[:_BATCH]
        bank.add(indices)
        self._images = bank.images(indices).to(executor.device)

    @cached_property
    def forward(self) -> float:
        """Forward alone; 0, with a warning, for a network that fails, as its runs will too."""

        def prepare() -> Callable[[], object]:
            net = self._executor.network(self._source).module.to(self._executor.device)
            return torch.inference_mode()(lambda: net(self._images))

        return self._per_image(prepare)

    @cached_property
    def step(self) -> float:
        """Forward and back, all weights being trained; 0 as for `forward`."""

        def prepare() -> Callable[[], object]:
            net = self._executor.untrained(self._source)  # all weights are trained, as in scratch
            return lambda: net(self._images).sum().backward()

        return self._per_image(prepare)

    def _per_image(self, prepare: Callable[[], Callable[[], object]]) -> float:
        try:
            return _seconds(prepare(), self._executor.device) / len(self._images)
        except (Exception, SystemExit) as error:  # whatever a network's code raises
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            reason = describe(self._source, error, self._executor.setup.batch_size)
            logger.warning("%s cannot be timed: %s", self._source, reason)
            return 0.0


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
