"""Heads on frozen features for several labels an image, or for numbers: a column of weights for each of them.

Of labels these are classifiers of one against the rest; of numbers ridge regressions, whose penalty is the one that
predicts left-out images best. Top-tuning is kernel ridge regression on either.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV

from transferscope.arrays import nystrom
from transferscope.arrays.backend import to_numpy
from transferscope.arrays.linalg import check_features
from transferscope.errors import InputError
from transferscope.protocols.heads.embedding import FullNetworkEmbedding
from transferscope.protocols.heads.linear import (
    PENALTIES,
    HeadFit,
    LinearHead,
    Rotation,
    linear_svm,
    rotated,
    statistics,
    warn_unconverged,
)
from transferscope.protocols.heads.modules import HeadScores
from transferscope.protocols.training.objective import Scale
from transferscope.runtime.metrics import MULTI_LABEL, REGRESSION
from transferscope.transferability.kernel_ridge import BANDWIDTHS, left_out_by_kernel_ridge
from transferscope.transferability.kernel_ridge import PENALTIES as KERNEL_PENALTIES
from transferscope.transferability.layer import Layer

ALPHAS = np.logspace(-1, 5, 13)
"""Ridge penalties tried."""
CENTERS = 2000
"""Images that a kernel is centred on at most, and by which its width and penalty are chosen."""

_NO_NUMBERS = ("svm", "nearest_mean")


def check_protocol(protocol: str, task: str) -> None:
    """Raise InputError when a head has no meaning for a task."""
    if task == REGRESSION and protocol in _NO_NUMBERS:
        raise InputError(
            f"Expected a protocol that learns numbers, but {protocol} tells classes apart and has no meaning for a "
            "regression; take truncate, toptuning or fne, or one that trains the network"
        )


def fit_linear_outputs(
    name: str, features: np.ndarray, values: np.ndarray, task: str, validation: np.ndarray | None, seed: int
) -> HeadFit:
    """Fit the head `name` to features of training images, as `linear.fit_head` does it for classes.

    C is the one of `PENALTIES`, the same for all labels, with the least loss on the validation images; the penalty of
    a ridge regression that of `ALPHAS` with the least error of left-out images.

    Parameters
    ----------
    name : {"truncate", "svm", "nearest_mean"}
        The head; for numbers "truncate" alone.
    features : numpy.ndarray
        (n_samples, n_features).
    values : numpy.ndarray
        (n_samples, n_outputs): 0 and 1 of labels, or numbers.
    task : {"multi-label", "regression"}
        Which of them.
    validation : numpy.ndarray, optional
        Positions that C is chosen by.
    seed : int
        Order in which the SVM's solver visits the images.

    Returns
    -------
    HeadFit
        `predict` returns scores of labels, above 0 where one is predicted, or numbers: (n_test, n_outputs) float64.
    """
    features = _checked(features, values)
    check_protocol(name, task)
    if name == "nearest_mean":
        return _with(_nearest_means(features, values), features.shape[1])
    mean, deviation = statistics(features)
    coordinates, rotate = rotated((features - mean) / deviation)
    if task == REGRESSION:
        arrays, accuracy = _ridge(coordinates, values, rotate)
        trials = len(ALPHAS)
    else:
        grid = PENALTIES[name]
        penalty, accuracy, trials = grid[len(grid) // 2], None, 1
        if validation is not None:
            penalty, accuracy = _best_penalty(name, features, values, validation, seed)
            trials = len(grid)
        arrays = _weights(_one_against_rest(name, penalty, coordinates, values, seed), values, rotate)
    return _with({"mean": mean, "deviation": deviation, **arrays}, features.shape[1], trials, accuracy)


def fit_embedding_outputs(
    layers: Sequence[np.ndarray], values: np.ndarray, task: str, share: str | float = "all", *, seed: int = 0
) -> HeadFit:
    """Embed training images as `embedding.fit_embedding_head`, and fit linear SVMs of C = 1, or a ridge regression."""
    embedding = FullNetworkEmbedding(share)
    train, rotate = rotated(_checked(embedding.fit_transform(list(layers)), values))
    if task == REGRESSION:
        arrays, accuracy = _ridge(train, values, rotate)
    else:
        arrays, accuracy = _weights(_one_against_rest("svm", 1.0, train, values, seed), values, rotate), None
    kept = [np.concatenate(part) for part in zip(*embedding.statistics_, strict=True)]
    arrays |= {
        **dict(zip(("mean", "deviation"), kept, strict=True)),
        "low": np.array(embedding.negative), "high": np.array(embedding.positive),
    }  # fmt: skip
    n_layers = len(embedding.statistics_)
    predict = _predictor(arrays, len(kept[0]))
    trials = len(ALPHAS) if task == REGRESSION else 1
    return HeadFit(lambda test: predict(np.hstack(list(test)[-n_layers:])), trials, accuracy, arrays)


def fit_kernel_outputs(features: np.ndarray, values: np.ndarray, task: str, seed: int) -> HeadFit:
    """Fit Gaussian kernel ridge regression to labels (0 or 1) or numbers, on some of the images as centres.

    Its width and penalty are those that predict left-out images best.
    """
    features = _checked(features, values)
    order = np.random.default_rng(seed).permutation(len(features))[:CENTERS]
    scale = Scale.of(values) if task == REGRESSION else Scale(values.mean(axis=0), np.ones(values.shape[1]))
    targets = scale.applied(values)
    chosen, residuals = left_out_by_kernel_ridge(Layer(features[order]), targets[order], np.zeros(len(order), np.int64))
    centers = features[np.sort(order)].astype(np.float64)
    wide = features.astype(np.float64)
    weights = to_numpy(nystrom.fit(wide, targets, centers, chosen.bandwidth).solve(chosen.penalty)).T
    middle = centers.mean(axis=0)
    arrays = {
        "mean": middle, "deviation": np.full(centers.shape[1], chosen.bandwidth),
        "centers": (centers - middle) / chosen.bandwidth, "weight": weights * scale.deviation[:, None],
        "bias": scale.mean - (_HALF if task == MULTI_LABEL else 0.0),
    }  # fmt: skip
    accuracy = _share_right(targets[order] - residuals, targets[order], scale, task)
    return _with(arrays, features.shape[1], len(BANDWIDTHS) * len(KERNEL_PENALTIES), accuracy)


_HALF = 0.5
"""Between 0 and 1: above it a regression onto them predicts a label."""


def _share_right(predicted: np.ndarray, targets: np.ndarray, scale: Scale, task: str) -> float:
    if task == REGRESSION:
        return float(1 - np.mean((predicted - targets) ** 2))
    return float(np.mean((scale.undone(predicted) > _HALF) == (scale.undone(targets) > _HALF)))


def _checked(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    features = check_features(features, "features", min_samples=2)
    if values.ndim != 2 or len(values) != len(features):
        raise InputError(
            f"Expected values (n_samples, n_outputs) with a row for each of {len(features)} images, but got "
            f"{values.shape}"
        )
    return features


def _with(arrays: dict[str, np.ndarray], n_features: int, trials: int = 1, accuracy: float | None = None) -> HeadFit:
    return HeadFit(_predictor(arrays, n_features), trials, accuracy, arrays)


def _predictor(arrays: dict[str, np.ndarray], n_features: int) -> Callable[[Any], np.ndarray]:
    """Return what computes outputs of features as a delivered network does."""
    module = HeadScores(arrays)

    def predict(test: np.ndarray) -> np.ndarray:
        test = check_features(test, "test_features")
        if test.shape[1] != n_features:
            raise InputError(
                f"Expected `test_features` to have the {n_features} columns of `features`, but got {test.shape[1]}; "
                "take both from the same layer"
            )
        return module(torch.from_numpy(np.ascontiguousarray(test))).numpy()

    return predict


def _ridge(coordinates: np.ndarray, values: np.ndarray, rotate: Rotation) -> tuple[dict[str, np.ndarray], float]:
    """Return weight and bias of a ridge regression, and R² of left-out images."""
    scale = Scale.of(values)
    model = RidgeCV(ALPHAS).fit(coordinates, scale.applied(values))
    weight = rotate.undone(np.atleast_2d(model.coef_)) * scale.deviation[:, None]
    arrays = {"weight": weight, "bias": scale.undone(np.atleast_1d(model.intercept_))}
    return arrays, float(1 + model.best_score_)


def _one_against_rest(
    name: str, penalty: float | None, features: np.ndarray, values: np.ndarray, seed: int
) -> list[LinearHead | None]:
    """Return a classifier for each label; None of one that all training images have, or none."""
    heads: list[LinearHead | None] = []
    for column in values.T:
        if column.min() == column.max():
            heads.append(None)
            continue
        model = LogisticRegression(C=penalty, tol=1e-5, max_iter=2000) if name == "truncate" else linear_svm(
            float(penalty or 1.0), seed
        )  # fmt: skip
        heads.append(LinearHead(model, features, column.astype(np.int64)))
    for head in heads:
        if head is not None and not head.converged:
            warn_unconverged(head)
            break
    return heads


def _weights(heads: Sequence[LinearHead | None], values: np.ndarray, rotate: Rotation) -> dict[str, np.ndarray]:
    """Return weight (n_labels, n_features) and bias; of labels without a classifier the log-odds by Laplace's rule."""
    width = next((head.model.coef_.shape[1] for head in heads if head is not None), None)
    if width is None:
        raise InputError("Expected training images that some label tells apart, but none does; take more images")
    n, had = len(values), values.sum(axis=0)
    rows = [np.zeros(width) if head is None else head.model.coef_[0] for head in heads]
    odds = np.log((had + _HALF) / (n - had + _HALF))
    biases = [odds[i] if head is None else head.model.intercept_[0] for i, head in enumerate(heads)]
    return {"weight": rotate.undone(np.stack(rows)), "bias": np.array(biases, dtype=np.float64)}


def _best_penalty(
    name: str, features: np.ndarray, values: np.ndarray, validation: np.ndarray, seed: int
) -> tuple[float | None, float]:
    """Return the C of least loss on validation images, fitted to the others, and the share of labels that is right.

    Of equals the smallest.
    """
    held_out = np.zeros(len(values), dtype=bool)
    held_out[validation] = True
    mean, deviation = statistics(features[~held_out])
    train, rotate = rotated((features[~held_out] - mean) / deviation)
    held, truth = rotate((features[held_out] - mean) / deviation), values[held_out].astype(np.int64)
    tried = []
    for penalty in PENALTIES[name]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the final fit says whether it has converged
            heads = _one_against_rest(name, penalty, train, values[~held_out], seed)
        fitted = [(head, column) for head, column in zip(heads, truth.T, strict=True) if head is not None]
        losses = [head.loss(held, column) for head, column in fitted]
        right = [float(np.mean(head.predict(held) == column)) for head, column in fitted]
        tried.append((-float(np.mean(losses)), penalty, float(np.mean(right))))
    _, penalty, right_share = max(tried, key=lambda trial: trial[0])
    return penalty, right_share


def _nearest_means(features: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return arrays by which a label scores as much as its mean is nearer than that of the other images."""
    wide = features.astype(np.float64)
    middle = wide.mean(axis=0)
    had = values.sum(axis=0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        with_it, without = values.T @ (wide - middle) / had, (1 - values.T) @ (wide - middle) / (len(values) - had)
    bias = np.sum(without**2, axis=1) - np.sum(with_it**2, axis=1)
    constant = (had[:, 0] == 0) | (had[:, 0] == len(values))
    weight = np.where(constant[:, None], 0.0, 2 * (with_it - without))
    return {
        "mean": middle, "deviation": np.ones_like(middle), "weight": weight,
        "bias": np.where(constant, np.sign(had[:, 0] - _HALF), bias),
    }  # fmt: skip
