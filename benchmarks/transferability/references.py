"""What `scores.py` compares with: every score by its plain formula, and by scikit-learn where that has an equivalent.

Each takes features (n_samples, n_features), or source probabilities for LEEP and NCE, and class codes, and does all of
the work itself, its own factorisation or inverse included. They run in a process of their own, which is ended when
one of them takes too long.
"""

import math
import multiprocessing
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

NOT_A_VALUE = float("nan")
REFITS = 5
"""Samples that are really left out, where leaving out all of them is what a reference would do."""


def one_hot(y: np.ndarray) -> np.ndarray:
    return np.eye(y.max() + 1)[y]


def centred(X: np.ndarray) -> np.ndarray:
    return X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)


def principal(X: np.ndarray, k: int) -> np.ndarray:
    """Principal components, the entry of largest magnitude of each being positive."""
    from sklearn.decomposition import PCA

    points = PCA(min(k, *X.shape), svd_solver="full").fit_transform(X.astype(np.float64))
    return points * np.where(points.max(axis=0) >= -points.min(axis=0), 1, -1)


def logme(X: np.ndarray, y: np.ndarray) -> float:
    """Iterate and take the evidence as published, which is right for n_samples > n_features alone."""
    n, p = X.shape
    U, s, _ = np.linalg.svd(X.astype(np.float64), full_matrices=False)
    sigma, total = s**2, 0.0
    for t in one_hot(y).T:
        z = (U.T @ t) ** 2
        alpha = beta = 1.0
        for _ in range(100):
            ratio = alpha / beta
            gamma = np.sum(sigma / (sigma + ratio))
            weights = np.sum(sigma * z / (ratio + sigma) ** 2)
            residual = np.sum(z / (1 + sigma / ratio) ** 2) + max(t @ t - z.sum(), 0)
            alpha, beta = gamma / weights, (n - gamma) / residual
            if abs(alpha / beta - ratio) <= 1e-5 * ratio:
                break
        evidence = p * np.log(alpha) + n * np.log(beta) - np.sum(np.log(alpha + beta * sigma))
        total += (evidence - beta * residual - alpha * weights - n * np.log(2 * np.pi)) / 2 / n
    return total / (y.max() + 1)


def _between(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    means = np.stack([X[y == c].mean(axis=0) for c in range(y.max() + 1)])
    return (means.T * np.bincount(y) / len(y)) @ means


def hscore(X: np.ndarray, y: np.ndarray) -> float:
    X = centred(X)
    n, p = X.shape
    S = X.T @ X / n
    mean = np.trace(S) / p
    distance = np.sum(S**2) - p * mean**2
    alpha = min((np.mean(np.sum(X**2, axis=1) ** 2) - np.sum(S**2)) / n / distance, 1.0)
    shrunk = (1 - alpha) * S + alpha * mean * np.eye(p)
    return float((1 - alpha) * np.sum(np.linalg.pinv(shrunk, hermitian=True) * _between(X, y)))


def hscore_sklearn(X: np.ndarray, y: np.ndarray) -> float:
    from sklearn.covariance import LedoitWolf

    X = centred(X)
    model = LedoitWolf(assume_centered=True).fit(X)
    return float((1 - model.shrinkage_) * np.sum(model.precision_ * _between(X, y)))


def transrate(X: np.ndarray, y: np.ndarray) -> float:
    X = centred(X)
    X /= np.sqrt(np.sum(X**2) / len(X))

    def rate(F: np.ndarray) -> float:
        return np.linalg.slogdet(np.eye(F.shape[1]) + F.T @ F / len(F))[1] / 2

    return rate(X) - sum(np.mean(y == c) * rate(X[y == c]) for c in range(y.max() + 1))


def leep(P: np.ndarray, y: np.ndarray) -> float:
    joint = np.zeros((y.max() + 1, P.shape[1]))
    for theta, c in zip(P.astype(np.float64), y, strict=True):
        joint[c] += theta
    given = joint / joint.sum(axis=0)
    return float(np.mean([np.log(given[c] @ theta) for theta, c in zip(P.astype(np.float64), y, strict=True)]))


def nce(P: np.ndarray, y: np.ndarray) -> float:
    counts: dict[tuple[int, int], int] = {}
    sources: dict[int, int] = {}
    for z, c in zip(P.argmax(axis=1).tolist(), y.tolist(), strict=True):
        counts[z, c] = counts.get((z, c), 0) + 1
        sources[z] = sources.get(z, 0) + 1
    return sum(count * math.log(count / sources[z]) for (z, _), count in counts.items()) / len(y)


def nleep_sklearn(X: np.ndarray, y: np.ndarray) -> float:
    from sklearn.mixture import GaussianMixture

    points = principal(X, 64)
    variances = np.sum(points**2, axis=0)
    kept = int(np.searchsorted(np.cumsum(variances), 0.8 * np.sum(centred(X) ** 2))) + 1
    points = points[:, :kept]
    order = np.lexsort(points.T[::-1])
    points = points[order] / np.sqrt(np.mean(points**2))
    gaussians = max(2, min(5 * (y.max() + 1), len(y) // 5))
    mixture = GaussianMixture(gaussians, covariance_type="diag", reg_covar=1e-3, random_state=0)
    return leep(mixture.fit(points).predict_proba(points), y[order])


def gbc(X: np.ndarray, y: np.ndarray) -> float:
    points = principal(X, 64)
    floor = 1e-6 * points.var(axis=0).max()
    means = [points[y == c].mean(axis=0) for c in range(y.max() + 1)]
    variances = [np.maximum(points[y == c].var(axis=0), floor) for c in range(y.max() + 1)]
    total = 0.0
    for c in range(len(means)):
        for d in range(c):
            between = (variances[c] + variances[d]) / 2
            volume = np.log(between).sum() / 2 - np.log(variances[c] * variances[d]).sum() / 4
            total -= np.exp(-np.sum((means[c] - means[d]) ** 2 / between) / 8 - volume)
    return float(total)


def parc(X: np.ndarray, y: np.ndarray) -> float:
    from scipy.stats import spearmanr

    pairs = np.triu_indices(len(X), 1)
    features, labels = (1 - np.corrcoef(rows)[pairs] for rows in (principal(X, 32), one_hot(y)))
    return spearmanr(np.round(features, 10), np.round(labels, 10)).statistic


def sfda_sklearn(X: np.ndarray, y: np.ndarray) -> float:
    from scipy.special import logsumexp
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    points = principal(X, max(1, len(X) // 10))
    points = points / np.sqrt(points.var(axis=0).sum())
    means = np.stack([points[y == c].mean(axis=0) for c in range(y.max() + 1)])
    spread = points - means[y]
    shrinkage = np.exp(-5 * np.linalg.eigvalsh(spread.T @ spread / len(X))[-1])
    everyone, counts = np.arange(len(X)), np.bincount(y)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    p = model.fit(points, y).predict_proba(points)[everyone, y][:, None]
    others = -means * (counts / (len(y) - counts))[:, None]
    moved = p * points + (1 - p) * others[y]
    logits = model.fit(moved, y).decision_function(moved)
    return float(np.mean(logits[everyone, y] - logsumexp(logits, axis=1)))


def _vote(nearness: np.ndarray, codes: np.ndarray, classes: int) -> int:
    votes = np.bincount(codes, minlength=classes) + np.bincount(codes, nearness, classes) / 1e6
    return int(votes.argmax())


def knn(X: np.ndarray, y: np.ndarray) -> float:
    rows = X.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    right = 0
    for i, row in enumerate(cosines):
        nearest = np.argsort(-row)[:5]
        right += _vote(1 + row[nearest], y[nearest], y.max() + 1) == y[i]
    return right / len(y)


def knn_sklearn(X: np.ndarray, y: np.ndarray) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(X.astype(np.float64), y)
    distances, nearest = model.kneighbors()  # of the samples themselves, each without itself
    votes = [_vote(2 - d, y[k], y.max() + 1) for d, k in zip(distances, nearest, strict=True)]
    return float(np.mean(votes == y))


def nearest_mean(X: np.ndarray, y: np.ndarray) -> float:
    X = X.astype(np.float64)
    counts = np.bincount(y)
    means = np.stack([X[y == c].mean(axis=0) for c in range(len(counts))])
    right = 0
    for x, c in zip(X, y, strict=True):
        distances = np.sum((means - x) ** 2, axis=1)
        distances[c] = np.sum(((means[c] * counts[c] - x) / (counts[c] - 1) - x) ** 2) if counts[c] > 1 else np.inf
        right += int(distances.argmin()) == c
    return right / len(y)


def nearest_mean_sklearn(X: np.ndarray, y: np.ndarray) -> float:
    from sklearn.neighbors import NearestCentroid

    for i in range(REFITS):
        kept = np.arange(len(y)) != i
        NearestCentroid().fit(X[kept], y[kept]).predict(X[i : i + 1])
    return NOT_A_VALUE


def _penalties(X: np.ndarray) -> np.ndarray:
    eigenvalues = np.linalg.eigvalsh(X @ X.T if len(X) <= X.shape[1] else X.T @ X)
    rank = np.count_nonzero(eigenvalues > (max(X.shape) * np.finfo(np.float32).eps) ** 2 * eigenvalues[-1])
    return eigenvalues.sum() / rank * np.logspace(-6, 3, 19)


def ridge(X: np.ndarray, y: np.ndarray) -> float:
    X, T = centred(X), one_hot(y)
    least, accuracy, scatter = np.inf, 0.0, X.T @ X
    for penalty in _penalties(X):
        hat = X @ np.linalg.solve(scatter + penalty * np.eye(X.shape[1]), X.T) + 1 / len(X)
        residuals = (T - hat @ T) / (1 - np.diag(hat))[:, None]
        if (error := np.sum(residuals**2)) < least:
            least, accuracy = error, np.mean((T - residuals).argmax(axis=1) == y)
    return float(accuracy)


def ridge_sklearn(X: np.ndarray, y: np.ndarray) -> float:
    """Do what RidgeClassifierCV does inside, which does not hand out its left-out predictions."""
    from sklearn.linear_model import RidgeCV

    X = centred(X)
    model = RidgeCV(_penalties(X), scoring="neg_mean_squared_error", store_cv_results=True).fit(X, one_hot(y))
    best = int(np.argmin(np.abs(model.alphas - model.alpha_)))
    return float(np.mean(model.cv_results_[:, :, best].argmax(axis=1) == y))


def _squares(X: np.ndarray) -> tuple[np.ndarray, float]:
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(X.astype(np.float64))
    return squareform(distances) ** 2, float(np.median(distances[distances > 0]))


def kernel_ridge(X: np.ndarray, y: np.ndarray) -> float:
    squares, median = _squares(X)
    T, n = one_hot(y), len(y)
    least, accuracy = np.inf, 0.0
    for sigma in (0.5 * median, median, 2 * median):
        for penalty in 10.0 ** np.arange(-9, -2):
            inverse = np.linalg.inv(np.exp(squares / (-2 * sigma**2)) + penalty * n * np.eye(n))
            residuals = inverse @ T / np.diag(inverse)[:, None]
            if (error := np.sum(residuals**2)) < least:
                least, accuracy = error, np.mean((T - residuals).argmax(axis=1) == y)
    return float(accuracy)


def kernel_ridge_sklearn(X: np.ndarray, y: np.ndarray) -> float:
    """One sample left out, for every σ and λ."""
    from sklearn.kernel_ridge import KernelRidge

    X, T, n = X.astype(np.float64), one_hot(y), len(y)
    median = _squares(X)[1]
    for sigma in (0.5 * median, median, 2 * median):
        for penalty in 10.0 ** np.arange(-9, -2):
            model = KernelRidge(alpha=penalty * n, kernel="rbf", gamma=1 / (2 * sigma**2))
            model.fit(X[1:], T[1:]).predict(X[:1])
    return NOT_A_VALUE


def alignment(X: np.ndarray, y: np.ndarray) -> float:
    X, n = centred(X), len(y)
    K, L = X @ X.T, (y[:, None] == y).astype(np.float64)

    def hsic(A: np.ndarray, B: np.ndarray) -> float:
        A, B = A - np.diag(np.diag(A)), B - np.diag(np.diag(B))
        middle = A.sum() * B.sum() / ((n - 1) * (n - 2))
        return np.sum(A * B) + middle - 2 * A.sum(axis=0) @ B.sum(axis=0) / (n - 2)

    return float(hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L)))


@dataclass(frozen=True)
class Reference:
    """One way to compute a score."""

    score: str
    kind: str
    how: str
    run: Callable[[np.ndarray, np.ndarray], float]
    order: Callable[[int, int, int], float]
    """How its time grows with n_samples, n_features and the number of classes: to tell what would take too long."""
    times: Callable[[int], float] = lambda n: 1.0
    """What its time is multiplied by, of n_samples."""


PLAIN, SKLEARN = "plain", "scikit-learn"


def _svd(n: int, p: int) -> float:
    return n * p * min(n, p)


REFERENCES = {
    (each.score, each.kind): each
    for each in (
        Reference("logme", PLAIN, "the published fixed point, on an SVD", logme, lambda n, p, c: _svd(n, p)),
        Reference("hscore", PLAIN, "pinv of the D × D covariance", hscore, lambda n, p, c: n * p**2 + 9 * p**3),
        Reference("hscore", SKLEARN, "LedoitWolf", hscore_sklearn, lambda n, p, c: 2 * n * p**2 + 9 * p**3),
        Reference("transrate", PLAIN, "slogdet of D × D matrices", transrate, lambda n, p, c: n * p**2 + c * p**3),
        Reference("nleep", SKLEARN, "PCA, GaussianMixture", nleep_sklearn, lambda n, p, c: _svd(n, p) + n**2 * c),
        Reference("gbc", PLAIN, "PCA, a loop over pairs of classes", gbc, lambda n, p, c: _svd(n, p) + 1e5 * c**2),
        Reference("parc", PLAIN, "PCA, SciPy's spearmanr of all pairs", parc, lambda n, p, c: _svd(n, p) + 100 * n**2),
        Reference("sfda", SKLEARN, "PCA, LinearDiscriminantAnalysis twice", sfda_sklearn, lambda n, p, c: _svd(n, p)),
        Reference("knn", PLAIN, "cosines, every row sorted", knn, lambda n, p, c: n**2 * (p + 100)),
        Reference("knn", SKLEARN, "KNeighborsClassifier.kneighbors()", knn_sklearn, lambda n, p, c: n**2 * (p + 100)),
        Reference("nearest_mean", PLAIN, "a loop over samples", nearest_mean, lambda n, p, c: n * p * c),
        Reference(
            "nearest_mean", SKLEARN, f"NearestCentroid refitted, {REFITS} of n", nearest_mean_sklearn,
            lambda n, p, c: n**2 * p, lambda n: n / REFITS,
        ),
        Reference("ridge", PLAIN, "a D × D solve a penalty", ridge, lambda n, p, c: n * p * (n + p) + p**3),
        Reference("ridge", SKLEARN, "RidgeCV, as in RidgeClassifierCV", ridge_sklearn, lambda n, p, c: _svd(n, p)),
        Reference("kernel_ridge", PLAIN, "an n × n inverse for every σ and λ", kernel_ridge, lambda n, p, c: n**3),
        Reference(
            "kernel_ridge", SKLEARN, "KernelRidge refitted for every σ and λ, 1 of n", kernel_ridge_sklearn,
            lambda n, p, c: n**3, lambda n: n,
        ),
        Reference("alignment", PLAIN, "unbiased HSIC of n × n kernels", alignment, lambda n, p, c: n**2 * p),
        Reference("leep", PLAIN, "a loop over samples", leep, lambda n, p, c: n),
        Reference("nce", PLAIN, "a loop over samples", nce, lambda n, p, c: n),
    )
}  # fmt: skip


def _serve(connection: Connection) -> None:
    """Answer requests (reference, file of features, codes) with seconds and value."""
    warm = np.random.default_rng(0).normal(size=(40, 6))
    warnings.simplefilter("ignore")
    for reference in REFERENCES.values():  # imports scikit-learn's parts, which is not to be timed
        reference.run(np.abs(warm) / np.abs(warm).sum(axis=1, keepdims=True), np.arange(40) % 3)
    connection.send("ready")
    while True:
        key, path, codes = connection.recv()
        X = np.load(path)
        started = time.perf_counter()
        value = REFERENCES[key].run(X, codes)
        connection.send((time.perf_counter() - started, value))


class Runner:
    """A process that runs references one at a time, and is replaced when one takes too long."""

    def __init__(self) -> None:
        self._process: Any = None

    def run(self, key: tuple[str, str], path: Path, codes: np.ndarray, limit: float) -> tuple[float, float] | None:
        """Return seconds and value; None when it took more than `limit` seconds."""
        if self._process is None:
            self._start()
        self._connection.send((key, path, codes))
        if not self._connection.poll(limit):
            self.close()
            return None
        seconds, value = self._connection.recv()
        return seconds * REFERENCES[key].times(len(codes)), value

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def table(rows: list[list[str]]) -> str:
    """Return a Markdown table, its header first."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"
