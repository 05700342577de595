"""One layer as the measures see it: its features, and what is derived from them, once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import TypeAlias, TypeVar

from transferscope.arrays import linalg
from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import Factors
from transferscope.errors import InputError, TransferscopeWarning

_T = TypeVar("_T")

Report: TypeAlias = Callable[[int, int], None]
"""Called as `report(done, total)`."""


def silent(_done: int, _total: int) -> None:
    """Report to nobody."""


class Representation:
    """One layer's features of n_samples samples, and everything that measures derive from them, lazily and once.

    Parameters
    ----------
    X
        Features, (n_samples, n_features); what `linalg.check_features` takes. Never written to.
    standardize
        Z-score every feature with the statistics of these samples; features without variance become 0.
    name
        What error messages call `X`.

    Raises
    ------
    InputError
        When `X` is no finite matrix of real numbers.
    """

    def __init__(self, X: Array, *, standardize: bool = False, name: str = "X") -> None:
        X = linalg.check_features(X, name)
        self.n_samples: int = X.shape[0]
        self.n_features: int = X.shape[1]
        self.standardize = standardize
        self._origin: tuple[Representation, Array] | None = None
        self._reordered = False
        self._matrices: dict[Hashable, Array] = {}
        self.features = linalg.standardize(X) if standardize else X

    @cached_property
    def features(self) -> Array:
        """The features, (n_samples, n_features) in float32 or float64, standardised when that was asked for."""
        assert self._origin is not None
        whole, rows = self._origin
        taken = _rows(whole.features, rows)
        # Standardising once more is standardising the samples that were taken: every feature was only shifted and
        # scaled before.
        return linalg.standardize(taken) if self.standardize and not self._reordered else taken

    @cached_property
    def constant(self) -> bool:
        """Whether all samples have the same features: such a layer is similar to nothing."""
        if self._origin is None or (self.standardize and not self._reordered):
            return linalg.is_constant(self.features)
        whole, rows = self._origin
        return whole.constant or (not self._reordered and linalg.is_constant(whole.features, rows))

    @property
    def like(self) -> Array:
        """Some array of the library, and on the device, in which everything here is."""
        return self._origin[0].like if self._origin else self.features

    @property
    def gram(self) -> Array:
        """Gram matrix of the centred features, (n_samples, n_samples), multiplied and kept in float64."""
        return self.matrix("gram", _gram)

    @property
    def squared_distances(self) -> Array:
        """Squared Euclidean distances, (n_samples, n_samples) in float64, with an exactly zero diagonal."""
        return self.matrix("squared_distances", lambda layer: linalg.squared_distances(layer.gram), pairwise=True)

    @cached_property
    def factors(self) -> Factors:
        """Left singular vectors and singular values of the centred features, float64."""
        if self._origin and self._reordered:
            whole, order = self._origin
            return Factors(_rows(whole.factors.left, order), whole.factors.singular_values)
        return linalg.thin_svd(self.features, gram=lambda: self.gram)

    def matrix(self, key: Hashable, build: Callable[[Representation], Array], *, pairwise: bool = False) -> Array:
        """Return the (n_samples, n_samples) matrix called `key`, made by `build` the first time it is asked for.

        `build` must follow the samples: features in another order give the same matrix in that order of rows and
        columns. With `pairwise`, an entry depends on its two samples alone, given the features; a subset then takes
        its entries from the whole.
        """
        if key not in self._matrices:
            if self._origin and (self._reordered or (pairwise and not self.standardize)):
                whole, rows = self._origin
                self._matrices[key] = _block(whole.matrix(key, build, pairwise=pairwise), rows)
            else:
                self._matrices[key] = build(self)
        return self._matrices[key]

    def permuted(self, order: Array) -> Representation:
        """Return the same samples in the order of the integer array `order`, (n_samples,).

        Matrices and factors are not computed again but taken in this order from this representation, which
        computes and keeps what it does not have yet.
        """
        return self._take(order, reordered=True)

    def subset(self, rows: Array) -> Representation:
        """Return the samples of the integer array `rows`, (n_rows,), which may hold one more than once.

        Standardised features are standardised again, with the statistics of these samples.
        """
        return self._take(rows, reordered=False)

    def _take(self, rows: Array, *, reordered: bool) -> Representation:
        taken = Representation.__new__(Representation)
        taken.n_samples = rows.shape[0]
        taken.n_features = self.n_features
        taken.standardize = self.standardize
        taken._origin = (self, rows)
        taken._reordered = reordered
        taken._matrices = {}
        return taken


def _rows(X: Array, rows: Array) -> Array:
    return array_namespace(X, rows).take(X, rows, axis=0)


def _block(M: Array, rows: Array) -> Array:
    xp = array_namespace(M, rows)
    return xp.take(xp.take(M, rows, axis=0), rows, axis=1)


def _gram(layer: Representation) -> Array:
    if layer._origin and not layer.standardize:
        whole, rows = layer._origin
        return doubly_centered(_block(whole.gram, rows))
    return linalg.gram(layer.features, double=True)


def doubly_centered(K: Array) -> Array:
    """Subtract from `K` (n, n), symmetric, the means of its rows and columns."""
    return linalg.center(linalg.center(K).T)


Pairs: TypeAlias = Callable[[Sequence[Representation], Sequence[Representation], Report], Array]
"""Layers of two networks in, a matrix (layers of the first, layers of the second) in float64 out.

The report is of layers that something was derived from, and of pairs of them where each is compared by itself.
"""


def derived(
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    derive: Callable[[Representation], _T],
    report: Report,
    *,
    derive_y: Callable[[Representation], _T] | None = None,
    n_more: int = 0,
) -> tuple[list[_T], list[_T]]:
    """Return what is derived from each of `xs` and of `ys`, reporting each; of `n_more` the caller reports."""
    sides = (xs, derive), (ys, derive_y or derive)
    total = len(xs) + len(ys) + n_more
    report(0, total)
    contributions = []
    for layer, rule in [(layer, rule) for side, rule in sides for layer in side]:
        contributions.append(rule(layer))
        report(len(contributions), total)
    return contributions[: len(xs)], contributions[len(xs) :]


def products(us: Sequence[Array], vs: Sequence[Array]) -> Array:
    """Sum the elementwise products of all pairs of (n, n) matrices, (len(us), len(vs)) in float64.

    One matrix product of the flattened matrices, over so many of their rows at a time that no copy of all is made.
    """
    xp = array_namespace(*us, *vs)
    n = us[0].shape[0]
    step = max(1, 2 * linalg.BLOCK // (n * (len(us) + len(vs))))
    sums = []
    for start in range(0, n, step):
        left, right = (
            xp.stack([xp.astype(xp.reshape(M[start : min(start + step, n), :], (-1,)), xp.float64) for M in side])
            for side in (us, vs)
        )
        sums.append(left @ right.T)
    return xp.sum(xp.stack(sums), axis=0)


def pair_by_pair(
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    derive: Callable[[Representation], Array],
    compare: Callable[[Array, Array], Array],
    report: Report,
) -> Array:
    """Compare what is derived from each layer, (len(xs), len(ys)), by a symmetric function that gives a scalar array.

    For measures that no product of matrices gives at once; the layers of one network meet each other only once.
    """
    alone = len(xs) == len(ys) and all(x is y for x, y in zip(xs, ys, strict=True))
    n_pairs = len(xs) * (len(xs) + 1) // 2 if alone else len(xs) * len(ys)
    us, vs = derived(xs, () if alone else ys, derive, report, n_more=n_pairs)
    done = len(us) + len(vs)
    total = done + n_pairs
    values: dict[tuple[int, int], Array] = {}
    for i, U in enumerate(us):
        for j, V in enumerate(us if alone else vs):
            if alone and j < i:
                values[i, j] = values[j, i]
                continue
            values[i, j] = compare(U, V)
            done += 1
            report(done, total)
    xp = array_namespace(*us)
    return xp.stack([xp.stack([values[i, j] for j in range(len(ys))]) for i in range(len(xs))])


def unit(M: Array, *, floor: float) -> Array:
    """Divide `M` by its Frobenius norm; NaN everywhere when that is at most `floor`."""
    xp = array_namespace(M)
    norm = float(xp.linalg.matrix_norm(M))
    return M * (1.0 / norm if norm > floor else math.nan)


def one_pair(title: str, pairs: Pairs, X: Array, Y: Array, *, standardize: bool, min_samples: int = 2) -> float:
    """Return what `pairs` says of the features `X` and `Y` of the same samples; NaN, with a warning, where nothing.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples, at least `min_samples`.
    """
    X, Y = linalg.check_paired(X, Y, min_samples=min_samples)
    x, y = (Representation(each, standardize=standardize) for each in (X, Y))
    constant = [name for name, layer in (("X", x), ("Y", y)) if layer.constant]
    value = math.nan if constant else float(pairs([x], [y], silent)[0, 0])
    if math.isnan(value):
        why = (
            f"`{constant[0]}` is constant, and constant features have no similarity to anything"
            if constant
            else "what it compares is the same for all samples of one of the two; look at their features"
        )
        warnings.warn(f"{title} is NaN: {why}", TransferscopeWarning, stacklevel=3)
    return value


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise InputError unless the option `value` is one of `allowed`."""
    if value not in allowed:
        raise InputError(f"Expected `{name}` to be one of {', '.join(map(repr, allowed))} but got {value!r}")
