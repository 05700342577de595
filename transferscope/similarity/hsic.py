"""HSIC of all pairs of layers, sample by sample: the sums that streaming CKA and its standard error are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from array_api_compat import device, is_numpy_array

from transferscope.arrays.backend import Array, array_namespace, memory_of_device, row_products
from transferscope.arrays.linalg import center
from transferscope.errors import InputError
from transferscope.runtime.threads import side_by_side, suited_to
from transferscope.similarity.representation import Report, silent

TILE_BYTES = 2**28
"""Bytes that blocks of Gram matrices held at a time may take on the host, and the blocks of features beside them."""

_SHARE_OF_DEVICE = 16
"""On a GPU, where every block costs launches, they may take one in so many of its bytes."""

SMALLEST_TILE = 64
"""Fewest rows of a block."""

_CACHED = 2**18
"""Numbers that are worked on at a time on the host."""

_SHARES = 4
"""Into how many pieces a thread's part of the layers is cut."""


def tile_bytes(like: Array) -> int:
    """Bytes that blocks may take where the array `like` is."""
    return max(TILE_BYTES, memory_of_device(like) // _SHARE_OF_DEVICE)


def bytes_of_kernels(layers: Sequence[Any]) -> int:
    """Bytes that the kernels of features (n, n_features) take together."""
    xp = array_namespace(layers[0][0:1, :])
    dtype = xp.result_type(*(_dtype_of_kernel(X, xp) for X in layers))
    return xp.finfo(dtype).bits // 8 * layers[0].shape[0] ** 2 * len(layers)


class RowSums(NamedTuple):
    """Per sample i, Σ_j K̃_ij L̃_ij of centred kernels K̃ and L̃: summed over i they are HSIC up to a factor."""

    xy: Array
    """Of each pair of layers, (n_samples, n_layers_x, n_layers_y), float64."""
    xx: Array
    """Of each layer of x with itself, (n_samples, n_layers_x)."""
    yy: Array
    """Of each layer of y with itself, (n_samples, n_layers_y)."""


class Kernels(NamedTuple):
    """Centred kernels of the layers of one network."""

    values: Array
    """(n_layers, n, n), float32 or float64; of each layer divided by its scale."""
    scales: Array
    """(n_layers,), float64."""
    floors: Array
    """(n_layers,), float64: the self-HSIC of the values up to which rounding alone explains it. Structure without any
    HSIC (a single sample that differs, say) leaves some behind, which must not be divided by itself."""

    def part(self, layers: slice) -> Kernels:
        """Return those of some layers."""
        return Kernels(self.values[layers, :, :], self.scales[layers], self.floors[layers])


def kernels_of(layers: Sequence[Any], *, debiased: bool, report: Report = silent) -> Kernels:
    """Make the centred kernels of features (n, n_features): arrays of one library and device, or features on disk.

    They are in the precision of the features, scaled so that the largest squared norm of a centred sample is 1: what is
    multiplied fits into float32 whatever the features are.

    Parameters
    ----------
    debiased
        As in `center_kernels`.
    report
        Told of the layers.

    Raises
    ------
    InputError
        When squares of the features are not finite.
    """
    first = layers[0][0:1, :]
    xp = array_namespace(first)
    n = layers[0].shape[0]
    dtype = xp.result_type(*(_dtype_of_kernel(X, xp) for X in layers))
    eps = max(float(xp.finfo(X[0:1, :].dtype).eps) for X in layers)
    values = xp.empty((len(layers), n, n), dtype=dtype, device=device(first))

    def make(part: slice) -> tuple[Array, Array]:
        these = values[part, :, :]
        for i in range(part.start, part.stop):
            values[i, :, :] = _gram(layers[i])
        largest = xp.max(_diagonals(these), axis=1)
        _check_finite(largest)
        largest = xp.where(largest > 0, largest, xp.ones_like(largest))
        these /= largest[:, None, None]
        return xp.astype(largest, xp.float64), center_kernels(these, debiased=debiased, eps=eps).floors

    # On the host as many layers at a time as its cache holds; on a GPU all of them, in a few launches.
    on_host = is_numpy_array(first)
    parts = list(_slices(len(layers), max(1, _CACHED // n**2) if on_host else len(layers)))
    made: list[tuple[Array, Array]] = []
    with suited_to(n) if on_host else nullcontext(1) as at_once:
        # A single small layer takes no longer than it takes to hand it to a thread.
        shares = _slices(len(parts), -(-len(parts) // (_SHARES * at_once)))
        for some in side_by_side(lambda share: [make(part) for part in parts[share]], shares, at_once):
            made += some
            report(parts[len(made) - 1].stop, len(layers))
    scales, floors = (xp.concat(each) for each in zip(*made, strict=True))
    return Kernels(values, scales, floors)


def center_kernels(grams: Array, *, debiased: bool, eps: float) -> Kernels:
    """Centre stacked Gram matrices (n_layers, n, n), finite, of features that may but need not be centred.

    Parameters
    ----------
    grams
        Contiguous, float32 or float64; written over.
    debiased
        U-centre: the sum of products of two such matrices is n (n - 3) times the unbiased HSIC of Song et al.
        (2012). Otherwise centre doubly.
    eps
        Machine epsilon of the features.
    """
    xp = array_namespace(grams)
    n = grams.shape[-1]
    diagonals = _diagonals(grams)
    means = xp.mean(grams, axis=2)
    mean = xp.mean(means, axis=1, keepdims=True)
    norms = xp.astype(diagonals - 2 * means + mean, xp.float64)
    floors = (n * eps) ** 2 * xp.sum(norms**2, axis=1)
    if debiased:
        diagonals[...] = 0.0
        means = xp.sum(grams, axis=2) / (n - 2)
        mean = xp.sum(means, axis=1, keepdims=True) / (n - 1)
    grams -= (means - mean)[:, :, None]
    grams -= means[:, None, :]
    if debiased:
        diagonals[...] = 0.0
    return Kernels(grams, xp.ones_like(floors), floors)


def row_sums(x: Kernels, y: Kernels | None) -> RowSums:
    """Multiply the kernels of one network or, where `y` is given, of two."""
    xp = array_namespace(x.values)
    sides = (x,) if y is None else (x, y)
    xy, *selves = _products([each.values for each in sides], [each.scales for each in sides])
    xx, yy = selves or [xp.linalg.diagonal(xy)] * 2
    return _without_rounding(RowSums(xy, xx, yy), *(each.floors * each.scales**2 for each in (x, y or x)))


def tiled_row_sums(xs: Sequence[Any], ys: Sequence[Any] | None, *, debiased: bool, report: Report = silent) -> RowSums:
    """Do the same from features, never holding more than blocks of the Gram matrices.

    Parameters
    ----------
    xs, ys
        Per layer something (n, n_features) whose slices `[rows, columns]` are arrays: an array, or features on disk.
    debiased
        As in `center_kernels`.
    report
        Told of the blocks.
    """
    layers = [_Tiled(X) for X in (*xs, *(ys or ()))]
    n_x, n = len(xs), xs[0].shape[0]
    xp = array_namespace(layers[0].norms)
    dtype = xp.result_type(*(layer.dtype for layer in layers))
    scales = xp.stack([layer.scale for layer in layers])
    floors = xp.stack([(n * layer.eps) ** 2 * xp.sum(layer.norms**2) for layer in layers])
    sides = [slice(0, n_x)] if ys is None else [slice(0, n_x), slice(n_x, len(layers))]
    shapes = [(n, n_x, n_x)] if ys is None else [(n, n_x, len(ys)), (n, n_x), (n, len(ys))]
    sums = [xp.zeros(shape, dtype=xp.float64, device=layers[0].device) for shape in shapes]

    def add(rows: slice, kernels: Array) -> None:
        found = _products([kernels[side, :, :] for side in sides], [scales[side] for side in sides])
        for total, part in zip(sums, found, strict=True):
            total[rows, ...] += part

    height = max(SMALLEST_TILE, int((layers[0].room / (16 * len(layers))) ** 0.5))
    blocks = list(_slices(n, height))
    tiles = [(rows, columns) for i, rows in enumerate(blocks) for columns in blocks[i:]]
    for done, (rows, columns) in enumerate(tiles, 1):
        kernels = xp.stack([xp.astype(layer.block(rows, columns, debiased), dtype, copy=False) for layer in layers])
        add(rows, kernels)
        if columns != rows:
            add(columns, xp.matrix_transpose(kernels))
        report(done, len(tiles))
    xy, *selves = sums
    xx, yy = selves or [xp.linalg.diagonal(xy)] * 2
    return _without_rounding(RowSums(xy, xx, yy), floors[sides[0]], floors[sides[-1]])


def feature_row_sums(xs: Sequence[Array], ys: Sequence[Array] | None, *, debiased: bool) -> RowSums:
    """Do the same by way of cross-products of features (n, n_features), which is cheaper for many samples.

    With x, y centred rows of X, Y and d, e their squared norms, K_ij = xᵢ·xⱼ; the rows of K sum to zero, so that
    K̃_ij = K_ij + (d_i + d_j) / (n - 2) - Σd / ((n - 1) (n - 2)) off the diagonal, and every sum over j of the
    product K̃_ij L̃_ij is one over features.
    """
    xp = array_namespace(xs[0])
    xs, ys = ([center(xp.astype(X, xp.float64)) for X in layers] for layers in (xs, ys or ()))
    xy = xp.stack([xp.stack([_feature_rows(X, Y, debiased) for Y in ys or xs], axis=1) for X in xs], axis=1)
    if ys:
        xx, yy = (xp.stack([_feature_rows(X, X, debiased) for X in layers], axis=1) for layers in (xs, ys))
    else:
        xx = yy = xp.linalg.diagonal(xy)
    rounding = xs[0].shape[0] * float(xp.finfo(xp.float64).eps)
    floors = [xp.stack([rounding * xp.sum((X.T @ X) ** 2) for X in layers]) for layers in (xs, ys or xs)]
    return _without_rounding(RowSums(xy, xx, yy), *floors)


def _gram(X: Any) -> Array:
    """Gram matrix (n, n) of nearly centred features: of an array in its precision, of features on disk in float64."""
    if hasattr(X, "dtype"):
        xp = array_namespace(X)
        # What rounding leaves of the mean is common to all rows, and goes when the kernel is centred.
        centred = X - X[:1, :]
        centred -= xp.mean(centred, axis=0, keepdims=True)
        return row_products(centred, centred)
    everything = slice(0, X.shape[0])
    tiled = _Tiled(X)
    return tiled.block(everything, everything, debiased=False) * tiled.scale


def prefers_features(n: int, widths_x: Sequence[int], widths_y: Sequence[int]) -> bool:
    """Whether cross-products of features take fewer operations than Gram matrices and their products."""
    features = 4 * n * sum(widths_x) * sum(widths_y)
    return features < n**2 * (sum(widths_x) + sum(widths_y) + 2 * len(widths_x) * len(widths_y))


def _products(kernels: Sequence[Array], scales: Sequence[Array]) -> list[Array]:
    """Row sums from kernels (n_layers, rows, columns), divided by their scales, of one network or of two.

    Of one (rows, n_layers, n_layers), whose diagonal is that of the layers with themselves; of two as in `RowSums`.
    """
    xp = array_namespace(*kernels)
    x, y = kernels[0], kernels[-1]
    products = xp.permute_dims(x, (1, 0, 2)) @ xp.permute_dims(y, (1, 2, 0))
    xy = products * (scales[0][:, None] * scales[-1][None, :])
    if len(kernels) == 1:
        return [xy]
    return [xy, *(xp.vecdot(values, values).T * scale**2 for values, scale in zip(kernels, scales, strict=True))]


class _Tiled:
    """Features of one layer, read in blocks: what one pass over them tells, and blocks of their centred kernel."""

    def __init__(self, X: Any) -> None:
        self._X = X
        n, p = X.shape
        first = X[0:1, :]
        xp = array_namespace(first)
        self.device = device(first)
        self.eps = float(xp.finfo(first.dtype).eps)
        self._shift = first
        mean = xp.zeros((1, p), dtype=xp.float64, device=self.device)
        self.room = tile_bytes(first)
        step = max(1, self.room // (24 * p))
        for rows in _slices(n, step):
            mean += xp.sum(X[rows, :] - first, axis=0, keepdims=True, dtype=xp.float64) / n
        self._mean = xp.astype(mean, first.dtype)
        self.norms = xp.concat(
            [xp.sum(xp.astype(self._centred(rows, slice(None)), xp.float64) ** 2, axis=1) for rows in _slices(n, step)]
        )
        self.dtype = _dtype_of_kernel(X, xp)
        largest = xp.max(self.norms)
        _check_finite(xp.astype(largest, self.dtype))
        self.scale = xp.where(largest > 0, largest, xp.ones_like(largest))

    def _centred(self, rows: slice, columns: slice) -> Array:
        return (self._X[rows, columns] - self._shift[:, columns]) - self._mean[:, columns]

    def block(self, rows: slice, columns: slice, debiased: bool) -> Array:
        """Kernel of some samples with others, divided by the scale; features on disk are summed up in float64."""
        xp = array_namespace(self.norms)
        n, p = self._X.shape
        height, width = rows.stop - rows.start, columns.stop - columns.start
        kernel = xp.zeros((height, width), dtype=self.dtype, device=self.device)
        for part in _slices(p, max(64, self.room // (16 * (height + width)))):
            left = self._centred(rows, part)
            right = left if rows == columns else self._centred(columns, part)
            kernel += xp.astype(row_products(left, right), self.dtype, copy=False)
        kernel /= xp.astype(self.scale, self.dtype)
        if debiased:
            each = self.norms / self.scale / (n - 2)
            added = each - xp.sum(each) / (n - 1)
            kernel += xp.astype(added[rows, None], self.dtype)
            kernel += xp.astype(each[None, columns], self.dtype)
            if rows == columns:
                _diagonals(kernel[None, :, :])[...] = 0.0
        return kernel


def _feature_rows(X: Array, Y: Array, debiased: bool) -> Array:
    xp = array_namespace(X, Y)
    n = X.shape[0]
    products = xp.vecdot(X @ (X.T @ Y), Y)
    if not debiased:
        return products
    d, e = xp.vecdot(X, X), xp.vecdot(Y, Y)
    each, total_d, total_e = 1 / (n - 2), xp.sum(d), xp.sum(e)
    c, f = each * total_d / (n - 1), each * total_e / (n - 1)
    a, b = each * d - c, each * e - f
    crossed = d * e
    k_with_e = X @ (X.T @ e) - crossed
    l_with_d = Y @ (Y.T @ d) - crossed
    return (
        products
        - crossed
        + each * (k_with_e + l_with_d)
        - b * d
        - a * e
        + (n - 1) * a * b
        + each * (a * (total_e - e) + b * (total_d - d))
        + each**2 * (xp.sum(crossed) - crossed)
    )


def _without_rounding(rows: RowSums, floors_x: Array, floors_y: Array) -> RowSums:
    """Set to zero what layers contribute whose self-HSIC is no larger than the rounding of what it is left of."""
    xp = array_namespace(rows.xy)
    real_x = xp.astype(xp.sum(rows.xx, axis=0) > floors_x, xp.float64)
    real_y = xp.astype(xp.sum(rows.yy, axis=0) > floors_y, xp.float64)
    # On the host nearly always all are: a GPU is not asked, which would wait for everything before.
    if is_numpy_array(real_x) and xp.all(real_x > 0) and xp.all(real_y > 0):
        return rows
    return RowSums(rows.xy * real_x[None, :, None] * real_y[None, None, :], rows.xx * real_x, rows.yy * real_y)


def _diagonals(squares: Array) -> Array:
    """Those of stacked squares (n, k, k), as a view (n, k)."""
    xp = array_namespace(squares)
    n, k = squares.shape[0], squares.shape[-1]
    return xp.reshape(squares, (n, k * k), copy=False)[:, :: k + 1]


def _dtype_of_kernel(X: Any, xp: Any) -> Any:
    return X.dtype if hasattr(X, "dtype") else xp.float64


def _check_finite(norms: Array) -> None:
    xp = array_namespace(norms)
    if not xp.all(xp.isfinite(norms)):
        raise InputError(
            "Expected features whose squares are finite but those of a layer overflow their dtype; "
            "look at the network they come from, or cast them to float64"
        )


def _slices(n: int, step: int) -> Iterator[slice]:
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
