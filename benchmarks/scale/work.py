"""Work that is made up: units that do nothing, or sleep and return sums as large as those of a real shard."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

LAYERS = 50
"""Of each of two networks that are compared."""


@dataclass(frozen=True)
class Nothing:
    """Units that return their number."""

    def perform(self, number: int, *, shared: bool) -> int:
        """Return the number."""
        return number


@dataclass(frozen=True)
class Shards:
    """Units that sleep, and return the sums of linear CKA between 50 layers and 50."""

    seconds: float

    def perform(self, source: int, shard: int, *, shared: bool) -> Any:
        """Return the sums of a shard of a source."""
        time.sleep(self.seconds)
        return np.full((9, LAYERS, LAYERS), float(source * shard))
