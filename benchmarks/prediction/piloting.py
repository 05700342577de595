"""Pilots on measured transfers: which are run, and what the prediction is worth after them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from prediction import truth
from transferscope.prediction.belief import Belief, reference
from transferscope.prediction.calibration import Calibration
from transferscope.prediction.covariates import SCRATCH, candidates
from transferscope.prediction.observation import Observation
from transferscope.prediction.pilots import Option, choose_pilot

KEYS = ["source", "depth", "protocol"]
WITHOUT, ONE, FIVE = "without", "one_pilot", "five_percent"
SHARE = 0.05
"""Of the time of measuring everything once."""


def groups(
    rows: pd.DataFrame, known: Mapping[str, Calibration], familiar: bool = False
) -> list[tuple[pd.DataFrame, Belief]]:
    """Return the measured cells of each target and number of images, and what is believed of them beforehand.

    The rows of the belief are those of the cells, and training from scratch behind them where it was not measured.
    Networks are strangers, or `familiar`: what they did on other targets of the map counts.
    """
    found = []
    seen = {name: truth.evidence(name) for name in rows["map"].unique()}
    for (name, target, size), part in rows[rows["ahead"] == 0].groupby(truth.GROUP, sort=False):
        own = seen[name][(seen[name]["target"] == target) & (seen[name]["samples_per_class"] == size)]
        case = truth.case_of(own.iloc[0], int(part["samples"].iloc[0]))
        ways = truth.by_recipe(candidates(own, case), str(name))
        # What was not measured cannot be chosen here; the scratch network is evidence in any case.
        ours = ways.merge(part, how="left", on=KEYS, suffixes=("", "_measured"))
        measured = ours["accuracy"].notna() | (ours["protocol"] == SCRATCH)
        networks = {source: f"{name}/{source}" for source in own["source"].unique()} if familiar else {}
        calibration = known[str(target)].of_sources(networks)
        belief = Belief(ways[measured.to_numpy()].reset_index(drop=True), case, calibration, reference(case))
        order = belief.rows[KEYS].merge(part, on=KEYS)
        found.append((order, belief))
    return found


def options(cells: pd.DataFrame, belief: Belief) -> list[Option]:
    """Return every measured cell as a transfer that could be run, in the order of the belief's rows."""
    return [
        Option(
            source=row.source, depth=int(row.depth), protocol=row.protocol, samples=belief.case.samples,
            tested=int(row.tested), seconds=max(float(row.seconds), 1e-3),
        )
        for row in cells.itertuples()
    ]  # fmt: skip


def observed(option: Option, accuracy: float) -> Observation:
    """Return the outcome of a pilot."""
    return Observation(
        source=option.source, depth=option.depth, protocol=option.protocol, samples=option.samples,
        accuracy=accuracy, tested=option.tested, seconds=option.seconds,
    )  # fmt: skip


def piloted(
    cells: pd.DataFrame, belief: Belief, kind: str, allowed: Callable[[Option], bool] = lambda option: True
) -> tuple[Belief, Sequence[int]]:
    """Return what is believed after pilots, and which cells they were. What they measure is `once`, one draw."""
    ways = options(cells, belief)
    budget = SHARE * sum(each.seconds for each in ways)
    run: list[int] = []
    while kind != WITHOUT:
        left = [
            i
            for i, each in enumerate(ways)
            if i not in run and allowed(each) and (kind == ONE or each.seconds <= budget)
        ]
        chosen = choose_pilot(belief, [ways[i] for i in left])
        if chosen is None:
            break
        best = left[chosen[0]]
        run.append(best)
        budget -= ways[best].seconds
        belief = belief.given([observed(ways[best], float(cells["once"].iloc[best]))])
        if kind == ONE:
            break
    return belief, run


def halved(cells: pd.DataFrame, seed: int = 0) -> np.ndarray:
    """Return what successive halving with the budget of `SHARE` believes: -inf of what it dropped, (n_cells,).

    Without a model: candidates are drawn at random as far as the budget goes (Jamieson and Talwalkar 2016 with one
    rung, for a measured transfer has no cheaper version of itself here), and the best one measured is taken.
    """
    order = np.random.default_rng(seed).permutation(len(cells))
    seconds = cells["seconds"].clip(lower=1e-3).to_numpy()
    budget = SHARE * seconds.sum()
    values = np.full(len(cells), -np.inf)
    for place in order:
        if seconds[place] <= budget:
            budget -= seconds[place]
            values[place] = cells["once"].iloc[place]
    return values
