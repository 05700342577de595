"""One architecture of each family of timm, with random weights, through the verbs; what comes out against timm itself.

    python benchmarks/architectures.py [NAME ...] [--jobs N] [--again] [--format json]

`layers`, `rank`, `compare` and `measure` (truncate, reinit and finetune at the first, the middle and the last stage)
run as the command line runs them; then what is captured is compared with what timm says of the network
(reading/truth.py). Each architecture has a process of its own. Nothing is downloaded. What is finished is kept, a line
each, in RECORDS, under the digest of the code: the command can be stopped at any time and goes on with what is missing,
and after a change of the code it begins anew. Without names it writes benchmarks/results/architectures.csv and .md.
"""

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import platform
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import transferscope
from reading.families import ARCHITECTURES, Architecture
from reading.one import COLUMNS
from reading.one import main as examine
from reading.pictures import write_folder
from reading.verbs import FAILED, OK, VERDICTS, worst

LIMIT = 180
"""Seconds on a processor, of one architecture."""
RESULTS = Path(__file__).parents[1] / "results"
RECORDS = Path(__file__).with_name(".architectures.jsonl")
KNOWN = ("architecture", "family", "parameters", "image size", "stages")

HOW = """*layers*, *rank*, *compare* (with itself: every layer has similarity 1 with itself) and the protocols of
*measure* run as the command line runs them. The other rows compare what is captured with the truth: *images*, an
image's features are the same alone and in a batch; *layout*, means and positions are those of timm's
`forward_intermediates`; *tokens*, so are patches and class token; *classifier*, the last stage is what the layer
that `get_classifier` names reads; *parameters*, those of a cut are the ones that get a gradient from its output; *cut*,
the cut network gives the stage's output. Refused: not done, with a reason in words. Failed: an error of a
library came through. Wrong: nothing was said, and the truth is another."""
VARIABLE = re.compile(r"\b[\w.:]*\.[\w.:]*\d[\w.:]*|\([^()]*\d[^()]*\)|\[[^\]]*\]|\d+|'[^']*'")
"""What differs from network to network in one and the same message."""

Record = dict[str, Any]


def code_digest() -> str:
    """Return a digest of the package and of this benchmark: other code may give other results."""
    digest = hashlib.sha256()
    for folder in (Path(transferscope.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def recorded(digest: str) -> dict[str, Record]:
    """Return the finished records of this code by architecture."""
    lines = RECORDS.read_text(encoding="utf-8").splitlines() if RECORDS.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return {record["architecture"]: record for record in records if record["code"] == digest}


def all_records(chosen: list[Architecture], jobs: int, again: bool) -> Iterator[Record]:
    """Yield the record of each architecture, running those that are missing."""
    digest = code_digest()
    there = {} if again else recorded(digest)
    yield from (there[each.model] for each in chosen if each.model in there)
    missing = [each for each in chosen if each.model not in there]
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"TRANSFERSCOPE_HOME": f"{name}/home", "HF_HUB_OFFLINE": "1"}
        write_folder(Path(name) / "target")
        for found in run(missing, Path(name), jobs):
            record = found | {"code": digest}
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(
                f"{record['architecture']}: {overall(record)}, {record['seconds']:.0f} s", file=sys.stderr, flush=True
            )
            yield record


def run(missing: list[Architecture], folder: Path, jobs: int) -> Iterator[Record]:
    """Examine each in a process of its own, so many side by side: forked, since imports take as long as all else."""
    forking, waiting = multiprocessing.get_context("fork"), list(missing)
    running: dict[Any, tuple[Architecture, Any, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                each = waiting.pop(0)
                process = forking.Process(target=examine, args=(each, folder, LIMIT), daemon=False)
                process.start()
                running[process.sentinel] = each, process, time.perf_counter()
            for sentinel in wait(list(running)):
                each, process, began = running.pop(sentinel)
                process.join()
                yield _result(each, folder, process.exitcode, time.perf_counter() - began)
    finally:
        for _, process, _ in running.values():
            process.terminate()


def _result(architecture: Architecture, folder: Path, code: int, seconds: float) -> Record:
    known = {"architecture": architecture.model, "family": architecture.family, "image size": architecture.size}
    path = folder / f"{architecture.model}.json"
    if code == 0 and path.exists():
        return known | json.loads(path.read_text(encoding="utf-8"))
    why = f"not finished after {LIMIT} s" if -code in (signal.SIGXCPU, signal.SIGKILL) else f"it ended with code {code}"
    lost = dict.fromkeys(COLUMNS, (FAILED, why))
    return known | {"stages": 0, "parameters": 0, "results": lost, "seconds": round(seconds, 1)}


def overall(record: Record) -> str:
    """Return the worst of an architecture's verdicts."""
    return worst([found for found, _ in record["results"].values()])


def row(record: Record) -> dict[str, Any]:
    """Return the line of the table: verdicts, then every message that goes with one that is not ok."""
    results = record["results"]
    messages: dict[str, list[str]] = {}
    for column in COLUMNS:
        if results[column][0] != OK:
            messages.setdefault(results[column][1], []).append(column)
    text = "; ".join(f"{', '.join(columns)}: {message}" for message, columns in messages.items())
    return {name: record[name] for name in KNOWN} | {c: results[c][0] for c in COLUMNS} | {"message": text}


def write_table(records: list[Record]) -> None:
    """Write the CSV."""
    with (RESULTS / "architectures.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*KNOWN, *COLUMNS, "message"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(row, records))


def summary(records: list[Record]) -> str:
    """Return the page."""
    whole = Counter(map(overall, records))
    lines = [
        "# Architectures",
        "",
        f"`python benchmarks/architectures.py`: {len(records)} architectures of timm {version('timm')}, the smallest "
        f"of each family, with random weights; torch {version('torch')}, {platform.machine()}. Nothing was downloaded. "
        "Every cell is in architectures.csv.",
        "",
        f"{whole[OK]} of {len(records)} go through everything and are read as timm reads them.",
        "",
        "| | " + " | ".join(VERDICTS) + " |",
        "|---|" + "---|" * len(VERDICTS),
    ]
    for column in COLUMNS:
        counts = Counter(record["results"][column][0] for record in records)
        lines.append(f"| {column} | " + " | ".join(str(counts[each] or "") for each in VERDICTS) + " |")
    lines += ["", HOW, "", "## What is not ok", ""]
    for (found, kind), members in sorted(kinds(records).items(), key=lambda each: -len(each[1])):
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(name for name, _ in members))
        cells = ", ".join(dict.fromkeys(column for _, column in members))
        lines += [f"- {found}, {cells}: {kind} ({names})"]
    reasons = [f"- `{name}`: {why}" for name, why in REASONS.items() if any(r["architecture"] == name for r in records)]
    lines += ["", "## Why", "", *reasons] if reasons else []
    return "\n".join(lines) + "\n"


REASONS = {
    "crossvit_tiny_240": "two branches of tokens run side by side until their two heads are averaged: at no place one "
    "tensor carries all of the image, so that nothing can be cut there. Branches can be compared by name.",
    "tnt_s_patch16_224": "the tokens of patches are added up from inner tokens, which are regrouped with the images: "
    "where they lie in the image is not followed through that. Means, depths and protocols are right.",
    "levit_128s": "of 64 px one token is left in the last stages, which has no grid. Means, depths and protocols are "
    "right.",
}
"""Why what is not ok is not."""


def kinds(records: list[Record]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return architectures and columns by verdict and message, numbers and names of layers left out of it."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for record in records:
        for column in COLUMNS:
            each, message = record["results"][column]
            if each != OK:
                text = VARIABLE.sub("…", message)
                found.setdefault((each, text), []).append((record["architecture"], column))
    return found


def main() -> None:
    """Run what is missing, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of architectures; default: all")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes side by side")
    parser.add_argument("--again", action="store_true", help="run also what is there already")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="what is printed")
    asked = parser.parse_args()
    chosen = [each for each in ARCHITECTURES if not asked.names or each.model in asked.names]
    records = sorted(all_records(chosen, asked.jobs, asked.again), key=lambda each: each["architecture"])
    if not asked.names:
        write_table(records)
        (RESULTS / "architectures.md").write_text(summary(records), encoding="utf-8")
    print(json.dumps(records) if asked.format == "json" else summary(records))
