"""Whether the answer is right: some of the demo's transfers are really run, beside what was expected of them."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from transferscope.activations.stages import Stage
from transferscope.data.target import load_target
from transferscope.errors import SourceError
from transferscope.networks.zoo import load_zoo
from transferscope.protocols import finetuning
from transferscope.results.ranking import Ranking
from transferscope.runtime.power import WORLD
from transferscope.runtime.progress import Reporter
from transferscope.verbs.running.executor import Executor, Setup
from transferscope.verbs.running.run import Run


@dataclass(frozen=True)
class _Transfer:
    role: str
    source: str
    protocol: str
    depth: int


def check_answer(
    ranking: Ranking, target: Path, zoo: Path, *, shots: int, seed: int, device: str = "cpu", progress: bool = True
) -> pd.DataFrame:
    """Run the first and the last of a ranking, and the first without its cut; of the first also linear heads.

    They are trained on the images that `rank` looked at, by the recipes that `measure` and `transfer` have, and tested
    on all others.

    Parameters
    ----------
    ranking : Ranking
        What `rank` answered, asked with `shots` and `seed`.
    target, zoo : pathlib.Path
        What it was asked about.
    shots : int
        Images of each class to train on.
    seed : int
        The one that `rank` had.
    device : str
        Where it runs.
    progress : bool
        Whether to draw progress bars on stderr.

    Returns
    -------
    pandas.DataFrame
        A row for each transfer: role, source, protocol, layer, depth, depths, expected, lower, upper (the 80 %
        interval), measured, standard_error (of so many test images); ``attrs["tested_on"]`` says how many.

    Raises
    ------
    SourceError
        One of them cannot be run.
    """
    images, reporter = load_target(target), Reporter(progress)
    pool = np.sort(images.probe(shots * len(images.classes), seed).indices)
    test = np.setdiff1d(np.arange(len(images)), pool)
    rows = []
    with tempfile.TemporaryDirectory() as states:
        executor = Executor(
            Setup(
                target=images, zoo=load_zoo(zoo), pool=pool, test=test, drawn=pool, recipes=finetuning.recipes(),
                learning_rates=(), early_stopping=False, device=device, batch_size=64, trust_code=True, country=WORLD,
                states=Path(states), seed=seed, energy=False,
            )
        )  # fmt: skip
        for transfer in _worth_checking(ranking):
            stages = executor.stages(transfer.source)
            run = _run(transfer, stages, images.name, shots, seed)
            with reporter.bar(f"checking {transfer.role}") as report:
                (row,) = executor.execute([run], report)
            if row["status"] != "done":
                raise SourceError(row["status"].removeprefix("failed: "))
            rows.append(_row(transfer, run, ranking, float(row["accuracy"]), len(test)))
    table = pd.DataFrame(rows)
    table.attrs["tested_on"] = len(test)
    return table


def _worth_checking(ranking: Ranking) -> Iterator[_Transfer]:
    picks = [pick for pick in ranking.recommendations if pick.layer is not None]  # all but the scratch network
    first, last = picks[0], picks[-1]
    yield _Transfer("first", first.source, first.protocol, first.depth)
    if first.depth < first.depths and first.protocol != "defrost":
        yield _Transfer("first, uncut", first.source, first.protocol, first.depths)
    if first.protocol != "truncate":
        frozen = ranking.scores["expected_accuracy"].sel(source=first.source, protocol="truncate")
        depth = int(frozen.idxmax("depth"))
        yield _Transfer("first, frozen", first.source, "truncate", depth)
        if depth < first.depths:
            yield _Transfer("first, frozen, uncut", first.source, "truncate", first.depths)
    yield _Transfer("last", last.source, last.protocol, last.depth)


def _run(transfer: _Transfer, stages: tuple[Stage, ...], target: str, shots: int, seed: int) -> Run:
    layer = stages[transfer.depth - 1].layer if transfer.depth else ""
    return Run(transfer.source, target, transfer.protocol, transfer.depth, len(stages), layer, shots, seed)


def _row(transfer: _Transfer, run: Run, ranking: Ranking, measured: float, tested: int) -> dict[str, object]:
    place = {"source": transfer.source, "protocol": transfer.protocol, "depth": transfer.depth}
    cell = ranking.scores.sel(place)
    # What was chosen has an interval that is corrected for having been chosen.
    chosen = {(pick.source, pick.protocol, pick.depth): pick for pick in ranking.recommendations}
    pick = chosen.get((transfer.source, transfer.protocol, transfer.depth))
    expected = float(cell["expected_accuracy"]) if pick is None else pick.expected_accuracy
    lower, upper = (float(cell["lower"]), float(cell["upper"])) if pick is None else pick.interval
    return {
        "role": transfer.role, "source": transfer.source, "protocol": transfer.protocol, "layer": run.layer,
        "depth": run.depth, "depths": run.depths, "expected": expected, "lower": lower, "upper": upper,
        "measured": measured, "standard_error": float(np.sqrt(measured * (1 - measured) / tested)),
    }  # fmt: skip
