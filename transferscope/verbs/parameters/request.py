"""What `parameters` is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transferscope.errors import InputError
from transferscope.protocols.finetuning import recipes
from transferscope.protocols.training.recipe import Recipe
from transferscope.runtime.checks import ALL, Size, check_numbers
from transferscope.verbs.request import Request


@dataclass(frozen=True, kw_only=True)
class ParametersRequest(Request):
    """The arguments of `parameters.measure`."""

    targets: Any
    samples_per_class: Sequence[Size] = (ALL,)
    seeds: int = 1
    epochs: int = 40
    optimiser: str = "sgd"
    learning_rate: float | None = None
    recipe: Any = None
    """Once made: a `Recipe`, of the three before it where none was given."""
    steps: int | None = None
    loss: float | None = None
    redraws: int = 5
    groups: str | Mapping[str, Any] = "auto"
    test_samples: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {"seeds": self.seeds, "redraws": self.redraws, "test_samples": self.test_samples}
        if self.steps is not None:
            counts["steps"] = self.steps
        self._settle(**check_numbers(self.samples_per_class, **counts))
        if self.loss is not None and not 0 < self.loss < 1:
            raise InputError(f"Expected `loss` to be a share of the loss of guessing, in (0, 1), but got {self.loss!r}")
        self._settle(recipe=self._recipe() if self.recipe is None else self.recipe)

    def _recipe(self) -> Recipe:
        # As many epochs as were asked for, also where that is few steps: that is what "at fixed epochs" means.
        recipe = replace(recipes(self.optimiser, self.epochs, min_steps=0)["defrost"], schedule="constant")
        return recipe if self.learning_rate is None else replace(recipe, learning_rate=self.learning_rate)
