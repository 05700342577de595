"""The result of `rank`: what was asked, what is recommended, every score, and what failed."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from transferscope.errors import InputError
from transferscope.results import saving
from transferscope.results.agreement import Agreement, agreement
from transferscope.results.cuts import cut_table
from transferscope.results.files import (
    DIGITS,
    csv_text,
    dataset_digest,
    json_text,
    netcdf,
    prepare_folder,
    rounded,
    write_together,
)
from transferscope.results.labelled import BASELINES, read_netcdf, score_names
from transferscope.results.left_out import LeftOut, left_out
from transferscope.results.pilots import Outlook, Pilot
from transferscope.results.recommendation import Recommendation, how
from transferscope.results.summary import Reference, TargetSummary
from transferscope.runtime.failures import Failure
from transferscope.runtime.filesets import complete
from transferscope.runtime.links import link_of
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, Metric, metric_of, outputs
from transferscope.runtime.provenance import Provenance
from transferscope.runtime.regular import read_regular
from transferscope.runtime.store import digest

SCHEMA_VERSION = 1

_PICTURES = ("ranking.png", "source_depth.png", "depth_curves.png", "pareto.png", "similarity.png")


@dataclass(frozen=True, eq=False)
class Ranking:
    """Sources and training from scratch, best first."""

    target: TargetSummary
    reference: Reference | None
    recommendations: tuple[Recommendation, ...]
    scores: xr.Dataset
    """Every score over (source, depth), with similarity to the scratch network and, over (source, depth, protocol), the
    expected accuracy."""
    failed: tuple[Failure, ...]
    provenance: Provenance | None = None
    """How it was made; None for a file from before this was noted."""
    warnings: tuple[str, ...] = ()
    """What was warned of on the way."""
    pilots: tuple[Pilot, ...] = ()
    """The real transfers that were run to make the answer surer, in their order."""
    outlook: Outlook | None = None
    """What pilots would bring where none were run; None where they cannot be run."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds spent on each part of the run; not saved, so that equal runs give equal files."""

    @property
    def best(self) -> Recommendation:
        """The recommendation at rank 1."""
        return self.recommendations[0]

    @property
    def metric(self) -> Metric:
        """What sources are ranked by."""
        return metric_of(self.scores.attrs.get("metric", ACCURACY.name), task=None)

    @property
    def expected_for(self) -> int:
        """Images to train on that accuracies are expected for."""
        return int(self.scores.attrs["samples"])

    @property
    def table(self) -> pd.DataFrame:
        """A row per source at its best cut, best first; the scores are columns of their own."""
        rows = []
        for pick in self.recommendations:
            row = pick.row()
            scores, baselines, _ = row.pop("scores"), row.pop("baselines"), row.pop("reason")
            row |= {name: "; ".join(row[name]) for name in ("tied_with", "level_with")}
            row["lower"], row["upper"] = row.pop("interval")
            row["accuracy_at_last_layer"] = self.accuracy_at_last_layer(pick)
            rows.append({**row, **scores, **baselines})
        return pd.DataFrame(rows).set_index("rank")

    @property
    def cuts(self) -> pd.DataFrame:
        """Every source, depth and protocol, and training from scratch, cheapest first.

        Columns source, layer, depth, depths, protocol, expected_accuracy, lower, upper, params and flops (of the
        network that comes out; unknown ones last), and `pareto`: whether nothing is at once as cheap and more accurate,
        which unknown FLOPs do not show.
        """
        rows = cut_table(self.scores)
        for pick in self.recommendations:
            if pick.layer is None:
                row = asdict(pick) | {"lower": pick.interval[0], "upper": pick.interval[1], "layer": ""}
                rows = pd.concat([rows, pd.DataFrame([row])[rows.columns]], ignore_index=True)
        rows = rows.sort_values(["flops", "expected_accuracy"], ascending=[True, False], kind="stable")
        before = rows["expected_accuracy"].cummax().shift(fill_value=-math.inf)
        worth = (rows["expected_accuracy"] > before) & rows["flops"].notna()
        return rows.assign(pareto=worth).reset_index(drop=True)

    @property
    def pareto(self) -> pd.DataFrame:
        """The rows of `cuts` that are worth their FLOPs, where each is more accurate than all that are as cheap."""
        rows = self.cuts
        return rows[rows["pareto"]].drop(columns="pareto").reset_index(drop=True)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What nothing is expected of, since the sources cannot be adapted so, and why."""
        return left_out(self.scores)

    def accuracy_at_last_layer(self, pick: Recommendation) -> float:
        """Return the expected accuracy of the same source and protocol with all layers kept.

        NaN where nothing is cut: from scratch, and by `defrost`. Corrected as that of the pick is, which was chosen.
        """
        if pick.layer is None or pick.protocol == "defrost":
            return math.nan
        expected = self.scores["expected_accuracy"].sel(source=pick.source, protocol=pick.protocol)
        here, whole = (float(expected.sel(depth=depth)) for depth in (pick.depth, pick.depths))
        if here == pick.expected_accuracy:
            return whole
        link = link_of(self.metric)
        return float(link.back(link.place(whole) + link.place(pick.expected_accuracy) - link.place(here)))

    @property
    def seen(self) -> str:
        """How much was looked at, in words."""
        return f"{self.target.samples} images, {outputs(self.metric.task, self.target.classes)} of {self.target.name}"

    @property
    def basis(self) -> str:
        """What is expected of transfers, and from what, in words."""
        of_classes = "transfers measured on other targets"
        of_others = "what heads reach on images left out, for nobody has measured transfers of such a task"
        source = of_classes if self.metric.task == CLASSIFICATION else of_others
        return f"expected on new images after a transfer trained on {self.expected_for} images, from {source}"

    @property
    def answer(self) -> str:
        """What to do and what to expect of it, in one sentence."""
        best = self.best
        accuracy = f"{best.expected_accuracy:.3f} [{best.interval[0]:.3f}, {best.interval[1]:.3f}]"
        objective = self.scores.attrs.get("objective", "accuracy")
        if best.layer is None:
            why = "no source is expected to beat it" if objective == "accuracy" else f"it comes first by {objective}"
            return f"Train from scratch: {why} ({self.metric.title} {accuracy})."
        text = f"Start from {best.source}, {how(best)}: expected {self.metric.title} {accuracy}"
        last = self.accuracy_at_last_layer(best)
        gains = best.depth < best.depths and last == last and f"{last:.3f}" != f"{best.expected_accuracy:.3f}"
        return text + (f", against {last:.3f} when it is kept to its last layer." if gains else ".")

    @property
    def caveats(self) -> str:
        """How sure the answer is, in words; empty where there is nothing to compare it with."""
        best, others = self.best, self.recommendations[1:]
        sentences = []
        chance = self.scores.attrs.get("largest_class", 0.0)
        if best.interval[0] <= chance:
            guess = self.metric.guess
            sentences.append(f"That is not clearly better than {guess} ({chance:.3f}): too few images to choose by.")
        if best.level_with:
            sentences.append(
                f"Level with {', '.join(best.level_with)}: the choice hardly matters for {self.metric.title}."
            )
        if open_ := [name for name in best.tied_with if name not in best.level_with]:
            sentences.append(f"Tied with {', '.join(open_)}: which is better is not known from these images.")
        if best.tied_with and best.probability_best is not None:
            sentences.append(f"It is the best of all with probability {best.probability_best:.2f}.")
        elif not best.tied_with and others and best.beats_next is not None:
            sure = f"{best.beats_next:.2f}" if best.beats_next < 0.995 else "over 0.99"
            sentences.append(f"It beats the next, {others[0].source}, with probability {sure}.")
        if best.layer is not None and any(pick.layer is None and pick.source in best.tied_with for pick in others):
            sentences.append("So it may be no better than training from scratch.")
        several = self.scores["expected_accuracy"].dropna("protocol", how="all").sizes["protocol"] > 1
        measured = self.pilots or self.scores.attrs.get("evidence")
        if self.metric.task != CLASSIFICATION and several and not measured:
            sentences.append("Which protocol is best is hardly known: no transfers of such a task were measured.")
        return " ".join(sentences)

    @property
    def verdict(self) -> str:
        """The answer in words, and how sure it is."""
        return f"{self.answer} {self.caveats}".rstrip()

    @property
    def hint(self) -> str:
        """What pilots would bring, in one sentence; empty where some were run, or would bring nothing."""
        return "" if self.pilots or self.outlook is None else self.outlook.text

    @property
    def agreement(self) -> Agreement:
        """How far each score and each baseline agrees with the predicted accuracy, over sources and over depths."""
        names = [name for name in score_names(self.scores) if not name.endswith("_standard_error")]
        baselines = [name for name in BASELINES if name in self.scores]
        best = self.scores.assign(expected_accuracy=self.scores["expected_accuracy"].max("protocol"))
        return agreement(best, [*names, *baselines])

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON structure; values that are not finite become None."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target": asdict(self.target),
            "metric": self.metric.name,
            "expected_for": self.expected_for,
            "reference": None if self.reference is None else asdict(self.reference),
            "ranking": [{**pick.row(), "interval": list(pick.interval)} for pick in self.recommendations],
            "pilots": [asdict(pilot) for pilot in self.pilots],
            "pilot_outlook": None if self.outlook is None else asdict(self.outlook),
            "left_out": [{**asdict(entry), "depths": list(entry.depths)} for entry in self.left_out],
            "failed": [asdict(failure) for failure in self.failed],
            "agreement": asdict(self.agreement),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text; equal rankings give equal bytes."""
        return json_text(rounded(self.to_dict()))

    def to_csv(self) -> str:
        """Return `table` as CSV text."""
        return csv_text(self.table.round(DIGITS))

    def identity(self) -> str:
        """Return a digest of everything that a view of it can show: equal rankings have equal views."""
        command = "" if self.provenance is None else self.provenance.command
        return digest(self.to_json(), command, list(self.warnings), dataset_digest(self.scores))

    def save(self, folder: str | Path) -> list[Path]:
        """Write ranking.json, ranking.csv, cuts.csv, scores.nc, the pictures and report.html into `folder`.

        The pictures are ranking.png, source_depth.png, depth_curves.png, pareto.png and, with sources, similarity.png;
        report.html is a page that holds all of it and needs no other file. None is moved into place before all are
        complete. Returns their paths.

        Raises
        ------
        InputError
            When the folder cannot be made or written.
        """
        folder = prepare_folder(folder)
        return write_together(
            folder,
            {
                "ranking.json": self.to_json().encode(),
                "ranking.csv": self.to_csv().encode(),
                "cuts.csv": csv_text(self.cuts.round(DIGITS), index=False).encode(),
                "scores.nc": netcdf(self.scores),
                **saving.views(self),
            },
            outdated=_PICTURES,
        )

    def _repr_html_(self) -> str:
        return saving.fragment(self)


def load_ranking(folder: str | Path) -> Ranking:
    """Load what `Ranking.save` wrote.

    Numbers come back as the file has them, rounded to six decimals; what was not finite comes back as NaN. The
    scores are exact.

    Raises
    ------
    InputError
        When the folder does not hold a ranking of this schema version.
    """
    folder = Path(folder)
    complete(folder)
    try:
        content = json.loads(read_regular(folder / "ranking.json", 2**28))
        scores = read_netcdf(folder / "scores.nc", engine="h5netcdf")
        version = content["schema_version"]
        if version == SCHEMA_VERSION:
            metric = content.get("metric", ACCURACY.name)
            return Ranking(
                target=TargetSummary(**content["target"]),
                reference=None if content["reference"] is None else Reference(**content["reference"]),
                recommendations=tuple(_recommendation(row, metric) for row in content["ranking"]),
                scores=scores,
                failed=tuple(Failure(**row) for row in content["failed"]),
                provenance=Provenance(**content["provenance"]) if content.get("provenance") else None,
                pilots=tuple(Pilot(**row) for row in content.get("pilots", ())),
                outlook=Outlook(**content["pilot_outlook"]) if content.get("pilot_outlook") else None,
            )
    except Exception as error:  # of what others have written, or changed
        raise InputError(
            f"Expected `folder` to hold ranking.json and scores.nc as `rank -o` writes them, but {folder} does "
            f"not ({error})"
        ) from error
    raise InputError(
        f"Expected {folder / 'ranking.json'} to have schema_version {SCHEMA_VERSION} but got {version!r}; rank "
        "again with this version of transferscope"
    )


def _recommendation(row: dict[str, Any], metric: str) -> Recommendation:
    lower, upper = map(_number, row["interval"])
    scores = {name: _number(score) for name, score in row["scores"].items()}
    more: dict[str, Any] = {"interval": (lower, upper), "scores": scores, "metric": metric}
    more |= {name: tuple(row.get(name, ())) for name in ("tied_with", "level_with")}
    more |= {name: _number(row[name]) for name in ("params", "flops")}
    if "baselines" in row:
        more["baselines"] = {name: _number(value) for name, value in row["baselines"].items()}
    return Recommendation(**{**row, **more})


def _number(value: float | None) -> float:
    """Undo what `rounded` does to values that are not finite."""
    return math.nan if value is None else value
