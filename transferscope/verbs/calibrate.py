"""Measured transfers of a laboratory in, a calibration that knows them out."""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transferscope.errors import InputError
from transferscope.prediction.belief import Belief, believe
from transferscope.prediction.calibration import Calibration, load_calibration
from transferscope.prediction.evidence import given_evidence, observations, read_evidence
from transferscope.prediction.learning import learn
from transferscope.results.ranking import Ranking, load_ranking
from transferscope.runtime.metrics import CLASSIFICATION


def calibrate(
    measured: Iterable[tuple[Ranking | str | Path, Any]], *, calibration: Calibration | str | Path | None = None
) -> Calibration:
    """Return what rankings expect after learning from a laboratory's own transfers.

    A ranking tells what was known of a target before any transfer, the runs what came of it; where networks are trained
    in another way than here, or targets are of another kind than those of the calibration that is shipped, this shifts
    expectations to them. Coefficients change as Bayes' rule says; variance components stay as they are.

    A network that did better or worse than was expected of it is expected to again, on other targets too. It is known
    by its fingerprint, which stays the same as long as its weights, its code and arguments, its transform and the
    versions of torch and of its library do.

    Parameters
    ----------
    measured : iterable of (Ranking, runs)
        For each target what `rank` found, or the folder that it was saved in, and what `measure` measured: its
        runs.csv, the folder that it is in, a DataFrame, or several of them.
    calibration : Calibration or path, optional
        To begin with; by default the one of this version.

    Returns
    -------
    Calibration
        `save` writes it to a file for `rank(…, calibration=…)`.

    Raises
    ------
    InputError
        When an argument is not as expected, or no run can be used.

    Warns
    -----
    TransferscopeWarning
        Of runs that are left out, with the reasons.
    """
    if isinstance(measured, (str, Path, Ranking)):
        raise InputError(
            f"Expected `measured` to be pairs of a ranking and its runs, but got {type(measured).__name__}; put the "
            "pair into a list"
        )
    pairs = [_pair(each) for each in measured]
    known = calibration if isinstance(calibration, Calibration) else load_calibration(calibration)
    return learn(known, [_seen(ranking, runs, known) for ranking, runs in pairs], "by `calibrate`")


def _pair(given: Any) -> tuple[Ranking, Sequence[Any]]:
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise InputError(
            f"Expected `measured` to be pairs of a ranking and its runs, but one of them is {type(given).__name__}; "
            "give what `rank` found, or its folder, and the runs.csv of `measure`"
        )
    ranking, runs = given
    return (ranking if isinstance(ranking, Ranking) else load_ranking(ranking)), given_evidence(runs)


def _seen(ranking: Ranking, runs: Sequence[Any], known: Calibration) -> tuple[Belief, dict[str, str]]:
    """Return what is believed of a target, with the runs that were measured of it, and the sources' fingerprints."""
    scores = ranking.scores
    if (task := ranking.metric.task) != CLASSIFICATION:
        raise InputError(
            f"Expected `measured` to be of targets with classes, but {ranking.target.name} is one of {task}, of which "
            "nothing is learnt; leave it out"
        )
    fingerprints = _fingerprints(ranking)
    belief = believe(scores, int(scores.attrs["samples"]), known)
    layers = scores["layer"].transpose("source", "depth").to_pandas()
    found = belief.given(
        observations(
            read_evidence(runs),
            target=ranking.target.name,
            target_hash=ranking.target.hash,
            layers={str(source): [name for name in row if name] for source, row in layers.iterrows()},
            candidates=set(belief.rows[["source", "depth", "protocol"]].itertuples(index=False, name=None)),
            fingerprints=fingerprints,
        )
    )
    return found, fingerprints


def _fingerprints(ranking: Ranking) -> dict[str, str]:
    if ranking.provenance is None:
        return {}
    found = ranking.provenance.sources
    if not isinstance(found, Mapping) or not all(isinstance(each, str) and each for each in found.values()):
        raise InputError(
            f"Expected the `provenance` of the ranking of {ranking.target.name} to have the fingerprint of each "
            f"source, but got {reprlib.repr(found)}; rank it anew"
        )
    return dict(found)
