"""What a prediction is made from: one row for each way to transfer, from scores that need no transfer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from transferscope.errors import InputError, check_whole
from transferscope.runtime.links import Link, link_of
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, Metric
from transferscope.transferability import tasks

CUT_PROTOCOLS = ("truncate", "reinit", "finetune", "defrost")
SCRATCH = "scratch"
COVARIATES = {
    "log_per_class": "ln of a twentieth of the number of images of a class to train on, the mean over classes",
    "log_classes": "ln of a tenth of the number of classes",
    "log_more": "ln of how many times more images are trained on than scores were computed on",
    "stages": "ln of a sixth of the number of stages of the source",
    "rank": "ln of the largest effective rank of the source's layers",
    "kept": "share of the source's stages whose weights are kept; of what is past a quarter, a half … in `past_25` …",
    "past_25": "kept less 0.25, else 0",
    "past_50": "kept less 0.5, else 0",
    "past_65": "kept less 0.65, else 0",
    "past_75": "kept less 0.75, else 0",
    "past_85": "kept less 0.85, else 0",
    "whole": "1 where all stages are kept, else 0",
    "target_head": "mean logit of the leave-one-out accuracies (`HEADS`) of the upper halves of all sources",
    "target_gain": "the same of how far LogME lies above that of features that tell balanced classes nothing",
    "source_head": "how far that of this source lies above `target_head`",
    "source_far": "what of that is past ±0.7, as sources of measured transfers seldom are, as far as it is no chance",
    "source_gain": "how far that of this source lies above `target_gain`",
    "head": "how far the logit at this depth, smoothed over depths, lies above the mean of the source's upper half",
    "gain": "the same of LogME",
    "alignment": "how far the alignment with the labels, smoothed, lies above the mean over the source's depths",
    "excess": "how far the head at this depth lies above the network from scratch, in logits, else 0",
    "deficit": "how far the best head of the source lies below the network from scratch, in logits, else 0",
    "scratch": "logit of the accuracy of a network from scratch; held-out images being few, drawn toward the best head",
    "short_schedule": "1 where training ends after 150 steps or 12 epochs, as some of the measured transfers did",
    "two_rates": "1 where the head learns ten times as fast as the rest, with warm-up and cropped images, as some did",
    "seen": "n / (n + 50) of n images that scores were computed on: how far they are to be believed",
    "unseen": "1 less that",
}
"""What a prediction may depend on. Those of a source are 0 for training from scratch; `defrost` has those of the whole
source, whatever is frozen of it."""

RECIPES = ("short_schedule", "two_rates")
"""Those that tell by which recipe a transfer is trained: 0 for that of transferscope."""
HEADS = ("ridge", "knn", "nearest_mean", "kernel_ridge")
"""Classifiers whose leave-one-out accuracies are taken together: with few images each is noise in a way of its own."""
AS_CLASSES = 10
"""Classes that images without any are divided by, for what depends on the images of each."""
_HINGES = {"past_25": 0.25, "past_50": 0.5, "past_65": 0.65, "past_75": 0.75, "past_85": 0.85}
_SEEN = 50
_FEW_HELD_OUT = 10
"""Held-out images at which the accuracy from scratch and that of the best head count equally much."""
_REACH = 0.6
"""Depths, as shares, over which scores of one source go together: exp(-distance / reach)."""
_SPREADS = {"head": (0.4, 2.0), "gain": (0.1, 0.3), "alignment": (0.05, 0.15)}
"""Standard deviations of a score over the depths of a source, and of its noise with one image."""
_APART, _COUNTS_FOR = 0.06, 3
"""Variance, in squared logits, of what heads on sources reach, and how many sources that expectation counts for."""
_CHANCE = 4.0
"""The same of chance with one image: what slopes of measured on leave-one-out logits come to on all maps."""
_FAR = 0.7
"""Logits that heads on two sources of measured transfers seldom lie further apart than, from their mean."""


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
        Classes of the target; of another task `AS_CLASSES`.
    scratch_accuracy : float or None
        Held-out accuracy of a network trained from scratch on the probe; None if there is none.
    scratch_held_out : int
        Images that it was measured on.
    scratch_trained_on : int
        Images that it was trained on; 0 for those of the probe that were not held out.
    metric : Metric
        What all figures are of, the scratch accuracy among them.
    """

    samples: int
    probe: int
    classes: int
    scratch_accuracy: float | None = None
    scratch_held_out: int = 0
    scratch_trained_on: int = 0
    metric: Metric = ACCURACY

    def __post_init__(self) -> None:
        for name, least in (
            ("samples", 1),
            ("probe", 2),
            ("classes", 2),
            ("scratch_held_out", 0),
            ("scratch_trained_on", 0),
        ):
            check_whole(name, getattr(self, name), least)
        if (self.scratch_accuracy is None) != (self.scratch_held_out == 0):
            raise InputError(
                "Expected `scratch_accuracy` and `scratch_held_out` to come together, but got "
                f"{self.scratch_accuracy!r} on {self.scratch_held_out} images"
            )

    @property
    def link(self) -> Link:
        """The line that figures are believed on."""
        return link_of(self.metric)

    @property
    def needed(self) -> tuple[str, ...]:
        """Scores that a prediction is made from."""
        return tasks.needed_of(self.metric.task)

    @property
    def heads(self) -> tuple[str, ...]:
        """Those of them that are leave-one-out figures of the metric."""
        return HEADS if self.metric.task == CLASSIFICATION else tasks.HEADS

    def of_size(self, samples: int) -> Mapping[str, float]:
        """Return the covariates that change with the number of images trained on."""
        return {
            "log_per_class": math.log(samples / self.classes / 20),
            "log_more": math.log(samples / self.probe),
        }


def candidates(scores: pd.DataFrame, case: Case) -> pd.DataFrame:
    """List every way to transfer, each with its covariates.

    Parameters
    ----------
    scores : pandas.DataFrame
        A row for each source and depth: source, depth (stages kept), depth_fraction, and the scores in `Case.needed`.
        Rows with an undefined score are left out.
    case : Case
        The target.

    Returns
    -------
    pandas.DataFrame
        Columns source, depth, depth_fraction, protocol and `COVARIATES`: for each row of `scores` one for each of
        `CUT_PROTOCOLS`, and at the end one for training from scratch, its source empty and its depth 0.

    Raises
    ------
    InputError
        When a column is missing, or no row has all its scores.
    """
    wanted = ["source", "depth", "depth_fraction", *case.needed]
    if missing := [name for name in wanted if name not in scores]:
        raise InputError(f"Expected `scores` to have columns {', '.join(wanted)}, but there is no {', '.join(missing)}")
    complete = scores.loc[scores[wanted].notna().all(axis=1), wanted]
    if complete.empty:
        raise InputError(f"Expected `scores` to have a row with {', '.join(case.needed)}, but there is none")
    rows = _of_sources(complete.reset_index(drop=True), case)
    heads = rows["target_head"] + rows["source_head"] + rows["head"]
    scratch = _scratch(case, float(heads.max()))
    rows["excess"] = (heads - scratch).clip(lower=0)
    rows["deficit"] = (scratch - heads.groupby(rows["source"]).transform("max")).clip(lower=0)
    deepest = rows.loc[rows.groupby("source")["depth"].transform("idxmax")].set_axis(rows.index)
    frozen = deepest.assign(depth=rows["depth"], depth_fraction=rows["depth_fraction"])
    cuts = [(frozen if each == "defrost" else rows).assign(protocol=each) for each in CUT_PROTOCOLS]
    nothing = dict.fromkeys(COVARIATES, 0.0) | {"source": "", "depth": 0, "depth_fraction": 0.0, "protocol": SCRATCH}
    nothing |= {name: float(rows[name].iloc[0]) for name in ("target_head", "target_gain")}
    columns = ["source", "depth", "depth_fraction", "protocol", *COVARIATES]
    table = pd.concat([*cuts, pd.DataFrame([nothing])], ignore_index=True)
    seen = case.probe / (case.probe + _SEEN)
    return table.assign(
        **case.of_size(case.samples),
        log_classes=math.log(case.classes / 10),
        scratch=scratch,
        seen=seen,
        unseen=1 - seen,
        **dict.fromkeys(RECIPES, 0.0),
    )[columns]


def _of_sources(scores: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Return the covariates of each source and depth that need no network from scratch."""
    kept = scores["depth_fraction"].astype(float)
    by_source = scores["source"]
    rows = scores[["source", "depth"]].assign(depth_fraction=kept, kept=kept, whole=(kept == 1).astype(float))
    for name, start in _HINGES.items():
        rows[name] = (kept - start).clip(lower=0)
    rows["stages"] = np.log((scores["depth"] / kept).groupby(by_source).transform("max") / 6)
    nothing = pd.Series(0.0, scores.index)
    heads = sum(case.link.onto(scores[name].to_numpy(float), case.probe) for name in case.heads) / len(case.heads)
    values = {
        "head": pd.Series(heads, scores.index),
        "gain": nothing,
        "alignment": nothing,
    }
    rows["rank"] = 0.0
    if case.metric.task == CLASSIFICATION:  # how these go with figures of other tasks nobody has measured
        rows["rank"] = np.log(scores["effective_rank"].clip(lower=1)).groupby(by_source).transform("max")
        values |= {"gain": scores["logme"] - _uninformed(case.classes), "alignment": scores["alignment"]}
    for name, raw in values.items():
        rows[f"{name}_level"] = np.nan
        for index in by_source.groupby(by_source).groups.values():
            level, smoothed = smooth(kept[index].to_numpy(), raw[index].to_numpy(float), *_SPREADS[name], case.probe)
            rows.loc[index, f"{name}_level"], rows.loc[index, name] = level, smoothed
    for name in ("head", "gain"):
        values = rows[f"{name}_level"] + rows[name]
        # A source without a score in its upper half is known by all of them.
        means = values[kept >= 0.5].groupby(by_source).mean().reindex(by_source.unique())
        means = means.fillna(values.groupby(by_source).mean())
        apart = means - means.mean()
        rows[f"target_{name}"] = means.mean()
        rows[f"source_{name}"] = by_source.map(apart)
        rows[name] = values - by_source.map(means)
    heads = rows["source_head"]
    believed = _believed(heads.groupby(by_source, sort=False).first(), case.probe)
    rows["source_far"] = (heads - heads.clip(-_FAR, _FAR)) * believed
    return rows


def _believed(apart: pd.Series, n_samples: int) -> float:
    """Return the share of the differences between sources that is no chance of so few images.

    That is the share of their variance (James and Stein 1961), which is expected to be `_APART` and is estimated from
    the sources themselves where these are many.
    """
    noise = _CHANCE / n_samples
    expected = _COUNTS_FOR * _APART + float((apart**2).sum()) - (len(apart) - 1) * noise
    signal = max(expected / (_COUNTS_FOR + len(apart) - 1), _APART / 3)
    return signal / (signal + noise)


def smooth(
    depths: np.ndarray, values: np.ndarray, spread: float, noise: float, n_samples: int
) -> tuple[float, np.ndarray]:
    """Return the level of a score and its deviation at each depth, as far as so many images are to be believed.

    The posterior mean of a Gaussian process over depth (Rasmussen and Williams 2006, sections 2.2 and 2.7) with kernel
    spread² exp(-|distance| / 0.6), an unknown level, and independent noise of variance noise² / n_samples.

    Parameters
    ----------
    depths : numpy.ndarray
        (n_depths,), shares in (0, 1].
    values : numpy.ndarray
        (n_depths,).
    spread, noise : float
        Positive.
    n_samples : int
        At least 1.
    """
    kernel = spread**2 * np.exp(-np.abs(depths[:, None] - depths) / _REACH)
    weights = np.linalg.inv(kernel + (noise**2 / n_samples + 1e-5) * np.eye(len(depths)))
    level = weights.sum(axis=0) @ values / weights.sum()
    return float(level), kernel @ weights @ (values - level)


def _scratch(case: Case, best_head: float) -> float:
    if case.scratch_accuracy is None:
        return best_head
    weight = case.scratch_held_out / (case.scratch_held_out + _FEW_HELD_OUT)
    measured = float(case.link.onto(case.scratch_accuracy, case.scratch_held_out))
    return weight * measured + (1 - weight) * best_head


def _uninformed(classes: int) -> float:
    """Return the LogME of features that tell nothing: the likelihood of class indicators by their mean and variance."""
    return -0.5 * math.log(2 * math.pi * math.e * (classes - 1) / classes**2)
