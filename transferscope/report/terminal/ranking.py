"""The ranking as a table for the terminal."""

import math
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.report.terminal.columns import fitted, print_tables
from transferscope.report.terminal.counts import short_count
from transferscope.report.terminal.pilots import ABOUT_PILOTS, pilot_tables
from transferscope.results.agreement import FEWEST
from transferscope.results.labelled import BASELINES, SIMILARITIES
from transferscope.results.left_out import sentences
from transferscope.results.ranking import Ranking
from transferscope.results.summary import Reference
from transferscope.runtime.metrics import Metric
from transferscope.transferability import SCORES
from transferscope.transferability.scores import DEFAULT_SCORES

_SHOWN = {*DEFAULT_SCORES, *(f"{name}_to_scratch" for name in SIMILARITIES)}
"""What is computed unasked."""

_AGREES = "agrees with it"
_fitted = partial(fitted, names=("source", "cut after", "worth its FLOPs"), left=("protocol", _AGREES))

_SCORES = {"CKA": "linear_cka_to_scratch", "SVCCA": "svcca_to_scratch", "LogME": "logme", "H-score": "hscore"}


def ranking_tables(ranking: Ranking, width: int) -> list[Table]:
    """Return the ranking as rich tables: one where `width` columns hold it, else the answer and the scores."""
    picks = ranking.recommendations
    tied = ranking.best.tied_with
    names = {
        "#": [f"{pick.rank}{'=' if pick.source in tied else ''}" for pick in picks],
        "source": [pick.source for pick in picks],
    }
    answer = {
        "protocol": [pick.protocol for pick in picks],
        "cut after": [pick.layer or "" for pick in picks],
        "depth": ["" if pick.layer is None else f"{pick.depth}/{pick.depths}" for pick in picks],
        ranking.metric.title: [f"{pick.expected_accuracy:.3f}" for pick in picks],
        "80 % interval": [f"{pick.interval[0]:.3f}-{pick.interval[1]:.3f}" for pick in picks],
        "uncut": [_known(ranking.accuracy_at_last_layer(pick)) for pick in picks],
    }
    # A ranking of an earlier version does not say it.
    said = any(pick.probability_best is not None for pick in picks)
    best = ["" if pick.probability_best is None else f"{pick.probability_best:.2f}" for pick in picks]
    scores = {
        **({"best": best} if said else {}),
        "FLOPs": [short_count(pick.flops) for pick in picks],
        "params": [short_count(pick.params) for pick in picks],
        **{
            header: [f"{pick.scores[name]:.3f}" if name in pick.scores else "" for pick in picks]
            for header, name in _SCORES.items()
            if any(name in pick.scores for pick in picks)  # some have no meaning for numbers
        },
    }
    return _fitted(names, answer, scores, width=width)


def pareto_tables(ranking: Ranking, width: int) -> list[Table]:
    """Return what nothing beats that costs as few FLOPs, cheapest first."""
    rows = ranking.pareto
    return _fitted(
        {"worth its FLOPs": list(rows["source"])},
        {
            "protocol": list(rows["protocol"]),
            "cut after": list(rows["layer"]),
            ranking.metric.title: [f"{value:.3f}" for value in rows["expected_accuracy"]],
            "80 % interval": [f"{row.lower:.3f}-{row.upper:.3f}" for row in rows.itertuples()],
            "FLOPs": [short_count(value) for value in rows["flops"]],
            "params": [short_count(value) for value in rows["params"]],
        },
        width=width,
    )


def detail_tables(ranking: Ranking, width: int) -> list[Table]:
    """Return every score and baseline at the cuts, then how far each agrees with the ranking.

    Beside the scores stands the probability that a candidate really beats the next one.
    """
    picks = ranking.recommendations
    columns = {
        "beats next": ["" if pick.beats_next is None else f"{pick.beats_next:.3f}" for pick in picks],
    }
    # The scratch network has none of them.
    scored = next((pick for pick in picks if pick.scores), picks[0])
    columns |= {name: [_with_error(pick.scores, name) for pick in picks] for name in SCORES if name in scored.scores}
    columns |= {name: [_baseline(pick.baselines.get(name)) for pick in picks] for name in scored.baselines}
    names = {"#": [str(pick.rank) for pick in picks], "source": [pick.source for pick in picks]}
    return [*_fitted(names, columns, width=width), *_agreement_tables(ranking, width)]


def _agreement_tables(ranking: Ranking, width: int) -> list[Table]:
    agreement = ranking.agreement
    rows = sorted(agreement.over_sources, key=BASELINES.__contains__)
    return _fitted(
        {_AGREES: [f"{name} (baseline)" if name in BASELINES else name for name in rows]},
        {
            "over sources": [_known(agreement.over_sources[name]) for name in rows],
            "over depths": [_known(agreement.over_depths[name]) for name in rows],
        },
        width=width,
    )


def _baseline(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else short_count(value)


def _known(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _with_error(scores: dict[str, float], name: str) -> str:
    if name not in scores:
        return ""
    error = scores.get(f"{name}_standard_error")
    return f"{scores[name]:.3f}" + ("" if error is None else f"±{error:.3f}")


def print_ranking(ranking: Ranking, console: Console, *, costs: bool = False, detailed: bool = False) -> None:
    """Print the answer in words, then the tables.

    With `costs` what is worth its FLOPs is printed too. Where scores or standard errors were asked for, or with
    `detailed`, every score is printed beside the baselines, and the reason of each recommendation.
    """
    reference = ranking.reference
    console.print(Text(ranking.verdict + "\n", style="bold"))
    console.print(Text(ranking.best.reason + "\n"))
    asked = any(name not in _SHOWN for pick in ranking.recommendations for name in pick.scores)
    details = detail_tables(ranking, console.width) if asked or detailed else []
    more = pareto_tables(ranking, console.width) if costs or detailed else []
    tried = pilot_tables(ranking.pilots, console.width)
    print_tables([*ranking_tables(ranking, console.width), *tried, *more, *details], console)
    console.print()
    if ranking.hint:
        console.print(Text(ranking.hint + "\n"))
    if detailed:
        for pick in ranking.recommendations[1:]:
            console.print(Text(f"{pick.source}: {pick.reason}\n"))
    lines = [
        f"Based on {ranking.seen}. {ranking.metric.heading}: {ranking.basis}; uncut: the same with all layers "
        "kept; FLOPs: per image; CKA, SVCCA: similarity to the scratch network at the cut."
    ]
    if any(pick.protocol == "defrost" for pick in ranking.recommendations):
        lines[0] += " defrost: nothing is cut off, stages up to there are frozen."
    if ranking.best.probability_best is not None:
        lines[0] += " best: probability that it is the best of all."
    if ranking.best.tied_with:
        lines[0] += " =: tied with the first (either is better with a probability of at least 0.1)."
    if ranking.pilots:
        lines.append(ABOUT_PILOTS)
    if count := ranking.scores.attrs.get("evidence"):
        lines.append(f"Evidence: {count} transfers that were measured before.")
    lines += [f"Left out: {sentence}." for sentence in sentences(ranking.left_out).values()]
    if details:
        lines.append(_agreement_line(ranking))
    if reference is not None:
        lines.append(_reference_line(reference, ranking.metric))
    console.print(Text("\n".join(lines), style="dim"))


def _agreement_line(ranking: Ranking) -> str:
    text = (
        "beats next: probability that it is really better than the next one. Agreement: weighted Kendall τ with the "
        f"{ranking.metric.title} predicted here, so not with transfers that were run; a score below a baseline has "
        "nothing to add to it."
    )
    if ranking.agreement.sources < FEWEST:
        text += f" Over sources it is unknown with fewer than {FEWEST} of them."
    return text


def _reference_line(reference: Reference, metric: Metric) -> str:
    if reference.held_out_accuracy is None:
        return f"Reference: {reference.network}, handed in; not ranked, for its training images are unknown."
    return (
        f"Scratch reference: {reference.network}, trained on {reference.trained_on} images for "
        f"{reference.training}, {metric.title} {reference.held_out_accuracy:.3f} on "
        f"{reference.held_out_samples} held-out images."
    )
