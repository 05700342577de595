"""Linear CKA of all pairs of layers, streamed over batches, with standard errors and permutation tests."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from array_api_compat import device, is_numpy_array

from transferscope.arrays.backend import Array, array_namespace, from_numpy, to_numpy
from transferscope.arrays.linalg import check_features
from transferscope.errors import InputError, TransferscopeWarning, check_whole
from transferscope.similarity import hsic
from transferscope.similarity.representation import Report, silent

_MOST_PERMUTED = 16
"""Permutation tests hold all Gram matrices of a batch: at most this many times `hsic.tile_bytes`."""

_ROUNDING = 1e-9
"""Of HSIC, by its scale: two that are nearer are equal."""


@dataclass(frozen=True)
class _Sums:
    """Sums over samples i of rows r_i of HSIC and of their products; all of them add up over batches."""

    xy: Array
    xx: Array
    yy: Array
    xy_xy: Array
    xy_xx: Array
    xy_yy: Array
    xx_xx: Array
    xx_yy: Array
    yy_yy: Array
    permuted: Array
    """HSIC of x with permuted y, (permutations, n_layers_x, n_layers_y)."""

    @classmethod
    def of(cls, rows: hsic.RowSums, permuted: Array, group: int) -> _Sums:
        xp = array_namespace(rows.xy)
        xy, xx, yy = rows
        if group > 1:
            xy, xx, yy = (xp.sum(xp.reshape(each, (-1, group, *each.shape[1:])), axis=1) for each in rows)
        # On the host a few rows at a time, whose products its cache holds.
        step = max(1, hsic.CACHED // math.prod(xy.shape[1:])) if is_numpy_array(xy) else xy.shape[0]
        products = [xp.zeros(xy.shape[1:], dtype=xy.dtype, device=device(xy)) for _ in range(3)]
        for start in range(0, xy.shape[0], step):
            part = slice(start, min(start + step, xy.shape[0]))
            these = xy[part, :, :]
            for total, others in zip(products, (these, xx[part, :, None], yy[part, None, :]), strict=True):
                total += xp.sum(these * others, axis=0)
        return cls(
            xy=xp.sum(xy, axis=0),
            xx=xp.sum(xx, axis=0),
            yy=xp.sum(yy, axis=0),
            xy_xy=products[0],
            xy_xx=products[1],
            xy_yy=products[2],
            xx_xx=xp.sum(xx * xx, axis=0)[:, None],
            xx_yy=xx.T @ yy,
            yy_yy=xp.sum(yy * yy, axis=0)[None, :],
            permuted=permuted,
        )

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


class MinibatchCKA:
    """Linear CKA of all pairs of layers, streamed over batches of samples (Nguyen et al. 2021).

    Every layer's centred Gram matrix is formed once per batch, in the precision of its features, and all pairs come
    from products of the Grams, in float64. Sums of HSIC are kept and divided once, at the end. Memory is
    layers × n_b²; one batch of all rows gives the CKA of the whole data, exactly, and large ones are worked off in
    blocks, or by cross-products of features where these are cheaper.

    Parameters
    ----------
    debiased
        Accumulate unbiased HSIC, batches weighted by n_b (n_b - 3). With False biased HSIC is accumulated,
        batches weighted by (n_b - 1)², which stays far too high on small batches however many there are.
    permutations
        How many times the samples of y are permuted, within batches, for `p_value`. Needs the Gram matrices of a
        batch in memory.
    seed
        Of the permutations.
    group
        Consecutive rows that come from one image (its positions, say): they are no independent evidence, and standard
        errors and permutations take them together.
    """

    def __init__(self, *, debiased: bool = True, permutations: int = 0, seed: int = 0, group: int = 1) -> None:
        self.debiased = debiased
        self.permutations = check_whole("permutations", permutations, 0)
        self.group = check_whole("group", group, 1)
        self.n_samples = 0
        """Number of rows accumulated so far."""
        self._generator = np.random.default_rng(check_whole("seed", seed, 0))
        self._sums: _Sums | None = None

    def update(self, xs: Sequence[Any], ys: Sequence[Any] | None = None, *, report: Report = silent) -> None:
        """Add one batch: the features of the same n_b samples in every layer of one or two networks.

        A batch of fewer than 4 rows (biased: 2) has no HSIC and is dropped with a warning.

        Parameters
        ----------
        xs, ys
            One array (n_b, n_features) per layer, or anything whose slices `[rows, columns]` are arrays; the same
            number of layers in every batch. Without `ys`, the layers of `xs` are compared with each other.
        report
            Called as `report(done, total)`: with the layers or, where there is no room for their Gram matrices, with
            blocks of these.

        Raises
        ------
        InputError
            When the arrays do not fit together or hold NaN or infinite values; nothing is added then.
        """
        layers, n_x = _checked(list(xs), None if ys is None else list(ys))
        n = layers[0].shape[0]
        if not self._enough(n):
            return
        needed, room = hsic.bytes_of_kernels(layers), hsic.tile_bytes(layers[0][0:1, :])
        if self.permutations or needed <= room:
            if self.permutations and needed > _MOST_PERMUTED * room:
                raise InputError(
                    f"Expected `permutations` to be 0 for {len(layers)} Gram matrices of {n} samples, which do not fit "
                    f"into memory together, but got {self.permutations}; take fewer samples, or compare in batches"
                )
            kernels, floors = hsic.kernels_of(layers, debiased=self.debiased, report=report)
            if ys is None:
                self._update(kernels, floors, None, None)
            else:
                self._update(kernels[:n_x, ...], floors[:n_x], kernels[n_x:, ...], floors[n_x:])
            return
        split = layers[:n_x], None if ys is None else layers[n_x:]
        if all(map(_is_array, layers)) and hsic.prefers_features(
            n, *([X.shape[1] for X in part or layers] for part in split)
        ):
            rows = hsic.feature_row_sums(*split, debiased=self.debiased)
        else:
            rows = hsic.tiled_row_sums(*split, debiased=self.debiased, report=report)
        self._add(_Sums.of(rows, rows.xy[:0, ...], self.group), n)

    def update_grams(self, xs: Array, ys: Array | None = None, *, eps: float = 2.0**-23) -> None:
        """Add one batch by its Gram matrices.

        Parameters
        ----------
        xs, ys
            (n_layers, n_b, n_b), float64 and finite, of features that may but need not be centred.
        eps
            Machine epsilon of the features that they were formed from; the default is float32's.
        """
        if self._enough(xs.shape[-1]):
            x = hsic.center_kernels(_copied(xs), debiased=self.debiased, eps=eps)
            y = (None, None)
            if ys is not None:
                y = hsic.center_kernels(_copied(ys), debiased=self.debiased, eps=eps)
            self._update(*x, *y)

    def merge(self, other: MinibatchCKA) -> None:
        """Add what `other` accumulated from other batches of the same layers, as if it had been seen here.

        Values and standard errors are those of one stream. Seeds may differ, and should where there are permutations:
        those of `other` are drawn from its own.

        Raises
        ------
        InputError
            When `other` differs in `debiased`, `permutations` or `group`, or holds other layers; nothing is added then.
        """
        for name in ("debiased", "permutations", "group"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise InputError(
                    f"Expected `other` to have `{name}` {ours!r} like this accumulator but got {theirs!r}; make both "
                    "with the same settings"
                )
        if other._sums is not None:
            self._add(other._sums, other.n_samples)

    def on_host(self) -> MinibatchCKA:
        """Return the same with sums in NumPy, to be sent to another process."""
        found = copy.copy(self)
        if self._sums is not None:
            found._sums = _Sums(*(to_numpy(getattr(self._sums, field.name)) for field in fields(_Sums)))
        return found

    def result(self) -> Array:
        """Return the CKA of all pairs, (n_layers_x, n_layers_y) in float64; NaN, with a warning, where undefined.

        Raises
        ------
        InputError
            When no batch has been accumulated.
        """
        sums, scale, undefined = self._scaled()
        xp = array_namespace(scale)
        if xp.any(undefined):
            count = int(xp.sum(xp.astype(undefined, xp.int64)))
            warnings.warn(
                f"linear CKA is NaN for {count} of {math.prod(sums.xy.shape)} layer pairs: a layer has zero "
                "self-HSIC, and constant features have no similarity to anything",
                TransferscopeWarning,
                stacklevel=2,
            )
        return sums.xy / scale

    def standard_error(self) -> Array:
        """Return the standard error of every cell of `result` over samples; NaN where that is undefined.

        The infinitesimal jackknife: HSIC is a U-statistic whose first-order dependence on sample i is twice its
        row r_i = Σ_j K̃_ij L̃_ij, and CKA is a ratio of three of them. It says how much the value would change with
        other images of the same kind; for unrelated layers, where the first order vanishes, it is too large by
        about √2.

        Raises
        ------
        InputError
            When no batch has been accumulated.

        References
        ----------
        Efron (1982), The Jackknife, the Bootstrap and Other Resampling Plans; Song et al. (2012), Feature Selection
        via Dependence Maximization, for the first-order term.
        """
        sums, scale, _ = self._scaled()
        xp = array_namespace(scale)
        value = sums.xy / scale
        self_x, self_y = self._selves()
        # The sum over i of (2 r_xy / scale - value (r_xx / self_x + r_yy / self_y))², multiplied out.
        variance = (
            4 * sums.xy_xy / scale**2
            - 4 * value / scale * (sums.xy_xx / self_x + sums.xy_yy / self_y)
            + value**2 * (sums.xx_xx / self_x**2 + sums.yy_yy / self_y**2 + 2 * sums.xx_yy / (self_x * self_y))
        )
        images = self.n_samples // self.group
        return xp.sqrt(xp.where(variance > 0, variance, xp.zeros_like(variance)) * images / (images - 1))

    def p_value(self) -> Array:
        """Return the share (1 + b) / (1 + B) of permutations of the samples of y whose HSIC with x is as large.

        Small values say that two layers are more similar than unrelated ones; identity is no hypothesis here. Samples
        are permuted within their batches, the same way in all layers.

        Raises
        ------
        InputError
            When no batch has been accumulated, or without permutations.
        """
        if not self.permutations:
            raise InputError("Expected `permutations` to be at least 1 for a p-value but got 0; say how many")
        sums, scale, undefined = self._scaled()
        xp = array_namespace(sums.xy)
        # Permutations that change nothing are as large, whatever the order of summing makes of it.
        as_large = sums.permuted >= (sums.xy - _ROUNDING * scale)[None, :, :]
        above = xp.sum(xp.astype(as_large, xp.float64), axis=0)
        share = (1 + above) / (1 + self.permutations)
        return xp.where(undefined, xp.full_like(share, math.nan), share)

    def self_hsic(self) -> tuple[Array, Array]:
        """Return the sum of every layer's HSIC with itself, (n_layers_x,) and (n_layers_y,).

        Raises
        ------
        InputError
            When no batch has been accumulated.
        """
        sums, _, _ = self._scaled()
        return sums.xx, sums.yy

    def _enough(self, n: int) -> bool:
        smallest = 4 if self.debiased else 2
        if n < smallest:
            warnings.warn(
                f"a batch of {n} rows was left out of the CKA: HSIC needs at least {smallest}; "
                "its samples count for nothing",
                TransferscopeWarning,
                stacklevel=3,
            )
        return n >= smallest

    def _update(self, x: Array, floors_x: Array, y: Array | None, floors_y: Array | None) -> None:
        rows = hsic.row_sums(x, floors_x, y, floors_y)
        self._add(_Sums.of(rows, self._permuted(x, x if y is None else y), self.group), x.shape[-1])

    def _permuted(self, x: Array, y: Array) -> Array:
        xp = array_namespace(x)
        if not self.permutations:
            return xp.zeros((0, x.shape[0], y.shape[0]), dtype=xp.float64)
        x, y = (xp.astype(each, xp.float64, copy=False) for each in (x, y))
        flat = xp.reshape(x, (x.shape[0], -1))
        products = []
        for _ in range(self.permutations):
            images = self._generator.permutation(x.shape[-1] // self.group)
            order = from_numpy((images[:, None] * self.group + np.arange(self.group)).reshape(-1), like=x)
            shuffled = xp.take(xp.take(y, order, axis=1), order, axis=2)
            products.append(flat @ xp.reshape(shuffled, (y.shape[0], -1)).T)
        return xp.stack(products)

    def _selves(self) -> tuple[Array, Array]:
        """Self-HSIC of each layer as a column for x and a row for y; NaN where it is zero."""
        assert self._sums is not None
        xp = array_namespace(self._sums.xx)
        xx, yy = (xp.where(each > 0, each, xp.full_like(each, math.nan)) for each in (self._sums.xx, self._sums.yy))
        return xx[:, None], yy[None, :]

    def _scaled(self) -> tuple[_Sums, Array, Array]:
        if self._sums is None:
            raise InputError("Expected at least one batch large enough before result(), but got none; call update()")
        xp = array_namespace(self._sums.xy)
        self_x, self_y = self._selves()
        scale = xp.sqrt(self_x) * xp.sqrt(self_y)
        return self._sums, scale, xp.isnan(scale)

    def _add(self, sums: _Sums, n_samples: int) -> None:
        if self._sums is not None:
            if sums.xy.shape != self._sums.xy.shape:
                raise InputError(
                    f"Expected the same layers in every batch, {tuple(self._sums.xy.shape)} so far, but got "
                    f"{tuple(sums.xy.shape)}; use one accumulator per pair of networks"
                )
            array_namespace(self._sums.xy, sums.xy)
            sums = self._sums + sums
        self._sums = sums
        self.n_samples += n_samples


def _copied(grams: Array) -> Array:
    xp = array_namespace(grams)
    found = xp.empty(grams.shape, dtype=grams.dtype, device=device(grams))
    found[...] = grams
    return found


def _is_array(X: Any) -> bool:
    return hasattr(X, "__array_namespace__") or hasattr(X, "dtype")


def _checked(xs: list[Any], ys: list[Any] | None) -> tuple[list[Any], int]:
    """Return all layers, checked, and how many of them are of x."""
    if not xs or (ys is not None and not ys):
        raise InputError("Expected `xs` and `ys` to hold one array per layer but got none; pass at least one")
    named = [(f"xs[{i}]", X) for i, X in enumerate(xs)] + [(f"ys[{i}]", Y) for i, Y in enumerate(ys or ())]
    if arrays := [X for _, X in named if _is_array(X)]:
        array_namespace(*arrays)
    layers = [check_features(X, name) if _is_array(X) else X for name, X in named]
    n = layers[0].shape[0]
    for (name, _), X in zip(named, layers, strict=True):
        if X.shape[0] != n:
            raise InputError(
                f"Expected all layers of a batch to have the same n_samples but got {n} in xs[0] "
                f"and {X.shape[0]} in {name}; row i of all must come from the same image"
            )
    return layers, len(xs)
