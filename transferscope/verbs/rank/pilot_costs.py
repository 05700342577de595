"""What a pilot would cost: by operations, the same on every machine, or by how fast this one was found to be."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from transferscope.protocols import finetuning
from transferscope.verbs.running.work import Work, work

RATES = {"cpu": 5e10, "cuda": 5e12}
"""FLOPs a second that a device of this kind is taken to do where none is timed."""
_BACKWARD = 2
"""Passes forward that a pass back costs as much as."""
_AROUND = 1.0
"""Seconds of every pilot that do not depend on its images: loading, cutting, fitting a head."""
_UNKNOWN = 1e9
"""FLOPs of an image where those of no source are known."""

Speeds = Callable[[str], tuple[float, float]]
"""Seconds of one image forward, and forward and back, of a source."""


class PilotCosts:
    """Seconds that pilots are expected to take.

    Parameters
    ----------
    flops : mapping of str to sequence of float
        Of one image, up to each stage, by source.
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, flops: Mapping[str, Sequence[float]], device: str) -> None:
        self._flops = flops
        self._rate = RATES[device]
        self._recipes = finetuning.recipes()
        self._timed: dict[str, tuple[float, float]] = {}
        known = [values[-1] for values in flops.values() if not math.isnan(values[-1])]
        self._typical = float(np.median(known)) if known else _UNKNOWN

    def time(self, source: str, speeds: Speeds) -> bool:
        """Count a source by the time of its passes from now on; False where that was so already."""
        if source in self._timed:
            return False
        self._timed[source] = speeds(source)
        return True

    def seconds(self, source: str, depth: int, protocol: str, samples: int, tested: int) -> float:
        """Return the seconds of a pilot. Those of sources that were not timed are scaled by those that were."""
        flops = self._flops[source]
        todo = work(protocol, depth, flops, samples, self._recipes.get(protocol))
        todo = Work(todo.steps, todo.forwards + tested)
        forward, step = self._timed.get(source) or (self._slowness * each for each in self._by_operations(source))
        return _AROUND + todo.steps * step + todo.forwards * forward

    def _by_operations(self, source: str) -> tuple[float, float]:
        whole = self._flops[source][-1]
        forward = (self._typical if math.isnan(whole) else whole) / self._rate
        return forward, (1 + _BACKWARD) * forward

    @property
    def _slowness(self) -> float:
        """How many times as long as by operations the sources took that were timed."""
        ratios = [sum(timed) / sum(self._by_operations(source)) for source, timed in self._timed.items() if any(timed)]
        return float(np.median(ratios)) if ratios else 1.0
