"""What `measure` is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transferscope.protocols.finetuning import MIN_STEPS, recipes
from transferscope.protocols.training.recipe import Recipe
from transferscope.runtime.checks import ALL, Size, check_numbers
from transferscope.runtime.engines.naming import Place, place_of
from transferscope.runtime.metrics import metric_of
from transferscope.runtime.power import WORLD
from transferscope.runtime.sharing import Shard, shard_of
from transferscope.verbs.measure.plan import Depths, known_protocols
from transferscope.verbs.request import Request

OUTPUT = "transferscope-measurement"
PROTOCOLS_BY_DEFAULT = ("truncate", "toptuning", "fne")
SIZES_BY_DEFAULT = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True, kw_only=True)
class MeasureRequest(Request):
    """The arguments of `measure`."""

    target: Any
    output: str | Path = OUTPUT
    protocols: Sequence[str] = PROTOCOLS_BY_DEFAULT
    samples_per_class: Sequence[Size] = SIZES_BY_DEFAULT
    depths: Depths = ALL
    seeds: int = 3
    test_samples: int = 2000
    optimiser: str = "adamw"
    epochs: int = 40
    min_steps: int = MIN_STEPS
    learning_rates: Sequence[float] = ()
    early_stopping: bool = False
    jobs: int = 1
    on: str | None = None
    executor: Any = None
    shard: str | None = None
    metric: str | None = None
    time_budget: float | None = None
    retry_failed: bool = False
    country: str = WORLD

    def __post_init__(self) -> None:
        super().__post_init__()
        known_protocols(self.protocols)
        if self.metric is not None:
            metric_of(self.metric, self.task)
        counts = {"seeds": self.seeds, "test_samples": self.test_samples, "jobs": self.jobs}
        self._settle(**check_numbers(self.samples_per_class, self.depths, **counts))
        _ = self.place, self.part  # which checks them
        for rate in self.learning_rates:
            replace(self.recipes["scratch"], learning_rate=rate)  # which checks it

    @property
    def place(self) -> Place | None:
        """Where runs are carried out; None for this process."""
        return place_of(self.on, self.executor, self.jobs)

    @property
    def part(self) -> Shard | None:
        """Which of the processes that are asked the same this one is."""
        return shard_of(self.shard)

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """How each protocol trains."""
        return recipes(self.optimiser, self.epochs, self.min_steps)

    def decisive(self) -> dict[str, Any]:
        """Return what decides the result of a run beside its identity: the options in measure.json."""
        return {
            "recipes": {name: asdict(recipe) for name, recipe in self.recipes.items()},
            "learning_rates": list(self.learning_rates),
            "early_stopping": self.early_stopping,
            "country": self.country,
        }
