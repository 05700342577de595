"""Canonical correlation analysis: mean CCA and SVCCA, each layer factored once and paired afterwards."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from transferscope.arrays import linalg
from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import Factors, check_features, check_paired, sketched_svd, thin_svd
from transferscope.errors import InputError, TransferscopeWarning, check_whole
from transferscope.similarity.representation import Report, Representation, pair_by_pair, silent


def cca(X: Array, Y: Array, *, squared: bool = False, standardize: bool = False) -> float:
    """Mean canonical correlation of all directions of `X` and `Y`.

    Unchanged by invertible linear maps and shifts of the features of either.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    squared
        Average the squared correlations instead.
    standardize
        Z-score every feature first, over these samples; it changes only which directions are rounding noise.

    Returns
    -------
    float
        In [0, 1]: the mean of the min(rank X, rank Y) correlations; NaN, with a warning, for constant
        features.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples, at least 2.

    Warns
    -----
    TransferscopeWarning
        When rank X + rank Y > n_samples - 1: correlations are then trivially 1.

    References
    ----------
    Hotelling (1936), Relations between two sets of variates.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(cca(X, X @ np.diag([1.0, 10.0, 100.0])), 6)  # the same but for an invertible linear map
    1.0
    """
    X, Y = check_paired(X, Y)
    if standardize:
        X, Y = linalg.standardize(X), linalg.standardize(Y)
    return _warned_mean_correlation(thin_svd(X).left, thin_svd(Y).left, squared)


def svcca(
    X: Array,
    Y: Array,
    *,
    threshold: float = 0.99,
    rank: int | None = None,
    squared: bool = False,
    standardize: bool = False,
    sketch: int | None = None,
    seed: int = 0,
) -> float:
    """Singular vector CCA: mean canonical correlation of the leading singular subspaces of `X` and `Y`.

    Unchanged by shifts, orthogonal maps and isotropic scaling of the features of either.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    threshold
        Share of the variance that the kept directions explain at least, in (0, 1].
    rank
        Keep this many leading directions of each (all, where there are fewer) in place of `threshold`.
    squared
        Average the squared correlations instead.
    standardize
        Z-score every feature first, over these samples.
    sketch
        For wide layers: find the directions within a randomised sketch of this many, see `linalg.sketched_svd`.
    seed
        Of the sketch.

    Returns
    -------
    float
        In [0, 1]: the mean of the min(k_x, k_y) correlations; NaN, with a warning, for constant features.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples (at least 2), `threshold` or `rank` is off, or
        the sketch is too small for them.

    Warns
    -----
    TransferscopeWarning
        When k_x + k_y > n_samples - 1: correlations are then trivially 1.

    References
    ----------
    Raghu et al. (2017), SVCCA: Singular Vector Canonical Correlation Analysis.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> noise = 1e-3 * np.random.default_rng(1).normal(size=(20, 3))
    >>> round(svcca(X, np.hstack([X, noise])), 6)  # directions with almost no variance are left out
    1.0
    """
    X, Y = check_paired(X, Y)
    if standardize:
        X, Y = linalg.standardize(X), linalg.standardize(Y)
    U, V = (svcca_subspace(features, threshold, rank=rank, sketch=sketch, seed=seed) for features in (X, Y))
    return _warned_mean_correlation(U, V, squared)


def svcca_subspace(
    X: Array, threshold: float = 0.99, *, rank: int | None = None, sketch: int | None = None, seed: int = 0
) -> Array:
    """Orthonormal basis (n_samples, k) of the fewest directions that hold `threshold` of the variance of `X`.

    Parameters
    ----------
    X
        Features, (n_samples, n_features).
    threshold, rank, sketch, seed
        As in `svcca`. A sketch that does not reach the threshold is an error: fewer directions than asked for would
        be another measure under the same name. Its directions hold at most what the true ones hold, so that k is
        never smaller than without a sketch.

    Raises
    ------
    InputError
        When `X` is no finite matrix of at least 2 rows, `threshold` is not in (0, 1], `rank` is not at least 1, or
        the sketch is smaller than `rank` or does not reach `threshold`.
    """
    if sketch is None:
        return subspace_from_factors(thin_svd(check_features(X, min_samples=2)), threshold, rank=rank)
    if rank is not None and rank > sketch:
        raise InputError(f"Expected `sketch` to be at least `rank` = {rank} but got {sketch}; raise `sketch`")
    factors, total, captured = sketched_svd(X, sketch, seed=seed)
    if rank is None and captured < threshold - 1e-12:
        raise InputError(
            f"Expected a sketch that holds `threshold` = {threshold} of the variance but got {captured:.4f} within "
            f"{sketch} directions; raise `sketch`, lower `threshold`, or fix `rank`"
        )
    return subspace_from_factors(factors, threshold, rank=rank, total=total)


def subspace_from_factors(
    centred: Factors, threshold: float = 0.99, *, rank: int | None = None, total: float | None = None
) -> Array:
    """Do what `svcca_subspace` does, from the factors of the centred features.

    `total` is the sum of all squared singular values, where `centred` holds only the leading ones.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"Expected `threshold` to be a share of variance in (0, 1] but got {threshold!r}")
    if rank is not None:
        check_whole("rank", rank, 1)
        return centred.left[:, : min(rank, centred.left.shape[1])]
    if centred.singular_values.shape[0] == 0:
        return centred.left
    xp = array_namespace(centred.left)
    variance = xp.cumulative_sum(centred.singular_values**2)
    wanted = threshold * (variance[-1] if total is None else total)
    k = int(xp.sum(xp.astype(variance < wanted, xp.int64))) + 1
    return centred.left[:, : min(k, centred.left.shape[1])]


def cca_pairs(xs: Sequence[Representation], ys: Sequence[Representation], report: Report = silent) -> Array:
    """`cca` of all pairs of layers, none of them constant, (len(xs), len(ys)): each layer factored once."""
    return pair_by_pair(xs, ys, lambda layer: layer.factors.left, _mean_correlation, report)


def svcca_pairs(
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    report: Report = silent,
    *,
    threshold: float = 0.99,
    rank: int | None = None,
) -> Array:
    """`svcca` of all pairs of layers, none of them constant, (len(xs), len(ys)): each layer factored once."""
    return pair_by_pair(
        xs, ys, lambda layer: subspace_from_factors(layer.factors, threshold, rank=rank), _mean_correlation, report
    )


def mean_canonical_correlation(U: Array, V: Array) -> float:
    """Mean of the min(k_u, k_v) singular values of Uᵀ V.

    Parameters
    ----------
    U, V
        Orthonormal bases of centred features of the same samples, (n_samples, k_u) and (n_samples, k_v), as
        `svcca_subspace` gives them.

    Returns
    -------
    float
        In [0, 1]; NaN, with a warning, when one of the two has no directions.

    Raises
    ------
    InputError
        When the two differ in n_samples.

    Warns
    -----
    TransferscopeWarning
        When k_u + k_v > n_samples - 1: correlations are then trivially 1.
    """
    return _warned_mean_correlation(U, V)


def svcca_matrix(us: Sequence[Array], vs: Sequence[Array]) -> Array:
    """Mean canonical correlation of every pair of subspaces, (n_layers_u, n_layers_v) in float64.

    Parameters
    ----------
    us, vs
        One basis (n_samples, k) per layer, as `svcca_subspace` gives them.

    Raises
    ------
    InputError
        When there are no layers or they differ in n_samples.

    Warns
    -----
    TransferscopeWarning
        Once, with the number of pairs for which k_u + k_v > n_samples - 1, and once with the number of pairs
        that are NaN because a layer is constant.
    """
    us, vs = list(us), list(vs)
    if not us or not vs:
        raise InputError("Expected `us` and `vs` to hold one subspace per layer but got none; pass at least one")
    xp = array_namespace(*us, *vs)
    pairs = [(U, V) for U in us for V in vs]
    means = [_mean_correlation(U, V) for U, V in pairs]
    _warn_crowded(pairs, stacklevel=3)
    _warn_constant(pairs, stacklevel=3)
    return xp.reshape(xp.stack(means), (len(us), len(vs)))


def _warned_mean_correlation(U: Array, V: Array, squared: bool = False) -> float:
    mean = float(_mean_correlation(U, V, squared))
    _warn_crowded([(U, V)], stacklevel=4)
    _warn_constant([(U, V)], stacklevel=4)
    return mean


def _mean_correlation(U: Array, V: Array, squared: bool = False) -> Array:
    xp = array_namespace(U, V)
    if U.shape[0] != V.shape[0]:
        raise InputError(
            f"Expected subspaces of the same n_samples but got {tuple(U.shape)} and {tuple(V.shape)}; "
            "row i of both must come from the same image"
        )
    if min(U.shape[1], V.shape[1]) == 0:
        return xp.sum(U[:1, :0]) * math.nan
    correlations = xp.linalg.svdvals(U.T @ V)
    return xp.mean(correlations**2 if squared else correlations)


def _warn_crowded(pairs: Sequence[tuple[Array, Array]], *, stacklevel: int) -> None:
    crowded = [(U, V) for U, V in pairs if U.shape[1] + V.shape[1] > U.shape[0] - 1]
    if crowded:
        U, V = crowded[0]
        warnings.warn(
            f"{len(crowded)} of {len(pairs)} layer pairs keep more than n_samples - 1 directions together "
            f"(the first: {U.shape[1]} + {V.shape[1]}, n_samples {U.shape[0]}): some of their correlations "
            "are 1 whatever the features are; use more samples or a lower threshold",
            TransferscopeWarning,
            stacklevel=stacklevel,
        )


def _warn_constant(pairs: Sequence[tuple[Array, Array]], *, stacklevel: int) -> None:
    constant = sum(min(U.shape[1], V.shape[1]) == 0 for U, V in pairs)
    if constant:
        warnings.warn(
            f"the mean canonical correlation is NaN for {constant} of {len(pairs)} layer pairs: constant "
            "features have no similarity to anything",
            TransferscopeWarning,
            stacklevel=stacklevel,
        )
