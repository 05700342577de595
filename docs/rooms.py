"""The rooms of the package as a picture, and the figures of its structure.

    python docs/rooms.py                 draws docs/pictures/rooms.png and prints the figures
    python docs/rooms.py --package DIR   prints those of another checkout's package

Floors, purposes and what counts as an import are those of tests/test_architecture.py, which proves them.
"""

import argparse
import ast
import runpy
import statistics
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "rooms.png"
RULES = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))
room = RULES["room_of"]
FACE = ("__init__", "__main__")
INK, LINE, FILL = "#1f2a37", "#8fa3b8", "#eef3f8"


def read(package: Path) -> dict[str, ast.Module]:
    """Return the modules of a package by dotted name."""
    return {
        RULES["name_of"](path, package): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    }


def imports(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return which modules of the package each imports, also inside functions, other than for annotations."""
    return {
        name: {other for other in RULES["imports_in"](WhatRuns().visit(tree), modules) if other in modules} - {name}
        for name, tree in modules.items()
    }


class WhatRuns(ast.NodeTransformer):
    """Takes out what is there for annotations alone."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Drop `if TYPE_CHECKING:`."""
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def circles(used: dict[str, set[str]]) -> set[str]:
    """Return what can reach itself."""
    reach = {name: set(others) for name, others in used.items()}
    for middle in used:
        for others in reach.values():
            if middle in others:
                others |= reach[middle]
    return {name for name, others in reach.items() if name in others}


def height(used: dict[str, set[str]]) -> int:
    """Return the length of the longest chain; what is in a circle counts once."""
    inside = circles(used)
    floors: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in floors:
            floors[name] = 1 + max((floor(other) for other in used[name] - inside), default=0)
        return floors[name]

    return max(floor(name) for name in used if name not in inside)


def figures(package: Path) -> dict[str, object]:
    """Return what is measured of a package's structure."""
    modules = read(package)
    used = imports(modules)
    rooms = {room(name) for name in modules} - {*FACE}
    between = {each: set[str]() for each in rooms}
    for name, others in used.items():
        if room(name) in rooms:
            between[room(name)] |= {room(other) for other in others} & rooms - {room(name)}
    lines = sorted(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    )
    longest = max(
        (node.end_lineno - node.lineno + 1, f"{name}.{node.name}")
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    )
    return {
        "files and folders at the root, beside __init__ and __main__": len(rooms),
        "floors: rooms on the longest chain of imports": height(between),
        "arrows between rooms": sum(map(len, between.values())),
        "rooms in a circle of imports": len(circles(between)),
        "files in a circle of imports": len(circles(used)),
        "modules": len(lines),
        "lines of a module, median and most": f"{statistics.median(lines):g}, {lines[-1]}",
        "longest function with its docstring, lines": f"{longest[0]} ({longest[1].removeprefix(f'{package.name}.')})",
    }


def draw(package: Path) -> None:
    """Draw every floor with its rooms, the topmost first, and what each imports beside `errors`."""
    floors = RULES["FLOORS"]
    used = imports(read(package))
    figure, axes = plt.subplots(figsize=(10, 10.5), layout="constrained")
    places = {}
    for level, floor in enumerate(floors):
        width = 9.4 / len(floor)
        for number, (name, purpose) in enumerate(floor.items()):
            x, y = 0.3 + width * (number + 0.5), 1.25 * level
            places[name] = (x, y)
            half = min(width * 0.46, 2.4)
            axes.add_patch(
                plt.Rectangle((x - half, y - 0.33), 2 * half, 0.66, facecolor=FILL, edgecolor=LINE, zorder=2)
            )
            axes.text(x, y + 0.12, name, ha="center", va="center", weight="bold", color=INK, size=11, zorder=3)
            axes.text(
                x, y - 0.15, wrapped(purpose, int(half * 22)), ha="center", va="center", color=INK, size=7.5, zorder=3
            )
    pairs = {(room(name), room(other)) for name, others in used.items() for other in others}
    # What everything imports, and the face, whose names are lazy, would hide the rest.
    arrows = {(above, below) for above, below in pairs if above != below and below != "errors" and above not in FACE}
    for above, below in sorted(arrows):
        (x, y), (to_x, to_y) = places[above], places[below]
        axes.annotate(
            "", (to_x, to_y + 0.34), (x, y - 0.34),
            arrowprops={"arrowstyle": "-|>", "color": LINE, "alpha": 0.45, "linewidth": 0.8, "shrinkA": 0}, zorder=1,
        )  # fmt: skip
    axes.set(xlim=(0, 10), ylim=(-0.6, 1.25 * len(floors) - 0.6))
    axes.axis("off")
    figure.savefig(PICTURE, dpi=110)


def wrapped(text: str, width: int) -> str:
    """Break a text into two lines where one is too long."""
    if len(text) <= width:
        return text
    words = text.split()
    cut = min(range(1, len(words)), key=lambda i: abs(len(" ".join(words[:i])) - len(" ".join(words[i:]))))
    return " ".join(words[:cut]) + "\n" + " ".join(words[cut:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, metavar="DIR", help="A package folder of another checkout.")
    asked = parser.parse_args().package
    for title, value in figures(asked or ROOT / "transferscope").items():
        print(f"{title}: {value}")
    if asked is None:
        draw(ROOT / "transferscope")
