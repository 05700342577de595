"""Small source networks of one architecture, trained here on real images, each with the weights it began with.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/sources.py OUT [NAME ...]

writes OUT/NAME.initial.safetensors, OUT/NAME.safetensors and OUT/NAME.json (what it was trained on, and how well); what
is there already is not trained again. A source is trained on the set's own `train` split where there is one, else on
all of its images, a tenth set aside. `random-labels` are images of CIFAR-10 whose labels were permuted; `TASKS` are
five of its classes each.
"""

import json
import os
import runpy
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from transferscope import load_target
from transferscope.data.bank import Bank
from transferscope.data.images import Transform
from transferscope.data.target import Target
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import fit
from transferscope.runtime.seeding import seeded

SOURCES = ("gtsrb", "cifar10", "mnist", "sign-digits", "pacs-photo", "omniglot", "random-labels")
ANIMALS = ("cat", "deer", "dog", "frog", "horse")
VEHICLES = ("airplane", "automobile", "ship", "truck", "bird")
"""And a bird."""
TASKS = {f"cifar10-{n}-animals": ANIMALS[:n] + VEHICLES[: 5 - n] for n in (5, 3, 1, 0)}
IMAGES_OF = {"random-labels": "cifar10"} | dict.fromkeys(TASKS, "cifar10")
NETWORK = Path(__file__).resolve().with_name("network.py")
SEED, WIDTH, OUTPUTS = 0, 8, 136
"""As many outputs as omniglot has characters, for all: so that they are one architecture."""
TRANSFORM = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
VIEWS = 300_000
"""Training images that go through a network, each as often as it does: as much training for small sets as for large."""


def recipe(epochs: int) -> Recipe:
    return Recipe(epochs=epochs, batch_size=64, learning_rate=0.1, patience=epochs, budget_s=None)


def unpack(real: Path, name: str, folder: Path) -> Path:
    with zipfile.ZipFile(real / "data" / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder / name


def trained_on(target: Target) -> np.ndarray:
    """Return which images of a set a source learns from or is stopped by."""
    return np.array(target.split) == "train" if "train" in target.split else np.ones(len(target), dtype=bool)


def train(
    images: Path, name: str, out: Path, build: Callable[[int], nn.Module], epochs: int | None
) -> dict[str, object]:
    """Train one source and return what is known of it."""
    target = load_target(images)
    seen = trained_on(target)
    if name in TASKS:
        seen &= np.isin(np.array(target.classes)[target.labels], TASKS[name])
    indices = np.flatnonzero(seen)
    bank = Bank(target, Transform(**TRANSFORM))
    bank.add(indices)
    pictures, labels = bank.images(indices), torch.from_numpy(target.labels[indices])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    if name == "random-labels":
        labels = labels[order]
    with seeded(SEED):
        net = build(len(target.classes))
    save_file(net.state_dict(), out / f"{name}.initial.safetensors")
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[order[: len(labels) // 10]] = True
    chosen = recipe(epochs or max(10, round(VIEWS / int((~held_out).sum()))))
    started = time.monotonic()
    # With random labels the loss on others only grows: the last weights are kept.
    validation = None if name == "random-labels" else (pictures[held_out], labels[held_out])
    record = fit(net, pictures[~held_out], labels[~held_out], validation, recipe=chosen, seed=SEED)
    save_file(net.state_dict(), out / f"{name}.safetensors")
    return {
        "classes": len(labels.unique()), "images": int((~held_out).sum()), "seconds": time.monotonic() - started,
        "accuracy": record.validation_accuracy if validation else None, "recipe": asdict(chosen), "seed": SEED,
    }  # fmt: skip


def prepare(
    real: Path,
    out: Path,
    names: Sequence[str],
    *,
    factory: str = "small",
    width: int = WIDTH,
    outputs: int | None = OUTPUTS,
    epochs: int | None = None,
) -> list[dict[str, object]]:
    """Train the sources that are not there yet, and return their entries in a zoo.

    Without `outputs` a network has one for each of its classes.
    """
    out.mkdir(parents=True, exist_ok=True)
    build = runpy.run_path(str(NETWORK))[factory]
    sources = []
    for name in names:
        facts, path = out / f"{name}.json", out.resolve() / f"{name}.safetensors"
        if not facts.exists():
            with tempfile.TemporaryDirectory() as folder:
                images = unpack(real, IMAGES_OF.get(name, name), Path(folder))
                trained = train(images, name, out, lambda classes: build(outputs or classes, width), epochs)
                facts.write_text(json.dumps(trained, indent=1))
        known = json.loads(facts.read_text())
        print(f"{name}: {known['images']} images, validation accuracy {known['accuracy']}", file=sys.stderr, flush=True)
        sources.append({
            "name": name, "loader": "python", "factory": f"{NETWORK}:{factory}",
            "checkpoint": str(path), "initial": str(out.resolve() / f"{name}.initial.safetensors"),
            "kwargs": {"classes": outputs or known["classes"], "width": width}, "transform": TRANSFORM,
            "layers": ["stem", "blocks.*"],
        })  # fmt: skip
    return sources


def real_data() -> Path:
    """Return the folder with real data, or stop."""
    folder = os.environ.get("TRANSFERSCOPE_REAL")
    if not folder:
        sys.exit("Set TRANSFERSCOPE_REAL to the folder with real data.")
    return Path(folder)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Name a folder for the networks.")
    prepare(real_data(), Path(sys.argv[1]), sys.argv[2:] or SOURCES)
