"""A table of situations in which networks and images are easily misread, and of what happens in each.

    python benchmarks/cases.py [WORD ...] [--format json]

makes the input of each situation, runs it through the command line or the Python interface, and compares what comes
out with what is right, which another library, another form of the same data or a count by hand says. It writes
docs/cases.md; with words it runs those situations alone that hold one of them, and only prints. Nothing is downloaded.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from reading.cases import adapting, axes, checkpoints, costs, graph, images, targets
from reading.cases.case import Case, Found

PAGE = Path(__file__).parents[3] / "docs" / "cases.md"
KINDS: dict[str, tuple[Case, ...]] = {
    kind.KIND: kind.CASES for kind in (axes, graph, costs, adapting, checkpoints, images, targets)
}
INTRODUCTION = """# Situations that are easily misread

Each row is a situation that users of this field have met. `python benchmarks/cases.py` makes its input, runs it, and
compares what comes out with what is right; it wrote this page.
"""
HEADER = ("| what you have | what is right | what happens | |", "|---|---|---|---|")


def page(found: dict[str, list[tuple[Case, Found]]]) -> str:
    """Return the page."""
    everything = [each for rows in found.values() for _, each in rows]
    right = sum(each.right for each in everything)
    lines = [INTRODUCTION, f"{right} of {len(everything)} are right."]
    for kind, rows in found.items():
        lines += ["", f"## {kind}", "", *HEADER]
        lines += [_row(case, each) for case, each in rows]
    return "\n".join(lines) + "\n"


def _row(case: Case, found: Found) -> str:
    verdict = "right" if found.right else "**wrong**"
    return f"| {' | '.join([*map(_cell, (case.has, case.wanted, found.now)), verdict])} |"


def _cell(text: str) -> str:
    """Return text for a cell; between backticks a backslash would show, but a bar ends the cell there too."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # cut off within
        parts[-2:] = ["".join(parts[-2:])]
    parts[::2] = [re.sub(r"([\\<>*])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def tried(words: list[str]) -> dict[str, list[tuple[Case, Found]]]:
    """Run the situations that hold one of these words, or all."""
    found: dict[str, list[tuple[Case, Found]]] = {}
    for kind, cases in KINDS.items():
        for case in cases:
            if words and not any(word.lower() in f"{kind} {case.has}".lower() for word in words):
                continue
            began = time.perf_counter()
            each = case.run()
            mark = "right" if each.right else "wrong"
            print(f"{mark}: {case.has}: {each.now} ({time.perf_counter() - began:.1f} s)", file=sys.stderr, flush=True)
            found.setdefault(kind, []).append((case, each))
    return found


def main() -> None:
    """Try them and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="of the situations to try; default: all")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="what is printed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        os.environ["TRANSFERSCOPE_HOME"] = home
        found = tried(asked.words)
    text = page(found)
    if not asked.words:
        PAGE.write_text(text, encoding="utf-8")
    print(_as_json(found) if asked.format == "json" else text)


def _as_json(found: dict[str, list[tuple[Case, Found]]]) -> str:
    rows: list[dict[str, Any]] = [
        {"kind": kind, "has": case.has, "wanted": case.wanted, "now": each.now, "right": each.right}
        for kind, cases in found.items()
        for case, each in cases
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False)
