"""Whether one candidate is really better than another, or which of the two is cannot be told."""

TIE = (0.1, 0.9)
"""Two candidates are tied while the probability that the first is better lies within these."""
NEGLIGIBLE = 0.01
"""Candidates are level where their accuracies differ by less than this, with a probability of at least `TIE[1]`."""


def is_tie(probability: float) -> bool:
    """Whether a probability that one is better leaves it open which of the two is."""
    return TIE[0] <= probability <= TIE[1]
