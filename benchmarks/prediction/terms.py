"""What a predicted logit is made of, what its coefficients are expected to be, and how its errors go together."""

from collections.abc import Iterator, Mapping

import numpy as np

from transferscope.prediction.calibration import Term
from transferscope.prediction.covariates import SCRATCH

CUT = ("truncate", "reinit", "finetune")
RETRAINED = ("reinit", "finetune")
TRAINED = (*RETRAINED, SCRATCH)
DEVIATIONS = (("head",), ("gain",), ("alignment",))
FINE = (("kept",), ("past_25",), ("past_50",), ("past_65",), ("past_75",), ("past_85",), ("whole",))
COARSE = (("kept",), ("past_50",), ("past_75",), ("past_85",), ("whole",))
SIZE = ("log_per_class",)

RECIPES = (("short_schedule",), ("short_schedule", *SIZE), ("two_rates",), ("two_rates", *SIZE))


def _terms() -> Iterator[Term]:
    """Yield the terms, without coefficients."""
    for base in (*CUT, SCRATCH):
        for factors in ((), SIZE, ("log_classes",), ("target_head",), ("target_head", "seen")):
            yield Term((base,), factors)
        yield Term((base,), ("log_more",))
    for base in TRAINED:
        for factors in (("scratch",), ("stages",), ("stages", *SIZE), *RECIPES):
            yield Term((base,), factors)
    for factors in (("source_head",), ("source_head", "seen"), ("source_far",), ("source_gain",), ("rank",)):
        yield Term(("truncate",), factors)
    for factors in (*DEVIATIONS, *((*each, "unseen") for each in DEVIATIONS)):
        yield Term(("truncate",), factors)
    for factors in (*FINE, *((*each, *SIZE) for each in FINE), *((*each, "unseen") for each in FINE)):
        yield Term(("truncate",), factors)
    for base in RETRAINED:
        for factors in (
            ("source_head",),
            ("source_far",),
            ("source_gain",),
            ("deficit",),
            ("rank",),
            *DEVIATIONS,
            *COARSE,
        ):
            yield Term((base,), factors)
        for factors in (*((*each, *SIZE) for each in COARSE), ("kept", "rank"), ("kept", "scratch")):
            yield Term((base,), factors)
        # What is trained behind a cut depends on what the cut lets through beyond what images teach from scratch.
        for factors in (("kept", "excess"), ("whole", "excess")):
            yield Term((base,), factors)


TERMS = tuple(_terms())

_BROAD = {(), SIZE, ("stages",), ("stages", *SIZE), ("deficit",), *RECIPES}
_LEVELS = {("source_head",), ("target_head",), ("target_head", "seen"), ("scratch",), ("log_more",)}
_GROWTH = 0.3
"""Logits of accuracy for an e-fold of the images."""


def prior(term: Term) -> tuple[float, float]:
    """Return what a coefficient is expected to be, and the variance of that times the scale of its column.

    Accuracies go with what leave-one-out heads and the network from scratch reach. Targets differ in many ways and
    there are few of them, so that what tells targets apart is held to that, and numbers of classes, which most of them
    have alike, to nothing.
    """
    if "log_classes" in term.factors:
        return 0.0, 0.02
    if "log_more" in term.factors:
        return _GROWTH, 0.02
    if term.bases == ("truncate",):
        # What heads reach on images left out is what they reach on new ones, as far as so few images tell.
        means = {("head",): 1.0, ("source_far",): 0.6}
        for level in ("target_head", "source_head"):
            means |= {(level,): 0.25, (level, "seen"): 0.7}
        if term.factors in means and term.factors != ("head",):
            return means[term.factors], 0.0002 if term.factors == ("source_far",) else 0.02
    elif term.bases == (SCRATCH,):
        means = {("scratch",): 0.7, ("target_head",): 0.2}
    else:
        means = {("scratch",): 0.4, ("target_head",): 0.4, ("source_head",): 0.4}
        if term.factors == ("source_far",):
            return 0.4, 0.02
    factors = term.factors
    return means.get(factors, 0.0), 0.1 if factors in _LEVELS else 1.0 if factors in _BROAD else 0.05


_TOGETHER = np.array(
    [
        [1.0, 0.5, 0.4, 0.4, 0.0],
        [0.5, 1.0, 0.8, 0.6, 0.0],
        [0.4, 0.8, 1.0, 0.6, 0.0],
        [0.4, 0.6, 0.6, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
    ]
)
"""About how errors of protocols go together, from published tables and ground truth v1."""
_VARIANCES: Mapping[str, tuple[float, ...]] = {
    "target": (0.04, 0.12, 0.18, 0.25, 0.05),
    "size": (0.015, 0.04, 0.06, 0.06, 0.02),
    "source": (0.01, 0.015, 0.01, 0.01, 0.01),
    "network": (0.015, 0.02, 0.02, 0.02, 0.01),
    "slope": (0.015, 0.02, 0.02, 0.02, 0.01),
    "profile": (0.012, 0.01, 0.005, 0.005, 0.005),
    "place": (0.004, 0.004, 0.004, 0.004, 0.004),
    "growth": (0.01, 0.02, 0.02, 0.02, 0.01),
    "cell": (0.001, 0.001, 0.001, 0.001, 0.001),
}


def expected_components() -> dict[str, np.ndarray]:
    """Return what the covariance of each effect is expected to be, (5, 5)."""
    return {name: np.sqrt(np.outer(variances, variances)) * _TOGETHER for name, variances in _VARIANCES.items()}
