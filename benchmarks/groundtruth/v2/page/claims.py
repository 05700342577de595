"""What v1, papers and published tables say, beside what v2 finds: whether they disagree, as far as can be told."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from groundtruth.curves import Estimate, over_targets
from groundtruth.maps import print_table
from groundtruth.real_cuts import all_curves
from groundtruth.real_report import COMPARABLE
from groundtruth.v2.page import choices, crossing, cuts, depths, one_number, ways
from groundtruth.v2.page.components import Components, values, with_error
from groundtruth.v2.page.measured import HEADS, TRAINED, Tables
from groundtruth.v2.page.published import ALL, LAST

AGREES, DISAGREES, OPEN, MISSING = "consistent", "**disagrees**", "not decided", "not measured yet"
UNKNOWN = Estimate(math.nan, math.nan, math.nan)
NEAR = 0.05
"""Of the depth, by which the best cut may differ for it to be called the same."""


@dataclass(frozen=True)
class Claim:
    """What is said, by whom, and what was found here."""

    by: str
    said: str
    found: str
    verdict: str


def apart(one: Estimate, other: Estimate) -> str:
    """Return whether two means differ: where their difference is outside of both intervals taken together.

    Not decided where that is so wide that nothing at all, in place of `other`, would not differ either.
    """
    if any(math.isnan(value) for value in (*one, *other)):
        return MISSING
    half = math.hypot((one.high - one.low) / 2, (other.high - other.low) / 2)
    return DISAGREES if abs(one.mean - other.mean) > half else AGREES if half < abs(other.mean) else OPEN


def signed(found: Estimate, sign: int) -> str:
    """Return whether a mean has the sign that was said."""
    if math.isnan(found.mean) or math.isnan(found.low):
        return MISSING
    return OPEN if not found.sign else AGREES if found.sign == sign else DISAGREES


def report(
    tables: Tables, published: Mapping[str, pd.DataFrame], fits: Sequence[Components],
    numbers: Sequence[one_number.Table],
) -> None:  # fmt: skip
    """Print all claims, those that v2 disagrees with first."""
    print("## Where it disagrees with v1, a paper, or the published tables\n")
    makers: list[Callable[[], Iterator[Claim]]] = [
        lambda: of_cuts(tables), lambda: of_layers(tables, published), lambda: of_tuning(tables),
        lambda: of_depths(tables), lambda: of_choices(tables), lambda: of_targets(fits), lambda: of_numbers(numbers),
    ]  # fmt: skip
    found = [claim for maker in makers for claim in maker()]
    print(
        "Computed from the tables, v1's numbers too, by the same code. Two means disagree where they lie farther apart "
        "than the root of the sum of their intervals' squared halves; a direction is decided where the interval leaves "
        "zero out; where the intervals are as wide as the number itself, nothing is. Networks, recipes "
        "and targets differ all together between the tables, so a disagreement says that a number does not carry over, "
        "not why.\n"
    )
    counts = pd.Series([claim.verdict for claim in found]).value_counts()
    print(", ".join(f"{counts.get(name, 0)} {name.strip('*')}" for name in (DISAGREES, AGREES, OPEN, MISSING)) + ".\n")
    ordered = sorted(found, key=lambda claim: (DISAGREES, OPEN, AGREES, MISSING).index(claim.verdict))
    frame = pd.DataFrame([[c.by, c.said, c.found, c.verdict] for c in ordered])
    print_table(frame.set_axis(["by", "says", "here", "verdict"], axis=1).set_index("by"))


def shared(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what fits heads in v1 and in v2 on the networks and targets that both have."""
    parts = (tables.real[tables.real["protocol"].isin([*HEADS, "fne"])], tables.heads)
    keys = [pd.MultiIndex.from_frame(each[["target", "source"]]) for each in parts]
    return parts[0][keys[0].isin(keys[1])], parts[1][keys[1].isin(keys[0])]


def beside(tables: Tables, of: Callable[[pd.DataFrame], Estimate], digits: int = 1, plus: bool = True) -> str:
    """Return the same number of v1 and v2 on the pairs that both have, as text; nothing where there are none."""
    old, new = shared(tables)
    if new.empty:
        return ""
    pairs = new.groupby(["target", "source"]).ngroups
    texts = [of(each).text(digits, plus) for each in (old, new)]
    return f"; on the {pairs} pairs of network and target that both have: v1 {texts[0]}, v2 {texts[1]}"


def of_cuts(tables: Tables) -> Iterator[Claim]:
    """Yield what is said of the best cut of frozen features."""
    for head, name in cuts.NAMES.items():

        def best(heads: pd.DataFrame, head: str = head) -> Estimate:
            found = cuts.best_shares(_curves(heads, head))
            return over_targets(found) if len(found) else UNKNOWN

        def moved(heads: pd.DataFrame, head: str = head) -> Estimate:
            found = cuts.best_shares(_curves(heads, head))
            return cuts.few_to_many(found) if len(found) else UNKNOWN

        def lost(heads: pd.DataFrame, head: str = head) -> Estimate:
            found = cuts.regrets(_curves(heads, head))
            return over_targets(found["last stage"]) if len(found) else UNKNOWN

        one, other = best(tables.real), best(tables.heads)
        far = apart(other, one)
        near = AGREES if abs(one.mean - other.mean) <= NEAR and far == DISAGREES else far
        yield Claim("v1, real", f"best cut with {name}: at {one.text(2, plus=False)} of the depth",
                    _text(other, 2, False) + beside(tables, best, 2, False), near)  # fmt: skip
        one, other = moved(tables.real), moved(tables.heads)
        still = MISSING if math.isnan(other.low) else AGREES if other.sign == one.sign else DISAGREES
        yield Claim("v1, real", f"best cut with {name}: changes by {one.text(2)} from few to many images",
                    _text(other, 2), still)  # fmt: skip
        one, other = lost(tables.real), lost(tables.heads)
        yield Claim("v1, real", f"{name} at the last stage: expected regret of {one.text(plus=False)} points",
                    _text(other, 1, False) + beside(tables, lost, 1, False), apart(other, one))  # fmt: skip


def _curves(heads: pd.DataFrame, head: str) -> dict[str, pd.DataFrame]:
    own = heads[heads["protocol"] == head]
    return all_curves(own.assign(samples_per_class=own["size"]))


def of_layers(tables: Tables, published: Mapping[str, pd.DataFrame]) -> Iterator[Claim]:
    """Yield what is said of features of all layers."""
    lead = _embedding_lead(tables.heads)
    before = _embedding_lead(tables.real)
    yield Claim("v1, real", f"all layers' features are {before.text()} points ahead of the last stage's",
                _text(lead) + beside(tables, _embedding_lead), apart(lead, before))  # fmt: skip
    if "vit" in published:
        wide = published["vit"].pivot_table(index=["target", "source"], columns="protocol", values="accuracy")
        gain = over_targets(100 * (wide[ALL] - wide[LAST]))
        yield Claim("ViT layers (published)", f"a linear head on all blocks is {gain.text()} points ahead of the last",
                    _text(lead), signed(lead, gain.sign))  # fmt: skip


def _embedding_lead(heads: pd.DataFrame) -> Estimate:
    found = ways.fitted(heads)
    if found.empty:
        return UNKNOWN
    table = found.pivot_table(index=["target", "source", "size", "seed"], columns="way", values="accuracy")
    return over_targets(100 * (table[ways.EMBEDDING] - table[f"{ways.LINEAR}, {ways.LAST}"]))


def of_tuning(tables: Tables) -> Iterator[Claim]:
    """Yield what is said of extraction against fine-tuning."""
    now, before = crossing.tuned_pairs(tables), crossing.tuned_pairs_v1(tables)
    leads, old = ways.best_fit(now), ways.best_fit(before)
    for size, one in old.items():
        here = leads.get(size, UNKNOWN)
        yield Claim("v1, real", f"at {size} images a class the full-network embedding is {one.text()} points ahead of "
                    "fine-tuning", _text(here), apart(here, one))  # fmt: skip
    for way in (f"{crossing.TOP}, {ways.LAST}", f"{crossing.TOP}, {ways.BEST}"):
        own = now[now["way"] == way]
        lead = over_targets(ways.leads(own, way)) if len(own) else UNKNOWN
        speed = ways.cost_ratio(own, "flops" if tables.on_gpu else "seconds") if len(own) else math.nan
        holds = (
            MISSING if math.isnan(lead.low)
            else DISAGREES if lead.high < -COMPARABLE or speed < 10
            else AGREES if lead.low >= -COMPARABLE else OPEN
        )  # fmt: skip
        yield Claim(
            "Alfano et al. 2022 (abstract)", "top-tuning is comparable with fine-tuning at one to two orders of "
            f"magnitude less time (here: {way}; comparable: {COMPARABLE:.0f} points)",
            MISSING if math.isnan(lead.mean) else f"{lead.text()} points, {speed:.0f} times less", holds,
        )  # fmt: skip


def of_depths(tables: Tables) -> Iterator[Claim]:
    """Yield what is said of the depth of what is trained."""
    one, other = (head_trained(runs, heads) for runs, heads in
                  ((tables.small, tables.small), (tables.trained, tables.heads)))  # fmt: skip
    yield Claim("v1, small", f"`reinit` with everything kept is {one.text()} points ahead of the fitted head",
                _text(other), apart(other, one))  # fmt: skip
    old = depths.slopes(_as_gains(tables.small))
    new = depths.slopes(depths.gains(tables))
    for protocol in ("reinit", "finetune"):
        before, now = (_by_size(each, protocol) for each in (old, new))
        signs = {each.sign for each in before.values()}
        one_way = len(signs) == 1 and 0 not in signs
        verdicts = {signed(each, next(iter(signs))) if one_way else OPEN for each in now.values()}
        yield Claim(
            "v1, small", f"{protocol}, points from keeping none to all of the stages: {_listed(before)}", _listed(now),
            verdicts.pop() if len(verdicts) == 1 else OPEN if verdicts else MISSING,
        )  # fmt: skip
    for protocol in ("reinit", "defrost"):
        now = _by_size(new, protocol)
        verdict = MISSING
        if len(now) > 1:
            few, many = now[min(now)], now[max(now)]
            verdict = OPEN if apart(many, few) != DISAGREES else AGREES if many.mean < few.mean else DISAGREES
        yield Claim(
            "Gerace et al. 2024 (abstract)", "the best depth depends on the number of images; here: the slope over the "
            f"share that is {depths.WORDS[protocol].split(',')[0]} under {protocol} falls as images grow",
            _listed(now), verdict,
        )  # fmt: skip


def head_trained(runs: pd.DataFrame, heads: pd.DataFrame) -> Estimate:
    """Return the points that a trained head (`reinit`, everything kept) is ahead of the fitted one on the same draw."""
    top = runs[(runs["protocol"] == "reinit") & (runs["depth"] == runs["depths"])]
    both = top.merge(heads[heads["protocol"] == "truncate"], on=[*ways.PLACE, "depth"], suffixes=("", "_fitted"))
    both = both.set_index("target")
    return over_targets(100 * (both["accuracy"] - both["accuracy_fitted"]).astype(float)) if len(both) else UNKNOWN


def _as_gains(runs: pd.DataFrame) -> pd.Series:
    own = runs[runs["protocol"].isin(TRAINED)]
    return 100 * own.set_index(["target", "source", "size", "protocol", "share", "seed"])["accuracy"]


def _by_size(slopes: Mapping[tuple[str, int], Estimate], protocol: str) -> dict[int, Estimate]:
    return {size: each for (name, size), each in sorted(slopes.items()) if name == protocol}


def _listed(found: Mapping[int, Estimate]) -> str:
    return "; ".join(f"{each.text()} at {size} images" for size, each in found.items()) or MISSING


def of_choices(tables: Tables) -> Iterator[Claim]:
    """Yield what is said of how much source and cut matter."""
    before, now = choices.cubes(tables.real), choices.cubes(tables.heads)
    old = choices.random_choices(before)
    new = choices.random_choices(now) if now else dict.fromkeys(choices.FACTORS, UNKNOWN)
    for name in choices.FACTORS:
        yield Claim("v1, real", f"a random {name} of frozen features loses {old[name].text(plus=False)} points",
                    _text(new[name], 1, False), apart(new[name], old[name]))  # fmt: skip


def of_targets(fits: Sequence[Components]) -> Iterator[Claim]:
    """Yield how the components of other tables compare with v2's."""
    by_name = {each.name: each for each in fits}
    v2 = by_name.get("v2")
    known = values(v2) if v2 else {}
    names = ("target, truncate", "target, finetune once truncate is known", "finetune and truncate")
    for name in names:
        for other in ("v1, small", "v1, real", "medmnistplus", "robust"):
            if other not in by_name or name not in values(by_name[other]):
                continue
            here, errors = known.get(name, math.nan), v2.errors if v2 else {}
            there, error = values(by_name[other])[name], by_name[other].errors.get(name, math.nan)
            both = math.hypot(errors.get(name, math.nan), error)
            verdict = MISSING if math.isnan(here) or math.isnan(both) else (
                DISAGREES if abs(here - there) > 2 * both else AGREES if 2 * both < there else OPEN
            )  # fmt: skip
            kind = "correlation of targets' effects, " if " and " in name else "sd of "
            text = MISSING if math.isnan(here) else with_error(here, errors.get(name, math.nan))
            yield Claim(other, f"{kind}{name}: {with_error(there, error)}", text, verdict)


def of_numbers(numbers: Sequence[one_number.Table]) -> Iterator[Claim]:
    """Yield whether one number per target is what is uncertain, there and here."""
    here = [table for table in numbers if table.name.startswith("v2") and one_number.usable(table)]
    for table in numbers:
        if table.name.startswith("v2") or not one_number.usable(table):
            continue
        _, ratio, sign = one_number.answer(table)
        said = (
            f"one measured network has {ratio.text(2, plus=False)} times the error of a regression on the probe "
            f"({ {1: 'one number per target', -1: 'not one number', 0: 'not decided'}[sign]})"
        )  # fmt: skip
        if not here:
            yield Claim(table.name, said, MISSING, MISSING)
            continue
        _, own, found = one_number.answer(here[-1])
        verdict = OPEN if not found or not sign else AGREES if found == sign else DISAGREES
        yield Claim(table.name, said, own.text(2, plus=False), verdict)


def _text(found: Estimate, digits: int = 1, plus: bool = True) -> str:
    return MISSING if math.isnan(found.mean) else found.text(digits, plus)
