"""What a verb is asked, as one frozen record: the command line and Python make it, the answer is made from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar

from transferscope.arrays import backend
from transferscope.data.columns import Columns
from transferscope.data.reading import Reading
from transferscope.data.target import Target, load_target
from transferscope.data.value_range import Range
from transferscope.errors import InputError, check_whole
from transferscope.networks.zoo import Source, Zoo
from transferscope.protocols.scratch import reference_recipe
from transferscope.runtime.metrics import Metric, metric_of

_READING = ("images", "labels", "task", "value_range", "bands")
"""How targets are read: settings of a request where they are given, for else the targets tell."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every verb is asked that runs networks; checked where it is made.

    A field stands for the argument of the same name of the verb's function, whose docstring says what it means.

    Raises
    ------
    InputError
        When a value is not as expected.
    DeviceError
        When the device does not exist.
    """

    zoo: Any
    device: str = "auto"
    batch_size: int = 64
    seed: int = 0
    progress: bool = True
    trust_code: bool = False
    images: str | None = None
    labels: str | Sequence[str] | None = None
    """Once made: a tuple, or None."""
    task: str | None = None
    value_range: Range | None = None
    bands: Sequence[int] | None = None
    """Once made: a tuple."""

    _apart: ClassVar[frozenset[str]] = frozenset(
        {"target", "targets", "zoo", "output", "progress", "trust_code", "on", "executor", "shard"}
    )
    """Fields that are no settings: the data, which has hashes, and what decides nothing."""

    def __post_init__(self) -> None:
        self._settle(
            batch_size=check_whole("batch_size", self.batch_size, 1),
            seed=check_whole("seed", self.seed, 0),
        )
        backend.resolve_device(self.device)
        columns = Columns(self.images, self.labels, self.task)
        self._settle(labels=columns.labels or None)
        reading = Reading(self.value_range, self.bands)
        self._settle(value_range=reading.value_range, bands=reading.bands)

    def load(self, target: Any) -> Target:
        """Load a target as the request says that its images are read.

        Raises
        ------
        InputError
            As `load_target`.
        """
        named: dict[str, Any] = {} if isinstance(target, Target) else {"images": self.images, "labels": self.labels}
        return load_target(
            target, **named, task=self.task, value_range=self.value_range, bands=self.bands, progress=self.progress
        )

    def _settle(self, **values: Any) -> None:
        """Replace values by what they stand for."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def settings(self) -> Mapping[str, Any]:
        """Return the arguments that decide the answer beside images and networks, in plain values, by name."""
        apart = self._apart | {name for name in _READING if getattr(self, name) is None}
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in apart}
        return {name: _plain(value) for name, value in values.items()} | {
            "device": str(backend.resolve_device(self.device))
        }


@dataclass(frozen=True, kw_only=True)
class ProbeRequest(Request):
    """What verbs are asked that look at a sample of the target and at a network trained from scratch on it."""

    target: Any
    samples: int = 1000
    recipe: Any = None
    """Once made: a `Recipe`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settle(samples=check_whole("samples", self.samples, 1), recipe=self.recipe or reference_recipe())

    def judged_by(self, task: str) -> Metric:
        """Return what transfers are compared by."""
        return metric_of(None, task)

    def sources_of(self, zoo: Zoo) -> Iterable[Source]:
        """Return the sources of the zoo that the answer takes."""
        return zoo

    def probe_size(self, _groups: int) -> int:
        """Return how many images of a target with so many classes, or other strata, are looked at."""
        return self.samples


def check_reference(reference: Any) -> str:
    """Return the argument `reference`; raise InputError when it is no name."""
    if not isinstance(reference, str):
        raise InputError(
            "Expected `reference` to be 'compact', 'own', the name of a source in the zoo or a checkpoint file, but "
            f"got {type(reference).__name__}; put a network of your own into the zoo and pass its name"
        )
    return reference


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value
