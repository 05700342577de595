"""New heads for frozen features: logistic regression, linear SVM, nearest class mean."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import qr
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from transferscope.arrays.linalg import check_features
from transferscope.errors import InputError, TransferscopeWarning

PENALTIES: dict[str, tuple[float | None, ...]] = {
    "truncate": (1e-3, 1e-2, 1e-1, 1.0, 10.0),
    "svm": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "nearest_mean": (None,),
}
"""The heads, with the values of scikit-learn's C that each tries; the middle one is taken where none is chosen."""

ROUNDING = 8.0
"""A feature whose values differ by no more than so many units of rounding does not vary."""


@dataclass(frozen=True)
class HeadFit:
    """A fitted head. Images are classified apart from the fit, as they are no part of what it costs."""

    predict: Callable[[Any], np.ndarray]
    """Takes features of n_test images, as those fitted to; returns the codes of their classes, (n_test,) int64.

    Raises InputError when they are not finite or do not have the columns that were fitted to."""
    trials: int
    """Hyper-parameter settings looked at; the final fit is not counted again."""
    validation_accuracy: float | None
    """Of the chosen setting, fitted without the validation images; None without any."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What it computes by, all float64: see `heads.modules.HeadScores`, which does the same as a module of torch."""


def fit_head(
    name: str,
    features: np.ndarray,
    labels: np.ndarray,
    validation: np.ndarray | None,
    seed: int,
) -> HeadFit:
    """Fit the head `name` to features of training images.

    "truncate" is multinomial logistic regression, "svm" a one-vs-rest linear SVM with squared hinge loss, both with
    an L2 penalty on features that are z-scored with the statistics of the images fitted to; "nearest_mean" takes the
    class whose mean is nearest, in the features as they are.

    C is the one of `PENALTIES` with the best accuracy on the validation images when fitted to all others, then the
    one with the least loss there (log loss, or hinge loss summed over the classes), then the smallest.

    Parameters
    ----------
    name : {"truncate", "svm", "nearest_mean"}
        The head.
    features : numpy.ndarray
        (n_samples, n_features), finite; float32 or float64.
    labels : numpy.ndarray
        (n_samples,) whole numbers, at least two different ones. A class of the target that is not among them is
        never predicted.
    validation : numpy.ndarray, optional
        Rows set aside for choosing C, as their numbers or a mask (n_samples,); the final fit uses them too. Without
        any, nothing is chosen.
    seed : int
        Order in which the SVM's solver visits the images; the other heads draw nothing.

    Returns
    -------
    HeadFit

    Warns
    -----
    TransferscopeWarning
        When the solver of the final fit stops before it has converged. What it found is used.

    Raises
    ------
    InputError
        When an argument is not as above.
    """
    if name not in PENALTIES:
        raise InputError(f"Expected a head of {', '.join(PENALTIES)}, but got {name!r}")
    features = check_features(features, "features", min_samples=2)
    labels = check_labels(labels, len(features))
    grid = PENALTIES[name]
    chosen, accuracy, trials = grid[len(grid) // 2], None, 1
    if validation is not None:
        held_out = _mask(validation, labels)
        train, prepare = _prepared(name, features[~held_out])
        held = prepare(features[held_out])
        tried = []
        for penalty in grid:
            head = _fitted(name, penalty, train, labels[~held_out], seed)
            share = float(np.mean(head.predict(held) == labels[held_out]))
            tried.append((share, -head.loss(held, labels[held_out]), penalty))
        accuracy, _, chosen = max(tried, key=lambda trial: trial[:2])
        trials = len(tried)
    train, prepare = _prepared(name, features)
    head = _fitted(name, chosen, train, labels, seed)
    warn_unconverged(head)
    n_features = features.shape[1]
    arrays = head.arrays(prepare)
    return HeadFit(lambda test: head.predict(prepare(_checked(test, n_features))), trials, accuracy, arrays)


def _checked(test_features: np.ndarray, n_features: int) -> np.ndarray:
    test_features = check_features(test_features, "test_features")
    if test_features.shape[1] != n_features:
        raise InputError(
            f"Expected `test_features` to have the {n_features} columns of `features`, but got "
            f"{test_features.shape[1]}; take both from the same layer"
        )
    return test_features


def check_labels(labels: np.ndarray, n_samples: int) -> np.ndarray:
    """Return class codes as (n_samples,) int64, or raise InputError."""
    labels = np.asarray(labels)
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"Expected `labels` to be {n_samples} whole numbers, one per row of the features, but got {labels.dtype} "
            f"of shape {labels.shape}"
        )
    if len(np.unique(labels)) < 2:
        raise InputError(f"Expected `labels` to name at least 2 classes, but got only {labels[0]}")
    return labels.astype(np.int64)


def _mask(validation: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = np.asarray(validation)
    n = len(labels)
    right_mask = rows.dtype == np.bool_ and rows.shape == (n,)
    if not right_mask and (rows.dtype.kind not in "iu" or rows.ndim != 1 or np.any((rows < 0) | (rows >= n))):
        raise InputError(
            f"Expected `validation` to be row numbers below {n} or a mask ({n},), but got {rows.dtype} of shape "
            f"{rows.shape}"
        )
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    if not mask.any() or len(np.unique(labels[~mask])) < 2:
        raise InputError(
            f"Expected `validation` to set some rows aside and to leave 2 classes to fit to, but it takes "
            f"{mask.sum()} of {n}; pass None where images are too few to choose with"
        )
    return mask


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of every column, (n_features,) float64; the latter is inf where none varies.

    So (features - mean) / deviation is the z-score, and 0 for a feature that is constant up to `ROUNDING`, be it
    float32 or float64: the last digit of a constant must not become ±1.
    """
    wide = features.astype(np.float64)
    noise = ROUNDING * np.finfo(features.dtype).eps * np.abs(wide).max(axis=0)
    varies = np.ptp(wide, axis=0) > noise
    return wide.mean(axis=0), np.where(varies, wide.std(axis=0), np.inf)


@dataclass(frozen=True, eq=False)
class Rotation:
    """The map from features to the coordinates that a linear model is fitted to.

    Attributes
    ----------
    basis
        (n_features, n_coordinates), orthonormal columns; None where the features are the coordinates.
    """

    basis: np.ndarray | None

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return coordinates of images with these features."""
        return features if self.basis is None else features @ self.basis

    def undone(self, weights: np.ndarray) -> np.ndarray:
        """Return what weights (n_classes, n_coordinates) are for the features themselves."""
        return weights if self.basis is None else weights @ self.basis.T


def rotated(train: np.ndarray) -> tuple[np.ndarray, Rotation]:
    """Return coordinates in the row space of `train`, where that has fewer dimensions than the features.

    The second thing returned gives those of other images. A linear model with an L2 penalty has its weights in that
    space, so its predictions stay the same.
    """
    n_samples, n_features = train.shape
    if n_features <= n_samples:
        return train, Rotation(None)
    basis, triangle = qr(train.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(triangle.T), Rotation(basis)


@dataclass(frozen=True, eq=False)
class _Preparation:
    """What becomes of features before a head: z-scores in the row space of the training images."""

    mean: np.ndarray
    deviation: np.ndarray
    rotation: Rotation

    def __call__(self, test: np.ndarray) -> np.ndarray:
        return self.rotation((test - self.mean) / self.deviation)


def _prepared(name: str, train: np.ndarray) -> tuple[np.ndarray, _Preparation]:
    """Return what the head `name` is fitted to, and the map that gives the same of other images."""
    if name == "nearest_mean":
        width = train.shape[1]
        return train.astype(np.float64), _Preparation(np.zeros(width), np.ones(width), Rotation(None))
    mean, deviation = statistics(train)
    coordinates, rotate = rotated((train - mean) / deviation)
    return coordinates, _Preparation(mean, deviation, rotate)


def _fitted(
    name: str, penalty: float | None, features: np.ndarray, labels: np.ndarray, seed: int
) -> "LinearHead | _NearestMean":
    if penalty is None:
        return _NearestMean(features, labels)
    # The gradient has to be small for the predictions not to depend on where the solver stops.
    model = LogisticRegression(C=penalty, tol=1e-5, max_iter=2000) if name == "truncate" else linear_svm(penalty, seed)
    return LinearHead(model, features, labels)


def linear_svm(penalty: float, seed: int) -> LinearSVC:
    """Return the linear SVM of all protocols, solved in the dual to the tolerance that LIBLINEAR itself has there."""
    return LinearSVC(C=penalty, dual=True, tol=0.1, max_iter=10_000, random_state=seed)


class LinearHead:
    """A scikit-learn classifier, fitted without its own warnings.

    Parameters
    ----------
    model : LogisticRegression or LinearSVC
        Fitted here.
    features : numpy.ndarray
        (n_samples, n_features).
    labels : numpy.ndarray
        (n_samples,).
    """

    def __init__(self, model: Any, features: np.ndarray, labels: np.ndarray) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model = model.fit(features, labels)

    @property
    def converged(self) -> bool:
        """Whether the solver ended before its last iteration."""
        return bool(np.max(self.model.n_iter_) < self.model.max_iter)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the classes, (n,) int64."""
        return self.model.predict(features)

    def scores(self, rotation: Rotation) -> dict[str, np.ndarray]:
        """Return weight (n_classes, n_features) and bias (n_classes,): a score for each class, the largest wins."""
        weight, bias = rotation.undone(self.model.coef_), self.model.intercept_
        if len(bias) == 1:  # of two classes there is one score, the second's less the first's
            weight, bias = np.concatenate([np.zeros_like(weight), weight]), np.array([0.0, bias[0]])
        return {"weight": weight, "bias": bias}

    def arrays(self, prepare: _Preparation) -> dict[str, np.ndarray]:
        """Return what it computes by, see `HeadFit`."""
        return {"mean": prepare.mean, "deviation": prepare.deviation, **self.scores(prepare.rotation)}

    def loss(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean log loss, or the mean of the hinge losses summed over the classes."""
        one_hot = labels[:, None] == self.model.classes_
        if isinstance(self.model, LogisticRegression):
            # A class that was not fitted to has probability 0; its finite loss is the same for every C.
            probability = np.sum(self.model.predict_proba(features) * one_hot, axis=1)
            return float(-np.mean(np.log(np.maximum(probability, np.finfo(np.float64).tiny))))
        margins = self.model.decision_function(features)
        if margins.ndim == 1:
            margins = np.stack([-margins, margins], axis=1)
        return float(np.mean(np.sum(np.maximum(0.0, 1.0 - np.where(one_hot, margins, -margins)), axis=1)))


def warn_unconverged(head: "LinearHead | _NearestMean") -> None:
    """Warn once when `head` is a linear one whose solver has not converged."""
    if isinstance(head, LinearHead) and not head.converged:
        warnings.warn(
            f"{type(head.model).__name__} has not converged in {head.model.max_iter} iterations; its predictions are "
            "used as they are",
            TransferscopeWarning,
            stacklevel=3,
        )


class _NearestMean:
    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        self._classes = np.unique(labels)
        self._means = np.stack([features[labels == label].mean(axis=0) for label in self._classes])

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self._classes[np.argmin(cdist(features, self._means), axis=1)]

    def arrays(self, _prepare: _Preparation) -> dict[str, np.ndarray]:
        # The negative squared distance without what is the same for all classes, seen from the middle: |x|² - 2xm + m²
        middle = self._means.mean(axis=0)
        means = self._means - middle
        return {
            "mean": middle, "deviation": np.ones_like(middle),
            "weight": 2 * means, "bias": -np.sum(means**2, axis=1),
        }  # fmt: skip

    def loss(self, _features: np.ndarray, _labels: np.ndarray) -> float:
        return 0.0
