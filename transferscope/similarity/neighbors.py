"""Measures of neighbourhoods: mutual nearest neighbours and information imbalance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from array_api_compat import device

from transferscope.arrays import linalg
from transferscope.arrays.backend import Array, array_namespace
from transferscope.errors import InputError, is_whole
from transferscope.similarity.dissimilarity import dissimilarities, midranks, tie_tolerance
from transferscope.similarity.representation import Report, Representation, derived, one_of, one_pair, products, silent

NEIGHBORS = 10


def mutual_knn(
    X: Array, Y: Array, *, k: int = NEIGHBORS, metric: str = "euclidean", standardize: bool = False
) -> float:
    """Share of the `k` nearest neighbours that a sample has in common in `X` and `Y`, averaged over the samples.

    Unchanged by isotropic scaling and orthogonal maps of the features of either; with the Euclidean metric also by
    shifts, with the cosine also by scaling samples one by one.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    k
        Number of neighbours; the sample itself is none. Of equally near ones (up to rounding) those that come first
        in the arrays are taken.
    metric
        ``"euclidean"``, or ``"cosine"`` as in the paper.
    standardize
        Z-score every feature first, over these samples.

    Returns
    -------
    float
        In [0, 1]; independent features give about k / (n_samples - 1). NaN, with a warning, for constant features.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples, or `k` is not between 1 and n_samples - 2
        (with n_samples - 1 everyone is everyone's neighbour), or the metric is unknown.

    References
    ----------
    Huh, Cheung, Wang and Isola (2024), The Platonic Representation Hypothesis.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> mutual_knn(X, 2 * X + 5)
    1.0
    """
    one_of("metric", metric, ("euclidean", "cosine"))
    X, Y = linalg.check_paired(X, Y)
    if not is_whole(k, 1) or k > X.shape[0] - 2:
        raise InputError(
            f"Expected `k` to be a whole number between 1 and n_samples - 2 = {X.shape[0] - 2} but got {k!r}; "
            "take fewer neighbours or more samples"
        )
    return one_pair("mutual k-NN", partial(mutual_knn_pairs, k=k, metric=metric), X, Y, standardize=standardize)


def information_imbalance(X: Array, Y: Array, *, standardize: bool = False) -> float:
    """Information imbalance Δ(X → Y): 2 / n_samples times the mean rank in `Y` of the nearest neighbour in `X`.

    Small when distances in `X` predict those in `Y`. Not symmetric: Δ(Y → X) is the same with the arguments swapped.
    Unchanged by shifts, orthogonal maps and isotropic scaling of the features of either.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    standardize
        Z-score every feature first, over these samples.

    Returns
    -------
    float
        In [2/n_samples, 2): 2/n_samples when every nearest neighbour in `X` is also that in `Y`, about 1 when `X` says
        nothing about `Y`. Ranks, by Euclidean distance, run from 1 to n_samples - 1; equally far samples (up to
        rounding) share their mean rank, and of several nearest neighbours in `X` the ranks are averaged. NaN, with a
        warning, for constant features.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples, at least 3.

    References
    ----------
    Glielmo, Zeni, Cheng, Csányi and Laio (2022), Ranking the information content of distance measures.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> information_imbalance(X, 2 * X + 5)  # 2 / n_samples: the nearest neighbour is the nearest in both
    0.1
    """
    return one_pair("information imbalance", information_imbalance_pairs, X, Y, standardize=standardize, min_samples=3)


def mutual_knn_pairs(
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    report: Report = silent,
    *,
    k: int = NEIGHBORS,
    metric: str = "euclidean",
) -> Array:
    """`mutual_knn` of all pairs of layers, (len(xs), len(ys)): each layer's neighbours once, then one product."""

    def build(layer: Representation) -> Array:
        return _by_rows(layer, metric, partial(_nearest, k=k))

    us, vs = derived(xs, ys, lambda layer: layer.matrix(("nearest", metric, k), build), report)
    return products(us, vs) / (k * xs[0].n_samples)


def information_imbalance_pairs(
    xs: Sequence[Representation], ys: Sequence[Representation], report: Report = silent
) -> Array:
    """`information_imbalance` of all pairs of layers, (len(xs), len(ys)), from each x to each y, by one product."""

    def nearest(x: Representation) -> Array:
        return x.matrix("nearest neighbor", lambda layer: _by_rows(layer, "euclidean", _shared_nearest))

    def ranked(y: Representation) -> Array:
        return y.matrix("ranks", lambda layer: _by_rows(layer, "euclidean", _ranks))

    first, ranks = derived(xs, ys, nearest, report, derive_y=ranked)
    return products(first, ranks) * (2.0 / xs[0].n_samples ** 2)


def _by_rows(layer: Representation, metric: str, rule: Callable[[Array, float, Array], Array]) -> Array:
    """Apply `rule` to blocks of rows of the distances, and the tie tolerance, and where the samples themselves are."""
    D = dissimilarities(layer, metric)
    xp = array_namespace(D)
    n = layer.n_samples
    tolerance = tie_tolerance(D, layer.n_features)
    diagonal = xp.eye(n, dtype=xp.bool, device=device(D))
    step = max(1, linalg.BLOCK // n)
    blocks = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    return xp.concat([rule(D[rows, :], tolerance, diagonal[rows, :]) for rows in blocks], axis=0)


def _nearest(distances: Array, tolerance: float, diagonal: Array, *, k: int) -> Array:
    """Whether a sample (column) is one of the `k` nearest of that of the row: exactly `k` in each row."""
    xp = array_namespace(distances)
    distances = xp.where(diagonal, xp.full_like(distances, xp.inf), distances)
    farthest = xp.sort(distances, axis=1, stable=False)[:, k - 1 : k]
    nearer = distances < farthest - tolerance
    tied = (distances <= farthest + tolerance) & ~nearer
    places = k - xp.sum(xp.astype(nearer, xp.int64), axis=1, keepdims=True)
    return nearer | (tied & (xp.cumulative_sum(xp.astype(tied, xp.int64), axis=1) <= places))


def _shared_nearest(distances: Array, tolerance: float, diagonal: Array) -> Array:
    """Weights, summing to 1 in each row, of the nearest sample or samples."""
    xp = array_namespace(distances)
    distances = xp.where(diagonal, xp.full_like(distances, xp.inf), distances)
    nearest = xp.astype(distances <= xp.min(distances, axis=1, keepdims=True) + tolerance, xp.float64)
    return nearest / xp.sum(nearest, axis=1, keepdims=True)


def _ranks(distances: Array, tolerance: float, diagonal: Array) -> Array:
    """Rank of each sample by distance, from 1, and 0 for the sample itself; float32 holds them exactly."""
    xp = array_namespace(distances)
    # The sample itself comes first, also before its duplicates.
    return xp.astype(midranks(xp.where(diagonal, xp.full_like(distances, -xp.inf), distances), tolerance), xp.float32)
