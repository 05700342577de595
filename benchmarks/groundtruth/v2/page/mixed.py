"""A linear mixed model fitted by restricted maximum likelihood (Patterson and Thompson 1971), its Gaussian likelihood.

    y = X β + Σ_terms Z u + e,   u of each level ~ N(0, Σ_term),   e_i ~ N(0, residual of its class + known_i)

What depends on the rows is summed once, so that a step costs the same for a thousand rows as for a million; gradients
are torch's, the search is scipy's L-BFGS-B over Cholesky factors, which may become singular.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import qr
from scipy.optimize import minimize

LEAST = 1e-3
"""A residual standard deviation, where that of what the fixed effects leave is 1: rows alike in all must not vanish."""
MEMORY, STEPS = 40, 2000
"""Of the search: pairs of gradients that it keeps, and steps at most."""


@dataclass(frozen=True)
class Term:
    """An effect that is drawn anew for each level: one number, or one for each kind, which may be correlated."""

    name: str
    levels: np.ndarray
    """(n,), what each row belongs to; anything that can be compared."""
    kinds: np.ndarray | None = None
    """(n,), which of the level's numbers a row has; None where there is one."""


@dataclass(frozen=True)
class Fit:
    """What was fitted."""

    covariances: Mapping[str, np.ndarray]
    """Σ of each term, (kinds, kinds)."""
    kinds: Mapping[str, list[str]]
    """The names of the rows of each Σ, in order."""
    residuals: Mapping[str, float]
    """The variance of each class of rows, beyond what was known."""
    log_likelihood: float
    """Restricted; comparable between fits with the same fixed effects."""
    theta: np.ndarray
    """Where another search may begin."""


def fit(
    y: np.ndarray, fixed: np.ndarray, terms: Sequence[Term], classes: np.ndarray, known: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> Fit:  # fmt: skip
    """Fit the variances.

    Parameters
    ----------
    y : numpy.ndarray, (n,)
    fixed : numpy.ndarray, (n, p)
        X; columns that depend on others are left out.
    terms : sequence of Term
    classes : numpy.ndarray, (n,)
        Rows of one class share a residual variance.
    known : numpy.ndarray, (n,), optional
        A variance that each row has beside that; few values, or it takes long.
    start : numpy.ndarray, optional
        `theta` of a fit of the same terms, kinds and classes; of others it is not used.
    """
    design = independent(fixed)
    rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    scale = float(np.sqrt((rest**2).sum() / max(1, len(y) - design.shape[1]))) or 1.0
    known = np.zeros(len(y)) if known is None else known / scale**2
    sums = _Sums(y / scale, design, terms, classes, known)
    theta = sums.start() if start is None or len(start) != len(sums.start()) else start
    options = {"maxcor": MEMORY, "maxiter": STEPS, "maxfun": 2 * STEPS}
    found = minimize(sums.value, theta, jac=True, method="L-BFGS-B", bounds=sums.bounds(), options=options)
    covariances, residuals = sums.variances(torch.from_numpy(found.x))
    return Fit(
        {term.name: (each @ each.T).numpy() * scale**2 for term, each in zip(terms, covariances, strict=True)},
        {term.name: names for term, names in zip(terms, sums.kinds, strict=True)},
        {name: float(each) * scale**2 for name, each in zip(sums.classes, residuals, strict=True)},
        -float(found.fun) - (len(y) - design.shape[1]) * float(np.log(scale)),
        found.x,
    )


def independent(fixed: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the columns."""
    q, r, _ = qr(fixed, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(r))
    return q[:, sizes > 1e-9 * max(sizes[0], 1e-300)]


class _Sums:
    """The cross-products of all columns for each class of rows and known variance, and the likelihood made of them."""

    def __init__(
        self, y: np.ndarray, design: np.ndarray, terms: Sequence[Term], classes: np.ndarray, known: np.ndarray
    ) -> None:
        self.kinds: list[list[str]] = []
        self.levels: list[int] = []
        parts = []
        for term in terms:
            names, level = np.unique(term.levels, return_inverse=True)
            kinds, kind = (
                (np.array([""]), np.zeros(len(y), dtype=int)) if term.kinds is None
                else np.unique(term.kinds, return_inverse=True)
            )  # fmt: skip
            columns = np.zeros((len(y), len(names) * len(kinds)))
            columns[np.arange(len(y)), level * len(kinds) + kind] = 1
            parts.append(columns)
            self.kinds.append([str(name) for name in kinds])
            self.levels.append(len(names))
        names, of_class = np.unique(classes, return_inverse=True)
        self.classes = [str(name) for name in names]
        pairs, group = np.unique(np.column_stack([of_class, known]), axis=0, return_inverse=True)
        self.of_class, self.known = torch.from_numpy(pairs[:, 0].astype(int)), torch.from_numpy(pairs[:, 1])
        self.counts = torch.from_numpy(np.bincount(group.ravel(), minlength=len(pairs)).astype(float))
        whole = np.column_stack([*parts, design, y])
        self.products = torch.from_numpy(
            np.stack([(own := whole[group.ravel() == i]).T @ own for i in range(len(pairs))])
        )
        self.n_random, self.n_fixed = whole.shape[1] - design.shape[1] - 1, design.shape[1]

    def start(self) -> np.ndarray:
        """Return equal shares for all terms and what is left."""
        first = (len(self.kinds) + 1) ** -0.5
        factors = [first * np.eye(len(kinds))[np.tril_indices(len(kinds))] for kinds in self.kinds]
        return np.concatenate([*factors, np.full(len(self.classes), first)])

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Return those of the search: diagonals are not negative, so that a factor is the only one of its matrix."""
        diagonal = np.concatenate([np.eye(len(kinds))[np.tril_indices(len(kinds))] for kinds in self.kinds] or [[]])
        return [(0.0 if on else None, None) for on in diagonal] + [(LEAST, None)] * len(self.classes)

    def variances(self, theta: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the Cholesky factor of each term's covariance, and the residual variances."""
        factors, used = [], 0
        for kinds in self.kinds:
            size = len(kinds)
            rows, columns = torch.tril_indices(size, size)
            own = theta[used : used + len(rows)]
            factors.append(torch.zeros(size, size, dtype=theta.dtype).index_put((rows, columns), own))
            used += len(rows)
        return factors, theta[used:] ** 2

    def value(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return minus the restricted log likelihood (without its constant), and its gradient."""
        point = torch.from_numpy(theta.copy()).requires_grad_()
        loss = self._loss(point)
        loss.backward()
        return float(loss.detach()), point.grad.numpy()

    def _loss(self, theta: torch.Tensor) -> torch.Tensor:
        factors, residuals = self.variances(theta)
        weights = 1 / (residuals[self.of_class] + self.known)
        products = torch.einsum("c,cij->ij", weights, self.products)
        q = self.n_random
        blocks = [
            torch.kron(torch.eye(levels, dtype=theta.dtype), factor)
            for levels, factor in zip(self.levels, factors, strict=True)
        ]
        spread = torch.block_diag(*blocks) if blocks else torch.zeros(0, 0, dtype=theta.dtype)
        inner = spread.T @ products[:q, :q] @ spread + torch.eye(q, dtype=theta.dtype)
        factor = torch.linalg.cholesky(inner)
        across = torch.linalg.solve_triangular(factor, spread.T @ products[:q, q:], upper=False)
        # What the fixed effects and y have left once the random effects are known: (X, y)ᵀ V⁻¹ (X, y).
        whole = torch.linalg.cholesky(products[q:, q:] - across.T @ across)
        of_fixed, last = whole.diagonal()[:-1], whole[-1, -1]
        determinant = 2 * factor.diagonal().log().sum() - (self.counts * weights.log()).sum()
        return 0.5 * (determinant + 2 * of_fixed.log().sum() + last**2)
