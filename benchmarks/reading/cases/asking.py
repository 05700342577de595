"""What cases ask of transferscope: a zoo file, and the verbs as the command line runs them."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
import yaml
from torch import Tensor

import transferscope as ts
from reading.cases.case import warned
from reading.cases.networks import SIDE
from reading.pictures import write_folder
from reading.verbs import Said, command
from transferscope import Recommendation
from transferscope.errors import TransferscopeError
from transferscope.protocols.training.recipe import Recipe

NETWORKS = Path(__file__).with_name("networks.py")
PER_CLASS = 17
"""Of three classes."""


@dataclass(frozen=True)
class Answer:
    """What `rank` answers."""

    picks: dict[str, Recommendation]
    """What is recommended for each source that was ranked."""
    said: list[str]
    """Warnings, and what failed."""
    scores: xr.Dataset | None
    """Every score of every stage."""

    def accuracy(self, source: str) -> float | None:
        """Return the expected accuracy of a source, None where it was not ranked."""
        return self.picks[source].expected_accuracy if source in self.picks else None


LITTLE = Recipe(epochs=1, min_steps=20, budget_s=None)
"""How the network from scratch is trained that `rank` compares with; not by the clock, so that answers are the same."""
QUICK = {
    "samples_per_class": [4], "seeds": 1, "epochs": 1, "min_steps": 2, "test_samples": 12,
    "trust_code": True, "progress": False,
}  # fmt: skip


def made_by(factory: str, **kwargs: Any) -> dict[str, Any]:
    """Return the zoo entry of a network in networks.py."""
    return {
        "loader": "python",
        "factory": f"{NETWORKS}:{factory}",
        "kwargs": kwargs,
        "transform": {"size": SIDE},
    }


def of_timm(model: str, size: Any = SIDE, **rest: Any) -> dict[str, Any]:
    """Return the zoo entry of an architecture of timm; `kwargs` are among the rest."""
    return {"loader": "timm", "model": model, "transform": {"size": size}, **rest}


def zoo(folder: Path, **sources: dict[str, Any]) -> Path:
    """Write a zoo file."""
    entries = [{"name": name, **entry} for name, entry in sources.items()]
    path = folder / "zoo.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "sources": entries}), encoding="utf-8")
    return path


def target(folder: Path) -> Path:
    """Write the images that networks are ranked for; the same ones each time."""
    return write_folder(folder / "target", PER_CLASS)


def images(count: int = 6, height: int = SIDE, width: int = SIDE) -> Tensor:
    """Return images as tensors."""
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0))


def layers(path: Path, source: str) -> list[dict[str, Any]]:
    """Return what `layers` lists, nothing where it fails."""
    said = command("layers", source, "--sources", str(path), "--trust-code", "--format", "json")
    return json.loads(said.stdout) if said.code == 0 else []


def validated(path: Path) -> Said:
    """Return what `validate` says, which reads checkpoints where they can be read."""
    return command("validate", str(path), "--trust-code")


def listed(path: Path, source: str) -> Said:
    """Return what `layers` says."""
    return command("layers", source, "--sources", str(path), "--trust-code", "--format", "json")


def rank(folder: Path, path: Path, *, images_of: Path | None = None, **options: Any) -> Answer:
    """Return what `rank` answers and says."""
    source = images_of or target(folder)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            ranking = ts.rank(source, path, recipe=LITTLE, trust_code=True, progress=False, mode="quick", **options)
        except TransferscopeError as error:
            return Answer({}, [*warned(notes), str(error)], None)
    said = [*warned(notes), *(f"{each.source} failed: {each.error}" for each in ranking.failed)]
    return Answer({pick.source: pick for pick in ranking.recommendations if pick.layer}, said, ranking.scores)


@contextmanager
def cached_in(folder: Path) -> Iterator[None]:
    """Keep what is computed inside in a cache of its own, and find nothing that was computed before."""
    before = os.environ["TRANSFERSCOPE_HOME"]
    os.environ["TRANSFERSCOPE_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ["TRANSFERSCOPE_HOME"] = before


def measure(folder: Path, path: Path, protocols: str, depths: Sequence[int] = (-1,)) -> list[dict[str, Any]]:
    """Return the runs of `measure`, after little training."""
    measurement = ts.measure(
        target(folder), path, output=folder / "measure", protocols=protocols.split(","), depths=depths, **QUICK
    )
    return measurement.runs.to_dict("records")


def statuses(runs: list[dict[str, Any]]) -> str:
    """Say what became of runs."""
    return "; ".join(f"{run['source']} {run['protocol']} at {run['depth']}: {run['status']}" for run in runs)


def all_done(runs: list[dict[str, Any]]) -> bool:
    """Whether there are runs, and all of them are done."""
    return bool(runs) and all(run["status"] == "done" for run in runs)
