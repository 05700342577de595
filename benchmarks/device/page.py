"""The page that the record of a GPU becomes."""

import math
from typing import Any

HIDDEN = {"took", "traceback", "scores", "apart"}
TITLES = {
    "CKA": "All-pairs debiased linear CKA, features on the device",
    "extraction": "Features of every stage: forward passes and spatial means, images from the host",
    "comparing": "Comparing two ResNet-18 at their convolutions and batch norms",
    "score": "Transferability scores",
}


def page(content: dict[str, Any]) -> str:
    """Return the whole page, in Markdown."""
    machine = content.get("machine", {})
    sizes = f" at sizes '{machine['sizes']}'" if machine.get("sizes", "full") != "full" else ""
    text = (
        f"# {'On a GPU' if machine.get('on_gpu') else 'A CPU in place of a GPU: no measurement'}\n\n"
        f"Made by `python benchmarks/gpu.py`{sizes} on {machine.get('device', 'an unknown device')}, "
        f"{machine.get('versions', '')}. Medians, after a call that warms up. Ceilings are those of this machine: a "
        "large matrix product in that precision, and a copy from and to its own memory.\n"
    )
    if tests := content.get("tests"):
        text += f"\n## Tests\n\n`pytest -m gpu`: {tests.get('summary') or tests.get('note')}.\n"
        if tests.get("failed"):
            text += "\n" + "".join(f"- {line}\n" for line in tests["failed"])
    single = {name: row for name, row in content.items() if ":" not in name and _is_row(name, row)}
    for name, row in single.items():
        text += f"\n## {name[0].upper() + name[1:]}\n\n{_list(row)}"
    for group, title in TITLES.items():
        members = {n.split(": ", 1)[1]: row for n, row in content.items() if n.startswith(f"{group}: ")}
        if members:
            text += f"\n## {title}\n\n{_table(members)}"
    return text + _deviations(content)


def _is_row(name: str, row: Any) -> bool:
    return isinstance(row, dict) and "took" in row and name not in ("machine", "tests")


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return "–"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _list(row: dict[str, Any]) -> str:
    return "| what | |\n|---|---|\n" + "".join(
        f"| {key} | {_number(value)} |\n" for key, value in row.items() if key not in HIDDEN
    )


def _table(members: dict[str, dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in members.values() for key in row if key not in HIDDEN))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name, row in members.items():
        lines.append(f"| {name} | " + " | ".join(_number(row[key]) if key in row else "" for key in columns) + " |")
    return "\n".join(lines) + "\n"


def _deviations(content: dict[str, Any]) -> str:
    """Return how far every score is moved by fewer digits in the passes."""
    found = {
        name.split(": ", 1)[1]: row["apart"]
        for name, row in content.items()
        if name.startswith("extraction: ") and "apart" in row
    }
    if not found:
        return ""
    heading = "\n## Fewer digits in the passes: how far scores of the last stage move from those in float32\n\n"
    return heading + "Relative to the score, or to 1 where that is smaller.\n\n" + _table(found)
