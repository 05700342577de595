"""A measured transfer, as evidence on what other transfers to the same target will reach."""

import math
from dataclasses import dataclass

from transferscope.errors import InputError, check_whole, near
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH

ORIGINS = ("pilot", "evidence", "reference")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A measured transfer.

    Attributes
    ----------
    source : str
        Empty for training from scratch.
    depth : int
        Stages kept, or frozen for `defrost`; 0 for training from scratch.
    protocol : str
        One of `covariates.CUT_PROTOCOLS`, or "scratch".
    samples : int
        Images that it was trained on.
    accuracy : float
        Measured, in [0, 1]; the mean of the draws.
    tested : int
        Images that it was measured on.
    draws : int
        Of the images trained on.
    seconds : float
        That it took; NaN if unknown.
    origin : str
        "pilot" (run for this answer), "evidence" (handed in) or "reference" (the scratch network of this answer).
    """

    source: str
    depth: int
    protocol: str
    samples: int
    accuracy: float
    tested: int
    draws: int = 1
    seconds: float = math.nan
    origin: str = "pilot"

    def __post_init__(self) -> None:
        for name, least in (("depth", 0), ("samples", 1), ("tested", 1), ("draws", 1)):
            check_whole(name, getattr(self, name), least)
        for name, choices in (("protocol", (*CUT_PROTOCOLS, SCRATCH)), ("origin", ORIGINS)):
            if (value := getattr(self, name)) not in choices:
                raise InputError(
                    f"Expected `{name}` to be one of {', '.join(choices)}, but got {value!r}{near(value, choices)}"
                )
        if not 0 <= self.accuracy <= 1:
            raise InputError(f"Expected `accuracy` to be between 0 and 1, but got {self.accuracy}")

    @property
    def standard_error(self) -> float:
        """Of the accuracy, from the number of images that it was measured on alone: never 0."""
        share = (self.accuracy * self.tested + 0.5) / (self.tested + 1)
        return math.sqrt(share * (1 - share) / self.tested)
