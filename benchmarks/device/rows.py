"""What is measured, in which order, and how long each row may take; run one after the other by a process of its own.

`python -m device.rows DEVICE SIZES RECORD` is that process: it skips what the record has, and writes every row as soon
as it is measured.
"""

import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from comparison.peers import OURS

from device import arrays, networks
from device.machine import FULL, SMALL, Machine, Sizes
from transferscope import transferability

SIZES = {"full": FULL, "small": SMALL}
PEERS = ("pytorch-cka", "torch_cka")


class Row(NamedTuple):
    """A row of the tables."""

    name: str
    budget: float
    """Seconds after which it is given up."""
    measure: Callable[[Machine, dict[str, Any]], dict[str, Any]]
    """From the machine, and the rows that were measured before."""


def rows(sizes: Sizes) -> list[Row]:
    """Return every row, the most telling ones first."""
    found = [Row("ceilings", 30, arrays.ceilings)]
    found.append(Row("agreement", 40, networks.agreement))
    found.append(Row("round trips", 40, networks.round_trips))
    for n, p in sizes.widths:
        for precision in arrays.PRECISIONS:
            found.append(Row(f"CKA: n = {n}, p = {p}, {precision}", 60, arrays.cka(n, p, precision)))
    for model in sizes.models:
        for way in networks.WAYS:
            found.append(Row(f"extraction: {model}, {way}", 40, networks.extraction(model, way)))
    found.append(Row("comparing: bare passes", 20, networks.bare_passes))
    for tool in (OURS, *PEERS):
        found.append(Row(f"comparing: {tool}", 40, networks.comparing(tool)))
    found.append(Row("SVCCA", 30, arrays.svcca))
    for name in transferability.SCORES:
        found.append(Row(f"score: {name}", 20, arrays.score(name)))
    found.append(Row("rank", 60, networks.ranking))
    return found


def read(record: Path) -> dict[str, Any]:
    """Return what was measured so far."""
    return json.loads(record.read_text()) if record.exists() else {}


def write(record: Path, content: dict[str, Any]) -> None:
    """Write it whole or not at all."""
    aside = record.with_suffix(".new")
    aside.write_text(json.dumps(content, indent=1))
    os.replace(aside, record)


def measure(machine: Machine, row: Row, content: dict[str, Any]) -> dict[str, Any]:
    """Return what one row gives; an error is a result."""
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = row.measure(machine, content)
    except Exception as error:
        found = {"failure": f"{type(error).__name__}: {error}"[:500], "traceback": traceback.format_exc()[-3000:]}
    machine.release()
    return {**found, "took": time.perf_counter() - began}


def main(device: str, sizes: str, record: Path) -> None:
    """Measure what the record lacks."""
    machine = Machine(device, SIZES[sizes])
    for row in rows(machine.sizes):
        content = read(record)
        if row.name not in content:
            print(row.name, flush=True)  # the parent counts its time from here
            content[row.name] = measure(machine, row, content)
            write(record, content)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
