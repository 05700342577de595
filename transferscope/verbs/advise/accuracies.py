"""What each way to transfer one source is expected to reach: by the model of `rank`, or next to what it says."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.special import expit
from scipy.special import logit as exact_logit
from sklearn.model_selection import StratifiedKFold

from transferscope.arrays.backend import Array, to_numpy
from transferscope.errors import TransferscopeWarning
from transferscope.protocols.heads.embedding import fit_embedding_head
from transferscope.runtime.links import logit
from transferscope.runtime.metrics import ACCURACY, Metric
from transferscope.transferability import kernel_ridge, ridge
from transferscope.transferability.shares import share_correct

HALF_BELIEVED = 100
"""Probe images at which half of a difference between two accuracies on images left out is believed: with few images
most of it is chance. Checked by benchmarks/advice.py."""
_FOLDS = 5
_EDGE = 1e-6


def choose_depths(scores: xr.Dataset) -> dict[str, int]:
    """Return how many stages each way keeps, by the name that `measure` has for its protocol.

    Heads on frozen features and the partly frozen networks are cut where they are expected to do best (of equal depths
    the shallowest), the latter with at least one stage left to be trained. Ways that nothing is expected of, because
    scores are undefined there, are left out.

    Parameters
    ----------
    scores : xarray.Dataset
        What `expected_accuracies` returns, of one source with a prediction at some depth.
    """
    depths = int((scores["layer"].to_numpy() != "").sum())
    ranges = {
        "truncate": range(1, depths + 1), "reinit": range(1, depths), "defrost": range(1, depths),
        "finetune": range(depths, depths + 1),
    }  # fmt: skip
    best = {}
    for protocol, allowed in ranges.items():
        values = scores["expected_accuracy"].sel(protocol=protocol, depth=list(allowed)).to_numpy()
        if np.isfinite(values).any():
            best[protocol] = allowed[int(np.nanargmax(values))]
    head = best.pop("truncate")
    return {"truncate": head, "fne": depths, "toptuning": head, **best, "scratch": 0}


def head_shifts(
    layers: Sequence[Array], labels: np.ndarray, depth: int, seed: int = 0, metric: Metric = ACCURACY
) -> dict[str, float]:
    """Return how far other heads on frozen features lie above a linear one at this depth, in logits.

    Nothing is fitted to measured transfers here. What is taken is the accuracy of the head on images that were left out
    (for top-tuning one by one, in closed form; for the embedding a fifth at a time) against the leave-one-out accuracy
    of ridge, in the share that so many images deserve (`HALF_BELIEVED`).

    Parameters
    ----------
    layers : sequence of array
        (n_samples, n_features) of every stage, from the input on.
    labels : numpy.ndarray
        (n_samples,) class codes.
    depth : int
        Stages that the linear head and that of top-tuning stand on; the embedding has all.
    seed : int
        Decides which images are left out together.
    metric : Metric
        What is compared.
    """
    n, features = len(labels), layers[depth - 1]
    balanced = metric.by_class
    linear = ridge(features, labels, balanced=balanced)
    embedded = _embedding_accuracy([to_numpy(layer) for layer in layers], labels, seed, balanced)
    others = {
        "fne": linear if embedded is None else embedded,
        "toptuning": kernel_ridge(features, labels, balanced=balanced),
    }
    believed = n / (n + HALF_BELIEVED)
    return {
        protocol: float(believed * (logit(accuracy, n) - logit(linear, n))) for protocol, accuracy in others.items()
    }


def _embedding_accuracy(layers: Sequence[np.ndarray], labels: np.ndarray, seed: int, balanced: bool) -> float | None:
    """Return the accuracy of the full-network embedding by cross-validation; None with one image of a class alone.

    The leave-one-out accuracy of ridge on the embedded images tells nothing of the SVM that belongs to it.
    """
    counts = np.bincount(labels)
    folds = min(_FOLDS, int(counts[counts > 0].min()))
    if folds < 2:
        return None
    hits = np.zeros(len(labels), dtype=bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)  # of a solver that stops early
        for seen, left_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels):
            head = fit_embedding_head([layer[seen] for layer in layers], labels[seen], seed=seed)
            hits[left_out] = head.predict([layer[left_out] for layer in layers]) == labels[left_out]
    return share_correct(hits, np.unique(labels, return_inverse=True)[1], balanced=balanced)


def expected(
    scores: xr.Dataset, depths: Mapping[str, int], shifts: Mapping[str, float]
) -> dict[str, tuple[float, float, float]]:
    """Return the expected accuracy of each way, and the ends of its interval.

    Parameters
    ----------
    scores : xarray.Dataset
        What `expected_accuracies` returns, of one source.
    depths : mapping of str to int
        As `choose_depths` returns them.
    shifts : mapping of str to float
        As `head_shifts` returns them: ways that are predicted by `truncate` with its logits shifted.
    """
    names = ("expected_accuracy", "lower", "upper")
    accuracies = {}
    for protocol, depth in depths.items():
        if protocol == "scratch":
            values = [float(scores[f"scratch_{name}"]) for name in names]
        elif protocol in shifts:
            cut = scores.sel(protocol="truncate", depth=depths["truncate"])
            logits = exact_logit(np.clip([float(cut[name]) for name in names], _EDGE, 1 - _EDGE))
            values = expit(logits + shifts[protocol]).tolist()
        else:
            cut = scores.sel(protocol=protocol, depth=depth)
            values = [float(cut[name]) for name in names]
        accuracies[protocol] = (values[0], values[1], values[2])
    return accuracies
