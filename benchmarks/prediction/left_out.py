"""Calibrations that know nothing of what they are judged on: a target, a network, or a whole ground truth."""

from collections.abc import Mapping, Sequence

import pandas as pd

from prediction import reml
from prediction.calibrate import beliefs, calibration, chosen_effect, fitted, prepared
from transferscope.prediction.calibration import Calibration, Chosen

STEPS = 4
"""Of the optimiser from the components of all targets, for those without one."""
NOTHING = Chosen(0.0, 1.0)


def without_target(rows: pd.DataFrame, found: reml.Fitted) -> dict[str, Calibration]:
    """Return for each target a calibration that was fitted without its runs on any map, components included."""
    known = {}
    for target in rows["target"].unique():
        others = rows[rows["target"] != target].reset_index(drop=True)
        known[str(target)] = calibration(fitted(others, components=found.components, steps=STEPS), NOTHING, "without")
    return known


def corrected(cells: pd.DataFrame, known: Mapping[str, Calibration]) -> dict[str, Calibration]:
    """Return the calibrations with the correction for choosing, each from what happened on the other targets."""
    believed = beliefs(cells[cells["ahead"] == 0], known)
    return {
        target: calibration_with(known[target], chosen_effect(believed[believed["target"] != target], known[target]))
        for target in known
    }


def calibration_with(known: Calibration, chosen: Chosen) -> Calibration:
    """Return a calibration with another correction for choosing."""
    return Calibration(
        known.terms, known.coefficients, known.factor, known.components, known.draw_noise, chosen, known.measured
    )


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
