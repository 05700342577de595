"""A calibration that has learnt from further targets: what measured transfers say of the coefficients."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from transferscope.errors import InputError
from transferscope.prediction.belief import Belief
from transferscope.prediction.calibration import Calibration


def learn(known: Calibration, measured: Iterable[tuple[Belief, Mapping[str, str]]], name: str) -> Calibration:
    """Return a calibration after measured transfers of further targets.

    Coefficients change as Bayes' rule says, and so does what is known of the networks that were measured; each target
    has effects of its own, which are integrated out. The components stay as they are: a few targets say little of
    variances.

    Parameters
    ----------
    known : Calibration
    measured : iterable of (Belief, mapping of str to str)
        One for each target: with its observations (what else is believed is not used), and the fingerprint of each
        source. Of a source without one nothing is learnt but what holds for all.
    name : str
        What was measured, for people.

    Raises
    ------
    InputError
        When there is not a single observation.
    """
    told = [(belief, fingerprints) for belief, fingerprints in measured if belief.observations]
    known = known.with_networks(
        fingerprints[source]
        for belief, fingerprints in told
        for source in belief.seen["source"].unique()
        if source in fingerprints
    )
    coefficients, factor, targets, runs = known.coefficients, known.factor, 0, 0
    for belief, fingerprints in told:
        ours, places = known.of_sources(fingerprints), known.places_of(fingerprints)
        design = ours.design(belief.seen)
        columns = design @ factor[places]
        root = cholesky(columns @ columns.T + replace(belief, calibration=ours).own_covariance, lower=True)
        gain = solve_triangular(root, columns, lower=True)
        logits = np.array([each.place for each in belief.observations])
        surprise = solve_triangular(root, logits - design @ coefficients[places], lower=True)
        coefficients = coefficients + factor @ (gain.T @ surprise)
        left = np.eye(len(coefficients)) - gain.T @ gain
        factor = factor @ cholesky((left + left.T) / 2, lower=True)
        # Lower triangular again: the same covariance by another factor.
        factor = cholesky(factor @ factor.T + 1e-12 * np.eye(len(factor)), lower=True)
        targets, runs = targets + 1, runs + sum(each.origin != "reference" for each in belief.observations)
    if not runs:
        raise InputError(
            "Expected `runs` to hold measured transfers of the rankings beside them, but there is none that can be "
            "used; see the warnings for what was left out"
        )
    said = f"{known.measured}; {runs} measured transfers of {targets} targets ({name})"
    return replace(known, coefficients=coefficients, factor=factor, measured=said)
