"""The cut of a source that is recommended, with what is expected of it and what it costs."""

from dataclasses import dataclass, field

from transferscope.results import saving

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
    """80 % interval: of measured transfers of other targets, or of the number of held-out images (from scratch)."""
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
    probability_best: float | None = None
    """Probability that it is really the most accurate of all in the ranking."""
    tied_with: tuple[str, ...] = ()
    """Those that it cannot be told apart from: either is better with a probability of 0.1 at least."""
    reason: str = ""
    """Why, in words, from the figures."""

    def _repr_html_(self) -> str:
        return saving.fragment(self)


def how(pick: Recommendation) -> str:
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
    return (
        f"{cut}, fine-tuned with a new head" if whole else f"{cut}, what follows re-initialised, all of it fine-tuned"
    )
