"""The recommendations of a ranking as bars."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from transferscope.report.plots.drawing import Context, canvas, explain, hover, label, longest
from transferscope.report.plots.naming import short, short_layer
from transferscope.report.plots.rank_rows import check, says_pick, whitened
from transferscope.results.ranking import Ranking
from transferscope.results.recommendation import Recommendation

_MOST_BARS = 25
_CHANCE: dict[str, Any] = {"color": "0.45", "linestyle": ":"}


def ranking(ranking: Ranking, ax: Axes | None = None, *, context: Context = "notebook") -> Axes:
    """Draw the expected accuracy of every recommendation as a bar with its 80 % interval, the first on top.

    Dark bars are the first and what is tied with it (`=` behind the rank); training from scratch is
    hatched. Protocol and cut stand below each name. Of more than 25 the first are drawn, and training from scratch.

    Parameters
    ----------
    ranking : Ranking
        What `rank` returns.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    context : {"paper", "notebook", "talk"}
        How large fonts and lines are, and the figure where no axes are given.

    Raises
    ------
    InputError
        When `ranking` is something else, or there is no such context.
    """
    check(ranking)
    picks = _bars(ranking)
    tied = ranking.best.tied_with
    chance = float(ranking.scores.attrs.get("largest_class", math.nan))
    with canvas(ax, context, lambda width: (width, _bars_height(len(picks)))) as ax:
        dark = sns.color_palette("colorblind")[0]
        pale = whitened(dark, 0.65)
        for place, pick in enumerate(picks):
            first = pick is picks[0] or pick.source in tied
            (bar,) = ax.barh(
                place, pick.expected_accuracy, height=0.6, color=dark if first else pale, linewidth=0,
                hatch="////" if pick.layer is None else None, edgecolor="white" if first else dark,
            )  # fmt: skip
            hover(bar, [says_pick(pick)])
            ax.errorbar(
                pick.expected_accuracy, place, xerr=np.abs(np.array([pick.interval]).T - pick.expected_accuracy),
                color="black", linewidth=rcParams["lines.linewidth"], capsize=0.5 * rcParams["lines.markersize"],
            )  # fmt: skip
            beside: dict[str, Any] = {
                "xycoords": ax.get_yaxis_transform(),
                "textcoords": "offset points",
                "annotation_clip": False,
            }
            small = 0.85 * rcParams["ytick.labelsize"]
            ax.annotate(
                _what(pick, ranking, longest(context)), (0, place), (-5, -1), ha="right", va="top", color="0.35",
                fontsize=small, **beside,
            )  # fmt: skip
            ax.annotate(
                f"{pick.expected_accuracy:.3f}", (1, place), (4, 0), va="center", fontsize=small, **beside
            )  # fmt: skip
        names = [f"{pick.rank}{'=' * (pick.source in tied)} {short(pick.source, longest(context))}" for pick in picks]
        ax.set_yticks(range(len(picks)), names, va="bottom")
        ax.tick_params(axis="y", length=0, pad=5)
        ax.set_ylim(len(picks) - 0.5, -0.6)
        left = min(0.0, *(pick.interval[0] for pick in picks))
        ax.set_xlim(left, min(1.0, 1.03 * max(pick.interval[1] for pick in picks)))
        few = f"\n{len(picks)} of {len(ranking.recommendations)}" * (len(picks) < len(ranking.recommendations))
        by = ranking.scores.attrs.get("objective", "accuracy")
        by = f"\nranked by {by}" * (by != "accuracy")
        label(ax, x=f"expected {ranking.metric.title}, 80 % interval{few}{by}")
        handles = _legend(picks, tied, dark, pale)
        if chance > left:
            ax.axvline(chance, **_CHANCE)
            handles.append(Line2D([], [], label=ranking.metric.guess.removeprefix("always "), **_CHANCE))
        sns.despine(ax=ax, left=True)
        explain(ax, handles, below=True)
    return ax


def _legend(picks: Sequence[Recommendation], tied: Sequence[str], dark: Any, pale: Any) -> list[Any]:
    """Return what says which bars are dark, pale and hatched, of those that there are."""
    handles: list[Any] = [Patch(color=dark, label="first, or tied with it")]
    if any(pick.source not in tied for pick in picks[1:]):
        handles.append(Patch(color=pale, label="behind"))
    if any(pick.layer is None for pick in picks):
        handles.append(Patch(facecolor="0.85", hatch="////", edgecolor="0.4", linewidth=0, label="from scratch"))
    return handles


def _bars(ranking: Ranking) -> list[Recommendation]:
    """Return what has a bar: the first, and training from scratch in any case."""
    picks = ranking.recommendations
    shown = list(picks[:_MOST_BARS])
    return shown + [pick for pick in picks[_MOST_BARS:] if pick.layer is None]


def _what(pick: Recommendation, ranking: Ranking, most: int) -> str:
    """Say what is done with a source, in a few words."""
    if pick.layer is None:
        return "" if ranking.reference is None else short(ranking.reference.network, most)
    return f"{pick.protocol} · {short_layer(pick.layer, most - 8)} ({pick.depth}/{pick.depths})"


def _bars_height(bars: int) -> float:
    return (2.9 * bars + 4) * rcParams["ytick.labelsize"] / 72
