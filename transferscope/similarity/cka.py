"""Centred kernel alignment with the linear kernel, for one pair and streamed over all pairs of layers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from transferscope.backend import Array, array_namespace
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.linalg import center, check_features, check_paired, gram, u_center


def linear_cka(X: Array, Y: Array, *, debiased: bool = False) -> float:
    """Linear centred kernel alignment, HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X Xᵀ and L = Y Yᵀ.

    Unchanged by shifts, orthogonal maps and isotropic scaling of the features. Computed in float64 in feature
    or sample space, whichever is cheaper.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    debiased
        Use the unbiased HSIC of Song et al. (2012). The biased default rises towards 1 as features outnumber
        samples.

    Returns
    -------
    float
        In [0, 1]; debiased at most 1 and possibly negative. NaN, with a warning, when one of the two has no
        similarity structure: constant features, or for the debiased form features whose unbiased self-HSIC
        is zero (a single sample that differs from the rest, say).

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples (at least 2, debiased at least 4).

    References
    ----------
    Kornblith et al. (2019), Similarity of Neural Network Representations Revisited.
    """
    xp = array_namespace(X, Y)
    X, Y = check_paired(X, Y, min_samples=4 if debiased else 2)
    X, Y = center(xp.astype(X, xp.float64)), center(xp.astype(Y, xp.float64))
    n, p, q = X.shape[0], X.shape[1], Y.shape[1]
    if p * p + q * q + p * q < n * (p + q):
        biased = [xp.sum((A.T @ B) ** 2) for A, B in ((X, Y), (X, X), (Y, Y))]
    else:
        K, L = X @ X.T, Y @ Y.T
        biased = [xp.sum(A * B) for A, B in ((K, L), (K, K), (L, L))]
    hsic_xy, hsic_xx, hsic_yy = (float(value) for value in biased)
    floor_x = floor_y = 0.0
    if debiased:
        # What is left of a zero after the subtraction below is rounding of what it is subtracted from.
        rounding = n * float(xp.finfo(xp.float64).eps)
        floor_x, floor_y = rounding * hsic_xx, rounding * hsic_yy
        norms_x, norms_y = xp.sum(X * X, axis=1), xp.sum(Y * Y, axis=1)
        hsic_xy -= _bias(norms_x, norms_y)
        hsic_xx -= _bias(norms_x, norms_x)
        hsic_yy -= _bias(norms_y, norms_y)
    if hsic_xx <= floor_x or hsic_yy <= floor_y:
        name = "X" if hsic_xx <= floor_x else "Y"
        warnings.warn(
            f"linear CKA is NaN: `{name}` has zero self-HSIC, and constant features have no similarity to anything",
            TransferscopeWarning,
            stacklevel=2,
        )
        return math.nan
    return hsic_xy / (math.sqrt(hsic_xx) * math.sqrt(hsic_yy))


def _bias(norms_x: Array, norms_y: Array) -> float:
    """Return <K, L> minus n (n - 3) times the unbiased HSIC, for centred K and L with these diagonals."""
    xp = array_namespace(norms_x, norms_y)
    n = norms_x.shape[0]
    diagonals, traces = xp.sum(norms_x * norms_y), xp.sum(norms_x) * xp.sum(norms_y)
    return float(n * diagonals / (n - 2) - traces / ((n - 1) * (n - 2)))


class MinibatchCKA:
    """Linear CKA of all pairs of layers, streamed over batches of samples (Nguyen et al. 2021).

    Every layer's centred Gram matrix is formed once per batch, in the precision of its features, and all
    pairs come from one product of the flattened Grams, in float64. Sums of HSIC are kept and divided once, at
    the end. Memory is layers × n_b²; one batch of all rows gives the debiased CKA of the whole data.

    Parameters
    ----------
    debiased
        Accumulate unbiased HSIC, batches weighted by n_b (n_b - 3). With False biased HSIC is accumulated,
        batches weighted by (n_b - 1)², which stays far too high on small batches however many there are.
    """

    def __init__(self, *, debiased: bool = True) -> None:
        self.debiased = debiased
        self.n_samples = 0
        """Number of rows accumulated so far."""
        self._sums: tuple[Array, Array, Array] | None = None  # HSIC of (x, y) pairs, of each x and of each y

    def update(self, xs: Sequence[Array], ys: Sequence[Array] | None = None) -> None:
        """Add one batch: the features of the same n_b samples in every layer of one or two networks.

        A batch of fewer than 4 rows (biased: 2) has no HSIC and is dropped with a warning.

        Parameters
        ----------
        xs, ys
            One array (n_b, n_features) per layer; the same number of layers in every batch. Without `ys`, the
            layers of `xs` are compared with each other.

        Raises
        ------
        InputError
            When the arrays do not fit together or hold NaN or infinite values; nothing is added then.
        """
        xs, ys = list(xs), None if ys is None else list(ys)
        named = [(f"xs[{i}]", X) for i, X in enumerate(xs)] + [(f"ys[{i}]", Y) for i, Y in enumerate(ys or ())]
        if not xs or (ys is not None and not ys):
            raise InputError("Expected `xs` and `ys` to hold one array per layer but got none; pass at least one")
        xp = array_namespace(*(X for _, X in named))
        matrices = [check_features(X, name) for name, X in named]
        rows = [X.shape[0] for X in matrices]
        for (name, _), n in zip(named, rows, strict=True):
            if n != rows[0]:
                raise InputError(
                    f"Expected all layers of a batch to have the same n_samples but got {rows[0]} in xs[0] "
                    f"and {n} in {name}; row i of all must come from the same image"
                )
        smallest = 4 if self.debiased else 2
        if rows[0] < smallest:
            warnings.warn(
                f"a batch of {rows[0]} rows was left out of the CKA: HSIC needs at least {smallest}; "
                "its samples count for nothing",
                TransferscopeWarning,
                stacklevel=2,
            )
            return
        grams = xp.stack([xp.reshape(self._kernel(X), (-1,)) for X in matrices])
        if not xp.all(xp.isfinite(grams)):
            raise InputError(
                "Expected features whose squares are finite but those of a layer overflow their dtype; "
                "look at the network they come from, or cast them to float64"
            )
        norms = xp.sum(grams * grams, axis=1)
        left, left_norms = grams[: len(xs), :], norms[: len(xs)]
        right, right_norms = (left, left_norms) if ys is None else (grams[len(xs) :, :], norms[len(xs) :])
        self._add((left @ right.T, left_norms, right_norms), rows[0])

    def merge(self, other: MinibatchCKA) -> None:
        """Add what `other` accumulated from other batches of the same layers, as if it had been seen here.

        Raises
        ------
        InputError
            When `other` is of the other kind (debiased or not) or holds other layers.
        """
        if other.debiased != self.debiased:
            raise InputError("Expected `other` to be debiased like this accumulator but it is not; make both alike")
        if other._sums is not None:
            self._add(other._sums, other.n_samples)

    def result(self) -> Array:
        """CKA of all pairs, (n_layers_x, n_layers_y) in float64; NaN, with a warning, where undefined.

        Raises
        ------
        InputError
            When no batch has been accumulated.
        """
        if self._sums is None:
            raise InputError("Expected at least one batch large enough before result(), but got none; call update()")
        pairs, self_x, self_y = self._sums
        xp = array_namespace(pairs)
        scale = xp.sqrt(self_x)[:, None] * xp.sqrt(self_y)[None, :]
        undefined = scale == 0
        if xp.any(undefined):
            count = int(xp.sum(xp.astype(undefined, xp.int64)))
            warnings.warn(
                f"linear CKA is NaN for {count} of {math.prod(pairs.shape)} layer pairs: a layer has zero "
                "self-HSIC, and constant features have no similarity to anything",
                TransferscopeWarning,
                stacklevel=2,
            )
        nan = xp.full_like(scale, math.nan)
        return xp.where(undefined, nan, pairs / xp.where(undefined, xp.ones_like(scale), scale))

    def _kernel(self, X: Array) -> Array:
        """Matrix (n_b, n_b) whose products with others are HSIC up to the batch's weight."""
        xp = array_namespace(X)
        K = gram(X)
        if not self.debiased:
            return K
        centred = u_center(K)
        # Structure without any unbiased HSIC leaves rounding behind, which must not be divided by itself.
        rounding = X.shape[0] * float(xp.finfo(X.dtype).eps) * xp.linalg.matrix_norm(K)
        return xp.where(xp.linalg.matrix_norm(centred) <= rounding, xp.zeros_like(centred), centred)

    def _add(self, sums: tuple[Array, Array, Array], n_samples: int) -> None:
        if self._sums is None:
            self._sums = sums
        else:
            if sums[0].shape != self._sums[0].shape:
                raise InputError(
                    f"Expected the same layers in every batch, {tuple(self._sums[0].shape)} so far, but got "
                    f"{tuple(sums[0].shape)}; use one accumulator per pair of networks"
                )
            array_namespace(self._sums[0], sums[0])
            old_pairs, old_x, old_y = self._sums
            new_pairs, new_x, new_y = sums
            self._sums = (old_pairs + new_pairs, old_x + new_x, old_y + new_y)
        self.n_samples += n_samples
