"""What an earlier `measure` says of a target: rows of its runs.csv as observations, and which rows are of no use."""

import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.prediction.observation import Observation
from transferscope.runtime.links import Link, link_of
from transferscope.runtime.metrics import ACCURACY, METRICS, Metric
from transferscope.runtime.regular import is_folder, read_regular
from transferscope.runtime.spreadsheets import unquoted

TABLE, SETTINGS, RESULT = "runs.csv", "measure.json", "measurement.json"
"""What `measure` writes: the rows, beside them what they hold for, and at the end the result."""
_TEXTS = ("source", "target", "protocol", "layer", "status")
_NUMBERS = ("depth", "samples")
_FIGURES = tuple(metric.column for metric in METRICS.values())
"""At least one of them is there."""
_MORE = ("seed", "samples_per_class", "seconds")
"""Columns that count where there are any."""
_CELL = ["source", "protocol", "depth", "samples"]
_MOST_TESTED = 20_000
_ROUNDING = 5e-7
"""Tables that went through other hands have six decimals."""
_DISAGREEMENT = 0.1
"""One transfer, of one draw, cannot have two accuracies that differ by more; on two devices they differ by less."""


@dataclass(frozen=True)
class Table:
    """The rows of one measurement, as they are written there.

    Attributes
    ----------
    name
        For people.
    rows
        Columns source, target, protocol, layer and status (text), depth, samples, seed, samples_per_class, seconds and
        that of each metric (numbers, NaN where they are missing).
    target_hash
        Of the target, as `Target.hash`; None when it is not known.
    sources
        Fingerprint of each source, as `networks.loading.fingerprint`; empty when they are not known.
    tested
        Images tested on; None when it is not known.
    digest
        SHA-256 (hex) of the table.
    """

    name: str
    rows: pd.DataFrame
    target_hash: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    tested: int | None = None
    digest: str = ""

    def record(self) -> dict[str, Any]:
        """Return what a result says of how it was made."""
        return {"name": self.name, "rows": len(self.rows), "sha256": self.digest}


def given_evidence(evidence: Any) -> tuple[Any, ...]:
    """Return the argument `evidence` as a tuple of paths and tables; raise InputError when it is something else."""
    if evidence is None:
        return ()
    several = tuple(evidence) if isinstance(evidence, Sequence) and not isinstance(evidence, str) else (evidence,)
    for each in several:
        if not isinstance(each, str | Path | pd.DataFrame):
            raise InputError(
                f"Expected `evidence` to be the path of a runs.csv as `measure` writes it, its table, or several of "
                f"them, but got {type(each).__name__}"
            )
    return several


def read_evidence(evidence: Sequence[Any]) -> tuple[Table, ...]:
    """Read what was measured.

    Parameters
    ----------
    evidence : sequence of path or pandas.DataFrame
        Each the runs.csv that `measure` writes, the folder that it is in, or such a table.

    Raises
    ------
    InputError
        There is no such file, or it is no such table.
    """
    return tuple(
        Table("a table", _plain("a table", each), digest=_sha256(each.to_csv(index=False).encode()))
        if isinstance(each, pd.DataFrame)
        else _read(Path(each))
        for each in evidence
    )


_BYTES = 2**28


def _read(path: Path) -> Table:
    path = path / TABLE if is_folder(path) else path
    try:
        content = read_regular(path, _BYTES)
        rows = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        rows = rows.assign(**{name: rows[name].map(unquoted) for name in _TEXTS if name in rows})
    except OSError as error:
        raise InputError(
            f"Expected `evidence` to be a runs.csv as `measure` writes it, but {path} cannot be read "
            f"({error.strerror or error})"
        ) from error
    except ValueError as error:  # pandas' own errors and those of decoding
        raise InputError(_no_table(str(path), str(error).partition("\n")[0])) from error
    settings, result = _mapping(path.with_name(SETTINGS)), _mapping(path.with_name(RESULT))
    about, finished, sources = settings.get("target"), result.get("target"), settings.get("sources")
    about = about if isinstance(about, dict) else {}
    finished = finished if isinstance(finished, dict) else {}
    # The result of another measurement may have stayed behind.
    tested = finished.get("n_test") if about.get("hash") == finished.get("hash") else about.get("n_test")
    return Table(
        name=str(path),
        rows=_plain(str(path), rows),
        target_hash=about.get("hash"),
        sources=sources if isinstance(sources, dict) else {},
        tested=tested if isinstance(tested, int) else None,
        digest=_sha256(content),
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mapping(path: Path) -> dict[str, Any]:
    """Return what a JSON file beside a table holds; nothing when there is none, or it is something else."""
    try:
        content = json.loads(read_regular(path, _BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _plain(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that count, in their types; raise InputError when one is missing."""
    figure = () if any(column in rows for column in _FIGURES) else (ACCURACY.column,)
    if missing := [column for column in (*_TEXTS, *_NUMBERS, *figure) if column not in rows]:
        raise InputError(_no_table(name, f"there is no column {', '.join(missing)}"))
    texts = {column: rows[column].astype(object).where(rows[column].notna(), "").astype(str) for column in _TEXTS}
    numbers = {
        column: pd.to_numeric(rows[column], errors="coerce") if column in rows else np.nan
        for column in (*_NUMBERS, *_MORE, *_FIGURES)
    }
    return pd.DataFrame({**texts, **numbers}, index=rows.index).reset_index(drop=True)


def _no_table(name: str, why: str) -> str:
    return f"Expected `evidence` to be a runs.csv as `measure` writes it, but {name} is none: {why}"


def observations(
    tables: Sequence[Table],
    *,
    target: str,
    target_hash: str,
    layers: Mapping[str, Sequence[str]],
    candidates: Collection[tuple[str, int, str]],
    fingerprints: Mapping[str, str],
    metric: Metric = ACCURACY,
    worth: float = 1.0,
) -> list[Observation]:
    """Return what tables tell of the candidates for a target; what is of no use is left out, and one warning says what.

    Rows that differ in the draw alone become one observation with their mean. Rows of a table that does not say which
    images it holds for count when their target has this name, and the warning says so.

    Parameters
    ----------
    tables : sequence of Table
        As `read_evidence` returns them.
    target, target_hash : str
        The name of the target and the hash of its images and labels.
    layers : mapping of str to sequence of str
        For each source the layers that it can be cut after, from the input on.
    candidates : collection of (str, int, str)
        Source, depth and protocol of everything that something is expected of; the source of scratch is empty.
    fingerprints : mapping of str to str
        For each source, as `networks.loading.fingerprint`.
    metric : Metric
        Which column tells how good a transfer is.
    worth : float
        How exactly test images measure it: as as many images for each of them would measure a share.

    Warns
    -----
    TransferscopeWarning
        Rows are left out, or taken by the name of their target.
    """
    found: list[Observation] = []
    lost: dict[str, int] = {}
    link = link_of(metric)
    by_name, total, seen = 0, 0, pd.DataFrame()
    for table in tables:
        rows = table.rows
        if metric is not ACCURACY:
            rows = rows.assign(accuracy=rows[metric.column], every_image=rows["accuracy"])
        total += len(rows)
        for keep, why in _tests(table, target, target_hash, layers, candidates, fingerprints, link):
            kept = keep(rows)
            for reason, count in why(rows[~kept]).value_counts().items():
                lost[str(reason)] = lost.get(str(reason), 0) + int(count)
            rows = rows[kept]
        by_name += len(rows) * (table.target_hash is None)
        tested = max(1, round(worth * (table.tested or _tested(rows.get("every_image", rows["accuracy"])))))
        seen = pd.concat([seen, rows.assign(tested=tested)], ignore_index=True)
    if len(seen):
        sound, contradicting = _agreeing(seen)
        if contradicting:
            lost["whose accuracies contradict each other"] = contradicting
        found = list(_means(sound, link))
    _warn(total, lost, by_name, target)
    return found


_Test = tuple[Callable[[pd.DataFrame], pd.Series], Callable[[pd.DataFrame], pd.Series]]
"""Which rows pass, and of each that does not why."""


def _tests(
    table: Table,
    target: str,
    target_hash: str,
    layers: Mapping[str, Sequence[str]],
    candidates: Collection[tuple[str, int, str]],
    fingerprints: Mapping[str, str],
    link: Link,
) -> Iterator[_Test]:
    def said(text: str) -> Callable[[pd.DataFrame], pd.Series]:
        return lambda rows: pd.Series(text, index=rows.index)

    def named(text: str, column: str) -> Callable[[pd.DataFrame], pd.Series]:
        return lambda rows: text + rows[column].astype(str)

    if table.target_hash is not None:
        same = table.target_hash == target_hash
        yield lambda rows: pd.Series(same, index=rows.index), named("of another target, ", "target")
    else:
        yield lambda rows: rows["target"] == target, named("of another target, ", "target")
    yield lambda rows: rows["status"] == "done", said("that failed")
    protocols = {protocol for _, _, protocol in candidates}
    yield lambda rows: rows["protocol"].isin(protocols), named("of a protocol that is no candidate, ", "protocol")
    yield lambda rows: rows["source"].isin(list(layers)), named("of a source that is not ranked, ", "source")
    changed = [
        source for source, print_ in table.sources.items() if source in fingerprints and print_ != fingerprints[source]
    ]
    yield lambda rows: ~rows["source"].isin(changed), named("of another network by the name of ", "source")
    yield lambda rows: _at_its_layer(rows, layers), said("whose layer is not the one at that depth")
    yield lambda rows: _expected(rows, candidates), said("that nothing is expected of")
    yield lambda rows: _possible(rows, link), said("with numbers that cannot be")


def _expected(rows: pd.DataFrame, candidates: Collection[tuple[str, int, str]]) -> pd.Series:
    sources = rows["source"].where(rows["protocol"] != "scratch", "")
    cells = zip(sources, rows["depth"], rows["protocol"], strict=True)
    return pd.Series([cell in candidates for cell in cells], index=rows.index, dtype=bool)


def _at_its_layer(rows: pd.DataFrame, layers: Mapping[str, Sequence[str]]) -> pd.Series:
    """Whether each row names the layer that its source is cut after at its depth; at depth 0 there is none."""
    places = {(source, depth): layer for source, names in layers.items() for depth, layer in enumerate(["", *names])}
    cells = zip(rows["source"], rows["depth"], rows["layer"], strict=True)
    return pd.Series(
        [places.get((source, depth)) == layer for source, depth, layer in cells], index=rows.index, dtype=bool
    )


def _possible(rows: pd.DataFrame, link: Link) -> pd.Series:
    return rows["accuracy"].between(link.lowest, 1) & (rows["samples"] >= 1) & (rows["samples"] % 1 == 0)


def _agreeing(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Leave cells out in which one run has two accuracies; return the others, each run once, and how many rows went."""
    run = [*_CELL, "samples_per_class", "seed"]
    apart = rows.groupby(run, dropna=False)["accuracy"].transform(np.ptp) > _DISAGREEMENT
    cells = rows.assign(apart=apart).groupby(_CELL)["apart"].transform("any")
    # Without seeds nothing tells a row that is there twice from another draw.
    seeded = rows["seed"].notna()
    twice = rows.duplicated(run, keep="last") & seeded
    return rows[~cells & ~twice], int(cells.sum())


def _means(rows: pd.DataFrame, link: Link) -> Iterator[Observation]:
    for (source, protocol, depth, samples), cell in rows.groupby(_CELL, sort=True):
        yield Observation(
            source="" if protocol == "scratch" else str(source),
            depth=int(depth),
            protocol=str(protocol),
            samples=int(samples),
            accuracy=float(cell["accuracy"].mean()),
            tested=int(cell["tested"].min()),
            draws=len(cell),
            seconds=float(cell["seconds"].mean()) if cell["seconds"].notna().any() else math.nan,
            origin="evidence",
            link=link,
        )


def _tested(accuracies: pd.Series) -> int:
    """Return the least number of images of which all these accuracies can be shares; 1 where there is none."""
    values = np.unique(accuracies.dropna().to_numpy())
    if not len(values):
        return 1
    for count in range(1, _MOST_TESTED + 1):
        if np.abs(values - np.round(values * count) / count).max(initial=0.0) < _ROUNDING:
            return count
    return 1


def _warn(total: int, lost: Mapping[str, int], by_name: int, target: str) -> None:
    said = []
    if lost:
        reasons = [f"{count} {reason}" for reason, count in sorted(lost.items(), key=lambda item: (-item[1], item[0]))]
        said.append(f"{sum(lost.values())} of {total} rows of evidence are left out: {'; '.join(reasons)}")
    if by_name:
        said.append(
            f"{by_name} rows of evidence count because their target is called {target!r} too: without the {SETTINGS} "
            "that belongs beside them nothing says which images they are of"
        )
    if said:
        warnings.warn(". ".join(said), TransferscopeWarning, stacklevel=3)
