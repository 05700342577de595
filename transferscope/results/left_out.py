"""Ways to adapt a source that are left out, since the network cannot be adapted so, and why."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class LeftOut:
    """A protocol that a source cannot be adapted by, at some depths or all."""

    source: str
    protocol: str
    depths: tuple[int, ...]
    everywhere: bool
    """Whether these are all depths of the source that the protocol has."""
    reason: str
    """At the first of them."""


def left_out(scores: "xr.Dataset") -> tuple[LeftOut, ...]:
    """List what a dataset of scores says is not possible; nothing where it says nothing of that."""
    if "impossible" not in scores:
        return ()
    found: list[LeftOut] = []
    for source in scores["source"].to_numpy():
        rows = scores.sel(source=source)
        depths = rows["depth"].to_numpy()[rows["layer"].to_numpy() != ""].tolist()
        reasons = {}
        for protocol in scores["protocol"].to_numpy():
            texts = rows["impossible"].sel(protocol=protocol).to_numpy().tolist()
            reasons[str(protocol)] = dict(zip(depths, texts, strict=False))
        found += left_out_of(str(source), reasons)
    return tuple(found)


def left_out_of(source: str, reasons: Mapping[str, Mapping[int, str]]) -> list[LeftOut]:
    """List the protocols that a source cannot be adapted by: protocol to depth to the reason, empty where it can."""
    found = []
    for protocol, by_depth in reasons.items():
        depths = tuple(depth for depth, reason in by_depth.items() if reason)
        if depths:
            found.append(LeftOut(source, protocol, depths, len(depths) == len(by_depth), by_depth[depths[0]]))
    return found


def sentences(entries: Iterable[LeftOut]) -> dict[str, str]:
    """Say of each source, by its name, by what it cannot be adapted and why: protocols with one reason together."""
    said = {}
    for source, of_source in itertools.groupby(entries, key=lambda entry: entry.source):
        by_reason: dict[str, list[str]] = {}
        for entry in of_source:
            where = "" if entry.everywhere else f" at depth {_ranges(entry.depths)}"
            by_reason.setdefault(entry.reason, []).append(f"{entry.protocol}{where}")
        parts = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
        said[source] = f"{source} cannot be adapted by {'; nor by '.join(parts)}"
    return said


def _ranges(numbers: Iterable[int]) -> str:
    """Write numbers with their ranges: 1-3, 5."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups)
