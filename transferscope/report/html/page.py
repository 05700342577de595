"""The ranking as one page of HTML that needs no server and no other file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from transferscope.report.html.svg import svg
from transferscope.report.terminal.counts import short_count
from transferscope.results.files import short_cost
from transferscope.results.left_out import sentences
from transferscope.results.recommendation import LEVEL, Recommendation, how
from transferscope.runtime.templates import render
from transferscope.transferability import SCORES

if TYPE_CHECKING:
    from transferscope.results.ranking import Ranking

_CAPTIONS = {
    "ranking": (
        "Expected accuracy",
        "Each source at its best cut and protocol, with its 80 % interval. What is tied with the first is marked.",
    ),
    "source_depth": (
        "Where to cut",
        "Expected accuracy of each source, by its best protocol, over the layer that is the last one kept; the "
        "recommended cut is marked.",
    ),
    "depth_curves": (
        "Accuracy over depth",
        "The same as curves, with 80 % intervals; the dashed line is a network trained from scratch. Stars are what "
        "pilots measured, where there are any. "
        "Curves are not corrected for the choice of the best cut, as accuracies in the table are.",
    ),
    "pareto": (
        "Accuracy and cost",
        "Every cut by the floating-point operations of one prediction. The line joins what nothing as cheap surpasses.",
    ),
    "similarity": (
        "Similarity to a network trained from scratch",
        "Debiased linear CKA of each layer of a source with each layer of the scratch network, on the images of the "
        "target.",
    ),
}


@dataclass(frozen=True)
class Column:
    """A column of a table that can be sorted."""

    header: str
    cells: Sequence[str]
    keys: Sequence[float | str]
    """What the rows are sorted by."""
    meaning: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return not any(isinstance(key, str) for key in self.keys)


def page(ranking: "Ranking", wide: Mapping[str, Figure], narrow: Mapping[str, Figure]) -> str:
    """Return a whole page: answer, table, pictures with their values, reasons, reference, failures, provenance.

    Parameters
    ----------
    ranking : Ranking
    wide, narrow : mapping of str to matplotlib.figure.Figure
        What `plot.figures` returns for it, for a window and for a phone.
    """
    return render(
        "page.html",
        ranking=ranking,
        left_out=sentences(ranking.left_out).values(),
        columns=answer_columns(ranking),
        scores=_score_columns(ranking),
        pilots=_pilot_columns(ranking),
        pareto=_pareto_columns(ranking),
        pictures=[
            {
                "name": name, "title": title, "text": text,
                "wide": svg(wide[name], f"{name}-wide", f"{title}. {text}"),
                "narrow": svg(narrow[name], f"{name}-narrow", f"{title}. {text}"),
            }
            for name, (title, text) in _CAPTIONS.items()
            if name in wide
        ],
    )  # fmt: skip


def fragment(ranking: "Ranking") -> str:
    """Return the answer and the table, for a notebook."""
    return render("ranking.html", ranking=ranking, columns=answer_columns(ranking))


def recommendation_fragment(pick: Recommendation) -> str:
    """Return a recommendation with its scores, for a notebook."""
    scores = {
        name: [_cell(value), _cell(pick.scores.get(f"{name}_standard_error"))]
        for name, value in (pick.scores | pick.baselines).items()
        if not name.endswith("_standard_error")
    }
    return render("recommendation.html", pick=pick, how=how(pick), level=LEVEL, scores=scores)


def _cell(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4g}"


def answer_columns(ranking: "Ranking") -> list[Column]:
    """Return the columns that `rank` prints: a row for each recommendation."""
    picks = ranking.recommendations
    tied = ranking.best.tied_with
    uncut = [ranking.accuracy_at_last_layer(pick) for pick in picks]
    depths = ["" if pick.layer is None else f"{pick.depth}/{pick.depths}" for pick in picks]
    columns = [
        Column("#", [f"{p.rank}{'=' if p.source in tied else ''}" for p in picks], [p.rank for p in picks],
               "Rank; =: tied with the first."),
        _texts("source", [pick.source for pick in picks]),
        _numbers("accuracy", [pick.expected_accuracy for pick in picks],
                 f"Expected on new images after a transfer trained on {ranking.expected_for} images."),
        Column("80 % interval", [f"{p.interval[0]:.3f}–{p.interval[1]:.3f}" for p in picks],
               [p.interval[1] - p.interval[0] for p in picks], "Sorted by its width."),
        _texts("protocol", [pick.protocol for pick in picks],
               "truncate: a linear head on frozen features. reinit: what follows the cut is re-initialised and "
               "trained. finetune: the same, all of it trained. defrost: the whole network, frozen up to there, the "
               "rest trained."),
        _texts("cut after", [pick.layer or "" for pick in picks], "The last layer that is kept; of defrost, frozen."),
        Column("depth", depths, [pick.depth / pick.depths for pick in picks],
               "Stages that are kept, of all stages; of defrost, those that are frozen."),
        _numbers("uncut", uncut, "Expected with all layers kept."),
        _costs("FLOPs", [pick.flops for pick in picks], "For one image, of the network that comes out."),
        _costs("params", [pick.params for pick in picks], "Of the network that comes out."),
    ]  # fmt: skip
    chances = [math.nan if pick.probability_best is None else pick.probability_best for pick in picks]
    # A ranking of an earlier version does not say it.
    if not all(map(math.isnan, chances)):
        cells = ["" if math.isnan(chance) else f"{chance:.2f}" for chance in chances]
        columns.insert(4, Column("best", cells, chances, "Probability that it is the best of all."))
    return columns


def _pilot_columns(ranking: "Ranking") -> list[Column]:
    """Return every pilot, in the order in which they were run; nothing where there are none."""
    pilots = ranking.pilots
    if not pilots:
        return []
    measured = [f"{pilot.accuracy:.3f} ± {pilot.standard_error:.3f}" for pilot in pilots]
    return [
        _texts("source", [pilot.source for pilot in pilots]),
        _texts("protocol", [pilot.protocol for pilot in pilots]),
        Column("depth", [str(pilot.depth) for pilot in pilots], [pilot.depth for pilot in pilots]),
        Column("images", [str(pilot.samples) for pilot in pilots], [pilot.samples for pilot in pilots],
               "Trained on."),
        Column("accuracy", measured, [pilot.accuracy for pilot in pilots],
               "On images that it was not trained on, with the standard error of so many images."),
        Column("seconds", [short_cost(pilot.seconds) for pilot in pilots], [pilot.seconds for pilot in pilots],
               "When it was run; later runs have it from the cache."),
    ]  # fmt: skip


def _score_columns(ranking: "Ranking") -> list[Column]:
    """Return every score and baseline at the recommended cuts; nothing where scratch stands alone."""
    picks = [pick for pick in ranking.recommendations if pick.scores]
    if not picks:
        return []
    names = [name for name in picks[0].scores if not name.endswith("_standard_error")]
    return [
        _texts("source", [pick.source for pick in picks]),
        *(_score(name, picks) for name in names),
        *(_counts(name, [pick.baselines[name] for pick in picks]) for name in picks[0].baselines),
    ]


def _score(name: str, picks: Sequence[Recommendation]) -> Column:
    values = [pick.scores[name] for pick in picks]
    errors = [pick.scores.get(f"{name}_standard_error") for pick in picks]
    cells = [
        _number(value) + ("" if error is None else f" ± {error:.3f}")
        for value, error in zip(values, errors, strict=True)
    ]
    score = SCORES.get(name)
    return Column(name, cells, values, "" if score is None else f"{score.title}; range {score.range}.")


def _pareto_columns(ranking: "Ranking") -> list[Column]:
    rows = ranking.pareto
    return [
        _texts("source", list(rows["source"])),
        _texts("protocol", list(rows["protocol"])),
        _texts("cut after", list(rows["layer"])),
        _numbers("accuracy", list(rows["expected_accuracy"])),
        _costs("FLOPs", list(rows["flops"])),
        _costs("params", list(rows["params"])),
    ]


def _texts(header: str, cells: Sequence[str], meaning: str = "") -> Column:
    return Column(header, cells, cells, meaning)


def _numbers(header: str, values: Sequence[float], meaning: str = "") -> Column:
    return Column(header, [_number(value) for value in values], values, meaning)


def _counts(header: str, values: Sequence[float], meaning: str = "") -> Column:
    return Column(header, [short_count(value) if value == value else "" for value in values], values, meaning)


def _costs(header: str, values: Sequence[float], meaning: str = "") -> Column:
    """Return counts of which one may be unknown; elsewhere an empty cell says that there is none."""
    return Column(header, [short_count(value) for value in values], values, meaning)


def _number(value: float) -> str:
    return f"{value:.3f}" if value == value else ""
