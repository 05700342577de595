"""Why a recommendation is made, in words, from the figures that it was made from."""

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from transferscope.results.cuts import cut_table
from transferscope.results.pilots import Pilot
from transferscope.results.recommendation import Recommendation, how
from transferscope.runtime.links import link_of
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, Metric, metric_of
from transferscope.runtime.numbers import short_number


def reason(
    pick: Recommendation, picks: Sequence[Recommendation], predictions: xr.Dataset, pilots: Sequence[Pilot] = ()
) -> str:
    """Return a paragraph on why `pick`, one of `picks`, stands where it does.

    Parameters
    ----------
    pick : Recommendation
    picks : sequence of Recommendation
        All of them, best first.
    predictions : xarray.Dataset
        What they were chosen from.
    pilots : sequence of Pilot
        Those that were run.
    """
    samples, classes, metric = predictions.attrs["samples"], predictions.attrs["classes"], _metric(predictions)
    size = f"{samples:,} images" + f" ({short_number(samples / classes)} a class)" * (metric.task == CLASSIFICATION)
    text = f"Expected to reach {_number(pick)} when trained on {size}, {how(pick)}."
    if pick.layer is not None:
        text += " " + _evidence(pick, predictions)
        text += _tried([pilot for pilot in pilots if pilot.source == pick.source])
        text += _against_scratch(pick, next((each for each in picks if each.layer is None), None))
    else:
        below = [each for each in picks if each.expected_accuracy < pick.expected_accuracy]
        beaten = [each.source for each in below if each.source not in pick.tied_with]
        text += _measured(predictions)
        if beaten:
            text += f" It is expected to be better than {_listed(beaten)}."
    return text + _ties(pick, metric)


def _metric(predictions: xr.Dataset) -> Metric:
    return metric_of(predictions.attrs.get("metric", ACCURACY.name), task=None)


def _ties(pick: Recommendation, metric: Metric) -> str:
    level, open_ = list(pick.level_with), [each for each in pick.tied_with if each not in pick.level_with]
    text = f" It is level with {_listed(level)}: the choice hardly matters for {metric.title}." if level else ""
    if not open_:
        return text
    return text + f" Tied with {_listed(open_)}: which is better is not known from these images."


def _measured(predictions: xr.Dataset) -> str:
    about = predictions.attrs
    trained_on = about["scratch_trained_on"]
    text = f" Trained on {trained_on:,} images here, it reached {about['scratch_accuracy']:.3f} on "
    text += f"{about.get('scratch_tested_on', about['scratch_held_out'])} that it never saw"
    return text + ("; what more images add is extrapolated." if about["samples"] > trained_on else ".")


def _corrected(rows: pd.DataFrame, pick: Recommendation, metric: Metric) -> pd.DataFrame:
    """Return the cuts of a source, their accuracies corrected as that of the one which was chosen."""
    rows = rows[rows["source"] == pick.source]
    chosen = rows[(rows["depth"] == pick.depth) & (rows["protocol"] == pick.protocol)]["expected_accuracy"].item()
    if chosen == pick.expected_accuracy:
        return rows
    link = link_of(metric)
    moved = link.place(pick.expected_accuracy) - link.place(chosen)
    return rows.assign(expected_accuracy=link.back(link.place(rows["expected_accuracy"]) + moved))


def _evidence(pick: Recommendation, predictions: xr.Dataset) -> str:
    here = predictions.sel(source=pick.source, depth=pick.depth)
    metric, left_out = _metric(predictions), float(here["ridge"])
    text = (
        f"A linear head on its frozen features has a leave-one-out {metric.title} of "
        f"{f'{left_out:.1%}' if metric.task == CLASSIFICATION else f'{left_out:.3f}'} there, on "
        f"{predictions.attrs['n_samples']:,} images"
    )
    similarity = float(here["linear_cka_to_scratch"])
    text += f" (similarity to the scratch network: CKA {similarity:.2f})." if similarity == similarity else "."
    rows = _corrected(cut_table(predictions), pick, metric)
    if pick.depth < pick.depths and pick.protocol != "defrost":
        last = rows[(rows["depth"] == pick.depths) & (rows["protocol"] == pick.protocol)]
        if len(last):
            text += f" Kept to its last layer, {last['expected_accuracy'].item():.3f} is expected;"
    others = rows[rows["protocol"] != pick.protocol]
    alternatives = []
    for protocol, cuts in others.groupby("protocol", sort=False):
        best = cuts.loc[cuts["expected_accuracy"].idxmax()]
        where = "frozen up to" if protocol == "defrost" else "after"
        alternatives.append(f"{best['expected_accuracy']:.3f} {where} {best['layer']} by {protocol}")
    if alternatives:
        text += f" {'at best' if text.endswith(';') else 'At best'} {_listed(alternatives)}."
    return text[:-1] + "." if text.endswith(";") else text


def _tried(pilots: Sequence[Pilot]) -> str:
    if not pilots:
        return ""
    found = [
        f"{pilot.accuracy:.3f} ± {pilot.standard_error:.3f} by {pilot.protocol} at depth {pilot.depth} "
        f"({pilot.samples:,} images)"
        for pilot in pilots
    ]
    return f" {'A pilot' if len(pilots) == 1 else 'Pilots'} of it reached {_listed(found)}."


def _against_scratch(pick: Recommendation, scratch: Recommendation | None) -> str:
    if scratch is None:
        return ""
    if scratch.source in pick.tied_with:
        verdict = "Whether that is better than training from scratch is not known"
    elif scratch.expected_accuracy > pick.expected_accuracy:
        verdict = "It is no better than training from scratch"
    else:
        verdict = "It is better than training from scratch"
    return f" {verdict} ({scratch.expected_accuracy:.3f})."


def _number(pick: Recommendation) -> str:
    return f"{pick.expected_accuracy:.3f} [{pick.interval[0]:.3f}, {pick.interval[1]:.3f}]"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
