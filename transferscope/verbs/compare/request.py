"""What `compare_sources` is asked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from transferscope.activations.reductions import Reduction
from transferscope.activations.selecting import Layers
from transferscope.arrays import backend
from transferscope.data.images import Transform
from transferscope.errors import InputError, near
from transferscope.networks.zoo import OWN, SCRATCH, Source, Zoo
from transferscope.runtime.engines.naming import Place, place_of
from transferscope.verbs.compare.options import IMAGENET, Estimator, Options
from transferscope.verbs.request import ProbeRequest, check_reference


@dataclass(frozen=True, kw_only=True)
class CompareRequest(ProbeRequest):
    """The arguments of `compare_sources`."""

    x: str
    y: str
    measures: str | Sequence[str] = "linear_cka"
    """Once made: a tuple, each once."""
    layers_x: Layers | None = None
    layers_y: Layers | None = None
    reduce: Reduction = "flatten"
    standardize: bool = False
    estimator: Estimator = "minibatch"
    standard_error: bool = False
    permutations: int = 0
    precision: backend.Precision = "float32"
    reference: str = "compact"
    on: str | None = None
    executor: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reference(self.reference)
        named = [self.measures] if isinstance(self.measures, str) else self.measures
        self._settle(measures=tuple(dict.fromkeys(named)))
        if not self.measures:
            raise InputError(
                "Expected `measures` to name one measure at least, but got none; leave it out for linear CKA"
            )
        self.options()
        _ = self.place  # which checks it

    @property
    def place(self) -> Place | None:
        """Where the networks run; None for this process."""
        return place_of(self.on, self.executor)

    def options(
        self,
        layers_x: Layers = "auto",
        layers_y: Layers = "auto",
        transform: Transform | tuple[Transform, Transform] = IMAGENET,
    ) -> Options:
        """Return the options of `compare`, with these layers unless others are asked for.

        Raises
        ------
        InputError
            When a value is not as expected.
        """
        values = {field.name: getattr(self, field.name) for field in fields(Options) if hasattr(self, field.name)}
        values |= {"layers_x": self.layers_x or layers_x, "layers_y": self.layers_y or layers_y}
        return Options(**values, transform=transform)

    def named(self, zoo: Zoo) -> dict[str, Source | None]:
        """Return the entry of each network by its name; None for the scratch network.

        Raises
        ------
        InputError
            When the zoo has no such source, or scratch is to be of the architecture of a source that is not named.
        """
        entries = {name: _source(name, zoo) for name in (self.x, self.y)}
        if self.reference == OWN and set(entries) == {SCRATCH}:
            raise InputError("Expected a source of the zoo beside 'scratch', whose own architecture it takes; name one")
        return entries

    def sources_of(self, zoo: Zoo) -> Iterable[Source]:
        """Return the sources that are compared."""
        return filter(None, self.named(zoo).values())


def _source(name: str, zoo: Zoo) -> Source | None:
    if name == SCRATCH:
        return None
    if name not in zoo:
        raise InputError(
            f"no source is called {name!r}{near(name, [*zoo.names, SCRATCH])}; there are {', '.join(zoo.names)}, and "
            f"{SCRATCH} for the network trained on the target"
        )
    return zoo[name]
