"""Top-tuning: Gaussian kernel ridge regression on features of a frozen network, the only part that is trained.

After Alfano et al. (2022, arXiv 2209.07932), of which only the abstract was at hand: σ, λ, the number of centres and
how they are chosen are our instantiation.
"""

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, Self, TypeAlias

import array_api_compat
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from transferscope.arrays import nystrom
from transferscope.arrays.backend import Array, array_namespace, from_numpy, to_numpy
from transferscope.arrays.linalg import check_features, gram, squared_distances
from transferscope.errors import InputError, is_whole
from transferscope.protocols.heads.linear import HeadFit

BANDWIDTHS = (0.5, 1.0, 2.0)
"""Kernel widths σ tried, as multiples of the median distance between samples."""

PENALTIES = tuple(10.0**-exponent for exponent in range(3, 10))
"""Ridge penalties λ tried."""

ENOUGH = 5
"""Samples in the smallest class from which on some are set aside to choose by."""

Random: TypeAlias = int | np.random.RandomState | None

_DIRECT = 20_000
"""Samples up to which the system is solved directly unless told otherwise."""
_PAIRED = 1000
"""Samples whose distances the median is taken of, at most."""


class NystromKernelRidge(ClassifierMixin, BaseEstimator):
    """Gaussian kernel ridge regression onto one-hot targets, on some of the samples as centres; no intercept.

    Features are NumPy or CuPy arrays, or anything that scikit-learn makes into the former; the work is done where they
    are. Features are taken as they are: scale them beforehand if their units differ.

    Parameters
    ----------
    centers : int
        How many samples are centres; all of them where there are no more. They are drawn uniformly, but a class that
        would be left out takes the place of the last ones drawn.
    sigma : float or "median"
        Width of the kernel in units of the features; by default the median distance between samples, of 1000 at most,
        pairs of equal samples left out.
    penalty : float
        λ; what it multiplies is n_samples.
    solver : {"auto", "direct", "conjugate_gradient"}
        Direct is exact up to rounding, conjugate gradients are faster for very many samples: "auto" takes them for
        more than 20 000.
    tol : float
        Relative residual at which conjugate gradients stop.
    max_iter : int
        Most iterations of conjugate gradients; a `TransferscopeWarning` says when they did not suffice.
    random_state : int, numpy.random.RandomState or None
        Decides the centres, and whose distances the median is taken of.

    Attributes
    ----------
    classes_ : numpy.ndarray
        (n_classes,).
    centers_ : Array
        (n_centers, n_features).
    coefficients_ : Array
        (n_centers, n_classes).
    sigma_ : float
        In units of the features; infinite where all samples are equal.
    solver_ : str
        Which one was used.
    n_iter_ : int
        Iterations of conjugate gradients; 1 for a direct solve.
    n_features_in_ : int
    """

    def __init__(
        self,
        centers: int = 2000,
        *,
        sigma: float | Literal["median"] = "median",
        penalty: float = 1e-4,
        solver: Literal["auto", "direct", "conjugate_gradient"] = "auto",
        tol: float = 1e-7,
        max_iter: int = 100,
        random_state: Random = 0,
    ) -> None:
        self.centers = centers
        self.sigma = sigma
        self.penalty = penalty
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to features (n_samples, n_features) and labels (n_samples,).

        Raises
        ------
        ValueError
            When features, labels or parameters are not as above; an `InputError` where scikit-learn does not check.
        """
        if self.solver not in ("auto", "direct", "conjugate_gradient"):
            raise InputError(
                f"Expected `solver` to be 'auto', 'direct' or 'conjugate_gradient' but got {self.solver!r}"
            )
        X, codes = _checked_samples(self, X, y)
        random = check_random_state(self.random_state)
        self.sigma_ = _median_distance(X, random) if self.sigma == "median" else _number("sigma", self.sigma)
        penalty = _number("penalty", self.penalty)
        targets = _one_hot(codes, like=X)
        self.centers_ = _take(X, _draw_centers(codes, self.centers, random))
        automatic = "direct" if len(codes) <= _DIRECT else "conjugate_gradient"
        self.solver_ = automatic if self.solver == "auto" else self.solver
        if self.solver_ == "direct":
            self.coefficients_, self.n_iter_ = nystrom.fit(X, targets, self.centers_, self.sigma_).solve(penalty), 1
        else:
            self.coefficients_, self.n_iter_ = nystrom.conjugate_gradient(
                X, targets, self.centers_, self.sigma_, penalty, tolerance=self.tol, max_iterations=self.max_iter
            )
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the regression's value for each class, (n_samples, n_classes); of two, the second's less the first's.

        Parameters
        ----------
        X
            (n_samples, n_features).
        """
        values = self._values(X)
        return values[:, 1] - values[:, 0] if len(self.classes_) == 2 else values

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of largest value for features (n_samples, n_features): labels (n_samples,)."""
        largest = np.argmax(self._values(X), axis=1)
        return self.classes_[largest]

    def _values(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = _checked_features(self, X)
        if array_namespace(X) != array_namespace(self.centers_):
            X = from_numpy(to_numpy(X), like=self.centers_)
        return to_numpy(nystrom.predict(X, self.centers_, self.sigma_, self.coefficients_))


class TopTuning(ClassifierMixin, BaseEstimator):
    """`NystromKernelRidge` with σ and λ chosen on samples set aside, and fitted to all samples then.

    The choice is by accuracy, then by squared error, then for the larger penalty. When the smallest class has fewer
    than five samples none are set aside and nothing is chosen: the defaults of `NystromKernelRidge` are taken.

    Parameters
    ----------
    centers : int
        As in `NystromKernelRidge`.
    bandwidths : sequence of float
        σ tried, as multiples of the median distance between samples.
    penalties : sequence of float
        λ tried.
    validation_share : float
        Share of the samples set aside, class by class, in (0, 1).
    random_state : int, numpy.random.RandomState or None
        Decides the centres, whose distances the median is taken of, and which samples are set aside.

    Attributes
    ----------
    best_params_ : dict
        `sigma` in units of the features, `penalty` and `centers`.
    estimator_ : NystromKernelRidge
        With these, fitted to all samples.
    n_trials_ : int
        Pairs of σ and λ tried; 1 where nothing is chosen.
    validation_accuracy_ : float or None
        Of the best pair; None where nothing is chosen.
    classes_ : numpy.ndarray
        (n_classes,).
    n_features_in_ : int
    """

    def __init__(
        self,
        centers: int = 2000,
        *,
        bandwidths: Sequence[float] = BANDWIDTHS,
        penalties: Sequence[float] = PENALTIES,
        validation_share: float = 0.2,
        random_state: Random = 0,
    ) -> None:
        self.centers = centers
        self.bandwidths = bandwidths
        self.penalties = penalties
        self.validation_share = validation_share
        self.random_state = random_state

    def fit(self, X: Any, y: Any, validation: Any = None) -> Self:
        """Choose and fit.

        Parameters
        ----------
        X
            (n_samples, n_features).
        y
            (n_samples,) labels.
        validation
            Indices or boolean mask (n_samples,) of the samples to choose by; drawn by default.

        Raises
        ------
        ValueError
            When features, labels, parameters or `validation` are not as above; an `InputError` where scikit-learn does
            not check.
        """
        X, codes = _checked_samples(self, X, y)
        random = check_random_state(self.random_state)
        median = _median_distance(X, random)
        if validation is None:
            held_out = self._draw_validation(codes, random)
        else:
            held_out = _checked_validation(validation, len(codes))
        seed = int(random.randint(2**31))
        chosen = NystromKernelRidge(self.centers, sigma=median, random_state=seed)
        self.n_trials_ = 1
        self.validation_accuracy_: float | None = None
        if held_out is not None:
            chosen.set_params(**self._choose(X, codes, held_out, median, np.random.RandomState(seed)))
        self.best_params_ = {name: getattr(chosen, name) for name in ("sigma", "penalty", "centers")}
        self.estimator_ = chosen.fit(X, codes)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return what `NystromKernelRidge.decision_function` does."""
        check_is_fitted(self)
        return self.estimator_.decision_function(_checked_features(self, X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of largest value for features (n_samples, n_features): labels (n_samples,)."""
        check_is_fitted(self)
        return self.classes_[self.estimator_.predict(_checked_features(self, X))]

    def _draw_validation(self, codes: np.ndarray, random: np.random.RandomState) -> np.ndarray | None:
        if np.min(np.bincount(codes)) < ENOUGH:
            return None
        everyone = np.arange(len(codes))
        return train_test_split(everyone, test_size=self.validation_share, stratify=codes, random_state=random)[1]

    def _choose(
        self, X: Array, codes: np.ndarray, held_out: np.ndarray, median: float, random: np.random.RandomState
    ) -> dict[str, float]:
        """Fit with every σ and λ to the samples not held out; the best `sigma` and `penalty`."""
        if not len(self.bandwidths) or not len(self.penalties):
            raise InputError("Expected `bandwidths` and `penalties` to hold at least one number each; leave them out")
        rest = np.setdiff1d(np.arange(len(codes)), held_out)
        seen, unseen = _take(X, rest), _take(X, held_out)
        centers = _take(seen, _draw_centers(codes[rest], self.centers, random))
        targets, truth = _one_hot(codes, like=X), np.eye(int(codes.max()) + 1)[codes[held_out]]
        tried = []
        for bandwidth in self.bandwidths:
            sigma = bandwidth * median
            system = nystrom.fit(seen, _take(targets, rest), centers, sigma)
            # All penalties side by side: the kernel of the samples held out is made once.
            coefficients = array_namespace(X).concat([system.solve(each) for each in self.penalties], axis=1)
            values = to_numpy(nystrom.predict(unseen, centers, sigma, coefficients))
            for penalty, one in zip(self.penalties, np.split(values, len(self.penalties), axis=1), strict=True):
                correct = int(np.sum(np.argmax(one, axis=1) == codes[held_out]))
                tried.append((correct, -float(np.sum((one - truth) ** 2)), penalty, sigma))
        correct, _, penalty, sigma = max(tried)
        self.n_trials_ = len(tried)
        self.validation_accuracy_ = correct / len(held_out)
        return {"sigma": sigma, "penalty": penalty}


def fit_top_tuning_head(features: Array, labels: np.ndarray, validation: np.ndarray | None, seed: int) -> HeadFit:
    """Fit `TopTuning` as a head of the measuring grid.

    Parameters
    ----------
    features
        (n_samples, n_features).
    labels
        (n_samples,) class codes.
    validation
        Indices or boolean mask of the samples to choose σ and λ by; None for none, then the defaults are taken.
    seed
        Decides the centres, and whose distances the median is taken of.
    """
    if validation is None:
        fitted = NystromKernelRidge(random_state=seed).fit(features, labels)
        return HeadFit(fitted.predict, 1, None, _arrays(fitted))
    chosen = TopTuning(random_state=seed).fit(features, labels, validation)
    return HeadFit(chosen.predict, chosen.n_trials_, chosen.validation_accuracy_, _arrays(chosen.estimator_))


def _arrays(fitted: NystromKernelRidge) -> dict[str, np.ndarray]:
    """Return what it computes by, see `HeadFit`."""
    centers = to_numpy(fitted.centers_).astype(np.float64)
    return {
        "mean": centers.mean(axis=0), "deviation": np.full(centers.shape[1], fitted.sigma_),
        "centers": (centers - centers.mean(axis=0)) / fitted.sigma_, "weight": to_numpy(fitted.coefficients_).T,
        "bias": np.zeros(len(fitted.classes_)),
    }  # fmt: skip


def _checked_features(estimator: BaseEstimator, X: Any, *, reset: bool = False) -> Array:
    """Return features that are arrays already where they are, others as scikit-learn checks them."""
    if array_api_compat.is_array_api_obj(X) and not array_api_compat.is_numpy_array(X):
        X = check_features(X)
        return validate_data(estimator, X, reset=reset, skip_check_array=True)
    return validate_data(estimator, X, reset=reset, dtype=(np.float64, np.float32))


def _checked_samples(estimator: BaseEstimator, X: Any, y: Any) -> tuple[Array, np.ndarray]:
    """Return features and class codes (n_samples,), and note the classes."""
    if y is None:
        raise InputError(f"{type(estimator).__name__} requires y to be passed, but the target y is None; pass labels")
    X = _checked_features(estimator, X, reset=True)
    labels = column_or_1d(to_numpy(y) if array_api_compat.is_array_api_obj(y) else y, warn=True)
    check_consistent_length(X, labels)
    assert_all_finite(labels, input_name="y")
    with warnings.catch_warnings():
        # One image of each class is a task like any other here.
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        check_classification_targets(labels)
    estimator.classes_, codes = np.unique(labels, return_inverse=True)
    if len(estimator.classes_) < 2:
        raise InputError(f"Expected at least 2 classes in `y` but got 1 class, {estimator.classes_[0]!r}; add another")
    return X, codes


def _checked_validation(validation: Any, n_samples: int) -> np.ndarray:
    """Return the indices of `validation` in rising order."""
    held_out = to_numpy(validation) if array_api_compat.is_array_api_obj(validation) else np.asarray(validation)
    if held_out.dtype == bool and held_out.shape == (n_samples,):
        held_out = np.flatnonzero(held_out)
    whole = held_out.ndim == 1 and held_out.dtype.kind in "iu"
    if not whole or not 0 < len(np.unique(held_out)) < n_samples or held_out.min() < 0 or held_out.max() >= n_samples:
        raise InputError(
            f"Expected `validation` to be a boolean mask or indices of some, but not all, of {n_samples} samples but "
            f"got {held_out.dtype} of shape {held_out.shape}; leave it out to have samples drawn"
        )
    return np.unique(held_out)


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        kinds = "a number or 'median'" if name == "sigma" else "a number"
        raise InputError(f"Expected `{name}` to be {kinds} but got {value!r}")
    return float(value)


def _take(X: Array, rows: np.ndarray) -> Array:
    return array_namespace(X).take(X, from_numpy(rows, like=X), axis=0)


def _one_hot(codes: np.ndarray, *, like: Array) -> Array:
    """Return the targets (n_samples, n_classes), in float32 for they are many where there are many classes."""
    return from_numpy(np.eye(int(codes.max()) + 1, dtype=np.float32)[codes], like=like)


def _draw_centers(codes: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
    """Draw `count` samples without replacement, the first of each class in any case: rising indices."""
    if not is_whole(count, 1):
        raise InputError(f"Expected `centers` to be an integer, at least 1, but got {count!r}")
    order = random.permutation(len(codes))
    first = np.unique(codes[order], return_index=True)[1]
    return np.sort(np.concatenate([order[np.sort(first)], np.delete(order, first)])[:count])


def _median_distance(X: Array, random: np.random.RandomState) -> float:
    """Median distance between samples that differ, of `_PAIRED` at most; infinite where none do."""
    n = X.shape[0]
    if n > _PAIRED:
        X = _take(X, np.sort(random.permutation(n)[:_PAIRED]))
    squares = to_numpy(squared_distances(gram(X, double=True)))
    squares = squares[np.triu_indices(len(squares), 1)]
    # Equal samples come out at rounding level.
    differing = squares[squares > 1e-13 * np.max(squares, initial=0.0)]
    return float(np.median(np.sqrt(differing))) if len(differing) else np.inf
