"""A measured transfer, as evidence on what other transfers to the same target will reach."""

import math
from dataclasses import dataclass

from transferscope.errors import InputError, check_whole, near
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH
from transferscope.runtime.links import SHARE, Link

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
        Measured; the mean of the draws.
    tested : int
        Images that it was measured on.
    draws : int
        Of the images trained on.
    seconds : float
        That it took; NaN if unknown.
    origin : str
        "pilot" (run for this answer), "evidence" (handed in) or "reference" (the scratch network of this answer).
    link : Link
        Of the figure that `accuracy` is.
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
    link: Link = SHARE

    def __post_init__(self) -> None:
        for name, least in (("depth", 0), ("samples", 1), ("tested", 1), ("draws", 1)):
            check_whole(name, getattr(self, name), least)
        for name, choices in (("protocol", (*CUT_PROTOCOLS, SCRATCH)), ("origin", ORIGINS)):
            if (value := getattr(self, name)) not in choices:
                raise InputError(
                    f"Expected `{name}` to be one of {', '.join(choices)}, but got {value!r}{near(value, choices)}"
                )
        if not self.link.holds(self.accuracy):
            raise InputError(f"Expected `accuracy` to be between {self.link.lowest:g} and 1, but got {self.accuracy}")

    @property
    def place(self) -> float:
        """Of the accuracy on its link."""
        return float(self.link.onto(self.accuracy, self.tested))

    @property
    def standard_error(self) -> float:
        """Of the accuracy, from the number of images that it was measured on alone: never 0."""
        return float(self.link.standard_error(self.accuracy, self.tested))
