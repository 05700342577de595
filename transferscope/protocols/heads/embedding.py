"""Full-network embedding: all layers at once, each feature reduced to low, typical or high."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from transferscope.arrays.linalg import check_features
from transferscope.errors import InputError
from transferscope.protocols.heads.linear import (
    HeadFit,
    LinearHead,
    check_labels,
    linear_svm,
    rotated,
    statistics,
    warn_unconverged,
)

SHARES = {"all": 1.0, "upper 75%": 0.75, "upper 50%": 0.5, "upper 25%": 0.25}
"""Named sets of layers, as the share of all layers that is kept, counted from the top."""


class FullNetworkEmbedding(TransformerMixin, BaseEstimator):
    """Features of many layers side by side, z-scored and discretised to -1, 0 and 1.

    Parameters
    ----------
    layers : {"all", "upper 75%", "upper 50%", "upper 25%"} or float
        Which layers are kept: a share in (0, 1] of them, rounded down but at least one, the last to fire.
    positive, negative : float
        A z-score above `positive` becomes 1, one below `negative` becomes -1, any other 0.
    standardize : {"train", "split"}
        Whose mean and standard deviation (population formula) z-score the images given to `transform`: those that
        were fitted to, or their own. With "split" the embedding of an image depends on the others beside it.

    Attributes
    ----------
    statistics_ : list of tuple of numpy.ndarray
        Mean and standard deviation of the features of every kept layer; the latter is inf where a feature does not
        vary, so that its z-score is 0.
    widths_ : list of int
        Number of features of every layer, kept or not.

    Notes
    -----
    The z-score is described with the statistics of the training images, and the package `fne` by the same group keeps
    them for the test images. The code published with Tormos et al. (2022), HPAI-BSC/tl-tradeoff at commit 194b9e7,
    hands training and test images one after the other to one function that takes mean and population standard
    deviation of what it is given; "split" repeats that. Its layer sets for the 15 layers of a VGG-16 have 15, 11, 7
    and 3 layers, as here.

    References
    ----------
    Garcia-Gasulla et al. (2018), An Out-of-the-box Full-Network Embedding for Convolutional Neural Networks.
    Tormos et al. (2022), When & How to Transfer with Transfer Learning.
    """

    def __init__(
        self,
        layers: str | float = "all",
        *,
        positive: float = 0.15,
        negative: float = -0.25,
        standardize: str = "train",
    ) -> None:
        self.layers = layers
        self.positive = positive
        self.negative = negative
        self.standardize = standardize

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the statistics of the training images.

        Parameters
        ----------
        X : list of numpy.ndarray, or array-like
            (n_samples, n_features) of every layer, in firing order; or all of them side by side as one matrix, of
            which every layer is kept.
        y : object
            Ignored.

        Raises
        ------
        InputError
            When `X` or a parameter is not as described.
        """
        if self.standardize not in ("train", "split"):
            raise InputError(f"Expected `standardize` to be 'train' or 'split', but got {self.standardize!r}")
        if not self.negative <= self.positive:
            raise InputError(f"Expected `negative` at most `positive`, but got {self.negative} and {self.positive}")
        layers = _matrices(X)
        n_layers = _count(self.layers, len(layers), side_by_side=not _is_layers(X))
        self.widths_ = [layer.shape[1] for layer in layers]
        self.statistics_ = [statistics(layer) for layer in layers[-n_layers:]]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the embedding, (n_samples, sum of the kept layers' features) float32, of -1, 0 and 1.

        Raises
        ------
        InputError
            When `X` does not have the layers that were fitted to.
        """
        check_is_fitted(self)
        layers = _matrices(X)
        widths = [layer.shape[1] for layer in layers]
        if widths != self.widths_:
            raise InputError(f"Expected layers of {self.widths_} features, as fitted to, but got {widths}")
        last_layers = layers[-len(self.statistics_) :]
        per_split = self.standardize == "split"
        pairs = [statistics(layer) for layer in last_layers] if per_split else self.statistics_
        return np.hstack([self._discretised(layer, *pair) for layer, pair in zip(last_layers, pairs, strict=True)])

    def _discretised(self, layer: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        scores = (layer - mean) / deviation
        return (scores > self.positive).astype(np.float32) - (scores < self.negative)


def fit_embedding_head(
    layers: Sequence[np.ndarray],
    labels: np.ndarray,
    share: str | float = "all",
    *,
    standardize: str = "train",
    seed: int = 0,
) -> HeadFit:
    """Embed training images and fit a linear SVM of C = 1 to them, as published.

    Parameters
    ----------
    layers : sequence of numpy.ndarray
        (n_samples, n_features) of every layer, in firing order.
    labels : numpy.ndarray
        (n_samples,) whole numbers, at least two different ones.
    share, standardize
        `layers` and `standardize` of `FullNetworkEmbedding`; with "split", `predict` z-scores the images it is given
        by their own statistics.
    seed : int
        Order in which the SVM's solver visits the images.

    Returns
    -------
    HeadFit
        One trial, nothing validated. `predict` takes the same layers, kept or not.

    Warns
    -----
    TransferscopeWarning
        When the solver stops before it has converged. What it found is used.

    Raises
    ------
    InputError
        When an argument is not as above.
    """
    embedding = FullNetworkEmbedding(share, standardize=standardize)
    train = embedding.fit_transform(list(layers))
    labels = check_labels(labels, len(train))
    train, rotate = rotated(train)
    head = LinearHead(linear_svm(1.0, seed), train, labels)
    warn_unconverged(head)
    kept = [np.concatenate(part) for part in zip(*embedding.statistics_, strict=True)]
    arrays = {
        **dict(zip(("mean", "deviation"), kept, strict=True)),
        "low": np.array(embedding.negative), "high": np.array(embedding.positive), **head.scores(rotate),
    }  # fmt: skip
    return HeadFit(lambda test: head.predict(rotate(embedding.transform(list(test)))), 1, None, arrays)


def _is_layers(X: Any) -> bool:
    return isinstance(X, list | tuple) and len(X) > 0 and np.ndim(X[0]) == 2


def _matrices(X: Any) -> list[np.ndarray]:
    """Return the layers in `X` as finite matrices with equally many rows; a matrix counts as one layer."""
    layers = [check_features(np.asarray(layer), "X") for layer in (X if _is_layers(X) else [X])]
    rows = {len(layer) for layer in layers}
    if len(rows) > 1:
        raise InputError(f"Expected layers of the same images, but they have {sorted(rows)} rows")
    return layers


def _count(share: str | float, n_layers: int, *, side_by_side: bool) -> int:
    """Return how many layers `share` keeps of `n_layers`."""
    part = SHARES.get(share) if isinstance(share, str) else share
    if part is None or not 0 < part <= 1:
        raise InputError(f"Expected `layers` to be one of {', '.join(SHARES)} or a share in (0, 1], but got {share!r}")
    if side_by_side and part < 1:
        raise InputError(f"Expected a list of layers to keep {share!r} of them, but got one matrix")
    # 0.29 · 100 is a little less than 29.
    return max(1, math.floor(part * n_layers + 1e-9))
