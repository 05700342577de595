"""One architecture through the verbs, in a process of its own: what came of each, as one line of JSON."""

import json
import resource
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

import transferscope as ts
from reading.families import Architecture
from reading.truth import Truths
from reading.verbs import FAILED, OK, REFUSED, WRONG, Said, command, verdict
from transferscope.errors import TransferscopeError
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import Source, load_zoo

PROTOCOLS = ("truncate", "reinit", "finetune")
DEPTHS = ("first", "middle", "last")
CELLS = tuple(f"{protocol} {depth}" for protocol in PROTOCOLS for depth in DEPTHS)
CHECKS = ("images", "layout", "tokens", "classifier", "parameters", "cut")
COLUMNS = ("layers", "rank", "compare", *CELLS, *CHECKS)

BATCH = ("-b", "17", "--samples", "51")
"""As many images in a batch as a class token and 16 patches are tokens."""
QUICK: dict[str, Any] = {
    "samples_per_class": [6], "seeds": 1, "epochs": 1, "min_steps": 3, "test_samples": 12,
}  # fmt: skip
REFERENCE = ("--reference-epochs", "1", "--reference-budget", "3")

Result = tuple[str, str]


def examine(architecture: Architecture, target: Path, model_folder: Path) -> dict[str, Any]:
    """Return what came of each column, with what is known of the network."""
    began = time.perf_counter()
    zoo, name = _zoo(architecture, model_folder), architecture.model
    record: dict[str, Any] = {"stages": 0, "parameters": 0}
    results: dict[str, Result] = {}
    said = command("layers", name, "--sources", str(zoo), "--format", "json")
    results["layers"] = _outcome(said)
    stages = json.loads(said.stdout) if said.code == 0 else []
    record["stages"] = len(stages)
    if stages and any(stage["flops"] is None for stage in stages):
        record["flops"] = "unknown"
    over = ("--sources", str(zoo), "--target", str(target), "-q", "-o", str(model_folder / "rank"))
    results["rank"] = _ranked(command("rank", *over, "--format", "json", *BATCH, *REFERENCE))
    results["compare"] = _compared(name, target, zoo)
    results |= _measured(target, zoo, model_folder / "measure", len(stages))
    try:
        truths = Truths(load_network(load_zoo(zoo)[name]))
        record["parameters"] = sum(p.numel() for p in truths.net.parameters())
        record["maps"] = len(truths.maps)
        results |= {check: _checked(truths.checks()[check]) for check in CHECKS}
    except Exception as error:  # what cannot be looked at is one more finding
        results |= dict.fromkeys(CHECKS, (FAILED, _said(error)))
    return {**record, "results": results, "seconds": round(time.perf_counter() - began, 1)}


def _zoo(architecture: Architecture, folder: Path) -> Path:
    entry: dict[str, Any] = {
        "name": architecture.model,
        "loader": "timm",
        "model": architecture.model,
        "kwargs": architecture.kwargs,
        "transform": {"size": architecture.size},
    }
    if "weights" in Source.model_fields:
        entry["weights"] = "none"
    else:
        import timm

        torch.manual_seed(0)
        torch.save(timm.create_model(architecture.model, **architecture.kwargs).state_dict(), folder / "drawn.pt")
        entry["checkpoint"] = "drawn.pt"
    path = folder / "zoo.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "sources": [entry]}))
    return path


def _outcome(said: Said) -> Result:
    return (OK, "") if said.code == 0 else (verdict(said.message), said.message)


def _ranked(said: Said) -> Result:
    if said.code:
        return _outcome(said)
    found = json.loads(said.stdout)
    if found["failed"]:
        message = found["failed"][0]["error"]
        return verdict(message), message
    [row] = [row for row in found["ranking"] if row["source"] != "scratch"] or [None]
    if row is None or not 0 < row["expected_accuracy"] <= 1:
        return WRONG, "no expected accuracy"
    return OK, ""


def _compared(name: str, target: Path, zoo: Path) -> Result:
    """Tell whether each layer has a similarity of 1 with itself."""
    try:
        found = ts.compare_sources(name, name, target, zoo, batch_size=17, samples=51, progress=False)
    except Exception as error:
        return _raised(error)
    table = found.table
    for layer, value in table[table["layer_x"] == table["layer_y"]][["layer_x", "value"]].itertuples(index=False):
        if not abs(value - 1) < 1e-3:
            return WRONG, f"similarity of {layer} with itself is {value}"
    return OK, ""


def _measured(target: Path, zoo: Path, folder: Path, stages: int) -> dict[str, Result]:
    if not stages:
        return dict.fromkeys(CELLS, (REFUSED, "there are no stages to cut at"))
    depths = dict(zip(DEPTHS, (1, (stages + 1) // 2, stages), strict=True))
    wanted = {"protocols": PROTOCOLS, "depths": sorted(set(depths.values())), "output": folder}
    try:
        runs = ts.measure(target, zoo, progress=False, **wanted, **QUICK).runs
    except Exception as error:
        return dict.fromkeys(CELLS, _raised(error))
    rows = zip(runs["protocol"], runs["depth"], runs["status"], strict=True)
    status = {(protocol, depth): text for protocol, depth, text in rows}
    found = {}
    for protocol in PROTOCOLS:
        for depth, kept in depths.items():
            text = status.get((protocol, kept), "failed: not among the runs").removeprefix("failed: ")
            found[f"{protocol} {depth}"] = (OK, "") if text == "done" else (verdict(text), text)
    return found


def _raised(error: Exception) -> Result:
    if isinstance(error, TransferscopeError):
        return verdict(str(error)), str(error)
    return FAILED, _said(error)


def _checked(check: Callable[[], str]) -> Result:
    try:
        wrong = check()
    except Exception as error:
        return _raised(error)
    return (WRONG, wrong) if wrong else (OK, "")


def _said(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(place.filename).name}:{place.lineno})"


def main(architecture: Architecture, folder: Path, limit: int) -> None:
    """Write the record of one architecture into `folder`; the process ends after `limit` seconds on a processor."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    with tempfile.TemporaryDirectory() as own:
        record = examine(architecture, folder / "target", Path(own))
    (folder / f"{architecture.model}.json").write_text(json.dumps(record), encoding="utf-8")
