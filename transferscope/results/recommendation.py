"""The cut of a source that is recommended, with what is expected of it and what it costs."""

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from transferscope.results import saving
from transferscope.runtime.metrics import ACCURACY

LEVEL = 0.8
"""Coverage of every interval."""


@dataclass(frozen=True)
class Recommendation:
    """One way to start a transfer, and what to expect of it."""

    rank: int
    source: str
    layer: str | None
    """Last layer that is kept; None when nothing is (training from scratch)."""
    depth: int
    depths: int
    protocol: str
    expected_accuracy: float
    interval: tuple[float, float]
    """80 % interval of the accuracy of one transfer on new images; of a source corrected for the choice of its cut."""
    params: float
    """Parameters of the network that comes out: up to the cut for truncate, else all. An integer, NaN when unknown."""
    flops: float
    """Floating-point operations per image of that network, its head apart: an integer, NaN when unknown."""
    scores: dict[str, float] = field(default_factory=dict)
    """At this cut; those of the source's own predictions (LEEP, NCE) do not depend on it."""
    baselines: dict[str, float] = field(default_factory=dict)
    """What needs no look at the target: see `results.labelled.BASELINES`."""
    beats_next: float | None = None
    """Probability that it is really better than the next one in the ranking; None for the last."""
    tied_with: tuple[str, ...] = ()
    """Those of which it is open whether they are better: either is with a probability of 0.1 at least."""
    level_with: tuple[str, ...] = ()
    """Those of them whose accuracy differs by less than 0.01 with a probability of at least 0.9."""
    probability_best: float | None = None
    """Probability that it is the best of the ranking."""
    reason: str = ""
    """Why, in words, from the figures."""
    metric: str = ACCURACY.name
    """What `expected_accuracy` is of; files say it once for all."""

    def row(self) -> dict[str, Any]:
        """Return what a table of a ranking has of it."""
        row = asdict(self)
        del row["metric"]
        return row

    def _repr_html_(self) -> str:
        return saving.fragment(self)


class Way(Protocol):
    """How a source is transferred, be it recommended or done."""

    @property
    def layer(self) -> str | None: ...  # noqa: D102
    @property
    def depth(self) -> int: ...  # noqa: D102
    @property
    def depths(self) -> int: ...  # noqa: D102
    @property
    def protocol(self) -> str: ...  # noqa: D102


def how(pick: Way) -> str:
    """Say in words what is done with a source."""
    if pick.layer is None:
        return "from scratch"
    cut = f"cut after {pick.layer} (depth {pick.depth} of {pick.depths})"
    whole = pick.depth == pick.depths
    if pick.protocol == "truncate":
        return f"{cut}, its features frozen, a linear head trained on them"
    if pick.protocol == "reinit":
        end = "a new head trained on it" if whole else "what follows re-initialised and trained"
        return f"{cut}, what is kept frozen, {end}"
    if pick.protocol == "defrost":
        frozen = f"up to {pick.layer} (depth {pick.depth} of {pick.depths}), the rest fine-tuned"
        return f"kept whole with a new head, {'all its stages frozen' if whole else f'frozen {frozen}'}"
    return (
        f"{cut}, fine-tuned with a new head" if whole else f"{cut}, what follows re-initialised, all of it fine-tuned"
    )
