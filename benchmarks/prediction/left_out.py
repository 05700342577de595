"""Calibrations that know nothing of what they are judged on: a target, a network, or a whole ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from prediction import reml
from prediction.calibrate import beliefs, calibration, chosen_effect, fitted, prepared
from transferscope.prediction.calibration import Calibration, Chosen

STEPS = 4
"""Of the optimiser from the components of all targets, for those without one."""
NOTHING = Chosen(0.0, 1.0)


def without_target(rows: pd.DataFrame, found: reml.Fitted) -> dict[str, Calibration]:
    """Return for each target a calibration that was fitted without its runs on any map, components included.

    It knows the networks of all maps from the other targets, which counts once `of_sources` names them.
    """
    known = {}
    for target in rows["target"].unique():
        others = rows[rows["target"] != target].reset_index(drop=True)
        refitted = fitted(others, components=found.components, steps=STEPS)
        known[str(target)] = calibration(refitted, NOTHING, "without", networks=True)
    return known


def corrected(cells: pd.DataFrame, known: Mapping[str, Calibration]) -> dict[str, Calibration]:
    """Return the calibrations with the correction for choosing, each from what happened on the other targets."""
    strangers = {target: each.of_sources({}) for target, each in known.items()}
    believed = beliefs(cells[cells["ahead"] == 0], strangers)
    return {
        target: replace(known[target], chosen=chosen_effect(believed[believed["target"] != target], known[target]))
        for target in known
    }


def without_network(rows: pd.DataFrame, found: reml.Fitted, source: str) -> dict[str, Calibration]:
    """Return for each target that a network was measured on a calibration without any run of either."""
    having = rows.loc[rows["source"] == source, "target"].unique()
    others = fitted(rows[rows["source"] != source].reset_index(drop=True), components=found.components, steps=0)
    return {str(target): calibration(others, NOTHING, "without", str(target)) for target in having}


def from_maps(maps: Sequence[str], targets: Sequence[str]) -> dict[str, Calibration]:
    """Return what is known from some maps alone: for each target that is judged, without its runs there."""
    rows = prepared(maps)
    found = fitted(rows)
    return {target: calibration(found, NOTHING, "", target) for target in targets}
