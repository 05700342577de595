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

CACHED = 2**18
"""Numbers that are worked on at a time on the host, where its cache holds them."""


def tile_bytes(like: Array) -> int:
    """Bytes that blocks may take where the array `like` is."""
    return max(TILE_BYTES, memory_of_device(like) // _SHARE_OF_DEVICE)


def bytes_of_kernels(layers: Sequence[Any]) -> int:
    """Bytes that the kernels of features (n, n_features) take together."""
    dtype = _dtype_of_kernels(layers)
    return array_namespace(layers[0][0:1, :]).finfo(dtype).bits // 8 * layers[0].shape[0] ** 2 * len(layers)


class RowSums(NamedTuple):
    """Per sample i, Σ_j K̃_ij L̃_ij of centred kernels K̃ and L̃: summed over i they are HSIC up to a factor."""

    xy: Array
    """Of each pair of layers, (n_samples, n_layers_x, n_layers_y), float64."""
    xx: Array
    """Of each layer of x with itself, (n_samples, n_layers_x)."""
    yy: Array
    """Of each layer of y with itself, (n_samples, n_layers_y)."""


def kernels_of(layers: Sequence[Any], *, debiased: bool, report: Report = silent) -> tuple[Array, Array]:
    """Make what `center_kernels` gives from features (n, n_features), arrays of one library or features on disk.

    Kernels are in the precision of the features, float64 where these are on disk or of several.

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
    eps = max(float(xp.finfo(X[0:1, :].dtype).eps) for X in layers)
    kernels = xp.empty((len(layers), n, n), dtype=_dtype_of_kernels(layers), device=device(first))

    def make(part: slice) -> tuple[slice, Array]:
        for i in range(part.start, part.stop):
            kernels[i, :, :] = _gram(layers[i])
        _check_squares(bool(xp.all(xp.isfinite(_diagonals(kernels[part, :, :])))))
        return part, center_kernels(kernels[part, :, :], debiased=debiased, eps=eps)[1]

    # On a GPU all of them in a few launches; features on disk are read by one thread.
    parts = list(_slices(len(layers), max(1, CACHED // n**2) if is_numpy_array(first) else len(layers)))
    threads = suited_to(n, len(parts)) if all(map(is_numpy_array, layers)) else nullcontext(1)
    floors = []
    with threads as at_once:
        for part, found in side_by_side(make, parts, at_once):
            floors.append(found)
            report(part.stop, len(layers))
    return kernels, xp.concat(floors)


def center_kernels(grams: Array, *, debiased: bool, eps: float) -> tuple[Array, Array]:
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

    Returns
    -------
    kernels, floors
        The matrices, and per layer the self-HSIC up to which rounding alone explains it: structure without any HSIC
        (a single sample that differs, say) leaves some behind, which must not be divided by itself.
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
    return grams, floors


def row_sums(kernels_x: Array, floors_x: Array, kernels_y: Array | None, floors_y: Array | None) -> RowSums:
    """Multiply what `center_kernels` gives of one network or, where `kernels_y` is given, of two."""
    return _without_rounding(_products(kernels_x, kernels_y), floors_x, floors_x if floors_y is None else floors_y)


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
    n_x = len(xs)
    n = xs[0].shape[0]
    xp = array_namespace(layers[0].norms)
    n_y = len(ys or xs)
    shapes = (n, n_x, n_y), (n, n_x), (n, n_y)
    sums = [xp.zeros(shape, dtype=xp.float64, device=layers[0].device) for shape in shapes]

    def add(rows: slice, kernels: Array) -> None:
        found = _products(kernels[:n_x, :, :], None if ys is None else kernels[n_x:, :, :])
        for total, part in zip(sums, found, strict=True):
            total[rows, ...] += part

    side = max(SMALLEST_TILE, int((layers[0].room / (16 * len(layers))) ** 0.5))
    blocks = list(_slices(n, side))
    dtype = _dtype_of_kernels([*xs, *(ys or ())])
    tiles = [(rows, columns) for i, rows in enumerate(blocks) for columns in blocks[i:]]
    for done, (rows, columns) in enumerate(tiles, 1):
        kernels = xp.stack([xp.astype(layer.block(rows, columns, debiased), dtype, copy=False) for layer in layers])
        add(rows, kernels)
        if columns != rows:
            add(columns, xp.matrix_transpose(kernels))
        report(done, len(tiles))
    floors = xp.stack([(n * layer.eps) ** 2 * xp.sum(layer.norms**2) for layer in layers])
    return _without_rounding(RowSums(*sums), floors[:n_x], floors[n_x:] if ys else floors)


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
        # Less exact than `center` and quicker: what is left of the mean goes when the kernel is centred.
        centred = X - X[:1, :]
        centred -= xp.mean(centred, axis=0, keepdims=True)
        return row_products(centred, centred)
    everything = slice(0, X.shape[0])
    return _Tiled(X).block(everything, everything, debiased=False)


def prefers_features(n: int, widths_x: Sequence[int], widths_y: Sequence[int]) -> bool:
    """Whether cross-products of features take fewer operations than Gram matrices and their products."""
    features = 4 * n * sum(widths_x) * sum(widths_y)
    return features < n**2 * (sum(widths_x) + sum(widths_y) + 2 * len(widths_x) * len(widths_y))


def _products(kernels_x: Array, kernels_y: Array | None) -> RowSums:
    """Row sums, float64, from kernels (n_layers, rows, columns) of one network or of two.

    Float64 also of float32 kernels: many equal products, as where images have few different features, drift in float32.
    """
    xp = array_namespace(kernels_x)
    sides = [kernels_x] if kernels_y is None else [kernels_x, kernels_y]
    n_rows, width = kernels_x.shape[1:]
    at_once = CACHED if is_numpy_array(kernels_x) else tile_bytes(kernels_x) // 8
    parts = []
    for rows in _slices(n_rows, max(1, at_once // (width * sum(side.shape[0] for side in sides)))):
        wide = [xp.astype(side[:, rows, :], xp.float64, copy=False) for side in sides]
        xy = xp.permute_dims(wide[0], (1, 0, 2)) @ xp.permute_dims(wide[-1], (1, 2, 0))
        if kernels_y is None:
            parts.append((xy, *[xp.linalg.diagonal(xy)] * 2))
        else:
            parts.append((xy, *(xp.vecdot(side, side).T for side in wide)))
    return RowSums(*(xp.concat(each) for each in zip(*parts, strict=True)))


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
        _check_squares(float(xp.max(self.norms)) <= float(xp.finfo(first.dtype).max))
        self._dtype = _dtype_of_kernels([X])

    def _centred(self, rows: slice, columns: slice) -> Array:
        return (self._X[rows, columns] - self._shift[:, columns]) - self._mean[:, columns]

    def block(self, rows: slice, columns: slice, debiased: bool) -> Array:
        xp = array_namespace(self.norms)
        n, p = self._X.shape
        height, width = rows.stop - rows.start, columns.stop - columns.start
        kernel = xp.zeros((height, width), dtype=self._dtype, device=self.device)
        for part in _slices(p, max(64, self.room // (16 * (height + width)))):
            left = self._centred(rows, part)
            right = left if rows == columns else self._centred(columns, part)
            kernel += xp.astype(row_products(left, right), self._dtype, copy=False)
        if debiased:
            each = self.norms / (n - 2)
            kernel += xp.astype(each[rows, None] - xp.sum(each) / (n - 1), self._dtype)
            kernel += xp.astype(each[None, columns], self._dtype)
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


def _dtype_of_kernels(layers: Sequence[Any]) -> Any:
    xp = array_namespace(layers[0][0:1, :])
    return xp.result_type(*(X.dtype if hasattr(X, "dtype") else xp.float64 for X in layers))


def _check_squares(finite: bool) -> None:
    if not finite:
        raise InputError(
            "Expected features whose squares are finite but those of a layer overflow their dtype, or are NaN; "
            "look at the network they come from, or cast them to float64"
        )


def _diagonals(squares: Array) -> Array:
    """Those of stacked squares (n, k, k), as a view (n, k)."""
    xp = array_namespace(squares)
    n, k = squares.shape[0], squares.shape[-1]
    return xp.reshape(squares, (n, k * k), copy=False)[:, :: k + 1]


def _slices(n: int, step: int) -> Iterator[slice]:
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
