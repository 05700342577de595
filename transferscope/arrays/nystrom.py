"""Gaussian Nyström kernel ridge regression: the coefficients α of M centres with (KₙₘᵀKₙₘ + λ n Kₘₘ) α = KₙₘᵀY.

K(x, c) = exp(-‖x - c‖² / (2 σ²)) between n samples and M centres; Y are the targets, λ is the penalty. Kernel values
are made in blocks of samples: beside the features, matrices of M rows and columns are held, and what `KEPT` allows.

The system is never solved as it stands, for KₙₘᵀKₙₘ has the squared condition number of a kernel matrix that is nearly
singular already. With the eigenvectors U and eigenvalues s of Kₘₘ, of which those at rounding level are dropped, the
features Z = Kₙₘ U s^(-1/2) carry the whole model: in them it is a plain ridge regression.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

from array_api_compat import device

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import check_features, gram, squared_distances, squared_distances_between
from transferscope.errors import InputError, TransferscopeWarning, check_whole

BLOCK = 2**22
"""Numbers that a block of samples, or of kernel values, may hold (32 MiB in float64)."""

KEPT = 2**27
"""Kernel values that conjugate gradients keep from one iteration to the next (1 GiB); more are made anew each time."""


class NystromSystem(NamedTuple):
    """What `fit` finds for one σ; each penalty then takes one solve."""

    whitening: Array | None
    """U s^(-1/2), (n_centers, rank). None where the samples are the centres: then α = (K + λ n)⁻¹ Y."""
    scatter: Array
    """ZᵀZ, (rank, rank); or K."""
    products: Array
    """ZᵀY, (rank, n_targets); or Y."""
    n_samples: int

    def solve(self, penalty: float) -> Array:
        """Return the coefficients of the centres, (n_centers, n_targets) float64, for a penalty λ > 0."""
        xp = array_namespace(self.scatter)
        _require_positive("penalty", penalty)
        identity = xp.eye(self.scatter.shape[0], dtype=xp.float64, device=device(self.scatter))
        weights = xp.linalg.solve(self.scatter + penalty * self.n_samples * identity, self.products)
        return weights if self.whitening is None else self.whitening @ weights


def fit(features: Array, targets: Array, centers: Array, sigma: float) -> NystromSystem:
    """Sum up all that the samples say, in one pass, so that any number of penalties can be solved for.

    Time grows with n_samples n_centers (n_features + 2 n_centers). Centres that are the samples, in the same order,
    make it plain kernel ridge regression, which takes less.

    Parameters
    ----------
    features
        (n_samples, n_features), float32 or float64; all work is in float64.
    targets
        (n_samples, n_targets), one-hot for classification.
    centers
        (n_centers, n_features), usually some of the samples. The same one several times is as good as once.
    sigma
        Width of the kernel in units of the features, positive. Where it is infinite all kernel values are 1.

    Raises
    ------
    InputError
        When an array has another shape, NaN or infinite values, or `sigma` is not positive.
    """
    xp = array_namespace(features, targets, centers)
    problem = _Problem.of(features, centers, sigma)
    targets = _checked_targets(targets, features)
    if features.shape == centers.shape and xp.all(features == centers):
        return NystromSystem(None, problem.center_kernel(), xp.astype(targets, xp.float64), features.shape[0])
    values, vectors = _principal(problem.center_kernel())
    whitening = vectors / xp.sqrt(values)
    scatter = xp.zeros((values.shape[0], values.shape[0]), dtype=xp.float64, device=device(values))
    products = xp.zeros((values.shape[0], targets.shape[1]), dtype=xp.float64, device=device(values))
    for rows, kernel in problem.blocks():
        # Whitened first, row by row: a sum of KᵀK would lose the digits that whitening then magnifies.
        mapped = kernel @ whitening
        scatter = scatter + mapped.T @ mapped
        products = products + mapped.T @ xp.astype(targets[rows, :], xp.float64)
    return NystromSystem(whitening, scatter, products, features.shape[0])


def conjugate_gradient(
    features: Array,
    targets: Array,
    centers: Array,
    sigma: float,
    penalty: float,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 100,
) -> tuple[Array, int]:
    """Solve for one penalty by preconditioned conjugate gradients, all targets side by side.

    The preconditioner is FALKON's, with an eigendecomposition in place of its two Cholesky factors: it holds the
    kernel of the centres for that of all samples. The more samples, the sooner this beats `fit`.

    Parameters
    ----------
    features, targets, centers, sigma
        As in `fit`.
    penalty
        λ, positive.
    tolerance
        Stop when the residual of each target, preconditioned, is at most this share of its right-hand side.
    max_iterations
        Stop after so many in any case, with a warning.

    Returns
    -------
    tuple
        Coefficients of the centres, (n_centers, n_targets) float64, and the number of iterations.

    References
    ----------
    Rudi, Carratino and Rosasco (2017), FALKON: An optimal large scale kernel method.
    """
    xp = array_namespace(features, targets, centers)
    for name, value in (("penalty", penalty), ("tolerance", tolerance), ("max_iterations", max_iterations)):
        _require_positive(name, value)
    check_whole("max_iterations", max_iterations, 1)
    problem = _Problem.of(features, centers, sigma)
    targets = _checked_targets(targets, features)
    values, vectors = _principal(problem.center_kernel())
    n, spread = features.shape[0], values / centers.shape[0] + penalty
    preconditioner = vectors / xp.sqrt(values * spread)
    shrink = (penalty / spread)[:, None]
    blocks = list(problem.blocks()) if n * centers.shape[0] <= KEPT else None

    def system(weights: Array) -> Array:
        coefficients = preconditioner @ weights
        image = xp.zeros_like(coefficients)
        for _, kernel in problem.blocks() if blocks is None else blocks:
            image = image + kernel.T @ (kernel @ coefficients)
        return preconditioner.T @ image / n + shrink * weights

    image = xp.zeros((centers.shape[0], targets.shape[1]), dtype=xp.float64, device=device(values))
    for rows, kernel in problem.blocks() if blocks is None else blocks:
        image = image + kernel.T @ xp.astype(targets[rows, :], xp.float64)
    right = preconditioner.T @ image / n
    weights, iterations, reached = _iterate(system, right, tolerance, max_iterations)
    if reached > tolerance:
        warnings.warn(
            f"Conjugate gradients stopped after {iterations} iterations with a relative residual of {reached:.1e}, "
            f"above the tolerance {tolerance:.1e}; allow more, raise the penalty, or solve directly",
            TransferscopeWarning,
            stacklevel=2,
        )
    return preconditioner @ weights, iterations


def _iterate(
    system: Callable[[Array], Array], right: Array, tolerance: float, max_iterations: int
) -> tuple[Array, int, float]:
    """Solve system(x) = `right` column by column: x, the number of iterations, and the largest relative residual."""
    xp = array_namespace(right)
    solution, residual, direction = xp.zeros_like(right), right, right
    squares = xp.sum(residual**2, axis=0)
    whole, zeros = xp.where(squares > 0, squares, xp.ones_like(squares)), xp.zeros_like(squares)
    iterations = 0
    while (reached := math.sqrt(float(xp.max(squares / whole)))) > tolerance and iterations < max_iterations:
        # Columns that are solved stand still: going on would divide by what rounding left of them.
        active = squares > tolerance**2 * whole
        moved = system(direction)
        step = xp.where(active, squares, zeros) / xp.where(active, xp.sum(direction * moved, axis=0), whole)
        solution = solution + step * direction
        residual = residual - step * moved
        before, squares = squares, xp.sum(residual**2, axis=0)
        direction = residual + xp.where(active, squares, zeros) / xp.where(active, before, whole) * direction
        iterations += 1
    return solution, iterations, reached


def predict(features: Array, centers: Array, sigma: float, coefficients: Array) -> Array:
    """Return the values of the regression, (n_samples, n_targets) float64, at other samples.

    Parameters
    ----------
    features
        (n_samples, n_features).
    centers, sigma
        As in `fit`.
    coefficients
        (n_centers, n_targets), as `NystromSystem.solve` or `conjugate_gradient` return them.
    """
    xp = array_namespace(features, centers, coefficients)
    problem = _Problem.of(features, centers, sigma)
    return xp.concat([kernel @ coefficients for _, kernel in problem.blocks()], axis=0)


class _Problem(NamedTuple):
    """Features and centres of one kernel, checked."""

    features: Array
    origin: Array
    """Mean of the centres, (1, n_features) float64: seen from there, points are not large numbers that cancel."""
    centers: Array
    """Centres seen from `origin`, in units of σ, (n_centers, n_features) float64."""
    sigma: float

    @classmethod
    def of(cls, features: Array, centers: Array, sigma: float) -> _Problem:
        xp = array_namespace(features, centers)
        features, centers = check_features(features, "features"), check_features(centers, "centers")
        if features.shape[1] != centers.shape[1]:
            raise InputError(
                f"Expected `features` and `centers` to have the same n_features but got {tuple(features.shape)} and "
                f"{tuple(centers.shape)}; take both from the same layer"
            )
        _require_positive("sigma", sigma, allow_infinite=True)
        centers = xp.astype(centers, xp.float64)
        origin = xp.mean(centers, axis=0, keepdims=True)
        return cls(features, origin, (centers - origin) / sigma, sigma)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield rows of the features and their kernel values with all centres, (rows, n_centers) float64."""
        xp = array_namespace(self.features, self.centers)
        step = max(1, BLOCK // max(self.centers.shape))
        for start in range(0, self.features.shape[0], step):
            rows = slice(start, min(start + step, self.features.shape[0]))
            block = (xp.astype(self.features[rows, :], xp.float64) - self.origin) / self.sigma
            yield rows, xp.exp(squared_distances_between(block, self.centers) / -2)

    def center_kernel(self) -> Array:
        """Kernel values of the centres with each other, (n_centers, n_centers) float64, symmetric."""
        squares = squared_distances(gram(self.centers))
        return array_namespace(squares).exp(squares / -2)


def _principal(kernel: Array) -> tuple[Array, Array]:
    """Eigenvalues (rank,) and eigenvectors (n_centers, rank) of the kernel of the centres, above rounding level."""
    xp = array_namespace(kernel)
    values, vectors = xp.linalg.eigh(kernel)
    # Ascending: what is dropped comes first.
    noise = values.shape[0] * float(xp.finfo(xp.float64).eps) * values[-1]
    dropped = int(xp.sum(xp.astype(values <= noise, xp.int64)))
    return values[dropped:], vectors[:, dropped:]


def _checked_targets(targets: Array, features: Array) -> Array:
    targets = check_features(targets, "targets")
    if targets.shape[0] != features.shape[0]:
        raise InputError(
            f"Expected `features` and `targets` to have the same n_samples but got {tuple(features.shape)} and "
            f"{tuple(targets.shape)}; row i of both must belong to the same image"
        )
    return targets


def _require_positive(name: str, value: float, *, allow_infinite: bool = False) -> None:
    if not value > 0 or (math.isinf(value) and not allow_infinite):
        raise InputError(f"Expected `{name}` to be positive{'' if allow_infinite else ' and finite'} but got {value!r}")
