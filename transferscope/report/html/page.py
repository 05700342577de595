"""The ranking as one page of HTML that needs no server and no other file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from transferscope.report.html.next_step import next_step
from transferscope.report.html.parts import (
    MOST_ROWS,
    Column,
    Section,
    Table,
    counts,
    few,
    intervals,
    number,
    numbers,
    pictures,
    sizes,
    texts,
)
from transferscope.report.html.pilots import pilot_sections
from transferscope.results.left_out import sentences
from transferscope.results.recommendation import LEVEL, Recommendation, how
from transferscope.runtime.metrics import CLASSIFICATION, Metric, metric_of
from transferscope.runtime.templates import render
from transferscope.transferability.tasks import scores_of

if TYPE_CHECKING:
    from transferscope.results.ranking import Ranking

_CAPTIONS = {
    "ranking": (
        "expected accuracy",
        "Each source at its best cut and protocol, with its 80 % interval. What is tied with the first is marked.",
    ),
    "source_depth": (
        "Where to cut",
        "expected accuracy of each source, by its best protocol, over the layer that is the last one kept; the "
        "recommended cut is marked.",
    ),
    "depth_curves": (
        "accuracy over depth",
        "The same as curves, with 80 % intervals; the dashed line is a network trained from scratch. Stars are what "
        "pilots measured, where there are any. "
        "Curves are not corrected for the choice of the best cut, as the table is.",
    ),
    "pareto": (
        "accuracy and cost",
        "Every cut by the floating-point operations of one prediction. The line joins what nothing as cheap surpasses.",
    ),
    "similarity": (
        "Similarity to a network trained from scratch",
        "Debiased linear CKA of each layer of a source with each layer of the scratch network, on the images of the "
        "target.",
    ),
}


def page(ranking: "Ranking", wide: Mapping[str, Figure], narrow: Mapping[str, Figure]) -> str:
    """Return a whole page: answer, table, pictures with their values, reasons, reference, failures, provenance.

    Parameters
    ----------
    ranking : Ranking
    wide, narrow : mapping of str to matplotlib.figure.Figure
        What `plot.figures` returns for it, for a window and for a phone.
    """
    notes = [("Left out", f"{sentence}.") for sentence in sentences(ranking.left_out).values()]
    notes += [(f"{failure.source} failed", failure.error) for failure in ranking.failed]
    notes += [("", warning) for warning in ranking.warnings]
    drawn = Section(
        "pictures", "Pictures", "Rest the pointer on a point, a bar or a cell, or touch it, to read its value.",
        pictures=pictures(_captions(ranking.metric), wide, narrow),
    )  # fmt: skip
    return render(
        "page.html",
        ranking=ranking,
        noted=few(notes, "all are in ranking.json."),
        answer=replace(_answer_table(ranking), marked={0}),
        before=[next_step(ranking), *_pilots(ranking), _reliability(ranking), drawn],
        after=[_pareto(ranking), *_scores(ranking)],
        most=MOST_ROWS,
    )


def _captions(metric: Metric) -> dict[str, tuple[str, str]]:
    """Return the captions, which stand for an accuracy, for a metric."""

    def said(text: str) -> str:
        text = text.replace("accuracy", metric.title)
        return text[0].upper() + text[1:]

    return {name: (said(title), said(text)) for name, (title, text) in _CAPTIONS.items()}


def fragment(ranking: "Ranking") -> str:
    """Return the answer and the table, for a notebook."""
    return render("ranking.html", ranking=ranking, answer=_answer_table(ranking))


def recommendation_fragment(pick: Recommendation) -> str:
    """Return a recommendation with its scores, for a notebook."""
    scores = {
        name: [_cell(value), _cell(pick.scores.get(f"{name}_standard_error"))]
        for name, value in (pick.scores | pick.baselines).items()
        if not name.endswith("_standard_error")
    }
    return render(
        "recommendation.html", pick=pick, how=how(pick), level=LEVEL, scores=scores,
        metric=metric_of(pick.metric, task=None).title,
    )  # fmt: skip


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
        texts("source", [pick.source for pick in picks]),
        numbers(ranking.metric.title, [pick.expected_accuracy for pick in picks],
                 f"Expected on new images after a transfer trained on {ranking.expected_for} images."),
        intervals("80 % interval", [pick.interval for pick in picks]),
        texts("protocol", [pick.protocol for pick in picks],
               "truncate: a linear head on frozen features. reinit: what follows the cut is re-initialised and "
               "trained. finetune: the same, all of it trained. defrost: the whole network, frozen up to there, the "
               "rest trained."),
        texts("cut after", [pick.layer or "" for pick in picks], "The last layer that is kept; of defrost, frozen."),
        Column("depth", depths, [pick.depth / pick.depths for pick in picks],
               "Stages that are kept, of all stages; of defrost, those that are frozen."),
        numbers("uncut", uncut, "Expected with all layers kept."),
        sizes("FLOPs", [pick.flops for pick in picks], "For one image, of the network that comes out."),
        sizes("params", [pick.params for pick in picks], "Of the network that comes out."),
    ]  # fmt: skip
    chances = [math.nan if pick.probability_best is None else pick.probability_best for pick in picks]
    # A ranking of an earlier version does not say it.
    if not all(map(math.isnan, chances)):
        cells = ["" if math.isnan(chance) else f"{chance:.2f}" for chance in chances]
        columns.insert(4, Column("best", cells, chances, "Probability that it is the best of all."))
    return columns


def _answer_table(ranking: "Ranking") -> Table:
    return Table("Ranking", answer_columns(ranking), "ranking.csv")


def _pilots(ranking: "Ranking") -> list[Section]:
    if ranking.hint:
        return [Section("pilots", "Pilots", lines=[ranking.hint])]
    return pilot_sections(ranking.pilots, ranking.metric)


def _reliability(ranking: "Ranking") -> Section:
    """Say what the numbers of the page mean, where they can be wrong, and what would show it."""
    lines = [
        f"An 80 % interval is meant to hold the {ranking.metric.title} of one transfer, as it would be measured on new "
        "images, in four cases of five, and a probability of 0.9 to be right nine times in ten. " + _worth(ranking),
        "Most of what is unknown is how hard the target is, which all cuts and sources share: if one interval misses, "
        "those of the others are likely to miss on the same side. The order, and which cut of a source is best, depend "
        "less on it than the height of what is expected.",
    ]
    if ranking.pilots:
        ran = len(ranking.pilots)
        told = "a pilot, a real transfer" if ran == 1 else f"{ran} pilots, real transfers"
        lines.append(
            f"Here {told} to this target, narrowed that; the intervals are those after {'it' if ran == 1 else 'them'}."
        )
    count = ranking.scores.attrs.get("evidence")
    if count:
        lines.append(f"Here {count} transfers that were measured before narrowed that.")
    check = "transferscope measure runs the transfers that matter to you and says what they give"
    lines.append(
        f"To check it: {check}." if ranking.pilots or count else
        f"To check it: {check}; rank --pilots auto runs a few before the answer and makes it surer."
    )  # fmt: skip
    return Section("reliability", "How far to trust it", lines=lines)


def _worth(ranking: "Ranking") -> str:
    """Say what is known of how often intervals were right."""
    settings = {} if ranking.provenance is None else ranking.provenance.settings
    if settings.get("calibration") is not None:
        return (
            "Here accuracies are expected by a calibration of your own: how often its intervals hold shows only on "
            "targets that it was not made from."
        )
    if ranking.metric.task != CLASSIFICATION:
        return (
            "No transfers of such a task were measured to learn expectations from: heads are expected to reach what "
            "they reach on images left out, what is trained about the same, and all errors are taken to be larger than "
            "those of classes. So protocols are hardly told apart until some are run."
        )
    return (
        "How often they were right on targets that the model had not seen differs from one kind of target to another; "
        "the page on selection in the documentation of transferscope has the figures. On images or networks unlike all "
        "of these they can be right less often."
    )


def _scores(ranking: "Ranking") -> list[Section]:
    """Show every score and baseline at the recommended cuts; nothing where scratch stands alone."""
    picks = [pick for pick in ranking.recommendations if pick.scores]
    if not picks:
        return []
    names = [name for name in picks[0].scores if not name.endswith("_standard_error")]
    columns = [
        texts("source", [pick.source for pick in picks]),
        *(_score(name, picks, ranking.metric) for name in names),
        *(counts(name, [pick.baselines[name] for pick in picks]) for name in picks[0].baselines),
    ]
    title = "Scores at the recommended cuts"
    made = f"They are what the expected {ranking.metric.title} is made from, or stand beside it."
    hint = f"Higher means more transferable. {made}"
    return [Section("scores", title, hint, Table(title, columns, "ranking.csv"))]


def _score(name: str, picks: Sequence[Recommendation], metric: Metric) -> Column:
    values = [pick.scores[name] for pick in picks]
    errors = [pick.scores.get(f"{name}_standard_error") for pick in picks]
    cells = [
        number(value) + ("" if error is None else f" ± {error:.3f}")
        for value, error in zip(values, errors, strict=True)
    ]
    score = scores_of(metric.task).get(name)
    return Column(name, cells, values, "" if score is None else f"{score.title}; range {score.range}.")


def _pareto(ranking: "Ranking") -> Section:
    rows, title = ranking.pareto, "Worth its FLOPs"
    columns = [
        texts("source", list(rows["source"])),
        texts("protocol", list(rows["protocol"])),
        texts("cut after", list(rows["layer"])),
        numbers(ranking.metric.title, list(rows["expected_accuracy"])),
        sizes("FLOPs", list(rows["flops"])),
        sizes("params", list(rows["params"])),
    ]
    hint = "Each is expected to do better than all that cost as little."
    return Section("pareto", title, hint, Table(title, columns, "cuts.csv"))
