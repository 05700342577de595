"""What pilots change in an answer: `rank` with and without them, then the transfers that both answers name, really run.

    TRANSFERSCOPE_REAL=... python benchmarks/pilots.py [TARGET ...] [--shots N] [--budget SECONDS ...]

Six real networks (EfficientNet-Lite, MobileNetV2) at 96 px. The prediction is fitted without the target. Pilots are
run on the train part alone; what is measured then is tested on the test part. A measured transfer is a line of
pilots.csv at once, and is not run again; pilots are kept in the cache. Writes results/pilots.md.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from groundtruth.sources import real_data
from groundtruth.v2 import zoo
from groundtruth.v2.cells import of_the_product
from groundtruth.v2.targets import cache_folder, unpack

from prediction.calibrate import calibration, fitted, prepared
from transferscope import load_target, rank
from transferscope.errors import TransferscopeWarning
from transferscope.prediction.calibration import load_calibration
from transferscope.results.ranking import Ranking
from transferscope.verbs.running.run import Run

RESULTS = Path(__file__).parents[1] / "results"
RUNS = RESULTS / "pilots.csv"
DRAWS = 2
"""Of the images that are trained on, for each transfer that is checked."""
CELL = ["target", "source", "protocol", "depth", "samples_per_class", "seed"]


@dataclass(frozen=True)
class Answer:
    """A ranking, and how long it took."""

    budget: float
    """Seconds for pilots; 0 without."""
    ranking: Ranking
    seconds: float

    @property
    def name(self) -> str:
        """How the page calls it."""
        return f"pilots of {self.budget:g} s" if self.budget else "without pilots"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=["trashnet", "pacs-sketch"], metavar="TARGET")
    parser.add_argument("--shots", type=int, default=20, help="images of each class")
    parser.add_argument("--budget", type=float, nargs="*", default=[120, 600], help="seconds for pilots")
    chosen = parser.parse_args()
    real, sections = real_data(), []
    for target in chosen.targets:
        images = unpack(real, target, cache_folder())
        file = _calibration_without(target)
        answers = [_answer(images, real, chosen.shots, budget, file) for budget in (0, *chosen.budget)]
        measured = _measured(target, real, images, answers, chosen.shots)
        sections.append("\n".join(_section(target, answers, measured, chosen.shots)))
    (RESULTS / "pilots.md").write_text("\n\n".join([_HEAD, *sections]) + "\n")


def _calibration_without(target: str) -> Path:
    """Fit what accuracies are expected by to the measured transfers of all other targets."""
    path = cache_folder() / f"calibration-without-{target}.json"
    rows = prepared()
    found = fitted(rows[rows["target"] != target].reset_index(drop=True))
    # The correction for choosing is one number over fifteen targets, of which this may be one.
    calibration(found, load_calibration().chosen, f"ground truth without {target}").save(path)
    return path


def _answer(images: Path, real: Path, shots: int, budget: float, file: Path) -> Answer:
    options: dict[str, Any] = {"pilots": "auto", "pilot_budget": budget} if budget else {}
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)
        ranking = rank(
            load_target(images), zoo.sources(real)[:6], shots=shots, device="cpu", calibration=file, mode="quick",
            **options,
        )  # fmt: skip
    return Answer(budget, ranking, time.perf_counter() - started)


def _looked_at(answers: list[Answer]) -> list[tuple[str, int, str]]:
    """List what the answers say of their best three, and the best of each protocol: source, depth, protocol."""
    cells: dict[tuple[str, int, str], None] = {}
    for answer in answers:
        picks = [pick for pick in answer.ranking.recommendations if pick.layer is not None][:3]
        cells |= dict.fromkeys((pick.source, pick.depth, pick.protocol) for pick in picks)
        cuts = answer.ranking.cuts
        cuts = cuts[cuts["depth"] > 0]
        best = cuts.loc[cuts.groupby("protocol")["expected_accuracy"].idxmax()]
        cells |= dict.fromkeys(zip(best["source"], best["depth"].astype(int), best["protocol"], strict=True))
    return list(cells)


def _measured(target: str, real: Path, images: Path, answers: list[Answer], shots: int) -> pd.DataFrame:
    """Return the transfers that the answers name, with their accuracies; what is missing is run."""
    known = pd.read_csv(RUNS, keep_default_na=False) if RUNS.exists() else pd.DataFrame(columns=CELL)
    done = set(known[CELL].itertuples(index=False, name=None))
    executor = None
    for source, depth, protocol in _looked_at(answers):
        for seed in range(DRAWS):
            if (target, source, protocol, depth, shots, seed) in done:
                continue
            executor = executor or of_the_product(real, images, "cpu")
            layers = [stage.layer for stage in executor.stages(source)]
            run = Run(source, target, protocol, depth, len(layers), layers[depth - 1] if depth else "", shots, seed)
            (row,) = executor.execute([run])
            line = pd.DataFrame([{name: row.get(name) for name in (*CELL, "accuracy", "seconds")}])
            line.to_csv(RUNS, mode="a", header=not RUNS.exists(), index=False)
    table = pd.read_csv(RUNS)
    table = table[(table["target"] == target) & (table["samples_per_class"] == shots)]
    return table.groupby(["source", "protocol", "depth"], as_index=False)["accuracy"].mean()


def _section(target: str, answers: list[Answer], measured: pd.DataFrame, shots: int) -> Iterator[str]:
    yield f"## {target}, {shots} images of each class\n"
    best = measured["accuracy"].max()
    yield "| | answer | expected | measured | loses | probability best | minutes | pilots |"
    yield "|---|---|---|---|---|---|---|---|"
    found = measured.set_index(["source", "protocol", "depth"])["accuracy"]
    for answer in answers:
        first = next(pick for pick in answer.ranking.recommendations if pick.layer is not None)
        accuracy = found[first.source, first.protocol, first.depth]
        scratch = "" if answer.ranking.best.layer is not None else " (behind scratch)"
        yield (
            f"| {answer.name} | {first.source}, {first.protocol} at {first.depth}/{first.depths}{scratch} | "
            f"{_interval(first.expected_accuracy, first.interval)} | {accuracy:.3f} | {best - accuracy:.3f} | "
            f"{first.probability_best:.2f} | {answer.seconds / 60:.1f} | {len(answer.ranking.pilots)} |"
        )
    hint = answers[0].ranking.hint
    yield f"\nWithout pilots it said: {hint or 'nothing of what they would bring'}\n"
    yield "Pilots, in the order in which they were run:\n"
    yield "| source | protocol | depth | images | measured | seconds |"
    yield "|---|---|---|---|---|---|"
    for pilot in answers[-1].ranking.pilots:
        yield (
            f"| {pilot.source} | {pilot.protocol} | {pilot.depth} | {pilot.samples} | {pilot.accuracy:.3f} ± "
            f"{pilot.standard_error:.3f} | {pilot.seconds:.0f} |"
        )
    yield "\nEvery transfer that was checked, mean of two draws; in brackets the 80 % interval:\n"
    yield "| source | protocol | depth | measured | " + " | ".join(answer.name for answer in answers) + " |"
    yield "|---|---|---|---|" + "---|" * len(answers)
    inside = [0] * len(answers)
    for row in measured.sort_values("accuracy", ascending=False).itertuples():
        place = {"source": row.source, "protocol": row.protocol, "depth": row.depth}
        cells = [answer.ranking.scores.sel(place) for answer in answers]
        texts = []
        for i, cell in enumerate(cells):
            ends = float(cell["lower"]), float(cell["upper"])
            inside[i] += ends[0] <= row.accuracy <= ends[1]
            texts.append(_interval(float(cell["expected_accuracy"]), ends))
        yield f"| {row.source} | {row.protocol} | {row.depth} | {row.accuracy:.3f} | " + " | ".join(texts) + " |"
    yield "| in the interval | | | | " + " | ".join(f"{count} of {len(measured)}" for count in inside) + " |"


def _interval(value: float, ends: tuple[float, float]) -> str:
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


_HEAD = """# Pilots on real networks

Made by `python benchmarks/pilots.py`: `rank --shots` of two targets, for six real networks (EfficientNet-Lite0 and
-Lite2, four MobileNetV2) at 96 px, without pilots and with `--pilots auto` of two budgets; then the best three of each
answer, and the best cut of each protocol, trained by the same recipe on two draws of images and tested on images that
no answer saw. The model that accuracies are expected by was fitted without the target. `loses`: against the best of
the transfers that were checked. Minutes are those of a busy machine of two cores; what the one before had done was not
done again."""
