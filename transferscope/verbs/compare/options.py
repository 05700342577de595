"""How two networks are compared: the options of `compare` as one frozen record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transferscope import similarity
from transferscope.activations.reductions import Reduction
from transferscope.activations.selecting import Layers
from transferscope.arrays import backend
from transferscope.data.batches import FEWEST
from transferscope.data.images import Transform
from transferscope.errors import InputError, check_whole, near
from transferscope.networks.inputs import IMAGENET_MEAN, IMAGENET_STD

IMAGENET = Transform(size=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)

Estimator = Literal["minibatch", "exact"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `compare` is asked beside networks and images; its docstring says what each field means.

    Raises
    ------
    InputError
        When a value is not as expected.
    """

    measures: Sequence[str] = ("linear_cka",)
    layers_x: Layers = "auto"
    layers_y: Layers = "auto"
    reduce: Reduction = "flatten"
    standardize: bool = False
    estimator: Estimator = "minibatch"
    standard_error: bool = False
    permutations: int = 0
    precision: backend.Precision = "float32"
    transform: Transform | tuple[Transform, Transform] = IMAGENET
    batch_size: int = 64
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for measure in self.measures:
            if measure not in similarity.MEASURES:
                raise InputError(
                    f"Expected `measure` to be one of {', '.join(similarity.MEASURES)}, but got {measure!r}"
                    f"{near(measure, similarity.MEASURES)}"
                )
        if self.reduce is None:
            raise InputError("Expected `reduce` to give features (n_samples, n_features), but got None; use 'flatten'")
        if self.estimator not in ("minibatch", "exact"):
            raise InputError(f"Expected `estimator` to be 'minibatch' or 'exact', but got {self.estimator!r}")
        for name, least in (("permutations", 0), ("batch_size", FEWEST), ("seed", 0)):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), least))

    @property
    def in_batches(self) -> bool:
        """Whether linear CKA is summed up batch by batch."""
        return "linear_cka" in self.measures and self.estimator == "minibatch"

    @property
    def whole(self) -> list[str]:
        """The measures that need the features of all images."""
        return [measure for measure in self.measures if not (self.in_batches and measure == "linear_cka")]

    @property
    def transforms(self) -> tuple[Transform, Transform]:
        """One for each network."""
        return self.transform if isinstance(self.transform, tuple) else (self.transform, self.transform)
