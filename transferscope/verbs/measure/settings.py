"""measure.json: the settings that the rows of a table hold for."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.runtime.metrics import CLASSIFICATION
from transferscope.runtime.regular import read_regular
from transferscope.runtime.store import digest
from transferscope.runtime.version import __version__
from transferscope.verbs.measure.rows import ForeignError, Row

SCHEMA_VERSION = 1

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Settings:
    """What decides the results of a grid, beside the identity of each run.

    Attributes
    ----------
    target : str
        Its name; for people alone.
    target_hash : str
        Of all its images and labels.
    held_out : str
        A hash of which images are trained and which tested on.
    device : str
        The type: ``"cpu"`` or ``"cuda"``.
    options : mapping
        JSON-like: the recipe and whatever else decides results.
    sources : mapping of str to str
        The fingerprint of each source.
    n_test : int
        Images tested on.
    task : str
        What is learnt.
    """

    target: str
    target_hash: str
    held_out: str
    device: str
    options: Mapping[str, Any]
    sources: Mapping[str, str]
    n_test: int
    task: str = CLASSIFICATION

    def record(self) -> dict[str, Any]:
        """Return what measure.json holds."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "transferscope": ".".join(__version__.split(".")[:2]),
            "target": {"name": self.target, "hash": self.target_hash, "n_test": self.n_test},
            "held_out": self.held_out,
            "device": self.device,
            "options": dict(self.options),
            "sources": dict(self.sources),
            **({} if self.task == CLASSIFICATION else {"task": self.task}),
        }
        loaded: dict[str, Any] = json.loads(json.dumps(record))  # tuples become lists, as they are when read
        return loaded


def held_out(pool: np.ndarray, test: np.ndarray) -> str:
    """Return a hash of which images are trained and which tested on, by their indices into the target."""
    return digest(hashlib.sha256(pool.tobytes()).hexdigest(), hashlib.sha256(test.tobytes()).hexdigest())


def read_settings(path: Path) -> dict[str, Any] | None:
    """Return what measure.json holds, None when it is not there; raise `ForeignError` when it holds something else."""
    try:
        settings = json.loads(read_regular(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise ForeignError(f"{path.name} cannot be read ({error})") from error
    if not isinstance(settings, dict) or not all(
        isinstance(settings.get(name), dict) for name in ("target", "options", "sources")
    ):
        raise ForeignError(f"{path.name} does not hold the settings of a measure")
    _without_day(settings["options"])
    return settings


def _without_day(options: dict[str, Any]) -> None:
    """Read the budget of one day, which used to stand for none in every recipe of a measure, as none."""
    recipes = options.get("recipes")
    for recipe in recipes.values() if isinstance(recipes, dict) else ():
        if isinstance(recipe, dict) and recipe.get("budget_s") == _DAY_S:
            recipe["budget_s"] = None


def check(recorded: dict[str, Any] | None, wanted: dict[str, Any], rows: Sequence[Row]) -> None:
    """Raise `ForeignError` unless rows under the `recorded` settings are also right under those that are `wanted`."""
    if recorded is None:
        raise ForeignError("there is no file with the settings that its rows hold for")
    if other := {row["target"] for row in rows} - {recorded["target"].get("name")}:
        raise ForeignError(f"some rows are of another target, {other.pop()!r}")
    if unknown := {row["source"] for row in rows} - set(recorded["sources"]):
        raise ForeignError(f"the settings do not know the source of some rows, {unknown.pop()!r}")
    old, new = dict(_flat(recorded)), dict(_flat(wanted))
    # More sources are welcome; what the target is called decides nothing, and `held_out` says more than its number.
    more = {f"sources.{name}" for name in set(recorded["sources"]) ^ set(wanted["sources"])}
    free = {"target.name", "target.n_test", *more}
    changes = [
        f"{key} was {old.get(key)!s:.40} and is {new.get(key)!s:.40}"
        for key in sorted({*old, *new} - free)
        if old.get(key) != new.get(key)
    ]
    if changes:
        raise ForeignError(f"the settings have changed ({'; '.join(changes)})")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in nested mappings, each with its names."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    else:
        yield name, value
