"""What a prediction is made from: one row for each way to transfer, from scores that need no transfer."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from transferscope.errors import InputError, check_whole
from transferscope.transferability.scores import NEEDED

CUT_PROTOCOLS = ("truncate", "reinit", "finetune")
SCRATCH = "scratch"
COVARIATES = {
    "log_per_class": "ln of the number of images of a class to train on, the mean over classes",
    "log_more": "ln of how many times more they are than the probe images that scores were computed on",
    "depth_fraction": "share of the source's stages that are kept",
    "whole": "1 where all of them are, else 0",
    "rank": "ln of the largest effective rank of the source's layers",
    "head": "mean logit of what images are classified correctly by ridge, the nearest neighbours and the nearest class "
    "mean at this depth, when each is left out",
    "gain": "how far LogME at this depth lies above that of features that tell balanced classes nothing",
    "gap": "how far the head at this depth lies above scratch, or below it, in logits",
    "excess": "the same where the head lies above, else 0",
    "scratch": "logit of the accuracy of a network from scratch; held-out images being few, drawn toward the best head",
}
"""What a prediction may depend on. Those of a source are 0 for training from scratch."""

_OF_SOURCE = ("depth_fraction", "whole", "rank", "head", "gain", "gap", "excess")
_FEW_HELD_OUT = 10
"""Held-out images at which the accuracy from scratch and that of the best head count equally much."""
HEADS = ("ridge", "knn", "nearest_mean")
"""Classifiers whose leave-one-out accuracies `head` is made of: with few images each is noise in a way of its own."""
_COLUMNS = ("source", "depth", "depth_fraction", *NEEDED)


@dataclass(frozen=True)
class Case:
    """A target and what is to be predicted for it.

    Attributes
    ----------
    samples : int
        Images that the transfer is trained on.
    probe : int
        Images that the scores were computed on.
    classes : int
        Classes of the target.
    scratch_accuracy : float or None
        Held-out accuracy of a network trained from scratch on the probe; None if there is none.
    scratch_held_out : int
        Images that it was measured on.
    """

    samples: int
    probe: int
    classes: int
    scratch_accuracy: float | None = None
    scratch_held_out: int = 0

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("probe", 2), ("classes", 2), ("scratch_held_out", 0)):
            check_whole(name, getattr(self, name), least)
        if (self.scratch_accuracy is None) != (self.scratch_held_out == 0):
            raise InputError(
                "Expected `scratch_accuracy` and `scratch_held_out` to come together, but got "
                f"{self.scratch_accuracy!r} on {self.scratch_held_out} images"
            )


def candidates(scores: pd.DataFrame, case: Case) -> pd.DataFrame:
    """List every way to transfer, each with its covariates.

    Parameters
    ----------
    scores : pandas.DataFrame
        A row for each source and depth: source, depth (stages kept), depth_fraction, and the scores in `NEEDED`. Rows
        with an undefined score are left out.
    case : Case
        The target.

    Returns
    -------
    pandas.DataFrame
        Columns source, depth, protocol and `COVARIATES`: for each row of `scores` truncate, reinit and finetune, and at
        the end one row for training from scratch, its source empty and its depth 0.

    Raises
    ------
    InputError
        When a column is missing, or no row has all its scores.
    """
    if missing := [name for name in _COLUMNS if name not in scores]:
        raise InputError(
            f"Expected `scores` to have columns {', '.join(_COLUMNS)}, but there is no {', '.join(missing)}"
        )
    complete = scores.loc[scores[list(_COLUMNS)].notna().all(axis=1), list(_COLUMNS)]
    if complete.empty:
        raise InputError(f"Expected `scores` to have a row with {', '.join(NEEDED)}, but there is none")
    rows = pd.DataFrame(
        {
            "source": complete["source"],
            "depth": complete["depth"],
            "depth_fraction": complete["depth_fraction"].astype(float),
            "whole": (complete["depth_fraction"] == 1).astype(float),
            "rank": np.log(complete["effective_rank"].clip(lower=1)),
            "head": sum(logit(complete[name], case.probe) for name in HEADS) / len(HEADS),
            "gain": complete["logme"] - _uninformed(case.classes),
        }
    )
    rows["rank"] = rows.groupby("source")["rank"].transform("max")
    scratch = _scratch(case, float(rows["head"].max()))
    rows["gap"] = rows["head"] - scratch
    rows["excess"] = rows["gap"].clip(lower=0)
    cuts = pd.concat([rows.assign(protocol=protocol) for protocol in CUT_PROTOCOLS])
    nothing = pd.DataFrame([dict.fromkeys(_OF_SOURCE, 0.0) | {"source": "", "depth": 0, "protocol": SCRATCH}])
    return pd.concat([cuts, nothing], ignore_index=True).assign(
        log_per_class=math.log(case.samples / case.classes),
        log_more=math.log(case.samples / case.probe),
        scratch=scratch,
    )


def logit(accuracy: float | pd.Series, n_samples: int) -> float | pd.Series:
    """Return the logit of an accuracy measured on this many images, half a hit and half a miss added to them."""
    hits = accuracy * n_samples + 0.5
    return np.log(hits / (n_samples + 1 - hits))


def _uninformed(classes: int) -> float:
    """Return the LogME of features that tell nothing: the likelihood of class indicators by their mean and variance."""
    return -0.5 * math.log(2 * math.pi * math.e * (classes - 1) / classes**2)


def _scratch(case: Case, best_head: float) -> float:
    if case.scratch_accuracy is None:
        return best_head
    weight = case.scratch_held_out / (case.scratch_held_out + _FEW_HELD_OUT)
    return weight * float(logit(case.scratch_accuracy, case.scratch_held_out)) + (1 - weight) * best_head
