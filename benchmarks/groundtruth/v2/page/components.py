"""Variance components of the logit of accuracy: target per protocol, network, rest and noise, on every table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from groundtruth.curves import listed, shown
from groundtruth.maps import print_table
from groundtruth.v2.page.measured import CELL, TRAINED, Tables, logit
from groundtruth.v2.page.mixed import Fit, Term, fit
from groundtruth.v2.page.noise import NOTHING, within
from groundtruth.v2.page.published import ALL, ATTENTIVE, LAST

PROTOCOLS = ("truncate", "toptuning", "fne", "reinit", "finetune", "defrost", "scratch", "knn", ALL, ATTENTIVE)
UPPER = (0.5, 0.75, 0.875, 1.0)
"""Shares of the stages at which heads are taken."""
LEAST_CELLS, LEAST_TARGETS = 15, 4
"""Of a protocol, below which it is left out."""
TINY = 1e-9
PROBES = {"reinit": "truncate", "finetune": "truncate", "defrost": "truncate", ATTENTIVE: LAST}
"""What is trained, and the head on frozen features that is a probe of it."""
TARGET, IMAGES, NETWORK, PAIR = "target", "target × images", "network", "target × network"


@dataclass(frozen=True)
class Components:
    """Variances on one table, with jackknife standard errors over targets."""

    name: str
    fit: Fit
    noise: Mapping[str, float]
    """The variance of one draw by protocol; empty where draws are not known."""
    cells: pd.DataFrame
    left_out: Sequence[str]
    errors: Mapping[str, float] = field(default_factory=dict)
    """Of what `values` returns."""

    @property
    def protocols(self) -> list[str]:
        """Return those that were fitted, in the order of the fit."""
        return list(self.fit.kinds[TARGET])


def cells_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean logit of each cell over draws, with the number of draws, at the shares that are compared."""
    at = ~runs["protocol"].isin(["truncate", "toptuning"]) | runs["share"].isin(UPPER)
    runs = runs[at & ((runs["protocol"] != "fne") | (runs["layer"] == "all"))]
    runs = runs.assign(logit=logit(runs["accuracy"], runs["tested"]))
    found = runs.groupby([*CELL, "size", "share"]).agg(
        logit=("logit", "mean"), draws=("seed", "nunique"), tested=("tested", "first")
    )
    values = runs.set_index([*CELL, "seed"])["logit"]
    noise = {str(name): within(each) for name, each in values.groupby(level="protocol")} if len(values) else {}
    return found.reset_index().assign(noise=lambda cells: cells["protocol"].map(noise))


def published_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return the same of a published table, whose noise is part of the rest."""
    return table.assign(logit=logit(table["accuracy"], table["tested"]), draws=1, noise=math.nan, share=1.0)


def fitted(name: str, cells: pd.DataFrame, jackknife: bool = True) -> Components | None:
    """Fit the components of a table; None where no protocol has enough cells."""
    counts = cells.groupby("protocol").agg(cells=("logit", "size"), targets=("target", "nunique"))
    enough = counts[(counts["cells"] >= LEAST_CELLS) & (counts["targets"] >= LEAST_TARGETS)].index
    left_out = [str(protocol) for protocol in counts.index if protocol not in enough]
    cells = cells[cells["protocol"].isin(enough)].reset_index(drop=True)
    if cells.empty or cells["source"].nunique() < 2:
        return None
    noise = cells.groupby("protocol")["noise"].first()
    # Where no cell of a protocol has two draws, its noise is taken to be that of the others.
    noise = noise.fillna(noise.mean()).fillna(0.0)
    whole = _fit(cells, noise)
    found = Components(name, whole, noise.to_dict() if noise.any() else {}, cells, left_out)
    if not jackknife:
        return found
    without = [
        values(Components(name, _fit(part, noise, whole.theta), found.noise, part, left_out))
        for target in cells["target"].unique()
        if (part := cells[cells["target"] != target])["protocol"].nunique() == len(enough)
    ]
    spread = pd.DataFrame(without)
    errors = np.sqrt((len(spread) - 1) ** 2 / max(1, len(spread)) * spread.var(ddof=1))
    return Components(name, whole, found.noise, cells, left_out, errors.to_dict())


def _fit(cells: pd.DataFrame, noise: pd.Series, start: np.ndarray | None = None) -> Fit:
    protocol = cells["protocol"].to_numpy(str)
    target = cells["target"].to_numpy(str)
    columns = []
    size = np.log(cells["size"].clip(lower=1).to_numpy(float))
    share = cells["share"].to_numpy(float)
    for name in np.unique(protocol):
        own = (protocol == name).astype(float)
        columns += [own, own * size, own * size**2, own * share, own * share**2]
    terms = [Term(TARGET, target, protocol)]
    if len(cells["size"].unique()) > 1:
        terms.append(Term(IMAGES, np.char.add(target, size.round(3).astype(str))))
    terms.append(Term(NETWORK, cells["source"].to_numpy(str)))
    terms.append(Term(PAIR, np.char.add(np.char.add(target, "|"), cells["source"].to_numpy(str))))
    known = (cells["protocol"].map(noise) / cells["draws"]).round(6).to_numpy(float)
    return fit(cells["logit"].to_numpy(float), np.column_stack(columns), terms, protocol, known, start)


def values(found: Components) -> dict[str, float]:
    """Return standard deviations in logits, and correlations of targets' effects, by name."""
    result = {}
    covariance, kinds = found.fit.covariances[TARGET], found.protocols
    sds = np.sqrt(np.diag(covariance))
    for i, name in enumerate(kinds):
        result[f"target, {name}"] = float(sds[i])
        # Targets that do not differ under a protocol correlate with nothing.
        others = {other: sds[i] * sds[j] for j, other in enumerate(kinds[:i]) if sds[i] * sds[j] > TINY}
        result |= {
            f"{other} and {name}": float(covariance[i, kinds.index(other)] / product)
            for other, product in others.items()
        }
    for outcome, probe in PROBES.items():
        if outcome in kinds and probe in kinds:
            result[f"target, {outcome} once {probe} is known"] = left_given(found, outcome, probe)
    for term in (IMAGES, NETWORK, PAIR):
        if term in found.fit.covariances:
            result[term] = float(np.sqrt(found.fit.covariances[term][0, 0]))
    for name, variance in found.fit.residuals.items():
        result[f"rest, {name}"] = math.sqrt(variance)
    for name, variance in found.noise.items():
        result[f"noise, {name}"] = math.sqrt(variance)
    return result


def left_given(found: Components, outcome: str, probe: str) -> float:
    """Return the standard deviation of a target's effect under one protocol, once that under another is known."""
    covariance, kinds = found.fit.covariances[TARGET], found.protocols
    i, j = kinds.index(outcome), kinds.index(probe)
    left = covariance[i, i] - covariance[i, j] ** 2 / max(covariance[j, j], 1e-12)
    return float(math.sqrt(max(0.0, left)))


def everywhere(tables: Tables, published: Mapping[str, pd.DataFrame], jackknife: bool = True) -> list[Components]:
    """Fit every table there is: v1's small and real networks, v2, and what was published."""
    sources = {
        "v1, small": cells_of(tables.small), "v1, real": cells_of(tables.real), "v2": cells_of(tables.everything),
        **{name: published_cells(table) for name, table in published.items()},
    }  # fmt: skip
    found = (fitted(name, cells, jackknife) for name, cells in sources.items() if len(cells))
    return [each for each in found if each is not None]


def report(found: Sequence[Components]) -> dict[str, Figure]:
    """Print the components side by side, and return the picture."""
    print("## Variance components of the logit of accuracy\n")
    if not found:
        print(f"{NOTHING}\n")
        return {}
    print(
        "logit(accuracy) = level of the protocol, with ln(images) and the share of the stages, each to the square + "
        "*target*, a number for each protocol, freely correlated + *target × images*, one for all protocols + "
        "*network* + *target × network* + *rest*, by protocol + *noise* of one draw, as draws of one cell have it. "
        "Standard deviations in logits (at an accuracy of .7 a tenth of a logit is 2 points), by restricted maximum "
        "likelihood; ± is a jackknife over targets. What the test images of a target add by being few is part of "
        "*target*. Of published tables noise is part of the rest, and *truncate* is a linear head at the last layer. A "
        f"protocol with fewer than {LEAST_CELLS} cells or {LEAST_TARGETS} targets is left out.\n"
    )
    rows: dict[str, dict[str, str]] = {}
    for each in found:
        for name, value in values(each).items():
            if " and " not in name:
                rows.setdefault(name, {})[each.name] = with_error(value, each.errors.get(name, math.nan))
    names = [each.name for each in found]
    print_table(shown(pd.DataFrame(rows).T.reindex(index=_order(rows), columns=names).rename_axis("sd of")))
    for each in found:
        print(f"- {each.name}: {_rests(each)}.")
    print("\nCorrelations of targets' effects between protocols:\n")
    rows = {}
    for each in found:
        for name, value in values(each).items():
            if " and " in name:
                rows.setdefault(name, {})[each.name] = with_error(value, each.errors.get(name, math.nan))
    table = shown(pd.DataFrame(rows, index=names).T.rename_axis("protocols"))
    print_table(table)
    return {"components": figure(found)}


def with_error(value: float, error: float) -> str:
    """Return it with its standard error, where there is one."""
    return f"{value:.2f}" + ("" if math.isnan(error) else f" ± {error:.2f}")


def _rests(each: Components) -> str:
    draws, cells = each.cells["draws"], each.cells
    drawn = f"{draws.min()}–{draws.max()} draws" if each.noise else "draws not published one by one"
    total = float(cells["logit"].var())
    noise = (cells["protocol"].map(each.noise) / draws).mean() / total if each.noise else math.nan
    said = "noise not known" if math.isnan(noise) else f"{noise:.1%} of the variance of all cells is noise"
    trained = int(cells["protocol"].isin([*TRAINED, "scratch"]).sum())
    images = float(np.sqrt((1 / (0.21 * cells.groupby("target")["tested"].first())).mean()))
    few = f"test images add {images:.2f} logits to targets" if each.noise else "test images not counted"
    kept = f"; left out, with too few cells yet: {listed(each.left_out)}" if each.left_out else ""
    return (
        f"{len(cells)} cells ({trained} trained), {cells['target'].nunique()} targets, {cells['source'].nunique()} "
        f"networks, {drawn}; {said}; {few}{kept}"
    )


def _order(rows: Mapping[str, object]) -> list[str]:
    kinds = ["target, ", IMAGES, NETWORK, PAIR, "rest, ", "noise, "]

    def place(name: str) -> tuple[int, int, str]:
        kind = next(i for i, each in enumerate(kinds) if name == each or (each.endswith(" ") and name.startswith(each)))
        protocol = name.partition(", ")[2]
        return kind, PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS), name

    return sorted(rows, key=place)


def figure(found: Sequence[Components]) -> Figure:
    """Draw the standard deviations, a panel for each table, as points with their errors."""
    drawing = Figure(figsize=(2.4 + 1.1 * len(found), 4.9), layout="constrained")
    axes = drawing.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    order = _order({name: 0 for each in found for name in values(each) if " and " not in name})
    palette = sns.color_palette("colorblind")
    for ax, each in zip(axes, found, strict=True):
        known = values(each)
        for i, name in enumerate(order):
            if name not in known:
                continue
            kind = name.partition(",")[0]
            colour = palette[["target", IMAGES, NETWORK, PAIR, "rest", "noise"].index(kind)]
            error = each.errors.get(name, math.nan)
            if not math.isnan(error):
                ax.hlines(i, max(0.0, known[name] - error), known[name] + error, color=colour, linewidth=1.1)
            ax.plot(known[name], i, "o", markersize=3.5, color=colour, clip_on=False)
        trained = int(each.cells["protocol"].isin([*TRAINED, "scratch"]).sum())
        targets = each.cells["target"].nunique()
        ax.set_title(f"{each.name}\n{len(each.cells)} cells\n{trained} trained\n{targets} targets", fontsize="x-small")
        ax.grid(axis="both", color="0.92", linewidth=0.6)
        ax.tick_params(labelsize="x-small")
        sns.despine(ax=ax)
    axes[0].set_yticks(range(len(order)), order, fontsize="x-small")
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    axes[0].set_xlim(left=0)
    drawing.supxlabel("standard deviation in logits (bars: jackknife over targets)", fontsize="small")
    return drawing
