"""`transferscope cache`: what the cache holds, and taking the oldest of it away."""

import json
import re
import sys
from typing import Any

import click

from transferscope.cli import options
from transferscope.cli.messages import console, set_up_messages

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class _Amount(click.ParamType):
    """A number with a unit."""

    def __init__(self, name: str, pattern: str, units: dict[str, int], example: str) -> None:
        self.name, self._pattern, self._units, self._example = name, pattern, units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return how much it is in the smallest unit."""
        if not isinstance(value, str):
            return value
        parts = re.fullmatch(rf"([0-9]{{1,12}}(?:\.[0-9]{{1,6}})?) ?{self._pattern}", value)
        if parts is None:
            self.fail(f"expected {self._example}, but got {value!r}", param, ctx)
        return float(parts[1]) * self._units[parts[2]]


AGE = _Amount("age", f"([{''.join(_SECONDS)}])", _SECONDS, "a number with s, m, h, d or w, like 30d")
SIZE = _Amount("size", "([KMGT]?)i?B?", _BYTES, "a number of bytes with K, M, G or T, like 10GB")


@click.command(
    "cache",
    cls=options.Command,
    short_help="What the cache holds, and taking the oldest away.",
    epilog="""\b
Examples:
  transferscope cache
  transferscope cache --prune-older-than 30d --max-size 10GB
  transferscope cache --max-size 10GB --dry-run""",
)
@click.option(
    "--prune-older-than", "older_than", type=AGE, metavar="AGE", help="Take away what was written longer ago, like 30d."
)
@click.option("--max-size", type=SIZE, metavar="SIZE", help="Take the oldest away until this much is left, like 10GB.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken away.")
@options.printing
def command(
    older_than: float | None, max_size: float | None, dry_run: bool, output_format: str, quiet: bool, verbose: bool
) -> None:
    """Say how much the cache holds of each kind and how old it is; take the oldest away where that is asked.

    The cache lies in $TRANSFERSCOPE_HOME, else in $XDG_CACHE_HOME/transferscope or ~/.cache/transferscope. What is
    taken away is computed again when it is next needed.
    """
    set_up_messages(quiet, verbose)
    from transferscope.runtime.store import home
    from transferscope.runtime.upkeep import cache_files, prune

    root = home()
    pruned = []
    if older_than is not None or max_size is not None:
        size = None if max_size is None else int(max_size)
        pruned = prune(root, older_than=older_than, max_size=size, dry_run=dry_run)
    files = cache_files(root)
    kinds = [
        {
            "kind": kind,
            "files": len(of_kind),
            "bytes": sum(file.size for file in of_kind),
            "oldest_seconds": max(file.age for file in of_kind),
            "newest_seconds": min(file.age for file in of_kind),
        }
        for kind in sorted({file.kind for file in files})
        if (of_kind := [file for file in files if file.kind == kind])
    ]
    taken = {"files": len(pruned), "bytes": sum(file.size for file in pruned), "dry_run": dry_run}
    if output_format == "json":
        sys.stdout.write(json.dumps({"folder": str(root), "kinds": kinds, "pruned": taken}, indent=1) + "\n")
    elif output_format == "csv":
        sys.stdout.write("kind,files,bytes,oldest_seconds,newest_seconds\n")
        sys.stdout.writelines(f"{','.join(map(str, kind.values()))}\n" for kind in kinds)
    else:
        _print(str(root), kinds, taken)


def _print(root: str, kinds: list[dict[str, Any]], taken: dict[str, Any]) -> None:
    from transferscope.report.terminal.columns import fitted, print_tables

    rich_console = console()
    if kinds:
        columns = {
            "files": [str(kind["files"]) for kind in kinds],
            "size": [_size(kind["bytes"]) for kind in kinds],
            "oldest": [_age(kind["oldest_seconds"]) for kind in kinds],
            "newest": [_age(kind["newest_seconds"]) for kind in kinds],
        }
        names = {"kind": [kind["kind"] for kind in kinds]}
        print_tables(fitted(names, columns, width=rich_console.width, names=["kind"]), rich_console)
    total = _size(sum(kind["bytes"] for kind in kinds))
    text = f"{total} in {root}."
    if taken["files"]:
        done = "would be taken away" if taken["dry_run"] else "were taken away"
        text += f" {taken['files']} files of {_size(taken['bytes'])} {done}."
    rich_console.print(f"\n{text}" if kinds else text, highlight=False, markup=False, soft_wrap=True)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
