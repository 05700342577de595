"""The tables that the page rests on, in one form: transfers that ended, with their size, share and test images."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from groundtruth.maps import read_runs
from groundtruth.real_report import with_fewer
from groundtruth.v2 import rows
from groundtruth.v2.design import SHARES
from groundtruth.v2.training import RECIPE

HEADS = ("truncate", "toptuning")
TRAINED = ("reinit", "finetune", "defrost")
SIZES = {10: 20}
"""Omniglot has no 20 images of a class to train on: its 10 stand with the 20 of others."""
TESTED = {
    "trashnet": 1011, "sign-digits": 1031, "pacs-sketch": 1964, "pacs-photo": 918, "gtsrb": 1620, "omniglot-30": 300,
    "caltech-2": 60, "caltech-10": 300, "caltech-30": 900, "caltech-100": 2000,
}  # fmt: skip
"""Test images of each target of v2."""
TESTED_V1 = dict.fromkeys(("trashnet", "sign-digits", "pacs-art", "pacs-cartoon", "pacs-sketch"), 500) | {
    "fashion-mnist": 225, "pacs-photo": 418,
}  # fmt: skip
CELL = ["target", "source", "protocol", "depth", "layer", "samples_per_class"]


@dataclass(frozen=True)
class Tables:
    """All runs that ended, with `size` (images of each class, alike in all targets), `share` and `tested`.

    `share` is that of the stages kept or frozen, by the design's name for it; of what fits a head, the depth over the
    number of stages.
    """

    heads: pd.DataFrame
    """v2: what fits a classifier to frozen features."""
    trained: pd.DataFrame
    """v2: what trains a network, by the present recipe."""
    small: pd.DataFrame
    """v1: one small architecture."""
    real: pd.DataFrame
    """v1: the networks that people have."""
    on_gpu: bool
    """Whether runs of `trained` were timed on a GPU, so that seconds are not those of one machine."""

    @property
    def everything(self) -> pd.DataFrame:
        """Return all of v2."""
        return pd.concat([each for each in (self.heads, self.trained) if len(each)] or [self.heads], ignore_index=True)


def load(v2: Path, v1: Path) -> Tables:
    """Read the maps: `v2` holds frozen/ and trained/, `v1` small/ and real/."""
    heads = _ended(rows.read(sorted((v2 / "frozen").glob("*/runs.csv"))))
    trained = _ended(rows.read(sorted((v2 / "trained").glob("*/runs.csv"))))
    trained = trained[trained[rows.RECIPE].astype(str) == RECIPE.version]
    hours = v2 / "hours.csv"
    worked = pd.read_csv(hours) if hours.exists() else pd.DataFrame(columns=["stream", "device"])
    with contextlib.redirect_stdout(io.StringIO()):  # the page of v1 says which target has fewer
        real = with_fewer(read_runs(v1 / "real"))
    return Tables(
        _formed(heads, TESTED, SIZES), _formed(trained, TESTED, SIZES),
        _formed(read_runs(v1 / "small"), TESTED_V1), _formed(real, TESTED_V1),
        bool((worked["device"][worked["stream"] == "trained"] == "cuda").any()),
    )  # fmt: skip


def _ended(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["status"] == "done"]


def _formed(runs: pd.DataFrame, tested: Mapping[str, int], sizes: Mapping[int, int] | None = None) -> pd.DataFrame:
    numbers = ["depth", "depths", "samples_per_class", "samples", "seed", "accuracy", "seconds", "flops", "kwh"]
    runs = runs.fillna({"layer": ""}).astype(dict.fromkeys(numbers, float)).reset_index(drop=True)
    return runs.assign(
        size=runs["samples_per_class"].replace(dict(sizes or {})).astype(int),
        share=[named_share(*row) for row in zip(runs["protocol"], runs["depth"], runs["depths"], strict=True)],
        tested=runs["target"].map(tested).astype(float),
    )


def named_share(protocol: str, depth: float, stages: float) -> float:
    """Return the share of the design that is cut at `depth`, else the depth over the stages; fne keeps all."""
    if protocol in ("fne", "scratch") or not stages:
        return 1.0 if protocol == "fne" else 0.0
    known = (*SHARES.get(protocol, SHARES["reinit"]), 1.0)
    lowest = 0 if protocol == "defrost" else 1
    for share in known:
        if max(lowest, int(share * stages)) == depth:
            return share
    return 0.0 if depth == 1 and protocol == "finetune" else float(depth / stages)


def logit(accuracy: pd.Series, tested: pd.Series) -> np.ndarray:
    """Return ln(a / (1 - a)), half an image added to right and wrong so that 0 and 1 have one too."""
    right = accuracy.to_numpy(float) * tested.to_numpy(float)
    return np.log((right + 0.5) / (tested.to_numpy(float) - right + 0.5))
