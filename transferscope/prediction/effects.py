"""How the errors of predicted accuracies go together: the covariances of one target's candidates.

Accuracies are modelled by their logits: what covariates say, what all candidates of a target have in common, what those
of a source, of a depth, of both, and what is left. Each of these effects differs between protocols and goes together
between them, as a 5 × 5 covariance says.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from transferscope.prediction.covariates import SCRATCH

BASES = ("truncate", "reinit", "finetune", SCRATCH, "between")
"""Protocols that have effects of their own; `between` is what `defrost` has that is not between two others."""

_LONG, _SHORT = 3.0, 1.0
"""Differences of ln(images) over which effects go together."""
_WIDE, _NARROW = 0.3, 0.15
"""Differences of the depth, as shares, over which effects go together."""


def shares(rows: pd.DataFrame) -> np.ndarray:
    """Return how much of the terms of each of `BASES` every candidate has, (n_rows, 5).

    `reinit` with every stage kept is a linear head on frozen features, as `truncate` is, and has its terms. `defrost`
    of no stage is `finetune` of them all; of every stage it is `truncate`; between, it moves from one to the other with
    the square of the share that is frozen.
    """
    protocol, share = rows["protocol"].to_numpy(), rows["depth_fraction"].to_numpy(float)
    whole, frozen = share == 1, np.where(protocol == "defrost", share, 0.0)
    found = np.zeros((len(rows), len(BASES)))
    found[:, 0] = np.where((protocol == "reinit") & whole, 1.0, protocol == "truncate")
    found[:, 1] = (protocol == "reinit") & ~whole
    found[:, 2] = protocol == "finetune"
    found[:, 3] = protocol == SCRATCH
    defrost = protocol == "defrost"
    found[defrost, 0], found[defrost, 2] = frozen[defrost] ** 2, 1 - frozen[defrost] ** 2
    found[:, 4] = 4 * frozen * (1 - frozen)
    return found


def loadings(rows: pd.DataFrame) -> np.ndarray:
    """Return how much of the effects of each of `BASES` every candidate has, (n_rows, 5).

    As `shares`, but that `reinit` of few stages has those of `finetune`, since nearly all is trained, and of many those
    of `truncate`; effects of its own are largest between.
    """
    found = shares(rows)
    depth = rows["depth_fraction"].to_numpy(float)
    reinit = found[:, 1] == 1
    found[reinit, 0], found[reinit, 2] = depth[reinit] ** 2, 1 - depth[reinit] ** 2
    found[reinit, 1] = 4 * depth[reinit] * (1 - depth[reinit])
    return found


def network_columns(rows: pd.DataFrame) -> np.ndarray:
    """Return how much of the effects `ACROSS` of its network every candidate has, (n_rows, 10): for each one a base."""
    mine = loadings(rows) * _cut(rows)[:, None]
    return np.hstack([mine, mine * _centred(rows)[:, None]])


def patterns(
    rows: pd.DataFrame, others: pd.DataFrame | None = None, known: Collection[str] = ()
) -> Mapping[str, np.ndarray]:
    """Return for each effect how far two candidates of one target share it, (n_rows, n_others).

    Parameters
    ----------
    rows, others : pandas.DataFrame
        As `candidates` returns them, of one target; a row may be of another number of images. The same by default.
    known : collection of str
        Sources whose effects `ACROSS` are among the coefficients, and no more here.
    """
    others = rows if others is None else others

    def distance(name: str) -> np.ndarray:
        return np.abs(np.subtract.outer(rows[name].to_numpy(float), others[name].to_numpy(float)))

    def same(name: str) -> np.ndarray:
        return np.equal.outer(rows[name].to_numpy(object), others[name].to_numpy(object))

    cut = np.outer(_cut(rows), _cut(others))
    source = cut * same("source")
    unknown = source * ~rows["source"].isin(known).to_numpy()[:, None]
    more, apart = distance("log_per_class"), distance("kept")
    longer, shorter = np.exp(-more / _LONG), np.exp(-more / _SHORT)
    centred = np.multiply.outer(*(_centred(each) for each in (rows, others)))
    # Of equal numbers of images and depths, and of one protocol or two names of one.
    alike = same("source") & (distance("depth") == 0) & (more < 1e-9)
    return {
        "target": np.ones_like(more),
        "size": shorter,
        "source": source * longer,
        "network": unknown,
        "slope": unknown * centred,
        "profile": cut * np.exp(-apart / _WIDE) * longer,
        "place": source * np.exp(-apart / _NARROW) * shorter,
        "growth": np.multiply.outer(*(each["log_more"].to_numpy(float) for each in (rows, others))),
        "cell": alike.astype(float),
    }


EFFECTS = ("target", "size", "source", "network", "slope", "profile", "place", "growth", "cell")
ACROSS = ("network", "slope")
"""Those that a network has on all targets."""
OF_NETWORK = len(ACROSS) * len(BASES)
"""How many numbers these are."""


def _cut(rows: pd.DataFrame) -> np.ndarray:
    return (rows["protocol"] != SCRATCH).to_numpy(float)


def _centred(rows: pd.DataFrame) -> np.ndarray:
    return rows["kept"].to_numpy(float) - 0.5


def variance(components: Mapping[str, np.ndarray], rows: pd.DataFrame, known: Collection[str] = ()) -> np.ndarray:
    """Return the diagonal of `covariance`, (n_rows,), without the rest of it."""
    cut = _cut(rows)
    unknown = cut * ~rows["source"].isin(known).to_numpy()
    shares = dict.fromkeys(EFFECTS, cut) | dict.fromkeys(("target", "size", "cell"), np.ones(len(rows)))
    shares |= {
        "network": unknown,
        "slope": unknown * _centred(rows) ** 2,
        "growth": rows["log_more"].to_numpy(float) ** 2,
    }
    mine = loadings(rows)
    return sum((shares[name] * ((mine @ components[name]) * mine).sum(axis=1) for name in EFFECTS), np.zeros(len(rows)))


def covariance(
    components: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    others: pd.DataFrame | None = None,
    known: Collection[str] = (),
) -> np.ndarray:
    """Return the covariance of the effects of candidates of one target, in squared logits, (n_rows, n_others).

    Parameters
    ----------
    components : mapping of str to numpy.ndarray
        Each of `EFFECTS` to its (5, 5) covariance between `BASES`.
    rows, others, known
        As for `patterns`.
    """
    mine, theirs = loadings(rows), loadings(rows if others is None else others)
    return sum(
        (pattern * (mine @ components[name] @ theirs.T) for name, pattern in patterns(rows, others, known).items()),
        np.zeros((len(mine), len(theirs))),
    )
